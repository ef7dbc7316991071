/* record_batch: Kafka's RecordBatch, format version 2 ("magic 2"; KIP-98, DefaultRecordBatch and DefaultRecord of Kafka).
 *
 *   at  bytes  field                      at  bytes  field
 *    0      8  base offset                23      4  last offset delta
 *    8      4  length of what follows     27      8  base timestamp
 *   12      4  leader epoch               35      8  max timestamp
 *   16      1  magic, 2                   43      8  producer id, -1 none
 *   17      4  CRC-32C of 21..end         51      2  producer epoch
 *   21      2  attributes                 53      4  base sequence
 *                                         57      4  count, then the records at 61, packed as one if attributes say so
 *   attributes: bits 0-2 compression, 3 log append time, 4 transactional, 5 control, 6 delete horizon in base timestamp
 *   record: varint length of what follows, attributes (1), varlong timestamp delta, varint offset delta, varint length and
 *   bytes of key (-1 null), the same of value, varint count of headers, each: varint length and bytes of key, of value (-1)
 *
 * Looking and checking   record_batch_peek, _take ▸ record_batch_crc_ok | record_batch_check
 * Reading                record_batch_open ▸ { record_next { record_header_next }* }* ▸ record_reader_ok
 * Writing                record_batch_begin ▸ { record_batch_put | record_batch_room | record_batch_add }* ▸ record_batch_finish
 * Patching               record_batch_set_base, record_batch_set_max_timestamp, record_batch_pack, record_batch_repack
 *
 * Pure functions: nothing is allocated except by a struct compress that is handed in, and only when a batch is compressed.
 * Slices point into the batch (or into the struct compress's buffer, until its next call). Any thread.
 */
#ifndef MILLRACE_FMT_RECORD_BATCH_H
#define MILLRACE_FMT_RECORD_BATCH_H

#include "base/reader.h"
#include "base/types.h"
#include "base/writer.h"
#include "fmt/compress.h"

#define RECORD_BATCH_HEADER 61u     /* bytes before the records */
#define RECORD_BATCH_BEFORE_LEN 12u /* bytes that the length field does not count */
#define RECORD_NO_TIMESTAMP (-1)
#define RECORD_NO_PRODUCER (-1)

/* In brackets: the error a Kafka broker answers a producer with. */
enum record_verdict {
    RECORD_OK,
    RECORD_END,           /* record_batch_take: nothing left */
    RECORD_SHORT,         /* more bytes are needed */
    RECORD_DAMAGED,       /* header impossible or CRC wrong; nothing can be believed [CORRUPT_MESSAGE 2] */
    RECORD_INVALID,       /* the producer's mistake; see why [INVALID_RECORD 87] */
    RECORD_OLD_FORMAT,    /* magic 0 or 1 [INVALID_RECORD 87] */
    RECORD_TOO_LARGE,     /* the batch, packed or unpacked [MESSAGE_TOO_LARGE 10] */
    RECORD_BAD_TIMESTAMP, /* a record's, or its type [INVALID_TIMESTAMP 32] */
    RECORD_BAD_CODEC,     /* compression unknown or not allowed here [UNSUPPORTED_COMPRESSION_TYPE 76] */
    RECORD_NO_MEMORY,     /* for unpacking */
};

struct record_batch {
    int64_t base_offset;
    uint32_t bytes; /* of the whole batch, header included */
    uint32_t count; /* records; 0 only in what compaction left */
    int32_t leader_epoch;
    uint32_t crc;
    int32_t last_offset_delta;
    int64_t base_timestamp, max_timestamp; /* UTC ms, -1 none */
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    uint16_t attributes; /* as stored; what follows is decoded from it */
    uint8_t compression; /* enum compress_kind, or 5..7, which nobody knows */
    bool append_time;    /* max_timestamp is every record's timestamp */
    bool transactional, control, delete_horizon;
};

struct record {
    int64_t offset;
    int64_t timestamp;
    bool has_key, has_value; /* false: null, which is not the same as empty */
    struct slice key, value;
    uint32_t header_count;
    struct slice headers; /* encoded, without the count */
};

struct record_header {
    struct slice key;
    bool has_value;
    struct slice value;
};

