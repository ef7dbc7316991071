/* Selectors and pages: whoever selects finds what lies behind a long front that nobody reads, sees each message once, and neither he
 * nor the queue's memory suffers. Pages hold a few messages each, and there is room for one look at a time. */
#include "core/broker_words_test.h"

#define OPTIONS                                                                                                        \
    &(struct broker_options)                                                                                           \
    {                                                                                                                  \
        .paging_bytes = 1, .page_bytes = 700                                                                           \
    }

static struct slice selector_args(struct table *t, const char *selector)
{
    amqp_put_str(&table(t)->w, "x-selector", slice_str(selector));
    return writer_slice(&t->w);
}

static bool put_color(struct rig *rig, unsigned number, const char *color)
{
    struct table t;
    char body[16];
    snprintf(body, sizeof body, "%u", number);
    amqp_put_str(&table(&t)->w, "color", slice_str(color));
    struct amqp_props props = {
        .present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = 2, .headers = writer_slice(&t.w)};
    return rig_publish_with(rig, 1, 1, "", "q", slice_str(body), &props, 0);
}

/* Numbers from first on, red, but each `every`th blue. */
static bool put_colors(struct rig *rig, unsigned first, unsigned count, unsigned every)
{
    bool ok = true;
    for (unsigned i = first; ok && i < first + count; i++)
        ok = put_color(rig, i, i % every ? "red" : "blue");
    return ok;
}

static bool choose(struct rig *rig, const char *tag, const char *selector, uint32_t flags)
{
    struct table t;
    return rig_ask(rig, CMD_CONSUME, 1, 1, "q", tag, NULL, selector_args(&t, selector), flags);
}

static struct rig *rig_with_backlog(unsigned count, unsigned every)
{
    struct rig *rig = begin_options(OPTIONS);
    declare(rig, "q", (struct slice){0});
    assert_true(put_colors(rig, 1, count, every));
    assert_true(rig->b->paged > count / 2);
    rig_clear(rig);
    return rig;
}

static void delivered(struct rig *rig, const char *want)
{
    assert_string_equal(rig_error(rig), "");
    assert_string_equal(rig_delivered(rig), want);
    rig_clear(rig);
}

static struct queue *queue(struct rig *rig)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str("q"));
}

/* Each page is read once, whatever the credit does, and nothing stays in memory. */
static void matches_lie_deep(void **state)
{
    (void)state;
    struct rig *rig = rig_with_backlog(300, 50);
    uint64_t memory = rig->b->ready_memory, written = rig->log->store->written;
    rig_plain(rig, CMD_QOS, 1, 1, 1, 0);
    assert_true(choose(rig, "b", "color = 'blue'", 0));
    delivered(rig, "50");
    static const char *const more[] = {"100", "150", "200", "250", "300", ""};
    for (unsigned i = 0; i < ARRAY_LEN(more); i++) {
        rig_plain(rig, CMD_ACK, 1, 1, i + 1, 0);
        delivered(rig, more[i]);
    }
    assert_int_equal(rig_ready(rig, "q"), 294);
    assert_true(rig->log->store->read <= written + 5);            /* and some for the front */
    assert_true(rig->b->ready_memory <= memory + 4 * 700 + 4096); /* the front was filled */
    assert_int_equal(rig->b->looks.count, 0);
    uint64_t read = rig->log->store->read;
    assert_true(put_colors(rig, 301, 100, 50)); /* what comes is in memory or in the last pages */
    delivered(rig, "350");
    rig_plain(rig, CMD_ACK, 1, 1, 7, 0);
    delivered(rig, "400");
    assert_true(rig->log->store->read - read < rig->log->store->written - written + 4);
    rig_assert_replays(rig);
    consume(rig, "q", "all", ASK_NO_ACK);
    assert_int_equal(rig_ready(rig, "q"), 0);
    rig_plain(rig, CMD_ACK, 1, 1, 8, 0);
    end(rig);
}

