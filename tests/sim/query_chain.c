/* What queries give, against what the Kafka clients know; see query_chain.h. */
#include "query_chain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kafka_chain_int.h"
#include "sql/server/server.h"

#define SQL_PORT (w->options.ports + 3)
#define CLIENT_PORT 1u /* which is no loop's */
#define SESSION 3u
#define ROWS "rows"
#define SUMS "sums"
#define KEPT(offset) ((offset) % 4 != 3)

static const char statements[] =
    "CREATE STREAM kin (v TEXT) WITH (topic = '" KAFKA_CHAIN_TOPIC "', format = 'raw');"
    "CREATE SINK filtered WITH (queue = '" ROWS
    "') AS SELECT _partition AS p, _offset AS o FROM kin WHERE _offset % 4 <> 3;"
    "CREATE SINK totals WITH (queue = '" SUMS "') AS SELECT _partition AS p, COUNT(*) AS n, SUM(_offset) AS o FROM kin "
    "GROUP BY _partition;";

/* ---- the SQL thread, without a thread ---- */

bool world_sql_start(struct world *w)
{
    if (!w->runs_sql)
        return true;
    struct sql_server_options options = {.port = broker_port(w->broker, SQL_PORT),
                                         .heap = &w->sql_heap,
                                         .seed = world_draw(w),
                                         .snapshot_rows = 5 + world_pick(w, 60)};
    w->sql = sql_server_new(&options);
    return w->sql != NULL;
}

void world_sql_turn(struct world *w)
{
    if (!w->sql || world_pick(w, 8) < w->lag)
        return;
    bool more = sql_server_turn(w->sql, journal_durable(w->journal), w->os->now_mono(w->os), w->os->now_wall(w->os));
    (void)(sql_server_publish(w->sql) || more); /* the next turn comes anyway */
}

void world_sql_stop(struct world *w)
{
    sql_server_free(&w->sql);
}

void world_sql_close(struct world *w)
{
    if (!w->runs_sql)
        return;
    slab_heap_drain(&w->sql_heap);
    slab_heap_fini(&w->sql_heap);
}

/* ---- statements ---- */

struct said {
    bool ended;
    char text[4000];
};

static void hear(struct world *w, struct said *ret)
{
    struct port *port = broker_port(w->broker, CLIENT_PORT);
    for (struct effect *e; (e = ring_peek(&port->effects)); ring_pop(&port->effects)) {
        size_t at = strlen(ret->text);
        if (e->type == EFF_SQL_SAID && e->answer)
            snprintf(ret->text + at, sizeof ret->text - at, "%.*s", SLICE_ARG(e->answer->fields));
        ret->ended = ret->ended || (e->type == EFF_SQL_SAID && e->flags & EFFECT_SQL_LAST);
        mem_free(e->answer);
    }
}

static void ask(struct world *w, enum command_type type, const char *name, const char *other, uint32_t flags,
                struct said *ret)
{
    struct slice none = {0};
    struct command *c = ring_push(&broker_port(w->broker, CLIENT_PORT)->commands);
    struct ask *ask = ask_new(slice_str(name), slice_str(other), none, none);
    if (!c || !ask)
        abort();
    ask->flags = flags;
    *c = (struct command){.type = (uint8_t)type, .session = SESSION, .ask = ask};
    ring_publish(&broker_port(w->broker, CLIENT_PORT)->commands);
    for (unsigned i = 0; i < (type == CMD_SQL_ASK ? 2000 : 20) && !ret->ended && !w->dead; i++) {
        world_turn(w);
        hear(w, ret);
    }
}

void query_chain_furnish(struct query_chain *q, struct world *w)
{
    struct said answer = {0};
    *q = (struct query_chain){0};
    ask(w, CMD_SESSION_OPEN, "127.0.0.1:8", "sql", ASK_LOOPBACK, &answer);
    ask(w, CMD_LOGIN, "guest", "", ASK_CERTIFIED, &answer);
    ask(w, CMD_ENTER, "/", "", 0, &answer);
    ask(w, CMD_SQL_ASK, statements, "", 0, &answer);
    if (!answer.ended || strstr(answer.text, "\"error\""))
        model_fault(w->model, "the queries are not made: %.300s", answer.text);
    struct command *c = ring_push(&broker_port(w->broker, CLIENT_PORT)->commands);
    if (!c)
        abort();
    *c = (struct command){.type = CMD_SESSION_CLOSE, .session = SESSION};
    ring_publish(&broker_port(w->broker, CLIENT_PORT)->commands);
    world_turns(w, 10);
    hear(w, &answer);
}

/* ---- comparing ---- */

/* Where a query is in a partition: the records before `next` have had their effect, `count` of them, which come to `sum`. */
struct place_in {
    uint64_t next, count, sum;
};

