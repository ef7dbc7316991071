/* The broker, its simulated disk and its client in one thread.
 *
 * A turn is what a loop does: bytes to the engine, commands to the core, a step, the journal (or not: it lags at random),
 * effects back, bytes to the client. Time is the disk's clock and moves a little each turn.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "core/records.h"
#include "fmt/amqp_table.h"
#include "peek.h"

const char *const place_names[PLACE_COUNT] = {"q0", "q1", "q2", "q3",  "q4", "q5", "q6",
                                              "q7", "q8", "q9", "q10", "",   "s0", "s1"};

/* Lines for people who look for a bug: --talk 2. */
#define RETRY_MS 20 /* so long, and longer each time, what comes back to PLACE_RETRY waits */
#define TELL(w, ...)                                                                                                   \
    do {                                                                                                               \
        if ((w)->talk > 1)                                                                                             \
            printf("    " __VA_ARGS__);                                                                                \
    } while (0)

uint64_t world_draw(struct world *w)
{
    uint64_t z = (w->dice += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

unsigned world_pick(struct world *w, unsigned n)
{
    return (unsigned)(world_draw(w) % n);
}

static void on_event(void *arg, const struct client_event *e);

void world_init(struct world *w)
{
    *w = (struct world){0};
    client_init(&w->client, on_event, w);
}

void world_fini(struct world *w)
{
    client_fini(&w->client);
}

/* ---- start and end ---- */

static void on_random(void *arg, void *ret, size_t len)
{
    struct world *w = arg;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)ret)[i] = (uint8_t)world_draw(w);
}

static bool log_room(void *self)
{
    return journal_room(self);
}

static bool log_reserve_room(void *self, size_t bytes, unsigned count)
{
    return journal_reserve(self, bytes, count);
}

static lsn_t log_append(void *self, const struct slice *parts, unsigned count)
{
    return journal_append(self, parts, count);
}

static void log_fresh(void *self)
{
    journal_fresh(self);
}

static void log_trim(void *self, lsn_t upto)
{
    journal_trim(self, upto);
}

static uint64_t log_live(void *self)
{
    return journal_live_bytes(self);
}

static int replay(void *arg, lsn_t lsn, struct slice record)
{
    struct world *w = arg;
    char line[400];
    record_print(record, line, sizeof line);
    if (w->talk > 2)
        printf("    %llu %s\n", (unsigned long long)lsn, line);
    return broker_replay(w->broker, lsn, record, w->why, sizeof w->why);
}

static bool open_store(struct world *w)
{
    struct store_options options = {.os = w->os, .dir = "/data", .segment_bytes_max = 64 * 1024};
    memcpy(options.uuid, journal_uuid(w->journal), sizeof options.uuid);
    return store_open(&options, &w->store, w->why, sizeof w->why) == 0;
}

static int keep_segment(void *arg, uint32_t segment, uint64_t end, struct slice queue)
{
    struct world *w = arg;
    (void)queue;
    return store_keep(w->store, segment, end, w->why, sizeof w->why);
}

static void give_back(struct world *w, struct page_job *job)
{
    struct command *c = ring_push(&broker_port(w->broker, 3)->commands);
    if (!c)
        abort();
    if (job->err && !w->may_fail && !os_sim_is_cut(w->disk))
        model_fault(w->model, "a page job failed by itself: %d", job->err);
    w->reads_fail = job->type == PAGE_READ && job->err != 0;
    *c = (struct command){.type = CMD_PAGED, .job = job};
    ring_publish(&broker_port(w->broker, 3)->commands);
}

/* Jobs to the store, work (or not: it lags at random), answers back. */
static void store_turn(struct world *w)
{
    struct port *port = broker_port(w->broker, 3);
    struct effect *e;
    struct page_job *job;
    while ((e = ring_peek(&port->effects))) {
        job = e->job;
        if (!store_submit(w->store, &job))
            break;
        ring_pop(&port->effects);
    }
    if (world_pick(w, 8) >= w->lag)
        (void)store_step(w->store);
    while (ring_room(&port->commands) && (job = store_take(w->store)))
        give_back(w, job);
}

/* For the comparison, beside what the core has asked. */
static void read_page(void *self, struct page_job *job)
{
    struct world *w = self;
    struct page_job *mine = job, *done = NULL;
    if (!store_submit(w->store, &mine))
        abort();
    while (done != job) {
        (void)store_step(w->store);
        while (done != job && (done = store_take(w->store)))
            if (done != job)
                give_back(w, done);
    }
    if (job->err && !w->may_fail)
        model_fault(w->model, "a page in segment %u at %u cannot be read: %d", job->where.segment, job->where.offset,
                    job->err);
}

