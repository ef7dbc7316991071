/* rig: engines on a table, in front of the real core with a journal in memory: frames in, frames out as text.
 *
 * For this folder's tests only. Two peers can be open at a time. A frame that leaves becomes one line, its header lines joined by
 * bars: "MESSAGE|subscription:1|destination:/queue/a|…||body"; the session's id is shown as SESSION. `durable` follows the
 * journal unless `late` holds it back.
 */
#ifndef MILLRACE_PROTO_STOMP_RIG_TEST_H
#define MILLRACE_PROTO_STOMP_RIG_TEST_H

#include "base/check.h"
#include "base/mem.h"
#include "base/reader.h"
#include "proto/stomp/stomp_int.h"

#include <stdio.h>
#include <stdlib.h>

#define RIG_FN static __attribute__((unused))
#define RIG_PEERS 2
#define RIG_TEXT_MAX (1u << 20)
#ifndef RIG_IN_MAX
#define RIG_IN_MAX (8u << 20)
#endif
#define RIG_SHOWN_MAX 4096 /* of one frame */
#define RIG_WALL 1700000000000

struct rig_peer {
    struct engine *engine; /* NULL: closed */
    uint8_t *in;
    size_t in_len, fed_at_once; /* 0: everything */
    char *out;                  /* bytes that left and are no whole frame yet */
    size_t out_len;
    char *said;
    unsigned beats;
};

struct rig {
    struct broker *broker;
    struct hub *hub;
    struct list dirty;
    struct stomp_options options;
    struct rig_peer peers[RIG_PEERS];
    lsn_t next_lsn, durable;
    mono_t now;
    bool late;  /* nothing becomes durable */
    bool quiet; /* frames that leave are looked at, and not kept */
    uint64_t draws;
    size_t port_slots;
    uint64_t compact_every;
    uint8_t *records; /* the journal: u32 length, bytes, … */
    size_t records_len, records_room;
    lsn_t first_lsn;    /* of the first record kept */
    struct slice store; /* records that it begins with; ptr NULL: a new store is made */
};

/* ---- the core's surroundings ---- */

RIG_FN bool rig_log_room(void *self)
{
    (void)self;
    return true;
}

RIG_FN bool rig_log_reserve(void *self, size_t bytes, unsigned count)
{
    struct rig *rig = self;
    size_t need = rig->records_len + bytes + 4u * (count + 1), room = rig->records_room ? rig->records_room : 4096;
    if (need <= rig->records_room)
        return true;
    while (room < need)
        room *= 2;
    uint8_t *grown = realloc(rig->records, room); /* not of the broker's memory, which may be refused */
    if (!grown)
        return false;
    rig->records = grown;
    rig->records_room = room;
    return true;
}

RIG_FN lsn_t rig_log_append(void *self, const struct slice *parts, unsigned count)
{
    struct rig *rig = self;
    uint32_t total = 0;
    for (unsigned i = 0; i < count; i++)
        total += (uint32_t)parts[i].len;
    CHECK(rig_log_reserve(rig, total, 1));
    memcpy(rig->records + rig->records_len, &total, sizeof total);
    rig->records_len += sizeof total;
    for (unsigned i = 0; i < count; i++) {
        if (parts[i].len)
            memcpy(rig->records + rig->records_len, parts[i].ptr, parts[i].len);
        rig->records_len += parts[i].len;
    }
    return ++rig->next_lsn;
}

RIG_FN void rig_log_fresh(void *self)
{
    (void)self;
}

RIG_FN void rig_log_trim(void *self, lsn_t upto)
{
    struct rig *rig = self;
    size_t at = 0;
    for (uint32_t n; rig->first_lsn <= upto && at < rig->records_len; at += sizeof n + n, rig->first_lsn++)
        memcpy(&n, rig->records + at, sizeof n);
    memmove(rig->records, rig->records + at, rig->records_len - at);
    rig->records_len -= at;
}

