/* hashring: choice of one target by consistent hashing, for x-consistent-hash exchanges. Adding or removing a target moves
 * only its share. A target's share is its weight by the sum of all; weight 0 has none. Core thread. */
#ifndef MILLRACE_CORE_HASHRING_H
#define MILLRACE_CORE_HASHRING_H

#include "base/types.h"

#define HASHRING_WEIGHT_MAX 4096

struct hashring;

MUST_USE struct hashring *hashring_new(void);
void hashring_free(struct hashring **ring);
/* id: a stable number or hash of the target's name, so that the choice survives a restart. The same (id, target) added
 * again adds to its weight. False: no memory, nothing has changed. */
MUST_USE bool hashring_add(struct hashring *ring, uint64_t id, unsigned weight, void *target);
void hashring_remove(struct hashring *ring, uint64_t id, unsigned weight, void *target);
void *hashring_pick(const struct hashring *ring, struct slice key); /* NULL when empty */

#endif
