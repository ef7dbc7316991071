/* Kafka's codec as a filter, for checks in other languages: tests/clients/test_kafka_codec.py.
 *
 * In:  lines `request KEY VERSION HEX` or `response KEY VERSION HEX`, the bytes of a message without header.
 * Out: two lines each: the decoded fields as a JSON object, and what the encoder makes of them, in hexadecimal; or
 *      `refused N` (enum kafka_verdict), or `unknown` for a key or version that is not spoken.
 * Strings and bytes are written as hexadecimal digits, fields that the version has not are left out. */
#include "base/check.h"
#include "base/mem.h"
#include "proto/kafka/api.h"

#include <stdio.h>
#include <stdlib.h>

static void print_hex(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        printf("%02x", bytes[i]);
}

static void print_struct(const struct kafka_table *table, uint8_t version, const uint8_t *from);

static void print_slice(const struct slice *s)
{
    if (!s->ptr) {
        printf("null");
        return;
    }
    putchar('"');
    print_hex(s->ptr, s->len);
    putchar('"');
}

static void print_value(unsigned kind, const void *from)
{
    struct slice uuid = slice_of(from, sizeof(struct kafka_uuid));
    switch (kind) {
    case KAFKA_bool: printf(*(const bool *)from ? "true" : "false"); break;
    case KAFKA_i8: printf("%d", *(const int8_t *)from); break;
    case KAFKA_i16: printf("%d", *(const int16_t *)from); break;
    case KAFKA_i32: printf("%d", *(const int32_t *)from); break;
    case KAFKA_i64: printf("%lld", (long long)*(const int64_t *)from); break;
    case KAFKA_u16: printf("%u", *(const uint16_t *)from); break;
    case KAFKA_f64: printf("%.17g", *(const double *)from); break;
    case KAFKA_uuid: print_slice(&uuid); break;
    default: print_slice(from); break;
    }
}

static size_t item_len(unsigned kind)
{
    static const size_t len[] = {[KAFKA_i8] = 1, [KAFKA_i16] = 2, [KAFKA_i32] = 4, [KAFKA_i64] = 8, [KAFKA_uuid] = 16};
    return kind < ARRAY_LEN(len) ? len[kind] : sizeof(struct slice);
}

static void print_many(const struct kafka_field *f, uint8_t version, const struct kafka_array *array)
{
    const uint8_t *at = array->at;
    if (array->count < 0) {
        printf("null");
        return;
    }
    putchar('[');
    for (int32_t i = 0; i < array->count; i++) {
        if (i)
            putchar(',');
        if (f->kind == KAFKA_LIST)
            print_value(f->item, at);
        else
            print_struct(f->element, version, at);
        at += f->kind == KAFKA_LIST ? item_len(f->item) : f->element->struct_len;
    }
    putchar(']');
}

static void print_struct(const struct kafka_table *table, uint8_t version, const uint8_t *from)
{
    const char *between = "";
    putchar('{');
    for (const struct kafka_field *f = table->fields; f < table->fields + table->field_count; f++) {
        const void *at = from + f->at;
        if (!kafka_field_in(f, version))
            continue;
        printf("%s\"%s\":", between, f->name);
        between = ",";
        if (f->kind == KAFKA_LIST || f->kind == KAFKA_ARRAY)
            print_many(f, version, at);
        else if (f->kind != KAFKA_PART)
            print_value(f->kind, at);
        else if (*(uint8_t *const *)at)
            print_struct(f->element, version, *(uint8_t *const *)at);
        else
            printf("null");
    }
    putchar('}');
}

static void answer(const struct kafka_table *table, struct kafka_form form, struct slice bytes)
{
    struct arena arena;
    uint8_t *message = mem_alloc(table->struct_len);
    CHECK(message);
    arena_init(&arena, 1 << 26);
    enum kafka_verdict verdict = kafka_decode(table, form, bytes, &arena, message);
    if (verdict != KAFKA_OK) {
        printf("refused %d\n", verdict);
    } else {
        size_t len = kafka_encode_size(table, form, message);
        uint8_t *room = mem_alloc(len + 1);
        CHECK(room);
        struct writer w = writer_of(room, len);
        kafka_encode(&w, table, form, message, NULL);
        CHECK(writer_ok(&w) && w.len == len);
        print_struct(table, form.version, message);
        putchar('\n');
        print_hex(room, len);
        putchar('\n');
        mem_free(room);
    }
    arena_fini(&arena);
    mem_free(message);
}

static int nibble(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void use_line(char *line)
{
    const char *way = strtok(line, " \n"), *key = strtok(NULL, " \n"), *version = strtok(NULL, " \n");
    const char *hex = strtok(NULL, " \n");
    const struct kafka_api *api = key ? kafka_api_find((int16_t)strtol(key, NULL, 10)) : NULL;
    long number = version ? strtol(version, NULL, 10) : -1;
    if (!api || !kafka_api_speaks(api, (int16_t)number)) {
        printf("unknown\n");
        return;
    }
    size_t len = hex ? strlen(hex) / 2 : 0;
    uint8_t *bytes = mem_alloc(len + 1);
    CHECK(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
    answer(strcmp(way, "request") == 0 ? api->request : api->response, kafka_api_form(api, (uint8_t)number),
           slice_of(bytes, len));
    mem_free(bytes);
}

int main(void)
{
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0)
        use_line(line);
    free(line);
    return 0;
}
