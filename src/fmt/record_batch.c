/* Record batches of magic 2, see record_batch.h for the bytes. Pure functions, any thread.
 *
 * Records are read and written through bare pointers, not through the reader and the writer: a record of 100 bytes has
 * eight varints, and a bounds check and a call for each would cost more than everything else. The one rule that replaces
 * them: a varint is read by varint_get, which never goes beyond `end`, and bytes are taken by take_nullable or after a
 * comparison with `end - at`. Writing asks the writer once, for the whole record, whose length is known before.
 */
#include "fmt/record_batch.h"

#include "base/check.h"
#include "fmt/crc32c.h"

#define AT_BASE_OFFSET 0u
#define AT_LENGTH 8u
#define AT_LEADER_EPOCH 12u
#define AT_MAGIC 16u
#define AT_CRC 17u
#define AT_ATTRIBUTES 21u
#define AT_MAX_TIMESTAMP 35u
#define MAGIC 2u

#define ATTR_COMPRESSION 0x07u
#define ATTR_APPEND_TIME 0x08u
#define ATTR_TRANSACTIONAL 0x10u
#define ATTR_CONTROL 0x20u
#define ATTR_DELETE_HORIZON 0x40u

#define RECORD_MAX ((uint64_t)INT32_MAX)
#define HEADER_MIN 2u /* bytes of a header: two lengths */

/* ------------------------------------------------------------------------------------------------------------- varints */

static inline uint64_t zigzag(int64_t v)
{
    return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}

static inline int64_t unzigzag(uint64_t z)
{
    return (int64_t)(z >> 1 ^ (0 - (z & 1)));
}

/* Exact for 0..64 significant bits: ceil(bits / 7), and 1 for 0. */
static inline size_t varint_len(uint64_t z)
{
    unsigned bits = 64 - (unsigned)__builtin_clzll(z | 1);
    return (bits * 9 + 64) / 64;
}

static inline size_t signed_len(int64_t v)
{
    return varint_len(zigzag(v));
}

static inline uint8_t *varint_put(uint8_t *at, uint64_t z)
{
    for (; z >= 0x80; z >>= 7)
        *at++ = (uint8_t)(z | 0x80);
    *at++ = (uint8_t)z;
    return at;
}

static inline uint8_t *signed_put(uint8_t *at, int64_t v)
{
    return varint_put(at, zigzag(v));
}

/* Bytes after the first. NULL: no end before `end`, or more bits than the type has. */
static const uint8_t *varint_rest(const uint8_t *at, const uint8_t *end, unsigned bits, uint64_t *z)
{
    for (unsigned shift = 7; shift < bits && at < end; shift += 7) {
        uint64_t byte = *at++;
        if (bits - shift < 7 && byte >> (bits - shift))
            return NULL;
        *z |= (byte & 0x7f) << shift;
        if (byte < 0x80)
            return at;
    }
    return NULL;
}

/* One zigzag number of up to `bits` bits (32 varint, 64 varlong). at may be NULL, a failure before. */
static inline const uint8_t *varint_get(const uint8_t *at, const uint8_t *end, unsigned bits, int64_t *ret)
{
    if (__builtin_expect(!at || at >= end, 0))
        return NULL;
    uint64_t z = *at++;
    if (z >= 0x80) {
        z &= 0x7f;
        at = varint_rest(at, end, bits, &z);
    }
    *ret = unzigzag(z);
    return at;
}

/* A length and that many bytes; -1 is null. */
static inline const uint8_t *take_nullable(const uint8_t *at, const uint8_t *end, bool *ret_has, struct slice *ret)
{
    int64_t len = 0;
    at = varint_get(at, end, 32, &len);
    if (__builtin_expect(!at || len < -1 || len > end - at, 0))
        return NULL;
    *ret_has = len >= 0;
    *ret = slice_of(at, len > 0 ? (size_t)len : 0);
    return at + ret->len;
}

/* ------------------------------------------------------------------------------------------------ looking and checking */

static uint32_t read32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, sizeof v);
    return be32toh(v);
}

static void patch32(uint8_t *at, uint32_t v)
{
    v = htobe32(v);
    memcpy(at, &v, sizeof v);
}

static void patch64(uint8_t *at, uint64_t v)
{
    v = htobe64(v);
    memcpy(at, &v, sizeof v);
}

