/* mem: the only way to the heap, with one account and one place where a test can make an allocation fail.
 *
 * All functions are thread-safe. mem_alloc returns NULL when memory is refused; callers reserve before they change
 * state. The account counts usable bytes of everything allocated here (slab chunks included), by kind: what was allocated
 * with a kind is freed and resized with the same; without one it is MEM_OTHER.
 */
#ifndef MILLRACE_BASE_MEM_H
#define MILLRACE_BASE_MEM_H

#include "base/types.h"

MUST_USE void *mem_alloc(size_t len);
MUST_USE void *mem_zalloc(size_t len);
MUST_USE void *mem_realloc(void *ptr, size_t len);    /* on failure the old block stays */
MUST_USE void *mem_aligned(size_t align, size_t len); /* freed by mem_free */
MUST_USE char *mem_strdup(const char *text);
MUST_USE char *mem_slicedup(struct slice s); /* NUL-terminated copy */
void mem_free(void *ptr);

enum mem_kind {
#define MEM_KIND(name, key, text) MEM_##name,
#include "base/mem_kinds.def"
#undef MEM_KIND
    MEM_KINDS
};

MUST_USE void *mem_alloc_as(enum mem_kind kind, size_t len);
MUST_USE void *mem_zalloc_as(enum mem_kind kind, size_t len);
MUST_USE void *mem_realloc_as(enum mem_kind kind, void *ptr, size_t len);
MUST_USE void *mem_aligned_as(enum mem_kind kind, size_t align, size_t len);
void mem_free_as(enum mem_kind kind, void *ptr);
void mem_move_as(enum mem_kind from, enum mem_kind to, void *ptr); /* it is of the other kind from now on */

size_t mem_in_use(void); /* of all kinds */
size_t mem_in_use_as(enum mem_kind kind);
const char *mem_kind_key(enum mem_kind kind);

/* Tests only: the n-th allocation from now (1 = the next) fails, once, or from then on when for_ever. 0 switches off.
 * mem_failures_hit says how many were failed since. */
void mem_fail_at(uint64_t n, bool for_ever);
uint64_t mem_failures_hit(void);
/* Tests only: is told the address in the code behind each call that was failed; NULL: nobody is. */
void mem_watch_failures(void (*watch)(const void *caller));

#endif
