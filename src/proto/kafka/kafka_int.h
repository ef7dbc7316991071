/* kafka_int: what the files of this folder share: a connection, its requests, and what a handler is.
 *
 * A request goes   taken ▸ go, again and again until it has asked the core for everything ▸ effect, once per answer of the
 * core ▸ its turn: the requests before it are answered, and what it depends on is durable ▸ said, freed. Requests begin in
 * the order in which they came, and the next one only when the one before has asked for everything; their answers leave
 * in the same order. A request dies with its connection: drop. All on the loop's thread.
 */
#ifndef MILLRACE_PROTO_KAFKA_INT_H
#define MILLRACE_PROTO_KAFKA_INT_H

#include "base/map.h"
#include "proto/kafka/api.h"
#include "proto/kafka/engine.h"

enum kafka_state {
    KAFKA_NEW,   /* nobody has logged in */
    KAFKA_SASL,  /* a mechanism has been agreed on */
    KAFKA_LOGIN, /* the core is asked for the user … */
    KAFKA_ENTER, /* … and the vhost */
    KAFKA_READY,
    KAFKA_CLOSING, /* what comes is thrown away */
};

#define KAFKA_NO_MECHANISM UINT8_MAX

struct kafka_request;
struct kafka;

enum kafka_progress {
    KAFKA_SENT,  /* the core has been asked for everything */
    KAFKA_AGAIN, /* something has to come first, a command slot or an answer: go is called again when it may have */
};

struct kafka_handler {
    /* Looks at r->message, fills in r->response, sends commands by kafka_command. In its first call the slices of a
     * message point into what was received if in_place is set, else into the arena; afterwards only those in the arena live. */
    enum kafka_progress (*go)(struct kafka *k, struct kafka_request *r);
    /* An answer of the core; takes msg, answer and blocks over. May be NULL where nothing is asked. */
    void (*effect)(struct kafka *k, struct kafka_request *r, struct effect *e);
    /* Where the response has records from elsewhere (r->cuts_max): lends those of the i-th cut to the outq. */
    void (*lend)(struct kafka *k, struct kafka_request *r, size_t i);
    /* Frees what the request holds outside its arena; once, whether it was answered or not. May be NULL. */
    void (*drop)(struct kafka *k, struct kafka_request *r);
    bool in_place;
    bool shares; /* of share groups, which a setting offers */
};

struct kafka_request {
    struct list link; /* kafka.requests */
    const struct kafka_api *api;
    const struct kafka_handler *handler;
    struct kafka_form form;
    int32_t correlation_id;
    uint32_t id;      /* origin of its commands; never 0 */
    uint32_t pending; /* answers of the core that have not come */
    uint32_t bytes;   /* of batches, or of a block of the core's, for the account */
    lsn_t lsn;        /* its answer is held until this is durable */
    bool sent;        /* go has said KAFKA_SENT */
    bool silent;      /* no answer is wanted (acks=0) */
    bool unknown_version;
    void *message;      /* struct of api->request */
    void *response;     /* struct of api->response, in the arena, with its defaults */
    void *state;        /* the handler's, usually in the arena */
    uint32_t cuts_max;  /* records from elsewhere in the response, and … */
    size_t elsewhere;   /* … their bytes */
    struct arena arena; /* until the request is freed */
    struct slice client_id;
};

struct kafka {
    struct session session; /* first: session.engine is what the loop knows */
    const struct kafka_options *options;
    uint8_t state; /* enum kafka_state */
    bool blocked;  /* by the core: an alarm, and this session has published */
    bool leaving;  /* the connection ends with the last answer */
    bool raw_sasl; /* tokens come without a request around them (SaslHandshake 0) */
    bool again;    /* a login of who is logged in */
    uint8_t mechanism;
    struct scram *scram;           /* during an exchange of SCRAM; wiped with it */
    struct slice scram_token;      /* what is to be said when the core has agreed; in scram */
    mono_t session_ends, again_at; /* 0: never; never yet */
    struct list requests;          /* of struct kafka_request, as they came */
    struct list spares;            /* to be used again */
    uint32_t request_count, spare_count;
    struct kafka_request *going;  /* has not asked for everything yet */
    struct kafka_request *log_in; /* SaslAuthenticate that waits for the core */
    uint32_t next_id;
    uint64_t inflight_bytes;
    struct map topics;                             /* name → struct kafka_topic, see names.h */
    struct map topics_by_id;                       /* the same by the stream's id */
    uint64_t topics_changed;                       /* hub_streams_changed when they were asked for */
    struct kafka_fetch_session *fetch_session;     /* NULL: none, see fetch_session.h */
    struct list share_sessions;                    /* struct share_session: share_fetch.c */
    uint32_t share_session_count, share_row_count; /* rows: of all of them */
    mono_t deadline;
    uint16_t local_port;
    char local_host[64];
};

static inline struct hub *kafka_hub(const struct kafka *k)
{
    return k->session.hub;
}

static inline bool kafka_live(const struct kafka *k)
{
    return k->state != KAFKA_CLOSING && !k->session.gone;
}

/* A command of the request, whose answer is then pending; NULL: no slot, say KAFKA_AGAIN. */
MUST_USE struct command *kafka_command(struct kafka *k, struct kafka_request *r, enum command_type type);
/* Zeroed room in the request's arena. NULL: no memory, and the connection has been dropped. */
MUST_USE void *kafka_room(struct kafka *k, struct kafka_request *r, size_t count, size_t size);
/* s in the arena; ptr NULL stays NULL, and is what comes without memory too (the connection has been dropped then). */
struct slice kafka_keep(struct kafka *k, struct kafka_request *r, struct slice s);
/* Closes the connection without an answer, as Kafka does where there is none, once what was said has left. */
void kafka_drop(struct kafka *k);
/* Memory was refused: costs this connection only. */
void kafka_drop_memory(struct kafka *k);
/* Answers of requests that are ready, in order. */
void kafka_flush(struct kafka *k);

/* The host and port that clients are told to connect to. */
struct slice kafka_advertised_host(const struct kafka *k);
uint16_t kafka_advertised_port(const struct kafka *k);

/* Which keys have a handler; ApiVersions says no other. */
const struct kafka_handler *kafka_handler_find(int16_t key);
/* NULL: nobody answers it, or the settings do not offer it. */
const struct kafka_handler *kafka_offered(const struct kafka *k, int16_t key);

#define HANDLER(name) extern const struct kafka_handler kafka_on_##name;
#include "proto/kafka/handlers.def"
#undef HANDLER

#endif
