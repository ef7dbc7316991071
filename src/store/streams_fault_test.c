/* Streams on a simulated disk in trouble: every failing operation and allocation, a full disk, a sync that fails, and the power
 * cut at every disk operation: each job is answered exactly once, and what the journal names is there.
 */
#include "store/streams_store_rig_test.h"

#include <errno.h>

/* Some of everything. Every job that was taken in is answered, whatever fails. */
static void work(struct rig *rig)
{
    for (unsigned i = 0; i < 6; i++) {
        struct part *part = &rig->parts[i % 2];
        rig_write(rig, part, i == 3 ? 150 : 20);
        rig_write(rig, part, 1);
        if (i % 3 == 2)
            rig_sync(rig, part);
        if (i % 2)
            rig_steps(rig);
    }
    rig_steps(rig);
    for (unsigned i = 0; i < 2; i++) {
        struct part *part = &rig->parts[i];
        uint64_t start = part->now->start, end = part->now->tail.end;
        if (start < end && streams_step(rig->streams) == false) {
            struct stream_job *job = rig_job(part, STREAM_READ, 50);
            if (job) {
                job->first = start;
                job->until = end;
                job->bytes_max = 10000;
                rig_submit(rig, job);
            }
            rig_submit(rig, fetch_job(part, start, end, 5000));
            rig_submit(rig, fetch_job(part, end - 1, end, 0));
            rig_steps(rig);
        }
        if (part->synced->count > 2 && part->synced->start < part->synced->sealed[0].end) { /* STREAM_TRIM is durable */
            part->synced->start = part->now->start = part->synced->sealed[0].end;
            rig_drop(rig, part, part->synced->start);
        }
        rig_sync(rig, part);
    }
    rig_steps(rig);
}

/* A read that fails now says so, and a later one gives it. */
static void every_io_fails(void **state)
{
    (void)state;
    static const struct {
        int err;
        bool for_ever;
    } rows[] = {{EIO, false}, {ENOSPC, false}, {EIO, true}, {ENOSPC, true}, {EMFILE, false}};
    unsigned hits = 0;
    for (unsigned row = 0; row < ARRAY_LEN(rows); row++)
        for (uint64_t n = 1;; n++) {
            struct rig *rig = rig_new(11);
            rig->segment_bytes = 16384;
            rig_part(rig, 1, 0, 0);
            rig_part(rig, 1, 1, 77);
            os_sim_fail(rig->sim, OS_SIM_ALL, n, rows[row].err, rows[row].for_ever);
            int err = rig_open_keeping(rig);
            if (!err) {
                work(rig);
                work(rig);
            }
            bool hit = os_sim_failures_hit(rig->sim) > 0;
            os_sim_fail(rig->sim, 0, 0, 0, false);
            if (!err) {
                bool failed = false;
                for (unsigned i = 0; i < 2; i++) { /* it works again, but where a sync has failed */
                    struct part *part = &rig->parts[i];
                    rig_all_readable(rig, part);
                    part->sent = part->now->tail.end;
                    assert_true(rig_write(rig, part, 5) && rig_sync(rig, part));
                    err = rig_steps(rig);
                    assert_true(part->failed ? err == -EIO : err == 0);
                    failed = failed || part->failed;
                }
                assert_true(!failed || rig->faults > 0);
                rig_die(rig, true, n);
                rig_open(rig);
                rig_write_again(rig);
                rig_all_parts_readable(rig);
            }
            rig_free(rig);
            hits += hit;
            if (!hit)
                break;
        }
    assert_true(hits > 200);
}

static void every_allocation_fails(void **state)
{
    (void)state;
    unsigned hits = 0;
    for (unsigned for_ever = 0; for_ever < 2; for_ever++)
        for (uint64_t n = 1;; n++) {
            struct rig *rig = rig_new(12);
            rig->segment_bytes = 16384;
            struct part *part = rig_part(rig, 1, 0, 0);
            rig->body_max = 700;
            mem_fail_at(n, for_ever);
            int err = rig_open_keeping(rig);
            for (unsigned i = 0; i < 7 && !err; i++) {
                rig_write(rig, part, i == 4 ? 800 : 20); /* comparing needs memory: only noted here */
                while (streams_step(rig->streams))
                    continue;
                struct stream_job *job;
                while ((job = streams_take(rig->streams)) != NULL) {
                    rig->answered++;
                    if (job->type == STREAM_WRITE)
                        take_write(part, job);
                    assert_true(!job->err || job->err == -ENOMEM || job->err == -EINVAL);
                    stream_job_free(&rig->heap, &job);
                }
                part->sent = part->now->tail.end;
                job = i % 3 == 2 ? fetch_job(part, 0, part->now->tail.end, UINT32_MAX)
                      : i % 3    ? rig_job(part, STREAM_FIND, 0)
                                 : rig_job(part, STREAM_READ, 200);
                if (job) {
                    job->until = part->now->tail.end;
                    job->bytes_max = UINT32_MAX;
                    rig_submit(rig, job);
                }
                while (streams_step(rig->streams))
                    continue;
                while ((job = streams_take(rig->streams)) != NULL) {
                    rig->answered++;
                    assert_true(!job->err || job->err == -ENOMEM);
                    stream_job_free(&rig->heap, &job);
                }
            }
            bool hit = mem_failures_hit() > 0;
            mem_fail_at(0, false);
            assert_int_equal(err && err != -ENOMEM, 0);
            if (!err) {
                rig_write_now(rig, part, 30);
                rig_all_readable(rig, part);
                rig_sync_now(rig, part);
                rig_die(rig, true, n);
                rig_open(rig);
                rig_all_readable(rig, part);
            }
            rig_free(rig);
            hits += hit;
            if (!hit)
                break;
        }
    assert_true(hits > 40);
}

