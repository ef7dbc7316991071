/* What a query takes from a queue, see server/run.h and docs/decisions/0016: one consumer, on a session of its own.
 *
 * Deliveries are numbered by their tags: 1, 2, 3 … Those below `first` are in steps that have been made, those below `taken` have gone through the query, those below `next` have come. A
 * message that was taken goes with the step that has its row, or its dead letter; one that gave nothing with the last of what is cut. What is in no step that
 * was accepted goes back to its queue with the session, whatever ends the query.
 *
 * The session's credit bounds what waits here in bytes, the prefetch how many are not acknowledged. */
#include "sql/server/run.h"

#include "base/check.h"
#include "base/mem.h"
#include "core/stream_admin.h"
#include "sql/query/message_rows.h"

#include <stdio.h>

#define CHANNEL 1u /* the only one of the session */
#define PREFETCH 1000u
#define PREFETCH_MAX 1024u /* as WITH has it */
#define ROOM_FIRST 64u
#define ROOM_MAX (2 * PREFETCH_MAX) /* what is told out of turn leaves gaps, which no more than as many follow */

struct delivery {
    struct msg *msg; /* NULL: it was taken */
    bool letter;     /* it has become one */
    bool told;
};

struct run_queue {
    struct server_run *run;
    uint32_t prefetch;
    bool known, opened;
    struct delivery *ring; /* by number */
    uint32_t room;         /* a power of two */
    uint64_t first, taken, next;
    uint32_t untold; /* below taken */
    uint64_t owed;   /* credit that could not be given back yet */
};

static struct delivery *delivery_of(const struct run_queue *q, uint64_t number)
{
    return &q->ring[number & (q->room - 1)];
}

/* ---- which queries may ---- */

bool server_object_is_queue(const struct server_object *o)
{
    return o->kind == KIND_STREAM && o->with.queue.len;
}

static const struct server_object *queue_of(const struct server_object *o, const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->source_count; i++)
        LIST_EACH(&o->server->objects, node, after)
        {
            const struct server_object *source = CONTAINER_OF(node, struct server_object, link);
            if (source->relation == &plan->sources[i].stream->ast && server_object_is_queue(source))
                return source;
        }
    return NULL;
}

bool server_queue_allowed(const struct server_object *o, const struct query *query, struct sql_error *error)
{
    const struct plan *plan = query_plan(query);
    const struct server_object *queue = queue_of(o, plan);
    const struct ast *place = o->statement;
    if (!queue)
        return true;
    if (!query_stateless(query)) {
        sql_error_set(error, SQL_FAULT_UNBOUNDED, place->at, place->len,
                      "%s is a queue: its messages cannot be read again, as a query that remembers needs it",
                      queue->name);
        sql_error_hint(error, "CREATE STREAM name AS SELECT * FROM %s makes a stream of them", queue->name);
    } else if (plan->source_count > 1 || plan->sources[0].op->output_count > 1) {
        sql_error_set(error, SQL_FAULT_UNBOUNDED, place->at, place->len,
                      "%s is a queue: a query reads it once, and nothing beside it", queue->name);
    } else if (o->with.start != START_UNSAID) {
        sql_error_set(error, SQL_FAULT_VALUE, place->at, place->len,
                      "%s is a queue, of which all that waits is read: start is for streams", queue->name);
    } else {
        return true;
    }
    return false;
}

/* ---- from LOOKING to GOING ---- */

bool run_queue_open(struct server_run *run)
{
    if (!run->source_count || !run->sources[0].queue)
        return true;
    const char *user = run->session->user, *vhost = run->session->vhost;
    struct server_session *own = server_session_new(run->server, user, vhost);
    run->queue = own ? mem_zalloc(sizeof *run->queue) : NULL;
    if (!run->queue) {
        if (own)
            server_session_put(&own);
        return false;
    }
    uint32_t prefetch = run->sources[0].with->prefetch;
    *run->queue =
        (struct run_queue){.run = run, .prefetch = prefetch ? prefetch : PREFETCH, .first = 1, .taken = 1, .next = 1};
    server_session_put(&run->session);
    run->session = own;
    own->consumer = run->queue;
    return true;
}

