/* check: assertions about our own code; they stay on in release builds.
 *
 * CHECK is for what only a bug of ours can make false. Bytes of peers, of disks and the moods of the operating
 * system are never checked with it: those have error codes. Any thread.
 */
#ifndef MILLRACE_BASE_CHECK_H
#define MILLRACE_BASE_CHECK_H

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (__builtin_expect(!(cond), 0))                                                                              \
            check_failed(#cond, __FILE__, __LINE__);                                                                   \
    } while (0)

/* Prints the condition and a backtrace to stderr and aborts. */
void check_failed(const char *cond, const char *file, int line) __attribute__((noreturn, cold));

#endif
