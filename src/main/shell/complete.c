/* Completion, see shell/complete.h. Words of the language come as the first letter was typed, in capitals or not. */
#include "main/shell/complete.h"

#include "base/mem.h"
#include "sql/language/lex.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const commands[] = {"\\?", "\\csv", "\\d", "\\i", "\\json", "\\q", "\\table"};

void sql_names_add(struct sql_names *names, struct slice name)
{
    for (unsigned i = 0; i < names->count; i++)
        if (slice_is(name, names->names[i]))
            return;
    if (names->count == SQL_NAMES_MAX || !name.len || memchr(name.ptr, '\0', name.len))
        return;
    if (names->count == names->room) {
        unsigned room = names->room ? names->room * 2 : 64;
        char **grown = mem_realloc(names->names, room * sizeof *grown);
        if (!grown)
            return;
        names->names = grown;
        names->room = room;
    }
    char *copy = mem_slicedup(name);
    if (copy)
        names->names[names->count++] = copy;
}

void sql_names_fini(struct sql_names *names)
{
    for (unsigned i = 0; i < names->count; i++)
        mem_free(names->names[i]);
    mem_free(names->names);
    *names = (struct sql_names){0};
}

static bool within_word(uint8_t c)
{
    return isalnum(c) || c == '_' || c == '$' || c >= 0x80;
}

/* An odd number of quotes: the word is a name that is being quoted. */
static bool is_quoting(struct slice text, size_t *ret_at)
{
    bool open = false, text_open = false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == '\'' && !open)
            text_open = !text_open;
        if (text.ptr[i] == '"' && !text_open) {
            open = !open;
            *ret_at = i;
        }
    }
    return open;
}

struct slice sql_complete_word(struct slice text)
{
    size_t at = text.len, quote = 0;
    if (is_quoting(text, &quote))
        return slice_of(text.ptr + quote, text.len - quote);
    if (at && text.ptr[at - 1] == '?')
        at--;
    while (at && within_word(text.ptr[at - 1]))
        at--;
    if (at && text.ptr[at - 1] == '\\')
        at--;
    else if (text.len && text.ptr[text.len - 1] == '?')
        at = text.len;
    return slice_of(text.ptr + at, text.len - at);
}

static bool begins(const char *word, struct slice typed)
{
    return strlen(word) >= typed.len && strncasecmp(word, (const char *)typed.ptr, typed.len) == 0;
}

static void found(struct sql_completion *ret, const char *word)
{
    for (unsigned i = 0; i < ret->count; i++)
        if (strcasecmp(ret->words[i], word) == 0)
            return;
    if (ret->count < SQL_COMPLETE_MAX)
        ret->words[ret->count++] = word;
}

/* How many bytes all of them have in common, regardless of case. */
static size_t common(const struct sql_completion *c)
{
    size_t len = strlen(c->words[0]);
    for (unsigned i = 1; i < c->count; i++)
        for (size_t n = 0; n < len; n++)
            if (tolower((uint8_t)c->words[i][n]) != tolower((uint8_t)c->words[0][n]))
                len = n;
    while (len && (c->words[0][len] & 0xc0) == 0x80)
        len--; /* not within a character */
    return len;
}

static void spell(struct sql_completion *c, struct slice typed, bool keyword, bool quoted)
{
    struct slice all = slice_of(c->words[0], common(c));
    bool quotes = quoted || (!keyword && name_needs_quotes(slice_str(c->words[0])) && c->words[0][0] != '\\');
    bool small = keyword && typed.len && islower(typed.ptr[0]);
    char text[280];
    if (all.len >= sizeof text)
        return;
    for (size_t i = 0; i < all.len; i++)
        text[i] = small ? (char)tolower(all.ptr[i]) : (char)all.ptr[i];
    text[all.len] = '\0';
    c->erase = (unsigned)typed.len;
    snprintf(c->more, sizeof c->more, "%s%s%s%s", quotes && !quoted ? "\"" : "", text,
             quotes && c->count == 1 ? "\"" : "", c->count == 1 ? " " : "");
}

void sql_complete(const struct sql_names *names, struct slice text, struct sql_completion *ret)
{
    struct slice word = sql_complete_word(text);
    bool quoted = word.len && word.ptr[0] == '"', keyword = false;
    struct slice typed = quoted ? slice_of(word.ptr + 1, word.len - 1) : word;
    *ret = (struct sql_completion){0};
    if (typed.len && typed.ptr[0] == '\\') {
        for (size_t i = 0; i < ARRAY_LEN(commands); i++)
            if (begins(commands[i], typed))
                found(ret, commands[i]);
    } else {
        for (unsigned i = 0; i < names->count; i++)
            if (begins(names->names[i], typed))
                found(ret, names->names[i]);
        bool any = ret->count > 0;
        for (unsigned i = 1; i < KEYWORDS && !quoted && typed.len; i++)
            if (begins(keyword_text((enum keyword)i), typed))
                found(ret, keyword_text((enum keyword)i));
        keyword = !any;
    }
    if (ret->count)
        spell(ret, typed, keyword, quoted);
}
