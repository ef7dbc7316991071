/* Rows of topics, see rows.h. */
#include "proto/kafka/rows.h"

#include "base/check.h"
#include "base/mem.h"
#include "proto/kafka/names.h"

#define NAME_MAX_LEN 255u
#define BYTES_TIMES 4u /* rows of one request take so many times what the largest request may have … */
#define BYTES_LEAST                                                                                                    \
    (64ull << 20) /* … or so many bytes: a topic that is named again is answered again, with all its arguments */

void *kafka_more_room(struct kafka *k, struct kafka_request *r, size_t count, size_t size)
{
    size_t len;
    if (__builtin_mul_overflow(count, size, &len) || len > INT32_MAX) {
        kafka_drop_memory(k); /* no answer can be so long */
        return NULL;
    }
    r->arena.max += len + 64;
    return kafka_room(k, r, count, size);
}

static bool fits(struct slice name)
{
    return name.len > 0 && name.len <= NAME_MAX_LEN;
}

bool kafka_rows_init(struct kafka *k, struct kafka_request *r, const struct kafka_wanted *wanted, bool sizes,
                     struct kafka_rows *ret)
{
    *ret = (struct kafka_rows){.all = !wanted, .sizes = sizes};
    if (!wanted)
        return true;
    size_t names = 0, ids = wanted->id_count * sizeof(uint64_t);
    for (size_t i = 0; i < wanted->name_count; i++)
        names += 1 + (fits(wanted->names[i]) ? wanted->names[i].len : 0);
    uint8_t *room = kafka_more_room(k, r, names + ids, 1);
    if (!room)
        return false;
    struct writer w = writer_of(room, names + ids);
    for (size_t i = 0; i < wanted->name_count; i++)
        writer_str8(&w, fits(wanted->names[i]) ? wanted->names[i] : slice_str("")); /* which nothing has */
    for (size_t i = 0; i < wanted->id_count; i++)
        writer_u64(&w, wanted->ids[i]);
    ret->names = slice_of(room, names);
    ret->ids = slice_of(room + names, ids);
    ret->left = wanted->name_count + wanted->id_count;
    ret->done = ret->left == 0;
    return true;
}

/* The next ones, as many as one answer may have. */
static void next_ones(const struct kafka_rows *rows, struct slice *ret_names, struct slice *ret_ids)
{
    size_t n = 0, bytes = 0;
    for (; n < STREAM_ROWS_MAX && bytes < rows->names.len; n++)
        bytes += 1u + rows->names.ptr[bytes];
    size_t ids = rows->ids.len / sizeof(uint64_t);
    ids = ids < STREAM_ROWS_MAX - n ? ids : STREAM_ROWS_MAX - n;
    *ret_names = slice_of(rows->names.ptr, bytes);
    *ret_ids = slice_of(rows->ids.ptr, ids * sizeof(uint64_t));
}

enum kafka_progress kafka_rows(struct kafka *k, struct kafka_request *r, struct kafka_rows *rows)
{
    struct slice none = {0}, names, ids;
    if (rows->done)
        return KAFKA_SENT;
    if (rows->asked)
        return KAFKA_AGAIN;
    next_ones(rows, &names, &ids);
    struct ask *ask = ask_new(names, none, ids, none);
    if (!ask) {
        kafka_drop_memory(k);
        return KAFKA_AGAIN;
    }
    struct command *command = kafka_command(k, r, CMD_STREAM_LIST);
    if (!command) {
        mem_free(ask);
        return KAFKA_AGAIN;
    }
    ask->number = rows->after;
    ask->flags = rows->sizes ? ASK_SIZES : 0;
    command->ask = ask;
    rows->asked = true;
    return KAFKA_AGAIN;
}

static void pass(struct slice *s, size_t n)
{
    s->ptr += n;
    s->len -= n;
}

/* So many of names and ids have been answered. */
static void advance(struct kafka_rows *rows, uint64_t n)
{
    for (; n && rows->left; n--, rows->left--)
        if (rows->names.len)
            pass(&rows->names, 1u + rows->names.ptr[0]);
        else
            pass(&rows->ids, sizeof(uint64_t));
}

/* All answers in one row of rows. */
static void gather(struct kafka *k, struct kafka_request *r, struct kafka_rows *rows)
{
    rows->rows = kafka_more_room(k, r, rows->count, sizeof *rows->rows);
    size_t n = 0;
    for (struct kafka_rows_block *block = rows->first; rows->rows && block; block = block->next) {
        struct reader fields = reader_of(block->answer->fields);
        while (n < rows->count && stream_row_next(&fields, &rows->rows[n]))
            n++;
    }
    rows->done = rows->rows != NULL;
}

static bool keep(struct kafka *k, struct kafka_request *r, struct kafka_rows *rows, struct effect *e)
{
    uint64_t most = (uint64_t)BYTES_TIMES * k->options->request_bytes_max;
    struct kafka_rows_block *block = kafka_more_room(k, r, 1, sizeof *block);
    rows->bytes += e->answer->fields.len;
    if (!block || rows->bytes > (most > BYTES_LEAST ? most : BYTES_LEAST))
        return false;
    block->answer = e->answer;
    e->answer = NULL;
    if (rows->last)
        rows->last->next = block;
    else
        rows->first = block;
    rows->last = block;
    struct reader fields = reader_of(block->answer->fields);
    for (struct stream_row row; stream_row_next(&fields, &row);)
        rows->count++;
    return true;
}

void kafka_rows_effect(struct kafka *k, struct kafka_request *r, struct kafka_rows *rows, struct effect *e)
{
    rows->asked = false;
    if (e->type != EFF_ANSWER || !e->answer || !keep(k, r, rows, e)) {
        hub_drop(kafka_hub(k), e);
        kafka_drop_memory(k);
        return;
    }
    hub_drop(kafka_hub(k), e);
    const struct answer *answer = rows->last->answer;
    bool more = answer->number;
    if (rows->all)
        rows->after = answer->number2;
    else {
        CHECK(answer->number2 > 0); /* the core always takes one */
        advance(rows, answer->number2);
        kafka_topics_note(k, answer);
        more = rows->left > 0;
    }
    if (kafka_live(k) && !more)
        gather(k, r, rows);
}

void kafka_rows_drop(struct kafka_rows *rows)
{
    for (struct kafka_rows_block *block = rows->first; block; block = block->next) {
        mem_free(block->answer);
        block->answer = NULL;
    }
}
