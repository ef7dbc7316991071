/* Windows and GROUP BY, see plan_int.h. */
#include "sql/query/plan_int.h"

#define AGGREGATES_MAX 256u

/* ---------------------------------------------------------------------------------------------------------- windows */

bool plan_duration(struct planner *p, const struct ast *node, int64_t *ret)
{
    static const struct scope none = {0};
    struct sql_type type = type_of(TYPE_INTERVAL);
    struct expr *x = sql_bind_as(node, &type, &none, p->arena, p->error);
    if (!x)
        return false;
    struct interval v = {0};
    if (x->op == EXPR_CONST && !column_null(&x->constant, 0))
        memcpy(&v, x->constant.values, sizeof v);
    else
        v.months = 1;
    bool ok = !v.months && !__builtin_mul_overflow((int64_t)v.days, US_PER_DAY, ret) &&
              !__builtin_add_overflow(*ret, v.us, ret) && *ret <= 10000 * 366 * US_PER_DAY;
    if (!ok)
        sql_error_set(p->error, SQL_FAULT_ARGUMENT, node->at, node->len,
                      "this is a constant interval of days, hours or less");
    return ok;
}

#define WINDOW_TIME_US 1000 /* from window_time to window_end */

/* What stands for an edge until GROUP BY makes a column of it. */
static struct expr *edge(struct planner *p, const struct ast *place, int number)
{
    static const struct scope none = {0};
    struct binder b = plan_binder(p, &none);
    struct expr *x = expr_new(&b, EXPR_COLUMN, place, 0);
    if (!x)
        return NULL;
    x->column = NO_COLUMN;
    x->number = number;
    x->type = type_of(TYPE_TIMESTAMP);
    return x;
}

/* x + us; what is known of its times is that the watermark + known is the least. */
static struct expr *moved(struct planner *p, struct expr *x, int64_t us, const struct clock *clock, int64_t known,
                          const struct ast *place)
{
    static const struct scope none = {0};
    struct binder b = plan_binder(p, &none);
    struct interval by = {.us = us};
    struct expr *args[2] = {x, expr_const(&b, place, type_of(TYPE_INTERVAL), &by)};
    struct expr *sum = x && args[1] ? call(&b, place, slice_str("+"), args, 2) : NULL;
    if (sum) {
        sum->clock = clock;
        sum->clock_offset = known;
    }
    return sum;
}

/* A row is in one TUMBLE window, whose edges can be computed. */
static bool tumble_edges(struct planner *p, struct windowing *w)
{
    static const struct scope none = {0};
    struct binder b = plan_binder(p, &none);
    const struct span_rule *r = &w->rule;
    struct interval size = {.us = r->size};
    struct expr *args[3] = {expr_const(&b, w->place, type_of(TYPE_INTERVAL), &size), w->time,
                            expr_const(&b, w->place, type_of(TYPE_TIMESTAMP), &r->offset)};
    w->start = args[0] && args[2] ? call(&b, w->place, slice_str("date_bin"), args, 3) : NULL;
    if (!w->start)
        return false;
    w->start->clock = r->clock;
    w->start->clock_offset = r->shift + 1 - r->size;
    w->end = moved(p, w->start, r->size, r->clock, r->shift + 1, w->place);
    w->middle = moved(p, w->end, -WINDOW_TIME_US, r->clock, r->shift + 1 - WINDOW_TIME_US, w->place);
    return w->middle;
}

static bool set_edges(struct planner *p, struct windowing *w)
{
    if (w->rule.kind == SPAN_TUMBLE)
        return tumble_edges(p, w);
    w->start = edge(p, w->place, 0);
    w->end = edge(p, w->place, 1);
    w->middle = edge(p, w->place, 2);
    return w->start && w->end && w->middle;
}

