/* The Kafka client, see kafka_guest.h. It speaks through the broker's own tables: that they are right is checked elsewhere. */
#include "kafka_guest.h"

#include <stdlib.h>

#include "base/mem.h"

#define ROOM (1u << 20)
#define TURNS_MAX 3000

static wall_t wall_of(void *arg)
{
    struct os *os = arg;
    return os->now_wall(os);
}

static void lose(struct guest *g)
{
    if (g->engine)
        g->engine->ops->closed(g->engine);
    g->engine = NULL;
}

bool guest_connect(struct guest *g, struct world *w)
{
    static const uint8_t uuid[16] = {1, 2, 3};
    static const struct kafka_peer peer = {"127.0.0.1:2", "127.0.0.1", 9092, true};
    *g = (struct guest){.w = w, .options = kafka_options_default(), .in = malloc(ROOM), .out = malloc(ROOM)};
    if (!g->in || !g->out)
        abort();
    arena_init(&g->arena, ROOM);
    g->options.uuid = uuid;
    g->options.cluster_id = "AQIDAAAAAAAAAAAAAAAAAA";
    g->options.wall = wall_of;
    g->options.wall_arg = w->os;
    g->engine = kafka_new(&g->options, w->hub, &peer, w->os->now_mono(w->os));
    return g->engine != NULL;
}

void guest_end(struct guest *g)
{
    lose(g);
    arena_fini(&g->arena);
    free(g->in);
    free(g->out);
}

/* As a connection does: a file that cannot be read ends it. False: lost. */
static bool take_out(struct guest *g)
{
    struct outq *q = &g->engine->out;
    while (q->len) {
        struct iovec v;
        struct file_piece piece;
        size_t len;
        if (outq_peek_file(q, &piece)) {
            len = piece.len;
            if (len > ROOM - g->out_len)
                abort();
            if (piece.file->read(piece.file, g->out + g->out_len, len, piece.position) != (int64_t)len)
                return false;
        } else {
            (void)outq_peek(q, &v, 1);
            len = v.iov_len;
            if (len > ROOM - g->out_len)
                abort();
            memcpy(g->out + g->out_len, v.iov_base, len);
        }
        g->out_len += len;
        outq_consume(q, len);
    }
    return !q->failed && !g->engine->want_close;
}

void guest_turn(struct guest *g)
{
    struct world *w = g->w;
    world_turn(w);
    if (!g->engine)
        return;
    g->engine->now = w->os->now_mono(w->os);
    if (g->in_len && !g->engine->paused && !g->engine->want_close) {
        size_t used = g->engine->ops->feed(g->engine, slice_of(g->in, g->in_len));
        memmove(g->in, g->in + used, g->in_len - used);
        g->in_len -= used;
    }
    bool said = g->engine->out.len > 0;
    if (!take_out(g))
        lose(g);
    else if (said)
        g->engine->ops->drained(g->engine);
}

void guest_ask(struct guest *g, int16_t key, uint8_t version, const void *message)
{
    const struct kafka_api *api = kafka_api_find(key);
    struct kafka_form form = kafka_api_form(api, version);
    struct writer w = writer_of(g->in + g->in_len, ROOM - g->in_len);
    size_t mark = kafka_request_begin(&w, api, form, g->asked, slice_str("sim"));
    kafka_encode(&w, api->request, form, message, NULL);
    kafka_request_end(&w, mark);
    if (!writer_ok(&w))
        abort();
    g->in_len += w.len;
    g->api[g->asked & 63] = api;
    g->form[g->asked++ & 63] = form;
}

const void *guest_answer(struct guest *g)
{
    struct reader r;
    struct slice frame, body;
    int32_t correlation_id;
    for (unsigned i = 0;; i++) {
        r = reader_of(slice_of(g->out, g->out_len));
        frame = reader_str32(&r);
        if (reader_ok(&r))
            break;
        if (!g->engine || g->w->dead || g->w->model->wrong[0])
            return NULL;
        if (i == TURNS_MAX) {
            if (!g->w->may_fail)
                model_fault(g->w->model, "%s is not answered", g->api[g->answered & 63]->name);
            lose(g);
            return NULL;
        }
        guest_turn(g);
    }
    const struct kafka_api *api = g->api[g->answered & 63];
    struct kafka_form form = g->form[g->answered & 63];
    arena_reset(&g->arena);
    uint8_t *copy = arena_take(&g->arena, frame.len);
    void *message = arena_take(&g->arena, api->response->struct_len);
    if (copy)
        memcpy(copy, frame.ptr, frame.len);
    g->out_len -= frame.len + 4;
    memmove(g->out, g->out + frame.len + 4, g->out_len);
    if (!copy || !message)
        return NULL;
    if (!kafka_response_head(slice_of(copy, frame.len), api, form, &correlation_id, &body) ||
        correlation_id != g->answered++) {
        model_fault(g->w->model, "%s has an answer without a head of its own", api->name);
        return NULL;
    }
    enum kafka_verdict verdict = kafka_decode(api->response, form, body, &g->arena, message);
    if (verdict != KAFKA_OK && verdict != KAFKA_NO_MEMORY)
        model_fault(g->w->model, "the answer to %s cannot be decoded: %d", api->name, (int)verdict);
    return verdict == KAFKA_OK ? message : NULL;
}
