/* Who may do what in the SQL server, and what becomes of queries whose vhost or owner goes. */
#include "sql/server/rig_test.h"

#include "sql/server/run.h"

#define STREAM "CREATE STREAM s (id BIGINT) WITH (topic = 'in')"
#define EVE 2u

/* Somebody who may read what begins with r, and write all; her session is open. */
static void let_in(struct world *w, const char *vhost, const char *reads)
{
    struct broker *b = w->rig->b;
    struct slice name = slice_str("eve"), every = slice_str(".*");
    char text[300];
    struct user *eve = user_find(b, name);
    if (!eve) {
        assert_true(user_put(b, name, slice_str(""), slice_str(""), true));
        eve = user_find(b, name);
        assert_true(log_object(b, &eve->object));
    }
    struct vhost *v = vhost_find(b, slice_str(vhost));
    assert_true(permission_put(b, eve, v, every, every, slice_str(reads), text, sizeof text) &&
                log_object(b, &permission_find(eve, v, NULL)->object));
    assert_true(rig_ask(w->rig, CMD_SESSION_OPEN, EVE, 0, "eve", "test", NULL, (struct slice){0}, ASK_LOOPBACK));
    assert_true(rig_ask(w->rig, CMD_LOGIN, EVE, 0, "eve", NULL, NULL, (struct slice){0}, ASK_LOOPBACK | ASK_CERTIFIED));
    assert_true(rig_ask(w->rig, CMD_ENTER, EVE, 0, vhost, NULL, NULL, (struct slice){0}, 0));
    assert_string_equal(rig_error(w->rig), "");
}

static void says(struct world *w, uint32_t who, const char *text, const char *expected)
{
    say_as(w, who, text);
    if (strcmp(w->said, expected) != 0)
        rig_fail("%s\nsaid:\n%s\nexpected:\n%s", text, w->said, expected);
    assert_true(w->ended);
}

#define NO_RIGHT                                                                                                       \
    "{\"error\":{\"code\":\"42501\",\"message\":\"the user may not read the stream in\",\"line\":1,\"column\":1}}\n"

/* No table begins for who may not read it, whatever the query; nor for a stream that is gone. */
static void test_select(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, STREAM "; CREATE STREAM r (id BIGINT)");
    let_in(w, "/", "^r");
    says(w, EVE, "SELECT id FROM s", NO_RIGHT);
    says(w, EVE, "SELECT id FROM s LIMIT 0", NO_RIGHT);
    says(w, EVE, "SELECT id FROM s EMIT CHANGES", NO_RIGHT);
    says(w, EVE, "SELECT id FROM r",
         "{\"statement\":0,\"columns\":[{\"name\":\"id\",\"type\":\"BIGINT\"}]}\n{\"done\":\"SELECT\",\"rows\":0}\n");
    assert_true(rig_ask(w->rig, CMD_STREAM_DELETE, 1, 0, "in", NULL, NULL, (struct slice){0}, 0));
    says(w, 1, "SELECT id FROM s",
         "{\"error\":{\"code\":\"42P01\",\"message\":\"there is no stream in\",\"line\":1,\"column\":1}}\n");
    world_free(w);
}

#define NO_SIGHT "{\"error\":{\"code\":\"42501\",\"message\":\"the user may not read in\",\"line\":1,\"column\":1}}\n"