static bool set_rule(struct planner *p, enum ast_windowed_kind what, const struct ast_list *args, size_t from,
                     struct windowing *w)
{
    static const enum span_kind kinds[] = {[WINDOWED_TUMBLE] = SPAN_TUMBLE,
                                           [WINDOWED_HOP] = SPAN_HOP,
                                           [WINDOWED_CUMULATE] = SPAN_CUMULATE,
                                           [WINDOWED_SESSION] = SPAN_SESSION};
    int64_t v[3] = {0};
    size_t count = args->count - from, sizes = what == WINDOWED_TUMBLE || what == WINDOWED_SESSION ? 1 : 2;
    bool offset = what != WINDOWED_SESSION;
    if (count < sizes || count > sizes + offset) {
        sql_error_set(p->error, SQL_FAULT_ARGUMENT, w->place->at, w->place->len, "%s has %zu length%s%s",
                      ast_windowed_text(what), sizes, sizes > 1 ? "s" : "", offset ? ", and may have an offset" : "");
        return false;
    }
    for (size_t i = 0; i < count; i++)
        if (!plan_duration(p, args->at[from + i], &v[i]))
            return false;
    bool ok = v[0] > 0 && (sizes == 1 || v[1] > 0) && (what != WINDOWED_CUMULATE || v[1] % v[0] == 0);
    if (!ok)
        sql_error_set(p->error, SQL_FAULT_ARGUMENT, w->place->at, w->place->len,
                      "a window's lengths are above zero, and CUMULATE's size is a multiple of its step");
    w->rule = (struct span_rule){.kind = kinds[what],
                                 .size = sizes == 1 ? v[0] : v[1],
                                 .slide = v[0],
                                 .offset = v[sizes],
                                 .shift = w->time->clock_offset,
                                 .clock = w->time->clock};
    return ok;
}

static bool plan_windowing(struct planner *p, struct stage *s, struct expr *time, enum ast_windowed_kind what,
                           const struct ast_list *args, size_t from, const struct ast *place)
{
    struct windowing *w = plan_take(p, place, sizeof *w);
    if (!w || !time)
        return false;
    if (s->windowing)
        return plan_refuse(p, place, "a window over rows that are in windows already cannot be run yet");
    if (!time->clock || time->type.kind != TYPE_TIMESTAMP) {
        sql_error_set(p->error, SQL_FAULT_UNBOUNDED, place->at, place->len, "the column has no watermark");
        sql_error_hint(p->error, "WATERMARK FOR in CREATE STREAM makes one; _ts has one always");
        return false;
    }
    *w = (struct windowing){.time = time, .place = place};
    if (!set_rule(p, what, args, from, w) || !set_edges(p, w) || !plan_use_clock(p, time->clock, place))
        return false;
    s->windowing = w;
    return true;
}

/* SESSION(TABLE t PARTITION BY a, …) */
static bool session_keys(struct planner *p, const struct ast_windowed *w, struct stage *s)
{
    struct windowing *windowing = s->windowing;
    windowing->keyed = true;
    windowing->partition_count = (uint32_t)w->partition.count;
    windowing->partition = plan_take(p, &w->ast, (w->partition.count + 1) * sizeof(struct expr *));
    for (size_t i = 0; windowing->partition && i < w->partition.count; i++) {
        windowing->partition[i] = stage_bind(p, s, w->partition.at[i]);
        if (!windowing->partition[i])
            return false;
    }
    return windowing->partition;
}

bool plan_windowed(struct planner *p, const struct ast_windowed *w, struct stage *s)
{
    struct ast_names parts = {.at = (struct slice *)&w->column, .count = 1};
    struct ast_name name = {.ast = {.kind = AST_NAME, .at = w->ast.at, .len = w->ast.len}, .parts = parts};
    if (w->partition.count && w->what != WINDOWED_SESSION)
        return plan_refuse(p, w->partition.at[0], "PARTITION BY is for SESSION windows");
    return plan_windowing(p, s, stage_bind(p, s, &name.ast), (enum ast_windowed_kind)w->what, &w->args, 0, &w->ast) &&
           (w->what != WINDOWED_SESSION || session_keys(p, w, s)) &&
           stage_name_expr(p, s, (struct slice){0}, slice_str("window_start"), s->windowing->start, &w->ast) &&
           stage_name_expr(p, s, (struct slice){0}, slice_str("window_end"), s->windowing->end, &w->ast) &&
           stage_name_expr(p, s, (struct slice){0}, slice_str("window_time"), s->windowing->middle, &w->ast);
}

