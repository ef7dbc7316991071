/* Changes by the interval, see op_every.h. */
#include "sql/query/op_every.h"

#include "base/mem.h"
#include "sql/query/op_aggregate.h"
#include "sql/query/table.h"

#define EVERY_VERSION 1u
#define SCRATCH_MAX (8u << 20)

struct every {
    struct op op;
    const struct clock *clock;
    int64_t us, next; /* next: when what waits is given out */
    struct sql_type *types;
    uint32_t count;
    struct table waiting; /* rows as bytes; payload: the weight that they come to, never 0 */
    struct arena scratch;
    struct emitter m;
};

static int64_t weight_of(const struct entry *e)
{
    int64_t weight;
    memcpy(&weight, e->bytes, sizeof weight);
    return weight;
}

static bool change(struct every *v, struct step *step, struct slice row, int64_t weight)
{
    uint64_t hash = table_hash(&v->waiting, row);
    struct entry *e = table_find(&v->waiting, row, hash);
    if (!e && !(e = table_add(&v->waiting, row, hash)))
        return op_fail(step, SQL_FAULT_MEMORY);
    weight += weight_of(e);
    memcpy(e->bytes, &weight, sizeof weight);
    if (!weight)
        table_remove(&v->waiting, e);
    return true;
}

static bool emit(struct every *v, struct step *step, const struct entry *e, uint32_t origin)
{
    const uint8_t *at = entry_key(e).ptr;
    uint8_t room[KEY_ROOM];
    if (!emit_row(&v->m, step, origin, weight_of(e) < 0 ? -1 : 1))
        return false;
    for (uint32_t i = 0; i < v->count; i++) {
        const void *value = key_value(type_form(v->types[i].kind), &at, room);
        if (value && !emit_set_copy(&v->m, step, i, value))
            return false;
    }
    return true;
}

/* Gone ones first, so that an update of a key is one. */
static bool emit_all(struct every *v, struct step *step, uint32_t origin)
{
    for (int sign = -1; sign <= 1; sign += 2)
        for (const struct entry *e = v->waiting.first; e; e = e->newer)
            for (int64_t n = weight_of(e) * sign; n > 0; n--)
                if (!emit(v, step, e, origin))
                    return false;
    table_fini(&v->waiting);
    return emit_end(&v->m, step);
}

/* The whole interval behind that time; TIME_NEVER: it is not known yet. */
static int64_t next_of(const struct every *v, int64_t now)
{
    if (now == TIME_NEVER)
        return TIME_NEVER;
    int64_t rest = now % v->us;
    return time_plus(now, v->us - rest - (rest < 0 ? v->us : 0));
}

/* Time is `now` before what comes next. */
static bool settle(struct every *v, struct step *step, int64_t now)
{
    if (v->waiting.count && v->next == TIME_NEVER)
        v->next = next_of(v, now);
    if (!v->waiting.count || now == TIME_NEVER || now < v->next)
        return true;
    return emit_all(v, step, v->clock->at ? clock_origin(v->clock, step, v->next) : 0);
}

static bool every_push(struct op *op, struct step *step, const struct batch *b)
{
    struct every *v = CONTAINER_OF(op, struct every, op);
    enum sql_fault fault;
    bool ok = true;
    for (uint32_t k = 0; ok && k < b->sel.count; k++) {
        uint32_t row = sel_row(b->sel, k);
        int64_t now = clock_before(v->clock, batch_origin(b, row));
        struct slice bytes;
        if (!settle(v, step, now))
            return false;
        if (!v->waiting.count)
            v->next = next_of(v, now);
        ok = key_of_row(&v->scratch, b->columns, v->count, row, &bytes, &fault)
                 ? change(v, step, bytes, batch_weight(b, row))
                 : op_fail(step, fault);
    }
    arena_recycle(&v->scratch);
    return ok;
}

static bool every_flush(struct op *op, struct step *step)
{
    struct every *v = CONTAINER_OF(op, struct every, op);
    if (step->begins)
        return emit_all(v, step, 0);
    return settle(v, step, v->clock->at ? v->clock->at[step->rows] : v->clock->now);
}

static int64_t every_due(const struct op *op)
{
    const struct every *v = CONTAINER_OF(op, const struct every, op);
    return v->waiting.count && v->next != TIME_NEVER ? v->next : INT64_MAX;
}

static void every_save(const struct op *op, struct state_writer *w)
{
    const struct every *v = CONTAINER_OF(op, const struct every, op);
    state_put_varint(w, EVERY_VERSION);
    state_put_signed(w, v->next);
    state_put_varint(w, v->waiting.count);
    for (const struct entry *e = v->waiting.first; e; e = e->newer) {
        state_put_slice(w, entry_key(e));
        state_put_signed(w, weight_of(e));
    }
}

static bool every_load(struct op *op, struct state_reader *r)
{
    struct every *v = CONTAINER_OF(op, struct every, op);
    struct step step = {.rows = 1};
    struct slice row;
    (void)state_get_version(r, EVERY_VERSION);
    v->next = state_get_signed(r);
    uint64_t count = state_get_varint(r);
    for (uint64_t i = 0; i < count && !r->failed; i++) {
        if (!key_load(&v->scratch, v->types, v->count, r, &row))
            return false;
        int64_t weight = state_get_signed(r);
        r->failed |= !weight;
        if (!r->failed && !change(v, &step, row, weight))
            return false;
        arena_recycle(&v->scratch);
    }
    r->failed |= v->waiting.count != count; /* no row stands there twice */
    return !r->failed;
}

static void every_fini(struct op *op)
{
    struct every *v = CONTAINER_OF(op, struct every, op);
    table_fini(&v->waiting);
    emit_fini(&v->m);
    arena_fini(&v->scratch);
    mem_free(v->types);
}

struct op *op_every_new(struct budget *budget, const struct clock *clock, int64_t us, const struct sql_type *types,
                        uint32_t count)
{
    static const struct op_kind kind = {.name = "every",
                                        .push = every_push,
                                        .flush = every_flush,
                                        .fini = every_fini,
                                        .save = every_save,
                                        .load = every_load,
                                        .due = every_due};
    struct every *v = mem_zalloc(sizeof *v);
    if (!v)
        return NULL;
    v->op.kind = &kind;
    v->op.account.budget = budget;
    v->clock = clock;
    v->us = us;
    v->count = count;
    v->next = TIME_NEVER;
    table_init(&v->waiting, &v->op.account, sizeof(int64_t));
    arena_init(&v->scratch, SCRATCH_MAX);
    v->types = mem_alloc((count + 1) * sizeof *v->types);
    if (v->types)
        memcpy(v->types, types, count * sizeof *types);
    emit_init(&v->m, &v->op, v->types, count, true);
    struct op *op = &v->op;
    if (!v->types)
        op_free(&op);
    return op;
}