void run_queue_free(struct run_queue **queue)
{
    struct run_queue *q = *queue;
    *queue = NULL;
    if (!q)
        return;
    q->run->session->consumer = NULL;
    for (uint64_t n = q->taken; n < q->next; n++)
        msg_unref(q->run->server->heap, delivery_of(q, n)->msg);
    mem_free(q->ring);
    mem_free(q);
}

static void on_found(struct server_call *call, struct effect *e)
{
    struct server_run *run = CONTAINER_OF(call, struct server_run, call);
    const struct answer *a = e && e->type == EFF_ANSWER ? e->answer : NULL;
    struct slice name = run->sources[0].topic;
    struct reader fields = reader_of(a ? a->fields : (struct slice){0});
    struct stream_row row = {.result = STREAM_NO_ROOM};
    (void)!stream_row_next(&fields, &row);
    run->queue->known = row.result == STREAM_IS_QUEUE && row.verbs & STREAM_MAY_READ;
    if (!e)
        run_fail(run, "%s", run->session->why);
    else if (row.result == STREAM_UNKNOWN)
        run_fail(run, "there is no queue %.*s", SLICE_ARG(name));
    else if (row.result == STREAM_DONE)
        run_fail(run, "%.*s is a stream, and no queue", SLICE_ARG(name));
    else if (a && !run->queue->known)
        run_fail(run, "its owner may not read the queue %.*s", SLICE_ARG(name));
    if (e)
        server_effect_drop(run->server, e);
}

/* Its trail is how many rows were given out. */
static void begin(struct server_run *run)
{
    struct trail_reader r;
    struct trail_entry entry;
    trail_read_begin(&r, trail_bytes(&run->object->trail));
    while (trail_read(&r, &entry))
        if (entry.kind == TRAIL_PLACE)
            run->given = entry.offset;
    output_seek(run->output, run->given);
    run->state = RUN_GOING;
}

static void on_consuming(struct server_call *call, struct effect *e)
{
    struct server_run *run = CONTAINER_OF(call, struct server_run, call);
    if (!e)
        run_fail(run, "%s", run->session->why);
    else if (e->type == EFF_ERROR)
        run_fail(run, "%.*s", SLICE_ARG(e->answer ? e->answer->text : slice_str("no memory to consume")));
    else
        begin(run);
    if (e)
        server_effect_drop(run->server, e);
}

static void consume(struct server_run *run)
{
    char tag[SQL_NAME_MAX];
    struct slice none = {0};
    int len = snprintf(tag, sizeof tag, "sql.%s", run->object->name);
    struct slice name = slice_of(tag, (size_t)len < sizeof tag ? (size_t)len : sizeof tag - 1);
    struct command *c = NULL;
    if (!run->queue->opened && ring_room(&run->server->port->commands) >= 2) {
        c = server_command(run->session, NULL, CMD_CHANNEL_OPEN, false);
        c->channel = CHANNEL;
        c = server_command(run->session, NULL, CMD_QOS, false);
        c->channel = CHANNEL;
        c->number = run->queue->prefetch;
        run->queue->opened = true;
    }
    struct ask *ask = run->queue->opened ? ask_new(run->sources[0].topic, name, none, none) : NULL;
    c = ask ? server_command(run->session, &run->call, CMD_CONSUME, false) : NULL;
    if (!c) {
        mem_free(ask);
        return;
    }
    run->call.on_done = on_consuming;
    c->channel = CHANNEL;
    c->ask = ask;
}

void run_queue_look(struct server_run *run)
{
    uint8_t room[256];
    struct writer w = writer_of(room, sizeof room);
    struct slice none = {0};
    if (run->queue->known) {
        consume(run);
        return;
    }
    writer_str8(&w, run->sources[0].topic);
    run->call.on_done = on_found;
    (void)server_ask(run->session, &run->call, CMD_STREAM_LIST, ask_new(writer_slice(&w), none, none, none), 0, 0,
                     false);
}

/* ---- deliveries ---- */

static bool make_room(struct run_queue *q)
{
    if (q->next - q->first < q->room)
        return true;
    uint32_t room = q->room ? 2 * q->room : ROOM_FIRST;
    struct delivery *ring = room <= ROOM_MAX ? mem_alloc(room * sizeof *ring) : NULL;
    if (!ring)
        return false;
    for (uint64_t n = q->first; n < q->next; n++)
        ring[n & (room - 1)] = *delivery_of(q, n);
    mem_free(q->ring);
    q->ring = ring;
    q->room = room;
    return true;
}

