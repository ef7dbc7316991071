/* server_int: what the files of the SQL server share: its calls to the core, its sessions, objects, requests and running queries. */
#ifndef MILLRACE_SQL_SERVER_SERVER_INT_H
#define MILLRACE_SQL_SERVER_SERVER_INT_H

#include "base/arena.h"
#include "base/list.h"
#include "base/map.h"
#include "core/query.h"
#include "sql/language/lines.h"
#include "sql/language/with.h"
#include "sql/query/output.h"
#include "sql/query/query.h"
#include "sql/query/trail.h"
#include "sql/server/server.h"

#define SERVER_REASON_MAX 400u
#define SERVER_NEXT                                                                                                    \
    SQL_INTERNAL                                                                                                       \
    "next." /* and a name: what is to take the place of the query of that name is called so in the catalogue */

struct server_session;
struct server_run;
struct run_queue;
struct request;
struct input;
struct message_rows;

/* ---- calls: what was asked of the core, and who wants to know ---- */

struct server_call {
    uint32_t number; /* 0: not under way */
    /* Takes over what the effect carries. NULL: the session has ended, there will be no answer. */
    void (*on_done)(struct server_call *call, struct effect *e);
};

struct call_slot {
    struct server_call *call; /* NULL: nobody wants to know any more */
    struct server_session *session;
    uint32_t next;      /* free one, or one that is held */
    bool used, durable; /* durable: told only when that is so */
    struct effect held;
};

/* ---- sessions ---- */

/* In the core, with the rights of a user in a vhost; the first one is nobody's and in none. */
struct server_session {
    struct sql_server *server;
    uint32_t number, refs;
    bool ready, failed; /* whoever waits for it looks here; why: of failed */
    bool opened, close_wanted, closing;
    bool own;                   /* of one query that reads a queue: nobody else gets it */
    struct run_queue *consumer; /* that query's; NULL: none, or it has gone */
    struct server_call login, enter;
    uint16_t channels; /* the newest */
    char *user, *vhost;
    char why[SERVER_REASON_MAX];
};

/* ---- objects: the statements of the catalogue ---- */

enum statement_kind {
    KIND_STREAM,
    KIND_STREAM_QUERY,
    KIND_VIEW,
    KIND_SINK,
    KIND_INSERT,
    KIND_MATERIALIZED,
    STATEMENT_KINDS
};

struct server_object {
    struct list link; /* server->objects, while it is in the catalogue */
    struct sql_server *server;
    uint32_t refs;
    uint64_t id;
    uint8_t kind;                       /* enum statement_kind */
    uint8_t state;                      /* enum sql_object_state */
    uint32_t states_asked, state_known; /* so many have been asked of the core; `state` is that one of them */
    char *vhost, *name, *owner, *text;
    char reason[SERVER_REASON_MAX];
    struct arena arena;    /* of the trees */
    struct ast *statement; /* NULL: the text is no statement any more */
    struct ast *relation;  /* what names in queries find; NULL: it is none, or not yet */
    struct sql_with with;
    struct slice reads[PLAN_SOURCES_MAX], writes; /* of a query: streams' names in the broker, its own copies */
    uint32_t read_count;
    bool takes; /* what it reads is a queue */
    struct object_clock {
        const struct ast *of;    /* what the source reads; NULL: no operator asks what time it is there */
        bool arrival;            /* the time is when its records came, and not that of their events */
    } clocks[PLAN_SOURCES_MAX];  /* of a query, by source */
    struct server_object *to_do; /* while circles are looked for */
    bool reached;
    uint64_t step; /* number of the last one that was accepted */
    struct trail trail;
    size_t core_trail;      /* bytes of it that the core has */
    bool bound;             /* it has been planned */
    bool damaged;           /* its trail */
    bool hidden;            /* from the planner, while what is to replace it is planned */
    bool next;              /* it is to take the place of the query of its name: docs/decisions/0015 */
    char *snapshots;        /* stream of its snapshots; NULL: the usual one */
    struct server_run *run; /* NULL: it does not run */
};

/* ---- the server ---- */

enum list_state { LIST_OPENING, LIST_ASKED, LIST_READ };

