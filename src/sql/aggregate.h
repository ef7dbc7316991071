/* aggregate: COUNT, SUM, AVG, MIN, MAX, BOOL_AND, BOOL_OR: what they keep for a group, and how it changes with a row that comes (weight +1) or is
 * taken back (-1). NULLs do not count; FILTER has made NULLs of what it does not let through.
 *
 * A cell begins as zeroes and is given back with aggregate_fini. Sums of integers and decimals are exact whatever the order.
 */
#ifndef MILLRACE_SQL_AGGREGATE_H
#define MILLRACE_SQL_AGGREGATE_H

#include "sql/table.h"

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

struct aggregate {
    enum aggregate_kind kind;
    bool distinct;
    bool
        counted; /* every value is kept with how often it is there: of DISTINCT, and of MIN and MAX whose rows may be taken back */
    struct sql_type arg, type; /* type: of the result */
    uint32_t column;           /* of the argument in the operator's input */
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
    int64_t count;        /* values; of BOOL_AND and BOOL_OR in v.i64 those that are true */
    int64_t carry;        /* of v.whole beyond 128 bits */
    struct table *values; /* of what is counted */
};

/* By name, regardless of case. AGG_KINDS: none such. */
enum aggregate_kind aggregate_find(struct slice name);
/* The result's type, by PostgreSQL's rules; false: it does not take such an argument. */
MUST_USE bool aggregate_type(struct aggregate *a, bool retracts, const char **ret_why);
/* False: no memory. */
MUST_USE bool aggregate_add(const struct aggregate *a, struct account *account, struct cell *cell,
                            const struct column *c, uint32_t row, int weight);
/* All that `from` has seen, which stays as it is. False: no memory. */
MUST_USE bool aggregate_merge(const struct aggregate *a, struct account *account, struct cell *cell,
                              const struct cell *from);
void aggregate_fini(const struct aggregate *a, struct account *account, struct cell *cell);
/* A cell in a snapshot; load makes it of zeroes, and what it made has to be given back even when it answers false: no memory, or the reader has failed. */
void aggregate_save(const struct aggregate *a, const struct cell *cell, struct state_writer *w);
MUST_USE bool aggregate_load(const struct aggregate *a, struct account *account, struct cell *cell,
                             struct state_reader *r);
/* The value into `room` (16 bytes, a text is a view of the cell); NULL with *ret_fault NONE: it is NULL. */
const void *aggregate_value(const struct aggregate *a, const struct cell *cell, void *room, enum sql_fault *ret_fault);

#endif
