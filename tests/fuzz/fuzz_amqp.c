/* Fuzz target of the AMQP 0-9-1 engine, logged in, in front of the real core with an in-memory journal.
 * fuzz: -max_len=4096
 * covers: src/proto/amqp091/answers.c src/proto/amqp091/channel.c src/proto/amqp091/engine.c
 * covers: src/proto/amqp091/handshake.c src/proto/amqp091/methods.c src/proto/amqp091/out.c
 * covers: src/proto/amqp091/requests.c
 *
 * Input: one byte of modes, then what a client sends. Mode bits: 1 raw bytes instead of framed ones (framed: type, channel,
 * length u16, payload, and the target adds a right frame around it, so that mutations reach past the frame check);
 * 2 fed in small pieces; 4 the journal becomes durable late; 8 the journal is replayed into a second core at the end;
 * 16 compaction forced every few commands; 32 not logged in: the input is the handshake itself.
 * A queue, a bound exchange and a consumer exist before the input comes. Whatever comes, the core's invariants hold, the
 * bytes that leave are well-formed frames, and nothing is leaked. */
#include "base/check.h"
#include "base/mem.h"
#include "base/reader.h"
#include "core/broker.h"
#include "proto/amqp091/engine.h"
#include "proto/hub.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { RAW = 1, PIECES = 2, LATE = 4, REPLAY = 8, COMPACT = 16, EARLY = 32 };

#define OUT_MAX (1u << 16)

struct world {
    struct broker *broker;
    struct hub *hub;
    struct engine *engine; /* NULL: closed */
    struct list dirty;
    struct amqp091_options options;
    uint8_t mode;
    lsn_t next_lsn, durable;
    mono_t now;
    uint64_t draws;
    uint8_t *records; /* u32 length, bytes, … */
    size_t records_len, records_room, trimmed;
    uint32_t record_count;
    lsn_t first_lsn; /* of the first record kept */
    uint8_t in[1u << 17];
    size_t in_len;
    uint8_t out[OUT_MAX]; /* the beginning of a frame that leaves */
    size_t out_len;
    uint64_t out_skip; /* body bytes of a frame too long for `out` */
    bool checked_out;
};

/* ---- the journal ---- */

static bool log_room(void *self)
{
    (void)self;
    return true;
}

static bool log_reserve(void *self, size_t bytes, unsigned count)
{
    struct world *w = self;
    size_t need = w->records_len + bytes + 4u * (count + 1);
    if (need <= w->records_room)
        return true;
    size_t room = w->records_room ? w->records_room : 4096;
    while (room < need)
        room *= 2;
    uint8_t *grown = mem_realloc(w->records, room);
    if (!grown)
        return false;
    w->records = grown;
    w->records_room = room;
    return true;
}

static lsn_t log_append(void *self, const struct slice *parts, unsigned count)
{
    struct world *w = self;
    uint32_t total = 0;
    for (unsigned i = 0; i < count; i++)
        total += (uint32_t)parts[i].len;
    CHECK(log_reserve(w, total, 1));
    memcpy(w->records + w->records_len, &total, sizeof total);
    w->records_len += sizeof total;
    for (unsigned i = 0; i < count; i++) {
        if (parts[i].len)
            memcpy(w->records + w->records_len, parts[i].ptr, parts[i].len);
        w->records_len += parts[i].len;
    }
    w->record_count++;
    return ++w->next_lsn;
}

static void log_fresh(void *self)
{
    (void)self;
}

static void log_trim(void *self, lsn_t upto)
{
    struct world *w = self;
    size_t at = 0;
    while (w->first_lsn <= upto && at < w->records_len) {
        uint32_t n;
        memcpy(&n, w->records + at, sizeof n);
        at += sizeof n + n;
        w->first_lsn++;
        w->record_count--;
    }
    memmove(w->records, w->records + at, w->records_len - at);
    w->records_len -= at;
}

static uint64_t log_live(void *self)
{
    return ((struct world *)self)->records_len;
}

static void draw(void *arg, void *ret, size_t len)
{
    struct world *w = arg;
    uint8_t *to = ret;
    for (size_t i = 0; i < len; i++) {
        w->draws = w->draws * 6364136223846793005u + 1442695040888963407u;
        to[i] = (uint8_t)(w->draws >> 40);
    }
}

static struct broker *core_new(struct world *w)
{
    struct broker_options options = {
        .log = {.self = w,
                .room = log_room,
                .reserve = log_reserve,
                .append = log_append,
                .fresh = log_fresh,
                .trim = log_trim,
                .live_bytes = log_live},
        .random = draw,
        .random_arg = w,
        .ports = 1,
        .port_slots = 256,
        .message_bytes_max = 1u << 20,
        .compact_every = w->mode & COMPACT ? 7 : 0,
    };
    return broker_new(&options);
}

/* ---- what leaves must be frames ---- */