/* ------------------------------------------------------------------------------------------------ looking and checking */

/* The header at the beginning of bytes, of which 61 are enough; ret->bytes says how long the batch is, which may be more
 * than there is. RECORD_OK, _SHORT, _DAMAGED, _OLD_FORMAT (needs 17 bytes). The CRC is not looked at. */
MUST_USE enum record_verdict record_batch_peek(struct slice bytes, struct record_batch *ret);
/* The next whole batch of several in a row. RECORD_OK, _END, or as above; the reader moves on only with RECORD_OK. */
MUST_USE enum record_verdict record_batch_take(struct reader *r, struct record_batch *ret, struct slice *ret_bytes);
/* bytes must be the whole batch (as from record_batch_take). */
bool record_batch_crc_ok(struct slice bytes);

static inline int64_t record_batch_last_offset(const struct record_batch *batch)
{
    return batch->base_offset + batch->last_offset_delta;
}
/* Sequences wrap from 2^31-1 to 0. -1 when the batch has none. */
int32_t record_batch_last_sequence(const struct record_batch *batch);

struct record_limits {
    uint32_t bytes_max;                   /* of the batch as sent (max.message.bytes); 0 none */
    uint32_t unpacked_max;                /* of its records unpacked; 0: compressed records are not opened at all */
    int64_t timestamp_min, timestamp_max; /* of each record that has one; 0, 0: none */
    bool keys_needed;                     /* compacted topic: a record without key is invalid */
    bool zstd_refused;                    /* Produce before version 7 */
};

struct record_check {
    struct record_batch batch;
    bool opened; /* the records were looked at, not only the header and the CRC */
    int64_t
        max_timestamp; /* found among the records, where opened; Kafka stores this one when the header says another */
    uint32_t unpacked_len; /* bytes of the records unpacked, where opened … */
    struct slice unpacked; /* … and these: of the batch, or a loan of z's until its next call */
};

struct record_fault {
    const char *why; /* a sentence without full stop */
    int32_t index;   /* of the record, or -1: the batch as a whole */
};

/* Everything that a broker must know before it stores an untrusted producer's bytes verbatim, as Kafka's LogValidator and
 * UnifiedLog check it: exactly one batch of magic 2 with base offset 0, right CRC, at least one record, count and offset
 * deltas dense 0..n-1, no control batch, create time, a sequence where there is a producer id, known compression, every
 * varint, length and header in its place, nothing left over.
 * Stricter than Kafka: where two clients would read different things (null is -1 only, no varint exceeds its type, nothing
 * follows an lz4 frame); a packed batch whose deltas are not dense, which Kafka writes anew; log append time, which Kafka
 * takes back where a timestamp came with it; a transactional batch without a producer id.
 * z may be NULL when limits->unpacked_max is 0. On another verdict than RECORD_OK *fault (unless NULL) says why; *ret is
 * written on RECORD_OK only. */
MUST_USE enum record_verdict record_batch_check(struct slice bytes, const struct record_limits *limits,
                                                struct compress *z, struct record_check *ret,
                                                struct record_fault *fault);

/* ------------------------------------------------------------------------------------------------------------- reading */

struct record_reader {
    struct reader bytes;
    uint32_t left; /* records */
    bool append_time, failed;
    int64_t base_offset, base_timestamp, max_timestamp;
};

/* Begins with the first record of a whole batch. z may be NULL when nothing compressed is expected (RECORD_BAD_CODEC if it
 * comes), and then unpacked_max means nothing. RECORD_OK, _SHORT, _DAMAGED, _OLD_FORMAT, _BAD_CODEC, _TOO_LARGE, _NO_MEMORY.
 * The CRC is not looked at. */
MUST_USE enum record_verdict record_batch_open(struct slice bytes, struct compress *z, size_t unpacked_max,
                                               struct record_batch *ret_batch, struct record_reader *ret);
/* False: no more, or damage; record_reader_ok tells which. The structure of headers is not looked at. */
MUST_USE bool record_next(struct record_reader *r, struct record *ret);
/* All records were read, and nothing is left over. */
bool record_reader_ok(const struct record_reader *r);
/* Exactly header_count headers, each in its place. True of every record of a batch that record_batch_check has opened. */
bool record_headers_ok(const struct record *record);
/* Takes the next header off *headers, a copy of struct record's. False: no more (then it is empty), or damage. */
MUST_USE bool record_header_next(struct slice *headers, struct record_header *ret);