/* ------------------------------------------------------------------------------------------------------------ groups */

static bool visit_aggregate(const struct ast *child, void *arg)
{
    (void)arg;
    return !has_aggregate(child);
}

bool has_aggregate(const struct ast *node)
{
    const struct ast_call *c = AST_AS(call, node);
    if (node->kind == AST_SUBQUERY)
        return false;
    if (node->kind == AST_CALL && !c->over &&
        (c->star || c->distinct || c->filter || aggregate_find(c->name.at[c->name.count - 1]) != AGG_KINDS))
        return true;
    return !ast_each_child(node, visit_aggregate, NULL);
}

struct grouping {
    struct planner *p;
    struct stage *input;
    const struct ast_select *select;
    const struct ast *place; /* of what is bound */
    struct node *node;
    const struct ast **elements; /* of GROUP BY; for each: */
    struct expr **keys, **outs;
    uint32_t key_count, element_count;
    struct expr *start_out, *end_out, *middle_out;
    const struct ast *legacy;                        /* TUMBLE(…) as an element */
    const struct ast *item_asts[2 * AGGREGATES_MAX]; /* of the node's items from first_item on */
    uint32_t first_item;
    const struct ast *calls[AGGREGATES_MAX];
    struct expr *call_outs[AGGREGATES_MAX];
};

/* A column that the node makes. */
struct expr *plan_out(struct planner *p, struct node *n, struct sql_type type, const struct ast *place)
{
    static const struct scope none = {0};
    struct binder b = plan_binder(p, &none);
    struct expr *x = n->type_count < PLAN_COLUMNS_MAX ? expr_new(&b, EXPR_COLUMN, place, 0) : NULL;
    if (!x) {
        sql_error_set(p->error, SQL_FAULT_LIMIT, place->at, place->len, "more than %u columns", PLAN_COLUMNS_MAX);
        return NULL;
    }
    x->column = n->type_count;
    x->type = type;
    n->types[n->type_count++] = type;
    return x;
}

struct node *plan_node(struct planner *p, const struct stage *input, const struct ast *place)
{
    struct node *n = plan_take(p, place, sizeof *n);
    if (!n)
        return NULL;
    n->input = plan_take(p, place, sizeof *n->input);
    n->items = plan_take(p, place, PLAN_COLUMNS_MAX * sizeof(struct expr *));
    n->types = plan_take(p, place, PLAN_COLUMNS_MAX * sizeof *n->types);
    n->aggregates = plan_take(p, place, AGGREGATES_MAX * sizeof *n->aggregates);
    n->passed = plan_take(p, place, PLAN_COLUMNS_MAX * sizeof(struct expr *));
    if (!n->passed || !n->input || !n->items || !n->types || !n->aggregates)
        return NULL;
    *n->input = *input;
    n->input->windowing = NULL;
    return n;
}

/* Without a window, a key that is a time with a watermark ends its group. */
bool plan_rule(struct planner *p, struct node *n, uint32_t keys, const struct ast *place)
{
    const struct expr *best = NULL;
    for (uint32_t i = 0; i < keys; i++)
        if (n->items[i]->clock && (!best || n->items[i]->clock_offset > best->clock_offset))
            best = n->items[i];
    n->keys = keys;
    n->changes = p->emit == EMIT_CHANGES || !best;
    if (!best && p->emit == EMIT_CLOSE)
        return plan_refuse(p, place, "EMIT ON WINDOW CLOSE cannot be: no key is a window or a time with a watermark");
    if (best) {
        n->rule = (struct span_rule){.kind = SPAN_VALUE, .offset = best->clock_offset, .clock = best->clock};
        n->items[keys] = (struct expr *)best;
        return plan_use_clock(p, best->clock, place);
    }
    n->rule = (struct span_rule){.kind = SPAN_NONE};
    return true;
}

bool plan_check_key(struct planner *p, const struct expr *x, const struct ast *place)
{
    if (!type_is_json(x->type.kind) && x->type.kind != TYPE_INTERVAL)
        return true;
    return plan_refuse(p, place, "rows cannot be grouped by a value of type %s", type_text(x->type.kind));
}

