/* op_match: MATCH_RECOGNIZE: rows of a partition, in the order of their times, that follow one another in a pattern; one row for each match.
 *
 * Input columns: the partition's keys, then what is ordered by (the first is the time), then values that are kept. Output: the keys, then measures.
 *
 * A row is used when the watermark has passed it; one that comes after that is late: counted, and not used. Decision 0013 says what a match is and what
 * is kept. The rule is lent, with all it points to, and must outlive the operator; types are copied. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_OP_MATCH_H
#define MILLRACE_SQL_QUERY_OP_MATCH_H

#include "sql/query/aggregate.h"
#include "sql/query/sort_key.h"

#define MATCH_VARIABLES_MAX 64u
#define MATCH_CODE_MAX 4096u    /* instructions of a pattern, after {n,m} has been written out */
#define MATCH_OFFSET_MAX 1000u  /* of FIRST, LAST, PREV */
#define MATCH_LOOKUPS_MAX 256u  /* different values of other rows that conditions and measures ask for */
#define MATCH_ANY UINT32_MAX    /* rows of whatever variable */
#define MATCH_STEPS_MAX 1000000 /* rows that are tried: so many at once … */
#define MATCH_STEPS_A_ROW 10000 /* … and so many for each row on average */

/* A pattern as a program. It is at an instruction with some rows taken; what it has not tried yet is a stack of others. */
enum match_op {
    MATCH_TAKE,  /* the next row is one of variable `to` */
    MATCH_SPLIT, /* go on at `to`; if nothing comes of that, at `other` */
    MATCH_JUMP,
    MATCH_END,
};

struct match_code {
    enum match_op op;
    uint32_t to, other;
};

enum match_from { MATCH_FIRST, MATCH_LAST, MATCH_AGGREGATE };

/* A value that a condition or a measure asks for: FIRST(A.x, 1), PREV(A.x), AVG(A.x). Expressions have it as column of that number. */
struct match_lookup {
    enum match_from from;
    uint32_t variable, offset; /* of the row; of an aggregate, its number is in offset */
    uint32_t back;             /* so many rows before that row, whatever they are */
    uint32_t kept;             /* the value of the row */
    struct sql_type type;
};

/* An expression over lookups, and which it asks for. */
struct match_value {
    struct expr *x;
    const uint32_t *lookups;
    uint32_t count;
};

struct match_condition {
    bool always, of_row; /* of_row: kept value `kept` says it */
    uint32_t kept;
    struct match_value value;
};

enum match_skip { MATCH_SKIP_PAST, MATCH_SKIP_NEXT, MATCH_SKIP_FIRST, MATCH_SKIP_LAST };

struct match_rule {
    const struct clock *clock;
    int64_t offset; /* rows to come have no less than the watermark + offset */
    int64_t within; /* between the first and the last row, us; -1: it does not matter */
    uint32_t keys, order_count, kept_count;
    struct sort_item order[32];
    const struct match_code *code;
    uint32_t code_count, variables;
    const struct match_condition *conditions; /* of each variable */
    const struct match_lookup *lookups;
    uint32_t lookup_count;
    const struct aggregate *aggregates; /* columns are kept values */
    const uint32_t *aggregate_of;       /* variables */
    uint32_t aggregate_count;
    const struct match_value *measures;
    uint32_t measure_count;
    uint32_t back; /* rows in front of a match that conditions and measures ask for */
    enum match_skip skip;
    uint32_t skip_to;
};

/* Types of all input columns, and of the output's. NULL: no memory. */
MUST_USE struct op *op_match_new(struct budget *budget, const struct match_rule *rule, const struct sql_type *types,
                                 uint32_t type_count, const struct sql_type *outs);

#endif
