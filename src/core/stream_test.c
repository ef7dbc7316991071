/* Streams in the core: what is published is read again and again, from wherever a consumer says, over restarts, compactions,
 * retention and trouble with the disk; and what is bound to a stream gets every record once. */
#include "core/broker_words_test.h"
#include "core/stream_int.h"
#include "fmt/murmur2.h"

enum {
#define ADMIN(name, operands) OP_##name,
#include "core/admin.def"
#undef ADMIN
};

static void declare_stream(struct rig *rig, const char *name, int64_t partitions, int64_t max_bytes)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    if (partitions > 1)
        amqp_put_long(&t.w, "x-stream-partitions", partitions);
    if (max_bytes)
        amqp_put_long(&t.w, "x-max-length-bytes", max_bytes);
    declare(rig, name, writer_slice(&t.w));
    rig_clear(rig);
}

static void put_numbers(struct rig *rig, const char *key, unsigned first, unsigned count)
{
    char body[16];
    for (unsigned i = first; i < first + count; i++) {
        snprintf(body, sizeof body, "%u", i);
        put(rig, key, body);
    }
    rig_clear(rig);
}

static const char *numbers(unsigned first, unsigned last)
{
    static char text[65536];
    size_t at = 0;
    text[0] = '\0';
    for (unsigned i = first; i <= last; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%u", i > first ? " " : "", i);
    return text;
}

static void consume_at(struct rig *rig, const char *stream, const char *tag, const char *text, int64_t number)
{
    struct table t;
    table(&t);
    if (text)
        amqp_put_str(&t.w, "x-stream-offset", slice_str(text));
    else if (number >= 0)
        amqp_put_long(&t.w, "x-stream-offset", number);
    rig_clear(rig);
    rig_plain(rig, CMD_QOS, 1, 1, 10000, 0);
    assert_true(rig_ask(rig, CMD_CONSUME, 1, 1, stream, tag, NULL, writer_slice(&t.w), 0));
    assert_string_equal(rig_error(rig), "");
}

static void cancel(struct rig *rig, const char *tag)
{
    ASK(CANCEL, tag, NULL, NULL, 0);
    rig_clear(rig);
}

static void compact(struct rig *rig)
{
    uint64_t before = rig->b->totals.compactions;
    rig_ask_full(rig, CMD_ADMIN, 1, 0, NULL, NULL, NULL, (struct slice){0}, 0, OP_COMPACT);
    rig_step(rig);
    assert_int_equal(rig->b->totals.compactions, before + 1);
    rig_clear(rig);
}

static struct stream *stream_named(struct rig *rig, const char *name)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str(name))->stream;
}

static void read_again_and_again(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1, 0);
    put_numbers(rig, "s", 0, 20);
    for (int round = 0; round < 3; round++) {
        consume_at(rig, "s", "c", "first", 0);
        assert_string_equal(rig_delivered(rig), numbers(0, 19));
        for (unsigned i = 0; i < 20; i++) {
            struct effect *e = rig_nth(rig, EFF_DELIVER, i);
            assert_true(e->flags & EFFECT_STREAM);
            assert_int_equal(e->count, i);
            assert_int_equal(e->origin, 0);
        }
        rig_plain(rig, CMD_ACK, 1, 1, 0, ASK_MULTIPLE);
        cancel(rig, "c");
    }
    end(rig);
}

static void begins_where_it_is_told(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1, 0);
    put_numbers(rig, "s", 0, 10);
    rig_pass(rig, 100000);
    wall_t later = rig->wall;
    put_numbers(rig, "s", 10, 10);
    consume_at(rig, "s", "c", NULL, 7);
    assert_string_equal(rig_delivered(rig), numbers(7, 19));
    cancel(rig, "c");
    consume_at(rig, "s", "c", "last", 0);
    assert_string_equal(rig_delivered(rig), "19");
    cancel(rig, "c");
    consume_at(rig, "s", "c", NULL, 1000);
    assert_string_equal(rig_delivered(rig), "");
    cancel(rig, "c");
    consume_at(rig, "s", "c", "next", 0);
    assert_string_equal(rig_delivered(rig), "");
    cancel(rig, "c");
    consume_at(rig, "s", "c", "50s", 0);
    assert_string_equal(rig_delivered(rig), numbers(10, 19));
    cancel(rig, "c");
    struct table t;
    rig_clear(rig);
    amqp_put_time(&table(&t)->w, "x-stream-offset", (uint64_t)later / 1000);
    rig_ask(rig, CMD_CONSUME, 1, 1, "s", "c", NULL, writer_slice(&t.w), 0);
    assert_string_equal(rig_delivered(rig), numbers(10, 19));
    rig_clear(rig);
    put_numbers(rig, "s", 20, 1);
    consume_at(rig, "s", "d", NULL, -1);
    put(rig, "s", "21"); /* both: who follows, and who asked for what comes */
    assert_string_equal(rig_delivered(rig), "21 21");
    end(rig);
}

