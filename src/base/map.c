/* Hash table, see map.h. Grows at 13/16 full by doubling, shrinks at 1/8 by halving (a table that once held a million
 * names must not keep their room for ever). Hash: the low half of XXH3 of the key with the table's seed; 0 is kept for
 * "empty". Hashes, keys and values lie in arrays of their own: a probe reads sixteen hashes with one cache line, and looks at a key
 * only where the hash is right. */
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

void map_init_keyed(struct map *map, uint64_t seed, struct slice (*key_of)(const void *value))
{
    *map = (struct map){.seed = seed, .key_of = key_of};
}

void map_fini(struct map *map)
{
    mem_free(map->values);
    *map = (struct map){.seed = map->seed, .key_of = map->key_of};
}

static uint32_t hash_of(const struct map *map, struct slice key)
{
    uint32_t h = (uint32_t)XXH3_64bits_withSeed(key.ptr, key.len, map->seed);
    return h ? h : 1;
}

static struct slice key_at(const struct map *map, uint32_t i)
{
    return map->key_of ? map->key_of(map->values[i]) : map->keys[i];
}

/* Where the key is, or UINT32_MAX. */
static uint32_t find(const struct map *map, struct slice key)
{
    if (!map->values)
        return UINT32_MAX;
    uint32_t hash = hash_of(map, key);
    for (uint32_t i = hash & map->mask;; i = (i + 1) & map->mask) {
        if (!map->hashes[i])
            return UINT32_MAX;
        if (map->hashes[i] == hash && slice_equal(key_at(map, i), key))
            return i;
    }
}

void *map_get(const struct map *map, struct slice key)
{
    uint32_t i = find(map, key);
    return i != UINT32_MAX ? map->values[i] : NULL;
}

static void set(struct map *map, uint32_t i, uint32_t hash, struct slice key, void *value)
{
    map->hashes[i] = hash;
    map->values[i] = value;
    if (!map->key_of)
        map->keys[i] = key;
}

static void place(struct map *map, uint32_t hash, struct slice key, void *value)
{
    uint32_t i = hash & map->mask;
    while (map->hashes[i])
        i = (i + 1) & map->mask;
    set(map, i, hash, key, value);
}

static bool resize(struct map *map, uint32_t size)
{
    struct map old = *map;
    size_t values_len = (size_t)size * sizeof *map->values;
    size_t keys_len = map->key_of ? 0 : (size_t)size * sizeof *map->keys;
    char *block = mem_zalloc(values_len + keys_len + (size_t)size * sizeof *map->hashes);
    if (!block)
        return false;
    map->values = (void **)(void *)block;
    map->keys = (struct slice *)(void *)(block + values_len);
    map->hashes = (uint32_t *)(void *)(block + values_len + keys_len);
    map->mask = size - 1;
    for (uint32_t i = 0; old.values && i <= old.mask; i++)
        if (old.hashes[i])
            place(map, old.hashes[i], map->key_of ? (struct slice){0} : old.keys[i], old.values[i]);
    mem_free(old.values);
    return true;
}

bool map_reserve(struct map *map)
{
    if (!map->values)
        return resize(map, MAP_MIN);
    uint32_t size = map->mask + 1;
    return (map->count + 1) * 16ull <= size * 13ull || resize(map, size * 2);
}

bool map_reserve_many(struct map *map, uint32_t more)
{
    uint64_t size = map->values ? map->mask + 1ull : MAP_MIN;
    while ((map->count + (uint64_t)more) * 16 > size * 13)
        size *= 2;
    return size <= UINT32_MAX / 2 && ((map->values && size == map->mask + 1ull) || resize(map, (uint32_t)size));
}

void *map_swap(struct map *map, struct slice key, void *value)
{
    CHECK(value != NULL && map->key_of);
    uint32_t at = find(map, key);
    if (at == UINT32_MAX)
        return NULL;
    void *old = map->values[at];
    map->values[at] = value;
    return old;
}

bool map_put(struct map *map, struct slice key, void *value)
{
    CHECK(value != NULL);
    if (!map_reserve(map))
        return false;
    place(map, hash_of(map, key), key, value);
    map->count++;
    return true;
}

void *map_take(struct map *map, struct slice key)
{
    uint32_t hole = find(map, key);
    if (hole == UINT32_MAX)
        return NULL;
    void *value = map->values[hole];
    for (uint32_t i = (hole + 1) & map->mask; map->hashes[i]; i = (i + 1) & map->mask) {
        uint32_t home = map->hashes[i] & map->mask;
        if (((i - home) & map->mask) >= ((i - hole) & map->mask)) {
            set(map, hole, map->hashes[i], map->key_of ? (struct slice){0} : map->keys[i], map->values[i]);
            hole = i;
        }
    }
    set(map, hole, 0, (struct slice){0}, NULL);
    map->count--;
    if (map->mask + 1 > MAP_MIN && map->count * 8ull < map->mask + 1ull)
        (void)!resize(map, (map->mask + 1) / 2); /* shrinking is a courtesy: without memory the large table stays */
    return value;
}

void *map_any(const struct map *map, uint32_t *cursor)
{
    if (!map->count)
        return NULL;
    for (*cursor &= map->mask; !map->hashes[*cursor]; *cursor = (*cursor + 1) & map->mask)
        ;
    return map->values[*cursor];
}
