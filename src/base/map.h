/* map: hash table from byte strings, or from u64 numbers, to pointers.
 *
 * Open addressing with linear probing and backward-shift deletion; keys are loans that live in the value (the caller
 * keeps them alive and unchanged while the entry is in). Keyed with a per-table seed so that peers cannot choose
 * collisions. Life cycle: map_init (no memory yet) → map_put/map_get/map_remove → map_fini. One thread.
 * A place costs 28 bytes, or 12 in a map that finds the keys in the values (map_init_keyed), where there are many.
 */
#ifndef MILLRACE_BASE_MAP_H
#define MILLRACE_BASE_MAP_H

#include "base/types.h"

struct map {
    void **values; /* the one block of memory, also of what follows; NULL: none yet, mask 0 */
    struct slice *keys;
    uint32_t *hashes; /* 0: empty */
    uint32_t count, mask;
    uint64_t seed;
    struct slice (*key_of)(const void *value); /* NULL: keys are kept */
};

void map_init(struct map *map, uint64_t seed);
/* key_of answers the key that a value was put with. */
void map_init_keyed(struct map *map, uint64_t seed, struct slice (*key_of)(const void *value));
void map_fini(struct map *map);
void *map_get(const struct map *map, struct slice key);
/* Makes sure that the next map_put succeeds. False: no memory. */
MUST_USE bool map_reserve(struct map *map);
/* The same for so many. */
MUST_USE bool map_reserve_many(struct map *map, uint32_t more);
/* In a map of map_init_keyed: value takes the place of the one with the same key, which is returned; NULL: there is none. */
void *map_swap(struct map *map, struct slice key, void *value);
/* Adds; the key must not be present. Needs room: map_reserve, or check the answer. */
bool map_put(struct map *map, struct slice key, void *value);
/* Takes out and returns the value, or NULL. */
void *map_take(struct map *map, struct slice key);
/* Some value at *cursor or after it, wrapping; NULL: the map is empty. To take out all of them, begin with a cursor of 0
 * and pass it on: together that is one walk of the table, whereas MAP_EACH for every victim would be one walk each. */
void *map_any(const struct map *map, uint32_t *cursor);

static inline struct slice map_key_u64(const uint64_t *number)
{
    return slice_of(number, sizeof *number);
}

/* Visits every value; no changes of the map inside. */
#define MAP_EACH(map, type, var)                                                                                       \
    for (uint32_t var##_i = 0; var##_i <= (map)->mask && (map)->values; var##_i++)                                     \
        for (type *var = (type *)((map)->hashes[var##_i] ? (map)->values[var##_i] : NULL); var; var = NULL)

#endif
