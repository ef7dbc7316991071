/* The walkers, see codec.h. Both go through a table's fields, skip those that the version has not, and switch on the kind.
 *
 * The decoder reads untrusted bytes. It fails once and for good: the first fault is the verdict, then the reader is empty,
 * every length read is 0 and no loop goes on. A count is held against the bytes left and the least size of one element
 * before anything is taken from the arena; depth is that of the tables, which do not contain themselves. */
#include "proto/kafka/codec.h"

#include "base/reader.h"

/* Bytes on the wire at least; [1]: in flexible versions. */
static const uint8_t least[KAFKA_KINDS][2] = {
    [KAFKA_bool] = {1, 1},   [KAFKA_i8] = {1, 1},    [KAFKA_i16] = {2, 2},     [KAFKA_i32] = {4, 4},
    [KAFKA_i64] = {8, 8},    [KAFKA_u16] = {2, 2},   [KAFKA_f64] = {8, 8},     [KAFKA_uuid] = {16, 16},
    [KAFKA_string] = {2, 1}, [KAFKA_bytes] = {4, 1}, [KAFKA_records] = {4, 1}, [KAFKA_PART] = {0, 0},
    [KAFKA_LIST] = {4, 1},   [KAFKA_ARRAY] = {4, 1},
};

static const uint8_t item_len[KAFKA_KINDS] = {
    [KAFKA_bool] = sizeof(bool),           [KAFKA_i8] = sizeof(int8_t),
    [KAFKA_i16] = sizeof(int16_t),         [KAFKA_i32] = sizeof(int32_t),
    [KAFKA_i64] = sizeof(int64_t),         [KAFKA_u16] = sizeof(uint16_t),
    [KAFKA_f64] = sizeof(double),          [KAFKA_uuid] = sizeof(struct kafka_uuid),
    [KAFKA_string] = sizeof(struct slice), [KAFKA_bytes] = sizeof(struct slice),
};

static const uint8_t nothing[1]; /* what empty slices point to that come from nowhere */

size_t kafka_least_size(const struct kafka_table *table, struct kafka_form form)
{
    size_t len = form.flexible;
    for (const struct kafka_field *f = table->fields; f < table->fields + table->field_count && !f->tag; f++) {
        if (!kafka_field_in(f, form.version))
            continue;
        if (f->kind != KAFKA_PART)
            len += least[f->kind][form.flexible];
        else
            len += kafka_field_nullable(f, form.version) ? 1 : kafka_least_size(f->element, form);
    }
    return len;
}

/* ----------------------------------------------------------------------------------------------------------- defaults */

/* `to` is zeroed. */
static inline void set_default(const struct kafka_field *f, void *to)
{
    switch ((enum kafka_kind)f->kind) {
    case KAFKA_bool: *(bool *)to = f->otherwise != 0; break;
    case KAFKA_i8: *(int8_t *)to = (int8_t)f->otherwise; break;
    case KAFKA_i16: *(int16_t *)to = (int16_t)f->otherwise; break;
    case KAFKA_i32: *(int32_t *)to = f->otherwise; break;
    case KAFKA_i64: *(int64_t *)to = f->otherwise; break;
    case KAFKA_string:
    case KAFKA_bytes:
    case KAFKA_records: ((struct slice *)to)->ptr = f->otherwise ? NULL : nothing; break;
    case KAFKA_LIST:
    case KAFKA_ARRAY: ((struct kafka_array *)to)->count = f->otherwise; break;
    case KAFKA_u16:
    case KAFKA_f64:
    case KAFKA_uuid:
    case KAFKA_PART:
    case KAFKA_KINDS: break;
    }
}

void kafka_defaults(const struct kafka_table *table, void *ret)
{
    memset(ret, 0, table->struct_len);
    for (const struct kafka_field *f = table->fields; f < table->fields + table->field_count; f++)
        set_default(f, (uint8_t *)ret + f->at);
}

/* ----------------------------------------------------------------------------------------------------------- decoding */

struct decoder {
    struct reader r;
    struct kafka_form form;
    enum kafka_verdict verdict; /* of the first fault that is not a reader's */
    struct arena *arena;
};

static void decode_struct(struct decoder *d, const struct kafka_table *table, uint8_t *to);

