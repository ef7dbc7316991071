/* sql_trial: a file of statements that says itself what is to come of them (`millrace test`): ASSERT and ADVANCE TIME are obeyed here, everything
 * else by a broker of its own (main/shell/trial_broker.h).
 *
 *   sql_trial_run (each file) ▸ look at passed and failed
 *
 * ASSERT VALUES s (…) VALUES …: the next rows of s, in order. ASSERT NULL VALUES s (…) VALUES …: the next changes of s take these
 * rows back. ASSERT NULL VALUES s: nothing more has come. One thread.
 */
#ifndef MILLRACE_MAIN_SHELL_TRIAL_H
#define MILLRACE_MAIN_SHELL_TRIAL_H

#include "base/types.h"

#include <stdio.h>

struct sql_trial {
    FILE *out, *err;
    bool json;  /* a line of JSON for each assertion, and each statement that was refused */
    bool quiet; /* nothing is said of rows that a SELECT gives */
    bool colours;
    unsigned long long passed, failed; /* assertions; a statement that was refused has failed, too */
};

/* file: what it is called in messages. Behind a statement that was refused nothing of the text is run. */
void sql_trial_run(struct sql_trial *trial, const char *file, struct slice text);

#endif
