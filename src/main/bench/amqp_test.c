/* Runs the load generator as a user would, against its own sink: it works, and it says no when it must. */
#include "amqp.h"
#include "amqp_int.h"
#include "sink.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { WORDS_MAX = 32 };

/* Splits at spaces; no word of ours has one. */
static int bench(const char *words)
{
    char text[512], *argv[WORDS_MAX] = {(char *)"millrace bench amqp"}, *rest = text;
    int argc = 1;
    snprintf(text, sizeof(text), "%s", words);
    for (char *word; argc < WORDS_MAX - 1 && (word = strsep(&rest, " ")) != NULL;)
        argv[argc++] = word;
    return bench_amqp_main(argc, argv);
}

static void ceiling_runs_both_ways(void **state)
{
    (void)state;
    assert_int_equal(bench("--scenario sink --duration 0.2 --warmup 0.05 --quiet --json"), BENCH_EXIT_OK);
    assert_int_equal(bench("--scenario sink --duration 0.1 --warmup 0 --quiet --producers 3 --consumers 2 --auto-ack "
                           "--window 0 --size 300000"),
                     BENCH_EXIT_OK);
    assert_int_equal(
        bench("--scenario sink --duration 0.1 --warmup 0 --quiet --size 0 --ack-every 10 --frame-max 4096"),
        BENCH_EXIT_OK);
}

/* The sink swallows what is published, so a consumer of the same queue must be told to miss all of it. */
static void losses_are_found(void **state)
{
    (void)state;
    unsigned port;
    char error[100], words[400];
    struct bench_sink *sink = bench_sink_start(100, 1, &port, error, sizeof(error));
    assert_non_null(sink);
    snprintf(words, sizeof(words), "--uri amqp://127.0.0.1:%u --messages 500 --quiet --json --drain 0.2", port);
    assert_int_equal(bench(words), BENCH_EXIT_VIOLATION);
    snprintf(words, sizeof(words), "--uri amqp://127.0.0.1:%u --messages 500 --consumers 0 --quiet --json", port);
    assert_int_equal(bench(words), BENCH_EXIT_OK);
    snprintf(words, sizeof(words), "--uri amqp://127.0.0.1:%u --scenario declare --queues 20 --quiet", port);
    assert_int_equal(bench(words), BENCH_EXIT_OK);
    snprintf(words, sizeof(words), "--uri amqp://127.0.0.1:%u --scenario connect --connections 20 --quiet", port);
    assert_int_equal(bench(words), BENCH_EXIT_OK);
    snprintf(words, sizeof(words), "--uri amqp://127.0.0.1:%u --scenario latency --messages 50 --probe . --quiet",
             port);
    assert_int_equal(bench(words), BENCH_EXIT_OK);
    bench_sink_stop(sink, NULL);
    assert_int_equal(bench(words), BENCH_EXIT_FAILED); /* nobody listens there any more */
}

/* The sink's deliveries are those of a run that is not ours: each consumer takes its share of them and stops. */
static void what_is_there_is_read(void **state)
{
    (void)state;
    unsigned port;
    char error[100], words[400];
    struct bench_sink *sink = bench_sink_start(100, 1, &port, error, sizeof(error));
    assert_non_null(sink);
    snprintf(words, sizeof(words),
             "--uri amqp://127.0.0.1:%u --producers 0 --consumers 3 --messages 5000 --queue q --quiet --json", port);
    assert_int_equal(bench(words), BENCH_EXIT_OK);
    bench_sink_stop(sink, NULL);
}

static void contradictions_are_wrong_usage(void **state)
{
    (void)state;
    assert_int_equal(bench("--producers 0 --consumers 0"), BENCH_EXIT_USAGE);
    assert_int_equal(bench("--prefetch 10 --ack-every 11"), BENCH_EXIT_USAGE);
    assert_int_equal(bench("--uri amqp://h:65000 --port-offset 3900"), BENCH_EXIT_USAGE);
}

static void disk_probe_measures(void **state)
{
    (void)state;
    assert_int_equal(bench("--scenario fdatasync --data . --messages 5 --quiet --json"), BENCH_EXIT_OK);
    assert_int_equal(bench("--scenario fdatasync --data ./no/such/folder"), BENCH_EXIT_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ceiling_runs_both_ways), cmocka_unit_test(losses_are_found),
        cmocka_unit_test(what_is_there_is_read),  cmocka_unit_test(contradictions_are_wrong_usage),
        cmocka_unit_test(disk_probe_measures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
