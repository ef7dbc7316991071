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
    assert_int_equal(watch_disk_min(0, 100 * MIB), 64 * MIB);
    assert_int_equal(watch_disk_min(0, 10240 * MIB), 512 * MIB);
    assert_int_equal(watch_disk_min(0, 1024 * 1024 * MIB), 4096 * MIB);
    assert_int_equal(watch_disk_min(7, 1024 * 1024 * MIB), 7);
}

static void memory_sways(void **state)
{
    (void)state;
    struct watch watch = {.memory_mark = 1000, .disk_min = 100};
    assert_int_equal(watch_measure(&watch, 1000, 500), 0);
    assert_int_equal(watch_measure(&watch, 1001, 500), ALARM_MEMORY);
    assert_int_equal(watch_measure(&watch, 980, 500), ALARM_MEMORY);
    assert_int_equal(watch_measure(&watch, 949, 500), 0);
    assert_int_equal(watch_measure(&watch, 980, 500), 0);
}

static void disk_sways(void **state)
{
    (void)state;
    struct watch watch = {.memory_mark = 1000, .disk_min = 100};
    assert_int_equal(watch_measure(&watch, 0, 100), 0);
    assert_int_equal(watch_measure(&watch, 0, 99), ALARM_DISK);
    assert_int_equal(watch_measure(&watch, 2000, 105), ALARM_DISK | ALARM_MEMORY);
    assert_int_equal(watch_measure(&watch, 0, 106), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(marks), cmocka_unit_test(memory_sways),
                                       cmocka_unit_test(disk_sways)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
