/* Histogram of latencies for `millrace bench`.
 *
 * Values below 128 ns have a bucket each; above, every power of two is cut into 128 equal buckets (the HdrHistogram
 * layout), which keeps the relative error below 1/128 at every size and makes adding a value two shifts and an increment.
 * Adding takes a count because a confirm with `multiple` or one read of many deliveries gives long runs of equal values.
 */
#include "histogram.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUB_BITS = 7,
    SUB_COUNT = 1 << SUB_BITS,
    VALUE_BITS_MAX = 42,
    BUCKET_COUNT = (VALUE_BITS_MAX - SUB_BITS + 1) * SUB_COUNT,
};

struct bench_histogram {
    uint64_t count;
    uint64_t max_ns;
    double sum_ns;
    uint64_t buckets[BUCKET_COUNT];
};

static unsigned bucket_idx(uint64_t value)
{
    if (value < SUB_COUNT)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    unsigned idx = shift * SUB_COUNT + (unsigned)(value >> shift);
    return idx < BUCKET_COUNT ? idx : BUCKET_COUNT - 1;
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_edge(unsigned idx)
{
    if (idx < 2 * SUB_COUNT)
        return idx;
    unsigned shift = idx / SUB_COUNT - 1;
    uint64_t sub = idx - shift * SUB_COUNT;
    return ((sub + 1) << shift) - 1;
}

struct bench_histogram *bench_histogram_new(void)
{
    struct bench_histogram *h = calloc(1, sizeof(*h));
    if (h == NULL) {
        fputs("millrace bench: out of memory\n", stderr);
        abort();
    }
    return h;
}

void bench_histogram_free(struct bench_histogram *h)
{
    free(h);
}

void bench_histogram_reset(struct bench_histogram *h)
{
    memset(h, 0, sizeof(*h));
}

void bench_histogram_add(struct bench_histogram *h, uint64_t value_ns, uint64_t count)
{
    h->buckets[bucket_idx(value_ns)] += count;
    h->count += count;
    h->sum_ns += (double)value_ns * (double)count;
    if (value_ns > h->max_ns && count > 0)
        h->max_ns = value_ns;
}

void bench_histogram_merge(struct bench_histogram *into, const struct bench_histogram *from)
{
    for (unsigned i = 0; i < BUCKET_COUNT; i++)
        into->buckets[i] += from->buckets[i];
    into->count += from->count;
    into->sum_ns += from->sum_ns;
    if (from->max_ns > into->max_ns)
        into->max_ns = from->max_ns;
}

uint64_t bench_histogram_count(const struct bench_histogram *h)
{
    return h->count;
}

uint64_t bench_histogram_quantile(const struct bench_histogram *h, double q)
{
    if (h->count == 0)
        return 0;
    uint64_t rank = (uint64_t)(q * (double)h->count + 0.999999);
    rank = rank < 1 ? 1 : rank > h->count ? h->count : rank;
    uint64_t seen = 0;
    unsigned i = 0;
    for (; i < BUCKET_COUNT - 1; i++) {
        seen += h->buckets[i];
        if (seen >= rank)
            break;
    }
    /* The last bucket is open-ended: its only honest edge is the maximum. */
    uint64_t edge = i == BUCKET_COUNT - 1 ? h->max_ns : bucket_edge(i);
    return edge < h->max_ns ? edge : h->max_ns;
}

uint64_t bench_histogram_max(const struct bench_histogram *h)
{
    return h->max_ns;
}

double bench_histogram_mean(const struct bench_histogram *h)
{
    return h->count == 0 ? 0.0 : h->sum_ns / (double)h->count;
}
