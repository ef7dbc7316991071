/* server_run: a query that runs: where it reads, how far it is, what it owes the core.
 *
 *   AIMING (its target by name) ▸ LOOKING (its sources) ▸ PLACING (where to begin) | LOADING (its snapshot) ▸ REPLAYING (its trail, docs/decisions/0012) ▸ GOING … a failure ends it
 *
 * Each partition has one fetch under way, also while what came before is taken, or bytes that wait; queries of one user that stand at the same place have
 * these in common (server/feed.c). What is taken from them goes through the query in runs of records and into `taken`, a
 * trail; when the core owes no answer, that trail and the outputs become steps (struct steps): one, or several when there are
 * too many outputs. The server's thread.
 */
#ifndef MILLRACE_SQL_SERVER_RUN_H
#define MILLRACE_SQL_SERVER_RUN_H

#include "sql/query/dead_letter.h"
#include "sql/query/input.h"
#include "sql/query/trail.h"
#include "sql/server/server_int.h"
#include "sql/server/stash.h"

#define RUN_ROWS 1024u /* of one run of records */
#define RUN_WAITS_MAX                                                                                                  \
    (1u << 20) /* bytes of outputs, and of dead letters, that wait for the core: then nothing more is taken */

enum run_state { RUN_AIMING, RUN_LOOKING, RUN_PLACING, RUN_LOADING, RUN_REPLAYING, RUN_GOING };

struct run_source;

/* What queries of one user read of a stream, see server/feed.c. */
struct server_feed {
    struct list link;               /* server->feeds */
    struct server_session *session; /* all of its sources have the rights of one user */
    uint64_t stream;
    struct list sources, blocks;
    uint32_t source_count;
    bool stale;          /* who wants what has changed since the scan was made */
    uint32_t generation; /* of the scan */
    struct scan *scan;   /* NULL: there is nothing that can be shared */
};

/* What was fetched of a partition, for all that stand there: whole record batches, and a part of one perhaps. */
struct run_block {
    struct list link; /* feed->blocks */
    struct server_feed *feed;
    uint32_t refs, partition;
    uint64_t number;         /* never used again */
    uint64_t from;           /* where it was asked for: it has all that there is from there on */
    struct server_call call; /* while it is fetched … */
    struct list waiting;     /* … partitions whose `asked` it is */
    uint8_t *bytes;
    size_t len;
    bool keeps_place;
    struct file_piece piece; /* … that is: where they are in their file */
    uint64_t until;          /* where the next fetch begins; UINT64_MAX: not known before all of it is taken */
    uint64_t stable;         /* nothing behind it is read */
    uint64_t end;            /* of the partition then */
    uint32_t known;          /* so many partitions who asked knew of, or then the stream had */
    struct aborted *aborted;
    uint32_t aborted_count;
    struct shared_reading *reading; /* NULL: nobody has begun to read it for several */
    bool alone;                     /* each reads it by itself */
};

struct run_partition {
    struct run_source *source;
    uint32_t number;
    bool idle;
    mono_t asked_at;         /* then; at NOW a fetch that is still parked has found nothing since */
    mono_t again_at;         /* not before; after trouble */
    uint64_t place;          /* below it everything is taken */
    uint64_t kept;           /* from there on a start reads again */
    uint64_t start;          /* of the partition, as far as is known (FETCH_NOWHERE: not), … */
    uint64_t retired;        /* … and so many records went when it last moved */
    uint64_t end;            /* of the partition, as far as is known */
    uint64_t until;          /* of a bounded SELECT; UINT64_MAX: none */
    uint64_t limit;          /* nothing behind it is taken now, while one takes the other's place; UINT64_MAX: none */
    uint64_t goal;           /* where the old version was when this round began */
    uint64_t stood;          /* so far the old version has read it, … */
    bool shared, seen;       /* … if it reads it at all, */
    bool stood_idle;         /* … and it was silent when that one stopped */
    struct run_block *asked; /* its fetch is under way; NULL: none is */
    struct list wait;        /* asked->waiting */
    struct run_block *got;   /* not all of it is taken; NULL: nothing is there */
    struct run_block *next;  /* fetched meanwhile; it has got->until */
};

