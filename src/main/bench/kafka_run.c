/* The produce-consume scenario of `millrace bench kafka`: producers and consumers on one epoll loop.
 *
 * The generator shares its machine with the broker it measures, so what it does per record is next to nothing: a stamp in a
 * request that is there already and a few compares of what came back. One round of the loop is: one read per ready
 * connection, parsed in place → as many requests per producer as the window, the rate and its buffer allow, written at once.
 *
 * A producer belongs to one topic and goes round its partitions, one batch for one partition a request. A consumer has its
 * share of a topic's partitions and one fetch under way; it asks for more as soon as it knows where the next records begin,
 * before it looks at those it got, so that broker and generator work at the same time.
 *
 * A batch is stamped before it is written, and counted as arrived after the answer was read: both on the pessimistic side.
 * With --rate, latency counts from the time a batch was due whenever the server held the producer (bench/pace.h).
 *
 * Without producers the records are those of an earlier run: offsets, checksums and structure are checked, stamps are not.
 */
#include "fmt/record_batch.h"
#include "kafka_group.h"
#include "kafka_int.h"
#include "kafka_load.h"
#include "kafka_reading.h"
#include "pace.h"
#include "phases.h"
#include "stamp.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 128,
    WAIT_MAX_MS = 100,
    PROGRESS_MS = 500,
    IDENTIFY_AGAIN_MS = 50,
    TICK_MS = 100,
    FETCH_ENTRY_BYTES = 28,
    AT_CORRELATION = 8
};

/* ---- types ---- */

enum link_kind { PRODUCER, CONSUMER, MEMBER };

struct link {
    struct bench_kafka_wire wire;
    enum link_kind kind;
    bool writable_wanted;
};

/* One partition as one producer sees it. */
struct part {
    uint64_t seq;       /* records sent */
    int32_t sequence;   /* of the next batch, where idempotent */
    int64_t next_least; /* no acknowledgement may give an offset below */
};

struct sent {
    uint64_t sent_ns;
    int32_t correlation_id, partition;
};

struct producer {
    struct link link; /* first: epoll hands out links */
    unsigned idx;
    struct bench_kafka_load load;
    struct part *parts;
    int32_t part_next;
    struct sent *sent; /* ring, in the order of the requests, which is that of the answers */
    uint64_t ring_mask;
    uint64_t requests, answered; /* numbers of batches */
    uint64_t limit;              /* requests; UINT64_MAX: by the clock */
    uint64_t backwards;          /* acknowledgements whose offset had been given before */
    struct bench_pace pace;
};

/* One partition of an answer. */
struct fetched {
    int32_t idx;    /* in the consumer's list */
    int64_t offset; /* that was asked for */
    int64_t visible_end;
    struct slice records;
};

struct consumer {
    struct link link;
    int32_t *partitions, count;
    int64_t *offsets; /* of the next record, per partition */
    int64_t *first;   /* where to begin again */
    uint8_t *ask;     /* the request; offsets are patched */
    size_t ask_len, ask_at, entries_at;
    struct fetched *got; /* of the answer at hand */
    int32_t got_count;
};

/* What a consumer is in its group. The connection is the group's, only the events come here. */
struct membership {
    struct link link;
    unsigned idx;
};

struct counters {
    uint64_t produced, acked, consumed, requests, fetches, batch_bytes, fetched_bytes;
};

struct loop {
    const struct bench_kafka_options *o;
    int32_t partitions; /* of each topic */
    int epoll;
    struct producer *producers;
    struct consumer *consumers;
    struct bench_phases phases;
    struct counters at_start, at_end, progress_last;
    uint64_t progress_at_ns;
    uint64_t requests, batch_bytes, fetches;
    uint64_t last_ack_ns, last_consume_ns;
    struct bench_histogram *acks, *transit, *commits;
    struct bench_kafka_group *group; /* or NULL */
    struct membership *memberships;
    double joined_s;
    uint64_t ticked_at_ns;
    struct bench_kafka_reading reading;
    bool failed;
};

static int loop_fail(struct loop *l, const char *who, const char *why)
{
    if (!l->failed && l->o->progress)
        fputs("\r\033[K", stderr);
    if (!l->failed)
        bench_fail(who, why);
    l->failed = true;
    return -1;
}

static void link_watch(struct loop *l, struct link *k, bool writable_wanted)
{
    if (k->writable_wanted == writable_wanted)
        return;
    k->writable_wanted = writable_wanted;
    struct epoll_event e = {.events = EPOLLIN | (writable_wanted ? EPOLLOUT : 0u), .data.ptr = k};
    epoll_ctl(l->epoll, EPOLL_CTL_MOD, k->wire.socket.fd, &e);
}

static struct counters loop_count(const struct loop *l)
{
    struct counters c = {.requests = l->requests,
                         .fetches = l->fetches,
                         .batch_bytes = l->batch_bytes,
                         .fetched_bytes = l->reading.bytes,
                         .consumed = l->reading.records};
    for (unsigned i = 0; i < l->o->producers; i++) {
        c.produced += l->producers[i].requests * l->o->batch;
        c.acked += l->producers[i].answered * l->o->batch;
    }
    return c;
}

