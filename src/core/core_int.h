/* core_int: the structures that the files of core/ share. Nobody outside core/ includes this.
 *
 * Everything here belongs to the core thread. Object graph:
 *
 *   broker ─ vhost ─ exchange ─ binding ─▶ queue | exchange          user ─ permission ─▶ vhost
 *          │       └ queue ─ entry ─▶ msg         policy ─▶ vhost
 *          │              └ consumer
 *          └ port ─ peer ─ channel ─ unacked ─▶ entry
 *
 * Names: a "peer" is a session as the core sees it. An "entry" is one message in one queue. "Journalled" means that the
 * thing has records in the journal and survives a restart.
 */
#ifndef MILLRACE_CORE_CORE_INT_H
#define MILLRACE_CORE_CORE_INT_H

#include "base/check.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/reader.h"
#include "base/wheel.h"
#include "base/writer.h"
#include "core/broker.h"
#include "core/dedup.h"
#include "core/mqtt_int.h"
#include "core/page.h"
#include "core/retry.h"
#include "fmt/amqp_props.h"
#include "fmt/amqp_table.h"
#include "fmt/scram.h"

#define NAME_MAX_BYTES 255
#define ERROR_TEXT_MAX 512
#define TIME_MS_MAX 315360000000LL /* ten years, RabbitMQ's limit for times */
#define LSN_CAPTURED UINT64_MAX    /* entry of a transaction whose record is still being built */

enum object_kind {
    OBJ_VHOST,
    OBJ_USER,
    OBJ_PERMISSION,
    OBJ_TOPIC_PERMISSION,
    OBJ_POLICY,
    OBJ_EXCHANGE,
    OBJ_QUEUE,
    OBJ_BINDING,
    OBJ_TXN,
    OBJ_GROUP_RULES
};

/* First member of everything in the catalogue. The list keeps creation order, so that a snapshot written in this order
 * never names what it has not defined. */
struct object {
    struct list link;
    enum object_kind kind;
    bool journalled;
};

/* ---- access ---- */

struct pattern { /* one permission regex; matching is bounded by PCRE2's match limits */
    struct slice text;
    void *code; /* pcre2_code *, NULL: matches nothing (empty) */
};

enum verb { VERB_CONFIGURE, VERB_WRITE, VERB_READ, VERB_COUNT };

struct user {
    struct object object;
    struct slice name, verifier, tags;
    struct list permissions;
    uint32_t peers;
};

struct permission {
    struct object object;
    struct list user_link;
    struct user *user;
    struct vhost *vhost;
    struct slice exchange; /* topic permissions only */
    bool topic;
    struct pattern patterns[VERB_COUNT];
};

/* ---- topology ---- */

struct vhost {
    struct object object;
    struct slice name, default_queue_type;
    struct map exchanges, queues, bindings;
    struct map txns; /* transactional id → struct txn */
    struct map mqtt_clients;
    struct list policies;
    struct list streams;  /* by id */
    struct queue *delays; /* hidden queue that holds delayed messages; NULL until needed */
    bool deleting;
};

enum apply_to { APPLY_ALL = 0, APPLY_QUEUES, APPLY_CLASSIC, APPLY_QUORUM, APPLY_STREAMS, APPLY_EXCHANGES };

struct policy {
    struct object object;
    struct list vhost_link;
    struct vhost *vhost;
    struct slice name, definition; /* definition: table content */
    struct pattern pattern;
    int64_t priority;
    enum apply_to apply_to;
    bool operator_policy;
};

struct audience;
struct stream;
struct follower;

struct exchange_type {
    const char *name;
    bool by_topic; /* topic permissions apply */
    bool (*index_add)(struct exchange *x, struct binding *binding);
    void (*index_remove)(struct exchange *x, struct binding *binding);
    /* Collects the targets of bindings that match. */
    void (*match)(struct broker *b, struct exchange *x, struct slice key, struct slice headers, struct route *route);
    /* Whether a binding may have this key and these arguments; text says why not. NULL: any. */
    bool (*binding_valid)(struct slice key, struct slice args, char *text, size_t text_len);
};

struct exchange {
    struct object object;
    struct vhost *vhost;
    struct slice name, args, alternate; /* alternate: effective name, may be empty */
    struct slice alternate_own;         /* copy when it comes from a policy */
    const struct exchange_type *type;
    bool durable, auto_delete, internal, delayed, was_bound;
    struct list sources; /* bindings whose source this is */
    struct list targets; /* bindings whose destination this is */
    struct map keys;     /* direct: key → struct key_bucket */
    struct topic *topic;
    struct hashring *hashring;
    struct policy *policy, *operator_policy;
    uint64_t route_mark;
    uint32_t binding_count;
    struct stream *stream; /* whose records this is the source of (amq.stream.NAME) */
    struct list mqtt_clients;
    struct retained_tree *retained; /* NULL: nothing was retained yet */
};

struct binding {
    struct object object;
    struct exchange *source;
    struct queue *queue;                /* destination, or */
    struct exchange *exchange;          /* this, or */
    struct audience *audience;          /* this, which is in no catalogue */
    const struct mqtt_client *no_local; /* what this client publishes does not come by it */
    struct list source_link, target_link;
    struct list bucket_link;
    struct selector *selector; /* what is not selected is not led on; NULL: all is */
    struct slice identity;     /* source, kind, destination, key, args: the key in vhost->bindings */
    struct slice key, args;
};

/* Where a message goes; each queue once. */
struct route {
    struct queue **queues;
    uint32_t count, max;
    bool failed;           /* no memory */
    const struct msg *msg; /* being routed */
    uint32_t matched;      /* destinations found by the exchange now visited */
    struct exchange **todo;
    uint32_t todo_count, todo_max;
    struct audience **audiences;
    uint32_t audience_count, audience_max;
    const struct mqtt_client *from; /* who publishes, for the next route_message only */
    uint8_t dollar;                 /* enum, route.c */
};

/* ---- queues ---- */

enum overflow { OVERFLOW_DROP_HEAD, OVERFLOW_REJECT, OVERFLOW_REJECT_DLX };
enum queue_type { QUEUE_CLASSIC, QUEUE_QUORUM, QUEUE_STREAM };
enum reason {
    REASON_ACKED,
    REASON_EXPIRED,
    REASON_MAXLEN,
    REASON_REJECTED,
    REASON_DELIVERY_LIMIT,
    REASON_PURGED,
    REASON_MOVED,
    REASON_COUNT
};

enum cleanup { CLEANUP_UNSET, CLEANUP_DELETE, CLEANUP_COMPACT, CLEANUP_BOTH }; /* of a stream; unset: delete */

/* What governs a queue: arguments, policy and operator policy together. -1: not set. Most queues have the same: they share
 * one that is counted (rules.c), which owns what the slices point to; in others they are loans. */
struct queue_rules {
    int64_t message_ttl_ms, expires_ms, max_length, max_length_bytes, delivery_limit, consumer_timeout_ms;
    int64_t max_age_ms, segment_bytes, partitions; /* streams */
    int64_t min_lag_ms, tombstone_ms;              /* keyed ones */
    enum cleanup cleanup;
    struct slice dlx, dlk;
    bool has_dlx, has_dlk, single_active;
    bool has_strategy, at_least_once; /* x-dead-letter-strategy */
    bool has_dedup, dedup;
    bool has_length_kept, length_kept; /* retention leaves max_length_bytes at least, not at most */
    int64_t cache_size, cache_ttl_ms;
    int64_t retry_min_ms, retry_max_ms, retry_multiplier;
    enum retry_type retry_type;
    struct slice dedup_header; /* as dlx; empty: the default */
    uint8_t max_priority;
    enum overflow overflow;
    enum queue_type type;
};

