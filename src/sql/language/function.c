/* Functions, see function.h. */
#include "sql/language/function.h"

#include "sql/language/kernel.h"

static const struct function functions[] = {
#define NULLS_STRICT false
#define NULLS_SEES true
#define FUNCTION(name, args, result, nulls, kernel, sentence, example, expected)                                       \
    {name, args, result, NULLS_##nulls, kernel_##kernel, sentence, example, expected},
#define ALIAS(name, of)
#include "sql/language/functions.def"
#undef FUNCTION
#undef ALIAS
};

static const struct {
    const char *name, *of;
} aliases[] = {
#define FUNCTION(name, args, result, nulls, kernel, sentence, example, expected)
#define ALIAS(name, of) {name, of},
#include "sql/language/functions.def"
#undef FUNCTION
#undef ALIAS
};

const struct function *function_at(size_t i)
{
    return i < ARRAY_LEN(functions) ? &functions[i] : NULL;
}

const char *function_alias_at(size_t i, const char **ret_of)
{
    if (i >= ARRAY_LEN(aliases))
        return NULL;
    *ret_of = aliases[i].of;
    return aliases[i].name;
}

struct slice function_name(struct slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
        if (name_equal(name, slice_str(aliases[i].name)))
            return slice_str(aliases[i].of);
    return name;
}

char function_letter(const struct function *f, uint32_t n, uint32_t count)
{
    size_t len = strlen(f->args);
    char mark = len ? f->args[len - 1] : 0;
    bool repeats = mark == '*', optional = mark == '?';
    size_t letters = len - (repeats || optional);
    if (count < letters - (optional ? 1 : 0) || (count > letters && !repeats))
        return 0;
    return f->args[n < letters ? n : letters - 1];
}

bool function_volatile(const struct function *f)
{
    return f->kernel == kernel_now || f->kernel == kernel_current_date;
}

/* What it costs to give an argument of that type where the letter stands; -1: it cannot be. */
static int letter_cost(const struct function *f, enum sql_type_kind from, char letter)
{
    bool texts = strcmp(f->name, "||") == 0 || strncmp(f->name, "concat", 6) == 0;
    if (letter == 'a' || letter == 'e')
        return 0;
    enum sql_type_kind to = type_by_letter(letter);
    int far = type_distance(from, to);
    if (far >= 0)
        return far;
    if (to == TYPE_TEXT && texts)
        return 20;
    return to == TYPE_JSON && from == TYPE_TEXT && strncmp(f->name, "json_", 5) == 0 ? 20 : -1;
}

static bool common_of(const struct sql_type *types, uint32_t count)
{
    struct sql_type common = types[0];
    for (uint32_t i = 1; i < count; i++)
        if (!type_common(&common, &types[i], &common))
            return false;
    return true;
}

static int cost_of(const struct function *f, const struct sql_type *types, uint32_t count)
{
    int cost = 0, texts = 0;
    if (!count)
        return f->args[0] ? -1 : 0;
    for (uint32_t i = 0; i < count; i++) {
        char letter = function_letter(f, i, count);
        int far = letter ? letter_cost(f, types[i].kind, letter) : -1;
        if (far < 0)
            return -1;
        /* an operand without a type takes that of the other one, where it can */
        bool as_other = count == 2 && types[i].kind == TYPE_NULL && type_by_letter(letter) == types[1 - i].kind;
        cost += as_other ? 0 : far;
        texts += types[i].kind == TYPE_TEXT || types[i].kind == TYPE_NULL;
    }
    if (strcmp(f->name, "||") == 0 && !texts)
        return -1;
    return function_letter(f, 0, count) != 'e' || common_of(types, count) ? cost : -1;
}

const struct function *function_find(struct slice name, const struct sql_type *types, uint32_t count)
{
    const struct function *best = NULL;
    int least = 0;
    for (size_t i = 0; i < ARRAY_LEN(functions); i++) {
        if (!name_equal(name, slice_str(functions[i].name)))
            continue;
        int cost = cost_of(&functions[i], types, count);
        if (cost >= 0 && (!best || cost < least)) {
            best = &functions[i];
            least = cost;
        }
    }
    return best;
}

void function_nearest(struct nearest *nearest)
{
    for (size_t i = 0; i < ARRAY_LEN(functions); i++)
        nearest_try(nearest, slice_str(functions[i].name));
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
        nearest_try(nearest, slice_str(aliases[i].name));
    nearest_try(nearest, slice_str("coalesce"));
}