/* ---- producers ---- */

static bool producers_stopping(const struct loop *l, uint64_t now_ns)
{
    return bench_phases_stopping(&l->phases, now_ns);
}

/* How many requests this producer may send now. */
static uint64_t producer_room(const struct loop *l, const struct producer *p, uint64_t now_ns)
{
    uint64_t room = l->o->acks == 0 ? UINT64_MAX : l->o->window - (p->requests - p->answered);
    uint64_t due = bench_pace_due(&p->pace, p->requests, now_ns);
    uint64_t left = p->limit - p->requests;
    room = due < room ? due : room;
    return left < room ? left : room;
}

static int producer_put(struct loop *l, struct producer *p, uint64_t now_ns, int64_t wall_ms)
{
    struct part *part = &p->parts[p->part_next];
    struct bench_kafka_send send = {.correlation_id = (int32_t)(p->requests & INT32_MAX),
                                    .partition = p->part_next,
                                    .base_sequence = part->sequence,
                                    .wall_ms = wall_ms,
                                    .stream = p->idx * (uint32_t)l->partitions + (uint32_t)p->part_next,
                                    .first_seq = part->seq + 1,
                                    .sent_ns = bench_pace_stamp(&p->pace, p->requests, now_ns)};
    if (bench_kafka_load_put(&p->load, &send) != 0)
        return client_socket_fail(&p->link.wire.socket, "a batch cannot be packed: out of memory");
    p->sent[p->requests & p->ring_mask] = (struct sent){send.sent_ns, send.correlation_id, send.partition};
    part->seq += l->o->batch;
    part->sequence = (int32_t)(((uint32_t)part->sequence + l->o->batch) & INT32_MAX);
    p->part_next = p->part_next + 1 < l->partitions ? p->part_next + 1 : 0;
    p->requests++;
    l->requests++;
    l->batch_bytes += p->load.batch_bytes;
    return 0;
}

/* Sends what it may. Answers 1 when it could go on at once, 0 when it must wait, -1 at an error. */
static int producer_publish(struct loop *l, struct producer *p, uint64_t now_ns, int64_t wall_ms)
{
    struct bench_kafka_load *load = &p->load;
    struct client_socket *s = &p->link.wire.socket;
    int done = client_socket_write(s, load->out, &load->at, load->end, now_ns);
    bool go_on = false;
    if (done > 0) {
        bench_kafka_load_restart(load);
        uint64_t room = producers_stopping(l, now_ns) ? 0 : producer_room(l, p, now_ns);
        for (; room > 0 && load->slot_count < load->slot_max; room--)
            if (producer_put(l, p, now_ns, wall_ms) != 0)
                return -1;
        done = client_socket_write(s, load->out, &load->at, load->end, now_ns);
        go_on = done > 0 && room > 0;
        if (l->o->acks == 0 && done > 0)
            p->answered = p->requests;
    }
    p->pace.held = p->pace.interval_ns > 0 && bench_pace_due(&p->pace, p->requests, now_ns) > 0;
    link_watch(l, &p->link, done == 0);
    return done < 0 ? -1 : go_on;
}

/* An acknowledgement: correlation id, one topic, one partition, its error and the offset of the batch. */
static int producer_on_answer(struct loop *l, struct producer *p, struct slice frame, uint64_t now_ns)
{
    struct reader r = reader_of(frame);
    const struct sent *sent = &p->sent[p->answered & p->ring_mask];
    int32_t correlation_id = (int32_t)reader_u32(&r), topics = (int32_t)reader_u32(&r);
    reader_take(&r, reader_u16(&r));
    int32_t partitions = (int32_t)reader_u32(&r), partition = (int32_t)reader_u32(&r);
    int16_t error = (int16_t)reader_u16(&r);
    int64_t offset = (int64_t)reader_u64(&r);
    if (!reader_ok(&r) || topics != 1 || partitions != 1)
        return client_socket_fail(&p->link.wire.socket, "the answer to Produce cannot be read");
    if (p->answered == p->requests || correlation_id != sent->correlation_id || partition != sent->partition)
        return client_socket_fail(&p->link.wire.socket, "the server answered Produce number %d, which was not asked",
                                  correlation_id);
    if (error != 0)
        return bench_kafka_refused(&p->link.wire, "a batch was not stored", error);
    struct part *part = &p->parts[partition];
    p->backwards += offset < part->next_least;
    part->next_least = offset + l->o->batch;
    p->answered++;
    if (l->phases.measuring)
        bench_histogram_add(l->acks, now_ns - sent->sent_ns, 1);
    l->last_ack_ns = now_ns;
    return 0;
}

static int producer_read(struct loop *l, struct producer *p)
{
    struct slice frame;
    int got;
    ssize_t n = client_socket_fill(&p->link.wire.socket);
    if (n <= 0)
        return (int)n;
    uint64_t now_ns = client_clock_ns();
    while ((got = bench_kafka_frame_next(&p->link.wire, &frame)) > 0)
        if (producer_on_answer(l, p, frame, now_ns) != 0)
            return -1;
    return got;
}

/* ---- consumers ---- */

