/* The scenarios with a flow of messages: publishers and subscribers on one epoll loop, in the manner of bench/run.c, whose essay
 * tells why things are done as they are (one read and one write per ready connection and round, coordinated omission).
 *
 * Publisher p publishes to topic p mod topics, subscriber s subscribes to topic s mod topics: each subscriber gets every message
 * of its topic's publishers, so a message is delivered as often as it has subscribers (its audience). Each subscriber checks for
 * itself that it got every number of every such publisher once and in order.
 *
 * The window closes the loop: a publisher has at most so many messages that are not acknowledged (QoS 1, 2) or have not come to
 * the average subscriber of its topic. Without the second half a broker that takes faster than it gives would be measured by how
 * many messages it throws away. With QoS 0 a lost message is not waited for: what is passed over counts as come, and when nothing
 * at all has come for a while the window opens again.
 *
 * Durable sessions: as above, with sessions that outlive their connection. Offline: subscribers say goodbye before anything is
 * published and come back when all is; the two halves are measured one after the other.
 */
#include "mqtt_flight.h"
#include "mqtt_int.h"
#include "order.h"
#include "pace.h"
#include "phases.h"
#include "stamp.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
    IN_BYTES = 64 * 1024,
    IN_BYTES_MANY = 8 * 1024, /* each, when there are more subscribers than FEW */
    FEW = 200,
    BATCH_BYTES = 64 * 1024,
    EVENTS_MAX = 256,
    TLS_BYTES = 1024 * 1024,
    WAIT_MAX_MS = 100,
    PROGRESS_MS = 500,
    WRITE_OFF_MS = 500, /* a message of QoS 0 that has not come by then is lost */
    IDS_BYTES = 65536 / 8,
};

/* ---- types ---- */

struct link {
    struct bench_mqtt_wire wire;
    bool is_subscriber;
    uint32_t watched; /* events */
    uint8_t *out;
    size_t out_at, out_end, out_cap;
};

struct publisher {
    struct link link; /* first: epoll hands out links */
    struct bench_mqtt_template template;
    struct bench_mqtt_flight flight;
    struct bench_pace pace;
    uint64_t limit;    /* UINT64_MAX: by the clock */
    unsigned audience; /* subscribers of its topic */
    uint64_t come;     /* over all of these: how far its numbers have come */
    uint64_t come_at_ns;
};

struct subscriber {
    struct link link;
    unsigned idx;
    uint64_t received;               /* messages, none counted twice with QoS 2 */
    uint64_t *last;                  /* by publisher: the largest number seen */
    struct bench_order *order;       /* of this subscriber alone */
    uint8_t *ids;                    /* QoS 2: bit by packet id that PUBREL has not freed */
    uint64_t run_sent_ns, run_count; /* equal send times not yet in the histogram */
    uint64_t at_start, at_end;       /* received, at both ends of the measured phase */
};

struct counters {
    uint64_t published, confirmed, delivered;
};

struct loop {
    const struct bench_mqtt_options *o;
    int epoll;
    bool publishing, subscribing; /* who takes part in this pass */
    bool stamped;
    struct publisher *publishers;
    struct subscriber *subscribers;
    struct bench_phases phases;
    struct counters at_start, at_end;
    uint64_t last_publish_ns, last_confirm_ns, last_deliver_ns;
    uint64_t ticked_at_ns, progress_at_ns;
    struct counters progress_last;
    struct bench_histogram *confirm_latency, *transit, *everybody;
    uint64_t delivered, foreign, changed, written_off;
    bool failed;
};

static int loop_fail(struct loop *l, const char *who, const char *why)
{
    l->failed = true;
    bench_fail(who, why);
    return -1;
}

static unsigned publishers_of(const struct loop *l)
{
    return l->publishing ? l->o->publishers : 0;
}

static unsigned subscribers_of(const struct loop *l)
{
    return l->subscribing ? l->o->subscribers : 0;
}

static bool hears(const struct bench_mqtt_options *o, unsigned subscriber, unsigned publisher)
{
    return subscriber % o->topics == publisher % o->topics;
}

static struct counters loop_count(const struct loop *l)
{
    struct counters c = {.delivered = l->delivered};
    for (unsigned i = 0; i < l->o->publishers; i++) {
        c.published += l->publishers[i].flight.published;
        c.confirmed += l->publishers[i].flight.settled - l->publishers[i].flight.refused;
    }
    return c;
}

/* ---- the socket ---- */

/* One read may bring as many acknowledgements to write as in_cap has bytes, so without room for them nothing is read. */
static void link_watch(struct loop *l, struct link *k)
{
    size_t unwritten = k->out_end - k->out_at;
    bool has_room = k->out_cap == 0 || unwritten + k->wire.socket.in_cap <= k->out_cap;
    uint32_t wanted = (has_room ? EPOLLIN : 0u) | (unwritten > 0 ? EPOLLOUT : 0u);
    if (wanted == k->watched)
        return;
    struct epoll_event e = {.events = wanted, .data.ptr = k};
    epoll_ctl(l->epoll, k->watched == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, k->wire.socket.fd, &e);
    k->watched = wanted;
}

