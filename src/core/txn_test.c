/* Transactions: what they may do in which state, who is fenced, what readers see of them before and after their end, and that
 * an end is there wholly or not at all whatever is replayed. */
#include "core/broker_words_test.h"
#include "core/group.h"
#include "core/stream_int.h"
#include "core/txn_int.h"
#include "fmt/record_batch.h"

static void declare_stream(struct rig *rig, const char *name, int64_t partitions)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_long(&t.w, "x-stream-partitions", partitions);
    declare(rig, name, writer_slice(&t.w));
    rig_clear(rig);
}

static struct stream *stream_named(struct rig *rig, const char *name)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str(name))->stream;
}

static void compact(struct rig *rig)
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

static struct said said(struct rig *rig)
{
    struct effect *e = rig_nth(rig, EFF_ANSWER, 0);
    assert_non_null(e);
    if (!e->answer)
        return (struct said){.memory = false};
    struct reader r = reader_of(e->answer->fields);
    return (struct said){true, (enum txn_result)e->answer->number, e->answer->number2, reader_u16(&r)};
}

static struct said ask(struct rig *rig, enum command_type type, const char *name, struct slice other, uint64_t number,
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

static struct slice of_producer(struct writer *w, const struct who *who)
{
    writer_u64(w, who->id);
    writer_u16(w, who->epoch);
    return writer_slice(w);
}

static enum txn_result init(struct rig *rig, struct who *who)
{
    struct said s = ask(rig, CMD_TXN_INIT, who->name, (struct slice){0}, 60000, 0);
    if (s.memory && s.result == TXN_DONE)
        *who = (struct who){.name = who->name, .id = s.producer, .epoch = s.epoch};
    return s.memory ? s.result : TXN_NO_ROOM;
}

static enum txn_result add(struct rig *rig, const struct who *who, const char *stream, uint32_t partition)
{
    uint8_t room[32];
    struct writer w = writer_of(room, sizeof room);
    (void)of_producer(&w, who);
    writer_u64(&w, stream ? stream_named(rig, stream)->queue->id : 4711);
    writer_u32(&w, partition);
    struct said s = ask(rig, CMD_TXN_ADD, who->name, writer_slice(&w), 0, 0);
    return s.memory ? s.result : TXN_NO_ROOM;
}

static enum txn_result finish(struct rig *rig, struct who *who, uint32_t flags)
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
static int64_t produce(struct rig *rig, struct who *who, const char *stream, unsigned partition, unsigned first,
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

static void consume_first(struct rig *rig, const char *stream)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-stream-offset", slice_str("first"));
    rig_clear(rig);
    rig_plain(rig, CMD_QOS, 1, 1, 10000, 0);
    assert_true(rig_ask(rig, CMD_CONSUME, 1, 1, stream, "c", NULL, writer_slice(&t.w), 0));
    assert_string_equal(rig_error(rig), "");
}

/* Everything that can be read from the first record on. */
static const char *seen(struct rig *rig, const char *stream)
{
    static char text[1000];
    consume_first(rig, stream);
    snprintf(text, sizeof text, "%s", rig_delivered(rig));
    ASK(CANCEL, "c", NULL, NULL, 0);
    rig_clear(rig);
    return text;
}

/* ---- ids and epochs ---- */

static void each_instance_has_an_epoch(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who first = {.name = "t"}, second = {.name = "t"}, other = {.name = "u"};
    declare_stream(rig, "s", 2);
    assert_int_equal(init(rig, &first), TXN_DONE);
    assert_int_equal(first.epoch, 0);
    assert_int_equal(init(rig, &other), TXN_DONE);
    assert_int_not_equal(other.id, first.id);
    assert_int_equal(init(rig, &second), TXN_DONE);
    assert_int_equal(second.id, first.id);
    assert_int_equal(second.epoch, 1);
    assert_int_equal(add(rig, &first, "s", 0), TXN_FENCED);
    assert_int_equal(finish(rig, &first, 0), TXN_FENCED);
    assert_int_equal(add(rig, &second, "s", 0), TXN_DONE);
    assert_int_equal(add(rig, &(struct who){.name = "t", .id = other.id, .epoch = 1}, "s", 0), TXN_OTHER_PRODUCER);
    assert_int_equal(add(rig, &(struct who){.name = "nobody", .id = 1}, "s", 0), TXN_UNKNOWN);
    assert_int_equal(add(rig, &second, "s", 2), TXN_BAD_PARTITION);
    assert_int_equal(add(rig, &second, NULL, 0), TXN_BAD_PARTITION);
    assert_int_equal(ask(rig, CMD_TXN_INIT, "t", (struct slice){0}, TXN_TIMEOUT_MAX_MS + 1, 0).result, TXN_BAD_TIMEOUT);
    assert_int_equal(ask(rig, CMD_TXN_INIT, "t", (struct slice){0}, 0, 0).result, TXN_BAD_TIMEOUT);
    assert_int_equal(ask(rig, CMD_TXN_INIT, "", (struct slice){0}, 1, 0).result, TXN_BAD_NAME);
    end(rig);
}

/* A client whose producer has failed goes on with the id and epoch it had (KIP-360). */
static void resume(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    uint8_t room[16];
    struct writer w = writer_of(room, sizeof room);
    assert_int_equal(init(rig, &who), TXN_DONE);
    struct said s = ask(rig, CMD_TXN_INIT, "t", of_producer(&w, &who), 1000, 0);
    assert_int_equal(s.result, TXN_DONE);
    assert_int_equal(s.producer, who.id);
    assert_int_equal(s.epoch, 1);
    for (unsigned i = 0; i < 2; i++) { /* the answer was lost */
        s = ask(rig, CMD_TXN_INIT, "t", writer_slice(&w), 1000, 0);
        assert_int_equal(s.result, TXN_DONE);
        assert_int_equal(s.producer, who.id);
        assert_int_equal(s.epoch, 1);
        restart(&rig);
    }
    compact(rig);
    restart(&rig);
    assert_int_equal(ask(rig, CMD_TXN_INIT, "t", writer_slice(&w), 1000, 0).epoch, 1);
    assert_int_equal(init(rig, &(struct who){.name = "t"}), TXN_DONE); /* a younger instance: nobody comes back */
    assert_int_equal(ask(rig, CMD_TXN_INIT, "t", writer_slice(&w), 1000, 0).result, TXN_FENCED);
    end(rig);
}

/* It was away for longer than its id is kept: it gets a producer id as a new one does. */
static void resume_what_was_forgotten(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    uint8_t room[16];
    struct writer w = writer_of(room, sizeof room);
    assert_int_equal(init(rig, &who), TXN_DONE);
    rig->wall += 8 * 86400000ll;
    compact(rig);
    struct said s = ask(rig, CMD_TXN_INIT, "t", of_producer(&w, &who), 1000, 0);
    assert_int_equal(s.result, TXN_DONE);
    assert_int_not_equal(s.producer, who.id);
    assert_int_equal(s.epoch, 0);
    end(rig);
}

/* The same with a transaction open, which it gives up by that. */
static void resume_in_a_transaction(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    uint8_t room[16];
    struct writer w = writer_of(room, sizeof room);
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 0, 0, 1, ASK_JOINS), 0);
    for (unsigned i = 0; i < 2; i++) {
        struct said s = ask(rig, CMD_TXN_INIT, "t", i ? writer_slice(&w) : of_producer(&w, &who), 60000, 0);
        assert_int_equal(s.result, TXN_DONE);
        assert_int_equal(s.epoch, 1);
    }
    assert_string_equal(seen(rig, "s"), "");
    assert_int_equal(stream_named(rig, "s")->partitions[0]->end, 2);
    end(rig);
}

