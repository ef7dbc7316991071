/* The store's turn: take in what was submitted, serve all reads, drop one segment, write one batch, hand out.
 *
 * A batch is what the queue of writes holds, up to about 4 MiB: encoded back to back into one buffer, one write, and one
 * sync when any of them asks for it. There is no timer: what is submitted during the sync is the next batch. Reads come
 * first, because somebody waits for a delivery there; a batch of 4 MiB is what a read may have to wait for at most.
 * A file is removed at a time, as that can take milliseconds.
 *
 * Jobs come and go over a desk (desk.h), so the owner and this thread share no lock.
 *
 * Threads: store, but for the owner's functions. Published atomics: figures (store), and the desk's.
 */
#include "store/store.h"

#include "base/check.h"
#include "base/mem.h"
#include "store/desk.h"
#include "store/page_format.h"
#include "store/segments.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define SEGMENT_BYTES_DEFAULT (64u * 1024 * 1024)
#define SEGMENT_BYTES_MIN (64u * 1024)
#define SEGMENT_BYTES_MAX (1024u * 1024 * 1024)
#define BATCH_BYTES (4u * 1024 * 1024)
#define BUFFER_FIRST (256u * 1024)
#define BUFFER_KEPT (2 * BATCH_BYTES) /* a longer buffer goes back at once */
#define SENTENCE_LEN 400

/* Figures that any thread may read; only the store's thread writes them. */
enum figure {
    FIGURE_PAGES_WRITTEN,
    FIGURE_PAGES_READ,
    FIGURE_PAGES_FAILED,
    FIGURE_BYTES_WRITTEN,
    FIGURE_BYTES_READ,
    FIGURE_SYNCS,
    FIGURE_SEGMENTS,
    FIGURE_COUNT
};

/* Has room for all jobs that can be under way. */
struct job_queue {
    struct page_job *at[STORE_JOBS_MAX];
    uint32_t head, len;
};

struct store {
    struct store_options options;
    struct desk desk; /* of struct page_job */
    bool swept;       /* boot */
    _Atomic uint64_t figures[FIGURE_COUNT];

    /* store's thread */
    struct slab_heap heap;
    struct segments segments;
    struct job_queue reads, drops, writes;
    uint8_t *buffer; /* aligned to the block: the page being read, the batch being written */
    size_t buffer_cap;
    int write_err; /* of the last batch: the same trouble is told once */
};

struct batch {
    uint32_t count; /* of writes, from the head of the queue */
    uint64_t bytes;
    bool sync;
};

/* ---------------------------------------------------------------------------------------------------------------- boot */

static bool turn(void *arg);
static int64_t wait_ns(void *arg);

static int told(const struct store *store, int err, char *why, size_t why_len)
{
    if (err)
        snprintf(why, why_len, "%s%s", err == -EILSEQ || err == -EPROTO ? "" : "cannot ", store->segments.fault);
    return err;
}

static int open_parts(struct store *store, char *why, size_t why_len)
{
    const struct store_options *options = &store->options;
    uint64_t bytes_max = options->segment_bytes_max ? options->segment_bytes_max : SEGMENT_BYTES_DEFAULT;
    if (bytes_max < SEGMENT_BYTES_MIN || bytes_max > SEGMENT_BYTES_MAX) {
        snprintf(why, why_len, "the size of a segment must be from 65536 bytes to 1 GiB, not %" PRIu64, bytes_max);
        return -EINVAL;
    }
    if (!desk_init(&store->desk, STORE_JOBS_MAX)) {
        snprintf(why, why_len, "no memory to open the store");
        return -ENOMEM;
    }
    int err = segments_open(&store->segments, options->os, options->dir, options->uuid, bytes_max);
    return told(store, err, why, why_len);
}

int store_open(const struct store_options *options, struct store **ret, char *why, size_t why_len)
{
    struct store *store = mem_zalloc(sizeof *store);
    if (!store) {
        snprintf(why, why_len, "no memory to open the store");
        return -ENOMEM;
    }
    store->options = *options;
    store->desk = (struct desk){.turn = turn, .wait_ns = wait_ns, .arg = store};
    store->segments.fd = -1;
    slab_heap_init(&store->heap);
    int err = open_parts(store, why, why_len);
    if (err)
        store_close(&store);
    else
        *ret = store;
    return err;
}

int store_keep(struct store *store, uint32_t segment, uint64_t end_offset, char *why, size_t why_len)
{
    CHECK(!store->swept);
    return told(store, segments_keep(&store->segments, segment, end_offset), why, why_len);
}

static void figure_add(struct store *store, enum figure figure, uint64_t more)
{
    atomic_fetch_add_explicit(&store->figures[figure], more, memory_order_relaxed);
}

static void publish_segments(struct store *store)
{
    atomic_store_explicit(&store->figures[FIGURE_SEGMENTS], store->segments.files_len, memory_order_relaxed);
}

