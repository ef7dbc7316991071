/* stomp_int: what the files of this folder share: the connection's struct and the words for its states.
 *
 * One struct stomp per connection, on the loop's thread. A connection has one channel in the core, number 1, always in confirm
 * mode. engine.c owns its life, time and bytes, commands.c the table of what a client may say, connect.c the login, send.c
 * SEND, subscription.c SUBSCRIBE to NACK, transaction.c what is done together, answers.c what the core says, receipts.c what
 * waits until durable, out.c the frames that leave.
 */
#ifndef MILLRACE_PROTO_STOMP_INT_H
#define MILLRACE_PROTO_STOMP_INT_H

#include "base/map.h"
#include "base/writer.h"
#include "proto/confirms.h"
#include "proto/stomp/destination.h"
#include "proto/stomp/engine.h"
#include "proto/stomp/frame.h"

#define STOMP_CHANNEL 1
#define COMMANDS_PER_FRAME                                                                                             \
    64u /* slots that a frame finds: those of STOMP_TARGETS_MAX destinations, declared and sent to */

enum stomp_state {
    CONN_CONNECT, /* waits for CONNECT or STOMP */
    CONN_LOGIN,   /* the core checks the login; nothing is read */
    CONN_ENTER,   /* the core checks the vhost; nothing is read */
    CONN_RUNNING,
    CONN_LEAVING, /* DISCONNECT has come: its receipt waits for everything before it; what comes is thrown away */
    CONN_DYING,   /* ERROR was said, or the transport is gone; everything is thrown away */
    CONN_STATES
};

enum stomp_pause {
    PAUSE_FLOW = 1,    /* too many bytes accepted and not yet durable */
    PAUSE_BLOCKED = 2, /* an alarm of the broker */
    PAUSE_OUT = 4,     /* the peer does not read our answers */
    PAUSE_HELD = 8,    /* too many receipts wait until durable */
};

/* What the core's answer is a cue for: bits 24 to 27 of a command's origin; below them a slot, or the low bits of a number. */
enum stomp_cue { CUE_NOTHING, CUE_LOGIN, CUE_ENTER, CUE_CONSUME, CUE_CANCEL, CUE_SEND };
#define ORIGIN_RECEIPT 0x80000000u /* its answer releases the oldest receipt of `asked` */
#define ORIGIN(cue, low) ((uint32_t)(cue) << 24 | ((uint32_t)(low)&0xffffffu))
#define ORIGIN_CUE(origin) ((enum stomp_cue)((origin) >> 24 & 15))
#define ORIGIN_LOW(origin) ((origin)&0xffffffu)

/* What is wrong; the rows say how it is called and whether RabbitMQ goes on afterwards (errors.c). */
enum stomp_wrong {
    WRONG_FRAME,
    WRONG_STATE,
    WRONG_VERSION,
    WRONG_LOGIN,
    WRONG_COMMAND,
    WRONG_DESTINATION_KIND,
    WRONG_DESTINATION,
    WRONG_NO_DESTINATION,
    WRONG_NO_ID,
    WRONG_NO_HEADER,
    WRONG_HEADER,
    WRONG_ID,
    WRONG_DUPLICATE,
    WRONG_NO_SUBSCRIPTION,
    WRONG_SUBSCRIPTION_GONE,
    WRONG_MESSAGE,
    WRONG_NO_TARGET,
    WRONG_NO_TRANSACTION,
    WRONG_TRANSACTION,
    WRONG_NOT_ACCEPTED,
    WRONG_COUNT
};

enum stomp_ack { ACK_AUTO, ACK_CLIENT, ACK_INDIVIDUAL };

struct stomp_receipt {
    struct list link;
    uint64_t number; /* in `sent`: of the SEND; in `answered`: the lsn to be durable */
    bool joined;     /* in `asked`: the next one's answer releases it too */
    uint16_t len;
    uint8_t id[];
};

