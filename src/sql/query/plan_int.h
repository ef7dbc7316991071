/* plan_int: what the files of the planner share. A function that answers NULL or false has set the error.
 *
 * A stage is a relation while it is planned: a node that makes columns, conditions on them, and names for expressions over them. SELECT,
 * WHERE and views only change conditions and names, so that however they are nested one projection remains. What a name
 * means is found out when somebody uses it: of a stream nothing is decoded that nobody reads.
 */
#ifndef MILLRACE_SQL_QUERY_PLAN_INT_H
#define MILLRACE_SQL_QUERY_PLAN_INT_H

#include "sql/language/bind_int.h"
#include "sql/language/window_function.h"
#include "sql/query/op_aggregate.h"
#include "sql/query/op_join.h"
#include "sql/query/op_latest.h"
#include "sql/query/op_match.h"
#include "sql/query/op_over.h"
#include "sql/query/op_topn.h"
#include "sql/query/plan.h"

#define PLAN_COLUMNS_MAX 512u
#define PLAN_VIEWS_MAX 64u   /* nested */
#define NO_COLUMN UINT32_MAX /* of an expression that stands for a window's edge */

struct source;

/* The meaning of a name. */
struct lazy {
    struct expr *x; /* NULL: not yet */
    struct source *source;
    uint32_t element;  /* of the stream's statement; behind them pseudo-columns */
    struct node *join; /* or: what `of` means on a side of it */
    unsigned side;
    struct node *pass; /* or: what `of` means, passed on by an operator */
    struct lazy *of;
};

struct named {
    struct slice table, name;
    struct lazy *lazy;
    bool hidden;    /* a star passes it over */
    bool qualified; /* it is found with its table only */
};

/* TUMBLE and its like over a stage, until GROUP BY takes it. */
struct windowing {
    struct span_rule rule;
    struct expr *time, *start, *end, *middle; /* middle: window_time, the last millisecond of the window */
    const struct ast *place;
    bool keyed; /* of SESSION(TABLE …): by these values, which GROUP BY has to name */
    struct expr **partition;
    uint32_t partition_count;
};

/* What f(…) OVER (…) means in a SELECT. */
struct window_call {
    const struct ast *ast;
    struct lazy *lazy;
};

#define WINDOW_CALLS_MAX 64u

struct stage {
    struct node *node;
    struct expr *filters[64];
    uint32_t filter_count;
    struct named *names;
    uint32_t count, room;
    struct windowing *windowing;
    struct window_call *calls;
    uint32_t call_count;
};

#define ORDER_ITEMS_MAX 32u

/* Of a node that numbers the rows of partitions; its first column is the number. */
struct ranking {
    const struct ast *place;
    struct topn_rule rule; /* limit 0: nobody has said how many rows are wanted */
    struct sort_item order[ORDER_ITEMS_MAX];
    uint32_t order_count;
    struct expr *number;
};

/* Of a node that computes over frames; its first columns are the results. */
struct framing {
    struct over_rule rule;
    struct sort_item order[ORDER_ITEMS_MAX];
    uint32_t order_count, arg_count;
    struct aggregate aggregates[WINDOW_CALLS_MAX];
    uint32_t aggregate_count;
    struct over_pick picks[WINDOW_CALLS_MAX];
    uint32_t pick_count;
};

/* Two stages whose rows are one relation's: the values of each column of both. */
struct uniting {
    struct stage sides[2];
    struct expr **items[2];
};

/* The variables of a pattern and what it says of them; bits are variables. */
struct pattern {
    struct slice names[MATCH_VARIABLES_MAX];
    uint32_t count;
    struct match_code *code;
    uint32_t code_count;
    uint64_t first, always;    /* that a match may begin with; that every match has */
    const struct ast *endless; /* a part that may be repeated without end; NULL: none */
};

