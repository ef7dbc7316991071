/* Delayed messages beyond memory: they come by when they are due, then as they came, wherever they were meanwhile. Pages hold a
 * few messages each, and the store answers when it is told to. */
#include "core/broker_words_test.h"

#include "core/delay_int.h"

#define MOST 1000u
enum {
#define ADMIN(name, operands) OP_##name,
#include "core/admin.def"
#undef ADMIN
};

#define ROOM(paging, page)                                                                                             \
    &(struct broker_options)                                                                                           \
    {                                                                                                                  \
        .paging_bytes = paging, .page_bytes = page                                                                     \
    }

struct expected { /* what was published and has not come yet, in the order in which it is to come */
    struct {
        wall_t due;
        unsigned number;
        bool kept; /* after a restart */
    } items[MOST];
    unsigned count, numbers;
    uint64_t random;
};

static unsigned pick(struct expected *x, unsigned n)
{
    x->random = x->random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(x->random >> 33) % n;
}

static struct rig *begin_late(const struct broker_options *options)
{
    struct rig *rig = begin_options(options);
    struct table t;
    amqp_put_str(&table(&t)->w, "x-delayed-type", slice_str("fanout"));
    rig_ask(rig, CMD_EXCHANGE_DECLARE, 1, 1, "late", "x-delayed-message", NULL, writer_slice(&t.w), ASK_DURABLE);
    declare(rig, "q", (struct slice){0});
    ASK(QUEUE_BIND, "q", "late", "", 0);
    rig_clear(rig);
    return rig;
}

/* The rig's steps are 5 ms: nothing is due at the moment of one, for a timer may be a tick late. */
static void publish_late(struct rig *rig, struct expected *x, int delay, bool persistent)
{
    struct table t;
    char body[80];
    unsigned at = x->count++;
    delay += 2 - delay % 5;
    amqp_put_long(&table(&t)->w, "x-delay", delay);
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE | AMQP_HEADERS,
                               .delivery_mode = persistent ? 2 : 1,
                               .headers = writer_slice(&t.w)};
    snprintf(body, sizeof body, "%-70u", ++x->numbers);
    assert_true(x->count <= MOST);
    for (; at && x->items[at - 1].due > rig->wall + delay; at--)
        x->items[at] = x->items[at - 1];
    x->items[at].due = rig->wall + delay;
    x->items[at].number = x->numbers;
    x->items[at].kept = persistent;
    rig_publish_with(rig, 1, 1, "late", "k", slice_str(body), &props, 0);
    rig_clear(rig);
}

/* In whole steps beyond it. */
static void pass_beyond(struct rig *rig, wall_t wall)
{
    rig_pass(rig, wall > rig->wall ? (wall - rig->wall) / 5 * 5 + 5 : 5);
}

static unsigned got(struct rig *rig)
{
    rig_clear(rig);
    ASK(GET, "q", NULL, NULL, ASK_NO_ACK);
    if (rig_count(rig, EFF_GET_OK) == 0)
        return 0;
    return (unsigned)strtoul((const char *)msg_body(rig_nth(rig, EFF_GET_OK, 0)->msg).ptr, NULL, 10);
}

/* What is due by now has come, in order, and nothing else. */
static void take_due(struct rig *rig, struct expected *x)
{
    unsigned n = 0, left = 0;
    for (; n < x->count && x->items[n].due <= rig->wall; n++)
        assert_int_equal(got(rig), x->items[n].number);
    assert_int_equal(got(rig), 0);
    for (; n < x->count; n++)
        x->items[left++] = x->items[n];
    x->count = left;
}

static void take_all(struct rig *rig, struct expected *x)
{
    while (x->count) {
        pass_beyond(rig, x->items[0].due);
        take_due(rig, x);
    }
    assert_int_equal(rig->b->totals.messages, 0);
    assert_int_equal(rig->b->paged, 0);
}

static void restart_late(struct rig **rig, struct expected *x)
{
    unsigned left = 0;
    for (unsigned i = 0; i < x->count; i++)
        if (x->items[i].kept)
            x->items[left++] = x->items[i];
    x->count = left;
    restart(rig);
}

static struct delay *delay_of_rig(struct rig *rig)
{
    return vhost_find(rig->b, slice_str("/"))->delay;
}