struct sql_server {
    struct sql_server_options options;
    struct port *port;
    struct slab_heap *heap;
    mono_t now, due;
    wall_t wall;
    lsn_t durable;
    struct server_session *home; /* for what needs no rights */
    struct call_slot *calls;     /* by number - 1 */
    uint32_t call_room, call_free;
    uint32_t held_first, held_last;   /* calls whose answers are not durable yet, by number; 0: none */
    struct server_session **sessions; /* by number - 1 */
    uint32_t session_room;
    uint8_t listed;   /* enum list_state */
    bool list_failed; /* no memory for a row: all of it is read again */
    uint64_t list_from;
    struct server_call list_call;
    struct list objects, requests, runs;
    bool news;  /* a query was begun in this turn */
    bool again; /* something could not be said for want of room */
    uint32_t request_count, run_count;
    struct compress *codecs;           /* made with the first records … */
    struct input *input;               /* … of blocks that one query reads */
    uint64_t input_block, input_until; /* what it is in, and up to where; 0: in none */
    struct arena scratch;              /* of the queries' steps */
    struct list feeds, readings;       /* readings: that nobody uses now */
    uint32_t reading_count;
    struct shared_reading *large; /* the one that keeps a large batch unpacked */
    uint64_t block_number;
    size_t block_bytes;            /* of all blocks */
    struct message_rows *messages; /* made with the first message of a queue */
    struct op nowhere;             /* takes the rows of queries that are only planned */
};

static inline struct slice server_text(const char *text)
{
    return text ? slice_str(text) : (struct slice){0};
}

/* server/call.c */
/* A slot of the ring, with session and origin set. NULL: the ring is full, or no memory: come again in the next turn. call: NULL: the answer,
 * if there is one, is nobody's. */
struct command *server_command(struct server_session *session, struct server_call *call, enum command_type type,
                               bool durable);
/* The same with operands, which it takes. False: as above, or ask is NULL. */
bool server_ask(struct server_session *session, struct server_call *call, enum command_type type, struct ask *ask,
                uint64_t number, uint32_t flags, bool durable);
void server_call_forget(struct sql_server *server, struct server_call *call);
/* The session of that user in that vhost (both NULL: nobody's), with one reference more. NULL: no memory. */
struct server_session *server_session_get(struct sql_server *server, const char *user, const char *vhost);
/* One more of them, which nobody else gets, for a consumer. NULL: no memory. */
struct server_session *server_session_new(struct sql_server *server, const char *user, const char *vhost);
void server_session_put(struct server_session **session);
uint16_t server_session_channel(struct server_session *session); /* a number that nobody has now */
void server_effect_drop(struct sql_server *server, struct effect *e);
void server_effects(struct sql_server *server);
/* Opens and closes sessions that wait for a slot, tells what has become durable. */
void server_calls_turn(struct sql_server *server);
void server_calls_fini(struct sql_server *server);

/* server/object.c */
void server_objects_turn(struct sql_server *server);             /* asks for the catalogue */
void server_object_gone(struct sql_server *server, uint64_t id); /* it went with its vhost, and its query ends */
void server_objects_fini(struct sql_server *server);
void server_object_row(struct sql_server *server, struct effect *e); /* a row of it, which it takes */
/* The one that has the name, not the one that is to take its place. */
struct server_object *server_object_find(struct sql_server *server, const char *vhost, struct slice name);
struct server_object *server_object_next(const struct server_object *o); /* that is to take its place; NULL: none */
struct server_object *server_object_replaced(const struct server_object *next); /* NULL: it has gone */
/* By the name that it has in the catalogue. */
struct server_object *server_object_called(struct sql_server *server, const char *vhost, struct slice name);
/* Its snapshots are in a stream of that name, which room is for. Too long: it has none. */
struct slice server_object_snapshots(const struct server_object *o, char room[SQL_NAME_MAX + sizeof SQL_INTERNAL]);
/* Parses the text and plans it. NULL: the error is set. */
struct server_object *server_object_new(struct sql_server *server, const char *vhost, struct slice name,
                                        struct slice owner, struct slice text, struct sql_error *error);
