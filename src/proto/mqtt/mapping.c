/* The mapping, see mapping.h and docs/mapping.md.
 *
 *   MQTT 5.0                 AMQP 0-9-1                                    what does not fit
 *   Payload Format 1         header x-mqtt-payload-format (b) 1
 *   Message Expiry (s)       expiration (ms)                               more than ten years are ten years
 *   Content Type             content_type                                  longer than 255 bytes: header x-mqtt-content-type
 *   Response Topic           reply_to, as a routing key                    longer: header x-mqtt-response-topic, as a topic
 *   Correlation Data         correlation_id                                longer, or no text: header x-mqtt-correlation-data (x)
 *   User Property            header of that name (S)                       names that mean something else here, or are longer
 *                                                                          than 255: in turn in the array x-mqtt-user-properties
 *   User Property x-amqp-N   property N: content_encoding, message_id, type, app_id, timestamp, priority; anything else of AMQP's
 *                            headers that is text, a number or a boolean is a user property, too
 *   QoS 0, 1, 2              delivery_mode absent, 2, 2 with header x-mqtt-publish-qos (b) 2
 *   RETAIN                   header x-mqtt-retain (t) true; x-mqtt-retained: it comes because it was retained
 *
 * user_id is not taken over: AMQP makes a promise of it. The six publishes without properties have their bytes ready. */
#include "proto/mqtt/mapping.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "fmt/amqp_table.h"
#include "proto/mqtt/topic.h"

#include <stdio.h>

#define HEADER_OWN "x-mqtt-"
#define HEADER_QOS "x-mqtt-publish-qos"
#define HEADER_RETAIN "x-mqtt-retain"
#define HEADER_RETAINED "x-mqtt-retained"
#define HEADER_SHARE "x-mqtt-share"
#define HEADER_FORMAT "x-mqtt-payload-format"
#define HEADER_CONTENT_TYPE "x-mqtt-content-type"
#define HEADER_RESPONSE_TOPIC "x-mqtt-response-topic"
#define HEADER_CORRELATION "x-mqtt-correlation-data"
#define HEADER_USER "x-mqtt-user-properties"
#define DIRECT_REPLY "amq.rabbitmq.reply-to" /* a pseudo-queue: not to be had by MQTT */
#define STR8_MAX 255u

/* AMQP's properties that MQTT has no word for. */
static const struct amqp_word {
    const char *name; /* of the user property */
    uint16_t flag;
    uint16_t at;
    enum { WORD_TEXT, WORD_U8, WORD_U64 } kind;
} amqp_words[] = {
    {"x-amqp-content-encoding", AMQP_CONTENT_ENCODING, offsetof(struct amqp_props, content_encoding), WORD_TEXT},
    {"x-amqp-priority", AMQP_PRIORITY, offsetof(struct amqp_props, priority), WORD_U8},
    {"x-amqp-message-id", AMQP_MESSAGE_ID, offsetof(struct amqp_props, message_id), WORD_TEXT},
    {"x-amqp-timestamp", AMQP_TIMESTAMP, offsetof(struct amqp_props, timestamp), WORD_U64},
    {"x-amqp-type", AMQP_TYPE, offsetof(struct amqp_props, type), WORD_TEXT},
    {"x-amqp-app-id", AMQP_APP_ID, offsetof(struct amqp_props, app_id), WORD_TEXT},
};

/* ---- in ---- */

/* Flags, [headers], [delivery mode] of a publish without properties. */
static const struct {
    uint8_t len;
    uint8_t flags;
    const char *bytes;
} usual[3][2] = {
    {{2, 0, "\0\0"}, {22, MSG_HAS_HEADERS, "\x20\0\0\0\0\x10\x0d" HEADER_RETAIN "t\x01"}},
    {{3, MSG_PERSISTENT, "\x10\0\x02"},
     {23, MSG_PERSISTENT | MSG_HAS_HEADERS, "\x30\0\0\0\0\x10\x0d" HEADER_RETAIN "t\x01\x02"}},
    {{28, MSG_PERSISTENT | MSG_HAS_HEADERS, "\x30\0\0\0\0\x15\x12" HEADER_QOS "b\x02\x02"},
     {44, MSG_PERSISTENT | MSG_HAS_HEADERS, "\x30\0\0\0\0\x25\x12" HEADER_QOS "b\x02\x0d" HEADER_RETAIN "t\x01\x02"}},
};

