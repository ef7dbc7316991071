/* What a whole query costs: Nexmark's queries with state from JSON in memory, rows thrown away behind the last operator; events a second of
 * CPU time, so that what else the machine does counts little.
 *
 *     sql_queries [EVENTS [RATE [NAME]]]   (1,000,000 events, 10,000 a second of event time, all queries)
 *
 * A measurement, not a test; figures hold for the machine they were taken on.
 */
#include "base/mem.h"
#include "sql/language/parse.h"
#include "sql/query/nexmark.h"
#include "sql/query/query.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BATCH 1024u
#define STATE_MAX ((size_t)8 << 30)
#define SCHEMA                                                                                                         \
    "CREATE STREAM nexmark (event_type INT, bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url "   \
    "TEXT, dateTime TIMESTAMP, extra TEXT>, dateTime AS (bid.dateTime), WATERMARK FOR dateTime AS dateTime - "         \
    "INTERVAL "                                                                                                        \
    "'4' SECOND);"                                                                                                     \
    "CREATE VIEW bid AS SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, dateTime, bid.extra FROM "    \
    "nexmark WHERE event_type = 2;"
#define BANDS(what, of)                                                                                                \
    what " AS total" of ", " what " FILTER (WHERE price < 10000) AS rank1" of ", " what                                \
         " FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2" of ", " what                                    \
         " FILTER (WHERE price >= 1000000) AS rank3" of
#define ALL_BANDS                                                                                                      \
    BANDS("count(*)", "_bids")                                                                                         \
    ", " BANDS("count(DISTINCT bidder)", "_bidders") ", " BANDS("count(DISTINCT auction)", "_auctions")
#define DAY "date_format(dateTime, 'yyyy-MM-dd')"

#define BY_BIDDER " FROM bid MATCH_RECOGNIZE (PARTITION BY auction, bidder ORDER BY dateTime MEASURES "
#define LOW_AVERAGE(skip)                                                                                              \
    "SELECT *" BY_BIDDER "FIRST(A.dateTime) AS s, LAST(A.dateTime) AS e, AVG(A.price) AS price AFTER MATCH SKIP " skip \
    " PATTERN (A+ B) DEFINE A AS AVG(A.price) < 10000) WITH (state_ttl = 'none')"

static const struct {
    const char *name, *text;
} queries[] = {
    {"cep0",
     "SELECT *" BY_BIDDER
     "S.dateTime AS s, LAST(D.dateTime) AS b, LAST(U.dateTime) AS e AFTER MATCH SKIP TO LAST U PATTERN (S D+ U) DEFINE "
     "D AS (LAST(D.price, 1) IS NULL AND D.price < S.price) OR D.price < LAST(D.price, 1), U AS U.price > "
     "LAST(D.price, 1)) WITH (state_ttl = 'none')"},
    {"cep1", LOW_AVERAGE("PAST LAST ROW")},
    {"cep2", LOW_AVERAGE("TO NEXT ROW")},
    {"cep3", "SELECT *" BY_BIDDER
             "C.dateTime AS t, A.price - C.price AS d PATTERN (A B* C) WITHIN INTERVAL '5' SECOND DEFINE B "
             "AS B.price > A.price - 50, C AS C.price < A.price - 50)"},
    {"q0", "SELECT auction, bidder, price, dateTime, extra FROM bid"},
    {"q11",
     "SELECT bidder, count(*), SESSION_START(dateTime, INTERVAL '10' SECOND), SESSION_END(dateTime, INTERVAL '10' "
     "SECOND) FROM bid GROUP BY bidder, SESSION(dateTime, INTERVAL '10' SECOND)"},
    {"q12", "SELECT bidder, count(*), window_start, window_end FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), "
            "INTERVAL '10' SECOND)) GROUP BY bidder, window_start, window_end"},
    {"q15", "SELECT " DAY " AS day, " ALL_BANDS " FROM bid GROUP BY " DAY},
    {"q16", "SELECT channel, " DAY " AS day, max(date_format(dateTime, 'HH:mm')), " ALL_BANDS
            " FROM bid GROUP BY channel, " DAY},
    {"q17", "SELECT auction, " DAY " AS day, " BANDS("count(*)", "_bids") ", min(price), max(price), avg(price), "
                                                                          "sum(price) FROM bid GROUP BY auction, " DAY},
    {"q18",
     "SELECT auction, bidder, price, channel, url, dateTime, extra FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY "
     "bidder, auction ORDER BY dateTime DESC) AS rank_number FROM bid) WHERE rank_number <= 1"},
    {"q19", "SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS rank_number FROM "
            "bid) WHERE rank_number <= 10"},
};

