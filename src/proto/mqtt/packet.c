/* Packets and properties, see packet.h.
 *
 * What is wrong is said with the code that Mosquitto gives for it, and where the specification leaves a choice between "malformed"
 * (0x81) and "protocol error" (0x82) its choice is followed: tests/clients/test_mqtt_rows.py compares. A decoder reads to its end and
 * looks once whether the reader has failed; only what could hide behind a failure is looked at in between.
 *
 * A packet is written twice: once into a writer without a buffer, which counts, because the length stands in front and has
 * one to four bytes. The hot packets of the engine (out.c) do without. */
#include "proto/mqtt/packet.h"

#include "base/check.h"
#include "base/utf8.h"

#define IN_will (1u << MQTT_will)
#define IN_connect (1u << MQTT_connect)
#define IN_connack (1u << MQTT_connack)
#define IN_publish (1u << MQTT_publish)
#define IN_puback (1u << MQTT_puback)
#define IN_pubrec (1u << MQTT_pubrec)
#define IN_pubrel (1u << MQTT_pubrel)
#define IN_pubcomp (1u << MQTT_pubcomp)
#define IN_subscribe (1u << MQTT_subscribe)
#define IN_suback (1u << MQTT_suback)
#define IN_unsubscribe (1u << MQTT_unsubscribe)
#define IN_unsuback (1u << MQTT_unsuback)
#define IN_disconnect (1u << MQTT_disconnect)
#define IN_auth (1u << MQTT_auth)

enum {
    CONNECT_RESERVED = 0x01,
    CONNECT_CLEAN = 0x02,
    CONNECT_WILL = 0x04,
    CONNECT_WILL_QOS = 0x18,
    CONNECT_WILL_RETAIN = 0x20,
    CONNECT_PASSWORD = 0x40,
    CONNECT_USER = 0x80,
    LEVEL_BRIDGE = 0x80,
    PUBLISH_RETAIN = 0x01,
    PUBLISH_DUP = 0x08,
};

#define ANY MQTT_FLAGS_ANY
#define CLIENT MQTT_CLIENT
#define SERVER MQTT_SERVER
#define BOTH MQTT_BOTH
#define NEVER MQTT_WHEN_NEVER
#define FIRST MQTT_WHEN_FIRST
#define LOGIN MQTT_WHEN_LOGIN
#define RUNNING MQTT_WHEN_RUNNING
const struct mqtt_row mqtt_rows[MQTT_TYPES] = {
#define PACKET(type, name, flags, who, when, first) [type] = {#name, flags, who, when, first},
#include "proto/mqtt/packets.def"
#undef PACKET
};
#undef ANY
#undef CLIENT
#undef SERVER
#undef BOTH
#undef NEVER
#undef FIRST
#undef LOGIN
#undef RUNNING

const struct mqtt_property_row mqtt_property_rows[MQTT_PROPERTIES] = {
#define PROPERTY(number, title, kind, low, where, more_of_it)                                                          \
    [MQTT_P_##title] = {.name = #title,                                                                                \
                        .packets = where,                                                                              \
                        .at = offsetof(struct mqtt_props, title),                                                      \
                        .id = number,                                                                                  \
                        .type = MQTT_T_##kind,                                                                         \
                        .least = low,                                                                                  \
                        .again = MQTT_##more_of_it},
#include "proto/mqtt/properties.def"
#undef PROPERTY
};

/* By identifier: the row's index + 1. */
static const uint8_t property_of[] = {
#define PROPERTY(id, name, type, least, packets, again) [id] = MQTT_P_##name + 1,
#include "proto/mqtt/properties.def"
#undef PROPERTY
};

/* ---- reasons ---- */

static const struct {
    const char *text;
    uint32_t packets;
    uint8_t connack;
} reasons[256] = {
#define REASON(code, name, connack, packets, text) [code] = {text, packets, connack},
#include "proto/mqtt/reasons.def"
#undef REASON
};

const char *mqtt_reason_text(uint8_t code)
{
    return reasons[code].text;
}

bool mqtt_reason_fits(enum mqtt_type packet, uint8_t code)
{
    return reasons[code].packets >> packet & 1;
}

uint8_t mqtt_reason_connack(uint8_t code)
{
    return reasons[code].connack;
}

/* ---- primitive types ---- */

/* Section 1.5.5: at most four bytes, and as few as will do. */
static uint32_t read_varint(struct reader *r)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t byte = reader_u8(r);
        value |= (uint32_t)(byte & 0x7f) << 7 * i;
        if (byte & 0x80)
            continue;
        if (byte == 0 && i > 0)
            break;
        return r->failed ? 0 : value;
    }
    reader_fail(r);
    return 0;
}

