/* The journal's files: groups go to the current file; when it is full the next one takes over; trimmed files come back
 * as spares. docs/formats/journal.md sections 1, 5 and 6 hold; J3, J6, J7, J9 and J11 are kept here.
 *
 * A file that was zero-filled once is overwritten in place ever after: fdatasync then has no metadata to write. Spares
 * are made ahead in small steps while the journal is idle. Under a load that leaves no idle moment a new file is used while
 * it grows, which for large groups costs less than writing everything twice.
 * One spare is always kept back. It is used when the disk has no room for another. While the disk has none the journal is
 * *tight*: what can still be written is what wal_ready says. Space that comes back ends it with the next file made ahead.
 * Thread: journal.
 */
#include "journal/wal.h"

#include "base/check.h"
#include "base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define FILE_BYTES_DEFAULT (16u * 1024 * 1024)
#define FILL_BYTES (128u * 1024) /* one step of zero-filling: about 0.1 ms that a commit may have to wait */
#define SPARES_WHEN_IDLE 4
#define TEND_RETRY_NS NS_PER_S
#define TEND_RETRY_TIGHT_NS (NS_PER_S / 10)
#define SPARES_WHEN_SCARCE 1 /* with one prepared */

static int fault(struct wal *wal, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int fault(struct wal *wal, int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(wal->fault, sizeof wal->fault, format, args);
    va_end(args);
    if (n > 0 && (size_t)n < sizeof wal->fault)
        snprintf(wal->fault + n, sizeof wal->fault - (size_t)n, ": %s", strerror(-err));
    return err;
}

static bool no_space(int err)
{
    return err == -ENOSPC || err == -EDQUOT;
}

bool wal_may_retry(const struct wal *wal, int err)
{
    return no_space(err) && !wal->final;
}

static struct wal_file *current(struct wal *wal)
{
    return wal->files_len ? &wal->files[wal->files_len - 1] : NULL;
}

void wal_init(struct wal *wal, const struct journal_options *options)
{
    *wal = (struct wal){
        .os = options->os,
        .parking = {.os = options->os},
        .file_bytes = options->file_bytes ? options->file_bytes : FILE_BYTES_DEFAULT,
        .direct = options->direct_io != JOURNAL_DIRECT_OFF,
        .lock_fd = -1,
        .fd = -1,
        .next_fd = -1,
        .fill_fd = -1,
        .pool_number = 1,
    };
    CHECK(wal->file_bytes % LAYOUT_BLOCK == 0 && wal->file_bytes >= 2 * LAYOUT_BLOCK);
}

int wal_open_file(struct wal *wal, const char *path, unsigned flags, int *ret_fd)
{
    return wal->os->open(wal->os, path, flags | OS_WRITE | (wal->direct ? OS_DIRECT : 0), ret_fd);
}

static void close_fd(struct wal *wal, int *fd)
{
    if (*fd >= 0)
        wal->os->close(wal->os, *fd); /* whatever matters in it was synced */
    *fd = -1;
}

/* --------------------------------------------------------------------------------------------------------- superblock */

int wal_super_write(struct wal *wal, struct layout_super *super)
{
    char path[WAL_PATH_MAX];
    super->generation = wal->super.generation + 1;
    super->wall_ms = wal->os->now_wall(wal->os);
    int n = snprintf(path, sizeof path, "%s/superblock.%c", wal->dir, super->generation % 2 ? 'b' : 'a');
    if (n < 0 || (size_t)n >= sizeof path)
        return fault(wal, -ENAMETOOLONG, "%s", wal->dir);
    layout_super_put(wal->block, super);
    int fd = -1;
    uint64_t size = 0;
    int err = wal->os->open(wal->os, path, OS_WRITE | OS_CREATE, &fd);
    if (err)
        return fault(wal, err, "open %s", path);
    err = wal->os->size(wal->os, fd, &size);
    if (!err)
        err = wal->os->pwrite(wal->os, fd, wal->block, LAYOUT_BLOCK, 0);
    bool full = no_space(err);
    if (!err)
        err = wal->os->fdatasync(wal->os, fd);
    if (!err && size < LAYOUT_BLOCK)
        err = wal->os->sync_dir(wal->os, wal->dir);
    wal->final = err && !full; /* the other copy holds; a copy that was not written may be tried again */
    close_fd(wal, &fd);
    if (err)
        return fault(wal, err, "write %s", path);
    wal->super = *super;
    return 0;
}

/* --------------------------------------------------------------------------------------------------------------- pool */

static bool pool_has(const struct wal *wal, unsigned kept_back)
{
    return wal->pool_len > kept_back;
}

/* Renames the youngest spare to w-<seq>, makes the name durable and opens it. */
static int prepare_from_pool(struct wal *wal, uint64_t seq, int *ret_fd, uint64_t *ret_size)
{
    char from[WAL_PATH_MAX], to[WAL_PATH_MAX];
    CHECK(wal->pool_len);
    CHECK(wal_path(from, wal->folder, 'f', wal->pool[wal->pool_len - 1]) && wal_path(to, wal->folder, 'w', seq));
    wal->pool_len--; /* also when it fails: the next start finds it again */
    int err = wal->os->rename(wal->os, from, to);
    if (err)
        return fault(wal, err, "rename a spare to journal file %016" PRIx64, seq);
    err = wal->os->sync_dir(wal->os, wal->folder);
    if (err)
        return fault(wal, err, "sync %s", wal->folder);
    err = wal_open_file(wal, to, 0, ret_fd);
    if (!err)
        err = wal->os->size(wal->os, *ret_fd, ret_size);
    return err ? fault(wal, err, "open %s", to) : 0;
}

/* An empty w-<seq>, which grows as it is written. */
static int create_empty(struct wal *wal, uint64_t seq, int *ret_fd)
{
    char path[WAL_PATH_MAX];
    CHECK(wal_path(path, wal->folder, 'w', seq));
    int err = wal_open_file(wal, path, OS_CREATE | OS_TRUNCATE, ret_fd);
    if (err)
        return fault(wal, err, "create %s", path);
    err = wal->os->sync_dir(wal->os, wal->folder);
    if (!err)
        return 0;
    close_fd(wal, ret_fd);
    return fault(wal, err, "sync %s", wal->folder);
}

/* A file for seq: prepared, spare, new, and at last the spare that is kept back. */
static int obtain(struct wal *wal, uint64_t seq, bool must_fit, int *ret_fd, uint64_t *ret_size)
{
    if (wal->next_fd >= 0) {
        *ret_fd = wal->next_fd;
        *ret_size = wal->next_size;
        wal->next_fd = -1;
        return 0;
    }
    if (pool_has(wal, must_fit ? 0 : 1))
        return prepare_from_pool(wal, seq, ret_fd, ret_size);
    *ret_size = 0;
    int err = must_fit ? fault(wal, -ENOSPC, "no spare journal file is left in %s", wal->folder)
                       : create_empty(wal, seq, ret_fd);
    wal->tight = wal->tight || no_space(err);
    if (no_space(err) && pool_has(wal, 0))
        return prepare_from_pool(wal, seq, ret_fd, ret_size);
    return err;
}

/* --------------------------------------------------------------------------------------------------------- roll-over */

int wal_file_add(struct wal *wal, const struct wal_file *file)
{
    if (wal->files_len == wal->files_cap) {
        size_t cap = wal->files_cap ? wal->files_cap * 2 : 8;
        if (cap > WAL_FILES_MAX)
            return fault(wal, -EOVERFLOW, "%s holds too many files", wal->folder);
        struct wal_file *files = mem_realloc(wal->files, cap * sizeof *files);
        if (!files)
            return fault(wal, -ENOMEM, "list of files");
        wal->files = files;
        wal->files_cap = cap;
    }
    wal->files[wal->files_len++] = *file;
    return 0;
}

static int write_file_header(struct wal *wal, int fd, uint64_t seq, lsn_t start_lsn, uint32_t *ret_crc)
{
    struct layout_file head = {
        .seq = seq,
        .epoch = wal->epoch,
        .chain = wal->chain,
        .start_lsn = start_lsn,
        .wall_ms = wal->os->now_wall(wal->os),
    };
    memcpy(head.uuid, wal->super.uuid, LAYOUT_UUID_LEN);
    layout_file_put(wal->block, &head);
    *ret_crc = head.crc;
    return wal->os->pwrite(wal->os, fd, wal->block, LAYOUT_BLOCK, 0);
}

int wal_roll(struct wal *wal, lsn_t start_lsn, bool must_fit)
{
    int err = wal_sync(wal); /* J3 */
    if (err)
        return err;
    struct wal_file file = {.seq = current(wal) ? current(wal)->seq + 1 : wal->super.start_seq, .start_lsn = start_lsn};
    int fd = -1;
    uint32_t crc;
    err = obtain(wal, file.seq, must_fit, &fd, &file.size);
    if (err)
        return err; /* it has said what */
    err = write_file_header(wal, fd, file.seq, start_lsn, &crc);
    wal->tight = wal->tight || no_space(err);
    if (no_space(err) && file.size == 0 && pool_has(wal, 0)) {
        close_fd(wal, &fd); /* the empty file is replaced by the rename */
        err = prepare_from_pool(wal, file.seq, &fd, &file.size);
        if (!err)
            err = write_file_header(wal, fd, file.seq, start_lsn, &crc);
    }
    if (!err)
        err = wal_file_add(wal, &file);
    if (err) {
        close_fd(wal, &fd);
        return fault(wal, err, "begin journal file %016" PRIx64, file.seq);
    }
    if (wal->files_len > 1) {
        wal->files[wal->files_len - 2].used = wal->offset;
        wal->files[wal->files_len - 2].size = wal->size;
    }
    close_fd(wal, &wal->fd);
    wal->fd = fd;
    wal->offset = LAYOUT_BLOCK;
    wal->size = file.size > LAYOUT_BLOCK ? file.size : LAYOUT_BLOCK;
    wal->chain = crc;
    wal->unsynced = true;
    wal->no_fill = false;
    wal->rolled++;
    wal->bytes_written += LAYOUT_BLOCK;
    wal->live_bytes += LAYOUT_BLOCK;
    return 0;
}

/* The disk is full in the middle of a growing file: cut off the failed write, so that it can never be taken for a group,
 * and go on in a file that has its blocks. */
static int leave_full_file(struct wal *wal, lsn_t lsn)
{
    int err = wal->os->truncate(wal->os, wal->fd, wal->offset);
    wal->tight = true;
    wal->final = err != 0;
    if (err)
        return fault(wal, err, "cut journal file %016" PRIx64, current(wal)->seq);
    wal->size = wal->offset;
    wal->unsynced = true;
    return wal_roll(wal, lsn, true);
}

int wal_group_write(struct wal *wal, uint8_t *bytes, struct layout_group *group)
{
    uint64_t all = layout_group_bytes(group->len);
    size_t filled = (size_t)LAYOUT_GROUP_HEADER + group->len;
    int err = 0;
    if (wal->offset + all > wal->file_bytes && wal->offset > LAYOUT_BLOCK)
        err = wal_roll(wal, group->lsn, false);
    if (err)
        return err;
    for (bool again = true;; again = false) {
        group->epoch = wal->epoch;
        group->seq = current(wal)->seq;
        group->chain = wal->chain;
        memset(bytes + filled, 0, all - filled);
        layout_group_put(bytes, wal->super.uuid, group);
        wal->unsynced = true;
        err = wal->os->pwrite(wal->os, wal->fd, bytes, all, wal->offset);
        if (!no_space(err) || !again)
            break;
        err = leave_full_file(wal, group->lsn);
        if (err)
            return err;
    }
    wal->final = err != 0; /* J9 */
    if (err)
        return fault(wal, err, "write journal file %016" PRIx64 " at %" PRIu64, current(wal)->seq, wal->offset);
    wal->offset += all;
    if (wal->size < wal->offset)
        wal->size = wal->offset;
    wal->chain = group->crc;
    wal->bytes_written += all;
    wal->live_bytes += all;
    wal->wrote = true;
    return 0;
}

int wal_sync(struct wal *wal)
{
    if (!wal->unsynced)
        return 0;
    int err = wal->os->fdatasync(wal->os, wal->fd);
    wal->final = err != 0; /* J9 */
    if (err)
        return fault(wal, err, "sync journal file %016" PRIx64, current(wal)->seq);
    wal->unsynced = false;
    return 0;
}

/* --------------------------------------------------------------------------------------------------------------- trim */

/* Files worth keeping as spares: what was used between two trims, as the next round will want as many. */
static unsigned pool_target(const struct wal *wal)
{
    unsigned wish = wal->scarce ? SPARES_WHEN_SCARCE : wal->rolled + 2;
    return wish < WAL_POOL_MAX ? wish : WAL_POOL_MAX;
}

/* The file's records are below the durable start. Failing here leaves a file that the next start sweeps up. */
static void recycle(struct wal *wal, const struct wal_file *file, unsigned keep)
{
    char from[WAL_PATH_MAX], to[WAL_PATH_MAX];
    CHECK(file->start_lsn <= wal->super.start_lsn); /* equal: it got no group, the disk was full */
    CHECK(wal_path(from, wal->folder, 'w', file->seq) && wal_path(to, wal->folder, 'f', wal->pool_number));
    bool usable = !wal->parking.held && file->size >= wal->file_bytes && file->size <= 2 * wal->file_bytes;
    if (!usable || wal->pool_len >= keep) {
        int err = parking_unlink(&wal->parking, from);
        (void)err; /* if not now, then at the next start */
    } else if (wal->os->rename(wal->os, from, to) == 0) {
        wal->pool[wal->pool_len++] = wal->pool_number++;
    }
}

int wal_trim(struct wal *wal, lsn_t upto, lsn_t durable)
{
    if (upto <= wal->super.start_lsn)
        return 0;
    CHECK(upto <= durable + 1);
    size_t gone = 0;
    while (gone + 1 < wal->files_len && wal->files[gone + 1].start_lsn <= upto)
        gone++;
    struct layout_super super = wal->super;
    super.clean = false;
    super.start_lsn = upto;
    super.start_seq = wal->files[gone].seq;
    super.durable = durable;
    int err = wal_super_write(wal, &super);
    if (err)
        return err;
    unsigned keep = pool_target(wal);
    for (size_t i = 0; i < gone; i++) {
        wal->live_bytes -= wal->files[i].used;
        recycle(wal, &wal->files[i], keep);
    }
    wal->files_len -= gone;
    memmove(wal->files, wal->files + gone, wal->files_len * sizeof *wal->files);
    wal->rolled = 0;
    wal->tend_after = 0;
    return 0;
}

/* --------------------------------------------------------------------------------------------------- files made ahead */

static void tend_later(struct wal *wal, int err)
{
    wal->tight = wal->tight || no_space(err);
    wal->tend_after = wal->os->now_mono(wal->os) + (wal->tight ? TEND_RETRY_TIGHT_NS : TEND_RETRY_NS);
}

static bool have_zeros(struct wal *wal)
{
    if (wal->zeros)
        return true;
    wal->zeros = mem_aligned_as(MEM_JOURNAL, LAYOUT_BLOCK, FILL_BYTES);
    if (wal->zeros)
        memset(wal->zeros, 0, FILL_BYTES);
    return wal->zeros != NULL;
}

/* Writes up to one step of zeros from *size on. */
static int fill_step(struct wal *wal, int fd, uint64_t *size)
{
    if (!have_zeros(wal))
        return -ENOMEM;
    uint64_t left = wal->file_bytes - *size;
    size_t n = left < FILL_BYTES ? left : FILL_BYTES;
    int err = wal->os->pwrite(wal->os, fd, wal->zeros, n, *size);
    if (!err)
        *size += n;
    return err;
}

/* The current file may still be growing (a new journal, a file begun in haste): zeros ahead of the groups. */
static int fill_current(struct wal *wal)
{
    int err = fill_step(wal, wal->fd, &wal->size);
    if (err == 0)
        return 1;
    wal->tight = wal->tight || no_space(err);
    wal->no_fill = true; /* a group write will meet the same trouble, and has a place to go */
    return 0;
}

static void fill_give_up(struct wal *wal, int err)
{
    char path[WAL_PATH_MAX];
    close_fd(wal, &wal->fill_fd);
    CHECK(wal_path(path, wal->folder, 'f', wal->fill_number));
    (void)wal->os->unlink(wal->os, path);
    tend_later(wal, err);
}

static int fill_spare(struct wal *wal)
{
    char path[WAL_PATH_MAX];
    int err = 0;
    if (wal->fill_fd < 0) {
        wal->fill_number = wal->pool_number++;
        wal->fill_size = 0;
        CHECK(wal_path(path, wal->folder, 'f', wal->fill_number));
        err = wal_open_file(wal, path, OS_CREATE | OS_TRUNCATE, &wal->fill_fd);
    } else if (wal->fill_size < wal->file_bytes) {
        err = fill_step(wal, wal->fill_fd, &wal->fill_size);
    } else {
        err = wal->os->fdatasync(wal->os, wal->fill_fd);
        if (!err) {
            close_fd(wal, &wal->fill_fd);
            wal->pool[wal->pool_len++] = wal->fill_number;
            wal->tight = false;
        }
    }
    if (!err)
        return 1;
    fill_give_up(wal, err);
    return 0;
}

static int prepare_next(struct wal *wal)
{
    int err = prepare_from_pool(wal, current(wal)->seq + 1, &wal->next_fd, &wal->next_size);
    if (err == 0)
        return 1;
    close_fd(wal, &wal->next_fd); /* should its name exist, the next try or the next start replaces it */
    tend_later(wal, err);
    return 0;
}

/* What to do next about files ahead: one is prepared, one is kept back. */
enum tend { TEND_NOTHING, TEND_FILL_CURRENT, TEND_PREPARE, TEND_FILL_SPARE };

static enum tend tend_next(const struct wal *wal)
{
    if (!wal->wrote)
        return TEND_NOTHING; /* a broker that was only started makes no files */
    if (wal->size < wal->file_bytes && !wal->no_fill)
        return TEND_FILL_CURRENT;
    if (wal->next_fd < 0 && pool_has(wal, 1))
        return TEND_PREPARE;
    if (wal->fill_fd >= 0 || wal->pool_len < (wal->next_fd < 0 ? 2 : 1))
        return TEND_FILL_SPARE;
    return TEND_NOTHING;
}

int wal_tend(struct wal *wal)
{
    enum tend what = tend_next(wal);
    if (what == TEND_NOTHING) {
        wal->tight = false;
        mem_free_as(MEM_JOURNAL, wal->zeros);
        wal->zeros = NULL;
        return 0;
    }
    if (wal->tend_after && wal->os->now_mono(wal->os) < wal->tend_after)
        return 0;
    wal->tend_after = 0;
    switch (what) {
    case TEND_FILL_CURRENT: return fill_current(wal);
    case TEND_PREPARE: return prepare_next(wal);
    case TEND_FILL_SPARE: return fill_spare(wal);
    case TEND_NOTHING: break;
    }
    return 0;
}

mono_t wal_tend_at(const struct wal *wal)
{
    return tend_next(wal) == TEND_NOTHING ? MONO_NEVER : wal->tend_after;
}

uint64_t wal_spare(const struct wal *wal)
{
    uint64_t next = wal->next_fd >= 0 ? wal->next_size : 0;
    return wal->size - wal->offset + next + wal->pool_len * wal->file_bytes;
}

uint64_t wal_ready(const struct wal *wal)
{
    return wal->tight ? wal_spare(wal) : UINT64_MAX;
}

bool wal_has_spare(const struct wal *wal)
{
    return !wal->tight || wal->next_fd >= 0 || pool_has(wal, 1);
}

bool wal_shrink(struct wal *wal)
{
    char path[WAL_PATH_MAX];
    if (wal->pool_len <=
        (wal->scarce ? (wal->next_fd >= 0 ? SPARES_WHEN_SCARCE : SPARES_WHEN_SCARCE + 1) : SPARES_WHEN_IDLE))
        return false;
    CHECK(wal_path(path, wal->folder, 'f', wal->pool[--wal->pool_len]));
    (void)wal->os->unlink(wal->os, path);
    return true;
}

void wal_close(struct wal *wal, bool clean, lsn_t durable)
{
    if (wal->fill_fd >= 0)
        fill_give_up(wal, 0);
    if (clean) {
        struct layout_super super = wal->super;
        super.clean = true;
        super.durable = durable;
        super.tail_seq = current(wal)->seq;
        super.tail_offset = wal->offset;
        int err = wal_super_write(wal, &super);
        (void)err; /* without it the next start looks at the tail more closely, no more */
    }
    close_fd(wal, &wal->fd);
    close_fd(wal, &wal->next_fd);
    close_fd(wal, &wal->lock_fd);
    parking_fini(&wal->parking);
    mem_free(wal->files);
    mem_free(wal->block);
    mem_free_as(MEM_JOURNAL, wal->zeros);
    *wal = (struct wal){.lock_fd = -1, .fd = -1, .next_fd = -1, .fill_fd = -1};
}
