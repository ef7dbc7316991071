/* Streams as the core sees them, on the simulated disk: what was written comes back, by offset and by time; files roll over, go
 * and are swept; every failing operation and allocation, and the power cut at every disk operation: each job is answered
 * exactly once, and what the journal names is there.
 */
#include "store/streams.h"

#include "base/mem.h"
#include "os/os_sim.h"
#include "os/thread.h"
#include "store/inspect_streams.h"
#include "store/stream_format.h"
#include "store/streams_test_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define PARTS_MAX 400
#define SEALED_MAX 400

/* ----------------------------------------------------------------------------------------------------------------- rig */

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
};

static void on_fault(void *arg, int err, const char *sentence)
{
    struct rig *rig = arg;
    assert_true(err < 0);
    snprintf(rig->sentence, sizeof rig->sentence, "%s", sentence);
    rig->faults++;
}

static struct rig *rig_new(uint64_t seed)
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

static void rig_free(struct rig *rig)
{
    streams_close(&rig->streams);
    for (unsigned i = 0; i < rig->parts_len; i++) {
        free(rig->parts[i].now);
        free(rig->parts[i].synced);
    }
    slab_heap_fini(&rig->heap);
    os_sim_free(&rig->sim);
    free(rig);
}

static struct part *rig_part(struct rig *rig, uint64_t stream, uint32_t partition, uint64_t first)
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

static int rig_open_keeping(struct rig *rig)
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

static void rig_open(struct rig *rig)
{
    if (rig_open_keeping(rig))
        fail_msg("open: %s", rig->why);
}

static bool rig_submit(struct rig *rig, struct stream_job *job)
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

static struct stream_job *rig_job(struct part *part, enum stream_job_type type, uint32_t max)
{
    struct stream_job *job = stream_job_new(type, max);
    if (!job)
        return NULL;
    job->stream = part->stream;
    job->partition = part->partition;
    job->ticket = (uint64_t)(uintptr_t)part;
    return job;
}

static struct msg *message_at(struct rig *rig, const struct part *part, uint64_t offset)
{
    return rig_message(&rig->heap, part->stream, part->partition, offset, rig->body_max);
}

static bool as_batches;    /* messages come in batches, as from a Kafka client that copies a stream … */
static unsigned kinds = 5; /* … packed by so many kinds of compression, none included */

static bool encode(struct rig *rig, const struct part *part, uint64_t from, uint32_t count, struct writer *w,
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
static struct msg *batch_at(struct rig *rig, const struct part *part, uint64_t from, uint32_t count)
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
static bool rig_write_at(struct rig *rig, struct part *part, uint64_t from, uint32_t count)
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
static bool rig_write(struct rig *rig, struct part *part, uint32_t count)
{
    uint64_t from = part->sent;
    part->sent += count;
    part->next = part->sent > part->next ? part->sent : part->next;
    return rig_write_at(rig, part, from, count);
}

static void take_write(struct part *part, const struct stream_job *job)
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
static void check_items(struct rig *rig, const struct part *part, const struct stream_job *job)
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

/* The answers: what the core would do with them. Returns err of the last one; a read's and find's next in *ret. */
static int rig_take_next(struct rig *rig, uint64_t *ret)
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
        default: break;
        }
        if (ret)
            *ret = job->next;
        stream_job_free(&rig->heap, &job);
    }
    return err;
}

static int rig_take(struct rig *rig)
{
    return rig_take_next(rig, NULL);
}

static int rig_steps(struct rig *rig)
{
    int err = 0;
    while (streams_step(rig->streams)) {
        int e = rig_take(rig);
        err = e ? e : err;
    }
    assert_int_equal(rig->answered, rig->submitted);
    return err;
}

