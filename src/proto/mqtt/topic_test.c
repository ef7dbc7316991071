/* Topics: the rules of section 4.7, keys and back, and matching against a plain one written another way. */
#include "proto/mqtt/topic.h"

#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void test_names(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "/", "//", "a/b", "$SYS/x", " ", "a b/c", "*", "a/*/b", ".", "\xc3\xbc"};
    static const char *const bad[] = {"", "+", "#", "a/+", "a/#", "a+b", "a#"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(mqtt_topic_valid(slice_str(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(mqtt_topic_valid(slice_str(bad[i])));
}

static void test_filters(void **state)
{
    (void)state;
    static const char *const good[] = {"a",   "/",     "#",  "+",   "+/+",    "/+", "+/",
                                       "a/#", "a/+/#", "/#", "+/#", "$SYS/#", "a.*"};
    static const char *const bad[] = {"", "a#", "#/", "#/a", "a/#/b", "##", "a+", "+a", "a/+b/c", "++", "a/b#", "/##"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(mqtt_filter_valid(slice_str(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(mqtt_filter_valid(slice_str(bad[i])));
}

static void test_shared(void **state)
{
    (void)state;
    struct mqtt_filter f;
    assert_true(mqtt_filter_parse(slice_str("$share/g/a/+/#"), &f));
    assert_true(f.shared);
    assert_true(slice_is(f.group, "g"));
    assert_true(slice_is(f.filter, "a/+/#"));
    assert_true(mqtt_filter_parse(slice_str("$share/g//"), &f));
    assert_true(slice_is(f.filter, "/"));
    assert_true(mqtt_filter_parse(slice_str("$shared/g"), &f));
    assert_false(f.shared);
    assert_true(slice_is(f.filter, "$shared/g"));
    static const char *const bad[] = {"$share",     "$share/",     "$share/g",     "$share/g/",   "$share//a",
                                      "$share/+/a", "$share/g#/a", "$share/g/a#b", "$share/g/#/a"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(mqtt_filter_parse(slice_str(bad[i]), &f));
}

static void assert_topic(const char *key, size_t len, const char *topic)
{
    uint8_t room[MQTT_TOPIC_OF_KEY_MAX];
    size_t n = mqtt_topic_of_key(slice_of(key, len), room);
    assert_int_equal(n, strlen(topic));
    assert_memory_equal(room, topic, n);
}

static void test_keys(void **state)
{
    (void)state;
    static const struct {
        const char *topic, *key;
    } pairs[] = {{"test/topic", "test.topic"},
                 {"a/+/#", "a.*.#"},
                 {"v1.2/x", "v1/2.x"},
                 {"/", "."},
                 {"a//b", "a..b"},
                 {"x/*/y", "x.+.y"},
                 {"$SYS/a", "$SYS.a"},
                 {"50%2F/a", "50%2F.a"},
                 {"gr\xc3\xbcn/1", "gr\xc3\xbcn.1"}};
    uint8_t room[MQTT_KEY_MAX];
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct slice topic = slice_str(pairs[i].topic), key = slice_str(pairs[i].key);
        mqtt_topic_swap(room, topic);
        assert_true(slice_equal(slice_of(room, topic.len), key));
        mqtt_topic_swap(room, slice_of(room, topic.len));
        assert_true(slice_equal(slice_of(room, topic.len), topic));
        if (mqtt_topic_valid(topic))
            assert_topic(pairs[i].key, key.len, pairs[i].topic);
    }
    assert_topic("a.*.#", 5, "a/%2A/%23");
    assert_topic("", 0, "%00");
    assert_topic("a\0b", 3, "a%00b");
    assert_topic("\xff.\xc3", 3, "%FF/%C3");
    assert_topic("a/b+c", 5, "a.b*c");
}

/* Whatever the key is: the topic is one that a client may be told, and of a valid topic's key it is that topic. */
static void test_every_key_has_a_topic(void **state)
{
    (void)state;
    uint32_t dice = 1;
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t key[MQTT_TOPIC_OF_KEY_MAX], topic[MQTT_TOPIC_OF_KEY_MAX], again[MQTT_TOPIC_OF_KEY_MAX];
        size_t len = round % (MQTT_KEY_MAX + 1);
        for (size_t i = 0; i < len; i++) {
            dice = dice * 1664525 + 1013904223;
            key[i] = round & 1 ? (uint8_t)(dice >> 24) : (uint8_t) "./+*#%a2"[dice >> 24 & 7];
        }
        size_t n = mqtt_topic_of_key(slice_of(key, len), topic);
        struct slice t = slice_of(topic, n);
        assert_true(n >= 1 && n <= MQTT_TOPIC_OF_KEY_MAX);
        assert_true(mqtt_topic_valid(t) && utf8_valid(t) && !memchr(topic, 0, n));
        if (n > MQTT_KEY_MAX)
            continue;
        mqtt_topic_swap(again, t);
        assert_int_equal(mqtt_topic_of_key(slice_of(again, n), key), n);
        assert_memory_equal(key, topic, n);
    }
}

/* The words of a key, one after the other. */
static bool plain_matches(const char *pattern, const char *key)
{
    if (strcmp(pattern, "#") == 0)
        return true;
    const char *pe = strchrnul(pattern, '.'), *ke = strchrnul(key, '.');
    bool same = (pe - pattern == 1 && *pattern == '*') ||
                (pe - pattern == ke - key && memcmp(pattern, key, (size_t)(ke - key)) == 0);
    if (!same)
        return false;
    if (!*ke)
        return !*pe || strcmp(pe, ".#") == 0;
    return *pe && plain_matches(pe + 1, ke + 1);
}

static void test_matching(void **state)
{
    (void)state;
    static const char *const words[] = {"", "a", "ab", "b"};
    static const char *const pattern_words[] = {"", "a", "ab", "b", "*", "#"};
    unsigned matches = 0;
    for (unsigned p = 0; p < 6 * 6 * 6 * 3; p++) {
        char pattern[32], key[32];
        unsigned n = p / 216, w[] = {p % 6, p / 6 % 6, p / 36 % 6};
        pattern[0] = '\0';
        bool valid = true;
        for (unsigned i = 0; i <= n; i++) {
            snprintf(pattern + strlen(pattern), 8, "%s%s", i ? "." : "", pattern_words[w[i]]);
            valid &= i == n || w[i] != 5;
        }
        if (!valid || !*pattern)
            continue;
        for (unsigned k = 0; k < 4 * 4 * 4 * 3; k++) {
            unsigned kw[] = {k % 4, k / 4 % 4, k / 16 % 4};
            key[0] = '\0';
            for (unsigned i = 0; i <= k / 64; i++)
                snprintf(key + strlen(key), 8, "%s%s", i ? "." : "", words[kw[i]]);
            if (!*key)
                continue;
            bool plain = plain_matches(pattern, key);
            matches += plain;
            assert_int_equal(mqtt_pattern_matches(slice_str(pattern), slice_str(key)), plain);
        }
    }
    assert_true(matches > 100);
}

static void test_dollar(void **state)
{
    (void)state;
    struct slice key = slice_str("$SYS.broker");
    assert_false(mqtt_pattern_matches(slice_str("#"), key));
    assert_false(mqtt_pattern_matches(slice_str("*.broker"), key));
    assert_false(mqtt_pattern_matches(slice_str("*.#"), key));
    assert_true(mqtt_pattern_matches(slice_str("$SYS.#"), key));
    assert_true(mqtt_pattern_matches(slice_str("$SYS.*"), key));
    assert_true(mqtt_pattern_matches(slice_str("#"), slice_str("a.$SYS")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),  cmocka_unit_test(test_filters),  cmocka_unit_test(test_shared),
        cmocka_unit_test(test_keys),   cmocka_unit_test(test_matching), cmocka_unit_test(test_every_key_has_a_topic),
        cmocka_unit_test(test_dollar),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
