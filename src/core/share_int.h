/* share_int: what share groups have done with partitions, as the files share*.c and stream_fetch.c share it. Core thread.
 *
 *   group ─ share ─▶ partition      group ─ sharer ─▶ peer      range of a share ─▶ sharer, who has acquired it
 *
 * A record on its way (decision 0008):
 *
 *   not given yet ─▶ ACQUIRED ─ accept, reject ──────────────▶ GONE ─▶ below the start
 *                     ▲    └─ release, time-out, session over ─┬─ delivered as often as may be ─▶ GONE
 *                     └────────────── AVAILABLE ◀──────────────┘
 */
#ifndef MILLRACE_CORE_SHARE_INT_H
#define MILLRACE_CORE_SHARE_INT_H

#include "core/group_int.h"
#include "core/share_ranges.h"
#include "core/stream_int.h"

#define SHARE_LOCK_MS 30000
#define SHARE_DELIVERIES_MAX 5u
#define SHARE_LOCKS_MAX                                                                                                \
    2000u /* records that are not done with; what is acquired is whole batches, so the last may be over it */

#define SHARE_RANGES_PER_LOCK 4u /* a record alone and the hole beside it are two */

/* What a member says of records. */
enum share_ack { SHARE_ACK_GAP, SHARE_ACK_ACCEPT, SHARE_ACK_RELEASE, SHARE_ACK_REJECT, SHARE_ACK_RENEW, SHARE_ACKS };

struct share {
    struct list link, stream_link; /* group->shares, stream->shares */
    struct group *group;
    struct stream *stream;
    uint64_t key[2]; /* stream, partition */
    struct share_ranges ranges;
    struct fetch_row *busy; /* who reads for it: one at a time */
    struct list waiting;    /* struct fetch_row */
    struct timer timer;     /* the first lock is over */
    lsn_t lsn;              /* of its last record */
};

struct sharer {                  /* a member that has acquired something */
    struct list link, peer_link; /* group->sharers, peer->sharers */
    struct group *group;
    uint64_t held; /* records, never 0 but while it is made */
    struct slice id;
    uint8_t bytes[];
};

struct share_change { /* of records that are acquired */
    struct share_range to;
    struct sharer *from;
};

struct share_changes {
    struct share_change *at;
    uint32_t count, max;
};

/* ---- share.c ---- */
struct share *share_find(const struct group *g, uint64_t stream, uint32_t partition);
/* Begins at that offset; journalled. NULL: no memory. */
MUST_USE struct share *share_make(struct broker *b, struct group *g, struct stream *s, uint32_t partition,
                                  uint64_t start);
void share_free(struct broker *b, struct share *s); /* who waits for it is told */
MUST_USE bool share_reserve(struct broker *b, struct share *s, uint32_t sets);
/* Everything below is done with; who had acquired something of it has it no more. */
void share_trim(struct broker *b, struct share *s, uint64_t start);
void share_wake(struct broker *b, struct share *s);  /* who waits looks again */
void share_watch(struct broker *b, struct share *s); /* its timer fires with the first lock */
MUST_USE struct sharer *sharer_make(struct broker *b, struct group *g, struct peer *peer, struct slice id);
struct sharer *sharer_find(const struct group *g, struct slice id);
void sharer_tidy(struct broker *b, struct sharer *who); /* goes if it holds nothing */
MUST_USE bool share_changes_add(struct share_changes *c, const struct share_change *one);
void share_changes_fini(struct share_changes *c);
/* The share would have more ranges than it may have, and more than it has. Each change lies in one range; they ascend. */
bool share_would_burst(const struct share *s, const struct share_changes *changes);
bool share_is_full(const struct share *s);
/* All of them, as one record; false: no memory, and nothing has changed. */
MUST_USE bool share_commit(struct broker *b, struct share *s, const struct share_changes *changes);
/* What somebody gives back, or loses. */
struct share_range share_given_back(const struct share *s, const struct share_range *range);
size_t share_bytes(const struct share *s);

/* ---- share_journal.c ---- */
MUST_USE bool share_log(struct broker *b, struct share *s); /* as it is; false: no memory */
MUST_USE bool share_log_gone(struct broker *b, struct share *s);
MUST_USE bool share_log_changes(struct broker *b, struct share *s, const struct share_changes *changes);

/* ---- share_fetch.c: for stream_fetch.c ---- */
enum fetch_result share_look(struct broker *b, struct fetch *f, struct fetch_row *row, struct partition *p);
void share_wait(struct fetch_row *row, const struct fetch *f, struct broker *b);
/* Acquires what the store has found. *ret_more: something was found not to be there, so looking again makes sense. */
void share_take(struct broker *b, struct fetch *f, bool *ret_more);
void share_leave(struct broker *b, struct fetch *f); /* it reads for nobody any more */

#endif
