/* Unit test of field tables: bytes as RabbitMQ's generator writes them, its error texts, its equality, and damage. */
#include "fmt/amqp_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Every type once, written by RabbitMQ 3.10. */
/* clang-format off */
static const uint8_t every_type[] = {
    "\x04" "bool" "t" "\x01"
    "\x04" "byte" "b" "\xfe"
    "\x05" "ubyte" "B" "\xfe"
    "\x05" "short" "s" "\xfe\xd4"
    "\x06" "ushort" "u" "\xfd\xe8"
    "\x03" "int" "I" "\xff\xfe\xee\x90"
    "\x04" "uint" "i" "\xee\x6b\x28\x00"
    "\x04" "long" "l" "\xff\xff\xff\xfe\xd5\xfa\x0e\x00"
    "\x05" "float" "f" "\x3f\xc0\x00\x00"
    "\x06" "double" "d" "\xbf\x50\x62\x4d\xd2\xf1\xa9\xfc"
    "\x03" "dec" "D" "\x02\x00\x00\x30\x39"
    "\x04" "time" "T" "\x00\x00\x00\x00\x65\x53\xf1\x00"
    "\x03" "str" "S" "\x00\x00\x00\x04" "text"
    "\x03" "bin" "x" "\x00\x00\x00\x02\x01\x02"
    "\x04" "void" "V"
    "\x03" "arr" "A" "\x00\x00\x00\x10" "S" "\x00\x00\x00\x01" "a" "I" "\x00\x00\x00\x07" "A" "\x00\x00\x00\x00"
    "\x03" "tab" "F" "\x00\x00\x00\x09" "\x01" "k" "S" "\x00\x00\x00\x02" "v\""
};
/* clang-format on */

static struct slice whole(void)
{
    return slice_of(every_type, sizeof every_type - 1);
}

static struct amqp_value find(const char *name)
{
    struct amqp_value v = {0};
    assert_true(amqp_table_find(whole(), name, &v));
    return v;
}

static struct amqp_value int_value(char type, int64_t i)
{
    return (struct amqp_value){.type = type, .i = i};
}

static struct amqp_value bytes_value(char type, const char *text)
{
    return (struct amqp_value){.type = type, .s = slice_str(text)};
}

static struct amqp_value double_value(double d)
{
    return (struct amqp_value){.type = 'd', .d = d};
}

static void every_type_is_read(void **state)
{
    (void)state;
    assert_true(amqp_table_valid(whole()));
    assert_int_equal(find("bool").i, 1);
    assert_int_equal(find("byte").i, -2);
    assert_int_equal(find("ubyte").i, 254);
    assert_int_equal(find("short").i, -300);
    assert_int_equal(find("ushort").i, 65000);
    assert_int_equal(find("int").i, -70000);
    assert_true(find("uint").i == INT64_C(4000000000));
    assert_true(find("long").i == INT64_C(-5000000000));
    assert_true(find("float").d == 1.5);
    assert_true(find("double").d == -0.001);
    assert_int_equal(find("dec").decimal.scale, 2);
    assert_int_equal(find("dec").decimal.unscaled, 12345);
    assert_int_equal(find("time").i, 1700000000);
    assert_true(slice_is(find("str").s, "text"));
    assert_int_equal(find("bin").s.len, 2);
    assert_int_equal(find("void").type, 'V');
    assert_int_equal(find("arr").s.len, 16);
    assert_int_equal(find("arr").raw.len, 20);
    struct amqp_value inner = {0}, missing = {.type = '?'};
    assert_true(amqp_table_find(find("tab").s, "k", &inner));
    assert_true(slice_is(inner.s, "v\""));
    assert_false(amqp_table_find(whole(), "boo", &missing));
    assert_int_equal(missing.type, '?');
    assert_true(amqp_value_is_int(&(struct amqp_value){.type = 'B'}));
    assert_false(amqp_value_is_int(&(struct amqp_value){.type = 'T'}));
    assert_false(amqp_value_is_int(&(struct amqp_value){.type = 't'}));
    assert_false(amqp_value_is_int(&(struct amqp_value){0}));
    assert_true(amqp_table_find(slice_of("\x01kt\x02", 4), "k", &inner) && inner.i == 1); /* any byte but 0 is true */
}