enum entry_flag {
    ENTRY_JOURNALLED = 1,
    ENTRY_REDELIVERED = 2,
    ENTRY_FRESH = 4,     /* ttl 0, and a consumer was ready when it came: may go to him, else it expires */
    ENTRY_UNACKED = 8,   /* in queue->unacked, owned by a channel; else in a lane */
    ENTRY_TX = 16,       /* acknowledged inside an open transaction */
    ENTRY_FRONT = 32,    /* in the front of a lane with pages */
    ENTRY_STREAM = 64,   /* stands for every record of a stream that is unacknowledged; in no queue */
    ENTRY_DELAYED = 128, /* waits for its retry; lsn is its index in the heap */
};

/* One message in one queue: 72 bytes. */
struct entry {
    struct list link; /* lane, queue->unacked or retry.entries */
    struct msg *msg;
    struct queue *queue; /* NULL: the queue was deleted while the entry was unacked */
    struct page *page;   /* that is being written from it, or that it was read from; NULL: none */
    uint64_t position;
    lsn_t lsn; /* deliverable when durable; 0 for memory */
    wall_t deadline;
    uint32_t returns; /* how often it came back to the queue */
    uint16_t snap_gen;
    uint8_t lane;
    uint8_t flags;
};

/* Waiting messages of one priority, by position: front, then pages, then entries (paging.c). Without paging: entries. */
struct lane {
    struct list entries;
    uint64_t count; /* all that wait, in memory or not */
    struct lane_paging *paging;
    uint64_t paged_upto; /* where the last page that was used ended: what is not behind it is never paged again */
};

struct lane_paging {
    struct list front; /* read from pages, or kept back when the first page was written */
    struct list pages; /* on disk or on their way, oldest first; those being written have their messages in entries */
    struct list *unwritten; /* first of entries that no page is being written from; the list's head: none */
    uint64_t front_bytes;   /* of memory */
    uint32_t reading;       /* pages being read */
    uint64_t loaded_upto;   /* where the last page that was read ended */
};

struct ranges { /* positions as runs */
    struct range {
        uint64_t first, last;
    } * runs;
    uint32_t count, max;
};

enum page_state { PAGE_WRITING, PAGE_ON_DISK, PAGE_READING, PAGE_LOADED, PAGE_DAMAGED };

struct page_return { /* a message of a page that has come back to its queue */
    uint64_t position;
    uint32_t returns;
    wall_t due; /* not to be delivered before; 0: at once */
};

struct page {
    struct list lane_link;    /* lane_paging->pages, until it is loaded; b->adrift without a queue */
    struct list segment_link; /* segment->pages_in, once it is on disk */
    struct list queue_link;   /* queue->pages, once it is on disk */
    struct queue *queue;      /* NULL: it went while a job was on its way, which frees this */
    enum page_state state;
    uint8_t lane;
    bool journalled; /* holds journalled messages */
    bool doomed;     /* being written, but one before it in the lane has failed: it is not used */
    bool unmovable;  /* it could not be read */
    uint16_t snap_gen;
    uint32_t count, live; /* messages written; of them alive */
    uint32_t return_count;
    lsn_t lsn;            /* of its last PAGE record */
    uint64_t first, last; /* positions */
    uint64_t body_bytes;  /* of what is alive; after a restart about, until it is read */
    wall_t deadline;      /* of the first message */
    struct page_where where;
    struct ranges holes;     /* positions from first to last that are not, or no longer, alive here (holes.c) */
    struct ranges transient; /* positions that the journal does not know: gone after a restart */
    struct page_return *returns;
};

struct segment {      /* a file with live pages */
    struct list link; /* b->dead_segments, when it has none; b->sparse_segments, when they are less than half of it */
    struct list pages_in; /* its pages */
    uint64_t number;
    uint64_t end;    /* of the last page that the core was told of */
    uint64_t weight; /* sum of page_weight */
    uint32_t pages;
    bool own;  /* for one page: nothing more comes */
    lsn_t lsn; /* to be durable before the file goes; 0: not known yet */
};

/* What few queues have. Made when it is needed, for as long as the queue lives. */
struct queue_extra {
    struct window window;
    uint64_t duplicates; /* dropped */
    struct retry retry;
};

#define SEGMENT_WEIGHT 4u

/* Bytes on disk times SEGMENT_WEIGHT, by how much of the page is alive: all, half of it, or a quarter and less. */
static inline uint64_t page_weight(const struct page *page)
{
    return (uint64_t)page->where.len * (page->live > page->count / 2   ? SEGMENT_WEIGHT
                                        : page->live > page->count / 4 ? SEGMENT_WEIGHT / 2
                                                                       : SEGMENT_WEIGHT / 4);
}

/* What a queue has while anything goes on in it: messages, consumers, timers. A queue at rest shares busy_idle, which says
 * "nothing" to whoever reads and cannot be written; who is about to change something calls queue_rouse first (busy.c). */
struct busy {
    struct queue *queue;
    struct peer *owner; /* exclusive queues */
    struct lane *lanes; /* max_priority + 1; &lane when there is one */
    struct lane lane;
    struct entry *requeue_hint;
    struct list unacked;
    struct list pages;
    uint64_t memory;         /* of waiting messages, what paging may free */
    uint64_t recovered_mark; /* positions below it may have been delivered before the last start */
    uint64_t ready_count, ready_bytes, unacked_count, unacked_bytes;
    uint64_t mark_safe;     /* the mark that is known to be durable */
    uint64_t captured_from; /* first position of the transaction that is being committed; 0: none */
    lsn_t mark_lsn;
    struct list consumers, ready;       /* all; those that can take a message, by priority */
    uint32_t consumer_count, selecting; /* of them have a selector */
    struct consumer *exclusive_consumer, *active;
    struct list pump_link, removal_link, owner_link, fat_link, hungry_link, resting_link;
    struct list getters; /* struct getter: basic.get that wait for a page */
    struct ranges removed;
    struct timer ttl_timer, expires_timer;
    mono_t used_at; /* while it expires without use */
};

extern const struct busy busy_idle;

/* One allocation with name and arguments; some 200 bytes when idle (bench/queue_memory). */
struct queue {
    struct object object;
    struct vhost *vhost;
    struct slice name, args; /* in bytes */
    uint64_t id;
    const struct queue_rules *rules; /* shared: rules.c */
    struct policy *policy, *operator_policy;
    struct busy *busy; /* &busy_idle: at rest */
    uint64_t next_position;
    uint64_t delivered_upto; /* positions below it may have been delivered */
    uint64_t mark;           /* journalled delivered mark; delivery at or beyond it needs a new MARK first */
    uint64_t route_mark;
    struct list targets;         /* bindings to this queue */
    struct replay_queue *replay; /* during recovery only, and when it has messages */
    struct stream *stream;       /* what it holds, when it is a stream; then it has no entries */
    struct queue_extra *extra;   /* NULL until it is needed */
    bool durable : 1, auto_delete : 1, exclusive : 1, had_consumer : 1, hidden : 1, deleting : 1;
    bool pumping : 1;  /* on b->pump */
    bool awaiting : 1; /* on b->await */
    bool removal_dirty : 1;
    bool fat : 1, thin : 1; /* on b->fat, b->thin */
    bool fed : 1;           /* bound to a stream: its feeder wants to know when it has room */
    bool args_own : 1;      /* they have been changed: a block of their own */
    bool mqtt : 1;          /* of an MQTT client or share group, and goes with it */
    bool rules_stale : 1;   /* no memory for those of a policy that has changed: tried again */
    uint8_t bytes[];
};

static inline bool queue_is_busy(const struct queue *q)
{
    return q->busy != &busy_idle;
}

/* ---- clients ---- */

