/* The publish-consume scenario: producers and consumers on one epoll loop (or one loop each with --threads 2).
 *
 * The generator shares its machine with the server it measures, so its cost per message is what limits the measurement:
 * no system call, allocation or clock read happens per message. One round of a loop is: wait → one read per ready
 * connection, parsed in place → one batch per producer that has room, stamped in pre-encoded slots and written at once.
 * All messages of a batch carry one send time and all of a read one arrival time, both on the pessimistic side: a message
 * is stamped before it is written and its arrival counted after the read returned.
 *
 * Latency under --rate counts from the time a message was due whenever the server held the producer (full window, full
 * socket, connection.blocked); otherwise a stalled server would hide its stall (coordinated omission).
 *
 * Phases by the clock: warm-up, measured, drain. Rates are differences of counters between the two ends of the measured
 * phase; latencies are recorded inside it only. With --messages everything from the first publish to the last delivery is
 * measured. Draining ends when everything published was confirmed and received, or nothing moved for drain_s.
 *
 * Threads: with two loops, producers live on the caller's thread, consumers on a second one. They share only the relaxed
 * counters in struct shared. bench_order belongs to the consumers' loop.
 *
 * Without producers the messages are those of an earlier run, which is what is wanted then and not foreign: each consumer
 * checks for itself that numbers rise, and stops after --messages of them. There is no latency to measure, the clock they
 * were stamped with may be that of another boot.
 */
#include "amqp_int.h"
#include "main/client/clock.h"
#include "order.h"
#include "pace.h"
#include "phases.h"
#include "reading.h"
#include "stamp.h"
#include "template.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    IN_BYTES = 256 * 1024,
    ACK_BYTES = 64 * 1024,
    ACK_FRAME_BYTES = 21,
    EVENTS_MAX = 128,
    WAIT_MAX_MS = 100,
    PROGRESS_MS = 500,
};

/* ---- types ---- */

struct link {
    struct bench_wire wire;
    bool is_consumer;
    bool writable_wanted;
};

struct producer {
    struct link link; /* first: epoll hands out links */
    struct bench_template template;
    size_t out_at, out_end; /* the part of the slots still to be written */
    uint64_t published;
    uint64_t limit;   /* publishes of this producer; UINT64_MAX: by the clock */
    uint64_t lowest;  /* smallest unsettled number */
    uint64_t settled; /* confirmed or nacked */
    uint64_t nacked;
    uint64_t returned;
    uint64_t *sent_ns; /* ring by number; 0: settled */
    uint64_t ring_mask;
    struct bench_pace pace;
};

struct consumer {
    struct link link;
    unsigned idx;
    uint64_t tag;
    bool redelivered;
    bool in_content;    /* between basic.deliver and the end of its body */
    bool stamp_awaited; /* the next body frame starts the body */
    uint64_t body_left;
    uint64_t received;
    uint64_t acked_tag;
    bool finished;                   /* took `limit`, its socket is not watched any more */
    bool paused;                     /* acks do not leave, so nothing is parsed */
    uint64_t run_sent_ns, run_count; /* equal send times not yet in the histogram */
    uint64_t limit;                  /* deliveries it takes; UINT64_MAX: by the clock */
    uint64_t last_ns;                /* when it took its last */
    uint64_t at_start, at_end;       /* received, at both ends of the measured phase */
    struct bench_reading reading;    /* without producers */
    uint8_t acks[ACK_BYTES];
    size_t ack_at, ack_end;
};

struct counters {
    uint64_t published, confirmed, consumed;
};

/* What both loops see of each other. */
struct shared {
    _Atomic uint64_t published, confirmed, refused, consumed;
    _Atomic bool producers_done;
    _Atomic bool failed;
};

struct loop {
    const struct bench_options *o;
    struct shared *shared;
    int epoll;
    unsigned producer_count, consumer_count;
    struct producer *producers;
    struct consumer *consumers;
    bool reports_progress;
    struct bench_phases phases;
    struct counters at_start, at_end;
    uint64_t last_publish_ns, last_confirm_ns, last_consume_ns;
    uint64_t ticked_at_ns, progress_at_ns;
    struct counters progress_last;
    struct bench_histogram *confirm_latency, *transit;
    struct bench_order *order;
    uint64_t consumed, foreign;
    char error[640];
};

static int loop_fail(struct loop *l, const char *who, const char *why)
{
    if (l->error[0] == '\0')
        snprintf(l->error, sizeof(l->error), "%s: %s", who, why);
    atomic_store(&l->shared->failed, true);
    return -1;
}

/* ---- counting ---- */

static struct counters loop_count(const struct loop *l)
{
    struct counters c = {.consumed = l->consumed};
    for (unsigned i = 0; i < l->producer_count; i++) {
        c.published += l->producers[i].published;
        c.confirmed += l->producers[i].settled - l->producers[i].nacked;
    }
    return c;
}

