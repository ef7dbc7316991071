/* core_state: the structures that the files of core/ share, the broker's state. core_int.h has the functions.
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
#ifndef MILLRACE_CORE_CORE_STATE_H
#define MILLRACE_CORE_CORE_STATE_H

#include "base/check.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/reader.h"
#include "base/wheel.h"
#include "base/writer.h"
#include "core/allowance.h"
#include "core/broker.h"
#include "core/dedup.h"
#include "core/mqtt_int.h"
#include "core/page.h"
#include "core/retry.h"
#include "core/scan.h"
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
    OBJ_GROUP_RULES,
    OBJ_SQL
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
    unsigned iterations; /* of its SCRAM keys, once somebody has asked: credentials.c */
    bool iterations_known;
    struct list permissions;
    uint32_t peers;
};

struct permission {
    struct object object;
    struct list user_link, vhost_link;
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
    struct map txns;                    /* transactional id → struct txn */
    struct list txn_list;               /* the same, oldest first */
    struct allowance txn_memory;        /* of b->txn_memory: of all its transactions and streams, among it … */
    struct allowance txn_ids, txn_open; /* … ids, and partitions of those that are open */
    struct map mqtt_clients;
    struct map sql_objects; /* by name */
    struct list policies;
    struct list streams;            /* by id */
    struct list peers, permissions; /* that have entered it; to it */
    struct list groups, group_rules;
    struct delay *delay; /* delayed messages, in a hidden queue; NULL until needed */
    bool deleting;       /* vhost_end.c: */
    struct list dying_link;
    uint32_t cursor;         /* of the map that is being emptied */
    struct peer *deleted_by; /* hears of the end; NULL: nobody */
    uint32_t deleted_origin;
    lsn_t deleted_lsn;
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
struct delay;

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
    bool dying;             /* exchange_end.c */
    struct list dying_link; /* b->dying_exchanges, or b->unbound */
    struct list sources;    /* bindings whose source this is */
    struct list targets;    /* bindings whose destination this is */
    struct map keys;        /* direct: key → struct key_bucket */
    struct topic *topic;
    struct hashring *hashring;
    struct policy *policy, *operator_policy;
    uint64_t route_mark;
    uint32_t binding_count;
    uint32_t selecting;    /* bindings that have a selector: each message that they match asks it */
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
    ENTRY_DELAYED = 128, /* waits for its retry; lsn is until when */
};

/* One message in one queue: 72 bytes. */
struct entry {
    struct list link; /* lane, queue->unacked, or with what waits (delay_int.h) */
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

/* Messages of a page on disk that are entries in memory all the same, as those of a page that was read are: lend.c. */
struct lent {
    struct ranges taken; /* positions that were ever lent; of some the entries are gone, and they are holes */
    uint32_t alive;      /* entries */
    uint64_t bytes;      /* of their bodies */
};

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
    bool reading;    /* a job that will load it is on its way, whatever has become of it */
    bool retry;      /* of messages that wait for their retry; it is in no lane */
    uint16_t snap_gen;
    uint32_t count, live; /* messages written; of them alive */
    uint32_t return_count;
    uint32_t arrival;     /* of the first message, when it waits: delay_int.h */
    lsn_t lsn;            /* of its last PAGE record */
    uint64_t first, last; /* positions */
    uint64_t body_bytes;  /* of what is alive; after a restart about, until it is read */
    wall_t deadline;      /* of the first message */
    struct page_where where;
    struct ranges holes;     /* positions from first to last that are not, or no longer, alive here (holes.c) */
    struct ranges transient; /* positions that the journal does not know: gone after a restart */
    struct page_return *returns;
    struct lent *lent; /* NULL: nothing is */
    struct look *look; /* NULL: nobody does */
    uint64_t *origins; /* of a page of retries that was read: where its messages belong (delay_int.h) */
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
    uint64_t planned_count, planned_bytes; /* of a query's step that is being looked at, else 0 */
    uint64_t mark_safe;                    /* the mark that is known to be durable */
    uint64_t captured_from;                /* first position of the transaction that is being committed; 0: none */
    lsn_t mark_lsn;
    struct list consumers, ready;       /* all; those that can take a message, by priority */
    uint32_t consumer_count, selecting; /* of them have a selector */
    struct list sieves, scans;          /* of those; all places of who looks */
    struct consumer *exclusive_consumer, *active;
    struct list pump_link, removal_link, owner_link, fat_link, hungry_link, resting_link, look_link;
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
    struct follower *follower; /* of a stream */
    const struct mqtt_sub
        *takes_over;     /* of a share group: messages of QoS 2 move into its client's queue (mqtt_share.c) */
    struct sieve *sieve; /* NULL: takes every message */
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
    struct entry *entry;       /* of the delays */
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
    uint32_t delays;           /* messages that wait for their time */
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
    struct list relays;                  /* struct relay: what it asked of SQL */
    uint32_t relay_count;
    struct list link;       /* b->peers, or b->leaving */
    struct list vhost_link; /* vhost->peers, once it has entered */
    uint64_t removal_epoch; /* == b->removal_epoch: has acks that are not journalled yet */
    uint64_t login_ticket;
    uint32_t login_origin;
    struct slice address, protocol; /* owned, one block */
    struct mqtt_client *mqtt;
    struct queue *produces; /* the stream that it wrote to last, which it may while produces_gen == topology_gen */
    uint64_t produces_gen;
};

