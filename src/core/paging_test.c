/* Queues whose messages lie in pages: what a client sees is what it sees of a queue in memory. Every page here holds one or
 * two messages, and the store answers when it is told to. */
#include "core/broker_words_test.h"

#define PAGING                                                                                                         \
    &(struct broker_options)                                                                                           \
    {                                                                                                                  \
        .paging_bytes = 1, .page_bytes = 150                                                                           \
    }

static void put_numbers(struct rig *rig, const char *queue, unsigned first, unsigned count)
{
    char body[16];
    for (unsigned i = first; i < first + count; i++) {
        snprintf(body, sizeof body, "%u", i);
        put(rig, queue, body);
    }
    rig_clear(rig);
}

/* What GET gives, one after another, as rig_delivered shows it. */
static const char *get(struct rig *rig, const char *queue, unsigned count)
{
    rig_clear(rig);
    for (unsigned i = 0; i < count; i++)
        ASK(GET, queue, NULL, NULL, 0);
    return rig_delivered(rig);
}

static void order_is_kept(void **state)
{
    (void)state;
    struct rig *rig = begin_options(PAGING);
    declare(rig, "q", (struct slice){0});
    put_numbers(rig, "q", 1, 40);
    assert_true(rig->b->paged > 20);
    assert_true(rig->b->ready_memory < 12 * 250);
    assert_int_equal(rig_ready(rig, "q"), 40);
    assert_string_equal(get(rig, "q", 12), "1 2 3 4 5 6 7 8 9 10 11 12");
    rig_plain(rig, CMD_NACK, 1, 1, 3, ASK_REQUEUE);
    rig_plain(rig, CMD_ACK, 1, 1, 2, 0);
    assert_string_equal(get(rig, "q", 2), "3* 13");
    restart(&rig);
    assert_int_equal(rig_ready(rig, "q"), 39);
    assert_string_equal(get(rig, "q", 14), "1* 3* 4* 5* 6* 7* 8* 9* 10* 11* 12* 13* 14* 15*");
    put_numbers(rig, "q", 41, 3);
    consume(rig, "q", "c", ASK_NO_ACK);
    assert_int_equal(rig_ready(rig, "q"), 0);
    assert_int_equal(rig->b->paged, 0);
    end(rig);
}

/* What a consumer took while its page was being written is no part of the page; after a crash it stands in its place all
 * the same, behind what is read from an older page. */
static void taken_while_written(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 3000, .page_bytes = 400});
    declare(rig, "q", (struct slice){0});
    put_numbers(rig, "q", 1, 30);
    (void)get(rig, "q", 30); /* read from pages, which keep them */
    assert_int_equal(rig_ready(rig, "q"), 0);
    rig->slow_store = true;
    rig->chance = 0; /* it does nothing */
    put_numbers(rig, "q", 31, 30);
    assert_true(rig->b->page_writes > 0);
    (void)get(rig, "q", 14); /* beyond the front: into pages on their way */
    rig->slow_store = false;
    rig_step(rig);
    assert_true(rig->b->paged > 0);
    rig_assert_replays(rig);
    restart(&rig);
    char expected[400] = "";
    for (unsigned i = 1; i <= 50; i++)
        snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%s%u*", i > 1 ? " " : "", i);
    assert_string_equal(get(rig, "q", 50), expected);
    end(rig);
}

/* Without a consumer nothing is read; the first get waits for its page, and others behind it. */
static void get_waits_for_its_page(void **state)
{
    (void)state;
    struct rig *rig = begin_options(PAGING);
    declare(rig, "q", (struct slice){0});
    put_numbers(rig, "q", 1, 20);
    restart(&rig);
    rig->slow_store = true;
    rig->chance = 0; /* it does nothing */
    ASK(GET, "q", NULL, NULL, 0);
    for (int i = 0; i < 30 && rig_count(rig, EFF_GET_OK); i++)
        ASK(GET, "q", NULL, NULL, 0); /* what the journal still held in memory */
    rig_clear(rig);
    uint64_t left = rig_ready(rig, "q");
    assert_true(left > 2);
    ASK(GET, "q", NULL, NULL, 0);
    ASK(GET, "q", NULL, NULL, 0);
    assert_int_equal(rig_count(rig, EFF_GET_OK) + rig_count(rig, EFF_GET_EMPTY), 0);
    rig->slow_store = false;
    rig_step(rig);
    assert_true(rig_count(rig, EFF_GET_OK) >= 2);
    ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
    rig_clear(rig);
    ASK(GET, "q", NULL, NULL, 0);
    assert_int_equal(rig_count(rig, EFF_GET_EMPTY), 1);
    end(rig);
}

