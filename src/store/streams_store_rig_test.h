/* streams_store_rig_test: a stream store on the simulated disk and its owner, who knows what the journal would: what was asked,
 * what was answered, what is synced. Every read is compared with what was written there. Test code only, one thread.
 */
#ifndef MILLRACE_STORE_STREAMS_STORE_RIG_TEST_H
#define MILLRACE_STORE_STREAMS_STORE_RIG_TEST_H

#include "base/mem.h"
#include "core/fetch.h"
#include "os/os_sim.h"
#include "store/stream_format.h"
#include "store/streams.h"
#include "store/streams_test_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define PARTS_MAX 400
#define SEALED_MAX 400

struct named { /* what a journal would name */
    uint64_t start;
    struct stream_extent sealed[SEALED_MAX], tail;
    uint32_t count;
};

struct part { /* as the core knows it */
    uint64_t stream;
    uint32_t partition;
    uint64_t next;     /* offset of the next message: all below are in the journal */
    uint64_t sent;     /* below it: submitted */
    struct named *now; /* as answered */
    struct named *synced;
    bool failed; /* a sync failed */
};

struct rig {
    struct os_sim *sim;
    struct streams *streams;
    struct slab_heap heap; /* the core's */
    struct streams_options options;
    char why[512], sentence[700];
    unsigned faults;
    struct part parts[PARTS_MAX];
    unsigned parts_len, submitted, answered;
    uint64_t segment_bytes, dice;
    wall_t seal_before;
    uint32_t body_max;
    struct file_piece piece; /* of the last fetch */
    bool damaged;            /* by the test: batches have other offsets */
};

static inline void on_fault(void *arg, int err, const char *sentence)
{
    struct rig *rig = arg;
    assert_true(err < 0);
    snprintf(rig->sentence, sizeof rig->sentence, "%s", sentence);
    rig->faults++;
}

static inline struct rig *rig_new(uint64_t seed)
{
    struct rig *rig = calloc(1, sizeof *rig);
    rig->sim = os_sim_new(seed);
    rig->dice = seed;
    rig->segment_bytes = 64 * 1024;
    rig->body_max = 300;
    slab_heap_init(&rig->heap);
    rig->options = (struct streams_options){
        .os = os_sim_os(rig->sim), .dir = "d", .uuid = "0123456789abcde", .on_fault = on_fault, .arg = rig};
    assert_int_equal(os_sim_os(rig->sim)->mkdir(os_sim_os(rig->sim), "d"), 0);
    assert_int_equal(os_sim_os(rig->sim)->sync_dir(os_sim_os(rig->sim), "."), 0);
    return rig;
}

static inline void rig_free(struct rig *rig)
{
    file_piece_fini(&rig->piece);
    streams_close(&rig->streams);
    for (unsigned i = 0; i < rig->parts_len; i++) {
        free(rig->parts[i].now);
        free(rig->parts[i].synced);
    }
    slab_heap_fini(&rig->heap);
    os_sim_free(&rig->sim);
    free(rig);
}

static inline struct part *rig_part(struct rig *rig, uint64_t stream, uint32_t partition, uint64_t first)
{
    struct part *part = &rig->parts[rig->parts_len++];
    assert_true(rig->parts_len <= PARTS_MAX);
    *part = (struct part){.stream = stream, .partition = partition, .next = first, .sent = first};
    part->now = calloc(1, sizeof *part->now);
    part->synced = calloc(1, sizeof *part->synced);
    part->now->start = part->synced->start = first;
    part->now->tail.base = part->now->tail.end = first;
    part->synced->tail = part->now->tail;
    return part;
}

static inline int rig_open_keeping(struct rig *rig)
{
    rig->why[0] = '\0';
    int err = streams_open(&rig->options, &rig->streams, rig->why, sizeof rig->why);
    for (unsigned i = 0; i < rig->parts_len && !err; i++) {
        const struct part *part = &rig->parts[i];
        const struct named *named = part->synced;
        err = streams_keep(rig->streams, part->stream, part->partition, named->start, named->sealed, named->count,
                           &named->tail, rig->why, sizeof rig->why);
    }
    if (!err)
        err = streams_sweep(rig->streams, rig->why, sizeof rig->why);
    assert_true(!err || rig->why[0]);
    if (err)
        streams_close(&rig->streams);
    return err;
}

