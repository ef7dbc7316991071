/* MATCH_RECOGNIZE, see op_match.h: rows in their order, where a match may begin, what is given out, snapshots. The search for one is in match_search.c.
 *
 * What happens, happens by time: a row is used, or the time within which a match has to end is over for the row that it would begin with. Both
 * wait for the watermark and are done in the order of their times, of the same time rows first. So all rows of a partition behind its start are
 * within reach of it, and the search never has to look at a clock. */
#include "sql/query/op_match_int.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/query/op_aggregate.h"

#define SCRATCH_MAX (8u << 20)

/* A row that the watermark has not passed, then the bytes of its key in the order of all rows. */
struct waiting {
    struct ordered_row node;
    struct entry *of;
    struct kept *row;
    uint8_t key[];
};

static struct waiting *waiting_of(struct ordered_row *node)
{
    return node ? CONTAINER_OF(node, struct waiting, node) : NULL;
}

static void waiting_free(struct match *m, struct waiting *w)
{
    pieces_give(&m->pieces, w, sizeof *w + w->node.key_len);
}

/* The row is its own from here on. False: no memory. */
static bool wait_add(struct match *m, struct entry *of, struct kept *row, struct slice key)
{
    struct waiting *w = pieces_take(&m->pieces, sizeof *w + key.len);
    if (!w) {
        kept_give(&m->pieces, row);
        return false;
    }
    *w = (struct waiting){.of = of, .row = row, .node = {.key = w->key, .key_len = (uint32_t)key.len}};
    memcpy(w->key, key.ptr, key.len);
    ordered_add(&m->pending, &w->node);
    part_of(of)->pending++;
    return true;
}

/* The watermark from which on no row of that time is to come. */
static int64_t end_of(const struct match *m, int64_t time)
{
    return time_plus(time, 1 - m->rule->offset);
}

/* ---------------------------------------------------------------------------------------------------------- partitions */

static void append(struct part *p, struct kept *row)
{
    row->prev = p->last;
    row->next = NULL;
    *(p->last ? &p->last->next : &p->oldest) = row;
    p->last = row;
    p->start = p->start ? p->start : row;
}

static void drop_oldest(struct match *m, struct part *p)
{
    struct kept *row = p->oldest;
    p->oldest = row->next;
    *(row->next ? &row->next->prev : &p->last) = NULL;
    p->behind--;
    kept_give(&m->pieces, row);
}

/* A match may begin with that row next, or with one to come. */
static void move_start(struct match *m, struct part *p, struct kept *to)
{
    for (; p->start != to; p->start = p->start->next)
        p->behind++;
    match_restart(m, p, !to);
    while (p->behind > m->rule->back)
        drop_oldest(m, p);
}

/* The time after which nothing belongs to a match that begins with the start. */
static struct due_item end_item(const struct match *m, struct entry *e)
{
    const struct kept *start = part_of(e)->start;
    return (struct due_item){.time = time_plus(start->end, m->rule->within), .number = start->number, .what = e};
}

/* A partition is in the queue once, no later than its time, and put in again when its turn comes. */
static bool queue(struct match *m, struct entry *e)
{
    struct part *p = part_of(e);
    if (m->rule->within < 0 || !p->start || p->queued)
        return true;
    p->queued = due_add(&m->due, end_item(m, e));
    return p->queued;
}

static void forget_empty(struct match *m, struct entry *e)
{
    const struct part *p = part_of(e);
    if (!p->oldest && !p->pending && !p->queued)
        table_remove(&m->parts, e);
}

/* ------------------------------------------------------------------------------------------------------------- matches */

/* One whose measure cannot be computed is diverted, and not pushed. */
static bool emit_measures(struct match *m, struct step *step, uint32_t origin, const struct part *p)
{
    for (uint32_t i = 0; i < m->rule->measure_count; i++) {
        const struct column *got = NULL;
        enum sql_fault fault;
        bool ok = match_compute(m, step, p, &m->rule->measures[i], &got, &fault);
        if (ok && fault == SQL_FAULT_NONE && !column_null(got, 0))
            ok = emit_set_copy(&m->m, step, m->rule->keys + i, got->values);
        arena_recycle(&m->once);
        if (!ok)
            return false;
        if (fault == SQL_FAULT_NONE)
            continue;
        emit_drop(&m->m, 1);
        m->op.faults++;
        if (step->divert)
            step->divert(step->divert_arg, origin, fault);
        return true;
    }
    return true;
}