static bool is_text(struct slice s)
{
    return s.len <= UINT16_MAX && (s.len == 0 || (!memchr(s.ptr, 0, s.len) && utf8_valid(s)));
}

static void put_byte(struct writer *w, const char *name, char type, uint8_t value)
{
    writer_str8(w, slice_str(name));
    writer_u8(w, (uint8_t)type);
    writer_u8(w, value);
}

static void put_bytes(struct writer *w, const char *name, struct slice value)
{
    writer_str8(w, slice_str(name));
    writer_u8(w, 'x');
    writer_str32(w, value);
}

static bool number_of(struct slice text, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9' || value > (max - (uint64_t)(text.ptr[i] - '0')) / 10)
            return false;
        value = value * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    *ret = value;
    return text.len > 0;
}

/* A user property that stands for a property of AMQP. */
static bool take_amqp_word(const struct mqtt_one *one, struct amqp_props *props)
{
    for (const struct amqp_word *word = amqp_words; word < amqp_words + ARRAY_LEN(amqp_words); word++) {
        uint64_t number = 0;
        if (!slice_is(one->text, word->name) || props->present & word->flag)
            continue;
        void *at = (char *)props + word->at;
        if (word->kind == WORD_TEXT ? one->value.len > STR8_MAX
                                    : !number_of(one->value, word->kind == WORD_U8 ? UINT8_MAX : UINT64_MAX, &number))
            return false;
        if (word->kind == WORD_TEXT)
            *(struct slice *)at = one->value;
        else if (word->kind == WORD_U8)
            *(uint8_t *)at = (uint8_t)number;
        else
            *(uint64_t *)at = number;
        props->present |= word->flag;
        return true;
    }
    return false;
}

/* CC and BCC would route; names of our own are our own. */
static bool may_be_header(struct slice name)
{
    return name.len && name.len <= STR8_MAX && !slice_is(name, "CC") && !slice_is(name, "BCC") &&
           !slice_starts(name, HEADER_OWN);
}

/* User properties as headers, in order; false: too many. */
static bool put_user_properties(struct writer *w, const struct mqtt_props *given, struct amqp_props *props)
{
    struct reader list = reader_of(given->all);
    struct mqtt_one one;
    unsigned count = 0, odd = 0;
    while (mqtt_property_next(&list, &one)) {
        if (one.property != MQTT_P_user)
            continue;
        if (++count > MQTT_USER_PROPERTIES_MAX)
            return false;
        if (take_amqp_word(&one, props))
            continue;
        if (!may_be_header(one.text)) {
            odd++;
            continue;
        }
        writer_str8(w, one.text);
        writer_u8(w, 'S');
        writer_str32(w, one.value);
    }
    if (!odd)
        return true;
    size_t mark = amqp_open(w, HEADER_USER, 'A');
    for (list = reader_of(given->all); mqtt_property_next(&list, &one);) {
        if (one.property != MQTT_P_user || may_be_header(one.text))
            continue;
        amqp_put_element_str(w, one.text);
        amqp_put_element_str(w, one.value);
    }
    amqp_close(w, mark);
    return true;
}

/* keys: room for MQTT_KEY_MAX bytes. */
static void put_response_topic(struct writer *headers, struct slice topic, struct amqp_props *props, uint8_t *keys)
{
    if (topic.len && topic.len <= MQTT_KEY_MAX) {
        mqtt_topic_swap(keys, topic);
        struct slice key = slice_of(keys, topic.len);
        if (!slice_starts(key, DIRECT_REPLY)) {
            props->reply_to = key;
            props->present |= AMQP_REPLY_TO;
            return;
        }
    }
    amqp_put_str(headers, HEADER_RESPONSE_TOPIC, topic);
}