struct consumer {
    struct channel *channel;
    struct queue *queue; /* NULL for the direct reply-to pseudo consumer */
    struct slice tag, args;
    uint32_t id;
    int32_t priority;
    uint32_t prefetch, unacked;
    bool no_ack, exclusive, ready;
    struct follower *follower;   /* of a stream */
    struct selector *selector;   /* NULL: takes every message */
    const struct entry *scanned; /* with a selector: the last that it has not wanted; NULL: none */
    struct list queue_link, ready_link /* queue->ready or channel->parked */, channel_link;
    struct timer timeout;
};

struct unacked {
    uint64_t tag;
    struct entry *entry;       /* NULL: a hole */
    struct consumer *consumer; /* NULL: basic.get, or cancelled since */
    mono_t since;
    bool counted; /* against the channel's global prefetch */
};

/* Unacknowledged deliveries of a channel by ascending tag, with holes squeezed out when they are half. */
struct unacked_list {
    struct unacked *items;
    uint32_t first, end, max, live;
};

enum channel_mode { MODE_PLAIN, MODE_CONFIRM, MODE_TX };

struct tx_publish {
    struct list link;
    struct msg *msg;
    uint64_t *queue_ids;
    uint32_t queue_count;
    uint32_t origin;
    int64_t delay_ms; /* above 0: into the delays */
    /* prepared by the commit */
    size_t need;               /* bytes of its step, log_captured_bytes */
    struct answer *unroutable; /* of its return */
    struct delayed *delayed;
    struct entry *entry; /* of the delays */
};

enum tx_fate { FATE_BACK, FATE_GONE, FATE_DEAD };

struct tx_ack {
    struct unacked item;
    bool ack;
    enum back back;
    /* prepared by the commit */
    enum tx_fate fate;
    enum reason reason;
    size_t need;
    struct dead_letter *dead;
};

struct tx_needs { /* of a commit, before it changes anything */
    size_t bytes;
    uint32_t keys;
    unsigned records;          /* most of one step */
    uint32_t entries, targets; /* sum; most of one step */
};

struct channel {
    struct peer *peer;
    uint16_t number;
    bool failed;
    uint32_t waiting_gets;               /* basic.get that wait for a page */
    enum channel_mode mode, mode_before; /* before: a transaction that is for once */
    uint64_t next_tag, publish_seq;
    struct unacked_list unacked;
    uint32_t prefetch, global_prefetch, global_unacked;
    uint32_t releasing; /* MQTT: acknowledged, but they count against the global prefetch until they are completed */
    uint32_t next_consumer, consumer_count;
    struct list consumers, parked;
    struct slice last_queue; /* name of the queue declared last; owned */
    struct consumer *reply_consumer;
    char reply_token[32];
    /* transaction */
    struct list tx_publishes;
    struct tx_ack *tx_acks;
    uint32_t tx_ack_count, tx_ack_max;
    uint64_t tx_bytes;
    /* caches of the publish path, valid while the broker's topology generation stands */
    struct exchange *cached_exchange;
    uint64_t cached_gen;
    struct slice cached_name;
    uint8_t cached_bytes[NAME_MAX_BYTES];
};

enum peer_state { PEER_NEW, PEER_LOGGED_IN, PEER_ENTERED, PEER_FAILED };

struct peer {
    struct port_side *side;
    uint32_t number;
    enum peer_state state;
    uint32_t flags; /* enum ask_flag of SESSION_OPEN */
    bool publisher, blocked, lost, kicked;
    struct user *user;
    struct vhost *vhost;
    int64_t credit;
    struct channel **channels;
    uint32_t channel_max, channel_count;
    struct list owned;                   /* exclusive queues */
    struct list fetches;                 /* struct fetch: not answered yet */
    struct fetch_session *fetch_session; /* NULL: none */
    struct list sharers;                 /* struct sharer: has acquired records for a share group */
    struct list held;                    /* struct held: requests that wait for a group */
    struct list link;                    /* b->peers */
    uint64_t removal_epoch;              /* == b->removal_epoch: has acks that are not journalled yet */
    uint64_t login_ticket;
    uint32_t login_origin;
    struct slice address, protocol; /* owned, one block */
    struct mqtt_client *mqtt;
    struct queue *produces; /* the stream that it wrote to last, which it may while produces_gen == topology_gen */
    uint64_t produces_gen;
};

struct port_side {
    struct broker *broker;
    struct port port;
    unsigned index;
    struct peer **peers;
    uint32_t peer_max;
    struct effect *overflow;
    uint32_t overflow_count, overflow_first, overflow_max;
    bool fanned_out; /* what overflows comes from a fan-out, perhaps of others' publishes */
    bool lost;       /* a peer of this port missed an effect for want of memory and is to be kicked */
};

struct login; /* session.c */

/* ---- compaction ---- */

enum compact_phase { COMPACT_IDLE, COMPACT_CATALOGUE, COMPACT_STREAMS, COMPACT_MESSAGES, COMPACT_SYNC };

struct compact {
    enum compact_phase phase;
    lsn_t first, catalogue_end, ckpt;
    struct list *cursor; /* next object of the catalogue */
    struct queue *queue; /* being written */
    struct list *key;    /* its next key of a message accepted, while these are written; NULL: they are */
    struct page *page;   /* then its next page, while pages are written */
    unsigned list;       /* then its lists: a lane's front, its entries, the next lane …, unacked */
    struct entry *entry; /* next entry; NULL: list not begun */
    struct list *group;  /* at last: next group … */
    struct list *share;  /* … then its next share; NULL: not begun */
    struct list *client; /* then next MQTT client, then what is retained */
    struct list *offset; /* … and its next offset; NULL: the group itself */
    uint16_t gen;
    uint64_t body_gen;
    uint64_t live_before, overhead; /* bytes of the journal before the last trim; of a snapshot without its messages */
    uint64_t written;               /* about: of the snapshot under way */
    uint64_t commands;
    struct timer retry;     /* no memory, or not so fast: goes on when it fires */
    mono_t next_slice;      /* not before, while there is other work */
    uint64_t commands_seen; /* `commands` at the last look */
    mono_t pause;           /* how long the next such rest is */
    bool syncing;           /* what streams got before the catalogue's end is being synced */
    bool torn;              /* an entry that moved could not be written: no checkpoint, begin again */
};

/* One queue that a message goes to, as journalled. Of a stream: position is the offset, deadline the timestamp, and returns
 * the partition. */
struct target {
    struct queue *queue;
    uint64_t position;
    wall_t deadline;
    uint32_t returns;
    bool redelivered;
    bool keyed; /* the queue takes the message's key */
};

struct buffer { /* a growing byte buffer with a maximum */
    uint8_t *bytes;
    size_t len, max, limit;
};

struct keyed_pass { /* stream_keyed.c: the compaction that is under way */
    bool busy;
    uint64_t stream; /* id of its queue */
    uint32_t partition;
    uint64_t until, limit; /* of the keys that are known; of all that could be */
    uint64_t at;           /* files from here on are still to be rewritten */
};

struct stream_state {                    /* stream.c */
    struct list gathering;               /* partitions that got records in this tick */
    struct list writable;                /* partitions with a chunk to be written and none on its way */
    struct list held;                    /* the same, but it may grow first */
    struct list dirty;                   /* partitions that got records since they were synced */
    struct list syncing;                 /* those that the compaction waits for */
    struct list idle;                    /* chunks that nobody reads */
    struct list adrift;                  /* chunks whose partition went */
    struct list drops;                   /* files to go when that is durable */
    struct list feeding;                 /* cursors that may have something to feed */
    uint64_t gathered;                   /* records of this tick, or that found no memory */
    uint64_t pending_bytes;              /* accepted and not in a file yet */
    uint64_t unsynced_bytes;             /* accepted since the last sync began */
    uint64_t cached_bytes;               /* of READY chunks */
    uint32_t jobs;                       /* on their way */
    struct list leaving;                 /* followers that were given up while a FIND is on its way */
    struct list hungry;                  /* streams of followers that found no place or no memory for a read */
    bool writing_paused, reading_paused; /* a job has failed: not before the timer */
    bool broken;                         /* a sync has failed: nothing is trimmed any more */
    struct timer timer;
    struct timer held_timer;
    struct entry token; /* ENTRY_STREAM */
    struct list keyed;  /* partitions that may want a compaction, by when they are looked at */
    struct timer keyed_timer;
    struct keyed_pass pass;
    struct list fetched;       /* partitions where a fetch waits, and more has been written than it was told of */
    struct list fetches_ready; /* fetches that wait for their job's turn */
    uint32_t fetch_jobs;       /* on their way */
    uint32_t fetch_sessions;   /* of all peers */
    uint32_t fetch_session_id; /* the last that was given */
    lsn_t fetched_durable;     /* when `fetched` was looked through */
    bool fetched_news;         /* it has grown since */
};