MUST_USE bool server_object_bind(struct server_object *o, struct sql_error *error);
/* It is in the catalogue, with the list's reference from now on. */
void server_object_add(struct server_object *o, uint64_t id);
void server_object_remove(struct server_object *o); /* stops it, too */
void server_object_unref(struct server_object **object);
bool server_object_runs(const struct server_object *o);     /* it is a query */
bool server_object_is_keyed(const struct server_object *o); /* what stands in its stream is a table */
bool server_object_is_table(const struct server_object *o); /* CREATE TABLE: the last row of each key counts */
/* Some object of the vhost whose statement names this one; NULL: none. */
const struct server_object *server_object_user(const struct server_object *o);
bool server_statement_names(const struct ast *statement, struct slice name);
/* Everything of the vhost that a query can read; without `but`. */
void server_catalog(struct sql_server *server, const char *vhost, const struct server_object *but, struct catalog *ret);
/* Remembered here and in the core. */
void server_object_state(struct server_object *o, enum sql_object_state state, const char *why);
void server_object_fail(struct server_object *o, const char *why);

/* server/plan.c */
void server_put_type(struct lines *l, const struct sql_type *type); /* as a string of JSON */
/* state_max 0: the server's; sink NULL: the rows go nowhere. NULL: the error is set. */
struct query *server_plan(struct sql_server *server, const char *vhost, const struct server_object *but,
                          const struct ast_run *run, size_t state_max, struct arena *arena, struct op *sink,
                          struct sql_error *error);
/* The query of a statement, with what it says to the planner. False: the error is set. */
MUST_USE bool server_statement_run(const struct ast *statement, struct arena *arena, struct ast_run *ret,
                                   struct sql_error *error);
/* SELECT * FROM name. */
struct query *server_plan_all(struct sql_server *server, const char *vhost, struct slice name, struct arena *arena,
                              struct sql_error *error);
struct query *server_plan_in(struct sql_server *server, const struct catalog *catalog, struct slice name,
                             struct arena *arena, struct op *sink, struct sql_error *error);
struct query *server_object_plan(struct server_object *o, struct op *sink, struct sql_error *error);
/* The columns that an INSERT writes, which are named or all of those that can be. False: the error is set. */
MUST_USE bool server_insert_columns(const struct server_object *target, const struct ast_insert *insert,
                                    struct arena *arena, struct slice **ret_names, uint32_t *ret_count,
                                    struct sql_error *error);
const struct ast_column *server_column_of(const struct ast_create_stream *stream, struct slice name);
/* Records of its format can be made of rows; sets how. False: the error is set. */
MUST_USE bool server_insert_format(const struct server_object *target, const struct ast_insert *insert,
                                   struct output_target *ret, struct sql_error *error);
MUST_USE bool server_insert_fits(const struct server_object *target, const struct slice *names, uint32_t count,
                                 const struct plan *plan, struct arena *arena, struct sql_error *error);
/* Where a query's rows go. *ret_topic: the stream's name, whose id and partitions are to be found out; empty: to no stream. */
MUST_USE bool server_object_target(struct server_object *o, struct slice *ret_topic, struct output_target *ret,
                                   struct sql_error *error);

/* server/queue.c */
/* A plan that reads a queue is one that can. False: the error is set. */
MUST_USE bool server_queue_allowed(const struct server_object *o, const struct query *query, struct sql_error *error);
bool server_object_is_queue(const struct server_object *o); /* CREATE STREAM … FROM QUEUE */
/* What a consumer's session hears: deliveries, the end of its queue, of its channel. It takes what the effect carries. */
void run_queue_effect(struct run_queue *queue, struct effect *e);

/* server/view.c */
/* CREATE STREAM of the plan's columns, by these names (NULL: their own), in the object's arena; with keys it is a TABLE. NULL: the error is set. */
struct ast *server_relation_of(struct server_object *o, const struct plan *plan, const struct slice *names,
                               const struct slice *keys, uint32_t key_count, struct sql_error *error);
/* A materialized view: its rows are a table, or a stream of rows that stay. False: the error is set. */
MUST_USE bool server_view_bind(struct server_object *o, const struct plan *plan, struct sql_error *error);

/* ---- requests ---- */

enum verdict { VERDICT_WAIT, VERDICT_DONE, VERDICT_FAILED };

