/* What every `millrace bench PROTOCOL` command does alike: say what went wrong, get ready, and end.
 *
 * Life cycle: bench_command_begin, then the rest in any order. Thread: the caller's, except bench_fail and bench_zeroed
 * (any). The name must outlive the command (a string literal).
 */
#ifndef MAIN_BENCH_COMMAND_H
#define MAIN_BENCH_COMMAND_H

#include "main/client/clock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_report;

enum {
    BENCH_EXIT_OK = 0,
    BENCH_EXIT_FAILED = 1,
    BENCH_EXIT_VIOLATION = 2,
    BENCH_EXIT_USAGE = 64,
    BENCH_EXIT_CUT = 130
};

/* "millrace bench amqp" in front of complaints; ignores SIGPIPE and allows as many descriptors as the system does. From now on the
 * first SIGINT or SIGTERM asks for an end, the next one ends the process. Main thread. */
void bench_command_begin(const char *name);
/* An end was asked for: load stops, what is under way is waited for, what was made is taken away, and what was measured is told. */
bool bench_interrupted(void);
/* "<name>: <what>: <why>" on stderr; answers BENCH_EXIT_FAILED. */
int bench_fail(const char *what, const char *why);
/* Says that options contradict each other; answers BENCH_EXIT_USAGE. */
int bench_refuse(const char *contradiction);
/* Prints the report, unless the scenario failed, and frees it. violation: what is said of BENCH_EXIT_VIOLATION, or NULL
 * when the scenario has said it. Answers `code`, or BENCH_EXIT_CUT where all was well until it was interrupted. */
int bench_command_end(struct bench_report *r, int code, bool json, const char *violation);
/* A number that tells this run's messages from those of others; never 0. */
uint32_t bench_run_id(void);
/* Whether there is a live line: when asked for, and on a terminal unless --quiet. */
bool bench_progress_wanted(bool asked, bool quiet);
/* Zeroed memory; aborts when there is none. Nothing (0) is allowed. */
void *bench_zeroed(size_t count, size_t size);
/* A number that only steps through: shows `done` of `all` on one line of stderr now and then. */
void bench_progress(bool wanted, const char *what, uint64_t done, uint64_t all);

/* HOST, HOST:PORT, :PORT or [IPv6]:PORT; what is left out stays as it is. -1: it is none of these. */
int bench_address_parse(const char *text, char *host, size_t host_cap, unsigned *port);

static inline double bench_seconds_since(uint64_t from_ns)
{
    return (double)(client_clock_ns() - from_ns) / 1e9;
}

static inline double bench_rate(uint64_t count, uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)count * 1e9 / (double)(to_ns - from_ns) : 0.0;
}

#endif