int store_sweep(struct store *store, char *why, size_t why_len)
{
    CHECK(!store->swept);
    int err = segments_sweep(&store->segments);
    store->swept = err == 0;
    publish_segments(store);
    return told(store, err, why, why_len);
}

/* --------------------------------------------------------------------------------------------------------------- owner */

bool store_submit(struct store *store, struct page_job **job)
{
    if (!desk_submit(&store->desk, *job))
        return false;
    *job = NULL;
    return true;
}

struct page_job *store_take(struct store *store)
{
    return desk_take(&store->desk);
}

void store_wake(struct store *store)
{
    desk_wake(&store->desk);
}

static uint64_t figure(const struct store *store, enum figure which)
{
    return atomic_load_explicit(&store->figures[which], memory_order_relaxed);
}

void store_stats(const struct store *store, struct store_stats *ret)
{
    *ret = (struct store_stats){
        .pages_written = figure(store, FIGURE_PAGES_WRITTEN),
        .pages_read = figure(store, FIGURE_PAGES_READ),
        .pages_failed = figure(store, FIGURE_PAGES_FAILED),
        .bytes_written = figure(store, FIGURE_BYTES_WRITTEN),
        .bytes_read = figure(store, FIGURE_BYTES_READ),
        .syncs = figure(store, FIGURE_SYNCS),
        .segments = figure(store, FIGURE_SEGMENTS),
    };
}

/* -------------------------------------------------------------------------------------------------------- jobs in, out */

static void job_put(struct job_queue *queue, struct page_job *job)
{
    CHECK(queue->len < STORE_JOBS_MAX);
    queue->at[(queue->head + queue->len++) % STORE_JOBS_MAX] = job;
}

static struct page_job *job_peek(const struct job_queue *queue, uint32_t i)
{
    return queue->at[(queue->head + i) % STORE_JOBS_MAX];
}

static struct page_job *job_take(struct job_queue *queue)
{
    if (!queue->len)
        return NULL;
    struct page_job *job = job_peek(queue, 0);
    queue->head = (queue->head + 1) % STORE_JOBS_MAX;
    queue->len--;
    return job;
}

/* How long the page will be stands in where.len until it is written: looking at every message costs, so it is done once. */
static void measure(struct page_job *job)
{
    uint64_t len = page_len(job);
    job->where.len = len <= PAGE_LEN_MAX ? (uint32_t)len : UINT32_MAX;
}

static void take_in(struct store *store)
{
    struct page_job *job;
    if (store->options.on_turn)
        store->options.on_turn(store->options.arg);
    while ((job = desk_next(&store->desk)) != NULL) {
        switch (job->type) {
        case PAGE_READ: job_put(&store->reads, job); break;
        case PAGE_DROP: job_put(&store->drops, job); break;
        case PAGE_WRITE:
            measure(job);
            job_put(&store->writes, job);
            break;
        }
    }
}

static void finish(struct store *store, struct page_job *job, int err)
{
    CHECK(err <= 0);
    job->err = err;
    if (err)
        figure_add(store, FIGURE_PAGES_FAILED, 1);
    desk_finish(&store->desk, job);
}

static void hand_out(struct store *store)
{
    if (store->options.on_done && desk_untaken(&store->desk))
        store->options.on_done(store->options.arg);
}

static void complain(struct store *store, int err, const char *sentence)
{
    if (store->options.on_fault)
        store->options.on_fault(store->options.arg, err, sentence);
}

/* -------------------------------------------------------------------------------------------------------------- buffer */

static bool buffer_reserve(struct store *store, uint64_t len)
{
    size_t cap = store->buffer_cap ? store->buffer_cap : BUFFER_FIRST;
    if (len <= store->buffer_cap)
        return true;
    while (cap < len && cap < BUFFER_KEPT)
        cap *= 2;
    if (cap < len)
        cap = (size_t)layout_blocks(len);
    uint8_t *buffer = mem_aligned_as(MEM_STORE, LAYOUT_BLOCK, cap);
    if (!buffer)
        return false;
    mem_free_as(MEM_STORE, store->buffer);
    store->buffer = buffer;
    store->buffer_cap = cap;
    return true;
}

static void buffer_release(struct store *store)
{
    if (store->buffer_cap <= BUFFER_KEPT)
        return;
    mem_free_as(MEM_STORE, store->buffer);
    store->buffer = NULL;
    store->buffer_cap = 0;
}

/* --------------------------------------------------------------------------------------------------------------- reads */

