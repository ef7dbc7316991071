/* The monotonic clock in nanoseconds, comparable between processes of one machine. Any thread. */
#ifndef MAIN_BENCH_CLOCK_H
#define MAIN_BENCH_CLOCK_H

#include <stdint.h>
#include <time.h>

enum { BENCH_NS_PER_MS = 1000000 };
#define BENCH_NS_PER_S UINT64_C(1000000000)

static inline uint64_t client_clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * BENCH_NS_PER_S + (uint64_t)t.tv_nsec;
}

/* CPU time of the calling thread: user and system. */
static inline uint64_t client_clock_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * BENCH_NS_PER_S + (uint64_t)t.tv_nsec;
}

#endif
