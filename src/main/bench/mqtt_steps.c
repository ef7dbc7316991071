/* Scenarios of `millrace bench mqtt` that do one thing after the other, blocking: connections and retained messages.
 *
 * connect: CONNECT and SUBSCRIBE leave in one write, as the specification allows (3.1.1 and 5.0, section 3.1.4), and --at-once
 * connections are under way before the first answer is waited for. Each subscribes to a topic of its own.
 *
 * retained: topics are NAME/n/m with m from 0 to 9, like devices with ten values each. All are set, then subscribed to with
 * NAME/#: every one must come once, with the retain flag and its payload. */
#include "mqtt_flight.h"
#include "mqtt_int.h"
#include "proto/mqtt/packet.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOGIN_IN_BYTES = 128, RETAINED_IN_BYTES = 256 * 1024, BATCH_BYTES = 64 * 1024, VALUES_PER_DEVICE = 10 };

/* Keeps connections alive while someone looks at the server, and tells that someone when to look. */
static int hold(const struct bench_mqtt_options *o, struct bench_mqtt_wire *wires, unsigned count)
{
    if (o->hold_s <= 0)
        return 0;
    fprintf(stderr, "holding for %.1f s\n", o->hold_s);
    fflush(stderr);
    uint64_t from_ns = client_clock_ns(), pinged_ns = from_ns;
    while (bench_seconds_since(from_ns) < o->hold_s && !bench_interrupted()) {
        poll(NULL, 0, 100);
        uint64_t now_ns = client_clock_ns(), keep_alive_ns = wires[0].keep_alive_s * BENCH_NS_PER_S;
        if (keep_alive_ns == 0 || now_ns - pinged_ns < keep_alive_ns / 2)
            continue;
        pinged_ns = now_ns;
        for (unsigned i = 0; i < count; i++)
            if (bench_mqtt_ping(&wires[i]) != 0)
                return bench_fail("holding", wires[i].socket.error);
    }
    return 0;
}

/* ---- connect ---- */

static int connect_ask(const struct bench_mqtt_options *o, struct bench_mqtt_wire *w, unsigned idx)
{
    char filter[BENCH_MQTT_TOPIC_BYTES], id[BENCH_MQTT_ID_BYTES];
    uint8_t more[BENCH_MQTT_TOPIC_BYTES + 64];
    snprintf(filter, sizeof(filter), "%s/%u", o->topic, idx);
    bench_mqtt_client_id(o, "c", idx, id);
    struct bench_mqtt_session session = {.client_id = id, .clean = true, .kept = o->durable};
    size_t len = bench_mqtt_subscribe_put(more, sizeof(more), o->server.version, filter, o->qos);
    return bench_mqtt_open_ask(w, &o->server, &session, LOGIN_IN_BYTES, slice_of(more, len));
}

static int connect_all(const struct bench_mqtt_options *o, struct bench_mqtt_wire *wires, struct bench_histogram *h,
                       unsigned *opened)
{
    uint64_t *asked_ns = bench_zeroed(o->at_once, sizeof(*asked_ns));
    int code = 0;
    while (code == 0 && *opened < o->connections && !bench_interrupted()) {
        unsigned first = *opened, left = o->connections - first, count = left < o->at_once ? left : o->at_once;
        for (unsigned i = 0; i < count && code == 0; i++) {
            asked_ns[i] = client_clock_ns();
            if (connect_ask(o, &wires[(*opened)++], first + i) != 0)
                code = bench_fail("connecting", wires[first + i].socket.error);
        }
        for (unsigned i = 0; i < count && code == 0; i++) {
            struct bench_mqtt_wire *w = &wires[first + i];
            if (bench_mqtt_open_answer(w) != 0 || bench_mqtt_subscribe_answer(w, o->qos) != 0)
                code = bench_fail("connecting", w->socket.error);
            bench_histogram_add(h, client_clock_ns() - asked_ns[i], 1);
        }
        bench_progress(o->progress, "connected", *opened, o->connections);
    }
    free(asked_ns);
    return code;
}

int bench_mqtt_connect(const struct bench_mqtt_options *o, struct bench_report *r)
{
    struct bench_mqtt_wire *wires = bench_zeroed(o->connections, sizeof(*wires));
    struct bench_histogram *h = bench_histogram_new();
    unsigned opened = 0;
    uint64_t begun_ns = client_clock_ns();
    int code = connect_all(o, wires, h, &opened);
    if (code == 0) {
        bench_report_connects(r, opened, bench_seconds_since(begun_ns), h);
        code = hold(o, wires, opened);
    }
    for (unsigned i = 0; i < opened; i++)
        bench_mqtt_close(&wires[i]);
    free(wires);
    bench_histogram_free(h);
    return code;
}

