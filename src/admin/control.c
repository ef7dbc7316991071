/* The control socket's engine, see control.h. The loop's thread.
 *
 * An engine like any other: bytes in by feed, bytes out by the outq, its question to the core through a caller. While a
 * question is open the engine is paused, so a client can have one request under way and no more. Rows are gathered as
 * JSON and leave with the answer. */
#include "admin/control.h"

#include "admin/request.h"
#include "admin/table_json.h"
#include "base/mem.h"
#include "base/reader.h"

#include <stdlib.h>

#define RETRY_NS NS_PER_MS

struct control {
    struct control_options options;
    struct hub *hub;
    struct engine_factory factory;
};

struct control_conn {
    struct caller caller; /* first: session, engine */
    struct control *control;
    json_t *rows;
    unsigned holding;        /* enum control_hold: files are to stay */
    bool waiting_hold;       /* the answer waits until it is so */
    uint64_t waiting_reload; /* … until this ticket has been served; 0: not */
    struct request request;  /* the one under way; its ask is ours while it waits for room in the ring */
};

static struct control_conn *of_engine(struct engine *engine)
{
    return CONTAINER_OF(engine, struct control_conn, caller.session.engine);
}

static struct control_conn *of_caller(struct caller *caller)
{
    return CONTAINER_OF(caller, struct control_conn, caller);
}

/* ---- responses ---- */

/* Takes over response. */
static void respond(struct control_conn *conn, json_t *response)
{
    struct engine *engine = &conn->caller.session.engine;
    char *text = response ? json_dumps(response, JSON_COMPACT) : NULL;
    size_t len = text ? strlen(text) : 0;
    json_decref(response);
    if (text && len <= CONTROL_RESPONSE_MAX) {
        uint32_t header = htobe32((uint32_t)len);
        outq_put(&engine->out, &header, sizeof header);
        outq_put(&engine->out, text, len);
    } else {
        engine->want_close = true;
    }
    json_free_t json_free;
    json_get_alloc_funcs(NULL, &json_free);
    json_free(text);
    engine->paused = false;
    engine_dirty(engine);
}

static void refuse(struct control_conn *conn, const char *error, struct slice text)
{
    respond(conn, json_pack("{s:b, s:s, s:o}", "ok", 0, "error", error, "text", text_to_json(text)));
}

/* The core's rows are texts; what is a number, a truth or a table for everybody becomes one in JSON. */
static char row_type(const char *key)
{
    static const struct {
        const char *key;
        char type;
    } rows[] = {{"arguments", 'o'},      {"definition", 'o'},
                {"durable", 'b'},        {"auto_delete", 'b'},
                {"exclusive", 'b'},      {"internal", 'b'},
                {"blocked", 'b'},        {"publishes", 'b'},
                {"ack_required", 'b'},   {"id", 'i'},
                {"channel", 'i'},        {"channels", 'i'},
                {"consumers", 'i'},      {"messages", 'i'},
                {"messages_ready", 'i'}, {"messages_unacknowledged", 'i'},
                {"message_bytes", 'i'},  {"prefetch_count", 'i'},
                {"unacked", 'i'},        {"priority", 'i'},
                {"queue_id", 'i'},       {"offset", 'i'},
                {"bytes", 'i'},          {"first_position", 'i'},
                {"last_position", 'i'},  {"queues", 'i'},
                {"exchanges", 'i'}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].key, key) == 0)
            return rows[i].type;
    return 's';
}

static json_t *row_value(char type, struct slice value)
{
    char number[32];
    json_t *json = NULL;
    if (type == 'o')
        json = table_to_json(value);
    else if (type == 'b')
        return json_boolean(slice_is(value, "true"));
    else if (type == 'i' && value.len && value.len < sizeof number) {
        memcpy(number, value.ptr, value.len);
        number[value.len] = '\0';
        return json_integer((json_int_t)strtoll(number, NULL, 10));
    }
    return json ? json : text_to_json(value);
}

static void on_row(struct caller *caller, const struct answer *row)
{
    struct control_conn *conn = of_caller(caller);
    json_t *object = json_object();
    struct reader r = reader_of(row ? row->fields : (struct slice){0});
    while (object && r.left) {
        struct slice key = reader_str8(&r), value = reader_str32(&r);
        char name[256];
        memcpy(name, key.ptr ? key.ptr : (const uint8_t *)"", key.len);
        name[key.len] = '\0';
        if (reader_ok(&r))
            json_object_set_new(object, name,
                                row_value(conn->request.op == ADMIN_TOTALS ? 'i' : row_type(name), value));
    }
    json_array_append_new(conn->rows, object);
}

