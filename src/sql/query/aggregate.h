/* aggregate: COUNT, SUM, AVG, MIN, MAX, BOOL_AND, BOOL_OR: what they keep for a group, and how it changes with a row that comes (weight +1) or is
 * taken back (-1). NULLs do not count, and rows for which FILTER's condition is not true.
 *
 * A cell begins as zeroes and is given back with aggregates_fini. Sums of integers and decimals are exact whatever the order.
 */
#ifndef MILLRACE_SQL_QUERY_AGGREGATE_H
#define MILLRACE_SQL_QUERY_AGGREGATE_H

#include "sql/query/value_set.h"

enum aggregate_kind {
    AGG_COUNT_ALL,
    AGG_COUNT,
    AGG_SUM,
    AGG_AVG,
    AGG_MIN,
    AGG_MAX,
    AGG_BOOL_AND,
    AGG_BOOL_OR,
    AGG_KINDS
};

#define NO_FILTER UINT32_MAX

struct aggregate {
    enum aggregate_kind kind;
    bool distinct;
    /* Every value is kept in a set: of DISTINCT, and of MIN and MAX whose rows may be taken back. */
    bool counted, retracts;
    struct sql_type arg, type; /* type: of the result */
    uint32_t column;           /* of the argument in the operator's input */
    uint32_t filter;           /* of the condition; NO_FILTER: there is none */
    uint32_t leader, bit; /* of what is counted: which aggregate has the set, and the member of it that this one is */
    uint32_t members;     /* of a leader */
};

struct cell {
    union {
        decimal_t whole;
        double real;
        int64_t i64;
        struct {
            uint8_t *ptr;
            uint64_t len;
        } text; /* owned */
        uint8_t bytes[16];
    } v;
    int64_t count;            /* values; of BOOL_AND and BOOL_OR in v.i64 those that are true */
    int64_t carry;            /* of v.whole beyond 128 bits */
    struct value_set *values; /* of a leader */
};

/* By name, regardless of case. AGG_KINDS: none such. */
enum aggregate_kind aggregate_find(struct slice name);
/* Names that may have been meant. */
void aggregate_nearest(struct nearest *nearest);
/* The result's type, by PostgreSQL's rules; false: it does not take such an argument. */
MUST_USE bool aggregate_type(struct aggregate *a, bool retracts, const char **ret_why);
/* Says which of the operator's aggregates share a set of values: those over the same column. */
void aggregates_share(struct aggregate *all, uint32_t count);
/* A row of the operator's input comes or goes. False: no memory, or a value is too long (*ret_fault); then some cells may have it and others not. */
MUST_USE bool aggregates_add(const struct aggregate *all, uint32_t count, struct account *account, struct cell *cells,
                             const struct column *columns, uint32_t row, int weight, enum sql_fault *ret_fault);
/* All that `from` has seen, which stays as it is. False: no memory. */
MUST_USE bool aggregates_merge(const struct aggregate *all, uint32_t count, struct account *account, struct cell *cells,
                               const struct cell *from);
void aggregates_fini(const struct aggregate *all, uint32_t count, struct account *account, struct cell *cells);
/* Cells in a snapshot; load makes them of zeroes, and what it made has to be given back even when it answers false: no memory, or the reader has failed. */
void aggregates_save(const struct aggregate *all, uint32_t count, const struct cell *cells, struct state_writer *w);
MUST_USE bool aggregates_load(const struct aggregate *all, uint32_t count, struct account *account, struct cell *cells,
                              struct state_reader *r);
/* The value into `room` (16 bytes, a text is a view of the cell); NULL with *ret_fault NONE: it is NULL. */
const void *aggregate_value(const struct aggregate *a, const struct cell *cell, void *room, enum sql_fault *ret_fault);

#endif