static void loop_publish_counters(struct loop *l, const struct counters *c)
{
    if (l->consumer_count > 0)
        atomic_store_explicit(&l->shared->consumed, c->consumed, memory_order_relaxed);
    if (l->producer_count == 0)
        return;
    uint64_t refused = 0;
    for (unsigned i = 0; i < l->producer_count; i++)
        refused += l->producers[i].nacked + l->producers[i].returned;
    atomic_store_explicit(&l->shared->published, c->published, memory_order_relaxed);
    atomic_store_explicit(&l->shared->confirmed, c->confirmed, memory_order_relaxed);
    atomic_store_explicit(&l->shared->refused, refused, memory_order_relaxed);
}

/* ---- the socket ---- */

static void link_watch(struct loop *l, struct link *k, bool writable_wanted)
{
    if (k->writable_wanted == writable_wanted)
        return;
    k->writable_wanted = writable_wanted;
    struct epoll_event e = {.events = EPOLLIN | (writable_wanted ? EPOLLOUT : 0u), .data.ptr = k};
    epoll_ctl(l->epoll, EPOLL_CTL_MOD, k->wire.socket.fd, &e);
}

/* ---- producers ---- */

static bool producers_stopping(const struct loop *l, uint64_t now_ns)
{
    return bench_phases_stopping(&l->phases, now_ns);
}

/* How many messages the server lets this producer have in flight beyond what is. */
static uint64_t producer_room(const struct loop *l, const struct producer *p)
{
    if (p->link.wire.blocked)
        return 0;
    if (l->o->window == 0)
        return UINT64_MAX;
    uint64_t in_flight = p->published - p->settled;
    uint64_t span = p->published + 1 - p->lowest;
    if (in_flight >= l->o->window || span > p->ring_mask)
        return 0;
    uint64_t room = l->o->window - in_flight, ring_room = p->ring_mask + 1 - span;
    return room < ring_room ? room : ring_room;
}

static void producer_stamp(struct loop *l, struct producer *p, size_t count, uint64_t now_ns)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t sent_ns = bench_pace_stamp(&p->pace, p->published, now_ns);
        p->published++;
        bench_template_stamp(&p->template, i, p->published, sent_ns);
        if (l->o->window > 0)
            p->sent_ns[p->published & p->ring_mask] = sent_ns;
    }
    p->out_at = 0;
    p->out_end = count * p->template.slot_len;
}

/* Sends one batch if it may. Answers 1 when it could go on at once, 0 when it must wait, -1 at an error. */
static int producer_publish(struct loop *l, struct producer *p, uint64_t now_ns)
{
    uint64_t due = bench_pace_due(&p->pace, p->published, now_ns);
    int done = client_socket_write(&p->link.wire.socket, p->template.slots, &p->out_at, p->out_end, now_ns);
    if (done > 0 && !producers_stopping(l, now_ns) && p->published < p->limit) {
        uint64_t left = p->limit - p->published, room = producer_room(l, p);
        uint64_t count = due < left ? due : left;
        if (room < count)
            count = room;
        if (count > p->template.slot_count)
            count = p->template.slot_count;
        if (count > 0) {
            producer_stamp(l, p, (size_t)count, now_ns);
            done = client_socket_write(&p->link.wire.socket, p->template.slots, &p->out_at, p->out_end, now_ns);
            l->last_publish_ns = client_clock_ns();
        }
        p->pace.held = p->pace.interval_ns > 0 && bench_pace_due(&p->pace, p->published, now_ns) > 0;
        link_watch(l, &p->link, done == 0);
        return done <= 0 ? done : count > 0 && count < room && count < left && count < due;
    }
    p->pace.held = p->pace.interval_ns > 0 && due > 0;
    link_watch(l, &p->link, done == 0);
    return done < 0 ? -1 : 0;
}

static int producer_settle(struct loop *l, struct producer *p, const struct bench_frame *f, bool nack, uint64_t now_ns)
{
    if (f->len < 13)
        return bench_wire_frame_bad(&p->link.wire);
    uint64_t tag = bench_get_u64(f->payload + 4);
    bool multiple = (f->payload[12] & 1) != 0;
    if (tag == 0 && multiple)
        tag = p->published;
    if (tag == 0 || tag > p->published || l->o->window == 0) {
        snprintf(p->link.wire.socket.error, sizeof(p->link.wire.socket.error),
                 "the server confirmed number %llu, never published", (unsigned long long)tag);
        return -1;
    }
    uint64_t run_ns = 0, run_count = 0;
    for (uint64_t seq = multiple ? p->lowest : tag; seq >= p->lowest && seq <= tag; seq++) {
        uint64_t *sent_ns = &p->sent_ns[seq & p->ring_mask];
        if (*sent_ns == 0)
            continue;
        if (*sent_ns != run_ns && run_count > 0) {
            if (l->phases.measuring)
                bench_histogram_add(l->confirm_latency, now_ns - run_ns, run_count);
            run_count = 0;
        }
        run_ns = *sent_ns;
        run_count++;
        p->settled++;
        p->nacked += nack;
        *sent_ns = 0;
    }
    if (run_count > 0 && l->phases.measuring && !nack)
        bench_histogram_add(l->confirm_latency, now_ns - run_ns, run_count);
    while (p->lowest <= p->published && p->sent_ns[p->lowest & p->ring_mask] == 0)
        p->lowest++;
    l->last_confirm_ns = now_ns;
    return 0;
}

