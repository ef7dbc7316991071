/* The scenarios `queries` (events into a stream, then one query after another over it from its beginning) and `load` (events alone).
 *
 * A query is measured from the statement that makes it until it has read every event and all that it gave is durable: when SHOW QUERIES knows
 * of no lag any more, PAUSE ends it, which the broker answers when its last step is. SHOW QUERIES is asked every few milliseconds, by the
 * thread that runs the query. Windows that the last watermark has not passed stay open and are not waited for. */
#include "nexmark_int.h"

#include "kafka_int.h"
#include "pace.h"

#include <poll.h>
#include <stdio.h>

enum { LOOK_MS = 3, SIDE_ROWS = 10000, SIDE_BATCH = 1000, RESULT_BYTES = 160 };

/* ---- streams and views ---- */

bool bench_nexmark_set_up(const struct bench_nexmark_options *o, struct bench_nexmark_sql *sql)
{
    char text[BENCH_NEXMARK_STATEMENT_BYTES];
    for (; sql->made < bench_nexmark_object_count; sql->made++) {
        bench_nexmark_statement(o, &bench_nexmark_objects[sql->made], text, sizeof(text));
        if (!bench_nexmark_sql_run(sql, text)) {
            bench_fail("making streams and views", sql->error);
            return false;
        }
    }
    return true;
}

static bool drop(struct bench_nexmark_sql *sql, const char *what)
{
    char text[64];
    snprintf(text, sizeof(text), "DROP %s", what);
    if (bench_nexmark_sql_run(sql, text))
        return true;
    bench_fail(text, sql->error);
    return false;
}

static bool topics_delete(const struct bench_nexmark_options *o, unsigned made)
{
    struct bench_kafka_wire w;
    char topic[2 * BENCH_NEXMARK_NAME_BYTES];
    bool ok = bench_kafka_open(&w, &o->server) == 0;
    for (unsigned i = 0; i < made && ok; i++) {
        if (bench_nexmark_objects[i].topic == NULL)
            continue;
        snprintf(topic, sizeof(topic), "%s%s", o->name, bench_nexmark_objects[i].topic);
        ok = bench_nexmark_topic_delete(&w, topic);
    }
    if (!ok)
        bench_fail("deleting topics", w.socket.error);
    bench_kafka_close(&w);
    return ok;
}

int bench_nexmark_tear_down(const struct bench_nexmark_options *o, struct bench_nexmark_sql *sql, int code)
{
    unsigned made = sql->made;
    if (o->keep)
        return code;
    bool ok = made < bench_nexmark_object_count || drop(sql, "QUERY IF EXISTS result");
    while (sql->made > 0 && ok)
        ok = drop(sql, bench_nexmark_objects[--sql->made].name);
    ok = topics_delete(o, made) && ok;
    return code != 0 ? code : ok ? BENCH_EXIT_OK : BENCH_EXIT_FAILED;
}

/* ---- events ---- */

static bool load_all(struct bench_nexmark_load *l, const struct bench_nexmark_options *o)
{
    struct bench_pace pace = bench_pace_of(o->rate, 0, 1, client_clock_ns());
    for (uint64_t at = 0; at < o->events && !bench_interrupted();) {
        uint64_t now_ns = client_clock_ns(), due = bench_pace_due(&pace, at, now_ns);
        uint64_t left = o->events - at, count = left < o->batch ? left : o->batch;
        count = due < count ? due : count;
        if (count == 0) {
            poll(NULL, 0, 1);
            continue;
        }
        if (!bench_nexmark_load_settle(l, o->window - 1) || !bench_nexmark_load_events(l, at, (unsigned)count))
            return false;
        at += count;
        bench_progress(o->progress, "events", at, o->events);
    }
    return bench_nexmark_load_settle(l, 0);
}

static bool load_side(const struct bench_nexmark_options *o)
{
    struct bench_nexmark_load l;
    char topic[BENCH_NEXMARK_NAME_BYTES + 16];
    snprintf(topic, sizeof(topic), "%s-side", o->name);
    bool ok = bench_nexmark_load_open(&l, o, topic);
    for (unsigned at = 0; ok && at < SIDE_ROWS; at += SIDE_BATCH)
        ok = bench_nexmark_load_side(&l, at, SIDE_BATCH) && bench_nexmark_load_settle(&l, 0);
    if (!ok)
        bench_fail("rows of the side table", l.wire.socket.error);
    bench_nexmark_load_close(&l);
    return ok;
}