static int read_page(struct store *store, struct page_job *job, const char **ret_what)
{
    const struct page_where *where = &job->where;
    int fd;
    *ret_what = store->segments.fault;
    int err = segments_find(&store->segments, where, &fd); /* before memory is spent on a length that may be wrong */
    if (err)
        return err;
    if (!buffer_reserve(store, where->len)) {
        *ret_what = "no memory";
        return -ENOMEM;
    }
    err = segments_read(&store->segments, fd, where, store->buffer);
    if (err)
        return err;
    uint32_t seed = page_seed(store->segments.uuid, where->segment, where->offset);
    if (job->count == 1 && where->len >= PAGE_OWN_BYTES) {
        err = page_decode_one(&store->buffer, where->len, seed, job, ret_what);
        store->buffer_cap = store->buffer ? store->buffer_cap : 0;
        return err;
    }
    return page_decode(slice_of(store->buffer, where->len), seed, &store->heap, job, ret_what);
}

static void complain_of_read(struct store *store, const struct page_job *job, int err, const char *what)
{
    char sentence[SENTENCE_LEN], positions[64] = "";
    uint64_t first = job->items[0].position, last = job->items[job->count - 1].position;
    if (first || last)
        snprintf(positions, sizeof positions, ", positions %" PRIu64 " to %" PRIu64, first, last);
    snprintf(sentence, sizeof sentence,
             "seg/s-%016" PRIx32 " at offset %" PRIu32 " (%" PRIu32 " bytes): %" PRIu32 " messages of queue %" PRIu64
             "%s cannot be read: %s",
             job->where.segment, job->where.offset, job->where.len, job->count, job->queue, positions, what);
    complain(store, err, sentence);
}

static bool serve_reads(struct store *store)
{
    struct page_job *job;
    bool did = false;
    while ((job = job_take(&store->reads)) != NULL) {
        const char *what;
        did = true;
        int err = read_page(store, job, &what);
        if (err) {
            complain_of_read(store, job, err, what);
        } else {
            figure_add(store, FIGURE_PAGES_READ, 1);
            figure_add(store, FIGURE_BYTES_READ, job->where.len);
        }
        buffer_release(store);
        finish(store, job, err);
        hand_out(store);
    }
    return did;
}

/* --------------------------------------------------------------------------------------------------------------- drops */

static bool drop_one(struct store *store)
{
    char sentence[SENTENCE_LEN];
    struct page_job *job = job_take(&store->drops);
    if (!job)
        return false;
    int err = segments_drop(&store->segments, job->where.segment, (uint64_t)job->where.offset + job->where.len);
    if (err) {
        snprintf(sentence, sizeof sentence, "cannot %s; the next start tries again", store->segments.fault);
        complain(store, err, sentence);
    }
    page_job_free(&store->heap, &job);
    desk_drop(&store->desk);
    return true;
}

/* -------------------------------------------------------------------------------------------------------------- writes */

/* A large message is written from where it is, into a file of its own. */
static bool is_large(const struct page_job *job)
{
    return job->count == 1 && msg_size(job->items[0].msg) >= PAGE_OWN_BYTES;
}

/* As many writes as fit into limit bytes, one at least. */
static struct batch batch_of(const struct store *store, uint64_t limit)
{
    struct batch batch = {0};
    while (batch.count < store->writes.len) {
        const struct page_job *job = job_peek(&store->writes, batch.count);
        uint64_t len = job->where.len;
        if (batch.count && (len > limit - batch.bytes || is_large(job)))
            break;
        batch.bytes += len;
        batch.sync = batch.sync || job->sync;
        batch.count++;
        if (batch.bytes >= limit)
            break;
    }
    return batch;
}

/* Puts the pages of a batch into the buffer and says where they will be. */
static void encode(struct store *store, const struct batch *batch)
{
    uint32_t at = 0, segment = store->segments.open;
    for (uint32_t i = 0; i < batch->count; i++) {
        struct page_job *job = job_peek(&store->writes, i);
        uint32_t offset = (uint32_t)store->segments.offset + at, len = job->where.len;
        page_encode(job, page_seed(store->segments.uuid, segment, offset), store->buffer + at, len);
        job->where = (struct page_where){.segment = segment, .offset = offset, .len = len};
        at += len;
    }
    CHECK(at == batch->bytes);
    memset(store->buffer + at, 0, (size_t)layout_blocks(at) - at);
}

/* Writes the head of the queue; *batch is at last what was written, or what has failed. */
static int write_some(struct store *store, struct batch *batch)
{
    struct segments *segments = &store->segments;
    uint64_t first = job_peek(&store->writes, 0)->where.len;
    *batch = batch_of(store, BATCH_BYTES);
    snprintf(segments->fault, sizeof segments->fault, "encode a page: no memory, or it is too large");
    if (first > PAGE_LEN_MAX) {
        *batch = batch_of(store, 1);
        return -EFBIG;
    }
    int err = segments_prepare(segments, first);
    if (err)
        return err;
    uint64_t room = segments_room(segments);
    if (batch->bytes > room)
        *batch = batch_of(store, room);
    if (!buffer_reserve(store, layout_blocks(batch->bytes))) {
        if (store->buffer_cap < first)
            return -ENOMEM;
        *batch = batch_of(store, store->buffer_cap); /* the store makes memory free: go on with what there is */
    }
    encode(store, batch);
    return segments_append(segments, store->buffer, (size_t)batch->bytes, batch->sync);
}

