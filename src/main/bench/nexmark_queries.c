/* Nexmark's queries and its CEP queries in Millrace's SQL, and how many rows those give of which that can be told bid by bid.
 *
 * The texts are the reference's (github.com/nexmark/nexmark, nexmark-flink), but for: no sink's schema; q9 and q6 break ties by _offset; joins and
 * patterns that nothing bounds say so (state_ttl); q12 takes the time when the broker appended a bid for the processing time; q13's side input is a
 * table of 10,000 rows. That each gives SQLite's rows is shown in tests/sql. */
#include "nexmark_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MILLI_EURO 908u /* of a price, q1 and q14 */
#define DAY "date_format(dateTime, 'yyyy-MM-dd')"
#define BANDS(what, of)                                                                                                \
    what " AS total_" of ", " what " FILTER (WHERE price < 10000) AS rank1_" of ", " what                              \
         " FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_" of ", " what                                   \
         " FILTER (WHERE price >= 1000000) AS rank3_" of
#define ALL_BANDS                                                                                                      \
    BANDS("count(*)", "bids")                                                                                          \
    ", " BANDS("count(DISTINCT bidder)", "bidders") ", " BANDS("count(DISTINCT auction)", "auctions")
#define COUNTED                                                                                                        \
    "SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime FROM TABLE(HOP(TABLE bid, "     \
    "DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND)) GROUP BY auction, window_start, window_end"
#define TUMBLED(what) "TABLE(TUMBLE(TABLE " what ", DESCRIPTOR(dateTime), INTERVAL '10' SECOND))"
#define LIFE "A.id = B.auction AND B.dateTime BETWEEN A.dateTime AND A.expires"
#define BEST "ROW_NUMBER() OVER (PARTITION BY A.id ORDER BY B.price DESC, B.dateTime ASC, B._offset) AS rownum"
#define BY_BIDDER "PARTITION BY auction, bidder ORDER BY dateTime MEASURES "
#define LOW_AVERAGE(skip)                                                                                              \
    "SELECT auction, bidder, start_tstamp, end_tstamp, avg_price FROM bid MATCH_RECOGNIZE (" BY_BIDDER                 \
    "FIRST(A.dateTime) AS start_tstamp, LAST(A.dateTime) AS end_tstamp, AVG(A.price) AS avg_price ONE ROW PER MATCH "  \
    "AFTER MATCH SKIP " skip " PATTERN (A+ B) DEFINE A AS AVG(A.price) < 10000)"
#define CHANNEL_ID "regexp_extract(url, '(&|^)channel_id=([^&]*)', 2)"

const struct bench_nexmark_object bench_nexmark_objects[] = {
    {"STREAM nexmark",
     "CREATE STREAM nexmark (event_type INT, "
     "person ROW<id BIGINT, name TEXT, emailAddress TEXT, creditCard TEXT, city TEXT, state TEXT, dateTime TIMESTAMP, "
     "extra TEXT>, "
     "auction ROW<id BIGINT, itemName TEXT, description TEXT, initialBid BIGINT, reserve BIGINT, dateTime TIMESTAMP, "
     "expires TIMESTAMP, seller BIGINT, category BIGINT, extra TEXT>, "
     "bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, dateTime TIMESTAMP, extra TEXT>, "
     "dateTime AS (CASE WHEN event_type = 0 THEN person.dateTime WHEN event_type = 1 THEN auction.dateTime ELSE "
     "bid.dateTime END), "
     "WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND)",
     ""},
    {"VIEW person",
     "CREATE VIEW person AS SELECT person.id, person.name, person.emailAddress, person.creditCard, person.city, "
     "person.state, dateTime, person.extra FROM nexmark WHERE event_type = 0",
     NULL},
    {"VIEW auction",
     "CREATE VIEW auction AS SELECT auction.id, auction.itemName, auction.description, auction.initialBid, "
     "auction.reserve, dateTime, auction.expires, auction.seller, auction.category, auction.extra FROM nexmark WHERE "
     "event_type = 1",
     NULL},
    {"VIEW bid",
     "CREATE VIEW bid AS SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, dateTime, bid.extra, "
     "_offset, _ts FROM nexmark WHERE event_type = 2",
     NULL},
    {"TABLE side", "CREATE TABLE side (key BIGINT, value TEXT, PRIMARY KEY (key))", "-side"},
};
const unsigned bench_nexmark_object_count = ARRAY_LEN(bench_nexmark_objects);

