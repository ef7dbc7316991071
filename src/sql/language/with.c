/* Options, see with.h: a table of them, and what each kind of value may look like. */
#include "sql/language/with.h"

#include "sql/language/datetime.h"

#include <stdio.h>

#define PARTITIONS_MAX 1024u
#define STATE_MEMORY_MIN (64u * 1024)
#define STATE_MEMORY_MAX ((uint64_t)1 << 40)
#define NAME_BYTES_MAX 255u
#define BYTES_TEXT_MAX 24u

enum kind {
    KIND_NAME,
    KIND_COUNT,
    KIND_BYTES,
    KIND_CHOICE,
    KIND_START,
    KIND_PLANNED, /* the planner's: of a query */
};

#define WITH_QUERIES (WITH_STREAM_QUERY | WITH_SINK | WITH_INSERT | WITH_MATERIALIZED)

static const struct option {
    const char *key;
    enum kind kind;
    unsigned places; /* enum with_place, or'ed */
    size_t at;
    const char *choices; /* with | between */
    unsigned first;      /* what the first of them is; the others follow */
} rows[] = {
    {"topic", KIND_NAME, WITH_STREAM | WITH_STREAM_QUERY | WITH_SINK, offsetof(struct sql_with, topic), NULL, 0},
    {"partitions", KIND_COUNT, WITH_STREAM | WITH_STREAM_QUERY | WITH_SINK | WITH_MATERIALIZED,
     offsetof(struct sql_with, partitions), NULL, 0},
    {"format", KIND_CHOICE, WITH_STREAM | WITH_QUEUE, offsetof(struct sql_with, format), "json|raw|csv|cloudevents",
     FORMAT_JSON},
    {"format", KIND_CHOICE, WITH_STREAM_QUERY | WITH_SINK, offsetof(struct sql_with, format), "json", FORMAT_JSON},
    {"start", KIND_START, WITH_STREAM | WITH_QUERIES, offsetof(struct sql_with, start), NULL, 0},
    {"on_error", KIND_CHOICE, WITH_STREAM | WITH_QUEUE | WITH_QUERIES, offsetof(struct sql_with, on_error),
     "dlq|skip|fail", ON_ERROR_DLQ},
    {"late", KIND_CHOICE, WITH_STREAM | WITH_QUEUE | WITH_QUERIES, SIZE_MAX, "drop", 0},
    {"state_ttl", KIND_PLANNED, WITH_QUERIES | WITH_VIEW, SIZE_MAX, NULL, 0},
    {"state_memory", KIND_BYTES, WITH_QUERIES, offsetof(struct sql_with, state_memory), NULL, 0},
    {"prefetch", KIND_COUNT, WITH_QUEUE, offsetof(struct sql_with, prefetch), NULL, 0},
    {"queue", KIND_NAME, WITH_SINK, offsetof(struct sql_with, queue), NULL, 0},
    {"exchange", KIND_NAME, WITH_SINK, offsetof(struct sql_with, exchange), NULL, 0},
    {"delimiter", KIND_NAME, WITH_STREAM | WITH_QUEUE, SIZE_MAX, NULL, 0}, /* obeyed by the planner */
    /* what is obeyed by sql/query/output.h */
    {"key", KIND_NAME, WITH_STREAM | WITH_STREAM_QUERY | WITH_SINK | WITH_MATERIALIZED, SIZE_MAX, NULL, 0},
    {"routing_key", KIND_NAME, WITH_SINK, SIZE_MAX, NULL, 0},
    {"routing_key_column", KIND_NAME, WITH_SINK, SIZE_MAX, NULL, 0},
};

static bool refuse(struct sql_error *error, const struct ast *place, const char *key, const char *wanted)
{
    sql_error_set(error, SQL_FAULT_VALUE, place->at, place->len, "%s is %s", key, wanted);
    return false;
}

/* A word or a text: earliest, 'earliest'. */
static bool word_of(const struct ast *value, struct slice *ret)
{
    if (value->kind == AST_NAME && AST_AS(name, value)->parts.count == 1)
        *ret = AST_AS(name, value)->parts.at[0];
    else if (value->kind == AST_LITERAL && AST_AS(literal, value)->what == LITERAL_STRING)
        *ret = AST_AS(literal, value)->text;
    else
        return false;
    return true;
}

/* A number, also as a text; with_unit: KiB, MiB, GiB behind it count. */
static bool number_of(const struct ast *value, bool with_unit, uint64_t *ret)
{
    static const struct {
        const char *unit;
        unsigned shift;
    } units[] = {{"", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"kib", 10}, {"mib", 20}, {"gib", 30}};
    struct slice text = value->kind == AST_LITERAL ? AST_AS(literal, value)->text : (struct slice){0};
    uint64_t number = 0;
    size_t i = 0;
    for (; i < text.len && i < 15 && text.ptr[i] >= '0' && text.ptr[i] <= '9'; i++)
        number = number * 10 + (text.ptr[i] - '0');
    if (i == 0)
        return false;
    struct slice rest = slice_of(text.ptr + i, text.len - i);
    while (rest.len && rest.ptr[0] == ' ')
        rest = slice_of(rest.ptr + 1, rest.len - 1);
    for (size_t k = 0; k < (with_unit ? ARRAY_LEN(units) : 1); k++)
        if (slice_is(rest, units[k].unit) && number <= UINT64_MAX >> units[k].shift) {
            *ret = number << units[k].shift;
            return true;
        }
    return false;
}

