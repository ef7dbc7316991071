/* Chunks: runs of records on their way to files and back, the jobs that carry them, and what is synced.
 *
 * Every tick the records that came are put into the last chunk that waits, so that a store that is slow gets large ones. A
 * partition has one write on its way (T3). What comes in bulk and has no reader that waits for it is held a little, as large
 * writes cost the file system half. Reads, and chunks that were just written, are shared by all followers.
 */
#include "core/stream_int.h"

#include <errno.h>

#define JOBS_MAX 192u            /* fewer than the port has slots: an answer always finds one */
#define CHUNK_BYTES (1u << 20)   /* of one chunk that is gathered */
#define HOLD_FROM (16u * 1024)   /* a chunk of fewer bytes is no bulk … */
#define HOLD_UNTIL (512u * 1024) /* … and one of that many is written at once … */
#define HOLD_NS (5 * NS_PER_MS)  /* … or after so long */
#define READ_BYTES (256u * 1024) /* of one that is read */
#define READ_ITEMS 2048u
#define CACHE_BYTES (16u << 20) /* of chunks that nobody reads */
#define PENDING_MAX (64u << 20) /* T1: accepted and not in a file yet */
#define PAUSE_NS NS_PER_S
#define STARVE_NS (10 * NS_PER_MS)
#define KEYED_FILE_MS (7 * 86400000ll)
#define ITEM_COST sizeof(struct stream_item)

struct stream_drop { /* files to go, when that is durable */
    struct list link;
    lsn_t lsn;
    struct stream_job *job;
};

/* Those who found no place, no memory or a disk in trouble look again. */
static void wake_hungry(struct broker *b)
{
    struct list *last = b->streams.hungry.prev;
    while (!list_empty(&b->streams.hungry)) {
        struct list *node = b->streams.hungry.next;
        list_remove(node);
        stream_awake(b, CONTAINER_OF(node, struct stream, hungry_link));
        if (node == last)
            break;
    }
}

static void pause_over(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    (void)timer;
    b->streams.writing_paused = b->streams.reading_paused = false;
    wake_hungry(b);
}

static void held_over(void *arg, struct timer *timer)
{
    (void)arg; /* the end of the tick that fires it looks at those that are held */
    (void)timer;
}

void streams_init(struct broker *b)
{
    struct stream_state *all = &b->streams;
    struct list *lists[] = {&all->gathering, &all->writable, &all->held,    &all->dirty,  &all->syncing, &all->idle,
                            &all->adrift,    &all->drops,    &all->feeding, &all->hungry, &all->leaving};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        list_init(lists[i]);
    timer_init(&all->timer, pause_over);
    timer_init(&all->held_timer, held_over);
    all->topics_gen = 1;
    all->token.flags = ENTRY_STREAM;
    list_init(&all->token.link);
    keyed_init(b);
    fetches_init(b);
}

/* ---- jobs ---- */

static struct port_side *side_of_streams(struct broker *b)
{
    return &b->sides[b->options.ports + 2];
}

bool stream_has_room(struct broker *b)
{
    return b->streams.jobs < JOBS_MAX && port_has_room(side_of_streams(b));
}

static void send(struct broker *b, struct stream_job **job)
{
    struct peer store = {.side = side_of_streams(b)};
    effect_push(b, &store, EFF_STREAM, 0)->stream_job = *job;
    *job = NULL;
}

bool stream_send(struct broker *b, struct stream_job **job)
{
    if (!stream_has_room(b))
        return false;
    b->streams.jobs++;
    send(b, job);
    return true;
}

/* ---- chunks ---- */

static size_t item_bytes(const struct msg *msg)
{
    return ITEM_COST + msg_size(msg);
}

static struct chunk *chunk_new(struct partition *p, enum chunk_state state, uint64_t first)
{
    struct chunk *c = mem_zalloc(sizeof *c);
    if (!c)
        return NULL;
    c->partition = p;
    c->state = state;
    c->first = c->next = first;
    list_init(&c->link);
    list_init(&c->idle_link);
    return c;
}

/* The first from this node on that has marks. */
static struct chunk *marked_from(struct partition *p, struct list *node)
{
    while (node != &p->chunks && !CONTAINER_OF(node, struct chunk, link)->mark_count)
        node = node->next;
    return node == &p->chunks ? NULL : CONTAINER_OF(node, struct chunk, link);
}

