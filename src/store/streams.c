/* The streams' turn: take in what was submitted, serve all reads, write, sync or remove, hand out.
 *
 * Each partition has a queue of its jobs, and the partitions with jobs wait in a row: whose turn it is does what stands at
 * the head of its queue and goes to the end of the row. So partitions do not wait for one another's syncs, and the order
 * within one is kept. Small writes of a partition that wait behind one another are one write to the disk. Reads come first,
 * because somebody waits for a delivery there; 4 MiB of writes, one sync or one removed file is what a read may wait for.
 *
 * Jobs come and go over a desk (desk.h); as it bounds them, what is under way always has a place among the places of the
 * queues.
 *
 * Threads: streams, but for the owner's functions. Published atomics: figures (streams), and the desk's.
 */
#include "store/streams.h"

#include "base/check.h"
#include "base/mem.h"
#include "core/fetch.h"
#include "store/desk.h"
#include "store/stream_compact.h"
#include "store/stream_write.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define FETCH_TURN_ROWS 512u
#define FETCH_TURN_BYTES (4u << 20) /* read, of one fetch in a turn: there may be thousands of rows */
#define TURN_BYTES (4u * 1024 * 1024)
#define RUN_JOBS_MAX 256u
#define SENTENCE_LEN 600
#define NOWHERE UINT16_MAX

/* Figures that any thread may read; only the streams' thread writes them. */
enum figure {
    FIGURE_RECORDS_WRITTEN,
    FIGURE_RECORDS_READ,
    FIGURE_JOBS_FAILED,
    FIGURE_BYTES_WRITTEN,
    FIGURE_BYTES_READ,
    FIGURE_SYNCS,
    FIGURE_SEGMENTS,
    FIGURE_COMPACT_READ,
    FIGURE_COMPACT_BEFORE,
    FIGURE_COMPACT_AFTER,
    FIGURE_COUNT
};

struct place { /* of a job in the queue of its partition, or free */
    struct stream_job *job;
    uint16_t next;
};

struct streams {
    struct streams_options options;
    struct desk desk; /* of struct stream_job */
    bool swept;       /* boot */
    _Atomic uint64_t figures[FIGURE_COUNT];

    /* streams' thread */
    struct slab_heap heap;
    struct stream_files files;
    struct stream_scan scan;
    struct stream_write write;
    struct stream_compact compact;
    mono_t compact_at; /* not before */
    struct stream_job *reads[STREAMS_JOBS_MAX];
    uint32_t reads_len;
    struct place places[STREAMS_JOBS_MAX];
    uint16_t places_free;
    int write_err; /* of the last write: the same trouble is told once */
};

/* ---------------------------------------------------------------------------------------------------------------- boot */

static bool turn(void *arg);
static int64_t wait_ns(void *arg);

static int told(const struct streams *streams, int err, char *why, size_t why_len)
{
    if (err)
        snprintf(why, why_len, "%s%s", err == -EILSEQ || err == -EPROTO ? "" : "cannot ", streams->files.fault);
    return err;
}

static void init_parts(struct streams *streams)
{
    slab_heap_init(&streams->heap);
    streams->scan.files = streams->write.files = &streams->files;
    streams->scan.heap = &streams->heap;
    streams->compact.files = &streams->files;
    streams->compact.fd = -1;
    streams->compact.keys_max = streams->options.keys_max;
    streams->write.scan = &streams->scan;
    for (unsigned i = 0; i < STREAMS_JOBS_MAX; i++)
        streams->places[i].next = (uint16_t)(i + 1 < STREAMS_JOBS_MAX ? i + 1 : NOWHERE);
}

int streams_open(const struct streams_options *options, struct streams **ret, char *why, size_t why_len)
{
    struct streams *streams = mem_zalloc(sizeof *streams);
    snprintf(why, why_len, "no memory to open the streams");
    if (!streams)
        return -ENOMEM;
    streams->options = *options;
    streams->desk = (struct desk){.turn = turn, .wait_ns = wait_ns, .arg = streams};
    init_parts(streams);
    int err = -ENOMEM;
    if (desk_init(&streams->desk, STREAMS_JOBS_MAX)) {
        err = stream_files_open(&streams->files, options->os, options->dir, options->uuid, options->writers_max);
        told(streams, err, why, why_len);
        CHECK(options->lent_max <= STREAM_LENT_MAX);
        if (options->lent_max)
            streams->files.lent_max = options->lent_max;
    }
    if (err)
        streams_close(&streams);
    else
        *ret = streams;
    return err;
}

