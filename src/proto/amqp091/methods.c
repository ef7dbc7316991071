/* The method table turned into constant rows, and the one decoder and encoder that walk them, see methods.h.
 *
 * The two hottest methods (basic.publish in, basic.deliver out) and acknowledgements also have code of their own where
 * frames are parsed and written; the tests hold those against this one. Pure, any thread. */
#include "proto/amqp091/methods.h"

#include "base/reader.h"
#include "fmt/amqp_table.h"

/* Constant field lists: fields_queue_declare[] and so on; empty for methods without fields. */
#define FIELD(method, field_type, field_name)                                                                          \
    {.name = #field_name, .at = offsetof(struct amqp091_##method, field_name), .type = AMQP091_##field_type},
#define METHOD(id_class, id_method, class, method, sender, time, has_content, spec, list)                              \
    static const struct amqp091_field fields_##class##_##method[] = {list};
#include "proto/amqp091/methods.def"
#undef METHOD
#undef FIELD

const struct amqp091_row amqp091_rows[AMQP091_METHOD_COUNT] = {
#define METHOD(id_class, id_method, class, method, sender, time, has_content, spec, list)                              \
    [AMQP091_##class##_##method] = {.name = #class "." #method,                                                        \
                                    .section = spec,                                                                   \
                                    .fields = fields_##class##_##method,                                               \
                                    .class_id = id_class,                                                              \
                                    .method_id = id_method,                                                            \
                                    .struct_len = sizeof(struct amqp091_##class##_##method),                           \
                                    .field_count = ARRAY_LEN(fields_##class##_##method),                               \
                                    .who = AMQP091_##sender,                                                           \
                                    .when = AMQP091_##time,                                                            \
                                    .content = has_content},
#include "proto/amqp091/methods.def"
#undef METHOD
};

/* Class ids are multiples of 5 up to 90 and method ids are 10 n, 10 n + 1 or 10 n + 2 up to 120: a small direct table, holding the
 * row's index + 1. */
#define CLASS_SLOT(id) ((id) / 5)
#define METHOD_SLOT(id) ((id) / 10 * 3 + (id) % 10)
#define CLASS_SLOTS 19
#define METHOD_SLOTS 37

static const uint8_t row_index[CLASS_SLOTS][METHOD_SLOTS] = {
#define METHOD(id_class, id_method, class, method, sender, time, has_content, spec, list)                              \
    [CLASS_SLOT(id_class)][METHOD_SLOT(id_method)] = AMQP091_##class##_##method + 1,
#include "proto/amqp091/methods.def"
#undef METHOD
};

const struct amqp091_row *amqp091_row_find(uint16_t class_id, uint16_t method_id)
{
    if (class_id % 5 || method_id % 10 > 2)
        return NULL;
    unsigned c = CLASS_SLOT(class_id), m = METHOD_SLOT(method_id);
    if (c >= CLASS_SLOTS || m >= METHOD_SLOTS || row_index[c][m] == 0)
        return NULL;
    return &amqp091_rows[row_index[c][m] - 1];
}

/* Consecutive bits share octets, the first in the lowest bit (AMQP 0-9-1 section 4.2.5.2). */
struct bits {
    uint8_t octet;
    uint8_t used; /* bits taken of the octet; 8: none is open */
};

static bool decode_bit(struct reader *r, struct bits *bits)
{
    if (bits->used == 8)
        *bits = (struct bits){.octet = reader_u8(r)};
    return bits->octet >> bits->used++ & 1;
}

static struct slice decode_table(struct reader *r)
{
    struct slice table = reader_str32(r);
    if (reader_ok(r) && table.len && !amqp_table_valid(table))
        reader_fail(r);
    return table;
}

bool amqp091_decode(const struct amqp091_row *row, struct slice args, void *ret)
{
    struct reader r = reader_of(args);
    struct bits bits = {.used = 8};
    for (const struct amqp091_field *f = row->fields; f < row->fields + row->field_count; f++) {
        void *to = (uint8_t *)ret + f->at;
        if (f->type != AMQP091_bit)
            bits.used = 8;
        switch ((enum amqp091_field_type)f->type) {
        case AMQP091_bit: *(bool *)to = decode_bit(&r, &bits); break;
        case AMQP091_octet: *(uint8_t *)to = reader_u8(&r); break;
        case AMQP091_short: *(uint16_t *)to = reader_u16(&r); break;
        case AMQP091_long: *(uint32_t *)to = reader_u32(&r); break;
        case AMQP091_longlong: *(uint64_t *)to = reader_u64(&r); break;
        case AMQP091_shortstr: *(struct slice *)to = reader_str8(&r); break;
        case AMQP091_longstr: *(struct slice *)to = reader_str32(&r); break;
        case AMQP091_table: *(struct slice *)to = decode_table(&r); break;
        }
    }
    return reader_done(&r);
}

static void encode_bit(struct writer *w, bool value, struct bits *bits)
{
    if (bits->used == 8) {
        *bits = (struct bits){0};
        writer_u8(w, 0);
    }
    bits->octet = (uint8_t)(bits->octet | value << bits->used++);
    if (writer_ok(w))
        w->base[w->len - 1] = bits->octet;
}

void amqp091_encode(struct writer *w, const struct amqp091_row *row, const void *fields)
{
    writer_u16(w, row->class_id);
    writer_u16(w, row->method_id);
    struct bits bits = {.used = 8};
    for (const struct amqp091_field *f = row->fields; f < row->fields + row->field_count; f++) {
        const void *from = (const uint8_t *)fields + f->at;
        if (f->type != AMQP091_bit)
            bits.used = 8;
        switch ((enum amqp091_field_type)f->type) {
        case AMQP091_bit: encode_bit(w, *(const bool *)from, &bits); break;
        case AMQP091_octet: writer_u8(w, *(const uint8_t *)from); break;
        case AMQP091_short: writer_u16(w, *(const uint16_t *)from); break;
        case AMQP091_long: writer_u32(w, *(const uint32_t *)from); break;
        case AMQP091_longlong: writer_u64(w, *(const uint64_t *)from); break;
        case AMQP091_shortstr: writer_str8(w, *(const struct slice *)from); break;
        case AMQP091_longstr:
        case AMQP091_table: writer_str32(w, *(const struct slice *)from); break;
        }
    }
}

static const uint8_t fixed_len[] = {
    [AMQP091_bit] = 1,      [AMQP091_octet] = 1,    [AMQP091_short] = 2,   [AMQP091_long] = 4,
    [AMQP091_longlong] = 8, [AMQP091_shortstr] = 1, [AMQP091_longstr] = 4, [AMQP091_table] = 4,
};

size_t amqp091_encoded_len(const struct amqp091_row *row, const void *fields)
{
    size_t len = 4;
    unsigned bits = 0;
    for (const struct amqp091_field *f = row->fields; f < row->fields + row->field_count; f++) {
        bits = f->type == AMQP091_bit ? bits + 1 : 0;
        if (bits == 0 || bits % 8 == 1)
            len += fixed_len[f->type];
        if (f->type >= AMQP091_shortstr)
            len += ((const struct slice *)((const uint8_t *)fields + f->at))->len;
    }
    return len;
}

static const char *const type_names[] = {"bit", "octet", "short", "long", "longlong", "shortstr", "longstr", "table"};
static const char *const who_names[] = {"", "client", "server", "both"};

void amqp091_print(FILE *to)
{
    for (const struct amqp091_row *row = amqp091_rows; row < amqp091_rows + AMQP091_METHOD_COUNT; row++) {
        fprintf(to, "%-3u %-4u %-26s %-7s %-9s %s", row->class_id, row->method_id, row->name, who_names[row->who],
                row->section, row->content ? "content " : "");
        for (unsigned i = 0; i < row->field_count; i++)
            fprintf(to, "%s%s:%s", i ? " " : "", row->fields[i].name, type_names[row->fields[i].type]);
        fputc('\n', to);
    }
}