static uint32_t crc_of(const uint8_t *bytes, size_t len)
{
    return crc32c(0, bytes + AT_ATTRIBUTES, len - AT_ATTRIBUTES);
}

static void attributes_decode(struct record_batch *b)
{
    b->compression = b->attributes & ATTR_COMPRESSION;
    b->append_time = b->attributes & ATTR_APPEND_TIME;
    b->transactional = b->attributes & ATTR_TRANSACTIONAL;
    b->control = b->attributes & ATTR_CONTROL;
    b->delete_horizon = b->attributes & ATTR_DELETE_HORIZON;
}

enum record_verdict record_batch_peek(struct slice bytes, struct record_batch *ret)
{
    if (bytes.len > AT_MAGIC && bytes.ptr[AT_MAGIC] < MAGIC)
        return RECORD_OLD_FORMAT;
    if (bytes.len > AT_MAGIC && bytes.ptr[AT_MAGIC] > MAGIC)
        return RECORD_DAMAGED;
    if (bytes.len < RECORD_BATCH_HEADER)
        return RECORD_SHORT;
    struct record_batch b = {0};
    struct reader r = reader_of(bytes);
    b.base_offset = (int64_t)reader_u64(&r);
    uint32_t len = reader_u32(&r);
    b.leader_epoch = (int32_t)reader_u32(&r);
    (void)reader_u8(&r);
    b.crc = reader_u32(&r);
    b.attributes = reader_u16(&r);
    b.last_offset_delta = (int32_t)reader_u32(&r);
    b.base_timestamp = (int64_t)reader_u64(&r);
    b.max_timestamp = (int64_t)reader_u64(&r);
    b.producer_id = (int64_t)reader_u64(&r);
    b.producer_epoch = (int16_t)reader_u16(&r);
    b.base_sequence = (int32_t)reader_u32(&r);
    b.count = reader_u32(&r);
    if (len < RECORD_BATCH_HEADER - RECORD_BATCH_BEFORE_LEN || len > INT32_MAX - RECORD_BATCH_BEFORE_LEN)
        return RECORD_DAMAGED;
    if (b.last_offset_delta < 0 || b.count > INT32_MAX || b.base_offset < 0 ||
        b.base_offset > INT64_MAX - b.last_offset_delta)
        return RECORD_DAMAGED;
    b.bytes = len + RECORD_BATCH_BEFORE_LEN;
    attributes_decode(&b);
    *ret = b;
    return RECORD_OK;
}

enum record_verdict record_batch_take(struct reader *r, struct record_batch *ret, struct slice *ret_bytes)
{
    if (r->left == 0)
        return RECORD_END;
    struct record_batch b;
    enum record_verdict verdict = record_batch_peek(slice_of(r->at, r->left), &b);
    if (verdict != RECORD_OK)
        return verdict;
    if (b.bytes > r->left)
        return RECORD_SHORT;
    *ret = b;
    *ret_bytes = reader_take(r, b.bytes);
    return RECORD_OK;
}

bool record_batch_crc_ok(struct slice bytes)
{
    return bytes.len >= RECORD_BATCH_HEADER && read32(bytes.ptr + AT_CRC) == crc_of(bytes.ptr, bytes.len);
}

int32_t record_batch_last_sequence(const struct record_batch *b)
{
    if (b->base_sequence < 0)
        return -1;
    return (int32_t)(((uint32_t)b->base_sequence + (uint32_t)b->last_offset_delta) & INT32_MAX);
}

static enum record_verdict fault_at(struct record_fault *fault, int32_t index, enum record_verdict verdict,
                                    const char *why)
{
    if (fault)
        *fault = (struct record_fault){.why = why, .index = index};
    return verdict;
}

/* What a producer's header may not say, in the order in which Kafka finds it. NULL: nothing. */
static const char *header_fault(const struct record_batch *b)
{
    if (b->count == 0)
        return "a batch without records";
    if ((uint32_t)b->last_offset_delta != b->count - 1)
        return "the count of records is not the last offset delta plus one";
    if (b->control)
        return "clients do not write control batches";
    if (b->producer_id >= 0 && b->base_sequence < 0)
        return "a producer id without a sequence";
    if (b->producer_id < 0 && b->transactional)
        return "a transactional batch without a producer id";
    return NULL;
}

