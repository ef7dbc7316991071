/* The one place that knows the bytes of stream files by offset, batches excepted; docs/formats/streams.md is its text,
 * stream_format_test.c holds both to golden bytes. Any thread.
 *
 * A record of ours says twice what a message is: in `mr-amqp`, for us, exactly; and in key and headers, for Kafka's readers,
 * as well as these can. Read back is mr-amqp alone. A Kafka producer can send one too (so that a copy of a stream
 * is the same stream), so it is read as an enemy's: what the broker keeps beside the properties (flags, priority,
 * expiration) is made again from the properties, never taken from the bytes, and properties that no AMQP client could
 * have published make it a record like any other.
 */
#include "store/stream_format.h"

#include "base/check.h"
#include "base/mem.h"
#include "core/record_key.h"
#include "fmt/amqp_props.h"
#include "fmt/amqp_table.h"

#include <errno.h>
#include <stdlib.h>

#define MAGIC_HEAD 0x4d525354u    /* MRST */
#define MAGIC_TRAILER 0x4d525349u /* MRSI */

#define NAME_AMQP "mr-amqp"
#define STREAM_NAME_FIRST 38u    /* bytes of a name without generation */
#define AMQP_FIXED_MAX 14u       /* bytes of mr-amqp's value before the names */
#define HEADERS_BYTES_MAX 65536u /* of a header table, as the AMQP engine takes it from a publisher */
#define HEADERS_MAX (AMQP_TABLE_FIELDS_MAX + 1)

/* ------------------------------------------------------------------------------------------------------- names, header */

static char *hex_put(char *at, uint64_t number, unsigned digits)
{
    for (unsigned i = digits; i > 0; i--, number >>= 4)
        at[i - 1] = "0123456789abcdef"[number & 15];
    return at + digits;
}

void stream_name_put(char *ret, const struct stream_name *name)
{
    char *at = hex_put(ret, name->stream, 16);
    *at++ = '-';
    at = hex_put(at, name->partition, 4);
    *at++ = '-';
    at = hex_put(at, name->base, 16);
    if (name->generation) {
        *at++ = '-';
        at = hex_put(at, name->generation, 8);
    }
    *at = '\0';
    CHECK(name->partition <= UINT16_MAX && at <= ret + STREAM_NAME_LEN);
}

static bool hex_get(const char **at, unsigned digits, uint64_t *ret)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < digits; i++) {
        char c = (*at)[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : 16;
        if (digit == 16)
            return false;
        number = number << 4 | digit;
    }
    *at += digits;
    *ret = number;
    return true;
}

bool stream_name_get(const char *text, struct stream_name *ret)
{
    uint64_t partition, generation = 0;
    size_t len = strlen(text);
    bool made = len == STREAM_NAME_LEN;
    if ((len != STREAM_NAME_FIRST && !made) || text[16] != '-' || text[21] != '-' ||
        (made && text[STREAM_NAME_FIRST] != '-'))
        return false;
    if (!hex_get(&text, 16, &ret->stream) || !(text++, hex_get(&text, 4, &partition)) ||
        !(text++, hex_get(&text, 16, &ret->base)) ||
        (made && (!(text++, hex_get(&text, 8, &generation)) || !generation)))
        return false;
    ret->partition = (uint32_t)partition;
    ret->generation = (uint32_t)generation;
    return true;
}

void stream_head_put(uint8_t block[LAYOUT_BLOCK], const struct stream_head *head)
{
    struct writer w = layout_block_begin(block, MAGIC_HEAD, 0, head->uuid);
    writer_u64(&w, head->stream);
    writer_u32(&w, head->partition);
    writer_u32(&w, head->generation);
    writer_u64(&w, head->base);
    writer_u64(&w, (uint64_t)head->wall_ms);
    CHECK(w.len == 56);
    layout_block_end(block, &w);
}

