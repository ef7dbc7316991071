/* spill_run: entries of an operator's table in a scratch file, in the order of their hashes; written once, then entries are taken out one by one.
 *
 *   run_begin ▸ run_add* ▸ run_end ▸ { run_find ▸ run_drop | cursor }* ▸ run_free
 *
 * In memory stay two bytes an entry (its mark: some bits of its hash, 0 when it has been taken out), and where each page begins: some 4 KiB of entries.
 * So nearly every look for what is not there reads nothing, and one for what is reads a page. All that is in memory is counted in the account.
 * One thread; a failure is in the scratch's fault.
 */
#ifndef MILLRACE_SQL_QUERY_SPILL_RUN_H
#define MILLRACE_SQL_QUERY_SPILL_RUN_H

#include "sql/query/op.h"
#include "sql/query/scratch.h"

#define RUN_UNTIL 2u

/* In front of an entry's key and bytes, as it stands in the file, which only this process reads. */
struct run_entry {
    uint64_t hash;
    int64_t until[RUN_UNTIL]; /* the operator's: when nobody wants it any more */
    uint32_t key_len, len, sum, spare;
};

struct run_page {
    uint64_t hash, at; /* of its first entry */
    uint32_t first;    /* number of that */
};

struct spill_run {
    struct spill_run *next;
    struct account *account;
    struct scratch_file *scratch;
    uint32_t *blocks;
    struct run_page *pages;
    uint16_t *marks;
    uint32_t block_count, block_room, page_count, page_room, count, room, live;
    uint32_t given; /* of the blocks, the first ones: back already */
    unsigned level; /* how often its entries were merged */
    uint64_t len;
    int64_t until[RUN_UNTIL]; /* the greatest of all */
};

struct run_writer {
    struct spill_run *run;
    uint8_t *block;
    size_t used;
};

/* False: no memory. run_end or run_abort must follow. */
MUST_USE bool run_begin(struct run_writer *w, struct account *account, struct scratch_file *scratch,
                        uint32_t entries_max);
/* By ascending hash. head's sum is set. False: it failed. */
MUST_USE bool run_add(struct run_writer *w, struct run_entry *head, struct slice key, struct slice bytes);
/* Yours; NULL: it failed, or nothing was added (then fault is NONE). */
struct spill_run *run_end(struct run_writer *w);
void run_abort(struct run_writer *w);
void run_free(struct spill_run **run);
/* Bytes that it takes in memory. */
size_t run_memory(const struct spill_run *run);

/* Memory for an entry that is read. */
struct run_room {
    uint8_t *bytes;
    size_t len;
};

void run_room_fini(struct run_room *room);

/* The entry with that key; *ret_key and *ret_bytes are in the room. False: it is not there, or it failed. */
MUST_USE bool run_find(struct spill_run *run, struct slice key, uint64_t hash, struct run_room *room,
                       struct slice *ret_bytes, uint32_t *ret_number);
void run_drop(struct spill_run *run, uint32_t number);

/* Goes through what is there. */
struct run_cursor {
    struct spill_run *run;
    bool eats;          /* blocks behind it are given back: nobody else looks into the run any more */
    uint8_t *block;     /* one of the run's */
    uint32_t block_idx; /* UINT32_MAX: none yet */
    uint64_t at;
    uint32_t number;       /* of the entry at `at` */
    struct run_entry head; /* of the current one */
    struct slice key, bytes;
    struct run_room room;
    bool
        no_memory; /* it has ended before the run's end, which is as it was: who goes through it says what that means */
};

/* False: no memory. cursor_fini must follow. */
MUST_USE bool cursor_init(struct run_cursor *c, struct spill_run *run, bool eats);
/* The next one: head, key and bytes are set until the next call. False: there is none, it failed, or no_memory. */
MUST_USE bool cursor_next(struct run_cursor *c);
void cursor_fini(struct run_cursor *c);

#endif
