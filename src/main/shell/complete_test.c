/* What half typed words become. */
#include "main/shell/complete.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void words(void **state)
{
    static const struct {
        const char *typed, *becomes; /* NULL: nothing is found; the same: several */
        unsigned count;              /* 0: any */
    } rows[] = {
        {"sele", "select ", 1},
        {"SELE", "SELECT ", 1},
        {"Sele", "SELECT ", 1},
        {"SELECT a FROM ord", "SELECT a FROM ord", 0},
        {"FROM orders_d", "FROM orders_done ", 1},
        {"FROM ORDERS_D", "FROM orders_done ", 1},
        {"FROM my", "FROM \"my view\" ", 1},
        {"FROM \"my v", "FROM \"my view\" ", 1},
        {"FROM \"nothing", NULL, 0},
        {"FROM orders.cre", "FROM orders.create ", 1},
        {"' sele", "' select ", 1},
        {"κόσ", "κόσμε ", 1},
        {"\\js", "\\json ", 1},
        {"\\?", "\\? ", 1},
        {"a?", "a?", 4},
        {"zzz", NULL, 0},
        {"", "", 0},
    };
    struct sql_names names = {0};
    (void)state;
    static const char *const there[] = {"orders", "orders_done", "my view", "κόσμε", "orders"};
    for (size_t i = 0; i < ARRAY_LEN(there); i++)
        sql_names_add(&names, slice_str(there[i]));
    assert_int_equal(names.count, 4);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct sql_completion c;
        char text[600];
        sql_complete(&names, slice_str(rows[i].typed), &c);
        snprintf(text, sizeof text, "%.*s%s", (int)(strlen(rows[i].typed) - c.erase), rows[i].typed, c.more);
        if ((c.count > 0) != (rows[i].becomes != NULL) || (rows[i].becomes && strcmp(text, rows[i].becomes) != 0) ||
            (rows[i].count && c.count != rows[i].count))
            fail_msg("%s: %u, %s", rows[i].typed, c.count, text);
    }
    sql_names_fini(&names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(words)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
