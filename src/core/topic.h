/* topic: the index of a topic exchange: binding patterns with * (one word) and # (zero or more) to targets.
 *
 * A trie by words; matching cost is bounded by the number of trie nodes reached with memo (never combinatorial: "#.#.#"
 * is linear per level). Words are the parts between dots; the empty key is one empty set of words, "a." has an empty
 * second word. Targets are opaque pointers, each (pattern, target) counted once per topic_add. Core thread.
 */
#ifndef MILLRACE_CORE_TOPIC_H
#define MILLRACE_CORE_TOPIC_H

#include "base/map.h"

struct topic;

MUST_USE struct topic *topic_new(uint64_t seed);
void topic_free(struct topic **topic);
/* False: no memory; nothing has changed then. */
MUST_USE bool topic_add(struct topic *topic, struct slice pattern, void *target);
void topic_remove(struct topic *topic, struct slice pattern, void *target);
/* Calls each once per matching (pattern, target); the same target may come several times by different patterns. Allocates
 * nothing for keys of up to 128 words; longer keys match only patterns by the general path. */
void topic_match(const struct topic *topic, struct slice key, void (*each)(void *arg, void *target), void *arg);

#endif