/* ---- retained ---- */

static void retained_topic(const struct bench_mqtt_options *o, unsigned idx, char *ret)
{
    snprintf(ret, BENCH_MQTT_TOPIC_BYTES, "%s/%u/%u", o->topic, idx / VALUES_PER_DEVICE, idx % VALUES_PER_DEVICE);
}

/* The number of a topic of ours; UINT32_MAX: it is none. What is read is written again, so that only our own writing counts. */
static uint32_t retained_number(const struct bench_mqtt_options *o, struct slice topic)
{
    char text[BENCH_MQTT_TOPIC_BYTES], again[BENCH_MQTT_TOPIC_BYTES], *rest;
    size_t name_len = strlen(o->topic);
    if (topic.len >= sizeof(text) || topic.len <= name_len + 1)
        return UINT32_MAX;
    memcpy(text, topic.ptr, topic.len);
    text[topic.len] = '\0';
    unsigned long device = strtoul(text + name_len + 1, &rest, 10);
    unsigned long value = *rest == '/' ? strtoul(rest + 1, NULL, 10) : VALUES_PER_DEVICE;
    if (device > o->topics || value >= VALUES_PER_DEVICE)
        return UINT32_MAX;
    unsigned number = (unsigned)(device * VALUES_PER_DEVICE + value);
    retained_topic(o, number, again);
    return strcmp(text, again) == 0 ? number : UINT32_MAX;
}

struct setting {
    const struct bench_mqtt_options *o;
    struct bench_mqtt_wire wire;
    struct bench_mqtt_flight flight;
    uint8_t *out, *payload;
    size_t out_len, out_cap, payload_bytes;
    unsigned made; /* topics that are set */
};

static int setting_flush(struct setting *s)
{
    int failed = client_socket_send(&s->wire.socket, s->out, s->out_len);
    s->out_len = 0;
    return failed;
}

/* Takes one acknowledgement, and with QoS 2 goes on. */
static int setting_receive(struct setting *s)
{
    struct bench_mqtt_packet p;
    uint64_t sent_ns;
    uint16_t id;
    uint8_t reason;
    if (bench_mqtt_receive(&s->wire, &p) != 0 || bench_mqtt_ack_read(&s->wire, &p, &id, &reason) != 0)
        return -1;
    switch (bench_mqtt_flight_on_ack(&s->flight, (unsigned)bench_mqtt_type(&p), id, reason, &sent_ns)) {
    case BENCH_MQTT_STEP_RELEASE: {
        uint8_t release[BENCH_MQTT_ACK_BYTES];
        bench_mqtt_ack_put(release, BENCH_MQTT_PUBREL, id);
        return client_socket_send(&s->wire.socket, release, sizeof(release));
    }
    case BENCH_MQTT_STEP_SETTLED: return 0;
    case BENCH_MQTT_STEP_REFUSED: return client_socket_fail(&s->wire.socket, "a retained message was refused");
    case BENCH_MQTT_STEP_WRONG: break;
    }
    return bench_mqtt_unasked(&s->wire, &p);
}

static int setting_put(struct setting *s, unsigned idx)
{
    char topic[BENCH_MQTT_TOPIC_BYTES];
    retained_topic(s->o, idx, topic);
    while (bench_mqtt_flight_room(&s->flight) == 0)
        if ((s->out_len > 0 && setting_flush(s) != 0) || setting_receive(s) != 0)
            return -1;
    uint64_t seq = bench_mqtt_flight_send(&s->flight, client_clock_ns());
    union mqtt_fields f = {.publish = {.qos = s->o->qos,
                                       .retain = true,
                                       .id = s->o->qos > 0 ? bench_mqtt_flight_id(seq) : 0,
                                       .topic = slice_str(topic),
                                       .payload = slice_of(s->payload, s->payload_bytes)}};
    struct writer w = writer_of(s->out + s->out_len, s->out_cap - s->out_len);
    mqtt_encode(&w, MQTT_publish, s->wire.version, &f);
    s->out_len += w.len;
    return s->out_len >= BATCH_BYTES ? setting_flush(s) : 0;
}

/* The server answers in order: with QoS 0 the answer to a ping comes after it has read everything before. */
static int setting_end(struct setting *s)
{
    struct bench_mqtt_packet p;
    if (setting_flush(s) != 0)
        return -1;
    while (s->o->qos > 0 && s->flight.settled < s->flight.published)
        if (setting_receive(s) != 0)
            return -1;
    if (bench_mqtt_ping(&s->wire) != 0 || bench_mqtt_receive(&s->wire, &p) != 0)
        return -1;
    return bench_mqtt_type(&p) == BENCH_MQTT_PINGRESP ? 0 : bench_mqtt_unasked(&s->wire, &p);
}

