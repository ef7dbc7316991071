/* mqtt_int: what the files of this folder share: the connection's struct and the words for its states.
 *
 * One struct mqtt per connection, on its loop's thread. engine.c owns its life and the packets, connect.c the login, publish.c what
 * clients publish, subscribe.c their subscriptions, deliver.c what goes out to them, out.c the bytes that leave.
 *
 * What a client has not got (aliases, ids in use, answers that wait) takes no memory: an idle one is this struct and the
 * subscriptions.
 */
#ifndef MILLRACE_PROTO_MQTT_INT_H
#define MILLRACE_PROTO_MQTT_INT_H

#include "fmt/scram.h"
#include "proto/confirms.h"
#include "proto/mqtt/engine.h"
#include "proto/mqtt/ids.h"
#include "proto/mqtt/packet.h"
#include "proto/mqtt/topic.h"

enum mqtt_stage {
    MQTT_IS_NEW,       /* waits for CONNECT */
    MQTT_IS_ASKING,    /* the core has been asked about the login; nothing is read */
    MQTT_IS_PROVING,   /* waits for the client's AUTH */
    MQTT_IS_ATTACHING, /* the core looks for the session; nothing is read */
    MQTT_IS_READY,     /* CONNACK has been sent */
    MQTT_IS_ENDING,    /* what comes is thrown away, and the transport is closed once all is said */
    MQTT_STATES
};

enum mqtt_pause {
    MQTT_PAUSE_FLOW = 1,    /* too many bytes accepted and not yet durable */
    MQTT_PAUSE_BLOCKED = 2, /* an alarm of the broker */
    MQTT_PAUSE_OUT = 4,     /* the client does not read what we say */
    MQTT_PAUSE_OWED = 8,    /* too much has no answer yet */
};

/* What a command's answer is about: the high half of `origin`, the low one is a packet id. */
enum mqtt_origin {
    MQTT_ASKED_RELEASING, /* ACK with ASK_RELEASING, whose origin is the bare packet id */
    MQTT_ASKED_LOGIN,
    MQTT_ASKED_KEYS,
    MQTT_ASKED_ENTER,
    MQTT_ASKED_CHANNEL,
    MQTT_ASKED_ATTACH,
    MQTT_ASKED_RESUME,
    MQTT_ASKED_DETACH,
    MQTT_ASKED_PUBLISH,
    MQTT_ASKED_LIST,     /* MQTT_SUBSCRIBE, MQTT_UNSUBSCRIBE */
    MQTT_ASKED_RETAINED, /* MQTT_RETAINED */
    MQTT_ASKED_RELEASED, /* MQTT_RELEASED */
    MQTT_ASKED_COMPLETED,
};
#define MQTT_ORIGIN(kind, id) ((uint32_t)(kind) << 16 | (id))
#define MQTT_CHANNEL 1u

/* A subscription of the client, by its handle: MQTT_HANDLE_FIRST + slot + age << 20, so that a slot that is used again is not mistaken. */
struct mqtt_subscribed {
    struct mqtt_subscribed *chain; /* next of its bucket in mqtt.sub_heads */
    uint32_t handle, identifier, hash;
    uint8_t options, pattern_len;
    uint16_t group_len;
    bool pending;   /* the core has not answered yet: it is not there */
    uint8_t text[]; /* pattern, group */
};

/* A SUBSCRIBE or UNSUBSCRIBE on its way: reasons are filled in as the core answers. */
struct mqtt_job {
    struct list link;
    lsn_t lsn;
    uint16_t id;
    bool unsubscribe;
    uint32_t count, asked, answered; /* of the filters; those asked for are answered in order */
    uint32_t at;                     /* of the filter whose answer is the next */
    struct mqtt_item {
        struct mqtt_subscribed *sub; /* subscribe: pending until answered, then a loan by its handle only */
        uint32_t handle;             /* 0: nothing to be sent of what is retained */
        uint8_t reason;
        bool asks;
    } items[];
};

/* What waits until it is durable, in order. */
struct mqtt_owed {
    lsn_t lsn;
    struct mqtt_job *job; /* SUBACK, UNSUBACK */
    uint16_t id;
    uint8_t type; /* enum mqtt_type: pubrel, pubcomp, suback, unsuback, connack; 0: the id is free */
    uint8_t reason;
};

