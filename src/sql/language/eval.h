/* eval: typed expressions, and running them over a batch.
 *
 *   eval_begin (a batch) ▸ { eval_expr | eval_where }* ▸ look at eval.fault_count ▸ arena_reset by the owner of the arena
 *
 * A row for which something cannot be computed is marked in eval.faults with the first reason, its value is NULL, and the other rows
 * go on. Only rows that are selected are computed, and AND, OR, CASE and COALESCE select: what is not asked for cannot fail.
 * What several expressions of an operator have in common is computed once a row: expr_share finds it, eval.memos holds it.
 * An expression is not changed by its runs; an eval belongs to one thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_EVAL_H
#define MILLRACE_SQL_LANGUAGE_EVAL_H

#include "sql/language/column.h"

struct clock;
struct eval;
struct expr;
struct function;

/* Writes ret's values of the selected rows, none of which has a NULL argument, unless the function says it wants to see those. */
typedef void kernel_fn(struct eval *e, const struct expr *x, const struct column *const *args, struct column *ret,
                       struct sel sel);

enum expr_op {
    EXPR_CONST,
    EXPR_COLUMN,
    EXPR_CALL, /* kernel; NULL: the argument as it is (a CAST that changes nothing) */
    EXPR_AND,
    EXPR_OR,
    EXPR_CASE,     /* condition, value, condition, value, …, else */
    EXPR_COALESCE, /* the first argument that is not NULL */
    EXPR_TEST,     /* IS [NOT] NULL | TRUE | FALSE | UNKNOWN: number is an enum ast_is_kind, negated says NOT */
    EXPR_DISTINCT, /* IS [NOT] DISTINCT FROM: kernel compares for equality */
};

struct expr {
    enum expr_op op;
    bool negated, soft; /* soft: TRY_CAST */
    bool sees_nulls;    /* the kernel is called for rows with NULLs, too */
    struct sql_type type;
    uint32_t at, len; /* in the statement's text */
    kernel_fn *kernel;
    const struct function *function;
    struct expr **args;
    uint32_t count;
    uint32_t column;
    uint32_t memo; /* 1 …: place in eval.memos; 0: nobody else wants it */
    int64_t number;
    struct column constant;
    const struct clock
        *clock; /* a time: rows to come have no less than the watermark + clock_offset; NULL: nothing is known */
    int64_t clock_offset;
};

/* Values of a shared expression, of the rows that are marked in done. */
struct memo {
    struct column *column;
    uint64_t *done;
};

struct regex_cache;

struct eval {
    struct arena *arena; /* of the batch */
    const struct column *columns;
    uint32_t column_count, rows;
    struct memo *memos;          /* zeroed; NULL: nothing is shared */
    struct regex_cache *regexes; /* outlives the batch; NULL: compiled anew in each */
    int64_t now_us;              /* what now() answers */
    uint8_t *faults;             /* enum sql_fault of each row; NULL: none yet */
    uint32_t fault_count;
    bool no_memory; /* a result was NULL for this */
};

static inline struct eval eval_begin(struct arena *arena, const struct column *columns, uint32_t column_count,
                                     uint32_t rows)
{
    return (struct eval){.arena = arena, .columns = columns, .column_count = column_count, .rows = rows};
}

/* Makes equal parts of the expressions one, in place, and answers how many memos an eval of them needs. */
uint32_t expr_share(struct expr **roots, uint32_t count);
/* Room for so many memos. False: no memory. */
MUST_USE bool eval_memos(struct eval *e, uint32_t count);

/* NULL: no memory. */
MUST_USE const struct column *eval_expr(struct eval *e, const struct expr *x, struct sel sel);
/* The rows for which x is true. False: no memory. */
MUST_USE bool eval_where(struct eval *e, const struct expr *x, struct sel sel, struct sel *ret);

/* For kernels. */
void *eval_take(struct eval *e, size_t len); /* NULL: no memory, remembered */
void eval_fault(struct eval *e, uint32_t row, enum sql_fault fault);
void eval_null(struct eval *e, struct column *ret, uint32_t row);

/* A value of one row as text, as PostgreSQL shows it; in the arena. False: no memory. */
MUST_USE bool eval_text(struct eval *e, const struct sql_type *type, const struct column *column, uint32_t row,
                        struct slice *ret);

#endif
