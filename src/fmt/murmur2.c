/* MurmurHash2 by Austin Appleby (public domain), 32 bits, as org.apache.kafka.common.utils.Utils.murmur2 has it. */
#include "fmt/murmur2.h"

#include <endian.h>

#define SEED 0x9747b28cu
#define M 0x5bd1e995u

uint32_t murmur2(struct slice key)
{
    const uint8_t *at = key.ptr;
    size_t left = key.len;
    uint32_t h = SEED ^ (uint32_t)key.len;
    for (; left >= 4; at += 4, left -= 4) {
        uint32_t k;
        memcpy(&k, at, sizeof k);
        k = le32toh(k) * M;
        k = (k ^ k >> 24) * M;
        h = h * M ^ k;
    }
    for (size_t i = left; i > 0; i--)
        h ^= (uint32_t)at[i - 1] << (8 * (i - 1));
    if (left)
        h *= M;
    h = (h ^ h >> 13) * M;
    return h ^ h >> 15;
}