struct peek_reader world_reader(struct world *w)
{
    return (struct peek_reader){read_page, w};
}

bool world_start(struct world *w)
{
    struct journal_options options = {
        .os = w->os, .dir = "/data", .file_bytes = 64 * 1024, .group_bytes_max = w->group_bytes};
    w->dead = w->reads_fail = false;
    w->journal = NULL;
    w->store = NULL;
    w->streams = NULL;
    w->broker = NULL;
    w->engine = NULL;
    w->hub = NULL;
    w->sql = NULL;
    if (w->runs_sql)
        slab_heap_init(&w->sql_heap);
    if (journal_open(&options, &w->journal, w->why, sizeof w->why))
        return false;
    w->options = (struct broker_options){
        .log = {.self = w->journal,
                .room = log_room,
                .reserve = log_reserve_room,
                .append = log_append,
                .fresh = log_fresh,
                .trim = log_trim,
                .live_bytes = log_live},
        .random = on_random,
        .random_arg = w,
        .ports = 2,
        .port_slots = 256,
        .compact_every = w->compact_every,
        .compact_slice_bytes = w->compact_slice_bytes,
        .paging_bytes = w->paging_bytes,
        .page_bytes = w->paging_bytes / 4,
        .streams = w->with_streams,
        .sql = w->with_sql,
        .stream_sync_bytes = w->stream_sync_bytes,
        .keyed_every_ms = w->keyed_every_ms,
    };
    if (!open_store(w) || !world_streams_open(w))
        return false;
    w->broker = broker_new(&w->options);
    snprintf(w->why, sizeof w->why, "no memory");
    if (!w->broker || journal_read(w->journal, replay, w, w->why, sizeof w->why) ||
        broker_replayed(w->broker, w->os->now_mono(w->os), w->os->now_wall(w->os), w->why, sizeof w->why) ||
        broker_segments(w->broker, keep_segment, w) || store_sweep(w->store, w->why, sizeof w->why) ||
        !world_streams_keep(w))
        return false;
    snprintf(w->why, sizeof w->why, "the power went when all was read");
    if (os_sim_is_cut(w->disk))
        return false;
    broker_check(w->broker);
    w->hub = hub_new(broker_port(w->broker, 0), broker_heap(w->broker), 24);
    return w->hub != NULL && world_sql_start(w);
}

static void verify_logins(struct world *w)
{
    struct port *port = broker_port(w->broker, 2);
    struct effect *e;
    while ((e = ring_peek(&port->effects))) {
        struct command *c = ring_push(&port->commands);
        *c = (struct command){.type = CMD_VERIFIED, .number = e->number, .flags = ASK_VERIFY_OK};
        mem_free(e->answer);
        ring_pop(&port->effects);
        ring_publish(&port->commands);
    }
}

static void forget(struct world *w)
{
    memset(w->channel_failed, 0, sizeof w->channel_failed);
    memset(w->held_count, 0, sizeof w->held_count);
    memset(w->consuming, 0, sizeof w->consuming);
    w->published_count = w->confirmed = 0;
    w->taken_count = 0;
    w->answer = 0;
    client_reset(&w->client);
}

static bool open_channel(struct world *w, uint16_t channel)
{
    client_channel_open(&w->client, channel);
    if (!world_wait(w, ASKED(20, 11)))
        return false;
    if (channel == CH_CONFIRM) {
        client_confirm_select(&w->client, channel);
        return world_wait(w, ASKED(85, 11));
    }
    if (channel == CH_TX) {
        client_tx(&w->client, channel, 10);
        return world_wait(w, ASKED(90, 11));
    }
    return true;
}

bool world_connect(struct world *w)
{
    forget(w);
    w->amqp = amqp091_options_default();
    w->engine = amqp091_new(&w->amqp, w->hub, "127.0.0.1:1", true, w->os->now_mono(w->os));
    if (!w->engine)
        return false;
    client_handshake(&w->client);
    if (!world_wait(w, ASKED(10, 41)))
        return false;
    for (uint16_t channel = 1; channel < CH_END; channel++)
        if (!open_channel(w, channel))
            return false;
    return true;
}

static void drop_engine(struct world *w)
{
    if (w->engine)
        w->engine->ops->closed(w->engine);
    w->engine = NULL;
    for (int i = 0; w->hub && i < 1000 && hub_sessions(w->hub); i++) {
        (void)hub_publish(w->hub);
        (void)broker_step(w->broker, w->os->now_mono(w->os), w->os->now_wall(w->os), journal_durable(w->journal));
        verify_logins(w);
        store_turn(w);
        world_streams_turn(w);
        (void)hub_turn(w->hub, journal_durable(w->journal), w->os->now_mono(w->os));
    }
    hub_free(&w->hub);
}

