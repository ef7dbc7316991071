/* A listing of many ids comes together in slices: others are served meanwhile, each id that is there all the time is told of once, and
 * ids, clients and vhosts may go in the middle. */
#include "core/txn_words_test.h"

#define MANY 20000u

static void make_ids(struct rig *rig, unsigned from, unsigned until, const char *format)
{
    char name[300];
    rig->check = false;
    for (unsigned i = from; i < until; i++) {
        struct who who = {.name = name};
        snprintf(name, sizeof name, format, i);
        assert_int_equal(init(rig, &who), TXN_DONE);
    }
    rig_clear(rig);
    rig->check = true;
}

/* One step of the core. */
static void turn(struct rig *rig)
{
    rig->durable = rig->log->count;
    ring_publish(&broker_port(rig->b, 0)->commands);
    (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    rig_take(rig, 0);
}

static void ask_for(struct rig *rig, uint32_t session, const char *pattern, struct slice names)
{
    struct command *c = rig_command(rig, 0, CMD_TXN_LIST, session, 0);
    c->ask = ask_new(slice_str(pattern), names, (struct slice){0}, (struct slice){0});
    c->origin = 77;
}

/* With too many ids to compare what a replay makes of them. */
static void drop(struct rig *rig)
{
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

static bool is_listing(const struct rig *rig)
{
    return !list_empty(&rig->b->txn_listings);
}

static const struct answer *told(struct rig *rig)
{
    for (unsigned i = 0; i < rig->effect_count; i++)
        if (rig->effects[i].type == EFF_ANSWER && rig->effects[i].origin == 77)
            return rig->effects[i].answer;
    return NULL;
}

/* Rows, and how often there is an id of each number. */
static unsigned count(const struct answer *said, uint8_t seen[2 * MANY])
{
    struct txn_row row;
    unsigned rows = 0;
    memset(seen, 0, 2 * MANY);
    for (struct reader r = reader_of(said->fields); txn_row_next(&r, &row); rows++) {
        char name[32];
        snprintf(name, sizeof name, "%.*s", SLICE_ARG(row.name));
        assert_true(slice_starts(row.name, "id"));
        seen[strtoul(name + 2, NULL, 10)]++;
    }
    return rows;
}

static void others_are_served_meanwhile(void **state)
{
    (void)state;
    static uint8_t seen[2 * MANY];
    struct rig *rig = begin();
    make_ids(rig, 0, MANY, "id%u");
    ask_for(rig, 1, "", (struct slice){0});
    ask_for(rig, 1, "id[0-9]", (struct slice){0});
    turn(rig);
    unsigned turns = 1;
    for (; is_listing(rig); turns++) {
        rig_command(rig, 0, CMD_SCRAM, 1, 0)->ask =
            ask_new(slice_str("nobody"), (struct slice){0}, (struct slice){0}, (struct slice){0});
        uint32_t before = rig->effect_count;
        turn(rig);
        assert_true(rig->effect_count > before);
    }
    assert_true(turns >= MANY / 4096);
    const struct answer *said = told(rig);
    assert_int_equal(said->number, TXN_DONE);
    assert_int_equal(count(said, seen), MANY);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(seen[i], 1);
    drop(rig);
}

/* The place where it stands goes, and what is behind it; others come. */
static void ids_come_and_go(void **state)
{
    (void)state;
    static uint8_t seen[2 * MANY];
    struct rig *rig = begin();
    make_ids(rig, 0, MANY, "id%u");
    ask_for(rig, 1, ".*", (struct slice){0});
    turn(rig);
    for (unsigned i = MANY / 100; i < MANY; i++) { /* it stands at one of these */
        char name[20];
        snprintf(name, sizeof name, "id%u", i);
        if (i % 10)
            txn_free(rig->b, txn_find(vhost_find(rig->b, slice_str("/")), slice_str(name)));
    }
    assert_true(is_listing(rig));
    while (is_listing(rig))
        turn(rig);
    assert_true(count(told(rig), seen) < MANY / 2);
    for (unsigned i = 0; i < MANY; i++)
        assert_true(seen[i] == 1 || (seen[i] == 0 && i >= MANY / 100 && i % 10));
    drop(rig);
}

/* Of the names of a client, with what they write to. */
static void many_that_are_named(void **state)
{
    (void)state;
    static uint8_t seen[2 * MANY], names[16 * MANY];
    struct rig *rig = begin();
    make_ids(rig, 0, MANY, "id%u");
    struct writer w = writer_of(names, sizeof names);
    for (unsigned i = 1; i < MANY; i += 2) {
        char name[20];
        snprintf(name, sizeof name, "id%u", i);
        writer_str32(&w, slice_str(name));
    }
    writer_str32(&w, slice_str("none"));
    ask_for(rig, 1, "", writer_slice(&w));
    unsigned turns = 0;
    while (turn(rig), is_listing(rig))
        turns++;
    assert_true(turns > MANY / 2 / 512 / 2);
    assert_int_equal(count(told(rig), seen), MANY / 2);
    assert_int_equal(seen[1] + seen[MANY - 1] + seen[2], 2);
    drop(rig);
}

/* Whoever asked has gone. */
static void nobody_listens(void **state)
{
    (void)state;
    struct rig *rig = begin();
    assert_true(rig_open(rig, 2) && rig_open(rig, 3));
    make_ids(rig, 0, MANY, "id%u");
    ask_for(rig, 2, "", (struct slice){0});
    ask_for(rig, 3, "id7", (struct slice){0});
    turn(rig);
    rig_command(rig, 0, CMD_SESSION_CLOSE, 2, 0);
    turn(rig);
    assert_true(is_listing(rig));
    while (is_listing(rig))
        turn(rig);
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 0)->session, 3);
    assert_int_equal(rig_count(rig, EFF_ANSWER), 1);
    struct txn_row row;
    struct reader r = reader_of(told(rig)->fields);
    assert_true(txn_row_next(&r, &row) && slice_is(row.name, "id7") && !txn_row_next(&r, &row));
    rig_plain(rig, CMD_SESSION_CLOSE, 3, 0, 0, 0);
    ask_for(rig, 1, "", (struct slice){0});
    turn(rig);
    assert_true(is_listing(rig));
    drop(rig); /* the broker ends */
}

/* One that takes long for a name has a turn for each, and is refused when these are too many. */
static void an_expression_that_takes_long(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char format[220];
    memset(format, 'a', 100);
    snprintf(format + 100, sizeof format - 100, "%%u");
    make_ids(rig, 0, 20, format);
    ask_for(rig, 1, ".*.*[bc]", (struct slice){0});
    unsigned turns = 1;
    while (turn(rig), is_listing(rig))
        turns++;
    assert_true(turns >= 20);
    assert_int_equal(told(rig)->number, TXN_DONE);
    assert_int_equal(told(rig)->fields.len, 0);
    rig_clear(rig);
    make_ids(rig, 20, 1100, format);
    ask_for(rig, 1, ".*.*[bc]", (struct slice){0});
    while (turn(rig), is_listing(rig))
        ;
    assert_int_equal(told(rig)->number, TXN_BAD_NAME);
    assert_int_equal(told(rig)->fields.len, 0);
    drop(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_are_served_meanwhile),   cmocka_unit_test(ids_come_and_go),
        cmocka_unit_test(many_that_are_named),           cmocka_unit_test(nobody_listens),
        cmocka_unit_test(an_expression_that_takes_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
