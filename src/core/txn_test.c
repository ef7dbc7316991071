/* Transactions: what they may do in which state, who is fenced, and what readers see of them before and after their end. */
#include "core/txn_words_test.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
