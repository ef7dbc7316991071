/* SEND: from a frame to a message in an exchange, with the queue it is for and the queue of its answers.
 *
 * /queue/NAME is declared once per connection (durable unless the headers say otherwise, with the x- headers as arguments), so
 * what was declared otherwise by somebody else is an error, as in RabbitMQ; /amq/queue/NAME never is. A reply-to of
 * /temp-queue/X becomes a queue of this connection, whose messages come with `subscription:/temp-queue/X`. In ActiveMQ's dialect that
 * name can be sent and subscribed to as well, /temp-topic/X like it, and a destination is a list with commas. Thread: the loop's. */
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

struct stomp_temp {                              /* what a temporary name of this connection stands for */
    char name[sizeof REPLY_NAME + REPLY_RANDOM]; /* a queue, or a topic's key */
    uint32_t len;
    uint8_t bytes[]; /* t or q, and what follows /temp-queue/ or /temp-topic/ */
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

static struct stomp_temp *temp_new(struct stomp *s, struct slice id)
{
    if (s->temps.count >= STOMP_TEMPS_MAX) {
        stomp_error(s, WRONG_DESTINATION, "There are more than %u temporary destinations\n", STOMP_TEMPS_MAX);
        return NULL;
    }
    struct stomp_temp *temp = mem_alloc(sizeof *temp + id.len);
    if (!temp || !map_reserve(&s->temps)) {
        mem_free(temp);
        stomp_fail_memory(s);
        return NULL;
    }
    memcpy(temp->name, REPLY_NAME, sizeof REPLY_NAME - 1);
    stomp_random_text(s, temp->name + sizeof REPLY_NAME - 1, REPLY_RANDOM);
    temp->len = (uint32_t)id.len;
    if (id.len)
        memcpy(temp->bytes, id.ptr, id.len);
    map_put(&s->temps, slice_of(temp->bytes, temp->len), temp);
    return temp;
}

/* RabbitMQ's way: who has a reply-to is a consumer of it. False: the connection has failed. */
static bool temp_consume(struct stomp *s, const struct stomp_temp *temp, const struct stomp_destination *d,
                         struct slice text)
{
    uint8_t tag[2 + 12 + STOMP_NAME_MAX];
    struct writer w = writer_of(tag, sizeof tag);
    writer_put(&w, "T_/temp-queue/", 14);
    writer_slice_put(&w, d->name);
    struct stomp_subscription *sub = stomp_subscription_add(s, writer_slice(&w), text, ACK_AUTO);
    return sub &&
           stomp_ask(s, CMD_CONSUME, ORIGIN(CUE_CONSUME, sub->slot),
                     &(struct stomp_operands){.name = slice_str(temp->name), .other = sub->tag, .flags = ASK_NO_ACK});
}

bool stomp_temp_ensure(struct stomp *s, const struct stomp_destination *d, struct slice text, struct slice *ret)
{
    uint8_t id[1 + STOMP_NAME_MAX];
    struct writer w = writer_of(id, sizeof id);
    writer_u8(&w, d->place == STOMP_TEMP_TOPIC ? 't' : 'q');
    writer_slice_put(&w, d->name);
    struct stomp_temp *temp = map_get(&s->temps, writer_slice(&w));
    bool fresh = !temp;
    if (fresh && !(temp = temp_new(s, writer_slice(&w))))
        return false;
    *ret = slice_str(temp->name);
    if (!fresh || d->place == STOMP_TEMP_TOPIC)
        return true;
    return stomp_ask(s, CMD_QUEUE_DECLARE, 0,
                     &(struct stomp_operands){.name = *ret, .flags = ASK_AUTO_DELETE | ASK_EXCLUSIVE}) &&
           (s->options->dialect == STOMP_AS_ACTIVEMQ || temp_consume(s, temp, d, text));
}

/* The frame's reply-to, when it has to be another one; room holds it. False: the connection has failed. */
static bool reply_to_of(struct stomp *s, const struct stomp_frame *frame, uint8_t room[64], struct slice *ret)
{
    struct slice text, rest, name;
    struct stomp_destination d;
    *ret = (struct slice){0};
    if (!stomp_header_find(frame, "reply-to", &text) ||
        stomp_destination_read(s, text, &d, &rest) != STOMP_DESTINATION_OK ||
        (d.place != STOMP_TEMP_QUEUE && d.place != STOMP_TEMP_TOPIC))
        return true;
    if (!stomp_temp_ensure(s, &d, text, &name))
        return false;
    struct writer w = writer_of(room, 64);
    writer_put(&w, "/topic/", d.place == STOMP_TEMP_TOPIC ? 7 : 0);
    writer_slice_put(&w, name);
    *ret = writer_slice(&w);
    return true;
}

void stomp_names_free(struct stomp *s)
{
    names_drop(&s->queues);
    MAP_EACH(&s->temps, struct stomp_temp, temp)
    mem_free(temp);
    map_fini(&s->temps);
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
    struct slice rest, name, none = {0};
    struct stomp_destination d;
    enum stomp_destination_result result = stomp_destination_read(s, text, &d, &rest);
    if (result != STOMP_DESTINATION_OK) {
        stomp_error_destination(s, result, d.place, text, rest);
        return;
    }
    if (s->options->dialect == STOMP_AS_ACTIVEMQ && (d.place == STOMP_TEMP_QUEUE || d.place == STOMP_TEMP_TOPIC)) {
        if (stomp_temp_ensure(s, &d, text, &name))
            send_message(s, sending, d.place == STOMP_TEMP_TOPIC ? topic_exchange(s) : none, name, last);
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
    uint8_t reply_to[64];
    struct stomp_props_rules rules = {.activemq = s->options->dialect == STOMP_AS_ACTIVEMQ};
    *ret_block = NULL;
    if (!reply_to_of(s, sending->frame, reply_to, &rules.reply_to))
        return false;
    if (rules.activemq)
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

/* ActiveMQ's list with commas. */
static void send_to_all(struct stomp *s, const struct sending *sending, struct slice list)
{
    unsigned count = 0;
    for (bool more = true; more && stomp_live(s); count++) {
        const uint8_t *comma = list.len ? memchr(list.ptr, ',', list.len) : NULL;
        size_t len = comma ? (size_t)(comma - list.ptr) : list.len;
        more = comma != NULL;
        if (more && count + 1 == STOMP_TARGETS_MAX) {
            stomp_error(s, WRONG_DESTINATION, "There are more than %u destinations\n", STOMP_TARGETS_MAX);
            return;
        }
        send_to(s, sending, slice_of(list.ptr, len), !more);
        list = slice_of(list.ptr + len + more, list.len - len - more);
    }
}

void stomp_on_send(struct stomp *s, const struct stomp_frame *frame)
{
    struct slice text;
    struct sending sending = {.frame = frame};
    uint8_t room[PROPS_SMALL], *block;
    struct writer w = writer_of(room, sizeof room);
    bool activemq = s->options->dialect == STOMP_AS_ACTIVEMQ;
    if (!activemq && stomp_header_find(frame, "message-id", &text)) {
        stomp_error(s, WRONG_HEADER, "'message-id' is not allowed on 'SEND'.\n");
        return;
    }
    CHECK(stomp_header_find(frame, "destination", &text));
    if (!stomp_tx_of(s, frame, &sending.tx))
        return;
    if (read_props(s, &sending, &w, &block)) {
        if (activemq)
            send_to_all(s, &sending, text);
        else
            send_to(s, &sending, text, true);
    }
    mem_free(block);
}
