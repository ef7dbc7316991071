/* Expressions: every function's example, types and coercions, NULLs, faults of single rows, selections, errors of the binder. */
#include "sql/language/bind.h"
#include "sql/language/datetime.h"
#include "sql/language/function.h"
#include "sql/language/parse.h"
#include "sql/language/regex.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MEMORY_MAX (64u << 20)
#define NOW_US 1767323045000000LL /* 2026-01-02 03:04:05 UTC */

/* Five rows; the last one is NULL in every column. */
#define ROWS 5u

static const struct scope_column columns[] = {
    {.name = {(const uint8_t *)"i", 1}, .type = {.kind = TYPE_INT}},
    {.name = {(const uint8_t *)"l", 1}, .type = {.kind = TYPE_BIGINT}},
    {.name = {(const uint8_t *)"d", 1}, .type = {.kind = TYPE_DOUBLE}},
    {.name = {(const uint8_t *)"n", 1}, .type = {.kind = TYPE_DECIMAL, .digits = 10, .scale = 2}},
    {.name = {(const uint8_t *)"t", 1}, .type = {.kind = TYPE_TEXT}},
    {.name = {(const uint8_t *)"b", 1}, .type = {.kind = TYPE_BOOL}},
    {.name = {(const uint8_t *)"ts", 2}, .type = {.kind = TYPE_TIMESTAMP}},
    {.name = {(const uint8_t *)"j", 1}, .type = {.kind = TYPE_JSON}},
    {.table = {(const uint8_t *)"x", 1}, .name = {(const uint8_t *)"same", 4}, .type = {.kind = TYPE_INT}},
    {.table = {(const uint8_t *)"y", 1}, .name = {(const uint8_t *)"same", 4}, .type = {.kind = TYPE_INT}},
};
static const struct scope scope = {.columns = columns, .count = ARRAY_LEN(columns)};

struct values {
    int64_t i[ROWS], l[ROWS], ts[ROWS];
    double d[ROWS];
    decimal_t n[ROWS];
    struct slice t[ROWS], j[ROWS];
    uint8_t b[ROWS];
    uint64_t nulls;
};

static void fill(struct values *v, struct column *c)
{
    static const char *const texts[] = {"alpha", "", "caf\xc3\xa9", "12", ""};
    static const char *const json[] = {"{\"a\":1,\"r\":{\"x\":\"q\"}}", "[1,2]", "null", "\"s\"", "1"};
    for (uint32_t row = 0; row < ROWS; row++) {
        v->i[row] = (int64_t)row - 1;
        v->l[row] = row == 3 ? INT64_MAX : (int64_t)row * 1000;
        v->d[row] = row * 0.5;
        v->n[row] = (decimal_t)row * 125 - 100;
        v->t[row] = slice_str(texts[row]);
        v->b[row] = row % 2;
        v->ts[row] = NOW_US + (int64_t)row * US_PER_DAY;
        v->j[row] = slice_str(json[row]);
    }
    v->nulls = 1u << 4;
    const struct column all[] = {
        {FORM_I64, false, v->i, &v->nulls},  {FORM_I64, false, v->l, &v->nulls},  {FORM_F64, false, v->d, &v->nulls},
        {FORM_I128, false, v->n, &v->nulls}, {FORM_TEXT, false, v->t, &v->nulls}, {FORM_BOOL, false, v->b, &v->nulls},
        {FORM_I64, false, v->ts, &v->nulls}, {FORM_TEXT, false, v->j, &v->nulls}, {FORM_I64, false, v->i, &v->nulls},
        {FORM_I64, false, v->i, &v->nulls},
    };
    memcpy(c, all, sizeof all);
}

static struct expr *bound(const char *text, struct arena *arena, struct sql_error *error)
{
    struct ast *tree;
    if (!sql_parse_expression(slice_str(text), arena, &tree, error))
        return NULL;
    return sql_bind(tree, &scope, arena, error);
}

static void fail_with(const struct sql_error *error, const char *text)
{
    char shown[1024];
    struct writer w = writer_of(shown, sizeof shown);
    sql_error_print(error, slice_str(text), &w);
    fail_msg("%.*s", (int)w.len, shown);
}

