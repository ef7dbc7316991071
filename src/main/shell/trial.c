/* Files of statements with what is to come of them, see shell/trial.h.
 *
 * An assertion reads its stream from the beginning, with SELECT … EMIT CHANGES, and passes over the rows that earlier ones have looked at: streams keep
 * what they had, so nothing has to be watched from the beginning. Its values are turned into the types of the columns that this
 * SELECT has, and compared as the JSON that both are said in. */
#include "main/shell/trial.h"

#include "base/arena.h"
#include "base/mem.h"
#include "core/query.h"
#include "main/shell/show.h"
#include "main/shell/split.h"
#include "main/shell/trial_broker.h"
#include "sql/language/constant.h"
#include "sql/language/datetime.h"
#include "sql/language/parse.h"

#include <inttypes.h>

#define ANSWER_MAX (256u << 20)
#define ADVANCE_MAX_US (366 * 100 * 86400ll * US_PER_S)
#define RED "\x1b[31m"
#define GREEN "\x1b[32m"
#define PLAIN "\x1b[0m"

/* How many rows of a stream have been looked at. */
struct seen {
    struct seen *next;
    struct slice name;
    uint64_t rows;
};

struct run {
    struct sql_trial *trial;
    struct trial_broker *broker;
    const char *file;
    unsigned line;      /* where the statement begins, from 1 */
    struct arena whole; /* as long as the file: names in seen */
    struct arena arena, values;
    struct seen *seen;
    struct lines answer;
};

/* ---- what is said ---- */

static void put_line(struct run *r, struct lines *l)
{
    lines_text(l, "}\n");
    if (!l->failed)
        fwrite(l->bytes, 1, l->len, r->trial->out);
    lines_fini(l);
}

static void begin_line(struct run *r, struct lines *l, unsigned line)
{
    lines_init(l, ANSWER_MAX);
    lines_text(l, "{\"file\":");
    lines_string(l, slice_str(r->file));
    lines_text(l, ",\"line\":");
    lines_number(l, line);
}

/* Of ours: the statement ends the file. */
static bool refuse(struct run *r, unsigned line, const char *message)
{
    struct lines l;
    r->trial->failed++;
    if (!r->trial->json) {
        fflush(r->trial->out);
        fprintf(r->trial->err, "%s:%u: ERROR: %s\n", r->file, line, message);
        return false;
    }
    begin_line(r, &l, line);
    lines_text(&l, ",\"passed\":false,\"error\":{\"message\":");
    lines_string(&l, slice_str(message));
    lines_text(&l, "}");
    put_line(r, &l);
    return false;
}

static bool lost(struct run *r)
{
    return refuse(r, r->line, "the queries do not come to rest, or there is no memory");
}

static bool next_line(const struct run *r, size_t *at, struct slice *ret)
{
    const uint8_t *from = r->answer.bytes + *at;
    const uint8_t *end = *at < r->answer.len ? memchr(from, '\n', r->answer.len - *at) : NULL;
    if (!end)
        return false;
    *ret = slice_of(from, (size_t)(end - from));
    *at += ret->len + 1;
    return true;
}

static void show_error_json(struct run *r, struct slice line)
{
    struct json_view whole, error, place;
    struct json_fault fault;
    struct lines l;
    unsigned at = r->line;
    if (json_view_of(line, &whole, &fault) && json_view_member(&whole, slice_str("error"), &error) &&
        json_view_member(&error, slice_str("line"), &place) && place.kind == JSON_VIEW_INT)
        at += (unsigned)place.number - 1;
    begin_line(r, &l, at);
    lines_text(&l, ",\"passed\":false,");
    lines_put(&l, line.ptr + 1, line.len - 2);
    put_line(r, &l);
}

/* The broker's answer, for people: rows as a table, what was wrong with its place. False: something was. */
static bool show_answer(struct run *r, bool rows)
{
    struct sql_show *show = mem_zalloc(sizeof *show);
    struct slice line;
    bool failed = !show;
    if (!show)
        return lost(r);
    sql_show_init(show, SQL_FORM_TABLE, r->trial->out, r->trial->err);
    show->file = r->file;
    show->line = r->line;
    show->quiet = true;
    for (size_t at = 0; next_line(r, &at, &line);) {
        bool error = slice_starts(line, "{\"error\":");
        failed = failed || error;
        if (error && r->trial->json)
            show_error_json(r, line);
        else if (error || (rows && !r->trial->json && !r->trial->quiet))
            failed = !sql_show_line(show, line) || failed;
    }
    (void)sql_show_end(show);
    sql_show_fini(show);
    mem_free(show);
    r->trial->failed += failed;
    return !failed;
}