struct look {
    const struct kafka_chain *k;
    struct world *w;
    const char *queue;
    struct place_in at[KAFKA_PARTS];
    uint32_t rows[KAFKA_PARTS];
    bool taken[KAFKA_PARTS]; /* of sums: the row before has been taken back, or there was none */
};

/* The next offset that has an effect; false: no reader of committed records sees another one. */
static bool next_record(const struct look *l, unsigned part, bool filtered, uint64_t *at)
{
    for (; *at < l->k->stable[part]; ++*at)
        if ((!filtered || KEPT(*at)) && kafka_chain_committed(l->k, part, *at))
            return true;
    return false;
}

static void on_row(void *arg, struct slice body)
{
    struct look *l = arg;
    unsigned part = KAFKA_PARTS;
    unsigned long long offset = 0;
    char text[200];
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(body));
    if (sscanf(text, "{\"p\":%u,\"o\":%llu}", &part, &offset) != 2 || part >= KAFKA_PARTS) {
        model_fault(l->w->model, "queue %s has a row %s", l->queue, text);
        return;
    }
    struct place_in *at = &l->at[part];
    if (!next_record(l, part, true, &at->next) || offset != at->next)
        model_fault(l->w->model, "row %u of partition %u is of offset %llu, and should be of %llu", l->rows[part], part,
                    offset, (unsigned long long)at->next);
    at->next = offset + 1;
    l->rows[part]++;
}

/* Each record takes the row of its partition back and gives a new one. */
static void on_sum(void *arg, struct slice body)
{
    struct look *l = arg;
    unsigned part = KAFKA_PARTS;
    unsigned long long count = 0, sum = 0;
    char op = 0, text[200];
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(body));
    if (sscanf(text, "{\"_op\":\"%c\",\"p\":%u,\"n\":%llu,\"o\":%llu}", &op, &part, &count, &sum) != 4 ||
        part >= KAFKA_PARTS) {
        model_fault(l->w->model, "queue %s has a row %s", l->queue, text);
        return;
    }
    struct place_in *at = &l->at[part];
    bool back = at->count && !l->taken[part], more = back || next_record(l, part, false, &at->next);
    if (!back && more) {
        at->count++;
        at->sum += at->next++;
    }
    l->taken[part] = back;
    if (!more || op != (back ? '-' : '+') || count != at->count || sum != at->sum)
        model_fault(l->w->model, "sum %u of partition %u is %s, and should be %llu of %llu records", l->rows[part],
                    part, text, (unsigned long long)at->sum, (unsigned long long)at->count);
    l->rows[part]++;
}

static void on_any(void *arg, struct slice body)
{
    (void)body;
    ++*(uint32_t *)arg;
}

static void look_at(struct world *w, const char *queue, void (*each)(void *arg, struct slice body), void *arg)
{
    struct peek_reader reader = world_reader(w);
    if (!peek_queue(w->broker, queue, &reader, each, arg))
        model_fault(w->model, "queue %s of a query is not there", queue);
}

void query_chain_started(struct query_chain *q, struct world *w)
{
    static const char *const queues[QUERY_CHAIN_QUEUES] = {ROWS, SUMS};
    for (unsigned i = 0; i < QUERY_CHAIN_QUEUES; i++) {
        uint32_t count = 0;
        look_at(w, queues[i], on_any, &count);
        if (count < q->sure[i])
            model_fault(w->model, "queue %s has %u rows, and had %u when an earlier life began", queues[i], count,
                        q->sure[i]);
        q->sure[i] = count;
    }
}

/* How many records are still to have their effect in one of the queues. */
static uint64_t compare(struct query_chain *q, const struct kafka_chain *k, struct world *w)
{
    struct look rows = {.k = k, .w = w, .queue = ROWS}, sums = {.k = k, .w = w, .queue = SUMS};
    uint64_t count = 0;
    look_at(w, ROWS, on_row, &rows);
    look_at(w, SUMS, on_sum, &sums);
    for (unsigned part = 0; part < KAFKA_PARTS; part++) {
        for (uint64_t at = rows.at[part].next; next_record(&rows, part, true, &at); at++)
            count++;
        for (uint64_t at = sums.at[part].next; next_record(&sums, part, false, &at); at++)
            count++;
        q->compared += rows.rows[part] + sums.rows[part];
    }
    return count;
}

void query_chain_compare(struct query_chain *q, const struct kafka_chain *k, struct world *w)
{
    (void)compare(q, k, w);
}

void query_chain_drained(struct query_chain *q, const struct kafka_chain *k, struct world *w)
{
    uint64_t left = 1;
    for (unsigned i = 0; i < 200 && !w->dead && !w->model->wrong[0]; i++) {
        left = compare(q, k, w);
        if (left)
            world_turns(w, 20);
        else
            return;
    }
    if (!w->dead)
        model_fault(w->model, "%llu records have no effect in the queues of the queries", (unsigned long long)left);
}
