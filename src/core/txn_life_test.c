/* Transactions: offsets of groups in them, time-outs, ids that are forgotten, listings; and that an end is there wholly or not at all
 * whatever is replayed, and without memory. */
#include "core/txn_words_test.h"

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

/* So long after the last use, without a compaction, and for good; nothing that is open goes. */
static void ids_go_by_time(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.txn_retention_ms = 1000});
    struct who who = {.name = "t"}, other = {.name = "u"};
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(init(rig, &other), TXN_DONE);
    assert_int_equal(add(rig, &other, "s", 0), TXN_DONE);
    uint64_t bytes = rig->b->txn_memory.bytes;
    rig_pass(rig, 900);
    assert_int_equal(init(rig, &who), TXN_DONE);
    rig_pass(rig, 900);
    assert_int_equal(rig->b->txns.count, 2);
    rig_pass(rig, 200);
    assert_int_equal(rig->b->txns.count, 1);
    assert_true(rig->b->txn_memory.bytes < bytes);
    restart(&rig);
    assert_int_equal(rig->b->txns.count, 1);
    assert_int_equal(finish(rig, &other, ASK_COMMIT), TXN_DONE);
    rig_pass(rig, 900);
    restart(&rig);
    assert_int_equal(rig->b->txns.count, 1);
    rig_pass(rig, 200); /* time goes on while the broker does not run */
    assert_int_equal(rig->b->txns.count, 0);
    assert_int_equal(finish(rig, &other, ASK_COMMIT), TXN_UNKNOWN);
    end(rig);
}

/* What has ended holds no room for its partitions, after a restart either. */
static void an_end_gives_room_back(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct who who = {.name = "t"};
    declare_stream(rig, "s", 100);
    assert_int_equal(init(rig, &who), TXN_DONE);
    uint64_t idle = rig->b->txn_memory.bytes;
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(add(rig, &who, "s", i), TXN_DONE);
    assert_true(rig->b->txn_memory.bytes > idle);
    assert_int_equal(finish(rig, &who, ASK_COMMIT), TXN_DONE);
    uint64_t bytes = rig->b->txn_memory.bytes;
    restart(&rig);
    assert_true(rig->b->txn_memory.bytes <= bytes);
    end(rig);
}

/* Ids, open transactions and what was aborted have one limit, at which none begins and each can end. */
static void they_have_a_limit(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.txn_retention_ms = 1000});
    struct who who = {.name = "t"}, idle = {.name = "idle"}, more = {.name = "u"};
    uint64_t end_of = 3;
    lsn_t lsn;
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &idle), TXN_DONE);
    assert_int_equal(init(rig, &who), TXN_DONE);
    assert_int_equal(produce(rig, &who, "s", 0, 0, 2, ASK_JOINS), 0);
    rig->b->options.txns_bytes_max = rig->b->txn_memory.bytes;
    assert_int_equal(init(rig, &more), TXN_NO_ROOM);
    assert_int_equal(add(rig, &idle, "s", 0), TXN_NO_ROOM);
    assert_int_equal(produce(rig, &idle, "s", 0, 0, 1, ASK_JOINS), -PRODUCE_NO_MEMORY);
    assert_int_equal(add(rig, &who, "s", 0), TXN_DONE);
    uint64_t open = rig->b->txn_memory.bytes;
    assert_int_equal(finish(rig, &who, ASK_NEXT_EPOCH), TXN_DONE); /* aborted */
    assert_true(rig->b->txn_memory.bytes <= open);
    rig->b->options.txns_bytes_max = rig->b->txn_memory.bytes;
    assert_int_equal(add(rig, &who, "s", 0), TXN_NO_ROOM);
    restart(&rig);
    rig->b->options.txns_bytes_max = 4 * rig->b->txn_memory.bytes; /* of a vhost half, and of that half for ids */
    assert_int_equal(init(rig, &more), TXN_NO_ROOM);
    rig_pass(rig, 900);
    assert_int_equal(init(rig, &who), TXN_DONE);
    rig_pass(rig, 200); /* the idle one makes room */
    assert_int_equal(init(rig, &more), TXN_DONE);
    assert_int_equal(stream_trim(rig->b, stream_named(rig, "s")->partitions[0], &end_of, &lsn), STREAM_DONE);
    assert_int_equal(stream_named(rig, "s")->partitions[0]->isolation.aborted_count, 0);
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

