/* See bench/kafka_reading.h. A batch's send times are equal in most cases, so runs of them enter the histogram at once. */
#include "kafka_reading.h"

#include "fmt/record_batch.h"
#include "stamp.h"

enum { UNPACKED_MAX = 256 << 20 };

int bench_kafka_reading_init(struct bench_kafka_reading *r)
{
    r->z = compress_new();
    return r->z != NULL ? 0 : -1;
}

void bench_kafka_reading_fini(struct bench_kafka_reading *r)
{
    compress_free(&r->z);
}

int64_t bench_kafka_reading_end(struct slice bytes, int64_t offset)
{
    struct reader r = reader_of(bytes);
    struct record_batch batch;
    struct slice whole;
    while (record_batch_take(&r, &batch, &whole) == RECORD_OK)
        offset = record_batch_last_offset(&batch) + 1;
    return offset;
}

static void run_record(struct bench_kafka_reading *r, uint64_t now_ns)
{
    if (r->run_count > 0 && r->transit != NULL)
        bench_histogram_add(r->transit, now_ns > r->run_sent_ns ? now_ns - r->run_sent_ns : 0, r->run_count);
    r->run_count = 0;
}

static void record_note(struct bench_kafka_reading *r, const struct record *record, uint64_t now_ns)
{
    struct bench_stamp stamp = {0};
    if (record->value.len >= sizeof(stamp))
        memcpy(&stamp, record->value.ptr, sizeof(stamp));
    if (stamp.run_id != r->run_id || stamp.producer >= r->streams || stamp.seq == 0) {
        r->foreign++;
        return;
    }
    bench_order_note(r->order, 0, stamp.producer, stamp.seq, false);
    if (stamp.sent_ns != r->run_sent_ns) {
        run_record(r, now_ns);
        r->run_sent_ns = stamp.sent_ns;
    }
    r->run_count++;
}

/* The records from `offset` on; their offsets must be those of the batch without a gap. */
static bool records_take(struct bench_kafka_reading *r, struct slice bytes, int64_t offset, uint64_t now_ns)
{
    struct record_batch batch;
    struct record_reader records;
    struct record record;
    if (record_batch_open(bytes, r->z, UNPACKED_MAX, &batch, &records) != RECORD_OK)
        return false;
    int64_t expected = batch.base_offset;
    while (record_next(&records, &record)) {
        if (record.offset != expected++)
            return false;
        if (r->streams > 0 && record.offset >= offset)
            record_note(r, &record, now_ns);
    }
    return record_reader_ok(&records);
}

static void batch_take(struct bench_kafka_reading *r, const struct record_batch *batch, struct slice bytes,
                       int64_t *next, uint64_t now_ns)
{
    int64_t last = record_batch_last_offset(batch), wanted = *next;
    r->batches++;
    r->bytes += bytes.len;
    if (batch->base_offset > wanted)
        r->gaps += (uint64_t)(batch->base_offset - wanted);
    if (last < wanted) {
        r->repeats += batch->count;
        return;
    }
    *next = last + 1;
    if (batch->control)
        return;
    int64_t from = batch->base_offset > wanted ? batch->base_offset : wanted;
    r->records += (uint64_t)(last + 1 - from);
    bool sound = batch->count == (uint32_t)batch->last_offset_delta + 1;
    if (sound && r->check >= BENCH_CHECK_CRC)
        sound = record_batch_crc_ok(bytes);
    if (sound && r->check >= BENCH_CHECK_RECORDS)
        sound = records_take(r, bytes, wanted, now_ns);
    r->damaged += !sound;
}

void bench_kafka_reading_take(struct bench_kafka_reading *r, struct slice bytes, int64_t offset, uint64_t now_ns)
{
    struct reader left = reader_of(bytes);
    struct record_batch batch;
    struct slice whole;
    enum record_verdict verdict;
    while ((verdict = record_batch_take(&left, &batch, &whole)) == RECORD_OK)
        batch_take(r, &batch, whole, &offset, now_ns);
    if (verdict != RECORD_END && verdict != RECORD_SHORT) /* the last batch of an answer may be cut off */
        r->damaged++;
    run_record(r, now_ns);
}