static void drain(struct world *w)
{
    struct port *port = broker_port(w->broker, 1);
    struct command *c = ring_push(&port->commands);
    *c = (struct command){.type = CMD_DRAIN, .session = 1};
    ring_publish(&port->commands);
    for (int i = 0; i < 20; i++)
        (void)broker_step(w->broker, w->os->now_mono(w->os), w->os->now_wall(w->os), journal_durable(w->journal));
    journal_kick(w->journal);
}

void world_end(struct world *w, bool clean)
{
    if (clean && w->broker)
        drain(w);
    if (clean && w->journal) {
        while (journal_step(w->journal) > 0 && journal_durable(w->journal) < journal_appended(w->journal))
            ;
        (void)journal_stop(w->journal);
    } else
        os_sim_stop(w->disk);
    drop_engine(w);
    if (w->store) {
        struct store_stats stats;
        store_stop(w->store);
        store_stats(w->store, &stats);
        w->pages_written += stats.pages_written;
        w->pages_read += stats.pages_read;
    }
    struct page_job *job;
    while (w->store && (job = store_take(w->store)))
        page_job_free(w->broker ? broker_heap(w->broker) : NULL, &job);
    world_streams_stop(w);
    world_sql_stop(w);
    broker_free(&w->broker);
    world_sql_close(w);
    streams_close(&w->streams);
    store_close(&w->store);
    if (w->journal)
        journal_close(&w->journal);
}

/* ---- what the broker says ---- */

static enum place place_of(const char *consumer)
{
    return (enum place)(consumer[1] - '0');
}

static void on_message(struct world *w, const struct client_event *e)
{
    bool got = e->method == ASKED(60, 71);
    w->gets_answered += got;
    enum place place = got ? w->get_place : place_of(e->queue_tag);
    uint64_t id;
    if (!got && place >= PLACE_LOG) {
        world_stream_message(w, place, e);
        return;
    }
    model_delivered(w->model, place, e->body, e->redelivered, &id);
    w->deliveries++;
    TELL(w, "channel %u: message %llu from %s, tag %llu%s\n", e->channel, (unsigned long long)id, place_names[place],
         (unsigned long long)e->tag, e->redelivered ? ", again" : "");
    if (got)
        w->answer = e->method;
    if (!id)
        return;
    if (got && w->get_no_ack) {
        model_leaving(w->model, place, id);
        if (w->taken_count < WORLD_HELD)
            w->taken[w->taken_count++] = (struct taken){id, w->at, place};
        return;
    }
    if (w->held_count[e->channel] < WORLD_HELD)
        w->held[e->channel][w->held_count[e->channel]++] = (struct held){e->tag, id, place};
}

/* Whatever was acknowledged before a durable publish on this connection is durable too. */
static void durable_since(struct world *w, uint64_t at)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < w->taken_count; i++) {
        if (w->taken[i].at < at)
            model_gone(w->model, w->taken[i].place, w->taken[i].id);
        else
            w->taken[kept++] = w->taken[i];
    }
    w->taken_count = kept;
}

static void on_confirm(struct world *w, const struct client_event *e)
{
    uint64_t first = e->multiple ? w->confirmed + 1 : e->tag;
    if (e->channel != CH_CONFIRM || e->tag == 0 || e->tag > w->published_count || e->negative) {
        model_fault(w->model, "a confirm of %llu after %llu publishes", (unsigned long long)e->tag,
                    (unsigned long long)w->published_count);
        return;
    }
    for (uint64_t seq = first; seq <= e->tag; seq++) {
        TELL(w, "confirmed: message %llu\n", (unsigned long long)w->published[seq]);
        uint64_t id = w->published[seq];
        const struct message *msg = &w->model->messages[id];
        bool journalled = false;
        model_confirmed(w->model, id);
        for (int p = 0; p < PLACE_COUNT; p++)
            journalled |= (msg->known[p] & KNOWN_SENT) && (msg->persistent || p == PLACE_QUORUM);
        if (journalled)
            durable_since(w, w->published_at[seq]);
        w->confirms++;
    }
    if (e->tag > w->confirmed)
        w->confirmed = e->tag;
}

