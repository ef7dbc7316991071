/* The Kafka load generator: what it encodes is what a broker reads, and run as a user would against its own sink it works,
 * finds every kind of mistake a broker can make, and says no when it must. */
#include "kafka.h"

#include "fmt/record_batch.h"
#include "kafka_group.h"
#include "kafka_int.h"
#include "kafka_load.h"
#include "kafka_reading.h"
#include "kafka_sink.h"
#include "stamp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { WORDS_MAX = 40, BATCH = 70 };

/* ---- what is encoded ---- */

struct seen {
    struct arena arena;
    struct kafka_request_head head;
    struct kafka_produce_request *ask;
    struct slice batch;
};

static void request_read(struct seen *seen, const uint8_t *request, size_t len)
{
    uint32_t claimed;
    struct slice body;
    void *ask;
    memcpy(&claimed, request, sizeof(claimed));
    assert_int_equal(be32toh(claimed) + 4, len);
    arena_init(&seen->arena, 1 << 20);
    assert_int_equal(kafka_request_head(slice_of(request + 4, len - 4), &seen->head, &body), KAFKA_HEAD_OK);
    assert_int_equal(kafka_request_decode(&seen->head, body, &seen->arena, &ask), KAFKA_OK);
    seen->ask = ask;
    assert_int_equal(seen->ask->topic_data.count, 1);
    assert_int_equal(seen->ask->topic_data.at[0].partition_data.count, 1);
    seen->batch = seen->ask->topic_data.at[0].partition_data.at[0].records;
}

/* All that a broker checks, and the stamps of all records. */
static void batch_is_right(struct slice bytes, const struct bench_kafka_send *send, bool stamped)
{
    struct compress *z = compress_new();
    struct record_limits limits = {.unpacked_max = 1 << 20};
    struct record_check check;
    struct record_reader records;
    struct record_batch batch;
    struct record record;
    unsigned count = 0;
    assert_int_equal(record_batch_check(bytes, &limits, z, &check, NULL), RECORD_OK);
    assert_int_equal(check.batch.count, BATCH);
    assert_int_equal(check.batch.base_timestamp, send->wall_ms);
    assert_int_equal(check.batch.max_timestamp, send->wall_ms);
    assert_int_equal(record_batch_open(bytes, z, 1 << 20, &batch, &records), RECORD_OK);
    for (; record_next(&records, &record); count++) {
        struct bench_stamp stamp;
        assert_int_equal(record.value.len, 100);
        memcpy(&stamp, record.value.ptr, sizeof(stamp));
        assert_int_equal(stamp.run_id == 77, stamped || stamp.run_id == 77);
        if (!stamped)
            continue;
        assert_int_equal(stamp.producer, send->stream);
        assert_int_equal(stamp.seq, send->first_seq + count);
        assert_int_equal(stamp.sent_ns, send->sent_ns);
    }
    assert_int_equal(count, BATCH);
    compress_free(&z);
}

