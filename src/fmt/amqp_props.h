/* amqp_props: the basic class's content properties (AMQP 0-9-1 section 4.2.6): property flags and property list.
 *
 * "Raw" is what stands in a content header after the body size. Slices point into raw. Pure functions, any thread.
 */
#ifndef MILLRACE_FMT_AMQP_PROPS_H
#define MILLRACE_FMT_AMQP_PROPS_H

#include "base/types.h"
#include "base/writer.h"

enum amqp_prop {
    AMQP_CONTENT_TYPE = 1 << 15,
    AMQP_CONTENT_ENCODING = 1 << 14,
    AMQP_HEADERS = 1 << 13,
    AMQP_DELIVERY_MODE = 1 << 12,
    AMQP_PRIORITY = 1 << 11,
    AMQP_CORRELATION_ID = 1 << 10,
    AMQP_REPLY_TO = 1 << 9,
    AMQP_EXPIRATION = 1 << 8,
    AMQP_MESSAGE_ID = 1 << 7,
    AMQP_TIMESTAMP = 1 << 6,
    AMQP_TYPE = 1 << 5,
    AMQP_USER_ID = 1 << 4,
    AMQP_APP_ID = 1 << 3,
    AMQP_CLUSTER_ID = 1 << 2,
};

struct amqp_props {
    uint16_t present; /* enum amqp_prop */
    uint8_t delivery_mode, priority;
    uint64_t timestamp;
    struct slice content_type, content_encoding, headers /* content */, correlation_id, reply_to, expiration,
        message_id, type, user_id, app_id, cluster_id;
};

/* False: damaged, unknown flag bits, bytes left over, or headers that are no valid table. */
MUST_USE bool amqp_props_parse(struct slice raw, struct amqp_props *ret);
/* Delivery mode 1 or 2 if present, expiration a number of milliseconds up to ten years (RabbitMQ's rules). ret_expiration_ms:
 * -1 when there is none. False: why, unless it is NULL, says what is wrong in RabbitMQ's words. */
MUST_USE bool amqp_props_acceptable(const struct amqp_props *props, int64_t *ret_expiration_ms, char *why,
                                    size_t why_len);
/* Writes what is present. */
void amqp_props_write(struct writer *w, const struct amqp_props *props);
/* An upper bound of what amqp_props_write needs. */
size_t amqp_props_len_max(const struct amqp_props *props);

#endif
