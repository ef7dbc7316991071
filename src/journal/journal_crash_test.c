/* Thousands of random lives of a journal on the simulated disk: appends, trims, pauses, clean stops, kills, and power cuts
 * after any disk operation (also in the middle of a recovery). After each: what is read is exactly a prefix of what was
 * appended, reaches the last reported durable lsn, and begins where a trim said or before (J1, J2, J10).
 *
 * A failing run prints its seed; CRASH_SEED=n CRASH_LIVES=1 repeats it alone.
 */
#include "journal/journal.h"

#include "journal/journal_test_rig.h"
#include "os/os_sim.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define ROUNDS_PER_LIFE 25
#if defined(__SANITIZE_THREAD__)
#define LIVES 60
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LIVES 60 /* one thread, twenty times slower: nothing to find here */
#endif
#endif
#ifndef LIVES
#define LIVES 400
#endif

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

struct totals {
    uint64_t opens, cuts, kills, clean, trims, cut_opens, torn;
};

static void append_some(struct rig *rig)
{
    static uint8_t bytes[JOURNAL_RECORD_BYTES_MAX];
    unsigned count = (unsigned)(rig_draw(rig) % 12);
    for (unsigned i = 0; i < count && rig->appended + 1 < RIG_LSN_MAX; i++) {
        lsn_t lsn = rig->appended + 1;
        rig->salt[lsn] = (uint32_t)rig_draw(rig);
        size_t len = rig_record(rig, lsn, bytes);
        struct slice part = slice_of(bytes, len);
        assert_true(journal_reserve(rig->journal, len, 1));
        assert_int_equal(journal_append(rig->journal, &part, 1), lsn);
        rig->appended = lsn;
    }
    if (rig_draw(rig) % 4)
        journal_kick(rig->journal);
}

static void note_durable(struct rig *rig)
{
    lsn_t durable = journal_durable(rig->journal);
    assert_true(durable >= rig->durable && durable <= rig->appended);
    rig->durable = durable;
}

/* Works until the power goes, or for a while. */
static void work(struct rig *rig, struct os_sim *sim, struct totals *totals)
{
    unsigned turns = (unsigned)(rig_draw(rig) % 40);
    for (unsigned i = 0; i < turns && !journal_failure(rig->journal); i++) {
        append_some(rig);
        for (unsigned steps = (unsigned)(rig_draw(rig) % 4); steps; steps--)
            if (journal_step(rig->journal) <= 0)
                break;
        note_durable(rig);
        uint64_t what = rig_draw(rig) % 32;
        if (what == 0)
            os_sim_clock_advance(sim, 2 * NS_PER_S);
        if (what == 1 && rig->durable > rig->trimmed) {
            rig->trimmed += 1 + rig_draw(rig) % (rig->durable - rig->trimmed);
            journal_trim(rig->journal, rig->trimmed);
            totals->trims++;
        }
    }
}

/* How this run ends. Afterwards the disk is as the next run will find it. */
static void end_run(struct rig *rig, struct os_sim *sim, struct totals *totals)
{
    uint64_t how = rig_draw(rig) % 8;
    if (!os_sim_is_cut(sim) && how < 2) {
        int err = journal_stop(rig->journal);
        note_durable(rig);
        assert_true(err || rig->durable == rig->appended);
        totals->clean++;
    } else {
        how = 4 + how % 4;
    }
    if (how > 1)
        os_sim_stop(sim); /* nobody closes anything */
    journal_close(&rig->journal);
    if (how % 2 == 0) { /* the machine stays up: the page cache survives */
        os_sim_kill(sim);
        totals->kills++;
        return;
    }
    totals->cuts++;
    os_sim_crash(sim, rig_draw(rig));
}

/* Opens, with the power possibly going during recovery, again and again. */
static void open_again(struct rig *rig, struct os_sim *sim, struct totals *totals, uint64_t seed)
{
    for (;;) {
        if (rig_draw(rig) % 3 == 0)
            os_sim_cut_after(sim, (int64_t)(rig_draw(rig) % 12));
        int err = journal_open(&rig->options, &rig->journal, rig->why, sizeof rig->why);
        if (!err)
            break;
        if (!os_sim_is_cut(sim))
            fail_msg("seed %lu: %s", (unsigned long)seed, rig->why);
        totals->cut_opens++;
        os_sim_crash(sim, rig_draw(rig));
    }
    totals->opens++;
}

