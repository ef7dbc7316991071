/* A consistent copy of a running broker's data folder, see backup.h. Any one thread.
 *
 * What is consistent about it is the journal's prefix: a broker that starts on it is in the state of a broker that died
 * when that lsn was its last. Everything that this prefix names was durable before (S1 and R1 of docs/formats), and stays
 * as long as the broker holds its files. Files that it does not name may be copied too; a start removes them.
 *
 * Files of streams are never given a second name: a start may cut off and write on what lies behind the synced end, and
 * that must not be the running broker's file.
 */
#include "store/backup.h"

#include "base/check.h"
#include "base/mem.h"
#include "journal/recover.h"
#include "journal/walk.h"
#include "os/thread.h"
#include "store/audit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PIECE_BYTES (256u * 1024)
#define SYNC_BYTES                                                                                                     \
    (8u * 1024 * 1024)    /* written back in so much, so that the disk is never asked for gigabytes at once */
#define EPOCH_STEP 65536u /* the copy's claims are told from the original's */
#define NAME_ROOM 64u

struct file_name {
    char name[NAME_ROOM];
    uint64_t size;
};

struct backing {
    const struct backup_options *options;
    struct os *os;
    struct backup_result *result;
    char *why;
    size_t why_len;
    uint8_t *piece;
    struct layout_super super;
    lsn_t durable; /* all up to here is copied */
    char wal[WAL_PATH_MAX];
    struct walk walk;
    int fd; /* of the copy that is written; -1: none */
    uint64_t unsynced;
    const char *part;
    uint64_t done, total;
    struct os_event nobody; /* to wait on */
    mono_t began;
    uint64_t since_began;
    const char *folder; /* being listed */
    struct file_name *names;
    size_t names_len, names_cap;
};

static int failed(struct backing *b, int err, const char *what, const char *path)
{
    snprintf(b->why, b->why_len, "cannot %s %s: %s", what, path, strerror(-err));
    return err;
}

static bool path_of(char ret[WAL_PATH_MAX], const char *dir, const char *folder, const char *name)
{
    int n = snprintf(ret, WAL_PATH_MAX, "%s/%s%s%s", dir, folder, *name ? "/" : "", name);
    return n > 0 && n < WAL_PATH_MAX;
}

/* After so many more bytes: not faster than was asked. */
static void pace(struct backing *b, uint64_t bytes)
{
    const struct backup_options *o = b->options;
    b->done += bytes;
    b->since_began += bytes;
    if (o->on_progress)
        o->on_progress(o->arg, b->part, b->done, b->total);
    if (!o->bytes_per_second)
        return;
    double due = (double)b->since_began / (double)o->bytes_per_second * (double)NS_PER_S;
    mono_t wait = b->began + (mono_t)due - b->os->now_mono(b->os);
    if (wait > NS_PER_MS)
        os_event_wait(&b->nobody, wait);
}

/* ------------------------------------------------------------------------------------------------------ one file's copy */

static int begin_copy(struct backing *b, const char *folder, const char *name)
{
    char path[WAL_PATH_MAX];
    int err = path_of(path, b->options->to, folder, name)
                  ? b->os->open(b->os, path, OS_WRITE | OS_CREATE | OS_EXCLUSIVE, &b->fd)
                  : -ENAMETOOLONG;
    if (err)
        b->fd = -1;
    b->unsynced = 0;
    return err ? failed(b, err, "make", path) : 0;
}

static int put(struct backing *b, const uint8_t *bytes, size_t len, uint64_t at)
{
    int err = b->os->pwrite(b->os, b->fd, bytes, len, at);
    b->unsynced += len;
    if (!err && b->unsynced >= SYNC_BYTES) {
        err = b->os->fdatasync(b->os, b->fd);
        b->unsynced = 0;
    }
    b->result->bytes_copied += len;
    return err ? failed(b, err, "write to", b->options->to) : 0;
}

static int end_copy(struct backing *b)
{
    if (b->fd < 0)
        return 0;
    int err = b->os->fdatasync(b->os, b->fd);
    b->os->close(b->os, b->fd);
    b->fd = -1;
    return err ? failed(b, err, "sync a file in", b->options->to) : 0;
}

/* ------------------------------------------------------------------------------------------------------------- journal */

static int read_super(struct backing *b)
{
    struct layout_super super;
    bool any = false;
    for (unsigned i = 0; i < 2; i++) {
        enum super_state state;
        int err = recover_super(b->os, b->options->dir, "ab"[i], &state, &super);
        if (err)
            return failed(b, err, "read a superblock in", b->options->dir);
        if (state == SUPER_GOOD && (!any || super.generation > b->super.generation)) {
            b->super = super;
            any = true;
        }
    }
    if (any)
        return 0;
    snprintf(b->why, b->why_len, "%s has no valid superblock", b->options->dir);
    return -EILSEQ;
}

