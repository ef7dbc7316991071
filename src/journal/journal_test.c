/* The journal as its users see it: what was appended comes back, after a stop, a kill, a power cut; damage is refused by
 * name. On the simulated disk, but for the thread, the lock between processes and direct I/O, which need the real one.
 */
#include "journal/journal.h"

#include "base/mem.h"
#include "journal/inspect.h"
#include "journal/journal_test_rig.h"
#include "journal/layout.h"
#include "os/os_sim.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SMALL_FILE (64u * 1024)
#define SMALL_GROUP (16u * 1024)

/* ---------------------------------------------------------------------------------------------------------------- rig */

static struct rig *rig_new(struct os *os, const char *dir)
{
    struct rig *rig = calloc(1, sizeof *rig);
    rig->os = os;
    rig->len_max = 300;
    rig->start = 1;
    rig->options = (struct journal_options){.os = os,
                                            .dir = dir,
                                            .file_bytes = SMALL_FILE,
                                            .group_bytes_max = SMALL_GROUP,
                                            .direct_io = JOURNAL_DIRECT_AUTO};
    return rig;
}

static void rig_free(struct rig *rig)
{
    journal_close(&rig->journal);
    free(rig);
}

static int rig_open(struct rig *rig)
{
    rig->why[0] = '\0';
    return journal_open(&rig->options, &rig->journal, rig->why, sizeof rig->why);
}

static void rig_must_open(struct rig *rig)
{
    int err = rig_open(rig);
    if (err)
        fail_msg("open: %s", rig->why);
    assert_true(journal_claim(rig->journal) > rig->claim);
    rig->claim = journal_claim(rig->journal);
}

/* Reads everything and compares; returns the last lsn there is. */
static lsn_t rig_read(struct rig *rig)
{
    struct journal_stats stats;
    journal_stats(rig->journal, &stats);
    rig->read_next = stats.start;
    int r = journal_read(rig->journal, rig_each, rig, rig->why, sizeof rig->why);
    if (r)
        fail_msg("read: %d at lsn %lu: %s", r, (unsigned long)rig->read_next, rig->why);
    assert_int_equal(rig->read_next - 1, journal_appended(rig->journal));
    assert_int_equal(rig->read_next - 1, journal_durable(rig->journal));
    return rig->read_next - 1;
}

/* Within a tick: no kick. */
static void rig_append_open(struct rig *rig, unsigned count)
{
    static uint8_t bytes[JOURNAL_RECORD_BYTES_MAX];
    for (unsigned i = 0; i < count; i++) {
        lsn_t lsn = rig->appended + 1;
        assert_true(lsn < RIG_LSN_MAX);
        rig->salt[lsn] = (uint32_t)rig_draw(rig);
        size_t len = rig_record(rig, lsn, bytes);
        assert_true(journal_reserve(rig->journal, len, 1));
        struct slice parts[2] = {slice_of(bytes, len / 3), slice_of(bytes + len / 3, len - len / 3)};
        assert_int_equal(journal_append(rig->journal, parts, 2), lsn);
        rig->appended = lsn;
    }
}

static void rig_append(struct rig *rig, unsigned count)
{
    rig_append_open(rig, count);
    journal_kick(rig->journal);
}

static int rig_steps(struct rig *rig)
{
    int r;
    while ((r = journal_step(rig->journal)) > 0)
        continue;
    rig->durable = journal_durable(rig->journal);
    return r;
}

/* As rig_append, one by one, so that each is a group of its own. */
static void rig_append_groups(struct rig *rig, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        rig_append(rig, 1);
        assert_int_equal(journal_step(rig->journal), 1);
    }
    rig->durable = journal_durable(rig->journal);
    assert_int_equal(rig->durable, rig->appended);
}

static void rig_close(struct rig *rig)
{
    assert_int_equal(journal_stop(rig->journal), 0);
    journal_close(&rig->journal);
}

/* The process dies: nothing is flushed or closed by us. */
static void rig_kill(struct rig *rig, struct os_sim *sim)
{
    os_sim_stop(sim); /* so that freeing the journal cannot write */
    journal_close(&rig->journal);
    os_sim_kill(sim);
}

static const char *wal_file(uint64_t seq)
{
    static char path[64];
    snprintf(path, sizeof path, "d/wal/w-%016lx", (unsigned long)seq);
    return path;
}

/* -------------------------------------------------------------------------------------------------------------- tests */

