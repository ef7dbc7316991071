/* Fuzz target of Kafka's record batches and their codecs.
 * fuzz: -max_len=8192
 * covers: src/fmt/record_batch.c src/fmt/compress.c
 *
 * The first byte chooses. 0: a batch as it is. 1: a batch whose length and CRC are made right first. 2: the bytes of records;
 * a header is put before them that counts as many as the second byte says, and they are packed with the codec of its upper
 * bits. 3: bytes for the codec that the second byte names. What a check accepts must be readable to the end, must be the same
 * after it was written again and after it went through every codec, and must be refused when one byte is missing. A codec
 * must give the same in both of its ways, fit a bound of exactly its length, and not one byte less.
 */
#include "base/check.h"
#include "base/mem.h"
#include "fmt/crc32c.h"
#include "fmt/record_batch.h"

#define BOUND (64u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static bool same_record(const struct record *a, const struct record *b)
{
    return a->offset == b->offset && a->timestamp == b->timestamp && a->has_key == b->has_key &&
           a->has_value == b->has_value && slice_equal(a->key, b->key) && slice_equal(a->value, b->value) &&
           a->header_count == b->header_count && slice_equal(a->headers, b->headers);
}

/* The same records, one by one; b is not packed. */
static void compare(struct slice a, struct slice b, struct compress *z)
{
    struct record_reader ra, rb;
    struct record_batch ha, hb;
    struct record x, y;
    CHECK(record_batch_open(a, z, BOUND, &ha, &ra) == RECORD_OK &&
          record_batch_open(b, NULL, 0, &hb, &rb) == RECORD_OK);
    CHECK(ha.count == hb.count && ha.max_timestamp == hb.max_timestamp && ha.producer_id == hb.producer_id);
    while (record_next(&ra, &x)) {
        CHECK(record_next(&rb, &y) && same_record(&x, &y));
        struct slice headers = x.headers;
        struct record_header h;
        uint32_t count = 0;
        while (record_header_next(&headers, &h))
            count++;
        CHECK(headers.len == 0 && count == x.header_count);
    }
    CHECK(!record_next(&rb, &y) && record_reader_ok(&ra) && record_reader_ok(&rb));
}

static void use_accepted(struct slice batch, const struct record_check *found, struct compress *z)
{
    uint8_t *copy = mem_alloc(2 * BOUND), *packed = mem_alloc(2 * BOUND), *plain = mem_alloc(2 * BOUND);
    struct writer w = writer_of(copy, 2 * BOUND);
    struct record_batch_writer writer;
    struct record_batch head = found->batch;
    struct record_reader r;
    struct record record;
    struct record_check again;
    static const struct record_limits limits = {.unpacked_max = BOUND};
    CHECK(record_batch_check(slice_of(batch.ptr, batch.len - 1), &limits, z, &again, NULL) == RECORD_INVALID);
    head.compression = COMPRESS_NONE;
    CHECK(record_batch_open(batch, z, BOUND, &head, &r) == RECORD_OK);
    head.compression = COMPRESS_NONE;
    record_batch_begin(&writer, &w, &head);
    while (record_next(&r, &record))
        CHECK(record_batch_add(&writer, &record));
    struct slice rewritten = record_batch_finish(&writer, -1);
    (void)record_batch_set_max_timestamp(copy, rewritten.len, false, found->batch.max_timestamp);
    compare(batch, rewritten, z);
    CHECK(rewritten.len <= RECORD_BATCH_HEADER + found->unpacked_len); /* numbers may have been longer than need be */
    for (unsigned kind = COMPRESS_NONE; kind < COMPRESS_KINDS; kind++) {
        struct writer pw = writer_of(packed, 2 * BOUND), nw = writer_of(plain, 2 * BOUND);
        CHECK(record_batch_repack(rewritten, kind, COMPRESS_LEVEL_DEFAULT, z, BOUND, &pw) == RECORD_OK);
        CHECK(record_batch_check(writer_slice(&pw), &limits, z, &again, NULL) == RECORD_OK);
        CHECK(again.max_timestamp == found->max_timestamp && again.batch.compression == kind);
        CHECK(record_batch_repack(writer_slice(&pw), COMPRESS_NONE, 0, z, BOUND, &nw) == RECORD_OK);
        CHECK(slice_equal(writer_slice(&nw), rewritten));
    }
    mem_free(copy);
    mem_free(packed);
    mem_free(plain);
}

