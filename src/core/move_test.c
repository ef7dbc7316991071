/* Pages that move: out of segments that are mostly dead, and small ones into one. A segment of the rig's store has eight pages. */
#include "core/broker_words_test.h"

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

/* 0: none. */
static unsigned got(struct rig *rig, const char *queue, uint32_t flags)
{
    rig_clear(rig);
    ASK(GET, queue, NULL, NULL, flags);
    if (rig_count(rig, EFF_GET_OK) == 0)
        return 0;
    return (unsigned)strtoul((const char *)msg_body(rig_nth(rig, EFF_GET_OK, 0)->msg).ptr, NULL, 10);
}

static unsigned pages_of(struct rig *rig, const char *queue)
{
    unsigned pages = 0;
    LIST_EACH(&queue_of(rig, queue)->busy->pages, node, after)
    pages++;
    return pages;
}

/* Every message is a page: one of "slow" stands among seven of "fast". */
static struct rig *mixed(unsigned segments)
{
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1, .page_bytes = 300});
    declare(rig, "fast", (struct slice){0});
    declare(rig, "slow", (struct slice){0});
    for (unsigned i = 1; i <= segments * 8; i++)
        put_sized(rig, i % 8 ? "fast" : "slow", i);
    assert_int_equal(rig->log->store->written, segments * 8);
    return rig;
}

static void drain_fast(struct rig *rig, unsigned segments)
{
    for (unsigned i = 1; i <= segments * 8; i++)
        if (i % 8)
            assert_int_equal(got(rig, "fast", ASK_NO_ACK), i);
    assert_int_equal(rig_ready(rig, "fast"), 0);
}

static void a_slow_queue_keeps_no_files(void **state)
{
    (void)state;
    struct rig *rig = mixed(20);
    rig->log->drops = true;
    assert_true(rig_store_files(rig->log->store) >= 19);
    drain_fast(rig, 20);
    rig_pass(rig, 1000);
    assert_true(rig->b->pages_moved >= 15);
    assert_true(rig_store_files(rig->log->store) <= 5);
    rig_assert_replays(rig);
    restart(&rig);
    for (unsigned i = 8; i <= 160; i += 8)
        assert_int_equal(got(rig, "slow", ASK_NO_ACK), i);
    assert_int_equal(rig->b->totals.messages, 0);
    end(rig);
}

/* Death after any record: every message is there once, in order, and its page is in a file that is there. */
static void every_prefix_of_a_move(void **state)
{
    (void)state;
    struct rig *rig = mixed(4);
    size_t before = rig->log->count;
    drain_fast(rig, 4);
    rig_pass(rig, 1000);
    assert_true(rig->b->pages_moved >= 2);
    for (size_t n = before; n <= rig->log->count; n++) {
        struct rig *other = rig_new(rig_log_copy(rig->log, n), &rig->options, rig->wall);
        assert_true(begin_with(other));
        for (unsigned i = 8; i <= 32; i += 8)
            assert_int_equal(got(other, "slow", ASK_NO_ACK), i);
        assert_int_equal(got(other, "slow", ASK_NO_ACK), 0);
        struct rig_log *copy = other->log;
        rig_free(other);
        rig_log_free(copy);
    }
    end(rig);
}

/* What a consumer holds of a page moves too, and is acknowledged where it is now. */
static void a_page_that_was_read_moves(void **state)
{
    (void)state;
    struct rig *rig = mixed(4);
    assert_int_equal(got(rig, "slow", 0), 8);
    struct page_where where = LIST_FIRST(&queue_of(rig, "slow")->busy->unacked, struct entry, link)->page->where;
    drain_fast(rig, 4);
    rig_pass(rig, 1000);
    const struct entry *e = LIST_FIRST(&queue_of(rig, "slow")->busy->unacked, struct entry, link);
    assert_int_equal(e->page->state, PAGE_LOADED);
    assert_true(e->page->where.segment != where.segment);
    rig_assert_replays(rig);
    rig_plain(rig, CMD_NACK, 1, 1, 1, ASK_REQUEUE);
    rig_assert_replays(rig);
    compact_start(rig->b);
    rig_step(rig);
    rig_assert_replays(rig);
    restart(&rig);
    assert_int_equal(got(rig, "slow", 0), 8);
    assert_int_equal(rig_nth(rig, EFF_GET_OK, 0)->flags & EFFECT_REDELIVERED, EFFECT_REDELIVERED);
    rig_plain(rig, CMD_ACK, 1, 1, 1, 0);
    restart(&rig);
    assert_int_equal(got(rig, "slow", 0), 16);
    end(rig);
}

