/* server_rig: a core on a table (core/broker_rig_test.h) with the SQL server on its port, somebody who asks, and what streams hold. For this folder's
 * tests only. */
#ifndef MILLRACE_SQL_SERVER_RIG_TEST_H
#define MILLRACE_SQL_SERVER_RIG_TEST_H

#include "core/query_words_test.h"

#include "sql/server/server.h"

struct world {
    struct rig *rig;
    struct slab_heap heap;
    struct sql_server *server;
    char said[65536];
    size_t said_len;
    bool ended;
    uint64_t snapshot_rows, seed;
    const struct scratch_disk *disk; /* NULL: none */
    size_t snapshot_memory;
    mono_t clock;
    unsigned turn, fail_turn; /* in that turn … */
    uint64_t fail_at;         /* … that allocation fails; 0: none */
    bool hit;
    void (*meanwhile)(struct world *w); /* behind each turn, before the core's next step; NULL: nothing */
    unsigned count, pace;               /* its own */
    bool awake;                         /* its next turn comes at once */
    lsn_t durable;                      /* at its last one */
};

#define SOON (200 * NS_PER_MS) /* what is due by then has not to wait for it, where time stands still */

/* As the thread does it (main/sql_engine.c): it sleeps until it is due, or hears something. */
RIG_FN bool is_asleep(struct world *w)
{
    struct port *port = broker_port(w->rig->b, SQL_PORT);
    return !w->awake && ring_empty(&port->effects) && sql_server_next_due(w->server) > w->rig->now + SOON &&
           !(sql_server_holds(w->server) && w->durable != w->rig->durable);
}

RIG_FN bool turn(struct world *w)
{
    bool fails = ++w->turn == w->fail_turn;
    if (fails)
        mem_fail_at(w->fail_at, false);
    w->durable = w->rig->durable;
    w->awake = sql_server_turn(w->server, w->durable, w->rig->now, w->rig->wall);
    w->hit = w->hit || (fails && mem_failures_hit());
    mem_fail_at(0, false);
    return w->awake;
}

/* It wants to be called at once, and nobody has said anything. */
RIG_FN bool is_restless(struct world *w)
{
    struct port *port = broker_port(w->rig->b, SQL_PORT);
    return !w->awake && !ring_dirty(&port->commands) && ring_empty(&port->effects) &&
           sql_server_next_due(w->server) <= w->rig->now;
}

RIG_FN bool engine(struct rig *rig)
{
    struct world *w = rig->engine_arg;
    bool more = !is_asleep(w) && turn(w);
    for (unsigned n = 0; !w->fail_turn && is_restless(w); n++) {
        if (n == 50)
            rig_fail("one turn comes after the other, and nothing happens");
        more = turn(w) || more;
    }
    if (w->meanwhile)
        w->meanwhile(w);
    return sql_server_publish(w->server) || more;
}

/* Each look at it takes a microsecond. */
RIG_FN mono_t rig_clock(void *arg)
{
    struct world *w = arg;
    return w->clock += 1000;
}

RIG_FN void serve(struct world *w)
{
    struct sql_server_options options = {.port = broker_port(w->rig->b, SQL_PORT),
                                         .heap = &w->heap,
                                         .seed = w->seed,
                                         .clock = rig_clock,
                                         .clock_arg = w,
                                         .snapshot_rows = w->snapshot_rows,
                                         .disk = w->disk,
                                         .scratch_max = UINT64_MAX,
                                         .snapshot_memory = w->snapshot_memory};
    slab_heap_init(&w->heap);
    w->server = sql_server_new(&options);
    assert_non_null(w->server);
    w->rig->engine = engine;
    w->rig->engine_arg = w;
    w->awake = true;
    w->rig->log->streams->batches = true;
    rig_step(w->rig);
}

RIG_FN struct world *world_of(uint64_t snapshot_rows, uint64_t seed)
{
    struct world *w = calloc(1, sizeof *w);
    w->snapshot_rows = snapshot_rows;
    w->seed = seed;
    w->rig = begin();
    serve(w);
    return w;
}

/* Snapshots have so many bytes in memory, and the rest there. */
RIG_FN struct world *world_on(uint64_t snapshot_rows, const struct scratch_disk *disk, size_t snapshot_memory)
{
    struct world *w = calloc(1, sizeof *w);
    w->snapshot_rows = snapshot_rows;
    w->disk = disk;
    w->snapshot_memory = snapshot_memory;
    w->rig = begin();
    serve(w);
    return w;
}

RIG_FN struct world *world_with(uint64_t snapshot_rows)
{
    return world_of(snapshot_rows, 0);
}

