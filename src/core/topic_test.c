/* Unit test of the topic index: known cases, a naive matcher with random patterns and keys, refused memory, and
 * patterns made to be slow. */
#include "core/topic.h"

#include "base/check.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define TARGETS 16

/* How often each target came; targets are the addresses of these counters. */
struct hits {
    unsigned count[TARGETS];
};

static void count_hit(void *arg, void *target)
{
    (void)arg;
    ++*(unsigned *)target;
}

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* ------------------------------------------------------------------------------------------------- naive matcher */

struct split {
    struct slice word[260];
    size_t count;
};

static struct split split_of(struct slice text)
{
    struct split s = {.count = 0};
    size_t start = 0;
    for (size_t i = 0; text.len && i <= text.len; i++)
        if (i == text.len || text.ptr[i] == '.') {
            s.word[s.count++] = slice_of(text.ptr + start, i - start);
            start = i + 1;
        }
    return s;
}

static bool naive(const struct split *p, size_t pi, const struct split *k, size_t ki)
{
    if (pi == p->count)
        return ki == k->count;
    if (slice_is(p->word[pi], "#"))
        return naive(p, pi + 1, k, ki) || (ki < k->count && naive(p, pi, k, ki + 1));
    if (ki == k->count)
        return false;
    return (slice_is(p->word[pi], "*") || slice_equal(p->word[pi], k->word[ki])) && naive(p, pi + 1, k, ki + 1);
}

static bool naive_match(struct slice pattern, struct slice key)
{
    struct split p = split_of(pattern), k = split_of(key);
    return naive(&p, 0, &k, 0);
}

static bool match_one(const char *pattern, const char *key)
{
    struct topic *topic = topic_new(7);
    struct hits hits = {0};
    assert_true(topic_add(topic, slice_str(pattern), &hits.count[0]));
    topic_match(topic, slice_str(key), count_hit, NULL);
    topic_remove(topic, slice_str(pattern), &hits.count[0]);
    topic_free(&topic);
    assert_null(topic);
    assert_true(hits.count[0] <= 1);
    assert_int_equal(hits.count[0], naive_match(slice_str(pattern), slice_str(key)));
    return hits.count[0] == 1;
}

static void the_specification_is_followed(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *key;
        bool match;
    } rows[] = {
        {"", "", true},           {"", "a", false},
        {"a", "", false},         {"a.b.c", "a.b.c", true},
        {"a.b", "a.b.c", false},  {"a.*.c", "a.b.c", true},
        {"a.*.c", "a.c", false},  {"a.*", "a.", true},
        {"*", "", false},         {"#", "", true},
        {"#", "a.b.c", true},     {"a.#", "a", true},
        {"a.#", "a.b.c", true},   {"a.#", "ab", false},
        {"#.c", "c", true},       {"#.c", "a.b.c", true},
        {"#.c", "a.c.b", false},  {"a.#.b", "a.b", true},
        {"a.#.b", "a.x.b", true}, {"#.#.#", "", true},
        {"#.*", "", false},       {"#.*", "x", true},
        {"*.#", "", false},       {"a..b", "a..b", true},
        {"a.*.b", "a..b", true},  {".", ".", true},
        {"*.*", ".", true},       {"a.", "a", false},
        {"a*", "ab", false},      {"a#", "a", false},
        {"*", "*", true},         {"*", "#", true},
        {"x", "*", false},        {"#.*.#.*", "a.b.c", true},
        {"#.a.#.a", "a", false},  {"#.a.#.a.#", "a.x.a", true},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (match_one(rows[i].pattern, rows[i].key) != rows[i].match)
            fail_msg("'%s' and '%s'", rows[i].pattern, rows[i].key);
}

static void a_pattern_and_target_come_once_however_often_added(void **state)
{
    (void)state;
    struct topic *topic = topic_new(1);
    struct hits hits = {0};
    void *t = &hits.count[0];
    assert_true(topic_add(topic, slice_str("a.b"), t) && topic_add(topic, slice_str("a.b"), t));
    topic_match(topic, slice_str("a.b"), count_hit, NULL);
    assert_int_equal(hits.count[0], 1);
    topic_remove(topic, slice_str("a.b"), t);
    topic_match(topic, slice_str("a.b"), count_hit, NULL);
    assert_int_equal(hits.count[0], 2);
    topic_remove(topic, slice_str("a.b"), t);
    topic_match(topic, slice_str("a.b"), count_hit, NULL);
    assert_int_equal(hits.count[0], 2);
    topic_free(&topic);
}

