/* Messages as text: pairs, properties, times, lines of JSON there and back, and what is no message. */
#include "main/talk/text.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void pairs(void **state)
{
    static const struct {
        const char *pair, *json; /* NULL: malformed */
    } rows[] = {
        {"a=b", "{\"a\":\"b\"}"},
        {"a=", "{\"a\":\"\"}"},
        {"a=b=c", "{\"a\":\"b=c\"}"},
        {"a:=1", "{\"a\":1}"},
        {"a:=[1,{}]", "{\"a\":[1,{}]}"},
        {"a:=null", "{\"a\":null}"},
        {"a:b=c", "{\"a:b\":\"c\"}"},
        {"a::=1", "{\"a:\":1}"},
        {"a", NULL},
        {"=b", NULL},
        {":=1", NULL},
        {"a:=", NULL},
        {"a:=nonsense", NULL},
        {"", NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *object = json_object(), *want = rows[i].json ? json_loads(rows[i].json, 0, NULL) : json_object();
        assert_int_equal(talk_pair_set(object, rows[i].pair), rows[i].json != NULL);
        assert_true(json_equal(object, want));
        json_decref(object);
        json_decref(want);
    }
}

static void properties(void **state)
{
    static const struct {
        const char *pair, *json;
    } rows[] = {
        {"content-type=a/b", "{\"content_type\":\"a/b\"}"},
        {"Content_Type=a", "{\"content_type\":\"a\"}"},
        {"expiration=10", "{\"expiration\":\"10\"}"},
        {"priority=3", "{\"priority\":3}"},
        {"delivery-mode=1", "{\"delivery_mode\":1}"},
        {"timestamp=7", "{\"timestamp\":7}"},
        {"priority=x", NULL},
        {"priority=", NULL},
        {"priority=-1", NULL},
        {"colour=red", NULL},
        {"type", NULL},
        {"headers=x", NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *object = json_object(), *want = rows[i].json ? json_loads(rows[i].json, 0, NULL) : json_object();
        assert_int_equal(talk_property_set(object, rows[i].pair), rows[i].json != NULL);
        assert_true(json_equal(object, want));
        json_decref(object);
        json_decref(want);
    }
}

static void times(void **state)
{
    static const struct {
        const char *text;
        wall_t time; /* -1: none */
    } rows[] = {
        {"1970-01-01", 0},
        {"1970-01-02T00:00:01", 86401000},
        {"2026-11-26T13:05:09Z", 1795698309000},
        {"2026-11-26 13:05:09", 1795698309000},
        {"2026-11-26T13:05", 1795698300000},
        {"10s", 990000},
        {"16m", 40000},
        {"0h", 1000000},
        {"10", -1},
        {"10x", -1},
        {"-10s", -1},
        {"first", -1},
        {"2026-11-26T13:05:09+01:00", -1},
        {"2026-13-01", -1},
        {"", -1},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        wall_t time = -1;
        if (talk_time_parse(rows[i].text, 1000000, &time) != (rows[i].time >= 0) || time != rows[i].time)
            fail_msg("%s: %lld", rows[i].text, (long long)time);
    }
}

static void print_to(char *ret, size_t len, enum talk_form form, const struct talk_message *message)
{
    FILE *to = fmemopen(ret, len, "w");
    assert_true(talk_print(to, form, message));
    fclose(to);
}

static void there_and_back(void **state)
{
    static const char *const bodies[] = {"", "text", "\xce\xba", "{\"a\":1}"};
    char line[600], again[600], why[100], *body;
    size_t before = mem_in_use();
    (void)state;
    for (size_t i = 0; i <= ARRAY_LEN(bodies); i++) {
        struct talk_message message = {.about =
                                           json_pack("{s:s, s:{s:i}}", "exchange", "x", "properties", "priority", 3),
                                       .body = i < ARRAY_LEN(bodies) ? slice_str(bodies[i]) : slice_of("\xff\0\1", 3)},
                            back;
        print_to(line, sizeof line, TALK_JSON, &message);
        assert_true(talk_parse(slice_str(line), &back, &body, why, sizeof why));
        assert_true(slice_equal(back.body, message.body));
        assert_true(json_equal(back.about, message.about));
        print_to(again, sizeof again, TALK_JSON, &back);
        assert_string_equal(again, line);
        mem_free(body);
        json_decref(back.about);
        json_decref(message.about);
    }
    assert_int_equal(mem_in_use(), before);
}

static void what_is_no_message(void **state)
{
    static const char *const rows[] = {"",
                                       "1",
                                       "[]",
                                       "{",
                                       "{\"payload\":1}",
                                       "{\"payload\":\"x\",\"payload_encoding\":\"rot13\"}",
                                       "{\"payload\":\"!\",\"payload_encoding\":\"base64\"}",
                                       "{\"properties\":[]}"};
    size_t before = mem_in_use();
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct talk_message message;
        char why[200] = "", *body;
        assert_false(talk_parse(slice_str(rows[i]), &message, &body, why, sizeof why));
        assert_true(why[0] && !body && !message.about);
    }
    assert_int_equal(mem_in_use(), before);
}

static void for_people(void **state)
{
    char text[600];
    struct talk_message message = {.about = json_pack("{s:s, s:s, s:b, s:b, s:{s:s, s:{s:i}}}", "exchange", "",
                                                      "routing_key", "k", "redelivered", 0, "yes", 1, "properties",
                                                      "type", "t", "headers", "n", 1),
                                   .body = slice_str("{\"a\": [1]}")};
    (void)state;
    print_to(text, sizeof text, TALK_PRETTY, &message);
    assert_string_equal(text, "--  routing_key=k  yes  type=t  headers.n=1\n{\n  \"a\": [\n    1\n  ]\n}\n");
    message.body = slice_of("\x01\x02", 2);
    print_to(text, sizeof text, TALK_PRETTY, &message);
    assert_non_null(strstr(text, "(2 bytes that are no text)\n  01 02\n"));
    print_to(text, sizeof text, TALK_RAW, &message);
    assert_string_equal(text, "\x01\x02\n");
    json_decref(message.about);
}

/* Whoever publishes does not talk to the reader's terminal. */
static void a_terminal_obeys_nobody(void **state)
{
    static const char *const bodies[] = {"{\"a\":\"\\u001b]0;x\\u0007\\u009b2J\"}", "\033[2J", "\302\2332J",
                                         "plain \xc3\xa9"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        char *text;
        size_t len;
        FILE *to = open_memstream(&text, &len);
        struct talk_message message = {.body = slice_str(bodies[i])};
        message.about = json_pack("{s:s, s:{s:{s:s}}}", "destination", "a\nb\033[2J", "properties", "headers", "x\033",
                                  "\xc2\x9b\x7f");
        assert_true(talk_print(to, TALK_PRETTY, &message));
        fclose(to);
        assert_null(memchr(text, 0x1b, len));
        assert_null(memchr(text, 7, len));
        assert_null(memchr(text, 0x7f, len));
        assert_null(memmem(text, len, "\xc2\x9b", 2));
        assert_non_null(strstr(text, "--  destination=a\\x0ab\\x1b[2J  headers.x\\x1b=\\x9b\\x7f\n"));
        assert_int_equal(strstr(text, "plain \xc3\xa9\n") != NULL, i == 3);
        json_decref(message.about);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs),
        cmocka_unit_test(properties),
        cmocka_unit_test(times),
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(a_terminal_obeys_nobody),
        cmocka_unit_test(what_is_no_message),
        cmocka_unit_test(for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