static enum record_verdict check_header(const struct record_batch *b, struct slice bytes,
                                        const struct record_limits *limits, struct record_fault *fault)
{
    if (b->bytes > bytes.len)
        return fault_at(fault, -1, RECORD_INVALID, "the batch is not whole");
    if (limits->bytes_max && b->bytes > limits->bytes_max)
        return fault_at(fault, -1, RECORD_TOO_LARGE, "the batch is larger than max.message.bytes");
    if (!record_batch_crc_ok(slice_of(bytes.ptr, b->bytes)))
        return fault_at(fault, -1, RECORD_DAMAGED, "the CRC is wrong");
    if (b->bytes < bytes.len)
        return fault_at(fault, -1, RECORD_INVALID, "more than one batch");
    if (b->base_offset != 0)
        return fault_at(fault, -1, RECORD_INVALID, "the base offset of a producer's batch is 0");
    if (header_fault(b))
        return fault_at(fault, -1, RECORD_INVALID, header_fault(b));
    if (b->compression >= COMPRESS_KINDS)
        return fault_at(fault, -1, RECORD_BAD_CODEC, "nobody knows this compression");
    if (b->compression == COMPRESS_ZSTD && limits->zstd_refused)
        return fault_at(fault, -1, RECORD_BAD_CODEC, "zstd needs Produce version 7");
    if (b->append_time)
        return fault_at(fault, -1, RECORD_BAD_TIMESTAMP, "producers do not set the log append time");
    return RECORD_OK;
}

static bool timestamp_allowed(const struct record_limits *limits, int64_t timestamp)
{
    if (timestamp == RECORD_NO_TIMESTAMP || (limits->timestamp_min == 0 && limits->timestamp_max == 0))
        return true;
    return timestamp >= limits->timestamp_min && timestamp <= limits->timestamp_max;
}

static enum record_verdict check_records(struct record_reader *r, const struct record_limits *limits, int64_t *ret_max,
                                         struct record_fault *fault)
{
    int64_t max = RECORD_NO_TIMESTAMP;
    uint32_t count = r->left;
    for (uint32_t i = 0; i < count; i++) {
        struct record record;
        int32_t index = (int32_t)i;
        if (!record_next(r, &record) || !record_headers_ok(&record))
            return fault_at(fault, index, RECORD_INVALID, "a length in the record is wrong");
        if (record.offset != r->base_offset + index)
            return fault_at(fault, index, RECORD_INVALID, "the offset delta is not the one before plus one");
        if (limits->keys_needed && !record.has_key)
            return fault_at(fault, index, RECORD_INVALID, "a compacted topic takes no record without a key");
        if (!timestamp_allowed(limits, record.timestamp))
            return fault_at(fault, index, RECORD_BAD_TIMESTAMP, "the timestamp is out of the topic's range");
        max = record.timestamp > max ? record.timestamp : max;
    }
    if (!record_reader_ok(r))
        return fault_at(fault, -1, RECORD_INVALID, "bytes are left over after the last record");
    *ret_max = max;
    return RECORD_OK;
}

static enum record_verdict open_records(const struct record_batch *b, struct slice bytes, struct compress *z,
                                        size_t unpacked_max, struct record_reader *ret);

enum record_verdict record_batch_check(struct slice bytes, const struct record_limits *limits, struct compress *z,
                                       struct record_check *ret, struct record_fault *fault)
{
    struct record_check found = {.max_timestamp = RECORD_NO_TIMESTAMP};
    struct record_reader records;
    enum record_verdict verdict = record_batch_peek(bytes, &found.batch);
    if (verdict == RECORD_SHORT)
        return fault_at(fault, -1, RECORD_INVALID, "no batch, or not a whole one");
    if (verdict == RECORD_DAMAGED && bytes.len >= RECORD_BATCH_HEADER &&
        read32(bytes.ptr + RECORD_BATCH_HEADER - 4) == 0)
        return fault_at(fault, -1, RECORD_INVALID, "a batch without records");
    if (verdict != RECORD_OK)
        return fault_at(fault, -1, verdict, "the header is not that of a batch of magic 2");
    verdict = check_header(&found.batch, bytes, limits, fault);
    if (verdict != RECORD_OK)
        return verdict;
    found.opened = found.batch.compression == COMPRESS_NONE || limits->unpacked_max > 0;
    found.max_timestamp = found.batch.max_timestamp;
    if (!found.opened && !timestamp_allowed(limits, found.max_timestamp))
        return fault_at(fault, -1, RECORD_BAD_TIMESTAMP, "the max timestamp is out of the topic's range");
    if (found.opened) {
        verdict = open_records(&found.batch, bytes, z, limits->unpacked_max, &records);
        if (verdict == RECORD_DAMAGED) /* the CRC was right, so the producer has packed badly */
            return fault_at(fault, -1, RECORD_INVALID, "the records do not unpack");
        if (verdict != RECORD_OK)
            return fault_at(fault, -1, verdict, "the records cannot be unpacked within the limit");
        found.unpacked_len = (uint32_t)records.bytes.left;
        found.unpacked = slice_of(records.bytes.at, records.bytes.left);
        verdict = check_records(&records, limits, &found.max_timestamp, fault);
        if (verdict != RECORD_OK)
            return verdict;
    }
    *ret = found;
    return RECORD_OK;
}