/* 1: all is written, 0: the socket is full, -1: it is gone. */
static int link_flush(struct loop *l, struct link *k, uint64_t now_ns)
{
    int done = client_socket_write(&k->wire.socket, k->out, &k->out_at, k->out_end, now_ns);
    if (done > 0) {
        k->out_at = k->out_end = 0;
    } else if (k->out_at > k->out_cap / 2) {
        memmove(k->out, k->out + k->out_at, k->out_end - k->out_at);
        k->out_end -= k->out_at;
        k->out_at = 0;
    }
    link_watch(l, k);
    return done;
}

static int link_ack(struct link *k, enum bench_mqtt_type type, uint16_t id)
{
    if (k->out_cap - k->out_end < BENCH_MQTT_ACK_BYTES) {
        memmove(k->out, k->out + k->out_at, k->out_end - k->out_at);
        k->out_end -= k->out_at;
        k->out_at = 0;
    }
    if (k->out_cap - k->out_end < BENCH_MQTT_ACK_BYTES)
        return client_socket_fail(&k->wire.socket, "more to acknowledge than was read");
    bench_mqtt_ack_put(k->out + k->out_end, type, id);
    k->out_end += BENCH_MQTT_ACK_BYTES;
    return 0;
}

/* Room for `bytes` of messages, and twice for the answers to one read, which with TLS may be a larger one. */
static void link_out_reserve(struct link *k, size_t bytes)
{
    k->out_cap = bytes + 2 * k->wire.socket.in_cap + (k->wire.socket.tls != NULL ? TLS_BYTES : 0);
    k->out = bench_zeroed(1, k->out_cap);
}

/* ---- publishers ---- */

static bool publishers_stopping(const struct loop *l, uint64_t now_ns)
{
    return bench_phases_stopping(&l->phases, now_ns);
}

/* How many messages the subscribers let this publisher have on their way beyond what is. */
static uint64_t delivery_room(const struct loop *l, const struct publisher *p)
{
    if (l->o->window == 0 || !l->subscribing || !l->stamped || p->audience == 0)
        return UINT64_MAX;
    uint64_t come = p->come / p->audience;
    uint64_t on_way = p->flight.published > come ? p->flight.published - come : 0;
    return on_way < l->o->window ? l->o->window - on_way : 0;
}

static void write_off_lost(struct loop *l, struct publisher *p, uint64_t now_ns)
{
    if (l->o->qos > 0 || delivery_room(l, p) > 0 || now_ns - p->come_at_ns < (uint64_t)WRITE_OFF_MS * BENCH_NS_PER_MS)
        return;
    l->written_off += p->flight.published * p->audience - p->come;
    p->come = p->flight.published * p->audience;
}

static uint64_t publisher_room(const struct loop *l, const struct publisher *p)
{
    uint64_t a = bench_mqtt_flight_room(&p->flight), b = delivery_room(l, p);
    return a < b ? a : b;
}

static uint64_t batch_put(struct publisher *p, uint64_t count, uint64_t now_ns)
{
    struct link *k = &p->link;
    size_t len = p->template.len;
    uint64_t put = 0;
    while (put < count && (put == 0 || k->out_end + len <= BATCH_BYTES)) {
        uint64_t sent_ns = bench_pace_stamp(&p->pace, p->flight.published, now_ns);
        uint64_t seq = bench_mqtt_flight_send(&p->flight, sent_ns);
        bench_mqtt_template_put(&p->template, k->out + k->out_end, bench_mqtt_flight_id(seq), seq, sent_ns);
        k->out_end += len;
        put++;
    }
    return put;
}

/* Sends one batch if it may. Answers 1 when it could go on at once, 0 when it must wait, -1 at an error. */
static int publisher_publish(struct loop *l, struct publisher *p, uint64_t now_ns)
{
    uint64_t due = bench_pace_due(&p->pace, p->flight.published, now_ns);
    int done = p->link.out_end > 0 ? link_flush(l, &p->link, now_ns) : 1;
    uint64_t count = 0, put = 0;
    if (done > 0 && !publishers_stopping(l, now_ns) && p->flight.published < p->limit) {
        uint64_t left = p->limit - p->flight.published, room;
        write_off_lost(l, p, now_ns);
        room = publisher_room(l, p);
        count = due < left ? due : left;
        count = room < count ? room : count;
        put = batch_put(p, count, now_ns);
        if (put > 0) {
            done = link_flush(l, &p->link, now_ns);
            l->last_publish_ns = client_clock_ns();
        }
    }
    p->pace.held = p->pace.interval_ns > 0 && bench_pace_due(&p->pace, p->flight.published, now_ns) > 0;
    return done <= 0 ? done : put < count;
}

