/* Runs queries over Nexmark's events, or over records that are given, for tests that compare with another engine.
 *
 *     query FILE BATCH EVENTS ORDER [SEED [STATE]]
 *                                       statements, the last of which is the query; rows a batch; events. With a SEED the query is saved and
 *                                       another one made of that at some 25 places, and batches are 1 to BATCH rows; 0: not. With a STATE that
 *                                       many bytes of state are in memory, and what is more is in a scratch file
 *     query --events EVENTS ORDER       prints the events, a line each
 *     query --script < INPUT            statements; an empty line; `stream TAB milliseconds TAB record` a line, in the order in which they come; an
 *                                       empty line; then `BATCH SEED query` a line, where seed 0 is none. Each query runs in a process of its own;
 *                                       behind its lines stands `= STATUS`, how that has ended
 *
 * ORDER is GROUP or GROUP:LATE: events are out of order within GROUP, and of LATE events about one comes 3,000 events after its time.
 *
 * Streams that are called person…, auction… or bid… have events of that kind only; of several streams the last is read first.
 * Prints a JSON array a row: its weight, then the values. At the end the watermark passes everything. The last line is an object: late rows, rows
 * with faults, bytes of state at the end; with a STATE also the most there were, and the most in the scratch file.
 */
#include "sql/query/query.h"
#include "sql/language/parse.h"
#include "sql/query/nexmark.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define STATE_MAX ((size_t)1 << 30)
#define EVENTS_MAX 100000000u
#define HELD_EVENTS 3000u
#define SCRIPT_MAX ((size_t)64 << 20)
#define GIVEN_MAX 100000u
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

/* What a run needs to make its query, and all that a snapshot is. */
struct run {
    struct catalog catalog;
    const struct ast *statement;
    struct printer printer;
    struct query *q;
    struct arena arena;
    struct slice text; /* its own */
    uint64_t chance;
    bool measured;
    size_t state_max, most;
    uint64_t most_spilled;
    uint8_t *saved;
    size_t len, given;
};

static uint64_t chance_next(struct run *r)
{
    r->chance ^= r->chance << 13;
    r->chance ^= r->chance >> 7;
    r->chance ^= r->chance << 17;
    return r->chance;
}

static void *disk_open(void *arg)
{
    (void)arg;
    return tmpfile();
}

static enum sql_fault disk_write(void *file, uint64_t at, const void *bytes, size_t len)
{
    return pwrite(fileno(file), bytes, len, (off_t)at) == (ssize_t)len ? SQL_FAULT_NONE : SQL_FAULT_SCRATCH_LOST;
}

static bool disk_read(void *file, uint64_t at, void *ret, size_t len)
{
    return pread(fileno(file), ret, len, (off_t)at) == (ssize_t)len;
}

static void disk_close(void *file)
{
    fclose(file);
}

static void query_make(struct run *r)
{
    static const struct scratch_disk disk = {
        .open = disk_open, .write = disk_write, .read = disk_read, .close = disk_close};
    struct sql_error error = {0};
    r->q = query_new(&r->catalog, r->statement, r->state_max, &r->printer.op, &error);
    if (!r->q)
        fail(&error, r->text);
    if (r->state_max < STATE_MAX)
        query_spill(r->q, &disk, STATE_MAX);
    r->printer.plan = query_plan(r->q);
}

/* What it gives of nothing. */
static void begin(struct run *r)
{
    enum sql_fault fault;
    if (!query_begin(r->q, 0, &fault))
        die(sql_fault_text(fault));
}

static bool take(void *arg, struct slice piece)
{
    struct run *r = arg;
    r->saved = realloc(r->saved, r->len + piece.len);
    if (!r->saved)
        die("no memory");
    memcpy(r->saved + r->len, piece.ptr, piece.len);
    r->len += piece.len;
    return true;
}

static bool give(void *arg, struct slice *ret)
{
    struct run *r = arg;
    size_t some = r->len - r->given < STATE_PIECE ? r->len - r->given : STATE_PIECE;
    *ret = slice_of(r->saved + r->given, some);
    r->given += some;
    return some > 0;
}

static void restart(struct run *r)
{
    struct state_writer w;
    struct state_reader reader;
    struct sql_error error = {0};
    r->len = r->given = 0;
    if (!state_writer_init(&w, take, r))
        die("no memory");
    query_save(r->q, &w);
    if (!state_writer_end(&w))
        die("the query cannot be saved");
    query_free(&r->q);
    query_make(r);
    state_reader_init(&reader, give, r);
    if (!query_load(r->q, &reader, &error))
        fail(&error, r->text);
    if (!state_reader_end(&reader))
        die("an operator reads less than it has saved");
}

