/* Fuzz target of the MQTT engine: two clients that are connected, in front of the real core with a journal in memory.
 * fuzz: -max_len=4096
 * covers: src/proto/mqtt/engine.c src/proto/mqtt/connect.c src/proto/mqtt/publish.c src/proto/mqtt/subscribe.c
 * covers: src/proto/mqtt/deliver.c src/proto/mqtt/mapping.c src/proto/mqtt/topic.c src/proto/mqtt/packet.c
 *
 * Input: one byte of modes, then steps. Mode bits: 1 the first client speaks 3.1.1, 2 so does the second (else 5.0); 4 the journal becomes
 * durable late; 8 it is replayed into a second core at the end. A step: a byte: low half the type of a packet, bit 4 who sends it, bit
 * 5 nothing is waited for before the next; a byte for its flags (PUBLISH takes its low half, others theirs from the table unless bit 7 is
 * set), a byte for the length of the body, the body. Type 0 is: a byte of what: bit 0 time passes (a byte, 100 ms each), bit 1
 * the connection is cut off, bit 2 it connects again (bit 3: clean), bit 4 the packet is raw bytes.
 *
 * Both clients have an id, a session that lasts, and a will. Whatever comes: what leaves are packets that a client takes, the core's
 * invariants hold, what is journalled replays into the same state, and nothing is leaked. */
#include "base/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The rigs are the unit tests'; a test that fails is a finding here. */
#define CMOCKA_H_
#define assert_true(what) CHECK(what)
#define assert_false(what) CHECK(!(what))
#define assert_null(what) CHECK(!(what))
#define assert_non_null(what) CHECK(what)
#define assert_int_equal(a, b) CHECK((uint64_t)(a) == (uint64_t)(b))
#define assert_string_equal(a, b) CHECK(strcmp(a, b) == 0)
#define assert_memory_equal(a, b, n) CHECK(memcmp(a, b, n) == 0)
#define print_error(...) fprintf(stderr, __VA_ARGS__)
#define _fail(file, line) abort()
#define fail_msg(...) (fprintf(stderr, __VA_ARGS__), abort())

#include "core/broker_rig_test.h"
#include "proto/mqtt/mqtt_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { OLD_FIRST = 1, OLD_SECOND = 2, LATE = 4, REPLAY = 8 };
enum { CLIENTS = 2, BYTES_MAX = 1 << 20 };

struct client {
    struct engine *engine; /* NULL: closed */
    uint8_t version;
    uint8_t *in, *out;
    size_t in_len, out_len;
};

struct world {
    struct rig *core;
    struct hub *hub;
    struct mqtt_totals totals;
    struct mqtt_options options;
    struct list dirty;
    struct client clients[CLIENTS];
};

/* ---- what leaves must be packets ---- */

static void take_out(struct client *c)
{
    struct outq *q = &c->engine->out;
    struct iovec v;
    struct mqtt_frame frame;
    union mqtt_fields f;
    size_t at = 0;
    while (q->len) {
        CHECK(outq_peek(q, &v, 1) == 1 && c->out_len + v.iov_len <= BYTES_MAX);
        memcpy(c->out + c->out_len, v.iov_base, v.iov_len);
        c->out_len += v.iov_len;
        outq_consume(q, v.iov_len);
    }
    while (mqtt_cut(slice_of(c->out + at, c->out_len - at), SIZE_MAX, &frame) == MQTT_CUT_OK) {
        const struct mqtt *m = CONTAINER_OF(c->engine, struct mqtt, session.engine);
        CHECK(mqtt_decode(&frame, m->version ? m->version : MQTT_3_1_1, MQTT_SERVER, &f) == 0);
        if (frame.type == MQTT_publish) {
            CHECK(f.publish.topic.len == 0 ? mqtt_has(&f.publish.props, MQTT_P_topic_alias)
                                           : mqtt_topic_valid(f.publish.topic));
            CHECK(frame.len <= m->packet_max);
        }
        at += frame.len;
    }
    memmove(c->out, c->out + at, c->out_len - at);
    c->out_len -= at;
}