/* Nor is said which columns there are, by whatever name; of what is his own, and of what he may read, all is. */
static void test_columns(void **state)
{
    static const char *const texts[] = {"DESCRIBE s",
                                        "DESCRIBE v",
                                        "SHOW COLUMNS FROM s",
                                        "SHOW CREATE s",
                                        "SHOW CREATE v",
                                        "DESCRIBE q",
                                        "EXPLAIN SELECT id FROM s",
                                        "EXPLAIN SELECT id FROM r UNION ALL SELECT id FROM v"};
    struct world *w = world_new();
    (void)state;
    say(w,
        STREAM "; CREATE STREAM r (id BIGINT); CREATE VIEW v AS SELECT id FROM s; CREATE SINK q WITH (queue = 'q') AS "
               "SELECT id FROM s; CREATE STREAM rs AS SELECT id FROM s; CREATE STREAM j (id BIGINT) FROM QUEUE 'jobs'");
    let_in(w, "/", "^r");
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        says(w, EVE, texts[i], NO_SIGHT);
    static const char *const columns = "{\"statement\":0,\"columns\":[{\"name\":\"column\",\"type\":\"TEXT\"},{"
                                       "\"name\":\"type\",\"type\":\"TEXT\"}]}\n"
                                       "{\"row\":[\"id\",\"BIGINT\"]}\n{\"done\":\"DESCRIBE\",\"rows\":1}\n";
    says(w, EVE, "DESCRIBE r", columns);
    says(w, EVE, "DESCRIBE rs", columns); /* of a query the columns are those of what it writes */
    says(w, 1, "DESCRIBE q", columns);
    says(w, 1, "DESCRIBE j", columns);
    say_as(w, EVE, "DESCRIBE j");
    assert_non_null(strstr(w->said, "the user may not read jobs"));
    say_as(w, EVE, "SHOW CREATE r");
    assert_non_null(strstr(w->said, "CREATE STREAM r"));
    say_as(w, EVE, "EXPLAIN SELECT id FROM r");
    assert_non_null(strstr(w->said, "\"scan\""));
    assert_true(rig_ask(w->rig, CMD_STREAM_DELETE, 1, 0, "in", NULL, NULL, (struct slice){0}, 0));
    says(w, EVE, "DESCRIBE s", NO_SIGHT);
    says(w, 1, "DESCRIBE s", columns);
    world_free(w);
}

/* A query is not made for who may not read what it reads: it would fail, and what it was to write would tell the columns. */
static void test_queries(void **state)
{
    static const char *const texts[] = {"CREATE STREAM mine AS SELECT * FROM s",
                                        "CREATE STREAM mine AS SELECT id FROM r UNION ALL SELECT id FROM v",
                                        "CREATE SINK mine WITH (queue = 'q') AS SELECT id FROM s",
                                        "CREATE MATERIALIZED VIEW mine AS SELECT COUNT(*) AS n FROM v",
                                        "CREATE OR REPLACE STREAM own AS SELECT id FROM s",
                                        "INSERT INTO r SELECT id FROM s"};
    struct world *w = world_new();
    (void)state;
    say(w, STREAM "; CREATE STREAM r (id BIGINT); CREATE VIEW v AS SELECT id FROM s");
    let_in(w, "/", "^(r|mine|own)");
    say_as(w, EVE, "CREATE STREAM own AS SELECT id FROM r");
    assert_non_null(strstr(w->said, "\"done\""));
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        says(w, EVE, texts[i], NO_SIGHT);
    assert_null(server_object_find(w->server, "/", slice_str("mine")));
    assert_int_equal(queue_id(w->rig, "mine"), 999999); /* nor was a stream made */
    assert_int_equal(w->server->run_count, 1);
    world_free(w);
}

/* Queries that stand at the same place are fetched for together only when they have the rights of one user. */
static void test_fetched_by_right(void **state)
{
    struct world *w = world_new();
    const struct run_block *asked[3];
    static const char *const names[] = {"mine", "mine_too", "hers"};
    (void)state;
    let_in(w, "/", ".*");
    say(w, STREAM "; CREATE STREAM mine AS SELECT id FROM s; CREATE STREAM mine_too AS SELECT id FROM s");
    say_as(w, EVE, "CREATE STREAM hers AS SELECT id FROM s");
    rest(w);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        asked[i] = server_object_find(w->server, "/", slice_str(names[i]))->run->sources[0].partitions[0].asked;
        assert_non_null(asked[i]);
    }
    assert_ptr_equal(asked[0], asked[1]);
    assert_ptr_not_equal(asked[0], asked[2]);
    world_free(w);
}

static void test_owners_and_administrators(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, STREAM "; CREATE STREAM t AS SELECT id FROM s");
    let_in(w, "/", ".*");
    say_as(w, EVE, "DROP STREAM t");
    assert_non_null(strstr(w->said, "\"42501\",\"message\":\"t belongs to guest\""));
    say_as(w, EVE, "PAUSE t");
    assert_non_null(strstr(w->said, "\"42501\""));
    say_as(w, EVE, "CREATE STREAM u AS SELECT id FROM s");
    says(w, 1, "PAUSE u", "{\"done\":\"PAUSE\",\"name\":\"u\"}\n");
    says(w, 1, "RESUME u", "{\"done\":\"RESUME\",\"name\":\"u\"}\n");
    say(w, "SHOW QUERIES LIKE 'u'");
    assert_non_null(strstr(w->said, "\"u\",\"RUNNING\""));
    assert_non_null(strstr(w->said, "\"eve\"")); /* it is still hers */
    say(w, "CREATE OR REPLACE STREAM u AS SELECT id + 1 AS id FROM s");
    assert_non_null(strstr(w->said, "u belongs to eve"));
    says(w, 1, "DROP STREAM u", "{\"done\":\"DROP STREAM\",\"name\":\"u\"}\n");
    world_free(w);
}