/* What was there is older than a time to come, also while it is in no file yet; what comes later is wanted. */
static void begins_in_the_future(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    declare_stream(rig, "s", 1, 0);
    amqp_put_time(&table(&t)->w, "x-stream-offset", UINT32_MAX);
    for (unsigned i = 0; i < 4; i += 2) {
        rig->log->streams->fail_writes = 1;
        put_numbers(rig, "s", i, 1);
        assert_int_equal(rig->log->streams->fail_writes, 0);
        rig_clear(rig);
        rig_plain(rig, CMD_QOS, 1, 1, 100, 0);
        rig_ask(rig, CMD_CONSUME, 1, 1, "s", "c", NULL, writer_slice(&t.w), 0);
        put_numbers(rig, "s", i + 1, 1);
        rig_pass(rig, 5000);
        assert_string_equal(rig_delivered(rig), numbers(i + 1, i + 1));
        cancel(rig, "c");
    }
    end(rig);
}

static void prefetch_is_credit(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1, 0);
    put_numbers(rig, "s", 0, 10);
    rig_plain(rig, CMD_QOS, 1, 1, 3, 0);
    struct table t;
    amqp_put_str(&table(&t)->w, "x-stream-offset", slice_str("first"));
    rig_ask(rig, CMD_CONSUME, 1, 1, "s", "c", NULL, writer_slice(&t.w), 0);
    assert_string_equal(rig_delivered(rig), "0 1 2");
    rig_clear(rig);
    rig_plain(rig, CMD_ACK, 1, 1, 2, ASK_MULTIPLE);
    assert_string_equal(rig_delivered(rig), "3 4");
    rig_clear(rig);
    rig_plain(rig, CMD_NACK, 1, 1, 3, ASK_REQUEUE); /* credit, and nothing more */
    assert_string_equal(rig_delivered(rig), "5");
    rig_plain(rig, CMD_CHANNEL_CLOSE, 1, 1, 0, 0);
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 1, 0, 0);
    consume_at(rig, "s", "c", "first", 0);
    assert_string_equal(rig_delivered(rig), numbers(0, 9));
    end(rig);
}

static void survives_restarts_and_compactions(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1, 0);
    put_numbers(rig, "s", 0, 10);
    restart(&rig); /* from the journal */
    put_numbers(rig, "s", 10, 10);
    consume_at(rig, "s", "c", "first", 0);
    assert_string_equal(rig_delivered(rig), numbers(0, 19));
    compact(rig);
    restart(&rig); /* from the files alone */
    assert_int_equal(stream_named(rig, "s")->partitions[0]->synced.end, 20);
    consume_at(rig, "s", "c", NULL, 5);
    assert_string_equal(rig_delivered(rig), numbers(5, 19));
    put_numbers(rig, "s", 20, 5);
    restart(&rig); /* from both */
    put_numbers(rig, "s", 25, 5);
    consume_at(rig, "s", "c", "first", 0);
    assert_string_equal(rig_delivered(rig), numbers(0, 29));
    compact(rig);
    compact(rig);
    end(rig);
}

/* What was trimmed needs the checkpoint that allowed it. */
static bool is_whole(const struct rig_log *log)
{
    bool whole = log->first == 1;
    for (size_t i = log->first; i <= log->count; i++)
        whole = whole || log->records[i - 1].bytes[0] == REC_CHECKPOINT;
    return whole;
}

/* Every prefix of the journal, together with the files as far as that prefix says they are synced. */
static void every_prefix_replays(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.compact_every = 7});
    declare_stream(rig, "s", 3, 0);
    for (unsigned i = 0; i < 60; i++)
        put_numbers(rig, "s", i, 1);
    assert_true(rig->b->totals.compactions > 2);
    for (size_t n = rig->log->first; n <= rig->log->count; n++) {
        struct rig_log *copy = rig_log_copy(rig->log, n);
        const char *why;
        struct rig *other = rig_try(copy, &rig->options, rig->wall, &why);
        if (is_whole(copy))
            assert_null(why);
        rig_free(other);
        rig_log_free(copy);
    }
    end(rig);
}