static bool load(const struct bench_nexmark_options *o, struct bench_nexmark_load *l, struct bench_report *r)
{
    uint64_t from_ns = client_clock_ns();
    bool ok = load_all(l, o);
    double seconds = bench_seconds_since(from_ns);
    if (!ok)
        bench_fail("producing events", l->wire.socket.error);
    bench_report_number(r, "load", "events", (double)l->records, "");
    bench_report_number(r, "load", "bytes", (double)l->bytes, "");
    bench_report_number(r, "load", "seconds", seconds, "s");
    bench_report_number(r, "load", "rate", (double)l->records / seconds, "events/s");
    return ok;
}

int bench_nexmark_only_load(const struct bench_nexmark_options *o, struct bench_report *r)
{
    struct bench_nexmark_load l;
    bool ok = bench_nexmark_load_open(&l, o, o->name);
    if (!ok)
        bench_fail("connecting", l.wire.socket.error);
    ok = ok && load(o, &l, r);
    bench_nexmark_load_close(&l);
    return ok ? BENCH_EXIT_OK : BENCH_EXIT_FAILED;
}

/* ---- a query ---- */

struct measured {
    const struct bench_nexmark_query *query;
    struct bench_nexmark_shown shown; /* when it had read all */
    struct bench_nexmark_cpu cpu;     /* until then */
    double read_s, durable_s;         /* since it was made */
    int64_t records;                  /* of the result, which of a table are fewer than rows */
    uint64_t wanted;                  /* rows; UINT64_MAX: not known */
};

static void report(const struct bench_nexmark_options *o, const struct measured *m, struct bench_report *r)
{
    const char *group = m->query->name;
    bench_report_number(r, group, "rate", (double)o->events / m->durable_s, "events/s");
    bench_report_number(r, group, "seconds", m->durable_s, "s");
    bench_report_number(r, group, "rows_in", (double)m->shown.rows_in, "");
    bench_report_number(r, group, "rows_out", (double)m->shown.rows_out, "");
    if (m->wanted != UINT64_MAX)
        bench_report_number(r, group, "rows_wanted", (double)m->wanted, "");
    bench_report_number(r, group, "records_out", (double)m->records, "");
    bench_report_number(r, group, "state_bytes", (double)m->shown.state_bytes, "B");
    bench_report_number(r, group, "late", (double)m->shown.late, "");
    bench_report_number(r, group, "faults", (double)m->shown.faults, "");
    if (o->pid == 0)
        return;
    bench_report_number(r, group, "sql_cpu_s", m->cpu.sql_s, "s");
    bench_report_number(r, group, "broker_cpu_s", m->cpu.all_s, "s");
}

static bool wait_until_read(const struct bench_nexmark_options *o, struct bench_nexmark_sql *sql, struct measured *m)
{
    uint64_t wanted = o->events + (m->query->side ? SIDE_ROWS : 0);
    for (;;) {
        if (!bench_nexmark_sql_show(sql, "result", &m->shown))
            return false;
        if (!m->shown.there || strcmp(m->shown.state, "FAILED") == 0)
            return true;
        if ((m->shown.rows_in >= wanted && m->shown.lag == 0) || bench_interrupted())
            return true;
        bench_progress(o->progress, m->query->name, m->shown.rows_in, wanted);
        poll(NULL, 0, LOOK_MS);
    }
}

/* How many records the result has. -1: that cannot be asked. */
static int64_t result_records(const struct bench_nexmark_options *o, const char *topic, char *ret_error, size_t room)
{
    struct bench_kafka_wire w;
    int32_t partition = 0;
    int64_t offset = -1;
    if (bench_kafka_open(&w, &o->server) != 0 || bench_kafka_offsets(&w, topic, &partition, 1, -1, &offset) != 0 ||
        (!o->keep && !bench_nexmark_topic_delete(&w, topic))) {
        snprintf(ret_error, room, "%s", w.socket.error);
        offset = -1;
    }
    bench_kafka_close(&w);
    return offset;
}

static void statement_of(const struct bench_nexmark_options *o, const struct bench_nexmark_query *q, const char *topic,
                         char *ret, size_t room)
{
    char key[64] = "";
    if (q->key != NULL)
        snprintf(key, sizeof(key), ", key = '%s'", q->key);
    snprintf(ret, room, "CREATE STREAM result WITH (topic = '%s', partitions = 1, state_memory = %llu%s%s) AS %s",
             topic, (unsigned long long)o->state_memory, key, q->forever ? ", state_ttl = 'none'" : "", q->text);
}

static int fail(const struct bench_nexmark_query *q, const char *why)
{
    return bench_fail(q->name, why);
}

