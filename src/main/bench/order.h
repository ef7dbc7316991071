/* Checks what consumers received against what producers numbered: order, duplicates, losses.
 *
 * Life cycle: bench_order_new → note … (one call per delivery) → finish → tally → free.
 * Thread: one owner, the thread that runs all consumers. Producers number their messages 1, 2, 3 …
 * Memory: a bitmap of 128 KiB per producer, allocated only once that producer's messages came out of step.
 */
#ifndef MAIN_BENCH_ORDER_H
#define MAIN_BENCH_ORDER_H

#include <stdbool.h>
#include <stdint.h>

struct bench_order;

struct bench_order_tally {
    uint64_t received;    /* distinct messages */
    uint64_t redelivered; /* came again with the redelivered flag: allowed */
    uint64_t duplicates;  /* came again without it: a violation */
    uint64_t reordered;   /* a smaller number after a larger one at the same consumer, not redelivered: a violation */
    uint64_t missing;     /* known only after bench_order_finish */
};

struct bench_order *bench_order_new(unsigned producer_count, unsigned consumer_count);
void bench_order_free(struct bench_order *o);
/* producer < producer_count, consumer < consumer_count and seq ≥ 1 must hold (the caller drops foreign messages). */
void bench_order_note(struct bench_order *o, unsigned consumer, unsigned producer, uint64_t seq, bool redelivered);
/* Counts as missing what `producer` had numbered up to `published` and nobody received. `refused` of them were nacked or
 * returned by the broker and may be missing. Call once per producer. */
void bench_order_finish(struct bench_order *o, unsigned producer, uint64_t published, uint64_t refused);
const struct bench_order_tally *bench_order_peek(const struct bench_order *o);

#endif
