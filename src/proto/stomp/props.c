/* Headers and properties, see props.h.
 *
 * A header of a SEND is one of three: the frame's own business (destination, receipt, …), a property by the table below, or the
 * user's, which becomes a longstr of the headers table. The way back is the same, with numbers and booleans as text; what has
 * no text (tables, arrays, octets that are no UTF-8) is left out, as RabbitMQ does. Of two headers with one name STOMP clients take the first:
 * so properties come before the user's headers, and of those none that has a property's name or one of the frame's.
 *
 * x-delay must be a number for exchanges that delay; as a header it is one when it looks like one. */
#include "proto/stomp/props.h"

#include "base/reader.h"
#include "base/utf8.h"
#include "fmt/amqp_props.h"
#include "fmt/amqp_table.h"
#include "proto/stomp/destination.h"

#include <stdio.h>

enum kind {
    KIND_TEXT,
    KIND_PERSISTENT,
    KIND_PRIORITY,
    KIND_TIME,
    KIND_EXPIRES,
    KIND_DELAY,
    KIND_NOT_HERE,
    KIND_FRAME, /* of the frame, not of the message */
};

static const struct row {
    const char *name;
    uint8_t kind, len;
    uint16_t flag; /* enum amqp_prop */
    size_t at;     /* KIND_TEXT: in struct amqp_props */
} rows[] = {
#define TEXT(name, flag, field)                                                                                        \
    {                                                                                                                  \
        name, KIND_TEXT, sizeof(name) - 1, flag, offsetof(struct amqp_props, field)                                    \
    }
#define OTHER(name, kind, flag)                                                                                        \
    {                                                                                                                  \
        name, kind, sizeof(name) - 1, flag, 0                                                                          \
    }
    TEXT("content-type", AMQP_CONTENT_TYPE, content_type),
    TEXT("content-encoding", AMQP_CONTENT_ENCODING, content_encoding),
    OTHER("persistent", KIND_PERSISTENT, AMQP_DELIVERY_MODE),
    OTHER("priority", KIND_PRIORITY, AMQP_PRIORITY),
    TEXT("correlation-id", AMQP_CORRELATION_ID, correlation_id),
    TEXT("reply-to", AMQP_REPLY_TO, reply_to),
    TEXT("expiration", AMQP_EXPIRATION, expiration),
    TEXT("amqp-message-id", AMQP_MESSAGE_ID, message_id),
    OTHER("timestamp", KIND_TIME, AMQP_TIMESTAMP),
    TEXT("type", AMQP_TYPE, type),
    TEXT("user-id", AMQP_USER_ID, user_id),
    TEXT("app-id", AMQP_APP_ID, app_id),
    OTHER("expires", KIND_EXPIRES, AMQP_EXPIRATION),
    OTHER("AMQ_SCHEDULED_DELAY", KIND_DELAY, 0),
    OTHER("AMQ_SCHEDULED_PERIOD", KIND_NOT_HERE, 0),
    OTHER("AMQ_SCHEDULED_REPEAT", KIND_NOT_HERE, 0),
    OTHER("AMQ_SCHEDULED_CRON", KIND_NOT_HERE, 0),
    OTHER("destination", KIND_FRAME, 0),
    OTHER("receipt", KIND_FRAME, 0),
    OTHER("transaction", KIND_FRAME, 0),
    OTHER("content-length", KIND_FRAME, 0),
    OTHER("message-id", KIND_FRAME, 0),
    OTHER("subscription", KIND_FRAME, 0),
    OTHER("redelivered", KIND_FRAME, 0),
    OTHER("ack", KIND_FRAME, 0),
#undef TEXT
#undef OTHER
};

/* NULL: it is the user's. */
static const struct row *row_of(struct slice name, bool activemq)
{
    for (const struct row *row = rows; row < rows + ARRAY_LEN(rows); row++)
        if (row->len == name.len && memcmp(row->name, name.ptr, name.len) == 0)
            return !activemq && row->kind >= KIND_EXPIRES && row->kind <= KIND_NOT_HERE ? NULL : row;
    return NULL;
}

static bool read_number(struct slice text, uint64_t *ret)
{
    uint64_t value = 0;
    while (text.len && *text.ptr == ' ') {
        text.ptr++;
        text.len--;
    }
    if (text.len == 0)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = text.ptr[i] - (unsigned)'0';
        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *ret = value;
    return true;
}

/* ---- headers to properties ---- */

struct reading {
    struct amqp_props props;
    const struct stomp_props_rules *rules;
    char expiration[24];
    bool has_expires, delayed;
    uint64_t delay_ms;
};

