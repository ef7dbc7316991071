/* What a benchmark measured, printed as a table for people or as one JSON object: both from the same rows.
 *
 * Life cycle: bench_report_new → text/number/latency … → print → free. Names are lent and must outlive the report
 * (string literals); texts and lists are copied. Thread: one owner. Holds at most 512 rows, more abort.
 */
#ifndef MAIN_BENCH_REPORT_H
#define MAIN_BENCH_REPORT_H

#include "histogram.h"

#include <stdbool.h>
#include <stdio.h>

struct bench_report;

struct bench_report *bench_report_new(const char *scenario);
void bench_report_free(struct bench_report *r);
void bench_report_text(struct bench_report *r, const char *group, const char *name, const char *text);
/* `unit` is for people and may be ""; the JSON key is `name`, which should end with the unit where it matters. */
void bench_report_number(struct bench_report *r, const char *group, const char *name, double value, const char *unit);
/* Several numbers under one name, an array in JSON. */
void bench_report_list(struct bench_report *r, const char *group, const char *name, const double *values,
                       unsigned count);
/* Takes p50, p90, p99, p99.9, max and mean in microseconds at once; the histogram is not kept. Nothing when empty. */
void bench_report_latency(struct bench_report *r, const char *group, const struct bench_histogram *h);
/* Connections that were opened one by one, and how long each took. */
void bench_report_connects(struct bench_report *r, unsigned opened, double took_s, const struct bench_histogram *each);
/* Syncs of the disk beside the answers that waited for others, and what an answer takes longer than a sync. */
void bench_report_syncs(struct bench_report *r, const struct bench_histogram *answers,
                        const struct bench_histogram *syncs);
/* The value of a number row, NAN when there is none. */
double bench_report_find(const struct bench_report *r, const char *group, const char *name);
void bench_report_print(const struct bench_report *r, bool json, FILE *out);

#endif
