/* LIKE, and regular expressions by PCRE2 with limits: a pattern that takes too long is a fault of the row, not a stall of the query.
 *
 * An operator has a cache, in which patterns stay compiled, by PCRE2's JIT where there is one. Without a cache (a constant that is folded)
 * a pattern is compiled when it differs from that of the row before, and PCRE2 takes its memory from the batch's arena. */
#include "sql/language/regex.h"

#include "base/mem.h"
#include "sql/language/kernel.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MATCH_LIMIT 200000u
#define DEPTH_LIMIT 1000u
#define HEAP_LIMIT_KIB 2048u
#define GROUPS_MAX 32u
#define NO_MEMORY_WHEN_COMPILING 121 /* PCRE2_ERROR_HEAP_FAILED: without a minus among compile errors */

typedef struct slice text_t;

/* -------------------------------------------------------------------------------------------------------------- LIKE */

static inline uint8_t folded(uint8_t c, bool nocase)
{
    return nocase && c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

static size_t character_len(text_t t, size_t at)
{
    size_t end = at + 1;
    while (end < t.len && (t.ptr[end] & 0xc0) == 0x80)
        end++;
    return end - at;
}

/* % any text, _ one character. Goes back to the last % only: what stands before it has matched as early as it can. */
static bool like(struct eval *e, uint32_t i, text_t t, text_t p, int escape, bool nocase)
{
    size_t at = 0, in = 0, star = SIZE_MAX, from = 0;
    while (at < t.len) {
        if (in < p.len && p.ptr[in] == '%' && escape != '%') {
            star = ++in;
            from = at;
            continue;
        }
        if (in < p.len && p.ptr[in] == '_' && escape != '_') {
            at += character_len(t, at);
            in++;
            continue;
        }
        size_t literal = in < p.len && p.ptr[in] == escape ? in + 1 : in;
        if (literal == p.len && literal > in) { /* an escape with nothing behind it */
            eval_fault(e, i, SQL_FAULT_ARGUMENT);
            return false;
        }
        if (literal < p.len && folded(t.ptr[at], nocase) == folded(p.ptr[literal], nocase)) {
            at++;
            in = literal + 1;
            continue;
        }
        if (star == SIZE_MAX)
            return false;
        in = star;
        from += character_len(t, from);
        at = from;
    }
    while (in < p.len && p.ptr[in] == '%' && escape != '%')
        in++;
    return in == p.len;
}

KERNEL_2(like, text_t, text_t, uint8_t, like(e, i, a, b, '\\', false))
KERNEL_2(ilike, text_t, text_t, uint8_t, like(e, i, a, b, '\\', true))

static void like_escape(struct eval *e, const struct column *const *args, struct column *ret, struct sel sel,
                        bool nocase)
{
    ARG(0, text_t);
    ARG(1, text_t);
    ARG(2, text_t);
    uint8_t *r = ret->values;
    EACH_ROW(i)
    {
        text_t escape = v2[i & m2];
        if (escape.len > 1)
            eval_fault(e, i, SQL_FAULT_ARGUMENT);
        r[i] = like(e, i, v0[i & m0], v1[i & m1], escape.len ? escape.ptr[0] : -1, nocase);
    }
}

KERNEL(like_escape)
{
    (void)x;
    like_escape(e, args, ret, sel, false);
}

KERNEL(ilike_escape)
{
    (void)x;
    like_escape(e, args, ret, sel, true);
}

/* ----------------------------------------------------------------------------------------------- regular expressions */

struct matcher {
    struct eval *e;
    pcre2_general_context *memory;
    pcre2_match_context *limits;
    pcre2_match_data *data;
    pcre2_code *code;
    text_t pattern, flags; /* of code */
    bool ready;
};

static void *take(size_t len, void *eval)
{
    return eval_take(eval, len);
}

static void give(void *ptr, void *eval)
{
    (void)ptr, (void)eval;
}

static bool matcher_begin(struct matcher *m, struct eval *e)
{
    *m = (struct matcher){.e = e};
    m->memory = pcre2_general_context_create(take, give, e);
    m->limits = m->memory ? pcre2_match_context_create(m->memory) : NULL;
    m->data = m->limits ? pcre2_match_data_create(GROUPS_MAX, m->memory) : NULL;
    if (!m->data) {
        e->no_memory = true;
        return false;
    }
    pcre2_set_match_limit(m->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(m->limits, DEPTH_LIMIT);
    pcre2_set_heap_limit(m->limits, HEAP_LIMIT_KIB);
    return true;
}

static uint32_t options_of(text_t flags, bool *ret_ok)
{
    uint32_t options = PCRE2_UTF | PCRE2_NO_UTF_CHECK;
    for (size_t i = 0; i < flags.len; i++)
        switch (flags.ptr[i]) {
        case 'i': options |= PCRE2_CASELESS; break;
        case 'n':
        case 'm': options |= PCRE2_MULTILINE; break;
        case 's': options |= PCRE2_DOTALL; break;
        case 'x': options |= PCRE2_EXTENDED; break;
        case 'g':
        case 'c': break;
        default: *ret_ok = false;
        }
    return options;
}

struct regex_cache {
    struct {
        pcre2_code *code;
        uint8_t *pattern;
        size_t len;
        uint32_t options;
    } at[REGEX_CACHE_MAX];
    unsigned count, next; /* next: whose place a new one takes when all are taken */
};

struct regex_cache *regex_cache_new(void)
{
    return mem_zalloc(sizeof(struct regex_cache));
}

static void forget(struct regex_cache *cache, unsigned i)
{
    pcre2_code_free(cache->at[i].code);
    mem_free(cache->at[i].pattern);
}

void regex_cache_free(struct regex_cache **cache)
{
    for (unsigned i = 0; *cache && i < (*cache)->count; i++)
        forget(*cache, i);
    mem_free(*cache);
    *cache = NULL;
}

static void *heap_take(size_t len, void *unused)
{
    (void)unused;
    return mem_alloc(len);
}

static void heap_give(void *ptr, void *unused)
{
    (void)unused;
    mem_free(ptr);
}

/* NULL: no such pattern, or *ret_no_memory. */
static pcre2_code *compiled(text_t pattern, uint32_t options, bool *ret_no_memory)
{
    int code = 0;
    PCRE2_SIZE at;
    pcre2_general_context *memory = pcre2_general_context_create(heap_take, heap_give, NULL);
    pcre2_compile_context *compile = memory ? pcre2_compile_context_create(memory) : NULL;
    pcre2_code *got =
        compile ? pcre2_compile(pattern.len ? pattern.ptr : (PCRE2_SPTR) "", pattern.len, options, &code, &at, compile)
                : NULL;
    *ret_no_memory = !compile || (!got && code == NO_MEMORY_WHEN_COMPILING);
    if (got)
        (void)pcre2_jit_compile(got, PCRE2_JIT_COMPLETE); /* without a JIT it is interpreted */
    pcre2_compile_context_free(compile);
    pcre2_general_context_free(memory);
    return got;
}

static pcre2_code *cached(struct regex_cache *cache, text_t pattern, uint32_t options, bool *ret_no_memory)
{
    *ret_no_memory = false;
    for (unsigned i = 0; i < cache->count; i++)
        if (cache->at[i].options == options && slice_equal(slice_of(cache->at[i].pattern, cache->at[i].len), pattern))
            return cache->at[i].code;
    uint8_t *copy = mem_alloc(pattern.len + 1);
    pcre2_code *code = copy ? compiled(pattern, options, ret_no_memory) : NULL;
    if (!code) {
        *ret_no_memory |= !copy;
        mem_free(copy);
        return NULL;
    }
    unsigned i = cache->count < REGEX_CACHE_MAX ? cache->count++ : cache->next++ % REGEX_CACHE_MAX;
    if (cache->at[i].code)
        forget(cache, i);
    if (pattern.len)
        memcpy(copy, pattern.ptr, pattern.len);
    cache->at[i].code = code;
    cache->at[i].pattern = copy;
    cache->at[i].len = pattern.len;
    cache->at[i].options = options;
    return code;
}

static bool use_cached(struct matcher *m, uint32_t i, text_t pattern, text_t flags, uint32_t options)
{
    bool no_memory;
    m->code = cached(m->e->regexes, pattern, options, &no_memory);
    m->pattern = pattern;
    m->flags = flags;
    m->e->no_memory |= no_memory;
    if (!m->code)
        eval_fault(m->e, i, SQL_FAULT_REGEX);
    return m->code;
}

/* False: the row has a fault. */
static bool matcher_use(struct matcher *m, uint32_t i, text_t pattern, text_t flags)
{
    if (m->code && slice_equal(m->pattern, pattern) && slice_equal(m->flags, flags))
        return true;
    int code;
    PCRE2_SIZE at;
    bool ok = true;
    uint32_t options = options_of(flags, &ok);
    if (ok && m->e->regexes)
        return use_cached(m, i, pattern, flags, options);
    pcre2_compile_context *compile = pcre2_compile_context_create(m->memory);
    m->code = ok && compile ? pcre2_compile(pattern.len ? pattern.ptr : (PCRE2_SPTR) "", pattern.len, options, &code,
                                            &at, compile)
                            : NULL;
    m->pattern = pattern;
    m->flags = flags;
    if (!m->code)
        eval_fault(m->e, i, SQL_FAULT_REGEX);
    return m->code;
}

/* How many groups matched; 0: it does not match; -1: a fault of the row. */
static int matcher_run(struct matcher *m, uint32_t i, text_t t, size_t from)
{
    PCRE2_SPTR text = t.len ? t.ptr : (PCRE2_SPTR) "";
    int n = pcre2_match(m->code, text, t.len, from, PCRE2_NO_UTF_CHECK, m->data, m->limits);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter's is on the heap */
        n = pcre2_match(m->code, text, t.len, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data, m->limits);
    if (n > 0)
        return n;
    if (n == 0) /* more groups than are kept */
        return GROUPS_MAX;
    if (n == PCRE2_ERROR_NOMATCH)
        return 0;
    eval_fault(m->e, i, SQL_FAULT_REGEX);
    return -1;
}

static text_t argument(const struct column *const *args, const struct expr *x, uint32_t n, uint32_t i,
                       const char *otherwise)
{
    return n < x->count ? ((const text_t *)args[n]->values)[i & column_mask(args[n])] : slice_str(otherwise);
}

static void match_rows(struct eval *e, const struct expr *x, const struct column *const *args, struct column *ret,
                       struct sel sel, const char *flags, bool wanted)
{
    struct matcher m;
    uint8_t *r = ret->values;
    if (!matcher_begin(&m, e))
        return;
    EACH_ROW(i)
    {
        r[i] = matcher_use(&m, i, argument(args, x, 1, i, ""), argument(args, x, 2, i, flags)) &&
               (matcher_run(&m, i, argument(args, x, 0, i, ""), 0) > 0) == wanted;
    }
}

KERNEL(regex_match)
{
    match_rows(e, x, args, ret, sel, "", true);
}

KERNEL(regex_match_nocase)
{
    match_rows(e, x, args, ret, sel, "i", true);
}

KERNEL(regex_not_match)
{
    match_rows(e, x, args, ret, sel, "", false);
}

KERNEL(regex_not_match_nocase)
{
    match_rows(e, x, args, ret, sel, "i", false);
}

/* The text of a group, 0 is all of it; NULL when it is not part of the match. */
static void extract_rows(struct eval *e, const struct expr *x, const struct column *const *args, struct column *ret,
                         struct sel sel, int64_t otherwise)
{
    struct matcher m;
    text_t *r = ret->values;
    if (!matcher_begin(&m, e))
        return;
    EACH_ROW(i)
    {
        int64_t group = x->count > 2 ? ((const int64_t *)args[2]->values)[i & column_mask(args[2])] : otherwise;
        text_t t = argument(args, x, 0, i, "");
        int count = matcher_use(&m, i, argument(args, x, 1, i, ""), (text_t){0}) ? matcher_run(&m, i, t, 0) : -1;
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m.data);
        if (group < 0 || group >= (int64_t)GROUPS_MAX)
            eval_fault(e, i, SQL_FAULT_ARGUMENT);
        if (count <= 0 || group < 0 || group >= count || at[2 * group] == PCRE2_UNSET)
            eval_null(e, ret, i);
        else
            r[i] = slice_of(t.ptr + at[2 * group], at[2 * group + 1] - at[2 * group]);
    }
}

KERNEL(regex_extract)
{
    extract_rows(e, x, args, ret, sel, 1);
}

KERNEL(regex_substr)
{
    extract_rows(e, x, args, ret, sel, 0);
}

KERNEL(regex_count)
{
    struct matcher m;
    int64_t *r = ret->values;
    if (!matcher_begin(&m, e))
        return;
    EACH_ROW(i)
    {
        text_t t = argument(args, x, 0, i, "");
        r[i] = 0;
        bool ok = matcher_use(&m, i, argument(args, x, 1, i, ""), (text_t){0});
        for (size_t from = 0; ok && from <= t.len && matcher_run(&m, i, t, from) > 0; r[i]++) {
            const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m.data);
            from = at[1] > at[0] ? at[1] : at[1] < t.len ? at[1] + character_len(t, at[1]) : at[1] + 1;
        }
    }
}