static const char *take_expires(struct reading *r, struct slice value)
{
    uint64_t at;
    if (!read_number(value, &at))
        return "must be a time in milliseconds";
    if (at == 0)
        return NULL;
    uint64_t now = (uint64_t)r->rules->wall;
    int n = snprintf(r->expiration, sizeof r->expiration, "%llu", (unsigned long long)(at > now ? at - now : 0));
    r->props.expiration = slice_of(r->expiration, (size_t)n);
    r->props.present |= AMQP_EXPIRATION;
    r->has_expires = true;
    return NULL;
}

static const char *take_property(struct reading *r, const struct row *row, struct slice value)
{
    uint64_t number;
    switch ((enum kind)row->kind) {
    case KIND_TEXT:
        if (row->flag == AMQP_REPLY_TO && r->rules->reply_to.ptr)
            value = r->rules->reply_to;
        if (value.len > 255)
            return "must not be longer than 255 bytes";
        if (row->flag == AMQP_EXPIRATION && r->has_expires)
            return NULL;
        *(struct slice *)((uint8_t *)&r->props + row->at) = value;
        break;
    case KIND_PERSISTENT:
        if (!slice_is(value, "true") && !slice_is(value, "True"))
            return NULL;
        r->props.delivery_mode = 2;
        break;
    case KIND_PRIORITY:
        if (!read_number(value, &number))
            return "must be a number";
        r->props.priority = number > 255 ? 255 : (uint8_t)number;
        break;
    case KIND_TIME:
        if (!read_number(value, &r->props.timestamp))
            return "must be a number";
        break;
    case KIND_EXPIRES: return take_expires(r, value);
    case KIND_DELAY:
        r->delayed = true;
        return read_number(value, &r->delay_ms) && r->delay_ms <= INT64_MAX ? NULL : "must be a number of milliseconds";
    case KIND_NOT_HERE: return "is not supported: only AMQ_SCHEDULED_DELAY is";
    case KIND_FRAME: return NULL;
    }
    r->props.present |= row->flag;
    return NULL;
}

static void put_user(struct writer *w, const struct stomp_header *header)
{
    uint64_t delay;
    writer_str8(w, header->name);
    if (slice_is(header->name, "x-delay") && read_number(header->value, &delay) && delay <= INT64_MAX) {
        writer_u8(w, 'l');
        writer_u64(w, delay);
        return;
    }
    writer_u8(w, 'S');
    writer_str32(w, header->value);
}

size_t stomp_props_max(const struct stomp_frame *frame, const struct stomp_props_rules *rules)
{
    size_t len = 64 + rules->reply_to.len;
    for (uint32_t i = 0; i < frame->header_count; i++)
        len += 16 + frame->headers[i].name.len + frame->headers[i].value.len;
    return 2 * len; /* the table is written first, and then moved into its place */
}

static void set_flags(const struct amqp_props *props, struct stomp_sent *ret)
{
    ret->flags = (uint8_t)((props->delivery_mode == 2 ? MSG_PERSISTENT : 0) |
                           (props->present & AMQP_HEADERS ? MSG_HAS_HEADERS : 0) |
                           (props->present & AMQP_USER_ID ? MSG_HAS_USER_ID : 0) |
                           (props->present & AMQP_REPLY_TO ? MSG_HAS_REPLY_TO : 0));
    if (!amqp_props_acceptable(props, &ret->expiration_ms, NULL, 0))
        ret->flags |= MSG_INVALID; /* the core says so, after it has looked for the exchange */
    ret->priority = props->priority;
}

const char *stomp_props_read(const struct stomp_frame *frame, const struct stomp_props_rules *rules, struct writer *w,
                             struct stomp_sent *ret, struct slice *ret_name)
{
    struct reading r = {.rules = rules};
    struct writer table = writer_of(w->base + w->max / 2, w->max - w->max / 2);
    for (uint32_t i = 0; i < frame->header_count; i++) {
        const struct stomp_header *header = &frame->headers[i];
        const struct row *row = row_of(header->name, rules->activemq);
        const char *wrong = row                      ? take_property(&r, row, header->value)
                            : header->name.len > 255 ? "must not have a name longer than 255 bytes"
                                                     : NULL;
        if (wrong) {
            *ret_name = header->name;
            return wrong;
        }
        if (!row || row->kind == KIND_EXPIRES)
            put_user(&table, header); /* `expires` is absolute: whoever reads the message later sees it too */
    }
    if (r.delayed) {
        writer_str8(&table, slice_str("x-delay"));
        writer_u8(&table, 'l');
        writer_u64(&table, r.delay_ms);
    }
    if (table.len) {
        r.props.headers = writer_slice(&table);
        r.props.present |= AMQP_HEADERS;
    }
    struct writer list = writer_of(w->base, w->max / 2);
    amqp_props_write(&list, &r.props);
    w->len = list.len;
    w->failed = !writer_ok(&list) || !writer_ok(&table);
    set_flags(&r.props, ret);
    ret->flags |= r.delayed ? MSG_DELAYED : 0;
    return NULL;
}

