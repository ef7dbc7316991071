/* wheel: hierarchical timing wheel with intrusive timers.
 *
 * Four levels of 64 slots over ticks of 2^20 ns (about 1 ms): timers within 4.9 hours are exact to a tick, later ones are
 * parked in the last level and re-placed. Adding and cancelling are O(1). One thread. Time in: mono_t.
 * Life cycle: wheel_init → timer_init on each timer → wheel_set/wheel_cancel … wheel_turn.
 */
#ifndef MILLRACE_BASE_WHEEL_H
#define MILLRACE_BASE_WHEEL_H

#include "base/list.h"

#define WHEEL_LEVELS 4
#define WHEEL_SLOTS 64

struct timer {
    struct list link;
    mono_t due;
    void (*fire)(void *arg, struct timer *timer); /* not in the wheel any more when called; may set itself again */
};

struct wheel {
    struct list slots[WHEEL_LEVELS][WHEEL_SLOTS];
    struct list due; /* taken out of their slots by a turn, and not fired yet because it had fired its max */
    uint64_t used[WHEEL_LEVELS]; /* bit per non-empty slot (may be stale-set, never stale-clear) */
    uint64_t tick;
    uint32_t count;
};

void wheel_init(struct wheel *wheel, mono_t now);
void timer_init(struct timer *timer, void (*fire)(void *arg, struct timer *timer));

static inline bool timer_is_set(const struct timer *timer)
{
    return !list_empty(&timer->link);
}

/* Sets or moves. A due in the past fires a tick later at the latest, never within the turn that is going on. */
void wheel_set(struct wheel *wheel, struct timer *timer, mono_t due);
void wheel_cancel(struct wheel *wheel, struct timer *timer);

/* Fires up to max timers that are due; returns how many. Call again when it returned max. */
unsigned wheel_turn(struct wheel *wheel, mono_t now, void *arg, unsigned max);

/* When wheel_turn should be called next at the latest: a lower bound, MONO_NEVER when empty. */
mono_t wheel_next(const struct wheel *wheel);

#endif
