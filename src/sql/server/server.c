/* The SQL server, see server.h: what holds the parts together. */
#include "sql/server/run.h"

#include "base/mem.h"
#include "sql/query/input.h"
#include "sql/query/message_rows.h"

#define STATE_MEMORY (64u << 20)
#define QUERIES_MAX 1000u
#define REQUESTS_MAX 64u
#define AGAIN_NS (5 * NS_PER_MS)

struct sql_server *sql_server_new(const struct sql_server_options *options)
{
    struct sql_server *server = mem_zalloc(sizeof *server);
    if (!server)
        return NULL;
    server->options = *options;
    server->options.state_memory = options->state_memory ? options->state_memory : STATE_MEMORY;
    server->options.snapshot_memory = options->snapshot_memory ? options->snapshot_memory : STASH_MEMORY;
    server->options.queries_max = options->queries_max ? options->queries_max : QUERIES_MAX;
    server->options.requests_max = options->requests_max ? options->requests_max : REQUESTS_MAX;
    server->port = options->port;
    server->heap = options->heap;
    server->call_free = UINT32_MAX;
    struct list *lists[] = {&server->objects, &server->requests, &server->runs, &server->feeds, &server->readings};
    arena_init(&server->scratch, QUERY_STEP_MEMORY_MAX);
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        list_init(lists[i]);
    server->home = server_session_get(server, NULL, NULL);
    if (!server->home)
        sql_server_free(&server);
    return server;
}

void sql_server_free(struct sql_server **ret)
{
    struct sql_server *server = *ret;
    struct effect *e;
    *ret = NULL;
    if (!server)
        return;
    server_requests_fini(server);
    server_objects_fini(server);
    server_session_put(&server->home);
    server_calls_fini(server);
    feeds_fini(server);
    input_free(&server->input);
    message_rows_free(&server->messages);
    compress_free(&server->codecs);
    while ((e = ring_peek(&server->port->effects))) {
        server_effect_drop(server, e);
        ring_pop(&server->port->effects);
    }
    ring_publish(&server->port->commands); /* whose operands the broker frees */
    arena_fini(&server->scratch);
    mem_free(server);
}

bool sql_server_turn(struct sql_server *server, lsn_t durable, mono_t now, wall_t wall)
{
    server->durable = durable;
    server->now = now;
    server->wall = wall;
    server_calls_turn(server);
    server_effects(server);
    server_objects_turn(server);
    server->news = server->again = false;
    server_requests_turn(server);
    bool more = server_runs_turn(server);
    server_requests_turn(server); /* what the queries have given */
    server_calls_turn(server);
    slab_heap_drain(server->heap);
    return more || server->news || !ring_empty(&server->port->effects);
}

bool sql_server_publish(struct sql_server *server)
{
    bool any = ring_dirty(&server->port->commands);
    ring_publish(&server->port->commands);
    return any;
}

mono_t sql_server_next_due(const struct sql_server *server)
{
    mono_t due = server_runs_due(server);
    mono_t soon = server->listed != LIST_READ || server->again ? server->now + AGAIN_NS : MONO_NEVER;
    return due < soon ? due : soon;
}

bool sql_server_holds(const struct sql_server *server)
{
    return server->held_first != 0;
}