RIG_FN uint64_t rig_log_live(void *self)
{
    return ((struct rig *)self)->records_len;
}

RIG_FN void rig_draw(void *arg, void *ret, size_t len)
{
    struct rig *rig = arg;
    uint8_t *to = ret;
    for (size_t i = 0; i < len; i++) {
        rig->draws = rig->draws * 6364136223846793005u + 1442695040888963407u;
        to[i] = (uint8_t)(rig->draws >> 40);
    }
}

RIG_FN wall_t rig_wall(void *arg)
{
    return RIG_WALL + ((struct rig *)arg)->now / NS_PER_MS;
}

/* Passwords are right when they are "guest". */
RIG_FN void rig_verify(struct rig *rig)
{
    struct port *port = broker_port(rig->broker, 1);
    struct effect *e;
    while ((e = ring_peek(&port->effects)) && ring_room(&port->commands)) {
        struct effect taken = *e;
        ring_pop(&port->effects);
        struct reader r = reader_of(taken.answer->fields);
        bool right = slice_is(reader_str32(&r), "guest");
        mem_free(taken.answer);
        *(struct command *)ring_push(&port->commands) =
            (struct command){.type = CMD_VERIFIED, .number = taken.number, .flags = right ? ASK_VERIFY_OK : 0};
    }
    ring_publish(&port->commands);
}

/* ---- what leaves ---- */

RIG_FN void rig_say(struct rig_peer *peer, const char *session, const char *frame, size_t len)
{
    size_t at = strlen(peer->said), session_len = strlen(session);
    len = len < RIG_SHOWN_MAX ? len : RIG_SHOWN_MAX;
    CHECK(at + len + 2 < RIG_TEXT_MAX);
    for (size_t i = 0; i < len;) {
        if (session_len && len - i >= session_len && memcmp(frame + i, session, session_len) == 0) {
            memcpy(peer->said + at, "SESSION", 7);
            at += 7;
            i += session_len;
            continue;
        }
        char c = frame[i++];
        peer->said[at++] = c == '\n' ? '|' : c == 0 ? '0' : c;
    }
    memcpy(peer->said + at, "\n", 2);
}

/* Bytes of the frame at the beginning of `out`, 0: not whole. */
RIG_FN size_t rig_frame_len(const struct rig_peer *peer, size_t *ret_shown)
{
    const char *head_end = memmem(peer->out, peer->out_len, "\n\n", 2);
    if (!head_end)
        return 0;
    size_t head = (size_t)(head_end - peer->out) + 2, body = 0;
    const char *length = memmem(peer->out, head, "\ncontent-length:", 16);
    if (length)
        body = strtoul(length + 16, NULL, 10);
    else {
        const char *nul = memchr(peer->out + head, 0, peer->out_len - head);
        if (!nul)
            return 0;
        body = (size_t)(nul - peer->out) - head;
    }
    if (peer->out_len < head + body + 2)
        return 0;
    CHECK(peer->out[head + body] == 0 && peer->out[head + body + 1] == '\n');
    *ret_shown = head + body;
    return head + body + 2;
}

RIG_FN void rig_take_out(struct rig *rig, struct rig_peer *peer)
{
    struct outq *q = &peer->engine->out;
    const char *session = CONTAINER_OF(peer->engine, struct stomp, session.engine)->session_id;
    while (q->len) {
        struct iovec v;
        CHECK(outq_peek(q, &v, 1) == 1 && peer->out_len + v.iov_len <= RIG_IN_MAX);
        memcpy(peer->out + peer->out_len, v.iov_base, v.iov_len);
        peer->out_len += v.iov_len;
        outq_consume(q, v.iov_len);
    }
    for (size_t used, shown; peer->out_len; peer->out_len -= used) {
        used = 1;
        if (peer->out[0] == '\n')
            peer->beats++;
        else if ((used = rig_frame_len(peer, &shown)) == 0)
            break;
        else if (!rig->quiet)
            rig_say(peer, session, peer->out, shown);
        memmove(peer->out, peer->out + used, peer->out_len - used);
    }
}

