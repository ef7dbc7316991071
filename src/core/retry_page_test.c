/* Messages that wait for their retry, beyond memory: they come back by when they are due, each once, as often returned as they were,
 * wherever they were meanwhile. Pages hold a few messages each. */
#include "core/broker_words_test.h"

#include "core/delay_int.h"
#include "core/records.h"

#define MOST 700u

#define ROOM(paging, page)                                                                                             \
    &(struct broker_options)                                                                                           \
    {                                                                                                                  \
        .paging_bytes = paging, .page_bytes = page                                                                     \
    }

enum where { NOWHERE, READY, HELD, WAITING };

struct model { /* of the queue q, whose retries wait 1000 ms more each time */
    struct {
        enum where where;
        uint64_t tag;
        unsigned returns;
        wall_t due;
    } messages[MOST];
    unsigned count;
    uint64_t tags, random;
};

static unsigned pick(struct model *m, unsigned n)
{
    m->random = m->random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(m->random >> 33) % n;
}

static void declare_q(struct rig *rig, const char *key, int64_t value)
{
    struct table t;
    amqp_put_long(&table(&t)->w, "x-delayed-retry-min", 1000);
    if (key)
        amqp_put_long(&t.w, key, value);
    amqp_put_str(&t.w, "x-dead-letter-exchange", (struct slice){0});
    amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str("dead"));
    declare(rig, "q", writer_slice(&t.w));
    declare(rig, "dead", (struct slice){0});
}

static struct rig *begin_q(const struct broker_options *options)
{
    struct rig *rig = begin_options(options);
    declare_q(rig, NULL, 0);
    return rig;
}

static struct queue *queue_named(struct rig *rig, const char *name)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str(name));
}

static struct delay *waiting_of(struct rig *rig)
{
    return queue_named(rig, "q")->extra->retry.wait;
}

static void put_number(struct rig *rig, struct model *m, bool persistent)
{
    char body[80];
    snprintf(body, sizeof body, "%-70u", m->count);
    assert_true(m->count < MOST);
    m->messages[m->count++].where = READY;
    assert_true(rig_publish(rig, 1, 1, "", "q", body, persistent));
    rig_clear(rig);
}

/* The next one is held from now on; false: there is none. */
static bool take(struct rig *rig, struct model *m)
{
    struct amqp_value v;
    rig_clear(rig);
    ASK(GET, "q", NULL, NULL, 0);
    if (rig_count(rig, EFF_GET_OK) == 0)
        return false;
    const struct msg *msg = rig_nth(rig, EFF_GET_OK, 0)->msg;
    unsigned i = (unsigned)strtoul((const char *)msg_body(msg).ptr, NULL, 10);
    assert_true(i < m->count);
    if (m->messages[i].where == WAITING)
        assert_true(m->messages[i].due <= rig->wall); /* none early */
    else
        assert_int_equal(m->messages[i].where, READY); /* none twice */
    bool counted = amqp_table_find(msg_headers(msg), "x-delivery-count", &v);
    assert_int_equal(counted ? v.i : 0, m->messages[i].returns);
    m->messages[i].where = HELD;
    m->messages[i].tag = ++m->tags;
    return true;
}

static void refuse(struct rig *rig, struct model *m, unsigned i)
{
    assert_int_equal(m->messages[i].where, HELD);
    rig_plain(rig, CMD_NACK, 1, 1, m->messages[i].tag, ASK_REQUEUE);
    m->messages[i].where = WAITING;
    m->messages[i].due = rig->wall + 1000 * ++m->messages[i].returns;
    rig_clear(rig);
}

static void acknowledge(struct rig *rig, struct model *m, unsigned i)
{
    rig_plain(rig, CMD_ACK, 1, 1, m->messages[i].tag, 0);
    m->messages[i].where = NOWHERE;
    rig_clear(rig);
}

static unsigned count_in(const struct model *m, enum where where)
{
    unsigned n = 0;
    for (unsigned i = 0; i < m->count; i++)
        n += m->messages[i].where == where;
    return n;
}

static void restart_q(struct rig **rig, struct model *m)
{
    restart(rig);
    m->tags = 0;
    for (unsigned i = 0; i < m->count; i++)
        if (m->messages[i].where == HELD)
            m->messages[i].where = READY;
}