static void publish_segments(struct streams *streams)
{
    atomic_store_explicit(&streams->figures[FIGURE_SEGMENTS], streams->files.count, memory_order_relaxed);
}

int streams_keep(struct streams *streams, uint64_t stream, uint32_t partition, uint64_t start,
                 const struct stream_extent *sealed, uint32_t count, const struct stream_extent *tail, char *why,
                 size_t why_len)
{
    CHECK(!streams->swept);
    int err = stream_files_keep(&streams->files, stream, partition, start, sealed, count, tail);
    return told(streams, err, why, why_len);
}

int streams_sweep(struct streams *streams, char *why, size_t why_len)
{
    CHECK(!streams->swept);
    int err = stream_files_sweep(&streams->files);
    streams->swept = err == 0;
    publish_segments(streams);
    return told(streams, err, why, why_len);
}

/* --------------------------------------------------------------------------------------------------------------- owner */

bool streams_submit(struct streams *streams, struct stream_job **job)
{
    if (!desk_submit(&streams->desk, *job))
        return false;
    *job = NULL;
    return true;
}

struct stream_job *streams_take(struct streams *streams)
{
    return desk_take(&streams->desk);
}

void streams_wake(struct streams *streams)
{
    desk_wake(&streams->desk);
}

static uint64_t figure(const struct streams *streams, enum figure which)
{
    return atomic_load_explicit(&streams->figures[which], memory_order_relaxed);
}

static void figure_set(struct streams *streams, enum figure which, uint64_t value)
{
    atomic_store_explicit(&streams->figures[which], value, memory_order_relaxed);
}

void streams_stats(const struct streams *streams, struct streams_stats *ret)
{
    *ret = (struct streams_stats){
        .records_written = figure(streams, FIGURE_RECORDS_WRITTEN),
        .records_read = figure(streams, FIGURE_RECORDS_READ),
        .jobs_failed = figure(streams, FIGURE_JOBS_FAILED),
        .bytes_written = figure(streams, FIGURE_BYTES_WRITTEN),
        .bytes_read = figure(streams, FIGURE_BYTES_READ),
        .syncs = figure(streams, FIGURE_SYNCS),
        .segments = figure(streams, FIGURE_SEGMENTS),
        .compact_read = figure(streams, FIGURE_COMPACT_READ),
        .compact_before = figure(streams, FIGURE_COMPACT_BEFORE),
        .compact_after = figure(streams, FIGURE_COMPACT_AFTER),
    };
}

/* -------------------------------------------------------------------------------------------------------- jobs in, out */

static void figure_add(struct streams *streams, enum figure which, uint64_t more)
{
    atomic_fetch_add_explicit(&streams->figures[which], more, memory_order_relaxed);
}

static void finish(struct streams *streams, struct stream_job *job, int err)
{
    CHECK(err <= 0);
    job->err = err;
    if (err)
        figure_add(streams, FIGURE_JOBS_FAILED, 1);
    desk_finish(&streams->desk, job);
}

static void forget_unanswered(struct streams *streams, struct stream_job *job)
{
    stream_job_free(&streams->heap, &job);
    desk_drop(&streams->desk);
}

static void queue_put(struct streams *streams, struct stream_partition *partition, struct stream_job *job)
{
    uint16_t at = streams->places_free;
    CHECK(at != NOWHERE);
    streams->places_free = streams->places[at].next;
    streams->places[at] = (struct place){.job = job, .next = NOWHERE};
    if (partition->jobs_len)
        streams->places[partition->jobs_last].next = at;
    else
        partition->jobs_first = at;
    partition->jobs_last = at;
    if (partition->jobs_len++ == 0)
        list_insert(&streams->files.turns, &partition->turn);
}

static struct stream_job *queue_peek(const struct streams *streams, const struct stream_partition *partition)
{
    return partition->jobs_len ? streams->places[partition->jobs_first].job : NULL;
}

static struct stream_job *queue_take(struct streams *streams, struct stream_partition *partition)
{
    uint16_t at = partition->jobs_first;
    struct stream_job *job = queue_peek(streams, partition);
    CHECK(job);
    partition->jobs_first = streams->places[at].next;
    partition->jobs_len--;
    streams->places[at] = (struct place){.next = streams->places_free};
    streams->places_free = at;
    return job;
}