/* Sends the fetch, or what is left of it. */
static int consumer_ask(struct loop *l, struct consumer *c, uint64_t now_ns)
{
    int done = client_socket_write(&c->link.wire.socket, c->ask, &c->ask_at, c->ask_len, now_ns);
    link_watch(l, &c->link, done == 0);
    return done < 0 ? -1 : 0;
}

static int consumer_ask_new(struct loop *l, struct consumer *c, uint64_t now_ns)
{
    uint32_t correlation_id;
    memcpy(&correlation_id, c->ask + AT_CORRELATION, sizeof(correlation_id));
    correlation_id = htobe32(be32toh(correlation_id) + 1);
    memcpy(c->ask + AT_CORRELATION, &correlation_id, sizeof(correlation_id));
    for (int32_t i = 0; i < c->count; i++) {
        uint64_t offset = htobe64((uint64_t)c->offsets[i]);
        memcpy(c->ask + c->entries_at + (size_t)i * FETCH_ENTRY_BYTES + 8, &offset, sizeof(offset));
    }
    c->ask_at = 0;
    l->fetches++;
    return consumer_ask(l, c, now_ns);
}

static bool fetched_read(const struct consumer *c, struct reader *r, struct fetched *ret, int16_t *ret_error)
{
    int32_t partition = (int32_t)reader_u32(r);
    *ret_error = (int16_t)reader_u16(r);
    ret->visible_end = (int64_t)reader_u64(r);
    reader_take(r, 16); /* last stable offset, first offset */
    int32_t aborted = (int32_t)reader_u32(r);
    reader_take(r, aborted > 0 ? (size_t)aborted * 16 : 0);
    reader_take(r, 4); /* preferred replica */
    int32_t len = (int32_t)reader_u32(r);
    ret->records = reader_take(r, len > 0 ? (size_t)len : 0);
    for (ret->idx = 0; ret->idx < c->count && c->partitions[ret->idx] != partition; ret->idx++)
        ;
    return reader_ok(r) && ret->idx < c->count;
}

/* Takes the answer apart, into the consumer's list, and finds where the next fetch begins. */
static int consumer_take_apart(struct loop *l, struct consumer *c, struct slice frame)
{
    struct reader r = reader_of(frame);
    reader_take(&r, 8); /* correlation id, throttle time */
    int16_t error = (int16_t)reader_u16(&r);
    reader_take(&r, 4); /* session */
    int32_t topics = (int32_t)reader_u32(&r);
    c->got_count = 0;
    for (int32_t i = 0; i < topics && error == 0 && reader_ok(&r); i++) {
        reader_take(&r, reader_u16(&r));
        int32_t partitions = (int32_t)reader_u32(&r);
        for (int32_t k = 0; k < partitions && error == 0; k++) {
            struct fetched f;
            if (c->got_count == c->count || !fetched_read(c, &r, &f, &error))
                return client_socket_fail(&c->link.wire.socket, "the answer to Fetch cannot be read");
            f.offset = c->offsets[f.idx];
            c->offsets[f.idx] = bench_kafka_reading_end(f.records, f.offset);
            if (l->o->again && c->offsets[f.idx] >= f.visible_end)
                c->offsets[f.idx] = c->first[f.idx];
            c->got[c->got_count++] = f;
        }
    }
    if (error != 0)
        return bench_kafka_refused(&c->link.wire, "a fetch was refused", error);
    return reader_ok(&r) ? 0 : client_socket_fail(&c->link.wire.socket, "the answer to Fetch cannot be read");
}

static bool consumers_enough(const struct loop *l)
{
    return l->o->producers == 0 && l->o->records > 0 && l->reading.records >= l->o->records;
}

static int consumer_read(struct loop *l, struct consumer *c)
{
    struct slice frame;
    ssize_t n = client_socket_fill(&c->link.wire.socket);
    if (n <= 0)
        return (int)n;
    int got = bench_kafka_frame_next(&c->link.wire, &frame);
    if (got <= 0)
        return got;
    uint64_t now_ns = client_clock_ns();
    if (consumer_take_apart(l, c, frame) != 0 || consumer_ask_new(l, c, now_ns) != 0)
        return -1;
    l->reading.transit = l->phases.measuring ? l->transit : NULL;
    for (int32_t i = 0; i < c->got_count; i++) {
        uint64_t before = l->reading.records;
        if (consumers_enough(l)) { /* what nobody looks at any more is not committed */
            c->offsets[c->got[i].idx] = c->got[i].offset;
            continue;
        }
        bench_kafka_reading_take(&l->reading, c->got[i].records, c->got[i].offset, now_ns);
        if (l->reading.records > before)
            l->last_consume_ns = now_ns;
    }
    return 0;
}

/* ---- the loop ---- */

