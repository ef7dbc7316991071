/* The engine: frames, the queue of requests, and answers in their order, see engine.h and kafka_int.h.
 *
 * feed takes one request after another out of the bytes it is lent. Between requests there is no state, so an incomplete one
 * stays with the connection. A request that has not asked the core for everything (`going`) holds back those behind it, and
 * so does a login; a peer with too many requests, too many bytes that are not durable, or answers it does not read, is not
 * read itself until that has changed. What Kafka does not answer is not answered here: the connection is closed.
 */
#include "proto/kafka/engine.h"

#include "base/check.h"
#include "base/mem.h"
#include "proto/kafka/fetch_session.h"
#include "proto/kafka/kafka_int.h"
#include "proto/kafka/login.h"
#include "proto/kafka/names.h"
#include "proto/kafka/share_sessions.h"

#include <limits.h>
#include <stdio.h>

#define SPARES_MAX 4u /* requests that are kept, with an arena of a block each, so that the next ones need no memory */
#define COMMANDS_MIN 4u
#define ARENA_MIN (1u << 20)
#define ARENA_TIMES 16u /* a decoded request is at most so much larger than it was on the wire */

/* ---- which keys are spoken ---- */

static const struct kafka_handler *const handlers[] = {
#define HANDLER(name) [KAFKA_API_##name] = &kafka_on_##name,
#include "proto/kafka/handlers.def"
#undef HANDLER
};

const struct kafka_handler *kafka_handler_find(int16_t key)
{
    return key >= 0 && (size_t)key < ARRAY_LEN(handlers) ? handlers[key] : NULL;
}

const struct kafka_handler *kafka_offered(const struct kafka *k, int16_t key)
{
    const struct kafka_handler *handler = kafka_handler_find(key);
    return handler && handler->shares && !k->options->share_groups ? NULL : handler;
}

/* ---- endings ---- */

static void request_free(struct kafka *k, struct kafka_request *r)
{
    if (r->handler->drop)
        r->handler->drop(k, r);
    list_remove(&r->link);
    k->request_count--;
    k->inflight_bytes -= r->bytes;
    if (k->going == r)
        k->going = NULL;
    if (k->log_in == r)
        k->log_in = NULL;
    if (k->spare_count < SPARES_MAX && kafka_live(k)) {
        arena_reset(&r->arena);
        list_insert(&k->spares, &r->link);
        k->spare_count++;
        return;
    }
    arena_fini(&r->arena);
    mem_free_as(MEM_CONNECTIONS, r);
}

static void requests_free(struct kafka *k)
{
    while (!list_empty(&k->requests))
        request_free(k, LIST_FIRST(&k->requests, struct kafka_request, link));
    while (!list_empty(&k->spares)) {
        struct kafka_request *r = LIST_FIRST(&k->spares, struct kafka_request, link);
        list_remove(&r->link);
        arena_fini(&r->arena);
        mem_free_as(MEM_CONNECTIONS, r);
    }
    k->spare_count = 0;
}

/* The requests themselves live on until the transport is gone: a handler may be at work on one. */
void kafka_drop(struct kafka *k)
{
    if (!kafka_live(k))
        return;
    hub_close(kafka_hub(k), &k->session);
    k->state = KAFKA_CLOSING;
    k->session.engine.paused = false;
    k->session.engine.want_close = true;
    engine_dirty(&k->session.engine);
}

void kafka_drop_memory(struct kafka *k)
{
    k->session.engine.out.failed = true; /* the loop says so in the log */
    kafka_drop(k);
}

/* ---- what handlers use ---- */

struct command *kafka_command(struct kafka *k, struct kafka_request *r, enum command_type type)
{
    struct command *command = hub_command(kafka_hub(k), &k->session);
    if (!command) {
        hub_wait_room(kafka_hub(k), &k->session);
        return NULL;
    }
    command->type = (uint8_t)type;
    command->origin = r->id;
    r->pending++;
    return command;
}

void *kafka_room(struct kafka *k, struct kafka_request *r, size_t count, size_t size)
{
    size_t len;
    void *room = __builtin_mul_overflow(count, size, &len) ? NULL : arena_take(&r->arena, len);
    if (room)
        memset(room, 0, len);
    else
        kafka_drop_memory(k);
    return room;
}

