/* Compaction of stream files: what goes and what stays, offsets, null values and their time, packed and foreign batches, keys
 * in several passes, damage; the map of keys; every failing operation and allocation.
 */
#include "core/fetch.h"
#include "store/stream_compact.h"

#include "base/mem.h"
#include "core/message.h"
#include "os/os_sim.h"
#include "store/stream_verify.h"
#include "store/streams.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define STREAM 7u
#define FILES_MAX 16
#define NOW 1700000000000
#define DAY 86400000

/* ----------------------------------------------------------------------------------------------------------------- rig */

struct rig {
    struct os_sim *sim;
    struct streams *streams;
    struct slab_heap heap;
    struct compress *z;
    struct stream_extent files[FILES_MAX];
    uint32_t count;
    uint32_t keys_max;
    unsigned faults;
    char sentence[700], why[512];
    /* the file that is forged */
    uint8_t *bytes;
    struct writer w;
    struct stream_extent extent;
    const struct aborted *aborted; /* what the core knows of */
    uint32_t aborted_count;
};

static const uint8_t uuid[LAYOUT_UUID_LEN] = "0123456789abcde";

static void on_fault(void *arg, int err, const char *sentence)
{
    struct rig *rig = arg;
    assert_true(err < 0);
    snprintf(rig->sentence, sizeof rig->sentence, "%s", sentence);
    rig->faults++;
}

static struct rig *rig_new(void)
{
    struct rig *rig = calloc(1, sizeof *rig);
    rig->sim = os_sim_new(1);
    rig->z = compress_new();
    rig->bytes = malloc(4u << 20);
    slab_heap_init(&rig->heap);
    struct os *os = os_sim_os(rig->sim);
    assert_int_equal(os->mkdir(os, "d"), 0);
    assert_int_equal(os->mkdir(os, "d/str"), 0);
    assert_int_equal(os->sync_dir(os, "."), 0);
    assert_int_equal(os->sync_dir(os, "d"), 0);
    return rig;
}

static void rig_free(struct rig *rig)
{
    streams_close(&rig->streams);
    compress_free(&rig->z);
    slab_heap_fini(&rig->heap);
    os_sim_free(&rig->sim);
    free(rig->bytes);
    free(rig);
}

static const char *path_of(const struct stream_extent *extent)
{
    static char path[80];
    snprintf(path, sizeof path, "d/str/");
    stream_name_put(path + 6,
                    &(struct stream_name){.stream = STREAM, .base = extent->base, .generation = extent->generation});
    return path;
}

static void file_begin(struct rig *rig, uint64_t base)
{
    struct stream_head head = {.stream = STREAM, .base = base};
    rig->w = writer_of(rig->bytes, 4u << 20);
    memcpy(head.uuid, uuid, sizeof uuid);
    stream_head_put(writer_room(&rig->w, LAYOUT_BLOCK), &head);
    rig->extent = (struct stream_extent){.base = base, .end = base, .first_at = NOW, .max_at = NOW};
}

struct rec { /* value NULL: a tombstone; key NULL: none */
    const char *key, *value;
};

/* A batch at the file's end. */
static void put_batch(struct rig *rig, struct record_batch head, const struct rec *recs, unsigned count)
{
    struct record_batch_writer batch;
    uint8_t *room = malloc(1u << 20);
    struct writer w = writer_of(room, 1u << 20);
    enum compress_kind kind = (enum compress_kind)head.compression;
    head.base_offset = (int64_t)rig->extent.end;
    head.compression = 0;
    record_batch_begin(&batch, &w, &head);
    for (unsigned i = 0; i < count; i++) {
        struct slice key = slice_str(recs[i].key ? recs[i].key : ""),
                     value = slice_str(recs[i].value ? recs[i].value : "");
        assert_true(record_batch_put(&batch, NOW + (int64_t)rig->extent.end + i, recs[i].key ? &key : NULL,
                                     recs[i].value ? &value : NULL, NULL, 0));
    }
    struct slice bytes = record_batch_finish(&batch, -1);
    assert_int_equal(record_batch_repack(bytes, kind, COMPRESS_LEVEL_DEFAULT, rig->z, 1u << 20, &rig->w), RECORD_OK);
    rig->extent.end += count;
    free(room);
}

static struct record_batch plain(void)
{
    return record_batch_head(0, NOW);
}

static void file_end(struct rig *rig)
{
    rig->extent.bytes = rig->w.len;
    os_sim_put(rig->sim, path_of(&rig->extent), writer_slice(&rig->w));
    rig->files[rig->count++] = rig->extent;
}

