/* First compaction: what is alive is appended again, in slices, then one CHECKPOINT, and when that is durable the journal
 * is trimmed to where the snapshot began.
 *
 *   IDLE ─▶ CATALOGUE (objects in creation order) ─▶ STREAMS (their files are synced) ─▶ MESSAGES (queue by queue)
 *    ▲                                                                                       │
 *    └──────────────────────────── SYNC (checkpoint on its way) ◀────────────────────────────┘
 *
 * Work goes on meanwhile; each object is written as of its own moment, and replay is idempotent: *_PUT twice is one,
 * ENQUEUE is known by (queue, position), REMOVE of what is not there is nothing. What must hold at the checkpoint:
 *   K1  every journalled object alive has a *_PUT at or after `first`: it was written here, or was made after `first`.
 *   K2  every journalled entry alive has an ENQUEUE at or after `first` and after its queue's QUEUE_PUT: it was written
 *       here, or its own record is younger than the end of the catalogue.
 *   K3  no entry is missed while it moves between lists: an entry that moves and is not written yet is written then. When
 *       there is no memory for that the snapshot is torn: it ends without a checkpoint, trims nothing and begins again.
 *   K4  every page alive has a PAGE at or after `first` and after its queue's QUEUE_PUT, as K2; the messages in it are not
 *       written, but a RETURN follows for those that have come back to their queue.
 *   K5  every record of a stream that was appended before the catalogue's end is synced in a segment, and STREAM says so;
 *       later ones have an ENQUEUE at or after `first` and after the stream's QUEUE_PUT. STREAM comes after QUEUE_PUT too.
 *   K6  every key of a journalled message that a queue deduplicates by stands in a WINDOW, written here, or in its own KEYED,
 *       younger than that.
 *   K8  an id of a queue, or of a statement of SQL, is given out once: QUEUE_IDS stands before the checkpoint when the last one is no
 *       queue's that has a record here.
 *   K9  of open and aborted transactions an ISOLATION says what was known at its moment, and younger BATCHes the rest; one
 *       that nothing is open or aborted in needs none. A transactional id that has expired is not written, and forgotten.
 *   K7  of numbered producers a PRODUCERS says what was known at its moment, and younger BATCHes the rest; PRODUCER_IDS
 *       stands before the checkpoint.
 *   K10 of every group its GROUP and its offsets' OFFSETS stand behind the catalogue, as they were at their moment: written here
 *       after the streams, or when they changed later. So does a SHARE that says all of it, and behind that what changed, of each of
 *       its shares: behind its GROUP and its stream's QUEUE_PUT, written here or when it was made.
 *   K11 of every MQTT client with records its MQTT_CLIENT, MQTT_SUBs and MQTT_IDs, and of every journalled value that is retained its
 *       RETAINED, stand behind the catalogue, as K10.
 *   K12 of every statement of SQL its SQL_OBJECT says its state, last step and whole trail as of its moment, and younger SQL_STATEs
 *       and QUERY_STEPs the rest.
 *
 * Without memory a slice leaves its place as it is and rests, longer each time; what the core needs of its own for any
 * slice is taken before the first.
 */
#include "core/core_int.h"
#include "core/txn_int.h"

#define SLICE_OBJECTS 128u
#define STOP_JOURNAL_MIN (4u << 20) /* below this there is little to win */
#define STOP_LIVE_MAX (16u << 20)   /* more would hold up the stop */
#define SCARCE_SHARE 8 /* of compact_bytes: how long a journal is left alone while the disk is nearly full */
#define SNAPSHOT_MARGIN (2u << 20) /* for what is appended meanwhile */
#define PAUSE_FIRST (10 * NS_PER_MS)
#define PAUSE_MOST NS_PER_S

static void rested(void *arg, struct timer *timer)
{
    (void)arg; /* the step that fires it goes on with the compaction */
    (void)timer;
}

void compact_init(struct broker *b)
{
    b->compact.cursor = &b->catalogue;
    b->compact.pause = PAUSE_FIRST;
    timer_init(&b->compact.retry, rested);
}

static void rest(struct broker *b)
{
    struct compact *k = &b->compact;
    wheel_set(&b->wheel, &k->retry, b->now + k->pause);
    k->pause = k->pause * 2 < PAUSE_MOST ? k->pause * 2 : PAUSE_MOST;
}

/* Once the journal has been trimmed, what is left of it beyond the messages is what every snapshot will have to write
 * again: queues, bindings, pages. A catalogue that alone is longer than compact_bytes is not compacted for ever. */