static struct stream_name copy_name(const struct stream_job *job)
{
    return (struct stream_name){.stream = job->stream,
                                .partition = job->partition,
                                .base = job->sealed.base,
                                .generation = job->sealed.generation};
}

/* Its partition went meanwhile. What the journal names is left for the next start, which knows whether that is still so. */
static void replace_gone(struct streams *streams, struct stream_job *job)
{
    struct stream_name name = copy_name(job);
    if (!job->until)
        stream_files_give_up_copy(&streams->files, &name);
    forget_unanswered(streams, job);
}

static void take_in_compaction(struct streams *streams, struct stream_job *job)
{
    if (streams->compact.job)
        finish(streams, job, -EBUSY);
    else
        stream_compact_begin(&streams->compact, job);
}

/* Into the queue of its partition. Where there is no such partition a sync or drop has nothing to do. */
static void take_in_one(struct streams *streams, struct stream_job *job)
{
    struct stream_partition *partition = job->type == STREAM_WRITE && job->count
                                             ? stream_files_make(&streams->files, job->stream, job->partition)
                                             : stream_files_find(&streams->files, job->stream, job->partition);
    if (partition)
        queue_put(streams, partition, job);
    else if (job->type == STREAM_REPLACE)
        replace_gone(streams, job);
    else if (job->type == STREAM_DROP)
        forget_unanswered(streams, job);
    else
        finish(streams, job, job->count ? -ENOMEM : 0);
}

static bool take_in(struct streams *streams)
{
    struct stream_job *job;
    bool did = false;
    if (streams->options.on_turn)
        streams->options.on_turn(streams->options.arg);
    while ((job = desk_next(&streams->desk)) != NULL) {
        did = true;
        job->tail = (struct stream_extent){0};
        switch (job->type) {
        case STREAM_FETCH:
            job->fetch->served = 0;
            job->fetch->given = 0;
            job->err = 0;
            streams->reads[streams->reads_len++] = job;
            break;
        case STREAM_READ:
        case STREAM_FIND: streams->reads[streams->reads_len++] = job; break;
        case STREAM_KEYS:
        case STREAM_REWRITE: take_in_compaction(streams, job); break;
        case STREAM_WRITE:
            job->sealed = (struct stream_extent){0};
            take_in_one(streams, job);
            break;
        case STREAM_SYNC:
        case STREAM_REPLACE:
        case STREAM_DROP: take_in_one(streams, job); break;
        }
    }
    return did;
}

static void hand_out(struct streams *streams)
{
    if (streams->options.on_done && desk_untaken(&streams->desk))
        streams->options.on_done(streams->options.arg);
}

static void complain(struct streams *streams, int err, const char *sentence)
{
    if (streams->options.on_fault)
        streams->options.on_fault(streams->options.arg, err, sentence);
}

/* --------------------------------------------------------------------------------------------------------------- reads */

static void complain_of_read(struct streams *streams, struct stream_partition *partition, const struct stream_job *job,
                             int err)
{
    char sentence[SENTENCE_LEN];
    const struct stream_scan *scan = &streams->scan;
    snprintf(sentence, sizeof sentence,
             "%s at position %" PRIu64 ": offsets %" PRIu64 " to %" PRIu64 " of stream %" PRIu64 ", partition %" PRIu32
             " cannot be read: %s",
             stream_files_name(&streams->files, partition, scan->base), scan->position,
             job->type == STREAM_READ ? job->next : scan->expected, job->until ? job->until - 1 : 0, job->stream,
             job->partition, scan->what);
    complain(streams, err, sentence);
}

static int read_one(struct streams *streams, struct stream_job *job)
{
    struct stream_partition *partition = stream_files_find(&streams->files, job->stream, job->partition);
    int err = 0;
    job->count = 0;
    if (!partition) {
        job->next = job->type == STREAM_READ ? job->first : job->until;
        job->found_at = -1;
        return 0;
    }
    if (job->type == STREAM_READ)
        err = stream_scan_read(&streams->scan, partition, job);
    else
        err = stream_scan_find(&streams->scan, partition, job);
    if (err)
        complain_of_read(streams, partition, job, err);
    return err;
}

static int find_row(struct streams *streams, struct fetch_row *row)
{
    struct stream_job job = {.type = STREAM_FIND,
                             .stream = row->stream,
                             .partition = row->partition,
                             .first = row->offset,
                             .until = row->until,
                             .timestamp = row->time};
    int err = read_one(streams, &job);
    if (!err) {
        row->offset = job.next;
        row->time = job.found_at;
    }
    return err;
}

