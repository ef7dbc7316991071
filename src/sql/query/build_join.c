/* From a planned join to its operator, see plan_int.h. */
#include "sql/query/plan_int.h"

/* The columns of a side's input: the keys, then all that is compared, asked for, or tells when a row ends, each once. */
struct inputs {
    struct expr **items;
    uint32_t count, keys, room;
    uint32_t *kept; /* of items */
    struct sql_type *types;
    uint32_t kept_count;
};

static bool inputs_init(struct build *b, struct inputs *in, const struct joining *j, unsigned side)
{
    in->room = j->key_count + j->test_count + j->out_count + 2 * JOIN_BOUNDS_MAX;
    in->items = plan_take(b->p, b->place, (in->room + 1) * sizeof *in->items);
    in->kept = plan_take(b->p, b->place, (in->room + 1) * sizeof *in->kept);
    in->types = plan_take(b->p, b->place, (in->room + 1) * sizeof *in->types);
    if (!in->items || !in->kept || !in->types)
        return false;
    for (; in->count < j->key_count; in->count++)
        in->items[in->count] = j->keys[in->count][side];
    return true;
}

static uint32_t add_item(struct inputs *in, struct expr *x)
{
    for (uint32_t i = 0; i < in->count; i++)
        if (in->items[i] == x)
            return i;
    in->items[in->count] = x;
    return in->count++;
}

static uint32_t add_kept(struct inputs *in, struct expr *x)
{
    uint32_t item = add_item(in, x);
    for (uint32_t i = 0; i < in->kept_count; i++)
        if (in->kept[i] == item)
            return i;
    in->types[in->kept_count] = x->type;
    in->kept[in->kept_count] = item;
    return in->kept_count++;
}

static void add_limits(struct inputs *in, const struct join_limit *from, uint32_t count, struct join_bound *to)
{
    for (uint32_t i = 0; i < count; i++)
        to[i] =
            (struct join_bound){.clock = from[i].clock, .column = add_item(in, from[i].x), .offset = from[i].offset};
}

static void set_side(struct build *b, const struct joining *j, unsigned side, struct inputs *in, struct join_side *to)
{
    add_limits(in, j->ends[side], j->end_count[side], to->ends);
    add_limits(in, j->promises[side], j->promise_count[side], to->promises);
    to->key_count = j->key_count;
    to->kept = in->kept;
    to->types = in->types;
    to->kept_count = in->kept_count;
    to->end_count = j->end_count[side];
    to->promise_count = j->promise_count[side];
    to->clock = j->ends[side][0].clock;
    to->ttl = b->p->state_ttl;
    to->retracts = j->sides[side].node->retracts;
    to->outer = side == 0 ? j->kind == JOIN_LEFT || j->kind == JOIN_FULL || j->kind == JOIN_SEMI || j->kind == JOIN_ANTI
                          : j->kind == JOIN_RIGHT || j->kind == JOIN_FULL;
}

static bool set_rule(struct build *b, const struct node *n, struct inputs *in, struct join_rule *rule)
{
    const struct joining *j = n->join;
    struct join_test *tests = plan_take(b->p, b->place, (j->test_count + 1) * sizeof *tests);
    struct join_out *outs = plan_take(b->p, b->place, (j->used_count + 1) * sizeof *outs);
    if (!tests || !outs)
        return false;
    for (uint32_t i = 0; i < j->test_count; i++)
        tests[i] = (struct join_test){.op = j->tests[i].op,
                                      .form = type_form(j->tests[i].x[0]->type.kind),
                                      .left = add_kept(&in[0], j->tests[i].x[0]),
                                      .right = add_kept(&in[1], j->tests[i].x[1])};
    for (uint32_t i = 0; i < j->out_count; i++)
        if (j->outs[i].used)
            outs[j->outs[i].used - 1] =
                (struct join_out){.side = j->outs[i].side, .kept = add_kept(&in[j->outs[i].side], j->outs[i].inner)};
    *rule = (struct join_rule){.tests = tests,
                               .test_count = j->test_count,
                               .outs = outs,
                               .out_count = j->used_count,
                               .semi = j->kind == JOIN_SEMI,
                               .anti = j->kind == JOIN_ANTI,
                               .changes = j->changes,
                               .lookup = j->lookup,
                               .weighted = n->retracts};
    for (unsigned side = 0; side < 2; side++)
        set_side(b, j, side, &in[side], &rule->sides[side]);
    return true;
}

struct op *build_join(struct build *b, struct node *n)
{
    const struct joining *j = n->join;
    struct inputs in[2] = {0};
    if (j->latest)
        return build_latest(b, n);
    struct join_rule *rule = plan_take(b->p, b->place, sizeof *rule);
    if (!rule || !inputs_init(b, &in[0], j, 0) || !inputs_init(b, &in[1], j, 1) || !set_rule(b, n, in, rule))
        return NULL;
    struct op *op = build_keep(b, op_join_new(&b->p->plan->budget, rule));
    for (unsigned side = 0; op && side < 2; side++)
        if (!build_stage(b, &j->sides[side], in[side].items, in[side].count, op_join_input(op, side)))
            return NULL;
    return op;
}
