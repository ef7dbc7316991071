/* The scanner, see json_scan.h.
 *
 * Two kinds of function walk the text: skip_* validate what nobody wants, scan_* follow the trie. Both take the place they
 * stand at and answer the place behind what they read, or NULL after fail(). Strings are walked 16 bytes at a time to the
 * first byte that matters: a quote, a backslash, a control character, or the begin of something beyond ASCII.
 *
 * A node of the trie that has members knows names (struct name): those that are wanted, and up to LEARNED_MAX others that it has
 * met. Name 0 is no name but the begin of an object. `next` of a name are the two names that last came behind it, the newer
 * first: two, as streams often carry two or three kinds of record. Bytes of names are kept with their closing quote, so that one
 * comparison finds that the name is this one and ends here.
 */
#include "fmt/json_scan.h"

#include "base/arena.h"
#include "base/check.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define HEAD 16u        /* bytes of a name that are compared at once */
#define LEARNED_MAX 32u /* names nobody wants, per node */
#define NAME_MAX_LEN 65535u
#define TRIE_MAX (16u << 20)

struct cursor {
    const uint8_t *begin, *end;
    const uint8_t *fault_at;
    const char *why;
    unsigned depth;
};

struct name {
    uint8_t head[HEAD]; /* bytes and quote, filled up with zeroes */
    uint32_t mask;      /* which bytes of head count, as bits */
    uint32_t len;       /* without the quote */
    const uint8_t *bytes;
    struct node *child; /* NULL: nobody wants it */
    uint16_t next[2];   /* 0: none */
};

struct element {
    uint32_t index;
    struct node *child;
};

struct node {
    int slot; /* -1: only what is below is wanted */
    struct name *names;
    uint16_t *table; /* open addressing, of numbers of names */
    uint32_t name_count, name_room, table_mask, learned;
    struct element *elements; /* ascending by index */
    uint32_t element_count, element_room;
    uint64_t seen_in; /* the object in which it was last met: a second time there is a duplicate */
};

struct json_scan {
    struct cursor cursor;
    struct arena arena; /* the trie, and bytes of names */
    struct node root;
    struct json_view *views; /* of the read under way */
    uint64_t objects;        /* met so far */
    unsigned slots;
};

/* ------------------------------------------------------------------------------------------------------ text: atoms */

static __attribute__((cold, noinline)) const uint8_t *fail(struct cursor *c, const uint8_t *at, const char *why)
{
    c->fault_at = at;
    c->why = why;
    return NULL;
}

static inline const uint8_t *skip_space(const uint8_t *p, const uint8_t *end)
{
    while (p < end && *p <= ' ' && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

#ifdef __SSE2__
/* A bit for each of 16 bytes that a string may end or change at. */
static inline unsigned special_bits(const uint8_t *p)
{
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    /* bytes of 0x80 and more are negative, so below space are both of the other two kinds */
    __m128i hit =
        _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))),
                     _mm_cmplt_epi8(v, _mm_set1_epi8(' ')));
    return (unsigned)_mm_movemask_epi8(hit);
}
#endif

/* The first byte from p on that is a quote, a backslash, a control character or not ASCII; or the end. */
static inline const uint8_t *plain_end(const uint8_t *p, const uint8_t *end)
{
#ifdef __SSE2__
    for (; end - p >= 32; p += 32) { /* 32 at once: most strings end within, and the branch is always the same */
        unsigned bits = special_bits(p) | special_bits(p + 16) << 16;
        if (bits)
            return p + __builtin_ctz(bits);
    }
    if (end - p >= 16) {
        unsigned bits = special_bits(p);
        if (bits)
            return p + __builtin_ctz(bits);
        p += 16;
    }
#else
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    for (; end - p >= 8; p += 8) {
        uint64_t v;
        memcpy(&v, p, sizeof v);
        uint64_t q = v ^ (ones * '"'), b = v ^ (ones * '\\');
        uint64_t hit = ((q - ones) & ~q) | ((b - ones) & ~b) | (v - ones * ' ') | v;
        if (hit & tops)
            break; /* which one it is, the loop below finds */
    }
#endif
    while (p < end && *p != '"' && *p != '\\' && (int8_t)*p >= ' ')
        p++;
    return p;
}

