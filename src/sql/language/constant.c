/* Values of statements and of answers, see constant.h. */
#include "sql/language/constant.h"

#include "sql/language/bind.h"

#include <math.h>

bool constant_value(const struct constants *c, const struct ast *node, const struct sql_type *type, struct column *ret,
                    struct sql_error *error)
{
    static const struct scope none = {0};
    struct expr *x = sql_bind_as(node, type, &none, c->arena, error);
    struct eval e = eval_begin(c->batch, NULL, 0, 1);
    e.now_us = c->now_us;
    const struct column *value = x ? eval_expr(&e, x, (struct sel){.count = 1}) : NULL;
    if (x && !value)
        sql_error_set(error, SQL_FAULT_MEMORY, node->at, node->len, "no memory for a value");
    if (value && e.fault_count)
        sql_error_set(error, (enum sql_fault)e.faults[0], node->at, node->len, "%s",
                      sql_fault_text((enum sql_fault)e.faults[0]));
    if (!value || e.fault_count)
        return false;
    *ret = *value;
    return true;
}

bool constant_say(struct lines *l, struct eval *e, const struct sql_type *type, const struct column *c, uint32_t row)
{
    struct slice text;
    if (column_null(c, row)) {
        lines_text(l, "null");
        return true;
    }
    if (c->form == FORM_BOOL) {
        lines_text(l, ((const uint8_t *)c->values)[row & column_mask(c)] ? "true" : "false");
        return true;
    }
    if (!eval_text(e, type, c, row, &text))
        return false;
    bool number = type_is_number(type->kind) &&
                  (c->form != FORM_F64 || isfinite(((const double *)c->values)[row & column_mask(c)]));
    if (!number && !type_is_json(type->kind)) {
        lines_string(l, text);
        return true;
    }
    uint8_t *at = lines_room(l, text.len);
    for (size_t i = 0; at && i < text.len; i++) /* JSON has line ends between its tokens only */
        at[i] = text.ptr[i] == '\n' || text.ptr[i] == '\r' ? ' ' : text.ptr[i];
    return true;
}
