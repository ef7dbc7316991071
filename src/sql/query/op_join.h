/* op_join: rows of two inputs that belong together: those with equal keys that pass all tests.
 *
 * Each side's rows are kept by key, and every row that comes is held against those that the other side keeps. A bound is known by which rows of
 * a side end: "when the clock is beyond this value of the row, no row on time can match it any more"; then it goes. What comes out is what a
 * join over all rows on time gives, whatever the order of the two sides. A row that is not on time is matched with what is still kept; when it
 * has ended, too, it is late: counted, and not used.
 *
 * A row without a partner is given out with NULLs (outer), or as it is (anti): with changes false when it has ended, else at once, and taken
 * back when a partner comes. Semi and anti are about the left side's rows; the right side gives no columns.
 *
 * Input columns of a side: the keys, then what else the rule names. A key that is NULL matches nothing.
 */
#ifndef MILLRACE_SQL_QUERY_OP_JOIN_H
#define MILLRACE_SQL_QUERY_OP_JOIN_H

#include "sql/query/op.h"

#define JOIN_BOUNDS_MAX 16u
#define JOIN_TTL_NONE INT64_MAX

/* Column's value + offset against a clock. */
struct join_bound {
    const struct clock *clock;
    uint32_t column;
    int64_t offset;
};

struct join_side {
    uint32_t key_count;
    const uint32_t *kept; /* columns of the input that are kept */
    const struct sql_type *types;
    uint32_t kept_count;
    /* It is over when one of these is before the clock; all of the same clock. None: when ttl is over, which counts from the coming of the
     * row, by that clock. */
    struct join_bound ends[JOIN_BOUNDS_MAX];
    uint32_t end_count;
    const struct clock *clock; /* NULL: rows are kept for ever */
    int64_t ttl;
    /* A row on time has none of these before its clock: what the other side's ends rely on. */
    struct join_bound promises[JOIN_BOUNDS_MAX];
    uint32_t promise_count;
    bool outer, retracts; /* retracts: rows may come with weight -1 */
};

enum join_op { JOIN_EQ, JOIN_NE, JOIN_LT, JOIN_LE, JOIN_GT, JOIN_GE };

/* left op right, of kept columns. */
struct join_test {
    enum join_op op;
    enum sql_form form; /* BOOL, I64, I128 or TEXT */
    uint32_t left, right;
};

struct join_out {
    unsigned side;
    uint32_t kept;
};

struct join_rule {
    struct join_side sides[2]; /* left, right */
    const struct join_test *tests;
    uint32_t test_count;
    const struct join_out *outs;
    uint32_t out_count;
    bool lookup; /* left rows are not kept, and right rows, which are, say nothing when they come */
    bool semi, anti, changes, weighted; /* weighted: what comes out may have weight -1 */
};

/* The rule and all it points at must outlive it. NULL: no memory. */
MUST_USE struct op *op_join_new(struct budget *budget, const struct join_rule *rule);
/* Where a side's rows are pushed: 0 the left, 1 the right. It is a part of the join. */
struct op *op_join_input(struct op *join, unsigned side);

#endif
