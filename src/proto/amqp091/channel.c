/* Channels and incoming contents, see channel.h.
 *
 * Numbers: a channel's number is free again when the core has said CHANNEL_CLOSED and, after an error of ours, the client
 * has said close-ok; a channel.open that comes earlier waits in the buffer (engine.c).
 *
 * Contents: when method, header and body of a publish stand in the buffer together, which is the rule, the message is
 * made straight from them. Otherwise names are kept aside until the header has come, and the body is gathered in the
 * message itself, which grows with the bytes that arrive: what a header announces costs nothing beyond BODY_FIRST.
 *
 * Errors found here must not overtake the core's answers to what the client sent earlier: amqp091_fault sends a fence (a
 * cancel of no consumer, which changes nothing and is always answered) and speaks when its answer comes.
 * Thread: the loop's. */
#include "proto/amqp091/channel.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/reader.h"
#include "fmt/amqp_props.h"
#include "proto/amqp091/answers.h"
#include "proto/amqp091/out.h"

#include <stdarg.h>
#include <stdio.h>

#define BODY_FIRST 65536u /* the most that a header alone makes us allocate */
#define CHANNELS_FIRST 4u
#define HEADER_FIXED 12u
#define PUBLISH_CLASS 60
#define PUBLISH_METHOD 40

/* ---- life ---- */

static bool table_reach(struct amqp091 *a, uint16_t number)
{
    if (number < a->channels_len)
        return true;
    uint32_t len = a->channels_len ? a->channels_len : CHANNELS_FIRST;
    while (len <= number)
        len *= 2;
    if (len > a->agreed.channel_max + 1u)
        len = a->agreed.channel_max + 1u;
    struct amqp091_channel **grown = mem_realloc(a->channels, len * sizeof *grown);
    if (!grown)
        return false;
    memset(grown + a->channels_len, 0, (len - a->channels_len) * sizeof *grown);
    a->channels = grown;
    a->channels_len = len;
    return true;
}

static struct amqp091_channel *channel_new(struct amqp091 *a, uint16_t number)
{
    if (!table_reach(a, number))
        return NULL;
    struct amqp091_channel *ch = mem_zalloc_as(MEM_CONNECTIONS, sizeof *ch);
    if (!ch)
        return NULL;
    ch->number = number;
    list_init(&ch->holding_link);
    list_init(&ch->held);
    map_init(&ch->consumers, 0x9e3779b97f4a7c15u);
    confirms_init(&ch->confirms, CONFIRMS_KEPT);
    a->channels[number] = ch;
    a->channel_count++;
    return ch;
}

void amqp091_channel_open(struct amqp091 *a, uint16_t number)
{
    if (number > a->agreed.channel_max) {
        amqp091_fail(a, ERR_NOT_ALLOWED, 20, 10,
                     "number of channels opened (%u) has reached the negotiated channel_max (%u)", a->channel_count,
                     a->agreed.channel_max);
        return;
    }
    struct amqp091_channel *ch = channel_new(a, number);
    if (!ch) {
        amqp091_fail_memory(a);
        return;
    }
    struct command *command = hub_command(amqp091_hub(a), &a->session);
    command->type = CMD_CHANNEL_OPEN;
    command->channel = number;
    command->origin = AMQP091_ORIGIN(20, 10);
}

static void content_drop(struct amqp091 *a, struct amqp091_channel *ch)
{
    if (a->body_channel == ch)
        a->body_channel = NULL;
    if (ch->msg) {
        a->assembly_bytes -= ch->body_room;
        msg_unref(amqp091_heap(a), ch->msg);
        ch->msg = NULL;
    }
    ch->stage = STAGE_METHOD;
}

void amqp091_settle(struct amqp091 *a, struct amqp091_channel *ch, uint64_t bytes)
{
    if (bytes > ch->unsettled_bytes)
        bytes = ch->unsettled_bytes; /* transactions are not counted, see publish_send */
    ch->unsettled_bytes -= bytes;
    a->unsettled_bytes -= bytes;
    if (a->unsettled_bytes < AMQP091_INFLIGHT_LOW)
        amqp091_resume(a, PAUSE_FLOW);
}

