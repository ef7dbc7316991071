/* Pieces of partitions: the records that a reader may see, with their places, in runs of any length, whatever the piece begins with, what it has
 * been compressed with, and where it is cut or damaged. */
#include "sql/query/input.h"

#include "base/mem.h"
#include "fmt/record_batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct rig {
    struct compress *z;
    struct input *in;
    uint8_t piece[1 << 16];
    struct writer w;
};

static void rig_init(struct rig *r)
{
    r->z = compress_new();
    r->in = input_new(r->z, 1 << 20);
    assert_true(r->z && r->in);
    r->w = writer_of(r->piece, sizeof r->piece);
}

static void rig_fini(struct rig *r)
{
    input_free(&r->in);
    compress_free(&r->z);
}

/* Records "v<offset>" at these offsets, each with its offset as its time in ms; one with a key and one without a value by their offsets. */
static void batch(struct rig *r, const char *offsets, struct record_batch how, enum compress_kind kind)
{
    uint8_t plain[4096];
    struct writer w = writer_of(plain, sizeof plain);
    struct record_batch_writer b;
    struct record_batch head = record_batch_head(offsets[0] - '0', 0);
    head.producer_id = how.producer_id ? how.producer_id : RECORD_NO_PRODUCER;
    head.producer_epoch = how.producer_id ? 0 : -1;
    head.transactional = how.transactional;
    head.control = how.control;
    record_batch_begin(&b, &w, &head);
    for (const char *p = offsets; *p && *p != '<'; p++) {
        char value[] = {'v', *p, 0};
        bool keyed = *p == '3', null = *p == '7';
        struct record record = {.offset = *p - '0',
                                .timestamp = *p == '1' ? -1 : *p - '0',
                                .has_key = keyed,
                                .key = slice_str("key"),
                                .has_value = !null,
                                .value = slice_str(value)};
        assert_true(record_batch_add(&b, &record));
    }
    const char *end = strchr(offsets, '<'); /* what was behind the last one is gone */
    struct slice done = record_batch_finish(&b, end ? end[1] - '0' : -1);
    assert_int_equal(record_batch_repack(done, kind, COMPRESS_LEVEL_DEFAULT, r->z, 1 << 20, &r->w), RECORD_OK);
}

/* "offset=value@time" of each record, "|" between runs; then the verdict's letter and the place. */
static const char *read_all(struct rig *r, struct input_piece piece, uint32_t rows)
{
    static char out[1024];
    struct query_input q;
    enum input_verdict verdict;
    size_t len = 0;
    input_begin(r->in, &piece);
    while ((verdict = input_next(r->in, rows, &q)) == INPUT_ROWS) {
        assert_true(q.rows > 0 && q.rows <= rows && q.offset == q.offsets[0]);
        for (uint32_t i = 0; i < q.rows; i++)
            len += (size_t)snprintf(out + len, sizeof out - len, "%s%llu=%.*s@%lld%s", i ? " " : "",
                                    (unsigned long long)q.offsets[i], SLICE_ARG(q.records[i]),
                                    (long long)q.ts_us[i] / 1000, q.keys[i].ptr ? "k" : "");
        len += (size_t)snprintf(out + len, sizeof out - len, "|");
    }
    assert_int_equal(input_next(r->in, rows, &q), verdict);
    snprintf(out + len, sizeof out - len, "%c%llu", "RedlM"[verdict], (unsigned long long)input_place(r->in));
    return out;
}

static struct input_piece all(const struct rig *r)
{
    return (struct input_piece){.bytes = writer_slice(&r->w), .until = UINT64_MAX};
}

static void test_what_a_reader_sees(void **state)
{
    (void)state;
    struct rig r;
    struct aborted aborted[] = {{.producer = 9, .first = 2, .last = 4}};
    struct record_batch of9 = {.producer_id = 9, .transactional = true},
                        of8 = {.producer_id = 8, .transactional = true};
    struct record_batch end = {.producer_id = 9, .transactional = true, .control = true};
    rig_init(&r);
    batch(&r, "01", (struct record_batch){0}, COMPRESS_NONE);
    batch(&r, "2", of9, COMPRESS_NONE); /* aborted */
    batch(&r, "3", of8, COMPRESS_NONE);
    batch(&r, "4", end, COMPRESS_NONE);
    batch(&r, "57<8", of9, COMPRESS_NONE); /* 6 and 8 were compacted away, 7 is without a value */
    struct input_piece piece = all(&r);
    piece.aborted = aborted;
    piece.aborted_count = 1;
    assert_string_equal(read_all(&r, piece, 100), "0=v0@0 1=v1@0 3=v3@3k 5=v5@5|e9");
    assert_string_equal(read_all(&r, piece, 1), "0=v0@0|1=v1@0|3=v3@3k|5=v5@5|e9");
    assert_string_equal(read_all(&r, piece, 3), "0=v0@0 1=v1@0 3=v3@3k|5=v5@5|e9");
    piece.valueless = true;
    assert_string_equal(read_all(&r, piece, 100), "0=v0@0 1=v1@0 3=v3@3k 5=v5@5 7=@7|e9");
    piece.from = 1;
    assert_string_equal(read_all(&r, piece, 100), "1=v1@0 3=v3@3k 5=v5@5 7=@7|e9");
    piece.from = 6;
    assert_string_equal(read_all(&r, piece, 100), "7=@7|e9");
    piece.from = 12;
    assert_string_equal(read_all(&r, piece, 100), "e12");
    piece.from = 0;
    static const char *const until[] = {"e0", "0=v0@0|e1", "0=v0@0 1=v1@0|e2", "0=v0@0 1=v1@0|e3"};
    for (piece.until = 0; piece.until < ARRAY_LEN(until); piece.until++)
        assert_string_equal(read_all(&r, piece, 100), until[piece.until]);
    piece.until = 6;
    assert_string_equal(read_all(&r, piece, 1), "0=v0@0|1=v1@0|3=v3@3k|5=v5@5|e6");
    piece.aborted_count = 0;
    piece.until = UINT64_MAX;
    assert_string_equal(read_all(&r, piece, 100), "0=v0@0 1=v1@0 2=v2@2 3=v3@3k 5=v5@5 7=@7|e9");
    rig_fini(&r);
}

