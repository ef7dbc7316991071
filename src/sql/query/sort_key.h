/* sort_key: the values by which rows are ordered as bytes that memcmp puts in that order: ORDER BY a DESC NULLS FIRST, b. Behind them the number
 * of the row's coming, so that no two are the same, and rows that ORDER BY takes for equal stand as they came, or newest first.
 *
 * Any thread.
 */
#ifndef MILLRACE_SQL_QUERY_SORT_KEY_H
#define MILLRACE_SQL_QUERY_SORT_KEY_H

#include "base/arena.h"
#include "sql/language/column.h"

#define SORT_KEY_MAX (1u << 20)
#define SORT_NUMBER_LEN sizeof(uint64_t)

struct sort_item {
    bool descending, nulls_first;
};

/* Of the first `count` columns; in the arena. False: no memory, or longer than SORT_KEY_MAX (*ret_fault). */
MUST_USE bool sort_key(struct arena *arena, const struct column *columns, const struct sort_item *items, uint32_t count,
                       uint32_t row, uint64_t number, bool newest_first, struct slice *ret, enum sql_fault *ret_fault);
/* The key without the number of coming: what ORDER BY says of the row. */
static inline struct slice sort_key_values(struct slice key)
{
    return slice_of(key.ptr, key.len < SORT_NUMBER_LEN ? 0 : key.len - SORT_NUMBER_LEN);
}
/* int64_t in 8 bytes. */
void sort_put_i64(uint8_t *out, int64_t v);

#endif