static void order_is_kept(void **state)
{
    (void)state;
    struct expected x = {.random = 1};
    struct rig *rig = begin_late(ROOM(8000, 1000));
    for (unsigned i = 0; i < 400; i++)
        publish_late(rig, &x, (int)(1 + 20 * pick(&x, 300)), true); /* many at the same time */
    assert_true(rig->b->paged > 300);
    assert_true(rig->b->ready_memory < 10000);
    rig_assert_replays(rig);
    rig_pass(rig, 1000);
    take_due(rig, &x);
    restart_late(&rig, &x);
    assert_true(rig->b->paged > 200);
    for (unsigned i = 0; i < 100; i++)
        publish_late(rig, &x, (int)(1 + 20 * pick(&x, 300)), true);
    compact_start(rig->b);
    rig_step(rig);
    rig_assert_replays(rig);
    take_all(rig, &x);
    assert_int_equal(x.numbers, 500);
    end(rig);
}

/* More than fits is due in the same millisecond: it is read as it is released. */
static void all_due_at_once(void **state)
{
    (void)state;
    struct expected x = {0};
    struct rig *rig = begin_late(ROOM(8000, 1000));
    for (unsigned i = 0; i < 300; i++)
        publish_late(rig, &x, 60000, true);
    assert_true(rig->b->paged > 200);
    uint64_t written = rig->log->store->written;
    restart_late(&rig, &x);
    rig->slow_store = true;
    rig->chance = 0; /* it does nothing, but when it is told to */
    while (rig->wall < x.items[0].due) {
        rig_pass(rig, 5);
        rig_store_serve(rig->b, rig->log, 1);
        assert_true(rig->b->delay_memory < 8000);
    }
    rig->slow_store = false;
    take_all(rig, &x);
    assert_true(rig->log->store->written < written + 100); /* what is read is not written again for ever */
    end(rig);
}

/* All delays are the same: what is written comes back once. */
static void written_once(void **state)
{
    (void)state;
    struct expected x = {0};
    struct rig *rig = begin_late(ROOM(40000, 500));
    for (unsigned i = 0; i < 600; i++) {
        publish_late(rig, &x, 5000, true);
        rig_pass(rig, 5);
    }
    uint64_t pages = rig->log->store->written;
    assert_true(pages && rig->log->store->read == 0);
    take_all(rig, &x);
    assert_int_equal(rig->log->store->written, pages + rig->b->pages_moved);
    assert_int_equal(rig->log->store->read, pages + rig->b->pages_moved);
    end(rig);
}

/* Nobody waits for a page that is not on its way, and a message that came later does not wait for one that is far. */
static void what_is_on_its_way_holds_back(void **state)
{
    (void)state;
    struct expected x = {0};
    struct rig *rig = begin_late(ROOM(3000, 1000));
    for (unsigned i = 0; i < 40; i++)
        publish_late(rig, &x, 2000, true);
    rig->slow_store = true;
    rig->chance = 0;
    for (unsigned i = 0; i < 40; i++)
        publish_late(rig, &x, 1000, true); /* before them; some of these are being written for ever */
    publish_late(rig, &x, 2, true);
    struct delay *d = delay_of_rig(rig);
    assert_true(d->write_count > 0);
    rig_pass(rig, 10);
    take_due(rig, &x); /* the last */
    wall_t held = CONTAINER_OF(d->writes.prev, struct delay_write, link)->page->deadline;
    pass_beyond(rig, held + 50);
    uint64_t ready = rig_ready(rig, "q");
    assert_true(ready < 40);
    rig->slow_store = false;
    rig_step(rig);
    rig_pass(rig, 5);
    assert_int_equal(rig_ready(rig, "q"), 40);
    take_all(rig, &x);
    end(rig);
}

static void transient_messages(void **state)
{
    (void)state;
    struct expected x = {.random = 3};
    struct rig *rig = begin_late(ROOM(8000, 1000));
    for (unsigned i = 0; i < 200; i++)
        publish_late(rig, &x, (int)(1 + pick(&x, 3000)), pick(&x, 2));
    assert_true(rig->b->paged > 100);
    rig_assert_replays(rig);
    rig_pass(rig, 700);
    take_due(rig, &x);
    rig_assert_replays(rig);
    restart_late(&rig, &x);
    take_all(rig, &x);
    end(rig);
}

