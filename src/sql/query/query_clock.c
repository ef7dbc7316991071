/* Time of a query that runs, see query.h: what rows say of it, what its caller says while none come, and what waits for it. */
#include "sql/query/query_int.h"

#include "base/check.h"
#include "base/mem.h"

#define PARTITIONS_MAX 4096u

static bool clock_room(struct clock *c, uint32_t partition)
{
    uint32_t count = partition + 1;
    if (count <= c->partition_count)
        return true;
    int64_t *partitions = count <= PARTITIONS_MAX ? mem_realloc(c->partitions, count * sizeof *partitions) : NULL;
    if (!partitions)
        return false;
    c->partitions = partitions;
    uint8_t *idle = mem_realloc(c->idle, count);
    if (!idle)
        return false;
    c->idle = idle;
    for (; c->partition_count < count; c->partition_count++) {
        partitions[c->partition_count] = TIME_NEVER;
        idle[c->partition_count] = false;
    }
    return true;
}

/* The least of those that are not idle. It never goes back. */
static int64_t clock_now(const struct clock *c)
{
    int64_t least = INT64_MAX;
    for (uint32_t i = 0; i < c->partition_count; i++)
        if (!c->idle[i] && c->partitions[i] < least)
            least = c->partitions[i];
    return least != INT64_MAX && least > c->now ? least : c->now;
}

/* The watermark before each row. */
static bool clock_run(struct query *q, struct clock *c, struct eval *e, struct sel sel, const struct query_input *in)
{
    int64_t *at = arena_take(q->scratch, (in->rows + 1) * sizeof *at);
    const struct column *values = at && sel.count ? eval_expr(e, c->expr, sel) : NULL;
    if (!at || (sel.count && !values) || !clock_room(c, in->partition))
        return op_fail(&q->step, SQL_FAULT_MEMORY);
    uint32_t row = 0;
    c->idle[in->partition] &= sel.count == 0;
    for (uint32_t k = 0; k < sel.count; k++) {
        uint32_t next = sel_row(sel, k);
        while (row <= next)
            at[row++] = c->now;
        if (column_null(values, next))
            continue;
        int64_t v = ((const int64_t *)values->values)[next & column_mask(values)] - c->delay;
        if (v <= c->partitions[in->partition])
            continue;
        c->partitions[in->partition] = v;
        c->now = clock_now(c);
    }
    while (row <= in->rows)
        at[row++] = c->now;
    c->at = at;
    return true;
}

/* Clocks that are the earlier of two, when those have moved. */
static bool joint_run(struct query *q)
{
    for (uint32_t k = 0; k < q->plan.joint_count; k++) {
        struct clock *c = q->plan.joint[k];
        const struct clock *a = c->of[0], *b = c->of[1];
        int64_t *at = a->at || b->at ? arena_take(q->scratch, (q->step.rows + 1) * sizeof *at) : NULL;
        if (!at && (a->at || b->at))
            return op_fail(&q->step, SQL_FAULT_MEMORY);
        for (uint32_t i = 0; at && i <= q->step.rows; i++)
            at[i] = clock_before(a, i) < clock_before(b, i) ? clock_before(a, i) : clock_before(b, i);
        c->at = at;
        c->now = a->now < b->now ? a->now : b->now;
    }
    return true;
}

bool query_clocks_run(struct query *q, struct source *s, struct eval *e, struct sel sel, const struct query_input *in)
{
    struct clock *clocks[] = {s->clock, s->arrival};
    for (size_t i = 0; i < ARRAY_LEN(clocks); i++)
        if (clocks[i] && clocks[i]->expr && !clock_run(q, clocks[i], e, sel, in))
            return false;
    return joint_run(q);
}

/* A step without records, in which clocks move. */
static bool tick(struct query *q, uint32_t source, uint32_t partition, int64_t us, enum sql_fault *ret_fault)
{
    CHECK(source < q->plan.source_count);
    struct source *s = &q->plan.sources[source];
    struct clock *clocks[] = {s->clock, s->arrival};
    int64_t at[ARRAY_LEN(clocks)][2];
    q->step.rows = 1;
    q->step.ts_us = NULL;
    for (size_t i = 0; i < ARRAY_LEN(clocks); i++) {
        struct clock *c = clocks[i];
        if (!c || !c->expr)
            continue;
        at[i][0] = c->now;
        if (us == TIME_NEVER && !clock_room(c, partition)) {
            *ret_fault = SQL_FAULT_MEMORY;
            return false;
        }
        if (us == TIME_NEVER) {
            c->idle[partition] = true;
            c->now = clock_now(c);
        } else if (us - c->delay > c->now) {
            c->now = us - c->delay;
        }
        at[i][1] = c->now;
        c->at = at[i];
    }
    *ret_fault = SQL_FAULT_MEMORY;
    bool ok = joint_run(q) && query_flush(q, s, ret_fault);
    arena_recycle(q->scratch);
    return ok;
}

