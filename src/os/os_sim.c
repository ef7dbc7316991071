/* The simulated disk: two versions of each file (page cache and platter) and of the list of names, and a log of what
 * was done to the first and not yet to the second. Any thread; one lock.
 *
 * File: `data` is what readers see, `durable` what a power cut leaves. A write changes data and is logged with its
 * bytes; fdatasync replays the log into durable and empties it; a power cut replays a seeded subset of it, sector by
 * sector. After a failed fdatasync the logged writes are doomed: no later sync replays them, only chance at a cut.
 * Names: the same with a log of create, rename and unlink per folder, and sync_dir. A cut replays a subset in order; an
 * operation whose source is not there does nothing.
 * Cost: a crash touches only files with logged writes, so that tens of thousands of crashes take seconds.
 *
 * This memory is the disk of a test, not the broker's, so it bypasses base/mem.h: a test that makes the broker's
 * allocations fail must not break the disk.
 */
#include "os/os_sim.h"

#include "base/check.h"
#include "os/thread.h"

#include <errno.h>
#include <stdlib.h>

#define FD_MAX 64
#define FD_BASE 1000
#define PATH_LEN 512
#define CALLER __builtin_return_address(0)

enum cut_mode { CUT_NOTHING, CUT_EVERYTHING, CUT_OPS, CUT_SECTORS, CUT_SECTORS_FEW, CUT_PREFIX, CUT_MODES };

struct change {
    uint64_t seq; /* place in time, over all files */
    bool truncate, doomed;
    uint64_t offset; /* truncate: the new size */
    size_t len;
    uint8_t *bytes;
};

struct inode {
    unsigned refs; /* names in both lists, name changes that mention it, descriptors, clones' maps */
    bool dir, locked;
    uint8_t *data, *durable;
    uint64_t size, durable_size, cap;
    struct change *log;
    size_t log_len, log_cap;
};

struct name {
    char *path;
    struct inode *inode;
};

struct names {
    struct name *at;
    size_t len, cap;
};

enum name_op { NAME_CREATE, NAME_RENAME, NAME_UNLINK };

struct name_change {
    uint64_t seq;
    enum name_op op;
    char *path, *to;
    struct inode *inode;
};

struct open_file {
    struct inode *inode;
    unsigned flags;
    bool used, holds_lock;
};

struct os_sim {
    struct os os;
    struct os_lock lock;
    uint64_t random;
    mono_t mono;
    wall_t wall;
    struct names names, durable_names;
    struct name_change *log;
    size_t log_len, log_cap;
    struct inode **dirty; /* files with a log */
    size_t dirty_len, dirty_cap;
    struct open_file fds[FD_MAX];
    uint64_t seq, used_bytes, capacity;
    int64_t cut_after;
    bool cut;
    unsigned fail_mask;
    uint64_t fail_nth, fail_hits;
    int fail_errno;
    bool fail_for_ever;
    void (*watch)(const void *caller, enum os_sim_op op);
    uint64_t counts[OS_SIM_OP_COUNT], ops;
};

/* ------------------------------------------------------------------------------------------------------ small things */

static void *grab(void *old, size_t len)
{
    void *ptr = realloc(old, len ? len : 1);
    CHECK(ptr != NULL);
    return ptr;
}

static char *copy_text(const char *text)
{
    size_t n = strlen(text) + 1;
    return memcpy(grab(NULL, n), text, n);
}

