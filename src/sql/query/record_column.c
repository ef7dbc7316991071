/* Keys and headers of records as columns, see record_column.h. */
#include "sql/query/record_column.h"

#include "base/utf8.h"
#include "fmt/base64.h"
#include "fmt/record_batch.h"
#include "sql/query/encode.h"

struct column record_keys(struct eval *e, const struct query_input *in)
{
    struct column c = {.form = FORM_TEXT, .values = eval_take(e, (in->rows + 1) * sizeof(struct slice))};
    struct slice *values = c.values;
    for (uint32_t i = 0; values && i < in->rows; i++) {
        struct slice key = in->keys ? in->keys[i] : (struct slice){0};
        bool bad = key.ptr && !utf8_valid(key);
        values[i] = bad ? (struct slice){0} : key;
        if (!key.ptr || bad)
            eval_null(e, &c, i);
        if (bad)
            eval_fault(e, i, SQL_FAULT_TEXT);
    }
    return c;
}

/* A header has two bytes beside its name and its value; so six times its length is room for what it becomes. */
static struct slice object_of(struct eval *e, struct slice headers)
{
    struct record_header h;
    uint8_t *begin = eval_take(e, 6 * headers.len + ENCODE_SPARE), *out = begin;
    if (!out)
        return (struct slice){0};
    *out++ = '{';
    while (record_header_next(&headers, &h)) {
        if (!utf8_valid(h.key) || slice_is(h.key, "mr-amqp"))
            continue;
        *out++ = '"';
        out = encode_escaped(out, h.key);
        *out++ = '"';
        *out++ = ':';
        if (!h.has_value) {
            memcpy(out, "null,", 5);
            out += 5;
            continue;
        }
        *out++ = '"';
        if (utf8_valid(h.value)) {
            out = encode_escaped(out, h.value);
        } else {
            base64_encode(h.value, (char *)out);
            out += BASE64_LEN(h.value.len);
        }
        *out++ = '"';
        *out++ = ',';
    }
    out -= out[-1] == ',';
    *out++ = '}';
    return slice_of(begin, (size_t)(out - begin));
}

struct column record_headers(struct eval *e, const struct query_input *in)
{
    struct column c = {.form = FORM_TEXT, .values = eval_take(e, (in->rows + 1) * sizeof(struct slice))};
    struct slice *values = c.values;
    for (uint32_t i = 0; values && i < in->rows; i++)
        values[i] = object_of(e, in->headers ? in->headers[i] : (struct slice){0});
    return c;
}
