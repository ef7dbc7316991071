/* mem: the only way to the heap, with one account and one place where a test can make an allocation fail.
 *
 * All functions are thread-safe. mem_alloc returns NULL when memory is refused; callers reserve before they change
 * state. mem_in_use counts usable bytes of everything allocated here (slab chunks included), for the memory alarm.
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

size_t mem_in_use(void);

/* Tests only: the n-th allocation from now (1 = the next) fails, once, or from then on when for_ever. 0 switches off.
 * mem_failures_hit says how many were failed since. */
void mem_fail_at(uint64_t n, bool for_ever);
uint64_t mem_failures_hit(void);

#endif