static void complain_of_write(struct store *store, int err, uint32_t count)
{
    char sentence[SENTENCE_LEN];
    if (err && err != store->write_err) {
        snprintf(sentence, sizeof sentence, "cannot %s; %" PRIu32 " pages stay in memory", store->segments.fault,
                 count);
        complain(store, err, sentence);
    }
    store->write_err = err;
}

static int write_large(struct store *store, struct batch *batch)
{
    struct segments *segments = &store->segments;
    struct page_job *job = job_peek(&store->writes, 0);
    const struct msg *msg = job->items[0].msg;
    uint8_t head[PAGE_HEAD_MAX];
    *batch = batch_of(store, 1);
    snprintf(segments->fault, sizeof segments->fault, "encode a page: it is too large");
    if (batch->bytes > PAGE_LEN_MAX)
        return -EFBIG;
    int err = segments_prepare_own(segments);
    if (err)
        return err;
    uint32_t offset = (uint32_t)segments->offset, segment = segments->open;
    size_t len = page_encode_head(job, page_seed(segments->uuid, segment, offset), head);
    struct slice parts[] = {slice_of(head, len), slice_of(msg->bytes, msg_size(msg) - sizeof *msg)};
    CHECK(parts[0].len + parts[1].len == batch->bytes);
    err = segments_append_parts(segments, parts, 2, batch->sync);
    if (err)
        return err;
    segments_seal(segments);
    job->where = (struct page_where){.segment = segment, .offset = offset, .len = (uint32_t)batch->bytes};
    return 0;
}

static bool write_batch(struct store *store)
{
    struct batch batch;
    if (!store->writes.len)
        return false;
    int err = is_large(job_peek(&store->writes, 0)) ? write_large(store, &batch) : write_some(store, &batch);
    complain_of_write(store, err, batch.count);
    if (!err) {
        figure_add(store, FIGURE_PAGES_WRITTEN, batch.count);
        figure_add(store, FIGURE_BYTES_WRITTEN, layout_blocks(batch.bytes));
        figure_add(store, FIGURE_SYNCS, batch.sync);
    }
    for (uint32_t i = 0; i < batch.count; i++) {
        struct page_job *job = job_take(&store->writes);
        if (err)
            job->where = (struct page_where){0};
        finish(store, job, err);
    }
    buffer_release(store);
    return true;
}

/* ---------------------------------------------------------------------------------------------------------------- turns */

bool store_step(struct store *store)
{
    CHECK(store->swept);
    slab_heap_drain(&store->heap);
    parking_look(&store->segments.parking, &store->desk.hold);
    take_in(store);
    hand_out(store); /* what was left the last time */
    bool did = serve_reads(store);
    did = drop_one(store) || did;
    did = parking_step(&store->segments.parking) || did;
    did = write_batch(store) || did;
    publish_segments(store);
    hand_out(store);
    return did;
}

static bool turn(void *arg)
{
    return store_step(arg);
}

static int64_t wait_ns(void *arg)
{
    struct store *store = arg;
    return desk_wait_ns(&store->desk, &store->heap);
}

void store_hold(struct store *store, bool on)
{
    desk_hold(&store->desk, on);
}

bool store_held(const struct store *store)
{
    return desk_held(&store->desk);
}

int store_start(struct store *store)
{
    CHECK(store->swept);
    return desk_start(&store->desk, "store");
}

void store_stop(struct store *store)
{
    if (desk_stop(&store->desk))
        return;
    while (store->swept && store_step(store))
        continue;
}

/* Jobs of one direction that nobody will have. */
static void forget_jobs(struct store *store)
{
    struct job_queue *const queues[] = {&store->reads, &store->drops, &store->writes};
    struct page_job *job;
    for (unsigned i = 0; i < ARRAY_LEN(queues); i++)
        while ((job = job_take(queues[i])) != NULL)
            page_job_free(&store->heap, &job);
    while ((job = desk_next(&store->desk)) != NULL)
        page_job_free(&store->heap, &job);
    while ((job = desk_take(&store->desk)) != NULL)
        page_job_free(&store->heap, &job);
}

void store_close(struct store **slot)
{
    struct store *store = *slot;
    *slot = NULL;
    if (!store)
        return;
    forget_jobs(store);
    segments_close(&store->segments);
    mem_free_as(MEM_STORE, store->buffer);
    desk_fini(&store->desk);
    slab_heap_fini(&store->heap);
    mem_free(store);
}