static void publish_large(struct rig *rig, const char *key, unsigned count, size_t len)
{
    uint8_t *body = calloc(1, len);
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE, .delivery_mode = 2};
    for (unsigned i = 0; i < count; i++) {
        rig_publish_with(rig, 1, 1, "", key, slice_of(body, len), &props, 0);
        rig_clear(rig);
    }
    free(body);
}

/* Between compactions a start has little to write again. */
static void synced_as_they_grow(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.stream_sync_bytes = 1000});
    declare_stream(rig, "s", 2, 0);
    put_numbers(rig, "s", 0, 50);
    assert_in_range(stream_named(rig, "s")->partitions[0]->synced.end, 15, 25);
    for (size_t n = rig->log->first; n <= rig->log->count; n++) {
        struct rig_log *copy = rig_log_copy(rig->log, n);
        rig_free(rig_new(copy, &rig->options, rig->wall));
        rig_log_free(copy);
    }
    uint64_t synced = stream_named(rig, "s")->partitions[1]->synced.end;
    restart(&rig);
    assert_true(stream_named(rig, "s")->partitions[1]->synced.end >= synced);
    consume_at(rig, "s", "c", "first", 0);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 50);
    compact(rig);
    end(rig);
}

static void retention_by_size(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1, 3 << 20); /* segments of 1 MiB */
    publish_large(rig, "s", 100, 100000);
    struct partition *p = stream_named(rig, "s")->partitions[0];
    assert_in_range(p->start, 50, 80);
    uint64_t start = p->start, drops = rig->log->streams->drops;
    assert_true(drops > 3);
    consume_at(rig, "s", "c", "first", 0);
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->count, start);
    cancel(rig, "c");
    restart(&rig);
    assert_int_equal(stream_named(rig, "s")->partitions[0]->start, start);
    compact(rig);
    publish_large(rig, "s", 40, 100000);
    p = stream_named(rig, "s")->partitions[0];
    assert_true(p->start > start && p->end == 140);
    restart(&rig);
    assert_int_equal(stream_count(stream_named(rig, "s")->queue), 140 - stream_named(rig, "s")->partitions[0]->start);
    end(rig);
}

/* As Kafka's users know it: a file goes when what is left without it is enough. */
static void retention_that_keeps_so_much(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_long(&t.w, "x-max-length-bytes", 3 << 20);
    amqp_put_bool(&t.w, "x-stream-length-kept", true);
    declare(rig, "s", writer_slice(&t.w));
    struct partition *p = stream_named(rig, "s")->partitions[0];
    for (unsigned i = 0; i < 100; i++) {
        publish_large(rig, "s", 1, 100000);
        assert_true(p->start == 0 || stream_partition_bytes(p) >= 3 << 20);
        assert_true(stream_partition_bytes(p) <= 5u << 20);
    }
    assert_in_range(p->start, 50, 75);
    end(rig);
}

static void retention_by_age(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_str(&t.w, "x-max-age", slice_str("1m"));
    declare(rig, "s", writer_slice(&t.w));
    put_numbers(rig, "s", 0, 5);
    rig_pass(rig, 61000);
    put_numbers(rig, "s", 5, 5); /* the old segment is sealed */
    rig_pass(rig, 20000);
    assert_int_equal(stream_named(rig, "s")->partitions[0]->start, 5);
    consume_at(rig, "s", "c", "first", 0);
    assert_string_equal(rig_delivered(rig), numbers(5, 9));
    end(rig);
}

/* Nobody publishes any more after a restart. */
static void retention_by_age_after_a_restart(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_str(&t.w, "x-max-age", slice_str("1m"));
    amqp_put_long(&t.w, "x-stream-max-segment-size-bytes", 65536);
    declare(rig, "s", writer_slice(&t.w));
    publish_large(rig, "s", 5, 100000);
    compact(rig);
    restart(&rig);
    assert_int_equal(stream_named(rig, "s")->partitions[0]->start, 0);
    rig_pass(rig, 90000);
    assert_int_equal(stream_named(rig, "s")->partitions[0]->start, 4);
    end(rig);
}

static void trouble_with_the_disk(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1, 0);
    rig->log->streams->fail_writes = 2;
    put_numbers(rig, "s", 0, 5);
    assert_int_equal(stream_named(rig, "s")->partitions[0]->written, 0);
    consume_at(rig, "s", "c", "first", 0); /* what is durable in the journal can be read all the same */
    assert_string_equal(rig_delivered(rig), numbers(0, 4));
    cancel(rig, "c");
    rig_pass(rig, 3000);
    assert_int_equal(stream_named(rig, "s")->partitions[0]->written, 5);
    compact(rig);
    restart(&rig);
    rig->log->streams->read_err = -5;
    consume_at(rig, "s", "c", "first", 0);
    assert_string_equal(rig_delivered(rig), "");
    rig->log->streams->read_err = 0;
    rig_pass(rig, 1500);
    assert_string_equal(rig_delivered(rig), numbers(0, 4));
    cancel(rig, "c");
    restart(&rig);
    rig->log->streams->read_err = -84;
    consume_at(rig, "s", "c", "first", 0);
    rig_pass(rig, 3000);
    assert_string_equal(rig_delivered(rig), "");
    rig->log->streams->read_err = 0;
    cancel(rig, "c");
    end(rig);
}

