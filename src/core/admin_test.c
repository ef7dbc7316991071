/* What administrators see of connections: clients', never the broker's own sessions. */
#include "core/broker_words_test.h"

#define OWN 7u

enum {
#define ADMIN(name, operands) OP_##name,
#include "core/admin.def"
#undef ADMIN
};

static void ask_admin(struct rig *rig, uint64_t operation, uint64_t number)
{
    struct ask *ask = ask_new((struct slice){0}, (struct slice){0}, (struct slice){0}, (struct slice){0});
    assert_non_null(ask);
    ask->number = number;
    rig_clear(rig);
    struct command *c =
        rig_command(rig, 0, CMD_ADMIN, OWN + 1, 0); /* as the control socket: its session comes with it */
    c->ask = ask;
    c->number = operation;
    rig_step(rig);
}

static void own_sessions_are_no_connections(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct broker_totals totals;
    assert_true(
        rig_ask(rig, CMD_SESSION_OPEN, OWN, 0, "sql", "SQL", NULL, (struct slice){0}, ASK_LOOPBACK | ASK_INTERNAL));
    ask_admin(rig, OP_SESSION_LIST, 0);
    assert_int_equal(rig_count(rig, EFF_ROW), 1);
    broker_totals(rig->b, &totals);
    assert_int_equal(totals.connections, 1);
    assert_int_equal(totals.sessions, 3);
    ask_admin(rig, OP_SESSION_CLOSE, OWN);
    assert_string_equal(rig_error(rig), "403 7 is no connection of a client, but the broker's own");
    assert_int_equal(rig_count(rig, EFF_SESSION_KICK), 0);
    ask_admin(rig, OP_SESSION_CLOSE, 1);
    assert_string_equal(rig_error(rig), "");
    rig_plain(rig, CMD_SESSION_CLOSE, OWN, 0, 0, 0);
    rig_plain(rig, CMD_SESSION_CLOSE, OWN + 1, 0, 0, 0);
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(own_sessions_are_no_connections)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
