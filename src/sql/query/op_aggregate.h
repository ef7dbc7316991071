/* op_aggregate: GROUP BY: over windows of event time, or without end.
 *
 * Input columns: the keys, then (with time) the time, then the arguments. Output: the keys, then (of TUMBLE, HOP, CUMULATE) window_start and
 * window_end, then the aggregates.
 *
 * With changes false, what belongs to a time is pushed once, when the watermark says that it is complete; with true, every row that
 * changes a group pushes the old row with weight -1 and the new one. A row whose last window is complete is late: counted, and not used.
 */
#ifndef MILLRACE_SQL_QUERY_OP_AGGREGATE_H
#define MILLRACE_SQL_QUERY_OP_AGGREGATE_H

#include "sql/query/aggregate.h"

enum span_kind {
    SPAN_NONE,  /* no time: changes only */
    SPAN_VALUE, /* the time itself is a key: complete when the watermark + offset has passed it */
    SPAN_TUMBLE,
    SPAN_HOP,
    SPAN_CUMULATE,
    SPAN_SESSION, /* op_session.h */
};

struct span_rule {
    enum span_kind kind;
    int64_t size, slide, offset; /* us; slide: also CUMULATE's step, which divides size */
    int64_t shift;               /* of windows: rows to come have no less than the watermark + shift */
    const struct clock *clock;
};

/* t + us, or the last time there is in that direction. */
static inline int64_t time_plus(int64_t t, int64_t us)
{
    int64_t sum;
    return __builtin_add_overflow(t, us, &sum) ? (us < 0 ? INT64_MIN : INT64_MAX) : sum;
}

/* What no row to come is below. */
static inline int64_t span_watermark(const struct span_rule *rule, int64_t watermark)
{
    return watermark == TIME_NEVER ? TIME_NEVER : time_plus(watermark, rule->shift);
}

/* Types: of the output's columns. All is copied. NULL: no memory. */
MUST_USE struct op *op_aggregate_new(struct budget *budget, const struct span_rule *rule, bool changes,
                                     const struct sql_type *types, uint32_t type_count, uint32_t keys,
                                     const struct aggregate *aggregates, uint32_t count);

#endif
