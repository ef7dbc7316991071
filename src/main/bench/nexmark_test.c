/* Nexmark's queries as the benchmark asks them: each is one that the planner takes, and bids are read out of events as they were made. */
#include "nexmark_int.h"

#include "sql/language/parse.h"
#include "sql/query/query.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define STATE_MAX ((size_t)1 << 20)

static bool nothing(struct op *op, struct step *step, const struct batch *b)
{
    (void)op, (void)step, (void)b;
    return true;
}

static const struct ast *parsed(const char *text, struct arena *arena)
{
    struct sql_error error = {0};
    struct ast_list list;
    size_t len = strlen(text);
    char *own = arena_take(arena, len + 1); /* names in the tree are views of it */
    assert_non_null(own);
    memcpy(own, text, len + 1);
    if (!sql_parse(slice_of(own, len), arena, &list, &error))
        fail_msg("%s: %s", text, error.message);
    assert_int_equal(list.count, 1);
    return list.at[0];
}

static void test_the_planner_takes_every_query(void **state)
{
    static const struct op_kind kind = {.name = "nowhere", .push = nothing};
    const struct bench_nexmark_options o = {.name = "events"};
    struct op sink = {.kind = &kind};
    struct catalog catalog = catalog_init();
    struct sql_error error = {0};
    struct arena arena;
    char text[BENCH_NEXMARK_STATEMENT_BYTES];
    (void)state;
    arena_init(&arena, SQL_PARSE_MEMORY_MAX);
    for (unsigned i = 0; i < bench_nexmark_object_count; i++) {
        bench_nexmark_statement(&o, &bench_nexmark_objects[i], text, sizeof(text));
        if (!catalog_add(&catalog, parsed(text, &arena), &error))
            fail_msg("%s: %s", text, error.message);
    }
    for (unsigned i = 0; i < bench_nexmark_query_count; i++) {
        const struct bench_nexmark_query *asked = &bench_nexmark_queries[i];
        snprintf(text, sizeof(text), "%s%s", asked->text, asked->forever ? BENCH_NEXMARK_FOREVER : "");
        struct query *q = query_new(&catalog, parsed(text, &arena), STATE_MAX, &sink, &error);
        if (q == NULL)
            fail_msg("%s: %s", asked->name, error.message);
        assert_int_equal(asked->key != NULL, query_plan(q)->retracts && strcmp(asked->name, "q6") != 0);
        query_free(&q);
    }
    arena_fini(&arena);
}

static void test_bids_are_read(void **state)
{
    const struct nexmark nexmark = nexmark_default();
    unsigned known = 0, bids = 0;
    (void)state;
    for (uint64_t number = 0; number < 5000; number++) {
        uint8_t room[NEXMARK_EVENT_MAX];
        char text[64];
        struct writer w = writer_of(room, sizeof(room));
        struct bench_nexmark_bid bid;
        nexmark_write(&nexmark, number, &w);
        assert_int_equal(bench_nexmark_bid_read(writer_slice(&w), &bid), nexmark_kind_of(number) == NEXMARK_BID);
        if (nexmark_kind_of(number) != NEXMARK_BID)
            continue;
        snprintf(text, sizeof(text), "\"auction\":%llu,", (unsigned long long)bid.auction);
        assert_non_null(memmem(w.base, w.len, text, strlen(text)));
        snprintf(text, sizeof(text), "\"price\":%llu,", (unsigned long long)bid.price);
        assert_non_null(memmem(w.base, w.len, text, strlen(text)));
        assert_true(bid.channel.len > 0 && slice_starts(bid.url, "https://www.nexmark.com/"));
        known += bench_nexmark_query_find(slice_str("q21"))->gives(&bid);
        bids++;
    }
    assert_in_range(known, bids * 90 / 100, bids * 99 / 100); /* half, and nine tenths of the other half */
}

static void test_names(void **state)
{
    (void)state;
    assert_null(bench_nexmark_query_find(slice_str("q23")));
    assert_null(bench_nexmark_query_find(slice_str("")));
    for (unsigned i = 0; i < bench_nexmark_query_count; i++)
        assert_ptr_equal(bench_nexmark_query_find(slice_str(bench_nexmark_queries[i].name)), &bench_nexmark_queries[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_planner_takes_every_query),
        cmocka_unit_test(test_bids_are_read),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
