/* Unit test of the timing wheel against a plain array of due times, with random sets, moves and cancels from the past to
 * the end of time: never early, at most two ticks late, nothing lost, and wheel_next neither late nor idle. */
#include "base/wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define TICK (1LL << 20)
#define TIMERS 300

struct model {
    struct wheel wheel;
    struct timer timers[TIMERS];
    mono_t due[TIMERS]; /* MONO_NEVER with set false: not set */
    bool set[TIMERS];
    mono_t set_at[TIMERS]; /* when it was last set: a due before that counts from then */
    mono_t now;
    uint64_t seed;
    unsigned fired, rearm; /* out of 16 firings, how many set a timer again */
};

static uint64_t next_random(struct model *m)
{
    m->seed ^= m->seed << 13;
    m->seed ^= m->seed >> 7;
    m->seed ^= m->seed << 17;
    return m->seed * UINT64_C(0x2545f4914f6cdd1d);
}

/* Any magnitude is as likely as any other; now and then on a tick's edge, in the past, or never. */
static mono_t random_due(struct model *m)
{
    uint64_t shape = next_random(m) % 16;
    mono_t away = (mono_t)(next_random(m) >> (next_random(m) % 48 + 16));
    mono_t due = m->now + away;
    if (shape == 0)
        return m->now - away % (m->now + 1);
    if (shape == 1)
        return MONO_NEVER;
    if (shape < 6)
        return due / TICK * TICK + (mono_t)(next_random(m) % 3) - 1;
    return due;
}

static void set_one(struct model *m, unsigned i)
{
    m->due[i] = random_due(m);
    m->set[i] = true;
    m->set_at[i] = m->now;
    wheel_set(&m->wheel, &m->timers[i], m->due[i]);
    assert_true(timer_is_set(&m->timers[i]));
}

static void on_fire(void *arg, struct timer *timer)
{
    struct model *m = arg;
    unsigned i = (unsigned)(timer - m->timers);
    assert_false(timer_is_set(timer));
    assert_true(m->set[i]);
    if (m->due[i] > m->now)
        fail_msg("early: due %lld at %lld", (long long)m->due[i], (long long)m->now);
    m->set[i] = false;
    m->fired++;
    if (next_random(m) % 16 < m->rearm)
        set_one(m, next_random(m) % 2 ? i : (unsigned)(next_random(m) % TIMERS));
}

static void model_init(struct model *m, uint64_t seed, mono_t now, unsigned rearm)
{
    memset(m, 0, sizeof *m);
    m->seed = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    m->now = now;
    m->rearm = rearm;
    wheel_init(&m->wheel, now);
    for (unsigned i = 0; i < TIMERS; i++)
        timer_init(&m->timers[i], on_fire);
}

static void change_some(struct model *m, unsigned changes)
{
    for (unsigned c = 0; c < changes; c++) {
        unsigned i = (unsigned)(next_random(m) % TIMERS);
        if (next_random(m) % 3) {
            set_one(m, i);
        } else {
            wheel_cancel(&m->wheel, &m->timers[i]);
            m->set[i] = false;
        }
    }
}

/* From when on the timer must have fired: its due time, or the moment it was set when that is later. */
static mono_t wanted_at(const struct model *m, unsigned i)
{
    return m->due[i] > m->set_at[i] ? m->due[i] : m->set_at[i];
}

static void check_nothing_is_late(const struct model *m)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < TIMERS; i++) {
        count += m->set[i];
        assert_int_equal(m->set[i], timer_is_set(&m->timers[i]));
        if (m->set[i] && m->now > 2 * TICK && wanted_at(m, i) < m->now - 2 * TICK)
            fail_msg("late: due %lld set at %lld now %lld", (long long)m->due[i], (long long)m->set_at[i],
                     (long long)m->now);
    }
    assert_int_equal(m->wheel.count, count);
}

/* Not after the tick in which the soonest timer has to fire, and in the future once everything due has fired. */
static mono_t checked_next(const struct model *m)
{
    mono_t next = wheel_next(&m->wheel), soonest = MONO_NEVER;
    bool any = false;
    for (unsigned i = 0; i < TIMERS; i++)
        if (m->set[i]) {
            any = true;
            soonest = wanted_at(m, i) < soonest ? wanted_at(m, i) : soonest;
        }
    if (!any) {
        assert_true(next == MONO_NEVER);
        return next;
    }
    if (soonest < MONO_NEVER - 2 * TICK)
        assert_true(next <= soonest + 2 * TICK);
    assert_true(next > m->now);
    return next;
}

static void turn_all(struct model *m, unsigned max)
{
    while (wheel_turn(&m->wheel, m->now, m, max) == max)
        if (max < 1000)
            assert_true(wheel_next(&m->wheel) == MONO_NEVER || list_empty(&m->wheel.due) ||
                        wheel_next(&m->wheel) <= m->now);
}

/* Turns exactly when wheel_next says, as an event loop without other events does. */
static void turning_at_wheel_next_is_never_early_and_never_late(void **state)
{
    (void)state;
    static struct model m;
    unsigned fired = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        model_init(&m, seed, seed % 3 ? (mono_t)(next_random(&m) >> 20) : 0, (unsigned)(seed % 12));
        turn_all(&m, 1); /* the tick of the start is over */
        for (int step = 0; step < 600; step++) {
            if (next_random(&m) % 4 == 0)
                change_some(&m, (unsigned)(next_random(&m) % 20));
            mono_t next = checked_next(&m);
            if (next == MONO_NEVER)
                continue;
            m.now = next;
            turn_all(&m, 1 + (unsigned)(next_random(&m) % 400));
            check_nothing_is_late(&m);
        }
        fired += m.fired;
    }
    assert_true(fired > 20000);
}

