/* stream_keys: the last offset of each key of a part of a stream, in bounded memory.
 *
 * stream_keys_begin ▸ { stream_keys_has_room, stream_keys_put }* ▸ stream_keys_find … ▸ stream_keys_end. Keys are known by 128
 * bits of XXH3 with a secret of their own for each map, so that nobody can make two that are taken for one. Open addressing,
 * 24 bytes a place. Any one thread.
 */
#ifndef MILLRACE_STORE_STREAM_KEYS_H
#define MILLRACE_STORE_STREAM_KEYS_H

#include "base/types.h"
#include "os/os.h"

#define STREAM_KEYS_PLACES (512u * 1024) /* 12 MiB */
#define STREAM_KEYS_SECRET 192u
#define STREAM_KEY_NONE UINT64_MAX

struct stream_key_place {
    uint64_t high, low;
    uint64_t behind; /* offset + 1; 0: free */
};

struct stream_keys {
    struct stream_key_place *places; /* NULL: no map */
    uint32_t mask, count, max;
    uint8_t secret[STREAM_KEYS_SECRET];
};

/* places: a power of two. Zero-initialised, or ended, before. False: no memory. */
MUST_USE bool stream_keys_begin(struct stream_keys *keys, struct os *os, uint32_t places);
void stream_keys_end(struct stream_keys *keys);
bool stream_keys_has_room(const struct stream_keys *keys, uint32_t more);
/* Offsets ascend. False: it is full, and the key is not in it. */
bool stream_keys_put(struct stream_keys *keys, struct slice key, uint64_t offset);
/* STREAM_KEY_NONE: it is not known. */
uint64_t stream_keys_find(const struct stream_keys *keys, struct slice key);

#endif