/* ------------------------------------------------------------------------------------------------------------- reading */

static const enum record_verdict of_compress[] = {
    [COMPRESS_OK] = RECORD_OK,
    [COMPRESS_DAMAGED] = RECORD_DAMAGED,
    [COMPRESS_TOO_LARGE] = RECORD_TOO_LARGE,
    [COMPRESS_NO_MEMORY] = RECORD_NO_MEMORY,
};

/* b is the header of bytes, which hold the whole batch. */
static enum record_verdict open_records(const struct record_batch *b, struct slice bytes, struct compress *z,
                                        size_t unpacked_max, struct record_reader *ret)
{
    struct slice records = slice_of(bytes.ptr + RECORD_BATCH_HEADER, b->bytes - RECORD_BATCH_HEADER);
    if (b->compression >= COMPRESS_KINDS || (b->compression != COMPRESS_NONE && !z))
        return RECORD_BAD_CODEC;
    if (b->compression != COMPRESS_NONE) {
        size_t max = unpacked_max < UINT32_MAX ? unpacked_max : UINT32_MAX;
        enum compress_verdict verdict = compress_unpack(z, (enum compress_kind)b->compression, records, max, &records);
        if (verdict != COMPRESS_OK)
            return of_compress[verdict];
    }
    *ret = (struct record_reader){
        .bytes = reader_of(records),
        .left = b->count,
        .append_time = b->append_time,
        .base_offset = b->base_offset,
        .base_timestamp = b->base_timestamp,
        .max_timestamp = b->max_timestamp,
    };
    return RECORD_OK;
}

enum record_verdict record_batch_open(struct slice bytes, struct compress *z, size_t unpacked_max,
                                      struct record_batch *ret_batch, struct record_reader *ret)
{
    struct record_batch b;
    enum record_verdict verdict = record_batch_peek(bytes, &b);
    if (verdict == RECORD_OK && b.bytes > bytes.len)
        verdict = RECORD_SHORT;
    if (verdict == RECORD_OK)
        verdict = open_records(&b, bytes, z, unpacked_max, ret);
    if (verdict == RECORD_OK)
        *ret_batch = b;
    return verdict;
}

bool record_next(struct record_reader *r, struct record *ret)
{
    const uint8_t *at = r->bytes.at, *end = at + r->bytes.left;
    int64_t len, timestamp_delta = 0, offset_delta = 0, header_count = -1;
    struct record record;
    if (r->left == 0 || r->failed)
        return false;
    r->failed = true; /* until the end of the record */
    at = varint_get(at, end, 32, &len);
    if (!at || len < 1 || len > end - at)
        return false;
    end = at + len;
    at++; /* the record's attributes: none are defined */
    at = varint_get(at, end, 64, &timestamp_delta);
    at = varint_get(at, end, 32, &offset_delta);
    at = take_nullable(at, end, &record.has_key, &record.key);
    at = take_nullable(at, end, &record.has_value, &record.value);
    at = varint_get(at, end, 32, &header_count);
    if (!at || header_count < 0 || header_count > (end - at) / HEADER_MIN || (header_count == 0 && at != end))
        return false;
    record.offset = (int64_t)((uint64_t)r->base_offset + (uint64_t)offset_delta);
    record.timestamp =
        r->append_time ? r->max_timestamp : (int64_t)((uint64_t)r->base_timestamp + (uint64_t)timestamp_delta);
    record.header_count = (uint32_t)header_count;
    record.headers = slice_of(at, (size_t)(end - at));
    *ret = record;
    r->bytes.left -= (size_t)(end - r->bytes.at);
    r->bytes.at = end;
    r->left--;
    r->failed = false;
    return true;
}