static int publisher_on_packet(struct loop *l, struct publisher *p, const struct bench_mqtt_packet *packet,
                               uint64_t now_ns)
{
    struct bench_mqtt_wire *w = &p->link.wire;
    enum bench_mqtt_type type = bench_mqtt_type(packet);
    uint64_t sent_ns = 0;
    uint16_t id;
    uint8_t reason;
    if (type == BENCH_MQTT_PINGRESP)
        return 0;
    if (type != BENCH_MQTT_PUBACK && type != BENCH_MQTT_PUBREC && type != BENCH_MQTT_PUBCOMP)
        return bench_mqtt_unasked(w, packet);
    if (bench_mqtt_ack_read(w, packet, &id, &reason) != 0)
        return -1;
    switch (bench_mqtt_flight_on_ack(&p->flight, (unsigned)type, id, reason, &sent_ns)) {
    case BENCH_MQTT_STEP_RELEASE: return link_ack(&p->link, BENCH_MQTT_PUBREL, id);
    case BENCH_MQTT_STEP_SETTLED:
        if (l->phases.measuring)
            bench_histogram_add(l->confirm_latency, now_ns - sent_ns, 1);
        l->last_confirm_ns = now_ns;
        return 0;
    case BENCH_MQTT_STEP_REFUSED: return 0;
    case BENCH_MQTT_STEP_WRONG: break;
    }
    return client_socket_fail(&w->socket, "the server acknowledged packet id %u, which does not wait for that", id);
}

static int publisher_read(struct loop *l, struct publisher *p)
{
    struct bench_mqtt_packet packet;
    int got;
    ssize_t n = client_socket_fill(&p->link.wire.socket);
    if (n <= 0)
        return (int)n;
    uint64_t now_ns = client_clock_ns();
    while ((got = bench_mqtt_next(&p->link.wire, &packet)) > 0)
        if (publisher_on_packet(l, p, &packet, now_ns) != 0)
            return -1;
    if (got == 0 && p->link.out_end > 0)
        got = link_flush(l, &p->link, now_ns);
    return got < 0 ? -1 : 0;
}

/* ---- subscribers ---- */

static void record_run(struct loop *l, struct subscriber *s, uint64_t now_ns)
{
    if (s->run_count > 0 && l->phases.measuring && !l->o->offline)
        bench_histogram_add(l->transit, now_ns > s->run_sent_ns ? now_ns - s->run_sent_ns : 0, s->run_count);
    s->run_count = 0;
}

/* Its numbers have come so far at this subscriber; what is passed over is lost, or comes too late. */
static void publisher_come(struct loop *l, struct publisher *p, uint64_t *last, const struct bench_stamp *stamp,
                           uint64_t now_ns)
{
    if (stamp->seq <= *last)
        return;
    p->come += stamp->seq - *last;
    p->come_at_ns = now_ns;
    *last = stamp->seq;
    if (l->o->window == 1 && p->audience > 1 && l->phases.measuring && p->come == p->flight.published * p->audience)
        bench_histogram_add(l->everybody, now_ns > stamp->sent_ns ? now_ns - stamp->sent_ns : 0, 1);
}

static void subscriber_on_stamp(struct loop *l, struct subscriber *s, const struct bench_mqtt_message *m,
                                uint64_t now_ns)
{
    struct bench_stamp stamp;
    if (m->payload.len < sizeof(stamp)) {
        l->foreign += l->stamped;
        return;
    }
    memcpy(&stamp, m->payload.ptr, sizeof(stamp));
    if (!l->stamped || stamp.run_id != l->o->run_id || stamp.producer >= l->o->publishers || stamp.seq == 0 ||
        !hears(l->o, s->idx, stamp.producer)) {
        l->foreign += l->stamped;
        return;
    }
    bench_order_note(s->order, 0, stamp.producer, stamp.seq, m->dup && m->qos == 1);
    publisher_come(l, &l->publishers[stamp.producer], &s->last[stamp.producer], &stamp, now_ns);
    if (stamp.sent_ns != s->run_sent_ns) {
        record_run(l, s, now_ns);
        s->run_sent_ns = stamp.sent_ns;
    }
    s->run_count++;
}

/* Of QoS 2, what comes again under an id that is not freed yet is the same message; only the answer is repeated. */
static bool comes_again(struct subscriber *s, uint16_t id)
{
    uint8_t bit = (uint8_t)(1u << (id & 7));
    bool again = (s->ids[id / 8] & bit) != 0;
    s->ids[id / 8] |= bit;
    return again;
}

