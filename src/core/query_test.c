/* The catalogue of continuous SQL, and what is handed on between clients and the engine. */
#include "core/query_words_test.h"

/* ---- the catalogue ---- */

static struct sql_object_row listed(struct rig *rig, unsigned n)
{
    struct effect *e = rig_nth(rig, EFF_ROW, n);
    struct sql_object_row one;
    assert_non_null(e);
    assert_int_equal(e->origin, 55);
    struct reader r = reader_of(e->answer->fields);
    assert_true(sql_object_row_next(&r, &one));
    assert_false(sql_object_row_next(&r, &(struct sql_object_row){0}));
    assert_true(reader_ok(&r));
    return one;
}

/* "a b c": all names that one page of the list after that id has. */
static const char *list_after(struct rig *rig, uint64_t id)
{
    static char text[8000];
    size_t at = 0;
    rig_clear(rig);
    engine_plain(rig, CMD_SQL_LIST, id);
    text[0] = '\0';
    for (unsigned i = 0; i < rig_count(rig, EFF_ROW); i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%.*s", i ? " " : "", SLICE_ARG(listed(rig, i).name));
    return text;
}

static uint64_t state_as(struct rig *rig, uint64_t id, uint64_t state, const char *reason)
{
    rig_clear(rig);
    assert_true(engine_ask(rig, CMD_SQL_STATE, ENGINE, reason, NULL, NULL, id, state, 0));
    return answered(rig)->number;
}

static uint64_t drop(struct rig *rig, uint64_t id)
{
    rig_clear(rig);
    engine_plain(rig, CMD_SQL_DROP, id);
    return answered(rig)->number;
}

static void kept_as_it_came(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    uint64_t first = (uint64_t)put_statement(rig, "first", "CREATE QUERY first");
    assert_true(rig_nth(rig, EFF_ANSWER, 0)->lsn == rig->b->appended);
    int64_t second = put_statement(rig, "zweite größe", "CREATE TABLE t");
    assert_true((int64_t)first > 0 && second > (int64_t)first);
    assert_int_equal(put_statement(rig, "first", "again"), -QUERY_EXISTS);
    assert_int_equal(put_statement(rig, "", "x"), -QUERY_BAD_NAME);
    assert_int_equal(put_statement(rig, "\xff", "x"), -QUERY_BAD_NAME);
    assert_int_equal(state_as(rig, first, SQL_FAILED, "orders/0: records 100 to 220 are gone"), QUERY_DONE);
    assert_int_equal(state_as(rig, 4711, SQL_FAILED, ""), QUERY_UNKNOWN);
    assert_int_equal(state_as(rig, first, SQL_OBJECT_STATES, ""), QUERY_TOO_MANY);
    assert_int_equal(step_one(rig, first, 1, "abc", "amq.fanout", "", "x"), QUERY_DONE);
    for (int again = 0; again < 4; again++) {
        assert_string_equal(list_after(rig, 0), "first zweite größe");
        assert_int_equal(answered(rig)->number, 0);
        assert_int_equal(answered(rig)->number2, second);
        struct sql_object_row row = listed(rig, 0);
        assert_true(row.id == first && row.kind == 1 && row.state == SQL_FAILED && row.step == 1);
        assert_true(slice_is(row.vhost, "/") && slice_is(row.owner, "guest") && slice_is(row.settings, "{}"));
        assert_true(slice_is(row.text, "CREATE QUERY first") && slice_is(row.trail, "abc"));
        assert_true(slice_is(row.reason, "orders/0: records 100 to 220 are gone"));
        assert_true(listed(rig, 1).state == SQL_RUNNING && listed(rig, 1).step == 0);
        if (again == 1)
            compact(rig);
        if (again != 2)
            restart_sql(&rig);
    }
    end_sql(rig);
}

static void new_texts_keep_trail_and_step(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    uint64_t id = (uint64_t)put_statement(rig, "q", "one");
    assert_int_equal(step_one(rig, id, 1, "abc", "amq.fanout", "", "x"), QUERY_DONE);
    assert_int_equal(state_as(rig, id, SQL_PAUSED, "by hand"), QUERY_DONE);
    rig_clear(rig);
    assert_true(engine_ask(rig, CMD_SQL_PUT, ENGINE, NULL, "two", "{1}", id, 7, 0));
    assert_int_equal(answered(rig)->number, QUERY_DONE);
    assert_int_equal(answered(rig)->number2, id);
    for (int again = 0; again < 2; again++) {
        (void)list_after(rig, 0);
        struct sql_object_row row = listed(rig, 0);
        assert_true(slice_is(row.text, "two") && slice_is(row.settings, "{1}") && slice_is(row.trail, "abc"));
        assert_true(row.kind == 7 && row.step == 1 && slice_is(row.name, "q"));
        assert_true(row.state == SQL_PAUSED && slice_is(row.reason, "by hand"));
        restart_sql(&rig);
    }
    rig_clear(rig);
    assert_true(engine_ask(rig, CMD_SQL_PUT, ENGINE, NULL, "two", "{1}", 4711, 7, 0));
    assert_int_equal(answered(rig)->number, QUERY_UNKNOWN);
    end_sql(rig);
}

/* One record: a journal that ends anywhere has the old one or the new one, which has no part in the old one's trail. */
static void another_takes_its_place(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    uint64_t id = (uint64_t)put_statement(rig, "q", "one");
    assert_int_equal(step_one(rig, id, 1, "abc", "amq.fanout", "", "x"), QUERY_DONE);
    rig_clear(rig);
    assert_true(engine_ask(rig, CMD_SQL_PUT, ENGINE, "other", "two", NULL, id, 7, ASK_ANEW));
    assert_int_equal(answered(rig)->number, QUERY_BAD_NAME);
    rig_clear(rig);
    assert_true(engine_ask(rig, CMD_SQL_PUT, ENGINE, "q", "two", NULL, 4711, 7, ASK_ANEW));
    assert_int_equal(answered(rig)->number, QUERY_UNKNOWN);
    size_t before = rig->log->count;
    rig_clear(rig);
    assert_true(engine_ask(rig, CMD_SQL_PUT, ENGINE, "q", "two", NULL, id, 7, ASK_ANEW));
    assert_int_equal(answered(rig)->number, QUERY_DONE);
    uint64_t next = answered(rig)->number2;
    assert_true(next > id);
    assert_int_equal(rig->log->count, before + 1);
    for (int again = 0; again < 3; again++) {
        assert_string_equal(list_after(rig, 0), "q");
        struct sql_object_row row = listed(rig, 0);
        assert_true(row.id == next && slice_is(row.text, "two") && row.trail.len == 0 && row.step == 0);
        if (again == 1)
            compact(rig);
        restart_sql(&rig);
    }
    assert_int_equal(step_one(rig, id, 2, "abc", "amq.fanout", "", "x"), QUERY_UNKNOWN);
    assert_int_equal(step_one(rig, next, 1, "abc", "amq.fanout", "", "x"), QUERY_DONE);
    end_sql(rig);
}

/* With a trail of its own: a journal that ends anywhere has both, or the one that has the name now. */
static void one_that_is_there_takes_the_place(void **state)
{
    (void)state;
    for (int compacted = 0; compacted < 4; compacted++) {
        struct rig *rig = begin_sql();
        uint64_t id = (uint64_t)put_statement(rig, "q", "one"), next = (uint64_t)put_statement(rig, "q next", "two");
        assert_int_equal(step_one(rig, id, 1, "abc", "amq.fanout", "", "x"), QUERY_DONE);
        assert_int_equal(step_one(rig, next, 1, "de", "amq.fanout", "", "x"), QUERY_DONE);
        assert_int_equal(step_one(rig, next, 2, "f", "amq.fanout", "", "x"), QUERY_DONE);
        static const uint64_t wrong[][2] = {{4711, 1}, {1, 4711}, {1, 1}};
        for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
            rig_clear(rig);
            assert_true(engine_ask(rig, CMD_SQL_SWITCH, ENGINE, NULL, NULL, NULL, wrong[i][0] == 1 ? next : 4711,
                                   wrong[i][1] == 1 ? next : 4711, 0));
            assert_int_equal(answered(rig)->number, QUERY_UNKNOWN);
        }
        rig_clear(rig);
        if (compacted & 1)
            compact(rig);
        struct rig *before = rig_new(rig_log_copy(rig->log, rig->log->count), &rig->options, rig->wall);
        size_t count = rig->log->count;
        rig_clear(rig);
        assert_true(engine_ask(rig, CMD_SQL_SWITCH, ENGINE, NULL, NULL, NULL, next, id, 0));
        assert_int_equal(answered(rig)->number, QUERY_DONE);
        assert_int_equal(rig->log->count, count + 1);
        for (int again = 0; again < 3; again++) {
            assert_string_equal(list_after(rig, 0), "q");
            struct sql_object_row row = listed(rig, 0);
            assert_true(row.id == next && slice_is(row.text, "two") && slice_is(row.trail, "def") && row.step == 2);
            if (again == 1 && compacted & 2)
                compact(rig);
            restart_sql(&rig);
        }
        assert_int_equal(step_one(rig, id, 2, "abc", "amq.fanout", "", "x"), QUERY_UNKNOWN);
        assert_int_equal(step_one(rig, next, 3, "g", "amq.fanout", "", "x"), QUERY_DONE);
        assert_true(put_statement(rig, "q next", "three") > 0); /* its name is free again */
        end_sql(rig);
        assert_true(begin_with(before));
        assert_true(engine_enter(before, ENGINE, "guest", "/"));
        assert_string_equal(list_after(before, 0), "q q next");
        end_sql(before);
    }
}