static int rig_read_next(struct rig *rig, struct part *part, uint64_t first, uint64_t until, uint32_t max,
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

static uint64_t rig_find(struct rig *rig, struct part *part, uint64_t first, uint64_t until, wall_t timestamp)
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

static bool rig_sync(struct rig *rig, struct part *part)
{
    return rig_submit(rig, rig_job(part, STREAM_SYNC, 0));
}

static bool rig_drop(struct rig *rig, struct part *part, uint64_t until)
{
    struct stream_job *job = rig_job(part, STREAM_DROP, 0);
    if (job)
        job->until = until;
    return rig_submit(rig, job);
}

/* Everything that is written is read, in bites. */
static void rig_all_readable(struct rig *rig, struct part *part)
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

static void rig_all_parts_readable(struct rig *rig)
{
    for (unsigned i = 0; i < rig->parts_len; i++)
        rig_all_readable(rig, &rig->parts[i]);
}

static void rig_write_now(struct rig *rig, struct part *part, uint32_t count)
{
    assert_true(rig_write(rig, part, count));
    assert_int_equal(rig_steps(rig), 0);
}

static void rig_sync_now(struct rig *rig, struct part *part)
{
    assert_true(rig_sync(rig, part));
    assert_int_equal(rig_steps(rig), 0);
}

static void count_file(void *arg, const char *path)
{
    (void)path;
    ++*(unsigned *)arg;
}

static unsigned rig_files(struct rig *rig)
{
    unsigned count = 0;
    os_sim_each(rig->sim, "d/str", count_file, &count);
    return count;
}

static const char *path_of(const struct part *part, uint64_t base)
{
    static char path[64];
    snprintf(path, sizeof path, "d/str/");
    stream_name_put(path + 6,
                    &(struct stream_name){.stream = part->stream, .partition = part->partition, .base = base});
    return path;
}

/* The process dies, or the power goes; what was answered but not named is forgotten. */
static void rig_die(struct rig *rig, bool power, uint64_t seed)
{
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
static void rig_write_again(struct rig *rig)
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

/* --------------------------------------------------------------------------------------------------------------- tests */

static void write_and_read(void **state)
{
    (void)state;
    struct rig *rig = rig_new(1);
    struct streams_stats stats;
    rig->segment_bytes = STREAM_SEGMENT_BYTES;
    rig_open(rig);
    assert_int_equal(rig_files(rig), 0); /* a stream without records has no file */
    struct part *a = rig_part(rig, 7, 0, 0), *b = rig_part(rig, 7, 1, 1000);
    for (uint32_t i = 1; i < 12; i++)
        assert_true(rig_write(rig, a, i) && rig_write(rig, b, 2 * i));
    assert_int_equal(rig_steps(rig), 0);
    assert_true(os_sim_count(rig->sim, OS_SIM_PWRITE) <= 4); /* what waits behind one another is one write, or few */
    assert_int_equal(rig_files(rig), 2);
    assert_int_equal(a->now->tail.end, 66);
    assert_int_equal(b->now->tail.end, 1132);
    assert_true(a->now->tail.first_at == rig_time(7, 0));
    rig_all_parts_readable(rig);
    uint64_t next = 0;
    assert_int_equal(rig_read_next(rig, a, 10, 20, 3, UINT32_MAX, &next), 0);
    assert_int_equal(next, 13);
    assert_int_equal(rig_read_next(rig, a, 10, 20, 30, UINT32_MAX, &next), 0);
    assert_int_equal(next, 20);
    assert_int_equal(rig_read_next(rig, a, 10, 20, 30, 0, &next), 0); /* one at least */
    assert_int_equal(next, 11);
    assert_int_equal(rig_read_next(rig, a, 10, 10, 30, 99, &next), 0);
    assert_int_equal(next, 10);
    assert_int_equal(rig_read_next(rig, b, 0, 1001, 30, UINT32_MAX, &next), 0); /* what is gone is stepped over */
    assert_int_equal(next, 1001);
    struct part *none = rig_part(rig, 99, 0, 5);
    assert_int_equal(rig_read_next(rig, none, 5, 9, 30, 99, &next), 0);
    assert_int_equal(next, 5);
    streams_stats(rig->streams, &stats);
    assert_int_equal(stats.records_written, 198);
    assert_int_equal(stats.syncs, 0);
    assert_int_equal(stats.segments, 2);
    rig_sync_now(rig, a);
    rig_sync_now(rig, b);
    rig_sync_now(rig, b);
    rig_sync_now(rig, none);
    streams_stats(rig->streams, &stats);
    assert_int_equal(stats.syncs, 3); /* two files, and the folder once */
    assert_int_equal(stats.jobs_failed, 0);
    assert_int_equal(rig->faults, 0);
    rig_free(rig);
}

static void roll_over(void **state)
{
    (void)state;
    struct rig *rig = rig_new(2);
    rig_open(rig);
    struct part *part = rig_part(rig, 3, 1023, 5);
    for (unsigned i = 0; i < 60; i++)
        rig_write_now(rig, part, 1 + i % 40);
    assert_true(part->now->count > 5);
    assert_int_equal(rig_files(rig), part->now->count + 1);
    for (uint32_t i = 0; i < part->now->count; i++)
        assert_true(part->now->sealed[i].bytes > rig->segment_bytes);
    rig_all_readable(rig, part);
    /* by age */
    uint32_t count = part->now->count;
    rig->seal_before = rig_time(3, part->now->tail.base) + 1;
    rig_write_now(rig, part, 1);
    assert_int_equal(part->now->count, count + 1);
    rig->seal_before = rig_time(3, part->now->tail.base);
    rig_write_now(rig, part, 1);
    assert_int_equal(part->now->count, count + 1);
    /* much more than a batch in one job, with one message that is larger than that */
    rig->body_max = 2000;
    rig_write_now(rig, part, STREAM_ITEMS_MAX);
    struct part *huge = rig_part(rig, 4, 0, 0);
    rig->body_max = 100000;
    rig_write_now(rig, huge, 150);
    rig_all_readable(rig, huge);
    assert_true(huge->now->tail.bytes > 4u << 20);
    rig_free(rig);
}

/* Files that were made by one run are read and gone on with by the next, whatever is behind what the journal names. */
static void restart(void **state)
{
    (void)state;
    struct rig *rig = rig_new(3);
    rig_open(rig);
    struct part *a = rig_part(rig, 1, 0, 0), *b = rig_part(rig, 2, 0, 0);
    for (unsigned i = 0; i < 30; i++) {
        rig_write_now(rig, a, 40);
        rig_write_now(rig, b, 3);
        if (i == 17)
            rig_sync_now(rig, a);
    }
    struct stream_extent tail = a->now->tail;
    assert_true(a->now->count > a->synced->count && a->synced->count > 1);
    os_sim_put(rig->sim, "d/str/notes", slice_str("not ours"));
    rig_die(rig, false, 0);
    rig_open(rig);
    assert_int_equal(rig_files(rig), a->synced->count + 2); /* and b has none: nobody names it */
    assert_int_equal(os_sim_peek(rig->sim, path_of(a, a->synced->tail.base)).len, a->synced->tail.bytes);
    rig_all_parts_readable(rig);
    rig_write_again(rig);
    assert_int_equal(a->now->tail.end, tail.end);
    rig_all_parts_readable(rig);
    /* what ends at or below the start need not be there */
    rig_sync_now(rig, a);
    rig_sync_now(rig, b);
    a->synced->start = a->synced->sealed[2].end;
    os_sim_remove(rig->sim, path_of(a, a->synced->sealed[1].base));
    rig_die(rig, false, 0);
    rig_open(rig);
    assert_int_equal(rig_files(rig), a->synced->count - 3 + 1 + b->synced->count + 1 + 1);
    rig_all_parts_readable(rig);
    rig_write_now(rig, a, 10);
    rig_all_parts_readable(rig);
    rig_free(rig);
}

static void refused_starts(void **state)
{
    (void)state;
    struct rig *rig = rig_new(4);
    rig_open(rig);
    struct part *part = rig_part(rig, 0xabc, 2, 0);
    while (part->now->count < 2)
        rig_write_now(rig, part, 50);
    rig_sync_now(rig, part);
    rig_die(rig, false, 0);
    static const char *const phrases[] = {"belongs to another data folder",
                                          "header is damaged",
                                          "is too short",
                                          "in truth",
                                          "is missing",
                                          "does not follow",
                                          "is too short"};
    struct named whole = *part->synced;
    uint64_t base = whole.sealed[1].base;
    for (unsigned i = 0; i < ARRAY_LEN(phrases); i++) {
        struct os_sim *sim = os_sim_clone(rig->sim);
        struct slice file = os_sim_peek(rig->sim, path_of(part, base));
        rig->options.uuid[3] ^= i == 0;
        if (i == 1)
            os_sim_flip(rig->sim, path_of(part, base), 33, 1);
        if (i == 2)
            os_sim_put(rig->sim, path_of(part, base), slice_of(file.ptr, whole.sealed[1].bytes - 1));
        if (i == 3)
            os_sim_put(rig->sim, path_of(part, 0), file);
        if (i == 4)
            os_sim_remove(rig->sim, path_of(part, base));
        if (i == 5)
            part->synced->sealed[1] = part->synced->sealed[0];
        if (i == 6)
            part->synced->tail.bytes++;
        int err = rig_open_keeping(rig);
        if (err != -EILSEQ || !strstr(rig->why, phrases[i]) || !strstr(rig->why, "str/0000000000000abc-0002-"))
            fail_msg("row %u: %d, %s", i, err, rig->why);
        assert_true(rig_files(rig) >= 2); /* nothing was swept */
        rig->options.uuid[3] ^= i == 0;
        *part->synced = whole;
        os_sim_free(&rig->sim);
        rig->sim = sim;
        rig->options.os = os_sim_os(sim);
    }
    rig_open(rig);
    rig_all_readable(rig, part);
    rig_free(rig);
}

/* No bit of the batches may be wrong, and nothing else than these matters. */
static void flipped_bits(void **state)
{
    (void)state;
    struct rig *rig = rig_new(5);
    rig->body_max = 20;
    rig->options.on_fault = on_fault;
    rig_open(rig);
    struct part *part = rig_part(rig, 9, 0, 100);
    rig_write_now(rig, part, 3);
    rig_write_now(rig, part, 2);
    rig_sync_now(rig, part);
    uint64_t end = part->now->tail.bytes;
    for (uint64_t at = LAYOUT_BLOCK; at < end; at++) {
        uint64_t offset = 100;
        int err = 0;
        uint8_t mask = (uint8_t)(1 << at % 8);
        assert_true(os_sim_flip(rig->sim, path_of(part, 100), at, mask));
        while (!err && offset < 105)
            err = rig_read_next(rig, part, offset, 105, 10, UINT32_MAX, &offset);
        bool epoch = at % end >= LAYOUT_BLOCK + 12 && at < LAYOUT_BLOCK + 16; /* which nobody looks at */
        if (err != -EILSEQ && !epoch && offset != 105)
            fail_msg("bit at %llu: %d", (unsigned long long)at, err);
        if (err)
            assert_non_null(strstr(rig->sentence, "of stream 9, partition 0 cannot be read: "));
        assert_true(os_sim_flip(rig->sim, path_of(part, 100), at, mask));
    }
    assert_true(rig->faults > end - LAYOUT_BLOCK - 20);
    rig_all_readable(rig, part);
    rig_free(rig);
}

/* Whether an index was kept, read from the trailer or made again: the same messages are found, the same times. */
static void find(void **state)
{
    (void)state;
    struct rig *rig = rig_new(6);
    rig_open(rig);
    struct part *part = rig_part(rig, 2, 0, 50);
    for (unsigned i = 0; i < 90; i++)
        rig_write_now(rig, part, 20);
    assert_true(part->now->count > 3);
    rig_sync_now(rig, part);
    uint64_t end = part->now->tail.end;
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 120; i++) {
            wall_t timestamp = rig_time(2, 50) - 300 + (wall_t)(rig_draw(&rig->dice) % (10 * 1800 + 600));
            uint64_t first = 50 + rig_draw(&rig->dice) % 1700, until = i % 2 ? end : first + rig_draw(&rig->dice) % 300;
            uint64_t expected = first;
            until = until < end ? until : end;
            while (expected < until && rig_time(2, expected) < timestamp)
                expected++;
            assert_int_equal(rig_find(rig, part, first, until, timestamp), expected);
        }
        assert_int_equal(rig_find(rig, part, 50, end, INT64_MAX), end);
        if (round == 1) /* without trailers */
            for (uint32_t i = 0; i < part->synced->count; i++) {
                const struct stream_extent *extent = &part->synced->sealed[i];
                struct slice file = os_sim_peek(rig->sim, path_of(part, extent->base));
                uint8_t *copy = calloc(1, file.len);
                memcpy(copy, file.ptr, i % 2 ? file.len : extent->bytes);
                if (i % 2)
                    copy[extent->bytes + 5] ^= 1;
                os_sim_put(rig->sim, path_of(part, extent->base), slice_of(copy, i % 2 ? file.len : extent->bytes));
                free(copy);
            }
        rig_die(rig, false, 0);
        rig_open(rig);
    }
    rig_free(rig);
}

