/* world: one broker on a simulated disk with one AMQP connection, and what its client remembers. See sim.c. */
#ifndef MILLRACE_TESTS_SIM_WORLD_H
#define MILLRACE_TESTS_SIM_WORLD_H

#include "client.h"
#include "journal/journal.h"
#include "model.h"
#include "os/os_sim.h"
#include "peek.h"
#include "proto/amqp091/engine.h"
#include "store/store.h"
#include "store/streams.h"

#define WORLD_HELD 512
#define ASKED(class, method) ((uint32_t)(class) << 16 | (method))

/* Channels of the client's connection and what each is for. */
enum { CH_CONFIRM = 1, CH_TX, CH_CONSUME, CH_GET, CH_END };

struct held { /* a delivery that is not acknowledged */
    uint64_t tag, id;
    enum place place;
};

struct taken { /* an acknowledgement that is not known to be durable */
    uint64_t id, at;
    enum place place;
};

struct world {
    struct os_sim *disk;
    struct os *os;
    struct journal *journal;
    struct store *store;
    struct streams *streams; /* NULL: switched off */
    struct broker *broker;
    struct sql_server *sql; /* NULL: not runs_sql, or it has stopped */
    struct slab_heap sql_heap;
    struct hub *hub;
    struct engine *engine;
    struct amqp091_options amqp;
    struct broker_options options;
    struct client client;
    struct model *model;
    uint64_t dice;
    bool dead;         /* the journal has failed: only a restart helps */
    bool may_fail;     /* a fault was injected: the journal may fail */
    bool reads_fail;   /* the last page that was asked for could not be read */
    bool tolerant;     /* memory is refused on purpose: the client may lose its connection */
    bool with_streams; /* the broker has streams, and the client uses them */
    bool with_sql;     /* somebody is there for SQL */
    bool runs_sql;     /* it is the SQL server (query_chain.c) */
    bool mostly_tx;    /* most operations are those of transactions */
    bool long_delays;  /* delayed messages come many at a time, some for long enough to go to pages */
    bool stomp_told;   /* stomp_world.c: a commit has its receipt */
    unsigned talk;
    uint64_t compact_every, compact_slice_bytes;
    uint64_t stream_sync_bytes;
    int64_t keyed_every_ms;
    bool gaps;             /* what was published may be lost before it got its offset */
    uint64_t paging_bytes; /* 0: queues stay in memory */
    size_t group_bytes;    /* of the journal; small groups tear apart what one tick appended */
    unsigned lag;          /* in 8: how often a turn leaves the journal alone */
    char why[400];
    /* the client's memory */
    uint32_t answer; /* method of the last answer; 0: none since it was asked */
    uint32_t answer_count;
    unsigned gets_answered;
    bool channel_failed[CH_END];
    uint64_t at; /* commands sent */
    uint64_t group_tag, group_stream,
        group_offset;                 /* group_world.c: of the last command; what a group has committed of what */
    uint64_t share_offset;            /* where a share group was moved to */
    bool share_set;                   /* something was set of it */
    bool mqtt_session, mqtt_retained; /* mqtt_world.c: was promised */
    uint64_t query, query_steps,
        query_acked;   /* query_world.c: a query's id, its last step that was accepted, and how many took a message */
    bool query_source; /* from a queue that is there */
    uint64_t published[4096]; /* ids by publish sequence on CH_CONFIRM, from 1 */
    uint64_t published_at[4096];
    uint64_t published_count, confirmed;
    struct held held[CH_END][WORLD_HELD];
    unsigned held_count[CH_END];
    struct taken taken[WORLD_HELD];
    unsigned taken_count;
    bool consuming[PLACE_COUNT];
    uint64_t reading[MODEL_LOGS][MODEL_PARTITIONS]; /* offset that a stream's consumer must get next; UINT64_MAX: any */
    enum place get_place;
    bool get_no_ack;
    /* counts */
    uint64_t ops, confirms, deliveries, steps, pages_written, pages_read, waits;
    uint64_t records_written, records_read, stream_syncs, stream_files_max, stream_deliveries;
};

