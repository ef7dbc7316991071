/* stream_int: the structures that the stream*.c files share. Core thread.
 *
 *   queue ─ stream ─ partition ─ chunk ─ item ─▶ msg       consumer | cursor ─ follower ─ place ─▶ chunk
 *                  └ source (exchange amq.stream.NAME)
 *
 * A record's way: it gets its offset and stands in `gathered` until the end of the tick; then it is an item of a chunk,
 * where readers find it once it is durable; the chunk goes to the stream store and is forgotten when its records are in a
 * file and nobody reads them. Records that are older are read back from the files, as chunks too.
 *
 *   chunk:  QUEUED ──▶ WRITING ──▶ READY            LOADING ──▶ READY | DAMAGED
 *             ▲           │ it failed
 *             └───────────┘
 *
 * Invariants:
 *   T1  start, written <= end and synced <= written; a client may give up what is durable and not written yet (STREAM_TRIM). Records from `written` on are in chunks QUEUED or WRITING, then in gathered.
 *   T2  chunks of a partition ascend and do not overlap; a chunk that is loading covers provisionally as much as it asked for.
 *   T3  one WRITE of a partition is on its way at a time, so its file grows in order whatever fails.
 *   T4  a reader that stands in a chunk, or waits for it, is counted in it; READY chunks without readers are on the list of
 *       idle ones, oldest use first, and go when all together take too much.
 *   T5  docs/formats/streams.md R1: a compaction writes STREAM with what a SYNC that began after its catalogue was written has
 *       answered.
 *   T7  who follows sees committed records only: nothing from partition_stable on, and no batch of an aborted transaction.
 *   T6  a chunk has messages or batches, never both. One of batches is not entered: when it is in the file and durable it
 *       goes, and what it held is loaded, decoded by the stream store.
 */
#ifndef MILLRACE_CORE_STREAM_INT_H
#define MILLRACE_CORE_STREAM_INT_H

#include "core/core_int.h"
#include "core/isolation.h"
#include "core/producer.h"
#include "core/stream_job.h"

#define LEADER_EPOCH 0 /* of every partition: there is one broker */
#define CHUNK_MARKS 4u
#define OFFSET_NONE UINT64_MAX

enum chunk_state { CHUNK_QUEUED, CHUNK_WRITING, CHUNK_LOADING, CHUNK_READY, CHUNK_DAMAGED };

struct chunk_mark { /* the first `count` items are durable when lsn is */
    uint32_t count;
    lsn_t lsn;
};

struct chunk {
    struct list link;            /* partition->chunks; b->streams.adrift when the partition went during a job */
    struct list idle_link;       /* b->streams.idle, T4 */
    struct partition *partition; /* NULL: adrift */
    struct stream_job *job;      /* the items: to be read here even while the store writes them; NULL while LOADING */
    enum chunk_state state;
    bool batches; /* of Kafka clients, which followers read from the file: T6 */
    uint32_t readers;
    uint32_t safe; /* items that are durable */
    uint32_t mark_count;
    struct chunk_mark marks[CHUNK_MARKS];
    uint64_t first, next; /* offsets */
    size_t bytes;
};

struct partition {
    struct stream *stream;
    uint32_t number;
    bool known;      /* replay: STREAM was seen */
    uint64_t gap_at; /* replay: before the record with that offset one was missing; 0: none */
    bool dirtied;    /* appended to since sync_upto was taken */
    bool sync_asked;
    uint64_t start, written, end;
    uint64_t sync_upto;
    struct list gathered; /* entries: position is the (first) offset, deadline the timestamp */
    struct list chunks;
    struct chunk *queued; /* the first that is QUEUED */
    bool writing;
    struct list gather_link; /* b->streams.gathering */
    struct list write_link;  /* b->streams.writable or .held */
    mono_t held_until;       /* 0: what is queued was not held yet */
    struct list dirty_link;  /* b->streams.dirty or .syncing */
    struct stream_extent *sealed;
    uint32_t sealed_count, sealed_max;
    struct stream_extent tail, synced;
    struct producers producers;
    struct isolation isolation;
    /* fetches: see stream_fetch.c */
    struct list fetches;    /* struct fetch_row: wait for more */
    struct list watches;    /* struct fetch_watch: sessions want to know */
    struct list shares;     /* struct share: of share groups, which tell those that wait for them */
    struct list fetch_link; /* b->streams.fetched */
    struct chunk *unsafe;   /* the first that may have something that is not durable; NULL: none has */
    uint64_t filled;        /* bytes written to its files, ever */
    uint64_t waked;         /* `seen` when all who wait had been told */
    uint64_t seen;          /* as far as it could be read when that was looked at … */
    uint64_t seen_bytes;    /* … and about so much of filled */
    /* keyed: see stream_keyed.c */
    struct list keyed_link; /* b->streams.keyed */
    mono_t keyed_due;
    uint64_t dirty_from; /* records below are compacted among themselves */
    uint64_t named;      /* sealed files below are named as synced by the journal */
    uint32_t generation; /* the highest that was given */
    bool keyed_more;     /* the last pass had no room for all keys */
    bool keyed_damaged;  /* a file of it is: left alone until the next start */
};

