/* SUBSCRIBE, UNSUBSCRIBE, ACK and NACK.
 *
 * A subscription is a consumer of the channel with the tag T_id (or Q_destination, for who gives no id), on the queue itself or,
 * for topics and exchanges, on a private queue that is bound behind it. Prefetch is the channel's setting for new consumers, so
 * it is sent before each that needs another one.
 *
 * A delivery's name is T_id@@session@@tag. ack:client acknowledges all deliveries of its subscription up to that one. The core's
 * `multiple` is about the whole channel: it is used while only one subscription acknowledges, otherwise the engine, which
 * remembers what it has delivered to such a subscription, acknowledges one by one. What was unsubscribed can still be
 * acknowledged as long as it is among the last ENDED_KEPT. Thread: the loop's. */
#include "base/check.h"
#include "base/mem.h"
#include "fmt/amqp_table.h"
#include "fmt/base64.h"
#include "fmt/md5.h"
#include "proto/stomp/stomp_int.h"

#include <stdlib.h>

#define ENDED_KEPT 16u
#define SLOTS_FIRST 4u
#define SLOTS_MAX 65536u
#define TEMP_PREFIX "/temp-queue/"
#define PRIVATE_NAME "stomp-subscription-"
#define PRIVATE_RANDOM 22u
#define DURABLE_NAME "durable." /* of ActiveMQ's: then the client-id, a dot and the subscription's name */
#define SELECTOR_MAX 2048u      /* bytes: the core takes no more */

/* ---- the table ---- */

static bool slot_find(struct stomp *s, uint32_t *ret)
{
    for (uint32_t i = 0; i < s->subscriptions_len; i++)
        if (!s->subscriptions[i]) {
            *ret = i;
            return true;
        }
    uint32_t len = s->subscriptions_len ? 2 * s->subscriptions_len : SLOTS_FIRST;
    struct stomp_subscription **grown = len <= SLOTS_MAX ? mem_realloc(s->subscriptions, len * sizeof *grown) : NULL;
    if (!grown)
        return false;
    memset(grown + s->subscriptions_len, 0, (len - s->subscriptions_len) * sizeof *grown);
    *ret = s->subscriptions_len;
    s->subscriptions = grown;
    s->subscriptions_len = len;
    return true;
}

static uint8_t *put(uint8_t *at, struct slice s)
{
    if (s.len)
        memcpy(at, s.ptr, s.len);
    return at + s.len;
}

static void fill(struct stomp *s, struct stomp_subscription *sub, struct slice tag, struct slice destination)
{
    enum stomp_version version = (enum stomp_version)s->version;
    uint8_t *at = put(sub->bytes, tag);
    sub->tag = slice_of(sub->bytes, tag.len);
    sub->destination = slice_of(at, destination.len);
    uint8_t *head = put(at, destination);
    at = put(head, slice_str("MESSAGE\n"));
    if (tag.ptr[0] == 'T') {
        at = put(at, slice_str("subscription:"));
        at = stomp_put_escaped(at, slice_of(tag.ptr + 2, tag.len - 2), version);
        *at++ = '\n';
    }
    sub->head = slice_of(head, (size_t)(at - head));
    uint8_t *id_head = at;
    at = stomp_put_escaped(put(at, slice_str("message-id:")), tag, version);
    at = put(put(put(at, slice_str("@@")), slice_str(s->session_id)), slice_str("@@"));
    sub->id_head = slice_of(id_head, (size_t)(at - id_head));
}

static void subscription_free(struct stomp *s, struct stomp_subscription *sub)
{
    if (s->last == sub)
        s->last = NULL;
    mem_free(sub->tags);
    mem_free(sub);
}