static bool emit(struct match *m, struct step *step, uint32_t origin, struct entry *e)
{
    const uint8_t *at = entry_key(e).ptr;
    uint8_t room[KEY_ROOM];
    if (!emit_row(&m->m, step, origin, 1))
        return false;
    for (uint32_t i = 0; i < m->rule->keys; i++) {
        const void *value = key_value(type_form(m->types[i].kind), &at, room);
        if (value && !emit_set_copy(&m->m, step, i, value))
            return false;
    }
    return emit_measures(m, step, origin, part_of(e));
}

/* Where the next match may begin: never with the same row again. */
static struct kept *after_match(const struct match *m, const struct part *p)
{
    const uint32_t *ends = m->rule->skip_to == MATCH_ANY ? NULL : &p->ends[2 * m->rule->skip_to];
    struct kept *last = match_frame(m, p, p->depth - 1)->row, *to = p->start->next;
    uint32_t frame = 0;
    if (m->rule->skip == MATCH_SKIP_PAST)
        return last->next;
    if (ends)
        frame = ends[m->rule->skip == MATCH_SKIP_LAST];
    if (frame && match_frame(m, p, frame - 1)->row != p->start)
        to = match_frame(m, p, frame - 1)->row;
    return to;
}

/* Until a row is needed that has not come. ended: for the start there is nothing to come. */
static bool find_matches(struct match *m, struct step *step, uint32_t origin, struct entry *e, bool ended)
{
    struct part *p = part_of(e);
    m->credit += MATCH_STEPS_A_ROW;
    m->credit = m->credit < MATCH_STEPS_MAX ? m->credit : MATCH_STEPS_MAX;
    m->told = false;
    for (; p->start; ended = false) {
        enum match_found found = match_search(m, step, origin, p, ended);
        if (found == MATCH_WAITS)
            break;
        if (found == MATCH_FAILED || (found == MATCH_IS && !emit(m, step, origin, e)))
            return false;
        move_start(m, p, found == MATCH_IS ? after_match(m, p) : p->start->next);
    }
    return queue(m, e) || op_fail(step, SQL_FAULT_MEMORY);
}

/* ---------------------------------------------------------------------------------------------------------------- time */

static bool use_row(struct match *m, struct step *step, struct waiting *w)
{
    struct entry *e = w->of;
    struct kept *row = w->row;
    uint32_t origin = clock_origin(m->rule->clock, step, end_of(m, row->end));
    ordered_remove(&m->pending, &w->node);
    waiting_free(m, w);
    part_of(e)->pending--;
    row->number = m->used++;
    append(part_of(e), row);
    if (!find_matches(m, step, origin, e, false))
        return false;
    forget_empty(m, e);
    return true;
}

static bool use_end(struct match *m, struct step *step)
{
    struct due_item item = *due_first(&m->due);
    struct entry *e = item.what;
    struct part *p = part_of(e);
    uint32_t origin = clock_origin(m->rule->clock, step, end_of(m, item.time));
    bool over = p->start && end_item(m, e).time == item.time && end_item(m, e).number == item.number;
    due_drop(&m->due);
    p->queued = false;
    if (over ? !find_matches(m, step, origin, e, true) : !queue(m, e))
        return op_fail(step, SQL_FAULT_MEMORY);
    forget_empty(m, e);
    return true;
}

static bool advance(struct match *m, struct step *step, int64_t watermark)
{
    for (;;) {
        struct waiting *w = waiting_of(m->pending.first);
        const struct due_item *d = due_first(&m->due);
        bool row = w && !(d && d->time < w->row->end);
        if (!row && !d)
            return true;
        if (end_of(m, row ? w->row->end : d->time) > watermark)
            return true;
        if (row ? !use_row(m, step, w) : !use_end(m, step))
            return false;
    }
}

/* --------------------------------------------------------------------------------------------------------------- steps */

static bool divert(struct match *m, struct step *step, uint32_t origin, enum sql_fault fault)
{
    m->op.faults++;
    if (step->divert)
        step->divert(step->divert_arg, origin, fault);
    return true;
}