static void epochs_run_out(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    struct txn *t = map_get(&vhost_find(rig->b, slice_str("/"))->txns, slice_str("t"));
    uint64_t before = who.id;
    who.epoch = t->epoch = INT16_MAX - 1;
    assert_int_equal(add(rig, &who, "s", 0), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 0, 0, 1, 0), 0);
    struct who last = who, again = who;
    size_t records = rig->log->count;
    assert_int_equal(finish(rig, &who, ASK_COMMIT | ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(rig->log->count, records + 1); /* all of it, or nothing */
    assert_int_not_equal(who.id, before);
    assert_int_equal(who.epoch, 0);
    restart(&rig);
    assert_int_equal(finish(rig, &again, ASK_COMMIT | ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(again.id, who.id);
    assert_int_equal(again.epoch, 0);
    assert_int_equal(finish(rig, &last, ASK_NEXT_EPOCH), TXN_FENCED);
    assert_int_equal(produce(rig, &last, "s", 0, 1, 1, ASK_JOINS), -PRODUCE_NO_TXN);
    t = map_get(&vhost_find(rig->b, slice_str("/"))->txns, slice_str("t"));
    t->epoch = INT16_MAX - 1;
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(who.epoch, 0);
    assert_int_equal(add(rig, &who, "s", 0), TXN_DONE);
    assert_string_equal(seen(rig, "s"), "0");
    end(rig);
}

/* ---- state × request ---- */

static void states(void **state)
{
    (void)state;
    enum { ADD, COMMIT, ABORT, COMMIT_NEXT, ABORT_NEXT, REQUESTS };
    static const struct {
        enum txn_state from;
        enum txn_result want[REQUESTS];
    } rows[] = {
        {TXN_EMPTY, {TXN_DONE, TXN_BAD_STATE, TXN_BAD_STATE, TXN_BAD_STATE, TXN_DONE}},
        {TXN_ONGOING, {TXN_DONE, TXN_DONE, TXN_DONE, TXN_DONE, TXN_DONE}},
        {TXN_COMMITTED, {TXN_DONE, TXN_DONE, TXN_BAD_STATE, TXN_BAD_STATE, TXN_DONE}},
        {TXN_ABORTED, {TXN_DONE, TXN_BAD_STATE, TXN_DONE, TXN_BAD_STATE, TXN_DONE}},
    };
    static const uint32_t flags[] = {0, ASK_COMMIT, 0, ASK_COMMIT | ASK_NEXT_EPOCH, ASK_NEXT_EPOCH};
    for (size_t row = 0; row < ARRAY_LEN(rows); row++)
        for (unsigned request = 0; request < REQUESTS; request++) {
            struct rig *rig = begin();
            struct who who = {.name = "t"};
            declare_stream(rig, "s", 2);
            assert_int_equal(init(rig, &who), TXN_DONE);
            if (rows[row].from != TXN_EMPTY)
                assert_int_equal(add(rig, &who, "s", 0), TXN_DONE);
            if (rows[row].from >= TXN_COMMITTED)
                assert_int_equal(finish(rig, &who, rows[row].from == TXN_COMMITTED ? ASK_COMMIT : 0), TXN_DONE);
            enum txn_result result = request == ADD ? add(rig, &who, "s", 1) : finish(rig, &who, flags[request]);
            if (result != rows[row].want[request])
                rig_fail("from %s request %u: %d", txn_state_name(rows[row].from), request, (int)result);
            end(rig);
        }
}

/* The answer was lost on its way: the same end again is answered alike. */
static void an_end_may_come_twice(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 0, 0, 2, ASK_JOINS), 0);
    struct who before = who;
    assert_int_equal(finish(rig, &who, ASK_COMMIT | ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(who.epoch, before.epoch + 1);
    uint64_t markers = stream_named(rig, "s")->partitions[0]->end;
    struct who again = before;
    assert_int_equal(finish(rig, &again, ASK_COMMIT | ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(again.epoch, who.epoch);
    assert_int_equal(stream_named(rig, "s")->partitions[0]->end, markers);
    assert_int_equal(finish(rig, &before, ASK_NEXT_EPOCH), TXN_FENCED);
    end(rig);
}

/* ---- batches ---- */

static void batches_need_a_transaction(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"}, nobody = {.name = "x", .id = 999};
    declare_stream(rig, "s", 3);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 0, 0, 1, 0), -PRODUCE_NO_TXN);
    assert_int_equal(add(rig, &who, "s", 0), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 0, 0, 1, 0), 0);
    struct who outside = {.name = NULL, .id = who.id, .epoch = who.epoch};
    assert_int_equal(produce(rig, &outside, "s", 2, 0, 1, 0), 0);
    assert_int_equal(produce(rig, &who, "s", 1, 0, 1, 0), -PRODUCE_NO_TXN);
    assert_int_equal(produce(rig, &who, "s", 1, 0, 1, ASK_JOINS), 0);
    assert_int_equal(produce(rig, &nobody, "s", 0, 0, 1, ASK_JOINS), -PRODUCE_NO_TXN);
    struct who plain = who; /* the same producer, but not in its transaction */
    plain.name = NULL;
    assert_int_equal(produce(rig, &plain, "s", 0, 0, 1, 0), -PRODUCE_NO_TXN);
    struct who old = who;
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, &old, "s", 0, 1, 1, ASK_JOINS), -PRODUCE_OLD_EPOCH);
    end(rig);
}

/* Of a client that speaks KIP-890: nothing is known of it there, and so it has lost something when it begins elsewhere. */
static void sequences_begin_at_zero(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"}, plain = {.name = NULL, .id = 900, .next = {5}};
    declare_stream(rig, "s", 2);
    assert_int_equal(init(rig, &who), TXN_DONE);
    who.next[0] = who.next[1] = 3;
    assert_int_equal(produce(rig, &who, "s", 0, 0, 1, ASK_JOINS), -PRODUCE_OUT_OF_ORDER);
    assert_int_equal(add(rig, &who, "s", 1), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 1, 0, 1, 0), 0); /* of before KIP-890 */
    assert_int_equal(produce(rig, &plain, "s", 0, 0, 1, ASK_JOINS), 0);
    who.next[0] = 0;
    assert_int_equal(produce(rig, &who, "s", 0, 0, 1, ASK_JOINS), 1);
    end(rig);
}