/* A read that fails leaves nothing behind that one of its readers could come upon while the other still holds it. */
static void two_readers_of_a_read_that_fails(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1, 0);
    put_numbers(rig, "s", 0, 5);
    compact(rig);
    restart(&rig);
    rig->log->streams->read_err = -5;
    consume_at(rig, "s", "c", "first", 0);
    consume_at(rig, "s", "d", "first", 0);
    rig_pass(rig, 3000); /* both wait for the same read */
    assert_string_equal(rig_delivered(rig), "");
    rig->log->streams->read_err = 0;
    rig_pass(rig, 1500);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 10);
    end(rig);
}

/* However much waits for a disk that takes nothing: who consumes goes on. */
static void a_full_disk_stops_nobody(void **state)
{
    (void)state;
    struct rig *rig = begin();
    rig->check = false;
    declare_stream(rig, "s", 1, 0);
    declare(rig, "q", (struct slice){0});
    put(rig, "q", "m");
    rig->log->streams->fail_writes = UINT32_MAX;
    publish_large(rig, "s", 700, 100000);
    assert_true(rig->b->streams.pending_bytes > 64u << 20);
    rig_clear(rig);
    ASK(GET, "q", NULL, NULL, ASK_NO_ACK);
    assert_string_equal(rig_delivered(rig), "m");
    rig->log->streams->fail_writes = 0;
    rig_pass(rig, 1500);
    assert_int_equal(rig->b->streams.pending_bytes, 0);
    end(rig);
}

/* More partitions than jobs can be on their way: a time is looked for in one after another. */
static void a_time_in_many_partitions(void **state)
{
    (void)state;
    struct rig *rig = begin();
    rig->check = false;
    declare_stream(rig, "s", 700, 0);
    put_numbers(rig, "s", 0, 1400);
    compact(rig);
    restart(&rig);
    rig->check = false;
    consume_at(rig, "s", "c", "1h", 0);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 1400);
    end(rig);
}

/* Small segments are given up before they are ever synced. */
static void counts_what_is_kept(void **state)
{
    (void)state;
    struct rig *rig = begin();
    rig->check = false;
    declare_stream(rig, "s", 1, 1 << 20);
    put_numbers(rig, "s", 0, 5);
    compact(rig);
    publish_large(rig, "s", 60, 100000);
    struct partition *p = stream_named(rig, "s")->partitions[0];
    assert_true(p->start > p->synced.end);
    assert_int_equal(rig->b->totals.stream_records, p->end - p->start);
    restart(&rig);
    p = stream_named(rig, "s")->partitions[0];
    assert_int_equal(rig->b->totals.stream_records, p->end - p->start);
    ASK(QUEUE_DELETE, "s", NULL, NULL, 0);
    assert_int_equal(rig->b->totals.stream_records, 0);
    end(rig);
}

/* After a failed sync the journal keeps everything. */
static void failed_sync(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1, 0);
    put_numbers(rig, "s", 0, 5);
    lsn_t first = rig->log->first;
    rig->log->streams->fail_syncs = 1;
    rig_ask_full(rig, CMD_ADMIN, 1, 0, NULL, NULL, NULL, (struct slice){0}, 0, OP_COMPACT);
    rig_pass(rig, 5000);
    assert_int_equal(rig->log->first, first);
    assert_int_equal(rig->b->totals.compactions, 0);
    restart(&rig);
    consume_at(rig, "s", "c", "first", 0);
    assert_string_equal(rig_delivered(rig), numbers(0, 4));
    compact(rig);
    end(rig);
}

