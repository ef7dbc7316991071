/* Fuzz target of HTTP requests, of the HTTP listener with POST /sql, and of UTF-8.
 * fuzz: -max_len=20000
 * covers: src/fmt/http.c src/base/utf8.c src/proto/http/sql.c src/proto/http/sql_answer.c src/proto/http/sql_csv.c
 *
 * The first byte says how the rest is cut. The bytes are a connection: heads and bodies one behind the other. Cut or whole,
 * the same must come out; a head that was accepted must not be one that another reader could take for something else; and
 * content must lie within the bytes given. UTF-8 is checked in pieces and whole.
 *
 * The listener is given the same connection, cut and whole: what it says must be the same. Its core lets in whose names do not begin
 * with x, and says the statements back as if they were rows, in pieces, so that what CSV is made of is the fuzzer's, too. */
#include "base/check.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "fmt/http.h"
#include "proto/http/engine.h"
#include "proto/hub.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define BODY_MAX 5000u

static void check_request(const struct http_request *r, struct slice head)
{
    CHECK(r->field_count <= HTTP_FIELDS_MAX && r->method.len && r->path.len);
    CHECK(http_field_count(r, "content-length") + http_field_count(r, "transfer-encoding") <= 1);
    CHECK(http_field_count(r, "host") <= 1);
    CHECK(!r->chunked || r->content_length == 0);
    for (unsigned i = 0; i < r->field_count; i++) {
        const struct http_field *f = &r->fields[i];
        CHECK(f->name.ptr >= head.ptr && f->value.ptr + f->value.len <= head.ptr + head.len);
        CHECK(!memchr(f->name.ptr, ' ', f->name.len));
        CHECK(f->value.len == 0 ||
              (!memchr(f->value.ptr, '\r', f->value.len) && !memchr(f->value.ptr, '\n', f->value.len)));
    }
    struct http_list list = {.name = "connection"};
    struct slice word;
    while (http_list_next(r, &list, &word))
        CHECK(word.len && !memchr(word.ptr, ',', word.len));
}

/* Bytes of the body at the front of `rest`; *ret_over: it is complete. */
static size_t read_body(const struct http_request *r, struct slice rest, size_t step, bool *ret_over, uint64_t *ret_sum)
{
    struct http_body body;
    size_t used = 0;
    http_body_init(&body, r, BODY_MAX);
    *ret_sum = 0;
    while (!body.done && !body.status && used < rest.len) {
        struct slice part;
        size_t offered = rest.len - used < step ? rest.len - used : step;
        size_t n = http_body_take(&body, slice_of(rest.ptr + used, offered), &part);
        CHECK(n <= offered && part.len <= n);
        CHECK(part.len == 0 || (part.ptr >= rest.ptr + used && part.ptr + part.len <= rest.ptr + used + n));
        CHECK(n || body.done || body.status);
        *ret_sum += part.len;
        used += n;
    }
    CHECK(*ret_sum <= BODY_MAX);
    *ret_over = body.done;
    return used;
}

static void play(struct slice bytes, size_t step)
{
    while (bytes.len) {
        struct http_scan scan = {0}, whole = {0};
        struct http_request r;
        size_t offered = 0, len = 0, len_whole = 0;
        unsigned found = HTTP_MORE;
        while (found == HTTP_MORE && offered < bytes.len) {
            offered = bytes.len - offered < step ? bytes.len : offered + step;
            found = http_scan(&scan, slice_of(bytes.ptr, offered), &len);
        }
        CHECK(http_scan(&whole, bytes, &len_whole) == found && len == len_whole);
        if (found != HTTP_WHOLE)
            return;
        struct slice head = slice_of(bytes.ptr, len);
        if (http_parse(head, &r))
            return;
        check_request(&r, head);
        bytes = slice_of(bytes.ptr + len, bytes.len - len);
        bool over, over_whole;
        uint64_t sum, sum_whole;
        size_t used = read_body(&r, bytes, step, &over, &sum);
        CHECK(read_body(&r, bytes, SIZE_MAX, &over_whole, &sum_whole) == used && over == over_whole &&
              sum == sum_whole);
        if (!over)
            return;
        bytes = slice_of(bytes.ptr + used, bytes.len - used);
    }
}

static void check_utf8(struct slice text, size_t step)
{
    struct utf8 u = {0};
    bool valid = true;
    for (size_t at = 0; at < text.len && valid; at += step)
        valid = utf8_step(&u, slice_of(text.ptr + at, text.len - at < step ? text.len - at : step));
    CHECK((valid && utf8_whole(&u)) == utf8_valid(text));
}

/* ---- the listener ---- */

#define ECHO_PIECE 5000u

struct listener {
    struct port port;
    struct slab_heap heap;
    struct hub *hub;
    struct engine *engine; /* NULL: it is closed */
    uint64_t said, sum;
};

static struct effect *emit(struct listener *l, enum effect_type type, const struct command *c)
{
    struct effect *e = ring_push(&l->port.effects);
    CHECK(e);
    *e = (struct effect){.type = (uint8_t)type, .session = c->session, .origin = c->origin};
    return e;
}

static struct answer *answer_of(enum error_code code, struct slice text, struct slice fields)
{
    struct answer *answer = mem_zalloc(sizeof *answer + text.len + fields.len);
    CHECK(answer);
    answer->code = code;
    answer->text = slice_of(answer->bytes, text.len);
    answer->fields = slice_of(answer->bytes + text.len, fields.len);
    if (text.len)
        memcpy(answer->bytes, text.ptr, text.len);
    if (fields.len)
        memcpy(answer->bytes + text.len, fields.ptr, fields.len);
    return answer;
}

static void refuse(struct listener *l, const struct command *c, enum error_code code)
{
    emit(l, EFF_ERROR, c)->answer = answer_of(code, slice_str("\"x\" may not"), (struct slice){0});
}

