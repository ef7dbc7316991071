/* Recovery: is the journal's end a torn tail, to be cut, or damage, to be refused? docs/formats/journal.md section 4 is
 * the specification; the numbers in the comments below are its rules.
 *
 * A claim that some lsn was durable stays true for ever (J4), so every claim that validates may be used as evidence, also
 * one in a file that is no longer part of the journal. Nothing is written before the verdict.
 * Thread: boot.
 */
#include "journal/recover.h"

#include "base/check.h"
#include "base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define ZERO_BYTES (256u * 1024)

struct recovery {
    struct wal *wal;
    const struct journal_options *options;
    char *why;
    size_t why_len;
    enum super_state copies[2];
    struct layout_super supers[2];
    bool foreign, folder_there;
    bool files_there;     /* any w- file */
    uint64_t number_last; /* highest f- file */
    bool lost_copy;
};

static int refuse(struct recovery *r, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int refuse(struct recovery *r, int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->why, r->why_len, format, args);
    va_end(args);
    return err;
}

static int disk_error(struct recovery *r, int err, const char *what, const char *path)
{
    return refuse(r, err, "cannot %s %s: %s", what, path, strerror(-err));
}

/* --------------------------------------------------------------------------------------------------- what is in there */

static int look_at_folder(void *arg, const char *name)
{
    static const char *const known[] = {"LOCK", "superblock.a", "superblock.b", "wal", "lost+found"};
    struct recovery *r = arg;
    bool ours = false;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        ours = ours || strcmp(name, known[i]) == 0;
    if (strcmp(name, "wal") == 0)
        r->folder_there = true;
    if (!ours)
        r->foreign = true;
    return 0;
}

static int look_at_file(void *arg, const char *name)
{
    struct recovery *r = arg;
    uint64_t number;
    if (wal_name(name, 'w', &number))
        r->files_there = true;
    if (wal_name(name, 'f', &number) && number > r->number_last)
        r->number_last = number;
    return 0;
}