/* Three requests, patched, written, patched again: each is what was asked for, whatever the packing. */
static void load_is_right(enum compress_kind kind, bool prebuilt, int64_t producer_id)
{
    struct bench_kafka_load l;
    struct bench_kafka_shape shape = {.topic = "some.topic",
                                      .record_bytes = 100,
                                      .records = BATCH,
                                      .acks = -1,
                                      .compression = kind,
                                      .level = COMPRESS_LEVEL_DEFAULT,
                                      .prebuilt = prebuilt,
                                      .run_id = 77,
                                      .producer_id = producer_id,
                                      .producer_epoch = 3};
    assert_int_equal(bench_kafka_load_init(&l, &shape), 0);
    assert_true(l.slot_max >= 3);
    for (int32_t round = 0; round < 2; round++) {
        bench_kafka_load_restart(&l);
        for (int32_t i = 0; i < 3; i++) {
            struct seen seen;
            size_t at = l.end;
            struct bench_kafka_send send = {.correlation_id = 1000 + 10 * round + i,
                                            .partition = 5 + i,
                                            .base_sequence = 70 * i + round,
                                            .wall_ms = 1700000000000 + 3 * i + round,
                                            .stream = 9 + (uint32_t)i,
                                            .first_seq = 1 + 70 * (uint64_t)i,
                                            .sent_ns = 123456789 + (uint64_t)i};
            assert_int_equal(bench_kafka_load_put(&l, &send), 0);
            request_read(&seen, l.out + at, l.end - at);
            assert_int_equal(seen.head.correlation_id, send.correlation_id);
            assert_int_equal(seen.head.version, BENCH_KAFKA_PRODUCE_VERSION);
            assert_int_equal(seen.ask->acks, -1);
            assert_null(seen.ask->transactional_id.ptr);
            assert_true(slice_is(seen.ask->topic_data.at[0].name, "some.topic"));
            assert_int_equal(seen.ask->topic_data.at[0].partition_data.at[0].index, send.partition);
            assert_int_equal(seen.batch.len, l.batch_bytes);
            batch_is_right(seen.batch, &send, !prebuilt);
            struct record_batch head;
            assert_int_equal(record_batch_peek(seen.batch, &head), RECORD_OK);
            assert_int_equal(head.compression, kind);
            assert_int_equal(head.producer_id, producer_id);
            assert_int_equal(head.base_sequence, producer_id < 0 ? -1 : send.base_sequence);
            assert_int_equal(head.producer_epoch, producer_id < 0 ? -1 : 3);
            arena_fini(&seen.arena);
        }
    }
    assert_true(l.end <= l.cap);
    bench_kafka_load_fini(&l);
}

static void requests_are_what_a_broker_reads(void **state)
{
    (void)state;
    for (int kind = COMPRESS_NONE; kind < COMPRESS_KINDS; kind++) {
        load_is_right((enum compress_kind)kind, false, -1);
        load_is_right((enum compress_kind)kind, true, -1);
        load_is_right((enum compress_kind)kind, false, 4711);
    }
}

static void servers_are_named(void **state)
{
    (void)state;
    struct bench_kafka_server s = {.port = 9092};
    assert_int_equal(bench_kafka_server_parse("here", &s), 0);
    assert_string_equal(s.host, "here");
    assert_int_equal(s.port, 9092);
    assert_int_equal(bench_kafka_server_parse(":19092", &s), 0);
    assert_string_equal(s.host, "here");
    assert_int_equal(s.port, 19092);
    assert_int_equal(bench_kafka_server_parse("[::1]:9", &s), 0);
    assert_string_equal(s.host, "::1");
    assert_int_equal(s.port, 9);
    assert_int_equal(bench_kafka_server_parse("h:0", &s), -1);
    assert_int_equal(bench_kafka_server_parse("h:65536", &s), -1);
    assert_int_equal(bench_kafka_server_parse("h:1x", &s), -1);
    assert_int_equal(bench_kafka_server_parse("[::1", &s), -1);
    assert_int_equal(s.port, 9);
}

/* ---- what is read ---- */

/* Batches of two records each, made by the load, at these offsets. */
static struct slice batches_at(uint8_t *bytes, size_t room, const int64_t *offsets, unsigned count)
{
    struct bench_kafka_load l;
    struct bench_kafka_shape shape = {.topic = "t", .record_bytes = 30, .records = 2, .run_id = 77, .producer_id = -1};
    struct writer w = writer_of(bytes, room);
    assert_int_equal(bench_kafka_load_init(&l, &shape), 0);
    for (unsigned i = 0; i < count; i++) {
        struct bench_kafka_send send = {.stream = 0, .first_seq = 1 + 2 * (uint64_t)i, .sent_ns = 5};
        bench_kafka_load_restart(&l);
        assert_int_equal(bench_kafka_load_put(&l, &send), 0);
        record_batch_set_base(l.out + l.head_len, offsets[i], 0);
        writer_put(&w, l.out + l.head_len, l.batch_bytes);
    }
    bench_kafka_load_fini(&l);
    assert_true(writer_ok(&w));
    return writer_slice(&w);
}

