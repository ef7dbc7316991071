/* Records to columns: every type, what does not fit and why, and a query's scan, filter and projection over Nexmark's events. */
#include "sql/query/scan.h"

#include "base/mem.h"
#include "sql/language/bind.h"
#include "sql/language/parse.h"
#include "sql/query/nexmark.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MEMORY_MAX (64u << 20)

static struct sql_type type(const char *text, struct arena *arena)
{
    struct ast *tree;
    struct sql_type got;
    struct sql_error error;
    assert_true(sql_parse_type(slice_str(text), arena, &tree, &error));
    assert_true(type_of_ast(tree, arena, &got, &error));
    return got;
}

/* The member v of a record, as text; <SQLSTATE> of a fault. */
static void check(const char *as, const char *json, const char *expected)
{
    struct arena arena;
    struct eval e;
    struct slice record = slice_str(json), shown = slice_str("NULL");
    char fault[16];
    arena_init(&arena, MEMORY_MAX);
    bool not_null = as[0] == '!';
    struct scan_column column = {.path = (struct json_step[]){{.key = slice_str("v")}},
                                 .steps = 1,
                                 .type = type(as + not_null, &arena),
                                 .not_null = not_null};
    struct scan *scan = scan_new(&column, 1);
    assert_non_null(scan);
    assert_true(scan_batch(scan, &record, 1, &arena, &e));
    if (e.fault_count) {
        snprintf(fault, sizeof fault, "<%s>", sql_fault_state((enum sql_fault)e.faults[0]));
        shown = slice_str(fault);
        assert_true(column_null(&e.columns[0], 0));
    } else if (!column_null(&e.columns[0], 0)) {
        assert_true(eval_text(&e, &column.type, &e.columns[0], 0, &shown));
    }
    if (!slice_is(shown, expected))
        fail_msg("%s as %s: got %.*s, expected %s", json, as, SLICE_ARG(shown), expected);
    scan_free(&scan);
    arena_fini(&arena);
}

static void test_every_type(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"int", "{\"v\":5}", "5"},
        {"int", "{\"v\":5.0}", "5"},
        {"int", "{\"v\":1e3}", "1000"},
        {"int", "{\"v\":\"7\"}", "7"},
        {"int", "{\"v\":5.5}", "<22P02>"},
        {"int", "{\"v\":2147483648}", "<22003>"},
        {"int", "{\"v\":\"x\"}", "<22P02>"},
        {"int", "{\"v\":true}", "<22P02>"},
        {"int", "{\"v\":[1]}", "<22P02>"},
        {"bigint", "{\"v\":9223372036854775807}", "9223372036854775807"},
        {"bigint", "{\"v\":9223372036854775808}", "<22003>"},
        {"smallint", "{\"v\":-32769}", "<22003>"},
        {"double", "{\"v\":0.1}", "0.1"},
        {"double", "{\"v\":1e999}", "<22003>"},
        {"double", "{\"v\":\"1.5\"}", "1.5"},
        {"double", "{\"v\":false}", "<22P02>"},
        {"decimal(5,2)", "{\"v\":12.345}", "12.35"},
        {"decimal(5,2)", "{\"v\":1000}", "<22003>"},
        {"decimal(38,10)", "{\"v\":\"1234567890123456789.5\"}", "1234567890123456789.5000000000"},
        {"text", "{\"v\":\"a\\u00e9\\n\"}", "a\xc3\xa9\n"},
        {"text", "{\"v\":12.50}", "12.50"},
        {"text", "{\"v\":{\"a\":1}}", "{\"a\":1}"},
        {"text", "{\"v\":\"\"}", ""},
        {"bool", "{\"v\":true}", "true"},
        {"bool", "{\"v\":\"no\"}", "false"},
        {"bool", "{\"v\":1}", "<22P02>"},
        {"timestamp", "{\"v\":\"2015-07-15 00:00:00.007\"}", "2015-07-15 00:00:00.007"},
        {"timestamp", "{\"v\":1436918400007}", "2015-07-15 00:00:00.007"},
        {"timestamptz", "{\"v\":\"2015-07-15T02:00:00+02:00\"}", "2015-07-15 00:00:00+00"},
        {"timestamp", "{\"v\":\"yesterday\"}", "<22008>"},
        {"timestamp", "{\"v\":99999999999999999}", "<22008>"},
        {"date", "{\"v\":\"2026-02-28\"}", "2026-02-28"},
        {"date", "{\"v\":5}", "<22008>"},
        {"time", "{\"v\":\"10:20:30.5\"}", "10:20:30.5"},
        {"interval", "{\"v\":\"1 day\"}", "1 day"},
        {"interval", "{\"v\":1}", "<22008>"},
        {"json", "{\"v\":[1, {}]}", "[1, {}]"},
        {"json", "{\"v\":\"x\"}", "\"x\""},
        {"row<a int>", "{\"v\":{\"a\":1}}", "{\"a\":1}"},
        {"int", "{\"v\":null}", "NULL"},
        {"int", "{}", "NULL"},
        {"!int", "{\"v\":null}", "<23502>"},
        {"!int", "{}", "<23502>"},
        {"!int", "{\"v\":1}", "1"},
        {"int", "{\"v\":1", "<22032>"},
        {"int", "", "<22032>"},
        {"int", "[]", "NULL"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check(rows[i][0], rows[i][1], rows[i][2]);
}