static void on_event(void *arg, const struct client_event *e)
{
    struct world *w = arg;
    switch (e->type) {
    case EVENT_MESSAGE: on_message(w, e); break;
    case EVENT_ACK: on_confirm(w, e); break;
    case EVENT_CHANNEL_CLOSED:
    case EVENT_CLOSED:
        if (w->tolerant) {
            w->dead = true;
            break;
        }
        model_fault(w->model, "%s %u closed: %llu %.*s", e->type == EVENT_CLOSED ? "connection" : "channel", e->channel,
                    (unsigned long long)e->tag, SLICE_ARG(e->text));
        break;
    case EVENT_OK:
    case EVENT_EMPTY:
        w->gets_answered += e->method == ASKED(60, 72);
        w->answer = e->method;
        w->answer_count = e->count;
        break;
    }
}

/* ---- turns ---- */

static void journal_turn(struct world *w)
{
    for (unsigned i = 0; i < 64; i++) {
        int did = journal_step(w->journal);
        if (did < 0 && !w->may_fail && !os_sim_is_cut(w->disk))
            model_fault(w->model, "the journal failed by itself: %s", journal_failure_text(w->journal));
        if (did < 0)
            w->dead = true;
        if (did <= 0 || world_pick(w, 8) < w->lag)
            return;
    }
}

void world_turn(struct world *w)
{
    os_sim_clock_advance(w->disk, (int64_t)world_pick(w, 3) * NS_PER_MS);
    mono_t now = w->os->now_mono(w->os);
    w->steps++;
    w->engine->now = now;
    client_feed(&w->client, w->engine);
    (void)hub_publish(w->hub);
    world_sql_turn(w);
    (void)broker_step(w->broker, now, w->os->now_wall(w->os), journal_durable(w->journal));
    verify_logins(w);
    store_turn(w);
    world_streams_turn(w);
    journal_kick(w->journal);
    if (world_pick(w, 8) >= w->lag)
        journal_turn(w);
    (void)hub_turn(w->hub, journal_durable(w->journal), now);
    client_read(&w->client, w->engine);
    if (w->tolerant && (w->engine->want_close || w->engine->out.failed))
        w->dead = true;
}

bool world_wait(struct world *w, uint32_t method)
{
    w->answer = 0;
    for (int i = 0; i < 2000 && !w->dead && !w->model->wrong[0]; i++) {
        world_turn(w);
        if (w->may_fail && i == 1000 && !w->dead && journal_ready(w->journal) == 0) {
            os_sim_fail(w->disk, 0, 0, 0, false); /* somebody makes room: what waited goes on */
            w->waits++;
        }
        if (w->answer == method || (method == ASKED(60, 71) && w->answer == ASKED(60, 72)))
            return true;
    }
    if (!w->dead && (w->tolerant || os_sim_is_cut(w->disk) || w->reads_fail))
        w->dead = true; /* without power, or from a disk that gives nothing, no page is read either */
    if (!w->dead)
        model_fault(w->model, "no answer %u.%u, but %u.%u", method >> 16, method & 65535, w->answer >> 16,
                    w->answer & 65535);
    return false;
}

/* ---- comparison ---- */

struct finding {
    struct model *model;
    enum place place;
};

static void found(void *arg, struct slice body)
{
    struct finding *f = arg;
    model_found(f->model, f->place, body);
}

/* Tells the model, by each, what is in every place; the hidden queue of delayed messages may not have been made yet. */
static void find_all(struct world *w, void (*each)(void *arg, struct slice body), bool *ret_exists)
{
    struct peek_reader reader = world_reader(w);
    model_compare(w->model);
    for (int p = 0; p < PLACE_LOG; p++) {
        struct finding f = {w->model, (enum place)p};
        ret_exists[p] = peek_queue(w->broker, place_names[p], &reader, each, &f);
    }
}

void world_compare(struct world *w)
{
    bool exists[PLACE_COUNT] = {0};
    find_all(w, found, exists);
    world_streams_compare(w, exists);
    exists[PLACE_WAITING] = true;
    model_settle(w->model, exists);
}

static void seen(void *arg, struct slice body)
{
    struct finding *f = arg;
    model_seen(f->model, f->place, body);
}

void world_check_commit(struct world *w)
{
    bool exists[PLACE_COUNT] = {0};
    find_all(w, seen, exists);
    model_commit_is_whole(w->model, exists);
}

/* ---- furniture ---- */

