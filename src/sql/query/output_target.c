/* What a statement says of where rows go, and under which key: see output.h. */
#include "sql/language/ast.h"
#include "sql/query/output.h"

static bool add_key(struct output_target *t, struct slice name, const struct ast *place, struct sql_error *error)
{
    for (uint32_t i = 0; i < t->key_count; i++)
        if (slice_equal(t->keys[i], name))
            return true;
    if (t->key_count == OUTPUT_KEYS_MAX) {
        sql_error_set(error, SQL_FAULT_LIMIT, place->at, place->len, "a key of more than %u columns", OUTPUT_KEYS_MAX);
        return false;
    }
    t->keys[t->key_count++] = name;
    return true;
}

static bool elements_of(const struct ast_list *elements, struct output_target *t, struct sql_error *error)
{
    bool ok = true;
    for (size_t i = 0; ok && i < elements->count; i++) {
        const struct ast *e = elements->at[i];
        if (e->kind == AST_COLUMN && (AST_AS(column, e)->primary || AST_AS(column, e)->key))
            ok = add_key(t, AST_AS(column, e)->name, e, error);
        for (size_t k = 0; ok && e->kind == AST_PRIMARY_KEY && k < AST_AS(primary_key, e)->columns.count; k++)
            ok = add_key(t, AST_AS(primary_key, e)->columns.at[k], e, error);
    }
    return ok;
}

static struct slice trimmed_name(struct slice s)
{
    while (s.len && *s.ptr == ' ')
        s = slice_of(s.ptr + 1, s.len - 1);
    while (s.len && s.ptr[s.len - 1] == ' ')
        s.len--;
    return s;
}

/* key = 'a, b' */
static bool keys_of(struct slice names, struct output_target *t, const struct ast *place, struct sql_error *error)
{
    for (;;) {
        const uint8_t *comma = names.len ? memchr(names.ptr, ',', names.len) : NULL;
        size_t len = comma ? (size_t)(comma - names.ptr) : names.len;
        struct slice name = trimmed_name(slice_of(names.ptr, len));
        if (!name.len) {
            sql_error_set(error, SQL_FAULT_VALUE, place->at, place->len, "key names columns, with commas between them");
            return false;
        }
        if (!add_key(t, name, place, error))
            return false;
        if (!comma)
            return true;
        names = slice_of(comma + 1, names.len - len - 1);
    }
}

static bool option_of(const struct ast_option *o, struct output_target *t, struct sql_error *error)
{
    struct slice *texts[] = {&t->exchange, &t->routing_key, &t->routing_column};
    static const char *const names[] = {"exchange", "routing_key", "routing_key_column"};
    size_t which = 0;
    while (which < ARRAY_LEN(names) && !name_equal(o->key, slice_str(names[which])))
        which++;
    bool key = name_equal(o->key, slice_str("key"));
    if (!key && which == ARRAY_LEN(names))
        return true; /* somebody else's */
    const struct ast_literal *text = AST_AS(literal, o->value);
    bool names_it = o->value->kind == AST_LITERAL && text->what == LITERAL_STRING;
    if (!names_it || (!key && text->text.len > 255)) {
        sql_error_set(error, SQL_FAULT_VALUE, o->ast.at, o->ast.len, "%.*s is a text%s", SLICE_ARG(o->key),
                      names_it ? " of at most 255 bytes" : " in quotes");
        return false;
    }
    if (key)
        return keys_of(text->text, t, &o->ast, error);
    *texts[which] = text->text;
    return true;
}

static bool options_of(const struct ast_list *options, struct output_target *t, struct sql_error *error)
{
    for (size_t i = 0; i < options->count; i++)
        if (!option_of(AST_AS(option, options->at[i]), t, error))
            return false;
    return true;
}

bool output_target_of(const struct ast *statement, struct output_target *ret, struct sql_error *error)
{
    struct output_target t = *ret;
    const struct ast_create_stream *stream = AST_AS(create_stream, statement);
    bool ok = true;
    switch (statement->kind) {
    case AST_CREATE_STREAM:
        ok = elements_of(&stream->elements, &t, error) && options_of(&stream->options, &t, error);
        break;
    case AST_CREATE_VIEW: ok = options_of(&AST_AS(create_view, statement)->options, &t, error); break;
    case AST_CREATE_SINK: ok = options_of(&AST_AS(create_sink, statement)->options, &t, error); break;
    default: break;
    }
    if (ok)
        *ret = t;
    return ok;
}
