/* Unit test of record_batch: batches that real clients wrote, the writer byte for byte, every rule of the check, damage of
 * every bit, random batches through every codec.
 *
 * The hexadecimal rows are what kafka-python 2.0.2 (DefaultRecordBatchBuilder) and librdkafka 2.0.2 (a producer against its
 * mock cluster, idempotent where packed) wrote; python_plain's four records and the others are told by the tests.
 */
#include "base/mem.h"
#include "fmt/crc32c.h"
#include "fmt/record_batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define T0 1700000000000LL
#define UNPACKED_MAX (1u << 20)

static const char *const python_plain =
    "00000000000000000000007d000000000278b7f8be0010000000030000018bcfe568000000018bcfe67970000000000000126700"
    "037ffffffe000000041a000000046b310a6669727374003a000a02010c6e6f206b657906026802310a656d70747900086e756c6c"
    "010e00d704040001002e00e0c50806066b65790c68c3a46465720204c3bc0400ff";

static const char *const python_packed[COMPRESS_KINDS] = {
    [COMPRESS_GZIP] =
        "0000000000000000000000b200000000023c05b0af0001000000070000018bcfe568000000018bcfe56807ffffffffffffffffff"
        "ffffffffff000000081f8b08001437076b02ff758e310a803010048f432404c91bf60342a2c6b4be22a55d2ac14a047f6f223657"
        "5c35cd304c26227b9467f45bb9cb79c14323edc4fcb9e1770334329f1c3275dde74fbf3f41636df7bdf898a1b1b5e74cc6889705"
        "1a6bdb5af111a1b1b563a661102f2b34d6b673e22341636ba71728e60d9970010000",
    [COMPRESS_SNAPPY] =
        "0000000000000000000000ec0000000002114de97c0002000000070000018bcfe568000000018bcfe56807ffffffffffffffffff"
        "ffffffffff0000000882534e41505059000000000100000001000000a7f00248560000000a6b65792d30406576656e742030205e"
        "080010005e000202052c00310d2c00310d2c4608002402026e0231560004040a015c00320d3000320d3046080010005e00060605"
        "2c118800330d2c460800015c103356000808053000310d5c00340d3046080014005e000a0a0a2e880000350d2c460800015c1035"
        "56000c0c0530118c00360d3046080010005e000e0e052c00310d8800370d2c4608001002026e0237",
    [COMPRESS_LZ4] =
        "0000000000000000000000f00000000002e3f749e70003000000070000018bcfe568000000018bcfe56807ffffffffffffffffff"
        "ffffffffff0000000804224d1868407001000000000000efa8000000ff04560000000a6b65792d30406576656e74203020080005"
        "51005e0002022c0013312c0013312c000e08009102026e023156000404300013323000133230000e080051005e0006062c000488"
        "0013332c000e0800005c005133560008083000048c00133430000e080051005e000a0a2c0004880013352c000e0800005c005135"
        "56000c0c3000048c00133630000e080051005e000e0e2c0004880013372c000e08005002026e023700000000",
    [COMPRESS_ZSTD] =
        "0000000000000000000000b90000000002b785c8090004000000070000018bcfe568000000018bcfe56807ffffffffffffffffff"
        "ffffffffff0000000828b52ffd607000f50300a2041016905707802ba8026bdd59049f273376c4209249249102eff17f29792d2c"
        "84acce9de37590c6585b2bc56bc608b1e6e39ff97bad962a2234e0b0800312c7b6061c00c00364f7621d0a7c807c2019f47f6135"
        "e003b2bb3087021f201f4806fd5f580df880ec2ecca1c007c807924dd50af00b6401799f6af581250c",
};

static const char *const librdkafka[COMPRESS_KINDS] = {
    [COMPRESS_NONE] =
        "00000000000000000000020e00000000024bf903f60000000000050000018bcfe568000000018bcfe56832ffffffffffffffffff"
        "ffffffffff000000069401000000046b3082016c696272646b61666b612030206c696272646b61666b612030206c696272646b61"
        "666b612030206c696272646b61666b612030206c696272646b61666b6120302000a201001402046b3182016c696272646b61666b"
        "612031206c696272646b61666b612031206c696272646b61666b612031206c696272646b61666b612031206c696272646b61666b"
        "6120312004026102780262019401002804046b3082016c696272646b61666b612032206c696272646b61666b612032206c696272"
        "646b61666b612032206c696272646b61666b612032206c696272646b61666b6120322000a201003c06046b3182016c696272646b"
        "61666b612033206c696272646b61666b612033206c696272646b61666b612033206c696272646b61666b612033206c696272646b"
        "61666b6120332004026102780262019401005008046b3082016c696272646b61666b612034206c696272646b61666b612034206c"
        "696272646b61666b612034206c696272646b61666b612034206c696272646b61666b6120342000a20100640a046b3182016c6962"
        "72646b61666b612035206c696272646b61666b612035206c696272646b61666b612035206c696272646b61666b612035206c6962"
        "72646b61666b612035200402610278026201",
    [COMPRESS_GZIP] =
        "0000000000000000000000a40000000002f0f9214e0001000000050000018bcfe568000000018bcfe5683200000000139d399800"
        "0000000000000000061f8b08000000000000039bc2c8c0c0c0926dd0c49893995494929d98969da860a0400e876111238308134b"
        "b6218a59860ae470589812992a989218a7303268b0a03bcf48811c0ec879366ce8ce3356208783e4bc000e74e7992890c301392f"
        "850bdd79a60ae47060ce03008b0e4b83dd010000",
    [COMPRESS_SNAPPY] =
        "0000000000000000000000b50000000002e6333b580002000000050000018bcfe568000000018bcfe56832000000001766c8a000"
        "000000000000000006dd03589401000000046b3082016c696272646b61666b61203020ce0d002000a201001402046b31324c0000"
        "312e4c00a20d0030040261027802620194010028043e9f0000322e5300a20d00019f043c063e9f0000332e4c00a20d001d9f0450"
        "083e9f0000342e5300a20d00019f04640a3e9f0000352e4c00a20d001c0402610278026201",
    [COMPRESS_LZ4] =
        "0000000000000000000000c10000000002749907930003000000050000018bcfe568000000018bcfe568320000000004b3897800"
        "00000000000000000604224d1860408281000000ff089401000000046b3082016c696272646b61666b612030200d00219900a201"
        "001402046b314c0018314c000f0d0016dc040261027802620194010028049f00183253000f0d0016009f002c3c069f0018334c00"
        "0f0d0016079f002c50089f00183453000f0d0016009f002c640a9f0018354c000f0d001680040261027802620100000000",
    [COMPRESS_ZSTD] =
        "0000000000000000000000a00000000002120e213b0004000000050000018bcfe568000000018bcfe56832000000003141350800"
        "00000000000000000628b52ffd005835030084039401000000046b3082016c696272646b61666b6120302000a201001402046b31"
        "3104026102780262019401002804323c0633500834640a35140080000002c05d800882002000dc05088111000480bb0011040140"
        "00dc2532c8035000779f709c81733601",
};

