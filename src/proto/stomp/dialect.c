/* Where ActiveMQ's clients mean something else than RabbitMQ's: destinations, and what a SUBSCRIBE asks for.
 *
 * | ActiveMQ | here |
 * |---|---|
 * | activemq.prefetchSize (1000, topics 32766) | prefetch of the consumer |
 * | activemq.exclusive | an exclusive consumer: a second one is refused, where ActiveMQ lets it wait |
 * | activemq.priority | the consumer's priority |
 * | activemq.noLocal, no-local | taken and ignored, as AMQP 0-9-1 brokers do |
 * | activemq.subscriptionName, durable-subscription-name | a durable queue, named after it and the client-id of CONNECT |
 * | wildcards * and > of a topic | * and # |
 * | Consumer.NAME.VirtualTopic.TOPIC | a queue that is bound to the topic |
 * | browser, wildcards in queues | refused: they would take what nobody meant to take |
 *
 * Thread: the loop's. */
#include "fmt/amqp_table.h"
#include "proto/stomp/stomp_int.h"

#define PREFETCH_QUEUE 1000u
#define PREFETCH_TOPIC 32766u

static bool is_activemq(const struct stomp *s)
{
    return s->options->dialect == STOMP_AS_ACTIVEMQ;
}

enum stomp_destination_result stomp_destination_read(const struct stomp *s, struct slice text,
                                                     struct stomp_destination *ret, struct slice *ret_rest)
{
    if (is_activemq(s))
        return stomp_destination_parse_activemq(text, ret, ret_rest);
    enum stomp_destination_result result = stomp_destination_parse(text, ret, ret_rest);
    return ret->place == STOMP_TEMP_TOPIC && result != STOMP_DESTINATION_BLANK ? STOMP_DESTINATION_UNKNOWN : result;
}

bool stomp_subscription_name(const struct stomp *s, const struct stomp_frame *frame, struct slice *ret)
{
    return is_activemq(s) && (stomp_header_find(frame, "activemq.subscriptionName", ret) ||
                              stomp_header_find(frame, "durable-subscription-name", ret) ||
                              stomp_header_find(frame, "activemq.subcriptionName", ret)); /* an old slip of theirs */
}

void stomp_pattern(const struct stomp *s, struct slice key, uint8_t *room, struct slice *ret)
{
    *ret = key;
    if (!is_activemq(s) || key.len > STOMP_NAME_MAX)
        return;
    for (size_t i = 0; i < key.len; i++) {
        bool alone = (i == 0 || key.ptr[i - 1] == '.') && (i + 1 == key.len || key.ptr[i + 1] == '.');
        room[i] = key.ptr[i] == '>' && alone ? '#' : key.ptr[i];
    }
    *ret = slice_of(room, key.len);
}

bool stomp_virtual_topic(const struct stomp *s, struct slice queue, struct slice *ret)
{
    static const char middle[] = ".VirtualTopic.";
    if (!is_activemq(s) || !slice_starts(queue, "Consumer."))
        return false;
    const uint8_t *at = memmem(queue.ptr, queue.len, middle, sizeof middle - 1);
    if (!at || at < queue.ptr + 9)
        return false;
    *ret = slice_of(at + 1, queue.len - (size_t)(at + 1 - queue.ptr));
    return true;
}

static bool has_wildcard(struct slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] == '*' || name.ptr[i] == '>')
            return true;
    return false;
}

static bool header_is_true(const struct stomp_frame *frame, const char *name)
{
    struct slice value;
    return stomp_header_find(frame, name, &value) && (slice_is(value, "true") || slice_is(value, "TRUE"));
}

/* False: an error was said. */
static bool number_header(struct stomp *s, const struct stomp_frame *frame, const char *name, uint32_t max,
                          uint32_t *ret)
{
    struct slice text;
    uint32_t value = 0;
    if (!stomp_header_find(frame, name, &text))
        return true;
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = text.ptr[i] - (unsigned)'0';
        value = digit > 9 || value > max ? max + 1 : value * 10 + digit;
    }
    if (text.len == 0 || value > max) {
        stomp_error(s, WRONG_HEADER, "'%s' must be a number up to %u\n", name, max);
        return false;
    }
    *ret = value;
    return true;
}

bool stomp_activemq_wishes(struct stomp *s, const struct stomp_frame *frame, const struct stomp_destination *d,
                           struct stomp_wishes *ret)
{
    bool topic = d->place == STOMP_TOPIC || d->place == STOMP_TEMP_TOPIC;
    uint32_t priority = 0;
    if (!is_activemq(s))
        return true;
    if (header_is_true(frame, "browser")) {
        stomp_error(s, WRONG_HEADER, "'browser' is not supported: it would take the messages\n");
        return false;
    }
    if (d->place == STOMP_QUEUE && has_wildcard(d->name)) {
        stomp_error(s, WRONG_DESTINATION, "'%.*s': queues have no wildcards here, topics have\n", SLICE_ARG(d->name));
        return false;
    }
    ret->prefetch = topic ? PREFETCH_TOPIC : PREFETCH_QUEUE;
    ret->exclusive = header_is_true(frame, "activemq.exclusive");
    if (!number_header(s, frame, "activemq.prefetchSize", UINT16_MAX, &ret->prefetch) ||
        !number_header(s, frame, "activemq.priority", 127, &priority))
        return false;
    if (priority)
        amqp_put_int(ret->args, "x-priority", (int32_t)priority);
    return true;
}