bool record_reader_ok(const struct record_reader *r)
{
    return !r->failed && r->left == 0 && r->bytes.left == 0;
}

bool record_header_next(struct slice *headers, struct record_header *ret)
{
    const uint8_t *at = headers->ptr, *end;
    struct record_header header;
    bool has_key = false;
    if (headers->len == 0)
        return false; /* before anything is added to a pointer that may be NULL */
    end = at + headers->len;
    at = take_nullable(at, end, &has_key, &header.key);
    at = take_nullable(at, end, &header.has_value, &header.value);
    if (!at || !has_key)
        return false;
    *ret = header;
    *headers = slice_of(at, (size_t)(end - at));
    return true;
}

bool record_headers_ok(const struct record *record)
{
    struct slice left = record->headers;
    struct record_header header;
    uint32_t count = 0;
    while (record_header_next(&left, &header))
        count++;
    return left.len == 0 && count == record->header_count;
}

/* ------------------------------------------------------------------------------------------------------------- writing */

struct record_batch record_batch_head(int64_t base_offset, int64_t base_timestamp)
{
    return (struct record_batch){
        .base_offset = base_offset,
        .leader_epoch = -1,
        .base_timestamp = base_timestamp,
        .max_timestamp = RECORD_NO_TIMESTAMP,
        .producer_id = RECORD_NO_PRODUCER,
        .producer_epoch = -1,
        .base_sequence = -1,
    };
}

void record_batch_begin(struct record_batch_writer *b, struct writer *w, const struct record_batch *head)
{
    CHECK(head->compression == COMPRESS_NONE);
    *b = (struct record_batch_writer){.w = w, .begin = w->len, .head = *head, .next_offset = head->base_offset};
    b->head.count = 0;
    if (!head->append_time)
        b->max_timestamp = RECORD_NO_TIMESTAMP;
    (void)writer_room(w, RECORD_BATCH_HEADER);
}

static inline size_t nullable_len(const struct slice *s)
{
    return s ? signed_len((int64_t)s->len) + s->len : 1;
}

static inline uint8_t *bytes_put(uint8_t *at, struct slice s)
{
    at = signed_put(at, (int64_t)s.len);
    if (s.len)
        memcpy(at, s.ptr, s.len);
    return at + s.len;
}

static inline uint8_t *nullable_put(uint8_t *at, const struct slice *s)
{
    if (s)
        return bytes_put(at, *s);
    *at++ = 1; /* zigzag of -1 */
    return at;
}

static size_t headers_len(const struct record_header *headers, uint32_t count)
{
    size_t len = 0;
    for (uint32_t i = 0; i < count; i++)
        len += nullable_len(&headers[i].key) + nullable_len(headers[i].has_value ? &headers[i].value : NULL);
    return len;
}

static uint8_t *headers_put(uint8_t *at, const struct record_header *headers, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        at = bytes_put(at, headers[i].key);
        at = nullable_put(at, headers[i].has_value ? &headers[i].value : NULL);
    }
    return at;
}

/* What all three ways of adding have in common: the numbers before the key, and the length of the whole. */
struct shape {
    int64_t timestamp_delta, offset_delta;
    uint64_t body; /* what the record's length field says */
};

static inline struct shape shape_of(const struct record_batch_writer *b, int64_t offset, int64_t timestamp,
                                    const struct slice *key, int64_t value_len, uint32_t header_count, size_t headers)
{
    struct shape s = {.timestamp_delta = (int64_t)((uint64_t)timestamp - (uint64_t)b->head.base_timestamp),
                      .offset_delta = offset - b->head.base_offset};
    s.body = 1 + signed_len(s.timestamp_delta) + signed_len(s.offset_delta) + nullable_len(key) +
             signed_len(value_len) + (value_len > 0 ? (uint64_t)value_len : 0) + signed_len(header_count) + headers;
    return s;
}

