/* parking: files that nobody needs any more, but that somebody is copying: while it is held they are not removed, but
 * remembered, and go when it is let go.
 *
 * Life cycle: zero-initialised with its os ▸ parking_hold, parking_unlink, parking_step … ▸ parking_fini. Who holds says so on
 * any thread (struct hold); who removes files looks once a turn. One thread, but for hold.
 */
#ifndef MILLRACE_JOURNAL_PARKING_H
#define MILLRACE_JOURNAL_PARKING_H

#include "os/os.h"

#include <stdatomic.h>

struct parking {
    struct os *os;
    bool held;
    char **paths;
    size_t len, cap;
};

/* Between threads: how many hold, and whether the removing thread has seen it. */
struct hold {
    _Atomic int wanted;
    _Atomic bool seen;
};

/* What the removing thread does at the beginning of each turn. */
static inline void parking_look(struct parking *parking, struct hold *hold)
{
    parking->held = atomic_load_explicit(&hold->wanted, memory_order_acquire) > 0;
    atomic_store_explicit(&hold->seen, parking->held, memory_order_release);
}

/* Removes the file, or while held remembers it. As os->unlink. */
MUST_USE int parking_unlink(struct parking *parking, const char *path);
/* Not held: removes one of those that were remembered. True: it did, and there may be more. */
bool parking_step(struct parking *parking);
/* Forgets them: the next start removes what is left. */
void parking_fini(struct parking *parking);

#endif