/* The same file comes of it, whether one run wrote it or its index had to be made again from the batches. */
static void same_index(void **state)
{
    (void)state;
    uint8_t *first = NULL;
    size_t first_len = 0;
    for (unsigned again = 0; again < 2; again++) {
        struct rig *rig = rig_new(18);
        rig->segment_bytes = 400 * 1024;
        rig_open(rig);
        struct part *part = rig_part(rig, 3, 0, 10);
        while (!part->now->count) {
            if (again && part->now->tail.bytes > rig->segment_bytes) {
                rig_sync_now(rig, part);
                rig_die(rig, false, 0);
                rig_open(rig);
            }
            rig_write_now(rig, part, 25);
        }
        struct slice file = os_sim_peek(rig->sim, path_of(part, 10));
        assert_true(file.len > part->now->sealed[0].bytes + stream_trailer_len(10));
        if (again) {
            assert_int_equal(file.len, first_len);
            assert_memory_equal(file.ptr, first, file.len);
        } else {
            first = malloc(file.len);
            first_len = file.len;
            memcpy(first, file.ptr, file.len);
        }
        rig_free(rig);
    }
    free(first);
}

static void drop(void **state)
{
    (void)state;
    struct rig *rig = rig_new(7);
    rig_open(rig);
    struct part *a = rig_part(rig, 1, 0, 0), *b = rig_part(rig, 2, 0, 0);
    while (a->now->count < 6)
        rig_write_now(rig, a, 50);
    rig_write_now(rig, b, 50);
    rig_all_readable(rig, a); /* descriptors are open */
    assert_true(rig_drop(rig, a, a->now->sealed[2].end - 1));
    rig_steps(rig);
    assert_int_equal(rig_files(rig), 7 - 2 + 1);
    a->now->start = a->now->sealed[2].base;
    rig_all_readable(rig, a);
    assert_true(rig_drop(rig, a, a->now->sealed[2].end)); /* as far as it goes */
    rig_steps(rig);
    assert_int_equal(rig_files(rig), 7 - 3 + 1);
    assert_true(rig_drop(rig, a, UINT64_MAX));
    assert_true(rig_drop(rig, a, UINT64_MAX));
    rig_steps(rig);
    assert_int_equal(rig_files(rig), 1);
    rig_all_readable(rig, b);
    assert_true(rig_drop(rig, b, 50)); /* all that there is: the next write begins a file */
    b->now->tail = (struct stream_extent){.base = 50, .end = 50};
    assert_true(rig_write_at(rig, b, 50, 5));
    rig_steps(rig);
    assert_int_equal(rig_files(rig), 1);
    struct streams_stats stats;
    streams_stats(rig->streams, &stats);
    assert_int_equal(stats.segments, 1);
    assert_true(rig_drop(rig, b, UINT64_MAX));
    rig_steps(rig);
    assert_int_equal(rig_files(rig), 0);
    size_t before = mem_in_use();
    for (unsigned i = 0; i < 300; i++) { /* of a stream that is gone nothing stays */
        struct part *part = rig_part(rig, 100 + i, 0, 0);
        rig_write_now(rig, part, 1);
        assert_true(rig_drop(rig, part, UINT64_MAX));
        rig_steps(rig);
    }
    assert_true(mem_in_use() < before + 4096);
    rig_free(rig);
}

