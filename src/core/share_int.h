/* share_int: what share groups have done with partitions, as the files share*.c and stream_fetch.c share it. Core thread.
 *
 *   group ─ share ─▶ partition      group ─ sharer ─▶ peer      sharer ─ hold ─ share      range of a share ─▶ hold: who has it
 *
 * A record on its way (decision 0008):
 *
 *   not given yet ─▶ ACQUIRED ─ accept, reject ──────────────▶ GONE ─▶ below the start
 *                     ▲    └─ release, time-out, session over ─┬─ delivered as often as may be ─▶ GONE
 *                     └────────────── AVAILABLE ◀──────────────┘
 *
 * What must hold; groups_check asserts all of it but S2 and S7, which the replay and the journal's order do:
 *   S1  Ranges of a share ascend without a gap from its start to its end, no two neighbours are alike, and the first is not GONE
 *       (share_ranges.h). So they are at most twice as many as records that are not done with.
 *   S2  What is acquired is not journalled: after a restart it is available, with as many deliveries as before. What is said of it is
 *       journalled before it counts, and answered when that is durable.
 *   S3  One fetch at a time reads for a share, so nobody is given what another is about to be given.
 *   S4  A share goes with its group or its partition; a hold with the last record of the share that its sharer has; a sharer with his
 *       last hold. The records of a share's ACQUIRED ranges are those of its holds.
 *   S5  While something of a share is acquired its timer is set, and is due no later than the first lock is over.
 *   S6  Who waits for a share is parked, and on one of its lists: `waiting`, who has not looked since something changed (only while
 *       another reads), or `resting`, who has looked and found nothing.
 *   S7  A share is cut into no more than so many ranges (share_ranges_max) by what members say; what would is refused as a whole.
 *   S8  A member, a group or a connection that goes costs what it holds, not what others do.
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
#define SHARE_RANGES_FREE 64u    /* so many a share may always have, however little memory groups have left */

/* What a member says of records. */
enum share_ack { SHARE_ACK_GAP, SHARE_ACK_ACCEPT, SHARE_ACK_RELEASE, SHARE_ACK_REJECT, SHARE_ACK_RENEW, SHARE_ACKS };

struct share {
    struct list link, partition_link; /* group->shares, partition->shares */
    struct group *group;
    struct partition *partition;
    uint64_t key[2]; /* stream, partition */
    struct share_ranges ranges;
    struct list holds;
    struct fetch_row *busy;       /* who reads for it: one at a time */
    struct list waiting, resting; /* struct fetch_row: S6 */
    uint64_t turn;                /* grows with each change by which somebody may find something */
    struct timer timer;           /* the first lock is over, or was to be when it was set */
    lsn_t lsn;                    /* of its last record */
};

struct sharer {            /* a member that has acquired something */
    struct list peer_link; /* peer->sharers */
    struct group *group;
    struct list holds; /* never empty but while it is made or let go */
    bool pinned;       /* it is being let go, and is freed behind that */
    struct slice id;
    uint8_t bytes[];
};

struct share_hold {               /* what a sharer has of a share */
    struct list link, share_link; /* sharer->holds, share->holds */
    struct sharer *who;
    struct share *share;
    uintptr_t key[2]; /* share, sharer */
    uint64_t count;   /* records, never 0 but while it is made */
};

struct share_changes {
    struct share_change *at; /* ascending */
    uint32_t count, max;
};

/* ---- share.c ---- */
struct share *share_find(const struct group *g, uint64_t stream, uint32_t partition);
/* Begins at that offset; journalled. NULL: no memory. */
MUST_USE struct share *share_make(struct broker *b, struct group *g, struct partition *p, uint64_t start);
void share_free(struct broker *b, struct share *s); /* who waits for it is told */
/* It goes on at that offset, and nobody has anything of it; journalled. False: no memory, and nothing has changed. */
MUST_USE bool share_move(struct broker *b, struct share *s, uint64_t start);
/* Everything below is done with; who had acquired something of it has it no more. */
void share_trim(struct broker *b, struct share *s, uint64_t start);
/* Something has changed: one of those that wait looks, and the next when that one has taken what there is. */
void share_wake(struct broker *b, struct share *s);
void share_pass_on(struct broker *b, struct share *s); /* nobody reads for it any more, and nothing has changed */
void share_wait(struct share *s, struct fetch_row *row);
bool share_should_look(const struct share *s, const struct fetch_row *row); /* something has changed since it did */
void share_watch(struct broker *b, struct share *s);                        /* its timer fires with the first lock */
/* A change that goes on where the last one ends is one with it. False: no memory. */
MUST_USE bool share_changes_add(struct share_changes *c, const struct share_change *one);
void share_changes_fini(struct share_changes *c);
uint32_t share_ranges_max(const struct share *s);
/* The share would have more ranges than it may have, and more than it has. */
bool share_would_burst(const struct share *s, const struct share_changes *changes);
bool share_is_full(const struct share *s);
/* All of them, as one record; false: no memory, and nothing has changed. */
MUST_USE bool share_commit(struct broker *b, struct share *s, const struct share_changes *changes);
/* The same, of what nobody has to know after a restart. */
MUST_USE bool share_apply(struct broker *b, struct share *s, const struct share_changes *changes);
/* What somebody gives back, or loses. */
struct share_range share_given_back(const struct share *s, const struct share_range *range);
MUST_USE bool share_take_back(struct broker *b, struct share *s, const struct share_hold *hold); /* false: no memory */
size_t share_bytes(const struct share *s);

/* ---- share_hold.c ---- */
void sharers_init(struct broker *b, struct group *g);
void sharers_fini(struct group *g);
struct sharer *sharer_find(const struct group *g, struct slice id); /* NULL: it has acquired nothing */
/* The member's, who reads by that peer now; made if need be, and without records then. NULL: no memory. */
MUST_USE struct share_hold *share_hold_make(struct broker *b, struct share *s, struct peer *peer, struct slice id);
void share_hold_tidy(struct broker *b, struct share_hold *hold); /* goes if it holds nothing */
uint64_t sharers_check(const struct group *g);                   /* bytes */

/* ---- share_group.c ---- */
bool share_group_may_begin(const struct group *g); /* it is no group of another kind */
/* It is a share group from now on, for ever; journalled. False: no memory, and it is what it was. */
MUST_USE bool share_group_begin(struct broker *b, struct group *g);

/* ---- share_journal.c ---- */
MUST_USE bool share_log(struct broker *b, struct share *s); /* as it is; false: no memory */
MUST_USE bool share_log_move(struct broker *b, struct share *s, uint64_t start);
MUST_USE bool share_log_gone(struct broker *b, struct share *s);
MUST_USE bool share_log_changes(struct broker *b, struct share *s, const struct share_changes *changes);

/* ---- share_fetch.c: for stream_fetch.c ---- */
enum fetch_result share_look(struct broker *b, struct fetch *f, struct fetch_row *row, struct partition *p);
/* Its rows wait. False: it should look again at once. */
MUST_USE bool share_park(struct broker *b, struct fetch *f);
/* Acquires what the store has found. *ret_more: something was found not to be there, so looking again makes sense. */
void share_take(struct broker *b, struct fetch *f, bool *ret_more);
void share_leave(struct broker *b, struct fetch *f); /* it reads for nobody any more */

#endif