/* Those with the same selector share what they know: who comes second reads nothing again. */
static void one_look_for_all(void **state)
{
    (void)state;
    struct rig *rig = rig_with_backlog(300, 7);
    rig_plain(rig, CMD_QOS, 1, 1, 20, 0);
    for (unsigned i = 0; i < 3; i++)
        assert_true(choose(rig, (const char *[]){"a", "b", "c"}[i], "color = 'blue'", 0));
    assert_int_equal(rig_count(rig, EFF_DELIVER), 42);
    assert_true(rig->log->store->read <= rig->log->store->written + 1);
    assert_int_equal(queue(rig)->busy->selecting, 3);
    assert_true(queue(rig)->busy->sieves.next == queue(rig)->busy->sieves.prev);
    end(rig);
}

/* What comes back is seen again, and nothing else is read for it. */
static void returns_are_found_at_once(void **state)
{
    (void)state;
    struct rig *rig = rig_with_backlog(300, 50);
    assert_true(choose(rig, "b", "color = 'blue'", 0));
    delivered(rig, "50 100 150 200 250 300");
    uint64_t read = rig->log->store->read;
    rig_plain(rig, CMD_NACK, 1, 1, 3, ASK_REQUEUE);
    delivered(rig, "150*");
    rig_plain(rig, CMD_NACK, 1, 1, 5, ASK_REQUEUE);
    rig_plain(rig, CMD_NACK, 1, 1, 2, ASK_REQUEUE);
    delivered(rig, "250* 100*");
    assert_true(rig_ask(rig, CMD_CANCEL, 1, 1, "b", NULL, NULL, (struct slice){0}, 0));
    rig_plain(rig, CMD_NACK, 1, 1, 0, ASK_MULTIPLE | ASK_REQUEUE);
    rig_clear(rig);
    assert_int_equal(rig->log->store->read, read);
    assert_int_equal(rig_ready(rig, "q"), 300);
    rig_assert_replays(rig);
    assert_true(choose(rig, "r", "color = 'red'", ASK_NO_ACK));
    assert_int_equal(rig_count(rig, EFF_DELIVER), 294);
    rig_clear(rig);
    consume(rig, "q", "all", ASK_NO_ACK);
    delivered(rig, "50* 100* 150* 200* 250* 300*");
    end(rig);
}

/* A start finds what was lent in its page, and what was acknowledged nowhere. */
static void restarts(void **state)
{
    (void)state;
    struct rig *rig = rig_with_backlog(300, 50);
    assert_true(choose(rig, "b", "color = 'blue'", 0));
    delivered(rig, "50 100 150 200 250 300");
    rig_plain(rig, CMD_ACK, 1, 1, 2, 0);
    rig_plain(rig, CMD_NACK, 1, 1, 4, 0);
    rig_plain(rig, CMD_NACK, 1, 1, 5, ASK_REQUEUE);
    rig_clear(rig);
    rig_assert_replays(rig);
    restart(&rig);
    assert_int_equal(rig_ready(rig, "q"), 298);
    assert_true(choose(rig, "b", "color = 'blue'", 0));
    delivered(rig, "50* 150* 250* 300*");
    compact_start(rig->b);
    rig_pass(rig, 100);
    assert_int_equal(rig->b->compact.phase, COMPACT_IDLE);
    restart(&rig);
    assert_int_equal(rig_ready(rig, "q"), 298);
    assert_true(choose(rig, "b", "color = 'blue'", ASK_NO_ACK));
    delivered(rig, "50* 150* 250* 300*");
    end(rig);
}