/* ------------------------------------------------------------------------------------------------------------- scenery */

struct scene {
    struct compress *z;
    uint8_t bytes[4096]; /* the batch at hand */
    struct slice batch;
};

static int scene_open(void **state)
{
    struct scene *s = mem_zalloc(sizeof *s);
    s->z = compress_new();
    *state = s;
    return s->z ? 0 : -1;
}

static int scene_close(void **state)
{
    struct scene *s = *state;
    compress_free(&s->z);
    mem_free(s);
    return 0;
}

/* Returns the number of bytes; spaces separate what belongs together. */
static size_t from_hex(const char *hex, uint8_t *ret)
{
    size_t len = 0;
    for (; *hex; hex++) {
        if (*hex == ' ')
            continue;
        ret[len++] = (uint8_t)strtoul((char[]){hex[0], hex[1], 0}, NULL, 16);
        hex++;
    }
    return len;
}

static void load(struct scene *s, const char *hex)
{
    assert_true(strlen(hex) / 2 <= sizeof s->bytes);
    s->batch = slice_of(s->bytes, from_hex(hex, s->bytes));
}

/* After a change by hand: length and CRC are right again. */
static void make_right(struct scene *s)
{
    uint32_t len = htobe32((uint32_t)s->batch.len - 12), crc;
    memcpy(s->bytes + 8, &len, 4);
    crc = htobe32(crc32c(0, s->bytes + 21, s->batch.len - 21));
    memcpy(s->bytes + 17, &crc, 4);
}

static const struct record_limits limits_open = {.unpacked_max = UNPACKED_MAX};

static enum record_verdict check(struct scene *s, const struct record_limits *limits, struct record_check *ret,
                                 struct record_fault *fault)
{
    /* In a block of its own length, so that the sanitizers see a byte too many. */
    uint8_t *copy = mem_alloc(s->batch.len + 1);
    memcpy(copy + 1, s->batch.ptr, s->batch.len);
    enum record_verdict verdict =
        record_batch_check(slice_of(copy + 1, s->batch.len), limits ? limits : &limits_open, s->z, ret, fault);
    mem_free(copy);
    return verdict;
}

static void assert_verdict(struct scene *s, const struct record_limits *limits, enum record_verdict want, int32_t index,
                           const char *why)
{
    struct record_check found;
    struct record_fault fault = {.why = "", .index = -2};
    enum record_verdict verdict = check(s, limits, &found, &fault);
    if (verdict != want || fault.index != index || !strstr(fault.why, why))
        fail_msg("wanted %d at %d '%s', got %d at %d '%s'", (int)want, index, why, (int)verdict, fault.index,
                 fault.why);
    assert_int_equal(check(s, limits, &found, NULL), want);
}

static struct record_reader open_batch(struct scene *s, struct record_batch *ret)
{
    struct record_reader r;
    assert_int_equal(record_batch_open(s->batch, s->z, UNPACKED_MAX, ret, &r), RECORD_OK);
    return r;
}

static void assert_bytes(struct slice got, const char *want)
{
    if (!slice_is(got, want))
        fail_msg("'%.*s' is not '%s'", SLICE_ARG(got), want);
}

static void assert_header(struct slice *headers, const char *key, const char *value)
{
    struct record_header h;
    assert_true(record_header_next(headers, &h));
    assert_bytes(h.key, key);
    assert_int_equal(h.has_value, value != NULL);
    if (value)
        assert_bytes(h.value, value);
}

/* -------------------------------------------------------------------------------------------- what real clients wrote */

static void kafka_pythons_batch_is_read_to_the_last_bit(void **state)
{
    struct scene *s = *state;
    struct record_batch b;
    struct record r;
    load(s, python_plain);
    struct record_reader reader = open_batch(s, &b);
    assert_true(record_batch_crc_ok(s->batch));
    assert_int_equal(b.base_offset, 0);
    assert_int_equal(b.bytes, 137);
    assert_int_equal(b.count, 4);
    assert_int_equal(b.leader_epoch, 0);
    assert_int_equal(b.last_offset_delta, 3);
    assert_int_equal(record_batch_last_offset(&b), 3);
    assert_int_equal(b.base_timestamp, T0);
    assert_int_equal(b.max_timestamp, T0 + 70000);
    assert_int_equal(b.producer_id, 4711);
    assert_int_equal(b.producer_epoch, 3);
    assert_int_equal(b.base_sequence, 2147483646);
    assert_int_equal(record_batch_last_sequence(&b), 1); /* 2147483646, 2147483647, 0, 1 */
    assert_true(b.transactional && !b.control && !b.append_time && !b.delete_horizon);
    assert_int_equal(b.compression, COMPRESS_NONE);

    assert_true(record_next(&reader, &r));
    assert_true(r.offset == 0 && r.timestamp == T0 && r.has_key && r.has_value && r.header_count == 0);
    assert_bytes(r.key, "k1");
    assert_bytes(r.value, "first");
    assert_true(record_next(&reader, &r));
    assert_true(r.offset == 1 && r.timestamp == T0 + 5 && !r.has_key && r.has_value && r.header_count == 3);
    assert_bytes(r.value, "no key");
    assert_header(&r.headers, "h", "1");
    assert_header(&r.headers, "empty", "");
    assert_header(&r.headers, "null", NULL);
    assert_int_equal(r.headers.len, 0);
    assert_true(record_next(&reader, &r));
    assert_true(r.offset == 2 && r.timestamp == T0 - 300 && r.has_key && !r.has_value && r.key.len == 0);
    assert_false(record_reader_ok(&reader)); /* not at the end yet */
    assert_true(record_next(&reader, &r));
    assert_true(r.offset == 3 && r.timestamp == T0 + 70000);
    assert_bytes(r.value, "h\xc3\xa4"
                          "der");
    assert_true(r.header_count == 1 && r.headers.len == 6);
    assert_false(record_next(&reader, &r));
    assert_true(record_reader_ok(&reader));
}