/* Rows in any order, some of them twice, some known. */
static void partitions_are_added_once(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    static uint8_t room[10 + 12 * 3000];
    static const uint32_t extra[] = {7, 0, 1023, 7};
    struct writer w = writer_of(room, sizeof room);
    declare_stream(rig, "s", 1024);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(add(rig, &who, "s", 500), TXN_DONE);
    (void)of_producer(&w, &who);
    for (uint32_t i = 0; i < 2048 + ARRAY_LEN(extra); i++) {
        writer_u64(&w, stream_named(rig, "s")->queue->id);
        writer_u32(&w, i < 2048 ? (i * 341) % 1024 : extra[i - 2048]);
    }
    size_t records = rig->log->count;
    assert_int_equal(ask(rig, CMD_TXN_ADD, "t", writer_slice(&w), 0, 0).result, TXN_DONE);
    assert_int_equal(rig->log->count, records + 1023);
    struct txn *t = map_get(&vhost_find(rig->b, slice_str("/"))->txns, slice_str("t"));
    assert_int_equal(t->part_count, 1024);
    for (uint32_t i = 0; i < 1024; i++)
        assert_int_equal(t->parts[i].number, i);
    assert_int_equal(finish(rig, &who, ASK_COMMIT), TXN_DONE);
    assert_int_equal(stream_named(rig, "s")->partitions[1023]->end, 1);
    end(rig);
}

/* ---- what readers see ---- */

static void committed_is_seen_when_it_ends(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, NULL, "s", 0, 0, 1, 0), 0);
    assert_int_equal(produce(rig, &who, "s", 0, 1, 2, ASK_JOINS), 1);
    assert_int_equal(produce(rig, NULL, "s", 0, 3, 1, 0), 3); /* waits behind it */
    put(rig, "s", "4");
    consume_first(rig, "s");
    assert_string_equal(rig_delivered(rig), "0");
    assert_int_equal(finish(rig, &who, ASK_COMMIT), TXN_DONE);
    assert_string_equal(rig_delivered(rig), "1 2 3 4");
    ASK(CANCEL, "c", NULL, NULL, 0);
    assert_string_equal(seen(rig, "s"), "0 1 2 3 4");
    end(rig);
}

static void aborted_is_never_seen(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who a = {.name = "a"}, b = {.name = "b"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &a), TXN_DONE);
    assert_int_equal(init(rig, &b), TXN_DONE);
    assert_int_equal(produce(rig, &a, "s", 0, 0, 2, ASK_JOINS), 0);
    assert_int_equal(produce(rig, &b, "s", 0, 2, 2, ASK_JOINS), 2);
    assert_int_equal(produce(rig, &a, "s", 0, 4, 1, 0), 4);
    assert_int_equal(finish(rig, &a, 0), TXN_DONE);
    assert_string_equal(seen(rig, "s"), ""); /* b began before the end */
    assert_int_equal(produce(rig, &a, "s", 0, 5, 1, ASK_JOINS), 6);
    assert_int_equal(finish(rig, &b, ASK_COMMIT), TXN_DONE);
    assert_string_equal(seen(rig, "s"), "2 3");
    assert_int_equal(finish(rig, &a, ASK_COMMIT), TXN_DONE);
    assert_string_equal(seen(rig, "s"), "2 3 5");
    restart(&rig);
    assert_string_equal(seen(rig, "s"), "2 3 5");
    compact(rig);
    restart(&rig);
    assert_string_equal(seen(rig, "s"), "2 3 5");
    end(rig);
}

/* A queue bound to the stream gets what is committed, once. */
static void queues_get_what_is_committed(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    declare_stream(rig, "s", 1);
    declare(rig, "q", (struct slice){0});
    assert_true(ASK(QUEUE_BIND, "q", "amq.stream.s", "", 0));
    assert_string_equal(rig_error(rig), "");
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 0, 0, 3, ASK_JOINS), 0);
    assert_int_equal(finish(rig, &who, 0), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 0, 3, 3, ASK_JOINS), 4);
    assert_int_equal(rig_ready(rig, "q"), 0);
    assert_int_equal(finish(rig, &who, ASK_COMMIT), TXN_DONE);
    assert_int_equal(rig_ready(rig, "q"), 3);
    restart(&rig);
    rig_pass(rig, 100);
    assert_int_equal(rig_ready(rig, "q"), 3);
    consume(rig, "q", "c", ASK_NO_ACK);
    assert_string_equal(rig_delivered(rig), "3 4 5");
    end(rig);
}

/* Until the end is durable it may yet not have been. */
static void an_end_that_is_not_durable_is_not_seen(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 0, 0, 3, ASK_JOINS), 0);
    rig->hold = true;
    assert_int_equal(finish(rig, &who, ASK_COMMIT), TXN_DONE);
    assert_true(rig_nth(rig, EFF_ANSWER, 0)->lsn > rig->durable);
    assert_string_equal(seen(rig, "s"), "");
    assert_int_equal(partition_stable(rig->b, stream_named(rig, "s")->partitions[0]), 0);
    consume_first(rig, "s");
    rig->hold = false;
    rig_step(rig);
    assert_string_equal(rig_delivered(rig), "0 1 2");
    ASK(CANCEL, "c", NULL, NULL, 0);
    end(rig);
}

/* ---- fetches ---- */

static struct fetch *fetch(struct rig *rig, const char *stream, uint64_t offset, bool committed)
{
    struct fetch *f = fetch_new(FETCH_RECORDS, 1);
    assert_non_null(f);
    f->bytes_min = 0;
    f->bytes_max = 1 << 20;
    f->committed = committed;
    f->rows[0].stream = stream_named(rig, stream)->queue->id;
    f->rows[0].offset = offset;
    f->rows[0].bytes_max = 1 << 20;
    rig_clear(rig);
    struct command *c = rig_command(rig, 0, CMD_FETCH, 1, 0);
    c->fetch = f;
    rig_step(rig);
    struct effect *e = rig_nth(rig, EFF_FETCHED, 0);
    assert_non_null(e);
    f = e->fetch;
    e->fetch = NULL;
    assert_int_equal(f->rows[0].result, FETCH_OK);
    return f;
}

