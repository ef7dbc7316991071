/* group_portions: sets of partitions, as sorted arrays: what a member holds, gives back, or shall have.
 *
 * A set is {0} at first and owns its block, which is MEM_GROUPS and counted in b->group_bytes, until portions_drop. Core thread.
 */
#ifndef MILLRACE_CORE_GROUP_PORTIONS_H
#define MILLRACE_CORE_GROUP_PORTIONS_H

#include "core/core_int.h"

struct portion {
    uint64_t stream; /* id of its queue */
    uint32_t partition;
};

struct portions {
    struct portion *at;
    uint32_t count;
};

int portion_order(const void *a, const void *b); /* for qsort */
bool portions_have(const struct portions *set, const struct portion *p);
bool portions_equal(const struct portions *a, const struct portions *b);
bool portions_meet(const struct portions *a, const struct portions *b); /* they have one in common */
/* Those of a that are in b (in true), or are not. The result takes the place of *ret, which may be a or b. False: no memory. */
MUST_USE bool portions_of(struct broker *b, struct portions *ret, const struct portions *a, const struct portions *in,
                          bool there);
/* Copies count of them, in any order, each once. False: no memory, and *ret is as it was. */
MUST_USE bool portions_set(struct broker *b, struct portions *ret, const struct portion *from, uint32_t count);
void portions_drop(struct broker *b, struct portions *set);

#endif
