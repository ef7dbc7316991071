/* query: what the core knows of continuous SQL: statements by name, how far each query has come, steps that are all or nothing, and
 * requests that it hands on. It parses nothing: texts, settings and trails are the SQL engine's. See docs/decisions/0012.
 *
 * The SQL engine owns one port (broker_options.sql). Commands from it work on any vhost that its session has entered; commands
 * of the catalogue and QUERY_STEP are refused on every other port.
 *
 *   engine: SQL_LIST at its start ▸ { SQL_PUT | SQL_DROP | SQL_STATE | QUERY_STEP }*
 *   client: SQL_ASK ▸ SQL_SAID* … the last has EFFECT_SQL_LAST; SQL_MORE grants bytes; SQL_STOP or its end: the engine hears SQL_STOP
 *
 * A statement in the catalogue ("object") has an id that never comes again. A query among them has a trail and the number of its last step.
 * Any thread for the block; the rest is the core's.
 */
#ifndef MILLRACE_CORE_QUERY_H
#define MILLRACE_CORE_QUERY_H

#include "base/reader.h"
#include "base/types.h"
#include "core/message.h"

#define SQL_NAME_MAX 255u
#define SQL_TEXT_MAX (1u << 20)
#define SQL_OBJECTS_MAX 100000u
#define SQL_TRAIL_MAX (256u * 1024)     /* of one query: the engine makes a snapshot long before */
#define SQL_GRANTED_BYTES (256u * 1024) /* what may be said before the first SQL_MORE */
#define QUERY_OUTPUTS_MAX 4096u         /* of one step */
#define QUERY_STEP_BYTES_MAX (4u << 20) /* of its messages together, or one message */

enum sql_object_state { SQL_RUNNING, SQL_PAUSED, SQL_FAILED, SQL_OBJECT_STATES };

/* Of the catalogue's commands and of steps. */
enum query_result {
    QUERY_DONE,
    QUERY_UNKNOWN,   /* no such object */
    QUERY_EXISTS,    /* the name is taken */
    QUERY_BAD_NAME,  /* empty, too long, not UTF-8 */
    QUERY_STALE,     /* the step's number does not follow: somebody else's, or told twice */
    QUERY_NO_TARGET, /* output `failed` has no queue, stream or exchange to go to */
    QUERY_NO_RIGHT,  /* the owner may not write there */
    QUERY_FULL,      /* a queue rejects what is beyond its limit: again later */
    QUERY_NO_ROOM,   /* memory, journal, an alarm: again later */
    QUERY_TOO_MANY,  /* objects, or bytes of the trail */
};

/* Where a row goes: straight to a queue or a stream's partition, or by an exchange and the message's key. */
struct query_output {
    uint64_t queue;     /* id; 0: by msg's exchange and routing key, as a publish */
    uint32_t partition; /* of a stream */
    struct msg *msg;    /* the block's; of a stream: a batch (MSG_BATCH) that record_batch_check has passed */
};

/* CMD_QUERY_STEP's block. One owner at a time: the engine, then the core, then the engine again (EFF_QUERY_STEPPED). */
struct query_step {
    uint64_t query;  /* id of the object */
    uint64_t number; /* of the step: that of the last one + 1 */
    bool restart;    /* `trail` is the whole trail from now on (after a snapshot); else it is added */
    struct slice trail;
    uint8_t result;  /* answered: enum query_result; the effect's lsn is to be waited for */
    uint32_t failed; /* answered: index of the output that is the reason */
    uint32_t count;
    struct query_output outputs[];
};

/* Room for count outputs, and the trail copied behind them. NULL: no memory. Any thread. */
MUST_USE struct query_step *query_step_new(uint64_t query, uint64_t number, struct slice trail, uint32_t count);
/* With the messages that are left. mine: the calling thread's slab heap. NULL is nothing. */
void query_step_free(struct slab_heap *mine, struct query_step **step);

/* A row of SQL_LIST's answers (EFF_ROW, one object each, then ANSWER). Slices point into the fields. */
struct sql_object_row {
    uint64_t id;
    struct slice vhost, name, owner, text, settings, reason, trail;
    uint8_t kind; /* the engine's */
    uint8_t state;
    uint64_t step; /* number of the last one */
};
MUST_USE bool sql_object_row_next(struct reader *fields, struct sql_object_row *ret);

#endif