static void on_done(struct caller *caller, const struct call_result *result)
{
    struct control_conn *conn = of_caller(caller);
    const struct answer *answer = result->answer;
    json_t *rows = conn->rows;
    conn->rows = NULL;
    if (result->code != ERR_NONE) {
        json_decref(rows);
        refuse(conn, error_row(result->code)->name, answer ? answer->text : slice_str("the request failed"));
        return;
    }
    json_t *response = json_pack("{s:b, s:o}", "ok", 1, "rows", rows);
    if (response && answer && answer->name.len)
        json_object_set_new(response, "name", text_to_json(answer->name));
    if (response && answer)
        json_object_set_new(response, "number", json_integer((json_int_t)answer->number));
    respond(conn, response);
}

static void on_freed(struct caller *caller)
{
    struct control_conn *conn = of_caller(caller);
    json_decref(conn->rows);
    mem_free(conn->request.ask);
    outq_fini(&conn->caller.session.engine.out);
    mem_free(conn);
}

/* ---- requests ---- */

static void call(struct control_conn *conn)
{
    struct engine *engine = &conn->caller.session.engine;
    struct request *request = &conn->request;
    engine->paused = true;
    if (caller_call(&conn->caller, CMD_ADMIN, request->op, request->ask, request->wait_durable))
        request->ask = NULL;
    engine->next_tick = request->ask ? engine->now + RETRY_NS : MONO_NEVER;
}

/* False: there is none of this name. */
static bool alarm_of(const char *name, unsigned *alarms)
{
    static const struct {
        const char *name;
        unsigned alarms;
    } rows[] = {{"memory", ALARM_MEMORY},
                {"disk", ALARM_DISK},
                {"memory-hard", ALARM_MEMORY | ALARM_MEMORY_HARD},
                {"disk-hard", ALARM_DISK | ALARM_DISK_HARD}};
    for (size_t row = 0; name && row < ARRAY_LEN(rows); row++)
        if (strcmp(name, rows[row].name) == 0) {
            *alarms |= rows[row].alarms;
            return true;
        }
    return false;
}

static void force_alarms(struct control_conn *conn, const json_t *request)
{
    unsigned alarms = 0;
    const json_t *list = json_object_get(request, "raised");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!alarm_of(json_string_value(json_array_get(list, i)), &alarms)) {
            refuse(conn, "NOT_FOUND", slice_str("the alarms are memory, disk, memory-hard and disk-hard"));
            return;
        }
    conn->control->options.force_alarms(conn->control->options.arg, alarms);
    respond(conn, json_pack("{s:b}", "ok", 1));
}

/* ---- backups ---- */

static void release(struct control_conn *conn, unsigned what)
{
    what &= conn->holding;
    if (what)
        conn->control->options.hold_files(conn->control->options.arg, what, false);
    conn->holding &= ~what;
}

/* The threads that remove files see it in their next turn. */
static void look_at_hold(struct control_conn *conn)
{
    struct engine *engine = &conn->caller.session.engine;
    lsn_t durable;
    engine->paused = true;
    if (!conn->control->options.files_held(conn->control->options.arg, &durable)) {
        engine->next_tick = engine->now + RETRY_NS;
        return;
    }
    engine->next_tick = MONO_NEVER;
    conn->waiting_hold = false;
    respond(conn, json_pack("{s:b, s:I}", "ok", 1, "number", (json_int_t)durable));
}

static void hold(struct control_conn *conn)
{
    unsigned what = ~conn->holding & (HOLD_JOURNAL | HOLD_OTHERS);
    if (what)
        conn->control->options.hold_files(conn->control->options.arg, what, true);
    conn->holding |= what;
    conn->waiting_hold = true;
    look_at_hold(conn);
}

/* ---- certificates ---- */

/* Another thread reads them. */
static void look_at_reload(struct control_conn *conn)
{
    struct engine *engine = &conn->caller.session.engine;
    char why[600] = "";
    engine->paused = true;
    if (!conn->control->options.reloaded(conn->control->options.arg, conn->waiting_reload, why, sizeof why)) {
        engine->next_tick = engine->now + RETRY_NS;
        return;
    }
    engine->next_tick = MONO_NEVER;
    conn->waiting_reload = 0;
    if (*why)
        refuse(conn, "PRECONDITION_FAILED", slice_str(why));
    else
        respond(conn, json_pack("{s:b}", "ok", 1));
}

static void reload(struct control_conn *conn)
{
    conn->waiting_reload = conn->control->options.reload(conn->control->options.arg);
    look_at_reload(conn);
}