static void partitions(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 3, 0);
    put_numbers(rig, "s", 0, 30);
    consume_at(rig, "s", "c", "first", 0);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 30);
    uint64_t next[4] = {0};
    for (unsigned i = 0; i < 30; i++) {
        struct effect *e = rig_nth(rig, EFF_DELIVER, i);
        assert_in_range(e->origin, 1, 3);
        assert_int_equal(e->count, next[e->origin]++);
    }
    cancel(rig, "c");
    struct table t;
    amqp_put_long(&table(&t)->w, "x-stream-offset", 4);
    rig_ask(rig, CMD_CONSUME, 1, 1, "s", "c", NULL, writer_slice(&t.w), 0);
    assert_non_null(strstr(rig_error(rig), "406 an offset needs 'x-stream-partition'"));
    rig_plain(rig, CMD_CHANNEL_CLOSE, 1, 1, 0, 0);
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 1, 0, 0);
    rig_plain(rig, CMD_QOS, 1, 1, 100, 0);
    rig_clear(rig);
    amqp_put_long(&t.w, "x-stream-partition", 1);
    rig_ask(rig, CMD_CONSUME, 1, 1, "s", "c", NULL, writer_slice(&t.w), 0);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 6);
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->count, 4);
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->origin, 2);
    end(rig);
}

/* By the routing key, or what the message says: as a Kafka client's partitioner would do it. */
static void equal_keys_stay_together(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 5, 0);
    ASK(EXCHANGE_DECLARE, "t", "topic", NULL, ASK_DURABLE);
    ASK(QUEUE_BIND, "s", "t", "#", 0);
    for (unsigned i = 0; i < 10; i++)
        rig_publish(rig, 1, 1, "t", i % 2 ? "foobar" : "21", "by routing key", true);
    struct table t;
    amqp_put_str(&table(&t)->w, "x-stream-key", slice_str("21"));
    struct amqp_props props = {.present = AMQP_HEADERS, .headers = writer_slice(&t.w)};
    rig_publish_with(rig, 1, 1, "", "s", slice_str("by header"), &props, 0);
    struct partition *const *p = stream_named(rig, "s")->partitions;
    uint64_t counts[5] = {0}, foobar = 5, twenty_one = 6;
    counts[murmur2_partition(slice_str("foobar"), 5)] += foobar;
    counts[murmur2_partition(slice_str("21"), 5)] += twenty_one;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(p[i]->end, counts[i]);
    end(rig);
}

static void refusals(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1, 0);
    static const struct {
        enum command_type type;
        uint32_t flags;
        const char *error;
    } rows[] = {{CMD_CONSUME, 0, "406 consumer prefetch count is not set for 'queue 's' in vhost '/''"},
                {CMD_GET, 0, "540 basic.get not supported by stream queues queue 's' in vhost '/'"},
                {CMD_QUEUE_PURGE, 0, "540 queue.purge not supported by stream queues queue 's' in vhost '/'"},
                {CMD_QUEUE_DELETE, ASK_IF_EMPTY, "540 "},
                {CMD_QUEUE_DECLARE, 0, "406 invalid property 'non-durable'"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct table t;
        amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
        const char *name = rows[i].type == CMD_QUEUE_DECLARE ? "new" : "s";
        rig_ask(rig, rows[i].type, 1, 1, name, NULL, NULL, writer_slice(&t.w), rows[i].flags);
        if (!strstr(rig_error(rig), rows[i].error))
            rig_fail("%zu: %s\n", i, rig_error(rig));
        rig_plain(rig, CMD_SESSION_CLOSE, 1, 0, 0, 0);
        assert_true(begin_with(rig));
        rig_clear(rig);
    }
    ASK(EXCHANGE_DECLARE, "x", "x-stream", NULL, ASK_DURABLE);
    assert_string_equal(rig_error(rig), "406 unknown exchange type 'x-stream'");
    rig_clear(rig);
    rig_ask_full(rig, CMD_ADMIN, 1, 0, "x", "/", "x-stream", (struct slice){0}, ASK_DURABLE, OP_EXCHANGE_PUT);
    assert_non_null(strstr(rig_error(rig), "unknown exchange type 'x-stream'"));
    end(rig);
}

static void bind_source(struct rig *rig, const char *queue, const char *stream, const char *key, const char *from)
{
    char source[64];
    struct table t;
    table(&t);
    if (from)
        amqp_put_str(&t.w, "x-stream-offset", slice_str(from));
    snprintf(source, sizeof source, "amq.stream.%s", stream);
    rig_ask(rig, CMD_QUEUE_BIND, 1, 1, queue, source, key, writer_slice(&t.w), 0);
    assert_string_equal(rig_error(rig), "");
    rig_clear(rig);
}

static const char *get_all(struct rig *rig, const char *queue)
{
    rig_clear(rig);
    while (rig_ready(rig, queue) > 0 && rig_count(rig, EFF_GET_EMPTY) == 0)
        ASK(GET, queue, NULL, NULL, ASK_NO_ACK);
    return rig_delivered(rig);
}

