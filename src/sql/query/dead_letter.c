/* Dead letters of queries, see dead_letter.h. */
#include "sql/query/dead_letter.h"

#include "base/mem.h"

#include <stdio.h>

#define ROOM_FIRST (16u * 1024)
#define HEADERS_KEPT 32u /* of the record's own; what are more is left out */
#define HEADERS_OWN 6u

void dead_letters_init(struct dead_letters *d)
{
    *d = (struct dead_letters){.count = 0};
}

void dead_letters_fini(struct dead_letters *d)
{
    mem_free(d->w.base);
    dead_letters_init(d);
}

static bool room_for(struct dead_letters *d, size_t len)
{
    size_t room = d->w.max ? d->w.max : ROOM_FIRST, wanted = d->w.len + len + RECORD_BATCH_HEADER;
    if (wanted > DEAD_LETTER_BYTES_MAX)
        return false;
    while (room < wanted)
        room *= 2;
    if (room == d->w.max)
        return true;
    uint8_t *more = mem_realloc(d->w.base, room);
    if (!more)
        return false;
    d->w.base = more;
    d->w.max = room;
    return true;
}

static uint32_t headers_of(const struct dead_letter *letter, char numbers[2][24], struct record_header *ret)
{
    struct slice own = letter->headers.ptr ? letter->headers : (struct slice){0};
    uint32_t count = 0;
    while (count < HEADERS_KEPT && record_header_next(&own, &ret[count]))
        count++;
    snprintf(numbers[0], 24, "%u", letter->partition);
    snprintf(numbers[1], 24, "%llu", (unsigned long long)letter->offset);
    const struct record_header ours[HEADERS_OWN] = {
        {slice_str("sql.error"), true, slice_str(sql_fault_state(letter->fault))},
        {slice_str("sql.reason"), true, slice_str(sql_fault_text(letter->fault))},
        {slice_str("sql.query"), true, letter->query},
        {slice_str("sql.stream"), true, letter->stream},
        {slice_str("sql.partition"), true, slice_str(numbers[0])},
        {slice_str("sql.offset"), true, slice_str(numbers[1])},
    };
    memcpy(ret + count, ours, sizeof ours);
    return count + HEADERS_OWN;
}

bool dead_letters_add(struct dead_letters *d, const struct dead_letter *letter)
{
    struct dead_letter bare;
    struct record_header headers[HEADERS_KEPT + HEADERS_OWN];
    char numbers[2][24];
    if (letter->key.len + letter->value.len + letter->headers.len > DEAD_LETTER_RECORD_MAX) {
        struct slice none = {0};
        bare = *letter;
        bare.key = bare.value = bare.headers = none;
        letter = &bare;
    }
    uint32_t count = headers_of(letter, numbers, headers);
    size_t len =
        letter->key.len + letter->value.len + letter->headers.len + letter->query.len + letter->stream.len + 400;
    if (!room_for(d, len))
        return false;
    if (!d->count) {
        struct record_batch head = record_batch_head(0, letter->at);
        record_batch_begin(&d->batch, &d->w, &head);
    }
    d->batch.w = &d->w;
    if (!record_batch_put(&d->batch, letter->at, letter->key.ptr ? &letter->key : NULL,
                          letter->value.ptr ? &letter->value : NULL, headers, count))
        return false;
    d->count++;
    return true;
}

bool dead_letters_take(struct dead_letters *d, struct slab_heap *heap, struct msg **ret)
{
    struct slice none = {0};
    if (!d->count) {
        *ret = NULL;
        return true;
    }
    struct msg *msg = msg_new(heap, none, none, none, record_batch_len(&d->batch));
    if (!msg)
        return false;
    struct slice batch = record_batch_finish(&d->batch, -1);
    memcpy(msg_body_room(msg), batch.ptr, batch.len);
    msg->flags = MSG_BATCH;
    msg->expiration_ms = -1;
    dead_letters_fini(d);
    *ret = msg;
    return true;
}
