/* Dead letters: what they have of a record, and of one that is too large. */
#include "sql/query/dead_letter.h"

#include "fmt/compress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct dead_letter letter_of(struct slice value)
{
    return (struct dead_letter){.query = slice_str("q"),
                                .stream = slice_str("s"),
                                .partition = 2,
                                .offset = 77,
                                .key = slice_str("k"),
                                .value = value,
                                .fault = SQL_FAULT_JSON,
                                .at = 1000};
}

static void check_headers(struct slice headers)
{
    static const char *const rows[][2] = {{"sql.error", "22032"}, {"sql.reason", "a text that is no JSON"},
                                          {"sql.query", "q"},     {"sql.stream", "s"},
                                          {"sql.partition", "2"}, {"sql.offset", "77"}};
    struct record_header h;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_true(record_header_next(&headers, &h));
        assert_true(slice_is(h.key, rows[i][0]) && slice_is(h.value, rows[i][1]));
    }
    assert_false(record_header_next(&headers, &h));
}

static void test_records(void **state)
{
    uint8_t *bytes = calloc(1, DEAD_LETTER_RECORD_MAX);
    struct slice values[] = {slice_str("no json"), slice_of(bytes, DEAD_LETTER_RECORD_MAX - 1),
                             slice_of(bytes, DEAD_LETTER_RECORD_MAX)}; /* with the key one byte too many */
    struct slab_heap heap;
    struct dead_letters d;
    struct record_batch batch;
    struct record_reader r;
    struct record record;
    struct msg *msg;
    (void)state;
    slab_heap_init(&heap);
    dead_letters_init(&d);
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        struct dead_letter letter = letter_of(values[i]);
        assert_true(dead_letters_add(&d, &letter));
    }
    assert_true(dead_letters_take(&d, &heap, &msg));
    assert_int_equal(record_batch_open(msg_body(msg), NULL, 0, &batch, &r), RECORD_OK);
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        bool whole = i < 2;
        assert_true(record_next(&r, &record));
        assert_int_equal(record.has_key, whole);
        assert_int_equal(record.has_value, whole);
        assert_true(!whole || (slice_is(record.key, "k") && slice_equal(record.value, values[i])));
        check_headers(record.headers);
    }
    assert_false(record_next(&r, &record));
    msg_unref(&heap, msg);
    assert_true(dead_letters_take(&d, &heap, &msg));
    assert_null(msg);
    dead_letters_fini(&d);
    slab_heap_drain(&heap);
    slab_heap_fini(&heap);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