/* --------------------------------------------------------------------------------------------------- random runs */

/* Few words, so that patterns and keys meet; now and then an empty or a long one. */
static struct slice random_text(uint64_t *seed, char *room, bool pattern)
{
    static const char *const words[] = {"a", "b", "c", "", "word", "*", "#"};
    size_t len = 0, count = next_random(seed) % 7;
    for (size_t i = 0; i < count; i++)
        len +=
            (size_t)snprintf(room + len, 64 - len, "%s%s", i ? "." : "", words[next_random(seed) % (pattern ? 7 : 5)]);
    return slice_of(room, len);
}

struct bound {
    char text[64];
    struct slice pattern;
    unsigned target, count;
};

struct model {
    struct bound bound[200];
    size_t count;
};

static struct bound *model_find(struct model *m, struct slice pattern, unsigned target)
{
    for (size_t i = 0; i < m->count; i++)
        if (m->bound[i].target == target && slice_equal(m->bound[i].pattern, pattern))
            return &m->bound[i];
    return NULL;
}

static void model_step(struct model *m, struct topic *topic, struct hits *hits, uint64_t *seed)
{
    char room[64];
    struct slice pattern = random_text(seed, room, true);
    unsigned target = (unsigned)(next_random(seed) % TARGETS);
    struct bound *b = model_find(m, pattern, target);
    if (!b && m->count < ARRAY_LEN(m->bound)) {
        b = &m->bound[m->count++];
        *b = (struct bound){.target = target};
        memcpy(b->text, room, sizeof room);
        b->pattern = slice_of(b->text, pattern.len);
    } else if (!b) {
        b = &m->bound[next_random(seed) % m->count];
    }
    if (b->count == 0 || next_random(seed) % 2) {
        assert_true(topic_add(topic, b->pattern, &hits->count[b->target]));
        b->count++;
    } else {
        topic_remove(topic, b->pattern, &hits->count[b->target]);
        b->count--;
    }
}

static void compare(struct model *m, const struct topic *topic, struct hits *hits, struct slice key)
{
    struct hits want = {0};
    memset(hits, 0, sizeof *hits);
    topic_match(topic, key, count_hit, NULL);
    for (size_t i = 0; i < m->count; i++)
        if (m->bound[i].count && naive_match(m->bound[i].pattern, key))
            want.count[m->bound[i].target]++;
    assert_memory_equal(&want, hits, sizeof want);
}

static void random_patterns_match_as_a_naive_matcher_says(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    for (uint64_t round = 1; round <= 30; round++) {
        uint64_t seed = round * 7919;
        static struct model m;
        struct hits hits;
        m.count = 0;
        struct topic *topic = topic_new(round);
        for (int step = 0; step < 1000; step++) {
            char room[64];
            model_step(&m, topic, &hits, &seed);
            compare(&m, topic, &hits, random_text(&seed, room, false));
        }
        for (size_t i = 0; round % 2 && i < m.count; i++)
            for (; m.bound[i].count; m.bound[i].count--)
                topic_remove(topic, m.bound[i].pattern, &hits.count[m.bound[i].target]);
        if (round % 2)
            compare(&m, topic, &hits, slice_str("a"));
        topic_free(&topic);
        assert_int_equal(mem_in_use(), before);
    }
}

/* ----------------------------------------------------------------------------------------------- refused memory */