struct stream {
    struct queue *queue;
    struct list vhost_link;  /* vhost->streams */
    struct exchange *source; /* NULL: the name is too long for one */
    struct list followers, idle /* consumers waiting for records, by ready_link */, cursors;
    uint32_t partition_count, turn;
    struct list hungry_link;      /* b->streams.hungry */
    struct list offsets;          /* struct committed: of consumer groups */
    struct allowance txn_aborted; /* of vhost->txn_memory: what its partitions know of aborted transactions */
    struct timer retention;
    const struct user
        *reader; /* who asked last; while reader_gen == topology_gen reader_may says whether he may read it */
    uint64_t reader_gen;
    bool reader_may;
    struct partition **partitions; /* each in a block of its own: a stream grows */
};

struct place {     /* of a reader in a partition */
    uint64_t next; /* OFFSET_NONE: it does not read this partition, or not yet */
    struct chunk *chunk;
    uint32_t at;
    bool sought;     /* by its time: a FIND is to be sent, … */
    uint64_t before; /* … for what is before this, the end when the reader began; behind it everything is wanted */
};

struct follower {
    struct list link;      /* stream->followers */
    struct stream *stream; /* NULL: given up, waits for the answers of `finding` */
    struct cursor *cursor; /* whose it is; NULL: a consumer's */
    uint32_t finding;      /* FIND jobs on their way */
    wall_t from;           /* what they look for */
    uint32_t turn, run;    /* partition, and items taken of it in a row */
    uint32_t place_count;
    bool all; /* partitions that are added are read too */
    struct place *places;
};

/* A queue bound to the stream: how far it has been fed. */
struct cursor {
    struct list link;      /* stream->cursors */
    struct list feed_link; /* b->streams.feeding, or alone */
    struct queue *target;
    struct follower *follower;
    uint32_t bindings, all; /* of them, those that take everything */
};

enum sight {
    SIGHT_ITEM,
    SIGHT_END,   /* nothing more that is durable */
    SIGHT_LATER, /* it is being read, or waits for a place */
    SIGHT_DAMAGED
};

enum offset_kind { OFFSET_FIRST, OFFSET_LAST, OFFSET_NEXT, OFFSET_NUMBER, OFFSET_TIME };

struct offset_spec {
    enum offset_kind kind;
    uint64_t number;
    wall_t time;
};

/* ---- stream_chunk.c ---- */
bool stream_has_room(struct broker *b);                               /* for one more job */
MUST_USE bool stream_send(struct broker *b, struct stream_job **job); /* false: no room now; the job stays yours */
void chunks_turn(struct broker *b);
void chunk_gather(struct broker *b, struct partition *p, const struct target *t, struct msg *msg);
void gathered_drop(struct broker *b, struct entry *e);
void chunk_unread(struct broker *b, struct chunk *c);                             /* one reader less */
void chunk_read(struct chunk *c);                                                 /* one more */
struct chunk *chunk_load(struct broker *b, struct partition *p, uint64_t offset); /* NULL: no room, no memory */
uint32_t chunk_safe(struct broker *b, struct chunk *c);
struct chunk *chunk_before(struct partition *p, uint64_t offset); /* the last that begins there or before; NULL */
void stream_look_again(struct broker *b);                         /* soon, with chunks_turn */
void stream_starves(struct broker *b, struct stream *s); /* it is awake again when a job has come back, or soon */
/* Records from there on may be of a transaction that is open; OFFSET_NONE: none are. */
uint64_t partition_stable(struct broker *b, struct partition *p);
/* The aborted transactions among [first, until) of the job, which are then its own. False: no memory. */
MUST_USE bool stream_job_aborted(const struct partition *p, struct stream_job *job);
void chunk_end(struct broker *b, struct chunk *c); /* its partition goes; nobody reads it */
/* Files of the partition that end at or below until go when lsn is durable (R3). */
void files_drop(struct broker *b, uint64_t id, uint32_t partition, uint64_t until, lsn_t lsn);

