/* Groups in spans of time, see op_aggregate.h.
 *
 * A span is a piece of time that no window's edge cuts (a slice), with a table of its groups. HOP: gcd(size, slide) wide, a window's rows are the
 * merged groups of its spans; a row is in one span only. CUMULATE: a step wide, and the spans of a window that was pushed become one, in
 * which rows for the windows to come go on. TUMBLE: a window. VALUE: one value. Spans are in the order of time; there are few. */
#include "sql/query/op_aggregate.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/query/spill.h"

#define SCRATCH_MAX (8u << 20)

struct span {
    int64_t begin, end;
    struct table groups;
};

/* What an entry holds: how many rows, then a cell for each aggregate. */
struct group {
    int64_t rows;
    struct cell cells[] __attribute__((aligned(16)));
};

struct aggregation {
    struct op op;
    struct span_rule rule;
    bool changes;
    uint32_t keys, count; /* count: of aggregates */
    struct aggregate *aggregates;
    struct sql_type *types;
    struct span **spans;
    struct spill
        spill; /* of the groups, when there is one span for all time: windows are given out in the order of their groups */
    uint32_t span_count, span_room;
    int64_t closed;     /* every window that ends by then has been pushed */
    int64_t next_close; /* INT64_MAX: no window is open */
    int64_t width;      /* of a span */
    struct emitter m;
    struct arena scratch;
};

static int64_t floor_to(int64_t t, int64_t step, int64_t offset)
{
    int64_t rest = (t - offset) % step;
    return t - (rest < 0 ? rest + step : rest);
}

/* When the last window that has this time is complete; INT64_MIN: none has it (HOP with gaps). */
static int64_t last_end(const struct aggregation *g, int64_t t)
{
    const struct span_rule *r = &g->rule;
    int64_t start;
    switch (r->kind) {
    case SPAN_VALUE: return t - r->offset + 1;
    case SPAN_HOP: start = floor_to(t, r->slide, r->offset); return t < start + r->size ? start + r->size : INT64_MIN;
    default: return floor_to(t, r->size, r->offset) + r->size;
    }
}

/* The end of the first window after `closed` that has the span; INT64_MAX: there is none any more. */
static int64_t next_end(const struct aggregation *g, const struct span *s)
{
    const struct span_rule *r = &g->rule;
    int64_t end = s->end, last;
    if (r->kind == SPAN_VALUE)
        return s->begin - r->offset + 1;
    if (r->kind == SPAN_TUMBLE)
        return s->end;
    if (r->kind == SPAN_HOP) {
        last = floor_to(s->begin, r->slide, r->offset) + r->size;
        end = last - (last - s->end) / r->slide * r->slide;
    } else {
        last = floor_to(s->begin, r->size, r->offset) + r->size;
    }
    if (end <= g->closed)
        end += ((g->closed - end) / r->slide + 1) * r->slide;
    return end <= last ? end : INT64_MAX;
}

static void find_next(struct aggregation *g)
{
    g->next_close = INT64_MAX;
    for (uint32_t i = 0; i < g->span_count && g->rule.kind != SPAN_NONE; i++) {
        int64_t end = next_end(g, g->spans[i]);
        g->next_close = end < g->next_close ? end : g->next_close;
    }
}

/* ----------------------------------------------------------------------------------------------------------- groups */

static struct group *group_of(struct entry *e)
{
    return (struct group *)(void *)e->bytes;
}

static void group_fini(struct aggregation *g, struct entry *e)
{
    aggregates_fini(g->aggregates, g->count, &g->op.account, group_of(e)->cells);
}

static void table_empty(struct aggregation *g, struct table *t)
{
    for (struct entry *e = t->first; e; e = e->newer)
        group_fini(g, e);
    table_fini(t);
}

static bool merge_into(struct aggregation *g, struct table *to, const struct table *from)
{
    for (struct entry *e = from->first; e; e = e->newer) {
        struct entry *into = table_find(to, entry_key(e), e->hash);
        if (!into)
            into = table_add(to, entry_key(e), e->hash);
        if (!into)
            return false;
        group_of(into)->rows += group_of(e)->rows;
        if (!aggregates_merge(g->aggregates, g->count, &g->op.account, group_of(into)->cells, group_of(e)->cells))
            return false;
    }
    return true;
}