/* A text that grows. */
struct built {
    uint8_t *at;
    size_t len, room;
};

static bool build(struct eval *e, uint32_t i, struct built *b, const uint8_t *bytes, size_t len)
{
    if (len > b->room - b->len) {
        size_t room = (b->len + len) * 2 + 64;
        uint8_t *more = room <= KERNEL_TEXT_MAX ? eval_take(e, room) : NULL;
        if (!more) {
            eval_fault(e, i, SQL_FAULT_LIMIT);
            return false;
        }
        if (b->len)
            memcpy(more, b->at, b->len);
        b->at = more;
        b->room = room;
    }
    if (len)
        memcpy(b->at + b->len, bytes, len);
    b->len += len;
    return true;
}

/* \1 … \9 and \& of the replacement are groups. */
static bool build_replacement(struct matcher *m, uint32_t i, struct built *b, text_t t, text_t by, int count)
{
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->data);
    for (size_t k = 0; k < by.len; k++) {
        uint8_t next = by.ptr[k] == '\\' && k + 1 < by.len ? by.ptr[k + 1] : 0;
        int group = next == '&' ? 0 : next >= '0' && next <= '9' ? next - '0' : -1;
        bool ok = true;
        if (group >= 0 && group < count && at[2 * group] != PCRE2_UNSET)
            ok = build(m->e, i, b, t.ptr + at[2 * group], at[2 * group + 1] - at[2 * group]);
        else if (group < 0)
            ok = build(m->e, i, b, by.ptr + k + (next == '\\'), 1);
        k += next && (group >= 0 || next == '\\');
        if (!ok)
            return false;
    }
    return true;
}

