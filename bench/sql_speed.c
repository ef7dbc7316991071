/* What a query without state costs: Nexmark's q0, q1, q2, q14, q21 and q22 from JSON in memory: scan, filter, projection, in batches
 * of 1,024; events a second on one core. Nothing is written and no broker is there.
 *
 *     sql_speed [EVENTS]   (100,000)
 *
 * A measurement, not a test; figures hold for the machine they were taken on.
 */
#include "base/mem.h"
#include "sql/language/bind.h"
#include "sql/language/parse.h"
#include "sql/language/regex.h"
#include "sql/query/nexmark.h"
#include "sql/query/scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BATCH 1024u
#define ROUNDS 5
#define ITEMS_MAX 8u
#define COLUMNS 7u

static const char *const names[COLUMNS] = {"auction", "bidder", "price", "channel", "url", "dateTime", "extra"};
static const char *const types[COLUMNS] = {"bigint", "bigint", "bigint", "text", "text", "timestamp", "text"};

static const struct {
    const char *name, *columns, *where, *items[ITEMS_MAX]; /* columns: the numbers of those it reads */
} queries[] = {
    {"q0 pass through", "01256", "auction IS NOT NULL", {"auction", "bidder", "price", "dateTime", "extra"}},
    {"q1 0.908 * price", "01256", "auction IS NOT NULL", {"auction", "bidder", "0.908 * price", "dateTime", "extra"}},
    {"q2 auction % 123 = 0", "02", "mod(auction, 123) = 0", {"auction", "price"}},
    {"q14 price band, hour",
     "01256",
     "0.908 * price > 1000000 AND 0.908 * price < 50000000",
     {"auction", "bidder", "0.908 * price",
      "CASE WHEN hour(dateTime) >= 8 AND hour(dateTime) <= 18 THEN 'dayTime' WHEN hour(dateTime) <= 6 OR "
      "hour(dateTime) >= 20 THEN 'nightTime' ELSE 'otherTime' END",
      "dateTime", "length(extra) - length(replace(extra, 'c', ''))"}},
    {"q21 channel id",
     "01234",
     "regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) IS NOT NULL OR lower(channel) IN ('apple', 'google', "
     "'facebook', 'baidu')",
     {"auction", "bidder", "price", "channel",
      "CASE WHEN lower(channel) = 'apple' THEN '0' WHEN lower(channel) = 'google' THEN '1' WHEN lower(channel) = "
      "'facebook' THEN '2' WHEN lower(channel) = 'baidu' THEN '3' "
      "ELSE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) END"}},
    {"q22 folders of the url",
     "01234",
     "auction IS NOT NULL",
     {"auction", "bidder", "price", "channel", "split_index(url, '/', 3)", "split_index(url, '/', 4)",
      "split_index(url, '/', 5)"}},
};

static void die(const char *why)
{
    fprintf(stderr, "sql_speed: %s\n", why);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct query {
    struct arena arena;
    struct scope_column scoped[COLUMNS];
    struct scope scope;
    struct scan *scan;
    struct expr *where, *items[ITEMS_MAX];
    uint32_t count, memos;
    struct regex_cache *regexes;
};

static struct expr *bound(struct query *q, const char *text)
{
    struct sql_error error = {0};
    struct ast *tree;
    struct expr *x = sql_parse_expression(slice_str(text), &q->arena, &tree, &error)
                         ? sql_bind(tree, &q->scope, &q->arena, &error)
                         : NULL;
    if (!x)
        die(error.message);
    return x;
}

static void query_init(struct query *q, size_t which)
{
    struct scan_column columns[COLUMNS] = {0};
    struct json_step paths[COLUMNS][2];
    struct sql_error error;
    struct ast *type;
    *q = (struct query){0};
    arena_init(&q->arena, 16u << 20);
    for (const char *p = queries[which].columns; *p; p++) {
        uint32_t from = (uint32_t)(*p - '0'), to = q->scope.count++;
        struct scan_column *c = &columns[to];
        if (!sql_parse_type(slice_str(types[from]), &q->arena, &type, &error) ||
            !type_of_ast(type, &q->arena, &c->type, &error))
            die(error.message);
        paths[to][0] = (struct json_step){.key = slice_str("bid")};
        paths[to][1] = (struct json_step){.key = slice_str(names[from])};
        c->path = paths[to];
        c->steps = 2;
        q->scoped[to] = (struct scope_column){.name = slice_str(names[from]), .type = c->type};
    }
    q->scope.columns = q->scoped;
    q->scan = scan_new(columns, q->scope.count);
    if (!q->scan)
        die("no memory");
    q->where = bound(q, queries[which].where);
    while (q->count < ITEMS_MAX && queries[which].items[q->count]) {
        q->items[q->count] = bound(q, queries[which].items[q->count]);
        q->count++;
    }
    struct expr *roots[ITEMS_MAX + 1] = {q->where};
    memcpy(roots + 1, q->items, q->count * sizeof *roots);
    q->memos = expr_share(roots, q->count + 1);
    q->where = roots[0];
    memcpy(q->items, roots + 1, q->count * sizeof *roots);
    q->regexes = regex_cache_new();
    if (!q->regexes)
        die("no memory");
}

/* Rows that came out. */
static uint64_t query_run(struct query *q, const struct slice *records, size_t count, struct arena *arena)
{
    uint64_t out = 0;
    for (size_t from = 0; from < count; from += BATCH) {
        uint32_t rows = count - from < BATCH ? (uint32_t)(count - from) : BATCH;
        struct eval e;
        struct sel sel;
        if (!scan_batch(q->scan, records + from, rows, arena, &e) || !eval_memos(&e, q->memos))
            die("no memory");
        e.regexes = q->regexes;
        if (!eval_where(&e, q->where, (struct sel){.count = rows}, &sel))
            die("no memory");
        for (uint32_t i = 0; i < q->count; i++)
            if (!eval_expr(&e, q->items[i], sel))
                die("no memory");
        if (e.fault_count)
            die("a row has a fault");
        out += sel.count;
        arena_recycle(arena);
    }
    return out;
}

int main(int argc, char **argv)
{
    size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
    struct nexmark nexmark = nexmark_default();
    uint8_t *bytes = malloc(count * NEXMARK_EVENT_MAX);
    struct slice *records = malloc(count * sizeof *records);
    if (!bytes || !records)
        die("no memory");
    struct writer w = writer_of(bytes, count * NEXMARK_EVENT_MAX);
    for (size_t i = 0; i < count; i++) {
        size_t at = w.len;
        nexmark_write(&nexmark, i, &w);
        records[i] = slice_of(bytes + at, w.len - at);
    }
    printf("%zu events, %.1f bytes on average, batches of %u\n", count, (double)w.len / (double)count, BATCH);
    for (size_t n = 0; n < ARRAY_LEN(queries); n++) {
        struct query q;
        struct arena arena;
        double best = 1e9;
        uint64_t rows = 0;
        query_init(&q, n);
        arena_init(&arena, 64u << 20);
        for (int round = 0; round < ROUNDS; round++) {
            double begin = now();
            rows = query_run(&q, records, count, &arena);
            double took = now() - begin;
            best = took < best ? took : best;
        }
        printf("%-24s %10.0f events/s %8.1f ns an event, %llu rows\n", queries[n].name, (double)count / best,
               best * 1e9 / (double)count, (unsigned long long)rows);
        scan_free(&q.scan);
        regex_cache_free(&q.regexes);
        arena_fini(&q.arena);
        arena_fini(&arena);
    }
    free(bytes);
    free(records);
    return 0;
}
