/* Unit test of option tables: each kind of row stores its value, in every width, and nothing beside it. */
#include "option.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum shade { DARK, MIDDLE, LIGHT };

struct command {
    uint8_t before, u8, after;
    uint16_t u16;
    uint32_t u32;
    int32_t i32;
    uint64_t u64;
    bool flag;
    uint8_t guard;
    double number;
    const char *text;
    enum shade shade;
    const struct scenario {
        const char *name;
        int number;
    } * scenario;
    unsigned port_offset;
    struct {
        double duration_s;
        bool json, quiet, progress;
    } o;
};

static const struct scenario SCENARIOS[] = {{"one", 1}, {"two", 2}, {"three", 3}};
static const char *const SHADES[] = {"dark", "middle", "light", NULL};

static void parse_doubled(void *command, const char *argument, const struct argp_state *state)
{
    (void)state;
    ((struct command *)command)->number = 2 * strtod(argument, NULL);
}

static const struct bench_option OPTIONS[] = {
    BENCH_HEADING("Numbers"),
    BENCH_COUNT(u8, 0, 255, "u8", "N", "a byte"),
    BENCH_COUNT(u16, 0, 65535, "u16", "N", "two"),
    BENCH_COUNT(u32, 0, UINT32_MAX, "u32", "N", "four"),
    BENCH_COUNT(i32, 0, INT32_MAX, "i32", "N", "four with a sign"),
    BENCH_COUNT(u64, 0, UINT64_MAX, "u64", "N", "eight"),
    BENCH_NUMBER(number, 100, "number", "N", "with a point"),
    BENCH_OWN(parse_doubled, "doubled", "N", "the number, twice"),
    BENCH_HEADING("Others"),
    BENCH_FLAG(flag, "flag", "on"),
    BENCH_SETS(flag, false, "no-flag", "off"),
    BENCH_TEXT(text, "text", "TEXT", "as it is"),
    BENCH_WORD(shade, SHADES, "shade", "SHADE", "one of three"),
    BENCH_SCENARIO(SCENARIOS, "what to do"),
    BENCH_PORT_OFFSET("added"),
    BENCH_DURATION(),
    BENCH_OUTPUT(),
};

static struct command parsed(size_t count, const char *const *words)
{
    char *argv[16] = {"bench"};
    struct command c;
    memset(&c, 0, sizeof(c));
    c.before = c.after = c.guard = 0xaa;
    for (size_t i = 0; i < count; i++)
        argv[i + 1] = (char *)words[i];
    assert_true(
        bench_options_parse("millrace bench test", OPTIONS, ARRAY_LEN(OPTIONS), "A test.", (int)count + 1, argv, &c));
    assert_int_equal(c.before, 0xaa);
    assert_int_equal(c.after, 0xaa);
    assert_int_equal(c.guard, 0xaa);
    return c;
}

#define PARSED(...) parsed(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), (const char *[]){__VA_ARGS__})

static void numbers_of_every_width_are_stored_whole(void **state)
{
    (void)state;
    struct command c = PARSED("--u8=255", "--u16", "65535", "--u32=4294967295", "--i32=2147483647",
                              "--u64=18446744073709551615", "--number=0.25");
    assert_int_equal(c.u8, 255);
    assert_int_equal(c.u16, 65535);
    assert_true(c.u32 == UINT32_MAX);
    assert_true(c.i32 == INT32_MAX);
    assert_true(c.u64 == UINT64_MAX);
    assert_true(c.number == 0.25);
    assert_false(c.flag);
}

static void the_last_word_about_a_field_counts(void **state)
{
    (void)state;
    assert_true(PARSED("--no-flag", "--flag").flag);
    assert_false(PARSED("--flag", "--no-flag").flag);
    assert_true(PARSED("--number=3", "--doubled=21").number == 42);
}

static void words_rows_and_texts_are_found(void **state)
{
    (void)state;
    struct command c = PARSED("--shade=light", "--scenario=two", "--text", "--flag");
    assert_int_equal(c.shade, LIGHT);
    assert_ptr_equal(c.scenario, &SCENARIOS[1]);
    assert_string_equal(c.text, "--flag");
    assert_false(c.flag);
    assert_int_equal(PARSED("--shade=dark").shade, DARK);
}

static void what_commands_have_alike_lands_in_its_fields(void **state)
{
    (void)state;
    struct command c = PARSED("--port-offset=7", "--duration=1.5", "--quiet");
    assert_int_equal(c.port_offset, 7);
    assert_true(c.o.duration_s == 1.5);
    assert_true(c.o.quiet && !c.o.json && !c.o.progress);
    assert_true(PARSED("--json").o.json && PARSED("--progress").o.progress);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_every_width_are_stored_whole),
        cmocka_unit_test(the_last_word_about_a_field_counts),
        cmocka_unit_test(words_rows_and_texts_are_found),
        cmocka_unit_test(what_commands_have_alike_lands_in_its_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