static void take_out(struct world *w)
{
    struct outq *q = &w->engine->out;
    while (q->len) {
        struct iovec v;
        CHECK(outq_peek(q, &v, 1) == 1);
        const uint8_t *at = v.iov_base;
        size_t n = v.iov_len < OUT_MAX - w->out_len ? v.iov_len : OUT_MAX - w->out_len;
        if (w->out_skip) {
            n = v.iov_len < w->out_skip ? v.iov_len : (size_t)w->out_skip;
            w->out_skip -= n;
        } else {
            memcpy(w->out + w->out_len, at, n);
            w->out_len += n;
        }
        outq_consume(q, n);
        while (w->out_len >= 8) {
            if (memcmp(w->out, "AMQP", 4) == 0) {
                memmove(w->out, w->out + 8, w->out_len - 8);
                w->out_len -= 8;
                continue;
            }
            CHECK(w->out[0] >= 1 && w->out[0] <= 8);
            uint32_t size =
                (uint32_t)w->out[3] << 24 | (uint32_t)w->out[4] << 16 | (uint32_t)w->out[5] << 8 | w->out[6];
            CHECK(size <= 131072);
            if (size + 8 > OUT_MAX) { /* cannot be held whole */
                w->out_skip = size + 8 - w->out_len;
                w->out_len = 0;
                break;
            }
            if (w->out_len < size + 8)
                break;
            CHECK(w->out[7 + size] == 0xce);
            memmove(w->out, w->out + size + 8, w->out_len - size - 8);
            w->out_len -= size + 8;
        }
    }
}

/* ---- turns ---- */

static void answer_verify(struct world *w)
{
    struct port *port = broker_port(w->broker, 1);
    struct effect *e;
    while ((e = ring_peek(&port->effects)) && ring_room(&port->commands)) {
        struct effect taken = *e;
        ring_pop(&port->effects);
        mem_free(taken.answer);
        struct command *c = ring_push(&port->commands);
        *c = (struct command){.type = CMD_VERIFIED, .number = taken.number, .flags = ASK_VERIFY_OK};
    }
    ring_publish(&port->commands);
}

static void close_engine(struct world *w)
{
    if (!w->engine)
        return;
    w->engine->ops->closed(w->engine);
    w->engine = NULL;
}

static bool turn(struct world *w)
{
    w->now += NS_PER_MS;
    bool moved = hub_publish(w->hub);
    moved |= broker_step(w->broker, w->now, 1700000000000 + w->now / NS_PER_MS, w->durable);
    answer_verify(w);
    moved |= hub_turn(w->hub, w->durable, w->now);
    lsn_t target = w->mode & LATE ? (w->durable + w->next_lsn) / 2 + (w->next_lsn > w->durable) : w->next_lsn;
    moved |= target != w->durable;
    w->durable = target;
    if (!w->engine)
        return moved;
    struct engine *engine = w->engine;
    while (!list_empty(&w->dirty))
        list_remove(w->dirty.next);
    engine->in_dirty = false;
    engine->now = w->now;
    if (w->in_len && !engine->paused && !engine->want_close) {
        size_t used = engine->ops->feed(engine, slice_of(w->in, w->in_len));
        CHECK(used <= w->in_len);
        memmove(w->in, w->in + used, w->in_len - used);
        w->in_len -= used;
        moved |= used > 0;
        CHECK(used > 0 || engine->paused || w->in_len <= sizeof w->in);
    }
    if (engine->out.len) {
        take_out(w);
        engine->ops->drained(engine);
        moved = true;
    }
    if (engine->want_close || engine->out.failed)
        close_engine(w);
    return moved;
}

static void settle(struct world *w)
{
    for (int i = 0, idle = 0; i < 400 && idle < 3; i++)
        idle = turn(w) ? 0 : idle + 1;
}

static void give(struct world *w, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    while (len && w->engine) {
        size_t room = sizeof w->in - w->in_len, n = len < room ? len : room;
        if (w->mode & PIECES && n > 7)
            n = 7;
        memcpy(w->in + w->in_len, at, n);
        w->in_len += n;
        at += n;
        len -= n;
        turn(w);
        if (n == 0)
            settle(w);
        if (room == 0 && w->in_len == sizeof w->in)
            return; /* paused for good */
    }
}

static void give_frame(struct world *w, uint8_t type, uint16_t channel, struct slice payload)
{
    uint8_t head[7] = {type, (uint8_t)(channel >> 8),     (uint8_t)channel,    0,
                       0,    (uint8_t)(payload.len >> 8), (uint8_t)payload.len};
    give(w, head, sizeof head);
    give(w, payload.ptr, payload.len);
    give(w, "\xce", 1);
}

#define METHOD(w, channel, text) give_frame(w, 1, channel, slice_of(text, sizeof(text) - 1))