/* A row of a group. One whose result has a fault is diverted, and not pushed. */
static bool emit_group(struct aggregation *g, struct step *step, uint32_t origin, int weight, struct entry *e,
                       int64_t begin, int64_t end)
{
    const uint8_t *at = entry_key(e).ptr;
    uint8_t room[KEY_ROOM];
    uint32_t column = 0;
    if (!emit_row(&g->m, step, origin, weight))
        return false;
    for (; column < g->keys; column++) {
        const void *value = key_value(type_form(g->types[column].kind), &at, room);
        if (value)
            emit_set(&g->m, column, value);
    }
    if (g->rule.kind >= SPAN_TUMBLE) {
        emit_set(&g->m, column++, &begin);
        emit_set(&g->m, column++, &end);
    }
    for (uint32_t i = 0; i < g->count; i++, column++) {
        enum sql_fault fault;
        const void *value = aggregate_value(&g->aggregates[i], &group_of(e)->cells[i], room, &fault);
        if (fault != SQL_FAULT_NONE) {
            emit_drop(&g->m, 1);
            g->op.faults += weight > 0;
            if (weight > 0 && step->divert)
                step->divert(step->divert_arg, origin, fault);
            return true;
        }
        if (value && !emit_set_copy(&g->m, step, column, value))
            return false;
    }
    return true;
}

static bool emit_groups(struct aggregation *g, struct step *step, uint32_t origin, struct table *t, int64_t begin,
                        int64_t end)
{
    for (struct entry *e = t->first; e; e = e->newer)
        if (group_of(e)->rows > 0 && !emit_group(g, step, origin, 1, e, begin, end))
            return false;
    return emit_end(&g->m, step); /* before what the rows point at goes */
}

/* ----------------------------------------------------------------------------------------------------------- windows */

static void span_free(struct aggregation *g, uint32_t i)
{
    struct span *s = g->spans[i];
    table_empty(g, &s->groups);
    account_give(&g->op.account, s, sizeof *s);
    memmove(g->spans + i, g->spans + i + 1, (g->span_count - i - 1) * sizeof *g->spans);
    g->span_count--;
}

/* A span more, at that place. NULL: no memory. */
static struct span *span_add(struct aggregation *g, uint32_t at, int64_t begin, int64_t end)
{
    if (g->span_count == g->span_room) {
        uint32_t room = g->span_room ? 2 * g->span_room : 8;
        struct span **more = account_take(&g->op.account, room * sizeof *more);
        if (!more)
            return NULL;
        if (g->span_count)
            memcpy(more, g->spans, g->span_count * sizeof *more);
        account_give(&g->op.account, g->spans, g->span_room * sizeof *more);
        g->spans = more;
        g->span_room = room;
    }
    struct span *s = account_take(&g->op.account, sizeof *s);
    if (!s)
        return NULL;
    s->begin = begin;
    s->end = end;
    table_init(&s->groups, &g->op.account, (uint32_t)(sizeof(struct group) + g->count * sizeof(struct cell)));
    memmove(g->spans + at + 1, g->spans + at, (g->span_count - at) * sizeof *g->spans);
    g->spans[at] = s;
    g->span_count++;
    if (g->rule.kind == SPAN_NONE)
        g->spill.table = &s->groups;
    return s;
}

/* NULL: no memory. */
static struct span *span_at(struct aggregation *g, int64_t t)
{
    uint32_t i = g->span_count;
    while (i > 0 && g->spans[i - 1]->begin > t)
        i--;
    if (i > 0 && t < g->spans[i - 1]->end)
        return g->spans[i - 1];
    if (g->rule.kind == SPAN_NONE)
        return span_add(g, i, INT64_MIN, INT64_MAX);
    int64_t begin = floor_to(t, g->width, g->rule.kind == SPAN_VALUE ? 0 : g->rule.offset);
    struct span *s = span_add(g, i, begin, begin + g->width);
    if (s) {
        int64_t end = next_end(g, s);
        g->next_close = end < g->next_close ? end : g->next_close;
    }
    return s;
}

