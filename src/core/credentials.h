/* credentials: the keys of SCRAM that users have, as an administrator sees and changes them: results, and rows of a listing.
 *
 * The commands SCRAM_LIST and SCRAM_ALTER (core/commands.def) fail neither a channel nor a session: each is answered with an enum
 * scram_result. Only users with the tag "administrator" may. A user without keys, of RabbitMQ's hash say, is in no listing.
 *
 * scram_row_next reads an answer's fields; slices point into them. Any thread.
 */
#ifndef MILLRACE_CORE_CREDENTIALS_H
#define MILLRACE_CORE_CREDENTIALS_H

#include "base/reader.h"
#include "base/types.h"
#include "fmt/scram.h"

enum scram_result {
    SCRAM_DONE,
    SCRAM_REFUSED,  /* no administrator */
    SCRAM_NO_KEYS,  /* that could be taken */
    SCRAM_BAD_NAME, /* empty, or too long */
    SCRAM_BAD_KEYS,
    SCRAM_NO_ROOM, /* in the journal, or in memory: nothing has changed */
};

struct scram_row {
    struct slice user;
    uint32_t iterations[SCRAM_HASHES]; /* 0: no keys of that hash */
};

/* False at the end, or when it is no row (then reader_ok says no). */
MUST_USE bool scram_row_next(struct reader *fields, struct scram_row *ret);

#endif
