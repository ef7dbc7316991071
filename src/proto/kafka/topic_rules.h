/* topic_rules: what a topic may be called, what may be done with it, and how the core is asked to make one. Any thread. */
#ifndef MILLRACE_PROTO_KAFKA_TOPIC_RULES_H
#define MILLRACE_PROTO_KAFKA_TOPIC_RULES_H

#include "core/broker.h"
#include "proto/kafka/api.h"

#define KAFKA_NAME_MAX 249u

MUST_USE bool kafka_topic_name_good(struct slice name);
/* What is wrong with it, in Kafka's words. */
void kafka_topic_name_fault(struct slice name, char *ret, size_t len);

/* Kafka's bit set of operations for enum stream_verb. */
int32_t kafka_topic_operations(uint8_t verbs);

/* Operands of STREAM_CREATE. configs: arguments as kafka_config_put makes them, all of the topic's; ptr NULL: the defaults'.
 * NULL: no memory. */
MUST_USE struct ask *kafka_topic_ask(struct slice name, uint32_t partitions, struct slice configs, uint32_t flags);

/* What Kafka calls it when a stream cannot be changed so. */
int16_t kafka_stream_error(enum stream_result result);

#endif
