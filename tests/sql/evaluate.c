/* Evaluates SQL expressions over JSON records, for tests that compare with another engine.
 *
 *     evaluate BATCH < input     rows a batch
 *
 * Input: a line `name type` for each column, an empty line; a JSON object a line for each record, an empty line; then an
 * expression a line. Output: for each expression one JSON array with a value a record (a fault is {"fault": "SQLSTATE"}), or ERROR and why.
 */
#include "base/mem.h"
#include "fmt/json_scan.h"
#include "sql/language/bind.h"
#include "sql/language/decimal.h"
#include "sql/language/kernel.h"
#include "sql/language/parse.h"

#include <stdio.h>
#include <stdlib.h>

#define COLUMNS_MAX 16u
#define MEMORY_MAX (64u << 20)
#define LINE_MAX_LEN (1u << 20)

struct table {
    struct scope_column columns[COLUMNS_MAX];
    struct scope scope;
    struct arena arena;
    struct slice records[BATCH_ROWS_MAX];
    uint32_t rows;
};

static void die(const char *why)
{
    fprintf(stderr, "evaluate: %s\n", why);
    exit(2);
}

static void *take(struct arena *arena, size_t len)
{
    void *got = arena_take(arena, len);
    if (!got)
        die("no memory");
    return got;
}

/* Without its end; false: there is none. */
static bool read_line(char *line)
{
    if (!fgets(line, LINE_MAX_LEN, stdin))
        return false;
    line[strcspn(line, "\n")] = 0;
    return true;
}

static struct slice kept(struct arena *arena, const char *text)
{
    size_t len = strlen(text);
    return slice_of(memcpy(take(arena, len), text, len), len);
}

static void read_table(struct table *t, char *line)
{
    struct sql_error error;
    struct ast *type;
    while (read_line(line) && line[0]) {
        char *space = strchr(line, ' ');
        if (!space || t->scope.count == COLUMNS_MAX || !sql_parse_type(slice_str(space + 1), &t->arena, &type, &error))
            die("a column is `name type`");
        *space = 0;
        struct scope_column *c = &t->columns[t->scope.count++];
        c->name = kept(&t->arena, line);
        if (!type_of_ast(type, &t->arena, &c->type, &error))
            die(error.message);
    }
    t->scope.columns = t->columns;
    while (read_line(line) && line[0] && t->rows < BATCH_ROWS_MAX)
        t->records[t->rows++] = kept(&t->arena, line);
}

static bool set_value(const struct sql_type *type, const struct json_view *view, void *values, uint32_t row,
                      struct arena *arena)
{
    if (view->kind == JSON_VIEW_NULL || view->kind == JSON_VIEW_ABSENT)
        return false;
    switch (type_form(type->kind)) {
    case FORM_I64: ((int64_t *)values)[row] = view->number; return true;
    case FORM_F64: return json_view_double(view, &((double *)values)[row]);
    case FORM_BOOL: ((uint8_t *)values)[row] = view->kind == JSON_VIEW_TRUE; return true;
    case FORM_TEXT: {
        uint8_t *text = take(arena, view->len);
        ((struct slice *)values)[row] = slice_of(text, json_view_text(view, text));
        return true;
    }
    default: die("columns are integers, doubles, booleans and texts"); return false;
    }
}

/* Records from .. from + rows - 1 as columns. */
static struct column *read_batch(struct table *t, uint32_t from, uint32_t rows, struct arena *arena)
{
    struct json_scan *scan = json_scan_new();
    struct column *columns = take(arena, COLUMNS_MAX * sizeof *columns);
    struct json_view views[COLUMNS_MAX];
    struct json_fault fault;
    for (uint32_t c = 0; c < t->scope.count; c++) {
        struct json_step step = {.key = t->columns[c].name};
        enum sql_form form = type_form(t->columns[c].type.kind);
        if (json_scan_want(scan, &step, 1) != (int)c)
            die("a column twice");
        columns[c] = (struct column){
            .form = form, .values = take(arena, rows * form_size(form)), .nulls = take(arena, bits_size(rows))};
        memset(columns[c].nulls, 0, bits_size(rows));
    }
    for (uint32_t row = 0; row < rows; row++) {
        if (!json_scan_read(scan, t->records[from + row], views, &fault))
            die(fault.why);
        for (uint32_t c = 0; c < t->scope.count; c++)
            if (!set_value(&t->columns[c].type, &views[c], columns[c].values, row, arena))
                bit_set(columns[c].nulls, row);
    }
    json_scan_free(&scan);
    return columns;
}

static void print_text(struct slice text)
{
    putchar('"');
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] < ' ' || text.ptr[i] == '"' || text.ptr[i] == '\\')
            printf("\\u%04x", text.ptr[i]);
        else
            putchar(text.ptr[i]);
    putchar('"');
}

static void print_value(struct eval *e, const struct expr *x, const struct column *r, uint32_t row)
{
    struct slice text;
    bool plain = type_is_number(x->type.kind) || x->type.kind == TYPE_BOOL;
    if (e->faults && e->faults[row]) {
        printf("{\"fault\": \"%s\"}", sql_fault_state((enum sql_fault)e->faults[row]));
    } else if (column_null(r, row)) {
        printf("null");
    } else {
        if (!eval_text(e, &x->type, r, row, &text))
            die("no memory");
        if (plain)
            printf("%.*s", SLICE_ARG(text));
        else
            print_text(text);
    }
}

static void print_expression(struct table *t, const char *text, uint32_t batch)
{
    struct arena plan, arena;
    struct sql_error error = {0};
    struct ast *tree;
    arena_init(&plan, MEMORY_MAX);
    arena_init(&arena, MEMORY_MAX);
    struct expr *x =
        sql_parse_expression(slice_str(text), &plan, &tree, &error) ? sql_bind(tree, &t->scope, &plan, &error) : NULL;
    if (!x)
        printf("ERROR %s: %s", sql_fault_state(error.fault), error.message);
    else
        putchar('[');
    for (uint32_t from = 0; x && from < t->rows; from += batch) {
        uint32_t rows = t->rows - from < batch ? t->rows - from : batch;
        struct eval e = eval_begin(&arena, read_batch(t, from, rows, &arena), t->scope.count, rows);
        const struct column *r = eval_expr(&e, x, (struct sel){.count = rows});
        if (!r)
            die("no memory");
        for (uint32_t row = 0; row < rows; row++) {
            printf("%s", from + row ? ", " : "");
            print_value(&e, x, r, row);
        }
        arena_reset(&arena);
    }
    printf(x ? "]\n" : "\n");
    arena_fini(&plan);
    arena_fini(&arena);
}

int main(int argc, char **argv)
{
    static char line[LINE_MAX_LEN];
    static struct table table;
    uint32_t batch = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1024;
    if (batch < 1 || batch > BATCH_ROWS_MAX)
        die("a batch has 1 to 4096 rows");
    arena_init(&table.arena, MEMORY_MAX);
    read_table(&table, line);
    while (read_line(line))
        print_expression(&table, line, batch);
    arena_fini(&table.arena);
    return 0;
}