/* A disk that is full: writes fail, what is there stays readable, and room that is made is used. */
static void full_disk(void **state)
{
    (void)state;
    struct rig *rig = rig_new(13);
    rig_open(rig);
    struct part *a = rig_part(rig, 1, 0, 0), *b = rig_part(rig, 2, 0, 0);
    while (a->now->count < 2)
        rig_write_now(rig, a, 40);
    os_sim_capacity(rig->sim, 400 * 1024);
    unsigned failed = 0;
    for (unsigned i = 0; i < 60; i++) {
        b->sent = b->now->tail.end;
        assert_true(rig_write(rig, b, 60));
        int err = rig_steps(rig);
        assert_true(err == 0 || err == -ENOSPC);
        failed += err != 0;
    }
    assert_true(failed > 5 && failed < 58);
    assert_int_equal(rig->faults, 1); /* the same trouble is told once */
    assert_non_null(strstr(rig->sentence, "No space left"));
    rig_all_parts_readable(rig);
    assert_true(rig_drop(rig, a, a->now->sealed[1].end));
    a->now->start = a->synced->start = a->now->sealed[1].end;
    rig_steps(rig);
    struct os *os = os_sim_os(rig->sim);
    assert_int_equal(os->sync_dir(os, "d/str"), 0); /* only then this disk has the room */
    b->sent = b->now->tail.end;
    rig_write_now(rig, b, 60);
    rig_all_parts_readable(rig);
    rig_sync_now(rig, b);
    rig_die(rig, true, 5);
    rig_open(rig);
    rig_all_parts_readable(rig);
    rig_free(rig);
}

/* After a failed sync a later one says "fine" and has saved nothing. */
static void failed_sync(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct rig *rig = rig_new(14);
        rig->options.writers_max = seed % 2; /* or when its descriptor makes room for another */
        rig_open(rig);
        struct part *a = rig_part(rig, 1, 0, 0), *b = rig_part(rig, 1, 1, 0);
        rig_write_now(rig, a, 30);
        rig_sync_now(rig, a);
        rig_write_now(rig, a, 30);
        os_sim_fail(rig->sim, 1u << (seed == 19 ? OS_SIM_SYNC_DIR : OS_SIM_FDATASYNC), 1, EIO, false);
        if (seed == 19) {
            rig_write_now(rig, b, 30);
            assert_true(rig_sync(rig, b));
            assert_int_equal(rig_steps(rig), -EIO);
            assert_true(rig_sync(rig, b));
            assert_int_equal(rig_steps(rig), -EIO);
        } else {
            if (seed % 2)
                rig_write_now(rig, b, 30);
            assert_true(rig_sync(rig, a));
            assert_int_equal(rig_steps(rig), -EIO);
            assert_int_equal(rig->faults, 1);
            assert_true(rig_write(rig, a, 30));
            assert_int_equal(rig_steps(rig), -EIO);
            assert_int_equal(a->now->tail.end, 60);
            assert_true(rig_sync(rig, a));
            assert_int_equal(rig_steps(rig), -EIO);
            rig_write_now(rig, b, 30); /* others go on */
            rig_sync_now(rig, b);
        }
        rig_die(rig, true, seed);
        rig_open(rig);
        rig_all_parts_readable(rig);
        rig_write_again(rig);
        rig_all_parts_readable(rig);
        rig_free(rig);
    }
}

/* The power goes at every disk operation, with several outcomes of what the disk kept. */
static void every_power_cut(void **state)
{
    (void)state;
    unsigned cuts = 0;
    for (int64_t k = 0;; k++) {
        bool cut = true;
        for (uint64_t seed = 0; seed < 8 && cut; seed++) {
            struct rig *rig = rig_new(15);
            rig->segment_bytes = 16384;
            rig_part(rig, 1, 0, 0);
            rig_part(rig, 1, 1, 77);
            os_sim_cut_after(rig->sim, k);
            if (rig_open_keeping(rig) == 0) {
                work(rig);
                work(rig);
            }
            cut = os_sim_is_cut(rig->sim);
            rig_die(rig, true, (uint64_t)k * 1000 + seed);
            if (seed % 3 == 0) { /* and once more during the start */
                os_sim_cut_after(rig->sim, (int64_t)seed / 3);
                int err = rig_open_keeping(rig);
                assert_true(!err || os_sim_is_cut(rig->sim));
                rig_die(rig, true, seed);
            }
            rig_open(rig);
            rig_write_again(rig);
            rig_all_parts_readable(rig);
            work(rig);
            rig_all_parts_readable(rig);
            rig_free(rig);
            cuts += cut;
        }
        if (!cut)
            break;
    }
    assert_true(cuts > 200);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        PLAIN_BATCHES(every_io_fails),    PLAIN_BATCHES(every_allocation_fails),    PLAIN_BATCHES(every_power_cut),
        cmocka_unit_test(every_io_fails), cmocka_unit_test(every_allocation_fails), cmocka_unit_test(full_disk),
        cmocka_unit_test(failed_sync),    cmocka_unit_test(every_power_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
