/* The files of streams, see stream_files.h and docs/formats/streams.md.
 *
 *   begun ──commit──▶ open ──the next one is committed──▶ sealed ──dropped──▶ gone
 *     └──cut_back──▶ gone      (a cut that fails ends an open file too)
 *
 * Thousands of partitions share few descriptors. A file that was written and not synced keeps its descriptor: a failed
 * write-back is told to descriptors that were open then, and a later one may hear "fine". So a descriptor that must make
 * room is of a clean file if there is one, and else its file is synced first; a failure then is as final as any.
 * Descriptors for reading are fewer, and the first that are given up when the process has none left. A file of which pieces are
 * sent has one descriptor for all of them, counted, which stays while anybody holds it, and for a while after.
 * Thread: the streams'.
 */
#include "store/stream_files.h"

#include "base/check.h"
#include "base/mem.h"
#include "os/os_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define SEGMENTS_MAX (1u << 24) /* of one partition */

static int fault(struct stream_files *files, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int fault(struct stream_files *files, int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(files->fault, sizeof files->fault, format, args);
    va_end(args);
    if (err != -EILSEQ && err != -EPROTO && n > 0 && (size_t)n < sizeof files->fault)
        snprintf(files->fault + n, sizeof files->fault - (size_t)n, ": %s", strerror(-err));
    return err;
}

/* Answers where in it the name below the data folder begins. */
static const char *path_of_name(const struct stream_files *files, const struct stream_name *name,
                                char ret[WAL_PATH_MAX])
{
    char text[STREAM_NAME_LEN + 1];
    stream_name_put(text, name);
    int n = snprintf(ret, WAL_PATH_MAX, "%s/%s", files->folder, text);
    CHECK(n > 0 && n < WAL_PATH_MAX); /* the folder's length was checked by open */
    return ret + strlen(files->dir) + 1;
}

static struct stream_name name_of(const struct stream_partition *partition, uint64_t base, uint32_t generation)
{
    return (struct stream_name){.stream = partition->key.stream,
                                .partition = (uint32_t)partition->key.partition,
                                .base = base,
                                .generation = generation};
}

static struct stream_segment *segment_with(const struct stream_partition *partition, uint64_t base);

/* Of the segment with that base, or of one that is about to be the partition's last. */
static const char *path_of(const struct stream_files *files, const struct stream_partition *partition, uint64_t base,
                           char ret[WAL_PATH_MAX])
{
    const struct stream_segment *segment = segment_with(partition, base);
    struct stream_name name = name_of(partition, base, segment ? segment->extent.generation : 0);
    return path_of_name(files, &name, ret);
}

const char *stream_files_name(struct stream_files *files, const struct stream_partition *partition, uint64_t base)
{
    return path_of(files, partition, base, files->path);
}

/* ---------------------------------------------------------------------------------------------------------- partitions */

static struct slice key_of(const struct stream_partition *partition)
{
    return slice_of(&partition->key, sizeof partition->key);
}

struct stream_partition *stream_files_find(const struct stream_files *files, uint64_t stream, uint32_t partition)
{
    struct stream_partition like = {.key = {stream, partition}};
    return map_get(&files->partitions, key_of(&like));
}

struct stream_partition *stream_files_make(struct stream_files *files, uint64_t stream, uint32_t partition)
{
    struct stream_partition *made = stream_files_find(files, stream, partition);
    if (made)
        return made;
    made = map_reserve(&files->partitions) ? mem_zalloc(sizeof *made) : NULL;
    if (!made)
        return NULL;
    made->key.stream = stream;
    made->key.partition = partition;
    list_init(&made->turn);
    map_put(&files->partitions, key_of(made), made);
    return made;
}

/* Also one that was begun and holds nothing yet. */
static struct stream_segment *segment_with(const struct stream_partition *partition, uint64_t base)
{
    uint32_t low = 0, high = partition->len;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (partition->segments[middle].extent.base < base)
            low = middle + 1;
        else
            high = middle;
    }
    return low < partition->len && partition->segments[low].extent.base == base ? &partition->segments[low] : NULL;
}

