/* CREATE STREAM … INFER, see server_int.h: columns from what the stream holds.
 *
 * A query that goes nowhere reads the first records as texts, and what they have in common becomes the statement that is kept: with columns, and without
 * INFER, so that a restart, and a stream that has changed since, find the same. */
#include "sql/server/run.h"

#include "base/mem.h"
#include "sql/language/parse.h"
#include "sql/language/print.h"
#include "sql/query/infer.h"

#define SAMPLE_RECORDS 1000u
#define SAMPLE_BYTES (4u << 20)
#define TEXT_MAX (256u * 1024)

struct server_infer {
    struct op op; /* first: where the records go */
    struct server_run *run;
    struct server_object *raw; /* the stream, seen as texts */
    struct infer infer;
    struct slice within;
    uint64_t records;
    size_t bytes;
};

static bool infer_push(struct op *op, struct step *step, const struct batch *b)
{
    struct server_infer *i = CONTAINER_OF(op, struct server_infer, op);
    (void)step;
    for (uint32_t k = 0; k < b->sel.count && !i->run->over; k++) {
        uint32_t row = sel_row(b->sel, k);
        struct slice record = ((const struct slice *)b->columns[0].values)[row & column_mask(&b->columns[0])];
        infer_add(&i->infer, record, i->within);
        i->bytes += record.len;
        i->run->over = ++i->records == SAMPLE_RECORDS || i->bytes >= SAMPLE_BYTES;
    }
    return true;
}

void server_infer_free(struct server_infer **infer)
{
    struct server_infer *i = *infer;
    *infer = NULL;
    if (!i)
        return;
    server_run_stop(&i->run);
    server_object_unref(&i->raw);
    mem_free(i);
}

static struct slice option_of(const struct ast_create_stream *s, const char *key)
{
    for (size_t i = 0; i < s->options.count; i++) {
        const struct ast_option *o = AST_AS(option, s->options.at[i]);
        if (name_equal(o->key, slice_str(key)) && o->value->kind == AST_LITERAL)
            return AST_AS(literal, o->value)->text;
        if (name_equal(o->key, slice_str(key)) && o->value->kind == AST_NAME)
            return AST_AS(name, o->value)->parts.at[0];
    }
    return (struct slice){0};
}

/* CREATE STREAM sample (record TEXT) WITH (topic = '…', format = 'raw'). NULL: no memory. */
static struct server_object *raw_object(struct request *r, struct slice topic)
{
    struct lines text;
    struct sql_error error = {0};
    struct server_object *o = NULL;
    lines_init(&text, SQL_NAME_MAX * 2 + 100);
    lines_text(&text, "CREATE STREAM sample (record TEXT) WITH (format = 'raw', topic = '");
    for (size_t i = 0; i < topic.len; i++)
        lines_put(&text, topic.ptr[i] == '\'' ? "''" : (const char *)topic.ptr + i, topic.ptr[i] == '\'' ? 2 : 1);
    lines_text(&text, "')");
    if (!text.failed)
        o = server_object_new(r->server, r->vhost, slice_str("sample"), slice_str(r->user),
                              slice_of(text.bytes, text.len), &error);
    lines_fini(&text);
    return o;
}

/* Reads what is there now. False: no memory. */
static bool begin(struct request *r, struct slice topic, struct slice format)
{
    static const struct op_kind kind = {.name = "infer", .push = infer_push};
    struct catalog catalog = catalog_init();
    struct sql_error error = {0};
    struct server_infer *i = r->infer = mem_zalloc(sizeof *i);
    if (!i)
        return false;
    i->op.kind = &kind;
    i->within = slice_str(slice_is(format, "cloudevents") ? "data" : "");
    infer_init(&i->infer, &r->arena);
    i->raw = raw_object(r, topic);
    i->run = i->raw ? run_new(r->server, r->user, r->vhost) : NULL;
    struct server_run *run = i->run;
    if (!run || !catalog_add(&catalog, i->raw->relation, &error) || !(run->uses = mem_alloc(sizeof *run->uses)))
        return false;
    run->uses[run->use_count++] = i->raw;
    i->raw->refs++;
    run->query = server_plan_in(r->server, &catalog, slice_str("sample"), &r->arena, &i->op, &error);
    run->bounded = true;
    run->state = RUN_LOOKING;
    return run->query && run_sources(run);
}