static void chunk_free(struct broker *b, struct chunk *c)
{
    if (c->partition && c->partition->unsafe == c)
        c->partition->unsafe = marked_from(c->partition, c->link.next);
    if (c->state == CHUNK_READY)
        b->streams.cached_bytes -= c->bytes;
    list_remove(&c->idle_link);
    list_remove(&c->link);
    stream_job_free(&b->heap, &c->job);
    mem_free(c);
}

static void evict(struct broker *b)
{
    while (b->streams.cached_bytes > CACHE_BYTES && !list_empty(&b->streams.idle)) {
        struct chunk *c = CONTAINER_OF(b->streams.idle.next, struct chunk, idle_link);
        if (chunk_safe(b, c) < c->job->count)
            return; /* whoever reads it from the file would not know that it is not durable yet */
        chunk_free(b, c);
    }
}

void chunk_read(struct chunk *c)
{
    c->readers++;
    list_remove(&c->idle_link);
}

void chunk_unread(struct broker *b, struct chunk *c)
{
    CHECK(c->readers);
    if (--c->readers)
        return;
    if (c->state == CHUNK_READY) {
        list_insert(&b->streams.idle, &c->idle_link);
        evict(b);
    } else if (c->state == CHUNK_DAMAGED)
        chunk_free(b, c); /* who comes next tries again */
}

static void chunk_ready(struct broker *b, struct chunk *c)
{
    c->state = CHUNK_READY;
    b->streams.cached_bytes += c->bytes;
    if (c->readers == 0)
        list_insert(&b->streams.idle, &c->idle_link);
    evict(b);
}

/* How many of its items are durable: marks that have been reached are dropped. */
uint32_t chunk_safe(struct broker *b, struct chunk *c)
{
    uint32_t reached = 0;
    while (reached < c->mark_count && c->marks[reached].lsn <= b->durable)
        c->safe = c->marks[reached++].count;
    if (reached) {
        c->mark_count -= reached;
        memmove(c->marks, c->marks + reached, c->mark_count * sizeof c->marks[0]);
    }
    return c->safe;
}

/* Marks that have been reached go one after the other, so that this is found in no time. */
uint64_t partition_durable(struct broker *b, struct partition *p)
{
    struct chunk *c;
    while ((c = p->unsafe) != NULL) {
        if (chunk_safe(b, c) < c->job->count)
            return c->job->items[c->safe].offset;
        p->unsafe = marked_from(p, c->link.next);
    }
    const struct entry *e = LIST_FIRST(&p->gathered, struct entry, link);
    return e ? e->position : p->end;
}

uint64_t partition_visible(struct broker *b, struct partition *p)
{
    uint64_t durable = partition_durable(b, p);
    return durable < p->written ? durable : p->written;
}

static void touch(struct broker *b, struct partition *p)
{
    if (list_empty(&p->dirty_link))
        list_insert(&b->streams.dirty, &p->dirty_link);
    else
        p->dirtied = true;
}

void chunk_gather(struct broker *b, struct partition *p, const struct target *t, struct msg *msg)
{
    struct entry *e = pool_take(&b->entries);
    CHECK(e);
    *e = (struct entry){.msg = msg_ref(msg), .position = t->position, .deadline = t->deadline};
    list_insert(&p->gathered, &e->link);
    if (list_empty(&p->gather_link))
        list_insert(&b->streams.gathering, &p->gather_link);
    b->streams.pending_bytes += item_bytes(msg);
    b->streams.unsynced_bytes += item_bytes(msg);
    b->streams.gathered++;
    touch(b, p);
}

bool streams_overloaded(const struct broker *b)
{
    /* While the disk takes nothing, or for the stop, nobody waits: there are alarms, and consumers go on. */
    return b->streams.pending_bytes > PENDING_MAX && !b->streams.writing_paused && !b->stopping;
}

/* ---- the end of a tick: from gathered to chunks ---- */

static struct chunk *last_chunk(struct partition *p)
{
    return list_empty(&p->chunks) ? NULL : CONTAINER_OF(p->chunks.prev, struct chunk, link);
}

static bool is_batch(const struct msg *msg)
{
    return msg->flags & MSG_BATCH;
}

