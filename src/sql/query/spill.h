/* spill: what an operator keeps by key, beyond the memory of its query (docs/decisions/0014): entries of its table that go to the query's scratch file and
 * come back when their key is asked for. An entry is in memory or in the file, never in both.
 *
 *   spill_init ▸ { spill_find | spill_save }* ▸ spill_fini, and spill_relieve between steps
 *
 * For operators whose rows do not depend on the order of their table. Nothing is written as long as the query has memory: then spill_find is
 * table_find. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_SPILL_H
#define MILLRACE_SQL_QUERY_SPILL_H

#include "sql/query/spill_run.h"
#include "sql/query/table.h"

/* What an operator says of its entries. */
struct spill_kind {
    /* What the payload stands for, as in the operator's snapshot behind the key. until, at INT64_MAX: when it is of no use any more. */
    void (*save)(struct op *op, struct entry *e, struct state_writer *w, int64_t until[RUN_UNTIL]);
    /* Of a payload of zeroes. False: no memory, or (the reader has failed) damage. */
    bool (*load)(struct op *op, struct entry *e, struct state_reader *r);
    void (*drop)(struct op *op, struct entry *e); /* what the payload owns */
    void (*leave)(struct op *op); /* nothing else may point at what entries own: they go. NULL: nothing does */
    bool (*over)(const struct op *op, const int64_t until[RUN_UNTIL]); /* NULL: never */
};

struct spill {
    struct spill *next; /* of the query's */
    struct op *op;
    struct table *table; /* NULL: not there yet */
    const struct spill_kind *kind;
    struct spill_run *runs;
    struct run_room room;
    uint64_t out, back; /* entries that have gone, and come back */
};

/* The operator's account must have its budget. op->spill is this from now on, unless the kind is NULL: then all stays in memory. */
void spill_init(struct spill *s, struct op *op, struct table *table, const struct spill_kind *kind);
void spill_fini(struct spill *s);

MUST_USE bool spill_bring(struct spill *s, struct slice key, uint64_t hash, struct entry **ret,
                          enum sql_fault *ret_fault);

/* The key's entry, from wherever it is; *ret NULL: there is none. False: it cannot be had. */
static inline bool spill_find(struct spill *s, struct slice key, uint64_t hash, struct entry **ret,
                              enum sql_fault *ret_fault)
{
    struct entry *e = table_find(s->table, key, hash);
    if (e && !e->touched)
        e->touched = 1;
    *ret = e;
    return e || !s->runs || spill_bring(s, key, hash, ret, ret_fault);
}

/* Entries in the file; some of them may be over. */
uint64_t spill_count(const struct spill *s);
/* Writes them all, key and payload, as the operator's save would; failure is the writer's. */
void spill_save(struct spill *s, struct state_writer *w);

/* All entries go but those that were found since they are in memory, as far as they are few. Between steps. False: the query has ended. */
MUST_USE bool spill_out(struct spill *s, enum sql_fault *ret_fault);

/* When four fifths of the memory are used: the operators that hold most write what they have not needed of late, until a half is. Between steps, or
 * between entries that are loaded: nobody may hold an entry. False: the query has ended. */
MUST_USE bool spill_relieve(struct budget *budget, enum sql_fault *ret_fault);

#endif