static void kafka_pythons_packed_batches_are_read(void **state)
{
    struct scene *s = *state;
    for (unsigned kind = COMPRESS_GZIP; kind < COMPRESS_KINDS; kind++) {
        struct record_batch b;
        struct record r;
        load(s, python_packed[kind]);
        struct record_reader reader = open_batch(s, &b);
        assert_int_equal(b.compression, kind);
        for (int i = 0; record_next(&reader, &r); i++) {
            char word[32], key[16];
            snprintf(word, sizeof word, "event %d ", i);
            snprintf(key, sizeof key, "key-%d", i % 3);
            assert_true(r.offset == i && r.timestamp == T0 + i && r.value.len == 32 && slice_starts(r.value, word));
            assert_bytes(r.key, key);
            if (i % 2)
                assert_header(&r.headers, "n", (char[]){(char)('0' + i), 0});
            assert_int_equal(r.headers.len, 0);
        }
        assert_true(record_reader_ok(&reader) && r.offset == 7);
    }
}

static void librdkafkas_batches_are_read(void **state)
{
    struct scene *s = *state;
    for (unsigned kind = COMPRESS_NONE; kind < COMPRESS_KINDS; kind++) {
        struct record_batch b;
        struct record r;
        load(s, librdkafka[kind]);
        struct record_reader reader = open_batch(s, &b);
        assert_int_equal(b.compression, kind);
        assert_int_equal(b.base_sequence, kind ? 0 : -1);
        assert_int_equal(record_batch_last_sequence(&b), kind ? 5 : -1);
        for (int i = 0; record_next(&reader, &r); i++) {
            char word[32];
            snprintf(word, sizeof word, "librdkafka %d ", i);
            assert_true(r.offset == i && r.timestamp == T0 + 10 * i && r.value.len == 65 &&
                        slice_starts(r.value, word));
            assert_bytes(r.key, i % 2 ? "k1" : "k0");
            assert_int_equal(r.header_count, i % 2 ? 2 : 0);
        }
        assert_true(record_reader_ok(&reader) && r.offset == 5);
    }
}

static void what_real_clients_wrote_passes_the_check(void **state)
{
    struct scene *s = *state;
    struct record_check found;
    for (unsigned i = 0; i < 3 * COMPRESS_KINDS; i++) {
        const char *hex = i % 3 == 0 ? librdkafka[i / 3] : i % 3 == 1 ? python_packed[i / 3] : python_plain;
        if (!hex)
            continue;
        load(s, hex);
        struct record_fault fault = {0};
        if (check(s, NULL, &found, &fault) != RECORD_OK)
            fail_msg("row %u, record %d: %s", i, fault.index, fault.why);
        assert_true(found.opened);
        assert_int_equal(found.max_timestamp, found.batch.max_timestamp);
        assert_true(found.unpacked_len >= found.batch.bytes - 61 || found.batch.compression != COMPRESS_NONE);
    }
}

/* ----------------------------------------------------------------------------------------------------- the check's rules */

static void every_field_of_the_header_has_its_rule(void **state)
{
    static const struct {
        unsigned at;
        const char *hex;
        enum record_verdict verdict;
        const char *why;
    } rows[] = {
        {0, "0000000000000001", RECORD_INVALID, "base offset"},
        {0, "ffffffffffffffff", RECORD_DAMAGED, "header"},
        {12, "7fffffff", RECORD_OK, ""},
        {16, "01", RECORD_OLD_FORMAT, "magic"},
        {16, "00", RECORD_OLD_FORMAT, "magic"},
        {16, "03", RECORD_DAMAGED, "magic"},
        {21, "0008", RECORD_BAD_TIMESTAMP, "append time"},
        {21, "0020", RECORD_INVALID, "control"},
        {21, "0005", RECORD_BAD_CODEC, "compression"},
        {21, "0007", RECORD_BAD_CODEC, "compression"},
        {21, "0001", RECORD_INVALID, "unpack"},
        {21, "0002", RECORD_INVALID, "unpack"},
        {21, "0003", RECORD_INVALID, "unpack"},
        {21, "0004", RECORD_INVALID, "unpack"},
        {23, "00000002", RECORD_INVALID, "count"},
        {23, "ffffffff", RECORD_DAMAGED, "header"},
        {43, "ffffffffffffffff", RECORD_INVALID, "without a producer id"},
        {53, "ffffffff", RECORD_INVALID, "sequence"},
        {57, "00000000", RECORD_INVALID, "without records"},
        {57, "00000003", RECORD_INVALID, "count"},
        {57, "ffffffff", RECORD_DAMAGED, "header"},
    };
    struct scene *s = *state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct record_check found;
        struct record_fault fault = {.why = ""};
        load(s, python_plain);
        (void)from_hex(rows[i].hex, s->bytes + rows[i].at);
        make_right(s);
        enum record_verdict verdict = check(s, NULL, &found, &fault);
        if (verdict != rows[i].verdict || !strstr(fault.why, rows[i].why))
            fail_msg("row %zu: %d %s", i, (int)verdict, fault.why);
    }
}

