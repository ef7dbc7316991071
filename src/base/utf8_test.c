/* Unit test of the UTF-8 check: every sequence of up to three bytes against a decoder of the simplest kind, and texts cut
 * at every byte. */
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Decodes by the definition: the shortest form of a scalar value. */
static bool by_definition(const uint8_t *p, size_t len)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    while (len) {
        unsigned more = *p < 0x80 ? 0 : (*p & 0xe0) == 0xc0 ? 1 : (*p & 0xf0) == 0xe0 ? 2 : (*p & 0xf8) == 0xf0 ? 3 : 9;
        if (more >= len)
            return false;
        uint32_t value = more ? *p & (0x3fu >> more) : *p;
        for (unsigned i = 1; i <= more; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return false;
            value = value << 6 | (p[i] & 0x3f);
        }
        if (value < least[more] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
            return false;
        p += more + 1;
        len -= more + 1;
    }
    return true;
}

static void short_sequences(void **state)
{
    (void)state;
    for (uint32_t v = 0; v < 1u << 24; v++) {
        uint8_t bytes[4] = {(uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v, 0};
        if (utf8_valid(slice_of(bytes, 3)) != by_definition(bytes, 3))
            fail_msg("%02x %02x %02x", bytes[0], bytes[1], bytes[2]);
    }
}

static void four_bytes(void **state)
{
    static const uint8_t edges[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    (void)state;
    for (unsigned first = 0x7f; first < 0x100; first++)
        for (size_t i = 0; i < ARRAY_LEN(edges); i++)
            for (size_t j = 0; j < ARRAY_LEN(edges); j++)
                for (size_t k = 0; k < ARRAY_LEN(edges); k++) {
                    uint8_t bytes[] = {(uint8_t)first, edges[i], edges[j], edges[k]};
                    assert_int_equal(utf8_valid(slice_of(bytes, 4)), by_definition(bytes, 4));
                }
}

static void cut_anywhere(void **state)
{
    static const char text[] =
        "plain ASCII first \xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5 \xf0\x9f\x90\x98 and after it";
    static const char bad[] = "plain ASCII first \xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80 and after it";
    (void)state;
    for (size_t cut = 0; cut < sizeof text; cut++) {
        struct utf8 u = {0}, v = {0};
        assert_true(utf8_step(&u, slice_of(text, cut)));
        assert_int_equal(utf8_whole(&u), utf8_valid(slice_of(text, cut)));
        assert_true(utf8_step(&u, slice_of(text + cut, sizeof text - cut)) && utf8_whole(&u));
        if (cut < sizeof bad)
            assert_false(utf8_step(&v, slice_of(bad, cut)) && utf8_step(&v, slice_of(bad + cut, sizeof bad - cut)));
    }
}

static void what_is_unfinished(void **state)
{
    struct utf8 u = {0};
    (void)state;
    assert_true(utf8_step(&u, slice_str("a\xf0\x9f\x90")));
    assert_int_equal(u.seen, 3);
    assert_int_equal(u.left, 1);
    assert_true(utf8_valid(slice_of(NULL, 0)));
}

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

static void every_code_point(void **state)
{
    (void)state;
    assert_int_equal(utf8_char(slice_of(NULL, 0)), 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_code_point), cmocka_unit_test(short_sequences),
                                       cmocka_unit_test(four_bytes), cmocka_unit_test(cut_anywhere),
                                       cmocka_unit_test(what_is_unfinished)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