static uint64_t draw(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#define PUSH(array, len, cap)                                                                                          \
    ((len) == (cap) ? ((cap) = (cap) ? (cap)*2 : 16, (array) = grab((array), (cap) * sizeof *(array))) : (array),      \
     &(array)[(len)++])

static struct os_sim *sim_of(struct os *os)
{
    return os->self;
}

static bool in_dir(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    const char *slash = strrchr(path, '/');
    if (!slash)
        return n == 1 && dir[0] == '.';
    size_t len = (size_t)(slash - path);
    return (len == 0 && n == 1 && dir[0] == '/') || (len == n && memcmp(path, dir, n) == 0);
}

/* ------------------------------------------------------------------------------------------------------------ inodes */

static void inode_unref(struct os_sim *sim, struct inode *inode)
{
    if (--inode->refs)
        return;
    sim->used_bytes -= inode->size;
    for (size_t i = 0; i < inode->log_len; i++)
        free(inode->log[i].bytes);
    for (size_t i = 0; i < sim->dirty_len; i++)
        if (sim->dirty[i] == inode)
            sim->dirty[i--] = sim->dirty[--sim->dirty_len];
    free(inode->log);
    free(inode->data);
    free(inode->durable);
    free(inode);
}

static void inode_grow(struct inode *inode, uint64_t cap)
{
    if (cap <= inode->cap)
        return;
    if (cap < inode->cap * 2)
        cap = inode->cap * 2;
    inode->data = grab(inode->data, cap);
    inode->durable = grab(inode->durable, cap);
    memset(inode->data + inode->cap, 0, cap - inode->cap);
    memset(inode->durable + inode->cap, 0, cap - inode->cap);
    inode->cap = cap;
}

static void data_resize(struct os_sim *sim, struct inode *inode, uint64_t size)
{
    inode_grow(inode, size);
    if (size < inode->size)
        memset(inode->data + size, 0, inode->size - size);
    sim->used_bytes = sim->used_bytes - inode->size + size;
    inode->size = size;
}

static void durable_resize(struct inode *inode, uint64_t size)
{
    if (size < inode->durable_size)
        memset(inode->durable + size, 0, inode->durable_size - size);
    inode->durable_size = size;
}

static struct change *inode_log(struct os_sim *sim, struct inode *inode)
{
    if (inode->log_len == 0)
        *PUSH(sim->dirty, sim->dirty_len, sim->dirty_cap) = inode;
    struct change *change = PUSH(inode->log, inode->log_len, inode->log_cap);
    *change = (struct change){.seq = sim->seq++};
    return change;
}

static void inode_write(struct os_sim *sim, struct inode *inode, const void *bytes, size_t len, uint64_t offset)
{
    if (!len)
        return;
    if (offset + len > inode->size)
        data_resize(sim, inode, offset + len);
    memcpy(inode->data + offset, bytes, len);
    struct change *change = inode_log(sim, inode);
    change->offset = offset;
    change->len = len;
    change->bytes = memcpy(grab(NULL, len), bytes, len);
}

/* Replays one logged change whole. */
static void change_apply(struct inode *inode, const struct change *change)
{
    if (change->truncate) {
        durable_resize(inode, change->offset);
        return;
    }
    if (change->offset + change->len > inode->durable_size)
        inode->durable_size = change->offset + change->len;
    memcpy(inode->durable + change->offset, change->bytes, change->len);
}

static void inode_sync(struct os_sim *sim, struct inode *inode)
{
    size_t kept = 0;
    for (size_t i = 0; i < inode->log_len; i++) {
        struct change *change = &inode->log[i];
        if (change->doomed) {
            inode->log[kept++] = *change;
            continue;
        }
        change_apply(inode, change);
        free(change->bytes);
    }
    inode->log_len = kept;
    if (kept)
        return;
    for (size_t i = 0; i < sim->dirty_len; i++)
        if (sim->dirty[i] == inode)
            sim->dirty[i--] = sim->dirty[--sim->dirty_len];
}

/* ------------------------------------------------------------------------------------------------------------- names */

static struct name *name_find(struct names *names, const char *path)
{
    for (size_t i = 0; i < names->len; i++)
        if (strcmp(names->at[i].path, path) == 0)
            return &names->at[i];
    return NULL;
}

static void name_drop(struct os_sim *sim, struct names *names, const char *path)
{
    struct name *name = name_find(names, path);
    if (!name)
        return;
    inode_unref(sim, name->inode);
    free(name->path);
    *name = names->at[--names->len];
}

static void name_put(struct os_sim *sim, struct names *names, const char *path, struct inode *inode)
{
    inode->refs++;
    name_drop(sim, names, path);
    *PUSH(names->at, names->len, names->cap) = (struct name){.path = copy_text(path), .inode = inode};
}

static void name_change_apply(struct os_sim *sim, struct names *names, const struct name_change *change)
{
    if (change->op == NAME_CREATE) {
        name_put(sim, names, change->path, change->inode);
    } else if (change->op == NAME_UNLINK) {
        struct name *name = name_find(names, change->path);
        if (name && name->inode == change->inode)
            name_drop(sim, names, change->path);
    } else {
        struct name *name = name_find(names, change->path);
        if (!name || name->inode != change->inode)
            return;
        name_put(sim, names, change->to, change->inode);
        name_drop(sim, names, change->path);
    }
}

static void name_change_log(struct os_sim *sim, enum name_op op, const char *path, const char *to, struct inode *inode)
{
    struct name_change *change = PUSH(sim->log, sim->log_len, sim->log_cap);
    *change = (struct name_change){
        .seq = sim->seq++, .op = op, .path = copy_text(path), .to = to ? copy_text(to) : NULL, .inode = inode};
    inode->refs++;
    name_change_apply(sim, &sim->names, change);
}

static void name_change_free(struct os_sim *sim, struct name_change *change)
{
    inode_unref(sim, change->inode);
    free(change->path);
    free(change->to);
}

static bool parent_there(struct names *names, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return true;
    char parent[PATH_LEN];
    size_t n = (size_t)(slash - path);
    CHECK(n < sizeof parent);
    memcpy(parent, path, n);
    parent[n] = '\0';
    const struct name *name = name_find(names, parent);
    return name && name->inode->dir;
}

/* --------------------------------------------------------------------------------------------------- faults and power */

/* Counts the call and says whether it fails before anything is done: 0 or a negative errno. */
static int enter(struct os_sim *sim, enum os_sim_op op, bool changes, const void *caller, bool *ret_partly)
{
    sim->counts[op]++;
    *ret_partly = false;
    if (sim->cut)
        return -EIO;
    if (changes) {
        sim->ops++;
        if (sim->cut_after == 0) {
            sim->cut = true;
            *ret_partly = true;
            return -EIO;
        }
        if (sim->cut_after > 0)
            sim->cut_after--;
    }
    if (!sim->fail_nth || !(sim->fail_mask & (1u << op)))
        return 0;
    if (sim->fail_nth > 1) {
        sim->fail_nth--;
        return 0;
    }
    if (!sim->fail_for_ever)
        sim->fail_nth = 0;
    sim->fail_hits++;
    if (sim->watch)
        sim->watch(caller, op);
    *ret_partly = true;
    return -sim->fail_errno;
}

static struct open_file *file_of(struct os_sim *sim, int fd)
{
    CHECK(fd >= FD_BASE && fd < FD_BASE + FD_MAX && sim->fds[fd - FD_BASE].used);
    return &sim->fds[fd - FD_BASE];
}

static void file_close(struct os_sim *sim, struct open_file *file)
{
    if (file->holds_lock)
        file->inode->locked = false;
    inode_unref(sim, file->inode);
    *file = (struct open_file){0};
}

/* ------------------------------------------------------------------------------------------------- the table of os.h */

static mono_t sim_now_mono(struct os *os)
{
    struct os_sim *sim = sim_of(os);
    os_lock_take(&sim->lock);
    mono_t now = sim->mono;
    os_lock_give(&sim->lock);
    return now;
}

static wall_t sim_now_wall(struct os *os)
{
    struct os_sim *sim = sim_of(os);
    os_lock_take(&sim->lock);
    wall_t now = sim->wall;
    os_lock_give(&sim->lock);
    return now;
}

static void sim_random(struct os *os, void *ret, size_t len)
{
    struct os_sim *sim = sim_of(os);
    os_lock_take(&sim->lock);
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)ret)[i] = (uint8_t)draw(&sim->random);
    os_lock_give(&sim->lock);
}

