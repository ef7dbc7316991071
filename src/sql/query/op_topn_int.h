/* op_topn_int: what the files of op_topn share. A function that answers false has run out of memory, or what is behind it has failed; step->fault says
 * which. */
#ifndef MILLRACE_SQL_QUERY_OP_TOPN_INT_H
#define MILLRACE_SQL_QUERY_OP_TOPN_INT_H

#include "sql/query/op_topn.h"
#include "sql/query/ordered.h"
#include "sql/query/spill.h"

struct row {
    uint32_t key_len, len;
    uint8_t bytes[] __attribute__((aligned(16))); /* sort key, values */
};

struct part {
    union {
        struct row *one;
        struct ordered rows;
    };
};

struct frame {
    int64_t time;
    struct table parts;
};

struct topn {
    struct op op;
    struct topn_rule rule;
    struct sql_type *types; /* of the output; behind the first one, of what is given out */
    uint32_t type_count;
    enum sql_form *forms;
    struct sql_type *key_types;
    uint32_t keys, order_count, from; /* from: the first column that is given out */
    struct sort_item *order;
    bool single, first_only;
    size_t node_len; /* in front of a row */
    struct frame **frames;
    uint32_t frame_count, frame_room;
    uint64_t number;
    struct pieces pieces;
    struct spill spill; /* of the partitions, when no time ends them: then they are given out in their order */
    struct emitter m;
    struct arena scratch;
};

static inline struct row *topn_row_of(const struct ordered_row *node)
{
    return (struct row *)(void *)((uint8_t *)(uintptr_t)node + sizeof *node);
}

static inline struct ordered_row *topn_node_of(struct row *row)
{
    return (struct ordered_row *)(void *)((uint8_t *)row - sizeof(struct ordered_row));
}

static inline struct slice topn_row_values(const struct row *row)
{
    return slice_of(row->bytes + row->key_len, row->len);
}

/* op_topn.c */
void topn_row_free(struct topn *t, struct row *row);
bool topn_emit(struct topn *t, struct step *step, uint32_t origin, int weight, const struct row *row, uint64_t number);
/* The values that are given out. False: no memory, or the row has been diverted (*ret_ok). */
bool topn_values_of(struct topn *t, struct step *step, const struct batch *b, uint32_t row, struct slice *ret,
                    bool *ret_ok);
/* The same as a row with that sort key. NULL: it is of no use, and *ret_ok says whether to go on. */
struct row *topn_row_make(struct topn *t, struct step *step, const struct batch *b, uint32_t row, struct slice key,
                          bool *ret_ok);

/* topn_list.c: partitions of several rows. A row of the batch comes, with that sort key, or is taken back. */
bool topn_list_add(struct topn *t, struct step *step, const struct batch *b, uint32_t at, struct ordered *rows,
                   struct slice key);
bool topn_list_take_back(struct topn *t, struct step *step, const struct batch *b, uint32_t at, struct ordered *rows,
                         struct slice key);
/* The first ones, with their numbers. */
bool topn_list_emit(struct topn *t, struct step *step, uint32_t origin, const struct ordered *rows);

#endif
