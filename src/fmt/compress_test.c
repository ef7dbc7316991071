/* Unit test of compress: bytes made by Python's libraries, round trips of every shape and size, bounds, damage, memory.
 *
 * The packed rows below are those of Python's gzip, python3-snappy, kafka-python's snappy_encode, python3-lz4 and
 * python3-zstandard for the text that golden_text makes.
 */
#include "base/mem.h"
#include "fmt/compress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static const struct {
    enum compress_kind kind;
    const char *made_by, *hex;
} golden[] = {
    {COMPRESS_GZIP, "gzip.compress, level 9",
     "1f8b08000000000002034bcc53482d4bcd2b51482acacf4e2d52c8cc5370d65148a4ab28032313330b2b1b3b07271737"
     "0f2f1fbf80a090b088a898b884a494b48cac9cbc82a292b28aaa9a3a00ac378547ac000000"},
    {COMPRESS_GZIP, "two members",
     "1f8b08000000000004034bcc53482d4bcd2b51482acacf4e2d52c8cc5370d65148c4230a007af28556320000001f8b08"
     "00000000000003cb2b51482acacf4e2d52c8cc5370d65148cc53482d4bcda340948191899985958d9d83938b9b87978f"
     "5f4050485844544c5c42524a5a46564e5e4151495945554d1d00fc3bab877a000000"},
    {COMPRESS_SNAPPY, "snappy.compress",
     "ac0154616e206576656e742062726f6b657220696e20432c20fe1600b616009c000102030405060708090a0b0c0d0e0f"
     "101112131415161718191a1b1c1d1e1f2021222324252627"},
    {COMPRESS_SNAPPY, "kafka.codec.snappy_encode, blocks of 70",
     "82534e415050590000000001000000010000001b4654616e206576656e742062726f6b657220696e20432c20be160000"
     "000024465476656e742062726f6b657220696e20432c20616e20659e16001c000102030405060700000022207c08090a"
     "0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627"},
    {COMPRESS_LZ4, "lz4.frame.compress with every checksum and the size",
     "04224d187c40ac000000000000003545000000ff07616e206576656e742062726f6b657220696e20432c2016005bf019"
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627eb1327d800000000"
     "4dfd852e"},
    {COMPRESS_LZ4, "as kafka-python calls it",
     "04224d1860408245000000ff07616e206576656e742062726f6b657220696e20432c2016005bf0190001020304050607"
     "08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262700000000"},
    {COMPRESS_ZSTD, "zstandard, with checksum",
     "28b52ffd24ac350200e403616e206576656e742062726f6b657220696e20432c20000102030405060708090a0b0c0d0e"
     "0f101112131415161718191a1b1c1d1e1f2021222324252627010056a6b309280acc90"},
    {COMPRESS_ZSTD, "without content size",
     "28b52ffd0000350200e403616e206576656e742062726f6b657220696e20432c20000102030405060708090a0b0c0d0e"
     "0f101112131415161718191a1b1c1d1e1f2021222324252627010056a6b309"},
    {COMPRESS_ZSTD, "two frames",
     "28b52ffd2032e50000b0616e206576656e742062726f6b657220696e20432c20010092994d28b52ffd207a350200e403"
     "6e742062726f6b657220696e20432c20616e20657665000102030405060708090a0b0c0d0e0f10111213141516171819"
     "1a1b1c1d1e1f2021222324252627010092d26c02"},
};

#define GOLDEN_LEN 172u
#define BUFFER_LEN (4u << 20)

struct scene {
    struct compress *z;
    uint8_t *in, *packed, *out; /* BUFFER_LEN each */
};

static int scene_open(void **state)
{
    struct scene *s = mem_zalloc(sizeof *s);
    s->z = compress_new();
    s->in = mem_alloc(BUFFER_LEN);
    s->packed = mem_alloc(BUFFER_LEN);
    s->out = mem_alloc(BUFFER_LEN);
    *state = s;
    return s->z && s->in && s->packed && s->out ? 0 : -1;
}

static int scene_close(void **state)
{
    struct scene *s = *state;
    compress_free(&s->z);
    mem_free(s->in);
    mem_free(s->packed);
    mem_free(s->out);
    mem_free(s);
    return 0;
}