struct slice kafka_keep(struct kafka *k, struct kafka_request *r, struct slice s)
{
    uint8_t *room = s.ptr ? kafka_room(k, r, s.len, 1) : NULL;
    if (room && s.len)
        memcpy(room, s.ptr, s.len);
    return room ? slice_of(room, s.len) : (struct slice){0};
}

struct slice kafka_advertised_host(const struct kafka *k)
{
    return slice_str(k->options->advertised_host ? k->options->advertised_host : k->local_host);
}

uint16_t kafka_advertised_port(const struct kafka *k)
{
    return k->options->advertised_host ? k->options->advertised_port : k->local_port;
}

/* ---- answers ---- */

static void release_block(void *arg, void *owner)
{
    (void)arg;
    mem_free(owner);
}

static void encode(struct writer *w, const struct kafka_request *r, struct kafka_cuts *cuts)
{
    size_t mark = kafka_response_begin(w, r->api, r->form, r->correlation_id);
    kafka_encode(w, r->api->response, r->form, r->response, cuts);
    kafka_response_end(w, mark, cuts->bytes);
}

static void put_with_cuts(struct kafka *k, struct kafka_request *r, struct slice bytes, const struct kafka_cuts *cuts)
{
    struct outq *out = &k->session.engine.out;
    size_t at = 0;
    for (size_t i = 0; i < cuts->count; i++) {
        outq_put(out, bytes.ptr + at, cuts->list[i].at - at);
        at = cuts->list[i].at;
        r->handler->lend(k, r, i);
    }
    outq_put(out, bytes.ptr + at, bytes.len - at);
}

/* A response that no writer takes is a string longer than its version can say: there is no answer then. */
static void say(struct kafka *k, struct kafka_request *r)
{
    struct outq *out = &k->session.engine.out;
    struct kafka_cuts cuts = {.max = r->cuts_max};
    size_t body = kafka_encode_size(r->api->response, r->form, r->response);
    if (body == SIZE_MAX || body > INT32_MAX) {
        kafka_drop(k);
        return;
    }
    size_t len = kafka_response_head_size(r->api, r->form) + body - r->elsewhere;
    if (r->cuts_max && !(cuts.list = kafka_room(k, r, r->cuts_max, sizeof *cuts.list)))
        return;
    bool small = len <= OUTQ_CHUNK_LEN && !r->cuts_max;
    uint8_t *room = small ? outq_room(out, len) : mem_alloc(len);
    if (!room) {
        kafka_drop_memory(k);
        return;
    }
    struct writer w = writer_of(room, len);
    encode(&w, r, &cuts);
    CHECK(writer_ok(&w) && w.len == len && cuts.bytes == r->elsewhere);
    if (small) {
        outq_commit(out, len);
    } else if (!r->cuts_max) {
        outq_lend(out, writer_slice(&w), release_block, NULL, room);
    } else {
        put_with_cuts(k, r, writer_slice(&w), &cuts);
        mem_free(room);
    }
}

/* Is the peer to be read? Called after everything that may have changed that. */
static void look(struct kafka *k)
{
    struct engine *engine = &k->session.engine;
    if (!kafka_live(k))
        return;
    /* whoever sends without waiting for answers and hangs up is heard all the same: its end is not read before the rest */
    bool logging_in = k->state == KAFKA_LOGIN || k->state == KAFKA_ENTER;
    bool paused = k->blocked || k->going || logging_in || engine->out.len > OUTQ_HIGH ||
                  k->request_count >= KAFKA_REQUESTS_MAX || k->inflight_bytes > KAFKA_INFLIGHT_HIGH;
    if (paused != engine->paused)
        engine_dirty(engine);
    engine->paused = paused;
}

void kafka_flush(struct kafka *k)
{
    while (kafka_live(k) && !list_empty(&k->requests)) {
        struct kafka_request *r = LIST_FIRST(&k->requests, struct kafka_request, link);
        if (!r->sent || r->pending)
            break;
        if (r->lsn > hub_durable(kafka_hub(k))) {
            hub_hold(kafka_hub(k), &k->session);
            break;
        }
        if (!r->silent) {
            say(k, r);
            engine_dirty(&k->session.engine);
        }
        request_free(k, r);
    }
    if (k->leaving && list_empty(&k->requests))
        kafka_drop(k);
    look(k);
}

