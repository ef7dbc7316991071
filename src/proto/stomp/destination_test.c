/* Destinations: what each says, what is none, and that what is printed can be read back. */
#include "proto/stomp/destination.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void read_as(const char *text, const char *want)
{
    static const char *const results[] = {"ok", "unknown", "invalid", "blank"};
    struct stomp_destination d;
    struct slice rest;
    char got[1200];
    enum stomp_destination_result result = stomp_destination_parse(slice_str(text), &d, &rest);
    if (result == STOMP_DESTINATION_OK)
        snprintf(got, sizeof got, "%s %.*s %.*s", stomp_place_word(d.place), SLICE_ARG(d.name), SLICE_ARG(d.key));
    else if (result == STOMP_DESTINATION_INVALID)
        snprintf(got, sizeof got, "invalid %s '%.*s'", stomp_place_word(d.place), SLICE_ARG(rest));
    else
        snprintf(got, sizeof got, "%s", results[result]);
    if (strcmp(got, want) != 0)
        fail_msg("%s: %s instead of %s", text, got, want);
}

static void kinds(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"/queue/a", "queue a "},
        {"a", "queue a "},
        {"a.b%2Fc", "queue a.b/c "},
        {"/queue/a%2Fb", "queue a/b "},
        {"/queue/100%", "queue 100% "},
        {"/queue/a%20b", "queue a%20b "},
        {"/queue/a%25b", "queue a%b "},
        {"/queue/%C3%A9", "queue \xc3\xa9 "},
        {"/queue/a/b", "invalid queue '/a/b'"},
        {"/queue/", "invalid queue '/'"},
        {"/queue", "invalid queue ''"},
        {"/topic/a.*.#", "topic a.*.# "},
        {"/topic", "invalid topic ''"},
        {"/exchange/x", "exchange x "},
        {"/exchange/x/a.b", "exchange x a.b"},
        {"/exchange/x/", "exchange x "},
        {"/exchange/x%2Fy/a%2Fb", "exchange x/y a/b"},
        {"/exchange/x/a/b", "invalid exchange '/x/a/b'"},
        {"/exchange//a", "invalid exchange '//a'"},
        {"/exchange", "invalid exchange ''"},
        {"/amq/queue/q", "amqqueue q "},
        {"/amq/queue/", "invalid amqqueue '/'"},
        {"/amq/q", "unknown"},
        {"/temp-queue/x", "temp_queue x "},
        {"/reply-queue/amq.gen-a/b", "reply_queue amq.gen-a/b "},
        {"/reply-queue", "unknown"},
        {"/reply-queue/", "invalid reply_queue '/'"},
        {"/queues/a", "unknown"},
        {"/", "unknown"},
        {"a/b", "unknown"},
        {"", "blank"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        read_as(rows[i][0], rows[i][1]);
}

static void names_are_bounded(void **state)
{
    (void)state;
    char text[1100] = "/queue/";
    struct stomp_destination d;
    struct slice rest;
    memset(text + 7, 'a', 255);
    text[7 + 255] = '\0';
    assert_int_equal(stomp_destination_parse(slice_str(text), &d, &rest), STOMP_DESTINATION_OK);
    memcpy(text + 7 + 255, "b", 2);
    assert_int_equal(stomp_destination_parse(slice_str(text), &d, &rest), STOMP_DESTINATION_INVALID);
}

static void prints(const char *exchange, const char *key, const char *want)
{
    uint8_t room[STOMP_DESTINATION_MAX];
    size_t len = stomp_destination_print(room, slice_str(exchange), slice_str(key), slice_str("amq.topic"));
    assert_int_equal(len, strlen(want));
    assert_memory_equal(room, want, len);
}

static void printed(void **state)
{
    (void)state;
    prints("", "a", "/queue/a");
    prints("", "a/b%c", "/queue/a%2Fb%25c");
    prints("", "\xc3\xa9\x01", "/queue/%C3%A9%01");
    prints("amq.topic", "a.b", "/topic/a.b");
    prints("x", "", "/exchange/x");
    prints("x/y", "k", "/exchange/x%2Fy/k");
}

static void every_byte_comes_back(void **state)
{
    (void)state;
    uint8_t name[255], room[STOMP_DESTINATION_MAX];
    struct stomp_destination d;
    struct slice rest, key = slice_of(name, sizeof name);
    for (size_t i = 0; i < sizeof name; i++)
        name[i] = (uint8_t)(i + 1);
    size_t len = stomp_destination_print(room, slice_str("x"), key, slice_str("amq.topic"));
    assert_int_equal(stomp_destination_parse(slice_of(room, len), &d, &rest), STOMP_DESTINATION_OK);
    assert_true(slice_equal(d.key, key));
    len = stomp_destination_print(room, key, key, slice_str("amq.topic"));
    assert_int_equal(stomp_destination_parse(slice_of(room, len), &d, &rest), STOMP_DESTINATION_OK);
    assert_true(slice_equal(d.name, key) && slice_equal(d.key, key));
}

static void replies(void **state)
{
    (void)state;
    assert_true(stomp_is_destination(slice_str("/queue/a")));
    assert_true(stomp_is_destination(slice_str("/reply-queue/a")));
    assert_false(stomp_is_destination(slice_str("amq.gen-1")));
    assert_false(stomp_is_destination(slice_str("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds),   cmocka_unit_test(names_are_bounded),     cmocka_unit_test(printed),
        cmocka_unit_test(replies), cmocka_unit_test(every_byte_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