RIG_FN struct world *world_new(void)
{
    return world_of(0, 0);
}

/* Files of streams, and of partitions, that the journal does not name are swept away. */
RIG_FN void sweep(struct rig *rig)
{
    struct rig_streams *all = rig->log->streams;
    for (size_t i = 0; i < all->count;) {
        const struct rig_stream_record *r = &all->records[i];
        const struct queue *q = map_get(&rig->b->queues_by_id, map_key_u64(&r->stream));
        if (q && q->stream && r->partition < q->stream->partition_count)
            i++;
        else
            rig_stream_cut(all, r->stream, r->partition, 0, UINT64_MAX);
    }
}

/* A broker that finds the first count records of another one's journal. */
RIG_FN struct world *world_cut(const struct world *from, size_t count)
{
    struct world *w = calloc(1, sizeof *w);
    w->snapshot_rows = from->snapshot_rows;
    w->disk = from->disk;
    w->snapshot_memory = from->snapshot_memory;
    w->rig = rig_new(rig_log_copy(from->rig->log, count), &from->rig->options, from->rig->wall);
    sweep(w->rig);
    assert_true(begin_with(w->rig));
    rig_clear(w->rig);
    serve(w);
    return w;
}

RIG_FN void world_free(struct world *w)
{
    struct rig_log *log = w->rig->log;
    sql_server_free(&w->server);
    rig_free(w->rig);
    rig_log_free(log);
    slab_heap_drain(&w->heap);
    slab_heap_fini(&w->heap);
    free(w);
}

RIG_FN void hear(struct world *w)
{
    for (unsigned i = 0; i < w->rig->effect_count; i++) {
        const struct effect *e = &w->rig->effects[i];
        if (e->type != EFF_SQL_SAID)
            continue;
        assert_non_null(e->answer);
        assert_true(w->said_len + e->answer->fields.len < sizeof w->said);
        if (e->answer->fields.len)
            memcpy(w->said + w->said_len, e->answer->fields.ptr, e->answer->fields.len);
        w->said_len += e->answer->fields.len;
        w->said[w->said_len] = '\0';
        w->ended = w->ended || e->flags & EFFECT_SQL_LAST;
    }
    rig_clear(w->rig);
}

RIG_FN const char *say_as(struct world *w, uint32_t session, const char *text)
{
    rig_clear(w->rig);
    w->said_len = 0;
    w->said[0] = '\0';
    w->ended = false;
    assert_true(rig_ask(w->rig, CMD_SQL_ASK, session, 0, text, NULL, NULL, (struct slice){0}, 0));
    for (unsigned i = 0; i < 10; i++)
        rig_step(w->rig);
    hear(w);
    return w->said;
}

RIG_FN const char *say(struct world *w, const char *text)
{
    return say_as(w, 1, text);
}

#define SAYS(text, expected)                                                                                           \
    do {                                                                                                               \
        say(w, text);                                                                                                  \
        if (strcmp(w->said, expected) != 0)                                                                            \
            rig_fail("%s\nsaid:\n%s\nexpected:\n%s", text, w->said, expected);                                         \
        assert_true(w->ended);                                                                                         \
    } while (0)

/* What a stream holds, one record a line. */
RIG_FN char *records_of(struct world *w, const char *stream)
{
    static char text[65536];
    size_t at = 0;
    uint64_t id = queue_id(w->rig, stream);
    const struct rig_streams *all = w->rig->log->streams;
    text[0] = '\0';
    for (size_t i = 0; i < all->count; i++)
        if (all->records[i].stream == id)
            at += (size_t)snprintf(text + at, sizeof text - at, "%.*s\n", SLICE_ARG(msg_body(all->records[i].msg)));
    return text;
}

RIG_FN void rest(struct world *w)
{
    for (unsigned i = 0; i < 3; i++)
        rig_step(w->rig);
    rig_clear(w->rig);
}

RIG_FN void rest_and_hear(struct world *w)
{
    for (unsigned i = 0; i < 3; i++)
        rig_step(w->rig);
    hear(w);
}

/* The statements succeed, after some turns and passing time. */
RIG_FN void must(struct world *w, const char *text)
{
    say(w, text);
    for (unsigned i = 0; i < 200 && !w->ended; i++) {
        rig_pass(w->rig, 5);
        hear(w);
    }
    if (strstr(w->said, "error") || !strstr(w->said, "done") || !w->ended)
        rig_fail("%s\nsaid:\n%s", text, w->said);
}

RIG_FN unsigned lines_of(const char *text)
{
    unsigned n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

#endif