static void purge_and_delete(void **state)
{
    (void)state;
    struct rig *rig = begin_options(PAGING);
    declare(rig, "q", (struct slice){0});
    put_numbers(rig, "q", 1, 40);
    (void)get(rig, "q", 10); /* unacknowledged: not purged */
    rig_clear(rig);
    ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 0)->answer->number, 30);
    assert_int_equal(rig_ready(rig, "q"), 0);
    restart(&rig);
    assert_int_equal(rig_ready(rig, "q"), 10);
    put_numbers(rig, "q", 100, 40);
    assert_true(rig->b->paged > 0);
    ASK(QUEUE_DELETE, "q", NULL, NULL, 0);
    assert_int_equal(rig->b->paged, 0);
    assert_int_equal(rig->b->totals.messages, 0);
    restart(&rig);
    assert_int_equal(rig_ready(rig, "q"), UINT64_MAX);
    assert_true(rig->log->store->dropped > 0);
    end(rig);
}

static void priorities_in_pages(void **state)
{
    (void)state;
    struct rig *rig = begin_options(PAGING);
    struct table t;
    amqp_put_long(&table(&t)->w, "x-max-priority", 2);
    declare(rig, "q", writer_slice(&t.w));
    for (unsigned i = 0; i < 60; i++) {
        char body[16];
        struct amqp_props props = {
            .present = AMQP_DELIVERY_MODE | AMQP_PRIORITY, .delivery_mode = 2, .priority = (uint8_t)(i % 3)};
        snprintf(body, sizeof body, "%u", i);
        rig_publish_with(rig, 1, 1, "", "q", slice_str(body), &props, 0);
    }
    rig_clear(rig);
    assert_true(rig->b->paged > 20);
    restart(&rig);
    assert_string_equal(get(rig, "q", 22), "2 5 8 11 14 17 20 23 26 29 32 35 38 41 44 47 50 53 56 59 1 4");
    end(rig);
}

static void expiry_and_limits_reach_into_pages(void **state)
{
    (void)state;
    struct rig *rig = begin_options(PAGING);
    struct table t;
    declare(rig, "dead", (struct slice){0});
    table(&t);
    amqp_put_long(&t.w, "x-message-ttl", 1000);
    amqp_put_str(&t.w, "x-dead-letter-exchange", slice_str(""));
    amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str("dead"));
    declare(rig, "q", writer_slice(&t.w));
    put_numbers(rig, "q", 1, 30);
    restart(&rig);
    rig_pass(rig, 1500);
    assert_int_equal(rig_ready(rig, "q"), 0);
    assert_int_equal(rig_ready(rig, "dead"), 30);
    assert_string_equal(get(rig, "dead", 8), "1 2 3 4 5 6 7 8");
    amqp_put_long(&table(&t)->w, "x-max-length", 5);
    declare(rig, "short", writer_slice(&t.w));
    put_numbers(rig, "short", 1, 30);
    assert_int_equal(rig_ready(rig, "short"), 5);
    assert_string_equal(get(rig, "short", 5), "26 27 28 29 30");
    end(rig);
}