/* ---- requests ---- */

static struct kafka_request *request_new(struct kafka *k, size_t wire_len)
{
    struct kafka_request *r;
    struct arena arena;
    size_t max = ARENA_MIN + ARENA_TIMES * wire_len;
    if (k->spare_count) {
        r = LIST_FIRST(&k->spares, struct kafka_request, link);
        list_remove(&r->link);
        k->spare_count--;
        arena = r->arena;
        arena.max = max;
    } else {
        r = mem_alloc_as(MEM_CONNECTIONS, sizeof *r);
        if (!r)
            return NULL;
        arena_init(&arena, max);
    }
    *r = (struct kafka_request){.arena = arena};
    k->next_id += k->next_id == UINT32_MAX ? 2 : 1;
    r->id = k->next_id;
    list_insert(&k->requests, &r->link);
    k->request_count++;
    return r;
}

static void go(struct kafka *k, struct kafka_request *r)
{
    k->going = r;
    if (r->handler->go(k, r) == KAFKA_SENT) {
        r->sent = true;
        k->going = NULL;
    }
}

/* The message, decoded, and an empty answer. False: the connection has been dropped. */
static bool prepare(struct kafka *k, struct kafka_request *r, const struct kafka_request_head *head, struct slice body)
{
    r->client_id = kafka_keep(k, r, head->client_id);
    r->response = kafka_room(k, r, 1, r->api->response->struct_len);
    if (!kafka_live(k))
        return false;
    kafka_defaults(r->api->response, r->response);
    if (r->unknown_version)
        return true;
    if (!r->handler->in_place)
        body = kafka_keep(k, r, body);
    if (!kafka_live(k))
        return false;
    enum kafka_verdict verdict = kafka_request_decode(head, body, &r->arena, &r->message);
    if (verdict == KAFKA_NO_MEMORY)
        kafka_drop_memory(k);
    else if (verdict != KAFKA_OK && verdict != KAFKA_TRAILING) /* Kafka looks past trailing bytes */
        kafka_drop(k);
    return kafka_live(k);
}

static void begin(struct kafka *k, const struct kafka_request_head *head, const struct kafka_handler *handler,
                  bool unknown_version, struct slice body)
{
    struct kafka_request *r = request_new(k, body.len);
    if (!r) {
        kafka_drop_memory(k);
        return;
    }
    r->api = head->api;
    r->handler = handler;
    r->form = unknown_version ? kafka_api_form(head->api, 0) : head->form;
    r->correlation_id = head->correlation_id;
    r->unknown_version = unknown_version;
    if (prepare(k, r, head, body))
        go(k, r);
    kafka_flush(k);
}

/* False: a login has to come first, and is under way; the request stays where it is. */
static bool may_begin(struct kafka *k, const struct kafka_api *api)
{
    if (k->state == KAFKA_READY || api->before_login)
        return true;
    if (k->state == KAFKA_NEW && kafka_login_without(k))
        return false;
    kafka_drop(k);
    return true;
}

/* What follows the length. False: not yet. */
static bool take(struct kafka *k, struct slice frame)
{
    if (k->raw_sasl && k->state == KAFKA_SASL) {
        kafka_login_token(k, frame);
        return true;
    }
    struct kafka_request_head head;
    struct slice body;
    enum kafka_head_verdict verdict = kafka_request_head(frame, &head, &body);
    bool unknown_version = verdict == KAFKA_HEAD_UNKNOWN_VERSION && head.key == KAFKA_API_api_versions;
    const struct kafka_handler *handler =
        verdict == KAFKA_HEAD_OK || unknown_version ? kafka_offered(k, head.key) : NULL;
    if (!handler || (kafka_login_expired(k) && head.key != KAFKA_API_sasl_handshake)) {
        kafka_drop(k);
        return true;
    }
    if (!may_begin(k, head.api))
        return false;
    if (kafka_live(k))
        begin(k, &head, handler, unknown_version, body);
    return true;
}

static uint32_t frame_max(const struct kafka *k)
{
    return k->state == KAFKA_READY ? k->options->request_bytes_max : KAFKA_REQUEST_EARLY;
}