/* A file that was made by a compaction is used instead of others, or given up, when lsn is durable (C1). */
void files_replace(struct broker *b, const struct stream_job *made, bool use, lsn_t lsn);
uint64_t stream_segment_bytes(const struct queue *q);

uint64_t partition_durable(struct broker *b, struct partition *p); /* behind the last record that is */
uint64_t partition_visible(struct broker *b,
                           struct partition *p); /* in the files, too: what is below is never taken back */

/* Somebody waits for what is held to be written. */
void partition_hurry(struct broker *b, struct partition *p);

/* ---- stream_fetch.c ---- */
void fetches_init(struct broker *b);
void fetches_turn(struct broker *b);
void fetch_back(struct broker *b, struct stream_job *job);    /* from the store; takes it */
void fetches_filled(struct broker *b, struct partition *p);   /* more of it is in its files */
void fetches_outgrown(struct broker *b, struct partition *p); /* its stream has more partitions */
void fetches_partition_gone(struct broker *b, struct partition *p);
void fetches_trimmed(struct broker *b, struct partition *p); /* it begins elsewhere */
/* For stream_fetch_session.c. */
struct partition *fetch_partition_of(struct broker *b, uint64_t stream, uint32_t partition); /* NULL: there is none */
enum fetch_result fetch_look_at(struct broker *b, struct fetch *f, struct fetch_row *row);
void fetch_answer(struct broker *b, struct fetch *f);
void fetch_look_again(struct broker *b, struct fetch *f);
/* For share.c. Of a parked block one row may have something now; the others have nothing that they did not have. It stays where it is
 * if this one has not. */
void fetch_look_at_row(struct broker *b, struct fetch_row *row);
/* How far it can be read, and about how many bytes that is: p->seen, p->seen_bytes. */
void fetch_see(struct broker *b, struct partition *p);
void fetch_out_of_time(void *arg, struct timer *timer);
/* It will be told of what is not durable, or not written. */
void fetch_expect(struct broker *b, struct partition *p);
static inline bool fetch_hopes_enough(const struct fetch *f)
{
    return f->hoped && f->found + f->hoped >= f->bytes_min;
}
/* A transaction that began there keeps what is behind it from who reads what is committed; FETCH_NOWHERE: none does. */
static inline uint64_t fetch_held_at(const struct fetch_row *row)
{
    return row->stable < row->end ? row->stable : FETCH_NOWHERE;
}
/* It has ended, and the block is to be looked at again, whatever came. */
bool fetch_is_let_go(struct broker *b, const struct fetch *f, uint64_t held, struct partition *p);
enum fetch_state { FETCH_STATE_NEW, FETCH_STATE_PARKED, FETCH_STATE_READY, FETCH_STATE_AWAY };

/* ---- share.c ---- */
void shares_partition_changed(struct broker *b, struct partition *p); /* it has grown, or begins elsewhere */

/* ---- stream_fetch_session.c ---- */
/* What the block says of a session is done. */
void fetch_session_begin(struct broker *b, struct peer *peer, struct fetch *f);
/* The block with the session's news in the place of f, which is freed; f, without rows, if there is no memory. */
MUST_USE struct fetch *fetch_session_gather(struct broker *b, struct fetch *f);
/* Rows that nobody needs to be told of are left out, the others will have been told. */
void fetch_session_told(struct fetch *f);
void fetch_session_wake(struct broker *b, struct partition *p);
void fetch_session_partition_gone(struct broker *b, struct partition *p);
void fetch_session_trimmed(struct partition *p);
void fetch_session_end(struct broker *b, struct peer *peer); /* none is nothing */

