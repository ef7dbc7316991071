/* os_sim: a disk and clocks in memory behind the table of os.h, for tests: deterministic from its seeds.
 *
 * Life cycle: os_sim_new → os_sim_os (give it to the code under test) → … os_sim_crash / os_sim_kill … → os_sim_free.
 *
 * What it knows of real disks: a write is in the page cache until fdatasync of its file; a name (create, rename, unlink,
 * mkdir) is not durable until sync_dir of its folder; at a power cut any subset of the unsynced 512-byte sectors and of
 * the unsynced names survives; after a failed fdatasync the pages count as clean, so that a later good fdatasync of
 * the file does not save them; a failing write may have written a part.
 * Clocks stand still until a test moves them. Thread: any, one lock around everything.
 */
#ifndef MILLRACE_OS_OS_SIM_H
#define MILLRACE_OS_OS_SIM_H

#include "os/os.h"

#define OS_SIM_SECTOR 512

struct os_sim;

enum os_sim_op {
    OS_SIM_OPEN,
    OS_SIM_PREAD,
    OS_SIM_PWRITE,
    OS_SIM_FDATASYNC,
    OS_SIM_TRUNCATE,
    OS_SIM_RENAME,
    OS_SIM_UNLINK,
    OS_SIM_MKDIR,
    OS_SIM_SYNC_DIR,
    OS_SIM_SIZE,
    OS_SIM_LIST,
    OS_SIM_CLOSE,
    OS_SIM_LOCK,
    OS_SIM_OP_COUNT
};
#define OS_SIM_ALL ((1u << OS_SIM_OP_COUNT) - 1)

struct os_sim *os_sim_new(uint64_t seed); /* seed: of os->random and of partly done writes */
void os_sim_free(struct os_sim **sim);
struct os *os_sim_os(struct os_sim *sim);

/* A second disk in the same state, page cache included; no open descriptors, no locks, no faults armed. */
struct os_sim *os_sim_clone(struct os_sim *sim);

/* Power: after k more disk operations (those that change something; see os_sim_ops) everything fails with -EIO until
 * os_sim_crash. The operation at which the power goes may be partly done. Negative: never. */
void os_sim_cut_after(struct os_sim *sim, int64_t k);
bool os_sim_is_cut(struct os_sim *sim);
void os_sim_stop(struct os_sim *sim); /* the power goes now: from here on everything fails */
/* The machine restarts: what was not synced survives as seed decides (all, nothing, any subset, torn sectors, or
 * everything up to a point in time); descriptors and locks are gone; the power is on. */
void os_sim_crash(struct os_sim *sim, uint64_t seed);
/* Only the process died: the page cache survives, descriptors and locks are gone; the power is on. */
void os_sim_kill(struct os_sim *sim);

/* The nth (1 = next) call out of the ops in mask (bits 1 << OS_SIM_X) fails with err (positive errno), and all after it
 * when for_ever. nth = 0 switches off. */
void os_sim_fail(struct os_sim *sim, unsigned mask, uint64_t nth, int err, bool for_ever);
uint64_t os_sim_failures_hit(struct os_sim *sim); /* since os_sim_fail */
/* Is told the address in the code behind each call that failed so, and which call it was; NULL: nobody is. */
void os_sim_watch_failures(struct os_sim *sim, void (*watch)(const void *caller, enum os_sim_op op));

/* At most that many bytes in all files together; beyond it writes get -ENOSPC. 0: no limit. */
void os_sim_capacity(struct os_sim *sim, uint64_t bytes);

void os_sim_clock_set(struct os_sim *sim, mono_t mono, wall_t wall);
void os_sim_clock_advance(struct os_sim *sim, int64_t ns);

uint64_t os_sim_count(struct os_sim *sim, enum os_sim_op op); /* calls so far, failed ones included */
uint64_t os_sim_ops(
    struct os_sim *sim); /* disk operations so far: create, write, sync, truncate, rename, unlink, mkdir, sync_dir */

/* Damage at rest: xors mask into the byte, in the page cache and on the disk. False: no such byte. */
bool os_sim_flip(struct os_sim *sim, const char *path, uint64_t offset, uint8_t mask);
/* The file's bytes as a reader sees them; a loan until the next call. Empty: absent or empty. */
struct slice os_sim_peek(struct os_sim *sim, const char *path);
/* Replaces (or makes) a file, durable at once. For corpora and foreign folders. */
void os_sim_put(struct os_sim *sim, const char *path, struct slice bytes);
void os_sim_remove(struct os_sim *sim, const char *path);
/* Every name below a folder, in no order. */
void os_sim_each(struct os_sim *sim, const char *dir, void (*each)(void *arg, const char *path), void *arg);

#endif