/* Consumes the next request; 0: more bytes, or a change of state, are needed. */
static size_t step(struct kafka *k, struct slice bytes)
{
    if (k->state == KAFKA_CLOSING)
        return bytes.len;
    if (k->state == KAFKA_LOGIN || k->state == KAFKA_ENTER || bytes.len < KAFKA_LENGTH_BYTES)
        return 0;
    struct reader r = reader_of(bytes);
    uint32_t len = reader_u32(&r);
    if (len > frame_max(k)) {
        /* a large first request of somebody who needs no login has to wait for that one */
        if (len > k->options->request_bytes_max || k->state != KAFKA_NEW || !kafka_login_without(k))
            kafka_drop(k);
        return kafka_live(k) ? 0 : bytes.len;
    }
    if (r.left < len)
        return 0;
    if (!take(k, reader_take(&r, len)))
        return 0;
    return KAFKA_LENGTH_BYTES + len;
}

static bool may_go_on(struct kafka *k)
{
    if (!kafka_live(k))
        return true; /* throwing away needs nothing */
    look(k);
    if (k->session.engine.paused)
        return false;
    if (hub_room(kafka_hub(k)) < COMMANDS_MIN) {
        hub_wait_room(kafka_hub(k), &k->session);
        return false;
    }
    return true;
}

static size_t engine_feed(struct engine *engine, struct slice bytes)
{
    struct kafka *k = CONTAINER_OF(engine, struct kafka, session.engine);
    size_t used = 0;
    k->session.heard_at = engine->now;
    while (used < bytes.len && may_go_on(k)) {
        size_t n = step(k, slice_of(bytes.ptr + used, bytes.len - used));
        if (n == 0)
            break;
        used += n;
    }
    engine->in_max = KAFKA_LENGTH_BYTES + frame_max(k);
    look(k);
    return used;
}

/* ---- the core's answers ---- */

static struct kafka_request *request_find(struct kafka *k, uint32_t id)
{
    LIST_EACH(&k->requests, node, after)
    {
        struct kafka_request *r = CONTAINER_OF(node, struct kafka_request, link);
        if (r->id == id)
            return r;
    }
    return NULL;
}

static void request_effect(struct kafka *k, struct effect *e)
{
    struct kafka_request *r = request_find(k, e->origin);
    if (!r || !r->handler->effect) {
        hub_drop(kafka_hub(k), e);
        return;
    }
    if (e->type != EFF_ROW) {
        CHECK(r->pending > 0);
        r->pending--;
    }
    r->handler->effect(k, r, e);
    if (kafka_live(k) && k->going)
        go(k, k->going); /* it may have waited for this one */
    kafka_flush(k);
}

static void on_effect(struct session *session, struct effect *e)
{
    struct kafka *k = CONTAINER_OF(session, struct kafka, session);
    if (!kafka_live(k)) {
        hub_drop(kafka_hub(k), e);
        return;
    }
    switch ((enum effect_type)e->type) {
    case EFF_BLOCKED:
    case EFF_UNBLOCKED:
        k->blocked = e->type == EFF_BLOCKED;
        hub_drop(kafka_hub(k), e);
        look(k);
        return;
    case EFF_FETCH_SESSION_GONE:
        kafka_fetch_session_gone(k, (int32_t)e->number);
        hub_drop(kafka_hub(k), e);
        return;
    case EFF_SESSION_CLOSED:
    case EFF_SESSION_KICK:
        hub_drop(kafka_hub(k), e);
        kafka_drop(k);
        return;
    default: break;
    }
    if (e->origin == 0)
        kafka_login_effect(k, e);
    else
        request_effect(k, e);
}

static bool on_durable(struct session *session, lsn_t durable)
{
    struct kafka *k = CONTAINER_OF(session, struct kafka, session);
    (void)durable;
    kafka_flush(k);
    if (!kafka_live(k) || list_empty(&k->requests))
        return false;
    const struct kafka_request *r = LIST_FIRST(&k->requests, struct kafka_request, link);
    return r->sent && !r->pending;
}

static void on_room(struct session *session)
{
    struct kafka *k = CONTAINER_OF(session, struct kafka, session);
    if (!kafka_live(k) || !k->going)
        return;
    go(k, k->going);
    kafka_flush(k);
}

/* ---- the loop's other calls ---- */