static struct slice golden_text(uint8_t text[GOLDEN_LEN])
{
    for (unsigned i = 0; i < 6; i++)
        memcpy(text + 22 * i, "an event broker in C, ", 22);
    for (unsigned i = 0; i < 40; i++)
        text[132 + i] = (uint8_t)i;
    return slice_of(text, GOLDEN_LEN);
}

static struct slice from_hex(const char *hex, uint8_t *ret)
{
    size_t len = strlen(hex) / 2;
    for (size_t i = 0; i < len; i++)
        ret[i] = (uint8_t)strtoul((char[]){hex[2 * i], hex[2 * i + 1], 0}, NULL, 16);
    return slice_of(ret, len);
}

/* Unpacks within max, into bytes of exactly that length, so that the sanitizers see a byte too many. */
static enum compress_verdict unpack_within(struct scene *s, enum compress_kind kind, struct slice in, size_t max,
                                           struct slice *ret)
{
    uint8_t *room = mem_alloc(max ? max : 1);
    struct writer w = writer_of(room, max);
    enum compress_verdict verdict = compress_unpack_into(s->z, kind, in, &w);
    assert_true(writer_ok(&w));
    assert_true(verdict == COMPRESS_OK || w.len == 0);
    memcpy(s->out, room, w.len);
    mem_free(room);
    *ret = slice_of(s->out, w.len);
    return verdict;
}

static struct slice pack(struct scene *s, enum compress_kind kind, int32_t level, struct slice in)
{
    size_t max = compress_pack_max(kind, in.len);
    uint8_t *room = mem_alloc(max + 1);
    struct writer w = writer_of(room, max);
    assert_int_equal(compress_pack(s->z, kind, level, in, &w), COMPRESS_OK);
    memcpy(s->packed, room, w.len);
    mem_free(room);
    return slice_of(s->packed, w.len);
}

static void bytes_of_pythons_libraries_unpack(void **state)
{
    struct scene *s = *state;
    uint8_t text[GOLDEN_LEN], bytes[256];
    struct slice want = golden_text(text), got;
    for (size_t i = 0; i < ARRAY_LEN(golden); i++) {
        struct slice in = from_hex(golden[i].hex, bytes);
        if (unpack_within(s, golden[i].kind, in, GOLDEN_LEN, &got) != COMPRESS_OK || !slice_equal(got, want))
            fail_msg("%s by %s", compress_name(golden[i].kind), golden[i].made_by);
        assert_int_equal(compress_unpack(s->z, golden[i].kind, in, GOLDEN_LEN, &got), COMPRESS_OK);
        assert_true(slice_equal(got, want));
        assert_int_equal(unpack_within(s, golden[i].kind, in, GOLDEN_LEN - 1, &got), COMPRESS_TOO_LARGE);
        assert_int_equal(compress_unpack(s->z, golden[i].kind, in, GOLDEN_LEN - 1, &got), COMPRESS_TOO_LARGE);
        assert_int_equal(unpack_within(s, golden[i].kind, in, 0, &got), COMPRESS_TOO_LARGE);
    }
}

/* Streams of several pieces have no end of their own: cut between two, what is left is whole. */
static bool is_whole_without_its_end(size_t row, size_t len)
{
    return (row == 1 && len == 45) || (row == 3 && (len == 16 || len == 47 || len == 87)) || (row == 8 && len == 37);
}

static void cut_or_longer_bytes_are_damage(void **state)
{
    struct scene *s = *state;
    uint8_t bytes[256];
    struct slice got;
    for (size_t i = 0; i < ARRAY_LEN(golden); i++) {
        struct slice in = from_hex(golden[i].hex, bytes);
        for (size_t len = 0; len < in.len; len++) {
            enum compress_verdict verdict = unpack_within(s, golden[i].kind, slice_of(in.ptr, len), 1000, &got);
            if ((verdict == COMPRESS_OK) != is_whole_without_its_end(i, len))
                fail_msg("%s by %s, cut to %zu: %d", compress_name(golden[i].kind), golden[i].made_by, len,
                         (int)verdict);
        }
        bytes[in.len] = 0;
        assert_int_equal(unpack_within(s, golden[i].kind, slice_of(bytes, in.len + 1), 1000, &got), COMPRESS_DAMAGED);
    }
}

