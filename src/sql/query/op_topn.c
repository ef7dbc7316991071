/* The first rows of each partition, see op_topn.h. Partitions are in a hash table for each time; a partition has its rows in a list by their sort
 * keys (sql/query/ordered.h), at most `limit` of them unless rows may be taken back. With a limit of 1 it has one row and no list. When there is no
 * order, and what is given out is never taken back, not even that: the first row goes out as it comes. */
#include "sql/query/op_topn_int.h"

#include "base/check.h"
#include "base/mem.h"

#define SCRATCH_MAX (8u << 20)

/* -------------------------------------------------------------------------------------------------------------- rows */

static struct part *part_of(struct entry *e)
{
    return (struct part *)(void *)e->bytes;
}

static struct slice row_key(const struct row *row)
{
    return slice_of(row->bytes, row->key_len);
}

/* NULL: no memory. */
static struct row *row_new(struct topn *t, struct slice key, struct slice values)
{
    uint8_t *piece = pieces_take(&t->pieces, t->node_len + sizeof(struct row) + key.len + values.len);
    if (!piece)
        return NULL;
    struct row *row = (struct row *)(void *)(piece + t->node_len);
    row->key_len = (uint32_t)key.len;
    row->len = (uint32_t)values.len;
    memcpy(row->bytes, key.ptr, key.len);
    if (values.len)
        memcpy(row->bytes + key.len, values.ptr, values.len);
    if (!t->single) {
        topn_node_of(row)->key = row->bytes;
        topn_node_of(row)->key_len = row->key_len;
    }
    return row;
}

void topn_row_free(struct topn *t, struct row *row)
{
    pieces_give(&t->pieces, (uint8_t *)row - t->node_len, t->node_len + sizeof *row + row->key_len + row->len);
}

/* With changes a row may be freed before what was emitted is pushed, so texts are copied. */
bool topn_emit(struct topn *t, struct step *step, uint32_t origin, int weight, const struct row *row, uint64_t number)
{
    const uint8_t *at = topn_row_values(row).ptr;
    uint8_t room[KEY_ROOM];
    if (!emit_row(&t->m, step, origin, weight))
        return false;
    if (t->rule.ranked)
        emit_set(&t->m, 0, &number);
    for (uint32_t i = 1; i < t->type_count; i++) {
        const void *value = key_value(t->forms[i], &at, room);
        if (value && t->rule.changes && t->forms[i] == FORM_TEXT) {
            if (!emit_set_copy(&t->m, step, i, value))
                return false;
        } else if (value) {
            emit_set(&t->m, i, value);
        }
    }
    return true;
}

/* What is too long is diverted, true; anything else ends the query. */
static bool unusable(struct topn *t, struct step *step, const struct batch *b, uint32_t row, enum sql_fault fault)
{
    if (fault != SQL_FAULT_LIMIT)
        return op_fail(step, fault);
    t->op.faults++;
    if (step->divert)
        step->divert(step->divert_arg, batch_origin(b, row), fault);
    return true;
}

bool topn_values_of(struct topn *t, struct step *step, const struct batch *b, uint32_t row, struct slice *ret,
                    bool *ret_ok)
{
    enum sql_fault fault;
    if (key_of_row(&t->scratch, b->columns + t->from, t->type_count - 1, row, ret, &fault))
        return true;
    *ret_ok = unusable(t, step, b, row, fault);
    return false;
}

struct row *topn_row_make(struct topn *t, struct step *step, const struct batch *b, uint32_t row, struct slice key,
                          bool *ret_ok)
{
    struct slice values;
    if (!topn_values_of(t, step, b, row, &values, ret_ok))
        return NULL;
    struct row *made = row_new(t, key, values);
    if (!made)
        *ret_ok = op_fail(step, SQL_FAULT_MEMORY);
    return made;
}

/* ------------------------------------------------------------------------------------------------------ one row only */

