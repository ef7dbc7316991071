/* function: the table of functions.def, and which row of it a call means.
 * Nothing is allocated. Any thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_FUNCTION_H
#define MILLRACE_SQL_LANGUAGE_FUNCTION_H

#include "sql/language/eval.h"

#define FUNCTION_ARGS_MAX 256u

struct function {
    const char *name, *args, *result;
    bool sees_nulls;
    kernel_fn *kernel;
    const char *sentence, *example, *expected;
};

/* A row in the order of the table; NULL: behind the last. */
const struct function *function_at(size_t i);
/* Another name, and in *ret_of what it means; NULL: behind the last. */
const char *function_alias_at(size_t i, const char **ret_of);
/* Other names are those of a function; the name itself when it is none. */
struct slice function_name(struct slice name);
/* The letter of argument n of `count`; 0: the row does not take so many. */
char function_letter(const struct function *f, uint32_t n, uint32_t count);
/* The row that takes arguments of these types with the fewest changes; NULL: none does. */
const struct function *function_find(struct slice name, const struct sql_type *types, uint32_t count);
/* Tries all names there are, for a hint. */
void function_nearest(struct nearest *nearest);
/* Whether it answers something else each time. */
bool function_volatile(const struct function *f);

#endif
