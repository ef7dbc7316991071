/* SEND: from a frame to a message in an exchange, with the queue it is for and the queue of its answers.
 *
 * /queue/NAME is declared once per connection (durable unless the headers say otherwise, with the x- headers as arguments), so
 * what was declared otherwise by somebody else is an error, as in RabbitMQ; /amq/queue/NAME never is. A reply-to of
 * /temp-queue/X becomes a queue of this connection, whose messages come with `subscription:/temp-queue/X`. Thread: the loop's. */
#include "base/check.h"
#include "base/mem.h"
#include "fmt/amqp_table.h"
#include "proto/stomp/props.h"
#include "proto/stomp/stomp_int.h"

#define PROPS_SMALL 4096u
#define REPLY_NAME "stomp-temp-"
#define REPLY_RANDOM 22u

struct stomp_name {
    uint32_t len;
    uint8_t bytes[];
};

struct stomp_reply { /* a queue for answers */
    char queue[sizeof REPLY_NAME + REPLY_RANDOM];
    uint32_t len;
    uint8_t bytes[]; /* what follows /temp-queue/ */
};

/* ---- declares ---- */

enum arg_kind { ARG_NUMBER, ARG_TEXT, ARG_FLAG };

static const struct arg_row {
    const char *name;
    enum arg_kind kind;
} arg_rows[] = {
    {"x-dead-letter-exchange", ARG_TEXT},
    {"x-dead-letter-routing-key", ARG_TEXT},
    {"x-expires", ARG_NUMBER},
    {"x-max-length", ARG_NUMBER},
    {"x-max-length-bytes", ARG_NUMBER},
    {"x-max-priority", ARG_NUMBER},
    {"x-message-ttl", ARG_NUMBER},
    {"x-queue-type", ARG_TEXT},
    {"x-overflow", ARG_TEXT},
    {"x-max-age", ARG_TEXT},
    {"x-stream-max-segment-size-bytes", ARG_NUMBER},
    {"x-delivery-limit", ARG_NUMBER},
    {"x-single-active-consumer", ARG_FLAG},
};

static struct slice stripped(struct slice s)
{
    while (s.len && *s.ptr == ' ') {
        s.ptr++;
        s.len--;
    }
    while (s.len && s.ptr[s.len - 1] == ' ')
        s.len--;
    return s;
}

static bool read_long(struct slice text, int64_t *ret)
{
    bool negative = text.len && *text.ptr == '-';
    uint64_t value = 0;
    size_t at = negative;
    if (text.len == at || text.len > 19)
        return false;
    for (; at < text.len; at++) {
        if (text.ptr[at] < '0' || text.ptr[at] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.ptr[at] - '0');
    }
    *ret = negative ? -(int64_t)value : (int64_t)value;
    return true;
}

/* True or false, as RabbitMQ reads them; anything else is as if it were not there. */
static bool flag_find(const struct stomp_frame *frame, const char *name, bool *ret)
{
    struct slice value;
    if (!stomp_header_find(frame, name, &value))
        return false;
    bool yes = slice_is(value, "true") || slice_is(value, "True");
    if (!yes && !slice_is(value, "false") && !slice_is(value, "False"))
        return false;
    *ret = yes;
    return true;
}

static bool put_arg(struct stomp *s, const struct arg_row *row, struct slice value, struct writer *args)
{
    int64_t number;
    value = stripped(value);
    switch (row->kind) {
    case ARG_TEXT: amqp_put_str(args, row->name, value); break;
    case ARG_FLAG: amqp_put_bool(args, row->name, slice_is(value, "true") || slice_is(value, "True")); break;
    case ARG_NUMBER:
        if (!read_long(value, &number)) {
            stomp_error(s, WRONG_HEADER, "'%s' must be a number\n", row->name);
            return false;
        }
        amqp_put_long(args, row->name, number);
        break;
    }
    if (writer_ok(args))
        return true;
    stomp_error(s, WRONG_HEADER, "'%s' is too long\n", row->name);
    return false;
}

bool stomp_declare_operands(struct stomp *s, const struct stomp_frame *frame, bool of_queue, struct writer *args,
                            uint32_t *ret_flags)
{
    bool durable = of_queue, subscribes = slice_is(frame->command, "SUBSCRIBE");
    for (const struct arg_row *row = arg_rows; row < arg_rows + ARRAY_LEN(arg_rows); row++) {
        struct slice value;
        if (stomp_header_find(frame, row->name, &value) && !put_arg(s, row, value, args))
            return false;
    }
    if (subscribes) /* of a SEND it speaks of the message */
        (void)flag_find(frame, "persistent", &durable);
    (void)flag_find(frame, "durable", &durable);
    bool auto_delete = !of_queue || !durable, exclusive = of_queue && !durable;
    (void)flag_find(frame, "auto-delete", &auto_delete);
    (void)flag_find(frame, "exclusive", &exclusive);
    *ret_flags = (durable ? ASK_DURABLE : 0u) | (auto_delete ? ASK_AUTO_DELETE : 0u) | (exclusive ? ASK_EXCLUSIVE : 0u);
    return true;
}