struct run_source {
    struct server_run *run;
    uint32_t number;
    struct slice topic; /* the object's */
    uint64_t stream;
    struct server_feed *feed; /* of that stream; NULL: nothing was asked yet */
    struct list fellow;       /* feed->sources */
    uint16_t *picks;          /* the feed's columns that it wants, in its scan's order; NULL: it scans by itself */
    uint32_t count, room;     /* partitions that it has, … */
    uint32_t exist;           /* … and that the stream has, as far as is known */
    struct run_partition *partitions;
    const struct sql_with *with;
    bool whole;  /* a table: it is read from its beginning, whatever is said of streams */
    bool pieces; /* it is a snapshot's: blocks keep where they are from */
    bool queue;  /* `topic` is one: what is below it of partitions and time means nothing */
    int64_t idle_ns;
    bool timed;         /* some operator asks its clock */
    int64_t stood_at;   /* time of the old version that has stopped, of the same clock; TIME_NEVER: not known */
    mono_t row_at;      /* when the last row came */
    mono_t advanced_at; /* when time was last moved without one */
};

enum snapshot_state {
    SNAPSHOT_NONE,
    SNAPSHOT_FINDING, /* its stream */
    SNAPSHOT_MAKING,
    SNAPSHOT_SAVING, /* when no step is under way */
    SNAPSHOT_WRITING,
    SNAPSHOT_WRITTEN, /* the next step names it */
    SNAPSHOT_READING,
};

/* Some of a snapshot's records: where they are. */
struct run_part {
    struct file_piece piece;
    uint64_t from; /* the first of them that counts */
};

/* What a start does with one, see server/snapshot_load.c. */
struct run_loading {
    struct run_source source;
    struct run_partition partition;
    struct run_part *parts;
    uint32_t count, room, at; /* at: that are read */
    uint8_t *bytes;           /* of the one that is read */
    size_t bytes_room;
    struct query_input in; /* records of it, … */
    uint32_t row;          /* … and the next of them */
    const char *why;       /* it ends too early; NULL: it does not, or is damaged */
};

struct run_snapshot {
    uint8_t state;   /* enum snapshot_state */
    uint64_t stream; /* id; 0: not known */
    struct server_call call;
    struct stash stash;    /* its pieces, while it is made, or loaded */
    struct slice piece;    /* the one that is written; empty: none is */
    uint32_t count, at;    /* of all pieces; that are written */
    uint64_t first, until; /* offsets */
    mono_t made_at;
    uint64_t rows;         /* run->rows_in then */
    const char *why;       /* the last one could not be made: so; NULL: it could */
    mono_t again_at, wait; /* then: not before; so long after it */
    struct run_loading loading;
};

