/* The tables of api.def and errors.def, and the headers, see api.h. */
#include "proto/kafka/api.h"

#define NEVER KAFKA_NEVER
#define BEFORE true
#define AFTER false

const struct kafka_api kafka_apis[] = {
#define API(number, api, title, first_, last_, announced, flexible, when)                                              \
    {.name = title,                                                                                                    \
     .request = &kafka_##api##_request_table,                                                                          \
     .response = &kafka_##api##_response_table,                                                                        \
     .key = number,                                                                                                    \
     .first = first_,                                                                                                  \
     .last = last_,                                                                                                    \
     .first_announced = announced,                                                                                     \
     .flexible_from = flexible,                                                                                        \
     .before_login = when},
#include "proto/kafka/api.def"
#undef API
};

const size_t kafka_api_count = ARRAY_LEN(kafka_apis);

enum row_number {
#define API(number, name, title, first, last, announced, flexible, when) ROW_##name,
#include "proto/kafka/api.def"
#undef API
};

/* By key, the row's number + 1. */
static const uint8_t row_of[] = {
#define API(number, name, title, first, last, announced, flexible, when) [number] = ROW_##name + 1,
#include "proto/kafka/api.def"
#undef API
};

const struct kafka_api *kafka_api_find(int16_t key)
{
    if (key < 0 || (size_t)key >= sizeof row_of || row_of[key] == 0)
        return NULL;
    return &kafka_apis[row_of[key] - 1];
}

/* ------------------------------------------------------------------------------------------------------------- headers */

/* Tagged fields of a header: Kafka has none yet, so all are passed over. At most one number of five bytes each. */
static void skip_tags(struct reader *r)
{
    for (uint64_t count = reader_varint(r); count > 0 && reader_ok(r); count--) {
        (void)reader_varint(r);
        (void)reader_take(r, reader_varint(r));
    }
}

enum kafka_head_verdict kafka_request_head(struct slice request, struct kafka_request_head *ret, struct slice *ret_body)
{
    struct reader r = reader_of(request);
    struct kafka_request_head head = {
        .key = (int16_t)reader_u16(&r), .version = (int16_t)reader_u16(&r), .correlation_id = (int32_t)reader_u32(&r)};
    if (!reader_ok(&r))
        return KAFKA_HEAD_DAMAGED;
    head.api = kafka_api_find(head.key);
    bool known = head.api && kafka_api_speaks(head.api, head.version);
    if (!known) {
        *ret = head;
        return head.api ? KAFKA_HEAD_UNKNOWN_VERSION : KAFKA_HEAD_UNKNOWN_KEY;
    }
    head.form = kafka_api_form(head.api, (uint8_t)head.version);
    int16_t len = (int16_t)reader_u16(&r); /* never compact, lest old brokers misread the header */
    if (len < -1)
        return KAFKA_HEAD_DAMAGED;
    if (len >= 0)
        head.client_id = reader_take(&r, (size_t)len);
    if (head.form.flexible)
        skip_tags(&r);
    if (!reader_ok(&r))
        return KAFKA_HEAD_DAMAGED;
    *ret = head;
    *ret_body = reader_rest(&r);
    return KAFKA_HEAD_OK;
}

enum kafka_verdict kafka_request_decode(const struct kafka_request_head *head, struct slice body, struct arena *arena,
                                        void **ret)
{
    void *message = arena_take(arena, head->api->request->struct_len);
    if (!message)
        return KAFKA_NO_MEMORY;
    enum kafka_verdict verdict = kafka_decode(head->api->request, head->form, body, arena, message);
    if (verdict == KAFKA_OK || verdict == KAFKA_TRAILING)
        *ret = message;
    return verdict;
}

static bool response_head_has_tags(const struct kafka_api *api, struct kafka_form form)
{
    return form.flexible && api->key != KAFKA_API_api_versions;
}

size_t kafka_response_head_size(const struct kafka_api *api, struct kafka_form form)
{
    return KAFKA_LENGTH_BYTES + sizeof(int32_t) + response_head_has_tags(api, form);
}

size_t kafka_response_begin(struct writer *w, const struct kafka_api *api, struct kafka_form form,
                            int32_t correlation_id)
{
    size_t mark = writer_mark32(w);
    writer_u32(w, (uint32_t)correlation_id);
    if (response_head_has_tags(api, form))
        writer_u8(w, 0);
    return mark;
}

void kafka_response_end(struct writer *w, size_t mark, size_t bytes_elsewhere)
{
    if (!writer_ok(w))
        return;
    size_t len = w->len - mark - KAFKA_LENGTH_BYTES;
    if (bytes_elsewhere > INT32_MAX - len || len > INT32_MAX) {
        w->failed = true;
        return;
    }
    uint32_t wire = htobe32((uint32_t)(len + bytes_elsewhere));
    memcpy(w->base + mark, &wire, sizeof wire);
}

size_t kafka_request_begin(struct writer *w, const struct kafka_api *api, struct kafka_form form,
                           int32_t correlation_id, struct slice client_id)
{
    size_t mark = writer_mark32(w);
    writer_u16(w, (uint16_t)api->key);
    writer_u16(w, form.version);
    writer_u32(w, (uint32_t)correlation_id);
    if (client_id.len > INT16_MAX)
        w->failed = true;
    writer_u16(w, client_id.ptr ? (uint16_t)client_id.len : UINT16_MAX);
    writer_slice_put(w, client_id);
    if (form.flexible)
        writer_u8(w, 0);
    return mark;
}

void kafka_request_end(struct writer *w, size_t mark)
{
    kafka_response_end(w, mark, 0);
}

bool kafka_response_head(struct slice response, const struct kafka_api *api, struct kafka_form form,
                         int32_t *ret_correlation_id, struct slice *ret_body)
{
    struct reader r = reader_of(response);
    int32_t correlation_id = (int32_t)reader_u32(&r);
    if (response_head_has_tags(api, form))
        skip_tags(&r);
    if (!reader_ok(&r))
        return false;
    *ret_correlation_id = correlation_id;
    *ret_body = reader_rest(&r);
    return true;
}

/* -------------------------------------------------------------------------------------------------------------- errors */

static const struct kafka_error_row errors[] = {
#define KAFKA_ERROR(number, title, again, sentence)                                                                    \
    [number + 1] = {.code = number, .name = #title, .retriable = again, .text = sentence},
#include "proto/kafka/errors.def"
#undef KAFKA_ERROR
};

const struct kafka_error_row *kafka_error_row(int code)
{
    if (code < -1 || code + 1 >= (int)ARRAY_LEN(errors))
        code = KAFKA_ERR_UNKNOWN_SERVER_ERROR;
    return &errors[code + 1];
}
