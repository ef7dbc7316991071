/* The STOMP clients, see stomp_world.h. What they say is text, and what must come back is a word of it. */
#include "stomp_world.h"

#include <stdio.h>
#include <stdlib.h>

#include "net/listener.h"
#include "proto/http/engine.h"
#include "proto/stomp/engine.h"

#define ROOM (1u << 18)
#define TURNS_MAX 400
#define HEADER_LONG 20000 /* more than one piece of an out-queue holds */

struct caller {
    struct world *w;
    struct engine *engine; /* NULL: lost */
    char *in, *out;
    size_t in_len, out_len;
    const char *missing; /* what was not answered; NULL: all was */
};

static wall_t wall_of(void *arg)
{
    struct os *os = arg;
    return os->now_wall(os);
}

static void draw(void *arg, void *ret, size_t len)
{
    struct os *os = arg;
    os->random(os, ret, len);
}

static void options_set(struct stomp_options *ret, struct world *w)
{
    *ret = stomp_options_default();
    ret->random = draw;
    ret->random_arg = w->os;
    ret->wall = wall_of;
    ret->wall_arg = w->os;
}

static void caller_begin(struct caller *c, struct world *w, struct engine *engine)
{
    *c = (struct caller){.w = w, .engine = engine, .in = malloc(ROOM), .out = malloc(ROOM)};
    if (!c->in || !c->out)
        abort();
    if (!engine) {
        c->missing = "a connection";
        return;
    }
    engine->peer_loopback = true;
    (void)engine->ops->tick(engine, w->os->now_mono(w->os));
}

static void lose(struct caller *c)
{
    if (c->engine)
        c->engine->ops->closed(c->engine);
    c->engine = NULL;
}

static void caller_end(struct caller *c)
{
    lose(c);
    free(c->in);
    free(c->out);
}

/* As a connection does. False: lost. */
static bool take_out(struct caller *c)
{
    struct outq *q = &c->engine->out;
    if (c->engine->ops->gather)
        c->engine->ops->gather(c->engine);
    while (q->len) {
        struct iovec v;
        (void)outq_peek(q, &v, 1);
        if (v.iov_len >= ROOM - c->out_len)
            abort();
        memcpy(c->out + c->out_len, v.iov_base, v.iov_len);
        c->out_len += v.iov_len;
        outq_consume(q, v.iov_len);
    }
    return !q->failed && !c->engine->want_close;
}

static void caller_turn(struct caller *c)
{
    if (!c->engine)
        return;
    c->engine->now = c->w->os->now_mono(c->w->os);
    if (c->in_len && !c->engine->paused && !c->engine->want_close) {
        size_t used = c->engine->ops->feed(c->engine, slice_of(c->in, c->in_len));
        memmove(c->in, c->in + used, c->in_len - used);
        c->in_len -= used;
    }
    bool said = c->engine->out.len > 0;
    if (!take_out(c))
        lose(c);
    else if (said)
        c->engine->ops->drained(c->engine);
}

static void say(struct caller *c, const char *bytes, size_t len)
{
    if (len > ROOM - c->in_len)
        abort();
    memcpy(c->in + c->in_len, bytes, len);
    c->in_len += len;
}

/* A frame, whose NUL is the string's own. */
#define SAY(c, text) say(c, text, sizeof(text))

/* Turns until the word has come, whatever else comes before it, and takes it out of what was said. False: lost, or it does not come. */
static bool hear_until(struct caller *c, const char *word, const char *end, char *ret, size_t max)
{
    for (unsigned i = 0; !c->missing; i++) {
        char *at = memmem(c->out, c->out_len, word, strlen(word));
        size_t left = at ? c->out_len - (size_t)(at - c->out) - strlen(word) : 0;
        char *to = at ? memmem(at + strlen(word), left, end, strlen(end)) : NULL;
        if (to) {
            if (max)
                snprintf(ret, max, "%.*s", (int)(to - at - (ptrdiff_t)strlen(word)), at + strlen(word));
            c->out_len -= (size_t)(to - at);
            memmove(at, to, c->out_len - (size_t)(at - c->out));
            return true;
        }
        if (i == TURNS_MAX || !c->engine || c->w->dead || c->w->model->wrong[0])
            c->missing = word;
        world_turn(c->w);
        caller_turn(c);
    }
    return false;
}

static bool hear(struct caller *c, const char *word)
{
    return hear_until(c, word, "", NULL, 0);
}

/* The id of an ack header. */
static bool hear_ack(struct caller *c, char *ret, size_t len)
{
    return hear_until(c, "\nack:", "\n", ret, len);
}

