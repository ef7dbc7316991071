/* The end of an exchange. Nobody finds it, and nothing is routed into it, from the moment when its record is in the journal; its
 * own bindings, perhaps 100,000, go in slices, one a tick.
 *
 *   A replay does all of it at the record. Its name is free at once for whoever declares it: what is left of the old one goes
 *   first then, in one step. So what a snapshot has said of the old one's bindings names nothing when it is replayed.
 *   What bound others to it goes at once: an exchange that loses its last binding by that may go, too, which is a record.
 */
#include "core/core_int.h"
#include "core/hashring.h"
#include "core/topic.h"

#define SLICE_BINDINGS 256u

static bool bindings_gone(struct broker *b, struct exchange *x, unsigned *budget)
{
    hashring_free(&x->hashring); /* as a whole: to take one out is a walk of all */
    for (; *budget && !list_empty(&x->sources); budget_spend(budget, 1))
        binding_delete(b, CONTAINER_OF(x->sources.next, struct binding, source_link), false);
    return list_empty(&x->sources);
}

static void finish(struct broker *b, struct exchange *x)
{
    stream_source_gone(x);
    map_take(&x->vhost->exchanges, x->name);
    object_remove(b, &x->object);
    list_remove(&x->dying_link);
    map_fini(&x->keys);
    topic_free(&x->topic);
    slice_drop(&x->name);
    slice_drop(&x->args);
    mem_free(x);
    b->totals.exchanges--;
}

void exchange_delete_begin(struct broker *b, struct exchange *x)
{
    x->dying = true;
    list_remove(&x->dying_link);
    list_insert(&b->dying_exchanges, &x->dying_link);
    b->topology_gen++;
    mqtt_exchange_gone(b, x);
    while (!list_empty(&x->targets))
        binding_delete(b, CONTAINER_OF(x->targets.next, struct binding, target_link), true);
}

void exchange_delete(struct broker *b, struct exchange *x)
{
    unsigned budget = UINT32_MAX;
    if (!x->dying)
        exchange_delete_begin(b, x);
    CHECK(bindings_gone(b, x, &budget));
    finish(b, x);
}

bool exchanges_turn(struct broker *b)
{
    unsigned budget = SLICE_BINDINGS;
    while (budget && !list_empty(&b->dying_exchanges)) {
        struct exchange *x = CONTAINER_OF(b->dying_exchanges.next, struct exchange, dying_link);
        if (!bindings_gone(b, x, &budget))
            break;
        finish(b, x);
    }
    return !list_empty(&b->dying_exchanges);
}

/* Exchanges that are bound to one another in a chain go one after the other: it may be longer than the stack is deep. */
void exchange_unbound(struct broker *b, struct exchange *x)
{
    if (x->dying || !list_empty(&x->dying_link))
        return;
    list_insert(&b->unbound, &x->dying_link);
    if (b->unbinding)
        return;
    b->unbinding = true;
    while (!list_empty(&b->unbound)) {
        x = CONTAINER_OF(b->unbound.next, struct exchange, dying_link);
        (void)log_object_gone(b, &x->object);
        exchange_delete(b, x);
    }
    b->unbinding = false;
}