/* A publish of QoS 1 or 2 that the core has. */
struct mqtt_published {
    uint64_t number;
    uint16_t id;
    uint8_t qos;
    uint8_t refused; /* the reason: the core has not got it; number is that of the one before */
};

/* What CONNECT said that is needed when the core has answered. */
struct mqtt_hello {
    bool clean, wants_response;
    bool said_keep_alive, said_expiry; /* they are not what was asked for */
    uint16_t client_id_len, vhost_len;
    uint32_t will_len;     /* as core/mqtt.h lays it out */
    uint32_t ids_at;       /* in the answer's fields: where the released ids begin */
    struct answer *answer; /* ATTACH's, held until CONNACK */
    uint8_t bytes[];       /* client id, vhost, will */
};

struct mqtt_alias {
    uint32_t hash;
    uint8_t len;
    uint8_t key[];
};

struct mqtt {
    struct session session; /* first: session.engine is what the loop knows */
    const struct mqtt_options *options;
    uint8_t state;   /* enum mqtt_stage */
    uint8_t version; /* MQTT_3_1 …; 0 before CONNECT */
    uint8_t method;  /* of enhanced authentication: enum scram_hash + 1; 0: none */
    bool bridge, quiet /* no reason strings */, counted;
    uint16_t keep_alive_s;
    uint16_t inflight_max;  /* to the client */
    uint16_t alias_out_max; /* how many it takes; 0: none */
    uint16_t alias_out_count;
    uint16_t handle_age;
    uint32_t packet_max; /* that it takes */
    uint32_t expiry_s;
    mono_t deadline;
    struct mqtt_hello *hello; /* until CONNACK */
    struct scram *scram;      /* while an exchange goes on */
    /* publishes of the client */
    uint64_t published; /* given to the core */
    uint64_t unsettled_bytes;
    uint32_t quota_used;                           /* QoS 1 and 2 without PUBACK or PUBCOMP */
    struct fifo publishes;                         /* struct mqtt_published */
    struct confirms confirms;                      /* kind: the reason */
    struct mqtt_alias **aliases_in, **aliases_out; /* by alias - 1 */
    /* what it wants, and gets */
    struct mqtt_subscribed **subs;      /* by slot; NULL: free */
    struct mqtt_subscribed **sub_heads; /* by hash: as many, in the same block */
    uint32_t subs_room, subs_count;
    uint32_t subs_taken; /* no slot below is free */
    uint32_t jobs_count;
    struct list jobs;
    struct fifo owed;    /* struct mqtt_owed */
    struct fifo debts;   /* struct command that found no room */
    struct fifo waiting; /* struct effect: deliveries whose packet id is in use */
    struct ids ids;
};

static inline struct hub *mqtt_hub(struct mqtt *m)
{
    return m->session.hub;
}

static inline struct slab_heap *mqtt_heap(struct mqtt *m)
{
    return hub_heap(m->session.hub);
}

static inline bool mqtt_live(const struct mqtt *m)
{
    return m->state != MQTT_IS_ENDING;
}

static inline void mqtt_count(_Atomic uint64_t *total, uint64_t more)
{
    atomic_fetch_add_explicit(total, more, memory_order_relaxed);
}

/* ---- engine.c: states and endings of a connection ---- */

void mqtt_state_move(struct mqtt *m, enum mqtt_stage to);
void mqtt_tick_by(struct mqtt *m, mono_t due);
void mqtt_pause(struct mqtt *m, enum mqtt_pause why);
void mqtt_resume(struct mqtt *m, enum mqtt_pause why);
/* Ends the connection with that reason code: DISCONNECT to who understands it, or CONNACK to who has not had one. text may be NULL. */
void mqtt_fail(struct mqtt *m, uint8_t reason, const char *text);
/* Ends it without a word. */
void mqtt_drop(struct mqtt *m);
void mqtt_fail_memory(struct mqtt *m);
/* To the core: at once or, in order, as soon as there is room. The ask, if any, is the command's (NULL there: no memory, and the
 * connection ends). False: the connection has ended. */