void mqtt_varint_put(struct writer *w, uint32_t v)
{
    if (v > MQTT_REMAINING_MAX)
        w->failed = true;
    writer_varint(w, v);
}

static struct slice read_bytes(struct reader *r)
{
    return reader_take(r, reader_u16(r));
}

static struct slice read_text(struct reader *r)
{
    struct slice s = read_bytes(r);
    if (s.len && (memchr(s.ptr, 0, s.len) || !utf8_valid(s)))
        reader_fail(r);
    return s;
}

void mqtt_text_put(struct writer *w, struct slice s)
{
    if (s.len > UINT16_MAX)
        w->failed = true;
    writer_u16(w, (uint16_t)s.len);
    writer_slice_put(w, s);
}

/* ---- properties ---- */

/* One property; false: there is no such identifier, or it is cut off. */
static bool read_one(struct reader *r, struct mqtt_one *ret)
{
    uint32_t id = read_varint(r);
    if (id >= sizeof property_of || !property_of[id])
        return false;
    *ret = (struct mqtt_one){.property = (enum mqtt_property)(property_of[id] - 1)};
    switch ((enum mqtt_property_type)mqtt_property_rows[ret->property].type) {
    case MQTT_T_flag: ret->number = reader_u8(r); break;
    case MQTT_T_two: ret->number = reader_u16(r); break;
    case MQTT_T_four: ret->number = reader_u32(r); break;
    case MQTT_T_varint: ret->number = read_varint(r); break;
    case MQTT_T_text: ret->text = read_text(r); break;
    case MQTT_T_bytes: ret->text = read_bytes(r); break;
    case MQTT_T_pair:
        ret->text = read_text(r);
        ret->value = read_text(r);
        break;
    }
    return reader_ok(r);
}

static void keep_one(struct mqtt_props *props, const struct mqtt_one *one)
{
    const struct mqtt_property_row *row = &mqtt_property_rows[one->property];
    uint8_t *at = (uint8_t *)props + row->at;
    switch ((enum mqtt_property_type)row->type) {
    case MQTT_T_flag: *at = (uint8_t)one->number; break;
    case MQTT_T_two: *(uint16_t *)(void *)at = (uint16_t)one->number; break;
    case MQTT_T_four:
    case MQTT_T_varint: *(uint32_t *)(void *)at = one->number; break;
    case MQTT_T_text:
    case MQTT_T_bytes:
    case MQTT_T_pair: *(struct slice *)(void *)at = one->text; break;
    }
    props->present |= 1u << one->property;
}

static bool may_repeat(const struct mqtt_property_row *row, enum mqtt_sender by)
{
    return row->again == MQTT_AGAIN || (row->again == MQTT_SERVER_AGAIN && by == MQTT_SERVER);
}

/* What one property breaks of the rules; 0: none. */
static uint8_t fault_of(const struct mqtt_one *one, enum mqtt_type packet, uint32_t present, enum mqtt_sender by)
{
    const struct mqtt_property_row *row = &mqtt_property_rows[one->property];
    bool is_number = row->type <= MQTT_T_varint;
    if (row->again == MQTT_SERVER_AGAIN && packet == MQTT_publish && by != MQTT_SERVER)
        return MQTT_R_protocol_error; /* section 3.3.4 */
    if (!(row->packets >> packet & 1))
        return MQTT_R_malformed; /* section 2.2.2.2 */
    if (present >> one->property & 1 && !may_repeat(row, by))
        return MQTT_R_protocol_error;
    if ((row->type == MQTT_T_flag && one->number > 1) || (is_number && one->number < row->least))
        return MQTT_R_protocol_error;
    return 0;
}

/* A list with its length in front. What cannot be read is worse than what may not be said, wherever it stands. */
static uint8_t read_props(struct reader *r, enum mqtt_type packet, enum mqtt_sender by, struct mqtt_props *ret)
{
    uint8_t fault = 0;
    struct slice all = reader_take(r, read_varint(r));
    struct reader list = reader_of(all);
    memset(ret, 0, sizeof *ret);
    ret->all = all;
    while (list.left) {
        struct mqtt_one one;
        if (!read_one(&list, &one))
            return MQTT_R_malformed;
        if (!fault)
            fault = fault_of(&one, packet, ret->present, by);
        keep_one(ret, &one);
    }
    return reader_ok(r) ? fault : MQTT_R_malformed;
}