/* Sets all topics, until it is interrupted; or with no payload clears those that are set. */
static int retained_set(struct setting *s, size_t payload_bytes, double *ret_took_s)
{
    uint64_t from_ns = client_clock_ns();
    unsigned count = payload_bytes > 0 ? s->o->topics : s->made;
    s->payload_bytes = payload_bytes;
    for (unsigned i = 0; i < count && !(payload_bytes > 0 && bench_interrupted()); i++) {
        if (setting_put(s, i) != 0)
            return bench_fail("publishing", s->wire.socket.error);
        s->made = payload_bytes > 0 ? i + 1u : s->made;
        bench_progress(s->o->progress, payload_bytes > 0 ? "set" : "cleared", i + 1u, count);
    }
    if (setting_end(s) != 0)
        return bench_fail("publishing", s->wire.socket.error);
    *ret_took_s = bench_seconds_since(from_ns);
    return 0;
}

struct getting {
    const struct bench_mqtt_options *o;
    struct bench_mqtt_wire wire;
    uint8_t *seen; /* bit by number */
    uint64_t count, doubled, wrong;
    uint64_t first_ns, last_ns;
    uint8_t acks[RETAINED_IN_BYTES];
    size_t acks_len;
};

static void getting_note(struct getting *g, const struct bench_mqtt_message *m)
{
    uint32_t number = retained_number(g->o, m->topic);
    if (number >= g->o->topics || !m->retain || m->payload.len != g->o->payload_bytes || m->qos != g->o->qos) {
        g->wrong++;
        return;
    }
    uint8_t bit = (uint8_t)(1u << (number & 7));
    g->doubled += (g->seen[number / 8] & bit) != 0;
    g->count += (g->seen[number / 8] & bit) == 0;
    g->seen[number / 8] |= bit;
}

static int getting_on_packet(struct getting *g, const struct bench_mqtt_packet *p)
{
    struct bench_mqtt_message m;
    uint8_t reason;
    uint16_t id;
    enum bench_mqtt_type answer = BENCH_MQTT_PUBCOMP;
    switch (bench_mqtt_type(p)) {
    case BENCH_MQTT_SUBACK:
        if (p->len < 3 || p->body[p->len - 1] >= 0x80)
            return client_socket_fail(&g->wire.socket, "the server refuses the subscription");
        return 0;
    case BENCH_MQTT_PUBREL:
        if (bench_mqtt_ack_read(&g->wire, p, &id, &reason) != 0)
            return -1;
        break;
    case BENCH_MQTT_PUBLISH:
        if (bench_mqtt_message_read(&g->wire, p, &m) != 0)
            return -1;
        getting_note(g, &m);
        if (m.qos == 0)
            return 0;
        id = m.id;
        answer = m.qos == 1 ? BENCH_MQTT_PUBACK : BENCH_MQTT_PUBREC;
        break;
    default: return bench_mqtt_unasked(&g->wire, p);
    }
    if (g->acks_len + BENCH_MQTT_ACK_BYTES > sizeof(g->acks))
        return client_socket_fail(&g->wire.socket, "more to acknowledge than was read");
    bench_mqtt_ack_put(g->acks + g->acks_len, answer, id);
    g->acks_len += BENCH_MQTT_ACK_BYTES;
    return 0;
}

/* Until all have come, or nothing has for the time of --drain. */
static int getting_run(struct getting *g)
{
    struct bench_mqtt_packet p;
    while (g->count < g->o->topics) {
        ssize_t n = client_socket_fill(&g->wire.socket);
        if (n <= 0)
            return (int)n;
        uint64_t now_ns = client_clock_ns();
        int got;
        while ((got = bench_mqtt_next(&g->wire, &p)) > 0)
            if (getting_on_packet(g, &p) != 0)
                return -1;
        if (got < 0 || client_socket_send(&g->wire.socket, g->acks, g->acks_len) != 0)
            return -1;
        g->acks_len = 0;
        if (g->first_ns == 0 && g->count > 0)
            g->first_ns = now_ns;
        g->last_ns = now_ns;
    }
    return 0;
}

