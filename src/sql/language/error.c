/* Errors with a place, see error.h. */
#include "sql/language/error.h"

#include <stdarg.h>
#include <stdio.h>

#define LINE_SHOWN 76u /* characters of a longer line that are shown around the place */

static const struct {
    const char *state, *text;
} faults[] = {
#define FAULT(name, state, text) {state, text},
#include "sql/language/faults.def"
#undef FAULT
};

const char *sql_fault_state(enum sql_fault fault)
{
    return faults[fault].state;
}

const char *sql_fault_text(enum sql_fault fault)
{
    return faults[fault].text;
}

/* A message that had to be cut does not end within a character. */
static void end_at_character(char *text, size_t room, int len)
{
    if (len < 0 || (size_t)len < room)
        return;
    size_t end = room - 1;
    while (end > 0 && ((uint8_t)text[end - 1] & 0xc0) == 0x80)
        end--;
    if (end > 0 && (uint8_t)text[end - 1] >= 0x80)
        end--;
    text[end] = 0;
}

void sql_error_set(struct sql_error *error, enum sql_fault fault, uint32_t at, uint32_t len, const char *format, ...)
{
    if (error->fault != SQL_FAULT_NONE)
        return;
    va_list args;
    *error = (struct sql_error){.fault = fault, .at = at, .len = len};
    va_start(args, format);
    end_at_character(error->message, sizeof error->message,
                     vsnprintf(error->message, sizeof error->message, format, args));
    va_end(args);
}

void sql_error_hint(struct sql_error *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    end_at_character(error->hint, sizeof error->hint, vsnprintf(error->hint, sizeof error->hint, format, args));
    va_end(args);
}

static void put(struct writer *out, const char *text)
{
    writer_put(out, text, strlen(text));
}

static bool starts_character(uint8_t byte)
{
    return (byte & 0xc0) != 0x80;
}

static size_t characters(const uint8_t *from, const uint8_t *to)
{
    size_t count = 0;
    for (; from < to; from++)
        count += starts_character(*from);
    return count;
}

/* n characters back from p, not before begin. */
static const uint8_t *back(const uint8_t *p, const uint8_t *begin, size_t n)
{
    while (p > begin && n > 0) {
        p--;
        n -= starts_character(*p);
    }
    return p;
}

static const uint8_t *on(const uint8_t *p, const uint8_t *end, size_t n)
{
    while (p < end && (n > 0 || !starts_character(*p))) {
        n -= starts_character(*p);
        p++;
    }
    return p;
}

/* `LINE 3: …` and the caret. Tabs and other controls are shown as spaces, so that the caret stands right. */
static void print_place(struct slice text, size_t at, size_t len, struct writer *out)
{
    const uint8_t *begin = text.ptr, *end = text.ptr + text.len, *place = text.ptr + at;
    const uint8_t *line = place, *stop;
    unsigned number = 1;
    char head[32];
    while (line > begin && line[-1] != '\n')
        line--;
    for (const uint8_t *p = begin; p < line; p++)
        number += *p == '\n';
    stop = memchr(place, '\n', (size_t)(end - place));
    stop = stop ? stop : end;
    const uint8_t *from = back(place, line, LINE_SHOWN / 2);
    const uint8_t *to = on(from, stop, LINE_SHOWN);
    snprintf(head, sizeof head, "LINE %u: ", number);
    put(out, head);
    put(out, from > line ? "..." : "");
    for (const uint8_t *p = from; p < to; p++)
        writer_u8(out, *p < ' ' || *p == 0x7f ? ' ' : *p);
    put(out, to < stop ? "...\n" : "\n");
    size_t spaces = strlen(head) + (from > line ? 3 : 0) + characters(from, place);
    while (spaces-- > 0)
        writer_u8(out, ' ');
    size_t marks = characters(place, place + len < to ? place + len : to);
    writer_u8(out, '^');
    while (marks-- > 1)
        writer_u8(out, '~');
    writer_u8(out, '\n');
}

void sql_error_print(const struct sql_error *error, struct slice text, struct writer *out)
{
    put(out, "ERROR: ");
    put(out, error->message);
    put(out, "\n");
    if (text.len && error->at <= text.len)
        print_place(text, error->at, error->len, out);
    if (error->hint[0]) {
        put(out, "HINT: ");
        put(out, error->hint);
        put(out, "\n");
    }
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

bool name_equal(struct slice a, struct slice b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (lower(a.ptr[i]) != lower(b.ptr[i]))
            return false;
    return true;
}