static void names_drop(struct map *names)
{
    MAP_EACH(names, struct stomp_name, name)
    mem_free(name);
    map_fini(names);
}

/* So that it is not declared again. False: no memory. */
static bool name_keep(struct stomp *s, struct slice text)
{
    if (s->queues.count >= STOMP_QUEUES_KNOWN) {
        uint64_t seed = s->queues.seed;
        names_drop(&s->queues); /* to declare a queue again costs a command and changes nothing */
        map_init(&s->queues, seed);
    }
    struct stomp_name *name = mem_alloc(sizeof *name + text.len);
    if (!name || !map_reserve(&s->queues)) {
        mem_free(name);
        stomp_fail_memory(s);
        return false;
    }
    name->len = (uint32_t)text.len;
    if (text.len)
        memcpy(name->bytes, text.ptr, text.len);
    map_put(&s->queues, slice_of(name->bytes, name->len), name);
    return true;
}

bool stomp_queue_ensure(struct stomp *s, const struct stomp_frame *frame, struct slice name)
{
    uint8_t room[2048];
    struct writer args = writer_of(room, sizeof room);
    uint32_t flags;
    if (map_get(&s->queues, name))
        return true;
    return stomp_declare_operands(s, frame, true, &args, &flags) && name_keep(s, name) &&
           stomp_ask(s, CMD_QUEUE_DECLARE, 0,
                     &(struct stomp_operands){.name = name, .args = writer_slice(&args), .flags = flags});
}

/* ---- answers ---- */

static struct stomp_reply *reply_new(struct stomp *s, struct slice id)
{
    struct stomp_reply *reply = mem_alloc(sizeof *reply + id.len);
    if (!reply || !map_reserve(&s->replies)) {
        mem_free(reply);
        stomp_fail_memory(s);
        return NULL;
    }
    memcpy(reply->queue, REPLY_NAME, sizeof REPLY_NAME - 1);
    stomp_random_text(s, reply->queue + sizeof REPLY_NAME - 1, REPLY_RANDOM);
    reply->len = (uint32_t)id.len;
    if (id.len)
        memcpy(reply->bytes, id.ptr, id.len);
    map_put(&s->replies, slice_of(reply->bytes, reply->len), reply);
    return reply;
}

/* The queue for /temp-queue/ID of this connection, made and consumed when it is new. NULL: the connection has failed. */
static struct stomp_reply *reply_ensure(struct stomp *s, struct slice id, struct slice destination)
{
    uint8_t tag[2 + 12 + STOMP_NAME_MAX];
    struct stomp_reply *reply = map_get(&s->replies, id);
    if (reply || !(reply = reply_new(s, id)))
        return reply;
    struct writer w = writer_of(tag, sizeof tag);
    writer_put(&w, "T_/temp-queue/", 14);
    writer_slice_put(&w, id);
    struct stomp_subscription *sub = stomp_subscription_add(s, writer_slice(&w), destination, ACK_AUTO);
    if (!sub)
        return NULL;
    struct slice queue = slice_str(reply->queue);
    bool ok = stomp_ask(s, CMD_QUEUE_DECLARE, 0,
                        &(struct stomp_operands){.name = queue, .flags = ASK_AUTO_DELETE | ASK_EXCLUSIVE}) &&
              stomp_ask(s, CMD_CONSUME, ORIGIN(CUE_CONSUME, sub->slot),
                        &(struct stomp_operands){.name = queue, .other = sub->tag, .flags = ASK_NO_ACK});
    return ok ? reply : NULL;
}

/* The frame's reply-to, when it has to be another one. False: the connection has failed. */
static bool reply_to_of(struct stomp *s, const struct stomp_frame *frame, struct slice *ret)
{
    struct slice text, rest;
    struct stomp_destination d;
    *ret = (struct slice){0};
    if (!stomp_header_find(frame, "reply-to", &text) ||
        stomp_destination_parse(text, &d, &rest) != STOMP_DESTINATION_OK || d.place != STOMP_TEMP_QUEUE)
        return true;
    struct stomp_reply *reply = reply_ensure(s, d.name, text);
    if (reply)
        *ret = slice_str(reply->queue);
    return reply != NULL;
}

void stomp_names_free(struct stomp *s)
{
    names_drop(&s->queues);
    MAP_EACH(&s->replies, struct stomp_reply, reply)
    mem_free(reply);
    map_fini(&s->replies);
}

/* ---- messages ---- */

struct sending {
    const struct stomp_frame *frame;
    struct stomp_tx *tx; /* NULL: none */
    struct slice props;
    struct stomp_sent sent;
};

