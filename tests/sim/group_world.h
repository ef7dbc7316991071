/* group_world: a script of consumer groups, by commands on a port of their own, and what must be there after a restart. One thread. */
#ifndef MILLRACE_TESTS_SIM_GROUP_WORLD_H
#define MILLRACE_TESTS_SIM_GROUP_WORLD_H

#include "world.h"

/* Two members of a group agree, commit and leave, while another group's offsets move on, and the journal is compacted. Ends early
 * when the world dies. */
void world_groups_play(struct world *w);
/* After a start: no offset that was known to be committed is missing. */
void world_groups_check(struct world *w);

#endif
