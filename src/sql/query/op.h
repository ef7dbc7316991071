/* op: operators of a running query: what all of them share. A chain runs to completion: a batch that is pushed into an operator has been
 * handled by all behind it when the push returns, so a batch and what it points to is valid until then only.
 *
 * Time. A step is one batch of one source. Every row in a batch, whatever operator made it, has an origin: the row of the step by which it
 * came about. A clock says for each origin what the watermark was before that row; no operator looks at time in another way. So what
 * comes out depends on the rows and their order, not on where one batch ends. Rows of a batch have ascending origins, and no
 * operator pushes a row whose origin is before one it has pushed. After its rows every step is flushed once.
 *
 * Several inputs. One source may feed several chains, which are run one after the other; where they meet again, an operator with more than one
 * input is pushed all of a step's rows of one input, then all of the next. So it only takes them in, and works when it is flushed, which
 * happens once, after the flush of the last of its inputs: then it goes through the rows by origin, of the same origin first those of the
 * left input, and so pushes rows with ascending origins itself. What it pushes is what it would push if every row was a step of its own.
 *
 * A push or a flush that answers false has set step->fault; the query has ended, its state means nothing any more. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_OP_H
#define MILLRACE_SQL_QUERY_OP_H

#include "sql/language/eval.h"
#include "sql/language/regex.h"
#include "sql/query/state.h"

#define EMIT_ROWS 256u /* of a batch that an operator makes */
#define OP_OUTPUTS_MAX 32u
#define TIME_NEVER INT64_MIN

/* Event time of a source: no row that is on time has less than the watermark. */
struct clock {
    uint32_t source;
    struct expr *expr; /* of a scanned row: the watermark it brings */
    bool used;
    int64_t delay;       /* us that are taken off: EMIT … WITH DELAY */
    int64_t now;         /* watermark after the last step; TIME_NEVER: none yet */
    const int64_t *at;   /* in a step of its source: at[i] is before row i, at[rows] after the last one; else NULL */
    int64_t *partitions; /* the newest of each partition */
    uint8_t *idle;
    uint32_t partition_count;
    /* Or it is the earlier of two others, of rows that come about by both. NULL: it is a source's own. */
    const struct clock *of[2];
};

/* Where time goes, while somebody wants to know: a query has one or none. */
struct op_timer {
    mono_t (*now)(void *arg);
    void *arg;
    int64_t inner; /* ns of what the operator that is timed now has pushed into */
};

struct step {
    uint32_t rows;
    struct op_timer *timer; /* NULL: nothing is timed */
    const int64_t *ts_us;   /* when each was appended; NULL: it is not known, or no row came */
    bool begins;            /* no row has come yet, so nobody knows the time that anything waits for */
    enum sql_fault fault;
    /* A row that cannot be computed, with the origin it came from. */
    void (*divert)(void *arg, uint32_t origin, enum sql_fault fault);
    void *divert_arg;
};

struct batch {
    struct arena *arena; /* for what is computed from it */
    const struct column *columns;
    uint32_t column_count, rows;
    struct sel sel;
    const int8_t *weights;   /* +1, -1 (a retraction) of each row; NULL: +1 */
    const uint16_t *origins; /* NULL: row i is from row i */
};

static inline uint32_t batch_origin(const struct batch *b, uint32_t row)
{
    return b->origins ? b->origins[row] : row;
}

static inline int batch_weight(const struct batch *b, uint32_t row)
{
    return b->weights ? b->weights[row] : 1;
}

static inline int64_t clock_before(const struct clock *c, uint32_t origin)
{
    return c->at ? c->at[origin] : c->now;
}

/* The row of the step after which the watermark was that far; it is by the end of the step. */
uint32_t clock_origin(const struct clock *c, const struct step *step, int64_t time);