static bool keep_row(struct match *m, struct step *step, const struct batch *b, uint32_t row, int64_t at,
                     struct slice part, struct slice key)
{
    uint64_t hash = table_hash(&m->parts, part);
    struct entry *e = table_find(&m->parts, part, hash);
    uint16_t which = (uint16_t)row;
    struct kept *kept;
    if (!e && !(e = table_add(&m->parts, part, hash)))
        return op_fail(step, SQL_FAULT_MEMORY);
    if (!kept_copy(&m->layout, &m->pieces, b, &which, 1, &kept))
        return op_fail(step, SQL_FAULT_MEMORY);
    kept->end = at;
    m->number++;
    return wait_add(m, e, kept, key) || op_fail(step, SQL_FAULT_MEMORY);
}

static bool push_row(struct match *m, struct step *step, const struct batch *b, uint32_t row)
{
    const struct match_rule *rule = m->rule;
    uint32_t origin = batch_origin(b, row);
    const struct column *order = &b->columns[rule->keys];
    int64_t watermark = clock_before(rule->clock, origin);
    struct slice part, key;
    enum sql_fault fault;
    if (!advance(m, step, watermark))
        return false;
    if (column_null(order, row))
        return divert(m, step, origin, SQL_FAULT_NOT_NULL);
    int64_t at = ((const int64_t *)order->values)[row & column_mask(order)];
    if (end_of(m, at) <= watermark) {
        m->op.late++;
        return true;
    }
    if (!key_of_row(&m->scratch, b->columns, rule->keys, row, &part, &fault) ||
        !sort_key(&m->scratch, order, rule->order, rule->order_count, row, m->number, false, &key, &fault))
        return fault == SQL_FAULT_LIMIT ? divert(m, step, origin, fault) : op_fail(step, fault);
    return keep_row(m, step, b, row, at, part, key);
}

static bool match_push(struct op *op, struct step *step, const struct batch *b)
{
    struct match *m = CONTAINER_OF(op, struct match, op);
    for (uint32_t k = 0; k < b->sel.count; k++) {
        if (!push_row(m, step, b, sel_row(b->sel, k)))
            return false;
        if (m->scratch.used > SCRATCH_MAX / 4)
            arena_recycle(&m->scratch);
    }
    arena_recycle(&m->scratch);
    return emit_end(&m->m, step);
}

static bool match_flush(struct op *op, struct step *step)
{
    struct match *m = CONTAINER_OF(op, struct match, op);
    const struct clock *c = m->rule->clock;
    if (!c->at || !step->rows)
        return true;
    return advance(m, step, c->at[step->rows]) && emit_end(&m->m, step);
}

static int64_t match_due(const struct op *op)
{
    const struct match *m = CONTAINER_OF(op, const struct match, op);
    const struct waiting *w = waiting_of(m->pending.first);
    const struct due_item *d = due_first(&m->due);
    if (!w && !d)
        return INT64_MAX;
    return end_of(m, w && !(d && d->time < w->row->end) ? w->row->end : d->time);
}

/* --------------------------------------------------------------------------------------------------------- snapshots */

/* 1 had no searches: they were done again. */
#define MATCH_VERSION 2u

static void save_row(const struct match *m, const struct kept *row, struct state_writer *w)
{
    state_put_signed(w, row->end);
    state_put_varint(w, row->number);
    kept_save(&m->layout, row, w);
}

static void match_save(const struct op *op, struct state_writer *w)
{
    const struct match *m = CONTAINER_OF(op, const struct match, op);
    uint32_t parts = 0;
    for (const struct entry *e = m->parts.first; e; e = e->newer)
        parts += part_of((struct entry *)(uintptr_t)e)->oldest != NULL;
    state_put_varint(w, MATCH_VERSION);
    state_put_varint(w, m->number);
    state_put_varint(w, m->used);
    state_put_varint(w, (uint64_t)m->credit);
    state_put_varint(w, match_program(m->rule));
    state_put_varint(w, parts);
    for (struct entry *e = m->parts.first; e; e = e->newer) {
        const struct part *p = part_of(e);
        uint64_t count = 0;
        for (const struct kept *row = p->oldest; row; row = row->next)
            count++;
        if (!count)
            continue;
        state_put_slice(w, entry_key(e));
        state_put_varint(w, p->behind);
        state_put_varint(w, count);
        for (const struct kept *row = p->oldest; row; row = row->next)
            save_row(m, row, w);
        match_search_save(m, p, w);
    }
    state_put_varint(w, m->pending.count);
    for (struct waiting *i = waiting_of(m->pending.first); i; i = waiting_of(i->node.after)) {
        state_put_slice(w, entry_key(i->of));
        state_put_slice(w, ordered_key(&i->node));
        save_row(m, i->row, w);
    }
}