/* The beginning moves while the store has a fetch, or compaction does: what was aborted there is not known any more. */
static void overtake_a_fetch(bool compaction)
{
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
    if (compaction)
        isolation_trim(&stream_named(rig, "s")->partitions[0]->isolation, offset, &stream_named(rig, "s")->txn_aborted);
    else
        assert_int_equal(stream_trim(rig->b, stream_named(rig, "s")->partitions[0], &offset, &lsn), STREAM_DONE);
    rig->slow_store = false;
    rig_step(rig);
    struct effect *e = rig_nth(rig, EFF_FETCHED, 0);
    assert_non_null(e);
    f = e->fetch;
    e->fetch = NULL;
    assert_int_equal(f->rows[0].result, compaction ? FETCH_OK : FETCH_OUT_OF_RANGE);
    assert_int_equal(f->rows[0].piece.len, 0);
    fetch_free(&f);
    end(rig);
}

static void a_trim_overtakes_a_fetch(void **state)
{
    (void)state;
    overtake_a_fetch(false);
    overtake_a_fetch(true);
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

/* An expression that takes too long for one name is refused: it is not tried with all the others, nor does a name go untold. */
static void an_expression_that_takes_long(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char name[203];
    for (unsigned i = 0; i < 5; i++) {
        struct who who = {.name = name};
        memset(name, 'a', 200);
        snprintf(name + 200, sizeof name - 200, "%u", i);
        assert_int_equal(init(rig, &who), TXN_DONE);
    }
    assert_int_equal(ask(rig, CMD_TXN_LIST, "(a|aa)+[xy]", (struct slice){0}, 0, 0).result, TXN_BAD_NAME);
    assert_int_equal(ask(rig, CMD_TXN_LIST, "(?:a)+4", (struct slice){0}, 0, 0).result, TXN_DONE);
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

/* A listing has all that was asked for. */
static void a_listing_of_some(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct slice none = {0}, ongoing = slice_of("\x01", 1), never = slice_of("\xff", 1), two = slice_of("\x01\x02", 2);
    struct who last = {.name = "last"};
    char name[16];
    enum { MANY = 1000 };
    declare_stream(rig, "s", 2);
    for (unsigned i = 0; i < MANY + 5; i++) {
        struct who who = {.name = name};
        snprintf(name, sizeof name, "id%u", i);
        assert_int_equal(init(rig, &who), TXN_DONE);
    }
    assert_int_equal(init(rig, &last), TXN_DONE);
    assert_int_equal(add(rig, &last, "s", 1), TXN_DONE);
    assert_int_equal(listed(rig, none, none, 0, NULL), MANY + 6);
    assert_int_equal(listed(rig, ongoing, none, 0, "last"), 1);
    assert_int_equal(listed(rig, two, none, 0, "last"), 1);
    assert_int_equal(listed(rig, never, none, 0, NULL), 0);
    uint64_t producers[2] = {htobe64(last.id), htobe64(UINT64_MAX)};
    assert_int_equal(listed(rig, none, slice_of(producers, sizeof producers), 0, "last"), 1);
    assert_int_equal(listed(rig, none, slice_of(producers + 1, 8), 0, NULL), 0);
    static uint64_t many[MANY];
    for (unsigned i = 0; i < MANY; i++) /* all but the last one's, and some that nobody has */
        many[i] = htobe64(last.id - MANY / 2 + i + (i >= MANY / 2));
    assert_int_equal(listed(rig, none, slice_of(many, sizeof many), 0, NULL), MANY / 2);
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
        cmocka_unit_test(offsets_are_committed_with_it),
        cmocka_unit_test(as_many_offsets_as_partitions),
        cmocka_unit_test(two_transactions_of_a_group),
        cmocka_unit_test(a_mark_ends_it_in_one_partition),
        cmocka_unit_test(who_takes_too_long_is_aborted),
        cmocka_unit_test(a_younger_instance_aborts),
        cmocka_unit_test(ids_that_nobody_uses_are_forgotten),
        cmocka_unit_test(ids_go_by_time),
        cmocka_unit_test(an_end_gives_room_back),
        cmocka_unit_test(they_have_a_limit),
        cmocka_unit_test(a_fenced_instance_stays_fenced),
        cmocka_unit_test(a_timeout_in_the_last_epoch_fences_too),
        cmocka_unit_test(a_refused_batch_leaves_no_epoch),
        cmocka_unit_test(an_offset_of_none_is_committed_as_none),
        cmocka_unit_test(offsets_without_room_begin_nothing),
        cmocka_unit_test(a_trim_overtakes_a_fetch),
        cmocka_unit_test(allocations_fail),
        cmocka_unit_test(power_cuts),
        cmocka_unit_test(listing),
        cmocka_unit_test(an_expression_that_takes_long),
        cmocka_unit_test(a_listing_of_some),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