bool mqtt_property_next(struct reader *list, struct mqtt_one *ret)
{
    return list->left && read_one(list, ret);
}

void mqtt_property_put(struct writer *w, const struct mqtt_one *one)
{
    const struct mqtt_property_row *row = &mqtt_property_rows[one->property];
    writer_u8(w, row->id);
    switch ((enum mqtt_property_type)row->type) {
    case MQTT_T_flag: writer_u8(w, (uint8_t)one->number); break;
    case MQTT_T_two: writer_u16(w, (uint16_t)one->number); break;
    case MQTT_T_four: writer_u32(w, one->number); break;
    case MQTT_T_varint: mqtt_varint_put(w, one->number); break;
    case MQTT_T_text:
    case MQTT_T_bytes: mqtt_text_put(w, one->text); break;
    case MQTT_T_pair:
        mqtt_text_put(w, one->text);
        mqtt_text_put(w, one->value);
        break;
    }
}

/* Pairs, and what comes again, are in `more`. */
static void put_props_list(struct writer *w, const struct mqtt_props *props)
{
    for (unsigned i = 0; props->present >> i; i++) {
        const struct mqtt_property_row *row = &mqtt_property_rows[i];
        const uint8_t *at = (const uint8_t *)props + row->at;
        struct mqtt_one one = {.property = (enum mqtt_property)i};
        if (!(props->present >> i & 1) || row->type == MQTT_T_pair)
            continue;
        switch ((enum mqtt_property_type)row->type) {
        case MQTT_T_flag: one.number = *at; break;
        case MQTT_T_two: one.number = *(const uint16_t *)(const void *)at; break;
        case MQTT_T_four:
        case MQTT_T_varint: one.number = *(const uint32_t *)(const void *)at; break;
        default: one.text = *(const struct slice *)(const void *)at; break;
        }
        mqtt_property_put(w, &one);
    }
    writer_slice_put(w, props->more);
}

static struct writer counter(void)
{
    return writer_of(NULL, MQTT_REMAINING_MAX);
}

static void put_props(struct writer *w, const struct mqtt_props *props)
{
    struct writer count = counter();
    put_props_list(&count, props);
    mqtt_varint_put(w, (uint32_t)count.len);
    put_props_list(w, props);
}

/* ---- decoding ---- */

enum mqtt_cut mqtt_cut(struct slice bytes, size_t max, struct mqtt_frame *ret)
{
    *ret = (struct mqtt_frame){.len = 0};
    if (bytes.len == 0)
        return MQTT_CUT_MORE;
    ret->type = bytes.ptr[0] >> 4;
    ret->flags = bytes.ptr[0] & 15;
    size_t at = 1;
    uint32_t len = 0;
    for (;; at++) {
        if (at == MQTT_HEAD_MAX)
            return MQTT_CUT_BAD;
        if (at == bytes.len)
            return MQTT_CUT_MORE;
        len |= (uint32_t)(bytes.ptr[at] & 0x7f) << 7 * (at - 1);
        if (!(bytes.ptr[at] & 0x80))
            break;
    }
    at++;
    ret->body_len = len;
    ret->len = at + len;
    if (ret->len > max)
        return MQTT_CUT_LARGE;
    if (bytes.len - at < len)
        return MQTT_CUT_MORE;
    ret->body = slice_of(bytes.ptr + at, len);
    return MQTT_CUT_OK;
}

static uint8_t read_level(struct reader *r, struct mqtt_connect_fields *c)
{
    c->protocol = read_text(r);
    c->version = reader_u8(r);
    if (!reader_ok(r))
        return MQTT_R_malformed;
    bool old = slice_is(c->protocol, "MQIsdp");
    if (!old && !slice_is(c->protocol, "MQTT")) {
        c->version = 0; /* who knows what it means */
        return MQTT_R_protocol_error;
    }
    uint8_t level = c->version & (uint8_t)~LEVEL_BRIDGE;
    if (old ? level != MQTT_3_1 : level != MQTT_3_1_1 && c->version != MQTT_5)
        return MQTT_R_unsupported_version;
    c->bridge = c->version != level;
    c->version = level;
    return 0;
}

