/* Compaction of keyed streams as the core sees it: when it begins, what holds it back, what the journal says, and that files go
 * only behind that; trouble, and streams that go meanwhile. What is in the files is the stream store's test. */
#include "core/broker_words_test.h"
#include "core/records.h"
#include "core/stream_int.h"

static struct partition *part(struct rig *rig)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str("s"))->stream->partitions[0];
}

/* Files of one record each. */
static void declare_keyed(struct rig *rig, const char *policy, const char *lag)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_str(&t.w, "x-cleanup-policy", slice_str(policy));
    amqp_put_long(&t.w, "x-stream-max-segment-size-bytes", 65536);
    if (lag)
        amqp_put_str(&t.w, "x-min-compaction-lag", slice_str(lag));
    declare(rig, "s", writer_slice(&t.w));
    rig_clear(rig);
}

static void put_files(struct rig *rig, unsigned count)
{
    uint8_t *body = calloc(1, 70000);
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE, .delivery_mode = 2};
    for (unsigned i = 0; i < count; i++) {
        rig_publish_with(rig, 1, 1, "", "s", slice_of(body, 70000), &props, 0);
        rig_clear(rig);
    }
    free(body);
}

static struct rig *begin_keyed(void)
{
    struct rig *rig = begin_options(&(struct broker_options){.keyed_every_ms = 100});
    rig->check = false;
    return rig;
}