static inline bool follows(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/* Behind the run of characters beyond ASCII that begins at p. No overlong forms, no surrogates, nothing above U+10FFFF. */
static const uint8_t *wide_end(struct cursor *c, const uint8_t *p)
{
    while (p < c->end && *p >= 0x80) {
        size_t left = (size_t)(c->end - p);
        uint8_t a = *p;
        if (a >= 0xc2 && a <= 0xdf && left >= 2 && follows(p[1])) {
            p += 2;
            continue;
        }
        uint8_t least = a == 0xe0 ? 0xa0 : a == 0xf0 ? 0x90 : 0x80, most = a == 0xed ? 0x9f : a == 0xf4 ? 0x8f : 0xbf;
        size_t len = a >= 0xe0 && a <= 0xef ? 3 : a >= 0xf0 && a <= 0xf4 ? 4 : SIZE_MAX;
        if (left < len || p[1] < least || p[1] > most || !follows(p[2]) || (len == 4 && !follows(p[3])))
            return fail(c, p, "bytes that are no UTF-8");
        p += len;
    }
    return p;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits at p; -1: they are none. */
static int32_t hex4(const uint8_t *p, const uint8_t *end)
{
    int32_t unit = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(p[i]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

/* Behind the escape whose backslash is at p. */
static const uint8_t *escape_end(struct cursor *c, const uint8_t *p)
{
    if (c->end - p < 2)
        return fail(c, p, "a string that does not end");
    if (p[1] != 'u')
        return memchr("\"\\/bfnrt", p[1], 8) ? p + 2 : fail(c, p, "an escape that there is not");
    int32_t unit = hex4(p + 2, c->end);
    if (unit < 0)
        return fail(c, p, "\\u without four digits");
    if (unit < 0xd800 || unit > 0xdfff)
        return p + 6;
    int32_t low = unit < 0xdc00 && c->end - p >= 8 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8, c->end) : -1;
    return low >= 0xdc00 && low <= 0xdfff ? p + 12 : fail(c, p, "half of a surrogate pair");
}

/* From behind the opening quote to the closing one. */
static inline const uint8_t *string_end(struct cursor *c, const uint8_t *p, bool *ret_escaped)
{
    bool escaped = false;
    for (;;) {
        p = plain_end(p, c->end);
        if (p == c->end)
            return fail(c, p, "a string that does not end");
        if (*p == '"') {
            *ret_escaped = escaped;
            return p;
        }
        if (*p == '\\') {
            escaped = true;
            p = escape_end(c, p);
        } else if (*p < ' ') {
            return fail(c, p, "a control character in a string");
        } else {
            p = wide_end(c, p);
        }
        if (!p)
            return NULL;
    }
}

static inline bool digit_at(const uint8_t *p, const uint8_t *end)
{
    return p < end && (uint8_t)(*p - '0') <= 9;
}

static const uint8_t *digits_end(const uint8_t *p, const uint8_t *end)
{
    while (digit_at(p, end))
        p++;
    return p;
}

/* What may follow the digits before the point. */
static const uint8_t *fraction_end(struct cursor *c, const uint8_t *p)
{
    if (p < c->end && *p == '.') {
        if (!digit_at(p + 1, c->end))
            return fail(c, p, "a point without a digit behind it");
        p = digits_end(p + 1, c->end);
    }
    if (p < c->end && (*p | 0x20) == 'e') {
        p++;
        if (p < c->end && (*p == '+' || *p == '-'))
            p++;
        if (!digit_at(p, c->end))
            return fail(c, p, "an exponent without a digit");
        p = digits_end(p, c->end);
    }
    return p;
}

/* p is at a minus or a digit. */
static inline const uint8_t *number_end(struct cursor *c, const uint8_t *p, struct json_view *view)
{
    const uint8_t *start = p;
    bool minus = *p == '-';
    p += minus;
    if (!digit_at(p, c->end))
        return fail(c, start, "a minus without a digit behind it");
    const uint8_t *first = p;
    uint64_t n = 0;
    if (*p == '0')
        p++;
    else
        for (; digit_at(p, c->end); p++)
            n = n * 10 + (uint64_t)(*p - '0');
    bool whole = p - first <= 19 && n <= (uint64_t)INT64_MAX + minus; /* 19 digits do not wrap */
    if (p < c->end && (*p == '.' || (*p | 0x20) == 'e')) {
        whole = false;
        p = fraction_end(c, p);
        if (!p)
            return NULL;
    }
    if (p - start > (ptrdiff_t)JSON_SCAN_NUMBER_MAX)
        return fail(c, start, "a number of too many digits");
    view->kind = whole ? JSON_VIEW_INT : JSON_VIEW_NUMBER;
    view->number = whole ? (int64_t)(minus ? 0 - n : n) : 0;
    return p;
}

static inline const uint8_t *word_end(struct cursor *c, const uint8_t *p, const char *word, size_t len)
{
    if ((size_t)(c->end - p) < len || memcmp(p, word, len) != 0)
        return fail(c, p, "neither a value nor true, false or null");
    return p + len;
}

/* Anything that is no container; its view but for `at` and `len`. */
static inline const uint8_t *scalar_end(struct cursor *c, const uint8_t *p, struct json_view *view)
{
    switch (*p) {
    case 't': view->kind = JSON_VIEW_TRUE; return word_end(c, p, "true", 4);
    case 'f': view->kind = JSON_VIEW_FALSE; return word_end(c, p, "false", 5);
    case 'n': view->kind = JSON_VIEW_NULL; return word_end(c, p, "null", 4);
    default:
        if (*p == '-' || digit_at(p, c->end))
            return number_end(c, p, view);
        return fail(c, p, "neither a value nor true, false or null");
    }
}

/* Behind the comma, and the white space after it, that stands before another item; or at the closing bracket; NULL. */
static inline const uint8_t *item_behind(struct cursor *c, const uint8_t *p, uint8_t closing)
{
    p = skip_space(p, c->end);
    if (p < c->end && *p == closing)
        return p;
    if (p == c->end || *p != ',')
        return fail(c, p,
                    closing == '}' ? "expected a comma or a closing brace" : "expected a comma or a closing bracket");
    p = skip_space(p + 1, c->end);
    if (p < c->end && *p == closing)
        return fail(c, p, "a comma with nothing behind it");
    return p;
}

/* From behind a name's closing quote to the value. */
static inline const uint8_t *colon_behind(struct cursor *c, const uint8_t *p)
{
    if (p < c->end && *p != ':')
        p = skip_space(p, c->end);
    if (p == c->end || *p != ':')
        return fail(c, p, "expected a colon");
    return skip_space(p + 1, c->end);
}

/* ------------------------------------------------------------------------------------------- text: what is not wanted */

static const uint8_t *skip_value(struct cursor *c, const uint8_t *p);

/* p is at the opening brace or bracket. */
static const uint8_t *skip_container(struct cursor *c, const uint8_t *p)
{
    uint8_t closing = *p == '{' ? '}' : ']';
    if (++c->depth > JSON_SCAN_DEPTH_MAX)
        return fail(c, p, "nested too deeply");
    p = skip_space(p + 1, c->end);
    while (p && (p == c->end || *p != closing)) {
        if (closing == '}') {
            bool escaped;
            if (p == c->end || *p != '"')
                return fail(c, p, "expected a member's name");
            p = string_end(c, p + 1, &escaped);
            if (p)
                p = colon_behind(c, p + 1);
        }
        if (p)
            p = skip_value(c, p);
        if (p)
            p = item_behind(c, p, closing);
    }
    c->depth--;
    return p ? p + 1 : NULL;
}

static const uint8_t *skip_value(struct cursor *c, const uint8_t *p)
{
    struct json_view view;
    bool escaped;
    if (p == c->end)
        return fail(c, p, "expected a value");
    if (*p == '"') {
        p = string_end(c, p + 1, &escaped);
        return p ? p + 1 : NULL;
    }
    return *p == '{' || *p == '[' ? skip_container(c, p) : scalar_end(c, p, &view);
}

/* -------------------------------------------------------------------------------------------------------- the trie */

static uint32_t hash_of(struct slice key)
{
    uint64_t h = key.len * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < key.len; i++)
        h = (h ^ key.ptr[i]) * 0x100000001b3u;
    return (uint32_t)(h ^ (h >> 32));
}

static uint32_t name_find(const struct node *node, struct slice key)
{
    for (uint32_t i = hash_of(key) & node->table_mask;; i = (i + 1) & node->table_mask) {
        uint16_t at = node->table[i];
        if (!at || (node->names[at].len == key.len && memcmp(node->names[at].bytes, key.ptr, key.len) == 0))
            return at;
    }
}

static void name_index(struct node *node, uint32_t number)
{
    struct name *name = &node->names[number];
    uint32_t i = hash_of(slice_of(name->bytes, name->len)) & node->table_mask;
    while (node->table[i])
        i = (i + 1) & node->table_mask;
    node->table[i] = (uint16_t)number;
}

/* The caller has made room; bytes has a quote behind its last. */
static uint32_t name_add(struct node *node, const uint8_t *bytes, size_t len)
{
    uint32_t number = node->name_count++;
    struct name *name = &node->names[number];
    size_t head = len + 1 < HEAD ? len + 1 : HEAD;
    *name = (struct name){.bytes = bytes, .len = (uint32_t)len, .mask = (1u << head) - 1};
    memcpy(name->head, bytes, head);
    name_index(node, number);
    return number;
}

static uint8_t *copy_quoted(struct json_scan *scan, struct slice key)
{
    uint8_t *bytes = arena_take(&scan->arena, key.len + 1);
    if (!bytes)
        return NULL;
    if (key.len)
        memcpy(bytes, key.ptr, key.len);
    bytes[key.len] = '"';
    return bytes;
}

/* Room for one more wanted name and all that may be learned. What it replaces stays in the arena: the trie is built once. */
static bool names_reserve(struct json_scan *scan, struct node *node)
{
    uint32_t need = node->name_count + 1 + LEARNED_MAX;
    if (node->names && need <= node->name_room)
        return true;
    uint32_t room = need * 2, table = 64;
    while (table < room * 2)
        table *= 2;
    struct name *names = arena_take(&scan->arena, room * sizeof *names);
    uint16_t *slots = arena_take(&scan->arena, table * sizeof *slots);
    if (!names || !slots)
        return false;
    memset(slots, 0, table * sizeof *slots);
    if (node->names)
        memcpy(names, node->names, node->name_count * sizeof *names);
    else
        names[0] = (struct name){.mask = UINT32_MAX};
    node->names = names;
    node->table = slots;
    node->name_room = room;
    node->table_mask = table - 1;
    node->name_count = node->name_count ? node->name_count : 1;
    for (uint32_t i = 1; i < node->name_count; i++)
        name_index(node, i);
    return true;
}

static struct node *node_new(struct json_scan *scan)
{
    struct node *node = arena_take(&scan->arena, sizeof *node);
    if (node)
        *node = (struct node){.slot = -1};
    return node;
}

static struct node *child_by_name(struct json_scan *scan, struct node *node, struct slice key)
{
    if (key.len > NAME_MAX_LEN || node->name_count + 2 + LEARNED_MAX > UINT16_MAX || !names_reserve(scan, node))
        return NULL;
    uint32_t number = name_find(node, key);
    if (number && node->names[number].child)
        return node->names[number].child;
    struct node *child = node_new(scan);
    uint8_t *bytes = child && !number ? copy_quoted(scan, key) : NULL;
    if (!child || (!number && !bytes))
        return NULL;
    if (!number)
        number = name_add(node, bytes, key.len);
    node->names[number].child = child;
    return child;
}

static struct node *child_by_index(struct json_scan *scan, struct node *node, uint32_t index)
{
    uint32_t at = 0;
    while (at < node->element_count && node->elements[at].index < index)
        at++;
    if (at < node->element_count && node->elements[at].index == index)
        return node->elements[at].child;
    if (node->element_count == node->element_room) {
        uint32_t room = node->element_room ? 2 * node->element_room : 4;
        struct element *more = arena_take(&scan->arena, room * sizeof *more);
        if (!more)
            return NULL;
        if (node->element_count)
            memcpy(more, node->elements, node->element_count * sizeof *more);
        node->elements = more;
        node->element_room = room;
    }
    struct node *child = node_new(scan);
    if (!child)
        return NULL;
    memmove(node->elements + at + 1, node->elements + at, (node->element_count - at) * sizeof *node->elements);
    node->elements[at] = (struct element){.index = index, .child = child};
    node->element_count++;
    return child;
}

struct json_scan *json_scan_new(void)
{
    struct json_scan *scan = mem_zalloc(sizeof *scan);
    if (!scan)
        return NULL;
    arena_init(&scan->arena, TRIE_MAX);
    scan->root.slot = -1;
    return scan;
}

void json_scan_free(struct json_scan **scan)
{
    if (*scan)
        arena_fini(&(*scan)->arena);
    mem_free(*scan);
    *scan = NULL;
}

int json_scan_want(struct json_scan *scan, const struct json_step *steps, unsigned count)
{
    if (count > JSON_SCAN_STEPS_MAX)
        return -1;
    struct node *node = &scan->root;
    for (unsigned i = 0; i < count && node; i++)
        node = steps[i].key.ptr ? child_by_name(scan, node, steps[i].key) : child_by_index(scan, node, steps[i].index);
    if (!node || (node->slot < 0 && scan->slots == JSON_SCAN_SLOTS_MAX))
        return -1;
    if (node->slot < 0)
        node->slot = (int)scan->slots++;
    return node->slot;
}

unsigned json_scan_slots(const struct json_scan *scan)
{
    return scan->slots;
}

/* ----------------------------------------------------------------------------------------------- text: what is wanted */

static const uint8_t *scan_value(struct json_scan *s, struct node *node, const uint8_t *p);

/* A member came a second time: what the first one had below it does not count. */
static void forget(struct json_scan *s, struct node *node)
{
    if (node->slot >= 0)
        s->views[node->slot] = (struct json_view){0};
    for (uint32_t i = 1; i < node->name_count; i++)
        if (node->names[i].child)
            forget(s, node->names[i].child);
    for (uint32_t i = 0; i < node->element_count; i++)
        forget(s, node->elements[i].child);
}

static inline bool name_is(const struct name *name, const uint8_t *p, const uint8_t *end)
{
    if ((size_t)(end - p) <= name->len)
        return false;
#ifdef __SSE2__
    if (end - p >= (ptrdiff_t)HEAD) {
        __m128i same = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)p),
                                      _mm_loadu_si128((const __m128i *)(const void *)name->head));
        if (((unsigned)_mm_movemask_epi8(same) & name->mask) != name->mask)
            return false;
        return name->len < HEAD || memcmp(p + HEAD, name->bytes + HEAD, name->len + 1 - HEAD) == 0;
    }
