/* Keeping rows and finding their partners, see op_join_int.h. What is let go in a step is freed at its end, since pairs that were not pushed yet
 * point at it. */
#include "sql/language/kernel.h"
#include "sql/query/op_join_int.h"

#define GONE_MIN 64u

/* ----------------------------------------------------------------------------------------------------------- keeping */

static void discard(struct join *j, struct kept *row)
{
    row->next = j->garbage;
    j->garbage = row;
}

void join_free_garbage(struct join *j)
{
    while (j->garbage) {
        struct kept *row = j->garbage;
        j->garbage = row->next;
        kept_give(&j->pieces, row);
    }
}

bool join_keep(struct join *j, unsigned side, struct kept *row, struct entry *e)
{
    struct side *s = &j->sides[side];
    struct chain *c = &chains_of(e)->of[side];
    if (row->end != INT64_MAX &&
        !due_add(&s->due, (struct due_item){.time = row->end, .number = row->number, .what = row}))
        return false;
    row->key = e;
    row->prev = c->last;
    row->next = NULL;
    *(c->last ? &c->last->next : &c->first) = row;
    c->last = row;
    return true;
}

static void unlink_row(unsigned side, struct kept *row)
{
    struct entry *e = row->key;
    struct chain *c = &chains_of(e)->of[side];
    *(row->prev ? &row->prev->next : &c->first) = row->next;
    *(row->next ? &row->next->prev : &c->last) = row->prev;
    row->key = NULL;
}

static void drop_empty(struct join *j, struct entry *e)
{
    if (e && !chains_of(e)->of[0].first && !chains_of(e)->of[1].first)
        table_remove(&j->table, e);
}

static bool collect_gone(void *arg, void *what)
{
    struct kept *row = what;
    if (row->gone)
        discard(arg, row);
    return row->gone;
}

/* Lets go of a row before its end. */
static void let_go(struct join *j, unsigned side, struct kept *row)
{
    struct side *s = &j->sides[side];
    unlink_row(side, row);
    if (row->end == INT64_MAX) {
        discard(j, row);
        return;
    }
    row->gone = true;
    if (++s->gone > GONE_MIN && s->gone > due_count(&s->due) / 2) {
        due_sweep(&s->due, collect_gone, j);
        s->gone = 0;
    }
}

/* The first that ends before the clock has. NULL: none does. */
static struct kept *ended(const struct side *s, int64_t clock)
{
    const struct due_item *first = due_first(&s->due);
    return first && first->time < clock ? first->what : NULL;
}

static void end_row(struct join *j, unsigned side, struct kept *row)
{
    due_drop(&j->sides[side].due);
    if (row->gone) {
        j->sides[side].gone--;
    } else {
        struct entry *e = row->key;
        unlink_row(side, row);
        drop_empty(j, e);
    }
    discard(j, row);
}

bool join_give_ended(struct join *j, struct step *step, uint32_t origin)
{
    for (;;) {
        struct kept *next = NULL;
        unsigned side = 0;
        uint32_t at = 0;
        for (unsigned s = 0; s < 2; s++) {
            struct kept *row = j->sides[s].waits ? ended(&j->sides[s], clock_of(&j->sides[s], origin)) : NULL;
            uint32_t own = row ? clock_origin(j->sides[s].rule->clock, step, row->end + 1) : 0;
            if (row && (!next || own < at)) {
                next = row;
                side = s;
                at = own;
            }
        }
        if (!next)
            return true;
        if (!next->gone && !next->matches && !join_give(j, step, side, next, NULL, at, 1))
            return false;
        end_row(j, side, next);
    }
}

void join_drop_ended(struct join *j, const struct step *step)
{
    for (unsigned s = 0; s < 2; s++) {
        int64_t clock = clock_of(&j->sides[s], step->rows);
        for (struct kept *row; (row = ended(&j->sides[s], clock));)
            end_row(j, s, row);
    }
}

/* ---------------------------------------------------------------------------------------------------------- matching */

static bool holds(enum join_op op, int order)
{
    switch (op) {
    case JOIN_EQ: return order == 0;
    case JOIN_NE: return order != 0;
    case JOIN_LT: return order < 0;
    case JOIN_LE: return order <= 0;
    case JOIN_GT: return order > 0;
    default: return order >= 0;
    }
}

#define ORDER(type) ((*(const type *)a > *(const type *)b) - (*(const type *)a < *(const type *)b))

static bool test(const struct join_test *t, const void *a, const void *b)
{
    switch (t->form) {
    case FORM_BOOL: return holds(t->op, ORDER(uint8_t));
    case FORM_I64: return holds(t->op, ORDER(int64_t));
    case FORM_I128: return holds(t->op, ORDER(decimal_t));
    default: return holds(t->op, text_compare(*(const struct slice *)a, *(const struct slice *)b));
    }
}