/* A stream whose name begins so has events of that kind only, in the same envelope. */
static bool wanted(struct slice stream, enum nexmark_kind kind)
{
    static const char *const names[] = {
        [NEXMARK_PERSON] = "person", [NEXMARK_AUCTION] = "auction", [NEXMARK_BID] = "bid"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (slice_starts(stream, names[i]))
            return i == kind;
    return true;
}

/* All events, by the places where they stand. */
struct order {
    struct nexmark nexmark;
    uint32_t *numbers; /* of the event at each place */
    uint64_t events;
};

static bool comes_late(uint64_t number, uint64_t one_of)
{
    return one_of && (number * 0x9e3779b97f4a7c15u >> 32) % one_of == 0;
}

static struct order order_of(const char *events, const char *text)
{
    struct order o = {.nexmark = nexmark_default(), .events = strtoull(events, NULL, 10)};
    char *rest;
    o.nexmark.group = (uint32_t)strtoul(text, &rest, 10);
    uint64_t one_of = *rest == ':' ? strtoull(rest + 1, NULL, 10) : 0, at = 0, held = 0, count = 0;
    if (o.events > EVENTS_MAX)
        die("that many events have no place");
    o.numbers = malloc((o.events + 1) * sizeof *o.numbers);
    if (!o.numbers)
        die("no memory");
    /* `held` goes through the same places behind `at`, for those that are passed over there. */
    for (; held < o.events; at++) {
        uint64_t number = nexmark_number(&o.nexmark, at);
        if (at < o.events && !comes_late(number, one_of))
            o.numbers[count++] = (uint32_t)number;
        for (; held < o.events && (held + HELD_EVENTS <= at || at >= o.events); held++)
            if (comes_late(number = nexmark_number(&o.nexmark, held), one_of))
                o.numbers[count++] = (uint32_t)number;
    }
    return o;
}

static void print_events(const struct order *o)
{
    uint8_t line[NEXMARK_EVENT_MAX];
    for (uint64_t i = 0; i < o->events; i++) {
        struct writer w = writer_of(line, sizeof line);
        nexmark_write(&o->nexmark, o->numbers[i], &w);
        printf("%.*s\n", (int)w.len, (const char *)line);
    }
}

static void feed(struct run *r, uint32_t source, const struct order *o, uint32_t batch)
{
    const struct nexmark *nexmark = &o->nexmark;
    uint64_t events = o->events;
    uint8_t *room = malloc((size_t)batch * NEXMARK_EVENT_MAX);
    struct slice *records = malloc(batch * sizeof *records);
    int64_t *ts = malloc(batch * sizeof *ts);
    uint64_t offset = 0, at = 0;
    enum sql_fault fault;
    while (at < events) {
        struct writer w = writer_of(room, (size_t)batch * NEXMARK_EVENT_MAX);
        uint32_t rows = 0, most = r->chance ? (uint32_t)(1 + chance_next(r) % batch) : batch;
        if (r->chance && chance_next(r) % (events / most + 1) < 25)
            restart(r);
        for (; rows < most && at < events; at++) {
            uint64_t number = o->numbers[at];
            size_t from = w.len;
            if (!wanted(query_source(r->q, source), nexmark_kind_of(number)))
                continue;
            nexmark_write(nexmark, number, &w);
            records[rows] = slice_of(room + from, w.len - from);
            ts[rows++] = nexmark_time(nexmark, at) * 1000 + 7000;
        }
        struct query_input in = {.source = source, .records = records, .ts_us = ts, .offset = offset, .rows = rows};
        if (!query_step(r->q, &in, &fault))
            die(sql_fault_text(fault));
        r->most = query_state_bytes(r->q) > r->most ? query_state_bytes(r->q) : r->most;
        r->most_spilled = query_spilled_bytes(r->q) > r->most_spilled ? query_spilled_bytes(r->q) : r->most_spilled;
        offset += rows;
    }
    free(room);
    free(records);
    free(ts);
}

/* One stream after the other, the last first: then the others' rows find all of its rows. */
static void feed_all(struct run *r, const struct order *o, uint32_t batch)
{
    for (uint32_t i = query_plan(r->q)->source_count; i-- > 0;)
        feed(r, i, o, batch);
}

/* Statements, the last of which is the query. */
static void run_begin(struct run *r, struct slice text, uint64_t seed, size_t state_max)
{
    static const struct op_kind kind = {.name = "print", .push = print_rows};
    struct sql_error error = {0};
    struct ast_list list;
    *r = (struct run){
        .printer = {.op = {.kind = &kind}}, .catalog = catalog_init(), .text = text, .state_max = state_max};
    r->chance = seed * 0x9e3779b97f4a7c15u;
    arena_init(&r->arena, SQL_PARSE_MEMORY_MAX);
    if (!sql_parse(text, &r->arena, &list, &error) || !list.count)
        fail(&error, text);
    for (size_t i = 0; i + 1 < list.count; i++)
        if (!catalog_add(&r->catalog, list.at[i], &error))
            fail(&error, text);
    r->statement = list.at[list.count - 1];
    query_make(r);
    begin(r);
}

static void run_end(struct run *r)
{
    enum sql_fault fault;
    for (uint32_t i = 0; i < query_plan(r->q)->source_count; i++)
        if (!query_advance(r->q, i, END_US, &fault))
            die(sql_fault_text(fault));
    printf("{\"late\": %llu, \"faults\": %llu, \"state\": %zu", (unsigned long long)query_late(r->q),
           (unsigned long long)query_faults(r->q), query_state_bytes(r->q));
    if (r->measured)
        printf(", \"most\": %zu, \"spilled\": %llu", r->most, (unsigned long long)r->most_spilled);
    printf("}\n");
    query_free(&r->q);
    arena_fini(&r->arena);
    free((void *)r->text.ptr);
    free(r->saved);
}

/* Records in the order in which they come. */
struct script {
    char *statements, *at; /* what comes behind what has been read */
    struct slice streams[GIVEN_MAX], records[GIVEN_MAX];
    int64_t ts_us[GIVEN_MAX];
    uint32_t count;
};

static char *next_line(struct script *s)
{
    char *line = s->at, *end = strchr(line, '\n');
    if (!end)
        return NULL;
    *end = 0;
    s->at = end + 1;
    return line;
}

static void script_read(struct script *s)
{
    char *text = calloc(1, SCRIPT_MAX), *line;
    if (!text)
        die("no memory");
    size_t len = fread(text, 1, SCRIPT_MAX - 1, stdin);
    char *end = len ? strstr(text, "\n\n") : NULL;
    if (!end)
        die("a script is statements, records and queries");
    *end = 0;
    s->statements = text;
    for (s->at = end + 2; (line = next_line(s)) && line[0]; s->count++) {
        char *ms = strchr(line, '\t'), *record = ms ? strchr(ms + 1, '\t') : NULL;
        if (!record || s->count == GIVEN_MAX)
            die("a record is `stream TAB milliseconds TAB record`, 100,000 at most");
        s->streams[s->count] = slice_of(line, (size_t)(ms - line));
        s->ts_us[s->count] = strtoll(ms + 1, NULL, 10) * 1000;
        s->records[s->count] = slice_str(record + 1);
    }
}

/* All sources of that stream have read so many of its records. */
static void step_all(struct run *r, const struct script *s, uint32_t from, uint32_t rows)
{
    enum sql_fault fault;
    uint64_t offset = 0;
    for (uint32_t i = 0; i < from; i++)
        offset += slice_equal(s->streams[i], s->streams[from]);
    for (uint32_t i = 0; i < query_plan(r->q)->source_count; i++) {
        struct query_input in = {
            .source = i, .records = s->records + from, .ts_us = s->ts_us + from, .offset = offset, .rows = rows};
        if (slice_equal(query_source(r->q, i), s->streams[from]) && !query_step(r->q, &in, &fault))
            die(sql_fault_text(fault));
    }
}

/* A batch ends where a record of another stream comes. */
static void replay(struct run *r, const struct script *s, uint32_t batch)
{
    for (uint32_t from = 0, rows; from < s->count; from += rows) {
        uint32_t most = r->chance ? (uint32_t)(1 + chance_next(r) % batch) : batch;
        for (rows = 1; rows < most && from + rows < s->count; rows++)
            if (!slice_equal(s->streams[from], s->streams[from + rows]))
                break;
        if (r->chance && chance_next(r) % 8 == 0)
            restart(r);
        step_all(r, s, from, rows);
    }
}

static void script_play(const struct script *s, char *line)
{
    struct run r;
    char *seed, *query, *text;
    uint32_t batch = (uint32_t)strtoul(line, &seed, 10);
    uint64_t chance = strtoull(seed, &query, 10);
    if (batch < 1 || batch > BATCH_ROWS_MAX || asprintf(&text, "%s\n%s;\n", s->statements, query) < 0)
        die("a query is `BATCH SEED query`");
    run_begin(&r, slice_str(text), chance, STATE_MAX);
    replay(&r, s, batch);
    run_end(&r);
}

static void script_play_all(void)
{
    static struct script script;
    script_read(&script);
    for (char *line; (line = next_line(&script)) != NULL;) {
        int status = -1;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            dup2(STDOUT_FILENO, STDERR_FILENO);
            script_play(&script, line);
            free(script.statements);
            exit(0);
        }
        if (child < 0 || waitpid(child, &status, 0) != child)
            die("no process");
        printf("= %d\n", status);
    }
    free(script.statements);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--events") == 0) {
        struct order events = order_of(argv[2], argv[3]);
        print_events(&events);
        free(events.numbers);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--script") == 0) {
        script_play_all();
        return 0;
    }
    if (argc < 5 || argc > 7)
        die("see the top of tests/sql/query.c");
    struct run r;
    uint32_t batch = (uint32_t)strtoul(argv[2], NULL, 10);
    if (batch < 1 || batch > BATCH_ROWS_MAX)
        die("a batch has 1 to 4096 rows");
    run_begin(&r, read_file(argv[1]), argc > 5 ? strtoull(argv[5], NULL, 10) : 0,
              argc == 7 ? strtoull(argv[6], NULL, 10) : STATE_MAX);
    r.measured = argc == 7;
    struct order order = order_of(argv[3], argv[4]);
    feed_all(&r, &order, batch);
    free(order.numbers);
    run_end(&r);
    return 0;
}
