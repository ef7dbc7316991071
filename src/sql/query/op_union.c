/* Rows of two inputs, see op_union.h. */
#include "sql/query/op_union.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/query/kept.h"

#define STEP_MEMORY_MAX (256u << 20)

/* Rows that one push took in; in the step's arena. */
struct chunk {
    struct chunk *next;
    uint32_t count;
    struct kept **rows;
    uint16_t *origins;
    int8_t *weights; /* NULL: +1 */
};

struct cursor {
    struct chunk *chunk;
    uint32_t i;
};

struct unite;

struct unite_input {
    struct op op;
    struct unite *unite;
    unsigned side;
};

struct unite {
    struct op op;
    struct unite_input inputs[2];
    bool apart, weighted; /* weighted: a row of this step has a weight */
    uint32_t *numbers;    /* of all columns */
    struct kept_layout layout;
    struct pieces pieces;
    struct arena step, out;
    struct chunk *first[2], *last[2];
};

static struct chunk *chunk_new(struct unite *u, unsigned side, const struct batch *b)
{
    uint32_t room = b->sel.count;
    struct chunk *c = arena_take(&u->step, sizeof *c);
    if (!c)
        return NULL;
    *c = (struct chunk){.rows = arena_take(&u->step, room * sizeof(struct kept *)),
                        .origins = arena_take(&u->step, room * sizeof *c->origins),
                        .weights = b->weights ? arena_take(&u->step, room) : NULL};
    if (!c->rows || !c->origins || (b->weights && !c->weights))
        return NULL;
    *(u->last[side] ? &u->last[side]->next : &u->first[side]) = c;
    u->last[side] = c;
    return c;
}

static bool input_push(struct op *op, struct step *step, const struct batch *b)
{
    struct unite_input *in = CONTAINER_OF(op, struct unite_input, op);
    struct unite *u = in->unite;
    u->op.rows_in += b->sel.count;
    if (u->apart)
        return op_pass(&u->op, step, b);
    uint16_t *rows = arena_take(&u->step, b->sel.count * sizeof *rows);
    struct chunk *c = rows ? chunk_new(u, in->side, b) : NULL;
    if (!c)
        return op_fail(step, SQL_FAULT_MEMORY);
    for (uint32_t k = 0; k < b->sel.count; k++) {
        rows[k] = (uint16_t)sel_row(b->sel, k);
        c->origins[k] = (uint16_t)batch_origin(b, rows[k]);
        if (b->weights)
            c->weights[k] = b->weights[rows[k]];
    }
    u->weighted |= b->weights != NULL;
    if (!kept_copy(&u->layout, &u->pieces, b, rows, b->sel.count, c->rows))
        return op_fail(step, SQL_FAULT_MEMORY);
    c->count = b->sel.count;
    return true;
}

static bool push_rows(struct unite *u, struct step *step, struct kept *const *rows, const uint16_t *origins,
                      const int8_t *weights, uint32_t count)
{
    struct column *columns = arena_take(&u->out, (u->layout.count + 1) * sizeof *columns);
    bool ok = columns != NULL;
    for (uint32_t i = 0; ok && i < u->layout.count; i++)
        ok = kept_gather(&u->layout, i, rows, count, &u->out, &columns[i]);
    struct batch batch = {.arena = &u->out,
                          .columns = columns,
                          .column_count = u->layout.count,
                          .rows = count,
                          .sel = {.count = count},
                          .weights = u->weighted ? weights : NULL,
                          .origins = origins};
    ok = ok ? !count || op_pass(&u->op, step, &batch) : op_fail(step, SQL_FAULT_MEMORY);
    for (uint32_t i = 0; i < count; i++)
        kept_give(&u->pieces, rows[i]);
    arena_recycle(&u->out);
    return ok;
}

/* By origin; what a chunk has is in that order, and so are chunks. */
static bool merge(struct unite *u, struct step *step)
{
    struct cursor at[2] = {{.chunk = u->first[0]}, {.chunk = u->first[1]}};
    struct kept *rows[EMIT_ROWS];
    uint16_t origins[EMIT_ROWS];
    int8_t weights[EMIT_ROWS];
    uint32_t count = 0;
    while (at[0].chunk || at[1].chunk) {
        unsigned side = !at[0].chunk || (at[1].chunk && at[1].chunk->origins[at[1].i] < at[0].chunk->origins[at[0].i]);
        struct cursor *c = &at[side];
        rows[count] = c->chunk->rows[c->i];
        origins[count] = c->chunk->origins[c->i];
        weights[count++] = c->chunk->weights ? c->chunk->weights[c->i] : 1;
        if (++c->i == c->chunk->count)
            *c = (struct cursor){.chunk = c->chunk->next};
        if (count == EMIT_ROWS) {
            if (!push_rows(u, step, rows, origins, weights, count))
                return false;
            count = 0;
        }
    }
    return push_rows(u, step, rows, origins, weights, count);
}

static bool unite_flush(struct op *op, struct step *step)
{
    struct unite *u = CONTAINER_OF(op, struct unite, op);
    if (!u->first[0] && !u->first[1])
        return true;
    bool ok = merge(u, step);
    for (unsigned side = 0; side < 2; side++)
        u->first[side] = u->last[side] = NULL;
    u->weighted = false;
    arena_recycle(&u->step);
    return ok;
}

static bool unite_push(struct op *op, struct step *step, const struct batch *b)
{
    (void)op, (void)step, (void)b;
    CHECK(!"rows come by the inputs");
    return false;
}

static void unite_fini(struct op *op)
{
    struct unite *u = CONTAINER_OF(op, struct unite, op);
    kept_layout_fini(&u->layout);
    pieces_fini(&u->pieces); /* and all rows with it */
    arena_fini(&u->step);
    arena_fini(&u->out);
    mem_free(u->numbers);
}

struct op *op_union_input(struct op *op, unsigned side)
{
    return &CONTAINER_OF(op, struct unite, op)->inputs[side].op;
}

struct op *op_union_new(struct budget *budget, const struct sql_type *types, uint32_t count, bool apart)
{
    static const struct op_kind kind = {.name = "union", .push = unite_push, .flush = unite_flush, .fini = unite_fini};
    static const struct op_kind input_kind = {.name = "union's input", .push = input_push};
    struct unite *u = mem_zalloc(sizeof *u);
    if (!u)
        return NULL;
    u->op.kind = &kind;
    u->op.account.budget = budget;
    u->op.input_count = 2;
    u->apart = apart;
    pieces_init(&u->pieces, &u->op.account);
    arena_init(&u->step, STEP_MEMORY_MAX);
    arena_init(&u->out, STEP_MEMORY_MAX);
    for (unsigned i = 0; i < 2; i++) {
        u->inputs[i] = (struct unite_input){.unite = u, .side = i};
        u->inputs[i].op.kind = &input_kind;
        u->inputs[i].op.account.budget = budget;
        u->inputs[i].op.outputs[0] = &u->op;
        u->inputs[i].op.output_count = 1;
    }
    u->numbers = mem_alloc((count + 1) * sizeof *u->numbers);
    for (uint32_t i = 0; u->numbers && i < count; i++)
        u->numbers[i] = i;
    struct op *op = &u->op;
    if (!u->numbers || !kept_layout_init(&u->layout, u->numbers, types, count))
        op_free(&op);
    return op;
}
