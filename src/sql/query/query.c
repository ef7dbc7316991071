/* Running a plan, see query.h. */
#include "sql/query/query_int.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/query/record_column.h"
#include "sql/query/spill.h"
#include "sql/query/table_record.h"

#define PLAN_MEMORY_MAX (64u << 20)
#define ROW_SHARE 2048u /* bytes of a query's memory for each record of a step */

static struct scan *scan_of(const struct source *s)
{
    struct scan_column *columns = mem_alloc((s->count + 1) * sizeof *columns);
    uint32_t count = 0;
    if (!columns)
        return NULL;
    for (uint32_t i = 0; i < s->count; i++)
        if (s->columns[i].pseudo < 0)
            columns[count++] = s->columns[i].path;
    struct scan *scan = scan_new_of(&s->rule, columns, count);
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
    arena_init_small(&q->arena, PLAN_MEMORY_MAX);
    arena_init(&q->own, QUERY_STEP_MEMORY_MAX);
    q->scratch = &q->own;
    q->plan.budget.max = state_max;
    q->sink = sink;
    if (statement->kind != AST_RUN)
        sql_error_set(error, SQL_FAULT_UNBOUNDED, statement->at, statement->len, "%s is no query",
                      ast_kind_text(statement->kind));
    bool ok = statement->kind == AST_RUN && plan_query(catalog, run, sink, &q->arena, &q->plan, error);
    q->regexes = ok ? regex_cache_new() : NULL;
    if (ok && !q->regexes)
        sql_error_set(error, SQL_FAULT_MEMORY, statement->at, statement->len, "no memory for the query");
    if (!q->regexes)
        query_free(&q);
    return q;
}

void query_free(struct query **query)
{
    struct query *q = *query;
    if (!q)
        return;
    for (uint32_t i = 0; i < q->plan.source_count; i++) {
        clock_fini(q->plan.sources[i].clock);
        clock_fini(q->plan.sources[i].arrival);
        scan_free(&q->scans[i]);
    }
    plan_free(&q->plan);
    scratch_fini(&q->beyond); /* after the operators, which have blocks of it */
    regex_cache_free(&q->regexes);
    arena_fini(&q->arena);
    arena_fini(&q->own);
    mem_free(q);
    *query = NULL;
}

void query_spill(struct query *query, const struct scratch_disk *disk, uint64_t max)
{
    scratch_init(&query->beyond, disk, max);
    query->plan.budget.scratch = disk && max ? &query->beyond : NULL;
}

uint32_t query_rows(const struct query *query, uint32_t rows)
{
    size_t most = query->plan.budget.max / ROW_SHARE;
    return most >= rows ? rows : most ? (uint32_t)most : 1;
}

const struct plan *query_plan(const struct query *query)
{
    return &query->plan;
}

struct slice query_source(const struct query *query, uint32_t i)
{
    return i < query->plan.source_count ? catalog_name(&query->plan.sources[i].stream->ast) : (struct slice){0};
}

bool query_deletes(const struct query *query, uint32_t source)
{
    return query->plan.sources[source].deletes;
}

void query_lend(struct query *query, struct arena *scratch)
{
    arena_fini(&query->own);
    query->scratch = scratch;
}

void query_divert(struct query *query, void (*divert)(void *arg, uint32_t origin, enum sql_fault fault), void *arg)
{
    query->step.divert = divert;
    query->step.divert_arg = arg;
}

/* ------------------------------------------------------------------------------------------------------------ steps */

bool query_flush(struct query *q, struct source *s, enum sql_fault *ret_fault)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < q->plan.source_count; i++)
        ok = op_flush(q->plan.sources[i].op, &q->step);
    if (s && s->clock)
        s->clock->at = NULL;
    if (s)
        s->arrival->at = NULL;
    for (uint32_t i = 0; i < q->plan.joint_count; i++)
        q->plan.joint[i]->at = NULL;
    if (ok && !spill_relieve(&q->plan.budget, ret_fault))
        ok = op_fail(&q->step, *ret_fault);
    *ret_fault = q->step.fault;
    return ok;
}

bool query_begins(const struct query *query)
{
    for (uint32_t i = 0; i < query->plan.op_count; i++)
        if (query->plan.ops[i]->kind->begin)
            return true;
    return false;
}

bool query_begin(struct query *query, int64_t us, enum sql_fault *ret_fault)
{
    bool ok = true;
    query->step.rows = 1;
    query->step.ts_us = &us;
    query->step.begins = true;
    for (uint32_t i = 0; ok && i < query->plan.op_count; i++) {
        struct op *op = query->plan.ops[i];
        ok = !op->kind->begin || op->kind->begin(op, &query->step);
    }
    *ret_fault = query->step.fault;
    ok = ok && query_flush(query, NULL, ret_fault);
    query->step.begins = false;
    query->step.ts_us = NULL;
    arena_recycle(query->scratch);
    return ok;
}