#endif
    return memcmp(p, name->bytes, name->len + 1) == 0;
}

/* The name at p when it is one of the two that came here before; 0: neither. */
static inline uint32_t name_guess(const struct node *node, uint32_t before, const uint8_t *p, const uint8_t *end)
{
    const uint16_t *next = node->names[before].next;
    if (next[0] && name_is(&node->names[next[0]], p, end))
        return next[0];
    return next[1] && name_is(&node->names[next[1]], p, end) ? next[1] : 0;
}

/* A name whose bytes have escapes is short enough to matter only when it is wanted, and those are known. */
static uint32_t name_find_escaped(const struct node *node, const uint8_t *at, size_t len)
{
    uint8_t plain[512];
    const struct json_view view = {.at = at, .len = (uint32_t)len, .kind = JSON_VIEW_STRING, .escaped = true};
    if (len <= sizeof plain)
        return name_find(node, slice_of(plain, json_view_text(&view, plain)));
    for (uint32_t i = 1; i < node->name_count; i++) { /* long ones: compared as they are decoded */
        const struct name *name = &node->names[i];
        if (name->child && json_view_is(&view, slice_of(name->bytes, name->len)))
            return i;
    }
    return 0;
}

/* Reads the name at p in full, learns it when there is room, and remembers that it came behind `before`. */
static const uint8_t *name_read(struct json_scan *s, struct node *node, uint32_t before, const uint8_t *p,
                                uint32_t *ret_name)
{
    bool escaped;
    const uint8_t *end = string_end(&s->cursor, p, &escaped);
    if (!end)
        return NULL;
    size_t len = (size_t)(end - p);
    uint32_t number = escaped ? name_find_escaped(node, p, len) : name_find(node, slice_of(p, len));
    if (!number && !escaped && len < 256 && node->learned < LEARNED_MAX) {
        uint8_t *bytes = copy_quoted(s, slice_of(p, len));
        if (bytes) { /* without memory it stays unknown, which only costs time */
            node->learned++;
            number = name_add(node, bytes, len);
        }
    }
    if (number && !escaped) {
        uint16_t *next = node->names[before].next;
        next[1] = next[0];
        next[0] = (uint16_t)number;
    }
    *ret_name = number;
    return end + 1;
}

