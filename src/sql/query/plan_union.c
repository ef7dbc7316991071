/* UNION and UNION ALL, see plan_int.h: two stages whose columns are the same by position, and what makes one of them. */
#include "sql/query/op_union.h"
#include "sql/query/plan_int.h"

/* The sources that its rows come from, a bit each. */
static uint32_t sources_of(const struct plan *plan, const struct node *n)
{
    uint32_t set = 0;
    const struct stage *sides = n->join ? n->join->sides : n->unite ? n->unite->sides : NULL;
    for (unsigned i = 0; sides && i < 2; i++)
        set |= sides[i].node ? sources_of(plan, sides[i].node) : 0;
    for (uint32_t i = 0; n->source && i < plan->source_count; i++)
        set |= n->source == &plan->sources[i] ? 1u << i : 0;
    return set | (n->input ? sources_of(plan, n->input->node) : 0);
}

/* No row that is on time, of either side, has less than the watermark of both. */
static bool out_clock(struct planner *p, const struct expr *a, const struct expr *b, struct expr *out,
                      const struct ast *place)
{
    if (!a->clock || !b->clock || out->type.kind != TYPE_TIMESTAMP)
        return true;
    out->clock = plan_joint_clock(p, a->clock, b->clock, place);
    out->clock_offset = a->clock_offset < b->clock_offset ? a->clock_offset : b->clock_offset;
    return out->clock;
}

static bool unite_column(struct planner *p, struct node *n, uint32_t i, struct stage *ret, const struct ast *place)
{
    static const struct scope none = {0};
    struct uniting *u = n->unite;
    struct binder b = plan_binder(p, &none);
    struct expr *x[2];
    struct sql_type type;
    for (unsigned side = 0; side < 2; side++)
        if (!(x[side] = lazy_expr(p, u->sides[side].names[i].lazy, place)))
            return false;
    if (!type_common(&x[0]->type, &x[1]->type, &type)) {
        char left[100], right[100];
        struct writer v = writer_of(left, sizeof left - 1), w = writer_of(right, sizeof right - 1);
        type_print(&x[0]->type, &v);
        type_print(&x[1]->type, &w);
        sql_error_set(p->error, SQL_FAULT_TYPE, place->at, place->len,
                      "column %.*s is %.*s on the left and %.*s on the right", SLICE_ARG(u->sides[0].names[i].name),
                      (int)v.len, left, (int)w.len, right);
        return false;
    }
    for (unsigned side = 0; side < 2; side++)
        if (!(u->items[side][i] = coerce(&b, x[side], &type, true, false)))
            return false;
    struct expr *out = plan_out(p, n, type, place);
    return out && out_clock(p, u->items[0][i], u->items[1][i], out, place) &&
           stage_name_expr(p, ret, (struct slice){0}, u->sides[0].names[i].name, out, place);
}

bool plan_union(struct planner *p, const struct ast_setop *s, struct stage *ret)
{
    struct node *n = plan_take(p, &s->ast, sizeof *n);
    struct uniting *u = n ? plan_take(p, &s->ast, sizeof *u) : NULL;
    if (!u || !plan_query_stage(p, s->left, &u->sides[0]) || !plan_query_stage(p, s->right, &u->sides[1]))
        return false;
    uint32_t count = u->sides[0].count;
    if (u->sides[1].count != count) {
        sql_error_set(p->error, SQL_FAULT_VALUE, s->ast.at, s->ast.len, "UNION of %u columns with %u", count,
                      u->sides[1].count);
        return false;
    }
    n->unite = u;
    n->retracts = u->sides[0].node->retracts || u->sides[1].node->retracts;
    n->types = plan_take(p, &s->ast, (count + 1) * sizeof *n->types);
    for (unsigned side = 0; side < 2; side++)
        u->items[side] = plan_take(p, &s->ast, (count + 1) * sizeof(struct expr *));
    if (!n->types || !u->items[0] || !u->items[1])
        return false;
    *ret = (struct stage){.node = n};
    for (uint32_t i = 0; i < count; i++)
        if (!unite_column(p, n, i, ret, &s->ast))
            return false;
    return s->all || plan_distinct(p, &s->ast, ret);
}

struct op *build_union(struct build *b, struct node *n)
{
    struct uniting *u = n->unite;
    const struct plan *plan = b->p->plan;
    bool apart = !(sources_of(plan, u->sides[0].node) & sources_of(plan, u->sides[1].node));
    struct op *op = build_keep(b, op_union_new(&b->p->plan->budget, n->types, n->type_count, apart));
    for (unsigned side = 0; op && side < 2; side++)
        if (!build_stage(b, &u->sides[side], u->items[side], n->type_count, op_union_input(op, side)))
            return NULL;
    return op;
}