static void refuse(struct decoder *d, enum kafka_verdict why)
{
    if (reader_ok(&d->r)) /* otherwise this is only what follows from an earlier fault */
        d->verdict = why;
    reader_fail(&d->r);
}

static uint32_t take_long_varint(struct decoder *d)
{
    uint32_t value = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        uint8_t byte = reader_u8(&d->r);
        if (shift == 28 && byte > 0xf)
            break;
        value |= (uint32_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return reader_ok(&d->r) ? value : 0;
    }
    refuse(d, KAFKA_BAD_LENGTH);
    return 0;
}

static inline uint32_t take_varint(struct decoder *d)
{
    if (d->r.left == 0 || d->r.at[0] & 0x80)
        return take_long_varint(d);
    d->r.left--;
    return *d->r.at++;
}

/* The length of a string, bytes, or an array; -1: null, which the field may be. */
static inline int64_t take_len(struct decoder *d, const struct kafka_field *f, unsigned kind)
{
    int64_t len;
    if (d->form.flexible)
        len = (int64_t)take_varint(d) - 1;
    else
        len = kind == KAFKA_string ? (int16_t)reader_u16(&d->r) : (int32_t)reader_u32(&d->r);
    if (len >= 0)
        return len;
    if (len < -1 || !f || !kafka_field_nullable(f, d->form.version)) {
        refuse(d, KAFKA_BAD_LENGTH);
        return 0;
    }
    return -1;
}

/* f is NULL for an item of a list, which is never null. */
static inline void decode_slice(struct decoder *d, const struct kafka_field *f, unsigned kind, struct slice *to)
{
    int64_t len = take_len(d, f, kind);
    if (len > INT16_MAX && kind == KAFKA_string) { /* a compact one could; Kafka refuses it */
        refuse(d, KAFKA_BAD_LENGTH);
        len = 0;
    }
    *to = len < 0 ? (struct slice){0} : reader_take(&d->r, (size_t)len);
}

static inline struct kafka_uuid take_uuid(struct decoder *d)
{
    struct kafka_uuid uuid = {0};
    struct slice s = reader_take(&d->r, sizeof uuid.bytes);
    if (s.len)
        memcpy(uuid.bytes, s.ptr, sizeof uuid.bytes);
    return uuid;
}