static int try_open(struct rig *rig)
{
    struct streams_options options = {
        .os = os_sim_os(rig->sim), .dir = "d", .keys_max = rig->keys_max, .on_fault = on_fault, .arg = rig};
    struct stream_extent none = {.base = rig->files[rig->count - 1].end, .end = rig->files[rig->count - 1].end};
    memcpy(options.uuid, uuid, sizeof uuid);
    int err = streams_open(&options, &rig->streams, rig->why, sizeof rig->why);
    if (!err)
        err = streams_keep(rig->streams, STREAM, 0, 0, rig->files, rig->count, &none, rig->why, sizeof rig->why);
    if (!err)
        err = streams_sweep(rig->streams, rig->why, sizeof rig->why);
    if (err)
        streams_close(&rig->streams);
    return err;
}

static void open_all(struct rig *rig)
{
    if (try_open(rig))
        fail_msg("open: %s", rig->why);
}

static struct stream_job *job_of(enum stream_job_type type, uint32_t max, uint64_t first, uint64_t until)
{
    struct stream_job *job = stream_job_new(type, max);
    assert_non_null(job);
    job->stream = STREAM;
    job->first = first;
    job->until = until;
    job->timestamp = NOW;
    job->tombstone_ms = DAY;
    return job;
}

static struct stream_job *ask(struct rig *rig, struct stream_job *job)
{
    bool answered = job->type != STREAM_REPLACE;
    assert_true(streams_submit(rig->streams, &job));
    while (streams_step(rig->streams))
        continue;
    struct stream_job *done = streams_take(rig->streams);
    assert_true(!answered == !done);
    return done;
}

/* As the core does it: the job has its own. */
static struct stream_job *with_aborted(const struct rig *rig, struct stream_job *job)
{
    job->aborted_count = rig->aborted_count;
    job->aborted = rig->aborted_count ? mem_alloc(rig->aborted_count * sizeof *job->aborted) : NULL;
    if (rig->aborted_count)
        memcpy(job->aborted, rig->aborted, rig->aborted_count * sizeof *job->aborted);
    return job;
}

/* Remembers keys; up to where. */
static uint64_t keys(struct rig *rig, uint64_t first, uint64_t until)
{
    struct stream_job *job = ask(rig, with_aborted(rig, job_of(STREAM_KEYS, 0, first, until)));
    assert_int_equal(job->err, 0);
    uint64_t next = job->next;
    stream_job_free(&rig->heap, &job);
    return next;
}

/* The files that are meant. */
static void name_run(const struct rig *rig, struct stream_job *job, uint32_t at, uint32_t count)
{
    job->segment_bytes = count;
    for (uint32_t i = at; i < at + count; i++)
        job->bytes_max += rig->files[i].generation;
}

static int try_rewrite(struct rig *rig, uint32_t at, uint32_t count, wall_t now, struct stream_extent *ret)
{
    struct stream_job *job = job_of(STREAM_REWRITE, 0, rig->files[at].base, rig->files[at + count - 1].end);
    static uint32_t generation;
    job->timestamp = now;
    job->sealed.generation = ++generation;
    name_run(rig, job, at, count);
    job = ask(rig, with_aborted(rig, job));
    int err = job->err;
    *ret = job->sealed;
    stream_job_free(&rig->heap, &job);
    return err;
}

static void replace(struct rig *rig, uint32_t at, uint32_t count, const struct stream_extent *extent)
{
    struct stream_job *job = job_of(STREAM_REPLACE, 0, extent->base, extent->end);
    job->sealed = *extent;
    rig->files[at] = *extent; /* the journal says so first */
    memmove(rig->files + at + 1, rig->files + at + count, (rig->count - at - count) * sizeof rig->files[0]);
    rig->count -= count - 1;
    assert_null(ask(rig, job));
}

/* Rewrites so many files at `at` and uses what comes of it. False: nothing to be won. */
static bool rewrite(struct rig *rig, uint32_t at, uint32_t count, wall_t now)
{
    struct stream_extent made;
    assert_int_equal(try_rewrite(rig, at, count, now, &made), 0);
    if (!made.bytes)
        return false;
    assert_true(made.base == rig->files[at].base && made.end == rig->files[at + count - 1].end);
    replace(rig, at, count, &made);
    return true;
}

static void verify(struct rig *rig, const struct stream_extent *extent)
{
    struct os *os = os_sim_os(rig->sim);
    struct stream_verify v = {.os = os, .uuid = uuid, .stream = STREAM, .extent = *extent, .sealed = true};
    int fd;
    assert_int_equal(os->open(os, path_of(extent), OS_READ, &fd), 0);
    int err = stream_verify(&v, fd);
    os->close(os, fd);
    if (err)
        fail_msg("%s at %llu: %s", path_of(extent), (unsigned long long)v.position, v.what);
}