/* The channel says nothing more: what waits for the core's disk or for the peer's bytes goes. */
static void channel_silence(struct amqp091 *a, struct amqp091_channel *ch)
{
    content_drop(a, ch);
    amqp091_held_drop(a, ch);
    amqp091_settle(a, ch, ch->unsettled_bytes);
    confirms_fini(&ch->confirms);
    mem_free(ch->fault);
    ch->fault = NULL;
    mem_free(ch->pending);
    ch->pending = NULL;
}

static void channel_free(struct amqp091 *a, struct amqp091_channel *ch)
{
    channel_silence(a, ch);
    MAP_EACH(&ch->consumers, struct amqp091_consumer, consumer)
    mem_free(consumer);
    map_fini(&ch->consumers);
    a->channels[ch->number] = NULL;
    a->channel_count--;
    mem_free_as(MEM_CONNECTIONS, ch);
}

void amqp091_channels_free(struct amqp091 *a)
{
    for (uint32_t i = 0; i < a->channels_len; i++)
        if (a->channels[i])
            channel_free(a, a->channels[i]);
    mem_free(a->channels);
    a->channels = NULL;
    a->channels_len = 0;
}

/* CHANNEL_CLOSE, once. */
static void core_close(struct amqp091 *a, struct amqp091_channel *ch)
{
    if (ch->close_sent)
        return;
    struct command *command = hub_command(amqp091_hub(a), &a->session);
    ch->owes_close = !command;
    if (!command) {
        a->owes_channels = true;
        hub_wait_room(amqp091_hub(a), &a->session);
        return;
    }
    ch->close_sent = true;
    command->type = CMD_CHANNEL_CLOSE;
    command->channel = ch->number;
    command->origin = AMQP091_ORIGIN(20, 40);
}

void amqp091_channels_pay(struct amqp091 *a)
{
    a->owes_channels = false;
    if (!amqp091_live(a))
        return; /* SESSION_CLOSE covers them */
    for (uint32_t i = 0; i < a->channels_len && !a->owes_channels; i++)
        if (a->channels[i] && a->channels[i]->owes_close)
            core_close(a, a->channels[i]);
}

void amqp091_channel_leave(struct amqp091 *a, struct amqp091_channel *ch)
{
    ch->state = CHANNEL_LEAVING;
    ch->client_closed = true;
    core_close(a, ch);
}

void amqp091_channel_discard(struct amqp091 *a, struct amqp091_channel *ch, const struct amqp091_row *row)
{
    enum amqp091_method method = (enum amqp091_method)(row - amqp091_rows);
    if (ch->state == CHANNEL_FENCED && method == AMQP091_channel_close)
        ch->client_closed = true; /* the client leaves before it was told what it did wrong: it gets both answers */
    if (ch->state != CHANNEL_FAILED)
        return;
    if (method == AMQP091_channel_close) /* the closes crossed: RabbitMQ answers and waits for its own answer */
        amqp091_out_method(a, ch->number, AMQP091_channel_close_ok, NULL);
    if (method != AMQP091_channel_close_ok)
        return;
    ch->state = CHANNEL_LEAVING;
    if (ch->core_closed)
        channel_free(a, ch);
}

void amqp091_channel_closed(struct amqp091 *a, struct amqp091_channel *ch)
{
    ch->core_closed = true;
    if (ch->client_closed)
        amqp091_out_method(a, ch->number, AMQP091_channel_close_ok, NULL);
    ch->client_closed = false;
    if (ch->state != CHANNEL_LEAVING)
        return; /* the client's close-ok is still to come */
    channel_free(a, ch);
    engine_dirty(&a->session.engine); /* a channel.open may wait for the number */
}

/* ---- errors ---- */

void amqp091_channel_fail(struct amqp091 *a, struct amqp091_channel *ch, enum error_code code, uint16_t class_id,
                          uint16_t method_id, struct slice text)
{
    if (error_row(code)->hard) {
        amqp091_fail(a, code, class_id, method_id, "%.*s", SLICE_ARG(text));
        return;
    }
    char reply[256];
    size_t len = amqp091_reply_text(reply, code, text);
    amqp091_out_method(a, ch->number, AMQP091_channel_close,
                       &(struct amqp091_channel_close){.reply_code = error_row(code)->amqp,
                                                       .reply_text = slice_of(reply, len),
                                                       .class_id = class_id,
                                                       .method_id = method_id});
    ch->state = CHANNEL_FAILED;
    channel_silence(a, ch);
    core_close(a, ch);
}