void plan_bound(struct expr *out, const struct node *n, const struct expr *key)
{
    if (n->rule.kind == SPAN_VALUE && n->items[n->keys] == key) {
        out->clock = key->clock;
        out->clock_offset = key->clock_offset;
    }
}

static enum ast_windowed_kind legacy_kind(const struct ast *node, const char *behind)
{
    const struct ast_call *c = AST_AS(call, node);
    unsigned what = 0;
    for (; node->kind == AST_CALL && what < WINDOWED_KINDS; what++) {
        const char *text = ast_windowed_text((enum ast_windowed_kind)what);
        struct slice name = c->name.at[c->name.count - 1];
        size_t len = strlen(text);
        if (name.len == len + strlen(behind) && name_equal(slice_of(name.ptr, len), slice_str(text)) &&
            name_equal(slice_of(name.ptr + len, name.len - len), slice_str(behind)))
            return (enum ast_windowed_kind)what;
    }
    return WINDOWED_KINDS;
}

/* What stands in GROUP BY: an item's number, the name of an item, or an expression. */
static const struct ast *element_of(const struct grouping *g, const struct ast *node)
{
    const struct ast_literal *l = AST_AS(literal, node);
    if (node->kind == AST_LITERAL && l->what == LITERAL_NUMBER && l->text.len == 1 && l->text.ptr[0] >= '1' &&
        (size_t)(l->text.ptr[0] - '1') < g->select->items.count)
        return AST_AS(item, g->select->items.at[l->text.ptr[0] - '1'])->expr;
    if (node->kind != AST_NAME || AST_AS(name, node)->parts.count != 1)
        return node;
    struct slice name = AST_AS(name, node)->parts.at[0];
    for (uint32_t i = 0; i < g->input->count; i++)
        if (name_equal(g->input->names[i].name, name))
            return node;
    for (size_t i = 0; i < g->select->items.count; i++)
        if (name_equal(AST_AS(item, g->select->items.at[i])->alias, name))
            return AST_AS(item, g->select->items.at[i])->expr;
    return node;
}

static bool add_element(struct grouping *g, const struct ast *node, bool *ret_windowed)
{
    struct planner *p = g->p;
    enum ast_windowed_kind legacy = legacy_kind(node, "");
    if (node->kind == AST_GROUPING || node->kind == AST_ROW)
        return plan_refuse(p, node, "GROUPING SETS, ROLLUP and CUBE cannot be run yet");
    if (node->kind == AST_LITERAL)
        return plan_refuse(p, node, "GROUP BY a constant: there is no item of that number");
    if (has_aggregate(node)) {
        sql_error_set(p->error, SQL_FAULT_GROUPING, node->at, node->len,
                      "an aggregate cannot be what rows are grouped by");
        return false;
    }
    if (legacy != WINDOWED_KINDS && AST_AS(call, node)->args.count) {
        g->legacy = node;
        *ret_windowed = true;
        return plan_windowing(p, g->input, stage_bind(p, g->input, AST_AS(call, node)->args.at[0]), legacy,
                              &AST_AS(call, node)->args, 1, node);
    }
    struct expr *x = stage_bind(p, g->input, node);
    const struct windowing *w = g->input->windowing;
    if (!x)
        return false;
    if (w && (x == w->start || x == w->end || x == w->middle)) {
        *ret_windowed = true;
        return true;
    }
    g->elements[g->key_count] = node;
    g->keys[g->key_count++] = x;
    return plan_check_key(p, x, node);
}

/* Sessions are of the keys they were said to be of. */
static bool check_session(struct grouping *g, const struct windowing *w)
{
    uint32_t found = 0;
    if (g->input->node->retracts)
        return plan_refuse(g->p, w->place, "SESSION windows over rows that are taken back cannot be run yet");
    for (uint32_t i = 0; w->keyed && i < w->partition_count; i++)
        for (uint32_t k = 0; k < g->key_count; k++)
            if (g->keys[k] == w->partition[i]) {
                found++;
                break;
            }
    if (!w->keyed || (found == w->partition_count && found == g->key_count))
        return true;
    (void)plan_refuse(g->p, w->place, "GROUP BY has to name what the SESSION is PARTITION BY, and nothing else");
    sql_error_hint(g->p->error, "SESSION(TABLE t PARTITION BY k, DESCRIPTOR(time), gap) is per k");
    return false;
}

