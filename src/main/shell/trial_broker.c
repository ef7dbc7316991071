/* A broker in memory, see trial_broker.h.
 *
 * Its parts are those of `millrace serve`; what is not there are connections, the journal, and pages of queues, which stay in memory. A turn is a step of
 * the core and what its neighbours do with what it said; the broker rests when a turn has moved nothing. Between two moments the clock
 * goes from one due time to the next. */
#include "main/shell/trial_broker.h"

#include "base/check.h"
#include "base/mem.h"
#include "core/query.h"
#include "os/os_sim.h"
#include "sql/server/server.h"
#include "store/streams.h"

#include <errno.h>
#include <stdio.h>

#define DIR "/data"
#define SESSION 1u
#define TURNS_MAX 1000000u /* more is a query that feeds itself */
#define BEGIN_NS (1000 * NS_PER_S)

enum { PORT_CLIENT, PORT_WORKER, PORT_STORE, PORT_STREAMS, PORT_SQL, PORTS };

struct trial_broker {
    struct os_sim *disk;
    struct streams *streams;
    struct broker *broker;
    struct slab_heap heap; /* the SQL server's */
    struct sql_server *server;
    mono_t now;
    lsn_t appended;
    uint32_t asked;    /* origin of the last request */
    struct lines *ret; /* of the request under way; NULL: nobody wants it */
    bool ended, refused;
};

/* ---- a journal that forgets ---- */

static bool log_room(void *self)
{
    (void)self;
    return true;
}

static bool log_reserve(void *self, size_t bytes, unsigned count)
{
    (void)self, (void)bytes, (void)count;
    return true;
}

static lsn_t log_append(void *self, const struct slice *parts, unsigned count)
{
    struct trial_broker *b = self;
    (void)parts, (void)count;
    return ++b->appended;
}

static void log_fresh(void *self)
{
    (void)self;
}

static void log_trim(void *self, lsn_t upto)
{
    (void)self, (void)upto;
}

static uint64_t log_live_bytes(void *self)
{
    (void)self;
    return 0;
}

static void on_random(void *arg, void *ret, size_t len)
{
    struct os *os = os_sim_os(((struct trial_broker *)arg)->disk);
    os->random(os, ret, len);
}

/* ---- a turn ---- */

wall_t trial_broker_now(const struct trial_broker *b)
{
    return TRIAL_BEGIN_MS + (b->now - BEGIN_NS) / NS_PER_MS;
}

static struct command *command_new(struct trial_broker *b, enum command_type type)
{
    struct command *c = ring_push(&broker_port(b->broker, PORT_CLIENT)->commands);
    CHECK(c);
    *c = (struct command){.type = (uint8_t)type, .session = SESSION};
    return c;
}

static void hear_said(struct trial_broker *b, const struct effect *e)
{
    size_t len = e->answer ? e->answer->fields.len : 0;
    if (e->origin != b->asked)
        return;
    if (b->ret && len)
        lines_put(b->ret, e->answer->fields.ptr, len);
    b->ended = b->ended || e->flags & EFFECT_SQL_LAST;
    if (!len || b->ended)
        return;
    struct command *c = command_new(b, CMD_SQL_MORE);
    c->origin = e->origin;
    c->number = len;
    ring_publish(&broker_port(b->broker, PORT_CLIENT)->commands);
}

/* True: there was something. */
static bool hear(struct trial_broker *b)
{
    struct ring *effects = &broker_port(b->broker, PORT_CLIENT)->effects;
    struct effect *e;
    bool any = false;
    for (; (e = ring_peek(effects)); ring_pop(effects), any = true) {
        if (e->type == EFF_SQL_SAID)
            hear_said(b, e);
        b->refused = b->refused || e->type == EFF_ERROR;
        mem_free(e->answer); /* a session without channels hears of nothing that has anything else */
    }
    return any;
}

static bool serve_streams(struct trial_broker *b)
{
    struct port *port = broker_port(b->broker, PORT_STREAMS);
    struct effect *e;
    struct stream_job *job;
    bool any = false;
    while ((e = ring_peek(&port->effects))) {
        job = e->stream_job;
        if (!streams_submit(b->streams, &job))
            break;
        ring_pop(&port->effects);
        any = true;
    }
    any = streams_step(b->streams) || any;
    while (ring_room(&port->commands) && (job = streams_take(b->streams))) {
        struct command *c = ring_push(&port->commands);
        CHECK(c);
        *c = (struct command){.type = CMD_STREAMED, .stream_job = job};
        any = true;
    }
    ring_publish(&port->commands);
    return any;
}

static bool turn(struct trial_broker *b)
{
    lsn_t before = b->appended;
    bool more = broker_step(b->broker, b->now, trial_broker_now(b), b->appended);
    more = hear(b) || more;
    more = serve_streams(b) || more;
    more = sql_server_turn(b->server, b->appended, b->now, trial_broker_now(b)) || more;
    more = sql_server_publish(b->server) || more;
    for (unsigned i = 0; i < PORTS; i++)
        more = more || !ring_empty(&broker_port(b->broker, i)->commands);
    return more || !ring_empty(&broker_port(b->broker, PORT_SQL)->effects) || before != b->appended;
}