void amqp091_fault(struct amqp091 *a, struct amqp091_channel *ch, enum error_code code, uint16_t class_id,
                   uint16_t method_id, const char *format, ...)
{
    struct slice none = {0};
    struct amqp091_fault *fault = mem_alloc(sizeof *fault);
    struct ask *fence = fault ? ask_new(none, none, none, none) : NULL;
    if (!fence) {
        mem_free(fault);
        amqp091_fail_memory(a);
        return;
    }
    *fault = (struct amqp091_fault){.code = code, .class_id = class_id, .method_id = method_id};
    va_list args;
    va_start(args, format);
    vsnprintf(fault->text, sizeof fault->text, format, args);
    va_end(args);
    CHECK(ch->state == CHANNEL_OPEN && !ch->fault);
    content_drop(a, ch);
    ch->fault = fault;
    ch->state = CHANNEL_FENCED;
    struct command *command = hub_command(amqp091_hub(a), &a->session);
    command->type = CMD_CANCEL;
    command->channel = ch->number;
    command->origin = ORIGIN_FENCE;
    command->ask = fence;
}

/* ---- what a publish says of itself ---- */

struct publish {
    struct slice exchange, key, props;
    uint64_t body_size;
    int64_t expiration_ms;
    uint8_t flags, priority;
};

static bool props_read_all(struct amqp091 *a, struct amqp091_channel *ch, struct publish *p)
{
    struct amqp_props props;
    if (!amqp_props_parse(p->props, &props)) {
        amqp091_fail(a, ERR_SYNTAX_ERROR, PUBLISH_CLASS, PUBLISH_METHOD, "the content properties are damaged");
        return false;
    }
    if (props.headers.len > AMQP091_HEADERS_MAX) {
        amqp091_fault(a, ch, ERR_PRECONDITION_FAILED, PUBLISH_CLASS, PUBLISH_METHOD,
                      "header table of %zu bytes is larger than max size %u", props.headers.len, AMQP091_HEADERS_MAX);
        return false;
    }
    if (!amqp_props_acceptable(&props, &p->expiration_ms, NULL, 0))
        p->flags |= MSG_INVALID; /* the core says so, after it has looked for the exchange */
    p->priority = props.priority;
    p->flags |= (uint8_t)((props.delivery_mode == 2 ? MSG_PERSISTENT : 0) |
                          (props.present & AMQP_HEADERS ? MSG_HAS_HEADERS : 0) |
                          (props.present & AMQP_USER_ID ? MSG_HAS_USER_ID : 0) |
                          (props.present & AMQP_REPLY_TO ? MSG_HAS_REPLY_TO : 0));
    return true;
}

/* Fills flags, priority and expiration; the two commonest property lists need no parser. */
static inline bool props_read(struct amqp091 *a, struct amqp091_channel *ch, struct publish *p)
{
    const uint8_t *b = p->props.ptr;
    p->expiration_ms = -1;
    p->priority = 0;
    if (p->props.len == 2 && b[0] == 0 && b[1] == 0)
        return true;
    if (p->props.len == 3 && b[0] == AMQP_DELIVERY_MODE >> 8 && b[1] == 0 && (b[2] == 1 || b[2] == 2)) {
        p->flags |= b[2] == 2 ? MSG_PERSISTENT : 0;
        return true;
    }
    return props_read_all(a, ch, p);
}

