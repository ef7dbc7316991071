/* Lines of JSON, byte by byte. */
#include "fmt/json_line.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_every_kind_of_field(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    assert_non_null(out);
    json_line_begin(out, "page");
    json_line_number(out, "most", UINT64_MAX);
    json_line_signed(out, "least", INT64_MIN);
    json_line_hex(out, "uuid", (const uint8_t *)"\x00\xfe", 2);
    json_line_text(out, "text", "a \"quote\", a \\ and \n\x01\xc3 ~");
    json_line_flag(out, "yes", true);
    json_line_flag(out, "no", false);
    json_line_end(out);
    fclose(out);
    assert_string_equal(text, "{\"kind\": \"page\", \"most\": 18446744073709551615, \"least\": -9223372036854775808, "
                              "\"uuid\": \"00fe\", \"text\": \"a \\\"quote\\\", a \\\\ and \\u000a\\u0001\\u00c3 ~\", "
                              "\"yes\": true, \"no\": false}\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_kind_of_field)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
