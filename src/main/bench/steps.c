/* The scenarios that do one thing after another and wait for each answer: declare, connect, latency, get, fdatasync.
 *
 * Sockets are blocking here: a round trip is one send and one recv, so the load generator adds as little as it can to the
 * latency it measures. Nothing is concurrent; the caller's thread does everything.
 */
#include "amqp_int.h"
#include "main/client/clock.h"
#include "probe.h"
#include "template.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LATENCY_WARMUP_ROUNDS = 200, ROUNDS_DEFAULT = 5000, GET_MESSAGES_DEFAULT = 10000 };

/* Keeps connections alive while someone looks at the server, and tells that someone when to look. */
static int hold(const struct bench_options *o, struct bench_wire *wires, unsigned count)
{
    static const uint8_t HEARTBEAT[BENCH_FRAME_OVERHEAD] = {BENCH_FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, BENCH_FRAME_END};
    if (o->hold_s <= 0)
        return 0;
    fprintf(stderr, "holding for %.1f s\n", o->hold_s);
    fflush(stderr);
    uint64_t from_ns = client_clock_ns();
    while (bench_seconds_since(from_ns) < o->hold_s && !bench_interrupted()) {
        poll(NULL, 0, 100);
        for (unsigned i = 0; i < count; i++) {
            struct bench_wire *w = &wires[i];
            uint64_t quiet_ns = client_clock_ns() - w->socket.wrote_at_ns;
            if (w->heartbeat_s > 0 && quiet_ns > w->heartbeat_s * BENCH_NS_PER_S / 2 &&
                client_socket_send(&w->socket, HEARTBEAT, sizeof(HEARTBEAT)) != 0)
                return bench_fail("holding", w->socket.error);
        }
    }
    return 0;
}

/* ---- queues, also for the other scenarios ---- */

void bench_queue_name(const struct bench_options *o, unsigned idx, char *ret_name)
{
    if (o->queues == 1)
        snprintf(ret_name, BENCH_QUEUE_NAME_BYTES, "%s", o->queue);
    else
        snprintf(ret_name, BENCH_QUEUE_NAME_BYTES, "%s-%u", o->queue, idx);
}

int bench_queues_set_up(const struct bench_options *o)
{
    struct bench_wire w;
    char queue[BENCH_QUEUE_NAME_BYTES];
    int failed = bench_wire_open(&w, &o->uri, &o->limits);
    for (unsigned i = 0; i < o->queues && failed == 0; i++) {
        bench_queue_name(o, i, queue);
        failed = bench_wire_queue_declare(&w, queue, &o->queue_kind);
        bool stream = o->queue_kind.type != NULL && strcmp(o->queue_kind.type, "stream") == 0; /* cannot be emptied */
        if (failed == 0 && o->producers > 0 && !stream)
            failed = bench_wire_queue_purge(&w, queue);
    }
    if (failed != 0)
        bench_fail("setting up queues", w.socket.error);
    bench_wire_close(&w);
    return failed;
}

int bench_queues_tear_down(const struct bench_options *o)
{
    struct bench_wire w;
    char queue[BENCH_QUEUE_NAME_BYTES];
    if (o->queue_kept)
        return 0;
    int failed = bench_wire_open(&w, &o->uri, &o->limits);
    for (unsigned i = 0; i < o->queues && failed == 0; i++) {
        bench_queue_name(o, i, queue);
        failed = bench_wire_queue_delete(&w, queue);
    }
    if (failed != 0)
        bench_fail("deleting queues", w.socket.error);
    bench_wire_close(&w);
    return failed != 0 ? BENCH_EXIT_FAILED : 0;
}

/* ---- declare ---- */

/* Declares them until it is interrupted, and counts them into *made; or deletes so many. */
static int each_queue(const struct bench_options *o, struct bench_wire *w, bool declare, unsigned *made,
                      struct bench_histogram *h)
{
    char queue[BENCH_QUEUE_NAME_BYTES];
    unsigned count = declare ? o->queues : *made;
    for (unsigned i = 0; i < count && !(declare && bench_interrupted()); i++) {
        bench_queue_name(o, i, queue);
        uint64_t from_ns = client_clock_ns();
        int failed = declare ? bench_wire_queue_declare(w, queue, &o->queue_kind) : bench_wire_queue_delete(w, queue);
        if (failed != 0)
            return bench_fail(declare ? "declaring" : "deleting", w->socket.error);
        bench_histogram_add(h, client_clock_ns() - from_ns, 1);
        *made = declare ? i + 1u : *made;
        bench_progress(o->progress, declare ? "declared" : "deleted", i + 1u, count);
    }
    return 0;
}

