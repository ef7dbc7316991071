/* Memory of transactions: one limit, of which nobody can use up all. */
#include "core/txn_words_test.h"

#define LIMIT (1u << 20)

static struct rig *begin_limited(void)
{
    return begin_options(&(struct broker_options){.txns_bytes_max = LIMIT});
}

/* Aborts transactions in one partition until none begins any more: why not. */
static enum produce_result abort_many(struct rig *rig, struct who *who, const char *stream, unsigned max)
{
    for (unsigned i = 0; i < max; i++) {
        int64_t at = produce(rig, who, stream, 0, 0, 1, ASK_JOINS);
        if (at < 0)
            return (enum produce_result) - at;
        assert_int_equal(finish(rig, who, ASK_NEXT_EPOCH), TXN_DONE);
    }
    return PRODUCE_OK;
}

static const struct isolation *index_of(struct rig *rig, const char *stream)
{
    return &stream_named(rig, stream)->partitions[0]->isolation;
}

/* A stream that keeps all of its records keeps a bounded number of aborted transactions; other streams and ids go on, and so
 * do readers. When records go, it goes on too. */
static void a_stream_has_a_share(void **state)
{
    (void)state;
    struct rig *rig = begin_limited();
    struct who bad = {.name = "bad"}, good = {.name = "good"};
    lsn_t lsn;
    rig->check = false; /* once, below: it is slow with so many */
    declare_stream(rig, "full", 1);
    declare_stream(rig, "other", 1);
    assert_int_equal(init(rig, &bad), TXN_DONE);
    assert_int_equal(abort_many(rig, &bad, "full", 20000), PRODUCE_ABORTED_FULL);
    broker_check(rig->b);
    uint32_t kept = index_of(rig, "full")->aborted_count;
    assert_in_range(kept, LIMIT / 4 / ABORTED_BYTES - 100, LIMIT / 4 / ABORTED_BYTES);
    assert_int_equal(add(rig, &bad, "full", 0), TXN_ABORTED_FULL);

    assert_int_equal(init(rig, &good), TXN_DONE);
    assert_int_equal(abort_many(rig, &good, "other", kept / 4), PRODUCE_OK);
    assert_true(produce(rig, &good, "other", 0, 0, 1, ASK_JOINS) >= 0);
    assert_int_equal(add(rig, &good, "full", 0), TXN_ABORTED_FULL);
    assert_int_equal(finish(rig, &good, ASK_COMMIT | ASK_NEXT_EPOCH), TXN_DONE);
    assert_true(produce(rig, NULL, "full", 0, 0, 1, 0) >= 0); /* who needs no transaction */

    restart(&rig);
    rig->check = false;
    assert_int_equal(index_of(rig, "full")->aborted_count, kept);
    assert_int_equal(init(rig, &good), TXN_DONE);
    assert_int_equal(add(rig, &good, "full", 0), TXN_ABORTED_FULL);
    uint64_t until = index_of(rig, "full")->aborted[kept / 2].last;
    assert_int_equal(stream_trim(rig->b, stream_named(rig, "full")->partitions[0], &until, &lsn), STREAM_DONE);
    assert_int_equal(add(rig, &good, "full", 0), TXN_DONE);
    end(rig);
}