static int producer_read(struct loop *l, struct producer *p)
{
    struct bench_frame f;
    int got;
    ssize_t n = client_socket_fill(&p->link.wire.socket);
    if (n <= 0)
        return (int)n;
    uint64_t now_ns = client_clock_ns();
    p->link.wire.read_at_ns = now_ns;
    while ((got = bench_wire_frame_next(&p->link.wire, &f)) > 0) {
        if (f.type != BENCH_FRAME_METHOD)
            continue; /* heartbeats, and the content of returned messages */
        enum bench_method method = bench_frame_method(&f);
        int failed = 0;
        if (method == BENCH_BASIC_ACK || method == BENCH_BASIC_NACK)
            failed = producer_settle(l, p, &f, method == BENCH_BASIC_NACK, now_ns);
        else if (method == BENCH_BASIC_RETURN)
            p->returned++;
        else
            failed = bench_wire_on_method(&p->link.wire, method, &f);
        if (failed != 0)
            return -1;
    }
    return got;
}

/* ---- consumers ---- */

static int consumer_flush(struct loop *l, struct consumer *c, uint64_t now_ns)
{
    int done = client_socket_write(&c->link.wire.socket, c->acks, &c->ack_at, c->ack_end, now_ns);
    if (done > 0)
        c->ack_at = c->ack_end = 0;
    link_watch(l, &c->link, done == 0);
    return done < 0 ? -1 : 0;
}

static void consumer_ack(struct consumer *c, uint64_t tag, bool multiple)
{
    static const uint8_t ACK[ACK_FRAME_BYTES] = {
        BENCH_FRAME_METHOD, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80, [ACK_FRAME_BYTES - 1] = BENCH_FRAME_END};
    uint8_t *p = c->acks + c->ack_end;
    memcpy(p, ACK, sizeof(ACK));
    bench_set_u64(p + 11, tag);
    p[19] = multiple;
    c->ack_end += sizeof(ACK);
    c->acked_tag = tag;
}

static void consumer_record_run(struct loop *l, struct consumer *c, uint64_t now_ns)
{
    if (c->run_count > 0 && l->phases.measuring)
        bench_histogram_add(l->transit, now_ns > c->run_sent_ns ? now_ns - c->run_sent_ns : 0, c->run_count);
    c->run_count = 0;
}

/* Reads what an earlier run left. */
static bool reads_only(const struct bench_options *o)
{
    return o->producers == 0 && !o->synthetic;
}

static void consumer_on_stamp(struct loop *l, struct consumer *c, const struct bench_frame *f, uint64_t now_ns)
{
    struct bench_stamp stamp;
    unsigned known = l->o->synthetic ? l->o->consumers : l->o->producers;
    if (f->len < sizeof(stamp))
        return;
    memcpy(&stamp, f->payload, sizeof(stamp));
    if (reads_only(l->o)) {
        bench_reading_note(&c->reading, &stamp, c->redelivered);
        return;
    }
    if (stamp.run_id != l->o->run_id || stamp.producer >= known || stamp.seq == 0) {
        l->foreign++;
        return;
    }
    bench_order_note(l->order, c->idx, stamp.producer, stamp.seq, c->redelivered);
    if (stamp.sent_ns != c->run_sent_ns) {
        consumer_record_run(l, c, now_ns);
        c->run_sent_ns = stamp.sent_ns;
    }
    c->run_count++;
}

static void consumer_on_complete(struct loop *l, struct consumer *c)
{
    c->in_content = false;
    c->received++;
    l->consumed++;
    if (!l->o->auto_ack && c->tag - c->acked_tag >= l->o->ack_every)
        consumer_ack(c, c->tag, l->o->ack_every > 1);
}

static int consumer_on_deliver(struct consumer *c, const struct bench_frame *f)
{
    size_t tag_at = 5u + (f->len > 4 ? f->payload[4] : 0u);
    if (f->len < tag_at + 9 || c->in_content)
        return bench_wire_frame_bad(&c->link.wire);
    c->tag = bench_get_u64(f->payload + tag_at);
    c->redelivered = (f->payload[tag_at + 8] & 1) != 0;
    c->in_content = true;
    c->body_left = UINT64_MAX; /* until the header says */
    return 0;
}

static int consumer_on_frame(struct loop *l, struct consumer *c, const struct bench_frame *f, uint64_t now_ns)
{
    switch (f->type) {
    case BENCH_FRAME_METHOD: {
        enum bench_method method = bench_frame_method(f);
        if (method == BENCH_BASIC_DELIVER)
            return consumer_on_deliver(c, f);
        return bench_wire_on_method(&c->link.wire, method, f);
    }
    case BENCH_FRAME_HEADER:
        if (f->len < 14 || !c->in_content || c->body_left != UINT64_MAX)
            return bench_wire_frame_bad(&c->link.wire);
        c->body_left = bench_get_u64(f->payload + 4);
        c->stamp_awaited = c->body_left >= BENCH_STAMP_BYTES;
        break;
    case BENCH_FRAME_BODY:
        if (!c->in_content || f->len > c->body_left || c->body_left == UINT64_MAX)
            return bench_wire_frame_bad(&c->link.wire);
        if (c->stamp_awaited)
            consumer_on_stamp(l, c, f, now_ns);
        c->stamp_awaited = false;
        c->body_left -= f->len;
        break;
    default: return 0;
    }
    if (c->body_left == 0)
        consumer_on_complete(l, c);
    return 0;
}