static bool add_single(struct topn *t, struct step *step, const struct batch *b, uint32_t at, struct part *part,
                       struct slice key)
{
    struct row *old = part->one;
    bool ok;
    if (old && ordered_compare(key, row_key(old)) > 0)
        return true;
    struct row *row = topn_row_make(t, step, b, at, key, &ok);
    if (!row)
        return ok;
    part->one = row;
    if (t->rule.changes) {
        if (!emit_room(&t->m, step, 2) || (old && !topn_emit(t, step, batch_origin(b, at), -1, old, 1)) ||
            !topn_emit(t, step, batch_origin(b, at), 1, row, 1))
            return false;
    }
    if (old)
        topn_row_free(t, old);
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- times */

static void part_free(struct topn *t, struct part *part)
{
    if (t->first_only)
        return;
    if (t->single) {
        if (part->one)
            topn_row_free(t, part->one);
        return;
    }
    for (struct ordered_row *r = part->rows.first; r;) {
        struct ordered_row *next = r->after;
        topn_row_free(t, topn_row_of(r));
        r = next;
    }
}

static void frame_free(struct topn *t, uint32_t i)
{
    struct frame *f = t->frames[i];
    for (struct entry *e = f->parts.first; e; e = e->newer)
        part_free(t, part_of(e));
    table_fini(&f->parts);
    account_give(&t->op.account, f, sizeof *f);
    memmove(t->frames + i, t->frames + i + 1, (t->frame_count - i - 1) * sizeof *t->frames);
    t->frame_count--;
}

/* The frame of that time, which is made when it is not there. NULL: no memory. */
static struct frame *frame_at(struct topn *t, int64_t time)
{
    uint32_t i = t->frame_count;
    while (i > 0 && t->frames[i - 1]->time > time)
        i--;
    if (i > 0 && t->frames[i - 1]->time == time)
        return t->frames[i - 1];
    if (t->frame_count == t->frame_room) {
        uint32_t room = t->frame_room ? 2 * t->frame_room : 8;
        struct frame **more = account_take(&t->op.account, room * sizeof *more);
        if (!more)
            return NULL;
        if (t->frame_count)
            memcpy(more, t->frames, t->frame_count * sizeof *more);
        account_give(&t->op.account, t->frames, t->frame_room * sizeof *more);
        t->frames = more;
        t->frame_room = room;
    }
    struct frame *f = account_take(&t->op.account, sizeof *f);
    if (!f)
        return NULL;
    f->time = time;
    table_init(&f->parts, &t->op.account,
               (uint32_t)(t->first_only ? 0
                          : t->single   ? sizeof(struct row *)
                                        : sizeof(struct part)));
    f->parts.pieces = &t->pieces;
    if (t->rule.span.kind == SPAN_NONE)
        t->spill.table = &f->parts;
    memmove(t->frames + i + 1, t->frames + i, (t->frame_count - i) * sizeof *t->frames);
    t->frames[i] = f;
    t->frame_count++;
    return f;
}

static bool emit_frame(struct topn *t, struct step *step, uint32_t origin, struct frame *f)
{
    for (struct entry *e = f->parts.first; e; e = e->newer) {
        if (t->single && part_of(e)->one && !topn_emit(t, step, origin, 1, part_of(e)->one, 1))
            return false;
        if (!t->single && !topn_list_emit(t, step, origin, &part_of(e)->rows))
            return false;
    }
    return emit_end(&t->m, step); /* before what the rows point at goes */
}

/* When the frame is complete. */
static int64_t end_of(const struct topn *t, int64_t time)
{
    return time_plus(time, 1 - t->rule.span.offset);
}

static bool advance(struct topn *t, struct step *step, int64_t watermark)
{
    while (t->frame_count && end_of(t, t->frames[0]->time) <= watermark) {
        struct frame *f = t->frames[0];
        if (!emit_end(&t->m, step))
            return false;
        if (!t->rule.changes && !emit_frame(t, step, clock_origin(t->rule.span.clock, step, end_of(t, f->time)), f))
            return false;
        frame_free(t, 0);
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- steps */

/* Whether the row's time is one whose rows are still taken; it has been counted otherwise. */
static bool in_time(struct topn *t, struct step *step, const struct batch *b, uint32_t row, int64_t watermark,
                    int64_t *ret)
{
    const struct column *time = &b->columns[t->keys];
    if (column_null(time, row)) {
        t->op.faults++;
        if (step->divert)
            step->divert(step->divert_arg, batch_origin(b, row), SQL_FAULT_NOT_NULL);
        return false;
    }
    *ret = ((const int64_t *)time->values)[row & column_mask(time)];
    bool late = end_of(t, *ret) <= watermark;
    t->op.late += late;
    return !late;
}

/* False: no memory, or what is behind has failed. *ret_entry NULL: the row is of no use. */
static bool find_part(struct topn *t, struct step *step, const struct batch *b, uint32_t row, bool make,
                      struct frame **ret_frame, struct entry **ret_entry, bool *ret_made)
{
    bool timed = t->rule.span.kind != SPAN_NONE;
    int64_t time = 0, watermark = timed ? clock_before(t->rule.span.clock, batch_origin(b, row)) : 0;
    struct slice key;
    enum sql_fault fault;
    *ret_entry = NULL;
    *ret_made = false;
    if (timed && !advance(t, step, watermark))
        return false;
    if (timed && !in_time(t, step, b, row, watermark, &time))
        return true;
    *ret_frame = frame_at(t, time);
    if (!*ret_frame)
        return op_fail(step, SQL_FAULT_MEMORY);
    if (!key_of_row(&t->scratch, b->columns, t->keys, row, &key, &fault))
        return unusable(t, step, b, row, fault);
    uint64_t hash = table_hash(&(*ret_frame)->parts, key);
    if (timed)
        *ret_entry = table_find(&(*ret_frame)->parts, key, hash);
    else if (!spill_find(&t->spill, key, hash, ret_entry, &fault))
        return op_fail(step, fault);
    if (*ret_entry || !make)
        return true;
    *ret_entry = table_add(&(*ret_frame)->parts, key, hash);
    *ret_made = true;
    return *ret_entry || op_fail(step, SQL_FAULT_MEMORY);
}

/* The first row of each partition goes out as it is. */
static bool push_first(struct topn *t, struct step *step, const struct batch *b)
{
    uint16_t *first = arena_take(b->arena, b->sel.count * sizeof *first);
    struct column *columns = arena_take(b->arena, t->type_count * sizeof *columns);
    int64_t *one = arena_take(b->arena, sizeof *one);
    struct batch out = *b;
    uint32_t count = 0;
    if (!first || !columns || !one)
        return op_fail(step, SQL_FAULT_MEMORY);
    for (uint32_t k = 0; k < b->sel.count; k++) {
        uint32_t row = sel_row(b->sel, k);
        struct frame *f;
        struct entry *e;
        bool made;
        if (!find_part(t, step, b, row, true, &f, &e, &made))
            return false;
        first[count] = (uint16_t)row;
        count += e && made;
        arena_recycle(&t->scratch);
    }
    *one = 1;
    columns[0] = (struct column){.form = FORM_I64, .constant = true, .values = one};
    memcpy(columns + 1, b->columns + t->from, (t->type_count - 1) * sizeof *columns);
    out.columns = columns;
    out.column_count = t->type_count;
    out.sel = (struct sel){.at = first, .count = count};
    return op_pass(&t->op, step, &out);
}

static bool push_row(struct topn *t, struct step *step, const struct batch *b, uint32_t row)
{
    struct frame *f;
    struct entry *e;
    struct slice key;
    enum sql_fault fault;
    bool comes = batch_weight(b, row) > 0, made;
    if (!find_part(t, step, b, row, comes, &f, &e, &made))
        return false;
    if (!e)
        return true;
    const struct column *order = b->columns + t->keys + (t->rule.span.kind != SPAN_NONE);
    if (!sort_key(&t->scratch, order, t->order, t->order_count, row, t->number, t->rule.newest_first, &key, &fault))
        return unusable(t, step, b, row, fault);
    t->number += comes;
    if (comes)
        return t->single ? add_single(t, step, b, row, part_of(e), key)
                         : topn_list_add(t, step, b, row, &part_of(e)->rows, key);
    if (!topn_list_take_back(t, step, b, row, &part_of(e)->rows, key))
        return false;
    if (!part_of(e)->rows.count)
        table_remove(&f->parts, e);
    return true;
}

static bool topn_push(struct op *op, struct step *step, const struct batch *b)
{
    struct topn *t = CONTAINER_OF(op, struct topn, op);
    if (t->first_only)
        return push_first(t, step, b);
    for (uint32_t k = 0; k < b->sel.count; k++) {
        if (!push_row(t, step, b, sel_row(b->sel, k)))
            return false;
        if (t->scratch.used > SCRATCH_MAX / 4)
            arena_recycle(&t->scratch);
    }
    arena_recycle(&t->scratch);
    return emit_end(&t->m, step);
}

static bool topn_flush(struct op *op, struct step *step)
{
    struct topn *t = CONTAINER_OF(op, struct topn, op);
    const struct clock *c = t->rule.span.clock;
    if (t->rule.span.kind == SPAN_NONE || !c->at || !step->rows)
        return true;
    return advance(t, step, c->at[step->rows]) && emit_end(&t->m, step);
}

/* --------------------------------------------------------------------------------------------------------- snapshots */

#define TOPN_VERSION 1u

static void row_save(const struct row *row, struct state_writer *w)
{
    state_put_slice(w, row_key(row));
    state_put_slice(w, topn_row_values(row));
}

static void part_save(struct op *op, struct entry *e, struct state_writer *w, int64_t until[RUN_UNTIL])
{
    const struct topn *t = CONTAINER_OF(op, const struct topn, op);
    (void)until;
    if (t->first_only)
        return;
    state_put_varint(w, t->single ? part_of(e)->one != NULL : part_of(e)->rows.count);
    if (t->single && part_of(e)->one)
        row_save(part_of(e)->one, w);
    for (struct ordered_row *r = t->single ? NULL : part_of(e)->rows.first; r; r = r->after)
        row_save(topn_row_of(r), w);
}

static void topn_save(const struct op *op, struct state_writer *w)
{
    const struct topn *t = CONTAINER_OF(op, const struct topn, op);
    state_put_varint(w, TOPN_VERSION);
    state_put_varint(w, t->number);
    state_put_varint(w, t->frame_count);
    for (uint32_t i = 0; i < t->frame_count; i++) {
        struct frame *f = t->frames[i];
        state_put_signed(w, f->time);
        state_put_varint(w, f->parts.count + spill_count(&t->spill)); /* of one frame only, if any */
        for (struct entry *e = f->parts.first; e; e = e->newer) {     /* the order of the rows to come */
            int64_t until[RUN_UNTIL];
            state_put_slice(w, entry_key(e));
            part_save((struct op *)op, e, w, until);
        }
        spill_save((struct spill *)&t->spill, w);
    }
}

/* Yours; NULL: no memory, or the reader has failed. */
static struct row *row_load(struct topn *t, struct state_reader *r)
{
    size_t len = state_get_len(r, SORT_KEY_MAX);
    uint8_t *key = arena_take(&t->scratch, len);
    struct slice values;
    if (!key)
        return NULL;
    state_get(r, key, len);
    return key_load(&t->scratch, t->types + 1, t->type_count - 1, r, &values) ? row_new(t, slice_of(key, len), values)
                                                                              : NULL;
}

static bool part_load(struct op *op, struct entry *e, struct state_reader *r)
{
    struct topn *t = CONTAINER_OF(op, struct topn, op);
    uint64_t rows = t->first_only ? 0 : state_get_varint(r);
    r->failed |= t->single ? rows > 1 : !t->rule.retracts && t->rule.ranking == RANKING_ROW && rows > t->rule.limit;
    for (uint64_t i = 0; i < rows && !r->failed; i++) {
        struct row *row = row_load(t, r);
        if (!row)
            return false;
        if (t->single) {
            part_of(e)->one = row;
        } else if (part_of(e)->rows.last && ordered_compare(row_key(row), ordered_key(part_of(e)->rows.last)) <= 0) {
            topn_row_free(t, row);
            r->failed = true;
        } else {
            ordered_add(&part_of(e)->rows, topn_node_of(row));
        }
        arena_recycle(&t->scratch);
    }
    arena_recycle(&t->scratch);
    return !r->failed;
}

static void part_drop(struct op *op, struct entry *e)
{
    part_free(CONTAINER_OF(op, struct topn, op), part_of(e));
}

static bool load_part(struct topn *t, struct frame *f, struct state_reader *r)
{
    struct slice key;
    enum sql_fault fault;
    bool ok = key_load(&t->scratch, t->key_types, t->keys, r, &key);
    uint64_t hash = ok ? table_hash(&f->parts, key) : 0;
    r->failed |= ok && table_find(&f->parts, key, hash); /* no key stands there twice */
    struct entry *e = ok && !r->failed ? table_add(&f->parts, key, hash) : NULL;
    return e && part_load(&t->op, e, r) && spill_relieve(t->op.account.budget, &fault);
}

static bool topn_load(struct op *op, struct state_reader *r)
{
    struct topn *t = CONTAINER_OF(op, struct topn, op);
    if (!state_get_version(r, TOPN_VERSION))
        return false;
    t->number = state_get_varint(r);
    uint64_t frames = state_get_varint(r);
    for (uint64_t i = 0; i < frames && !r->failed; i++) {
        int64_t time = state_get_signed(r);
        uint64_t parts = state_get_varint(r);
        r->failed |= t->frame_count && t->frames[t->frame_count - 1]->time >= time;
        r->failed |= t->rule.span.kind == SPAN_NONE && time;
        struct frame *f = r->failed ? NULL : frame_at(t, time);
        for (uint64_t k = 0; f && k < parts; k++)
            if (!load_part(t, f, r))
                return false;
        if (!f)
            return false;
    }
    return !r->failed;
}

/* ---------------------------------------------------------------------------------------------------------- life */

static void topn_fini(struct op *op)
{
    struct topn *t = CONTAINER_OF(op, struct topn, op);
    spill_fini(&t->spill);
    while (t->frame_count)
        frame_free(t, t->frame_count - 1);
    account_give(&op->account, t->frames, t->frame_room * sizeof *t->frames);
    pieces_fini(&t->pieces);
    emit_fini(&t->m);
    arena_fini(&t->scratch);
    mem_free(t->types);
    mem_free(t->key_types);
    mem_free(t->forms);
    mem_free(t->order);
}

static bool copy_types(struct topn *t, const struct sql_type *types, const struct sort_item *order)
{
    t->types = mem_alloc(t->type_count * sizeof *t->types);
    t->key_types = mem_alloc((t->keys + 1) * sizeof *t->key_types);
    t->forms = mem_alloc(t->type_count * sizeof *t->forms);
    t->order = mem_alloc((t->order_count + 1) * sizeof *t->order);
    if (!t->types || !t->key_types || !t->forms || !t->order)
        return false;
    t->types[0] = type_of(TYPE_BIGINT);
    memcpy(t->types + 1, types + t->from, (t->type_count - 1) * sizeof *types);
    memcpy(t->key_types, types, t->keys * sizeof *types);
    if (t->order_count)
        memcpy(t->order, order, t->order_count * sizeof *order);
    for (uint32_t i = 0; i < t->type_count; i++)
        t->forms[i] = type_form(t->types[i].kind);
    return true;
}

static int64_t topn_due(const struct op *op)
{
    const struct topn *t = CONTAINER_OF(op, const struct topn, op);
    return t->rule.changes || !t->frame_count ? INT64_MAX : end_of(t, t->frames[0]->time);
}

struct op *op_topn_new(struct budget *budget, const struct topn_rule *rule, const struct sql_type *types,
                       uint32_t type_count, uint32_t keys, const struct sort_item *order, uint32_t order_count)
{
    static const struct op_kind kind = {.name = "top",
                                        .push = topn_push,
                                        .flush = topn_flush,
                                        .fini = topn_fini,
                                        .due = topn_due,
                                        .save = topn_save,
                                        .load = topn_load};
    static const struct spill_kind spilling = {.save = part_save, .load = part_load, .drop = part_drop};
    struct topn *t = mem_zalloc(sizeof *t);
    uint32_t from = keys + (rule->span.kind != SPAN_NONE) + order_count;
    CHECK(rule->limit > 0 && rule->limit <= TOPN_MAX && from <= type_count);
    CHECK(rule->span.kind == SPAN_VALUE || (rule->span.kind == SPAN_NONE && rule->changes));
    if (!t)
        return NULL;
    t->op.kind = &kind;
    t->op.account.budget = budget;
    t->rule = *rule;
    t->keys = keys;
    t->order_count = order_count;
    t->from = from;
    t->type_count = type_count - from + 1;
    t->single = rule->limit == 1 && !rule->retracts && rule->ranking == RANKING_ROW;
    t->first_only = t->single && rule->changes && !order_count && !rule->newest_first;
    t->node_len = t->single ? 0 : sizeof(struct ordered_row);
    pieces_init(&t->pieces, &t->op.account);
    arena_init(&t->scratch, SCRATCH_MAX);
    bool ok = copy_types(t, types, order);
    emit_init(&t->m, &t->op, t->types, t->type_count, rule->changes);
    struct op *op = &t->op;
    spill_init(&t->spill, op, NULL, rule->span.kind == SPAN_NONE ? &spilling : NULL);
    if (!ok)
        op_free(&op);
    return op;
}