static void loop_progress(struct loop *l, const struct counters *now, uint64_t now_ns)
{
    const struct counters *last = &l->progress_last;
    double seconds = (double)(now_ns - l->progress_at_ns) / 1e9;
    const char *phase = now_ns < l->phases.from_ns ? "warm-up" : producers_stopping(l, now_ns) ? "drain" : "measured";
    fprintf(stderr,
            "\r%6.1f s %-8s produced %9.0f/s  acknowledged %9.0f/s  consumed %9.0f/s  %7.1f MB/s in, %7.1f out ",
            (double)(now_ns - l->phases.start_ns) / 1e9, phase, (double)(now->produced - last->produced) / seconds,
            (double)(now->acked - last->acked) / seconds, (double)(now->consumed - last->consumed) / seconds,
            (double)(now->batch_bytes - last->batch_bytes) / 1e6 / seconds,
            (double)(now->fetched_bytes - last->fetched_bytes) / 1e6 / seconds);
    l->progress_last = *now;
    l->progress_at_ns = now_ns;
}

static bool producers_done(const struct loop *l, uint64_t now_ns)
{
    for (unsigned i = 0; i < l->o->producers; i++) {
        const struct producer *p = &l->producers[i];
        bool finished = p->requests >= p->limit || producers_stopping(l, now_ns);
        if (!finished || p->load.at < p->load.end || p->answered < p->requests)
            return false;
    }
    return true;
}

/* Is there nothing left to do, or no hope? */
static bool loop_done(struct loop *l, const struct counters *c, uint64_t now_ns)
{
    bool produced = producers_done(l, now_ns), consumed = true;
    if (l->o->consumers > 0 && l->o->producers > 0)
        consumed = c->consumed - l->reading.foreign >= c->acked;
    else if (l->o->consumers > 0)
        consumed = bench_phases_stopping(&l->phases, now_ns) || consumers_enough(l);
    if (produced && consumed)
        return true;
    return bench_phases_stalled(&l->phases, c->produced + c->acked + c->consumed - l->reading.foreign, l->o->drain_s,
                                now_ns);
}

static int loop_wait(struct loop *l, struct epoll_event *events, bool go_on, uint64_t now_ns)
{
    uint64_t wait_ns = go_on ? 0 : (uint64_t)WAIT_MAX_MS * BENCH_NS_PER_MS;
    for (unsigned i = 0; i < l->o->producers && l->o->rate > 0; i++)
        wait_ns = bench_pace_wait(&l->producers[i].pace, l->producers[i].requests, now_ns, wait_ns);
    if (now_ns < l->phases.to_ns && l->phases.to_ns - now_ns < wait_ns)
        wait_ns = l->phases.to_ns - now_ns;
    struct timespec timeout = {.tv_nsec = (long)wait_ns};
    return epoll_pwait2(l->epoll, events, EVENTS_MAX, &timeout, NULL);
}

static int consumer_event(struct loop *l, struct consumer *c, uint32_t events)
{
    if ((events & EPOLLOUT) != 0 && consumer_ask(l, c, client_clock_ns()) != 0)
        return -1;
    return (events & ~(uint32_t)EPOLLOUT) != 0 ? consumer_read(l, c) : 0;
}

static int loop_event(struct loop *l, struct link *k, uint32_t events)
{
    struct bench_histogram *commits = l->phases.measuring ? l->commits : NULL;
    bool readable = (events & ~(uint32_t)EPOLLOUT) != 0;
    switch (k->kind) {
    case PRODUCER:
        if (readable && producer_read(l, (struct producer *)k) != 0)
            return loop_fail(l, "producer", k->wire.socket.error);
        break;
    case CONSUMER:
        if (consumer_event(l, (struct consumer *)k, events) != 0)
            return loop_fail(l, "consumer", k->wire.socket.error);
        break;
    case MEMBER:
        if (bench_kafka_group_read(l->group, ((struct membership *)k)->idx, commits) != 0)
            return loop_fail(l, "group", bench_kafka_group_error(l->group));
        break;
    }
    return 0;
}

/* Members say how far they are. What they have taken apart they have looked at, in the same event. */
static int loop_tick(struct loop *l, uint64_t now_ns)
{
    if (l->group == NULL || now_ns - l->ticked_at_ns < (uint64_t)TICK_MS * BENCH_NS_PER_MS)
        return 0;
    l->ticked_at_ns = now_ns;
    for (unsigned i = 0; i < l->o->consumers; i++)
        if (bench_kafka_group_tick(l->group, i, l->consumers[i].offsets, now_ns) != 0)
            return loop_fail(l, "group", bench_kafka_group_error(l->group));
    return 0;
}