struct request {
    struct list link;
    struct sql_server *server;
    uint64_t ticket, granted;
    char *user, *vhost;
    struct server_session *session;
    bool administers; /* the user may end what is others' */
    struct arena arena;
    struct slice text;
    struct ast_list statements;
    uint32_t at;   /* the statement */
    uint32_t step; /* of it */
    uint32_t part; /* of the step */
    uint64_t rows;
    bool ended, stopped, last_said;
    struct lines out;
    struct server_call call;
    struct effect answer; /* of the call; EFF_NONE: none */
    bool lost;            /* its session has ended instead */
    uint16_t channel;
    uint64_t dropping;            /* id of what is to take another one's place, and is not to any more; 0: none */
    mono_t until;                 /* EXPLAIN ANALYZE looks then */
    struct server_object *object; /* that is being made */
    struct server_run *run;       /* of SELECT */
    struct server_insert *insert; /* of INSERT … VALUES */
    struct server_infer *infer;   /* of CREATE STREAM … INFER, while the stream is read */
};

/* server/request.c */
void server_request_effect(struct sql_server *server, struct effect *e);
void server_requests_turn(struct sql_server *server);
void server_requests_fini(struct sql_server *server);
enum verdict request_refuse(struct request *r, const char *state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* base: where in the request's text the text begins that the error is about. */
enum verdict request_error(struct request *r, const struct sql_error *error, struct slice text, uint32_t base);
void request_done(struct request *r, const char *what, struct slice name);
/* The session's state: WAIT, FAILED (and said), or DONE: it can be used. */
enum verdict request_session(struct request *r);
/* Asks the core; the answer is in r->answer when the statement is called again. WAIT. */
enum verdict request_ask(struct request *r, enum command_type type, struct ask *ask, uint64_t number, uint32_t flags);
struct command *request_slot(struct request *r, enum command_type type); /* NULL: it was refused */
enum verdict request_command(struct request *r, enum command_type type, uint64_t number);
void request_answered(struct request *r); /* the answer has been looked at */

/* server/create.c */
enum verdict statement_create(struct request *r, const struct ast *s);
/* server/show.c */
/* Asks the core what the user may of the streams and queues that a plan reads: CMD_STREAM_LIST of them, in its order. */
enum verdict request_ask_rights(struct request *r, const struct plan *plan);
/* server/life.c */
enum verdict statement_drop(struct request *r, const struct ast *s);
enum verdict statement_pause(struct request *r, const struct ast *s);
uint64_t request_result(const struct request *r); /* enum query_result, which the core has answered */
const char *server_result_text(uint64_t result);
/* What it remembered goes with a query; there may be none, and nobody waits for it. */
void request_forget_snapshots(struct request *r, const struct server_object *o);
/* What was to take its place goes first: nothing is left of it when there is nothing any more whose place it could take. DONE: there is nothing; WAIT: not
 * yet, or the core is asked, which has answered when the statement is called again: that it does first (request_next_dropped). */
enum verdict request_drop_next(struct request *r, const struct server_object *o);
enum verdict request_next_dropped(struct request *r); /* DONE: nothing was asked, or it is gone */
/* server/infer.c */
/* DONE: *ret_text is the statement with the columns that were found, in the request's arena. */
enum verdict server_infer(struct request *r, const struct ast_create_stream *s, struct slice *ret_text);
void server_infer_free(struct server_infer **infer);
/* server/insert.c */
enum verdict statement_insert_values(struct request *r, const struct ast *s);
void server_insert_free(struct sql_server *server, struct server_insert **insert);
/* server/show.c */
enum verdict statement_show(struct request *r, const struct ast *s);
void server_put_columns(struct request *r, const struct plan *plan); /* a table of them */
enum verdict statement_describe(struct request *r, const struct ast *s);
enum verdict statement_explain(struct request *r, const struct ast *s);
/* server/select.c */
enum verdict statement_select(struct request *r, const struct ast *s);
/* server/switch.c */
bool server_object_switching(
    const struct server_object *o); /* it may have taken the place already: the core has not said yet */
/* server/run.c */
bool server_run_start(struct server_object *o);
void server_run_stop(struct server_run **run);
void server_run_pause(struct server_run *run,
                      bool pause); /* it ends when what it has under way has, PAUSED; or it does not */
bool server_runs_turn(struct sql_server *server);
mono_t server_runs_due(const struct sql_server *server);

#endif
