/* stomp_world: a script of two STOMP clients beside the world's AMQP client, one of them within a WebSocket. One thread. */
#ifndef MILLRACE_TESTS_SIM_STOMP_WORLD_H
#define MILLRACE_TESTS_SIM_STOMP_WORLD_H

#include "world.h"

/* On a connected world; ends early when the world dies or a client's connection is lost. Without faults (faultless) everything must be
 * answered. */
void stomp_play(struct world *w, bool (*faultless)(const struct world *w));
/* After a start, on a connected world: what a commit with a receipt has sent is there. */
void stomp_check(struct world *w);

#endif