/* room: of the answer, so far. */
static int fetch_row(struct streams *streams, struct fetch_row *row, size_t room, bool first)
{
    struct stream_partition *partition = stream_files_find(&streams->files, row->stream, row->partition);
    struct stream_run run = {.first = row->offset,
                             .until = row->until,
                             .bytes_max = row->bytes_max < room ? row->bytes_max : room,
                             .enough = row->enough,
                             .aborted = row->aborted,
                             .aborted_count = row->aborted_count,
                             .one_at_least = first};
    if (!partition)
        return 0;
    int err = stream_scan_fetch(&streams->scan, partition, &run);
    if (!first && (err == -EMFILE || err == -ENOMEM))
        err = 0; /* what came before makes an answer: who gets nothing now asks again, when that has been sent */
    if (err)
        complain_of_read(
            streams, partition,
            &(struct stream_job){
                .type = STREAM_FETCH, .stream = row->stream, .partition = row->partition, .until = row->until},
            err);
    row->piece = run.piece;
    row->base = run.base;
    row->next = run.next;
    row->runs = run.dead;
    row->run_count = run.dead_count;
    return err;
}

/* Who is in front takes what the answer has room for: a client asks in another order the next time. False: that was enough
 * for a turn. */
static bool serve_fetch(struct streams *streams, struct fetch *fetch)
{
    uint64_t before = streams->scan.bytes_read;
    uint32_t rows = 0;
    for (; fetch->served < fetch->count; fetch->served++) {
        struct fetch_row *row = &fetch->rows[fetch->served];
        if (row->result != FETCH_OK || row->until <= row->offset)
            continue;
        if (rows++ == FETCH_TURN_ROWS || streams->scan.bytes_read - before > FETCH_TURN_BYTES)
            return false;
        size_t room = fetch->bytes_max > fetch->given ? fetch->bytes_max - fetch->given : 0;
        bool records = fetch->kind == FETCH_RECORDS && row->at != FETCH_AT_TIME;
        row->err = records ? fetch_row(streams, row, room, !fetch->given) : find_row(streams, row);
        fetch->given += row->piece.len;
        fetch->job->err = fetch->job->err ? fetch->job->err : row->err;
    }
    return true;
}

static bool serve_reads(struct streams *streams)
{
    uint32_t count = streams->reads_len, left = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct stream_job *job = streams->reads[i];
        streams->reads[i] = NULL;
        if (job->type == STREAM_FETCH && !serve_fetch(streams, job->fetch)) {
            streams->reads[left++] = job; /* goes on in the next turn */
            continue;
        }
        int err = job->type == STREAM_FETCH ? job->err : read_one(streams, job);
        figure_add(streams, FIGURE_RECORDS_READ, job->count);
        figure_set(streams, FIGURE_BYTES_READ, streams->scan.bytes_read);
        finish(streams, job, err);
        hand_out(streams);
    }
    streams->reads_len = left;
    return count > 0;
}

/* ------------------------------------------------------------------------------------------------ writes, syncs, drops */

static void complain_of_write(struct streams *streams, const struct stream_job *job, int err)
{
    char sentence[SENTENCE_LEN];
    if (err && err != streams->write_err) {
        snprintf(sentence, sizeof sentence,
                 "cannot %s; offsets from %" PRIu64 " on of stream %" PRIu64 ", partition %" PRIu32
                 " stay in memory and in the journal",
                 streams->files.fault, job->first, job->stream, job->partition);
        complain(streams, err, sentence);
    }
    streams->write_err = err;
}

/* The writes at the head of the queue that go together. */
static void write_some(struct streams *streams, struct stream_partition *partition)
{
    struct stream_job *jobs[RUN_JOBS_MAX];
    uint32_t count = 0;
    for (uint16_t at = partition->jobs_first; count < RUN_JOBS_MAX && count < partition->jobs_len;
         at = streams->places[at].next) {
        struct stream_job *job = streams->places[at].job;
        if (job->type != STREAM_WRITE)
            break;
        jobs[count++] = job;
    }
    uint32_t done = stream_write_run(&streams->write, partition, jobs, count);
    complain_of_write(streams, jobs[0], jobs[0]->err);
    for (uint32_t i = 0; i < done; i++) {
        CHECK(queue_take(streams, partition) == jobs[i]);
        if (!jobs[i]->err)
            figure_add(streams, FIGURE_RECORDS_WRITTEN, jobs[i]->next - jobs[i]->first);
        finish(streams, jobs[i], jobs[i]->err);
    }
}