int bench_steps_declare(const struct bench_options *o, struct bench_report *r)
{
    struct bench_wire w;
    struct bench_histogram *h = bench_histogram_new();
    int code = 0;
    unsigned made = 0;
    if (bench_wire_open(&w, &o->uri, &o->limits) != 0)
        code = bench_fail("connecting", w.socket.error);
    uint64_t from_ns = client_clock_ns();
    if (code == 0 && (code = each_queue(o, &w, true, &made, h)) == 0) {
        double took_s = bench_seconds_since(from_ns);
        bench_report_number(r, "declare", "queues", made, "");
        bench_report_number(r, "declare", "seconds", took_s, "");
        bench_report_number(r, "declare", "rate", made / took_s, "queues/s");
        bench_report_latency(r, "declare latency", h);
        code = hold(o, &w, 1);
    }
    bench_histogram_reset(h);
    from_ns = client_clock_ns();
    if (code == 0 && !o->queue_kept && (code = each_queue(o, &w, false, &made, h)) == 0) {
        double took_s = bench_seconds_since(from_ns);
        bench_report_number(r, "delete", "seconds", took_s, "");
        bench_report_number(r, "delete", "rate", made / took_s, "queues/s");
        bench_report_latency(r, "delete latency", h);
    }
    bench_wire_close(&w);
    bench_histogram_free(h);
    return code;
}

/* ---- connect ---- */

int bench_steps_connect(const struct bench_options *o, struct bench_report *r)
{
    struct bench_wire *wires = calloc(o->connections, sizeof(*wires));
    struct bench_histogram *h = bench_histogram_new();
    struct bench_wire_limits limits = o->limits;
    int code = wires == NULL ? bench_fail("connecting", "out of memory") : 0;
    unsigned opened = 0;
    limits.in_bytes = 0;
    uint64_t begun_ns = client_clock_ns();
    while (code == 0 && opened < o->connections && !bench_interrupted()) {
        uint64_t from_ns = client_clock_ns();
        if (bench_wire_open(&wires[opened++], &o->uri, &limits) != 0)
            code = bench_fail("connecting", wires[opened - 1].socket.error);
        bench_histogram_add(h, client_clock_ns() - from_ns, 1);
        bench_progress(o->progress, "connected", opened, o->connections);
    }
    if (code == 0) {
        bench_report_connects(r, opened, bench_seconds_since(begun_ns), h);
        code = hold(o, wires, opened);
    }
    for (unsigned i = 0; i < opened; i++)
        bench_wire_close(&wires[i]);
    free(wires);
    bench_histogram_free(h);
    return code;
}

/* ---- latency ---- */

/* One publish, and its confirm. Answers -1 when the server did not confirm exactly that. */
static int round_trip(struct bench_wire *w, struct bench_template *t, uint64_t seq, uint64_t *ret_took_ns)
{
    struct bench_frame f;
    uint64_t from_ns = client_clock_ns();
    bench_template_stamp(t, 0, seq, from_ns);
    if (client_socket_send(&w->socket, t->slots, t->slot_len) != 0 || bench_wire_receive(w, &f) != 0)
        return -1;
    *ret_took_ns = client_clock_ns() - from_ns;
    if (bench_frame_method(&f) != BENCH_BASIC_ACK || f.len < 13 || bench_get_u64(f.payload + 4) != seq) {
        snprintf(w->socket.error, sizeof(w->socket.error), "publish %llu was not confirmed", (unsigned long long)seq);
        return -1;
    }
    return 0;
}

struct latency_run {
    struct bench_wire wire;
    struct bench_template template;
    struct bench_probe probe;
    struct bench_histogram *confirms, *syncs;
};