/* Room for the record, written up to its value's first byte; NULL when there is none. */
static inline uint8_t *record_begin(struct record_batch_writer *b, const struct shape *s, const struct slice *key,
                                    int64_t value_len)
{
    if (b->w->failed || s->body > RECORD_MAX || s->offset_delta > INT32_MAX)
        return NULL;
    size_t whole = signed_len((int64_t)s->body) + s->body;
    if (whole > b->w->max - b->w->len || whole > RECORD_MAX - record_batch_len(b))
        return NULL;
    uint8_t *at = writer_room(b->w, whole);
    at = signed_put(at, (int64_t)s->body);
    *at++ = 0;
    at = signed_put(at, s->timestamp_delta);
    at = signed_put(at, s->offset_delta);
    at = nullable_put(at, key);
    return signed_put(at, value_len);
}

static inline void record_end(struct record_batch_writer *b, int64_t offset, int64_t timestamp)
{
    b->head.count++;
    b->next_offset = offset + 1;
    if (timestamp > b->max_timestamp)
        b->max_timestamp = timestamp;
}

size_t record_batch_record_len(const struct record_batch_writer *b, int64_t timestamp, const struct slice *key,
                               int64_t value_len, const struct record_header *headers, uint32_t header_count)
{
    struct shape s =
        shape_of(b, b->next_offset, timestamp, key, value_len, header_count, headers_len(headers, header_count));
    return varint_len(s.body << 1) + s.body;
}

/* Everything but the value's bytes, which go to *ret_value. */
static inline bool record_put(struct record_batch_writer *b, int64_t timestamp, const struct slice *key,
                              int64_t value_len, const struct record_header *headers, uint32_t header_count,
                              uint8_t **ret_value)
{
    size_t headers_bytes = headers_len(headers, header_count);
    struct shape s = shape_of(b, b->next_offset, timestamp, key, value_len, header_count, headers_bytes);
    uint8_t *value = record_begin(b, &s, key, value_len);
    if (!value)
        return false;
    uint8_t *at = signed_put(value + (value_len > 0 ? value_len : 0), header_count);
    (void)headers_put(at, headers, header_count);
    record_end(b, b->next_offset, timestamp);
    *ret_value = value;
    return true;
}

bool record_batch_put(struct record_batch_writer *b, int64_t timestamp, const struct slice *key,
                      const struct slice *value, const struct record_header *headers, uint32_t header_count)
{
    uint8_t *at;
    if (value && value->len > RECORD_MAX)
        return false;
    if (!record_put(b, timestamp, key, value ? (int64_t)value->len : -1, headers, header_count, &at))
        return false;
    if (value && value->len)
        memcpy(at, value->ptr, value->len);
    return true;
}

bool record_batch_room(struct record_batch_writer *b, int64_t timestamp, const struct slice *key, size_t value_len,
                       const struct record_header *headers, uint32_t header_count, uint8_t **ret_value)
{
    return value_len <= RECORD_MAX &&
           record_put(b, timestamp, key, (int64_t)value_len, headers, header_count, ret_value);
}

bool record_batch_add(struct record_batch_writer *b, const struct record *record)
{
    CHECK(record->offset >= b->next_offset);
    const struct slice *key = record->has_key ? &record->key : NULL;
    int64_t value_len = record->has_value ? (int64_t)record->value.len : -1;
    struct shape s =
        shape_of(b, record->offset, record->timestamp, key, value_len, record->header_count, record->headers.len);
    uint8_t *at = record_begin(b, &s, key, value_len);
    if (!at)
        return false;
    if (value_len > 0)
        at = (uint8_t *)memcpy(at, record->value.ptr, record->value.len) + value_len;
    at = signed_put(at, record->header_count);
    if (record->headers.len)
        memcpy(at, record->headers.ptr, record->headers.len);
    record_end(b, record->offset, record->timestamp);
    return true;
}

static uint16_t attributes_of(const struct record_batch *b)
{
    return (uint16_t)(b->compression | (b->append_time ? ATTR_APPEND_TIME : 0) |
                      (b->transactional ? ATTR_TRANSACTIONAL : 0) | (b->control ? ATTR_CONTROL : 0) |
                      (b->delete_horizon ? ATTR_DELETE_HORIZON : 0));
}

