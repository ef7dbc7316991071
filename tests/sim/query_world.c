/* Continuous SQL in a world, see query_world.h. */
#include "query_world.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "fmt/record_batch.h"

#define ENGINE_PORT (w->options.ports + 3)
#define CLIENT_PORT 1u /* which is no loop's */
#define SESSION 3u
#define ROWS "rows"
#define SOURCE "source" /* whatever is put into it is taken again */
#define STREAM "amq.sql.q"
#define STEPS 24u

static bool well(const struct world *w)
{
    return !w->dead && !w->model->wrong[0];
}

struct heard {
    bool answered, stepped, last; /* an ANSWER, a QUERY_STEPPED, the last of SQL_SAID */
    uint8_t result;               /* of the step */
    uint64_t number, number2;     /* of the answer */
    uint64_t tag;                 /* of a delivery; 0: none */
    uint64_t ticket;              /* of what is asked; 0: nothing */
    uint64_t step;                /* of the first row */
    bool listed;
};

static void note(struct heard *ret, const struct effect *e)
{
    struct sql_object_row row;
    if (e->type == EFF_ANSWER && e->answer) {
        ret->answered = true;
        ret->number = e->answer->number;
        ret->number2 = e->answer->number2;
    } else if (e->type == EFF_ROW) {
        struct reader r = reader_of(e->answer->fields);
        if (!ret->listed && sql_object_row_next(&r, &row)) {
            ret->listed = true;
            ret->step = row.step;
        }
    } else if (e->type == EFF_QUERY_STEPPED) {
        ret->stepped = true;
        ret->result = e->query_step->result;
    } else if (e->type == EFF_GET_OK)
        ret->tag = e->number;
    else if (e->type == EFF_SQL_ASK)
        ret->ticket = e->number;
    else if (e->type == EFF_SQL_SAID)
        ret->last = e->flags & EFFECT_SQL_LAST;
}

/* Takes what the port says, as far as it is durable. */
static void listen(struct world *w, unsigned number, struct heard *ret)
{
    struct port *port = broker_port(w->broker, number);
    for (struct effect *e; (e = ring_peek(&port->effects)); ring_pop(&port->effects)) {
        bool durable = e->lsn <= journal_durable(w->journal);
        if (!durable && !w->dead)
            return;
        if (durable)
            note(ret, e);
        if (e->type == EFF_QUERY_STEPPED)
            query_step_free(broker_heap(w->broker), &e->query_step);
        else if (e->type != EFF_SQL_MORE && e->type != EFF_GET_OK)
            mem_free(e->answer);
        if (e->msg)
            msg_unref(broker_heap(w->broker), e->msg);
    }
}

static struct heard hear(struct world *w, unsigned turns)
{
    struct heard heard = {0};
    for (unsigned i = 0; i < turns && !heard.answered && !heard.stepped && !heard.last && !heard.tag; i++) {
        world_turns(w, 1);
        while (!w->dead && journal_durable(w->journal) < journal_appended(w->journal) && journal_step(w->journal) > 0)
            ;
        if (!w->broker)
            break;
        listen(w, ENGINE_PORT, &heard);
        listen(w, CLIENT_PORT, &heard);
    }
    return heard;
}

static struct command *command_to(struct world *w, unsigned port, enum command_type type)
{
    struct command *c = ring_push(&broker_port(w->broker, port)->commands);
    if (c)
        *c = (struct command){.type = (uint8_t)type, .session = SESSION};
    return c;
}

struct words {
    const char *name, *other;
    uint32_t flags;
    uint64_t number; /* of the command */
    uint16_t channel;
    uint64_t asked; /* the number of its block */
};

static struct heard ask(struct world *w, unsigned port, enum command_type type, struct words words, unsigned turns)
{
    struct slice none = {0};
    struct ask *ask =
        well(w) ? ask_new(slice_str(words.name), slice_str(words.other ? words.other : ""), none, none) : NULL;
    struct command *c = ask ? command_to(w, port, type) : NULL;
    if (!c) {
        mem_free(ask);
        return (struct heard){0};
    }
    ask->flags = words.flags;
    ask->number = words.asked;
    c->ask = ask;
    c->number = words.number;
    c->channel = words.channel;
    ring_publish(&broker_port(w->broker, port)->commands);
    return hear(w, turns);
}

