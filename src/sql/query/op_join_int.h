/* op_join_int: what the files of a join share: op_join.c takes rows in, runs steps and pushes pairs; op_join_match.c keeps rows and finds partners;
 * op_join_state.c saves and loads. */
#ifndef MILLRACE_SQL_QUERY_OP_JOIN_INT_H
#define MILLRACE_SQL_QUERY_OP_JOIN_INT_H

#include "sql/query/due.h"
#include "sql/query/kept.h"
#include "sql/query/op_join.h"
#include "sql/query/spill.h"

#define PAIRS 256u

struct chain {
    struct kept *first, *last;
};

/* What an entry of the table holds. */
struct chains {
    struct chain of[2];
};

/* Rows that one push took in; in the step's arena. */
struct taken {
    struct taken *next;
    uint32_t count;
    struct kept **rows;
    struct slice *keys; /* ptr NULL: it matches nothing */
    uint64_t *hashes;
    uint16_t *origins;
    const int8_t *weights; /* NULL: +1 */
};

struct side {
    const struct join_side *rule;
    struct kept_layout layout;
    struct due due;
    uint32_t gone; /* in due, but not in the table */
    bool waits;    /* rows without a partner are given out when they end */
    struct taken *first, *last;
};

struct join;

struct join_input {
    struct op op;
    struct join *join;
    unsigned side;
};

struct join {
    struct op op;
    struct join_input inputs[2];
    const struct join_rule *rule;
    struct side sides[2];
    struct pieces pieces;
    struct table table;
    struct spill spill; /* of the table, unless rows are given out when they end: then their ends are looked for */
    struct kept *garbage;
    uint64_t number; /* of the next row that is kept */
    bool settles;    /* a left row with a partner needs no more */
    struct arena step, out;
    uint32_t pair_count;
    struct kept *pairs[2][PAIRS];
    uint16_t origins[PAIRS];
    int8_t weights[PAIRS];
};

static inline struct chains *chains_of(struct entry *e)
{
    return (struct chains *)(void *)e->bytes;
}

/* The clock by which the side's rows end. */
static inline int64_t clock_of(const struct side *s, uint32_t origin)
{
    return s->rule->clock ? clock_before(s->rule->clock, origin) : TIME_NEVER;
}

/* op_join.c */
/* A pair, or a row by itself (other NULL), to be pushed. False: the step has failed. */
bool join_give(struct join *j, struct step *step, unsigned side, struct kept *own, struct kept *other, uint32_t origin,
               int weight);

/* op_join_match.c */
/* A row comes, or is taken back. False: the step has failed. */
bool join_handle(struct join *j, struct step *step, unsigned side, const struct taken *t, uint32_t i);
/* Gives out what has ended without a partner before the row at `origin`: by origin, of the same one the left side first. */
bool join_give_ended(struct join *j, struct step *step, uint32_t origin);
/* Lets go of what has ended by the end of the step. */
void join_drop_ended(struct join *j, const struct step *step);
void join_free_garbage(struct join *j);
/* Its end, its number and its matches are set. False: no memory. */
MUST_USE bool join_keep(struct join *j, unsigned side, struct kept *row, struct entry *e);

/* op_join_state.c */
void join_save(const struct op *op, struct state_writer *w);
bool join_load(struct op *op, struct state_reader *r);
extern const struct spill_kind join_spill_kind;

#endif