struct stomp_subscription {
    uint64_t consumer; /* its number in the core: a map's key; 0: not known yet */
    uint32_t slot, serial;
    uint8_t ack;  /* enum stomp_ack */
    bool leaving; /* UNSUBSCRIBE has come */
    struct list ended_link;
    uint64_t *tags; /* ACK_CLIENT: deliveries not acknowledged, ascending: tags[first .. first + count) */
    uint32_t tags_first, tags_count, tags_room;
    struct slice tag;         /* T_id, or Q_destination without an id */
    struct slice destination; /* as it was written */
    struct slice head;        /* "MESSAGE\nsubscription:id\n", escaped */
    struct slice id_head;     /* "message-id:T_id@@session@@", escaped */
    uint8_t bytes[];
};

/* Something that is done with others, or at least not at once. */
struct stomp_op {
    struct msg *msg; /* a SEND; NULL: an ACK or NACK */
    uint64_t number; /* delivery tag */
    uint32_t flags;  /* of the command */
    uint32_t serial; /* of the subscription whose `tags` it was taken from; 0: none */
    uint8_t type;    /* enum command_type */
};

struct stomp_tx {
    struct list link;
    struct stomp_op *ops;
    uint32_t count, room, flushed;
    bool atomic, begun; /* becomes one transaction of the core; whose beginning is in the ring */
    uint64_t bytes;
    struct list receipts; /* of its SENDs, and last of COMMIT or ACK */
    uint16_t id_len;
    uint8_t id[];
};

struct stomp_login { /* what is needed until the vhost is entered, and of ActiveMQ's clients their id for good */
    struct slice user, vhost, client_id;
    uint8_t bytes[];
};

/* The destination of the last message that left: those of one queue have the same. */
struct stomp_printed {
    uint8_t exchange_len, key_len;
    uint16_t len;
    uint8_t names[2 * STOMP_NAME_MAX];
    uint8_t text[STOMP_DESTINATION_MAX];
};

struct stomp {
    struct session session; /* first: session.engine is what the loop knows */
    const struct stomp_options *options;
    uint8_t state;   /* enum stomp_state */
    uint8_t version; /* enum stomp_version */
    bool wrote;      /* something left since the last look at the heart-beat */
    bool owes_enter;
    bool core_left; /* SESSION_CLOSED has come */
    struct stomp_parser parser;
    struct stomp_limits limits;
    struct slice receipt; /* of the frame that is being handled; ptr NULL: none */
    struct stomp_login *login;
    uint32_t beat_send_ms, beat_expect_ms; /* 0: not at all */
    mono_t beat_at, deadline;
    char session_id[40];
    /* SENDs */
    uint64_t published, confirmed;
    uint64_t unsettled_bytes;
    struct confirms confirms;
    struct map queues; /* names that were declared: struct stomp_name */
    struct map temps;  /* temporary names: struct stomp_temp */
    /* receipts */
    struct list sent;     /* of SENDs, by number */
    struct list asked;    /* of what the core was asked, in order */
    struct list answered; /* wait until their lsn is durable */
    struct stomp_receipt *farewell;
    lsn_t answered_lsn; /* the highest that an answer came with */
    uint64_t receipt_bytes;
    /* subscriptions */
    struct stomp_subscription **subscriptions;   /* by slot, NULL: free */
    uint32_t subscriptions_len, serials, ackers; /* ackers: how many there have been that acknowledge */
    struct map by_tag, by_consumer;
    struct list ended;              /* unsubscribed, whose deliveries may still be acknowledged; the oldest first */
    uint32_t ended_count, prefetch; /* prefetch: what the core's channel has for new consumers */
    struct stomp_subscription *last;
    struct stomp_printed *printed;
    /* transactions */
    struct list transactions;
    uint32_t transaction_count;
    uint64_t tx_bytes;
    struct stomp_tx *flushing; /* handed over to the core as there is room; nothing is read meanwhile */
};

static inline struct hub *stomp_hub(struct stomp *s)
{
    return s->session.hub;
}

static inline struct slab_heap *stomp_heap(struct stomp *s)
{
    return hub_heap(s->session.hub);
}

/* Frames, effects and endings still mean something. */
static inline bool stomp_live(const struct stomp *s)
{
    return s->state != CONN_DYING;
}

static inline struct slice topic_exchange(const struct stomp *s)
{
    return slice_str(s->options->topic_exchange);
}