/* Publishes and probe syncs take turns, so both see the same disk in the same second. */
static int latency_rounds(const struct bench_options *o, struct latency_run *run)
{
    uint64_t rounds = o->messages > 0 ? o->messages : UINT64_MAX, took_ns, sync_ns = 0;
    uint64_t from_ns = client_clock_ns(), until_ns = from_ns + (uint64_t)((o->warmup_s + o->duration_s) * 1e9);
    uint64_t warm_ns = from_ns + (uint64_t)(o->warmup_s * 1e9);
    for (uint64_t i = 1; i <= rounds && !bench_interrupted(); i++) {
        if (round_trip(&run->wire, &run->template, i, &took_ns) != 0)
            return bench_fail("latency", run->wire.socket.error);
        if (run->syncs != NULL && bench_probe_sync(&run->probe, &sync_ns) != 0)
            return bench_fail(o->probe_dir, strerror(errno));
        uint64_t now_ns = client_clock_ns();
        if (o->messages == 0 && now_ns >= until_ns)
            break;
        if (o->messages > 0 ? i <= LATENCY_WARMUP_ROUNDS && rounds > 2 * LATENCY_WARMUP_ROUNDS : now_ns < warm_ns)
            continue;
        bench_histogram_add(run->confirms, took_ns, 1);
        if (run->syncs != NULL)
            bench_histogram_add(run->syncs, sync_ns, 1);
        bench_progress(o->progress, "confirmed", i, rounds == UINT64_MAX ? 0 : rounds);
    }
    return 0;
}

static int latency_open(const struct bench_options *o, struct latency_run *run)
{
    char queue[BENCH_QUEUE_NAME_BYTES];
    bench_queue_name(o, 0, queue);
    if (bench_wire_open(&run->wire, &o->uri, &o->limits) != 0 || bench_wire_confirm_select(&run->wire) != 0)
        return bench_fail("latency", run->wire.socket.error);
    struct bench_template_body body = {
        .body_bytes = o->body_bytes, .frame_max = run->wire.frame_max, .run_id = o->run_id, .slots_max = 1};
    if (bench_template_publish(&run->template, &body, queue, o->persistent, false) != 0)
        return bench_fail("latency", "out of memory");
    if (o->probe_dir == NULL)
        return 0;
    if (bench_probe_open(&run->probe, o->probe_dir) != 0)
        return bench_fail(o->probe_dir, strerror(errno));
    run->syncs = bench_histogram_new();
    return 0;
}

int bench_steps_latency(const struct bench_options *o, struct bench_report *r)
{
    struct latency_run run = {.wire.socket.fd = -1, .probe.fd = -1, .confirms = bench_histogram_new()};
    if (bench_queues_set_up(o) != 0) {
        bench_histogram_free(run.confirms);
        return BENCH_EXIT_FAILED;
    }
    int code = latency_open(o, &run);
    if (code == 0)
        code = latency_rounds(o, &run);
    bench_report_number(r, "rounds", "messages", (double)bench_histogram_count(run.confirms), "");
    bench_report_latency(r, "confirm latency", run.confirms);
    if (run.syncs != NULL) {
        bench_report_syncs(r, run.confirms, run.syncs);
        bench_histogram_free(run.syncs);
    }
    bench_probe_close(&run.probe);
    bench_template_fini(&run.template);
    bench_wire_close(&run.wire);
    bench_histogram_free(run.confirms);
    int tidy = bench_queues_tear_down(o);
    return code != 0 ? code : tidy;
}

/* ---- get ---- */

static int get_fill(const struct bench_options *o, struct bench_report *r, uint64_t count)
{
    struct bench_options fill = *o;
    fill.producers = 1;
    fill.consumers = 0;
    fill.queues = 1;
    fill.window = 1000;
    fill.messages = count;
    fill.rate = 0;
    fill.queue_kept = true;
    return bench_run_publish_consume(&fill, r);
}

/* One basic.get with its content; answers 1 for a message, 0 for get-empty. */
static int get_one(struct bench_wire *w, const uint8_t *ask, size_t ask_len, uint64_t *ret_tag)
{
    struct bench_frame f;
    if (client_socket_send(&w->socket, ask, ask_len) != 0 || bench_wire_receive(w, &f) != 0)
        return -1;
    if (bench_frame_method(&f) == BENCH_BASIC_GET_EMPTY)
        return 0;
    if (bench_frame_method(&f) != BENCH_BASIC_GET_OK || f.len < 12)
        return bench_wire_frame_bad(w);
    *ret_tag = bench_get_u64(f.payload + 4);
    if (bench_wire_receive(w, &f) != 0)
        return -1;
    if (f.type != BENCH_FRAME_HEADER || f.len < 14)
        return bench_wire_frame_bad(w);
    for (uint64_t left = bench_get_u64(f.payload + 4); left > 0; left -= f.len)
        if (bench_wire_receive(w, &f) != 0 || f.type != BENCH_FRAME_BODY || f.len > left)
            return w->socket.error[0] != '\0' ? -1 : bench_wire_frame_bad(w);
    return 1;
}