static void a_bound_queue_gets_each_record_once(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1, 0);
    declare(rig, "q", (struct slice){0});
    declare(rig, "r", (struct slice){0});
    put_numbers(rig, "s", 0, 5);
    bind_source(rig, "q", "s", "", "first");
    bind_source(rig, "r", "s", "#", NULL);
    declare(rig, "named", (struct slice){0});
    bind_source(rig, "named", "s", "named", NULL); /* as pika does it without a key */
    put_numbers(rig, "s", 5, 5);
    assert_int_equal(rig_ready(rig, "named"), 5);
    assert_int_equal(rig_ready(rig, "q"), 10);
    assert_int_equal(rig_ready(rig, "r"), 5);
    rig_assert_replays(rig);
    restart(&rig);
    put_numbers(rig, "s", 10, 5);
    compact(rig);
    restart(&rig);
    put_numbers(rig, "s", 15, 5);
    restart(&rig);
    assert_string_equal(get_all(rig, "q"), numbers(0, 19));
    assert_string_equal(get_all(rig, "r"), numbers(5, 19));
    ASK(QUEUE_UNBIND, "q", "amq.stream.s", "", 0); /* other arguments: another binding */
    put_numbers(rig, "s", 20, 1);
    assert_string_equal(get_all(rig, "q"), "20");
    ASK(QUEUE_DELETE, "s", NULL, NULL, 0);
    assert_string_equal(rig_error(rig), "");
    restart(&rig);
    assert_int_equal(rig_ready(rig, "q"), 0);
    end(rig);
}

/* Every prefix of the journal: the queue holds what is below the cursor, and after the rest was fed each record once. */
static void fed_once_over_crashes(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.compact_every = 9});
    declare_stream(rig, "s", 1, 0);
    declare(rig, "q", (struct slice){0});
    bind_source(rig, "q", "s", "", "first");
    size_t bound = rig->log->count;
    for (unsigned i = 0; i < 40; i++)
        put_numbers(rig, "s", i, 1);
    size_t first = rig->log->first > bound ? rig->log->first : bound;
    for (size_t n = first; n <= rig->log->count; n++) {
        struct rig_log *copy = rig_log_copy(rig->log, n);
        const char *why;
        struct rig *other = rig_try(copy, &rig->options, rig->wall, &why);
        if (is_whole(copy)) {
            assert_null(why);
            assert_true(begin_with(other));
            rig_step(other);
            uint64_t end_offset = stream_named(other, "s")->partitions[0]->end;
            assert_int_equal(rig_ready(other, "q"), end_offset);
        }
        rig_free(other);
        rig_log_free(copy);
    }
    end(rig);
}

static void a_feeder_waits_for_its_consumers(void **state)
{
    (void)state;
    struct rig *rig = begin();
    rig->check = false;
    declare_stream(rig, "s", 1, 3 << 20);
    declare(rig, "q", (struct slice){0});
    bind_source(rig, "q", "s", "", NULL);
    publish_large(rig, "s", 100, 100000);
    assert_in_range(rig_ready(rig, "q"), 40, 50); /* about 4 MiB */
    assert_int_equal(stream_named(rig, "s")->partitions[0]->start,
                     stream_named(rig, "s")->partitions[0]->sealed[0].base); /* nothing is given up before it is fed */
    assert_true(stream_named(rig, "s")->partitions[0]->start <= rig_ready(rig, "q"));
    unsigned got = 0;
    while (rig_ready(rig, "q") > 0 && got < 200) {
        ASK(GET, "q", NULL, NULL, ASK_NO_ACK);
        rig_clear(rig);
        got++;
    }
    assert_int_equal(got, 100);
    end(rig);
}

static void policy(struct rig *rig, const char *pattern, const char *key, int64_t value)
{
    struct table t;
    char why[200];
    amqp_put_long(&table(&t)->w, key, value);
    assert_true(policy_put(rig->b, vhost_find(rig->b, slice_str("/")), slice_str("p"), slice_str(pattern), APPLY_QUEUES,
                           1, writer_slice(&t.w), false, why, sizeof why));
    (void)log_object(rig->b, &policy_find(vhost_find(rig->b, slice_str("/")), slice_str("p"), false)->object);
    rig_step(rig);
}