/* The values of all rows with bars between; a fault is its SQLSTATE in angle brackets. */
static const char *result(const char *text, struct sel sel, char *out, size_t room)
{
    struct arena plan, batch;
    struct sql_error error;
    struct values v;
    struct column c[ARRAY_LEN(columns)];
    size_t len = 0;
    arena_init(&plan, MEMORY_MAX);
    arena_init(&batch, MEMORY_MAX);
    fill(&v, c);
    struct expr *x = bound(text, &plan, &error);
    if (!x)
        fail_with(&error, text);
    struct eval e = eval_begin(&batch, c, ARRAY_LEN(columns), ROWS);
    e.now_us = NOW_US;
    const struct column *r = eval_expr(&e, x, sel);
    assert_non_null(r);
    out[0] = 0;
    for (uint32_t k = 0; k < sel.count; k++) {
        uint32_t row = sel_row(sel, k);
        struct slice shown = slice_str("NULL");
        char fault[16];
        if (e.faults && e.faults[row]) {
            snprintf(fault, sizeof fault, "<%s>", sql_fault_state((enum sql_fault)e.faults[row]));
            shown = slice_str(fault);
        } else if (!column_null(r, row)) {
            assert_true(eval_text(&e, &x->type, r, row, &shown));
        }
        len += (size_t)snprintf(out + len, room - len, "%s%.*s", k ? "|" : "", SLICE_ARG(shown));
    }
    arena_fini(&plan);
    arena_fini(&batch);
    return out;
}

static void check(const char *text, const char *expected)
{
    char out[4096];
    const char *got = result(text, (struct sel){.count = ROWS}, out, sizeof out);
    if (strcmp(got, expected) != 0)
        fail_msg("%s: got %s, expected %s", text, got, expected);
}

/* What a constant expression gives. */
static void check_constant(const char *text, const char *expected)
{
    char out[4096];
    const char *got = result(text, (struct sel){.count = 1}, out, sizeof out);
    if (strcmp(got, expected) != 0)
        fail_msg("%s: got %s, expected %s", text, got, expected);
}

static void test_examples_of_functions(void **state)
{
    (void)state;
    size_t count = 0;
    for (const struct function *f; (f = function_at(count)); count++) {
        assert_true(f->sentence[0] && f->example[0]);
        check_constant(f->example, f->expected);
    }
    assert_true(count > 150);
}

static void check_type(const char *text, const char *expected)
{
    struct arena arena;
    struct sql_error error;
    char name[200];
    arena_init(&arena, MEMORY_MAX);
    struct expr *x = bound(text, &arena, &error);
    if (!x)
        fail_with(&error, text);
    struct writer w = writer_of(name, sizeof name - 1);
    type_print(&x->type, &w);
    name[w.len] = 0;
    if (strcmp(name, expected) != 0)
        fail_msg("%s is a %s, expected %s", text, name, expected);
    arena_fini(&arena);
}

static void test_types(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"i + 1", "integer"},
        {"i + l", "bigint"},
        {"i + 1.5", "numeric(12,1)"},
        {"i + d", "double precision"},
        {"n * n", "numeric(20,4)"},
        {"n + 1", "numeric(13,2)"},
        {"0.908 * l", "numeric(22,3)"},
        {"n / 3", "numeric(21,13)"},
        {"n % 7", "numeric(12,2)"},
        {"9223372036854775808", "numeric(19,0)"},
        {"1e3", "double precision"},
        {"'a'", "text"},
        {"null", "text"},
        {"coalesce(null, i)", "integer"},
        {"coalesce(i, n)", "numeric(12,2)"},
        {"case when b then i else d end", "double precision"},
        {"ts - ts", "interval"},
        {"ts + '1 day'", "timestamp"},
        {"ts::date", "date"},
        {"date '2026-01-01' = ts", "boolean"},
        {"j -> 'a'", "json"},
        {"(j ->> 'a')::int", "integer"},
        {"i::text || d", "text"},
        {"greatest(i, 2.5)", "numeric(11,1)"},
        {"n::decimal(5,1)", "numeric(5,1)"},
        {"t::timestamptz", "timestamp with time zone"},
        {"extract(hour from ts)", "numeric(38,6)"},
        {"-n", "numeric(10,2)"},
        {"l * l * 1.0", "numeric(21,1)"},
        {"cast(j as row<a int, r row<x text>>)", "row<a integer, r row<x text>>"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_type(rows[i][0], rows[i][1]);
}

