/* bind_int: what the files of the binder share. A function that answers NULL has set the error. */
#ifndef MILLRACE_SQL_LANGUAGE_BIND_INT_H
#define MILLRACE_SQL_LANGUAGE_BIND_INT_H

#include "sql/language/bind.h"
#include "sql/language/function.h"
#include "sql/language/kernel.h"

struct binder {
    const struct scope *scope;
    struct arena *arena;
    struct sql_error *error;
};

/* bind.c */
struct expr *bind_node(struct binder *b, const struct ast *node);
struct expr *bind_bool(struct binder *b, const struct ast *node);

/* bind_expr.c: making expressions */
struct expr *expr_new(struct binder *b, enum expr_op op, const struct ast *place, uint32_t count);
struct expr *expr_const(struct binder *b, const struct ast *place, struct sql_type type, const void *value);
struct expr *expr_null(struct binder *b, const struct ast *place, struct sql_type type);
struct expr *expr_text(struct binder *b, const struct ast *place, struct slice text, enum sql_type_kind kind);
/* Computes what is constant. NULL passes through. */
struct expr *expr_fold(struct binder *b, struct expr *x);
/* As another type: by itself, or because a CAST says so. */
struct expr *coerce(struct binder *b, struct expr *x, const struct sql_type *type, bool explicitly, bool soft);
struct expr *logic(struct binder *b, enum expr_op op, struct expr *left, struct expr *right);
struct expr *negation(struct binder *b, const struct ast *place, struct expr *x, bool negated);
struct expr *comparison(struct binder *b, const struct ast *place, enum ast_op op, struct expr *left,
                        struct expr *right);
/* All of the same type; false: there is none. */
bool coerce_all(struct binder *b, struct expr **values, uint32_t count, uint32_t step, const char *what,
                struct sql_type *ret);
struct expr *call(struct binder *b, const struct ast *place, struct slice name, struct expr **args, uint32_t count);
void *bind_fail(struct binder *b, const struct ast *place, enum sql_fault fault, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The type's name in a buffer of the caller. */
const char *type_name(const struct sql_type *type, char *text, size_t room);

#endif
