/* The keys of a part of a stream, see stream_keys.h. Any one thread. */
#include "store/stream_keys.h"

#include "base/check.h"
#include "base/mem.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

bool stream_keys_begin(struct stream_keys *keys, struct os *os, uint32_t places)
{
    CHECK(!keys->places && places >= 8 && (places & (places - 1)) == 0);
    keys->places = mem_zalloc_as(MEM_STORE, places * sizeof keys->places[0]);
    if (!keys->places)
        return false;
    keys->mask = places - 1;
    keys->count = 0;
    keys->max = places - places / 8;
    os->random(os, keys->secret, sizeof keys->secret);
    return true;
}

void stream_keys_end(struct stream_keys *keys)
{
    mem_free_as(MEM_STORE, keys->places);
    *keys = (struct stream_keys){0};
}

bool stream_keys_has_room(const struct stream_keys *keys, uint32_t more)
{
    return more <= keys->max - keys->count;
}

/* Its place, or the free one where it belongs. */
static struct stream_key_place *place_of(const struct stream_keys *keys, struct slice key, XXH128_hash_t *ret_hash)
{
    XXH128_hash_t hash = XXH3_128bits_withSecret(key.ptr, key.len, keys->secret, sizeof keys->secret);
    uint32_t at = (uint32_t)hash.low64 & keys->mask;
    while (keys->places[at].behind && (keys->places[at].high != hash.high64 || keys->places[at].low != hash.low64))
        at = (at + 1) & keys->mask;
    *ret_hash = hash;
    return &keys->places[at];
}

bool stream_keys_put(struct stream_keys *keys, struct slice key, uint64_t offset)
{
    XXH128_hash_t hash;
    struct stream_key_place *place = place_of(keys, key, &hash);
    if (!place->behind) {
        if (keys->count == keys->max)
            return false;
        keys->count++;
        place->high = hash.high64;
        place->low = hash.low64;
    }
    CHECK(offset >= place->behind);
    place->behind = offset + 1;
    return true;
}

uint64_t stream_keys_find(const struct stream_keys *keys, struct slice key)
{
    XXH128_hash_t hash;
    return keys->places ? place_of(keys, key, &hash)->behind - 1 : STREAM_KEY_NONE;
}
