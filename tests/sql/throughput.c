/* What a query costs from a piece of a partition to the bytes of its outputs: Nexmark's events in record batches in memory, read by sql/input,
 * run, and encoded by sql/output into record batches for a stream. Events a second of one core; no broker, no disk.
 *
 *     throughput [EVENTS [QUERY]]   (200,000; every query)
 *
 * A measurement, not a test; figures hold for the machine they were taken on.
 */
#include "base/mem.h"
#include "fmt/record_batch.h"
#include "sql/language/parse.h"
#include "sql/query/input.h"
#include "sql/query/nexmark.h"
#include "sql/query/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROWS 1024u
#define BATCH_ROWS 500u /* of the record batches that are read */
#define ROUNDS 5
#define STATE_MAX ((size_t)1 << 30)
#define WAITS_MAX ((size_t)1 << 30)

static const char schema[] =
    "CREATE STREAM nexmark (event_type INT,"
    " bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, dateTime TIMESTAMP, extra TEXT>,"
    " dateTime AS (bid.dateTime), WATERMARK FOR dateTime AS dateTime);"
    "CREATE VIEW bid AS SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, dateTime, bid.extra"
    " FROM nexmark WHERE event_type = 2;";

static const struct {
    const char *name, *text, *key;
} queries[] = {
    {"q0", "SELECT auction, bidder, price, dateTime, extra FROM bid", NULL},
    {"q1", "SELECT auction, bidder, 0.908 * price AS price, dateTime, extra FROM bid", NULL},
    {"q2", "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0", NULL},
    {"q22",
     "SELECT auction, bidder, price, channel, split_index(url, '/', 3) AS dir1, split_index(url, '/', 4) AS dir2,"
     " split_index(url, '/', 5) AS dir3 FROM bid",
     NULL},
    {"q7 of 1 s",
     "SELECT max(price) AS price, window_end FROM TUMBLE(bid, dateTime, INTERVAL '1' SECOND) GROUP BY window_end",
     NULL},
    {"q12 of 1 s",
     "SELECT bidder, count(*) AS bids, window_end FROM TUMBLE(bid, dateTime, INTERVAL '1' SECOND) GROUP BY bidder, "
     "window_end",
     "bidder"},
    {"q17, by key", "SELECT auction, count(*) AS bids, min(price) AS low, max(price) AS high FROM bid GROUP BY auction",
     "auction"},
};

static void die(const char *why)
{
    fprintf(stderr, "throughput: %s\n", why);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct slice piece_of(uint64_t events)
{
    struct nexmark nexmark = nexmark_default();
    size_t max = events * 512 + NEXMARK_EVENT_MAX;
    uint8_t line[NEXMARK_EVENT_MAX];
    struct writer w = writer_of(malloc(max), max);
    for (uint64_t i = 0; i < events; i += BATCH_ROWS) {
        struct record_batch head = record_batch_head((int64_t)i, nexmark_time(&nexmark, i));
        struct record_batch_writer batch;
        record_batch_begin(&batch, &w, &head);
        for (uint64_t k = i; k < events && k < i + BATCH_ROWS; k++) {
            struct writer one = writer_of(line, sizeof line);
            nexmark_write(&nexmark, k, &one);
            struct slice value = writer_slice(&one);
            if (!record_batch_put(&batch, nexmark_time(&nexmark, k), NULL, &value, NULL, 0))
                die("no room");
        }
        (void)record_batch_finish(&batch, -1);
    }
    return writer_slice(&w);
}

/* Bytes that came out. */
static size_t drain(struct slab_heap *heap, struct output *output)
{
    size_t bytes = 0;
    if (!output_cut(output))
        die("no memory");
    for (struct output_group *g; (g = output_take(output)) != NULL;) {
        bytes += g->bytes;
        output_group_free(heap, &g);
    }
    return bytes;
}

static double run(const char *query, const char *key, struct slice bytes, size_t *ret_bytes)
{
    char text[2048];
    struct slab_heap heap;
    struct sql_error error = {0};
    struct catalog catalog = catalog_init();
    struct arena arena;
    struct ast_list list;
    struct output_target target = {
        .queue = 1, .partitions = 4, .keys = {slice_str(key ? key : "")}, .key_count = key != NULL};
    struct compress *z = compress_new();
    struct input *input = input_new(z, INPUT_UNPACKED_MAX);
    enum input_verdict verdict;
    enum sql_fault fault;
    slab_heap_init(&heap);
    arena_init(&arena, SQL_PARSE_MEMORY_MAX);
    snprintf(text, sizeof text, "%s%s", schema, query);
    struct output *output = output_new(&heap, &target, WAITS_MAX);
    if (!input || !output || !sql_parse(slice_str(text), &arena, &list, &error) ||
        !catalog_add(&catalog, list.at[0], &error) || !catalog_add(&catalog, list.at[1], &error))
        die(error.message);
    struct query *q = query_new(&catalog, list.at[2], STATE_MAX, output_op(output), &error);
    if (!q || !output_bind(output, query_plan(q), &error))
        die(error.message);
    double begin = now();
    struct input_piece piece = {.bytes = bytes, .until = UINT64_MAX};
    struct query_input in;
    *ret_bytes = 0;
    input_begin(input, &piece);
    while ((verdict = input_next(input, ROWS, &in)) == INPUT_ROWS) {
        if (!query_step(q, &in, &fault))
            die(sql_fault_text(fault));
        if (output_bytes(output) > QUERY_STEP_BYTES_MAX / 4)
            *ret_bytes += drain(&heap, output);
    }
    *ret_bytes += drain(&heap, output);
    double took = now() - begin;
    if (verdict != INPUT_END || query_faults(q))
        die("the events could not be read");
    query_free(&q);
    output_free(&output);
    input_free(&input);
    compress_free(&z);
    arena_fini(&arena);
    slab_heap_fini(&heap);
    return took;
}

int main(int argc, char **argv)
{
    uint64_t events = argc > 1 ? strtoull(argv[1], NULL, 10) : 200000;
    struct slice bytes = piece_of(events);
    printf("%llu events, %.0f bytes each; CPU time of one thread, the best of %d\n", (unsigned long long)events,
           (double)bytes.len / (double)events, ROUNDS);
    for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
        double best = 1e9;
        size_t out = 0;
        if (argc > 2 && strcmp(argv[2], queries[i].name) != 0)
            continue;
        for (int round = 0; round < ROUNDS; round++) {
            double took = run(queries[i].text, queries[i].key, bytes, &out);
            best = took < best ? took : best;
        }
        printf("%-12s %10.0f events/s %8.1f ns an event, %.1f bytes out for each\n", queries[i].name,
               (double)events / best, best * 1e9 / (double)events, (double)out / (double)events);
    }
    free((void *)bytes.ptr);
    return 0;
}
