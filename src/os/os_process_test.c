/* Interrupts of who talks to people. */
#include "os/os_process.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

/* SIGINT between the last look and the wait: the wait ends all the same, and one that was taken ends no other. */
static void an_interrupt_before_the_wait(void **state)
{
    (void)state;
    int ends[2];
    char byte;
    assert_int_equal(pipe(ends), 0);
    os_interrupts_keep();
    assert_int_equal(raise(SIGINT), 0);
    assert_int_equal(read(ends[0], &byte, 1), -1);
    assert_int_equal(errno, EINTR);
    assert_true(os_interrupt_taken());
    assert_false(os_interrupt_taken());
    assert_int_equal(alarm(0), 0); /* none was left */
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_interrupt_before_the_wait)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
