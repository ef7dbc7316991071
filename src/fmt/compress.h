/* compress: the four codecs of Kafka's record batches, each way, with a bound on what comes out.
 *
 *   gzip    RFC 1952, any number of members (zlib)
 *   snappy  raw, or in the blocks of snappy-java ("xerial"), which is what Kafka's own clients write (libsnappy)
 *   lz4     one LZ4 frame of independent blocks, no dictionary: what Kafka's Java classes read (liblz4)
 *   zstd    RFC 8878, any number of frames with windows up to 128 MiB, no dictionary (libzstd)
 *
 *   compress_new ▸ { compress_unpack | compress_unpack_into | compress_pack }* ▸ compress_free
 *
 * A struct compress holds the libraries' states (made when first needed, then used again, so that a small batch costs no
 * set-up) and one buffer for unpacked bytes. It belongs to one thread at a time; make one per thread. Its memory is mem.h's,
 * except for libsnappy's table while it packs (at most 64 KiB).
 *
 * A bomb costs nothing but its bound: no codec gets room beyond it, neither for output nor for a window of its own.
 * Bytes after the end of the packed stream are damage. A verdict other than COMPRESS_OK has written nothing.
 */
#ifndef MILLRACE_FMT_COMPRESS_H
#define MILLRACE_FMT_COMPRESS_H

#include "base/types.h"
#include "base/writer.h"

/* The numbers are those of a record batch's attributes. */
enum compress_kind {
    COMPRESS_NONE = 0,
    COMPRESS_GZIP = 1,
    COMPRESS_SNAPPY = 2,
    COMPRESS_LZ4 = 3,
    COMPRESS_ZSTD = 4,
    COMPRESS_KINDS,
};

enum compress_verdict {
    COMPRESS_OK,
    COMPRESS_DAMAGED,   /* not of this codec, cut short, a wrong checksum, or bytes left over */
    COMPRESS_TOO_LARGE, /* does not fit into the bound */
    COMPRESS_NO_MEMORY,
};

#define COMPRESS_LEVEL_DEFAULT INT32_MIN /* gzip 6, lz4 0, zstd 3; snappy has no levels */

struct compress;

/* NULL: no memory. */
MUST_USE struct compress *compress_new(void);
/* Takes *z and NULLs it; *z may be NULL. */
void compress_free(struct compress **z);
/* Gives back the buffer and every state; the next call makes them anew. For after a large batch. Ends the last loan. */
void compress_trim(struct compress *z);
/* Bytes of the buffer that compress_unpack keeps for the next call. */
size_t compress_kept_bytes(const struct compress *z);
/* The same with the libraries' states, as far as these say what they hold. */
size_t compress_held_bytes(const struct compress *z);
/* What z has been made to do since it is there, whatever came of it, in about ns. */
uint64_t compress_cost_ns(const struct compress *z);

/* "none", "gzip", "snappy", "lz4", "zstd", as in Kafka's compression.type; NULL for another number. */
const char *compress_name(unsigned kind);
/* The mirror; COMPRESS_KINDS when there is no such name ("uncompressed" is Kafka's other word for "none"). */
enum compress_kind compress_find(struct slice name);

/* Unpacks into z's own buffer, which grows as needed up to max bytes. *ret is a loan until the next call with z. With
 * COMPRESS_NONE it is `in` itself. */
MUST_USE enum compress_verdict compress_unpack(struct compress *z, enum compress_kind kind, struct slice in, size_t max,
                                               struct slice *ret);
/* Unpacks behind what w holds; w's maximum is the bound. w stays as it was, not failed, unless the verdict is
 * COMPRESS_OK. */
MUST_USE enum compress_verdict compress_unpack_into(struct compress *z, enum compress_kind kind, struct slice in,
                                                    struct writer *w);

/* Packs behind what w holds. COMPRESS_TOO_LARGE: it does not fit; it always does where compress_pack_max bytes are free.
 * snappy is written in snappy-java's blocks, lz4 in independent blocks of 64 KiB without checksums, both as Kafka does. */
MUST_USE enum compress_verdict compress_pack(struct compress *z, enum compress_kind kind, int32_t level,
                                             struct slice in, struct writer *w);
/* An upper bound of what compress_pack writes for len bytes. */
size_t compress_pack_max(enum compress_kind kind, size_t len);
/* How long packing len bytes takes, about, in ns; within a factor of three where it matters. */
uint64_t compress_pack_cost_ns(enum compress_kind kind, int32_t level, size_t len);
/* The highest level up to that one with which it takes no longer than cost_max_ns, or the cheapest one. */
int32_t compress_level_within(enum compress_kind kind, int32_t level, size_t len, uint64_t cost_max_ns);

#endif