/* All are published, taken and refused, a few at a time. */
static void refuse_all(struct rig *rig, struct model *m, unsigned count, bool persistent)
{
    for (unsigned i = 0; i < count; i++) {
        put_number(rig, m, persistent);
        assert_true(take(rig, m));
        refuse(rig, m, i);
        if (i % 10 == 9)
            rig_pass(rig, 5);
    }
}

/* Everything comes, sooner or later, and once. */
static void drain(struct rig *rig, struct model *m)
{
    for (unsigned idle = 0; idle < 800 && count_in(m, READY) + count_in(m, WAITING); idle++) {
        rig_pass(rig, 20);
        while (take(rig, m))
            idle = 0;
    }
    for (unsigned i = 0; i < m->count; i++)
        if (m->messages[i].where == HELD)
            acknowledge(rig, m, i);
    rig_step(rig);
    assert_int_equal(count_in(m, NOWHERE), m->count);
    assert_int_equal(queue_delayed(queue_named(rig, "q")), 0);
    assert_int_equal(rig_ready(rig, "q"), 0);
    assert_int_equal(rig->b->totals.messages, 0);
    assert_int_equal(rig->b->paged + rig->b->delay_memory + rig->b->delay_reading, 0);
}

/* Memory is bounded, whatever waits, and the order is that in which they are due. */
static void beyond_memory(void **state)
{
    (void)state;
    struct model m = {.random = 1};
    struct rig *rig = begin_q(ROOM(8000, 1000));
    refuse_all(rig, &m, 300, true);
    assert_int_equal(queue_delayed(queue_named(rig, "q")), 300);
    assert_true(rig->b->paged > 200);
    assert_true(rig->b->ready_memory < 10000);
    rig_assert_replays(rig);
    restart_q(&rig, &m);
    assert_int_equal(queue_delayed(queue_named(rig, "q")), 300);
    assert_true(rig->b->paged > 200);
    compact_start(rig->b);
    rig_step(rig);
    rig_assert_replays(rig);
    rig->log->drops = true;
    restart_q(&rig, &m);
    wall_t last = 0;
    for (unsigned came = 0; came < 300;) {
        rig_pass(rig, 5);
        while (take(rig, &m)) {
            unsigned i = 0;
            while (m.messages[i].where != HELD)
                i++;
            assert_true(m.messages[i].due >= last);
            assert_true(rig->wall - m.messages[i].due < 300);
            last = m.messages[i].due;
            acknowledge(rig, &m, i);
            came++;
        }
        assert_true(rig->b->ready_memory < 10000);
    }
    drain(rig, &m);
    end(rig);
}

/* Nobody takes what comes back: it is read no faster than it is taken, though all of it is due. */
static void all_due_and_nobody_there(void **state)
{
    (void)state;
    struct model m = {.random = 1};
    struct rig *rig = begin_q(ROOM(8000, 500));
    refuse_all(rig, &m, 400, true);
    rig_pass(rig, 3000);
    assert_true(rig->b->ready_memory < 16000);
    assert_true(rig_ready(rig, "q") > 10 && queue_delayed(queue_named(rig, "q")) > 200);
    assert_true(waiting_of(rig)->held);
    restart_q(&rig, &m);
    rig_pass(rig, 3000);
    assert_true(rig->b->ready_memory < 16000);
    drain(rig, &m);
    end(rig);
}

/* Its place is what it was: before what was published later, behind what was published before. */
static void comes_back_to_its_place(void **state)
{
    (void)state;
    struct model m = {.random = 1};
    struct rig *rig = begin_q(ROOM(2000, 500));
    refuse_all(rig, &m, 60, true);
    for (unsigned i = 0; i < 100; i++)
        put_number(rig, &m, true);
    assert_true(rig->b->paged > 100);
    rig_pass(rig, 1500);
    for (unsigned i = 0; i < 10; i++) {
        assert_true(take(rig, &m));
        assert_int_equal(m.messages[i].where, HELD); /* not the 60th */
    }
    rig_assert_replays(rig);
    drain(rig, &m);
    end(rig);
}

