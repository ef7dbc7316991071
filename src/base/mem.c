/* The heap behind one door. The process-wide counters live here, the one exception to "no globals": an allocator is
 * process-wide by nature, and the fault hook has to reach every caller. Counting uses relaxed atomics; hot paths take
 * messages and entries from slabs (slab.c, pool.c) and seldom come here. */
#include "base/mem.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>

#define CALLER __builtin_return_address(0)

/* Each on a line of its own: threads allocate different kinds. */
static struct {
    _Alignas(64) _Atomic size_t bytes;
} in_use[MEM_KINDS];
static _Atomic uint64_t fail_countdown; /* 0: off; 1: the next allocation fails */
static _Atomic uint64_t failures_hit;
static _Atomic bool fail_for_ever;
static void (*_Atomic watcher)(const void *caller);

static bool should_fail(const void *caller)
{
    uint64_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    if (__builtin_expect(left == 0, 1))
        return false;
    if (left > 1) {
        atomic_store_explicit(&fail_countdown, left - 1, memory_order_relaxed);
        return false;
    }
    if (!atomic_load_explicit(&fail_for_ever, memory_order_relaxed))
        atomic_store_explicit(&fail_countdown, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&failures_hit, 1, memory_order_relaxed);
    void (*watch)(const void *) = atomic_load_explicit(&watcher, memory_order_relaxed);
    if (watch)
        watch(caller);
    return true;
}

static void *account(enum mem_kind kind, void *ptr)
{
    if (ptr)
        atomic_fetch_add_explicit(&in_use[kind].bytes, malloc_usable_size(ptr), memory_order_relaxed);
    return ptr;
}

static void *grow(enum mem_kind kind, void *ptr, size_t len, const void *caller)
{
    if (should_fail(caller))
        return NULL;
    size_t old = ptr ? malloc_usable_size(ptr) : 0;
    void *grown = realloc(ptr, len ? len : 1);
    if (!grown)
        return NULL;
    atomic_fetch_sub_explicit(&in_use[kind].bytes, old, memory_order_relaxed);
    return account(kind, grown);
}

static size_t rounded(size_t align, size_t len)
{
    return (len + align - 1) / align * align;
}

void *mem_alloc_as(enum mem_kind kind, size_t len)
{
    return should_fail(CALLER) ? NULL : account(kind, malloc(len ? len : 1));
}

void *mem_zalloc_as(enum mem_kind kind, size_t len)
{
    return should_fail(CALLER) ? NULL : account(kind, calloc(1, len ? len : 1));
}

void *mem_aligned_as(enum mem_kind kind, size_t align, size_t len)
{
    return should_fail(CALLER) ? NULL : account(kind, aligned_alloc(align, rounded(align, len)));
}

void *mem_realloc_as(enum mem_kind kind, void *ptr, size_t len)
{
    return grow(kind, ptr, len, CALLER);
}

void mem_free_as(enum mem_kind kind, void *ptr)
{
    if (!ptr)
        return;
    atomic_fetch_sub_explicit(&in_use[kind].bytes, malloc_usable_size(ptr), memory_order_relaxed);
    free(ptr);
}

void mem_move_as(enum mem_kind from, enum mem_kind to, void *ptr)
{
    size_t bytes = malloc_usable_size(ptr);
    atomic_fetch_sub_explicit(&in_use[from].bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&in_use[to].bytes, bytes, memory_order_relaxed);
}

void *mem_alloc(size_t len)
{
    return should_fail(CALLER) ? NULL : account(MEM_OTHER, malloc(len ? len : 1));
}

void *mem_zalloc(size_t len)
{
    return should_fail(CALLER) ? NULL : account(MEM_OTHER, calloc(1, len ? len : 1));
}

void *mem_aligned(size_t align, size_t len)
{
    return should_fail(CALLER) ? NULL : account(MEM_OTHER, aligned_alloc(align, rounded(align, len)));
}

void *mem_realloc(void *ptr, size_t len)
{
    return grow(MEM_OTHER, ptr, len, CALLER);
}

void mem_free(void *ptr)
{
    mem_free_as(MEM_OTHER, ptr);
}

static char *copy_of(struct slice s, const void *caller)
{
    char *copy = should_fail(caller) ? NULL : account(MEM_OTHER, malloc(s.len + 1));
    if (!copy)
        return NULL;
    if (s.len)
        memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}

char *mem_slicedup(struct slice s)
{
    return copy_of(s, CALLER);
}

char *mem_strdup(const char *text)
{
    return copy_of(slice_str(text), CALLER);
}

size_t mem_in_use_as(enum mem_kind kind)
{
    return atomic_load_explicit(&in_use[kind].bytes, memory_order_relaxed);
}

/* Kinds are read one after the other: while others allocate the sum is of no single moment. */
size_t mem_in_use(void)
{
    size_t sum = 0;
    for (int kind = 0; kind < MEM_KINDS; kind++)
        sum += mem_in_use_as((enum mem_kind)kind);
    return sum;
}

const char *mem_kind_key(enum mem_kind kind)
{
    static const char *const keys[MEM_KINDS] = {
#define MEM_KIND(name, key, text) [MEM_##name] = (key),
#include "base/mem_kinds.def"
#undef MEM_KIND
    };
    return keys[kind];
}

void mem_fail_at(uint64_t n, bool for_ever)
{
    atomic_store(&failures_hit, 0);
    atomic_store(&fail_for_ever, for_ever);
    atomic_store(&fail_countdown, n);
}

uint64_t mem_failures_hit(void)
{
    return atomic_load(&failures_hit);
}

void mem_watch_failures(void (*watch)(const void *caller))
{
    atomic_store(&watcher, watch);
}