/* ---- statements of the broker ---- */

static bool run_asked(struct run *r, struct slice text)
{
    bool ended;
    r->answer.len = 0;
    if (!trial_broker_ask(r->broker, text, &r->answer, &ended))
        return lost(r);
    if (!show_answer(r, true))
        return false;
    if (ended)
        return true;
    return trial_broker_stop(r->broker)
               ? refuse(r, r->line, "this SELECT does not end; without EMIT it is about what is there now")
               : lost(r);
}

/* ---- ADVANCE TIME BY ---- */

static unsigned line_of(const struct run *r, struct slice text, uint32_t at)
{
    return r->line + sql_lines_in(slice_of(text.ptr, at));
}

static bool refuse_at(struct run *r, struct slice text, const struct sql_error *error)
{
    char shown[1200];
    struct writer w = writer_of(shown, sizeof shown - 1);
    if (r->trial->json)
        return refuse(r, line_of(r, text, error->at), error->message);
    sql_error_print(error, text, &w);
    shown[w.len] = '\0';
    bool twice = strncmp(shown, "ERROR: ", 7) == 0;
    if (w.len && shown[w.len - 1] == '\n')
        shown[w.len - 1] = '\0';
    return refuse(r, line_of(r, text, error->at), shown + (twice ? 7 : 0));
}

static bool run_advance(struct run *r, struct slice text, const struct ast_advance *s)
{
    struct sql_error error = {0};
    struct sql_type type = type_of(TYPE_INTERVAL);
    struct column value;
    struct constants c = {&r->arena, &r->values, trial_broker_now(r->broker) * 1000};
    bool ok = constant_value(&c, s->interval, &type, &value, &error);
    if (ok && column_null(&value, 0))
        sql_error_set(&error, SQL_FAULT_VALUE, s->interval->at, s->interval->len, "the interval is NULL");
    const struct interval *v = ok ? value.values : NULL;
    int64_t us = v && v->days >= 0 && v->days < 366 * 100 ? v->days * (86400 * US_PER_S) + v->us : -1;
    if (error.fault == SQL_FAULT_NONE && (v->months || us < 0 || us > ADVANCE_MAX_US))
        sql_error_set(&error, SQL_FAULT_VALUE, s->interval->at, s->interval->len,
                      "time goes forward, by days and what is shorter, at most 100 years at a time");
    if (error.fault != SQL_FAULT_NONE)
        return refuse_at(r, text, &error);
    return trial_broker_pass(r->broker, us) || lost(r);
}

/* ---- ASSERT ---- */

struct assertion {
    const struct ast_assertion *s;
    struct slice name;
    unsigned line;
    struct sql_type *types;
    uint32_t columns;
    uint64_t wanted; /* rows; 0: that nothing has come */
    struct slice *expected;
    struct slice *came; /* at most one more than wanted, if none is wanted any number is one */
    bool *gone;         /* it was taken back */
    uint64_t came_count, more;
};

static struct seen *seen_of(struct run *r, struct slice name)
{
    for (struct seen *s = r->seen; s; s = s->next)
        if (name_equal(s->name, name))
            return s;
    struct seen *s = arena_take(&r->whole, sizeof *s);
    uint8_t *copy = s ? arena_take(&r->whole, name.len) : NULL;
    if (!copy)
        return NULL;
    memcpy(copy, name.ptr, name.len);
    *s = (struct seen){r->seen, slice_of(copy, name.len), 0};
    return r->seen = s;
}