static int open_locked(struct os_sim *sim, const char *path, unsigned flags, const void *caller, int *ret_fd)
{
    struct name *name = name_find(&sim->names, path);
    bool create = !name && (flags & OS_CREATE), partly;
    int err = enter(sim, OS_SIM_OPEN, create, caller, &partly);
    if (err)
        return err;
    if (!name && !create)
        return -ENOENT;
    if (name && (flags & OS_CREATE) && (flags & OS_EXCLUSIVE))
        return -EEXIST;
    if (name && name->inode->dir)
        return -EISDIR;
    unsigned at = 0;
    while (at < FD_MAX && sim->fds[at].used)
        at++;
    if (at == FD_MAX)
        return -EMFILE;
    struct inode *inode = name ? name->inode : NULL;
    if (!inode) {
        if (!parent_there(&sim->names, path))
            return -ENOENT;
        inode = grab(NULL, sizeof *inode);
        *inode = (struct inode){0};
        name_change_log(sim, NAME_CREATE, path, NULL, inode);
    }
    inode->refs++;
    sim->fds[at] = (struct open_file){.inode = inode, .flags = flags, .used = true};
    if ((flags & OS_TRUNCATE) && inode->size) {
        struct change *change = inode_log(sim, inode);
        change->truncate = true;
        data_resize(sim, inode, 0);
    }
    *ret_fd = FD_BASE + (int)at;
    return 0;
}

static int sim_open(struct os *os, const char *path, unsigned flags, int *ret_fd)
{
    struct os_sim *sim = sim_of(os);
    os_lock_take(&sim->lock);
    int err = open_locked(sim, path, flags, CALLER, ret_fd);
    os_lock_give(&sim->lock);
    return err;
}

static int sim_close(struct os *os, int fd)
{
    struct os_sim *sim = sim_of(os);
    bool partly;
    os_lock_take(&sim->lock);
    int err = enter(sim, OS_SIM_CLOSE, false, CALLER, &partly);
    file_close(sim, file_of(sim, fd)); /* as in Linux: gone even when it reports an error */
    os_lock_give(&sim->lock);
    return err;
}