/* What is lent outlives a purge, and is nobody's when the queue goes. */
static void purge_and_delete(void **state)
{
    (void)state;
    for (int slow = 0; slow < 2; slow++) {
        struct rig *rig = rig_with_backlog(300, 3);
        rig_plain(rig, CMD_QOS, 1, 1, 40, 0);
        assert_true(choose(rig, "b", "color = 'blue'", 0));
        assert_int_equal(rig_count(rig, EFF_DELIVER), 40);
        rig_clear(rig);
        if (slow) { /* pages of which something is lent are being read */
            rig->slow_store = true;
            rig->chance = 0;
            rig_plain(rig, CMD_QOS, 1, 1, 0, 0);
            consume(rig, "q", "all", 0);
        }
        ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
        uint64_t left = queue(rig)->busy->unacked_count;
        assert_int_equal(rig_ready(rig, "q"), 0);
        rig->slow_store = false;
        rig_step(rig);
        rig_assert_replays(rig);
        for (unsigned i = 0; i < 20; i++)
            rig_plain(rig, CMD_ACK, 1, 1, i + 1, 0);
        assert_int_equal(queue(rig)->busy->unacked_count, left - 20);
        rig_plain(rig, CMD_NACK, 1, 1, 30, ASK_REQUEUE | ASK_MULTIPLE);
        rig_assert_replays(rig);
        assert_true(put_colors(rig, 400, 50, 5));
        if (slow) {
            ASK(QUEUE_DELETE, "q", NULL, NULL, 0);
            rig_plain(rig, CMD_NACK, 1, 1, 0, ASK_REQUEUE | ASK_MULTIPLE);
        }
        end(rig);
    }
}

/* Two that choose, one that takes what comes: each message once. */
static void beside_others(void **state)
{
    (void)state;
    struct rig *rig = rig_with_backlog(200, 10);
    assert_true(put_color(rig, 201, "green"));
    rig_clear(rig);
    assert_true(choose(rig, "g", "color = 'green'", ASK_NO_ACK));
    delivered(rig, "201");
    assert_true(choose(rig, "b", "color = 'blue'", ASK_NO_ACK));
    assert_int_equal(rig_count(rig, EFF_DELIVER), 20);
    rig_clear(rig);
    consume(rig, "q", "all", ASK_NO_ACK);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 180);
    assert_int_equal(rig_ready(rig, "q"), 0);
    end(rig);
}

/* Many queues and one place: each has its turn. */
static void queues_share_the_room(void **state)
{
    (void)state;
    struct rig *rig = rig_with_backlog(60, 50);
    char name[8], names[24][8];
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(names[i], sizeof names[i], "q%u", i);
        declare(rig, names[i], (struct slice){0});
        assert_true(rig_ask(rig, CMD_QUEUE_BIND, 1, 1, names[i], "amq.fanout", "", (struct slice){0}, 0));
    }
    for (unsigned n = 0; n < 40; n++) {
        struct table t;
        snprintf(name, sizeof name, "%u", n);
        amqp_put_str(&table(&t)->w, "color", slice_str(n == 35 ? "blue" : "red"));
        struct amqp_props props = {
            .present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = 2, .headers = writer_slice(&t.w)};
        assert_true(rig_publish_with(rig, 1, 1, "amq.fanout", "", slice_str(name), &props, 0));
        rig_clear(rig);
    }
    rig->slow_store = true;
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        struct table t;
        assert_true(
            rig_ask(rig, CMD_CONSUME, 1, 1, names[i], names[i], NULL, selector_args(&t, "color = 'blue'"), ASK_NO_ACK));
    }
    rig_pass(rig, 3000);
    assert_int_equal(rig_count(rig, EFF_DELIVER), ARRAY_LEN(names));
    rig->slow_store = false;
    rig_step(rig);
    assert_int_equal(rig->b->looks.count, 0);
    rig_clear(rig);
    end(rig);
}

/* All that is in a page is taken one by one: nobody goes over what was taken before. */
static void taken_is_behind(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1, .page_bytes = 6000});
    declare(rig, "q", (struct slice){0});
    for (unsigned n = 1; n <= 700; n++)
        assert_true(put_color(rig, n, n < 400 ? "blue" : "red"));
    const struct page *page = CONTAINER_OF(queue(rig)->busy->pages.next, struct page, queue_link);
    assert_true(page->count > 20);
    rig_clear(rig);
    rig_plain(rig, CMD_QOS, 1, 1, 1, 0);
    assert_true(choose(rig, "r", "color = 'red'", 0));
    const struct scan *scan = &CONTAINER_OF(queue(rig)->busy->sieves.next, struct sieve, link)->scan;
    unsigned inside = 0;
    for (unsigned n = 1; n <= 250; n++) {
        const struct entry *e = CONTAINER_OF(queue(rig)->busy->unacked.next, struct entry, link);
        if (e->page && e->page->look) {
            assert_int_equal(scan->looked, e->position - 1);
            inside++;
        }
        rig_plain(rig, CMD_ACK, 1, 1, n, 0);
        rig_clear(rig);
    }
    assert_true(inside > 100);
    end(rig);
}