/* Of a node that is a MATCH_RECOGNIZE; its columns are the keys, then the measures. */
struct matching {
    struct match_rule rule;
    struct pattern pattern;
    struct match_lookup lookups[MATCH_LOOKUPS_MAX];
    struct aggregate aggregates[WINDOW_CALLS_MAX];
    uint32_t aggregate_of[WINDOW_CALLS_MAX];
};

struct node {
    struct source *source; /* a scan; or: */
    struct joining *join;  /* two stages; or: */
    struct uniting *unite; /* two whose columns are the same; or: */
    struct stage *input;
    struct expr **items; /* over the input's node: keys, time, arguments */
    uint32_t item_count, keys;
    struct span_rule rule;
    bool changes, retracts; /* retracts: rows may come with weight -1 */
    struct aggregate *aggregates;
    uint32_t aggregate_count;
    struct sql_type *types; /* of its columns */
    uint32_t type_count;
    struct ranking *rank;
    struct framing *frame;
    struct matching *match;
    struct expr **passed; /* its columns that are the items from pass_from on */
    uint32_t pass_from;
};

#define JOIN_KEYS_MAX 32u
#define JOIN_TESTS_MAX 32u
#define JOIN_CONDITIONS_MAX 128u

/* A value of a side against a clock, see op_join.h. */
struct join_limit {
    struct expr *x;
    const struct clock *clock;
    int64_t offset;
};

/* Two stages that are joined. The node's columns are outs: a column of a side becomes one when somebody asks for it, and only those that are asked
 * for by what is built are kept (used). Conditions are over outs until plan_join_finish has said where each belongs. */
struct joining {
    enum ast_join_kind kind;
    const struct ast *place;
    struct stage sides[2];
    struct join_column {
        unsigned side;
        struct expr *inner, *x;
        uint32_t used; /* number among those that are, plus 1 */
    } * outs;
    uint32_t out_count, used_count;
    bool finished;
    bool latest; /* it has a left side only, whose last row of each key it is */
    bool lookup; /* the right side is looked into when a left row comes */
    struct expr *on[JOIN_CONDITIONS_MAX];
    uint32_t on_count;
    struct expr *guards[2]; /* without it a row has no partner, but is given out; NULL: there is none */
    struct expr *keys[JOIN_KEYS_MAX][2];
    uint32_t key_count;
    struct {
        enum join_op op;
        struct expr *x[2];
    } tests[JOIN_TESTS_MAX];
    uint32_t test_count;
    struct join_limit ends[2][JOIN_BOUNDS_MAX], promises[2][JOIN_BOUNDS_MAX];
    uint32_t end_count[2], promise_count[2];
    bool changes;
};

struct planner {
    struct plan *plan;
    const struct catalog *catalog;
    struct arena *arena;
    struct sql_error *error;
    int emit; /* enum ast_emit_kind; -1: nothing was said */
    uint32_t nested;
    int64_t state_ttl; /* us, JOIN_TTL_NONE; -1: nothing was said */
    int64_t every;     /* us, of EMIT EVERY; 0: it was not said */
};

/* Making operators. */
struct build {
    struct planner *p;
    const struct ast *place;
    uint32_t copied;
    struct joining *joined; /* over whose columns the expressions are that are copied; NULL: it is no join */
};