static bool aligned(const struct open_file *file, const void *ptr, size_t len, uint64_t offset)
{
    return !(file->flags & OS_DIRECT) || ((uintptr_t)ptr | len | offset) % OS_SIM_SECTOR == 0;
}

static int64_t sim_pread(struct os *os, int fd, void *ret, size_t len, uint64_t offset)
{
    struct os_sim *sim = sim_of(os);
    bool partly;
    os_lock_take(&sim->lock);
    struct open_file *file = file_of(sim, fd);
    int64_t n = enter(sim, OS_SIM_PREAD, false, CALLER, &partly);
    if (n == 0 && !aligned(file, ret, len, offset))
        n = -EINVAL;
    if (n == 0 && offset < file->inode->size) {
        uint64_t left = file->inode->size - offset;
        n = (int64_t)(left < len ? left : len);
        memcpy(ret, file->inode->data + offset, (size_t)n);
    }
    os_lock_give(&sim->lock);
    return n;
}

static int pwrite_locked(struct os_sim *sim, struct open_file *file, const void *bytes, size_t len, uint64_t offset,
                         const void *caller)
{
    bool partly;
    int err = enter(sim, OS_SIM_PWRITE, true, caller, &partly);
    CHECK(file->flags & OS_WRITE);
    if (!err && !aligned(file, bytes, len, offset))
        return -EINVAL;
    if (err && !partly)
        return err;
    if (err)
        len = draw(&sim->random) % (len / OS_SIM_SECTOR + 1) * OS_SIM_SECTOR;
    struct inode *inode = file->inode;
    uint64_t grows = offset + len > inode->size ? offset + len - inode->size : 0;
    if (sim->capacity && sim->used_bytes + grows > sim->capacity) {
        uint64_t over = sim->used_bytes + grows - sim->capacity;
        len = over >= len ? 0 : (len - over) / OS_SIM_SECTOR * OS_SIM_SECTOR;
        err = err ? err : -ENOSPC;
    }
    inode_write(sim, inode, bytes, len, offset);
    return err;
}

static int sim_pwrite(struct os *os, int fd, const void *bytes, size_t len, uint64_t offset)
{
    struct os_sim *sim = sim_of(os);
    os_lock_take(&sim->lock);
    int err = pwrite_locked(sim, file_of(sim, fd), bytes, len, offset, CALLER);
    os_lock_give(&sim->lock);
    return err;
}

static void sim_will_read(struct os *os, int fd, uint64_t offset, uint64_t len)
{
    (void)os;
    (void)fd;
    (void)offset;
    (void)len;
}

static int sim_fdatasync(struct os *os, int fd)
{
    struct os_sim *sim = sim_of(os);
    bool partly;
    os_lock_take(&sim->lock);
    struct inode *inode = file_of(sim, fd)->inode;
    int err = enter(sim, OS_SIM_FDATASYNC, true, CALLER, &partly);
    if (!err)
        inode_sync(sim, inode);
    else if (!sim->cut)
        for (size_t i = 0; i < inode->log_len; i++)
            inode->log[i].doomed = true;
    os_lock_give(&sim->lock);
    return err;
}

static int sim_size(struct os *os, int fd, uint64_t *ret_size)
{
    struct os_sim *sim = sim_of(os);
    bool partly;
    os_lock_take(&sim->lock);
    int err = enter(sim, OS_SIM_SIZE, false, CALLER, &partly);
    if (!err)
        *ret_size = file_of(sim, fd)->inode->size;
    os_lock_give(&sim->lock);
    return err;
}

static int sim_truncate(struct os *os, int fd, uint64_t size)
{
    struct os_sim *sim = sim_of(os);
    bool partly;
    os_lock_take(&sim->lock);
    struct inode *inode = file_of(sim, fd)->inode;
    int err = enter(sim, OS_SIM_TRUNCATE, true, CALLER, &partly);
    if (!err && sim->capacity && size > inode->size && sim->used_bytes + size - inode->size > sim->capacity)
        err = -ENOSPC;
    if (!err) {
        data_resize(sim, inode, size);
        struct change *change = inode_log(sim, inode);
        change->truncate = true;
        change->offset = size;
    }
    os_lock_give(&sim->lock);
    return err;
}

static int rename_locked(struct os_sim *sim, const char *from, const char *to, const void *caller)
{
    bool partly;
    int err = enter(sim, OS_SIM_RENAME, true, caller, &partly);
    if (err)
        return err;
    struct name *name = name_find(&sim->names, from);
    if (!name || !parent_there(&sim->names, to))
        return -ENOENT;
    if (strcmp(from, to) != 0)
        name_change_log(sim, NAME_RENAME, from, to, name->inode);
    return 0;
}