/* What all files hold: "offset:key=value " of each record, a null value as "~", "|" before each batch with records. */
static const char *contents(struct rig *rig)
{
    static char text[200000];
    size_t at = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < rig->count; i++) {
        const struct stream_extent *extent = &rig->files[i];
        struct slice file = os_sim_peek(rig->sim, path_of(extent)), bytes;
        struct reader r = reader_of(slice_of(file.ptr + LAYOUT_BLOCK, extent->bytes - LAYOUT_BLOCK));
        struct record_batch batch;
        struct record_reader records;
        struct record record;
        uint64_t expected = extent->base;
        while (record_batch_take(&r, &batch, &bytes) == RECORD_OK) {
            assert_true(record_batch_crc_ok(bytes) && (uint64_t)batch.base_offset == expected);
            expected = (uint64_t)record_batch_last_offset(&batch) + 1;
            assert_int_equal(record_batch_open(bytes, rig->z, 1u << 20, &batch, &records), RECORD_OK);
            at += (size_t)snprintf(text + at, sizeof text - at, "%s",
                                   batch.count              ? "|"
                                   : batch.producer_id >= 0 ? "()"
                                                            : "");
            while (record_next(&records, &record))
                at += (size_t)snprintf(text + at, sizeof text - at, "%lld:%.*s=%.*s ", (long long)record.offset,
                                       SLICE_ARG(record.has_key ? record.key : slice_str("-")),
                                       SLICE_ARG(record.has_value ? record.value : slice_str("~")));
            assert_true(record_reader_ok(&records));
        }
        assert_true(expected == extent->end && r.left == 0);
    }
    return text;
}

/* What a reader gets from an offset on. */
static const char *read_from(struct rig *rig, uint64_t offset)
{
    static char text[4000];
    size_t at = 0;
    uint64_t end = rig->files[rig->count - 1].end;
    text[0] = '\0';
    while (offset < end) {
        struct stream_job *job = job_of(STREAM_READ, 4, offset, end);
        job->bytes_max = 1u << 20;
        job = ask(rig, job);
        assert_true(job->err == 0 && job->next > offset);
        for (uint32_t i = 0; i < job->count; i++)
            at += (size_t)snprintf(text + at, sizeof text - at, "%llu=%.*s ", (unsigned long long)job->items[i].offset,
                                   SLICE_ARG(msg_body(job->items[i].msg)));
        offset = job->next;
        stream_job_free(&rig->heap, &job);
    }
    return text;
}

/* ---------------------------------------------------------------------------------------------------------------- keys */

static void map_of_keys(void **state)
{
    (void)state;
    struct os_sim *sim = os_sim_new(3);
    struct stream_keys map = {0};
    char key[20];
    assert_int_equal(stream_keys_find(&map, slice_str("x")), STREAM_KEY_NONE);
    assert_true(stream_keys_begin(&map, os_sim_os(sim), 1024));
    for (unsigned i = 0; i < 3 * 896; i++) {
        snprintf(key, sizeof key, "key %u", i % 896);
        assert_true(stream_keys_has_room(&map, i < 896 ? 896 - i : 0));
        assert_true(stream_keys_put(&map, slice_str(key), i * 10));
    }
    assert_false(stream_keys_has_room(&map, 1));
    assert_false(stream_keys_put(&map, slice_str("one more"), 100000));
    assert_true(stream_keys_put(&map, slice_str("key 5"), 100000));
    for (unsigned i = 0; i < 896; i++) {
        snprintf(key, sizeof key, "key %u", i);
        assert_int_equal(stream_keys_find(&map, slice_str(key)), i == 5 ? 100000 : (2 * 896 + i) * 10);
    }
    assert_int_equal(stream_keys_find(&map, slice_str("key 896")), STREAM_KEY_NONE);
    stream_keys_end(&map);
    assert_true(stream_keys_begin(&map, os_sim_os(sim), 8));
    assert_true(stream_keys_put(&map, (struct slice){0}, 0)); /* an empty key is one */
    assert_int_equal(stream_keys_find(&map, slice_str("")), 0);
    stream_keys_end(&map);
    os_sim_free(&sim);
}

/* -------------------------------------------------------------------------------------------------------------- records */

static void two_files(struct rig *rig)
{
    file_begin(rig, 0);
    put_batch(rig, plain(), (struct rec[]){{"a", "1"}, {"b", "1"}, {NULL, "free"}}, 3);
    put_batch(rig, plain(), (struct rec[]){{"a", "2"}, {"a", "3"}}, 2);
    put_batch(rig, plain(), (struct rec[]){{"a", "4"}, {"c", "1"}}, 2);
    file_end(rig);
    file_begin(rig, 7);
    put_batch(rig, plain(), (struct rec[]){{"b", "2"}}, 1);
    put_batch(rig, plain(), (struct rec[]){{"a", "5"}, {"d", "1"}}, 2);
    file_end(rig);
}

