/* Answers for people and programs, see shell/show.h.
 *
 * A table looks as psql's do. Once its head is printed its columns keep their widths, and grow when something longer comes. On a terminal
 * what is too wide is cut: the widest columns first, down to CELL_MIN, then columns on the right are left out. What a terminal would
 * obey is shown as \n or \x1b: the texts are from whoever has published. */
#include "main/shell/show.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <wchar.h>

#define CELL_MIN 6u
#define CELL_MAX 100000u
#define ELLIPSIS 1u /* of columns */

#define DIM "\x1b[2m"
#define BOLD "\x1b[1m"
#define RED "\x1b[31m"
#define PLAIN "\x1b[0m"

void sql_show_init(struct sql_show *s, enum sql_show_form form, FILE *out, FILE *err)
{
    *s = (struct sql_show){.form = form, .out = out, .err = err, .line = 1};
}

static void table_fini(struct sql_show *s)
{
    for (unsigned i = 0; i < s->column_count; i++)
        mem_free(s->columns[i].name);
    s->column_count = 0;
    s->table = s->headed = false;
}

void sql_show_fini(struct sql_show *s)
{
    table_fini(s);
    mem_free(s->rows);
    mem_free(s->cell);
    s->rows = s->cell = NULL;
}

/* ---- characters ---- */

struct glyph {
    char text[12];
    unsigned width;
};

static uint32_t code_of(struct slice c)
{
    static const uint8_t masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t code = c.ptr[0] & masks[c.len];
    for (size_t i = 1; i < c.len; i++)
        code = code << 6 | (c.ptr[i] & 0x3fu);
    return code;
}

/* The next character as it is shown. */
static struct glyph glyph_next(struct slice *text)
{
    static const char from[] = "\n\r\t", to[] = "nrt";
    struct glyph g = {.width = 1};
    size_t len = utf8_char(*text);
    uint32_t code = len ? code_of(slice_of(text->ptr, len)) : *text->ptr;
    const char *named = code && code < ' ' ? strchr(from, (int)code) : NULL;
    int width = len && code >= 0xa0 ? wcwidth((wchar_t)code) : 1;
    if (named)
        g.width = (unsigned)snprintf(g.text, sizeof g.text, "\\%c", to[named - from]);
    else if (!len || code < ' ' || (code >= 0x7f && code < 0xa0) || width < 0)
        g.width = (unsigned)snprintf(g.text, sizeof g.text, "\\x%02x", (unsigned)code);
    else {
        snprintf(g.text, sizeof g.text, "%.*s", (int)len, (const char *)text->ptr);
        g.width = (unsigned)width;
    }
    *text = slice_of(text->ptr + (len ? len : 1), text->len - (len ? len : 1));
    return g;
}

unsigned sql_show_width(struct slice text)
{
    unsigned width = 0;
    while (text.len && width < CELL_MAX)
        width += glyph_next(&text).width;
    return width;
}

static void put_spaces(FILE *to, unsigned count)
{
    fprintf(to, "%*s", (int)count, "");
}

/* In a column of that width; what is longer ends with an ellipsis. The last one has no spaces behind it. */
static void put_cell(FILE *to, struct slice text, unsigned width, bool right, bool last)
{
    unsigned whole = sql_show_width(text), used = 0;
    if (right && whole < width)
        put_spaces(to, width - whole);
    while (text.len) {
        struct glyph g = glyph_next(&text);
        if (whole > width && used + g.width > width - 1) {
            fputs("…", to);
            used++;
            break;
        }
        fputs(g.text, to);
        used += g.width;
    }
    if (!right && !last && used < width)
        put_spaces(to, width - used);
}

/* ---- cells ---- */

/* As it is shown; a loan until the next one. ptr NULL: no memory. */
static struct slice cell_of(struct sql_show *s, const struct json_view *value)
{
    if (value->kind == JSON_VIEW_NULL)
        return slice_str("NULL");
    if (value->kind != JSON_VIEW_STRING || !value->escaped)
        return slice_of(value->len ? value->at : (const uint8_t *)"", value->len);
    if (value->len > s->cell_room) {
        uint8_t *grown = mem_realloc(s->cell, value->len);
        if (!grown)
            return slice_of(NULL, 0);
        s->cell = grown;
        s->cell_room = value->len;
    }
    return slice_of(s->cell, json_view_text(value, s->cell));
}

