/* The JSON scanner: what is wanted is found whatever stands around it, and nothing that is no JSON passes. */
#include "fmt/json_scan.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* A block of its own length, so that a sanitizer sees a byte too many. */
static struct slice copy_of(const char *text)
{
    size_t len = strlen(text);
    uint8_t *copy = malloc(len + !len);
    assert_non_null(copy);
    memcpy(copy, text, len);
    return slice_of(copy, len);
}

static int want(struct json_scan *scan, const char *path)
{
    struct json_step steps[JSON_SCAN_STEPS_MAX];
    unsigned count = 0;
    for (const char *p = path; *p; p += *p == '.') {
        size_t len = strcspn(p, ".");
        steps[count++] = *p == '#' ? (struct json_step){.index = (uint32_t)strtoul(p + 1, NULL, 10)}
                                   : (struct json_step){.key = slice_of(p, len)};
        p += len;
    }
    return json_scan_want(scan, steps, count);
}

static void assert_view(const struct json_view *view, enum json_view_kind kind, const char *text)
{
    uint8_t *out = malloc(view->len + 1);
    size_t len = json_view_text(view, out);
    assert_int_equal(view->kind, kind);
    if (kind != JSON_VIEW_ABSENT) {
        assert_int_equal(len, strlen(text));
        assert_memory_equal(out, text, len);
        assert_true(kind != JSON_VIEW_STRING || json_view_is(view, slice_str(text)));
    }
    free(out);
}

static void assert_one(const char *json, const char *path, enum json_view_kind kind, const char *text)
{
    struct json_scan *scan = json_scan_new();
    struct json_view view;
    struct json_fault fault;
    struct slice copy = copy_of(json);
    assert_int_equal(want(scan, path), 0);
    for (int round = 0; round < 3; round++) { /* the first time names are learned, then guessed */
        if (!json_scan_read(scan, copy, &view, &fault))
            fail_msg("%s: byte %zu: %s", json, fault.at, fault.why);
        assert_view(&view, kind, text);
    }
    json_scan_free(&scan);
    assert_null(scan);
    free((void *)copy.ptr);
}

static void test_what_is_wanted_is_found(void **state)
{
    (void)state;
    assert_one("{\"a\":1}", "a", JSON_VIEW_INT, "1");
    assert_one(" \r\n\t{ \"a\" : 1 , \"b\" : [ ] , \"c\" : { } } ", "a", JSON_VIEW_INT, "1");
    assert_one(" [ 1 , { \"a\" : [ null , \"x\" ] } ] ", "#1.a.#1", JSON_VIEW_STRING, "x");
    assert_one("[1,2]", "#2", JSON_VIEW_ABSENT, "");
    assert_one("[[1],[2,3]]", "#1", JSON_VIEW_ARRAY, "[2,3]");
    assert_one("{\"a\":{\"b\":{\"c\":true}}}", "a.b.c", JSON_VIEW_TRUE, "true");
    assert_one("{\"a\":{\"b\":{\"c\":true}}}", "a.b", JSON_VIEW_OBJECT, "{\"c\":true}");
    assert_one("{\"a\":{\"b\":1}}", "b", JSON_VIEW_ABSENT, "");
    assert_one("{\"a\":null,\"b\":false}", "b", JSON_VIEW_FALSE, "false");
    assert_one("{\"a\":null}", "a", JSON_VIEW_NULL, "null");
    assert_one("{\"a\":null}", "a.b", JSON_VIEW_ABSENT, "");
    assert_one("{\"a\":[1]}", "a.b", JSON_VIEW_ABSENT, "");
    assert_one("{\"a\":{\"x\":1}}", "a.#0", JSON_VIEW_ABSENT, "");
    assert_one("{\"\":7,\"a\":1}", "", JSON_VIEW_OBJECT, "{\"\":7,\"a\":1}");
    assert_one("3", "", JSON_VIEW_INT, "3");
    assert_one("\"\"", "", JSON_VIEW_STRING, "");
    assert_one("{\"A\":1,\"a\":2}", "a", JSON_VIEW_INT, "2");
    assert_one("{\"a name of more than sixteen bytes\":1,\"a name of more than sixteen byteZ\":2}",
               "a name of more than sixteen byteZ", JSON_VIEW_INT, "2");
    assert_one("{\"n\\u0061me\":5}", "name", JSON_VIEW_INT, "5");
    assert_one("{\"name\":1,\"n\\u0061me\":5}", "name", JSON_VIEW_INT, "5");
    assert_one("{\"caf\xc3\xa9\":5}", "caf\xc3\xa9", JSON_VIEW_INT, "5");
}

