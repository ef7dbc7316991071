/* Hash table, see map.h. Grows at 3/4 full by doubling, shrinks at 1/8 by halving (a table that once held a million
 * names must not keep their room for ever). Hash: XXH3 of the key with the table's seed; 0 is kept for "empty". */
#include "base/map.h"

#include "base/check.h"
#include "base/mem.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define MAP_MIN 8u

void map_init(struct map *map, uint64_t seed)
{
    *map = (struct map){.seed = seed};
}

void map_fini(struct map *map)
{
    mem_free(map->entries);
    map_init(map, map->seed);
}

static uint64_t hash_of(const struct map *map, struct slice key)
{
    uint64_t h = XXH3_64bits_withSeed(key.ptr, key.len, map->seed);
    return h ? h : 1;
}

static struct map_entry *find(const struct map *map, struct slice key, uint64_t hash)
{
    if (!map->entries)
        return NULL;
    for (uint32_t i = (uint32_t)hash & map->mask;; i = (i + 1) & map->mask) {
        struct map_entry *e = &map->entries[i];
        if (!e->hash)
            return NULL;
        if (e->hash == hash && slice_equal(e->key, key))
            return e;
    }
}

void *map_get(const struct map *map, struct slice key)
{
    struct map_entry *e = find(map, key, hash_of(map, key));
    return e ? e->value : NULL;
}

static void place(struct map *map, struct map_entry entry)
{
    uint32_t i = (uint32_t)entry.hash & map->mask;
    while (map->entries[i].hash)
        i = (i + 1) & map->mask;
    map->entries[i] = entry;
}

static bool resize(struct map *map, uint32_t size)
{
    struct map old = *map;
    struct map_entry *entries = mem_zalloc((size_t)size * sizeof *entries);
    if (!entries)
        return false;
    map->entries = entries;
    map->mask = size - 1;
    for (uint32_t i = 0; old.entries && i <= old.mask; i++)
        if (old.entries[i].hash)
            place(map, old.entries[i]);
    mem_free(old.entries);
    return true;
}

bool map_reserve(struct map *map)
{
    if (!map->entries)
        return resize(map, MAP_MIN);
    uint32_t size = map->mask + 1;
    return (map->count + 1) * 4ull <= size * 3ull || resize(map, size * 2);
}

bool map_put(struct map *map, struct slice key, void *value)
{
    CHECK(value != NULL);
    if (!map_reserve(map))
        return false;
    place(map, (struct map_entry){.hash = hash_of(map, key), .key = key, .value = value});
    map->count++;
    return true;
}

void *map_take(struct map *map, struct slice key)
{
    struct map_entry *e = find(map, key, hash_of(map, key));
    if (!e)
        return NULL;
    void *value = e->value;
    uint32_t hole = (uint32_t)(e - map->entries);
    for (uint32_t i = (hole + 1) & map->mask; map->entries[i].hash; i = (i + 1) & map->mask) {
        uint32_t home = (uint32_t)map->entries[i].hash & map->mask;
        if (((i - home) & map->mask) >= ((i - hole) & map->mask)) {
            map->entries[hole] = map->entries[i];
            hole = i;
        }
    }
    map->entries[hole] = (struct map_entry){0};
    map->count--;
    if (map->mask + 1 > MAP_MIN && map->count * 8ull < map->mask + 1ull)
        (void)!resize(map, (map->mask + 1) / 2); /* shrinking is a courtesy: without memory the large table stays */
    return value;
}
