/* Field tables as RabbitMQ reads and writes them, see amqp_table.h.
 *
 * The type letters are RabbitMQ's, not the specification's: 's' is a signed 16-bit number, 'u' its unsigned twin, and
 * both 'l' and 'L' are signed 64 bits; every widely used client follows that. `types` is the only list of them: letter,
 * RabbitMQ's name, width, and the kind by which values are read, compared and printed.
 *
 * Nothing is copied or allocated: a table stays what came over the wire and is walked again when needed, because tables
 * are small, seldom read, and passed on byte for byte. Validation is the one recursive function and its depth is
 * bounded; everything else may then trust nested contents only as far as the reader checks them, which is always.
 *
 * Equality follows what RabbitMQ does with arguments of a redeclared object: the decoded values are compared, so all
 * integers are one class (a timestamp among them), float and double another, text and byte array a third; inside nested
 * tables the types' names must be equal as well. Two NaNs with the same bits are equal here, or a queue declared with
 * one could never be redeclared. Pure functions, any thread.
 */
#include "fmt/amqp_table.h"

#include "base/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum kind {
    KIND_NONE,
    KIND_SIGNED,
    KIND_UNSIGNED,
    KIND_BOOL,
    KIND_FLOAT,
    KIND_DECIMAL,
    KIND_BYTES,
    KIND_NESTED,
    KIND_VOID,
};

static const struct type_row {
    const char *name;
    uint8_t kind, width; /* width 0: a 32-bit length and that many bytes */
} types[128] = {
    ['t'] = {"bool", KIND_BOOL, 1},
    ['b'] = {"byte", KIND_SIGNED, 1},
    ['B'] = {"unsignedbyte", KIND_UNSIGNED, 1},
    ['s'] = {"short", KIND_SIGNED, 2},
    ['u'] = {"unsignedshort", KIND_UNSIGNED, 2},
    ['I'] = {"signedint", KIND_SIGNED, 4},
    ['i'] = {"unsignedint", KIND_UNSIGNED, 4},
    ['l'] = {"long", KIND_SIGNED, 8},
    ['L'] = {"long", KIND_SIGNED, 8},
    ['f'] = {"float", KIND_FLOAT, 4},
    ['d'] = {"double", KIND_FLOAT, 8},
    ['D'] = {"decimal", KIND_DECIMAL, 5},
    ['T'] = {"timestamp", KIND_UNSIGNED, 8},
    ['S'] = {"longstr", KIND_BYTES, 0},
    ['x'] = {"binary", KIND_BYTES, 0},
    ['A'] = {"array", KIND_NESTED, 0},
    ['F'] = {"table", KIND_NESTED, 0},
    ['V'] = {"void", KIND_VOID, 0},
};

static const struct type_row *type_row(char letter)
{
    unsigned char c = (unsigned char)letter;
    return c < ARRAY_LEN(types) && types[c].kind != KIND_NONE ? &types[c] : NULL;
}

const char *amqp_type_name(char type)
{
    const struct type_row *row = type_row(type);
    return row ? row->name : "undefined";
}

/* ------------------------------------------------------------------------------------------------------- reading */

static uint64_t read_wide(struct reader *r, unsigned width)
{
    switch (width) {
    case 1: return reader_u8(r);
    case 2: return reader_u16(r);
    case 4: return reader_u32(r);
    default: return reader_u64(r);
    }
}

