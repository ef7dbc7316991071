/* types: the value types that every layer shares.
 *
 * lsn_t   number of a journal record, dense, assigned by the one writer; 0 means "none, nothing to wait for".
 * mono_t  monotonic time in nanoseconds; only for time-outs and measuring.
 * wall_t  UTC in milliseconds; only stored and shown, and the deadline of what must survive a restart.
 */
#ifndef MILLRACE_BASE_TYPES_H
#define MILLRACE_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint64_t lsn_t;
typedef int64_t mono_t;
typedef int64_t wall_t;

#define MONO_NEVER INT64_MAX
#define WALL_NEVER INT64_MAX
#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000LL

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define MUST_USE __attribute__((warn_unused_result))

/* A loan of bytes; never owns them. */
struct slice {
    const uint8_t *ptr;
    size_t len;
};

static inline struct slice slice_of(const void *ptr, size_t len)
{
    return (struct slice){.ptr = (const uint8_t *)ptr, .len = len};
}

static inline struct slice slice_str(const char *text)
{
    return slice_of(text, strlen(text));
}

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool slice_is(struct slice a, const char *text)
{
    return slice_equal(a, slice_str(text));
}

static inline bool slice_starts(struct slice a, const char *text)
{
    size_t n = strlen(text);
    return a.len >= n && memcmp(a.ptr, text, n) == 0;
}

/* For printf's "%.*s". */
#define SLICE_ARG(s) (int)(s).len, (const char *)(s).ptr

#endif