/* ---- driving ---- */

RIG_FN void rig_close(struct rig *rig, int i)
{
    struct rig_peer *peer = &rig->peers[i];
    if (!peer->engine)
        return;
    rig_take_out(rig, peer);
    peer->engine->ops->closed(peer->engine);
    peer->engine = NULL;
    peer->in_len = 0;
}

RIG_FN bool rig_turn_peer(struct rig *rig, int i)
{
    struct rig_peer *peer = &rig->peers[i];
    struct engine *engine = peer->engine;
    bool moved = false;
    if (!engine)
        return false;
    engine->now = rig->now;
    if (peer->in_len && !engine->paused && !engine->want_close) {
        size_t used = engine->ops->feed(engine, slice_of(peer->in, peer->in_len));
        memmove(peer->in, peer->in + used, peer->in_len - used);
        peer->in_len -= used;
        moved = used > 0;
    }
    if (engine->out.len) {
        rig_take_out(rig, peer);
        engine->ops->drained(engine);
        moved = true;
    }
    if (engine->want_close || engine->out.failed) {
        rig_close(rig, i);
        moved = true;
    }
    return moved;
}

RIG_FN bool rig_turn(struct rig *rig)
{
    bool moved = hub_publish(rig->hub);
    moved |= broker_step(rig->broker, rig->now, rig_wall(rig), rig->durable);
    rig_verify(rig);
    moved |= hub_turn(rig->hub, rig->durable, rig->now);
    if (!rig->late && rig->durable != rig->next_lsn) {
        rig->durable = rig->next_lsn;
        moved = true;
    }
    while (!list_empty(&rig->dirty)) {
        struct engine *engine = CONTAINER_OF(rig->dirty.next, struct engine, dirty_link);
        list_remove(&engine->dirty_link);
        engine->in_dirty = false;
    }
    for (int i = 0; i < RIG_PEERS; i++)
        moved |= rig_turn_peer(rig, i);
    return moved;
}

RIG_FN void rig_settle(struct rig *rig)
{
    for (int i = 0, idle = 0; i < 100000 && idle < 3; i++)
        idle = rig_turn(rig) ? 0 : idle + 1;
}

RIG_FN void rig_bytes(struct rig *rig, int i, const void *bytes, size_t len)
{
    struct rig_peer *peer = &rig->peers[i];
    CHECK(peer->in_len + len <= RIG_IN_MAX);
    memcpy(peer->in + peer->in_len, bytes, len);
    peer->in_len += len;
}

/* A frame without its NUL, which is added. */
RIG_FN void rig_frame(struct rig *rig, int i, const char *frame)
{
    rig_bytes(rig, i, frame, strlen(frame) + 1);
}

RIG_FN const char *rig_said(struct rig *rig, int i)
{
    rig_settle(rig);
    return rig->peers[i].said;
}

RIG_FN void rig_clear(struct rig *rig)
{
    for (int i = 0; i < RIG_PEERS; i++)
        rig->peers[i].said[0] = '\0';
}

RIG_FN struct broker *rig_broker(struct rig *rig)
{
    struct broker_options options = {.log = {.self = rig,
                                             .room = rig_log_room,
                                             .reserve = rig_log_reserve,
                                             .append = rig_log_append,
                                             .fresh = rig_log_fresh,
                                             .trim = rig_log_trim,
                                             .live_bytes = rig_log_live},
                                     .random = rig_draw,
                                     .random_arg = rig,
                                     .ports = 1,
                                     .port_slots = rig->port_slots,
                                     .compact_every = rig->compact_every,
                                     .guest_loopback_only = true};
    return broker_new(&options);
}

