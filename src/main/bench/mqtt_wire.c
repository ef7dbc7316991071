/* See bench/mqtt_wire.h. Packets are parsed in the socket's buffer; nothing is copied on the way in. */
#include "mqtt_wire.h"

#include "command.h"
#include "proto/mqtt/packet.h"
#include "stamp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOGIN_BYTES = 2048, FILTER_BYTES_MAX = 512, SUBSCRIBE_ID = 1, KEPT_S = 86400, LENGTH_BYTES_MAX = 4 };

static const char *reason_text(const struct bench_mqtt_wire *w, bool connack, uint8_t reason)
{
    static const char *const RETURN_CODES[] = {"success",
                                               "unacceptable protocol version",
                                               "identifier rejected",
                                               "server unavailable",
                                               "bad user name or password",
                                               "not authorized"};
    if (w->version < MQTT_5 && connack)
        return reason < ARRAY_LEN(RETURN_CODES) ? RETURN_CODES[reason] : "a return code that MQTT does not have";
    const char *text = mqtt_reason_text(reason);
    return text != NULL ? text : "a reason that MQTT does not have";
}

int bench_mqtt_unasked(struct bench_mqtt_wire *w, const struct bench_mqtt_packet *p)
{
    const char *name = mqtt_rows[p->first >> 4].name;
    return client_socket_fail(&w->socket, "the server sent %s, for which nobody asked",
                              name != NULL ? name : "no MQTT");
}

/* ---- packets ---- */

