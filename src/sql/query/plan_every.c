/* EMIT EVERY, see plan_int.h: an operator behind all others, and the clock that it goes by. */
#include "sql/query/op_every.h"
#include "sql/query/plan_int.h"

bool plan_every(struct planner *p, const struct ast_emit *e)
{
    if (!plan_duration(p, e->interval, &p->every))
        return false;
    if (p->every <= 0)
        sql_error_set(p->error, SQL_FAULT_ARGUMENT, e->interval->at, e->interval->len, "an interval is above zero");
    p->emit = EMIT_CHANGES;
    return p->every > 0;
}

/* The watermark of a source whose watermark is used anyway, else the time of arrival. NULL: the error is set. */
static const struct clock *clock_of(struct planner *p, struct source *s, const struct ast *place)
{
    static const struct slice arrival = {.ptr = (const uint8_t *)"_ts", .len = 3};
    struct ast_names parts = {.at = (struct slice *)&arrival, .count = 1};
    struct ast_name name = {.ast = {.kind = AST_NAME, .at = place->at, .len = place->len}, .parts = parts};
    struct stage own;
    if (s->clock && s->clock->expr)
        return s->clock;
    return plan_open(p, s->stream, (struct slice){0}, &own) && stage_bind(p, &own, &name.ast) ? s->arrival : NULL;
}

/* The earliest of all sources'. */
static const struct clock *clock_of_all(struct planner *p, const struct ast *place)
{
    const struct clock *all = NULL;
    for (uint32_t i = 0; i < p->plan->source_count; i++) {
        const struct clock *own = clock_of(p, &p->plan->sources[i], place);
        all = own && all ? plan_joint_clock(p, all, own, place) : own;
        if (!all)
            return NULL;
    }
    return all;
}

struct op *build_every(struct build *b, const struct stage *s, struct expr *const *items)
{
    struct planner *p = b->p;
    if (!s->node->retracts)
        return plan_refuse(p, b->place, "EMIT EVERY is for rows that change, and these stay");
    const struct clock *clock = clock_of_all(p, b->place);
    struct sql_type *types = clock ? plan_take(p, b->place, (s->count + 1) * sizeof *types) : NULL;
    for (uint32_t i = 0; types && i < s->count; i++)
        types[i] = items[i]->type;
    return types ? build_keep(b, op_every_new(&p->plan->budget, clock, p->every, types, s->count)) : NULL;
}