/* Records into a broker; the lsn after the last. */
RIG_FN lsn_t rig_replay(struct broker *broker, struct slice records, lsn_t lsn)
{
    char why[256];
    uint32_t n;
    for (size_t at = 0; at < records.len; lsn++, at += sizeof n + n) {
        memcpy(&n, records.ptr + at, sizeof n);
        int err = broker_replay(broker, lsn, slice_of(records.ptr + at + sizeof n, n), why, sizeof why);
        if (err)
            fprintf(stderr, "record %llu: %s\n", (unsigned long long)lsn, why);
        CHECK(err == 0);
    }
    return lsn;
}

RIG_FN bool rig_begin(struct rig *rig)
{
    char why[256];
    rig->options = stomp_options_default();
    rig->options.random = rig_draw;
    rig->options.random_arg = rig;
    rig->options.wall = rig_wall;
    rig->options.wall_arg = rig;
    rig->now = 1000 * NS_PER_S;
    rig->first_lsn = 1;
    list_init(&rig->dirty);
    for (int i = 0; i < RIG_PEERS; i++) {
        rig->peers[i].in = malloc(RIG_IN_MAX);
        rig->peers[i].out = malloc(RIG_IN_MAX);
        rig->peers[i].said = calloc(1, RIG_TEXT_MAX);
    }
    rig->broker = rig_broker(rig);
    if (!rig->broker)
        return false;
    if (rig->store.len) {
        CHECK(rig_log_reserve(rig, rig->store.len, 0));
        memcpy(rig->records, rig->store.ptr, rig->store.len);
        rig->records_len = rig->store.len;
        rig->next_lsn = rig_replay(rig->broker, rig->store, 1) - 1;
    }
    if (broker_replayed(rig->broker, rig->now, rig_wall(rig), why, sizeof why) != 0)
        return false;
    rig->durable = rig->next_lsn;
    rig->hub = hub_new(broker_port(rig->broker, 0), broker_heap(rig->broker), 16);
    return rig->hub != NULL;
}

RIG_FN bool rig_init(struct rig *rig)
{
    *rig = (struct rig){.port_slots = 1024};
    return rig_begin(rig);
}

RIG_FN bool rig_open_from(struct rig *rig, int i, bool loopback)
{
    struct engine *engine = stomp_new(&rig->options, rig->hub, "127.0.0.1:5", loopback, rig->now);
    if (!engine)
        return false;
    rig->peers[i].engine = engine;
    rig->peers[i].out_len = 0;
    engine->dirty = &rig->dirty;
    engine->ops->tick(engine, rig->now);
    return true;
}

RIG_FN bool rig_open(struct rig *rig, int i)
{
    return rig_open_from(rig, i, true);
}

/* Connected with that version, and nothing recorded. */
RIG_FN bool rig_connect(struct rig *rig, int i, const char *version)
{
    char frame[128];
    if (!rig_open(rig, i))
        return false;
    snprintf(frame, sizeof frame, "CONNECT\naccept-version:%s\n\n", version);
    rig_frame(rig, i, frame);
    bool ok = strncmp(rig_said(rig, i), "CONNECTED|", 10) == 0;
    rig_clear(rig);
    return ok;
}

RIG_FN struct stomp *rig_stomp(struct rig *rig, int i)
{
    return CONTAINER_OF(rig->peers[i].engine, struct stomp, session.engine);
}

RIG_FN void rig_fini(struct rig *rig)
{
    for (int i = 0; i < RIG_PEERS; i++)
        rig_close(rig, i);
    rig->late = false;
    for (int i = 0; i < 1000 && hub_sessions(rig->hub); i++)
        rig_turn(rig);
    rig_settle(rig);
    CHECK(hub_sessions(rig->hub) == 0);
    broker_check(rig->broker);
    hub_free(&rig->hub);
    broker_free(&rig->broker);
    free(rig->records);
    for (int i = 0; i < RIG_PEERS; i++) {
        free(rig->peers[i].in);
        free(rig->peers[i].out);
        free(rig->peers[i].said);
    }
}

#endif
