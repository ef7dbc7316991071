/* Running a plan, see query.h. */
#include "sql/query.h"

#include "base/check.h"
#include "base/mem.h"

#define PLAN_MEMORY_MAX (64u << 20)
#define STEP_MEMORY_MAX (64u << 20)
#define PARTITIONS_MAX 4096u

struct query {
    struct plan plan;
    struct arena arena, batch;
    struct scan *scans[PLAN_SOURCES_MAX];
    struct regex_cache *regexes; /* of the clocks */
    struct step step;
};

static struct scan *scan_of(const struct source *s)
{
    struct scan_column *columns = mem_alloc((s->count + 1) * sizeof *columns);
    uint32_t count = 0;
    if (!columns)
        return NULL;
    for (uint32_t i = 0; i < s->count; i++)
        if (s->columns[i].pseudo < 0)
            columns[count++] = s->columns[i].path;
    struct scan *scan = scan_new(columns, count);
    mem_free(columns);
    return scan;
}

struct query *query_new(const struct catalog *catalog, const struct ast *statement, size_t state_max, struct op *sink,
                        struct sql_error *error)
{
    struct query *q = mem_zalloc(sizeof *q);
    const struct ast_run *run = AST_AS(run, statement);
    if (!q) {
        sql_error_set(error, SQL_FAULT_MEMORY, statement->at, statement->len, "no memory for the query");
        return NULL;
    }
    arena_init(&q->arena, PLAN_MEMORY_MAX);
    arena_init(&q->batch, STEP_MEMORY_MAX);
    q->plan.budget.max = state_max;
    if (statement->kind != AST_RUN)
        sql_error_set(error, SQL_FAULT_UNBOUNDED, statement->at, statement->len, "%s is no query",
                      ast_kind_text(statement->kind));
    bool ok = statement->kind == AST_RUN && plan_query(catalog, run, sink, &q->arena, &q->plan, error);
    q->regexes = ok ? regex_cache_new() : NULL;
    bool memory = q->regexes != NULL;
    for (uint32_t i = 0; ok && memory && i < q->plan.source_count; i++) {
        q->scans[i] = scan_of(&q->plan.sources[i]);
        memory = q->scans[i] != NULL;
    }
    if (ok && !memory)
        sql_error_set(error, SQL_FAULT_MEMORY, statement->at, statement->len, "no memory for the query");
    if (!memory)
        query_free(&q);
    return q;
}

void query_free(struct query **query)
{
    struct query *q = *query;
    if (!q)
        return;
    for (uint32_t i = 0; i < q->plan.source_count; i++) {
        struct clock *clocks[] = {q->plan.sources[i].clock, q->plan.sources[i].arrival};
        for (size_t k = 0; k < ARRAY_LEN(clocks); k++)
            if (clocks[k]) {
                mem_free(clocks[k]->partitions);
                mem_free(clocks[k]->idle);
            }
        scan_free(&q->scans[i]);
    }
    plan_free(&q->plan);
    regex_cache_free(&q->regexes);
    arena_fini(&q->arena);
    arena_fini(&q->batch);
    mem_free(q);
    *query = NULL;
}

const struct plan *query_plan(const struct query *query)
{
    return &query->plan;
}

struct slice query_source(const struct query *query, uint32_t i)
{
    return i < query->plan.source_count ? catalog_name(&query->plan.sources[i].stream->ast) : (struct slice){0};
}

void query_divert(struct query *query, void (*divert)(void *arg, uint32_t origin, enum sql_fault fault), void *arg)
{
    query->step.divert = divert;
    query->step.divert_arg = arg;
}

/* ----------------------------------------------------------------------------------------------------------- clocks */

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
    int64_t *at = arena_take(&q->batch, (in->rows + 1) * sizeof *at);
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
        int64_t v = ((const int64_t *)values->values)[next & column_mask(values)];
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

static bool flush(struct query *q, struct source *s, enum sql_fault *ret_fault)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < q->plan.source_count; i++)
        ok = op_flush(q->plan.sources[i].op, &q->step);
    if (s->clock)
        s->clock->at = NULL;
    s->arrival->at = NULL;
    arena_recycle(&q->batch);
    *ret_fault = q->step.fault;
    return ok;
}