static bool chunk_takes(struct broker *b, struct chunk *c, const struct msg *msg)
{
    (void)chunk_safe(b, c); /* marks that have been reached are free again */
    return c->state == CHUNK_QUEUED && c->batches == is_batch(msg) && c->job->count < STREAM_ITEMS_MAX &&
           c->mark_count < CHUNK_MARKS && (c->job->count == 0 || c->bytes + item_bytes(msg) <= CHUNK_BYTES);
}

static bool chunk_grow(struct chunk *c)
{
    struct stream_job *job = c->job;
    if (job->count < job->max)
        return true;
    uint32_t max = job->max * 4 < STREAM_ITEMS_MAX ? job->max * 4 : STREAM_ITEMS_MAX;
    job = mem_realloc(job, sizeof *job + max * sizeof job->items[0]);
    if (!job)
        return false;
    job->max = max;
    c->job = job;
    return true;
}

static struct chunk *chunk_begin(struct broker *b, struct partition *p, uint64_t first, bool batches)
{
    struct chunk *c = chunk_new(p, CHUNK_QUEUED, first);
    if (!c || !(c->job = stream_job_new(STREAM_WRITE, 8))) {
        mem_free(c);
        return NULL;
    }
    c->batches = batches;
    list_insert(&p->chunks, &c->link);
    if (!p->queued)
        p->queued = c;
    if (!p->writing && list_empty(&p->write_link))
        list_insert(&b->streams.writable, &p->write_link);
    return c;
}

static void gathered_free(struct broker *b, struct entry *e)
{
    list_remove(&e->link);
    pool_give(&b->entries, e);
    b->streams.gathered--;
}

void gathered_drop(struct broker *b, struct entry *e)
{
    b->streams.pending_bytes -= item_bytes(e->msg);
    msg_unref(&b->heap, e->msg);
    gathered_free(b, e);
}

static void chunk_add(struct broker *b, struct chunk *c, struct entry *e)
{
    struct stream_job *job = c->job;
    job->items[job->count++] = (struct stream_item){.offset = e->position, .timestamp = e->deadline, .msg = e->msg};
    c->next = e->position + msg_offsets(e->msg);
    c->bytes += item_bytes(e->msg);
    gathered_free(b, e);
}

static void chunk_mark(struct broker *b, struct chunk *c)
{
    c->marks[c->mark_count++] = (struct chunk_mark){.count = c->job->count, .lsn = b->appended};
    if (!c->partition->unsafe)
        c->partition->unsafe = c; /* it is the last one: all before it are safe */
}

/* False: no memory; what is left waits. */
static bool to_chunks(struct broker *b, struct partition *p)
{
    struct chunk *c = last_chunk(p), *unmarked = NULL;
    bool ok = true;
    while (ok && !list_empty(&p->gathered)) {
        struct entry *e = CONTAINER_OF(p->gathered.next, struct entry, link);
        if (!c || !chunk_takes(b, c, e->msg)) {
            if (unmarked)
                chunk_mark(b, unmarked);
            unmarked = NULL;
            c = chunk_begin(b, p, e->position, is_batch(e->msg));
        }
        ok = c && chunk_grow(c);
        if (!ok)
            break;
        chunk_add(b, c, e);
        unmarked = c;
    }
    if (unmarked)
        chunk_mark(b, unmarked);
    if (p->held_until && p->queued && p->queued->bytes >= HOLD_UNTIL)
        partition_hurry(b, p);
    return ok;
}

/* Each for itself: when a disk is full, reading goes on. */
static void pause(struct broker *b, bool *what, mono_t ns)
{
    *what = true;
    if (!timer_is_set(&b->streams.timer))
        wheel_set(&b->wheel, &b->streams.timer, b->now + ns);
}

/* No memory, or no room, and perhaps no answer on its way that would bring the next step. */
void stream_look_again(struct broker *b)
{
    if (!timer_is_set(&b->streams.timer))
        wheel_set(&b->wheel, &b->streams.timer, b->now + STARVE_NS);
}

void stream_starves(struct broker *b, struct stream *s)
{
    if (list_empty(&s->hungry_link))
        list_insert(&b->streams.hungry, &s->hungry_link);
    stream_look_again(b);
}