/* A disk that does not write or read: nothing moves, nothing is lost, and it is tried again. */
static void failures_change_nothing(void **state)
{
    (void)state;
    struct rig *rig = mixed(6);
    rig->log->store->fail_writes = 3;
    drain_fast(rig, 6);
    assert_true(rig->log->store->fail_writes < 3);
    rig_assert_replays(rig);
    rig_pass(rig, 5000);
    assert_int_equal(rig->log->store->fail_writes, 0);
    assert_true(rig->b->pages_moved > 0);
    for (unsigned i = 8; i <= 48; i += 8)
        assert_int_equal(got(rig, "slow", ASK_NO_ACK), i);
    end(rig);
}

/* A page that turns out to be damaged when it is to move stays where it is; who wants its messages hears of it. */
static void a_damaged_page_stays(void **state)
{
    (void)state;
    struct rig *rig = mixed(4);
    rig->slow_store = true;
    rig->chance = 0; /* it does nothing */
    ASK(QUEUE_PURGE, "fast", NULL, NULL, 0);
    rig->log->store->damaged = true;
    rig->slow_store = false;
    rig_pass(rig, 100);
    assert_int_equal(rig->b->pages_moved, 0);
    rig->log->store->damaged = false;
    rig_pass(rig, 3000);
    assert_int_equal(rig->b->move_count, 0);
    for (unsigned i = 8; i <= 32; i += 8) /* the rig's damage has gone again */
        assert_int_equal(got(rig, "slow", ASK_NO_ACK), i);
    end(rig);
}

/* Between each two steps of a move something else happens to its page. */
static void a_move_that_is_overtaken(void **state)
{
    (void)state;
    for (unsigned served = 0; served < 3; served++)
        for (unsigned what = 0; what < 4; what++) {
            struct rig *rig = mixed(3);
            rig->slow_store = true;
            rig->chance = 0; /* it does nothing, but when it is told to */
            ASK(QUEUE_PURGE, "fast", NULL, NULL, 0);
            rig_step(rig);
            assert_true(rig->b->move_count > 0);
            rig_store_serve(rig->b, rig->log, served);
            rig_step(rig);
            unsigned left = 8;
            if (what == 0)
                ASK(GET, "slow", NULL, NULL, 0);
            else if (what == 1)
                ASK(QUEUE_PURGE, "slow", NULL, NULL, 0);
            else if (what == 2)
                ASK(QUEUE_DELETE, "slow", NULL, NULL, 0);
            else
                compact_start(rig->b);
            rig->slow_store = false;
            rig_step(rig);
            rig_pass(rig, 1000);
            broker_check(rig->b);
            rig_assert_replays(rig);
            assert_int_equal(rig->b->move_count, 0);
            restart(&rig);
            for (; what == 0 || what == 3 ? left <= 24 : 0; left += 8)
                assert_int_equal(got(rig, "slow", ASK_NO_ACK), left);
            assert_int_equal(rig->b->totals.messages, 0);
            end(rig);
        }
}

/* It comes back and is left to its page while that is on its way to another place. */
static void returned_during_a_move(void **state)
{
    (void)state;
    struct rig *rig = mixed(3);
    assert_int_equal(got(rig, "slow", 0), 8);
    rig->slow_store = true;
    rig->chance = 0; /* it does nothing, but when it is told to */
    ASK(QUEUE_PURGE, "fast", NULL, NULL, 0);
    rig_step(rig);
    assert_true(rig->b->move_count > 0);
    rig_store_serve(rig->b, rig->log, 1);
    rig_step(rig);
    rig_plain(rig, CMD_NACK, 1, 1, 1, ASK_REQUEUE);
    rig->slow_store = false;
    rig_step(rig);
    assert_true(rig->b->pages_moved > 0);
    rig_assert_replays(rig);
    assert_int_equal(got(rig, "slow", 0), 8);
    assert_int_equal(rig_nth(rig, EFF_GET_OK, 0)->flags & EFFECT_REDELIVERED, EFFECT_REDELIVERED);
    end(rig);
}

/* A queue that is written message by message does not consist of crumbs. */
static void small_pages_become_one(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1, .page_bytes = 16000});
    rig->log->drops = true;
    declare(rig, "q", (struct slice){0});
    for (unsigned i = 1; i <= 300; i++) {
        put_sized(rig, "q", i);
        rig_pass(rig, 1); /* moves have a rate */
        assert_true(pages_of(rig, "q") <= 24);
    }
    assert_true(rig->log->store->written >= 300);
    assert_int_equal(rig->b->paged, 300);
    rig_assert_replays(rig);
    compact_start(rig->b);
    rig_step(rig);
    rig_assert_replays(rig);
    restart(&rig);
    for (unsigned i = 1; i <= 300; i++)
        assert_int_equal(got(rig, "q", ASK_NO_ACK), i);
    end(rig);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_queue_keeps_no_files), cmocka_unit_test(every_prefix_of_a_move),
        cmocka_unit_test(a_page_that_was_read_moves),  cmocka_unit_test(failures_change_nothing),
        cmocka_unit_test(a_damaged_page_stays),        cmocka_unit_test(a_move_that_is_overtaken),
        cmocka_unit_test(returned_during_a_move),      cmocka_unit_test(small_pages_become_one),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