/* Turns at any time: small steps, and leaps over whole levels. */
static void turning_at_any_time_fires_what_is_due(void **state)
{
    (void)state;
    static struct model m;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        model_init(&m, seed, (mono_t)(seed % 5 * 1234567891), (unsigned)(seed % 12));
        for (int step = 0; step < 600; step++) {
            change_some(&m, (unsigned)(next_random(&m) % 10));
            mono_t leap = (mono_t)(next_random(&m) >> (next_random(&m) % 40 + 16));
            if (m.now > (1LL << 60))
                break;
            m.now += leap;
            turn_all(&m, 1 + (unsigned)(next_random(&m) % 400));
            check_nothing_is_late(&m);
            (void)checked_next(&m);
        }
    }
}

/* Every distance around the borders of the levels, from every position of a turn that matters. */
static void borders_of_levels_are_exact(void **state)
{
    (void)state;
    static struct model m;
    static const uint64_t spans[] = {1,      63,     64,     65,       4095,     4096,    4097,
                                     262143, 262144, 262145, 16777215, 16777216, 40000000};
    static const uint64_t starts[] = {0, 1, 62, 63, 64, 4032, 4095, 4096, 262080, 262143, 262144, 16777215, 16777216};
    for (size_t s = 0; s < ARRAY_LEN(starts); s++)
        for (size_t d = 0; d < ARRAY_LEN(spans); d++)
            for (mono_t off = -1; off <= 1; off++) {
                model_init(&m, 1, (mono_t)starts[s] * TICK, 0);
                m.due[0] = m.now + (mono_t)spans[d] * TICK + off;
                m.set[0] = true;
                wheel_set(&m.wheel, &m.timers[0], m.due[0]);
                for (unsigned turns = 0; m.set[0]; turns++) {
                    mono_t next = checked_next(&m);
                    assert_true(next < m.due[0] + TICK);
                    assert_true(turns < 12); /* a wake-up per level, and some for a far one */
                    m.now = next;
                    wheel_turn(&m.wheel, m.now, &m, 8);
                }
                assert_true(m.now >= m.due[0]);
            }
}

static unsigned spins;

static void on_spin(void *arg, struct timer *timer)
{
    struct model *m = arg;
    spins++;
    wheel_set(&m->wheel, timer, m->now - 5);
}

static void a_timer_set_for_the_past_waits_for_the_next_tick(void **state)
{
    (void)state;
    static struct model m;
    struct timer timer;
    model_init(&m, 1, 1000 * TICK, 0);
    spins = 0;
    timer_init(&timer, on_spin);
    wheel_set(&m.wheel, &timer, m.now - 77 * TICK);
    assert_true(wheel_next(&m.wheel) <= m.now + TICK);
    for (unsigned i = 1; i <= 200; i++) {
        m.now += TICK;
        assert_int_equal(wheel_turn(&m.wheel, m.now, &m, 50), 1);
        assert_int_equal(spins, i);
        assert_int_equal(wheel_turn(&m.wheel, m.now, &m, 50), 0);
    }
}

static void a_wheel_that_has_stood_still_for_days_turns_at_once(void **state)
{
    (void)state;
    static struct model m;
    model_init(&m, 1, 0, 0);
    m.due[0] = (1LL << 61) + 5;
    m.set[0] = true;
    wheel_set(&m.wheel, &m.timers[0], m.due[0]);
    m.now = 1LL << 61;
    assert_int_equal(wheel_turn(&m.wheel, m.now, &m, 8), 0);
    m.now += 2 * TICK;
    assert_int_equal(wheel_turn(&m.wheel, m.now, &m, 8), 1);
    assert_true(wheel_next(&m.wheel) == MONO_NEVER);
}

static void the_rest_of_a_turn_can_be_cancelled_and_moved(void **state)
{
    (void)state;
    static struct model m;
    model_init(&m, 1, 0, 0);
    for (unsigned i = 0; i < 3; i++) {
        m.due[i] = 5 * TICK;
        m.set[i] = true;
        wheel_set(&m.wheel, &m.timers[i], m.due[i]);
    }
    m.now = 6 * TICK;
    assert_int_equal(wheel_turn(&m.wheel, m.now, &m, 1), 1);
    assert_false(m.set[0]); /* in the order in which they were set */
    wheel_cancel(&m.wheel, &m.timers[1]);
    m.due[2] = 100 * TICK;
    wheel_set(&m.wheel, &m.timers[2], m.due[2]);
    assert_int_equal(wheel_turn(&m.wheel, m.now, &m, 8), 0);
    m.set[1] = false;
    m.now = 100 * TICK;
    assert_int_equal(wheel_turn(&m.wheel, m.now, &m, 8), 1);
    assert_int_equal(m.wheel.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turning_at_wheel_next_is_never_early_and_never_late),
        cmocka_unit_test(turning_at_any_time_fires_what_is_due),
        cmocka_unit_test(borders_of_levels_are_exact),
        cmocka_unit_test(a_timer_set_for_the_past_waits_for_the_next_tick),
        cmocka_unit_test(a_wheel_that_has_stood_still_for_days_turns_at_once),
        cmocka_unit_test(the_rest_of_a_turn_can_be_cancelled_and_moved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
