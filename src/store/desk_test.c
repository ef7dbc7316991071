/* desk: jobs are bounded between submit and take, in order, and none is lost when the thread is stopped. */
#include "store/desk.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { JOBS_MAX = 8 };

struct clerk {
    struct desk desk;
    unsigned turns, done;
    bool drops;
};

static bool turn(void *arg)
{
    struct clerk *clerk = arg;
    void *job = desk_next(&clerk->desk);
    clerk->turns++;
    if (!job)
        return false;
    clerk->done++;
    if (clerk->drops)
        desk_drop(&clerk->desk);
    else
        desk_finish(&clerk->desk, job);
    return true;
}

static int64_t wait_ns(void *arg)
{
    (void)arg;
    return -1;
}

static void clerk_init(struct clerk *clerk)
{
    *clerk = (struct clerk){.desk = {.turn = turn, .wait_ns = wait_ns}};
    clerk->desk.arg = clerk;
    assert_true(desk_init(&clerk->desk, JOBS_MAX));
}

static void jobs_are_bounded_and_in_order(void **state)
{
    (void)state;
    int jobs[JOBS_MAX + 1];
    struct clerk clerk;
    clerk_init(&clerk);
    assert_null(desk_take(&clerk.desk));
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < JOBS_MAX; i++)
            assert_true(desk_submit(&clerk.desk, &jobs[i]));
        assert_false(desk_submit(&clerk.desk, &jobs[JOBS_MAX]));
        while (turn(&clerk))
            continue;
        assert_true(desk_untaken(&clerk.desk));
        assert_false(desk_submit(&clerk.desk, &jobs[JOBS_MAX])); /* finished ones count until they are taken */
        for (unsigned i = 0; i < JOBS_MAX; i++)
            assert_ptr_equal(desk_take(&clerk.desk), &jobs[i]);
        assert_false(desk_untaken(&clerk.desk));
    }
    clerk.drops = true;
    for (unsigned i = 0; i < 3 * JOBS_MAX; i++) {
        assert_true(desk_submit(&clerk.desk, &jobs[0])); /* what was dropped does not count */
        turn(&clerk);
    }
    assert_false(desk_stop(&clerk.desk));
    desk_fini(&clerk.desk);
    assert_int_equal(mem_in_use(), 0);
}

static void a_stopped_thread_has_done_everything(void **state)
{
    (void)state;
    int job;
    for (unsigned round = 0; round < 200; round++) {
        struct clerk clerk;
        clerk_init(&clerk);
        assert_int_equal(desk_start(&clerk.desk, "desk"), 0);
        for (unsigned i = 0; i < JOBS_MAX; i++) {
            assert_true(desk_submit(&clerk.desk, &job));
            if (i % 3 == round % 3)
                desk_wake(&clerk.desk);
        }
        assert_true(desk_stop(&clerk.desk));
        assert_int_equal(clerk.done, JOBS_MAX);
        for (unsigned i = 0; i < JOBS_MAX; i++)
            assert_non_null(desk_take(&clerk.desk));
        desk_fini(&clerk.desk);
    }
}

static void it_looks_again_while_there_is_something(void **state)
{
    (void)state;
    int job;
    struct clerk clerk;
    struct slab_heap heap = {.bytes = 0};
    clerk_init(&clerk);
    assert_int_equal(desk_wait_ns(&clerk.desk, &heap), -1);
    heap.bytes = 3u << 20;
    assert_true(desk_wait_ns(&clerk.desk, &heap) > NS_PER_MS);
    assert_true(desk_submit(&clerk.desk, &job) && turn(&clerk));
    assert_int_equal(desk_wait_ns(&clerk.desk, &heap), NS_PER_MS);
    assert_non_null(desk_take(&clerk.desk));
    desk_fini(&clerk.desk);
}

static void without_memory(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth <= 2; nth++) {
        struct desk desk = {.jobs_max = 0};
        mem_fail_at(nth, false);
        assert_false(desk_init(&desk, JOBS_MAX));
        mem_fail_at(0, false);
        assert_null(desk_take(&desk));
        assert_null(desk_next(&desk));
        desk_fini(&desk);
    }
    assert_int_equal(mem_in_use(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_bounded_and_in_order),
        cmocka_unit_test(a_stopped_thread_has_done_everything),
        cmocka_unit_test(it_looks_again_while_there_is_something),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
