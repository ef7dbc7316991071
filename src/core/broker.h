/* broker: the core: all broker state behind commands in, effects out. Deterministic, one writer, no I/O.
 *
 * Life cycle: broker_new → broker_replay … → broker_replayed → broker_step again and again → broker_free.
 * Everything here is called on the core thread only, except what is said of ports: a port is a pair of bounded rings,
 * commands from one network loop (or the worker, or the control socket) to the core, effects back.
 *
 * Ownership: the producer of a command gives the core its msg reference and its ask; the consumer of an effect gets the
 * msg reference and the answer and frees them (msg_unref, mem_free). A fetch is a block that goes both ways (fetch_free).
 *
 * Until durable: answers and confirms are emitted at once with the lsn they depend on, and whoever owns the connection
 * holds them until broker_durable passes it, in order within a channel. Deliveries and GET_OK are emitted only for what
 * is durable, so they carry lsn 0 and are held only behind an earlier held answer of their channel.
 */
#ifndef MILLRACE_CORE_BROKER_H
#define MILLRACE_CORE_BROKER_H

#include "base/errors.h"
#include "base/ring.h"
#include "base/types.h"
#include "core/fetch.h"
#include "core/message.h"
#include "core/mqtt.h"
#include "core/page.h"
#include "core/query.h"
#include "core/stream_admin.h"
#include "core/stream_job.h"
#include "core/txn.h"

enum command_type {
    CMD_NONE,
#define COMMAND(name, handler, needs_channel, carries) CMD_##name,
#include "core/commands.def"
#undef COMMAND
    CMD_COUNT
};

enum ask_flag {
    ASK_PASSIVE = 1 << 0,
    ASK_DURABLE = 1 << 1,
    ASK_AUTO_DELETE = 1 << 2,
    ASK_EXCLUSIVE = 1 << 3,
    ASK_INTERNAL = 1 << 4,
    ASK_IF_UNUSED = 1 << 5,
    ASK_IF_EMPTY = 1 << 6,
    ASK_NO_ACK = 1 << 7,
    ASK_NO_LOCAL = 1 << 8,
    ASK_GLOBAL = 1 << 9,
    ASK_REQUEUE = 1 << 10,
    ASK_MULTIPLE = 1 << 11,
    ASK_REJECT = 1 << 12,     /* the nack came as basic.reject */
    ASK_LOOPBACK = 1 << 13,   /* the peer's address is 127.0.0.0/8 or ::1 */
    ASK_CAN_BLOCK = 1 << 14,  /* the client understands connection.blocked */
    ASK_CAN_CANCEL = 1 << 15, /* … consumer cancel notifications */
    ASK_VERIFY_OK = 1 << 16,
    ASK_NO_WAIT = 1 << 17,        /* the engine will not show the answer; it is emitted all the same */
    ASK_INTERNAL_ADMIN = 1 << 18, /* the control socket: skips permission checks */
    ASK_CHECK_ONLY = 1 << 19,     /* says what would become of it, and changes nothing */
    ASK_SIZES = 1 << 20,          /* rows of streams with what each partition holds */
    ASK_COMMIT = 1 << 22,         /* TXN_END; else it is aborted */
    ASK_NEXT_EPOCH = 1 << 23,     /* TXN_END: and the producer goes on in the next epoch (KIP-890) */
    ASK_JOINS = 1 << 24, /* PRODUCE: its partition becomes part of the producer's transaction; TXN_OFFSETS: begins it */
    ASK_STABLE = 1 << 25,    /* GROUP_OFFSETS: not while a transaction may still change them */
    ASK_TRUSTED = 1 << 21,   /* LOGIN from the loopback without a secret, where the listener's settings allow it */
    ASK_PROVEN = 1 << 26,    /* LOGIN: the engine has seen a proof of these SCRAM keys */
    ASK_AGAIN = 1 << 27,     /* LOGIN of who is logged in already, as the same user: only its word is wanted */
    ASK_CERTIFIED = 1 << 29, /* LOGIN without a secret: the transport has verified a certificate that names the user */
    ASK_STRICT = 1 << 28,    /* of a share group: not one record more than that */
    ASK_NEED_MEMBER_ID = 1 << 22, /* GROUP_JOIN: who has no member id is given one and comes again */
    ASK_CAN_SKIP = 1 << 23,       /* GROUP_JOIN: knows that a leader need not always assign */
    ASK_ONE_TX = 1 << 22,    /* TX_SELECT, TX_COMMIT, TX_ROLLBACK: one transaction, then the channel is what it was */
    ASK_RETAIN = 1 << 22,    /* PUBLISH; this and those below: core/mqtt.h */
    ASK_ONCE = 1 << 23,      /* PUBLISH */
    ASK_SOFT = 1 << 24,      /* PUBLISH */
    ASK_RELEASING = 1 << 22, /* ACK */
    ASK_CLEAN = 1 << 22,     /* MQTT_ATTACH */
    ASK_KEEP_WILL = 1 << 22, /* MQTT_DETACH */
    ASK_LAST = 1 << 22,      /* SQL_SAY: nothing follows */
    ASK_ANEW = 1 << 22,      /* SQL_PUT: another one takes the place of that id */
};