/* Death after any record: each message is there once, and none that was refused comes before its time. */
static void every_prefix(void **state)
{
    (void)state;
    struct model m = {.random = 5};
    struct rig *rig = begin_q(ROOM(1500, 400));
    size_t before = rig->log->count;
    for (unsigned i = 0; i < 40; i++)
        put_number(rig, &m, true);
    size_t published = rig->log->count;
    for (unsigned i = 0; i < 40; i++) {
        assert_true(take(rig, &m));
        refuse(rig, &m, i);
        rig_pass(rig, 10);
    }
    compact_start(rig->b);
    rig_pass(rig, 1200);
    for (unsigned i = 0; i < 12 && take(rig, &m); i++)
        if (i % 3)
            rig_pass(rig, 20);
    for (unsigned i = 0; i < 40; i++)
        if (m.messages[i].where == HELD)
            refuse(rig, &m, i); /* for the second time: written again */
    rig_pass(rig, 1900);
    assert_true(rig->log->store->read > 2);
    size_t until = rig->log->count;
    size_t checkpoint = until, first = rig->log->first;
    while (rig->log->records[checkpoint - 1].bytes[0] != REC_CHECKPOINT)
        checkpoint--;
    for (size_t n = before + 1; n <= until; n++) {
        rig->log->first = n < checkpoint ? 1 : first; /* it was not trimmed yet */
        struct rig *other = rig_new(rig_log_copy(rig->log, n), &rig->options, rig->wall + 9000);
        bool seen[64] = {0};
        unsigned count = 0;
        assert_true(begin_with(other));
        for (unsigned idle = 0; idle < 10; idle++) {
            rig_pass(other, 20);
            for (;;) {
                rig_clear(other);
                rig_ask(other, CMD_GET, 1, 1, "q", NULL, NULL, (struct slice){0}, ASK_NO_ACK);
                if (rig_count(other, EFF_GET_OK) == 0)
                    break;
                unsigned i =
                    (unsigned)strtoul((const char *)msg_body(rig_nth(other, EFF_GET_OK, 0)->msg).ptr, NULL, 10);
                assert_true(i < 40 && !seen[i]);
                seen[i] = true;
                count++;
                idle = 0;
            }
        }
        assert_int_equal(other->b->totals.messages, 0);
        assert_true(n < published || count == 40);
        struct rig_log *copy = other->log;
        rig_free(other);
        rig_log_free(copy);
    }
    rig->log->first = first;
    drain(rig, &m);
    end(rig);
}

static void purged_and_deleted(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 8; how++) {
        struct model m = {.random = how};
        struct rig *rig = begin_q(ROOM(2000, 500));
        refuse_all(rig, &m, 80, how % 3 != 2);
        rig->slow_store = true;
        rig->chance = 0;
        rig_pass(rig, 600); /* some are being read … */
        for (unsigned i = 0; i < 15; i++) {
            put_number(rig, &m, true);
            if (take(rig, &m))
                for (unsigned k = 0; k < m.count; k++)
                    if (m.messages[k].where == HELD)
                        refuse(rig, &m, k);
        }
        rig_store_serve(rig->b, rig->log, how / 3); /* … and written */
        rig_step(rig);
        assert_true(waiting_of(rig)->read_count + waiting_of(rig)->write_count > 0);
        rig_clear(rig);
        if (how % 2) {
            ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
            assert_int_equal(rig_nth(rig, EFF_ANSWER, 0)->answer->number, 95);
        } else
            ASK(QUEUE_DELETE, "q", NULL, NULL, 0);
        rig->slow_store = false;
        rig_pass(rig, 100);
        rig_assert_replays(rig);
        assert_int_equal(rig->b->totals.messages, 0);
        assert_int_equal(rig->b->paged + rig->b->delay_memory + rig->b->delay_reading + rig->b->ready_memory, 0);
        assert_int_equal(rig->b->page_reads + rig->b->page_writes + rig->b->writing_memory, 0);
        restart(&rig);
        rig_pass(rig, 3000);
        assert_int_equal(rig->b->totals.messages, 0);
        if (how % 2) {
            put(rig, "q", "again");
            ASK(GET, "q", NULL, NULL, 0);
            assert_string_equal(rig_delivered(rig), "again");
        }
        end(rig);
    }
}