/* Transient messages page out too, and are gone after a restart, as they always are. */
static void transient_messages(void **state)
{
    (void)state;
    struct rig *rig = begin_options(PAGING);
    declare(rig, "q", (struct slice){0});
    for (unsigned i = 1; i <= 30; i++) {
        char body[16];
        snprintf(body, sizeof body, "%u", i);
        rig_publish(rig, 1, 1, "", "q", body, i % 2);
    }
    assert_true(rig->b->paged > 0);
    restart(&rig);
    assert_int_equal(rig_ready(rig, "q"), 15);
    assert_string_equal(get(rig, "q", 3), "1 3 5");
    for (unsigned i = 31; i <= 50; i++) {
        char body[16];
        snprintf(body, sizeof body, "%u", i);
        rig_publish(rig, 1, 1, "", "q", body, false);
    }
    rig_clear(rig);
    assert_string_equal(get(rig, "q", 14), "7 9 11 13 15 17 19 21 23 25 27 29 31 32");
    end(rig);
}

/* A disk that cannot write: everything stays in memory, in order, and is written when it can again. */
static void failed_writes(void **state)
{
    (void)state;
    struct rig *rig = begin_options(PAGING);
    declare(rig, "q", (struct slice){0});
    rig->log->store->fail_writes = 3;
    put_numbers(rig, "q", 1, 30);
    assert_int_equal(rig->b->paged, 0);
    assert_string_equal(get(rig, "q", 3), "1 2 3");
    rig_pass(rig, 3300); /* a second's rest after each */
    put_numbers(rig, "q", 31, 10);
    assert_int_equal(rig->log->store->fail_writes, 0);
    assert_true(rig->b->paged > 0);
    restart(&rig);
    assert_string_equal(get(rig, "q", 40),
                        "1* 2* 3* 4* 5* 6* 7* 8* 9* 10* 11* 12* 13* 14* 15* 16* 17* 18* 19* 20* 21* 22* 23* 24* 25* "
                        "26* 27* 28* 29* 30* 31* 32* 33* 34* 35* 36* 37* 38* 39* 40*");
    end(rig);
}

/* A page that failed takes those behind it along: they cannot stand before messages in memory that are older. */
static void failed_among_others(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 3000, .page_bytes = 400});
    declare(rig, "q", (struct slice){0});
    rig->slow_store = true;
    rig->chance = 0;
    put_numbers(rig, "q", 1, 60);
    assert_true(rig->b->page_writes > 2);
    rig->log->store->fail_writes = 1;
    rig->slow_store = false;
    rig_step(rig);
    char expected[400] = "";
    for (unsigned i = 1; i <= 60; i++)
        snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%s%u", i > 1 ? " " : "", i);
    assert_string_equal(get(rig, "q", 60), expected);
    end(rig);
}

/* The same when older pages are on disk already: what was not written is written before what comes behind it. */
static void failed_behind_pages_on_disk(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 3000, .page_bytes = 400});
    declare(rig, "q", (struct slice){0});
    put_numbers(rig, "q", 1, 60);
    assert_true(rig->b->paged > 10);
    uint64_t paged = rig->b->paged;
    rig->log->store->fail_writes = 1;
    put_numbers(rig, "q", 61, 20);
    assert_int_equal(rig->log->store->fail_writes, 0);
    rig_pass(rig, 1100);
    put_numbers(rig, "q", 81, 40);
    assert_true(rig->b->paged > paged + 40);
    char expected[700] = "";
    for (unsigned i = 1; i <= 120; i++)
        snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%s%u", i > 1 ? " " : "", i);
    assert_string_equal(get(rig, "q", 120), expected);
    end(rig);
}