static void measure(struct broker *b, uint64_t live)
{
    struct compact *k = &b->compact;
    if (k->live_before == 0 || live >= k->live_before)
        return;
    k->overhead = live > b->journalled_bytes ? live - b->journalled_bytes : 0;
    k->live_before = 0;
}

/* What a snapshot of all there is now would write. */
static uint64_t snapshot_bytes(const struct broker *b)
{
    return b->journalled_bytes + b->compact.overhead;
}

/* On a full disk the journal has its spare files, and a snapshot that does not fit into them would use them up for nothing:
 * acks go on until it fits. */
static bool fits(struct broker *b)
{
    const struct compact *k = &b->compact;
    bool fresh = k->phase == COMPACT_IDLE;
    uint64_t all = snapshot_bytes(b), rest = fresh ? all : all > k->written ? all - k->written : 0;
    uint64_t ready = b->options.log.ready ? b->options.log.ready(b->options.log.self, fresh) : UINT64_MAX;
    return rest + rest / 8 + SNAPSHOT_MARGIN < ready;
}

static bool wanted(struct broker *b)
{
    struct compact *k = &b->compact;
    if (b->streams.broken)
        return false;
    if (k->torn)
        return true;
    if (b->options.compact_every && k->commands >= b->options.compact_every)
        return true;
    uint64_t live = b->options.log.live_bytes(b->options.log.self);
    measure(b, live);
    bool scarce = b->alarms & ALARM_DISK; /* worth a snapshot much earlier: what it frees ends the alarm */
    uint64_t least = scarce ? b->options.compact_bytes / SCARCE_SHARE : b->options.compact_bytes;
    return live > least && live / 2 > snapshot_bytes(b) && (!scarce || fits(b));
}

bool compact_before_stop(struct broker *b)
{
    uint64_t live = b->options.log.live_bytes(b->options.log.self);
    if (b->compact.phase != COMPACT_IDLE || b->streams.broken || live < STOP_JOURNAL_MIN ||
        b->journalled_bytes > STOP_LIVE_MAX || live / 4 < b->journalled_bytes)
        return false;
    compact_start(b);
    return true;
}

void compact_start(struct broker *b)
{
    struct compact *k = &b->compact;
    if (k->phase != COMPACT_IDLE)
        return;
    backlog_flush_removals(b);
    b->options.log.fresh(b->options.log.self);
    b->reserved_bytes = 0; /* of this tick: its group is closed */
    b->reserved_records = 0;
    k->phase = COMPACT_CATALOGUE;
    k->first = b->appended + 1;
    k->cursor = b->catalogue.next;
    k->commands = 0;
    k->written = 0;
    k->torn = false;
    k->queue = NULL;
    k->entry = NULL;
    k->group = &b->group_list;
    k->client = &b->mqtt.clients;
    k->share = NULL;
    k->offset = NULL;
    k->gen = k->gen == UINT16_MAX ? 1 : (uint16_t)(k->gen + 1); /* 0: never written */
    k->body_gen++;
    b->removal_lost_before |= b->removal_lost;
    b->removal_lost = false;
}

static void write_entry(struct broker *b, const struct entry *e)
{
    struct compact *k = &b->compact;
    struct msg *msg = e->msg;
    bool body = msg->id == 0 || msg->mark != k->body_gen;
    struct target t = {.queue = e->queue,
                       .position = e->position,
                       .deadline = e->deadline,
                       .returns = e->returns,
                       .redelivered = (e->flags & ENTRY_REDELIVERED) != 0};
    (void)log_enqueue(b, msg, &t, 1, NULL, true, body);
    msg->mark = k->body_gen;
}

static bool is_paged(const struct entry *e)
{
    return e->page && e->page->state != PAGE_WRITING;
}

/* Its PAGE is behind the beginning of the snapshot; else it is written when its queue has its turn. */
static bool is_written(const struct broker *b, const struct page *page)
{
    return page->snap_gen == b->compact.gen || page->lsn >= b->compact.catalogue_end;
}

/* A RETURN before its PAGE would be forgotten by the replay. */
static bool needs_writing(const struct broker *b, const struct entry *e)
{
    if (!(e->flags & ENTRY_JOURNALLED) || e->snap_gen == b->compact.gen)
        return false;
    if (is_paged(e))
        return e->returns > 0 && !e->queue->hidden &&
               !e->page->retry && /* these pages say themselves for what it waits */
               is_written(b, e->page);
    return (e->flags & ENTRY_DELAYED) || e->lsn < b->compact.catalogue_end; /* the lsn of what is delayed is none */
}