/* ---- stream_keyed.c ---- */
void keyed_init(struct broker *b);
bool stream_is_keyed(const struct stream *s);
void keyed_look(struct broker *b, struct partition *p); /* it may want a compaction now, or soon */
void keyed_answer(struct broker *b, struct stream_job *job);

/* ---- stream_replay.c ---- */
bool stream_snapshot_partition(struct broker *b, struct partition *p); /* false: no memory, or no room */

/* Instead of the sealed segments that hold just these offsets; false: there are none such. */
bool stream_put_rewritten(struct partition *p, const struct stream_extent *made);

/* ---- stream.c ---- */
/* Everything that so many partitions need, if they are more than there are; then they count, or are given up. False: no memory. */
MUST_USE bool stream_grow_prepare(struct broker *b, struct stream *s, uint32_t count);
void stream_grow(struct broker *b, struct stream *s, uint32_t count);
void stream_grow_undo(struct stream *s, uint32_t count);
/* What lies below the offset (OFFSET_NONE: the durable end) is given up. *offset: where it begins then. */
enum stream_result stream_trim(struct broker *b, struct partition *p, uint64_t *offset, lsn_t *ret_lsn);
void stream_awake(struct broker *b, struct stream *s); /* something may be readable that was not */
void stream_retention(struct broker *b, struct stream *s);
uint64_t stream_partition_bytes(const struct partition *p); /* of its files */
uint64_t stream_kept_for_feeders(const struct stream *s, uint32_t partition);

/* ---- records.c ---- */
lsn_t log_stream(struct broker *b, const struct partition *p, uint32_t sealed);
lsn_t log_batch(struct broker *b, const struct partition *p, uint64_t base, const struct msg *batch);
lsn_t log_producers(struct broker *b, const struct partition *p, struct list **at); /* room is reserved, see there */
/* Open and aborted transactions, so many of them as one record holds, from the at-th on; *at is then behind them. */
lsn_t log_isolation(struct broker *b, const struct partition *p, uint32_t *at);
lsn_t log_rewritten(struct broker *b, const struct partition *p, const struct stream_extent *extent);
lsn_t log_cursor(struct broker *b, const struct cursor *cursor, uint32_t partition, uint64_t next);

/* ---- produce.c ---- */
#define PRODUCERS_RECORD 256u  /* of one record */
#define ISOLATION_RECORD 4096u /* rows of one record */
#define ISOLATION_ROW_MAX 42u  /* bytes of one */
#define PRODUCE_LEADER_EPOCH 0 /* of every partition: there is one broker */
MUST_USE bool producers_snapshot(struct broker *b, struct partition *p);
MUST_USE bool isolation_snapshot(struct broker *b, struct partition *p);

/* ---- stream_read.c ---- */
MUST_USE bool offset_spec_parse(struct broker *b, struct slice args, struct offset_spec *ret, char *why,
                                size_t why_len);
MUST_USE struct follower *follower_new(struct stream *s);
void follower_free(struct broker *b, struct follower **follower);
/* Room for places in so many partitions; then the stream has them, and who reads all reads those too. False: no memory. */
MUST_USE bool followers_reserve(struct stream *s, uint32_t count);
void followers_grow(struct stream *s);
void followers_trimmed(struct broker *b, const struct partition *p); /* its start has moved */
/* The next item it can have, of whatever partition; follower_took moves on. */
enum sight follower_look(struct broker *b, struct follower *r, const struct stream_item **ret, uint32_t *ret_partition);
void follower_took(struct follower *r);
void follower_place(struct broker *b, struct follower *r, uint32_t partition, uint64_t offset);
void follower_found(struct broker *b, struct stream_job *job); /* answer of a FIND */
bool stream_awaits_durable(const struct stream *s); /* it has records that the journal has not made durable yet */

/* ---- stream_feed.c ---- */
void cursor_free(struct broker *b, struct cursor **cursor);
void feed_awake(struct broker *b, struct cursor *cursor);
bool feed_turn(struct broker *b); /* true: more could be fed */

#endif
