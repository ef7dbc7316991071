/* input: what was fetched of a partition (bytes of whole record batches) as runs of records for query_step.
 *
 *   input_new ▸ { input_begin (a piece) ▸ { input_next ▸ query_step }* ▸ go on at input_place }* ▸ input_free
 *
 * A piece may begin below the wanted offset, and hold what no reader may see: records below `from` and from `until` on, control batches, batches of
 * aborted transactions and (unless asked for) records without a value are passed over. Offsets may have gaps; a run says each of them.
 * A run is at most `rows` records, ends with the one that makes it INPUT_RUN_BYTES, and with the batch when that was compressed, as its bytes are
 * a loan. So what a run may cost does not depend on how well a batch was compressed.
 *
 * Every batch's checksum is looked at. The records' bytes are not copied: they are in the piece, or in the struct compress. One
 * input serves all partitions of all queries of a thread in turn. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_INPUT_H
#define MILLRACE_SQL_QUERY_INPUT_H

#include "core/isolation.h"
#include "fmt/compress.h"
#include "sql/query/query.h"

#define INPUT_RUN_BYTES (1u << 20)
#define INPUT_UNPACKED_MAX (128u << 20) /* what a batch that the broker has accepted may be */

enum input_verdict {
    INPUT_ROWS,
    INPUT_END,       /* of what is whole in the piece, or `until` is reached */
    INPUT_DAMAGED,   /* a batch that cannot be read, or whose checksum is wrong: at input_place */
    INPUT_TOO_LARGE, /* unpacked it has more than unpacked_max bytes */
    INPUT_NO_MEMORY, /* for unpacking: again later, from input_place on */
};

struct input_piece {
    struct slice bytes;
    uint64_t from, until;          /* offsets of the records that are wanted; UINT64_MAX: all that there are */
    const struct aborted *aborted; /* transactions whose records are passed over */
    uint32_t aborted_count;
    bool valueless; /* records without a value (tombstones) are given, too: as a slice whose ptr is NULL */
};

struct input;

/* z is lent for as long as the input lives, and used by nobody else between input_begin and the last query_step. NULL: no memory. */
MUST_USE struct input *input_new(struct compress *z, size_t unpacked_max);
void input_free(struct input **input);
/* The bytes and the list must stay until the next one. */
void input_begin(struct input *input, const struct input_piece *piece);
/* The next run, of 1 to `rows` records (at most BATCH_ROWS_MAX): *ret but for source and partition, valid until the next call. */
MUST_USE enum input_verdict input_next(struct input *input, uint32_t rows, struct query_input *ret);
/* Everything below has been given or passed over: where to go on, and what the trail is told. At least `from`; below it nothing is lost,
 * though a batch of which the piece has a part only is still to come. */
uint64_t input_place(const struct input *input);

#endif
