/* Unit test of message memory: blocks do not overlap, come back from other threads, and chunks are returned. */
#include "base/slab.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/ring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

#define BLOCKS 4000
#define CHUNK 65536u
#define KEPT 16u

struct held {
    uint8_t *block;
    size_t len;
};

static struct held held[BLOCKS];

static uint8_t pattern(const struct held *h)
{
    return (uint8_t)((uintptr_t)h->block >> 6 ^ h->len);
}

static void take_one(struct slab_heap *heap, struct held *h, size_t len)
{
    *h = (struct held){.block = slab_take(heap, len), .len = len};
    assert_non_null(h->block);
    assert_int_equal((uintptr_t)h->block % 64, 0);
    memset(h->block, pattern(h), len);
}

static void check_one(const struct held *h)
{
    for (size_t i = 0; i < h->len; i++)
        assert_int_equal(h->block[i], pattern(h));
}

static size_t random_len(void)
{
    return (size_t)rand() % (rand() % 4 ? 700 : SLAB_LEN_MAX + 1);
}

static void blocks_do_not_overlap(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    struct slab_heap heap;
    slab_heap_init(&heap);
    srand(17);
    for (int step = 0; step < 60000; step++) {
        struct held *h = &held[rand() % BLOCKS];
        if (h->block) {
            check_one(h);
            slab_give(&heap, h->block);
            h->block = NULL;
        } else if (step / 15000 % 2 == 0 || rand() % 8 == 0) {
            take_one(&heap, h, random_len());
        }
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        if (held[i].block) {
            check_one(&held[i]);
            slab_give(&heap, held[i].block);
            held[i].block = NULL;
        }
    assert_true(heap.empty_count <= KEPT);
    assert_int_equal(heap.bytes, heap.empty_count * (uint64_t)CHUNK);
    slab_heap_fini(&heap);
    assert_int_equal(mem_in_use(), before);
}

static void every_length_up_to_the_maximum_fits(void **state)
{
    (void)state;
    struct slab_heap heap;
    slab_heap_init(&heap);
    for (size_t len = 0; len <= SLAB_LEN_MAX; len++) {
        struct held a, b;
        take_one(&heap, &a, len);
        take_one(&heap, &b, len);
        check_one(&a);
        slab_give(&heap, a.block);
        slab_give(&heap, b.block);
    }
    assert_null(slab_take(&heap, SLAB_LEN_MAX + 1));
    slab_heap_fini(&heap);
}

static void holes_are_filled_before_a_chunk_is_added(void **state)
{
    (void)state;
    struct slab_heap heap;
    slab_heap_init(&heap);
    unsigned count = 0;
    while (heap.bytes <= 3 * CHUNK)
        take_one(&heap, &held[count++], 640);
    slab_give(&heap, held[--count].block); /* that one has a chunk of its own, which is kept */
    assert_int_equal(count / 3, (CHUNK - 64) / 640);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = round; i < count; i += 3)
            slab_give(&heap, held[i].block);
        for (unsigned i = round; i < count; i += 3)
            take_one(&heap, &held[i], 640);
        assert_int_equal(heap.bytes, 4 * CHUNK);
        assert_int_equal(heap.empty_count, 1);
    }
    for (unsigned i = 0; i <= count; i++) {
        if (i < count)
            slab_give(&heap, held[i].block);
        held[i].block = NULL;
    }
    slab_heap_fini(&heap);
}

static void refused_memory_is_told(void **state)
{
    (void)state;
    struct slab_heap heap;
    slab_heap_init(&heap);
    mem_fail_at(1, true);
    assert_null(slab_take(&heap, 100));
    assert_int_equal(heap.bytes, 0);
    mem_fail_at(0, false);
    void *block = slab_take(&heap, 100);
    assert_non_null(block);
    mem_fail_at(1, true);
    void *second = slab_take(&heap, 100); /* the chunk has room */
    assert_non_null(second);
    assert_null(slab_take(&heap, 5000));
    mem_fail_at(0, false);
    slab_give(&heap, block);
    slab_give(&heap, second);
    slab_heap_fini(&heap);
}