/* Death after any record: every message comes once, in order. */
static void every_prefix(void **state)
{
    (void)state;
    struct expected x = {.random = 5};
    struct rig *rig = begin_late(ROOM(2000, 500));
    size_t before = rig->log->count;
    for (unsigned i = 0; i < 40; i++)
        publish_late(rig, &x, (int)(1000 + 10 * pick(&x, 200)), true);
    compact_start(rig->b);
    rig_pass(rig, 1500); /* read, and written again */
    assert_true(rig->log->store->read > 2);
    size_t until = rig->log->count;
    for (size_t n = before + 1; n <= until; n++) {
        struct rig *other = rig_new(rig_log_copy(rig->log, n), &rig->options, rig->wall + 5000);
        bool seen[64] = {0};
        assert_true(begin_with(other));
        rig_pass(other, 20);
        unsigned number, count = 0;
        while ((number = got(other))) {
            assert_false(seen[number]);
            seen[number] = true;
            count++;
        }
        assert_int_equal(other->b->totals.messages, 0);
        assert_true(n < until || count == 40);
        struct rig_log *copy = other->log;
        rig_free(other);
        rig_log_free(copy);
    }
    rig_pass(rig, 3000);
    take_due(rig, &x);
    end(rig);
}

/* What cannot be written stays in memory, and a damaged page where it is; the others come. */
static void failures(void **state)
{
    (void)state;
    struct expected x = {.random = 7};
    struct rig *rig = begin_late(ROOM(2000, 500));
    rig->log->store->fail_writes = 3;
    for (unsigned i = 0; i < 30; i++)
        publish_late(rig, &x, (int)(20000 + pick(&x, 2000)), true);
    assert_int_equal(rig->b->paged, 0);
    rig_pass(rig, 4000); /* a second's rest after each */
    assert_int_equal(rig->log->store->fail_writes, 0);
    assert_true(rig->b->paged > 10);
    rig_assert_replays(rig);
    wall_t due = x.items[0].due;
    for (unsigned i = 0; i < 20; i++)
        publish_late(rig, &x, 1000, true);
    rig->log->store->damaged = true;
    pass_beyond(rig, due + 3000);
    uint64_t lost = rig->b->paged, came = rig_ready(rig, "q");
    assert_true(lost > 5 && came >= 1 && lost + came == 50);
    rig->log->store->damaged = false;
    restart_late(&rig, &x);
    rig_pass(rig, 20);
    assert_int_equal(rig_ready(rig, "q"), 50);
    end(rig);
}

/* The vhost goes while pages are on their way, each way. */
static void vhost_goes(void **state)
{
    (void)state;
    for (unsigned serve = 0; serve < 6; serve++) {
        struct expected x = {.random = 11 + serve};
        struct rig *rig = begin_late(ROOM(3000, 500));
        for (unsigned i = 0; i < 60; i++)
            publish_late(rig, &x, (int)(300 + 10 * pick(&x, 200)), i % 3);
        rig->slow_store = true;
        rig->chance = 0;
        rig_pass(rig, 400);
        for (unsigned i = 0; i < 40; i++)
            publish_late(rig, &x, (int)(3000 + pick(&x, 2000)), i % 3);
        rig_store_serve(rig->b, rig->log, serve);
        rig_step(rig);
        assert_true(delay_of_rig(rig)->read_count + delay_of_rig(rig)->write_count > 0);
        vhost_delete(rig->b, vhost_find(rig->b, slice_str("/")));
        rig->slow_store = false;
        rig_pass(rig, 100);
        assert_int_equal(rig->b->totals.messages, 0);
        assert_int_equal(rig->b->paged + rig->b->delay_memory + rig->b->delay_reading, 0);
        assert_int_equal(rig->b->page_reads + rig->b->page_writes + rig->b->writing_memory, 0);
        struct rig_log *log = rig->log;
        rig_free(rig);
        rig_log_free(log);
    }
}