static struct bench_kafka_reading reading(enum bench_kafka_check check)
{
    struct bench_kafka_reading r = {.check = check, .run_id = 77, .streams = 1, .order = bench_order_new(1, 1)};
    assert_int_equal(bench_kafka_reading_init(&r), 0);
    return r;
}

static void reading_end(struct bench_kafka_reading *r)
{
    bench_order_free(r->order);
    bench_kafka_reading_fini(r);
}

static void dense_offsets_are_clean(void **state)
{
    (void)state;
    uint8_t bytes[2000];
    int64_t offsets[] = {10, 12, 14};
    struct slice all = batches_at(bytes, sizeof(bytes), offsets, 3);
    struct bench_kafka_reading r = reading(BENCH_CHECK_RECORDS);
    assert_int_equal(bench_kafka_reading_end(all, 10), 16);
    assert_int_equal(bench_kafka_reading_end(slice_of(all.ptr, all.len - 1), 10), 14);
    assert_int_equal(bench_kafka_reading_end(slice_of(all.ptr, 20), 10), 10);
    bench_kafka_reading_take(&r, all, 10, 9);
    assert_int_equal(r.records, 6);
    assert_int_equal(r.batches, 3);
    assert_int_equal(r.bytes, all.len);
    assert_int_equal(r.gaps + r.repeats + r.damaged + r.foreign, 0);
    assert_int_equal(bench_order_peek(r.order)->received, 6);
    reading_end(&r);
}

/* A fetch in the midst of a batch gets the whole of it; what lies before is not counted. */
static void whole_batches_may_begin_earlier(void **state)
{
    (void)state;
    uint8_t bytes[2000];
    int64_t offsets[] = {10, 12};
    struct slice all = batches_at(bytes, sizeof(bytes), offsets, 2);
    struct bench_kafka_reading r = reading(BENCH_CHECK_RECORDS);
    bench_kafka_reading_take(&r, slice_of(all.ptr, all.len - 5), 11, 9); /* and the last may be cut off */
    assert_int_equal(r.records, 1);
    assert_int_equal(r.gaps + r.repeats + r.damaged, 0);
    assert_int_equal(bench_order_peek(r.order)->received, 1);
    reading_end(&r);
}

static void what_is_wrong_is_counted(void **state)
{
    (void)state;
    uint8_t bytes[2000];
    int64_t offsets[] = {10, 15, 10};
    struct slice all = batches_at(bytes, sizeof(bytes), offsets, 3);
    struct bench_kafka_reading r = reading(BENCH_CHECK_OFFSETS);
    bench_kafka_reading_take(&r, all, 10, 9);
    assert_int_equal(r.gaps, 3);
    assert_int_equal(r.repeats, 2);
    assert_int_equal(r.records, 4);
    assert_int_equal(r.damaged, 0);
    reading_end(&r);

    bytes[all.len / 3 - 1] ^= 1; /* no more than a look at offsets would see that */
    r = reading(BENCH_CHECK_OFFSETS);
    bench_kafka_reading_take(&r, slice_of(all.ptr, all.len / 3), 10, 9);
    assert_int_equal(r.damaged, 0);
    reading_end(&r);
    r = reading(BENCH_CHECK_CRC);
    bench_kafka_reading_take(&r, slice_of(all.ptr, all.len / 3), 10, 9);
    assert_int_equal(r.damaged, 1);
    reading_end(&r);
    bytes[16] = 1; /* an old format */
    r = reading(BENCH_CHECK_OFFSETS);
    bench_kafka_reading_take(&r, all, 10, 9);
    assert_int_equal(r.damaged, 1);
    reading_end(&r);
}

/* ---- as a user ---- */

/* Splits at spaces; no word of ours has one. */
static int bench(unsigned port, const char *words)
{
    char text[600], *argv[WORDS_MAX] = {(char *)"millrace bench kafka"}, *rest = text;
    int argc = 1;
    snprintf(text, sizeof(text), "--server 127.0.0.1:%u --quiet --json --drain 0.3 %s", port, words);
    for (char *word; argc < WORDS_MAX - 1 && (word = strsep(&rest, " ")) != NULL;)
        argv[argc++] = word;
    return bench_kafka_main(argc, argv);
}