static bool passes(const struct join *j, const struct kept *left, const struct kept *right)
{
    const struct kept_layout *l = &j->sides[0].layout, *r = &j->sides[1].layout;
    for (uint32_t i = 0; i < j->rule->test_count; i++) {
        const struct join_test *t = &j->rule->tests[i];
        if (kept_null(left, t->left) || kept_null(right, t->right) ||
            !test(t, kept_value(l, left, t->left), kept_value(r, right, t->right)))
            return false;
    }
    return true;
}

/* A row and what is known of it while it is held against the other side. */
struct coming {
    unsigned side;
    struct kept *row;
    uint32_t origin;
    int weight;
};

/* A partner, `own` being kept, `c` having come or being taken back. */
static bool match(struct join *j, struct step *step, const struct coming *c, struct kept *own)
{
    const struct join_rule *r = j->rule;
    unsigned side = !c->side;
    bool counted = j->sides[side].rule->outer, outer = counted && !r->semi && !r->anti;
    bool first = counted && c->weight > 0 && own->matches++ == 0;
    bool last = counted && c->weight < 0 && own->matches && --own->matches == 0;
    if (r->semi || r->anti) {
        bool tells = r->semi || r->changes;
        if (tells && (first || last) && !join_give(j, step, side, own, NULL, c->origin, first == r->semi ? 1 : -1))
            return false;
        if (first && j->settles)
            let_go(j, side, own);
        return true;
    }
    if (outer && first && r->changes && !join_give(j, step, side, own, NULL, c->origin, -1))
        return false;
    if (!join_give(j, step, c->side, c->row, own, c->origin, c->weight))
        return false;
    return !(outer && last && r->changes) || join_give(j, step, side, own, NULL, c->origin, 1);
}

static bool match_all(struct join *j, struct step *step, const struct coming *c, struct entry *e, uint32_t *ret_matches)
{
    unsigned side = !c->side;
    int64_t clock = clock_of(&j->sides[side], c->origin);
    uint32_t matches = 0;
    for (struct kept *own = e ? chains_of(e)->of[side].first : NULL, *next; own; own = next) {
        next = own->next;
        if (own->end < clock || !passes(j, c->side ? own : c->row, c->side ? c->row : own))
            continue;
        matches++;
        if (!match(j, step, c, own))
            return false;
    }
    *ret_matches = matches;
    return true;
}

/* What a row of a side whose rows are given out without partners, too, tells about itself. */
static bool tell_own(struct join *j, struct step *step, const struct coming *c, uint32_t matches, bool waits)
{
    const struct join_rule *r = j->rule;
    bool alone = matches == 0;
    if (!j->sides[c->side].rule->outer || (r->semi ? alone : !alone || (waits && !r->changes)))
        return true;
    return join_give(j, step, c->side, c->row, NULL, c->origin, c->weight);
}

static struct kept *find_same(const struct side *s, struct entry *e, unsigned side, const struct kept *row)
{
    struct kept *own = e ? chains_of(e)->of[side].first : NULL;
    while (own && !((own->end == row->end || !s->rule->end_count) && kept_same(&s->layout, own, row)))
        own = own->next;
    return own;
}

bool join_handle(struct join *j, struct step *step, unsigned side, const struct taken *t, uint32_t i)
{
    struct side *s = &j->sides[side];
    struct coming c = {
        .side = side, .row = t->rows[i], .origin = t->origins[i], .weight = t->weights ? t->weights[i] : 1};
    bool keyed = t->keys[i].ptr != NULL;
    struct entry *e = NULL;
    enum sql_fault fault;
    if (keyed && !spill_find(&j->spill, t->keys[i], t->hashes[i], &e, &fault))
        return op_fail(step, fault);
    struct kept *old = c.weight < 0 ? find_same(s, e, side, c.row) : NULL;
    bool stays = c.weight < 0 ? old != NULL : keyed && c.row->end >= clock_of(s, c.origin);
    uint32_t matches = 0;
    bool asks = !j->rule->lookup || side == 0;
    stays &= !j->rule->lookup || side == 1;
    if (asks && !match_all(j, step, &c, e, &matches))
        return false;
    if (!tell_own(j, step, &c, matches, stays))
        return false;
    if (c.weight > 0 && stays && !(j->settles && side == 0 && matches)) {
        if (!e && !(e = table_add(&j->table, t->keys[i], t->hashes[i])))
            return op_fail(step, SQL_FAULT_MEMORY);
        c.row->matches = matches;
        c.row->number = j->number++;
        return join_keep(j, side, c.row, e) || op_fail(step, SQL_FAULT_MEMORY);
    }
    if (old)
        let_go(j, side, old);
    discard(j, c.row);
    drop_empty(j, e);
    return true;
}