/* ---- engine.c ---- */

void stomp_state_move(struct stomp *s, enum stomp_state to);
void stomp_pause(struct stomp *s, enum stomp_pause why);
void stomp_resume(struct stomp *s, enum stomp_pause why);
/* Nothing more is said: the core lets go, and the transport closes once everything has left. */
void stomp_end(struct stomp *s);
/* A slot for a command of the channel: the driver has made sure that there is one. */
struct command *stomp_command(struct stomp *s, enum command_type type, uint32_t origin);
struct stomp_operands {
    struct slice name, other, key, args;
    uint32_t flags;
};
/* False: no memory, and the connection has been told. */
bool stomp_ask(struct stomp *s, enum command_type type, uint32_t origin, const struct stomp_operands *o);
/* Fills `len` characters of base64's url-safe alphabet and a NUL. */
void stomp_random_text(struct stomp *s, char *ret, size_t len);

/* ---- errors.c ---- */

/* ERROR, and the end of the connection unless the row and the options say otherwise. */
void stomp_error(struct stomp *s, enum stomp_wrong wrong, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* What the core says: not_found, and "NOT_FOUND - no queue …". It always is the end. */
void stomp_error_core(struct stomp *s, enum error_code code, struct slice text, struct slice receipt);
void stomp_fail_memory(struct stomp *s);
/* The server ended a subscription: ERROR with its id, and the connection goes on. */
void stomp_error_cancelled(struct stomp *s, const struct stomp_subscription *sub);
/* stomp_wrong for a destination that was not understood. */
void stomp_error_destination(struct stomp *s, enum stomp_destination_result result, enum stomp_place place,
                             struct slice text, struct slice rest);

/* ---- commands.c ---- */

void stomp_take(struct stomp *s, const struct stomp_frame *frame);

/* ---- connect.c ---- */

void stomp_on_connect(struct stomp *s, const struct stomp_frame *frame);
void stomp_logged_in(struct stomp *s);
void stomp_enter(struct stomp *s); /* the commands of logged_in, when there is room */
void stomp_entered(struct stomp *s);
void stomp_login_refused(struct stomp *s, const struct answer *answer);
void stomp_on_disconnect(struct stomp *s, const struct stomp_frame *frame);

/* ---- send.c ---- */

void stomp_on_send(struct stomp *s, const struct stomp_frame *frame);
/* The message is complete: it is the core's. */
void stomp_publish(struct stomp *s, struct msg *msg);
/* QUEUE_DECLARE of /queue/NAME, once per connection. False: the connection has failed. */
bool stomp_queue_ensure(struct stomp *s, const struct stomp_frame *frame, struct slice name);
/* Arguments for a declare from a frame's headers; the flags of ask as well. False: an error was said. */
bool stomp_declare_operands(struct stomp *s, const struct stomp_frame *frame, bool of_queue, struct writer *args,
                            uint32_t *ret_flags);
void stomp_names_free(struct stomp *s);

/* What a temporary destination stands for: a queue, made if need be, or the key of a topic. False: the connection has failed. */
bool stomp_temp_ensure(struct stomp *s, const struct stomp_destination *d, struct slice text, struct slice *ret);

/* ---- dialect.c ---- */

enum stomp_destination_result stomp_destination_read(const struct stomp *s, struct slice text,
                                                     struct stomp_destination *ret, struct slice *ret_rest);
/* ActiveMQ's name of a durable subscription; false: it is none, or this is RabbitMQ's dialect. */
bool stomp_subscription_name(const struct stomp *s, const struct stomp_frame *frame, struct slice *ret);
/* A topic's key with the wildcards of AMQP; room: STOMP_NAME_MAX bytes. */
void stomp_pattern(const struct stomp *s, struct slice key, uint8_t *room, struct slice *ret);
/* The topic that a queue of that name is bound to. */
bool stomp_virtual_topic(const struct stomp *s, struct slice queue, struct slice *ret);
struct stomp_wishes { /* what a SUBSCRIBE asks of its consumer */
    uint32_t prefetch;
    bool exclusive;
    struct writer *args;
};
/* False: an error was said. */
bool stomp_activemq_wishes(struct stomp *s, const struct stomp_frame *frame, const struct stomp_destination *d,
                           struct stomp_wishes *ret);

/* ---- subscription.c ---- */

void stomp_on_subscribe(struct stomp *s, const struct stomp_frame *frame);
void stomp_on_unsubscribe(struct stomp *s, const struct stomp_frame *frame);
void stomp_on_ack(struct stomp *s, const struct stomp_frame *frame);
void stomp_on_nack(struct stomp *s, const struct stomp_frame *frame);
/* Registers a subscription under a tag. NULL: the connection has failed. */
struct stomp_subscription *stomp_subscription_add(struct stomp *s, struct slice tag, struct slice destination,
                                                  enum stomp_ack ack);
void stomp_subscribed(struct stomp *s, uint32_t slot, uint32_t consumer);
void stomp_unsubscribed(struct stomp *s, uint32_t slot);
struct stomp_subscription *stomp_subscription_of(struct stomp *s, uint32_t consumer);
/* A delivery that a cumulative ACK may cover. False: no memory. */
bool stomp_tags_push(struct stomp_subscription *sub, uint64_t tag);
/* An aborted transaction's acknowledgements; puts them in another order. */
void stomp_tags_restore(struct stomp *s, struct stomp_op *ops, uint32_t count);
void stomp_subscriptions_free(struct stomp *s);

/* ---- transaction.c ---- */

void stomp_on_begin(struct stomp *s, const struct stomp_frame *frame);
void stomp_on_commit(struct stomp *s, const struct stomp_frame *frame);
void stomp_on_abort(struct stomp *s, const struct stomp_frame *frame);
/* One that is not the client's; NULL: no memory. */
struct stomp_tx *stomp_tx_new(struct slice id);
/* The frame's transaction: false: an error was said; *ret NULL: it has none. */
bool stomp_tx_of(struct stomp *s, const struct stomp_frame *frame, struct stomp_tx **ret);
/* Takes the message over. False: the connection has failed. */
bool stomp_tx_add(struct stomp *s, struct stomp_tx *tx, const struct stomp_op *op);
/* Hands it over to the core, now and as there is room; takes it over. */
void stomp_tx_flush(struct stomp *s, struct stomp_tx *tx);
void stomp_flush_on(struct stomp *s);
void stomp_transactions_free(struct stomp *s);

/* ---- receipts.c ---- */

/* For the frame that is being handled; NULL: it wants none, or (then the connection has failed) there is no memory. */
struct stomp_receipt *stomp_receipt_take(struct stomp *s);
/* It is released by the answer of the command that is sent next with ORIGIN_RECEIPT: the answer is that bit, or 0. */
uint32_t stomp_receipt_ask(struct stomp *s);
/* At once: nothing has to be waited for. */
void stomp_receipt_now(struct stomp *s);
void stomp_receipt_answered(struct stomp *s, lsn_t lsn);
/* The id of what an origin belongs to; ptr NULL: none. */
struct slice stomp_receipt_of(struct stomp *s, uint32_t origin);
void stomp_receipt_free(struct stomp *s, struct stomp_receipt *receipt);
void stomp_confirm_push(struct stomp *s, const struct effect *e);
bool stomp_on_durable(struct session *session, lsn_t durable);
/* DISCONNECT: says farewell when nothing is waited for any more. */
void stomp_leave_on(struct stomp *s);
void stomp_receipts_free(struct stomp *s);

/* ---- answers.c ---- */

void stomp_on_effect(struct session *session, struct effect *effect);

/* ---- out.c ---- */

void stomp_out_connected(struct stomp *s);
void stomp_out_receipt(struct stomp *s, struct slice id);
struct stomp_error_frame {
    struct slice message, body, receipt, subscription; /* the latter two: ptr NULL: none */
};
void stomp_out_error(struct stomp *s, const struct stomp_error_frame *e);
/* Takes the message's reference. */
void stomp_out_message(struct stomp *s, const struct stomp_subscription *sub, const struct effect *e);
void stomp_out_beat(struct stomp *s);

#endif