/* p is behind the opening brace. */
static const uint8_t *scan_object(struct json_scan *s, struct node *node, const uint8_t *p)
{
    struct cursor *c = &s->cursor;
    uint64_t object = ++s->objects;
    uint32_t before = 0;
    p = skip_space(p, c->end);
    while (p && (p == c->end || *p != '}')) {
        if (p == c->end || *p != '"')
            return fail(c, p, "expected a member's name");
        uint32_t number = name_guess(node, before, p + 1, c->end);
        p = number ? p + node->names[number].len + 2 : name_read(s, node, before, p + 1, &number);
        if (p)
            p = colon_behind(c, p);
        if (!p)
            return NULL;
        struct node *child = number ? node->names[number].child : NULL;
        if (child) {
            if (child->seen_in == object)
                forget(s, child);
            child->seen_in = object;
            p = scan_value(s, child, p);
        } else {
            p = skip_value(c, p);
        }
        before = number ? number : before;
        if (p)
            p = item_behind(c, p, '}');
    }
    return p ? p + 1 : NULL;
}

/* p is behind the opening bracket. */
static const uint8_t *scan_array(struct json_scan *s, struct node *node, const uint8_t *p)
{
    struct cursor *c = &s->cursor;
    uint32_t index = 0, next = 0;
    p = skip_space(p, c->end);
    while (p && (p == c->end || *p != ']')) {
        if (next < node->element_count && node->elements[next].index == index)
            p = scan_value(s, node->elements[next++].child, p);
        else
            p = skip_value(c, p);
        index++;
        if (p)
            p = item_behind(c, p, ']');
    }
    return p ? p + 1 : NULL;
}