/* Pushes the window that ends at g->next_close. */
static bool push_window(struct aggregation *g, struct step *step, uint32_t origin)
{
    const struct span_rule *r = &g->rule;
    int64_t end = g->next_close,
            begin = r->kind == SPAN_CUMULATE ? floor_to(end - 1, r->size, r->offset) : end - r->size;
    struct table merged;
    struct span *first = NULL;
    bool ok = true;
    table_init(&merged, &g->op.account, (uint32_t)(sizeof(struct group) + g->count * sizeof(struct cell)));
    for (uint32_t i = 0; ok && i < g->span_count; i++) {
        struct span *s = g->spans[i];
        bool in = r->kind == SPAN_VALUE ? s->begin - r->offset + 1 == end : s->begin >= begin && s->end <= end;
        if (!in)
            continue;
        if (r->kind == SPAN_HOP) {
            ok = merge_into(g, &merged, &s->groups);
        } else if (first) { /* CUMULATE */
            ok = merge_into(g, &first->groups, &s->groups);
            span_free(g, i--);
        } else {
            first = s;
        }
    }
    if (ok && r->kind == SPAN_CUMULATE && first)
        first->end = end;
    ok = ok ? g->changes || emit_groups(g, step, origin, first ? &first->groups : &merged, begin, end)
            : op_fail(step, SQL_FAULT_MEMORY);
    table_empty(g, &merged);
    return ok;
}

static bool advance(struct aggregation *g, struct step *step, int64_t watermark)
{
    while (g->next_close <= watermark) {
        if (!emit_end(&g->m, step) ||
            !push_window(g, step, clock_origin(g->rule.clock, step, g->next_close - g->rule.shift)))
            return false;
        g->closed = g->next_close;
        for (uint32_t i = 0; i < g->span_count; i++)
            if (g->rule.kind == SPAN_HOP || g->rule.kind == SPAN_CUMULATE ? next_end(g, g->spans[i]) == INT64_MAX
                                                                          : next_end(g, g->spans[i]) <= g->closed)
                span_free(g, i--);
        find_next(g);
    }
    return true;
}

/* -------------------------------------------------------------------------------------------------------------- rows */

static bool update(struct aggregation *g, struct step *step, const struct batch *b, uint32_t row, struct span *s,
                   struct slice key)
{
    uint64_t hash = table_hash(&s->groups, key);
    struct entry *e = NULL;
    enum sql_fault fault;
    if (g->rule.kind != SPAN_NONE)
        e = table_find(&s->groups, key, hash);
    else if (!spill_find(&g->spill, key, hash, &e, &fault))
        return op_fail(step, fault);
    bool there = e != NULL;
    if (!e)
        e = table_add(&s->groups, key, hash);
    uint32_t origin = batch_origin(b, row), before = 0;
    int weight = batch_weight(b, row);
    if (!e)
        return op_fail(step, SQL_FAULT_MEMORY);
    if (g->changes && !emit_room(&g->m, step, 2))
        return false;
    if (g->changes && there && (group_of(e)->rows > 0 || !g->keys)) { /* without keys there is one row for ever */
        before = g->m.rows;
        if (!emit_group(g, step, origin, -1, e, s->begin, s->end))
            return false;
        before = g->m.rows - before;
    }
    group_of(e)->rows += weight;
    if (!aggregates_add(g->aggregates, g->count, &g->op.account, group_of(e)->cells, b->columns, row, weight, &fault))
        return op_fail(step, fault);
    if (!g->changes)
        return true;
    if (group_of(e)->rows > 0 || !g->keys) {
        uint32_t rows = g->m.rows;
        if (!emit_group(g, step, origin, 1, e, s->begin, s->end))
            return false;
        if (before && g->m.rows > rows && emit_same(&g->m))
            emit_drop(&g->m, 2);
        return true;
    }
    if (group_of(e)->rows == 0) {
        if (!emit_end(&g->m, step))
            return false;
        group_fini(g, e);
        table_remove(&s->groups, e);
    }
    return true;
}

/* Without keys there is one row for ever, also of nothing. */
static bool aggregation_begin(struct op *op, struct step *step)
{
    struct aggregation *g = CONTAINER_OF(op, struct aggregation, op);
    struct slice key = slice_of((const uint8_t *)"", 0);
    struct span *s = span_at(g, 0);
    uint64_t hash = s ? table_hash(&s->groups, key) : 0;
    if (s && table_find(&s->groups, key, hash))
        return true; /* it has had a row: what is before it has begun, too */
    struct entry *e = s ? table_add(&s->groups, key, hash) : NULL;
    if (!e)
        return op_fail(step, SQL_FAULT_MEMORY);
    return emit_group(g, step, 0, 1, e, s->begin, s->end) && emit_end(&g->m, step);
}