/* What comes behind a write that failed is not written, and a gap never is. */
static void no_gaps(void **state)
{
    (void)state;
    struct rig *rig = rig_new(8);
    rig_open(rig);
    struct part *part = rig_part(rig, 1, 0, 100);
    for (unsigned round = 0; round < 3; round++) {
        os_sim_fail(rig->sim, 1u << OS_SIM_PWRITE, 1, EIO, false);
        assert_true(rig_write(rig, part, 5));
        assert_true(rig_sync(rig, part));
        assert_true(rig_write(rig, part, 5));
        assert_int_equal(rig_steps(rig), -EINVAL);
        assert_true(part->now->tail.end == 100 + round * 10);
        assert_int_equal(os_sim_peek(rig->sim, path_of(part, 100)).len,
                         part->now->tail.bytes); /* nothing is left behind */
        part->sent = part->now->tail.end;
        part->next = part->sent;
        rig_write_now(rig, part, 10);
        rig_all_readable(rig, part);
    }
    /* where the rest cannot be cut off the file ends, and the next write begins another */
    struct stream_extent tail = part->now->tail;
    os_sim_fail(rig->sim, 1u << OS_SIM_PWRITE | 1u << OS_SIM_TRUNCATE, 1, EIO, true);
    assert_true(rig_write(rig, part, 5));
    assert_int_equal(rig_steps(rig), -EIO);
    os_sim_fail(rig->sim, 0, 0, 0, false);
    rig_all_readable(rig, part);
    rig_write_now(rig, part, 5);
    assert_int_equal(part->now->count, 1);
    assert_memory_equal(&part->now->sealed[0], &tail, sizeof tail);
    /* a file of that name that nobody names is in nobody's way */
    os_sim_put(rig->sim, path_of(part, part->now->tail.end), slice_str("left behind"));
    rig->seal_before = INT64_MAX;
    rig_write_now(rig, part, 5);
    assert_int_equal(part->now->count, 2);
    rig_all_readable(rig, part);
    rig_free(rig);
}

