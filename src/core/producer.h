/* producer: which batches of numbered producers a partition has taken, so that nothing is written twice (KIP-98).
 *
 * A producer has an id that is never given again, an epoch, and numbers its records from 0. A partition remembers the last
 * five batches of each: exactly one of these again is a duplicate, which is answered with its old offset; anything else must
 * follow the last one, or begin a higher epoch at 0. A producer that nothing is known of may begin anywhere, or, where the
 * caller says so, at 0 only.
 * It may have a transaction open in the partition: from its first batch with that flag to the control batch that ends it.
 *
 * Life cycle: producers_init → { producers_check ▸ producers_note ▸ producers_open | producers_close }* → producers_fini. No I/O, no clock of its own. Core thread.
 */
#ifndef MILLRACE_CORE_PRODUCER_H
#define MILLRACE_CORE_PRODUCER_H

#include "base/list.h"
#include "base/map.h"
#include "base/reader.h"
#include "base/writer.h"
#include "core/broker.h"

#define PRODUCER_BATCHES 5u                               /* a client has at most so many under way */
#define PRODUCER_EXPIRES_MS (24 * 3600 * (int64_t)1000)   /* unheard of for so long: forgotten */
#define PRODUCER_BYTES_MAX (32u + PRODUCER_BATCHES * 30u) /* of producer_put */

struct producer_batch {
    int32_t first, last; /* sequences; 2^31-1 is followed by 0 */
    uint64_t offset;     /* of its first record */
    wall_t at;           /* when it was taken, UTC ms */
};

struct producer {
    int64_t id;
    struct list link;      /* producers->by_age */
    struct list open_link; /* producers->open; empty: no transaction of it is open */
    uint64_t open_first;   /* offset of its first batch */
    int16_t epoch;
    uint8_t count; /* of batches, oldest first */
    struct producer_batch batches[PRODUCER_BATCHES];
};

struct producers { /* of a partition */
    struct map map;
    struct list by_age; /* longest unheard of first, but for those with an open transaction */
    struct list open;   /* with an open transaction, by its first offset */
};
#define PRODUCERS_NONE_OPEN UINT64_MAX

void producers_init(struct producers *all, uint64_t seed);
void producers_fini(struct producers *all);

/* What is to be done with a batch: PRODUCE_OK, and it may be written; PRODUCE_DUPLICATE, and *ret is what it was the first time;
 * PRODUCE_OUT_OF_ORDER, PRODUCE_OLD_EPOCH; PRODUCE_NO_MEMORY: producers_note would have none. */
MUST_USE enum produce_result producers_check(struct producers *all, int64_t id, int16_t epoch, int32_t first,
                                             int32_t last, bool from_zero, struct producer_batch *ret);
/* What producers_check has made for a batch that is refused all the same goes again. */
bool producers_knows(const struct producers *all, int64_t id);
void producers_forget(struct producers *all, int64_t id);
/* It was written. Room was made by producers_check; in a replay, where nobody checks, the answer may be false: no memory. A
 * batch that is known, or older than what is, changes nothing. */
bool producers_note(struct producers *all, int64_t id, int16_t epoch, const struct producer_batch *batch);
/* A batch of a transaction was written at that offset: it is open from the first one on. False: no memory (only in a replay,
 * of a producer that nothing is known of). */
bool producers_open(struct producers *all, int64_t id, int16_t epoch, uint64_t offset);
/* The transaction ended: *ret_first, where it began. The end's epoch counts from then on. False: none was open. */
bool producers_close(struct producers *all, int64_t id, int16_t epoch, uint64_t *ret_first);
bool producers_is_open(const struct producers *all, int64_t id);
/* -1: it is not known. */
int16_t producers_epoch(const struct producers *all, int64_t id);
/* Where the oldest open transaction began; PRODUCERS_NONE_OPEN. */
uint64_t producers_stable(const struct producers *all);
/* Forgets what is known of open transactions: in a replay, before a record says it anew. */
void producers_close_all(struct producers *all);
/* Forgets those that have written nothing since, and what is above max, the most silent first; who has a transaction open stays, and
 * is passed over: a few of them in one call, which moves them behind the others. Called with each batch, so that costs little. */
void producers_expire(struct producers *all, wall_t before, uint32_t max);

/* In a journal record: PRODUCERS. What is read takes the place of what was known of that producer. */
void producer_put(struct writer *w, const struct producer *producer);
MUST_USE bool producer_read(struct producers *all, struct reader *r);

#endif
