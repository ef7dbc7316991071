/* The simulated disk keeps and loses what a real one may: the crash tests are worth no more than this. */
#include "os/os_sim.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define SEEDS 200

static int make(struct os *os, const char *path)
{
    int fd;
    assert_int_equal(os->open(os, path, OS_WRITE | OS_CREATE, &fd), 0);
    return fd;
}

static void put(struct os *os, int fd, char letter, size_t len, uint64_t offset)
{
    char bytes[8192];
    memset(bytes, letter, len);
    assert_int_equal(os->pwrite(os, fd, bytes, len, offset), 0);
}

static void synced_stays(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct os_sim *sim = os_sim_new(seed);
        struct os *os = os_sim_os(sim);
        assert_int_equal(os->mkdir(os, "d"), 0);
        assert_int_equal(os->sync_dir(os, "."), 0);
        int fd = make(os, "d/f");
        put(os, fd, 'a', 5000, 0);
        assert_int_equal(os->fdatasync(os, fd), 0);
        assert_int_equal(os->sync_dir(os, "d"), 0);
        os_sim_crash(sim, seed);
        struct slice f = os_sim_peek(sim, "d/f");
        assert_int_equal(f.len, 5000);
        assert_int_equal(f.ptr[4999], 'a');
        os_sim_free(&sim);
    }
}

/* Unsynced writes over synced ones: over many seeds all, nothing, and torn in 512-byte sectors, never finer. */
static void unsynced_is_torn(void **state)
{
    (void)state;
    unsigned none = 0, all = 0, torn = 0, later_without_earlier = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct os_sim *sim = os_sim_new(seed);
        struct os *os = os_sim_os(sim);
        int fd = make(os, "f");
        put(os, fd, 'a', 8192, 0);
        assert_int_equal(os->fdatasync(os, fd), 0);
        assert_int_equal(os->sync_dir(os, "."), 0);
        put(os, fd, 'b', 4096, 0);
        put(os, fd, 'c', 4096, 4096);
        os_sim_crash(sim, seed);
        struct slice f = os_sim_peek(sim, "f");
        unsigned b = 0, c = 0;
        for (size_t at = 0; at < 8192; at += 512) {
            for (size_t i = 1; i < 512; i++)
                assert_int_equal(f.ptr[at + i], f.ptr[at]);
            b += f.ptr[at] == 'b';
            c += f.ptr[at] == 'c';
        }
        none += b + c == 0;
        all += b + c == 16;
        torn += (b && b < 8) || (c && c < 8);
        later_without_earlier += b == 0 && c == 8;
        os_sim_free(&sim);
    }
    assert_true(none > 10 && all > 10 && torn > 10 && later_without_earlier > 3);
}

static void names_need_their_folder_synced(void **state)
{
    (void)state;
    unsigned there = 0, gone = 0, old = 0, renamed = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct os_sim *sim = os_sim_new(seed);
        struct os *os = os_sim_os(sim);
        int fd = make(os, "old");
        put(os, fd, 'a', 10, 0);
        assert_int_equal(os->fdatasync(os, fd), 0);
        assert_int_equal(os->sync_dir(os, "."), 0);
        assert_int_equal(os->rename(os, "old", "new"), 0);
        fd = make(os, "fresh");
        put(os, fd, 'x', 10, 0);
        assert_int_equal(os->fdatasync(os, fd), 0);
        os_sim_crash(sim, seed);
        old += os_sim_peek(sim, "old").len == 10;
        renamed += os_sim_peek(sim, "new").len == 10;
        assert_int_equal(os_sim_peek(sim, "old").len + os_sim_peek(sim, "new").len, 10);
        there += os_sim_peek(sim, "fresh").len == 10;
        gone += os_sim_peek(sim, "fresh").len == 0;
        os_sim_free(&sim);
    }
    assert_true(there > 10 && gone > 10 && old > 10 && renamed > 10);
}

/* ATC'20: after a failed fdatasync the next one succeeds and saves nothing of what was dirty. */
static void a_failed_sync_dooms_the_pages(void **state)
{
    (void)state;
    unsigned lost = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct os_sim *sim = os_sim_new(seed);
        struct os *os = os_sim_os(sim);
        int fd = make(os, "f");
        assert_int_equal(os->sync_dir(os, "."), 0);
        put(os, fd, 'a', 512, 0);
        os_sim_fail(sim, 1u << OS_SIM_FDATASYNC, 1, EIO, false);
        assert_int_equal(os->fdatasync(os, fd), -EIO);
        assert_int_equal(os->fdatasync(os, fd), 0);
        put(os, fd, 'b', 512, 512);
        assert_int_equal(os->fdatasync(os, fd), 0);
        os_sim_crash(sim, seed);
        struct slice f = os_sim_peek(sim, "f");
        assert_int_equal(f.len, 1024);
        assert_int_equal(f.ptr[600], 'b');
        lost += f.ptr[0] != 'a';
        os_sim_free(&sim);
    }
    assert_true(lost > 10 && lost < SEEDS);
}

static void power_space_and_clones(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(3);
    struct os *os = os_sim_os(sim);
    int fd = make(os, "f");
    os_sim_cut_after(sim, 2);
    put(os, fd, 'a', 512, 0);
    assert_int_equal(os->fdatasync(os, fd), 0);
    assert_int_equal(os->pwrite(os, fd, "b", 1, 0), -EIO);
    assert_true(os_sim_is_cut(sim));
    assert_int_equal(os->fdatasync(os, fd), -EIO);
    os_sim_kill(sim);
    fd = make(os, "f");
    os_sim_capacity(sim, 1024);
    char bytes[2048] = {0};
    assert_int_equal(os->pwrite(os, fd, bytes, sizeof bytes, 0), -ENOSPC);
    assert_int_equal(os_sim_peek(sim, "f").len, 1024);
    assert_int_equal(os->lock(os, fd), 0);
    int again = make(os, "f");
    assert_int_equal(os->lock(os, again), -EWOULDBLOCK);
    os_sim_capacity(sim, 0);
    struct os_sim *copy = os_sim_clone(sim);
    put(os, fd, 'z', 100, 0);
    assert_int_equal(os_sim_peek(copy, "f").ptr[0], 0);
    assert_int_equal(os_sim_peek(sim, "f").ptr[0], 'z');
    os_sim_free(&copy);
    os_sim_free(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(synced_stays),
        cmocka_unit_test(unsynced_is_torn),
        cmocka_unit_test(names_need_their_folder_synced),
        cmocka_unit_test(a_failed_sync_dooms_the_pages),
        cmocka_unit_test(power_space_and_clones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
