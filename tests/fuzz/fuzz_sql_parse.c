/* Fuzz target of the SQL parser and printer.
 * fuzz: -max_len=4096
 * covers: src/sql/language/lex.c src/sql/language/parse.c src/sql/language/parse_call.c src/sql/language/parse_create.c src/sql/language/parse_expr.c src/sql/language/parse_from.c src/sql/language/parse_match.c src/sql/language/parse_object.c src/sql/language/parse_query.c src/sql/language/parse_type.c src/sql/language/print.c src/sql/language/print_query.c src/sql/language/print_statement.c src/sql/language/ast.c src/sql/language/error.c
 *
 * The input is a text of statements. It ends with trees or with an error whose place lies in the text and which can be printed.
 * What was parsed is printed, and what was printed parses to equal trees, which print as the same text. The first byte, when it is
 * odd, gives the arena less room than the text may need.
 */
#include "base/check.h"
#include "base/mem.h"
#include "sql/language/parse.h"
#include "sql/language/print.h"

#define PRINT_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void show(const struct sql_error *error, struct slice text)
{
    char shown[2048];
    struct writer w = writer_of(shown, sizeof shown);
    CHECK(error->fault != SQL_FAULT_NONE && error->message[0] && error->at <= text.len &&
          error->at + error->len <= text.len);
    sql_error_print(error, text, &w);
    CHECK(writer_ok(&w));
}

static void compare(const struct ast *tree, struct arena *arena, uint8_t *first, uint8_t *second)
{
    struct writer w1 = writer_of(first, PRINT_MAX), w2 = writer_of(second, PRINT_MAX);
    struct ast_list again;
    struct sql_error error;
    sql_print(tree, &w1);
    if (!writer_ok(&w1)) /* nested quotes may double with each level */
        return;
    if (!sql_parse(writer_slice(&w1), arena, &again,
                   &error)) { /* a parenthesis that the printer needs is a level of its own */
        CHECK(error.fault == SQL_FAULT_LIMIT);
        return;
    }
    CHECK(again.count == 1 && ast_equal(tree, again.at[0]));
    sql_print(again.at[0], &w2);
    CHECK(slice_equal(writer_slice(&w1), writer_slice(&w2)));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (!len)
        return 0;
    struct slice text = slice_of(bytes + 1, len - 1);
    struct arena arena;
    struct ast_list list;
    struct sql_error error;
    arena_init(&arena, bytes[0] & 1 ? 16u * bytes[0] : SQL_PARSE_MEMORY_MAX);
    uint8_t *copy =
        mem_alloc(text.len + !text.len); /* a block of its own, so that the sanitizer sees a byte too many */
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    bool ok = sql_parse(slice_of(copy, text.len), &arena, &list, &error);
    mem_free(copy);
    if (!ok) {
        show(&error, text);
    } else if (!(bytes[0] & 1)) {
        uint8_t *first = mem_alloc(PRINT_MAX), *second = mem_alloc(PRINT_MAX);
        for (size_t i = 0; i < list.count; i++)
            compare(list.at[i], &arena, first, second);
        mem_free(first);
        mem_free(second);
    }
    arena_fini(&arena);
    return 0;
}
