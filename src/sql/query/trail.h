/* trail: the order in which a query took its input, as bytes (docs/decisions/0012). The core keeps them, and adds what comes to what it has;
 * so trails behind one another are a trail.
 *
 *   trail_init ▸ { trail_add | trail_append | trail_clear }* ▸ trail_bytes ▸ trail_fini
 *   trail_read_begin ▸ trail_read … ▸ trail_read_ok
 *
 * Format: a version (1 byte: 0x80 | 1), which also stands wherever a trail was put behind another; then entries: a byte kind << 4 | source,
 * then varints: RECORDS partition, next offset; IDLE partition; ADVANCE time, zigzag; PLACE rows; SNAPSHOT first offset, offset behind the last; STREAM id;
 * BEGIN ms since 1970.
 *
 * One thread.
 */
#ifndef MILLRACE_SQL_QUERY_TRAIL_H
#define MILLRACE_SQL_QUERY_TRAIL_H

#include "base/reader.h"
#include "base/types.h"

#define TRAIL_SOURCES_MAX 16u

enum trail_kind {
    TRAIL_RECORDS, /* of a partition, up to `offset` */
    TRAIL_IDLE,    /* query_idle */
    TRAIL_ADVANCE, /* query_advance to `time` */
    TRAIL_PLACE,   /* so many rows (`offset`) of the sink have been given out, see output_open */
    TRAIL_SNAPSHOT, /* what was before is in the records [offset, until) of the query's internal stream: the first entry, if at all */
    TRAIL_STREAM, /* what the source reads is the stream with that id (`offset`), and no other one of its name */
    TRAIL_BEGIN,  /* query_begin, at that time (`offset`) */
    TRAIL_KINDS
};

struct trail_entry {
    enum trail_kind kind;
    uint32_t source, partition;
    uint64_t offset, until;
    int64_t time; /* us */
};

struct trail {
    uint8_t *bytes;
    size_t len, room, max;
    size_t last; /* where the last entry begins */
    struct trail_entry entry;
};

/* max: bytes. Nothing is allocated yet. */
void trail_init(struct trail *t, size_t max);
void trail_fini(struct trail *t);
/* A trail of that many bytes will find the room that it needs. False: no memory. */
MUST_USE bool trail_room(struct trail *t, size_t len);
/* Merged with the last entry where that says the same: RECORDS go on in a partition, time advances. A SNAPSHOT forgets what was before.
 * False: no memory, or no room; then nothing has changed. */
MUST_USE bool trail_add(struct trail *t, const struct trail_entry *entry);
/* All entries of another one. False: as above, or the bytes are no trail (*ret_damaged); then some of them may be there. */
MUST_USE bool trail_append(struct trail *t, struct slice bytes, bool *ret_damaged);
/* For a query without state: only the streams, how far each partition has been read, and the place, instead of all that is there.
 * False: no memory, nothing has changed. */
MUST_USE bool trail_flatten(struct trail *t);
void trail_clear(struct trail *t);
/* Empty when nothing was added. */
static inline struct slice trail_bytes(const struct trail *t)
{
    return slice_of(t->bytes, t->len);
}

struct trail_reader {
    struct reader bytes;
    bool begun;
};
void trail_read_begin(struct trail_reader *r, struct slice bytes);
/* False: no more, or damage; trail_read_ok tells which. An empty trail is one. */
MUST_USE bool trail_read(struct trail_reader *r, struct trail_entry *ret);
bool trail_read_ok(const struct trail_reader *r);

#endif