/* Answers 1 when some producer could go on at once. */
static int loop_publish(struct loop *l, uint64_t now_ns)
{
    struct timespec wall;
    int go_on = 0;
    clock_gettime(CLOCK_REALTIME, &wall);
    int64_t wall_ms = (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / BENCH_NS_PER_MS;
    for (unsigned i = 0; i < l->o->producers; i++) {
        int more = producer_publish(l, &l->producers[i], now_ns, wall_ms);
        if (more < 0)
            return loop_fail(l, "producer", l->producers[i].link.wire.socket.error);
        go_on |= more;
    }
    return go_on;
}

static void loop_run(struct loop *l)
{
    struct epoll_event events[EVENTS_MAX];
    prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);
    l->progress_at_ns = l->phases.start_ns;
    while (!l->failed) {
        uint64_t now_ns = client_clock_ns();
        struct counters c = loop_count(l);
        if (bench_interrupted())
            bench_phases_cut(&l->phases, now_ns);
        enum bench_phase_change change = bench_phases_step(&l->phases, now_ns);
        if (change == BENCH_PHASE_BEGUN)
            l->at_start = c;
        else if (change == BENCH_PHASE_ENDED)
            l->at_end = c;
        if (loop_done(l, &c, now_ns))
            break;
        int go_on = loop_publish(l, now_ns);
        if (go_on < 0)
            break;
        int n = loop_wait(l, events, go_on > 0, now_ns);
        if (n < 0 && errno != EINTR)
            loop_fail(l, "epoll", strerror(errno));
        for (int i = 0; i < n && !l->failed; i++)
            loop_event(l, events[i].data.ptr, events[i].events);
        if (!l->failed)
            loop_tick(l, now_ns);
        if (l->o->progress && now_ns - l->progress_at_ns > (uint64_t)PROGRESS_MS * BENCH_NS_PER_MS)
            loop_progress(l, &c, now_ns);
    }
    if (bench_phases_end(&l->phases, client_clock_ns()))
        l->at_end = loop_count(l);
    if (l->o->progress)
        fputs("\r\033[K", stderr);
}

/* ---- set-up ---- */

/* A broker that has just started loads its coordinator's state first, and says so. */
static int producer_identify(struct bench_kafka_wire *w, struct bench_kafka_shape *shape)
{
    struct kafka_init_producer_id_request ask = {.transaction_timeout_ms = 60000};
    uint64_t from_ns = client_clock_ns();
    for (;;) {
        void *found;
        if (bench_kafka_ask(w, KAFKA_API_init_producer_id, &ask, &found) != 0)
            return -1;
        const struct kafka_init_producer_id_response *answer = found;
        shape->producer_id = answer->producer_id;
        shape->producer_epoch = answer->producer_epoch;
        if (answer->error_code == 0)
            return 0;
        if (!kafka_error_row(answer->error_code)->retriable || bench_seconds_since(from_ns) > BENCH_ANSWER_TIMEOUT_S)
            return bench_kafka_refused(w, "InitProducerId", answer->error_code);
        poll(NULL, 0, IDENTIFY_AGAIN_MS);
    }
}

static int producer_open(struct loop *l, struct producer *p, unsigned idx)
{
    const struct bench_kafka_options *o = l->o;
    char topic[BENCH_TOPIC_BYTES];
    struct bench_kafka_shape shape = {.topic = topic,
                                      .record_bytes = o->record_bytes,
                                      .records = o->batch,
                                      .acks = o->acks,
                                      .compression = o->compression,
                                      .level = o->level,
                                      .prebuilt = o->prebuilt,
                                      .run_id = o->run_id,
                                      .producer_id = -1,
                                      .slots_max = o->window};
    struct bench_kafka_wire *w = &p->link.wire;
    bench_kafka_topic_name(o, idx % o->topics, topic);
    p->idx = idx;
    p->parts = bench_zeroed((size_t)l->partitions, sizeof(*p->parts));
    p->part_next = (int32_t)(idx / o->topics % (unsigned)l->partitions);
    if (bench_kafka_open(w, &o->server) != 0 || (o->idempotent && producer_identify(w, &shape) != 0))
        return -1;
    if (bench_kafka_load_init(&p->load, &shape) != 0)
        return client_socket_fail(&w->socket, "no memory for batches of %u records of %zu bytes", o->batch,
                                  o->record_bytes);
    uint64_t ring = 2;
    while (ring < o->window)
        ring *= 2;
    p->ring_mask = ring - 1;
    p->sent = bench_zeroed(ring, sizeof(*p->sent));
    uint64_t requests = (o->records + o->batch - 1) / o->batch;
    p->limit = o->records == 0 ? UINT64_MAX : requests / o->producers + (idx < requests % o->producers);
    client_socket_nonblocking(&w->socket, true);
    return 0;
}

/* The request, whose entries end 6 bytes before its end: no forgotten topics (4), no rack (2). */
static int consumer_prepare(const struct bench_kafka_options *o, struct consumer *c, const char *topic)
{
    const struct kafka_api *api = kafka_api_find(KAFKA_API_fetch);
    struct kafka_form form = kafka_api_form(api, BENCH_KAFKA_FETCH_VERSION);
    struct kafka_fetch_request_partition *rows = bench_zeroed((size_t)c->count, sizeof(*rows));
    struct kafka_fetch_request_topic named = {.topic = slice_str(topic)};
    struct kafka_fetch_request ask = {.replica_id = -1,
                                      .max_wait_ms = o->fetch_wait_ms,
                                      .min_bytes = o->fetch_min,
                                      .max_bytes = o->fetch_max,
                                      .session_epoch = -1,
                                      .rack_id = slice_str("")};
    for (int32_t i = 0; i < c->count; i++)
        rows[i] = (struct kafka_fetch_request_partition){.partition = c->partitions[i],
                                                         .current_leader_epoch = -1,
                                                         .log_start_offset = -1,
                                                         .partition_max_bytes = o->partition_max};
    named.partitions.at = rows;
    named.partitions.count = c->count;
    ask.topics.at = &named;
    ask.topics.count = 1;
    size_t room = 1024 + (size_t)c->count * FETCH_ENTRY_BYTES;
    c->ask = bench_zeroed(1, room);
    struct writer w = writer_of(c->ask, room);
    size_t mark = kafka_request_begin(&w, api, form, 0, slice_str(BENCH_KAFKA_CLIENT));
    kafka_encode(&w, api->request, form, &ask, NULL);
    kafka_request_end(&w, mark);
    c->ask_len = w.len;
    c->entries_at = w.len - 6 - (size_t)c->count * FETCH_ENTRY_BYTES;
    free(rows);
    return writer_ok(&w) ? 0 : client_socket_fail(&c->link.wire.socket, "a name is too long for Fetch");
}

