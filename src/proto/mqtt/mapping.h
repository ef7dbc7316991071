/* mapping: what a publisher says of a message besides its topic and payload, in MQTT's words and in AMQP's. The table is in
 * mapping.c and, for people, in docs/mapping.md.
 *
 * In:  mqtt_given_make ▸ msg_new with its raw properties ▸ mqtt_given_fini
 * Out: mqtt_content_read ▸ its QoS and mark ▸ mqtt_content_put, once per message, into the property list of MQTT 5.0
 *
 * A message that was published by MQTT comes back by MQTT as it was, the order of user properties too. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_MQTT_MAPPING_H
#define MILLRACE_PROTO_MQTT_MAPPING_H

#include "core/message.h"
#include "fmt/amqp_props.h"
#include "proto/mqtt/packet.h"

#define MQTT_USER_PROPERTIES_MAX 500u /* of a publish; an AMQP table has room for twice as many fields */
#define MQTT_PROPERTIES_MAX 65535u    /* bytes of a publish's property list */
#define MQTT_EXPIRY_MAX_S 315360000u  /* ten years, RabbitMQ's limit; what is longer becomes that */

/* A publish's properties as AMQP's. */
struct mqtt_given {
    struct slice raw;
    int64_t expiration_ms; /* -1: none */
    uint8_t flags;         /* enum msg_flag */
    uint8_t priority;
    uint8_t *block; /* when `room` is too small */
    uint8_t room[768];
};
/* 0, or the reason code why not (quota: too many, or no memory). */
MUST_USE uint8_t mqtt_given_make(struct mqtt_given *ret, uint8_t qos, bool retain, const struct mqtt_props *props);
void mqtt_given_fini(struct mqtt_given *given);

enum mqtt_mark {
    MQTT_NOT_RETAINED,
    MQTT_PUBLISHED_RETAINED, /* published with RETAIN just now */
    MQTT_STORED_RETAINED,    /* a stored value for a new subscription */
};

struct mqtt_content {
    uint8_t qos;  /* with which it was published */
    uint8_t mark; /* enum mqtt_mark */
    struct slice
        share; /* the shared subscription that it came to the client's queue by: group, "/", pattern; empty: none */
    struct amqp_props props;
};
void mqtt_content_read(const struct msg *msg, struct mqtt_content *ret);
/* Properties that a PUBLISH has whoever gets it; expiry_s: what is left, 0: none. */
void mqtt_content_put(struct writer *w, const struct mqtt_content *content, uint32_t expiry_s);
/* An upper bound of what that writes. */
size_t mqtt_content_len_max(const struct mqtt_content *content);

#endif
