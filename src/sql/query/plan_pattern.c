/* PATTERN (…) as a program, see op_match.h: what is preferred stands first, {n,m} is written out. */
#include "sql/query/plan_int.h"

uint32_t pattern_variable(const struct pattern *pattern, struct slice name)
{
    for (uint32_t i = 0; i < pattern->count; i++)
        if (name_equal(pattern->names[i], name))
            return i;
    return MATCH_ANY;
}

/* What is known of a part of a pattern. */
struct known {
    uint64_t first, always;
    bool empty; /* it may have no row */
};

struct writing {
    struct planner *p;
    struct pattern *to;
    const struct ast *place;
    uint32_t room; /* of the program */
};

/* MATCH_ANY: it is too long, or there is no memory. */
static uint32_t put(struct writing *w, enum match_op op, uint32_t to)
{
    struct pattern *pattern = w->to;
    if (pattern->code_count == MATCH_CODE_MAX) {
        (void)plan_refuse(w->p, w->place, "a pattern of more than %u parts, when its repetitions are written out",
                          MATCH_CODE_MAX);
        return MATCH_ANY;
    }
    if (pattern->code_count == w->room) {
        uint32_t room = w->room ? 2 * w->room : 16;
        struct match_code *more = plan_take(w->p, w->place, room * sizeof *more);
        if (!more)
            return MATCH_ANY;
        if (w->room)
            memcpy(more, pattern->code, w->room * sizeof *more);
        pattern->code = more;
        w->room = room;
    }
    pattern->code[pattern->code_count] = (struct match_code){.op = op, .to = to};
    return pattern->code_count++;
}

/* The two ways on from a split: into what stands behind it, or to where it is over. */
static void set_split(struct writing *w, uint32_t split, uint32_t over, bool reluctant)
{
    struct match_code *code = &w->to->code[split];
    code->to = reluctant ? over : split + 1;
    code->other = reluctant ? split + 1 : over;
}

static bool write(struct writing *w, const struct ast *node, struct known *ret);

static bool write_variable(struct writing *w, const struct ast_pattern_var *var, struct known *ret)
{
    struct pattern *pattern = w->to;
    uint32_t which = pattern_variable(pattern, var->name);
    if (which == MATCH_ANY) {
        if (pattern->count == MATCH_VARIABLES_MAX)
            return plan_refuse(w->p, &var->ast, "a pattern of more than %u variables", MATCH_VARIABLES_MAX);
        which = pattern->count++;
        pattern->names[which] = var->name;
    }
    *ret = (struct known){.first = (uint64_t)1 << which, .always = (uint64_t)1 << which};
    return put(w, MATCH_TAKE, which) != MATCH_ANY;
}

static bool write_sequence(struct writing *w, const struct ast_list *items, struct known *ret)
{
    *ret = (struct known){.empty = true};
    for (size_t i = 0; i < items->count; i++) {
        struct known item;
        if (!write(w, items->at[i], &item))
            return false;
        ret->first |= ret->empty ? item.first : 0;
        ret->always |= item.always;
        ret->empty &= item.empty;
    }
    return true;
}

/* split a, split b, … c; each but the last jumps to the end, by way of the jump of the one before. */
static bool write_alternatives(struct writing *w, const struct ast_list *items, struct known *ret)
{
    uint32_t jumps = MATCH_ANY;
    *ret = (struct known){.always = UINT64_MAX};
    for (size_t i = 0; i < items->count; i++) {
        bool more = i + 1 < items->count;
        uint32_t split = more ? put(w, MATCH_SPLIT, 0) : 0;
        struct known item;
        if (split == MATCH_ANY || !write(w, items->at[i], &item))
            return false;
        ret->first |= item.first;
        ret->always &= item.always;
        ret->empty |= item.empty;
        if (!more)
            break;
        if ((jumps = put(w, MATCH_JUMP, jumps)) == MATCH_ANY)
            return false;
        set_split(w, split, jumps + 1, false);
    }
    for (uint32_t next; jumps != MATCH_ANY; jumps = next) {
        next = w->to->code[jumps].to;
        w->to->code[jumps].to = w->to->code_count;
    }
    return true;
}

/* split over; item; jump to the split */
static bool write_loop(struct writing *w, const struct ast_pattern_repeat *r, struct known *item)
{
    uint32_t split = put(w, MATCH_SPLIT, 0);
    if (split == MATCH_ANY || !write(w, r->item, item) || put(w, MATCH_JUMP, split) == MATCH_ANY)
        return false;
    if (item->empty)
        return plan_refuse(w->p, &r->ast, "what is repeated without end has at least one row");
    w->to->endless = &r->ast;
    set_split(w, split, w->to->code_count, r->reluctant);
    return true;
}

/* Splits that stand within one another, all to the same end. */
static bool write_more(struct writing *w, const struct ast_pattern_repeat *r, struct known *item)
{
    uint32_t splits = MATCH_ANY;
    for (int64_t i = r->least; i < r->most; i++) {
        uint32_t split = put(w, MATCH_SPLIT, splits);
        if (split == MATCH_ANY || !write(w, r->item, item))
            return false;
        splits = split;
    }
    for (uint32_t next; splits != MATCH_ANY; splits = next) {
        next = w->to->code[splits].to;
        set_split(w, splits, w->to->code_count, r->reluctant);
    }
    return true;
}

static bool write_repeat(struct writing *w, const struct ast_pattern_repeat *r, struct known *ret)
{
    struct known item = {0};
    if (!r->most)
        return plan_refuse(w->p, &r->ast, "a part of a pattern that is there no times");
    for (int64_t i = 0; i < r->least; i++)
        if (!write(w, r->item, &item))
            return false;
    if (r->most < 0 ? !write_loop(w, r, &item) : !write_more(w, r, &item))
        return false;
    *ret = item;
    ret->empty |= !r->least;
    ret->always = r->least ? item.always : 0;
    return true;
}

static bool write(struct writing *w, const struct ast *node, struct known *ret)
{
    switch (node->kind) {
    case AST_PATTERN_VAR: return write_variable(w, AST_AS(pattern_var, node), ret);
    case AST_PATTERN_SEQ: return write_sequence(w, &AST_AS(pattern_seq, node)->items, ret);
    case AST_PATTERN_ALT: return write_alternatives(w, &AST_AS(pattern_alt, node)->items, ret);
    default: return write_repeat(w, AST_AS(pattern_repeat, node), ret);
    }
}

bool plan_pattern(struct planner *p, const struct ast *ast, struct pattern *ret)
{
    struct writing w = {.p = p, .to = ret, .place = ast};
    struct known known;
    if (!write(&w, ast, &known) || put(&w, MATCH_END, 0) == MATCH_ANY)
        return false;
    if (known.empty)
        return plan_refuse(p, ast, "a pattern that no row can meet as well");
    ret->first = known.first;
    ret->always = known.always;
    return true;
}