static void consumer_take_share(struct loop *l, struct consumer *c, unsigned idx)
{
    const int32_t *share = bench_kafka_group_share(l->group, idx, &c->count);
    memcpy(c->partitions, share, (size_t)c->count * sizeof(*share));
}

/* Where the group has come to; what it never committed stays as it is. */
static int consumer_take_committed(struct loop *l, struct consumer *c, unsigned idx)
{
    int64_t *offsets = bench_zeroed((size_t)c->count, sizeof(*offsets));
    int failed = bench_kafka_group_committed(l->group, idx, offsets);
    for (int32_t i = 0; i < c->count && failed == 0; i++)
        if (offsets[i] >= 0)
            c->offsets[i] = offsets[i];
    free(offsets);
    return failed;
}

/* Consumers take turns with the topics, and those of a topic with its partitions. */
static int consumer_open(struct loop *l, struct consumer *c, unsigned idx)
{
    const struct bench_kafka_options *o = l->o;
    char topic[BENCH_TOPIC_BYTES];
    unsigned peers = (o->consumers - idx % o->topics + o->topics - 1) / o->topics;
    bench_kafka_topic_name(o, idx % o->topics, topic);
    c->link.kind = CONSUMER;
    c->partitions = bench_zeroed((size_t)l->partitions, sizeof(*c->partitions));
    c->offsets = bench_zeroed((size_t)l->partitions, sizeof(*c->offsets));
    c->first = bench_zeroed((size_t)l->partitions, sizeof(*c->first));
    c->got = bench_zeroed((size_t)l->partitions, sizeof(*c->got));
    if (l->group != NULL)
        consumer_take_share(l, c, idx);
    for (int32_t i = (int32_t)(idx / o->topics); i < l->partitions && l->group == NULL; i += (int32_t)peers)
        c->partitions[c->count++] = i;
    if (bench_kafka_open(&c->link.wire, &o->server) != 0)
        return -1;
    if (bench_kafka_offsets(&c->link.wire, topic, c->partitions, c->count, o->from_first ? -2 : -1, c->offsets) != 0)
        return -1;
    if (l->group != NULL && consumer_take_committed(l, c, idx) != 0)
        return client_socket_fail(&c->link.wire.socket, "%s", bench_kafka_group_error(l->group));
    memcpy(c->first, c->offsets, (size_t)c->count * sizeof(*c->first));
    if (consumer_prepare(o, c, topic) != 0)
        return -1;
    client_socket_nonblocking(&c->link.wire.socket, true);
    return 0;
}

/* Producers need no offsets, but a partition's leader has to be ready when the first batch comes. */
static int leaders_await(struct loop *l)
{
    struct bench_kafka_wire w;
    char topic[BENCH_TOPIC_BYTES];
    int32_t *partitions = bench_zeroed((size_t)l->partitions, sizeof(*partitions));
    int64_t *offsets = bench_zeroed((size_t)l->partitions, sizeof(*offsets));
    for (int32_t i = 0; i < l->partitions; i++)
        partitions[i] = i;
    int failed = bench_kafka_open(&w, &l->o->server);
    for (unsigned i = 0; i < l->o->topics && failed == 0; i++) {
        bench_kafka_topic_name(l->o, i, topic);
        failed = bench_kafka_offsets(&w, topic, partitions, l->partitions, -1, offsets);
    }
    if (failed != 0)
        bench_fail("waiting for leaders", w.socket.error);
    bench_kafka_close(&w);
    free(partitions);
    free(offsets);
    return failed;
}

static int group_open(struct loop *l)
{
    uint64_t from_ns = client_clock_ns();
    if (l->o->group == NULL)
        return 0;
    l->group = bench_kafka_group_new(l->o, l->o->topic, l->partitions);
    if (bench_kafka_group_join(l->group) != 0)
        return loop_fail(l, "group", bench_kafka_group_error(l->group));
    l->joined_s = bench_seconds_since(from_ns);
    return 0;
}

static int links_open(struct loop *l)
{
    for (unsigned i = 0; i < l->o->consumers; i++)
        if (consumer_open(l, &l->consumers[i], i) != 0)
            return loop_fail(l, "consumer", l->consumers[i].link.wire.socket.error);
    for (unsigned i = 0; i < l->o->producers; i++)
        if (producer_open(l, &l->producers[i], i) != 0)
            return loop_fail(l, "producer", l->producers[i].link.wire.socket.error);
    return 0;
}