static void last_of_each_key(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    two_files(rig);
    open_all(rig);
    assert_int_equal(keys(rig, 0, 10), 10);
    assert_true(rewrite(rig, 0, 1, NOW));
    assert_string_equal(contents(rig), "|2:-=free |6:c=1 |7:b=2 |8:a=5 9:d=1 ");
    verify(rig, &rig->files[0]);
    assert_false(rewrite(rig, 1, 1, NOW)); /* nothing in it is old */
    assert_int_equal(rig->files[1].generation, 0);
    assert_string_equal(read_from(rig, 0), "2=free 6=1 7=2 8=5 9=1 ");
    assert_string_equal(read_from(rig, 3), "6=1 7=2 8=5 9=1 "); /* in a gap */
    assert_string_equal(read_from(rig, 6), "6=1 7=2 8=5 9=1 ");
    assert_string_equal(read_from(rig, 9), "9=1 ");
    streams_close(&rig->streams);
    open_all(rig); /* what is named now is there, and what was is not */
    assert_string_equal(read_from(rig, 1), "2=free 6=1 7=2 8=5 9=1 ");
    assert_null(os_sim_peek(rig->sim, path_of(&(struct stream_extent){.base = 0})).ptr);
    rig_free(rig);
}

static void files_become_one(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    two_files(rig);
    open_all(rig);
    (void)keys(rig, 0, 10);
    assert_true(rewrite(rig, 0, 2, NOW));
    assert_int_equal(rig->count, 1);
    assert_string_equal(contents(rig), "|2:-=free |6:c=1 |7:b=2 |8:a=5 9:d=1 ");
    verify(rig, &rig->files[0]);
    assert_string_equal(read_from(rig, 0), "2=free 6=1 7=2 8=5 9=1 ");
    rig_free(rig);
}

/* Of what lies behind the keys that are remembered nothing goes, and nothing goes because of it. */
/* The records of a piece at or behind `first`. */
static const char *piece_text(const struct file_piece *piece, uint64_t first)
{
    static char text[400];
    size_t at = 0;
    uint8_t bytes[2000];
    struct record_batch batch;
    struct record_reader records;
    struct record record;
    struct slice one;
    assert_true(piece->len <= sizeof bytes);
    assert_int_equal(piece->file->read(piece->file, bytes, piece->len, piece->position), piece->len);
    struct reader r = reader_of(slice_of(bytes, piece->len));
    text[0] = '\0';
    while (record_batch_take(&r, &batch, &one) == RECORD_OK) {
        assert_int_equal(record_batch_open(one, NULL, 0, &batch, &records), RECORD_OK);
        while (record_next(&records, &record))
            if ((uint64_t)record.offset >= first)
                at += (size_t)snprintf(text + at, sizeof text - at, "%lld=%.*s ", (long long)record.offset,
                                       SLICE_ARG(record.value));
    }
    assert_true(reader_ok(&r) && r.left == 0);
    return text;
}

static struct file_piece fetch_from(struct rig *rig, uint64_t offset, uint32_t bytes_max, uint64_t *ret_next)
{
    uint8_t bytes[2000];
    struct record_batch batch;
    struct slice one;
    struct fetch *fetch = fetch_new(FETCH_RECORDS, 1);
    assert_non_null(fetch);
    fetch->bytes_max = UINT32_MAX;
    fetch->rows[0] = (struct fetch_row){
        .stream = STREAM, .offset = offset, .until = rig->files[rig->count - 1].end, .bytes_max = bytes_max};
    struct stream_job *job = ask(rig, fetch->job);
    assert_int_equal(job->err, 0);
    struct file_piece piece = job->fetch->rows[0].piece;
    job->fetch->rows[0].piece = (struct file_piece){0};
    stream_job_free(&rig->heap, &job);
    assert_true(piece.len && piece.len <= sizeof bytes);
    assert_int_equal(piece.file->read(piece.file, bytes, piece.len, piece.position), piece.len);
    struct reader r = reader_of(slice_of(bytes, piece.len));
    while (record_batch_take(&r, &batch, &one) == RECORD_OK)
        *ret_next = (uint64_t)record_batch_last_offset(&batch) + 1;
    return piece;
}

