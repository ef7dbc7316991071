/* Session windows, see op_session.h. A hash table has for each key its open sessions in the order of their beginnings (sql/query/ordered.h); they do not
 * overlap. When each may end is in one queue for all (sql/query/due.h): a session that has grown since is put in again when its turn comes, so a row
 * that only extends one touches nothing but the session. */
#include "sql/query/op_session.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/query/due.h"
#include "sql/query/ordered.h"
#include "sql/query/sort_key.h"

#define SCRATCH_MAX (4u << 20)

struct session {
    struct ordered_row node;
    struct entry *of;
    int64_t first, last; /* times of rows */
    uint64_t number;     /* in the order of coming */
    uint8_t key[8];      /* first, for the node */
    bool gone;           /* is part of another one; stays until its turn in the queue */
    struct cell cells[] __attribute__((aligned(16)));
};

struct sessions {
    struct op op;
    struct span_rule rule;
    bool changes;
    uint32_t keys, count; /* count: of aggregates */
    struct aggregate *aggregates;
    struct sql_type *types;
    struct table table; /* payload: struct ordered */
    struct pieces pieces, entries;
    struct due due;
    uint64_t number;
    struct emitter m;
    struct arena scratch;
};

static struct ordered *list_of(struct entry *e)
{
    return (struct ordered *)(void *)e->bytes;
}

static struct session *session_of(struct ordered_row *node)
{
    return node ? CONTAINER_OF(node, struct session, node) : NULL;
}

static int64_t end_of(const struct sessions *s, const struct session *w)
{
    return time_plus(w->last, s->rule.size);
}

static size_t session_len(const struct sessions *s)
{
    return sizeof(struct session) + s->count * sizeof(struct cell);
}

static void set_first(struct session *w, int64_t first)
{
    w->first = first;
    sort_put_i64(w->key, first);
}

/* In no list yet, and due at its end. NULL: no memory. */
static struct session *session_new(struct sessions *s, struct entry *of, int64_t first, int64_t last, uint64_t number)
{
    struct session *w = pieces_take(&s->pieces, session_len(s));
    if (!w)
        return NULL;
    *w = (struct session){.of = of, .last = last, .number = number};
    memset(w->cells, 0, s->count * sizeof *w->cells);
    set_first(w, first);
    w->node.key = w->key;
    w->node.key_len = sizeof w->key;
    if (due_add(&s->due, (struct due_item){.time = end_of(s, w), .number = number, .what = w}))
        return w;
    pieces_give(&s->pieces, w, session_len(s));
    return NULL;
}

static void session_empty(struct sessions *s, struct session *w)
{
    aggregates_fini(s->aggregates, s->count, &s->op.account, w->cells);
}

/* ------------------------------------------------------------------------------------------------------------- pushing */

/* Texts are copied: the session may be gone before the row is pushed. One whose result has a fault is diverted, and not pushed. */
static bool emit(struct sessions *s, struct step *step, uint32_t origin, int weight, const struct session *w)
{
    const uint8_t *at = entry_key(w->of).ptr;
    int64_t end = end_of(s, w);
    uint8_t room[KEY_ROOM];
    uint32_t column = 0;
    if (!emit_row(&s->m, step, origin, weight))
        return false;
    for (; column < s->keys; column++) {
        const void *value = key_value(type_form(s->types[column].kind), &at, room);
        if (value && !emit_set_copy(&s->m, step, column, value))
            return false;
    }
    emit_set(&s->m, column++, &w->first);
    emit_set(&s->m, column++, &end);
    for (uint32_t i = 0; i < s->count; i++, column++) {
        enum sql_fault fault;
        const void *value = aggregate_value(&s->aggregates[i], &w->cells[i], room, &fault);
        if (fault != SQL_FAULT_NONE) {
            emit_drop(&s->m, 1);
            s->op.faults += weight > 0;
            if (weight > 0 && step->divert)
                step->divert(step->divert_arg, origin, fault);
            return true;
        }
        if (value && !emit_set_copy(&s->m, step, column, value))
            return false;
    }
    return true;
}

static void close_session(struct sessions *s, struct session *w)
{
    struct entry *e = w->of;
    ordered_remove(list_of(e), &w->node);
    session_empty(s, w);
    pieces_give(&s->pieces, w, session_len(s));
    if (!list_of(e)->count)
        table_remove(&s->table, e);
}

static bool advance(struct sessions *s, struct step *step, int64_t watermark)
{
    for (const struct due_item *first = due_first(&s->due); first && first->time <= watermark;
         first = due_first(&s->due)) {
        struct due_item item = *first;
        struct session *w = item.what;
        due_drop(&s->due);
        if (w->gone) {
            pieces_give(&s->pieces, w, session_len(s));
            continue;
        }
        if (item.time < end_of(s, w)) {
            item.time = end_of(s, w);
            if (!due_add(&s->due, item))
                return op_fail(step, SQL_FAULT_MEMORY);
            continue;
        }
        if (!s->changes &&
            !emit(s, step, clock_origin(s->rule.clock, step, time_plus(item.time, -s->rule.shift)), 1, w))
            return false;
        close_session(s, w);
    }
    return true;
}

