/* Selectors: conditions that a consumer, or a binding, puts on messages (argument x-selector, fmt/selector.h).
 *
 * A binding with a selector does not lead to its destination what is not selected: a topic subscription never holds what it
 * would not deliver. A consumer of a queue that has one gets what is selected and leaves the rest to others:
 *
 * - `scanned` is the last waiting message that it has looked at and not wanted; everything before it was looked at too. A
 *   condition does not change and neither does a message, so nothing is looked at twice, whatever the consumer's credit does.
 * - What leaves the memory of a lane takes the mark back by one (selecting_forget); what comes in before it (a message that
 *   came back, a page that was read) takes it back to there (selecting_returned).
 * - It looks at what is in memory: of a queue with pages that is the front, which others empty. Decision 0011.
 *
 * A queue has at most SELECTING_MAX of them, since each message that leaves asks them all.
 */
#include "core/core_int.h"

#include "fmt/selector.h"

#include <stdio.h>

#define LOOK_BYTES 16384u /* of headers, once for each part of the condition: as much as one look */

struct selector {
    uint32_t count;
    struct slice text; /* behind the nodes, which point into it */
    struct selector_node nodes[];
};

enum selector_found selector_of(struct slice args, struct selector **ret, char *why, size_t why_len)
{
    struct amqp_value v;
    struct selector_node nodes[SELECTOR_NODES_MAX];
    char what[120];
    *ret = NULL;
    if (!amqp_table_find(args, SELECTOR_ARG, &v) || (v.type == 'S' && v.s.len == 0))
        return SELECTOR_NONE;
    if (v.type != 'S') {
        snprintf(why, why_len, "expected a text, got %s", amqp_type_name(v.type));
        return SELECTOR_WRONG;
    }
    int count = selector_parse(v.s, nodes, SELECTOR_NODES_MAX, what, sizeof what);
    if (count < 0) {
        snprintf(why, why_len, "%s", what);
        return SELECTOR_WRONG;
    }
    struct selector *s = mem_alloc(sizeof *s + (unsigned)count * sizeof *nodes + v.s.len);
    if (!s)
        return SELECTOR_NO_MEMORY;
    uint8_t *text = (uint8_t *)(s->nodes + count);
    memcpy(text, v.s.ptr, v.s.len);
    count =
        selector_parse(slice_of(text, v.s.len), s->nodes, (unsigned)count, what, sizeof what); /* into its own text */
    CHECK(count > 0);
    s->count = (uint32_t)count;
    s->text = slice_of(text, v.s.len);
    *ret = s;
    return SELECTOR_OK;
}

void selector_free(struct selector **s)
{
    mem_free(*s);
    *s = NULL;
}

/* ---- what names stand for ---- */

static const struct {
    const char *name;
    uint16_t flag;
    size_t at; /* of a text in struct amqp_props */
} texts[] = {
#define TEXT(name, flag, field)                                                                                        \
    {                                                                                                                  \
        name, flag, offsetof(struct amqp_props, field)                                                                 \
    }
    TEXT("JMSType", AMQP_TYPE, type),
    TEXT("type", AMQP_TYPE, type),
    TEXT("JMSCorrelationID", AMQP_CORRELATION_ID, correlation_id),
    TEXT("correlation-id", AMQP_CORRELATION_ID, correlation_id),
    TEXT("JMSMessageID", AMQP_MESSAGE_ID, message_id),
    TEXT("amqp-message-id", AMQP_MESSAGE_ID, message_id),
    TEXT("JMSReplyTo", AMQP_REPLY_TO, reply_to),
    TEXT("reply-to", AMQP_REPLY_TO, reply_to),
    TEXT("content-type", AMQP_CONTENT_TYPE, content_type),
    TEXT("content-encoding", AMQP_CONTENT_ENCODING, content_encoding),
    TEXT("expiration", AMQP_EXPIRATION, expiration),
    TEXT("user-id", AMQP_USER_ID, user_id),
    TEXT("app-id", AMQP_APP_ID, app_id),
#undef TEXT
};

static struct selector_value long_of(int64_t i)
{
    return (struct selector_value){.kind = SELECT_LONG, .i = i};
}

static struct selector_value text_of(struct slice s)
{
    return (struct selector_value){.kind = SELECT_TEXT, .s = s};
}