static void a_block_given_by_a_stranger_is_found_again(void **state)
{
    (void)state;
    struct slab_heap mine, other;
    slab_heap_init(&mine);
    slab_heap_init(&other);
    void *a = slab_take(&mine, 8192), *b = slab_take(&mine, 8192);
    slab_give(&other, a);
    slab_give(NULL, b);
    assert_int_equal(mine.empty_count, 0);
    slab_heap_drain(&mine);
    assert_int_equal(mine.empty_count, 1);
    for (unsigned i = 0; i < 6; i++) /* a chunk full of large blocks, all given by a stranger */
        held[i].block = slab_take(&mine, 8192);
    uint64_t bytes = mine.bytes;
    for (unsigned i = 0; i < 6; i++)
        slab_give(&other, held[i].block);
    for (unsigned i = 0; i < 6; i++)
        held[i].block = slab_take(&mine, 8192);
    assert_true(mine.bytes <= bytes + CHUNK);
    for (unsigned i = 0; i < 6; i++) {
        slab_give(&mine, held[i].block);
        held[i].block = NULL;
    }
    slab_heap_fini(&mine);
    slab_heap_fini(&other);
}

/* ---------------------------------------------------------------------------------------------------- two threads */

#define PASSED 200000

struct consumer {
    struct ring ring;
    struct slab_heap heap;
    uint64_t wrong;
};

/* Looks at every block and gives it back to the producer's heap, now and then keeping a block of its own. */
static void *consume(void *arg)
{
    struct consumer *c = arg;
    for (unsigned got = 0; got < PASSED;) {
        struct held *h = ring_peek(&c->ring);
        if (!h) {
            sched_yield();
            continue;
        }
        for (size_t i = 0; i < h->len; i += 37)
            c->wrong += h->block[i] != pattern(h);
        slab_give(&c->heap, h->block);
        void *own = slab_take(&c->heap, h->len);
        c->wrong += own == NULL;
        slab_give(&c->heap, own);
        ring_pop(&c->ring);
        got++;
    }
    return NULL;
}

static void two_threads_pass_blocks(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    static struct consumer c;
    struct slab_heap heap;
    pthread_t thread;
    slab_heap_init(&heap);
    slab_heap_init(&c.heap);
    assert_true(ring_init(&c.ring, 256, sizeof(struct held)));
    assert_int_equal(pthread_create(&thread, NULL, consume, &c), 0);
    srand(23);
    for (unsigned sent = 0; sent < PASSED;) {
        struct held *slot = ring_push(&c.ring);
        if (!slot) {
            ring_publish(&c.ring);
            slab_heap_drain(&heap);
            sched_yield();
            continue;
        }
        size_t len = (size_t)rand() % 1200;
        *slot = (struct held){.block = slab_take(&heap, len), .len = len};
        CHECK(slot->block);
        memset(slot->block, pattern(slot), len);
        if (++sent % 16 == 0 || sent == PASSED)
            ring_publish(&c.ring);
    }
    pthread_join(thread, NULL);
    assert_int_equal(c.wrong, 0);
    slab_heap_drain(&heap);
    assert_int_equal(heap.bytes, heap.empty_count * (uint64_t)CHUNK);
    assert_true(heap.bytes <= 2 * KEPT * CHUNK);
    slab_heap_fini(&heap);
    slab_heap_fini(&c.heap);
    ring_fini(&c.ring);
    assert_int_equal(mem_in_use(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_do_not_overlap),
        cmocka_unit_test(every_length_up_to_the_maximum_fits),
        cmocka_unit_test(holes_are_filled_before_a_chunk_is_added),
        cmocka_unit_test(refused_memory_is_told),
        cmocka_unit_test(a_block_given_by_a_stranger_is_found_again),
        cmocka_unit_test(two_threads_pass_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
