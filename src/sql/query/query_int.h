/* query_int: what the files of query share: a plan that runs, and its clocks.
 *
 * False is always no memory, or more partitions than a clock has room for, but for query_flush.
 */
#ifndef MILLRACE_SQL_QUERY_QUERY_INT_H
#define MILLRACE_SQL_QUERY_QUERY_INT_H

#include "sql/query/query.h"

struct query {
    struct plan plan;
    struct arena arena, own;
    struct arena *scratch; /* of a step: its own, or lent */
    struct scan *scans[PLAN_SOURCES_MAX];
    struct regex_cache *regexes; /* of the clocks */
    struct op *sink;
    struct step step;
    struct scratch_file beyond; /* its memory */
};

/* Everything is flushed, and what was lent to the clocks for the step goes. s: whose clocks have moved; NULL: none have. False: *ret_fault says why the query
 * has ended. */
bool query_flush(struct query *q, struct source *s, enum sql_fault *ret_fault);

/* The source's clocks go on by the rows of the selection; what they say before each row is in the step's scratch. */
bool query_clocks_run(struct query *q, struct source *s, struct eval *e, struct sel sel, const struct query_input *in);

void clock_fini(struct clock *c); /* NULL: nothing */
void clock_save(const struct clock *c, struct state_writer *w);
bool clock_load(struct clock *c, struct state_reader *r);

#endif