static int on_file(void *arg, const struct walk *walk)
{
    struct backing *b = arg;
    char path[WAL_PATH_MAX], name[NAME_ROOM];
    int fd, err = end_copy(b);
    if (err)
        return err;
    snprintf(name, sizeof name, "w-%016" PRIx64, walk->seq);
    err = begin_copy(b, "wal", name);
    if (err)
        return err;
    CHECK(wal_path(path, b->wal, 'w', walk->seq));
    err = b->os->open(b->os, path, OS_READ, &fd); /* the walk's own buffer is not ours to fill */
    if (err)
        return failed(b, err, "open", path);
    int64_t got = b->os->pread(b->os, fd, b->piece, LAYOUT_BLOCK, 0);
    b->os->close(b->os, fd);
    if (got != LAYOUT_BLOCK)
        return failed(b, got < 0 ? (int)got : -EIO, "read", path);
    b->result->journal_files++;
    return put(b, b->piece, LAYOUT_BLOCK, 0);
}

static int copy_groups(struct backing *b)
{
    struct walk *walk = &b->walk;
    struct layout_group group;
    struct slice body;
    while (walk->lsn <= b->durable) {
        int got = walk_next(walk, &group, &body);
        if (got == 0) {
            snprintf(b->why, b->why_len,
                     "%s/w-%016" PRIx64 " is damaged at offset %" PRIu64
                     " (%s): the journal of the running broker cannot be read up to lsn %" PRIu64
                     "; stop it and run `millrace check`",
                     b->wal, walk->seq, walk->offset, walk->reason, b->durable);
            return -EILSEQ;
        }
        if (got < 0)
            return b->why[0] ? got : failed(b, got, "read", b->wal);
        uint64_t all = layout_group_bytes(group.len);
        int err = put(b, body.ptr - LAYOUT_GROUP_HEADER, (size_t)all, walk->offset - all);
        if (err)
            return err;
        b->result->records += group.nrec;
        b->result->journal_bytes += all;
        pace(b, all);
    }
    return 0;
}

static int copy_journal(struct backing *b)
{
    b->part = "journal";
    b->done = 0;
    b->why[0] = '\0';
    int err = walk_open(&b->walk, b->os, b->wal, b->super.uuid, b->super.start_seq, b->super.start_lsn, on_file, b);
    if (err && !b->why[0])
        failed(b, err, "read", b->wal);
    if (!err)
        err = copy_groups(b);
    int ended = end_copy(b);
    b->super.tail_seq = b->walk.seq;
    b->super.tail_offset = b->walk.offset;
    b->super.durable = b->walk.lsn - 1;
    b->super.epoch = (b->walk.epoch > b->super.epoch ? b->walk.epoch : b->super.epoch) + EPOCH_STEP;
    walk_close(&b->walk);
    return err ? err : ended;
}

/* Both copies, as of a clean stop; the last thing that is written. */
static int put_supers(struct backing *b)
{
    uint8_t block[LAYOUT_BLOCK];
    b->super.clean = true;
    b->super.wall_ms = b->os->now_wall(b->os);
    for (unsigned i = 0; i < 2; i++) {
        b->super.generation++;
        layout_super_put(block, &b->super);
        int err = begin_copy(b, b->super.generation % 2 ? "superblock.b" : "superblock.a", "");
        if (!err)
            err = put(b, block, sizeof block, 0);
        int ended = end_copy(b);
        if (err || ended)
            return err ? err : ended;
    }
    return 0;
}

/* --------------------------------------------------------------------------------------------------------- other files */

static int note_name(void *arg, const char *name)
{
    struct backing *b = arg;
    if (!audit_knows(b->folder, name) || strlen(name) >= NAME_ROOM)
        return 0;
    if (b->names_len == b->names_cap) {
        size_t cap = b->names_cap ? b->names_cap * 2 : 64;
        struct file_name *names = mem_realloc(b->names, cap * sizeof *names);
        if (!names)
            return -ENOMEM;
        b->names = names;
        b->names_cap = cap;
    }
    struct file_name *item = &b->names[b->names_len++];
    *item = (struct file_name){0};
    snprintf(item->name, sizeof item->name, "%s", name);
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct file_name *)a)->name, ((const struct file_name *)b)->name);
}

static int copy_bytes(struct backing *b, const char *name, int from)
{
    int err = begin_copy(b, b->folder, name);
    for (uint64_t at = 0; !err;) {
        int64_t got = b->os->pread(b->os, from, b->piece, PIECE_BYTES, at);
        if (got < 0)
            return failed(b, (int)got, "read", name);
        if (got == 0)
            break;
        err = put(b, b->piece, (size_t)got, at);
        at += (uint64_t)got;
        pace(b, (uint64_t)got);
    }
    return err;
}