int bench_mqtt_next(struct bench_mqtt_wire *w, struct bench_mqtt_packet *ret)
{
    struct client_socket *s = &w->socket;
    const uint8_t *bytes = s->in + s->in_at;
    size_t have = s->in_end - s->in_at, at = 1, len = 0;
    for (unsigned shift = 0;; shift += 7) {
        if (at >= have)
            return 0;
        uint8_t byte = bytes[at++];
        len |= (size_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            break;
        if (at > LENGTH_BYTES_MAX)
            return client_socket_fail(s, "the server sent a length of five bytes: this is no MQTT");
    }
    if (have - at < len) {
        if (at + len > s->in_cap && client_socket_reserve(s, at + len) != 0)
            return -1;
        return 0;
    }
    *ret = (struct bench_mqtt_packet){.first = bytes[0], .body = bytes + at, .len = len};
    s->in_at += at + len;
    if (bench_mqtt_type(ret) == BENCH_MQTT_DISCONNECT) {
        w->open = false;
        return client_socket_fail(s, "the server ends the connection: %s",
                                  reason_text(w, false, len > 0 ? ret->body[0] : 0));
    }
    return 1;
}

int bench_mqtt_receive(struct bench_mqtt_wire *w, struct bench_mqtt_packet *ret)
{
    int got;
    while ((got = bench_mqtt_next(w, ret)) == 0) {
        ssize_t n = client_socket_fill(&w->socket);
        if (n < 0)
            return -1;
        if (n == 0)
            return client_socket_fail(&w->socket, "no answer within %d s: is this an MQTT listener without TLS?",
                                      BENCH_ANSWER_TIMEOUT_S);
    }
    return got < 0 ? -1 : 0;
}

static uint16_t get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static int malformed(struct bench_mqtt_wire *w, const char *what)
{
    return client_socket_fail(&w->socket, "the server sent a malformed %s", what);
}

int bench_mqtt_message_read(struct bench_mqtt_wire *w, const struct bench_mqtt_packet *p,
                            struct bench_mqtt_message *ret)
{
    struct reader r = reader_of(slice_of(p->body, p->len));
    *ret = (struct bench_mqtt_message){.qos = p->first >> 1 & 3, .dup = (p->first & 8) != 0, .retain = p->first & 1};
    ret->topic = reader_take(&r, reader_u16(&r));
    if (ret->qos > 0)
        ret->id = reader_u16(&r);
    if (w->version == MQTT_5) {
        size_t len = 0;
        uint8_t byte = 0x80;
        for (unsigned shift = 0; byte >= 0x80 && shift < 7 * LENGTH_BYTES_MAX; shift += 7) {
            byte = reader_u8(&r);
            len |= (size_t)(byte & 0x7f) << shift;
        }
        reader_take(&r, len);
        if (byte >= 0x80)
            return malformed(w, "PUBLISH");
    }
    ret->payload = reader_rest(&r);
    if (!reader_ok(&r) || ret->qos > 2 || (ret->qos > 0 && ret->id == 0))
        return malformed(w, "PUBLISH");
    return 0;
}

int bench_mqtt_ack_read(struct bench_mqtt_wire *w, const struct bench_mqtt_packet *p, uint16_t *ret_id,
                        uint8_t *ret_reason)
{
    if (p->len < 2 || (w->version < MQTT_5 && p->len != 2))
        return malformed(w, mqtt_rows[p->first >> 4].name);
    *ret_id = get_u16(p->body);
    *ret_reason = p->len > 2 ? p->body[2] : 0;
    return 0;
}

/* ---- opening ---- */

static size_t connect_put(uint8_t *ret, size_t cap, const struct bench_mqtt_server *server,
                          const struct bench_mqtt_session *session)
{
    union mqtt_fields f = {.connect = {.protocol = slice_str("MQTT"),
                                       .version = server->version,
                                       .clean = session->clean,
                                       .client_id = slice_str(session->client_id),
                                       .has_user = server->user != NULL,
                                       .has_password = server->user != NULL && server->password != NULL,
                                       .user = slice_str(server->user != NULL ? server->user : ""),
                                       .password = slice_str(server->password != NULL ? server->password : "")}};
    if (server->version == MQTT_5 && session->kept)
        MQTT_SET(&f.connect.props, session_expiry, KEPT_S);
    if (server->version < MQTT_5)
        f.connect.clean = session->clean && !session->kept; /* there it says both: begins anew, and ends with us */
    struct writer w = writer_of(ret, cap);
    mqtt_encode(&w, MQTT_connect, server->version, &f);
    return writer_ok(&w) ? w.len : 0;
}

int bench_mqtt_open_ask(struct bench_mqtt_wire *w, const struct bench_mqtt_server *server,
                        const struct bench_mqtt_session *session, size_t in_bytes, struct slice more)
{
    uint8_t bytes[LOGIN_BYTES];
    *w = (struct bench_mqtt_wire){.socket = {.fd = -1}, .version = server->version, .receive_max = UINT16_MAX};
    size_t len = connect_put(bytes, sizeof(bytes), server, session);
    if (len == 0 || len + more.len > sizeof(bytes))
        return client_socket_fail(&w->socket, "user name, password or client id is too long");
    if (more.len > 0)
        memcpy(bytes + len, more.ptr, more.len);
    if (client_socket_connect(&w->socket, server->host, server->port) != 0 ||
        client_socket_reserve(&w->socket, in_bytes) != 0 ||
        (server->tls && client_socket_tls(&w->socket, server->host, NULL) != 0))
        return -1;
    return client_socket_send(&w->socket, bytes, len + more.len);
}

int bench_mqtt_open_answer(struct bench_mqtt_wire *w)
{
    struct bench_mqtt_packet p;
    union mqtt_fields f;
    if (bench_mqtt_receive(w, &p) != 0)
        return -1;
    struct mqtt_frame frame = {
        .type = p.first >> 4, .flags = p.first & 15, .body = slice_of(p.body, p.len), .body_len = (uint32_t)p.len};
    if (bench_mqtt_type(&p) != BENCH_MQTT_CONNACK)
        return bench_mqtt_unasked(w, &p);
    if (mqtt_decode(&frame, w->version, MQTT_SERVER, &f) != 0)
        return malformed(w, "CONNACK");
    if (f.connack.reason != 0)
        return client_socket_fail(&w->socket, "the server refuses: %s", reason_text(w, true, f.connack.reason));
    w->session_present = f.connack.session_present;
    if (mqtt_has(&f.connack.props, MQTT_P_receive_maximum))
        w->receive_max = f.connack.props.receive_maximum;
    if (mqtt_has(&f.connack.props, MQTT_P_server_keep_alive))
        w->keep_alive_s = f.connack.props.server_keep_alive;
    w->open = true;
    return 0;
}

int bench_mqtt_open(struct bench_mqtt_wire *w, const struct bench_mqtt_server *server,
                    const struct bench_mqtt_session *session, size_t in_bytes)
{
    int failed = bench_mqtt_open_ask(w, server, session, in_bytes, slice_of(NULL, 0));
    return failed != 0 ? failed : bench_mqtt_open_answer(w);
}

size_t bench_mqtt_subscribe_put(uint8_t *ret, size_t cap, uint8_t version, const char *filter, uint8_t qos)
{
    uint8_t bytes[FILTER_BYTES_MAX];
    struct writer list = writer_of(bytes, sizeof(bytes)), w = writer_of(ret, cap);
    mqtt_text_put(&list, slice_str(filter));
    writer_u8(&list, qos);
    union mqtt_fields f = {.list = {.id = SUBSCRIBE_ID, .count = 1, .list = writer_slice(&list)}};
    mqtt_encode(&w, MQTT_subscribe, version, &f);
    return writer_ok(&list) && writer_ok(&w) ? w.len : 0;
}

int bench_mqtt_subscribe_answer(struct bench_mqtt_wire *w, uint8_t qos)
{
    struct bench_mqtt_packet p;
    if (bench_mqtt_receive(w, &p) != 0)
        return -1;
    if (bench_mqtt_type(&p) != BENCH_MQTT_SUBACK)
        return bench_mqtt_unasked(w, &p);
    if (p.len < 3 || get_u16(p.body) != SUBSCRIBE_ID)
        return malformed(w, "SUBACK");
    uint8_t reason = p.body[p.len - 1]; /* the only one, behind what properties there are */
    if (reason >= 0x80)
        return client_socket_fail(&w->socket, "the server refuses the subscription: %s", reason_text(w, false, reason));
    if (reason < qos)
        return client_socket_fail(&w->socket, "the server grants QoS %u, not %u", reason, qos);
    return 0;
}

int bench_mqtt_subscribe(struct bench_mqtt_wire *w, const char *filter, uint8_t qos)
{
    uint8_t bytes[LOGIN_BYTES];
    size_t len = bench_mqtt_subscribe_put(bytes, sizeof(bytes), w->version, filter, qos);
    if (len == 0)
        return client_socket_fail(&w->socket, "the filter is too long");
    int failed = client_socket_send(&w->socket, bytes, len);
    return failed != 0 ? failed : bench_mqtt_subscribe_answer(w, qos);
}

int bench_mqtt_ping(struct bench_mqtt_wire *w)
{
    static const uint8_t PING[] = {0xc0, 0};
    return client_socket_send(&w->socket, PING, sizeof(PING));
}

void bench_mqtt_close(struct bench_mqtt_wire *w)
{
    static const uint8_t GOODBYE[] = {0xe0, 0};
    if (w->open && w->socket.fd >= 0)
        (void)client_socket_send(&w->socket, GOODBYE, sizeof(GOODBYE)); /* if it is gone, it is gone */
    w->open = false;
    client_socket_close(&w->socket);
}

/* ---- templates ---- */

int bench_mqtt_template_init(struct bench_mqtt_template *t, const struct bench_mqtt_shape *shape)
{
    struct bench_stamp stamp = {.run_id = shape->run_id, .producer = shape->publisher};
    *t = (struct bench_mqtt_template){0};
    if (shape->payload_bytes > MQTT_REMAINING_MAX / 2)
        return -1;
    uint8_t *payload = bench_zeroed(1, shape->payload_bytes);
    union mqtt_fields f = {.publish = {.qos = shape->qos,
                                       .retain = shape->retain,
                                       .id = shape->qos > 0,
                                       .topic = slice_str(shape->topic),
                                       .payload = slice_of(payload, shape->payload_bytes)}};
    memset(payload, 'x', shape->payload_bytes);
    if (shape->payload_bytes >= sizeof(stamp))
        memcpy(payload, &stamp, sizeof(stamp));
    size_t len = mqtt_encoded_len(MQTT_publish, shape->version, &f);
    t->bytes = bench_zeroed(1, len);
    struct writer w = writer_of(t->bytes, len);
    mqtt_encode(&w, MQTT_publish, shape->version, &f);
    free(payload);
    if (!writer_ok(&w) || w.len != len) {
        bench_mqtt_template_fini(t);
        return -1;
    }
    t->len = len;
    t->payload_at = len - shape->payload_bytes;
    if (shape->qos > 0)
        t->id_at = t->payload_at - sizeof(uint16_t) - (shape->version == MQTT_5); /* one byte: no properties */
    return 0;
}

void bench_mqtt_template_fini(struct bench_mqtt_template *t)
{
    free(t->bytes);
    *t = (struct bench_mqtt_template){0};
}

void bench_mqtt_template_put(const struct bench_mqtt_template *t, uint8_t *ret, uint16_t id, uint64_t seq,
                             uint64_t sent_ns)
{
    memcpy(ret, t->bytes, t->len);
    if (t->id_at > 0) {
        ret[t->id_at] = (uint8_t)(id >> 8);
        ret[t->id_at + 1] = (uint8_t)id;
    }
    if (t->len - t->payload_at >= BENCH_STAMP_BYTES) {
        uint8_t *stamp = ret + t->payload_at;
        memcpy(stamp + offsetof(struct bench_stamp, seq), &seq, sizeof(seq));
        memcpy(stamp + offsetof(struct bench_stamp, sent_ns), &sent_ns, sizeof(sent_ns));
    }
}