/* A damaged page stops its queue there; other queues, and what is before it, are served. */
static void damaged_page(void **state)
{
    (void)state;
    struct rig *rig = begin_options(PAGING);
    declare(rig, "q", (struct slice){0});
    declare(rig, "other", (struct slice){0});
    put_numbers(rig, "q", 1, 30);
    assert_string_equal(get(rig, "q", 1), "1"); /* the rest of its page is in memory */
    rig->log->store->damaged = true;
    consume(rig, "q", "c", 0);
    rig_clear(rig);
    rig_pass(rig, 1200);
    uint64_t left = rig_ready(rig, "q");
    assert_true(left > 0 && left < 29);
    put(rig, "other", "a");
    assert_string_equal(get(rig, "other", 1), "a");
    rig_clear(rig);
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 2, 0, 0);
    assert_true(rig_ask(rig, CMD_GET, 1, 2, "q", NULL, NULL, (struct slice){0}, 0));
    assert_string_equal(rig_error(rig),
                        "406 the next message of queue 'q' in vhost '/' is damaged on disk; the broker's log "
                        "says where");
    rig_clear(rig);
    ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
    assert_int_equal(rig_ready(rig, "q"), 0);
    rig->log->store->damaged = false;
    end(rig);
}

/* What was given out before the queue had pages comes back when an old page has still a message unacknowledged: no new page
 * may lie across the old one. */
static void returned_below_an_old_page(void **state)
{
    (void)state;
    for (unsigned held = 17; held < 23; held++) {
        struct rig *rig = begin_options(PAGING);
        rig_plain(rig, CMD_CHANNEL_OPEN, 1, 2, 0, 0);
        declare(rig, "q", (struct slice){0});
        for (unsigned i = 1; i <= held; i++) {
            put_numbers(rig, "q", i, 1);
            assert_true(rig_ask(rig, CMD_GET, 1, 2, "q", NULL, NULL, (struct slice){0}, 0));
        }
        assert_int_equal(rig->b->paged, 0);
        put_numbers(rig, "q", held + 1, 40);
        (void)get(rig, "q", 40);
        for (unsigned tag = 1; tag <= 40; tag++)
            if (tag != 20)
                rig_plain(rig, CMD_ACK, 1, 1, tag, 0);
        rig_plain(rig, CMD_CHANNEL_CLOSE, 1, 2, 0, 0);
        put_numbers(rig, "q", held + 41, 20);
        rig_assert_replays(rig);
        (void)get(rig, "q", held + 16); /* into a page that would begin before the old one and end behind it */
        for (unsigned tag = 41; tag < 41 + held + 16; tag++) {
            rig_plain(rig, CMD_ACK, 1, 1, tag, 0);
            rig_assert_replays(rig);
        }
        end(rig);
    }
}

/* Pages that were written for nothing, since their queue was emptied or went meanwhile, or a consumer was faster: their
 * files go too. */
static void files_of_unused_pages_go(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 3000, .page_bytes = 400});
    for (unsigned round = 0; round < 9; round++) {
        declare(rig, "q", (struct slice){0});
        rig->slow_store = true;
        rig->chance = 0; /* it does nothing */
        put_numbers(rig, "q", 1, 60);
        assert_true(rig->b->page_writes > 2);
        if (round % 3 == 0)
            ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
        else if (round % 3 == 1)
            ASK(QUEUE_DELETE, "q", NULL, NULL, 0);
        else
            consume(rig, "q", "c", ASK_NO_ACK);
        rig->slow_store = false;
        rig_step(rig);
        ASK(QUEUE_DELETE, "q", NULL, NULL, 0);
    }
    assert_true(rig->log->store->count > 24);
    assert_int_equal(rig_store_files(rig->log->store), 0);
    end(rig);
}

/* The journal still tells of a queue that was deleted: that holds nothing back. */
static void files_go_after_a_restart(void **state)
{
    (void)state;
    struct rig *rig = begin_options(PAGING);
    declare(rig, "gone", (struct slice){0});
    declare(rig, "q", (struct slice){0});
    put_numbers(rig, "q", 1, 60);
    ASK(QUEUE_DELETE, "gone", NULL, NULL, 0);
    restart(&rig);
    assert_true(rig_store_files(rig->log->store) > 1);
    consume(rig, "q", "c", ASK_NO_ACK);
    rig_step(rig);
    assert_int_equal(rig_ready(rig, "q"), 0);
    assert_int_equal(rig_store_files(rig->log->store), 0);
    end(rig);
}