/* Who fetches sees gaps as they are, and who has a piece of a file that was replaced goes on with that. */
static void fetched_across_a_compaction(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    two_files(rig);
    open_all(rig);
    uint64_t next;
    struct file_piece before = fetch_from(rig, 0, 10000, &next);
    assert_int_equal(next, 7); /* to the end of a file */
    struct file_piece after = fetch_from(rig, 0, 1, &next);
    assert_int_equal(next, 3);
    file_piece_fini(&after);
    (void)keys(rig, 0, 10);
    assert_true(rewrite(rig, 0, 1, NOW));
    after = fetch_from(rig, 3, 10000, &next); /* where the last one ended there is something else now */
    assert_string_equal(piece_text(&after, 3), "6=1 ");
    file_piece_fini(&after);
    after = fetch_from(rig, 0, 10000, &next);
    assert_true(after.file != before.file);
    assert_string_equal(piece_text(&before, 0), "0=1 1=1 2=free 3=2 4=3 5=4 6=1 ");
    assert_string_equal(piece_text(&after, 0), "2=free 6=1 ");
    file_piece_fini(&before);
    file_piece_fini(&after);
    static const char *const from[] = {[0] = "2=free 6=1 ", [3] = "6=1 ", [5] = "6=1 ", [7] = "7=2 8=5 9=1 "};
    for (uint64_t first = 0; first < ARRAY_LEN(from); first++)
        for (unsigned again = 0; from[first] && again < 2; again++) {
            after = fetch_from(rig, first, 10000, &next);
            assert_string_equal(piece_text(&after, first), from[first]);
            assert_true(next > first);
            file_piece_fini(&after);
        }
    rig_free(rig);
}

static void only_what_was_looked_at(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    two_files(rig);
    open_all(rig);
    assert_int_equal(keys(rig, 0, 7), 7);
    assert_true(rewrite(rig, 0, 2, NOW));
    assert_string_equal(contents(rig), "|1:b=1 2:-=free |5:a=4 6:c=1 |7:b=2 |8:a=5 9:d=1 ");
    rig_free(rig);
}

static void null_values(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    file_begin(rig, 0);
    put_batch(rig, plain(), (struct rec[]){{"a", "1"}, {"b", "1"}}, 2);
    put_batch(rig, plain(), (struct rec[]){{"a", NULL}, {"c", "1"}, {NULL, NULL}}, 3);
    file_end(rig);
    open_all(rig);
    (void)keys(rig, 0, 5);
    assert_true(rewrite(rig, 0, 1, NOW));
    assert_string_equal(contents(rig), "|1:b=1 |2:a=~ 3:c=1 4:-=~ ");
    struct stream_extent made;
    (void)keys(rig, 0, 5);
    assert_int_equal(try_rewrite(rig, 0, 1, NOW + DAY - 1, &made), 0);
    assert_int_equal(made.bytes, 0); /* its day is not over */
    assert_true(rewrite(rig, 0, 1, NOW + DAY));
    assert_string_equal(contents(rig), "|1:b=1 |3:c=1 4:-=~ ");
    rig_free(rig);
}

/* A null value whose key was not remembered: what it deletes may lie in a file that is not rewritten. */
static void null_value_behind_the_keys(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    file_begin(rig, 0);
    put_batch(rig, plain(), (struct rec[]){{"a", "1"}, {"b", "1"}}, 2);
    put_batch(rig, plain(), (struct rec[]){{"b", "2"}}, 1);
    put_batch(rig, plain(), (struct rec[]){{"a", NULL}}, 1);
    file_end(rig);
    open_all(rig);
    assert_int_equal(keys(rig, 0, 3), 3);
    assert_true(rewrite(rig, 0, 1, NOW));
    assert_string_equal(contents(rig), "|0:a=1 |2:b=2 |3:a=~ ");
    assert_int_equal(keys(rig, 3, 4), 4);
    assert_true(rewrite(rig, 0, 1, NOW + 10 * DAY)); /* its day begins here */
    assert_string_equal(contents(rig), "|2:b=2 |3:a=~ ");
    assert_true(rewrite(rig, 0, 1, NOW + 11 * DAY));
    assert_string_equal(contents(rig), "|2:b=2 ");
    rig_free(rig);
}