static int consumer_parse(struct loop *l, struct consumer *c, uint64_t now_ns)
{
    struct bench_frame f;
    int got = 1;
    c->paused = false;
    for (;;) {
        if (c->ack_end + ACK_FRAME_BYTES > ACK_BYTES) {
            if (consumer_flush(l, c, now_ns) != 0)
                return -1;
            c->paused = c->ack_end != 0;
            if (c->paused)
                break;
        }
        if (c->received >= c->limit) /* what came beyond is not acknowledged, so it stays where it was */
            break;
        got = bench_wire_frame_next(&c->link.wire, &f);
        if (got <= 0)
            break;
        if (consumer_on_frame(l, c, &f, now_ns) != 0)
            return -1;
    }
    consumer_record_run(l, c, now_ns);
    l->last_consume_ns = c->last_ns = now_ns;
    return got < 0 ? -1 : consumer_flush(l, c, now_ns);
}

/* It took its share: the socket is read no more, except to say goodbye. Acks go out first; until they have, this comes
 * again with the next event. */
static int consumer_finish(struct loop *l, struct consumer *c)
{
    if (c->ack_at == c->ack_end && !c->finished) {
        c->finished = true;
        epoll_ctl(l->epoll, EPOLL_CTL_DEL, c->link.wire.socket.fd, NULL);
    }
    return 0;
}

static int consumer_ready(struct loop *l, struct consumer *c, uint32_t events)
{
    if ((events & EPOLLOUT) != 0 && consumer_flush(l, c, client_clock_ns()) != 0)
        return -1;
    if (c->paused) {
        if (c->ack_end != 0)
            return 0;
        return consumer_parse(l, c, client_clock_ns());
    }
    if ((events & ~(uint32_t)EPOLLOUT) == 0)
        return 0;
    if (c->received >= c->limit)
        return consumer_finish(l, c);
    ssize_t n = client_socket_fill(&c->link.wire.socket);
    if (n <= 0)
        return (int)n;
    uint64_t now_ns = client_clock_ns();
    c->link.wire.read_at_ns = now_ns;
    return consumer_parse(l, c, now_ns);
}

/* ---- heartbeats, progress, phases ---- */

/* A heartbeat may go only between frames, so never while a batch is half written. */
static int link_heartbeat(struct link *k, bool between_frames, uint64_t now_ns)
{
    static const uint8_t HEARTBEAT[BENCH_FRAME_OVERHEAD] = {BENCH_FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, BENCH_FRAME_END};
    struct bench_wire *w = &k->wire;
    if (w->heartbeat_s == 0)
        return 0;
    uint64_t period_ns = w->heartbeat_s * BENCH_NS_PER_S;
    if (now_ns > w->read_at_ns && now_ns - w->read_at_ns > 2 * period_ns + BENCH_NS_PER_S) {
        snprintf(w->socket.error, sizeof(w->socket.error), "the server sent nothing for two heartbeats of %u s",
                 w->heartbeat_s);
        return -1;
    }
    if (between_frames && now_ns > w->socket.wrote_at_ns && now_ns - w->socket.wrote_at_ns > period_ns / 2)
        return client_socket_send(&w->socket, HEARTBEAT, sizeof(HEARTBEAT));
    return 0;
}

static int loop_heartbeats(struct loop *l, uint64_t now_ns)
{
    for (unsigned i = 0; i < l->producer_count; i++) {
        struct producer *p = &l->producers[i];
        if (link_heartbeat(&p->link, p->out_at == p->out_end, now_ns) != 0)
            return loop_fail(l, "producer", p->link.wire.socket.error);
    }
    for (unsigned i = 0; i < l->consumer_count; i++) {
        struct consumer *c = &l->consumers[i];
        if (link_heartbeat(&c->link, c->ack_at == c->ack_end, now_ns) != 0)
            return loop_fail(l, "consumer", c->link.wire.socket.error);
    }
    return 0;
}

static void loop_progress(struct loop *l, uint64_t now_ns)
{
    struct counters now = {.published = atomic_load(&l->shared->published),
                           .confirmed = atomic_load(&l->shared->confirmed),
                           .consumed = atomic_load(&l->shared->consumed)};
    double seconds = (double)(now_ns - l->progress_at_ns) / 1e9;
    const char *phase = now_ns < l->phases.from_ns ? "warm-up" : producers_stopping(l, now_ns) ? "drain" : "measured";
    fprintf(stderr,
            "\r%6.1f s %-8s published %9.0f/s  confirmed %9.0f/s  consumed %9.0f/s  unconfirmed %llu  waiting %lld ",
            (double)(now_ns - l->phases.start_ns) / 1e9, phase,
            (double)(now.published - l->progress_last.published) / seconds,
            (double)(now.confirmed - l->progress_last.confirmed) / seconds,
            (double)(now.consumed - l->progress_last.consumed) / seconds,
            l->o->window > 0 ? (unsigned long long)(now.published - now.confirmed) : 0ull,
            l->o->consumers > 0 ? (long long)(now.published - now.consumed) : 0ll);
    l->progress_last = now;
    l->progress_at_ns = now_ns;
}

