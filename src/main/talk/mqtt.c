/* `millrace pub`, `sub` and `tail` over MQTT 5.0, see talk.h. The packets are those of proto/mqtt, which are pure functions; the socket
 * is the load generator's.
 *
 * Publishing is QoS 1: what nobody subscribes to is told by the broker's reason code. Reading is QoS 1 in a session of its own
 * that ends with the connection; with a count that the receive maximum can hold no more than that is sent to us. */
#include "main/talk/talk.h"

#include "admin/table_json.h"
#include "base/mem.h"
#include "main/client/socket.h"
#include "os/os.h"
#include "proto/mqtt/packet.h"
#include "proto/mqtt/topic.h"

#include <stdio.h>
#include <stdlib.h>

#define ANSWER_MS (BENCH_ANSWER_TIMEOUT_S * 1000)
#define WINDOW_MAX 256u
#define WINDOW_BYTES (256u * 1024)
#define RECEIVE_MAX 100u
#define IN_BYTES (64u * 1024)
#define USER_MAX (32u * 1024) /* user properties of one message */

struct talk_mqtt {
    struct talk talk; /* first */
    struct client_socket socket;
    uint16_t next_id, window;
    uint32_t unconfirmed;
    size_t window_bytes;
    uint32_t keep_alive_s; /* that the server has asked for; 0: none */
    uint8_t *out;
    size_t out_cap;
    uint16_t received; /* id of the message that was given out; 0: it has none */
    bool is_open;
};

static struct talk_mqtt *of_talk(struct talk *t)
{
    return CONTAINER_OF(t, struct talk_mqtt, talk);
}

static int socket_failed(struct talk_mqtt *m)
{
    return talk_fail(&m->talk, "%s", m->socket.error[0] ? m->socket.error : "out of memory");
}

static const char *topic_of(const struct talk_options *o)
{
    return o->topic ? o->topic : o->name;
}

/* ---- packets ---- */

static int put(struct talk_mqtt *m, enum mqtt_type type, const union mqtt_fields *fields)
{
    size_t len = mqtt_encoded_len(type, MQTT_5, fields);
    if (len > m->out_cap) {
        uint8_t *grown = len <= MQTT_REMAINING_MAX ? mem_realloc(m->out, len) : NULL;
        if (!grown)
            return talk_fail(&m->talk, "the message is too large");
        m->out = grown;
        m->out_cap = len;
    }
    struct writer w = writer_of(m->out, m->out_cap);
    mqtt_encode(&w, type, MQTT_5, fields);
    if (!writer_ok(&w))
        return talk_fail(&m->talk, "a topic, a name or a property is too long for MQTT");
    return client_socket_send(&m->socket, m->out, w.len) == 0 ? 0 : socket_failed(m);
}

/* Waits for bytes; keeps the connection alive meanwhile. 0: none within wait_ms (negative: for ever). */
static int fill(struct talk_mqtt *m, int64_t wait_ms)
{
    uint64_t alive_ms = m->keep_alive_s * UINT64_C(500);
    uint64_t patience = wait_ms < 0                                ? alive_ms
                        : alive_ms && alive_ms < (uint64_t)wait_ms ? alive_ms
                                                                   : (uint64_t)wait_ms;
    client_socket_patience(&m->socket, patience);
    ssize_t n = client_socket_fill(&m->socket);
    if (n < 0)
        return socket_failed(m);
    return n > 0 || !alive_ms ? n > 0 : put(m, MQTT_pingreq, NULL);
}

/* 1: a packet, whose fields lie in the socket's buffer until the next call; 0: none within wait_ms. */
static int packet_next(struct talk_mqtt *m, int64_t wait_ms, enum mqtt_type *ret_type, union mqtt_fields *ret)
{
    struct os *os = os_posix();
    mono_t until = wait_ms < 0 ? MONO_NEVER : os->now_mono(os) + wait_ms * NS_PER_MS;
    for (;;) {
        struct mqtt_frame frame;
        enum mqtt_cut cut = mqtt_cut(slice_of(m->socket.in + m->socket.in_at, m->socket.in_end - m->socket.in_at),
                                     MQTT_REMAINING_MAX, &frame);
        if (cut == MQTT_CUT_OK) {
            m->socket.in_at += frame.len;
            *ret_type = (enum mqtt_type)frame.type;
            if (mqtt_decode(&frame, MQTT_5, MQTT_SERVER, ret) != 0)
                return talk_fail(&m->talk, "the server sent a packet that is not MQTT 5.0");
            if (frame.type != MQTT_pingresp)
                return 1;
            continue;
        }
        if (cut != MQTT_CUT_MORE)
            return talk_fail(&m->talk, "the server sent bytes that are not MQTT");
        if (frame.len && client_socket_reserve(&m->socket, frame.len) != 0)
            return socket_failed(m);
        int64_t left = until == MONO_NEVER ? -1 : (until - os->now_mono(os)) / NS_PER_MS;
        if (until != MONO_NEVER && left <= 0)
            return 0;
        if (fill(m, left) < 0)
            return -1;
    }
}