struct server_run {
    struct list link; /* server->runs */
    struct sql_server *server;
    struct server_object *object; /* NULL: of a SELECT */
    struct request *request;
    struct server_session *session;
    struct server_object **uses; /* what its plan points into, each with a reference */
    uint32_t use_count;
    uint8_t state; /* enum run_state */
    bool failed, pausing, bounded, over;
    bool owes_first;  /* what it has of nothing (query_begin) is to be given before anything is taken */
    const char *code; /* SQLSTATE of the failure; NULL: 58000 */
    char why[SERVER_REASON_MAX];
    struct query *query;
    struct output *output; /* NULL: of a SELECT */
    struct slice topic;    /* of a stream that it writes; empty: none */
    struct output_target target;
    struct run_source *sources;
    uint32_t source_count, turn; /* turn: whose partition was read last */
    struct run_queue *queue;     /* it reads one; NULL: streams */
    struct server_call call;     /* LOOKING, PLACING */
    /* replaying */
    struct trail_reader replay;
    struct trail_entry entry;
    bool entry_there, named, begun; /* named: the trail says which streams it is about; begun: it has BEGIN */
    uint64_t replay_open;           /* rows from there on were not given out */
    /* steps */
    struct trail taken; /* since the last step was made */
    uint64_t given;     /* place of the sink up to which steps have been made */
    struct dead_letters dead;
    uint64_t dead_stream; /* 0: not known yet */
    struct server_call dead_call;
    bool dead_made;
    struct {
        struct trail trail; /* of all of them together */
        struct output_group *groups;
        struct msg *dead; /* before them */
        uint64_t place;   /* of the sink, before them */
        uint64_t until;   /* of a queue: messages below that number are in them, … */
        bool acks;        /* … and some wait to be acknowledged by the last of them */
        bool several;
        struct output_group *sent; /* of `step`, or of the one that is with the core, which has its messages */
    } steps;
    struct query_step *step; /* to be sent again at again_at; NULL: none, or it is with the core */
    struct server_call step_call;
    mono_t again_at, quiet_until;
    bool held;      /* another one takes its place: it reads no further than the limits */
    bool last_told; /* pausing: its trail says that all is given out, and what time it was */
    struct {
        uint8_t state;           /* enum switch_state */
        bool shares;             /* it is known that both read some partition */
        uint32_t rounds;         /* in each it comes to where the old one was when it began */
        struct server_call call; /* SQL_SWITCH */
        mono_t again_at;
        uint64_t looked; /* 1 + the step of an old one that does not run, whose trail has been looked at; 0: none */
        const struct server_run *with; /* of the old one, while both come to one place; NULL: it does not run */
    } turnover;
    uint64_t rows_in, skipped, dead_count;
    struct run_snapshot snapshot;
    const struct query_input *input; /* while it is stepped */
    struct op_timer timer;
    mono_t timed_until;           /* 0: it is not timed */
    struct server_select *select; /* where the rows of a SELECT go */
};