static int get_all(const struct bench_options *o, struct bench_wire *w, struct bench_histogram *h)
{
    uint8_t ask_bytes[512], ack_bytes[64];
    struct bench_writer ask = {.bytes = ask_bytes, .cap = sizeof(ask_bytes)};
    bench_put_method_begin(&ask, 1, BENCH_BASIC_GET);
    bench_put_u16(&ask, 0);
    bench_put_shortstr(&ask, o->queue);
    bench_put_u8(&ask, o->auto_ack ? 1 : 0);
    bench_put_frame_end(&ask);
    while (!bench_interrupted()) {
        uint64_t tag = 0, from_ns = client_clock_ns();
        int got = get_one(w, ask.bytes, ask.at, &tag);
        if (got <= 0)
            return got < 0 ? bench_fail("get", w->socket.error) : 0;
        bench_histogram_add(h, client_clock_ns() - from_ns, 1);
        if (o->auto_ack)
            continue;
        struct bench_writer ack = {.bytes = ack_bytes, .cap = sizeof(ack_bytes)};
        bench_put_method_begin(&ack, 1, BENCH_BASIC_ACK);
        bench_put_u64(&ack, tag);
        bench_put_u8(&ack, 0);
        bench_put_frame_end(&ack);
        if (client_socket_send(&w->socket, ack.bytes, ack.at) != 0)
            return bench_fail("get", w->socket.error);
    }
    return 0;
}

int bench_steps_get(const struct bench_options *o, struct bench_report *r)
{
    uint64_t count = o->messages > 0 ? o->messages : GET_MESSAGES_DEFAULT;
    int code = get_fill(o, r, count);
    if (code == BENCH_EXIT_FAILED)
        return code;
    struct bench_wire w = {.socket.fd = -1};
    struct bench_histogram *h = bench_histogram_new();
    if (code == 0 && bench_wire_open(&w, &o->uri, &o->limits) != 0)
        code = bench_fail("get", w.socket.error);
    uint64_t from_ns = client_clock_ns();
    if (code == 0 && (code = get_all(o, &w, h)) == 0) {
        double took_s = bench_seconds_since(from_ns);
        uint64_t got = bench_histogram_count(h);
        bench_report_number(r, "get", "messages", (double)got, "");
        bench_report_number(r, "get", "rate", (double)got / took_s, "msg/s");
        bench_report_latency(r, "get latency", h);
        code = got == count || bench_interrupted() ? 0 : BENCH_EXIT_VIOLATION;
    }
    bench_wire_close(&w);
    bench_histogram_free(h);
    int tidy = bench_queues_tear_down(o);
    return code != 0 ? code : tidy;
}

/* ---- fdatasync ---- */

int bench_steps_fdatasync(const struct bench_options *o, struct bench_report *r)
{
    struct bench_probe probe;
    const char *dir = o->data_dir != NULL ? o->data_dir : ".";
    uint64_t rounds = o->messages > 0 ? o->messages : ROUNDS_DEFAULT, took_ns;
    if (bench_probe_open(&probe, dir) != 0)
        return bench_fail(dir, strerror(errno));
    struct bench_histogram *h = bench_histogram_new();
    int code = 0;
    for (uint64_t i = 1; i <= rounds && code == 0 && !bench_interrupted(); i++) {
        if (bench_probe_sync(&probe, &took_ns) != 0)
            code = bench_fail(dir, strerror(errno));
        else
            bench_histogram_add(h, took_ns, 1);
        bench_progress(o->progress, "synced", i, rounds);
    }
    bench_report_number(r, "fdatasync", "count", (double)bench_histogram_count(h), "");
    bench_report_latency(r, "fdatasync", h);
    bench_histogram_free(h);
    bench_probe_close(&probe);
    return code;
}