static void use_batch(struct slice batch, struct compress *z)
{
    static const struct record_limits limits = {.unpacked_max = BOUND};
    struct record_check found;
    struct record_fault fault = {0};
    struct record_batch b;
    struct record_reader r;
    struct record record;
    enum record_verdict verdict = record_batch_check(batch, &limits, z, &found, &fault);
    if (verdict == RECORD_OK) {
        use_accepted(batch, &found, z);
        return;
    }
    CHECK(fault.why && verdict != RECORD_END && verdict != RECORD_SHORT && verdict != RECORD_NO_MEMORY);
    if (record_batch_open(batch, z, BOUND, &b, &r) != RECORD_OK)
        return;
    while (record_next(&r, &record))
        (void)record_headers_ok(&record);
}

static void use_codec(enum compress_kind kind, struct slice in, struct compress *z)
{
    struct slice out;
    enum compress_verdict verdict = compress_unpack(z, kind, in, BOUND, &out);
    CHECK(verdict != COMPRESS_NO_MEMORY && compress_kept_bytes(z) <= BOUND);
    if (verdict != COMPRESS_OK)
        return;
    uint8_t *room = mem_alloc(out.len + 1); /* a block of its own, so that the sanitizer sees a byte too many */
    uint8_t *copy = mem_alloc(out.len + 1);
    memcpy(copy, out.ptr, out.len);
    struct writer w = writer_of(room, out.len), small = writer_of(room, out.len ? out.len - 1 : 0);
    CHECK(compress_unpack_into(z, kind, in, &w) == COMPRESS_OK &&
          slice_equal(writer_slice(&w), slice_of(copy, out.len)));
    if (out.len)
        CHECK(compress_unpack_into(z, kind, in, &small) == COMPRESS_TOO_LARGE && small.len == 0);
    mem_free(room);
    mem_free(copy);
}

static void put32(uint8_t *at, uint32_t v)
{
    v = htobe32(v);
    memcpy(at, &v, sizeof v);
}

static void make_right(uint8_t *batch, size_t len)
{
    if (len < RECORD_BATCH_HEADER)
        return;
    put32(batch + 8, (uint32_t)len - RECORD_BATCH_BEFORE_LEN);
    put32(batch + 17, crc32c(0, batch + 21, len - 21));
}

static void use_records(uint8_t how, struct slice records, struct compress *z)
{
    uint8_t *batch = mem_alloc(RECORD_BATCH_HEADER + records.len), *packed = mem_alloc(2 * BOUND);
    struct writer w = writer_of(batch, RECORD_BATCH_HEADER + records.len), pw = writer_of(packed, 2 * BOUND);
    struct record_batch_writer writer;
    struct record_batch head = record_batch_head(0, 1700000000000);
    record_batch_begin(&writer, &w, &head);
    (void)record_batch_finish(&writer, 0);
    uint32_t count = 1 + (how & 7u);
    writer_slice_put(&w, records);
    put32(batch + 23, count - 1);
    put32(batch + 57, count);
    make_right(batch, w.len);
    CHECK(record_batch_repack(writer_slice(&w), (how >> 3) % COMPRESS_KINDS, COMPRESS_LEVEL_DEFAULT, z, BOUND, &pw) ==
          RECORD_OK);
    use_batch(writer_slice(&pw), z);
    mem_free(batch);
    mem_free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len < 2)
        return 0;
    struct compress *z = compress_new();
    uint8_t *copy = mem_alloc(len);
    memcpy(copy, bytes, len);
    if (bytes[0] % 4 == 1)
        make_right(copy + 1, len - 1);
    if (bytes[0] % 4 < 2)
        use_batch(slice_of(copy + 1, len - 1), z);
    else if (bytes[0] % 4 == 2)
        use_records(bytes[1], slice_of(copy + 2, len - 2), z);
    else
        use_codec(bytes[1] % COMPRESS_KINDS, slice_of(copy + 2, len - 2), z);
    mem_free(copy);
    compress_free(&z);
    return 0;
}