/* A queue that refuses what is too much is not given it. What fits into no room at all it refuses all the same. */
static void a_full_queue_loses_nothing(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    declare_stream(rig, "s", 1, 0);
    amqp_put_str(&table(&t)->w, "x-overflow", slice_str("reject-publish"));
    amqp_put_long(&t.w, "x-max-length", 10);
    declare(rig, "q", writer_slice(&t.w));
    amqp_put_str(&table(&t)->w, "x-overflow", slice_str("reject-publish"));
    amqp_put_long(&t.w, "x-max-length-bytes", 20);
    declare(rig, "r", writer_slice(&t.w));
    put_numbers(rig, "s", 0, 20);
    put(rig, "s", "more bytes than any limit allows");
    put_numbers(rig, "s", 20, 20);
    bind_source(rig, "q", "s", "", "first");
    bind_source(rig, "r", "s", "", "first");
    assert_int_equal(rig_ready(rig, "q"), 10);
    char all[300];
    snprintf(all, sizeof all, "%s more bytes than any limit allows", numbers(0, 19));
    snprintf(all + strlen(all), sizeof all - strlen(all), " %s", numbers(20, 39));
    assert_string_equal(get_all(rig, "q"), all);
    snprintf(all, sizeof all, "%s", numbers(0, 39));
    assert_string_equal(get_all(rig, "r"), all);
    end(rig);
}

/* What a queue pushes out goes to the stream that it came from, and ends there. */
static void no_cycle_through_a_stream(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    declare_stream(rig, "s", 1, 0);
    amqp_put_str(&table(&t)->w, "x-dead-letter-exchange", (struct slice){0});
    amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str("s"));
    amqp_put_long(&t.w, "x-max-length", 1);
    declare(rig, "q", writer_slice(&t.w));
    bind_source(rig, "q", "s", "", "first");
    put_numbers(rig, "s", 0, 3);
    assert_int_equal(stream_named(rig, "s")->partitions[0]->end, 5);
    assert_string_equal(get_all(rig, "q"), "2");
    ASK(GET, "q", NULL, NULL, 0);
    put_numbers(rig, "s", 3, 1);
    rig_clear(rig);
    ASK(GET, "q", NULL, NULL, 0);
    assert_string_equal(rig_delivered(rig), "3");
    rig_plain(rig, CMD_NACK, 1, 1, rig_nth(rig, EFF_GET_OK, 0)->number, 0); /* who rejects gets it again */
    assert_string_equal(get_all(rig, "q"), "3");
    end(rig);
}

/* Whoever waits for room hears of it, however it comes. */
static void room_for_a_feeder(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1});
    struct table t;
    rig->check = false;
    declare_stream(rig, "s", 1, 0);
    amqp_put_str(&table(&t)->w, "x-overflow", slice_str("reject-publish"));
    declare(rig, "q", writer_slice(&t.w));
    policy(rig, "q", "max-length", 10);
    put_numbers(rig, "s", 0, 100);
    bind_source(rig, "q", "s", "", "first");
    assert_int_equal(rig_ready(rig, "q"), 10);
    policy(rig, "q", "max-length", 20);
    rig_step(rig);
    assert_int_equal(rig_ready(rig, "q"), 20);
    ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
    assert_int_equal(rig_ready(rig, "q"), 20);
    assert_string_equal(get_all(rig, "q"), numbers(20, 99));
    end(rig);
}

/* A step with large records is a transaction in pieces: none of them may take the memory of the others with it. */
static void large_records_are_fed(void **state)
{
    (void)state;
    struct rig *rig = begin();
    rig->check = false;
    declare_stream(rig, "s", 1, 0);
    declare(rig, "q", (struct slice){0});
    rig->hold = true; /* so that one step takes them all */
    publish_large(rig, "s", 2, 1500000);
    bind_source(rig, "q", "s", "", "first");
    rig->hold = false;
    rig_step(rig);
    assert_true(rig_ready(rig, "q") >= 1);
    restart(&rig);
    assert_int_equal(rig_ready(rig, "q"), 2);
    end(rig);
}

static void keys_choose(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1, 0);
    declare(rig, "q", (struct slice){0});
    ASK(EXCHANGE_DECLARE, "t", "topic", NULL, ASK_DURABLE);
    ASK(QUEUE_BIND, "s", "t", "#", 0);
    bind_source(rig, "q", "s", "a.*", NULL);
    rig_publish(rig, 1, 1, "t", "a.b", "1", true);
    rig_publish(rig, 1, 1, "t", "b.b", "2", true);
    rig_publish(rig, 1, 1, "t", "a.c", "3", false);
    rig_clear(rig);
    assert_string_equal(get_all(rig, "q"), "1 3");
    rig_clear(rig);
    struct table t;
    rig_ask(rig, CMD_EXCHANGE_BIND, 1, 1, "t", "amq.stream.s", "", writer_slice(&table(&t)->w), 0);
    assert_non_null(strstr(rig_error(rig), "only a queue can be bound to 'amq.stream.s', not an exchange"));
    end(rig);
}

