/* window_function: the functions that stand in front of OVER and are no aggregates, by name (window_functions.def).
 *
 * Any thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_WINDOW_FUNCTION_H
#define MILLRACE_SQL_LANGUAGE_WINDOW_FUNCTION_H

#include "sql/language/error.h"

enum window_kind {
#define WINDOW(kind, name, class, least, most, remark) WINDOW_##kind,
#include "sql/language/window_functions.def"
#undef WINDOW
    WINDOW_NONE /* of no such name */
};

enum window_class { WINDOW_PLACE, WINDOW_NEAR, WINDOW_FRAME, WINDOW_WHOLE, WINDOW_AGGREGATE };

struct window_function {
    const char *name;
    enum window_class class;
    uint32_t args_least, args_most;
    const char *remark;
};

enum window_kind window_find(struct slice name);
/* NULL: WINDOW_NONE. */
const struct window_function *window_function(enum window_kind kind);
/* Names that may have been meant. */
void window_nearest(struct nearest *nearest);

#endif