/* Operands of a cold command: one block made by ask_new, freed by the core. Slices point into the block. */
struct ask {
    struct slice name, other, key;
    struct slice args; /* an AMQP table's content (without its length), validated by the sender */
    uint64_t number;
    uint32_t flags; /* enum ask_flag */
    uint8_t bytes[];
};

/* Copies the slices into one block. NULL: no memory. Any thread. */
MUST_USE struct ask *ask_new(struct slice name, struct slice other, struct slice key, struct slice args);

/* What became of a batch. */
enum produce_result {
    PRODUCE_OK,
    PRODUCE_DUPLICATE,    /* written before: number is its offset */
    PRODUCE_UNKNOWN,      /* no such stream or partition */
    PRODUCE_REFUSED,      /* the user may not write to it */
    PRODUCE_OUT_OF_ORDER, /* its sequence does not follow the producer's last one */
    PRODUCE_OLD_EPOCH,    /* a younger producer has the id */
    PRODUCE_NO_TXN,       /* the producer has no transaction that its partition is part of */
    PRODUCE_NO_ROOM,      /* a hard alarm of memory or disk holds */
    PRODUCE_NO_MEMORY,
    PRODUCE_ABORTED_FULL, /* the stream keeps as many aborted transactions as it may: none begins in it */
};

struct command {
    uint8_t type; /* enum command_type */
    uint16_t channel;
    uint32_t session; /* chosen by the port's owner, unique within the port until SESSION_CLOSED comes back */
    uint32_t flags;   /* enum ask_flag, for commands without an ask */
    uint32_t origin;  /* opaque: comes back in the effects that this command causes (AMQP: class << 16 | method) */
    uint64_t number;
    union {
        struct msg *msg;
        struct ask *ask;
        struct page_job *job;          /* PAGED */
        struct stream_job *stream_job; /* STREAMED */
        struct fetch *fetch;           /* FETCH */
        struct query_step *query_step; /* QUERY_STEP */
    };
};

/* Frees what a command carries that nobody will obey. mine: the heap of the calling thread. Any thread. */
void command_drop(struct slab_heap *mine, struct command *c);