static void say_ack(struct caller *c, const char *command, const char *id, const char *more)
{
    char frame[400];
    int len = snprintf(frame, sizeof frame, "%s\nid:%s\n%s\n", command, id, more);
    say(c, frame, (size_t)len + 1);
}

/* ---- the script ---- */

static bool play_queue(struct caller *c)
{
    char id[200];
    SAY(c, "CONNECT\naccept-version:1.2\nlogin:guest\npasscode:guest\nhost:/\n\n");
    if (!hear(c, "CONNECTED"))
        return false;
    SAY(c, "SUBSCRIBE\nid:0\ndestination:/queue/said\nack:client-individual\nprefetch-count:10\nreceipt:r0\n\n");
    if (!hear(c, "receipt-id:r0"))
        return false;
    SAY(c, "SEND\ndestination:/queue/said\npersistent:true\nwith\\ccolon:a\\nb\nreceipt:r1\n\nfirst");
    if (!hear_ack(c, id, sizeof id) || !hear(c, "with\\ccolon:a\\nb") || !hear(c, "receipt-id:r1"))
        return false;
    say_ack(c, "NACK", id, "");
    if (!hear(c, "redelivered:true") || !hear_ack(c, id, sizeof id))
        return false;
    say_ack(c, "ACK", id, "receipt:r2\n");
    return hear(c, "receipt-id:r2");
}

static bool play_transaction(struct caller *c)
{
    SAY(c, "BEGIN\ntransaction:t\n\n");
    SAY(c, "SEND\ndestination:/queue/said\npersistent:true\ntransaction:t\n\nin it");
    SAY(c, "COMMIT\ntransaction:t\nreceipt:r3\n\n");
    if (!hear(c, "RECEIPT\nreceipt-id:r3")) /* an ERROR names it too */
        return false;
    c->w->stomp_told = true;
    if (!hear(c, "in it"))
        return false;
    SAY(c, "BEGIN\ntransaction:t\n\n");
    SAY(c, "SEND\ndestination:/queue/said\ntransaction:t\n\nnot in it");
    SAY(c, "ABORT\ntransaction:t\nreceipt:r4\n\n");
    return hear(c, "receipt-id:r4");
}

/* One acknowledgement for two messages. */
static bool play_cumulative(struct caller *c)
{
    char id[200];
    SAY(c, "SUBSCRIBE\nid:2\ndestination:/queue/both\nack:client\nreceipt:r8\n\n");
    if (!hear(c, "receipt-id:r8"))
        return false;
    SAY(c, "SEND\ndestination:/queue/both\n\none of them");
    SAY(c, "SEND\ndestination:/queue/both\n\nthe other");
    if (!hear_ack(c, id, sizeof id) || !hear(c, "one of them") || !hear_ack(c, id, sizeof id))
        return false;
    say_ack(c, "ACK", id, "receipt:r9\n");
    return hear(c, "receipt-id:r9");
}

/* What is selected lies in a page, behind a front that nobody reads. */
static bool play_behind(struct caller *c)
{
    char frame[300];
    for (int i = 0; i < 16; i++) {
        int len = snprintf(frame, sizeof frame, "SEND\ndestination:/queue/behind\npersistent:true\nkind:%s%s\n\n%0150d",
                           i == 11 ? "rare" : "usual", i == 15 ? "\nreceipt:r10" : "", i);
        say(c, frame, (size_t)len + 1);
    }
    if (!hear(c, "receipt-id:r10"))
        return false;
    world_turns(c->w, 20); /* the pages are written */
    SAY(c, "SUBSCRIBE\nid:3\ndestination:/queue/behind\nselector:kind = 'rare'\nreceipt:r11\n\n");
    if (!hear(c, "receipt-id:r11") || !hear(c, "kind:rare"))
        return false;
    SAY(c, "UNSUBSCRIBE\nid:3\nreceipt:r12\n\n");
    return hear(c, "receipt-id:r12");
}

/* A selector, a reply queue, and a message whose head alone is longer than a piece of the out-queue. */
static bool play_topics(struct caller *c)
{
    static char frame[HEADER_LONG + 200];
    SAY(c, "SUBSCRIBE\nid:1\ndestination:/topic/news.*\nselector:kind = 'good'\nreceipt:r5\n\n");
    if (!hear(c, "receipt-id:r5"))
        return false;
    SAY(c, "SEND\ndestination:/topic/news.a\nkind:bad\n\nnot this");
    SAY(c, "SEND\ndestination:/topic/news.a\nkind:good\nreply-to:/temp-queue/mine\n\nbut this");
    if (!hear(c, "kind:good") || !hear(c, "but this"))
        return false;
    int len = snprintf(frame, sizeof frame, "SEND\ndestination:/topic/news.b\nkind:good\nlong:");
    memset(frame + len, 'x', HEADER_LONG);
    len += HEADER_LONG;
    len += snprintf(frame + len, sizeof frame - (size_t)len, "\n\nwith a long head");
    say(c, frame, (size_t)len + 1);
    if (!hear(c, "with a long head"))
        return false;
    SAY(c, "UNSUBSCRIBE\nid:1\nreceipt:r6\n\n");
    if (!hear(c, "receipt-id:r6"))
        return false;
    SAY(c, "DISCONNECT\nreceipt:r7\n\n");
    return hear(c, "receipt-id:r7");
}

