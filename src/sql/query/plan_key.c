/* Which columns of a query tell its rows apart: the keys of GROUP BY, with the window's end where there are windows, all of DISTINCT, a table's key,
 * what the first row of each is of: DISTINCT ON, ROW_NUMBER() = 1. */
#include "sql/query/plan_int.h"

static bool add_key(struct plan *plan, struct expr *const *items, uint32_t count, uint32_t column)
{
    for (uint32_t i = 0; i < count; i++)
        if (items[i]->op == EXPR_COLUMN && items[i]->column == column) {
            plan->keys[plan->key_count++] = i;
            return true;
        }
    return false;
}

static bool of_table(struct plan *plan, const struct joining *j, struct expr *const *items, uint32_t count)
{
    bool all = j->latest && j->key_count <= PLAN_KEYS_MAX;
    for (uint32_t k = 0; all && k < j->key_count; k++) {
        uint32_t c = 0;
        while (c < j->out_count && j->outs[c].inner != j->keys[k][0])
            c++;
        all = c < j->out_count && add_key(plan, items, count, c);
    }
    return all;
}

/* One row of each partition, whose columns may be among those that the node has passed on. */
static bool of_first(struct plan *plan, const struct node *n, struct expr *const *items, uint32_t count)
{
    bool all = n->rank->rule.limit == 1 && n->rank->rule.ranking == RANKING_ROW && n->keys <= PLAN_KEYS_MAX;
    for (uint32_t k = 0; all && k < n->keys; k++) {
        const struct expr *key = n->items[k];
        uint32_t i = n->pass_from;
        while (i < n->item_count &&
               !(key->op == EXPR_COLUMN && n->items[i]->op == EXPR_COLUMN && n->items[i]->column == key->column))
            i++;
        all = i < n->item_count && add_key(plan, items, count, n->passed[i - n->pass_from]->column);
    }
    return all;
}

/* There is one row. What counts is never NULL, as all else is of nothing; without it no column is a key of every row. */
static void of_all(struct plan *plan, const struct node *n, struct expr *const *items, uint32_t count)
{
    for (uint32_t k = 0; k < n->aggregate_count && plan->key_count < PLAN_KEYS_MAX; k++)
        if (n->aggregates[k].kind == AGG_COUNT || n->aggregates[k].kind == AGG_COUNT_ALL)
            (void)add_key(plan, items, count, k);
    plan->keyed = true;
}

void plan_key(struct plan *plan, const struct node *n, struct expr *const *items, uint32_t count)
{
    plan->key_count = 0;
    if (n->source || n->unite || n->frame || n->match)
        return;
    if (n->rank) {
        plan->keyed = of_first(plan, n, items, count);
        return;
    }
    if (n->join) {
        plan->keyed = of_table(plan, n->join, items, count);
        return;
    }
    bool windowed = n->rule.kind >= SPAN_TUMBLE;
    if (!n->keys && !windowed) {
        of_all(plan, n, items, count);
        return;
    }
    bool all = n->keys + windowed <= PLAN_KEYS_MAX;
    for (uint32_t k = 0; all && k < n->keys; k++)
        all = add_key(plan, items, count, k);
    plan->keyed =
        all && (!windowed || add_key(plan, items, count, n->keys + 1)); /* no two windows of a key end together */
}
