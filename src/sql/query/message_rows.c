/* Messages as records, see message_rows.h. */
#include "sql/query/message_rows.h"

#include "base/mem.h"
#include "core/record_key.h"
#include "fmt/amqp_props.h"
#include "fmt/amqp_table.h"
#include "sql/language/datetime.h"
#include "sql/query/input.h"

#include <inttypes.h>
#include <stdio.h>

#define ROWS_MAX 1024u
#define HEADERS_MEMORY_MAX (64u << 20)
#define NUMBER_TEXT_MAX 24u

struct message_rows {
    struct slice values[ROWS_MAX], keys[ROWS_MAX], headers[ROWS_MAX];
    int64_t ts_us[ROWS_MAX];
    uint64_t number;
    uint32_t count;
    size_t bytes;
    struct arena arena; /* headers */
};

struct message_rows *message_rows_new(void)
{
    struct message_rows *rows = mem_zalloc(sizeof *rows);
    if (rows)
        arena_init(&rows->arena, HEADERS_MEMORY_MAX);
    return rows;
}

void message_rows_free(struct message_rows **rows)
{
    if (!*rows)
        return;
    arena_fini(&(*rows)->arena);
    mem_free(*rows);
    *rows = NULL;
}

void message_rows_begin(struct message_rows *rows, uint64_t number)
{
    arena_recycle(&rows->arena);
    rows->number = number;
    rows->count = 0;
    rows->bytes = 0;
}

bool message_rows_full(const struct message_rows *rows)
{
    return rows->count == ROWS_MAX || rows->bytes >= INPUT_RUN_BYTES;
}

/* As fmt/record_batch.h encodes a header: lengths are zigzag varints. */
static void put_text(struct writer *w, struct slice text)
{
    writer_varint(w, (uint64_t)text.len * 2);
    writer_slice_put(w, text);
}

static void put_header(struct writer *w, const struct amqp_field *field)
{
    const struct amqp_value *v = &field->value;
    char number[NUMBER_TEXT_MAX];
    struct slice text = v->s;
    if (amqp_value_is_int(v))
        text = slice_of(number, (size_t)snprintf(number, sizeof number, "%" PRId64, v->i));
    else if (v->type == 't')
        text = slice_str(v->i ? "true" : "false");
    else if (!amqp_value_is_str(v))
        return;
    put_text(w, field->name);
    put_text(w, text);
}

/* A field has a length, a type and a value of at least a byte; what it becomes is at most three times as long. */
static bool headers_of(struct message_rows *rows, struct slice table, struct slice *ret)
{
    size_t room = 6 * table.len + NUMBER_TEXT_MAX;
    uint8_t *bytes = arena_take(&rows->arena, room);
    struct reader r = reader_of(table);
    struct amqp_field field;
    if (!bytes)
        return false;
    struct writer w = writer_of(bytes, room);
    while (amqp_table_next(&r, &field))
        put_header(&w, &field);
    *ret = writer_slice(&w);
    return writer_ok(&w);
}

bool message_rows_add(struct message_rows *rows, const struct msg *msg, wall_t now)
{
    uint32_t i = rows->count;
    struct amqp_props props = {0};
    bool has_props = amqp_props_parse(msg_props(msg), &props), dated = props.present & AMQP_TIMESTAMP;
    rows->values[i] = msg_body(msg);
    rows->headers[i] = rows->keys[i] = (struct slice){0};
    if (has_props && (props.present & AMQP_HEADERS) && !headers_of(rows, props.headers, &rows->headers[i]))
        return false;
    if (!record_key(msg, &rows->keys[i]))
        rows->keys[i] = (struct slice){0};
    rows->ts_us[i] = now * 1000;
    if (has_props && dated)
        rows->ts_us[i] = props.timestamp > (uint64_t)TIMESTAMP_MAX / US_PER_S
                             ? TIMESTAMP_MAX
                             : (int64_t)props.timestamp * (int64_t)US_PER_S;
    rows->bytes += msg_size(msg);
    rows->count++;
    return true;
}

struct query_input message_rows_input(const struct message_rows *rows)
{
    return (struct query_input){.records = rows->values,
                                .ts_us = rows->ts_us,
                                .keys = rows->keys,
                                .headers = rows->headers,
                                .offset = rows->number,
                                .rows = rows->count};
}
