/* Errands of requests, see errands.h. */
#include "proto/kafka/errands.h"

#include "base/check.h"
#include "base/mem.h"
#include "proto/kafka/rows.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT_MAX 1024

enum { WANTED = 1, SENT, DONE };

bool kafka_errands_init(struct kafka *k, struct kafka_request *r, const struct kafka_errand_kind *kind, size_t count,
                        struct kafka_errands *ret)
{
    *ret = (struct kafka_errands){.kind = kind, .count = count, .state = kafka_more_room(k, r, count, 1)};
    return ret->state != NULL;
}

void kafka_errand_want(struct kafka_errands *e, size_t i)
{
    e->state[i] = WANTED;
}

enum kafka_progress kafka_errands(struct kafka *k, struct kafka_request *r, struct kafka_errands *e)
{
    for (; e->sent < e->count; e->sent++) {
        uint16_t channel = 0;
        if (e->state[e->sent] != WANTED)
            continue;
        if (hub_room(kafka_hub(k)) == 0) {
            hub_wait_room(kafka_hub(k), &k->session);
            return KAFKA_AGAIN;
        }
        struct ask *ask = e->kind->ask(k, r, e->sent, &channel);
        if (!ask) {
            kafka_drop_memory(k);
            return KAFKA_AGAIN;
        }
        struct command *command = kafka_command(k, r, e->kind->type);
        command->ask = ask;
        command->channel = channel;
        e->state[e->sent] = SENT;
    }
    return KAFKA_SENT;
}

void kafka_errands_effect(struct kafka *k, struct kafka_request *r, struct kafka_errands *e, struct effect *effect)
{
    while (e->answered < e->count && e->state[e->answered] != SENT)
        e->answered++;
    CHECK(e->answered < e->count);
    size_t i = e->answered;
    e->state[i] = DONE;
    if (effect->type == EFF_ANSWER && effect->answer) {
        r->lsn = effect->lsn > r->lsn ? effect->lsn : r->lsn;
        e->kind->done(k, r, i, effect->answer);
    } else
        kafka_drop_memory(k);
    hub_drop(kafka_hub(k), effect);
}

struct slice kafka_text(struct kafka *k, struct kafka_request *r, const char *format, ...)
{
    char text[TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t len = strlen(text);
    uint8_t *room = kafka_more_room(k, r, len, 1);
    if (!room)
        return (struct slice){0};
    memcpy(room, text, len);
    return slice_of(room, len);
}

struct named {
    struct slice name;
    size_t at;
};

static int by_name(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    if (x->name.len != y->name.len)
        return x->name.len < y->name.len ? -1 : 1;
    int order = x->name.len ? memcmp(x->name.ptr, y->name.ptr, x->name.len) : 0;
    return order ? order : x->at < y->at ? -1 : 1;
}

uint8_t *kafka_doubles(struct kafka *k, struct kafka_request *r, const struct slice *names, size_t count)
{
    struct named *list = kafka_more_room(k, r, count, sizeof *list);
    uint8_t *marks = list ? kafka_more_room(k, r, count, 1) : NULL;
    if (!marks)
        return NULL;
    for (size_t i = 0; i < count; i++)
        list[i] = (struct named){names[i], i};
    qsort(list, count, sizeof *list, by_name);
    for (size_t i = 1; i < count; i++)
        if (slice_equal(list[i].name, list[i - 1].name)) {
            marks[list[i].at] = KAFKA_LATER;
            if (marks[list[i - 1].at] == KAFKA_UNIQUE)
                marks[list[i - 1].at] = KAFKA_FIRST_OF_SEVERAL;
        }
    return marks;
}