struct stream_segment *stream_files_at(const struct stream_partition *partition, uint64_t offset)
{
    uint32_t low = 0, high = partition->len;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (partition->segments[middle].extent.end <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < partition->len ? &partition->segments[low] : NULL;
}

static struct stream_segment *segment_add(struct stream_partition *partition)
{
    if (partition->len == partition->cap) {
        uint32_t cap = partition->cap ? partition->cap * 2 : 1;
        struct stream_segment *segments =
            cap <= SEGMENTS_MAX ? mem_realloc(partition->segments, cap * sizeof *segments) : NULL;
        if (!segments)
            return NULL;
        partition->segments = segments;
        partition->cap = cap;
    }
    struct stream_segment *segment = &partition->segments[partition->len++];
    *segment = (struct stream_segment){.writer = -1, .lent = -1};
    return segment;
}

/* --------------------------------------------------------------------------------------------------------- descriptors */

static void set_dirty(struct stream_partition *partition, struct stream_segment *segment, bool dirty)
{
    partition->dirty += dirty - segment->dirty;
    segment->dirty = dirty;
}

static int sync_file(struct stream_files *files, struct stream_partition *partition, struct stream_segment *segment)
{
    CHECK(segment->writer >= 0);
    int err = files->os->fdatasync(files->os, files->writers[segment->writer].fd);
    set_dirty(partition, segment, false); /* whatever comes: asking again would be answered "fine" */
    if (!err)
        return 0;
    partition->failed = err;
    return fault(files, err, "sync %s", stream_files_name(files, partition, segment->extent.base));
}

static void writer_close(struct stream_files *files, struct stream_segment *segment)
{
    if (segment->writer < 0)
        return;
    struct stream_fd *writer = &files->writers[segment->writer];
    files->os->close(files->os, writer->fd);
    writer->partition = NULL;
    segment->writer = -1;
}

static void reader_close(struct stream_files *files, struct stream_fd *reader)
{
    if (reader->partition)
        files->os->close(files->os, reader->fd);
    reader->partition = NULL;
}

static struct stream_segment *segment_of(const struct stream_fd *writer)
{
    struct stream_segment *segment = segment_with(writer->partition, writer->base);
    CHECK(segment);
    return segment;
}

/* Closes the writer that was used longest ago, clean ones first, dirty ones after a sync. False: there is none. */
static bool writer_give_up(struct stream_files *files)
{
    struct stream_fd *oldest = NULL;
    bool oldest_dirty = true;
    for (uint32_t i = 0; i < files->writers_max; i++) {
        struct stream_fd *writer = &files->writers[i];
        if (!writer->partition)
            continue;
        bool dirty = segment_of(writer)->dirty;
        if (!oldest || (oldest_dirty && !dirty) || (oldest_dirty == dirty && writer->used < oldest->used)) {
            oldest = writer;
            oldest_dirty = dirty;
        }
    }
    if (!oldest)
        return false;
    struct stream_segment *segment = segment_of(oldest);
    if (segment->dirty)
        (void)sync_file(files, oldest->partition, segment); /* a failure is told to whoever comes next: it is final */
    writer_close(files, segment);
    return true;
}

/* Whoever holds the file goes on with it. */
static void lent_close(struct stream_files *files, struct stream_segment *segment)
{
    if (segment->lent < 0)
        return;
    struct stream_fd *lent = &files->lent[segment->lent];
    counted_file_unref(lent->file);
    lent->file = NULL;
    lent->partition = NULL;
    segment->lent = -1;
}

static bool lent_idle(const struct stream_fd *lent)
{
    return lent->partition && !counted_file_shared(lent->file);
}

static bool readers_give_up(struct stream_files *files)
{
    bool any = false;
    for (unsigned i = 0; i < files->lent_len; i++)
        if (lent_idle(&files->lent[i])) {
            lent_close(files, segment_of(&files->lent[i]));
            any = true;
        }
    for (unsigned i = 0; i < STREAM_READERS_MAX; i++) {
        any = any || files->readers[i].partition;
        reader_close(files, &files->readers[i]);
    }
    return any;
}

static int open_fd(struct stream_files *files, const struct stream_partition *partition, uint64_t base, unsigned flags,
                   int *ret_fd)
{
    char path[WAL_PATH_MAX];
    path_of(files, partition, base, path);
    for (;;) {
        int err = files->os->open(files->os, path, flags, ret_fd);
        if (err != -EMFILE && err != -ENFILE)
            return err;
        if (!readers_give_up(files) && !writer_give_up(files))
            return err;
    }
}

/* The segment must be in the partition's list by its base. */
static int writer_open(struct stream_files *files, struct stream_partition *partition, struct stream_segment *segment,
                       unsigned flags)
{
    uint32_t at = 0;
    int fd;
    uint64_t base = segment->extent.base;
    while (at < files->writers_max && files->writers[at].partition)
        at++;
    if (at == files->writers_max) {
        CHECK(writer_give_up(files));
        for (at = 0; files->writers[at].partition; at++)
            continue;
    }
    int err = open_fd(files, partition, base, OS_WRITE | flags, &fd);
    if (err)
        return err;
    files->writers[at] = (struct stream_fd){.partition = partition, .base = base, .fd = fd, .used = ++files->uses};
    segment->writer = (int16_t)at;
    return 0;
}

/* A free place, or that of the least recently used. */
static struct stream_fd *reader_place(struct stream_files *files)
{
    struct stream_fd *oldest = &files->readers[0];
    for (unsigned i = 0; i < STREAM_READERS_MAX; i++) {
        struct stream_fd *reader = &files->readers[i];
        if (!reader->partition)
            return reader;
        if (reader->used < oldest->used)
            oldest = reader;
    }
    return oldest;
}

static struct stream_fd *reader_with(struct stream_files *files, const struct stream_partition *partition,
                                     uint64_t base)
{
    for (unsigned i = 0; i < STREAM_READERS_MAX; i++)
        if (files->readers[i].partition == partition && files->readers[i].base == base)
            return &files->readers[i];
    return NULL;
}

/* A descriptor to read with, a loan. */
static int fd_for_reading(struct stream_files *files, struct stream_partition *partition,
                          const struct stream_segment *segment, int *ret_fd)
{
    uint64_t base = segment->extent.base;
    struct stream_fd *reader = segment->writer >= 0 ? &files->writers[segment->writer]
                               : segment->lent >= 0 ? &files->lent[segment->lent]
                                                    : reader_with(files, partition, base);
    if (!reader) {
        int fd;
        int err = open_fd(files, partition, base, OS_READ, &fd);
        if (err == -ENOENT)
            return fault(files, -EILSEQ, "the file is missing");
        if (err)
            return fault(files, err, "the file cannot be opened");
        reader = reader_place(files);
        reader_close(files, reader);
        *reader = (struct stream_fd){.partition = partition, .base = base, .fd = fd};
    }
    reader->used = ++files->uses;
    *ret_fd = reader->fd;
    return 0;
}

/* A free place, or that of the least recently used that nobody holds, when there are many; NULL: there is none. */
static struct stream_fd *lent_place(struct stream_files *files)
{
    struct stream_fd *oldest = NULL, *unused = NULL;
    unsigned open = 0;
    for (unsigned i = 0; i < files->lent_len; i++) {
        struct stream_fd *lent = &files->lent[i];
        open += lent->partition != NULL;
        if (!lent->partition)
            unused = unused ? unused : lent;
        else if (lent_idle(lent) && (!oldest || lent->used < oldest->used))
            oldest = lent;
    }
    if (oldest && (open >= STREAM_LENT_KEPT || open == files->lent_max)) {
        lent_close(files, segment_of(oldest));
        return oldest;
    }
    if (!unused && files->lent_len < files->lent_max)
        unused = &files->lent[files->lent_len++];
    return unused;
}

int stream_files_lend(struct stream_files *files, struct stream_partition *partition, struct stream_segment *segment,
                      struct counted_file **ret)
{
    if (segment->lent < 0) {
        uint64_t base = segment->extent.base;
        int fd;
        struct stream_fd *lent = lent_place(files);
        if (!lent)
            return fault(files, -EMFILE, "the file cannot be opened beside those that are being sent");
        int err = open_fd(files, partition, base, OS_READ, &fd);
        if (err == -ENOENT)
            return fault(files, -EILSEQ, "the file is missing");
        if (err)
            return fault(files, err, "the file cannot be opened");
        struct counted_file *file = os_file_new(files->os, fd);
        if (!file) {
            files->os->close(files->os, fd);
            return fault(files, -ENOMEM, "the file cannot be opened");
        }
        struct stream_fd *reader = reader_with(files, partition, base);
        if (reader)
            reader_close(files, reader); /* one is enough */
        *lent = (struct stream_fd){.partition = partition, .base = base, .fd = fd, .file = file};
        segment->lent = (int16_t)(lent - files->lent);
    }
    files->lent[segment->lent].used = ++files->uses;
    *ret = files->lent[segment->lent].file;
    return 0;
}

void stream_files_warm(struct stream_files *files, const struct stream_segment *segment, uint64_t at, size_t len)
{
    if (segment->lent >= 0)
        files->os->will_read(files->os, files->lent[segment->lent].fd, at, len);
}

/* ---------------------------------------------------------------------------------------------------------------- boot */

int stream_files_open(struct stream_files *files, struct os *os, const char *dir, const uint8_t uuid[LAYOUT_UUID_LEN],
                      uint32_t writers_max)
{
    uint64_t seed;
    *files = (struct stream_files){.os = os,
                                   .parking = {.os = os},
                                   .writers_max = writers_max ? writers_max : STREAM_WRITERS_MAX,
                                   .lent_max = STREAM_LENT_MAX};
    CHECK(files->writers_max <= STREAM_WRITERS_MAX);
    os->random(os, &seed, sizeof seed);
    map_init(&files->partitions, seed);
    list_init(&files->turns);
    memcpy(files->uuid, uuid, LAYOUT_UUID_LEN);
    int n = snprintf(files->dir, sizeof files->dir, "%s", dir);
    int m = snprintf(files->folder, sizeof files->folder, "%s/str", dir);
    if (n <= 0 || m <= 0 || (size_t)m + STREAM_NAME_LEN + 2 > sizeof files->folder)
        return fault(files, -ENAMETOOLONG, "the path of the data folder");
    files->block = mem_aligned(LAYOUT_BLOCK, LAYOUT_BLOCK);
    if (!files->block)
        return fault(files, -ENOMEM, "open %s", files->folder);
    int err = os->mkdir(os, files->folder);
    if (err == 0 || err == -EEXIST)
        err = os->sync_dir(os, dir); /* also when it is there: it may have been made just before a crash */
    return err ? fault(files, err, "make %s", files->folder) : 0;
}

/* Is this file what its name and our uuid say? */
static int check_head(struct stream_files *files, const struct stream_name *want, const char *name, int64_t got)
{
    struct stream_head head;
    char truth[STREAM_NAME_LEN + 1];
    enum layout_verdict verdict = got == LAYOUT_BLOCK ? stream_head_get(files->block, &head) : LAYOUT_DAMAGED;
    if (verdict == LAYOUT_NEWER)
        return fault(files, -EPROTO, "%s was written by a newer version of this program", name);
    if (verdict != LAYOUT_GOOD)
        return fault(files, -EILSEQ, "%s: the file's header is damaged", name);
    if (memcmp(head.uuid, files->uuid, LAYOUT_UUID_LEN) != 0)
        return fault(files, -EILSEQ, "%s belongs to another data folder", name);
    struct stream_name is = {
        .stream = head.stream, .partition = head.partition, .base = head.base, .generation = head.generation};
    stream_name_put(truth, &is);
    if (is.stream != want->stream || is.partition != want->partition || is.base != want->base ||
        is.generation != want->generation)
        return fault(files, -EILSEQ, "%s is in truth %s", name, truth);
    return 0;
}

static int look_at_file(struct stream_files *files, const struct stream_partition *partition,
                        const struct stream_extent *extent, uint64_t *ret_size)
{
    char path[WAL_PATH_MAX];
    int fd = -1;
    struct stream_name parts = name_of(partition, extent->base, extent->generation);
    const char *name = path_of_name(files, &parts, path);
    int err = files->os->open(files->os, path, OS_READ, &fd);
    if (err == -ENOENT)
        return fault(files, -EILSEQ, "%s is missing", name);
    if (err)
        return fault(files, err, "open %s", name);
    int64_t got = files->os->size(files->os, fd, ret_size);
    if (!got)
        got = files->os->pread(files->os, fd, files->block, LAYOUT_BLOCK, 0);
    files->os->close(files->os, fd);
    err = got < 0 ? fault(files, (int)got, "read %s", name) : check_head(files, &parts, name, got);
    if (!err && *ret_size < extent->bytes)
        err = fault(files, -EILSEQ, "%s is too short: %" PRIu64 " bytes instead of %" PRIu64, name, *ret_size,
                    extent->bytes);
    return err;
}

static int keep_one(struct stream_files *files, struct stream_partition *partition, uint64_t start,
                    const struct stream_extent *extent, bool tail)
{
    uint64_t size;
    const struct stream_segment *before = stream_files_last(partition);
    if (extent->base >= extent->end || extent->end <= start)
        return 0; /* nothing in it, or nothing that anybody wants: the sweep removes what is there */
    if (extent->bytes < LAYOUT_BLOCK || extent->bytes > STREAM_POSITION_MAX || extent->end > INT64_MAX ||
        (before && before->extent.end != extent->base))
        return fault(files, -EILSEQ, "%s does not follow on the file before it in the journal's list",
                     stream_files_name(files, partition, extent->base));
    int err = look_at_file(files, partition, extent, &size);
    if (err)
        return err;
    struct stream_segment *segment = segment_add(partition);
    if (!segment)
        return fault(files, -ENOMEM, "list of segments");
    segment->extent = *extent;
    files->count++;
    partition->open = partition->tail = tail;
    partition->at = tail ? size : 0;
    partition->next_known = true;
    partition->next = extent->end;
    return 0;
}

int stream_files_keep(struct stream_files *files, uint64_t stream, uint32_t partition, uint64_t start,
                      const struct stream_extent *sealed, uint32_t count, const struct stream_extent *tail)
{
    struct stream_partition *made = stream_files_make(files, stream, partition);
    if (!made)
        return fault(files, -ENOMEM, "list of streams");
    CHECK(!made->len && partition < STREAM_PARTITIONS_MAX);
    int err = 0;
    for (uint32_t i = 0; i < count && !err; i++)
        err = keep_one(files, made, start, &sealed[i], false);
    if (!err)
        err = keep_one(files, made, start, tail, true);
    if (!err && !made->len)
        stream_files_forget(files, made);
    return err;
}

static int sweep_file(void *arg, const char *name)
{
    struct stream_files *files = arg;
    struct stream_name parts;
    char path[WAL_PATH_MAX];
    if (!stream_name_get(name, &parts))
        return 0; /* not ours */
    struct stream_partition *partition = stream_files_find(files, parts.stream, parts.partition);
    const struct stream_segment *segment = partition ? segment_with(partition, parts.base) : NULL;
    if (segment && segment->extent.generation == parts.generation)
        return 0;
    path_of_name(files, &parts, path);
    (void)files->os->unlink(files->os, path); /* if not now, then at the next start */
    return 0;
}

/* Behind the synced end the journal has it better (R2). */
static int cut_tail(struct stream_files *files, struct stream_partition *partition)
{
    struct stream_segment *tail = stream_files_last(partition);
    if (!partition->open || partition->at == tail->extent.bytes)
        return 0;
    int err = writer_open(files, partition, tail, 0);
    if (!err)
        err = files->os->truncate(files->os, files->writers[tail->writer].fd, tail->extent.bytes);
    partition->at = tail->extent.bytes;
    writer_close(files, tail);
    return err ? fault(files, err, "cut %s off", stream_files_name(files, partition, tail->extent.base)) : 0;
}

int stream_files_sweep(struct stream_files *files)
{
    MAP_EACH(&files->partitions, struct stream_partition, partition)
    {
        int err = cut_tail(files, partition);
        if (err)
            return err;
    }
    int err = files->os->list(files->os, files->folder, sweep_file, files);
    return err ? fault(files, err, "read %s", files->folder) : 0;
}

/* ------------------------------------------------------------------------------------------------------------- writing */

static void unlink_file(struct stream_files *files, const struct stream_partition *partition, uint64_t base)
{
    char path[WAL_PATH_MAX];
    path_of(files, partition, base, path);
    (void)files->os->unlink(files->os, path); /* if not now, then at the next start, or when the name is needed */
}

int stream_files_begin(struct stream_files *files, struct stream_partition *partition, uint64_t base)
{
    struct stream_segment *segment = segment_add(partition);
    if (!segment)
        return fault(files, -ENOMEM, "list of segments");
    segment->extent = (struct stream_extent){.base = base, .end = base};
    segment->created = ++files->created;
    int err = writer_open(files, partition, segment, OS_CREATE | OS_EXCLUSIVE);
    if (err == -EEXIST) { /* nobody names it, and removing it has failed before */
        unlink_file(files, partition, base);
        err = writer_open(files, partition, segment, OS_CREATE | OS_EXCLUSIVE);
    }
    if (err) {
        partition->len--;
        return fault(files, err, "create %s", stream_files_name(files, partition, base));
    }
    files->count++;
    partition->at = 0;
    return 0;
}

void stream_files_head(const struct stream_files *files, const struct stream_partition *partition,
                       uint8_t ret[LAYOUT_BLOCK])
{
    const struct stream_segment *segment = stream_files_last(partition);
    struct stream_head head = {.stream = partition->key.stream,
                               .partition = (uint32_t)partition->key.partition,
                               .base = segment->extent.base,
                               .wall_ms = files->os->now_wall(files->os)};
    memcpy(head.uuid, files->uuid, LAYOUT_UUID_LEN);
    stream_head_put(ret, &head);
}

int stream_files_append(struct stream_files *files, struct stream_partition *partition, const void *bytes, size_t len)
{
    struct stream_segment *segment = stream_files_last(partition);
    uint64_t base = segment->extent.base;
    if (segment->writer < 0) {
        int err = writer_open(files, partition, segment, 0);
        if (err)
            return fault(files, err, "open %s", stream_files_name(files, partition, base));
    }
    struct stream_fd *writer = &files->writers[segment->writer];
    writer->used = ++files->uses;
    set_dirty(partition, segment, true); /* also when it fails: something may have been written */
    int err = files->os->pwrite(files->os, writer->fd, bytes, len, partition->at);
    if (err)
        return fault(files, err, "write %s at %" PRIu64, stream_files_name(files, partition, base), partition->at);
    partition->at += len;
    return 0;
}

void stream_files_commit(struct stream_files *files, struct stream_partition *partition,
                         const struct stream_extent *extent)
{
    (void)files;
    struct stream_segment *segment = stream_files_last(partition);
    CHECK(segment->extent.base == extent->base && extent->bytes == partition->at && extent->end > segment->extent.end);
    segment->extent = *extent;
    partition->open = partition->tail = true;
    partition->next_known = true;
    partition->next = extent->end;
}

static void segment_remove(struct stream_files *files, struct stream_partition *partition,
                           struct stream_segment *segment)
{
    uint64_t base = segment->extent.base;
    struct stream_fd *reader = reader_with(files, partition, base);
    set_dirty(partition, segment, false);
    writer_close(files, segment);
    if (segment->lent >= 0)
        atomic_store_explicit(&files->lent[segment->lent].file->orphan, true, memory_order_relaxed);
    lent_close(files, segment);
    if (partition->fetched.base == base)
        partition->fetched.position = 0;
    if (reader)
        reader_close(files, reader);
    for (unsigned i = 0; i < STREAM_INDEXES_KEPT; i++)
        if (files->indexes[i].partition == partition && files->indexes[i].base == base) {
            stream_index_fini(&files->indexes[i].index);
            files->indexes[i].partition = NULL;
        }
    size_t at = (size_t)(segment - partition->segments);
    partition->len--;
    memmove(segment, segment + 1, (partition->len - at) * sizeof *segment);
    files->count--;
}

void stream_files_cut_back(struct stream_files *files, struct stream_partition *partition)
{
    struct stream_segment *segment = stream_files_last(partition);
    if (!segment)
        return;
    if (!segment->extent.bytes) {
        uint64_t base = segment->extent.base;
        segment_remove(files, partition, segment);
        unlink_file(files, partition, base);
        segment = stream_files_last(partition);
        partition->at = segment ? segment->extent.bytes : 0;
        return;
    }
    if (partition->at == segment->extent.bytes && segment->writer < 0)
        return; /* it could not be opened: nothing was written */
    partition->at = segment->extent.bytes;
    if (files->os->truncate(files->os, files->writers[segment->writer].fd, segment->extent.bytes))
        partition->open = false;
}

void stream_files_seal(struct stream_files *files, struct stream_partition *partition, struct stream_segment *segment,
                       const void *trailer, size_t len)
{
    const struct stream_extent *extent = &segment->extent;
    if (segment->writer < 0 && writer_open(files, partition, segment, 0))
        return;
    int fd = files->writers[segment->writer].fd;
    set_dirty(partition, segment, true);
    if (files->os->pwrite(files->os, fd, trailer, len, extent->bytes))
        (void)files->os->truncate(files->os, fd, extent->bytes); /* without a good trailer it is read all the same */
}

/* ------------------------------------------------------------------------------------------------------------- reading */

int stream_files_read(struct stream_files *files, struct stream_partition *partition,
                      const struct stream_segment *segment, uint64_t at, void *ret, size_t len)
{
    int fd;
    int err = fd_for_reading(files, partition, segment, &fd);
    if (err)
        return err;
    int64_t got = files->os->pread(files->os, fd, ret, len, at);
    if (got < 0)
        return fault(files, (int)got, "the file cannot be read");
    if ((uint64_t)got < len)
        return fault(files, -EILSEQ, "the file ends at %" PRIu64, at + (uint64_t)got);
    return 0;
}

int stream_files_size(struct stream_files *files, struct stream_partition *partition,
                      const struct stream_segment *segment, uint64_t *ret)
{
    int fd;
    int err = fd_for_reading(files, partition, segment, &fd);
    if (!err && (err = files->os->size(files->os, fd, ret)) != 0)
        fault(files, err, "the file's size is not known");
    return err;
}

struct stream_index *stream_files_index(struct stream_files *files, const struct stream_partition *partition,
                                        uint64_t base)
{
    for (unsigned i = 0; i < STREAM_INDEXES_KEPT; i++) {
        struct stream_kept_index *kept = &files->indexes[i];
        if (kept->partition == partition && kept->base == base) {
            kept->used = ++files->uses;
            return &kept->index;
        }
    }
    return NULL;
}

struct stream_index *stream_files_keep_index(struct stream_files *files, struct stream_partition *partition,
                                             uint64_t base, struct stream_index *index)
{
    struct stream_kept_index *oldest = &files->indexes[0];
    for (unsigned i = 0; i < STREAM_INDEXES_KEPT && oldest->partition; i++)
        if (!files->indexes[i].partition || files->indexes[i].used < oldest->used)
            oldest = &files->indexes[i];
    stream_index_fini(&oldest->index);
    *oldest = (struct stream_kept_index){.partition = partition, .base = base, .used = ++files->uses, .index = *index};
    *index = (struct stream_index){0};
    return &oldest->index;
}

/* ---------------------------------------------------------------------------------------------------------- sync, drop */

int stream_files_sync_folder(struct stream_files *files)
{
    uint64_t created = files->created;
    int err = files->folder_failed;
    if (!err)
        err = files->os->sync_dir(files->os, files->folder);
    if (err) {
        files->folder_failed = err;
        return fault(files, err, "sync %s", files->folder);
    }
    files->named = created;
    return 0;
}

static int sync_names(struct stream_files *files, struct stream_partition *partition, uint64_t *ret_syncs)
{
    bool unnamed = false;
    for (uint32_t i = partition->len; i > 0 && partition->segments[i - 1].created; i--)
        unnamed = unnamed || partition->segments[i - 1].created > files->named;
    if (!unnamed)
        return 0;
    *ret_syncs += !files->folder_failed;
    return partition->failed = stream_files_sync_folder(files);
}

int stream_files_sync(struct stream_files *files, struct stream_partition *partition, uint64_t *ret_syncs)
{
    if (partition->failed)
        return fault(files, -EIO, "sync partition %" PRIu64 " of stream %" PRIu64 " after a sync of it has failed",
                     partition->key.partition, partition->key.stream);
    for (uint32_t i = partition->len; i > 0 && partition->dirty; i--) {
        struct stream_segment *segment = &partition->segments[i - 1];
        if (!segment->dirty)
            continue;
        ++*ret_syncs;
        int err = sync_file(files, partition, segment);
        if (err)
            return err;
        if (i < partition->len)
            writer_close(files, segment); /* nothing more is written there */
    }
    return sync_names(files, partition, ret_syncs);
}

int stream_files_drop(struct stream_files *files, struct stream_partition *partition, uint64_t until, bool *ret_more)
{
    char path[WAL_PATH_MAX];
    struct stream_segment *segment = partition->segments;
    *ret_more = false;
    if (!partition->len || (segment->extent.end > until))
        return 0;
    path_of(files, partition, segment->extent.base, path);
    if (partition->len == 1) {
        stream_index_fini(&partition->index);
        partition->indexed = partition->open = partition->tail = partition->next_known = false;
        partition->at = 0;
    }
    segment_remove(files, partition, segment);
    *ret_more = partition->len > 0;
    int err = parking_unlink(&files->parking, path);
    return err && err != -ENOENT ? fault(files, err, "remove %s", path + strlen(files->dir) + 1) : 0;
}

/* ---------------------------------------------------------------------------------------------------------- compaction */

int stream_files_make_copy(struct stream_files *files, const struct stream_name *name, int *ret_fd)
{
    char path[WAL_PATH_MAX];
    const char *text = path_of_name(files, name, path);
    int err;
    /* One that is there already is from a try that failed: nobody names it. */
    while ((err = files->os->open(files->os, path, OS_WRITE | OS_CREATE | OS_TRUNCATE, ret_fd)) != 0) {
        if ((err != -EMFILE && err != -ENFILE) || (!readers_give_up(files) && !writer_give_up(files)))
            break;
    }
    return err ? fault(files, err, "create %s", text) : 0;
}

void stream_files_give_up_copy(struct stream_files *files, const struct stream_name *name)
{
    char path[WAL_PATH_MAX];
    path_of_name(files, name, path);
    int err = parking_unlink(&files->parking, path);
    (void)err; /* if not now, then at the next start */
}

struct stream_segment *stream_files_run(const struct stream_partition *partition, uint64_t base, uint64_t end,
                                        uint32_t *ret_count)
{
    struct stream_segment *first = segment_with(partition, base);
    uint32_t count = 0, left = first ? partition->len - (uint32_t)(first - partition->segments) : 0;
    while (count < left && first[count].extent.end < end)
        count++;
    if (count == left || first[count].extent.end != end)
        return NULL;
    *ret_count = count + 1;
    return first;
}

int stream_files_replace(struct stream_files *files, struct stream_partition *partition,
                         const struct stream_extent *extent)
{
    char path[WAL_PATH_MAX];
    uint32_t count;
    int err = 0, one;
    struct stream_segment *segment = stream_files_run(partition, extent->base, extent->end, &count);
    if (!segment)
        return fault(files, -EINVAL, "replace files that are not there, from offset %" PRIu64, extent->base);
    uint32_t at = (uint32_t)(segment - partition->segments);
    if (at + count == partition->len) {
        stream_index_fini(&partition->index);
        partition->indexed = false;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint64_t base = segment->extent.base;
        path_of(files, partition, base, path);
        segment_remove(files, partition, segment);
        one = parking_unlink(&files->parking, path);
        if (one && one != -ENOENT)
            err = fault(files, one, "remove %s", path + strlen(files->dir) + 1);
    }
    memmove(segment + 1, segment, (partition->len - at) * sizeof *segment);
    *segment = (struct stream_segment){.extent = *extent, .writer = -1, .lent = -1};
    partition->len++;
    files->count++;
    return err;
}

/* ----------------------------------------------------------------------------------------------------------------- end */

static void partition_free(struct stream_partition *partition)
{
    stream_index_fini(&partition->index);
    mem_free(partition->segments);
    mem_free(partition);
}

void stream_files_forget(struct stream_files *files, struct stream_partition *partition)
{
    CHECK(!partition->len && list_empty(&partition->turn));
    CHECK(map_take(&files->partitions, key_of(partition)) == partition);
    partition_free(partition);
}

void stream_files_close(struct stream_files *files)
{
    readers_give_up(files);
    for (unsigned i = 0; i < files->lent_len; i++)
        if (files->lent[i].partition)
            lent_close(files, segment_of(&files->lent[i]));
    for (uint32_t i = 0; i < files->writers_max; i++)
        if (files->writers[i].partition)
            writer_close(files, segment_of(&files->writers[i]));
    for (unsigned i = 0; i < STREAM_INDEXES_KEPT; i++)
        stream_index_fini(&files->indexes[i].index);
    MAP_EACH(&files->partitions, struct stream_partition, partition)
    partition_free(partition);
    if (files->os)
        map_fini(&files->partitions);
    mem_free(files->block);
    parking_fini(&files->parking);
    *files = (struct stream_files){0};
}
