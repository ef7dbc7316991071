/* Compaction of keyed streams: when, of what, and what the journal says of it. docs/formats/streams.md section 3 has the steps
 * and the invariants; the work is the stream store's.
 *
 *   IDLE ─▶ keys of the window are asked for ─▶ { a run of files is rewritten ─▶ REWRITTEN, and the files go }* ─▶ IDLE
 *
 * One pass at a time. Partitions that may want one wait in a row, each for a while: what makes it worth while (a file is
 * sealed, or named as synced) comes often, and time alone does it, too, where the lag or a bound queue holds something back.
 * A pass keeps nothing but offsets: whatever happens to the partition meanwhile is seen when the answer comes.
 *
 *   K1  what was aborted below the dirty point of a pass is forgotten when the *next* one is done: in its own files nothing of it
 *       is left, but the store reads the old ones on until REWRITTEN is durable. Each job of the next pass has found (-ESTALE else)
 *       that the files of the one before are in use. A start uses no others, so it forgets up to the dirty point.
 */
#include "core/stream_int.h"

#include <errno.h>

#define LOOK_AFTER_NS (15 * NS_PER_S)
#define LOOK_SOON_NS (100 * NS_PER_MS)
#define LOOKS_PER_TICK 64u
#define TOMBSTONE_MS 86400000
#define RUN_FILES_MAX 16u

bool stream_is_keyed(const struct stream *s)
{
    enum cleanup cleanup = s->queue->rules->cleanup;
    return cleanup == CLEANUP_COMPACT || cleanup == CLEANUP_BOTH;
}

static mono_t every(const struct broker *b)
{
    return b->options.keyed_every_ms > 0 ? b->options.keyed_every_ms * NS_PER_MS : LOOK_AFTER_NS;
}

static void arm(struct broker *b)
{
    struct partition *p = LIST_FIRST(&b->streams.keyed, struct partition, keyed_link);
    wheel_cancel(&b->wheel, &b->streams.keyed_timer);
    if (p && !b->streams.pass.busy && !b->recovering)
        wheel_set(&b->wheel, &b->streams.keyed_timer, p->keyed_due > b->now ? p->keyed_due : b->now);
}

static void look_in(struct broker *b, struct partition *p, mono_t ns)
{
    if (p->keyed_damaged || !list_empty(&p->keyed_link))
        return;
    p->keyed_due = b->now + ns;
    list_insert(&b->streams.keyed, &p->keyed_link);
    arm(b);
}

void keyed_look(struct broker *b, struct partition *p)
{
    look_in(b, p, every(b));
}

/* ---- is it worth it? ---- */

struct stretch {
    uint64_t limit;                 /* of offsets */
    uint64_t clean, dirty, unnamed; /* bytes */
    bool waits;                     /* for time, or for a bound queue */
};

/* Whether what stands in an open transaction is valid is not known yet. */
static void measure(struct broker *b, struct partition *p, struct stretch *ret)
{
    const struct queue_rules *r = p->stream->queue->rules;
    uint64_t fed = stream_kept_for_feeders(p->stream, p->number), stable = partition_stable(b, p);
    bool open = true;
    *ret = (struct stretch){.limit = p->dirty_from};
    for (uint32_t i = 0; i < p->sealed_count; i++) {
        const struct stream_extent *file = &p->sealed[i];
        if (file->end <= p->dirty_from) {
            ret->clean += file->bytes;
            continue;
        }
        bool held =
            file->end > fed || file->end > stable || (r->min_lag_ms > 0 && file->max_at > b->wall - r->min_lag_ms);
        ret->waits = ret->waits || held;
        open = open && !held;
        if (!open)
            continue;
        if (file->end > p->named) {
            ret->unnamed += file->bytes;
            continue;
        }
        ret->dirty += file->bytes;
        ret->limit = file->end;
    }
}

/* ---- a pass ---- */

static struct partition *partition_of_pass(struct broker *b)
{
    const struct keyed_pass *pass = &b->streams.pass;
    struct queue *q = map_get(&b->queues_by_id, map_key_u64(&pass->stream));
    return q && q->stream && stream_is_keyed(q->stream) ? q->stream->partitions[pass->partition] : NULL;
}

/* p: whose aborted transactions the job has to know; NULL: none. False: no memory, or no room. */
static bool ask(struct broker *b, const struct partition *p, struct stream_job **job)
{
    if (!*job || (p && !stream_job_aborted(p, *job)) || !stream_send(b, job)) {
        stream_job_free(&b->heap, job);
        return false;
    }
    return true;
}

static struct stream_job *job_of_pass(const struct broker *b, enum stream_job_type type, uint64_t first, uint64_t until)
{
    struct stream_job *job = stream_job_new(type, 0);
    if (!job)
        return NULL;
    job->stream = b->streams.pass.stream;
    job->partition = b->streams.pass.partition;
    job->first = first;
    job->until = until;
    return job;
}

/* The partition, when it is still there, is looked at again after ns. */
static void pass_over(struct broker *b, struct partition *p, mono_t ns)
{
    b->streams.pass.busy = false;
    if (p)
        look_in(b, p, ns);
    arm(b);
}

static bool begin(struct broker *b, struct partition *p, uint64_t limit)
{
    struct keyed_pass *pass = &b->streams.pass;
    *pass = (struct keyed_pass){
        .busy = true, .stream = p->stream->queue->id, .partition = p->number, .limit = limit, .at = 0};
    struct stream_job *job = job_of_pass(b, STREAM_KEYS, p->dirty_from, limit);
    if (!ask(b, p, &job))
        pass->busy = false;
    return pass->busy;
}