/* Neither after a restart nor when the journal knows nothing else of it. */
static void no_id_comes_again(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    int64_t last = put_statement(rig, "q", "x");
    for (int again = 0; again < 3; again++) {
        assert_int_equal(drop(rig, (uint64_t)last), QUERY_DONE);
        assert_int_equal(drop(rig, (uint64_t)last), QUERY_UNKNOWN);
        if (again)
            compact(rig);
        restart_sql(&rig);
        declare(rig, "between", ARGS(0));
        assert_true((int64_t)queue_id(rig, "between") > last);
        ASK(QUEUE_DELETE, "between", NULL, NULL, 0);
        int64_t next = put_statement(rig, "q", "x");
        assert_true(next > last);
        last = next;
    }
    end_sql(rig);
}

/* Long texts come in pages, and are pieces in the journal. */
static void long_ones(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    char *text = malloc(SQL_TEXT_MAX + 1), name[8];
    memset(text, 'x', SQL_TEXT_MAX);
    text[SQL_TEXT_MAX] = '\0';
    assert_int_equal(put_statement(rig, "q", text), -QUERY_TOO_MANY); /* the settings count */
    text[SQL_TEXT_MAX - 2] = '\0';
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "q%d", i);
        assert_true(put_statement(rig, name, text) > 0);
    }
    compact(rig);
    restart_sql(&rig);
    for (uint64_t from = 0, n = 0; n < 3; n++) {
        snprintf(name, sizeof name, "q%d", (int)n);
        assert_string_equal(list_after(rig, from), name);
        assert_true(slice_is(listed(rig, 0).text, text));
        assert_int_equal(answered(rig)->number, n < 2);
        from = answered(rig)->number2;
    }
    free(text);
    end_sql(rig);
}