static void tail_of(const struct stream_partition *partition, struct stream_extent *ret)
{
    if (partition->tail)
        *ret = stream_files_last(partition)->extent;
}

static void sync_one(struct streams *streams, struct stream_partition *partition)
{
    char sentence[SENTENCE_LEN];
    struct stream_job *job = queue_take(streams, partition);
    uint64_t syncs = 0;
    int err = stream_files_sync(&streams->files, partition, &syncs);
    figure_add(streams, FIGURE_SYNCS, syncs);
    if (err && !partition->told) {
        snprintf(sentence, sizeof sentence, "cannot %s (stream %" PRIu64 ", partition %" PRIu32 ")",
                 streams->files.fault, job->stream, job->partition);
        complain(streams, err, sentence);
        partition->told = true;
    }
    if (!err)
        tail_of(partition, &job->tail);
    finish(streams, job, err);
}

/* One file; the job stays at the head until there is none left for it. */
static void drop_one(struct streams *streams, struct stream_partition *partition)
{
    char sentence[SENTENCE_LEN];
    bool more;
    int err = stream_files_drop(&streams->files, partition, queue_peek(streams, partition)->until, &more);
    if (err) {
        snprintf(sentence, sizeof sentence, "cannot %s; the next start tries again", streams->files.fault);
        complain(streams, err, sentence);
    }
    if (!more)
        forget_unanswered(streams, queue_take(streams, partition));
}

static void replace_one(struct streams *streams, struct stream_partition *partition)
{
    char sentence[SENTENCE_LEN];
    struct stream_job *job = queue_take(streams, partition);
    struct stream_name name = copy_name(job);
    uint32_t count;
    const struct stream_segment *run = stream_files_run(partition, job->sealed.base, job->sealed.end, &count);
    uint64_t before = 0;
    for (uint32_t i = 0; job->until && run && i < count; i++)
        before += run[i].extent.bytes;
    int err = 0;
    if (job->until)
        err = stream_files_replace(&streams->files, partition, &job->sealed);
    else
        stream_files_give_up_copy(&streams->files, &name);
    if (job->until && err != -EINVAL) {
        figure_add(streams, FIGURE_COMPACT_BEFORE, before);
        figure_add(streams, FIGURE_COMPACT_AFTER, job->sealed.bytes);
    }
    if (err) {
        snprintf(sentence, sizeof sentence, "cannot %s; the next start tries again", streams->files.fault);
        complain(streams, err, sentence);
    }
    forget_unanswered(streams, job);
}

/* What stands at the head of the partition's queue. True: that is enough for a turn. */
static bool serve(struct streams *streams, struct stream_partition *partition)
{
    struct stream_job *job = queue_peek(streams, partition);
    switch (job->type) {
    case STREAM_SYNC: sync_one(streams, partition); return true;
    case STREAM_DROP: drop_one(streams, partition); return true;
    case STREAM_REPLACE: replace_one(streams, partition); return true;
    default: break;
    }
    if (job->count) {
        write_some(streams, partition);
        return false;
    }
    (void)queue_take(streams, partition);
    tail_of(partition, &job->tail);
    finish(streams, job, 0);
    return false;
}

static bool serve_partitions(struct streams *streams)
{
    uint64_t before = streams->write.bytes_written;
    bool did = false, enough = false;
    struct stream_partition *partition;
    while (!enough && (partition = LIST_FIRST(&streams->files.turns, struct stream_partition, turn)) != NULL) {
        list_remove(&partition->turn);
        enough = serve(streams, partition) || streams->write.bytes_written - before >= TURN_BYTES;
        did = true;
        if (partition->jobs_len)
            list_insert(&streams->files.turns, &partition->turn);
        else if (!partition->len)
            stream_files_forget(&streams->files, partition);
    }
    figure_add(streams, FIGURE_BYTES_WRITTEN, streams->write.bytes_written - before);
    return did;
}

/* ---------------------------------------------------------------------------------------------------------- compaction */

