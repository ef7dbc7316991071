/* query: what the core knows of continuous SQL: statements by name, how far each query has come, steps that are all or nothing, and
 * requests that it hands on. It parses nothing: texts, settings and trails are the SQL engine's. See docs/decisions/0012.
 *
 * The SQL engine owns one port (broker_options.sql): broker_port(ports + 3). Commands of the catalogue and QUERY_STEP are refused on every
 * other port. Its sessions are the broker's own: they log in without a secret (SESSION_OPEN with LOOPBACK, LOGIN with CERTIFIED), one for each
 * user and vhost. SQL_PUT and QUERY_STEP work in the vhost that their session has entered, with the rights of its user; SQL_LIST, SQL_SWITCH,
 * SQL_DROP, SQL_STATE and SQL_SAY need no more than an open session. What begins with SQL_INTERNAL is theirs: streams of that name are made, changed and
 * deleted by them only, and they may read and write them whatever the user may.
 *
 *   engine: SQL_LIST at its start ▸ { SQL_PUT | SQL_SWITCH | SQL_DROP | SQL_STATE | QUERY_STEP }*
 *   client: SQL_ASK ▸ SQL_SAID* … the last has EFFECT_SQL_LAST; SQL_MORE grants bytes; SQL_STOP or its end: the engine hears SQL_STOP
 *
 * A statement in the catalogue ("object") has an id that never comes again, neither as a statement's nor as a queue's. A query among them has a
 * trail and the number of its last step (0: none). When its vhost is deleted it goes, and the engine hears SQL_GONE; its owner is a name only.
 *
 * A step with FULL or NO_ROOM may be told again as it is. It changes nothing unless it is DONE, and then the block comes back without its
 * messages. STALE has an lsn too: when that is durable, so is the step that was accepted before. A session that was kicked, or has
 * ended, gets no block back: what it had sent is freed.
 * The functions are for any thread; the rest is the core's.
 */
#ifndef MILLRACE_CORE_QUERY_H
#define MILLRACE_CORE_QUERY_H

#include "base/reader.h"
#include "base/types.h"
#include "core/message.h"

#define SQL_INTERNAL "amq.sql."

#define SQL_NAME_MAX 255u
#define SQL_TEXT_MAX (1u << 20) /* with settings */
#define SQL_REASON_MAX 4096u
#define SQL_OPTIONS_MAX 4096u
#define SQL_SAY_MAX (64u * 1024)
#define SQL_ASKS_MAX 64u           /* of one session at a time */
#define SQL_BYTES_MAX (256u << 20) /* of all objects: texts and trails */
#define SQL_OBJECTS_MAX 100000u
#define SQL_TRAIL_MAX (256u * 1024)     /* of one query: the engine makes a snapshot long before */
#define SQL_GRANTED_BYTES (256u * 1024) /* what may be said before the first SQL_MORE */
#define QUERY_ACKS_MAX 16384u           /* of one step */
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
    QUERY_TOO_MANY,  /* objects, or bytes of a text, of the trail, of a step */
    QUERY_NO_ACK,    /* acknowledgement `failed` is of no delivery that waits for one */
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
    uint8_t result; /* answered: enum query_result; the effect's lsn is to be waited for */
    uint32_t
        failed; /* answered: index of the output, or of the acknowledgement, that is the reason; count: none of them is */
    uint16_t channel; /* of the session: … */
    uint32_t ack_count;
    uint64_t *acks; /* … deliveries that are acknowledged with the step, by their tags, ascending; the block's */
    uint32_t count;
    struct query_output outputs[];
};

/* Room for count outputs, and the trail copied behind them. NULL: no memory. Any thread. */
MUST_USE struct query_step *query_step_new(uint64_t query, uint64_t number, struct slice trail, uint32_t count);
/* The step acknowledges these deliveries of the channel, which ascend. False: no memory, or too many. */
MUST_USE bool query_step_acks(struct query_step *step, uint16_t channel, const uint64_t *tags, uint32_t count);
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

/* The fields of EFF_SQL_ASK; slices point into them. False: they are no such thing. */
struct sql_asked {
    struct slice vhost, text, options;
    bool loopback;    /* the client's address is one */
    bool administers; /* the user has the tag "administrator" */
};
MUST_USE bool sql_asked_read(struct slice fields, struct sql_asked *ret);

#endif