/* What expires while it waits in a page does so in time, as a dead letter; what is too many when it is back goes first. */
static void expires_and_is_dropped(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 2; how++) {
        struct model m = {.random = how};
        struct rig *rig = begin_options(ROOM(2000, 500));
        declare_q(rig, how ? "x-max-length" : "x-message-ttl", how ? 25 : 600);
        refuse_all(rig, &m, 80, true);
        assert_int_equal(queue_delayed(queue_named(rig, "q")), 80);
        assert_true(rig->b->paged > 50);
        rig_assert_replays(rig);
        restart_q(&rig, &m);
        for (unsigned i = 0; i < 60; i++)
            rig_pass(rig, 20);
        assert_int_equal(rig_ready(rig, "dead"), how ? 55 : 80);
        assert_int_equal(rig_ready(rig, "q"), how ? 25 : 0);
        rig_clear(rig);
        ASK(GET, "dead", NULL, NULL, ASK_NO_ACK);
        struct amqp_value deaths;
        assert_true(amqp_table_find(msg_headers(rig_nth(rig, EFF_GET_OK, 0)->msg), "x-death", &deaths));
        end(rig);
    }
}

static void transient_ones(void **state)
{
    (void)state;
    struct model m = {.random = 1};
    struct rig *rig = begin_q(ROOM(2000, 500));
    for (unsigned i = 0; i < 100; i++) {
        put_number(rig, &m, i % 2);
        assert_true(take(rig, &m));
        refuse(rig, &m, i);
    }
    assert_true(rig->b->paged > 70);
    rig_pass(rig, 500);
    rig_assert_replays(rig);
    struct rig *other = rig_new(rig_log_copy(rig->log, rig->log->count), &rig->options, rig->wall);
    assert_int_equal(queue_delayed(queue_named(other, "q")), 50);
    struct rig_log *copy = other->log;
    rig_free(other);
    rig_log_free(copy);
    drain(rig, &m);
    end(rig);
}

/* What cannot be written stays in memory; a damaged page stays where it is, and the others come. */
static void failures(void **state)
{
    (void)state;
    struct model m = {.random = 7};
    struct rig *rig = begin_q(ROOM(2000, 500));
    rig->log->store->fail_writes = 2;
    refuse_all(rig, &m, 30, true);
    assert_int_equal(rig->b->paged, 0);
    drain(rig, &m);
    m = (struct model){.random = 7, .tags = m.tags};
    refuse_all(rig, &m, 60, true);
    assert_true(rig->b->paged > 30);
    rig->log->store->damaged = true;
    rig_pass(rig, 2000);
    uint64_t lost = queue_delayed(queue_named(rig, "q")), came = rig_ready(rig, "q");
    assert_true(lost > 20 && came >= 1 && lost + came == 60);
    rig->log->store->damaged = false;
    restart_q(&rig, &m);
    drain(rig, &m);
    end(rig);
}

/* While a key counts because its message is there, messages keep their positions: they stay in memory. */
static void of_a_queue_that_deduplicates(void **state)
{
    (void)state;
    struct rig *rig = begin_options(ROOM(2000, 500));
    struct table t;
    amqp_put_long(&table(&t)->w, "x-delayed-retry-min", 1000);
    amqp_put_bool(&t.w, "x-message-deduplication", true);
    declare(rig, "q", writer_slice(&t.w));
    for (unsigned i = 0; i < 60; i++) {
        struct table headers;
        amqp_put_long(&table(&headers)->w, "x-deduplication-header", i);
        struct amqp_props props = {
            .present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = 2, .headers = writer_slice(&headers.w)};
        for (unsigned again = 0; again < 2; again++)
            rig_publish_with(rig, 1, 1, "", "q", slice_str("body"), &props, 0);
        ASK(GET, "q", NULL, NULL, 0);
        rig_plain(rig, CMD_NACK, 1, 1, i + 1, ASK_REQUEUE);
        rig_clear(rig);
    }
    assert_int_equal(queue_delayed(queue_named(rig, "q")), 60);
    assert_int_equal(rig->b->paged, 0);
    restart(&rig);
    assert_int_equal(queue_delayed(queue_named(rig, "q")), 60);
    end(rig);
}

