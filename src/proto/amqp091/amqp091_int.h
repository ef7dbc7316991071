/* amqp091_int: what the files of this folder share: the connection and channel structs and the words for their states.
 *
 * One struct amqp091 per connection, one struct amqp091_channel per open channel; both live on the loop's thread.
 * engine.c owns the connection's life and the frames, handshake.c the negotiation, channel.c channels and contents,
 * requests.c what clients ask, answers.c what the core says, out.c the bytes that leave.
 */
#ifndef MILLRACE_PROTO_AMQP091_INT_H
#define MILLRACE_PROTO_AMQP091_INT_H

#include "base/map.h"
#include "proto/amqp091/engine.h"
#include "proto/amqp091/methods.h"
#include "proto/confirms.h"

enum { FRAME_METHOD = 1, FRAME_HEADER = 2, FRAME_BODY = 3, FRAME_HEARTBEAT = 8, FRAME_END = 0xCE };
#define FRAME_HEAD 7u     /* type, channel, size */
#define FRAME_OVERHEAD 8u /* and the end octet */

#define AMQP091_ORIGIN(class_id, method_id) ((uint32_t)(class_id) << 16 | (method_id))
#define ORIGIN_NO_WAIT 0x80000000u /* the client wants no reply */
#define ORIGIN_FENCE 0x40000000u   /* an answer that only says: everything before has been answered */
#define ORIGIN_METHOD(origin) ((origin)&0x3fffffffu)

enum amqp091_state {
    CONN_HEADER, /* waits for the protocol header */
    CONN_START,  /* start sent */
    CONN_LOGIN,  /* the core checks the login; nothing is read */
    CONN_TUNE,   /* tune sent */
    CONN_OPEN,   /* tuned, waits for open */
    CONN_ENTER,  /* the core checks the vhost; nothing is read */
    CONN_RUNNING,
    CONN_LEAVING, /* the client sent close; the core lets go, then close-ok */
    CONN_CLOSING, /* close sent; everything but close-ok and close is thrown away */
    CONN_DYING,   /* everything is thrown away until the deadline */
    CONN_STATES
};

enum amqp091_pause {
    PAUSE_FLOW = 1,    /* too many bytes accepted and not yet durable */
    PAUSE_BLOCKED = 2, /* an alarm of the broker */
    PAUSE_OUT = 4,     /* the peer does not read our answers */
    PAUSE_HELD = 8,    /* too many answers wait until durable */
};

enum amqp091_capability { CLIENT_BLOCKED = 1, CLIENT_CANCEL_NOTIFY = 2, CLIENT_AUTH_CLOSE = 4 };

struct amqp091_tune {
    uint32_t frame_max;
    uint16_t channel_max;
    uint16_t heartbeat_s;
};

struct amqp091_channel;

struct amqp091 {
    struct session session; /* first: session.engine is what the loop knows */
    const struct amqp091_options *options;
    uint8_t state;        /* enum amqp091_state */
    uint8_t capabilities; /* enum amqp091_capability, of the client */
    uint8_t mechanism;    /* index into the mechanism table */
    bool wrote;           /* something left since the last look at the heartbeat */
    bool owes_channels;   /* a channel owes its CHANNEL_CLOSE */
    struct amqp091_tune offered, asked, agreed;
    uint32_t frame_limit;              /* largest payload size accepted now */
    uint32_t early_bytes;              /* received before login */
    struct amqp091_channel **channels; /* by number, NULL: free */
    uint32_t channels_len, channel_count;
    struct list holding; /* channels that hold something until durable */
    uint32_t held_count; /* held effects of all channels */
    uint32_t body_left;  /* of a body frame that is being consumed in pieces, with its end octet; 0: none */
    struct amqp091_channel *body_channel; /* whose it is; NULL: thrown away */
    uint64_t unsettled_bytes;             /* published and not yet durable */
    uint64_t assembly_bytes;              /* unfinished bodies */
    lsn_t closed_lsn;                     /* close-ok waits for it */
    mono_t beat_at;                       /* when the heartbeat was last looked at */
    mono_t deadline;                      /* of the handshake or of closing */
};