/* The checks that need the header only; false: the channel or connection has failed, or memory was refused. */
static inline struct msg *publish_begin(struct amqp091 *a, struct amqp091_channel *ch, struct publish *p)
{
    if (p->body_size > a->options->message_bytes_max) {
        amqp091_fault(a, ch, ERR_PRECONDITION_FAILED, PUBLISH_CLASS, PUBLISH_METHOD,
                      "message size %llu is larger than max size %llu", (unsigned long long)p->body_size,
                      (unsigned long long)a->options->message_bytes_max);
        return NULL;
    }
    if (!props_read(a, ch, p))
        return NULL;
    uint32_t room = p->body_size < BODY_FIRST ? (uint32_t)p->body_size : BODY_FIRST;
    struct msg *msg = msg_new(amqp091_heap(a), p->exchange, p->key, p->props, room);
    if (!msg) {
        amqp091_fail_memory(a);
        return NULL;
    }
    msg->flags = p->flags;
    msg->priority = p->priority;
    msg->expiration_ms = p->expiration_ms;
    return msg;
}

/* The message is complete: it is the core's. */
static inline void publish_send(struct amqp091 *a, struct amqp091_channel *ch, struct msg *msg)
{
    struct command *command = hub_command(amqp091_hub(a), &a->session);
    command->type = CMD_PUBLISH;
    command->channel = ch->number;
    command->origin = AMQP091_ORIGIN(PUBLISH_CLASS, PUBLISH_METHOD);
    command->number = ++ch->published;
    command->msg = msg;
    if (ch->tx)
        return; /* settled by tx.commit at last: the core's own limit bounds a transaction */
    size_t size = msg_size(msg);
    ch->unsettled_bytes += size;
    a->unsettled_bytes += size;
    if (a->unsettled_bytes > AMQP091_INFLIGHT_HIGH)
        amqp091_pause(a, PAUSE_FLOW);
}

/* ---- the fast path ---- */

static inline uint16_t be16_at(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return be16toh(v);
}

static inline uint32_t be32_at(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return be32toh(v);
}

static inline uint64_t be64_at(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return be64toh(v);
}

/* The payload of the complete, well-formed frame of that type and channel at the beginning of bytes; ptr NULL: no. */
static inline struct slice whole_frame(const struct amqp091 *a, struct slice bytes, uint8_t type, uint16_t number)
{
    struct slice none = {0};
    if (bytes.len < FRAME_OVERHEAD || bytes.ptr[0] != type || be16_at(bytes.ptr + 1) != number)
        return none;
    uint32_t size = be32_at(bytes.ptr + 3);
    if (size > a->frame_limit || bytes.len < (size_t)size + FRAME_OVERHEAD || bytes.ptr[FRAME_HEAD + size] != FRAME_END)
        return none;
    return slice_of(bytes.ptr + FRAME_HEAD, size);
}

/* Header and body frames that stand complete in `after`. Returns how much they took; 0: they do not, or something about
 * them is odd, and the general path shall say what. */
static size_t content_whole(struct amqp091 *a, struct amqp091_channel *ch, struct publish *p, struct slice after)
{
    struct slice header = whole_frame(a, after, FRAME_HEADER, ch->number);
    if (header.len < HEADER_FIXED + 2 || be32_at(header.ptr) != (uint32_t)PUBLISH_CLASS << 16) /* class, no weight */
        return 0;
    p->body_size = be64_at(header.ptr + 4);
    p->props = slice_of(header.ptr + HEADER_FIXED, header.len - HEADER_FIXED);
    size_t used = header.len + FRAME_OVERHEAD;
    struct slice body = {0};
    if (p->body_size) {
        body = whole_frame(a, slice_of(after.ptr + used, after.len - used), FRAME_BODY, ch->number);
        if (!body.ptr || body.len != p->body_size || body.len > BODY_FIRST)
            return 0;
        used += body.len + FRAME_OVERHEAD;
    }
    struct msg *msg = publish_begin(a, ch, p);
    if (!msg)
        return used; /* failed and said so */
    if (body.len)
        memcpy(msg_body_room(msg), body.ptr, body.len);
    publish_send(a, ch, msg);
    return used;
}