static bool window_outs(struct grouping *g, const struct windowing *w, const struct ast *place)
{
    struct node *n = g->node;
    struct planner *p = g->p;
    n->rule = w->rule;
    n->keys = g->key_count;
    n->items[g->key_count] = w->time;
    n->changes = p->emit == EMIT_CHANGES;
    if (w->rule.kind == SPAN_SESSION)
        return check_session(g, w);
    if (n->changes && w->rule.kind != SPAN_TUMBLE)
        return plan_refuse(p, w->place, "EMIT CHANGES of %s windows cannot be run yet",
                           w->rule.kind == SPAN_HOP ? "HOP" : "CUMULATE");
    (void)place;
    return true;
}

static bool make_outs(struct grouping *g, bool windowed, const struct ast *place)
{
    struct node *n = g->node;
    const struct windowing *w = g->input->windowing;
    if (g->key_count >= PLAN_COLUMNS_MAX / 2)
        return plan_refuse(g->p, place, "GROUP BY more than %u values", PLAN_COLUMNS_MAX / 2);
    memcpy(n->items, g->keys, g->key_count * sizeof *n->items);
    if (windowed ? !window_outs(g, w, place) : !plan_rule(g->p, n, g->key_count, place))
        return false;
    n->item_count = g->first_item = g->key_count + (n->rule.kind != SPAN_NONE);
    for (uint32_t i = 0; i < g->key_count; i++) {
        g->outs[i] = plan_out(g->p, n, g->keys[i]->type, place);
        if (!g->outs[i])
            return false;
        plan_bound(g->outs[i], n, g->keys[i]);
    }
    if (!windowed)
        return true;
    g->start_out = plan_out(g->p, n, type_of(TYPE_TIMESTAMP), place);
    g->end_out = plan_out(g->p, n, type_of(TYPE_TIMESTAMP), place);
    if (!g->start_out || !g->end_out)
        return false;
    if (w->rule.kind != SPAN_SESSION) { /* a session may have begun at any time */
        g->start_out->clock = w->rule.clock;
        g->start_out->clock_offset = w->rule.shift + 1 - w->rule.size;
    }
    g->end_out->clock = w->rule.clock;
    g->end_out->clock_offset = w->rule.shift + 1; /* what ends when the watermark gets there has been pushed */
    g->middle_out = moved(g->p, g->end_out, -WINDOW_TIME_US, w->rule.clock, w->rule.shift + 1 - WINDOW_TIME_US, place);
    return g->middle_out;
}

/* ------------------------------------------------------------------------------------------------------- aggregates */

/* The item that is this argument or condition; the same text is one item. UINT32_MAX: the error is set. */
static uint32_t item_of(struct grouping *g, const struct ast *node, bool condition)
{
    struct node *n = g->node;
    for (uint32_t i = g->first_item; i < n->item_count; i++)
        if (ast_equal(g->item_asts[i - g->first_item], node) && (!condition || n->items[i]->type.kind == TYPE_BOOL))
            return i;
    if (n->item_count >= PLAN_COLUMNS_MAX - 1 || n->item_count - g->first_item == ARRAY_LEN(g->item_asts)) {
        (void)plan_refuse(g->p, node, "more than %u aggregates", AGGREGATES_MAX);
        return UINT32_MAX;
    }
    struct expr *x = condition ? stage_bind_bool(g->p, g->input, node) : stage_bind(g->p, g->input, node);
    if (!x)
        return UINT32_MAX;
    g->item_asts[n->item_count - g->first_item] = node;
    n->items[n->item_count] = x;
    return n->item_count++;
}