static bool ask_rows(struct run *r, const struct assertion *a)
{
    struct lines text;
    bool ended = true;
    lines_init(&text, SQL_TEXT_MAX);
    lines_text(&text, "SELECT ");
    for (size_t i = 0; i < a->s->columns.count; i++) {
        lines_text(&text, i ? ", " : "");
        lines_name(&text, a->s->columns.at[i]);
    }
    lines_text(&text, a->s->columns.count ? " FROM " : "* FROM ");
    lines_name(&text, a->name);
    lines_text(&text, " EMIT CHANGES");
    r->answer.len = 0;
    bool ok = !text.failed && trial_broker_ask(r->broker, slice_of(text.bytes, text.len), &r->answer, &ended);
    lines_fini(&text);
    if (!ok)
        return lost(r);
    r->line = a->line;
    return show_answer(r, false) && (ended || trial_broker_stop(r->broker) || lost(r));
}

static bool read_type(struct run *r, const struct json_view *column, struct sql_type *ret, struct sql_error *error)
{
    struct json_view text;
    struct ast *type;
    if (!json_view_member(column, slice_str("type"), &text))
        return false;
    uint8_t *copy = arena_take(&r->arena, text.len + 1);
    return copy && sql_parse_type(slice_of(copy, json_view_text(&text, copy)), &r->arena, &type, error) &&
           type_of_ast(type, &r->arena, ret, error);
}

static bool read_types(struct run *r, struct assertion *a, struct slice line)
{
    struct json_view whole, columns, none, column;
    struct json_fault fault;
    struct sql_error error = {0};
    if (!json_view_of(line, &whole, &fault) || !json_view_member(&whole, slice_str("columns"), &columns))
        return false;
    a->types = arena_take(&r->arena, SQL_SHOW_COLUMNS_MAX * sizeof *a->types);
    for (struct json_items items = json_items_of(&columns);
         a->types && a->columns < SQL_SHOW_COLUMNS_MAX && json_items_next(&items, &none, &column);)
        if (!read_type(r, &column, &a->types[a->columns++], &error))
            return false;
    return a->types;
}

/* A row of the ASSERT as the broker would say it. */
static bool say_row(struct run *r, const struct assertion *a, const struct ast_row *row, struct slice *ret,
                    struct sql_error *error)
{
    struct lines l;
    struct constants c = {&r->arena, &r->values, trial_broker_now(r->broker) * 1000};
    if (row->items.count != a->columns) {
        sql_error_set(error, SQL_FAULT_VALUE, row->ast.at, row->ast.len,
                      "%u columns are compared with the values of %u", a->columns, (unsigned)row->items.count);
        return false;
    }
    lines_init(&l, ANSWER_MAX);
    for (uint32_t i = 0; i < a->columns && error->fault == SQL_FAULT_NONE; i++) {
        struct column value;
        lines_text(&l, i ? "," : "[");
        struct eval e = eval_begin(&r->values, NULL, 0, 1);
        if (constant_value(&c, row->items.at[i], &a->types[i], &value, error) &&
            !constant_say(&l, &e, &a->types[i], &value, 0))
            l.failed = true;
    }
    lines_text(&l, "]");
    uint8_t *copy = l.failed || error->fault != SQL_FAULT_NONE ? NULL : arena_take(&r->arena, l.len);
    if (copy) {
        memcpy(copy, l.bytes, l.len);
        *ret = slice_of(copy, l.len);
    } else
        sql_error_set(error, SQL_FAULT_MEMORY, row->ast.at, row->ast.len, "no memory for the row");
    lines_fini(&l);
    return copy;
}

static bool expect_rows(struct run *r, struct assertion *a, struct slice text)
{
    struct sql_error error = {0};
    for (uint64_t i = 0; i < a->wanted; i++)
        if (!say_row(r, a, AST_AS(row, a->s->rows.at[i]), &a->expected[i], &error))
            return refuse_at(r, text, &error);
    return true;
}

/* The values of {"row":[…]} or {"row":[…],"change":"-"}. */
static struct slice values_of(struct slice line, bool *ret_gone)
{
    static const char head[] = "{\"row\":", tail[] = ",\"change\":\"-\"}";
    size_t end = sizeof tail - 1;
    *ret_gone = line.len > end && memcmp(line.ptr + line.len - end, tail, end) == 0;
    return slice_of(line.ptr + sizeof head - 1, line.len - (sizeof head - 1) - (*ret_gone ? end : 1));
}

