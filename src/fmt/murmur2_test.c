/* Unit test of murmur2: the vectors of Kafka's own UtilsTest, and what kafka-python makes of every length of tail. */
#include "fmt/murmur2.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void vectors_of_kafka(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        int32_t hash;
        uint32_t of_twelve;
    } rows[] = {
        {"21", -973932308, 0},
        {"foobar", -790332482, 6},
        {"a-little-bit-long-string", -985981536, 8},
        {"a-little-bit-longer-string", -1486304829, 11},
        {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971, 5},
        {"abc", 479470107, 3},
        {"", 0x106e08d9, 9},
        {"a", (int32_t)0xa2d0b27c, 4},
        {"ab", 0x12d8262a, 2},
        {"abcd", (int32_t)0xb11ab5f4, 8},
        {"100048069", (int32_t)0x89da5d18, 8},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal((int32_t)murmur2(slice_str(rows[i].key)), rows[i].hash);
        assert_int_equal(murmur2_partition(slice_str(rows[i].key), 12), rows[i].of_twelve);
        assert_int_equal(murmur2_partition(slice_str(rows[i].key), 1), 0);
    }
}

static void bytes_have_no_sign_and_no_alignment(void **state)
{
    (void)state;
    uint8_t bytes[1 + 136];
    for (unsigned shift = 0; shift < 2; shift++) {
        for (unsigned i = 0; i < 136; i++)
            bytes[shift + i] = (uint8_t)(120 + i);
        assert_int_equal(murmur2(slice_of(bytes + shift, 136)), 0x9c31a995u);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_of_kafka),
        cmocka_unit_test(bytes_have_no_sign_and_no_alignment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