enum effect_type {
    EFF_NONE,
    EFF_ANSWER,  /* the command of `origin` is done; answer may be NULL when there is nothing to say */
    EFF_ERROR,   /* answer: code and text. The channel (soft codes) or session (hard codes) has failed: the core
                           ignores it until CHANNEL_CLOSE or SESSION_CLOSE. channel 0 with a soft code: login refused etc. */
    EFF_CONFIRM, /* publishes up to `number` of the channel are taken care of once lsn is durable; bytes: their size.
                           flags EFFECT_SILENT: the channel is not in confirm mode, only the bytes count */
    EFF_NACK, /* the one publish `number` was refused (overflow=reject-publish); bytes as above. flags: enum nack_why (core/mqtt.h) */
    EFF_RETURN, /* msg, answer: code and text; before the confirm of the same publish */
    EFF_DELIVER, /* msg, number delivery tag (dense per channel from 1), consumer, flags EFFECT_REDELIVERED. EFFECT_STREAM:
                    the record of a stream at offset `count`; origin: its partition + 1 when there are several, else 0.
                    To an MQTT client as core/mqtt.h says */
    EFF_GET_OK, /* msg, number delivery tag, count messages left, flags EFFECT_REDELIVERED */
    EFF_GET_EMPTY,
    EFF_PRODUCED, /* flags: enum produce_result; channel: partition; number: base offset, count: where the partition begins */
    EFF_FETCHED,            /* fetch: the block of the command, answered; it passes to the receiver */
    EFF_FETCH_SESSION_GONE, /* number: id of the session, which had to make room for another */
    EFF_GROUP,         /* flags: enum group_error; number: that of the command; answer.fields: as core/group.h says */
    EFF_CONSUMER_GONE, /* consumer: its queue was deleted or it lost its right; only if the session asked CAN_CANCEL */
    EFF_BLOCKED,       /* stop reading this session: answer text is the reason; the session has published */
    EFF_UNBLOCKED,
    EFF_CHANNEL_CLOSED, /* last effect of the channel */
    EFF_SESSION_CLOSED, /* last effect of the session: the number may be used again */
    EFF_SESSION_KICK,   /* the core wants this session closed: answer code and text (CONNECTION_FORCED) */
    EFF_VERIFY,         /* to the worker's port: number ticket, answer: secret and stored verifier */
    EFF_TXNS_FULL, /* to the worker's port: no transaction begins for want of memory. answer: name: a vhost, fields: a stream in it that
                      has too many aborted ones, or nothing; number: bytes it has; number2: the limit of all */
    EFF_ROW,      /* admin listings: answer.fields */
    EFF_PAGE,     /* to the store's port: job, which passes to the store */
    EFF_STREAM,   /* to the streams' port: stream_job, which passes to the stream store */
    EFF_RETAINED, /* msg, consumer, origin: a retained value, see core/mqtt.h */
    EFF_FANOUT,   /* to the loop: msg, audience (a reference passes), number: see core/mqtt.h */
    EFF_SQL_ASK,  /* to the SQL port (its session means nothing): number ticket, which never comes again; answer: name
                           user, number bytes granted, text the peer's address, fields: sql_asked_read */
    EFF_SQL_MORE, /* to the SQL port: number ticket, count: so many bytes more may be said */
    EFF_SQL_STOP, /* to the SQL port: number ticket: nobody listens any more. The last of a ticket; not after its LAST */
    EFF_SQL_GONE, /* to the SQL port: number id of an object that went with its vhost; once for each */
    EFF_SQL_SAID, /* origin: that of the ASK; answer.fields: lines of JSON, as they were said. flags EFFECT_SQL_LAST: the
                           last one; then also answer.code and text: the core's reason why it ends, or no answer: no memory */
    EFF_QUERY_STEPPED, /* query_step: the block of the command, answered, which passes to the receiver; lsn */
};

enum effect_flag {
    EFFECT_REDELIVERED = 1,
    EFFECT_SILENT = 2,
    EFFECT_NO_ACK = 4,
    EFFECT_STREAM = 8,
    EFFECT_UNROUTED = 16, /* CONFIRM, of sessions with an MQTT client: nobody was there for any of them */
    EFFECT_SQL_LAST = 32, /* SQL_SAID */
};

/* What a cold effect says: one block, freed by the receiver with mem_free. Slices point into the block. */
struct answer {
    enum error_code code; /* ERR_NONE for success */
    struct slice text;    /* error text without the code's name; reason */
    struct slice name;    /* queue name, consumer tag, … */
    uint64_t number, number2;
    struct slice fields; /* EFF_ROW: key str8, value str32, repeated. EFF_VERIFY: secret str32, verifier str32 */
    uint8_t bytes[];
};

struct effect {
    uint8_t type;  /* enum effect_type */
    uint8_t flags; /* enum effect_flag, or what the type says */
    uint16_t channel;
    uint32_t session;
    uint32_t origin;
    uint32_t consumer; /* id from CONSUME's answer */
    lsn_t lsn;         /* hold until durable; 0: nothing to wait for */
    uint64_t number;
    union {
        uint64_t bytes; /* EFF_CONFIRM, EFF_NACK */
        uint64_t count; /* EFF_GET_OK, EFF_PRODUCED, EFF_SQL_MORE; EFF_DELIVER of a stream */
        struct answer *answer;
        struct page_job *job;           /* EFF_PAGE */
        struct stream_job *stream_job;  /* EFF_STREAM */
        struct fetch *fetch;            /* EFF_FETCHED */
        struct audience_part *audience; /* EFF_FANOUT */
        struct query_step *query_step;  /* EFF_QUERY_STEPPED */
    };
    struct msg *msg;
};

/* What a delivery costs of a session's credit; the engine returns the same sum by CMD_CREDIT once the bytes have left. */
static inline size_t delivery_cost(const struct msg *msg)
{
    return msg_size(msg) + 64;
}
#define SESSION_CREDIT_BYTES (256 * 1024) /* a session's credit at its opening */