/* False: no memory, or no room in the journal. */
static bool try_write(struct broker *b, struct entry *e)
{
    bool delayed = e->flags & ENTRY_DELAYED, paged = is_paged(e);
    if (!log_reserve(b, 64 + (paged ? 0 : log_enqueue_bytes(e->msg, 1)), 2))
        return false;
    if (!paged)
        write_entry(b, e);
    if (delayed)
        (void)log_retry(b, e->queue, e->position, e->returns, retry_due_of(e));
    else if (paged)
        (void)log_return(b, e->queue, e->position, e->returns);
    e->snap_gen = b->compact.gen;
    return true;
}

void compact_moving(struct broker *b, struct entry *e)
{
    if (b->compact.phase != COMPACT_MESSAGES)
        return;
    if (needs_writing(b, e) && !try_write(b, e))
        b->compact.torn = true;
    compact_entry_removed(b, e);
}

void compact_entry_removed(struct broker *b, struct entry *e)
{
    struct compact *k = &b->compact;
    if (k->entry == e)
        k->entry = CONTAINER_OF(e->link.next, struct entry, link);
}

void compact_group_removed(struct broker *b, struct list *link)
{
    struct compact *k = &b->compact;
    if (k->group == link) {
        k->group = link->next;
        k->offset = k->share = NULL;
    }
}

void compact_share_removed(struct broker *b, struct list *link)
{
    struct compact *k = &b->compact;
    if (k->share == link)
        k->share = link->next;
}

void compact_offset_removed(struct broker *b, struct list *link)
{
    struct compact *k = &b->compact;
    if (k->offset == link)
        k->offset = link->next;
}

void compact_key_removed(struct broker *b, struct key *key)
{
    struct compact *k = &b->compact;
    if (k->key == &key->link)
        k->key = key->link.next;
}

void compact_window_dropped(struct broker *b, struct queue *q)
{
    if (b->compact.queue == q)
        b->compact.key = NULL;
}

void compact_page_removed(struct broker *b, struct page *page)
{
    struct compact *k = &b->compact;
    if (k->page == page)
        k->page = CONTAINER_OF(page->queue_link.next, struct page, queue_link);
}

/* It rested when its turn came: its pages, of which there were none, are in another list now. */
void compact_queue_roused(struct broker *b, struct queue *q)
{
    struct compact *k = &b->compact;
    if (k->queue == q)
        k->page = CONTAINER_OF(q->busy->pages.next, struct page, queue_link);
}

/* What is written is skipped, so the list is begun again. */
void compact_lists_changed(struct broker *b, struct queue *q)
{
    if (b->compact.queue == q)
        b->compact.entry = NULL;
}

void compact_client_removed(struct broker *b, struct list *link)
{
    struct compact *k = &b->compact;
    if (k->client == link)
        k->client = link->next;
}

void compact_object_removed(struct broker *b, struct object *object)
{
    if (b->compact.cursor == &object->link)
        b->compact.cursor = object->link.next;
}

void compact_queue_removed(struct broker *b, struct queue *q)
{
    if (b->compact.queue == q) {
        b->compact.queue = NULL;
        b->compact.entry = NULL;
        b->compact.page = NULL;
        b->compact.key = NULL;
    }
}

/* One slice of the catalogue; false: no memory. */
static bool catalogue_slice(struct broker *b)
{
    struct compact *k = &b->compact;
    uint64_t until = b->appended_bytes + b->options.compact_slice_bytes; /* statements are long, others short */
    for (unsigned n = 0; n < SLICE_OBJECTS && b->appended_bytes < until && k->cursor != &b->catalogue; n++) {
        struct object *object = CONTAINER_OF(k->cursor, struct object, link);
        if (object->kind == OBJ_TXN && txn_expired(b, object)) {
            k->cursor = k->cursor->next;
            txn_forget(b, object);
            continue;
        }
        if (object->journalled && !object_is_dying(object) && !log_object(b, object))
            return false;
        if (object->kind == OBJ_TXN && !txn_staged_snapshot(b, CONTAINER_OF(object, struct txn, object)))
            return false;
        k->cursor = k->cursor->next;
    }
    if (k->cursor == &b->catalogue) {
        k->phase = COMPACT_STREAMS;
        k->syncing = false;
        k->catalogue_end = b->appended + 1;
        k->cursor = b->catalogue.next;
    }
    return true;
}

/* The lists of a queue's entries in memory: each lane's front and entries, then the unacknowledged, then the delayed. A lane that is not paged
 * has no front: its entries stand for it, and what is written is not written again. NULL: no more. */
