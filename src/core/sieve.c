/* Consumers of a queue that have a selector, see select.c. Those with the same one share a sieve: what none of them wants is looked at
 * once for all of them, in memory and in pages alike (scan.h).
 *
 * A queue has at most SELECTING_MAX such consumers, since each message that leaves asks their sieves. An evaluation costs a look, and
 * more when it takes many steps: who has used up the looks of a turn goes on in the next.
 */
#include "core/core_int.h"

#define LOOK_STEPS 200u

static struct sieve *sieve_find(struct queue *q, const struct selector *selector)
{
    LIST_EACH(&q->busy->sieves, node, after)
    {
        struct sieve *sieve = CONTAINER_OF(node, struct sieve, link);
        if (selector_equal(sieve->selector, selector))
            return sieve;
    }
    return NULL;
}

static struct sieve *sieve_make(struct queue *q, struct selector **s)
{
    struct sieve *sieve = mem_zalloc(sizeof *sieve);
    if (!sieve)
        return NULL;
    sieve->selector = *s;
    *s = NULL;
    list_insert(&q->busy->sieves, &sieve->link);
    scan_begin(q, &sieve->scan, 0);
    return sieve;
}

bool sieve_join(struct queue *q, struct consumer *consumer, struct selector **s)
{
    if (!*s)
        return true;
    struct sieve *sieve = sieve_find(q, *s);
    if (!sieve)
        sieve = sieve_make(q, s);
    selector_free(s);
    if (!sieve)
        return false;
    consumer->sieve = sieve;
    sieve->consumers++;
    q->busy->selecting++;
    return true;
}

void sieve_leave(struct broker *b, struct consumer *consumer)
{
    struct sieve *sieve = consumer->sieve;
    if (!sieve)
        return;
    consumer->sieve = NULL;
    consumer->queue->busy->selecting--;
    if (--sieve->consumers)
        return;
    scan_end(b, consumer->queue, &sieve->scan);
    list_remove(&sieve->link);
    selector_free(&sieve->selector);
    mem_free(sieve);
}

struct entry *sieve_next(struct broker *b, struct queue *q, struct sieve *sieve, unsigned *looks)
{
    struct scanned seen;
    while (scan_next(b, q, &sieve->scan, &seen) && *looks) {
        const struct msg *msg = seen.entry ? seen.entry->msg : seen.item->msg;
        wall_t deadline = seen.entry ? seen.entry->deadline : seen.item->deadline;
        unsigned steps = 0;
        bool takes = deadline > b->wall && selector_takes(sieve->selector, msg, &steps);
        unsigned cost = 1 + steps / LOOK_STEPS;
        *looks -= cost < *looks ? cost : *looks;
        if (takes)
            return seen.entry ? seen.entry : page_lend(b, seen.page, seen.item);
        scan_pass(&sieve->scan, &seen);
    }
    return NULL;
}
