/* Unit test of the headers exchange's matching: the rows of RabbitMQ's rules, and its texts for a bad x-match. */
#include "core/headers.h"

#include "fmt/amqp_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* A table from a short notation: "name=text", "name:12" (signedint), "name~1.5" (double), "name?" (void), "name!" (true),
 * "name@5" (timestamp), separated by commas. */
struct built {
    uint8_t bytes[512];
    struct slice table;
};

static void put_one(struct writer *w, const char *name, char sign, const char *value)
{
    double d = sign == '~' ? strtod(value, NULL) : 0;
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    switch (sign) {
    case '=': amqp_put_str(w, name, slice_str(value)); return;
    case ':': amqp_put_int(w, name, (int32_t)strtol(value, NULL, 10)); return;
    case '!': amqp_put_bool(w, name, true); return;
    case '@': amqp_put_time(w, name, strtoul(value, NULL, 10)); return;
    default: break;
    }
    writer_str8(w, slice_str(name));
    writer_u8(w, sign == '~' ? 'd' : 'V');
    if (sign == '~')
        writer_u64(w, bits);
}

static struct slice build(struct built *b, const char *text)
{
    char copy[256], *rest = copy;
    struct writer w = writer_of(b->bytes, sizeof b->bytes);
    snprintf(copy, sizeof copy, "%s", text);
    for (char *one = strsep(&rest, ","); one; one = strsep(&rest, ",")) {
        size_t name_len = strcspn(one, "=:~?!@");
        char sign = one[name_len];
        if (!sign)
            continue;
        one[name_len] = '\0';
        put_one(&w, one, sign, one + name_len + 1);
    }
    assert_true(writer_ok(&w));
    b->table = writer_slice(&w);
    assert_true(amqp_table_valid(b->table));
    return b->table;
}

static const struct {
    const char *args, *headers;
    bool match;
} rows[] = {
    {"", "", true},
    {"x-match=all", "", true},
    {"x-match=all", "a=1", true},
    {"x-match=any", "a=1", false},
    {"x-match=any", "", false},
    {"a=1,b=2", "a=1,b=2,c=3", true},
    {"a=1,b=2", "b=2,a=1", true},
    {"a=1,b=2", "a=1", false},
    {"a=1,b=2", "a=1,b=3", false},
    {"x-match=any,a=1,b=2", "b=2", true},
    {"x-match=any,a=1,b=2", "c=2", false},
    {"x-match=any,a=1,b=2", "a=2,b=1", false},
    {"x-match=all,a?", "a:7", true},
    {"x-match=all,a?", "b:7", false},
    {"x-match=any,a?,b=1", "a=7", true},
    {"x-match=all,x-a=1,b=1", "b=1", true},
    {"x-match=all,x-a=1", "", true},
    {"x-match=any,x-a=1", "x-a=1", false},
    {"x-match=all-with-x,x-a=1,b=1", "b=1", false},
    {"x-match=all-with-x,x-a=1,b=1", "b=1,x-a=1", true},
    {"x-match=all-with-x", "x-match=no", true},
    {"x-match=any-with-x,x-a=1", "x-a=1", true},
    {"x-match=any-with-x,x-a=1", "x-match=any-with-x", false},
    {"x-match=nonsense,a=1", "a=1", true},
    {"x-match:1,a=1", "a=2", false},
    {"a:1", "a=1", false},
    {"a:1", "a!", false},
    {"a:1", "a~1", true},
    {"a~1", "a@1", true},
    {"a:1", "a~1.5", false},
    {"a!", "a!", true},
    {"a:5", "a@5", true},
};

static void rows_match_as_rabbitmq_does(void **state)
{
    (void)state;
    struct built args, headers;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (headers_match(build(&args, rows[i].args), build(&headers, rows[i].headers)) != rows[i].match)
            fail_msg("{%s} and {%s}", rows[i].args, rows[i].headers);
}

static void a_bad_x_match_is_told_in_rabbitmq_words(void **state)
{
    (void)state;
    struct built args;
    char text[200] = "untouched";
    static const char *const good[] = {
        "", "a=1", "x-match=all", "x-match=any", "x-match=all-with-x", "x-match=any-with-x"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(headers_args_valid(build(&args, good[i]), text, sizeof text));
    assert_string_equal(text, "untouched");
    assert_false(headers_args_valid(build(&args, "x-match=both"), text, sizeof text));
    assert_string_equal(text, "Invalid x-match field value <<\"both\">>; "
                              "expected all, any, all-with-x, or any-with-x");
    assert_false(headers_args_valid(build(&args, "x-match:5"), text, sizeof text));
    assert_string_equal(text, "Invalid x-match field type signedint (value 5); expected longstr");
    assert_false(headers_args_valid(build(&args, "x-match:5"), text, 10));
    assert_string_equal(text, "Invalid x");
}

/* Many fields in the same and in the opposite order; both must find all of them. */
static void order_does_not_matter(void **state)
{
    (void)state;
    static uint8_t up_bytes[16384], down_bytes[16384];
    struct writer up = writer_of(up_bytes, sizeof up_bytes), down = writer_of(down_bytes, sizeof down_bytes);
    for (int i = 0; i < AMQP_TABLE_FIELDS_MAX; i++) {
        char name[8];
        snprintf(name, sizeof name, "n%d", i);
        amqp_put_int(&up, name, i);
        snprintf(name, sizeof name, "n%d", AMQP_TABLE_FIELDS_MAX - 1 - i);
        amqp_put_int(&down, name, AMQP_TABLE_FIELDS_MAX - 1 - i);
    }
    assert_true(writer_ok(&up) && writer_ok(&down));
    struct slice a = writer_slice(&up), b = writer_slice(&down);
    assert_true(amqp_table_valid(a) && amqp_table_valid(b));
    assert_true(headers_match(a, a) && headers_match(a, b) && headers_match(b, a));
    down_bytes[down.len - 1] ^= 1; /* the value of n0 */
    assert_false(headers_match(a, b));
    assert_false(headers_match(b, a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_match_as_rabbitmq_does),
        cmocka_unit_test(a_bad_x_match_is_told_in_rabbitmq_words),
        cmocka_unit_test(order_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