/* A disk that is full is emptied by those who read from it, at their own pace. */
static void failed_writes_hold_no_reads_up(void **state)
{
    (void)state;
    struct rig *rig = begin_options(PAGING);
    declare(rig, "q", (struct slice){0});
    put_numbers(rig, "q", 1, 100);
    rig->log->store->fail_writes = 1000;
    put_numbers(rig, "q", 101, 30);
    assert_true(rig->b->paged > 50 && rig->log->store->fail_writes < 1000);
    consume(rig, "q", "c", ASK_NO_ACK);
    assert_int_equal(rig_ready(rig, "q"), 0);
    rig->log->store->fail_writes = 0;
    end(rig);
}

static struct queue *queue_of(struct rig *rig, const char *name)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str(name));
}

/* A page that nobody reads keeps nothing ready for what its readers will do: a long backlog is thousands of pages. */
static void a_page_on_disk_takes_little_memory(void **state)
{
    (void)state;
    struct rig *rig = begin_options(PAGING);
    declare(rig, "q", (struct slice){0});
    put_numbers(rig, "q", 1, 60);
    unsigned pages = 0;
    LIST_EACH(&queue_of(rig, "q")->busy->lane.paging->pages, node, after)
    {
        assert_int_equal(CONTAINER_OF(node, struct page, lane_link)->holes.max, 0);
        pages++;
    }
    assert_true(pages > 10);
    end(rig);
}

/* A compaction writes how much of a page that was read is left: else a queue near its limit in bytes would push out messages
 * after a restart. */
static void bytes_left_of_a_page_are_told(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1, .page_bytes = 1200});
    char body[101] = "";
    declare(rig, "q", (struct slice){0});
    memset(body, 'x', 100);
    for (unsigned i = 0; i < 100; i++)
        put(rig, "q", body);
    (void)get(rig, "q", 60);
    for (unsigned tag = 1; tag <= 60; tag++)
        if (tag % 7)
            rig_plain(rig, CMD_ACK, 1, 1, tag, 0);
    compact_start(rig->b);
    rig_step(rig);
    assert_int_equal(rig->b->totals.compactions, 1);
    restart(&rig);
    assert_int_equal(rig_ready(rig, "q"), 48);
    assert_int_equal(queue_of(rig, "q")->busy->ready_bytes, 4800);
    end(rig);
}

/* What comes back may belong behind messages that are being written, or wait for that. */
static void returned_behind_what_is_written(void **state)
{
    (void)state;
    for (unsigned serve = 0; serve < 2; serve++) {
        struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 3000, .page_bytes = 400});
        rig_plain(rig, CMD_CHANNEL_OPEN, 1, 2, 0, 0);
        declare(rig, "q", (struct slice){0});
        for (unsigned i = 1; i <= 20; i++) {
            put_numbers(rig, "q", i, 1);
            assert_true(rig_ask(rig, CMD_GET, 1, i < 20 ? 2 : 1, "q", NULL, NULL, (struct slice){0}, 0));
        }
        assert_int_equal(rig->b->paged, 0);
        rig->slow_store = true;
        rig->chance = 0; /* it does nothing */
        rig_plain(rig, CMD_CHANNEL_CLOSE, 1, 2, 0, 0);
        put_numbers(rig, "q", 21, 20);
        assert_true(rig->b->page_writes > 0);
        rig_plain(rig, CMD_NACK, 1, 1, 1, ASK_REQUEUE);
        broker_check(rig->b);
        assert_string_equal(get(rig, "q", 11 + serve),
                            serve ? "1* 2* 3* 4* 5* 6* 7* 8* 9* 10* 11* 12*" : "1* 2* 3* 4* 5* 6* 7* 8* 9* 10* 11*");
        if (serve) {
            rig->slow_store = false;
            rig_step(rig);
            broker_check(rig->b);
        }
        assert_string_equal(get(rig, "q", 11 - serve), serve ? "13* 14* 15* 16* 17* 18* 19* 20* 21 22"
                                                             : "12* 13* 14* 15* 16* 17* 18* 19* 20* 21 22");
        rig->slow_store = false;
        rig_step(rig);
        end(rig);
    }
}

