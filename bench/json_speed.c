/* How fast JSON is read: GB/s and ns an event over events of the Nexmark benchmark, for what its queries want of them, against
 * jansson, which makes a tree of everything.
 *
 *     json_speed [EVENTS]   (100,000)
 *
 * A measurement, not a test; figures hold for the machine they were taken on.
 */
#include "base/mem.h"
#include "fmt/json_scan.h"
#include "sql/query/nexmark.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROUNDS 5

struct corpus {
    uint8_t *bytes;
    size_t len, count;
    size_t *ends;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct corpus corpus_make(size_t count)
{
    struct nexmark nexmark = nexmark_default();
    struct corpus c = {
        .bytes = malloc(count * NEXMARK_EVENT_MAX), .count = count, .ends = malloc(count * sizeof *c.ends)};
    if (!c.bytes || !c.ends)
        exit(1);
    struct writer w = writer_of(c.bytes, count * NEXMARK_EVENT_MAX);
    for (size_t i = 0; i < count; i++) {
        nexmark_write(&nexmark, i, &w);
        c.ends[i] = w.len;
    }
    c.len = w.len;
    return c;
}

static void print_row(const char *name, const struct corpus *c, double seconds)
{
    printf("%-44s %7.2f GB/s %8.1f ns an event\n", name, (double)c->len / seconds / 1e9,
           seconds * 1e9 / (double)c->count);
}

/* Paths are written "bid.price bid.url"; the best of some rounds. */
static void bench_scan(const char *name, const struct corpus *c, const char *paths)
{
    struct json_scan *scan = json_scan_new();
    for (const char *p = paths; *p;) {
        struct json_step steps[JSON_SCAN_STEPS_MAX];
        unsigned count = 0;
        size_t len;
        do {
            len = strcspn(p, ". ");
            steps[count++].key = slice_of(p, len);
            p += len + (p[len] != 0);
        } while (p[-1] == '.');
        if (json_scan_want(scan, steps, count) < 0)
            exit(1);
    }
    struct json_view views[64];
    struct json_fault fault;
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double begin = now();
        size_t at = 0;
        for (size_t i = 0; i < c->count; at = c->ends[i++])
            if (!json_scan_read(scan, slice_of(c->bytes + at, c->ends[i] - at), views, &fault)) {
                printf("event %zu, byte %zu: %s\n", i, fault.at, fault.why);
                exit(1);
            }
        double took = now() - begin;
        best = took < best ? took : best;
    }
    json_scan_free(&scan);
    print_row(name, c, best);
}

static void bench_jansson(const struct corpus *c)
{
    double begin = now();
    size_t at = 0;
    for (size_t i = 0; i < c->count; at = c->ends[i++])
        json_decref(json_loadb((const char *)c->bytes + at, c->ends[i] - at, 0, NULL));
    print_row("jansson, everything", c, now() - begin);
}

int main(int argc, char **argv)
{
    struct corpus c = corpus_make(argc > 1 ? strtoul(argv[1], NULL, 10) : 100000);
    printf("%zu events, %.1f bytes on average\n", c.count, (double)c.len / (double)c.count);
    bench_scan("checked only", &c, "");
    bench_scan("q2: bid.auction bid.price", &c, "bid.auction bid.price");
    bench_scan("q0: five columns of bids", &c, "bid.auction bid.bidder bid.price bid.dateTime bid.extra");
    bench_scan("q22: with url", &c, "bid.auction bid.bidder bid.price bid.channel bid.url");
    bench_scan("all columns of bids and auctions", &c,
               "event_type bid.auction bid.bidder bid.price bid.channel bid.url bid.dateTime bid.extra auction.id "
               "auction.itemName auction.description auction.initialBid auction.reserve auction.dateTime "
               "auction.expires auction.seller auction.category auction.extra");
    bench_jansson(&c);
    free(c.bytes);
    free(c.ends);
    return 0;
}