struct stomp_subscription *stomp_subscription_add(struct stomp *s, struct slice tag, struct slice destination,
                                                  enum stomp_ack ack)
{
    uint32_t slot = 0;
    struct stomp_subscription *sub =
        mem_zalloc(sizeof *sub + 5 * tag.len + destination.len + sizeof s->session_id + 64);
    if (!sub || !slot_find(s, &slot) || !map_reserve(&s->by_tag) || !map_reserve(&s->by_consumer)) {
        mem_free(sub);
        stomp_fail_memory(s);
        return NULL;
    }
    list_init(&sub->ended_link);
    fill(s, sub, tag, destination);
    sub->slot = slot;
    sub->serial = ++s->serials;
    sub->ack = (uint8_t)ack;
    s->ackers += ack != ACK_AUTO;
    s->subscriptions[slot] = sub;
    map_put(&s->by_tag, sub->tag, sub);
    return sub;
}

void stomp_subscribed(struct stomp *s, uint32_t slot, uint32_t consumer)
{
    struct stomp_subscription *sub = slot < s->subscriptions_len ? s->subscriptions[slot] : NULL;
    CHECK(sub && !sub->consumer);
    sub->consumer = consumer;
    if (!map_put(&s->by_consumer, map_key_u64(&sub->consumer), sub)) {
        sub->consumer = 0;
        stomp_fail_memory(s);
    }
}

struct stomp_subscription *stomp_subscription_of(struct stomp *s, uint32_t consumer)
{
    if (s->last && s->last->consumer == consumer)
        return s->last;
    uint64_t key = consumer;
    struct stomp_subscription *sub = map_get(&s->by_consumer, map_key_u64(&key));
    if (sub)
        s->last = sub;
    return sub;
}

static void forget_tag(struct stomp *s, struct stomp_subscription *sub)
{
    if (map_get(&s->by_tag, sub->tag) == sub)
        map_take(&s->by_tag, sub->tag);
}

/* The core has let go of the consumer. */
void stomp_unsubscribed(struct stomp *s, uint32_t slot)
{
    struct stomp_subscription *sub = slot < s->subscriptions_len ? s->subscriptions[slot] : NULL;
    if (!sub)
        return;
    s->subscriptions[slot] = NULL;
    forget_tag(s, sub);
    if (sub->consumer)
        map_take(&s->by_consumer, map_key_u64(&sub->consumer));
    if (s->last == sub)
        s->last = NULL;
    if (sub->ack == ACK_AUTO) {
        subscription_free(s, sub);
        return;
    }
    list_insert(&s->ended, &sub->ended_link);
    if (++s->ended_count <= ENDED_KEPT)
        return;
    struct stomp_subscription *oldest = LIST_FIRST(&s->ended, struct stomp_subscription, ended_link);
    list_remove(&oldest->ended_link);
    s->ended_count--;
    subscription_free(s, oldest);
}

void stomp_subscriptions_free(struct stomp *s)
{
    for (uint32_t i = 0; i < s->subscriptions_len; i++)
        if (s->subscriptions[i])
            subscription_free(s, s->subscriptions[i]);
    while (!list_empty(&s->ended)) {
        struct stomp_subscription *sub = LIST_FIRST(&s->ended, struct stomp_subscription, ended_link);
        list_remove(&sub->ended_link);
        subscription_free(s, sub);
    }
    mem_free(s->subscriptions);
    s->subscriptions = NULL;
    s->subscriptions_len = s->ended_count = 0;
    map_fini(&s->by_tag);
    map_fini(&s->by_consumer);
}

/* ---- what has been delivered to ack:client ---- */

/* Room for so many more behind the last. */
static bool tags_reserve(struct stomp_subscription *sub, uint32_t more)
{
    if (sub->tags_room - sub->tags_first - sub->tags_count >= more)
        return true;
    if (sub->tags_first >= sub->tags_room / 2 && sub->tags_room - sub->tags_count >= more) {
        memmove(sub->tags, sub->tags + sub->tags_first, sub->tags_count * sizeof *sub->tags);
        sub->tags_first = 0;
        return true;
    }
    uint64_t room = sub->tags_room ? 2 * (uint64_t)sub->tags_room : 16;
    while (room - sub->tags_first - sub->tags_count < more)
        room *= 2;
    uint64_t *grown = room <= UINT32_MAX / sizeof *grown ? mem_realloc(sub->tags, room * sizeof *grown) : NULL;
    if (!grown)
        return false;
    sub->tags = grown;
    sub->tags_room = (uint32_t)room;
    return true;
}