static struct slice queue_args(enum place place, uint8_t *room, size_t len)
{
    struct writer out = writer_of(room, len);
    if (place == PLACE_SHORT)
        amqp_put_long(&out, "x-max-length", 3);
    if (place == PLACE_TTL)
        amqp_put_long(&out, "x-message-ttl", 12);
    if (place == PLACE_SHORT || place == PLACE_TTL) {
        amqp_put_str(&out, "x-dead-letter-exchange", slice_str(""));
        amqp_put_str(&out, "x-dead-letter-routing-key", slice_str(place_names[PLACE_DEAD]));
    }
    if (place == PLACE_FED) {
        amqp_put_long(&out, "x-max-length", 5);
        amqp_put_str(&out, "x-overflow", slice_str("reject-publish"));
    }
    if (place == PLACE_LOG || place == PLACE_KEPT) {
        amqp_put_str(&out, "x-queue-type", slice_str("stream"));
        amqp_put_long(&out, "x-stream-max-segment-size-bytes", 65536);
        amqp_put_long(&out, place == PLACE_LOG ? "x-stream-partitions" : "x-max-length-bytes",
                      place == PLACE_LOG ? MODEL_PARTITIONS : 20000);
    }
    if (place == PLACE_PRIORITY)
        amqp_put_long(&out, "x-max-priority", 3);
    if (place == PLACE_ONCE) {
        amqp_put_bool(&out, "x-message-deduplication", true);
        amqp_put_long(&out, "x-cache-ttl", 1000LL * 86400 * 1000);
    }
    if (place == PLACE_RETRY)
        amqp_put_long(&out, "x-delayed-retry-min", RETRY_MS);
    if (place == PLACE_QUORUM) {
        amqp_put_str(&out, "x-queue-type", slice_str("quorum"));
        amqp_put_long(&out, "x-delivery-limit", -1);
    }
    return writer_slice(&out);
}

bool world_bind(struct world *w, enum place place)
{
    const char *exchange = place == PLACE_DELAYED ? "late"
                           : place <= PLACE_FAN   ? "amq.fanout"
                           : place == PLACE_LOG   ? "amq.stream.s0"
                           : place == PLACE_KEPT  ? "amq.stream.s1"
                                                  : NULL;
    const char *key = place == PLACE_LOG ? "#" : place == PLACE_KEPT ? "" : place_names[place];
    if (!exchange)
        return true;
    if (place >= PLACE_LOG && !(w->model->exists[place] && w->model->exists[PLACE_FED]))
        return true;
    w->model->unbound[place] = true;
    client_queue_bind(&w->client, CH_CONFIRM, place_names[place >= PLACE_LOG ? PLACE_FED : place], exchange, key,
                      (struct slice){0});
    if (!world_wait(w, ASKED(50, 21)))
        return false;
    w->model->unbound[place] = false;
    return true;
}

bool world_declare(struct world *w, enum place place)
{
    uint8_t room[256];
    TELL(w, "declare %s\n", place_names[place]);
    w->model->doubtful[place] = w->model->unbound[place] = true;
    client_queue_declare(&w->client, CH_CONFIRM, place_names[place], queue_args(place, room, sizeof room));
    if (!world_wait(w, ASKED(50, 11)))
        return false;
    w->model->exists[place] = true;
    w->model->doubtful[place] = false;
    if (place == PLACE_FED)
        w->model->unbound[PLACE_LOG] = w->model->unbound[PLACE_KEPT] = true;
    return world_bind(w, place);
}

void world_furnish(struct world *w)
{
    client_exchange_declare(&w->client, CH_CONFIRM, "late", "x-delayed-message", "direct");
    if (!world_wait(w, ASKED(40, 11)))
        return;
    for (int p = 0; p < PLACE_WAITING; p++)
        if ((p != PLACE_FED || w->with_streams) && !world_declare(w, (enum place)p))
            return;
    w->model->exists[PLACE_WAITING] = true;
    for (int p = PLACE_LOG; w->with_streams && p < PLACE_COUNT; p++)
        if (!world_declare(w, (enum place)p))
            return;
}

/* ---- operations ---- */

static uint32_t body_len(struct world *w)
{
    unsigned kind = world_pick(w, 160);
    return kind == 0 ? 600000 : kind < 20 ? 12 + world_pick(w, 9000) : 12 + world_pick(w, 150);
}

static int delay_ms(struct world *w)
{
    return (int)(1 + world_pick(w, w->long_delays && world_pick(w, 3) == 0 ? 400 : 30));
}

