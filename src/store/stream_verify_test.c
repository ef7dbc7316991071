/* A stream's file with each of its bytes flipped, cut, and named wrongly. */
#include "store/stream_verify.h"

#include "os/os_sim.h"
#include "store/stream_format.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define BATCHES 3u
#define RECORDS 4u

struct file {
    uint8_t bytes[LAYOUT_BLOCK + 4096];
    size_t len;
    size_t batches[BATCHES + 1]; /* where they begin; the last ends */
    struct stream_extent extent;
    struct os_sim *disk;
};

static const uint8_t uuid[LAYOUT_UUID_LEN] = "the store's uuid";

static void make(struct file *f)
{
    struct stream_head head = {.stream = 7, .partition = 2, .base = 100, .wall_ms = 1};
    struct writer w = writer_of(f->bytes + LAYOUT_BLOCK, sizeof f->bytes - LAYOUT_BLOCK);
    struct stream_mark mark = {.position = LAYOUT_BLOCK};
    memcpy(head.uuid, uuid, sizeof uuid);
    stream_head_put(f->bytes, &head);
    for (unsigned i = 0; i < BATCHES; i++) {
        struct record_batch_writer batch;
        struct record_batch begin = record_batch_head(100 + i * RECORDS, 1000);
        f->batches[i] = LAYOUT_BLOCK + w.len;
        record_batch_begin(&batch, &w, &begin);
        for (unsigned k = 0; k < RECORDS; k++) {
            struct slice value = slice_str("a record's value");
            assert_true(record_batch_put(&batch, 1000 + k, NULL, &value, NULL, 0));
        }
        (void)record_batch_finish(&batch, -1);
    }
    f->batches[BATCHES] = LAYOUT_BLOCK + w.len;
    f->extent = (struct stream_extent){.base = 100, .end = 100 + BATCHES * RECORDS, .bytes = LAYOUT_BLOCK + w.len};
    struct stream_trailer trailer = {
        .count = 1, .bytes = f->extent.bytes, .end = f->extent.end, .first_at = 1000, .max_at = 1003};
    stream_trailer_put(f->bytes + f->extent.bytes, &trailer, &mark);
    f->len = f->extent.bytes + stream_trailer_len(1);
    f->disk = os_sim_new(1);
    os_sim_put(f->disk, "/f", slice_of(f->bytes, f->len));
}

static int verify(struct file *f, struct stream_verify *ret)
{
    struct os *os = os_sim_os(f->disk);
    int fd;
    *ret = (struct stream_verify){
        .os = os, .uuid = uuid, .stream = 7, .partition = 2, .extent = f->extent, .sealed = true};
    assert_int_equal(os->open(os, "/f", OS_READ, &fd), 0);
    int err = stream_verify(ret, fd);
    os->close(os, fd);
    return err;
}

static void test_a_good_file(void **state)
{
    (void)state;
    struct file f;
    struct stream_verify v;
    make(&f);
    assert_int_equal(verify(&f, &v), 0);
    assert_int_equal(v.offset, f.extent.end);
    os_sim_put(f.disk, "/f", slice_of(f.bytes, f.extent.bytes)); /* never sealed: no trailer */
    assert_int_equal(verify(&f, &v), 0);
    os_sim_free(&f.disk);
}

/* The leader epoch (bytes 12 to 15 of a batch) means nothing here and is under no checksum. */
static bool means_nothing(const struct file *f, size_t at)
{
    for (unsigned i = 0; i < BATCHES; i++)
        if (at >= f->batches[i] + 12 && at < f->batches[i] + 16)
            return true;
    return false;
}

static void test_every_byte(void **state)
{
    (void)state;
    struct file f;
    struct stream_verify v;
    make(&f);
    for (size_t at = 0; at < f.len; at++) {
        if (means_nothing(&f, at))
            continue;
        os_sim_flip(f.disk, "/f", at, (uint8_t)(1u << at % 8));
        int err = verify(&f, &v);
        os_sim_flip(f.disk, "/f", at, (uint8_t)(1u << at % 8));
        if (err != -EILSEQ)
            fail_msg("byte %zu: %d", at, err);
        assert_non_null(v.what);
        assert_int_equal(v.head_bad, at < LAYOUT_BLOCK);
        for (unsigned i = 0; i < BATCHES; i++)
            if (at >= f.batches[i] && at < f.batches[i + 1]) {
                assert_int_equal(v.position, f.batches[i]);
                assert_int_equal(v.offset, 100 + i * RECORDS);
            }
    }
    os_sim_free(&f.disk);
}

static void test_cut_and_swapped(void **state)
{
    (void)state;
    struct file f;
    struct stream_verify v;
    make(&f);
    for (size_t len = 0; len < f.extent.bytes; len += 100) {
        os_sim_put(f.disk, "/f", slice_of(f.bytes, len));
        assert_int_equal(verify(&f, &v), -EILSEQ);
        assert_true(v.head_bad);
    }
    os_sim_put(f.disk, "/f", slice_of(f.bytes, f.len));
    f.extent.base = 99;
    assert_int_equal(verify(&f, &v), -EILSEQ);
    f.extent.base = 100;
    f.extent.end++;
    assert_int_equal(verify(&f, &v), -EILSEQ);
    f.extent.end--;
    os_sim_fail(f.disk, 1u << OS_SIM_PREAD, 1, EIO, true);
    assert_int_equal(verify(&f, &v), -EIO);
    os_sim_free(&f.disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_file),
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_cut_and_swapped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
