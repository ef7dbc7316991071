/* Entries between memory and runs, see spill.h.
 *
 * When memory is short, all of a table goes: memory is freed by the chunk, and what was found again since the last time ("touched") comes back at once, up to
 * an eighth of the budget. What goes is a run, ordered by hash (sql/query/spill_run.h). Eight runs of a level become one of the next, so an entry is
 * written again once for each eightfold of what is kept, and a key that is nowhere costs a look at few runs. An entry that comes back leaves a hole; a
 * run that is mostly holes is written again. */
#include "sql/query/spill.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdlib.h>

#define FULL(max) ((max) / 5 * 4)
#define RELIEVED(max) ((max) / 2)
#define WORTH(max) ((max) / 16) /* less of an operator stays where it is */
#define HOT(max) ((max) / 8)
#define FAN_IN 8u

void spill_init(struct spill *s, struct op *op, struct table *table, const struct spill_kind *kind)
{
    struct budget *budget = op->account.budget;
    *s = (struct spill){.table = table};
    if (!kind)
        return;
    s->op = op;
    s->kind = kind;
    s->next = budget->spills;
    budget->spills = s;
    op->spill = s;
}

void spill_fini(struct spill *s)
{
    if (!s->op)
        return;
    struct spill **link = &s->op->account.budget->spills;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    while (s->runs) {
        struct spill_run *run = s->runs;
        s->runs = run->next;
        run_free(&run);
    }
    run_room_fini(&s->room);
    s->op->spill = NULL;
    s->op = NULL;
}

uint64_t spill_count(const struct spill *s)
{
    uint64_t count = 0;
    for (const struct spill_run *run = s->runs; run; run = run->next)
        count += run->live;
    return count;
}

static struct scratch_file *scratch_of(const struct spill *s)
{
    return s->op->account.budget->scratch;
}

static void forget_run(struct spill *s, struct spill_run *run)
{
    struct spill_run **link = &s->runs;
    while (*link != run)
        link = &(*link)->next;
    *link = run->next;
    run_free(&run);
}

/* --------------------------------------------------------------------------------------------------------- coming back */

static bool give_once(void *arg, struct slice *ret)
{
    struct slice *bytes = arg;
    *ret = *bytes;
    *bytes = (struct slice){0};
    return ret->len > 0;
}

/* Makes the entry of what was written. NULL: it failed. */
static struct entry *revive(struct spill *s, struct slice key, uint64_t hash, struct slice bytes,
                            enum sql_fault *ret_fault)
{
    struct entry *e = table_add(s->table, key, hash);
    struct state_reader r;
    *ret_fault = SQL_FAULT_MEMORY;
    if (!e)
        return NULL;
    state_reader_init(&r, give_once, &bytes);
    bool ok = s->kind->load(s->op, e, &r);
    if (!ok)
        *ret_fault = r.failed ? SQL_FAULT_SCRATCH_LOST : SQL_FAULT_MEMORY;
    return ok ? e : NULL;
}

