/* mqtt: what an engine of MQTT and the core say to each other: operands, codes and layouts of the CMD_MQTT_* commands.
 * (docs/decisions/0009 says why it is so; broker.h and commands.def have the rest.)
 *
 * Life of a session, all on its one channel, which has been opened and is in confirm mode:
 *   MQTT_ATTACH → MQTT_RESUME → MQTT_SUBSCRIBE, MQTT_RETAINED, PUBLISH, ACK, MQTT_RELEASED, MQTT_COMPLETED …
 *   → [MQTT_DETACH] → SESSION_CLOSE
 * Each MQTT_* command has one ANSWER, in order (but for MQTT_RETAINED, see there), with the command's origin. None of them fails the channel, except for want of
 * memory; when answer->code is not ERR_NONE nothing has happened. An answer without a block says "yes" (and 0). What an answer promises is
 * true when its lsn is durable.
 *
 * Keys and patterns are those of AMQP ("." between words, "*", "#"); the engine has translated them. Only the last word of a
 * pattern may be "#". A pattern that begins with a wildcard matches no key that begins with "$", here as in MQTT.
 *
 * Handles name subscriptions on their way back to the engine: MQTT_HANDLE_FIRST or more, chosen by the engine, one for each
 * (pattern, group); whoever subscribes again gives a new one. EFF_FANOUT gives each member its handle; EFF_DELIVER has in `consumer`
 * MQTT_OWN_QUEUE for what comes from the client's queue (whichever of its subscriptions it matches: the engine looks), or the
 * handle of a shared subscription.
 */
#ifndef MILLRACE_CORE_MQTT_H
#define MILLRACE_CORE_MQTT_H

#include "base/types.h"

#include <stdatomic.h>

/* MQTT_ATTACH
 *   ask: name   client id, at most MQTT_CLIENT_ID_MAX bytes; empty: the core makes one up (see answer->name)
 *        key    name of the exchange, which must exist and route by topic
 *        args   the will, or empty: u8 flags (enum mqtt_will_flag), u32 delay in seconds, s8 key, s32 AMQP properties (flags
 *               and list), then the body. The core publishes it as the user of this session, when he still may
 *        number expiry in seconds after the connection has ended; MQTT_NEVER: it does not expire
 *        flags  ASK_CLEAN: whatever there was of the client goes first
 *   answer: number 1: there was a session, which goes on; name the client id; fields: what there was:
 *        u32 count, subscriptions: s8 pattern, s8 group, u8 options, u32 identifier; the i-th has the handle
 *        MQTT_HANDLE_FIRST + i from now on.
 *        u32 count, packet ids, each u16, that are released and not completed: PUBREL has to be sent again
 *   codes: ERR_ACCESS_REFUSED (no right to read or write the exchange), ERR_NOT_FOUND (no such exchange), ERR_PRECONDITION_FAILED (id too long, or
 *        the session has a client already), ERR_NOT_ALLOWED (the client belongs to another user), ERR_RESOURCE_ERROR (there are too many sessions)
 *   A session that had the client gets SESSION_KICK with code ERR_TAKEN_OVER before the answer.
 * MQTT_RESUME
 *   number: receive maximum, 1 … MQTT_RECEIVE_MAX. Taps of the subscriptions that were there begin, deliveries from queues begin, also of
 *        those subscriptions that come later. At most so many deliveries are neither acknowledged nor, if released, completed.
 * MQTT_DETACH
 *   number: expiry from now on in seconds; flags ASK_KEEP_WILL: the will is published as if the connection was lost. Else it is forgotten.
 *   Nothing is delivered any more; SESSION_CLOSE follows. Without it SESSION_CLOSE keeps the expiry and the will.
 * MQTT_SUBSCRIBE
 *   ask: name pattern, other share group or empty (without "/"), number: options << 32 | identifier (0: none). command.number: the handle
 *        options are MQTT's byte: QoS, MQTT_NO_LOCAL, MQTT_AS_PUBLISHED; what else stands in it is kept and given back.
 *   answer: number 1: that subscription was there before
 *   codes: ERR_ACCESS_REFUSED, ERR_NOT_FOUND (the exchange has gone), ERR_PRECONDITION_FAILED (pattern or group too long or wrong, not attached),
 *        ERR_RESOURCE_ERROR (too many)
 * MQTT_UNSUBSCRIBE
 *   ask: name pattern, other share group. answer: number 1: it was there
 * MQTT_RETAINED
 *   ask: name pattern; command.number: QoS of the subscription << 32 | its handle
 *   QoS 0: EFF_RETAINED for each value that matches: msg, consumer: the handle, origin: seconds until it expires (0: it does not). They
 *        cost credit as deliveries do. Else each is put into the client's queue, with the header MQTT_HEADER_RETAINED.
 *   The answer comes behind the last; number: how many there were. Several may be under way.
 * MQTT_RELEASED (PUBREL has come), MQTT_COMPLETED (PUBCOMP has come)
 *   number: packet id. answer: number 1: the id was in the set
 *
 * PUBLISH takes three more flags, and none of these on a channel without a client:
 *   ASK_RETAIN  it also becomes the retained value of its key; an empty body: there is none from now on
 *   ASK_ONCE    of QoS 2: the packet id stands in the low half of `origin`. Is it in the client's `received` set, the message is dropped
 *               and confirmed; else it is put there in the same journal record
 *   ASK_SOFT    what else would fail the channel is EFF_NACK with flags: enum nack_why
 *   EFF_CONFIRM has EFFECT_UNROUTED when nobody was there for any of the messages that it confirms (sessions with a client only).
 *   The engine sets the properties: delivery mode 2 for QoS 1 and 2, the header MQTT_HEADER_QOS for 2, MQTT_HEADER_RETAIN (boolean) when RETAIN was set.
 * ACK takes ASK_RELEASING, with the packet id in `origin`, for a PUBREC: the message is done with, its id is in the client's `releasing` set. It has an
 *   ANSWER (origin: the packet id) whose lsn PUBREL waits for. NACK with REQUEUE gives a delivery back, as ever.
 * EFF_DELIVER: count: position in the queue, from which the packet id follows, 1 + count % MQTT_OWN_IDS from the own queue: what comes again has its id. origin: seconds until it expires (0:
 *   it does not). EFFECT_REDELIVERED is DUP. What a shared subscription of QoS 2 is to have with that QoS comes from the client's queue, with the header
 *   MQTT_HEADER_SHARE and the flag MSG_OF_SHARE; who sees the header without the flag sees what somebody else has written.
 * EFF_FANOUT goes to a loop, not to a session: the hub gives it to each member. msg, audience, consumer: how many members there were, number: 1 + the session
 *   of this loop that published it, else 0.
 */

