/* Queries that read the same stream: fetched once and scanned once, and each gives what it would give alone. */
#include "sql/server/rig_test.h"

#include "sql/server/run.h"

#define STREAM "CREATE STREAM s (id BIGINT, name TEXT, n INT, must INT NOT NULL) WITH (topic = 'in')"

static struct server_run *run_of(struct world *w, const char *name)
{
    struct server_object *o = server_object_find(w->server, "/", slice_str(name));
    assert_non_null(o);
    assert_non_null(o->run);
    return o->run;
}

static struct run_partition *partition_of(struct world *w, const char *name)
{
    return &run_of(w, name)->sources[0].partitions[0];
}

static unsigned feeds(const struct world *w)
{
    unsigned count = 0;
    LIST_EACH(&w->server->feeds, node, after)
    count++;
    return count;
}

static void test_fetched_once(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, STREAM "; CREATE STREAM a AS SELECT id FROM s WHERE id > 1; CREATE STREAM b AS SELECT name FROM s; "
                  "CREATE STREAM c AS SELECT COUNT(*) AS many FROM s EMIT CHANGES");
    rest(w);
    assert_int_equal(feeds(w), 1);
    const struct run_block *asked = partition_of(w, "a")->asked;
    assert_non_null(asked);
    assert_ptr_equal(partition_of(w, "b")->asked, asked);
    assert_ptr_equal(partition_of(w, "c")->asked, asked);
    assert_int_equal(asked->refs, 3);
    put(w->rig, "in", "{\"id\":1,\"name\":\"x\\u0079\",\"must\":1}");
    put(w->rig, "in", "{\"id\":2,\"must\":1}");
    rest(w);
    assert_string_equal(records_of(w, "a"), "{\"id\":2}\n");
    assert_string_equal(records_of(w, "b"), "{\"name\":\"xy\"}\n{\"name\":null}\n");
    assert_ptr_equal(partition_of(w, "b")->asked, partition_of(w, "a")->asked);
    say(w, "DROP QUERY a; DROP QUERY c");
    rest(w);
    assert_int_equal(partition_of(w, "b")->asked->refs, 1);
    put(w->rig, "in", "{\"id\":3,\"name\":\"z\",\"must\":1}");
    rest(w);
    assert_string_equal(records_of(w, "b"), "{\"name\":\"xy\"}\n{\"name\":null}\n{\"name\":\"z\"}\n");
    say(w, "DROP QUERY b");
    rest(w);
    assert_int_equal(feeds(w), 0);
    world_free(w);
}

/* A value that does not fit is a fault for who wants it, a record that is no JSON for everybody. */
static void test_faults_are_its_own(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, STREAM "; CREATE STREAM a WITH (on_error = 'skip') AS SELECT id FROM s; CREATE STREAM b WITH (on_error = "
                  "'skip') AS SELECT n, id FROM s; CREATE STREAM c WITH (on_error = 'skip') AS SELECT must FROM s; "
                  "CREATE STREAM d WITH (on_error = 'skip') AS SELECT 'x' AS x FROM s");
    rest(w);
    put(w->rig, "in", "{\"id\":1,\"n\":1,\"must\":1}");
    put(w->rig, "in", "{\"id\":2,\"n\":\"many\"}");
    put(w->rig, "in", "{\"id\":3,\"n\":3");
    put(w->rig, "in", "{\"id\":\"four\",\"n\":4,\"must\":4}");
    rest(w);
    assert_string_equal(records_of(w, "a"), "{\"id\":1}\n{\"id\":2}\n");
    assert_string_equal(records_of(w, "b"), "{\"n\":1,\"id\":1}\n");
    assert_string_equal(records_of(w, "c"), "{\"must\":1}\n{\"must\":4}\n");
    assert_string_equal(records_of(w, "d"), "{\"x\":\"x\"}\n{\"x\":\"x\"}\n{\"x\":\"x\"}\n");
    assert_int_equal(run_of(w, "a")->skipped, 2);
    assert_int_equal(run_of(w, "b")->skipped, 3);
    world_free(w);
}