static int sim_rename(struct os *os, const char *from, const char *to)
{
    struct os_sim *sim = sim_of(os);
    os_lock_take(&sim->lock);
    int err = rename_locked(sim, from, to, CALLER);
    os_lock_give(&sim->lock);
    return err;
}

/* Files here have one name. */
static int sim_link(struct os *os, const char *from, const char *to)
{
    (void)os;
    (void)from;
    (void)to;
    return -EPERM;
}

static int sim_unlink(struct os *os, const char *path)
{
    struct os_sim *sim = sim_of(os);
    bool partly;
    os_lock_take(&sim->lock);
    int err = enter(sim, OS_SIM_UNLINK, true, CALLER, &partly);
    struct name *name = name_find(&sim->names, path);
    if (!err && !name)
        err = -ENOENT;
    if (!err)
        name_change_log(sim, NAME_UNLINK, path, NULL, name->inode);
    os_lock_give(&sim->lock);
    return err;
}

static int sim_mkdir(struct os *os, const char *path)
{
    struct os_sim *sim = sim_of(os);
    bool partly;
    os_lock_take(&sim->lock);
    int err = enter(sim, OS_SIM_MKDIR, true, CALLER, &partly);
    if (!err && name_find(&sim->names, path))
        err = -EEXIST;
    if (!err && !parent_there(&sim->names, path))
        err = -ENOENT;
    if (!err) {
        struct inode *inode = grab(NULL, sizeof *inode);
        *inode = (struct inode){.dir = true};
        name_change_log(sim, NAME_CREATE, path, NULL, inode);
    }
    os_lock_give(&sim->lock);
    return err;
}

static int sim_sync_dir(struct os *os, const char *path)
{
    struct os_sim *sim = sim_of(os);
    bool partly;
    os_lock_take(&sim->lock);
    int err = enter(sim, OS_SIM_SYNC_DIR, true, CALLER, &partly);
    size_t kept = 0;
    for (size_t i = 0; !err && i < sim->log_len; i++) {
        struct name_change change = sim->log[i];
        if (!in_dir(change.path, path)) {
            sim->log[kept++] = change;
            continue;
        }
        name_change_apply(sim, &sim->durable_names, &change);
        name_change_free(sim, &change);
    }
    if (!err)
        sim->log_len = kept;
    os_lock_give(&sim->lock);
    return err;
}

/* Lists a copy, so that each may call back into the disk. */
static int sim_list(struct os *os, const char *path, int (*each)(void *arg, const char *name), void *arg)
{
    struct os_sim *sim = sim_of(os);
    char **found = NULL;
    size_t len = 0, cap = 0;
    bool partly;
    os_lock_take(&sim->lock);
    int r = enter(sim, OS_SIM_LIST, false, CALLER, &partly);
    const struct name *dir = name_find(&sim->names, path);
    if (!r && !dir && strcmp(path, ".") != 0 && strcmp(path, "/") != 0)
        r = -ENOENT;
    if (!r && dir && !dir->inode->dir)
        r = -ENOTDIR;
    for (size_t i = 0; !r && i < sim->names.len; i++) {
        const char *full = sim->names.at[i].path, *slash = strrchr(full, '/');
        if (in_dir(full, path))
            *PUSH(found, len, cap) = copy_text(slash ? slash + 1 : full);
    }
    os_lock_give(&sim->lock);
    for (size_t i = 0; i < len; i++) {
        if (!r)
            r = each(arg, found[i]);
        free(found[i]);
    }
    free(found);
    return r;
}

static int sim_lock(struct os *os, int fd)
{
    struct os_sim *sim = sim_of(os);
    os_lock_take(&sim->lock);
    struct open_file *file = file_of(sim, fd);
    bool partly;
    int err = enter(sim, OS_SIM_LOCK, false, CALLER, &partly);
    if (!err && !file->holds_lock) {
        if (file->inode->locked)
            err = -EWOULDBLOCK;
        else
            file->holds_lock = file->inode->locked = true;
    }
    os_lock_give(&sim->lock);
    return err;
}

static int sim_space(struct os *os, const char *path, uint64_t *ret_free, uint64_t *ret_total)
{
    (void)path;
    struct os_sim *sim = sim_of(os);
    os_lock_take(&sim->lock);
    uint64_t total = sim->capacity ? sim->capacity : (uint64_t)1 << 40;
    *ret_total = total;
    *ret_free = sim->used_bytes < total ? total - sim->used_bytes : 0;
    int err = sim->cut ? -EIO : 0;
    os_lock_give(&sim->lock);
    return err;
}