/* The rows behind those that were looked at before. */
static bool take_rows(struct run *r, struct assertion *a)
{
    struct seen *seen = seen_of(r, a->name);
    struct slice line;
    uint64_t row = 0, from = seen ? seen->rows : 0, most = a->wanted ? a->wanted : UINT64_MAX, room = 0;
    for (size_t at = 0; seen && next_line(r, &at, &line);)
        room += slice_starts(line, "{\"row\":");
    room = room > from ? room - from : 0;
    a->came = arena_take(&r->arena, (room + 1) * sizeof *a->came);
    a->gone = arena_take(&r->arena, (room + 1) * sizeof *a->gone);
    if (!seen || !a->came || !a->gone)
        return lost(r);
    for (size_t at = 0; next_line(r, &at, &line);) {
        if (!slice_starts(line, "{\"row\":") || row++ < from)
            continue;
        if (a->came_count < most) {
            a->came[a->came_count] = values_of(line, &a->gone[a->came_count]);
            a->came_count++;
        } else
            a->more++;
    }
    seen->rows = from + a->came_count;
    return true;
}

static bool same(const struct assertion *a, uint64_t i)
{
    return i < a->wanted && i < a->came_count && a->gone[i] == (a->s->none != 0) &&
           slice_equal(a->came[i], a->expected[i]);
}

static void put_row(const struct run *r, char sign, struct slice values, bool gone)
{
    const char *colour = !r->trial->colours || sign == ' ' ? "" : sign == '-' ? RED : GREEN;
    fprintf(r->trial->out, "    %s%c %.*s%s%s\n", colour, sign, SLICE_ARG(values), gone ? " taken back" : "",
            *colour ? PLAIN : "");
}

static void show_diff(const struct run *r, const struct assertion *a)
{
    uint64_t rows = a->wanted > a->came_count ? a->wanted : a->came_count;
    if (a->wanted)
        fprintf(r->trial->out, "%s:%u: %.*s is not what was expected (-), but what came (+):\n", r->file, a->line,
                SLICE_ARG(a->name));
    else
        fprintf(r->trial->out, "%s:%u: nothing more was expected of %.*s, but this came (+):\n", r->file, a->line,
                SLICE_ARG(a->name));
    for (uint64_t i = 0; i < rows; i++) {
        if (same(a, i)) {
            put_row(r, ' ', a->came[i], a->gone[i]);
            continue;
        }
        if (i < a->wanted)
            put_row(r, '-', a->expected[i], a->s->none);
        if (i < a->came_count)
            put_row(r, '+', a->came[i], a->gone[i]);
    }
    if (a->came_count < a->wanted)
        fprintf(r->trial->out, "    %" PRIu64 " of %" PRIu64 " rows came\n", a->came_count, a->wanted);
    else if (a->more)
        fprintf(r->trial->out, "    and %" PRIu64 " more came behind\n", a->more);
}

static void put_rows(struct lines *l, const char *name, const struct slice *rows, const bool *gone, bool all_gone,
                     uint64_t count)
{
    lines_text(l, name);
    for (uint64_t i = 0; i < count; i++) {
        bool taken = gone ? gone[i] : all_gone;
        lines_text(l, i ? "," : "");
        lines_text(l, taken ? "{\"taken_back\":" : "");
        lines_put(l, rows[i].ptr, rows[i].len);
        lines_text(l, taken ? "}" : "");
    }
    lines_text(l, "]");
}

static void show_json(struct run *r, const struct assertion *a, bool passed)
{
    struct lines l;
    begin_line(r, &l, a->line);
    lines_text(&l, passed ? ",\"passed\":true,\"stream\":" : ",\"passed\":false,\"stream\":");
    lines_string(&l, a->name);
    if (!passed) {
        put_rows(&l, ",\"expected\":[", a->expected, NULL, a->s->none, a->wanted);
        put_rows(&l, ",\"came\":[", a->came, a->gone, false, a->came_count);
    }
    put_line(r, &l);
}

/* The values of SHOW QUERIES that are of interest, by the names of its columns. */
static void show_failed(const struct run *r, const struct json_view *columns, const struct json_view *row)
{
    static const char *const names[] = {"name", "state", "reason"};
    struct json_view values[ARRAY_LEN(names)] = {0}, none, column, name, value;
    struct json_items of = json_items_of(columns), in = json_items_of(row);
    char said[ARRAY_LEN(names)][512] = {{0}};
    while (json_items_next(&of, &none, &column) && json_items_next(&in, &none, &value))
        for (size_t i = 0; i < ARRAY_LEN(names); i++)
            if (json_view_member(&column, slice_str("name"), &name) && json_view_is(&name, slice_str(names[i])))
                values[i] = value;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (values[i].len < sizeof said[i])
            (void)json_view_text(&values[i], (uint8_t *)said[i]);
    if (strcmp(said[1], "FAILED") == 0)
        fprintf(r->trial->out, "    the query %s has failed: %s\n", said[0], said[2]);
}

