/* Selectors: what is selected, what is not, what is no condition, and that nothing takes long. */
#include "fmt/selector.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct header {
    const char *name;
    struct selector_value value;
} headers[] = {
#define TEXT(name, text)                                                                                               \
    {                                                                                                                  \
        name,                                                                                                          \
        {                                                                                                              \
            .kind = SELECT_TEXT, .s = {(const uint8_t *)(text), sizeof(text) - 1 }                                     \
        }                                                                                                              \
    }
    TEXT("color", "blue"),
    TEXT("word", "it's"),
    TEXT("n", "7"),
    TEXT("minus", "-2.5"),
    TEXT("yes", "true"),
    TEXT("no", "False"),
    TEXT("a-b", "dash"),
    TEXT("a.b", "dot"),
    TEXT("path", "100%_x"),
    {"five", {.kind = SELECT_LONG, .i = 5}},
    {"half", {.kind = SELECT_DOUBLE, .d = 0.5}},
    {"flag", {.kind = SELECT_BOOL, .b = true}},
    {"most", {.kind = SELECT_LONG, .i = INT64_MAX}},
#undef TEXT
};

static struct selector_value lookup(const void *message, struct slice name)
{
    (void)message;
    for (size_t i = 0; i < ARRAY_LEN(headers); i++)
        if (slice_is(name, headers[i].name))
            return headers[i].value;
    return (struct selector_value){.kind = SELECT_NULL};
}

static bool matches(const char *text)
{
    struct selector_node nodes[SELECTOR_NODES_MAX];
    char why[100];
    int count = selector_parse(slice_str(text), nodes, ARRAY_LEN(nodes), why, sizeof why);
    if (count < 0)
        fail_msg("%s: %s", text, why);
    return selector_matches(nodes, (unsigned)count, lookup, NULL, 0, &(unsigned){0});
}

static void selected(void **state)
{
    (void)state;
    static const char *const yes[] = {
        "color = 'blue'",
        "color <> 'red'",
        "COLOR IS NULL", /* names have their case, keywords have not */
        "color is not null",
        "word = 'it''s'",
        "n > 6 AND n < 8",
        "n = 7.0",
        "five >= 5 and five <= 5",
        "five + 2 * 3 = 11",
        "(five + 2) * 3 = 21",
        "five - -2 = n",
        "five / 2 = 2",
        "five / 2.0 = 2.5",
        "-five = -5",
        "minus < 0",
        "half = 0.5 OR nothing = 1",
        "nothing = 1 OR half = 5e-1",
        "five = 0x5",
        "five = 5L",
        "NOT (nothing IS NOT NULL)",
        "NOT NOT flag",
        "flag",
        "flag = TRUE",
        "yes",
        "yes = true",
        "no = FALSE",
        "NOT no",
        "five BETWEEN 5 AND 6",
        "five NOT BETWEEN 6 AND 9",
        "n BETWEEN 6 AND 8",
        "color IN ('red', 'blue')",
        "color NOT IN ('red')",
        "word IN ('it''s')",
        "color LIKE 'b%'",
        "color LIKE '%u%'",
        "color LIKE 'b_ue'",
        "color LIKE '%'",
        "color LIKE 'blue'",
        "color NOT LIKE 'r%'",
        "path LIKE '100\\%\\__' ESCAPE '\\'",
        "word LIKE 'it''_'",
        "\"a-b\" = 'dash'",
        "a.b = 'dot'",
        "convert_string_expressions:n > 5",
        "\"color\"='blue'AND(five=5)",
    };
    static const char *const no[] = {
        "color = 'red'",
        "color > 'a'", /* text has no order */
        "color = 5",
        "color <> 5",
        "nothing = 1",
        "nothing <> 1",
        "NOT (nothing = 1)", /* unknown stays unknown */
        "nothing IN ('a')",
        "nothing NOT IN ('a')",
        "nothing LIKE '%'",
        "nothing NOT LIKE '%'",
        "nothing BETWEEN 1 AND 2",
        "nothing AND flag",
        "five = '5'  AND five <> 5",
        "five IN ('5')",
        "five / 0 = 1",
        "five / 0 <> 1",
        "most + 1 > 0",
        "five",
        "'blue'",
        "color LIKE 'b'",
        "color LIKE '_'",
        "color LIKE ''",
        "path LIKE '100\\%' ESCAPE '\\'",
        "flag = FALSE",
        "no",
    };
    for (size_t i = 0; i < ARRAY_LEN(yes); i++)
        if (!matches(yes[i]))
            fail_msg("not selected: %s", yes[i]);
    for (size_t i = 0; i < ARRAY_LEN(no); i++)
        if (matches(no[i]))
            fail_msg("selected: %s", no[i]);
}