static struct list *list_number(struct queue *q, unsigned number)
{
    unsigned lanes = lane_count(q);
    if (number >= 2 * lanes)
        return number == 2 * lanes ? &q->busy->unacked : number == 2 * lanes + 1 ? retry_list(q) : NULL;
    struct lane *lane = &q->busy->lanes[number / 2];
    return number % 2 == 0 && lane->paging ? &lane->paging->front : &lane->entries;
}

/* What came back of the page before it was written or is not read yet. False: no memory, or no room. */
static bool write_returns(struct broker *b, const struct page *page)
{
    if (page->return_count && !log_reserve(b, 48 * (size_t)page->return_count, page->return_count))
        return false;
    for (uint32_t i = 0; i < page->return_count; i++) {
        const struct page_return *back = &page->returns[i];
        if (back->due)
            (void)log_retry(b, page->queue, back->position, back->returns, back->due);
        else
            (void)log_return(b, page->queue, back->position, back->returns);
    }
    return true;
}

/* A page that has moved since the snapshot began is behind it, but what came back of it before is not. */
static bool write_page(struct broker *b, struct page *page)
{
    lsn_t lsn = is_written(b, page) ? page->lsn : log_page(b, page);
    if (!lsn || !write_returns(b, page))
        return false;
    page->lsn = lsn;
    page->snap_gen = b->compact.gen;
    return true;
}

/* Writes pages of k->queue; false: the slice is full, or there is no memory. */
static bool pages_slice(struct broker *b, size_t *bytes, bool *starved)
{
    struct compact *k = &b->compact;
    while (&k->page->queue_link != &k->queue->busy->pages) {
        struct page *page = k->page;
        if (*bytes >= b->options.compact_slice_bytes)
            return false;
        if (page->journalled && !write_page(b, page)) {
            *starved = true;
            return false;
        }
        *bytes += 64 + 16 * (size_t)page->holes.count + 16 * (size_t)page->return_count;
        k->page = CONTAINER_OF(page->queue_link.next, struct page, queue_link);
    }
    return true;
}

/* As pages_slice, of the keys that the queue has accepted. */
static bool keys_slice(struct broker *b, size_t *bytes, bool *starved)
{
    struct compact *k = &b->compact;
    while (k->key) {
        size_t len;
        if (*bytes >= b->options.compact_slice_bytes)
            return false;
        if (!log_window(b, k->queue, &k->key, &len)) {
            *starved = true;
            return false;
        }
        *bytes += len;
    }
    return true;
}

/* Writes entries of k->queue until the slice is full or there is no memory (false), or the queue is done (true). */
static bool queue_slice(struct broker *b, size_t *bytes, bool *starved)
{
    struct compact *k = &b->compact;
    struct list *list;
    if (!keys_slice(b, bytes, starved) || !pages_slice(b, bytes, starved))
        return false;
    while ((list = list_number(k->queue, k->list))) {
        struct list *at = k->entry ? &k->entry->link : list->next;
        while (at != list) {
            struct entry *e = CONTAINER_OF(at, struct entry, link);
            k->entry = e;
            if (*bytes >= b->options.compact_slice_bytes)
                return false;
            if (needs_writing(b, e)) {
                if (!try_write(b, e)) {
                    *starved = true;
                    return false;
                }
                *bytes += msg_size(e->msg);
            } else
                *bytes += 8;
            at = at->next;
        }
        k->entry = NULL;
        k->list++;
    }
    return true;
}

/* Everything is written: the checkpoint, unless something was missed. False: no memory. */
static bool close_snapshot(struct broker *b)
{
    struct compact *k = &b->compact;
    if (k->torn) {
        k->phase = COMPACT_IDLE;
        return false; /* a rest before it begins again */
    }
    if (!log_reserve(b, 256, 4))
        return false;
    if (b->has_secret)
        (void)log_secret(b);
    uint64_t last = b->next_queue_id - 1; /* its own record says that it was given out, if there is one */
    const struct queue *q = map_get(&b->queues_by_id, map_key_u64(&last));
    if (last && (!q || !q->object.journalled || object_is_dying(&q->object)))
        (void)log_queue_ids(b, b->next_queue_id);
    if (b->producer_ids_end > 1)
        (void)log_producer_ids(b, b->producer_ids_end);
    k->ckpt = log_checkpoint(b, k->first);
    k->phase = COMPACT_SYNC;
    return true;
}