static void echo(struct listener *l, const struct command *c)
{
    struct slice left = c->ask->name, none = {0};
    bool fails = slice_starts(left, "!");
    while (left.len) {
        size_t n = left.len < ECHO_PIECE ? left.len : ECHO_PIECE;
        emit(l, EFF_SQL_SAID, c)->answer = answer_of(ERR_NONE, none, slice_of(left.ptr, n));
        left = slice_of(left.ptr + n, left.len - n);
    }
    struct effect *e = emit(l, EFF_SQL_SAID, c);
    e->flags = EFFECT_SQL_LAST;
    e->answer = answer_of(fails ? ERR_RESOURCE_ERROR : ERR_NONE, slice_str("no more"), c->ask->args);
}

static void obey(struct listener *l, struct command *c)
{
    switch (c->type) {
    case CMD_LOGIN:
    case CMD_ENTER:
        if (slice_starts(c->ask->name, "x"))
            refuse(l, c, c->type == CMD_LOGIN ? ERR_ACCESS_REFUSED : ERR_NOT_ALLOWED);
        else
            (void)emit(l, EFF_ANSWER, c);
        break;
    case CMD_SQL_ASK:
        CHECK(c->ask->name.len <= 1u << 20 && c->ask->args.len <= SQL_OPTIONS_MAX);
        if (slice_starts(c->ask->name, "kick"))
            emit(l, EFF_SESSION_KICK, c)->answer =
                answer_of(ERR_CONNECTION_FORCED, slice_str("gone"), (struct slice){0});
        else
            echo(l, c);
        break;
    case CMD_SESSION_CLOSE: (void)emit(l, EFF_SESSION_CLOSED, c); break;
    default: break;
    }
    command_drop(&l->heap, c);
}

static void take_out(struct listener *l)
{
    struct outq *q = &l->engine->out;
    struct iovec v;
    l->engine->ops->gather(l->engine);
    while (outq_peek(q, &v, 1)) {
        for (size_t i = 0; i < v.iov_len; i++)
            l->sum = (l->sum ^ ((const uint8_t *)v.iov_base)[i]) * 0x100000001b3u;
        l->said += v.iov_len;
        outq_consume(q, v.iov_len);
        if (q->len == 0)
            l->engine->ops->drained(l->engine);
    }
}

/* Until nobody has anything to say. bytes: what the listener has not consumed; returns how much it does. */
static size_t turns(struct listener *l, struct slice bytes)
{
    size_t used = 0;
    for (int idle = 0; idle < 2; idle++) {
        struct command *c;
        hub_publish(l->hub);
        while ((c = ring_peek(&l->port.commands))) {
            struct command taken = *c;
            ring_pop(&l->port.commands);
            obey(l, &taken);
            idle = 0;
        }
        ring_publish(&l->port.effects);
        (void)hub_turn(l->hub, 0, 1);
        if (!l->engine)
            continue;
        if (!l->engine->want_close && !l->engine->out.failed) {
            size_t n = l->engine->ops->feed(l->engine, slice_of(bytes.ptr + used, bytes.len - used));
            CHECK(n <= bytes.len - used);
            used += n;
            idle = n ? 0 : idle;
        }
        take_out(l);
    }
    return used;
}

static void listen_to(struct slice bytes, size_t step, uint64_t *ret_said, uint64_t *ret_sum)
{
    static const struct http_options options = {
        .origins = "", .handshake_ms = 1, .idle_ms = 1, .sql = true, .anonymous = "guest"};
    static const struct os_peer peer = {.text = "127.0.0.1:1", .loopback = true};
    struct listener l = {.sum = 0xcbf29ce484222325u};
    slab_heap_init(&l.heap);
    CHECK(ring_init(&l.port.commands, 128, sizeof(struct command)) &&
          ring_init(&l.port.effects, 512, sizeof(struct effect)));
    l.hub = hub_new(&l.port, &l.heap, 64);
    l.engine = l.hub ? http_new(&options, l.hub, &peer, 1) : NULL;
    CHECK(l.engine);
    for (size_t at = 0, end = 0; end < bytes.len && !l.engine->want_close;) {
        end = bytes.len - end < step ? bytes.len : end + step;
        at += turns(&l, slice_of(bytes.ptr + at, end - at));
        if (end - at > l.engine->in_max)
            break; /* as a connection does */
    }
    *ret_said = l.said;
    *ret_sum = l.sum;
    l.engine->ops->closed(l.engine);
    l.engine = NULL;
    (void)turns(&l, (struct slice){0});
    CHECK(hub_sessions(l.hub) == 0);
    hub_free(&l.hub);
    ring_fini(&l.port.commands);
    ring_fini(&l.port.effects);
    slab_heap_fini(&l.heap);
}

static void check_listener(struct slice bytes, size_t step)
{
    uint64_t said, sum, said_whole, sum_whole;
    size_t before = mem_in_use();
    listen_to(bytes, step, &said, &sum);
    listen_to(bytes, SIZE_MAX, &said_whole, &sum_whole);
    CHECK(said == said_whole && sum == sum_whole);
    CHECK(mem_in_use() == before);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len < 2)
        return 0;
    /* A block of exactly this size, so that the sanitizer sees a read beyond its end. */
    uint8_t *copy = mem_alloc(len - 1);
    CHECK(copy);
    memcpy(copy, bytes + 1, len - 1);
    play(slice_of(copy, len - 1), bytes[0] ? bytes[0] : 1);
    check_listener(slice_of(copy, len - 1), bytes[0] ? bytes[0] : 1);
    check_utf8(slice_of(copy, len - 1), bytes[0] ? bytes[0] : 1);
    mem_free(copy);
    return 0;
}
