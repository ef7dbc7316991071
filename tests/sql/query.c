/* Runs a query over Nexmark's events, for tests that compare with another engine.
 *
 *     query FILE BATCH EVENTS GROUP     statements, the last of which is the query; rows a batch; events; out of order within GROUP
 *     query --events EVENTS GROUP       prints the events, a line each
 *
 * Prints a JSON array a row: its weight, then the values. At the end the watermark passes everything. The last line is an object: late rows, rows
 * with faults, bytes of state at the end.
 */
#include "sql/query.h"
#include "sql/nexmark.h"
#include "sql/parse.h"

#include <stdio.h>
#include <stdlib.h>

#define STATE_MAX ((size_t)1 << 30)
#define END_US (NEXMARK_BASE_MS * 1000 + 1000 * US_PER_DAY)

static void die(const char *why)
{
    fprintf(stderr, "query: %s\n", why);
    exit(2);
}

struct printer {
    struct op op;
    const struct plan *plan;
};

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

static bool print_rows(struct op *op, struct step *step, const struct batch *b)
{
    struct printer *p = CONTAINER_OF(op, struct printer, op);
    struct eval e = eval_begin(b->arena, b->columns, b->column_count, b->rows);
    (void)step;
    for (uint32_t k = 0; k < b->sel.count; k++) {
        uint32_t row = sel_row(b->sel, k);
        printf("[%d", batch_weight(b, row));
        for (uint32_t i = 0; i < b->column_count; i++) {
            const struct sql_type *type = &p->plan->columns[i].type;
            struct slice text;
            printf(", ");
            if (column_null(&b->columns[i], row)) {
                printf("null");
                continue;
            }
            if (!eval_text(&e, type, &b->columns[i], row, &text))
                die("no memory");
            if (type_is_number(type->kind) || type->kind == TYPE_BOOL)
                printf("%.*s", SLICE_ARG(text));
            else
                print_text(text);
        }
        printf("]\n");
    }
    return true;
}

static struct slice read_file(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = malloc(SQL_TEXT_MAX);
    if (!f || !text)
        die("the file cannot be read");
    size_t len = fread(text, 1, SQL_TEXT_MAX, f);
    fclose(f);
    return slice_of(text, len);
}

static void fail(const struct sql_error *error, struct slice text)
{
    char shown[2048];
    struct writer w = writer_of(shown, sizeof shown);
    sql_error_print(error, text, &w);
    fprintf(stderr, "ERROR %s: %.*s\n", sql_fault_state(error->fault), (int)w.len, shown);
    exit(1);
}

static void feed(struct query *q, const struct nexmark *nexmark, uint64_t events, uint32_t batch)
{
    uint8_t *room = malloc((size_t)batch * NEXMARK_EVENT_MAX);
    struct slice *records = malloc(batch * sizeof *records);
    int64_t *ts = malloc(batch * sizeof *ts);
    enum sql_fault fault;
    for (uint64_t from = 0; from < events; from += batch) {
        struct writer w = writer_of(room, (size_t)batch * NEXMARK_EVENT_MAX);
        uint32_t rows = events - from < batch ? (uint32_t)(events - from) : batch;
        for (uint32_t i = 0; i < rows; i++) {
            size_t at = w.len;
            nexmark_write(nexmark, nexmark_number(nexmark, from + i), &w);
            records[i] = slice_of(room + at, w.len - at);
            ts[i] = nexmark_time(nexmark, from + i) * 1000 + 7000;
        }
        struct query_input in = {.records = records, .ts_us = ts, .offset = from, .rows = rows};
        if (!query_step(q, &in, &fault))
            die(sql_fault_text(fault));
    }
    if (!query_advance(q, 0, END_US, &fault))
        die(sql_fault_text(fault));
    free(room);
    free(records);
    free(ts);
}

int main(int argc, char **argv)
{
    struct nexmark nexmark = nexmark_default();
    if (argc == 4 && strcmp(argv[1], "--events") == 0) {
        uint8_t line[NEXMARK_EVENT_MAX];
        nexmark.group = (uint32_t)strtoul(argv[3], NULL, 10);
        for (uint64_t i = 0; i < strtoull(argv[2], NULL, 10); i++) {
            struct writer w = writer_of(line, sizeof line);
            nexmark_write(&nexmark, nexmark_number(&nexmark, i), &w);
            printf("%.*s\n", (int)w.len, (const char *)line);
        }
        return 0;
    }
    if (argc != 5)
        die("see the top of tests/sql/query.c");
    static const struct op_kind kind = {.name = "print", .push = print_rows};
    struct printer printer = {.op = {.kind = &kind}};
    struct slice text = read_file(argv[1]);
    struct sql_error error = {0};
    struct catalog catalog = catalog_init();
    struct arena arena;
    struct ast_list list;
    uint32_t batch = (uint32_t)strtoul(argv[2], NULL, 10);
    arena_init(&arena, SQL_PARSE_MEMORY_MAX);
    if (batch < 1 || batch > BATCH_ROWS_MAX)
        die("a batch has 1 to 4096 rows");
    if (!sql_parse(text, &arena, &list, &error) || !list.count)
        fail(&error, text);
    for (size_t i = 0; i + 1 < list.count; i++)
        if (!catalog_add(&catalog, list.at[i], &error))
            fail(&error, text);
    struct query *q = query_new(&catalog, list.at[list.count - 1], STATE_MAX, &printer.op, &error);
    if (!q)
        fail(&error, text);
    printer.plan = query_plan(q);
    nexmark.group = (uint32_t)strtoul(argv[4], NULL, 10);
    feed(q, &nexmark, strtoull(argv[3], NULL, 10), batch);
    printf("{\"late\": %llu, \"faults\": %llu, \"state\": %zu}\n", (unsigned long long)query_late(q),
           (unsigned long long)query_faults(q), query_state_bytes(q));
    query_free(&q);
    arena_fini(&arena);
    free((void *)text.ptr);
    return 0;
}