static void deleted_while_busy(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 2, 0);
    put_numbers(rig, "s", 0, 50);
    compact(rig);
    restart(&rig);
    rig->slow_store = true;
    rig->chance = 0;
    put_numbers(rig, "s", 50, 10);
    consume_at(rig, "s", "c", "first", 0); /* reads on their way */
    ASK(QUEUE_DELETE, "s", NULL, NULL, 0);
    assert_string_equal(rig_error(rig), "");
    declare_stream(rig, "s", 1, 0);
    rig->slow_store = false;
    put_numbers(rig, "s", 0, 3);
    rig_clear(rig);
    consume_at(rig, "s", "d", "first", 0);
    assert_string_equal(rig_delivered(rig), "0 1 2");
    assert_int_equal(rig->b->streams.jobs, 0);
    assert_int_equal(rig->b->streams.pending_bytes, 0);
    assert_true(rig->log->streams->drops >= 2);
    restart(&rig);
    assert_int_equal(stream_count(stream_named(rig, "s")->queue), 3);
    end(rig);
}

static void freed_while_busy(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 2, 0);
    put_numbers(rig, "s", 0, 50);
    compact(rig);
    rig->slow_store = true;
    rig->chance = 0;
    put_numbers(rig, "s", 50, 10);
    consume_at(rig, "s", "c", "1h", 0); /* looks for a time */
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

static bool storm(struct rig *rig)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    if (!begin_with(rig) || !rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "s", NULL, NULL, writer_slice(&t.w), ASK_DURABLE) ||
        !rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "q", NULL, NULL, (struct slice){0}, ASK_DURABLE) ||
        !rig_ask(rig, CMD_QUEUE_BIND, 1, 1, "q", "amq.stream.s", "", (struct slice){0}, 0))
        return false;
    for (unsigned i = 0; i < 12; i++)
        if (!rig_publish(rig, 1, 1, "", "s", "body", true))
            return false;
    rig_plain(rig, CMD_QOS, 1, 1, 100, 0);
    amqp_put_str(&table(&t)->w, "x-stream-offset", slice_str("first"));
    if (!rig_ask(rig, CMD_CONSUME, 1, 1, "s", "c", NULL, writer_slice(&t.w), 0))
        return false;
    rig_ask_full(rig, CMD_ADMIN, 1, 0, NULL, NULL, NULL, (struct slice){0}, 0, OP_COMPACT);
    amqp_put_str(&table(&t)->w, "x-stream-offset", slice_str("1h"));
    return rig_ask(rig, CMD_CONSUME, 1, 1, "s", "d", NULL, writer_slice(&t.w), 0) &&
           rig_ask(rig, CMD_QUEUE_DELETE, 1, 1, "s", NULL, NULL, (struct slice){0}, 0);
}

static void without_memory(void **state)
{
    (void)state;
    each_allocation_fails(storm, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_again_and_again),
        cmocka_unit_test(begins_where_it_is_told),
        cmocka_unit_test(begins_in_the_future),
        cmocka_unit_test(prefetch_is_credit),
        cmocka_unit_test(survives_restarts_and_compactions),
        cmocka_unit_test(every_prefix_replays),
        cmocka_unit_test(synced_as_they_grow),
        cmocka_unit_test(retention_by_size),
        cmocka_unit_test(retention_that_keeps_so_much),
        cmocka_unit_test(retention_by_age),
        cmocka_unit_test(retention_by_age_after_a_restart),
        cmocka_unit_test(trouble_with_the_disk),
        cmocka_unit_test(two_readers_of_a_read_that_fails),
        cmocka_unit_test(a_full_disk_stops_nobody),
        cmocka_unit_test(a_time_in_many_partitions),
        cmocka_unit_test(counts_what_is_kept),
        cmocka_unit_test(failed_sync),
        cmocka_unit_test(partitions),
        cmocka_unit_test(equal_keys_stay_together),
        cmocka_unit_test(refusals),
        cmocka_unit_test(a_bound_queue_gets_each_record_once),
        cmocka_unit_test(fed_once_over_crashes),
        cmocka_unit_test(a_feeder_waits_for_its_consumers),
        cmocka_unit_test(a_full_queue_loses_nothing),
        cmocka_unit_test(no_cycle_through_a_stream),
        cmocka_unit_test(room_for_a_feeder),
        cmocka_unit_test(large_records_are_fed),
        cmocka_unit_test(keys_choose),
        cmocka_unit_test(deleted_while_busy),
        cmocka_unit_test(freed_while_busy),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