struct broker {
    struct broker_options options;
    struct slab_heap heap;
    struct pool entries, consumers, bindings, keys;
    struct wheel wheel;
    mono_t now;
    wall_t wall;
    lsn_t appended, durable;
    uint64_t appended_bytes; /* in this run */
    uint64_t seed;

    struct port_side *sides; /* options.ports + 1 */
    unsigned side_count, turn;

    struct list catalogue;
    struct map vhosts, users, queues_by_id;
    struct list peers;
    struct map reply_tokens; /* token → consumer */
    uint64_t topology_gen;   /* grows whenever a name may resolve or be allowed differently */
    uint64_t route_gen;
    struct route route;     /* scratch of the publish path */
    struct target *targets; /* the same */
    uint32_t target_max;
    bool stalled; /* a delivery found its port full */

    struct list pump, await; /* queues with something to deliver; waiting for durable */
    struct list removals;    /* queues with removed ranges to be journalled */
    uint64_t removal_epoch;
    struct list resting; /* queues that may have nothing to do any more */
    struct timer rest_timer, rules_timer;
    struct map rules;    /* struct shared_rules, by content */
    struct list delayed; /* struct delayed: messages that wait for their time */
    struct list dead;    /* struct dead_letter waiting to be routed */
    uint64_t dead_count;

    uint64_t next_queue_id, next_msg_id, next_ticket;
    uint64_t next_producer_id, producer_ids_end; /* the journal knows that those below the end are taken … */
    lsn_t producer_ids_lsn;                      /* … with this record */
    struct map txns;                             /* producer id → struct txn */
    struct map staging;                          /* groups that have offsets in ongoing transactions: txn_offsets.c */
    unsigned alarms;
    bool recovering, stopping, store_was_new;
    struct drain { /* who asked for the stop, while a last compaction runs */
        struct port_side *side;
        uint32_t session, origin;
    } drain;

    size_t reserved_bytes; /* of this tick's reservation in the journal: what is left */
    unsigned reserved_records;
    struct buffer scratch; /* record heads */
    struct buffer capture; /* sub-records of the transaction being committed */
    size_t promised;       /* room in it that belongs to the steps to come */
    bool capturing;
    uint32_t piece_count; /* replay */
    struct buffer pieces;

    struct compact compact;
    struct login *login;
    uint8_t secret[32]; /* of the store: credentials.c */
    bool has_secret;    /* the journal knows it */
    unsigned iterations;
    uint64_t iterations_gen, users_gen; /* users_gen grows with each change of a user; what iterations was found at */
    struct effect unsaid;               /* written for a peer that could not be told, never read */
    struct map *shared;                 /* replay: message id → msg of the snapshot */
    struct broker_totals totals;
    uint64_t journalled_bytes; /* of live entries: what a compaction would write */

    /* paging.c */
    uint64_t ready_memory;   /* of all queues' waiting messages */
    uint64_t paged;          /* messages that are on disk only */
    size_t fat_bytes;        /* what a queue holds that is paged by itself */
    uint64_t front_memory;   /* of it: what is in fronts */
    uint64_t writing_memory; /* of it, or a little more: what goes when the pages on their way are written */
    struct list fat;         /* queues that hold enough of it for a page */
    struct list thin;        /* the others that hold some, in turn */
    uint32_t thin_count;
    uint32_t thin_vain;          /* so many of them in a row had nothing to write … */
    uint64_t thin_memory;        /* … while ready_memory was this */
    struct list hungry;          /* queues that want to read when there is room for jobs */
    struct list adrift;          /* pages whose queue went while their job was on its way */
    struct map segments;         /* number → struct segment */
    struct list dead_segments;   /* without pages: to be dropped when that is durable */
    struct list sparse_segments; /* mostly dead: their pages move */
    struct list moves;           /* struct move */
    uint32_t move_count;
    uint64_t pages_moved;
    mono_t move_due; /* when as much as was moved may have been moved, by their rate */
    struct timer move_timer;
    uint64_t newest_segment;
    uint32_t page_writes, page_reads;    /* jobs on their way */
    bool feeding;                        /* those on hungry have their turn */
    bool writing_paused, reading_paused; /* a job has failed: not before the timer */
    bool
        removal_lost; /* a removal could not be journalled: no segment goes until a compaction has written what is true */
    bool removal_lost_before; /* the same, before the compaction that is running began */
    struct timer paging_timer;

    struct stream_state streams;

    struct map groups; /* struct group */
    struct list group_list;
    struct map group_rules; /* struct group_rules: group_config.c */
    struct list group_rules_list;
    uint64_t group_bytes; /* of all groups, members and offsets */

    struct mqtt_state mqtt;
};

#define ENTRY_COST sizeof(struct entry)
static inline size_t entry_memory(const struct entry *e)
{
    return msg_size(e->msg) + ENTRY_COST;
}

/* broker.c */
uint64_t random_u64(struct broker *b);
void random_name(struct broker *b, const char *prefix, char *ret, size_t len); /* prefix + 22 characters */
MUST_USE bool buffer_reserve(struct buffer *buffer, size_t more);
void buffer_put(struct buffer *buffer, const void *bytes, size_t len); /* room is reserved */
void buffer_fini(struct buffer *buffer);
void object_add(struct broker *b, struct object *object, enum object_kind kind, bool journalled);
void object_remove(struct broker *b, struct object *object);
MUST_USE bool slice_keep(struct slice *ret, struct slice from); /* owned copy; empty needs no memory */
void slice_drop(struct slice *owned);
struct peer *peer_of(struct broker *b, struct port_side *side, uint32_t number);
struct channel *channel_of(struct peer *peer, uint16_t number);

/* effects.c */
struct effect *effect_push(struct broker *b, struct peer *peer, enum effect_type type, uint16_t channel);
struct effect *effect_slot(struct port_side *side, bool *ret_overflow); /* for the port itself; NULL: no memory */
void effect_drop(struct broker *b, struct effect *e);                   /* frees what belongs to it */
void effect_flush(struct port_side *side);
bool port_has_room(struct port_side *side); /* for deliveries */
MUST_USE struct answer *answer_new(struct slice text, struct slice name, struct slice fields);
void answer_ok(struct broker *b, struct peer *peer, const struct command *c, lsn_t lsn, struct slice name,
               uint64_t number, uint64_t number2);
/* Reports and fails the channel (soft codes) or the peer (hard codes). */
void fail(struct broker *b, struct peer *peer, uint16_t channel, uint32_t origin, enum error_code code,
          const char *format, ...) __attribute__((format(printf, 6, 7)));
void kick(struct broker *b, struct peer *peer, const char *text);
void kick_with(struct broker *b, struct peer *peer, enum error_code code, const char *text);
void no_memory(struct broker *b, struct peer *peer, uint16_t channel, uint32_t origin);

