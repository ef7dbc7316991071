/* The clock of a run: warm-up, measured, drain; or, when a run goes by numbers, everything measured.
 *
 * Life cycle: bench_phases_plan → bench_phases_step once per round → bench_phases_end. bench_phases_stalled tells when
 * draining is hopeless, bench_phases_cut ends the run early. Thread: one owner, whose CPU time is taken at both ends. Units: monotonic nanoseconds.
 */
#ifndef MAIN_BENCH_PHASES_H
#define MAIN_BENCH_PHASES_H

#include "main/client/clock.h"

#include <stdbool.h>

struct bench_phases {
    uint64_t start_ns, from_ns, to_ns;         /* planned; to_ns is UINT64_MAX when numbers end the run */
    uint64_t measured_from_ns, measured_to_ns; /* as it happened; 0: not yet */
    uint64_t cpu_from_ns, cpu_to_ns;
    bool measuring;
    bool cut;
    uint64_t moved_at_ns, moved_sum;
};

enum bench_phase_change { BENCH_PHASE_SAME, BENCH_PHASE_BEGUN, BENCH_PHASE_ENDED };

static inline void bench_phases_plan(struct bench_phases *p, uint64_t start_ns, double warmup_s, double duration_s,
                                     bool by_numbers)
{
    *p = (struct bench_phases){.start_ns = start_ns};
    p->from_ns = start_ns + (by_numbers ? 0 : (uint64_t)(warmup_s * 1e9));
    p->to_ns = by_numbers ? UINT64_MAX : p->from_ns + (uint64_t)(duration_s * 1e9);
}

/* The run is to end before its time: nothing more is sent. What goes by the clock is measured until now, what goes by numbers until the
 * last of what was sent has come. */
static inline void bench_phases_cut(struct bench_phases *p, uint64_t now_ns)
{
    p->cut = true;
    if (p->to_ns == UINT64_MAX || now_ns >= p->to_ns)
        return;
    p->to_ns = now_ns;
    p->from_ns = p->from_ns < now_ns ? p->from_ns : now_ns;
}

/* Nothing more is to be sent. */
static inline bool bench_phases_stopping(const struct bench_phases *p, uint64_t now_ns)
{
    return p->cut || now_ns >= p->to_ns;
}

/* Says when the measured phase has just begun or ended: the caller then looks at its counters. */
static inline enum bench_phase_change bench_phases_step(struct bench_phases *p, uint64_t now_ns)
{
    if (p->measured_from_ns == 0 && now_ns >= p->from_ns) {
        p->measuring = true;
        p->measured_from_ns = now_ns;
        p->cpu_from_ns = client_clock_cpu_ns();
        return BENCH_PHASE_BEGUN;
    }
    if (p->measuring && now_ns >= p->to_ns) {
        p->measuring = false;
        p->measured_to_ns = now_ns;
        p->cpu_to_ns = client_clock_cpu_ns();
        return BENCH_PHASE_ENDED;
    }
    return BENCH_PHASE_SAME;
}

/* The run is over. True: the measured phase ended only now, look at the counters. */
static inline bool bench_phases_end(struct bench_phases *p, uint64_t now_ns)
{
    if (!p->measuring && p->measured_from_ns != 0)
        return false;
    p->measuring = false;
    p->measured_to_ns = now_ns;
    if (p->measured_from_ns == 0)
        p->measured_from_ns = now_ns;
    p->cpu_to_ns = client_clock_cpu_ns();
    return true;
}

/* `sum` counts everything that moves. True when nothing did for drain_s, while nothing but waiting is left. */
static inline bool bench_phases_stalled(struct bench_phases *p, uint64_t sum, double drain_s, uint64_t now_ns)
{
    bool waiting = now_ns >= p->to_ns || p->to_ns == UINT64_MAX;
    if (sum != p->moved_sum || !waiting || p->moved_at_ns == 0) {
        p->moved_sum = sum;
        p->moved_at_ns = now_ns;
    }
    return now_ns - p->moved_at_ns > (uint64_t)(drain_s * 1e9);
}

#endif
