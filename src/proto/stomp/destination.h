/* destination: what stands in a destination header, taken apart, and the way back. Pure functions, any thread.
 *
 * As RabbitMQ's: /queue/NAME, /topic/KEY, /exchange/NAME[/KEY], /amq/queue/NAME, /temp-queue/NAME, /reply-queue/NAME, and a word
 * without slashes is a queue. In names %2F, %25 and what is not printable ASCII are written as %XX (RabbitMQ reads %2F only,
 * so it cannot read back all that it writes).
 */
#ifndef MILLRACE_PROTO_STOMP_DESTINATION_H
#define MILLRACE_PROTO_STOMP_DESTINATION_H

#include "base/types.h"

enum stomp_place {
    STOMP_QUEUE,
    STOMP_TOPIC,
    STOMP_EXCHANGE,
    STOMP_AMQ_QUEUE,
    STOMP_TEMP_QUEUE,
    STOMP_REPLY_QUEUE,
    STOMP_TEMP_TOPIC, /* ActiveMQ's */
    STOMP_PLACES
};

#define STOMP_NAME_MAX 255u

struct stomp_destination {
    enum stomp_place place;
    struct slice name; /* queue, topic or exchange: points into room */
    struct slice key;  /* STOMP_EXCHANGE */
    uint8_t room[2 * STOMP_NAME_MAX];
};

enum stomp_destination_result {
    STOMP_DESTINATION_OK,
    STOMP_DESTINATION_UNKNOWN, /* of no kind */
    STOMP_DESTINATION_INVALID, /* of a kind, and wrong: ret->place, and *ret_rest what follows the kind */
    STOMP_DESTINATION_BLANK,
};

enum stomp_destination_result stomp_destination_parse(struct slice text, struct stomp_destination *ret,
                                                      struct slice *ret_rest);
/* ActiveMQ's: /queue/NAME, /topic/NAME, /temp-queue/NAME, /temp-topic/NAME, with slashes in names and options behind a question
 * mark, which are dropped; and /reply-queue/NAME, which stands where ActiveMQ has /remote-temp-queue/NAME. */
enum stomp_destination_result stomp_destination_parse_activemq(struct slice text, struct stomp_destination *ret,
                                                               struct slice *ret_rest);

/* RabbitMQ's word for a kind in error texts: amqqueue. */
const char *stomp_place_word(enum stomp_place place);
#define STOMP_PLACES_TEXT "/temp-queue, /exchange, /topic, /queue, /amq/queue, /reply-queue/"

/* True: a reply-to as it stands, else it is the name of a queue. */
bool stomp_is_destination(struct slice text);

/* Where a message was published, as a destination: at most STOMP_DESTINATION_MAX bytes. Returns the length. */
#define STOMP_DESTINATION_MAX (16u + 6u * STOMP_NAME_MAX)
size_t stomp_destination_print(uint8_t *ret, struct slice exchange, struct slice key, struct slice topic_exchange);

#endif
