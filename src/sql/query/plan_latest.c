/* Tables: a stream of which the last row of each key counts, and looking into one: FOR SYSTEM_TIME AS OF. */
#include "sql/query/plan_int.h"

static bool add_key(struct planner *p, struct joining *j, struct slice column, const struct ast *place)
{
    struct ast_names parts = {.at = &column, .count = 1};
    struct ast_name name = {.ast = {.kind = AST_NAME, .at = place->at, .len = place->len}, .parts = parts};
    if (j->key_count == JOIN_KEYS_MAX)
        return plan_refuse(p, place, "a PRIMARY KEY of more than %u columns", JOIN_KEYS_MAX);
    struct expr *x = stage_bind(p, &j->sides[0], &name.ast);
    if (x && (type_is_json(x->type.kind) || x->type.kind == TYPE_INTERVAL))
        return plan_refuse(p, place, "a PRIMARY KEY of type %s", type_text(x->type.kind));
    j->keys[j->key_count++][0] = x;
    return x != NULL;
}

/* Its node is planned as a join of one side, since its columns are those that somebody asks for. */
bool plan_latest(struct planner *p, const struct ast_create_stream *stream, struct slice alias, struct stage *ret)
{
    if (!join_begin(p, JOIN_INNER, &stream->ast, ret))
        return false;
    struct joining *j = ret->node->join;
    struct slice one = {0};
    j->latest = j->finished = ret->node->retracts = true;
    if (!plan_open(p, stream, alias, &j->sides[0]) || !join_names(p, ret, 0, &stream->ast))
        return false;
    for (size_t i = 0; i < stream->elements.count; i++) {
        const struct ast *e = stream->elements.at[i];
        const struct ast_primary_key *key = AST_AS(primary_key, e);
        if (e->kind == AST_COLUMN && AST_AS(column, e)->primary && !add_key(p, j, AST_AS(column, e)->name, e))
            return false;
        for (size_t k = 0; e->kind == AST_PRIMARY_KEY && k < key->columns.count; k++)
            if (!add_key(p, j, key->columns.at[k], e))
                return false;
        if (e->kind == AST_COLUMN && AST_AS(column, e)->primary)
            one = AST_AS(column, e)->name;
        else if (e->kind == AST_PRIMARY_KEY && key->columns.count)
            one = key->columns.at[0];
    }
    struct source *s = j->sides[0].node->source;
    s->deletes =
        s->rule.format == SCAN_JSON && !s->events; /* others have no way to write a key's columns by themselves */
    s->key_name = j->key_count == 1 ? one : (struct slice){0};
    return true;
}

/* The time has to be that of the row's coming: of a table there is the last state only. */
static bool is_arrival(struct planner *p, struct stage *left, const struct ast *as_of)
{
    const struct ast_call *c = AST_AS(call, as_of);
    if (as_of->kind == AST_CALL && !c->args.count && name_equal(c->name.at[c->name.count - 1], slice_str("proctime")))
        return true;
    struct expr *x = stage_bind(p, left, as_of);
    if (!x)
        return false;
    if (x->clock && x->clock == p->plan->sources[x->clock->source].arrival && x->clock_offset == 0)
        return true;
    return plan_refuse(p, as_of,
                       "a table is looked into as it is when the row comes: AS OF _ts of the left side, or PROCTIME()");
}

bool plan_lookup(struct planner *p, const struct ast_relation *table, struct joining *j)
{
    const struct ast *place = &table->ast;
    if (j->kind != JOIN_INNER && j->kind != JOIN_LEFT)
        return plan_refuse(p, place, "FOR SYSTEM_TIME is for the right side of a JOIN or LEFT JOIN");
    if (!is_arrival(p, &j->sides[0], table->as_of) || !plan_named(p, table, &j->sides[1]))
        return false;
    if (!j->sides[1].node->join || !j->sides[1].node->join->latest)
        return plan_refuse(p, place, "FOR SYSTEM_TIME is for a TABLE with a PRIMARY KEY");
    j->lookup = true;
    return true;
}

/* ----------------------------------------------------------------------------------------------------------- operator */

struct op *build_latest(struct build *b, struct node *n)
{
    struct joining *j = n->join;
    struct latest_rule *rule = plan_take(b->p, b->place, sizeof *rule);
    uint32_t room = j->key_count + j->used_count + 1;
    struct expr **items = plan_take(b->p, b->place, room * sizeof *items);
    uint32_t *kept = plan_take(b->p, b->place, room * sizeof *kept);
    struct sql_type *types = plan_take(b->p, b->place, room * sizeof *types);
    if (!rule || !items || !kept || !types)
        return NULL;
    for (uint32_t i = 0; i < j->key_count; i++)
        items[i] = j->keys[i][0];
    for (uint32_t i = 0; i < j->out_count; i++) {
        if (!j->outs[i].used)
            continue;
        uint32_t at = j->outs[i].used - 1;
        items[j->key_count + at] = j->outs[i].inner;
        kept[at] = j->key_count + at;
        types[at] = j->outs[i].inner->type;
    }
    *rule = (struct latest_rule){.key_count = j->key_count, .kept = kept, .types = types, .kept_count = j->used_count};
    struct op *op = build_keep(b, op_latest_new(&b->p->plan->budget, rule));
    return op && build_stage(b, &j->sides[0], items, j->key_count + j->used_count, op) ? op : NULL;
}
