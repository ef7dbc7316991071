/* Reading streams: followers walk over chunks, consumers are served from them, and where a consumer begins.
 *
 * A follower stands in a chunk per partition. When it has come to the end of one it looks for the next: in memory, where all
 * followers of a stream share what was read or has just been written; else it is read from the files, a chunk ahead. It
 * takes only what is durable. Consumers that found nothing wait on stream->idle, and all look again when something comes.
 */
#include "core/stream_int.h"

#include <errno.h>
#include <stdio.h>

#define TURN_ITEMS 128u /* of a consumer, then the next one's turn */
#define RUN_ITEMS 256u  /* of a partition, then the next one's turn */

/* ---- where to begin ---- */

static bool interval_parse(struct slice text, int64_t *ret_ms)
{
    static const struct {
        char unit;
        int64_t ms;
    } units[] = {{'Y', 31536000000}, {'M', 2592000000}, {'D', 86400000}, {'h', 3600000}, {'m', 60000}, {'s', 1000}};
    int64_t n = 0;
    bool ms = text.len > 2 && text.ptr[text.len - 2] == 'm' && text.ptr[text.len - 1] == 's';
    if (ms)
        text.len -= 1; /* the unit is then 'm', of one */
    if (text.len < 2)
        return false;
    for (size_t i = 0; i + 1 < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        n = n < INT64_MAX / 10 - 1 ? n * 10 + (text.ptr[i] - '0') : INT64_MAX / 10;
    }
    if (ms && n > 0) {
        *ret_ms = n;
        return true;
    }
    for (size_t i = 0; n > 0 && i < ARRAY_LEN(units); i++)
        if (text.ptr[text.len - 1] == (uint8_t)units[i].unit) {
            *ret_ms = n < INT64_MAX / units[i].ms ? n * units[i].ms : INT64_MAX;
            return true;
        }
    return false;
}

bool age_parse(struct slice text, int64_t *ret_ms)
{
    return interval_parse(text, ret_ms);
}

bool offset_spec_parse(struct broker *b, struct slice args, struct offset_spec *ret, char *why, size_t why_len)
{
    struct amqp_value v;
    int64_t ms;
    *ret = (struct offset_spec){.kind = OFFSET_NEXT};
    if (!amqp_table_find(args, "x-stream-offset", &v))
        return true;
    if (amqp_value_is_str(&v) && slice_is(v.s, "first"))
        ret->kind = OFFSET_FIRST;
    else if (amqp_value_is_str(&v) && slice_is(v.s, "last"))
        ret->kind = OFFSET_LAST;
    else if (amqp_value_is_str(&v) && slice_is(v.s, "next"))
        ret->kind = OFFSET_NEXT;
    else if (amqp_value_is_str(&v) && interval_parse(v.s, &ms))
        *ret = (struct offset_spec){.kind = OFFSET_TIME, .time = b->wall > ms ? b->wall - ms : 0};
    else if (v.type == 'T')
        *ret = (struct offset_spec){.kind = OFFSET_TIME,
                                    .time = v.i < INT64_MAX / 1000 && v.i >= 0 ? (wall_t)v.i * 1000 : INT64_MAX};
    else if (amqp_value_is_int(&v) && v.i >= 0)
        *ret = (struct offset_spec){.kind = OFFSET_NUMBER, .number = (uint64_t)v.i};
    else {
        snprintf(why, why_len,
                 "x-stream-offset must be first, last, next, an offset, a timestamp or an interval such as 1h or 7D");
        return false;
    }
    return true;
}

/* ---- followers ---- */

struct follower *follower_new(struct stream *s)
{
    uint32_t count = s->partition_count;
    struct follower *f = mem_zalloc(sizeof *f);
    if (!f || !(f->places = mem_zalloc(count * sizeof f->places[0]))) {
        mem_free(f);
        return NULL;
    }
    f->stream = s;
    f->place_count = count;
    for (uint32_t i = 0; i < count; i++)
        f->places[i].next = OFFSET_NONE;
    list_insert(&s->followers, &f->link);
    return f;
}

static void leave(struct broker *b, struct place *place)
{
    struct chunk *c = place->chunk;
    place->chunk = NULL;
    if (c)
        chunk_unread(b, c);
}

void follower_free(struct broker *b, struct follower **follower)
{
    struct follower *f = *follower;
    *follower = NULL;
    if (!f)
        return;
    for (uint32_t i = 0; i < f->place_count; i++)
        leave(b, &f->places[i]);
    list_remove(&f->link);
    mem_free(f->places);
    f->places = NULL;
    f->stream = NULL;
    f->cursor = NULL;
    if (f->finding)
        list_insert(&b->streams.leaving, &f->link);
    else
        mem_free(f);
}