static void counters_start(struct loop *l, const struct counters *c)
{
    l->at_start = *c;
    for (unsigned i = 0; i < l->consumer_count; i++)
        l->consumers[i].at_start = l->consumers[i].received;
}

static void consumers_end(struct loop *l)
{
    for (unsigned i = 0; i < l->consumer_count; i++)
        l->consumers[i].at_end = l->consumers[i].received;
}

static void loop_phases(struct loop *l, const struct counters *c, uint64_t now_ns)
{
    switch (bench_phases_step(&l->phases, now_ns)) {
    case BENCH_PHASE_BEGUN:
        if (l->o->messages == 0) /* else everything counts, also what came with consume-ok */
            counters_start(l, c);
        break;
    case BENCH_PHASE_ENDED:
        l->at_end = *c;
        consumers_end(l);
        break;
    case BENCH_PHASE_SAME: break;
    }
}

static bool producers_done(const struct loop *l, uint64_t now_ns)
{
    for (unsigned i = 0; i < l->producer_count; i++) {
        const struct producer *p = &l->producers[i];
        bool finished = p->published >= p->limit || producers_stopping(l, now_ns);
        if (!finished || p->out_at < p->out_end || (l->o->window > 0 && p->settled < p->published))
            return false;
    }
    return true;
}

static bool consumers_done(const struct loop *l, uint64_t now_ns)
{
    if (reads_only(l->o) && l->o->messages > 0 && l->consumed >= l->o->messages * l->consumer_count)
        return true;
    if (l->o->synthetic || l->o->producers == 0)
        return bench_phases_stopping(&l->phases, now_ns);
    if (!atomic_load(&l->shared->producers_done))
        return false;
    uint64_t expected = atomic_load(&l->shared->published) - atomic_load(&l->shared->refused);
    return l->consumed - l->foreign >= expected;
}

/* Is there nothing left to do, or no hope? */
static bool loop_done(struct loop *l, const struct counters *c, uint64_t now_ns)
{
    bool produced = producers_done(l, now_ns);
    if (l->producer_count > 0 && produced)
        atomic_store(&l->shared->producers_done, true);
    if (produced && (l->consumer_count == 0 || consumers_done(l, now_ns)))
        return true;
    for (unsigned i = 0; i < l->producer_count; i++)
        if (l->producers[i].link.wire.blocked && !l->phases.cut)
            l->phases.moved_at_ns = 0; /* an alarm is the server's right */
    if (l->producer_count == 0 && !atomic_load(&l->shared->producers_done) && !l->o->synthetic)
        l->phases.moved_at_ns = 0;
    /* others' messages are no hope */
    return bench_phases_stalled(&l->phases, c->published + c->confirmed + c->consumed - l->foreign, l->o->drain_s,
                                now_ns);
}

/* ---- the loop ---- */

static int loop_wait(struct loop *l, struct epoll_event *events, bool go_on, uint64_t now_ns)
{
    uint64_t wait_ns = go_on ? 0 : (uint64_t)WAIT_MAX_MS * BENCH_NS_PER_MS;
    for (unsigned i = 0; i < l->producer_count && l->o->rate > 0; i++) {
        const struct producer *p = &l->producers[i];
        wait_ns = bench_pace_wait(&p->pace, p->published, now_ns, wait_ns);
    }
    if (now_ns < l->phases.to_ns && l->phases.to_ns - now_ns < wait_ns)
        wait_ns = l->phases.to_ns - now_ns;
    struct timespec timeout = {.tv_nsec = (long)wait_ns};
    return epoll_pwait2(l->epoll, events, EVENTS_MAX, &timeout, NULL);
}

static int loop_events(struct loop *l, const struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        struct link *k = events[i].data.ptr;
        if (k->is_consumer && consumer_ready(l, (struct consumer *)k, events[i].events) != 0)
            return loop_fail(l, "consumer", k->wire.socket.error);
        if (!k->is_consumer && (events[i].events & ~(uint32_t)EPOLLOUT) != 0 &&
            producer_read(l, (struct producer *)k) != 0)
            return loop_fail(l, "producer", k->wire.socket.error);
    }
    return 0;
}

