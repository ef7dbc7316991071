/* type: the types of columns and expressions, how each is kept, and which turn into which.
 *
 * Kept as: bool a byte; integers, dates (days), times and timestamps (microseconds, UTC) int64_t; real and double double;
 * decimals __int128, scaled by the type; text, bytes, uuid (as text), JSON and all that is composed (as JSON) struct slice;
 * intervals struct interval. Nothing here allocates but type_of_ast. Any thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_TYPE_H
#define MILLRACE_SQL_LANGUAGE_TYPE_H

#include "base/arena.h"
#include "sql/language/ast.h"
#include "sql/language/error.h"

typedef __int128 decimal_t;

#define DECIMAL_DIGITS_MAX 38u
#define US_PER_S 1000000LL
#define US_PER_MINUTE (60 * US_PER_S)
#define US_PER_HOUR (60 * US_PER_MINUTE)
#define US_PER_DAY (24 * US_PER_HOUR)

enum sql_form { FORM_BOOL, FORM_I64, FORM_F64, FORM_I128, FORM_TEXT, FORM_INTERVAL, FORMS };

enum sql_type_kind {
#define TYPE(name, text, form, letter, others) TYPE_##name,
#include "sql/language/types.def"
#undef TYPE
    TYPE_KINDS
};

struct sql_type {
    enum sql_type_kind kind;
    uint8_t digits, scale;       /* of decimals; digits 1 … 38 */
    uint16_t count;              /* of args */
    const struct sql_type *args; /* element of an array; key and value of a map; fields of a row */
    const struct slice *fields;
};

/* Three counts that do not turn into one another: a month has no fixed number of days, a day none of hours. */
struct interval {
    int32_t months, days;
    int64_t us;
};

static inline struct sql_type type_of(enum sql_type_kind kind)
{
    return (struct sql_type){.kind = kind, .digits = kind == TYPE_DECIMAL ? DECIMAL_DIGITS_MAX : 0};
}

static inline struct sql_type type_decimal(unsigned digits, unsigned scale)
{
    return (struct sql_type){.kind = TYPE_DECIMAL, .digits = (uint8_t)digits, .scale = (uint8_t)scale};
}

enum sql_form type_form(enum sql_type_kind kind);
size_t form_size(enum sql_form form);
const char *type_text(enum sql_type_kind kind);
/* By the letter of functions.def; TYPE_KINDS: none. */
enum sql_type_kind type_by_letter(char letter);
/* With digits, scale and arguments, as it would be written. */
void type_print(const struct sql_type *type, struct writer *out);
bool type_equal(const struct sql_type *a, const struct sql_type *b);
bool type_is_integer(enum sql_type_kind kind);
bool type_is_number(enum sql_type_kind kind);
bool type_is_json(enum sql_type_kind kind); /* JSON, or kept as it */
/* How far `from` is from `to` by itself: 0 the same, 1 … by steps, -1: only by a CAST. */
int type_distance(enum sql_type_kind from, enum sql_type_kind to);
/* The type as written. False: there is none such, the error is set. */
MUST_USE bool type_of_ast(const struct ast *node, struct arena *arena, struct sql_type *ret, struct sql_error *error);
/* Digits and scale that hold any value of a number's type. */
struct sql_type type_as_decimal(const struct sql_type *type);
/* The type both turn into by themselves: of CASE, COALESCE, UNION and comparisons. False: there is none. */
MUST_USE bool type_common(const struct sql_type *a, const struct sql_type *b, struct sql_type *ret);

#endif