enum layout_verdict stream_head_get(const uint8_t block[LAYOUT_BLOCK], struct stream_head *ret)
{
    struct reader r;
    uint16_t flags;
    uint32_t crc;
    struct stream_head head = {0};
    enum layout_verdict verdict = layout_block_open(block, MAGIC_HEAD, &r, &flags, head.uuid, &crc);
    if (verdict != LAYOUT_GOOD)
        return verdict;
    head.stream = reader_u64(&r);
    head.partition = reader_u32(&r);
    head.generation = reader_u32(&r);
    head.base = reader_u64(&r);
    head.wall_ms = (wall_t)reader_u64(&r);
    if (!reader_ok(&r) || flags || head.partition > UINT16_MAX || head.base > INT64_MAX)
        return LAYOUT_DAMAGED;
    *ret = head;
    return LAYOUT_GOOD;
}

/* ------------------------------------------------------------------------------------------------------ index, trailer */

void stream_trailer_put(uint8_t *ret, const struct stream_trailer *trailer, const struct stream_mark *marks)
{
    struct writer w = writer_of(ret, stream_trailer_len(trailer->count));
    CHECK(trailer->count <= STREAM_INDEX_MAX);
    for (uint32_t i = 0; i < trailer->count; i++) {
        writer_u32(&w, marks[i].delta);
        writer_u32(&w, marks[i].position);
        writer_u64(&w, (uint64_t)marks[i].max_before);
    }
    uint8_t *at = ret + w.len;
    uint32_t index_crc = layout_crc(0, ret, w.len);
    writer_u32(&w, MAGIC_TRAILER);
    writer_u32(&w, trailer->count);
    writer_u64(&w, trailer->bytes);
    writer_u64(&w, trailer->end);
    writer_u64(&w, (uint64_t)trailer->first_at);
    writer_u64(&w, (uint64_t)trailer->max_at);
    writer_u64(&w, 0);
    writer_u64(&w, 0);
    writer_u32(&w, index_crc);
    writer_u32(&w, layout_crc(0, at, STREAM_TRAILER - 4));
    CHECK(writer_ok(&w) && w.len == w.max);
}

enum layout_verdict stream_trailer_get(const uint8_t *bytes, struct stream_trailer *ret, uint32_t *ret_index_crc)
{
    struct reader r = reader_of(slice_of(bytes, STREAM_TRAILER));
    if (reader_u32(&r) != MAGIC_TRAILER)
        return LAYOUT_NOT_OURS;
    struct stream_trailer trailer = {.count = reader_u32(&r)};
    trailer.bytes = reader_u64(&r);
    trailer.end = reader_u64(&r);
    trailer.first_at = (wall_t)reader_u64(&r);
    trailer.max_at = (wall_t)reader_u64(&r);
    uint64_t zeros = reader_u64(&r);
    zeros |= reader_u64(&r);
    uint32_t index_crc = reader_u32(&r);
    if (reader_u32(&r) != layout_crc(0, bytes, STREAM_TRAILER - 4) || !reader_done(&r))
        return LAYOUT_DAMAGED;
    if (zeros || trailer.count > STREAM_INDEX_MAX || trailer.bytes > STREAM_POSITION_MAX)
        return LAYOUT_DAMAGED;
    *ret = trailer;
    *ret_index_crc = index_crc;
    return LAYOUT_GOOD;
}

bool stream_marks_get(struct slice bytes, uint32_t crc, uint64_t bytes_end, struct stream_mark *ret)
{
    struct reader r = reader_of(bytes);
    CHECK(bytes.len % STREAM_INDEX_ENTRY == 0);
    if (layout_crc(0, bytes.ptr, bytes.len) != crc)
        return false;
    for (struct stream_mark *mark = ret; r.left; mark++) {
        *mark = (struct stream_mark){.delta = reader_u32(&r), .position = reader_u32(&r)};
        mark->max_before = (wall_t)reader_u64(&r);
        bool ascends = mark == ret ? mark->delta == 0 && mark->position == LAYOUT_BLOCK
                                   : mark->delta > mark[-1].delta && mark->position > mark[-1].position &&
                                         mark->max_before >= mark[-1].max_before;
        if (!ascends || mark->position >= bytes_end)
            return false;
    }
    return reader_ok(&r);
}