int recover_super(struct os *os, const char *dir, char letter, enum super_state *ret_state, struct layout_super *ret)
{
    char path[WAL_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/superblock.%c", dir, letter), fd;
    if (n < 0 || (size_t)n >= sizeof path)
        return -ENAMETOOLONG;
    *ret_state = SUPER_ABSENT;
    int err = os->open(os, path, OS_READ, &fd);
    if (err)
        return err == -ENOENT ? 0 : err;
    uint8_t *block = mem_aligned(LAYOUT_BLOCK, LAYOUT_BLOCK);
    int64_t got = block ? os->pread(os, fd, block, LAYOUT_BLOCK, 0) : -ENOMEM;
    os->close(os, fd);
    enum layout_verdict verdict = got == LAYOUT_BLOCK ? layout_super_get(block, ret) : LAYOUT_DAMAGED;
    mem_free(block);
    *ret_state = verdict == LAYOUT_GOOD ? SUPER_GOOD : verdict == LAYOUT_NEWER ? SUPER_NEWER : SUPER_BROKEN;
    return got < 0 ? (int)got : 0;
}

static int sync_parent(struct os *os, const char *dir)
{
    char parent[WAL_PATH_MAX];
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    while (n && dir[n - 1] != '/')
        n--;
    while (n > 1 && dir[n - 1] == '/')
        n--;
    memcpy(parent, dir, n);
    parent[n] = '\0';
    return os->sync_dir(os, n ? parent : ".");
}

/* Rule 1, first half: is this a folder we may touch at all? Makes it when it is absent. */
static int enter_folder(struct recovery *r)
{
    struct wal *wal = r->wal;
    int err = wal->os->list(wal->os, wal->dir, look_at_folder, r);
    if (err == -ENOENT) {
        err = wal->os->mkdir(wal->os, wal->dir);
        if (!err)
            err = sync_parent(wal->os, wal->dir);
        return err ? disk_error(r, err, "make data folder", wal->dir) : 0;
    }
    if (err)
        return disk_error(r, err, "read data folder", wal->dir);
    return 0;
}

static int read_supers(struct recovery *r)
{
    struct wal *wal = r->wal;
    for (unsigned i = 0; i < 2; i++) {
        int err = recover_super(wal->os, wal->dir, "ab"[i], &r -> copies[i], &r -> supers[i]);
        if (err)
            return disk_error(r, err, "read a superblock in", wal->dir);
        if (r->copies[i] == SUPER_NEWER)
            return refuse(r, -EPROTO, "%s was written by a newer version of this program (superblock.%c)", wal->dir,
                          "ab"[i]);
    }
    bool any = r->copies[0] == SUPER_GOOD || r->copies[1] == SUPER_GOOD;
    if (!any && r->foreign)
        return refuse(r, -EPROTO, "%s is not a data folder of this program: it is not empty and has no superblock",
                      wal->dir);
    return 0;
}

static int take_lock(struct recovery *r)
{
    struct wal *wal = r->wal;
    char path[WAL_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/LOCK", wal->dir);
    CHECK(n > 0 && (size_t)n < sizeof path);
    int err = wal->os->open(wal->os, path, OS_WRITE | OS_CREATE, &wal->lock_fd);
    if (err) {
        wal->lock_fd = -1;
        return disk_error(r, err, "open", path);
    }
    err = wal->os->lock(wal->os, wal->lock_fd);
    if (err == -EWOULDBLOCK)
        return refuse(r, err, "data folder %s is in use by another broker", wal->dir);
    return err ? disk_error(r, err, "lock", path) : 0;
}

static int look_at_files(struct recovery *r)
{
    struct wal *wal = r->wal;
    int err = r->folder_there ? 0 : wal->os->mkdir(wal->os, wal->folder);
    if (!err || err == -EEXIST)
        err = wal->os->list(wal->os, wal->folder, look_at_file, r);
    return err ? disk_error(r, err, "read", wal->folder) : 0;
}

/* ------------------------------------------------------------------------------------------------------------- create */

/* Rule 1, second half. J6 and the creation order of section 6. */
static int create(struct recovery *r)
{
    struct wal *wal = r->wal;
    if (r->files_there)
        return refuse(r, -EILSEQ, "%s: both superblocks are missing or damaged although there are journal files",
                      wal->dir);
    struct layout_super super = {.epoch = 1, .start_lsn = 1, .start_seq = 1};
    if (r->options->uuid)
        memcpy(super.uuid, r->options->uuid, LAYOUT_UUID_LEN);
    else
        wal->os->random(wal->os, super.uuid, LAYOUT_UUID_LEN);
    wal->super.generation = 0;
    wal->epoch = 1;
    int err = wal_super_write(wal, &super);
    if (!err)
        err = wal_super_write(wal,
                              &super); /* both copies: on a full disk the other could not be made when it is needed */
    if (!err)
        err = wal->os->sync_dir(wal->os, wal->dir);
    return err ? refuse(r, err, "cannot create a journal: %s", wal->fault) : 0;
}

/* --------------------------------------------------------------------------------------------------- finding the tail */

static int add_file(void *arg, const struct walk *walk)
{
    struct recovery *r = arg;
    struct wal *wal = r->wal;
    if (wal->files_len)
        wal->live_bytes += wal->files[wal->files_len - 1].used;
    struct wal_file file = {.seq = walk->seq, .start_lsn = walk->head.start_lsn, .size = walk->size};
    return wal_file_add(wal, &file);
}

static int walk_to_tail(struct recovery *r, struct walk *walk)
{
    struct wal *wal = r->wal;
    int err =
        walk_open(walk, wal->os, wal->folder, wal->super.uuid, wal->super.start_seq, wal->super.start_lsn, add_file, r);
    struct layout_group group;
    struct slice body;
    while (!err) {
        if (wal->files_len) /* kept up to date, so that add_file knows where the file before ended */
            wal->files[wal->files_len - 1].used = walk->offset;
        err = walk_next(walk, &group, &body);
        if (err == 0)
            break;
        err = err > 0 ? 0 : err;
    }
    if (err)
        return disk_error(r, err, "read", wal->folder);
    if (wal->files_len)
        wal->live_bytes += walk->offset;
    return 0;
}

/* ------------------------------------------------------------------------------------------------------------- claims */

struct claims {
    struct walk *walk;
    lsn_t *ret_claim;
    char *where;
    size_t where_len;
};

static void claim(struct claims *claims, lsn_t lsn, uint64_t seq, uint64_t offset)
{
    if (lsn <= *claims->ret_claim)
        return;
    *claims->ret_claim = lsn;
    snprintf(claims->where, claims->where_len, "wal/w-%016" PRIx64 " at offset %" PRIu64, seq, offset);
}

/* All claims of the file that the walk is in, from its offset on. */
static int claims_of_file(struct claims *claims, struct walk *walk)
{
    struct layout_group group;
    struct layout_file head;
    for (uint64_t at = walk->offset;; at += LAYOUT_BLOCK) {
        const uint8_t *block;
        int r = walk_block(walk, at, &block);
        if (r <= 0)
            return r;
        if (at == 0 && layout_file_get(block, &head) == LAYOUT_GOOD &&
            memcmp(head.uuid, walk->uuid, LAYOUT_UUID_LEN) == 0)
            claim(claims, head.start_lsn - 1, walk->seq, at);
        else if (layout_group_get(block, walk->uuid, &group) == LAYOUT_GOOD)
            claim(claims, group.durable, walk->seq, at);
    }
}

/* Another file than those walked: from its beginning. */
static int claims_of_name(void *arg, const char *name)
{
    struct claims *claims = arg;
    struct walk *walk = claims->walk, other = {.os = walk->os, .wal = walk->wal, .in_file = true};
    char path[WAL_PATH_MAX];
    if (!wal_name(name, 'w', &other.seq))
        return 0;
    if (walk->in_file && other.seq >= walk->first_seq && other.seq <= walk->seq)
        return 0;
    memcpy(other.uuid, walk->uuid, LAYOUT_UUID_LEN);
    if (!wal_path(path, walk->wal, 'w', other.seq))
        return -ENAMETOOLONG;
    int err = walk->os->open(walk->os, path, OS_READ, &other.fd);
    if (err)
        return err;
    err = walk->os->size(walk->os, other.fd, &other.size);
    if (!err)
        err = claims_of_file(claims, &other);
    walk_close(&other);
    return err;
}

int recover_claims(struct walk *walk, lsn_t *ret_claim, char *where, size_t where_len)
{
    struct claims claims = {.walk = walk, .ret_claim = ret_claim, .where = where, .where_len = where_len};
    int err = walk->in_file ? claims_of_file(&claims, walk) : 0;
    return err ? err : walk->os->list(walk->os, walk->wal, claims_of_name, &claims);
}

/* The superblock says that the journal was closed with this very tail: nothing was written after it. */
static bool ended_clean(const struct recovery *r, const struct walk *walk)
{
    const struct layout_super *super = &r->wal->super;
    return super->clean && !r->lost_copy && walk->in_file && super->tail_seq == walk->seq &&
           super->tail_offset == walk->offset && super->durable == walk->lsn - 1;
}

/* Rules 4 and 5. 0: a torn tail (or none). */
static int judge(struct recovery *r, struct walk *walk)
{
    struct wal *wal = r->wal;
    lsn_t durable = 0;
    char where[128] = "";
    for (unsigned i = 0; i < 2; i++)
        if (r->copies[i] == SUPER_GOOD && r->supers[i].durable > durable) {
            durable = r->supers[i].durable;
            snprintf(where, sizeof where, "superblock.%c", "ab"[i]);
        }
    /* The start lsn was durable before it was recorded: only damage can end the journal below it. */
    if (durable < wal->super.start_lsn - 1)
        durable = wal->super.start_lsn - 1;
    bool known = durable >= walk->lsn || ended_clean(r, walk);
    int err = known ? 0 : recover_claims(walk, &durable, where, sizeof where);
    if (err)
        return disk_error(r, err, "read", wal->folder);
    if (durable < walk->lsn)
        return 0;
    return refuse(r, -EILSEQ,
                  "%s/w-%016" PRIx64 " is damaged at offset %" PRIu64
                  " (%s): the journal is readable up to lsn %" PRIu64 ", but everything up to lsn %" PRIu64
                  " was safely stored (says %s); lsns %" PRIu64 " to %" PRIu64 " are lost; nothing was changed",
                  wal->folder, walk->seq, walk->in_file ? walk->offset : 0, walk->reason, walk->lsn - 1, durable, where,
                  walk->lsn, durable);
}

/* ---------------------------------------------------------------------------------------------------- cutting the tail */

/* Rule 5: zeros from the tail to the end of the file, unless they are there already. fd: open for writing. */
static int zero_tail(struct recovery *r, struct walk *walk, int fd, uint64_t *ret_cut)
{
    struct wal *wal = r->wal;
    uint64_t first = walk->size, cut = 0;
    static const uint8_t zero[LAYOUT_BLOCK];
    for (uint64_t at = walk->offset; at < walk->size; at += LAYOUT_BLOCK) {
        const uint8_t *block;
        int got = walk_block(walk, at, &block);
        if (got < 0)
            return got;
        if (got && memcmp(block, zero, LAYOUT_BLOCK) == 0)
            continue;
        first = first < at ? first : at; /* a part of a block at the end of the file counts as not zero */
        cut += LAYOUT_BLOCK;
    }
    *ret_cut = cut;
    if (first == walk->size)
        return 0;
    uint8_t *zeros = mem_aligned(LAYOUT_BLOCK, ZERO_BYTES);
    if (!zeros)
        return -ENOMEM;
    memset(zeros, 0, ZERO_BYTES);
    int err = 0;
    uint64_t end = layout_blocks(walk->size);
    for (uint64_t at = first; !err && at < end; at += ZERO_BYTES)
        err = wal->os->pwrite(wal->os, fd, zeros, end - at < ZERO_BYTES ? end - at : ZERO_BYTES, at);
    mem_free(zeros);
    return err;
}

/* Opens the tail's file for writing; where direct I/O is only tried, a file system without it shows here at the latest. */
static int open_tail(struct recovery *r, const char *path, int *ret_fd)
{
    struct wal *wal = r->wal;
    int err = wal_open_file(wal, path, 0, ret_fd);
    int64_t n = 0;
    if (!err && wal->direct) {
        n = wal->os->pread(wal->os, *ret_fd, wal->block, LAYOUT_BLOCK, 0);
        if (n == -EINVAL)
            wal->os->close(wal->os, *ret_fd);
    }
    if ((err == -EINVAL || n == -EINVAL) && wal->direct && r->options->direct_io == JOURNAL_DIRECT_AUTO) {
        wal->direct = false;
        return wal_open_file(wal, path, 0, ret_fd);
    }
    return err ? err : n == -EINVAL ? -EINVAL : 0;
}

/* Rules 5 and 6 for the file in which the journal ends. */
static int settle_tail(struct recovery *r, struct walk *walk, uint64_t *ret_cut)
{
    struct wal *wal = r->wal;
    char path[WAL_PATH_MAX];
    CHECK(wal_path(path, wal->folder, 'w', walk->seq));
    int err = open_tail(r, path, &wal->fd);
    if (err) {
        wal->fd = -1;
        return disk_error(r, err, "open", path);
    }
    bool clean = ended_clean(r, walk);
    if (!clean)
        err = zero_tail(r, walk, wal->fd, ret_cut);
    if (!err)
        err = wal->os->fdatasync(wal->os, wal->fd);
    if (err)
        return disk_error(r, err, "settle the end of", path);
    wal->offset = walk->offset;
    wal->size = clean ? walk->size / LAYOUT_BLOCK * LAYOUT_BLOCK : layout_blocks(walk->size);
    if (wal->size < wal->offset)
        wal->size = wal->offset;
    wal->chain = walk->chain;
    return 0;
}

/* ------------------------------------------------------------------------------------------------------- other files */

static int sweep_file(void *arg, const char *name)
{
    struct recovery *r = arg;
    struct wal *wal = r->wal;
    char from[WAL_PATH_MAX], to[WAL_PATH_MAX];
    uint64_t number, size = 0;
    bool journal = wal_name(name, 'w', &number), spare = !journal && wal_name(name, 'f', &number);
    bool live =
        journal && wal->files_len && number >= wal->files[0].seq && number <= wal->files[wal->files_len - 1].seq;
    if ((!journal && !spare) || live || (spare && number > r->number_last)) /* the last: renamed by us just now */
        return 0;
    CHECK(wal_path(from, wal->folder, name[0], number));
    int fd;
    if (wal->os->open(wal->os, from, OS_READ, &fd) == 0) {
        (void)wal->os->size(wal->os, fd, &size);
        wal->os->close(wal->os, fd);
    }
    bool keep = size >= wal->file_bytes && size <= 2 * wal->file_bytes && wal->pool_len < WAL_POOL_MAX;
    if (!keep)
        return wal->os->unlink(wal->os, from);
    if (spare) {
        wal->pool[wal->pool_len++] = number;
        return 0;
    }
    CHECK(wal_path(to, wal->folder, 'f', wal->pool_number));
    int err = wal->os->rename(wal->os, from, to);
    if (!err)
        wal->pool[wal->pool_len++] = wal->pool_number++;
    return err;
}

/* What is no part of the journal goes to the pool. The names need no sync here: they are made durable again before use. After
 * the epoch was claimed: the superblock that was read may be in the page cache only (its writer was killed), and the one on
 * the disk may name these files. */
static int sweep(struct recovery *r)
{
    struct wal *wal = r->wal;
    wal->pool_number = r->number_last + 1;
    int err = wal->os->list(wal->os, wal->folder, sweep_file, r);
    return err ? disk_error(r, err, "tidy", wal->folder) : 0;
}

/* Rule 7, first half: what was read of the superblock may be in the page cache only, and its name too. It has to hold before the other copy
 * is overwritten (J11). */
static int settle_super(struct recovery *r, char letter)
{
    struct wal *wal = r->wal;
    char path[WAL_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/superblock.%c", wal->dir, letter), fd;
    CHECK(n > 0 && (size_t)n < sizeof path);
    int err = wal->os->open(wal->os, path, OS_WRITE, &fd);
    if (!err) {
        err = wal->os->fdatasync(wal->os, fd);
        wal->os->close(wal->os, fd);
    }
    if (!err)
        err = wal->os->sync_dir(wal->os, wal->dir);
    return err ? disk_error(r, err, "settle", path) : 0;
}

/* Rule 7, second half. */
static int claim_epoch(struct recovery *r, uint32_t epoch_seen, lsn_t durable)
{
    struct wal *wal = r->wal;
    struct layout_super super = wal->super;
    uint32_t epoch = super.epoch > epoch_seen ? super.epoch : epoch_seen;
    super.epoch = wal->epoch = epoch + (r->lost_copy ? 2 : 1);
    super.clean = false;
    super.durable = durable > super.durable ? durable : super.durable;
    int err = wal_super_write(wal, &super);
    return err ? refuse(r, err, "cannot claim %s: %s", wal->dir, wal->fault) : 0;
}

static int recover(struct recovery *r, struct recovered *ret)
{
    struct wal *wal = r->wal;
    unsigned newer =
        r->copies[0] != SUPER_GOOD || (r->copies[1] == SUPER_GOOD && r->supers[1].generation > r->supers[0].generation);
    wal->super = r->supers[newer];
    r->lost_copy = r->copies[0] != SUPER_GOOD || r->copies[1] != SUPER_GOOD;
    struct walk walk;
    int err = walk_to_tail(r, &walk);
    if (!err)
        err = judge(r, &walk);
    if (!err && walk.in_file)
        err = settle_tail(r, &walk, &ret->cut_bytes);
    ret->next_lsn = walk.lsn;
    uint32_t epoch_seen = walk.epoch;
    walk_close(&walk);
    if (!err)
        err = settle_super(r, "ab"[newer]);
    if (!err)
        err = claim_epoch(r, epoch_seen, ret->next_lsn - 1);
    return err ? err : sweep(r);
}

/* Without a file to go on in (a new journal, or one whose first file was never begun): begin one. */
static int first_file(struct recovery *r, lsn_t next_lsn)
{
    struct wal *wal = r->wal;
    int err = wal_roll(wal, next_lsn, false);
    if (err == -EINVAL && wal->direct && r->options->direct_io == JOURNAL_DIRECT_AUTO) {
        wal->direct = false;
        err = wal_roll(wal, next_lsn, false);
    }
    return err ? refuse(r, err, "cannot begin the journal: %s", wal->fault) : 0;
}

static int open_steps(struct recovery *r, struct recovered *ret)
{
    struct wal *wal = r->wal;
    wal->block = mem_aligned(LAYOUT_BLOCK, LAYOUT_BLOCK);
    if (!wal->block)
        return refuse(r, -ENOMEM, "no memory to open the journal");
    int err = enter_folder(r);
    if (!err)
        err = read_supers(r); /* before anything is made in a folder that may be foreign */
    if (!err)
        err = take_lock(r);
    if (!err)
        err = read_supers(r); /* again: another broker may just have stopped */
    if (!err)
        err = look_at_files(r);
    if (err)
        return err;
    bool any = r->copies[0] == SUPER_GOOD || r->copies[1] == SUPER_GOOD;
    err = any ? recover(r, ret) : create(r);
    return !err && wal->fd < 0 ? first_file(r, ret->next_lsn) : err;
}

int recover_open(struct wal *wal, const struct journal_options *options, struct recovered *ret, char *why,
                 size_t why_len)
{
    wal_init(wal, options);
    struct recovery r = {.wal = wal, .options = options, .why = why, .why_len = why_len};
    *ret = (struct recovered){.next_lsn = 1};
    int n = snprintf(wal->dir, sizeof wal->dir, "%s", options->dir);
    int m = snprintf(wal->folder, sizeof wal->folder, "%s/wal", options->dir);
    if (n <= 0 || m <= 0 || (size_t)m + 32 > sizeof wal->folder)
        return refuse(&r, -ENAMETOOLONG, "the path of the data folder is empty or too long");
    int err = open_steps(&r, ret);
    if (err)
        wal_close(wal, false, 0);
    return err;
}