struct counter {
    struct op op;
    uint64_t rows;
};

static bool count_rows(struct op *op, struct step *step, const struct batch *b)
{
    (void)step;
    CONTAINER_OF(op, struct counter, op)->rows += b->sel.count;
    return true;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "sql_queries: %s: %s\n", what, why);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run(size_t which, const struct slice *records, const int64_t *ts, size_t count)
{
    static const struct op_kind kind = {.name = "count", .push = count_rows};
    struct counter counter = {.op = {.kind = &kind}};
    struct catalog catalog = catalog_init();
    struct sql_error error = {0};
    struct arena arena;
    struct ast_list list;
    char text[8192];
    int len = snprintf(text, sizeof text, "%s%s", SCHEMA, queries[which].text);
    arena_init(&arena, SQL_PARSE_MEMORY_MAX);
    if (!sql_parse(slice_of(text, (size_t)len), &arena, &list, &error))
        die(queries[which].name, error.message);
    for (size_t i = 0; i + 1 < list.count; i++)
        if (!catalog_add(&catalog, list.at[i], &error))
            die(queries[which].name, error.message);
    struct query *q = query_new(&catalog, list.at[list.count - 1], STATE_MAX, &counter.op, &error);
    if (!q) {
        printf("%-6s %s\n", queries[which].name, error.message);
        arena_fini(&arena);
        return;
    }
    double begin = now();
    for (size_t from = 0; from < count; from += BATCH) {
        enum sql_fault fault;
        struct query_input in = {.records = records + from,
                                 .ts_us = ts + from,
                                 .offset = from,
                                 .rows = count - from < BATCH ? (uint32_t)(count - from) : BATCH};
        if (!query_step(q, &in, &fault))
            die(queries[which].name, sql_fault_text(fault));
    }
    double took = now() - begin;
    printf("%-6s %10.0f events/s %8.1f ns an event, %llu rows, %.1f MB of state\n", queries[which].name,
           (double)count / took, took * 1e9 / (double)count, (unsigned long long)counter.rows,
           (double)query_state_bytes(q) / 1e6);
    fflush(stdout);
    query_free(&q);
    arena_fini(&arena);
}

int main(int argc, char **argv)
{
    size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000, room = count * 512;
    struct nexmark nexmark = nexmark_default();
    nexmark.rate = argc > 2 ? strtoul(argv[2], NULL, 10) : nexmark.rate;
    uint8_t *bytes = malloc(room + NEXMARK_EVENT_MAX);
    struct slice *records = malloc(count * sizeof *records);
    int64_t *ts = malloc(count * sizeof *ts);
    if (!bytes || !records || !ts)
        die("events", "no memory");
    struct writer w = writer_of(bytes, room + NEXMARK_EVENT_MAX);
    for (size_t i = 0; i < count && w.len < room; i++) {
        size_t at = w.len;
        nexmark_write(&nexmark, i, &w);
        records[i] = slice_of(bytes + at, w.len - at);
        ts[i] = nexmark_time(&nexmark, i) * 1000;
    }
    printf("%zu events, %.1f bytes on average, batches of %u\n", count, (double)w.len / (double)count, BATCH);
    for (size_t n = 0; n < ARRAY_LEN(queries); n++)
        if (argc < 4 || strcmp(argv[3], queries[n].name) == 0)
            run(n, records, ts, count);
    free(bytes);
    free(records);
    free(ts);
    return 0;
}