static void complain_of_compaction(struct streams *streams, const struct stream_job *job, int err)
{
    char sentence[SENTENCE_LEN];
    const struct stream_scan *scan = &streams->compact.scan;
    if (err == -EILSEQ)
        snprintf(sentence, sizeof sentence,
                 "stream %" PRIu64 ", partition %" PRIu32 " cannot be compacted: its file from offset %" PRIu64
                 " is damaged at position %" PRIu64 ": %s",
                 job->stream, job->partition, scan->base, scan->position, scan->what);
    else
        snprintf(sentence, sizeof sentence,
                 "cannot %s; stream %" PRIu64 ", partition %" PRIu32 " stays as it is, and is compacted later",
                 streams->files.fault, job->stream, job->partition);
    complain(streams, err, sentence);
}

/* True: it did something. */
static bool compact_some(struct streams *streams)
{
    struct stream_compact *compact = &streams->compact;
    struct stream_job *job = compact->job;
    struct os *os = streams->options.os;
    uint64_t rate = streams->options.compact_rate, before = compact->scan.bytes_read;
    int done = -ECANCELED;
    if (!job)
        return false;
    mono_t now = os->now_mono(os);
    if (desk_is_stopping(&streams->desk))
        stream_compact_cancel(compact);
    else if (rate && now < streams->compact_at)
        return false;
    else
        done = stream_compact_step(compact);
    uint64_t read = compact->scan.bytes_read - before;
    figure_add(streams, FIGURE_COMPACT_READ, read);
    if (rate)
        streams->compact_at = now + (mono_t)((double)read * NS_PER_S / (double)rate);
    if (done < 0 && done != -ECANCELED && done != -ESTALE)
        complain_of_compaction(streams, job, done);
    if (done)
        finish(streams, job, done < 0 ? done : 0);
    return true;
}

/* ---------------------------------------------------------------------------------------------------------------- turns */

bool streams_step(struct streams *streams)
{
    CHECK(streams->swept);
    slab_heap_drain(&streams->heap);
    parking_look(&streams->files.parking, &streams->desk.hold);
    bool did = take_in(streams);
    hand_out(streams); /* what was left the last time */
    did = serve_reads(streams) || did;
    did = serve_partitions(streams) || did;
    did = compact_some(streams) || did;
    did = parking_step(&streams->files.parking) || did;
    publish_segments(streams);
    hand_out(streams);
    return did;
}

static bool turn(void *arg)
{
    return streams_step(arg);
}

static int64_t wait_ns(void *arg)
{
    struct streams *streams = arg;
    int64_t ns = desk_wait_ns(&streams->desk, &streams->heap);
    if (streams->compact.job && !desk_untaken(&streams->desk)) {
        int64_t left = streams->compact_at - streams->options.os->now_mono(streams->options.os);
        ns = left < 0 ? 0 : ns < 0 || left < ns ? left : ns;
    }
    return ns;
}

void streams_hold(struct streams *streams, bool on)
{
    desk_hold(&streams->desk, on);
}

bool streams_held(const struct streams *streams)
{
    return desk_held(&streams->desk);
}

int streams_start(struct streams *streams)
{
    CHECK(streams->swept);
    return desk_start(&streams->desk, "streams");
}

void streams_stop(struct streams *streams)
{
    if (desk_stop(&streams->desk))
        return;
    while (streams->swept && streams_step(streams))
        continue;
}

/* Jobs of either direction that nobody will have. */
static void forget_jobs(struct streams *streams)
{
    struct stream_job *job;
    for (unsigned i = 0; i < STREAMS_JOBS_MAX; i++)
        if (streams->places[i].job)
            stream_job_free(&streams->heap, &streams->places[i].job);
    job = streams->compact.job;
    stream_compact_fini(&streams->compact);
    stream_job_free(&streams->heap, &job);
    for (uint32_t i = 0; i < streams->reads_len; i++)
        stream_job_free(&streams->heap, &streams->reads[i]);
    while ((job = desk_next(&streams->desk)) != NULL)
        stream_job_free(&streams->heap, &job);
    while ((job = desk_take(&streams->desk)) != NULL)
        stream_job_free(&streams->heap, &job);
}

void streams_close(struct streams **slot)
{
    struct streams *streams = *slot;
    *slot = NULL;
    if (!streams)
        return;
    forget_jobs(streams);
    stream_write_fini(&streams->write);
    stream_scan_fini(&streams->scan);
    if (streams->files.os)
        stream_files_close(&streams->files);
    desk_fini(&streams->desk);
    slab_heap_fini(&streams->heap);
    mem_free(streams);
}