/* PLACE_COUNT: to a fanout. */
static void publish_to(struct world *w, uint16_t channel, enum place to, bool persistent)
{
    static uint8_t body[1 << 20];
    bool in_tx = channel == CH_TX;
    if (w->published_count + 1 >= ARRAY_LEN(w->published) || w->model->count + 1 >= MODEL_MESSAGES)
        return;
    if (in_tx &&
        (w->model->open.published_count + 2 > MODEL_TX || to == PLACE_SHORT || to == PLACE_TTL || to == PLACE_ONCE))
        return;
    for (int p = 0; to == PLACE_COUNT && p <= PLACE_FAN; p++)
        if (w->model->exists[p] && w->model->unbound[p] && !world_bind(w, (enum place)p))
            return;
    unsigned places = to == PLACE_COUNT ? 1u << PLACE_PLAIN | 1u << PLACE_FAN : 1u << to;
    for (int p = 0; p < PLACE_COUNT; p++)
        if (!w->model->exists[p])
            places &= ~(1u << p);
    uint32_t len = body_len(w);
    uint32_t key = 0;
    uint64_t id = to == PLACE_ONCE ? model_published_once(w->model, world_pick(w, MODEL_KEYS), persistent, len, &key)
                                   : model_published(w->model, places, persistent, len, in_tx);
    TELL(w, "channel %u: publish %llu to places %x, %u bytes%s\n", channel, (unsigned long long)id, places, len,
         persistent ? "" : ", transient");
    model_body(id, len, body);
    const char *exchange = to == PLACE_COUNT ? "amq.fanout" : to == PLACE_DELAYED ? "late" : "";
    client_publish(&w->client, channel, exchange, to == PLACE_COUNT ? "" : place_names[to], slice_of(body, len),
                   persistent, (int)world_pick(w, 5), to == PLACE_DELAYED ? delay_ms(w) : -1, -1,
                   to == PLACE_ONCE ? (int)key : -1);
    if (in_tx)
        return;
    w->published[++w->published_count] = id;
    w->published_at[w->published_count] = w->at;
}

static void op_publish(struct world *w, uint16_t channel)
{
    static const enum place targets[] = {PLACE_PLAIN, PLACE_PLAIN,   PLACE_FAN,      PLACE_SHORT,
                                         PLACE_TTL,   PLACE_DELAYED, PLACE_PRIORITY, PLACE_QUORUM,
                                         PLACE_ONCE,  PLACE_ONCE,    PLACE_RETRY,    PLACE_COUNT};
    bool persistent = world_pick(w, 5) != 0;
    enum place to = targets[world_pick(w, ARRAY_LEN(targets))];
    publish_to(w, channel, to, persistent);
    bool many = w->long_delays && (to == PLACE_DELAYED || to == PLACE_RETRY) && channel != CH_TX;
    for (unsigned more = many ? world_pick(w, 12) : 0; more; more--)
        publish_to(w, channel, to, world_pick(w, 5) != 0);
}

static bool has_partner(enum place place)
{
    return place == PLACE_SHORT || place == PLACE_TTL || place == PLACE_DEAD || place == PLACE_DELAYED;
}

static void settled(struct world *w, uint16_t channel, unsigned i, bool requeue, bool ack)
{
    struct held h = w->held[channel][i];
    if (requeue || h.place >= PLACE_LOG) /* a stream keeps what is read */
        return;
    if (!ack && (h.place == PLACE_SHORT || h.place == PLACE_TTL))
        return; /* moves to the dead letter queue */
    if (channel == CH_TX) {
        if (!has_partner(h.place))
            model_tx_acked(w->model, h.place, h.id);
        else
            model_leaving(w->model, h.place, h.id);
        return;
    }
    model_leaving(w->model, h.place, h.id);
    if (w->taken_count < WORLD_HELD)
        w->taken[w->taken_count++] = (struct taken){h.id, w->at, h.place};
}

static void op_settle(struct world *w, uint16_t channel)
{
    if (w->held_count[channel] == 0 || (channel == CH_TX && w->model->open.acked_count + WORLD_HELD / 16 > MODEL_TX))
        return;
    unsigned i = world_pick(w, w->held_count[channel]), kind = world_pick(w, 6);
    bool multiple = world_pick(w, 4) == 0 && channel != CH_TX, ack = kind < 4, requeue = kind == 4;
    if (w->long_delays && w->held[channel][i].place == PLACE_RETRY && channel != CH_TX && world_pick(w, 2)) {
        ack = false; /* many that wait for their retry */
        requeue = multiple = true;
    }
    uint64_t tag = w->held[channel][i].tag;
    if (channel == CH_TX && !ack)
        return;
    TELL(w, "channel %u: %s tag %llu%s\n", channel,
         ack       ? "ack"
         : requeue ? "requeue"
                   : "reject",
         (unsigned long long)tag, multiple ? " and before" : "");
    if (ack)
        client_ack(&w->client, channel, tag, multiple);
    else
        client_nack(&w->client, channel, tag, multiple, requeue);
    unsigned kept = 0;
    for (unsigned k = 0; k < w->held_count[channel]; k++) {
        if (w->held[channel][k].tag == tag || (multiple && w->held[channel][k].tag < tag))
            settled(w, channel, k, requeue, ack);
        else
            w->held[channel][kept++] = w->held[channel][k];
    }
    w->held_count[channel] = kept;
}