static void test_over_rows(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"i", "-1|0|1|2|NULL"},
        {"i + 1", "0|1|2|3|NULL"},
        {"10 / i", "-10|<22012>|10|5|NULL"},
        {"l + 1", "1|1001|2001|<22003>|NULL"},
        {"l * 1000000000000000", "0|1000000000000000000|2000000000000000000|<22003>|NULL"},
        {"case when i <> 0 then 10 / i else 0 end", "-10|0|10|5|0"},
        {"i <> 0 and 10 / i > 3", "false|false|true|true|NULL"},
        {"i = 0 or 10 / i > 3", "false|true|true|true|NULL"},
        {"coalesce(i, 10 / 0)", "-1|0|1|2|<22012>"},
        {"coalesce(nullif(i, 0), 7)", "-1|7|1|2|7"},
        {"case i when 0 then 'zero' when 1 then 'one' end", "NULL|zero|one|NULL|NULL"},
        {"i is null", "false|false|false|false|true"},
        {"i is not null", "true|true|true|true|false"},
        {"b is true", "false|true|false|true|false"},
        {"b is not false", "false|true|false|true|true"},
        {"b is unknown", "false|false|false|false|true"},
        {"i is distinct from 0", "true|false|true|true|true"},
        {"i is not distinct from null", "false|false|false|false|true"},
        {"b and null", "false|NULL|false|NULL|NULL"},
        {"b or null", "NULL|true|NULL|true|NULL"},
        {"not b", "true|false|true|false|NULL"},
        {"i between 0 and 1", "false|true|true|false|NULL"},
        {"i not between symmetric 1 and 0", "true|false|false|true|NULL"},
        {"i in (1, 2, 3)", "false|false|true|true|NULL"},
        {"i in (1, null)", "NULL|NULL|true|NULL|NULL"},
        {"i not in (1, 0)", "true|false|false|true|NULL"},
        {"t || '!'", "alpha!|!|caf\xc3\xa9!|12!|NULL"},
        {"concat(t, i)", "alpha-1|0|caf\xc3\xa9"
                         "1|122|"},
        {"length(t)", "5|0|4|2|NULL"},
        {"t like '%a%'", "true|false|true|false|NULL"},
        {"t like '_'", "false|false|false|false|NULL"},
        {"t like '____'", "false|false|true|false|NULL"},
        {"t ~ '^[a-z]+$'", "true|false|false|false|NULL"},
        {"t::int", "<22P02>|<22P02>|<22P02>|12|NULL"},
        {"try_cast(t as int)", "NULL|NULL|NULL|12|NULL"},
        {"n", "-1.00|0.25|1.50|2.75|NULL"},
        {"n + 1", "0.00|1.25|2.50|3.75|NULL"},
        {"n * 0.908", "-0.90800|0.22700|1.36200|2.49700|NULL"},
        {"n / 3", "-0.3333333333333|0.0833333333333|0.5000000000000|0.9166666666667|NULL"},
        {"n::int", "-1|0|2|3|NULL"},
        {"round(n, 1)", "-1.00|0.30|1.50|2.80|NULL"},
        {"n > 1", "false|false|true|true|NULL"},
        {"d + n", "-1|0.75|2.5|4.25|NULL"},
        {"d::int", "0|0|1|2|NULL"},
        {"ts + interval '1 month'",
         "2026-02-02 03:04:05|2026-02-03 03:04:05|2026-02-04 03:04:05|2026-02-05 03:04:05|NULL"},
        {"to_char(ts, 'DD')", "02|03|04|05|NULL"},
        {"ts - interval '1' day < timestamp '2026-01-02 12:00'", "true|true|false|false|NULL"},
        {"j ->> 'a'", "1|NULL|NULL|NULL|NULL"},
        {"j -> 1", "NULL|2|NULL|NULL|NULL"},
        {"json_typeof(j)", "object|array|null|string|NULL"},
        {"cast(j as row<a int, r row<x text>>).a + 1", NULL},
        {"(cast(j as row<a int, r row<x text>>)).a + 1", "2|NULL|NULL|NULL|NULL"},
        {"(cast(j as row<a int, r row<x text>>)).r.x", "q|NULL|NULL|NULL|NULL"},
        {"(cast(j as array<int>))[2] * 2", "NULL|4|NULL|NULL|NULL"},
        {"greatest(i, 1)", "1|1|1|2|1"},
        {"now() - interval '3 hours'", "2026-01-02 00:04:05+00|2026-01-02 00:04:05+00|2026-01-02 "
                                       "00:04:05+00|2026-01-02 00:04:05+00|2026-01-02 00:04:05+00"},
        {"x.same + y.same", "-2|0|2|4|NULL"},
        {"T || I", "alpha-1|0|caf\xc3\xa9"
                   "1|122|NULL"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i][1])
            check(rows[i][0], rows[i][1]);
}

