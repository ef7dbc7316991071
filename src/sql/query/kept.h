/* kept: rows that an operator keeps, each in one piece of memory: which values are NULL, the values, then the bytes of their texts.
 *
 *   kept_layout_init ▸ { kept_copy | kept_give }* ▸ kept_layout_fini
 *
 * One thread.
 */
#ifndef MILLRACE_SQL_QUERY_KEPT_H
#define MILLRACE_SQL_QUERY_KEPT_H

#include "sql/query/table.h"

struct kept_layout {
    uint32_t count;
    const uint32_t *columns; /* of the batches from which rows are copied; lent */
    enum sql_form *forms;
    uint32_t *offsets; /* of values in kept.bytes */
    uint32_t fixed;    /* bytes of a row without its texts */
};

struct kept {
    struct kept *next, *prev; /* of the same key, in the order in which they came */
    struct entry *key;        /* NULL: in no table */
    int64_t end;              /* when the clock is beyond it, no later row can match */
    uint64_t number;          /* in the order of coming */
    uint32_t len;             /* of the piece */
    uint32_t matches;
    bool gone; /* taken back before its end */
    uint8_t bytes[] __attribute__((aligned(16)));
};

/* Types of the columns that are kept. False: no memory. */
MUST_USE bool kept_layout_init(struct kept_layout *l, const uint32_t *columns, const struct sql_type *types,
                               uint32_t count);
void kept_layout_fini(struct kept_layout *l);
/* Copies these rows of a batch; what stands in front of bytes is zero but for len. False: no memory, nothing is kept. */
MUST_USE bool kept_copy(const struct kept_layout *l, struct pieces *pieces, const struct batch *b, const uint16_t *rows,
                        uint32_t count, struct kept **ret);
void kept_give(struct pieces *pieces, struct kept *row);

static inline bool kept_null(const struct kept *row, uint32_t i)
{
    return row->bytes[i / 8] >> (i % 8) & 1;
}

/* The value of kept column i; not for NULL. */
static inline const void *kept_value(const struct kept_layout *l, const struct kept *row, uint32_t i)
{
    return row->bytes + l->offsets[i];
}

bool kept_same(const struct kept_layout *l, const struct kept *a, const struct kept *b);
/* Column i of these rows, NULL for those that are NULL; texts are views of the rows. False: no memory. */
MUST_USE bool kept_gather(const struct kept_layout *l, uint32_t i, struct kept *const *rows, uint32_t count,
                          struct arena *arena, struct column *ret);

/* Its values as bytes and back, see state.h; what stands in front of them is the caller's. False: the reader has failed, or there is no memory. */
void kept_save(const struct kept_layout *l, const struct kept *row, struct state_writer *w);
MUST_USE bool kept_load(const struct kept_layout *l, struct pieces *pieces, struct state_reader *r, struct kept **ret);

#endif
