/* The order and loss checker of `millrace bench amqp`.
 *
 * Per producer it keeps `next`, below which every number has been seen (or given up), and a bitmap of the WINDOW numbers
 * from there on. With one consumer and no loss every message is `next` and the bitmap is never allocated, so checking
 * costs two compares a message. With several consumers on one queue, messages pass each other between consumers and the
 * bitmap absorbs it. When a number falls more than WINDOW behind it is counted as missing, so memory stays bounded; should
 * it arrive after all, it is counted as a duplicate: both are violations, and the run is not clean either way.
 */
#include "order.h"

#include "command.h"

#include <stdio.h>
#include <stdlib.h>

enum { WINDOW = 1 << 20, WORD_BITS = 64 };

struct sequence {
    uint64_t next;
    uint64_t given_up; /* numbers that fell out of the bitmap unseen */
    uint64_t *seen;    /* bit (seq % WINDOW), valid for next ≤ seq < next + WINDOW; NULL until needed */
};

struct bench_order {
    unsigned producer_count;
    unsigned consumer_count;
    struct sequence *sequences; /* one per producer */
    uint64_t *last;             /* [consumer × producer]: the largest number this consumer got from this producer */
    struct bench_order_tally tally;
};

struct bench_order *bench_order_new(unsigned producer_count, unsigned consumer_count)
{
    struct bench_order *o = bench_zeroed(1, sizeof(*o));
    o->producer_count = producer_count;
    o->consumer_count = consumer_count;
    o->sequences = bench_zeroed(producer_count, sizeof(*o->sequences));
    o->last = bench_zeroed((size_t)producer_count * consumer_count, sizeof(*o->last));
    for (unsigned i = 0; i < producer_count; i++)
        o->sequences[i].next = 1;
    return o;
}

void bench_order_free(struct bench_order *o)
{
    if (o == NULL)
        return;
    for (unsigned i = 0; i < o->producer_count; i++)
        free(o->sequences[i].seen);
    free(o->sequences);
    free(o->last);
    free(o);
}

static uint64_t *seen_word(struct sequence *s, uint64_t seq)
{
    return &s->seen[(seq % WINDOW) / WORD_BITS];
}

static uint64_t seen_bit(uint64_t seq)
{
    return UINT64_C(1) << (seq % WORD_BITS);
}

/* Moves `next` by one and forgets its bit; says whether that number had been seen. */
static bool sequence_step(struct sequence *s)
{
    uint64_t seq = s->next++;
    if (s->seen == NULL)
        return false;
    bool was_seen = (*seen_word(s, seq) & seen_bit(seq)) != 0;
    *seen_word(s, seq) &= ~seen_bit(seq);
    return was_seen;
}

static void sequence_skip_seen(struct sequence *s)
{
    while (s->seen != NULL && (*seen_word(s, s->next) & seen_bit(s->next)) != 0)
        sequence_step(s);
}

/* Returns false when the number was seen before. */
static bool sequence_note(struct sequence *s, uint64_t seq)
{
    if (seq < s->next)
        return false;
    if (seq == s->next) {
        s->next++;
        sequence_skip_seen(s);
        return true;
    }
    if (s->seen == NULL)
        s->seen = bench_zeroed(WINDOW / WORD_BITS, sizeof(*s->seen));
    while (seq - s->next >= WINDOW)
        if (!sequence_step(s))
            s->given_up++;
    if ((*seen_word(s, seq) & seen_bit(seq)) != 0)
        return false;
    *seen_word(s, seq) |= seen_bit(seq);
    sequence_skip_seen(s);
    return true;
}

void bench_order_note(struct bench_order *o, unsigned consumer, unsigned producer, uint64_t seq, bool redelivered)
{
    bool fresh = sequence_note(&o->sequences[producer], seq);
    uint64_t *last = &o->last[(size_t)consumer * o->producer_count + producer];
    o->tally.received += fresh;
    if (redelivered) {
        o->tally.redelivered++;
        return; /* a requeued message may come late and again */
    }
    o->tally.duplicates += !fresh;
    if (seq < *last)
        o->tally.reordered++;
    else
        *last = seq;
}

void bench_order_finish(struct bench_order *o, unsigned producer, uint64_t published, uint64_t refused)
{
    struct sequence *s = &o->sequences[producer];
    uint64_t absent = s->given_up;
    while (s->next <= published)
        if (!sequence_step(s))
            absent++;
    o->tally.missing += absent > refused ? absent - refused : 0;
}

const struct bench_order_tally *bench_order_peek(const struct bench_order *o)
{
    return &o->tally;
}
