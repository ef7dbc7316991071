/* Selectors: conditions that a consumer, or a binding, puts on messages (argument x-selector, fmt/selector.h).
 *
 * A binding with a selector does not lead to its destination what is not selected: a topic subscription never holds what it
 * would not deliver. A consumer of a queue that has one gets what is selected and leaves the rest to others (sieve.c). Decisions
 * 0011 and 0018.
 */
#include "core/core_int.h"

#include "fmt/selector.h"

#include <stdio.h>

#define NAME_BYTES 128u /* of headers that are looked through for a name: a step */

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

bool selector_equal(const struct selector *a, const struct selector *b)
{
    return slice_equal(a->text, b->text);
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

bool selector_takes(const struct selector *s, const struct msg *msg, unsigned *ret_steps)
{
    struct amqp_props props;
    *ret_steps = 0;
    return amqp_props_parse(msg_props(msg), &props) &&
           selector_matches(s->nodes, s->count, lookup, &props, (unsigned)(props.headers.len / NAME_BYTES), ret_steps);
}