/* access.c */
bool authorise(struct broker *b, struct user *user, struct vhost *vhost, enum verb verb, struct slice name);
bool user_administers(const struct user *user); /* it has the tag "administrator" */
bool authorise_topic(struct broker *b, struct user *user, struct exchange *x, enum verb verb, struct slice key);
/* authorise, and the refusal when it says no. kind: "queue", "exchange". */
bool allowed(struct broker *b, struct peer *peer, const struct command *c, enum verb verb, const char *kind,
             struct slice name);
bool may_enter(struct user *user, struct vhost *vhost);
struct user *user_find(struct broker *b, struct slice name);
MUST_USE bool user_put(struct broker *b, struct slice name, struct slice verifier, struct slice tags, bool journalled);
void user_delete(struct broker *b, struct user *user);
MUST_USE bool permission_put(struct broker *b, struct user *user, struct vhost *vhost, struct slice configure,
                             struct slice write, struct slice read, char *text, size_t text_len);
MUST_USE bool topic_permission_put(struct broker *b, struct user *user, struct vhost *vhost, struct slice exchange,
                                   struct slice write, struct slice read, char *text, size_t text_len);
struct permission *permission_find(struct user *user, struct vhost *vhost, const struct slice *topic_exchange);
void permission_delete(struct broker *b, struct permission *permission);
MUST_USE bool pattern_make(struct pattern *ret, struct slice text, char *error, size_t error_len);
MUST_USE bool pattern_make_whole(struct pattern *ret, struct slice text); /* one that has to match the whole subject */
void pattern_drop(struct pattern *pattern);
bool pattern_matches(const struct pattern *pattern, struct slice subject);

/* vhost.c (with policies) */
struct vhost *vhost_find(struct broker *b, struct slice name);
MUST_USE struct vhost *vhost_put(struct broker *b, struct slice name, struct slice default_queue_type);
void vhost_delete(struct broker *b, struct vhost *vhost);
MUST_USE bool policy_put(struct broker *b, struct vhost *vhost, struct slice name, struct slice pattern,
                         enum apply_to apply_to, int64_t priority, struct slice definition, bool operator_policy,
                         char *text, size_t text_len);
struct policy *policy_find(struct vhost *vhost, struct slice name, bool operator_policy);
void policy_delete(struct broker *b, struct policy *policy);
void policy_find_queue(struct queue *q); /* which policies it has; its rules are as they were */
void policy_apply_queue(struct broker *b, struct queue *q);
void policy_apply_exchange(struct broker *b, struct exchange *x);
bool apply_to_parse(struct slice text, enum apply_to *ret);
const char *apply_to_name(enum apply_to apply_to);

/* args.c */
bool queue_type_has(enum queue_type type, const char *key); /* an argument that it takes */
const char *queue_type_module(enum queue_type type);        /* what RabbitMQ calls it in error texts */
MUST_USE bool queue_args_check(struct slice args, struct slice queue, struct slice vhost, struct queue_rules *ret,
                               char *text, size_t text_len);
void queue_rules_resolve(const struct queue *q, struct queue_rules *ret); /* lends of its arguments and policies */
MUST_USE bool args_equivalent(const char *what, struct slice name, struct slice vhost, struct slice asked,
                              struct slice current, const char *const *keys, char *text, size_t text_len);
extern const char *const queue_arg_keys[];
extern const char *const exchange_arg_keys[];

/* rules.c: shared rules */
void rules_init(struct broker *b);
void rules_fini(struct broker *b);
MUST_USE const struct queue_rules *rules_share(struct broker *b, const struct queue_rules *rules); /* NULL: no memory */
void rules_drop(struct broker *b, const struct queue_rules **rules);                               /* NULL is nothing */

/* exchange.c */
struct exchange *exchange_find(struct vhost *vhost, struct slice name);
const struct exchange_type *exchange_type_find(struct slice name);
const struct exchange_type *exchange_type_for_clients(struct slice name); /* that somebody may declare; NULL */
MUST_USE struct exchange *exchange_make(struct broker *b, struct vhost *vhost, struct slice name,
                                        const struct exchange_type *type, bool delayed, bool durable, bool auto_delete,
                                        bool internal, struct slice args);
void exchange_delete(struct broker *b, struct exchange *x);
MUST_USE bool binding_make(struct broker *b, struct exchange *source, struct queue *queue, struct exchange *exchange,
                           struct slice key, struct slice args, struct binding **ret_new); /* NULL: it was there */
/* False: no memory to look for it. NULL: it is not there. */
MUST_USE bool binding_find(struct vhost *vhost, struct exchange *source, struct queue *queue, struct exchange *exchange,
                           struct slice key, struct slice args, struct binding **ret);
/* may_delete: an auto-delete source that lost its last binding goes too. */
void binding_delete(struct broker *b, struct binding *binding, bool may_delete);
bool exchange_make_defaults(struct broker *b, struct vhost *vhost);

/* route.c */
MUST_USE bool route_message(struct broker *b, struct exchange *x, const struct msg *msg, struct slice headers,
                            struct route *route);
bool route_add(struct broker *b, struct route *route, struct queue *q);
void route_target(struct broker *b, struct route *route, struct binding *binding);
void route_fini(struct route *route);

/* queue.c */
struct queue *queue_find(struct vhost *vhost, struct slice name);
MUST_USE struct queue *queue_make(struct broker *b, struct vhost *vhost, struct slice name, bool durable,
                                  bool exclusive, bool auto_delete, struct slice args, struct peer *owner, uint64_t id);
/* The same with its record in the journal: nobody has its name. owner: it is exclusive. NULL: no memory, or no room. */
MUST_USE struct queue *queue_create(struct broker *b, struct vhost *vhost, struct slice name, uint32_t flags,
                                    struct slice args, struct peer *owner, lsn_t *ret_lsn);
void queue_delete(struct broker *b, struct queue *q);
/* The same in two halves, for an answer between them. log_object_reserve has said yes. */
lsn_t queue_end_begin(struct broker *b, struct queue *q);
void queue_end_finish(struct broker *b, struct queue *q);
uint64_t queue_purge(struct broker *b, struct queue *q);
void queue_used(struct broker *b, struct queue *q);
void queue_expires(void *arg, struct timer *timer); /* fires in a queue's expires_timer */
void queue_rules_changed(struct broker *b, struct queue *q);
MUST_USE bool queue_rules_retry(struct broker *b); /* those for which there was no memory */
bool queue_locked(const struct queue *q, const struct peer *peer);
/* Other arguments from now on; the block passes to the queue. They were checked, and are in the journal. */
void queue_args_replace(struct broker *b, struct queue *q, struct slice *owned);
MUST_USE bool queue_extra_make(struct queue *q); /* if it is not there. False: no memory */
void fail_locked(struct broker *b, struct peer *peer, const struct command *c, struct slice queue);

/* busy.c */
void busy_init(struct broker *b);
void busy_recovered(struct broker *b);
/* The queue is busy afterwards, until a timer finds that it rests: what a command rouses is busy to its end. */
MUST_USE bool queue_rouse_now(struct broker *b, struct queue *q);
static inline bool queue_rouse(struct broker *b, struct queue *q)
{
    return queue_is_busy(q) || queue_rouse_now(b, q);
}
static inline bool queues_rouse(struct broker *b, const struct route *route)
{
    for (uint32_t i = 0; i < route->count; i++)
        if (!queue_rouse(b, route->queues[i]))
            return false;
    return true;
}
void queue_calmed_now(struct broker *b, struct queue *q);
static inline uint64_t queue_delayed(const struct queue *q) /* messages that wait for their retry */
{
    return q->extra ? q->extra->retry.count : 0;
}
static inline void queue_calmed(struct broker *b, struct queue *q) /* something ended: perhaps nothing is left to do */
{
    const struct busy *w = q->busy;
    if ((w->ready_count | w->unacked_count | w->consumer_count | queue_delayed(q)) == 0)
        queue_calmed_now(b, q);
}
void queue_busy_end(struct broker *b, struct queue *q);
void busy_check(const struct queue *q);