void *plan_take(struct planner *p, const struct ast *place, size_t len);
void *plan_refuse(struct planner *p, const struct ast *place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
struct binder plan_binder(struct planner *p, const struct scope *scope);

/* plan_source.c */
bool plan_open(struct planner *p, const struct ast_create_stream *stream, struct slice alias, struct stage *ret);
/* The clock will be asked: what it needs is scanned. */
bool plan_use_clock(struct planner *p, const struct clock *clock, const struct ast *place);
/* The earlier of both. NULL: the error is set. */
const struct clock *plan_joint_clock(struct planner *p, const struct clock *a, const struct clock *b,
                                     const struct ast *place);
struct expr *lazy_expr(struct planner *p, struct lazy *lazy, const struct ast *place);
bool stage_name(struct planner *p, struct stage *s, struct slice table, struct slice name, struct lazy *lazy,
                const struct ast *place);
bool stage_name_expr(struct planner *p, struct stage *s, struct slice table, struct slice name, struct expr *x,
                     const struct ast *place);
/* An expression over a stage's names. */
struct expr *stage_bind(struct planner *p, struct stage *s, const struct ast *node);
struct expr *stage_bind_bool(struct planner *p, struct stage *s, const struct ast *node);

/* plan.c */
/* WITH (state_ttl = 'none' | interval) */
bool plan_options(struct planner *p, const struct ast_list *options);
struct op *build_keep(struct build *b, struct op *op);
bool build_stage(struct build *b, const struct stage *s, struct expr *const *items, uint32_t count, struct op *to);

/* plan_join.c */
bool plan_join(struct planner *p, const struct ast_join *ast, struct stage *ret);
/* Its parts: a stage of two sides to be filled in, the names of a side, a condition over the names (NULL: false). */
bool join_begin(struct planner *p, enum ast_join_kind kind, const struct ast *place, struct stage *ret);
bool join_names(struct planner *p, struct stage *ret, unsigned side, const struct ast *place);
bool join_on(struct planner *p, struct joining *j, struct expr *x);
/* All conditions are there: each goes where it belongs, and it is found out how long rows are kept. Any stage. */
bool plan_join_finish(struct planner *p, struct stage *s);
/* The join's column that is this one of a side. */
struct expr *join_column(struct planner *p, struct node *n, unsigned side, struct expr *inner, const struct ast *place);

/* plan_match.c: the stage's rows by a pattern. */
bool plan_match(struct planner *p, const struct ast_match *ast, struct stage *s);
/* plan_pattern.c */
bool plan_pattern(struct planner *p, const struct ast *ast, struct pattern *ret);
/* MATCH_ANY: there is none of that name. */
uint32_t pattern_variable(const struct pattern *pattern, struct slice name);

/* plan_exists.c */
/* WHERE, of which EXISTS and IN with queries become SEMI and ANTI joins; joins are finished. */
bool plan_where(struct planner *p, struct stage *s, const struct ast *where);

/* plan_bound.c */
/* Constant microseconds. False, and no error: it is no such interval. */
bool interval_us(const struct expr *x, int64_t *ret);
/* The column whose value + *ret_offset x is; x itself when it is nothing of the kind. */
struct expr *time_base(struct expr *x, int64_t *ret_offset);
bool plan_bounds(struct planner *p, struct joining *j);
/* What is known of the times of a column that the join makes. */
bool plan_out_clock(struct planner *p, const struct joining *j, const struct join_column *c);

/* plan_key.c: of the node's rows, with these values. */
void plan_key(struct plan *plan, const struct node *n, struct expr *const *items, uint32_t count);

/* plan_latest.c */
bool plan_latest(struct planner *p, const struct ast_create_stream *stream, struct slice alias, struct stage *ret);
/* FOR SYSTEM_TIME AS OF: the right side; the left one is there. */
bool plan_lookup(struct planner *p, const struct ast_relation *table, struct joining *j);
struct op *build_latest(struct build *b, struct node *n);

/* plan_every.c */
bool plan_every(struct planner *p, const struct ast_emit *e);
/* What all rows of the query go through last; to be linked. */
struct op *build_every(struct build *b, const struct stage *s, struct expr *const *items);

/* plan_union.c */
bool plan_union(struct planner *p, const struct ast_setop *s, struct stage *ret);
struct op *build_union(struct build *b, struct node *n);

/* build_join.c */
struct op *build_join(struct build *b, struct node *n);

/* plan_select.c */
/* The name that a value has when none is said. */
struct slice plan_own_name(const struct ast *x);
bool stage_filter(struct planner *p, struct stage *s, struct expr *x, const struct ast *place);
bool plan_from(struct planner *p, const struct ast *from, struct stage *ret);
/* A stream, table or view by name; FOR SYSTEM_TIME is not looked at. */
bool plan_named(struct planner *p, const struct ast_relation *r, struct stage *ret);
bool plan_query_stage(struct planner *p, const struct ast *query, struct stage *ret);

/* plan_group.c */
bool plan_windowed(struct planner *p, const struct ast_windowed *w, struct stage *s);
bool plan_grouped(struct planner *p, const struct ast_select *select, struct stage *input, struct stage *ret);
bool plan_distinct(struct planner *p, const struct ast *place, struct stage *s);
bool has_aggregate(const struct ast *node);
/* An operator over a stage; a column that it makes. */
struct node *plan_node(struct planner *p, const struct stage *input, const struct ast *place);
struct expr *plan_out(struct planner *p, struct node *n, struct sql_type type, const struct ast *place);
/* How long what is grouped by the node's first items is kept, and when it is given out. */
bool plan_rule(struct planner *p, struct node *n, uint32_t keys, const struct ast *place);
bool plan_check_key(struct planner *p, const struct expr *x, const struct ast *place);
void plan_bound(struct expr *out, const struct node *n, const struct expr *key);
/* A constant length of time. */
bool plan_duration(struct planner *p, const struct ast *node, int64_t *ret);

/* plan_over.c */
bool has_window_call(const struct ast *node);
/* Puts operators on the stage for what the SELECT computes OVER windows. */
bool plan_window_calls(struct planner *p, const struct ast_select *select, struct stage *s);
enum window_kind plan_window_kind(const struct ast_call *c);
/* Of a class: WINDOW_AGGREGATE when it is none of the others. */
enum window_class plan_window_class(const struct ast_call *c);
/* plan_pick.c: an argument or condition more, counted from the first one; how far a frame or a function reaches; a value of one row. */
bool plan_frame_item(struct planner *p, struct node *n, struct expr *x, const struct ast *place, uint32_t *ret);
bool plan_whole_number(struct planner *p, const struct ast *node, int64_t least, int64_t most, int64_t *ret);
bool plan_pick(struct planner *p, struct node *n, const struct ast_call *c, struct stage *s, struct sql_type *ret);
/* plan_frame.c: what these calls over the same window compute: LAG and LEAD; or aggregates, and behind them values of rows of the frame. */
bool plan_frame(struct planner *p, const struct ast_window *w, const struct ast_call *const *calls, uint32_t count,
                struct stage *s);
bool plan_distinct_on(struct planner *p, const struct ast_select *select, const struct ast_list *order,
                      struct stage *s);
/* The node's column that is this one of its input. */
struct expr *plan_passed(struct planner *p, struct node *n, struct expr *inner, const struct ast *place);

bool plan_add_call(struct planner *p, struct stage *s, const struct ast *ast, struct expr *x);

/* plan_rank.c */
bool plan_rank(struct planner *p, enum topn_ranking ranking, const struct ast *place, const struct ast_list *partition,
               const struct ast *const *order, uint32_t order_count, struct stage *s);
/* Takes out of a condition how many rows of a partition are wanted. *x NULL: nothing is left of it. */
bool plan_rank_limit(struct planner *p, struct node *n, struct expr **x, const struct ast *place);
/* Before the node is built: whether any of these asks for the number. */
void plan_rank_used(struct node *n, struct expr *const *items, uint32_t count);
/* Items that rows are ordered by, from n->items[*at] on. */
bool plan_order(struct planner *p, struct node *n, const struct ast *const *order, uint32_t count, struct stage *s,
                struct sort_item *ret, uint32_t *at);
/* The stage is the node's from now on; all that has a name in it is passed on. */
bool stage_through(struct planner *p, struct stage *s, struct node *n, const struct ast *place);

#endif