/* What has a name of its own on both sides. */
static void put_named(struct writer *headers, const struct mqtt_props *given, struct amqp_props *props, uint8_t *keys)
{
    if (mqtt_has(given, MQTT_P_payload_format) && given->payload_format)
        put_byte(headers, HEADER_FORMAT, 'b', 1);
    if (mqtt_has(given, MQTT_P_content_type) && given->content_type.len <= STR8_MAX) {
        props->content_type = given->content_type;
        props->present |= AMQP_CONTENT_TYPE;
    } else if (mqtt_has(given, MQTT_P_content_type)) {
        amqp_put_str(headers, HEADER_CONTENT_TYPE, given->content_type);
    }
    if (mqtt_has(given, MQTT_P_correlation_data) && given->correlation_data.len <= STR8_MAX &&
        is_text(given->correlation_data)) {
        props->correlation_id = given->correlation_data;
        props->present |= AMQP_CORRELATION_ID;
    } else if (mqtt_has(given, MQTT_P_correlation_data)) {
        put_bytes(headers, HEADER_CORRELATION, given->correlation_data);
    }
    if (mqtt_has(given, MQTT_P_response_topic))
        put_response_topic(headers, given->response_topic, props, keys);
}

static void put_marks(struct writer *headers, uint8_t qos, bool retain)
{
    if (qos == 2)
        put_byte(headers, HEADER_QOS, 'b', 2);
    if (retain)
        put_byte(headers, HEADER_RETAIN, 't', 1);
}

/* room holds, one behind the other: the headers, a key, the raw list. */
static uint8_t make_raw(struct mqtt_given *ret, uint8_t *room, size_t room_len, uint8_t qos, bool retain,
                        const struct mqtt_props *given)
{
    struct amqp_props props = {.present = 0};
    struct writer headers = writer_of(room, room_len / 2),
                  raw = writer_of(room + room_len / 2, room_len - room_len / 2);
    uint8_t keys[MQTT_KEY_MAX];
    char expiration[24];
    put_marks(&headers, qos, retain);
    put_named(&headers, given, &props, keys);
    if (!put_user_properties(&headers, given, &props))
        return MQTT_R_quota;
    if (mqtt_has(given, MQTT_P_message_expiry)) {
        uint32_t s = given->message_expiry < MQTT_EXPIRY_MAX_S ? given->message_expiry : MQTT_EXPIRY_MAX_S;
        ret->expiration_ms = (int64_t)s * 1000;
        int n = snprintf(expiration, sizeof expiration, "%lld", (long long)ret->expiration_ms);
        props.expiration = slice_of(expiration, (size_t)n);
        props.present |= AMQP_EXPIRATION;
    }
    if (qos) {
        props.delivery_mode = 2;
        props.present |= AMQP_DELIVERY_MODE;
        ret->flags |= MSG_PERSISTENT;
    }
    props.headers = writer_slice(&headers);
    if (props.headers.len) {
        props.present |= AMQP_HEADERS;
        ret->flags |= MSG_HAS_HEADERS;
    }
    ret->flags |= props.present & AMQP_REPLY_TO ? MSG_HAS_REPLY_TO : 0;
    ret->priority = props.present & AMQP_PRIORITY ? props.priority : 0;
    amqp_props_write(&raw, &props);
    if (!writer_ok(&headers) || !writer_ok(&raw))
        return MQTT_R_quota;
    ret->raw = writer_slice(&raw);
    return 0;
}