static int subscriber_on_message(struct loop *l, struct subscriber *s, const struct bench_mqtt_packet *packet,
                                 uint64_t now_ns)
{
    struct bench_mqtt_message m;
    if (bench_mqtt_message_read(&s->link.wire, packet, &m) != 0)
        return -1;
    if (m.qos > l->o->qos)
        return client_socket_fail(&s->link.wire.socket, "a message came with QoS %u, above the subscription's", m.qos);
    l->changed += m.qos != l->o->qos;
    if (m.qos < 2 || !comes_again(s, m.id)) {
        subscriber_on_stamp(l, s, &m, now_ns);
        s->received++;
        l->delivered++;
    }
    return m.qos == 0 ? 0 : link_ack(&s->link, m.qos == 1 ? BENCH_MQTT_PUBACK : BENCH_MQTT_PUBREC, m.id);
}

static int subscriber_on_packet(struct loop *l, struct subscriber *s, const struct bench_mqtt_packet *packet,
                                uint64_t now_ns)
{
    uint16_t id;
    uint8_t reason;
    switch (bench_mqtt_type(packet)) {
    case BENCH_MQTT_PUBLISH: return subscriber_on_message(l, s, packet, now_ns);
    case BENCH_MQTT_PUBREL:
        if (bench_mqtt_ack_read(&s->link.wire, packet, &id, &reason) != 0)
            return -1;
        if (s->ids != NULL)
            s->ids[id / 8] &= (uint8_t) ~(1u << (id & 7));
        return link_ack(&s->link, BENCH_MQTT_PUBCOMP, id);
    case BENCH_MQTT_PINGRESP: return 0;
    default: return bench_mqtt_unasked(&s->link.wire, packet);
    }
}

static int subscriber_parse(struct loop *l, struct subscriber *s, uint64_t now_ns)
{
    struct bench_mqtt_packet packet;
    int got;
    while ((got = bench_mqtt_next(&s->link.wire, &packet)) > 0)
        if (subscriber_on_packet(l, s, &packet, now_ns) != 0)
            return -1;
    record_run(l, s, now_ns);
    l->last_deliver_ns = now_ns;
    if (got == 0 && s->link.out_end > 0)
        got = link_flush(l, &s->link, now_ns);
    return got < 0 ? -1 : 0;
}

static int subscriber_read(struct loop *l, struct subscriber *s)
{
    ssize_t n = client_socket_fill(&s->link.wire.socket);
    return n <= 0 ? (int)n : subscriber_parse(l, s, client_clock_ns());
}

/* ---- keep-alive, progress, phases ---- */

static int link_keep_alive(struct link *k, uint64_t now_ns)
{
    uint64_t period_ns = k->wire.keep_alive_s * BENCH_NS_PER_S;
    bool due =
        period_ns > 0 && now_ns > k->wire.socket.wrote_at_ns && now_ns - k->wire.socket.wrote_at_ns > period_ns / 2;
    return due && k->out_at == k->out_end ? bench_mqtt_ping(&k->wire) : 0;
}

static int loop_keep_alive(struct loop *l, uint64_t now_ns)
{
    for (unsigned i = 0; i < publishers_of(l); i++)
        if (link_keep_alive(&l->publishers[i].link, now_ns) != 0)
            return loop_fail(l, "publisher", l->publishers[i].link.wire.socket.error);
    for (unsigned i = 0; i < subscribers_of(l); i++)
        if (link_keep_alive(&l->subscribers[i].link, now_ns) != 0)
            return loop_fail(l, "subscriber", l->subscribers[i].link.wire.socket.error);
    return 0;
}

static void loop_progress(struct loop *l, const struct counters *now, uint64_t now_ns)
{
    double seconds = (double)(now_ns - l->progress_at_ns) / 1e9;
    const char *phase = now_ns < l->phases.from_ns ? "warm-up" : publishers_stopping(l, now_ns) ? "drain" : "measured";
    fprintf(stderr, "\r%6.1f s %-8s published %9.0f/s  confirmed %9.0f/s  delivered %9.0f/s ",
            (double)(now_ns - l->phases.start_ns) / 1e9, phase,
            (double)(now->published - l->progress_last.published) / seconds,
            (double)(now->confirmed - l->progress_last.confirmed) / seconds,
            (double)(now->delivered - l->progress_last.delivered) / seconds);
    l->progress_last = *now;
    l->progress_at_ns = now_ns;
}

static void loop_look(struct loop *l, const struct counters *c, bool start)
{
    *(start ? &l->at_start : &l->at_end) = *c;
    for (unsigned i = 0; i < subscribers_of(l); i++)
        *(start ? &l->subscribers[i].at_start : &l->subscribers[i].at_end) = l->subscribers[i].received;
}

static bool publishers_done(const struct loop *l, uint64_t now_ns)
{
    for (unsigned i = 0; i < publishers_of(l); i++) {
        const struct publisher *p = &l->publishers[i];
        bool finished = p->flight.published >= p->limit || publishers_stopping(l, now_ns);
        if (!finished || p->link.out_end > 0 || (l->o->qos > 0 && p->flight.settled < p->flight.published))
            return false;
    }
    return true;
}