static bool aggregation_push(struct op *op, struct step *step, const struct batch *b)
{
    struct aggregation *g = CONTAINER_OF(op, struct aggregation, op);
    bool timed = g->rule.kind != SPAN_NONE;
    for (uint32_t k = 0; k < b->sel.count; k++) {
        uint32_t row = sel_row(b->sel, k), origin = batch_origin(b, row);
        int64_t watermark = timed ? span_watermark(&g->rule, clock_before(g->rule.clock, origin)) : 0, t = 0;
        struct slice key;
        enum sql_fault fault;
        if (timed) {
            const struct column *time = &b->columns[g->keys];
            if (watermark >= g->next_close && !advance(g, step, watermark))
                return false;
            if (column_null(time, row)) {
                op->faults++;
                if (step->divert)
                    step->divert(step->divert_arg, origin, SQL_FAULT_NOT_NULL);
                continue;
            }
            t = ((const int64_t *)time->values)[row & column_mask(time)];
            int64_t last = last_end(g, t);
            if (last == INT64_MIN)
                continue;
            if (last <= watermark) {
                op->late++;
                continue;
            }
            g->closed = watermark > g->closed ? watermark : g->closed;
        }
        struct span *s = span_at(g, t);
        if (!s || !key_of_row(&g->scratch, b->columns, g->keys, row, &key, &fault))
            return op_fail(step, s ? fault : SQL_FAULT_MEMORY);
        if (!update(g, step, b, row, s, key))
            return false;
        if (g->scratch.used > SCRATCH_MAX / 2)
            arena_recycle(&g->scratch);
    }
    arena_recycle(&g->scratch);
    return emit_end(&g->m, step);
}

static bool aggregation_flush(struct op *op, struct step *step)
{
    struct aggregation *g = CONTAINER_OF(op, struct aggregation, op);
    const struct clock *c = g->rule.clock;
    if (g->rule.kind == SPAN_NONE || !c->at || !step->rows)
        return true;
    return advance(g, step, span_watermark(&g->rule, c->at[step->rows])) && emit_end(&g->m, step);
}

static int64_t aggregation_due(const struct op *op)
{
    const struct aggregation *g = CONTAINER_OF(op, struct aggregation, op);
    return g->changes || g->next_close == INT64_MAX ? INT64_MAX : time_plus(g->next_close, -g->rule.shift);
}

static void aggregation_fini(struct op *op)
{
    struct aggregation *g = CONTAINER_OF(op, struct aggregation, op);
    spill_fini(&g->spill);
    while (g->span_count)
        span_free(g, g->span_count - 1);
    account_give(&op->account, g->spans, g->span_room * sizeof *g->spans);
    emit_fini(&g->m);
    arena_fini(&g->scratch);
    mem_free(g->aggregates);
    mem_free(g->types);
}

/* -------------------------------------------------------------------------------------------------------- snapshots */

#define AGGREGATION_VERSION 1u

static void group_save(struct op *op, struct entry *e, struct state_writer *w, int64_t until[RUN_UNTIL])
{
    const struct aggregation *g = CONTAINER_OF(op, const struct aggregation, op);
    (void)until;
    state_put_signed(w, group_of(e)->rows);
    aggregates_save(g->aggregates, g->count, group_of(e)->cells, w);
}

static void aggregation_save(const struct op *op, struct state_writer *w)
{
    const struct aggregation *g = CONTAINER_OF(op, const struct aggregation, op);
    state_put_varint(w, AGGREGATION_VERSION);
    state_put_signed(w, g->closed);
    state_put_varint(w, g->span_count);
    for (uint32_t i = 0; i < g->span_count; i++) {
        const struct span *s = g->spans[i];
        state_put_signed(w, s->begin);
        state_put_signed(w, s->end);
        state_put_varint(w, s->groups.count + spill_count(&g->spill)); /* of one span only, if any */
        for (struct entry *e = s->groups.first; e; e = e->newer) {     /* the order of the rows to come */
            int64_t until[RUN_UNTIL];
            state_put_slice(w, entry_key(e));
            group_save((struct op *)op, e, w, until);
        }
        spill_save((struct spill *)&g->spill, w);
    }
}