static void log_in(struct world *w)
{
    give(w, "AMQP\0\0\x09\x01", 8);
    METHOD(w, 0, "\0\x0a\0\x0b\0\0\0\0\5PLAIN\0\0\0\x0c\0guest\0guest\5en_US");
    settle(w);
    METHOD(w, 0, "\0\x0a\0\x1f\7\xff\0\2\0\0\0\0");
    METHOD(w, 0, "\0\x0a\0\x28\1/\0\0");
    settle(w);
    METHOD(w, 1, "\0\x14\0\x0a\0");
    METHOD(w, 1, "\0\x32\0\x0a\0\0\1q\2\0\0\0\0");        /* durable queue q */
    METHOD(w, 1, "\0\x28\0\x0a\0\0\1x\5topic\2\0\0\0\0"); /* durable topic exchange x */
    METHOD(w, 1, "\0\x32\0\x14\0\0\1q\1x\3a.#\0\0\0\0\0");
    METHOD(w, 1, "\0\x3c\0\x14\0\0\1q\1c\0\0\0\0\0"); /* consumer c */
    settle(w);
}

static void play(struct world *w, const uint8_t *bytes, size_t len)
{
    if (w->mode & RAW) {
        give(w, bytes, len);
        return;
    }
    struct reader r = reader_of(slice_of(bytes, len));
    while (r.left && w->engine) {
        uint8_t type = reader_u8(&r), channel = reader_u8(&r);
        size_t n = reader_u16(&r);
        give_frame(w, type, channel, reader_take(&r, n < r.left ? n : r.left));
        if (channel & 0x80)
            settle(w);
    }
}

/* ---- the end ---- */

/* Replays records into broker; the lsn after the last. */
static lsn_t replay_records(struct broker *broker, const uint8_t *records, size_t len, lsn_t lsn)
{
    char why[256];
    for (size_t at = 0; at < len; lsn++) {
        uint32_t n;
        memcpy(&n, records + at, sizeof n);
        int err = broker_replay(broker, lsn, slice_of(records + at + sizeof n, n), why, sizeof why);
        if (err)
            fprintf(stderr, "record %llu: %s\n", (unsigned long long)lsn, why);
        CHECK(err == 0);
        at += sizeof n + n;
    }
    return lsn;
}

static void replay(struct world *w)
{
    struct world *again = mem_zalloc(sizeof *again);
    char why[256];
    again->mode = w->mode;
    again->first_lsn = w->first_lsn;
    struct broker *copy = core_new(again);
    lsn_t lsn = replay_records(copy, w->records, w->records_len, w->first_lsn);
    again->next_lsn = again->durable = lsn - 1;
    again->first_lsn = lsn;
    CHECK(broker_replayed(copy, w->now, 1700000000000 + w->now / NS_PER_MS, why, sizeof why) == 0);
    broker_check(copy);
    broker_free(&copy);
    mem_free(again->records);
    mem_free(again);
}

/* The journal of a new store. Making one costs a password's derivation, so it is made once a process and replayed. */
static struct {
    uint8_t bytes[1u << 16];
    size_t len;
} new_store;

static void store_begin(struct world *w)
{
    char why[256];
    if (new_store.len) {
        CHECK(log_reserve(w, new_store.len, 0));
        memcpy(w->records, new_store.bytes, new_store.len);
        w->records_len = new_store.len;
        w->next_lsn = w->durable = replay_records(w->broker, w->records, w->records_len, 1) - 1;
    }
    CHECK(broker_replayed(w->broker, w->now, 1700000000000, why, sizeof why) == 0);
    if (new_store.len)
        return;
    CHECK(w->records_len && w->records_len <= sizeof new_store.bytes);
    memcpy(new_store.bytes, w->records, w->records_len);
    new_store.len = w->records_len;
}

static struct world *world_new(uint8_t mode)
{
    struct world *w = mem_zalloc(sizeof *w);
    w->mode = mode;
    w->now = NS_PER_S;
    w->first_lsn = 1;
    list_init(&w->dirty);
    w->options = amqp091_options_default();
    w->options.message_bytes_max = 1u << 20;
    w->broker = core_new(w);
    CHECK(w->broker);
    store_begin(w);
    w->hub = hub_new(broker_port(w->broker, 0), broker_heap(w->broker), 4);
    w->engine = amqp091_new(&w->options, w->hub, "127.0.0.1:1", true, w->now);
    CHECK(w->hub && w->engine);
    w->engine->dirty = &w->dirty;
    w->engine->ops->tick(w->engine, w->now);
    return w;
}

static void world_free(struct world *w)
{
    close_engine(w);
    w->mode &= (uint8_t)~LATE;
    for (int i = 0; i < 1000 && hub_sessions(w->hub); i++)
        turn(w);
    CHECK(hub_sessions(w->hub) == 0);
    settle(w);
    broker_check(w->broker);
    if (w->mode & REPLAY)
        replay(w);
    hub_free(&w->hub);
    broker_free(&w->broker);
    mem_free(w->records);
    mem_free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    size_t before = mem_in_use();
    struct world *w = world_new(bytes[0]);
    if (!(w->mode & EARLY)) {
        w->mode &= (uint8_t)~PIECES;
        log_in(w);
        w->mode = bytes[0];
        CHECK(w->engine);
    }
    play(w, bytes + 1, len - 1);
    settle(w);
    if (w->engine)
        w->engine->ops->tick(w->engine, w->now);
    settle(w);
    world_free(w);
    CHECK(mem_in_use() == before);
    return 0;
}