static void round_trip(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(1);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    rig_must_open(rig);
    assert_int_equal(rig_read(rig), 0);
    rig_append(rig, 7);
    assert_int_equal(journal_durable(rig->journal), 0);
    assert_int_equal(rig_steps(rig), 0);
    assert_int_equal(rig->durable, 7);
    rig_append(rig, 500); /* several groups */
    rig_steps(rig);
    assert_int_equal(rig->durable, 507);
    rig_close(rig);
    for (int i = 0; i < 3; i++) {
        rig_must_open(rig);
        assert_int_equal(rig_read(rig), rig->appended);
        rig_append(rig, 3);
        rig_close(rig);
    }
    rig_free(rig);
    os_sim_free(&sim);
}

static void rolls_trims_and_recycles(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(2);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    struct journal_stats stats;
    rig_must_open(rig);
    rig_append_groups(rig, 100); /* 15 groups to a file */
    journal_stats(rig->journal, &stats);
    assert_in_range(stats.files, 6, 8);
    assert_true(journal_live_bytes(rig->journal) >= 100 * 4096);
    journal_trim(rig->journal, 90);
    rig_steps(rig);
    journal_stats(rig->journal, &stats);
    assert_int_equal(stats.start, 90);
    assert_in_range(stats.files, 1, 2);
    assert_true(stats.files_pool >= 2);
    assert_true(journal_live_bytes(rig->journal) <= 2 * SMALL_FILE);
    for (int round = 0; round < 20; round++) {
        rig_append_groups(rig, 50);
        journal_trim(rig->journal, rig->appended - 5);
        rig_steps(rig);
    }
    journal_stats(rig->journal, &stats);
    assert_in_range(stats.files, 1, 2);
    rig_close(rig);
    rig_must_open(rig);
    assert_int_equal(rig_read(rig), rig->appended);
    journal_stats(rig->journal, &stats);
    assert_int_equal(stats.start, rig->appended - 5);
    rig_free(rig);
    os_sim_free(&sim);
}

/* While somebody copies them files that are trimmed stay as they are; afterwards they go. */
static void held_files_stay(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(3);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    struct journal_stats stats;
    uint8_t first[SMALL_FILE];
    rig_must_open(rig);
    rig_append_groups(rig, 100);
    journal_hold(rig->journal, true);
    journal_hold(rig->journal, true);
    assert_false(journal_held(rig->journal));
    rig_steps(rig);
    assert_true(journal_held(rig->journal));
    size_t len = os_sim_peek(sim, wal_file(1)).len;
    assert_in_range(len, 2 * 4096, sizeof first);
    memcpy(first, os_sim_peek(sim, wal_file(1)).ptr, len);
    for (int round = 0; round < 5; round++) {
        journal_trim(rig->journal, rig->appended - 5);
        rig_steps(rig);
        rig_append_groups(rig, 50);
    }
    journal_stats(rig->journal, &stats);
    assert_true(stats.start > 200); /* it goes on as ever */
    assert_true(journal_live_bytes(rig->journal) <= 6 * SMALL_FILE);
    for (uint64_t seq = 1; seq <= 15; seq++)
        assert_int_not_equal(os_sim_peek(sim, wal_file(seq)).len, 0);
    assert_memory_equal(os_sim_peek(sim, wal_file(1)).ptr, first, len);
    journal_hold(rig->journal, false);
    rig_steps(rig);
    assert_int_not_equal(os_sim_peek(sim, wal_file(1)).len, 0); /* the other one still holds */
    journal_hold(rig->journal, false);
    rig_steps(rig);
    assert_false(journal_held(rig->journal));
    for (uint64_t seq = 1; seq <= 15; seq++)
        assert_int_equal(os_sim_peek(sim, wal_file(seq)).len, 0);
    rig_close(rig);
    rig_must_open(rig);
    assert_int_equal(rig_read(rig), rig->appended);
    rig_free(rig);
    os_sim_free(&sim);
}

/* Where a fresh beginning was asked for a new file begins with just that record, also when others of the same tick wait in
 * front of it; a file that is hardly begun is kept. */
static void fresh_beginnings(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(7);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    struct journal_stats stats;
    rig_must_open(rig);
    journal_fresh(rig->journal); /* an empty file */
    rig_append_groups(rig, 5);
    journal_stats(rig->journal, &stats);
    assert_int_equal(stats.files, 1);
    rig_append_open(rig, 3);
    journal_fresh(rig->journal);
    lsn_t first = rig->appended + 1;
    rig_append(rig, 3);
    rig_steps(rig);
    journal_stats(rig->journal, &stats);
    assert_int_equal(stats.files, 2);
    assert_int_equal(journal_durable(rig->journal), rig->appended);
    journal_trim(rig->journal, first);
    rig_steps(rig);
    journal_stats(rig->journal, &stats);
    assert_int_equal(stats.files, 1);
    assert_int_equal(stats.start, first);
    rig_append(rig, 2);
    journal_kick(rig->journal); /* staged, and not taken yet */
    journal_fresh(rig->journal);
    rig_append(rig, 2);
    rig_steps(rig);
    rig_close(rig);
    rig_must_open(rig);
    assert_int_equal(rig_read(rig), rig->appended);
    rig_free(rig);
    os_sim_free(&sim);
}

