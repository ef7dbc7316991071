/* mqtt_chain: random work of MQTT's clients beside a world's AMQP client, and what they know from life to life. See sim.c.
 *
 * A publisher of QoS 0, 1 and 2 and of retained values, a subscriber with a session, two members of a share group, one with a will, and one
 * that looks at what is retained. After a death, or when they drop a connection, they go on with their sessions: they send again what was
 * not answered, with DUP, and know which packet ids they hold. Plain data: a copy of it belongs to a copy of the disk. One thread.
 * Life cycle: mqtt_chain_furnish, once → { mqtt_chain_begin ▸ mqtt_chain_op* ▸ mqtt_chain_end }* of each life.
 */
#ifndef MILLRACE_TESTS_SIM_MQTT_CHAIN_H
#define MILLRACE_TESTS_SIM_MQTT_CHAIN_H

#include "mqtt_guest.h"

#define MQTT_CHAIN_LETTERS 16384u
#define MQTT_CHAIN_OUT 8u    /* publishes of one client without an end */
#define MQTT_CHAIN_RECS 512u /* packet ids that one client holds */
#define MQTT_CHAIN_STREAMS 18u

enum mqtt_chain_client { CHAIN_PUB, CHAIN_SUB, CHAIN_A, CHAIN_B, CHAIN_WILL, CHAIN_LOOK, CHAIN_CLIENTS };

/* A message in the one queue that it is for: what may be known of it. */
struct mqtt_letter {
    uint32_t acked_at; /* clock of the PUBACK that its subscriber sent */
    uint8_t stream;
    uint8_t sends, copies, fresh; /* how often it was sent; may lie there; came without DUP */
    uint8_t found;                /* scratch of the comparison */
    bool sure;                    /* it must be there, if nobody has acknowledged it */
    bool seen, acking;
    bool once;  /* somebody has done with one of its copies */
    bool done;  /* with all of them */
    bool again; /* it was sent again after that */
    bool final; /* it is not sent again */
    bool gone;  /* it deletes a retained value */
};

struct mqtt_mind { /* what a client keeps */
    bool session;
    bool afresh; /* it gave its session up, and has not heard yet that the broker did */
    uint32_t out_count, rec_count;
    struct {
        uint32_t letter;
        uint16_t id;
        uint8_t state; /* enum out_state */
        bool again;    /* PUBREL was sent on an earlier connection */
    } out[MQTT_CHAIN_OUT];
    struct {
        uint32_t letter;
        uint16_t id;
        bool back; /* scratch: it came again, or its PUBREL */
    } recs[MQTT_CHAIN_RECS];
};

struct mqtt_chain {
    struct mqtt_letter letters[MQTT_CHAIN_LETTERS]; /* from 1 */
    uint32_t count, clock;
    uint32_t top[MQTT_CHAIN_STREAMS];  /* the highest letter that came to the subscriber */
    uint32_t kept[MQTT_CHAIN_STREAMS]; /* retained: all before it is past; 0: nothing is known */
    struct mqtt_mind minds[CHAIN_CLIENTS];
    uint32_t will; /* of the connection that is there */
    bool will_armed;
    bool stopped; /* for the rest of this life */
    uint64_t published, resent, got, compared, wills, values;
};

/* What lives as long as the broker's process. */
struct mqtt_life {
    struct mqtt_guests all;
    struct mqtt_chain *chain;
    struct world *w;
    bool looks; /* a comparison: nothing is acknowledged */
    uint32_t wanted[CHAIN_CLIENTS], values[MQTT_CHAIN_STREAMS];
    unsigned anchors;
    struct {
        uint8_t state; /* enum link_state */
        uint32_t held_count, comp_count;
        struct {
            uint32_t letter;
            uint16_t id;
            uint8_t qos;
        } held[MQTT_CHAIN_RECS];
        uint16_t comps[MQTT_CHAIN_RECS];
        uint32_t since;         /* clock of its CONNECT */
        uint32_t beat, beat_at; /* a publish whose answer seals the PUBACKs before it, of this connection */
    } links[CHAIN_CLIENTS];
};

/* On a connected world: sessions, subscriptions, a value that stays. */
void mqtt_chain_furnish(struct mqtt_chain *k, struct world *w);
/* Compares what is there with what is known. */
void mqtt_chain_begin(struct mqtt_chain *k, struct mqtt_life *l, struct world *w);
void mqtt_chain_op(struct mqtt_life *l);
void mqtt_chain_end(struct mqtt_life *l);

#endif