static struct bench_kafka_sink *sink_of(enum bench_kafka_fault fault, int32_t partitions, unsigned *ret_port)
{
    char error[100];
    struct bench_kafka_sink_kind kind = {.partitions = partitions, .keep_bytes = 8 << 20, .fault = fault};
    struct bench_kafka_sink *sink = bench_kafka_sink_start(&kind, ret_port, error, sizeof(error));
    assert_non_null(sink);
    return sink;
}

static void loads_run_clean(void **state)
{
    (void)state;
    unsigned port;
    struct bench_kafka_sink *sink = sink_of(BENCH_FAULT_NONE, 3, &port);
    assert_int_equal(bench(port, "--records 2000 --partitions 3 --producers 2 --consumers 2 --window 7"),
                     BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--records 300 --batch 1 --idempotent"), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--records 1000 --compression zstd --batch 33"), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--records 1000 --compression lz4 --prebuilt --check crc"), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--records 500 --acks 0 --size 10"), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--rate 5000 --batch 10 --duration 0.2 --warmup 0.05 --consumers 3"), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--producers 0 --topic t --records 1000 --consumers 2"), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--producers 0 --topic t --again --duration 0.1 --warmup 0"), BENCH_EXIT_OK);
    bench_kafka_sink_stop(sink, NULL);
}

static void one_thing_after_the_other(void **state)
{
    (void)state;
    unsigned port;
    struct bench_kafka_sink *sink = sink_of(BENCH_FAULT_NONE, 3, &port);
    assert_int_equal(bench(port, "--scenario latency --records 50 --batch 1 --probe ."), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--scenario create --topics 5"), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--scenario connect --connections 5"), BENCH_EXIT_OK);
    bench_kafka_sink_stop(sink, NULL);
    assert_int_equal(bench(port, "--records 10"), BENCH_EXIT_FAILED); /* nobody listens there any more */
    assert_int_equal(bench(port, "--scenario sink --duration 0.1 --warmup 0"), BENCH_EXIT_OK);
}

static void mistakes_are_found(void **state)
{
    (void)state;
    static const enum bench_kafka_fault faults[] = {BENCH_FAULT_LOSE,   BENCH_FAULT_FORGET, BENCH_FAULT_DOUBLE,
                                                    BENCH_FAULT_REPEAT, BENCH_FAULT_FLIP,   BENCH_FAULT_STALE};
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        unsigned port;
        struct bench_kafka_sink *sink = sink_of(faults[i], 1, &port);
        assert_int_equal(bench(port, "--records 1000 --batch 100"), BENCH_EXIT_VIOLATION);
        bench_kafka_sink_stop(sink, NULL);
        if (faults[i] == BENCH_FAULT_DOUBLE) /* without stamps one more batch looks like somebody else's */
            continue;
        sink = sink_of(faults[i], 1, &port);
        assert_int_equal(bench(port, "--records 1000 --batch 100 --prebuilt"), BENCH_EXIT_VIOLATION);
        bench_kafka_sink_stop(sink, NULL);
    }
    unsigned port;
    struct bench_kafka_sink *sink = sink_of(BENCH_FAULT_REFUSE, 1, &port);
    assert_int_equal(bench(port, "--records 1000 --batch 100"), BENCH_EXIT_FAILED);
    bench_kafka_sink_stop(sink, NULL);
}