static bool subscribers_done(const struct loop *l)
{
    uint64_t expected = 0, come = 0;
    for (unsigned i = 0; i < l->o->publishers; i++) {
        const struct publisher *p = &l->publishers[i];
        expected += (p->flight.published - p->flight.refused) * p->audience;
        come += p->come;
    }
    return (l->stamped ? come : l->delivered) >= expected;
}

/* Is there nothing left to do, or no hope? */
static bool loop_done(struct loop *l, const struct counters *c, uint64_t now_ns)
{
    if (publishers_done(l, now_ns) && (!l->subscribing || subscribers_done(l)))
        return true;
    double drain_s = l->o->qos > 0 ? l->o->drain_s : fmin(l->o->drain_s, 1); /* nobody sends QoS 0 again */
    return bench_phases_stalled(&l->phases, c->published + c->confirmed + c->delivered - l->foreign, drain_s, now_ns);
}

/* ---- the loop ---- */

static int loop_wait(struct loop *l, struct epoll_event *events, bool go_on, uint64_t now_ns)
{
    uint64_t wait_ns = go_on ? 0 : (uint64_t)WAIT_MAX_MS * BENCH_NS_PER_MS;
    for (unsigned i = 0; i < publishers_of(l) && l->o->rate > 0; i++) {
        const struct publisher *p = &l->publishers[i];
        wait_ns = bench_pace_wait(&p->pace, p->flight.published, now_ns, wait_ns);
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
        const char *who = k->is_subscriber ? "subscriber" : "publisher";
        int failed = 0;
        if ((events[i].events & EPOLLOUT) != 0)
            failed = link_flush(l, k, client_clock_ns()) < 0;
        if (failed == 0 && (events[i].events & ~(uint32_t)EPOLLOUT) != 0)
            failed = k->is_subscriber ? subscriber_read(l, (struct subscriber *)k)
                                      : publisher_read(l, (struct publisher *)k);
        if (failed != 0)
            return loop_fail(l, who, k->wire.socket.error);
    }
    return 0;
}

/* Answers 1 when some publisher could go on at once. */
static int loop_publish(struct loop *l, uint64_t now_ns)
{
    int go_on = 0;
    for (unsigned i = 0; i < publishers_of(l); i++) {
        int more = publisher_publish(l, &l->publishers[i], now_ns);
        if (more < 0)
            return loop_fail(l, "publisher", l->publishers[i].link.wire.socket.error);
        go_on |= more;
    }
    return go_on;
}

static int loop_tick(struct loop *l, const struct counters *c, uint64_t now_ns)
{
    if (l->o->progress && now_ns - l->progress_at_ns > (uint64_t)PROGRESS_MS * BENCH_NS_PER_MS)
        loop_progress(l, c, now_ns);
    if (now_ns - l->ticked_at_ns <= BENCH_NS_PER_S)
        return 0;
    l->ticked_at_ns = now_ns;
    return loop_keep_alive(l, now_ns);
}

static void loop_turn(struct loop *l)
{
    struct epoll_event events[EVENTS_MAX];
    struct counters c;
    for (;;) {
        uint64_t now_ns = client_clock_ns();
        c = loop_count(l);
        if (bench_interrupted())
            bench_phases_cut(&l->phases, now_ns);
        switch (bench_phases_step(&l->phases, now_ns)) {
        case BENCH_PHASE_BEGUN:
            if (l->o->messages == 0) /* else everything counts */
                loop_look(l, &c, true);
            break;
        case BENCH_PHASE_ENDED: loop_look(l, &c, false); break;
        case BENCH_PHASE_SAME: break;
        }
        if (loop_done(l, &c, now_ns))
            break;
        int go_on = loop_publish(l, now_ns);
        if (go_on < 0)
            break;
        int n = loop_wait(l, events, go_on > 0, now_ns);
        if (n < 0 && errno != EINTR) {
            loop_fail(l, "epoll", strerror(errno));
            break;
        }
        if ((n > 0 && loop_events(l, events, n) != 0) || loop_tick(l, &c, now_ns) != 0)
            break;
    }
    c = loop_count(l);
    if (bench_phases_end(&l->phases, client_clock_ns()))
        loop_look(l, &c, false);
}

/* One pass, from its start until all is done. What came with the answers to logins waits in the buffers: epoll would not tell. */
static void loop_run(struct loop *l)
{
    uint64_t start_ns = client_clock_ns();
    prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);
    bench_phases_plan(&l->phases, start_ns, l->o->warmup_s, l->o->duration_s, l->o->messages > 0);
    l->progress_at_ns = l->ticked_at_ns = start_ns;
    l->at_start = l->progress_last = loop_count(l);
    for (unsigned i = 0; i < publishers_of(l); i++) {
        l->publishers[i].pace = bench_pace_of(l->o->rate, i, l->o->publishers, start_ns);
        l->publishers[i].come_at_ns = start_ns;
        link_watch(l, &l->publishers[i].link);
    }
    for (unsigned i = 0; i < subscribers_of(l); i++) {
        link_watch(l, &l->subscribers[i].link);
        if (subscriber_parse(l, &l->subscribers[i], start_ns) != 0) {
            loop_fail(l, "subscriber", l->subscribers[i].link.wire.socket.error);
            return;
        }
    }
    loop_turn(l);
    if (l->o->progress)
        fputs("\r\033[K", stderr);
}