/* A step without records, in which clocks move. */
static bool tick(struct query *q, uint32_t source, uint32_t partition, int64_t us, enum sql_fault *ret_fault)
{
    CHECK(source < q->plan.source_count);
    struct source *s = &q->plan.sources[source];
    struct clock *clocks[] = {s->clock, s->arrival};
    int64_t at[ARRAY_LEN(clocks)][2];
    q->step.rows = 1;
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
        } else if (us > c->now) {
            c->now = us;
        }
        at[i][1] = c->now;
        c->at = at[i];
    }
    return flush(q, s, ret_fault);
}

bool query_idle(struct query *query, uint32_t source, uint32_t partition, enum sql_fault *ret_fault)
{
    return tick(query, source, partition, TIME_NEVER, ret_fault);
}

bool query_advance(struct query *query, uint32_t source, int64_t us, enum sql_fault *ret_fault)
{
    return tick(query, source, 0, us, ret_fault);
}

/* ------------------------------------------------------------------------------------------------------------ steps */

static struct column pseudo_column(struct query *q, enum pseudo which, const struct query_input *in)
{
    int64_t *values = arena_take(&q->batch, (in->rows + 1) * sizeof *values);
    for (uint32_t i = 0; values && i < in->rows; i++)
        values[i] = which == PSEUDO_OFFSET      ? (int64_t)(in->offset + i)
                    : which == PSEUDO_PARTITION ? (int64_t)in->partition
                    : in->ts_us                 ? in->ts_us[i]
                                                : 0;
    return (struct column){.form = FORM_I64, .values = values};
}

/* The scan's columns, and what the log knows, in the order in which the plan has them. */
static bool read_batch(struct query *q, const struct query_input *in, struct eval *e)
{
    struct source *s = &q->plan.sources[in->source];
    struct column *columns = arena_take(&q->batch, (s->count + 1) * sizeof *columns);
    uint32_t scanned = 0;
    if (!columns || !scan_batch(q->scans[in->source], in->records, in->rows, &q->batch, e))
        return op_fail(&q->step, SQL_FAULT_MEMORY);
    for (uint32_t i = 0; i < s->count; i++) {
        int pseudo = s->columns[i].pseudo;
        columns[i] = pseudo < 0 ? e->columns[scanned++] : pseudo_column(q, (enum pseudo)pseudo, in);
        if (!columns[i].values)
            return op_fail(&q->step, SQL_FAULT_MEMORY);
    }
    e->columns = columns;
    e->column_count = s->count;
    e->regexes = q->regexes;
    return true;
}

bool query_step(struct query *query, const struct query_input *in, enum sql_fault *ret_fault)
{
    CHECK(in->source < query->plan.source_count && in->rows <= BATCH_ROWS_MAX);
    struct source *s = &query->plan.sources[in->source];
    struct clock *clocks[] = {s->clock, s->arrival};
    struct eval e;
    *ret_fault = SQL_FAULT_NONE;
    if (!in->rows)
        return true;
    query->step.rows = in->rows;
    bool ok = read_batch(query, in, &e);
    struct batch batch = {.arena = &query->batch, .rows = in->rows, .sel = {.count = in->rows}};
    if (ok && e.fault_count)
        ok = op_divert(s->op, &query->step, &e, &batch, &batch.sel);
    for (size_t i = 0; ok && i < ARRAY_LEN(clocks); i++)
        if (clocks[i] && clocks[i]->expr)
            ok = clock_run(query, clocks[i], &e, batch.sel, in);
    batch.columns = e.columns;
    batch.column_count = e.column_count;
    ok = ok && op_push(s->op, &query->step, &batch);
    if (ok)
        return flush(query, s, ret_fault);
    *ret_fault = query->step.fault;
    return false;
}

size_t query_state_bytes(const struct query *query)
{
    return query->plan.budget.used;
}

uint64_t query_late(const struct query *query)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < query->plan.op_count; i++)
        sum += query->plan.ops[i]->late;
    return sum;
}

uint64_t query_faults(const struct query *query)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < query->plan.op_count; i++)
        sum += query->plan.ops[i]->faults;
    return sum;
}