enum amqp091_channel_state {
    CHANNEL_OPEN,
    CHANNEL_FENCED,  /* an error waits until the core has answered what came before it; frames are thrown away */
    CHANNEL_FAILED,  /* channel.close sent, waits for close-ok; frames are thrown away */
    CHANNEL_LEAVING, /* waits for the core's CHANNEL_CLOSED: then close-ok if the client asked, and the number is free */
};

enum amqp091_stage { STAGE_METHOD, STAGE_HEADER, STAGE_BODY };

enum amqp091_confirm_kind { CONFIRM_ACK, CONFIRM_SILENT }; /* of struct confirm */

/* A publish whose content has not fully come: only when its frames do not stand in the buffer together. */
struct amqp091_pending {
    uint8_t exchange_len, key_len;
    bool mandatory;
    uint8_t names[510];
};

/* An error that waits for its turn. */
struct amqp091_fault {
    enum error_code code;
    uint16_t class_id, method_id;
    char text[240];
};

/* A consumer, and the beginning of every delivery to it, encoded once. */
struct amqp091_consumer {
    uint64_t id; /* the map's key */
    uint16_t prefix_len;
    uint8_t prefix[]; /* frame head (size to be patched), class, method, consumer tag */
};

struct amqp091_channel {
    uint16_t number;
    uint8_t state; /* enum amqp091_channel_state */
    uint8_t stage; /* enum amqp091_stage */
    bool confirms_on, tx;
    bool client_closed; /* LEAVING: close-ok is owed */
    bool close_sent;    /* CHANNEL_CLOSE is in the ring */
    bool core_closed;   /* CHANNEL_CLOSED has come */
    bool owes_close;    /* CHANNEL_CLOSE must be sent when there is room */
    bool is_holding;
    uint64_t published;    /* publishes given to the core */
    uint64_t confirm_base; /* publishes before confirm.select */
    uint64_t confirmed;    /* highest publish number that was confirmed */
    uint64_t unsettled_bytes;
    struct msg *msg; /* STAGE_BODY: being filled */
    uint64_t body_size;
    uint32_t body_have, body_room;
    struct amqp091_pending *pending;
    struct amqp091_fault *fault;
    struct list holding_link;
    struct list held; /* struct amqp091_held: effects in order, the first waits for its lsn */
    uint32_t held_returns;
    struct confirms confirms;
    struct map consumers;
    struct amqp091_consumer *last_consumer;
};

struct amqp091_held {
    struct list link;
    struct effect effect;
};

static inline struct hub *amqp091_hub(struct amqp091 *a)
{
    return a->session.hub;
}

static inline struct slab_heap *amqp091_heap(struct amqp091 *a)
{
    return hub_heap(a->session.hub);
}

static inline uint32_t amqp091_origin(const struct amqp091_row *row)
{
    return AMQP091_ORIGIN(row->class_id, row->method_id);
}

/* Still exchanging methods: not closing in any way. */
static inline bool amqp091_live(const struct amqp091 *a)
{
    return a->state < CONN_LEAVING;
}

/* ---- engine.c: states and endings of a connection ---- */

void amqp091_state_move(struct amqp091 *a, enum amqp091_state to);
void amqp091_pause(struct amqp091 *a, enum amqp091_pause why);
void amqp091_resume(struct amqp091 *a, enum amqp091_pause why);
/* connection.close to the peer, SESSION_CLOSE to the core. The ids name the method at fault, 0: none. */
void amqp091_fail(struct amqp091 *a, enum error_code code, uint16_t class_id, uint16_t method_id, const char *format,
                  ...) __attribute__((format(printf, 5, 6)));
/* The same for memory that was refused: costs this connection only. */
void amqp091_fail_memory(struct amqp091 *a);
/* Closes the transport without another word, after delay_ms of throwing away what comes. */
void amqp091_drop(struct amqp091 *a, uint32_t delay_ms);
/* The next tick at `due` at the latest. */
void amqp091_tick_by(struct amqp091 *a, mono_t due);

/* The first 3 letters of an error's fate: `NAME - text`, at most 255 bytes. Returns the length. */
size_t amqp091_reply_text(char *ret, enum error_code code, struct slice text);

#endif