static text_t replace(struct matcher *m, uint32_t i, text_t t, text_t by, bool all)
{
    struct built b = {0};
    size_t from = 0, done = 0;
    for (bool more = true; more && from <= t.len;) {
        int count = matcher_run(m, i, t, from);
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->data);
        if (count <= 0)
            break;
        size_t begin = at[0], end = at[1];
        if (!build(m->e, i, &b, t.ptr + done, begin - done) || !build_replacement(m, i, &b, t, by, count))
            return (text_t){0};
        done = end;
        from = end > begin ? end : end < t.len ? end + character_len(t, end) : end + 1;
        more = all;
    }
    if (t.len > done && !build(m->e, i, &b, t.ptr + done, t.len - done))
        return (text_t){0};
    return slice_of(b.at, b.len);
}

KERNEL(regex_replace)
{
    struct matcher m;
    text_t *r = ret->values;
    if (!matcher_begin(&m, e))
        return;
    EACH_ROW(i)
    {
        text_t flags = argument(args, x, 3, i, "");
        r[i] = (text_t){0};
        if (matcher_use(&m, i, argument(args, x, 1, i, ""), flags))
            r[i] = replace(&m, i, argument(args, x, 0, i, ""), argument(args, x, 2, i, ""),
                           flags.len && memchr(flags.ptr, 'g', flags.len));
    }
}