static void gather_all(struct broker *b)
{
    LIST_EACH(&b->streams.gathering, node, after)
    {
        struct partition *p = CONTAINER_OF(node, struct partition, gather_link);
        if (!to_chunks(b, p)) {
            pause(b, &b->streams.writing_paused, STARVE_NS);
            return;
        }
        list_remove(&p->gather_link);
        stream_awake(b, p->stream);
    }
}

/* ---- chunks go to files ---- */

/* A keyed stream's open file is not compacted, so it ends after a week at most, as Kafka's do (segment.ms). */
static wall_t seal_before(const struct broker *b, const struct stream *s)
{
    int64_t age = s->queue->rules->max_age_ms;
    if (stream_is_keyed(s) && (age <= 0 || age > KEYED_FILE_MS))
        age = KEYED_FILE_MS;
    return age > 0 && b->wall > age ? b->wall - age : 0;
}

uint64_t stream_segment_bytes(const struct queue *q)
{
    const struct queue_rules *r = q->rules;
    int64_t bytes = STREAM_SEGMENT_BYTES;
    if (r->segment_bytes > 0)
        bytes = r->segment_bytes;
    else if (r->max_length_bytes >= 0 && r->max_length_bytes / 8 < bytes)
        bytes = r->max_length_bytes / 8 > (1 << 20) ? r->max_length_bytes / 8 : 1 << 20;
    if (bytes < (int64_t)STREAM_SEGMENT_BYTES_MIN)
        bytes = STREAM_SEGMENT_BYTES_MIN;
    return (uint64_t)bytes < STREAM_SEGMENT_BYTES_MAX ? (uint64_t)bytes : STREAM_SEGMENT_BYTES_MAX;
}

/* A write may seal a segment: its place in the list is there before. */
static bool sealed_reserve(struct partition *p)
{
    if (p->sealed_count < p->sealed_max)
        return true;
    uint32_t max = p->sealed_max ? p->sealed_max * 2 : 4;
    struct stream_extent *grown = mem_realloc(p->sealed, max * sizeof *grown);
    if (!grown)
        return false;
    p->sealed = grown;
    p->sealed_max = max;
    return true;
}

static void name_job(struct stream_job *job, const struct partition *p, const void *ticket)
{
    job->ticket = (uint64_t)(uintptr_t)ticket;
    job->stream = p->stream->queue->id;
    job->partition = p->number;
}

/* False: not now. */
static bool write_next(struct broker *b, struct partition *p)
{
    struct chunk *c = p->queued;
    struct stream_job *job = c->job;
    if (!sealed_reserve(p)) {
        stream_look_again(b);
        return false;
    }
    name_job(job, p, c);
    job->err = 0;
    job->first = c->first;
    job->next = c->next;
    job->segment_bytes = stream_segment_bytes(p->stream->queue);
    job->seal_before = seal_before(b, p->stream);
    if (!stream_send(b, &job))
        return false;
    c->state = CHUNK_WRITING;
    p->held_until = 0;
    p->writing = true;
    p->queued = c->link.next == &p->chunks ? NULL : CONTAINER_OF(c->link.next, struct chunk, link);
    list_remove(&p->write_link);
    return true;
}

/* The disk is asked for nothing yet, nobody waits for these records, and there may soon be more of them. */
static bool may_hold(struct broker *b, const struct partition *p)
{
    const struct chunk *c = p->queued;
    return c->batches && c->bytes >= HOLD_FROM && c->bytes < HOLD_UNTIL && p->held_until == 0 &&
           list_empty(&p->fetches) && list_empty(&p->watches) && list_empty(&p->stream->followers) &&
           list_empty(&b->streams.syncing) && !b->stopping;
}

static void hold(struct broker *b, struct partition *p)
{
    p->held_until = b->now + HOLD_NS;
    list_remove(&p->write_link);
    list_insert(&b->streams.held, &p->write_link);
    if (!timer_is_set(&b->streams.held_timer))
        wheel_set(&b->wheel, &b->streams.held_timer, p->held_until);
}

void partition_hurry(struct broker *b, struct partition *p)
{
    if (p->held_until == 0 || list_empty(&p->write_link))
        return;
    list_remove(&p->write_link);
    list_insert(&b->streams.writable, &p->write_link);
}