/* Over the 61 bytes at the beginning of a batch whose other bytes are there. */
static void header_put(uint8_t *bytes, size_t len, const struct record_batch *h)
{
    struct writer w = writer_of(bytes, RECORD_BATCH_HEADER);
    writer_u64(&w, (uint64_t)h->base_offset);
    writer_u32(&w, (uint32_t)(len - RECORD_BATCH_BEFORE_LEN));
    writer_u32(&w, (uint32_t)h->leader_epoch);
    writer_u8(&w, MAGIC);
    writer_u32(&w, 0);
    writer_u16(&w, h->attributes);
    writer_u32(&w, (uint32_t)h->last_offset_delta);
    writer_u64(&w, (uint64_t)h->base_timestamp);
    writer_u64(&w, (uint64_t)h->max_timestamp);
    writer_u64(&w, (uint64_t)h->producer_id);
    writer_u16(&w, (uint16_t)h->producer_epoch);
    writer_u32(&w, (uint32_t)h->base_sequence);
    writer_u32(&w, h->count);
    CHECK(writer_ok(&w) && w.len == RECORD_BATCH_HEADER);
    patch32(bytes + AT_CRC, crc_of(bytes, len));
}

struct slice record_batch_finish(struct record_batch_writer *b, int64_t last_offset)
{
    if (!writer_ok(b->w))
        return (struct slice){0};
    struct record_batch *h = &b->head;
    if (last_offset < 0)
        last_offset = b->next_offset - 1;
    CHECK(last_offset >= h->base_offset && last_offset >= b->next_offset - 1 &&
          last_offset - h->base_offset <= INT32_MAX);
    h->last_offset_delta = (int32_t)(last_offset - h->base_offset);
    if (h->count && !h->append_time)
        h->max_timestamp = b->max_timestamp;
    h->attributes = attributes_of(h);
    uint8_t *bytes = b->w->base + b->begin;
    size_t len = record_batch_len(b);
    header_put(bytes, len, h);
    return slice_of(bytes, len);
}

/* ------------------------------------------------------------------------------------------------------------ patching */

void record_batch_set_base(uint8_t *bytes, int64_t base_offset, int32_t leader_epoch)
{
    patch64(bytes + AT_BASE_OFFSET, (uint64_t)base_offset);
    patch32(bytes + AT_LEADER_EPOCH, (uint32_t)leader_epoch);
}

bool record_batch_set_max_timestamp(uint8_t *bytes, size_t len, bool append_time, int64_t max_timestamp)
{
    struct record_batch b;
    enum record_verdict verdict = record_batch_peek(slice_of(bytes, len), &b);
    CHECK(verdict == RECORD_OK && b.bytes == len);
    if (b.append_time == append_time && b.max_timestamp == max_timestamp)
        return false;
    bytes[AT_ATTRIBUTES + 1] =
        (uint8_t)((b.attributes & 0xffu & ~ATTR_APPEND_TIME) | (append_time ? ATTR_APPEND_TIME : 0));
    patch64(bytes + AT_MAX_TIMESTAMP, (uint64_t)max_timestamp);
    patch32(bytes + AT_CRC, crc_of(bytes, len));
    return true;
}

enum record_verdict record_batch_pack(const struct record_batch *head, struct slice records, enum compress_kind kind,
                                      int32_t level, struct compress *z, struct writer *w)
{
    struct record_batch b = *head;
    size_t begin = w->len;
    CHECK(z || kind == COMPRESS_NONE);
    if (w->failed || RECORD_BATCH_HEADER > w->max - w->len)
        return RECORD_TOO_LARGE;
    (void)writer_room(w, RECORD_BATCH_HEADER);
    enum compress_verdict packed = compress_pack(z, kind, level, records, w);
    size_t len = w->len - begin;
    if (packed != COMPRESS_OK || len > RECORD_MAX) {
        w->len = begin;
        return packed != COMPRESS_OK ? of_compress[packed] : RECORD_TOO_LARGE;
    }
    b.compression = (uint8_t)kind;
    b.attributes = (uint16_t)((b.attributes & ~ATTR_COMPRESSION) | (unsigned)kind);
    header_put(w->base + begin, len, &b);
    return RECORD_OK;
}

enum record_verdict record_batch_repack(struct slice bytes, enum compress_kind kind, int32_t level, struct compress *z,
                                        size_t unpacked_max, struct writer *w)
{
    struct record_batch b;
    struct record_reader records;
    enum record_verdict verdict = record_batch_open(bytes, z, unpacked_max, &b, &records);
    if (verdict != RECORD_OK)
        return verdict;
    return record_batch_pack(&b, slice_of(records.bytes.at, records.bytes.left), kind, level, z, w);
}
