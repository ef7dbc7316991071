/* op_match_int: what the files of op_match share. A function that answers false has run out of memory, or what is behind has failed; step->fault
 * says which. */
#ifndef MILLRACE_SQL_QUERY_OP_MATCH_INT_H
#define MILLRACE_SQL_QUERY_OP_MATCH_INT_H

#include "sql/query/due.h"
#include "sql/query/kept.h"
#include "sql/query/op_match.h"
#include "sql/query/ordered.h"

/* A row that has been taken. Frames are told by their number plus 1. */
struct frame {
    struct kept *row;
    uint32_t variable, before, after;                 /* before, after: of the same variable */
    struct cell cells[] __attribute__((aligned(16))); /* aggregates of all rows up to this one */
};

struct choice {
    uint32_t pc, depth;
};

/* Of a partition. Its rows are a list, by kept.next and kept.prev; kept.end is a row's time, kept.number its place among the rows of all partitions. */
struct part {
    struct kept *oldest, *last;
    struct kept *start; /* where a match may begin, which is being found out; NULL: there is no such row */
    struct kept *heard; /* up to here a search that was not saved has been before; NULL: it is in no such place */
    uint32_t behind;    /* rows before start */
    uint32_t pending;   /* rows that are not used yet */
    bool queued;        /* in due */
    /* The search: where the program is, the rows that have been taken for it, what has not been tried. */
    uint32_t pc, depth, frame_room, choice_count, choice_room;
    uint8_t *frames; /* see match_frame */
    struct choice *choices;
    uint32_t ends[]; /* of each variable its first frame, then its last one */
};

struct match {
    struct op op;
    const struct match_rule *rule;
    struct sql_type *types, *outs; /* types: of the keys */
    uint32_t *kept_columns;
    struct kept_layout layout;
    struct table parts;
    struct ordered pending; /* struct waiting */
    struct due due;
    struct pieces pieces, entries;
    uint64_t number, used; /* rows that came; that have been used */
    int64_t credit;        /* steps that may be done now */
    struct column *lookups, *values;
    decimal_t *room; /* of lookups */
    struct regex_cache *regexes;
    size_t frame_len;
    bool told; /* that a condition could not be computed, since the last row or end */
    struct emitter m;
    struct arena scratch, once;
};

static inline struct part *part_of(struct entry *e)
{
    return (struct part *)(void *)e->bytes;
}

static inline struct frame *match_frame(const struct match *m, const struct part *p, uint32_t i)
{
    return (struct frame *)(void *)(p->frames + i * m->frame_len);
}

enum match_found { MATCH_WAITS, MATCH_NONE, MATCH_IS, MATCH_FAILED };

/* match_search.c */
/* Goes on until a row is needed that has not come. ended: none will come that could belong to it. */
enum match_found match_search(struct match *m, struct step *step, uint32_t origin, struct part *p, bool ended);
/* The values that the expression asks for, of the rows taken so far. *ret_column NULL: no memory. */
bool match_compute(struct match *m, struct step *step, const struct part *p, const struct match_value *value,
                   const struct column **ret, enum sql_fault *ret_fault);
/* Nothing is taken any more, and it is at its beginning. all: memory is given back, too. */
void match_restart(struct match *m, struct part *p, bool all);
/* Of the program: where a search stands means something for the same one only. */
uint64_t match_program(const struct match_rule *rule);
/* Where the search stands: whether that is there, else it is done again quietly; of each row from the start on the variable, the instruction, choices. */
void match_search_save(const struct match *m, const struct part *p, struct state_writer *w);
/* Of a partition whose rows are there, and heard of. same: of this program, else it is passed over. False: no memory, or the reader has failed. */
MUST_USE bool match_search_load(struct match *m, struct part *p, bool same, struct state_reader *r);

#endif