static void compacted_and_named(void **state)
{
    (void)state;
    struct rig *rig = begin_keyed();
    declare_keyed(rig, "compact", NULL);
    put_files(rig, 5);
    struct rig_streams *store = rig->log->streams;
    rig_pass(rig, 1000); /* what is sealed is synced first, then it is named */
    struct partition *p = part(rig);
    assert_int_equal(store->rewrites, 4);
    assert_int_equal(store->replacements, 4);
    assert_int_equal(p->dirty_from, 4);
    assert_int_equal(p->sealed_count, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_true(p->sealed[i].base == i && p->sealed[i].generation == i + 1 && p->sealed[i].bytes == 5000);
    assert_int_equal(rig->b->totals.keyed_passes, 1);
    assert_int_equal(rig->b->totals.keyed_files, 4);
    assert_true(rig->b->totals.keyed_bytes_before > 250000 && rig->b->totals.keyed_bytes_after == 20000);
    rig_pass(rig, 1000);
    assert_int_equal(store->rewrites, 4); /* there is nothing new */
    restart(&rig);
    rig->check = false;
    p = part(rig);
    assert_true(p->dirty_from == 4 && p->generation == 4 && p->sealed_count == 4 && p->sealed[3].generation == 4);
    put_files(rig, 2);
    rig_pass(rig, 1000); /* small files become one */
    assert_true(p->sealed[0].base == 0 && p->sealed[0].end >= 4 && p->sealed[0].generation > 4);
    assert_true(p->dirty_from >= 5);
    end(rig);
}

/* Whether what stands in an open transaction is valid is not known: its files wait. What was aborted is told to the store. */
static void open_transactions_hold_it_back(void **state)
{
    (void)state;
    struct rig *rig = begin_keyed();
    uint64_t first;
    declare_keyed(rig, "compact", NULL);
    put_files(rig, 5);
    struct rig_streams *store = rig->log->streams;
    struct partition *p = part(rig);
    assert_true(producers_open(&p->producers, 7, 0, 2));
    rig_pass(rig, 1000);
    assert_int_equal(store->rewrites, 2);
    assert_int_equal(p->dirty_from, 2);
    assert_int_equal(store->aborted_told, 0);
    assert_true(producers_close(&p->producers, 7, 0, &first) && isolation_reserve(&p->isolation, 0));
    isolation_abort(&p->isolation, &(struct aborted){.producer = 7, .first = 2, .last = 3, .stable = 4},
                    &p->stream->txn_aborted);
    rig_pass(rig, 1000);
    assert_int_equal(p->dirty_from, 4);
    assert_true(store->rewrites > 2);
    assert_true(store->aborted_told >= 2); /* of the keys, and of what is rewritten */
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

/* What is aborted is known until nothing of it is in a file that may still be read: one pass more, or a start. */
static void what_was_aborted_is_forgotten(void **state)
{
    (void)state;
    struct rig *rig = begin_keyed();
    declare_keyed(rig, "compact", NULL);
    put_files(rig, 5);
    struct partition *p = part(rig);
    for (uint64_t i = 0; i < 6; i++) { /* the last one ends behind what is sealed */
        assert_true(isolation_reserve(&p->isolation, 0));
        isolation_abort(&p->isolation, &(struct aborted){.producer = 7, .first = i, .last = i + 1, .stable = i + 2},
                        &p->stream->txn_aborted);
    }
    rig_pass(rig, 1000);
    assert_int_equal(p->dirty_from, 4);
    assert_int_equal(p->isolation.aborted_count, 6);
    put_files(rig, 5);
    rig_pass(rig, 1000);
    assert_int_equal(p->dirty_from, 9);
    assert_int_equal(p->isolation.trimmed, 4);
    assert_int_equal(p->isolation.aborted_count, 3); /* it ended at 4, 5 and 6 */
    compact_start(rig->b);
    rig_pass(rig, 1000);
    restart(&rig);
    rig->check = false;
    assert_int_equal(part(rig)->isolation.trimmed, 9);
    assert_int_equal(part(rig)->isolation.aborted_count, 0);
    end(rig);
}

/* A burst leaves no large block behind. */
static void the_index_shrinks(void **state)
{
    (void)state;
    struct isolation i = {0};
    struct allowance allowance = {0};
    for (uint64_t n = 0; n < 1000; n++) {
        assert_true(isolation_reserve(&i, n));
        isolation_abort(&i, &(struct aborted){.producer = 7, .first = n, .last = n, .stable = n + 1}, &allowance);
        isolation_closing(&i, n, n + 1); /* durable by the next one, and nobody reads */
    }
    assert_true(i.closing_max <= 4);
    isolation_trim(&i, 990, &allowance);
    assert_true(i.aborted_max <= 40); /* at once: maybe none comes any more */
    for (uint32_t n = 0; n < 10; n++)
        assert_true(isolation_reserve(&i, n)); /* with each that comes */
    assert_int_equal(i.aborted_count, 10);
    assert_true(i.aborted_max <= 40);
    assert_int_equal(i.aborted[0].first, 990);
    assert_int_equal(allowance.bytes, isolation_bytes(&i));
    isolation_fini(&i, &allowance);
    assert_int_equal(allowance.bytes, 0);
}

/* Every prefix of the journal names files that were there, in order; and a snapshot says all of it again. */
static void every_prefix_of_the_journal(void **state)
{
    (void)state;
    struct rig *rig = begin_keyed();
    declare_keyed(rig, "compact,delete", NULL);
    for (unsigned i = 0; i < 4; i++) {
        put_files(rig, 3);
        rig_pass(rig, 500);
    }
    assert_true(rig->log->streams->replacements > 4);
    for (unsigned snapshot = 0; snapshot < 2; snapshot++) {
        for (size_t n = rig->log->first; n <= rig->log->count; n++) {
            struct rig_log *copy = rig_log_copy(rig->log, n);
            const char *why;
            struct rig *other = rig_try(copy, &rig->options, rig->wall, &why);
            rig_free(other);
            rig_log_free(copy);
        }
        struct stream_extent first = part(rig)->sealed[0];
        uint64_t dirty_from = part(rig)->dirty_from;
        rig_ask_full(rig, CMD_ADMIN, 1, 0, NULL, NULL, NULL, (struct slice){0}, 0, 0);
        rig_clear(rig);
        compact_start(rig->b);
        rig_step(rig);
        restart(&rig);
        rig->check = false;
        assert_true(part(rig)->sealed[0].base == first.base && part(rig)->sealed[0].end == first.end &&
                    part(rig)->sealed[0].generation == first.generation && part(rig)->dirty_from == dirty_from);
    }
    end(rig);
}

/* C1: nothing goes before REWRITTEN is durable. */
static void files_go_when_the_record_is_durable(void **state)
{
    (void)state;
    struct rig *rig = begin_keyed();
    declare_keyed(rig, "compact", NULL);
    put_files(rig, 3);
    rig_pass(rig, 50);
    rig->hold = true;
    rig_pass(rig, 1000);
    assert_true(rig->log->streams->rewrites > 0);
    assert_int_equal(rig->log->streams->replacements, 0);
    rig->hold = false;
    rig_step(rig);
    assert_int_equal(rig->log->streams->replacements, 2);
    end(rig);
}

static void the_lag_and_bound_queues_hold_it_back(void **state)
{
    (void)state;
    struct rig *rig = begin_keyed();
    declare_keyed(rig, "compact", "10s");
    put_files(rig, 4);
    rig_pass(rig, 3000);
    assert_int_equal(rig->log->streams->rewrites, 0);
    rig_pass(rig, 8000); /* time alone */
    assert_int_equal(rig->log->streams->rewrites, 3);
    end(rig);

    rig = begin_keyed();
    declare_keyed(rig, "compact", NULL);
    declare(rig, "q", (struct slice){0});
    ASK(QUEUE_BIND, "q", "amq.stream.s", "", 0);
    rig_clear(rig);
    put_files(rig, 100); /* of which about 4 MiB are fed */
    rig_pass(rig, 1000);
    struct partition *p = part(rig);
    assert_true(p->dirty_from > 0 && p->dirty_from < 90);
    ASK(QUEUE_DELETE, "q", NULL, NULL, 0);
    rig_clear(rig);
    rig_pass(rig, 1000);
    assert_int_equal(p->dirty_from, 99);
    end(rig);
}

static void only_keyed_streams(void **state)
{
    (void)state;
    struct rig *rig = begin_keyed();
    declare_keyed(rig, "delete", NULL);
    put_files(rig, 4);
    compact_start(rig->b);
    rig_pass(rig, 1000);
    assert_int_equal(rig->log->streams->rewrites, 0);
    end(rig);
    static const struct {
        const char *key, *value, *error;
    } rows[] = {
        {"x-cleanup-policy", "shrink", "expected delete, compact or compact,delete, got 'shrink'"},
        {"x-min-compaction-lag", "soon", "expected an interval such as 10m, 1h or 7D, got 'soon'"},
        {"x-delete-retention", "1", "expected an interval such as 10m, 1h or 7D, got '1'"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (unsigned classic = 0; classic < 2; classic++) {
            struct table t;
            rig = begin();
            amqp_put_str(&table(&t)->w, rows[i].key, slice_str(rows[i].value));
            if (!classic)
                amqp_put_str(&t.w, "x-queue-type", slice_str("stream"));
            rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "s", NULL, NULL, writer_slice(&t.w), ASK_DURABLE);
            if (!strstr(rig_error(rig), classic ? "of queue type rabbit_classic_queue" : rows[i].error))
                rig_fail("%zu: %s\n", i, rig_error(rig));
            end(rig);
        }
}

static void several_passes(void **state)
{
    (void)state;
    struct rig *rig = begin_keyed();
    declare_keyed(rig, "compact", NULL);
    put_files(rig, 7);
    rig->log->streams->keys_room = 2;
    rig_pass(rig, 1000);
    assert_int_equal(part(rig)->dirty_from, 6);
    assert_int_equal(rig->b->totals.keyed_passes, 3);
    end(rig);
}

static void trouble(void **state)
{
    (void)state;
    struct rig *rig = begin_keyed();
    declare_keyed(rig, "compact", NULL);
    put_files(rig, 4);
    rig->log->streams->rewrite_err = -28;
    rig_pass(rig, 1500);
    struct partition *p = part(rig);
    assert_true(rig->log->streams->replacements == 0 && p->dirty_from == 0 && p->sealed[0].generation == 0);
    rig->log->streams->rewrite_err = 0;
    rig->log->streams->nothing_won = true;
    rig_pass(rig, 1000);
    assert_true(rig->log->streams->replacements == 0 && p->dirty_from == 3 && p->sealed[0].generation == 0);
    rig->log->streams->rewrite_err = -84; /* damage: not again before the next start */
    put_files(rig, 8);
    rig_pass(rig, 1000);
    assert_true(p->keyed_damaged);
    unsigned rewrites = rig->log->streams->rewrites;
    put_files(rig, 8);
    rig_pass(rig, 1000);
    assert_true(rig->log->streams->rewrites == rewrites && p->dirty_from == 3);
    end(rig);
}

/* The answer finds no stream, or no files. */
static void gone_meanwhile(void **state)
{
    (void)state;
    struct rig *rig = begin_keyed();
    declare_keyed(rig, "compact", NULL);
    put_files(rig, 4);
    compact_start(rig->b);
    rig_pass(rig, 80);
    rig->slow_store = true;
    rig->chance = 0;
    rig_pass(rig, 200);
    assert_true(rig->b->streams.pass.busy);
    ASK(QUEUE_DELETE, "s", NULL, NULL, 0);
    rig_clear(rig);
    rig->slow_store = false;
    rig_pass(rig, 1000);
    assert_false(rig->b->streams.pass.busy);
    declare_keyed(rig, "compact", NULL);
    put_files(rig, 4);
    rig_pass(rig, 1000);
    assert_int_equal(part(rig)->dirty_from, 3);
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compacted_and_named),
        cmocka_unit_test(open_transactions_hold_it_back),
        cmocka_unit_test(what_was_aborted_is_forgotten),
        cmocka_unit_test(the_index_shrinks),
        cmocka_unit_test(every_prefix_of_the_journal),
        cmocka_unit_test(files_go_when_the_record_is_durable),
        cmocka_unit_test(the_lag_and_bound_queues_hold_it_back),
        cmocka_unit_test(only_keyed_streams),
        cmocka_unit_test(several_passes),
        cmocka_unit_test(trouble),
        cmocka_unit_test(gone_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