static void test_the_last_of_two_members_counts(void **state)
{
    (void)state;
    assert_one("{\"a\":1,\"a\":2}", "a", JSON_VIEW_INT, "2");
    assert_one("{\"a\":{\"x\":1},\"a\":{\"y\":2}}", "a.x", JSON_VIEW_ABSENT, "");
    assert_one("{\"a\":{\"x\":1},\"a\":3}", "a.x", JSON_VIEW_ABSENT, "");
    assert_one("{\"a\":[{\"x\":1}],\"b\":0,\"a\":[{}]}", "a.#0.x", JSON_VIEW_ABSENT, "");
    assert_one("[{\"a\":{\"x\":1}},{\"a\":{\"x\":2}}]", "#1.a.x", JSON_VIEW_INT, "2");
}

static void test_escapes(void **state)
{
    (void)state;
    assert_one("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "", JSON_VIEW_STRING, "\"\\/\b\f\n\r\t");
    assert_one("\"\\u0041\\u00e9\\u20AC\\ud83d\\uDE00|\"", "", JSON_VIEW_STRING,
               "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80|");
    assert_one("\"plain \\n in the middle of something longer than thirty two bytes \\\\\"", "", JSON_VIEW_STRING,
               "plain \n in the middle of something longer than thirty two bytes \\");
    const struct json_view view = {.at = (const uint8_t *)"a\\nb", .len = 4, .kind = JSON_VIEW_STRING, .escaped = true};
    assert_false(json_view_is(&view, slice_str("a\nc")));
    assert_false(json_view_is(&view, slice_str("a\n")));
    assert_false(json_view_is(&view, slice_str("a\nbc")));
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum json_view_kind kind;
        int64_t number;
        double real;
    } rows[] = {
        {"0", JSON_VIEW_INT, 0, 0},
        {"-0", JSON_VIEW_INT, 0, 0},
        {"-1", JSON_VIEW_INT, -1, -1},
        {"9223372036854775807", JSON_VIEW_INT, INT64_MAX, 0x1p63},
        {"-9223372036854775808", JSON_VIEW_INT, INT64_MIN, -0x1p63},
        {"9223372036854775808", JSON_VIEW_NUMBER, 0, 0x1p63},
        {"-9223372036854775809", JSON_VIEW_NUMBER, 0, -0x1p63},
        {"99999999999999999999", JSON_VIEW_NUMBER, 0, 1e20},
        {"18446744073709551617", JSON_VIEW_NUMBER, 0, 0x1p64}, /* 1, were it to wrap */
        {"0.5", JSON_VIEW_NUMBER, 0, 0.5},
        {"-12.25", JSON_VIEW_NUMBER, 0, -12.25},
        {"1e2", JSON_VIEW_NUMBER, 0, 100},
        {"1E+2", JSON_VIEW_NUMBER, 0, 100},
        {"125e-2", JSON_VIEW_NUMBER, 0, 1.25},
        {"0.1", JSON_VIEW_NUMBER, 0, 0.1},
        {"123456789012345.6789", JSON_VIEW_NUMBER, 0, 123456789012345.6789},
        {"2.2250738585072011e-308", JSON_VIEW_NUMBER, 0, 2.2250738585072011e-308},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct json_view view;
        struct json_fault fault;
        double real = 0;
        assert_true(json_view_of(slice_str(rows[i].text), &view, &fault));
        assert_int_equal(view.kind, rows[i].kind);
        assert_int_equal(view.number, rows[i].number);
        assert_true(json_view_double(&view, &real));
        assert_true(real == rows[i].real);
    }
    struct json_view view = {.at = (const uint8_t *)"1e999", .len = 5, .kind = JSON_VIEW_NUMBER};
    double real;
    assert_false(json_view_double(&view, &real));
    view.kind = JSON_VIEW_STRING;
    assert_false(json_view_double(&view, &real));
}

static void assert_refused(const char *json, size_t at)
{
    static const char *const paths[] = {"", "a", "a.b", "#0", "#0.a"}; /* skipped, followed, and seen whole */
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct json_scan *scan = json_scan_new();
        struct json_view view;
        struct json_fault fault = {0};
        struct slice copy = copy_of(json);
        assert_int_equal(want(scan, paths[i]), 0);
        if (json_scan_read(scan, copy, &view, &fault))
            fail_msg("accepted: %s", json);
        assert_non_null(fault.why);
        if (fault.at != at)
            fail_msg("%s: byte %zu, expected %zu", json, fault.at, at);
        assert_false(json_view_of(copy, &view, &fault));
        json_scan_free(&scan);
        free((void *)copy.ptr);
    }
}