/* Pages of which something was lent take as little memory as others when it is gone. */
static void holes_are_packed(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1, .page_bytes = 4000});
    declare(rig, "q", (struct slice){0});
    assert_true(put_colors(rig, 1, 300, 2));
    rig_clear(rig);
    rig_plain(rig, CMD_QOS, 1, 1, 40, 0);
    assert_true(choose(rig, "b", "color = 'blue'", 0));
    for (unsigned n = 1; n <= 150; n++)
        rig_plain(rig, CMD_ACK, 1, 1, n, 0);
    rig_clear(rig);
    assert_int_equal(rig_ready(rig, "q"), 150);
    unsigned packed = 0;
    LIST_EACH(&queue(rig)->busy->pages, node, after)
    {
        const struct page *page = CONTAINER_OF(node, struct page, queue_link);
        if (page->state != PAGE_ON_DISK || page->holes.count < 4)
            continue;
        assert_true(!page->lent && page->holes.max == UINT32_MAX);
        packed++;
    }
    assert_true(packed > 2);
    consume(rig, "q", "all", ASK_NO_ACK);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 150);
    end(rig);
}

/* How many queues wait for a place; the name of the first. */
static unsigned line(const struct rig *rig, char *ret_first, size_t max)
{
    unsigned n = 0;
    LIST_EACH(&rig->b->looks.waiting, node, after)
    {
        const struct slice name = CONTAINER_OF(node, struct busy, look_link)->queue->name;
        if (n++ == 0)
            snprintf(ret_first, max, "%.*s", (int)name.len, (const char *)name.ptr);
    }
    return n;
}

/* Who waits for a place keeps it however often he asks, and leaves the line when his queue goes. */
static void waiting_in_line(void **state)
{
    (void)state;
    struct rig *rig = begin_options(OPTIONS);
    static const char *const names[] = {"q0", "q1", "q2"};
    struct table t;
    char first[8], now[8];
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        declare(rig, names[i], (struct slice){0});
        for (unsigned n = 0; n < 60; n++)
            assert_true(rig_publish(rig, 1, 1, "", names[i], "red", true));
    }
    rig_clear(rig);
    rig->b->looks.count = LOOKS_MAX; /* as if others had all places */
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        assert_true(rig_ask(rig, CMD_CONSUME, 1, 1, names[i], names[i], NULL, selector_args(&t, "color = 'blue'"), 0));
    assert_int_equal(line(rig, first, sizeof first), 3);
    assert_true(rig_publish(rig, 1, 1, "", first, "red", true));
    assert_int_equal(line(rig, now, sizeof now), 3);
    assert_string_equal(now, first);
    rig_clear(rig);
    ASK(QUEUE_DELETE, first, NULL, NULL, 0);
    assert_int_equal(line(rig, now, sizeof now), 2);
    assert_string_not_equal(now, first);
    rig->b->looks.count = 0;
    rig_step(rig);
    assert_true(list_empty(&rig->b->looks.waiting));
    rig_clear(rig);
    end(rig);
}

