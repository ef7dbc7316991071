/* Streams of the simulator's broker: their files as the core's helper on the simulated disk (as main/stream_pager does it with
 * a thread), what the client does with them, and what they hold after a start. */
#include "world.h"

#include "fmt/amqp_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PORT_STREAMS 4u
#define NO_OFFSET (UINT64_MAX - 1) /* of a partition that is not read */

/* ---- the streams' thread, without a thread ---- */

bool world_streams_open(struct world *w)
{
    if (!w->with_streams)
        return true;
    struct streams_options options = {.os = w->os, .dir = "/data", .writers_max = 1 + world_pick(w, 3)};
    memcpy(options.uuid, journal_uuid(w->journal), sizeof options.uuid);
    return streams_open(&options, &w->streams, w->why, sizeof w->why) == 0;
}

static int keep(void *arg, const struct stream_files *files)
{
    struct world *w = arg;
    return streams_keep(w->streams, files->stream, files->partition, files->start, files->sealed, files->sealed_count,
                        &files->tail, w->why, sizeof w->why);
}

bool world_streams_keep(struct world *w)
{
    return !w->streams ||
           (broker_streams(w->broker, keep, w) == 0 && streams_sweep(w->streams, w->why, sizeof w->why) == 0);
}

static void give_back(struct world *w, struct stream_job *job)
{
    struct command *c = ring_push(&broker_port(w->broker, PORT_STREAMS)->commands);
    if (!c)
        abort();
    bool later = job->err == -ESTALE || job->err == -ECANCELED; /* a compaction is asked for again */
    if (job->err && !later && !w->may_fail && !os_sim_is_cut(w->disk))
        model_fault(w->model, "a stream job of type %d failed by itself: %d", job->type, job->err);
    if (job->err && job->type == STREAM_SYNC)
        w->dead = true; /* main stops the broker */
    *c = (struct command){.type = CMD_STREAMED, .stream_job = job};
    ring_publish(&broker_port(w->broker, PORT_STREAMS)->commands);
}

/* Jobs to the files, work (or not: it lags at random), answers back. */
void world_streams_turn(struct world *w)
{
    if (!w->streams)
        return;
    struct port *port = broker_port(w->broker, PORT_STREAMS);
    struct effect *e;
    struct stream_job *job;
    while ((e = ring_peek(&port->effects))) {
        job = e->stream_job;
        if (!streams_submit(w->streams, &job))
            break;
        ring_pop(&port->effects);
    }
    if (world_pick(w, 8) >= w->lag)
        (void)streams_step(w->streams);
    while (ring_room(&port->commands) && (job = streams_take(w->streams)))
        give_back(w, job);
}

void world_streams_stop(struct world *w)
{
    struct stream_job *job;
    struct streams_stats stats;
    if (!w->streams)
        return;
    w->may_fail = true;
    streams_stop(w->streams);
    streams_stats(w->streams, &stats);
    w->records_written += stats.records_written;
    w->records_read += stats.records_read;
    w->stream_syncs += stats.syncs;
    while (w->broker && (job = streams_take(w->streams))) /* the core shares the messages of what was being written */
        give_back(w, job);
}

/* ---- comparison ---- */

/* Beside what the core has asked. */
static void read_records(void *self, struct stream_job *job)
{
    struct world *w = self;
    struct stream_job *mine = job, *done = NULL;
    if (!streams_submit(w->streams, &mine))
        abort();
    while (done != job) {
        (void)streams_step(w->streams);
        while (done != job && (done = streams_take(w->streams)))
            if (done != job)
                give_back(w, done);
    }
    if (job->err && !w->may_fail)
        model_fault(w->model, "partition %u of stream %llu cannot be read at %llu: %d", job->partition,
                    (unsigned long long)job->stream, (unsigned long long)job->first, job->err);
}

struct peek_stream_reader world_stream_reader(struct world *w)
{
    return (struct peek_stream_reader){read_records, w};
}

struct look {
    struct world *w;
    enum place place;
    uint64_t cursor; /* of the partition */
    void (*each)(void *arg, struct slice body);
    void *arg;
};

static void see_partition(void *arg, uint32_t partition, uint64_t start, uint64_t end)
{
    struct look *look = arg;
    if (partition >= MODEL_PARTITIONS) { /* it was added, see stores.c */
        if (end)
            model_fault(look->w->model, "place %d has something in partition %u", look->place, partition);
        return;
    }
    look->cursor = peek_cursor(look->w->broker, place_names[look->place], place_names[PLACE_FED], partition);
    if (!look->each)
        model_log_range(look->w->model, look->place, partition, start, end);
}

