/* plan_int: what the files of the planner share. A function that answers NULL or false has set the error.
 *
 * A stage is a relation while it is planned: a node that makes columns, conditions on them, and names for expressions over them. SELECT,
 * WHERE and views only change conditions and names, so that however they are nested one projection remains. What a name
 * means is found out when somebody uses it: of a stream nothing is decoded that nobody reads.
 */
#ifndef MILLRACE_SQL_PLAN_INT_H
#define MILLRACE_SQL_PLAN_INT_H

#include "sql/bind_int.h"
#include "sql/op_aggregate.h"
#include "sql/plan.h"

#define PLAN_COLUMNS_MAX 512u
#define PLAN_VIEWS_MAX 64u   /* nested */
#define NO_COLUMN UINT32_MAX /* of an expression that stands for a window's edge */

struct source;

/* The meaning of a name. */
struct lazy {
    struct expr *x; /* NULL: not yet */
    struct source *source;
    uint32_t element; /* of the stream's statement; behind them pseudo-columns */
};

struct named {
    struct slice table, name;
    struct lazy *lazy;
    bool hidden; /* a star passes it over */
};

/* TUMBLE and its like over a stage, until GROUP BY takes it. */
struct windowing {
    struct span_rule rule;
    struct expr *time, *start, *end;
    const struct ast *place;
};

struct stage {
    struct node *node;
    struct expr *filters[64];
    uint32_t filter_count;
    struct named *names;
    uint32_t count, room;
    struct windowing *windowing;
};

struct node {
    struct source *source; /* a scan; or: */
    struct stage *input;
    struct expr **items; /* over the input's node: keys, time, arguments */
    uint32_t item_count, keys;
    struct span_rule rule;
    bool changes, retracts; /* retracts: rows may come with weight -1 */
    struct aggregate *aggregates;
    uint32_t aggregate_count;
    struct sql_type *types; /* of its columns */
    uint32_t type_count;
};

struct planner {
    struct plan *plan;
    const struct catalog *catalog;
    struct arena *arena;
    struct sql_error *error;
    int emit; /* enum ast_emit_kind; -1: nothing was said */
    uint32_t nested;
};

void *plan_take(struct planner *p, const struct ast *place, size_t len);
void *plan_refuse(struct planner *p, const struct ast *place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
struct binder plan_binder(struct planner *p, const struct scope *scope);

/* plan_source.c */
bool plan_open(struct planner *p, const struct ast_create_stream *stream, struct slice alias, struct stage *ret);
/* The clock will be asked: what it needs is scanned. */
bool plan_use_clock(struct planner *p, const struct clock *clock, const struct ast *place);
struct expr *lazy_expr(struct planner *p, struct lazy *lazy, const struct ast *place);
bool stage_name(struct planner *p, struct stage *s, struct slice table, struct slice name, struct lazy *lazy,
                const struct ast *place);
bool stage_name_expr(struct planner *p, struct stage *s, struct slice table, struct slice name, struct expr *x,
                     const struct ast *place);
/* An expression over a stage's names. */
struct expr *stage_bind(struct planner *p, struct stage *s, const struct ast *node);
struct expr *stage_bind_bool(struct planner *p, struct stage *s, const struct ast *node);

/* plan_select.c */
bool plan_from(struct planner *p, const struct ast *from, struct stage *ret);
bool plan_query_stage(struct planner *p, const struct ast *query, struct stage *ret);

/* plan_group.c */
bool plan_windowed(struct planner *p, const struct ast_windowed *w, struct stage *s);
bool plan_grouped(struct planner *p, const struct ast_select *select, struct stage *input, struct stage *ret);
bool plan_distinct(struct planner *p, const struct ast *place, struct stage *s);
bool has_aggregate(const struct ast *node);

#endif
