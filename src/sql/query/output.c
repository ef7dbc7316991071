/* Rows to records and messages, see output.h. */
#include "sql/query/output_int.h"

#include "base/check.h"
#include "base/mem.h"
#include "fmt/murmur2.h"
#include "sql/query/encode.h"
#include "sql/query/table.h"

#define OUTPUT_VERSION 1u
#define SCRATCH_LEAST 4096u
#define SCRATCH_KEPT (1u << 20)
#define NO_COLUMN UINT32_MAX
#define PENDING_OVERHEAD 64u

struct scratch {
    uint8_t *bytes;
    size_t room;
};

/* Keys whose row has gone, until it is known whether another one comes. The first is in `slot`, as mostly there is no other. */
struct pending {
    struct scratch slot;
    size_t slot_len;
    int64_t slot_ms;
    bool slot_used;
    uint32_t origin;
    size_t bytes;
    struct budget budget;
    struct account account;
    struct table more; /* payload: ms */
};

struct output {
    struct op op;
    struct output_target target;
    struct packer packer;
    struct encoder *encoder;
    uint32_t keys[OUTPUT_KEYS_MAX], routing;
    bool signs, upserts; /* what the query takes back is written as "_op", as a record without value */
    uint64_t place, open;
    uint64_t number, until; /* of the step's first record; before that record everything has been written */
    int64_t last_us;        /* of the last record that was read */
    struct scratch row, key;
    struct pending pending;
};

static bool scratch_room(struct scratch *s, size_t len)
{
    if (len <= s->room)
        return true;
    size_t room = s->room ? s->room : SCRATCH_LEAST;
    while (room < len)
        room *= 2;
    uint8_t *bytes = mem_realloc(s->bytes, room);
    if (!bytes)
        return false;
    *s = (struct scratch){.bytes = bytes, .room = room};
    return true;
}

/* ------------------------------------------------------------------------------------------- keys whose row has gone */

static bool pending_any(const struct output *o)
{
    return o->pending.slot_used || o->pending.more.count;
}

static uint32_t partition_of(const struct output *o, const struct slice *key)
{
    return key ? murmur2_partition(*key, o->target.partitions)
               : (uint32_t)(o->place / OUTPUT_STICKY % o->target.partitions);
}

static bool put_gone(struct output *o, struct slice key, int64_t ms)
{
    return packer_record(&o->packer, partition_of(o, &key), ms, &key, NULL);
}

/* Nothing came in their places. */
static bool pending_resolve(struct output *o)
{
    struct pending *p = &o->pending;
    bool ok = !p->slot_used || put_gone(o, slice_of(p->slot.bytes, p->slot_len), p->slot_ms);
    for (const struct entry *e = p->more.first; ok && e; e = e->newer) {
        int64_t ms;
        memcpy(&ms, e->bytes, sizeof ms);
        ok = put_gone(o, entry_key(e), ms);
    }
    table_fini(&p->more);
    p->slot_used = false;
    p->bytes = 0;
    return ok;
}

static struct slice pending_slot(const struct pending *p)
{
    return slice_of(p->slot.bytes, p->slot_len);
}

static bool pending_add(struct output *o, struct slice key, uint32_t origin, int64_t ms)
{
    struct pending *p = &o->pending;
    p->origin = origin;
    p->bytes += key.len + PENDING_OVERHEAD;
    if (!pending_any(o)) {
        if (!scratch_room(&p->slot, key.len + 1))
            return false;
        if (key.len)
            memcpy(p->slot.bytes, key.ptr, key.len);
        p->slot_len = key.len;
        p->slot_ms = ms;
        p->slot_used = true;
        return true;
    }
    uint64_t hash = table_hash(&p->more, key);
    if ((p->slot_used && slice_equal(pending_slot(p), key)) || table_find(&p->more, key, hash))
        return true;
    struct entry *e = table_add(&p->more, key, hash);
    if (e)
        memcpy(e->bytes, &ms, sizeof ms);
    return e != NULL;
}