static void test_constants(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"1 + 2 * 3", "7"},
        {"-7 / 2", "-3"},
        {"-7 % 2", "-1"},
        {"2147483647 + 1", "<22003>"},
        {"2147483648 + 1", "2147483649"},
        {"smallint '32767' + smallint '1'", "<22003>"},
        {"9223372036854775807 + 1", "<22003>"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"(-9223372036854775807 - 1) / -1", "<22003>"},
        {"1 / 0", "<22012>"},
        {"1.0 / 0", "<22012>"},
        {"1e308 * 10", "<22003>"},
        {"0.1 + 0.2", "0.3"},
        {"0.1::double + 0.2::double", "0.30000000000000004"},
        {"1.10 = 1.1", "true"},
        {"1 = 1.0", "true"},
        {"'1' = 1", "true"},
        {"99999999999999999999999999999999999999 + 1", "<22003>"},
        {"12345678901234567890.5 * 98765432109876543210.5", "<22003>"},
        {"1.5::int", "2"},
        {"2.5::int", "3"},
        {"2.5::double::int", "2"},
        {"-1.5::int", "-2"},
        {"1e10::int", "<22003>"},
        {"'12.345'::decimal(4,1)", "12.3"},
        {"12.35::decimal(3,1)", "12.4"},
        {"123.45::decimal(4,2)", "<22003>"},
        {"' -7 '::int", "-7"},
        {"'1e2'::decimal(5,1)", "100.0"},
        {"true::int", "1"},
        {"'yes'::bool", "true"},
        {"1::bool and true", "true"},
        {"null::int is null", "true"},
        {"null = null", "NULL"},
        {"null and false", "false"},
        {"null or true", "true"},
        {"'a' < 'b'", "true"},
        {"'a' < 'B'", "false"},
        {"'ab' > 'a'", "true"},
        {"'' = ''", "true"},
        {"interval '1 month' = interval '30 days'", "true"},
        {"interval '24 hours' = interval '1 day'", "true"},
        {"date '2024-02-29' + interval '1 year'", "2025-02-28 00:00:00"},
        {"timestamp '2026-01-01' - timestamp '2025-01-01'", "365 days"},
        {"timestamp '2026-01-01T10:20:30.123456789Z'", "2026-01-01 10:20:30.123457"},
        {"timestamptz '2026-01-01 10:00:00+05:30'", "2026-01-01 04:30:00+00"},
        {"date '0001-01-01' - 1", "<22008>"},
        {"timestamp '9999-12-31 23:59:59' + interval '1 day'", "<22008>"},
        {"interval '1 year 2 months 3 days 04:05:06.7'", "1 year 2 mons 3 days 04:05:06.7"},
        {"interval '-1-2'", "-1 years -2 mons"},
        {"interval '1.5 days'", "1 day 12:00:00"},
        {"interval '90' minute", "01:30:00"},
        {"interval '1 day ago'", "-1 days"},
        {"interval '5:30' minute to second", "00:05:30"},
        {"interval '2 10:00' day to hour", NULL},
        {"extract(week from date '2021-01-03')", "53.000000"},
        {"extract(dow from date '2026-11-29')", "0.000000"},
        {"extract(quarter from date '2026-11-29')", "4.000000"},
        {"date_trunc('week', timestamp '2026-11-29 05:00')", "2026-11-23 00:00:00"},
        {"date_trunc('dow', timestamp '2026-11-29')", "<22023>"},
        {"to_char(timestamp '2026-11-05 00:07:09', 'Day Month FMDD HH12:MI am')", NULL},
        {"to_char(timestamp '2026-11-05 00:07:09', 'Dy, DD Mon YYYY HH12:MI:SS PM')", "Thu, 05 Nov 2026 12:07:09 AM"},
        {"date_format(timestamp '2026-11-05 00:07:09.123', 'yyyy-MM-dd''T''HH:mm:ss.SSS')", "2026-11-05T00:07:09.123"},
        {"date_format(timestamp '2026-11-05', 'foo')", "<22023>"},
        {"substring('hello', -1, 4)", "he"},
        {"substring('hello', 2, -1)", "<22023>"},
        {"substring('h\xc3\xa9llo', 2, 2)", "\xc3\xa9l"},
        {"left('hello', -2)", "hel"},
        {"substring('hello', 0, 3)", "he"},
        {"right('h\xc3\xa9', 1)", "\xc3\xa9"},
        {"split_part('a,b', ',', -1)", "b"},
        {"split_part('a', ',', 3)", ""},
        {"split_part('a', ',', 0)", "<22023>"},
        {"split_index('a', ',', 1)", "NULL"},
        {"repeat('x', 100000000)", "<54000>"},
        {"lpad('hello', 3)", "hel"},
        {"replace('aaa', '', 'b')", "aaa"},
        {"replace('aaa', 'a', '')", ""},
        {"trim('x' from 'xxaxx')", "a"},
        {"position('l' in 'hello')", "3"},
        {"chr(0)", "<22023>"},
        {"'a%b' like 'a\\%b'", "true"},
        {"'axb' like 'a\\%b'", "false"},
        {"'a' like 'a\\'", NULL},
        {"'aaaaaaaaaaaaaaaaaaaaaaaaaaaab' ~ '^(a+)+$'", "<2201B>"},
        {"'a' ~ '('", "<2201B>"},
        {"regexp_replace('foo.bar', '[.]', '\\&\\&')", "foo..bar"},
        {"regexp_extract('abc', '(x)?b')", "NULL"},
        {"regexp_replace('abc', '', '-', 'g')", "-a-b-c-"},
        {"regexp_count('aaa', '')", "4"},
        {"json_value('{\"a\":null}', '$.a')", "NULL"},
        {"json_value('{\"a\":[1]}', '$.a')", "NULL"},
        {"json_value('{\"a\":1}', 'a')", "<22023>"},
        {"json_value('{\"a b\":{\"c\":true}}', '$[''a b''].c')", "true"},
        {"json '{\"a\":[{\"b\":null}]}' #>> '{a,0,b}'", "NULL"},
        {"json_array_length('{}')", "<22023>"},
        {"uuid 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
        {"to_json(1.50)", "1.50"},
        {"to_json(date '2026-01-01')", "\"2026-01-01\""},
        {"greatest('a', 'c', 'b')", "c"},
        {"greatest(null, null)", "NULL"},
        {"nullif('a', 'a')", "NULL"},
        {"ceil(1.01)", "2"},
        {"power(0, -1)", "<22023>"},
        {"sqrt(-1)", "<22023>"},
        {"ln(0)", "<22023>"},
        {"round(-0.5)", "-1"},
        {"round(1234.5, -2)", "1200.0"},
        {"trunc(-1.999, 1)", "-1.900"},
        {"to_timestamp(1e20)", "<22008>"},
        {"case when true then 1 else 1 / 0 end", "1"},
        {"false and 1 / 0 = 1", "false"},
        {"coalesce(1, 1 / 0)", "1"},
        {"1 in (1, 1 / 0)", "true"},
        {"float '1.5' + 1", "2.5"},
        {"real '0.1'", "0.1"},
        {"real '0.1' + 0", NULL},
        {"1::real / 3", NULL},
        {"concat_ws(null, 'a')", "NULL"},
        {"concat()", NULL},
        {"octet_length('')", "0"},
        {"tumble_start(timestamp '1969-12-31 23:59:59', interval '10' second)", "1969-12-31 23:59:50"},
        {"tumble_start(timestamp '2026-01-01', interval '1 month')", "<22023>"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i][1])
            check_constant(rows[i][0], rows[i][1]);
}