/* Why nothing came: queries that cannot go on. What the assertion points to in the answer is gone then. */
static bool show_why(struct run *r)
{
    struct json_view head, line, columns, row;
    struct json_fault fault;
    struct slice text;
    bool ended;
    size_t at = 0;
    r->answer.len = 0;
    if (!trial_broker_ask(r->broker, slice_str("SHOW QUERIES"), &r->answer, &ended))
        return lost(r);
    if (!next_line(r, &at, &text) || !json_view_of(text, &head, &fault) ||
        !json_view_member(&head, slice_str("columns"), &columns))
        return true;
    while (next_line(r, &at, &text))
        if (json_view_of(text, &line, &fault) && json_view_member(&line, slice_str("row"), &row))
            show_failed(r, &columns, &row);
    return true;
}

static bool run_assert(struct run *r, struct slice text, const struct ast_assertion *s)
{
    struct assertion a = {
        .s = s, .name = s->name.at[s->name.count - 1], .line = line_of(r, text, s->ast.at), .wanted = s->rows.count};
    unsigned began = r->line;
    struct slice head;
    size_t at = 0;
    a.expected = arena_take(&r->arena, (a.wanted + 1) * sizeof *a.expected);
    bool ok = ask_rows(r, &a);
    r->line = began;
    if (!ok)
        return false;
    if (!a.expected || !next_line(r, &at, &head) || !read_types(r, &a, head))
        return lost(r);
    if (!expect_rows(r, &a, text) || !take_rows(r, &a))
        return false;
    bool passed = a.came_count == a.wanted;
    for (uint64_t i = 0; i < a.wanted; i++)
        passed = passed && same(&a, i);
    r->trial->passed += passed;
    r->trial->failed += !passed;
    if (r->trial->json)
        show_json(r, &a, passed);
    else if (!passed)
        show_diff(r, &a);
    return passed || r->trial->json || show_why(r);
}

/* ---- a file ---- */

/* False: nothing behind it is run. */
static bool run_statement(struct run *r, struct slice text)
{
    struct ast_list list;
    struct sql_error error = {0};
    arena_reset(&r->arena);
    arena_recycle(&r->values);
    bool parsed = sql_parse(text, &r->arena, &list, &error);
    if (parsed && list.count == 1 && list.at[0]->kind == AST_ASSERT)
        return run_assert(r, text, AST_AS(assertion, list.at[0]));
    if (parsed && list.count == 1 && list.at[0]->kind == AST_ADVANCE)
        return run_advance(r, text, AST_AS(advance, list.at[0]));
    return run_asked(r, text);
}

static void run_text(struct run *r, struct slice text)
{
    for (bool more = true; more;) {
        bool blank;
        size_t len = sql_split(text, &blank);
        more = len;
        len = more ? len : text.len;
        struct slice statement = sql_without_space(slice_of(text.ptr, len), &r->line);
        if (!blank && !run_statement(r, statement))
            return;
        r->line += sql_lines_in(statement);
        text = slice_of(text.ptr + len, text.len - len);
    }
}

void sql_trial_run(struct sql_trial *trial, const char *file, struct slice text)
{
    char why[300];
    struct run r = {.trial = trial, .file = file, .line = 1};
    if (trial_broker_open(&r.broker, why, sizeof why) < 0) {
        (void)refuse(&r, 1, why);
        return;
    }
    arena_init(&r.whole, SQL_PARSE_MEMORY_MAX);
    arena_init(&r.arena, SQL_PARSE_MEMORY_MAX);
    arena_init(&r.values, SQL_PARSE_MEMORY_MAX);
    lines_init(&r.answer, ANSWER_MAX);
    run_text(&r, text);
    lines_fini(&r.answer);
    arena_fini(&r.values);
    arena_fini(&r.arena);
    arena_fini(&r.whole);
    trial_broker_close(&r.broker);
}