static struct column pseudo_column(struct query *q, enum pseudo which, const struct query_input *in)
{
    int64_t *values = arena_take(q->scratch, (in->rows + 1) * sizeof *values);
    for (uint32_t i = 0; values && i < in->rows; i++)
        values[i] = which == PSEUDO_OFFSET      ? (int64_t)(in->offsets ? in->offsets[i] : in->offset + i)
                    : which == PSEUDO_PARTITION ? (int64_t)in->partition
                    : in->ts_us                 ? in->ts_us[i]
                                                : 0;
    return (struct column){.form = FORM_I64, .values = values};
}

/* What the plan takes of the records' values: read here, or before by who reads for several. */
static bool read_values(struct query *q, const struct query_input *in, const struct slice *records, struct eval *e)
{
    const struct source *s = &q->plan.sources[in->source];
    struct scan **scan = &q->scans[in->source]; /* made when it is needed: it knows names of some KB */
    if (in->scanned)
        return scan_pick(in->scanned, in->picks, s->scanned, q->scratch, e);
    if (!*scan)
        *scan = scan_of(s);
    return *scan && scan_batch(*scan, records, in->rows, q->scratch, e);
}

/* The scan's columns, and what the log knows, in the order in which the plan has them. */
static bool read_batch(struct query *q, const struct query_input *in, struct eval *e, const int8_t **ret_weights)
{
    struct source *s = &q->plan.sources[in->source];
    struct column *columns = arena_take(q->scratch, (s->count + 1) * sizeof *columns);
    const struct slice *records;
    uint32_t scanned = 0;
    if (!columns || !table_records(s, in, q->scratch, &records, ret_weights) || !read_values(q, in, records, e))
        return op_fail(&q->step, SQL_FAULT_MEMORY);
    table_forgive(e, *ret_weights, in->rows);
    for (uint32_t i = 0; i < s->count; i++) {
        int pseudo = s->columns[i].pseudo;
        columns[i] = pseudo < 0                 ? e->columns[scanned++]
                     : pseudo == PSEUDO_KEY     ? record_keys(e, in)
                     : pseudo == PSEUDO_HEADERS ? record_headers(e, in)
                                                : pseudo_column(q, (enum pseudo)pseudo, in);
        if (!columns[i].values)
            return op_fail(&q->step, SQL_FAULT_MEMORY);
    }
    if (e->no_memory)
        return op_fail(&q->step, SQL_FAULT_MEMORY);
    e->columns = columns;
    e->column_count = s->count;
    e->regexes = q->regexes;
    return true;
}

bool query_step(struct query *query, const struct query_input *in, enum sql_fault *ret_fault)
{
    CHECK(in->source < query->plan.source_count && in->rows <= BATCH_ROWS_MAX);
    struct source *s = &query->plan.sources[in->source];
    struct eval e;
    *ret_fault = SQL_FAULT_NONE;
    if (!in->rows)
        return true;
    query->step.rows = in->rows;
    query->step.ts_us = in->ts_us;
    struct batch batch = {.arena = query->scratch, .rows = in->rows, .sel = {.count = in->rows}};
    bool ok = read_batch(query, in, &e, &batch.weights);
    if (ok && e.fault_count)
        ok = op_divert(s->op, &query->step, &e, &batch, &batch.sel);
    ok = ok && query_clocks_run(query, s, &e, batch.sel, in);
    batch.columns = e.columns;
    batch.column_count = e.column_count;
    ok = ok && op_push(s->op, &query->step, &batch);
    ok = ok && query_flush(query, s, ret_fault);
    *ret_fault = query->step.fault;
    arena_recycle(query->scratch);
    return ok;
}

void query_time(struct query *query, struct op_timer *timer)
{
    for (uint32_t i = 0; timer && i < query->plan.op_count; i++)
        query->plan.ops[i]->ns = 0;
    if (timer)
        query->sink->ns = 0;
    query->step.timer = timer;
}

size_t query_state_bytes(const struct query *query)
{
    return query->plan.budget.used;
}

uint64_t query_spilled_bytes(const struct query *query)
{
    return scratch_bytes(&query->beyond);
}

enum sql_fault query_spill_fault(const struct query *query)
{
    return query->beyond.fault;
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
    uint64_t sum = query->sink->faults;
    for (uint32_t i = 0; i < query->plan.op_count; i++)
        sum += query->plan.ops[i]->faults;
    return sum;
}

/* -------------------------------------------------------------------------------------------------------- snapshots */

/* Version, hash of the plan; of each source its name, its hash and its clocks; of each operator its kind, the plan's hash, counters, and what it
 * saves; the same of the sink. Numbers of more than a byte that are no varints stand as the machine has them: the first one says so. */
#define SNAPSHOT_VERSION 1u
#define SNAPSHOT_ORDER 0x0102030405060708u

static void put_u64(struct state_writer *w, uint64_t v)
{
    state_put(w, &v, sizeof v);
}

static uint64_t get_u64(struct state_reader *r)
{
    uint64_t v;
    state_get(r, &v, sizeof v);
    return v;
}