static void compare(struct rig *rig, uint64_t seed, struct totals *totals, struct os_sim *sim)
{
    struct journal_stats stats;
    journal_stats(rig->journal, &stats);
    if (journal_claim(rig->journal) <= rig->claim)
        fail_msg("seed %lu: claim did not grow", (unsigned long)seed);
    rig->claim = journal_claim(rig->journal);
    if (stats.start > (rig->trimmed ? rig->trimmed : 1) || stats.start < rig->start)
        fail_msg("seed %lu: starts at %lu", (unsigned long)seed, (unsigned long)stats.start);
    rig->start = stats.start;
    rig->read_next = stats.start;
    int r = os_sim_is_cut(sim) ? 0 : journal_read(rig->journal, rig_each, rig, rig->why, sizeof rig->why);
    if (r && !os_sim_is_cut(sim))
        fail_msg("seed %lu: read says %d at lsn %lu: %s", (unsigned long)seed, r, (unsigned long)rig->read_next,
                 rig->why);
    lsn_t last = journal_durable(rig->journal);
    if (last < rig->durable || last > rig->appended || last != journal_appended(rig->journal))
        fail_msg("seed %lu: durable was %lu, appended %lu, recovered %lu", (unsigned long)seed,
                 (unsigned long)rig->durable, (unsigned long)rig->appended, (unsigned long)last);
    totals->torn += last < rig->appended;
    rig->appended = rig->durable = last;
}

static void one_life(uint64_t seed, struct totals *totals)
{
    struct os_sim *sim = os_sim_new(seed);
    static struct rig rig;
    memset(&rig, 0, offsetof(struct rig, salt));
    rig.appended = rig.durable = rig.trimmed = rig.claim = 0;
    rig.start = 1;
    rig.dice = seed;
    rig.os = os_sim_os(sim);
    rig.len_max = seed % 3 == 0 ? 3000 : 200;
    rig.options = (struct journal_options){
        .os = rig.os,
        .dir = "d",
        .file_bytes = seed % 2 ? 32 * 1024 : 64 * 1024,
        .group_bytes_max = seed % 5 ? 16 * 1024 : 4096,
        .direct_io = seed % 7 ? JOURNAL_DIRECT_AUTO : JOURNAL_DIRECT_OFF,
    };
    for (unsigned round = 0; round < ROUNDS_PER_LIFE; round++) {
        open_again(&rig, sim, totals, seed);
        compare(&rig, seed, totals, sim);
        if (!os_sim_is_cut(sim))
            os_sim_cut_after(sim, rig_draw(&rig) % 4 ? (int64_t)(rig_draw(&rig) % 60) : -1);
        work(&rig, sim, totals);
        end_run(&rig, sim, totals);
    }
    os_sim_free(&sim);
}

static void random_lives(void **state)
{
    (void)state;
    struct totals totals = {0};
    uint64_t first = env_number("CRASH_SEED", 1), lives = env_number("CRASH_LIVES", LIVES);
    for (uint64_t seed = first; seed < first + lives; seed++)
        one_life(seed, &totals);
    printf("seeds %lu to %lu: %lu power cuts, %lu during recovery, %lu with records lost that were never durable, "
           "%lu kills, %lu clean stops, %lu trims\n",
           (unsigned long)first, (unsigned long)(first + lives - 1), (unsigned long)totals.cuts,
           (unsigned long)totals.cut_opens, (unsigned long)totals.torn, (unsigned long)totals.kills,
           (unsigned long)totals.clean, (unsigned long)totals.trims);
    if (lives >= 50)
        assert_true(totals.cuts > 5 * lives && totals.kills > 5 * lives && totals.cut_opens > lives &&
                    totals.torn > lives && totals.trims > lives);
}

/* The same work cut after its 1st, 2nd, 3rd … disk operation: every row of the crash tables, each with several outcomes of
 * what the disk kept. */