static void values_print_as_in_rabbitmq_error_texts(void **state)
{
    (void)state;
    static const struct {
        const char *name, *type, *text;
    } rows[] = {{"bool", "bool", "'true'"},
                {"byte", "byte", "'-2'"},
                {"ubyte", "unsignedbyte", "'254'"},
                {"short", "short", "'-300'"},
                {"ushort", "unsignedshort", "'65000'"},
                {"int", "signedint", "'-70000'"},
                {"uint", "unsignedint", "'4000000000'"},
                {"long", "long", "'-5000000000'"},
                {"float", "float", "'1.5'"},
                {"double", "double", "'-0.001'"},
                {"dec", "decimal", "'{2,12345}'"},
                {"time", "timestamp", "'1700000000'"},
                {"str", "longstr", "'text'"},
                {"bin", "binary", "'\x01\x02'"},
                {"void", "void", "'undefined'"},
                {"arr", "array", "'[{longstr,<<\"a\">>},{signedint,7},{array,[]}]'"},
                {"tab", "table", "'[{<<\"k\">>,longstr,<<\"v\\\"\">>}]'"}};
    char text[200];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct amqp_value v = find(rows[i].name);
        assert_string_equal(amqp_type_name(v.type), rows[i].type);
        amqp_value_print(&v, text, sizeof text);
        assert_string_equal(text, rows[i].text);
    }
    struct amqp_value bin = find("bin"), str = find("str");
    amqp_value_print_term(&bin, text, sizeof text);
    assert_string_equal(text, "<<1,2>>");
    amqp_value_print_term(&str, text, sizeof text);
    assert_string_equal(text, "<<\"text\">>");
    assert_string_equal(amqp_type_name('L'), "long");
}

static void floats_print_as_erlang_prints_them(void **state)
{
    (void)state;
    static const struct {
        double d;
        const char *text;
    } rows[] = {{0.0, "0.0"},
                {-0.0, "-0.0"},
                {1.0, "1.0"},
                {-100.0, "-100.0"},
                {120.0, "120.0"},
                {1e5, "1.0e5"},
                {1e15, "1.0e15"},
                {1e22, "1.0e22"},
                {123456789012345680.0, "1.2345678901234568e17"},
                {0.1, "0.1"},
                {0.01, "0.01"},
                {0.0001, "0.0001"},
                {1e-5, "1.0e-5"},
                {0.00125, "0.00125"},
                {1e-7, "1.0e-7"},
                {123.456, "123.456"},
                {5e-324, "5.0e-324"},
                {1.7976931348623157e308, "1.7976931348623157e308"},
                {0.30000000000000004, "0.30000000000000004"},
                {9007199254740991.0, "9007199254740991.0"},
                {9007199254740992.0, "9.007199254740992e15"},
                {12345678.9, "12345678.9"},
                {1.2e100, "1.2e100"}};
    char text[64];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct amqp_value v = double_value(rows[i].d);
        amqp_value_print_term(&v, text, sizeof text);
        assert_string_equal(text, rows[i].text);
    }
}

static void printing_is_cut_at_the_end_of_the_room(void **state)
{
    (void)state;
    struct amqp_value arr = find("arr");
    char text[64], guard[64];
    amqp_value_print(&arr, guard, sizeof guard);
    for (size_t len = 1; len < sizeof text; len++) {
        memset(text, '#', sizeof text);
        amqp_value_print(&arr, text, len);
        size_t n = strlen(guard) < len - 1 ? strlen(guard) : len - 1;
        assert_int_equal(strlen(text), n);
        assert_memory_equal(text, guard, n);
        assert_int_equal(text[len], '#');
    }
}

static void equality_is_by_class_and_value(void **state)
{
    (void)state;
    static const char ints[] = "bBsuIilLT";
    for (const char *a = ints; *a; a++)
        for (const char *b = ints; *b; b++) {
            struct amqp_value x = int_value(*a, 7), y = int_value(*b, 7), z = int_value(*b, 8);
            assert_true(amqp_value_equal(&x, &y));
            assert_false(amqp_value_equal(&x, &z));
        }
    struct amqp_value one = int_value('I', 1), yes = int_value('t', 1), f = {.type = 'f', .d = 1.0};
    struct amqp_value d = double_value(1.0), s = bytes_value('S', "1"), x = bytes_value('x', "1");
    struct amqp_value late = int_value('T', -1), minus = int_value('l', -1), none = {.type = 'V'};
    assert_true(amqp_value_equal(&f, &d));
    assert_true(amqp_value_equal(&s, &x));
    assert_true(amqp_value_equal(&none, &none));
    assert_false(amqp_value_equal(&one, &yes));
    assert_false(amqp_value_equal(&one, &d));
    assert_false(amqp_value_equal(&one, &s));
    assert_false(amqp_value_equal(&late, &minus));
    assert_true(amqp_value_equal(&late, &late));
}