static void op_save(const struct query *q, const struct op *op, struct state_writer *w)
{
    state_put_slice(w, slice_str(op->kind->name));
    put_u64(w, q->plan.hash);
    state_put_varint(w, op->late);
    state_put_varint(w, op->faults);
    if (op->kind->save)
        op->kind->save(op, w);
}

void query_save(const struct query *query, struct state_writer *w)
{
    const struct plan *plan = &query->plan;
    state_put_varint(w, SNAPSHOT_VERSION);
    put_u64(w, SNAPSHOT_ORDER);
    put_u64(w, plan->hash);
    state_put_varint(w, plan->source_count);
    for (uint32_t i = 0; i < plan->source_count; i++) {
        state_put_slice(w, query_source(query, i));
        put_u64(w, plan_source_hash(&plan->sources[i]));
        clock_save(plan->sources[i].clock, w);
        clock_save(plan->sources[i].arrival, w);
    }
    state_put_varint(w, plan->op_count);
    for (uint32_t i = 0; i < plan->op_count; i++)
        op_save(query, plan->ops[i], w);
    state_put_varint(w, query->sink->kind->save != NULL);
    if (query->sink->kind->save)
        op_save(query, query->sink, w);
}

static bool load_fail(const struct query *q, struct sql_error *error, struct state_reader *r, const char *what,
                      struct slice name)
{
    if (q->beyond.fault != SQL_FAULT_NONE && !r->failed) {
        sql_error_set(error, q->beyond.fault, 0, 0, "%s %.*s: %s", what, SLICE_ARG(name),
                      sql_fault_text(q->beyond.fault));
        return false;
    }
    if (r->strange) {
        sql_error_set(error, SQL_FAULT_VALUE, 0, 0,
                      "%s %.*s: its snapshot is of version %llu, which this broker does not know", what,
                      SLICE_ARG(name), (unsigned long long)r->strange);
        return false;
    }
    sql_error_set(error, r->failed ? SQL_FAULT_VALUE : SQL_FAULT_MEMORY, 0, 0, "%s %.*s%s", what, SLICE_ARG(name),
                  r->failed ? ": its snapshot is damaged" : ": no memory for its snapshot");
    return false;
}

static bool load_changed(struct sql_error *error, const char *what, struct slice name)
{
    sql_error_set(error, SQL_FAULT_VALUE, 0, 0, "%s%.*s is not as it was when the snapshot was made", what,
                  SLICE_ARG(name));
    return false;
}

static bool name_next(struct state_reader *r, struct slice expected)
{
    uint8_t name[256];
    size_t len = state_get_len(r, sizeof name);
    state_get(r, name, len);
    return slice_equal(slice_of(name, len), expected);
}

static bool source_load(struct query *q, uint32_t i, struct state_reader *r, struct sql_error *error)
{
    struct source *s = &q->plan.sources[i];
    struct slice name = query_source(q, i);
    bool same = name_next(r, name) && get_u64(r) == plan_source_hash(s);
    if (!same && !r->failed)
        return load_changed(error, "stream ", name);
    return (clock_load(s->clock, r) && clock_load(s->arrival, r)) || load_fail(q, error, r, "stream", name);
}

static bool op_load(struct query *q, struct op *op, struct state_reader *r, struct sql_error *error)
{
    struct slice name = slice_str(op->kind->name);
    bool same = name_next(r, name) && get_u64(r) == q->plan.hash;
    if (!same && !r->failed)
        return load_changed(error, "operator ", name);
    op->late = state_get_varint(r);
    op->faults = state_get_varint(r);
    bool ok = !op->kind->load || op->kind->load(op, r);
    return (ok && !r->failed) || load_fail(q, error, r, "operator", name);
}

bool query_load(struct query *query, struct state_reader *r, struct sql_error *error)
{
    struct plan *plan = &query->plan;
    struct slice all = slice_str("the query");
    bool same = state_get_varint(r) == SNAPSHOT_VERSION && get_u64(r) == SNAPSHOT_ORDER;
    if (!same && !r->failed)
        return load_changed(error, "", slice_str("the format"));
    same = get_u64(r) == plan->hash && state_get_varint(r) == plan->source_count;
    if (!same && !r->failed)
        return load_changed(error, "", slice_str("the query, or a view in it,"));
    for (uint32_t i = 0; i < plan->source_count; i++)
        if (!source_load(query, i, r, error))
            return false;
    same = state_get_varint(r) == plan->op_count;
    for (uint32_t i = 0; same && i < plan->op_count; i++)
        if (!op_load(query, plan->ops[i], r, error))
            return false;
    bool sink = same && state_get_varint(r);
    if ((!same || sink != (query->sink->kind->save != NULL)) && !r->failed)
        return load_changed(error, "", slice_str("what the query is made of"));
    if (sink && !op_load(query, query->sink, r, error))
        return false;
    return !r->failed || load_fail(query, error, r, "", all);
}

bool query_stateless(const struct query *query)
{
    for (uint32_t i = 0; i < query->plan.op_count; i++)
        if (query->plan.ops[i]->kind->save)
            return false;
    return true;
}