bool mqtt_send(struct mqtt *m, const struct command *command);
bool mqtt_send_ask(struct mqtt *m, enum command_type type, uint32_t origin, uint64_t number, uint32_t flags,
                   struct ask *ask);
/* Puts something on the list of what waits for an lsn. */
void mqtt_owe(struct mqtt *m, const struct mqtt_owed *owed);

/* ---- connect.c ---- */

void mqtt_on_connect(struct mqtt *m, const struct mqtt_frame *frame);
void mqtt_on_auth(struct mqtt *m, const struct mqtt_end_fields *f);
void mqtt_on_disconnect(struct mqtt *m, const struct mqtt_end_fields *f);
/* An ANSWER or ERROR of before CONNACK. May take its block. */
void mqtt_connect_effect(struct mqtt *m, struct effect *e);
/* The core's word on a client that proves itself again. */
void mqtt_again_answer(struct mqtt *m, const struct effect *e);
/* It is durable: CONNACK leaves, and what is delivered may begin. */
void mqtt_connected(struct mqtt *m);
void mqtt_connect_fini(struct mqtt *m);

/* ---- publish.c ---- */

void mqtt_on_publish(struct mqtt *m, const struct mqtt_publish_fields *f);
void mqtt_on_pubrel(struct mqtt *m, const struct mqtt_ack_fields *f);
void mqtt_publish_effect(struct mqtt *m, const struct effect *e); /* CONFIRM, NACK */
void mqtt_publish_release(struct mqtt *m, lsn_t durable);
void mqtt_aliases_free(struct mqtt *m, struct mqtt_alias ***aliases);

/* ---- subscribe.c ---- */

void mqtt_on_list(struct mqtt *m, const struct mqtt_list_fields *f, bool unsubscribe);
void mqtt_list_answer(struct mqtt *m, const struct effect *e);
void mqtt_job_done(struct mqtt *m, struct mqtt_job *job); /* its packet leaves */
const struct mqtt_subscribed *mqtt_sub_of(const struct mqtt *m, uint32_t handle);
/* A shared subscription that the core has, by its group, "/" and pattern. NULL: there is none. */
const struct mqtt_subscribed *mqtt_sub_shared(const struct mqtt *m, struct slice share);
/* Those without a group, which the core has, that match the key; each once, in any order. queued: of QoS 1 and 2, else of 0. */
void mqtt_subs_match(const struct mqtt *m, struct slice key, bool queued,
                     void (*found)(void *arg, const struct mqtt_subscribed *sub), void *arg);
/* From ATTACH's answer. False: it makes no sense, or there is no memory. */
MUST_USE bool mqtt_subs_restore(struct mqtt *m, struct reader *fields);
void mqtt_subs_free(struct mqtt *m);

static inline struct slice mqtt_sub_pattern(const struct mqtt_subscribed *sub)
{
    return slice_of(sub->text, sub->pattern_len);
}

/* ---- deliver.c ---- */

void mqtt_on_fanout(struct session *session, struct fanout *fanout, uint32_t handle);
void mqtt_deliver_effect(struct mqtt *m, struct effect *e); /* DELIVER, RETAINED; takes its message */
void mqtt_on_ack(struct mqtt *m, enum mqtt_type type, const struct mqtt_ack_fields *f); /* PUBACK, PUBREC, PUBCOMP */
void mqtt_release_answer(struct mqtt *m, const struct effect *e);
void mqtt_complete_answer(struct mqtt *m, const struct effect *e);
void mqtt_id_released(struct mqtt *m, uint16_t id); /* it is durable: PUBREL */
void mqtt_id_free(struct mqtt *m, uint16_t id);     /* PUBCOMP is durable */
void mqtt_credit_return(struct mqtt *m);
void mqtt_deliver_fini(struct mqtt *m);

/* ---- out.c ---- */

void mqtt_out(struct mqtt *m, enum mqtt_type type, const union mqtt_fields *fields);
void mqtt_out_ack(struct mqtt *m, enum mqtt_type type, uint16_t id, uint8_t reason);

#endif