/* It goes, with what it gave. */
static int end_unmeasured(const struct bench_nexmark_options *o, struct bench_nexmark_sql *sql,
                          const struct bench_nexmark_query *q, const char *topic, int code)
{
    bool dropped = bench_nexmark_sql_run(sql, "DROP QUERY result");
    return dropped && result_records(o, topic, sql->error, sizeof(sql->error)) >= 0 ? code : fail(q, sql->error);
}

/* It has read all; then what is left of it goes. */
static int judge(const struct bench_nexmark_options *o, struct measured *m, struct bench_report *r)
{
    char why[400];
    report(o, m, r);
    bool whole = m->wanted == UINT64_MAX || m->shown.rows_out == m->wanted;
    if (whole && m->shown.faults == 0 && (m->query->key != NULL || (uint64_t)m->records >= m->shown.rows_out))
        return BENCH_EXIT_OK;
    snprintf(why, sizeof(why), "%llu rows, %lld records, %llu faults, where %lld rows and no faults should be",
             (unsigned long long)m->shown.rows_out, (long long)m->records, (unsigned long long)m->shown.faults,
             m->wanted == UINT64_MAX ? (long long)m->shown.rows_out : (long long)m->wanted);
    fail(m->query, why);
    return BENCH_EXIT_VIOLATION;
}

static int run_query(const struct bench_nexmark_options *o, struct bench_nexmark_sql *sql, struct measured *m,
                     struct bench_report *r)
{
    const struct bench_nexmark_query *q = m->query;
    char text[BENCH_NEXMARK_STATEMENT_BYTES], topic[RESULT_BYTES];
    snprintf(topic, sizeof(topic), "%s-%s", o->name, q->name);
    statement_of(o, q, topic, text, sizeof(text));
    struct bench_nexmark_cpu before = bench_nexmark_cpu(o->pid);
    uint64_t from_ns = client_clock_ns();
    if (!bench_nexmark_sql_run(sql, text)) {
        if (!sql->refused)
            return fail(q, sql->error);
        bench_report_text(r, q->name, "refused", sql->error);
        return BENCH_EXIT_OK;
    }
    if (!wait_until_read(o, sql, m))
        return fail(q, sql->error);
    m->read_s = bench_seconds_since(from_ns);
    if (strcmp(m->shown.state, "FAILED") == 0) {
        bench_report_text(r, q->name, "failed", m->shown.reason);
        fail(q, m->shown.reason);
        return end_unmeasured(o, sql, q, topic, BENCH_EXIT_VIOLATION);
    }
    if (bench_interrupted())
        return end_unmeasured(o, sql, q, topic, BENCH_EXIT_OK);
    if (!bench_nexmark_sql_run(sql, "PAUSE result"))
        return fail(q, sql->error);
    m->durable_s = bench_seconds_since(from_ns);
    struct bench_nexmark_cpu after = bench_nexmark_cpu(o->pid);
    m->cpu.sql_s = after.sql_s - before.sql_s;
    m->cpu.all_s = after.all_s - before.all_s;
    if (!bench_nexmark_sql_run(sql, "DROP QUERY result"))
        return fail(q, sql->error);
    m->records = result_records(o, topic, sql->error, sizeof(sql->error));
    return m->records < 0 ? fail(q, sql->error) : judge(o, m, r);
}

static int run_queries(const struct bench_nexmark_options *o, struct bench_nexmark_sql *sql, const uint64_t *rows,
                       struct bench_report *r)
{
    int code = BENCH_EXIT_OK;
    for (unsigned i = 0; i < o->query_count && code != BENCH_EXIT_FAILED && !bench_interrupted(); i++) {
        const struct bench_nexmark_query *q = o->queries[i];
        struct measured m = {.query = q, .wanted = q->gives != NULL ? rows[q - bench_nexmark_queries] : UINT64_MAX};
        int own = run_query(o, sql, &m, r);
        code = own != BENCH_EXIT_OK ? own : code;
    }
    return code;
}

int bench_nexmark_run(const struct bench_nexmark_options *o, struct bench_report *r)
{
    struct bench_nexmark_sql sql;
    struct bench_nexmark_load l;
    int code = BENCH_EXIT_FAILED;
    bool side = false;
    for (unsigned i = 0; i < o->query_count; i++)
        side = side || o->queries[i]->side;
    bench_nexmark_sql_init(&sql, o);
    if (bench_nexmark_set_up(o, &sql)) {
        bool open = bench_nexmark_load_open(&l, o, o->name);
        if (!open)
            bench_fail("connecting", l.wire.socket.error);
        if (open && (!side || load_side(o)) && load(o, &l, r))
            code = run_queries(o, &sql, l.rows, r);
        bench_nexmark_load_close(&l);
    }
    code = bench_nexmark_tear_down(o, &sql, code);
    bench_nexmark_sql_fini(&sql);
    return code;
}
