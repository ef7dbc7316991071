/* Where statements end: rows, and whatever the lexer says of texts made at random. */
#include "main/shell/split.h"

#include "sql/language/lex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void ends(void **state)
{
    static const struct {
        const char *text;
        size_t len; /* of the first statement */
        bool blank;
    } rows[] = {
        {"", 0, true},
        {" \n\t-- only; this", 0, true},
        {"/* a; /* b; */ ; */ ;x", 21, true},
        {"/* not its end ;", 0, true},
        {"SELECT 1", 0, false},
        {"SELECT 1;SELECT 2;", 9, false},
        {"SELECT ';' ;x", 12, false},
        {"SELECT 'it''s;'; x", 16, false},
        {"SELECT 'a\\'; x", 12, false},
        {"SELECT E'a\\';'; x", 15, false},
        {"SELECT e'a''\\\\'; x", 16, false},
        {"SELECT type'a\\'; x", 16, false},
        {"SELECT \"a;\"\"b\", `;`;", 20, false},
        {"SELECT $$;$$;", 13, false},
        {"SELECT $t$; $$ ; $t$ ;", 22, false},
        {"SELECT $t$ ; $t ;", 0, false},
        {"SELECT a$b$; x", 12, false},
        {"SELECT $1; x", 10, false},
        {"SELECT 1 -- ;\n;", 15, false},
        {"SELECT 1 - - 2 / * 3;", 21, false},
        {"SELECT 'not its end;", 0, false},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        bool blank;
        size_t len = sql_split(slice_str(rows[i].text), &blank);
        if (len != rows[i].len || blank != rows[i].blank)
            fail_msg("%s: %zu %d", rows[i].text, len, blank);
    }
}

/* Where the lexer finds one; SIZE_MAX: it finds something that is wrong. */
static size_t by_lexer(struct slice text)
{
    struct arena arena;
    struct sql_error error = {0};
    size_t len = 0;
    arena_init(&arena, 1u << 20);
    struct lexer lexer = lex_of(text, &arena, &error);
    for (;;) {
        struct token t = lex_next(&lexer);
        if (t.kind == TOKEN_SYMBOL && t.symbol == SYMBOL_SEMICOLON)
            len = t.at + 1;
        if (t.kind == TOKEN_BAD)
            len = SIZE_MAX;
        if (len || t.kind == TOKEN_END)
            break;
    }
    arena_fini(&arena);
    return len;
}

static void as_the_lexer(void **state)
{
    static const char *const parts[] = {"'",  "''", "\"", "`", "$$", "$a$", "$", "E'", "e", "\\", "\n", " ", "--",
                                        "/*", "*/", ";",  "x", "1",  "a$",  "é", "(",  "-", "/",  "*",  ","};
    unsigned agreed = 0;
    (void)state;
    srand(7);
    for (int i = 0; i < 200000; i++) {
        char text[100] = "";
        size_t len = 0;
        for (int n = rand() % 12; n >= 0; n--)
            len += (size_t)snprintf(text + len, sizeof text - len, "%s", parts[(size_t)rand() % ARRAY_LEN(parts)]);
        size_t wanted = by_lexer(slice_of(text, len));
        bool blank;
        if (wanted == SIZE_MAX)
            continue;
        size_t got = sql_split(slice_of(text, len), &blank);
        if (got != wanted)
            fail_msg("%s: %zu, and the lexer says %zu", text, got, wanted);
        agreed++;
    }
    assert_true(agreed > 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ends), cmocka_unit_test(as_the_lexer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