/* Only selected rows are computed, and what they give does not depend on which others are. */
static void test_selections(void **state)
{
    (void)state;
    static const char *const texts[] = {"10 / i",
                                        "l + 1",
                                        "t::int",
                                        "coalesce(nullif(i, 0), 7)",
                                        "i + 1",
                                        "n * n",
                                        "case when b then t end",
                                        "i in (1, 2)",
                                        "d * 2",
                                        "i <> 0 and 10 / i > 3",
                                        "ts + interval '1 day'"};
    for (size_t n = 0; n < ARRAY_LEN(texts); n++)
        for (unsigned mask = 0; mask < 1u << ROWS; mask++) {
            uint16_t at[ROWS];
            struct sel sel = {.at = at};
            char all[1024], some[1024], expected[1024] = "", *rest = all;
            for (uint16_t row = 0; row < ROWS; row++)
                if (mask >> row & 1)
                    at[sel.count++] = row;
            result(texts[n], (struct sel){.count = ROWS}, all, sizeof all);
            result(texts[n], sel, some, sizeof some);
            size_t len = 0, shown = 0;
            for (unsigned row = 0; row < ROWS; row++) {
                const char *part = strsep(&rest, "|");
                if (mask >> row & 1)
                    len += (size_t)snprintf(expected + len, sizeof expected - len, "%s%s", shown++ ? "|" : "", part);
            }
            assert_string_equal(some, expected);
        }
}