static void large_records_and_reservations(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(3);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    uint8_t *big = calloc(1, JOURNAL_RECORD_BYTES_MAX);
    struct slice part = slice_of(big, JOURNAL_RECORD_BYTES_MAX), tiny = slice_of(big, 1);
    for (unsigned small = 0; small < 2; small++) {
        rig->options.dir = small ? "small" : "large";
        rig->options.file_bytes = small ? SMALL_FILE : 0;
        rig->options.group_bytes_max = small ? SMALL_GROUP : 0;
        rig->options.staged_bytes_max = 4 << 20;
        rig_must_open(rig);
        assert_true(journal_reserve(rig->journal, 16u << 20, 32));
        for (int i = 0; i < 32; i++) /* the worst split: a small one in front */
            journal_append(rig->journal, i % 2 ? &part : &tiny, 1);
        assert_false(journal_room(rig->journal));
        journal_kick(rig->journal);
        rig_steps(rig);
        assert_int_equal(rig->durable, 32);
        assert_true(journal_room(rig->journal));
        rig_close(rig);
        rig_must_open(rig);
        assert_int_equal(journal_durable(rig->journal), 32);
        rig_close(rig);
        rig->claim = 0;
    }
    free(big);
    rig_free(rig);
    os_sim_free(&sim);
}

/* One reservation, one group: after any power cut all of it or nothing. */
static void a_reservation_is_one_group(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(4);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    rig_must_open(rig);
    uint8_t bytes[600] = {0};
    struct slice part = slice_of(bytes, sizeof bytes);
    struct journal_stats before, after;
    for (int round = 0; round < 30; round++) {
        rig_append(rig, (unsigned)(rig_draw(rig) % 40));
        journal_stats(rig->journal, &before);
        rig_steps(rig);
        assert_true(journal_reserve(rig->journal, 20 * sizeof bytes, 20));
        for (int i = 0; i < 20; i++) {
            journal_append(rig->journal, &part, 1);
            rig->appended++;
        }
        journal_stats(rig->journal, &before);
        journal_kick(rig->journal);
        rig_steps(rig);
        journal_stats(rig->journal, &after);
        assert_int_equal(after.groups - before.groups, 1);
    }
    rig_free(rig);
    os_sim_free(&sim);
}

static void a_note_closes_the_blind_spot(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(5);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    rig_must_open(rig);
    rig_append_groups(rig, 3); /* blocks 1, 2, 3 */
    struct os_sim *copy = os_sim_clone(sim);
    assert_true(os_sim_flip(copy, wal_file(1), 3 * 4096 + 100, 1));
    struct rig *other = rig_new(os_sim_os(copy), "d");
    assert_int_equal(rig_open(other), 0); /* the blind spot, as documented */
    assert_int_equal(journal_durable(other->journal), 2);
    rig_free(other);
    os_sim_free(&copy);

    rig_steps(rig);
    uint64_t writes = os_sim_count(sim, OS_SIM_PWRITE);
    os_sim_clock_advance(sim, NS_PER_S + 1);
    rig_steps(rig);
    assert_int_equal(os_sim_count(sim, OS_SIM_PWRITE), writes + 1); /* one write, once */
    os_sim_clock_advance(sim, 100 * NS_PER_S);
    rig_steps(rig);
    assert_int_equal(os_sim_count(sim, OS_SIM_PWRITE), writes + 1);
    assert_true(os_sim_flip(sim, wal_file(1), 3 * 4096 + 100, 1));
    rig_kill(rig, sim);
    os_sim_crash(sim, 0);
    assert_int_equal(rig_open(rig), -EILSEQ);
    assert_non_null(strstr(rig->why, "w-0000000000000001 is damaged at offset 12288"));
    assert_non_null(strstr(rig->why, "lsns 3 to 3 are lost"));
    rig_free(rig);
    os_sim_free(&sim);
}

/* Every byte of every header and a sample of the payload and padding: none is served changed; below a durable claim the
 * start is refused. */