bool spill_bring(struct spill *s, struct slice key, uint64_t hash, struct entry **ret, enum sql_fault *ret_fault)
{
    for (struct spill_run *run = s->runs; run; run = run->next) {
        struct slice bytes;
        uint32_t number;
        if (!run_find(run, key, hash, &s->room, &bytes, &number)) {
            *ret_fault = run->scratch->fault;
            if (*ret_fault != SQL_FAULT_NONE)
                return false;
            continue;
        }
        *ret = revive(s, key, hash, bytes, ret_fault);
        run_drop(run, number);
        s->back++;
        if (!run->live)
            forget_run(s, run);
        return *ret;
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- merging */

static uint32_t count_level(const struct spill *s, unsigned level)
{
    uint32_t count = 0;
    for (const struct spill_run *run = s->runs; run; run = run->next)
        count += run->level == level;
    return count;
}

/* Takes a run out of the list that is to be written again with others: of the level, or (ALONE) that is mostly holes. */
#define ALONE UINT32_MAX
static struct spill_run *pick(struct spill *s, unsigned level)
{
    for (struct spill_run **link = &s->runs; *link; link = &(*link)->next) {
        struct spill_run *run = *link;
        if (level == ALONE ? run->live < run->count / 2 : run->level == level) {
            *link = run->next;
            return run;
        }
    }
    return NULL;
}

/* The cursor with the least hash; NULL: all are at their ends. */
static struct run_cursor *least(struct run_cursor *cursors, const bool *there, uint32_t count)
{
    struct run_cursor *found = NULL;
    for (uint32_t i = 0; i < count; i++)
        if (there[i] && (!found || cursors[i].head.hash < found->head.hash))
            found = &cursors[i];
    return found;
}

static bool merge_into(struct spill *s, struct run_writer *w, struct run_cursor *cursors, uint32_t count)
{
    bool there[FAN_IN];
    struct run_cursor *c;
    for (uint32_t i = 0; i < count; i++)
        there[i] = cursor_next(&cursors[i]);
    while ((c = least(cursors, there, count))) {
        bool over = s->kind->over && s->kind->over(s->op, c->head.until);
        if (!over && !run_add(w, &c->head, c->key, c->bytes))
            return false;
        there[c - cursors] = cursor_next(c);
    }
    for (uint32_t i = 0; i < count; i++)
        if (cursors[i].no_memory)
            return scratch_fail(scratch_of(s), SQL_FAULT_MEMORY);
    return scratch_of(s)->fault == SQL_FAULT_NONE;
}

/* These runs, which are in no list any more, become one. */
static bool merge(struct spill *s, struct spill_run **runs, uint32_t count, unsigned level)
{
    struct run_cursor cursors[FAN_IN] = {{0}};
    struct run_writer w;
    uint64_t live = 0;
    bool ok = true;
    for (uint32_t i = 0; i < count; i++) {
        live += runs[i]->live;
        ok = cursor_init(&cursors[i], runs[i], true) && ok;
    }
    if (!ok)
        (void)scratch_fail(scratch_of(s), SQL_FAULT_MEMORY);
    if (live > UINT32_MAX)
        ok = scratch_fail(scratch_of(s), SQL_FAULT_LIMIT);
    ok = ok && run_begin(&w, &s->op->account, scratch_of(s), (uint32_t)live);
    if (ok) {
        ok = merge_into(s, &w, cursors, count);
        struct spill_run *run = run_end(&w);
        if (run) {
            run->level = level;
            run->next = s->runs;
            s->runs = run;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        cursor_fini(&cursors[i]);
        run_free(&runs[i]);
    }
    return ok && scratch_of(s)->fault == SQL_FAULT_NONE;
}

static bool tidy(struct spill *s)
{
    struct spill_run *runs[FAN_IN];
    for (struct spill_run *run = s->runs, *next; run; run = next) {
        next = run->next;
        if (!run->live || (s->kind->over && s->kind->over(s->op, run->until)))
            forget_run(s, run);
    }
    for (unsigned level = 0; count_level(s, level); level++) {
        if (count_level(s, level) < FAN_IN)
            continue;
        for (uint32_t i = 0; i < FAN_IN; i++)
            runs[i] = pick(s, level);
        if (!merge(s, runs, FAN_IN, level + 1))
            return false;
    }
    while ((runs[0] = pick(s, ALONE)))
        if (!merge(s, runs, 1, runs[0]->level))
            return false;
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- leaving */

/* Bytes of one entry, or of all that stay. */
struct bytes {
    uint8_t *at;
    size_t len, room;
};

static bool bytes_put(void *arg, struct slice piece)
{
    struct bytes *b = arg;
    if (b->len + piece.len > b->room) {
        size_t room = 2 * b->room > b->len + piece.len ? 2 * b->room : b->len + piece.len;
        uint8_t *more = mem_realloc(b->at, room);
        if (!more)
            return false;
        b->at = more;
        b->room = room;
    }
    if (piece.len)
        memcpy(b->at + b->len, piece.ptr, piece.len);
    b->len += piece.len;
    return true;
}

struct leaving {
    struct run_writer run;
    struct state_writer state;
    struct bytes one, hot;
};

static bool leave_one(struct spill *s, struct leaving *l, struct entry *e)
{
    struct run_entry head = {.hash = e->hash, .until = {INT64_MAX, INT64_MAX}};
    l->one.len = 0;
    s->kind->save(s->op, e, &l->state, head.until);
    state_writer_flush(&l->state);
    if (l->state.failed)
        return scratch_fail(scratch_of(s), SQL_FAULT_MEMORY);
    struct slice key = entry_key(e), bytes = slice_of(l->one.at, l->one.len);
    bool hot = e->touched && l->hot.len + sizeof head + key.len + bytes.len <= HOT(s->op->account.budget->max);
    if (!hot)
        return run_add(&l->run, &head, key, bytes);
    head.key_len = (uint32_t)key.len;
    head.len = (uint32_t)bytes.len;
    return (bytes_put(&l->hot, slice_of(&head, sizeof head)) && bytes_put(&l->hot, key) && bytes_put(&l->hot, bytes)) ||
           scratch_fail(scratch_of(s), SQL_FAULT_MEMORY);
}

static bool bring_hot(struct spill *s, const struct bytes *hot)
{
    struct run_entry head;
    enum sql_fault fault;
    for (size_t at = 0; at < hot->len; at += sizeof head + head.key_len + head.len) {
        memcpy(&head, hot->at + at, sizeof head);
        const uint8_t *key = hot->at + at + sizeof head;
        if (!revive(s, slice_of(key, head.key_len), head.hash, slice_of(key + head.key_len, head.len), &fault))
            return scratch_fail(scratch_of(s), fault);
    }
    return true;
}

static int by_hash(const void *a, const void *b)
{
    const struct entry *const *x = a, *const *y = b;
    return ((*x)->hash > (*y)->hash) - ((*x)->hash < (*y)->hash);
}

/* NULL: no memory. */
static struct entry **sorted(const struct table *t)
{
    struct entry **all = mem_alloc(t->count * sizeof(struct entry *));
    uint32_t count = 0;
    if (!all)
        return NULL;
    for (struct entry *e = t->first; e; e = e->newer)
        all[count++] = e;
    qsort(all, count, sizeof *all, by_hash);
    return all;
}

static bool leave_all(struct spill *s, struct leaving *l, struct entry **all, uint32_t count)
{
    if (s->kind->leave)
        s->kind->leave(s->op);
    for (uint32_t i = 0; i < count; i++) {
        if (!leave_one(s, l, all[i]))
            return false;
        s->kind->drop(s->op, all[i]);
        table_remove(s->table, all[i]);
    }
    table_fini(s->table); /* empty: the places for entries go */
    s->out += count;
    return true;
}

static bool leave(struct spill *s)
{
    uint32_t count = s->table->count;
    struct leaving l = {0};
    struct entry **all = sorted(s->table);
    bool ok = all && state_writer_init(&l.state, bytes_put, &l.one);
    if (!ok) {
        mem_free(all);
        return scratch_fail(scratch_of(s), SQL_FAULT_MEMORY);
    }
    ok = run_begin(&l.run, &s->op->account, scratch_of(s), count);
    if (ok) {
        ok = leave_all(s, &l, all, count);
        struct spill_run *run = run_end(&l.run);
        if (run) {
            run->next = s->runs;
            s->runs = run;
        }
    }
    ok = ok && scratch_of(s)->fault == SQL_FAULT_NONE && bring_hot(s, &l.hot) && tidy(s);
    (void)!state_writer_end(&l.state);
    mem_free(all);
    mem_free(l.one.at);
    mem_free(l.hot.at);
    return ok;
}

bool spill_out(struct spill *s, enum sql_fault *ret_fault)
{
    bool ok = !s->table || !s->table->count || leave(s);
    if (!ok)
        *ret_fault = scratch_of(s)->fault;
    return ok;
}

/* What would be freed. */
static size_t weight_of(const struct spill *s)
{
    size_t index = 0;
    for (const struct spill_run *run = s->runs; run; run = run->next)
        index += run_memory(run);
    return s->table && s->table->count ? s->op->account.used - index : 0;
}

bool spill_relieve(struct budget *b, enum sql_fault *ret_fault)
{
    if (b->used <= FULL(b->max) || !b->scratch)
        return true;
    while (b->used > RELIEVED(b->max)) {
        struct spill *most = NULL;
        for (struct spill *s = b->spills; s; s = s->next)
            if (!most || weight_of(s) > weight_of(most))
                most = s;
        if (!most || weight_of(most) <= WORTH(b->max))
            return true;
        if (!spill_out(most, ret_fault))
            return false;
    }
    return true;
}

/* ----------------------------------------------------------------------------------------------------------- snapshots */

void spill_save(struct spill *s, struct state_writer *w)
{
    for (struct spill_run *run = s->runs; run && !w->failed; run = run->next) {
        struct run_cursor c;
        bool ok = cursor_init(&c, run, false);
        while (ok && cursor_next(&c)) {
            state_put_slice(w, c.key);
            state_put(w, c.bytes.ptr, c.bytes.len);
        }
        cursor_fini(&c);
        w->failed |= c.no_memory || scratch_of(s)->fault != SQL_FAULT_NONE;
    }
}
