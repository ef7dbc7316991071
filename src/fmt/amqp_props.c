/* The basic class's properties, see amqp_props.h. One row per property in the order of the wire, which is also the order
 * of the flags from the highest bit down; parsing, writing and measuring walk the same rows.
 *
 * The two lowest flag bits name nothing (bit 0 would announce another word of flags, which the basic class never needs):
 * a header with them set is refused rather than guessed at. Pure functions, any thread.
 */
#include "fmt/amqp_props.h"

#include <stdio.h>

#include "fmt/amqp_table.h"

enum kind { KIND_STR8, KIND_TABLE, KIND_U8, KIND_U64 };

static const struct prop_row {
    uint16_t flag;
    uint8_t kind;
    size_t at; /* in struct amqp_props */
} rows[] = {
    {AMQP_CONTENT_TYPE, KIND_STR8, offsetof(struct amqp_props, content_type)},
    {AMQP_CONTENT_ENCODING, KIND_STR8, offsetof(struct amqp_props, content_encoding)},
    {AMQP_HEADERS, KIND_TABLE, offsetof(struct amqp_props, headers)},
    {AMQP_DELIVERY_MODE, KIND_U8, offsetof(struct amqp_props, delivery_mode)},
    {AMQP_PRIORITY, KIND_U8, offsetof(struct amqp_props, priority)},
    {AMQP_CORRELATION_ID, KIND_STR8, offsetof(struct amqp_props, correlation_id)},
    {AMQP_REPLY_TO, KIND_STR8, offsetof(struct amqp_props, reply_to)},
    {AMQP_EXPIRATION, KIND_STR8, offsetof(struct amqp_props, expiration)},
    {AMQP_MESSAGE_ID, KIND_STR8, offsetof(struct amqp_props, message_id)},
    {AMQP_TIMESTAMP, KIND_U64, offsetof(struct amqp_props, timestamp)},
    {AMQP_TYPE, KIND_STR8, offsetof(struct amqp_props, type)},
    {AMQP_USER_ID, KIND_STR8, offsetof(struct amqp_props, user_id)},
    {AMQP_APP_ID, KIND_STR8, offsetof(struct amqp_props, app_id)},
    {AMQP_CLUSTER_ID, KIND_STR8, offsetof(struct amqp_props, cluster_id)},
};

#define FLAGS_KNOWN 0xfffcu

static void *member(struct amqp_props *props, const struct prop_row *row)
{
    return (uint8_t *)props + row->at;
}

static const void *member_of(const struct amqp_props *props, const struct prop_row *row)
{
    return (const uint8_t *)props + row->at;
}

bool amqp_props_parse(struct slice raw, struct amqp_props *ret)
{
    struct reader r = reader_of(raw);
    struct amqp_props props = {.present = reader_u16(&r)};
    if (props.present & ~FLAGS_KNOWN)
        return false;
    for (const struct prop_row *row = rows; row < rows + ARRAY_LEN(rows); row++) {
        if (!(props.present & row->flag))
            continue;
        void *to = member(&props, row);
        switch ((enum kind)row->kind) {
        case KIND_STR8: *(struct slice *)to = reader_str8(&r); break;
        case KIND_TABLE: *(struct slice *)to = reader_str32(&r); break;
        case KIND_U8: *(uint8_t *)to = reader_u8(&r); break;
        case KIND_U64: *(uint64_t *)to = reader_u64(&r); break;
        }
    }
    if (!reader_done(&r) || ((props.present & AMQP_HEADERS) && !amqp_table_valid(props.headers)))
        return false;
    *ret = props;
    return true;
}

void amqp_props_write(struct writer *w, const struct amqp_props *props)
{
    writer_u16(w, props->present & FLAGS_KNOWN);
    for (const struct prop_row *row = rows; row < rows + ARRAY_LEN(rows); row++) {
        if (!(props->present & row->flag))
            continue;
        const void *from = member_of(props, row);
        switch ((enum kind)row->kind) {
        case KIND_STR8: writer_str8(w, *(const struct slice *)from); break;
        case KIND_TABLE: writer_str32(w, *(const struct slice *)from); break;
        case KIND_U8: writer_u8(w, *(const uint8_t *)from); break;
        case KIND_U64: writer_u64(w, *(const uint64_t *)from); break;
        }
    }
}

size_t amqp_props_len_max(const struct amqp_props *props)
{
    size_t len = sizeof props->present + 2 * sizeof(uint8_t) + sizeof(uint64_t);
    for (const struct prop_row *row = rows; row < rows + ARRAY_LEN(rows); row++)
        if ((props->present & row->flag) && (row->kind == KIND_STR8 || row->kind == KIND_TABLE))
            len += 4 + ((const struct slice *)member_of(props, row))->len;
    return len;
}

#define EXPIRATION_MAX_MS 315360000000ull /* ten years */

/* As Erlang's string:to_integer and RabbitMQ's checks of it. */
static bool expiration_parse(struct slice text, int64_t *ret, char *why, size_t why_len)
{
    size_t at = text.len && (text.ptr[0] == '-' || text.ptr[0] == '+') ? 1 : 0, digits = at;
    bool negative = text.len && text.ptr[0] == '-';
    uint64_t value = 0;
    for (; at < text.len && text.ptr[at] >= '0' && text.ptr[at] <= '9'; at++)
        value = value > UINT64_MAX / 20 ? value : value * 10 + (uint64_t)(text.ptr[at] - '0');
    if (at == digits)
        snprintf(why, why_len, "invalid expiration '%.*s': no_integer", SLICE_ARG(text));
    else if (at < text.len)
        snprintf(why, why_len, "invalid expiration '%.*s': {leftover_string,\"%.*s\"}", SLICE_ARG(text),
                 (int)(text.len - at), (const char *)text.ptr + at);
    else if (negative && value > 0)
        snprintf(why, why_len, "invalid expiration '%.*s': {value_negative,-%llu}", SLICE_ARG(text),
                 (unsigned long long)value);
    else if (value > EXPIRATION_MAX_MS)
        snprintf(why, why_len, "invalid expiration '%.*s': {value_too_large,%llu}", SLICE_ARG(text),
                 (unsigned long long)value);
    else {
        *ret = (int64_t)value;
        return true;
    }
    return false;
}

bool amqp_props_acceptable(const struct amqp_props *props, int64_t *ret_expiration_ms, char *why, size_t why_len)
{
    *ret_expiration_ms = -1;
    if ((props->present & AMQP_DELIVERY_MODE) && props->delivery_mode != 1 && props->delivery_mode != 2) {
        snprintf(why, why_len, "invalid message: {delivery_mode_unknown,%u}", props->delivery_mode);
        return false;
    }
    return !(props->present & AMQP_EXPIRATION) || expiration_parse(props->expiration, ret_expiration_ms, why, why_len);
}