bool query_partitions(struct query *query, uint32_t source, uint32_t count)
{
    CHECK(source < query->plan.source_count);
    struct source *s = &query->plan.sources[source];
    return !count || ((!s->clock || clock_room(s->clock, count - 1)) && clock_room(s->arrival, count - 1));
}

/* The one that says what time it is in the source; NULL: nobody asks. */
static const struct clock *clock_told(const struct source *s)
{
    return s->clock && s->clock->expr ? s->clock : s->arrival->expr ? s->arrival : NULL;
}

int64_t query_heard(const struct query *query, uint32_t source)
{
    const struct clock *c = clock_told(&query->plan.sources[source]);
    int64_t latest = TIME_NEVER;
    for (uint32_t i = 0; c && i < c->partition_count; i++)
        latest = c->partitions[i] > latest ? c->partitions[i] : latest;
    return latest != TIME_NEVER ? latest + c->delay : TIME_NEVER;
}

bool query_untimed(const struct query *query, uint32_t source)
{
    const struct clock *c = clock_told(&query->plan.sources[source]);
    for (uint32_t i = 0; c && i < c->partition_count; i++)
        if (c->partitions[i] != TIME_NEVER)
            return false;
    return true;
}

bool query_by_arrival(const struct query *query, uint32_t source)
{
    const struct source *s = &query->plan.sources[source];
    return clock_told(s) == s->arrival;
}

int64_t query_watermark(const struct query *query, uint32_t source)
{
    const struct clock *c = clock_told(&query->plan.sources[source]);
    return c && c->now != TIME_NEVER ? c->now + c->delay : TIME_NEVER; /* as query_advance takes it */
}

int64_t query_reached(const struct query *query, uint32_t source)
{
    const struct source *s = &query->plan.sources[source];
    const struct clock *clocks[] = {s->clock, s->arrival};
    int64_t reached = INT64_MAX;
    for (size_t i = 0; i < ARRAY_LEN(clocks); i++) {
        const struct clock *c = clocks[i];
        int64_t own = c && c->expr ? (c->now != TIME_NEVER ? c->now + c->delay : TIME_NEVER) : INT64_MAX;
        reached = own < reached ? own : reached;
    }
    return reached != INT64_MAX ? reached : TIME_NEVER;
}

int64_t query_due_after(const struct query *query, int64_t watermark)
{
    int64_t due = INT64_MAX, delay = query->plan.source_count ? query->plan.sources[0].arrival->delay : 0; /* of all */
    for (uint32_t i = 0; i < query->plan.op_count; i++) {
        const struct op *op = query->plan.ops[i];
        int64_t own = op->kind->due ? op->kind->due(op) : INT64_MAX;
        own = own != INT64_MAX ? own + delay : own;
        due = own > watermark && own < due ? own : due;
    }
    return due;
}

int64_t query_due(const struct query *query)
{
    return query_due_after(query, TIME_NEVER);
}

bool query_idle(struct query *query, uint32_t source, uint32_t partition, enum sql_fault *ret_fault)
{
    return tick(query, source, partition, TIME_NEVER, ret_fault);
}

bool query_advance(struct query *query, uint32_t source, int64_t us, enum sql_fault *ret_fault)
{
    return tick(query, source, 0, us, ret_fault);
}

/* ---- snapshots ---- */

void clock_fini(struct clock *c)
{
    if (!c)
        return;
    mem_free(c->partitions);
    mem_free(c->idle);
}

void clock_save(const struct clock *c, struct state_writer *w)
{
    state_put_varint(w, c != NULL);
    if (!c)
        return;
    state_put_signed(w, c->now);
    state_put_varint(w, c->partition_count);
    for (uint32_t i = 0; i < c->partition_count; i++) {
        state_put_signed(w, c->partitions[i]);
        state_put_varint(w, c->idle[i]);
    }
}

bool clock_load(struct clock *c, struct state_reader *r)
{
    bool there = state_get_varint(r);
    if (r->failed || there != (c != NULL))
        return false;
    if (!c)
        return true;
    c->now = state_get_signed(r);
    uint32_t count = (uint32_t)state_get_len(r, PARTITIONS_MAX);
    if (count && !clock_room(c, count - 1))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        c->partitions[i] = state_get_signed(r);
        c->idle[i] = state_get_varint(r) != 0;
    }
    return !r->failed;
}
