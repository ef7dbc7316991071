/* Tables and JSON, see table_json.h. Any thread. */
#include "admin/table_json.h"

#include "base/mem.h"
#include "fmt/amqp_table.h"

static bool put_value(struct writer *w, const char *name, const json_t *value, unsigned depth);

static bool put_items(struct writer *w, const json_t *list, unsigned depth)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        /* an element is a field without a name: written as one, then the empty name's length byte is taken out */
        size_t at = w->len;
        if (!put_value(w, "", item, depth))
            return false;
        if (w->failed)
            return false;
        memmove(w->base + at, w->base + at + 1, w->len - at - 1);
        w->len--;
    }
    return true;
}

static bool put_fields(struct writer *w, const json_t *object, unsigned depth)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (strlen(key) > 255 || !put_value(w, key, value, depth))
            return false;
    }
    return true;
}

/* A list's items are moved by one byte after they are written, so the marks inside them must be closed by then: they are,
 * because every nested value closes its own mark before it returns. */
static bool put_value(struct writer *w, const char *name, const json_t *value, unsigned depth)
{
    if (depth >= AMQP_TABLE_DEPTH_MAX)
        return false;
    size_t mark;
    bool ok = true;
    switch (json_typeof(value)) {
    case JSON_STRING: amqp_put_str(w, name, slice_of(json_string_value(value), json_string_length(value))); break;
    case JSON_INTEGER: amqp_put_long(w, name, json_integer_value(value)); break;
    case JSON_TRUE:
    case JSON_FALSE: amqp_put_bool(w, name, json_is_true(value)); break;
    case JSON_NULL: {
        struct amqp_value none = {.type = 'V'};
        amqp_put_field(w, slice_str(name), &none);
        break;
    }
    case JSON_REAL: {
        double number = json_real_value(value);
        uint64_t bits;
        memcpy(&bits, &number, sizeof bits);
        bits = htobe64(bits);
        struct amqp_value real = {.type = 'd', .raw = slice_of(&bits, sizeof bits), .d = number};
        amqp_put_field(w, slice_str(name), &real);
        break;
    }
    case JSON_OBJECT:
        mark = amqp_open(w, name, 'F');
        ok = put_fields(w, value, depth + 1);
        amqp_close(w, mark);
        break;
    case JSON_ARRAY:
        mark = amqp_open(w, name, 'A');
        ok = put_items(w, value, depth + 1);
        amqp_close(w, mark);
        break;
    }
    return ok && writer_ok(w);
}

bool table_from_json(struct writer *w, const json_t *object)
{
    if (!object || json_is_null(object))
        return true;
    return json_is_object(object) && put_fields(w, object, 0) && writer_ok(w);
}

json_t *text_to_json(struct slice text)
{
    json_t *json = json_stringn((const char *)text.ptr, text.len);
    if (json || text.len > 1u << 20)
        return json;
    char *wide = mem_alloc(text.len * 2 + 1);
    if (!wide)
        return NULL;
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        if (c >= 0x80)
            wide[len++] = (char)(0xc0 | c >> 6);
        wide[len++] = (char)(c >= 0x80 ? 0x80 | (c & 0x3f) : c);
    }
    json = json_stringn(wide, len);
    mem_free(wide);
    return json;
}

static json_t *array_to_json(struct slice array);

static json_t *value_to_json(const struct amqp_value *value)
{
    switch (value->type) {
    case 't': return json_boolean(value->i != 0);
    case 'f':
    case 'd': return json_real(value->d);
    case 'S':
    case 'x': return text_to_json(value->s);
    case 'F': return table_to_json(value->s);
    case 'A': return array_to_json(value->s);
    case 'D': {
        double scaled = value->decimal.unscaled;
        for (unsigned i = 0; i < value->decimal.scale; i++)
            scaled /= 10;
        return json_real(scaled);
    }
    case 'V': return json_null();
    default: return json_integer(value->i);
    }
}

static json_t *array_to_json(struct slice array)
{
    json_t *list = json_array();
    struct reader r = reader_of(array);
    struct amqp_value value;
    while (list && amqp_array_next(&r, &value))
        if (json_array_append_new(list, value_to_json(&value)) < 0)
            reader_fail(&r);
    if (list && reader_ok(&r))
        return list;
    json_decref(list);
    return NULL;
}

json_t *table_to_json(struct slice table)
{
    json_t *object = json_object();
    struct reader r = reader_of(table);
    struct amqp_field field;
    while (object && amqp_table_next(&r, &field)) {
        json_t *value = value_to_json(&field.value);
        char name[256];
        memcpy(name, field.name.ptr, field.name.len);
        name[field.name.len] = '\0';
        if (!value || json_object_set_new(object, name, value) < 0)
            reader_fail(&r);
    }
    if (object && reader_ok(&r))
        return object;
    json_decref(object);
    return NULL;
}
