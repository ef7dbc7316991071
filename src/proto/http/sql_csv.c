/* Lines of JSON to CSV, see sql_csv.h.
 *
 * The SQL engine makes these lines, so what comes is JSON, and members come in the order that docs/sql-http.md gives; anything else
 * makes a wrong table and nothing worse. */
#include "proto/http/sql_csv.h"

#define OUT_MAX 8u /* of what one byte becomes */

enum {
    LINE,    /* what is it? */
    IGNORED, /* up to the line's end */
    COLUMNS, /* before the list of them */
    COLUMN,  /* before one, or the end of the list */
    NAME,    /* passes over "name": */
    TYPE,    /* what else is said of a column */
    TYPE_TEXT,
    TYPE_ESCAPE,
    VALUE, /* before it */
    BARE,  /* a number or a word */
    NULLS,
    TEXT,
    ESCAPE,
    UNIT,
    NESTED,
    NESTED_TEXT,
    NESTED_ESCAPE,
    BEHIND, /* a value */
    CHANGE, /* behind the row */
};

static void put_character(struct writer *w, uint32_t c)
{
    if (c < 0x80) {
        writer_u8(w, (uint8_t)c);
        return;
    }
    if (c < 0x800) {
        writer_u8(w, (uint8_t)(0xc0 | c >> 6));
    } else {
        if (c < 0x10000) {
            writer_u8(w, (uint8_t)(0xe0 | c >> 12));
        } else {
            writer_u8(w, (uint8_t)(0xf0 | c >> 18));
            writer_u8(w, (uint8_t)(0x80 | (c >> 12 & 0x3f)));
        }
        writer_u8(w, (uint8_t)(0x80 | (c >> 6 & 0x3f)));
    }
    writer_u8(w, (uint8_t)(0x80 | (c & 0x3f)));
}

/* Within quotes. */
static void put_quoted(struct writer *w, uint8_t c)
{
    if (c == '"')
        writer_u8(w, '"');
    writer_u8(w, c);
}

static void text_begins(struct sql_csv *s, struct writer *w, uint8_t after)
{
    writer_u8(w, '"');
    s->after = after;
    s->state = TEXT;
}

static void on_line(struct sql_csv *s, uint8_t c, struct writer *w)
{
    static const struct {
        const char *begin;
        uint8_t state;
    } rows[] = {{"{\"row\":[", VALUE}, {"{\"statemen", COLUMNS}, {"{\"error\":", IGNORED}};
    s->begin[s->count++] = c;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (!slice_is(slice_of(s->begin, s->count), rows[i].begin))
            continue;
        s->state = rows[i].state;
        s->error |= s->state == IGNORED;
        if (s->state == COLUMNS && s->told)
            writer_put(w, "\r\n", 2);
        return;
    }
    if (s->count == sizeof s->begin)
        s->state = IGNORED;
}

static void on_value(struct sql_csv *s, uint8_t c, struct writer *w)
{
    if (c == '"') {
        text_begins(s, w, BEHIND);
    } else if (c == '[' || c == '{') {
        writer_u8(w, '"');
        writer_u8(w, c);
        s->depth = 1;
        s->state = NESTED;
    } else if (c == ']') { /* a row without columns */
        writer_put(w, "\r\n", 2);
        s->state = CHANGE;
    } else if (c == 'n') {
        s->state = NULLS;
    } else {
        writer_u8(w, c);
        s->state = BARE;
    }
}

static void on_behind(struct sql_csv *s, uint8_t c, struct writer *w)
{
    if (c == ',') {
        writer_u8(w, ',');
        s->state = VALUE;
    } else if (c == ']') {
        writer_put(w, "\r\n", 2);
        s->state = CHANGE;
    }
}

static void on_escape(struct sql_csv *s, uint8_t c, struct writer *w)
{
    static const char from[] = "nrtbf", to[] = "\n\r\t\b\f";
    const char *at = c ? strchr(from, c) : NULL;
    s->state = c == 'u' ? UNIT : TEXT;
    s->count = 0;
    s->unit = 0;
    if (c != 'u')
        put_quoted(w, at ? (uint8_t)to[at - from] : c);
}