/* ---- driving ---- */

static void client_close(struct client *c)
{
    if (!c->engine)
        return;
    if (!c->engine->out.failed)
        take_out(c);
    c->engine->ops->closed(c->engine);
    c->engine = NULL;
    c->in_len = c->out_len = 0;
}

static bool client_turn(struct world *w, struct client *c)
{
    struct engine *engine = c->engine;
    bool moved = false;
    if (!engine)
        return false;
    engine->in_dirty = false;
    engine->now = w->core->now;
    if (w->core->now >= engine->next_tick)
        engine->next_tick = engine->ops->tick(engine, w->core->now);
    if (c->in_len && !engine->paused && !engine->want_close) {
        size_t used = engine->ops->feed(engine, slice_of(c->in, c->in_len));
        CHECK(used <= c->in_len);
        memmove(c->in, c->in + used, c->in_len - used);
        c->in_len -= used;
        moved = used > 0;
    }
    if (engine->out.len && !engine->out.failed) {
        take_out(c);
        engine->ops->drained(engine);
        moved = true;
    }
    if (engine->want_close || engine->out.failed) {
        client_close(c);
        moved = true;
    }
    return moved;
}

static bool world_turn(struct world *w)
{
    struct rig *core = w->core;
    size_t before = core->log->count;
    bool moved = hub_publish(w->hub);
    if (!core->hold)
        core->durable = core->log->count;
    moved |= broker_step(core->b, core->now, core->wall, core->durable);
    rig_worker(core);
    rig_store_serve(core->b, core->log, 64);
    moved |= !ring_empty(&broker_port(core->b, 0)->effects) || before != core->log->count ||
             !ring_empty(&broker_port(core->b, 1)->commands);
    hub_turn(w->hub, core->durable, core->now);
    while (!list_empty(&w->dirty))
        list_remove(w->dirty.next);
    for (int i = 0; i < CLIENTS; i++)
        moved |= client_turn(w, &w->clients[i]);
    return moved;
}

static void come_to_rest(struct world *w)
{
    for (unsigned i = 0, still = 0; i < 10000 && still < 3; i++)
        still = world_turn(w) ? 0 : still + 1;
}

static void world_rest(struct world *w)
{
    for (int i = 0; i < 3; i++) {
        come_to_rest(w);
        if (!w->core->hold)
            break;
        w->core->durable = w->core->log->count;
    }
}

static void world_pass(struct world *w, int64_t ms)
{
    for (int64_t done = 0; done < ms; done += 50) {
        w->core->now += 50 * NS_PER_MS;
        w->core->wall += 50;
        come_to_rest(w);
    }
}

/* ---- steps ---- */

static void put_bytes(struct client *c, const void *bytes, size_t len)
{
    if (!len || len > BYTES_MAX - c->in_len)
        return;
    memcpy(c->in + c->in_len, bytes, len);
    c->in_len += len;
}

static void put_packet(struct client *c, uint8_t first, struct slice body)
{
    uint8_t head[MQTT_HEAD_MAX];
    struct writer h = writer_of(head, sizeof head);
    writer_u8(&h, first);
    mqtt_varint_put(&h, (uint32_t)body.len);
    put_bytes(c, head, h.len);
    put_bytes(c, body.ptr, body.len);
}

