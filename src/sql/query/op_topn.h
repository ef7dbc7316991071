/* op_topn: the first rows of each partition in an order: ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) with a condition rn <= n, and DISTINCT ON; those
 * whose RANK() or DENSE_RANK() is at most n, which may be more.
 *
 * Input columns: the partition's keys, then (with time) the time, then what is ordered by, then what is given out. Output: the row's number, 1 …
 * limit (NULL unless it is asked for), then what is given out.
 *
 * With changes true, a row that comes among the first ones is pushed with weight 1, one that falls out of them with -1, and when numbers are asked
 * for, each that changes its number with both; with false, the first rows of a time are pushed once, when the watermark says that it is complete.
 */
#ifndef MILLRACE_SQL_QUERY_OP_TOPN_H
#define MILLRACE_SQL_QUERY_OP_TOPN_H

#include "sql/query/op_aggregate.h"
#include "sql/query/sort_key.h"

#define TOPN_MAX 10000u

enum topn_ranking { RANKING_ROW, RANKING_RANK, RANKING_DENSE };

struct topn_rule {
    enum topn_ranking ranking;
    struct span_rule span;  /* SPAN_NONE, or SPAN_VALUE: the time is one of the keys */
    bool changes, retracts; /* retracts: rows that come may be taken back, so all are kept */
    bool ranked;            /* somebody asks for the numbers */
    bool newest_first;      /* of rows that are equal in the order; for RANKING_ROW only */
    uint32_t limit;         /* 1 … TOPN_MAX */
};

/* Types of all input columns, of which `keys` are the partition's, `order_count` what is ordered by. All is copied. NULL: no memory. */
MUST_USE struct op *op_topn_new(struct budget *budget, const struct topn_rule *rule, const struct sql_type *types,
                                uint32_t type_count, uint32_t keys, const struct sort_item *order,
                                uint32_t order_count);

#endif