/* --------------------------------------------------------------------------------------------------- what tests call */

struct os_sim *os_sim_new(uint64_t seed)
{
    struct os_sim *sim = grab(NULL, sizeof *sim);
    *sim = (struct os_sim){.random = seed, .cut_after = -1, .mono = NS_PER_S, .wall = 1700000000000};
    sim->os = (struct os){
        .self = sim,
        .now_mono = sim_now_mono,
        .now_wall = sim_now_wall,
        .random = sim_random,
        .open = sim_open,
        .close = sim_close,
        .pread = sim_pread,
        .pwrite = sim_pwrite,
        .will_read = sim_will_read,
        .fdatasync = sim_fdatasync,
        .size = sim_size,
        .truncate = sim_truncate,
        .rename = sim_rename,
        .link = sim_link,
        .unlink = sim_unlink,
        .mkdir = sim_mkdir,
        .sync_dir = sim_sync_dir,
        .list = sim_list,
        .lock = sim_lock,
        .space = sim_space,
    };
    os_lock_init(&sim->lock);
    return sim;
}

static void names_free(struct os_sim *sim, struct names *names)
{
    for (size_t i = 0; i < names->len; i++) {
        inode_unref(sim, names->at[i].inode);
        free(names->at[i].path);
    }
    free(names->at);
    *names = (struct names){0};
}

static void drop_descriptors(struct os_sim *sim)
{
    for (unsigned i = 0; i < FD_MAX; i++)
        if (sim->fds[i].used)
            file_close(sim, &sim->fds[i]);
}

void os_sim_free(struct os_sim **slot)
{
    struct os_sim *sim = *slot;
    *slot = NULL;
    if (!sim)
        return;
    drop_descriptors(sim);
    for (size_t i = 0; i < sim->log_len; i++)
        name_change_free(sim, &sim->log[i]);
    names_free(sim, &sim->names);
    names_free(sim, &sim->durable_names);
    free(sim->log);
    free(sim->dirty);
    os_lock_fini(&sim->lock);
    free(sim);
}

struct os *os_sim_os(struct os_sim *sim)
{
    return &sim->os;
}

/* For clones: the copy of an inode, made once; pairs hold what was copied already. */
struct pair {
    struct inode *old, *copy;
};

static struct inode *clone_inode(struct os_sim *to, struct pair *pairs, size_t *len, struct inode *old)
{
    for (size_t i = 0; i < *len; i++)
        if (pairs[i].old == old)
            return pairs[i].copy;
    struct inode *copy = grab(NULL, sizeof *copy);
    *copy = (struct inode){.dir = old->dir, .durable_size = old->durable_size};
    inode_grow(copy, old->cap);
    if (old->cap) {
        memcpy(copy->data, old->data, old->cap);
        memcpy(copy->durable, old->durable, old->cap);
    }
    copy->size = old->size;
    to->used_bytes += old->size;
    for (size_t i = 0; i < old->log_len; i++) {
        struct change *change = inode_log(to, copy);
        *change = old->log[i];
        if (change->bytes)
            change->bytes = memcpy(grab(NULL, change->len), change->bytes, change->len);
    }
    pairs[(*len)++] = (struct pair){old, copy};
    return copy;
}

struct os_sim *os_sim_clone(struct os_sim *sim)
{
    struct os_sim *copy = os_sim_new(sim->random);
    os_lock_take(&sim->lock);
    copy->mono = sim->mono;
    copy->wall = sim->wall;
    copy->capacity = sim->capacity;
    struct pair *pairs = grab(NULL, (sim->names.len + sim->durable_names.len + sim->log_len) * sizeof *pairs);
    size_t len = 0;
    for (size_t i = 0; i < sim->names.len; i++)
        name_put(copy, &copy->names, sim->names.at[i].path, clone_inode(copy, pairs, &len, sim->names.at[i].inode));
    for (size_t i = 0; i < sim->durable_names.len; i++)
        name_put(copy, &copy->durable_names, sim->durable_names.at[i].path,
                 clone_inode(copy, pairs, &len, sim->durable_names.at[i].inode));
    for (size_t i = 0; i < sim->log_len; i++) {
        struct name_change *change = PUSH(copy->log, copy->log_len, copy->log_cap);
        *change = sim->log[i];
        change->path = copy_text(change->path);
        change->to = change->to ? copy_text(change->to) : NULL;
        change->inode = clone_inode(copy, pairs, &len, change->inode);
        change->inode->refs++;
    }
    copy->seq = sim->seq;
    os_lock_give(&sim->lock);
    free(pairs);
    return copy;
}

