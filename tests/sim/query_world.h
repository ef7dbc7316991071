/* query_world: a script of continuous SQL: an engine on the SQL port keeps statements and makes steps, a client asks. One thread. */
#ifndef MILLRACE_TESTS_SIM_QUERY_WORLD_H
#define MILLRACE_TESTS_SIM_QUERY_WORLD_H

#include "world.h"

/* In a world with_streams and with_sql. Each step of a query puts one row into a queue, and some records into a stream, while the journal is
 * compacted. Ends early when the world dies. Without faults (faultless) everything must be answered. */
void world_queries_play(struct world *w, bool (*faultless)(const struct world *w));
/* After a start: no step that was known to be accepted is missing, and there are as many rows as steps. */
void world_queries_check(struct world *w);

#endif
