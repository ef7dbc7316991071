/* sql_engine: one thread, whoever calls first. */
#include "main/sql_engine.h"

#include "base/mem.h"
#include "os/os_sim.h"
#include "os/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

#define ROUNDS 200u

struct start {
    struct sql_engine *engine;
    _Atomic unsigned there;
};

static void wake_core(void *arg)
{
    os_event_set(arg);
}

static void wake_at_once(void *arg)
{
    struct start *start = arg;
    atomic_fetch_add(&start->there, 1);
    while (atomic_load(&start->there) < 2)
        ;
    sql_engine_wake(start->engine);
}

/* Its server opens one session, with which it looks for statements. */
static unsigned sessions_opened(struct port *port)
{
    unsigned count = 0;
    for (struct command *c; (c = ring_peek(&port->commands)); ring_pop(&port->commands)) {
        count += c->type == CMD_SESSION_OPEN;
        mem_free(c->ask);
    }
    return count;
}

/* At the boot the main thread wakes it because of statements, and the core's because of what the server asked then. */
static void started_once(void **state)
{
    struct os_sim *sim = os_sim_new(1);
    struct journal *journal;
    char why[200];
    (void)state;
    struct journal_options journal_options = {.os = os_sim_os(sim), .dir = "/data"};
    assert_int_equal(journal_open(&journal_options, &journal, why, sizeof why), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct port port = {0};
        struct os_thread other;
        struct os_event asked = {0};
        assert_true(ring_init(&port.commands, 64, sizeof(struct command)));
        assert_true(ring_init(&port.effects, 64, sizeof(struct effect)));
        struct sql_engine_options options = {
            .os = os_sim_os(sim), .port = &port, .journal = journal, .wake_core = wake_core, .arg = &asked};
        struct start start = {.engine = sql_engine_open(&options)};
        assert_non_null(start.engine);
        assert_int_equal(os_thread_start(&other, "other", wake_at_once, &start), 0);
        wake_at_once(&start);
        os_thread_join(&other);
        assert_true(os_event_wait(&asked, -1));
        sql_engine_stop(start.engine);
        assert_int_equal(sessions_opened(&port), 1);
        sql_engine_close(&start.engine);
        ring_fini(&port.commands);
        ring_fini(&port.effects);
    }
    journal_close(&journal);
    os_sim_free(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(started_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