void stomp_publish(struct stomp *s, struct msg *msg)
{
    struct command *command = stomp_command(s, CMD_PUBLISH, ORIGIN(CUE_SEND, s->published + 1));
    command->number = ++s->published;
    command->msg = msg;
}

static struct msg *message_of(struct stomp *s, const struct sending *sending, struct slice exchange, struct slice key)
{
    struct slice body = sending->frame->body;
    struct msg *msg = msg_new(stomp_heap(s), exchange, key, sending->props, body.len);
    if (!msg) {
        stomp_fail_memory(s);
        return NULL;
    }
    msg->flags = sending->sent.flags;
    msg->priority = sending->sent.priority;
    msg->expiration_ms = sending->sent.expiration_ms;
    if (body.len)
        memcpy(msg_body_room(msg), body.ptr, body.len);
    return msg;
}

/* last: the frame's receipt speaks for all of its messages. */
static void send_message(struct stomp *s, const struct sending *sending, struct slice exchange, struct slice key,
                         bool last)
{
    struct msg *msg = message_of(s, sending, exchange, key);
    if (!msg)
        return;
    struct stomp_receipt *receipt = last ? stomp_receipt_take(s) : NULL;
    if (!stomp_live(s)) {
        msg_unref(stomp_heap(s), msg);
        return;
    }
    if (receipt) {
        receipt->number = s->published + 1;
        list_insert(sending->tx ? &sending->tx->receipts : &s->sent, &receipt->link);
    }
    if (sending->tx) {
        (void)stomp_tx_add(s, sending->tx, &(struct stomp_op){.type = CMD_PUBLISH, .msg = msg});
        return;
    }
    s->unsettled_bytes += msg_size(msg);
    stomp_publish(s, msg);
    if (s->unsettled_bytes > STOMP_INFLIGHT_HIGH)
        stomp_pause(s, PAUSE_FLOW);
}

static void send_to(struct stomp *s, const struct sending *sending, struct slice text, bool last)
{
    struct slice rest, none = {0};
    struct stomp_destination d;
    enum stomp_destination_result result = stomp_destination_parse(text, &d, &rest);
    if (result != STOMP_DESTINATION_OK || d.place == STOMP_TEMP_TOPIC) {
        stomp_error_destination(s, d.place == STOMP_TEMP_TOPIC ? STOMP_DESTINATION_UNKNOWN : result, d.place, text,
                                rest);
        return;
    }
    switch (d.place) {
    case STOMP_QUEUE:
        if (stomp_queue_ensure(s, sending->frame, d.name))
            send_message(s, sending, none, d.name, last);
        return;
    case STOMP_AMQ_QUEUE:
    case STOMP_REPLY_QUEUE: send_message(s, sending, none, d.name, last); return;
    case STOMP_TOPIC: send_message(s, sending, topic_exchange(s), d.name, last); return;
    case STOMP_EXCHANGE: send_message(s, sending, d.name, d.key, last); return;
    default:
        stomp_error(s, WRONG_DESTINATION, "'%.*s' is not a valid destination for 'SEND'\n", SLICE_ARG(text));
        return;
    }
}

/* The properties into `room`, or a block of their own (*ret_block). False: an error was said. */
static bool read_props(struct stomp *s, struct sending *sending, struct writer *w, uint8_t **ret_block)
{
    struct slice name;
    struct stomp_props_rules rules = {.expires = s->options->dialect == STOMP_AS_ACTIVEMQ};
    *ret_block = NULL;
    if (!reply_to_of(s, sending->frame, &rules.reply_to))
        return false;
    if (rules.expires)
        rules.wall = s->options->wall(s->options->wall_arg);
    size_t max = stomp_props_max(sending->frame, &rules);
    if (max > w->max) {
        *w = writer_of(*ret_block = mem_alloc(max), max);
        if (!*ret_block) {
            stomp_fail_memory(s);
            return false;
        }
    }
    const char *wrong = stomp_props_read(sending->frame, &rules, w, &sending->sent, &name);
    if (wrong) {
        stomp_error(s, WRONG_HEADER, "'%.*s' %s\n", (int)(name.len < 300 ? name.len : 300), (const char *)name.ptr,
                    wrong);
        return false;
    }
    CHECK(writer_ok(w));
    sending->props = writer_slice(w);
    return true;
}

void stomp_on_send(struct stomp *s, const struct stomp_frame *frame)
{
    struct slice text;
    struct sending sending = {.frame = frame};
    uint8_t room[PROPS_SMALL], *block;
    struct writer w = writer_of(room, sizeof room);
    if (stomp_header_find(frame, "message-id", &text)) {
        stomp_error(s, WRONG_HEADER, "'message-id' is not allowed on 'SEND'.\n");
        return;
    }
    CHECK(stomp_header_find(frame, "destination", &text));
    if (!stomp_tx_of(s, frame, &sending.tx))
        return;
    if (read_props(s, &sending, &w, &block))
        send_to(s, &sending, text, true);
    mem_free(block);
}