/* Answers 1 when some producer could go on at once. */
static int loop_publish(struct loop *l, uint64_t now_ns)
{
    int go_on = 0;
    for (unsigned i = 0; i < l->producer_count; i++) {
        int more = producer_publish(l, &l->producers[i], now_ns);
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
    l->progress_at_ns = l->ticked_at_ns = l->phases.start_ns;
    while (!atomic_load_explicit(&l->shared->failed, memory_order_relaxed)) {
        uint64_t now_ns = client_clock_ns();
        struct counters c = loop_count(l);
        if (bench_interrupted())
            bench_phases_cut(&l->phases, now_ns);
        loop_publish_counters(l, &c);
        loop_phases(l, &c, now_ns);
        if (loop_done(l, &c, now_ns))
            break;
        int go_on = loop_publish(l, now_ns);
        if (go_on < 0)
            break;
        if (l->o->gather_us > 0 && go_on == 0)
            usleep(l->o->gather_us);
        int n = loop_wait(l, events, go_on > 0, now_ns);
        if (n < 0 && errno != EINTR) {
            loop_fail(l, "epoll", strerror(errno));
            break;
        }
        if (n > 0 && loop_events(l, events, n) != 0)
            break;
        if (now_ns - l->ticked_at_ns > BENCH_NS_PER_S) {
            l->ticked_at_ns = now_ns;
            if (loop_heartbeats(l, now_ns) != 0)
                break;
        }
        if (l->reports_progress && now_ns - l->progress_at_ns > (uint64_t)PROGRESS_MS * BENCH_NS_PER_MS)
            loop_progress(l, now_ns);
    }
    struct counters c = loop_count(l);
    loop_publish_counters(l, &c);
    if (l->producer_count > 0)
        atomic_store(&l->shared->producers_done, true); /* also when it gave up: the consumers' loop waits for this */
    if (bench_phases_end(&l->phases, client_clock_ns())) {
        l->at_end = c;
        consumers_end(l);
    }
}

static void *loop_thread(void *arg)
{
    loop_run(arg);
    return NULL;
}

/* ---- set-up ---- */

static int producer_open(const struct bench_options *o, struct producer *p, unsigned idx)
{
    char queue[BENCH_QUEUE_NAME_BYTES];
    bench_queue_name(o, idx % o->queues, queue);
    if (bench_wire_open(&p->link.wire, &o->uri, &o->limits) != 0)
        return -1;
    if (o->window > 0 && bench_wire_confirm_select(&p->link.wire) != 0)
        return -1;
    struct bench_template_body body = {.body_bytes = o->body_bytes,
                                       .frame_max = p->link.wire.frame_max,
                                       .run_id = o->run_id,
                                       .producer = idx,
                                       .slots_max = o->window};
    if (bench_template_publish(&p->template, &body, queue, o->persistent, o->mandatory) != 0) {
        snprintf(p->link.wire.socket.error, sizeof(p->link.wire.socket.error), "cannot prepare messages of %zu bytes",
                 o->body_bytes);
        return -1;
    }
    uint64_t ring = 2;
    while (ring < 2 * (uint64_t)o->window)
        ring *= 2;
    p->ring_mask = ring - 1;
    p->sent_ns = bench_zeroed(ring, sizeof(*p->sent_ns));
    p->lowest = 1;
    p->limit = UINT64_MAX;
    if (o->messages > 0)
        p->limit = o->messages / o->producers + (idx < o->messages % o->producers);
    client_socket_nonblocking(&p->link.wire.socket, true);
    return 0;
}

static int consumer_open(const struct bench_options *o, struct consumer *c, unsigned idx)
{
    char queue[BENCH_QUEUE_NAME_BYTES];
    bench_queue_name(o, idx % o->queues, queue);
    c->link.is_consumer = true;
    c->idx = idx;
    c->limit = reads_only(o) && o->messages > 0 ? o->messages : UINT64_MAX;
    if (bench_wire_open(&c->link.wire, &o->uri, &o->limits) != 0)
        return -1;
    if (!o->auto_ack && o->prefetch > 0 && bench_wire_qos(&c->link.wire, o->prefetch) != 0)
        return -1;
    if (bench_wire_consume(&c->link.wire, queue, o->auto_ack, o->offset) != 0)
        return -1;
    client_socket_nonblocking(&c->link.wire.socket, true);
    return 0;
}

static int links_open(const struct bench_options *o, struct producer *producers, struct consumer *consumers)
{
    for (unsigned i = 0; i < o->consumers; i++)
        if (consumer_open(o, &consumers[i], i) != 0)
            return bench_fail("consumer", consumers[i].link.wire.socket.error);
    for (unsigned i = 0; i < o->producers; i++)
        if (producer_open(o, &producers[i], i) != 0)
            return bench_fail("producer", producers[i].link.wire.socket.error);
    return 0;
}

static void links_close(const struct bench_options *o, struct producer *producers, struct consumer *consumers)
{
    for (unsigned i = 0; i < o->producers; i++) {
        struct producer *p = &producers[i];
        if (p->out_at < p->out_end)
            p->link.wire.open = false; /* a half-written frame: nothing polite can follow */
        bench_wire_close(&p->link.wire);
        bench_template_fini(&p->template);
        free(p->sent_ns);
    }
    for (unsigned i = 0; i < o->consumers; i++) {
        struct consumer *c = &consumers[i];
        if (c->link.wire.open && c->ack_at == c->ack_end && c->acked_tag < c->tag && !o->auto_ack) {
            c->ack_at = c->ack_end = 0;
            consumer_ack(c, c->tag - c->in_content, true);
        }
        if (c->link.wire.open && c->ack_end > c->ack_at)
            client_socket_send(&c->link.wire.socket, c->acks + c->ack_at, c->ack_end - c->ack_at);
        bench_wire_close(&c->link.wire);
    }
}

static void loop_adopt(struct loop *l, struct link *k)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = k};
    epoll_ctl(l->epoll, EPOLL_CTL_ADD, k->wire.socket.fd, &e);
}

static void loop_init(struct loop *l, const struct bench_options *o, struct shared *shared)
{
    l->o = o;
    l->shared = shared;
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->confirm_latency = bench_histogram_new();
    l->transit = bench_histogram_new();
}

