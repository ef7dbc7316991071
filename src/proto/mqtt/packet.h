/* packet: one decoder and one encoder for every control packet and property of MQTT 3.1 (level 3), 3.1.1 (4) and 5.0 (5);
 * they walk the tables packets.def, properties.def and reasons.def.
 *
 * Decoding  mqtt_cut ▸ mqtt_decode ▸ use what it says; all slices point into the packet
 * Encoding  fill a union mqtt_fields ▸ mqtt_encode
 *
 * Text is checked here (UTF-8 without U+0000, section 1.5.4), and so is everything else that a packet shows by itself; whether
 * it may come now, and topic names and filters (topic.h), is the engine's affair. Pure functions, any thread.
 */
#ifndef MILLRACE_PROTO_MQTT_PACKET_H
#define MILLRACE_PROTO_MQTT_PACKET_H

#include "base/reader.h"
#include "base/writer.h"

#define MQTT_REMAINING_MAX 268435455u /* of a variable byte integer, section 1.5.5 */
#define MQTT_HEAD_MAX 5u

enum { MQTT_3_1 = 3, MQTT_3_1_1 = 4, MQTT_5 = 5 };

enum mqtt_type {
    MQTT_will, /* no packet, but it has properties of its own */
#define PACKET(type, name, flags, who, when, first) MQTT_##name = type,
#include "proto/mqtt/packets.def"
#undef PACKET
    MQTT_TYPES = 16
};

enum mqtt_reason {
#define REASON(code, name, connack, packets, text) MQTT_R_##name = code,
#include "proto/mqtt/reasons.def"
#undef REASON
};

enum mqtt_sender { MQTT_CLIENT = 1, MQTT_SERVER = 2, MQTT_BOTH = 3 };
enum mqtt_when { MQTT_WHEN_NEVER, MQTT_WHEN_FIRST, MQTT_WHEN_LOGIN, MQTT_WHEN_RUNNING };
#define MQTT_FLAGS_ANY 0xff

struct mqtt_row {
    const char *name; /* NULL: there is no such packet */
    uint8_t flags;    /* or MQTT_FLAGS_ANY */
    uint8_t who;      /* enum mqtt_sender */
    uint8_t when;     /* enum mqtt_when */
    uint8_t first;    /* version */
};
extern const struct mqtt_row mqtt_rows[MQTT_TYPES];

/* The sentence of a reason code; NULL: there is no such code. */
const char *mqtt_reason_text(uint8_t code);
bool mqtt_reason_fits(enum mqtt_type packet, uint8_t code);
/* The return code of a CONNACK in MQTT 3.x; 0: it has none. */
uint8_t mqtt_reason_connack(uint8_t code);

/* ---- properties ---- */

#define MQTT_WIRE_flag uint8_t
#define MQTT_WIRE_two uint16_t
#define MQTT_WIRE_four uint32_t
#define MQTT_WIRE_varint uint32_t
#define MQTT_WIRE_text struct slice
#define MQTT_WIRE_bytes struct slice
#define MQTT_WIRE_pair struct slice /* of no use: walk `all` */

/* MQTT_P_x: the index of the row, whose bit is set in `present`. */
enum mqtt_property {
#define PROPERTY(id, name, type, least, packets, again) MQTT_P_##name,
#include "proto/mqtt/properties.def"
#undef PROPERTY
    MQTT_PROPERTIES
};

struct mqtt_props {
    uint32_t present;
#define PROPERTY(id, name, type, least, packets, again) MQTT_WIRE_##type name;
#include "proto/mqtt/properties.def"
#undef PROPERTY
    struct slice
        all; /* decoded: the whole list. Of what comes again the last stands in its field, and all of it here */
    struct slice more; /* to be encoded: a list that is written as it is, behind what is present */
};

static inline bool mqtt_has(const struct mqtt_props *props, enum mqtt_property property)
{
    return props->present >> property & 1;
}

/* props.name = value, and it is present. */
#define MQTT_SET(props, property, value) ((props)->property = (value), (props)->present |= 1u << MQTT_P_##property)

struct mqtt_property_row {
    const char *name;
    uint32_t packets; /* bits 1 << enum mqtt_type */
    uint16_t at;      /* in struct mqtt_props */
    uint8_t id, type, least, again;
};
enum mqtt_property_type {
    MQTT_T_flag,
    MQTT_T_two,
    MQTT_T_four,
    MQTT_T_varint,
    MQTT_T_text,
    MQTT_T_bytes,
    MQTT_T_pair,
};
enum mqtt_again { MQTT_ONCE, MQTT_AGAIN, MQTT_SERVER_AGAIN };
extern const struct mqtt_property_row mqtt_property_rows[MQTT_PROPERTIES];

