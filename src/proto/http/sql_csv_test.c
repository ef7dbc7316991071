/* Lines of JSON as CSV: every kind of value, in pieces of every size and with little room. */
#include "proto/http/sql_csv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct {
    const char *lines, *table;
    bool error;
} rows[] = {
    {"{\"statement\":0,\"columns\":[{\"name\":\"a\",\"type\":\"BIGINT\"},{\"name\":\"b \\\"x\\\", "
     "[y]\",\"type\":\"ROW(\\\"}]\\\" INT)\"}]}\n"
     "{\"row\":[1,\"x\"]}\n{\"row\":[-2.50e3,null]}\n{\"row\":[null,\"\"]}\n{\"done\":\"SELECT\",\"rows\":3}\n",
     "\"a\",\"b \"\"x\"\", [y]\"\r\n1,\"x\"\r\n-2.50e3,\r\n,\"\"\r\n", false},
    {"{\"row\":[true,false,null]}\n{\"row\":[]}\n{\"row\":[null]}\n", "true,false,\r\n\r\n\r\n", false},
    {"{\"row\":[\"q\\\"c,\\\\ \\/\\n\\r\\t\\b\\f\"]}\n", "\"q\"\"c,\\ /\n\r\t\b\f\"\r\n", false},
    {"{\"row\":[\"\\u0041\\u00e9\\u20ac\\ud83d\\ude00\\u0022\",\"κόσμε\"]}\n", "\"Aé€😀\"\"\",\"κόσμε\"\r\n", false},
    {"{\"row\":[[1,\"a]\\\"\",{\"k\":[null]}],{\"o\":\"}\"},[]]}\n",
     "\"[1,\"\"a]\\\"\"\"\",{\"\"k\"\":[null]}]\",\"{\"\"o\"\":\"\"}\"\"}\",\"[]\"\r\n", false},
    {"{\"statement\":0,\"columns\":[]}\n{\"row\":[]}\n{\"statement\":1,\"columns\":[{\"name\":\"c\",\"type\":\"TEXT\"}]"
     "}\n{\"row\":[\"z\"]}\n",
     "\r\n\r\n\r\n\"c\"\r\n\"z\"\r\n", false},
    {"{\"done\":\"CREATE STREAM\",\"name\":\"[1,2]\"}\n", "", false},
    {"{\"row\":[1]}\n{\"error\":{\"code\":\"22012\",\"message\":\"[division]\"}}\n", "1\r\n", true},
    {"{\"row\":[1],\"change\":\"-\"}\n", "1\r\n", true},
    {"{\"row\":[1],\"change\":\"+\"}\n", "1\r\n", false},
};

static void tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t piece = 1; piece < 40; piece++)
            for (size_t room = 8; room < 30; room += 7) {
                struct sql_csv csv = {0};
                struct slice left = slice_str(rows[i].lines);
                char out[400];
                size_t len = 0;
                while (left.len) {
                    uint8_t bytes[30];
                    struct writer w = writer_of(bytes, room);
                    size_t used = sql_csv_step(&csv, slice_of(left.ptr, left.len < piece ? left.len : piece), &w);
                    assert_true(used > 0 && writer_ok(&w) && len + w.len < sizeof out);
                    memcpy(out + len, bytes, w.len);
                    len += w.len;
                    left = slice_of(left.ptr + used, left.len - used);
                }
                out[len] = '\0';
                if (strcmp(out, rows[i].table) != 0 || csv.error != rows[i].error)
                    fail_msg("row %zu, pieces of %zu: %s", i, piece, out);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tables)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
