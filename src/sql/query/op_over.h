/* op_over: functions over frames: SUM(x) OVER (PARTITION BY … ORDER BY … ROWS | RANGE BETWEEN … PRECEDING AND CURRENT ROW), values
 * of one row of the frame, LAG and LEAD.
 *
 * Input columns: the partition's keys, then what is ordered by, then arguments and conditions, then what is passed on. Output: the results, then
 * what is passed on.
 *
 * With a clock, which is that of the first value that is ordered by, a row is used when the watermark has passed it: in the order of times, once, and
 * nothing is taken back; a row that comes after that is late: counted, and not used. Without, a row is used as it comes, and every row whose
 * frame it changes is pushed with weight -1 as it was and with 1 as it is; all rows are kept.
 */
#ifndef MILLRACE_SQL_QUERY_OP_OVER_H
#define MILLRACE_SQL_QUERY_OP_OVER_H

#include "sql/query/aggregate.h"
#include "sql/query/sort_key.h"

#define OVER_NO_ARG UINT32_MAX
#define OVER_ROWS_MAX 100000u       /* of a frame */
#define OVER_CHANGED_ROWS_MAX 1000u /* without a clock */

struct over_rule {
    const struct clock *clock; /* NULL: as rows come */
    int64_t offset;            /* rows to come have no less than the watermark + offset */
    bool rows;                 /* ROWS; else RANGE, in which rows that are equal in the order see one another */
    bool unbounded;            /* from the first row on: with a clock only */
    bool descending;           /* what RANGE measures */
    uint32_t ahead;            /* so many rows behind it a row looks at: OVER_AFTER */
    int64_t reach;             /* rows, or how far the first value that is ordered by may be away */
};

enum over_which { OVER_BEFORE, OVER_AFTER, OVER_FIRST, OVER_LAST, OVER_NTH };

/* A value of one row. OVER_AFTER is there without a clock only. */
struct over_pick {
    enum over_which which;
    uint32_t rows;      /* so many before or behind; the nth of the frame, from 1 */
    uint32_t arg;       /* the value, */
    uint32_t otherwise; /* and that of the row itself which it is when there is no such row; OVER_NO_ARG: NULL */
};

/* Arguments count from the first one. There are aggregates or picks, and without a clock both may be: their results come in this order. */
struct over_columns {
    uint32_t keys, order_count, arg_count;
    const struct sort_item *order;
    const struct aggregate *aggregates;
    uint32_t aggregate_count;
    const struct over_pick *picks;
    uint32_t pick_count;
};

/* Types of all input columns, and of the results. All is copied. NULL: no memory. */
MUST_USE struct op *op_over_new(struct budget *budget, const struct over_rule *rule, const struct over_columns *columns,
                                const struct sql_type *types, uint32_t type_count, const struct sql_type *results);

#endif