static struct expr *aggregate_out(struct grouping *g, const struct ast_call *call, enum aggregate_kind kind)
{
    struct node *n = g->node;
    struct planner *p = g->p;
    struct aggregate a = {.kind = call->star ? AGG_COUNT_ALL : kind,
                          .distinct = call->distinct,
                          .arg = type_of(TYPE_BOOL),
                          .filter = NO_FILTER};
    const char *why;
    for (uint32_t i = 0; i < n->aggregate_count; i++)
        if (ast_equal(g->calls[i], &call->ast))
            return g->call_outs[i];
    if (call->order.count || call->nulls || call->args.count != !call->star ||
        (call->star && (kind != AGG_COUNT || call->distinct)))
        return plan_refuse(p, &call->ast, "an aggregate takes one argument, without an order; only COUNT takes a star");
    if (n->aggregate_count == AGGREGATES_MAX)
        return plan_refuse(p, &call->ast, "more than %u aggregates", AGGREGATES_MAX);
    if (!call->star) {
        a.column = item_of(g, call->args.at[0], false);
        if (a.column == UINT32_MAX)
            return NULL;
        a.arg = n->items[a.column]->type;
    }
    if (call->filter && (a.filter = item_of(g, call->filter, true)) == UINT32_MAX)
        return NULL;
    if (!aggregate_type(&a, g->input->node->retracts, &why)) {
        sql_error_set(p->error, SQL_FAULT_TYPE, call->ast.at, call->ast.len, "%.*s %s",
                      SLICE_ARG(call->name.at[call->name.count - 1]), why);
        return NULL;
    }
    struct expr *out = plan_out(p, n, a.type, &call->ast);
    if (!out)
        return NULL;
    g->calls[n->aggregate_count] = &call->ast;
    g->call_outs[n->aggregate_count] = out;
    n->aggregates[n->aggregate_count++] = a;
    return out;
}

static bool legacy_edge(struct grouping *g, const struct ast *node, struct expr **ret)
{
    const struct ast_call *of = AST_AS(call, g->legacy), *c = AST_AS(call, node);
    bool start = legacy_kind(node, "_start") != WINDOWED_KINDS, end = legacy_kind(node, "_end") != WINDOWED_KINDS;
    if (!g->legacy || (!start && !end) || c->args.count != of->args.count)
        return false;
    for (size_t i = 0; i < c->args.count; i++)
        if (!ast_equal(c->args.at[i], of->args.at[i]))
            return false;
    if (legacy_kind(node, start ? "_start" : "_end") != legacy_kind(g->legacy, ""))
        return false;
    *ret = start ? g->start_out : g->end_out;
    return true;
}

static bool group_replace(void *arg, const struct ast *node, struct expr **ret)
{
    struct grouping *g = arg;
    for (uint32_t i = 0; i < g->key_count; i++)
        if (ast_equal(g->elements[i], node)) {
            *ret = g->outs[i];
            return true;
        }
    if (node->kind != AST_CALL)
        return false;
    const struct ast_call *c = AST_AS(call, node);
    enum aggregate_kind kind = aggregate_find(c->name.at[c->name.count - 1]);
    if (legacy_edge(g, node, ret))
        return true;
    if (c->over || kind == AGG_KINDS)
        return false;
    *ret = aggregate_out(g, c, kind);
    return true;
}

static struct expr *group_column(void *arg, uint32_t column)
{
    struct grouping *g = arg;
    const struct named *n = &g->input->names[column];
    struct expr *x = lazy_expr(g->p, n->lazy, g->place);
    const struct windowing *w = g->input->windowing;
    if (!x)
        return NULL;
    for (uint32_t i = 0; i < g->key_count; i++)
        if (g->keys[i] == x)
            return g->outs[i];
    if (w && g->start_out && (x == w->start || x == w->end || x == w->middle))
        return x == w->start ? g->start_out : x == w->end ? g->end_out : g->middle_out;
    sql_error_set(g->p->error, SQL_FAULT_GROUPING, g->place->at, g->place->len,
                  "%.*s has to be in GROUP BY, or in an aggregate", SLICE_ARG(n->name));
    return NULL;
}