static void pending_drop(struct output *o, struct slice key)
{
    struct pending *p = &o->pending;
    if (p->slot_used && slice_equal(pending_slot(p), key)) {
        p->slot_used = false;
        return;
    }
    struct entry *e = p->more.count ? table_find(&p->more, key, table_hash(&p->more, key)) : NULL;
    if (e)
        table_remove(&p->more, e);
}

/* ------------------------------------------------------------------------------------------------------------- rows */

/* Everything before the row that is being written goes. */
static bool cut(struct output *o)
{
    return pending_resolve(o) && packer_cut(&o->packer, o->place, o->until);
}

static bool make_room(struct output *o, size_t more)
{
    return !packer_full(&o->packer, more, o->pending.bytes) || cut(o);
}

/* *ret_null: one of them is NULL, of several columns too. */
static bool key_of(struct output *o, const struct batch *b, uint32_t row, size_t room, struct slice *ret,
                   bool *ret_null)
{
    *ret_null = false;
    for (uint32_t i = 0; i < o->target.key_count; i++)
        *ret_null |= column_null(&b->columns[o->keys[i]], row);
    if (*ret_null && (o->upserts || o->target.key_count == 1))
        return true;
    if (!scratch_room(&o->key, room))
        return false;
    *ret = o->target.key_count == 1 ? encoder_text(o->encoder, o->keys[0], b->columns, row, o->key.bytes)
                                    : slice_of(o->key.bytes, encoder_some(o->encoder, o->keys, o->target.key_count,
                                                                          b->columns, row, o->key.bytes));
    *ret_null = false;
    return true;
}

static bool fault(struct output *o, struct step *step, uint32_t origin, int weight, enum sql_fault why)
{
    if (weight < 0) /* the row it takes back was not given either */
        return true;
    o->op.faults++;
    if (step->divert)
        step->divert(step->divert_arg, origin, why);
    return true;
}

static int64_t row_ms(const struct output *o, const struct step *step, uint32_t origin)
{
    int64_t us = step->ts_us ? step->ts_us[origin] : o->last_us;
    return us > 0 ? us / 1000 : 0;
}

static bool put_record(struct output *o, struct step *step, const struct batch *b, uint32_t row, size_t room)
{
    uint32_t origin = batch_origin(b, row);
    int weight = batch_weight(b, row);
    int64_t ms = row_ms(o, step, origin);
    struct slice key = {0}, value;
    bool keyed = o->target.key_count, null = true;
    if (keyed && !key_of(o, b, row, room, &key, &null))
        return false;
    if (o->upserts && null)
        return fault(o, step, origin, weight, SQL_FAULT_NOT_NULL);
    if (o->upserts && weight < 0)
        return key.len > OUTPUT_ROW_BYTES_MAX || (make_room(o, key.len) && pending_add(o, key, origin, ms));
    if (o->target.bare && column_null(&b->columns[0], row))
        return fault(o, step, origin, weight, SQL_FAULT_NOT_NULL);
    char sign = o->signs ? weight < 0 ? '-' : '+' : 0;
    if (o->target.bare)
        value = encoder_text(o->encoder, 0, b->columns, row, o->row.bytes);
    else
        value = slice_of(o->row.bytes, encoder_row(o->encoder, b->columns, row, sign, o->row.bytes));
    if (value.len > OUTPUT_ROW_BYTES_MAX || key.len > OUTPUT_ROW_BYTES_MAX)
        return fault(o, step, origin, weight, SQL_FAULT_LIMIT);
    if (o->upserts)
        pending_drop(o, key);
    struct slice *shown = null ? NULL : &key;
    return make_room(o, key.len + value.len) && packer_record(&o->packer, partition_of(o, shown), ms, shown, &value);
}

