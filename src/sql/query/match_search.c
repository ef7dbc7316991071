/* The search for a match that begins with a row, see op_match.h: a program is run over the rows, what it prefers first, and gone back in when nothing came
 * of it. When it needs a row that has not come it stays as it is, so each row costs what is new with it. */
#include "sql/query/op_match_int.h"

#define ROOM_FIRST 1u /* most partitions have one row that waits for another */
#define ROOM_KEPT 64u /* more is given back when a search is over */

/* ------------------------------------------------------------------------------------------------------------- frames */

static uint32_t *first_frame(struct part *p, uint32_t variable)
{
    return &p->ends[2 * variable];
}

static uint32_t *last_frame(struct part *p, uint32_t variable)
{
    return &p->ends[2 * variable + 1];
}

/* An array of twice the room, with what is in it. NULL: no memory. */
static void *grown(struct match *m, void *from, uint32_t room, uint32_t more, size_t size)
{
    void *to = more ? pieces_take(&m->pieces, more * size) : NULL;
    if (to && room)
        memcpy(to, from, room * size);
    if (to && room)
        pieces_give(&m->pieces, from, room * size);
    return to;
}

static const uint64_t null_bit = 1; /* of a column of one value */

static void set_column(const struct match *m, struct column *c, const struct kept *row, uint32_t kept)
{
    bool there = row && !kept_null(row, kept);
    c->nulls = there ? NULL : (uint64_t *)(uintptr_t)&null_bit;
    if (there)
        c->values = (void *)(uintptr_t)kept_value(&m->layout, row, kept);
}

/* What all rows before have come to, and this one. */
static bool add_cells(struct match *m, struct step *step, struct part *p, const struct kept *row, uint32_t variable)
{
    const struct match_rule *rule = m->rule;
    struct cell *cells = match_frame(m, p, p->depth)->cells;
    memset(cells, 0, rule->aggregate_count * sizeof *cells);
    if (p->depth && !aggregates_merge(rule->aggregates, rule->aggregate_count, &m->op.account, cells,
                                      match_frame(m, p, p->depth - 1)->cells))
        return op_fail(step, SQL_FAULT_MEMORY);
    for (uint32_t i = 0; i < rule->aggregate_count; i++) {
        const struct aggregate *a = &rule->aggregates[i];
        enum sql_fault fault;
        if (rule->aggregate_of[i] != MATCH_ANY && rule->aggregate_of[i] != variable)
            continue;
        if (a->kind != AGG_COUNT_ALL)
            set_column(m, &m->values[a->column], row, a->column);
        if (a->filter != NO_FILTER)
            set_column(m, &m->values[a->filter], row, a->filter);
        if (!aggregates_add(a, 1, &m->op.account, &cells[i], m->values, 0, 1, &fault))
            return op_fail(step, fault);
    }
    return true;
}

static void pop(struct match *m, struct part *p)
{
    struct frame *f = match_frame(m, p, --p->depth);
    *last_frame(p, f->variable) = f->before;
    if (!f->before)
        *first_frame(p, f->variable) = 0;
    aggregates_fini(m->rule->aggregates, m->rule->aggregate_count, &m->op.account, f->cells);
}

static bool take(struct match *m, struct step *step, struct part *p, struct kept *row, uint32_t variable)
{
    uint32_t more = p->frame_room ? 2 * p->frame_room : ROOM_FIRST;
    if (p->depth == p->frame_room) {
        uint8_t *frames = grown(m, p->frames, p->frame_room, more, m->frame_len);
        if (!frames)
            return op_fail(step, SQL_FAULT_MEMORY);
        p->frames = frames;
        p->frame_room = more;
    }
    struct frame *f = match_frame(m, p, p->depth);
    uint32_t *last = last_frame(p, variable);
    bool ok = add_cells(m, step, p, row, variable);
    *f = (struct frame){.row = row, .variable = variable, .before = *last};
    *last = ++p->depth;
    if (f->before)
        match_frame(m, p, f->before - 1)->after = p->depth;
    else
        *first_frame(p, variable) = p->depth;
    return ok; /* what is of it has to be given back in any case */
}

void match_restart(struct match *m, struct part *p, bool all)
{
    while (p->depth)
        pop(m, p);
    p->pc = p->choice_count = 0;
    if (p->frame_room && (all || p->frame_room > ROOM_KEPT)) {
        pieces_give(&m->pieces, p->frames, p->frame_room * m->frame_len);
        p->frames = NULL;
        p->frame_room = 0;
    }
    if (p->choice_room && (all || p->choice_room > ROOM_KEPT)) {
        pieces_give(&m->pieces, p->choices, p->choice_room * sizeof *p->choices);
        p->choices = NULL;
        p->choice_room = 0;
    }
}