/* backlog.c: entries in a queue */
void backlog_init(struct busy *busy);
struct entry *backlog_append(struct broker *b, struct queue *q, struct msg *msg, uint64_t position, lsn_t lsn,
                             wall_t deadline, bool journalled);
struct entry *backlog_head(struct queue *q);
void backlog_take(struct broker *b, struct entry *entry);    /* lane → unacked list */
void backlog_requeue(struct broker *b, struct entry *entry); /* unacked or delayed → lane, in its place */
void backlog_leave(struct broker *b, struct entry *entry);   /* whatever list it is in */
/* The entry leaves the queue for good: its removal is journalled (not for REASON_MOVED) and it is freed. */
void backlog_remove(struct broker *b, struct entry *entry, enum reason reason);
void backlog_free(struct broker *b, struct entry *entry);
void backlog_removed(struct broker *b, struct queue *q, uint64_t first, uint64_t last);
void backlog_flush_removals(struct broker *b);
void backlog_limit(struct broker *b, struct queue *q); /* drop-head */
bool backlog_would_overflow(struct queue *q, const struct msg *msg);
void backlog_expire(struct broker *b, struct queue *q);
void backlog_arm(struct broker *b, struct queue *q);
wall_t backlog_deadline(const struct broker *b, const struct queue *q, const struct msg *msg);
static inline bool backlog_journals(const struct queue *q, const struct msg *msg)
{
    return q->object.journalled && ((msg->flags & MSG_PERSISTENT) || q->rules->type == QUEUE_QUORUM);
}

/* The first waiting message of a lane, when it is in memory. */
struct entry *lane_first(const struct lane *lane);
unsigned lane_count(const struct queue *q);
struct list *lane_list_of(struct lane *lane, const struct entry *e); /* front or entries */
/* An entry joins or leaves the memory that paging may free. */
void backlog_memory(struct broker *b, struct entry *e, bool joins);
void backlog_want(struct broker *b, struct queue *q); /* the head is on disk: read it */

/* select.c */
#define SELECTOR_ARG "x-selector"
#define SELECTING_MAX 256u /* consumers of one queue that have a selector */
struct selector;
enum selector_found { SELECTOR_NONE, SELECTOR_OK, SELECTOR_WRONG, SELECTOR_NO_MEMORY };
enum selector_found selector_of(struct slice args, struct selector **ret, char *why, size_t why_len);
void selector_free(struct selector **s);
bool selector_takes(const struct selector *s, const struct msg *msg);
/* The next message that the consumer may have; NULL: there is none in memory, or *looks has run out. */
struct entry *selected_next(struct broker *b, struct consumer *consumer, unsigned *looks);
void selecting_forget(struct queue *q, const struct entry *e);   /* it is about to leave the lane's memory */
void selecting_returned(struct queue *q, const struct entry *e); /* it has come into it, perhaps before others */
/* The entry leaves the memory of its lane: nobody may point at it any more. */
static inline void lane_forgets(struct queue *q, const struct entry *e)
{
    if (q->busy->requeue_hint == e)
        q->busy->requeue_hint = NULL;
    if (q->busy->selecting)
        selecting_forget(q, e);
}

/* paging.c */
void paging_init(struct broker *b);
void paging_fini(struct broker *b);
bool paging_turn(struct broker *b); /* once a tick: writes pages, drops segments. True: work is left */
void paging_disk_full(struct broker *b);
bool paging_overloaded(const struct broker *b);        /* publishers are faster than the disk: take no commands */
void paging_listed(struct broker *b, struct queue *q); /* into the list where it belongs by what it holds */
void paging_want(struct broker *b, struct queue *q, struct lane *lane); /* read ahead, when the front is short */
void paging_left(struct broker *b, struct lane *lane, struct entry *e); /* before an entry leaves a lane with pages */
void paging_entry_gone(struct broker *b, struct entry *e);         /* the message of a page dies, or leaves the page */
void paging_drop(struct broker *b, struct queue *q, bool journal); /* all pages and what waits in memory behind them */
bool paging_is_damaged(const struct queue *q);                     /* its next message cannot be read */
wall_t paging_deadline(const struct lane *lane); /* of the first message, when that is not in memory; WALL_NEVER */
struct page *page_new(struct queue *q, unsigned lane); /* replay.c makes them too */
void page_free(struct broker *b, struct page *page);

/* holes.c */
MUST_USE bool page_hole(struct page *page, uint64_t position, uint64_t count);
bool page_has(const struct page *page, uint64_t position);
void page_pack(struct page *page);            /* its holes take little memory from now on */
MUST_USE bool page_unpack(struct page *page); /* and are quickly found and changed */
void page_holes_put(struct writer *w, const struct page *page);
/* The next run of positions that are alive, from *position on. False: there is none. */
bool page_alive_from(const struct page *page, uint64_t *position, uint64_t *ret_last);
void paging_settle_entry(struct broker *b, struct lane *lane, struct entry *e);
MUST_USE bool page_settle(struct broker *b,
                          struct page *page); /* a page of the replay takes its place; last come highest */

/* between paging.c and thin.c */
void front_grows(struct broker *b, struct lane *lane, struct entry *e);   /* the entry stands in the front */
void front_shrinks(struct broker *b, struct lane *lane, struct entry *e); /* it leaves */
bool paging_may_write(struct broker *b);
bool paging_has_room(struct broker *b);                   /* for a job */
bool paging_send(struct broker *b, struct page_job *job); /* false: no room, the job stays the caller's */
void paging_pause(struct broker *b, bool *what);          /* a job failed: b->reading_paused or writing_paused */
size_t paging_page_bytes(const struct broker *b);
bool page_is_hole(const struct page *page, uint64_t position);
MUST_USE bool page_reserve(struct page *page); /* holes have room, whatever goes */
uint32_t page_returns_of(const struct page *page, const struct page_item *item);
#define PAGE_JOBS_MAX 400u /* on their way: writes, reads, moves */

/* segment.c */
void segment_lists_init(struct broker *b);
void segment_lists_fini(struct broker *b);
MUST_USE bool segment_join(struct broker *b, struct page *page); /* page->where is set */
void segment_leave(struct broker *b, struct page *page);
void segment_weighs(struct broker *b, const struct page *page, uint64_t before); /* its page_weight has changed */
void segment_unused(struct broker *b, const struct page_where *where);
void segment_reconsider(struct broker *b, uint64_t number);
void dead_segments_drop(
    struct broker *b); /* S3: files that nobody needs go when the removal of their last message is durable */

/* move.c */
void moves_init(struct broker *b);
void moves_fini(struct broker *b);
void moves_turn(struct broker *b);
void moves_merge(struct broker *b, const struct lane *lane, struct page *page); /* the page has just been written */
void moves_forget(struct broker *b, struct page *page);                         /* it goes */
bool move_is_ticket(uint64_t ticket);
void move_answered(struct broker *b, struct page_job *job);
bool page_write(struct broker *b, struct queue *q, unsigned lane,
                bool thin);                /* false: nothing to write, or no memory */
size_t thin_least(const struct broker *b); /* memory that a page is worth */
bool thin_turn(struct broker *b);
bool queue_is_awaited(const struct queue *q); /* somebody would take its next message now */

bool get_later(struct broker *b, struct channel *ch, struct queue *q, uint32_t origin, bool no_ack);
void getters_forget(struct broker *b, struct channel *ch);
void getters_end(struct broker *b, struct queue *q);

