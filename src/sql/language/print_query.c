/* Queries, and what stands behind FROM, as text. */
#include "sql/language/print_int.h"

static void put_alias(struct writer *out, struct slice alias, const struct ast_names *columns)
{
    if (!alias.ptr)
        return;
    put(out, " AS ");
    put_name(out, alias);
    if (columns->count) {
        put(out, "(");
        put_names(out, columns, ", ");
        put(out, ")");
    }
}

static void put_clause(struct writer *out, const char *word, const struct ast *node)
{
    if (!node)
        return;
    put(out, word);
    put_expr(out, node, POWER_LOWEST);
}

static void put_clauses(struct writer *out, const char *word, const struct ast_list *list)
{
    if (!list->count)
        return;
    put(out, word);
    put_list(out, list);
}

void put_order(struct writer *out, const struct ast_list *list)
{
    put_clauses(out, " ORDER BY ", list);
}

void put_row(struct writer *out, const struct ast *node)
{
    put(out, "(");
    put_list(out, &AST_AS(row, node)->items);
    put(out, ")");
}

static void put_bound(struct writer *out, const struct ast *node)
{
    static const char *const texts[] = {[BOUND_ALL_BEFORE] = "UNBOUNDED PRECEDING",
                                        [BOUND_BEFORE] = " PRECEDING",
                                        [BOUND_CURRENT] = "CURRENT ROW",
                                        [BOUND_AFTER] = " FOLLOWING",
                                        [BOUND_ALL_AFTER] = "UNBOUNDED FOLLOWING"};
    const struct ast_bound *n = AST_AS(bound, node);
    if (n->expr)
        put_expr(out, n->expr, POWER_LOWEST);
    put(out, texts[n->kind]);
}

void put_window(struct writer *out, const struct ast *node)
{
    static const char *const units[] = {[FRAME_ROWS] = "ROWS ", [FRAME_RANGE] = "RANGE ", [FRAME_GROUPS] = "GROUPS "};
    const struct ast_window *n = AST_AS(window, node);
    if (n->bare) {
        put_name(out, n->base);
        return;
    }
    put(out, "(");
    if (n->base.ptr)
        put_name(out, n->base);
    bool before = n->base.ptr;
    put_clauses(out, before ? " PARTITION BY " : "PARTITION BY ", &n->partition);
    before |= n->partition.count > 0;
    put_clauses(out, before ? " ORDER BY " : "ORDER BY ", &n->order);
    before |= n->order.count > 0;
    if (n->unit != FRAME_NONE) {
        put(out, before ? " " : "");
        put(out, units[n->unit]);
        put(out, n->end ? "BETWEEN " : "");
        put_bound(out, n->start);
        if (n->end) {
            put(out, " AND ");
            put_bound(out, n->end);
        }
    }
    put(out, ")");
}

static void put_item(struct writer *out, const struct ast_item *n)
{
    put_expr(out, n->expr, POWER_LOWEST);
    if (n->alias.ptr) {
        put(out, " AS ");
        put_name(out, n->alias);
    }
}

static void put_order_item(struct writer *out, const struct ast_order *n)
{
    put_expr(out, n->expr, POWER_LOWEST);
    put(out, n->descending ? " DESC" : "");
    if (n->nulls != ORDER_NULLS_DEFAULT)
        put(out, n->nulls == ORDER_NULLS_FIRST ? " NULLS FIRST" : " NULLS LAST");
}

static void put_select(struct writer *out, const struct ast_select *n)
{
    put(out, n->distinct ? "SELECT DISTINCT " : "SELECT ");
    if (n->distinct_on.count) {
        put(out, "ON (");
        put_list(out, &n->distinct_on);
        put(out, ") ");
    }
    put_list(out, &n->items);
    put_clause(out, " FROM ", n->from);
    put_clause(out, " WHERE ", n->where);
    put_clauses(out, " GROUP BY ", &n->group);
    put_clause(out, " HAVING ", n->having);
    put_clauses(out, " WINDOW ", &n->windows);
    put_clause(out, " QUALIFY ", n->qualify);
}

static void put_values(struct writer *out, const struct ast_values *n)
{
    put(out, "VALUES ");
    for (size_t i = 0; i < n->rows.count; i++) {
        put(out, i ? ", " : "");
        put_row(out, n->rows.at[i]);
    }
}

static int setop_power(const struct ast *node)
{
    return AST_AS(setop, node)->what == SETOP_INTERSECT ? 2 : 1;
}

static void put_body(struct writer *out, const struct ast *node, int least)
{
    bool parens = node->kind == AST_QUERY || (node->kind == AST_SETOP && setop_power(node) < least);
    put(out, parens ? "(" : "");
    (void)print_query(out, node);
    put(out, parens ? ")" : "");
}