/* Those made while a snapshot is written stand before the older ones in what a start reads. */
static void in_order_after_a_snapshot(void **state)
{
    (void)state;
    struct broker_options options = {.compact_slice_bytes = 1}; /* one object a tick */
    struct rig *rig = begin_options(&options);
    char name[8];
    assert_true(engine_enter(rig, ENGINE, "guest", "/"));
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "q%d", i);
        assert_true(put_statement(rig, name, "x") > 0);
    }
    uint64_t before = rig->b->totals.compactions;
    compact_start(rig->b);
    for (int i = 0; i < 3; i++) /* its vhost is there, of the statements none */
        (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    assert_int_equal(rig->b->compact.phase, COMPACT_CATALOGUE);
    assert_true(engine_ask(rig, CMD_SQL_PUT, ENGINE, "q4", "x", NULL, 0, 0, 0));
    while (rig->b->totals.compactions == before)
        rig_step(rig);
    restart_sql(&rig);
    assert_string_equal(list_after(rig, 0), "q0 q1 q2 q3 q4");
    const struct sql_object *o = LIST_FIRST(&rig->b->sql.by_id, struct sql_object, link);
    assert_string_equal(list_after(rig, o->id), "q1 q2 q3 q4");
    assert_int_equal(drop(rig, o->id + 1), QUERY_DONE);
    assert_string_equal(list_after(rig, o->id + 1), "q2 q3 q4"); /* from behind one that is gone */
    end_sql(rig);
}

