/* What joins cost: Nexmark's q3, q4, q5, q7, q8, q9, q20 and two of their kin as whole queries, from JSON in memory, in batches of 1,024; events a
 * second on one core, and how much state was held at most. Nothing is written and no broker is there. 10,000 events a second of event time.
 *
 *     sql_join_speed [EVENTS [NAME]]   (500,000, all)
 *
 * A measurement, not a test; figures hold for the machine they were taken on.
 */
#include "sql/language/parse.h"
#include "sql/query/nexmark.h"
#include "sql/query/query.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BATCH 1024u
#define STATE_MAX ((size_t)4 << 30)

#define WINDOW "INTERVAL '10' SECOND"
#define HOPPED                                                                                                         \
    "(SELECT auction, count(*) AS num, window_start AS s, window_end AS e FROM TABLE(HOP(TABLE bid, "                  \
    "DESCRIPTOR(dateTime), INTERVAL '2' SECOND, " WINDOW ")) GROUP BY auction, window_start, window_end)"
#define LIFE "A.id = B.auction AND B.dateTime BETWEEN A.dateTime AND A.expires"

static const char schema[] =
    "CREATE STREAM nexmark (event_type INT, person ROW<id BIGINT, name TEXT, emailAddress TEXT, creditCard TEXT, city "
    "TEXT, "
    "state TEXT, dateTime TIMESTAMP, extra TEXT>, auction ROW<id BIGINT, itemName TEXT, description TEXT, initialBid "
    "BIGINT, "
    "reserve BIGINT, dateTime TIMESTAMP, expires TIMESTAMP, seller BIGINT, category BIGINT, extra TEXT>, bid "
    "ROW<auction BIGINT, "
    "bidder BIGINT, price BIGINT, channel TEXT, url TEXT, dateTime TIMESTAMP, extra TEXT>, dateTime AS (CASE WHEN "
    "event_type = 0 THEN "
    "person.dateTime WHEN event_type = 1 THEN auction.dateTime ELSE bid.dateTime END), WATERMARK FOR dateTime AS "
    "dateTime - "
    "INTERVAL '4' SECOND);"
    "CREATE VIEW person AS SELECT person.id, person.name, person.city, person.state, dateTime FROM nexmark WHERE "
    "event_type = 0;"
    "CREATE VIEW auction AS SELECT auction.id, auction.itemName, auction.description, auction.initialBid, "
    "auction.reserve, dateTime, "
    "auction.expires, auction.seller, auction.category, auction.extra FROM nexmark WHERE event_type = 1;"
    "CREATE VIEW bid AS SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, dateTime, bid.extra FROM "
    "nexmark WHERE "
    "event_type = 2;";

static const struct {
    const char *name, *text;
} queries[] = {
    {"q0 pass through", "SELECT auction, bidder, price, dateTime, extra FROM bid"},
    {"q3 local items",
     "SELECT P.name, P.city, P.state, A.id FROM auction A JOIN person P ON A.seller = P.id WHERE A.category = 10 AND "
     "(P.state = 'OR' OR P.state = 'ID' OR P.state = 'CA') WITH (state_ttl = 'none')"},
    {"q4 average price",
     "SELECT Q.category, AVG(Q.final) FROM (SELECT MAX(B.price) AS final, A.category FROM auction A, bid B WHERE " LIFE
     " GROUP BY A.id, A.category) Q GROUP BY Q.category"},
    {"q5 hot items", "SELECT A.auction, A.num FROM " HOPPED " A JOIN (SELECT max(num) AS maxn, s, e FROM " HOPPED
                     " C GROUP BY s, e) M ON A.s = M.s AND A.e = M.e AND A.num >= M.maxn"},
    {"q7 highest bid",
     "SELECT B.auction, B.price, B.bidder, B.dateTime, B.extra FROM bid B JOIN (SELECT max(price) AS maxprice, "
     "window_end AS "
     "dateTime FROM TUMBLE(bid, dateTime, " WINDOW ") GROUP BY window_start, window_end) M ON B.price = M.maxprice "
     "WHERE B.dateTime BETWEEN M.dateTime - " WINDOW " AND M.dateTime"},
    {"q8 new users",
     "SELECT P.id, P.name, P.s FROM (SELECT id, name, window_start AS s, window_end AS e FROM TUMBLE(person, "
     "dateTime, " WINDOW
     ") GROUP BY id, name, window_start, window_end) P JOIN (SELECT seller, window_start AS s, window_end AS e FROM "
     "TUMBLE(auction, dateTime, " WINDOW
     ") GROUP BY seller, window_start, window_end) A ON P.id = A.seller AND P.s = A.s AND "
     "P.e = A.e"},
    {"q9 without top 1", "SELECT A.id, A.itemName, A.description, A.initialBid, A.reserve, A.dateTime, A.expires, "
                         "A.seller, A.category, A.extra, "
                         "B.auction, B.bidder, B.price, B.dateTime, B.extra FROM auction A, bid B WHERE " LIFE},
    {"q9 winning bids", "SELECT id, itemName, description, initialBid, reserve, dateTime, expires, seller, category, "
                        "extra, auction, bidder, "
                        "price, bts, bextra FROM (SELECT A.id, A.itemName, A.description, A.initialBid, A.reserve, "
                        "A.dateTime, A.expires, A.seller, "
                        "A.category, A.extra, B.auction, B.bidder, B.price, B.dateTime AS bts, B.extra AS bextra, "
                        "ROW_NUMBER() OVER (PARTITION BY A.id "
                        "ORDER BY B.price DESC, B.dateTime) AS n FROM auction A, bid B WHERE " LIFE ") x WHERE n <= 1"},
    {"q20 bids of category 10",
     "SELECT auction, bidder, price, channel, url, B.dateTime, B.extra, itemName, description, initialBid, reserve, "
     "A.dateTime, expires, seller, category, A.extra FROM bid AS B INNER JOIN auction AS A ON B.auction = A.id "
     "WHERE A.category = 10 WITH (state_ttl = 'none')"},
    {"auctions without a bid", "SELECT A.id FROM auction A ANTI JOIN bid B ON " LIFE},
};

