/* over_rows: what the files of op_over share: rows, partitions, results. A function that answers false has run out of memory, or what is behind it has
 * failed; step->fault says which. */
#ifndef MILLRACE_SQL_QUERY_OVER_ROWS_H
#define MILLRACE_SQL_QUERY_OVER_ROWS_H

#include "sql/query/op_over.h"
#include "sql/query/ordered.h"

/* A row: this, its cells (see over_time.c), then the bytes of its sort key, its arguments and what is passed on. */
struct over_row {
    struct ordered_row node;
    struct entry *of;
    struct over_row *next; /* of those that are used together */
    int64_t at;            /* the first value that is ordered by, for RANGE; ascending */
    uint32_t key_len, args_len, len;
    bool kept; /* in its partition's queue */
    struct cell cells[] __attribute__((aligned(16)));
};

/* Of a partition with a clock: its last rows, in two parts: each row of the front has in its cells all from it to the end of the front, the back has one
 * sum of all. So a frame is one row's cells and the back, and what leaves it costs nothing. */
struct over_queue {
    struct over_row *first, *last, *front_last;
    const struct over_row *newest; /* that was used last; it may be gone by the next one */
    uint32_t count;
    struct cell back[] __attribute__((aligned(16)));
};

struct over {
    struct op op;
    struct over_rule rule;
    uint32_t keys, order_count, arg_count, pass_count, aggregate_count, pick_count, result_count;
    uint32_t cell_count; /* of a row */
    struct aggregate *aggregates;
    struct over_pick *picks;
    bool framed;         /* some pick is of a row of the frame */
    uint32_t first_rows; /* of a frame from the first row on that picks may ask for */
    struct sort_item *order;
    struct sql_type *key_types, *arg_types, *types; /* types: of the output */
    struct table parts;                             /* payload: struct ordered, or struct over_queue */
    struct ordered pending;                         /* with a clock: rows that are not used yet, of all partitions */
    struct pieces pieces, entries;
    uint64_t number;
    struct column *args; /* of one row, over arg_room and arg_nulls */
    decimal_t *arg_room;
    uint64_t *arg_nulls;
    struct cell *sum; /* of a frame */
    struct emitter m;
    struct arena scratch;
};

static inline struct over_row *over_row_of(struct ordered_row *node)
{
    return node ? CONTAINER_OF(node, struct over_row, node) : NULL;
}

static inline struct ordered *over_list(struct entry *e)
{
    return (struct ordered *)(void *)e->bytes;
}

static inline struct over_queue *over_queue(struct entry *e)
{
    return (struct over_queue *)(void *)e->bytes;
}

static inline struct slice over_args(const struct over_row *row)
{
    return slice_of(row->node.key + row->key_len, row->args_len);
}

static inline struct slice over_values(const struct over_row *row)
{
    return slice_of(row->node.key + row->key_len + row->args_len, row->len);
}

/* Whether ORDER BY takes them for equal. */
static inline bool over_peers(const struct over_row *a, const struct over_row *b)
{
    return slice_equal(sort_key_values(ordered_key(&a->node)), sort_key_values(ordered_key(&b->node)));
}

/* A frame as picks see it: its first and its last row, and one in the list that is not there. */
struct over_view {
    const struct over_row *first, *last, *skip;
};

static inline struct over_row *over_before(const struct over_row *row, const struct over_row *skip)
{
    struct over_row *b = over_row_of(row->node.before);
    return b && b == skip ? over_row_of(b->node.before) : b;
}

static inline struct over_row *over_after(const struct over_row *row, const struct over_row *skip)
{
    struct over_row *a = over_row_of(row->node.after);
    return a && a == skip ? over_row_of(a->node.after) : a;
}

static inline int64_t over_least(const struct over *o, int64_t at)
{
    int64_t least;
    return __builtin_sub_overflow(at, o->rule.reach, &least) ? INT64_MIN : least;
}

/* op_over.c. NULL: no memory. */
struct over_row *over_row_new(struct over *o, struct entry *of, int64_t at, struct slice key, struct slice args,
                              struct slice values);
void over_row_free(struct over *o, struct over_row *row);
bool over_add(struct over *o, struct step *step, struct cell *cells, const struct over_row *row);
/* The row with these results: of cells, or as picks find them in the view. One whose result has a fault is diverted, and not pushed. */
bool over_emit(struct over *o, struct step *step, uint32_t origin, int weight, const struct over_row *row,
               const struct cell *cells, const struct over_view *view);
/* The first row of the list with that order, arguments and values; NULL: there is none. of NULL: of any partition. */
struct over_row *over_find(const struct ordered *list, const struct entry *of, struct slice key, struct slice args,
                           struct slice values);
void over_save_row(const struct over_row *row, struct state_writer *w);
/* NULL: no memory, or the reader has failed. */
struct over_row *over_load_row(struct over *o, struct entry *of, struct state_reader *r);
struct entry *over_load_part(struct over *o, bool make, struct state_reader *r);

/* over_time.c: with a clock */
bool over_time_add(struct over *o, struct over_row *row);
bool over_time_settle(struct over *o, struct step *step, int64_t watermark);
void over_time_save(const struct over *o, struct state_writer *w);
bool over_time_load(struct over *o, struct state_reader *r);
void over_time_fini(struct over *o);

/* over_change.c: without */
bool over_change(struct over *o, struct step *step, uint32_t origin, struct over_row *row, int weight);

#endif