static void as_many_bytes_as_there_may_be(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    rig->b->sql.bytes += SQL_BYTES_MAX - 60; /* as if there were many */
    rig->check = false;
    assert_int_equal(put_statement(rig, "p",
                                   "a text that is longer than what is left, which is not a hundred bytes any "
                                   "more"),
                     -QUERY_TOO_MANY);
    char trail[200];
    memset(trail, 't', sizeof trail);
    trail[199] = '\0';
    assert_int_equal(step_one(rig, id, 1, trail, "amq.fanout", "", "x"), QUERY_TOO_MANY);
    rig->b->sql.bytes -= SQL_BYTES_MAX - 60;
    rig->check = true;
    end_sql(rig);
}

static void only_the_engine(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    rig_clear(rig);
    rig_plain(rig, CMD_SQL_LIST, 1, 0, 0, 0);
    assert_int_equal(rig_count(rig, EFF_ROW), 0);
    rig_plain(rig, CMD_SQL_DROP, 1, 0, id, 0);
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 1)->answer->number, QUERY_NO_RIGHT);
    assert_true(rig_ask_full(rig, CMD_SQL_STATE, 1, 0, "no", NULL, NULL, ARGS(0), 0, id));
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 2)->answer->number, QUERY_NO_RIGHT);
    assert_true(rig_ask_full(rig, CMD_SQL_PUT, 1, 0, "p", "x", NULL, ARGS(0), 0, 0));
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 3)->answer->number, QUERY_NO_RIGHT);
    struct command *c = rig_command(rig, 0, CMD_QUERY_STEP, 1, 0);
    c->query_step = step_of(rig, id, 1, "t", 0);
    c->origin = 66;
    rig_step(rig);
    assert_int_equal(stepped(rig)->result, QUERY_NO_RIGHT);
    assert_string_equal(list_after(rig, 0), "q");
    assert_string_equal(rig_error(rig), "");
    /* to be put needs a vhost; the rest an open session */
    assert_true(engine_ask(rig, CMD_SESSION_OPEN, 3, "engine", "sql", NULL, 0, 0, ASK_LOOPBACK));
    rig_clear(rig);
    assert_true(engine_ask(rig, CMD_SQL_PUT, 3, "p", "x", NULL, 0, 0, 0));
    assert_int_equal(answered(rig)->number, QUERY_NO_RIGHT);
    rig_clear(rig);
    assert_true(engine_ask(rig, CMD_SQL_STATE, 3, "so", NULL, NULL, id, SQL_PAUSED, 0));
    assert_int_equal(answered(rig)->number, QUERY_DONE);
    end_sql(rig);
}

static void goes_with_its_vhost(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    struct vhost *vhost = vhost_put(rig->b, slice_str("v"), (struct slice){0});
    char text[200];
    struct user *guest = user_find(rig->b, slice_str("guest"));
    assert_true(log_object(rig->b, &vhost->object) &&
                permission_put(rig->b, guest, vhost, slice_str(".*"), slice_str(".*"), slice_str(".*"), text, 200) &&
                log_object(rig->b, &permission_find(guest, vhost, NULL)->object));
    assert_true(engine_enter(rig, 3, "guest", "v"));
    rig_clear(rig);
    uint64_t kept = (uint64_t)put_statement(rig, "same", "x");
    rig_clear(rig);
    assert_true(engine_ask(rig, CMD_SQL_PUT, 3, "same", "x", NULL, 0, 0, 0)); /* a name is the vhost's */
    uint64_t id = answered(rig)->number2;
    assert_int_equal(answered(rig)->number, QUERY_DONE);
    assert_int_equal(step_one(rig, id, 1, "t", "amq.fanout", "", "x"), QUERY_UNKNOWN); /* of another vhost */
    struct query_step *step = step_of(rig, id, 1, "t", 0);
    assert_int_equal(step_as(rig, step, 3), QUERY_DONE);
    assert_string_equal(list_after(rig, 0), "same same");
    restart_sql(&rig);
    vhost = vhost_find(rig->b, slice_str("v"));
    (void)log_object_gone(rig->b, &vhost->object);
    vhost_delete(rig->b, vhost);
    rig_step(rig);
    assert_int_equal(rig_count(rig, EFF_SQL_GONE), 1); /* the engine is to end it */
    assert_int_equal(rig_nth(rig, EFF_SQL_GONE, 0)->number, id);
    for (int again = 0; again < 3; again++) {
        assert_string_equal(list_after(rig, 0), "same");
        assert_int_equal(listed(rig, 0).id, kept);
        if (again)
            compact(rig);
        restart_sql(&rig);
    }
    user_delete(rig->b, user_put(rig->b, slice_str("gone"), (struct slice){0}, (struct slice){0}, false)
                            ? user_find(rig->b, slice_str("gone"))
                            : NULL);
    assert_string_equal(list_after(rig, 0), "same");
    end_sql(rig);
}

