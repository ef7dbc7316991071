/* fetch: what a session asks of several partitions of streams at once: their records, offsets by time, or ends of leader epochs.
 *
 * One block goes all the way: loop → core (CMD_FETCH) → stream store (as the STREAM_FETCH job that is a part of it) → core →
 * loop (EFF_FETCHED). Whoever has it owns it, with the file pieces in its rows.
 * Life cycle: fetch_new → fill in what is asked ▸ CMD_FETCH … EFF_FETCHED ▸ take the pieces → fetch_free. Any thread, one at a time.
 */
#ifndef MILLRACE_CORE_FETCH_H
#define MILLRACE_CORE_FETCH_H

#include "base/file_piece.h"
#include "base/list.h"
#include "base/wheel.h"
#include "core/stream_job.h"

#define FETCH_ROWS_MAX 65536u
#define FETCH_NOWHERE UINT64_MAX /* an offset that there is not */

enum fetch_kind {
    FETCH_RECORDS, /* row: from `offset` on, at most bytes_max → piece, which is whole batches; start, end, stable */
    FETCH_OFFSETS, /* row: at, time → offset (FETCH_NOWHERE: there is none), time (-1: of none); start, end */
    FETCH_EPOCHS, /* row: `wanted`, an epoch → offset, where it ends (FETCH_NOWHERE: unknown); wanted: the epoch it is of, or -1 */
};

enum fetch_at { /* what offset is asked for */
                FETCH_AT_START,
                FETCH_AT_END,
                FETCH_AT_TIME,   /* the first record that is not older than `time` */
                FETCH_AT_NEWEST, /* the first record with the highest time */
};

enum fetch_result {
    FETCH_OK,
    FETCH_UNKNOWN,      /* no such stream or partition */
    FETCH_REFUSED,      /* the user may not read it */
    FETCH_OUT_OF_RANGE, /* offset is below start or behind the last record that was accepted */
    FETCH_OLD_EPOCH,    /* `epoch` is older than the partition's */
    FETCH_NEW_EPOCH,    /* younger */
    FETCH_DAMAGED,
    FETCH_GROUP_REFUSED, /* the user may not read for that group */
    FETCH_NO_GROUP,      /* it is not a share group, or there is none */
    FETCH_TROUBLE,       /* the disk, memory, too many files: not now */
};

/* A session (KIP-227) remembers rows from one block to the next: a block of FETCH_NEXT has only those that are new, asked for
 * differently or forgotten, and is answered by another block, with the rows of the session that have records, errors or another
 * start or end than was told. It costs what has changed, however many rows the session has. */
enum fetch_session_op {
    FETCH_ALONE,
    FETCH_OPEN,  /* begins a session of these rows, slots from 0; the peer's former one ends. session_id 0: refused */
    FETCH_NEXT,  /* in the session; session_id 0 in the answer: it is lost, and nothing else is answered */
    FETCH_CLOSE, /* ends it, the rows are asked for as those of ALONE are */
};
/* What a share group asks, and is given. */
struct offset_run {
    uint64_t first, last;
    uint32_t deliveries;
};
struct share;

struct fetch_row {
    /* asked */
    uint32_t slot;   /* of the session: FETCH_NEXT. Small numbers, each of one row; also answered */
    bool forget;     /* the session does without the row of that slot from now on */
    uint64_t stream; /* id of its queue; 0: of none */
    uint32_t partition;
    int32_t epoch;      /* that the client believes in; -1: it does not say */
    uint64_t offset;    /* see fetch_kind; also answered */
    wall_t time;        /* the same */
    int32_t wanted;     /* the same */
    uint32_t bytes_max; /* the first batch of an answer is given whole, though it has more */
    uint8_t at;         /* enum fetch_at; of RECORDS: FETCH_AT_TIME while the core looks where a share begins, else 0 */
    uint32_t known; /* RECORDS, ALONE: partitions; when the stream has more it is answered at once; 0: however many */
    /* answered */
    uint8_t result;      /* enum fetch_result */
    uint64_t start, end; /* offsets: of the first record, behind the last that is durable; FETCH_NOWHERE: not known */
    uint64_t stable;     /* behind the last that is in no open transaction */
    uint32_t partitions; /* of the stream */
    struct file_piece piece;
    struct aborted
        *aborted; /* with `committed`: transactions whose records the piece may hold, by their first offsets */
    uint32_t aborted_count;
    struct offset_run *runs; /* of a share group: answered, what was acquired; the store: what no client may see … */
    uint32_t run_count;      /* … both ascending */
    uint64_t base, next; /* the same, the store's answer: where the piece begins and ends; without one there is nothing
                                in [offset, next) */
    uint64_t enough;     /* the same: batches that begin there or behind are not wanted */
    /* the store's while it has the block, else the core's */
    int err;
    uint64_t until;
    /* the core's */
    struct fetch *fetch;
    struct list link;
    uint64_t filled;  /* of the partition when it was looked at */
    uint64_t trimmed; /* likewise: isolation's */
    uint64_t awaited; /* the end, when it was first looked at */
    struct fetch_watch *watch;
    struct share *share;    /* whose turn it is to read for it … */
    bool moved;             /* … and something of it has changed since */
    struct list share_link; /* share->waiting or ->resting */
    uint64_t turn;          /* the share's when it was looked at */
};

struct peer; /* the core's */
struct fetch_session;

struct fetch {
    /* asked */
    enum fetch_kind kind;
    uint32_t count;
    uint32_t wait_ms;              /* RECORDS: answered then, however little there is */
    uint32_t bytes_min, bytes_max; /* RECORDS: of all rows */
    uint8_t session_op;            /* RECORDS: enum fetch_session_op */
    uint32_t session_id;           /* answered: of OPEN and NEXT, 0: of none */
    uint64_t session_bytes;        /* RECORDS: what the asker keeps of the session itself */
    bool committed;                /* RECORDS: only what is in no open transaction; OFFSETS: the end is that of those */
    struct ask
        *sharer;      /* RECORDS, of a share group: name group, other member, number most records, flags ASK_STRICT: no
                                      more than those; else NULL. The block's */
    lsn_t lsn;        /* answer: to be waited for */
    uint64_t allowed; /* the core's: topology_gen when the user was found to have a right to the group; 0: not yet */
    uint32_t lock_ms; /* answer, of a share group: so long records are acquired */
    /* the store's */
    uint32_t served; /* rows */
    size_t given;    /* bytes */
    /* the core's, which it may touch though the store has the block */
    struct peer *peer; /* NULL: gone, the block is freed when it is back */
    struct list peer_link, ready_link;
    struct timer timer;
    struct fetch_session *session; /* NULL: of none, or of one that has ended */
    uint32_t origin;
    uint8_t state;
    bool late;
    mono_t due;
    uint64_t found, hoped;  /* bytes: of the last answer; that came since */
    struct stream_job *job; /* behind the rows */
    struct fetch_row rows[];
};

/* Everything zero, but for epoch and wanted, which are -1. NULL: no memory. */
MUST_USE struct fetch *fetch_new(enum fetch_kind kind, uint32_t count);
/* With its pieces and lists. NULL is nothing. */
void fetch_free(struct fetch **fetch);

#endif
