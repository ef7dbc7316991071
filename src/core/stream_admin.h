/* stream_admin: streams as those see them who make, list and change them by command: results, and rows of a listing.
 *
 * The commands STREAM_LIST to STREAM_SET (core/commands.def) fail neither a channel nor a session: each is answered with an
 * enum stream_result. A stream is named by its queue's name in the session's vhost.
 *
 * stream_row_next reads an answer's fields; slices point into them. Any thread.
 */
#ifndef MILLRACE_CORE_STREAM_ADMIN_H
#define MILLRACE_CORE_STREAM_ADMIN_H

#include "base/reader.h"
#include "base/types.h"

#define STREAM_ROWS_MAX 1000u        /* of one answer */
#define STREAM_ROWS_BYTES (1u << 20) /* a row that begins behind so many is not of this answer any more */
#define STREAM_ARGS_MAX (64u * 1024) /* bytes of a stream's arguments */

enum stream_result {
    STREAM_DONE,
    STREAM_EXISTS,
    STREAM_IS_QUEUE, /* a queue that is no stream has the name */
    STREAM_UNKNOWN,
    STREAM_BAD_NAME,
    STREAM_BAD_ARGUMENT,   /* text says which */
    STREAM_BAD_PARTITIONS, /* text; of a growth: number2 is how many there are */
    STREAM_OUT_OF_RANGE,   /* of a trim: the offset is behind the durable end */
    STREAM_REFUSED,        /* the user may not */
    STREAM_NO_ROOM,        /* in the journal, or in memory */
};

enum stream_verb { STREAM_MAY_CONFIGURE = 1, STREAM_MAY_WRITE = 2, STREAM_MAY_READ = 4 };

/* What governs it: arguments and policies together. -1: not set. */
struct stream_limits {
    int64_t max_age_ms, max_bytes, segment_bytes, min_lag_ms, tombstone_ms;
    bool deletes, compacts;
};

struct stream_partition_row { /* with ASK_SIZES */
    uint64_t start, end, bytes;
};

struct stream_row {
    enum stream_result result; /* DONE, or of a name or id that was asked for IS_QUEUE, UNKNOWN, REFUSED */
    uint8_t verbs;             /* enum stream_verb: what the user may */
    uint64_t id;
    uint32_t partitions;
    struct slice name, args; /* args: a table's content */
    struct stream_limits limits;
    struct slice sizes; /* for stream_row_sizes; empty without ASK_SIZES */
};

/* False at the end, or when it is no row (then reader_ok says no). */
MUST_USE bool stream_row_next(struct reader *fields, struct stream_row *ret);
MUST_USE bool stream_row_sizes(struct reader *sizes, struct stream_partition_row *ret);

#endif
