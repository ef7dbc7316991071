/* peek: what a recovered broker holds, read from the core's own structures for the complete comparison. */
#ifndef MILLRACE_TESTS_SIM_PEEK_H
#define MILLRACE_TESTS_SIM_PEEK_H

#include "core/broker.h"

/* Every message of the queue in vhost "/" by position; an empty name: the hidden queue of delayed messages. False: there
 * is no such queue. */
bool peek_queue(struct broker *broker, const char *name, void (*each)(void *arg, struct slice body), void *arg);

#endif
