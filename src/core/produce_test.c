/* Batches of Kafka clients in the core: offsets, duplicates, what is journalled, and who reads them. */
#include "core/broker_words_test.h"
#include "core/stream_int.h"
#include "fmt/record_batch.h"

static void declare_stream(struct rig *rig, int64_t partitions)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_long(&t.w, "x-stream-partitions", partitions);
    declare(rig, "s", writer_slice(&t.w));
    rig_clear(rig);
}

static struct stream *the_stream(struct rig *rig)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str("s"))->stream;
}

static void compact(struct rig *rig)
{
    uint64_t before = rig->b->totals.compactions;
    compact_start(rig->b);
    while (rig->b->totals.compactions == before)
        rig_step(rig);
    rig_clear(rig);
}

struct from { /* a producer; id -1: none */
    int64_t id;
    int16_t epoch;
    int32_t sequence;
};
static const struct from nobody = {-1, -1, -1};

/* A batch with the numbers from first on as values and keys. NULL: no memory. */
static struct msg *batch_of(struct rig *rig, struct from from, unsigned first, unsigned count)
{
    static uint8_t bytes[64 << 10];
    char text[16];
    struct writer w = writer_of(bytes, sizeof bytes);
    struct record_batch_writer batch;
    struct record_batch head = record_batch_head(0, rig->wall);
    head.producer_id = from.id;
    head.producer_epoch = from.epoch;
    head.base_sequence = from.sequence;
    record_batch_begin(&batch, &w, &head);
    for (unsigned i = first; i < first + count; i++) {
        snprintf(text, sizeof text, "%u", i);
        struct slice value = slice_str(text);
        assert_true(record_batch_put(&batch, rig->wall, &value, &value, NULL, 0));
    }
    struct slice made = record_batch_finish(&batch, -1), none = {0};
    struct msg *msg = msg_new(broker_heap(rig->b), none, none, none, made.len);
    if (!msg)
        return NULL;
    memcpy(msg_body_room(msg), made.ptr, made.len);
    msg->flags = MSG_BATCH | MSG_PERSISTENT;
    return msg;
}

static bool produce_to(struct rig *rig, uint64_t stream, unsigned partition, struct from from, unsigned first,
                       unsigned count)
{
    struct msg *msg = batch_of(rig, from, first, count);
    if (!msg)
        return false;
    struct command *c = rig_command(rig, 0, CMD_PRODUCE, 1, (uint16_t)partition);
    c->msg = msg;
    c->number = stream;
    c->origin = 77;
    rig_step(rig);
    return true;
}

/* The base offset, or minus the result. */
static int64_t produce(struct rig *rig, unsigned partition, struct from from, unsigned first, unsigned count)
{
    rig_clear(rig);
    assert_true(produce_to(rig, the_stream(rig)->queue->id, partition, from, first, count));
    struct effect *e = rig_nth(rig, EFF_PRODUCED, 0);
    assert_non_null(e);
    assert_int_equal(e->origin, 77);
    assert_int_equal(e->channel, partition);
    assert_true(e->lsn <= rig->b->appended && (e->flags > PRODUCE_DUPLICATE || e->lsn > 0));
    return e->flags > PRODUCE_DUPLICATE ? -e->flags : (int64_t)e->number;
}

static void consume_first(struct rig *rig)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-stream-offset", slice_str("first"));
    rig_clear(rig);
    rig_plain(rig, CMD_QOS, 1, 1, 10000, 0);
    assert_true(rig_ask(rig, CMD_CONSUME, 1, 1, "s", "c", NULL, writer_slice(&t.w), 0));
    assert_string_equal(rig_error(rig), "");
}

static void cancel(struct rig *rig)
{
    ASK(CANCEL, "c", NULL, NULL, 0);
    rig_clear(rig);
}

static void offsets_and_readers(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, 1);
    assert_int_equal(produce(rig, 0, nobody, 0, 3), 0);
    put(rig, "s", "3"); /* messages and batches of one stream */
    put(rig, "s", "4");
    assert_int_equal(produce(rig, 0, nobody, 5, 2), 5);
    assert_int_equal(rig->b->totals.stream_records, 7);
    consume_first(rig);
    assert_string_equal(rig_delivered(rig), "0 1 2 3 4 5 6");
    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(rig_nth(rig, EFF_DELIVER, i)->count, i);
    assert_string_equal(produce(rig, 0, nobody, 7, 2) == 7 ? rig_delivered(rig) : "", "7 8"); /* and who waits */
    cancel(rig);
    end(rig);
}