static void test_where(void **state)
{
    (void)state;
    struct arena arena;
    struct sql_error error;
    struct values v;
    struct column c[ARRAY_LEN(columns)];
    struct sel got;
    arena_init(&arena, MEMORY_MAX);
    fill(&v, c);
    struct expr *x = bound("i > 0 or t = ''", &arena, &error);
    struct eval e = eval_begin(&arena, c, ARRAY_LEN(columns), ROWS);
    assert_true(eval_where(&e, x, (struct sel){.count = ROWS}, &got));
    assert_int_equal(got.count, 3);
    assert_int_equal(got.at[0], 1);
    assert_int_equal(got.at[2], 3);
    arena_fini(&arena);
}

static void test_errors_of_the_binder(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum sql_fault fault;
        uint32_t at;
        const char *hint;
    } rows[] = {
        {"lenght(t)", SQL_FAULT_NO_FUNCTION, 0, "did you mean length?"},
        {"1 + tss", SQL_FAULT_NO_NAME, 4, "did you mean ts?"},
        {"same", SQL_FAULT_AMBIGUOUS, 0, ""},
        {"z.same", SQL_FAULT_NO_NAME, 0, "did you mean same?"},
        {"t + 1", SQL_FAULT_NO_FUNCTION, 0, "a CAST makes one type of another: CAST(a AS type)"},
        {"i and b", SQL_FAULT_TYPE, 0, ""},
        {"b and 'x'", SQL_FAULT_TEXT, 6, ""},
        {"case when i then 1 end", SQL_FAULT_TYPE, 10, ""},
        {"case when b then i else ts end", SQL_FAULT_TYPE, 24, ""},
        {"i = ts", SQL_FAULT_TYPE, 4, ""},
        {"j = j", SQL_FAULT_NO_FUNCTION, 0, ""},
        {"ts::bool", SQL_FAULT_TYPE, 0, ""},
        {"cast(i as intger)", SQL_FAULT_NO_TYPE, 10, "did you mean integer?"},
        {"cast(i as decimal(39,0))", SQL_FAULT_TYPE, 10, ""},
        {"date '2026-02-30'", SQL_FAULT_TIME, 0, ""},
        {"interval '1 fortnight'", SQL_FAULT_TIME, 0, ""},
        {"json '{'", SQL_FAULT_JSON, 0, ""},
        {"extract(houre from ts)", SQL_FAULT_ARGUMENT, 0, ""},
        {"count(*) > 1", SQL_FAULT_GROUPING, 0, ""},
        {"sum(i)", SQL_FAULT_GROUPING, 0, ""},
        {"rank() over ()", SQL_FAULT_WINDOWING, 0, ""},
        {"i in (select 1)", SQL_FAULT_UNBOUNDED, 0, ""},
        {"(select 1)", SQL_FAULT_UNBOUNDED, 0, ""},
        {"t similar to 'a'", SQL_FAULT_UNBOUNDED, 0, "a ~ 'expression' matches regular expressions"},
        {"i.x", SQL_FAULT_TYPE, 0, ""},
        {"(cast(j as row<abc int>)).abd", SQL_FAULT_NO_NAME, 1, "did you mean abc?"},
        {"substring(i, 1)", SQL_FAULT_NO_FUNCTION, 0, "a CAST makes one type of another: CAST(a AS type)"},
        {"1e400", SQL_FAULT_RANGE, 0, ""},
        {"i || l", SQL_FAULT_NO_FUNCTION, 0, "a CAST makes one type of another: CAST(a AS type)"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct arena arena;
        struct sql_error error = {0};
        arena_init(&arena, MEMORY_MAX);
        if (bound(rows[i].text, &arena, &error))
            fail_msg("accepted: %s", rows[i].text);
        if (error.fault != rows[i].fault || strcmp(error.hint, rows[i].hint) != 0 || error.at != rows[i].at)
            fail_msg("%s: %s at %u: %s; hint: %s", rows[i].text, sql_fault_text(error.fault), error.at, error.message,
                     error.hint);
        arena_fini(&arena);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    static const char *const texts[] = {"case when i in (1, 2) then t || 'x' else coalesce(null, upper(t)) end",
                                        "regexp_replace(t, 'a', 'b', 'g')",
                                        "n * 2 between 1 and 3 or to_char(ts, 'YYYY') is not distinct from '2026'"};
    size_t before = mem_in_use();
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct arena plan, batch;
        struct sql_error error = {0};
        struct values v;
        struct column c[ARRAY_LEN(columns)];
        fill(&v, c);
        for (size_t room = 1000;; room += 100) {
            error = (struct sql_error){0};
            arena_init(&plan, room);
            bool ok = bound(texts[i], &plan, &error);
            arena_fini(&plan);
            assert_true(ok || error.fault == SQL_FAULT_MEMORY);
            if (ok)
                break;
        }
        arena_init(&plan, MEMORY_MAX);
        struct expr *x = bound(texts[i], &plan, &error);
        for (size_t room = 0;; room += 100) {
            arena_init(&batch, room);
            struct eval e = eval_begin(&batch, c, ARRAY_LEN(columns), ROWS);
            const struct column *r = eval_expr(&e, x, (struct sel){.count = ROWS});
            assert_true(r || e.no_memory);
            arena_fini(&batch);
            if (r)
                break;
        }
        arena_fini(&plan);
    }
    assert_int_equal(mem_in_use(), before);
}