static inline void rig_open(struct rig *rig)
{
    if (rig_open_keeping(rig))
        fail_msg("open: %s", rig->why);
}

static inline bool rig_submit(struct rig *rig, struct stream_job *job)
{
    if (!job)
        return false;
    bool answered = job->type != STREAM_DROP;
    bool took = streams_submit(rig->streams, &job);
    assert_true(took == !job);
    stream_job_free(&rig->heap, &job);
    rig->submitted += took && answered;
    return took;
}

static inline struct stream_job *rig_job(struct part *part, enum stream_job_type type, uint32_t max)
{
    struct stream_job *job = stream_job_new(type, max);
    if (!job)
        return NULL;
    job->stream = part->stream;
    job->partition = part->partition;
    job->ticket = (uint64_t)(uintptr_t)part;
    return job;
}

static inline struct msg *message_at(struct rig *rig, const struct part *part, uint64_t offset)
{
    return rig_message(&rig->heap, part->stream, part->partition, offset, rig->body_max);
}

static bool as_batches;    /* messages come in batches, as from a Kafka client that copies a stream … */
static unsigned kinds = 5; /* … packed by so many kinds of compression, none included */

static inline bool encode(struct rig *rig, const struct part *part, uint64_t from, uint32_t count, struct writer *w,
                          struct stream_scratch *scratch)
{
    struct record_batch_writer batch;
    struct record_batch head = record_batch_head((int64_t)from, rig_time(part->stream, from));
    bool ok = true;
    record_batch_begin(&batch, w, &head);
    for (uint32_t i = 0; ok && i < count; i++) {
        struct msg *msg = message_at(rig, part, from + i);
        ok = msg && stream_record_put(&batch, rig_time(part->stream, from + i), msg, scratch) == 0;
        if (msg)
            msg_unref(&rig->heap, msg);
    }
    if (ok)
        (void)record_batch_finish(&batch, -1);
    return ok;
}

/* The messages [from, from + count) as one, packed by some kind of compression. NULL: no memory. */
static inline struct msg *batch_at(struct rig *rig, const struct part *part, uint64_t from, uint32_t count)
{
    size_t max = 4096 + count * (65536 + 40 * (size_t)rig->body_max);
    static struct compress *z; /* these two are kept: there are very many batches */
    static uint8_t *room;
    static size_t room_len;
    if (room_len < 2 * max)
        room = realloc(room, room_len = 2 * max);
    struct writer w = writer_of(room, 2 * max);
    struct stream_scratch scratch = {0};
    struct msg *msg = NULL;
    struct slice none = {0}, bytes = {0};
    z = z ? z : compress_new();
    if (z && encode(rig, part, from, count, &w, &scratch)) {
        size_t len = w.len;
        enum compress_kind kind = (enum compress_kind)(from % kinds);
        if (record_batch_repack(slice_of(w.base, len), kind, 0, z, max, &w) == RECORD_OK)
            bytes = slice_of(w.base + len, w.len - len);
    }
    if (bytes.len && (msg = msg_new(&rig->heap, none, none, none, bytes.len)) != NULL) {
        memcpy(msg_body_room(msg), bytes.ptr, bytes.len);
        msg->flags = MSG_BATCH;
        assert_int_equal(msg_offsets(msg), count);
    }
    stream_scratch_fini(&scratch);
    return msg;
}