/* ---------------------------------------------------------------------------------------------------------------- rows */

/* The first session of the list that a row at that time belongs to; NULL: there is none. */
static struct session *find(const struct sessions *s, const struct ordered *list, int64_t time)
{
    uint8_t key[8];
    sort_put_i64(key, time);
    struct session *w = session_of(ordered_at_most(list, slice_of(key, sizeof key)));
    if (w && end_of(s, w) > time)
        return w;
    w = session_of(w ? w->node.after : list->first);
    return w && w->first < time_plus(time, s->rule.size) ? w : NULL;
}

/* All sessions from w on that the row joins become w. */
static bool join_sessions(struct sessions *s, struct session *w, int64_t time)
{
    struct session *next = session_of(w->node.after);
    if (time < w->first)
        set_first(w, time); /* it stays behind the one before it, which ends before */
    w->last = time > w->last ? time : w->last;
    for (; next && next->first < time_plus(time, s->rule.size); next = session_of(w->node.after)) {
        if (!aggregates_merge(s->aggregates, s->count, &s->op.account, w->cells, next->cells))
            return false;
        w->last = next->last > w->last ? next->last : w->last;
        ordered_remove(list_of(w->of), &next->node);
        session_empty(s, next);
        next->gone = true;
    }
    return true;
}

static bool emit_old(struct sessions *s, struct step *step, uint32_t origin, struct session *w, int64_t time)
{
    for (; w && w->first < time_plus(time, s->rule.size); w = session_of(w->node.after))
        if (!emit(s, step, origin, -1, w))
            return false;
    return true;
}

/* A row whose session is not complete. */
static bool add_row(struct sessions *s, struct step *step, const struct batch *b, uint32_t row, int64_t time,
                    struct entry *e)
{
    struct session *w = find(s, list_of(e), time);
    uint32_t origin = batch_origin(b, row);
    enum sql_fault fault;
    if (w) {
        if (s->changes && !emit_old(s, step, origin, w, time))
            return false;
        if (!join_sessions(s, w, time))
            return op_fail(step, SQL_FAULT_MEMORY);
    } else {
        w = session_new(s, e, time, time, s->number++);
        if (!w)
            return op_fail(step, SQL_FAULT_MEMORY);
        ordered_add(list_of(e), &w->node);
    }
    if (!aggregates_add(s->aggregates, s->count, &s->op.account, w->cells, b->columns, row, 1, &fault))
        return op_fail(step, fault);
    return !s->changes || emit(s, step, origin, 1, w);
}

static bool divert(struct sessions *s, struct step *step, uint32_t origin, enum sql_fault fault)
{
    s->op.faults++;
    if (step->divert)
        step->divert(step->divert_arg, origin, fault);
    return true;
}

static bool push_row(struct sessions *s, struct step *step, const struct batch *b, uint32_t row)
{
    uint32_t origin = batch_origin(b, row);
    int64_t watermark = span_watermark(&s->rule, clock_before(s->rule.clock, origin));
    const struct column *c = &b->columns[s->keys];
    struct slice key;
    enum sql_fault fault;
    if (!advance(s, step, watermark))
        return false;
    if (column_null(c, row))
        return divert(s, step, origin, SQL_FAULT_NOT_NULL);
    int64_t time = ((const int64_t *)c->values)[row & column_mask(c)];
    if (!key_of_row(&s->scratch, b->columns, s->keys, row, &key, &fault))
        return fault == SQL_FAULT_LIMIT ? divert(s, step, origin, fault) : op_fail(step, fault);
    uint64_t hash = table_hash(&s->table, key);
    struct entry *e = table_find(&s->table, key, hash);
    if (time_plus(time, s->rule.size) <= watermark && !(e && find(s, list_of(e), time))) {
        s->op.late++;
        return true;
    }
    if (!e && !(e = table_add(&s->table, key, hash)))
        return op_fail(step, SQL_FAULT_MEMORY);
    return add_row(s, step, b, row, time, e);
}

static bool session_push(struct op *op, struct step *step, const struct batch *b)
{
    struct sessions *s = CONTAINER_OF(op, struct sessions, op);
    for (uint32_t k = 0; k < b->sel.count; k++) {
        if (!push_row(s, step, b, sel_row(b->sel, k)))
            return false;
        if (s->scratch.used > SCRATCH_MAX / 4)
            arena_recycle(&s->scratch);
    }
    arena_recycle(&s->scratch);
    return emit_end(&s->m, step);
}

static bool session_flush(struct op *op, struct step *step)
{
    struct sessions *s = CONTAINER_OF(op, struct sessions, op);
    const struct clock *c = s->rule.clock;
    if (!c->at || !step->rows)
        return true;
    return advance(s, step, span_watermark(&s->rule, c->at[step->rows])) && emit_end(&s->m, step);
}