static const uint8_t *scan_container(struct json_scan *s, struct node *node, const uint8_t *p)
{
    struct cursor *c = &s->cursor;
    bool object = *p == '{';
    if (object ? !node->names : !node->element_count)
        return skip_container(c, p);
    if (++c->depth > JSON_SCAN_DEPTH_MAX)
        return fail(c, p, "nested too deeply");
    p = object ? scan_object(s, node, p + 1) : scan_array(s, node, p + 1);
    c->depth--;
    return p;
}

static const uint8_t *scan_value(struct json_scan *s, struct node *node, const uint8_t *p)
{
    struct cursor *c = &s->cursor;
    const uint8_t *start = p;
    struct json_view view = {.at = p};
    if (p == c->end)
        return fail(c, p, "expected a value");
    if (*p == '"') {
        view.kind = JSON_VIEW_STRING;
        view.at = ++start;
        p = string_end(c, p + 1, &view.escaped);
    } else if (*p == '{' || *p == '[') {
        view.kind = *p == '{' ? JSON_VIEW_OBJECT : JSON_VIEW_ARRAY;
        p = scan_container(s, node, p);
    } else {
        p = scalar_end(c, p, &view);
    }
    if (!p)
        return NULL;
    view.len = (uint32_t)(p - start);
    if (node->slot >= 0)
        s->views[node->slot] = view;
    return p + (view.kind == JSON_VIEW_STRING);
}

