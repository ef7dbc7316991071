/* Fuzz target of field tables and basic properties.
 * fuzz: -max_len=8192
 * covers: src/fmt/amqp_table.c src/fmt/amqp_props.c src/base/reader.h
 *
 * The first byte chooses: table, or properties. What is accepted is walked to the last value, printed, compared with
 * itself, written back field by field, and must then be the same bytes; properties must be the same bytes after parsing
 * and writing too. What is refused must be refused by walking as well as by the validity check, except for its limits.
 */
#include "base/check.h"
#include "base/mem.h"
#include "fmt/amqp_props.h"
#include "fmt/amqp_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void use_value(const struct amqp_value *value)
{
    char text[64];
    amqp_value_print(value, text, sizeof text);
    CHECK(strlen(text) < sizeof text);
    amqp_value_print_term(value, text, 1 + value->raw.len % sizeof text);
    CHECK(amqp_value_equal(value, value) || value->type == 'A' || value->type == 'F'); /* damage inside */
    CHECK(strcmp(amqp_type_name(value->type), "undefined") != 0);
}

static void rewrite_table(struct writer *w, struct slice table, bool valid, unsigned depth);

/* Nested values are opened anew instead of copied, so that lengths are patched at every level. */
static void rewrite_nested(struct writer *w, const struct amqp_value *value, bool valid, unsigned depth)
{
    size_t mark = amqp_open_element(w, value->type);
    struct reader r = reader_of(value->s);
    struct amqp_value element;
    if (value->type == 'F') {
        rewrite_table(w, value->s, valid, depth);
    } else {
        while (amqp_array_next(&r, &element)) {
            use_value(&element);
            if (element.type == 'A' || element.type == 'F') {
                if (depth < 2 * AMQP_TABLE_DEPTH_MAX)
                    rewrite_nested(w, &element, valid, depth + 1);
                continue;
            }
            writer_u8(w, (uint8_t)element.type);
            writer_slice_put(w, element.raw);
        }
        CHECK(!valid || reader_done(&r));
    }
    amqp_close(w, mark);
}

static void rewrite_table(struct writer *w, struct slice table, bool valid, unsigned depth)
{
    struct reader r = reader_of(table);
    struct amqp_field field;
    while (amqp_table_next(&r, &field)) {
        use_value(&field.value);
        if (field.value.type != 'A' && field.value.type != 'F') {
            amqp_put_field(w, field.name, &field.value);
            continue;
        }
        writer_str8(w, field.name);
        if (depth < 2 * AMQP_TABLE_DEPTH_MAX)
            rewrite_nested(w, &field.value, valid, depth + 1);
    }
    CHECK(!valid || reader_done(&r));
}

static void check_find(struct slice table)
{
    struct reader r = reader_of(table);
    struct amqp_field field;
    struct amqp_value found;
    for (unsigned i = 0; i < 16 && amqp_table_next(&r, &field); i++)
        CHECK(amqp_table_find_slice(table, field.name, &found));
}

static void try_table(struct slice table)
{
    bool valid = amqp_table_valid(table);
    uint8_t *room = mem_alloc(table.len + 1);
    CHECK(room);
    struct writer w = writer_of(room, table.len);
    rewrite_table(&w, table, valid, 1);
    if (valid) {
        CHECK(writer_ok(&w) && slice_equal(writer_slice(&w), table));
        check_find(table);
        struct amqp_value a = {.type = 'F', .s = table};
        CHECK(amqp_value_equal(&a, &a));
    }
    mem_free(room);
}

static void try_props(struct slice raw)
{
    struct amqp_props props;
    if (!amqp_props_parse(raw, &props))
        return;
    size_t max = amqp_props_len_max(&props);
    CHECK(max >= raw.len && max <= raw.len + 64);
    uint8_t *room = mem_alloc(max);
    CHECK(room);
    struct writer w = writer_of(room, max);
    amqp_props_write(&w, &props);
    CHECK(writer_ok(&w) && slice_equal(writer_slice(&w), raw));
    if (props.present & AMQP_HEADERS)
        try_table(props.headers);
    mem_free(room);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    /* A block of exactly this size, so that the sanitizer sees a read beyond its end. */
    uint8_t *copy = mem_alloc(len - 1);
    CHECK(copy);
    if (len > 1)
        memcpy(copy, bytes + 1, len - 1);
    if (bytes[0] % 2 == 0)
        try_table(slice_of(copy, len - 1));
    else
        try_props(slice_of(copy, len - 1));
    mem_free(copy);
    return 0;
}