/* A channel that has failed waits for nothing: a message without acknowledgement would be lost to it. */
static void failed_channel_gets_nothing(void **state)
{
    (void)state;
    struct rig *rig = begin_options(PAGING);
    declare(rig, "q", (struct slice){0});
    put_numbers(rig, "q", 1, 40);
    restart(&rig);
    rig->slow_store = true;
    rig->chance = 0; /* it does nothing */
    uint64_t left = rig_ready(rig, "q");
    ASK(GET, "q", NULL, NULL, ASK_NO_ACK);
    while (rig_ready(rig, "q") < left) {
        left = rig_ready(rig, "q");
        ASK(GET, "q", NULL, NULL, ASK_NO_ACK);
    }
    rig_clear(rig);
    rig_plain(rig, CMD_ACK, 1, 1, 1000, 0);
    assert_int_equal(rig_count(rig, EFF_ERROR), 1);
    rig->slow_store = false;
    rig_step(rig);
    assert_int_equal(rig_count(rig, EFF_GET_OK), 0);
    assert_int_equal(rig_ready(rig, "q"), left);
    end(rig);
}

/* Many queues are read at a time, and there are fewer places than they want: each has its turn. */
static void every_queue_is_read_in_its_turn(void **state)
{
    (void)state;
    enum { QUEUES = 160, READS = 4 * QUEUES };
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1, .page_bytes = 1000});
    char name[16], body[1001] = "";
    memset(body, 'x', 1000); /* a page of its own, and more than half of what a front wants */
    for (unsigned i = 0; i < QUEUES; i++) {
        snprintf(name, sizeof name, "q%u", i);
        declare(rig, name, (struct slice){0});
        for (unsigned k = 0; k < 24; k++)
            put(rig, name, body);
        rig_clear(rig);
    }
    restart(&rig);
    rig->slow_store = true;
    rig->chance = 0; /* it does nothing, but when it is told to */
    for (unsigned i = 0; i < QUEUES; i++) {
        snprintf(name, sizeof name, "q%u", i);
        consume(rig, name, name, ASK_NO_ACK);
        rig_clear(rig);
    }
    for (unsigned i = 0; i < READS; i++) {
        rig_store_serve(rig->b, rig->log, 1);
        rig_step(rig);
        rig_clear(rig);
        rig_plain(rig, CMD_CREDIT, 1, 0, 1 << 20, 0);
    }
    for (unsigned i = 0; i < QUEUES; i++) {
        snprintf(name, sizeof name, "q%u", i);
        assert_true(rig_ready(rig, name) < 24);
    }
    rig->slow_store = false;
    for (unsigned i = 0; i < 60; i++) {
        rig_plain(rig, CMD_CREDIT, 1, 0, 1 << 20, 0);
        rig_clear(rig);
    }
    assert_int_equal(rig->b->totals.messages, 0);
    end(rig);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_kept),
        cmocka_unit_test(taken_while_written),
        cmocka_unit_test(get_waits_for_its_page),
        cmocka_unit_test(purge_and_delete),
        cmocka_unit_test(priorities_in_pages),
        cmocka_unit_test(expiry_and_limits_reach_into_pages),
        cmocka_unit_test(transient_messages),
        cmocka_unit_test(failed_writes),
        cmocka_unit_test(failed_among_others),
        cmocka_unit_test(damaged_page),
        cmocka_unit_test(failed_behind_pages_on_disk),
        cmocka_unit_test(returned_below_an_old_page),
        cmocka_unit_test(files_of_unused_pages_go),
        cmocka_unit_test(files_go_after_a_restart),
        cmocka_unit_test(failed_writes_hold_no_reads_up),
        cmocka_unit_test(a_page_on_disk_takes_little_memory),
        cmocka_unit_test(bytes_left_of_a_page_are_told),
        cmocka_unit_test(returned_behind_what_is_written),
        cmocka_unit_test(failed_channel_gets_nothing),
        cmocka_unit_test(every_queue_is_read_in_its_turn),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