static void links_close(struct loop *l)
{
    for (unsigned i = 0; i < l->o->producers; i++) {
        struct producer *p = &l->producers[i];
        bench_kafka_close(&p->link.wire);
        bench_kafka_load_fini(&p->load);
        free(p->parts);
        free(p->sent);
    }
    for (unsigned i = 0; i < l->o->consumers; i++) {
        struct consumer *c = &l->consumers[i];
        bench_kafka_close(&c->link.wire);
        free(c->partitions);
        free(c->offsets);
        free(c->first);
        free(c->got);
        free(c->ask);
    }
}

static void loop_adopt(struct loop *l, struct link *k, int fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = k};
    epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &e);
}

static int loop_start(struct loop *l)
{
    const struct bench_kafka_options *o = l->o;
    uint64_t start_ns = client_clock_ns();
    bench_phases_plan(&l->phases, start_ns, o->warmup_s, o->duration_s, o->records > 0);
    for (unsigned i = 0; i < o->producers; i++) {
        l->producers[i].pace = bench_pace_of(o->rate / o->batch, i, o->producers, start_ns);
        loop_adopt(l, &l->producers[i].link, l->producers[i].link.wire.socket.fd);
    }
    for (unsigned i = 0; i < o->consumers; i++) {
        loop_adopt(l, &l->consumers[i].link, l->consumers[i].link.wire.socket.fd);
        l->memberships[i] = (struct membership){.link.kind = MEMBER, .idx = i};
        if (l->group != NULL)
            loop_adopt(l, &l->memberships[i].link, bench_kafka_group_fd(l->group, i));
        if (consumer_ask_new(l, &l->consumers[i], start_ns) != 0)
            return loop_fail(l, "consumer", l->consumers[i].link.wire.socket.error);
    }
    return 0;
}

/* ---- results ---- */

/* With --records a rate ends when its own last record did, otherwise with the measured phase. */
static double loop_rate(const struct loop *l, uint64_t count, uint64_t last_ns)
{
    return bench_rate(count, l->phases.measured_from_ns, l->o->records > 0 ? last_ns : l->phases.measured_to_ns);
}

static void report_rates(struct bench_report *r, const struct loop *l)
{
    const struct bench_kafka_options *o = l->o;
    const struct counters *a = &l->at_start, *b = &l->at_end;
    uint64_t acked = b->acked - a->acked, consumed = b->consumed - a->consumed;
    uint64_t until_ns = o->acks == 0 ? l->phases.measured_to_ns : l->last_ack_ns;
    if (o->producers > 0) {
        bench_report_number(r, "produce", "records", (double)acked, "");
        bench_report_number(r, "produce", "rate", loop_rate(l, acked, until_ns), "records/s");
        bench_report_number(r, "produce", "requests_rate", loop_rate(l, acked, until_ns) / o->batch, "/s");
        bench_report_number(r, "produce", "value_mb_s", loop_rate(l, acked * o->record_bytes, until_ns) / 1e6, "MB/s");
        bench_report_number(r, "produce", "mb_s", loop_rate(l, b->batch_bytes - a->batch_bytes, until_ns) / 1e6,
                            "MB/s");
        bench_report_number(r, "produce", "batch_bytes", (double)b->batch_bytes, "");
    }
    bench_report_latency(r, "acks latency", l->acks);
    if (o->consumers > 0) {
        uint64_t bytes = b->fetched_bytes - a->fetched_bytes, fetches = b->fetches - a->fetches;
        bench_report_number(r, "consume", "records", (double)consumed, "");
        bench_report_number(r, "consume", "rate", loop_rate(l, consumed, l->last_consume_ns), "records/s");
        bench_report_number(r, "consume", "mb_s", loop_rate(l, bytes, l->last_consume_ns) / 1e6, "MB/s");
        bench_report_number(r, "consume", "fetches_rate", loop_rate(l, fetches, l->last_consume_ns), "/s");
        bench_report_number(r, "consume", "batch_bytes", (double)b->fetched_bytes, "");
    }
    bench_report_latency(r, "end to end", l->transit);
    if (l->group != NULL) {
        bench_report_number(r, "group", "joined_s", l->joined_s, "");
        bench_report_number(r, "group", "generation", bench_kafka_group_generation(l->group), "");
        bench_report_number(r, "group", "commits", (double)bench_histogram_count(l->commits), "");
    }
    bench_report_latency(r, "commit latency", l->commits);
    uint64_t cpu_ns = l->phases.cpu_to_ns - l->phases.cpu_from_ns, records = acked + consumed;
    bench_report_number(r, "load generator", "measured_s",
                        (double)(l->phases.measured_to_ns - l->phases.measured_from_ns) / 1e9, "");
    bench_report_number(r, "load generator", "cpu_s", (double)cpu_ns / 1e9, "");
    bench_report_number(r, "load generator", "cpu_ns_per_record", records > 0 ? (double)cpu_ns / (double)records : 0,
                        "");
}