/* One that has fallen behind fetches for itself, and is with the others again when it stands where they do. */
static void test_one_that_was_away(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, STREAM "; CREATE STREAM a AS SELECT id FROM s; CREATE STREAM b AS SELECT id FROM s");
    put(w->rig, "in", "{\"id\":1,\"must\":1}");
    rest(w);
    say(w, "PAUSE b");
    put(w->rig, "in", "{\"id\":2,\"must\":1}");
    rest(w);
    put(w->rig, "in", "{\"id\":3,\"must\":1}");
    rest(w);
    assert_string_equal(records_of(w, "b"), "{\"id\":1}\n");
    say(w, "RESUME b");
    rest(w);
    assert_string_equal(records_of(w, "b"), records_of(w, "a"));
    assert_ptr_equal(partition_of(w, "b")->asked, partition_of(w, "a")->asked);
    world_free(w);
}

#define MANY 2500u

static void check_ids(const struct world *w, const char *stream, unsigned from)
{
    const struct rig_streams *all = w->rig->log->streams;
    uint64_t id = queue_id(w->rig, stream);
    unsigned next = from;
    char expected[40];
    for (size_t i = 0; i < all->count; i++) {
        struct slice body = msg_body(all->records[i].msg);
        if (all->records[i].stream != id)
            continue;
        int len = snprintf(expected, sizeof expected, "{\"id\":%u", next++);
        assert_true(body.len > (size_t)len && memcmp(body.ptr, expected, (size_t)len) == 0);
    }
    assert_int_equal(next, MANY);
}

static bool asleep(struct rig *rig)
{
    (void)rig;
    return false;
}

/* One of them takes nothing in two turns of three, as if its outputs had to wait. */
static void hinder(struct world *w)
{
    run_of(w, "wide")->over = w->count++ % 3 != 0;
    w->awake = true;
}

/* Of three, one has to wait within a block; when it comes, the others are further on. None loses or repeats a row. */
static void test_one_that_waits(void **state)
{
    struct world *w = world_new();
    char body[100];
    (void)state;
    say(w, STREAM);
    say(w, "CREATE STREAM wide AS SELECT id, name, must FROM s");
    say(w, "CREATE STREAM a AS SELECT id FROM s; CREATE STREAM b AS SELECT id, name FROM s");
    rest(w);
    w->rig->engine = asleep; /* all find it at once */
    w->rig->starved = true;
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(body, sizeof body, "{\"id\":%u,\"name\":\"abcd\",\"must\":1}", i);
        put(w->rig, "in", body);
    }
    w->meanwhile = hinder;
    w->rig->engine = engine;
    w->rig->starved = false;
    for (unsigned i = 0; i < 100; i++)
        rest(w);
    rig_pass(w->rig, 2000);
    check_ids(w, "a", 0);
    check_ids(w, "b", 0);
    check_ids(w, "wide", 0);
    assert_ptr_equal(partition_of(w, "wide")->asked, partition_of(w, "a")->asked);
    world_free(w);
}

/* Each allocation of each turn fails once: who cannot share does it alone. */
static void test_no_memory(void **state)
{
    static const char made[] =
        STREAM "; CREATE STREAM a AS SELECT id FROM s; CREATE STREAM b AS SELECT id, name FROM s";
    unsigned hits = 0, turns = 40;
    (void)state;
    for (unsigned turn = 1; turn < turns; turn++)
        for (uint64_t n = 1, more = 1; more; n++) {
            struct world *w = world_new();
            say(w, made);
            rest(w);
            w->fail_turn = w->turn + turn;
            w->fail_at = n;
            for (unsigned i = 1; i <= 4; i++) {
                char body[60];
                snprintf(body, sizeof body, "{\"id\":%u,\"name\":\"\\u0061\",\"must\":1}", i);
                put(w->rig, "in", body);
                rest(w);
                rig_pass(w->rig, 200);
            }
            more = w->hit;
            hits += w->hit;
            say(w, "RESUME a; RESUME b");
            rig_pass(w->rig, 500);
            assert_string_equal(records_of(w, "a"), "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n{\"id\":4}\n");
            assert_string_equal(records_of(w, "b"), "{\"id\":1,\"name\":\"a\"}\n{\"id\":2,\"name\":\"a\"}\n{\"id\":3,"
                                                    "\"name\":\"a\"}\n{\"id\":4,\"name\":\"a\"}\n");
            world_free(w);
        }
    assert_true(hits > 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fetched_once),      cmocka_unit_test(test_faults_are_its_own),
        cmocka_unit_test(test_one_that_was_away), cmocka_unit_test(test_one_that_waits),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