/* Section 3.1.2.3 and what follows it. */
static bool flags_fit(const struct mqtt_connect_fields *c, uint8_t flags)
{
    if (flags & CONNECT_RESERVED && c->version != MQTT_3_1)
        return false;
    if (c->has_will && c->will_qos > 2)
        return false;
    if (c->version == MQTT_3_1)
        return c->has_user || !c->has_password;
    if (!c->has_will && flags & (CONNECT_WILL_QOS | CONNECT_WILL_RETAIN))
        return false;
    return c->has_user || !c->has_password || c->version == MQTT_5;
}

static uint8_t decode_connect(struct reader *r, enum mqtt_sender by, struct mqtt_connect_fields *c)
{
    memset(c, 0, sizeof *c);
    uint8_t fault = read_level(r, c), will_fault = 0;
    if (fault)
        return fault;
    uint8_t flags = reader_u8(r);
    c->clean = flags & CONNECT_CLEAN;
    c->has_will = flags & CONNECT_WILL;
    c->will_qos = (flags & CONNECT_WILL_QOS) >> 3;
    c->will_retain = flags & CONNECT_WILL_RETAIN;
    c->has_user = flags & CONNECT_USER;
    c->has_password = flags & CONNECT_PASSWORD;
    c->keep_alive_s = reader_u16(r);
    if (!reader_ok(r))
        return MQTT_R_malformed;
    if (!flags_fit(c, flags))
        return MQTT_R_malformed;
    if (c->version == MQTT_5)
        fault = read_props(r, MQTT_connect, by, &c->props);
    c->client_id = read_text(r);
    if (c->has_will) {
        if (c->version == MQTT_5)
            will_fault = read_props(r, MQTT_will, by, &c->will_props);
        c->will_topic = read_text(r);
        c->will_payload = read_bytes(r);
    }
    if (c->has_user)
        c->user = read_text(r);
    if (c->has_password)
        c->password = read_bytes(r);
    return fault ? fault : will_fault;
}

static uint8_t decode_connack(struct reader *r, uint8_t version, struct mqtt_connack_fields *c)
{
    memset(c, 0, sizeof *c);
    uint8_t flags = reader_u8(r);
    c->session_present = flags & 1;
    c->reason = reader_u8(r);
    if (flags > 1)
        return MQTT_R_malformed;
    if (version != MQTT_5)
        return c->reason > 5 ? MQTT_R_malformed : 0;
    uint8_t fault = read_props(r, MQTT_connack, MQTT_SERVER, &c->props);
    return mqtt_reason_fits(MQTT_connack, c->reason) ? fault : MQTT_R_malformed;
}

static uint8_t decode_publish(struct reader *r, uint8_t flags, uint8_t version, enum mqtt_sender by,
                              struct mqtt_publish_fields *p)
{
    p->qos = flags >> 1 & 3;
    p->dup = flags & PUBLISH_DUP;
    p->retain = flags & PUBLISH_RETAIN;
    p->id = 0;
    p->props.present = 0;
    p->props.all = p->props.more = (struct slice){0};
    if (p->qos == 3)
        return MQTT_R_malformed;
    if (p->qos == 0 && p->dup && by == MQTT_CLIENT)
        return MQTT_R_malformed; /* section 3.3.1.1 */
    p->topic = read_text(r);
    if (p->qos) {
        p->id = reader_u16(r);
        if (reader_ok(r) && p->id == 0)
            return MQTT_R_protocol_error;
    }
    uint8_t fault = 0;
    if (version == MQTT_5) {
        if (reader_ok(r) && r->left && r->at[0] == 0)
            reader_u8(r); /* the usual list, an empty one */
        else
            fault = read_props(r, MQTT_publish, by, &p->props);
    }
    p->payload = reader_rest(r);
    return fault;
}

/* A reason and properties, both of which may be left out at the end (3.4.2.1, 3.14.2.1). */
static uint8_t read_ending(struct reader *r, enum mqtt_type type, uint8_t version, enum mqtt_sender by,
                           uint8_t *ret_reason, struct mqtt_props *ret_props)
{
    *ret_reason = 0;
    memset(ret_props, 0, sizeof *ret_props);
    if (version != MQTT_5 || !reader_ok(r) || r->left == 0)
        return 0;
    *ret_reason = reader_u8(r);
    uint8_t fault = mqtt_reason_fits(type, *ret_reason) ? 0 : MQTT_R_protocol_error;
    if (r->left == 0)
        return fault;
    uint8_t worse = read_props(r, type, by, ret_props);
    return worse ? worse : fault;
}

