/* Numbered producers of a partition: what is new, what is a duplicate, what is wrong, and what a record keeps of it. */
#include "core/producer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct producers all;

static int begin(void **state)
{
    (void)state;
    producers_init(&all, 7);
    return 0;
}

static int end(void **state)
{
    (void)state;
    producers_fini(&all);
    return 0;
}

static enum produce_result take_new(int16_t epoch, int32_t first, int32_t last, uint64_t offset, bool from_zero)
{
    struct producer_batch before = {.offset = UINT64_MAX}, batch = {first, last, offset, (wall_t)offset};
    enum produce_result result = producers_check(&all, 5, epoch, first, last, from_zero, &before);
    if (result == PRODUCE_OK)
        assert_true(producers_note(&all, 5, epoch, &batch));
    if (result == PRODUCE_DUPLICATE)
        assert_int_equal(before.offset, offset);
    return result;
}

static enum produce_result take(int16_t epoch, int32_t first, int32_t last, uint64_t offset)
{
    return take_new(epoch, first, last, offset, false);
}

static void the_last_five_are_duplicates(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 7; i++)
        assert_int_equal(take(0, i * 10, i * 10 + 9, (uint64_t)i), PRODUCE_OK);
    for (int32_t i = 2; i < 7; i++)
        assert_int_equal(take(0, i * 10, i * 10 + 9, (uint64_t)i), PRODUCE_DUPLICATE);
    assert_int_equal(take(0, 10, 19, 1), PRODUCE_OUT_OF_ORDER);
    assert_int_equal(take(0, 60, 68, 6), PRODUCE_OUT_OF_ORDER); /* not exactly the same */
    assert_int_equal(take(0, 71, 71, 7), PRODUCE_OUT_OF_ORDER);
    assert_int_equal(take(0, 70, 70, 7), PRODUCE_OK);
}

static void an_unknown_one_may_begin_anywhere(void **state)
{
    (void)state;
    assert_int_equal(take(3, 1234, 1234, 0), PRODUCE_OK);
    assert_int_equal(take(3, 1235, 1235, 1), PRODUCE_OK);
}

/* In a transaction of a client that speaks KIP-890: what is behind was forgotten only when there is nothing. */
static void who_is_held_to_it_begins_at_zero(void **state)
{
    (void)state;
    assert_int_equal(take_new(3, 1, 1, 0, true), PRODUCE_OUT_OF_ORDER);
    assert_int_equal(all.map.count, 0);
    assert_int_equal(take_new(3, 0, 0, 0, true), PRODUCE_OK);
    assert_int_equal(take_new(3, 1, 1, 1, true), PRODUCE_OK);
}

/* An end by the time-out gives an epoch of which there is no batch yet. */
static void an_epoch_without_batches_begins_at_zero(void **state)
{
    (void)state;
    uint64_t first;
    assert_int_equal(take(1, 0, 4, 0), PRODUCE_OK);
    assert_true(producers_open(&all, 5, 1, 0));
    assert_true(producers_close(&all, 5, 2, &first));
    assert_int_equal(take(2, 5, 5, 6), PRODUCE_OUT_OF_ORDER);
    assert_int_equal(take(2, 0, 0, 6), PRODUCE_OK);
}

static void sequences_wrap(void **state)
{
    (void)state;
    assert_int_equal(take(0, INT32_MAX - 1, INT32_MAX, 0), PRODUCE_OK);
    assert_int_equal(take(0, 0, 4, 1), PRODUCE_OK);
    assert_int_equal(take(0, INT32_MAX - 1, INT32_MAX, 0), PRODUCE_DUPLICATE);
}

static void epochs_rise(void **state)
{
    (void)state;
    assert_int_equal(take(1, 0, 4, 0), PRODUCE_OK);
    assert_int_equal(take(0, 5, 5, 1), PRODUCE_OLD_EPOCH);
    assert_int_equal(take(2, 5, 5, 1), PRODUCE_OUT_OF_ORDER);
    assert_int_equal(take(2, 0, 0, 1), PRODUCE_OK);
    assert_int_equal(take(1, 5, 5, 2), PRODUCE_OLD_EPOCH);
    assert_int_equal(take(2, 1, 1, 2), PRODUCE_OK);
}