/* More partitions than descriptors, on a disk that has 64 of these for everybody. */
static void many_partitions(void **state)
{
    (void)state;
    struct rig *rig = rig_new(9);
    rig->options.writers_max = 20;
    rig->segment_bytes = 8192;
    for (unsigned round = 0; round < 2; round++) {
        rig_open(rig);
        for (unsigned i = 0; i < 300 && !round; i++)
            rig_part(rig, 1 + i / 100, i % 100, i);
        for (unsigned n = 0; n < 5; n++)
            for (unsigned i = 0; i < 300; i++)
                rig_write_now(rig, &rig->parts[i], 1 + (i + n) % 7);
        rig_all_parts_readable(rig);
        for (unsigned i = 0; i < 300; i++)
            rig_sync_now(rig, &rig->parts[i]);
        rig_die(rig, true, round);
        rig->options.writers_max = 0;
    }
    rig_open(rig);
    rig_all_parts_readable(rig);
    rig_free(rig);
}

static void bounded(void **state)
{
    (void)state;
    struct rig *rig = rig_new(10);
    rig_open(rig);
    struct part *part = rig_part(rig, 1, 0, 0);
    unsigned count = 0;
    while (rig_write_at(rig, part, count, 1))
        count++;
    assert_int_equal(count, STREAMS_JOBS_MAX);
    while (streams_step(rig->streams)) /* without taking what is finished */
        continue;
    assert_false(rig_write_at(rig, part, count, 1));
    rig_take(rig);
    assert_true(rig_write_at(rig, part, count, 1));
    rig_free(rig); /* with a job inside */
}

static void inspected_has(struct rig *rig, bool batches, const char *phrase, bool there)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    assert_int_equal(streams_inspect(os_sim_os(rig->sim), "d", batches, false, out), 0);
    fclose(out);
    if ((strstr(text, phrase) != NULL) != there)
        fail_msg("%s \"%s\":\n%s", there ? "without" : "with", phrase, text);
    free(text);
}

