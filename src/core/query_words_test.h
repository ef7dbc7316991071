/* What the tests of continuous SQL say: an engine on the SQL port, statements, steps and their outputs. */
#ifndef MILLRACE_CORE_QUERY_WORDS_TEST_H
#define MILLRACE_CORE_QUERY_WORDS_TEST_H

#include "core/broker_words_test.h"
#include "core/stream_int.h"
#include "fmt/record_batch.h"

#define ENGINE 9u /* a session of the SQL port; guest in / */
#define SQL_PORT 4u

RIG_FN bool engine_ask(struct rig *rig, enum command_type type, uint32_t session, const char *name, const char *other,
                       const char *args, uint64_t number, uint64_t ask_number, uint32_t flags)
{
    struct ask *ask = ask_new(rig_text(name), rig_text(other), (struct slice){0}, rig_text(args));
    if (!ask)
        return false;
    ask->number = ask_number;
    ask->flags = flags;
    struct command *c = rig_command(rig, SQL_PORT, type, session, 0);
    c->ask = ask;
    c->number = number;
    c->origin = 55;
    rig_step(rig);
    return true;
}

RIG_FN void engine_plain(struct rig *rig, enum command_type type, uint64_t number)
{
    struct command *c = rig_command(rig, SQL_PORT, type, ENGINE, 0);
    c->number = number;
    c->origin = 55;
    rig_step(rig);
}

/* Without a secret, whoever it is. */
RIG_FN bool engine_enter(struct rig *rig, uint32_t session, const char *user, const char *vhost)
{
    return engine_ask(rig, CMD_SESSION_OPEN, session, "engine", "sql", NULL, 0, 0, ASK_LOOPBACK) &&
           engine_ask(rig, CMD_LOGIN, session, user, NULL, NULL, 0, 0, ASK_CERTIFIED) &&
           engine_ask(rig, CMD_ENTER, session, vhost, NULL, NULL, 0, 0, 0);
}

RIG_FN struct answer *answered(struct rig *rig)
{
    struct effect *e = rig_nth(rig, EFF_ANSWER, 0);
    assert_non_null(e);
    assert_int_equal(e->origin, 55);
    assert_non_null(e->answer);
    return e->answer;
}

/* Its id, or minus the result. */
RIG_FN int64_t put_statement(struct rig *rig, const char *name, const char *text)
{
    rig_clear(rig);
    assert_true(engine_ask(rig, CMD_SQL_PUT, ENGINE, name, text, "{}", 0, 1, 0));
    return answered(rig)->number == QUERY_DONE ? (int64_t)answered(rig)->number2 : -(int64_t)answered(rig)->number;
}

RIG_FN struct rig *begin_sql(void)
{
    struct rig *rig = begin();
    assert_true(engine_enter(rig, ENGINE, "guest", "/"));
    assert_string_equal(rig_error(rig), "");
    rig_clear(rig);
    return rig;
}

RIG_FN void restart_sql(struct rig **rig)
{
    restart(rig);
    assert_true(engine_enter(*rig, ENGINE, "guest", "/"));
    rig_clear(*rig);
}

RIG_FN void end_sql(struct rig *rig)
{
    engine_plain(rig, CMD_SESSION_CLOSE, 0);
    end(rig);
}

RIG_FN void compact(struct rig *rig)
{
    uint64_t before = rig->b->totals.compactions;
    compact_start(rig->b);
    while (rig->b->totals.compactions == before)
        rig_step(rig);
    rig_clear(rig);
}

RIG_FN uint64_t queue_id(struct rig *rig, const char *name)
{
    const struct queue *q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str(name));
    return q ? q->id : 999999;
}

RIG_FN void declare_stream(struct rig *rig, const char *name, int64_t partitions)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_long(&t.w, "x-stream-partitions", partitions);
    declare(rig, name, writer_slice(&t.w));
    rig_clear(rig);
}

/* ---- outputs; NULL: no memory ---- */