static void client_open(struct world *w, int i, bool clean)
{
    struct client *c = &w->clients[i];
    union mqtt_fields f = {.connect = {.protocol = slice_str("MQTT"),
                                       .version = c->version,
                                       .clean = clean,
                                       .keep_alive_s = 10,
                                       .client_id = slice_str(i ? "second" : "first"),
                                       .has_will = true,
                                       .will_qos = 1,
                                       .will_topic = slice_str("w/x"),
                                       .will_payload = slice_str("gone")}};
    client_close(c);
    world_rest(w);
    c->engine = mqtt_new(&w->options, w->hub, "127.0.0.1:5", true, w->core->now);
    CHECK(c->engine);
    c->engine->dirty = &w->dirty;
    c->engine->next_tick = c->engine->ops->tick(c->engine, w->core->now);
    if (c->version == MQTT_5) {
        MQTT_SET(&f.connect.props, session_expiry, 60);
        MQTT_SET(&f.connect.props, topic_alias_maximum, 2 * i);
        MQTT_SET(&f.connect.will_props, will_delay, i);
    }
    struct writer out = writer_of(c->in, BYTES_MAX);
    mqtt_encode(&out, MQTT_connect, c->version, &f);
    c->in_len = out.len;
}

static void world_special(struct world *w, int i, struct reader *r)
{
    uint8_t what = reader_u8(r);
    struct client *c = &w->clients[i];
    if (what & 1)
        world_pass(w, reader_u8(r) * 100);
    if (what & 2)
        client_close(c);
    if (what & 4)
        client_open(w, i, what & 8);
    if (what & 16) {
        size_t n = reader_u8(r);
        struct slice raw = reader_take(r, n < r->left ? n : r->left);
        if (c->engine)
            put_bytes(c, raw.ptr, raw.len);
    }
}

static void world_play(struct world *w, struct slice steps)
{
    struct reader r = reader_of(steps);
    while (r.left) {
        uint8_t what = reader_u8(&r);
        int i = what >> 4 & 1;
        struct client *c = &w->clients[i];
        uint8_t type = what & 15;
        if (type == 0) {
            world_special(w, i, &r);
        } else {
            uint8_t flags = reader_u8(&r);
            size_t n = reader_u8(&r);
            struct slice body = reader_take(&r, n < r.left ? n : r.left);
            if (!c->engine)
                client_open(w, i, false);
            if (type != MQTT_publish && !(flags & 0x80))
                flags = mqtt_rows[type].flags;
            put_packet(c, (uint8_t)(type << 4 | (flags & 15)), body);
        }
        if (!(what & 32))
            world_rest(w);
    }
}

static void world_open(struct world *w, uint8_t mode)
{
    w->core = rig_new(rig_log_new(), NULL, 1700000000000);
    w->core->hold = (mode & LATE) != 0;
    w->core->check = false;
    w->hub = hub_new(broker_port(w->core->b, 0), broker_heap(w->core->b), 16);
    CHECK(w->hub);
    w->options = mqtt_options_default();
    w->options.totals = &w->totals;
    w->options.receive_max = 8;
    w->options.inflight_max = 8;
    list_init(&w->dirty);
    for (int i = 0; i < CLIENTS; i++) {
        w->clients[i].version = mode >> i & 1 ? MQTT_3_1_1 : MQTT_5;
        w->clients[i].in = malloc(BYTES_MAX);
        w->clients[i].out = malloc(BYTES_MAX);
        client_open(w, i, false);
    }
    world_rest(w);
}

static void world_close(struct world *w, uint8_t mode)
{
    for (int i = 0; i < CLIENTS; i++)
        client_close(&w->clients[i]);
    w->core->hold = false;
    world_rest(w);
    broker_check(w->core->b);
    if (mode & REPLAY)
        rig_assert_replays(w->core);
    hub_free(&w->hub);
    struct rig_log *log = w->core->log;
    rig_free(w->core);
    rig_log_free(log);
    for (int i = 0; i < CLIENTS; i++) {
        free(w->clients[i].in);
        free(w->clients[i].out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    size_t before = mem_in_use();
    struct world w = {.core = NULL};
    world_open(&w, bytes[0]);
    world_play(&w, slice_of(bytes + 1, len - 1));
    world_rest(&w);
    world_pass(&w, 200);
    world_close(&w, bytes[0]);
    CHECK(mem_in_use() == before);
    return 0;
}
