/* mqtt_guest: MQTT clients of a world, beside its AMQP client: they answer what the protocol wants answered, and count what comes.
 * One thread.
 *
 * Life cycle: mqtt_guests_begin → { mqtt_guest_open, mqtt_guest_send, mqtt_guest_await, mqtt_guest_lose }* → mqtt_guests_end.
 *
 * A message is a letter; whatever has failed, one that comes must have been published, with the topic that it has, and not twice
 * with QoS 2. Who sets `heard` takes the packets instead, and answers them.
 */
#ifndef MILLRACE_TESTS_SIM_MQTT_GUEST_H
#define MILLRACE_TESTS_SIM_MQTT_GUEST_H

#include "proto/mqtt/mqtt_int.h"
#include "proto/mqtt/sys.h"
#include "world.h"

#define MQTT_LETTERS 128u
#define MQTT_GUESTS 6u
#define MQTT_GUEST_ALIASES 5u

struct mqtt_guests;

struct mqtt_guest {
    struct mqtt_guests *all;
    struct engine *engine; /* NULL: lost */
    uint8_t version;
    uint8_t *in, *out;
    size_t in_len, out_len;
    uint16_t last_id;
    bool keeps_pubcomp;                 /* PUBREL is not answered */
    bool present;                       /* CONNACK's session */
    unsigned seen[MQTT_TYPES], refused; /* packets; reason codes that say no */
    unsigned got[MQTT_LETTERS], sys;    /* messages; those of $SYS */
    uint16_t received[8];               /* ids of QoS 2 between PUBREC and PUBREL; 0: free */
    char aliases[MQTT_GUEST_ALIASES][64];
    void (*heard)(struct mqtt_guest *g, enum mqtt_type type, const union mqtt_fields *f);
    void *heard_arg;
    uint8_t token[600]; /* the last authentication data */
    size_t token_len;
};

struct mqtt_guests {
    struct world *w;
    struct mqtt_totals totals;
    struct mqtt_options options;
    struct mqtt_sys *sys; /* NULL: there is none */
    struct mqtt_guest guests[MQTT_GUESTS];
    struct {
        char topic[64];
        uint8_t qos; /* of whoever publishes it */
    } sent[MQTT_LETTERS];
};

void mqtt_guests_begin(struct mqtt_guests *all, struct world *w);
void mqtt_guests_end(struct mqtt_guests *all);
/* One round of everything, with both connections. */
void mqtt_guests_turn(struct mqtt_guests *all);
/* A new connection, on which nothing has been said; what it has counted is forgotten, but for messages. False: no memory. */
bool mqtt_guest_open(struct mqtt_guest *g, uint8_t version);
void mqtt_guest_lose(struct mqtt_guest *g);
void mqtt_guest_send(struct mqtt_guest *g, enum mqtt_type type, const union mqtt_fields *f);
/* Rounds until what is counted there is that much. False: it does not come, or the connection or the world is lost. */
bool mqtt_guest_await(struct mqtt_guest *g, const unsigned *count, unsigned least);

#endif