bool followers_reserve(struct stream *s, uint32_t count)
{
    LIST_EACH(&s->followers, node, after)
    {
        struct follower *f = CONTAINER_OF(node, struct follower, link);
        struct place *grown = mem_realloc(f->places, count * sizeof *grown);
        if (!grown)
            return false;
        f->places = grown;
    }
    return true;
}

void followers_grow(struct stream *s)
{
    LIST_EACH(&s->followers, node, after)
    {
        struct follower *f = CONTAINER_OF(node, struct follower, link);
        for (uint32_t i = f->place_count; i < s->partition_count; i++)
            f->places[i] = (struct place){.next = f->all ? 0 : OFFSET_NONE};
        f->place_count = s->partition_count;
    }
}

void followers_trimmed(struct broker *b, const struct partition *p)
{
    LIST_EACH(&p->stream->followers, node, after)
    {
        struct follower *f = CONTAINER_OF(node, struct follower, link);
        if (f->places[p->number].next < p->start)
            follower_place(b, f, p->number, p->start);
    }
}

void follower_place(struct broker *b, struct follower *f, uint32_t partition, uint64_t offset)
{
    leave(b, &f->places[partition]);
    f->places[partition].next = offset;
}

void follower_found(struct broker *b, struct stream_job *job)
{
    struct follower *f = (struct follower *)(uintptr_t)job->ticket;
    CHECK(f->finding);
    f->finding--;
    if (!f->stream) {
        if (f->finding)
            return;
        list_remove(&f->link);
        mem_free(f);
        return;
    }
    /* Whoever cannot be told where the time is begins at the beginning: more than was asked for rather than less. */
    follower_place(b, f, job->partition, job->err ? job->first : job->next);
    stream_awake(b, f->stream);
}

/* The chunk that holds the place's next record, or is being read for it. NULL: SIGHT_END or SIGHT_LATER in why. */
static struct chunk *enter(struct broker *b, struct follower *f, struct partition *p, uint64_t next, enum sight *why)
{
    struct chunk *c = chunk_before(p, next);
    *why = SIGHT_END;
    if (c && c->next > next) {
        if (!c->batches)
            return c;
        *why = c->state == CHUNK_READY ? SIGHT_END : SIGHT_LATER;
        if (c->state != CHUNK_READY || chunk_safe(b, c) < c->job->count)
            return NULL;
        chunk_end(b, c); /* T6: it is in the file */
    }
    if (next >= p->written)
        return NULL;
    *why = SIGHT_LATER;
    c = b->streams.reading_paused ? NULL : chunk_load(b, p, next);
    if (!c)
        stream_starves(b, f->stream);
    return c;
}

/* The chunk behind this one is read while this one is taken. */
static void read_ahead(struct broker *b, struct partition *p, const struct chunk *c)
{
    if (c->next >= p->written || c->next >= partition_stable(b, p) || b->streams.reading_paused)
        return;
    if (c->link.next != &p->chunks && CONTAINER_OF(c->link.next, struct chunk, link)->first <= c->next)
        return;
    (void)chunk_load(b, p, c->next); /* without room it is read when it is wanted */
}