/* ---- set-up ---- */

void bench_mqtt_topic(const struct bench_mqtt_options *o, unsigned idx, char *ret)
{
    if (o->topics == 1)
        snprintf(ret, BENCH_MQTT_TOPIC_BYTES, "%s", o->topic);
    else
        snprintf(ret, BENCH_MQTT_TOPIC_BYTES, "%s/%u", o->topic, idx);
}

void bench_mqtt_client_id(const struct bench_mqtt_options *o, const char *kind, unsigned idx, char *ret)
{
    snprintf(ret, BENCH_MQTT_ID_BYTES, "bench-%08x-%s%u", o->run_id, kind, idx);
}

static int publisher_open(struct loop *l, struct publisher *p, unsigned idx)
{
    const struct bench_mqtt_options *o = l->o;
    char topic[BENCH_MQTT_TOPIC_BYTES], id[BENCH_MQTT_ID_BYTES];
    bench_mqtt_topic(o, idx % o->topics, topic);
    bench_mqtt_client_id(o, "p", idx, id);
    struct bench_mqtt_session session = {.client_id = id, .clean = true};
    struct bench_mqtt_shape shape = {.topic = topic,
                                     .version = o->server.version,
                                     .qos = o->qos,
                                     .payload_bytes = o->payload_bytes,
                                     .run_id = o->run_id,
                                     .publisher = idx};
    if (bench_mqtt_open(&p->link.wire, &o->server, &session, IN_BYTES) != 0)
        return -1;
    if (bench_mqtt_template_init(&p->template, &shape) != 0)
        return client_socket_fail(&p->link.wire.socket, "messages of %zu bytes cannot be sent", o->payload_bytes);
    uint32_t window = o->window < p->link.wire.receive_max ? o->window : p->link.wire.receive_max;
    bench_mqtt_flight_init(&p->flight, o->qos, window);
    link_out_reserve(&p->link, BATCH_BYTES + p->template.len);
    p->limit = UINT64_MAX;
    if (o->messages > 0)
        p->limit = o->messages / o->publishers + (idx < o->messages % o->publishers);
    for (unsigned s = 0; s < o->subscribers; s++)
        p->audience += hears(o, s, idx);
    client_socket_nonblocking(&p->link.wire.socket, true);
    return 0;
}

static int subscriber_log_in(struct loop *l, struct subscriber *s, bool clean)
{
    const struct bench_mqtt_options *o = l->o;
    char id[BENCH_MQTT_ID_BYTES];
    size_t in_bytes = (o->subscribers > FEW ? IN_BYTES_MANY : IN_BYTES) + o->payload_bytes;
    bench_mqtt_client_id(o, "s", s->idx, id);
    struct bench_mqtt_session session = {.client_id = id, .clean = clean, .kept = o->durable};
    return bench_mqtt_open(&s->link.wire, &o->server, &session, in_bytes);
}

/* In MQTT 3.1.1 who wants a session kept cannot ask for a new one; names are new with each run, so it is. */
static int subscriber_open(struct loop *l, struct subscriber *s, unsigned idx)
{
    const struct bench_mqtt_options *o = l->o;
    char filter[BENCH_MQTT_TOPIC_BYTES];
    s->idx = idx;
    s->link.is_subscriber = true;
    s->last = bench_zeroed(o->publishers, sizeof(*s->last));
    s->order = bench_order_new(o->publishers, 1);
    bench_mqtt_topic(o, idx % o->topics, filter);
    if (subscriber_log_in(l, s, true) != 0 || bench_mqtt_subscribe(&s->link.wire, filter, o->qos) != 0)
        return -1;
    if (o->qos == 2)
        s->ids = bench_zeroed(1, IDS_BYTES);
    if (o->qos > 0)
        link_out_reserve(&s->link, 0);
    client_socket_nonblocking(&s->link.wire.socket, true);
    return 0;
}

static int subscribers_leave(struct loop *l)
{
    for (unsigned i = 0; i < l->o->subscribers; i++)
        bench_mqtt_close(&l->subscribers[i].link.wire);
    return 0;
}

static int subscribers_return(struct loop *l)
{
    for (unsigned i = 0; i < l->o->subscribers; i++) {
        struct subscriber *s = &l->subscribers[i];
        if (subscriber_log_in(l, s, false) != 0)
            return bench_fail("subscriber", s->link.wire.socket.error);
        if (!s->link.wire.session_present)
            return bench_fail("subscriber", "the server has forgotten the session");
        s->link.watched = 0;
        client_socket_nonblocking(&s->link.wire.socket, true);
    }
    return 0;
}