static void both_counts_must_agree_with_the_records(void **state)
{
    struct scene *s = *state;
    for (unsigned count = 3; count <= 5; count += 2) {
        load(s, python_plain);
        s->bytes[26] = (uint8_t)(count - 1);
        s->bytes[60] = (uint8_t)count;
        make_right(s);
        if (count == 3)
            assert_verdict(s, NULL, RECORD_INVALID, -1, "left over");
        else
            assert_verdict(s, NULL, RECORD_INVALID, 4, "length");
    }
}

static void a_length_must_be_that_of_the_bytes(void **state)
{
    struct scene *s = *state;
    load(s, python_plain);
    s->batch.len--;
    assert_verdict(s, NULL, RECORD_INVALID, -1, "not whole");
    s->batch.len = 60;
    assert_verdict(s, NULL, RECORD_INVALID, -1, "no batch");
    s->batch.len = 0;
    assert_verdict(s, NULL, RECORD_INVALID, -1, "no batch");
    load(s, python_plain);
    s->batch.len++;
    assert_verdict(s, NULL, RECORD_INVALID, -1, "more than one");
    static const uint32_t lens[] = {0, 48, 0x7fffffff - 11, 0x80000000, 0xffffffff};
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        struct record_batch b;
        load(s, python_plain);
        uint32_t len = htobe32(lens[i]);
        memcpy(s->bytes + 8, &len, 4);
        assert_int_equal(record_batch_peek(s->batch, &b), RECORD_DAMAGED);
    }
}

/* A batch of one record whose bytes after the record's length are these. */
static void one_record(struct scene *s, const char *hex)
{
    load(s, python_plain);
    size_t n = from_hex(hex, s->bytes + 62);
    s->bytes[26] = 0;
    s->bytes[60] = 1;
    s->bytes[61] = (uint8_t)(2 * n);
    s->batch.len = 62 + n;
    make_right(s);
}

static void every_length_in_a_record_has_its_rule(void **state)
{
    static const struct {
        const char *hex; /* attributes, timestamp delta, offset delta, key, value, headers */
        const char *why; /* NULL: it is right */
    } rows[] = {
        {"00 00 00 01 01 00", NULL},
        {"00 00 00 0261 0262 00", NULL},
        {"00 00 00 00 00 02 0261 0262", NULL},
        {"00 00 00 00 00 02 00 01", NULL},
        {"00 8000 8000 8100 8100 8000", NULL},               /* longer than need be */
        {"00 00 8080808000 01 01 00", NULL},                 /* five bytes */
        {"00 ffffffffffffffffff01 00 01 01 00", NULL},       /* ten bytes: the smallest delta */
        {"00 ffffffffffffffffff02 00 01 01 00", "length"},   /* 65 bits */
        {"00 ffffffffffffffffff8100 00 01 01 00", "length"}, /* eleven bytes */
        {"00 00 8080808010 01 01 00", "length"},             /* 33 bits: Java reads 0, C reads 2^31 */
        {"00 00 808080808000 01 01 00", "length"},           /* six bytes */
        {"00 00 00 03 01 00", "length"},                     /* null is -1, not -2 */
        {"00 00 00 01 03 00", "length"},
        {"00 00 00 0a61 01 00", "length"}, /* key over the end of the record */
        {"00 00 00 01 0a62 00", "length"},
        {"00 00 00 01 01 01", "length"},                 /* -1 headers */
        {"00 00 00 01 01 02", "length"},                 /* one header, and none there */
        {"00 00 00 01 01 00 00", "length"},              /* something after no header */
        {"00 00 00 01 01 02 0261 01 00", "length"},      /* and after the last */
        {"00 00 00 01 01 04 0261 01 00", "length"},      /* two, and half of it there */
        {"00 00 00 01 01 02 01 01", "length"},           /* a header's key is not null */
        {"00 00 00 01 01 02 00 03", "length"},           /* its value is -1 or more */
        {"00 00 00 01 01 02 0461 01", "length"},         /* and ends in the record */
        {"00 00 00 01 01 02 0261 01 0262 01", "length"}, /* one, and two there */
        {"00 00 00 01 01 04 0a6162636465 01", "length"}, /* two, and one long one there */
        {"00 00 00 01 01 feffffff0f 0001", "length"},    /* two thousand million headers */
        {"00 00 00 01 01", "length"},
        {"00 00 00 01", "length"},
        {"00 00 00", "length"},
        {"00 00", "length"},
        {"00", "length"},
        {"", "length"},
        {"00 00 02 01 01 00", "offset delta"},
        {"00 00 01 01 01 00", "offset delta"},
    };
    struct scene *s = *state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct record_check found;
        struct record_fault fault = {.why = ""};
        one_record(s, rows[i].hex);
        enum record_verdict verdict = check(s, NULL, &found, &fault);
        if (verdict != (rows[i].why ? RECORD_INVALID : RECORD_OK) || !strstr(fault.why, rows[i].why ? rows[i].why : ""))
            fail_msg("row %zu: %d %s", i, (int)verdict, fault.why);
        if (rows[i].why)
            assert_int_equal(fault.index, 0);
    }
    one_record(s, "000000010100");
    s->bytes[61] = 0x0e; /* the record is longer than the batch */
    make_right(s);
    assert_verdict(s, NULL, RECORD_INVALID, 0, "length");
    s->bytes[61] = 0x01; /* -1 */
    make_right(s);
    assert_verdict(s, NULL, RECORD_INVALID, 0, "length");
}

static void offset_deltas_are_dense(void **state)
{
    struct scene *s = *state;
    load(s, python_plain);
    assert_int_equal(s->bytes[61 + 14 + 3], 2); /* of the second record: 1 */
    s->bytes[61 + 14 + 3] = 0;
    make_right(s);
    assert_verdict(s, NULL, RECORD_INVALID, 1, "offset delta");
    s->bytes[61 + 14 + 3] = 4;
    make_right(s);
    assert_verdict(s, NULL, RECORD_INVALID, 1, "offset delta");
}