/* NULL: no memory, or the reader has failed. */
static struct kept *load_row(struct match *m, struct state_reader *r)
{
    int64_t at = state_get_signed(r);
    uint64_t number = state_get_varint(r);
    struct kept *row;
    if (!kept_load(&m->layout, &m->pieces, r, &row))
        return NULL;
    row->end = at;
    row->number = number;
    return row;
}

static struct entry *load_part(struct match *m, struct state_reader *r)
{
    struct slice key;
    if (!key_load(&m->scratch, m->types, m->rule->keys, r, &key))
        return NULL;
    uint64_t hash = table_hash(&m->parts, key);
    struct entry *e = table_find(&m->parts, key, hash);
    return e ? e : table_add(&m->parts, key, hash);
}

/* searches: they are there; same: and of this program. */
static bool load_rows(struct match *m, bool searches, bool same, struct state_reader *r)
{
    struct entry *e = load_part(m, r);
    uint64_t behind = state_get_varint(r), count = state_get_varint(r);
    struct part *p = e ? part_of(e) : NULL;
    arena_recycle(&m->scratch);
    r->failed |= (p && p->oldest) || !count || behind > count || behind > m->rule->back;
    for (uint64_t i = 0; p && i < count && !r->failed; i++) {
        struct kept *row = load_row(m, r);
        if (!row)
            return false;
        r->failed |= p->last && (row->end < p->last->end || row->number <= p->last->number);
        append(p, row);
        if (i < behind) {
            p->start = NULL;
            p->behind++;
        }
    }
    if (!p || r->failed)
        return false;
    p->heard = p->start ? p->last : NULL;
    return (!searches || match_search_load(m, p, same, r)) && queue(m, e);
}

/* The number of coming at its end, by which no two keys are the same. */
static bool key_is_old(const struct match *m, struct slice key)
{
    uint8_t number[SORT_NUMBER_LEN];
    for (size_t i = 0; i < sizeof number; i++)
        number[i] = (uint8_t)(m->number >> 8 * (sizeof number - 1 - i));
    return key.len >= sizeof number && memcmp(key.ptr + key.len - sizeof number, number, sizeof number) < 0;
}

static bool load_waiting(struct match *m, struct state_reader *r)
{
    struct entry *e = load_part(m, r);
    size_t len = e ? state_get_len(r, SORT_KEY_MAX) : 0;
    uint8_t *key = e ? arena_take(&m->scratch, len) : NULL;
    if (!key)
        return false;
    state_get(r, key, len);
    struct kept *row = load_row(m, r);
    struct ordered_row *last = m->pending.last;
    bool fits =
        key_is_old(m, slice_of(key, len)) && !(last && ordered_compare(slice_of(key, len), ordered_key(last)) <= 0);
    if (row && !fits) {
        kept_give(&m->pieces, row);
        r->failed = true;
        return false;
    }
    bool ok = row && wait_add(m, e, row, slice_of(key, len));
    arena_recycle(&m->scratch);
    return ok;
}

static bool match_load(struct op *op, struct state_reader *r)
{
    struct match *m = CONTAINER_OF(op, struct match, op);
    uint64_t version = state_get_version(r, MATCH_VERSION);
    m->number = state_get_varint(r);
    m->used = state_get_varint(r);
    uint64_t credit = state_get_varint(r);
    bool searches = version > 1, same = searches && state_get_varint(r) == match_program(m->rule);
    uint64_t parts = state_get_varint(r);
    r->failed |= credit > MATCH_STEPS_MAX;
    m->credit = (int64_t)credit;
    for (uint64_t i = 0; i < parts && !r->failed; i++)
        if (!load_rows(m, searches, same, r))
            return false;
    uint64_t waiting = state_get_varint(r);
    for (uint64_t i = 0; i < waiting && !r->failed; i++)
        if (!load_waiting(m, r))
            return false;
    return !r->failed;
}