static void loop_fini(struct loop *l)
{
    close(l->epoll);
    bench_histogram_free(l->confirm_latency);
    bench_histogram_free(l->transit);
}

static void loop_schedule(struct loop *l, uint64_t start_ns)
{
    const struct bench_options *o = l->o;
    bench_phases_plan(&l->phases, start_ns, o->warmup_s, o->duration_s, o->messages > 0);
    for (unsigned i = 0; i < l->producer_count; i++)
        l->producers[i].pace = bench_pace_of(o->rate, i, o->producers, start_ns);
    for (unsigned i = 0; i < l->producer_count; i++)
        loop_adopt(l, &l->producers[i].link);
    for (unsigned i = 0; i < l->consumer_count; i++)
        loop_adopt(l, &l->consumers[i].link);
}

/* Deliveries that came in the same read as consume-ok wait in the input buffer; epoll would not tell of them. */
static int consumers_catch_up(struct loop *l)
{
    for (unsigned i = 0; i < l->consumer_count; i++)
        if (consumer_parse(l, &l->consumers[i], client_clock_ns()) != 0)
            return loop_fail(l, "consumer", l->consumers[i].link.wire.socket.error);
    return 0;
}

/* ---- results ---- */

/* With --messages each rate ends when its own last message did, otherwise with the measured phase. */
static double loop_rate(const struct loop *l, uint64_t count, uint64_t last_ns)
{
    return bench_rate(count, l->phases.measured_from_ns, l->o->messages > 0 ? last_ns : l->phases.measured_to_ns);
}

/* How evenly the server served them: with --messages each rate ends with that consumer's own last message. */
static void report_each_consumer(const struct bench_options *o, struct bench_report *r, const struct loop *cl)
{
    double *rates = bench_zeroed(cl->consumer_count, sizeof(*rates));
    double slowest = INFINITY, fastest = 0;
    for (unsigned i = 0; i < cl->consumer_count; i++) {
        const struct consumer *c = &cl->consumers[i];
        rates[i] = bench_rate(c->at_end - c->at_start, cl->phases.measured_from_ns,
                              o->messages > 0 ? c->last_ns : cl->phases.measured_to_ns);
        slowest = fmin(slowest, rates[i]);
        fastest = fmax(fastest, rates[i]);
    }
    bench_report_number(r, "each consumer", "slowest_rate", slowest, "msg/s");
    bench_report_number(r, "each consumer", "fastest_rate", fastest, "msg/s");
    bench_report_number(r, "each consumer", "slowest_over_fastest", fastest > 0 ? slowest / fastest : 0, "");
    bench_report_list(r, "each consumer", "rates", rates, cl->consumer_count);
    free(rates);
}

static void report_rates(const struct bench_options *o, struct bench_report *r, const struct loop *pl,
                         const struct loop *cl)
{
    if (o->producers > 0) {
        uint64_t published = pl->at_end.published - pl->at_start.published;
        uint64_t confirmed = pl->at_end.confirmed - pl->at_start.confirmed;
        bench_report_number(r, "publish", "messages", (double)published, "");
        bench_report_number(r, "publish", "rate", loop_rate(pl, published, pl->last_publish_ns), "msg/s");
        if (o->window > 0) {
            bench_report_number(r, "confirm", "messages", (double)confirmed, "");
            bench_report_number(r, "confirm", "rate", loop_rate(pl, confirmed, pl->last_confirm_ns), "msg/s");
        }
    }
    if (o->consumers > 0) {
        uint64_t consumed = cl->at_end.consumed - cl->at_start.consumed;
        bench_report_number(r, "consume", "messages", (double)consumed, "");
        bench_report_number(r, "consume", "rate", loop_rate(cl, consumed, cl->last_consume_ns), "msg/s");
    }
    if (o->consumers > 1)
        report_each_consumer(o, r, cl);
    bench_report_latency(r, "confirm latency", pl->confirm_latency);
    bench_report_latency(r, "end to end", cl->transit);
}

static void report_generator(struct bench_report *r, const struct loop *loops, unsigned count)
{
    uint64_t cpu_ns = 0, messages = 0, elapsed_ns = loops[0].phases.measured_to_ns - loops[0].phases.measured_from_ns;
    for (unsigned i = 0; i < count; i++) {
        cpu_ns += loops[i].phases.cpu_to_ns - loops[i].phases.cpu_from_ns;
        messages += loops[i].at_end.published - loops[i].at_start.published;
        messages += loops[i].at_end.consumed - loops[i].at_start.consumed;
    }
    bench_report_number(r, "load generator", "measured_s", (double)elapsed_ns / 1e9, "");
    bench_report_number(r, "load generator", "cpu_s", (double)cpu_ns / 1e9, "");
    bench_report_number(r, "load generator", "cpu_ns_per_message", messages > 0 ? (double)cpu_ns / (double)messages : 0,
                        "");
    bench_report_number(r, "load generator", "per_core_rate", bench_rate(messages, 0, cpu_ns), "msg/s");
}