static void limits_are_kept(void **state)
{
    struct scene *s = *state;
    struct record_check found;
    load(s, python_plain);
    assert_verdict(s, &(struct record_limits){.bytes_max = 136}, RECORD_TOO_LARGE, -1, "max.message.bytes");
    assert_int_equal(check(s, &(struct record_limits){.bytes_max = 137}, &found, NULL), RECORD_OK);
    assert_verdict(s, &(struct record_limits){.keys_needed = true}, RECORD_INVALID, 1, "key");
    struct record_limits times = {.timestamp_min = T0 - 300, .timestamp_max = T0 + 70000};
    assert_int_equal(check(s, &times, &found, NULL), RECORD_OK);
    times.timestamp_min++;
    assert_verdict(s, &times, RECORD_BAD_TIMESTAMP, 2, "range");
    times = (struct record_limits){.timestamp_min = T0 - 300, .timestamp_max = T0 + 69999};
    assert_verdict(s, &times, RECORD_BAD_TIMESTAMP, 3, "range");
    load(s, python_packed[COMPRESS_ZSTD]);
    assert_verdict(s, &(struct record_limits){.zstd_refused = true}, RECORD_BAD_CODEC, -1, "version 7");
    load(s, python_packed[COMPRESS_LZ4]);
    assert_int_equal(check(s, &(struct record_limits){.zstd_refused = true}, &found, NULL), RECORD_OK);
}

static void packed_records_are_opened_within_a_limit_or_not_at_all(void **state)
{
    struct scene *s = *state;
    struct record_check found;
    for (unsigned kind = COMPRESS_GZIP; kind < COMPRESS_KINDS; kind++) {
        load(s, python_packed[kind]);
        assert_int_equal(check(s, NULL, &found, NULL), RECORD_OK);
        struct record_limits limits = {.unpacked_max = found.unpacked_len};
        assert_int_equal(check(s, &limits, &found, NULL), RECORD_OK);
        limits.unpacked_max--;
        assert_verdict(s, &limits, RECORD_TOO_LARGE, -1, "limit");
        struct record_limits closed = {0};
        assert_int_equal(record_batch_check(s->batch, &closed, NULL, &found, NULL), RECORD_OK);
        assert_true(!found.opened && found.max_timestamp == T0 + 7);
        closed.timestamp_max = T0 + 6;
        assert_verdict(s, &closed, RECORD_BAD_TIMESTAMP, -1, "max timestamp");
        struct record_batch b;
        struct record_reader r;
        assert_int_equal(record_batch_open(s->batch, NULL, 0, &b, &r), RECORD_BAD_CODEC);
    }
}

/* Kafka stores the max timestamp that it found, whatever the header says. */
static void a_wrong_max_timestamp_is_found_and_mended(void **state)
{
    struct scene *s = *state;
    struct record_check found;
    struct record_batch b;
    load(s, python_plain);
    assert_false(record_batch_set_max_timestamp(s->bytes, s->batch.len, false, T0 + 70000));
    assert_true(record_batch_set_max_timestamp(s->bytes, s->batch.len, false, T0 + 1));
    assert_int_equal(check(s, NULL, &found, NULL), RECORD_OK);
    assert_int_equal(found.batch.max_timestamp, T0 + 1);
    assert_int_equal(found.max_timestamp, T0 + 70000);
    assert_true(record_batch_set_max_timestamp(s->bytes, s->batch.len, false, found.max_timestamp));
    struct scene first = *s;
    load(&first, python_plain);
    assert_true(slice_equal(s->batch, first.batch));

    assert_true(record_batch_set_max_timestamp(s->bytes, s->batch.len, true, T0 + 999));
    assert_true(record_batch_crc_ok(s->batch));
    struct record_reader reader = open_batch(s, &b);
    struct record r;
    assert_true(b.append_time && b.transactional && b.max_timestamp == T0 + 999);
    while (record_next(&reader, &r))
        assert_int_equal(r.timestamp, T0 + 999);
    assert_true(record_reader_ok(&reader));
}

/* ---------------------------------------------------------------------------------------------------------------- damage */