/* A page that is damaged is passed by; for those who take everything it is where the queue ends. */
static void damaged_pages(void **state)
{
    (void)state;
    struct rig *rig = rig_with_backlog(100, 10);
    rig->log->store->damaged = true;
    assert_true(choose(rig, "b", "color = 'blue'", ASK_NO_ACK));
    rig_clear(rig);
    rig->log->store->damaged = false;
    uint64_t paged = rig->b->paged;
    assert_true(put_colors(rig, 101, 50, 10));
    assert_true(rig_count(rig, EFF_DELIVER) == 5 && rig->b->paged >= paged);
    rig_clear(rig);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

/* What came back before a start and is not due stays away, in a page too. */
static void delayed_in_pages(void **state)
{
    (void)state;
    struct table t;
    struct rig *rig = begin_options(OPTIONS);
    amqp_put_int(&table(&t)->w, "x-delayed-retry-min", 1000);
    amqp_put_str(&t.w, "x-delayed-retry-type", slice_str("all"));
    amqp_put_str(&t.w, "x-queue-type", slice_str("quorum"));
    declare(rig, "q", writer_slice(&t.w));
    assert_true(put_colors(rig, 1, 100, 20));
    rig_clear(rig);
    assert_true(choose(rig, "b", "color = 'blue'", 0));
    delivered(rig, "20 40 60 80 100");
    rig_plain(rig, CMD_NACK, 1, 1, 4, ASK_REQUEUE);
    rig_plain(rig, CMD_NACK, 1, 1, 2, ASK_REQUEUE);
    delivered(rig, "");
    rig_assert_replays(rig);
    restart(&rig);
    assert_true(choose(rig, "b", "color = 'blue'", 0));
    delivered(rig, "20* 60* 100*");
    rig_pass(rig, 1100);
    delivered(rig, "40* 80*");
    rig_assert_replays(rig);
    end(rig);
}

/* After a clean stop only those are redelivered that were delivered, although they lie behind all others. */
static void clean_stop(void **state)
{
    (void)state;
    struct rig *rig = rig_with_backlog(300, 50);
    assert_true(choose(rig, "b", "color = 'blue'", 0));
    delivered(rig, "50 100 150 200 250 300");
    rig_plain(rig, CMD_ACK, 1, 1, 2, 0);
    assert_true(rig_open(rig, 2));
    rig_plain(rig, CMD_DRAIN, 2, 0, 0, 0);
    restart(&rig);
    consume(rig, "q", "all", ASK_NO_ACK);
    unsigned flagged = 0;
    for (unsigned i = 0; i < rig->effect_count; i++)
        if (rig->effects[i].type == EFF_DELIVER && rig->effects[i].flags & EFFECT_REDELIVERED) {
            assert_int_equal(strtoul(rig_body(&rig->effects[i]), NULL, 10) % 50, 0);
            flagged++;
        }
    assert_int_equal(flagged, 5);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 299);
    rig_clear(rig);
    end(rig);
}

/* Queues that hold little, of which nobody wants anything: their consumers do not keep it in memory. */
static void unwanted_leaves_memory(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 6000, .page_bytes = 8000});
    struct table t;
    char name[8];
    for (unsigned i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "q%u", i);
        declare(rig, name, (struct slice){0});
        assert_true(rig_ask(rig, CMD_CONSUME, 1, 1, name, name, NULL, selector_args(&t, "color = 'blue'"), ASK_NO_ACK));
        for (unsigned n = 0; n < 5; n++)
            put(rig, name, "red");
        rig_clear(rig);
    }
    rig_pass(rig, 20);
    assert_true(rig->b->ready_memory <= 6000);
    assert_int_equal(rig->b->paged + rig->b->entries.objects, 200);
    end(rig);
}

/* Who waits for a page hears of it when somebody else has taken all that was in it. */
static void get_waits_for_what_is_lent(void **state)
{
    (void)state;
    struct rig *rig = begin_options(OPTIONS);
    declare(rig, "q", (struct slice){0});
    declare(rig, "other", (struct slice){0});
    assert_true(put_colors(rig, 1, 40, 1)); /* blue */
    rig_pass(rig, 20);
    rig_plain(rig, CMD_QOS, 1, 1, 1, 0);
    assert_true(choose(rig, "b", "color = 'blue'", 0));
    rig_clear(rig);
    while (queue(rig)->busy->lanes[0].paging && !list_empty(&queue(rig)->busy->lanes[0].paging->front))
        rig_plain(rig, CMD_ACK, 1, 1, rig->b->totals.delivered, 0);
    rig->b->page_reads += 128; /* as if others had all places */
    rig_clear(rig);
    assert_true(rig_ask(rig, CMD_GET, 1, 1, "q", NULL, NULL, (struct slice){0}, 0));
    assert_int_equal(rig_count(rig, EFF_GET_OK) + rig_count(rig, EFF_GET_EMPTY), 0);
    while (queue(rig)->busy->ready_count)
        rig_plain(rig, CMD_ACK, 1, 1, rig->b->totals.delivered, 0);
    rig->b->page_reads -= 128;
    for (unsigned n = 0; n < 60; n++)
        put(rig, "other", "so that the store has answers");
    assert_int_equal(rig_count(rig, EFF_GET_EMPTY), 1);
    rig_clear(rig);
    end(rig);
}