/* Answers the exit code: losses, doubles and disorder are failures, unless there was nothing to compare with. */
static int report_checks(const struct bench_options *o, struct bench_report *r, const struct producer *producers,
                         struct loop *cl)
{
    uint64_t unconfirmed = 0, nacked = 0, returned = 0, published = 0, blocked_ns = 0;
    bool stamped = o->body_bytes >= BENCH_STAMP_BYTES;
    for (unsigned i = 0; i < o->producers; i++) {
        const struct producer *p = &producers[i];
        unconfirmed += o->window > 0 ? p->published - p->settled : 0;
        nacked += p->nacked;
        returned += p->returned;
        published += p->published;
        blocked_ns += p->link.wire.blocked_ns;
        if (o->consumers > 0 && stamped && !o->synthetic)
            bench_order_finish(cl->order, i, p->published, p->nacked + p->returned);
    }
    const struct bench_order_tally *t = bench_order_peek(cl->order);
    uint64_t missing = t->missing;
    if (!stamped && o->consumers > 0 && !o->synthetic && cl->consumed + nacked + returned < published)
        missing = published - nacked - returned - cl->consumed;
    if (reads_only(o) && o->messages > 0 && !cl->phases.cut)
        missing = o->messages * o->consumers - cl->consumed;
    uint64_t backwards = t->reordered;
    for (unsigned i = 0; i < cl->consumer_count; i++)
        backwards += cl->consumers[i].reading.backwards;
    bench_report_number(r, "checks", "missing", (double)missing, "");
    bench_report_number(r, "checks", "duplicates", (double)t->duplicates, "");
    bench_report_number(r, "checks", "reordered", (double)backwards, "");
    bench_report_number(r, "checks", "redelivered", (double)t->redelivered, "");
    bench_report_number(r, "checks", "foreign", (double)cl->foreign, "");
    bench_report_number(r, "checks", "unconfirmed", (double)unconfirmed, "");
    bench_report_number(r, "checks", "nacked", (double)nacked, "");
    bench_report_number(r, "checks", "returned", (double)returned, "");
    bench_report_number(r, "checks", "blocked_s", (double)blocked_ns / 1e9, "");
    bench_report_text(r, "checks", "order", stamped ? "checked" : "not checked, the body is too short for a stamp");
    return missing + t->duplicates + backwards + unconfirmed > 0 ? BENCH_EXIT_VIOLATION : BENCH_EXIT_OK;
}

static int loops_run(const struct bench_options *o, struct bench_report *r, struct producer *producers,
                     struct consumer *consumers)
{
    struct shared shared = {0};
    struct loop *loops = bench_zeroed(2, sizeof(*loops));
    unsigned loop_count_now = o->threads > 1 && o->producers > 0 && o->consumers > 0 ? 2 : 1;
    struct loop *pl = &loops[0], *cl = &loops[loop_count_now - 1];
    for (unsigned i = 0; i < loop_count_now; i++)
        loop_init(&loops[i], o, &shared);
    pl->producers = producers;
    pl->producer_count = o->producers;
    cl->consumers = consumers;
    cl->consumer_count = o->consumers;
    cl->order = bench_order_new(o->synthetic ? o->consumers : o->producers, o->consumers);
    pl->reports_progress = o->progress;
    if (o->producers == 0)
        atomic_store(&shared.producers_done, true);

    uint64_t start_ns = client_clock_ns();
    for (unsigned i = 0; i < loop_count_now; i++)
        loop_schedule(&loops[i], start_ns);
    pthread_t second;
    bool two = loop_count_now == 2;
    int code = BENCH_EXIT_FAILED;
    if (consumers_catch_up(cl) == 0 && (!two || pthread_create(&second, NULL, loop_thread, cl) == 0)) {
        loop_run(pl);
        if (two)
            pthread_join(second, NULL);
    }
    if (o->progress)
        fputs("\r\033[K", stderr);
    for (unsigned i = 0; i < loop_count_now; i++)
        if (loops[i].error[0] != '\0')
            fprintf(stderr, "millrace bench amqp: %s\n", loops[i].error);
    report_rates(o, r, pl, cl);
    int checks = report_checks(o, r, producers, cl);
    report_generator(r, loops, loop_count_now);
    if (!atomic_load(&shared.failed))
        code = checks;
    bench_order_free(cl->order);
    for (unsigned i = 0; i < loop_count_now; i++)
        loop_fini(&loops[i]);
    free(loops);
    return code;
}

int bench_run_publish_consume(const struct bench_options *o, struct bench_report *r)
{
    if (bench_queues_set_up(o) != 0)
        return BENCH_EXIT_FAILED;
    struct producer *producers = bench_zeroed(o->producers, sizeof(*producers));
    struct consumer *consumers = bench_zeroed(o->consumers, sizeof(*consumers));
    for (unsigned i = 0; i < o->producers; i++)
        producers[i].link.wire.socket.fd = -1;
    for (unsigned i = 0; i < o->consumers; i++)
        consumers[i].link.wire.socket.fd = -1;
    int code = links_open(o, producers, consumers);
    if (code == 0)
        code = loops_run(o, r, producers, consumers);
    links_close(o, producers, consumers);
    free(producers);
    free(consumers);
    int tidy = bench_queues_tear_down(o);
    return code != 0 ? code : tidy;
}