static int links_open(struct loop *l)
{
    for (unsigned i = 0; i < l->o->subscribers; i++) {
        if (subscriber_open(l, &l->subscribers[i], i) != 0)
            return bench_fail("subscriber", l->subscribers[i].link.wire.socket.error);
        bench_progress(l->o->progress && l->o->subscribers > FEW, "subscribed", i + 1u, l->o->subscribers);
    }
    for (unsigned i = 0; i < l->o->publishers; i++)
        if (publisher_open(l, &l->publishers[i], i) != 0)
            return bench_fail("publisher", l->publishers[i].link.wire.socket.error);
    return 0;
}

static void link_close(struct link *k)
{
    if (k->out_at < k->out_end)
        k->wire.open = false; /* a half-written packet: nothing polite can follow */
    client_socket_nonblocking(&k->wire.socket, false);
    bench_mqtt_close(&k->wire);
    free(k->out);
    k->out = NULL;
}

/* A session that was kept ends when the same client asks for one that is not. */
static int session_end(const struct bench_mqtt_options *o, unsigned idx)
{
    struct bench_mqtt_wire w;
    char id[BENCH_MQTT_ID_BYTES];
    bench_mqtt_client_id(o, "s", idx, id);
    struct bench_mqtt_session session = {.client_id = id, .clean = true};
    int code = bench_mqtt_open(&w, &o->server, &session, 256) != 0 ? bench_fail("ending sessions", w.socket.error) : 0;
    bench_mqtt_close(&w);
    return code;
}

static int links_close(struct loop *l)
{
    int code = 0;
    for (unsigned i = 0; i < l->o->publishers; i++) {
        struct publisher *p = &l->publishers[i];
        link_close(&p->link);
        bench_mqtt_template_fini(&p->template);
        bench_mqtt_flight_fini(&p->flight);
    }
    for (unsigned i = 0; i < l->o->subscribers; i++) {
        struct subscriber *s = &l->subscribers[i];
        link_close(&s->link);
        bench_order_free(s->order);
        free(s->last);
        free(s->ids);
    }
    for (unsigned i = 0; i < l->o->subscribers && l->o->durable && !l->o->keep && code == 0; i++)
        code = session_end(l->o, i);
    return code;
}

/* ---- results ---- */

/* With --messages each rate ends when its own last message did, otherwise with the measured phase. */
static double loop_rate(const struct loop *l, uint64_t count, uint64_t last_ns)
{
    return bench_rate(count, l->phases.measured_from_ns, l->o->messages > 0 ? last_ns : l->phases.measured_to_ns);
}

static void report_publishing(const struct loop *l, struct bench_report *r)
{
    uint64_t published = l->at_end.published - l->at_start.published;
    uint64_t confirmed = l->at_end.confirmed - l->at_start.confirmed;
    bench_report_number(r, "publish", "messages", (double)published, "");
    bench_report_number(r, "publish", "rate", loop_rate(l, published, l->last_publish_ns), "msg/s");
    if (l->o->qos > 0) {
        bench_report_number(r, "confirm", "messages", (double)confirmed, "");
        bench_report_number(r, "confirm", "rate", loop_rate(l, confirmed, l->last_confirm_ns), "msg/s");
    }
}

static void report_delivering(const struct loop *l, struct bench_report *r)
{
    double slowest = INFINITY, fastest = 0;
    uint64_t delivered = l->at_end.delivered - l->at_start.delivered;
    if (l->o->subscribers == 0)
        return;
    bench_report_number(r, "deliver", "messages", (double)delivered, "");
    bench_report_number(r, "deliver", "rate", loop_rate(l, delivered, l->last_deliver_ns), "msg/s");
    for (unsigned i = 0; i < l->o->subscribers; i++) {
        const struct subscriber *s = &l->subscribers[i];
        double rate = loop_rate(l, s->at_end - s->at_start, l->last_deliver_ns);
        slowest = fmin(slowest, rate);
        fastest = fmax(fastest, rate);
    }
    if (l->o->subscribers == 1)
        return;
    bench_report_number(r, "each subscriber", "slowest_rate", slowest, "msg/s");
    bench_report_number(r, "each subscriber", "fastest_rate", fastest, "msg/s");
}

static void report_generator(const struct loop *l, struct bench_report *r)
{
    uint64_t cpu_ns = l->phases.cpu_to_ns - l->phases.cpu_from_ns;
    uint64_t messages = l->at_end.published - l->at_start.published + l->at_end.delivered - l->at_start.delivered;
    bench_report_number(r, "load generator", "measured_s",
                        (double)(l->phases.measured_to_ns - l->phases.measured_from_ns) / 1e9, "");
    bench_report_number(r, "load generator", "cpu_s", (double)cpu_ns / 1e9, "");
    bench_report_number(r, "load generator", "cpu_ns_per_message", messages > 0 ? (double)cpu_ns / (double)messages : 0,
                        "");
    bench_report_number(r, "load generator", "per_core_rate", bench_rate(messages, 0, cpu_ns), "msg/s");
}

