/* Tables as people see them: widths, what is cut, rows that come later. What the commands do with them is in tests/clients/test_sql_shell.py. */
#include "main/shell/show.h"

#include "base/mem.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct scene {
    struct sql_show show;
    char *out, *err;
    size_t out_len, err_len;
};

static void scene_init(struct scene *scene, enum sql_show_form form, unsigned columns_max)
{
    *scene = (struct scene){.out = NULL};
    sql_show_init(&scene->show, form, open_memstream(&scene->out, &scene->out_len),
                  open_memstream(&scene->err, &scene->err_len));
    scene->show.columns_max = columns_max;
}

static void say(struct scene *scene, const char *line)
{
    assert_true(sql_show_line(&scene->show, slice_str(line)));
}

static const char *shown(struct scene *scene)
{
    assert_true(sql_show_rest(&scene->show));
    fflush(scene->show.out);
    fflush(scene->show.err);
    return scene->out;
}

static void scene_fini(struct scene *scene)
{
    sql_show_end(&scene->show);
    sql_show_fini(&scene->show);
    fclose(scene->show.out);
    fclose(scene->show.err);
    free(scene->out);
    free(scene->err);
}

#define AB "{\"statement\":0,\"columns\":[{\"name\":\"a\",\"type\":\"text\"},{\"name\":\"b\",\"type\":\"BIGINT\"}]}"

/* A later row that is longer moves what comes behind it, and the head stays. */
static void rows_that_come_later(void **state)
{
    struct scene scene;
    (void)state;
    scene_init(&scene, SQL_FORM_TABLE, 0);
    say(&scene, AB);
    assert_true(sql_show_waits(&scene.show));
    assert_string_equal(shown(&scene), " a | b\n---+---\n");
    assert_false(sql_show_waits(&scene.show));
    say(&scene, "{\"row\":[\"x\",1]}");
    say(&scene, "{\"row\":[\"yyy\",22]}");
    assert_string_equal(shown(&scene), " a | b\n---+---\n x   |  1\n yyy | 22\n");
    say(&scene, "{\"row\":[\"z\",3],\"change\":\"-\"}");
    assert_string_equal(shown(&scene), " a | b\n---+---\n x   |  1\n yyy | 22\n-z   |  3\n");
    say(&scene, "{\"done\":\"SELECT\",\"rows\":3}");
    (void)shown(&scene);
    assert_string_equal(scene.err, "(3 rows)\n");
    scene_fini(&scene);
}

/* The widest column is cut first. */
static void terminals(void **state)
{
    static const struct {
        unsigned columns;
        const char *row;
    } rows[] = {
        {0, " 0123456789012345 | 12345\n"},
        {26, " 0123456789012345 | 12345\n"},
        {24, " 0123456789012… | 12345\n"},
        {16, " 01234… | 12345\n"},
        {14, " 01234…\n"}, /* with no room for six characters of each */
        {3, " 01234…\n"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct scene scene;
        scene_init(&scene, SQL_FORM_TABLE, rows[i].columns);
        say(&scene, AB);
        say(&scene, "{\"row\":[\"0123456789012345\",12345]}");
        const char *last = strrchr(shown(&scene), '-') + 2;
        if (strcmp(last, rows[i].row) != 0)
            fail_msg("%u: %s", rows[i].columns, scene.out);
        scene_fini(&scene);
    }
}

static void widths(void **state)
{
    static const struct {
        const char *text;
        unsigned width;
    } rows[] = {{"", 0},     {"abc", 3},  {"é", 1},        {"日本", 4},     {"e\xcc\x81", 1}, {"\n", 2},
                {"\x1b", 4}, {"\xff", 4}, {"\xc2\x9b", 4}, {"\xe6\x97", 8}, {"😀", 2}};
    (void)state;
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        fail_msg("there is no C.UTF-8");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (sql_show_width(slice_str(rows[i].text)) != rows[i].width)
            fail_msg("row %zu: %u", i, sql_show_width(slice_str(rows[i].text)));
}

/* Many rows are shown though nobody asks, and what is no answer at all is said. */
static void much_and_nonsense(void **state)
{
    struct scene scene;
    (void)state;
    scene_init(&scene, SQL_FORM_TABLE, 0);
    say(&scene, AB);
    for (unsigned i = 0; i < 2 * SQL_SHOW_ROWS_MAX; i++)
        say(&scene, "{\"row\":[\"x\",1]}");
    assert_false(sql_show_waits(&scene.show));
    say(&scene, "what?");
    say(&scene, "{\"row\":1}");
    say(&scene, "{\"row\":[1,2,3,4]}");
    say(&scene, "{}");
    say(&scene, "{\"error\":{}}");
    assert_non_null(strstr(shown(&scene), "\n 1 | 2\n"));
    assert_non_null(strstr(scene.err, "ERROR: the answer is no JSON: what?\nERROR: \n"));
    assert_true(scene.show.failed);
    scene_fini(&scene);
}

static void refused_memory(void **state)
{
    bool hit = true;
    (void)state;
    for (uint64_t n = 1; hit; n++) {
        struct scene scene;
        size_t before = mem_in_use();
        scene_init(&scene, SQL_FORM_TABLE, 40);
        mem_fail_at(n, false);
        bool ok = sql_show_line(&scene.show, slice_str(AB)) &&
                  sql_show_line(&scene.show, slice_str("{\"row\":[\"a\\nb\",1]}")) && sql_show_rest(&scene.show);
        hit = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        assert_true(ok || hit);
        scene_fini(&scene);
        assert_int_equal(mem_in_use(), before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_that_come_later), cmocka_unit_test(terminals),
                                       cmocka_unit_test(widths), cmocka_unit_test(much_and_nonsense),
                                       cmocka_unit_test(refused_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