/* A step's records that a snapshot is ahead of are nothing. */
static void a_snapshot_between_steps(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    declare(rig, "out", ARGS(0));
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    assert_int_equal(step_one(rig, id, 1, "a", "", "out", "1"), QUERY_DONE);
    uint64_t before = rig->b->totals.compactions;
    compact_start(rig->b);
    for (uint64_t n = 2; rig->b->totals.compactions == before; n++) { /* one tick of the snapshot, one step */
        struct query_step *step = step_of(rig, id, n, "b", 1);
        step->outputs[0].msg = row(rig, "", "out", "2");
        step_send(rig, step, ENGINE);
        (void)broker_step(rig->b, rig->now, rig->wall, rig->durable = rig->log->count);
        rig_take(rig, 0);
        rig_take(rig, SQL_PORT);
        assert_int_equal(stepped(rig)->result, QUERY_DONE);
        rig_streams_serve(rig->b, rig->log->streams, 3, 64);
        assert_true(n < 100);
    }
    rig_step(rig);
    uint64_t steps = sql_object_find(rig->b, id)->step;
    assert_int_equal(rig_ready(rig, "out"), steps);
    restart_sql(&rig);
    assert_int_equal(sql_object_find(rig->b, id)->step, steps);
    assert_int_equal(rig_ready(rig, "out"), steps);
    assert_int_equal(sql_object_find(rig->b, id)->trail.len, steps);
    end_sql(rig);
}

/* ---- what is handed on ---- */

static bool ask_with(struct rig *rig, uint32_t origin, const char *text, uint64_t grant)
{
    struct ask *ask = ask_new(slice_str(text), (struct slice){0}, (struct slice){0}, slice_str("{\"o\":1}"));
    if (!ask)
        return false;
    ask->number = grant;
    struct command *c = rig_command(rig, 0, CMD_SQL_ASK, 1, 0);
    c->ask = ask;
    c->origin = origin;
    rig_step(rig);
    return true;
}

static void client_says(struct rig *rig, enum command_type type, uint32_t origin, uint64_t number)
{
    struct command *c = rig_command(rig, 0, type, 1, 0);
    c->origin = origin;
    c->number = number;
    rig_step(rig);
}

static uint64_t ticket_of(struct rig *rig)
{
    struct effect *e = rig_nth(rig, EFF_SQL_ASK, 0);
    assert_non_null(e);
    return e->number;
}

static void says(struct rig *rig, uint64_t ticket, const char *bytes, bool last)
{
    rig_clear(rig);
    assert_true(engine_ask(rig, CMD_SQL_SAY, ENGINE, bytes, NULL, NULL, ticket, 0, last ? ASK_LAST : 0));
}

/* "bytes", with a full stop when it is the last; "": nothing. */
static const char *said(struct rig *rig, uint32_t origin)
{
    static char text[200];
    size_t at = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < rig_count(rig, EFF_SQL_SAID); i++) {
        struct effect *e = rig_nth(rig, EFF_SQL_SAID, i);
        assert_int_equal(e->session, 1);
        assert_int_equal(e->origin, origin);
        at += (size_t)snprintf(text + at, sizeof text - at, "%.*s%.*s%s", SLICE_ARG(e->answer->fields),
                               SLICE_ARG(e->answer->text), e->flags & EFFECT_SQL_LAST ? "." : "");
    }
    return text;
}

