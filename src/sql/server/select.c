/* SELECT by itself, see server_int.h: its rows go to who asked.
 *
 * With EMIT it goes on until the client stops it, or LIMIT is reached. Without, it is about what the streams hold when it begins: they are read up to
 * there, then time ends, so that every window is complete; rows that were taken back meanwhile are not said at all. */
#include "sql/server/run.h"

#include "base/mem.h"
#include "sql/language/constant.h"

#define TIME_END (INT64_MAX - 1)
#define OUT_WAITS_MAX (64u * 1024)

/* Rows of a bounded SELECT that may still be taken back. */
struct kept {
    struct list link;
    int64_t count;
    struct slice text;
    uint8_t bytes[];
};

struct server_select {
    struct op op; /* first: where the rows go */
    struct request *r;
    struct server_run *run;
    const struct plan *plan;
    bool begun; /* the columns are said */
    bool folds; /* rows are kept until the end */
    uint64_t limit;
    struct map map; /* struct kept, by text */
    struct list rows;
    size_t kept_bytes;
    struct lines line;
};

bool run_select_full(const struct server_run *run)
{
    return !run->select->begun || run->request->out.len > OUT_WAITS_MAX;
}

/* ---- rows ---- */

static void say_row(struct server_select *s, struct slice values, int weight)
{
    struct lines *out = &s->r->out;
    if (s->r->rows >= s->limit)
        return;
    lines_text(out, "{\"row\":[");
    lines_put(out, values.ptr, values.len);
    lines_text(out, weight < 0 ? "],\"change\":\"-\"}\n" : "]}\n");
    s->run->over = ++s->r->rows == s->limit;
}

/* False: no memory, or more than a query may keep. */
static bool keep_row(struct server_select *s, struct slice values, int weight)
{
    struct kept *kept = map_get(&s->map, values);
    if (!kept) {
        size_t len = sizeof *kept + values.len;
        kept =
            s->kept_bytes + len <= s->r->server->options.state_memory && map_reserve(&s->map) ? mem_alloc(len) : NULL;
        if (!kept)
            return false;
        s->kept_bytes += len;
        kept->count = 0;
        memcpy(kept->bytes, values.ptr, values.len);
        kept->text = slice_of(kept->bytes, values.len);
        list_insert(&s->rows, &kept->link);
        (void)map_put(&s->map, kept->text, kept);
    }
    kept->count += weight;
    if (kept->count != 0)
        return true;
    (void)map_take(&s->map, kept->text);
    s->kept_bytes -= sizeof *kept + kept->text.len;
    list_remove(&kept->link);
    mem_free(kept);
    return true;
}

static bool select_push(struct op *op, struct step *step, const struct batch *b)
{
    struct server_select *s = CONTAINER_OF(op, struct server_select, op);
    struct eval e = eval_begin(b->arena, b->columns, b->column_count, b->rows);
    for (uint32_t k = 0; k < b->sel.count; k++) {
        uint32_t row = sel_row(b->sel, k);
        int weight = batch_weight(b, row);
        s->line.len = 0;
        for (uint32_t i = 0; i < b->column_count; i++) {
            if (i)
                lines_put(&s->line, ",", 1);
            if (!constant_say(&s->line, &e, &s->plan->columns[i].type, &b->columns[i], row))
                return op_fail(step, SQL_FAULT_MEMORY);
        }
        struct slice values = slice_of(s->line.bytes, s->line.len);
        if (s->line.failed || (s->folds && !keep_row(s, values, weight)))
            return op_fail(step, SQL_FAULT_MEMORY);
        if (!s->folds)
            say_row(s, values, weight);
    }
    return true;
}

void server_select_free(struct server_select **select)
{
    struct server_select *s = *select;
    *select = NULL;
    if (!s)
        return;
    LIST_EACH(&s->rows, node, after)
    mem_free(CONTAINER_OF(node, struct kept, link));
    map_fini(&s->map);
    lines_fini(&s->line);
    mem_free(s);
}

/* ---- the statement ---- */

static void say_columns(struct request *r, const struct plan *plan)
{
    lines_text(&r->out, "{\"statement\":");
    lines_number(&r->out, r->at);
    lines_text(&r->out, ",\"columns\":[");
    for (uint32_t i = 0; i < plan->column_count; i++) {
        lines_text(&r->out, i ? ",{\"name\":" : "{\"name\":");
        lines_string(&r->out, plan->columns[i].name);
        lines_text(&r->out, ",\"type\":");
        server_put_type(&r->out, &plan->columns[i].type);
        lines_text(&r->out, "}");
    }
    lines_text(&r->out, "]}\n");
}

