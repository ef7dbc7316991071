/* The control socket's engine, on the real core with a journal in memory: requests in whatever pieces, answers, refusals, what waits for the
 * disk or for other threads, and connections that end meanwhile. */
#include "admin/control.h"

#include "core/broker_rig_test.h"

struct scene {
    struct rig *core;
    struct log log;
    struct control *control;
    unsigned alarms, forced;        /* last, and how often */
    unsigned held, held_asked;      /* enum control_hold; how often it was looked at */
    bool holds;                     /* those who remove files have seen it */
    uint64_t reloads, reloads_done; /* tickets */
    const char *reload_why;         /* of the next one */
    bool no_status;
};

static void force_alarms(void *arg, unsigned alarms)
{
    struct scene *s = arg;
    s->alarms = alarms;
    s->forced++;
}

static void hold_files(void *arg, unsigned what, bool on)
{
    struct scene *s = arg;
    assert_int_equal(s->held & what, on ? 0 : what); /* counted elsewhere: each connection asks once */
    s->held = on ? s->held | what : s->held & ~what;
}

static bool files_held(void *arg, lsn_t *ret_durable)
{
    struct scene *s = arg;
    s->held_asked++;
    *ret_durable = 77;
    return s->holds;
}

static uint64_t on_reload(void *arg)
{
    return ++((struct scene *)arg)->reloads;
}

static bool reloaded(void *arg, uint64_t ticket, char *ret_why, size_t why_len)
{
    const struct scene *s = arg;
    snprintf(ret_why, why_len, "%s", s->reload_why);
    return s->reloads_done >= ticket;
}

static json_t *status(void *arg)
{
    return ((struct scene *)arg)->no_status ? NULL : json_pack("{s:i}", "memory", 5);
}

static int begin(void **state)
{
    struct scene *s = calloc(1, sizeof *s);
    s->core = rig_new(rig_log_new(), NULL, 1700000000000);
    s->reload_why = "";
    log_init(&s->log, false);
    s->log.level = LOG_LEVEL_ERROR;
    struct control_options options = {.port = broker_port(s->core->b, 0),
                                      .heap = broker_heap(s->core->b),
                                      .log = &s->log,
                                      .force_alarms = force_alarms,
                                      .hold_files = hold_files,
                                      .files_held = files_held,
                                      .reload = on_reload,
                                      .reloaded = reloaded,
                                      .status = status,
                                      .arg = s};
    s->control = control_new(&options);
    assert_non_null(s->control);
    *state = s;
    return 0;
}

/* ---- everybody's turns ---- */

static void turns(struct scene *s)
{
    for (unsigned i = 0; i < 50; i++) {
        (void)hub_publish(control_hub(s->control));
        if (!s->core->hold)
            s->core->durable = s->core->log->count;
        (void)broker_step(s->core->b, s->core->now, s->core->wall, s->core->durable);
        rig_store_serve(s->core->b, s->core->log, 64);
        rig_streams_serve(s->core->b, s->core->log->streams, 3, 64);
        (void)hub_turn(control_hub(s->control), s->core->durable, s->core->now);
    }
}

static int end(void **state)
{
    struct scene *s = *state;
    turns(s);
    assert_int_equal(hub_sessions(control_hub(s->control)), 0);
    control_free(&s->control);
    assert_null(s->control);
    struct rig_log *log = s->core->log;
    rig_free(s->core);
    rig_log_free(log);
    free(s);
    return 0;
}

/* ---- a client ---- */

static struct engine *connect_to(struct scene *s)
{
    const struct engine_factory *factory = control_factory(s->control);
    struct engine *engine = factory->make(NULL, factory->arg, NULL, s->core->now);
    assert_non_null(engine);
    return engine;
}

static void closed(struct scene *s, struct engine *engine)
{
    engine->ops->closed(engine);
    turns(s);
}

static size_t frame(uint8_t *ret, const char *text)
{
    uint32_t len = (uint32_t)strlen(text), header = htobe32(len);
    memcpy(ret, &header, sizeof header);
    memcpy(ret + sizeof header, text, len);
    return sizeof header + len;
}

