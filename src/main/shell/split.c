/* Statements in a text, see shell/split.h. */
#include "main/shell/split.h"

static bool within_name(uint8_t c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || c == '$' || c >= 0x80;
}

/* Behind a comment, which may hold others; at its end if it does not end. */
static const uint8_t *behind_comment(const uint8_t *p, const uint8_t *end)
{
    unsigned nested = 0;
    while (end - p >= 2) {
        int step = p[0] == '/' && p[1] == '*' ? 1 : p[0] == '*' && p[1] == '/' ? -1 : 0;
        nested += (unsigned)step;
        p += step ? 2 : 1;
        if (step && !nested)
            return p;
    }
    return end;
}

static const uint8_t *behind_line(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *line = memchr(p, '\n', (size_t)(end - p));
    return line ? line : end;
}

/* p: at the opening quote. Two of them within are one. */
static const uint8_t *behind_quotes(const uint8_t *p, const uint8_t *end, bool backslashes)
{
    uint8_t quote = *p++;
    while (p < end) {
        bool pair = end - p >= 2;
        if (pair && ((backslashes && *p == '\\') || (*p == quote && p[1] == quote)))
            p += 2;
        else if (*p++ == quote)
            return p;
    }
    return end;
}

/* $tag$ … $tag$, or a dollar that means nothing. */
static const uint8_t *behind_dollars(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *tag = p + 1;
    while (tag < end && within_name(*tag) && *tag != '$')
        tag++;
    if (tag == end || *tag != '$')
        return p + 1;
    size_t len = (size_t)(tag + 1 - p);
    const uint8_t *found = memmem(tag + 1, (size_t)(end - tag - 1), p, len);
    return found ? found + len : end;
}

static const uint8_t *behind_name(const uint8_t *p, const uint8_t *end)
{
    bool escaped = end - p >= 2 && (*p | 32) == 'e' && p[1] == '\'';
    if (escaped)
        return behind_quotes(p + 1, end, true);
    while (p < end && within_name(*p))
        p++;
    return p;
}

size_t sql_split(struct slice text, bool *ret_blank)
{
    const uint8_t *p = text.ptr, *end = text.len ? p + text.len : p;
    *ret_blank = true;
    while (p < end) {
        bool pair = end - p >= 2;
        if (*p == ';')
            return (size_t)(p + 1 - text.ptr);
        if (*p == ' ' || (*p >= '\t' && *p <= '\r')) {
            p++;
            continue;
        }
        if (pair && p[0] == '-' && p[1] == '-') {
            p = behind_line(p, end);
            continue;
        }
        if (pair && p[0] == '/' && p[1] == '*') {
            p = behind_comment(p, end);
            continue;
        }
        *ret_blank = false;
        if (*p == '\'' || *p == '"' || *p == '`')
            p = behind_quotes(p, end, false);
        else if (*p == '$')
            p = behind_dollars(p, end);
        else if (within_name(*p))
            p = behind_name(p, end);
        else
            p++;
    }
    return 0;
}

unsigned sql_lines_in(struct slice text)
{
    unsigned count = 0;
    for (size_t i = 0; i < text.len; i++)
        count += text.ptr[i] == '\n';
    return count;
}

struct slice sql_without_space(struct slice text, unsigned *line)
{
    while (text.len && (*text.ptr == ' ' || (*text.ptr >= '\t' && *text.ptr <= '\r'))) {
        *line += *text.ptr == '\n';
        text = slice_of(text.ptr + 1, text.len - 1);
    }
    return text;
}