static uint32_t first_at(const struct chunk *c, uint64_t offset)
{
    uint32_t low = 0, high = c->job->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (c->job->items[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void step_into(struct broker *b, struct place *place, struct partition *p, struct chunk *c)
{
    chunk_read(c);
    place->chunk = c;
    place->at = c->job ? first_at(c, place->next) : 0;
    if (c->state != CHUNK_LOADING)
        read_ahead(b, p, c);
}

/* The first record of a time is looked for in the files. False: no memory, or no room. */
static bool find(struct broker *b, struct follower *f, struct partition *p)
{
    struct stream_job *job = stream_has_room(b) ? stream_job_new(STREAM_FIND, 0) : NULL;
    if (!job)
        return false;
    job->ticket = (uint64_t)(uintptr_t)f;
    job->stream = p->stream->queue->id;
    job->partition = p->number;
    job->first = p->start;
    job->until = f->places[p->number].before;
    job->timestamp = f->from;
    CHECK(stream_send(b, &job));
    f->finding++;
    return true;
}

/* What was there when the reader began is in the files first. A stream may have more partitions than jobs can be on their way. */
static enum sight seek(struct broker *b, struct follower *f, struct partition *p)
{
    if (p->written < f->places[p->number].before)
        partition_hurry(b, p);
    else if (find(b, f, p))
        f->places[p->number].sought = false;
    else
        stream_starves(b, f->stream);
    return SIGHT_LATER;
}

/* One partition. */
static enum sight look(struct broker *b, struct follower *f, uint32_t number, const struct stream_item **ret)
{
    struct partition *p = f->stream->partitions[number];
    struct place *place = &f->places[number];
    enum sight why;
    if (place->sought && p->start >= place->before) { /* it was given up meanwhile */
        place->sought = false;
        follower_place(b, f, number, p->start);
    }
    if (place->next == OFFSET_NONE)
        return place->sought ? seek(b, f, p) : SIGHT_END;
    if (place->next < p->start)
        follower_place(b, f, number, p->start); /* retention was faster */
    for (;;) {
        if (place->next >= partition_stable(b, p))
            return SIGHT_END; /* T7 */
        if (!place->chunk) {
            struct chunk *c = enter(b, f, p, place->next, &why);
            if (!c)
                return why;
            step_into(b, place, p, c);
        }
        struct chunk *c = place->chunk;
        if (c->state == CHUNK_LOADING)
            return SIGHT_LATER;
        if (c->state == CHUNK_DAMAGED) {
            if (c->job->err == -EILSEQ)
                return SIGHT_DAMAGED;
            leave(b, place);
            continue; /* reading pauses now */
        }
        while (place->at < c->job->count && c->job->items[place->at].offset < place->next)
            place->at++;
        if (place->at < chunk_safe(b, c)) {
            *ret = &c->job->items[place->at];
            return SIGHT_ITEM;
        }
        if (place->at < c->job->count)
            return SIGHT_END;
        if (place->next < c->next)
            place->next = c->next;
        if (c->state == CHUNK_QUEUED && c->link.next == &p->chunks)
            return SIGHT_END; /* more may come into it */
        leave(b, place);
    }
}

enum sight follower_look(struct broker *b, struct follower *f, const struct stream_item **ret, uint32_t *ret_partition)
{
    enum sight worst = SIGHT_END;
    if (f->run >= RUN_ITEMS && f->place_count > 1) {
        f->run = 0;
        f->turn = (f->turn + 1) % f->place_count;
    }
    for (uint32_t i = 0; i < f->place_count; i++) {
        enum sight sight = look(b, f, f->turn, ret);
        *ret_partition = f->turn;
        if (sight == SIGHT_ITEM)
            return sight;
        worst = sight > worst ? sight : worst;
        f->run = 0;
        f->turn = (f->turn + 1) % f->place_count;
    }
    return worst;
}

void follower_took(struct follower *f)
{
    struct place *place = &f->places[f->turn];
    place->next = place->chunk->job->items[place->at].offset + 1;
    place->at++;
    f->run++;
}

/* ---- consumers ---- */

/* False: no memory, or the port is full; nothing has changed then. */
static bool deliver_item(struct broker *b, struct consumer *consumer, const struct stream_item *item,
                         uint32_t partition)
{
    struct channel *ch = consumer->channel;
    if (!port_has_room(ch->peer->side) || !unacked_reserve(&ch->unacked))
        return false;
    struct effect *effect = effect_push(b, ch->peer, EFF_DELIVER, ch->number);
    effect->msg = msg_ref(item->msg);
    effect->consumer = consumer->id;
    effect->number = ++ch->next_tag;
    effect->flags = EFFECT_STREAM;
    effect->count = item->offset;
    effect->origin = consumer->queue->stream->partition_count > 1 ? partition + 1 : 0;
    ch->peer->credit -= (int64_t)delivery_cost(item->msg);
    unacked_push(
        &ch->unacked,
        (struct unacked){
            .tag = ch->next_tag, .entry = &b->streams.token, .consumer = consumer, .since = b->now, .counted = true});
    consumer->unacked++;
    ch->global_unacked++;
    b->totals.delivered++;
    return true;
}

enum turn { TURN_FULL, TURN_WAITS, TURN_AGAIN, TURN_STALLED };

static enum turn serve(struct broker *b, struct consumer *consumer, unsigned *budget)
{
    const struct stream_item *item;
    uint32_t partition;
    for (unsigned n = 0; n < TURN_ITEMS && *budget; n++) {
        if (!consumer_can_take(consumer))
            return TURN_FULL;
        if (follower_look(b, consumer->follower, &item, &partition) != SIGHT_ITEM)
            return TURN_WAITS;
        if (!deliver_item(b, consumer, item, partition))
            return TURN_STALLED;
        follower_took(consumer->follower);
        (*budget)--;
    }
    return TURN_AGAIN;
}

bool stream_awaits_durable(const struct stream *s)
{
    for (uint32_t i = 0; i < s->partition_count; i++) {
        const struct partition *p = s->partitions[i];
        if (!list_empty(&p->chunks) && CONTAINER_OF(p->chunks.prev, struct chunk, link)->mark_count)
            return true;
    }
    return false;
}

void stream_pump(struct broker *b, struct queue *q, unsigned *budget)
{
    struct stream *s = q->stream;
    struct consumer *consumer;
    while (!list_empty(&s->idle))
        consumer_enlist(b, CONTAINER_OF(s->idle.next, struct consumer, ready_link));
    while (*budget && (consumer = queue_next_ready(q))) {
        enum turn turn = serve(b, consumer, budget);
        if (turn == TURN_STALLED) {
            queue_await(b, q);
            b->stalled = true;
            return;
        }
        if (turn == TURN_WAITS) {
            list_remove(&consumer->ready_link);
            list_insert(&s->idle, &consumer->ready_link);
            consumer->ready = false;
        } else
            consumer_enlist(b, consumer); /* behind the others; who is full is parked when its turn comes */
    }
    q->pumping = false;
    list_remove(&q->busy->pump_link);
    if (queue_next_ready(q))
        queue_schedule(b, q);
    else if (!list_empty(&s->idle) && stream_awaits_durable(s))
        queue_await(b, q);
}

bool stream_consume_allowed(struct broker *b, struct channel *ch, struct queue *q, struct command *c)
{
    struct peer *peer = ch->peer;
    struct offset_spec spec;
    struct amqp_value v;
    char why[200];
    bool one = amqp_table_find(c->ask->args, "x-stream-partition", &v);
    if (ch->prefetch == 0) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "consumer prefetch count is not set for 'queue '%.*s' in vhost '%.*s''", SLICE_ARG(q->name),
             SLICE_ARG(peer->vhost->name));
    } else if (c->ask->flags & ASK_NO_ACK) {
        fail(b, peer, c->channel, c->origin, ERR_NOT_IMPLEMENTED,
             "automatic acknowledgement not supported by stream queues queue '%.*s' in vhost '%.*s'",
             SLICE_ARG(q->name), SLICE_ARG(peer->vhost->name));
    } else if (ch->global_prefetch) {
        fail(b, peer, c->channel, c->origin, ERR_NOT_IMPLEMENTED,
             "queue '%.*s' in vhost '%.*s' does not support global qos", SLICE_ARG(q->name),
             SLICE_ARG(peer->vhost->name));
    } else if (!offset_spec_parse(b, c->ask->args, &spec, why, sizeof why)) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "invalid arg 'x-stream-offset' for queue '%.*s' in vhost '%.*s': %s", SLICE_ARG(q->name),
             SLICE_ARG(peer->vhost->name), why);
    } else if (one && (!amqp_value_is_int(&v) || v.i < 0 || v.i >= q->stream->partition_count)) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "invalid arg 'x-stream-partition': stream '%.*s' in vhost '%.*s' has partitions 0 to %u",
             SLICE_ARG(q->name), SLICE_ARG(peer->vhost->name), q->stream->partition_count - 1);
    } else if (spec.kind == OFFSET_NUMBER && !one && q->stream->partition_count > 1) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "an offset needs 'x-stream-partition': stream '%.*s' in vhost '%.*s' has %u partitions",
             SLICE_ARG(q->name), SLICE_ARG(peer->vhost->name), q->stream->partition_count);
    } else
        return true;
    return false;
}