/* ------------------------------------------------------------------------------------------------------------- scratch */

void stream_scratch_fini(struct stream_scratch *scratch)
{
    mem_free(scratch->bytes);
    mem_free(scratch->headers);
    mem_free(scratch->order);
    *scratch = (struct stream_scratch){0};
}

static bool scratch_bytes(struct stream_scratch *scratch, size_t len)
{
    if (len <= scratch->cap)
        return true;
    size_t cap = len < 4096 ? 4096 : len;
    uint8_t *bytes = mem_alloc(cap);
    if (!bytes)
        return false;
    mem_free(scratch->bytes);
    scratch->bytes = bytes;
    scratch->cap = cap;
    return true;
}

static bool scratch_headers(struct stream_scratch *scratch)
{
    if (!scratch->headers)
        scratch->headers = mem_alloc(HEADERS_MAX * sizeof scratch->headers[0]);
    if (!scratch->order)
        scratch->order = mem_alloc(HEADERS_MAX * sizeof scratch->order[0]);
    return scratch->headers && scratch->order;
}

/* ------------------------------------------------------------------------------------------------------------- writing */

uint64_t stream_record_max(const struct msg *msg)
{
    /* names and properties in mr-amqp, one of them as the key, and each string of the properties once more */
    return 128u + 2u * msg->exchange_len + 2u * msg->key_len + 4ull * msg->props_len + msg->body_len;
}

static uint64_t expiration_field(const struct msg *msg)
{
    return msg->expiration_ms < 0 ? 0 : (uint64_t)msg->expiration_ms + 1;
}

static bool put_amqp(const struct msg *msg, struct stream_scratch *scratch, struct slice *ret)
{
    size_t names = (size_t)msg->exchange_len + msg->key_len + msg->props_len;
    if (!scratch_bytes(scratch, AMQP_FIXED_MAX + names))
        return false;
    struct writer w = writer_of(scratch->bytes, scratch->cap);
    writer_u8(&w, msg->flags);
    writer_u8(&w, msg->priority);
    writer_varint(&w, expiration_field(msg));
    writer_u8(&w, msg->exchange_len);
    writer_u8(&w, msg->key_len);
    writer_put(&w, msg->bytes, names); /* the three lie in this order */
    CHECK(writer_ok(&w));
    *ret = writer_slice(&w);
    return true;
}

/* The strings among the message's headers; how many. */
static uint32_t put_headers(const struct msg *msg, struct record_header *ret)
{
    struct amqp_props props;
    struct amqp_field field;
    uint32_t count = 0;
    if (!(msg->flags & MSG_HAS_HEADERS) || !amqp_props_parse(msg_props(msg), &props))
        return 0;
    struct reader r = reader_of(props.headers);
    while (amqp_table_next(&r, &field) && count < AMQP_TABLE_FIELDS_MAX) {
        if (!amqp_value_is_str(&field.value))
            continue;
        ret[count++] = (struct record_header){.key = field.name, .has_value = true, .value = field.value.s};
    }
    return count;
}

int stream_record_put(struct record_batch_writer *batch, wall_t timestamp, const struct msg *msg,
                      struct stream_scratch *scratch)
{
    struct record_header one, *headers = &one;
    struct slice key, body = msg_body(msg);
    bool has_key = record_key(msg, &key);
    uint32_t count = 1;
    if (msg->flags & MSG_HAS_HEADERS) {
        if (!scratch_headers(scratch))
            return -ENOMEM;
        headers = scratch->headers;
        count += put_headers(msg, headers + 1);
    }
    headers[0] = (struct record_header){.key = slice_str(NAME_AMQP), .has_value = true};
    if (!put_amqp(msg, scratch, &headers[0].value))
        return -ENOMEM;
    const struct slice *value =
        has_key && !body.len ? NULL : &body; /* AMQP's way to say null: its reader sees no difference */
    return record_batch_put(batch, timestamp, has_key ? &key : NULL, value, headers, count) ? 0 : -EFBIG;
}