static struct engine *make_stomp(void *loop_owner, void *arg, const struct os_peer *peer, mono_t now)
{
    return stomp_new(arg, loop_owner, peer->text, true, now);
}

/* A masked text frame, the mask of which changes nothing. */
static void say_frame(struct caller *c, const char *text, size_t len)
{
    const char head[] = {(char)0x81, (char)(0x80 | len), 0, 0, 0, 0};
    say(c, head, sizeof head);
    say(c, text, len);
}

static bool play_web(struct caller *c)
{
    static const char ask[] = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    static const char upgrade[] =
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v12.stomp\r\n\r\n";
    static const char connect[] = "CONNECT\naccept-version:1.2\nhost:/\n\n";
    say(c, ask, sizeof ask - 1);
    if (!hear(c, "200 OK"))
        return false;
    say(c, upgrade, sizeof upgrade - 1);
    if (!hear(c, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
        return false;
    say_frame(c, connect, sizeof connect);
    return hear(c, "CONNECTED");
}

/* Nobody runs SQL in this world: that is what it says, after it has taken the statements. */
static bool play_sql(struct caller *c)
{
    static const char head[] =
        "POST /sql HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 6010\r\n\r\n";
    char body[6011];
    snprintf(body, sizeof body, "%*s{\"sql\":\"\"}", 6000, "");
    for (int i = 0; i < 2; i++) {
        say(c, head, sizeof head - 1);
        say(c, body, sizeof body - 1);
        if (!hear(c, "\"57P03\""))
            return false;
    }
    return true;
}

static void judge(const struct caller *c, bool (*faultless)(const struct world *w))
{
    if (c->missing && !c->w->model->wrong[0] && faultless(c->w))
        model_fault(c->w->model, "a STOMP client waits in vain for %s", c->missing);
}

void stomp_play(struct world *w, bool (*faultless)(const struct world *w))
{
    static const struct os_peer peer = {.text = "127.0.0.1:3", .loopback = true};
    struct stomp_options options;
    options_set(&options, w);
    struct engine_factory factory = {.make = make_stomp, .arg = &options};
    const struct http_protocol within = {.name = "v12.stomp", .factory = &factory, .text = true};
    const struct http_options http = {.protocols = &within,
                                      .protocol_count = 1,
                                      .trusts_visitors = true,
                                      .origins = "",
                                      .handshake_ms = 10000,
                                      .idle_ms = 60000,
                                      .sql = true,
                                      .anonymous = "guest",
                                      .websocket = {.message_bytes_max = 100000, .close_ms = 1000}};
    struct caller c;
    caller_begin(&c, w, stomp_new(&options, w->hub, peer.text, true, w->os->now_mono(w->os)));
    (void)(play_queue(&c) && play_transaction(&c) && play_cumulative(&c) && play_behind(&c) && play_topics(&c));
    judge(&c, faultless);
    caller_end(&c);
    if (w->dead || w->model->wrong[0])
        return;
    caller_begin(&c, w, http_new(&http, w->hub, &peer, w->os->now_mono(w->os)));
    (void)play_web(&c);
    judge(&c, faultless);
    caller_end(&c);
    if (w->dead || w->model->wrong[0])
        return;
    caller_begin(&c, w, http_new(&http, w->hub, &peer, w->os->now_mono(w->os)));
    (void)play_sql(&c);
    judge(&c, faultless);
    caller_end(&c);
    world_turns(w, 20);
}

void stomp_check(struct world *w)
{
    struct stomp_options options;
    struct caller c;
    if (!w->stomp_told)
        return;
    options_set(&options, w);
    caller_begin(&c, w, stomp_new(&options, w->hub, "127.0.0.1:4", true, w->os->now_mono(w->os)));
    SAY(&c, "CONNECT\naccept-version:1.2\nlogin:guest\npasscode:guest\nhost:/\n\n");
    SAY(&c, "SUBSCRIBE\nid:0\ndestination:/queue/said\nack:client\n\n");
    if (!hear(&c, "in it") && !w->model->wrong[0])
        model_fault(w->model, "a commit that a STOMP client has a receipt of is gone: no %s", c.missing);
    caller_end(&c);
    world_turns(w, 20);
}
