/* resources: things that have configs, and what is wrong with how a request names one. Thread: the loop's. */
#ifndef MILLRACE_PROTO_KAFKA_RESOURCES_H
#define MILLRACE_PROTO_KAFKA_RESOURCES_H

#include "core/stream_admin.h"
#include "proto/kafka/kafka_int.h"

enum kafka_resource { /* as on the wire */
                      KAFKA_RESOURCE_TOPIC = 2,
                      KAFKA_RESOURCE_BROKER = 4,
                      KAFKA_RESOURCE_BROKER_LOGGER = 8,
                      KAFKA_RESOURCE_CLIENT_METRICS = 16,
                      KAFKA_RESOURCE_GROUP = 32,
};

/* Of a topic that was asked for by this name; KAFKA_ERR_NONE: it is there. */
int16_t kafka_row_error(const struct stream_row *row, struct slice name);
/* Of a broker's name, which is its number, or empty for all brokers; the sentence is in the arena. */
int16_t kafka_broker_fault(struct kafka *k, struct kafka_request *r, struct slice name, struct slice *ret_text);

#endif