static struct heard plain(struct world *w, unsigned port, enum command_type type, uint64_t number, uint16_t channel)
{
    struct command *c = well(w) ? command_to(w, port, type) : NULL;
    if (!c)
        return (struct heard){0};
    c->number = number;
    c->channel = channel;
    ring_publish(&broker_port(w->broker, port)->commands);
    return hear(w, 6);
}

static void enter(struct world *w, unsigned port)
{
    (void)ask(w, port, CMD_SESSION_OPEN, (struct words){"127.0.0.1:8", "sql", ASK_LOOPBACK, 0, 0, 0}, 2);
    (void)ask(w, port, CMD_LOGIN, (struct words){"guest", NULL, ASK_CERTIFIED, 0, 0, 0}, 4);
    (void)ask(w, port, CMD_ENTER, (struct words){"/", NULL, 0, 0, 0, 0}, 4);
}

static struct msg *row(struct world *w, const char *exchange, const char *key)
{
    static const uint8_t props[] = {0x10, 0x00, 2}; /* delivery mode 2 */
    struct msg *msg =
        msg_new(broker_heap(w->broker), slice_str(exchange), slice_str(key), slice_of(props, sizeof props), 40);
    if (!msg)
        return NULL;
    memset(msg_body_room(msg), 'r', 40);
    msg->flags = MSG_PERSISTENT;
    msg->expiration_ms = -1;
    return msg;
}

static struct msg *batch(struct world *w)
{
    uint8_t bytes[300];
    struct writer out = writer_of(bytes, sizeof bytes);
    struct record_batch_writer made;
    struct record_batch head = record_batch_head(0, 1700000000000);
    struct slice value = slice_str("a piece of a snapshot"), none = {0};
    record_batch_begin(&made, &out, &head);
    if (!record_batch_put(&made, 1700000000000, NULL, &value, NULL, 0))
        return NULL;
    struct slice whole = record_batch_finish(&made, -1);
    struct msg *msg = msg_new(broker_heap(w->broker), none, none, none, whole.len);
    if (!msg)
        return NULL;
    memcpy(msg_body_room(msg), whole.ptr, whole.len);
    msg->flags = MSG_BATCH | MSG_PERSISTENT;
    msg->expiration_ms = -1;
    return msg;
}

/* One row, one message for the source, one batch; and what came from the source before is acknowledged with it. */
static void step(struct world *w, uint64_t id, uint64_t number, uint64_t stream)
{
    uint64_t tag = ask(w, ENGINE_PORT, CMD_GET, (struct words){SOURCE, NULL, 0, 0, 1, 0}, 4).tag;
    struct query_step *step = well(w) ? query_step_new(id, number, slice_str("trail"), stream ? 3 : 2) : NULL;
    bool good = step && (!tag || query_step_acks(step, 1, &tag, 1));
    struct command *c = good ? command_to(w, ENGINE_PORT, CMD_QUERY_STEP) : NULL;
    if (!c) {
        query_step_free(broker_heap(w->broker), &step);
        return;
    }
    step->restart = number % 5 == 0;
    step->outputs[0].msg = row(w, "", ROWS);
    step->outputs[1].msg = row(w, "", SOURCE);
    if (stream)
        step->outputs[2] = (struct query_output){.queue = stream, .msg = batch(w)};
    c->query_step = step;
    ring_publish(&broker_port(w->broker, ENGINE_PORT)->commands);
    struct heard heard = hear(w, 12);
    if (heard.stepped && heard.result == QUERY_DONE) {
        w->query_steps = number;
        w->query_acked += tag != 0;
    }
}

static void serve_a_client(struct world *w)
{
    enter(w, CLIENT_PORT);
    struct heard asked = ask(w, CLIENT_PORT, CMD_SQL_ASK, (struct words){"SELECT 1", NULL, 0, 0, 0, 0}, 4);
    (void)plain(w, CLIENT_PORT, CMD_SQL_MORE, 100, 0);
    (void)ask(w, ENGINE_PORT, CMD_SQL_SAY, (struct words){"{}\n", NULL, 0, asked.ticket, 0, 0}, 2);
    (void)ask(w, ENGINE_PORT, CMD_SQL_SAY, (struct words){"{}\n", NULL, ASK_LAST, asked.ticket, 0, 0}, 2);
    (void)ask(w, CLIENT_PORT, CMD_SQL_ASK, (struct words){"SELECT 2", NULL, 0, 0, 0, 0}, 4);
    (void)plain(w, CLIENT_PORT, CMD_SQL_STOP, 0, 0);
}