void bench_nexmark_statement(const struct bench_nexmark_options *o, const struct bench_nexmark_object *object,
                             char *ret, size_t room)
{
    char with[2 * BENCH_NEXMARK_NAME_BYTES + 64] = "";
    if (object->topic != NULL)
        snprintf(with, sizeof(with), " WITH (topic = '%s%s', partitions = 1)", o->name, object->topic);
    snprintf(ret, room, "%s%s", object->text, with);
}

/* ---- which bids are rows ---- */

static bool every(const struct bench_nexmark_bid *bid)
{
    (void)bid;
    return true;
}

static bool some_auctions(const struct bench_nexmark_bid *bid)
{
    return bid->auction % 123 == 0;
}

static bool some_prices(const struct bench_nexmark_bid *bid)
{
    uint64_t milli = bid->price * MILLI_EURO;
    return milli > UINT64_C(1000000000) && milli < UINT64_C(50000000000);
}

static bool known_channel(const struct bench_nexmark_bid *bid)
{
    static const char *const names[] = {"Apple", "Google", "Facebook", "Baidu"};
    static const char id[] = "&channel_id=";
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (slice_equal(bid->channel, slice_str(names[i])))
            return true;
    return memmem(bid->url.ptr, bid->url.len, id, sizeof(id) - 1) != NULL;
}

/* ---- the queries ---- */