static void refused_memory_changes_nothing(void **state)
{
    (void)state;
    static const char *const keys[] = {"", "a", "a.b", "a.b.c.d.e", "x.b.q.d.e", "a.b.z", "n.e.w"};
    static const char *const patterns[] = {"", "n.e.w", "a.b.*.d.#", "#.#.n", "a.b.c", "*.b"};
    struct topic *topic = topic_new(3);
    struct hits hits = {0}, base = {0};
    assert_true(topic_add(topic, slice_str("a.b"), &hits.count[0]));
    assert_true(topic_add(topic, slice_str("a.#"), &hits.count[1]));
    for (size_t p = 0; p < ARRAY_LEN(patterns); p++)
        for (uint64_t n = 1;; n++) {
            size_t in_use = mem_in_use();
            mem_fail_at(n, false);
            bool added = topic_add(topic, slice_str(patterns[p]), &hits.count[2]);
            bool hit = mem_failures_hit() > 0;
            mem_fail_at(0, false);
            assert_int_equal(added, !hit);
            for (size_t k = 0; k < ARRAY_LEN(keys); k++) {
                memset(&hits, 0, sizeof hits);
                topic_match(topic, slice_str(keys[k]), count_hit, NULL);
                assert_int_equal(hits.count[0], slice_is(slice_str(keys[k]), "a.b"));
                assert_int_equal(hits.count[1], keys[k][0] == 'a');
                assert_int_equal(hits.count[2], added && naive_match(slice_str(patterns[p]), slice_str(keys[k])));
            }
            if (added) {
                topic_remove(topic, slice_str(patterns[p]), &hits.count[2]);
                assert_int_equal(mem_in_use(), in_use);
                break;
            }
            assert_int_equal(mem_in_use(), in_use); /* the tables have room: what is left over would be nodes */
            assert_true(n < 100);
        }
    topic_remove(topic, slice_str("a.b"), &hits.count[0]);
    topic_remove(topic, slice_str("a.#"), &hits.count[1]);
    memset(&hits, 0, sizeof hits);
    topic_match(topic, slice_str("a.b"), count_hit, NULL);
    assert_memory_equal(&hits, &base, sizeof hits);
    topic_free(&topic);
}

static void topic_new_gives_everything_back_when_it_fails(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_at(n, false);
        assert_null(topic_new(1));
        assert_int_equal(mem_failures_hit(), 1);
        assert_int_equal(mem_in_use(), before);
    }
    mem_fail_at(0, false);
}

/* ----------------------------------------------------------------------------------------------------- hostility */

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct slice repeated(char *room, const char *word, size_t max)
{
    size_t len = 0, n = strlen(word);
    while (len + n + 1 <= max) {
        memcpy(room + len, word, n);
        len += n;
        room[len++] = '.';
    }
    return slice_of(room, len - 1);
}

static void hostile_patterns_cost_little(void **state)
{
    (void)state;
    char pattern[256], key[256];
    static const char *const hostile[] = {"#", "#.a", "#.*", "#.a.*", "a.#.#"};
    struct topic *topic = topic_new(5);
    struct hits hits = {0};
    for (size_t i = 0; i < ARRAY_LEN(hostile); i++)
        for (size_t max = 255; max > 200; max -= 2)
            assert_true(topic_add(topic, repeated(pattern, hostile[i], max), &hits.count[i]));
    assert_true(topic_add(topic, slice_str("#.b"), &hits.count[5]));
    double start = cpu_seconds();
    for (int i = 0; i < 10; i++) {
        struct slice k = repeated(key, "a", 255); /* 128 words */
        topic_match(topic, k, count_hit, NULL);
        memset(key, '.', 255); /* 256 empty words */
        topic_match(topic, slice_of(key, 255), count_hit, NULL);
    }
    double took = cpu_seconds() - start;
    assert_int_equal(hits.count[5], 0);
    assert_true(hits.count[0] > 0 && hits.count[1] > 0);
    assert_true(took < 4.0); /* words × nodes; the naive matcher would not end */
    topic_free(&topic);
}

static void words_of_any_bytes_and_the_longest_key_work(void **state)
{
    (void)state;
    uint8_t long_key[255];
    struct topic *topic = topic_new(5);
    struct hits hits = {0};
    for (size_t i = 0; i < sizeof long_key; i++)
        long_key[i] = (uint8_t)(i == '.' ? 0 : i);
    struct slice key = slice_of(long_key, sizeof long_key);
    assert_true(topic_add(topic, key, &hits.count[0]));
    assert_true(topic_add(topic, slice_str("*"), &hits.count[1]));
    topic_match(topic, key, count_hit, NULL);
    assert_int_equal(hits.count[0], 1);
    assert_int_equal(hits.count[1], 1);
    topic_match(topic, slice_of(long_key, 254), count_hit, NULL);
    assert_int_equal(hits.count[0], 1);
    assert_int_equal(hits.count[1], 2);
    topic_free(&topic);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_specification_is_followed),
        cmocka_unit_test(a_pattern_and_target_come_once_however_often_added),
        cmocka_unit_test(random_patterns_match_as_a_naive_matcher_says),
        cmocka_unit_test(refused_memory_changes_nothing),
        cmocka_unit_test(topic_new_gives_everything_back_when_it_fails),
        cmocka_unit_test(hostile_patterns_cost_little),
        cmocka_unit_test(words_of_any_bytes_and_the_longest_key_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
