/* share_ranges: what of a partition a share group has in flight: from `start`, below which everything is done with, to `end`, behind
 * which nobody was given anything, as runs of offsets in the same state, without a gap between them.
 *
 * What is done with is one state whatever the reason, so that a hole costs a range and a span of holes no more than one. No range is
 * done with at the start, and neighbours differ: so there are at most twice as many ranges as records that are not done with.
 * Life cycle: share_ranges_init → { share_ranges_reserve ▸ share_ranges_put } … → share_ranges_fini.
 * Core thread. Memory is MEM_GROUPS; who owns the ranges counts it: share_ranges_bytes.
 */
#ifndef MILLRACE_CORE_SHARE_RANGES_H
#define MILLRACE_CORE_SHARE_RANGES_H

#include "base/types.h"

struct share_hold;

enum share_state {
    SHARE_AVAILABLE,
    SHARE_ACQUIRED, /* by `holder`, until `until` */
    SHARE_GONE,     /* accepted, rejected, given up, or not there at all */
};

struct share_range {
    uint64_t first, last;
    struct share_hold *holder; /* of ACQUIRED; else NULL */
    mono_t until;              /* of ACQUIRED; else 0 */
    uint16_t count;            /* deliveries; of GONE 0 */
    uint8_t state;             /* enum share_state */
};

struct share_change { /* what becomes of some records */
    struct share_range to;
    struct share_hold *from; /* who has them; NULL: nobody */
};

struct share_ranges {
    struct share_range *at;
    uint32_t count, max;
    uint64_t start, end;
    uint64_t live;      /* records that are not GONE … */
    uint64_t available; /* … of them, those that nobody has */
};

void share_ranges_init(struct share_ranges *r, uint64_t start);
void share_ranges_fini(struct share_ranges *r);
size_t share_ranges_bytes(const struct share_ranges *r);
/* How many ranges there is room for once so many changes have room, too. */
uint32_t share_ranges_wanted(const struct share_ranges *r, uint32_t changes);
MUST_USE bool share_ranges_reserve(struct share_ranges *r, uint32_t changes); /* false: no memory */
void share_ranges_shrink(struct share_ranges *r);                             /* memory that is not needed any more */
/* The changes ascend, and room is reserved for them. What lies below the start is left out; what lies between the end and a change
 * is AVAILABLE then. One pass: costs the changes, and what is behind the first of them. */
void share_ranges_put(struct share_ranges *r, const struct share_change *changes, uint32_t count);
/* Everything below is done with. Takes no memory. */
void share_ranges_trim(struct share_ranges *r, uint64_t start);
/* The range with the offset, which is in [start, end), or the first one if it is below; count: behind the last. */
uint32_t share_ranges_find(const struct share_ranges *r, uint64_t offset);
bool share_ranges_alike(const struct share_range *a, const struct share_range *b); /* but for their places */
void share_ranges_check(const struct share_ranges *r);

#endif
