/* mqtt_int: MQTT's part of the core's state, and what the files of core/ call of it. Core thread.
 *
 *   vhost ─ mqtt_client ─ mqtt_sub ─▶ audience (a tap), the client's queue, or mqtt_share ─▶ queue
 *                │                        └ binding ◀─ exchange ─ retained_tree
 *                └ will, received, releasing
 *
 * Life cycle of the state: mqtt_init → … → mqtt_recovered (after a replay) → … mqtt_turn … → mqtt_fini.
 */
#ifndef MILLRACE_CORE_MQTT_INT_H
#define MILLRACE_CORE_MQTT_INT_H

#include "base/list.h"
#include "base/map.h"
#include "base/reader.h"
#include "base/wheel.h"
#include "base/writer.h"
#include "core/mqtt.h"
#include "core/retained.h"

struct answer;
struct binding;
struct broker;
struct amqp_props;
struct amqp_value;
struct channel;
struct command;
struct consumer;
struct entry;
struct exchange;
struct msg;
struct peer;
struct queue;
struct route;
struct vhost;

/* Packet ids, ascending. */
struct mqtt_ids {
    uint16_t *at;
    uint32_t count, max;
};

/* A client, by vhost and id. It is there while it is connected, until its expiry, or until its will has been published. */
struct mqtt_client {
    struct list link;          /* mqtt_state.clients */
    struct list exchange_link; /* exchange->mqtt_clients */
    struct vhost *vhost;
    struct exchange *exchange; /* NULL: it went, or is not known yet in a replay */
    struct slice id, user, exchange_name;
    uint64_t number; /* in the journal */
    uint32_t expiry_s;
    bool durable;    /* began as one that outlives its connection: queue, subscriptions and ids are journalled */
    bool journalled; /* has records: durable, or had a will */
    bool over;       /* has nothing left but a will to be published */
    bool resumed;    /* deliveries have begun */
    wall_t left_at;  /* 0: connected */
    struct peer *peer;
    struct channel *channel; /* of the peer */
    uint32_t receive_max;
    struct list subs; /* struct mqtt_sub, oldest first */
    uint32_t sub_count;
    struct queue *queue; /* of subscriptions with QoS 1 and 2; NULL: there is none */
    struct mqtt_ids received, releasing;
    struct msg *will; /* NULL: none */
    uint32_t will_delay_s;
    uint8_t will_flags; /* enum mqtt_will_flag */
    struct timer timer; /* while it is not connected: its will is due, or its end */
    struct list walks;  /* struct retained_walk */
    uint32_t walk_count;
    uint8_t bytes[];
};

/* A client's subscription. */
struct mqtt_sub {
    struct list link; /* client->subs */
    struct mqtt_client *client;
    uint32_t handle, identifier;
    uint8_t options;
    struct audience *audience; /* it is a tap in there, at … */
    uint32_t place;
    struct mqtt_share *share; /* it is one of these, or NULL */
    struct list share_link;
    struct slice pattern, group, key; /* key: client number, group, pattern */
    uint8_t bytes[];
};

/* The queue of a share group and pattern, while it has members. */
struct mqtt_share {
    struct queue *queue;
    uint64_t queue_id; /* key in mqtt_state.shares */
    struct list members;
};

struct mqtt_once {              /* an id that goes into the record of the message that is being enqueued */
    struct mqtt_client *client; /* NULL: none */
    uint16_t id;
    bool written;
};

struct mqtt_state {
    struct list clients;
    struct map subs;    /* mqtt_sub by key */
    struct map numbers; /* mqtt_client by number */
    struct map shares;  /* mqtt_share by queue id */
    uint64_t next_client;
    uint64_t taps;   /* members of all audiences */
    bool fanned_out; /* into a port that is full: nobody publishes until that has been said */
    uint32_t takers; /* consumers that take over */
    bool
        moving; /* a message goes on into the queue of who takes over, or back, whatever its limit and keys: it was accepted before */
    struct mqtt_once once;
    struct retained_store retained;
};