/* False: no memory. */
static bool messages_slice(struct broker *b)
{
    struct compact *k = &b->compact;
    size_t bytes = 0;
    bool starved = false;
    while (bytes < b->options.compact_slice_bytes && !starved) {
        if (!k->queue) {
            if (k->cursor == &b->catalogue)
                break;
            struct object *object = CONTAINER_OF(k->cursor, struct object, link);
            k->cursor = k->cursor->next;
            bytes += 16;
            if (object->kind != OBJ_QUEUE || !object->journalled || object_is_dying(object))
                continue;
            struct queue *q = CONTAINER_OF(object, struct queue, object);
            if (q->stream) {
                if (!stream_snapshot(b, q)) {
                    k->cursor = &object->link;
                    starved = true;
                }
                continue;
            }
            bool window = q->extra && q->extra->window.count;
            if (!queue_is_busy(q) && !window)
                continue; /* nothing is in it */
            k->queue = q;
            k->key = window ? q->extra->window.keys.next : NULL;
            k->page = CONTAINER_OF(q->busy->pages.next, struct page, queue_link);
            k->list = 0;
            k->entry = NULL;
        }
        if (queue_slice(b, &bytes, &starved))
            k->queue = NULL;
    }
    if (starved || k->queue || k->cursor != &b->catalogue)
        return !starved;
    bool done;
    if (!groups_snapshot(b, &bytes, &done) || (done && !mqtt_snapshot(b, &bytes, &done)))
        return false;
    return !done || close_snapshot(b);
}

/* One slice of whatever is next, with what it needs of the core's own memory; false: no memory. */
static bool slice(struct broker *b)
{
    if (!log_scratch_reserve(b))
        return false;
    uint64_t before = b->appended_bytes;
    bool ok = b->compact.phase == COMPACT_CATALOGUE ? catalogue_slice(b) : messages_slice(b);
    b->compact.written += b->appended_bytes - before;
    return ok;
}

/* Publishers share the core and the disk with the snapshot: while they are there it takes a share only. On a full disk, and
 * for the stop, everybody waits for it. */
static bool paced(struct broker *b)
{
    struct compact *k = &b->compact;
    bool busy = k->commands != k->commands_seen;
    k->commands_seen = k->commands;
    if (!busy || b->now >= k->next_slice || b->stopping || (b->alarms & ALARM_DISK))
        return false;
    wheel_set(&b->wheel, &k->retry, k->next_slice);
    return true;
}

bool compact_turn(struct broker *b)
{
    struct compact *k = &b->compact;
    if (b->recovering || timer_is_set(&k->retry) ||
        (k->phase != COMPACT_IDLE && !b->options.log.room(b->options.log.self)))
        return false;
    switch (k->phase) {
    case COMPACT_IDLE:
        if (!b->stopping && wanted(b))
            compact_start(b);
        return k->phase != COMPACT_IDLE;
    case COMPACT_STREAMS:
        if (b->streams.broken || (b->stopping && b->streams.writing_paused))
            k->phase = COMPACT_IDLE; /* nothing was trimmed yet, and a stop does not wait for the disk */
        else if (!streams_synced(b))
            return false; /* an answer of the stream store brings the next step */
        else if (k->syncing) {
            k->phase = COMPACT_MESSAGES;
            k->group = b->group_list.next; /* now: a record before that of its vhost is not replayed */
            mqtt_snapshot_begin(b);
        } else { /* what was being synced before does not count */
            k->syncing = true;
            streams_sync_begin(b);
        }
        return k->phase != COMPACT_IDLE;
    case COMPACT_CATALOGUE:
    case COMPACT_MESSAGES:
        if ((b->alarms & ALARM_DISK) && !fits(b)) { /* somebody else has filled the disk: what is left is for acks */
            k->phase = COMPACT_IDLE;                /* nothing was trimmed yet */
            return false;
        }
        if (k->phase == COMPACT_MESSAGES && paced(b)) /* the catalogue is little, and its slices are short */
            return false;
        k->next_slice = b->now + b->options.compact_pace_ns;
        if (slice(b))
            k->pause = PAUSE_FIRST;
        else if (b->stopping)
            k->phase = COMPACT_IDLE; /* the stop does not wait for memory: nothing was trimmed yet */
        else
            rest(b);
        return !timer_is_set(&k->retry) && (k->phase == COMPACT_CATALOGUE || k->phase == COMPACT_MESSAGES);
    case COMPACT_SYNC:
        if (b->durable >= k->ckpt) {
            k->live_before = b->options.log.live_bytes(b->options.log.self);
            b->options.log.trim(b->options.log.self, k->first);
            b->totals.compactions++;
            b->removal_lost_before = false; /* what is true has been written */
            k->phase = COMPACT_IDLE;
        }
        return false;
    }
    return false;
}