static void packed_and_foreign(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct record_batch head = plain();
    file_begin(rig, 0);
    for (unsigned kind = 0; kind < COMPRESS_KINDS; kind++) {
        head.compression = (uint8_t)kind;
        put_batch(rig, head, (struct rec[]){{"a", "1"}, {kind % 2 ? "odd" : "even", "1"}, {NULL, "free"}}, 3);
    }
    head = plain();
    head.producer_id = 77;
    head.producer_epoch = 1;
    head.base_sequence = 5;
    put_batch(rig, head, (struct rec[]){{"a", "p"}, {"f", "q"}}, 2);
    head.transactional = true;
    put_batch(rig, head, (struct rec[]){{"a", "tx"}}, 1);
    head.control = true;
    put_batch(rig, head, (struct rec[]){{"a", "marker"}}, 1);
    put_batch(rig, plain(), (struct rec[]){{"a", "end"}}, 1);
    file_end(rig);
    open_all(rig);
    (void)keys(rig, 0, rig->files[0].end);
    assert_true(rewrite(rig, 0, 1, NOW));
    assert_string_equal(contents(rig), "|2:-=free |5:-=free |8:-=free |10:odd=1 11:-=free |13:even=1 14:-=free |16:f=q "
                                       "|18:a=marker |19:a=end ");
    verify(rig, &rig->files[0]);
    struct slice file = os_sim_peek(rig->sim, path_of(&rig->files[0])), bytes;
    struct reader r = reader_of(slice_of(file.ptr + LAYOUT_BLOCK, rig->files[0].bytes - LAYOUT_BLOCK));
    struct record_batch batch;
    for (unsigned kind = 0; kind < COMPRESS_KINDS; kind++) {
        assert_int_equal(record_batch_take(&r, &batch, &bytes), RECORD_OK);
        assert_true(batch.compression == kind && batch.base_offset == 3 * kind && batch.last_offset_delta == 2);
    }
    assert_int_equal(record_batch_take(&r, &batch, &bytes), RECORD_OK);
    assert_true(batch.count == 1 && batch.producer_id == 77 && record_batch_last_sequence(&batch) == 6);
    assert_false(rewrite(rig, 0, 1, NOW)); /* what is left of it is left alone */
    rig_free(rig);
}

static struct record_batch transactional(int64_t producer, bool marker)
{
    struct record_batch head = plain();
    head.producer_id = producer;
    head.transactional = true;
    head.control = marker;
    return head;
}

/* What was aborted goes, with what its keys had before it staying; what was committed is a value as any; ends stay. */
static void transactions(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct aborted aborted[] = {{.producer = 7, .first = 2, .last = 5, .stable = 3}, /* 8 was open from 3 on */
                                {.producer = 8, .first = 3, .last = 8, .stable = 4}, /* and 9 from 4 on */
                                {.producer = 7, .first = 11, .last = 12, .stable = 13}};
    rig->aborted = aborted;
    rig->aborted_count = 3;
    file_begin(rig, 0);
    put_batch(rig, plain(), (struct rec[]){{"a", "1"}, {"b", "1"}}, 2);
    put_batch(rig, transactional(7, false), (struct rec[]){{"a", "gone"}}, 1); /* 2 */
    put_batch(rig, transactional(8, false), (struct rec[]){{"b", "gone"}}, 1); /* 3 */
    put_batch(rig, transactional(9, false), (struct rec[]){{"c", "in"}}, 1);   /* 4, committed */
    put_batch(rig, transactional(7, true), (struct rec[]){{"end", "7"}}, 1);   /* 5 */
    put_batch(rig, transactional(7, false), (struct rec[]){{"d", "in"}}, 1);   /* 6, its next one, committed */
    put_batch(rig, transactional(8, false), (struct rec[]){{"c", "gone"}}, 1); /* 7 */
    put_batch(rig, transactional(8, true), (struct rec[]){{"end", "8"}}, 1);   /* 8 */
    put_batch(rig, transactional(9, true), (struct rec[]){{"end", "9"}}, 1);   /* 9 */
    put_batch(rig, transactional(7, true), (struct rec[]){{"end", "7"}}, 1);   /* 10 */
    file_end(rig);
    file_begin(rig, 11);
    put_batch(rig, transactional(7, false), (struct rec[]){{"d", "gone"}}, 1); /* 11 */
    put_batch(rig, transactional(7, true), (struct rec[]){{"end", "7"}}, 1);   /* 12 */
    put_batch(rig, plain(), (struct rec[]){{"c", NULL}}, 1);                   /* 13: a later tombstone */
    file_end(rig);
    open_all(rig);
    assert_int_equal(keys(rig, 0, 14), 14);
    assert_true(rewrite(rig, 0, 1, NOW));
    assert_string_equal(contents(rig), "|0:a=1 1:b=1 |5:end=7 |6:d=in |8:end=8 |9:end=9 |10:end=7 "
                                       "|11:d=gone |12:end=7 |13:c=~ ");
    assert_true(rewrite(rig, 1, 1, NOW));
    assert_string_equal(contents(rig), "|0:a=1 1:b=1 |5:end=7 |6:d=in |8:end=8 |9:end=9 |10:end=7 "
                                       "|12:end=7 |13:c=~ ");
    verify(rig, &rig->files[0]);
    verify(rig, &rig->files[1]);
    assert_int_equal(keys(rig, 0, 14), 14);
    assert_false(rewrite(rig, 0, 1, NOW)); /* nothing more can go */
    rig_free(rig);
}

/* ---------------------------------------------------------------------------------------------------------------- bulk */