static inline double take_f64(struct decoder *d)
{
    uint64_t bits = reader_u64(&d->r);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A number, or one that is a slice. */
static inline void decode_value(struct decoder *d, const struct kafka_field *f, unsigned kind, void *to)
{
    switch (kind) {
    case KAFKA_bool: *(bool *)to = reader_u8(&d->r) != 0; break;
    case KAFKA_i8: *(int8_t *)to = (int8_t)reader_u8(&d->r); break;
    case KAFKA_i16: *(int16_t *)to = (int16_t)reader_u16(&d->r); break;
    case KAFKA_i32: *(int32_t *)to = (int32_t)reader_u32(&d->r); break;
    case KAFKA_i64: *(int64_t *)to = (int64_t)reader_u64(&d->r); break;
    case KAFKA_u16: *(uint16_t *)to = reader_u16(&d->r); break;
    case KAFKA_f64: *(double *)to = take_f64(d); break;
    case KAFKA_uuid: *(struct kafka_uuid *)to = take_uuid(d); break;
    default: decode_slice(d, f, kind, to); break;
    }
}

/* Room for the array's elements, or NULL when there are none, which may be a fault. */
static uint8_t *array_room(struct decoder *d, const struct kafka_field *f, size_t each_least, size_t each,
                           struct kafka_array *to)
{
    int64_t count = take_len(d, f, f->kind);
    *to = (struct kafka_array){.count = count < 0 ? -1 : 0};
    if (count <= 0)
        return NULL;
    if ((uint64_t)count > d->r.left / each_least || count > INT32_MAX) {
        refuse(d, KAFKA_SHORT);
        return NULL;
    }
    uint8_t *room = arena_take(d->arena, (size_t)count * each);
    if (!room) {
        refuse(d, KAFKA_NO_MEMORY);
        return NULL;
    }
    *to = (struct kafka_array){.at = room, .count = (int32_t)count};
    return room;
}

static void decode_list(struct decoder *d, const struct kafka_field *f, struct kafka_array *to)
{
    size_t each = item_len[f->item];
    uint8_t *at = array_room(d, f, least[f->item][d->form.flexible], each, to);
    if (!at)
        return;
    for (uint8_t *end = at + (size_t)to->count * each; at < end; at += each)
        decode_value(d, NULL, f->item, at);
}

static void decode_array(struct decoder *d, const struct kafka_field *f, struct kafka_array *to)
{
    size_t each = f->element->struct_len;
    uint8_t *at = array_room(d, f, kafka_least_size(f->element, d->form), each, to);
    if (!at)
        return;
    memset(at, 0, (size_t)to->count * each);
    for (uint8_t *end = at + (size_t)to->count * each; at < end && reader_ok(&d->r); at += each)
        decode_struct(d, f->element, at);
}

static void decode_part(struct decoder *d, const struct kafka_field *f, void **to)
{
    *to = NULL;
    if (kafka_field_nullable(f, d->form.version) && (int8_t)reader_u8(&d->r) < 0)
        return;
    uint8_t *room = arena_take(d->arena, f->element->struct_len);
    if (!room) {
        refuse(d, KAFKA_NO_MEMORY);
        return;
    }
    memset(room, 0, f->element->struct_len);
    decode_struct(d, f->element, room);
    *to = room;
}

static inline void decode_field(struct decoder *d, const struct kafka_field *f, void *to)
{
    switch (f->kind) {
    case KAFKA_PART: decode_part(d, f, to); break;
    case KAFKA_LIST: decode_list(d, f, to); break;
    case KAFKA_ARRAY: decode_array(d, f, to); break;
    default: decode_value(d, f, f->kind, to); break;
    }
}

/* One tagged field must fill its length exactly. */
static void decode_tagged(struct decoder *d, const struct kafka_field *f, struct slice bytes, void *to)
{
    struct reader outer = d->r;
    d->r = reader_of(bytes);
    decode_field(d, f, to);
    bool filled = reader_done(&d->r);
    d->r = outer;
    if (filled)
        return;
    if (d->verdict == KAFKA_OK)
        d->verdict = KAFKA_BAD_LENGTH;
    reader_fail(&d->r);
}

/* f..end: the tagged fields that are known. One that comes twice counts the second time, as in Kafka. */
static void decode_tags(struct decoder *d, const struct kafka_field *f, const struct kafka_field *end, uint8_t *to)
{
    for (uint32_t count = take_varint(d); count > 0 && reader_ok(&d->r); count--) {
        uint32_t tag = take_varint(d);
        struct slice bytes = reader_take(&d->r, take_varint(d));
        const struct kafka_field *known = f;
        while (known < end && (known->tag - 1u != tag || !kafka_field_in(known, d->form.version)))
            known++;
        if (known < end && reader_ok(&d->r))
            decode_tagged(d, known, bytes, to + known->at);
    }
}

static void decode_struct(struct decoder *d, const struct kafka_table *table, uint8_t *to)
{
    const struct kafka_field *f = table->fields, *end = f + table->field_count;
    for (; f < end && !f->tag; f++) {
        if (kafka_field_in(f, d->form.version))
            decode_field(d, f, to + f->at);
        else
            set_default(f, to + f->at);
    }
    for (const struct kafka_field *tagged = f; tagged < end; tagged++)
        set_default(tagged, to + tagged->at);
    if (d->form.flexible)
        decode_tags(d, f, end, to);
}

enum kafka_verdict kafka_decode(const struct kafka_table *table, struct kafka_form form, struct slice bytes,
                                struct arena *arena, void *ret)
{
    struct decoder d = {.r = reader_of(bytes), .form = form, .arena = arena};
    memset(ret, 0, table->struct_len);
    decode_struct(&d, table, ret);
    if (d.verdict != KAFKA_OK)
        return d.verdict;
    if (!reader_ok(&d.r))
        return KAFKA_SHORT;
    return d.r.left ? KAFKA_TRAILING : KAFKA_OK;
}

/* ----------------------------------------------------------------------------------------------------------- encoding */

struct encoder {
    struct writer *w;
    struct kafka_form form;
    struct kafka_cuts *cuts; /* NULL: none allowed; and none noted while only counting, when w has no buffer */
};

static void encode_struct(struct encoder *e, const struct kafka_table *table, const uint8_t *from);

/* A writer without a buffer writes nothing and counts. */
static struct writer counting(void)
{
    return writer_of(NULL, SIZE_MAX);
}

static inline void put_len(struct encoder *e, unsigned kind, int64_t len)
{
    if (e->form.flexible)
        writer_varint(e->w, (uint64_t)(len + 1));
    else if (kind == KAFKA_string)
        writer_u16(e->w, (uint16_t)len);
    else
        writer_u32(e->w, (uint32_t)len);
}

static inline bool put_null(struct encoder *e, const struct kafka_field *f, unsigned kind)
{
    if (!f || !kafka_field_nullable(f, e->form.version))
        return false;
    put_len(e, kind, -1);
    return true;
}

/* Bytes that somebody else sends. */
static void put_elsewhere(struct encoder *e, size_t len)
{
    if (!e->w->base) {
        (void)writer_room(e->w, len);
        return;
    }
    if (!e->cuts || e->cuts->count == e->cuts->max) {
        e->w->failed = true;
        return;
    }
    e->cuts->list[e->cuts->count++] = (struct kafka_cut){.at = e->w->len, .len = len};
    e->cuts->bytes += len;
}

static inline void encode_slice(struct encoder *e, const struct kafka_field *f, unsigned kind, struct slice s)
{
    if (!s.ptr && !s.len && put_null(e, f, kind))
        return;
    if (s.len >
        (kind == KAFKA_string ? INT16_MAX : INT32_MAX)) { /* Kafka's clients read no longer string in any form */
        e->w->failed = true;
        return;
    }
    put_len(e, kind, (int64_t)s.len);
    if (s.ptr || !s.len)
        writer_slice_put(e->w, s);
    else
        put_elsewhere(e, s.len);
}

static inline void put_f64(struct writer *w, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    writer_u64(w, bits);
}

static inline void encode_value(struct encoder *e, const struct kafka_field *f, unsigned kind, const void *from)
{
    switch (kind) {
    case KAFKA_bool: writer_u8(e->w, *(const bool *)from); break;
    case KAFKA_i8: writer_u8(e->w, (uint8_t) * (const int8_t *)from); break;
    case KAFKA_i16: writer_u16(e->w, (uint16_t) * (const int16_t *)from); break;
    case KAFKA_i32: writer_u32(e->w, (uint32_t) * (const int32_t *)from); break;
    case KAFKA_i64: writer_u64(e->w, (uint64_t) * (const int64_t *)from); break;
    case KAFKA_u16: writer_u16(e->w, *(const uint16_t *)from); break;
    case KAFKA_f64: put_f64(e->w, *(const double *)from); break;
    case KAFKA_uuid: writer_put(e->w, from, sizeof(struct kafka_uuid)); break;
    default: encode_slice(e, f, kind, *(const struct slice *)from); break;
    }
}

static void encode_many(struct encoder *e, const struct kafka_field *f, const struct kafka_array *array)
{
    if (array->count < 0 && put_null(e, f, f->kind))
        return;
    size_t each = f->kind == KAFKA_LIST ? item_len[f->item] : f->element->struct_len;
    int32_t count = array->count < 0 ? 0 : array->count;
    const uint8_t *at = array->at;
    put_len(e, f->kind, count);
    for (int32_t i = 0; i < count && writer_ok(e->w); i++, at += each) {
        if (f->kind == KAFKA_LIST)
            encode_value(e, NULL, f->item, at);
        else
            encode_struct(e, f->element, at);
    }
}

/* What a missing struct says where null is not known. */
static void encode_defaults(struct encoder *e, const struct kafka_table *table)
{
    for (const struct kafka_field *f = table->fields; f < table->fields + table->field_count && !f->tag; f++) {
        union {
            int64_t number;
            struct slice slice;
            struct kafka_array array;
            struct kafka_uuid uuid;
        } value = {.uuid = {{0}}};
        if (!kafka_field_in(f, e->form.version))
            continue;
        set_default(f, &value);
        if (f->kind == KAFKA_PART)
            encode_defaults(e, f->element);
        else if (f->kind == KAFKA_LIST || f->kind == KAFKA_ARRAY)
            encode_many(e, f, &value.array);
        else
            encode_value(e, f, f->kind, &value);
    }
    if (e->form.flexible)
        writer_u8(e->w, 0);
}

static void encode_part(struct encoder *e, const struct kafka_field *f, const uint8_t *part)
{
    if (kafka_field_nullable(f, e->form.version))
        writer_u8(e->w, part ? 1 : 0xff);
    else if (!part)
        encode_defaults(e, f->element);
    if (part)
        encode_struct(e, f->element, part);
}

static inline void encode_field(struct encoder *e, const struct kafka_field *f, const void *from)
{
    switch (f->kind) {
    case KAFKA_PART: encode_part(e, f, *(uint8_t *const *)from); break;
    case KAFKA_LIST:
    case KAFKA_ARRAY: encode_many(e, f, from); break;
    default: encode_value(e, f, f->kind, from); break;
    }
}

/* A tagged field is on the wire only when it says something else than its default. */
static bool differs(const struct kafka_field *f, uint8_t version, const void *from)
{
    static const struct kafka_uuid zero;
    bool nullable = kafka_field_nullable(f, version);
    const struct slice *s = from;
    int32_t count;
    switch ((enum kafka_kind)f->kind) {
    case KAFKA_bool: return *(const bool *)from != (f->otherwise != 0);
    case KAFKA_i8: return *(const int8_t *)from != f->otherwise;
    case KAFKA_i16: return *(const int16_t *)from != f->otherwise;
    case KAFKA_i32: return *(const int32_t *)from != f->otherwise;
    case KAFKA_i64: return *(const int64_t *)from != f->otherwise;
    case KAFKA_u16: return *(const uint16_t *)from != 0;
    case KAFKA_f64: return *(const double *)from != 0;
    case KAFKA_uuid: return memcmp(from, &zero, sizeof zero) != 0;
    case KAFKA_string:
    case KAFKA_bytes:
    case KAFKA_records: return s->len || (nullable && (s->ptr == NULL) != (f->otherwise != 0));
    case KAFKA_LIST:
    case KAFKA_ARRAY:
        count = ((const struct kafka_array *)from)->count;
        return count > 0 || (nullable && count != f->otherwise);
    case KAFKA_PART: return *(void *const *)from != NULL;
    case KAFKA_KINDS: break;
    }
    return false;
}

static void encode_tags(struct encoder *e, const struct kafka_field *f, const struct kafka_field *end,
                        const uint8_t *from)
{
    uint32_t count = 0;
    for (const struct kafka_field *k = f; k < end; k++)
        count += kafka_field_in(k, e->form.version) && differs(k, e->form.version, from + k->at);
    writer_varint(e->w, count);
    for (const struct kafka_field *k = f; k < end && count; k++) {
        if (!kafka_field_in(k, e->form.version) || !differs(k, e->form.version, from + k->at))
            continue;
        struct writer size = counting();
        struct encoder sizing = {.w = &size, .form = e->form};
        encode_field(&sizing, k, from + k->at);
        writer_varint(e->w, k->tag - 1u);
        writer_varint(e->w, size.len);
        encode_field(e, k, from + k->at);
    }
}

static void encode_struct(struct encoder *e, const struct kafka_table *table, const uint8_t *from)
{
    const struct kafka_field *f = table->fields, *end = f + table->field_count;
    for (; f < end && !f->tag; f++) {
        if (kafka_field_in(f, e->form.version))
            encode_field(e, f, from + f->at);
    }
    if (!e->form.flexible)
        return;
    if (f == end)
        writer_u8(e->w, 0);
    else
        encode_tags(e, f, end, from);
}

void kafka_encode(struct writer *w, const struct kafka_table *table, struct kafka_form form, const void *message,
                  struct kafka_cuts *cuts)
{
    struct encoder e = {.w = w, .form = form, .cuts = cuts};
    encode_struct(&e, table, message);
}

size_t kafka_encode_size(const struct kafka_table *table, struct kafka_form form, const void *message)
{
    struct writer w = counting();
    kafka_encode(&w, table, form, message, NULL);
    return writer_ok(&w) ? w.len : SIZE_MAX;
}
