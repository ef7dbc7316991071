/* Unit test of base64: the vectors of RFC 4648 section 10, round trips, and what strict means. */
#include "fmt/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void rfc_4648_vectors(void **state)
{
    (void)state;
    static const char *const rows[][3] = {{"", "", ""},
                                          {"f", "Zg==", "Zg"},
                                          {"fo", "Zm8=", "Zm8"},
                                          {"foo", "Zm9v", "Zm9v"},
                                          {"foob", "Zm9vYg==", "Zm9vYg"},
                                          {"fooba", "Zm9vYmE=", "Zm9vYmE"},
                                          {"foobar", "Zm9vYmFy", "Zm9vYmFy"},
                                          {"\xfb\xff\xfe", "+//+", "-__-"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[16];
        uint8_t back[8];
        struct slice in = slice_str(rows[i][0]);
        base64_encode(in, text);
        assert_string_equal(text, rows[i][1]);
        assert_int_equal(strlen(text), BASE64_LEN(in.len));
        assert_int_equal(base64_decode(slice_str(text), back, sizeof back), in.len);
        assert_memory_equal(back, in.ptr, in.len);
        assert_int_equal(base64_url_encode(in, text), strlen(rows[i][2]));
        assert_string_equal(text, rows[i][2]);
    }
}

static void any_bytes_come_back(void **state)
{
    (void)state;
    uint8_t in[100], back[100];
    char text[BASE64_LEN(100) + 1];
    for (size_t len = 0; len <= sizeof in; len++) {
        for (size_t i = 0; i < len; i++)
            in[i] = (uint8_t)(i * 151 + len * 17);
        base64_encode(slice_of(in, len), text);
        assert_int_equal(base64_decode(slice_str(text), back, len), len);
        assert_memory_equal(back, in, len);
        if (len)
            assert_int_equal(base64_decode(slice_str(text), back, len - 1), -1);
    }
}

static void everything_else_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"A",         "AA",      "AAA",     "A===",    "====", "=AAA",
                                      "AA=A",      "Zh==",    "Zm9=",    "Zm9-",    "Zm9_", "Zg==Zg==",
                                      "Zm9v\n   ", "Zm 9vYg", "Zg=\xc1", "Zm9vZg=A"};
    uint8_t room[16];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (base64_decode(slice_str(bad[i]), room, sizeof room) != -1)
            fail_msg("'%s' was taken", bad[i]);
    assert_int_equal(base64_decode(slice_of("Zg=\0", 4), room, sizeof room), -1);
}

/* Of all groups of four letters of a small alphabet exactly the canonical ones decode, each to bytes that encode to it. */
static void decoding_is_the_inverse_of_encoding(void **state)
{
    (void)state;
    static const char letters[] = "AQgBw/=\x80";
    for (unsigned n = 0; n < 8 * 8 * 8 * 8; n++) {
        char text[5] = {letters[n & 7], letters[n >> 3 & 7], letters[n >> 6 & 7], letters[n >> 9 & 7]}, again[5];
        uint8_t bytes[3];
        int64_t len = base64_decode(slice_of(text, 4), bytes, 3);
        if (len < 0)
            continue;
        base64_encode(slice_of(bytes, (size_t)len), again);
        assert_string_equal(again, text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_4648_vectors),
        cmocka_unit_test(any_bytes_come_back),
        cmocka_unit_test(everything_else_is_refused),
        cmocka_unit_test(decoding_is_the_inverse_of_encoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
