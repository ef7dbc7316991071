/* Log lines. Text: `2026-11-23T23:40:00.123Z INFO listening: accepting connections address=127.0.0.1 port=5672`.
 * JSON: one object per line with time, level, id, text and the fields. A line is formatted on the stack and written with
 * one write, so that lines of several threads do not mix. Control characters never reach the terminal: names come from
 * peers. Any thread. */
#include "os/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_LEN 2048

static const struct log_row rows[LOG_COUNT] = {
#define LOG(id, level, text) [LOG_##id] = {#id, text, LOG_LEVEL_##level},
#include "os/log.def"
#undef LOG
};

struct line {
    char text[LINE_MAX_LEN];
    size_t len;
};

const struct log_row *log_row(enum log_id id)
{
    return &rows[id];
}

const char *log_level_name(enum log_level level)
{
    static const char *const names[] = {"DEBUG", "INFO", "WARNING", "ERROR"};
    return names[level];
}

void log_init(struct log *log, bool json)
{
    *log = (struct log){.fd = STDERR_FILENO, .json = json, .level = LOG_LEVEL_INFO};
}

static void put_char(struct line *line, char c)
{
    if (line->len < LINE_MAX_LEN - 4) /* room for the end of the line */
        line->text[line->len++] = c;
}

static void put(struct line *line, const char *text)
{
    while (*text)
        put_char(line, *text++);
}

__attribute__((format(printf, 2, 3))) static void put_format(struct line *line, const char *format, ...)
{
    char text[96];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put(line, text);
}

static void put_json(struct line *line, const char *text)
{
    put_char(line, '"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            put_format(line, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            put_format(line, "\\u%04x", c);
        else
            put_char(line, *text);
    }
    put_char(line, '"');
}

/* Words stay bare; anything else is quoted, so that key=value can be split again. */
static void put_value(struct line *line, const char *text)
{
    bool bare = *text != '\0';
    for (const char *at = text; *at && bare; at++)
        bare = (unsigned char)*at > ' ' && *at != '"' && *at != '\\' && *at != '=' && *at != 0x7f;
    if (bare)
        put(line, text);
    else
        put_json(line, text);
}

static void put_time(struct line *line)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    put_format(line, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
               utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec / 1000000);
}

static void format_text(struct line *line, const struct log_row *row, const struct log_field *fields, size_t count)
{
    put_time(line);
    put_format(line, " %s %s: ", log_level_name(row->level), row->id);
    put(line, row->text);
    for (size_t i = 0; i < count; i++) {
        put_format(line, " %s=", fields[i].key);
        if (fields[i].text)
            put_value(line, fields[i].text);
        else
            put_format(line, "%lld", (long long)fields[i].number);
    }
}

static void format_json(struct line *line, const struct log_row *row, const struct log_field *fields, size_t count)
{
    put(line, "{\"time\":\"");
    put_time(line);
    put_format(line, "\",\"level\":\"%s\",\"id\":\"%s\",\"text\":", log_level_name(row->level), row->id);
    put_json(line, row->text);
    for (size_t i = 0; i < count; i++) {
        size_t before = line->len;
        put_format(line, ",\"%s\":", fields[i].key);
        if (fields[i].text)
            put_json(line, fields[i].text);
        else
            put_format(line, "%lld", (long long)fields[i].number);
        if (line->len >= LINE_MAX_LEN - 4) { /* a cut field would break the JSON: leave it out */
            line->len = before;
            break;
        }
    }
    line->text[line->len++] = '}';
}

void log_line(const struct log *log, enum log_id id, const struct log_field *fields, size_t count)
{
    if (!log || rows[id].level < log->level)
        return;
    struct line line = {.len = 0};
    if (log->json)
        format_json(&line, &rows[id], fields, count);
    else
        format_text(&line, &rows[id], fields, count);
    line.text[line.len++] = '\n';
    ssize_t written = write(log->fd, line.text, line.len);
    (void)written; /* nowhere to report it */
}