bool stomp_tags_push(struct stomp_subscription *sub, uint64_t tag)
{
    if (!tags_reserve(sub, 1))
        return false;
    sub->tags[sub->tags_first + sub->tags_count++] = tag;
    return true;
}

static struct stomp_subscription *by_serial(struct stomp *s, uint32_t serial)
{
    for (uint32_t i = 0; i < s->subscriptions_len; i++)
        if (s->subscriptions[i] && s->subscriptions[i]->serial == serial)
            return s->subscriptions[i];
    LIST_EACH(&s->ended, node, after)
    {
        struct stomp_subscription *sub = CONTAINER_OF(node, struct stomp_subscription, ended_link);
        if (sub->serial == serial)
            return sub;
    }
    return NULL;
}

/* Back to their places, by one walk from the end. */
static void tags_merge(struct stomp_subscription *sub, const struct stomp_op *ops, uint32_t n)
{
    uint64_t *tags = sub->tags + sub->tags_first;
    uint32_t have = sub->tags_count;
    sub->tags_count += n;
    for (uint32_t to = have + n; n; to--) {
        if (have && tags[have - 1] > ops[n - 1].number)
            tags[to - 1] = tags[--have];
        else
            tags[to - 1] = ops[--n].number;
    }
}

static int by_place(const void *a, const void *b)
{
    const struct stomp_op *x = a, *y = b;
    if (x->serial != y->serial)
        return x->serial < y->serial ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

void stomp_tags_restore(struct stomp *s, struct stomp_op *ops, uint32_t count)
{
    if (count)
        qsort(ops, count, sizeof *ops, by_place);
    for (uint32_t at = 0, n; at < count; at += n) {
        for (n = 1; at + n < count && ops[at + n].serial == ops[at].serial; n++)
            ;
        struct stomp_subscription *sub = ops[at].serial ? by_serial(s, ops[at].serial) : NULL;
        if (!sub)
            continue;
        if (!tags_reserve(sub, n)) {
            stomp_fail_memory(s);
            return;
        }
        tags_merge(sub, ops + at, n);
    }
}

/* ---- SUBSCRIBE ---- */

struct subscribing {
    const struct stomp_frame *frame;
    struct stomp_destination destination;
    struct slice text; /* as it was written */
    enum stomp_ack ack;
    uint8_t tag_room[2 + 4 * STOMP_NAME_MAX];
    struct slice tag;
    struct stomp_wishes wishes;
    uint8_t args_room[SELECTOR_MAX + 128]; /* of the consumer */
    struct writer args;
    uint8_t queue_room[STOMP_NAME_MAX];
    struct slice queue;
};

static bool header_is(const struct stomp_frame *frame, const char *name, const char *value)
{
    struct slice found;
    return stomp_header_find(frame, name, &found) && slice_is(found, value);
}

static bool is_durable(const struct stomp_frame *frame)
{
    return header_is(frame, "durable", "true") || header_is(frame, "persistent", "true") ||
           header_is(frame, "durable", "True") || header_is(frame, "persistent", "True");
}

static bool durable_has_id(struct stomp *s, const struct stomp_frame *frame)
{
    struct slice id;
    if (!is_durable(frame) || stomp_header_find(frame, "id", &id))
        return true;
    stomp_error(s, WRONG_NO_ID, "Header 'id' is required for durable subscriptions");
    return false;
}

/* The consumer's tag. False: an error was said. */
static bool tag_of(struct stomp *s, const struct stomp_frame *frame, uint8_t *room, size_t max, struct slice *ret)
{
    struct slice text;
    struct writer w = writer_of(room, max);
    if (stomp_header_find(frame, "id", &text)) {
        if (slice_starts(text, TEMP_PREFIX)) {
            stomp_error(s, WRONG_ID, "%.*s 'id' may not start with " TEMP_PREFIX "\n", SLICE_ARG(frame->command));
            return false;
        }
        writer_put(&w, "T_", 2);
    } else if (stomp_header_find(frame, "destination", &text))
        writer_put(&w, "Q_", 2);
    else {
        stomp_error(s, WRONG_NO_TARGET, "UNSUBSCRIBE must include a 'destination' or 'id' header");
        return false;
    }
    writer_slice_put(&w, text);
    *ret = writer_slice(&w);
    if (writer_ok(&w))
        return true;
    stomp_error(s, WRONG_ID, "%.*s 'id' is too long\n", SLICE_ARG(frame->command));
    return false;
}

static bool ack_of(struct stomp *s, const struct stomp_frame *frame, enum stomp_ack *ret)
{
    static const char *const words[] = {
        [ACK_AUTO] = "auto", [ACK_CLIENT] = "client", [ACK_INDIVIDUAL] = "client-individual"};
    struct slice word;
    *ret = ACK_AUTO;
    if (!stomp_header_find(frame, "ack", &word))
        return true;
    for (enum stomp_ack ack = ACK_AUTO; ack <= ACK_INDIVIDUAL; ack++)
        if (slice_is(word, words[ack])) {
            *ret = ack;
            return true;
        }
    stomp_error(s, WRONG_HEADER, "'ack' must be auto, client or client-individual\n");
    return false;
}

static bool read_number(struct slice text, uint64_t *ret)
{
    uint64_t value = 0;
    if (text.len == 0 || text.len > 19)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    *ret = value;
    return true;
}

static bool prefetch_of(struct stomp *s, const struct stomp_frame *frame, uint32_t *ret)
{
    struct slice text;
    uint64_t number;
    if (!stomp_header_find(frame, "prefetch-count", &text))
        return true;
    if (!read_number(text, &number) || number > UINT16_MAX) {
        stomp_error(s, WRONG_HEADER, "'prefetch-count' must be a number up to %u\n", UINT16_MAX);
        return false;
    }
    *ret = (uint32_t)number;
    return true;
}

/* first, last, next, offset=N, timestamp=N; anything else counts as nothing, as in RabbitMQ. */
static void offset_of(const struct stomp_frame *frame, struct writer *args)
{
    struct slice text;
    uint64_t number;
    if (!stomp_header_find(frame, "x-stream-offset", &text))
        return;
    if (slice_is(text, "first") || slice_is(text, "last") || slice_is(text, "next"))
        amqp_put_str(args, "x-stream-offset", text);
    else if (slice_starts(text, "offset=") && read_number(slice_of(text.ptr + 7, text.len - 7), &number))
        amqp_put_long(args, "x-stream-offset", (int64_t)number);
    else if (slice_starts(text, "timestamp=") && read_number(slice_of(text.ptr + 10, text.len - 10), &number))
        amqp_put_time(args, "x-stream-offset", number);
}

/* An Erlang string as term_to_binary writes it. */
static void put_erlang(struct writer *w, struct slice s)
{
    if (s.len == 0) {
        writer_u8(w, 106);
        return;
    }
    writer_u8(w, 107);
    writer_u16(w, (uint16_t)s.len);
    writer_slice_put(w, s);
}

/* RabbitMQ's name of a durable subscription's queue: a digest of the tuple {key, id}. */
static bool durable_name(struct slice key, struct slice id, char ret[BASE64_LEN(MD5_LEN) + 1])
{
    uint8_t term[8 + STOMP_NAME_MAX + 4 * STOMP_NAME_MAX], digest[MD5_LEN];
    struct writer w = writer_of(term, sizeof term);
    writer_put(&w, "\x83\x68\x02", 3);
    put_erlang(&w, key);
    put_erlang(&w, id);
    if (!writer_ok(&w) || !md5(writer_slice(&w), digest))
        return false;
    base64_url_encode(slice_of(digest, sizeof digest), ret);
    return true;
}

/* The name of the private queue. False: an error was said. */
static bool private_name(struct stomp *s, const struct stomp_frame *frame, struct slice key, uint8_t *room,
                         struct slice *ret)
{
    struct slice text;
    struct writer w = writer_of(room, STOMP_NAME_MAX);
    char digest[BASE64_LEN(MD5_LEN) + 1];
    if (stomp_header_find(frame, "x-queue-name", &text))
        writer_slice_put(&w, text);
    else if (stomp_subscription_name(s, frame, &text)) {
        writer_slice_put(&w, slice_str(DURABLE_NAME));
        writer_slice_put(&w, s->login->client_id);
        writer_u8(&w, '.');
        writer_slice_put(&w, text);
    } else {
        if (!is_durable(frame))
            stomp_random_text(s, digest, PRIVATE_RANDOM);
        else if (!stomp_header_find(frame, "id", &text) || !durable_name(key, text, digest)) {
            stomp_fail_memory(s);
            return false;
        }
        writer_slice_put(&w, slice_str(PRIVATE_NAME));
        writer_slice_put(&w, slice_str(digest));
    }
    *ret = writer_slice(&w);
    if (writer_ok(&w))
        return true;
    stomp_error(s, WRONG_HEADER, "'x-queue-name' is too long\n");
    return false;
}

static bool subscribe_read(struct stomp *s, struct subscribing *sub)
{
    struct slice rest;
    struct stomp_destination *d = &sub->destination;
    CHECK(stomp_header_find(sub->frame, "destination", &sub->text));
    enum stomp_destination_result result = stomp_destination_read(s, sub->text, d, &rest);
    if (result != STOMP_DESTINATION_OK) {
        stomp_error_destination(s, result, d->place, sub->text, rest);
        return false;
    }
    if (d->place == STOMP_TEMP_QUEUE && s->options->dialect == STOMP_AS_RABBITMQ) {
        stomp_error(s, WRONG_DESTINATION, "'%.*s' is not a valid destination for 'SUBSCRIBE'\n", SLICE_ARG(sub->text));
        return false;
    }
    if (!durable_has_id(s, sub->frame) || !ack_of(s, sub->frame, &sub->ack) ||
        !stomp_activemq_wishes(s, sub->frame, d, &sub->wishes) || !prefetch_of(s, sub->frame, &sub->wishes.prefetch) ||
        !tag_of(s, sub->frame, sub->tag_room, sizeof sub->tag_room, &sub->tag))
        return false;
    if (map_get(&s->by_tag, sub->tag)) {
        stomp_error(s, WRONG_DUPLICATE, "A subscription identified by '%.*s' already exists.", SLICE_ARG(sub->tag));
        return false;
    }
    offset_of(sub->frame, &sub->args);
    return true;
}

/* The frame's selector as an argument. False: an error was said. */
static bool put_selector(struct stomp *s, const struct stomp_frame *frame, struct writer *args)
{
    struct slice text;
    if (!stomp_header_find(frame, "selector", &text) || text.len == 0)
        return true;
    amqp_put_str(args, "x-selector", text);
    if (writer_ok(args))
        return true;
    stomp_error(s, WRONG_HEADER, "'selector' must not be longer than %u bytes\n", SELECTOR_MAX);
    return false;
}

static void send_prefetch(struct stomp *s, uint32_t prefetch)
{
    if (prefetch == s->prefetch)
        return;
    stomp_command(s, CMD_QOS, 0)->number = prefetch;
    s->prefetch = prefetch;
}

static bool send_consume(struct stomp *s, const struct subscribing *sub, uint32_t receipt)
{
    struct stomp_subscription *made = stomp_subscription_add(s, sub->tag, sub->text, sub->ack);
    if (!made)
        return false;
    send_prefetch(s, sub->wishes.prefetch);
    return stomp_ask(s, CMD_CONSUME, ORIGIN(CUE_CONSUME, made->slot) | receipt,
                     &(struct stomp_operands){.name = sub->queue,
                                              .other = sub->tag,
                                              .args = writer_slice(&sub->args),
                                              .flags = (sub->ack == ACK_AUTO ? ASK_NO_ACK : 0u) |
                                                       (sub->wishes.exclusive ? ASK_EXCLUSIVE : 0u)});
}

/* A private queue, its consumer and its binding, in this order: what is published from now on is seen, and a queue whose
 * binding is refused goes with the connection. */
static void subscribe_private(struct stomp *s, struct subscribing *sub)
{
    uint8_t room[2048], binding_room[SELECTOR_MAX + 64], pattern[STOMP_NAME_MAX];
    struct writer args = writer_of(room, sizeof room), binding = writer_of(binding_room, sizeof binding_room);
    uint32_t flags;
    struct slice ignored;
    const struct stomp_destination *d = &sub->destination;
    bool exchange = d->place == STOMP_EXCHANGE, named = stomp_subscription_name(s, sub->frame, &ignored);
    struct slice key = exchange ? d->key : d->name, source = exchange ? d->name : topic_exchange(s);
    if (!put_selector(s, sub->frame, &binding) || !private_name(s, sub->frame, key, sub->queue_room, &sub->queue) ||
        !stomp_declare_operands(s, sub->frame, false, &args, &flags))
        return;
    if (d->place == STOMP_TEMP_TOPIC && !stomp_temp_ensure(s, d, sub->text, &key))
        return;
    if (named)
        flags = ASK_DURABLE;
    if (!stomp_ask(s, CMD_QUEUE_DECLARE, 0,
                   &(struct stomp_operands){.name = sub->queue, .args = writer_slice(&args), .flags = flags}) ||
        !send_consume(s, sub, 0))
        return;
    uint32_t receipt = stomp_receipt_ask(s);
    stomp_pattern(s, key, pattern, &key);
    if (stomp_live(s))
        (void)stomp_ask(
            s, CMD_QUEUE_BIND, receipt,
            &(struct stomp_operands){.name = sub->queue, .other = source, .key = key, .args = writer_slice(&binding)});
}

/* The queue itself: declared where its kind says so, and bound where ActiveMQ has a virtual topic. False: the connection has
 * failed. */
static bool queue_ready(struct stomp *s, struct subscribing *sub)
{
    const struct stomp_destination *d = &sub->destination;
    struct slice topic;
    uint8_t pattern[STOMP_NAME_MAX];
    sub->queue = d->name;
    if (d->place == STOMP_TEMP_QUEUE)
        return stomp_temp_ensure(s, d, sub->text, &sub->queue);
    if (d->place != STOMP_QUEUE)
        return true;
    if (!stomp_queue_ensure(s, sub->frame, sub->queue))
        return false;
    if (!stomp_virtual_topic(s, sub->queue, &topic))
        return true;
    stomp_pattern(s, topic, pattern, &topic);
    return stomp_ask(s, CMD_QUEUE_BIND, 0,
                     &(struct stomp_operands){.name = sub->queue, .other = topic_exchange(s), .key = topic});
}

void stomp_on_subscribe(struct stomp *s, const struct stomp_frame *frame)
{
    struct subscribing sub = {.frame = frame};
    sub.args = writer_of(sub.args_room, sizeof sub.args_room);
    sub.wishes.args = &sub.args;
    if (!subscribe_read(s, &sub))
        return;
    enum stomp_place place = sub.destination.place;
    if (place == STOMP_TOPIC || place == STOMP_EXCHANGE || place == STOMP_TEMP_TOPIC) {
        subscribe_private(s, &sub);
        return;
    }
    if (!put_selector(s, frame, &sub.args) || !queue_ready(s, &sub))
        return;
    uint32_t receipt = stomp_receipt_ask(s);
    if (stomp_live(s))
        (void)send_consume(s, &sub, receipt);
}

/* ---- UNSUBSCRIBE ---- */

/* A durable subscription to a topic ends with its queue. */
static bool delete_durable(struct stomp *s, const struct stomp_frame *frame, const struct stomp_subscription *sub)
{
    struct stomp_destination d;
    struct slice rest, queue, ignored;
    uint8_t room[STOMP_NAME_MAX];
    bool durable = is_durable(frame) || stomp_subscription_name(s, frame, &ignored);
    if (!durable || stomp_destination_read(s, sub->destination, &d, &rest) != STOMP_DESTINATION_OK ||
        d.place != STOMP_TOPIC)
        return true;
    return private_name(s, frame, d.name, room, &queue) &&
           stomp_ask(s, CMD_QUEUE_DELETE, 0, &(struct stomp_operands){.name = queue});
}

void stomp_on_unsubscribe(struct stomp *s, const struct stomp_frame *frame)
{
    uint8_t room[2 + 4 * STOMP_NAME_MAX];
    struct slice tag;
    if (!durable_has_id(s, frame) || !tag_of(s, frame, room, sizeof room, &tag))
        return;
    struct stomp_subscription *sub = map_get(&s->by_tag, tag);
    if (!sub) {
        stomp_error(s, WRONG_NO_SUBSCRIPTION,
                    "UNSUBSCRIBE must refer to an existing subscription.\nSubscription to \"%s='%.*s'\" not found.\n",
                    tag.ptr[0] == 'T' ? "id" : "destination", (int)(tag.len - 2), (const char *)tag.ptr + 2);
        return;
    }
    sub->leaving = true;
    map_take(&s->by_tag, tag); /* the id is free: the core does things in order */
    uint32_t slot = sub->slot;
    if (!delete_durable(s, frame, sub))
        return;
    uint32_t receipt = stomp_receipt_ask(s);
    if (stomp_live(s))
        (void)stomp_ask(s, CMD_CANCEL, ORIGIN(CUE_CANCEL, slot) | receipt, &(struct stomp_operands){.name = sub->tag});
}

/* ---- ACK and NACK ---- */

/* tag@@session@@number, from the right. */
static bool id_parse(struct slice text, struct slice *ret_tag, struct slice *ret_session, uint64_t *ret_number)
{
    struct slice parts[2];
    for (int i = 1; i >= 0; i--) {
        const uint8_t *at = text.len >= 2 ? memrchr(text.ptr, '@', text.len) : NULL;
        if (!at || at == text.ptr || at[-1] != '@')
            return false;
        parts[i] = slice_of(at + 1, text.len - (size_t)(at - text.ptr) - 1);
        text.len = (size_t)(at - text.ptr) - 1;
    }
    *ret_tag = text;
    *ret_session = parts[0];
    return text.len >= 2 && read_number(parts[1], ret_number);
}

static struct stomp_subscription *acknowledged_find(struct stomp *s, struct slice tag)
{
    struct stomp_subscription *sub = map_get(&s->by_tag, tag);
    if (sub)
        return sub;
    for (uint32_t i = 0; i < s->subscriptions_len; i++)
        if (s->subscriptions[i] && slice_equal(s->subscriptions[i]->tag, tag))
            return s->subscriptions[i]; /* its CANCEL is on its way */
    LIST_EACH(&s->ended, node, after)
    if (slice_equal(CONTAINER_OF(node, struct stomp_subscription, ended_link)->tag, tag))
        sub = CONTAINER_OF(node, struct stomp_subscription, ended_link);
    return sub;
}

/* What the frame speaks of. NULL: an error was said. */
static struct stomp_subscription *acknowledged(struct stomp *s, const struct stomp_frame *frame, uint64_t *ret_number)
{
    const char *name = s->version == STOMP_12 ? "id" : "message-id";
    struct slice id, tag, session;
    if (!stomp_header_find(frame, name, &id)) {
        stomp_error(s, WRONG_NO_HEADER, "\"%.*s\" must include the \"%s\" header\n", SLICE_ARG(frame->command), name);
        return NULL;
    }
    if (!id_parse(id, &tag, &session, ret_number)) {
        stomp_error(s, WRONG_HEADER, "\"%.*s\" must include a valid \"%s\" header\n", SLICE_ARG(frame->command), name);
        return NULL;
    }
    struct stomp_subscription *sub = acknowledged_find(s, tag);
    if (!sub)
        stomp_error(s, WRONG_SUBSCRIPTION_GONE, "Message with id \"%.*s\" has no subscription", SLICE_ARG(id));
    else if (!slice_is(session, s->session_id)) {
        stomp_error(s, WRONG_MESSAGE, "Message with id \"%.*s\" is not of this session", SLICE_ARG(id));
        return NULL;
    }
    return sub;
}

/* The deliveries up to that number, each as a step; those of a subscription that is alone as one. */
static bool add_acks(struct stomp *s, struct stomp_tx *tx, struct stomp_subscription *sub, struct stomp_op op)
{
    bool multiple = sub->ack == ACK_CLIENT && s->ackers == 1, found = false;
    while (sub->ack == ACK_CLIENT && sub->tags_count && sub->tags[sub->tags_first] <= op.number) {
        uint64_t tag = sub->tags[sub->tags_first++];
        sub->tags_count--;
        if (multiple && !tx->id_len && tag != op.number)
            continue; /* the last one speaks for all; in a transaction that may be aborted each is kept */
        found = found || tag == op.number;
        struct stomp_op one = op;
        one.number = tag;
        one.serial = sub->serial;
        one.flags |= multiple && !tx->id_len ? ASK_MULTIPLE : 0;
        if (!stomp_tx_add(s, tx, &one))
            return false;
    }
    return found || stomp_tx_add(s, tx, &op); /* the core knows what is wrong with it */
}

static void acknowledge(struct stomp *s, const struct stomp_frame *frame, enum command_type type, uint32_t flags)
{
    uint64_t number;
    struct stomp_tx *tx;
    struct stomp_subscription *sub = acknowledged(s, frame, &number);
    if (!sub || !stomp_tx_of(s, frame, &tx))
        return;
    struct stomp_op op = {.type = (uint8_t)type, .number = number, .flags = flags};
    if (tx) {
        if (add_acks(s, tx, sub, op))
            stomp_receipt_now(s); /* it is held with the others */
        return;
    }
    if (sub->ack != ACK_CLIENT && !s->receipt.ptr) { /* the usual one */
        struct command *command = stomp_command(s, type, 0);
        command->number = number;
        command->flags = flags;
        return;
    }
    tx = stomp_tx_new((struct slice){0});
    struct stomp_receipt *receipt = tx ? stomp_receipt_take(s) : NULL;
    if (!tx)
        stomp_fail_memory(s);
    if (!tx || !stomp_live(s)) {
        mem_free(tx);
        return;
    }
    tx->atomic = receipt != NULL; /* only a transaction says when an acknowledgement is durable */
    if (receipt)
        list_insert(&tx->receipts, &receipt->link);
    bool added = add_acks(s, tx, sub, op);
    if (added)
        stomp_tx_flush(s, tx);
}

void stomp_on_ack(struct stomp *s, const struct stomp_frame *frame)
{
    acknowledge(s, frame, CMD_ACK, 0);
}

void stomp_on_nack(struct stomp *s, const struct stomp_frame *frame)
{
    bool requeue = s->options->dialect == STOMP_AS_RABBITMQ /* ActiveMQ's goes to the dead letters */
                   && !header_is(frame, "requeue", "false") && !header_is(frame, "requeue", "False");
    acknowledge(s, frame, CMD_NACK, requeue ? ASK_REQUEUE : 0);
}