/* How many bytes the engine has taken. */
static size_t send(struct engine *engine, const char *text)
{
    uint8_t bytes[2000];
    assert_true(strlen(text) + 4 <= sizeof bytes);
    return engine->ops->feed(engine, slice_of(bytes, frame(bytes, text)));
}

/* The answer that is there, the caller's; NULL: there is none. */
static json_t *heard(struct engine *engine)
{
    static uint8_t bytes[1 << 16];
    size_t len = 0;
    struct iovec v;
    while (outq_peek(&engine->out, &v, 1) == 1) {
        assert_true(len + v.iov_len <= sizeof bytes);
        memcpy(bytes + len, v.iov_base, v.iov_len);
        len += v.iov_len;
        outq_consume(&engine->out, v.iov_len);
    }
    if (!len)
        return NULL;
    struct reader r = reader_of(slice_of(bytes, len));
    struct slice text = reader_str32(&r);
    assert_true(reader_ok(&r) && r.left == 0); /* one answer */
    json_t *json = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    return json;
}

static void assert_heard(struct engine *engine, const char *want)
{
    json_t *got = heard(engine), *wanted = json_loads(want, 0, NULL);
    assert_non_null(got);
    assert_non_null(wanted);
    if (!json_equal(got, wanted)) {
        char *text = json_dumps(got, JSON_COMPACT);
        rig_fail("%s\ninstead of %s\n", text, want);
    }
    json_decref(got);
    json_decref(wanted);
}

static void asks(struct scene *s, struct engine *engine, const char *request, const char *answer)
{
    assert_int_equal(send(engine, request), strlen(request) + 4);
    turns(s);
    assert_heard(engine, answer);
    assert_false(engine->paused);
}

static void tick(struct scene *s, struct engine *engine)
{
    assert_true(engine->next_tick != MONO_NEVER);
    s->core->now = engine->next_tick;
    engine->next_tick = engine->ops->tick(engine, s->core->now);
    turns(s);
}

/* ---- what is asked of the core ---- */

#define PUT_V "{\"op\":\"VHOST_PUT\",\"name\":\"v\"}"
#define DONE "{\"ok\":true,\"rows\":[]}"

static void rows_have_types(void **state)
{
    struct scene *s = *state;
    struct engine *e = connect_to(s);
    asks(s, e, PUT_V, DONE);
    asks(s, e,
         "{\"op\":\"QUEUE_PUT\",\"name\":\"q\",\"other\":\"v\",\"flags\":[\"durable\"],\"args\":{\"x-max-length\":3}}",
         DONE);
    assert_int_equal(send(e, "{\"op\":\"QUEUE_LIST\",\"other\":\"v\"}"),
                     strlen("{\"op\":\"QUEUE_LIST\",\"other\":\"v\"}") + 4);
    turns(s);
    json_t *said = heard(e), *row = json_array_get(json_object_get(said, "rows"), 0);
    assert_true(json_is_true(json_object_get(said, "ok")));
    assert_int_equal(json_array_size(json_object_get(said, "rows")), 1);
    assert_string_equal(json_string_value(json_object_get(row, "name")), "q");
    assert_true(json_is_true(json_object_get(row, "durable")));
    assert_true(json_is_integer(json_object_get(row, "messages")));
    assert_int_equal(json_integer_value(json_object_get(json_object_get(row, "arguments"), "x-max-length")), 3);
    json_decref(said);
    closed(s, e);
}

/* The core is deaf to a session after an error: the connection goes on with another. */
static void a_refusal_ends_nothing(void **state)
{
    static const char *const requests[] = {"{\"op\":\"VHOST_DELETE\",\"name\":\"none\"}",
                                           "{\"op\":\"NO_SUCH\"}",
                                           "{}",
                                           "[1]",
                                           "{\"op\":",
                                           "{\"op\":\"VHOST_PUT\",\"op\":\"VHOST_PUT\"}",
                                           "{\"op\":\"QUEUE_PUT\",\"args\":3}",
                                           "{\"op\":7}",
                                           ""};
    struct scene *s = *state;
    struct engine *e = connect_to(s);
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        assert_int_equal(send(e, requests[i]), strlen(requests[i]) + 4);
        turns(s);
        json_t *said = heard(e);
        assert_non_null(said);
        assert_true(json_is_false(json_object_get(said, "ok")));
        assert_string_equal(json_string_value(json_object_get(said, "error")), i ? "SYNTAX_ERROR" : "NOT_FOUND");
        assert_true(json_string_length(json_object_get(said, "text")) > 0);
        json_decref(said);
    }
    asks(s, e, PUT_V, DONE);
    assert_false(e->want_close);
    closed(s, e);
}