/* ------------------------------------------------------------------------------------------------------------- values */

static const struct kept *row_of(const struct match *m, const struct part *p, const struct match_lookup *l)
{
    uint32_t at, offset = l->offset;
    if (l->variable == MATCH_ANY) {
        if (offset >= p->depth)
            return NULL;
        at = l->from == MATCH_FIRST ? 1 + offset : p->depth - offset;
    } else {
        at = p->ends[2 * l->variable + (l->from == MATCH_LAST)];
        uint32_t last = p->ends[2 * l->variable + 1];
        for (; at && offset; offset--) {
            if (l->from == MATCH_LAST)
                at = match_frame(m, p, at - 1)->before;
            else
                at = at == last ? 0 : match_frame(m, p, at - 1)->after;
        }
    }
    const struct kept *row = at ? match_frame(m, p, at - 1)->row : NULL;
    for (uint32_t i = 0; row && i < l->back; i++)
        row = row->prev;
    return row;
}

static bool set_aggregate(struct match *m, const struct part *p, uint32_t lookup, enum sql_fault *ret_fault)
{
    uint32_t which = m->rule->lookups[lookup].offset;
    struct column *c = &m->lookups[lookup];
    const void *value = aggregate_value(&m->rule->aggregates[which], &match_frame(m, p, p->depth - 1)->cells[which],
                                        &m->room[lookup], ret_fault);
    c->values = &m->room[lookup];
    c->nulls = value ? NULL : (uint64_t *)(uintptr_t)&null_bit;
    return *ret_fault == SQL_FAULT_NONE;
}

bool match_compute(struct match *m, struct step *step, const struct part *p, const struct match_value *value,
                   const struct column **ret, enum sql_fault *ret_fault)
{
    const struct match_rule *rule = m->rule;
    *ret_fault = SQL_FAULT_NONE;
    for (uint32_t i = 0; i < value->count; i++) {
        uint32_t l = value->lookups[i];
        if (rule->lookups[l].from != MATCH_AGGREGATE)
            set_column(m, &m->lookups[l], row_of(m, p, &rule->lookups[l]), rule->lookups[l].kept);
        else if (!set_aggregate(m, p, l, ret_fault))
            return true;
    }
    struct eval e = eval_begin(&m->once, m->lookups, rule->lookup_count, 1);
    e.regexes = m->regexes;
    *ret = eval_expr(&e, value->x, (struct sel){.count = 1});
    if (!*ret)
        return op_fail(step, SQL_FAULT_MEMORY);
    if (e.fault_count)
        *ret_fault = (enum sql_fault)e.faults[0];
    return true;
}

/* ----------------------------------------------------------------------------------------------------------- the search */

/* A condition that cannot be computed is not met; of those that a row or an end brought about one is told. */
static void tell(struct match *m, struct step *step, uint32_t origin, const struct part *p, enum sql_fault fault)
{
    if (p->heard || m->told)
        return;
    m->told = true;
    m->op.faults++;
    if (step->divert)
        step->divert(step->divert_arg, origin, fault);
}

/* Whether the row is one of that variable; then it is taken. */
static bool try_row(struct match *m, struct step *step, uint32_t origin, struct part *p, struct kept *row,
                    uint32_t variable, bool *ret)
{
    const struct match_condition *c = &m->rule->conditions[variable];
    *ret = false;
    if (!p->heard && --m->credit < 0)
        return op_fail(step, SQL_FAULT_STEPS);
    if (c->of_row && (kept_null(row, c->kept) || !*(const uint8_t *)kept_value(&m->layout, row, c->kept)))
        return true;
    if (!take(m, step, p, row, variable))
        return false;
    *ret = c->always || c->of_row;
    if (*ret)
        return true;
    const struct column *got = NULL;
    enum sql_fault fault;
    bool ok = match_compute(m, step, p, &c->value, &got, &fault);
    *ret = ok && fault == SQL_FAULT_NONE && !column_null(got, 0) && *(const uint8_t *)got->values;
    if (ok && fault != SQL_FAULT_NONE)
        tell(m, step, origin, p, fault);
    arena_recycle(&m->once);
    if (!*ret)
        pop(m, p);
    return ok;
}

static bool choose(struct match *m, struct step *step, struct part *p, uint32_t later)
{
    if (p->choice_count == p->choice_room) {
        uint32_t more = p->choice_room ? 2 * p->choice_room : ROOM_FIRST;
        struct choice *choices = grown(m, p->choices, p->choice_room, more, sizeof *choices);
        if (!choices)
            return op_fail(step, SQL_FAULT_MEMORY);
        p->choices = choices;
        p->choice_room = more;
    }
    p->choices[p->choice_count++] = (struct choice){.pc = later, .depth = p->depth};
    return true;
}