static void flipped_bits_are_found(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(6);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    rig_must_open(rig);
    rig_append_groups(rig, 20); /* into file 2 */
    rig_close(rig);
    unsigned refused = 0, flips = 0;
    for (uint64_t seq = 1; seq <= 2; seq++) {
        uint64_t blocks = seq == 1 ? 16 : 20 - 15 + 1;
        for (uint64_t block = 0; block < blocks; block++)
            for (uint64_t at = 0; at < 4096; at += at < 72 ? 1 : 61) {
                struct os_sim *copy = os_sim_clone(sim);
                struct rig *other = rig_new(os_sim_os(copy), "d");
                assert_true(os_sim_flip(copy, wal_file(seq), block * 4096 + at, (uint8_t)(1u << (at % 8))));
                int err = rig_open(other);
                flips++;
                refused += err == -EILSEQ;
                if (err != -EILSEQ)
                    fail_msg("flip in file %lu block %lu byte %lu: %d", (unsigned long)seq, (unsigned long)block,
                             (unsigned long)at, err);
                rig_free(other);
                os_sim_free(&copy);
            }
    }
    assert_int_equal(refused, flips);
    rig_free(rig);
    os_sim_free(&sim);
}

static void superblocks_stand_in_for_each_other(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(7);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    rig_must_open(rig);
    rig_append_groups(rig, 5);
    rig_close(rig);
    rig_must_open(rig);
    rig_append_groups(rig, 5);
    rig_close(rig);
    for (uint64_t at = 0; at < 4096; at += at < 100 ? 1 : 333)
        for (unsigned i = 0; i < 3; i++) {
            struct os_sim *copy = os_sim_clone(sim);
            struct rig *other = rig_new(os_sim_os(copy), "d");
            memcpy(other->salt, rig->salt, sizeof rig->salt);
            other->appended = rig->appended;
            if (i != 1)
                assert_true(os_sim_flip(copy, "d/superblock.a", at, 0x40));
            if (i != 0)
                assert_true(os_sim_flip(copy, "d/superblock.b", at, 0x40));
            int err = rig_open(other);
            if (i == 2) {
                assert_int_equal(err, -EILSEQ);
                assert_non_null(strstr(other->why, "both superblocks"));
            } else {
                assert_int_equal(err, 0);
                assert_int_equal(rig_read(other), 10);
                assert_true(journal_claim(other->journal) > rig->claim);
            }
            rig_free(other);
            os_sim_free(&copy);
        }
    rig_free(rig);
    os_sim_free(&sim);
}

static void foreign_and_newer_folders_are_refused(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(8);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    assert_int_equal(rig->os->mkdir(rig->os, "d"), 0);
    os_sim_put(sim, "d/thesis.tex", slice_str("precious"));
    uint64_t ops = os_sim_ops(sim);
    assert_int_equal(rig_open(rig), -EPROTO);
    assert_non_null(strstr(rig->why, "not a data folder"));
    assert_int_equal(os_sim_ops(sim), ops); /* touched nothing */
    os_sim_remove(sim, "d/thesis.tex");
    rig_must_open(rig);
    rig_close(rig);
    uint8_t block[LAYOUT_BLOCK];
    memcpy(block, os_sim_peek(sim, "d/superblock.a").ptr, sizeof block);
    block[5] = 2; /* version */
    uint32_t crc = htobe32(layout_crc(0, block, sizeof block - 4));
    memcpy(block + sizeof block - 4, &crc, 4);
    os_sim_put(sim, "d/superblock.a", slice_of(block, sizeof block));
    assert_int_equal(rig_open(rig), -EPROTO);
    assert_non_null(strstr(rig->why, "newer version"));
    rig_free(rig);
    os_sim_free(&sim);
}

static void settings_out_of_bounds(void **state)
{
    (void)state;
    static const struct {
        uint64_t file;
        size_t group;
    } rows[] = {{4096, 0}, {12345, 0}, {2ull << 30, 0}, {0, 100}, {0, 5 << 20}};
    struct os_sim *sim = os_sim_new(8);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        rig->options.file_bytes = rows[i].file;
        rig->options.group_bytes_max = rows[i].group;
        assert_int_equal(rig_open(rig), -EINVAL);
        assert_non_null(strstr(rig->why, "must be"));
    }
    assert_int_equal(os_sim_ops(sim), 0);
    rig_free(rig);
    os_sim_free(&sim);
}

