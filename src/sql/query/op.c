/* What operators share, and the one without state; see op.h. */
#include "sql/query/op.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/language/kernel.h"

#define EMIT_MEMORY_MAX (64u << 20)

void *account_take(struct account *account, size_t len)
{
    struct budget *budget = account->budget;
    if (len > budget->max - budget->used)
        return NULL;
    void *got = mem_alloc(len);
    if (!got)
        return NULL;
    budget->used += len;
    account->used += len;
    return got;
}

void account_give(struct account *account, void *ptr, size_t len)
{
    if (!ptr)
        return;
    CHECK(len <= account->used && len <= account->budget->used);
    account->used -= len;
    account->budget->used -= len;
    mem_free(ptr);
}

uint32_t clock_origin(const struct clock *c, const struct step *step, int64_t time)
{
    uint32_t low = 0, high = step->rows - 1;
    CHECK(c->at && c->at[step->rows] >= time);
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (c->at[mid + 1] >= time)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

bool op_fail(struct step *step, enum sql_fault fault)
{
    if (step->fault == SQL_FAULT_NONE)
        step->fault = fault;
    return false;
}

/* A push (batch) or a flush; what it pushes into is not its own time. */
static bool run_timed(struct op *op, struct step *step, const struct batch *batch)
{
    struct op_timer *t = step->timer;
    int64_t outer = t->inner, from = t->now(t->arg);
    t->inner = 0;
    bool ok = batch ? op->kind->push(op, step, batch) : op->kind->flush(op, step);
    int64_t took = t->now(t->arg) - from;
    op->ns += took - t->inner;
    t->inner = outer + took;
    return ok;
}

bool op_push(struct op *op, struct step *step, const struct batch *batch)
{
    op->rows_in += batch->sel.count;
    if (!batch->sel.count)
        return true;
    return step->timer ? run_timed(op, step, batch) : op->kind->push(op, step, batch);
}

bool op_pass(struct op *op, struct step *step, const struct batch *batch)
{
    op->rows_out += batch->sel.count;
    for (uint32_t i = 0; i < op->output_count; i++)
        if (!op_push(op->outputs[i], step, batch))
            return false;
    return true;
}

bool op_flush(struct op *op, struct step *step)
{
    if (op->input_count > 1 && ++op->inputs_flushed < op->input_count)
        return true;
    op->inputs_flushed = 0;
    if (op->kind->flush && !(step->timer ? run_timed(op, step, NULL) : op->kind->flush(op, step)))
        return false;
    for (uint32_t i = 0; i < op->output_count; i++)
        if (!op_flush(op->outputs[i], step))
            return false;
    return true;
}

bool op_divert(struct op *op, struct step *step, struct eval *e, const struct batch *from, struct sel *sel)
{
    uint16_t *kept = eval_take(e, (sel->count ? sel->count : 1) * sizeof *kept);
    uint32_t count = 0;
    if (!kept)
        return op_fail(step, SQL_FAULT_MEMORY);
    for (uint32_t k = 0; k < from->sel.count; k++) {
        uint32_t row = sel_row(from->sel, k);
        if (e->faults[row] == SQL_FAULT_NONE)
            continue;
        op->faults++;
        if (step->divert)
            step->divert(step->divert_arg, batch_origin(from, row), (enum sql_fault)e->faults[row]);
    }
    for (uint32_t k = 0; k < sel->count; k++) {
        uint32_t row = sel_row(*sel, k);
        kept[count] = (uint16_t)row;
        count += e->faults[row] == SQL_FAULT_NONE;
    }
    *sel = (struct sel){.at = kept, .count = count};
    return true;
}

void op_free(struct op **op)
{
    if (*op && (*op)->kind->fini)
        (*op)->kind->fini(*op);
    mem_free(*op);
    *op = NULL;
}

static bool scan_push(struct op *op, struct step *step, const struct batch *batch)
{
    return op_pass(op, step, batch);
}

struct op *op_scan_new(struct budget *budget)
{
    static const struct op_kind kind = {.name = "scan", .push = scan_push};
    struct op *op = mem_zalloc(sizeof *op);
    if (op) {
        op->kind = &kind;
        op->account.budget = budget;
    }
    return op;
}

/* --------------------------------------------------------------------------------------------------------- emitting */

void emit_init(struct emitter *m, struct op *op, const struct sql_type *types, uint32_t count, bool weighted)
{
    *m = (struct emitter){.op = op, .types = types, .column_count = count, .weighted = weighted};
    arena_init(&m->arena, EMIT_MEMORY_MAX);
}

void emit_fini(struct emitter *m)
{
    arena_fini(&m->arena);
}

static bool emit_begin(struct emitter *m)
{
    m->columns = arena_take(&m->arena, (m->column_count ? m->column_count : 1) * sizeof *m->columns);
    m->weights = arena_take(&m->arena, EMIT_ROWS * sizeof *m->weights);
    m->origins = arena_take(&m->arena, EMIT_ROWS * sizeof *m->origins);
    if (!m->columns || !m->weights || !m->origins)
        return false;
    for (uint32_t i = 0; i < m->column_count; i++) {
        enum sql_form form = type_form(m->types[i].kind);
        void *values = arena_take(&m->arena, EMIT_ROWS * form_size(form));
        uint64_t *nulls = arena_take(&m->arena, bits_size(EMIT_ROWS));
        if (!values || !nulls)
            return false;
        memset(nulls, 0, bits_size(EMIT_ROWS));
        m->columns[i] = (struct column){.form = form, .values = values, .nulls = nulls};
    }
    return true;
}

bool emit_end(struct emitter *m, struct step *step)
{
    struct batch batch = {.arena = &m->arena,
                          .columns = m->columns,
                          .column_count = m->column_count,
                          .rows = m->rows,
                          .sel = {.count = m->rows},
                          .weights = m->weighted ? m->weights : NULL,
                          .origins = m->origins};
    if (!m->columns)
        return true;
    bool ok = !m->rows || op_pass(m->op, step, &batch);
    m->rows = 0;
    m->columns = NULL;
    arena_recycle(&m->arena);
    return ok;
}

bool emit_room(struct emitter *m, struct step *step, uint32_t rows)
{
    return m->rows + rows <= EMIT_ROWS || emit_end(m, step);
}

bool emit_row(struct emitter *m, struct step *step, uint32_t origin, int weight)
{
    if (m->rows == EMIT_ROWS && !emit_end(m, step))
        return false;
    if (!m->columns && !emit_begin(m)) {
        m->columns = NULL;
        arena_recycle(&m->arena);
        return op_fail(step, SQL_FAULT_MEMORY);
    }
    for (uint32_t i = 0; i < m->column_count; i++)
        bit_set(m->columns[i].nulls, m->rows);
    m->weights[m->rows] = (int8_t)weight;
    m->origins[m->rows++] = (uint16_t)origin;
    return true;
}

void emit_set(struct emitter *m, uint32_t column, const void *value)
{
    struct column *c = &m->columns[column];
    size_t size = form_size(c->form);
    uint32_t row = m->rows - 1;
    memcpy((uint8_t *)c->values + row * size, value, size);
    c->nulls[row / 64] &= ~((uint64_t)1 << (row % 64));
}

bool emit_set_copy(struct emitter *m, struct step *step, uint32_t column, const void *value)
{
    struct slice text;
    if (m->columns[column].form == FORM_TEXT) {
        memcpy(&text, value, sizeof text);
        uint8_t *copy = arena_take(&m->arena, text.len);
        if (!copy)
            return op_fail(step, SQL_FAULT_MEMORY);
        if (text.len)
            memcpy(copy, text.ptr, text.len);
        text.ptr = copy;
        value = &text;
    }
    emit_set(m, column, value);
    return true;
}

void emit_drop(struct emitter *m, uint32_t rows)
{
    m->rows -= rows;
}

bool emit_same(const struct emitter *m)
{
    if (m->rows < 2) /* the other one has been pushed already: then both are */
        return false;
    uint32_t a = m->rows - 2, b = m->rows - 1;
    for (uint32_t i = 0; i < m->column_count; i++) {
        const struct column *c = &m->columns[i];
        size_t size = form_size(c->form);
        const uint8_t *values = c->values;
        bool null = bit_at(c->nulls, a);
        if (null != bit_at(c->nulls, b))
            return false;
        if (null)
            continue;
        bool same = c->form == FORM_TEXT
                        ? slice_equal(((const struct slice *)c->values)[a], ((const struct slice *)c->values)[b])
                        : memcmp(values + a * size, values + b * size, size) == 0;
        if (!same)
            return false;
    }
    return true;
}

/* ------------------------------------------------------------------------------------------- filter and projection */

struct project {
    struct op op;
    struct expr **all; /* conditions, then items */
    uint32_t conditions, items, memos;
    struct regex_cache *regexes;
};

static bool project_push(struct op *op, struct step *step, const struct batch *batch)
{
    struct project *p = CONTAINER_OF(op, struct project, op);
    struct eval e = eval_begin(batch->arena, batch->columns, batch->column_count, batch->rows);
    struct batch out = *batch;
    e.regexes = p->regexes;
    bool ok = eval_memos(&e, p->memos);
    for (uint32_t i = 0; ok && i < p->conditions; i++)
        ok = eval_where(&e, p->all[i], out.sel, &out.sel);
    struct column *columns = eval_take(&e, (p->items ? p->items : 1) * sizeof *columns);
    ok = ok && columns;
    for (uint32_t i = 0; ok && i < p->items; i++) {
        const struct column *c = eval_expr(&e, p->all[p->conditions + i], out.sel);
        ok = c != NULL;
        if (ok)
            columns[i] = *c;
    }
    if (!ok)
        return op_fail(step, SQL_FAULT_MEMORY);
    if (e.fault_count && !op_divert(op, step, &e, batch, &out.sel))
        return false;
    out.columns = columns;
    out.column_count = p->items;
    return op_pass(op, step, &out);
}

static void project_fini(struct op *op)
{
    struct project *p = CONTAINER_OF(op, struct project, op);
    regex_cache_free(&p->regexes);
}

struct op *op_project_new(struct budget *budget, struct expr **conditions, uint32_t condition_count,
                          struct expr **items, uint32_t item_count)
{
    static const struct op_kind kind = {.name = "project", .push = project_push, .fini = project_fini};
    uint32_t count = condition_count + item_count;
    struct project *p = mem_zalloc(sizeof *p + count * sizeof *p->all);
    if (!p)
        return NULL;
    p->op.kind = &kind;
    p->op.account.budget = budget;
    p->all = (struct expr **)(p + 1);
    if (condition_count)
        memcpy(p->all, conditions, condition_count * sizeof *p->all);
    if (item_count)
        memcpy(p->all + condition_count, items, item_count * sizeof *p->all);
    p->conditions = condition_count;
    p->items = item_count;
    p->memos = expr_share(p->all, count);
    p->regexes = regex_cache_new();
    struct op *op = &p->op;
    if (!p->regexes)
        op_free(&op);
    return op;
}
