/* server: continuous SQL inside the broker: a client of the core, on a port of its own, that keeps the catalogue, answers requests and runs queries.
 *
 *   sql_server_new ▸ { sql_server_turn ▸ sql_server_publish }* ▸ sql_server_free (the core is gone, or has let go of the port)
 *
 * It sees no file or thread, and a clock only to time operators: who runs it brings the time and calls it whenever the port has effects, something became durable, or
 * sql_server_next_due has come. Nothing is allocated before the first statement or object but the server itself.
 *
 * Answers to a request are lines of JSON, one event a line, in the order of the statements:
 *
 *   {"statement":0,"columns":[{"name":"a","type":"BIGINT"},…]}  rows follow; statements are numbered from 0
 *   {"row":[1,"x",null]}  {"row":[…],"change":"-"}              the second takes a row back that was given before
 *   {"done":"CREATE STREAM","name":"orders"}  {"done":"SELECT","rows":3}  {"done":"INSERT","name":"orders","rows":2}
 *   {"error":{"code":"42P01","message":"…","line":1,"column":15,"hint":"…","text":"…"}}   the last line, if there is one; text: message, line and caret
 *
 * Numbers that are exact in JSON are numbers: integers, reals, decimals; all that is no number, TRUE, FALSE or JSON is a text as PostgreSQL shows it.
 * One thread.
 */
#ifndef MILLRACE_SQL_SERVER_SERVER_H
#define MILLRACE_SQL_SERVER_SERVER_H

#include "core/broker.h"
#include "sql/query/scratch.h"

struct sql_server;

struct sql_server_options {
    struct port *port; /* a loan, as the heap of the calling thread */
    struct slab_heap *heap;
    size_t state_memory; /* of one query that says nothing else; 0: 64 MiB */
    const struct scratch_disk
        *disk;             /* a loan: where queries keep what is beyond it, and snapshots are gathered; NULL: nowhere */
    uint64_t scratch_max;  /* bytes of what is beyond it, of one query */
    uint32_t queries_max;  /* running at a time, SELECTs included; 0: 1,000 */
    uint32_t requests_max; /* 0: 64 */
    mono_t (*clock)(void *arg); /* for EXPLAIN ANALYZE, which times operators; NULL: they take no time */
    void *clock_arg;
    uint64_t seed;          /* of the queries' hash tables: what strangers cannot guess; answers do not depend on it */
    uint64_t snapshot_rows; /* tests: a snapshot after so many records; 0: when it is worth while */
    size_t snapshot_memory; /* tests: bytes of one that are in memory at once, the others are on that disk; 0: 4 MiB */
};

/* NULL: no memory. Asks for the catalogue in its first turn. */
MUST_USE struct sql_server *sql_server_new(const struct sql_server_options *options);
/* Takes it and NULLs yours. Nothing is sent any more. */
void sql_server_free(struct sql_server **server);
/* Effects, requests, a batch of each query that has something to read. True: there is more to do at once. */
MUST_USE bool sql_server_turn(struct sql_server *server, lsn_t durable, mono_t now, wall_t wall);
/* Publishes commands; true if there were any (the core wants a step). */
MUST_USE bool sql_server_publish(struct sql_server *server);
/* It waits for something to become durable. */
bool sql_server_holds(const struct sql_server *server);
/* When it must be called though nothing has come; MONO_NEVER. */
mono_t sql_server_next_due(const struct sql_server *server);

#endif