static void put_setop(struct writer *out, const struct ast_setop *n)
{
    static const char *const texts[] = {
        [SETOP_UNION] = " UNION ", [SETOP_EXCEPT] = " EXCEPT ", [SETOP_INTERSECT] = " INTERSECT "};
    int power = setop_power(&n->ast);
    put_body(out, n->left, power);
    put(out, texts[n->what]);
    put(out, n->all ? "ALL " : "");
    put_body(out, n->right, power + 1);
}

static void put_cte(struct writer *out, const struct ast_cte *n)
{
    put_name(out, n->name);
    if (n->columns.count) {
        put(out, "(");
        put_names(out, &n->columns, ", ");
        put(out, ")");
    }
    put(out, " AS (");
    put_query(out, n->query);
    put(out, ")");
}

void put_query(struct writer *out, const struct ast *node)
{
    const struct ast_query *n = AST_AS(query, node);
    put_clauses(out, n->recursive ? "WITH RECURSIVE " : "WITH ", &n->ctes);
    put(out, n->ctes.count ? " " : "");
    put_body(out, n->body, 0);
    put_order(out, &n->order);
    put_clause(out, " LIMIT ", n->limit);
    put_clause(out, " OFFSET ", n->offset);
}

static void put_grouping(struct writer *out, const struct ast_grouping *n)
{
    static const char *const texts[] = {
        [GROUPING_SETS] = "GROUPING SETS (", [GROUPING_ROLLUP] = "ROLLUP (", [GROUPING_CUBE] = "CUBE ("};
    put(out, texts[n->what]);
    put_list(out, &n->items);
    put(out, ")");
}

/* ------------------------------------------------------------------------------------------------------------- FROM */

static void put_relation(struct writer *out, const struct ast_relation *n)
{
    put_names(out, &n->name, ".");
    if (n->as_of) {
        put(out, " FOR SYSTEM_TIME AS OF ");
        put_expr(out, n->as_of, POWER_BETWEEN + 1);
    }
    put_alias(out, n->alias, &n->columns);
}

static void put_derived(struct writer *out, const struct ast_derived *n)
{
    put(out, n->lateral ? "LATERAL (" : "(");
    put_query(out, n->query);
    put(out, ")");
    put_alias(out, n->alias, &n->columns);
}

static void put_windowed(struct writer *out, const struct ast_windowed *n)
{
    bool long_form = n->partition.count > 0;
    put(out, ast_windowed_text((enum ast_windowed_kind)n->what));
    put(out, long_form ? "(TABLE " : "(");
    sql_print(n->source, out);
    if (long_form) {
        put_clauses(out, " PARTITION BY (", &n->partition);
        put(out, "), DESCRIPTOR(");
    } else {
        put(out, ", ");
    }
    put_name(out, n->column);
    put(out, long_form ? "), " : ", ");
    put_list(out, &n->args);
    put(out, ")");
    put_alias(out, n->alias, &n->columns);
}

static void put_unnest(struct writer *out, const struct ast_unnest *n)
{
    put(out, n->lateral ? "LATERAL UNNEST(" : "UNNEST(");
    put_expr(out, n->expr, POWER_LOWEST);
    put(out, n->ordinality ? ") WITH ORDINALITY" : ")");
    put_alias(out, n->alias, &n->columns);
}

static void put_joined(struct writer *out, const struct ast *node, bool parens)
{
    parens = parens && node->kind == AST_JOIN;
    put(out, parens ? "(" : "");
    sql_print(node, out);
    put(out, parens ? ")" : "");
}

static void put_join(struct writer *out, const struct ast_join *n)
{
    static const char *const texts[JOIN_KINDS] = {
        [JOIN_INNER] = " JOIN ",     [JOIN_LEFT] = " LEFT JOIN ",   [JOIN_RIGHT] = " RIGHT JOIN ",
        [JOIN_FULL] = " FULL JOIN ", [JOIN_CROSS] = " CROSS JOIN ", [JOIN_SEMI] = " SEMI JOIN ",
        [JOIN_ANTI] = " ANTI JOIN ", [JOIN_ASOF] = " ASOF JOIN ",   [JOIN_LEFT_ASOF] = " LEFT ASOF JOIN ",
        [JOIN_COMMA] = ", "};
    put_joined(out, n->left, false);
    put(out, texts[n->kind]);
    put_joined(out, n->right, n->kind != JOIN_COMMA);
    put_clause(out, " ON ", n->on);
    if (n->using.count) {
        put(out, " USING (");
        put_names(out, &n->using, ", ");
        put(out, ")");
    }
    if (n->before) {
        put(out, n->after ? " WITHIN (" : " WITHIN ");
        put_expr(out, n->before, n->after ? POWER_LOWEST : POWER_BETWEEN + 1);
        put_clause(out, ", ", n->after);
        put(out, n->after ? ")" : "");
    }
}

