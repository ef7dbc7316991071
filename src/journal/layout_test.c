/* The bytes of the format. The golden bytes were computed by a program of its own from docs/formats/journal.md alone: when
 * this test fails, either the format changed (then the version must) or the text is wrong.
 */
#include "journal/layout.h"

#include "base/mem.h"
#include "journal/journal.h"
#include "os/os_sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const char *const golden_super_a =
    "4d52534200010000000102030405060708090a0b0c0d0e0f0000000000000002000000010000000000000000"
    "0000000100000000000000010000000000000000000000000000000000000000000000000000018bcfe56800"
    "00000000000000000000000000000000";
static const char *const golden_super_b =
    "4d52534200010001000102030405060708090a0b0c0d0e0f0000000000000003000000010000000000000000"
    "0000000100000000000000010000000000000002000000000000000100000000000030000000018bcfe56800"
    "00000000000000000000000000000000";
static const char *const golden_file =
    "4d52574600010000000102030405060708090a0b0c0d0e0f0000000000000001000000010000000000000000"
    "0000000100000000000000000000018bcfe5680000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000000";
static const char *const golden_group =
    "4d524750000100000000000000000001000000150000000200000000000000000000018bcfe56800"
    "00000001d42828f6ebeecfe60000000000000001cb8510f3000000050000000068656c6c6f0000000000000000"
    "000000000000000000000000000000000000";
static const char *const golden_note =
    "4d524750000100010000000000000003000000000000000000000000000000020000018bcfe56800"
    "00000001cb8510f3ec2e2c66000000000000000148ef5525000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000000";

static void fixed_random(struct os *os, void *ret, size_t len)
{
    (void)os;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)ret)[i] = (uint8_t)i;
}

