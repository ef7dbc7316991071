/* The generator: proportions, ids, sizes and skew of the reference, the same bytes for the same number, and always JSON. */
#include "sql/query/nexmark.h"

#include "fmt/json_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct slice event(const struct nexmark *nexmark, uint64_t number, uint8_t *room)
{
    struct writer w = writer_of(room, NEXMARK_EVENT_MAX);
    nexmark_write(nexmark, number, &w);
    assert_true(writer_ok(&w));
    return writer_slice(&w);
}

static int want(struct json_scan *scan, const char *outer, const char *inner)
{
    struct json_step steps[2] = {{.key = slice_str(outer)}, {.key = slice_str(inner)}};
    return json_scan_want(scan, steps, 2);
}

static void test_facts_of_the_reference(void **state)
{
    (void)state;
    struct nexmark nexmark = nexmark_default();
    struct json_scan *scan = json_scan_new();
    uint8_t room[NEXMARK_EVENT_MAX];
    struct json_view v[8];
    struct json_fault fault;
    uint64_t count[3] = {0}, hot_auction = 0, hot_bidder = 0, hot_seller = 0, bytes = 0, hot_channel = 0;
    int person = want(scan, "person", "id"), auction = want(scan, "auction", "id");
    int seller = want(scan, "auction", "seller"), bid = want(scan, "bid", "auction");
    int bidder = want(scan, "bid", "bidder"), price = want(scan, "bid", "price"),
        channel = want(scan, "bid", "channel");
    int category = want(scan, "auction", "category");
    for (uint64_t n = 0; n < 50000; n++) {
        struct slice text = event(&nexmark, n, room);
        bytes += text.len;
        if (!json_scan_read(scan, text, v, &fault))
            fail_msg("event %lu: byte %zu: %s", (unsigned long)n, fault.at, fault.why);
        enum nexmark_kind kind = nexmark_kind_of(n);
        count[kind]++;
        assert_int_equal(v[person].kind == JSON_VIEW_INT, kind == NEXMARK_PERSON);
        assert_int_equal(v[auction].kind == JSON_VIEW_INT, kind == NEXMARK_AUCTION);
        assert_int_equal(v[bid].kind == JSON_VIEW_INT, kind == NEXMARK_BID);
        int64_t people = (int64_t)count[NEXMARK_PERSON], auctions = (int64_t)count[NEXMARK_AUCTION];
        if (kind == NEXMARK_PERSON)
            assert_int_equal(v[person].number, 999 + people);
        if (kind == NEXMARK_AUCTION) {
            assert_int_equal(v[auction].number, 999 + auctions);
            assert_true(v[seller].number >= 1000 && v[seller].number < 1000 + people + 10);
            assert_true(v[category].number >= 10 && v[category].number <= 14);
            hot_seller += v[seller].number % 100 == 0;
        }
        if (kind == NEXMARK_BID) {
            assert_true(v[bid].number >= 1000 && v[bid].number < 1000 + auctions + 10);
            assert_true(v[bidder].number >= 1000 && v[bidder].number < 1000 + people + 10);
            assert_true(v[price].number >= 100 && v[price].number <= 100000000);
            hot_auction += v[bid].number % 100 == 0;
            hot_bidder += v[bidder].number % 100 == 1;
            hot_channel += !slice_starts(slice_of(v[channel].at, v[channel].len), "channel-");
        }
    }
    assert_int_equal(count[NEXMARK_PERSON], 1000);
    assert_int_equal(count[NEXMARK_AUCTION], 3000);
    assert_int_equal(count[NEXMARK_BID], 46000);
    assert_in_range(hot_auction, 22500, 24500); /* a half, and a hundredth of the rest */
    assert_in_range(hot_bidder, 34000, 35500);
    assert_in_range(hot_seller, 2150, 2400);
    assert_in_range(hot_channel, 22500, 23500);
    assert_in_range(bytes / 50000, 320, 340);
    json_scan_free(&scan);
}

static void test_made_from_the_number_alone(void **state)
{
    (void)state;
    struct nexmark nexmark = nexmark_default(), other = nexmark_default();
    uint8_t a[NEXMARK_EVENT_MAX], b[NEXMARK_EVENT_MAX];
    other.seed = 2;
    for (uint64_t n = 0; n < 200; n++) {
        struct slice first = event(&nexmark, n, a);
        event(&nexmark, 200 - n, b);
        assert_true(slice_equal(first, event(&nexmark, n, b)));
        assert_false(slice_equal(first, event(&other, n, b)));
        assert_false(slice_equal(first, event(&nexmark, n + 50, b)));
    }
}

static void test_time_and_order(void **state)
{
    (void)state;
    struct nexmark nexmark = nexmark_default();
    uint8_t room[NEXMARK_EVENT_MAX];
    nexmark.rate = 1000;
    assert_int_equal(nexmark_time(&nexmark, 0), NEXMARK_BASE_MS);
    assert_int_equal(nexmark_time(&nexmark, 1234), NEXMARK_BASE_MS + 1234);
    nexmark.rate = 300;
    assert_int_equal(nexmark_time(&nexmark, 301), NEXMARK_BASE_MS + 1003);
    nexmark.rate = 0;
    assert_int_equal(nexmark_time(&nexmark, 3), NEXMARK_BASE_MS + 3000);
    nexmark.rate = 1;
    struct slice text = event(&nexmark, 86400 * 230 + 50 - 86400 * 230 % 50, room); /* in the next year */
    assert_non_null(memmem(text.ptr, text.len, "\"dateTime\":\"2016-03-01 00:00:", 29));
    bool seen[1000] = {false};
    nexmark.group = 100;
    bool moved = false;
    for (uint64_t place = 0; place < 1000; place++) {
        uint64_t number = nexmark_number(&nexmark, place);
        assert_int_equal(number / 100, place / 100);
        assert_false(seen[number]);
        seen[number] = true;
        moved |= number != place;
    }
    assert_true(moved);
    nexmark.group = 1;
    assert_int_equal(nexmark_number(&nexmark, 77), 77);
}

static void test_room_that_does_not_do(void **state)
{
    (void)state;
    struct nexmark nexmark = nexmark_default();
    uint8_t room[50];
    struct writer w = writer_of(room, sizeof room);
    nexmark_write(&nexmark, 1, &w);
    assert_false(writer_ok(&w));
    assert_true(w.len <= sizeof room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts_of_the_reference),
        cmocka_unit_test(test_made_from_the_number_alone),
        cmocka_unit_test(test_time_and_order),
        cmocka_unit_test(test_room_that_does_not_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