/* Administration's, SQL's, that of $SYS: nobody sees or closes it as a connection. */
static inline bool peer_is_own(const struct peer *peer)
{
    return peer->flags & ASK_INTERNAL;
}

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
    uint64_t topics_gen;                 /* grows when a stream is made, goes, or has more partitions */
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
    uint32_t fetch_sessions;   /* of all peers: */
    struct list fetch_session_list;
    uint64_t fetch_session_bytes;
    uint32_t fetch_session_id; /* the last that was given */
    lsn_t fetched_durable;     /* when `fetched` was looked through */
    bool fetched_news;         /* it has grown since */
};

struct sql_state {          /* query*.c */
    struct map objects;     /* struct sql_object, by id */
    struct list by_id;      /* the same, ascending */
    uint64_t bytes;         /* of all */
    struct map relays;      /* struct relay, by ticket */
    struct list gone;       /* objects that went with their vhost: nothing but an id, of which the engine is to hear */
    struct list untold;     /* those of which the engine is to hear something when its port has room */
    struct planned *plan;   /* scratch of a step: its outputs … */
    struct queue **targets; /* … and their queues, one after the other */
    uint32_t plan_max, target_count, target_max;
    bool committing; /* what a queue refuses was found out before: it refuses nothing now */
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

    struct port_side *sides; /* options.ports + 4 */
    unsigned side_count, turn;

    struct list catalogue;
    struct map vhosts, users, queues_by_id;
    struct list peers;
    struct list leaving; /* peers that have closed and own queues still */
    struct list dying_exchanges;
    struct list unbound;     /* auto-delete exchanges that are about to go … */
    bool unbinding;          /* … one after the other */
    struct list dying;       /* vhosts that nobody finds any more, until nothing is left in them */
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
    struct map rules; /* struct shared_rules, by content */
    struct list dead; /* struct dead_letter waiting to be routed */
    uint64_t dead_count;

    uint64_t next_queue_id, next_msg_id, next_ticket;
    uint64_t next_producer_id, producer_ids_end; /* the journal knows that those below the end are taken … */
    lsn_t producer_ids_lsn;                      /* … with this record */
    struct map txns;                             /* producer id → struct txn */
    struct list txn_listings;                    /* txn_list.c */
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
    uint64_t verifiers_read;            /* for it, ever */
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
    uint32_t thin_vain;   /* so many of them in a row had nothing to write … */
    uint64_t thin_memory; /* … while ready_memory was this */
    struct list hungry;   /* queues that want to read when there is room for jobs */
    struct looks looks;
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

    /* delay.c, delay_page.c */
    struct list delays, fresh_delays; /* struct delay: some in the heap; some that are not durable */
    struct list adrift_writes;        /* struct delay_write whose vhost went */
    uint64_t delay_memory;            /* of ready_memory: what a round of writing may free */
    uint64_t delay_reading;           /* and what that of pages being read will be, at most */
    uint32_t delay_round;
    uint64_t delay_news; /* goes up with each round and each page that is written */
    bool delay_writing;  /* a round is going on */

    struct stream_state streams;

    struct map groups; /* struct group */
    struct list group_list;
    struct map group_rules; /* struct group_rules: group_config.c */
    struct list group_rules_list;
    uint64_t group_bytes;        /* of all groups, members and offsets */
    struct allowance txn_memory; /* of transactions: txn_room.c */
    mono_t txns_told_at;         /* when the log was told that there is no room for one; 0: never */

    struct mqtt_state mqtt;
    struct sql_state sql;
};

#define ENTRY_COST sizeof(struct entry)
static inline size_t entry_memory(const struct entry *e)
{
    return msg_size(e->msg) + ENTRY_COST;
}

#endif