static bool is_number(const struct json_view *value)
{
    return value->kind == JSON_VIEW_INT || value->kind == JSON_VIEW_NUMBER;
}

static bool row_begin(struct slice line, struct json_items *ret, bool *ret_taken)
{
    struct json_view whole, row, change;
    struct json_fault fault;
    if (!json_view_of(line, &whole, &fault) || !json_view_member(&whole, slice_str("row"), &row))
        return false;
    *ret_taken = json_view_member(&whole, slice_str("change"), &change) && json_view_is(&change, slice_str("-"));
    *ret = json_items_of(&row);
    return true;
}

static bool line_next(const struct sql_show *s, size_t *at, struct slice *ret)
{
    if (*at == s->rows_len)
        return false;
    const uint8_t *end = memchr(s->rows + *at, '\n', s->rows_len - *at);
    *ret = slice_of(s->rows + *at, (size_t)(end - (s->rows + *at)));
    *at += ret->len + 1;
    return true;
}

/* ---- the table ---- */

static bool widen(struct sql_show *s)
{
    struct slice line;
    struct json_items items;
    bool taken;
    for (size_t at = 0; line_next(s, &at, &line);) {
        struct json_view none, value;
        if (!row_begin(line, &items, &taken))
            continue;
        for (unsigned i = 0; i < s->column_count && json_items_next(&items, &none, &value); i++) {
            struct slice text = cell_of(s, &value);
            unsigned width = sql_show_width(text);
            if (!text.ptr)
                return false;
            if (width > s->columns[i].width)
                s->columns[i].width = width;
        }
    }
    return true;
}

/* What of the widths a terminal has room for: the widest is as wide as the second until both are, and so on. Returns how many columns are
 * shown. */
static unsigned fit(const struct sql_show *s, unsigned widths[])
{
    unsigned count = s->column_count, total = 0, max = s->columns_max ? s->columns_max : UINT_MAX;
    for (unsigned i = 0; i < count; i++)
        total += (widths[i] = s->columns[i].width) + 3;
    total -= count > 0; /* the last one has nothing behind it */
    for (;;) {
        unsigned wanted = total + (count < s->column_count ? ELLIPSIS : 0);
        if (wanted <= max)
            return count;
        unsigned widest = 0;
        for (unsigned i = 1; i < count; i++)
            widest = widths[i] > widths[widest] ? i : widest;
        if (count && widths[widest] > CELL_MIN) {
            unsigned over = wanted - max, spare = widths[widest] - CELL_MIN, second = CELL_MIN;
            for (unsigned i = 0; i < count; i++)
                if (i != widest && widths[i] > second)
                    second = widths[i];
            unsigned less = widths[widest] > second ? widths[widest] - second : 1;
            less = less > over ? over : less;
            less = less > spare ? spare : less;
            widths[widest] -= less;
            total -= less;
        } else if (count > 1) {
            total -= widths[--count] + 3;
        } else {
            return count;
        }
    }
}

static void put_head(struct sql_show *s, const unsigned widths[], unsigned count)
{
    if (s->title)
        fprintf(s->out, "%s\n", s->title);
    for (unsigned i = 0; i < count; i++) {
        fputs(i ? " | " : " ", s->out);
        if (s->colours)
            fputs(BOLD, s->out);
        put_cell(s->out, slice_str(s->columns[i].name), widths[i], s->columns[i].number, i + 1 == count);
        if (s->colours)
            fputs(PLAIN, s->out);
    }
    fputs(count < s->column_count ? " …\n" : "\n", s->out);
    for (unsigned i = 0; i < count; i++) {
        fputs(i ? "-+-" : "-", s->out);
        for (unsigned n = 0; n < widths[i]; n++)
            fputc('-', s->out);
    }
    fputs(count ? "-\n" : "\n", s->out);
    s->headed = true;
}

