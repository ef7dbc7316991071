/* isolation: what readers of a partition who want committed records only must not see, beside the open transactions (producer.h):
 * transactions that were aborted, and those whose end is not durable yet and that count as open until then.
 *
 * An aborted transaction is the batches of one producer from `first` up to its control batch at `last`. They stand in the order
 * of their ends; `stable` is where the partition was stable behind the end, so that whoever looks for those that overlap a
 * range may stop where it is behind the range.
 *
 * Its blocks are MEM_TXNS. Each aborted transaction takes ABORTED_BYTES of the allowance that is given with it, until it is forgotten;
 * ends that are not durable yet are few, and are not counted.
 * Life cycle: zero-initialised → { isolation_reserve ▸ isolation_abort | isolation_closing }* → isolation_fini. Core thread.
 */
#ifndef MILLRACE_CORE_ISOLATION_H
#define MILLRACE_CORE_ISOLATION_H

#include "core/allowance.h"

struct aborted {
    int64_t producer;
    uint64_t first, last, stable;
};

#define ABORTED_BYTES (sizeof(struct aborted) * 3 / 2) /* with what the list has spare */

struct closing {
    uint64_t first;
    lsn_t lsn; /* of its end */
};

struct isolation {
    struct aborted *aborted;
    struct closing *closing;
    uint32_t aborted_count, aborted_max, closing_count, closing_max;
    uint64_t trimmed; /* what ended below is forgotten */
};

void isolation_fini(struct isolation *i, struct allowance *allowance);
size_t isolation_bytes(const struct isolation *i); /* that it has taken */
/* Room for one more of each; ends that are durable are forgotten. False: no memory. */
MUST_USE bool isolation_reserve(struct isolation *i, lsn_t durable);
void isolation_abort(struct isolation *i, const struct aborted *aborted, struct allowance *allowance);
/* A transaction from `first` on is over when lsn is durable. */
void isolation_closing(struct isolation *i, uint64_t first, lsn_t lsn);
/* Records from there on may belong to a transaction whose end is not durable; UINT64_MAX: none do. Forgets those that are. */
uint64_t isolation_stable(struct isolation *i, lsn_t durable);
/* What ended below start is forgotten. */
void isolation_trim(struct isolation *i, uint64_t start, struct allowance *allowance);
void isolation_forget(struct isolation *i, struct allowance *allowance); /* all that were aborted: they are told anew */
/* Those that overlap [from, until), by their ends: returns how many, at most max of them in ret (which may be NULL with max 0). */
uint32_t isolation_overlaps(const struct isolation *i, uint64_t from, uint64_t until, struct aborted *ret,
                            uint32_t max);
/* A batch of that producer at that offset is of one of them. Any thread. */
bool aborted_has(const struct aborted *list, uint32_t count, int64_t producer, uint64_t offset);

#endif