/* ------------------------------------------------------------------------------------------------------------- reading */

/* Flags, priority and expiration as the engine makes them from a publish. False: no engine takes such properties. */
static bool props_look(struct slice raw, uint8_t *ret_flags, uint8_t *ret_priority, int64_t *ret_expiration_ms)
{
    struct amqp_props props = {0};
    *ret_expiration_ms = -1;
    if (raw.len == 2 && raw.ptr[0] == 0 && raw.ptr[1] == 0) { /* the two commonest need no parser */
        *ret_flags = *ret_priority = 0;
        return true;
    }
    if (raw.len == 3 && raw.ptr[0] == AMQP_DELIVERY_MODE >> 8 && raw.ptr[1] == 0) {
        *ret_flags = raw.ptr[2] == 2 ? MSG_PERSISTENT : 0;
        *ret_priority = 0;
        return raw.ptr[2] == 1 || raw.ptr[2] == 2;
    }
    if (!amqp_props_parse(raw, &props) || props.headers.len > HEADERS_BYTES_MAX ||
        !amqp_props_acceptable(&props, ret_expiration_ms, NULL, 0))
        return false;
    *ret_flags = (uint8_t)((props.delivery_mode == 2 ? MSG_PERSISTENT : 0) |
                           (props.present & AMQP_HEADERS ? MSG_HAS_HEADERS : 0) |
                           (props.present & AMQP_USER_ID ? MSG_HAS_USER_ID : 0) |
                           (props.present & AMQP_REPLY_TO ? MSG_HAS_REPLY_TO : 0));
    *ret_priority = props.priority;
    return true;
}

static int make_msg(struct slab_heap *mine, struct slice exchange, struct slice key, struct slice props,
                    const struct record *record, struct msg **ret)
{
    struct slice body = record->has_value ? record->value : (struct slice){0};
    struct msg *msg = msg_new(mine, exchange, key, props, body.len);
    if (!msg)
        return -ENOMEM;
    if (body.len)
        memcpy(msg_body_room(msg), body.ptr, body.len);
    *ret = msg;
    return 0;
}

/* -EILSEQ: this is no message of ours. */
static int get_amqp(struct slice value, const struct record *record, struct slab_heap *mine, struct msg **ret)
{
    struct reader r = reader_of(value);
    uint8_t flags, priority;
    int64_t expiration_ms;
    (void)reader_u8(&r); /* flags, priority and expiration follow from the properties */
    (void)reader_u8(&r);
    (void)reader_varint(&r);
    uint8_t exchange_len = reader_u8(&r), key_len = reader_u8(&r);
    struct slice exchange = reader_take(&r, exchange_len), key = reader_take(&r, key_len), props = reader_rest(&r);
    if (!reader_ok(&r) || !props_look(props, &flags, &priority, &expiration_ms))
        return -EILSEQ;
    int err = make_msg(mine, exchange, key, props, record, ret);
    if (err)
        return err;
    (*ret)->flags = flags;
    (*ret)->priority = priority;
    (*ret)->expiration_ms = expiration_ms;
    return 0;
}

static int compare_names(const void *a, const void *b, void *arg)
{
    const struct record_header *headers = arg;
    uint16_t x = *(const uint16_t *)a, y = *(const uint16_t *)b;
    struct slice s = headers[x].key, t = headers[y].key;
    int order =
        memcmp(s.ptr ? s.ptr : (const uint8_t *)"", t.ptr ? t.ptr : (const uint8_t *)"", s.len < t.len ? s.len : t.len);
    if (!order && s.len != t.len)
        order = s.len < t.len ? -1 : 1;
    return order ? order : (x > y) - (x < y);
}

