/* Pieces of partitions as runs of records, see input.h. */
#include "sql/query/input.h"

#include "base/check.h"
#include "base/mem.h"
#include "fmt/record_batch.h"
#include "sql/language/datetime.h"

struct input {
    struct compress *z;
    size_t unpacked_max;
    struct input_piece piece;
    struct reader left; /* of the piece: batches that were not opened yet */
    uint64_t place;
    bool open, packed; /* records are being read; of a compressed batch */
    struct record_reader records;
    uint64_t behind; /* that batch */
    bool loan;       /* a row of the run is in z's buffer */
    uint32_t rows;
    size_t bytes; /* of the run */
    struct slice values[BATCH_ROWS_MAX], keys[BATCH_ROWS_MAX], headers[BATCH_ROWS_MAX];
    int64_t ts_us[BATCH_ROWS_MAX];
    uint64_t offsets[BATCH_ROWS_MAX];
};

struct input *input_new(struct compress *z, size_t unpacked_max)
{
    struct input *in = mem_zalloc(sizeof *in);
    if (!in)
        return NULL;
    in->z = z;
    in->unpacked_max = unpacked_max;
    return in;
}

void input_free(struct input **input)
{
    mem_free(*input);
    *input = NULL;
}

void input_begin(struct input *in, const struct input_piece *piece)
{
    in->piece = *piece;
    in->left = reader_of(piece->bytes);
    in->place = piece->from;
    in->open = false;
}

uint64_t input_place(const struct input *in)
{
    return in->place;
}

static bool is_hidden(const struct input *in, const struct record_batch *batch)
{
    return batch->control || (batch->transactional && aborted_has(in->piece.aborted, in->piece.aborted_count,
                                                                  batch->producer_id, (uint64_t)batch->base_offset));
}

static enum input_verdict verdict_of(enum record_verdict verdict)
{
    return verdict == RECORD_OK          ? INPUT_ROWS
           : verdict == RECORD_TOO_LARGE ? INPUT_TOO_LARGE
           : verdict == RECORD_NO_MEMORY ? INPUT_NO_MEMORY
                                         : INPUT_DAMAGED;
}

/* Goes to the next batch. INPUT_ROWS: it is open, or passed over, or the run has to end before it (*ret_later). */
static enum input_verdict next_batch(struct input *in, bool *ret_later)
{
    struct reader left = in->left;
    struct record_batch batch;
    struct slice bytes;
    enum record_verdict verdict = record_batch_take(&left, &batch, &bytes);
    if (verdict == RECORD_END || verdict == RECORD_SHORT)
        return INPUT_END;
    if (verdict != RECORD_OK || batch.base_offset < 0 || batch.last_offset_delta < 0)
        return INPUT_DAMAGED;
    in->behind = (uint64_t)record_batch_last_offset(&batch) + 1;
    if ((uint64_t)batch.base_offset >= in->piece.until) {
        in->place = in->piece.until > in->place ? in->piece.until : in->place;
        return INPUT_END;
    }
    if (in->behind <= in->place || is_hidden(in, &batch)) {
        in->place = in->behind > in->place ? in->behind : in->place;
        in->left = left;
        return INPUT_ROWS;
    }
    *ret_later = batch.compression != COMPRESS_NONE && in->loan;
    if (*ret_later)
        return INPUT_ROWS;
    if (!record_batch_crc_ok(bytes))
        return INPUT_DAMAGED;
    verdict = record_batch_open(bytes, in->z, in->unpacked_max, &batch, &in->records);
    if (verdict != RECORD_OK)
        return verdict_of(verdict);
    in->packed = batch.compression != COMPRESS_NONE;
    in->open = true;
    in->left = left;
    return INPUT_ROWS;
}

static void take(struct input *in, const struct record *record)
{
    uint32_t row = in->rows++;
    int64_t ms = record->timestamp < 0 ? 0 : record->timestamp;
    in->values[row] = record->has_value ? record->value : (struct slice){0};
    in->keys[row] = record->has_key ? record->key : (struct slice){0};
    in->headers[row] = record->headers;
    in->ts_us[row] = ms > TIMESTAMP_MAX / 1000 ? TIMESTAMP_MAX : ms * 1000;
    in->offsets[row] = (uint64_t)record->offset;
    in->loan |= in->packed;
    in->bytes += record->value.len + record->key.len + record->headers.len;
}

static bool has_room(const struct input *in, uint32_t rows)
{
    return in->rows < rows && in->bytes < INPUT_RUN_BYTES;
}

/* Records of the batch that is open, up to so many rows of the run, or to its bytes. */
static enum input_verdict read_batch(struct input *in, uint32_t rows)
{
    struct record record;
    while (has_room(in, rows)) {
        if (!record_next(&in->records, &record)) {
            if (!record_reader_ok(&in->records))
                return INPUT_DAMAGED;
            in->open = false;
            in->place = in->behind;
            return INPUT_ROWS;
        }
        if ((uint64_t)record.offset < in->place)
            continue;
        if ((uint64_t)record.offset >= in->piece.until) {
            in->place = in->piece.until;
            in->open = false;
            in->left = reader_of((struct slice){0}); /* so that it is met again */
            return INPUT_END;
        }
        if (record.has_value || in->piece.valueless)
            take(in, &record);
        in->place = (uint64_t)record.offset + 1;
    }
    return INPUT_ROWS;
}

enum input_verdict input_next(struct input *in, uint32_t rows, struct query_input *ret)
{
    enum input_verdict verdict = INPUT_ROWS;
    bool later = false;
    CHECK(rows > 0 && rows <= BATCH_ROWS_MAX);
    in->rows = 0;
    in->bytes = 0;
    in->loan = false;
    while (verdict == INPUT_ROWS && !later && has_room(in, rows))
        verdict = in->open ? read_batch(in, rows) : next_batch(in, &later);
    if (!in->rows)
        return verdict;
    *ret = (struct query_input){.records = in->values,
                                .ts_us = in->ts_us,
                                .offsets = in->offsets,
                                .keys = in->keys,
                                .headers = in->headers,
                                .offset = in->offsets[0],
                                .rows = in->rows};
    return INPUT_ROWS; /* what stopped it is met again */
}
