/* Segment files, see segments.h and docs/formats/segments.md.
 *
 *   begun ──append──▶ open ──full, failed, or dropped──▶ sealed ──dropped──▶ gone
 *
 * A file is written in one run only, from its beginning to its end; a file of an earlier run is never opened for writing.
 * So a number is enough to know a file by, and S2 needs no thought at a restart. Each append begins at a block of its own.
 * After a failed write or sync the file is sealed: what the kernel still has of those pages is not known, and asking again
 * would be told "fine" (S1). Its tail is cut off after a failed write, which gives a full disk its room back.
 * Reads go through a few descriptors, the least recently used makes room for the next. When the process has no descriptor
 * left, these are the first that are given up.
 * Thread: store.
 */
#include "store/segments.h"

#include "base/check.h"
#include "base/mem.h"
#include "store/page_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define FILES_MAX (16u * 1024 * 1024)

static int fault(struct segments *segments, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int fault(struct segments *segments, int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(segments->fault, sizeof segments->fault, format, args);
    va_end(args);
    if (err != -EILSEQ && err != -EPROTO && n > 0 && (size_t)n < sizeof segments->fault)
        snprintf(segments->fault + n, sizeof segments->fault - (size_t)n, ": %s", strerror(-err));
    return err;
}

static void path_of(const struct segments *segments, uint32_t number, char ret[WAL_PATH_MAX])
{
    CHECK(wal_path(ret, segments->folder, 's', number)); /* the folder's length was checked by open */
}

static void close_fd(struct segments *segments, int *fd)
{
    if (*fd >= 0)
        segments->os->close(segments->os, *fd); /* whatever matters in it was synced */
    *fd = -1;
}

/* ------------------------------------------------------------------------------------------------------- list of files */

static int compare_numbers(const void *a, const void *b)
{
    const struct segment *x = a, *y = b;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* Only once the list is sorted. */
static struct segment *file_find(struct segments *segments, uint32_t number)
{
    struct segment key = {.number = number};
    if (!segments->files_len)
        return NULL;
    return bsearch(&key, segments->files, segments->files_len, sizeof key, compare_numbers);
}

static bool file_reserve(struct segments *segments)
{
    if (segments->files_len < segments->files_cap)
        return true;
    size_t cap = segments->files_cap ? segments->files_cap * 2 : 16;
    struct segment *files = cap <= FILES_MAX ? mem_realloc(segments->files, cap * sizeof *files) : NULL;
    if (!files)
        return false;
    segments->files = files;
    segments->files_cap = cap;
    return true;
}

static void file_forget(struct segments *segments, struct segment *file)
{
    size_t at = (size_t)(file - segments->files);
    segments->files_len--;
    memmove(file, file + 1, (segments->files_len - at) * sizeof *file);
}

/* ---------------------------------------------------------------------------------------------------------------- boot */

int segments_open(struct segments *segments, struct os *os, const char *dir, const uint8_t uuid[LAYOUT_UUID_LEN],
                  uint64_t bytes_max)
{
    *segments = (struct segments){
        .os = os, .parking = {.os = os}, .bytes_max = bytes_max / LAYOUT_BLOCK * LAYOUT_BLOCK, .next = 1, .fd = -1};
    memcpy(segments->uuid, uuid, LAYOUT_UUID_LEN);
    int n = snprintf(segments->dir, sizeof segments->dir, "%s", dir);
    int m = snprintf(segments->folder, sizeof segments->folder, "%s/seg", dir);
    if (n <= 0 || m <= 0 || (size_t)m + 32 > sizeof segments->folder)
        return fault(segments, -ENAMETOOLONG, "the path of the data folder");
    segments->block = mem_aligned(LAYOUT_BLOCK, LAYOUT_BLOCK);
    if (!segments->block)
        return fault(segments, -ENOMEM, "open %s", segments->folder);
    int err = os->mkdir(os, segments->folder);
    if (err == 0 || err == -EEXIST)
        err = os->sync_dir(os, dir); /* also when it is there: it may have been made just before a crash */
    return err ? fault(segments, err, "make %s", segments->folder) : 0;
}

/* Is this file what its name and our uuid say? */
static int check_head(struct segments *segments, uint32_t number, int64_t got)
{
    struct segment_head head;
    enum layout_verdict verdict = got == LAYOUT_BLOCK ? segment_head_get(segments->block, &head) : LAYOUT_DAMAGED;
    if (verdict == LAYOUT_NEWER)
        return fault(segments, -EPROTO, "seg/s-%016" PRIx32 " was written by a newer version of this program", number);
    if (verdict != LAYOUT_GOOD)
        return fault(segments, -EILSEQ, "seg/s-%016" PRIx32 ": the file's header is damaged", number);
    if (memcmp(head.uuid, segments->uuid, LAYOUT_UUID_LEN) != 0)
        return fault(segments, -EILSEQ, "seg/s-%016" PRIx32 " belongs to another data folder", number);
    if (head.segment != number)
        return fault(segments, -EILSEQ, "seg/s-%016" PRIx32 " is in truth s-%016" PRIx32, number, head.segment);
    return 0;
}

static int look_at_file(struct segments *segments, uint32_t number, uint64_t *ret_size)
{
    char path[WAL_PATH_MAX];
    int fd = -1;
    path_of(segments, number, path);
    int err = segments->os->open(segments->os, path, OS_READ, &fd);
    if (err == -ENOENT)
        return fault(segments, -EILSEQ, "seg/s-%016" PRIx32 " is missing", number);
    if (err)
        return fault(segments, err, "open %s", path);
    int64_t got = segments->os->size(segments->os, fd, ret_size);
    if (!got)
        got = segments->os->pread(segments->os, fd, segments->block, LAYOUT_BLOCK, 0);
    close_fd(segments, &fd);
    return got < 0 ? fault(segments, (int)got, "read %s", path) : check_head(segments, number, got);
}

int segments_keep(struct segments *segments, uint32_t number, uint64_t end)
{
    struct segment file = {.number = number};
    bool known = segments->files_len && segments->files[segments->files_len - 1].number == number;
    if (known)
        file = segments->files[segments->files_len - 1];
    else {
        int err = look_at_file(segments, number, &file.size);
        if (err)
            return err;
    }
    if (file.size < end)
        return fault(segments, -EILSEQ, "seg/s-%016" PRIx32 " is too short: %" PRIu64 " bytes instead of %" PRIu64,
                     number, file.size, end);
    if (!known && !file_reserve(segments))
        return fault(segments, -ENOMEM, "list of segments");
    if (!known)
        segments->files[segments->files_len++] = file;
    return 0;
}

static void take_number(struct segments *segments, uint64_t number)
{
    if (segments->next && number >= segments->next)
        segments->next = (uint32_t)(number + 1); /* wraps to 0 after the last one */
}

static int sweep_file(void *arg, const char *name)
{
    struct segments *segments = arg;
    char path[WAL_PATH_MAX];
    uint64_t number;
    if (!wal_name(name, 's', &number) || number == 0 || number > UINT32_MAX)
        return 0; /* not ours */
    take_number(segments, number);
    if (file_find(segments, (uint32_t)number))
        return 0;
    path_of(segments, (uint32_t)number, path);
    (void)segments->os->unlink(segments->os, path); /* if not now, then at the next start */
    return 0;
}

int segments_sweep(struct segments *segments)
{
    size_t kept = 0;
    if (segments->files_len)
        qsort(segments->files, segments->files_len, sizeof *segments->files, compare_numbers);
    for (size_t i = 0; i < segments->files_len; i++)
        if (kept == 0 || segments->files[kept - 1].number != segments->files[i].number)
            segments->files[kept++] = segments->files[i];
    segments->files_len = kept;
    if (kept)
        take_number(segments, segments->files[kept - 1].number);
    int err = segments->os->list(segments->os, segments->folder, sweep_file, segments);
    return err ? fault(segments, err, "read %s", segments->folder) : 0;
}

/* ------------------------------------------------------------------------------------------------------------- writing */

static struct segment *open_file(struct segments *segments)
{
    CHECK(segments->open && segments->files_len);
    struct segment *file = &segments->files[segments->files_len - 1];
    CHECK(file->number == segments->open && file->begun);
    return file;
}

static void unlink_file(struct segments *segments, uint32_t number)
{
    char path[WAL_PATH_MAX];
    path_of(segments, number, path);
    (void)segments->os->unlink(segments->os, path); /* if not now, then at the next start */
}

/* Nothing more is written to the open file. One that holds no good page is nobody's. */
void segments_seal(struct segments *segments)
{
    if (!segments->open)
        return;
    struct segment *file = open_file(segments);
    close_fd(segments, &segments->fd);
    if (file->size == 0) {
        unlink_file(segments, file->number);
        file_forget(segments, file);
    }
    segments->open = 0;
}

static int begin(struct segments *segments)
{
    char path[WAL_PATH_MAX];
    struct segment_head head = {.segment = segments->next, .wall_ms = segments->os->now_wall(segments->os)};
    if (!segments->next)
        return fault(segments, -EOVERFLOW, "there are no more numbers for segments");
    if (!file_reserve(segments))
        return fault(segments, -ENOMEM, "list of segments");
    path_of(segments, head.segment, path);
    int err = segments->os->open(segments->os, path, OS_WRITE | OS_CREATE | OS_EXCLUSIVE, &segments->fd);
    take_number(segments, head.segment); /* whatever comes: this one is used up */
    if (err) {
        segments->fd = -1;
        return fault(segments, err, "create seg/s-%016" PRIx32, head.segment);
    }
    segments->open = head.segment;
    segments->offset = LAYOUT_BLOCK;
    segments->named = false;
    segments->files[segments->files_len++] = (struct segment){.number = head.segment, .begun = true};
    memcpy(head.uuid, segments->uuid, LAYOUT_UUID_LEN);
    segment_head_put(segments->block, &head);
    err = segments->os->pwrite(segments->os, segments->fd, segments->block, LAYOUT_BLOCK, 0);
    if (!err)
        return 0;
    segments_seal(segments);
    return fault(segments, err, "begin seg/s-%016" PRIx32, head.segment);
}

uint64_t segments_room(const struct segments *segments)
{
    return segments->offset < segments->bytes_max ? segments->bytes_max - segments->offset : 0;
}

/* A page that no file has room for gets one for itself. */
static bool fits(const struct segments *segments, uint64_t len)
{
    return len <= segments_room(segments) || segments->offset == LAYOUT_BLOCK;
}

int segments_prepare(struct segments *segments, uint64_t len)
{
    if (segments->open && !fits(segments, len))
        segments_seal(segments);
    return segments->open ? 0 : begin(segments);
}

int segments_prepare_own(struct segments *segments)
{
    if (segments->open && segments->offset != LAYOUT_BLOCK)
        segments_seal(segments);
    return segments->open ? 0 : begin(segments);
}

static int make_durable(struct segments *segments)
{
    int err = segments->os->fdatasync(segments->os, segments->fd);
    if (err)
        return fault(segments, err, "sync seg/s-%016" PRIx32, segments->open);
    if (!segments->named)
        err = segments->os->sync_dir(segments->os, segments->folder);
    if (err)
        return fault(segments, err, "sync %s", segments->folder);
    segments->named = true;
    return 0;
}

/* err: of writing. */
static int settle(struct segments *segments, int err, size_t pages, bool sync)
{
    struct segment *file = open_file(segments);
    if (err) {
        fault(segments, err, "write seg/s-%016" PRIx32 " at %" PRIu64, segments->open, segments->offset);
        if (file->size)
            (void)segments->os->truncate(segments->os, segments->fd, layout_blocks(file->size));
    } else if (sync) {
        err = make_durable(segments);
    }
    if (err) {
        segments_seal(segments);
        return err;
    }
    file->size = segments->offset + pages;
    segments->offset += layout_blocks(pages);
    return 0;
}

int segments_append(struct segments *segments, const uint8_t *bytes, size_t pages, bool sync)
{
    size_t all = (size_t)layout_blocks(pages);
    return settle(segments, segments->os->pwrite(segments->os, segments->fd, bytes, all, segments->offset), pages,
                  sync);
}

int segments_append_parts(struct segments *segments, const struct slice *parts, unsigned count, bool sync)
{
    static const uint8_t zeros[LAYOUT_BLOCK];
    uint64_t at = segments->offset;
    int err = 0;
    for (unsigned i = 0; i < count && !err; i++) {
        err = segments->os->pwrite(segments->os, segments->fd, parts[i].ptr, parts[i].len, at);
        at += parts[i].len;
    }
    size_t pages = (size_t)(at - segments->offset), rest = (size_t)layout_blocks(pages) - pages;
    if (!err && rest)
        err = segments->os->pwrite(segments->os, segments->fd, zeros, rest, at);
    return settle(segments, err, pages, sync);
}

/* ------------------------------------------------------------------------------------------------------------- reading */

/* A free place, or that of the least recently used. */
static struct segment_reader *reader_free(struct segments *segments)
{
    struct segment_reader *oldest = &segments->readers[0];
    for (unsigned i = 0; i < SEGMENTS_READERS; i++) {
        struct segment_reader *reader = &segments->readers[i];
        if (!reader->number)
            return reader;
        if (reader->used < oldest->used)
            oldest = reader;
    }
    return oldest;
}

static struct segment_reader *reader_find(struct segments *segments, uint32_t number)
{
    for (unsigned i = 0; i < SEGMENTS_READERS; i++)
        if (segments->readers[i].number == number)
            return &segments->readers[i];
    return NULL;
}

static bool reader_close(struct segments *segments, struct segment_reader *reader)
{
    if (!reader || !reader->number)
        return false;
    close_fd(segments, &reader->fd);
    reader->number = 0;
    return true;
}

static void readers_close(struct segments *segments)
{
    for (unsigned i = 0; i < SEGMENTS_READERS; i++)
        reader_close(segments, &segments->readers[i]);
}

static int reader_open(struct segments *segments, uint32_t number, struct segment_reader **ret)
{
    char path[WAL_PATH_MAX];
    int fd;
    struct segment_reader *reader = reader_free(segments);
    path_of(segments, number, path);
    reader_close(segments, reader);
    int err = segments->os->open(segments->os, path, OS_READ, &fd);
    if (err == -EMFILE || err == -ENFILE) {
        readers_close(segments);
        err = segments->os->open(segments->os, path, OS_READ, &fd);
    }
    if (err == -ENOENT)
        return fault(segments, -EILSEQ, "the file is missing");
    if (err)
        return fault(segments, err, "the file cannot be opened");
    *reader = (struct segment_reader){.number = number, .fd = fd};
    *ret = reader;
    return 0;
}

int segments_find(struct segments *segments, const struct page_where *where, int *ret_fd)
{
    uint64_t size;
    int fd = segments->fd;
    if (!where->segment)
        return fault(segments, -EILSEQ, "there is no such file");
    if (where->segment != segments->open) {
        struct segment_reader *reader = reader_find(segments, where->segment);
        int err = reader ? 0 : reader_open(segments, where->segment, &reader);
        if (err)
            return err;
        reader->used = ++segments->reads;
        fd = reader->fd;
    }
    int err = segments->os->size(segments->os, fd, &size);
    if (err)
        return fault(segments, err, "the file's size is not known");
    if (size < (uint64_t)where->offset + where->len)
        return fault(segments, -EILSEQ, "the file ends at %" PRIu64, size);
    *ret_fd = fd;
    return 0;
}

int segments_read(struct segments *segments, int fd, const struct page_where *where, uint8_t *ret)
{
    int64_t got = segments->os->pread(segments->os, fd, ret, where->len, where->offset);
    if (got < 0)
        return fault(segments, (int)got, "the file cannot be read");
    return got == where->len ? 0 : fault(segments, -EILSEQ, "the file ends in the middle of the page");
}

/* ----------------------------------------------------------------------------------------------------------------- end */

int segments_drop(struct segments *segments, uint32_t number, uint64_t known_end)
{
    char path[WAL_PATH_MAX];
    struct segment *file = file_find(segments, number);
    if (!file)
        return 0; /* nobody's for long */
    if (file->begun && file->size > known_end)
        return 0;
    if (number == segments->open)
        segments_seal(segments);
    reader_close(segments, reader_find(segments, number));
    file = file_find(segments, number);
    if (!file)
        return 0; /* it held no page, and sealing has removed it */
    file_forget(segments, file);
    path_of(segments, number, path);
    int err = parking_unlink(&segments->parking, path);
    return err && err != -ENOENT ? fault(segments, err, "remove seg/s-%016" PRIx32, number) : 0;
}

void segments_close(struct segments *segments)
{
    segments_seal(segments);
    readers_close(segments);
    parking_fini(&segments->parking);
    mem_free(segments->files);
    mem_free(segments->block);
    *segments = (struct segments){.fd = -1};
}