static bool set_name(const struct option *row, const struct ast *value, void *at, struct sql_error *error)
{
    struct slice name;
    if (!word_of(value, &name) || name.len == 0 || name.len > NAME_BYTES_MAX)
        return refuse(error, value, row->key, "a name in quotes, of at most 255 bytes");
    if (at)
        *(struct slice *)at = name;
    return true;
}

static bool set_number(const struct option *row, const struct ast *value, void *at, struct sql_error *error)
{
    uint64_t number;
    if (row->kind == KIND_COUNT) {
        if (!number_of(value, false, &number) || number == 0 || number > PARTITIONS_MAX)
            return refuse(error, value, row->key, "a number from 1 to 1024");
        *(uint32_t *)at = (uint32_t)number;
        return true;
    }
    if (!number_of(value, true, &number) || number < STATE_MEMORY_MIN || number > STATE_MEMORY_MAX)
        return refuse(error, value, row->key, "bytes, as in '64 MiB', from 64 KiB on");
    *(uint64_t *)at = number;
    return true;
}

static bool set_choice(const struct option *row, const struct ast *value, void *at, struct sql_error *error)
{
    struct slice word;
    unsigned i = row->first;
    for (const char *c = row->choices; word_of(value, &word) && *c; i++) {
        size_t len = strcspn(c, "|");
        if (name_equal(word, slice_of(c, len))) {
            if (at)
                *(uint8_t *)at = (uint8_t)i;
            return true;
        }
        c += len + (c[len] == '|');
    }
    char wanted[80];
    snprintf(wanted, sizeof wanted, strchr(row->choices, '|') ? "one of %s" : "%s, nothing else is there yet",
             row->choices);
    return refuse(error, value, row->key, wanted);
}

static bool set_start(const struct ast *value, struct sql_with *with, struct sql_error *error)
{
    struct slice text = {0};
    if (value->kind == AST_TYPED)
        text = AST_AS(typed, value)->text;
    else if (!word_of(value, &text))
        return refuse(error, value, "start", "earliest, latest or a timestamp");
    bool earliest = name_equal(text, slice_str("earliest"));
    with->start = earliest ? START_EARLIEST : START_LATEST;
    if (earliest || name_equal(text, slice_str("latest")))
        return true;
    with->start = START_TIME;
    return timestamp_parse(text, false, &with->start_us) ||
           refuse(error, value, "start", "earliest, latest or a timestamp");
}

static bool set(const struct option *row, const struct ast *value, struct sql_with *with, struct sql_error *error)
{
    void *at = row->at == SIZE_MAX ? NULL : (uint8_t *)with + row->at;
    switch (row->kind) {
    case KIND_NAME: return set_name(row, value, at, error);
    case KIND_COUNT:
    case KIND_BYTES: return set_number(row, value, at, error);
    case KIND_CHOICE: return set_choice(row, value, at, error);
    case KIND_START: return set_start(value, with, error);
    case KIND_PLANNED: return true;
    }
    return false;
}

static bool set_option(const struct ast_option *o, enum with_place place, struct sql_with *with,
                       struct sql_error *error)
{
    struct nearest nearest = nearest_of(o->key);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (!(rows[i].places & place))
            continue;
        if (name_equal(slice_str(rows[i].key), o->key))
            return set(&rows[i], o->value, with, error);
        nearest_try(&nearest, slice_str(rows[i].key));
    }
    sql_error_set(error, SQL_FAULT_NO_NAME, o->ast.at, o->ast.len, "there is no option %.*s here", SLICE_ARG(o->key));
    if (nearest_found(&nearest))
        sql_error_hint(error, "did you mean %.*s?", SLICE_ARG(nearest.best));
    return false;
}

bool sql_with_read(const struct ast_list *options, enum with_place place, struct sql_with *ret, struct sql_error *error)
{
    *ret = (struct sql_with){0};
    for (size_t i = 0; i < options->count; i++) {
        const struct ast_option *o = AST_AS(option, options->at[i]);
        for (size_t k = 0; k < i; k++)
            if (name_equal(AST_AS(option, options->at[k])->key, o->key)) {
                sql_error_set(error, SQL_FAULT_AMBIGUOUS, o->ast.at, o->ast.len, "%.*s is said twice",
                              SLICE_ARG(o->key));
                return false;
            }
        if (!set_option(o, place, ret, error))
            return false;
    }
    unsigned targets = (ret->queue.len > 0) + (ret->exchange.len > 0) + (ret->topic.len > 0);
    const struct ast *place_of = options->count ? options->at[0] : NULL;
    if (place == WITH_SINK && targets > 1) {
        sql_error_set(error, SQL_FAULT_AMBIGUOUS, place_of->at, place_of->len,
                      "a sink has one of topic, queue and exchange");
        return false;
    }
    return true;
}

bool sql_with_planned(const struct ast_list *options, struct arena *arena, struct ast_list *ret)
{
    *ret = (struct ast_list){.at = arena_take(arena, (options->count + 1) * sizeof *ret->at)};
    for (size_t i = 0; ret->at && i < options->count; i++)
        for (size_t k = 0; k < ARRAY_LEN(rows); k++)
            if (rows[k].kind == KIND_PLANNED && name_equal(slice_str(rows[k].key), AST_AS(option, options->at[i])->key))
                ret->at[ret->count++] = options->at[i];
    return ret->at != NULL;
}
