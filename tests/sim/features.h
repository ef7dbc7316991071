/* features: a script over parts of AMQP that the simulator's random client leaves out: topics, bindings between exchanges, a
 * hash ring, long arguments and headers, BCC, counted returns, a policy, more deliveries than a ring holds. One thread.
 */
#ifndef MILLRACE_TESTS_SIM_FEATURES_H
#define MILLRACE_TESTS_SIM_FEATURES_H

#include "world.h"

/* On a connected world with furniture; ends early when the world dies. Its last step makes the broker close a channel. */
void features_play(struct world *w);

#endif