/* To what was to be tried if this came to nothing. False: there is nothing. */
static bool go_back(struct match *m, struct part *p)
{
    if (!p->choice_count)
        return false;
    struct choice c = p->choices[--p->choice_count];
    while (p->depth > c.depth)
        pop(m, p);
    p->pc = c.pc;
    return true;
}

/* The row behind those that have been taken. NULL: it has not come. */
static struct kept *next_row(const struct match *m, struct part *p)
{
    struct kept *last = p->depth ? match_frame(m, p, p->depth - 1)->row : NULL;
    if (p->heard && last == p->heard)
        p->heard = NULL;
    return last ? last->next : p->start;
}

enum match_found match_search(struct match *m, struct step *step, uint32_t origin, struct part *p, bool ended)
{
    for (;;) {
        const struct match_code *code = &m->rule->code[p->pc];
        struct kept *row;
        bool is = false;
        switch (code->op) {
        case MATCH_TAKE:
            row = next_row(m, p);
            if (!row && !ended)
                return MATCH_WAITS;
            if (row && !try_row(m, step, origin, p, row, code->to, &is))
                return MATCH_FAILED;
            if (is)
                p->pc++;
            else if (!go_back(m, p))
                return MATCH_NONE;
            break;
        case MATCH_SPLIT:
            if (!choose(m, step, p, code->other))
                return MATCH_FAILED;
            p->pc = code->to;
            break;
        case MATCH_JUMP: p->pc = code->to; break;
        case MATCH_END:
            if (p->depth)
                return MATCH_IS;
            if (!go_back(m, p)) /* no pattern is met by nothing: bytes that were loaded say so */
                return MATCH_NONE;
            break;
        }
    }
}

/* --------------------------------------------------------------------------------------------------------- snapshots */

uint64_t match_program(const struct match_rule *rule)
{
    return key_hash(slice_of(rule->code, rule->code_count * sizeof *rule->code), rule->variables);
}

void match_search_save(const struct match *m, const struct part *p, struct state_writer *w)
{
    bool stands = p->start && !p->heard && p->depth && match_frame(m, p, p->depth - 1)->row == p->last;
    state_put_varint(w, stands);
    if (!stands)
        return;
    for (uint32_t i = 0; i < p->depth; i++)
        state_put_varint(w, match_frame(m, p, i)->variable);
    state_put_varint(w, p->pc);
    state_put_varint(w, p->choice_count);
    for (uint32_t i = 0; i < p->choice_count; i++) {
        state_put_varint(w, p->choices[i].pc);
        state_put_varint(w, p->choices[i].depth);
    }
}

/* The rows from the start on, each taken for a variable. */
static bool load_frames(struct match *m, struct step *step, struct part *p, bool same, struct state_reader *r)
{
    for (struct kept *row = p->start; row && !r->failed; row = row->next) {
        uint64_t variable = state_get_varint(r);
        r->failed |= same && variable >= m->rule->variables;
        if (same && !r->failed && !take(m, step, p, row, (uint32_t)variable))
            return false;
    }
    return !r->failed;
}

static bool load_choices(struct match *m, struct step *step, struct part *p, bool same, struct state_reader *r)
{
    uint64_t count = state_get_varint(r);
    uint32_t before = 0;
    for (uint64_t i = 0; i < count && !r->failed; i++) {
        uint64_t pc = state_get_varint(r), depth = state_get_varint(r);
        r->failed |= same && (pc >= m->rule->code_count || depth < before || depth > p->depth);
        if (!same || r->failed)
            continue;
        if (!choose(m, step, p, (uint32_t)pc))
            return false;
        p->choices[p->choice_count - 1].depth = before = (uint32_t)depth;
    }
    return !r->failed;
}

bool match_search_load(struct match *m, struct part *p, bool same, struct state_reader *r)
{
    struct step step = {.rows = 1};
    bool stands = state_get_varint(r) != 0;
    if (!stands)
        return !r->failed;
    r->failed |= !p->start;
    if (!load_frames(m, &step, p, same, r)) {
        r->failed |= step.fault != SQL_FAULT_NONE && step.fault != SQL_FAULT_MEMORY;
        return false;
    }
    uint64_t pc = state_get_varint(r);
    r->failed |= same && (pc >= m->rule->code_count || m->rule->code[pc].op != MATCH_TAKE);
    if (!load_choices(m, &step, p, same, r))
        return false;
    if (same) {
        p->pc = (uint32_t)pc;
        p->heard = NULL;
    }
    return true;
}
