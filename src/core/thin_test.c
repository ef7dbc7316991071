/* Many queues that hold little: together they take no more memory than one that holds much. */
#include "core/broker_words_test.h"

enum { QUEUES = 150, EACH = 5 };

static struct queue *queue_of(struct rig *rig, const char *name)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str(name));
}

static void put_sized(struct rig *rig, const char *queue, unsigned number)
{
    char body[401];
    memset(body, 'x', 400);
    body[400] = '\0';
    body[snprintf(body, 16, "%u", number)] = ' ';
    put(rig, queue, body);
    rig_clear(rig);
}

static unsigned got(struct rig *rig, const char *queue, uint32_t flags)
{
    rig_clear(rig);
    ASK(GET, queue, NULL, NULL, flags);
    assert_int_equal(rig_count(rig, EFF_GET_OK), 1);
    return (unsigned)strtoul((const char *)msg_body(rig_nth(rig, EFF_GET_OK, 0)->msg).ptr, NULL, 10);
}

static struct rig *filled(uint64_t paging_bytes)
{
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = paging_bytes, .page_bytes = 4000});
    rig->check = false;
    for (unsigned n = 0; n < EACH; n++)
        for (unsigned i = 0; i < QUEUES; i++) {
            char name[16];
            snprintf(name, sizeof name, "q%u", i);
            if (n == 0)
                declare(rig, name, (struct slice){0});
            put_sized(rig, name, 10 * i + n);
        }
    broker_check(rig->b);
    return rig;
}

static void short_queues_page_out(void **state)
{
    (void)state;
    struct rig *rig = filled(20000);
    assert_true(rig->b->ready_memory <= 20000);
    assert_int_equal(rig->b->totals.messages, QUEUES * EACH);
    assert_true(rig->log->store->written <= 2 * QUEUES * EACH); /* some were joined */
    restart(&rig);
    assert_true(rig->b->ready_memory <= 20000);
    for (unsigned i = 0; i < QUEUES; i++)
        for (unsigned n = 0; n < EACH; n++) {
            char name[16];
            snprintf(name, sizeof name, "q%u", i);
            assert_int_equal(got(rig, name, ASK_NO_ACK), 10 * i + n);
        }
    assert_int_equal(rig->b->totals.messages, 0);
    assert_int_equal(rig->b->ready_memory + rig->b->front_memory + rig->b->paged, 0);
    end(rig);
}

/* What was read and comes back leaves memory again without being written, with how often it came back. */
static void what_comes_back_is_left_to_its_page(void **state)
{
    (void)state;
    struct rig *rig = filled(20000);
    uint64_t written = rig->log->store->written, tag = 0;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < QUEUES; i++) {
            char name[16];
            snprintf(name, sizeof name, "q%u", i);
            assert_int_equal(got(rig, name, 0), 10 * i);
            rig_plain(rig, CMD_NACK, 1, 1, ++tag, ASK_REQUEUE);
        }
    broker_check(rig->b);
    assert_true(rig->b->ready_memory <= 20000);
    assert_in_range(rig->log->store->written, written, written + QUEUES);
    rig_assert_replays(rig); /* which compares how often each came back */
    rig_clear(rig);
    ASK(GET, "q7", NULL, NULL, 0);
    assert_int_equal(rig_nth(rig, EFF_GET_OK, 0)->flags & EFFECT_REDELIVERED, EFFECT_REDELIVERED);
    assert_int_equal(LIST_FIRST(&queue_of(rig, "q7")->busy->unacked, struct entry, link)->returns, 2);
    end(rig);
}

/* Who is ready to take messages is not made to wait for the disk, however little room there is. */
static void a_ready_consumer_finds_its_messages(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1, .page_bytes = 4000});
    declare(rig, "q", (struct slice){0});
    consume(rig, "q", "c", ASK_NO_ACK);
    for (unsigned i = 0; i < 50; i++)
        put_sized(rig, "q", i);
    assert_int_equal(rig->log->store->written, 0);
    assert_int_equal(rig_ready(rig, "q"), 0);
    end(rig);
}

/* Without use for it (a smaller page would cost more than it frees) nothing is written, and nobody goes round for ever. */
static void little_messages_stay(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1, .page_bytes = 4000});
    char name[16];
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "q%u", i);
        declare(rig, name, (struct slice){0});
        put(rig, name, "a");
    }
    assert_int_equal(rig->log->store->written, 0);
    assert_false(broker_step(rig->b, rig->now, rig->wall, rig->durable));
    for (unsigned i = 0; i < 5; i++)
        put(rig, "q50", "b");
    assert_int_equal(rig->log->store->written, 1);
    end(rig);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_queues_page_out),
        cmocka_unit_test(what_comes_back_is_left_to_its_page),
        cmocka_unit_test(a_ready_consumer_finds_its_messages),
        cmocka_unit_test(little_messages_stay),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
