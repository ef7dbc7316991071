/* Finding what expressions have in common, see eval.h. Two nodes are the same when everything in them is and their arguments are the same
 * nodes, so children come first. Only what calls a kernel is worth a memo: a column is there already. */
#include "sql/language/eval.h"

#include "sql/language/function.h"

#define SHARED_MAX 256u /* nodes that are looked at; behind them nothing is shared, which costs time only */

struct sharer {
    struct expr *seen[SHARED_MAX];
    uint32_t count, memos;
};

static bool same_constant(const struct expr *a, const struct expr *b)
{
    bool null = column_null(&a->constant, 0);
    if (null != column_null(&b->constant, 0))
        return false;
    if (null)
        return true;
    if (a->constant.form == FORM_TEXT)
        return slice_equal(*(const struct slice *)a->constant.values, *(const struct slice *)b->constant.values);
    return memcmp(a->constant.values, b->constant.values, form_size(a->constant.form)) == 0;
}

static bool same(const struct expr *a, const struct expr *b)
{
    if (a == b)
        return true;
    if (a->op != b->op || a->kernel != b->kernel || a->function != b->function || a->count != b->count ||
        a->negated != b->negated || a->soft != b->soft || a->column != b->column || a->number != b->number ||
        !type_equal(&a->type, &b->type))
        return false;
    if (a->op == EXPR_CONST)
        return same_constant(a, b);
    for (uint32_t i = 0; i < a->count; i++)
        if (!same(a->args[i], b->args[i]))
            return false;
    return true;
}

static void visit(struct sharer *s, struct expr **at)
{
    struct expr *x = *at;
    for (uint32_t i = 0; i < s->count; i++)
        if (same(s->seen[i], x)) {
            *at = s->seen[i];
            if (x->op == EXPR_CALL && x->kernel && !s->seen[i]->memo)
                s->seen[i]->memo = ++s->memos;
            return;
        }
    if (x->op == EXPR_CONST || x->op == EXPR_COLUMN)
        return;
    for (uint32_t i = 0; i < x->count; i++)
        visit(s, &x->args[i]);
    x->memo = 0;
    if (s->count < SHARED_MAX)
        s->seen[s->count++] = x;
}

uint32_t expr_share(struct expr **roots, uint32_t count)
{
    struct sharer s = {.count = 0};
    for (uint32_t i = 0; i < count; i++)
        visit(&s, &roots[i]);
    return s.memos;
}