/* The messages [from, from + count). */
static inline bool rig_write_at(struct rig *rig, struct part *part, uint64_t from, uint32_t count)
{
    struct stream_job *job = rig_job(part, STREAM_WRITE, count);
    for (uint32_t i = 0, n = 1; job && i < count; i += n) {
        n = as_batches ? 1 + (uint32_t)(from + i) % 7 : 1;
        n = n < count - i ? n : count - i;
        job->items[job->count++] = (struct stream_item){.offset = from + i,
                                                        .timestamp = rig_time(part->stream, from + i),
                                                        .msg = as_batches ? batch_at(rig, part, from + i, n)
                                                                          : message_at(rig, part, from + i)};
        if (!job->items[job->count - 1].msg)
            stream_job_free(&rig->heap, &job);
    }
    if (!job)
        return false;
    job->first = from;
    job->next = from + count;
    job->segment_bytes = rig->segment_bytes;
    job->seal_before = rig->seal_before;
    return rig_submit(rig, job);
}

/* count more of them. */
static inline bool rig_write(struct rig *rig, struct part *part, uint32_t count)
{
    uint64_t from = part->sent;
    part->sent += count;
    part->next = part->sent > part->next ? part->sent : part->next;
    return rig_write_at(rig, part, from, count);
}

static inline void take_write(struct part *part, const struct stream_job *job)
{
    struct named *now = part->now;
    if (job->err) {
        assert_int_equal(job->tail.bytes, 0);
        part->sent = job->first < part->sent ? job->first : part->sent; /* once more, when it is told to */
        return;
    }
    assert_int_equal(now->tail.end, job->first); /* in their order, without a gap */
    if (job->sealed.end > job->sealed.base) {
        assert_memory_equal(&job->sealed, &now->tail, sizeof now->tail);
        assert_true(now->count < SEALED_MAX);
        now->sealed[now->count++] = now->tail;
        assert_int_equal(job->tail.base, job->sealed.end);
    } else if (now->tail.end > now->tail.base) {
        assert_int_equal(job->tail.base, now->tail.base);
        assert_true(job->tail.bytes > now->tail.bytes);
    }
    assert_int_equal(job->tail.end, job->next);
    now->tail = job->tail;
}

/* What came is what was written there. */
static inline void check_items(struct rig *rig, const struct part *part, const struct stream_job *job)
{
    uint64_t at = job->first;
    for (uint32_t i = 0; i < job->count; i++) {
        const struct stream_item *item = &job->items[i];
        struct msg *msg = rig_message(&rig->heap, part->stream, part->partition, item->offset, rig->body_max);
        assert_true(item->offset >= at && item->offset < job->until);
        assert_true(item->timestamp == rig_time(part->stream, item->offset));
        assert_true(rig_same_message(msg, item->msg));
        msg_unref(&rig->heap, msg);
        at = item->offset + 1;
    }
    assert_true(job->next >= at && job->next <= (job->until > job->first ? job->until : job->first));
}

/* Whole batches with good checksums that join, from the one with `offset` or the next on, none that ends above `until`. Behind
 * the last. */
static inline uint64_t check_piece(const struct rig *rig, const struct fetch *fetch)
{
    const struct fetch_row *row = &fetch->rows[0];
    const struct file_piece *piece = &row->piece;
    assert_true(!piece->file == !piece->len);
    if (!piece->file)
        return row->offset;
    uint8_t *bytes = malloc(piece->len);
    int64_t got = piece->file->read(piece->file, bytes, piece->len, piece->position);
    if (got < 0) { /* the disk of a test that makes it fail */
        free(bytes);
        return row->offset;
    }
    assert_int_equal(got, piece->len);
    struct reader r = reader_of(slice_of(bytes, piece->len));
    struct record_batch batch;
    struct slice one;
    uint64_t at = 0;
    unsigned count = 0;
    while (record_batch_take(&r, &batch, &one) == RECORD_OK) {
        assert_true(record_batch_crc_ok(one));
        assert_true(count == 0 || (uint64_t)batch.base_offset >= at || rig->damaged);
        at = (uint64_t)record_batch_last_offset(&batch) + 1;
        assert_true((at > row->offset && at <= row->until) || rig->damaged);
        count++;
    }
    assert_true(reader_ok(&r) && r.left == 0);
    assert_true((piece->len <= row->bytes_max && piece->len <= fetch->bytes_max) || count == 1);
    free(bytes);
    return at;
}

