/* What happens when an assertion fails: say which, show the stack, abort. Any thread. */
#include "base/check.h"

#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>

void check_failed(const char *cond, const char *file, int line)
{
    void *frames[48];
    fprintf(stderr, "millrace: CHECK failed at %s:%d: %s\n", file, line, cond);
    backtrace_symbols_fd(frames, backtrace(frames, 48), 2);
    abort();
}