/* ---- properties to headers ---- */

struct lines {
    uint8_t *at;
    enum stomp_version version;
};

static uint8_t *put(uint8_t *at, const void *bytes, size_t len)
{
    memcpy(at, bytes, len);
    return at + len;
}

static void put_line(struct lines *l, struct slice name, struct slice value, bool escape_name)
{
    l->at = escape_name ? stomp_put_escaped(l->at, name, l->version) : put(l->at, name.ptr, name.len);
    *l->at++ = ':';
    l->at = stomp_put_escaped(l->at, value, l->version);
    *l->at++ = '\n';
}

static void put_number(struct lines *l, const char *name, unsigned long long value)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%llu", value);
    put_line(l, slice_str(name), slice_of(text, (size_t)n), false);
}

/* An answer begins with /reply-queue/ where a queue's name stands, so that it can be sent to. */
static void put_reply_to(struct lines *l, struct slice value)
{
    l->at = put(l->at, "reply-to:", 9);
    if (!stomp_is_destination(value))
        l->at = put(l->at, "/reply-queue/", 13);
    l->at = stomp_put_escaped(l->at, value, l->version);
    *l->at++ = '\n';
}

static void put_property(struct lines *l, const struct row *row, const struct amqp_props *props)
{
    if (!(props->present & row->flag))
        return;
    switch ((enum kind)row->kind) {
    case KIND_TEXT: {
        struct slice value = *(const struct slice *)((const uint8_t *)props + row->at);
        if (row->flag == AMQP_REPLY_TO)
            put_reply_to(l, value);
        else
            put_line(l, slice_of(row->name, row->len), value, false);
        return;
    }
    case KIND_PERSISTENT:
        if (props->delivery_mode == 2)
            l->at = put(l->at, "persistent:true\n", 16);
        return;
    case KIND_PRIORITY: put_number(l, row->name, props->priority); return;
    case KIND_TIME: put_number(l, row->name, props->timestamp); return;
    case KIND_EXPIRES:
    case KIND_DELAY:
    case KIND_NOT_HERE:
    case KIND_FRAME: return;
    }
}

/* Bytes are what every header of a Kafka record is; where they are text a STOMP client sees them. */
static bool is_text(struct slice s)
{
    return s.len == 0 || (!memchr(s.ptr, 0, s.len) && utf8_valid(s));
}

static void put_user_line(struct lines *l, const struct amqp_field *field)
{
    char text[40];
    int n;
    const struct amqp_value *v = &field->value;
    if (field->name.len == 0 || row_of(field->name, false))
        return;
    switch (v->type) {
    case 'S': put_line(l, field->name, v->s, true); return;
    case 'x':
        if (is_text(v->s))
            put_line(l, field->name, v->s, true);
        return;
    case 't': n = snprintf(text, sizeof text, "%s", v->i ? "true" : "false"); break;
    case 'f':
    case 'd': n = snprintf(text, sizeof text, "%.*g", v->type == 'f' ? 9 : 17, v->d); break;
    case 'T': n = snprintf(text, sizeof text, "%llu", (unsigned long long)v->i); break;
    default:
        if (!amqp_value_is_int(v))
            return;
        n = snprintf(text, sizeof text, "%lld", (long long)v->i);
        break;
    }
    put_line(l, field->name, slice_of(text, (size_t)n), true);
}

/* The least field of a table has 2 bytes, and the longest number 24; escapes double. */
size_t stomp_props_lines_max(struct slice props)
{
    return 512 + 12 * props.len;
}

uint8_t *stomp_props_lines(uint8_t *at, struct slice raw, enum stomp_version version)
{
    struct lines l = {.at = at, .version = version};
    struct amqp_props props;
    if (raw.len == 2 || !amqp_props_parse(raw, &props))
        return at;
    for (const struct row *row = rows; row < rows + ARRAY_LEN(rows); row++)
        put_property(&l, row, &props);
    struct reader r = reader_of(props.headers);
    struct amqp_field field;
    while (amqp_table_next(&r, &field))
        put_user_line(&l, &field);
    return l.at;
}