/* The answers: what the core would do with them. Returns err of the last one; a read's and find's next in *ret. */
static inline int rig_take_next(struct rig *rig, uint64_t *ret)
{
    int err = 0;
    struct stream_job *job;
    while ((job = streams_take(rig->streams)) != NULL) {
        struct part *part = (struct part *)(uintptr_t)job->ticket;
        err = job->err;
        rig->answered++;
        switch (job->type) {
        case STREAM_WRITE:
            for (uint32_t i = 0; i < job->count; i++)
                assert_non_null(job->items[i].msg);
            take_write(part, job);
            break;
        case STREAM_SYNC:
            part->failed = part->failed || err;
            if (!err) {
                assert_memory_equal(&job->tail, &part->now->tail, job->tail.bytes ? sizeof job->tail : 0);
                *part->synced = *part->now;
            }
            break;
        case STREAM_READ:
            assert_true(!err || job->count == 0);
            check_items(rig, part, job);
            break;
        case STREAM_FETCH:
            assert_true(!err || !job->fetch->rows[0].piece.file);
            if (!err)
                job->next = check_piece(rig, job->fetch);
            file_piece_fini(&rig->piece);
            rig->piece = job->fetch->rows[0].piece; /* the last one is held */
            job->fetch->rows[0].piece = (struct file_piece){0};
            break;
        default: break;
        }
        if (ret)
            *ret = job->next;
        stream_job_free(&rig->heap, &job);
    }
    return err;
}

static inline int rig_take(struct rig *rig)
{
    return rig_take_next(rig, NULL);
}

static inline int rig_steps(struct rig *rig)
{
    int err = 0;
    while (streams_step(rig->streams)) {
        int e = rig_take(rig);
        err = e ? e : err;
    }
    assert_int_equal(rig->answered, rig->submitted);
    return err;
}

static inline int rig_read_next(struct rig *rig, struct part *part, uint64_t first, uint64_t until, uint32_t max,
                                uint32_t bytes_max, uint64_t *ret)
{
    struct stream_job *job = rig_job(part, STREAM_READ, max);
    job->first = first;
    job->until = until;
    job->bytes_max = bytes_max;
    assert_true(rig_submit(rig, job));
    while (streams_step(rig->streams) && rig->answered < rig->submitted - 1)
        continue;
    return rig_take_next(rig, ret);
}

static inline struct stream_job *fetch_job(struct part *part, uint64_t first, uint64_t until, uint32_t bytes_max)
{
    struct fetch *fetch = fetch_new(FETCH_RECORDS, 1);
    if (!fetch)
        return NULL;
    fetch->bytes_max = UINT32_MAX;
    fetch->rows[0] = (struct fetch_row){
        .stream = part->stream, .partition = part->partition, .offset = first, .until = until, .bytes_max = bytes_max};
    fetch->job->ticket = (uint64_t)(uintptr_t)part;
    return fetch->job;
}

/* The answer's piece is then in rig->piece. */
static inline int rig_fetch(struct rig *rig, struct part *part, uint64_t first, uint64_t until, uint32_t bytes_max,
                            uint64_t *ret_next)
{
    assert_true(rig_submit(rig, fetch_job(part, first, until, bytes_max)));
    while (streams_step(rig->streams))
        continue;
    return rig_take_next(rig, ret_next);
}

static inline uint64_t rig_find(struct rig *rig, struct part *part, uint64_t first, uint64_t until, wall_t timestamp)
{
    uint64_t next = 0;
    struct stream_job *job = rig_job(part, STREAM_FIND, 0);
    job->first = first;
    job->until = until;
    job->timestamp = timestamp;
    assert_true(rig_submit(rig, job));
    while (streams_step(rig->streams))
        continue;
    assert_int_equal(rig_take_next(rig, &next), 0);
    return next;
}