/* Bytes of state, of a query and of one operator. */
struct budget {
    size_t used, max;
    struct scratch_file *scratch; /* where what is beyond it goes (sql/query/spill.h); NULL: nowhere, the query fails */
    struct spill *spills;         /* of the operators that can make use of it */
    uint64_t seed;                /* of its hash tables; what comes out does not depend on it */
};

struct account {
    struct budget *budget;
    size_t used;
};

/* NULL: no memory, or beyond the budget. */
MUST_USE void *account_take(struct account *account, size_t len);
void account_give(struct account *account, void *ptr, size_t len);

struct op;

struct op_kind {
    const char *name;
    bool (*push)(struct op *op, struct step *step, const struct batch *batch);
    bool (*flush)(struct op *op, struct step *step); /* NULL: nothing but passing it on */
    void (*fini)(struct op *op);                     /* frees what is in it; NULL: nothing */
    /* Snapshots, see sql/query/state.h. Both NULL: it remembers nothing. load, of a fresh operator: false is a fault, of memory or damage. */
    void (*save)(const struct op *op, struct state_writer *w);
    bool (*load)(struct op *op, struct state_reader *r);
    /* Pushes what it gives of no rows at all, before its first one. NULL: nothing. */
    bool (*begin)(struct op *op, struct step *step);
    /* The watermark at which it pushes rows though nothing comes; INT64_MAX: none. NULL: it never does. */
    int64_t (*due)(const struct op *op);
};

struct op {
    const struct op_kind *kind;
    struct op *outputs[OP_OUTPUTS_MAX];
    uint32_t output_count, input_count, inputs_flushed;
    struct account account;
    struct spill *spill; /* NULL: all it keeps stays in memory */
    uint64_t rows_in, rows_out, late, faults;
    int64_t ns; /* of its own, while the query was timed */
};

bool op_push(struct op *op, struct step *step, const struct batch *batch); /* into it */
bool op_flush(struct op *op, struct step *step);
bool op_pass(struct op *op, struct step *step, const struct batch *batch); /* to all behind it */
bool op_fail(struct step *step, enum sql_fault fault);                     /* false */
/* Diverts the batch's rows that have faults, and takes them out of the selection. False: no memory. */
bool op_divert(struct op *op, struct step *step, struct eval *e, const struct batch *from, struct sel *sel);

/* Collects rows one by one and pushes them as batches. Texts that are set are views, and must stay until emit_end. */
struct emitter {
    struct op *op;
    struct arena arena;
    const struct sql_type *types;
    uint32_t column_count, rows;
    bool weighted;
    struct column *columns;
    int8_t *weights;
    uint16_t *origins;
};

void emit_init(struct emitter *m, struct op *op, const struct sql_type *types, uint32_t count, bool weighted);
void emit_fini(struct emitter *m);
/* A row to be filled in, whose number is m->rows - 1; all columns are NULL. False: no memory, or what is behind has failed. */
MUST_USE bool emit_row(struct emitter *m, struct step *step, uint32_t origin, int weight);
/* So many rows will be in one batch. False: what is behind has failed. */
MUST_USE bool emit_room(struct emitter *m, struct step *step, uint32_t rows);
void emit_set(struct emitter *m, uint32_t column, const void *value);
/* The same with the bytes of a text copied. False: no memory. */
MUST_USE bool emit_set_copy(struct emitter *m, struct step *step, uint32_t column, const void *value);
void emit_drop(struct emitter *m, uint32_t rows); /* the last ones */
/* Whether the last two rows have the same values. */
bool emit_same(const struct emitter *m);
MUST_USE bool emit_end(struct emitter *m, struct step *step);

/* What a source pushes into: passes all on. NULL: no memory. */
struct op *op_scan_new(struct budget *budget);
/* Filter and projection: rows for which all conditions are true, with these values. The expressions are its own: they are changed. */
struct op *op_project_new(struct budget *budget, struct expr **conditions, uint32_t condition_count,
                          struct expr **items, uint32_t item_count);
void op_free(struct op **op); /* this one only */

#endif