/* mqtt_client.c */
void mqtt_init(struct broker *b);
void mqtt_fini(struct broker *b);
void mqtt_check(struct broker *b);
bool mqtt_turn(struct broker *b);                         /* once a tick: walks of retained values; true: more to do */
void mqtt_peer_gone(struct broker *b, struct peer *peer); /* its client loses its connection */
void mqtt_client_gone(struct broker *b, struct mqtt_client *client);           /* its vhost goes: the journal knows */
bool mqtt_vhost_gone(struct broker *b, struct vhost *vhost, unsigned *budget); /* true: no client is left */
void mqtt_exchange_gone(struct broker *b, struct exchange *x);
void mqtt_queue_gone(struct broker *b, struct queue *q);           /* somebody deletes a queue of MQTT's */
void mqtt_may_go_on(struct broker *b, struct mqtt_client *client); /* there is credit, or room in its queue */
struct mqtt_client *mqtt_client_find(struct vhost *vhost, struct slice id);
struct mqtt_client *mqtt_client_make(struct broker *b, struct vhost *vhost, struct slice id, struct slice user,
                                     struct slice exchange, uint64_t number); /* number 0: the next; NULL: no memory */
void mqtt_client_free(struct broker *b, struct mqtt_client *client); /* not connected; says nothing to the journal */
/* It ends, with its subscriptions, queues and records. Not connected. */
void mqtt_client_end(struct broker *b, struct mqtt_client *client);
void mqtt_client_arm(struct broker *b, struct mqtt_client *client); /* its timer, when it is not connected */
void mqtt_client_at_exchange(struct mqtt_client *client, struct exchange *x);
uint32_t mqtt_seconds_left(const struct broker *b, wall_t deadline); /* at least 1; 0: it has none */
void mqtt_reply(struct broker *b, struct peer *peer, const struct command *c, int code, uint64_t number, lsn_t lsn);

/* mqtt_sub.c */
struct mqtt_sub *mqtt_sub_find(struct broker *b, const struct mqtt_client *client, struct slice pattern,
                               struct slice group);
struct mqtt_sub *mqtt_sub_make(struct broker *b, struct mqtt_client *client, struct slice pattern, struct slice group);
void mqtt_sub_free(struct broker *b, struct mqtt_sub *sub); /* a tap leaves; queues stay */
bool mqtt_pattern_is_right(struct slice pattern);           /* not too long, and "#" is its last word if it is one */
bool mqtt_sub_is_tap(const struct mqtt_sub *sub);
bool mqtt_subs_resume(struct broker *b, struct mqtt_client *client);  /* taps and consumers; false: no memory */
void mqtt_subs_silence(struct broker *b, struct mqtt_client *client); /* taps leave */
/* Its queues and bindings are there as its subscriptions want them. False: no memory. */
bool mqtt_subs_bind(struct broker *b, struct mqtt_client *client);
void mqtt_share_left(struct broker *b, struct mqtt_sub *sub);
/* Of a share by what MQTT_HEADER_SHARE says; NULL: it is gone. */
struct queue *mqtt_share_queue(struct broker *b, struct vhost *vhost, struct slice share);
void mqtt_sub_consumes_not(struct broker *b, const struct mqtt_sub *sub); /* a share's member: its consumer goes */
size_t mqtt_queue_name(const struct mqtt_client *client, char ret[256]);
struct mqtt_client *mqtt_queue_owner(struct vhost *vhost, struct slice queue_name);

/* mqtt_share.c */
bool mqtt_sub_takes_over(const struct mqtt_sub *sub); /* of a share group and QoS 2 */
/* How many more messages a consumer that takes over may have on their way. */
uint64_t mqtt_share_room(const struct consumer *consumer);
bool mqtt_share_moves(const struct consumer *consumer,
                      const struct entry *e); /* this message is not delivered but moved */
/* Out of the share's queue and into that of the consumer's client, in one record. False: no memory, nothing has changed. */
bool mqtt_share_move(struct broker *b, const struct consumer *consumer, struct entry *e);
/* Of what waits in the queue of a connected client: has moved, and was not sent. next: the oldest that is something else; NULL: it is on disk. */
struct mqtt_unsent {
    uint64_t count, bytes;
    struct entry *next;
};
struct mqtt_unsent mqtt_share_unsent(struct queue *q);
void mqtt_share_give_back(struct broker *b,
                          struct mqtt_client *client); /* its connection ends: what has moved, and was not sent */
void mqtt_share_drained(struct broker *b,
                        struct queue *q); /* it has been pumped: who could take nothing more for it may take again */

/* audience.c */
/* All taps of one exchange with one pattern: one binding, and a list for each loop. */
struct audience {
    struct binding *binding;
    uint64_t route_mark;
    uint32_t members;
    struct audience_port {
        struct audience_part *part; /* NULL: nobody yet */
        struct mqtt_sub **subs;     /* by place; NULL: it has left */
        uint32_t live;
    } ports[];
};

bool audience_join(struct broker *b, struct exchange *x,
                   struct mqtt_sub *sub); /* its client is connected; false: no memory */