static void put_repeat(struct writer *out, const struct ast_pattern_repeat *n)
{
    bool parens = n->item->kind != AST_PATTERN_VAR;
    put(out, parens ? "(" : "");
    sql_print(n->item, out);
    put(out, parens ? ")" : "");
    if (n->most < 0 && n->least < 2) {
        put(out, n->least ? "+" : "*");
    } else if (n->least == 0 && n->most == 1) {
        put(out, "?");
    } else {
        put(out, "{");
        put_number(out, n->least);
        put(out, ",");
        if (n->most >= 0)
            put_number(out, n->most);
        put(out, "}");
    }
    put(out, n->reluctant ? "?" : "");
}

/* Parts of a sequence or of alternatives: what is itself one of those stands in parentheses. */
static void put_pattern_items(struct writer *out, const struct ast_list *items, const char *between, bool alternatives)
{
    for (size_t i = 0; i < items->count; i++) {
        unsigned kind = items->at[i]->kind;
        bool parens = kind == AST_PATTERN_ALT || (!alternatives && kind == AST_PATTERN_SEQ);
        put(out, i ? between : "");
        put(out, parens ? "(" : "");
        sql_print(items->at[i], out);
        put(out, parens ? ")" : "");
    }
}

static void put_skip(struct writer *out, const struct ast_match *n)
{
    static const char *const texts[] = {[SKIP_PAST_LAST] = "PAST LAST ROW",
                                        [SKIP_NEXT_ROW] = "TO NEXT ROW",
                                        [SKIP_TO_FIRST] = "TO FIRST ",
                                        [SKIP_TO_LAST] = "TO LAST "};
    if (n->skip == SKIP_DEFAULT)
        return;
    put(out, " AFTER MATCH SKIP ");
    put(out, texts[n->skip]);
    if (n->skip_to.ptr)
        put_name(out, n->skip_to);
}

static void put_match(struct writer *out, const struct ast_match *n)
{
    put_joined(out, n->source, true);
    put(out, " MATCH_RECOGNIZE (");
    put_clauses(out, "PARTITION BY ", &n->partition);
    put_clauses(out, n->partition.count ? " ORDER BY " : "ORDER BY ", &n->order);
    put_clauses(out, " MEASURES ", &n->measures);
    put(out, n->all_rows ? " ALL ROWS PER MATCH" : "");
    put_skip(out, n);
    put(out, " PATTERN (");
    sql_print(n->pattern, out);
    put(out, ")");
    put_clause(out, " WITHIN ", n->within);
    put_clauses(out, " SUBSET ", &n->subsets);
    put_clauses(out, " DEFINE ", &n->defines);
    put(out, ")");
    put_alias(out, n->alias, &n->columns);
}

static bool print_pattern(struct writer *out, const struct ast *node)
{
    switch (node->kind) {
    case AST_PATTERN_ALT: put_pattern_items(out, &AST_AS(pattern_alt, node)->items, " | ", true); break;
    case AST_PATTERN_SEQ: put_pattern_items(out, &AST_AS(pattern_seq, node)->items, " ", false); break;
    case AST_PATTERN_VAR: put_name(out, AST_AS(pattern_var, node)->name); break;
    case AST_PATTERN_REPEAT: put_repeat(out, AST_AS(pattern_repeat, node)); break;
    case AST_SUBSET:
        put_name(out, AST_AS(subset, node)->name);
        put(out, " = (");
        put_names(out, &AST_AS(subset, node)->members, ", ");
        put(out, ")");
        break;
    case AST_DEFINE:
        put_name(out, AST_AS(define, node)->name);
        put_clause(out, " AS ", AST_AS(define, node)->condition);
        break;
    default: return false;
    }
    return true;
}

bool print_query(struct writer *out, const struct ast *node)
{
    switch (node->kind) {
    case AST_QUERY: put_query(out, node); break;
    case AST_CTE: put_cte(out, AST_AS(cte, node)); break;
    case AST_SETOP: put_setop(out, AST_AS(setop, node)); break;
    case AST_SELECT: put_select(out, AST_AS(select, node)); break;
    case AST_VALUES: put_values(out, AST_AS(values, node)); break;
    case AST_ITEM: put_item(out, AST_AS(item, node)); break;
    case AST_ORDER: put_order_item(out, AST_AS(order, node)); break;
    case AST_GROUPING: put_grouping(out, AST_AS(grouping, node)); break;
    case AST_WINDOW: put_window(out, node); break;
    case AST_BOUND: put_bound(out, node); break;
    case AST_NAMED_WINDOW:
        put_name(out, AST_AS(named_window, node)->name);
        put(out, " AS ");
        put_window(out, AST_AS(named_window, node)->window);
        break;
    case AST_RELATION: put_relation(out, AST_AS(relation, node)); break;
    case AST_DERIVED: put_derived(out, AST_AS(derived, node)); break;
    case AST_WINDOWED: put_windowed(out, AST_AS(windowed, node)); break;
    case AST_UNNEST: put_unnest(out, AST_AS(unnest, node)); break;
    case AST_JOIN: put_join(out, AST_AS(join, node)); break;
    case AST_MATCH: put_match(out, AST_AS(match, node)); break;
    default: return print_pattern(out, node);
    }
    return true;
}
