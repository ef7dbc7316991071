/* Unit test of the hash table against an array of flags, its growing and shrinking, and refused memory. */
#include "base/map.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define KEYS 5000

struct item {
    uint64_t key;
    bool in;
};

static struct item items[KEYS];

static void fill_items(void)
{
    for (uint64_t i = 0; i < KEYS; i++)
        items[i] = (struct item){.key = i * 64}; /* low bits that are all the same must not matter */
}

static bool put(struct map *map, struct item *item)
{
    item->in = map_put(map, map_key_u64(&item->key), item);
    return item->in;
}

static void check_each(struct map *map)
{
    uint32_t seen = 0, want = 0;
    MAP_EACH(map, struct item, item)
    {
        assert_true(item->in);
        seen++;
    }
    for (unsigned i = 0; i < KEYS; i++)
        want += items[i].in;
    assert_int_equal(seen, want);
    assert_int_equal(map->count, want);
}

static struct slice key_of_item(const void *value)
{
    return map_key_u64(&((const struct item *)value)->key);
}

static void random_changes(struct map *start)
{
    size_t before = mem_in_use();
    struct map map = *start;
    srand(11);
    fill_items();
    for (int step = 0; step < 300000; step++) {
        int bias = step / 50000 % 2; /* mostly growing, then mostly shrinking */
        struct item *item = &items[rand() % KEYS];
        assert_ptr_equal(map_get(&map, map_key_u64(&item->key)), item->in ? item : NULL);
        if (!item->in && rand() % 4 > bias * 2) {
            assert_true(put(&map, item));
        } else if (rand() % 4 < 1 + bias * 2) {
            assert_ptr_equal(map_take(&map, map_key_u64(&item->key)), item->in ? item : NULL);
            item->in = false;
        }
        if (step % 10000 == 0)
            check_each(&map);
    }
    check_each(&map);
    map_fini(&map);
    assert_int_equal(mem_in_use(), before);
    assert_null(map_get(&map, map_key_u64(&items[0].key)));
    assert_null(map_take(&map, map_key_u64(&items[0].key)));
}

static void random_changes_agree_with_flags(void **state)
{
    struct map map;
    (void)state;
    map_init(&map, 99);
    random_changes(&map);
    map_init_keyed(&map, 98, key_of_item);
    random_changes(&map);
}

/* What a million names cost is said in map.h. */
static void a_keyed_place_is_small(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    struct map map;
    map_init_keyed(&map, 1, key_of_item);
    fill_items();
    for (unsigned i = 0; i < 3328; i++) /* 13/16 of 4096 */
        assert_true(put(&map, &items[i]));
    assert_in_range(mem_in_use() - before, 4096 * 12, 4096 * 12 + 64);
    map_fini(&map);
}

static void an_emptied_table_is_small_again(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    struct map map;
    map_init(&map, 1);
    fill_items();
    for (unsigned i = 0; i < KEYS; i++)
        assert_true(put(&map, &items[i]));
    assert_true(mem_in_use() - before > KEYS * 28);
    for (unsigned i = 0; i < KEYS; i++)
        assert_ptr_equal(map_take(&map, map_key_u64(&items[i].key)), &items[i]);
    assert_int_equal(map.count, 0);
    assert_true(mem_in_use() - before < 1024);
    map_fini(&map);
}

static void keys_are_bytes_of_any_length(void **state)
{
    (void)state;
    static const char *const names[] = {"", "a", "aa", "b", "a longer name than the others, over sixteen bytes"};
    struct map map;
    map_init(&map, 1);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_true(map_put(&map, slice_str(names[i]), (void *)names[i]));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_ptr_equal(map_get(&map, slice_str(names[i])), names[i]);
    assert_null(map_get(&map, slice_of("a\0", 2)));
    assert_ptr_equal(map_get(&map, (struct slice){0}), names[0]);
    map_fini(&map);
}

static void refused_memory_changes_nothing(void **state)
{
    (void)state;
    struct map map;
    unsigned refused = 0;
    map_init(&map, 1);
    fill_items();
    for (unsigned i = 0; i < 1000; i++) {
        mem_fail_at(1, true);
        if (!put(&map, &items[i])) {
            refused++;
            assert_null(map_get(&map, map_key_u64(&items[i].key)));
            assert_false(map_reserve(&map));
            mem_fail_at(0, false);
            assert_true(map_reserve(&map));
            mem_fail_at(1, true);
            assert_true(put(&map, &items[i])); /* reserved: needs no memory */
        }
        mem_fail_at(0, false);
    }
    assert_int_equal(refused, 9); /* the first table and eight doublings: 8 … 2048 */
    check_each(&map);
    mem_fail_at(1, true); /* shrinking is refused, taking is not */
    for (unsigned i = 0; i < 1000; i++) {
        assert_ptr_equal(map_take(&map, map_key_u64(&items[i].key)), &items[i]);
        items[i].in = false;
        assert_null(map_get(&map, map_key_u64(&items[i].key)));
    }
    mem_fail_at(0, false);
    map_fini(&map);
}

/* Every value is met once, also while the table shrinks behind the cursor. */
static void all_are_taken_in_one_walk(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    static uint64_t numbers[COUNT];
    struct map map;
    map_init(&map, 7);
    uint32_t cursor = 0, taken = 0;
    assert_null(map_any(&map, &cursor));
    for (uint64_t i = 0; i < COUNT; i++) {
        numbers[i] = i;
        assert_true(map_put(&map, map_key_u64(&numbers[i]), &numbers[i]));
    }
    for (uint64_t *number; (number = map_any(&map, &cursor)); taken++)
        assert_ptr_equal(map_take(&map, map_key_u64(number)), number);
    assert_int_equal(taken, COUNT);
    assert_int_equal(map.count, 0);
    map_fini(&map);
}

/* Room for many at once, and a value in the place of another. */
static void many_and_swap(void **state)
{
    (void)state;
    struct map map;
    map_init_keyed(&map, 7, key_of_item);
    fill_items();
    mem_fail_at(1, false);
    assert_false(map_reserve_many(&map, 1000));
    assert_true(map_reserve_many(&map, 1000));
    mem_fail_at(1, true); /* nothing is needed any more */
    for (unsigned i = 0; i < 1000; i++)
        assert_true(put(&map, &items[i]));
    assert_true(map_reserve_many(&map, 0));
    mem_fail_at(0, false);
    assert_false(map_reserve_many(&map, UINT32_MAX));
    check_each(&map);
    struct item other = {.key = items[5].key, .in = true};
    assert_ptr_equal(map_swap(&map, map_key_u64(&other.key), &other), &items[5]);
    assert_ptr_equal(map_get(&map, map_key_u64(&items[5].key)), &other);
    assert_int_equal(map.count, 1000);
    assert_null(map_swap(&map, map_key_u64(&items[1000].key), &items[1000]));
    assert_null(map_get(&map, map_key_u64(&items[1000].key)));
    map_fini(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_taken_in_one_walk),
        cmocka_unit_test(random_changes_agree_with_flags),
        cmocka_unit_test(a_keyed_place_is_small),
        cmocka_unit_test(an_emptied_table_is_small_again),
        cmocka_unit_test(keys_are_bytes_of_any_length),
        cmocka_unit_test(refused_memory_changes_nothing),
        cmocka_unit_test(many_and_swap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