static void op_get(struct world *w, uint16_t channel)
{
    enum place place = (enum place)world_pick(w, PLACE_WAITING);
    if (!w->model->exists[place])
        return;
    w->get_place = place;
    w->get_no_ack = channel == CH_GET && world_pick(w, 3) == 0 && !has_partner(place);
    w->model->one_may_lack[place] = w->get_no_ack;
    client_get(&w->client, channel, place_names[place], w->get_no_ack);
    if (world_wait(w, ASKED(60, 71)))
        w->model->one_may_lack[place] = false;
}

static void op_commit(struct world *w)
{
    if (world_pick(w, 4) == 0) {
        TELL(w, "rollback\n");
        client_tx(&w->client, CH_TX, 30);
        if (!world_wait(w, ASKED(90, 31)))
            return;
        model_rolled_back(w->model);
        /* What was acknowledged is unacknowledged again: give the channel up, so that it all comes back. */
        client_channel_close(&w->client, CH_TX);
        w->held_count[CH_TX] = 0;
        if (world_wait(w, ASKED(20, 41)))
            (void)open_channel(w, CH_TX);
        return;
    }
    TELL(w, "commit %u publishes %u acks\n", w->model->open.published_count, w->model->open.acked_count);
    model_commit(w->model);
    client_tx(&w->client, CH_TX, 20);
    if (world_wait(w, ASKED(90, 21)))
        model_committed(w->model);
}

static void op_consume(struct world *w)
{
    enum place place = (enum place)world_pick(w, PLACE_WAITING);
    char tag[3] = {'c', (char)('0' + place), 0};
    TELL(w, "%s %s\n", w->consuming[place] ? "cancel" : "consume", place_names[place]);
    if (!w->model->exists[place])
        return;
    if (w->consuming[place]) {
        client_cancel(&w->client, CH_CONSUME, tag);
        w->consuming[place] = !world_wait(w, ASKED(60, 31));
        return;
    }
    client_qos(&w->client, CH_CONSUME, (uint16_t)world_pick(w, 5));
    client_consume(&w->client, CH_CONSUME, place_names[place], tag, false);
    w->consuming[place] = true;
    (void)world_wait(w, ASKED(60, 21));
}

static bool is_held(const struct world *w, enum place place, uint64_t id)
{
    for (int channel = 1; channel < CH_END; channel++)
        for (unsigned i = 0; i < w->held_count[channel]; i++)
            if (w->held[channel][i].id == id && w->held[channel][i].place == place)
                return true;
    return false;
}

static void op_purge(struct world *w)
{
    static const enum place purged[] = {PLACE_PLAIN, PLACE_QUORUM, PLACE_ONCE, PLACE_RETRY};
    enum place place = purged[world_pick(w, ARRAY_LEN(purged))];
    struct model *m = w->model;
    if (!m->exists[place] || w->consuming[place] || m->open.acked_count)
        return;
    uint64_t last = m->count;
    for (uint64_t id = 1; id <= last; id++)
        if ((m->messages[id].known[place] & KNOWN_SENT) && !is_held(w, place, id))
            model_leaving(m, place, id);
    TELL(w, "purge %s\n", place_names[place]);
    client_queue_purge(&w->client, CH_CONFIRM, place_names[place]);
    if (!world_wait(w, ASKED(50, 31)))
        return;
    for (uint64_t id = 1; id <= last; id++)
        if ((m->messages[id].known[place] & KNOWN_LEAVING) && !is_held(w, place, id))
            model_gone(m, place, id);
}

static void op_delete(struct world *w)
{
    static const enum place deletable[] = {PLACE_PLAIN, PLACE_FAN, PLACE_PRIORITY, PLACE_QUORUM};
    enum place place = deletable[world_pick(w, ARRAY_LEN(deletable))];
    struct model *m = w->model;
    if (m->open.published_count || m->open.acked_count)
        return;
    if (!m->exists[place]) {
        (void)world_declare(w, place);
        return;
    }
    if (w->consuming[place])
        return;
    TELL(w, "delete %s\n", place_names[place]);
    m->doubtful[place] = true;
    model_all_leaving(m, place);
    client_queue_delete(&w->client, CH_CONFIRM, place_names[place]);
    if (!world_wait(w, ASKED(50, 41)))
        return;
    m->exists[place] = m->doubtful[place] = false;
    model_all_gone(m, place);
}