/* ------------------------------------------------------------------------------------------------------------- writing */

struct record_batch_writer {
    struct writer *w;
    size_t begin; /* where in w the batch begins */
    struct record_batch head;
    int64_t next_offset, max_timestamp;
};

/* A head without producer, not compressed, create time, leader epoch -1: change what differs. */
struct record_batch record_batch_head(int64_t base_offset, int64_t base_timestamp);
/* Begins a batch behind what w holds. w (a loan, until finish) has the bound and the sticky failure. Of head count: the
 * offset, the epoch, base timestamp, the three fields of the producer, and the flags; compression must be none
 * (record_batch_repack compresses), and attributes is made from the flags. */
void record_batch_begin(struct record_batch_writer *b, struct writer *w, const struct record_batch *head);
/* Bytes of the batch so far, header included. */
static inline size_t record_batch_len(const struct record_batch_writer *b)
{
    return b->w->len - b->begin;
}
/* How many bytes the next record will take. value_len -1: null. */
size_t record_batch_record_len(const struct record_batch_writer *b, int64_t timestamp, const struct slice *key,
                               int64_t value_len, const struct record_header *headers, uint32_t header_count);
/* Appends a record at the next offset; key and value may be NULL for null. False: the writer or the
 * format has no room for it; then nothing has changed, and the batch can be finished without it. */
MUST_USE bool record_batch_put(struct record_batch_writer *b, int64_t timestamp, const struct slice *key,
                               const struct slice *value, const struct record_header *headers, uint32_t header_count);
/* The same with a value of value_len bytes that the caller writes to *ret_value before record_batch_finish: for what
 * comes in parts, or is encoded or read in place. */
MUST_USE bool record_batch_room(struct record_batch_writer *b, int64_t timestamp, const struct slice *key,
                                size_t value_len, const struct record_header *headers, uint32_t header_count,
                                uint8_t **ret_value);
/* Appends a record as it was read, headers verbatim, at its own offset, which must not be below the next one: gaps are
 * what compaction leaves. */
MUST_USE bool record_batch_add(struct record_batch_writer *b, const struct record *record);
/* Fills in length, attributes, last offset delta, max timestamp, count and CRC, and lends the batch. last_offset: that of
 * the last record, or a higher one where compaction took the last; -1: the last record's. With append time, head's max
 * timestamp is kept. The batch must hold a record, unless last_offset says where it ends. */
struct slice record_batch_finish(struct record_batch_writer *b, int64_t last_offset);

/* ------------------------------------------------------------------------------------------------------------ patching */

/* What a leader writes into a produced batch; both fields are outside the CRC. bytes: the batch, at least 16. */
void record_batch_set_base(uint8_t *bytes, int64_t base_offset, int32_t leader_epoch);
/* Time type and max timestamp of a whole batch; a new CRC only if something changes, which is the return value. */
bool record_batch_set_max_timestamp(uint8_t *bytes, size_t len, bool append_time, int64_t max_timestamp);
/* Writes a batch of which these are the records, unpacked, behind what w holds: head as it is, but for compression and CRC.
 * RECORD_OK, _NO_MEMORY, or RECORD_TOO_LARGE when it does not fit into w, which then is as before. z may be NULL when kind is
 * none. */
MUST_USE enum record_verdict record_batch_pack(const struct record_batch *head, struct slice records,
                                               enum compress_kind kind, int32_t level, struct compress *z,
                                               struct writer *w);
/* Writes a whole batch again with another compression (none included) behind what w holds; everything else stays, the CRC
 * is new. RECORD_OK, what record_batch_open says, or RECORD_TOO_LARGE when it does not fit into w, which then is as before;
 * 61 + compress_pack_max(kind, unpacked length) bytes are always enough. z may be NULL when neither side is compressed. */
MUST_USE enum record_verdict record_batch_repack(struct slice bytes, enum compress_kind kind, int32_t level,
                                                 struct compress *z, size_t unpacked_max, struct writer *w);

#endif