/* They are held equally long: the first is due first. */
static void release_held(struct broker *b)
{
    struct list *held = &b->streams.held;
    struct partition *p;
    while ((p = LIST_FIRST(held, struct partition, write_link)) && p->held_until <= b->now)
        partition_hurry(b, p);
    if (p && !timer_is_set(&b->streams.held_timer))
        wheel_set(&b->wheel, &b->streams.held_timer, p->held_until);
}

/* ---- syncing, for the compaction ---- */

void streams_sync_begin(struct broker *b)
{
    b->streams.unsynced_bytes = 0;
    LIST_EACH(&b->streams.dirty, node, after)
    {
        struct partition *p = CONTAINER_OF(node, struct partition, dirty_link);
        p->sync_upto = p->end;
        p->dirtied = p->sync_asked = false;
        list_remove(&p->dirty_link);
        list_insert(&b->streams.syncing, &p->dirty_link);
    }
}

static bool ask_sync(struct broker *b, struct partition *p)
{
    struct stream_job *job = stream_job_new(STREAM_SYNC, 0);
    if (!job)
        return false;
    name_job(job, p, NULL);
    if (stream_send(b, &job)) {
        p->sync_asked = true;
        return true;
    }
    stream_job_free(&b->heap, &job);
    return false;
}

bool streams_synced(struct broker *b)
{
    if (b->streams.broken)
        return false;
    LIST_EACH(&b->streams.syncing, node, after)
    {
        struct partition *p = CONTAINER_OF(node, struct partition, dirty_link);
        if (!p->sync_asked && p->written >= p->sync_upto && !ask_sync(b, p)) {
            stream_look_again(b);
            break;
        }
    }
    return list_empty(&b->streams.syncing);
}

static struct partition *partition_of(struct broker *b, const struct stream_job *job)
{
    struct queue *q = map_get(&b->queues_by_id, map_key_u64(&job->stream));
    return q && q->stream ? q->stream->partitions[job->partition] : NULL;
}

static void synced(struct broker *b, struct stream_job *job)
{
    struct partition *p = partition_of(b, job);
    if (job->err) {
        b->streams.broken = true; /* the journal keeps what it has; the store's owner stops the broker */
        return;
    }
    if (!p)
        return;
    p->synced = job->tail;
    p->sync_asked = false;
    if (p->synced.end < p->sync_upto)
        return; /* asked again */
    list_remove(&p->dirty_link);
    if (p->dirtied)
        list_insert(&b->streams.dirty, &p->dirty_link);
    if (b->compact.phase != COMPACT_STREAMS)
        (void)stream_snapshot_partition(b, p); /* without room a start writes more of it again */
}

/* ---- reading ---- */

/* From both ends: readers are where records are written or behind everything that is in memory, as a rule, and between may
 * stand tens of thousands of small chunks. */
struct chunk *chunk_before(struct partition *p, uint64_t offset)
{
    struct list *low = p->chunks.next, *high = p->chunks.prev;
    for (; high != &p->chunks; low = low->next, high = high->prev) {
        if (CONTAINER_OF(high, struct chunk, link)->first <= offset)
            return CONTAINER_OF(high, struct chunk, link);
        if (CONTAINER_OF(low, struct chunk, link)->first > offset)
            return low->prev == &p->chunks ? NULL : CONTAINER_OF(low->prev, struct chunk, link);
    }
    return NULL;
}

uint64_t partition_stable(struct broker *b, struct partition *p)
{
    uint64_t open = producers_stable(&p->producers), closing = isolation_stable(&p->isolation, b->durable);
    return open < closing ? open : closing;
}

bool stream_job_aborted(const struct partition *p, struct stream_job *job)
{
    uint32_t count = isolation_overlaps(&p->isolation, job->first, job->until, NULL, 0);
    if (!count)
        return true;
    job->aborted = mem_alloc(count * sizeof *job->aborted);
    if (job->aborted)
        job->aborted_count = isolation_overlaps(&p->isolation, job->first, job->until, job->aborted, count);
    return job->aborted;
}

