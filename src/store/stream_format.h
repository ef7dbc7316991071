/* stream_format: the bytes of stream files: the file's header, index and trailer, and a message as a record and back.
 *
 * The batches themselves are fmt/record_batch's. Format: docs/formats/streams.md section 1. Nothing that was read is
 * believed before its checksum, and behind it no field before it was checked. Pure functions; any thread, messages on the
 * owner of the slab heap.
 */
#ifndef MILLRACE_STORE_STREAM_FORMAT_H
#define MILLRACE_STORE_STREAM_FORMAT_H

#include "core/stream_job.h"
#include "fmt/record_batch.h"
#include "journal/layout.h"

#define STREAM_NAME_LEN 47u /* at most: 16 hex digits, '-', 4, '-', 16, and of a generation '-', 8 */
#define STREAM_INDEX_ENTRY 16u
#define STREAM_TRAILER 64u
#define STREAM_POSITION_MAX 0x7fffffffu
#define STREAM_INDEX_MAX 8192u /* entries of one file */

/* ------------------------------------------------------------------------------------------------------- names, header */

struct stream_head {
    uint8_t uuid[LAYOUT_UUID_LEN];
    uint64_t stream;
    uint32_t partition, generation;
    uint64_t base;
    wall_t wall_ms;
};

struct stream_name {
    uint64_t stream, base;
    uint32_t partition, generation;
};

/* ret has room for STREAM_NAME_LEN + 1. */
void stream_name_put(char *ret, const struct stream_name *name);
/* False: no such name. */
bool stream_name_get(const char *text, struct stream_name *ret);

void stream_head_put(uint8_t block[LAYOUT_BLOCK], const struct stream_head *head);
enum layout_verdict stream_head_get(const uint8_t block[LAYOUT_BLOCK], struct stream_head *ret);

/* ------------------------------------------------------------------------------------------------------ index, trailer */

struct stream_mark {   /* one entry of an index */
    uint32_t delta;    /* offset of the batch, less the file's base */
    uint32_t position; /* of the batch */
    wall_t max_before; /* highest timestamp of all records before it; 0: none */
};

struct stream_trailer {
    uint32_t count; /* of index entries, which lie just before it */
    uint64_t bytes; /* where the batches end */
    uint64_t end;
    wall_t first_at, max_at;
};

/* Bytes of index and trailer. */
static inline size_t stream_trailer_len(uint32_t count)
{
    return (size_t)count * STREAM_INDEX_ENTRY + STREAM_TRAILER;
}
/* Index and trailer, stream_trailer_len(trailer->count) bytes. */
void stream_trailer_put(uint8_t *ret, const struct stream_trailer *trailer, const struct stream_mark *marks);
/* The last STREAM_TRAILER bytes of a file. GOOD: count is at most STREAM_INDEX_MAX; ret_index_crc for stream_marks_get. */
enum layout_verdict stream_trailer_get(const uint8_t *bytes, struct stream_trailer *ret, uint32_t *ret_index_crc);
/* bytes: count entries. False: damaged, or not ascending from the file's first batch to below bytes_end. */
MUST_USE bool stream_marks_get(struct slice bytes, uint32_t crc, uint64_t bytes_end, struct stream_mark *ret);

/* ------------------------------------------------------------------------------------------------------------ messages */

/* What both directions need beside the message; large, so it is the caller's. Zero-initialised. */
struct stream_scratch {
    uint8_t *bytes; /* mr-amqp's value, or a property list that is made */
    size_t cap;
    struct record_header *headers; /* once needed: one more than a header table may have */
    uint16_t *order;
};
void stream_scratch_fini(struct stream_scratch *scratch);

/* An upper bound of what the message takes as a record. */
uint64_t stream_record_max(const struct msg *msg);
/* Appends the message to the batch. 0; -ENOMEM; -EFBIG: no room in the batch's writer, which is then as it was. */
MUST_USE int stream_record_put(struct record_batch_writer *batch, wall_t timestamp, const struct msg *msg,
                               struct stream_scratch *scratch);
/* A message of one reference. 0; -ENOMEM; -EILSEQ: no record has that form. */
MUST_USE int stream_record_get(const struct record *record, struct slab_heap *mine, struct stream_scratch *scratch,
                               struct msg **ret);

#endif
