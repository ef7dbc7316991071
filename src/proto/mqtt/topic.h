/* topic: topic names and filters (MQTT 5.0 section 4.7), and what they are as routing keys and binding keys of AMQP.
 *
 * A topic becomes a key by changing places, byte by byte: `/` with `.`, and `+` with `*`; `#` stays. So `a/b` is `a.b` and the
 * filter `a/+/#` is `a.*.#`, as in RabbitMQ, but a dot within a level has a place of its own: `v1.2/x` is `v1/2.x`. No two topics have
 * one key, nothing gets longer, and the way back is the same way. What is left are keys of other protocols that no topic can be:
 * with `*` or `#` in them (`+` and `#` may not stand in a topic), with bytes that are no UTF-8, or empty ones. A client sees
 * these bytes as %XX, and an empty key as %00.
 *
 * Pure functions, any thread.
 */
#ifndef MILLRACE_PROTO_MQTT_TOPIC_H
#define MILLRACE_PROTO_MQTT_TOPIC_H

#include "base/types.h"

#define MQTT_KEY_MAX 255u                        /* the core's */
#define MQTT_TOPIC_OF_KEY_MAX (3 * MQTT_KEY_MAX) /* every byte as %XX */

/* Not empty, no wildcard; that it is UTF-8 without U+0000 the decoder has seen. */
bool mqtt_topic_valid(struct slice topic);
/* Not empty, `#` only as the last level, `+` only as a whole one. */
bool mqtt_filter_valid(struct slice filter);

struct mqtt_filter {
    struct slice group, filter;
    bool shared;
};
/* $share/GROUP/FILTER taken apart (section 4.8.2), anything else as it is. False: invalid. */
bool mqtt_filter_parse(struct slice text, struct mqtt_filter *ret);

/* Either way; to has room for as many bytes, and may be the same place. */
void mqtt_topic_swap(uint8_t *to, struct slice from);
/* What a client is told; returns its length. */
size_t mqtt_topic_of_key(struct slice key, uint8_t to[MQTT_TOPIC_OF_KEY_MAX]);

/* Both as keys. A pattern that begins with a wildcard does not match what begins with `$` (section 4.7.2). */
bool mqtt_pattern_matches(struct slice pattern, struct slice key);

#endif