static void on_unit(struct sql_csv *s, uint8_t c, struct writer *w)
{
    uint8_t digit = c <= '9' ? c - '0' : (uint8_t)((c | 32) - 'a' + 10);
    s->unit = (uint16_t)(s->unit << 4 | (digit & 15));
    if (++s->count < 4)
        return;
    s->state = TEXT;
    if (s->unit >= 0xd800 && s->unit < 0xdc00) {
        s->high = s->unit;
    } else if (s->unit >= 0xdc00 && s->unit < 0xe000) {
        put_character(w, 0x10000u + ((s->high & 0x3ffu) << 10 | (s->unit & 0x3ffu)));
    } else {
        if (s->unit == '"')
            writer_u8(w, '"');
        put_character(w, s->unit);
    }
}

static void on_text(struct sql_csv *s, uint8_t c, struct writer *w)
{
    if (c == '\\')
        s->state = ESCAPE;
    else if (c == '"')
        s->state = s->after;
    else
        writer_u8(w, c);
    if (c == '"')
        writer_u8(w, '"');
}

static void on_nested(struct sql_csv *s, uint8_t c, struct writer *w)
{
    put_quoted(w, c);
    if (c == '"')
        s->state = NESTED_TEXT;
    else if (c == '[' || c == '{')
        s->depth++;
    else if ((c == ']' || c == '}') && --s->depth == 0) {
        writer_u8(w, '"');
        s->state = BEHIND;
    }
}

static void on_column(struct sql_csv *s, uint8_t c, struct writer *w)
{
    if (c == '{') {
        s->count = (uint8_t)strlen("\"name\":");
        s->state = NAME;
    } else if (c == ',') {
        writer_u8(w, ',');
    } else if (c == ']') {
        writer_put(w, "\r\n", 2);
        s->told = true;
        s->state = IGNORED;
    }
}

static void on_name(struct sql_csv *s, uint8_t c, struct writer *w)
{
    if (s->count)
        s->count--;
    else if (c == '"')
        text_begins(s, w, TYPE);
}

static void step(struct sql_csv *s, uint8_t c, struct writer *w)
{
    if (c == '\n') { /* there is none within a line */
        s->state = LINE;
        s->count = 0;
        return;
    }
    switch (s->state) {
    case LINE: on_line(s, c, w); break;
    case COLUMNS: s->state = c == '[' ? COLUMN : COLUMNS; break;
    case COLUMN: on_column(s, c, w); break;
    case NAME: on_name(s, c, w); break;
    case TYPE: s->state = c == '}' ? COLUMN : c == '"' ? TYPE_TEXT : TYPE; break;
    case TYPE_TEXT: s->state = c == '\\' ? TYPE_ESCAPE : c == '"' ? TYPE : TYPE_TEXT; break;
    case TYPE_ESCAPE: s->state = TYPE_TEXT; break;
    case VALUE: on_value(s, c, w); break;
    case BARE:
        if (c != ',' && c != ']')
            writer_u8(w, c);
        on_behind(s, c, w);
        break;
    case NULLS:
    case BEHIND: on_behind(s, c, w); break;
    case TEXT: on_text(s, c, w); break;
    case ESCAPE: on_escape(s, c, w); break;
    case UNIT: on_unit(s, c, w); break;
    case NESTED: on_nested(s, c, w); break;
    case NESTED_TEXT:
        put_quoted(w, c);
        s->state = c == '\\' ? NESTED_ESCAPE : c == '"' ? NESTED : NESTED_TEXT;
        break;
    case NESTED_ESCAPE:
        put_quoted(w, c);
        s->state = NESTED_TEXT;
        break;
    case CHANGE: s->error |= c == '-'; break;
    default: break; /* ignored */
    }
}

size_t sql_csv_step(struct sql_csv *s, struct slice bytes, struct writer *w)
{
    size_t used = 0;
    while (used < bytes.len && w->max - w->len >= OUT_MAX)
        step(s, bytes.ptr[used++], w);
    return used;
}