/* server/run.c */
void run_fail(struct server_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct server_run *run_new(struct sql_server *server, const char *user, const char *vhost);
/* The plan's sources, and what they stand on. False: no memory. */
MUST_USE bool run_sources(struct server_run *run);
/* References to all that a plan of that vhost may point into, before it is made. False: no memory. */
MUST_USE bool run_uses(struct server_run *run, const char *vhost);
/* Whether the dead-letter stream is known; else it is looked for, and made. */
bool run_dead_stream(struct server_run *run);
/* Its operators are timed for so long from now on. */
void run_time(struct server_run *run, mono_t ns);
void run_divert(void *arg, uint32_t origin, enum sql_fault fault);
/* server/partition.c */
/* A stream's partitions, none of which the source has yet. False: no memory, the run has failed. */
MUST_USE bool run_partitions(struct run_source *s, uint32_t exist);
/* The trail names it: the source has it from now on, if it had not, from its first record. NULL: there is none, or no memory, the run has failed. */
struct run_partition *run_partition_named(struct server_run *run, uint32_t source, uint32_t partition);
/* Whoever reads the stream has found that it has so many. */
void run_partitions_exist(struct run_source *s, uint32_t exist);
void run_join(struct server_run *run); /* has those that streams have got */
/* server/place.c */
void run_place(struct server_run *run);
/* Which streams it reads, by their ids. False: no memory. */
MUST_USE bool run_name_streams(const struct server_run *run, struct trail *trail);
/* Takes the next of the trail; at its end the run is GOING. False: it waits. */
bool run_replay(struct server_run *run);
/* Of a trail that ends with a PLACE: rows behind it may not have been given out. UINT64_MAX: all were. */
uint64_t run_given_until(struct slice trail);
/* What time it is by the query's clocks, which a replay knows anyway, but nobody else who reads the trail. False: no memory. */
MUST_USE bool run_tell_time(const struct server_run *run, struct trail *trail);
/* It is GOING, and to be paused: when it owes the core nothing any more, the last that its trail says. */
void run_tell_last(struct server_run *run);
/* What it gives before anything has come, if it owes that, and when it may; before that it takes nothing. */
void run_give_first(struct server_run *run);
/* Into the trail, and what comes of it. False: the run has failed. */
bool run_go(struct server_run *run, const struct trail_entry *entry);
/* Partitions that have nothing, and time that goes on without rows. */
void run_idle(struct server_run *run);
mono_t run_due(const struct server_run *run);
bool run_has_room(const struct server_run *run); /* it may take more */
/* server/select.c */
bool run_select_full(const struct server_run *run);
void server_select_free(struct server_select **select);
/* server/fetch.c */
void run_fetch(struct server_run *run);
void run_partition_clear(struct run_partition *p); /* its fetch and its blocks */
/* Takes what is there of the partition, to before `until`. False: nothing moved. */
bool run_take(struct server_run *run, struct run_partition *p, uint64_t until);
void run_fetch_one(struct server_run *run, struct run_partition *p, uint32_t bytes); /* if it may be */
bool run_input(struct sql_server *server); /* server->input is there. False: no memory */
/* server/feed.c */
MUST_USE bool feed_join(struct run_source *s); /* the feed of its stream. False: no memory */
void feed_leave(struct run_source *s);
/* The block that has `from`, or will have; NULL: it has to be fetched. */
struct run_block *feed_find(struct server_feed *feed, uint32_t partition, uint64_t from);
struct run_block *feed_block_new(struct server_feed *feed, uint32_t partition, uint64_t from); /* NULL: no memory */
void feed_block_ref(struct run_block **at, struct run_block *block);                           /* *at is NULL */
void feed_block_unref(struct run_block **at);                                                  /* *at may be NULL */
/* Whether the partition's block is, or can be, read for several, at a place that this one has not passed: *ret_meet, from where feed_next goes on. */
bool feed_open(struct run_partition *p, uint64_t *ret_meet);
/* What stands there: the next run (then *ret is set) or the end. *ret_place: behind it. */
MUST_USE enum input_verdict feed_next(struct run_partition *p, struct query_input *ret, uint64_t *ret_place);
void feeds_fini(struct sql_server *server);
/* server/queue.c */
/* Its one source is a queue, if it is one: from now on it has a session of its own. False: no memory. */
MUST_USE bool run_queue_open(struct server_run *run);
void run_queue_free(struct run_queue **queue);
void run_queue_look(struct server_run *run); /* LOOKING: it is there, and consumed */
/* Takes what has come. False: nothing has. */
bool run_queue_take(struct server_run *run);
void run_queue_letter(struct server_run *run, uint64_t number); /* that message has become a dead letter */
uint64_t run_queue_taken(const struct server_run *run);         /* messages below that number were taken */
uint32_t run_queue_untold(const struct server_run *run);        /* and so many are in no step yet */
uint64_t run_queue_lag(const struct server_run *run);           /* have come and are not acknowledged */
bool run_queue_presses(const struct server_run *run);           /* acknowledgements shall not wait */
/* The step acknowledges messages below `until`; letters: those that are dead letters. False: no memory now, nothing has changed. */
MUST_USE bool run_queue_tell(struct server_run *run, struct query_step *step, uint64_t until, bool letters);
/* Half of a step that was refused: what it acknowledges is told already. */
MUST_USE bool run_queue_tell_half(struct query_step *step, const uint64_t *tags, uint32_t count);
/* server/snapshot.c */
bool snapshot_busy(const struct server_run *run); /* nothing is taken meanwhile */
void snapshot_turn(struct server_run *run);
void snapshot_find(struct server_run *run); /* its stream */
void snapshot_done(struct server_run *run); /* it is made, or loaded */
void snapshot_fini(struct server_run *run);
MUST_USE bool snapshot_trail(struct server_run *run, struct trail *ret);
void snapshot_named(struct server_run *run); /* the step that names it is accepted */
/* server/snapshot_load.c */
bool snapshot_load(struct server_run *run);
void snapshot_load_fini(struct server_run *run);
/* server/switch.c: how one takes the place of another, see docs/decisions/0015 */
bool switch_builds(const struct server_run *run); /* it gives nothing yet, and reads for the time when it will */
/* Both versions come to one place: the core is to hear at once of what was taken, and neither has partitions that it had not. */
bool switch_hurries(const struct server_run *run);
void switch_turn(struct server_run *run);
void switch_end(struct server_run *run); /* it ends: the other one is free to go on */
/* server/step.c */
void run_steps(struct server_run *run);
bool run_steps_idle(const struct server_run *run);
void run_steps_fini(struct server_run *run);

#endif