static void asked_and_answered(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    struct sql_asked asked;
    assert_true(ask_with(rig, 5, "SELECT 1", 0));
    struct effect *e = rig_nth(rig, EFF_SQL_ASK, 0);
    assert_int_equal(e->answer->number, SQL_GRANTED_BYTES);
    assert_true(slice_is(e->answer->name, "guest") && slice_is(e->answer->text, "127.0.0.1:1"));
    assert_true(sql_asked_read(e->answer->fields, &asked));
    assert_true(slice_is(asked.vhost, "/") && slice_is(asked.text, "SELECT 1") && slice_is(asked.options, "{\"o\":1}"));
    assert_true(asked.loopback);
    assert_true(asked.administers); /* guest */
    assert_false(sql_asked_read(slice_of(e->answer->fields.ptr, e->answer->fields.len - 1), &asked));
    uint64_t ticket = e->number;
    says(rig, ticket, "{\"a\":1}\n", false);
    assert_string_equal(said(rig, 5), "{\"a\":1}\n");
    client_says(rig, CMD_SQL_MORE, 5, 100);
    client_says(rig, CMD_SQL_MORE, 6, 100); /* there is no such request */
    client_says(rig, CMD_SQL_MORE, 5, 0);
    assert_int_equal(rig_count(rig, EFF_SQL_MORE), 1);
    assert_int_equal(rig_nth(rig, EFF_SQL_MORE, 0)->count, 100);
    assert_int_equal(rig_nth(rig, EFF_SQL_MORE, 0)->number, ticket);
    says(rig, ticket, "end", true);
    assert_string_equal(said(rig, 5), "end.");
    says(rig, ticket, "more", false); /* behind the last word */
    client_says(rig, CMD_SQL_STOP, 5, 0);
    assert_string_equal(said(rig, 5), "");
    assert_int_equal(rig_count(rig, EFF_SQL_STOP), 0);
    assert_true(ask_with(rig, 5, "SELECT 2", 77)); /* the origin is free, the ticket another */
    assert_int_equal(rig_nth(rig, EFF_SQL_ASK, 0)->answer->number, 77);
    assert_true(ticket_of(rig) > ticket);
    end_sql(rig);
}

static void ends(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    assert_true(ask_with(rig, 5, "SELECT 1", 0));
    uint64_t ticket = ticket_of(rig);
    client_says(rig, CMD_SQL_STOP, 5, 0);
    assert_string_equal(said(rig, 5), ".");
    assert_int_equal(rig_nth(rig, EFF_SQL_STOP, 0)->number, ticket);
    says(rig, ticket, "late", true);
    assert_string_equal(said(rig, 5), "");
    /* the session ends */
    assert_true(ask_with(rig, 5, "SELECT 1", 0) && ask_with(rig, 6, "SELECT 1", 0));
    rig_clear(rig);
    rig_plain(rig, CMD_SESSION_CLOSE, 1, 0, 0, 0);
    assert_int_equal(rig_count(rig, EFF_SQL_STOP), 2);
    assert_int_equal(rig_count(rig, EFF_SQL_SAID), 0);
    assert_int_equal(rig->b->sql.relays.count, 0);
    assert_true(begin_with(rig));
    rig_clear(rig);
    end_sql(rig);
}

static void refused(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    char *text = malloc(SQL_TEXT_MAX + 2);
    memset(text, 'x', SQL_TEXT_MAX + 1);
    text[SQL_TEXT_MAX + 1] = '\0';
    assert_true(ask_with(rig, 5, text, 0));
    assert_string_equal(said(rig, 5), "the text is longer than 1 MiB.");
    free(text);
    rig_clear(rig);
    for (uint32_t i = 0; i < SQL_ASKS_MAX; i++)
        assert_true(ask_with(rig, 100 + i, "SELECT 1", 0));
    assert_int_equal(rig_count(rig, EFF_SQL_ASK), SQL_ASKS_MAX);
    rig_clear(rig);
    assert_true(ask_with(rig, 5, "SELECT 1", 0));
    assert_string_equal(said(rig, 5), "too many requests at a time.");
    assert_int_equal(rig_nth(rig, EFF_SQL_SAID, 0)->answer->code, ERR_PRECONDITION_FAILED);
    client_says(rig, CMD_SQL_STOP, 100, 0);
    rig_clear(rig);
    assert_true(ask_with(rig, 101, "SELECT 1", 0)); /* another of that origin goes on */
    assert_string_equal(said(rig, 101), "too many requests at a time.");
    rig_clear(rig);
    rig->b->options.sql = false;
    assert_true(ask_with(rig, 5, "SELECT 1", 0));
    assert_string_equal(said(rig, 5), "SQL is switched off.");
    rig->b->options.sql = true;
    rig_plain(rig, CMD_SESSION_CLOSE, 1, 0, 0, 0);
    assert_true(begin_with(rig));
    rig_clear(rig);
    end_sql(rig);
}