bool json_scan_read(struct json_scan *scan, struct slice text, struct json_view *ret_views,
                    struct json_fault *ret_fault)
{
    struct cursor *c = &scan->cursor;
    if (text.len >= UINT32_MAX || !text.len) {
        *ret_fault = (struct json_fault){.why = text.len ? "a text of 4 GiB or more" : "expected a value"};
        return false;
    }
    *c = (struct cursor){.begin = text.ptr, .end = text.ptr + text.len};
    memset(ret_views, 0, scan->slots * sizeof *ret_views);
    scan->views = ret_views;
    const uint8_t *p = scan_value(scan, &scan->root, skip_space(text.ptr, c->end));
    if (p) {
        p = skip_space(p, c->end);
        if (p == c->end)
            return true;
        fail(c, p, "something behind the end of the value");
    }
    *ret_fault = (struct json_fault){.at = (size_t)(c->fault_at - c->begin), .why = c->why};
    return false;
}

/* ------------------------------------------------------------------------------------------------------------ views */

static size_t put_utf8(uint32_t code, uint8_t *out)
{
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (uint8_t)(0xc0 | code >> 6);
        out[1] = (uint8_t)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (uint8_t)(0xe0 | code >> 12);
        out[1] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | code >> 18);
    out[1] = (uint8_t)(0x80 | (code >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (code & 0x3f));
    return 4;
}