/* Without a new CRC no flipped bit is taken, but for the leader epoch's, which the CRC leaves out. */
static void a_flipped_bit_is_found(void **state)
{
    struct scene *s = *state;
    struct record_check found;
    for (unsigned kind = COMPRESS_NONE; kind < COMPRESS_KINDS; kind++) {
        load(s, librdkafka[kind]);
        for (size_t bit = 0; bit < s->batch.len * 8; bit++) {
            s->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            bool in_epoch = bit / 8 >= 12 && bit / 8 < 16;
            if ((check(s, NULL, &found, NULL) == RECORD_OK) != in_epoch)
                fail_msg("bit %zu", bit);
            s->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

/* With a new CRC, what passes the check can be read to the end, written, and read back the same. */
static void what_passes_the_check_can_be_copied(void **state)
{
    struct scene *s = *state;
    struct record_check found;
    unsigned passed = 0;
    for (unsigned kind = COMPRESS_NONE; kind < COMPRESS_KINDS; kind++) {
        load(s, kind ? librdkafka[kind] : python_plain);
        size_t len = s->batch.len;
        for (size_t bit = 21 * 8; bit < len * 8; bit++) {
            s->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            make_right(s);
            if (check(s, NULL, &found, NULL) == RECORD_OK) {
                uint8_t copy[8192];
                struct writer w = writer_of(copy, sizeof copy);
                struct record_batch b, head;
                struct record_batch_writer writer;
                struct record r, again;
                struct record_reader from = open_batch(s, &b), back;
                head = b;
                head.compression = COMPRESS_NONE;
                record_batch_begin(&writer, &w, &head);
                while (record_next(&from, &r))
                    assert_true(record_batch_add(&writer, &r));
                assert_true(record_reader_ok(&from));
                struct slice written = record_batch_finish(&writer, -1);
                assert_int_equal(record_batch_open(written, NULL, 0, &head, &back), RECORD_OK);
                from = open_batch(s, &b);
                while (record_next(&from, &r)) {
                    assert_true(record_next(&back, &again));
                    assert_true(r.offset == again.offset && r.timestamp == again.timestamp);
                    assert_true(r.has_key == again.has_key && slice_equal(r.key, again.key));
                    assert_true(r.has_value == again.has_value && slice_equal(r.value, again.value));
                    assert_true(r.header_count == again.header_count && slice_equal(r.headers, again.headers));
                }
                assert_true(record_reader_ok(&back));
                passed++;
            }
            s->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    assert_true(passed > 500); /* bits of timestamps, of ids, of text */
}

static void a_reader_that_failed_stays_failed(void **state)
{
    struct scene *s = *state;
    struct record_batch b;
    struct record r;
    static const char *const damaged[] = {"000000010102", "00000001010000", "000000010a0100"};
    for (size_t i = 0; i < ARRAY_LEN(damaged); i++) {
        one_record(s, damaged[i]);
        struct record_reader reader = open_batch(s, &b);
        assert_false(record_next(&reader, &r));
        assert_false(record_next(&reader, &r));
        assert_false(record_reader_ok(&reader));
    }
}

/* -------------------------------------------------------------------------------------------------------- many in a row */

static void batches_in_a_row_are_taken_one_by_one(void **state)
{
    struct scene *s = *state;
    struct record_batch b;
    struct slice bytes, second;
    load(s, python_packed[COMPRESS_GZIP]);
    size_t n = s->batch.len;
    memmove(s->bytes + n, s->bytes, n);
    record_batch_set_base(s->bytes + n, 8, 5);
    struct reader r = reader_of(slice_of(s->bytes, 2 * n));
    assert_int_equal(record_batch_take(&r, &b, &bytes), RECORD_OK);
    assert_true(bytes.len == n && b.base_offset == 0 && b.leader_epoch == 0);
    assert_int_equal(record_batch_take(&r, &b, &second), RECORD_OK);
    assert_true(second.len == n && b.base_offset == 8 && b.leader_epoch == 5 && record_batch_last_offset(&b) == 15);
    assert_true(record_batch_crc_ok(second)); /* neither is in it */
    assert_int_equal(record_batch_take(&r, &b, &bytes), RECORD_END);
    for (size_t cut = 1; cut < n; cut++) {
        struct reader part = reader_of(slice_of(s->bytes, cut));
        assert_int_equal(record_batch_take(&part, &b, &bytes), RECORD_SHORT);
        assert_int_equal(part.left, cut);
        if (cut >= 61) {
            assert_int_equal(record_batch_peek(slice_of(s->bytes, cut), &b), RECORD_OK);
            assert_int_equal(b.bytes, n);
        }
    }
    static const uint8_t old[17] = {[11] = 14, [16] = 1};
    assert_int_equal(record_batch_peek(slice_of(old, 17), &b), RECORD_OLD_FORMAT);
    assert_int_equal(record_batch_peek(slice_of(old, 16), &b), RECORD_SHORT);
}

/* --------------------------------------------------------------------------------------------------------------- writing */

static struct slice text(const char *word)
{
    return slice_str(word);
}

static void the_writer_writes_what_kafka_python_writes(void **state)
{
    struct scene *s = *state;
    uint8_t bytes[200];
    struct writer w = writer_of(bytes, 137); /* and not one byte more */
    struct record_batch_writer b;
    struct record_batch head = record_batch_head(0, T0);
    struct slice k1 = text("k1"), first = text("first"), no_key = text("no key"), empty = text(""), key = text("key"),
                 last = text("h\xc3\xa4"
                             "der");
    const struct record_header three[] = {{.key = text("h"), .has_value = true, .value = text("1")},
                                          {.key = text("empty"), .has_value = true, .value = text("")},
                                          {.key = text("null")}};
    const struct record_header one = {.key = text("\xc3\xbc"), .has_value = true, .value = slice_of("\0\xff", 2)};
    head.leader_epoch = 0;
    head.producer_id = 4711;
    head.producer_epoch = 3;
    head.base_sequence = 2147483646;
    head.transactional = true;
    record_batch_begin(&b, &w, &head);
    assert_int_equal(record_batch_len(&b), 61);
    assert_true(record_batch_put(&b, T0, &k1, &first, NULL, 0));
    uint8_t *value;
    size_t before = record_batch_len(&b), more = record_batch_record_len(&b, T0 + 5, NULL, 6, three, 3);
    assert_true(record_batch_room(&b, T0 + 5, NULL, no_key.len, three, 3, &value));
    memcpy(value, no_key.ptr, no_key.len);
    assert_int_equal(record_batch_len(&b), before + more);
    more = record_batch_record_len(&b, T0 - 300, &empty, -1, NULL, 0);
    assert_true(record_batch_put(&b, T0 - 300, &empty, NULL, NULL, 0));
    assert_int_equal(record_batch_len(&b), before + more + record_batch_record_len(&b, T0 + 5, NULL, 6, three, 3));
    assert_false(record_batch_put(&b, T0 + 70000, &key, &last, three, 2)); /* too many bytes, and nothing has changed */
    assert_true(record_batch_put(&b, T0 + 70000, &key, &last, &one, 1));
    struct slice got = record_batch_finish(&b, -1);
    load(s, python_plain);
    assert_true(slice_equal(got, s->batch));
}

static void a_full_writer_leaves_a_whole_batch(void **state)
{
    struct scene *s = *state;
    struct slice value = text("twenty bytes of value");
    for (size_t max = 0; max < 400; max++) {
        uint8_t *bytes = mem_alloc(max + 8);
        struct writer w = {
            .base = bytes, .len = 8, .max = max + 8}; /* the batch need not begin where the writer does */
        struct record_batch_writer b;
        struct record_batch head = record_batch_head(0, T0);
        uint32_t count = 0;
        record_batch_begin(&b, &w, &head);
        while (record_batch_put(&b, T0, NULL, &value, NULL, 0))
            count++;
        assert_int_equal(count, max < 61 ? 0 : (max - 61) / 28);
        if (count) {
            struct record_check found;
            s->batch = record_batch_finish(&b, -1);
            assert_int_equal(record_batch_check(s->batch, &limits_open, NULL, &found, NULL), RECORD_OK);
            assert_int_equal(found.batch.count, count);
        } else if (max < 61) {
            assert_int_equal(record_batch_finish(&b, -1).len, 0);
        }
        mem_free(bytes);
    }
}

static void compaction_leaves_gaps_and_empty_batches(void **state)
{
    struct scene *s = *state;
    uint8_t bytes[500];
    struct writer w = writer_of(bytes, sizeof bytes);
    struct record_batch b, head = record_batch_head(1000, T0);
    struct record_batch_writer writer;
    struct record r = {.offset = 1003, .timestamp = T0 + 3, .has_key = true, .key = text("k")};
    record_batch_begin(&writer, &w, &head);
    assert_true(record_batch_add(&writer, &r));
    r.offset = 1007;
    assert_true(record_batch_add(&writer, &r));
    s->batch = record_batch_finish(&writer, 1009);
    struct record_reader reader = open_batch(s, &b);
    assert_true(b.base_offset == 1000 && record_batch_last_offset(&b) == 1009 && b.count == 2 &&
                b.max_timestamp == T0 + 3);
    assert_true(record_next(&reader, &r) && r.offset == 1003 && record_next(&reader, &r) && r.offset == 1007);
    assert_true(!record_next(&reader, &r) && record_reader_ok(&reader) && record_batch_crc_ok(s->batch));

    w.len = 0;
    head.producer_id = 7;
    head.producer_epoch = 1;
    head.base_sequence = 40;
    head.max_timestamp = T0 + 50;
    record_batch_begin(&writer, &w, &head);
    s->batch = record_batch_finish(&writer, 1009);
    assert_int_equal(s->batch.len, 61);
    reader = open_batch(s, &b);
    assert_true(b.count == 0 && record_batch_last_offset(&b) == 1009 && record_batch_last_sequence(&b) == 49);
    assert_true(b.max_timestamp == T0 + 50 && record_reader_ok(&reader) && record_batch_crc_ok(s->batch));
}

static void flags_and_append_time_are_written(void **state)
{
    struct scene *s = *state;
    uint8_t bytes[200];
    for (unsigned flags = 0; flags < 16; flags++) {
        struct writer w = writer_of(bytes, sizeof bytes);
        struct record_batch b, head = record_batch_head(5, T0);
        struct record_batch_writer writer;
        struct record r;
        head.append_time = flags & 1;
        head.transactional = flags & 2;
        head.control = flags & 4;
        head.delete_horizon = flags & 8;
        head.max_timestamp = T0 + 1000;
        record_batch_begin(&writer, &w, &head);
        assert_true(record_batch_put(&writer, T0 + 1, NULL, NULL, NULL, 0));
        s->batch = record_batch_finish(&writer, -1);
        struct record_reader reader = open_batch(s, &b);
        assert_int_equal(b.attributes, flags << 3);
        assert_int_equal(b.max_timestamp, flags & 1 ? T0 + 1000 : T0 + 1);
        assert_true(record_next(&reader, &r) && r.timestamp == b.max_timestamp);
    }
}

/* --------------------------------------------------------------------------------------------------------------- at random */

#define DRAWN_MAX 40u
#define DRAWN_BYTES (1u << 20)

struct drawn {
    int64_t timestamp;
    bool has_key, has_value;
    struct slice key, value;
    uint32_t header_count;
    struct record_header headers[5];
};

static const uint8_t *noise(void)
{
    static uint8_t bytes[70000];
    for (size_t i = 0; i < sizeof bytes && bytes[1] == 0; i++)
        bytes[i] = (uint8_t)(1 + i * i / 7 % 31);
    return bytes;
}

static struct slice draw_slice(void)
{
    static const size_t lens[] = {0, 1, 2, 63, 64, 65, 200, 8191, 8192, 20000};
    size_t len = lens[(size_t)rand() % (rand() % 4 ? 7 : ARRAY_LEN(lens))];
    return slice_of(noise() + rand() % 50000, len);
}

static struct drawn draw(unsigned round)
{
    static const int64_t deltas[] = {0, 1, -1, 63, 64, -64, -65, 8192, 1LL << 40, INT64_MAX - T0, INT64_MIN, INT64_MAX};
    struct drawn d = {.timestamp = (int64_t)((uint64_t)T0 + (uint64_t)deltas[(size_t)rand() % ARRAY_LEN(deltas)])};
    d.has_key = rand() % 3;
    d.has_value = rand() % 5;
    d.key = d.has_key ? draw_slice() : (struct slice){0};
    d.value = d.has_value ? draw_slice() : (struct slice){0};
    d.header_count = round % 3 ? 0 : (uint32_t)rand() % 6;
    for (unsigned i = 0; i < d.header_count; i++) {
        d.headers[i] = (struct record_header){.key = draw_slice(), .has_value = rand() % 3};
        if (d.headers[i].has_value)
            d.headers[i].value = draw_slice();
    }
    return d;
}

static void assert_same(const struct record *r, const struct drawn *d)
{
    struct slice headers = r->headers;
    struct record_header h;
    assert_true(r->timestamp == d->timestamp && r->has_key == d->has_key && r->has_value == d->has_value);
    assert_true(slice_equal(r->key, d->key) && slice_equal(r->value, d->value) && r->header_count == d->header_count);
    for (unsigned i = 0; i < d->header_count; i++) {
        assert_true(record_header_next(&headers, &h));
        assert_true(slice_equal(h.key, d->headers[i].key) && h.has_value == d->headers[i].has_value);
        if (h.has_value)
            assert_true(slice_equal(h.value, d->headers[i].value));
    }
    assert_int_equal(headers.len, 0);
}

static void random_batches_come_back_through_every_codec(void **state)
{
    struct scene *s = *state;
    struct drawn drawn[DRAWN_MAX];
    uint8_t *bytes = mem_alloc(DRAWN_BYTES), *packed = mem_alloc(2 * DRAWN_BYTES), *again = mem_alloc(DRAWN_BYTES);
    srand(11);
    for (unsigned round = 0; round < 300; round++) {
        uint32_t count = 0, wanted = 1 + (uint32_t)rand() % DRAWN_MAX;
        struct writer w = writer_of(bytes, DRAWN_BYTES), pw = writer_of(packed, 2 * DRAWN_BYTES);
        struct writer aw = writer_of(again, DRAWN_BYTES);
        struct record_batch head = record_batch_head(0, T0);
        struct record_batch_writer b;
        int64_t max = RECORD_NO_TIMESTAMP;
        record_batch_begin(&b, &w, &head);
        for (; count < wanted; count++) {
            struct drawn *d = &drawn[count];
            *d = draw(round);
            size_t will_be =
                record_batch_len(&b) + record_batch_record_len(&b, d->timestamp, d->has_key ? &d->key : NULL,
                                                               d->has_value ? (int64_t)d->value.len : -1, d->headers,
                                                               d->header_count);
            if (!record_batch_put(&b, d->timestamp, d->has_key ? &d->key : NULL, d->has_value ? &d->value : NULL,
                                  d->headers, d->header_count))
                break;
            assert_int_equal(record_batch_len(&b), will_be);
            max = d->timestamp > max ? d->timestamp : max;
        }
        struct slice plain = record_batch_finish(&b, -1);
        unsigned kind = round % COMPRESS_KINDS;
        assert_int_equal(record_batch_repack(plain, kind, COMPRESS_LEVEL_DEFAULT, s->z, 0, &pw), RECORD_OK);
        struct record_limits limits = {.unpacked_max = DRAWN_BYTES};
        struct record_check found;
        assert_int_equal(record_batch_check(writer_slice(&pw), &limits, s->z, &found, NULL), RECORD_OK);
        assert_true(found.max_timestamp == max && found.batch.max_timestamp == max && found.batch.compression == kind);
        assert_true(found.unpacked_len == plain.len - 61 && found.batch.count == count);
        struct record_batch back;
        struct record_reader reader;
        struct record r;
        assert_int_equal(record_batch_open(writer_slice(&pw), s->z, DRAWN_BYTES, &back, &reader), RECORD_OK);
        for (uint32_t i = 0; i < count; i++) {
            assert_true(record_next(&reader, &r) && r.offset == i);
            assert_same(&r, &drawn[i]);
        }
        assert_true(!record_next(&reader, &r) && record_reader_ok(&reader));
        assert_int_equal(record_batch_repack(writer_slice(&pw), COMPRESS_NONE, 0, s->z, DRAWN_BYTES, &aw), RECORD_OK);
        assert_true(slice_equal(writer_slice(&aw), plain));
    }
    mem_free(bytes);
    mem_free(packed);
    mem_free(again);
}

/* From kafka-python's packed batches the plain ones come that it would have written. */
static void repacking_changes_only_the_packing(void **state)
{
    struct scene *s = *state;
    uint8_t first[600], bytes[600], tiny[100];
    struct slice plain = {0};
    for (unsigned kind = COMPRESS_GZIP; kind < COMPRESS_KINDS; kind++) {
        struct writer w = writer_of(plain.len ? bytes : first, sizeof bytes), none = writer_of(tiny, sizeof tiny);
        load(s, python_packed[kind]);
        assert_int_equal(record_batch_repack(s->batch, COMPRESS_NONE, 0, s->z, UNPACKED_MAX, &w), RECORD_OK);
        assert_true(record_batch_crc_ok(writer_slice(&w)));
        if (plain.len)
            assert_true(slice_equal(writer_slice(&w), plain));
        else
            plain = writer_slice(&w);
        assert_int_equal(record_batch_repack(s->batch, COMPRESS_NONE, 0, s->z, UNPACKED_MAX, &none), RECORD_TOO_LARGE);
        assert_true(writer_ok(&none) && none.len == 0);
        assert_int_equal(record_batch_repack(s->batch, COMPRESS_NONE, 0, s->z, 100, &none), RECORD_TOO_LARGE);
    }
}

#define IN_SCENE(test) cmocka_unit_test_setup_teardown(test, scene_open, scene_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_SCENE(kafka_pythons_batch_is_read_to_the_last_bit),
        IN_SCENE(kafka_pythons_packed_batches_are_read),
        IN_SCENE(librdkafkas_batches_are_read),
        IN_SCENE(what_real_clients_wrote_passes_the_check),
        IN_SCENE(every_field_of_the_header_has_its_rule),
        IN_SCENE(both_counts_must_agree_with_the_records),
        IN_SCENE(a_length_must_be_that_of_the_bytes),
        IN_SCENE(every_length_in_a_record_has_its_rule),
        IN_SCENE(offset_deltas_are_dense),
        IN_SCENE(limits_are_kept),
        IN_SCENE(packed_records_are_opened_within_a_limit_or_not_at_all),
        IN_SCENE(a_wrong_max_timestamp_is_found_and_mended),
        IN_SCENE(a_flipped_bit_is_found),
        IN_SCENE(what_passes_the_check_can_be_copied),
        IN_SCENE(a_reader_that_failed_stays_failed),
        IN_SCENE(batches_in_a_row_are_taken_one_by_one),
        IN_SCENE(the_writer_writes_what_kafka_python_writes),
        IN_SCENE(a_full_writer_leaves_a_whole_batch),
        IN_SCENE(compaction_leaves_gaps_and_empty_batches),
        IN_SCENE(flags_and_append_time_are_written),
        IN_SCENE(random_batches_come_back_through_every_codec),
        IN_SCENE(repacking_changes_only_the_packing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
