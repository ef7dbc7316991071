/* output: the sink of a query: its rows as JSON objects, in record batches for a stream, or as messages for a queue or an exchange.
 *
 *   output_new ▸ query_new (…, output_op) ▸ output_bind ▸ { query_step … ▸ output_cut ▸ output_take … }* ▸ query_free ▸ output_free
 *
 * Values. An object with the select list's names: numbers and decimals as digits, "NaN", "Infinity" and "-Infinity" as strings; booleans; dates and
 * times as ISO 8601, timestamps in UTC with a Z; bytes as base64; JSON, arrays, maps and rows as they stand; intervals, texts and all else as
 * strings; NULL as null.
 *
 * Changes. When the query takes rows back (plan->retracts), a target with a key is written as a table is: a row that comes is a record with its
 * key, a row that goes is a record without a value, but only when no row with that key follows in what the same input row caused; so an update is one
 * record. Rows of a key have to be one at a time, as those of a GROUP BY key are; a key with a NULL is a row with a fault (NOT_NULL). Without a key
 * each object begins with "_op": "+" or "-". What never takes rows back has neither.
 *
 * Keys. Of one column: its text as it would stand in the object, a string without quotes and escapes, NULL as a record without key. Of several: a
 * JSON object of them. The partition is what Kafka's clients choose (murmur2); records without a key take turns in runs of OUTPUT_STICKY.
 *
 * Place. Rows that came to the sink are counted from the query's beginning (the count is part of query_save): that is what partitions of records
 * without key are chosen by, and what says in a trail how far outputs have been given. Below the place of output_open rows are counted and
 * nothing else, so that a replay gives nothing twice. A row's timestamp is that of the record that caused it, or of the one before a tick.
 *
 * What a row needs is encoded in place; nothing is allocated but the messages, one for each batch. One thread, with its slab heap.
 */
#ifndef MILLRACE_SQL_QUERY_OUTPUT_H
#define MILLRACE_SQL_QUERY_OUTPUT_H

#include "core/query.h"
#include "sql/query/query.h"

#define OUTPUT_KEYS_MAX 16u
#define OUTPUT_STICKY 256u               /* records without key, then the next partition has its turn */
#define OUTPUT_BATCH_BYTES (256u * 1024) /* of a record batch; a record that is larger is one by itself */
#define OUTPUT_BATCH_ROWS 4096u
#define OUTPUT_ROW_BYTES_MAX (1u << 20) /* an object that is longer is a row with a fault (LIMIT) */

/* Where it goes and by which rule; slices and names are lent as long as the output lives. */
struct output_target {
    uint64_t queue;      /* id of a stream or a queue; 0: by exchange and routing key */
    uint32_t partitions; /* of a stream; 0: messages */
    struct slice exchange, routing_key;
    struct slice
        routing_column; /* ptr NULL: none. The column whose text is the routing key; NULL and what is longer than 255 bytes: a fault */
    struct slice keys[OUTPUT_KEYS_MAX]; /* columns, of a stream */
    uint32_t key_count;
    bool bare; /* records are the text of the one column, and no objects: what streams of the format raw hold */
    const struct slice
        *names; /* of all columns, instead of those of the select list (INSERT INTO t (a, b)); NULL: those */
    uint32_t name_count;
};

/* What the statement says of keys: PRIMARY KEY, KEY, and options key = 'a, b', routing_key = 'x', routing_key_column = 'a' and exchange = 'x' of a
 * CREATE STREAM, TABLE, VIEW or SINK; the other fields stay as they are. False: the error is set. */
MUST_USE bool output_target_of(const struct ast *statement, struct output_target *ret, struct sql_error *error);

struct output;

/* heap: the thread's. bytes_max: of what waits to be taken; a step that gives more ends the query (MEMORY). NULL: no memory. */
MUST_USE struct output *output_new(struct slab_heap *heap, const struct output_target *target, size_t bytes_max);
void output_free(struct output **output); /* with what was not taken */
struct op *output_op(struct output *output);
/* After query_new, before the first step. False: the error is set: a key or routing column that there is not, too many names; no memory. */
MUST_USE bool output_bind(struct output *output, const struct plan *plan, struct sql_error *error);

/* Rows below `place` are only counted; UINT64_MAX: closed. 0 at the beginning. */
void output_open(struct output *output, uint64_t place);
/* Rows so far. */
uint64_t output_place(const struct output *output);
/* Of a query without state, which has no snapshot: the count goes on there. */
void output_seek(struct output *output, uint64_t place);
/* The next step's first record has this number; those of the others follow it. For who is to know which records are in a group. */
void output_at(struct output *output, uint64_t number);
/* Bytes that wait: to be taken, or in batches that are not cut yet. */
size_t output_bytes(const struct output *output);

/* What goes into one step of the core: at most QUERY_OUTPUTS_MAX and QUERY_STEP_BYTES_MAX. */
/* Of an output that is a message. */
struct output_mark {
    uint64_t place; /* every row below it is in one of the outputs up to this */
    uint64_t until; /* every row of the records below that number is in one of the outputs before this */
};

struct output_group {
    struct output_group *next;
    uint64_t place; /* every row below it is in this group or one before */
    uint64_t until; /* and every row of the records below that number, see output_at */
    size_t bytes;
    uint32_t count;
    struct output_mark *marks; /* of messages, one for each; NULL: they are records */
    uint64_t *acks;            /* of a half of a step that was refused: what it acknowledges */
    uint32_t ack_count;
    bool is_half;
    struct query_output outputs[]; /* messages that are taken out are NULLed */
};

/* Ends the batches and the group that have been begun: call it after query_step when outputs are to be sent. False: no memory, the query has ended. */
MUST_USE bool output_cut(struct output *output);
/* The oldest group, yours; NULL: there is none. Only the last one ends where the step ends: those before it go with a PLACE in the trail, but not with
 * what was read. */
struct output_group *output_take(struct output *output);
void output_group_free(struct slab_heap *heap, struct output_group **group); /* with its messages */
/* Of a group of messages: its first `count` outputs stay, less than there are and at least one, and what is behind them is a group of its own, the next one.
 * False: no memory, or it is one of records; nothing has changed. */
MUST_USE bool output_group_split(struct output_group *group, uint32_t count);

#endif