static uint8_t decode_ack(struct reader *r, enum mqtt_type type, uint8_t version, enum mqtt_sender by,
                          struct mqtt_ack_fields *a)
{
    a->id = reader_u16(r);
    uint8_t fault = read_ending(r, type, version, by, &a->reason, &a->props);
    return reader_ok(r) && a->id == 0 ? MQTT_R_protocol_error : fault;
}

static uint8_t options_fault(uint8_t options, uint8_t version)
{
    if (version != MQTT_5)
        return options > 2 ? MQTT_R_malformed : 0;
    if ((options & MQTT_OPT_QOS) == 3)
        return MQTT_R_malformed;
    if (options & 0xc0)
        return MQTT_R_malformed;
    return (options & MQTT_OPT_HANDLING) == MQTT_OPT_HANDLING ? MQTT_R_protocol_error : 0;
}

static uint8_t decode_filters(struct reader *r, enum mqtt_type type, uint8_t version, enum mqtt_sender by,
                              struct mqtt_list_fields *l)
{
    uint8_t fault = 0;
    memset(l, 0, sizeof *l);
    l->id = reader_u16(r);
    if (l->id == 0)
        return MQTT_R_malformed;
    if (version == MQTT_5)
        fault = read_props(r, type, by, &l->props);
    struct reader all = *r;
    while (r->left) {
        read_text(r);
        uint8_t options = type == MQTT_subscribe ? reader_u8(r) : 0;
        if (!fault && reader_ok(r))
            fault = options_fault(options, version);
        l->count++;
    }
    if (!reader_ok(r) || l->count == 0)
        return MQTT_R_malformed;
    l->list = reader_rest(&all);
    return fault;
}

static uint8_t decode_reasons(struct reader *r, enum mqtt_type type, uint8_t version, struct mqtt_list_fields *l)
{
    uint8_t fault = 0;
    memset(l, 0, sizeof *l);
    l->id = reader_u16(r);
    if (version == MQTT_5)
        fault = read_props(r, type, MQTT_SERVER, &l->props);
    if (version == MQTT_5 || type == MQTT_suback)
        l->list = reader_rest(r);
    l->count = (uint32_t)l->list.len;
    for (size_t i = 0; i < l->list.len; i++)
        if (!mqtt_reason_fits(type, l->list.ptr[i]) || (version != MQTT_5 && l->list.ptr[i] > 0x80))
            fault = MQTT_R_malformed;
    return fault;
}

uint8_t mqtt_decode(const struct mqtt_frame *frame, uint8_t version, enum mqtt_sender by, union mqtt_fields *ret)
{
    const struct mqtt_row *row = &mqtt_rows[frame->type];
    struct reader r = reader_of(frame->body);
    uint8_t fault = 0;
    if (!row->name || !(row->who & by) || (frame->type != MQTT_connect && version < row->first))
        return MQTT_R_protocol_error;
    if (row->flags != MQTT_FLAGS_ANY && frame->flags != row->flags)
        return MQTT_R_malformed;
    switch ((enum mqtt_type)frame->type) {
    case MQTT_connect: fault = decode_connect(&r, by, &ret->connect); break;
    case MQTT_connack: fault = decode_connack(&r, version, &ret->connack); break;
    case MQTT_publish: fault = decode_publish(&r, frame->flags, version, by, &ret->publish); break;
    case MQTT_puback:
    case MQTT_pubrec:
    case MQTT_pubrel:
    case MQTT_pubcomp: fault = decode_ack(&r, (enum mqtt_type)frame->type, version, by, &ret->ack); break;
    case MQTT_subscribe:
    case MQTT_unsubscribe: fault = decode_filters(&r, (enum mqtt_type)frame->type, version, by, &ret->list); break;
    case MQTT_suback:
    case MQTT_unsuback: fault = decode_reasons(&r, (enum mqtt_type)frame->type, version, &ret->list); break;
    case MQTT_disconnect:
    case MQTT_auth:
        fault = read_ending(&r, (enum mqtt_type)frame->type, version, by, &ret->end.reason, &ret->end.props);
        break;
    default: break; /* PINGREQ and PINGRESP are empty */
    }
    if (fault == MQTT_R_unsupported_version ||
        (frame->type == MQTT_connect && fault == MQTT_R_protocol_error && r.left))
        return fault; /* nobody knows what the rest would have meant */
    if (!reader_ok(&r) || (!fault && r.left))
        return MQTT_R_malformed;
    return fault;
}