/* LIMIT n of a query that goes on is the server's: it ends it. *ret: the query without. */
static bool take_limit(struct request *r, const struct ast_query *query, struct ast **ret, uint64_t *ret_limit)
{
    *ret_limit = UINT64_MAX;
    if (!query->limit)
        return true;
    const struct ast_literal *n = AST_AS(literal, query->limit);
    struct ast_query *copy = arena_take(&r->arena, sizeof *copy);
    uint64_t limit = 0;
    bool ok = copy && n->ast.kind == AST_LITERAL && n->what == LITERAL_NUMBER && n->text.len < 16;
    for (size_t i = 0; ok && i < n->text.len; i++) {
        ok = n->text.ptr[i] >= '0' && n->text.ptr[i] <= '9';
        limit = limit * 10 + (n->text.ptr[i] - (uint8_t)'0');
    }
    if (!ok)
        return false;
    *copy = *query;
    copy->limit = NULL;
    *ret = &copy->ast;
    *ret_limit = limit;
    return true;
}

static enum verdict begin(struct request *r, const struct ast_run *statement)
{
    static const struct op_kind kind = {.name = "select", .push = select_push};
    struct sql_error error = {0};
    struct ast_run what = *statement;
    uint64_t limit;
    if (!take_limit(r, AST_AS(query, statement->query), &what.query, &limit))
        return request_refuse(r, "22023", "LIMIT is a number here");
    struct server_run *run = r->run = run_new(r->server, r->user, r->vhost);
    struct server_select *s = run ? mem_zalloc(sizeof *s) : NULL;
    if (!s)
        return request_refuse(r, "53300", "there are too many queries, or no memory");
    run->select = s;
    run->request = r;
    *s = (struct server_select){.op.kind = &kind, .r = r, .run = run, .limit = limit};
    list_init(&s->rows);
    map_init(&s->map, r->server->options.seed);
    lines_init(&s->line, 4u << 20);
    if (!run_uses(run, r->vhost))
        return request_refuse(r, "53200", "no memory for the query");
    run->query = server_plan(r->server, r->vhost, NULL, &what, 0, &r->arena, &s->op, &error);
    if (!run->query)
        return request_error(r, &error, r->text, 0);
    query_spill(run->query, r->server->options.disk, r->server->options.scratch_max);
    if (!run_sources(run))
        return request_refuse(r, "53200", "no memory for the query");
    for (uint32_t i = 0; i < run->source_count; i++)
        if (run->sources[i].queue)
            return request_refuse(
                r, "0A000",
                "%.*s is a queue, and who reads a queue takes its messages: CREATE STREAM name AS this query",
                SLICE_ARG(run->sources[i].topic));
    s->plan = query_plan(run->query);
    run->bounded = !statement->emit;
    run->state = RUN_LOOKING;
    s->folds = run->bounded && s->plan->retracts;
    run->over = limit == 0;
    r->step = 1;
    return VERDICT_WAIT;
}

static enum verdict run_ends(struct request *r)
{
    return request_refuse(r, r->run->code ? r->run->code : "58000", "%s", r->run->why);
}

/* What it reads is there, and the user may read it: only then there is a table. */
static enum verdict open_table(struct request *r)
{
    if (r->run->state <= RUN_LOOKING)
        return VERDICT_WAIT;
    say_columns(r, r->run->select->plan);
    r->run->select->begun = true;
    r->step = 2;
    return VERDICT_WAIT;
}

/* All that was there has been read: time ends. */
static bool finish(struct server_run *run)
{
    enum sql_fault fault;
    if (run->state != RUN_GOING || !run->bounded || run->owes_first)
        return false;
    for (uint32_t i = 0; i < run->source_count; i++)
        for (uint32_t k = 0; k < run->sources[i].count; k++)
            if (run->sources[i].partitions[k].place < run->sources[i].partitions[k].until)
                return false;
    for (uint32_t i = 0; i < run->source_count && !run->over; i++)
        if (!query_advance(run->query, i, TIME_END, &fault)) {
            run_fail(run, "%s", sql_fault_text(fault));
            return false;
        }
    struct server_select *s = run->select;
    s->folds = false;
    while (!list_empty(&s->rows)) {
        struct kept *kept = CONTAINER_OF(s->rows.next, struct kept, link);
        for (int64_t i = 0; i < kept->count; i++)
            say_row(s, kept->text, 1);
        list_remove(&kept->link);
        (void)map_take(&s->map, kept->text);
        mem_free(kept);
    }
    return true;
}

enum verdict statement_select(struct request *r, const struct ast *s)
{
    if (r->step == 0)
        return begin(r, AST_AS(run, s));
    if (r->run->failed)
        return run_ends(r);
    if (r->step == 1)
        return open_table(r);
    if (!r->run->over && !finish(r->run))
        return r->run->failed ? run_ends(r) : VERDICT_WAIT;
    lines_text(&r->out, "{\"done\":\"SELECT\",\"rows\":");
    lines_number(&r->out, (int64_t)r->rows);
    lines_text(&r->out, "}\n");
    return VERDICT_DONE;
}