static bool put_message(struct output *o, struct step *step, const struct batch *b, uint32_t row, size_t room)
{
    uint32_t origin = batch_origin(b, row);
    int weight = batch_weight(b, row);
    struct slice routing_key = o->target.routing_key, body;
    if (o->routing != NO_COLUMN) {
        if (column_null(&b->columns[o->routing], row))
            return fault(o, step, origin, weight, SQL_FAULT_NOT_NULL);
        if (!scratch_room(&o->key, room))
            return false;
        routing_key = encoder_text(o->encoder, o->routing, b->columns, row, o->key.bytes);
        if (routing_key.len > 255)
            return fault(o, step, origin, weight, SQL_FAULT_LIMIT);
    }
    char sign = o->signs ? weight < 0 ? '-' : '+' : 0;
    body = slice_of(o->row.bytes, encoder_row(o->encoder, b->columns, row, sign, o->row.bytes));
    if (body.len > OUTPUT_ROW_BYTES_MAX)
        return fault(o, step, origin, weight, SQL_FAULT_LIMIT);
    return make_room(o, body.len + routing_key.len + o->target.exchange.len + SCRATCH_LEAST / 16) &&
           packer_message(&o->packer, &(struct output_mark){o->place + 1, o->until}, routing_key, body);
}

static bool output_push(struct op *op, struct step *step, const struct batch *b)
{
    struct output *o = CONTAINER_OF(op, struct output, op);
    bool ok = true;
    CHECK(o->encoder && b->column_count > 0);
    for (uint32_t k = 0; ok && k < b->sel.count; k++, o->place++) {
        uint32_t row = sel_row(b->sel, k);
        if (o->place < o->open)
            continue;
        o->until = o->number + batch_origin(b, row);
        if (pending_any(o) && o->pending.origin != batch_origin(b, row))
            ok = pending_resolve(o);
        size_t room = encoder_room(o->encoder, b->columns, row);
        if (room > 8 * OUTPUT_ROW_BYTES_MAX) { /* no text of a row that is allowed needs so much */
            ok = ok && fault(o, step, batch_origin(b, row), batch_weight(b, row), SQL_FAULT_LIMIT);
            continue;
        }
        ok = ok && scratch_room(&o->row, room) &&
             (o->target.partitions ? put_record(o, step, b, row, room) : put_message(o, step, b, row, room));
    }
    return ok || op_fail(step, SQL_FAULT_MEMORY);
}

static bool output_flush(struct op *op, struct step *step)
{
    struct output *o = CONTAINER_OF(op, struct output, op);
    if (step->ts_us)
        o->last_us = step->ts_us[step->rows - 1];
    o->until = o->number + step->rows;
    return !pending_any(o) || pending_resolve(o) || op_fail(step, SQL_FAULT_MEMORY);
}

/* -------------------------------------------------------------------------------------------------------- snapshots */

static void output_save(const struct op *op, struct state_writer *w)
{
    const struct output *o = CONTAINER_OF(op, const struct output, op);
    CHECK(!pending_any(o));
    state_put_varint(w, OUTPUT_VERSION);
    state_put_varint(w, o->place);
    state_put_signed(w, o->last_us);
}

static bool output_load(struct op *op, struct state_reader *r)
{
    struct output *o = CONTAINER_OF(op, struct output, op);
    (void)state_get_version(r, OUTPUT_VERSION);
    o->place = state_get_varint(r);
    o->last_us = state_get_signed(r);
    return !r->failed;
}

/* ------------------------------------------------------------------------------------------------------- life cycle */

struct output *output_new(struct slab_heap *heap, const struct output_target *target, size_t bytes_max)
{
    static const struct op_kind kind = {
        .name = "output", .push = output_push, .flush = output_flush, .save = output_save, .load = output_load};
    struct output *o = mem_zalloc(sizeof *o);
    if (!o)
        return NULL;
    o->op.kind = &kind;
    o->target = *target;
    o->routing = NO_COLUMN;
    o->pending.budget.max = bytes_max;
    o->pending.account.budget = &o->pending.budget;
    table_init(&o->pending.more, &o->pending.account, sizeof(int64_t));
    if (!packer_init(&o->packer, heap, &o->target, bytes_max))
        output_free(&o);
    return o;
}