void world_queries_play(struct world *w, bool (*faultless)(const struct world *w))
{
    enter(w, ENGINE_PORT);
    (void)plain(w, ENGINE_PORT, CMD_CHANNEL_OPEN, 0, 1);
    struct heard rows = ask(w, ENGINE_PORT, CMD_QUEUE_DECLARE, (struct words){ROWS, NULL, ASK_DURABLE, 0, 1, 0}, 6);
    w->query_source =
        ask(w, ENGINE_PORT, CMD_QUEUE_DECLARE, (struct words){SOURCE, NULL, ASK_DURABLE, 0, 1, 0}, 6).answered;
    struct heard stream = ask(w, ENGINE_PORT, CMD_STREAM_CREATE, (struct words){STREAM, NULL, 0, 0, 0, 0}, 6);
    struct heard put = ask(w, ENGINE_PORT, CMD_SQL_PUT, (struct words){"q", "CREATE QUERY q", 0, 0, 0, 0}, 6);
    struct heard other = ask(w, ENGINE_PORT, CMD_SQL_PUT, (struct words){"p", "CREATE TABLE p", 0, 0, 0, 0}, 6);
    if (rows.answered && put.answered && put.number == QUERY_DONE) /* else there is nothing to be counted */
        w->query = put.number2;
    for (uint64_t n = 1; n <= STEPS && well(w) && w->query; n++) {
        step(w, w->query, w->query_steps + 1, stream.answered && stream.number == STREAM_DONE ? stream.number2 : 0);
        if (n == STEPS / 2)
            serve_a_client(w);
    }
    (void)ask(w, ENGINE_PORT, CMD_SQL_PUT, (struct words){"", "CREATE QUERY q 2", 0, w->query, 0, 0}, 6);
    (void)ask(w, ENGINE_PORT, CMD_SQL_STATE, (struct words){"why", NULL, 0, w->query, 0, 0}, 6);
    (void)plain(w, ENGINE_PORT, CMD_SQL_LIST, 0, 0);
    if (other.answered && other.number == QUERY_DONE) {
        struct heard next =
            ask(w, ENGINE_PORT, CMD_SQL_PUT, (struct words){"p next", "CREATE TABLE p 2", 0, 0, 0, 0}, 6);
        if (next.answered && next.number == QUERY_DONE) {
            struct heard moved =
                ask(w, ENGINE_PORT, CMD_SQL_SWITCH, (struct words){"", NULL, 0, next.number2, 0, other.number2}, 6);
            other.number2 = moved.answered && moved.number == QUERY_DONE ? next.number2 : other.number2;
        }
    }
    if (other.answered && other.number == QUERY_DONE)
        (void)plain(w, ENGINE_PORT, CMD_SQL_DROP, other.number2, 0);
    world_turns(w, 20);
    if (well(w) && faultless(w) && (w->query_steps != STEPS || w->query_acked != STEPS - 1))
        model_fault(w->model, "the script of queries makes %llu steps, %llu with a message",
                    (unsigned long long)w->query_steps, (unsigned long long)w->query_acked);
}

void world_queries_check(struct world *w)
{
    if (!w->query)
        return;
    enter(w, ENGINE_PORT);
    (void)plain(w, ENGINE_PORT, CMD_CHANNEL_OPEN, 0, 1);
    struct heard list = plain(w, ENGINE_PORT, CMD_SQL_LIST, w->query - 1, 0);
    struct heard rows = ask(w, ENGINE_PORT, CMD_QUEUE_DECLARE, (struct words){ROWS, NULL, ASK_PASSIVE, 0, 1, 0}, 6);
    struct heard source = ask(w, ENGINE_PORT, CMD_QUEUE_DECLARE, (struct words){SOURCE, NULL, ASK_PASSIVE, 0, 1, 0}, 6);
    uint64_t steps = list.step;
    uint64_t most = steps - w->query_acked, unsure = steps - w->query_steps; /* each puts one and takes at most one */
    if (w->query_source && (source.number > most || source.number + unsure < most))
        model_fault(w->model, "%llu messages in the source of %llu steps, %llu of which took one",
                    (unsigned long long)source.number, (unsigned long long)steps, (unsigned long long)w->query_acked);
    if (!list.listed || steps < w->query_steps || rows.number != steps)
        model_fault(w->model, "%llu rows of %llu steps, %llu of which were accepted", (unsigned long long)rows.number,
                    (unsigned long long)steps, (unsigned long long)w->query_steps);
}