size_t amqp091_content_method(struct amqp091 *a, struct amqp091_channel *ch, struct slice args, struct slice after)
{
    struct reader r = reader_of(args);
    struct publish p = {0};
    reader_u16(&r); /* the ticket of 0-8 */
    p.exchange = reader_str8(&r);
    p.key = reader_str8(&r);
    uint8_t bits = reader_u8(&r);
    if (!reader_done(&r)) {
        amqp091_fail(a, ERR_FRAME_ERROR, PUBLISH_CLASS, PUBLISH_METHOD, "cannot decode the fields of basic.publish");
        return 0;
    }
    if (bits & 2) {
        amqp091_fault(a, ch, ERR_NOT_IMPLEMENTED, PUBLISH_CLASS, PUBLISH_METHOD, "immediate=true");
        return 0;
    }
    p.flags = bits & 1 ? MSG_MANDATORY : 0;
    size_t used = content_whole(a, ch, &p, after);
    if (used)
        return used;
    if (!ch->pending && !(ch->pending = mem_alloc(sizeof *ch->pending))) {
        amqp091_fail_memory(a);
        return 0;
    }
    ch->pending->mandatory = bits & 1;
    ch->pending->exchange_len = (uint8_t)p.exchange.len;
    ch->pending->key_len = (uint8_t)p.key.len;
    if (p.exchange.len)
        memcpy(ch->pending->names, p.exchange.ptr, p.exchange.len);
    if (p.key.len)
        memcpy(ch->pending->names + p.exchange.len, p.key.ptr, p.key.len);
    ch->stage = STAGE_HEADER;
    return 0;
}

/* ---- the general path ---- */

static void content_done(struct amqp091 *a, struct amqp091_channel *ch)
{
    struct msg *msg = ch->msg;
    CHECK(ch->body_have == ch->body_size && ch->body_room == ch->body_size && msg->body_len == ch->body_size);
    a->assembly_bytes -= ch->body_room;
    ch->msg = NULL;
    ch->stage = STAGE_METHOD;
    if (a->body_channel == ch)
        a->body_channel = NULL;
    publish_send(a, ch, msg);
}

static void content_header(struct amqp091 *a, struct amqp091_channel *ch, struct slice payload)
{
    struct reader r = reader_of(payload);
    uint16_t class_id = reader_u16(&r), weight = reader_u16(&r);
    struct publish p = {.body_size = reader_u64(&r)};
    p.props = reader_rest(&r);
    if (!reader_ok(&r) || p.props.len < 2) {
        amqp091_fail(a, ERR_FRAME_ERROR, PUBLISH_CLASS, PUBLISH_METHOD, "a content header of %zu octets", payload.len);
        return;
    }
    if (weight != 0) {
        amqp091_fail(a, ERR_UNEXPECTED_FRAME, PUBLISH_CLASS, PUBLISH_METHOD,
                     "expected content header for class 60, got non content header frame instead");
        return;
    }
    if (class_id != PUBLISH_CLASS) {
        amqp091_fail(a, ERR_UNEXPECTED_FRAME, PUBLISH_CLASS, PUBLISH_METHOD,
                     "expected content header for class 60, got one for class %u instead", class_id);
        return;
    }
    p.exchange = slice_of(ch->pending->names, ch->pending->exchange_len);
    p.key = slice_of(ch->pending->names + ch->pending->exchange_len, ch->pending->key_len);
    p.flags = ch->pending->mandatory ? MSG_MANDATORY : 0;
    struct msg *msg = publish_begin(a, ch, &p);
    if (!msg)
        return;
    ch->msg = msg;
    ch->stage = STAGE_BODY;
    ch->body_size = p.body_size;
    ch->body_have = 0;
    ch->body_room = msg->body_len;
    a->assembly_bytes += msg->body_len;
    if (p.body_size == 0)
        content_done(a, ch);
}

/* Makes the message's block hold `need` bytes of body: doubles, up to what was announced. Blocks of BODY_FIRST and more
 * are not from a slab, so they can be resized; nobody else has seen the message yet. */