static void put_row(struct sql_show *s, struct slice line, const unsigned widths[], unsigned count)
{
    struct json_items items;
    struct json_view none, value;
    bool taken;
    if (!row_begin(line, &items, &taken))
        return;
    if (taken && s->colours)
        fputs(RED, s->out);
    for (unsigned i = 0; i < count && json_items_next(&items, &none, &value); i++) {
        bool dim = s->colours && !taken && value.kind == JSON_VIEW_NULL;
        fputs(i ? " | " : taken ? "-" : " ", s->out);
        if (dim)
            fputs(DIM, s->out);
        put_cell(s->out, cell_of(s, &value), widths[i],
                 is_number(&value) || (s->columns[i].number && value.kind == JSON_VIEW_NULL), i + 1 == count);
        if (dim)
            fputs(PLAIN, s->out);
    }
    if (taken && s->colours)
        fputs(PLAIN, s->out);
    fputc('\n', s->out);
}

bool sql_show_waits(const struct sql_show *s)
{
    return s->row_count || s->unsaid || (s->table && !s->headed);
}

bool sql_show_rest(struct sql_show *s)
{
    unsigned widths[SQL_SHOW_COLUMNS_MAX];
    struct slice line;
    if (s->unsaid) {
        s->unsaid = false;
        return fflush(s->out) == 0;
    }
    if (!sql_show_waits(s))
        return true;
    if (!widen(s))
        return false;
    unsigned count = fit(s, widths);
    if (!s->headed)
        put_head(s, widths, count);
    for (size_t at = 0; line_next(s, &at, &line);)
        put_row(s, line, widths, count);
    s->rows_len = 0;
    s->row_count = 0;
    return fflush(s->out) == 0;
}

/* ---- lines ---- */

static bool is_numeric(const struct json_view *type)
{
    static const char *const types[] = {"smallint", "integer", "bigint", "numeric", "decimal",
                                        "real",     "double",  "int",    "float"};
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (type->len >= strlen(types[i]) && strncasecmp((const char *)type->at, types[i], strlen(types[i])) == 0 &&
            (strcmp(types[i], "int") != 0 || type->len == 3))
            return true;
    return false;
}

static bool table_begin(struct sql_show *s, const struct json_view *columns)
{
    struct json_items items = json_items_of(columns);
    struct json_view none, column, name, type;
    table_fini(s);
    s->table = true;
    s->shown = 0;
    while (s->column_count < SQL_SHOW_COLUMNS_MAX && json_items_next(&items, &none, &column)) {
        if (!json_view_member(&column, slice_str("name"), &name))
            continue;
        char *text = mem_zalloc(name.len + 1);
        if (!text)
            return false;
        (void)json_view_text(&name, (uint8_t *)text);
        s->columns[s->column_count++] = (struct sql_column){
            .name = text,
            .width = sql_show_width(slice_str(text)),
            .number = json_view_member(&column, slice_str("type"), &type) && is_numeric(&type),
        };
    }
    return true;
}

static bool row_add(struct sql_show *s, struct slice line)
{
    size_t need = s->rows_len + line.len + 1, room = s->rows_room ? s->rows_room : 4096;
    while (room < need)
        room *= 2;
    if (room > s->rows_room) {
        uint8_t *grown = mem_realloc(s->rows, room);
        if (!grown)
            return false;
        s->rows = grown;
        s->rows_room = room;
    }
    memcpy(s->rows + s->rows_len, line.ptr, line.len);
    s->rows[need - 1] = '\n';
    s->rows_len = need;
    s->row_count++;
    s->shown++;
    return s->row_count < SQL_SHOW_ROWS_MAX && s->rows_len < SQL_SHOW_BYTES_MAX ? true : sql_show_rest(s);
}

static void put_text(FILE *to, const struct json_view *value)
{
    uint8_t *text = mem_alloc(value->len + 1);
    if (text)
        fwrite(text, 1, json_view_text(value, text), to);
    mem_free(text);
}

static void begin_error(struct sql_show *s)
{
    fflush(s->out);
    if (s->file)
        fprintf(s->err, "%s:%u: ", s->file, s->line);
    fprintf(s->err, "%sERROR%s", s->err_colours ? RED : "", s->err_colours ? PLAIN : "");
}

void sql_show_error(struct sql_show *s, const char *format, ...)
{
    va_list args;
    begin_error(s);
    va_start(args, format);
    fputs(": ", s->err);
    vfprintf(s->err, format, args);
    fputc('\n', s->err);
    va_end(args);
    s->failed = true;
}