static struct expr *group_bind(struct grouping *g, const struct ast *node, bool condition)
{
    struct scope_column *columns = plan_take(g->p, node, (g->input->count + 1) * sizeof *columns);
    struct sql_type type = type_of(TYPE_BOOL);
    if (!columns)
        return NULL;
    for (uint32_t i = 0; i < g->input->count; i++)
        columns[i] = (struct scope_column){.table = g->input->names[i].table,
                                           .name = g->input->names[i].name,
                                           .qualified = g->input->names[i].qualified};
    struct scope scope = {
        .columns = columns, .count = g->input->count, .column = group_column, .replace = group_replace, .arg = g};
    g->place = node;
    return condition ? sql_bind_as(node, &type, &scope, g->p->arena, g->p->error)
                     : sql_bind(node, &scope, g->p->arena, g->p->error);
}

static struct slice item_name(const struct ast_item *item)
{
    const struct ast *x = item->expr;
    const struct ast_names *names = x->kind == AST_NAME   ? &AST_AS(name, x)->parts
                                    : x->kind == AST_CALL ? &AST_AS(call, x)->name
                                                          : NULL;
    return item->alias.ptr ? item->alias : names ? names->at[names->count - 1] : slice_str("?column?");
}

bool plan_grouped(struct planner *p, const struct ast_select *select, struct stage *input, struct stage *ret)
{
    struct grouping *g = plan_take(p, &select->ast, sizeof *g);
    size_t room = (select->group.count + 1) * sizeof(void *);
    bool windowed = false;
    if (!g)
        return false;
    *g = (struct grouping){.p = p, .input = input, .select = select};
    g->elements = plan_take(p, &select->ast, room);
    g->keys = plan_take(p, &select->ast, room);
    g->outs = plan_take(p, &select->ast, room);
    if (!g->elements || !g->keys || !g->outs)
        return false;
    for (size_t i = 0; i < select->group.count; i++)
        if (!add_element(g, element_of(g, select->group.at[i]), &windowed))
            return false;
    if (input->windowing && !windowed && input->windowing->rule.kind != SPAN_TUMBLE)
        return plan_refuse(p, input->windowing->place,
                           "HOP, CUMULATE and SESSION windows have to be grouped by window_start or window_end");
    g->node = plan_node(p, input, &select->ast);
    if (!g->node || !make_outs(g, windowed, &select->ast))
        return false;
    *ret = (struct stage){.node = g->node};
    for (size_t i = 0; i < select->items.count; i++) {
        const struct ast_item *item = AST_AS(item, select->items.at[i]);
        struct expr *x = item->expr->kind == AST_STAR ? plan_refuse(p, item->expr, "a star beside GROUP BY")
                                                      : group_bind(g, item->expr, false);
        if (!x || !stage_name_expr(p, ret, (struct slice){0}, item_name(item), x, item->expr))
            return false;
    }
    if (select->having) {
        ret->filters[0] = group_bind(g, select->having, true);
        ret->filter_count = 1;
        if (!ret->filters[0])
            return false;
    }
    g->node->retracts = g->node->changes;
    return true;
}

/* DISTINCT is GROUP BY everything. */
bool plan_distinct(struct planner *p, const struct ast *place, struct stage *s)
{
    if (s->windowing)
        return plan_refuse(p, s->windowing->place, "DISTINCT over windows without GROUP BY cannot be run yet");
    struct node *n = plan_node(p, s, place);
    struct stage out = {.node = n};
    if (!n)
        return false;
    for (uint32_t i = 0; i < s->count; i++) {
        n->items[i] = lazy_expr(p, s->names[i].lazy, place);
        if (!n->items[i] || !plan_check_key(p, n->items[i], place))
            return false;
    }
    if (!plan_rule(p, n, s->count, place))
        return false;
    n->item_count = s->count + (n->rule.kind != SPAN_NONE);
    for (uint32_t i = 0; i < s->count; i++) {
        struct expr *x = plan_out(p, n, n->items[i]->type, place);
        if (!x || !stage_name_expr(p, &out, s->names[i].table, s->names[i].name, x, place))
            return false;
        plan_bound(x, n, n->items[i]);
    }
    n->retracts = n->changes && s->node->retracts;
    *s = out;
    return true;
}