void os_sim_cut_after(struct os_sim *sim, int64_t k)
{
    os_lock_take(&sim->lock);
    sim->cut_after = k;
    os_lock_give(&sim->lock);
}

void os_sim_stop(struct os_sim *sim)
{
    os_lock_take(&sim->lock);
    sim->cut = true;
    os_lock_give(&sim->lock);
}

bool os_sim_is_cut(struct os_sim *sim)
{
    os_lock_take(&sim->lock);
    bool cut = sim->cut;
    os_lock_give(&sim->lock);
    return cut;
}

/* Which part of one write survives. before: the point in time of CUT_PREFIX. */
static void cut_change(struct inode *inode, const struct change *change, enum cut_mode mode, uint64_t before,
                       uint64_t *dice)
{
    bool all = mode == CUT_EVERYTHING || (mode == CUT_PREFIX && change->seq < before);
    bool torn = mode == CUT_SECTORS || mode == CUT_SECTORS_FEW || (mode == CUT_PREFIX && change->seq == before);
    if (mode == CUT_OPS)
        all = draw(dice) & 1;
    if (torn && change->truncate)
        all = draw(dice) & 1;
    if (all) {
        change_apply(inode, change);
        return;
    }
    if (!torn || change->truncate)
        return;
    uint64_t end = change->offset + change->len;
    if (end > inode->durable_size && (draw(dice) & 1))
        inode->durable_size = end; /* the new size arrived; missing sectors are zero */
    unsigned keep_of_8 = mode == CUT_SECTORS_FEW ? 1 + 6 * (unsigned)(draw(dice) & 1) : 4;
    for (uint64_t at = change->offset; at < end;) {
        uint64_t next = (at / OS_SIM_SECTOR + 1) * OS_SIM_SECTOR;
        next = next < end ? next : end;
        if (next <= inode->durable_size && draw(dice) % 8 < keep_of_8)
            memcpy(inode->durable + at, change->bytes + (at - change->offset), next - at);
        at = next;
    }
}

static void cut_files(struct os_sim *sim, enum cut_mode mode, uint64_t before, uint64_t *dice)
{
    for (size_t i = 0; i < sim->dirty_len; i++) {
        struct inode *inode = sim->dirty[i];
        uint64_t touched = inode->size > inode->durable_size ? inode->size : inode->durable_size;
        for (size_t j = 0; j < inode->log_len; j++) {
            cut_change(inode, &inode->log[j], mode, before, dice);
            free(inode->log[j].bytes);
        }
        inode->log_len = 0;
        sim->used_bytes = sim->used_bytes - inode->size + inode->durable_size;
        if (touched < inode->durable_size)
            touched = inode->durable_size;
        inode->size = inode->durable_size;
        memcpy(inode->data, inode->durable, touched);
    }
    sim->dirty_len = 0;
}

static void cut_names(struct os_sim *sim, enum cut_mode mode, uint64_t before, uint64_t *dice)
{
    for (size_t i = 0; i < sim->log_len; i++) {
        bool keep = mode == CUT_EVERYTHING || (mode == CUT_PREFIX && sim->log[i].seq < before);
        if (mode != CUT_EVERYTHING && mode != CUT_NOTHING && mode != CUT_PREFIX)
            keep = draw(dice) & 1;
        if (keep)
            name_change_apply(sim, &sim->durable_names, &sim->log[i]);
        name_change_free(sim, &sim->log[i]);
    }
    sim->log_len = 0;
    struct names *names = &sim->durable_names;
    for (size_t i = 0; i < names->len; i++) {
        if (parent_there(names, names->at[i].path))
            continue;
        name_drop(sim, names, names->at[i].path);
        i = (size_t)-1; /* a dropped folder may orphan what was looked at before */
    }
    struct names fresh = {0};
    for (size_t i = 0; i < names->len; i++)
        name_put(sim, &fresh, names->at[i].path, names->at[i].inode);
    names_free(sim, &sim->names);
    sim->names = fresh;
}

void os_sim_crash(struct os_sim *sim, uint64_t seed)
{
    os_lock_take(&sim->lock);
    drop_descriptors(sim);
    uint64_t dice = seed, oldest = sim->seq;
    enum cut_mode mode = (enum cut_mode)(draw(&dice) % CUT_MODES);
    for (size_t i = 0; i < sim->dirty_len; i++)
        if (sim->dirty[i]->log[0].seq < oldest)
            oldest = sim->dirty[i]->log[0].seq;
    if (sim->log_len && sim->log[0].seq < oldest)
        oldest = sim->log[0].seq;
    uint64_t before = oldest + draw(&dice) % (sim->seq - oldest + 1);
    cut_files(sim, mode, before, &dice);
    cut_names(sim, mode, before, &dice);
    sim->cut = false;
    sim->cut_after = -1;
    os_lock_give(&sim->lock);
}