/* One loop's (or worker's) pair of rings. */
struct port {
    struct ring commands; /* of struct command; produced by the loop */
    struct ring effects;  /* of struct effect; consumed by the loop */
    /* Grows when something that a stream was made with has changed, before that is answered: who remembers it looks again. */
    _Atomic uint64_t streams_changed;
};

/* The journal as the core sees it (main/ fills it from journal/). All on the core thread. */
struct core_log {
    void *self;
    bool (*room)(void *self);
    bool (*reserve)(void *self, size_t bytes, unsigned count);
    lsn_t (*append)(void *self, const struct slice *parts, unsigned count);
    void (*fresh)(
        void *self); /* what is appended next will be the beginning after a trim: see it in a place of its own */
    void (*trim)(void *self, lsn_t upto);
    uint64_t (*live_bytes)(void *self); /* bytes that a restart would read */
    /* Bytes that can be appended though the disk is full, fresh: from a fresh beginning; UINT64_MAX: it is not. May be NULL */
    uint64_t (*ready)(void *self, bool fresh);
};
#define CORE_RECORD_BYTES_MAX (512u * 1024)

/* Soft ones block publishers; the hard ones, which come with their soft one, refuse: see session.c. */
enum alarm { ALARM_MEMORY = 1, ALARM_DISK = 2, ALARM_MEMORY_HARD = 4, ALARM_DISK_HARD = 8 };

struct broker_options {
    struct core_log log;
    void (*random)(void *arg, void *ret, size_t len);
    void *random_arg;
    unsigned
        ports; /* network loops + control; the worker's, the store's, the streams' and the SQL port come after them */
    size_t port_slots;              /* 0: 8192 */
    uint64_t message_bytes_max;     /* 0: 16 MiB */
    unsigned channel_consumers_max; /* 0: 1024 */
    uint64_t tx_bytes_max;          /* 0: 64 MiB */
    uint64_t
        compact_bytes; /* 0: 64 MiB: the journal is compacted when it is longer than this and twice what is alive */
    uint64_t compact_slice_bytes; /* of a snapshot in one tick; 0: 256 KiB */
    int64_t
        compact_pace_ns; /* between two slices while commands come, so that these do not wait for the snapshot; 0: none */
    uint64_t compact_every;      /* tests: force a compaction every n commands; 0: off */
    uint64_t paging_bytes;       /* memory of waiting messages above which they go to pages; 0: they stay in memory */
    uint64_t page_bytes;         /* 0: PAGE_BYTES */
    int64_t consumer_timeout_ms; /* 0: off */
    struct slice default_user, default_pass, default_vhost; /* made when the store is new; empty: guest guest / */
    bool guest_loopback_only;
    uint64_t stream_sync_bytes; /* records in files are synced, and the journal told, after so many; 0: 32 MiB */
    int64_t
        keyed_every_ms; /* a keyed stream's partition is looked at so long after it may have become worth compacting; 0: 15 s */
    bool streams; /* somebody serves the streams' port; else a stream cannot be declared */
    bool sql;     /* somebody serves the SQL port; else what is asked is refused */
    /* consumer groups: 0 is what core/group.h says */
    int64_t group_delay_ms; /* so long an empty group waits for more members; below 0: not at all */
    int64_t group_session_min_ms, group_session_max_ms;        /* what members may ask for */
    int64_t group_consumer_session_ms, group_consumer_beat_ms; /* of members of groups in which the broker assigns */
    int64_t group_retention_ms; /* offsets are kept so long after their group has lost its last member */
    uint32_t group_members_max;
    uint64_t groups_bytes_max;         /* of all groups, members and offsets */
    uint64_t fetch_sessions_bytes_max; /* of all, at both ends; 0: 256 MiB */
    int64_t txn_retention_ms;          /* a transactional id that nobody uses is forgotten then; 0: a week */
    uint64_t txns_bytes_max;           /* of transactional ids, open transactions and what was aborted; 0: 256 MiB */
    uint64_t retained_max, retained_bytes_max; /* retained values, and memory for them; 0: 10 million, 2 GiB */
    uint32_t mqtt_sessions_max;                /* clients of MQTT, connected or not; 0: as many as there may be */
};

struct broker;

MUST_USE struct broker *broker_new(const struct broker_options *options);
void broker_free(struct broker **broker);

