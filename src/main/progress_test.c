/* What progress tells of rate and remaining time. */
#include "main/progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void expect(const char *part, uint64_t done, uint64_t total, mono_t took, const char *text)
{
    char line[200];
    progress_text(part, done, total, took, line, sizeof line);
    assert_string_equal(line, text);
}

static void test_rate_and_rest(void **state)
{
    (void)state;
    expect("journal", 50000000, 150000000, 5 * NS_PER_S, "journal: 50 MB of 150 MB, 10 MB/s, 10 s left");
    expect("journal", 1000000000, 7200000000000, NS_PER_S, "journal: 1.0 GB of 7.2 TB, 1.0 GB/s, 1 h 59 min left");
    expect("pages", 1000000, 91000000, NS_PER_S, "pages: 1.0 MB of 91 MB, 1.0 MB/s, 1 min 30 s left");
}

static void test_beginning_and_end(void **state)
{
    (void)state;
    expect("pages", 0, 100, 0, "pages: 0 B of 100 B, 0 B/s, 0 s left");
    expect("pages", 200, 100, NS_PER_S, "pages: 200 B of 100 B, 200 B/s, 0 s left"); /* more than was expected */
    expect("pages", 999, 999, NS_PER_S, "pages: 999 B of 999 B, 999 B/s, 0 s left");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate_and_rest),
        cmocka_unit_test(test_beginning_and_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