static void die(const char *why)
{
    fprintf(stderr, "sql_join_speed: %s\n", why);
    exit(1);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* one thread, and nothing waits: others on the machine do not count */
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

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

static void measure(size_t n, const struct slice *records, size_t count)
{
    static const struct op_kind kind = {.name = "count", .push = count_rows};
    static char text[16384];
    struct counter counter = {.op = {.kind = &kind}};
    struct catalog catalog = catalog_init();
    struct arena arena;
    struct ast_list list;
    struct sql_error error = {0};
    enum sql_fault fault;
    size_t most = 0;
    snprintf(text, sizeof text, "%s%s", schema, queries[n].text);
    arena_init(&arena, SQL_PARSE_MEMORY_MAX);
    if (!sql_parse(slice_str(text), &arena, &list, &error))
        die(error.message);
    for (size_t i = 0; i + 1 < list.count; i++)
        if (!catalog_add(&catalog, list.at[i], &error))
            die(error.message);
    struct query *q = query_new(&catalog, list.at[list.count - 1], STATE_MAX, &counter.op, &error);
    if (!q)
        die(error.message);
    double from = seconds();
    for (size_t at = 0; at < count; at += BATCH) {
        struct query_input in = {
            .records = records + at, .offset = at, .rows = count - at < BATCH ? (uint32_t)(count - at) : BATCH};
        if (!query_step(q, &in, &fault))
            die(sql_fault_text(fault));
        most = query_state_bytes(q) > most ? query_state_bytes(q) : most;
    }
    double took = seconds() - from;
    printf("%-26s %10.0f events/s %8.1f ns an event, %8llu rows, at most %7.1f MiB\n", queries[n].name,
           (double)count / took, took * 1e9 / (double)count, (unsigned long long)counter.rows, (double)most / 1048576);
    query_free(&q);
    arena_fini(&arena);
}

int main(int argc, char **argv)
{
    struct nexmark nexmark = nexmark_default();
    size_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 500000, used = 0;
    size_t room = count * 400 + NEXMARK_EVENT_MAX;
    uint8_t *bytes = malloc(room);
    struct slice *records = malloc((count + 1) * sizeof *records);
    if (!bytes || !records)
        die("no memory");
    for (size_t i = 0; i < count; i++) {
        struct writer w = writer_of(bytes + used, NEXMARK_EVENT_MAX);
        if (used + NEXMARK_EVENT_MAX > room)
            die("longer events than was thought");
        nexmark_write(&nexmark, nexmark_number(&nexmark, i), &w);
        records[i] = slice_of(bytes + used, w.len);
        used += w.len;
    }
    printf("%zu events, %.1f bytes on average, batches of %u\n", count, (double)used / (double)count, BATCH);
    for (size_t n = 0; n < ARRAY_LEN(queries); n++)
        if (argc < 3 || strstr(queries[n].name, argv[2]))
            measure(n, records, count);
    free(bytes);
    free(records);
    return 0;
}