static void inspection(void **state)
{
    (void)state;
    struct rig *rig = rig_new(17);
    inspected_has(rig, true, "file", false);
    rig_open(rig);
    inspected_has(rig, true, "file", false); /* nobody who has no stream is told of them */
    struct part *a = rig_part(rig, 0xab, 0, 0), *b = rig_part(rig, 0xcd, 3, 70);
    while (a->now->count < 1)
        rig_write_now(rig, a, 30);
    rig_write_now(rig, b, 5);
    char phrase[200];
    snprintf(phrase, sizeof phrase, "3 files of streams, %llu batches, %llu records",
             (unsigned long long)(a->next / 30 + 1), (unsigned long long)a->next + 5);
    inspected_has(rig, false, phrase, true);
    inspected_has(rig, false, "batch at", false);
    inspected_has(rig, true, "batch at 4096      offsets 0 to 29 records 30 times 1700000", true);
    inspected_has(rig, true, "file str/00000000000000cd-0003-0000000000000046", true);
    inspected_has(rig, true, "stream 205 partition 3 from offset 70", true);
    snprintf(phrase, sizeof phrase, "  sealed: batches end at %llu before offset %llu",
             (unsigned long long)a->now->sealed[0].bytes, (unsigned long long)a->now->sealed[0].end);
    inspected_has(rig, false, phrase, true);
    inspected_has(rig, true, "no batch", false);
    inspected_has(rig, true, "not whole", false);
    assert_true(os_sim_flip(rig->sim, path_of(b, 70), 4096 + 100, 1));
    inspected_has(rig, false, "NOT WHOLE", true);
    assert_true(os_sim_flip(rig->sim, path_of(b, 70), 4096 + 5, 1));
    inspected_has(rig, false, "  from 4096 to ", true);
    struct slice other = os_sim_peek(rig->sim, path_of(a, 0));
    os_sim_put(rig->sim, path_of(b, 4), other);
    inspected_has(rig, true, "is in truth 00000000000000ab-0000-0000000000000000", true);
    os_sim_put(rig->sim, path_of(b, 4), slice_str("x"));
    inspected_has(rig, true, "no header", true);
    rig_free(rig);
}

/* -------------------------------------------------------------------------------------------------------------- faults */

/* Some of everything. Every job that was taken in is answered, whatever fails. */
static void work(struct rig *rig)
{
    for (unsigned i = 0; i < 6; i++) {
        struct part *part = &rig->parts[i % 2];
        rig_write(rig, part, i == 3 ? 150 : 20);
        rig_write(rig, part, 1);
        if (i % 3 == 2)
            rig_sync(rig, part);
        if (i % 2)
            rig_steps(rig);
    }
    rig_steps(rig);
    for (unsigned i = 0; i < 2; i++) {
        struct part *part = &rig->parts[i];
        uint64_t start = part->now->start, end = part->now->tail.end;
        if (start < end && streams_step(rig->streams) == false) {
            struct stream_job *job = rig_job(part, STREAM_READ, 50);
            if (job) {
                job->first = start;
                job->until = end;
                job->bytes_max = 10000;
                rig_submit(rig, job);
            }
            rig_steps(rig);
        }
        if (part->synced->count > 2 && part->synced->start < part->synced->sealed[0].end) { /* STREAM_TRIM is durable */
            part->synced->start = part->now->start = part->synced->sealed[0].end;
            rig_drop(rig, part, part->synced->start);
        }
        rig_sync(rig, part);
    }
    rig_steps(rig);
}

/* A read that fails now says so, and a later one gives it. */
static void every_io_fails(void **state)
{
    (void)state;
    static const struct {
        int err;
        bool for_ever;
    } rows[] = {{EIO, false}, {ENOSPC, false}, {EIO, true}, {ENOSPC, true}, {EMFILE, false}};
    unsigned hits = 0;
    for (unsigned row = 0; row < ARRAY_LEN(rows); row++)
        for (uint64_t n = 1;; n++) {
            struct rig *rig = rig_new(11);
            rig->segment_bytes = 16384;
            rig_part(rig, 1, 0, 0);
            rig_part(rig, 1, 1, 77);
            os_sim_fail(rig->sim, OS_SIM_ALL, n, rows[row].err, rows[row].for_ever);
            int err = rig_open_keeping(rig);
            if (!err) {
                work(rig);
                work(rig);
            }
            bool hit = os_sim_failures_hit(rig->sim) > 0;
            os_sim_fail(rig->sim, 0, 0, 0, false);
            if (!err) {
                bool failed = false;
                for (unsigned i = 0; i < 2; i++) { /* it works again, but where a sync has failed */
                    struct part *part = &rig->parts[i];
                    rig_all_readable(rig, part);
                    part->sent = part->now->tail.end;
                    assert_true(rig_write(rig, part, 5) && rig_sync(rig, part));
                    err = rig_steps(rig);
                    assert_true(part->failed ? err == -EIO : err == 0);
                    failed = failed || part->failed;
                }
                assert_true(!failed || rig->faults > 0);
                rig_die(rig, true, n);
                rig_open(rig);
                rig_write_again(rig);
                rig_all_parts_readable(rig);
            }
            rig_free(rig);
            hits += hit;
            if (!hit)
                break;
        }
    assert_true(hits > 200);
}

