/* What the tests of transactions say: begin, add, produce, end as commands of a producer, and what can be read then. */
#ifndef MILLRACE_CORE_TXN_WORDS_TEST_H
#define MILLRACE_CORE_TXN_WORDS_TEST_H

#include "core/broker_words_test.h"
#include "core/group.h"
#include "core/stream_int.h"
#include "core/txn_int.h"
#include "fmt/record_batch.h"

RIG_FN void declare_stream(struct rig *rig, const char *name, int64_t partitions)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_long(&t.w, "x-stream-partitions", partitions);
    declare(rig, name, writer_slice(&t.w));
    rig_clear(rig);
}

RIG_FN struct stream *stream_named(struct rig *rig, const char *name)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str(name))->stream;
}

RIG_FN void compact(struct rig *rig)
{
    uint64_t before = rig->b->totals.compactions;
    compact_start(rig->b);
    while (rig->b->totals.compactions == before)
        rig_step(rig);
    rig_clear(rig);
}

struct who { /* a producer, and its next sequence per partition */
    const char *name;
    uint64_t id;
    uint16_t epoch;
    int32_t next[4];
};

struct said {
    bool memory; /* there was some */
    enum txn_result result;
    uint64_t producer;
    uint16_t epoch;
};

RIG_FN struct said said(struct rig *rig)
{
    struct effect *e = rig_nth(rig, EFF_ANSWER, 0);
    assert_non_null(e);
    if (!e->answer)
        return (struct said){.memory = false};
    struct reader r = reader_of(e->answer->fields);
    return (struct said){true, (enum txn_result)e->answer->number, e->answer->number2, reader_u16(&r)};
}

RIG_FN struct said ask(struct rig *rig, enum command_type type, const char *name, struct slice other, uint64_t number,
                       uint32_t flags)
{
    struct slice none = {0};
    rig_clear(rig);
    struct ask *made = ask_new(slice_str(name), other, none, none);
    if (!made)
        return (struct said){.memory = false};
    made->number = number;
    made->flags = flags;
    struct command *c = rig_command(rig, 0, type, 1, 0);
    c->ask = made;
    rig_step(rig);
    return said(rig);
}

RIG_FN struct slice of_producer(struct writer *w, const struct who *who)
{
    writer_u64(w, who->id);
    writer_u16(w, who->epoch);
    return writer_slice(w);
}

RIG_FN enum txn_result init(struct rig *rig, struct who *who)
{
    struct said s = ask(rig, CMD_TXN_INIT, who->name, (struct slice){0}, 60000, 0);
    if (s.memory && s.result == TXN_DONE)
        *who = (struct who){.name = who->name, .id = s.producer, .epoch = s.epoch};
    return s.memory ? s.result : TXN_NO_ROOM;
}

RIG_FN enum txn_result add(struct rig *rig, const struct who *who, const char *stream, uint32_t partition)
{
    uint8_t room[32];
    struct writer w = writer_of(room, sizeof room);
    (void)of_producer(&w, who);
    writer_u64(&w, stream ? stream_named(rig, stream)->queue->id : 4711);
    writer_u32(&w, partition);
    struct said s = ask(rig, CMD_TXN_ADD, who->name, writer_slice(&w), 0, 0);
    return s.memory ? s.result : TXN_NO_ROOM;
}

RIG_FN enum txn_result finish(struct rig *rig, struct who *who, uint32_t flags)
{
    uint8_t room[16];
    struct writer w = writer_of(room, sizeof room);
    struct said s = ask(rig, CMD_TXN_END, who->name, of_producer(&w, who), 0, flags);
    if (s.memory && s.result == TXN_DONE && (flags & ASK_NEXT_EPOCH)) {
        *who = (struct who){.name = who->name, .id = s.producer, .epoch = s.epoch};
    }
    return s.memory ? s.result : TXN_NO_ROOM;
}

/* One batch with the numbers from first on. The base offset, or minus the result. */
RIG_FN int64_t produce(struct rig *rig, struct who *who, const char *stream, unsigned partition, unsigned first,
                       unsigned count, uint32_t flags)
{
    uint8_t bytes[4096];
    char text[16];
    struct writer w = writer_of(bytes, sizeof bytes);
    struct record_batch_writer batch;
    struct record_batch head = record_batch_head(0, rig->wall);
    if (who) {
        head.producer_id = (int64_t)who->id;
        head.producer_epoch = (int16_t)who->epoch;
        head.base_sequence = who->next[partition];
        head.transactional = who->name != NULL;
    }
    record_batch_begin(&batch, &w, &head);
    for (unsigned i = first; i < first + count; i++) {
        snprintf(text, sizeof text, "%u", i);
        struct slice value = slice_str(text);
        assert_true(record_batch_put(&batch, rig->wall, &value, &value, NULL, 0));
    }
    struct slice made = record_batch_finish(&batch, -1), none = {0};
    struct msg *msg = msg_new(broker_heap(rig->b), none, none, none, made.len);
    rig_clear(rig);
    if (!msg)
        return -PRODUCE_NO_MEMORY;
    memcpy(msg_body_room(msg), made.ptr, made.len);
    msg->flags = MSG_BATCH | MSG_PERSISTENT;
    struct command *c = rig_command(rig, 0, CMD_PRODUCE, 1, (uint16_t)partition);
    c->msg = msg;
    c->number = stream_named(rig, stream)->queue->id;
    c->flags = flags;
    rig_step(rig);
    struct effect *e = rig_nth(rig, EFF_PRODUCED, 0);
    assert_non_null(e);
    if (e->flags > PRODUCE_DUPLICATE)
        return -e->flags;
    if (who && e->flags == PRODUCE_OK)
        who->next[partition] += (int32_t)count;
    return (int64_t)e->number;
}

RIG_FN void consume_first(struct rig *rig, const char *stream)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-stream-offset", slice_str("first"));
    rig_clear(rig);
    rig_plain(rig, CMD_QOS, 1, 1, 10000, 0);
    assert_true(rig_ask(rig, CMD_CONSUME, 1, 1, stream, "c", NULL, writer_slice(&t.w), 0));
    assert_string_equal(rig_error(rig), "");
}

/* Everything that can be read from the first record on. */
RIG_FN const char *seen(struct rig *rig, const char *stream)
{
    static char text[1000];
    consume_first(rig, stream);
    snprintf(text, sizeof text, "%s", rig_delivered(rig));
    ASK(CANCEL, "c", NULL, NULL, 0);
    rig_clear(rig);
    return text;
}

#endif
