/* table_json: JSON becomes a valid table and comes back the same; too deep and too large are refused. */
#include "admin/table_json.h"

#include "fmt/amqp_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void there_and_back(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}",
        "{\"a\": 1, \"b\": -5, \"c\": true, \"d\": false, \"e\": null, \"f\": 1.5, \"g\": \"text\", \"h\": \"\"}",
        "{\"list\": [1, \"a\", [], [2.5, null], {\"x\": [true]}], \"table\": {\"deep\": {\"er\": {}}}}",
        "{\"x-max-length\": 9007199254740993, \"\\u00fc\": \"\\u20ac\"}",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        uint8_t bytes[1000];
        struct writer w = writer_of(bytes, sizeof bytes);
        json_t *json = json_loads(texts[i], 0, NULL);
        assert_non_null(json);
        assert_true(table_from_json(&w, json));
        assert_true(amqp_table_valid(writer_slice(&w)));
        json_t *back = table_to_json(writer_slice(&w));
        assert_true(json_equal(json, back));
        json_decref(json);
        json_decref(back);
    }
}

static void refused(void **state)
{
    (void)state;
    uint8_t bytes[64];
    struct writer w = writer_of(bytes, sizeof bytes);
    json_t *json = json_loads("[[[[[[[[[[[[1]]]]]]]]]]]]", 0, NULL);
    json_t *object = json_pack("{s:o}", "deep", json);
    assert_false(table_from_json(&w, object));
    json_decref(object);
    w = writer_of(bytes, sizeof bytes);
    object = json_pack("{s:s}", "long", "0123456789012345678901234567890123456789012345678901234567890123456789");
    assert_false(table_from_json(&w, object));
    json_decref(object);
    assert_true(table_from_json(&w, NULL)); /* nothing is an empty table */
    object = json_integer(1);
    assert_false(table_from_json(&w, object));
    json_decref(object);
}

static void damaged_tables(void **state)
{
    (void)state;
    static const uint8_t cut[] = {1, 'a', 'S', 0, 0, 0, 9, 'x'}, latin[] = {1, 'a', 'S', 0, 0, 0, 1, 0xfc};
    assert_null(table_to_json(slice_of(cut, sizeof cut)));
    json_t *json = table_to_json(slice_of(latin, sizeof latin));
    assert_string_equal(json_string_value(json_object_get(json, "a")), "\xc3\xbc");
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back), cmocka_unit_test(refused),
                                       cmocka_unit_test(damaged_tables)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