static bool body_reach(struct amqp091 *a, struct amqp091_channel *ch, uint32_t need)
{
    if (need <= ch->body_room)
        return true;
    uint64_t wanted = (uint64_t)ch->body_room * 2;
    if (wanted < need)
        wanted = need;
    if (wanted > ch->body_size)
        wanted = ch->body_size;
    uint32_t more = (uint32_t)wanted - ch->body_room;
    if (a->assembly_bytes + more > a->options->assembly_bytes_max) {
        amqp091_fail(a, ERR_RESOURCE_ERROR, PUBLISH_CLASS, PUBLISH_METHOD,
                     "unfinished messages of this connection are larger than %llu bytes",
                     (unsigned long long)a->options->assembly_bytes_max);
        return false;
    }
    CHECK(ch->msg->large);
    struct msg *grown = mem_realloc_as(MEM_MESSAGES, ch->msg, msg_size(ch->msg) + more);
    if (!grown) {
        amqp091_fail_memory(a);
        return false;
    }
    ch->msg = grown;
    grown->body_len = ch->body_room = (uint32_t)wanted;
    a->assembly_bytes += more;
    return true;
}

static void body_add(struct amqp091 *a, struct amqp091_channel *ch, struct slice bytes)
{
    if (bytes.len == 0 || !body_reach(a, ch, ch->body_have + (uint32_t)bytes.len))
        return;
    memcpy(msg_body_room(ch->msg) + ch->body_have, bytes.ptr, bytes.len);
    ch->body_have += (uint32_t)bytes.len;
}

static bool body_fits(struct amqp091 *a, const struct amqp091_channel *ch, size_t len)
{
    if (len <= ch->body_size - ch->body_have)
        return true;
    amqp091_fail(a, ERR_FRAME_ERROR, PUBLISH_CLASS, PUBLISH_METHOD,
                 "a content body of %llu octets is longer than the %llu that were announced",
                 (unsigned long long)ch->body_have + len, (unsigned long long)ch->body_size);
    return false;
}

void amqp091_content_unexpected(struct amqp091 *a, const struct amqp091_channel *ch)
{
    if (ch->stage == STAGE_HEADER)
        amqp091_fail(a, ERR_UNEXPECTED_FRAME, PUBLISH_CLASS, PUBLISH_METHOD,
                     "expected content header for class 60, got non content header frame instead");
    else if (ch->stage == STAGE_BODY)
        amqp091_fail(a, ERR_UNEXPECTED_FRAME, PUBLISH_CLASS, PUBLISH_METHOD,
                     "expected content body, got non content body frame instead");
    else
        amqp091_fail(a, ERR_UNEXPECTED_FRAME, 0, 0, "expected method frame, got non method frame instead");
}

void amqp091_content_frame(struct amqp091 *a, uint16_t number, uint8_t type, struct slice payload)
{
    struct amqp091_channel *ch = amqp091_channel_find(a, number);
    if (ch && ch->state != CHANNEL_OPEN)
        return;
    if (!ch)
        amqp091_fail(a, ERR_UNEXPECTED_FRAME, 0, 0, "expected method frame, got non method frame instead");
    else if (ch->stage != (type == FRAME_HEADER ? STAGE_HEADER : STAGE_BODY))
        amqp091_content_unexpected(a, ch);
    else if (type == FRAME_HEADER)
        content_header(a, ch, payload);
    else if (body_fits(a, ch, payload.len)) {
        body_add(a, ch, payload);
        if (amqp091_live(a) && ch->body_have == ch->body_size)
            content_done(a, ch);
    }
}

size_t amqp091_content_begin_piece(struct amqp091 *a, uint16_t number, uint32_t size)
{
    struct amqp091_channel *ch = amqp091_channel_find(a, number);
    if (!ch || ch->state != CHANNEL_OPEN || ch->stage != STAGE_BODY || !body_fits(a, ch, size))
        return 0;
    a->body_channel = ch;
    a->body_left = size + 1;
    return FRAME_HEAD;
}

size_t amqp091_content_piece(struct amqp091 *a, struct slice bytes)
{
    struct amqp091_channel *ch = a->body_channel;
    uint32_t payload = a->body_left - 1;
    if (payload == 0) {
        if (bytes.ptr[0] != FRAME_END)
            return 0;
        a->body_left = 0;
        if (ch && amqp091_live(a) && ch->body_have == ch->body_size)
            content_done(a, ch);
        a->body_channel = NULL;
        return 1;
    }
    uint32_t n = bytes.len < payload ? (uint32_t)bytes.len : payload;
    a->body_left -= n;
    if (ch && amqp091_live(a))
        body_add(a, ch, slice_of(bytes.ptr, n));
    return n;
}