uint8_t mqtt_given_make(struct mqtt_given *ret, uint8_t qos, bool retain, const struct mqtt_props *props)
{
    ret->expiration_ms = -1;
    ret->flags = 0;
    ret->priority = 0;
    ret->block = NULL;
    if (!props->present) {
        ret->raw = slice_of(usual[qos][retain].bytes, usual[qos][retain].len);
        ret->flags = usual[qos][retain].flags;
        return 0;
    }
    if (props->all.len > MQTT_PROPERTIES_MAX)
        return MQTT_R_quota;
    /* A user property takes five bytes more in an array of AMQP's, and is at least five long; the rest has bounds. */
    size_t need = 2 * (2 * props->all.len + 640);
    if (need <= sizeof ret->room)
        return make_raw(ret, ret->room, sizeof ret->room, qos, retain, props);
    ret->block = mem_alloc(need);
    return ret->block ? make_raw(ret, ret->block, need, qos, retain, props) : MQTT_R_quota;
}

void mqtt_given_fini(struct mqtt_given *given)
{
    mem_free(given->block);
    given->block = NULL;
}

/* ---- out ---- */

static void read_marks(const struct msg *msg, struct mqtt_content *c)
{
    struct amqp_value value;
    if (amqp_table_find(c->props.headers, HEADER_QOS, &value) && amqp_value_is_int(&value) && c->qos && value.i == 2)
        c->qos = 2;
    if (amqp_table_find(c->props.headers, HEADER_RETAINED, &value))
        c->mark = MQTT_STORED_RETAINED;
    else if (amqp_table_find(c->props.headers, HEADER_RETAIN, &value) && value.type == 't' && value.i)
        c->mark = MQTT_PUBLISHED_RETAINED;
    if (msg->flags & MSG_OF_SHARE && amqp_table_find(c->props.headers, HEADER_SHARE, &value) &&
        amqp_value_is_str(&value)) /* anybody may write the header; the flag is the core's */
        c->share = value.s;
}

void mqtt_content_read(const struct msg *msg, struct mqtt_content *ret)
{
    struct slice raw = msg_props(msg);
    ret->qos = msg->flags & MSG_PERSISTENT ? 1 : 0;
    ret->mark = MQTT_NOT_RETAINED;
    ret->share = (struct slice){0};
    ret->props.present = 0;
    if (raw.len <= 3) /* nothing, or a delivery mode */
        return;
    if (!amqp_props_parse(raw, &ret->props)) {
        ret->props.present = 0; /* of a record that no AMQP client has sent: what it says besides its payload is lost */
        return;
    }
    if (ret->props.present & AMQP_HEADERS)
        read_marks(msg, ret);
}

static void put_text(struct writer *w, enum mqtt_property property, struct slice text)
{
    if (is_text(text))
        mqtt_property_put(w, &(struct mqtt_one){.property = property, .text = text});
}

static bool header_text(const struct mqtt_content *c, const char *name, char type, struct slice *ret)
{
    struct amqp_value value;
    if (!(c->props.present & AMQP_HEADERS) || !amqp_table_find(c->props.headers, name, &value) || value.type != type)
        return false;
    *ret = value.s;
    return true;
}

static void put_out_response_topic(struct writer *w, const struct mqtt_content *c)
{
    struct slice topic;
    uint8_t room[MQTT_TOPIC_OF_KEY_MAX];
    if (!header_text(c, HEADER_RESPONSE_TOPIC, 'S', &topic)) {
        if (!(c->props.present & AMQP_REPLY_TO))
            return;
        topic = slice_of(room, mqtt_topic_of_key(c->props.reply_to, room));
        if (topic.len != c->props.reply_to.len)
            return; /* no topic has this key */
    }
    if (mqtt_topic_valid(topic))
        put_text(w, MQTT_P_response_topic, topic);
}

