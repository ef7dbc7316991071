/* The bytes of stream files: golden bytes; names; every flipped bit of header and trailer; messages there and back with every
 * type of property and header; what a Kafka client's record becomes, and what a forged `mr-amqp` does not.
 */
#include "store/stream_format.h"

#include "base/mem.h"
#include "store/stream_index.h"
#include "store/streams_test_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const uint8_t uuid[LAYOUT_UUID_LEN] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* -------------------------------------------------------------------------------------------------------------- golden */

/* Written by hand after docs/formats/streams.md; the CRCs come from another implementation. */
static const char golden_head[] = "4d525354"
                                  "00010000"
                                  "000102030405060708090a0b0c0d0e0f"
                                  "0000000000000102"
                                  "00000003"
                                  "00000000"
                                  "00000000000a0b0c"
                                  "0000018bcfe56800"; /* and zeros up to the CRC */
static const char golden_trailer[] = "00000000"
                                     "00001000"
                                     "0000000000000000"
                                     "00000011"
                                     "00005000"
                                     "0000018bcfe5687b"
                                     "4d525349"
                                     "00000002"
                                     "0000000000006001"
                                     "00000000000a0b3c"
                                     "0000018bcfe56800"
                                     "0000018bcfe56be7"
                                     "00000000000000000000000000000000"
                                     "a15ab6a6"
                                     "50b1cfd9";