static void see_record(void *arg, uint32_t partition, uint64_t offset, struct slice body)
{
    struct look *look = arg;
    if (look->each) {
        look->each(look->arg, body);
        return;
    }
    model_log_found(look->w->model, look->place, partition, offset, body);
    if (offset >= look->cursor && !look->w->model->wrong[0])
        model_found(look->w->model, PLACE_FED, body);
}

static bool look_at(struct look *look)
{
    struct peek_stream_reader reader = {read_records, look->w};
    struct peek_log log = {see_partition, see_record, look};
    return peek_stream(look->w->broker, place_names[look->place], &reader, &log);
}

void world_streams_compare(struct world *w, bool *ret_exists)
{
    if (!w->streams)
        return;
    for (int p = PLACE_LOG; p < PLACE_COUNT; p++) {
        struct look look = {.w = w, .place = (enum place)p};
        ret_exists[p] = look_at(&look);
    }
    model_log_settle(w->model, ret_exists);
}

void world_streams_each(struct world *w, void (*each)(void *arg, struct slice body), void *arg)
{
    for (int p = PLACE_LOG; w->streams && p < PLACE_COUNT; p++) {
        struct look look = {.w = w, .place = (enum place)p, .each = each, .arg = arg};
        (void)look_at(&look);
    }
}

/* ---- consumers ---- */

void world_stream_message(struct world *w, enum place place, const struct client_event *e)
{
    uint64_t id = model_log_delivered(w->model, place, e->partition, e->offset, e->body);
    if (!id)
        return;
    uint64_t *next = &w->reading[place - PLACE_LOG][e->partition];
    if (*next != UINT64_MAX && e->offset != *next && (place != PLACE_KEPT || e->offset < *next))
        model_fault(w->model, "place %d, partition %u: offset %llu delivered, %llu was next", place, e->partition,
                    (unsigned long long)e->offset, (unsigned long long)*next);
    *next = e->offset + 1;
    w->stream_deliveries++;
    if (w->held_count[e->channel] < WORLD_HELD)
        w->held[e->channel][w->held_count[e->channel]++] = (struct held){e->tag, id, place};
}

static void op_consume(struct world *w, enum place place)
{
    static const char *const from[] = {"first", "first", "last", "next"};
    char tag[3] = {'c', (char)('0' + place), 0};
    uint8_t room[64];
    struct writer args = writer_of(room, sizeof room);
    unsigned which = world_pick(w, ARRAY_LEN(from)), only = world_pick(w, place == PLACE_LOG ? MODEL_PARTITIONS : 1);
    bool number = world_pick(w, 3) == 0;
    if (!w->model->exists[place])
        return;
    if (w->consuming[place]) {
        client_cancel(&w->client, CH_CONSUME, tag);
        w->consuming[place] = !world_wait(w, ASKED(60, 31));
        return;
    }
    for (unsigned i = 0; i < MODEL_PARTITIONS; i++)
        w->reading[place - PLACE_LOG][i] = number && i != only               ? NO_OFFSET
                                           : which < 2 && place == PLACE_LOG ? 0
                                                                             : UINT64_MAX;
    if (number) {
        uint64_t next = world_pick(w, (unsigned)w->model->logs[place - PLACE_LOG][only].end + 3);
        w->reading[place - PLACE_LOG][only] = next;
        amqp_put_long(&args, "x-stream-offset", (int64_t)next);
        amqp_put_long(&args, "x-stream-partition", only);
    } else
        amqp_put_str(&args, "x-stream-offset", slice_str(from[which]));
    client_qos(&w->client, CH_CONSUME, (uint16_t)(1 + world_pick(w, 20)));
    client_consume_from(&w->client, CH_CONSUME, place_names[place], tag, writer_slice(&args));
    w->consuming[place] = true;
    (void)world_wait(w, ASKED(60, 21));
}

/* ---- operations ---- */

/* Large ones fill segments, so that retention has something to give up. */
static uint32_t body_len(struct world *w, enum place place)
{
    unsigned kind = world_pick(w, 16);
    return kind < (place == PLACE_KEPT ? 4u : 1u) ? 12 + world_pick(w, 90000)
           : kind < 8                             ? 12 + world_pick(w, 9000)
                                                  : 12 + world_pick(w, 300);
}

static bool is_fed(const struct model *m, enum place place)
{
    return m->exists[PLACE_FED] && !m->unbound[place];
}