static void fetches_know_what_is_stable(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who a = {.name = "a"}, b = {.name = "b"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &a), TXN_DONE);
    assert_int_equal(init(rig, &b), TXN_DONE);
    assert_int_equal(produce(rig, NULL, "s", 0, 0, 2, 0), 0);
    assert_int_equal(produce(rig, &a, "s", 0, 2, 2, ASK_JOINS), 2);
    assert_int_equal(produce(rig, &b, "s", 0, 4, 2, ASK_JOINS), 4);
    struct fetch *f = fetch(rig, "s", 0, true);
    assert_int_equal(f->rows[0].stable, 2);
    assert_int_equal(f->rows[0].end, 6);
    assert_int_equal(f->rows[0].aborted_count, 0);
    fetch_free(&f);
    f = fetch(rig, "s", 2, true);
    assert_int_equal(f->rows[0].piece.len, 0);
    fetch_free(&f);
    f = fetch(rig, "s", 2, false);
    assert_true(f->rows[0].piece.len > 0);
    fetch_free(&f);
    assert_int_equal(finish(rig, &b, 0), TXN_DONE);
    assert_int_equal(finish(rig, &a, 0), TXN_DONE);
    f = fetch(rig, "s", 0, true);
    assert_int_equal(f->rows[0].stable, 8);
    assert_int_equal(f->rows[0].aborted_count, 2);
    assert_int_equal(f->rows[0].aborted[0].first, 2); /* by their beginnings, though b ended first */
    assert_int_equal(f->rows[0].aborted[0].producer, (int64_t)a.id);
    assert_int_equal(f->rows[0].aborted[1].first, 4);
    fetch_free(&f);
    f = fetch(rig, "s", 0, false);
    assert_int_equal(f->rows[0].aborted_count, 0);
    fetch_free(&f);
    end(rig);
}

/* Where a time is, or the newest record, for who reads what is committed. */
static int64_t place(struct rig *rig, enum fetch_at at, wall_t time, bool committed)
{
    struct fetch *f = fetch_new(FETCH_OFFSETS, 1);
    assert_non_null(f);
    f->committed = committed;
    f->rows[0].stream = stream_named(rig, "s")->queue->id;
    f->rows[0].at = (uint8_t)at;
    f->rows[0].time = time;
    rig_clear(rig);
    rig_command(rig, 0, CMD_FETCH, 1, 0)->fetch = f;
    rig_step(rig);
    struct effect *e = rig_nth(rig, EFF_FETCHED, 0);
    assert_non_null(e);
    f = e->fetch;
    e->fetch = NULL;
    assert_int_equal(f->rows[0].result, FETCH_OK);
    int64_t offset = (int64_t)f->rows[0].offset;
    assert_true(offset != -1 || f->rows[0].time == -1);
    fetch_free(&f);
    return offset;
}

static void times_are_of_what_is_stable(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    wall_t first = rig->wall;
    assert_int_equal(produce(rig, NULL, "s", 0, 0, 1, 0), 0);
    rig_pass(rig, 1000);
    assert_int_equal(produce(rig, &who, "s", 0, 1, 1, ASK_JOINS), 1);
    assert_int_equal(place(rig, FETCH_AT_TIME, first, true), 0);
    assert_int_equal(place(rig, FETCH_AT_TIME, first + 1, true), -1);
    assert_int_equal(place(rig, FETCH_AT_NEWEST, 0, true), -1); /* as Kafka says it: not the newest of those below */
    assert_int_equal(place(rig, FETCH_AT_TIME, first + 1, false), 1);
    assert_int_equal(place(rig, FETCH_AT_NEWEST, 0, false), 1);
    assert_int_equal(finish(rig, &who, ASK_COMMIT), TXN_DONE);
    assert_int_equal(place(rig, FETCH_AT_TIME, first + 1, true), 1);
    assert_int_equal(place(rig, FETCH_AT_NEWEST, 0, true), 1);
    end(rig);
}

static struct fetch *waiting(struct rig *rig, uint8_t op, uint32_t bytes_min)
{
    struct fetch *f = fetch_new(FETCH_RECORDS, op == FETCH_NEXT ? 0 : 1);
    assert_non_null(f);
    f->bytes_min = bytes_min;
    f->bytes_max = 1 << 20;
    f->wait_ms = bytes_min ? 30000 : 0;
    f->committed = true;
    f->session_op = op;
    if (f->count) {
        f->rows[0].stream = stream_named(rig, "s")->queue->id;
        f->rows[0].bytes_max = 1 << 20;
    }
    rig_clear(rig);
    rig_command(rig, 0, CMD_FETCH, 1, 0)->fetch = f;
    rig_step(rig);
    struct effect *e = rig_nth(rig, EFF_FETCHED, 0);
    return e ? e->fetch : NULL;
}

/* What was held back is enough by itself, though the marker that lets it go is short. With a fetch session or without. */
static void an_end_wakes_who_waits_for_much(void **state)
{
    (void)state;
    for (unsigned session = 0; session < 2; session++) {
        struct rig *rig = begin();
        struct who who = {.name = "t"};
        declare_stream(rig, "s", 1);
        assert_int_equal(init(rig, &who), TXN_DONE);
        for (unsigned i = 0; i < 10; i++)
            assert_true(produce(rig, &who, "s", 0, 100 * i, 100, ASK_JOINS) >= 0);
        if (session)
            assert_true(waiting(rig, FETCH_OPEN, 0)->session_id != 0);
        assert_null(waiting(rig, session ? FETCH_NEXT : FETCH_ALONE, 2000));
        assert_int_equal(finish(rig, &who, ASK_COMMIT), TXN_DONE);
        rig_step(rig);
        struct effect *e = rig_nth(rig, EFF_FETCHED, 0);
        assert_non_null(e);
        assert_int_equal(e->fetch->count, 1);
        assert_true(e->fetch->rows[0].piece.len >= 2000);
        end(rig);
    }
}

/* ---- offsets of groups ---- */

/* The one row of partition 0 of the stream: what became of it. */
static enum group_error stage(struct rig *rig, const struct who *who, const char *group, uint64_t offset,
                              uint32_t flags)
{
    uint8_t room[128];
    struct writer w = writer_of(room, sizeof room);
    struct slice none = {0};
    (void)of_producer(&w, who);
    writer_str32(&w, slice_str(who->name));
    group_offset_put(&w, &(struct group_offset){.stream = stream_named(rig, "s")->queue->id, .offset = offset});
    rig_clear(rig);
    struct ask *made = ask_new(slice_str(group), none, none, writer_slice(&w));
    if (!made)
        return GROUP_ERR_NO_MEMORY;
    made->number = UINT32_MAX; /* no generation */
    made->flags = flags;
    rig_command(rig, 0, CMD_TXN_OFFSETS, 1, 0)->ask = made;
    rig_step(rig);
    struct effect *e = rig_nth(rig, EFF_GROUP, 0);
    assert_non_null(e);
    return e->flags ? (enum group_error)e->flags : (enum group_error)e->answer->fields.ptr[0];
}