/* Texts and where they end to be JSON. */
static const struct {
    const char *text;
    size_t at;
} refused[] = {
    {"", 0},
    {" ", 1},
    {"{", 1},
    {"[", 1},
    {"{\"a\"", 4},
    {"{\"a\":", 5},
    {"{\"a\":1", 6},
    {"{\"a\":1,", 7},
    {"{\"a\":1,}", 7},
    {"[1,]", 3},
    {"[,1]", 1},
    {"{,}", 1},
    {"[1 2]", 3},
    {"{\"a\" 1}", 5},
    {"{\"a\":1 \"b\":2}", 7},
    {"{a:1}", 1},
    {"{'a':1}", 1},
    {"{1:1}", 1},
    {"[1}", 2},
    {"{\"a\":1]", 6},
    {"]", 0},
    {"}", 0},
    {"tru", 0},
    {"True", 0},
    {"nul", 0},
    {"nulll", 4},
    {"falsee", 5},
    {"NaN", 0},
    {"-Infinity", 0},
    {"01", 1},
    {"-", 0},
    {"+1", 0},
    {".5", 0},
    {"1.", 1},
    {"1.e1", 1},
    {"1e", 2},
    {"1e+", 3},
    {"-01", 2},
    {"0x1", 1},
    {"1 2", 2},
    {"{} {}", 3},
    {"\"", 1},
    {"\"a", 2},
    {"\"\\\"", 3},
    {"\"\\x\"", 1},
    {"\"\\", 1},
    {"\"\\u12\"", 1},
    {"\"\\u12g4\"", 1},
    {"\"\\ud800\"", 1},
    {"\"\\ud800\\n\"", 1},
    {"\"\\udc00\"", 1},
    {"\"\\ud800\\ud800\"", 1},
    {"\"\t\"", 1},
    {"\"a\nb\"", 2},
    {"\"\x1f\"", 1},
    {"[\"a\",\"\x01\"]", 6},
    {"\"\x80\"", 1},
    {"\"\xc0\xaf\"", 1},
    {"\"\xc1\x81\"", 1},
    {"\"\xc3\"", 1},
    {"\"\xe0\x9f\xbf\"", 1},
    {"\"\xed\xa0\x80\"", 1},
    {"\"\xf0\x8f\xbf\xbf\"", 1},
    {"\"\xf4\x90\x80\x80\"", 1},
    {"\"\xf5\x80\x80\x80\"", 1},
    {"\"\xe2\x82\"", 1},
    {"\"\xff\"", 1},
    {"{\"\xff\":1}", 2},
    {"\xef\xbb\xbf{}", 0},
    {"// x\n1", 0},
    {"{\"a\":{\"b\":1}", 12},
};

static void test_what_is_no_json_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        assert_refused(refused[i].text, refused[i].at);
}

static void check_place(const char *special, bool fine, size_t len, size_t at)
{
    char text[160], before[80] = "", after[80] = "";
    memset(before, 'x', at);
    memset(after, 'x', len - at);
    snprintf(text, sizeof text, "{\"s\":\"%s%s%s\"}", before, special, after);
    struct slice copy = copy_of(text);
    struct json_scan *scan = json_scan_new();
    struct json_view view;
    struct json_fault fault;
    assert_int_equal(want(scan, "s"), 0);
    assert_int_equal(json_scan_read(scan, copy, &view, &fault), fine);
    if (fine)
        assert_int_equal(view.len, copy.len - 8);
    else
        assert_int_equal(fault.at, 6 + at + (*special == '"'));
    json_scan_free(&scan);
    free((void *)copy.ptr);
}

static void test_every_place_of_a_string(void **state)
{
    (void)state;
    static const char *const special[] = {"", "\\n", "\xc3\xa9", "\xf0\x9f\x98\x80", "\"x", "\x02", "\xff"};
    for (size_t len = 0; len < 70; len++)
        for (size_t at = 0; at <= len; at++)
            for (size_t kind = 0; kind < ARRAY_LEN(special); kind++)
                check_place(special[kind], kind < 4, len, at);
}