void world_init(struct world *w);
void world_fini(struct world *w);
uint64_t world_draw(struct world *w);
unsigned world_pick(struct world *w, unsigned n);
extern const char *const place_names[PLACE_COUNT];

/* Reads pages of the world's store. */
struct peek_reader world_reader(struct world *w);

bool world_declare(struct world *w, enum place place);
bool world_bind(struct world *w, enum place place);

/* Opens journal, store and broker, no client. False: why says it. */
bool world_start(struct world *w);
/* Connects the client: handshake and channels. False: the world died meanwhile, or a violation. */
bool world_connect(struct world *w);
/* Compares what the broker holds with the model, which takes it over. */
void world_compare(struct world *w);
/* Looks at a commit that got no answer in the running broker: all of it or nothing. */
void world_check_commit(struct world *w);
/* One round of everything. */
void world_turn(struct world *w);
/* Rounds until the answer comes. False: dead, or the channel failed, or no answer (a violation). */
bool world_wait(struct world *w, uint32_t method);
/* The process is gone; the disk stays. clean: an orderly stop. */
void world_end(struct world *w, bool clean);
/* One random operation of the client. */
void world_op(struct world *w);
/* ---- streams (stream_world.c); nothing without with_streams ---- */

bool world_streams_open(struct world *w); /* before the journal is read */
bool world_streams_keep(struct world *w); /* after it was */
void world_streams_turn(struct world *w);
void world_streams_stop(struct world *w); /* before the broker goes; streams_close after it */
/* Tells the model what is in the streams and before the cursors of the fed queue, within a comparison. */
void world_streams_compare(struct world *w, bool *ret_exists);
/* Every record of every stream, as far as it can be read. */
void world_streams_each(struct world *w, void (*each)(void *arg, struct slice body), void *arg);
void world_streams_op(struct world *w);
/* As world_publish, to a stream and the queue that it feeds; so many before a turn. */
void world_streams_publish(struct world *w, enum place place, unsigned count, uint32_t len, unsigned at_once);
/* Deletes the stream, or makes it again. */
void world_streams_delete(struct world *w, enum place place);
void world_stream_message(struct world *w, enum place place, const struct client_event *e);
/* Takes all that the fed queue gets until nothing more comes; then nothing may be missing. */
void world_streams_drain(struct world *w);

struct peek_stream_reader world_stream_reader(struct world *w);

/* ---- continuous SQL (query_chain.c); nothing without runs_sql ---- */

bool world_sql_start(struct world *w); /* when the broker has read everything */
void world_sql_turn(struct world *w);
void world_sql_stop(struct world *w);  /* before the broker goes */
void world_sql_close(struct world *w); /* after it */

/* ---- a keyed stream (keyed_world.c) ---- */

/* Makes it, and updates its few keys; in a world whose keyed_every_ms is short it is compacted meanwhile. */
void keyed_play(struct world *w, unsigned updates);
/* After a start: no last value is lost, and offsets are what they were. first_id: of the first update. */
void keyed_check(struct world *w, uint64_t first_id);
void keyed_check_files(struct world *w);

/* Queues and exchanges of an empty broker. */
void world_furnish(struct world *w);

/* What scripts are made of; each ends early when the world dies or something is wrong. */
void world_turns(struct world *w, unsigned count);
/* Asks that often, then takes the answers; what came is held. False: as world_wait. */
bool world_get_at_once(struct world *w, enum place place, unsigned count);
/* That many persistent messages of about len bytes to the place, with confirms that are not waited for. */
void world_publish(struct world *w, enum place place, unsigned count, uint32_t len);
/* A message of the model was sent on CH_CONFIRM in another way. */
void world_sent(struct world *w, uint64_t id);
void world_confirmed(struct world *w); /* waits for all confirms */
/* Takes one message after the other, with get, and gives it back or acknowledges it. */
void world_take(struct world *w, enum place place, unsigned count, bool requeue);

#endif
