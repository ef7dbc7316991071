/* Log-linear histogram of nanosecond latencies: 128 buckets per power of two, so a quantile is off by less than 0.8 %.
 *
 * Life cycle: bench_histogram_new → add … → quantile … → bench_histogram_free. Fixed size (about 40 KiB), no growth.
 * Thread: one owner; merge copies of other threads only after those have stopped. Units: nanoseconds everywhere.
 */
#ifndef MAIN_BENCH_HISTOGRAM_H
#define MAIN_BENCH_HISTOGRAM_H

#include <stdint.h>

struct bench_histogram;

struct bench_histogram *bench_histogram_new(void); /* aborts when out of memory */
void bench_histogram_free(struct bench_histogram *h);
void bench_histogram_reset(struct bench_histogram *h);
/* Adds `count` equal values; values above 2^42 ns (73 minutes) land in the last bucket, their maximum stays exact. */
void bench_histogram_add(struct bench_histogram *h, uint64_t value_ns, uint64_t count);
void bench_histogram_merge(struct bench_histogram *into, const struct bench_histogram *from);
uint64_t bench_histogram_count(const struct bench_histogram *h);
/* Upper edge of the bucket that holds quantile q (0..1), never above the maximum seen; 0 when empty. */
uint64_t bench_histogram_quantile(const struct bench_histogram *h, double q);
uint64_t bench_histogram_max(const struct bench_histogram *h);
double bench_histogram_mean(const struct bench_histogram *h);

#endif