/* A page that moves out of a file that is mostly dead is found where it is then, and comes in its turn. */
static void pages_move(void **state)
{
    (void)state;
    struct expected x = {.random = 13};
    struct rig *rig = begin_late(ROOM(2000, 500));
    rig->log->drops = true;
    for (unsigned i = 0; i < 160; i++)
        publish_late(rig, &x, i % 6 ? 100 + (int)(5 * pick(&x, 300)) : 60000 + (int)pick(&x, 10), true);
    rig_pass(rig, 3000);
    take_due(rig, &x);
    rig_pass(rig, 3000);
    assert_true(rig->b->pages_moved > 0);
    rig_assert_replays(rig);
    restart_late(&rig, &x);
    take_all(rig, &x);
    end(rig);
}

/* A vhost more, of which a few messages of its exchange are late. */
static void make_late(struct rig *rig, unsigned number, unsigned messages, bool durable)
{
    char name[16];
    snprintf(name, sizeof name, "v%u", number);
    assert_true(rig_ask_full(rig, CMD_ADMIN, 1, 0, name, "", NULL, (struct slice){0}, 0, OP_VHOST_PUT));
    struct vhost *vhost = vhost_find(rig->b, slice_str(name));
    struct exchange *x = exchange_make(rig->b, vhost, slice_str("late"), exchange_type_find(slice_str("fanout")), true,
                                       durable, false, false, (struct slice){0});
    assert_true(x && (!durable || log_object(rig->b, &x->object)));
    for (unsigned i = 0; i < messages; i++) {
        lsn_t lsn;
        struct msg *msg = msg_new(broker_heap(rig->b), x->name, (struct slice){0}, (struct slice){0}, 70);
        memset(msg_body_room(msg), 'x', 70);
        msg->flags = MSG_PERSISTENT;
        assert_true(delay_publish(rig->b, x, msg, 5000 + 20 * i, &lsn));
        msg_unref(broker_heap(rig->b), msg);
    }
    rig_step(rig);
    rig_clear(rig);
}

/* A round ends also when more vhosts have nothing to write than one tick looks at: the core comes to rest. */
static void many_vhosts(void **state)
{
    (void)state;
    struct rig *rig = begin_late(ROOM(20000, 1000));
    for (unsigned i = 0; i < 150; i++)
        make_late(rig, i, 3, true);
    assert_true(rig->b->paged > 200 && !rig->b->delay_writing);
    rig_pass(rig, 5100);
    assert_int_equal(rig->b->totals.messages, 0);
    end(rig);
}

/* A round is written a little a tick, however much there is. */
static void rounds_go_in_slices(void **state)
{
    (void)state;
    struct rig *rig = begin_late(ROOM(20000, 500));
    struct exchange *x = exchange_find(vhost_find(rig->b, slice_str("/")), slice_str("late"));
    rig->slow_store = true;
    rig->chance = 0;
    for (unsigned i = 0; i < 400; i++) {
        lsn_t lsn;
        struct msg *msg = msg_new(broker_heap(rig->b), x->name, (struct slice){0}, (struct slice){0}, 0);
        assert_true(delay_publish(rig->b, x, msg, 5000, &lsn));
        msg_unref(broker_heap(rig->b), msg);
    }
    for (unsigned writes = 0, steps = 0; writes < 20 || steps < 5; steps++) {
        assert_true(broker_step(rig->b, rig->now, rig->wall, rig->durable));
        assert_true(rig->b->page_writes > writes && rig->b->page_writes <= writes + 4);
        writes = rig->b->page_writes;
    }
    rig->slow_store = false;
    rig_step(rig);
    assert_true(!rig->b->delay_writing && rig->b->paged > 200);
    rig_pass(rig, 5020);
    assert_int_equal(rig->b->totals.messages, 400); /* in q */
    end(rig);
}

/* What is in no journal, though it is persistent, is in none either when it was read from a page and is written again. */
static void exchange_that_is_not_durable(void **state)
{
    (void)state;
    struct rig *rig = begin_late(ROOM(2000, 500));
    make_late(rig, 0, 40, false);
    assert_true(rig->b->paged > 30);
    struct delay *d = vhost_find(rig->b, slice_str("v0"))->delay;
    while (list_empty(&d->loaded))
        rig_pass(rig, 5);
    for (struct list *at = d->loaded.next; at != &d->loaded; at = at->next)
        assert_false(CONTAINER_OF(at, struct entry, link)->flags & ENTRY_JOURNALLED);
    end(rig);
}

