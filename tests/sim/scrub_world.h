/* scrub_world: the background scrub over the world's data folder, a round at a time, asking the world's core as main does.
 * One thread, but for one that is started idle.
 */
#ifndef MILLRACE_TESTS_SIM_SCRUB_WORLD_H
#define MILLRACE_TESTS_SIM_SCRUB_WORLD_H

#include "store/scrub.h"
#include "world.h"

struct scrub_report {
    int err;
    struct scrub_stats stats;
};

/* A round between two turns. */
struct scrub_report world_scrub(struct world *w);

#endif
