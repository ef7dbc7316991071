/* crc32c: CRC-32C (Castagnoli), the checksum of Kafka's record batches, of the journal and of segments.
 *
 * crc32c(0, bytes, len) is the checksum itself; crc32c(crc, more, n) goes on from it. Pure function, any thread.
 */
#ifndef MILLRACE_FMT_CRC32C_H
#define MILLRACE_FMT_CRC32C_H

#include "base/types.h"

uint32_t crc32c(uint32_t crc, const void *bytes, size_t len);

#endif
