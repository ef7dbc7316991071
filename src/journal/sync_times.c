/* Counts by length, see sync_times.h. Lengths are in units of 1,024 ns; from 4 units on a length has the two bits behind its highest. */
#include "journal/sync_times.h"

#define UNIT_NS 1024u

static unsigned slot_of(uint64_t ns)
{
    uint64_t units = ns / UNIT_NS;
    if (units < 4)
        return (unsigned)units;
    unsigned high = 63u - (unsigned)__builtin_clzll(units);
    unsigned slot = 4 * (high - 1) + (unsigned)(units >> (high - 2) & 3);
    return slot < SYNC_TIMES_COUNTS ? slot : SYNC_TIMES_COUNTS - 1;
}

/* The first length that belongs to the next one. */
static uint64_t end_of(unsigned slot)
{
    uint64_t units = slot < 4 ? slot + 1 : (uint64_t)(5 + slot % 4) << (slot / 4 - 1);
    return units * UNIT_NS;
}

void sync_times_add(struct sync_times *times, uint64_t ns)
{
    atomic_fetch_add_explicit(&times->counts[slot_of(ns)], 1, memory_order_relaxed);
}

uint64_t sync_times_count(const struct sync_times *times)
{
    uint64_t all = 0;
    for (unsigned slot = 0; slot < SYNC_TIMES_COUNTS; slot++)
        all += atomic_load_explicit(&times->counts[slot], memory_order_relaxed);
    return all;
}

uint64_t sync_times_within(const struct sync_times *times, unsigned of_thousand)
{
    uint64_t all = sync_times_count(times), seen = 0;
    uint64_t wanted = all / 1000 * of_thousand + (all % 1000 * of_thousand + 999) / 1000;
    for (unsigned slot = 0; all && slot < SYNC_TIMES_COUNTS; slot++) {
        seen += atomic_load_explicit(&times->counts[slot], memory_order_relaxed);
        if (seen >= wanted)
            return end_of(slot);
    }
    return 0;
}