const struct bench_nexmark_query bench_nexmark_queries[] = {
    {.name = "q0", .text = "SELECT auction, bidder, price, dateTime, extra FROM bid", .gives = every},
    {.name = "q1", .text = "SELECT auction, bidder, 0.908 * price AS price, dateTime, extra FROM bid", .gives = every},
    {.name = "q2", .text = "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0", .gives = some_auctions},
    {.name = "q3",
     .text = "SELECT P.name, P.city, P.state, A.id FROM auction AS A INNER JOIN person AS P ON A.seller = P.id WHERE "
             "A.category = 10 AND (P.state = 'OR' OR P.state = 'ID' OR P.state = 'CA')",
     .forever = true},
    {.name = "q4",
     .text = "SELECT Q.category, AVG(Q.final) AS final FROM (SELECT MAX(B.price) AS final, A.category FROM auction A, "
             "bid B WHERE " LIFE " GROUP BY A.id, A.category) Q GROUP BY Q.category",
     .key = "category"},
    {.name = "q5",
     .text = "SELECT AuctionBids.auction, AuctionBids.num FROM (" COUNTED
             ") AS AuctionBids JOIN (SELECT max(CountBids.num) AS maxn, CountBids.starttime, CountBids.endtime FROM "
             "(" COUNTED ") AS CountBids GROUP BY CountBids.starttime, CountBids.endtime) AS MaxBids ON "
             "AuctionBids.starttime = MaxBids.starttime AND AuctionBids.endtime = MaxBids.endtime AND AuctionBids.num "
             ">= MaxBids.maxn"},
    {.name = "q6",
     .text = "SELECT seller, AVG(price) OVER (PARTITION BY seller ORDER BY bts, off ROWS BETWEEN 10 PRECEDING AND "
             "CURRENT ROW) AS price FROM (SELECT seller, price, bts, off FROM (SELECT A.id, A.seller, B.price, "
             "B.dateTime AS bts, B._offset AS off, " BEST " FROM auction A, bid B WHERE " LIFE ") x WHERE rownum <= "
             "1) Q"},
    {.name = "q7",
     .text = "SELECT B.auction, B.price, B.bidder, B.dateTime, B.extra FROM bid B JOIN (SELECT MAX(price) AS maxprice, "
             "window_end AS dateTime FROM " TUMBLED("bid") " GROUP BY window_start, window_end) B1 ON B.price = "
                                                           "B1.maxprice WHERE B.dateTime BETWEEN B1.dateTime - "
                                                           "INTERVAL '10' SECOND AND B1.dateTime"},
    {.name = "q8",
     .text = "SELECT P.id, P.name, P.starttime FROM (SELECT id, name, window_start AS starttime, window_end AS endtime "
             "FROM " TUMBLED("person") " GROUP BY id, name, window_start, window_end) P JOIN (SELECT seller, "
                                       "window_start AS starttime, window_end AS endtime FROM " TUMBLED(
                                           "auction") " GROUP BY seller, window_start, window_end) A ON P.id = "
                                                      "A.seller AND P.starttime = A.starttime AND P.endtime = "
                                                      "A.endtime"},
    {.name = "q9",
     .text = "SELECT id, itemName, description, initialBid, reserve, dateTime, expires, seller, category, extra, "
             "auction, bidder, price, bid_dateTime, bid_extra FROM (SELECT A.id, A.itemName, A.description, "
             "A.initialBid, A.reserve, A.dateTime, A.expires, A.seller, A.category, A.extra, B.auction, B.bidder, "
             "B.price, B.dateTime AS bid_dateTime, B.extra AS bid_extra, " BEST " FROM auction A, bid B WHERE " LIFE
             ") x WHERE rownum <= 1",
     .key = "id"},
    {.name = "q10",
     .text = "SELECT auction, bidder, price, dateTime, extra, DATE_FORMAT(dateTime, 'yyyy-MM-dd') AS dt, "
             "DATE_FORMAT(dateTime, 'HH:mm') AS hm FROM bid",
     .gives = every},
    {.name = "q11",
     .text = "SELECT bidder, count(*) AS bid_count, SESSION_START(dateTime, INTERVAL '10' SECOND) AS starttime, "
             "SESSION_END(dateTime, INTERVAL '10' SECOND) AS endtime FROM bid GROUP BY bidder, SESSION(dateTime, "
             "INTERVAL '10' SECOND)"},
    {.name = "q12",
     .text = "SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime FROM TUMBLE(bid, "
             "_ts, INTERVAL '10' SECOND) GROUP BY bidder, window_start, window_end"},
    {.name = "q13",
     .text = "SELECT B.auction, B.bidder, B.price, B.dateTime, S.value FROM (SELECT *, mod(auction, 10000) AS m FROM "
             "bid) B JOIN side FOR SYSTEM_TIME AS OF B._ts AS S ON B.m = S.key",
     .side = true},
    {.name = "q14",
     .text = "SELECT auction, bidder, 0.908 * price AS price, CASE WHEN HOUR(dateTime) >= 8 AND HOUR(dateTime) <= 18 "
             "THEN 'dayTime' WHEN HOUR(dateTime) <= 6 OR HOUR(dateTime) >= 20 THEN 'nightTime' ELSE 'otherTime' END AS "
             "bidTimeType, dateTime, extra, count_char(extra, 'c') AS c_counts FROM bid WHERE 0.908 * price > 1000000 "
             "AND 0.908 * price < 50000000",
     .gives = some_prices},
    {.name = "q15", .text = "SELECT " DAY " AS day, " ALL_BANDS " FROM bid GROUP BY " DAY, .key = "day"},
    {.name = "q16",
     .text = "SELECT channel, " DAY " AS day, max(date_format(dateTime, 'HH:mm')) AS minute, " ALL_BANDS
             " FROM bid GROUP BY channel, " DAY,
     .key = "channel, day"},
    {.name = "q17",
     .text = "SELECT auction, " DAY " AS day, " BANDS("count(*)", "bids") ", min(price) AS min_price, max(price) AS "
                                                                          "max_price, avg(price) AS avg_price, "
                                                                          "sum(price) AS sum_price FROM bid GROUP BY "
                                                                          "auction, " DAY,
     .key = "auction, day"},
    {.name = "q18",
     .text = "SELECT auction, bidder, price, channel, url, dateTime, extra FROM (SELECT *, ROW_NUMBER() OVER "
             "(PARTITION BY bidder, auction ORDER BY dateTime DESC) AS rank_number FROM bid) WHERE rank_number <= 1",
     .key = "auction, bidder"},
    {.name = "q19",
     .text = "SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS rank_number "
             "FROM (SELECT auction, bidder, price, channel, url, dateTime, extra FROM bid)) WHERE rank_number <= 10",
     .key = "auction, rank_number"},
    {.name = "q20",
     .text = "SELECT auction, bidder, price, channel, url, B.dateTime AS bid_dateTime, B.extra AS bid_extra, itemName, "
             "description, initialBid, reserve, A.dateTime AS auction_dateTime, expires, seller, category, A.extra AS "
             "auction_extra FROM bid AS B INNER JOIN auction AS A ON B.auction = A.id WHERE A.category = 10",
     .forever = true},
    {.name = "q21",
     .text = "SELECT auction, bidder, price, channel, CASE WHEN lower(channel) = 'apple' THEN '0' WHEN lower(channel) "
             "= 'google' THEN '1' WHEN lower(channel) = 'facebook' THEN '2' WHEN lower(channel) = 'baidu' THEN '3' "
             "ELSE " CHANNEL_ID " END AS channel_id FROM bid WHERE " CHANNEL_ID " IS NOT NULL OR lower(channel) IN "
             "('apple', 'google', 'facebook', 'baidu')",
     .gives = known_channel},
    {.name = "q22",
     .text = "SELECT auction, bidder, price, channel, SPLIT_INDEX(url, '/', 3) AS dir1, SPLIT_INDEX(url, '/', 4) AS "
             "dir2, SPLIT_INDEX(url, '/', 5) AS dir3 FROM bid",
     .gives = every},
    {.name = "cep0",
     .text = "SELECT auction, bidder, start_tstamp, bottom_tstamp, end_tstamp FROM bid MATCH_RECOGNIZE (" BY_BIDDER
             "START_ROW.dateTime AS start_tstamp, LAST(PRICE_DOWN.dateTime) AS bottom_tstamp, "
             "LAST(PRICE_UP.dateTime) AS end_tstamp ONE ROW PER MATCH AFTER MATCH SKIP TO LAST PRICE_UP PATTERN "
             "(START_ROW PRICE_DOWN+ PRICE_UP) DEFINE PRICE_DOWN AS (LAST(PRICE_DOWN.price, 1) IS NULL AND "
             "PRICE_DOWN.price < START_ROW.price) OR PRICE_DOWN.price < LAST(PRICE_DOWN.price, 1), PRICE_UP AS "
             "PRICE_UP.price > LAST(PRICE_DOWN.price, 1))",
     .forever = true},
    {.name = "cep1", .text = LOW_AVERAGE("PAST LAST ROW"), .forever = true},
    {.name = "cep2", .text = LOW_AVERAGE("TO NEXT ROW"), .forever = true},
    {.name = "cep3",
     .text = "SELECT auction, bidder, drop_time, drop_diff FROM bid MATCH_RECOGNIZE (" BY_BIDDER
             "C.dateTime AS drop_time, A.price - C.price AS drop_diff ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW "
             "PATTERN (A B* C) WITHIN INTERVAL '5' SECOND DEFINE B AS B.price > A.price - 50, C AS C.price < A.price - "
             "50)"},
};
const unsigned bench_nexmark_query_count = ARRAY_LEN(bench_nexmark_queries);

