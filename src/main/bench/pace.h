/* When a producer that keeps a rate owes its next item: item n (from 0) is due at due_from_ns + n × interval_ns.
 *
 * `held` says that something was due and the server did not let it out (full window, full socket). What is sent then is
 * stamped with the time it was due, otherwise a stalled server would hide its stall (coordinated omission). Zeroed memory
 * is "as fast as it goes". Thread: one owner. Units: monotonic nanoseconds.
 */
#ifndef MAIN_BENCH_PACE_H
#define MAIN_BENCH_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum { BENCH_PACE_MIN_NS = 100000 }; /* wake at most this often, and then send all that is due */

struct bench_pace {
    uint64_t due_from_ns;
    double interval_ns; /* 0: no rate */
    bool held;
};

/* Producer idx of count, which share `rate` items a second and take turns. */
static inline struct bench_pace bench_pace_of(double rate, unsigned idx, unsigned count, uint64_t start_ns)
{
    struct bench_pace p = {.interval_ns = rate > 0 ? 1e9 * count / rate : 0};
    p.due_from_ns = start_ns + (uint64_t)(p.interval_ns * idx / count);
    return p;
}

static inline uint64_t bench_pace_due_at(const struct bench_pace *p, uint64_t n)
{
    return p->due_from_ns + (uint64_t)((double)n * p->interval_ns);
}

/* How many items are due beyond the `sent` first ones. */
static inline uint64_t bench_pace_due(const struct bench_pace *p, uint64_t sent, uint64_t now_ns)
{
    if (p->interval_ns <= 0)
        return UINT64_MAX;
    if (now_ns < p->due_from_ns)
        return 0;
    uint64_t due = 1 + (uint64_t)((double)(now_ns - p->due_from_ns) / p->interval_ns);
    return due > sent ? due - sent : 0;
}

/* The time to stamp on item n when it is sent now. */
static inline uint64_t bench_pace_stamp(const struct bench_pace *p, uint64_t n, uint64_t now_ns)
{
    if (!p->held)
        return now_ns;
    uint64_t due_ns = bench_pace_due_at(p, n);
    return due_ns < now_ns ? due_ns : now_ns;
}

/* How long to wait for item n at most, given that the caller would wait `wait_ns` anyway. */
static inline uint64_t bench_pace_wait(const struct bench_pace *p, uint64_t n, uint64_t now_ns, uint64_t wait_ns)
{
    if (p->interval_ns <= 0 || p->held)
        return wait_ns;
    uint64_t due_ns = bench_pace_due_at(p, n);
    uint64_t until_ns = due_ns > now_ns + BENCH_PACE_MIN_NS ? due_ns - now_ns : BENCH_PACE_MIN_NS;
    return until_ns < wait_ns ? until_ns : wait_ns;
}

#endif