static const char *order_text(const struct loop *l)
{
    if (l->reading.streams > 0)
        return "checked by stamps and offsets";
    return l->o->consumers > 0 ? "checked by offsets" : "not checked, nobody reads";
}

/* Answers the exit code: losses, doubles and disorder are failures. */
static int report_checks(struct bench_report *r, struct loop *l)
{
    const struct bench_kafka_options *o = l->o;
    struct counters c = loop_count(l);
    uint64_t backwards = 0, missing = 0;
    for (unsigned i = 0; i < o->producers; i++) {
        const struct producer *p = &l->producers[i];
        backwards += p->backwards;
        for (int32_t k = 0; k < l->partitions && l->reading.streams > 0; k++)
            bench_order_finish(l->reading.order, i * (unsigned)l->partitions + (unsigned)k, p->parts[k].seq, 0);
    }
    const struct bench_order_tally *t = bench_order_peek(l->reading.order);
    uint64_t unacked = c.produced - c.acked, wanted = o->producers > 0 ? c.acked : o->records;
    if (l->reading.streams > 0)
        missing = t->missing;
    else if (o->consumers > 0 && c.consumed < wanted && (o->producers > 0 || !l->phases.cut))
        missing = wanted - c.consumed;
    bench_report_number(r, "checks", "missing", (double)missing, "");
    bench_report_number(r, "checks", "duplicates", (double)t->duplicates, "");
    bench_report_number(r, "checks", "reordered", (double)t->reordered, "");
    bench_report_number(r, "checks", "offset_gaps", (double)l->reading.gaps, "");
    bench_report_number(r, "checks", "offset_repeats", (double)l->reading.repeats, "");
    bench_report_number(r, "checks", "damaged_batches", (double)l->reading.damaged, "");
    bench_report_number(r, "checks", "acks_backwards", (double)backwards, "");
    bench_report_number(r, "checks", "unacknowledged", (double)unacked, "");
    bench_report_number(r, "checks", "foreign", (double)l->reading.foreign, "");
    bench_report_text(r, "checks", "order", order_text(l));
    uint64_t wrong = missing + t->duplicates + t->reordered + l->reading.gaps + l->reading.repeats +
                     l->reading.damaged + backwards + unacked;
    return wrong > 0 ? BENCH_EXIT_VIOLATION : BENCH_EXIT_OK;
}

static int loop_init(struct loop *l, const struct bench_kafka_options *o)
{
    bool stamped = !o->prebuilt && o->record_bytes >= BENCH_STAMP_BYTES && o->check == BENCH_CHECK_RECORDS;
    l->o = o;
    l->producers = bench_zeroed(o->producers, sizeof(*l->producers));
    l->consumers = bench_zeroed(o->consumers, sizeof(*l->consumers));
    for (unsigned i = 0; i < o->producers; i++)
        l->producers[i].link.wire.socket.fd = -1;
    for (unsigned i = 0; i < o->consumers; i++)
        l->consumers[i].link.wire.socket.fd = -1;
    l->acks = bench_histogram_new();
    l->transit = bench_histogram_new();
    l->commits = bench_histogram_new();
    l->memberships = bench_zeroed(o->consumers, sizeof(*l->memberships));
    l->reading.check = o->check;
    l->reading.run_id = o->run_id;
    l->reading.streams = stamped && o->consumers > 0 ? o->producers * (unsigned)l->partitions : 0;
    l->reading.order = bench_order_new(l->reading.streams, 1);
    if (bench_kafka_reading_init(&l->reading) != 0)
        return loop_fail(l, "starting", "out of memory");
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    return l->epoll < 0 ? loop_fail(l, "epoll", strerror(errno)) : 0;
}

static void loop_fini(struct loop *l)
{
    if (l->epoll >= 0)
        close(l->epoll);
    bench_histogram_free(l->acks);
    bench_histogram_free(l->transit);
    bench_histogram_free(l->commits);
    bench_kafka_group_free(l->group);
    free(l->memberships);
    bench_order_free(l->reading.order);
    bench_kafka_reading_fini(&l->reading);
    free(l->producers);
    free(l->consumers);
}

int bench_kafka_run(const struct bench_kafka_options *o, struct bench_report *r)
{
    struct loop l = {.epoll = -1};
    if (bench_kafka_set_up(o, &l.partitions) != 0)
        return BENCH_EXIT_FAILED;
    int code = BENCH_EXIT_FAILED;
    if (loop_init(&l, o) == 0 && leaders_await(&l) == 0 && group_open(&l) == 0 && links_open(&l) == 0 &&
        loop_start(&l) == 0) {
        loop_run(&l);
        for (unsigned i = 0; i < o->consumers && l.group != NULL && !l.failed; i++)
            if (bench_kafka_group_leave(l.group, i, l.consumers[i].offsets) != 0)
                loop_fail(&l, "group", bench_kafka_group_error(l.group));
        report_rates(r, &l);
        code = report_checks(r, &l);
    }
    if (l.failed)
        code = BENCH_EXIT_FAILED;
    links_close(&l);
    loop_fini(&l);
    int tidy = bench_kafka_tear_down(o);
    return code != 0 ? code : tidy;
}
