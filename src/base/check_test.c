/* Unit test of CHECK: it costs nothing when it holds; when it fails the process names the condition and aborts. */
#include "base/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void a_failed_check_says_what_and_aborts(void **state)
{
    (void)state;
    int ends[2], status, one = 1;
    CHECK(one == 1);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0});
        dup2(ends[1], 2);
        CHECK(one == 2);
        _exit(0);
    }
    close(ends[1]);
    char text[4096];
    size_t len = 0;
    for (ssize_t n = 1; n > 0 && len<sizeof text - 1; len += n> 0 ? (size_t)n : 0)
        n = read(ends[0], text + len, sizeof text - 1 - len);
    text[len] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == 6);
    assert_non_null(strstr(text, "CHECK failed at "));
    assert_non_null(strstr(text, "check_test.c:"));
    assert_non_null(strstr(text, "one == 2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_failed_check_says_what_and_aborts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
