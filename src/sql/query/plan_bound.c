/* How long a join keeps rows: derived from what its conditions say of times, and from the watermarks.
 *
 * A condition low <= high between a time of one side and a time of the other: when rows to come have a `low` of at least the watermark + offset, a
 * row whose `high` is below that has no partner any more. So the condition ends the rows of high's side, by the clock of low's; and low's side
 * promises that. An equality is such a condition both ways. */
#include "sql/query/plan_int.h"

bool interval_us(const struct expr *x, int64_t *ret)
{
    struct interval v;
    if (x->op != EXPR_CONST || x->type.kind != TYPE_INTERVAL || column_null(&x->constant, 0))
        return false;
    memcpy(&v, x->constant.values, sizeof v);
    return !v.months && !__builtin_mul_overflow((int64_t)v.days, US_PER_DAY, ret) &&
           !__builtin_add_overflow(*ret, v.us, ret) && *ret < INT64_MAX / 4 && *ret > INT64_MIN / 4;
}

struct expr *time_base(struct expr *x, int64_t *ret_offset)
{
    *ret_offset = 0;
    while (!x->clock && x->op == EXPR_CALL) {
        bool plus = x->function && strcmp(x->function->name, "+") == 0;
        bool minus = x->function && strcmp(x->function->name, "-") == 0;
        int64_t us;
        if (x->count == 1 && !x->kernel && x->args[0]->type.kind == TYPE_TIMESTAMP) {
            x = x->args[0];
            continue;
        }
        if ((!plus && !minus) || x->count != 2)
            break;
        bool turned = x->args[0]->type.kind == TYPE_INTERVAL;
        struct expr *time = x->args[turned];
        if (time->type.kind != TYPE_TIMESTAMP || !interval_us(x->args[!turned], &us) ||
            __builtin_add_overflow(*ret_offset, plus ? us : -us, ret_offset))
            break;
        x = time;
    }
    return x;
}

static bool add_bound(struct planner *p, struct joining *j, unsigned low_side, struct expr *low, struct expr *high,
                      bool strict)
{
    unsigned side = !low_side;
    int64_t offset;
    struct expr *base = time_base(low, &offset);
    if (!base->clock || low->type.kind != TYPE_TIMESTAMP || high->type.kind != TYPE_TIMESTAMP)
        return true;
    offset += base->clock_offset;
    bool full = j->end_count[side] == JOIN_BOUNDS_MAX || j->promise_count[low_side] == JOIN_BOUNDS_MAX;
    if (full || (j->end_count[side] && j->ends[side][0].clock != base->clock))
        return true; /* it is a bound, too, but one is enough */
    j->ends[side][j->end_count[side]++] =
        (struct join_limit){.x = high, .clock = base->clock, .offset = -offset - strict};
    j->promises[low_side][j->promise_count[low_side]++] =
        (struct join_limit){.x = low, .clock = base->clock, .offset = -offset};
    return plan_use_clock(p, base->clock, j->place);
}

static bool add_pair(struct planner *p, struct joining *j, enum join_op op, struct expr *const *x)
{
    bool up = op == JOIN_EQ || op == JOIN_LE || op == JOIN_LT, down = op == JOIN_EQ || op == JOIN_GE || op == JOIN_GT;
    return (!up || add_bound(p, j, 0, x[0], x[1], op == JOIN_LT)) &&
           (!down || add_bound(p, j, 1, x[1], x[0], op == JOIN_GT));
}

static bool refuse_unbounded(struct planner *p, const struct joining *j, unsigned side)
{
    const struct stage *s = &j->sides[side];
    struct slice table = s->count ? s->names[0].table : (struct slice){0};
    if (table.ptr)
        plan_refuse(p, j->place, "the join would keep all rows of %.*s for ever: no time of the other side bounds them",
                    SLICE_ARG(table));
    else
        plan_refuse(p, j->place,
                    "the join would keep all rows of its %s side for ever: no time of the other bounds them",
                    side ? "right" : "left");
    sql_error_hint(p->error,
                   "compare times that have a watermark, say WITHIN, or WITH (state_ttl = 'none') at the end");
    return false;
}

/* Rows that are not bounded by times are kept for so long after they came. */
static bool keep_for(struct planner *p, struct joining *j, unsigned side)
{
    const struct node *n = j->sides[side].node;
    if (n->join && n->join->latest) /* there is one for each key */
        return true;
    if (p->state_ttl < 0)
        return refuse_unbounded(p, j, side);
    if (p->state_ttl == JOIN_TTL_NONE)
        return true;
    while (!n->source)
        n = n->join ? n->join->sides[0].node : n->unite ? n->unite->sides[0].node : n->input->node;
    struct stage own;
    static const struct slice arrival = {.ptr = (const uint8_t *)"_ts", .len = 3};
    struct ast_names parts = {.at = (struct slice *)&arrival, .count = 1};
    struct ast_name name = {.ast = {.kind = AST_NAME, .at = j->place->at, .len = j->place->len}, .parts = parts};
    if (!plan_open(p, n->source->stream, (struct slice){0}, &own) || !stage_bind(p, &own, &name.ast))
        return false;
    j->ends[side][0].clock = n->source->arrival;
    return true;
}

bool plan_bounds(struct planner *p, struct joining *j)
{
    for (uint32_t i = 0; i < j->key_count; i++)
        if (!add_pair(p, j, JOIN_EQ, j->keys[i]))
            return false;
    for (uint32_t i = 0; i < j->test_count; i++)
        if (!add_pair(p, j, j->tests[i].op, j->tests[i].x))
            return false;
    for (unsigned side = 0; side < 2; side++)
        if (!j->end_count[side] && !keep_for(p, j, side))
            return false;
    return true;
}

/* A row to come is of a row to come of that side, or of one that was kept: then the other side's row is one to come, and a condition that says
 * how far this time may be behind it says how old it can be. */
bool plan_out_clock(struct planner *p, const struct joining *j, const struct join_column *c)
{
    const struct expr *in = c->inner;
    bool nullable =
        c->side ? j->kind == JOIN_LEFT || j->kind == JOIN_FULL : j->kind == JOIN_RIGHT || j->kind == JOIN_FULL;
    c->x->clock = NULL;
    if (j->lookup && !c->side) { /* it goes on at once */
        c->x->clock = in->clock;
        c->x->clock_offset = in->clock_offset;
    }
    for (uint32_t i = 0; in->clock && !nullable && i < j->end_count[c->side]; i++) {
        const struct join_limit *end = &j->ends[c->side][i];
        int64_t behind;
        if (time_base(end->x, &behind) != in)
            continue;
        int64_t kept = -end->offset - behind, offset = kept < in->clock_offset ? kept : in->clock_offset;
        if (!c->x->clock || offset > c->x->clock_offset)
            c->x->clock_offset = offset;
        c->x->clock = plan_joint_clock(p, in->clock, end->clock, j->place);
        if (!c->x->clock)
            return false;
    }
    return true;
}