void audience_leave(struct broker *b, struct mqtt_sub *sub);
void audience_rename(const struct mqtt_sub *sub);                      /* it has another handle */
void audience_binding_gone(struct broker *b, struct binding *binding); /* before it is freed */
/* To every audience of the route. from: who published it, or NULL. */
void audiences_tell(struct broker *b, const struct route *route, struct msg *msg, const struct peer *from);
void audience_check(const struct broker *b, const struct binding *binding);

/* mqtt_ids.c */
void mqtt_release(struct broker *b, struct channel *ch, const struct command *c); /* an ACK with ASK_RELEASING */
bool mqtt_ids_has(const struct mqtt_ids *ids, uint16_t id);
MUST_USE bool mqtt_ids_reserve(struct mqtt_ids *ids);
void mqtt_ids_add(struct mqtt_ids *ids, uint16_t id); /* reserved */
bool mqtt_ids_drop(struct mqtt_ids *ids, uint16_t id);
void mqtt_ids_fini(struct mqtt_ids *ids);

/* mqtt_publish.c: what a publish of a client has more than others */
struct mqtt_publish {
    struct retained_change change;
};
/* Before it is enqueued: everything is reserved. False: refused, and said so. A message of QoS 1 or 2 that a queue is about to refuse is not
 * retained. */
bool mqtt_publish_begin(struct broker *b, struct channel *ch, struct exchange *x, struct msg *msg,
                        const struct command *c, struct mqtt_publish *ret);
lsn_t mqtt_publish_retain(struct broker *b,
                          struct mqtt_publish *publish); /* before anything else of it is in the journal */
/* The same message with one header more and, unless it is WALL_NEVER, an expiration. NULL: no memory, or there is no message. */
struct msg *mqtt_msg_marked(struct broker *b, const struct msg *msg, const char *name, const struct amqp_value *value,
                            wall_t deadline);
/* The same message with these properties and, unless it is WALL_NEVER, an expiration. NULL: no memory. */
struct msg *mqtt_msg_aged(struct broker *b, const struct msg *msg, struct amqp_props *props, wall_t deadline);
/* It was enqueued (accepted), or refused. */
void mqtt_publish_end(struct broker *b, struct channel *ch, bool accepted, lsn_t *lsn);
/* An ASK_ONCE whose id is there already: confirmed behind whatever is on its way. False: it is new. */
bool mqtt_publish_again(struct broker *b, struct channel *ch, const struct command *c);

/* mqtt_will.c */
/* What MQTT_ATTACH has in args. False: damaged; NULL: no memory. */
bool mqtt_will_parse(struct broker *b, const struct mqtt_client *client, struct slice args, struct msg **ret,
                     uint32_t *ret_delay, uint8_t *ret_flags);
bool mqtt_will_fire(struct broker *b, struct mqtt_client *client); /* false: no memory; it is still there */
void mqtt_will_drop(struct broker *b, struct mqtt_client *client);
wall_t mqtt_will_due(const struct mqtt_client *client); /* WALL_NEVER: none */

/* mqtt_journal.c */
size_t mqtt_client_bytes(const struct mqtt_client *client);                /* of its record, about */
lsn_t mqtt_log_client(struct broker *b, const struct mqtt_client *client); /* 0: no memory, or not journalled */
lsn_t mqtt_log_client_gone(struct broker *b, const struct mqtt_client *client);
lsn_t mqtt_log_sub(struct broker *b, const struct mqtt_sub *sub, bool gone);
enum mqtt_id_what { MQTT_ID_RECEIVED, MQTT_ID_RELEASED, MQTT_ID_RELEASING, MQTT_ID_COMPLETED, MQTT_ID_WHATS };
lsn_t mqtt_log_id(struct broker *b, const struct mqtt_client *client, enum mqtt_id_what what, uint16_t id,
                  const struct queue *q, uint64_t position);
MUST_USE bool mqtt_snapshot(struct broker *b, size_t *bytes, bool *ret_done); /* a slice; false: no memory */
void mqtt_snapshot_begin(struct broker *b);
MUST_USE bool mqtt_recovered(struct broker *b);
MUST_USE bool replay_mqtt_client(struct broker *b, struct reader *r);
MUST_USE bool replay_mqtt_sub(struct broker *b, struct reader *r);
MUST_USE bool replay_mqtt_id(struct broker *b, struct reader *r);
struct mqtt_client *mqtt_client_numbered(struct broker *b, uint64_t number);
MUST_USE bool replay_taken(struct broker *b, uint64_t queue, uint64_t position); /* replay.c: the message has left */

#endif