/* The engine does not look at its port: nothing piles up, and nothing that counts is lost. */
static void a_slow_engine(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    struct port *port = broker_port(rig->b, SQL_PORT);
    unsigned asked = 0;
    assert_true(ask_with(rig, 5, "SELECT 1", 0) && ask_with(rig, 6, "SELECT 1", 0));
    uint64_t first = ticket_of(rig);
    rig_clear(rig);
    while (ring_room(&port->effects)) {
        struct effect *e = ring_push(&port->effects);
        *e = (struct effect){.type = EFF_UNBLOCKED, .session = 77};
        asked++;
    }
    ring_publish(&port->effects);
    for (int i = 0; i < 5; i++) { /* the rig's steps would look for the engine */
        struct command *c = rig_command(rig, 0, i < 3 ? CMD_SQL_MORE : CMD_SQL_STOP, 1, 0);
        c->origin = i < 3 ? 5 : 6;
        c->number = 10;
    }
    struct command *c = rig_command(rig, 0, CMD_SQL_ASK, 1, 0);
    c->ask = ask_new(slice_str("SELECT 1"), (struct slice){0}, (struct slice){0}, (struct slice){0});
    c->origin = 7;
    ring_publish(&broker_port(rig->b, 0)->commands);
    (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    c = rig_command(rig, SQL_PORT, CMD_SQL_SAY, ENGINE, 0); /* it does not know yet that nobody listens */
    c->ask = ask_new(slice_str("late"), (struct slice){0}, (struct slice){0}, (struct slice){0});
    c->number = first + 1;
    ring_publish(&broker_port(rig->b, SQL_PORT)->commands);
    (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    broker_check(rig->b);
    assert_true(broker_next_due(rig->b) <= rig->now + NS_PER_MS);
    struct port_side *side = sql_side(rig->b);
    assert_int_equal(side->overflow_count, side->overflow_first);
    rig_take(rig, 0);
    assert_int_equal(rig_count(rig, EFF_SQL_SAID), 2);
    assert_string_equal(rig_nth(rig, EFF_SQL_SAID, 1)->answer->text.len ? "busy" : "", "busy");
    rig_clear(rig);
    rig_take(rig, SQL_PORT);
    assert_int_equal(rig_count(rig, EFF_UNBLOCKED), asked);
    rig_clear(rig);
    rig_step(rig);
    assert_int_equal(rig_count(rig, EFF_SQL_MORE), 1);
    assert_int_equal(rig_nth(rig, EFF_SQL_MORE, 0)->count, 30);
    assert_int_equal(rig_nth(rig, EFF_SQL_MORE, 0)->number, first);
    assert_int_equal(rig_count(rig, EFF_SQL_STOP), 1);
    assert_int_equal(rig_nth(rig, EFF_SQL_STOP, 0)->number, first + 1);
    end_sql(rig);
}

/* What is said finds no memory: that is the last word, and the engine need not go on. */
static void a_piece_is_missing(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    assert_true(ask_with(rig, 5, "SELECT 1", 0));
    uint64_t ticket = ticket_of(rig);
    rig_clear(rig);
    for (int i = 0; i < 2; i++) {
        struct command *c = rig_command(rig, SQL_PORT, CMD_SQL_SAY, ENGINE, 0);
        c->ask = ask_new(slice_str("one"), (struct slice){0}, (struct slice){0}, (struct slice){0});
        c->ask->flags = i ? ASK_LAST : 0;
        c->number = ticket;
        ring_publish(&broker_port(rig->b, SQL_PORT)->commands);
        mem_fail_at(!i, false);
        (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
        mem_fail_at(0, false);
    }
    rig_step(rig);
    assert_int_equal(rig_count(rig, EFF_SQL_SAID), 1);
    struct effect *e = rig_nth(rig, EFF_SQL_SAID, 0);
    assert_true(e->flags == EFFECT_SQL_LAST && e->origin == 5 && !e->answer);
    assert_int_equal(rig_count(rig, EFF_SQL_STOP), 1);
    end_sql(rig);
}

/* ---- names that are the engine's ---- */

static uint64_t stream_answer(struct rig *rig, unsigned port, enum command_type type, const char *name)
{
    rig_clear(rig);
    struct ask *ask = ask_new(slice_str(name), (struct slice){0}, (struct slice){0}, (struct slice){0});
    assert_non_null(ask);
    rig_command(rig, port, type, port ? ENGINE : 1, 0)->ask = ask;
    rig_step(rig);
    return rig_nth(rig, EFF_ANSWER, 0)->answer->number;
}

static void internal_streams(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    const char *name = "amq.sql.q";
    char text[300];
    struct user *guest = user_find(rig->b, slice_str("guest"));
    struct vhost *vhost = vhost_find(rig->b, slice_str("/"));
    assert_true(policy_put(rig->b, vhost, slice_str("p"), slice_str(".*"), APPLY_ALL, 1, (struct slice){0}, false, text,
                           sizeof text));
    assert_int_equal(stream_answer(rig, 0, CMD_STREAM_CREATE, name), STREAM_BAD_NAME);
    assert_int_equal(stream_answer(rig, SQL_PORT, CMD_STREAM_CREATE, "amq.other"), STREAM_BAD_NAME);
    assert_true(permission_put(rig->b, guest, vhost, slice_str("^x"), slice_str("^x"), slice_str("^x"), text, 300));
    assert_int_equal(stream_answer(rig, SQL_PORT, CMD_STREAM_CREATE, name), STREAM_DONE);
    assert_null(queue_find(vhost, slice_str(name))->policy);
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    struct query_step *step = step_of(rig, id, 1, "t", 1);
    step->outputs[0].queue = queue_id(rig, name);
    step->outputs[0].msg = batch(rig, (const char *const[]){"snapshot"}, 1);
    assert_int_equal(step_now(rig, step), QUERY_DONE); /* whatever the user may write */
    assert_int_equal(step_one(rig, id, 2, "t", "", "y", "x"), QUERY_NO_RIGHT);
    assert_true(permission_put(rig->b, guest, vhost, slice_str(".*"), slice_str(".*"), slice_str(".*"), text, 300));
    assert_int_equal(stream_answer(rig, 0, CMD_STREAM_DELETE, name), STREAM_REFUSED);
    assert_int_equal(stream_answer(rig, 0, CMD_STREAM_TRIM, name), STREAM_REFUSED);
    assert_int_equal(stream_answer(rig, SQL_PORT, CMD_STREAM_TRIM, name), STREAM_DONE);
    assert_int_equal(stream_answer(rig, 0, CMD_STREAM_LIST, "\011amq.sql.q"), 0); /* seen by everybody */
    struct reader r = reader_of(rig_nth(rig, EFF_ANSWER, 0)->answer->fields);
    struct stream_row row;
    assert_true(stream_row_next(&r, &row) && row.result == STREAM_DONE && !(row.verbs & STREAM_MAY_CONFIGURE));
    rig_clear(rig);
    ASK(QUEUE_DELETE, name, NULL, NULL, 0);
    assert_string_equal(rig_error(rig), "403 queue 'amq.sql.q' in vhost '/' belongs to a query");
    assert_int_equal(stream_answer(rig, SQL_PORT, CMD_STREAM_DELETE, name), STREAM_DONE);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_as_it_came),
        cmocka_unit_test(new_texts_keep_trail_and_step),
        cmocka_unit_test(another_takes_its_place),
        cmocka_unit_test(one_that_is_there_takes_the_place),
        cmocka_unit_test(no_id_comes_again),
        cmocka_unit_test(long_ones),
        cmocka_unit_test(in_order_after_a_snapshot),
        cmocka_unit_test(as_many_bytes_as_there_may_be),
        cmocka_unit_test(only_the_engine),
        cmocka_unit_test(goes_with_its_vhost),
        cmocka_unit_test(a_snapshot_between_steps),
        cmocka_unit_test(asked_and_answered),
        cmocka_unit_test(ends),
        cmocka_unit_test(refused),
        cmocka_unit_test(a_slow_engine),
        cmocka_unit_test(a_piece_is_missing),
        cmocka_unit_test(internal_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