static void test_depth_has_a_limit(void **state)
{
    (void)state;
    for (unsigned depth = JSON_SCAN_DEPTH_MAX - 1; depth <= JSON_SCAN_DEPTH_MAX + 1; depth++)
        for (int wanted = 0; wanted < 3; wanted++) {
            static const char *const paths[] = {"", "#0.#0.#0", "a"};
            char text[2 * JSON_SCAN_DEPTH_MAX + 8] = "";
            struct json_scan *scan = json_scan_new();
            struct json_view view;
            struct json_fault fault = {0};
            memset(text, '[', depth);
            memset(text + depth, ']', depth);
            assert_int_equal(want(scan, paths[wanted]), 0);
            assert_int_equal(json_scan_read(scan, slice_str(text), &view, &fault), depth <= JSON_SCAN_DEPTH_MAX);
            if (depth > JSON_SCAN_DEPTH_MAX)
                assert_int_equal(fault.at, JSON_SCAN_DEPTH_MAX);
            json_scan_free(&scan);
        }
    char digits[JSON_SCAN_NUMBER_MAX + 2];
    struct json_view view;
    struct json_fault fault;
    memset(digits, '1', sizeof digits);
    assert_true(json_view_of(slice_of(digits, JSON_SCAN_NUMBER_MAX), &view, &fault));
    assert_false(json_view_of(slice_of(digits, JSON_SCAN_NUMBER_MAX + 1), &view, &fault));
}

/* Members in any order, some missing, some unknown: the same is found as in a record read by a fresh scanner. */
static void test_order_does_not_matter(void **state)
{
    (void)state;
    struct json_scan *scan = json_scan_new();
    uint64_t seed = 7;
    char path[16];
    for (int i = 0; i < 20; i++) {
        snprintf(path, sizeof path, "m%d", i);
        assert_int_equal(want(scan, path), i);
    }
    for (int round = 0; round < 2000; round++) {
        char text[2048] = "{";
        size_t len = 1;
        int expected[20];
        memset(expected, -1, sizeof expected);
        for (int i = 0; i < 25; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            unsigned which = round % 3 ? (unsigned)i : (unsigned)(seed >> 33) % 60;
            len += (size_t)snprintf(text + len, sizeof text - len, "%s\"m%u\":%d", i ? "," : "", which, i);
            if (which < 20)
                expected[which] = i;
        }
        snprintf(text + len, sizeof text - len, "}");
        struct json_view views[20];
        struct json_fault fault;
        assert_true(json_scan_read(scan, slice_str(text), views, &fault));
        for (int i = 0; i < 20; i++) {
            assert_int_equal(views[i].kind, expected[i] < 0 ? JSON_VIEW_ABSENT : JSON_VIEW_INT);
            if (expected[i] >= 0)
                assert_int_equal(views[i].number, expected[i]);
        }
    }
    json_scan_free(&scan);
}

/* A guess compares all of a name, however long. */
static void test_names_that_begin_alike(void **state)
{
    (void)state;
    static const char *const names[] = {"abcdefghijklmno", "abcdefghijklmnop", "abcdefghijklmnoq", "abcdefghijklmnopr",
                                        "abcdefghijklmn"};
    struct json_scan *scan = json_scan_new();
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_int_equal(want(scan, names[i]), i);
    for (size_t round = 0; round < 3 * ARRAY_LEN(names); round++) {
        struct json_view views[ARRAY_LEN(names)];
        struct json_fault fault;
        char text[64];
        size_t which = round * 2 % ARRAY_LEN(names);
        snprintf(text, sizeof text, "{\"%s\":1}", names[which]);
        assert_true(json_scan_read(scan, slice_str(text), views, &fault));
        for (size_t i = 0; i < ARRAY_LEN(names); i++)
            assert_int_equal(views[i].kind, i == which ? JSON_VIEW_INT : JSON_VIEW_ABSENT);
    }
    json_scan_free(&scan);
}