#define MQTT_CLIENT_ID_MAX 230u
#define MQTT_NEVER UINT32_MAX
#define MQTT_OWN_QUEUE 1u
#define MQTT_HANDLE_FIRST 2u
#define MQTT_OWN_IDS                                                                                                   \
    32767u /* packet ids of deliveries from the client's queue; those of shared queues lie above, by place too */
#define MQTT_RECEIVE_MAX 32767u

#define MQTT_QOS_MASK 3u
#define MQTT_NO_LOCAL 4u
#define MQTT_AS_PUBLISHED 8u

#define MQTT_HEADER_QOS "x-mqtt-publish-qos"   /* as RabbitMQ calls it */
#define MQTT_HEADER_RETAIN "x-mqtt-retain"     /* it was published with RETAIN */
#define MQTT_HEADER_RETAINED "x-mqtt-retained" /* it comes because it was retained when somebody subscribed */
#define MQTT_HEADER_SHARE "x-mqtt-share"       /* in a client's queue: the group, "/" and the pattern that it came by */

enum mqtt_will_flag { MQTT_WILL_RETAIN = 1 };

enum nack_why {
    NACK_FULL,    /* a queue refuses publishes, or a hard alarm holds */
    NACK_ACCESS,  /* no right to write */
    NACK_NOWHERE, /* no such exchange */
    NACK_QUOTA, /* too many retained values, or too much of them; nothing has happened. With delivery mode 1 it goes its way without being retained */
    NACK_INVALID, /* properties that cannot be */
};

/* Who of one loop is subscribed with one pattern. Counted: an effect refers to the list as it was, its first `consumer` members.
 * The core adds behind those; one that leaves while an effect is on its way is struck out. A loop reads it and gives it back with
 * audience_unref. */
struct audience_part {
    _Atomic uint32_t refs;
    uint32_t count, max;        /* the core's */
    _Atomic uint64_t members[]; /* session << 32 | handle; AUDIENCE_LEFT: struck out */
};
#define AUDIENCE_LEFT UINT64_MAX
/* Member i of them, and whether it is still one. Any thread. */
static inline bool audience_member(const struct audience_part *part, uint32_t i, uint32_t *ret_session,
                                   uint32_t *ret_handle)
{
    uint64_t member = atomic_load_explicit(&part->members[i], memory_order_relaxed);
    *ret_session = (uint32_t)(member >> 32);
    *ret_handle = (uint32_t)member;
    return member != AUDIENCE_LEFT;
}
/* Any thread. */
void audience_unref(struct audience_part *part);

#endif