static void delete_vhost(struct world *w, const char *name)
{
    struct vhost *vhost = vhost_find(w->rig->b, slice_str(name));
    (void)log_object_gone(w->rig->b, &vhost->object);
    vhost_delete(w->rig->b, vhost);
}

static void vhost_for(struct world *w)
{
    struct vhost *vhost = vhost_put(w->rig->b, slice_str("v"), (struct slice){0});
    assert_true(vhost && log_object(w->rig->b, &vhost->object));
    let_in(w, "v", ".*");
}

/* Its statements are gone at once and their queries end; what stands in other vhosts goes on. */
static void test_vhost_goes(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, STREAM "; CREATE STREAM t AS SELECT id FROM s");
    vhost_for(w);
    say_as(w, EVE, STREAM "; CREATE VIEW v AS SELECT id FROM s; CREATE STREAM t AS SELECT id FROM v");
    rest(w);
    assert_int_equal(w->server->run_count, 2);
    delete_vhost(w, "v");
    rest(w);
    assert_int_equal(w->server->run_count, 1);
    rig_plain(w->rig, CMD_SESSION_CLOSE, EVE, 0, 0, 0);
    rest(w);
    vhost_for(w);
    say_as(w, EVE, "SHOW QUERIES; SHOW STREAMS");
    assert_null(strstr(w->said, "{\"row\""));
    say_as(w, EVE, STREAM);
    assert_string_equal(w->said, "{\"done\":\"CREATE STREAM\",\"name\":\"s\"}\n");
    say(w, "SHOW QUERIES");
    assert_non_null(strstr(w->said, "\"t\",\"RUNNING\""));
    world_free(w);
}

/* While what was made in it is not durable yet. */
static void test_vhost_goes_early(void **state)
{
    struct world *w = world_new();
    (void)state;
    vhost_for(w);
    w->rig->hold = true;
    say_as(w, EVE, "CREATE STREAM s (id BIGINT)");
    assert_false(w->ended);
    delete_vhost(w, "v");
    w->rig->hold = false;
    rest(w);
    assert_true(list_empty(&w->server->objects));
    world_free(w);
}

/* What somebody owns who is not there any more has no rights: it has failed, and says why; others may drop it. */
static void test_owner_goes(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, STREAM);
    let_in(w, "/", ".*");
    say_as(w, EVE, "CREATE STREAM t AS SELECT id FROM s");
    rest(w);
    struct user *eve = user_find(w->rig->b, slice_str("eve"));
    (void)log_object_gone(w->rig->b, &eve->object);
    user_delete(w->rig->b, eve);
    rest(w);
    struct world *old = w;
    for (unsigned i = 0; i < 2; i++) {
        say(w, "SHOW QUERIES");
        if (!strstr(w->said, "[\"t\",\"FAILED\"") || !strstr(w->said, "\"eve\",\"user was deleted\"]"))
            rig_fail("%s", w->said);
        w = i == 0 ? world_cut(old, old->rig->log->count) : w;
    }
    say(w, "RESUME t");
    rest(w);
    say(w, "SHOW QUERIES");
    if (!strstr(w->said, "[\"t\",\"FAILED\""))
        rig_fail("%s", w->said);
    says(w, 1, "DROP STREAM t", "{\"done\":\"DROP STREAM\",\"name\":\"t\"}\n");
    world_free(w);
    world_free(old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_select),
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_queries),
        cmocka_unit_test(test_fetched_by_right),
        cmocka_unit_test(test_owners_and_administrators),
        cmocka_unit_test(test_vhost_goes),
        cmocka_unit_test(test_vhost_goes_early),
        cmocka_unit_test(test_owner_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
