/* ids: packet ids that are in use towards a client, and what each is waiting for.
 *
 * An open hash table of a connection: nothing while no id is in use. Life cycle: ids_init → ids_put / ids_find / ids_remove … →
 * ids_fini. A found entry is a loan until the next put or remove. One thread.
 */
#ifndef MILLRACE_PROTO_MQTT_IDS_H
#define MILLRACE_PROTO_MQTT_IDS_H

#include "base/types.h"

enum id_state {
    ID_FREE,
    ID_WAITS_PUBACK,   /* QoS 1 */
    ID_WAITS_PUBREC,   /* QoS 2 */
    ID_WAITS_RELEASE,  /* PUBREC came; the core writes it down, then PUBREL */
    ID_WAITS_PUBCOMP,  /* PUBREL is sent */
    ID_WAITS_COMPLETE, /* PUBCOMP came; the core writes it down */
};

struct id_entry {
    uint64_t tag; /* of the delivery */
    uint16_t id;
    uint8_t state; /* enum id_state */
};

struct ids {
    struct id_entry *entries;
    uint32_t count, mask;
};

void ids_init(struct ids *ids);
void ids_fini(struct ids *ids);
struct id_entry *ids_find(const struct ids *ids, uint16_t id);
/* The id must not be in it. NULL: no memory. */
MUST_USE struct id_entry *ids_put(struct ids *ids, uint16_t id);
void ids_remove(struct ids *ids, uint16_t id);

#endif
