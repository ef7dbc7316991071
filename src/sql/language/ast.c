/* What can be done with any node, see ast.h: the fields of a kind are a string, a letter for each, and lie one after the other. */
#include "sql/language/ast.h"

#include "base/check.h"

/* clang-format off */
static const struct {
    const char *text, *fields;
    size_t size;
} kinds[] = {
#define TEXT(field) "t"
#define NAMES(field) "n"
#define CHILD(field) "c"
#define LIST(field) "l"
#define INT(field) "i"
#define NODE(KIND, name, ...) {#KIND, __VA_ARGS__, sizeof(struct ast_##name)},
#include "sql/language/ast.def"
#undef NODE
#undef TEXT
#undef NAMES
#undef CHILD
#undef LIST
#undef INT
};
/* clang-format on */

static const struct {
    const char *text;
    int power;
    bool chained;
} operators[] = {
#define OPERATOR(name, keyword, symbol, text, power, chained) {text, power, chained},
#include "sql/language/operators.def"
#undef OPERATOR
};

const char *ast_op_text(enum ast_op op)
{
    return operators[op].text;
}

int ast_op_power(enum ast_op op)
{
    return operators[op].power;
}

bool ast_op_chained(enum ast_op op)
{
    return operators[op].chained;
}

const char *ast_unit_text(enum ast_unit unit)
{
    static const char *const texts[UNITS] = {"",     "YEAR",   "MONTH",  "WEEK",       "DAY",
                                             "HOUR", "MINUTE", "SECOND", "MILLISECOND"};
    return texts[unit];
}

const char *ast_windowed_text(enum ast_windowed_kind what)
{
    static const char *const texts[WINDOWED_KINDS] = {"TUMBLE", "HOP", "CUMULATE", "SESSION"};
    return texts[what];
}

const char *ast_kind_text(unsigned kind)
{
    return kinds[kind].text;
}

size_t ast_size(unsigned kind)
{
    return kinds[kind].size;
}

static size_t field_size(char kind)
{
    return kind == 'c' || kind == 'i' ? 8 : 16;
}

/* A walk over a node's fields. */
struct fields {
    const char *kind;
    const uint8_t *at;
};

static struct fields fields_of(const struct ast *node)
{
    _Static_assert(sizeof(struct ast_list) == 16 && sizeof(struct ast_names) == 16 && sizeof(struct slice) == 16 &&
                       sizeof(void *) == 8,
                   "sizes of fields");
    /* struct ast is 12 bytes and the first field is aligned to 8 */
    return (struct fields){.kind = kinds[node->kind].fields, .at = (const uint8_t *)node + 16};
}

static void fields_next(struct fields *f)
{
    f->at += field_size(*f->kind++);
}

static bool text_equal(const struct slice *a, const struct slice *b)
{
    return !a->ptr == !b->ptr && slice_equal(*a, *b);
}

static bool names_equal(const struct ast_names *a, const struct ast_names *b)
{
    for (size_t i = 0; a->count == b->count && i < a->count; i++)
        if (!slice_equal(a->at[i], b->at[i]))
            return false;
    return a->count == b->count;
}

static bool lists_equal(const struct ast_list *a, const struct ast_list *b)
{
    for (size_t i = 0; a->count == b->count && i < a->count; i++)
        if (!ast_equal(a->at[i], b->at[i]))
            return false;
    return a->count == b->count;
}

bool ast_equal(const struct ast *a, const struct ast *b)
{
    if (!a || !b || a->kind != b->kind)
        return a == b;
    struct fields fa = fields_of(a), fb = fields_of(b);
    bool same = true;
    for (; same && *fa.kind; fields_next(&fa), fields_next(&fb)) {
        const void *x = fa.at, *y = fb.at;
        switch (*fa.kind) {
        case 't': same = text_equal(x, y); break;
        case 'n': same = names_equal(x, y); break;
        case 'c': same = ast_equal(*(struct ast *const *)x, *(struct ast *const *)y); break;
        case 'l': same = lists_equal(x, y); break;
        default: same = *(const int64_t *)x == *(const int64_t *)y; break;
        }
    }
    return same;
}

/* FNV-1a: these are kept in snapshots, so it stays what it is. */
static uint64_t hash_bytes(uint64_t h, const void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        h = (h ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3u;
    return h;
}

static uint64_t hash_number(uint64_t h, uint64_t v)
{
    return hash_bytes(h, &v, sizeof v);
}

static uint64_t hash_text(uint64_t h, const struct slice *text)
{
    return hash_bytes(hash_number(h, text->ptr ? text->len : UINT64_MAX), text->ptr, text->ptr ? text->len : 0);
}

/* As ast_equal compares. */
uint64_t ast_hash(const struct ast *node, uint64_t seed)
{
    if (!node)
        return hash_number(seed, UINT64_MAX);
    uint64_t h = hash_text(
        seed, &(struct slice){.ptr = (const uint8_t *)kinds[node->kind].text, .len = strlen(kinds[node->kind].text)});
    for (struct fields f = fields_of(node); *f.kind; fields_next(&f)) {
        const struct ast_names *names = (const void *)f.at;
        const struct ast_list *list = (const void *)f.at;
        switch (*f.kind) {
        case 't': h = hash_text(h, (const void *)f.at); break;
        case 'c': h = ast_hash(*(struct ast *const *)(const void *)f.at, h); break;
        case 'n':
            h = hash_number(h, names->count);
            for (size_t i = 0; i < names->count; i++)
                h = hash_text(h, &names->at[i]);
            break;
        case 'l':
            h = hash_number(h, list->count);
            for (size_t i = 0; i < list->count; i++)
                h = ast_hash(list->at[i], h);
            break;
        default: h = hash_number(h, (uint64_t) * (const int64_t *)(const void *)f.at); break;
        }
    }
    return h;
}

bool ast_each_child(const struct ast *node, bool (*visit)(const struct ast *child, void *arg), void *arg)
{
    struct fields f = fields_of(node);
    for (; *f.kind; fields_next(&f)) {
        const struct ast *const *child = (const void *)f.at;
        const struct ast_list *list = (const void *)f.at;
        if (*f.kind == 'c' && *child && !visit(*child, arg))
            return false;
        for (size_t i = 0; *f.kind == 'l' && i < list->count; i++)
            if (!visit(list->at[i], arg))
                return false;
    }
    return true;
}

static bool deepest(const struct ast *child, void *arg)
{
    unsigned *most = arg;
    if (child->depth > *most)
        *most = child->depth;
    return true;
}

bool ast_measure(struct ast *node, unsigned most)
{
    unsigned below = 0;
    ast_each_child(node, deepest, &below);
    CHECK(below < UINT16_MAX);
    node->depth = (uint16_t)(below + 1);
    return below < most;
}