static const char *reason_text(uint8_t reason)
{
    const char *text = mqtt_reason_text(reason);
    return text ? text : "a reason that MQTT does not have";
}

/* Anything may be said before the connection ends. */
static int ended(struct talk_mqtt *m, enum mqtt_type type, const union mqtt_fields *fields)
{
    m->is_open = false;
    if (type == MQTT_disconnect)
        return talk_fail(&m->talk, "the server ends the connection: %s", reason_text(fields->end.reason));
    return talk_fail(&m->talk, "the server sent a packet that nobody asked for");
}

/* ---- opening ---- */

static int login(struct talk_mqtt *m)
{
    const struct talk_options *o = m->talk.options;
    union mqtt_fields f = {.connect = {.protocol = slice_str("MQTT"),
                                       .version = MQTT_5,
                                       .clean = true,
                                       .has_user = o->user != NULL,
                                       .has_password = o->user && o->password,
                                       .user = slice_str(o->user ? o->user : ""),
                                       .password = slice_str(o->password ? o->password : "")}};
    enum mqtt_type type;
    unsigned receive = o->count && o->count < RECEIVE_MAX ? (unsigned)o->count : RECEIVE_MAX;
    MQTT_SET(&f.connect.props, receive_maximum, (uint16_t)receive);
    if (put(m, MQTT_connect, &f) != 0)
        return -1;
    int got = packet_next(m, ANSWER_MS, &type, &f);
    if (got == 0)
        return talk_fail(&m->talk,
                         "no answer within %d s: is this an MQTT listener, and with TLS if and only if --tls is said?",
                         BENCH_ANSWER_TIMEOUT_S);
    if (got < 0 || type != MQTT_connack)
        return got < 0 ? -1 : ended(m, type, &f);
    if (f.connack.reason)
        return talk_fail(&m->talk, "the server refuses: %s", reason_text(f.connack.reason));
    m->window = WINDOW_MAX;
    if (mqtt_has(&f.connack.props, MQTT_P_receive_maximum) && f.connack.props.receive_maximum < m->window)
        m->window = f.connack.props.receive_maximum;
    if (mqtt_has(&f.connack.props, MQTT_P_server_keep_alive))
        m->keep_alive_s = f.connack.props.server_keep_alive;
    m->is_open = true;
    return 0;
}

static const char *misused(const struct talk_options *o)
{
    if (!topic_of(o))
        return "MQTT has topics, and neither exchanges nor queues: name one";
    if (o->from || o->peek || o->create || o->partition >= 0)
        return "topics of MQTT keep nothing: --from, --peek, --create and --partition mean nothing there";
    return NULL;
}

static struct talk *talk_open(const struct talk_options *o)
{
    struct talk_mqtt *m = mem_zalloc(sizeof *m);
    if (!m)
        return NULL;
    m->talk.protocol = &talk_mqtt;
    m->talk.options = o;
    m->socket.fd = -1;
    if (talk_connect(&m->socket, o) != 0 || client_socket_reserve(&m->socket, IN_BYTES) != 0)
        socket_failed(m);
    else
        (void)login(m);
    return &m->talk;
}

static void talk_close(struct talk *t)
{
    struct talk_mqtt *m = of_talk(t);
    union mqtt_fields f = {0};
    if (m->is_open)
        (void)put(m, MQTT_disconnect, &f);
    client_socket_close(&m->socket);
    mem_free(m->out);
    mem_free(m);
}

/* ---- publishing ---- */