static void op_publish(struct world *w, uint16_t channel, enum place place)
{
    static uint8_t body[1 << 17];
    struct model *m = w->model;
    bool in_tx = channel == CH_TX;
    if (!m->exists[place] || (m->exists[PLACE_FED] && m->unbound[place] && !world_bind(w, place)))
        return;
    for (unsigned burst = 1 + (world_pick(w, 3) ? world_pick(w, 4) : world_pick(w, 16)); burst; burst--) {
        if (w->published_count + 1 >= ARRAY_LEN(w->published) || m->count + 1 >= MODEL_MESSAGES ||
            (in_tx && m->open.published_count + 2 > MODEL_TX))
            return;
        uint32_t len = body_len(w, place);
        unsigned places = 1u << place | (is_fed(m, place) ? 1u << PLACE_FED : 0);
        enum place other = world_pick(w, 2) ? PLACE_PLAIN : PLACE_QUORUM;
        bool copy = m->exists[other] && m->open.published_count + 3 <= MODEL_TX && world_pick(w, 4) == 0;
        bool persistent = copy || world_pick(w, 5) != 0;
        if (copy)
            places |= 1u << other;
        uint64_t id = model_published(m, places, persistent, len, in_tx);
        if (w->talk > 1)
            printf("    channel %u: publish %llu to stream %s, %u bytes%s\n", channel, (unsigned long long)id,
                   place_names[place], len, places >> PLACE_FED & 1 ? "" : ", not fed");
        model_body(id, len, body);
        if (copy)
            client_publish_copy(&w->client, channel, place_names[place], place_names[other], slice_of(body, len),
                                persistent);
        else
            client_publish(&w->client, channel, "", place_names[place], slice_of(body, len), persistent, 0, -1, -1, -1);
        if (in_tx)
            continue;
        w->published[++w->published_count] = id;
        w->published_at[w->published_count] = w->at;
    }
}

void world_streams_publish(struct world *w, enum place place, unsigned count, uint32_t len, unsigned at_once)
{
    static uint8_t body[1 << 17];
    for (; count && !w->dead && !w->model->wrong[0]; count--) {
        unsigned places = 1u << place | (is_fed(w->model, place) ? 1u << PLACE_FED : 0);
        uint64_t id = model_published(w->model, places, true, len, false);
        model_body(id, len, body);
        client_publish(&w->client, CH_CONFIRM, "", place_names[place], slice_of(body, len), true, 0, -1, -1, -1);
        world_sent(w, id);
        if ((count - 1) % at_once == 0)
            world_turn(w);
    }
}

void world_streams_delete(struct world *w, enum place place)
{
    struct model *m = w->model;
    if (m->open.published_count || m->open.acked_count)
        return;
    if (!m->exists[place]) {
        (void)world_declare(w, place);
        return;
    }
    if (w->consuming[place])
        return;
    if (w->talk > 1)
        printf("    delete %s\n", place_names[place]);
    if (place == PLACE_FED) {
        m->doubtful[place] = true;
        m->unbound[PLACE_LOG] = m->unbound[PLACE_KEPT] = true;
        model_all_leaving(m, place);
    } else
        model_log_deleting(m, place);
    client_queue_delete(&w->client, CH_CONFIRM, place_names[place]);
    if (!world_wait(w, ASKED(50, 41)))
        return;
    if (place == PLACE_FED) {
        m->exists[place] = m->doubtful[place] = false;
        model_all_gone(m, place);
    } else
        model_log_deleted(m, place);
}

/* Takes the first message of the fed queue for good. False: there is none, or the world is dead. */
static bool take_fed(struct world *w)
{
    w->at++;
    w->get_place = PLACE_FED;
    w->get_no_ack = false;
    unsigned before = w->held_count[CH_GET];
    client_get(&w->client, CH_GET, place_names[PLACE_FED], false);
    if (!world_wait(w, ASKED(60, 71)) || w->held_count[CH_GET] == before)
        return false;
    struct held h = w->held[CH_GET][--w->held_count[CH_GET]];
    client_ack(&w->client, CH_GET, h.tag, false);
    model_leaving(w->model, h.place, h.id);
    if (w->taken_count < WORLD_HELD)
        w->taken[w->taken_count++] = (struct taken){h.id, w->at, h.place};
    return true;
}

void world_streams_op(struct world *w)
{
    enum place place = world_pick(w, 2) ? PLACE_LOG : PLACE_KEPT;
    switch (world_pick(w, 12)) {
    case 0:
    case 1: op_consume(w, place); break;
    case 2:
    case 3: op_publish(w, CH_TX, place); break;
    case 4:
        if (world_pick(w, 3) == 0)
            world_streams_delete(w, world_pick(w, 3) ? place : PLACE_FED);
        break;
    case 5:
    case 6:
        for (unsigned n = w->model->exists[PLACE_FED] ? world_pick(w, 8) : 0; n && take_fed(w); n--)
            continue;
        break;
    default: op_publish(w, CH_CONFIRM, place); break;
    }
}

void world_streams_drain(struct world *w)
{
    unsigned empty = 0;
    while (w->with_streams && w->model->exists[PLACE_FED] && empty < 100 && !w->dead && !w->model->wrong[0])
        empty = take_fed(w) ? 0 : empty + 1;
    if (!w->dead && !w->model->wrong[0])
        model_fed(w->model);
}