/* What conditions have in common is computed once a row, also when the second one asks for other rows than the first. */
static void test_shared_parts(void **state)
{
    (void)state;
    struct arena arena;
    struct values v;
    struct column c[ARRAY_LEN(columns)];
    struct sql_error error = {0};
    struct regex_cache *regexes = regex_cache_new();
    arena_init(&arena, MEMORY_MAX);
    fill(&v, c);
    struct expr *roots[] = {bound("lower(t) = 'alpha' or regexp_like(t, '^[0-9]+$')", &arena, &error),
                            bound("case when lower(t) = '' then 'none' when regexp_like(t, '^[0-9]+$') then 'number' "
                                  "else lower(t) || 1 / i end",
                                  &arena, &error)};
    assert_true(roots[0] && roots[1] && regexes);
    uint32_t memos = expr_share(roots, 2);
    assert_int_equal(memos, 2);
    struct eval e = eval_begin(&arena, c, ARRAY_LEN(columns), ROWS);
    e.regexes = regexes;
    assert_true(eval_memos(&e, memos));
    struct sel sel;
    assert_true(eval_where(&e, roots[0], (struct sel){.count = ROWS}, &sel));
    assert_int_equal(sel.count, 2);
    assert_int_equal(sel_row(sel, 0), 0);
    assert_int_equal(sel_row(sel, 1), 3);
    const struct column *r = eval_expr(&e, roots[1], (struct sel){.count = ROWS});
    assert_non_null(r);
    static const char *const expected[] = {"alpha-1", "none", "caf\xc3\xa9\x31", "number"};
    for (uint32_t i = 0; i < ARRAY_LEN(expected); i++)
        assert_true(slice_is(((const struct slice *)r->values)[i], expected[i]));
    assert_true(column_null(r, 4));
    assert_int_equal(e.fault_count, 0);
    regex_cache_free(&regexes);
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_parts), cmocka_unit_test(test_examples_of_functions),
        cmocka_unit_test(test_types),        cmocka_unit_test(test_over_rows),
        cmocka_unit_test(test_constants),    cmocka_unit_test(test_selections),
        cmocka_unit_test(test_where),        cmocka_unit_test(test_errors_of_the_binder),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