/* Decodes the escape at *p, which the scan has accepted, into at most 4 bytes and steps behind it. */
static size_t put_escape(const uint8_t **p, const uint8_t *end, uint8_t *out)
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    uint8_t kind = (*p)[1];
    if (kind != 'u') {
        const char *found = memchr(from, kind, sizeof from - 1);
        *out = found ? (uint8_t)to[found - from] : kind;
        *p += 2;
        return 1;
    }
    uint32_t code = (uint32_t)hex4(*p + 2, end);
    *p += 6;
    if (code >= 0xd800 && code <= 0xdfff) {
        code = 0x10000 + ((code - 0xd800) << 10) + ((uint32_t)hex4(*p + 2, end) - 0xdc00);
        *p += 6;
    }
    return put_utf8(code, out);
}

size_t json_view_text(const struct json_view *view, uint8_t *out)
{
    if (!view->escaped) {
        if (view->len)
            memcpy(out, view->at, view->len);
        return view->len;
    }
    const uint8_t *p = view->at, *end = p + view->len;
    size_t len = 0;
    while (p < end) {
        const uint8_t *back = memchr(p, '\\', (size_t)(end - p));
        size_t plain = (size_t)((back ? back : end) - p);
        memcpy(out + len, p, plain);
        len += plain;
        p += plain;
        if (back)
            len += put_escape(&p, end, out + len);
    }
    return len;
}

bool json_view_is(const struct json_view *view, struct slice text)
{
    if (!view->escaped)
        return slice_equal(slice_of(view->at, view->len), text);
    const uint8_t *p = view->at, *end = p + view->len;
    while (p < end) {
        uint8_t one[4] = {*p};
        size_t len = 1;
        if (*p == '\\')
            len = put_escape(&p, end, one);
        else
            p++;
        if (len > text.len || memcmp(one, text.ptr, len) != 0)
            return false;
        text = slice_of(text.ptr + len, text.len - len);
    }
    return text.len == 0;
}

/* Mantissas up to 2^53 and powers of ten up to 22 are exact in a double, and so is one operation on them rounded once. */
static bool double_exact(const struct json_view *view, double *ret)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const uint8_t *p = view->at, *end = p + view->len;
    bool minus = *p == '-', behind = false;
    uint64_t n = 0;
    int scale = 0, digits = 0;
    for (p += minus; p < end && (*p | 0x20) != 'e'; p++) {
        if (*p == '.') {
            behind = true;
            continue;
        }
        n = n * 10 + (uint64_t)(*p - '0');
        digits += n != 0;
        scale += behind;
        if (digits > 15)
            return false;
    }
    if (p < end || scale > 22)
        return false;
    double value = (double)n / powers[scale];
    *ret = minus ? -value : value;
    return true;
}