static void assert_hex(const uint8_t *bytes, size_t len, const char *hex)
{
    char text[400];
    assert_true(len * 2 < sizeof text);
    for (size_t i = 0; i < len; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    assert_string_equal(text, hex);
}

static void head(void **state)
{
    (void)state;
    uint8_t block[LAYOUT_BLOCK];
    struct stream_head in = {.stream = 0x102, .partition = 3, .base = 0xa0b0c, .wall_ms = 1700000000000}, out;
    memcpy(in.uuid, uuid, sizeof uuid);
    stream_head_put(block, &in);
    assert_hex(block, 56, golden_head);
    assert_hex(block + LAYOUT_BLOCK - 4, 4, "8331a260");
    for (size_t i = 56; i < LAYOUT_BLOCK - 4; i++)
        assert_int_equal(block[i], 0);
    assert_int_equal(stream_head_get(block, &out), LAYOUT_GOOD);
    assert_true(out.stream == in.stream && out.partition == in.partition && out.base == in.base);
    assert_true(out.wall_ms == in.wall_ms && memcmp(out.uuid, uuid, sizeof uuid) == 0);
    for (size_t bit = 0; bit < LAYOUT_BLOCK * 8; bit++) {
        block[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_not_equal(stream_head_get(block, &out), LAYOUT_GOOD);
        block[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    in.base = UINT64_MAX; /* behind a good checksum */
    stream_head_put(block, &in);
    assert_int_equal(stream_head_get(block, &out), LAYOUT_DAMAGED);
}

static void trailer(void **state)
{
    (void)state;
    enum { LEN = 2 * STREAM_INDEX_ENTRY + STREAM_TRAILER };
    struct stream_mark marks[] = {{0, 4096, 0}, {0x11, 0x5000, 1700000000123}}, back[2];
    struct stream_trailer in = {
        .count = 2, .bytes = 0x6001, .end = 0xa0b3c, .first_at = 1700000000000, .max_at = 1700000000999};
    struct stream_trailer out;
    uint8_t bytes[LEN];
    uint32_t crc;
    assert_int_equal(stream_trailer_len(2), LEN);
    stream_trailer_put(bytes, &in, marks);
    assert_hex(bytes, LEN, golden_trailer);
    const uint8_t *end = bytes + LEN - STREAM_TRAILER;
    assert_int_equal(stream_trailer_get(end, &out, &crc), LAYOUT_GOOD);
    assert_memory_equal(&out, &in, sizeof in);
    assert_true(stream_marks_get(slice_of(bytes, 32), crc, in.bytes, back));
    assert_memory_equal(back, marks, sizeof marks);
    assert_false(stream_marks_get(slice_of(bytes, 32), crc, 0x5000, back)); /* a batch behind the end */
    for (size_t bit = 0; bit < LEN * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (bit / 8 < 32)
            assert_false(stream_marks_get(slice_of(bytes, 32), crc, in.bytes, back));
        else
            assert_int_not_equal(stream_trailer_get(end, &out, &crc), LAYOUT_GOOD);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    static const struct stream_mark wrong[][2] = {/* behind good checksums */
                                                  {{1, 4096, 0}, {2, 5000, 0}},
                                                  {{0, 4097, 0}, {2, 5000, 0}},
                                                  {{0, 4096, 0}, {0, 5000, 0}},
                                                  {{0, 4096, 0}, {2, 4096, 0}},
                                                  {{0, 4096, 5}, {2, 5000, 4}}};
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++) {
        stream_trailer_put(bytes, &in, wrong[i]);
        assert_int_equal(stream_trailer_get(end, &out, &crc), LAYOUT_GOOD);
        assert_false(stream_marks_get(slice_of(bytes, 32), crc, in.bytes, back));
    }
}

static void names(void **state)
{
    (void)state;
    char name[STREAM_NAME_LEN + 1];
    struct stream_name parts;
    stream_name_put(name, &(struct stream_name){.stream = 0xabcdef0123456789, .partition = 0x3ff, .base = 42});
    assert_string_equal(name, "abcdef0123456789-03ff-000000000000002a");
    assert_true(stream_name_get(name, &parts));
    assert_true(parts.stream == 0xabcdef0123456789 && parts.partition == 0x3ff && parts.base == 42);
    assert_int_equal(parts.generation, 0);
    stream_name_put(name, &(struct stream_name){.stream = 1, .partition = 2, .base = 3, .generation = 0xabc});
    assert_string_equal(name, "0000000000000001-0002-0000000000000003-00000abc");
    assert_true(stream_name_get(name, &parts) && parts.base == 3 && parts.generation == 0xabc);
    static const char *const wrong[] = {"",
                                        "abcdef0123456789-03ff-000000000000002",
                                        "abcdef0123456789-03ff-000000000000002a0",
                                        "abcdef0123456789-03ff+000000000000002a",
                                        "abcdef0123456789003ff-000000000000002a",
                                        "Abcdef0123456789-03ff-000000000000002a",
                                        "abcdef0123456789-03fg-000000000000002a",
                                        "abcdef0123456789-03ff-000000000000002 ",
                                        "abcdef0123456789-03ff-000000000000002a-00000000",
                                        "abcdef0123456789-03ff-000000000000002a+00000001",
                                        "abcdef0123456789-03ff-000000000000002a-0000001",
                                        "abcdef0123456789-03ff-000000000000002a-0000000g"};
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++)
        assert_false(stream_name_get(wrong[i], &parts));
}

/* --------------------------------------------------------------------------------------------------------------- index */

static void index_bound(void **state)
{
    (void)state;
    enum { BATCHES = 200000, STEP = 9000 };
    struct stream_index index = {0};
    for (uint32_t i = 0; i < BATCHES; i++) {
        struct stream_mark mark = {.delta = 10 * i, .position = 4096 + i * STEP, .max_before = 100 * (wall_t)i};
        stream_index_note(&index, &mark);
        if (i == 100)
            assert_int_equal(index.count, 51); /* every other one is 16 KiB away */
    }
    assert_true(index.count <= STREAM_INDEX_MAX && index.count > STREAM_INDEX_MAX / 4);
    assert_int_equal(index.marks[0].position, 4096);
    assert_null(stream_index_find_time(&index, 0));
    for (uint32_t i = 0; i < BATCHES; i += 331) {
        const struct stream_mark *mark = stream_index_find(&index, 10 * i + 9);
        assert_true(mark->delta <= 10 * i + 9);
        assert_true(mark == index.marks + index.count - 1 || mark[1].delta > 10 * i + 9);
        assert_true((10 * i - mark->delta) / 10 < 64);
        mark = stream_index_find_time(&index, 100 * (wall_t)i + 1);
        assert_true(mark->max_before < 100 * (wall_t)i + 1);
        assert_true(mark == index.marks + index.count - 1 || mark[1].max_before >= 100 * (wall_t)i + 1);
    }
    uint32_t position = index.marks[700].position;
    stream_index_cut(&index, position);
    assert_int_equal(index.count, 700);
    stream_index_cut(&index, 0);
    assert_null(stream_index_find(&index, UINT32_MAX));
    stream_index_fini(&index);
}

/* ------------------------------------------------------------------------------------------------------------ messages */

struct bench {
    struct slab_heap heap;
    struct stream_scratch in, out;
    uint8_t bytes[1u << 20];
    struct record record; /* of the last put, with loans of bytes */
};

static struct bench *bench_new(void)
{
    struct bench *b = calloc(1, sizeof *b);
    slab_heap_init(&b->heap);
    return b;
}

static void bench_free(struct bench *b)
{
    stream_scratch_fini(&b->in);
    stream_scratch_fini(&b->out);
    slab_heap_fini(&b->heap);
    free(b);
}

static void read_back(struct bench *b, struct slice bytes)
{
    struct record_batch batch;
    struct record_reader reader;
    assert_int_equal(record_batch_open(bytes, NULL, 0, &batch, &reader), RECORD_OK);
    assert_true(record_next(&reader, &b->record));
    assert_true(record_reader_ok(&reader));
}

static void put(struct bench *b, const struct msg *msg)
{
    struct record_batch_writer batch;
    struct writer w = writer_of(b->bytes, sizeof b->bytes);
    struct record_batch first = record_batch_head(77, 1700000000000);
    record_batch_begin(&batch, &w, &first);
    assert_int_equal(stream_record_put(&batch, 1700000000123, msg, &b->in), 0);
    assert_true(record_batch_len(&batch) <= RECORD_BATCH_HEADER + stream_record_max(msg));
    read_back(b, record_batch_finish(&batch, -1));
}

static void put_native(struct bench *b, const struct slice *key, const struct slice *value,
                       const struct record_header *headers, uint32_t count, wall_t timestamp)
{
    struct record_batch_writer batch;
    struct writer w = writer_of(b->bytes, sizeof b->bytes);
    struct record_batch first = record_batch_head(0, timestamp);
    record_batch_begin(&batch, &w, &first);
    assert_true(record_batch_put(&batch, timestamp, key, value, headers, count));
    read_back(b, record_batch_finish(&batch, -1));
}

static struct msg *get(struct bench *b)
{
    struct msg *msg = NULL;
    assert_int_equal(stream_record_get(&b->record, &b->heap, &b->out, &msg), 0);
    return msg;
}

/* Everything that an AMQP publisher can say comes back, byte for byte. */
static void round_trip(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    unsigned with_headers = 0, with_expiration = 0;
    for (uint64_t i = 0; i < 3000; i++) {
        struct msg *msg = rig_message(&b->heap, 5, 6, i, 200);
        put(b, msg);
        struct msg *back = get(b);
        assert_true(rig_same_message(msg, back));
        assert_true(b->record.offset == 77 && b->record.timestamp == 1700000000123);
        with_headers += msg->flags & MSG_HAS_HEADERS ? 1 : 0;
        with_expiration += msg->expiration_ms >= 0;
        msg->flags |= MSG_MANDATORY | MSG_INVALID; /* of the publish, not of the message */
        put(b, msg);
        struct msg *third = get(b);
        assert_true(rig_same_message(third, back));
        msg_unref(&b->heap, third);
        msg_unref(&b->heap, msg);
        msg_unref(&b->heap, back);
    }
    assert_true(with_headers > 500 && with_expiration > 500);
    bench_free(b);
}

/* What Kafka's readers see of it. */
static void seen_by_kafka(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    uint8_t headers[200], raw[300];
    struct writer table = writer_of(headers, sizeof headers), w = writer_of(raw, sizeof raw);
    amqp_put_str(&table, "a", slice_str("one"));
    amqp_put_int(&table, "n", 5);
    amqp_put_str(&table, "b", slice_str(""));
    struct amqp_props props = {.present = AMQP_HEADERS, .headers = writer_slice(&table)};
    amqp_props_write(&w, &props);
    struct msg *msg = msg_new(&b->heap, slice_str("x"), slice_str("routing"), writer_slice(&w), 4);
    memcpy(msg_body_room(msg), "body", 4);
    msg->flags = MSG_HAS_HEADERS;
    put(b, msg);
    struct slice left = b->record.headers;
    struct record_header header;
    assert_true(b->record.has_key && slice_is(b->record.key, "routing") && slice_is(b->record.value, "body"));
    assert_int_equal(b->record.header_count, 3);
    assert_true(record_header_next(&left, &header) && slice_is(header.key, "mr-amqp"));
    assert_int_equal(header.value.len, 5 + 1 + 7 + w.len);
    assert_hex(header.value.ptr, 13, "020000010778726f7574696e67");
    assert_memory_equal(header.value.ptr + 13, raw, w.len);
    assert_true(record_header_next(&left, &header) && slice_is(header.key, "a") && slice_is(header.value, "one"));
    assert_true(record_header_next(&left, &header) && slice_is(header.key, "b") && header.has_value);
    msg_unref(&b->heap, msg);
    /* no body: a null value, where there is a key */
    msg = msg_new(&b->heap, slice_str("amq.topic"), slice_str("routing"), slice_of("\0\0", 2), 0);
    put(b, msg);
    assert_true(b->record.has_key && !b->record.has_value);
    msg_unref(&b->heap, msg);
    /* the default exchange: no key; x-stream-key before all */
    msg = msg_new(&b->heap, (struct slice){0}, slice_str("routing"), slice_of("\0\0", 2), 0);
    put(b, msg);
    assert_false(b->record.has_key);
    assert_true(b->record.has_value && b->record.value.len == 0);
    msg_unref(&b->heap, msg);
    amqp_put_str(&table, "x-stream-key", slice_str("k"));
    props.headers = writer_slice(&table);
    w.len = 0;
    amqp_props_write(&w, &props);
    msg = msg_new(&b->heap, (struct slice){0}, slice_str("routing"), writer_slice(&w), 0);
    msg->flags = MSG_HAS_HEADERS;
    put(b, msg);
    assert_true(b->record.has_key && slice_is(b->record.key, "k"));
    msg_unref(&b->heap, msg);
    bench_free(b);
}

static void from_kafka(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    struct amqp_props props;
    struct amqp_value v;
    struct slice key = slice_str("key"), value = slice_str("value"), same = slice_str("same");
    uint8_t long_name[300] = {'n'}, long_key[600];
    struct record_header headers[] = {{.key = same, .has_value = true, .value = slice_str("earlier")},
                                      {.key = slice_str("void"), .has_value = false},
                                      {.key = same, .has_value = true, .value = slice_str("later")},
                                      {.key = slice_of(long_name, 300), .has_value = true, .value = value},
                                      {.key = slice_str(""), .has_value = true, .value = slice_str("")}};
    put_native(b, &key, &value, headers, 5, 1700000000999);
    struct msg *msg = get(b);
    assert_true(msg->exchange_len == 0 && slice_is(msg_key(msg), "key") && slice_is(msg_body(msg), "value"));
    assert_int_equal(msg->flags, MSG_HAS_HEADERS);
    assert_true(msg->priority == 0 && msg->expiration_ms == -1);
    assert_true(amqp_props_parse(msg_props(msg), &props));
    assert_int_equal(props.present, AMQP_HEADERS | AMQP_TIMESTAMP);
    assert_int_equal(props.timestamp, 1700000000);
    assert_true(amqp_table_find(props.headers, "same", &v) && v.type == 'x' && slice_is(v.s, "later"));
    assert_true(amqp_table_find(props.headers, "void", &v) && v.type == 'V');
    assert_true(amqp_table_find(props.headers, "", &v) && v.type == 'x' && v.s.len == 0);
    struct reader r = reader_of(props.headers);
    struct amqp_field field;
    unsigned count = 0;
    while (amqp_table_next(&r, &field))
        count++;
    assert_int_equal(count, 3);
    msg_unref(&b->heap, msg);
    /* nothing at all */
    put_native(b, NULL, NULL, NULL, 0, RECORD_NO_TIMESTAMP);
    msg = get(b);
    assert_true(msg->key_len == 0 && msg->body_len == 0 && msg->flags == 0);
    assert_true(slice_equal(msg_props(msg), slice_of("\0\0", 2)));
    msg_unref(&b->heap, msg);
    /* a key that is too long is cut between characters */
    memset(long_key, 'k', sizeof long_key);
    memcpy(long_key + 254, "\xe2\x82\xac", 3);
    key = slice_of(long_key, sizeof long_key);
    put_native(b, &key, &value, NULL, 0, 5);
    msg = get(b);
    assert_int_equal(msg->key_len, 254);
    msg_unref(&b->heap, msg);
    bench_free(b);
}

/* Much of everything: no table grows beyond what an AMQP client may be sent. */
static void many_headers(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    static struct record_header headers[3000];
    static char text[3000][8];
    struct slice value = slice_str("value");
    struct amqp_props props;
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(text[i], sizeof text[i], "%u", i % 1700);
        headers[i] = (struct record_header){.key = slice_str(text[i]), .has_value = true, .value = value};
    }
    put_native(b, NULL, &value, headers, 3000, 5);
    struct msg *msg = get(b);
    assert_true(amqp_props_parse(msg_props(msg), &props));
    msg_unref(&b->heap, msg);
    uint8_t *large = calloc(1, 70000);
    headers[1].value = slice_of(large, 70000);
    for (unsigned i = 2; i < 100; i++)
        headers[i].value = slice_of(large, 1000);
    put_native(b, NULL, &value, headers, 200, 5);
    msg = get(b);
    assert_true(amqp_props_parse(msg_props(msg), &props));
    assert_true(props.headers.len > 60000 && props.headers.len <= 65536);
    msg_unref(&b->heap, msg);
    free(large);
    bench_free(b);
}

/* A Kafka client may send `mr-amqp`; nothing comes of it that an AMQP publisher could not have sent. */
static void forged(void **state)
{
    (void)state;
    struct bench *b = bench_new();
    struct slice value = slice_str("body");
    static const struct {
        const char *bytes;
        unsigned len;
        bool good;
    } rows[] = {
        {"\x3f\x09\x81\x01\x01\x01xk\0\0", 10,
         true}, /* flags, priority and expiration that the properties do not have */
        {"\0\0\0\0\0\x10\0\2", 8, true},
        {"\0\0\0\0\0\x10\0\3", 8, false},                    /* a delivery mode that no publisher may use */
        {"\0\0\0\0\0", 5, false},                            /* no properties at all: no client could be sent that */
        {"\0\0\0\0\0\0", 6, false},                          /* half of the flags */
        {"\0\0\0\0\0\0\1", 7, false},                        /* unknown flags */
        {"\0\0\0\xff\0\0\0", 7, false},                      /* names that are longer than all */
        {"\0\0\0\0\0\0\0x", 8, false},                       /* something behind */
        {"\0\0\0\0\0\1\0\2-1", 10, false},                   /* an expiration before it began */
        {"\0\0\0\0\0\x20\0\0\0\0\5\1aS\0\0\0\1", 18, false}, /* a damaged table */
        {"", 0, false},
    };
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct record_header header = {
            .key = slice_str("mr-amqp"), .has_value = true, .value = slice_of(rows[i].bytes, rows[i].len)};
        struct amqp_props props;
        int64_t expiration_ms;
        put_native(b, NULL, &value, &header, 1, 5);
        struct msg *msg = get(b);
        assert_true(slice_is(msg_body(msg), "body"));
        assert_true(amqp_props_parse(msg_props(msg), &props));
        assert_true(amqp_props_acceptable(&props, &expiration_ms, NULL, 0));
        bool native = props.present == (AMQP_HEADERS | AMQP_TIMESTAMP);
        if (native == rows[i].good)
            fail_msg("row %u", i);
        assert_int_equal(msg->priority, 0);
        assert_true(msg->expiration_ms == -1);
        assert_int_equal(msg->flags, native ? MSG_HAS_HEADERS : i == 1 ? MSG_PERSISTENT : 0);
        msg_unref(&b->heap, msg);
    }
    /* more headers than a publisher may send */
    uint8_t *large = calloc(1, 5 + 2 + 4 + 65537), *at = large + 5;
    memcpy(at, "\x20\0\0\1\0\1\1aS\0\0\xff\xfa", 13);
    struct record_header header = {
        .key = slice_str("mr-amqp"), .has_value = true, .value = slice_of(large, 5 + 2 + 4 + 65537)};
    struct amqp_props props;
    assert_true(amqp_props_parse(slice_of(at, 2 + 4 + 65537), &props) && props.headers.len == 65537);
    put_native(b, NULL, &value, &header, 1, 5);
    struct msg *msg = get(b);
    assert_true(amqp_props_parse(msg_props(msg), &props) && props.headers.len <= 65536);
    msg_unref(&b->heap, msg);
    free(large);
    struct record_header null = {.key = slice_str("mr-amqp")};
    put_native(b, NULL, &value, &null, 1, 5);
    msg_unref(&b->heap, get(b));
    bench_free(b);
}

static void no_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct bench *b = bench_new();
        struct msg *msg = rig_message(&b->heap, 1, 1, 1, 20000), *back = NULL;
        while (!(msg->flags & MSG_HAS_HEADERS)) {
            static uint64_t next;
            msg_unref(&b->heap, msg);
            msg = rig_message(&b->heap, 1, 1, ++next, 20000);
        }
        struct record_batch_writer batch;
        struct writer w = writer_of(b->bytes, sizeof b->bytes);
        struct record_batch first = record_batch_head(0, 0);
        record_batch_begin(&batch, &w, &first);
        mem_fail_at(n, false);
        int err = stream_record_put(&batch, 5, msg, &b->in);
        if (!err) {
            read_back(b, record_batch_finish(&batch, -1));
            err = stream_record_get(&b->record, &b->heap, &b->out, &back);
        }
        bool hit = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        assert_int_equal(err, hit ? -ENOMEM : 0);
        assert_true(hit == !back);
        if (back)
            msg_unref(&b->heap, back);
        msg_unref(&b->heap, msg);
        bench_free(b);
        if (!hit)
            break;
        assert_true(n < 20);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(head),        cmocka_unit_test(trailer),      cmocka_unit_test(names),
        cmocka_unit_test(index_bound), cmocka_unit_test(round_trip),   cmocka_unit_test(seen_by_kafka),
        cmocka_unit_test(from_kafka),  cmocka_unit_test(many_headers), cmocka_unit_test(forged),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