/* --------------------------------------------------------------------------------------------------------- snapshots */

#define SESSION_VERSION 1u

static void session_save(const struct op *op, struct state_writer *w)
{
    const struct sessions *s = CONTAINER_OF(op, const struct sessions, op);
    state_put_varint(w, SESSION_VERSION);
    state_put_varint(w, s->number);
    state_put_varint(w, s->table.count);
    for (struct entry *e = s->table.first; e; e = e->newer) {
        state_put_slice(w, entry_key(e));
        state_put_varint(w, list_of(e)->count);
        for (struct session *i = session_of(list_of(e)->first); i; i = session_of(i->node.after)) {
            state_put_signed(w, i->first);
            state_put_signed(w, i->last);
            state_put_varint(w, i->number);
            aggregates_save(s->aggregates, s->count, i->cells, w);
        }
    }
}

static bool load_entry(struct sessions *s, struct state_reader *r)
{
    struct slice key;
    bool ok = key_load(&s->scratch, s->types, s->keys, r, &key);
    uint64_t hash = ok ? table_hash(&s->table, key) : 0, count = ok ? state_get_varint(r) : 0;
    r->failed |= ok && (!count || table_find(&s->table, key, hash));
    struct entry *e = ok && !r->failed ? table_add(&s->table, key, hash) : NULL;
    arena_recycle(&s->scratch);
    for (uint64_t i = 0; e && i < count; i++) {
        int64_t first = state_get_signed(r), last = state_get_signed(r);
        uint64_t number = state_get_varint(r);
        const struct session *before = session_of(list_of(e)->last);
        r->failed |= last < first || (before && before->last >= first);
        struct session *w = r->failed ? NULL : session_new(s, e, first, last, number);
        if (!w)
            return false;
        ordered_add(list_of(e), &w->node);
        if (!aggregates_load(s->aggregates, s->count, &s->op.account, w->cells, r))
            return false;
    }
    return e && !r->failed;
}

static bool session_load(struct op *op, struct state_reader *r)
{
    struct sessions *s = CONTAINER_OF(op, struct sessions, op);
    (void)state_get_version(r, SESSION_VERSION);
    s->number = state_get_varint(r);
    uint64_t entries = state_get_varint(r);
    for (uint64_t i = 0; i < entries && !r->failed; i++)
        if (!load_entry(s, r))
            return false;
    return !r->failed;
}

/* -------------------------------------------------------------------------------------------------------------- life */

static void session_fini(struct op *op)
{
    struct sessions *s = CONTAINER_OF(op, struct sessions, op);
    for (struct entry *e = s->table.first; e; e = e->newer)
        for (struct session *w = session_of(list_of(e)->first); w; w = session_of(w->node.after))
            session_empty(s, w);
    table_fini(&s->table);
    due_fini(&s->due);
    pieces_fini(&s->pieces);
    pieces_fini(&s->entries);
    emit_fini(&s->m);
    arena_fini(&s->scratch);
    mem_free(s->aggregates);
    mem_free(s->types);
}

/* At the latest; a session that has grown since is looked at then, and waits on. */
static int64_t session_due(const struct op *op)
{
    const struct sessions *s = CONTAINER_OF(op, const struct sessions, op);
    const struct due_item *first = s->changes ? NULL : due_first(&s->due);
    return first ? time_plus(first->time, -s->rule.shift) : INT64_MAX;
}

struct op *op_session_new(struct budget *budget, const struct span_rule *rule, bool changes,
                          const struct sql_type *types, uint32_t type_count, uint32_t keys,
                          const struct aggregate *aggregates, uint32_t count)
{
    static const struct op_kind kind = {.name = "session",
                                        .push = session_push,
                                        .flush = session_flush,
                                        .fini = session_fini,
                                        .due = session_due,
                                        .save = session_save,
                                        .load = session_load};
    struct sessions *s = mem_zalloc(sizeof *s);
    if (!s)
        return NULL;
    s->op.kind = &kind;
    s->op.account.budget = budget;
    s->rule = *rule;
    s->changes = changes;
    s->keys = keys;
    s->count = count;
    s->aggregates = mem_alloc((count + 1) * sizeof *aggregates);
    s->types = mem_alloc((type_count + 1) * sizeof *types);
    pieces_init(&s->pieces, &s->op.account);
    pieces_init(&s->entries, &s->op.account);
    table_init(&s->table, &s->op.account, sizeof(struct ordered));
    s->table.pieces = &s->entries;
    due_init(&s->due, &s->op.account);
    arena_init(&s->scratch, SCRATCH_MAX);
    emit_init(&s->m, &s->op, s->types, type_count, changes);
    struct op *op = &s->op;
    if (!s->aggregates || !s->types) {
        op_free(&op);
        return NULL;
    }
    memcpy(s->types, types, type_count * sizeof *types);
    if (count)
        memcpy(s->aggregates, aggregates, count * sizeof *aggregates);
    aggregates_share(s->aggregates, count);
    return op;
}