bool json_view_double(const struct json_view *view, double *ret)
{
    if (view->kind == JSON_VIEW_INT) {
        *ret = (double)view->number;
        return true;
    }
    if (view->kind != JSON_VIEW_NUMBER)
        return false;
    if (double_exact(view, ret))
        return true;
    char text[JSON_SCAN_NUMBER_MAX + 1];
    CHECK(view->len < sizeof text);
    memcpy(text, view->at, view->len);
    text[view->len] = 0;
    double value = strtod(text, NULL);
    if (!isfinite(value))
        return false;
    *ret = value;
    return true;
}

/* The view of the value at p in a text that is known to be well formed; answers the place behind it, or NULL. */
static const uint8_t *view_at(const uint8_t *p, const uint8_t *end, struct json_view *ret)
{
    struct cursor c = {.begin = p, .end = end};
    struct json_view view = {.at = p};
    const uint8_t *behind;
    if (p == end)
        return NULL;
    if (*p == '"') {
        view.kind = JSON_VIEW_STRING;
        view.at = p + 1;
        behind = string_end(&c, p + 1, &view.escaped);
    } else if (*p == '{' || *p == '[') {
        view.kind = *p == '{' ? JSON_VIEW_OBJECT : JSON_VIEW_ARRAY;
        behind = skip_container(&c, p);
    } else {
        behind = scalar_end(&c, p, &view);
    }
    if (!behind)
        return NULL;
    view.len = (uint32_t)(behind - view.at);
    *ret = view;
    return behind + (view.kind == JSON_VIEW_STRING);
}

struct json_items json_items_of(const struct json_view *container)
{
    struct json_items items = {.object = container->kind == JSON_VIEW_OBJECT};
    if (container->kind == JSON_VIEW_OBJECT || container->kind == JSON_VIEW_ARRAY) {
        items.end = container->at + container->len - 1; /* the closing one is not an item */
        items.at = skip_space(container->at + 1, items.end);
    }
    return items;
}

bool json_items_next(struct json_items *items, struct json_view *ret_name, struct json_view *ret_value)
{
    const uint8_t *p = items->at, *end = items->end;
    *ret_name = (struct json_view){0};
    if (p == end)
        return false;
    items->at = items->end;
    if (items->object) {
        struct cursor c = {.begin = p, .end = end};
        p = view_at(p, end, ret_name);
        p = p ? colon_behind(&c, p) : NULL;
    }
    p = p ? view_at(p, end, ret_value) : NULL;
    if (!p)
        return false;
    p = skip_space(p, end);
    if (p < end)
        items->at = skip_space(p + 1, end); /* behind the comma */
    return true;
}

bool json_view_member(const struct json_view *object, struct slice name, struct json_view *ret)
{
    if (object->kind != JSON_VIEW_OBJECT)
        return false;
    struct json_items items = json_items_of(object);
    struct json_view key, value;
    bool found = false;
    while (json_items_next(&items, &key, &value))
        if (json_view_is(&key, name)) {
            *ret = value;
            found = true;
        }
    return found;
}

bool json_view_element(const struct json_view *array, int64_t position, struct json_view *ret)
{
    if (array->kind != JSON_VIEW_ARRAY)
        return false;
    struct json_view none, value;
    struct json_items items = json_items_of(array);
    if (position < 0) {
        while (json_items_next(&items, &none, &value))
            position++;
        items = json_items_of(array);
    }
    for (; position >= 0 && json_items_next(&items, &none, &value); position--)
        if (position == 0) {
            *ret = value;
            return true;
        }
    return false;
}

bool json_view_of(struct slice text, struct json_view *ret, struct json_fault *ret_fault)
{
    struct cursor c = {.begin = text.ptr, .end = text.ptr + text.len};
    if (!text.len || text.len >= UINT32_MAX) {
        *ret_fault = (struct json_fault){.why = text.len ? "a text of 4 GiB or more" : "expected a value"};
        return false;
    }
    const uint8_t *start = skip_space(text.ptr, c.end);
    const uint8_t *p = skip_value(&c, start);
    if (p && skip_space(p, c.end) != c.end)
        p = fail(&c, skip_space(p, c.end), "something behind the end of the value");
    if (!p) {
        *ret_fault = (struct json_fault){.at = (size_t)(c.fault_at - c.begin), .why = c.why};
        return false;
    }
    return view_at(start, p, ret) != NULL;
}