static void a_missing_file_is_damage(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(9);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    rig_must_open(rig);
    rig_append_groups(rig, 60);
    rig_kill(rig, sim);
    os_sim_crash(sim, 1);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        struct os_sim *copy = os_sim_clone(sim);
        struct rig *other = rig_new(os_sim_os(copy), "d");
        os_sim_remove(copy, wal_file(seq));
        assert_int_equal(rig_open(other), -EILSEQ);
        rig_free(other);
        os_sim_free(&copy);
    }
    rig_free(rig);
    os_sim_free(&sim);
}

/* A file of another journal under the right name, and an older copy of the same file, are not taken for ours. */
static void stale_bytes_never_validate(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(10), *strange = os_sim_new(11);
    struct rig *rig = rig_new(os_sim_os(sim), "d"), *other = rig_new(os_sim_os(strange), "d");
    rig_must_open(other);
    rig_append_groups(other, 10);
    rig_must_open(rig);
    rig_append_groups(rig, 5);
    struct slice mine = os_sim_peek(sim, wal_file(1)), theirs = os_sim_peek(strange, wal_file(1));
    assert_int_equal(mine.len, 6 * 4096);
    assert_int_equal(theirs.len, 11 * 4096);
    uint8_t *mixed = malloc(theirs.len);
    memcpy(mixed, mine.ptr, mine.len);
    memcpy(mixed + 6 * 4096, theirs.ptr + 6 * 4096, 5 * 4096); /* their groups 6 to 10 behind our 5 */
    size_t len = theirs.len;
    rig_kill(rig, sim);
    os_sim_put(sim, wal_file(1), slice_of(mixed, len));
    os_sim_crash(sim, 1);
    rig_must_open(rig);
    assert_int_equal(rig_read(rig), 5);
    struct journal_stats stats;
    journal_stats(rig->journal, &stats);
    assert_int_equal(stats.tail_zeroed_bytes, 5 * 4096);
    for (size_t at = 6 * 4096; at < os_sim_peek(sim, wal_file(1)).len; at++)
        assert_int_equal(os_sim_peek(sim, wal_file(1)).ptr[at], 0);
    free(mixed);
    rig_free(rig);
    rig_free(other);
    os_sim_free(&sim);
    os_sim_free(&strange);
}

/* Two histories of the same journal that part after group 3: group 5 of one does not go on from group 4 of the other. */
static void histories_do_not_mix(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(21);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    rig_must_open(rig);
    rig_append_groups(rig, 2);
    rig_kill(rig, sim);
    struct os_sim *twin = os_sim_clone(sim);
    struct rig *other = rig_new(os_sim_os(twin), "d");
    memcpy(other->salt, rig->salt, sizeof rig->salt);
    other->appended = rig->appended;
    other->dice = 77;
    rig_must_open(rig);
    rig_must_open(other);
    rig_append_groups(rig, 1);
    rig_append_groups(other, 2); /* its group 4 continues its own group 3 only */
    rig_kill(rig, sim);
    struct slice mine = os_sim_peek(sim, wal_file(1)), theirs = os_sim_peek(twin, wal_file(1));
    uint8_t *mixed = calloc(1, theirs.len);
    size_t len = theirs.len;
    memcpy(mixed, mine.ptr, 4 * 4096);
    memcpy(mixed + 4 * 4096, theirs.ptr + 4 * 4096, 4096);
    uint64_t durable_claim = 3; /* group 4 says so, and it is true: nothing durable is missing */
    os_sim_put(sim, wal_file(1), slice_of(mixed, len));
    free(mixed);
    rig_must_open(rig);
    assert_int_equal(rig_read(rig), durable_claim);
    rig_free(other);
    rig_free(rig);
    os_sim_free(&twin);
    os_sim_free(&sim);
}

/* As long as the disk has room, the spare that is kept back stays there. */
static void a_spare_is_kept_back(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(22);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    struct journal_stats stats;
    rig_must_open(rig);
    rig_append_groups(rig, 1);
    rig_steps(rig);
    rig_append_groups(rig, 100); /* without an idle moment: nothing is made ahead */
    journal_stats(rig->journal, &stats);
    assert_int_equal(stats.files_pool, 1);
    rig_free(rig);
    os_sim_free(&sim);
}