/* A byte at a time, and two at once: the second one waits in the connection until the first is answered. */
static void requests_in_pieces(void **state)
{
    struct scene *s = *state;
    struct engine *e = connect_to(s);
    uint8_t bytes[400];
    size_t one = frame(bytes, PUT_V), both = one + frame(bytes + one, "{\"op\":\"version\"}");
    for (size_t len = 0; len < one; len++)
        assert_int_equal(e->ops->feed(e, slice_of(bytes, len)), 0);
    assert_int_equal(e->ops->feed(e, slice_of(bytes, both)), one);
    assert_true(e->paused);
    assert_int_equal(e->ops->feed(e, slice_of(bytes + one, both - one)), 0);
    turns(s);
    assert_heard(e, DONE);
    assert_int_equal(e->ops->feed(e, slice_of(bytes + one, both - one)), both - one);
    assert_heard(e, "{\"ok\":true,\"version\":\"" MILLRACE_VERSION "\"}");
    closed(s, e);
}

static void what_is_too_large_ends_the_connection(void **state)
{
    struct scene *s = *state;
    struct engine *e = connect_to(s);
    uint32_t header = htobe32(CONTROL_REQUEST_MAX + 1);
    assert_int_equal(e->ops->feed(e, slice_of(&header, sizeof header)), 0);
    assert_true(e->want_close);
    assert_null(heard(e));
    closed(s, e);
}

static void an_answer_waits_for_the_disk(void **state)
{
    struct scene *s = *state;
    struct engine *e = connect_to(s);
    s->core->hold = true;
    (void)send(e, PUT_V);
    turns(s);
    assert_null(heard(e));
    s->core->hold = false;
    turns(s);
    assert_heard(e, DONE);
    s->core->hold = true; /* but not who does not want that */
    asks(s, e, "{\"op\":\"VHOST_PUT\",\"name\":\"w\",\"lazy\":true}", DONE);
    s->core->hold = false;
    closed(s, e);
}

/* Without room in the ring the request waits, and is asked in a later turn; a connection that ends takes it along. */
static void a_full_ring(void **state)
{
    struct scene *s = *state;
    struct port *port = broker_port(s->core->b, 0);
    for (unsigned leaves = 0; leaves < 2; leaves++) {
        struct engine *e = connect_to(s);
        unsigned filled = 0;
        for (struct command *c; (c = ring_push(&port->commands)); filled++)
            *c = (struct command){.type = CMD_CREDIT, .session = 4000};
        assert_true(filled > 0);
        assert_int_equal(send(e, PUT_V), strlen(PUT_V) + 4);
        assert_true(e->paused && e->next_tick != MONO_NEVER);
        if (leaves) {
            closed(s, e);
            continue;
        }
        turns(s);
        tick(s, e);
        assert_heard(e, DONE);
        assert_true(e->next_tick == MONO_NEVER);
        closed(s, e);
    }
}

static void who_leaves_in_the_midst(void **state)
{
    struct scene *s = *state;
    struct engine *e = connect_to(s);
    (void)send(e, PUT_V);
    closed(s, e); /* before the core has seen it */
    e = connect_to(s);
    s->core->hold = true;
    (void)send(e, "{\"op\":\"VHOST_PUT\",\"name\":\"w\"}");
    turns(s);
    closed(s, e); /* while the answer waits for the disk */
    s->core->hold = false;
    e = connect_to(s);
    e->ops->shutdown(e, "the broker stops");
    assert_true(e->want_close);
    closed(s, e);
}

static void no_more_than_so_many(void **state)
{
    struct scene *s = *state;
    const struct engine_factory *factory = control_factory(s->control);
    struct engine *all[CONTROL_SESSIONS_MAX];
    for (unsigned i = 0; i < CONTROL_SESSIONS_MAX; i++)
        all[i] = connect_to(s);
    assert_null(factory->make(NULL, factory->arg, NULL, s->core->now));
    for (unsigned i = 0; i < CONTROL_SESSIONS_MAX; i++)
        closed(s, all[i]);
    closed(s, connect_to(s));
}

