/* props: the headers of a SEND as AMQP properties, and AMQP properties as the headers of a MESSAGE. One table for both ways.
 *
 * docs/mapping-stomp.md is that table for readers. Pure functions but for the clock that is given, any thread.
 */
#ifndef MILLRACE_PROTO_STOMP_PROPS_H
#define MILLRACE_PROTO_STOMP_PROPS_H

#include "base/writer.h"
#include "core/message.h"
#include "proto/stomp/frame.h"

/* What a SEND says of its message. */
struct stomp_sent {
    int64_t expiration_ms; /* -1: none */
    uint8_t flags;         /* enum msg_flag */
    uint8_t priority;
};

/* How headers are read that a dialect has its own meaning for. */
struct stomp_props_rules {
    bool activemq;         /* `expires`: when, in ms since 1970 (0: never); AMQ_SCHEDULED_DELAY: ms from now */
    wall_t wall;           /* now */
    struct slice reply_to; /* stands for what the frame says; ptr NULL: that */
};

/* At most so many bytes are written. */
size_t stomp_props_max(const struct stomp_frame *frame, const struct stomp_props_rules *rules);
/* Property flags and property list. NULL, or what is wrong: a sentence of the static kind, with the header in ret_name. */
const char *stomp_props_read(const struct stomp_frame *frame, const struct stomp_props_rules *rules, struct writer *w,
                             struct stomp_sent *ret, struct slice *ret_name);

/* The header lines of a message's properties, escaped; without those that the frame has of its own. */
size_t stomp_props_lines_max(struct slice props);
uint8_t *stomp_props_lines(uint8_t *at, struct slice props, enum stomp_version version);

#endif