/* Some go to it besides, which nobody sees who gets the message: not at once, and not in memory or a page before either. */
static void blind_copies(void **state)
{
    (void)state;
    static const char *const queues[] = {"shown", "hidden"};
    for (unsigned in_tx = 0; in_tx < 2; in_tx++) {
        struct rig *rig = begin_options(ROOM(2000, 500));
        struct table t;
        amqp_put_str(&table(&t)->w, "x-delayed-type", slice_str("direct"));
        rig_ask(rig, CMD_EXCHANGE_DECLARE, 1, 1, "late", "x-delayed-message", NULL, writer_slice(&t.w), ASK_DURABLE);
        for (size_t i = 0; i < ARRAY_LEN(queues); i++) {
            declare(rig, queues[i], (struct slice){0});
            ASK(QUEUE_BIND, queues[i], "late", queues[i], 0);
        }
        if (in_tx)
            rig_plain(rig, CMD_TX_SELECT, 1, 1, 0, 0);
        for (unsigned i = 0; i < 20; i++) {
            amqp_put_long(&table(&t)->w, "x-delay", 1000 + i);
            size_t mark = amqp_open(&t.w, "BCC", 'A');
            amqp_put_element_str(&t.w, slice_str("hidden"));
            amqp_close(&t.w, mark);
            struct amqp_props props = {
                .present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = 2, .headers = writer_slice(&t.w)};
            rig_publish_with(rig, 1, 1, "late", "shown", slice_str("secret"), &props, 0);
        }
        if (in_tx)
            rig_plain(rig, CMD_TX_COMMIT, 1, 1, 0, 0);
        rig_step(rig);
        assert_true(rig->b->paged > 0);
        restart(&rig);
        rig_pass(rig, 1100);
        for (size_t i = 0; i < ARRAY_LEN(queues); i++) {
            struct amqp_value v;
            assert_int_equal(rig_ready(rig, queues[i]), 20);
            rig_clear(rig);
            ASK(GET, queues[i], NULL, NULL, ASK_NO_ACK);
            const struct msg *msg = rig_nth(rig, EFF_GET_OK, 0)->msg;
            assert_true(amqp_table_find(msg_headers(msg), "x-delay", &v));
            assert_false(amqp_table_find(msg_headers(msg), "BCC", &v));
        }
        end(rig);
    }
}

static void random_histories(void **state)
{
    (void)state;
    uint64_t written = 0, read = 0;
    for (unsigned seed = 0; seed < 60; seed++) {
        struct expected x = {.random = seed};
        struct rig *rig = begin_late(&(struct broker_options){
            .paging_bytes = 1500 + 1500 * (seed % 5), .page_bytes = 300 + 200 * (seed % 3), .compact_every = 40});
        rig->log->drops = true;
        for (unsigned i = 0; i < 300; i++) {
            rig->slow_store = pick(&x, 3) == 0;
            unsigned what = pick(&x, 40);
            int delays[] = {10, 300, 1000, 5000};
            if (what < 30 && x.count < 150)
                publish_late(rig, &x, 1 + (int)pick(&x, (unsigned)delays[pick(&x, seed % 2 ? 4 : 2)]), pick(&x, 8));
            else if (what < 37)
                rig_pass(rig, 5 * (1 + pick(&x, 60)));
            else {
                rig->slow_store = false;
                rig_pass(rig, 5);
                take_due(rig, &x);
                rig_assert_replays(rig);
                if (what == 39)
                    restart_late(&rig, &x);
            }
        }
        rig->slow_store = false;
        written += rig->log->store->written;
        read += rig->log->store->read;
        take_all(rig, &x);
        end(rig);
    }
    assert_true(written > 2000 && read > 2000);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_kept),
        cmocka_unit_test(all_due_at_once),
        cmocka_unit_test(written_once),
        cmocka_unit_test(what_is_on_its_way_holds_back),
        cmocka_unit_test(transient_messages),
        cmocka_unit_test(every_prefix),
        cmocka_unit_test(failures),
        cmocka_unit_test(vhost_goes),
        cmocka_unit_test(pages_move),
        cmocka_unit_test(many_vhosts),
        cmocka_unit_test(rounds_go_in_slices),
        cmocka_unit_test(exchange_that_is_not_durable),
        cmocka_unit_test(blind_copies),
        cmocka_unit_test(random_histories),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