static void op_channel_again(struct world *w)
{
    uint16_t channel = world_pick(w, 2) ? CH_CONSUME : CH_GET;
    TELL(w, "close channel %u\n", channel);
    client_channel_close(&w->client, channel);
    bool closed = world_wait(w, ASKED(20, 41));
    w->held_count[channel] = 0;
    if (channel == CH_CONSUME)
        memset(w->consuming, 0, sizeof w->consuming);
    if (closed)
        (void)open_channel(w, channel);
}

void world_op(struct world *w)
{
    static const uint8_t of_tx[] = {3, 9, 10, 10, 11, 12, 13, 31};
    w->ops++;
    w->at++;
    if (w->with_streams && world_pick(w, 4) == 0)
        world_streams_op(w);
    else
        switch (w->mostly_tx ? of_tx[world_pick(w, ARRAY_LEN(of_tx))] : world_pick(w, 32)) {
        case 0: op_consume(w); break;
        case 1:
        case 2: op_get(w, CH_GET); break;
        case 3: op_get(w, CH_TX); break;
        case 4:
        case 5:
        case 6: op_settle(w, CH_CONSUME); break;
        case 7:
        case 8: op_settle(w, CH_GET); break;
        case 9: op_settle(w, CH_TX); break;
        case 10:
        case 11:
        case 12: op_publish(w, CH_TX); break;
        case 13:
        case 17: op_commit(w); break;
        case 14:
            if (world_pick(w, 3) == 0)
                op_purge(w);
            break;
        case 15:
            if (world_pick(w, 3) == 0)
                op_delete(w);
            break;
        case 16:
            if (world_pick(w, 4) == 0)
                op_channel_again(w);
            break;
        default: op_publish(w, CH_CONFIRM); break;
        }
    if (!w->dead && !w->model->wrong[0])
        for (unsigned turns = world_pick(w, 2) ? 0 : world_pick(w, 3); turns && !w->dead; turns--)
            world_turn(w);
}

/* ---- operations by name ---- */

void world_sent(struct world *w, uint64_t id)
{
    w->published[++w->published_count] = id;
    w->published_at[w->published_count] = ++w->at;
}

void world_publish(struct world *w, enum place place, unsigned count, uint32_t len)
{
    static uint8_t body[(1 << 20) + 8];
    for (; count && !w->dead && !w->model->wrong[0]; count--) {
        uint64_t id = model_published(w->model, 1u << place, true, len + count % 7, false);
        model_body(id, len + count % 7, body);
        client_publish(&w->client, CH_CONFIRM, "", place_names[place], slice_of(body, len + count % 7), true, 0, -1, -1,
                       -1);
        world_sent(w, id);
        world_turn(w);
    }
}

void world_confirmed(struct world *w)
{
    for (unsigned i = 0; i < 2000 && !w->dead && !w->model->wrong[0] && w->confirmed < w->published_count; i++)
        world_turn(w);
}

void world_take(struct world *w, enum place place, unsigned count, bool requeue)
{
    for (; count && !w->dead && !w->model->wrong[0]; count--) {
        w->at++;
        w->get_place = place;
        w->get_no_ack = false;
        client_get(&w->client, CH_GET, place_names[place], false);
        if (!world_wait(w, ASKED(60, 71)))
            return;
        if (!w->held_count[CH_GET])
            continue;
        unsigned last = w->held_count[CH_GET] - 1;
        if (requeue)
            client_nack(&w->client, CH_GET, w->held[CH_GET][last].tag, false, true);
        else
            client_ack(&w->client, CH_GET, w->held[CH_GET][last].tag, false);
        settled(w, CH_GET, last, requeue, !requeue);
        w->held_count[CH_GET] = last;
        world_turn(w);
    }
}

bool world_get_at_once(struct world *w, enum place place, unsigned count)
{
    w->at++;
    w->get_place = place;
    w->get_no_ack = false;
    w->gets_answered = 0;
    for (unsigned i = 0; i < count && !w->dead && !w->model->wrong[0]; i++)
        client_get(&w->client, CH_GET, place_names[place], false);
    while (w->gets_answered < count)
        if (!world_wait(w, ASKED(60, 71)))
            return false;
    return true;
}

void world_turns(struct world *w, unsigned count)
{
    for (; count && !w->dead && !w->model->wrong[0]; count--)
        world_turn(w);
}
