/* Timing wheel, see wheel.h. A timer sits in the lowest level whose span holds its distance; when a level's index comes
 * round, the slot above is spread over the levels below. `tick` is the next tick to be entered: everything due before it
 * has fired or waits in `due`.
 *
 * A turn first takes every slot up to now into `due`, in the order of the ticks, and then fires from there. So a timer
 * that sets itself again for a time that has passed waits for the next tick instead of spinning within the turn, and a
 * turn that stops at its maximum loses nothing. Ticks at which nothing is due and no used slot is spread are jumped over.
 *
 * In a level above 0 the slot that `tick` stands in was spread when it was entered; what is in it now is a whole turn
 * ahead. Cancelling leaves the slot's bit in `used`: that costs a vain wake-up at the most, and the bit goes when its tick
 * comes or when the wheel is empty. One thread. */
#include "base/wheel.h"

#include "base/check.h"

#define TICK_SHIFT 20
#define LEVEL_BITS 6
#define SLOT_MASK (WHEEL_SLOTS - 1)

static uint64_t tick_of(mono_t t)
{
    return t <= 0 ? 0 : ((uint64_t)t + (1u << TICK_SHIFT) - 1) >> TICK_SHIFT; /* round up: never early */
}

void wheel_init(struct wheel *wheel, mono_t now)
{
    memset(wheel, 0, sizeof *wheel);
    for (int level = 0; level < WHEEL_LEVELS; level++)
        for (int slot = 0; slot < WHEEL_SLOTS; slot++)
            list_init(&wheel->slots[level][slot]);
    list_init(&wheel->due);
    wheel->tick = (uint64_t)now >> TICK_SHIFT;
}

void timer_init(struct timer *timer, void (*fire)(void *arg, struct timer *timer))
{
    list_init(&timer->link);
    timer->due = MONO_NEVER;
    timer->fire = fire;
}

static void place(struct wheel *wheel, struct timer *timer)
{
    uint64_t due = tick_of(timer->due);
    if (due < wheel->tick)
        due = wheel->tick;
    uint64_t away = due - wheel->tick;
    uint64_t span = 1ull << (LEVEL_BITS * WHEEL_LEVELS);
    if (away >= span)
        due = wheel->tick + span - 1;
    int level = 0;
    while (level < WHEEL_LEVELS - 1 && away >= 1ull << (LEVEL_BITS * (level + 1)))
        level++;
    unsigned slot = (unsigned)(due >> (LEVEL_BITS * level)) & SLOT_MASK;
    list_insert(&wheel->slots[level][slot], &timer->link);
    wheel->used[level] |= 1ull << slot;
}

void wheel_set(struct wheel *wheel, struct timer *timer, mono_t due)
{
    wheel_cancel(wheel, timer);
    timer->due = due;
    place(wheel, timer);
    wheel->count++;
}

void wheel_cancel(struct wheel *wheel, struct timer *timer)
{
    if (!timer_is_set(timer))
        return;
    list_remove(&timer->link);
    wheel->count--;
}

/* Appends all of `from` to `to`. */
static void move_all(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

/* The slot of `level` that the current tick has reached is spread over the levels below it. */
static void cascade(struct wheel *wheel, int level)
{
    unsigned slot = (unsigned)(wheel->tick >> (LEVEL_BITS * level)) & SLOT_MASK;
    struct list moved;
    list_init(&moved);
    move_all(&moved, &wheel->slots[level][slot]);
    wheel->used[level] &= ~(1ull << slot);
    while (!list_empty(&moved)) {
        struct timer *timer = CONTAINER_OF(moved.next, struct timer, link);
        list_remove(&timer->link);
        place(wheel, timer);
    }
}

/* The first tick from `from` on at which something can happen in that level: 0 fires a slot, the others spread one. */
static uint64_t level_next(const struct wheel *wheel, int level, uint64_t from)
{
    unsigned shift = LEVEL_BITS * (unsigned)level;
    uint64_t used = wheel->used[level], index = from >> shift;
    if (!used)
        return UINT64_MAX;
    if (from & ((1ull << shift) - 1))
        index++; /* entered already */
    unsigned at = (unsigned)index & SLOT_MASK;
    uint64_t turned = at ? (used >> at) | (used << (WHEEL_SLOTS - at)) : used;
    return (index + (uint64_t)__builtin_ctzll(turned)) << shift;
}

static uint64_t next_tick(const struct wheel *wheel, uint64_t from)
{
    uint64_t best = UINT64_MAX;
    for (int level = 0; level < WHEEL_LEVELS; level++) {
        uint64_t tick = level_next(wheel, level, from);
        best = tick < best ? tick : best;
    }
    return best;
}

mono_t wheel_next(const struct wheel *wheel)
{
    if (wheel->count == 0)
        return MONO_NEVER;
    if (!list_empty(&wheel->due))
        return 0;
    return (mono_t)(next_tick(wheel, wheel->tick) << TICK_SHIFT);
}

static void enter_tick(struct wheel *wheel, uint64_t tick)
{
    wheel->tick = tick;
    for (int level = WHEEL_LEVELS - 1; level > 0; level--)
        if ((tick & ((1ull << (LEVEL_BITS * level)) - 1)) == 0)
            cascade(wheel, level);
}

/* Moves what is due up to and with the tick `until` into wheel.due. */
static void collect(struct wheel *wheel, uint64_t until)
{
    while (wheel->tick <= until) {
        unsigned slot = (unsigned)wheel->tick & SLOT_MASK;
        move_all(&wheel->due, &wheel->slots[0][slot]);
        wheel->used[0] &= ~(1ull << slot);
        if (wheel->count == 0)
            memset(wheel->used, 0, sizeof wheel->used);
        uint64_t next = next_tick(wheel, wheel->tick + 1);
        enter_tick(wheel, next <= until ? next : until + 1);
    }
}

unsigned wheel_turn(struct wheel *wheel, mono_t now, void *arg, unsigned max)
{
    unsigned fired = 0;
    collect(wheel, now > 0 ? (uint64_t)now >> TICK_SHIFT : 0);
    for (; fired < max && !list_empty(&wheel->due); fired++) {
        struct timer *timer = CONTAINER_OF(wheel->due.next, struct timer, link);
        list_remove(&timer->link);
        wheel->count--;
        timer->fire(arg, timer);
    }
    return fired;
}