static void random_history(unsigned seed, uint64_t *written)
{
    struct model m = {.random = seed};
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1500 + 1500 * (seed % 4),
                                                             .page_bytes = 300 + 200 * (seed % 3),
                                                             .compact_every = seed % 2 ? 40 : 0,
                                                             .compact_slice_bytes = 1 + 300 * (seed % 3)});
    rig->log->drops = true;
    declare_q(rig, seed % 5 == 4 ? "x-max-priority" : NULL, 3);
    for (unsigned n = 0; n < 300; n++) {
        unsigned what = pick(&m, 40);
        rig->slow_store = pick(&m, 3) == 0;
        if (what < 12 && m.count < 150)
            for (unsigned more = pick(&m, 4); more; more--)
                put_number(rig, &m, true);
        else if (what < 26)
            for (unsigned more = pick(&m, 6); more && take(rig, &m); more--)
                ;
        else if (what < 34)
            for (unsigned i = 0; i < m.count; i++) {
                if (m.messages[i].where == HELD)
                    pick(&m, 8) ? refuse(rig, &m, i) : acknowledge(rig, &m, i);
            }
        else if (what < 38)
            rig_pass(rig, 5 * (1 + pick(&m, 60)));
        else {
            rig->slow_store = false;
            rig_step(rig);
            rig_assert_replays(rig);
            if (what == 39)
                restart_q(&rig, &m);
        }
    }
    rig->slow_store = false;
    for (unsigned i = 0; i < m.count; i++)
        if (m.messages[i].where == HELD)
            acknowledge(rig, &m, i);
    drain(rig, &m);
    *written += rig->log->store->written;
    end(rig);
}

static void random_histories(void **state)
{
    (void)state;
    uint64_t written = 0;
    for (unsigned seed = 0; seed < 60; seed++)
        random_history(seed, &written);
    assert_true(written > 1000);
}

/* ---- failing allocations ---- */

static bool storm(struct rig *rig)
{
    struct table t;
    if (!begin_with(rig))
        return false;
    amqp_put_long(&table(&t)->w, "x-delayed-retry-min", 50);
    rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "q", NULL, NULL, writer_slice(&t.w), ASK_DURABLE);
    for (unsigned i = 0; i < 24; i++) {
        (void)rig_publish(rig, 1, 1, "", "q", "some bytes, so that a page is soon full", true);
        rig_ask(rig, CMD_GET, 1, 1, "q", NULL, NULL, (struct slice){0}, 0);
        rig_plain(rig, CMD_NACK, 1, 1, 0, ASK_REQUEUE | ASK_MULTIPLE);
        rig_clear(rig);
    }
    rig_pass(rig, 100);
    return true;
}

static void every_allocation_fails_once(void **state)
{
    (void)state;
    for (int for_ever = 0; for_ever < 2; for_ever++)
        for (uint64_t n = 1, hit = 1; hit; n += for_ever ? 5 : 1) {
            struct rig_log *log = rig_log_new();
            const char *why;
            struct rig *rig =
                rig_try(log, &(struct broker_options){.paging_bytes = 600, .page_bytes = 150}, 1700000000000, &why);
            assert_null(why);
            rig->check = false;
            rig->starved = true;
            mem_fail_at(n, for_ever);
            (void)storm(rig);
            hit = mem_failures_hit();
            mem_fail_at(0, false);
            rig->check = true;
            rig->starved = false;
            rig_step(rig);
            rig_assert_nothing_lost(rig);
            rig_pass(rig, 2500);
            rig_assert_nothing_lost(rig);
            rig_free(rig);
            rig_log_free(log);
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beyond_memory),
        cmocka_unit_test(all_due_and_nobody_there),
        cmocka_unit_test(comes_back_to_its_place),
        cmocka_unit_test(every_prefix),
        cmocka_unit_test(purged_and_deleted),
        cmocka_unit_test(expires_and_is_dropped),
        cmocka_unit_test(transient_ones),
        cmocka_unit_test(failures),
        cmocka_unit_test(of_a_queue_that_deduplicates),
        cmocka_unit_test(random_histories),
        cmocka_unit_test(every_allocation_fails_once),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
