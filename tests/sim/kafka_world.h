/* kafka_world: scripts of a Kafka client beside the world's AMQP client: topics, batches, fetches that wait, offsets, transactions;
 * and of one that logs in by SCRAM, fetches in a session, is a member of a share group, has its batches compressed and administers. One thread.
 */
#ifndef MILLRACE_TESTS_SIM_KAFKA_WORLD_H
#define MILLRACE_TESTS_SIM_KAFKA_WORLD_H

#include "world.h"

/* On a connected world with streams; ends early when the world dies or the client's connection is lost. What is answered must be
 * right, whatever has failed; without faults (faultless) everything must be answered. */
void kafka_play(struct world *w, bool (*faultless)(const struct world *w));
void kafka_play_readers(struct world *w, bool (*faultless)(const struct world *w));

#endif