static void every_allocation_fails(void **state)
{
    (void)state;
    unsigned hits = 0;
    for (unsigned for_ever = 0; for_ever < 2; for_ever++)
        for (uint64_t n = 1;; n++) {
            struct rig *rig = rig_new(12);
            rig->segment_bytes = 16384;
            struct part *part = rig_part(rig, 1, 0, 0);
            rig->body_max = 700;
            mem_fail_at(n, for_ever);
            int err = rig_open_keeping(rig);
            for (unsigned i = 0; i < 7 && !err; i++) {
                rig_write(rig, part, i == 4 ? 800 : 20); /* comparing needs memory: only noted here */
                while (streams_step(rig->streams))
                    continue;
                struct stream_job *job;
                while ((job = streams_take(rig->streams)) != NULL) {
                    rig->answered++;
                    if (job->type == STREAM_WRITE)
                        take_write(part, job);
                    assert_true(!job->err || job->err == -ENOMEM || job->err == -EINVAL);
                    stream_job_free(&rig->heap, &job);
                }
                part->sent = part->now->tail.end;
                job = i % 2 ? rig_job(part, STREAM_READ, 200) : rig_job(part, STREAM_FIND, 0);
                if (job) {
                    job->until = part->now->tail.end;
                    job->bytes_max = UINT32_MAX;
                    rig_submit(rig, job);
                }
                while (streams_step(rig->streams))
                    continue;
                while ((job = streams_take(rig->streams)) != NULL) {
                    rig->answered++;
                    assert_true(!job->err || job->err == -ENOMEM);
                    stream_job_free(&rig->heap, &job);
                }
            }
            bool hit = mem_failures_hit() > 0;
            mem_fail_at(0, false);
            assert_int_equal(err && err != -ENOMEM, 0);
            if (!err) {
                rig_write_now(rig, part, 30);
                rig_all_readable(rig, part);
                rig_sync_now(rig, part);
                rig_die(rig, true, n);
                rig_open(rig);
                rig_all_readable(rig, part);
            }
            rig_free(rig);
            hits += hit;
            if (!hit)
                break;
        }
    assert_true(hits > 40);
}

/* A disk that is full: writes fail, what is there stays readable, and room that is made is used. */
static void full_disk(void **state)
{
    (void)state;
    struct rig *rig = rig_new(13);
    rig_open(rig);
    struct part *a = rig_part(rig, 1, 0, 0), *b = rig_part(rig, 2, 0, 0);
    while (a->now->count < 2)
        rig_write_now(rig, a, 40);
    os_sim_capacity(rig->sim, 400 * 1024);
    unsigned failed = 0;
    for (unsigned i = 0; i < 60; i++) {
        b->sent = b->now->tail.end;
        assert_true(rig_write(rig, b, 60));
        int err = rig_steps(rig);
        assert_true(err == 0 || err == -ENOSPC);
        failed += err != 0;
    }
    assert_true(failed > 5 && failed < 58);
    assert_int_equal(rig->faults, 1); /* the same trouble is told once */
    assert_non_null(strstr(rig->sentence, "No space left"));
    rig_all_parts_readable(rig);
    assert_true(rig_drop(rig, a, a->now->sealed[1].end));
    a->now->start = a->synced->start = a->now->sealed[1].end;
    rig_steps(rig);
    struct os *os = os_sim_os(rig->sim);
    assert_int_equal(os->sync_dir(os, "d/str"), 0); /* only then this disk has the room */
    b->sent = b->now->tail.end;
    rig_write_now(rig, b, 60);
    rig_all_parts_readable(rig);
    rig_sync_now(rig, b);
    rig_die(rig, true, 5);
    rig_open(rig);
    rig_all_parts_readable(rig);
    rig_free(rig);
}

/* After a failed sync a later one says "fine" and has saved nothing. */
static void failed_sync(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct rig *rig = rig_new(14);
        rig->options.writers_max = seed % 2; /* or when its descriptor makes room for another */
        rig_open(rig);
        struct part *a = rig_part(rig, 1, 0, 0), *b = rig_part(rig, 1, 1, 0);
        rig_write_now(rig, a, 30);
        rig_sync_now(rig, a);
        rig_write_now(rig, a, 30);
        os_sim_fail(rig->sim, 1u << (seed == 19 ? OS_SIM_SYNC_DIR : OS_SIM_FDATASYNC), 1, EIO, false);
        if (seed == 19) {
            rig_write_now(rig, b, 30);
            assert_true(rig_sync(rig, b));
            assert_int_equal(rig_steps(rig), -EIO);
            assert_true(rig_sync(rig, b));
            assert_int_equal(rig_steps(rig), -EIO);
        } else {
            if (seed % 2)
                rig_write_now(rig, b, 30);
            assert_true(rig_sync(rig, a));
            assert_int_equal(rig_steps(rig), -EIO);
            assert_int_equal(rig->faults, 1);
            assert_true(rig_write(rig, a, 30));
            assert_int_equal(rig_steps(rig), -EIO);
            assert_int_equal(a->now->tail.end, 60);
            assert_true(rig_sync(rig, a));
            assert_int_equal(rig_steps(rig), -EIO);
            rig_write_now(rig, b, 30); /* others go on */
            rig_sync_now(rig, b);
        }
        rig_die(rig, true, seed);
        rig_open(rig);
        rig_all_parts_readable(rig);
        rig_write_again(rig);
        rig_all_parts_readable(rig);
        rig_free(rig);
    }
}