RIG_FN struct msg *row_with(struct rig *rig, const char *exchange, const char *key, const char *body, size_t len,
                            const struct amqp_props *props)
{
    uint8_t raw[1024];
    struct writer w = writer_of(raw, sizeof raw);
    amqp_props_write(&w, props);
    struct msg *msg = msg_new(broker_heap(rig->b), slice_str(exchange), slice_str(key), writer_slice(&w), len);
    if (!msg)
        return NULL;
    memset(msg_body_room(msg), '.', len);
    memcpy(msg_body_room(msg), body, strlen(body));
    msg->flags = MSG_PERSISTENT;
    msg->flags |= props->present & AMQP_HEADERS ? MSG_HAS_HEADERS : 0;
    msg->flags |= props->present & AMQP_USER_ID ? MSG_HAS_USER_ID : 0;
    msg->expiration_ms = -1;
    return msg;
}

RIG_FN struct msg *row(struct rig *rig, const char *exchange, const char *key, const char *body)
{
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE, .delivery_mode = 2};
    return row_with(rig, exchange, key, body, strlen(body), &props);
}

RIG_FN struct msg *batch(struct rig *rig, const char *const *values, unsigned count)
{
    static uint8_t bytes[64 << 10];
    struct writer w = writer_of(bytes, sizeof bytes);
    struct record_batch_writer made;
    struct record_batch head = record_batch_head(0, rig->wall);
    record_batch_begin(&made, &w, &head);
    for (unsigned i = 0; i < count; i++) {
        struct slice value = slice_str(values[i]);
        assert_true(record_batch_put(&made, rig->wall, NULL, &value, NULL, 0));
    }
    struct slice whole = record_batch_finish(&made, -1), none = {0};
    struct msg *msg = msg_new(broker_heap(rig->b), none, none, none, whole.len);
    if (!msg)
        return NULL;
    memcpy(msg_body_room(msg), whole.ptr, whole.len);
    msg->flags = MSG_BATCH | MSG_PERSISTENT;
    msg->expiration_ms = -1;
    return msg;
}

RIG_FN struct query_step *step_of(struct rig *rig, uint64_t query, uint64_t number, const char *trail, uint32_t count)
{
    (void)rig;
    struct query_step *step = query_step_new(query, number, slice_str(trail), count);
    assert_non_null(step);
    return step;
}

RIG_FN void step_send(struct rig *rig, struct query_step *step, uint32_t session)
{
    rig_clear(rig);
    struct command *c = rig_command(rig, SQL_PORT, CMD_QUERY_STEP, session, 0);
    c->query_step = step;
    c->origin = 66;
    ring_publish(&broker_port(rig->b, SQL_PORT)->commands);
}

RIG_FN const struct query_step *stepped(struct rig *rig)
{
    struct effect *e = rig_nth(rig, EFF_QUERY_STEPPED, 0);
    assert_non_null(e);
    assert_int_equal(e->origin, 66);
    bool known = e->query_step->result == QUERY_DONE || e->query_step->result == QUERY_STALE;
    assert_true(known ? e->lsn && e->lsn <= rig->b->appended : !e->lsn);
    return e->query_step;
}

/* What became of it. */
RIG_FN enum query_result step_as(struct rig *rig, struct query_step *step, uint32_t session)
{
    step_send(rig, step, session);
    rig_step(rig);
    return (enum query_result)stepped(rig)->result;
}

RIG_FN enum query_result step_now(struct rig *rig, struct query_step *step)
{
    return step_as(rig, step, ENGINE);
}

/* With one row for the exchange. */
RIG_FN enum query_result step_one(struct rig *rig, uint64_t query, uint64_t number, const char *trail,
                                  const char *exchange, const char *key, const char *body)
{
    struct query_step *step = step_of(rig, query, number, trail, 1);
    step->outputs[0].msg = row(rig, exchange, key, body);
    return step_now(rig, step);
}

RIG_FN const char *trail_of(struct rig *rig, uint64_t query)
{
    static char text[300];
    const struct sql_object *o = sql_object_find(rig->b, query);
    snprintf(text, sizeof text, "%.*s", o ? (int)o->trail.len : 4, o ? (const char *)o->trail.bytes : "gone");
    return text;
}

#endif