static bool small_enough(const struct partition *p, const struct stream_extent *first, const struct stream_extent *next,
                         uint64_t bytes, uint32_t count)
{
    return count < RUN_FILES_MAX && bytes + next->bytes <= stream_segment_bytes(p->stream->queue) &&
           next->end - first->base < INT32_MAX;
}

/* The dirty point moves on; the keys are forgotten. */
static void pass_done(struct broker *b, struct partition *p)
{
    struct keyed_pass *pass = &b->streams.pass;
    struct stream_job *job = job_of_pass(b, STREAM_KEYS, 0, 0);
    isolation_trim(&p->isolation, p->dirty_from, &p->stream->txn_aborted); /* K1 */
    p->dirty_from = pass->until;
    p->keyed_more = pass->until < pass->limit;
    b->totals.keyed_passes++;
    if (log_reserve(b, 128, 1))
        (void)log_rewritten(b, p, NULL); /* else the next REWRITTEN or STREAM says it, or a start does it again */
    if (p->keyed_more || !ask(b, NULL, &job)) {
        stream_job_free(&b->heap, &job);
        pass_over(b, p, p->keyed_more ? 0 : every(b));
        return;
    }
    pass->until = pass->limit = 0; /* busy until that is answered */
}

static void next_run(struct broker *b, struct partition *p)
{
    struct keyed_pass *pass = &b->streams.pass;
    uint32_t i = 0, count = 1;
    while (i < p->sealed_count && p->sealed[i].end <= pass->at)
        i++;
    if (i == p->sealed_count || p->sealed[i].base >= pass->until) {
        pass_done(b, p);
        return;
    }
    const struct stream_extent *file = &p->sealed[i];
    uint64_t bytes = file->bytes;
    uint32_t generations = file->generation;
    for (; i + count < p->sealed_count && file[count].end <= pass->until &&
           small_enough(p, file, &file[count], bytes, count);
         count++) {
        bytes += file[count].bytes;
        generations += file[count].generation;
    }
    struct stream_job *job = job_of_pass(b, STREAM_REWRITE, file->base, file[count - 1].end);
    if (job) {
        job->timestamp = b->wall;
        job->tombstone_ms =
            p->stream->queue->rules->tombstone_ms > 0 ? p->stream->queue->rules->tombstone_ms : TOMBSTONE_MS;
        job->segment_bytes = count;
        job->bytes_max = generations;
        job->sealed.generation = ++p->generation;
    }
    if (!ask(b, p, &job))
        pass_over(b, p, LOOK_SOON_NS);
}

static uint64_t bytes_between(const struct partition *p, uint64_t first, uint64_t until)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < p->sealed_count; i++)
        if (p->sealed[i].base >= first && p->sealed[i].end <= until)
            bytes += p->sealed[i].bytes;
    return bytes;
}

/* False: it is not wanted any more, or there is no room now. */
static bool use(struct broker *b, struct partition *p, const struct stream_job *job)
{
    uint64_t before = bytes_between(p, job->first, job->until);
    if (!log_reserve(b, 128, 1) || !stream_put_rewritten(p, &job->sealed))
        return false;
    files_replace(b, job, true, log_rewritten(b, p, &job->sealed));
    b->totals.keyed_files++;
    b->totals.keyed_bytes_before += before;
    b->totals.keyed_bytes_after += job->sealed.bytes;
    return true;
}

static void failed(struct broker *b, struct partition *p, int err)
{
    if (p && err == -EILSEQ)
        p->keyed_damaged = true; /* C5 */
    pass_over(b, p, err == -ESTALE ? LOOK_SOON_NS : 4 * every(b));
}

void keyed_answer(struct broker *b, struct stream_job *job)
{
    struct keyed_pass *pass = &b->streams.pass;
    struct partition *p = partition_of_pass(b);
    if (job->type == STREAM_KEYS && job->first == job->until) {
        pass_over(b, p, every(b)); /* something may have waited */
        return;
    }
    if (job->err) {
        failed(b, p, job->err);
        return;
    }
    if (job->type == STREAM_KEYS)
        pass->until = job->next;
    else if (job->sealed.bytes && !(p && use(b, p, job))) {
        files_replace(b, job, false, 0);
        pass_over(b, p, LOOK_SOON_NS);
        return;
    } else
        pass->at = job->until;
    if (p)
        next_run(b, p);
    else
        pass_over(b, NULL, 0);
}

/* ---- the row of those that wait ---- */

/* What is sealed and would be worth a pass is synced first. */
static void sync_first(struct broker *b)
{
    if (list_empty(&b->streams.syncing) && b->compact.phase == COMPACT_IDLE && !b->streams.broken)
        streams_sync_begin(b);
}

static void look(struct broker *b, struct partition *p)
{
    struct stretch w;
    if (!stream_is_keyed(p->stream))
        return;
    measure(b, p, &w);
    if (w.dirty && (p->keyed_more || w.dirty >= w.clean)) {
        if (!begin(b, p, w.limit))
            look_in(b, p, LOOK_SOON_NS);
        return;
    }
    if (w.unnamed && w.dirty + w.unnamed >= w.clean)
        sync_first(b); /* when that is done it is looked at again */
    if (w.waits || w.unnamed)
        look_in(b, p, every(b));
}

static void time_to_look(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct partition *p;
    (void)timer;
    for (unsigned n = 0;
         n < LOOKS_PER_TICK && !b->streams.pass.busy &&
         (p = LIST_FIRST(&b->streams.keyed, struct partition, keyed_link)) != NULL && p->keyed_due <= b->now;
         n++) {
        list_remove(&p->keyed_link);
        look(b, p);
    }
    arm(b);
}

void keyed_init(struct broker *b)
{
    list_init(&b->streams.keyed);
    timer_init(&b->streams.keyed_timer, time_to_look);
}