static void a_flipped_bit_never_gives_more_than_the_bound(void **state)
{
    struct scene *s = *state;
    uint8_t bytes[256];
    struct slice got;
    for (size_t i = 0; i < ARRAY_LEN(golden); i++) {
        struct slice in = from_hex(golden[i].hex, bytes);
        for (size_t bit = 0; bit < in.len * 8; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (unpack_within(s, golden[i].kind, in, 300, &got) == COMPRESS_OK)
                assert_true(got.len <= 300);
            if (compress_unpack(s->z, golden[i].kind, in, 100000, &got) == COMPRESS_OK)
                assert_true(got.len <= 100000);
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_int_equal(unpack_within(s, golden[i].kind, in, 300, &got), COMPRESS_OK); /* the states have recovered */
    }
    assert_true(compress_kept_bytes(s->z) <= 100000);
}

/* shape 0: nothing compressible, 1: one letter, 2: words. */
static struct slice draw(struct scene *s, unsigned shape, size_t len)
{
    static const char *const words[] = {"queue ", "stream ", "offset ", "ack "};
    for (size_t i = 0; i < len;) {
        const char *word = words[rand() % 4];
        if (shape < 2)
            s->in[i++] = shape ? 'x' : (uint8_t)(rand() >> 7);
        else
            for (; *word && i < len; word++)
                s->in[i++] = (uint8_t)*word;
    }
    return slice_of(s->in, len);
}

static void everything_comes_back(void **state)
{
    static const size_t lens[] = {0, 1, 2, 100, 4096, 32767, 32768, 32769, 65536, 65537, 200000, 1 << 20};
    struct scene *s = *state;
    struct slice got;
    srand(7);
    for (unsigned kind = COMPRESS_NONE; kind < COMPRESS_KINDS; kind++) {
        for (size_t i = 0; i < ARRAY_LEN(lens) * 3; i++) {
            struct slice in = draw(s, i % 3, lens[i / 3]);
            struct slice packed = pack(s, kind, COMPRESS_LEVEL_DEFAULT, in);
            assert_int_equal(unpack_within(s, kind, packed, in.len, &got), COMPRESS_OK);
            assert_true(slice_equal(got, in));
            assert_int_equal(compress_unpack(s->z, kind, packed, BUFFER_LEN, &got), COMPRESS_OK);
            assert_true(slice_equal(got, in));
            if (in.len > 0)
                assert_int_equal(unpack_within(s, kind, packed, in.len - 1, &got), COMPRESS_TOO_LARGE);
        }
    }
}

static void levels_change_the_size_and_nothing_else(void **state)
{
    static const int32_t levels[COMPRESS_KINDS][4] = {
        [COMPRESS_GZIP] = {1, 9, 1, 6}, [COMPRESS_LZ4] = {1, 12, 1, 9}, [COMPRESS_ZSTD] = {1, 9, -5, 3}};
    struct scene *s = *state;
    struct slice got;
    size_t len[4];
    for (unsigned kind = COMPRESS_GZIP; kind < COMPRESS_KINDS; kind++) {
        if (kind == COMPRESS_SNAPPY)
            continue;
        for (unsigned i = 0; i < 4; i++) {
            srand(3);
            struct slice in = draw(s, 2, 50000);
            struct slice packed = pack(s, kind, levels[kind][i], in);
            len[i] = packed.len;
            assert_int_equal(compress_unpack(s->z, kind, packed, 50000, &got), COMPRESS_OK);
            assert_true(slice_equal(got, in));
        }
        assert_true(len[1] < len[0] && len[1] < len[2]);
    }
    srand(3);
    size_t standard = pack(s, COMPRESS_GZIP, COMPRESS_LEVEL_DEFAULT, draw(s, 2, 50000)).len;
    assert_int_equal(standard, pack(s, COMPRESS_GZIP, -1, slice_of(s->in, 50000)).len);
    assert_int_equal(standard, pack(s, COMPRESS_GZIP, 6, slice_of(s->in, 50000)).len);
}

static void packing_that_does_not_fit_writes_nothing(void **state)
{
    struct scene *s = *state;
    struct slice in = draw(s, 0, 1000);
    for (unsigned kind = COMPRESS_NONE; kind < COMPRESS_KINDS; kind++) {
        uint8_t room[1010] = "before";
        for (size_t max = 6; max < 900; max += 149) {
            struct writer w = {.base = room, .len = 6, .max = max};
            assert_int_equal(compress_pack(s->z, kind, COMPRESS_LEVEL_DEFAULT, in, &w), COMPRESS_TOO_LARGE);
            assert_true(writer_ok(&w) && w.len == 6);
        }
        assert_memory_equal(room, "before", 6);
    }
}

/* What unpacks to a hundred times the bound or more is refused without more memory than the bound. */
static void a_bomb_takes_its_bound_and_no_more(void **state)
{
    static const size_t lens[] = {[COMPRESS_GZIP] = 64u << 20,
                                  [COMPRESS_SNAPPY] = 3u << 20,
                                  [COMPRESS_LZ4] = 3u << 20,
                                  [COMPRESS_ZSTD] = 64u << 20};
    struct scene *s = *state;
    size_t max = 32u << 10;
    uint8_t *zeros = mem_zalloc(64u << 20);
    struct slice got;
    for (unsigned kind = COMPRESS_GZIP; kind < COMPRESS_KINDS; kind++) {
        struct writer w = writer_of(s->packed, BUFFER_LEN);
        assert_int_equal(compress_pack(s->z, kind, COMPRESS_LEVEL_DEFAULT, slice_of(zeros, lens[kind]), &w),
                         COMPRESS_OK);
        assert_true(w.len < lens[kind] / 20);
        compress_trim(s->z);
        size_t before = mem_in_use();
        uint64_t cost = compress_cost_ns(s->z);
        assert_int_equal(compress_unpack(s->z, kind, writer_slice(&w), max, &got), COMPRESS_TOO_LARGE);
        assert_true(compress_kept_bytes(s->z) <= max);
        assert_true(compress_cost_ns(s->z) - cost <=
                    (kind == COMPRESS_LZ4 ? 2 * (max + w.len) : 0)); /* no frame says it */
        assert_true(mem_in_use() - before < max + (200u << 10));     /* the library's state is in it */
        compress_trim(s->z);
        assert_int_equal(mem_in_use(), before);
    }
    mem_free(zeros);
}

/* A level is lowered as far as must be and no further; what one of 22 takes for a MiB is no hint for one of 3. */
static void levels_have_their_price(void **state)
{
    (void)state;
    static const struct {
        enum compress_kind kind;
        int32_t level, within;
        size_t len;
    } rows[] = {
        {COMPRESS_ZSTD, 22, 22, 1000},
        {COMPRESS_ZSTD, 22, 15, 1u << 20},
        {COMPRESS_ZSTD, 22, 3, 16u << 20},
        {COMPRESS_ZSTD, 3, 3, 64u << 20},
        {COMPRESS_ZSTD, -5, -5, 1000},
        {COMPRESS_ZSTD, -5, -5, 64u << 20}, /* which is the cheapest already */
        {COMPRESS_LZ4, 1, 1, 128u << 20},
        {COMPRESS_GZIP, 9, 9, 1u << 20},
        {COMPRESS_GZIP, 9, 1, 16u << 20},
        {COMPRESS_GZIP, -1, 5, 7u << 20},
        {COMPRESS_LZ4, 17, 2, 16u << 20},
        {COMPRESS_SNAPPY, COMPRESS_LEVEL_DEFAULT, COMPRESS_LEVEL_DEFAULT, 1u << 30},
        {COMPRESS_ZSTD, COMPRESS_LEVEL_DEFAULT, COMPRESS_LEVEL_DEFAULT, 1u << 20},
        {COMPRESS_NONE, 7, 7, 1u << 30},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_int_equal(compress_level_within(rows[i].kind, rows[i].level, rows[i].len, 200000000), rows[i].within);
    assert_true(compress_pack_cost_ns(COMPRESS_ZSTD, 22, 1000) > 50 * compress_pack_cost_ns(COMPRESS_ZSTD, 3, 1000));
}

/* Twenty bytes that claim a size, a window or blocks of megabytes. */
static void claims_are_not_believed(void **state)
{
    static const struct {
        enum compress_kind kind;
        const char *hex;
        enum compress_verdict verdict;
    } rows[] = {
        {COMPRESS_ZSTD, "28b52ffde0ffffffffffffff0f01000041", COMPRESS_TOO_LARGE}, /* content size 2^60 */
        {COMPRESS_ZSTD, "28b52ffd00900b000041", COMPRESS_DAMAGED},                 /* window 256 MiB, one raw byte */
        {COMPRESS_ZSTD,
         "28b52ffd0088090000"
         "41",
         COMPRESS_OK}, /* window 128 MiB, one raw byte */
        {COMPRESS_ZSTD,
         "28b52ffd0101090000"
         "41",
         COMPRESS_DAMAGED},                                      /* dictionary 1 */
        {COMPRESS_SNAPPY, "ffffffff0f0041", COMPRESS_TOO_LARGE}, /* 4 GiB */
        {COMPRESS_SNAPPY, "82534e415050590000000001000000017fffffff00", COMPRESS_DAMAGED},
        {COMPRESS_SNAPPY, "82534e4150505900000000010000000100000000", COMPRESS_DAMAGED},
        {COMPRESS_GZIP, "1f8b080000000000000303000000000000ff7f7f", COMPRESS_DAMAGED}, /* ISIZE */
    };
    struct scene *s = *state;
    uint8_t bytes[64];
    struct slice got;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        compress_trim(s->z);
        enum compress_verdict verdict =
            compress_unpack(s->z, rows[i].kind, from_hex(rows[i].hex, bytes), 1u << 20, &got);
        if (verdict != rows[i].verdict)
            fail_msg("row %zu: %d", i, (int)verdict);
        assert_true(compress_kept_bytes(s->z) <= 1u << 20);
    }
    assert_true(compress_kept_bytes(s->z) <= 64u << 10); /* the last one: no gzip makes 2 GB of 20 bytes */
    struct slice skipped = from_hex("502a4d180400000001020304"
                                    "28b52ffd002009000041",
                                    bytes); /* four bytes, then one */
    assert_int_equal(unpack_within(s, COMPRESS_ZSTD, skipped, 1, &got), COMPRESS_OK);
    assert_int_equal(got.len, 1);
}

/* An LZ4 frame whose descriptor has these two bytes and the checksum to match. */
static enum compress_verdict lz4_with(struct scene *s, uint8_t flags, uint8_t blocks, const char *rest)
{
    uint8_t bytes[64] = {0x04, 0x22, 0x4d, 0x18, flags, blocks};
    struct slice tail = from_hex(rest, bytes + 7), got;
    bytes[6] = (uint8_t)(XXH32(bytes + 4, 2, 0) >> 8);
    return compress_unpack(s->z, COMPRESS_LZ4, slice_of(bytes, 7 + tail.len), 1u << 20, &got);
}

static void lz4_is_what_java_reads(void **state)
{
    struct scene *s = *state;
    const char *one_byte = "010000804100000000", *with_dictionary = "0100000001000080410000000000";
    assert_int_equal(lz4_with(s, 0x60, 0x40, one_byte), COMPRESS_OK);
    assert_int_equal(lz4_with(s, 0x60, 0x70, one_byte), COMPRESS_OK);
    assert_true(mem_in_use() < 3 * BUFFER_LEN + (3u << 20)); /* buffers for blocks of 4 MiB are not kept */
    assert_int_equal(lz4_with(s, 0x40, 0x40, one_byte), COMPRESS_DAMAGED); /* blocks that depend on one another */
    assert_int_equal(lz4_with(s, 0x61, 0x40, with_dictionary), COMPRESS_DAMAGED);
    assert_int_equal(lz4_with(s, 0x60, 0x30, one_byte), COMPRESS_DAMAGED);                 /* no such block size */
    assert_int_equal(lz4_with(s, 0x60, 0x40, "0100008041000000000422"), COMPRESS_DAMAGED); /* something after it */
    struct slice skippable = slice_of("\x50\x2a\x4d\x18\x04\0\0\0abcd", 12), got;
    assert_int_equal(compress_unpack(s->z, COMPRESS_LZ4, skippable, 100, &got), COMPRESS_DAMAGED);
}

/* snappy-java's streams may be joined: a header between blocks is skipped. */
static void joined_snappy_streams_are_one(void **state)
{
    struct scene *s = *state;
    uint8_t bytes[256];
    struct slice one = from_hex(golden[3].hex, bytes), got;
    memcpy(bytes + one.len, bytes, one.len);
    assert_int_equal(compress_unpack(s->z, COMPRESS_SNAPPY, slice_of(bytes, 2 * one.len), 1000, &got), COMPRESS_OK);
    assert_int_equal(got.len, 2 * GOLDEN_LEN);
    assert_memory_equal(got.ptr, got.ptr + GOLDEN_LEN, GOLDEN_LEN);
}

static void a_codec_without_memory_says_so_and_works_later(void **state)
{
    struct scene *s = *state;
    struct slice got;
    for (unsigned kind = COMPRESS_GZIP; kind < COMPRESS_KINDS; kind++) {
        srand(5);
        struct slice in = draw(s, 2, 100000);
        struct writer w = writer_of(s->packed, BUFFER_LEN);
        bool failed = true;
        for (uint64_t n = 1; failed; n++) {
            compress_trim(s->z);
            w.len = 0;
            mem_fail_at(n, false);
            enum compress_verdict verdict = compress_pack(s->z, kind, COMPRESS_LEVEL_DEFAULT, in, &w);
            failed = mem_failures_hit() > 0;
            mem_fail_at(0, false);
            assert_int_equal(verdict, failed ? COMPRESS_NO_MEMORY : COMPRESS_OK);
        }
        failed = true;
        for (uint64_t n = 1; failed; n++) {
            compress_trim(s->z);
            mem_fail_at(n, false);
            enum compress_verdict verdict = compress_unpack(s->z, kind, writer_slice(&w), in.len, &got);
            failed = mem_failures_hit() > 0;
            mem_fail_at(0, false);
            assert_int_equal(verdict, failed ? COMPRESS_NO_MEMORY : COMPRESS_OK);
            if (failed)
                assert_int_equal(compress_unpack(s->z, kind, writer_slice(&w), in.len, &got), COMPRESS_OK);
            assert_true(slice_equal(got, in));
        }
    }
    mem_fail_at(1, false);
    assert_null(compress_new());
    mem_fail_at(0, false);
}

static void names_are_kafkas(void **state)
{
    (void)state;
    static const char *const want[] = {"none", "gzip", "snappy", "lz4", "zstd"};
    for (unsigned kind = 0; kind < COMPRESS_KINDS; kind++) {
        assert_string_equal(compress_name(kind), want[kind]);
        assert_int_equal(compress_find(slice_str(want[kind])), kind);
    }
    assert_null(compress_name(COMPRESS_KINDS));
    assert_int_equal(compress_find(slice_str("uncompressed")), COMPRESS_NONE);
    assert_int_equal(compress_find(slice_str("LZ4")), COMPRESS_KINDS);
    assert_int_equal(compress_find(slice_str("")), COMPRESS_KINDS);
}

#define IN_SCENE(test) cmocka_unit_test_setup_teardown(test, scene_open, scene_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_SCENE(bytes_of_pythons_libraries_unpack),
        IN_SCENE(cut_or_longer_bytes_are_damage),
        IN_SCENE(a_flipped_bit_never_gives_more_than_the_bound),
        IN_SCENE(everything_comes_back),
        IN_SCENE(levels_change_the_size_and_nothing_else),
        IN_SCENE(packing_that_does_not_fit_writes_nothing),
        IN_SCENE(a_bomb_takes_its_bound_and_no_more),
        IN_SCENE(levels_have_their_price),
        IN_SCENE(claims_are_not_believed),
        IN_SCENE(lz4_is_what_java_reads),
        IN_SCENE(joined_snappy_streams_are_one),
        IN_SCENE(a_codec_without_memory_says_so_and_works_later),
        cmocka_unit_test(names_are_kafkas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