static void handle(struct control_conn *conn, const json_t *request)
{
    const char *name = json_string_value(json_object_get(request, "op")), *why = NULL;
    if (name && strcmp(name, "version") == 0) {
        respond(conn, json_pack("{s:b, s:s}", "ok", 1, "version", MILLRACE_VERSION));
        return;
    }
    if (name && strcmp(name, "status") == 0) {
        json_t *status = conn->control->options.status(conn->control->options.arg);
        respond(conn, status ? json_pack("{s:b, s:[o]}", "ok", 1, "rows", status) : NULL);
        return;
    }
    if (name && strcmp(name, "hold") == 0) {
        hold(conn);
        return;
    }
    if (name && strcmp(name, "release") == 0) {
        release(conn, json_is_true(json_object_get(request, "journal")) ? HOLD_JOURNAL : HOLD_JOURNAL | HOLD_OTHERS);
        respond(conn, json_pack("{s:b}", "ok", 1));
        return;
    }
    if (name && strcmp(name, "reload") == 0) {
        reload(conn);
        return;
    }
    if (name && strcmp(name, "alarm") == 0) {
        force_alarms(conn, request);
        return;
    }
    if (!request_parse(request, &conn->request, &why)) {
        refuse(conn, "SYNTAX_ERROR", slice_str(why));
        return;
    }
    conn->rows = json_array();
    call(conn);
}

/* ---- engine ---- */

static size_t control_feed(struct engine *engine, struct slice bytes)
{
    struct control_conn *conn = of_engine(engine);
    size_t used = 0;
    while (!engine->paused && !engine->want_close && bytes.len - used >= 4) {
        struct reader r = reader_of(slice_of(bytes.ptr + used, bytes.len - used));
        uint32_t len = reader_u32(&r);
        if (len > CONTROL_REQUEST_MAX) {
            log_event(conn->control->options.log, LOG_control_failed, log_num("bytes", len));
            engine->want_close = true;
            break;
        }
        struct slice text = reader_take(&r, len);
        if (!reader_ok(&r))
            break;
        used += 4 + (size_t)len;
        json_t *request = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
        if (json_is_object(request))
            handle(conn, request);
        else
            refuse(conn, "SYNTAX_ERROR", slice_str("the request is not a JSON object"));
        json_decref(request);
    }
    return used;
}

static mono_t control_tick(struct engine *engine, mono_t now)
{
    struct control_conn *conn = of_engine(engine);
    engine->now = now;
    if (conn->waiting_hold) {
        look_at_hold(conn);
        return engine->next_tick;
    }
    if (conn->waiting_reload) {
        look_at_reload(conn);
        return engine->next_tick;
    }
    if (!conn->request.ask)
        return MONO_NEVER;
    call(conn);
    return engine->next_tick;
}

static void control_shutdown(struct engine *engine, const char *text)
{
    (void)text;
    engine->want_close = true;
}

static void control_closed(struct engine *engine)
{
    release(of_engine(engine), HOLD_JOURNAL | HOLD_OTHERS);
    caller_close(&of_engine(engine)->caller);
}

static const struct engine_ops control_ops = {.name = "control",
                                              .feed = control_feed,
                                              .tick = control_tick,
                                              .shutdown = control_shutdown,
                                              .closed = control_closed};

static struct engine *control_make(void *loop_owner, void *arg, const struct os_peer *peer, mono_t now)
{
    struct control *control = arg;
    struct control_conn *conn = mem_zalloc(sizeof *conn);
    (void)loop_owner;
    (void)peer;
    if (!conn)
        return NULL;
    struct engine *engine = &conn->caller.session.engine;
    *engine =
        (struct engine){.ops = &control_ops, .next_tick = MONO_NEVER, .in_max = CONTROL_REQUEST_MAX + 4, .now = now};
    if (!caller_init(&conn->caller, control->hub)) {
        mem_free(conn);
        return NULL;
    }
    outq_init(&engine->out);
    conn->control = control;
    conn->caller.on_row = on_row;
    conn->caller.on_done = on_done;
    conn->caller.on_freed = on_freed;
    return engine;
}

struct control *control_new(const struct control_options *options)
{
    struct control *control = mem_zalloc(sizeof *control);
    if (!control)
        return NULL;
    control->options = *options;
    control->factory = (struct engine_factory){.make = control_make, .arg = control};
    control->hub = hub_new(options->port, options->heap, CONTROL_SESSIONS_MAX);
    if (!control->hub) {
        mem_free(control);
        return NULL;
    }
    return control;
}

void control_free(struct control **control)
{
    if (!*control)
        return;
    hub_free(&(*control)->hub);
    mem_free(*control);
    *control = NULL;
}

struct hub *control_hub(struct control *control)
{
    return control->hub;
}

const struct engine_factory *control_factory(const struct control *control)
{
    return &control->factory;
}
