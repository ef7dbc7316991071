/* query: a plan that runs: steps of records go in, rows come out of its last operator.
 *
 *   query_new ▸ query_begin | query_load ▸ { query_step | query_idle | query_advance | query_save }* ▸ query_free
 *
 * After a call that answers false the query has ended, and only query_free may be called (query_save changes nothing). One thread.
 */
#ifndef MILLRACE_SQL_QUERY_QUERY_H
#define MILLRACE_SQL_QUERY_QUERY_H

#include "sql/query/plan.h"
#include "sql/query/scratch.h"

struct query;

struct query_input {
    uint32_t source, partition;
    const struct slice *records; /* must outlive the call; ptr NULL: without a value, for a source that wants these */
    const int64_t *ts_us;        /* when each was appended; NULL: all at 0 */
    const uint64_t *offsets;     /* ascending; NULL: they follow one another from `offset` on */
    const struct slice *keys;    /* ptr NULL: it has none; NULL: none of them has */
    const struct slice *headers; /* as fmt/record_batch.h encodes them, without the count; NULL: none has any */
    uint64_t offset;             /* of the first */
    uint32_t rows;               /* at most BATCH_ROWS_MAX */
    /* What several queries want of these records, and which of the columns the source's are, in its order: then the values are not scanned again. For a
     * source of JSON that is no table. NULL: nobody has scanned them. */
    const struct scan_columns *scanned;
    const uint16_t *picks;
};

#define QUERY_STEP_MEMORY_MAX (64u << 20) /* what a step may take for its batches */

/* The statement is a query by itself (AST_RUN), which must outlive it, as the catalog's statements. state_max: bytes of all its operators.
 * Rows go to `sink`, which is the caller's. NULL: the error is set. */
MUST_USE struct query *query_new(const struct catalog *catalog, const struct ast *statement, size_t state_max,
                                 struct op *sink, struct sql_error *error);
void query_free(struct query **query);
/* What is beyond state_max goes to a file of that disk, a loan, as far as operators can do that (op.spill): at most so many bytes. Before its first step. */
void query_spill(struct query *query, const struct scratch_disk *disk, uint64_t max);
/* The columns of its rows; source i's name. */
const struct plan *query_plan(const struct query *query);
struct slice query_source(const struct query *query, uint32_t i); /* empty: there is none */
/* It wants records without a value, too: rows go by them. */
bool query_deletes(const struct query *query, uint32_t source);
/* Steps take their scratch from there, which ends with each of them and may be that of many queries of a thread: one that does nothing has none. It
 * must outlive the query, or the next query_lend. Not within a step. */
void query_lend(struct query *query, struct arena *scratch);
void query_divert(struct query *query, void (*divert)(void *arg, uint32_t origin, enum sql_fault fault), void *arg);

/* How many records a step should have at most, of so many: what they leave behind is a small part of its memory then, which is only made free between
 * steps. */
uint32_t query_rows(const struct query *query, uint32_t rows);
/* Whether it has rows before anything has come, as COUNT(*) of nothing is 0; query_begin gives them, of a fresh query, at that time. */
bool query_begins(const struct query *query);
MUST_USE bool query_begin(struct query *query, int64_t us, enum sql_fault *ret_fault);
/* False: *ret_fault says why the query has ended. */
MUST_USE bool query_step(struct query *query, const struct query_input *input, enum sql_fault *ret_fault);
/* The partition holds back no watermark until it has a row again. */
MUST_USE bool query_idle(struct query *query, uint32_t source, uint32_t partition, enum sql_fault *ret_fault);
/* Nothing that is older will come: the source's clocks are at least at that time. */
MUST_USE bool query_advance(struct query *query, uint32_t source, int64_t us, enum sql_fault *ret_fault);

/* The source has so many partitions: each holds back its watermark until it has had a row, or is idle. False: too many, or no memory. */
MUST_USE bool query_partitions(struct query *query, uint32_t source, uint32_t count);
/* Of the source, where it is used; TIME_NEVER: none yet. */
int64_t query_watermark(const struct query *query, uint32_t source);
/* No row has brought the source's clocks a time yet: what they say, if anything, query_advance has told them. */
bool query_untimed(const struct query *query, uint32_t source);
/* The latest of what the newest rows of its partitions have brought, as query_advance takes it; TIME_NEVER: none has. */
int64_t query_heard(const struct query *query, uint32_t source);
/* Its time is that at which rows arrive: it says nothing of when the events of others were. */
bool query_by_arrival(const struct query *query, uint32_t source);
/* The latest time to which query_advance moves nothing: the earlier of the source's clocks, which it moves all; TIME_NEVER: there is none. */
int64_t query_reached(const struct query *query, uint32_t source);
/* The watermark at which something comes out, though nothing comes in; INT64_MAX: none waits for time. */
int64_t query_due(const struct query *query);
/* The first of these that is beyond that watermark: what is due by then waits for another source. */
int64_t query_due_after(const struct query *query, int64_t watermark);

/* Snapshots (docs/decisions/0012): clocks, operators and, when it can be saved, the sink. Between steps. What failed the writer says. */
void query_save(const struct query *query, struct state_writer *w);
/* Of a fresh query of the same plan, on the same kind of sink: goes on as the saved one would. False: *error says why: another plan, by the name of
 * what differs; bytes that are damaged; no memory. */
MUST_USE bool query_load(struct query *query, struct state_reader *r, struct sql_error *error);
/* It remembers nothing: where its partitions have been read to is all that a restart needs. */
bool query_stateless(const struct query *query);

/* Operators count their time from now on (op.ns, from 0 on) by the caller's timer; NULL: no more. */
void query_time(struct query *query, struct op_timer *timer);
size_t query_state_bytes(const struct query *query);     /* in memory */
uint64_t query_spilled_bytes(const struct query *query); /* of its file */
/* What has become of its file: NONE, or why the query will end. */
enum sql_fault query_spill_fault(const struct query *query);
/* Late rows, and rows with faults, of all operators; faults of the sink, too. */
uint64_t query_late(const struct query *query);
uint64_t query_faults(const struct query *query);

#endif