static void the_end_of_the_disk(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(12);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    struct journal_stats stats;
    rig_must_open(rig);
    rig_append_groups(rig, 2);
    rig_steps(rig); /* the current file is filled, one is prepared, one kept back */
    journal_stats(rig->journal, &stats);
    assert_int_equal(stats.files_pool, 2);
    os_sim_capacity(sim, 3 * SMALL_FILE + 3 * 4096 + 1000);
    assert_true(journal_capacity(rig->journal, true) == UINT64_MAX); /* as far as is known */
    journal_scarce(rig->journal, true, 1000);
    uint64_t capacity = journal_capacity(rig->journal, false);
    assert_in_range(capacity, 2 * SMALL_FILE + 1000, 3 * SMALL_FILE);
    assert_true(journal_capacity(rig->journal, true) ==
                2 * SMALL_FILE + 1000); /* what is left of the current file would go */
    journal_scarce(rig->journal, false, 0);
    unsigned groups = 0;
    int r = 1;
    for (; groups < 100 && r > 0; groups++) {
        rig_append(rig, 1);
        while ((r = journal_step(rig->journal)) > 0 && journal_durable(rig->journal) < rig->appended)
            continue;
    }
    assert_int_equal(r, 0);
    assert_int_equal(journal_failure(rig->journal), 0);
    assert_in_range(groups, 40, 46); /* all of three files were used */
    lsn_t durable = journal_durable(rig->journal);
    assert_int_equal(durable, rig->appended - 1);
    assert_int_equal(journal_ready(rig->journal), 0);
    rig_append(rig, 1); /* it waits, with the one before it */
    os_sim_clock_advance(sim, NS_PER_S);
    rig_steps(rig);
    assert_int_equal(journal_durable(rig->journal), durable);
    os_sim_capacity(sim, 4 * SMALL_FILE + 3 * 4096);
    os_sim_clock_advance(sim, NS_PER_S / 20);     /* not asked again at once */
    assert_true(journal_step(rig->journal) >= 0); /* makes files ahead, if anything */
    assert_int_equal(journal_durable(rig->journal), durable);
    os_sim_clock_advance(sim, NS_PER_S / 10);
    rig_steps(rig);
    assert_int_equal(journal_durable(rig->journal), rig->appended);
    os_sim_capacity(sim, 3 * SMALL_FILE);
    for (r = 1, groups = 0; groups < 100 && r > 0; groups++) {
        rig_append(rig, 1);
        while ((r = journal_step(rig->journal)) > 0 && journal_durable(rig->journal) < rig->appended)
            continue;
    }
    durable = journal_durable(rig->journal);
    assert_int_equal(journal_stop(rig->journal), -ENOSPC); /* no longer than that: what waits was never acknowledged */
    assert_non_null(strstr(journal_failure_text(rig->journal), "No space"));
    rig_append(rig, 1); /* forgotten, but not an error */
    assert_int_equal(journal_step(rig->journal), -ENOSPC);
    assert_int_equal(journal_durable(rig->journal), durable);
    journal_close(&rig->journal);
    os_sim_capacity(sim, 0);
    rig->appended = durable;
    rig_must_open(rig);
    assert_int_equal(rig_read(rig), durable);
    rig_append_groups(rig, 3);
    rig_free(rig);
    os_sim_free(&sim);
}

/* The disk fills while the current file still grows: the group that did not fit goes to the spare, nothing is lost. */
static void a_full_disk_in_a_growing_file(void **state)
{
    (void)state;
    for (uint64_t room = 0; room < 12; room++) {
        struct os_sim *sim = os_sim_new(13);
        struct rig *rig = rig_new(os_sim_os(sim), "d");
        rig_must_open(rig);
        rig_append_groups(rig, 1);
        rig_steps(rig);
        rig_append_groups(rig, 35); /* prepared and spare are used up, the current one grows */
        rig_steps(rig);
        rig_append_groups(rig, 34);
        uint64_t used, total;
        os_sim_capacity(sim, 1 << 30);
        rig->os->space(rig->os, "d", &used, &total);
        used = total - used;
        os_sim_capacity(sim, used + room * 2048);
        unsigned done = 0;
        while (!journal_failure(rig->journal) && done < 100) {
            rig_append(rig, 1);
            if (journal_step(rig->journal) < 0)
                break;
            done++;
        }
        lsn_t durable = journal_durable(rig->journal);
        assert_true(durable >= 70);
        rig_kill(rig, sim);
        os_sim_capacity(sim, 0);
        os_sim_crash(sim, room);
        rig_must_open(rig);
        lsn_t last = rig_read(rig);
        assert_true(last >= durable && last <= rig->appended);
        rig_free(rig);
        os_sim_free(&sim);
    }
}

