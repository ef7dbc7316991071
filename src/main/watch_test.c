/* watch: marks from shares and bytes, and hysteresis: a value that sways around its mark raises one alarm, not many. */
#include "main/watch.h"

#include "core/broker.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MIB (1024ull * 1024)

static void marks(void **state)
{
    (void)state;
    assert_int_equal(watch_memory_mark(0.5, 1000), 500);
    assert_int_equal(watch_memory_mark(4096.0, 1000), 4096);
    assert_int_equal(watch_disk_soft(0, 100 * MIB), 64 * MIB);
    assert_int_equal(watch_disk_soft(0, 10240 * MIB), 512 * MIB);
    assert_int_equal(watch_disk_soft(0, 1024 * 1024 * MIB), 4096 * MIB);
    assert_int_equal(watch_disk_soft(7, 1024 * 1024 * MIB), 7);
}

static void memory_sways(void **state)
{
    (void)state;
    struct watch watch = {.memory_soft = 1000, .memory_hard = 2000, .disk_soft = 100, .disk_hard = 50};
    assert_int_equal(watch_measure(&watch, 1000, 500), 0);
    assert_int_equal(watch_measure(&watch, 1001, 500), ALARM_MEMORY);
    assert_int_equal(watch_measure(&watch, 980, 500), ALARM_MEMORY);
    assert_int_equal(watch_measure(&watch, 949, 500), 0);
    assert_int_equal(watch_measure(&watch, 980, 500), 0);
}

static void freed_pages(void **state)
{
    (void)state;
    struct watch watch = {.memory_soft = 1000, .memory_hard = 2000, .disk_soft = 100, .disk_hard = 50};
    assert_false(watch_trim_due(&watch, 100, 950, MONO_NEVER, false)); /* far from the mark */
    assert_true(watch_trim_due(&watch, 100, 951, MONO_NEVER, false));
    assert_false(watch_trim_due(&watch, 100, 951, 10 * NS_PER_S, false));
    assert_true(watch_trim_due(&watch, 100, 951, 10 * NS_PER_S + 1, false));
    watch.raised = ALARM_MEMORY;
    assert_true(watch_trim_due(&watch, 949, 2000, NS_PER_S, false)); /* only freed pages keep the alarm up */
    assert_false(watch_trim_due(&watch, 949, 2000, NS_PER_S / 10, false));
    assert_false(watch_trim_due(&watch, 951, 2000, NS_PER_S, false)); /* what is in use does */
    assert_false(watch_trim_due(&watch, 949, 949, NS_PER_S, false));
}

/* Far from the mark, when nothing else is to be done: what a burst has left. */
static void freed_pages_when_idle(void **state)
{
    (void)state;
    struct watch watch = {.memory_soft = 1000 * MIB, .memory_hard = 2000 * MIB};
    assert_true(watch_trim_due(&watch, 80 * MIB, 107 * MIB, MONO_NEVER, true));
    assert_false(watch_trim_due(&watch, 80 * MIB, 107 * MIB, MONO_NEVER, false));
    assert_false(watch_trim_due(&watch, 80 * MIB, 107 * MIB, 10 * NS_PER_S, true));
    assert_false(watch_trim_due(&watch, 80 * MIB, 105 * MIB, MONO_NEVER, true)); /* little to win */
}

static void hard_marks(void **state)
{
    (void)state;
    struct watch watch = {.memory_soft = 1000, .memory_hard = 2000, .disk_soft = 100, .disk_hard = 50};
    assert_int_equal(watch_measure(&watch, 2000, 50), ALARM_MEMORY | ALARM_DISK);
    assert_int_equal(watch_measure(&watch, 2001, 49), ALARM_MEMORY | ALARM_MEMORY_HARD | ALARM_DISK | ALARM_DISK_HARD);
    assert_int_equal(watch_measure(&watch, 1900, 52), ALARM_MEMORY | ALARM_MEMORY_HARD | ALARM_DISK | ALARM_DISK_HARD);
    assert_int_equal(watch_measure(&watch, 1899, 53), ALARM_MEMORY | ALARM_DISK);
}

/* A journal that must be written again before it can shrink needs that much: both marks move out of its way. */
static void what_is_owed_moves_the_disk_marks(void **state)
{
    (void)state;
    struct watch watch = {.memory_soft = 1000, .memory_hard = 2000, .disk_soft = 100, .disk_hard = 50, .owed = 400};
    assert_int_equal(watch_disk_hard(&watch), 400);
    assert_int_equal(watch_measure(&watch, 0, 500), 0);
    assert_int_equal(watch_measure(&watch, 0, 499), ALARM_DISK);
    assert_int_equal(watch_measure(&watch, 0, 399), ALARM_DISK | ALARM_DISK_HARD);
    watch.owed = 10;
    assert_int_equal(watch_measure(&watch, 0, 399), 0);
}

static void looks_often_near_a_limit(void **state)
{
    (void)state;
    struct watch watch = {.memory_soft = 1000, .memory_hard = 2000, .disk_soft = 100, .disk_hard = 50};
    watch_measure(&watch, 500, 400);
    assert_int_equal(watch_pause(&watch), NS_PER_S);
    watch_measure(&watch, 501, 400);
    assert_int_equal(watch_pause(&watch), NS_PER_S / 10);
    watch_measure(&watch, 500, 399);
    assert_int_equal(watch_pause(&watch), NS_PER_S / 10);
}

static void disk_sways(void **state)
{
    (void)state;
    struct watch watch = {.memory_soft = 1000, .memory_hard = 2000, .disk_soft = 100, .disk_hard = 50};
    assert_int_equal(watch_measure(&watch, 0, 100), 0);
    assert_int_equal(watch_measure(&watch, 0, 99), ALARM_DISK);
    assert_int_equal(watch_measure(&watch, 2000, 105), ALARM_DISK | ALARM_MEMORY);
    assert_int_equal(watch_measure(&watch, 0, 106), 0);
}

/* Forward and back, each once; not what a slow hand does to it, nor what cannot be told. */
static void the_clock_jumps(void **state)
{
    (void)state;
    struct watch watch = {0};
    mono_t now = 5 * NS_PER_S;
    assert_int_equal(watch_clock(&watch, now, 1700000000000, now), 0); /* the first time */
    now += NS_PER_S;
    assert_int_equal(watch_clock(&watch, now, 1700000001000, now), 0);
    assert_int_equal(watch_clock(&watch, now, 1700000001999, now), 0);
    assert_int_equal(watch_clock(&watch, now, 1700000002998, now), 0);
    now += NS_PER_S;
    assert_int_equal(watch_clock(&watch, now, 1700000004998, now), 1000);
    assert_int_equal(watch_clock(&watch, now, 1700000004998, now), 0);
    assert_int_equal(watch_clock(&watch, now, 1600000004998, now), -100000000000);
    assert_int_equal(watch_clock(&watch, now, 1700000004998, now + NS_PER_S), 0); /* it was read at some time between */
    assert_int_equal(watch_clock(&watch, now, 1600000004998, now + NS_PER_S / 10), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(marks),
                                       cmocka_unit_test(memory_sways),
                                       cmocka_unit_test(freed_pages),
                                       cmocka_unit_test(looks_often_near_a_limit),
                                       cmocka_unit_test(disk_sways),
                                       cmocka_unit_test(freed_pages_when_idle),
                                       cmocka_unit_test(the_clock_jumps),
                                       cmocka_unit_test(hard_marks),
                                       cmocka_unit_test(what_is_owed_moves_the_disk_marks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