static struct slice text_of(const json_t *json)
{
    return slice_of(json_string_value(json), json_string_length(json));
}

static int put_user(struct talk_mqtt *m, struct writer *w, const json_t *headers)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)headers, name, value)
    {
        char number[32];
        struct mqtt_one one = {.property = MQTT_P_user, .text = slice_str(name)};
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
        if (!json_is_string(value) && !json_is_integer(value) && !json_is_boolean(value))
            return talk_fail(&m->talk, "user properties are texts, and %s is none", name);
        one.value = json_is_string(value) ? text_of(value)
                                          : slice_str(json_is_true(value)    ? "true"
                                                      : json_is_false(value) ? "false"
                                                                             : number);
        mqtt_property_put(w, &one);
    }
    return writer_ok(w) ? 0 : talk_fail(&m->talk, "the headers have more than 32 KiB");
}

/* A text as in AMQP, or a number. */
static unsigned long long milliseconds_of(const json_t *value)
{
    return json_is_string(value) ? strtoull(json_string_value(value), NULL, 10)
                                 : (unsigned long long)json_integer_value(value);
}

static int props_of(struct talk_mqtt *m, const json_t *properties, struct writer *user, struct mqtt_props *ret)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)properties, name, value)
    {
        if (strcmp(name, "content_type") == 0)
            MQTT_SET(ret, content_type, text_of(value));
        else if (strcmp(name, "correlation_id") == 0)
            MQTT_SET(ret, correlation_data, text_of(value));
        else if (strcmp(name, "reply_to") == 0)
            MQTT_SET(ret, response_topic, text_of(value));
        else if (strcmp(name, "expiration") == 0)
            MQTT_SET(ret, message_expiry, (uint32_t)(milliseconds_of(value) / 1000));
        else if (strcmp(name, "headers") != 0 && strcmp(name, "delivery_mode") != 0)
            return talk_fail(&m->talk, "MQTT has no property %s", name);
    }
    if (put_user(m, user, json_object_get(properties, "headers")) != 0)
        return -1;
    ret->more = writer_slice(user);
    return 0;
}

/* Waits until at most that many are unconfirmed. */
static int await_confirms(struct talk_mqtt *m, uint32_t unconfirmed_max)
{
    enum mqtt_type type;
    union mqtt_fields f;
    while (m->unconfirmed > unconfirmed_max) {
        int got = packet_next(m, TALK_HELD_MS, &type, &f);
        if (got == 0) {
            talk_held(&m->talk, NULL);
            got = packet_next(m, ANSWER_MS - TALK_HELD_MS, &type, &f);
        }
        if (got == 0)
            return talk_fail(&m->talk, "the server has not confirmed %u messages within %d s", m->unconfirmed,
                             BENCH_ANSWER_TIMEOUT_S);
        if (got < 0 || type != MQTT_puback)
            return got < 0 ? -1 : ended(m, type, &f);
        if (f.ack.reason >= 0x80)
            return talk_fail(&m->talk, "the server refuses: %s", reason_text(f.ack.reason));
        /* What is retained has arrived, whoever subscribes. */
        m->talk.unrouted += f.ack.reason == MQTT_R_no_matching_subscribers && !m->talk.options->retain;
        m->unconfirmed--;
    }
    m->window_bytes = 0;
    return 0;
}

static int talk_publish(struct talk *t, const struct talk_message *message)
{
    struct talk_mqtt *m = of_talk(t);
    uint8_t bytes[USER_MAX];
    struct writer user = writer_of(bytes, sizeof bytes);
    union mqtt_fields f = {.publish = {.qos = 1,
                                       .retain = t->options->retain,
                                       .topic = slice_str(topic_of(t->options)),
                                       .payload = message->body}};
    if (!mqtt_topic_valid(f.publish.topic))
        return talk_fail(t, "%s is no topic to publish to: + and # are for who subscribes", topic_of(t->options));
    if (props_of(m, json_object_get(message->about, "properties"), &user, &f.publish.props) != 0)
        return -1;
    size_t len = message->body.len + user.len;
    if (await_confirms(m, m->window_bytes + len > WINDOW_BYTES ? 0 : m->window - 1u) != 0)
        return -1;
    m->next_id = m->next_id == UINT16_MAX ? 1 : (uint16_t)(m->next_id + 1);
    f.publish.id = m->next_id;
    if (put(m, MQTT_publish, &f) != 0)
        return -1;
    m->unconfirmed++;
    m->window_bytes += len;
    t->published++;
    return 0;
}