/* The first bytes and the last 4 of a block; what is between is zero. */
static void check_block(struct slice file, size_t block, const char *hex, uint32_t end)
{
    const uint8_t *at = file.ptr + block * LAYOUT_BLOCK;
    assert_true(file.len >= (block + 1) * LAYOUT_BLOCK);
    size_t given = strlen(hex) / 2;
    for (size_t i = 0; i < given; i++) {
        char text[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        assert_int_equal(at[i], strtoul(text, NULL, 16));
    }
    for (size_t i = given; i < LAYOUT_BLOCK - 4; i++)
        assert_int_equal(at[i], 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(at[LAYOUT_BLOCK - 4 + i], (uint8_t)(end >> (24 - 8 * i)));
}

static void golden(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(1);
    struct os *os = os_sim_os(sim);
    os->random = fixed_random;
    os_sim_clock_set(sim, 5 * NS_PER_S, 1700000000000);
    struct journal_options options = {.os = os, .dir = "d", .file_bytes = 64 * 1024};
    struct journal *journal;
    char why[256];
    struct slice hello = slice_str("hello");
    assert_int_equal(journal_open(&options, &journal, why, sizeof why), 0);
    assert_true(journal_reserve(journal, 5, 2));
    assert_int_equal(journal_append(journal, &hello, 1), 1);
    assert_int_equal(journal_append(journal, NULL, 0), 2);
    journal_kick(journal);
    while (journal_step(journal) > 0)
        continue;
    os_sim_clock_set(sim, 7 * NS_PER_S, 1700000000000);
    while (journal_step(journal) > 0)
        continue;
    assert_int_equal(journal_stop(journal), 0);
    journal_close(&journal);
    check_block(os_sim_peek(sim, "d/superblock.a"), 0, golden_super_a, 0x5f3b0879);
    check_block(os_sim_peek(sim, "d/superblock.b"), 0, golden_super_b, 0xa04f9154);
    struct slice file = os_sim_peek(sim, "d/wal/w-0000000000000001");
    check_block(file, 0, golden_file, 0xd42828f6);
    check_block(file, 1, golden_group, 0);
    check_block(file, 2, golden_note, 0);
    assert_int_equal(layout_crc(0, file.ptr, 3 * LAYOUT_BLOCK), 0x1f396b26);
    os_sim_free(&sim);
}

static void crc_of_rfc_3720(void **state)
{
    (void)state;
    assert_int_equal(layout_crc(0, "123456789", 9), 0xe3069283);
    assert_int_equal(layout_crc(layout_crc(0, "1234", 4), "56789", 5), 0xe3069283);
    uint8_t zeros[32] = {0};
    assert_int_equal(layout_crc(0, zeros, sizeof zeros), 0x8a9136aa);
}

static const uint8_t uuid[LAYOUT_UUID_LEN] = {1, 2, 3};

/* A group with the given records' lengths in place, in a buffer of its own length. */
static uint8_t *make_group(struct layout_group *group, uint32_t records, uint32_t each)
{
    *group = (struct layout_group){.lsn = 10,
                                   .nrec = records,
                                   .durable = 9,
                                   .epoch = 3,
                                   .chain = 7,
                                   .seq = 4,
                                   .len = records * (LAYOUT_RECORD_HEADER + each),
                                   .note = records == 0};
    uint8_t *bytes = mem_aligned(LAYOUT_BLOCK, layout_group_bytes(group->len));
    memset(bytes, 0, layout_group_bytes(group->len));
    for (uint32_t i = 0; i < records; i++)
        layout_record_put(bytes + LAYOUT_GROUP_HEADER + i * (LAYOUT_RECORD_HEADER + each), each);
    layout_group_put(bytes, uuid, group);
    return bytes;
}

static void groups_come_back(void **state)
{
    (void)state;
    static const uint32_t shapes[][2] = {{0, 0}, {1, 0}, {1, 100}, {7, 1000}, {500, 1}, {2, 500000}};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct layout_group group, back;
        uint8_t *bytes = make_group(&group, shapes[i][0], shapes[i][1]);
        assert_int_equal(layout_group_get(bytes, uuid, &back), LAYOUT_GOOD);
        assert_true(back.lsn == 10 && back.durable == 9 && back.epoch == 3 && back.chain == 7 && back.seq == 4);
        assert_true(back.len == group.len && back.nrec == group.nrec && back.note == group.note &&
                    back.crc == group.crc);
        assert_true(layout_body_check(bytes, uuid, &back));
        struct slice body = slice_of(bytes + LAYOUT_GROUP_HEADER, back.len), record;
        uint32_t count = 0;
        while (layout_record_next(&body, &record)) {
            assert_int_equal(record.len, shapes[i][1]);
            count++;
        }
        assert_int_equal(count, shapes[i][0]);
        mem_free(bytes);
    }
}

static void every_flip_of_a_group_is_seen(void **state)
{
    (void)state;
    struct layout_group group, back;
    uint8_t *bytes = make_group(&group, 3, 200);
    for (size_t bit = 0; bit < 8 * LAYOUT_BLOCK; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        bool good = layout_group_get(bytes, uuid, &back) == LAYOUT_GOOD && layout_body_check(bytes, uuid, &back);
        if (good)
            fail_msg("bit %zu", bit);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    mem_free(bytes);
}

/* The seed: a body under another file's or claim's header, or another journal's, does not validate. */
static void seeds_differ(void **state)
{
    (void)state;
    struct layout_group group, back;
    uint8_t other_uuid[LAYOUT_UUID_LEN] = {1, 2, 4};
    uint8_t *bytes = make_group(&group, 1, 50);
    assert_int_equal(layout_group_get(bytes, other_uuid, &back), LAYOUT_DAMAGED);
    assert_true(layout_body_check(bytes, uuid, &group));
    struct layout_group moved = group;
    moved.seq++;
    assert_false(layout_body_check(bytes, uuid, &moved));
    moved = group;
    moved.epoch++;
    assert_false(layout_body_check(bytes, uuid, &moved));
    mem_free(bytes);
}

/* Lengths that lie under a correct checksum: refused, nothing read outside the body. */
static void lying_lengths(void **state)
{
    (void)state;
    static const uint32_t lies[] = {51, 49, 0, 42, 0x7fffffff, 0xffffffff, JOURNAL_RECORD_BYTES_MAX + 1};
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
        struct layout_group group, back;
        uint8_t *bytes = make_group(&group, 1, 50);
        layout_record_put(bytes + LAYOUT_GROUP_HEADER, lies[i]);
        layout_group_put(bytes, uuid, &group);
        assert_int_equal(layout_group_get(bytes, uuid, &back), LAYOUT_GOOD);
        assert_false(layout_body_check(bytes, uuid, &back));
        mem_free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),           cmocka_unit_test(crc_of_rfc_3720),
        cmocka_unit_test(groups_come_back), cmocka_unit_test(every_flip_of_a_group_is_seen),
        cmocka_unit_test(seeds_differ),     cmocka_unit_test(lying_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