/* Recovery: every record of the journal in order, then broker_replayed once. 0, or -EILSEQ with a sentence in why. */
MUST_USE int broker_replay(struct broker *broker, lsn_t lsn, struct slice record, char *why, size_t why_len);
/* Settles what replay left open (redelivered marks, expired while down, default objects in a new store). now as in step. */
MUST_USE int broker_replayed(struct broker *broker, mono_t now, wall_t wall, char *why, size_t why_len);

/* After broker_replayed: every segment with a live page, with the highest end of one, and the name of a queue in it. The
 * first answer that is not 0 ends it and is returned. */
MUST_USE int broker_segments(struct broker *broker,
                             int (*each)(void *arg, uint32_t segment, uint64_t end, struct slice queue), void *arg);

/* After broker_replayed: every partition of every stream, as far as its files are synced: sealed segments, oldest first, and
 * the open one. The first answer that is not 0 ends it and is returned. */
struct stream_files {
    uint64_t stream; /* id of the queue */
    uint32_t partition;
    uint64_t start; /* what lies below has been given up by retention */
    const struct stream_extent *sealed;
    uint32_t sealed_count;
    struct stream_extent tail;
    struct slice name, vhost;
};
MUST_USE int broker_streams(struct broker *broker, int (*each)(void *arg, const struct stream_files *files), void *arg);

/* After broker_replayed, before the first step: statements that the SQL engine will find. */
uint64_t broker_statements(const struct broker *broker);

/* While replaying: what is known of a queue; the slices are loans. False: there is none of that id. */
bool broker_queue_known(struct broker *broker, uint64_t id, struct slice *ret_vhost, struct slice *ret_name,
                        uint64_t *ret_next_position);

struct broker_page { /* a page with live messages, as the journal has it; slices are loans */
    struct slice vhost, queue;
    uint64_t queue_id;
    uint8_t lane;
    struct page_where where;
    uint32_t count, live; /* messages; of them alive */
    uint64_t first, last; /* positions */
    const void *page;     /* for broker_page_alive */
};

/* After broker_replayed: every page with live messages, queue by queue. As broker_segments. */
MUST_USE int broker_pages(struct broker *broker, int (*each)(void *arg, const struct broker_page *page), void *arg);
/* The run of live positions at or behind *position, which is moved to its first. False: there is none. */
bool broker_page_alive(const struct broker_page *page, uint64_t *position, uint64_t *ret_last);

/* Port i: 0 … ports-1 are the loops', `ports` is the worker's, `ports` + 1 the store's, `ports` + 2 the streams', `ports` + 3 SQL's. The rings live
 * as long as the broker. */
struct port *broker_port(struct broker *broker, unsigned i);

/* One tick: fires timers, takes commands from all ports round-robin by bytes (at most about a millisecond's worth),
 * decides deliveries up to durable. Publishes the effects. Returns true when work is left that needs no new input. */
bool broker_step(struct broker *broker, mono_t now, wall_t wall, lsn_t durable);

enum policy_key { POLICY_KEY_KNOWN, POLICY_KEY_IGNORED /* only RabbitMQ has a use for it */, POLICY_KEY_UNKNOWN };
/* Whether policies may have a setting of this name. Unknown: `text` says so, and what was meant. Any thread. */
enum policy_key policy_key_of(struct slice key, char *text, size_t text_len);

/* When broker_step must be called next even if nothing arrives; MONO_NEVER. */
mono_t broker_next_due(const struct broker *broker);

/* Asserts every invariant of the broker's state (I8, I10, accounts). Slow; tests and debug commands. */
void broker_check(struct broker *broker);

/* The core thread's slab heap: for main's wiring when loop and core share a thread (the loop then uses it as its own). */
struct slab_heap *broker_heap(struct broker *broker);

struct broker_totals {
    uint64_t published, routed, delivered, acked, redelivered, returned, dropped, expired, dead_lettered, rejected,
        refused, duplicates;
    uint64_t messages, message_bytes, unacked, queues, exchanges, bindings, consumers, channels, sessions, vhosts,
        users;
    uint64_t connections; /* sessions that are clients' */
    uint64_t compactions;
    uint64_t stream_records;         /* that streams keep */
    uint64_t fetch_sessions_evicted; /* to make room for others */
    uint64_t transactions_refused;   /* for want of memory: txn_room.c */
    uint64_t keyed_passes, keyed_files, keyed_bytes_before,
        keyed_bytes_after; /* compactions of keyed streams: files made, bytes of what they replaced */
};
void broker_totals(const struct broker *broker, struct broker_totals *ret);

#endif