/* The end of one that is open is never refused, and there may be several. */
static void what_is_open_can_end(void **state)
{
    (void)state;
    struct rig *rig = begin_limited();
    struct who bad = {.name = "bad"}, a = {.name = "a"}, b = {.name = "b"};
    rig->check = false;
    declare_stream(rig, "full", 1);
    assert_int_equal(init(rig, &bad), TXN_DONE);
    assert_int_equal(init(rig, &a), TXN_DONE);
    assert_int_equal(init(rig, &b), TXN_DONE);
    assert_true(produce(rig, &a, "full", 0, 0, 1, ASK_JOINS) >= 0);
    assert_true(produce(rig, &b, "full", 0, 0, 1, ASK_JOINS) >= 0);
    assert_int_equal(abort_many(rig, &bad, "full", 20000), PRODUCE_ABORTED_FULL);
    assert_true(produce(rig, &a, "full", 0, 1, 1, ASK_JOINS) >= 0); /* it is part of it */
    assert_int_equal(add(rig, &b, "full", 0), TXN_DONE);
    uint32_t kept = index_of(rig, "full")->aborted_count;
    assert_int_equal(finish(rig, &a, ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(finish(rig, &b, ASK_NEXT_EPOCH), TXN_DONE);
    assert_int_equal(index_of(rig, "full")->aborted_count, kept + 2);
    assert_int_equal(abort_many(rig, &a, "full", 8),
                     PRODUCE_ABORTED_FULL); /* what they had while they were open is free again */
    end(rig);
}

/* Ids are one share of a vhost: when it is used up, those that are there go on, and so does another vhost. */
static void ids_have_a_share(void **state)
{
    (void)state;
    struct rig *rig = begin_limited();
    char name[16];
    struct who old = {.name = "old"}, one = {.name = name};
    enum txn_result result = TXN_DONE;
    rig->check = false;
    declare_stream(rig, "s", 1);
    assert_int_equal(init(rig, &old), TXN_DONE);
    for (unsigned i = 0; i < 10000 && result == TXN_DONE; i++) {
        snprintf(name, sizeof name, "made up %u", i);
        result = init(rig, &one);
    }
    assert_int_equal(result, TXN_NO_ROOM);
    broker_check(rig->b);
    const struct vhost *vhost = vhost_find(rig->b, slice_str("/"));
    assert_in_range(vhost->txn_ids.bytes, LIMIT / 4 - 4096, LIMIT / 4);
    assert_int_equal(abort_many(rig, &old, "s", 100), PRODUCE_OK);
    assert_int_equal(init(rig, &old), TXN_DONE);
    struct vhost *other = vhost_put(rig->b, slice_str("v"), (struct slice){0});
    assert_non_null(other);
    assert_true(txn_has_room(rig->b, other, &other->txn_ids, LIMIT / 8));
    vhost_delete(rig->b, other); /* it is in no journal */
    end(rig);
}

/* Many streams have no more than one vhost may have; the rest is another's. */
static void many_streams_are_one_vhost(void **state)
{
    (void)state;
    struct rig *rig = begin_limited();
    struct who bad = {.name = "bad"};
    char name[16];
    rig->check = false;
    assert_int_equal(init(rig, &bad), TXN_DONE);
    for (unsigned i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "s%u", i);
        declare_stream(rig, name, 1);
        assert_true(abort_many(rig, &bad, name, 20000) != PRODUCE_OK);
    }
    broker_check(rig->b);
    assert_true(rig->b->txn_memory.bytes <= LIMIT / 2);
    struct vhost *other = vhost_put(rig->b, slice_str("v"), (struct slice){0});
    assert_true(txn_has_room(rig->b, other, &other->txn_ids, LIMIT / 8));
    vhost_delete(rig->b, other); /* it is in no journal */
    end(rig);
}

/* The log is told which vhost and stream, once a minute; the figure counts each. */
static void the_log_is_told(void **state)
{
    (void)state;
    struct rig *rig = begin_limited();
    struct who bad = {.name = "bad"}, more = {.name = "more"};
    rig->check = false;
    declare_stream(rig, "full", 1);
    assert_int_equal(init(rig, &bad), TXN_DONE);
    assert_int_equal(abort_many(rig, &bad, "full", 20000), PRODUCE_ABORTED_FULL);
    const struct effect *e = rig_nth(rig, EFF_TXNS_FULL, 0);
    assert_non_null(e);
    assert_true(slice_is(e->answer->name, "/") && slice_is(e->answer->fields, "full"));
    assert_int_equal(e->answer->number, stream_named(rig, "full")->txn_aborted.bytes);
    assert_int_equal(e->answer->number2, LIMIT);
    assert_int_equal(rig->b->totals.transactions_refused, 1);

    assert_int_equal(add(rig, &bad, "full", 0), TXN_ABORTED_FULL);
    assert_int_equal(rig_count(rig, EFF_TXNS_FULL), 0);
    assert_int_equal(rig->b->totals.transactions_refused, 2);
    rig_pass(rig, 61000);
    rig->b->options.txns_bytes_max = rig->b->txn_memory.bytes;
    assert_int_equal(init(rig, &more), TXN_NO_ROOM);
    e = rig_nth(rig, EFF_TXNS_FULL, 0);
    assert_non_null(e);
    assert_true(slice_is(e->answer->name, "/") && e->answer->fields.len == 0);
    assert_int_equal(rig->b->totals.transactions_refused, 3);

    rig_pass(rig, 61000);  /* without memory it is told the next time */
    mem_fail_at(3, false); /* of the question itself, of its answer, and this */
    assert_int_equal(init(rig, &more), TXN_NO_ROOM);
    assert_int_equal(mem_failures_hit(), 1);
    mem_fail_at(0, false);
    assert_int_equal(rig_count(rig, EFF_TXNS_FULL), 0);
    assert_int_equal(init(rig, &more), TXN_NO_ROOM);
    assert_int_equal(rig_count(rig, EFF_TXNS_FULL), 1);
    rig->b->options.txns_bytes_max = 0;
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_has_a_share), cmocka_unit_test(what_is_open_can_end),
        cmocka_unit_test(ids_have_a_share),     cmocka_unit_test(many_streams_are_one_vhost),
        cmocka_unit_test(the_log_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
