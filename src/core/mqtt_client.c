/* Clients of MQTT. */
#include "core/core_int.h"

void audience_unref(struct audience_part *part)
{
    if (atomic_fetch_sub_explicit(&part->refs, 1, memory_order_acq_rel) == 1)
        mem_free_as(MEM_CONNECTIONS, part);
}

#define COMING(name)                                                                                                   \
    void do_mqtt_##name(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)                    \
    {                                                                                                                  \
        fail(b, peer, ch->number, c->origin, ERR_NOT_IMPLEMENTED, "on its way");                                       \
    }
COMING(attach)
COMING(resume)
COMING(detach)
COMING(subscribe)
COMING(unsubscribe)
COMING(retained)
COMING(released)
COMING(completed)