/* A new subscriber, until it has everything. Counts what is wrong into `sum`. */
static int retained_get(const struct bench_mqtt_options *o, unsigned round, struct getting *sum,
                        struct bench_histogram *first, struct bench_histogram *last)
{
    struct getting *g = bench_zeroed(1, sizeof(*g));
    char filter[BENCH_MQTT_TOPIC_BYTES], id[BENCH_MQTT_ID_BYTES];
    uint8_t ask[BENCH_MQTT_TOPIC_BYTES + 64];
    struct bench_mqtt_session session = {.client_id = id, .clean = true};
    g->o = o;
    g->seen = bench_zeroed(o->topics / 8 + 1, 1);
    snprintf(filter, sizeof(filter), "%s/#", o->topic);
    bench_mqtt_client_id(o, "r", round, id);
    int failed = bench_mqtt_open(&g->wire, &o->server, &session, RETAINED_IN_BYTES);
    uint64_t from_ns = client_clock_ns();
    if (failed == 0) {
        size_t len = bench_mqtt_subscribe_put(ask, sizeof(ask), o->server.version, filter, o->qos);
        client_socket_patience(&g->wire.socket, (uint64_t)(o->drain_s * 1000) + 1);
        failed = client_socket_send(&g->wire.socket, ask, len) != 0 || getting_run(g) != 0;
    }
    if (failed != 0)
        bench_fail("subscribing", g->wire.socket.error);
    if (failed == 0 && g->first_ns > 0) {
        bench_histogram_add(first, g->first_ns - from_ns, 1);
        bench_histogram_add(last, g->last_ns - from_ns, 1);
    }
    sum->count += g->count;
    sum->doubled += g->doubled;
    sum->wrong += g->wrong;
    bench_mqtt_close(&g->wire);
    free(g->seen);
    free(g);
    return failed != 0 ? BENCH_EXIT_FAILED : 0;
}

static int retained_read(const struct bench_mqtt_options *o, struct bench_report *r)
{
    struct bench_histogram *first = bench_histogram_new(), *last = bench_histogram_new();
    struct getting *sum = bench_zeroed(1, sizeof(*sum));
    int code = 0;
    unsigned rounds = 0;
    while (rounds < o->subscribers && code == 0 && !bench_interrupted())
        code = retained_get(o, rounds++, sum, first, last);
    uint64_t missing = (uint64_t)o->topics * rounds - sum->count;
    if (code == 0) {
        bench_report_number(r, "subscribe", "first_ms", (double)bench_histogram_quantile(first, 0.5) / 1e6, "ms");
        bench_report_number(r, "subscribe", "last_ms", (double)bench_histogram_quantile(last, 0.5) / 1e6, "ms");
        bench_report_number(r, "checks", "missing", (double)missing, "");
        bench_report_number(r, "checks", "duplicates", (double)sum->doubled, "");
        bench_report_number(r, "checks", "wrong", (double)sum->wrong, "");
        code = missing + sum->doubled + sum->wrong > 0 ? BENCH_EXIT_VIOLATION : 0;
    }
    bench_histogram_free(first);
    bench_histogram_free(last);
    free(sum);
    return code;
}

int bench_mqtt_retained(const struct bench_mqtt_options *o, struct bench_report *r)
{
    struct setting s = {.o = o, .out_cap = 2 * BATCH_BYTES + o->payload_bytes};
    char id[BENCH_MQTT_ID_BYTES];
    struct bench_mqtt_session session = {.client_id = id, .clean = true};
    double took_s = 0;
    bench_mqtt_client_id(o, "w", 0, id);
    int code = bench_mqtt_open(&s.wire, &o->server, &session, BATCH_BYTES) != 0
                   ? bench_fail("connecting", s.wire.socket.error)
                   : 0;
    s.out = bench_zeroed(1, s.out_cap);
    s.payload = bench_zeroed(1, o->payload_bytes);
    memset(s.payload, 'x', o->payload_bytes);
    bench_mqtt_flight_init(&s.flight, o->qos, o->window < s.wire.receive_max ? o->window : s.wire.receive_max);
    if (code == 0 && (code = retained_set(&s, o->payload_bytes, &took_s)) == 0) {
        bench_report_number(r, "set", "topics", s.made, "");
        bench_report_number(r, "set", "seconds", took_s, "");
        bench_report_number(r, "set", "rate", s.made / took_s, "topics/s");
        code = hold(o, &s.wire, 1);
    }
    if (code == 0 && !bench_interrupted())
        code = retained_read(o, r);
    if (code != BENCH_EXIT_FAILED && !o->keep) {
        int cleared = retained_set(&s, 0, &took_s);
        bench_report_number(r, "clear", "seconds", took_s, "");
        code = cleared != 0 ? cleared : code;
    }
    bench_mqtt_close(&s.wire);
    bench_mqtt_flight_fini(&s.flight);
    free(s.out);
    free(s.payload);
    return code;
}
