/* kernel: the loops that compute, and the macros they are made with. A kernel is one function over the selected rows of a batch; the
 * macros write its loop twice: over rows that follow one another, which a compiler can vectorise, and over a selection or constants.
 */
#ifndef MILLRACE_SQL_LANGUAGE_KERNEL_H
#define MILLRACE_SQL_LANGUAGE_KERNEL_H

#include "sql/language/eval.h"

#define KERNEL(name)                                                                                                   \
    void kernel_##name(struct eval *e, const struct expr *x, const struct column *const *args, struct column *ret,     \
                       struct sel sel)

/* Values and mask of argument n. */
#define ARG(n, type)                                                                                                   \
    const type *v##n = args[n]->values;                                                                                \
    const uint32_t m##n = column_mask(args[n])

#define EACH_ROW(i) for (uint32_t k_ = 0, i = 0; k_ < sel.count && (i = sel_row(sel, k_), true); k_++)

/* r = expression of a (and b), in row i. */
#define KERNEL_1(name, A, R, expression)                                                                               \
    KERNEL(name)                                                                                                       \
    {                                                                                                                  \
        ARG(0, A);                                                                                                     \
        R *r = ret->values;                                                                                            \
        (void)e, (void)x;                                                                                              \
        EACH_ROW(i)                                                                                                    \
        {                                                                                                              \
            const A a = v0[i & m0];                                                                                    \
            r[i] = (expression);                                                                                       \
        }                                                                                                              \
    }

#define KERNEL_2(name, A, B, R, expression)                                                                            \
    KERNEL(name)                                                                                                       \
    {                                                                                                                  \
        ARG(0, A);                                                                                                     \
        ARG(1, B);                                                                                                     \
        R *r = ret->values;                                                                                            \
        (void)e, (void)x;                                                                                              \
        if (!sel.at && m0 && m1) {                                                                                     \
            for (uint32_t i = 0; i < sel.count; i++) {                                                                 \
                const A a = v0[i];                                                                                     \
                const B b = v1[i];                                                                                     \
                r[i] = (expression);                                                                                   \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        EACH_ROW(i)                                                                                                    \
        {                                                                                                              \
            const A a = v0[i & m0];                                                                                    \
            const B b = v1[i & m1];                                                                                    \
            r[i] = (expression);                                                                                       \
        }                                                                                                              \
    }

/* Comparisons by operator and form; NULL: these are not compared so. */
kernel_fn *kernel_compare(enum ast_op op, enum sql_form form);
/* What makes a value of `to` of one of `from`; NULL with *ret_ok: nothing has to be done. */
kernel_fn *kernel_cast(const struct sql_type *from, const struct sql_type *to, bool *ret_ok);
/* A text that was longer than all that is allowed together would be an attack: REPEAT, LPAD and their like. */
#define KERNEL_TEXT_MAX (16u << 20)

int text_compare(struct slice a, struct slice b);
bool text_to_bool(struct slice text, bool *ret);
bool text_to_int(struct slice text, int64_t *ret, bool *ret_syntax);
bool text_to_double(struct slice text, double *ret, bool *ret_syntax);
/* The fewest digits that read back as the same number; answers how many bytes. */
size_t double_print(double value, bool real, char *out, size_t room);
/* A value as text into the arena; *ret is a loan of the value when that is a text. */
bool value_text(struct eval *e, const struct sql_type *type, const void *value, struct slice *ret);

/* Every kernel that a function names. */
#define FUNCTION(name, args, result, nulls, kernel, sentence, example, expected) KERNEL(kernel);
#define ALIAS(name, of)
#include "sql/language/functions.def"
#undef FUNCTION
#undef ALIAS

#endif