static void bulk_files(struct rig *rig, unsigned files, unsigned batches, unsigned records, unsigned key_count)
{
    static char names[2000][16], values[2000][24];
    struct rec recs[64];
    uint64_t base = 0;
    for (unsigned f = 0; f < files; f++) {
        file_begin(rig, base);
        for (unsigned i = 0; i < batches; i++) {
            for (unsigned k = 0; k < records; k++) {
                uint64_t offset = rig->extent.end + k;
                unsigned key = (unsigned)(offset * 7919 % key_count);
                snprintf(names[k], sizeof names[k], "k%04u", key);
                snprintf(values[k], sizeof values[k], "%llu", (unsigned long long)offset);
                recs[k] = (struct rec){names[k], values[k]};
            }
            struct record_batch head = plain();
            head.compression = (uint8_t)(i % 3 ? 0 : COMPRESS_LZ4);
            put_batch(rig, head, recs, records);
        }
        file_end(rig);
        base = rig->extent.end;
    }
}

/* Each key once, with the last of its offsets. */
static void check_bulk(struct rig *rig, unsigned key_count)
{
    uint64_t end = rig->files[rig->count - 1].end, found = 0;
    const char *text = contents(rig);
    for (const char *at = strchr(text, ':'); at; at = strchr(at + 1, ':'), found++) {
        const char *begin = at;
        while (begin > text && begin[-1] >= '0' && begin[-1] <= '9')
            begin--;
        uint64_t offset = strtoull(begin, NULL, 10);
        assert_true(offset + key_count >= end && strtoull(strchr(at, '=') + 1, NULL, 10) == offset);
    }
    assert_int_equal(found, key_count);
}

/* More keys than the map has places for. */
static void several_passes(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    unsigned passes = 0;
    rig->keys_max = 256;
    bulk_files(rig, 4, 20, 40, 800);
    open_all(rig);
    for (uint64_t at = 0, end = rig->files[3].end; at < end; passes++) {
        uint64_t next = keys(rig, at, end);
        assert_true(next > at);
        at = next;
        for (uint32_t i = 0; i < rig->count; i++)
            (void)rewrite(rig, i, 1, NOW);
    }
    assert_true(passes > 2);
    check_bulk(rig, 800);
    assert_true(rewrite(rig, 0, rig->count, NOW));
    check_bulk(rig, 800);
    verify(rig, &rig->files[0]);
    rig_free(rig);
}

static void damage(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    two_files(rig);
    struct slice file = os_sim_peek(rig->sim, path_of(&rig->files[0]));
    ((uint8_t *)(uintptr_t)file.ptr)[rig->files[0].bytes - 3] ^= 1;
    open_all(rig);
    struct stream_job *job = ask(rig, job_of(STREAM_KEYS, 0, 0, 10));
    assert_int_equal(job->err, -EILSEQ);
    stream_job_free(&rig->heap, &job);
    assert_true(strstr(rig->sentence, "checksum") && strstr(rig->sentence, "compacted"));
    (void)keys(rig, 7, 10); /* behind it */
    struct stream_extent made;
    assert_int_equal(try_rewrite(rig, 0, 2, NOW, &made), -EILSEQ);
    streams_close(&rig->streams);
    open_all(rig);
    assert_string_equal(read_from(rig, 7), "7=2 8=5 9=1 ");
    rig_free(rig);
}

/* The files are not there any more, the keys are another stream's, two at once, a stop in the middle. */
static void refused(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    struct stream_extent made;
    two_files(rig);
    open_all(rig);
    assert_int_equal(try_rewrite(rig, 0, 1, NOW, &made), -ESTALE); /* no keys */
    (void)keys(rig, 0, 10);
    assert_int_equal(try_rewrite(rig, 0, 1, NOW, &made), 0);
    struct stream_job *job = job_of(STREAM_REPLACE, 0, 0, 0); /* not wanted after all */
    job->sealed = made;
    assert_null(ask(rig, job));
    assert_null(os_sim_peek(rig->sim, path_of(&made)).ptr);
    assert_string_equal(read_from(rig, 0), "0=1 1=1 2=free 3=2 4=3 5=4 6=1 7=2 8=5 9=1 ");
    struct stream_job *drop = job_of(STREAM_DROP, 0, 0, 7), *one = job_of(STREAM_REWRITE, 0, 0, 7),
                      *two = job_of(STREAM_REWRITE, 0, 7, 10);
    name_run(rig, one, 0, 1);
    assert_true(streams_submit(rig->streams, &one) && streams_submit(rig->streams, &two) &&
                streams_submit(rig->streams, &drop));
    while (streams_step(rig->streams))
        continue;
    two = streams_take(rig->streams);
    one = streams_take(rig->streams);
    assert_true(one && one->err == -ESTALE && two && two->err == -EBUSY);
    stream_job_free(&rig->heap, &one);
    stream_job_free(&rig->heap, &two);
    one = job_of(STREAM_KEYS, 0, 7, 10);
    assert_true(streams_submit(rig->streams, &one));
    streams_stop(rig->streams);
    one = streams_take(rig->streams);
    assert_true(one && (one->err == -ECANCELED || one->err == 0));
    stream_job_free(&rig->heap, &one);
    rig_free(rig);
}