/* Takes the names away from the earlier ones of equal names: they are left out. A name that AMQP has no room for is, too. */
static void leave_out(struct stream_scratch *scratch, uint32_t count)
{
    struct record_header *headers = scratch->headers;
    uint16_t *order = scratch->order;
    for (uint32_t i = 0; i < count; i++)
        order[i] = (uint16_t)i;
    if (count > 1)
        qsort_r(order, count, sizeof order[0], compare_names, headers);
    for (uint32_t i = 0; i < count; i++) {
        struct record_header *header = &headers[order[i]];
        bool again = i + 1 < count && slice_equal(header->key, headers[order[i + 1]].key);
        if (again || header->key.len > 255)
            header->key.ptr = NULL;
    }
}

/* False: these are no headers. At most AMQP_TABLE_FIELDS_MAX are taken. */
static bool headers_read(const struct record *record, struct record_header *ret, uint32_t *ret_count)
{
    struct slice left = record->headers;
    struct record_header header;
    uint32_t count = 0;
    for (uint32_t i = 0; i < record->header_count; i++) {
        if (!record_header_next(&left, &header))
            return false;
        if (count < AMQP_TABLE_FIELDS_MAX) {
            if (!header.key.ptr)
                header.key.ptr = (const uint8_t *)"";
            ret[count++] = header;
        }
    }
    *ret_count = count;
    return left.len == 0;
}

static void put_field(struct writer *w, const struct record_header *header)
{
    writer_str8(w, header->key);
    writer_u8(w, header->has_value ? 'x' : 'V');
    if (header->has_value)
        writer_str32(w, header->value);
}

/* The property list of a Kafka client's message: headers and timestamp, in that order on the wire. */
static int native_props(const struct record *record, struct stream_scratch *scratch, struct slice *ret)
{
    uint32_t count = 0;
    if (!scratch_bytes(scratch, 2 + 4 + HEADERS_BYTES_MAX + 8) || !scratch_headers(scratch))
        return -ENOMEM;
    if (!headers_read(record, scratch->headers, &count))
        return -EILSEQ;
    leave_out(scratch, count);
    struct writer w = writer_of(scratch->bytes, scratch->cap);
    uint16_t present = (uint16_t)((count ? AMQP_HEADERS : 0) | (record->timestamp >= 0 ? AMQP_TIMESTAMP : 0));
    writer_u16(&w, present);
    if (count) {
        size_t mark = writer_mark32(&w), max = w.len + HEADERS_BYTES_MAX;
        for (uint32_t i = 0; i < count; i++) {
            const struct record_header *header = &scratch->headers[i];
            size_t need = 1 + header->key.len + 1 + (header->has_value ? 4 + header->value.len : 0);
            if (header->key.ptr && need <= max - w.len)
                put_field(&w, header);
        }
        writer_patch32(&w, mark);
    }
    if (record->timestamp >= 0)
        writer_u64(&w, (uint64_t)record->timestamp / 1000);
    CHECK(writer_ok(&w));
    *ret = writer_slice(&w);
    return 0;
}

/* At most 255 bytes, and not in the middle of a character. */
static struct slice cut_key(struct slice key)
{
    size_t len = key.len;
    if (len <= 255)
        return key;
    for (len = 255; len > 252 && (key.ptr[len] & 0xc0) == 0x80;)
        len--;
    return slice_of(key.ptr, len);
}

static int get_native(const struct record *record, struct slab_heap *mine, struct stream_scratch *scratch,
                      struct msg **ret)
{
    struct slice props, key = record->has_key ? cut_key(record->key) : (struct slice){0};
    int err = native_props(record, scratch, &props);
    if (!err)
        err = make_msg(mine, (struct slice){0}, key, props, record, ret);
    if (!err && record->header_count)
        (*ret)->flags = MSG_HAS_HEADERS;
    return err;
}

int stream_record_get(const struct record *record, struct slab_heap *mine, struct stream_scratch *scratch,
                      struct msg **ret)
{
    struct slice headers = record->headers;
    struct record_header first;
    if (record->header_count && record_header_next(&headers, &first) && first.has_value &&
        slice_is(first.key, NAME_AMQP)) {
        int err = get_amqp(first.value, record, mine, ret);
        if (err != -EILSEQ)
            return err;
    }
    return get_native(record, mine, scratch, ret);
}