/* As the broker has laid it out, with the line and the caret. */
static void show_error(struct sql_show *s, const struct json_view *error)
{
    static const char said[] = "ERROR: ";
    struct json_view code, text = {0}, place;
    unsigned began = s->line;
    s->failed = true;
    if (s->hushed && json_view_member(error, slice_str("code"), &code) && json_view_is(&code, slice_str(s->hushed)))
        return;
    if (s->file && json_view_member(error, slice_str("line"), &place) && place.kind == JSON_VIEW_INT)
        s->line += (unsigned)place.number - 1;
    begin_error(s);
    s->line = began;
    if (json_view_member(error, slice_str("code"), &code))
        fprintf(s->err, " %.*s", (int)code.len, (const char *)code.at);
    fputs(": ", s->err);
    if (json_view_member(error, slice_str("text"), &text) || json_view_member(error, slice_str("message"), &text)) {
        size_t twice = slice_starts(slice_of(text.at, text.len), said) ? sizeof said - 1 : 0;
        text.at += twice;
        text.len -= (uint32_t)twice;
        put_text(s->err, &text);
    }
    if (text.len < 2 || text.at[text.len - 1] != 'n' || text.at[text.len - 2] != '\\')
        fputc('\n', s->err);
}

static void show_done(struct sql_show *s, const struct json_view *whole, const struct json_view *done)
{
    struct json_view name, rows;
    bool counted = json_view_member(whole, slice_str("rows"), &rows) && rows.kind == JSON_VIEW_INT;
    if (s->quiet || s->form != SQL_FORM_TABLE)
        return;
    fflush(s->out);
    if (s->table && counted) {
        fprintf(s->err, "(%" PRId64 " row%s)\n", rows.number, rows.number == 1 ? "" : "s");
        return;
    }
    put_text(s->err, done);
    if (json_view_member(whole, slice_str("name"), &name)) {
        fputc(' ', s->err);
        put_text(s->err, &name);
    }
    if (counted)
        fprintf(s->err, " %" PRId64, rows.number);
    fputc('\n', s->err);
}

/* Rows, and their head. */
static bool show_csv(struct sql_show *s, struct slice line)
{
    static const char end[] = "\n";
    uint8_t room[4096];
    s->unsaid = true;
    for (int part = 0; part < 2; part++) {
        struct slice left = part ? slice_str(end) : line;
        while (left.len) {
            struct writer w = writer_of(room, sizeof room);
            size_t used = sql_csv_step(&s->csv, left, &w);
            if (fwrite(room, 1, w.len, s->out) != w.len)
                return false;
            left = slice_of(left.ptr + used, left.len - used);
        }
    }
    if (s->csv.error)
        sql_show_error(
            s, "a row was taken back, which CSV cannot say: --json can, and so does EMIT ON WINDOW CLOSE without it");
    return true;
}

static bool show_row(struct sql_show *s, struct slice line)
{
    if (s->form == SQL_FORM_TABLE)
        return row_add(s, line);
    s->shown++;
    return show_csv(s, line);
}

bool sql_show_line(struct sql_show *s, struct slice line)
{
    struct json_view whole, member;
    struct json_fault fault;
    bool row = slice_starts(line, "{\"row\":");
    if (s->form == SQL_FORM_JSON) {
        fwrite(line.ptr, 1, line.len, s->out);
        fputc('\n', s->out);
        s->unsaid = true;
        s->shown += row;
        s->failed |= slice_starts(line, "{\"error\":");
        return !ferror(s->out);
    }
    if (row)
        return show_row(s, line);
    if (!sql_show_rest(s))
        return false;
    if (!json_view_of(line, &whole, &fault))
        sql_show_error(s, "the answer is no JSON: %.*s", line.len < 200 ? (int)line.len : 200, (const char *)line.ptr);
    else if (json_view_member(&whole, slice_str("error"), &member))
        show_error(s, &member);
    else if (json_view_member(&whole, slice_str("columns"), &member))
        return s->form == SQL_FORM_TABLE ? table_begin(s, &member) : show_csv(s, line);
    else if (json_view_member(&whole, slice_str("done"), &member)) {
        show_done(s, &whole, &member);
        table_fini(s);
    }
    return true;
}

bool sql_show_end(struct sql_show *s)
{
    bool ok = sql_show_rest(s) && fflush(s->out) == 0;
    s->rows_len = 0;
    s->row_count = 0;
    table_fini(s);
    return ok;
}