static void the_silent_are_forgotten(void **state)
{
    (void)state;
    struct producer_batch before;
    for (int64_t id = 0; id < 10; id++) {
        struct producer_batch batch = {0, 0, (uint64_t)id, 1000 + id};
        assert_int_equal(producers_check(&all, id, 0, 0, 0, false, &before), PRODUCE_OK);
        assert_true(producers_note(&all, id, 0, &batch));
    }
    producers_expire(&all, 1003, 100);
    assert_int_equal(all.map.count, 7);
    producers_expire(&all, 0, 2);
    assert_int_equal(all.map.count, 2);
    assert_int_equal(producers_check(&all, 9, 0, 0, 0, false, &before), PRODUCE_DUPLICATE);
    assert_int_equal(producers_check(&all, 8, 0, 0, 0, false, &before), PRODUCE_DUPLICATE);
    assert_int_equal(producers_check(&all, 7, 0, 5, 5, false, &before), PRODUCE_OK);
}

/* However many have a transaction open, a look passes a few of them, and the next one goes on behind them. */
static void the_open_are_passed_over(void **state)
{
    (void)state;
    struct producer_batch before;
    for (int64_t id = 0; id < 101; id++) {
        struct producer_batch batch = {0, 0, (uint64_t)id, 1000};
        assert_int_equal(producers_check(&all, id, 0, 0, 0, false, &before), PRODUCE_OK);
        assert_true(producers_note(&all, id, 0, &batch));
        assert_true(id == 100 || producers_open(&all, id, 0, (uint64_t)id));
    }
    unsigned calls = 0;
    for (; producers_knows(&all, 100); calls++) {
        struct list *first = all.by_age.next;
        for (unsigned i = 0; i < 8; i++)
            first = first->next;
        producers_expire(&all, 2000, 1000);
        assert_true(all.by_age.next == first || !producers_knows(&all, 100));
    }
    assert_int_equal(calls, 13);
    assert_int_equal(all.map.count, 100);
    uint64_t at;
    assert_true(producers_close(&all, 50, 0, &at)); /* and who is over is found among those that are not */
    for (unsigned i = 0; i < 13; i++)
        producers_expire(&all, 2000, 1000);
    assert_int_equal(all.map.count, 99);
}

static void a_record_takes_the_place_of_what_was_known(void **state)
{
    (void)state;
    uint8_t bytes[PRODUCER_BYTES_MAX];
    struct writer w = writer_of(bytes, sizeof bytes);
    struct producers other;
    for (int32_t i = 0; i < 6; i++)
        assert_int_equal(take(2, i, i, (uint64_t)i), PRODUCE_OK);
    producer_put(&w, LIST_FIRST(&all.by_age, struct producer, link));
    assert_true(writer_ok(&w));
    producers_init(&other, 1);
    struct producer_batch last = {5, 5, 5, 5}, before;
    assert_true(producers_note(&other, 5, 2, &last)); /* a replay has seen the last one only */
    struct reader r = reader_of(writer_slice(&w));
    assert_true(producer_read(&other, &r) && reader_done(&r));
    for (int32_t i = 1; i < 6; i++) {
        assert_int_equal(producers_check(&other, 5, 2, i, i, false, &before), PRODUCE_DUPLICATE);
        assert_int_equal(before.offset, i);
    }
    for (size_t len = 0; len < w.len; len++) {
        r = reader_of(slice_of(bytes, len));
        assert_false(producer_read(&other, &r));
    }
    producers_fini(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_last_five_are_duplicates, begin, end),
        cmocka_unit_test_setup_teardown(an_unknown_one_may_begin_anywhere, begin, end),
        cmocka_unit_test_setup_teardown(who_is_held_to_it_begins_at_zero, begin, end),
        cmocka_unit_test_setup_teardown(an_epoch_without_batches_begins_at_zero, begin, end),
        cmocka_unit_test_setup_teardown(sequences_wrap, begin, end),
        cmocka_unit_test_setup_teardown(epochs_rise, begin, end),
        cmocka_unit_test_setup_teardown(the_silent_are_forgotten, begin, end),
        cmocka_unit_test_setup_teardown(the_open_are_passed_over, begin, end),
        cmocka_unit_test_setup_teardown(a_record_takes_the_place_of_what_was_known, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
