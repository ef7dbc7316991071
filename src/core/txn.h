/* txn: transactions of Kafka producers (KIP-98, KIP-360, KIP-890): results of their commands, and rows of a listing.
 *
 * A transactional id is a name in a vhost for one producer, of which the youngest instance counts: each TXN_INIT ends what the
 * one before has left open and gives an epoch that the older ones do not have. The commands TXN_INIT to TXN_LIST
 * (core/commands.def) fail neither a channel nor a session: each is answered with an enum txn_result.
 *
 * What partitions know of producers, whatever the coordinator says, is told by STREAM_PRODUCERS, and ended by TXN_MARK.
 *
 * txn_row_next and producer_row_next read an answer's fields; slices point into them. Any thread.
 */
#ifndef MILLRACE_CORE_TXN_H
#define MILLRACE_CORE_TXN_H

#include "base/reader.h"
#include "base/types.h"

#define TXN_NAME_MAX 1024u
#define TXN_TIMEOUT_MAX_MS 900000u     /* transaction.max.timeout.ms */
#define TXN_PARTITIONS_MAX 10000u      /* of one transaction */
#define TXN_ROWS_BYTES_MAX (64u << 20) /* of one answer; what has no room in it is not listed */

enum txn_result {
    TXN_DONE,
    TXN_UNKNOWN,        /* there is no such transactional id */
    TXN_OTHER_PRODUCER, /* the id belongs to another producer id */
    TXN_FENCED,         /* another epoch: a younger instance is at work */
    TXN_BAD_STATE,      /* nothing is open, or it has ended the other way */
    TXN_BAD_NAME,
    TXN_BAD_TIMEOUT,
    TXN_BAD_PARTITION, /* no such stream or partition */
    TXN_TOO_MANY,      /* partitions */
    TXN_REFUSED,       /* the user may not */
    TXN_NO_ROOM,       /* in the journal, or in memory: not now */
    TXN_ABORTED_FULL,  /* the stream keeps as many aborted ones as it may, until some of its records go */
};

enum txn_state { TXN_EMPTY, TXN_ONGOING, TXN_COMMITTED, TXN_ABORTED };

const char *txn_state_name(enum txn_state state); /* "Ongoing" … */

struct txn_row {
    struct slice name;
    uint64_t producer;
    uint16_t epoch;
    enum txn_state state;
    uint32_t timeout_ms;
    wall_t started;          /* of one that is ongoing, or was the last; 0: there was none */
    struct slice partitions; /* of those that were named; each: u64 stream, u32 number */
};

/* False at the end, or when it is no row (then reader_ok says no). */
MUST_USE bool txn_row_next(struct reader *fields, struct txn_row *ret);

struct producer_row { /* of one partition */
    uint64_t producer;
    uint16_t epoch;
    int32_t last_sequence; /* -1: none in this epoch */
    wall_t last_at;        /* -1: likewise */
    uint64_t open_from;    /* first offset of its open transaction; UINT64_MAX: none is open */
};
#define PRODUCER_ROW_BYTES 30u

MUST_USE bool producer_row_next(struct reader *fields, struct producer_row *ret);

#endif