static inline bool rig_sync(struct rig *rig, struct part *part)
{
    return rig_submit(rig, rig_job(part, STREAM_SYNC, 0));
}

static inline bool rig_drop(struct rig *rig, struct part *part, uint64_t until)
{
    struct stream_job *job = rig_job(part, STREAM_DROP, 0);
    if (job)
        job->until = until;
    return rig_submit(rig, job);
}

/* Everything that is written is read, in bites. */
static inline void rig_all_readable(struct rig *rig, struct part *part)
{
    uint64_t at = part->now->start, end = part->now->tail.end;
    for (unsigned i = 0; at < end; i++) {
        uint64_t next = at;
        int err = rig_read_next(rig, part, at, end, 1 + i * 37 % 500, i % 3 ? 1u << 20 : 3000, &next);
        if (err || next <= at)
            fail_msg("read at %llu of %llu: %d, %s", (unsigned long long)at, (unsigned long long)end, err,
                     rig->sentence);
        at = next;
    }
}

static inline void rig_all_parts_readable(struct rig *rig)
{
    for (unsigned i = 0; i < rig->parts_len; i++)
        rig_all_readable(rig, &rig->parts[i]);
}

static inline void rig_write_now(struct rig *rig, struct part *part, uint32_t count)
{
    assert_true(rig_write(rig, part, count));
    assert_int_equal(rig_steps(rig), 0);
}

static inline void rig_sync_now(struct rig *rig, struct part *part)
{
    assert_true(rig_sync(rig, part));
    assert_int_equal(rig_steps(rig), 0);
}

static inline void count_file(void *arg, const char *path)
{
    (void)path;
    ++*(unsigned *)arg;
}

static inline unsigned rig_files(struct rig *rig)
{
    unsigned count = 0;
    os_sim_each(rig->sim, "d/str", count_file, &count);
    return count;
}

static inline const char *path_of(const struct part *part, uint64_t base)
{
    static char path[64];
    snprintf(path, sizeof path, "d/str/");
    stream_name_put(path + 6,
                    &(struct stream_name){.stream = part->stream, .partition = part->partition, .base = base});
    return path;
}

/* The process dies, or the power goes; what was answered but not named is forgotten. */
static inline void rig_die(struct rig *rig, bool power, uint64_t seed)
{
    file_piece_fini(&rig->piece);
    os_sim_stop(rig->sim); /* so that closing cannot write */
    streams_close(&rig->streams);
    if (power)
        os_sim_crash(rig->sim, seed);
    else
        os_sim_kill(rig->sim);
    rig->submitted = rig->answered; /* what was under way is gone with it */
    for (unsigned i = 0; i < rig->parts_len; i++) {
        struct part *part = &rig->parts[i];
        *part->now = *part->synced;
        part->sent = part->now->tail.end;
        part->failed = false;
    }
}

/* The journal gives again what is not synced. */
static inline void rig_write_again(struct rig *rig)
{
    for (unsigned i = 0; i < rig->parts_len; i++) {
        struct part *part = &rig->parts[i];
        while (part->sent < part->next) {
            uint64_t left = part->next - part->sent;
            assert_true(rig_write(rig, part, left < 50 ? (uint32_t)left : 50));
            assert_int_equal(rig_steps(rig), 0);
        }
    }
}

/* A test of all this with batches in place of messages. */
static inline int begin_batches(void **state)
{
    (void)state;
    as_batches = true;
    return 0;
}

/* For what makes a store thousands of times: states of compression are large. */
static inline int begin_plain_batches(void **state)
{
    kinds = 1;
    return begin_batches(state);
}

static inline int end_batches(void **state)
{
    (void)state;
    as_batches = false;
    kinds = 5;
    return 0;
}

#define BATCHES(test) cmocka_unit_test_setup_teardown(test, begin_batches, end_batches)
#define PLAIN_BATCHES(test) cmocka_unit_test_setup_teardown(test, begin_plain_batches, end_batches)

#endif