static struct bench_order_tally tally_all(struct loop *l)
{
    struct bench_order_tally all = {0};
    for (unsigned s = 0; s < l->o->subscribers; s++) {
        struct bench_order *order = l->subscribers[s].order;
        for (unsigned p = 0; p < l->o->publishers; p++)
            if (hears(l->o, s, p))
                bench_order_finish(order, p, l->publishers[p].flight.published, l->publishers[p].flight.refused);
        const struct bench_order_tally *t = bench_order_peek(order);
        all.missing += t->missing;
        all.duplicates += t->duplicates;
        all.reordered += t->reordered;
        all.redelivered += t->redelivered;
    }
    return all;
}

/* Answers the exit code. QoS 0 may lose, QoS 1 may double; neither may change the order. */
static int report_checks(struct loop *l, struct bench_report *r)
{
    const struct bench_mqtt_options *o = l->o;
    struct bench_order_tally all = {0};
    uint64_t unconfirmed = 0, refused = 0, expected = 0;
    for (unsigned i = 0; i < o->publishers; i++) {
        const struct publisher *p = &l->publishers[i];
        unconfirmed += o->qos > 0 ? p->flight.published - p->flight.settled : 0;
        refused += p->flight.refused;
        expected += (p->flight.published - p->flight.refused) * p->audience;
    }
    if (l->stamped)
        all = tally_all(l);
    else
        all.missing = expected > l->delivered ? expected - l->delivered : 0;
    bench_report_number(r, "checks", "missing", (double)all.missing, "");
    bench_report_number(r, "checks", "duplicates", (double)all.duplicates, "");
    bench_report_number(r, "checks", "reordered", (double)all.reordered, "");
    bench_report_number(r, "checks", "redelivered", (double)all.redelivered, "");
    bench_report_number(r, "checks", "foreign", (double)l->foreign, "");
    bench_report_number(r, "checks", "other_qos", (double)l->changed, "");
    bench_report_number(r, "checks", "unconfirmed", (double)unconfirmed, "");
    bench_report_number(r, "checks", "refused", (double)refused, "");
    bench_report_text(r, "checks", "order",
                      l->stamped ? "checked" : "not checked, the payload is too short for a stamp");
    uint64_t wrong = all.reordered + l->changed + unconfirmed;
    wrong += o->qos > 0 ? all.missing : 0;
    wrong += o->qos != 1 ? all.duplicates : 0;
    return wrong > 0 ? BENCH_EXIT_VIOLATION : BENCH_EXIT_OK;
}

static int passes_run(struct loop *l, struct bench_report *r)
{
    l->publishing = true;
    l->subscribing = l->o->subscribers > 0 && !l->o->offline;
    if (l->o->offline)
        subscribers_leave(l);
    loop_run(l);
    report_publishing(l, r);
    if (l->o->offline && !l->failed) {
        l->publishing = false;
        l->subscribing = true;
        if (subscribers_return(l) != 0)
            return BENCH_EXIT_FAILED;
        loop_run(l);
    }
    report_delivering(l, r);
    bench_report_latency(r, "confirm latency", l->confirm_latency);
    bench_report_latency(r, "end to end", l->transit);
    bench_report_latency(r, "all delivered", l->everybody);
    int checks = report_checks(l, r);
    report_generator(l, r);
    return l->failed ? BENCH_EXIT_FAILED : checks;
}

int bench_mqtt_run(const struct bench_mqtt_options *o, struct bench_report *r)
{
    struct loop l = {.o = o, .epoll = epoll_create1(EPOLL_CLOEXEC), .stamped = o->payload_bytes >= BENCH_STAMP_BYTES};
    l.publishers = bench_zeroed(o->publishers, sizeof(*l.publishers));
    l.subscribers = bench_zeroed(o->subscribers, sizeof(*l.subscribers));
    l.confirm_latency = bench_histogram_new();
    l.transit = bench_histogram_new();
    l.everybody = bench_histogram_new();
    for (unsigned i = 0; i < o->publishers; i++)
        l.publishers[i].link.wire.socket.fd = -1;
    for (unsigned i = 0; i < o->subscribers; i++)
        l.subscribers[i].link.wire.socket.fd = -1;
    int code = links_open(&l);
    if (code == 0)
        code = passes_run(&l, r);
    int tidy = links_close(&l);
    bench_histogram_free(l.confirm_latency);
    bench_histogram_free(l.transit);
    bench_histogram_free(l.everybody);
    free(l.publishers);
    free(l.subscribers);
    close(l.epoll);
    return code != 0 ? code : tidy;
}