/* stream.c, stream_read.c, stream_feed.c */
void streams_init(struct broker *b);
void streams_fini(struct broker *b);
/* After a replay, before anything is appended: what came from the journal is durable, whatever is appended with it in a tick. */
void streams_recovered(struct broker *b);
bool streams_turn(struct broker *b); /* once a tick: records to chunks, chunks to the store; true: more to do */
bool streams_overloaded(const struct broker *b); /* publishers are faster than the files: take no commands */
MUST_USE bool stream_make(struct broker *b, struct queue *q); /* its rules are known */
void stream_free(struct broker *b, struct queue *q);
MUST_USE bool age_parse(struct slice text, int64_t *ret_ms); /* "7D", "12h": a number and Y, M, D, h, m or s */
void stream_recovered(struct broker *b, struct queue *q);
void stream_rules_changed(struct broker *b, struct queue *q);
void streams_changed(struct broker *b); /* tells the loops: port.streams_changed */
void stream_target(struct broker *b, struct queue *q, const struct msg *msg, struct target *ret); /* its next offset */
void stream_append(struct broker *b, const struct target *t, struct msg *msg); /* room in b->entries is reserved */
uint64_t stream_count(const struct queue *q);                                  /* records that it keeps */
uint64_t stream_bytes(const struct queue *q);                                  /* of its files */
void streams_sync_begin(struct broker *b);                                     /* everything appended so far … */
bool streams_synced(struct broker *b); /* … is in files that survive a power cut */
MUST_USE bool stream_snapshot(struct broker *b, struct queue *q);
MUST_USE bool stream_hold(struct broker *b, struct queue *q, const struct target *t, struct msg *msg); /* replay.c */
MUST_USE bool stream_settle(struct broker *b, struct queue *q, char *why, size_t why_len);
MUST_USE bool replay_stream(struct broker *b, struct reader *r);
MUST_USE bool replay_stream_trim(struct broker *b, struct reader *r);
MUST_USE bool replay_rewritten(struct broker *b, struct reader *r);
MUST_USE bool replay_cursor(struct broker *b, struct reader *r);
MUST_USE bool replay_batch(struct broker *b, struct reader *r);
MUST_USE bool replay_producers(struct broker *b, struct reader *r);
MUST_USE bool replay_isolation(struct broker *b, struct reader *r);
MUST_USE bool producer_ids_reserve(struct broker *b); /* there is one to give out, and the journal knows it */

/* txn.c */
void txns_init(struct broker *b);
void txns_fini(struct broker *b);
bool txn_expired(const struct broker *b, const struct object *object); /* nobody has used it for a week */
void txn_forget(struct broker *b, struct object *object);
MUST_USE bool replay_queue_args(struct broker *b, struct reader *r);
void stream_pump(struct broker *b, struct queue *q, unsigned *budget);
bool stream_consume_allowed(struct broker *b, struct channel *ch, struct queue *q, struct command *c);
MUST_USE bool stream_consume(struct broker *b, struct consumer *consumer);
void stream_consumer_gone(struct broker *b, struct consumer *consumer);
/* May this be bound to a source? why: what is wrong. */
MUST_USE bool stream_bind_allowed(struct broker *b, const struct exchange *source, struct slice args,
                                  const struct queue *q, char *why, size_t why_len);
MUST_USE bool stream_bound(struct broker *b, struct binding *binding); /* before it is in any list; false: no memory */
void stream_source_gone(struct exchange *x);
void stream_unbound(struct broker *b, struct binding *binding);
unsigned stream_cursor_records(const struct exchange *source); /* that stream_log_cursor writes */
lsn_t stream_log_cursor(struct broker *b, const struct binding *binding);
void fetches_release(struct broker *b, struct peer *peer); /* nobody waits for them any more */
void feed_hungry_queue(struct broker *b, struct queue *q); /* it has room again */

/* group.c, group_journal.c */
void groups_init(struct broker *b);
void groups_fini(struct broker *b);
void groups_recovered(struct broker *b);
void groups_forget_peer(struct broker *b, struct peer *peer); /* its members stay until their sessions are over */
void shares_forget_peer(struct broker *b, struct peer *peer); /* what it has acquired is available again */
void shares_stream_gone(struct broker *b, struct stream *s);
MUST_USE bool replay_share(struct broker *b, struct reader *r);
MUST_USE bool replay_group_config(struct broker *b, struct reader *r);
void groups_vhost_gone(struct broker *b, struct vhost *vhost);
void groups_stream_gone(struct broker *b, struct stream *s);                    /* nobody's offsets are left in it */
MUST_USE bool groups_snapshot(struct broker *b, size_t *bytes, bool *ret_done); /* a slice; false: no memory */
void groups_check(struct broker *b);
MUST_USE bool replay_group(struct broker *b, struct reader *r);
MUST_USE bool replay_offsets(struct broker *b, struct reader *r);

/* publish.c */
enum enqueue_result { ENQUEUE_OK, ENQUEUE_REJECTED, ENQUEUE_NO_MEMORY };
/* Journals msg for the routed queues (removing `from` in the same record when given) and enqueues it. */
enum enqueue_result enqueue_routed(struct broker *b, struct msg *msg, const struct route *route, struct entry *from,
                                   lsn_t *ret_lsn);
/* What that needs, and more room in the journal for what goes with it. False: no memory. */
MUST_USE bool enqueue_reserve(struct broker *b, struct msg *msg, const struct route *route, size_t more,
                              unsigned records);
void publish_refused(struct broker *b, struct channel *ch, uint64_t seq, uint64_t bytes, enum nack_why why);
void publish_confirmed(struct broker *b, struct channel *ch, uint64_t seq, uint64_t bytes, lsn_t lsn);
struct slice msg_headers(const struct msg *msg); /* content of the header table, or empty */
/* The same message with other properties; refs 1. NULL: no memory. */
MUST_USE struct msg *msg_with_props(struct broker *b, const struct msg *msg, const struct amqp_props *props);
MUST_USE struct answer *return_answer(void);
void return_msg(struct broker *b, struct channel *ch, struct msg *msg, uint32_t origin, struct answer **answer);
MUST_USE bool targets_reserve(struct broker *b, uint32_t count); /* for enqueue_routed, as pool_reserve_many is */

/* deadletter.c */
/* The entry is in a lane or unacked. False: no memory, nothing has changed. */
bool dead_letter(struct broker *b, struct entry *entry, enum reason reason);
void dead_letter_msg(struct broker *b, struct queue *q, struct msg *msg,
                     enum reason reason);             /* never was in the queue */
bool dead_letter_run(struct broker *b, unsigned max); /* true: more is left */
/* It died in that queue before, and nobody rejected it: that is a cycle. */
bool dead_letter_came_round(const struct msg *msg, const struct queue *q);
void dead_letters_give_lsn(struct broker *b, lsn_t lsn);
/* For a transaction: makes everything that dead-lettering this unacknowledged entry needs, or adds it to needs. False: no
 * memory. NULL in ret: it has nowhere to go. */
MUST_USE bool dead_letter_prepare(struct broker *b, struct entry *entry, enum reason reason, struct tx_needs *needs,
                                  size_t *ret_need, struct dead_letter **ret);
void dead_letter_prepared(struct broker *b, struct dead_letter **d); /* needs are reserved; it cannot fail */
void dead_letter_discard(struct broker *b, struct dead_letter **d);

/* delay.c */
bool delay_publish(struct broker *b, struct exchange *x, struct msg *msg, int64_t delay_ms, lsn_t *ret_lsn);
/* The same in steps, for a transaction. Prepared: the vhost's delays are there and a struct delayed is made. */
MUST_USE struct delayed *delay_prepare(struct broker *b, struct vhost *vhost);
struct entry *delay_prepared(struct broker *b, struct exchange *x, struct msg *msg, int64_t delay_ms,
                             struct delayed **d);
