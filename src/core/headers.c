/* Matching of the headers exchange, see headers.h.
 *
 * Bindings' arguments and messages' headers stay tables as they came over the wire; a match walks them. Fields of both
 * mostly stand in the same order, so the search for the next name starts behind the last one found and wraps round: the
 * usual match is linear, the worst is 1024 × 1024 steps (the limit of fields of a table).
 *
 * Values are compared as RabbitMQ's routing does, by value across types: 1 is equal to 1.0 and to a timestamp 1, text to
 * a byte array of the same bytes, but true is not 1. Which of two headers of one name counts is not defined.
 * Core thread.
 */
#include "core/headers.h"

#include "fmt/amqp_table.h"

#include <stdio.h>

enum rule_flag { RULE_ANY = 1, RULE_WITH_X = 2 };

static const struct rule {
    const char *name;
    unsigned flags;
} rules[] = {
    {"all", 0},
    {"any", RULE_ANY},
    {"all-with-x", RULE_WITH_X},
    {"any-with-x", RULE_ANY | RULE_WITH_X},
};

static const struct rule *rule_named(const struct amqp_value *value)
{
    for (size_t i = 0; value->type == 'S' && i < ARRAY_LEN(rules); i++)
        if (slice_is(value->s, rules[i].name))
            return &rules[i];
    return NULL;
}

bool headers_args_valid(struct slice args, char *ret_text, size_t text_len)
{
    struct amqp_value value;
    char term[160];
    if (!amqp_table_find(args, "x-match", &value) || rule_named(&value))
        return true;
    amqp_value_print_term(&value, term, sizeof term);
    if (value.type == 'S')
        snprintf(ret_text, text_len, "Invalid x-match field value %s; expected all, any, all-with-x, or any-with-x",
                 term);
    else
        snprintf(ret_text, text_len, "Invalid x-match field type %s (value %s); expected longstr",
                 amqp_type_name(value.type), term);
    return false;
}

static unsigned rule_flags(struct slice args)
{
    struct amqp_value value;
    const struct rule *rule = amqp_table_find(args, "x-match", &value) ? rule_named(&value) : NULL;
    return rule ? rule->flags : 0;
}

static bool is_float(const struct amqp_value *v)
{
    return v->type == 'f' || v->type == 'd';
}

static bool is_number(const struct amqp_value *v)
{
    return amqp_value_is_int(v) || v->type == 'T' || is_float(v);
}

/* long double holds 64-bit integers and doubles exactly. */
static long double number_of(const struct amqp_value *v)
{
    return is_float(v) ? (long double)v->d : v->type == 'T' ? (long double)(uint64_t)v->i : (long double)v->i;
}

static bool same_value(const struct amqp_value *a, const struct amqp_value *b)
{
    if (is_number(a) && is_number(b) && is_float(a) != is_float(b))
        return number_of(a) == number_of(b);
    return amqp_value_equal(a, b);
}

/* A field of that name, looked for from `from` to the end and then from the start; `from` moves behind it. */
static bool find_from(struct slice table, struct reader *from, struct slice name, struct amqp_value *ret)
{
    struct amqp_field field;
    struct reader passes[2] = {*from, reader_of(table)};
    for (int pass = 0; pass < 2; pass++) {
        struct reader *r = &passes[pass];
        while ((pass == 0 || r->left > from->left) && amqp_table_next(r, &field)) {
            if (!slice_equal(field.name, name))
                continue;
            *from = *r;
            *ret = field.value;
            return true;
        }
    }
    return false;
}

bool headers_match(struct slice args, struct slice headers)
{
    unsigned rule = rule_flags(args);
    struct reader wanted = reader_of(args), from = reader_of(headers);
    struct amqp_field want;
    struct amqp_value have;
    while (amqp_table_next(&wanted, &want)) {
        if (slice_is(want.name, "x-match") || (slice_starts(want.name, "x-") && !(rule & RULE_WITH_X)))
            continue;
        bool same =
            find_from(headers, &from, want.name, &have) && (want.value.type == 'V' || same_value(&want.value, &have));
        if (same == ((rule & RULE_ANY) != 0))
            return same; /* the first hit decides "any", the first miss "all" */
    }
    return !(rule & RULE_ANY);
}