static int talk_flush(struct talk *t)
{
    return await_confirms(of_talk(t), 0);
}

/* ---- reading ---- */

static int talk_subscribe(struct talk *t)
{
    struct talk_mqtt *m = of_talk(t);
    uint8_t bytes[70000];
    struct writer list = writer_of(bytes, sizeof bytes);
    union mqtt_fields f = {.list = {.id = 1, .count = 1}};
    enum mqtt_type type;
    mqtt_text_put(&list, slice_str(topic_of(t->options)));
    writer_u8(&list, 1); /* QoS 1 */
    f.list.list = writer_slice(&list);
    if (!writer_ok(&list) || !mqtt_filter_valid(slice_str(topic_of(t->options))))
        return talk_fail(t, "%s is no topic filter", topic_of(t->options));
    if (put(m, MQTT_subscribe, &f) != 0)
        return -1;
    int got = packet_next(m, ANSWER_MS, &type, &f);
    if (got <= 0)
        return got < 0 ? -1 : talk_fail(t, "the server does not answer");
    if (type != MQTT_suback || f.list.list.len != 1)
        return ended(m, type, &f);
    uint8_t reason = f.list.list.ptr[0];
    return reason < 0x80 ? 0 : talk_fail(t, "the server refuses the subscription: %s", reason_text(reason));
}

static json_t *props_json(const struct mqtt_props *props)
{
    json_t *json = json_object(), *headers = json_object();
    struct reader list = reader_of(props->all);
    struct mqtt_one one;
    if (mqtt_has(props, MQTT_P_content_type))
        json_object_set_new(json, "content_type", text_to_json(props->content_type));
    if (mqtt_has(props, MQTT_P_correlation_data))
        json_object_set_new(json, "correlation_id", text_to_json(props->correlation_data));
    if (mqtt_has(props, MQTT_P_response_topic))
        json_object_set_new(json, "reply_to", text_to_json(props->response_topic));
    if (mqtt_has(props, MQTT_P_message_expiry)) {
        char ms[32];
        snprintf(ms, sizeof ms, "%llu000", (unsigned long long)props->message_expiry);
        json_object_set_new(json, "expiration", json_string(ms));
    }
    while (mqtt_property_next(&list, &one)) {
        char name[256];
        snprintf(name, sizeof name, "%.*s", SLICE_ARG(one.text));
        if (one.property == MQTT_P_user)
            json_object_set_new(headers, name, text_to_json(one.value));
    }
    if (json_object_size(headers))
        json_object_set(json, "headers", headers);
    json_decref(headers);
    return json;
}

static int talk_next(struct talk *t, int64_t wait_ms, struct talk_message *ret)
{
    struct talk_mqtt *m = of_talk(t);
    enum mqtt_type type;
    union mqtt_fields f;
    int got = packet_next(m, wait_ms, &type, &f);
    if (got <= 0)
        return got;
    if (type != MQTT_publish || f.publish.qos > 1)
        return ended(m, type, &f);
    m->received = f.publish.id;
    json_t *about = json_object();
    json_object_set_new(about, "topic", text_to_json(f.publish.topic));
    json_object_set_new(about, "qos", json_integer(f.publish.qos));
    json_object_set_new(about, "retain", json_boolean(f.publish.retain));
    json_object_set_new(about, "properties", props_json(&f.publish.props));
    *ret = (struct talk_message){.about = about, .body = f.publish.payload};
    return about ? 1 : talk_fail(t, "out of memory");
}

static int talk_done(struct talk *t)
{
    struct talk_mqtt *m = of_talk(t);
    union mqtt_fields f = {.ack = {.id = m->received}};
    return m->received ? put(m, MQTT_puback, &f) : 0;
}

const struct talk_protocol talk_mqtt = {
    .name = "mqtt",
    .port = 1883,
    .tls_port = 8883,
    .retains = true,
    .misused = misused,
    .open = talk_open,
    .publish = talk_publish,
    .flush = talk_flush,
    .subscribe = talk_subscribe,
    .next = talk_next,
    .done = talk_done,
    .close = talk_close,
};