struct chunk *chunk_load(struct broker *b, struct partition *p, uint64_t offset)
{
    struct chunk *before = chunk_before(p, offset);
    struct list *at = before ? before->link.next : p->chunks.next;
    uint64_t until = at == &p->chunks ? p->written : CONTAINER_OF(at, struct chunk, link)->first;
    uint64_t stable = partition_stable(b, p);
    if (until > p->written)
        until = p->written;
    if (until > stable)
        until = stable;
    CHECK(offset < until);
    struct chunk *c = chunk_new(p, CHUNK_LOADING, offset);
    struct stream_job *job = c ? stream_job_new(STREAM_READ, READ_ITEMS) : NULL;
    if (job) {
        name_job(job, p, c);
        job->first = offset;
        job->until = until;
        job->bytes_max = READ_BYTES;
    }
    if (!job || !stream_job_aborted(p, job) || !stream_send(b, &job)) {
        stream_job_free(&b->heap, &job);
        mem_free(c);
        return NULL;
    }
    c->next = until - offset > READ_ITEMS ? offset + READ_ITEMS : until;
    list_insert(at, &c->link);
    return c;
}

static void loaded(struct broker *b, struct chunk *c, struct stream_job *job)
{
    for (uint32_t i = 0; i < job->count; i++) {
        job->items[i].msg->flags |= MSG_PERSISTENT; /* it is on disk, and so it is in a queue that gets it from here */
        c->bytes += item_bytes(job->items[i].msg);
    }
    c->job = job;
    c->safe = job->count;
    if (!job->err) {
        CHECK(job->next > c->first);
        c->next = job->next;
        chunk_ready(b, c);
    } else {
        c->state = CHUNK_DAMAGED;
        if (job->err != -EILSEQ) {
            pause(b, &b->streams.reading_paused, PAUSE_NS);
            list_remove(&c->link); /* its readers leave it one by one; nobody else finds it */
        }
        if (c->readers == 0)
            chunk_free(b, c);
    }
}

/* ---- answers ---- */

static void written(struct broker *b, struct chunk *c, struct stream_job *job)
{
    struct partition *p = c->partition;
    p->writing = false;
    if (job->err) {
        c->state = CHUNK_QUEUED;
        p->queued = c;
        list_insert(&b->streams.writable, &p->write_link);
        pause(b, &b->streams.writing_paused, PAUSE_NS);
        return;
    }
    bool sealed = job->sealed.end > job->sealed.base;
    uint64_t before = p->tail.end > p->tail.base && !sealed ? p->tail.bytes : 0;
    p->written = c->next;
    p->filled += job->tail.bytes > before ? job->tail.bytes - before : 1;
    p->tail = job->tail;
    b->streams.pending_bytes -= c->bytes;
    if (sealed) {
        CHECK(p->sealed_count < p->sealed_max);
        p->sealed[p->sealed_count++] = job->sealed;
    }
    if ((c->batches || list_empty(&p->stream->followers)) && chunk_safe(b, c) == job->count)
        chunk_free(b, c); /* and the job */
    else
        chunk_ready(b, c);
    if (p->queued)
        list_insert(&b->streams.writable, &p->write_link);
    fetches_filled(b, p);
    if (sealed)
        stream_retention(b, p->stream);
    if (sealed && stream_is_keyed(p->stream))
        keyed_look(b, p);
}

static void adrift_back(struct broker *b, struct chunk *c, struct stream_job *job)
{
    if (c->job != job)
        stream_job_free(&b->heap, &job);
    chunk_free(b, c);
}

void do_streamed(struct broker *b, struct peer *peer, struct channel *ch, struct command *command)
{
    struct stream_job *job = command->stream_job;
    struct chunk *c = (struct chunk *)(uintptr_t)job->ticket;
    (void)peer;
    (void)ch;
    CHECK(b->streams.jobs);
    b->streams.jobs--;
    switch (job->type) {
    case STREAM_WRITE:
    case STREAM_READ: {
        if (!c->partition) {
            adrift_back(b, c, job);
            return;
        }
        struct stream *s = c->partition->stream;
        if (job->type == STREAM_WRITE)
            written(b, c, job);
        else
            loaded(b, c, job);
        stream_awake(b, s);
        wake_hungry(b);
        return;
    }
    case STREAM_FIND: follower_found(b, job); break;
    case STREAM_SYNC: synced(b, job); break;
    case STREAM_FETCH: fetch_back(b, job); return;
    case STREAM_KEYS:
    case STREAM_REWRITE: keyed_answer(b, job); break;
    case STREAM_REPLACE:
    case STREAM_DROP: CHECK(false); break;
    }
    stream_job_free(&b->heap, &job);
    wake_hungry(b);
}