static void a_failed_sync_is_final(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(14);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    rig_must_open(rig);
    rig_append_groups(rig, 4);
    os_sim_fail(sim, 1u << OS_SIM_FDATASYNC, 1, EIO, false); /* once only: the next would succeed and lie */
    rig_append(rig, 1);
    assert_int_equal(journal_step(rig->journal), -EIO);
    assert_int_equal(journal_durable(rig->journal), 4);
    uint64_t writes = os_sim_count(sim, OS_SIM_PWRITE), syncs = os_sim_count(sim, OS_SIM_FDATASYNC);
    for (int i = 0; i < 5; i++) {
        rig_append(rig, 10);
        assert_int_equal(journal_step(rig->journal), -EIO);
    }
    assert_true(journal_room(rig->journal));
    assert_int_equal(journal_stop(rig->journal), -EIO);
    journal_close(&rig->journal);
    assert_int_equal(os_sim_count(sim, OS_SIM_PWRITE), writes);
    assert_int_equal(os_sim_count(sim, OS_SIM_FDATASYNC), syncs);
    rig_free(rig);
    os_sim_free(&sim);
}

/* Fails the n-th call of each kind, for every n until none is left to fail, once and for ever: the journal either works or
 * stops with the error, and what it called durable is there afterwards. */
static void the_nth_call_fails(void **state)
{
    (void)state;
    static const int errors[] = {EIO, ENOSPC, EMFILE};
    unsigned stops = 0, survived = 0;
    for (unsigned op = 0; op < OS_SIM_OP_COUNT; op++)
        for (unsigned e = 0; e < ARRAY_LEN(errors) * 2; e++) {
            bool hit = true;
            for (uint64_t n = 1; hit; n++) {
                struct os_sim *sim = os_sim_new(15);
                struct rig *rig = rig_new(os_sim_os(sim), "d");
                os_sim_fail(sim, 1u << op, n, errors[e / 2], e % 2);
                int err = 0;
                for (int run = 0; run < 2 && !err; run++) {
                    err = rig_open(rig);
                    assert_true(!err || rig->why[0]);
                    for (int i = 0; i < 40 && !err; i++) {
                        rig_append(rig, 1);
                        err = journal_step(rig->journal);
                        err = err > 0 ? 0 : err;
                        if (!err && i % 10 == 9) {
                            journal_trim(rig->journal, journal_durable(rig->journal));
                            err = rig_steps(rig);
                            os_sim_clock_advance(sim, 2 * NS_PER_S);
                        }
                        if (rig->durable < journal_durable(rig->journal))
                            rig->durable = journal_durable(rig->journal);
                    }
                    if (!rig->journal)
                        break;
                    assert_int_equal(err, journal_failure(rig->journal));
                    err = journal_stop(rig->journal); /* what waits for room is given up here */
                    rig->durable = journal_durable(rig->journal);
                    journal_close(&rig->journal);
                }
                hit = os_sim_failures_hit(sim) > 0;
                stops += err != 0;
                survived += hit && err == 0;
                os_sim_fail(sim, 0, 0, 0, false);
                os_sim_crash(sim, n);
                int again = rig_open(rig);
                if (again)
                    fail_msg("op %u error %d n %lu: %s", op, errors[e / 2], (unsigned long)n, rig->why);
                lsn_t last = rig_read(rig);
                assert_true(last >= rig->durable && last <= rig->appended);
                rig_free(rig);
                os_sim_free(&sim);
            }
        }
    assert_true(stops > 50 && survived > 20);
}

static void the_nth_allocation_fails(void **state)
{
    (void)state;
    unsigned refused = 0;
    for (uint64_t n = 1;; n++) {
        struct os_sim *sim = os_sim_new(16);
        struct rig *rig = rig_new(os_sim_os(sim), "d");
        size_t before = mem_in_use();
        uint8_t bytes[2000] = {0};
        struct slice part = slice_of(bytes, sizeof bytes);
        mem_fail_at(n, false);
        int err = rig_open(rig);
        for (int i = 0; i < 60 && !err; i++) {
            if (journal_reserve(rig->journal, 10 * sizeof bytes, 10)) {
                if (i % 8 == 0 && !journal_reserve(rig->journal, 1000 * sizeof bytes, 1000))
                    refused++; /* and the first still holds */
                for (int j = 0; j < 10; j++)
                    journal_append(rig->journal, &part, 1);
            }
            journal_kick(rig->journal);
            err = journal_step(rig->journal);
            err = err > 0 ? 0 : err;
            if (!err)
                err = rig_steps(rig);
        }
        assert_true(err == 0 || err == -ENOMEM);
        journal_close(&rig->journal);
        bool hit = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        assert_int_equal(mem_in_use(), before);
        rig_free(rig);
        os_sim_free(&sim);
        if (!hit)
            break;
        assert_true(n < 10000);
    }
    assert_true(refused > 0);
}