void output_free(struct output **output)
{
    struct output *o = *output;
    if (!o)
        return;
    packer_fini(&o->packer);
    encoder_free(&o->encoder);
    table_fini(&o->pending.more);
    mem_free(o->pending.slot.bytes);
    mem_free(o->row.bytes);
    mem_free(o->key.bytes);
    mem_free(o);
    *output = NULL;
}

struct op *output_op(struct output *output)
{
    return &output->op;
}

static bool find_column(const struct plan_column *columns, uint32_t count, struct slice name, uint32_t *ret,
                        struct sql_error *error)
{
    struct nearest nearest = nearest_of(name);
    uint32_t found = NO_COLUMN;
    for (uint32_t i = 0; i < count; i++) {
        nearest_try(&nearest, columns[i].name);
        if (slice_equal(columns[i].name, name)) {
            *ret = i;
            return true;
        }
        found = found == NO_COLUMN && name_equal(columns[i].name, name) ? i : found;
    }
    *ret = found;
    if (found != NO_COLUMN)
        return true;
    sql_error_set(error, SQL_FAULT_NO_NAME, 0, 0, "the query gives no column %.*s", SLICE_ARG(name));
    if (nearest_found(&nearest))
        sql_error_hint(error, "did you mean %.*s?", SLICE_ARG(nearest.best));
    return false;
}

static bool bind_columns(struct output *o, const struct plan_column *columns, uint32_t count, struct sql_error *error)
{
    for (uint32_t i = 0; i < o->target.key_count; i++)
        if (!find_column(columns, count, o->target.keys[i], &o->keys[i], error))
            return false;
    if (o->target.routing_column.ptr && !find_column(columns, count, o->target.routing_column, &o->routing, error))
        return false;
    o->encoder = encoder_new(columns, count);
    if (!o->encoder)
        sql_error_set(error, SQL_FAULT_MEMORY, 0, 0, "no memory for the query");
    return o->encoder;
}

bool output_bind(struct output *o, const struct plan *plan, struct sql_error *error)
{
    const struct output_target *t = &o->target;
    bool keyed = t->key_count, routed = t->routing_column.ptr;
    if (t->names && t->name_count != plan->column_count) {
        sql_error_set(error, SQL_FAULT_TYPE, 0, 0, "%u columns are named, and the query gives %u", t->name_count,
                      plan->column_count);
        return false;
    }
    if (t->partitions ? routed : keyed) {
        sql_error_set(error, SQL_FAULT_VALUE, 0, 0,
                      keyed ? "a key is for the records of a stream" : "a stream's records have no routing key");
        return false;
    }
    struct plan_column *columns = mem_alloc((plan->column_count + 1) * sizeof *columns);
    if (!columns) {
        sql_error_set(error, SQL_FAULT_MEMORY, 0, 0, "no memory for the query");
        return false;
    }
    for (uint32_t i = 0; i < plan->column_count; i++)
        columns[i] =
            (struct plan_column){.name = t->names ? t->names[i] : plan->columns[i].name, .type = plan->columns[i].type};
    o->pending.budget.seed = plan->budget.seed;
    o->upserts = plan->retracts && keyed;
    o->signs = plan->retracts && !keyed;
    bool ok = bind_columns(o, columns, plan->column_count, error);
    mem_free(columns);
    return ok;
}

void output_open(struct output *output, uint64_t place)
{
    output->open = place;
}

void output_at(struct output *output, uint64_t number)
{
    output->number = output->until = number;
}

uint64_t output_place(const struct output *output)
{
    return output->place;
}

void output_seek(struct output *output, uint64_t place)
{
    output->place = place;
}

size_t output_bytes(const struct output *output)
{
    return packer_bytes(&output->packer);
}

bool output_cut(struct output *output)
{
    if (output->row.room > SCRATCH_KEPT) {
        mem_free(output->row.bytes);
        output->row = (struct scratch){0};
    }
    return cut(output);
}

struct output_group *output_take(struct output *output)
{
    return packer_take(&output->packer);
}