/* ---- retention ---- */

/* The journal has the reason before a file goes: R3. */
void files_drop(struct broker *b, uint64_t id, uint32_t partition, uint64_t until, lsn_t lsn)
{
    struct stream_drop *drop = mem_zalloc(sizeof *drop);
    struct stream_job *job = drop ? stream_job_new(STREAM_DROP, 0) : NULL;
    if (!job) {
        mem_free(drop); /* the next start sweeps them */
        return;
    }
    job->stream = id;
    job->partition = partition;
    job->until = until;
    drop->job = job;
    drop->lsn = lsn;
    list_insert(&b->streams.drops, &drop->link);
}

void files_replace(struct broker *b, const struct stream_job *made, bool use, lsn_t lsn)
{
    struct stream_drop *drop = mem_zalloc(sizeof *drop);
    struct stream_job *job = drop ? stream_job_new(STREAM_REPLACE, 0) : NULL;
    if (!job) {
        mem_free(drop); /* the old ones are read on until the next start, which sweeps what is not named */
        return;
    }
    job->stream = made->stream;
    job->partition = made->partition;
    job->sealed = made->sealed;
    job->until = use ? made->sealed.end : 0;
    drop->job = job;
    drop->lsn = lsn;
    list_insert(&b->streams.drops, &drop->link);
}

static void send_drops(struct broker *b)
{
    while (!list_empty(&b->streams.drops)) {
        struct stream_drop *drop = CONTAINER_OF(b->streams.drops.next, struct stream_drop, link);
        if (drop->lsn > b->durable)
            return;
        if (ring_room(&side_of_streams(b)->port.effects) <= JOBS_MAX / 4 || !port_has_room(side_of_streams(b))) {
            stream_look_again(b);
            return;
        }
        send(b, &drop->job); /* not answered, so not counted */
        list_remove(&drop->link);
        mem_free(drop);
    }
}

void chunk_end(struct broker *b, struct chunk *c)
{
    bool away = c->state == CHUNK_WRITING || c->state == CHUNK_LOADING;
    CHECK(c->readers == 0);
    if (c->state == CHUNK_QUEUED || c->state == CHUNK_WRITING)
        b->streams.pending_bytes -= c->bytes;
    if (!away) {
        chunk_free(b, c);
        return;
    }
    list_remove(&c->link);
    list_insert(&b->streams.adrift, &c->link);
    c->partition = NULL;
}

/* The jobs of chunks that are adrift were freed with the rings, or by whoever stopped the store. */
void streams_fini(struct broker *b)
{
    LIST_EACH(&b->streams.adrift, node, after)
    mem_free(CONTAINER_OF(node, struct chunk, link));
    LIST_EACH(&b->streams.leaving, node, after)
    mem_free(CONTAINER_OF(node, struct follower, link));
    LIST_EACH(&b->streams.drops, node, after)
    {
        struct stream_drop *drop = CONTAINER_OF(node, struct stream_drop, link);
        stream_job_free(&b->heap, &drop->job);
        mem_free(drop);
    }
}

void streams_recovered(struct broker *b)
{
    CHECK(b->appended == b->durable);
    gather_all(b);
}

/* ---- once a tick ---- */

void chunks_turn(struct broker *b)
{
    struct stream_state *all = &b->streams;
    gather_all(b);
    release_held(b);
    for (unsigned n = 0; !all->writing_paused && n < JOBS_MAX && !list_empty(&all->writable); n++) {
        struct partition *p = CONTAINER_OF(all->writable.next, struct partition, write_link);
        if (may_hold(b, p))
            hold(b, p);
        else if (!write_next(b, p))
            break;
    }
    if (all->unsynced_bytes > b->options.stream_sync_bytes && list_empty(&all->syncing) &&
        b->compact.phase == COMPACT_IDLE)
        streams_sync_begin(b);
    if (!list_empty(&all->syncing))
        (void)streams_synced(b);
    if (!list_empty(&all->drops))
        send_drops(b);
}