static double float_of(uint64_t bits, unsigned width)
{
    if (width == sizeof(float)) {
        float f;
        uint32_t narrow = (uint32_t)bits;
        memcpy(&f, &narrow, sizeof f);
        return (double)f;
    }
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static int64_t sign_extend(uint64_t bits, unsigned width)
{
    unsigned shift = 64 - 8 * width;
    return (int64_t)(bits << shift) >> shift;
}

/* The value after its type letter; what is read wrong makes the reader fail. */
static struct amqp_value read_value(struct reader *r, char letter)
{
    struct amqp_value v = {.type = letter};
    const struct type_row *row = type_row(letter);
    const uint8_t *start = r->at;
    if (!row) {
        reader_fail(r);
        return v;
    }
    switch ((enum kind)row->kind) {
    case KIND_SIGNED: v.i = sign_extend(read_wide(r, row->width), row->width); break;
    case KIND_UNSIGNED: v.i = (int64_t)read_wide(r, row->width); break;
    case KIND_BOOL: v.i = reader_u8(r) != 0; break;
    case KIND_FLOAT: v.d = float_of(read_wide(r, row->width), row->width); break;
    case KIND_DECIMAL:
        v.decimal.scale = reader_u8(r);
        v.decimal.unscaled = (int32_t)reader_u32(r);
        break;
    case KIND_BYTES:
    case KIND_NESTED: v.s = reader_str32(r); break;
    case KIND_VOID:
    case KIND_NONE: break;
    }
    if (reader_ok(r))
        v.raw = slice_of(start, (size_t)(r->at - start));
    return v;
}

bool amqp_array_next(struct reader *array, struct amqp_value *ret)
{
    if (array->left == 0)
        return false;
    char letter = (char)reader_u8(array);
    struct amqp_value v = read_value(array, letter);
    if (!reader_ok(array))
        return false;
    *ret = v;
    return true;
}

bool amqp_table_next(struct reader *table, struct amqp_field *ret)
{
    if (table->left == 0)
        return false;
    struct amqp_field field = {.name = reader_str8(table)};
    char letter = (char)reader_u8(table);
    if (!reader_ok(table))
        return false;
    field.value = read_value(table, letter);
    if (!reader_ok(table))
        return false;
    *ret = field;
    return true;
}

/* Recursive, to AMQP_TABLE_DEPTH_MAX. `left` counts the fields and elements that all levels may still have. */
static bool content_valid(struct slice content, char letter, unsigned depth, unsigned *left)
{
    struct reader r = reader_of(content);
    struct amqp_field field;
    if (depth > AMQP_TABLE_DEPTH_MAX)
        return false;
    while (letter == 'F' ? amqp_table_next(&r, &field) : amqp_array_next(&r, &field.value)) {
        if ((*left)-- == 0)
            return false;
        if (type_row(field.value.type)->kind == KIND_NESTED &&
            !content_valid(field.value.s, field.value.type, depth + 1, left))
            return false;
    }
    return reader_done(&r);
}

bool amqp_table_valid(struct slice table)
{
    unsigned left = AMQP_TABLE_FIELDS_MAX;
    return content_valid(table, 'F', 1, &left);
}

bool amqp_table_find_slice(struct slice table, struct slice name, struct amqp_value *ret)
{
    struct reader r = reader_of(table);
    struct amqp_field field;
    while (amqp_table_next(&r, &field)) {
        if (!slice_equal(field.name, name))
            continue;
        *ret = field.value;
        return true;
    }
    return false;
}

bool amqp_table_find(struct slice table, const char *name, struct amqp_value *ret)
{
    return amqp_table_find_slice(table, slice_str(name), ret);
}

/* ------------------------------------------------------------------------------------------------------ comparing */

static bool is_int_kind(unsigned kind)
{
    return kind == KIND_SIGNED || kind == KIND_UNSIGNED;
}

static bool int_equal(const struct amqp_value *a, const struct amqp_value *b)
{
    /* Only 'T' is unsigned with 64 bits: its upper half is no negative number. */
    return a->i == b->i && (a->i >= 0 || (a->type == 'T') == (b->type == 'T'));
}

/* A validated table never reaches the limit of depth. */
static bool nested_equal(const struct amqp_value *a, const struct amqp_value *b, unsigned depth)
{
    if (a->s.len == 0 && b->s.len == 0)
        return true;
    if (a->type != b->type || depth > AMQP_TABLE_DEPTH_MAX)
        return false;
    struct reader ra = reader_of(a->s), rb = reader_of(b->s);
    struct amqp_field fa = {0}, fb = {0};
    for (;;) {
        bool more_a = a->type == 'F' ? amqp_table_next(&ra, &fa) : amqp_array_next(&ra, &fa.value);
        bool more_b = a->type == 'F' ? amqp_table_next(&rb, &fb) : amqp_array_next(&rb, &fb.value);
        if (!more_a || !more_b)
            return more_a == more_b && reader_done(&ra) && reader_done(&rb);
        if (!slice_equal(fa.name, fb.name) || strcmp(amqp_type_name(fa.value.type), amqp_type_name(fb.value.type)) != 0)
            return false;
        if (type_row(fa.value.type)->kind == KIND_NESTED ? !nested_equal(&fa.value, &fb.value, depth + 1)
                                                         : !amqp_value_equal(&fa.value, &fb.value))
            return false;
    }
}

bool amqp_value_equal(const struct amqp_value *a, const struct amqp_value *b)
{
    const struct type_row *row_a = type_row(a->type), *row_b = type_row(b->type);
    if (!row_a || !row_b)
        return false;
    if (is_int_kind(row_a->kind) && is_int_kind(row_b->kind))
        return int_equal(a, b);
    if (row_a->kind != row_b->kind)
        return false;
    switch ((enum kind)row_a->kind) {
    case KIND_BOOL: return a->i == b->i;
    case KIND_FLOAT: return a->d == b->d || (a->type == b->type && slice_equal(a->raw, b->raw));
    case KIND_DECIMAL: return a->decimal.scale == b->decimal.scale && a->decimal.unscaled == b->decimal.unscaled;
    case KIND_BYTES: return slice_equal(a->s, b->s);
    case KIND_NESTED: return nested_equal(a, b, 1);
    default: return true; /* void */
    }
}

/* ------------------------------------------------------------------------------------------------------- printing */

/* Text with an end: what does not fit is cut off, and the text is always terminated. */
struct text {
    char *at;
    size_t left; /* with the NUL */
};

static void text_bytes(struct text *t, struct slice s)
{
    size_t n = s.len < t->left - 1 ? s.len : t->left - 1;
    if (n)
        memcpy(t->at, s.ptr, n);
    t->at += n;
    t->left -= n;
    *t->at = '\0';
}

static void text_put(struct text *t, const char *text)
{
    text_bytes(t, slice_str(text));
}

/* A finite number as Erlang's ~p writes it: the fewest digits that read back the same, and an exponent only where that is
 * shorter or the number is beyond what a double counts exactly. */
static void text_float(struct text *t, double d)
{
    char sci[40], digits[24], zeros[40] = "", exponent[16];
    int precision = 0;
    do
        snprintf(sci, sizeof sci, "%.*e", precision, fabs(d));
    while (strtod(sci, NULL) != fabs(d) && ++precision < 17);
    snprintf(digits, sizeof digits, "%c%.*s", sci[0], precision, sci + 2);
    int len = precision + 1, place = (int)strtol(strchr(sci, 'e') + 1, NULL, 10) + 1; /* 0.DIGITS × 10^place */
    while (len > 1 && digits[len - 1] == '0')
        digits[--len] = '\0';
    int cost = snprintf(exponent, sizeof exponent, "%d", place - 1) + (len == 1 ? 3 : 2);
    if (signbit(d))
        text_put(t, "-");
    if (place > 0 && place < len) {
        text_bytes(t, slice_of(digits, (size_t)place));
        text_put(t, ".");
        text_put(t, digits + place);
    } else if (place <= 0 && (place == 0 || 2 - place <= cost || d == 0)) {
        memset(zeros, '0', (size_t)(d == 0 ? 0 : -place));
        text_put(t, "0.");
        text_put(t, zeros);
        text_put(t, digits);
    } else if (place > 0 && place - len + 2 <= cost && fabs(d) < 9007199254740992.0) {
        memset(zeros, '0', (size_t)(place - len));
        text_put(t, digits);
        text_put(t, zeros);
        text_put(t, ".0");
    } else {
        text_bytes(t, slice_of(digits, 1));
        text_put(t, ".");
        text_put(t, len == 1 ? "0" : digits + 1);
        text_put(t, "e");
        text_put(t, exponent);
    }
}

/* Bytes as Erlang's ~p writes a binary: <<"text">>, or numbers when something in it is not printable. */
static void text_term_bytes(struct text *t, struct slice s)
{
    bool printable = s.len > 0;
    for (size_t i = 0; i < s.len; i++)
        printable &= (s.ptr[i] >= 32 && s.ptr[i] < 127) || s.ptr[i] >= 160;
    text_put(t, printable ? "<<\"" : "<<");
    for (size_t i = 0; i < s.len && t->left > 1; i++) {
        char number[8];
        if (!printable) {
            snprintf(number, sizeof number, i ? ",%u" : "%u", s.ptr[i]);
            text_put(t, number);
            continue;
        }
        if (s.ptr[i] == '"' || s.ptr[i] == '\\')
            text_put(t, "\\");
        text_bytes(t, slice_of(s.ptr + i, 1));
    }
    text_put(t, printable ? "\">>" : ">>");
}

static void text_term(struct text *t, const struct amqp_value *v, unsigned depth);

/* [{<<"name">>,type,value},…] for a table, [{type,value},…] for an array. */
static void text_nested(struct text *t, const struct amqp_value *v, unsigned depth)
{
    struct reader r = reader_of(v->s);
    struct amqp_field field = {0};
    text_put(t, "[");
    for (unsigned i = 0; depth <= AMQP_TABLE_DEPTH_MAX && t->left > 1; i++) {
        if (!(v->type == 'F' ? amqp_table_next(&r, &field) : amqp_array_next(&r, &field.value)))
            break;
        text_put(t, i ? ",{" : "{");
        if (v->type == 'F') {
            text_term_bytes(t, field.name);
            text_put(t, ",");
        }
        text_put(t, amqp_type_name(field.value.type));
        text_put(t, ",");
        text_term(t, &field.value, depth + 1);
        text_put(t, "}");
    }
    text_put(t, "]");
}

static void text_term(struct text *t, const struct amqp_value *v, unsigned depth)
{
    char number[32];
    const struct type_row *row = type_row(v->type);
    switch (row ? (enum kind)row->kind : KIND_VOID) {
    case KIND_UNSIGNED:
        snprintf(number, sizeof number, "%llu", (unsigned long long)v->i);
        text_put(t, number);
        break;
    case KIND_SIGNED:
        snprintf(number, sizeof number, "%lld", (long long)v->i);
        text_put(t, number);
        break;
    case KIND_BOOL: text_put(t, v->i ? "true" : "false"); break;
    case KIND_FLOAT:
        if (isfinite(v->d))
            text_float(t, v->d);
        else
            text_put(t, isnan(v->d) ? "nan" : v->d < 0 ? "-inf" : "inf");
        break;
    case KIND_DECIMAL:
        snprintf(number, sizeof number, "{%u,%u}", v->decimal.scale, (unsigned)v->decimal.unscaled);
        text_put(t, number);
        break;
    case KIND_BYTES: text_term_bytes(t, v->s); break;
    case KIND_NESTED: text_nested(t, v, depth); break;
    default: text_put(t, "undefined"); break;
    }
}

void amqp_value_print_term(const struct amqp_value *v, char *ret, size_t len)
{
    CHECK(len > 0);
    text_term(&(struct text){.at = ret, .left = len}, v, 1);
}

void amqp_value_print(const struct amqp_value *v, char *ret, size_t len)
{
    CHECK(len > 0);
    struct text t = {.at = ret, .left = len};
    text_put(&t, "'");
    if (v->type == 'S' || v->type == 'x')
        text_bytes(&t, v->s);
    else
        text_term(&t, v, 1);
    text_put(&t, "'");
}

/* -------------------------------------------------------------------------------------------------------- writing */

static void put_name(struct writer *w, struct slice name, char type)
{
    CHECK(type_row(type) != NULL);
    writer_str8(w, name);
    writer_u8(w, (uint8_t)type);
}

void amqp_put_field(struct writer *w, struct slice name, const struct amqp_value *value)
{
    put_name(w, name, value->type);
    writer_slice_put(w, value->raw);
}

void amqp_put_str(struct writer *w, const char *name, struct slice value)
{
    put_name(w, slice_str(name), 'S');
    writer_str32(w, value);
}

void amqp_put_long(struct writer *w, const char *name, int64_t value)
{
    put_name(w, slice_str(name), 'l');
    writer_u64(w, (uint64_t)value);
}

void amqp_put_int(struct writer *w, const char *name, int32_t value)
{
    put_name(w, slice_str(name), 'I');
    writer_u32(w, (uint32_t)value);
}

void amqp_put_bool(struct writer *w, const char *name, bool value)
{
    put_name(w, slice_str(name), 't');
    writer_u8(w, value);
}

void amqp_put_time(struct writer *w, const char *name, uint64_t seconds)
{
    put_name(w, slice_str(name), 'T');
    writer_u64(w, seconds);
}

size_t amqp_open(struct writer *w, const char *name, char type)
{
    CHECK(type == 'F' || type == 'A');
    put_name(w, slice_str(name), type);
    return writer_mark32(w);
}

size_t amqp_open_element(struct writer *w, char type)
{
    CHECK(type == 'F' || type == 'A');
    writer_u8(w, (uint8_t)type);
    return writer_mark32(w);
}

void amqp_put_element_str(struct writer *w, struct slice value)
{
    writer_u8(w, 'S');
    writer_str32(w, value);
}

void amqp_close(struct writer *w, size_t mark)
{
    writer_patch32(w, mark);
}
