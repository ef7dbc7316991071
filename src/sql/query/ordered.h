/* ordered: rows of a partition in their order: a treap whose rows are also linked to their neighbours. Rows are the owner's, the node is in them.
 *
 *   zeroes ▸ { ordered_add | ordered_remove | ordered_at_most }*
 *
 * Keys are bytes that are compared as such (sql/query/sort_key.h); no two rows have the same one. What comes out depends on the keys only, so a list
 * that is made again from a snapshot gives the same. All calls cost O(log count). One thread, nothing is allocated.
 */
#ifndef MILLRACE_SQL_QUERY_ORDERED_H
#define MILLRACE_SQL_QUERY_ORDERED_H

#include "base/types.h"

struct ordered_row {
    struct ordered_row *left, *right, *before, *after;
    const uint8_t *key; /* must not change its place among the others while the row is in a list */
    uint32_t key_len;
    uint32_t priority;
};

struct ordered {
    struct ordered_row *root, *first, *last;
    uint32_t count;
    uint32_t random;
};

/* Below, at or above 0: as memcmp, and a key that another one begins with is before it. */
int ordered_compare(struct slice a, struct slice b);
static inline struct slice ordered_key(const struct ordered_row *row)
{
    return slice_of(row->key, row->key_len);
}
/* key and key_len are set. */
void ordered_add(struct ordered *o, struct ordered_row *row);
void ordered_remove(struct ordered *o, struct ordered_row *row);
/* The last row whose key is at most that one; NULL: there is none. */
struct ordered_row *ordered_at_most(const struct ordered *o, struct slice key);

#endif