static struct amqp_value nested_of(const char *name, char type, int32_t number, uint8_t *room, size_t len)
{
    struct writer w = writer_of(room, len);
    if (type == 'I')
        amqp_put_int(&w, name, number);
    else
        amqp_put_long(&w, name, number);
    assert_true(writer_ok(&w));
    return (struct amqp_value){.type = 'F', .s = writer_slice(&w)};
}

static void nested_equality_asks_for_the_same_names_and_types(void **state)
{
    (void)state;
    uint8_t room[4][32];
    struct amqp_value a = nested_of("k", 'I', 5, room[0], 32), same = nested_of("k", 'I', 5, room[1], 32);
    struct amqp_value wide = nested_of("k", 'l', 5, room[2], 32), other = nested_of("j", 'I', 5, room[3], 32);
    struct amqp_value empty = {.type = 'F'}, list = {.type = 'A'};
    assert_true(amqp_value_equal(&a, &same));
    assert_false(amqp_value_equal(&a, &wide));
    assert_false(amqp_value_equal(&a, &other));
    assert_false(amqp_value_equal(&a, &empty));
    assert_false(amqp_value_equal(&empty, &a));
    assert_true(amqp_value_equal(&empty, &list)); /* both are Erlang's [] */
}

/* ------------------------------------------------------------------------------------------------------- damage */

static void every_cut_and_every_unknown_letter_is_refused(void **state)
{
    (void)state;
    struct slice all = whole();
    size_t whole_fields = 0;
    for (size_t len = 0; len < all.len; len++) {
        uint8_t *exact = malloc(len ? len : 1); /* so that the sanitizer sees a read beyond the end */
        memcpy(exact, all.ptr, len);
        struct reader r = reader_of(slice_of(exact, len));
        struct amqp_field field;
        while (amqp_table_next(&r, &field))
            ;
        bool ok = amqp_table_valid(slice_of(exact, len));
        assert_int_equal(ok, reader_done(&r));
        whole_fields += ok;
        free(exact);
    }
    assert_int_equal(whole_fields, 17); /* a cut between two fields leaves a shorter table */
    for (unsigned letter = 0; letter < 256; letter++) {
        uint8_t bytes[32] = {1, 'k', (uint8_t)letter};
        bool found = false;
        for (size_t len = 3; len <= 12; len++)
            found |= amqp_table_valid(slice_of(bytes, len));
        assert_int_equal(found, letter != 0 && strchr("tbBsuIilLfdDSATFVx", (int)letter) != NULL);
    }
}

static void lengths_beyond_the_end_are_refused(void **state)
{
    (void)state;
    static const char text[] = "\x01kS\xff\xff\xff\xff", name[] = "\xffkS", nested[] = "\x01kF\x00\x00\x00\x03\x05mn";
    assert_false(amqp_table_valid(slice_of(text, sizeof text - 1)));
    assert_false(amqp_table_valid(slice_of(name, sizeof name - 1)));
    assert_false(amqp_table_valid(slice_of(nested, sizeof nested - 1)));
    assert_true(amqp_table_valid((struct slice){0}));
}

static bool valid_at_depth(unsigned depth, bool arrays)
{
    uint8_t room[512];
    size_t marks[32];
    struct writer w = writer_of(room, sizeof room);
    for (unsigned i = 0; i + 1 < depth; i++)
        marks[i] = arrays && i > 0 ? amqp_open_element(&w, 'A') : amqp_open(&w, "n", arrays ? 'A' : 'F');
    for (unsigned i = depth - 1; i-- > 0;)
        amqp_close(&w, marks[i]);
    assert_true(writer_ok(&w));
    return amqp_table_valid(writer_slice(&w));
}