bool mqtt_filter_next(struct reader *list, struct slice *ret_filter, uint8_t *ret_options)
{
    if (!list->left)
        return false;
    *ret_filter = read_bytes(list);
    if (ret_options)
        *ret_options = reader_u8(list);
    return reader_ok(list);
}

/* ---- encoding ---- */

static void put_connect(struct writer *w, const struct mqtt_connect_fields *c)
{
    mqtt_text_put(w, c->protocol);
    writer_u8(w, (uint8_t)(c->version | (c->bridge ? LEVEL_BRIDGE : 0)));
    writer_u8(w, (uint8_t)((c->clean ? CONNECT_CLEAN : 0) | (c->has_will ? CONNECT_WILL : 0) | c->will_qos << 3 |
                           (c->will_retain ? CONNECT_WILL_RETAIN : 0) | (c->has_password ? CONNECT_PASSWORD : 0) |
                           (c->has_user ? CONNECT_USER : 0)));
    writer_u16(w, c->keep_alive_s);
    if (c->version == MQTT_5)
        put_props(w, &c->props);
    mqtt_text_put(w, c->client_id);
    if (c->has_will) {
        if (c->version == MQTT_5)
            put_props(w, &c->will_props);
        mqtt_text_put(w, c->will_topic);
        mqtt_text_put(w, c->will_payload);
    }
    if (c->has_user)
        mqtt_text_put(w, c->user);
    if (c->has_password)
        mqtt_text_put(w, c->password);
}

static void put_publish(struct writer *w, uint8_t version, const struct mqtt_publish_fields *p)
{
    mqtt_text_put(w, p->topic);
    if (p->qos)
        writer_u16(w, p->id);
    if (version == MQTT_5)
        put_props(w, &p->props);
    writer_slice_put(w, p->payload);
}

/* Left out where they say nothing. */
static void put_ending(struct writer *w, uint8_t version, uint8_t reason, const struct mqtt_props *props)
{
    bool list = props->present || props->more.len;
    if (version != MQTT_5 || (reason == 0 && !list))
        return;
    writer_u8(w, reason);
    if (list)
        put_props(w, props);
}

static void put_list(struct writer *w, enum mqtt_type type, uint8_t version, const struct mqtt_list_fields *l)
{
    writer_u16(w, l->id);
    if (version == MQTT_5)
        put_props(w, &l->props);
    if (version == MQTT_5 || type != MQTT_unsuback)
        writer_slice_put(w, l->list);
}

static void put_body(struct writer *w, enum mqtt_type type, uint8_t version, const union mqtt_fields *f)
{
    switch (type) {
    case MQTT_connect: put_connect(w, &f->connect); break;
    case MQTT_connack:
        writer_u8(w, f->connack.session_present);
        writer_u8(w, f->connack.reason);
        if (version == MQTT_5)
            put_props(w, &f->connack.props);
        break;
    case MQTT_publish: put_publish(w, version, &f->publish); break;
    case MQTT_puback:
    case MQTT_pubrec:
    case MQTT_pubrel:
    case MQTT_pubcomp:
        writer_u16(w, f->ack.id);
        put_ending(w, version, f->ack.reason, &f->ack.props);
        break;
    case MQTT_subscribe:
    case MQTT_suback:
    case MQTT_unsubscribe:
    case MQTT_unsuback: put_list(w, type, version, &f->list); break;
    case MQTT_disconnect:
    case MQTT_auth: put_ending(w, version, f->end.reason, &f->end.props); break;
    default: break;
    }
}

size_t mqtt_encoded_len(enum mqtt_type type, uint8_t version, const union mqtt_fields *fields)
{
    struct writer count = counter();
    put_body(&count, type, version, fields);
    return 1 + mqtt_varint_len((uint32_t)count.len) + count.len;
}

void mqtt_encode(struct writer *w, enum mqtt_type type, uint8_t version, const union mqtt_fields *fields)
{
    CHECK(mqtt_rows[type].name);
    struct writer count = counter();
    put_body(&count, type, version, fields);
    uint8_t flags = mqtt_rows[type].flags;
    if (type == MQTT_publish)
        flags = (uint8_t)((fields->publish.dup ? PUBLISH_DUP : 0) | fields->publish.qos << 1 | fields->publish.retain);
    if (count.failed)
        w->failed = true;
    writer_u8(w, (uint8_t)(type << 4 | flags));
    mqtt_varint_put(w, (uint32_t)count.len);
    put_body(w, type, version, fields);
}