static bool rest(struct trial_broker *b)
{
    for (unsigned i = 0; i < TURNS_MAX; i++)
        if (!turn(b))
            return !b->refused;
    return false;
}

/* ---- life ---- */

static bool ask_session(struct trial_broker *b, enum command_type type, const char *name, const char *other,
                        uint32_t flags)
{
    struct slice none = {0};
    struct ask *ask = ask_new(slice_str(name), slice_str(other), none, none);
    if (!ask)
        return false;
    ask->flags = flags;
    command_new(b, type)->ask = ask;
    ring_publish(&broker_port(b->broker, PORT_CLIENT)->commands);
    return rest(b);
}

static int open_streams(struct trial_broker *b, char *why, size_t why_len)
{
    struct os *os = os_sim_os(b->disk);
    struct streams_options options = {.os = os, .dir = DIR};
    int err = os->mkdir(os, DIR);
    return err ? err : streams_open(&options, &b->streams, why, why_len);
}

static int open_parts(struct trial_broker *b, char *why, size_t why_len)
{
    b->disk = os_sim_new(1);
    if (!b->disk)
        return -ENOMEM;
    int err = open_streams(b, why, why_len);
    if (err)
        return err;
    struct broker_options options = {
        .log = {b, log_room, log_reserve, log_append, log_fresh, log_trim, log_live_bytes, NULL},
        .random = on_random,
        .random_arg = b,
        .ports = 1,
        .port_slots = 1024,
        .streams = true,
        .sql = true,
    };
    b->broker = broker_new(&options);
    err = b->broker ? broker_replayed(b->broker, b->now, trial_broker_now(b), why, why_len) : -ENOMEM;
    if (err || (err = streams_sweep(b->streams, why, why_len)))
        return err;
    struct sql_server_options server = {.port = broker_port(b->broker, PORT_SQL), .heap = &b->heap};
    b->server = sql_server_new(&server);
    bool ok = b->server && ask_session(b, CMD_SESSION_OPEN, "127.0.0.1", "millrace test", ASK_LOOPBACK) &&
              ask_session(b, CMD_LOGIN, "guest", "", ASK_CERTIFIED) && ask_session(b, CMD_ENTER, "/", "", 0);
    return ok ? 0 : -ENOMEM;
}

int trial_broker_open(struct trial_broker **ret, char *why, size_t why_len)
{
    struct trial_broker *b = mem_zalloc(sizeof *b);
    snprintf(why, why_len, "no memory for a broker");
    if (!b)
        return -ENOMEM;
    b->now = BEGIN_NS;
    slab_heap_init(&b->heap);
    int err = open_parts(b, why, why_len);
    if (err)
        trial_broker_close(&b);
    else
        *ret = b;
    return err;
}

/* What is on its way to the files is finished first: the core shares its messages. */
void trial_broker_close(struct trial_broker **broker)
{
    struct trial_broker *b = *broker;
    *broker = NULL;
    if (!b)
        return;
    sql_server_free(&b->server);
    if (b->streams)
        streams_stop(b->streams);
    if (b->broker)
        (void)serve_streams(b);
    broker_free(&b->broker);
    slab_heap_drain(&b->heap);
    slab_heap_fini(&b->heap);
    streams_close(&b->streams);
    os_sim_free(&b->disk);
    mem_free(b);
}

/* ---- what is asked of it ---- */

bool trial_broker_ask(struct trial_broker *b, struct slice text, struct lines *ret, bool *ret_ended)
{
    struct slice none = {0};
    struct ask *ask = ask_new(text, none, none, none);
    if (!ask)
        return false;
    b->ret = ret;
    b->ended = false;
    struct command *c = command_new(b, CMD_SQL_ASK);
    c->origin = ++b->asked;
    c->ask = ask;
    ring_publish(&broker_port(b->broker, PORT_CLIENT)->commands);
    bool ok = rest(b);
    b->ret = NULL;
    *ret_ended = b->ended;
    return ok && !ret->failed;
}

bool trial_broker_stop(struct trial_broker *b)
{
    command_new(b, CMD_SQL_STOP)->origin = b->asked;
    ring_publish(&broker_port(b->broker, PORT_CLIENT)->commands);
    return rest(b);
}

bool trial_broker_pass(struct trial_broker *b, int64_t us)
{
    mono_t end = b->now + us * 1000;
    while (b->now < end) {
        mono_t core = broker_next_due(b->broker), sql = sql_server_next_due(b->server);
        mono_t due = core < sql ? core : sql;
        due = due > b->now ? due : b->now + NS_PER_MS;
        b->now = due < end ? due : end;
        if (!rest(b))
            return false;
    }
    return true;
}
