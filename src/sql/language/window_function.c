/* Window functions by name, see window_function.h. */
#include "sql/language/window_function.h"

static const struct window_function all[WINDOW_NONE] = {
#define WINDOW(kind, name, class, least, most, remark) {name, WINDOW_##class, least, most, remark},
#include "sql/language/window_functions.def"
#undef WINDOW
};

enum window_kind window_find(struct slice name)
{
    enum window_kind kind = 0;
    while (kind < WINDOW_NONE && !name_equal(name, slice_str(all[kind].name)))
        kind++;
    return kind;
}

const struct window_function *window_function(enum window_kind kind)
{
    return kind < WINDOW_NONE ? &all[kind] : NULL;
}

void window_nearest(struct nearest *nearest)
{
    for (enum window_kind kind = 0; kind < WINDOW_NONE; kind++)
        nearest_try(nearest, slice_str(all[kind].name));
}
