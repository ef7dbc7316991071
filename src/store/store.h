/* store: carries out page jobs (core/page.h): writes pages of messages to segment files, reads them back, removes files.
 *
 * Life cycle: store_open → store_keep for every segment that the replayed journal names → store_sweep → store_start (a
 * thread) or calls of store_step (tests, simulator) → store_submit, store_take … → store_stop → store_close.
 *
 * Format and invariants: docs/formats/segments.md. The store decides nothing: which pages exist and what of them is alive
 * the core says. Every read or write job that was submitted is finished exactly once, in `err` with the reason if it
 * could not be done:
 *   PAGE_WRITE  0: `where` is filled in, and with `sync` the page survives a power cut. A negative errno: nothing is to be
 *               expected at any place, the messages are still the job's, and the same job may be submitted again later.
 *               Without `sync` the page lasts as long as the machine runs, unless a later sync of its file fails.
 *   PAGE_READ   0: items are filled in, each with a fresh message of one reference. -EILSEQ: what lies there is not that
 *               page, the file is missing or too short; another negative errno: it may do better later. The job is then as it was.
 *               For the sentences and as a check, items[0].position and items[count - 1].position of the job may say
 *               where the page is expected to begin and end; 0: not known.
 *   PAGE_DROP   not answered, freed by the store. `where.offset + where.len` is the end of the furthest page in that segment
 *               that the core was ever told of. When the store knows of a later one its answer is still on its way: the drop
 *               is then forgotten, and the core asks again when that page is gone too.
 * Writes are finished in the order they were submitted. Reads overtake writes.
 *
 * Threads: "owner": the one thread that submits and takes (it may be the store's own, in on_turn and on_done). "store":
 * the store's thread, or whoever calls store_step. "boot": before either.
 */
#ifndef MILLRACE_STORE_STORE_H
#define MILLRACE_STORE_STORE_H

#include "base/types.h"
#include "core/page.h"
#include "os/os.h"

#define STORE_JOBS_MAX 1024u /* submitted and not taken; also what one store_submit may find full */
#define STORE_UUID_LEN 16

struct store;

struct store_options {
    struct os *os;
    const char *dir;              /* data folder; the segments live in dir/seg */
    uint8_t uuid[STORE_UUID_LEN]; /* the journal's */
    uint64_t segment_bytes_max;   /* 0: 64 MiB; from 64 KiB to 1 GiB. A larger page has a file of its own */
    /* All may be NULL; on the store's thread. */
    void (*on_turn)(void *arg); /* at the beginning of each turn: may submit */
    void (*on_done)(
        void *arg); /* there is something to take; may take. Called again in the next turn for what is left */
    void (*on_fault)(void *arg, int err, const char *sentence); /* a sentence without a newline, a loan */
    void *arg;
};

struct store_stats {
    uint64_t pages_written, pages_read, pages_failed; /* failed: writes and reads */
    uint64_t bytes_written, bytes_read, syncs;
    uint64_t segments; /* files that exist, as far as the store knows */
};

/* Makes dir/seg when it is absent; dir is there and locked (journal_open did both). 0, or a negative errno and a sentence
 * in why. Boot. */
MUST_USE int store_open(const struct store_options *options, struct store **ret, char *why, size_t why_len);

/* The journal names a live page in this segment that ends at end_offset. 0; -EILSEQ: the file is missing, not this store's
 * or too short (S4); -EPROTO: of a newer format; another negative errno of the disk; with a sentence in why. Any number of times per segment. Boot. */
MUST_USE int store_keep(struct store *store, uint32_t segment, uint64_t end_offset, char *why, size_t why_len);

/* After the whole journal was read without damage and every live segment was kept: removes the other segment files. 0 or a
 * negative errno with a sentence in why; a file that cannot be removed is no error. Boot. */
MUST_USE int store_sweep(struct store *store, char *why, size_t why_len);

/* Starts the store's thread. */
MUST_USE int store_start(struct store *store);

/* One turn: all reads that are queued, one drop, about 4 MiB of writes. True: it did something. Store. */
bool store_step(struct store *store);

/* Takes the job and NULLs the pointer. False: STORE_JOBS_MAX are under way; the job stays the caller's. Seen by the
 * store's thread after store_wake. Owner. */
MUST_USE bool store_submit(struct store *store, struct page_job **job);
/* The oldest finished job, the caller's; NULL: none. Owner. */
struct page_job *store_take(struct store *store);

/* While somebody holds no segment file is removed, though dropped; each on wants its off. Takes effect when store_held says
 * so. Any thread. */
void store_hold(struct store *store, bool on);
bool store_held(const struct store *store);

/* There may be something to do. No system call when the thread is awake. Any thread. */
void store_wake(struct store *store);

void store_stats(const struct store *store, struct store_stats *ret); /* Any thread. */

/* Finishes what was submitted and stops the thread; finished jobs can still be taken. Owner. */
void store_stop(struct store *store);

/* Frees all, jobs that nobody took included, and NULLs the pointer. Messages that were read must be gone, for their memory
 * is the store's; and what is left of write jobs holds messages of others' memory. So: store_stop, take and free what is
 * finished, free the broker, store_close. */
void store_close(struct store **store);

#endif