/* ------------------------------------------------------------------------------------------------------------- failures */

/* One pass as far as it goes. What is named before the answer is what is there after it. */
static void pass(struct rig *rig)
{
    struct stream_extent made = {0};
    struct stream_job *job = ask(rig, job_of(STREAM_KEYS, 0, 0, 10));
    int err = job->err;
    stream_job_free(&rig->heap, &job);
    if (!err)
        err = try_rewrite(rig, 0, 2, NOW, &made);
    if (!err)
        replace(rig, 0, 2, &made);
}

static void check_either(struct rig *rig)
{
    if (rig->count == 1)
        assert_string_equal(read_from(rig, 0), "2=free 6=1 7=2 8=5 9=1 ");
    else
        assert_string_equal(read_from(rig, 0), "0=1 1=1 2=free 3=2 4=3 5=4 6=1 7=2 8=5 9=1 ");
}

static void count_file(void *arg, const char *path)
{
    (void)path;
    ++*(unsigned *)arg;
}

static void only_named_files(struct rig *rig)
{
    unsigned files = 0;
    os_sim_each(rig->sim, "d/str", count_file, &files);
    assert_int_equal(files, rig->count);
}

static void failing_operations(void **state)
{
    (void)state;
    uint64_t hit = 1;
    unsigned n = 0;
    for (; hit; n++) {
        struct rig *rig = rig_new();
        two_files(rig);
        open_all(rig);
        os_sim_fail(rig->sim, OS_SIM_ALL, n + 1, n % 2 ? EIO : ENOSPC, n % 3 == 0);
        pass(rig);
        hit = os_sim_failures_hit(rig->sim);
        assert_true(!hit || rig->faults || rig->count == 1);
        os_sim_fail(rig->sim, 0, 0, 0, false);
        check_either(rig);
        streams_close(&rig->streams);
        open_all(rig);
        check_either(rig);
        only_named_files(rig);
        rig_free(rig);
    }
    assert_true(n > 10);
}

static void power_cut_at_every_operation(void **state)
{
    (void)state;
    bool cut = true;
    int64_t k = 0;
    for (; cut; k++) {
        struct rig *rig = rig_new();
        two_files(rig);
        open_all(rig);
        os_sim_cut_after(rig->sim, k);
        pass(rig);
        cut = os_sim_is_cut(rig->sim);
        streams_close(&rig->streams);
        os_sim_crash(rig->sim, (uint64_t)k);
        open_all(rig);
        check_either(rig);
        only_named_files(rig);
        rig_free(rig);
    }
    assert_true(k > 6);
}

static void without_memory(void **state)
{
    (void)state;
    bool done = false;
    unsigned n = 0;
    for (; !done; n++) {
        struct rig *rig = rig_new();
        two_files(rig);
        open_all(rig);
        struct stream_job *job = job_of(STREAM_KEYS, 0, 0, 10), *next = job_of(STREAM_REWRITE, 0, 0, 10);
        next->sealed.generation = 1;
        name_run(rig, next, 0, 2);
        mem_fail_at(n + 1, false);
        job = ask(rig, job);
        int err = job->err;
        if (!err) {
            next = ask(rig, next);
            err = next->err;
        }
        mem_fail_at(0, false);
        done = err == 0;
        assert_true(!err || err == -ENOMEM);
        if (!err)
            replace(rig, 0, 2, &next->sealed);
        stream_job_free(&rig->heap, &job);
        stream_job_free(&rig->heap, &next);
        check_either(rig);
        streams_close(&rig->streams);
        open_all(rig);
        only_named_files(rig);
        rig_free(rig);
    }
    assert_true(n > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_of_keys),
        cmocka_unit_test(last_of_each_key),
        cmocka_unit_test(files_become_one),
        cmocka_unit_test(fetched_across_a_compaction),
        cmocka_unit_test(only_what_was_looked_at),
        cmocka_unit_test(null_values),
        cmocka_unit_test(null_value_behind_the_keys),
        cmocka_unit_test(packed_and_foreign),
        cmocka_unit_test(transactions),
        cmocka_unit_test(several_passes),
        cmocka_unit_test(damage),
        cmocka_unit_test(refused),
        cmocka_unit_test(failing_operations),
        cmocka_unit_test(power_cut_at_every_operation),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
