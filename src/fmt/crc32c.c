/* CRC-32C by isa-l, which picks the processor's instructions when it is first called. */
#include "fmt/crc32c.h"

#include <isa-l/crc.h>

#define CHUNK (1u << 30) /* the library's length is an int */

uint32_t crc32c(uint32_t crc, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    crc = ~crc;
    while (len) {
        size_t n = len < CHUNK ? len : CHUNK;
        crc = crc32_iscsi((unsigned char *)at, (int)n, crc);
        at += n;
        len -= n;
    }
    return ~crc;
}
