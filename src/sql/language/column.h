/* column: a batch's values of one column, and which rows of a batch are meant.
 *
 * values[i] is row i's; what stands where a row is NULL, or is not selected, means nothing. All of it is in the arena of the batch
 * and ends with it. One thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_COLUMN_H
#define MILLRACE_SQL_LANGUAGE_COLUMN_H

#include "sql/language/type.h"

#define BATCH_ROWS_MAX 4096u

struct column {
    enum sql_form form;
    bool constant;   /* values[0] and bit 0 are those of all rows */
    void *values;    /* uint8_t, int64_t, double, decimal_t, struct slice or struct interval */
    uint64_t *nulls; /* bit i: row i is NULL; NULL pointer: none is */
};

/* Rows of a batch: at[0 … count - 1], ascending; at NULL: 0 … count - 1. */
struct sel {
    const uint16_t *at;
    uint32_t count;
};

static inline uint32_t sel_row(struct sel sel, uint32_t k)
{
    return sel.at ? sel.at[k] : k;
}

static inline bool bit_at(const uint64_t *bits, uint32_t i)
{
    return bits[i / 64] >> (i % 64) & 1;
}

static inline void bit_set(uint64_t *bits, uint32_t i)
{
    bits[i / 64] |= (uint64_t)1 << (i % 64);
}

static inline size_t bits_size(uint32_t rows)
{
    return (rows + 63) / 64 * sizeof(uint64_t);
}

static inline bool column_null(const struct column *c, uint32_t row)
{
    return c->nulls && bit_at(c->nulls, c->constant ? 0 : row);
}

/* Which value is row's: row & column_mask. */
static inline uint32_t column_mask(const struct column *c)
{
    return c->constant ? 0 : UINT32_MAX;
}

#endif
