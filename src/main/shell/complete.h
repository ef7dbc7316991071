/* sql_complete: what a half typed word may become: words of the language, names of streams and views, commands of the shell. Nothing here
 * knows of terminals. Main thread.
 *
 *   a zeroed struct ▸ { sql_names_add }* ▸ { sql_complete }* ▸ sql_names_fini
 */
#ifndef MILLRACE_MAIN_SHELL_COMPLETE_H
#define MILLRACE_MAIN_SHELL_COMPLETE_H

#include "base/types.h"

#define SQL_NAMES_MAX 20000u
#define SQL_COMPLETE_MAX 256u /* that are found at a time */

struct sql_names {
    char **names;
    unsigned count, room;
};

/* One that is there already, or that there is no memory for, is left out. */
void sql_names_add(struct sql_names *names, struct slice name);
void sql_names_fini(struct sql_names *names);

/* The word at the end of the text that is being typed. */
struct slice sql_complete_word(struct slice text);

struct sql_completion {
    unsigned count;                      /* of words; there may be more */
    const char *words[SQL_COMPLETE_MAX]; /* names without quotes; loans */
    char more
        [300]; /* to be added behind what is typed: as much as all of them have in common, a space behind a single one */
    unsigned erase; /* bytes before the cursor that go first: their letters were other ones, or quotes are needed */
};

/* text: up to the cursor. */
void sql_complete(const struct sql_names *names, struct slice text, struct sql_completion *ret);

#endif