static void survive_restarts_and_compactions(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, 1);
    assert_int_equal(produce(rig, 0, nobody, 0, 3), 0);
    restart(&rig); /* from the journal */
    assert_int_equal(produce(rig, 0, nobody, 3, 2), 3);
    compact(rig);
    restart(&rig); /* from the files */
    assert_int_equal(the_stream(rig)->partitions[0]->synced.end, 5);
    assert_int_equal(produce(rig, 0, nobody, 5, 2), 5);
    restart(&rig); /* from both */
    consume_first(rig);
    assert_string_equal(rig_delivered(rig), "0 1 2 3 4 5 6");
    assert_int_equal(rig->b->totals.stream_records, 7);
    end(rig);
}

static void a_duplicate_has_its_old_offset(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, 1);
    assert_int_equal(produce(rig, 0, (struct from){9, 0, 0}, 0, 3), 0);
    assert_int_equal(produce(rig, 0, (struct from){9, 0, 3}, 3, 1), 3);
    assert_int_equal(produce(rig, 0, (struct from){9, 0, 0}, 0, 3), 0);
    assert_int_equal(rig_nth(rig, EFF_PRODUCED, 0)->flags, PRODUCE_DUPLICATE);
    assert_int_equal(produce(rig, 0, (struct from){9, 0, 6}, 6, 1), -PRODUCE_OUT_OF_ORDER);
    for (int round = 0; round < 4; round++) { /* journal, snapshot, both */
        if (round % 2)
            compact(rig);
        restart(&rig);
        assert_int_equal(produce(rig, 0, (struct from){9, 0, 0}, 0, 3), 0);
        assert_int_equal(produce(rig, 0, (struct from){9, 0, 3}, 3, 1), 3);
    }
    assert_int_equal(produce(rig, 0, (struct from){9, 0, 4}, 4, 1), 4);
    assert_int_equal(produce(rig, 0, (struct from){9, 1, 0}, 5, 1), 5);
    assert_int_equal(produce(rig, 0, (struct from){9, 0, 5}, 5, 1), -PRODUCE_OLD_EPOCH);
    consume_first(rig);
    assert_string_equal(rig_delivered(rig), "0 1 2 3 4 5");
    end(rig);
}

static void producer_ids_are_never_given_again(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t last = 0;
    for (unsigned i = 0; i < 3000; i++) {
        rig_clear(rig);
        rig_plain(rig, CMD_PRODUCER_ID, 1, 0, 0, 0);
        struct effect *e = rig_nth(rig, EFF_ANSWER, 0);
        assert_true(e->answer->number > last && e->lsn > 0);
        last = e->answer->number;
        if (i % 500 == 499)
            restart(&rig);
        if (i % 700 == 699)
            compact(rig);
    }
    end(rig);
}

static void refusals(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, 2);
    declare(rig, "q", (struct slice){0});
    assert_int_equal(produce(rig, 1, nobody, 0, 1), 0);
    assert_int_equal(produce(rig, 2, nobody, 0, 1), -PRODUCE_UNKNOWN);
    uint64_t q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str("q"))->id;
    assert_true(produce_to(rig, q, 0, nobody, 0, 1));
    assert_int_equal(rig_nth(rig, EFF_PRODUCED, 1)->flags, PRODUCE_UNKNOWN);
    char why[64];
    struct user *guest = user_find(rig->b, slice_str("guest"));
    struct slice all = slice_str(".*"), none = {0};
    assert_true(permission_put(rig->b, guest, vhost_find(rig->b, slice_str("/")), all, none, all, why, sizeof why));
    assert_int_equal(produce(rig, 1, nobody, 0, 1), -PRODUCE_REFUSED);
    assert_true(permission_put(rig->b, guest, vhost_find(rig->b, slice_str("/")), all, all, all, why, sizeof why));
    rig_plain(rig, CMD_ALARM, 1, 0, ALARM_DISK | ALARM_DISK_HARD, 0);
    assert_int_equal(produce(rig, 1, nobody, 0, 1), -PRODUCE_NO_ROOM);
    rig_plain(rig, CMD_ALARM, 1, 0, 0, 0);
    assert_int_equal(produce(rig, 1, nobody, 1, 1), 1);
    end(rig);
}