static int copy_file(struct backing *b, const char *name)
{
    char from[WAL_PATH_MAX];
    int fd;
    int err = path_of(from, b->options->dir, b->folder, name) ? b->os->open(b->os, from, OS_READ, &fd) : -ENAMETOOLONG;
    if (err == -ENOENT)
        return 0; /* a file that had just been begun and was given up: nothing in it is good */
    if (err)
        return failed(b, err, "open", from);
    err = copy_bytes(b, name, fd);
    int ended = end_copy(b);
    b->os->close(b->os, fd);
    b->result->files_copied++;
    return err ? err : ended;
}

/* A second name. False: copy it. */
static bool link_file(struct backing *b, const struct file_name *file)
{
    char from[WAL_PATH_MAX], to[WAL_PATH_MAX];
    if (!path_of(from, b->options->dir, b->folder, file->name) || !path_of(to, b->options->to, b->folder, file->name) ||
        b->os->link(b->os, from, to))
        return false;
    b->result->files_linked++;
    b->total -= file->size;
    return true;
}

static void look_at_sizes(struct backing *b)
{
    for (size_t i = 0; i < b->names_len; i++) {
        char path[WAL_PATH_MAX];
        int fd;
        if (!path_of(path, b->options->dir, b->folder, b->names[i].name) || b->os->open(b->os, path, OS_READ, &fd))
            continue; /* the copy will say what is wrong */
        if (b->os->size(b->os, fd, &b->names[i].size) == 0)
            b->total += b->names[i].size;
        b->os->close(b->os, fd);
    }
}

/* All files of a folder. sealed: those but the last, by name, are never written again by anybody. */
static int copy_folder(struct backing *b, const char *folder, const char *part, bool sealed)
{
    char path[WAL_PATH_MAX];
    b->folder = folder;
    b->part = part;
    b->done = b->total = 0;
    b->names_len = 0;
    if (!path_of(path, b->options->dir, folder, ""))
        return failed(b, -ENAMETOOLONG, "read", folder);
    int err = b->os->list(b->os, path, note_name, b);
    if (err)
        return err == -ENOENT ? 0 : failed(b, err, "read", path);
    if (b->names_len)
        qsort(b->names, b->names_len, sizeof *b->names, compare_names);
    look_at_sizes(b);
    CHECK(path_of(path, b->options->to, folder, ""));
    err = b->os->mkdir(b->os, path);
    if (err)
        return failed(b, err, "make", path);
    for (size_t i = 0; i < b->names_len && !err; i++) {
        bool linked = sealed && !b->options->copy && i + 1 < b->names_len && link_file(b, &b->names[i]);
        err = linked ? 0 : copy_file(b, b->names[i].name);
    }
    if (!err)
        err = b->os->sync_dir(b->os, path);
    return err && !b->why[0] ? failed(b, err, "sync", path) : err;
}

/* --------------------------------------------------------------------------------------------------------------- order */

/* A new kind of file is a row here, in audit.c's table, and in the copy of its folder's name in new_folder.c. */
static const struct {
    const char *folder, *part;
    bool sealed;
} folders[] = {{"seg", "segments", true}, {"str", "streams", false}};

static int copy_all(struct backing *b)
{
    char path[WAL_PATH_MAX];
    int err = read_super(b);
    if (err)
        return err;
    err = b->options->durable(b->options->arg, &b->durable);
    if (err)
        return failed(b, err, "ask the broker for the end of", b->options->dir);
    if (!path_of(path, b->options->to, "wal", "") || !path_of(b->wal, b->options->dir, "wal", ""))
        return failed(b, -ENAMETOOLONG, "make", b->options->to);
    err = b->os->mkdir(b->os, path);
    if (err)
        return failed(b, err, "make", path);
    err = copy_journal(b);
    if (!err && (err = b->os->sync_dir(b->os, path)) != 0)
        failed(b, err, "sync", path);
    if (!err && b->options->on_journal)
        b->options->on_journal(b->options->arg);
    for (size_t i = 0; i < ARRAY_LEN(folders) && !err; i++)
        err = copy_folder(b, folders[i].folder, folders[i].part, folders[i].sealed);
    return err ? err : put_supers(b);
}

int backup(const struct backup_options *options, struct backup_result *ret, char *why, size_t why_len)
{
    struct backing b = {
        .options = options, .os = options->os, .result = ret, .why = why, .why_len = why_len, .fd = -1, .part = ""};
    *ret = (struct backup_result){0};
    why[0] = '\0';
    b.piece = mem_aligned(LAYOUT_BLOCK, PIECE_BYTES);
    if (!b.piece)
        return failed(&b, -ENOMEM, "copy", options->dir);
    b.began = b.os->now_mono(b.os);
    int err = copy_all(&b);
    mem_free(b.names);
    mem_free(b.piece);
    return err;
}