/* The next one of a list that has been decoded; false at its end. */
struct mqtt_one {
    enum mqtt_property property;
    uint32_t number;
    struct slice text, value; /* text: of a text, bytes, and the name of a pair */
};
bool mqtt_property_next(struct reader *list, struct mqtt_one *ret);
void mqtt_property_put(struct writer *w, const struct mqtt_one *one);

/* ---- packets ---- */

struct mqtt_connect_fields {
    struct slice protocol;
    uint8_t version; /* 3, 4, 5, or what stands there when the protocol is not known: then nothing else is decoded */
    bool bridge;     /* the highest bit of the level, by which bridges ask for what subscription options say in 5.0 */
    bool clean, has_will, will_retain, has_user, has_password;
    uint8_t will_qos;
    uint16_t keep_alive_s;
    struct slice client_id, will_topic, will_payload, user, password;
    struct mqtt_props props, will_props;
};

struct mqtt_connack_fields {
    bool session_present;
    uint8_t reason; /* 3.x: the return code */
    struct mqtt_props props;
};

struct mqtt_publish_fields {
    uint8_t qos;
    bool dup, retain;
    uint16_t id; /* 0 with QoS 0 */
    struct slice topic, payload;
    struct mqtt_props props;
};

/* PUBACK, PUBREC, PUBREL, PUBCOMP */
struct mqtt_ack_fields {
    uint16_t id;
    uint8_t reason;
    struct mqtt_props props;
};

/* SUBSCRIBE, UNSUBSCRIBE: `list` to be walked with mqtt_filter_next; SUBACK, UNSUBACK: one reason each. */
struct mqtt_list_fields {
    uint16_t id;
    uint32_t count;
    struct slice list;
    struct mqtt_props props;
};

/* DISCONNECT, AUTH */
struct mqtt_end_fields {
    uint8_t reason;
    struct mqtt_props props;
};

union mqtt_fields {
    struct mqtt_connect_fields connect;
    struct mqtt_connack_fields connack;
    struct mqtt_publish_fields publish;
    struct mqtt_ack_fields ack;
    struct mqtt_list_fields list;
    struct mqtt_end_fields end;
};

enum mqtt_option { MQTT_OPT_QOS = 3, MQTT_OPT_NO_LOCAL = 4, MQTT_OPT_AS_PUBLISHED = 8, MQTT_OPT_HANDLING = 0x30 };

struct mqtt_frame {
    uint8_t type, flags;
    struct slice body;
    size_t len; /* of all of it */
    uint32_t body_len;
};
enum mqtt_cut { MQTT_CUT_OK, MQTT_CUT_MORE, MQTT_CUT_BAD, MQTT_CUT_LARGE };

/* The packet at the beginning of the bytes. MORE: it is not all there (type, flags and, if that much is there, body_len and len are
 * filled in all the same, else len is 0). LARGE: all of it is longer than max. */
enum mqtt_cut mqtt_cut(struct slice bytes, size_t max, struct mqtt_frame *ret);

/* 0, or the reason code that is the fault. by: who is known to have sent it (a client's packets may have less). */
MUST_USE uint8_t mqtt_decode(const struct mqtt_frame *frame, uint8_t version, enum mqtt_sender by,
                             union mqtt_fields *ret);

/* The next filter of a SUBSCRIBE (options as on the wire) or UNSUBSCRIBE (ret_options NULL). */
bool mqtt_filter_next(struct reader *list, struct slice *ret_filter, uint8_t *ret_options);

/* The whole packet. The flags of a PUBLISH come from its fields. */
void mqtt_encode(struct writer *w, enum mqtt_type type, uint8_t version, const union mqtt_fields *fields);
/* How long that is. */
size_t mqtt_encoded_len(enum mqtt_type type, uint8_t version, const union mqtt_fields *fields);

static inline size_t mqtt_varint_len(uint32_t v)
{
    return v < 128 ? 1 : v < 16384 ? 2 : v < 2097152 ? 3 : 4;
}
void mqtt_varint_put(struct writer *w, uint32_t v);
void mqtt_text_put(struct writer *w, struct slice s); /* two bytes of length before it */

#endif
