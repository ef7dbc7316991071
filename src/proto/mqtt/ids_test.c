/* ids: against a plain array, and what they do without memory. */
#include "proto/mqtt/ids.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_ids_against_an_array(void **state)
{
    (void)state;
    static uint8_t plain[65536];
    struct ids ids;
    uint32_t dice = 5, count = 0;
    ids_init(&ids);
    for (unsigned round = 0; round < 200000; round++) {
        dice = dice * 1664525 + 1013904223;
        uint16_t id = (uint16_t)(1 + (dice >> 16) % (round % 3 ? 300 : 65535)), want = plain[id];
        struct id_entry *entry = ids_find(&ids, id);
        assert_int_equal(entry ? entry->state : 0, want);
        if (!entry && count < 1000) {
            entry = ids_put(&ids, id);
            assert_non_null(entry);
            entry->state = plain[id] = (uint8_t)(1 + (dice >> 8) % 5);
            count++;
        } else if (entry) {
            ids_remove(&ids, id);
            plain[id] = 0;
            count--;
        }
        assert_int_equal(ids.count, count);
    }
    for (unsigned id = 1; id < 65536; id++)
        if (plain[id])
            ids_remove(&ids, (uint16_t)id);
    assert_null(ids.entries);
    mem_fail_at(1, true);
    assert_null(ids_put(&ids, 1));
    mem_fail_at(0, false);
    for (uint16_t id = 1; id < 7; id++)
        assert_non_null(ids_put(&ids, id));
    mem_fail_at(1, true);
    while (ids.count < 8 && ids_put(&ids, (uint16_t)(100 + ids.count)))
        ;
    mem_fail_at(0, false);
    assert_true(ids.count < 8);
    assert_non_null(ids_find(&ids, 6));
    ids_fini(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_against_an_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