static void every_operation(void **state)
{
    (void)state;
    unsigned long points = 0;
    for (int64_t k = 0;; k++) {
        bool cut = false;
        for (uint64_t outcome = 0; outcome < 12; outcome++) {
            struct os_sim *sim = os_sim_new(99);
            struct rig *rig = calloc(1, sizeof *rig);
            rig->dice = 5;
            rig->len_max = 500;
            rig->start = 1;
            rig->os = os_sim_os(sim);
            rig->options =
                (struct journal_options){.os = rig->os, .dir = "d", .file_bytes = 32 * 1024, .group_bytes_max = 4096};
            os_sim_cut_after(sim, k);
            for (int run = 0; run < 2; run++) {
                if (journal_open(&rig->options, &rig->journal, rig->why, sizeof rig->why))
                    break;
                rig->claim = journal_claim(rig->journal);
                for (int i = 0; i < 30; i++) {
                    append_some(rig);
                    journal_kick(rig->journal);
                    if (journal_step(rig->journal) < 0)
                        break;
                    note_durable(rig);
                    if (i % 10 == 9 && rig->durable > 4) {
                        rig->trimmed = rig->durable - 4;
                        journal_trim(rig->journal, rig->trimmed);
                        os_sim_clock_advance(sim, 2 * NS_PER_S);
                        while (journal_step(rig->journal) > 0)
                            continue;
                        note_durable(rig);
                    }
                }
                if (journal_stop(rig->journal) == 0)
                    note_durable(rig);
                journal_close(&rig->journal);
            }
            cut = os_sim_is_cut(sim);
            os_sim_crash(sim, outcome);
            int err = journal_open(&rig->options, &rig->journal, rig->why, sizeof rig->why);
            if (err)
                fail_msg("cut after %ld, outcome %lu: %s", (long)k, (unsigned long)outcome, rig->why);
            struct totals totals = {0};
            compare(rig, (uint64_t)k * 1000 + outcome, &totals, sim);
            journal_close(&rig->journal);
            free(rig);
            os_sim_free(&sim);
            points++;
        }
        if (!cut)
            break;
    }
    printf("%lu crash points\n", points);
    assert_true(points > 1000);
}

/* A process is killed while it gives files back, at its n-th disk operation, and the power goes in the start after that, at
 * its m-th: what the start read of the superblock was in the page cache only, and is lost when it is not synced before the other copy is
 * overwritten; and the files it no longer names are still named by the one on the disk. */
static void killed_and_cut(unsigned n, unsigned m, uint64_t outcome)
{
    struct os_sim *sim = os_sim_new(outcome);
    static struct rig rig;
    memset(&rig, 0, offsetof(struct rig, salt));
    rig.os = os_sim_os(sim);
    rig.options = (struct journal_options){.os = rig.os, .dir = "d", .file_bytes = 32 * 1024, .group_bytes_max = 8192};
    assert_int_equal(journal_open(&rig.options, &rig.journal, rig.why, sizeof rig.why), 0);
    static const uint8_t bytes[3000];
    struct slice part = slice_of(bytes, sizeof bytes);
    lsn_t last = 0;
    for (unsigned i = 0; i < 40; i++) {
        assert_true(journal_reserve(rig.journal, sizeof bytes, 1));
        last = journal_append(rig.journal, &part, 1);
        journal_kick(rig.journal);
        while (journal_step(rig.journal) > 0)
            ;
    }
    assert_int_equal(journal_durable(rig.journal), last);
    os_sim_cut_after(sim, n);
    journal_trim(rig.journal, last);
    while (journal_step(rig.journal) > 0)
        ;
    os_sim_stop(sim);
    journal_close(&rig.journal);
    os_sim_cut_after(sim, -1);
    os_sim_kill(sim);
    os_sim_cut_after(sim, m);
    if (journal_open(&rig.options, &rig.journal, rig.why, sizeof rig.why) == 0) {
        os_sim_stop(sim);
        journal_close(&rig.journal);
    }
    os_sim_cut_after(sim, -1);
    os_sim_crash(sim, outcome);
    if (journal_open(&rig.options, &rig.journal, rig.why, sizeof rig.why))
        fail_msg("killed after %u, cut after %u, outcome %lu: %s", n, m, (unsigned long)outcome, rig.why);
    assert_true(journal_durable(rig.journal) >= last);
    journal_close(&rig.journal);
    os_sim_free(&sim);
}

static void killed_while_trimming(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 8; n++)
        for (unsigned m = 0; m < 16; m++)
            for (uint64_t outcome = 1; outcome <= 64; outcome++)
                killed_and_cut(n, m, outcome);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation),
        cmocka_unit_test(random_lives),
        cmocka_unit_test(killed_while_trimming),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
