/* kafka_world: a script of a Kafka client beside the world's AMQP client: topics, batches, fetches that wait, offsets. One thread.
 */
#ifndef MILLRACE_TESTS_SIM_KAFKA_WORLD_H
#define MILLRACE_TESTS_SIM_KAFKA_WORLD_H

#include "world.h"

/* On a connected world with streams; ends early when the world dies or the client's connection is lost. What is answered must be
 * right, whatever has failed; without faults (faultless) everything must be answered. */
void kafka_play(struct world *w, bool (*faultless)(const struct world *w));

#endif