/* What was acknowledged last and never comes leaves no gap behind it: only counting finds that. */
static void what_never_comes_is_missed(void **state)
{
    (void)state;
    unsigned port;
    char error[100];
    struct bench_kafka_sink_kind kind = {.partitions = 1, .keep_bytes = 60000};
    struct bench_kafka_sink *sink = bench_kafka_sink_start(&kind, &port, error, sizeof(error));
    assert_non_null(sink);
    assert_int_equal(bench(port, "--records 1000 --batch 100"), BENCH_EXIT_VIOLATION);
    bench_kafka_sink_stop(sink, NULL);
    sink = bench_kafka_sink_start(&kind, &port, error, sizeof(error));
    assert_non_null(sink);
    assert_int_equal(bench(port, "--records 1000 --batch 100 --prebuilt"), BENCH_EXIT_VIOLATION);
    assert_int_equal(bench(port, "--producers 0 --topic t --records 1000"), BENCH_EXIT_VIOLATION);
    bench_kafka_sink_stop(sink, NULL);
}

static void shares_cover_everything(void **state)
{
    (void)state;
    for (int32_t partitions = 0; partitions < 10; partitions++)
        for (int32_t members = 1; members < 6; members++) {
            int32_t next = 0;
            for (int32_t i = 0; i < members; i++) {
                int32_t first, count;
                bench_kafka_range(partitions, members, i, &first, &count);
                assert_int_equal(first, next);
                assert_in_range(count, partitions / members, (partitions + members - 1) / members);
                next = first + count;
            }
            assert_int_equal(next, partitions);
        }
}

/* A member id that is given, a generation that does not last, and a group that goes on where it has come to. */
static void groups_go_on_where_they_were(void **state)
{
    (void)state;
    unsigned port;
    struct bench_kafka_sink *sink = sink_of(BENCH_FAULT_NONE, 3, &port);
    assert_int_equal(bench(port, "--records 2000 --topic t --group g"), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--records 600 --topic t --consumers 0"), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--records 601 --topic t --group g --producers 0"), BENCH_EXIT_VIOLATION);
    assert_int_equal(bench(port, "--records 300 --topic t --consumers 0"), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--records 100 --topic t --group g --producers 0"), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--records 200 --topic t --group g --producers 0"), BENCH_EXIT_OK);
    assert_int_equal(bench(port, "--rate 1000 --batch 1 --duration 0.5 --warmup 0 --topic t --group g"), BENCH_EXIT_OK);
    bench_kafka_sink_stop(sink, NULL);
}

static void topics_must_be_as_asked(void **state)
{
    (void)state;
    unsigned port;
    struct bench_kafka_sink *sink = sink_of(BENCH_FAULT_NONE, 3, &port);
    assert_int_equal(bench(port, "--records 10 --topic t --partitions 4"), BENCH_EXIT_FAILED);
    bench_kafka_sink_stop(sink, NULL);
}

static void contradictions_are_wrong_usage(void **state)
{
    (void)state;
    assert_int_equal(bench(1, "--producers 0 --consumers 0"), BENCH_EXIT_USAGE);
    assert_int_equal(bench(1, "--producers 0"), BENCH_EXIT_USAGE);
    assert_int_equal(bench(1, "--again"), BENCH_EXIT_USAGE);
    assert_int_equal(bench(1, "--group g --topics 2"), BENCH_EXIT_USAGE);
    assert_int_equal(bench(1, "--idempotent --acks 1"), BENCH_EXIT_USAGE);
    assert_int_equal(bench(1, "--scenario latency --acks 0"), BENCH_EXIT_USAGE);
    assert_int_equal(bench(65000, "--port-offset 3900"), BENCH_EXIT_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_what_a_broker_reads), cmocka_unit_test(servers_are_named),
        cmocka_unit_test(dense_offsets_are_clean),          cmocka_unit_test(whole_batches_may_begin_earlier),
        cmocka_unit_test(what_is_wrong_is_counted),         cmocka_unit_test(loads_run_clean),
        cmocka_unit_test(one_thing_after_the_other),        cmocka_unit_test(mistakes_are_found),
        cmocka_unit_test(what_never_comes_is_missed),       cmocka_unit_test(shares_cover_everything),
        cmocka_unit_test(groups_go_on_where_they_were),     cmocka_unit_test(topics_must_be_as_asked),
        cmocka_unit_test(contradictions_are_wrong_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