/* Rows of 1,000 events that a condition lets through, for one size of batch; *ret_sum is of `value` over them. */
static uint32_t run(const char *where, const char *value, uint32_t batch, int64_t *ret_sum)
{
    static const char *const names[] = {"auction", "bidder", "price", "dateTime", "url"};
    static const char *const types[] = {"bigint", "bigint", "bigint", "timestamp", "text"};
    struct arena plan, arena;
    struct scan_column columns[5];
    struct json_step paths[5][2];
    struct scope_column scoped[5];
    struct scope scope = {.columns = scoped, .count = 5};
    struct nexmark nexmark = nexmark_default();
    struct sql_error error;
    struct ast *condition, *projection;
    uint32_t count = 0;
    arena_init(&plan, MEMORY_MAX);
    arena_init(&arena, MEMORY_MAX);
    for (uint32_t i = 0; i < 5; i++) {
        scoped[i] = (struct scope_column){
            .table = slice_str("bid"), .name = slice_str(names[i]), .type = type(types[i], &plan)};
        paths[i][0] = (struct json_step){.key = slice_str("bid")};
        paths[i][1] = (struct json_step){.key = slice_str(names[i])};
        columns[i] = (struct scan_column){.path = paths[i], .steps = 2, .type = scoped[i].type};
    }
    assert_true(sql_parse_expression(slice_str(where), &plan, &condition, &error) &&
                sql_parse_expression(slice_str(value), &plan, &projection, &error));
    struct expr *filter = sql_bind(condition, &scope, &plan, &error),
                *project = sql_bind(projection, &scope, &plan, &error);
    struct scan *scan = scan_new(columns, 5);
    assert_true(filter && project && scan && project->type.kind == TYPE_BIGINT);
    uint8_t *room = malloc(batch * NEXMARK_EVENT_MAX);
    struct slice *records = malloc(batch * sizeof *records);
    *ret_sum = 0;
    for (uint64_t from = 0; from < 1000; from += batch) {
        struct writer w = writer_of(room, batch * NEXMARK_EVENT_MAX);
        struct eval e;
        struct sel sel;
        uint32_t rows = from + batch < 1000 ? batch : (uint32_t)(1000 - from);
        for (uint32_t i = 0; i < rows; i++) {
            size_t at = w.len;
            nexmark_write(&nexmark, from + i, &w);
            records[i] = slice_of(room + at, w.len - at);
        }
        assert_true(scan_batch(scan, records, rows, &arena, &e));
        assert_int_equal(e.fault_count, 0);
        assert_true(eval_where(&e, filter, (struct sel){.count = rows}, &sel));
        const struct column *c = eval_expr(&e, project, sel);
        assert_non_null(c);
        for (uint32_t k = 0; k < sel.count; k++)
            *ret_sum += ((const int64_t *)c->values)[sel_row(sel, k) & column_mask(c)];
        count += sel.count;
        arena_reset(&arena);
    }
    free(room);
    free(records);
    scan_free(&scan);
    arena_fini(&plan);
    arena_fini(&arena);
    return count;
}

static void test_queries_over_nexmark(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"auction is not null", "price"},
        {"mod(auction, 23) = 0", "auction"},
        {"price between 1000 and 100000 and url like '%channel_id%'",
         "regexp_extract(url, 'channel_id=(-?[0-9]+)')::bigint"},
        {"dateTime >= timestamp '2015-07-15 00:00:00.050'", "extract(millisecond from dateTime)::bigint"},
        {"bid.bidder is not null", "length(split_index(url, '/', 3))::bigint"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t sum, again;
        uint32_t count = run(rows[i][0], rows[i][1], 1000, &sum);
        assert_int_equal(run(rows[i][0], rows[i][1], 1, &again), count);
        assert_int_equal(again, sum);
        assert_int_equal(run(rows[i][0], rows[i][1], 7, &again), count);
        assert_int_equal(again, sum);
        if (i == 0)
            assert_int_equal(count, 920);
        if (i == 3) /* 10,000 events a second: those from 50 ms on are the second half, their milliseconds 50 to 99 */
            assert_int_equal(count, 460);
        assert_true(count > 0 && sum != 0);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    struct scan_column columns[2] = {
        {.path = (struct json_step[]){{.key = slice_str("a")}}, .steps = 1, .type = type_of(TYPE_TEXT)},
        {.path = (struct json_step[]){{.key = slice_str("b")}}, .steps = 1, .type = type_of(TYPE_INT)}};
    for (uint64_t n = 1;; n++) {
        mem_fail_at(n, false);
        struct scan *scan = scan_new(columns, 2);
        uint64_t hit = mem_failures_hit();
        mem_fail_at(0, false);
        assert_int_equal(scan == NULL, hit > 0);
        scan_free(&scan);
        if (!hit)
            break;
    }
    struct scan *scan = scan_new(columns, 2);
    struct slice records[2] = {slice_str("{\"a\":\"x\\n\",\"b\":1}"), slice_str("{")};
    bool ok = false;
    for (size_t room = 0; !ok; room += 16) {
        struct arena arena;
        struct eval e;
        arena_init(&arena, room);
        ok = scan_batch(scan, records, 2, &arena, &e);
        arena_fini(&arena);
    }
    scan_free(&scan);
    assert_int_equal(mem_in_use(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_queries_over_nexmark),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
