/* map: hash table from byte strings, or from u64 numbers, to pointers.
 *
 * Open addressing with linear probing and backward-shift deletion; keys are loans that live in the value (the caller
 * keeps them alive and unchanged while the entry is in). Keyed with a per-table seed so that peers cannot choose
 * collisions. Life cycle: map_init (no memory yet) → map_put/map_get/map_remove → map_fini. One thread.
 */
#ifndef MILLRACE_BASE_MAP_H
#define MILLRACE_BASE_MAP_H

#include "base/types.h"

struct map_entry {
    uint64_t hash; /* 0: empty */
    struct slice key;
    void *value;
};

struct map {
    struct map_entry *entries;
    uint32_t count, mask; /* entries == NULL: mask 0 */
    uint64_t seed;
};

void map_init(struct map *map, uint64_t seed);
void map_fini(struct map *map);
void *map_get(const struct map *map, struct slice key);
/* Makes sure that the next map_put succeeds. False: no memory. */
MUST_USE bool map_reserve(struct map *map);
/* Adds; the key must not be present. Needs room: map_reserve, or check the answer. */
bool map_put(struct map *map, struct slice key, void *value);
/* Takes out and returns the value, or NULL. */
void *map_take(struct map *map, struct slice key);

static inline struct slice map_key_u64(const uint64_t *number)
{
    return slice_of(number, sizeof *number);
}

/* Visits every value; no changes of the map inside. */
#define MAP_EACH(map, type, var)                                                                                       \
    for (uint32_t var##_i = 0; var##_i <= (map)->mask && (map)->entries; var##_i++)                                    \
        for (type *var = (type *)((map)->entries[var##_i].hash ? (map)->entries[var##_i].value : NULL); var; var = NULL)

#endif