static void test_slots(void **state)
{
    (void)state;
    struct json_scan *scan = json_scan_new();
    assert_int_equal(want(scan, "a"), 0);
    assert_int_equal(want(scan, "a.b"), 1);
    assert_int_equal(want(scan, "c.#7"), 2);
    assert_int_equal(want(scan, "c.#2"), 3);
    assert_int_equal(want(scan, "a"), 0);
    assert_int_equal(want(scan, "c.#7"), 2);
    assert_int_equal(json_scan_slots(scan), 4);
    struct json_view views[4];
    struct json_fault fault;
    assert_true(json_scan_read(scan, slice_str("{\"c\":[0,1,2,3,4,5,6,7],\"a\":{\"b\":\"x\"}}"), views, &fault));
    assert_view(&views[0], JSON_VIEW_OBJECT, "{\"b\":\"x\"}");
    assert_view(&views[1], JSON_VIEW_STRING, "x");
    assert_int_equal(views[2].number, 7);
    assert_int_equal(views[3].number, 2);
    struct json_step steps[JSON_SCAN_STEPS_MAX + 1] = {0};
    assert_int_equal(json_scan_want(scan, steps, JSON_SCAN_STEPS_MAX + 1), -1);
    assert_int_equal(json_scan_want(scan, steps, JSON_SCAN_STEPS_MAX), 4);
    json_scan_free(&scan);
    scan = json_scan_new();
    for (unsigned i = 0; i < JSON_SCAN_SLOTS_MAX; i++) {
        char path[16];
        snprintf(path, sizeof path, "m%u", i);
        assert_int_equal(want(scan, path), i);
    }
    assert_int_equal(want(scan, "one more"), -1);
    assert_int_equal(want(scan, "m4000"), 4000);
    json_scan_free(&scan);
}

static void test_no_memory(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    mem_fail_at(1, false);
    assert_null(json_scan_new());
    for (uint64_t n = 1;; n++) {
        struct json_scan *scan = json_scan_new();
        assert_non_null(scan);
        bool failed = false;
        mem_fail_at(n, false);
        for (int i = 0; i < 200; i++) {
            char path[32];
            snprintf(path, sizeof path, "m%d.inner.#%d", i, i);
            failed |= want(scan, path) < 0;
        }
        uint64_t hit = mem_failures_hit();
        mem_fail_at(0, false);
        assert_int_equal(failed, hit > 0);
        struct json_view views[200];
        struct json_fault fault;
        assert_true(json_scan_read(scan, slice_str("{\"m1\":{\"inner\":[1,2]},\"other\":1}"), views, &fault));
        json_scan_free(&scan);
        if (!hit)
            break;
    }
    struct json_scan *scan = json_scan_new();
    struct json_view view;
    struct json_fault fault;
    assert_int_equal(want(scan, "a"), 0);
    mem_fail_at(1, true); /* nothing can be learned now, and nothing is missed */
    assert_true(json_scan_read(scan, slice_str("{\"b\":1,\"c\":2,\"a\":3}"), &view, &fault));
    mem_fail_at(0, false);
    assert_int_equal(view.number, 3);
    json_scan_free(&scan);
    assert_int_equal(mem_in_use(), before);
}

static void test_items(void **state)
{
    (void)state;
    struct json_view object, array, found, name, value;
    struct json_fault fault;
    assert_true(
        json_view_of(slice_str(" {\"a\" : 1 , \"b\":[ 10, 20 ,\"x\"], \"a\": 2, \"\\u0063\":{}} "), &object, &fault));
    assert_true(json_view_member(&object, slice_str("a"), &found));
    assert_int_equal(found.number, 2);
    assert_true(json_view_member(&object, slice_str("c"), &found));
    assert_int_equal(found.kind, JSON_VIEW_OBJECT);
    assert_false(json_view_member(&found, slice_str("c"), &found));
    assert_false(json_view_member(&object, slice_str("d"), &found));
    assert_true(json_view_member(&object, slice_str("b"), &array));
    assert_false(json_view_member(&array, slice_str("a"), &found));
    assert_true(json_view_element(&array, 0, &found) && found.number == 10);
    assert_true(json_view_element(&array, -1, &found));
    assert_view(&found, JSON_VIEW_STRING, "x");
    assert_true(json_view_element(&array, -3, &found) && found.number == 10);
    assert_false(json_view_element(&array, 3, &found));
    assert_false(json_view_element(&array, -4, &found));
    assert_false(json_view_element(&object, 0, &found));
    struct json_items items = json_items_of(&array);
    int count = 0;
    while (json_items_next(&items, &name, &value))
        count++;
    assert_int_equal(count, 3);
    assert_false(json_items_next(&items, &name, &value));
    assert_true(json_view_of(slice_str("[ ]"), &array, &fault));
    items = json_items_of(&array);
    assert_false(json_items_next(&items, &name, &value));
    assert_false(json_view_element(&array, -1, &found));
    items = json_items_of(&found);
    assert_false(json_items_next(&items, &name, &value) && items.object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_wanted_is_found),
        cmocka_unit_test(test_the_last_of_two_members_counts),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_what_is_no_json_is_refused),
        cmocka_unit_test(test_every_place_of_a_string),
        cmocka_unit_test(test_depth_has_a_limit),
        cmocka_unit_test(test_order_does_not_matter),
        cmocka_unit_test(test_names_that_begin_alike),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_items),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
