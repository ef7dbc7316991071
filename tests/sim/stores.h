/* stores: scripts over what lies outside the journal, and over what is made again from it: streams, pages that get holes and
 * move, the keys of a queue that deduplicates, delayed messages, retries. One thread.
 */
#ifndef MILLRACE_TESTS_SIM_STORES_H
#define MILLRACE_TESTS_SIM_STORES_H

#include "world.h"

/* Each on a connected world with furniture; ends early when the world dies. */

/* Files of streams are filled, sealed, synced, fed from, read and dropped. */
void stores_streams(struct world *w);
/* Pages get holes, counts of returns and transient messages, and move; meanwhile somebody copies the journal. */
void stores_pages(struct world *w);
/* More delayed messages than fit are due one after the other. */
void stores_delays(struct world *w);
/* More messages than fit are given back, and wait for their retry. */
void stores_retries(struct world *w);
/* Keys are accepted while the journal is compacted. */
void stores_keys(struct world *w, unsigned count);

#endif