/* ----------------------------------------------------------------------------------------------------- the real system */

static char *temp_dir(void)
{
    static char dir[64];
    snprintf(dir, sizeof dir, "./journal-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return dir;
}

static void remove_dir(const char *dir)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

static void two_brokers_one_folder(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct rig *rig = rig_new(os_posix(), dir);
    rig_must_open(rig);
    pid_t child = fork();
    if (child == 0) {
        struct rig *other = rig_new(os_posix(), dir);
        int err = rig_open(other);
        _exit(err == -EWOULDBLOCK && strstr(other->why, "in use by another broker") ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    rig_append(rig, 3);
    rig_close(rig);
    rig_must_open(rig);
    assert_int_equal(rig_read(rig), 3);
    rig_free(rig);
    remove_dir(dir);
}

static void on_progress(void *arg)
{
    atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

static void with_its_thread(void **state)
{
    (void)state;
    static const enum journal_direct_io modes[] = {JOURNAL_DIRECT_AUTO, JOURNAL_DIRECT_OFF};
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
        char *dir = temp_dir();
        struct rig *rig = rig_new(os_posix(), dir);
        _Atomic unsigned progress = 0;
        rig->options.direct_io = modes[m];
        rig->options.file_bytes = 1 << 20;
        rig->options.on_progress = on_progress;
        rig->options.arg = &progress;
        for (int run = 0; run < 2; run++) {
            rig_must_open(rig);
            assert_int_equal(rig_read(rig), rig->appended);
            assert_int_equal(journal_start(rig->journal), 0);
            for (int i = 0; i < 400; i++) {
                rig_append(rig, (unsigned)(rig_draw(rig) % 30));
                lsn_t durable = journal_durable(rig->journal);
                assert_true(durable >= rig->durable && durable <= rig->appended);
                rig->durable = durable;
                while (i % 50 == 49 && journal_durable(rig->journal) < rig->appended)
                    usleep(50);
                if (i % 100 == 99)
                    journal_trim(rig->journal, rig->appended / 2);
            }
            rig_close(rig);
            assert_true(progress > 0);
        }
        rig_must_open(rig);
        assert_int_equal(rig_read(rig), rig->appended);
        rig_free(rig);
        remove_dir(dir);
    }
}

static void inspection(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(17);
    struct rig *rig = rig_new(os_sim_os(sim), "d");
    rig_must_open(rig);
    rig_append_groups(rig, 20);
    rig_close(rig);
    char *text = NULL;
    size_t len = 0;
    struct inspect_options options = {0};
    FILE *out = open_memstream(&text, &len);
    assert_int_equal(journal_inspect(rig->os, "d", &options, out), 0);
    fclose(out);
    assert_non_null(strstr(text, "closed clean at file 0000000000000002"));
    assert_non_null(strstr(text, "2 files, 20 groups, 20 records"));
    assert_non_null(strstr(text, "whole: nothing behind the end"));
    free(text);
    os_sim_flip(sim, wal_file(1), 5 * 4096 + 70, 4);
    out = open_memstream(&text, &len);
    assert_int_equal(journal_inspect(rig->os, "d", &options, out), -EILSEQ);
    fclose(out);
    assert_non_null(strstr(text, "lsns 5 to 20 are lost"));
    free(text);
    rig_free(rig);
    os_sim_free(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(rolls_trims_and_recycles),
        cmocka_unit_test(held_files_stay),
        cmocka_unit_test(fresh_beginnings),
        cmocka_unit_test(large_records_and_reservations),
        cmocka_unit_test(a_reservation_is_one_group),
        cmocka_unit_test(a_note_closes_the_blind_spot),
        cmocka_unit_test(flipped_bits_are_found),
        cmocka_unit_test(superblocks_stand_in_for_each_other),
        cmocka_unit_test(foreign_and_newer_folders_are_refused),
        cmocka_unit_test(settings_out_of_bounds),
        cmocka_unit_test(a_missing_file_is_damage),
        cmocka_unit_test(stale_bytes_never_validate),
        cmocka_unit_test(histories_do_not_mix),
        cmocka_unit_test(a_spare_is_kept_back),
        cmocka_unit_test(the_end_of_the_disk),
        cmocka_unit_test(a_full_disk_in_a_growing_file),
        cmocka_unit_test(a_failed_sync_is_final),
        cmocka_unit_test(the_nth_call_fails),
        cmocka_unit_test(the_nth_allocation_fails),
        cmocka_unit_test(two_brokers_one_folder),
        cmocka_unit_test(with_its_thread),
        cmocka_unit_test(inspection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