void run_queue_effect(struct run_queue *q, struct effect *e)
{
    struct server_run *run = q->run;
    bool delivery = e->type == EFF_DELIVER;
    if (delivery && e->number == q->next && make_room(q)) {
        *delivery_of(q, q->next++) = (struct delivery){.msg = e->msg};
        return;
    }
    if (delivery)
        run_fail(run, "no memory for a message of the queue");
    else if (e->type == EFF_CONSUMER_GONE)
        run_fail(run, "the queue %.*s is gone, or its owner may not read it any more",
                 SLICE_ARG(run->sources[0].topic));
    else
        run_fail(run, "%.*s", SLICE_ARG(e->answer ? e->answer->text : slice_str("its consumer has failed")));
    server_effect_drop(run->server, e);
}

/* Their bytes are needed no more: as many may follow. */
static void give_credit(struct run_queue *q)
{
    struct command *c = q->owed ? server_command(q->run->session, NULL, CMD_CREDIT, false) : NULL;
    q->run->server->again = q->run->server->again || (q->owed && !c);
    if (!c)
        return;
    c->number = q->owed;
    q->owed = 0;
}

/* As many as a step may have, and as the acknowledgements of one step: what waits is no more than the prefetch. */
static uint32_t collect(struct run_queue *q, struct message_rows *rows)
{
    uint32_t count = 0;
    message_rows_begin(rows, q->taken);
    while (q->taken + count < q->next && !message_rows_full(rows) &&
           message_rows_add(rows, delivery_of(q, q->taken + count)->msg, q->run->server->wall))
        count++;
    return count;
}

static void release(struct run_queue *q, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct delivery *d = delivery_of(q, q->taken++);
        q->owed += delivery_cost(d->msg);
        msg_unref(q->run->server->heap, d->msg);
        d->msg = NULL;
    }
    q->untold += count;
}

bool run_queue_take(struct server_run *run)
{
    struct sql_server *server = run->server;
    struct run_queue *q = run->queue;
    enum sql_fault fault;
    if (q->taken < q->next && !server->messages)
        server->messages = message_rows_new();
    uint32_t count = q->taken < q->next && server->messages ? collect(q, server->messages) : 0;
    if (count) {
        struct query_input in = message_rows_input(server->messages);
        output_at(run->output, q->taken);
        run->input = &in;
        if (!query_step(run->query, &in, &fault))
            run_fail(run, "%s (at a message of %.*s)", sql_fault_text(fault), SLICE_ARG(run->sources[0].topic));
        run->input = NULL;
        run->rows_in += count;
        release(q, count);
    }
    server->again = server->again || (!count && q->taken < q->next); /* no memory */
    give_credit(q);
    return count;
}

void run_queue_letter(struct server_run *run, uint64_t number)
{
    delivery_of(run->queue, number)->letter = true;
}

/* ---- acknowledgements ---- */

uint64_t run_queue_taken(const struct server_run *run)
{
    return run->queue->taken;
}

uint32_t run_queue_untold(const struct server_run *run)
{
    return run->queue->untold;
}

uint64_t run_queue_lag(const struct server_run *run)
{
    const struct run_queue *q = run->queue;
    return q->next - q->taken + q->untold;
}

bool run_queue_presses(const struct server_run *run)
{
    return run->queue && 2 * run->queue->untold >= run->queue->prefetch;
}

bool run_queue_tell_half(struct query_step *step, const uint64_t *tags, uint32_t count)
{
    return !count || query_step_acks(step, CHANNEL, tags, count);
}

bool run_queue_tell(struct server_run *run, struct query_step *step, uint64_t until, bool letters)
{
    struct run_queue *q = run->queue;
    uint64_t tags[PREFETCH_MAX];
    uint32_t count = 0;
    CHECK(until <= q->taken && q->untold <= PREFETCH_MAX);
    for (uint64_t n = q->first; n < until; n++)
        if (!delivery_of(q, n)->told && (!letters || delivery_of(q, n)->letter))
            tags[count++] = n;
    if (count && !query_step_acks(step, CHANNEL, tags, count))
        return false;
    for (uint32_t i = 0; i < count; i++)
        delivery_of(q, tags[i])->told = true;
    q->untold -= count;
    while (q->first < q->taken && delivery_of(q, q->first)->told)
        q->first++;
    return true;
}