/* -------------------------------------------------------------------------------------------------------------- life */

static void match_fini(struct op *op)
{
    struct match *m = CONTAINER_OF(op, struct match, op);
    for (struct entry *e = m->parts.first; e; e = e->newer)
        match_restart(m, part_of(e), true); /* aggregates may have memory of their own; the rest is the pieces' */
    table_fini(&m->parts);
    due_fini(&m->due);
    pieces_fini(&m->pieces);
    pieces_fini(&m->entries);
    kept_layout_fini(&m->layout);
    regex_cache_free(&m->regexes);
    emit_fini(&m->m);
    arena_fini(&m->scratch);
    arena_fini(&m->once);
    void *taken[] = {m->types, m->outs, m->kept_columns, m->lookups, m->values, m->room};
    for (size_t i = 0; i < ARRAY_LEN(taken); i++)
        mem_free(taken[i]);
}

static void *zeroes(uint32_t count, size_t size)
{
    return mem_zalloc((count + 1) * size);
}

static bool set_up(struct match *m, const struct sql_type *types, const struct sql_type *outs)
{
    const struct match_rule *rule = m->rule;
    uint32_t first = rule->keys + rule->order_count, out_count = rule->keys + rule->measure_count;
    m->types = zeroes(rule->keys, sizeof *m->types);
    m->outs = zeroes(out_count, sizeof *m->outs);
    m->kept_columns = zeroes(rule->kept_count, sizeof *m->kept_columns);
    m->lookups = zeroes(rule->lookup_count, sizeof *m->lookups);
    m->values = zeroes(rule->kept_count, sizeof *m->values);
    m->room = zeroes(rule->lookup_count, sizeof *m->room);
    m->regexes = regex_cache_new();
    if (!m->types || !m->outs || !m->kept_columns || !m->lookups || !m->values || !m->room || !m->regexes)
        return false;
    memcpy(m->types, types, rule->keys * sizeof *types);
    memcpy(m->outs, outs, out_count * sizeof *outs);
    for (uint32_t i = 0; i < rule->kept_count; i++) {
        m->kept_columns[i] = first + i;
        m->values[i] = (struct column){.form = type_form(types[first + i].kind), .constant = true};
    }
    for (uint32_t i = 0; i < rule->lookup_count; i++)
        m->lookups[i] =
            (struct column){.form = type_form(rule->lookups[i].type.kind), .constant = true, .values = &m->room[i]};
    return kept_layout_init(&m->layout, m->kept_columns, types + first, rule->kept_count);
}

struct op *op_match_new(struct budget *budget, const struct match_rule *rule, const struct sql_type *types,
                        uint32_t type_count, const struct sql_type *outs)
{
    static const struct op_kind kind = {.name = "match",
                                        .push = match_push,
                                        .flush = match_flush,
                                        .fini = match_fini,
                                        .due = match_due,
                                        .save = match_save,
                                        .load = match_load};
    struct match *m = mem_zalloc(sizeof *m);
    CHECK(type_count == rule->keys + rule->order_count + rule->kept_count);
    if (!m)
        return NULL;
    m->op.kind = &kind;
    m->op.account.budget = budget;
    m->rule = rule;
    m->credit = MATCH_STEPS_MAX;
    m->frame_len = sizeof(struct frame) + rule->aggregate_count * sizeof(struct cell);
    pieces_init(&m->pieces, &m->op.account);
    pieces_init(&m->entries, &m->op.account);
    table_init(&m->parts, &m->op.account, (uint32_t)(sizeof(struct part) + 2 * rule->variables * sizeof(uint32_t)));
    m->parts.pieces = &m->entries;
    due_init(&m->due, &m->op.account);
    arena_init(&m->scratch, SCRATCH_MAX);
    arena_init(&m->once, SCRATCH_MAX);
    bool ok = set_up(m, types, outs);
    emit_init(&m->m, &m->op, m->outs, rule->keys + rule->measure_count, false);
    struct op *op = &m->op;
    if (!ok)
        op_free(&op);
    return op;
}