/* The power goes at every disk operation, with several outcomes of what the disk kept. */
static void every_power_cut(void **state)
{
    (void)state;
    unsigned cuts = 0;
    for (int64_t k = 0;; k++) {
        bool cut = true;
        for (uint64_t seed = 0; seed < 8 && cut; seed++) {
            struct rig *rig = rig_new(15);
            rig->segment_bytes = 16384;
            rig_part(rig, 1, 0, 0);
            rig_part(rig, 1, 1, 77);
            os_sim_cut_after(rig->sim, k);
            if (rig_open_keeping(rig) == 0) {
                work(rig);
                work(rig);
            }
            cut = os_sim_is_cut(rig->sim);
            rig_die(rig, true, (uint64_t)k * 1000 + seed);
            if (seed % 3 == 0) { /* and once more during the start */
                os_sim_cut_after(rig->sim, (int64_t)seed / 3);
                int err = rig_open_keeping(rig);
                assert_true(!err || os_sim_is_cut(rig->sim));
                rig_die(rig, true, seed);
            }
            rig_open(rig);
            rig_write_again(rig);
            rig_all_parts_readable(rig);
            work(rig);
            rig_all_parts_readable(rig);
            rig_free(rig);
            cuts += cut;
        }
        if (!cut)
            break;
    }
    assert_true(cuts > 200);
}

/* -------------------------------------------------------------------------------------------------------------- thread */

static void set_event(void *arg)
{
    os_event_set(arg);
}

static void threaded(void **state)
{
    (void)state;
    struct rig *rig = rig_new(16);
    struct os_event done = {0};
    rig->options.on_fault = NULL;
    rig->options.on_done = set_event;
    rig->options.arg = &done;
    rig_open(rig);
    struct part *part = rig_part(rig, 1, 0, 0);
    assert_int_equal(streams_start(rig->streams), 0);
    uint64_t read = 0;
    for (unsigned i = 0; read < 6000; i++) {
        for (unsigned k = 0; k < 3 && part->sent < 6000; k++)
            assert_true(rig_write(rig, part, 20));
        if (i % 10 == 0)
            assert_true(rig_sync(rig, part));
        if (read < part->now->tail.end) {
            struct stream_job *job = rig_job(part, STREAM_READ, 100);
            job->first = read;
            job->until = part->now->tail.end;
            job->bytes_max = UINT32_MAX;
            read = job->until < read + 100 ? job->until : read + 100;
            assert_true(rig_submit(rig, job));
        }
        streams_wake(rig->streams);
        os_event_wait(&done, NS_PER_S);
        assert_int_equal(rig_take(rig), 0);
    }
    assert_true(rig_write(rig, part, 20));
    streams_stop(rig->streams); /* finishes what was submitted */
    rig_take(rig);
    assert_int_equal(rig->answered, rig->submitted);
    rig_free(rig);
}

static int begin_batches(void **state)
{
    (void)state;
    as_batches = true;
    return 0;
}

/* For what makes a store thousands of times: states of compression are large. */
static int begin_plain_batches(void **state)
{
    kinds = 1;
    return begin_batches(state);
}

static int end_batches(void **state)
{
    (void)state;
    as_batches = false;
    kinds = 5;
    return 0;
}

#define BATCHES(test) cmocka_unit_test_setup_teardown(test, begin_batches, end_batches)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        BATCHES(write_and_read),
        BATCHES(roll_over),
        BATCHES(restart),
        BATCHES(find),
        BATCHES(same_index),
        cmocka_unit_test_setup_teardown(every_io_fails, begin_plain_batches, end_batches),
        cmocka_unit_test_setup_teardown(every_allocation_fails, begin_plain_batches, end_batches),
        cmocka_unit_test_setup_teardown(every_power_cut, begin_plain_batches, end_batches),
        BATCHES(flipped_bits),
        BATCHES(drop),
        cmocka_unit_test(write_and_read),
        cmocka_unit_test(roll_over),
        cmocka_unit_test(restart),
        cmocka_unit_test(refused_starts),
        cmocka_unit_test(flipped_bits),
        cmocka_unit_test(find),
        cmocka_unit_test(same_index),
        cmocka_unit_test(drop),
        cmocka_unit_test(no_gaps),
        cmocka_unit_test(many_partitions),
        cmocka_unit_test(bounded),
        cmocka_unit_test(inspection),
        cmocka_unit_test(every_io_fails),
        cmocka_unit_test(every_allocation_fails),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(failed_sync),
        cmocka_unit_test(every_power_cut),
        cmocka_unit_test(threaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