static void put_out_named(struct writer *w, const struct mqtt_content *c, uint32_t expiry_s)
{
    struct amqp_value value;
    struct slice text = c->props.content_type;
    bool headers = c->props.present & AMQP_HEADERS;
    if (headers && amqp_table_find(c->props.headers, HEADER_FORMAT, &value) && amqp_value_is_int(&value) &&
        value.i == 1)
        mqtt_property_put(w, &(struct mqtt_one){.property = MQTT_P_payload_format, .number = 1});
    if (expiry_s)
        mqtt_property_put(w, &(struct mqtt_one){.property = MQTT_P_message_expiry, .number = expiry_s});
    if (c->props.present & AMQP_CONTENT_TYPE || header_text(c, HEADER_CONTENT_TYPE, 'S', &text))
        put_text(w, MQTT_P_content_type, text);
    put_out_response_topic(w, c);
    text = c->props.correlation_id;
    if ((c->props.present & AMQP_CORRELATION_ID || header_text(c, HEADER_CORRELATION, 'x', &text)) &&
        text.len <= UINT16_MAX)
        mqtt_property_put(w, &(struct mqtt_one){.property = MQTT_P_correlation_data, .text = text});
}

static void put_pair(struct writer *w, struct slice name, struct slice value)
{
    if (is_text(name) && is_text(value))
        mqtt_property_put(w, &(struct mqtt_one){.property = MQTT_P_user, .text = name, .value = value});
}

static void put_out_words(struct writer *w, const struct amqp_props *props)
{
    for (const struct amqp_word *word = amqp_words; word < amqp_words + ARRAY_LEN(amqp_words); word++) {
        if (!(props->present & word->flag))
            continue;
        const void *at = (const char *)props + word->at;
        char number[24];
        struct slice text = {0};
        if (word->kind == WORD_TEXT) {
            text = *(const struct slice *)at;
        } else {
            uint64_t n = word->kind == WORD_U8 ? *(const uint8_t *)at : *(const uint64_t *)at;
            text = slice_of(number, (size_t)snprintf(number, sizeof number, "%llu", (unsigned long long)n));
        }
        put_pair(w, slice_str(word->name), text);
    }
}

/* The header as text; false: it is none of the plain types. Bytes are what every header of a Kafka record is: put_pair shows them
 * where they are text. */
static bool value_text(const struct amqp_value *value, char room[32], struct slice *ret)
{
    if (value->type == 'S' || value->type == 'x') {
        *ret = value->s;
        return true;
    }
    int n;
    if (value->type == 't')
        n = snprintf(room, 32, "%s", value->i ? "true" : "false");
    else if (value->type == 'f' || value->type == 'd')
        n = snprintf(room, 32, "%.17g", value->d);
    else if (amqp_value_is_int(value) || value->type == 'T')
        n = snprintf(room, 32, "%lld", (long long)value->i);
    else
        return false;
    *ret = slice_of(room, (size_t)n);
    return true;
}

static void put_out_odd(struct writer *w, struct slice array)
{
    struct reader r = reader_of(array);
    struct amqp_value name, value;
    while (amqp_array_next(&r, &name) && amqp_array_next(&r, &value))
        if (name.type == 'S' && value.type == 'S')
            put_pair(w, name.s, value.s);
}

static void put_out_headers(struct writer *w, struct slice table)
{
    struct reader r = reader_of(table);
    struct amqp_field field;
    char room[32];
    struct slice text;
    while (amqp_table_next(&r, &field)) {
        if (slice_is(field.name, HEADER_USER) && field.value.type == 'A')
            put_out_odd(w, field.value.s);
        else if (!slice_starts(field.name, HEADER_OWN) && value_text(&field.value, room, &text))
            put_pair(w, field.name, text);
    }
}

void mqtt_content_put(struct writer *w, const struct mqtt_content *content, uint32_t expiry_s)
{
    put_out_named(w, content, expiry_s);
    put_out_words(w, &content->props);
    if (content->props.present & AMQP_HEADERS)
        put_out_headers(w, content->props.headers);
}

/* A number without a name takes six bytes and becomes a pair of 29; the words take their names with them. */
size_t mqtt_content_len_max(const struct mqtt_content *content)
{
    const struct amqp_props *p = &content->props;
    if (!p->present)
        return 16;
    size_t headers = p->present & AMQP_HEADERS ? p->headers.len : 0;
    return 512 + amqp_props_len_max(p) + MQTT_TOPIC_OF_KEY_MAX + headers * 5;
}
