/* kafka_world_int: what both scripts of Kafka clients ask. One thread. */
#ifndef MILLRACE_TESTS_SIM_KAFKA_WORLD_INT_H
#define MILLRACE_TESTS_SIM_KAFKA_WORLD_INT_H

#include "kafka_guest.h"
#include "kafka_world.h"

#define KAFKA_TX_TOPIC "transactions"

/* Of one partition. False: refused, or lost. */
bool kafka_make_topic(struct guest *g, const char *name, const char *compression, struct kafka_uuid *ret);
/* Records with the values first, first + 1, … */
void kafka_ask_produce(struct guest *g, const char *topic, unsigned first, unsigned count);
/* The base offset; -1: refused, or lost. */
int64_t kafka_produced(struct guest *g);
/* How many they are, each of them the value that was produced at its offset (both are the same here) and in front of the end. */
int kafka_read_records(struct guest *g, struct slice records, int64_t end);
/* A record in the transactions' topic, and its commit. False: refused, or lost. */
bool kafka_play_transaction(struct guest *g);

#endif