static bool group_load(struct op *op, struct entry *e, struct state_reader *r)
{
    struct aggregation *g = CONTAINER_OF(op, struct aggregation, op);
    group_of(e)->rows = state_get_signed(r);
    return aggregates_load(g->aggregates, g->count, &op->account, group_of(e)->cells, r);
}

static void group_drop(struct op *op, struct entry *e)
{
    group_fini(CONTAINER_OF(op, struct aggregation, op), e);
}

static bool load_group(struct aggregation *g, struct table *t, struct state_reader *r)
{
    struct slice key;
    bool ok = key_load(&g->scratch, g->types, g->keys, r, &key);
    uint64_t hash = ok ? table_hash(t, key) : 0;
    r->failed |= ok && table_find(t, key, hash); /* no key stands there twice */
    struct entry *e = ok && !r->failed ? table_add(t, key, hash) : NULL;
    arena_recycle(&g->scratch);
    return e && group_load(&g->op, e, r);
}

static bool aggregation_load(struct op *op, struct state_reader *r)
{
    struct aggregation *g = CONTAINER_OF(op, struct aggregation, op);
    if (!state_get_version(r, AGGREGATION_VERSION))
        return false;
    g->closed = state_get_signed(r);
    uint64_t spans = state_get_varint(r);
    int64_t before = INT64_MIN;
    enum sql_fault fault;
    for (uint64_t i = 0; i < spans && !r->failed; i++) {
        int64_t begin = state_get_signed(r), end = state_get_signed(r);
        uint64_t groups = state_get_varint(r);
        r->failed |= begin < before || end <= begin;
        struct span *s = r->failed ? NULL : span_add(g, g->span_count, begin, end);
        if (!s)
            return false;
        before = end;
        for (uint64_t k = 0; k < groups; k++)
            if (!load_group(g, &s->groups, r) || !spill_relieve(op->account.budget, &fault))
                return false;
    }
    find_next(g);
    return !r->failed;
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

struct op *op_aggregate_new(struct budget *budget, const struct span_rule *rule, bool changes,
                            const struct sql_type *types, uint32_t type_count, uint32_t keys,
                            const struct aggregate *aggregates, uint32_t count)
{
    static const struct op_kind kind = {.name = "aggregate",
                                        .push = aggregation_push,
                                        .flush = aggregation_flush,
                                        .fini = aggregation_fini,
                                        .due = aggregation_due,
                                        .save = aggregation_save,
                                        .load = aggregation_load};
    static const struct op_kind of_all = {.name = "aggregate",
                                          .push = aggregation_push,
                                          .flush = aggregation_flush,
                                          .fini = aggregation_fini,
                                          .begin = aggregation_begin,
                                          .save = aggregation_save,
                                          .load = aggregation_load};
    static const struct spill_kind spilling = {.save = group_save, .load = group_load, .drop = group_drop};
    CHECK(changes || rule->kind != SPAN_NONE);
    struct aggregation *g = mem_zalloc(sizeof *g);
    if (!g)
        return NULL;
    g->op.kind = rule->kind == SPAN_NONE && !keys ? &of_all : &kind;
    g->op.account.budget = budget;
    g->rule = *rule;
    g->changes = changes;
    g->keys = keys;
    g->count = count;
    g->aggregates = mem_alloc((count ? count : 1) * sizeof *aggregates);
    g->types = mem_alloc((type_count ? type_count : 1) * sizeof *types);
    g->closed = INT64_MIN;
    g->next_close = INT64_MAX;
    g->width = rule->kind == SPAN_HOP        ? common_divisor(rule->size, rule->slide)
               : rule->kind == SPAN_CUMULATE ? rule->slide
               : rule->kind == SPAN_TUMBLE   ? rule->size
                                             : 1;
    arena_init(&g->scratch, SCRATCH_MAX);
    emit_init(&g->m, &g->op, g->types, type_count, changes);
    struct op *op = &g->op;
    spill_init(&g->spill, op, NULL, rule->kind == SPAN_NONE ? &spilling : NULL);
    if (!g->aggregates || !g->types) {
        op_free(&op);
        return NULL;
    }
    if (count)
        memcpy(g->aggregates, aggregates, count * sizeof *aggregates);
    aggregates_share(g->aggregates, count);
    if (type_count)
        memcpy(g->types, types, type_count * sizeof *types);
    return op;
}