void os_sim_kill(struct os_sim *sim)
{
    os_lock_take(&sim->lock);
    drop_descriptors(sim);
    sim->cut = false;
    sim->cut_after = -1;
    os_lock_give(&sim->lock);
}

void os_sim_fail(struct os_sim *sim, unsigned mask, uint64_t nth, int err, bool for_ever)
{
    os_lock_take(&sim->lock);
    sim->fail_mask = mask;
    sim->fail_nth = nth;
    sim->fail_errno = err;
    sim->fail_for_ever = for_ever;
    sim->fail_hits = 0;
    os_lock_give(&sim->lock);
}

uint64_t os_sim_failures_hit(struct os_sim *sim)
{
    os_lock_take(&sim->lock);
    uint64_t hits = sim->fail_hits;
    os_lock_give(&sim->lock);
    return hits;
}

void os_sim_watch_failures(struct os_sim *sim, void (*watch)(const void *caller, enum os_sim_op op))
{
    os_lock_take(&sim->lock);
    sim->watch = watch;
    os_lock_give(&sim->lock);
}

void os_sim_capacity(struct os_sim *sim, uint64_t bytes)
{
    os_lock_take(&sim->lock);
    sim->capacity = bytes;
    os_lock_give(&sim->lock);
}

void os_sim_clock_set(struct os_sim *sim, mono_t mono, wall_t wall)
{
    os_lock_take(&sim->lock);
    sim->mono = mono;
    sim->wall = wall;
    os_lock_give(&sim->lock);
}

void os_sim_clock_advance(struct os_sim *sim, int64_t ns)
{
    os_lock_take(&sim->lock);
    int64_t ms_before = sim->mono / NS_PER_MS;
    sim->mono += ns;
    sim->wall += sim->mono / NS_PER_MS - ms_before;
    os_lock_give(&sim->lock);
}

uint64_t os_sim_count(struct os_sim *sim, enum os_sim_op op)
{
    os_lock_take(&sim->lock);
    uint64_t count = sim->counts[op];
    os_lock_give(&sim->lock);
    return count;
}

uint64_t os_sim_ops(struct os_sim *sim)
{
    os_lock_take(&sim->lock);
    uint64_t ops = sim->ops;
    os_lock_give(&sim->lock);
    return ops;
}

bool os_sim_flip(struct os_sim *sim, const char *path, uint64_t offset, uint8_t mask)
{
    os_lock_take(&sim->lock);
    struct name *name = name_find(&sim->names, path);
    bool there = name && offset < name->inode->size;
    if (there) {
        name->inode->data[offset] ^= mask;
        name->inode->durable[offset] ^= mask;
    }
    os_lock_give(&sim->lock);
    return there;
}

struct slice os_sim_peek(struct os_sim *sim, const char *path)
{
    os_lock_take(&sim->lock);
    struct name *name = name_find(&sim->names, path);
    struct slice bytes = name ? slice_of(name->inode->data, name->inode->size) : (struct slice){0};
    os_lock_give(&sim->lock);
    return bytes;
}

void os_sim_put(struct os_sim *sim, const char *path, struct slice bytes)
{
    os_lock_take(&sim->lock);
    struct inode *inode = grab(NULL, sizeof *inode);
    *inode = (struct inode){.refs = 1};
    data_resize(sim, inode, bytes.len);
    if (bytes.len) {
        memcpy(inode->data, bytes.ptr, bytes.len);
        memcpy(inode->durable, bytes.ptr, bytes.len);
    }
    inode->durable_size = bytes.len;
    name_put(sim, &sim->names, path, inode);
    name_put(sim, &sim->durable_names, path, inode);
    inode_unref(sim, inode);
    os_lock_give(&sim->lock);
}

void os_sim_remove(struct os_sim *sim, const char *path)
{
    os_lock_take(&sim->lock);
    name_drop(sim, &sim->names, path);
    name_drop(sim, &sim->durable_names, path);
    os_lock_give(&sim->lock);
}

void os_sim_each(struct os_sim *sim, const char *dir, void (*each)(void *arg, const char *path), void *arg)
{
    os_lock_take(&sim->lock);
    for (size_t i = 0; i < sim->names.len; i++)
        if (in_dir(sim->names.at[i].path, dir))
            each(arg, sim->names.at[i].path);
    os_lock_give(&sim->lock);
}