static void begin_at(struct broker *b, struct follower *f, struct partition *p, const struct offset_spec *spec)
{
    uint64_t next = p->end;
    switch (spec->kind) {
    case OFFSET_FIRST: next = p->start; break;
    case OFFSET_LAST: next = p->end > p->start ? p->end - 1 : p->end; break;
    case OFFSET_NEXT: break;
    case OFFSET_NUMBER: next = spec->number > p->start ? spec->number : p->start; break; /* also behind the end */
    case OFFSET_TIME:
        f->from = spec->time;
        f->places[p->number].before = p->end;
        f->places[p->number].sought = p->end > p->start;
        if (f->places[p->number].sought)
            return; /* when it is looked at */
        next = p->start;
        break;
    }
    follower_place(b, f, p->number, next);
}

/* Checked by stream_consume_allowed. False: no memory. */
bool stream_consume(struct broker *b, struct consumer *consumer)
{
    struct stream *s = consumer->queue->stream;
    struct offset_spec spec;
    struct amqp_value v;
    char why[200];
    CHECK(offset_spec_parse(b, consumer->args, &spec, why, sizeof why));
    bool one = amqp_table_find(consumer->args, "x-stream-partition", &v);
    struct follower *f = follower_new(s);
    if (!f)
        return false;
    for (uint32_t i = 0; i < s->partition_count; i++)
        if (!one || v.i == i)
            begin_at(b, f, s->partitions[i], &spec);
    f->all = !one;
    consumer->follower = f;
    return true;
}

void stream_consumer_gone(struct broker *b, struct consumer *consumer)
{
    follower_free(b, &consumer->follower);
}