static bool is_read(const struct server_run *run)
{
    if (run->over)
        return true;
    for (uint32_t s = 0; s < run->source_count && run->state == RUN_GOING; s++)
        for (uint32_t k = 0; k < run->sources[s].count; k++)
            if (run->sources[s].partitions[k].place < run->sources[s].partitions[k].until)
                return false;
    return run->state == RUN_GOING;
}

/* The statement with its own columns, and those. *ret lives in the request's arena. */
static bool statement_of(struct request *r, const struct ast_create_stream *s, struct slice *ret)
{
    struct lines text;
    struct ast_list list;
    struct sql_error error = {0};
    struct ast_create_stream copy = *s;
    lines_init(&text, TEXT_MAX);
    lines_text(&text, "CREATE STREAM sample (");
    bool ok = infer_elements(&r->infer->infer, &s->elements, &text);
    lines_text(&text, ")");
    /* names in the tree point into the text */
    uint8_t *kept = ok && !text.failed ? arena_take(&r->arena, text.len) : NULL;
    if (kept)
        memcpy(kept, text.bytes, text.len);
    ok = kept && sql_parse(slice_of(kept, text.len), &r->arena, &list, &error);
    lines_fini(&text);
    const struct ast_list *more = ok ? &AST_AS(create_stream, list.at[0])->elements : NULL;
    struct ast **all = ok ? arena_take(&r->arena, (s->elements.count + more->count) * sizeof *all) : NULL;
    uint8_t *room = all ? arena_take(&r->arena, 2 * TEXT_MAX) : NULL;
    if (!room)
        return false;
    for (size_t i = 0; i < s->elements.count + more->count; i++)
        all[i] = i < s->elements.count ? s->elements.at[i] : more->at[i - s->elements.count];
    copy.infer = false;
    copy.elements.at = all;
    copy.elements.count = s->elements.count + more->count;
    struct writer w = writer_of(room, 2 * TEXT_MAX);
    sql_print(&copy.ast, &w);
    *ret = writer_slice(&w);
    return writer_ok(&w);
}

enum verdict server_infer(struct request *r, const struct ast_create_stream *s, struct slice *ret_text)
{
    struct slice format = option_of(s, "format"), topic = option_of(s, "topic");
    topic = topic.len ? topic : s->name.at[s->name.count - 1];
    if (s->queue.ptr || s->query)
        return request_refuse(r, "0A000", "INFER looks at what a stream holds, and this is %s",
                              s->query ? "a query's" : "a queue");
    if (format.len && !slice_is(format, "json") && !slice_is(format, "cloudevents"))
        return request_refuse(r, "0A000",
                              "INFER is for the formats json and cloudevents: others do not name what is in them");
    if (!r->infer && !begin(r, topic, format))
        return request_refuse(r, "53200", "no memory to read the stream %.*s", SLICE_ARG(topic));
    struct server_infer *i = r->infer;
    if (i->run->failed)
        return request_refuse(r, i->run->code ? i->run->code : "58000", "INFER: %s", i->run->why);
    if (!is_read(i->run))
        return VERDICT_WAIT;
    bool ok = statement_of(r, s, ret_text);
    uint64_t records = i->infer.records, all = i->records;
    server_infer_free(&r->infer);
    if (ok)
        return VERDICT_DONE;
    return !all
               ? request_refuse(r, "55000", "the stream %.*s holds no record yet: write one first, or name the columns",
                                SLICE_ARG(topic))
           : !records
               ? request_refuse(r, "55000",
                                "no record of the stream %.*s is a JSON object: say its format, or name the columns",
                                SLICE_ARG(topic))
               : request_refuse(r, "55000", "the records of the stream %.*s have no members that could be columns",
                                SLICE_ARG(topic));
}