/* What was lent of a page that was being read when the queue was purged comes back, and waits on disk again: then it may be read
 * once more, but not before the first answer has come. */
static void lent_of_a_page_that_is_read(void **state)
{
    (void)state;
    struct rig *rig = rig_with_backlog(300, 3);
    rig_plain(rig, CMD_QOS, 1, 1, 10, 0);
    assert_true(choose(rig, "b", "color = 'blue'", 0));
    assert_int_equal(rig_count(rig, EFF_DELIVER), 10);
    rig_clear(rig);
    rig->slow_store = true;
    rig->chance = 0;
    rig_plain(rig, CMD_QOS, 1, 1, 0, 0);
    consume(rig, "q", "all", ASK_NO_ACK);
    rig_clear(rig);
    assert_true(rig->b->page_reads > 0);
    ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
    ASK(CANCEL, "all", NULL, NULL, 0);
    ASK(CANCEL, "b", NULL, NULL, 0);
    rig_plain(rig, CMD_NACK, 1, 1, 0, ASK_REQUEUE | ASK_MULTIPLE);
    rig->chance = 0;
    rig_clear(rig);
    uint64_t paged = rig->b->paged;
    assert_true(put_color(rig, 301, "red"));
    rig->chance = 0;
    rig_clear(rig);
    assert_true(rig->b->paged > paged); /* of pages that were read before */
    consume(rig, "q", "all", ASK_NO_ACK);
    while (!ring_empty(&broker_port(rig->b, 2)->effects)) {
        rig->chance = 0;
        rig_store_serve(rig->b, rig->log, 1);
        rig_step(rig);
    }
    rig->slow_store = false;
    rig_step(rig);
    assert_int_equal(rig_ready(rig, "q"), 0);
    assert_int_equal(rig->b->page_reads, 0);
    rig_clear(rig);
    end(rig);
}

/* ---- whatever happens ---- */

enum { COLORS = 3, CONSUMERS = 6, NUMBERS = 4000 };

static const char *const colors[COLORS] = {"red", "blue", "green"};

struct world {
    struct rig *rig;
    uint64_t chance;
    unsigned published, color[NUMBERS]; /* of each number */
    uint64_t tag[NUMBERS];              /* it is with a consumer; 0: it waits, or is gone */
    bool gone[NUMBERS];
    int consumers[CONSUMERS]; /* what they choose; COLORS: all, -1: there is none */
    uint32_t ids[CONSUMERS];
    unsigned last[COLORS]; /* the highest number that came for the first time, to who chooses it */
};

static unsigned chance_of(struct world *w, unsigned n)
{
    w->chance = w->chance * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(w->chance >> 33) % n;
}

static void take(struct world *w)
{
    struct rig *rig = w->rig;
    assert_string_equal(rig_error(rig), "");
    for (unsigned i = 0; i < rig->effect_count; i++) {
        const struct effect *e = &rig->effects[i];
        if (e->type != EFF_DELIVER && e->type != EFF_GET_OK)
            continue;
        unsigned number = (unsigned)strtoul(rig_body(e), NULL, 10), color = w->color[number];
        if (w->tag[number] || w->gone[number])
            rig_fail("%u came twice", number);
        w->tag[number] = e->number;
        if (e->type == EFF_GET_OK)
            continue;
        int chosen = -1;
        for (unsigned c = 0; c < CONSUMERS; c++)
            if (w->consumers[c] >= 0 && w->ids[c] == e->consumer)
                chosen = w->consumers[c];
        assert_true(chosen == COLORS || chosen == (int)color);
        if (chosen == COLORS || (e->flags & EFFECT_REDELIVERED))
            continue;
        if (number < w->last[color])
            rig_fail("%u came behind %u", number, w->last[color]);
        w->last[color] = number;
    }
    rig_clear(rig);
}

