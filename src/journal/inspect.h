/* inspect: dumps a journal folder for people, file by file, group by group, record by record. Reads only; takes no lock,
 * so it may be used on the folder of a running broker (the end then looks torn or not, as chance has it).
 */
#ifndef MILLRACE_JOURNAL_INSPECT_H
#define MILLRACE_JOURNAL_INSPECT_H

#include "base/types.h"
#include "os/os.h"

#include <stdio.h>

struct inspect_options {
    bool groups_only; /* no line per record */
    bool json;        /* a JSON object per line; each_record then prints the rest of its record's object */
    lsn_t from, to;   /* records shown; 0: no bound */
    /* Prints what the payload means, without a newline; NULL: the first bytes in hex. Non-zero stops. */
    int (*each_record)(void *arg, FILE *out, lsn_t lsn, struct slice record);
    void *arg;
};

/* 0: the journal is whole (perhaps with a torn tail); -EILSEQ: damaged, the last lines say where and what is lost; another
 * negative errno: not readable; or each_record's answer. */
MUST_USE int journal_inspect(struct os *os, const char *dir, const struct inspect_options *options, FILE *out);

#endif