const struct bench_nexmark_query *bench_nexmark_query_find(struct slice name)
{
    for (unsigned i = 0; i < bench_nexmark_query_count; i++)
        if (slice_equal(name, slice_str(bench_nexmark_queries[i].name)))
            return &bench_nexmark_queries[i];
    return NULL;
}

/* ---- a bid's text ---- */

/* What stands behind `"name":` of an event, which has no spaces between; names of the envelope come first. */
static const char *field_of(struct slice event, const char *name)
{
    const char *at = memmem(event.ptr, event.len, name, strlen(name));
    return at != NULL ? at + strlen(name) : NULL;
}

static struct slice text_of(struct slice event, const char *name)
{
    const char *at = field_of(event, name);
    const char *end = at != NULL ? memchr(at, '"', (size_t)((const char *)event.ptr + event.len - at)) : NULL;
    return end != NULL ? slice_of(at, (size_t)(end - at)) : slice_of(NULL, 0);
}

bool bench_nexmark_bid_read(struct slice event, struct bench_nexmark_bid *ret)
{
    const char *auction = field_of(event, "\"bid\":{\"auction\":"), *price = field_of(event, "\"price\":");
    if (auction == NULL || price == NULL)
        return false;
    *ret = (struct bench_nexmark_bid){.auction = strtoull(auction, NULL, 10),
                                      .price = strtoull(price, NULL, 10),
                                      .channel = text_of(event, "\"channel\":\""),
                                      .url = text_of(event, "\"url\":\"")};
    return true;
}