static unsigned some_taken(struct world *w)
{
    for (unsigned tries = 0; w->published && tries < 50; tries++) {
        unsigned number = chance_of(w, w->published);
        if (w->tag[number])
            return number;
    }
    return NUMBERS;
}

static void settle_some(struct world *w, bool back)
{
    unsigned number = some_taken(w);
    if (number == NUMBERS)
        return;
    uint64_t tag = w->tag[number];
    w->tag[number] = 0;
    w->gone[number] = !back;
    rig_plain(w->rig, back ? CMD_NACK : CMD_ACK, 1, 1, tag, back ? ASK_REQUEUE : 0);
}

static void come_or_go(struct world *w)
{
    unsigned c = chance_of(w, CONSUMERS);
    char tag[8], selector[40];
    snprintf(tag, sizeof tag, "c%u", c);
    if (w->consumers[c] >= 0) {
        assert_true(rig_ask(w->rig, CMD_CANCEL, 1, 1, tag, NULL, NULL, (struct slice){0}, 0));
        take(w);
        w->consumers[c] = -1;
        return;
    }
    rig_plain(w->rig, CMD_QOS, 1, 1, 1 + chance_of(w, 30), 0);
    rig_clear(w->rig);
    int chosen = (int)chance_of(w, COLORS * 4);
    w->consumers[c] = chosen < COLORS ? chosen : chosen == COLORS ? COLORS : chosen % COLORS;
    snprintf(selector, sizeof selector, "color = '%s'", w->consumers[c] < COLORS ? colors[w->consumers[c]] : "");
    if (w->consumers[c] == COLORS)
        assert_true(rig_ask(w->rig, CMD_CONSUME, 1, 1, "q", tag, NULL, (struct slice){0}, 0));
    else
        assert_true(choose(w->rig, tag, selector, 0));
    w->ids[c] = (uint32_t)rig_nth(w->rig, EFF_ANSWER, 0)->answer->number;
}

static void crash(struct world *w)
{
    rig_assert_replays(w->rig);
    restart(&w->rig);
    memset(w->tag, 0, sizeof w->tag);
    memset(w->last, 0, sizeof w->last);
    for (unsigned c = 0; c < CONSUMERS; c++)
        w->consumers[c] = -1;
}

static void purge(struct world *w)
{
ASK_PURGE:
    take(w);
    assert_true(rig_ask(w->rig, CMD_QUEUE_PURGE, 1, 1, "q", NULL, NULL, (struct slice){0}, 0));
    take(w);
    for (unsigned i = 0; i < w->published; i++)
        w->gone[i] |= !w->tag[i];
    if (rig_ready(w->rig, "q"))
        goto ASK_PURGE;
}

static void something(struct world *w)
{
    unsigned what = chance_of(w, 100);
    if (what < 40) {
        for (unsigned n = chance_of(w, 12); n && w->published < NUMBERS; n--) {
            w->color[w->published] = chance_of(w, 8) ? 0 : chance_of(w, COLORS);
            assert_true(put_color(w->rig, w->published, colors[w->color[w->published]]));
            w->published++;
            take(w);
        }
    } else if (what < 65)
        settle_some(w, false);
    else if (what < 78)
        settle_some(w, true);
    else if (what < 88)
        come_or_go(w);
    else if (what < 92)
        assert_true(rig_ask(w->rig, CMD_GET, 1, 1, "q", NULL, NULL, (struct slice){0}, 0));
    else if (what < 94)
        rig_pass(w->rig, 20);
    else if (what < 96)
        w->rig->slow_store = !w->rig->slow_store;
    else if (what < 98)
        compact_start(w->rig->b);
    else if (chance_of(w, 8) == 0)
        crash(w);
    else if (chance_of(w, 20) == 0)
        purge(w);
    take(w);
}