bool delay_of(const struct msg *msg, int64_t *ret_ms);
bool delay_queue_make(struct broker *b, struct vhost *vhost, uint64_t id);
void delay_entry_recovered(struct broker *b, struct queue *q, struct entry *entry);
void delay_drop_all(struct broker *b, struct queue *q);

/* deliver.c */
void queue_schedule(struct broker *b, struct queue *q);
void pump_all(struct broker *b, unsigned budget);
void durable_advanced(struct broker *b);
void get_now(struct broker *b, struct channel *ch, struct queue *q, uint32_t origin, bool no_ack);
void consumer_remove(struct broker *b, struct consumer *consumer);
void consumers_unpark(struct broker *b, struct channel *ch);
void consumer_gone(struct broker *b, struct consumer *consumer); /* tell the client and remove */
bool queue_has_ready_consumer(struct broker *b, struct queue *q);
/* A consumer without a tag, which begins at once. NULL: no memory. */
MUST_USE struct consumer *consumer_start(struct broker *b, struct channel *ch, struct queue *q, uint32_t id,
                                         bool no_ack);
struct consumer *queue_next_ready(struct queue *q);  /* that can take a message; those that cannot are parked */
void queue_await(struct broker *b, struct queue *q); /* scheduled again when the durable lsn has moved */
bool consumer_can_take(const struct consumer *consumer);
void consumer_enlist(struct broker *b, struct consumer *consumer); /* ready, behind its equals */
uint64_t queue_appetite(struct queue *q, uint64_t most); /* messages that its consumers can take now, up to so many */
struct msg *msg_for_delivery(struct broker *b, struct queue *q, struct entry *entry); /* a reference; NULL: no memory */

/* channel.c */
void channel_release(struct broker *b, struct channel *ch); /* consumers, unacked, transaction; the channel stays */
void channel_free(struct broker *b, struct channel *ch);
MUST_USE bool unacked_reserve(struct unacked_list *list);
void unacked_push(struct unacked_list *list, struct unacked item);
struct unacked *unacked_find(struct unacked_list *list, uint64_t tag);
void unacked_drop(struct unacked_list *list, struct unacked *item);
void unacked_settled(struct channel *ch, const struct unacked *item); /* it counts against no prefetch any more */
void settle(struct broker *b, struct channel *ch, struct unacked item, bool ack, enum back back);

/* tx.c */
void tx_publish(struct broker *b, struct channel *ch, struct msg *msg, const struct route *route, int64_t delay_ms,
                uint32_t origin);
MUST_USE bool tx_ack(struct channel *ch, struct unacked item, bool ack, enum back back);
void tx_need(struct tx_needs *needs, const struct msg *msg, uint32_t targets, size_t *ret_need);
void tx_drop(struct broker *b, struct channel *ch, bool restore);

/* session.c */
/* credentials.c */
void secret_ready(struct broker *b); /* at the end of a start: there is one */
MUST_USE bool replay_secret(struct broker *b, struct reader *r);
void nobodys_keys(struct broker *b, enum scram_hash hash, struct slice name, struct scram_keys *ret);

MUST_USE bool login_init(struct broker *b);
void login_fini(struct broker *b);
void peer_release(struct broker *b, struct peer *peer); /* channels, owned queues; the peer stays */
void alarms_apply(struct broker *b, struct peer *peer);
void drain_answer(struct broker *b); /* to the CMD_DRAIN that waits for the last compaction, if any */

/* reply.c: direct reply-to */
#define REPLY_TO "amq.rabbitmq.reply-to"
bool reply_is_name(struct slice name);
bool reply_alive(struct broker *b, struct slice name);
bool reply_publish(struct broker *b, struct channel *ch, struct msg *msg, bool *ret_delivered);
struct msg *reply_rewrite(struct broker *b, struct channel *ch, struct msg *msg); /* NULL: failed and reported */
void reply_consume(struct broker *b, struct channel *ch, const struct command *c);
void reply_forget(struct broker *b, struct channel *ch);

/* replay.c */
void replay_queue_drop(struct broker *b, struct queue *q);
void replay_fini(struct broker *b); /* at its end, or when it failed */

/* records.c: writing the journal */
MUST_USE bool log_reserve(struct broker *b, size_t bytes, unsigned records);
MUST_USE bool log_scratch_reserve(
    struct broker *b); /* so that log_reserve of one record takes no memory of the core's */
lsn_t log_record(struct broker *b, const struct slice *parts, unsigned count); /* cuts oversize records into pieces */
MUST_USE bool log_capture_begin(struct broker *b, size_t bytes, unsigned records);
size_t log_captured_bytes(size_t bytes, unsigned records); /* what log_reserve of these takes of a capture */
lsn_t log_capture_end(struct broker *b);
lsn_t log_producer_ids(struct broker *b, uint64_t end);
lsn_t log_secret(struct broker *b);
lsn_t log_queue_ids(struct broker *b, uint64_t end);
lsn_t log_queue_args(struct broker *b, const struct queue *q, struct slice args); /* 0: no memory, or no room */
lsn_t log_object(struct broker *b, const struct object *object); /* *_PUT of any catalogue object; 0: not journalled */
lsn_t log_object_gone(struct broker *b, const struct object *object);
MUST_USE bool log_object_reserve(struct broker *b, const struct object *object);
size_t log_enqueue_bytes(const struct msg *msg, uint32_t targets);
lsn_t log_enqueue(struct broker *b, const struct msg *msg, const struct target *targets, uint32_t count,
                  const struct entry *from, bool snapshot, bool body);
lsn_t log_remove(struct broker *b, const struct queue *q, const struct ranges *ranges);
lsn_t log_page(struct broker *b, const struct page *page);
lsn_t log_stream_trim(struct broker *b, const struct queue *q, uint32_t partition, uint64_t start);
lsn_t log_return(struct broker *b, const struct queue *q, uint64_t position, uint32_t returns);
lsn_t log_retry(struct broker *b, const struct queue *q, uint64_t position, uint32_t returns, wall_t due);
void mark_cover(struct broker *b, struct queue *q, uint64_t position); /* journals a new mark when position needs one */
lsn_t log_mark(struct broker *b, const struct queue *q, uint64_t mark);
/* Some of the queue's keys from *at on, which becomes where to go on, or NULL. False: no memory, or no room. */
MUST_USE bool log_window(struct broker *b, const struct queue *q, struct list **at, size_t *ret_bytes);
lsn_t log_checkpoint(struct broker *b, lsn_t first);

/* compact.c */
void compact_init(struct broker *b);
bool compact_turn(struct broker *b); /* true: work is left */
void compact_start(struct broker *b);
bool compact_before_stop(struct broker *b); /* begun, because the next start would read a long journal for little */
void compact_moving(struct broker *b, struct entry *entry); /* before an entry changes lists */
void compact_object_removed(struct broker *b, struct object *object);
void compact_entry_removed(struct broker *b, struct entry *entry);
void compact_queue_removed(struct broker *b, struct queue *q);
void compact_queue_roused(struct broker *b, struct queue *q);
void compact_page_removed(struct broker *b, struct page *page);
void compact_share_removed(struct broker *b, struct list *share_link);
void compact_group_removed(struct broker *b, struct list *group_link);
void compact_offset_removed(struct broker *b, struct list *offset_link);
void compact_key_removed(struct broker *b, struct key *key);
void compact_client_removed(struct broker *b, struct list *client_link);
void compact_window_dropped(struct broker *b, struct queue *q);
void compact_lists_changed(struct broker *b, struct queue *q); /* a lane gets, or loses, its front */

/* admin.c */
void do_admin_op(struct broker *b, struct peer *peer, const struct command *c);

/* commands: one handler per row of commands.def */
#define COMMAND(name, handler, needs_channel, carries)                                                                 \
    void do_##handler(struct broker *b, struct peer *peer, struct channel *ch, struct command *c);
#include "core/commands.def"
#undef COMMAND

#endif