static void no_conditions(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"", "a value is missing at 1"},
        {"a =", "a value is missing at 4"},
        {"= 5", "a value is missing at 1"},
        {"a = 5 b", "something is left over at 7"},
        {"(a = 5", "a bracket is not closed at 7"},
        {"a = 'x", "what is not understood at 5"},
        {"a = \"x", "what is not understood at 5"},
        {"a ? 5", "what is not understood at 3"},
        {"a = 5x", "what is not understood at 5"},
        {"a = 99999999999999999999", "what is not understood at 5"},
        {"a BETWEEN 1", "BETWEEN wants AND at 12"},
        {"a IN 'x'", "IN wants a list in brackets at 6"},
        {"a IN ()", "IN wants texts at 7"},
        {"a IN (5)", "IN wants texts at 7"},
        {"a LIKE 5", "LIKE wants a text at 8"},
        {"a LIKE 'x' ESCAPE 'xy'", "ESCAPE wants one character at 19"},
        {"a NOT 5", "NOT wants BETWEEN, IN or LIKE here at 7"},
        {"a IS 5", "IS wants NULL at 6"},
        {"AND", "a value is missing at 1"},
        {"a = NULL", "a value is missing at 5"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct selector_node nodes[16];
        char why[100] = "";
        int count = selector_parse(slice_str(rows[i][0]), nodes, ARRAY_LEN(nodes), why, sizeof why);
        if (count >= 0 || strcmp(why, rows[i][1]) != 0)
            fail_msg("%s: %d, %s", rows[i][0], count, why);
    }
}

static void bounded(void **state)
{
    (void)state;
    static char text[2 * SELECTOR_TEXT_MAX];
    struct selector_node nodes[SELECTOR_NODES_MAX];
    char why[100];
    memset(text, '(', 100);
    assert_int_equal(selector_parse(slice_of(text, 100), nodes, ARRAY_LEN(nodes), why, sizeof why), -1);
    assert_string_equal(why, "too deep a condition at 33");
    memset(text, ' ', sizeof text);
    assert_int_equal(selector_parse(slice_of(text, sizeof text), nodes, ARRAY_LEN(nodes), why, sizeof why), -1);
    size_t at = 0;
    for (int i = 0; i < 300; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%sa+b", i ? "+" : "");
    assert_int_equal(selector_parse(slice_of(text, at), nodes, ARRAY_LEN(nodes), why, sizeof why), -1);
    assert_non_null(strstr(why, "too long a condition"));
    memset(text, '-', 1000); /* signs cost no depth */
    text[1000] = '1';
    assert_true(selector_parse(slice_of(text, 1001), nodes, ARRAY_LEN(nodes), why, sizeof why) > 0);
}

static struct selector_value long_text(const void *message, struct slice name)
{
    (void)name;
    return (struct selector_value){.kind = SELECT_TEXT, .s = *(const struct slice *)message};
}

/* It would be a million steps: given up, and neither it nor its opposite is true. */
static void like_is_given_up(void **state)
{
    (void)state;
    static const char *const texts[] = {"a LIKE '%xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxy'",
                                        "NOT (a LIKE '%xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxy')"};
    char *subject = malloc(20000);
    memset(subject, 'x', 20000);
    struct slice s = slice_of(subject, 20000);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct selector_node nodes[16];
        char why[100];
        int count = selector_parse(slice_str(texts[i]), nodes, ARRAY_LEN(nodes), why, sizeof why);
        assert_true(count > 0);
        unsigned steps;
        assert_false(selector_matches(nodes, (unsigned)count, long_text, &s, 0, &steps));
        assert_int_equal(steps, SELECTOR_STEPS_MAX);
    }
    free(subject);
}

/* What names cost counts, and wherever the steps end nothing is true and nothing goes on. */
static void names_cost(void **state)
{
    (void)state;
    static const char condition[] =
        "a IN ('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxy', 'x') OR a = b OR a LIKE 'x%' OR 1 = 1";
    struct selector_node nodes[32];
    char why[100];
    char text[1000];
    unsigned free_steps, dear_steps, steps;
    memset(text, 'x', sizeof text);
    struct slice s = slice_of(text, sizeof text);
    int count = selector_parse(slice_str(condition), nodes, ARRAY_LEN(nodes), why, sizeof why);
    assert_true(count > 0);
    assert_true(selector_matches(nodes, (unsigned)count, long_text, &s, 0, &free_steps));
    assert_true(selector_matches(nodes, (unsigned)count, long_text, &s, 100, &dear_steps));
    assert_int_equal(dear_steps, free_steps + 300); /* up to a = b, which is true */
    for (unsigned name = 0; name <= SELECTOR_STEPS_MAX + 1; name += name < 6500 || name > 19900 ? 1 : 100) {
        bool found = selector_matches(nodes, (unsigned)count, long_text, &s, name, &steps);
        assert_true(steps <= SELECTOR_STEPS_MAX);
        assert_true(found == (steps < SELECTOR_STEPS_MAX));
    }
}

/* Every beginning of a text, and every text with one octet changed, is a condition or is none, and harms nobody. */
static void torn_texts(void **state)
{
    (void)state;
    static const char text[] =
        "NOT (a.b + 5 * -2 >= 0x1f) AND \"x y\" LIKE 'a%_' ESCAPE '\\' OR c IN ('p', 'q''r') AND d IS NOT NULL "
        "AND e NOT BETWEEN 1.5e3 AND .5";
    struct selector_node nodes[64];
    char why[100];
    for (size_t len = 0; len < sizeof text; len++)
        for (int c = 0; c < 128; c++) {
            char *copy = malloc(len + 1);
            memcpy(copy, text, len);
            if (len)
                copy[len - 1] = (char)c;
            int count = selector_parse(slice_of(copy, len), nodes, ARRAY_LEN(nodes), why, sizeof why);
            if (count > 0)
                (void)selector_matches(nodes, (unsigned)count, lookup, NULL, 0, &(unsigned){0});
            free(copy);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(selected),         cmocka_unit_test(no_conditions), cmocka_unit_test(bounded),
        cmocka_unit_test(like_is_given_up), cmocka_unit_test(torn_texts),    cmocka_unit_test(names_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