static void play(uint64_t seed, unsigned steps)
{
    struct world *w = calloc(1, sizeof *w);
    w->chance = seed;
    static const uint64_t paging[] = {1, 4000, 20000};
    w->rig = begin_options(
        &(struct broker_options){.paging_bytes = paging[seed % 3], .page_bytes = 150 + chance_of(w, 1500)});
    for (unsigned c = 0; c < CONSUMERS; c++)
        w->consumers[c] = -1;
    declare(w->rig, "q", (struct slice){0});
    rig_clear(w->rig);
    for (unsigned i = 0; i < steps; i++)
        something(w);
    w->rig->slow_store = false;
    for (unsigned c = 0; c < COLORS; c++)
        assert_true(choose(w->rig, (const char *[]){"x", "y", "z"}[c],
                           (const char *[]){"color = 'red'", "color = 'blue'", "color = 'green'"}[c], ASK_NO_ACK));
    rig_pass(w->rig, 50);
    for (unsigned i = 0; i < w->rig->effect_count; i++) {
        const struct effect *e = &w->rig->effects[i];
        if (e->type != EFF_DELIVER)
            continue;
        unsigned number = (unsigned)strtoul(rig_body(e), NULL, 10);
        assert_true(!w->tag[number] && !w->gone[number]);
        w->gone[number] = true;
    }
    unsigned held = 0;
    for (unsigned i = 0; i < w->published; i++) {
        held += w->tag[i] != 0;
        if (!w->tag[i] && !w->gone[i])
            rig_fail("seed %llu: %u was never found", (unsigned long long)seed, i);
    }
    assert_int_equal(rig_ready(w->rig, "q"), 0);
    assert_int_equal(queue(w->rig)->busy->unacked_count, held);
    end(w->rig);
    free(w);
}

static void whatever_happens(void **state)
{
    (void)state;
    const char *first = getenv("SCAN_FIRST"), *last = getenv("SCAN_LAST"); /* by hand: many more */
    for (uint64_t seed = first ? strtoull(first, NULL, 10) : 1; seed <= (last ? strtoull(last, NULL, 10) : 24); seed++)
        play(seed, 400);
    play(2353, 400); /* pages are joined where a scan stands */
}

/* ---- memory ---- */

static bool storm(struct rig *rig)
{
    rig->b->options.paging_bytes = 1;
    rig->b->options.page_bytes = 700;
    if (!begin_with(rig) || !rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "q", NULL, NULL, (struct slice){0}, ASK_DURABLE) ||
        !put_colors(rig, 1, 60, 10) || !choose(rig, "b", "color = 'blue'", 0))
        return false;
    rig_pass(rig, 1100);
    rig_plain(rig, CMD_ACK, 1, 1, 1, 0);
    rig_plain(rig, CMD_NACK, 1, 1, 2, ASK_REQUEUE);
    return rig_ask(rig, CMD_QUEUE_PURGE, 1, 1, "q", NULL, NULL, (struct slice){0}, 0);
}

static void memory_fails(void **state)
{
    (void)state;
    each_allocation_fails(storm, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_lie_deep),
        cmocka_unit_test(one_look_for_all),
        cmocka_unit_test(returns_are_found_at_once),
        cmocka_unit_test(restarts),
        cmocka_unit_test(purge_and_delete),
        cmocka_unit_test(beside_others),
        cmocka_unit_test(queues_share_the_room),
        cmocka_unit_test(taken_is_behind),
        cmocka_unit_test(holes_are_packed),
        cmocka_unit_test(waiting_in_line),
        cmocka_unit_test(damaged_pages),
        cmocka_unit_test(delayed_in_pages),
        cmocka_unit_test(clean_stop),
        cmocka_unit_test(unwanted_leaves_memory),
        cmocka_unit_test(get_waits_for_what_is_lent),
        cmocka_unit_test(lent_of_a_page_that_is_read),
        cmocka_unit_test(whatever_happens),
        cmocka_unit_test(memory_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