/* ---- what is asked of the broker around it ---- */

static void alarms_by_hand(void **state)
{
    struct scene *s = *state;
    struct engine *e = connect_to(s);
    asks(s, e, "{\"op\":\"alarm\",\"raised\":[\"memory\",\"disk-hard\"]}", "{\"ok\":true}");
    assert_int_equal(s->alarms, ALARM_MEMORY | ALARM_DISK | ALARM_DISK_HARD);
    asks(s, e, "{\"op\":\"alarm\"}", "{\"ok\":true}");
    assert_int_equal(s->alarms, 0);
    asks(s, e, "{\"op\":\"alarm\",\"raised\":[\"disk\",\"fire\"]}",
         "{\"ok\":false,\"error\":\"NOT_FOUND\",\"text\":\"the alarms are memory, disk, memory-hard and disk-hard\"}");
    assert_int_equal(s->forced, 2); /* all or none of a request */
    closed(s, e);
}

static void the_status(void **state)
{
    struct scene *s = *state;
    struct engine *e = connect_to(s);
    asks(s, e, "{\"op\":\"status\"}", "{\"ok\":true,\"rows\":[{\"memory\":5}]}");
    s->no_status = true; /* no memory for it */
    (void)send(e, "{\"op\":\"status\"}");
    assert_true(e->want_close);
    assert_null(heard(e));
    closed(s, e);
}

/* It is answered when nobody removes files any more, holds once however often it is asked for, and ends with the connection. */
static void files_are_held(void **state)
{
    struct scene *s = *state;
    struct engine *e = connect_to(s);
    (void)send(e, "{\"op\":\"hold\"}");
    assert_true(e->paused && s->held == (HOLD_JOURNAL | HOLD_OTHERS));
    assert_null(heard(e));
    tick(s, e);
    assert_null(heard(e));
    s->holds = true;
    tick(s, e);
    assert_int_equal(s->held_asked, 3);
    assert_heard(e, "{\"ok\":true,\"number\":77}");
    asks(s, e, "{\"op\":\"hold\"}", "{\"ok\":true,\"number\":77}");
    asks(s, e, "{\"op\":\"release\",\"journal\":true}", "{\"ok\":true}");
    assert_int_equal(s->held, HOLD_OTHERS);
    asks(s, e, "{\"op\":\"hold\"}", "{\"ok\":true,\"number\":77}");
    assert_int_equal(s->held, HOLD_JOURNAL | HOLD_OTHERS);
    asks(s, e, "{\"op\":\"release\"}", "{\"ok\":true}");
    asks(s, e, "{\"op\":\"release\"}", "{\"ok\":true}");
    assert_int_equal(s->held, 0);
    s->holds = false;
    (void)send(e, "{\"op\":\"hold\"}");
    closed(s, e); /* while it waits */
    assert_int_equal(s->held, 0);
}

static void certificates_are_read_again(void **state)
{
    struct scene *s = *state;
    struct engine *e = connect_to(s);
    (void)send(e, "{\"op\":\"reload\"}");
    assert_true(e->paused);
    tick(s, e);
    assert_null(heard(e));
    s->reloads_done = 1;
    tick(s, e);
    assert_heard(e, "{\"ok\":true}");
    s->reload_why = "no such file";
    s->reloads_done = 2;
    asks(s, e, "{\"op\":\"reload\"}", "{\"ok\":false,\"error\":\"PRECONDITION_FAILED\",\"text\":\"no such file\"}");
    (void)send(e, "{\"op\":\"reload\"}");
    closed(s, e); /* while it waits */
    assert_int_equal(s->reloads, 3);
}

#define ROW(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROW(rows_have_types),
        ROW(a_refusal_ends_nothing),
        ROW(requests_in_pieces),
        ROW(what_is_too_large_ends_the_connection),
        ROW(an_answer_waits_for_the_disk),
        ROW(a_full_ring),
        ROW(who_leaves_in_the_midst),
        ROW(no_more_than_so_many),
        ROW(alarms_by_hand),
        ROW(the_status),
        ROW(files_are_held),
        ROW(certificates_are_read_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