static void depth_and_count_are_limited(void **state)
{
    (void)state;
    assert_true(valid_at_depth(AMQP_TABLE_DEPTH_MAX, false));
    assert_false(valid_at_depth(AMQP_TABLE_DEPTH_MAX + 1, false));
    assert_true(valid_at_depth(AMQP_TABLE_DEPTH_MAX, true));
    assert_false(valid_at_depth(AMQP_TABLE_DEPTH_MAX + 1, true));
    uint8_t room[2 * AMQP_TABLE_FIELDS_MAX + 16];
    for (unsigned extra = 0; extra < 2; extra++) {
        struct writer w = writer_of(room, sizeof room);
        size_t mark = amqp_open(&w, "a", 'A');
        for (unsigned i = 0; i < AMQP_TABLE_FIELDS_MAX - 1 + extra; i++)
            writer_u8(&w, 'V');
        amqp_close(&w, mark);
        assert_true(writer_ok(&w));
        assert_int_equal(amqp_table_valid(writer_slice(&w)), extra == 0);
    }
}

/* ------------------------------------------------------------------------------------------------------- writing */

static void copied_fields_are_the_same_bytes(void **state)
{
    (void)state;
    uint8_t room[sizeof every_type];
    struct writer w = writer_of(room, sizeof room);
    struct reader r = reader_of(whole());
    struct amqp_field field;
    while (amqp_table_next(&r, &field))
        amqp_put_field(&w, field.name, &field.value);
    assert_true(reader_done(&r) && writer_ok(&w));
    assert_true(slice_equal(writer_slice(&w), whole()));
}

static void written_fields_are_read_back(void **state)
{
    (void)state;
    uint8_t room[256];
    struct writer w = writer_of(room, sizeof room);
    amqp_put_str(&w, "s", slice_str("text"));
    amqp_put_long(&w, "l", INT64_MIN);
    amqp_put_int(&w, "i", -5);
    amqp_put_bool(&w, "b", true);
    amqp_put_time(&w, "t", 1700000000);
    size_t array = amqp_open(&w, "a", 'A');
    amqp_put_element_str(&w, slice_str("one"));
    size_t table = amqp_open_element(&w, 'F');
    amqp_put_bool(&w, "inner", false);
    amqp_close(&w, table);
    amqp_close(&w, array);
    assert_true(writer_ok(&w));
    struct slice made = writer_slice(&w);
    assert_true(amqp_table_valid(made));
    struct amqp_value v = {0};
    assert_true(amqp_table_find(made, "l", &v) && v.i == INT64_MIN && v.type == 'l');
    assert_true(amqp_table_find(made, "i", &v) && v.i == -5 && v.type == 'I');
    assert_true(amqp_table_find(made, "b", &v) && v.i == 1 && v.type == 't');
    assert_true(amqp_table_find(made, "t", &v) && v.i == 1700000000 && v.type == 'T');
    assert_true(amqp_table_find_slice(made, slice_str("a"), &v) && v.type == 'A');
    struct reader r = reader_of(v.s);
    assert_true(amqp_array_next(&r, &v) && v.type == 'S' && slice_is(v.s, "one"));
    assert_true(amqp_array_next(&r, &v) && v.type == 'F');
    assert_true(amqp_table_find(v.s, "inner", &v) && v.i == 0);
    assert_false(amqp_array_next(&r, &v));
    assert_true(reader_done(&r));
}

static void writing_beyond_the_room_fails_and_stays_inside(void **state)
{
    (void)state;
    for (size_t len = 0; len < 40; len++) {
        uint8_t *room = malloc(len ? len : 1);
        struct writer w = writer_of(room, len);
        amqp_put_str(&w, "name", slice_str("text"));
        size_t mark = amqp_open(&w, "nested", 'F');
        amqp_put_bool(&w, "b", true);
        amqp_close(&w, mark);
        assert_int_equal(writer_ok(&w), len >= 14 + 12 + 4);
        free(room);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_is_read),
        cmocka_unit_test(values_print_as_in_rabbitmq_error_texts),
        cmocka_unit_test(floats_print_as_erlang_prints_them),
        cmocka_unit_test(printing_is_cut_at_the_end_of_the_room),
        cmocka_unit_test(equality_is_by_class_and_value),
        cmocka_unit_test(nested_equality_asks_for_the_same_names_and_types),
        cmocka_unit_test(every_cut_and_every_unknown_letter_is_refused),
        cmocka_unit_test(lengths_beyond_the_end_are_refused),
        cmocka_unit_test(depth_and_count_are_limited),
        cmocka_unit_test(copied_fields_are_the_same_bytes),
        cmocka_unit_test(written_fields_are_read_back),
        cmocka_unit_test(writing_beyond_the_room_fails_and_stays_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