/* The committed offset; -1: none, -2: it is not stable. */
static int64_t committed(struct rig *rig, const char *group, uint32_t flags)
{
    uint8_t room[16];
    struct writer w = writer_of(room, sizeof room);
    writer_u64(&w, stream_named(rig, "s")->queue->id);
    writer_u32(&w, 0);
    rig_clear(rig);
    assert_true(rig_ask(rig, CMD_GROUP_OFFSETS, 1, 0, group, NULL, NULL, writer_slice(&w), flags));
    struct effect *e = rig_nth(rig, EFF_GROUP, 0);
    assert_non_null(e);
    if (e->flags == GROUP_ERR_UNSTABLE)
        return -2;
    assert_int_equal(e->flags, GROUP_OK);
    struct reader r = reader_of(e->answer->fields);
    return (int64_t)group_offset_read(&r).offset;
}

static void offsets_are_committed_with_it(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"}, nobody = {.name = "x", .id = 99};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, NULL, "s", 0, 0, 9, 0), 0);
    assert_int_equal(stage(rig, &who, "g", 3, 0), GROUP_ERR_TXN_STATE);
    assert_int_equal(stage(rig, &nobody, "g", 3, ASK_JOINS), GROUP_ERR_PRODUCER);
    assert_int_equal(stage(rig, &(struct who){.name = "t", .id = who.id, .epoch = 7}, "g", 3, ASK_JOINS),
                     GROUP_ERR_PRODUCER_EPOCH);
    assert_int_equal(stage(rig, &who, "", 3, ASK_JOINS), GROUP_ERR_INVALID_ID);
    assert_int_equal(stage(rig, &who, "g", 3, ASK_JOINS), GROUP_OK);
    assert_int_equal(stage(rig, &who, "g", 4, 0), GROUP_OK); /* instead */
    assert_int_equal(stage(rig, &who, "h", 5, 0), GROUP_OK);
    assert_int_equal(committed(rig, "g", 0), -1);
    assert_int_equal(committed(rig, "g", ASK_STABLE), -2);
    assert_int_equal(committed(rig, "other", ASK_STABLE), -1);
    restart(&rig);
    assert_int_equal(committed(rig, "g", ASK_STABLE), -2);
    compact(rig);
    restart(&rig);
    assert_int_equal(committed(rig, "g", ASK_STABLE), -2);
    assert_int_equal(finish(rig, &who, ASK_COMMIT | ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(committed(rig, "g", ASK_STABLE), 4);
    assert_int_equal(committed(rig, "h", ASK_STABLE), 5);
    assert_int_equal(stage(rig, &who, "g", 8, ASK_JOINS), GROUP_OK);
    assert_int_equal(finish(rig, &who, ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(committed(rig, "g", ASK_STABLE), 4);
    restart(&rig);
    assert_int_equal(committed(rig, "g", ASK_STABLE), 4);
    compact(rig);
    restart(&rig);
    assert_int_equal(committed(rig, "h", ASK_STABLE), 5);
    end(rig);
}

static enum group_error stage_many(struct rig *rig, const struct who *who, const char *group, uint32_t from,
                                   uint32_t count, uint64_t offset)
{
    size_t max = 64 + count * (size_t)GROUP_OFFSET_BYTES;
    uint8_t *room = malloc(max);
    struct writer w = writer_of(room, max);
    struct slice none = {0};
    (void)of_producer(&w, who);
    writer_str32(&w, slice_str(who->name));
    for (uint32_t i = from; i < from + count; i++) {
        char name[8];
        snprintf(name, sizeof name, "s%u", i / 1000);
        group_offset_put(&w, &(struct group_offset){.stream = stream_named(rig, i >= 1000 ? name : "s")->queue->id,
                                                    .partition = i % 1000,
                                                    .offset = offset + i});
    }
    rig_clear(rig);
    struct ask *made = ask_new(slice_str(group), none, none, writer_slice(&w));
    made->number = UINT32_MAX;
    made->flags = ASK_JOINS;
    free(room);
    rig_command(rig, 0, CMD_TXN_OFFSETS, 1, 0)->ask = made;
    rig_step(rig);
    struct effect *e = rig_nth(rig, EFF_GROUP, 0);
    assert_non_null(e);
    return (enum group_error)e->flags;
}

/* What one transaction holds of a group has a limit, in which rows that come again count once; and then it can be committed. */
static void as_many_offsets_as_partitions(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    declare_stream(rig, "s", 1000);
    for (unsigned i = 1; i <= 10; i++) {
        char name[8];
        snprintf(name, sizeof name, "s%u", i);
        declare_stream(rig, name, 1000);
    }
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(stage_many(rig, &who, "g", 0, 10001, 1), GROUP_ERR_COMMIT_SIZE);
    assert_int_equal(rig->b->staging.count, 0);
    assert_int_equal(stage_many(rig, &who, "g", 1, 10000, 7), GROUP_OK);
    assert_int_equal(stage_many(rig, &who, "g", 1, 10000, 100), GROUP_OK); /* instead */
    assert_int_equal(stage_many(rig, &who, "g", 0, 1, 1), GROUP_ERR_COMMIT_SIZE);
    assert_int_equal(stage_many(rig, &who, "h", 0, 1, 1), GROUP_OK);
    assert_int_equal(committed(rig, "g", ASK_STABLE), -2);
    restart(&rig);
    assert_int_equal(finish(rig, &who, ASK_COMMIT | ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(committed(rig, "g", ASK_STABLE), -1);
    assert_int_equal(committed(rig, "h", ASK_STABLE), 1);
    rig_clear(rig);
    assert_true(rig_ask(rig, CMD_GROUP_OFFSETS, 1, 0, "g", NULL, NULL, (struct slice){0}, ASK_MULTIPLE));
    struct reader r = reader_of(rig_nth(rig, EFF_GROUP, 0)->answer->fields);
    assert_int_equal(r.left, 10000 * GROUP_OFFSET_BYTES);
    assert_int_equal(group_offset_read(&r).offset, 101);
    end(rig);
}

static enum txn_result mark(struct rig *rig, const struct who *who, uint32_t flags)
{
    uint8_t room[16];
    struct writer w = writer_of(room, sizeof room);
    struct said s = ask(rig, CMD_TXN_MARK, "", of_producer(&w, who), stream_named(rig, "s")->queue->id, flags);
    return s.memory ? s.result : TXN_NO_ROOM;
}

/* What an administrator ends in a partition stays ended as he has it, whatever the coordinator says later. */
static void a_mark_ends_it_in_one_partition(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"}, other = {.name = "t"};
    declare_stream(rig, "s", 1);
    declare_stream(rig, "r", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 0, 1, 2, ASK_JOINS), 0);
    assert_int_equal(mark(rig, &who, 0), TXN_DONE);
    assert_int_equal(produce(rig, NULL, "s", 0, 3, 1, 0), 3);
    assert_string_equal(seen(rig, "s"), "3");
    restart(&rig);
    assert_string_equal(seen(rig, "s"), "3");
    assert_int_equal(produce(rig, &who, "s", 0, 4, 1, 0), 4); /* the transaction goes on */
    assert_string_equal(seen(rig, "s"), "3");
    assert_int_equal(mark(rig, &who, ASK_COMMIT), TXN_DONE);
    assert_string_equal(seen(rig, "s"), "3 4");
    compact(rig);
    restart(&rig);
    assert_string_equal(seen(rig, "s"), "3 4");
    assert_int_equal(finish(rig, &who, 0), TXN_DONE); /* it aborts nothing that was not open */
    assert_string_equal(seen(rig, "s"), "3 4");
    assert_int_equal(init(rig, &other), TXN_DONE);
    assert_int_equal(produce(rig, &other, "s", 0, 5, 1, ASK_JOINS), 7);
    assert_int_equal(mark(rig, &who, 0), TXN_FENCED);
    assert_int_equal(finish(rig, &other, ASK_COMMIT), TXN_DONE);
    assert_string_equal(seen(rig, "s"), "3 4 5");
    restart(&rig);
    assert_string_equal(seen(rig, "s"), "3 4 5");
    end(rig);
}

/* A group is unstable as long as any transaction has offsets of it. */
static void two_transactions_of_a_group(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who a = {.name = "a"}, b = {.name = "b"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &a), TXN_DONE);
    assert_int_equal(init(rig, &b), TXN_DONE);
    assert_int_equal(stage(rig, &a, "g", 3, ASK_JOINS), GROUP_OK);
    assert_int_equal(stage(rig, &b, "g", 4, ASK_JOINS), GROUP_OK);
    assert_int_equal(finish(rig, &a, ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(committed(rig, "g", ASK_STABLE), -2);
    restart(&rig);
    assert_int_equal(committed(rig, "g", ASK_STABLE), -2);
    assert_int_equal(finish(rig, &b, ASK_COMMIT | ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(committed(rig, "g", ASK_STABLE), 4);
    assert_int_equal(rig->b->staging.count, 0);
    end(rig);
}

/* ---- time ---- */

static void who_takes_too_long_is_aborted(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 0, 0, 1, ASK_JOINS), 0);
    rig_pass(rig, 40000);
    restart(&rig); /* the time goes on */
    rig_pass(rig, 19000);
    assert_int_equal(partition_stable(rig->b, stream_named(rig, "s")->partitions[0]), 0);
    rig_pass(rig, 1500);
    assert_int_equal(partition_stable(rig->b, stream_named(rig, "s")->partitions[0]), OFFSET_NONE);
    assert_int_equal(finish(rig, &who, ASK_COMMIT), TXN_FENCED);
    assert_int_equal(produce(rig, &who, "s", 0, 1, 1, ASK_JOINS), -PRODUCE_OLD_EPOCH);
    assert_string_equal(seen(rig, "s"), "");
    end(rig);
}

static void a_younger_instance_aborts(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who old = {.name = "t"}, young = {.name = "t"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &old), TXN_DONE);
    assert_int_equal(produce(rig, &old, "s", 0, 0, 1, ASK_JOINS), 0);
    assert_int_equal(init(rig, &young), TXN_DONE);
    assert_int_equal(finish(rig, &old, ASK_COMMIT), TXN_FENCED);
    assert_int_equal(produce(rig, &young, "s", 0, 1, 1, ASK_JOINS), 2);
    assert_int_equal(finish(rig, &young, ASK_COMMIT), TXN_DONE);
    assert_string_equal(seen(rig, "s"), "1");
    end(rig);
}

static void ids_that_nobody_uses_are_forgotten(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"}, other = {.name = "u"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(init(rig, &other), TXN_DONE);
    assert_int_equal(add(rig, &other, "s", 0), TXN_DONE);
    rig->wall += 8 * 86400000ll;
    compact(rig);
    assert_int_equal(rig->b->txns.count, 1); /* who is at work stays */
    restart(&rig);
    assert_int_equal(rig->b->txns.count, 1);
    end(rig);
}

/* ---- what a review has found ---- */

static struct txn *the_txn(struct rig *rig, const char *name)
{
    return map_get(&vhost_find(rig->b, slice_str("/"))->txns, slice_str(name));
}

/* Its end, sent after a younger instance has aborted it, is no repetition of that abort. */
static void a_fenced_instance_stays_fenced(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who old = {.name = "t"}, young = {.name = "t"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &old), TXN_DONE);
    assert_int_equal(produce(rig, &old, "s", 0, 0, 1, ASK_JOINS), 0);
    assert_int_equal(init(rig, &young), TXN_DONE);
    assert_int_equal(finish(rig, &old, ASK_NEXT_EPOCH), TXN_FENCED);
    assert_int_equal(produce(rig, &old, "s", 0, 77, 1, ASK_JOINS), -PRODUCE_OLD_EPOCH);
    assert_true(produce(rig, &young, "s", 0, 88, 1, ASK_JOINS) >= 0);
    assert_int_equal(finish(rig, &young, ASK_COMMIT | ASK_NEXT_EPOCH), TXN_DONE);
    assert_string_equal(seen(rig, "s"), "88");
    end(rig);
}

static void a_timeout_in_the_last_epoch_fences_too(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    who.epoch = the_txn(rig, "t")->epoch = INT16_MAX - 1;
    uint64_t before = who.id;
    assert_int_equal(produce(rig, &who, "s", 0, 1, 1, ASK_JOINS), 0);
    rig_pass(rig, 61000);
    assert_int_equal(produce(rig, &who, "s", 0, 2, 1, ASK_JOINS), -PRODUCE_OLD_EPOCH);
    assert_string_equal(seen(rig, "s"), "");
    restart(&rig);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_not_equal(who.id, before);
    assert_int_equal(who.epoch, 0);
    end(rig);
}

static void a_refused_batch_leaves_no_epoch(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"}, plain = {.name = NULL, .id = 900};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, &plain, "s", 0, 0, 1, 0), 0);
    struct who evil = who;
    evil.epoch = 32000;
    assert_int_equal(produce(rig, &evil, "s", 0, 0, 1, ASK_JOINS), -PRODUCE_OLD_EPOCH);
    assert_int_equal(produce(rig, &who, "s", 0, 1, 1, ASK_JOINS), 1);
    end(rig);
}

static void an_offset_of_none_is_committed_as_none(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(stage(rig, &who, "g", 3, ASK_JOINS), GROUP_OK);
    assert_int_equal(finish(rig, &who, ASK_COMMIT | ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(committed(rig, "g", 0), 3);
    assert_int_equal(stage(rig, &who, "g", UINT64_MAX, ASK_JOINS), GROUP_OK);
    assert_int_equal(finish(rig, &who, ASK_COMMIT | ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(committed(rig, "g", 0), -1);
    restart(&rig);
    assert_int_equal(committed(rig, "g", 0), -1);
    end(rig);
}

static bool no_reserve(void *self, size_t bytes, unsigned count)
{
    (void)self;
    (void)bytes;
    (void)count;
    return false;
}

/* Offsets that find no room in the journal begin nothing. */
static void offsets_without_room_begin_nothing(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    rig_step(rig); /* what is left of that tick's reservation is gone */
    bool (*reserve)(void *, size_t, unsigned) = rig->b->options.log.reserve;
    rig->b->options.log.reserve = no_reserve;
    assert_int_equal(stage(rig, &who, "g", 5, ASK_JOINS), GROUP_ERR_NO_MEMORY);
    rig->b->options.log.reserve = reserve;
    assert_true(list_empty(&the_txn(rig, "t")->staged));
    compact(rig);
    restart(&rig);
    assert_int_equal(the_txn(rig, "t")->state, TXN_EMPTY);
    end(rig);
}

/* The beginning moves while the store has a fetch: what was aborted there is not known any more. */
static void a_trim_overtakes_a_fetch(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    uint64_t offset = 3;
    lsn_t lsn;
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 0, 0, 2, ASK_JOINS), 0);
    assert_int_equal(finish(rig, &who, 0), TXN_DONE);
    assert_int_equal(produce(rig, NULL, "s", 0, 5, 1, 0), 3);
    struct fetch *f = fetch_new(FETCH_RECORDS, 1);
    f->bytes_max = 1 << 20;
    f->committed = true;
    f->rows[0].stream = stream_named(rig, "s")->queue->id;
    f->rows[0].bytes_max = 1 << 20;
    rig_clear(rig);
    rig_command(rig, 0, CMD_FETCH, 1, 0)->fetch = f;
    rig->slow_store = true;
    rig->chance = 0; /* the store does nothing yet */
    rig_step(rig);
    assert_null(rig_nth(rig, EFF_FETCHED, 0));
    rig_streams_serve(rig->b, rig->log->streams, 3, 1);
    assert_int_equal(stream_trim(rig->b, stream_named(rig, "s")->partitions[0], &offset, &lsn), STREAM_DONE);
    rig->slow_store = false;
    rig_step(rig);
    struct effect *e = rig_nth(rig, EFF_FETCHED, 0);
    assert_non_null(e);
    f = e->fetch;
    e->fetch = NULL;
    assert_int_equal(f->rows[0].result, FETCH_OUT_OF_RANGE);
    assert_int_equal(f->rows[0].piece.len, 0);
    fetch_free(&f);
    end(rig);
}

/* ---- faults ---- */

/* Three transactions over two streams, one of them aborted, one left open, with a compaction in the midst. */
static bool storm(struct rig *rig)
{
    struct who a = {.name = "a"}, b = {.name = "b"};
    struct table t;
    if (!begin_with(rig))
        return false;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    if (!rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "s", NULL, NULL, writer_slice(&t.w), ASK_DURABLE) ||
        *rig_error(rig) != '\0' || !queue_find(vhost_find(rig->b, slice_str("/")), slice_str("s")))
        return false;
    if (init(rig, &a) != TXN_DONE || init(rig, &b) != TXN_DONE)
        return false;
    if (produce(rig, &a, "s", 0, 0, 2, ASK_JOINS) < 0 || produce(rig, &b, "s", 0, 2, 2, ASK_JOINS) < 0)
        return false;
    if (finish(rig, &a, ASK_COMMIT) != TXN_DONE || finish(rig, &b, ASK_NEXT_EPOCH) != TXN_DONE)
        return false;
    if (stage(rig, &b, "g", 2, ASK_JOINS) != GROUP_OK || mark(rig, &b, 0) != TXN_DONE)
        return false;
    struct said listed = ask(rig, CMD_STREAM_PRODUCERS, "", (struct slice){0}, stream_named(rig, "s")->queue->id, 0);
    if (!listed.memory)
        return false;
    compact_start(rig->b);
    rig_step(rig);
    if (produce(rig, &b, "s", 0, 4, 1, ASK_JOINS) < 0 || finish(rig, &b, ASK_COMMIT | ASK_NEXT_EPOCH) != TXN_DONE)
        return false;
    return stage(rig, &b, "g", 3, ASK_JOINS) == GROUP_OK && produce(rig, &b, "s", 0, 5, 1, 0) >= 0;
}

static void allocations_fail(void **state)
{
    (void)state;
    each_allocation_fails(storm, NULL, NULL);
}

/* The power goes after each record: what is read then was committed by then, in whole transactions. */
static void power_cuts(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who a = {.name = "a"}, b = {.name = "b"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &a), TXN_DONE);
    assert_int_equal(init(rig, &b), TXN_DONE);
    for (unsigned round = 0; round < 4; round++) {
        assert_true(produce(rig, &a, "s", 0, round * 10, 2, ASK_JOINS) >= 0);
        assert_true(produce(rig, &b, "s", 0, round * 10 + 5, 2, ASK_JOINS) >= 0);
        assert_true(produce(rig, &a, "s", 0, round * 10 + 2, 1, ASK_JOINS) >= 0);
        assert_int_equal(finish(rig, &b, round % 2 ? ASK_COMMIT | ASK_NEXT_EPOCH : ASK_NEXT_EPOCH), TXN_DONE);
        assert_int_equal(finish(rig, &a, round % 2 ? ASK_NEXT_EPOCH : ASK_COMMIT | ASK_NEXT_EPOCH), TXN_DONE);
        if (round == 1)
            compact(rig);
    }
    const char *const whole[] = {"", "0 1 2", "0 1 2 15 16", "0 1 2 15 16 20 21 22", "0 1 2 15 16 20 21 22 35 36"};
    struct broker_options options = rig->options;
    size_t last = 0;
    assert_true(rig->log->first > 1); /* the compaction has trimmed */
    for (size_t n = rig->log->first + 20; n <= rig->log->count; n++) {
        struct rig_log *log = rig_log_copy(rig->log, n);
        const char *why;
        struct rig *cut = rig_try(log, &options, rig->wall, &why);
        if (why)
            rig_fail("after %zu records: %s", n, why);
        assert_true(begin_with(cut));
        const char *text = queue_find(vhost_find(cut->b, slice_str("/")), slice_str("s")) ? seen(cut, "s") : "";
        size_t at = 0;
        while (at < ARRAY_LEN(whole) && strcmp(whole[at], text) != 0)
            at++;
        if (at == ARRAY_LEN(whole) || at < last)
            rig_fail("after %zu records: '%s'", n, text);
        last = at;
        rig_free(cut);
        rig_log_free(log);
    }
    assert_int_equal(last, ARRAY_LEN(whole) - 1);
    end(rig);
}

static void listing(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who a = {.name = "a"}, b = {.name = "b"};
    uint8_t room[32];
    struct writer w = writer_of(room, sizeof room);
    struct txn_row row;
    declare_stream(rig, "s", 2);
    assert_int_equal(init(rig, &a), TXN_DONE);
    assert_int_equal(init(rig, &b), TXN_DONE);
    assert_int_equal(add(rig, &b, "s", 1), TXN_DONE);
    writer_str32(&w, slice_str("b"));
    writer_str32(&w, slice_str("none"));
    ask(rig, CMD_TXN_LIST, "", writer_slice(&w), 0, 0);
    struct reader r = reader_of(rig_nth(rig, EFF_ANSWER, 0)->answer->fields);
    assert_true(txn_row_next(&r, &row));
    assert_true(slice_is(row.name, "b"));
    assert_int_equal(row.producer, b.id);
    assert_int_equal(row.state, TXN_ONGOING);
    assert_int_equal(row.started, rig->wall);
    struct reader parts = reader_of(row.partitions);
    assert_int_equal(reader_u64(&parts), stream_named(rig, "s")->queue->id);
    assert_int_equal(reader_u32(&parts), 1);
    assert_false(txn_row_next(&r, &row));
    ask(rig, CMD_TXN_LIST, "", (struct slice){0}, 0, 0);
    r = reader_of(rig_nth(rig, EFF_ANSWER, 0)->answer->fields);
    unsigned count = 0;
    while (txn_row_next(&r, &row))
        count++;
    assert_int_equal(count, 2);
    const struct {
        const char *pattern;
        enum txn_result result;
        unsigned count;
    } patterns[] = {{"a", TXN_DONE, 1},  {"[ab]", TXN_DONE, 2},   {".*", TXN_DONE, 2},       {"", TXN_DONE, 2},
                    {"x?", TXN_DONE, 0}, {"(b", TXN_BAD_NAME, 0}, {"a)|(b", TXN_BAD_NAME, 0}};
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
        assert_int_equal(ask(rig, CMD_TXN_LIST, patterns[i].pattern, (struct slice){0}, 0, 0).result,
                         patterns[i].result);
        r = reader_of(rig_nth(rig, EFF_ANSWER, 0)->answer->fields);
        for (count = 0; txn_row_next(&r, &row);)
            count++;
        assert_int_equal(count, patterns[i].count);
    }
    end(rig);
}

static unsigned listed(struct rig *rig, struct slice states, struct slice producers, uint64_t age, const char *first)
{
    struct ask *made = ask_new((struct slice){0}, (struct slice){0}, states, producers);
    struct txn_row row;
    unsigned count = 0;
    made->number = age;
    rig_clear(rig);
    rig_command(rig, 0, CMD_TXN_LIST, 1, 0)->ask = made;
    rig_step(rig);
    struct reader r = reader_of(rig_nth(rig, EFF_ANSWER, 0)->answer->fields);
    for (; txn_row_next(&r, &row); count++)
        assert_true(!first || count || slice_is(row.name, first));
    return count;
}

/* A listing has a limit, which what was not asked for does not use up. */
static void a_listing_of_some(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct slice none = {0}, ongoing = slice_of("\x01", 1), never = slice_of("\xff", 1), two = slice_of("\x01\x02", 2);
    struct who last = {.name = "last"};
    char name[16];
    declare_stream(rig, "s", 2);
    for (unsigned i = 0; i < TXN_ROWS_MAX + 5; i++) {
        struct who who = {.name = name};
        snprintf(name, sizeof name, "id%u", i);
        assert_int_equal(init(rig, &who), TXN_DONE);
    }
    assert_int_equal(init(rig, &last), TXN_DONE);
    assert_int_equal(add(rig, &last, "s", 1), TXN_DONE);
    assert_int_equal(listed(rig, none, none, 0, NULL), TXN_ROWS_MAX);
    assert_int_equal(listed(rig, ongoing, none, 0, "last"), 1);
    assert_int_equal(listed(rig, two, none, 0, "last"), 1);
    assert_int_equal(listed(rig, never, none, 0, NULL), 0);
    uint64_t producers[2] = {htobe64(last.id), htobe64(UINT64_MAX)};
    assert_int_equal(listed(rig, none, slice_of(producers, sizeof producers), 0, "last"), 1);
    assert_int_equal(listed(rig, none, slice_of(producers + 1, 8), 0, NULL), 0);
    static uint64_t many[TXN_ROWS_MAX];
    for (unsigned i = 0; i < TXN_ROWS_MAX; i++) /* all but the last one's, and some that nobody has */
        many[i] = htobe64(last.id - TXN_ROWS_MAX / 2 + i + (i >= TXN_ROWS_MAX / 2));
    assert_int_equal(listed(rig, none, slice_of(many, sizeof many), 0, NULL), TXN_ROWS_MAX / 2);
    assert_int_equal(listed(rig, none, none, 11, NULL), 0);
    rig->wall += 11;
    assert_int_equal(listed(rig, none, none, 12, NULL), 0);
    assert_int_equal(listed(rig, none, none, 11, "last"), 1);
    assert_int_equal(finish(rig, &last, ASK_COMMIT), TXN_DONE); /* one that is over tells when it began */
    restart(&rig);
    assert_int_equal(listed(rig, none, none, 11, "last"), 1);
    assert_int_equal(init(rig, &last), TXN_DONE);
    assert_int_equal(listed(rig, none, none, 1, NULL), 0);
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_instance_has_an_epoch),
        cmocka_unit_test(resume),
        cmocka_unit_test(resume_what_was_forgotten),
        cmocka_unit_test(resume_in_a_transaction),
        cmocka_unit_test(epochs_run_out),
        cmocka_unit_test(states),
        cmocka_unit_test(an_end_may_come_twice),
        cmocka_unit_test(batches_need_a_transaction),
        cmocka_unit_test(sequences_begin_at_zero),
        cmocka_unit_test(partitions_are_added_once),
        cmocka_unit_test(committed_is_seen_when_it_ends),
        cmocka_unit_test(aborted_is_never_seen),
        cmocka_unit_test(queues_get_what_is_committed),
        cmocka_unit_test(an_end_that_is_not_durable_is_not_seen),
        cmocka_unit_test(fetches_know_what_is_stable),
        cmocka_unit_test(times_are_of_what_is_stable),
        cmocka_unit_test(an_end_wakes_who_waits_for_much),
        cmocka_unit_test(offsets_are_committed_with_it),
        cmocka_unit_test(as_many_offsets_as_partitions),
        cmocka_unit_test(two_transactions_of_a_group),
        cmocka_unit_test(a_mark_ends_it_in_one_partition),
        cmocka_unit_test(who_takes_too_long_is_aborted),
        cmocka_unit_test(a_younger_instance_aborts),
        cmocka_unit_test(ids_that_nobody_uses_are_forgotten),
        cmocka_unit_test(a_fenced_instance_stays_fenced),
        cmocka_unit_test(a_timeout_in_the_last_epoch_fences_too),
        cmocka_unit_test(a_refused_batch_leaves_no_epoch),
        cmocka_unit_test(an_offset_of_none_is_committed_as_none),
        cmocka_unit_test(offsets_without_room_begin_nothing),
        cmocka_unit_test(a_trim_overtakes_a_fetch),
        cmocka_unit_test(allocations_fail),
        cmocka_unit_test(power_cuts),
        cmocka_unit_test(listing),
        cmocka_unit_test(a_listing_of_some),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
