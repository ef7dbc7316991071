/* txn_int: what txn.c shares with the other files of the core. Core thread. */
#ifndef MILLRACE_CORE_TXN_INT_H
#define MILLRACE_CORE_TXN_INT_H

#include "core/core_int.h"
#include "core/isolation.h"
#include "core/txn.h"

#define TXN_EPOCH_NONE UINT16_MAX

struct txn_part {
    uint64_t stream;
    uint32_t number;
};

struct txn {
    struct object object; /* OBJ_TXN */
    struct vhost *vhost;
    struct list vhost_link; /* vhost->txn_list */
    struct slice name;      /* owned */
    uint64_t producer;
    uint64_t last_producer; /* of the request that led to this epoch, when it was the producer's own … */
    uint16_t last_epoch;    /* … so that it may come again; TXN_EPOCH_NONE */
    uint16_t epoch;
    uint8_t state; /* enum txn_state */
    uint32_t timeout_ms;
    wall_t started, touched;
    struct txn_part *parts; /* of the one that is ongoing, in the order of stream and number */
    uint32_t part_count, part_max;
    struct list staged; /* offsets of groups that are committed with it: txn_offsets.c */
    struct timer timer;
};

/* A partition of an open transaction, with what remains of it when it is aborted. */
#define TXN_PART_BYTES (sizeof(struct txn_part) + ABORTED_BYTES)

struct partition;
struct record_batch; /* fmt/record_batch.h */

/* May a batch of that producer, which says that it belongs to a transaction, be written there? With `joins` the partition
 * becomes part of the transaction (KIP-890); else it must be one already. */
enum produce_result txn_admit(struct broker *b, const struct peer *peer, struct partition *p,
                              const struct record_batch *head, bool joins);
/* The same as far as it can be said without a change of anything: whether it may be there, and is of the epoch that counts. */
enum produce_result txn_check(struct broker *b, const struct peer *peer, const struct partition *p,
                              const struct record_batch *head);
/* The session's user may write under that transactional id. */
bool txn_may_use(struct broker *b, const struct peer *peer, struct slice name);
/* The control batch at that offset ends the producer's transaction; while replaying lsn is 0. Room was reserved. */
void txn_ended(struct broker *b, struct partition *p, uint64_t offset, const struct record_batch *head, bool commit,
               lsn_t lsn);
#define MARKER_BYTES 128u /* of a control batch, at most */
/* The batch that ends a transaction in one partition. NULL: no memory. */
MUST_USE struct msg *txn_marker_new(struct broker *b, uint64_t producer, bool commit, uint16_t epoch);
/* What a control batch says. False: it is no end of a transaction. */
MUST_USE bool txn_marker_read(struct slice batch, bool *ret_commit);

void txn_free(struct broker *b, struct txn *t);
void txn_listings_pass(struct broker *b, const struct txn *t); /* it goes: no listing stands at it any more */
bool txns_vhost_gone(struct broker *b, struct vhost *vhost, unsigned *budget); /* true: none is left */
/* After a replay: what is ongoing has as much time as is left, and so have ids that nobody uses. */
void txns_recovered(struct broker *b);
MUST_USE bool replay_txn(struct broker *b, struct reader *r);
MUST_USE bool replay_txn_gone(struct broker *b, struct reader *r);
MUST_USE bool replay_txn_add(struct broker *b, struct reader *r);

struct txn *txn_find(const struct vhost *vhost, struct slice name); /* NULL: there is none */
struct txn *txn_of_producer(const struct broker *b, uint64_t producer);
void txn_begin(struct broker *b, struct txn *t); /* unless it is ongoing */

/* ---- txn_room.c ---- */
size_t txn_id_bytes(struct slice name);
/* The vhost's allowance leaves take so many bytes more. False: counted, and said in the log. */
bool txn_has_room(struct broker *b, const struct vhost *vhost, const struct allowance *allowance, size_t bytes);
/* A transaction may begin in that partition, since what is left of it if it is aborted will have room: TXN_DONE, TXN_NO_ROOM,
 * TXN_ABORTED_FULL. */
MUST_USE enum txn_result txn_room_for_end(struct broker *b, const struct partition *p);
void txn_accounts_check(const struct broker *b);

/* ---- txn_offsets.c ---- */
void txn_staged_free(struct broker *b, struct txn *t);
MUST_USE bool txn_staged_snapshot(struct broker *b, const struct txn *t);
/* Before a commit, within its record, and behind that. Bytes of the records, and of the longest, are added. False: no memory. */
MUST_USE bool txn_staged_prepare(struct broker *b, struct txn *t, size_t *ret_bytes, size_t *ret_most);
void txn_staged_commit(struct broker *b, struct txn *t);
void txn_staged_committed(struct broker *b, struct txn *t, lsn_t lsn);
void txn_staging_init(struct broker *b);
void txn_staging_fini(struct broker *b);
/* An ongoing transaction has offsets of that group. */
bool txn_has_staged(const struct broker *b, const struct vhost *vhost, struct slice group);
size_t txns_staged_bytes(const struct broker *b); /* of b->group_bytes */
MUST_USE bool replay_txn_offsets(struct broker *b, struct reader *r);

/* ---- records.c ---- */
size_t txn_record_bytes(const struct txn *t);
lsn_t log_txn_over(struct broker *b, const struct txn *t); /* one without partitions; room is reserved */
lsn_t log_txn_gone(struct broker *b, const struct txn *t); /* room is reserved */
lsn_t log_txn_add(struct broker *b, const struct txn *t, const struct txn_part *part);

#endif
