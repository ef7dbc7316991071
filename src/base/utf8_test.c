/* UTF-8: every code point, and everything next to what is allowed. */
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Writes the code point as if nothing were forbidden. */
static size_t put(uint8_t *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (uint8_t)(0xc0 | c >> 6);
        to[1] = (uint8_t)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (uint8_t)(0xe0 | c >> 12);
        to[1] = (uint8_t)(0x80 | (c >> 6 & 63));
        to[2] = (uint8_t)(0x80 | (c & 63));
        return 3;
    }
    to[0] = (uint8_t)(0xf0 | c >> 18);
    to[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    to[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    to[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

static void test_every_code_point(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x1fffff; c++) {
        uint8_t room[12] = "aaaaaaaaaaa";
        size_t n = put(room + 3, c);
        bool good = c < 0xd800 || (c > 0xdfff && c <= 0x10ffff);
        assert_int_equal(utf8_char(slice_of(room + 3, n)), good ? n : 0);
        assert_int_equal(utf8_valid(slice_of(room, 11)), good);
        for (size_t cut = 1; cut < n; cut++)
            assert_false(utf8_valid(slice_of(room, 3 + cut)));
    }
}

static void test_what_is_no_character(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x80\x80",
                                      "\xe0\x9f\xbf",
                                      "\xf0\x80\x80\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf5\x80\x80\x80",
                                      "\xf8\x88\x80\x80\x80",
                                      "\xff",
                                      "\xc3(",
                                      "\xe2\x82(",
                                      "\xe2(\xa1",
                                      "\xf0\x9f\x92(",
                                      "\xf0\x9f(\xa9",
                                      "12345678\x80",
                                      "1234567\x80"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(utf8_valid(slice_str(bad[i])));
    assert_true(utf8_valid(slice_of(NULL, 0)));
    assert_true(utf8_valid(slice_of("\0", 1)));
    assert_true(utf8_valid(slice_str("12345678 gr\xc3\xbc\xc3\x9f \xf0\x9f\x92\xa9 \xe2\x82\xac")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_what_is_no_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