static mono_t engine_tick(struct engine *engine, mono_t now)
{
    struct kafka *k = CONTAINER_OF(engine, struct kafka, session.engine);
    if (!kafka_live(k))
        return MONO_NEVER;
    mono_t idle = k->options->idle_ms * NS_PER_MS;
    bool needs_login = k->state != KAFKA_READY && !kafka_login_needless(k);
    bool silent = idle && !k->request_count && !engine->paused && now - k->session.heard_at >= idle;
    if (silent || (needs_login && now >= k->deadline)) {
        kafka_drop(k);
        return MONO_NEVER;
    }
    mono_t due = idle ? (k->session.heard_at + idle > now ? k->session.heard_at : now) + idle : MONO_NEVER;
    return needs_login && k->deadline < due ? k->deadline : due;
}

static void engine_drained(struct engine *engine)
{
    look(CONTAINER_OF(engine, struct kafka, session.engine));
}

static void engine_shutdown(struct engine *engine, const char *text)
{
    (void)text;
    kafka_drop(CONTAINER_OF(engine, struct kafka, session.engine));
}

static void session_free(struct session *session)
{
    mem_free_as(MEM_CONNECTIONS, CONTAINER_OF(session, struct kafka, session));
}

static void engine_closed(struct engine *engine)
{
    struct kafka *k = CONTAINER_OF(engine, struct kafka, session.engine);
    session_cut(&k->session);
    k->state = KAFKA_CLOSING;
    requests_free(k);
    kafka_topics_fini(k);
    kafka_fetch_session_end(k);
    kafka_login_fini(k);
    share_sessions_fini(k);
    session_end(&k->session);
}

/* ---- the factory ---- */

static const struct engine_ops ops = {
    .name = "Kafka",
    .feed = engine_feed,
    .tick = engine_tick,
    .drained = engine_drained,
    .shutdown = engine_shutdown,
    .closed = engine_closed,
};

struct kafka_options kafka_options_default(void)
{
    return (struct kafka_options){
        .node_id = 1,
        .log_dir = "millrace-data",
        .vhost = "/",
        .anonymous = "guest",
        .sasl_mechanisms = UINT_MAX,
        .request_bytes_max = 104857600,
        .batch_bytes_max = 1048588,
        .unpacked_bytes_max = 128u * 1024 * 1024,
        .handshake_ms = 10000,
        .idle_ms = 600000,
        .partitions = 1,
        .auto_create = true,
        .share_groups = true,
    };
}

void kafka_print_requests(FILE *to)
{
    fputs("| key | request | versions announced | compact lengths from | before a login |\n|---|---|---|---|---|\n",
          to);
    for (const struct kafka_api *api = kafka_apis; api < kafka_apis + kafka_api_count; api++) {
        if (!kafka_handler_find(api->key))
            continue;
        fprintf(to, "| %d | %s | %u to %u | ", api->key, api->name, api->first_announced, api->last);
        if (api->flexible_from == KAFKA_NEVER)
            fprintf(to, "never");
        else
            fprintf(to, "%u", api->flexible_from);
        fprintf(to, " | %s |\n",
                api->before_login                      ? "yes"
                : kafka_handler_find(api->key)->shares ? "no; `kafka.share_groups` off: not at all"
                                                       : "no");
    }
}

struct engine *kafka_new(const struct kafka_options *options, struct hub *hub, const struct kafka_peer *peer,
                         mono_t now)
{
    CHECK(options->uuid && options->cluster_id && options->wall);
    struct kafka *k = mem_zalloc_as(MEM_CONNECTIONS, sizeof *k);
    if (!k || !session_connect(&k->session, hub, &ops, peer->address, peer->loopback, now)) {
        mem_free_as(MEM_CONNECTIONS, k);
        return NULL;
    }
    struct engine *engine = &k->session.engine;
    engine->in_max = KAFKA_LENGTH_BYTES + KAFKA_REQUEST_EARLY;
    k->session.on_effect = on_effect;
    k->session.on_durable = on_durable;
    k->session.on_room = on_room;
    k->session.free = session_free;
    k->options = options;
    list_init(&k->requests);
    list_init(&k->spares);
    kafka_topics_init(k);
    share_sessions_init(k);
    k->deadline = now + options->handshake_ms * NS_PER_MS;
    k->mechanism = KAFKA_NO_MECHANISM;
    k->local_port = peer->local_port;
    snprintf(k->local_host, sizeof k->local_host, "%s", peer->local_host);
    return engine;
}