/* A run has records of one compressed batch, since the next one takes its buffer. */
static void test_compressed(void **state)
{
    (void)state;
    for (unsigned kind = COMPRESS_GZIP; kind < COMPRESS_KINDS; kind++) {
        struct rig r;
        rig_init(&r);
        batch(&r, "0", (struct record_batch){0}, COMPRESS_NONE);
        batch(&r, "12", (struct record_batch){0}, (enum compress_kind)kind);
        batch(&r, "3", (struct record_batch){0}, COMPRESS_NONE);
        batch(&r, "45", (struct record_batch){0}, (enum compress_kind)kind);
        assert_string_equal(read_all(&r, all(&r), 100), "0=v0@0 1=v1@0 2=v2@2 3=v3@3k|4=v4@4 5=v5@5|e6");
        assert_string_equal(read_all(&r, all(&r), 2), "0=v0@0 1=v1@0|2=v2@2 3=v3@3k|4=v4@4 5=v5@5|e6");
        struct input *small = input_new(r.z, 8), *large = r.in;
        r.in = small;
        assert_string_equal(read_all(&r, all(&r), 100), "0=v0@0|l1");
        r.in = large;
        input_free(&small);
        compress_trim(r.z);
        mem_fail_at(1, true);
        const char *text = read_all(&r, all(&r), 100);
        mem_fail_at(0, false);
        assert_string_equal(text, "0=v0@0|M1");
        rig_fini(&r);
    }
}

#define LONG 300000u

/* However small a batch is packed, a run of it ends with the record that makes it too many bytes. */
static void test_bytes_of_a_run(void **state)
{
    uint8_t *plain = calloc(1, 10 * LONG), *value = calloc(1, LONG);
    struct writer w = writer_of(plain, 10 * LONG);
    struct slice text = slice_of(value, LONG);
    struct record_batch head = record_batch_head(0, 0);
    struct record_batch_writer b;
    struct rig r;
    (void)state;
    rig_init(&r);
    record_batch_begin(&b, &w, &head);
    for (unsigned i = 0; i < 9; i++)
        assert_true(record_batch_put(&b, 0, NULL, &text, NULL, 0));
    assert_int_equal(
        record_batch_repack(record_batch_finish(&b, -1), COMPRESS_GZIP, COMPRESS_LEVEL_DEFAULT, r.z, 10 * LONG, &r.w),
        RECORD_OK);
    struct input *in = input_new(r.z, 10 * LONG);
    struct input_piece piece = all(&r);
    struct query_input run;
    static const unsigned rows[] = {4, 4, 1};
    input_begin(in, &piece);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(input_next(in, 100, &run), INPUT_ROWS);
        assert_int_equal(run.rows, rows[i]);
    }
    assert_int_equal(input_next(in, 100, &run), INPUT_END);
    assert_int_equal(input_place(in), 9);
    input_free(&in);
    rig_fini(&r);
    free(plain);
    free(value);
}

/* Of a batch that is cut nothing is seen; what is damaged is said, behind what is good. */
static void test_cut_and_damaged(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    batch(&r, "01", (struct record_batch){0}, COMPRESS_NONE);
    size_t first = r.w.len;
    batch(&r, "23", (struct record_batch){0}, COMPRESS_NONE);
    for (size_t len = 0; len < r.w.len; len++) {
        struct input_piece piece = all(&r);
        piece.bytes.len = len;
        assert_string_equal(read_all(&r, piece, 100), len < first ? "e0" : "0=v0@0 1=v1@0|e2");
    }
    for (size_t at = first + 17; at < r.w.len; at++) { /* what the checksum covers, and itself */
        r.piece[at] ^= 0x10;
        assert_string_equal(read_all(&r, all(&r), 100), "0=v0@0 1=v1@0|d2");
        r.piece[at] ^= 0x10;
    }
    r.piece[first + 16] = 1; /* an old format */
    assert_string_equal(read_all(&r, all(&r), 100), "0=v0@0 1=v1@0|d2");
    rig_fini(&r);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct compress *z = compress_new();
    mem_fail_at(1, false);
    assert_null(input_new(z, 1));
    mem_fail_at(0, false);
    compress_free(&z);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_reader_sees), cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_bytes_of_a_run),     cmocka_unit_test(test_cut_and_damaged),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
