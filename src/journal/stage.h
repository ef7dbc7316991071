/* stage: where records wait between the writer's append and the journal thread's write: group buffers and their hand-over.
 *
 * Life cycle: stage_init → writer: stage_reserve, stage_append …, stage_kick; journal: stage_take → stage_retire → stage_fini.
 * A group buffer has one owner at any time: the writer while a tick fills it, the stage between ticks, the journal thread
 * from take to retire. The lock is taken per tick and per group, never per record.
 */
#ifndef MILLRACE_JOURNAL_STAGE_H
#define MILLRACE_JOURNAL_STAGE_H

#include "base/types.h"
#include "os/thread.h"

struct group {
    struct group *next;
    uint8_t *bytes; /* block-aligned; the first 64 bytes are left for the group header */
    size_t cap;     /* multiple of the block */
    size_t len;     /* header included */
    lsn_t first;
    uint32_t nrec;
};

struct stage {
    struct os_event *work; /* the journal thread's */
    size_t cap_max;        /* of a group; a buffer for a huge reservation may be a little longer */

    /* under the lock */
    struct os_lock lock;
    struct group *queue, **queue_end; /* closed groups, in lsn order */
    struct group *shared;             /* the youngest group between ticks; the writer borrows it to go on filling it */
    struct group *pool;
    size_t pool_bytes;
    size_t cap_next; /* of the next new buffer: grows as groups fill up, falls back when idle */

    /* writer */
    struct group *open, *spares;
    unsigned spares_count;
    size_t reserved;
    lsn_t next_lsn;
    uint64_t bytes_in;
    bool dropping;

    /* published */
    _Atomic uint64_t bytes_out; /* bytes of retired groups: written by the journal thread */
};

void stage_init(struct stage *stage, struct os_event *work, size_t group_bytes_max, lsn_t next_lsn);
void stage_fini(struct stage *stage);

/* As journal_reserve: replaces what is left of the last reservation, unless it fails. Writer. */
MUST_USE bool stage_reserve(struct stage *stage, size_t bytes, unsigned count);
lsn_t stage_append(struct stage *stage, const struct slice *parts, unsigned count);
/* Ends the tick. True: there is something for the journal thread. Writer. */
bool stage_kick(struct stage *stage);
/* The next record begins a group. Ends the reservation. Writer. */
void stage_break(struct stage *stage);
/* From now on records get an lsn and are forgotten. Writer. */
void stage_drop(struct stage *stage);
/* Bytes appended and not retired. Writer. */
uint64_t stage_bytes(const struct stage *stage);

/* There is something to take. Journal thread. */
bool stage_waits(struct stage *stage);
/* The oldest group, or NULL; the caller owns it until retire. Journal thread. */
struct group *stage_take(struct stage *stage);
void stage_retire(struct stage *stage, struct group *group);
/* Nothing happened for a while: keep at most one small buffer. Journal thread. */
void stage_shrink(struct stage *stage);

#endif