static void bound_queues_get_each_record_once(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.compact_every = 11});
    declare_stream(rig, 1);
    declare(rig, "q", (struct slice){0});
    ASK(QUEUE_BIND, "q", "amq.stream.s", "", 0);
    for (unsigned i = 0; i < 40; i += 4) {
        assert_int_equal(produce(rig, 0, nobody, i, 4), i);
        if (i % 12 == 8)
            restart(&rig);
    }
    rig_step(rig);
    assert_int_equal(rig_ready(rig, "q"), 40);
    consume(rig, "q", "c", ASK_NO_ACK);
    struct effect *e = rig_nth(rig, EFF_DELIVER, 39);
    assert_string_equal(rig_body(e), "39");
    assert_true(slice_is(msg_key(e->msg), "39"));
    end(rig);
}

static void trouble_with_the_disk(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, 1);
    rig->log->streams->fail_writes = 2;
    assert_int_equal(produce(rig, 0, nobody, 0, 3), 0);
    consume_first(rig);
    assert_string_equal(rig_delivered(rig), ""); /* read from files only */
    rig_pass(rig, 3000);
    assert_string_equal(rig_delivered(rig), "0 1 2");
    end(rig);
}

static bool storm(struct rig *rig)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    if (!begin_with(rig) || !rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "s", NULL, NULL, writer_slice(&t.w), ASK_DURABLE))
        return false;
    const struct queue *q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str("s"));
    for (unsigned i = 0; q && i < 6; i++)
        if (!produce_to(rig, q->id, 0, (struct from){(int64_t)i % 3, 0, (int32_t)i / 3}, i, 1))
            return false;
    return true;
}

static uint64_t written(struct rig *rig)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < rig->effect_count; i++)
        count += rig->effects[i].type == EFF_PRODUCED && rig->effects[i].flags == PRODUCE_OK;
    return count;
}

static void all_there(struct rig *rig, uint64_t count)
{
    assert_int_equal(rig->b->totals.stream_records, count);
}

/* What was answered with an offset is there after a restart, and nothing else. */
static void without_memory(void **state)
{
    (void)state;
    each_allocation_fails(storm, written, all_there);
}

/* What comes in bulk is gathered for larger writes, unless somebody waits for it; what is little is not. */
static void bulk_is_gathered(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, 1);
    const unsigned *writes = &rig->log->streams->writes;
    assert_int_equal(produce(rig, 0, nobody, 0, 3), 0);
    assert_int_equal(*writes, 1);
    assert_int_equal(produce(rig, 0, nobody, 3, 2000), 3);
    assert_int_equal(produce(rig, 0, nobody, 2003, 2000), 2003);
    assert_int_equal(*writes, 1);
    rig_pass(rig, 5);
    assert_int_equal(*writes, 2);
    unsigned at = 4003, batches = 0;
    for (; *writes == 2; at += 2000, batches++)
        assert_int_equal(produce(rig, 0, nobody, at, 2000), at);
    assert_in_range(batches, 10, 30); /* half a MiB */
    assert_int_equal(produce(rig, 0, nobody, at, 2000), at);
    assert_int_equal(*writes, 3);
    struct fetch *f = fetch_new(FETCH_RECORDS, 1);
    f->bytes_min = 1;
    f->bytes_max = 1 << 20;
    f->wait_ms = 500;
    f->rows[0].stream = the_stream(rig)->queue->id;
    f->rows[0].offset = at;
    f->rows[0].bytes_max = 1 << 20;
    rig_clear(rig);
    struct command *c = rig_command(rig, 0, CMD_FETCH, 1, 0);
    c->fetch = f;
    rig_step(rig); /* no time passes */
    assert_int_equal(*writes, 4);
    struct effect *e = rig_nth(rig, EFF_FETCHED, 0);
    assert_true(e && e->fetch->rows[0].until == at + 2000);
    assert_int_equal(produce(rig, 0, nobody, at + 2000, 2000), at + 2000);
    assert_int_equal(*writes, 4);
    consume_first(rig);
    rig_pass(rig, 5);
    assert_int_equal(produce(rig, 0, nobody, at + 4000, 2000), at + 4000);
    assert_int_equal(*writes, 6); /* a consumer waits */
    cancel(rig);
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offsets_and_readers),
        cmocka_unit_test(survive_restarts_and_compactions),
        cmocka_unit_test(a_duplicate_has_its_old_offset),
        cmocka_unit_test(producer_ids_are_never_given_again),
        cmocka_unit_test(refusals),
        cmocka_unit_test(bulk_is_gathered),
        cmocka_unit_test(bound_queues_get_each_record_once),
        cmocka_unit_test(trouble_with_the_disk),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