static bool property(const struct amqp_props *props, struct slice name, struct selector_value *ret)
{
    if (slice_is(name, "JMSDeliveryMode"))
        *ret = text_of(slice_str(props->delivery_mode == 2 ? "PERSISTENT" : "NON_PERSISTENT"));
    else if (slice_is(name, "JMSPriority") || slice_is(name, "priority"))
        *ret = props->present & AMQP_PRIORITY ? long_of(props->priority) : (struct selector_value){0};
    else if (slice_is(name, "JMSTimestamp") && props->present & AMQP_TIMESTAMP)
        *ret = long_of((int64_t)(props->timestamp * 1000));
    else if (slice_is(name, "timestamp") && props->present & AMQP_TIMESTAMP)
        *ret = long_of((int64_t)props->timestamp);
    else {
        for (size_t i = 0; i < ARRAY_LEN(texts); i++)
            if (slice_is(name, texts[i].name) && props->present & texts[i].flag) {
                *ret = text_of(*(const struct slice *)((const uint8_t *)props + texts[i].at));
                return true;
            }
        return false;
    }
    return true;
}

static struct selector_value lookup(const void *message, struct slice name)
{
    const struct amqp_props *props = message;
    struct selector_value value = {.kind = SELECT_NULL};
    struct amqp_value v;
    if (property(props, name, &value) || !amqp_table_find_slice(props->headers, name, &v))
        return value;
    if (v.type == 'S')
        return text_of(v.s);
    if (v.type == 't')
        return (struct selector_value){.kind = SELECT_BOOL, .b = v.i};
    if (v.type == 'f' || v.type == 'd')
        return (struct selector_value){.kind = SELECT_DOUBLE, .d = v.d};
    return amqp_value_is_int(&v) || v.type == 'T' ? long_of(v.i) : value;
}

bool selector_takes(const struct selector *s, const struct msg *msg)
{
    struct amqp_props props;
    return amqp_props_parse(msg_props(msg), &props) && selector_matches(s->nodes, s->count, lookup, &props);
}

/* ---- consumers of a queue ---- */

static struct entry *entry_at(struct list *node)
{
    return CONTAINER_OF(node, struct entry, link);
}

/* The one behind `at`, or the first, of what is in memory in a row. */
static struct entry *scan_next(struct lane *lane, const struct entry *at)
{
    struct list *list = at ? lane_list_of(lane, at) : lane->paging ? &lane->paging->front : &lane->entries;
    struct list *next = at ? at->link.next : list->next;
    if (next == list && list != &lane->entries && list_empty(&lane->paging->pages)) {
        list = &lane->entries;
        next = list->next;
    }
    return next == list ? NULL : entry_at(next);
}

static const struct entry *scan_before(struct lane *lane, const struct entry *at)
{
    struct list *list = lane_list_of(lane, at);
    return at->link.prev == list ? NULL : entry_at(at->link.prev);
}

/* A name is looked for among all headers, so a look costs what both come to. */
static unsigned look_cost(const struct selector *s, const struct msg *msg)
{
    return 1 + (unsigned)(s->count * msg_props(msg).len / LOOK_BYTES);
}

struct entry *selected_next(struct broker *b, struct consumer *consumer, unsigned *looks)
{
    struct lane *lane = &consumer->queue->busy->lane;
    struct entry *e;
    while ((e = scan_next(lane, consumer->scanned)) && *looks) {
        unsigned cost = look_cost(consumer->selector, e->msg);
        *looks -= cost < *looks ? cost : *looks;
        if (e->deadline > b->wall && selector_takes(consumer->selector, e->msg))
            return e;
        consumer->scanned = e;
    }
    return NULL;
}

void selecting_forget(struct queue *q, const struct entry *e)
{
    LIST_EACH(&q->busy->consumers, node, after)
    {
        struct consumer *consumer = CONTAINER_OF(node, struct consumer, queue_link);
        if (consumer->scanned == e)
            consumer->scanned = scan_before(&q->busy->lane, e);
    }
}

void selecting_returned(struct queue *q, const struct entry *e)
{
    LIST_EACH(&q->busy->consumers, node, after)
    {
        struct consumer *consumer = CONTAINER_OF(node, struct consumer, queue_link);
        if (consumer->scanned && consumer->scanned->position > e->position)
            consumer->scanned = scan_before(&q->busy->lane, e);
    }
}
