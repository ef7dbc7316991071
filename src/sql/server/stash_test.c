/* Pieces come back as they were, whatever their lengths and wherever they are; a disk or memory that fails, a disk that is full and one that forgets end it
 * by their names, and nothing stays. */
#include "sql/server/stash.h"

#include "base/mem.h"
#include "sql/query/scratch_rig_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define PIECES 40u
#define MEMORY 20000u

static struct slice piece_of(uint32_t i)
{
    static uint8_t bytes[4096];
    size_t len = i % 7 == 3 ? 0 : i % 5 == 1 ? sizeof bytes : 100 + 37 * i;
    for (size_t k = 0; k < len; k++)
        bytes[k] = (uint8_t)(i * 31 + k * 7);
    return slice_of(bytes, len);
}

/* How many it took. */
static uint32_t fill(struct stash *s)
{
    uint32_t i = 0;
    while (i < PIECES && stash_put(s, piece_of(i)))
        i++;
    return i;
}

/* How many came; each as it was. */
static uint32_t drain(struct stash *s)
{
    struct slice piece;
    uint32_t i = 0;
    for (; stash_next(s, &piece); i++)
        assert_true(slice_equal(piece, piece_of(i)));
    return i;
}

static void test_all_comes_back(void **state)
{
    static const size_t memory[] = {0, 1, 5000, MEMORY, 1u << 20};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(memory); i++) {
        struct memory_disk disk;
        struct stash s;
        size_t before = mem_in_use();
        memory_disk_init(&disk);
        stash_init(&s, &disk.disk, memory[i]);
        assert_int_equal(fill(&s), PIECES);
        assert_true(mem_in_use() - before <= memory[i] + 10000); /* a piece of the file, and where the others are */
        assert_int_equal(disk.open, memory[i] < 1u << 20);
        assert_int_equal(drain(&s), PIECES);
        assert_int_equal(s.fault, SQL_FAULT_NONE);
        assert_int_equal(disk.open, s.file != NULL);
        stash_fini(&s);
        stash_fini(&s);
        assert_int_equal(disk.open, 0);
        assert_int_equal(mem_in_use(), before);
    }
}

/* Where there is no disk, memory has to do. */
static void test_without_a_disk(void **state)
{
    struct stash s;
    (void)state;
    stash_init(&s, NULL, 0);
    assert_int_equal(fill(&s), PIECES);
    assert_int_equal(drain(&s), PIECES);
    stash_fini(&s);
}

/* One run with one failure in it. True: it was met. */
static bool one_failure(uint64_t disk_call, uint64_t allocation, enum sql_fault fault)
{
    struct memory_disk disk;
    struct stash s;
    size_t before = mem_in_use();
    memory_disk_init(&disk);
    disk.fail_at = disk_call;
    disk.fault = fault;
    mem_fail_at(allocation, false);
    stash_init(&s, &disk.disk, MEMORY);
    uint32_t filled = fill(&s), drained = drain(&s);
    bool hit = disk_call ? disk.calls >= disk_call : mem_failures_hit();
    mem_fail_at(0, false);
    bool reads = filled == PIECES, opens = !reads && !s.file && disk_call;
    if (hit)
        assert_int_equal(s.fault, allocation                   ? SQL_FAULT_MEMORY
                                  : reads || opens || !s.count ? SQL_FAULT_SCRATCH_LOST
                                                               : fault);
    assert_true(hit ? drained < PIECES : drained == PIECES);
    stash_fini(&s);
    assert_int_equal(disk.open, 0);
    assert_int_equal(mem_in_use(), before);
    return hit;
}

static void test_what_fails_is_named(void **state)
{
    uint64_t n, calls = 0, allocations = 0;
    (void)state;
    for (n = 1; one_failure(n, 0, n % 2 ? SQL_FAULT_SCRATCH_FULL : SQL_FAULT_SCRATCH_LOST); n++)
        calls++;
    for (n = 1; one_failure(0, n, SQL_FAULT_NONE); n++)
        allocations++;
    assert_true(calls > 60 && allocations > 10);
}

/* A bit of the file turns, or a piece stands where another was: it is not given out. */
static void test_a_disk_that_forgets(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 300; i++) {
        struct memory_disk disk;
        struct stash s;
        memory_disk_init(&disk);
        stash_init(&s, &disk.disk, 0);
        assert_int_equal(fill(&s), PIECES);
        /* Each bit of the first head; then some of its bytes, of the second head and of that piece. */
        size_t at = i < 128 ? i / 8 : 16 + (size_t)i * 7919 % 3000;
        disk.bytes[at] ^= (uint8_t)(1u << i % 8);
        assert_true(drain(&s) < 2);
        assert_int_equal(s.fault, SQL_FAULT_SCRATCH_LOST);
        stash_fini(&s);
    }
}

static void test_a_piece_at_the_place_of_another(void **state)
{
    struct memory_disk disk;
    struct stash s;
    struct slice piece;
    (void)state;
    memory_disk_init(&disk);
    stash_init(&s, &disk.disk, 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(stash_put(&s, piece_of(i ? 2 : 1))); /* two of them are as long */
    assert_true(stash_next(&s, &piece));
    size_t second = (size_t)s.at, third = second + (disk.len - second) / 2;
    memcpy(disk.bytes + second, disk.bytes + third, disk.len - third);
    assert_false(stash_next(&s, &piece));
    assert_int_equal(s.fault, SQL_FAULT_SCRATCH_LOST);
    stash_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_comes_back),
        cmocka_unit_test(test_without_a_disk),
        cmocka_unit_test(test_what_fails_is_named),
        cmocka_unit_test(test_a_disk_that_forgets),
        cmocka_unit_test(test_a_piece_at_the_place_of_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
