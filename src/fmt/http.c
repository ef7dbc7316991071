/* HTTP/1.1 as bytes, see http.h.
 *
 * A head is looked for first, byte by byte and only once, with its limits and the characters that may never occur; what is
 * found whole is then parsed in one go, so that no field is ever kept in halves. http_parse does not rely on the scan: it
 * refuses by itself what is not a head. */
#include "fmt/http.h"

#include <stdio.h>

#define LENGTH_DIGITS_MAX 18u /* below 2^63 */
#define CHUNK_DIGITS_MAX 15u  /* below 2^60 */

enum {
    BAD_REQUEST = 400,
    TOO_LARGE = 413,
    TARGET_TOO_LONG = 414,
    EXPECTATION_FAILED = 417,
    FIELDS_TOO_LARGE = 431,
    NOT_KNOWN = 501,
    VERSION_NOT_SUPPORTED = 505,
};

/* ---- characters ---- */

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

static bool is_token_char(uint8_t c)
{
    return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_token_char(s.ptr[i]))
            return false;
    return s.len > 0;
}

/* In a field's value, or a chunk's extension: no control but tab (RFC 9110 section 5.5). */
static bool is_value_char(uint8_t c)
{
    return c == '\t' || (c >= ' ' && c != 0x7f);
}

static bool is_value(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_value_char(s.ptr[i]))
            return false;
    return true;
}

bool http_same(struct slice text, const char *word)
{
    size_t len = strlen(word);
    if (text.len != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (lower(text.ptr[i]) != lower((uint8_t)word[i]))
            return false;
    return true;
}

static struct slice trim(struct slice s)
{
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t'))
        s = slice_of(s.ptr + 1, s.len - 1);
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* Takes what stands before the first c and that character; all of it when there is none. */
static struct slice cut(struct slice *rest, char c)
{
    const uint8_t *at = rest->len ? memchr(rest->ptr, c, rest->len) : NULL;
    struct slice part = at ? slice_of(rest->ptr, (size_t)(at - rest->ptr)) : *rest;
    *rest = at ? slice_of(at + 1, rest->len - part.len - 1) : slice_of(NULL, 0);
    return part;
}

/* ---- finding a head ---- */

/* At the end of a line: HTTP_MORE goes on. */
static unsigned line_ended(struct http_scan *scan)
{
    bool empty = scan->at - scan->line_at == 2;
    scan->cr = false;
    scan->line_at = scan->at;
    if (empty && scan->lines)
        return HTTP_WHOLE;
    if (empty) { /* RFC 9112 section 2.2: one before a request is let pass */
        bool second = scan->blank;
        scan->blank = true;
        return second ? BAD_REQUEST : HTTP_MORE;
    }
    return ++scan->lines > HTTP_FIELDS_MAX + 1 ? FIELDS_TOO_LARGE : HTTP_MORE;
}

static unsigned scan_byte(struct http_scan *scan, uint8_t c)
{
    scan->at++;
    if (scan->cr != (c == '\n'))
        return BAD_REQUEST;
    if (c == '\n')
        return line_ended(scan);
    if (scan->lines == 0 && scan->at - scan->line_at > HTTP_LINE_MAX)
        return TARGET_TOO_LONG;
    scan->cr = c == '\r';
    return scan->cr || is_value_char(c) ? HTTP_MORE : BAD_REQUEST;
}

unsigned http_scan(struct http_scan *scan, struct slice bytes, size_t *ret_len)
{
    while (scan->at < bytes.len && scan->at < HTTP_HEAD_MAX) {
        unsigned found = scan_byte(scan, bytes.ptr[scan->at]);
        if (found == HTTP_WHOLE)
            *ret_len = scan->at;
        if (found != HTTP_MORE)
            return found;
    }
    return scan->at >= HTTP_HEAD_MAX ? FIELDS_TOO_LARGE : HTTP_MORE;
}

/* ---- the request line ---- */

static unsigned parse_version(struct slice version, uint8_t *ret_minor)
{
    if (version.len != 8 || !slice_starts(version, "HTTP/") || !is_digit(version.ptr[5]) || version.ptr[6] != '.' ||
        !is_digit(version.ptr[7]))
        return BAD_REQUEST;
    *ret_minor = (uint8_t)(version.ptr[7] - '0');
    return version.ptr[5] == '1' ? 0 : VERSION_NOT_SUPPORTED;
}

/* A name or an address, and maybe a port: as much as has to be known so that nothing else hides in it. */
static bool is_host(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        if (!is_digit(c) && (lower(c) < 'a' || lower(c) > 'z') && (!c || !strchr("-._~%!$&'()*+;=[]:", c)))
            return false;
    }
    return true;
}

/* The three forms of RFC 9112 section 3.2 that are no CONNECT. */
static unsigned parse_target(struct http_request *r)
{
    struct slice rest = r->target;
    for (size_t i = 0; i < rest.len; i++)
        if (rest.ptr[i] <= ' ' || rest.ptr[i] >= 0x7f || rest.ptr[i] == '#')
            return BAD_REQUEST;
    size_t scheme = slice_starts(rest, "http://") ? 7 : slice_starts(rest, "https://") ? 8 : 0;
    if (scheme) {
        size_t end = scheme;
        while (end < rest.len && rest.ptr[end] != '/' && rest.ptr[end] != '?')
            end++;
        r->host = slice_of(rest.ptr + scheme, end - scheme);
        rest = slice_of(rest.ptr + end, rest.len - end);
        if (r->host.len == 0 || !is_host(r->host))
            return BAD_REQUEST;
    } else if (slice_is(r->method, "CONNECT")) {
        return NOT_KNOWN;
    } else if (!slice_starts(rest, "/") && !(slice_is(rest, "*") && slice_is(r->method, "OPTIONS"))) {
        return BAD_REQUEST;
    }
    r->path = cut(&rest, '?');
    r->query = rest;
    if (r->path.len == 0)
        r->path = slice_str("/");
    return 0;
}

static unsigned parse_request_line(struct slice line, struct http_request *r)
{
    r->method = cut(&line, ' ');
    r->target = cut(&line, ' ');
    unsigned bad = is_token(r->method) ? parse_version(line, &r->minor) : BAD_REQUEST;
    return bad ? bad : parse_target(r);
}

/* ---- fields ---- */

static unsigned parse_field(struct slice line, struct http_request *r)
{
    if (r->field_count == HTTP_FIELDS_MAX)
        return FIELDS_TOO_LARGE;
    struct http_field *field = &r->fields[r->field_count];
    bool colon = memchr(line.ptr, ':', line.len) != NULL;
    field->name = cut(&line, ':');
    field->value = trim(line);
    if (!colon || !is_token(field->name) || !is_value(field->value)) /* folded lines and spaces before the colon, too */
        return BAD_REQUEST;
    r->field_count++;
    return 0;
}

struct slice http_field(const struct http_request *r, const char *name)
{
    for (unsigned i = 0; i < r->field_count; i++)
        if (http_same(r->fields[i].name, name))
            return r->fields[i].value;
    return slice_of(NULL, 0);
}

unsigned http_field_count(const struct http_request *r, const char *name)
{
    unsigned count = 0;
    for (unsigned i = 0; i < r->field_count; i++)
        count += http_same(r->fields[i].name, name);
    return count;
}

struct slice http_part(struct slice *rest, char separator)
{
    return trim(cut(rest, separator));
}

bool http_list_next(const struct http_request *r, struct http_list *list, struct slice *ret)
{
    for (;;) {
        while (list->rest.len) {
            *ret = http_part(&list->rest, ',');
            if (ret->len)
                return true;
        }
        while (list->next < r->field_count && !http_same(r->fields[list->next].name, list->name))
            list->next++;
        if (list->next == r->field_count)
            return false;
        list->rest = r->fields[list->next++].value;
    }
}

bool http_list_has(const struct http_request *r, const char *name, const char *word)
{
    struct http_list list = {.name = name};
    struct slice element;
    while (http_list_next(r, &list, &element))
        if (http_same(element, word))
            return true;
    return false;
}

/* ---- what the fields mean for the bytes behind them ---- */

static unsigned find_length(struct http_request *r)
{
    unsigned lengths = http_field_count(r, "content-length"), codings = http_field_count(r, "transfer-encoding");
    if (lengths > 1 || codings > 1 || (lengths && codings) || (codings && r->minor == 0))
        return BAD_REQUEST;
    r->chunked = codings == 1;
    if (codings)
        return http_same(http_field(r, "transfer-encoding"), "chunked") ? 0 : NOT_KNOWN;
    if (!lengths)
        return 0;
    struct slice digits = http_field(r, "content-length");
    if (digits.len == 0 || digits.len > LENGTH_DIGITS_MAX)
        return digits.len ? TOO_LARGE : BAD_REQUEST;
    for (size_t i = 0; i < digits.len; i++) {
        if (!is_digit(digits.ptr[i]))
            return BAD_REQUEST;
        r->content_length = r->content_length * 10 + (uint64_t)(digits.ptr[i] - '0');
    }
    return 0;
}

static unsigned find_host(struct http_request *r)
{
    unsigned hosts = http_field_count(r, "host");
    struct slice host = http_field(r, "host");
    if (hosts > 1 || (hosts == 0 && r->minor > 0) || !is_host(host))
        return BAD_REQUEST;
    if (r->host.len == 0)
        r->host = host;
    return 0;
}

static unsigned find_expectation(struct http_request *r)
{
    if (r->minor == 0 || http_field_count(r, "expect") == 0)
        return 0;
    r->expects_continue = http_same(http_field(r, "expect"), "100-continue") && (r->chunked || r->content_length);
    return http_same(http_field(r, "expect"), "100-continue") ? 0 : EXPECTATION_FAILED;
}

/* The next line without its CR LF. */
static bool line_next(struct slice *rest, struct slice *ret)
{
    const uint8_t *end = rest->len ? memmem(rest->ptr, rest->len, "\r\n", 2) : NULL;
    if (!end)
        return false;
    *ret = slice_of(rest->ptr, (size_t)(end - rest->ptr));
    *rest = slice_of(end + 2, rest->len - ret->len - 2);
    return true;
}

unsigned http_parse(struct slice head, struct http_request *ret)
{
    struct slice line;
    ret->field_count = 0;
    ret->minor = 0;
    ret->chunked = ret->expects_continue = ret->keep_alive = false;
    ret->content_length = 0;
    ret->host = slice_of(NULL, 0);
    if (slice_starts(head, "\r\n"))
        head = slice_of(head.ptr + 2, head.len - 2);
    if (head.len > HTTP_HEAD_MAX || !line_next(&head, &line))
        return BAD_REQUEST;
    unsigned bad = parse_request_line(line, ret);
    while (!bad) {
        if (!line_next(&head, &line))
            return BAD_REQUEST;
        if (line.len == 0)
            break;
        bad = parse_field(line, ret);
    }
    if (!bad && head.len)
        bad = BAD_REQUEST;
    if (!bad)
        bad = find_length(ret);
    if (!bad)
        bad = find_host(ret);
    if (!bad)
        bad = find_expectation(ret);
    ret->keep_alive = !http_list_has(ret, "connection", "close") &&
                      (ret->minor > 0 || http_list_has(ret, "connection", "keep-alive"));
    return bad;
}

/* ---- bodies ---- */

enum step {
    STEP_BYTES,     /* a body of known length */
    STEP_SIZE,      /* the digits of a chunk's size */
    STEP_EXTENSION, /* what may stand behind them, which nobody needs */
    STEP_SIZE_LF,
    STEP_CHUNK,
    STEP_CHUNK_CR,
    STEP_CHUNK_LF,
    STEP_TRAILER_BEGIN, /* of a line */
    STEP_TRAILER,
    STEP_TRAILER_LF,
    STEP_END_LF,
};

void http_body_init(struct http_body *body, const struct http_request *request, uint64_t max)
{
    *body = (struct http_body){.left = request->content_length,
                               .room = max,
                               .step = request->chunked ? STEP_SIZE : STEP_BYTES,
                               .done = !request->chunked && request->content_length == 0};
    if (request->content_length > max)
        body->status = TOO_LARGE;
}

static unsigned hex_digit(uint8_t c)
{
    if (is_digit(c))
        return c - '0';
    return lower(c) >= 'a' && lower(c) <= 'f' ? lower(c) - 'a' + 10u : 16;
}

static void body_refuse(struct http_body *body, unsigned status)
{
    body->status = (uint16_t)status;
}

/* The size is known: is there room for it? */
static void chunk_begins(struct http_body *body)
{
    if (body->left > body->room) {
        body_refuse(body, TOO_LARGE);
        return;
    }
    body->room -= body->left;
    body->line = 0;
    body->step = body->left ? STEP_CHUNK : STEP_TRAILER_BEGIN;
}

static void size_byte(struct http_body *body, uint8_t c)
{
    unsigned digit = hex_digit(c);
    if (digit < 16 && body->line < CHUNK_DIGITS_MAX) {
        body->left = body->left * 16 + digit;
        body->line++;
    } else if (digit < 16) {
        body_refuse(body, TOO_LARGE);
    } else if (body->line == 0 || (c != '\r' && c != ';' && c != ' ' && c != '\t')) {
        body_refuse(body, BAD_REQUEST);
    } else {
        body->step = c == '\r' ? STEP_SIZE_LF : STEP_EXTENSION;
    }
}

/* A byte of the framing of chunks (RFC 9112 section 7.1). */
static void frame_byte(struct http_body *body, uint8_t c)
{
    static const struct {
        uint8_t byte, next;
    } fixed[] = {[STEP_CHUNK_CR] = {'\r', STEP_CHUNK_LF},
                 [STEP_CHUNK_LF] = {'\n', STEP_SIZE},
                 [STEP_TRAILER_LF] = {'\n', STEP_TRAILER_BEGIN}};
    switch ((enum step)body->step) {
    case STEP_SIZE: size_byte(body, c); break;
    case STEP_EXTENSION:
        if (c == '\r')
            body->step = STEP_SIZE_LF;
        else if (!is_value_char(c) || ++body->line > HTTP_CHUNK_LINE_MAX)
            body_refuse(body, BAD_REQUEST);
        break;
    case STEP_SIZE_LF:
        if (c == '\n')
            chunk_begins(body);
        else
            body_refuse(body, BAD_REQUEST);
        break;
    case STEP_CHUNK_CR:
    case STEP_CHUNK_LF:
    case STEP_TRAILER_LF:
        if (c != fixed[body->step].byte)
            body_refuse(body, BAD_REQUEST);
        body->step = fixed[body->step].next;
        break;
    case STEP_TRAILER_BEGIN:
    case STEP_TRAILER: /* nobody wants these fields: they are only read over */
        if (c == '\r')
            body->step = body->step == STEP_TRAILER ? STEP_TRAILER_LF : STEP_END_LF;
        else if (!is_value_char(c))
            body_refuse(body, BAD_REQUEST);
        else if (++body->line > HTTP_TRAILER_MAX)
            body_refuse(body, FIELDS_TOO_LARGE);
        else
            body->step = STEP_TRAILER;
        break;
    case STEP_END_LF:
        if (c == '\n')
            body->done = true;
        else
            body_refuse(body, BAD_REQUEST);
        break;
    case STEP_BYTES:
    case STEP_CHUNK: break; /* taken as runs */
    }
}

size_t http_body_take(struct http_body *body, struct slice bytes, struct slice *ret)
{
    size_t used = 0;
    *ret = slice_of(NULL, 0);
    while (used < bytes.len && !body->done && !body->status && ret->len == 0) {
        if (body->step != STEP_BYTES && body->step != STEP_CHUNK) {
            frame_byte(body, bytes.ptr[used++]);
            continue;
        }
        size_t n = bytes.len - used < body->left ? bytes.len - used : (size_t)body->left;
        *ret = slice_of(bytes.ptr + used, n);
        used += n;
        body->left -= n;
        if (body->left == 0 && body->step == STEP_BYTES)
            body->done = true;
        else if (body->left == 0)
            body->step = STEP_CHUNK_CR;
    }
    return used;
}

/* ---- responses ---- */

static const struct {
    unsigned status;
    const char *reason;
} reasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {426, "Upgrade Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
};

const char *http_reason(unsigned status)
{
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "";
}

void http_put_status(struct writer *w, unsigned status)
{
    char line[64];
    int n = snprintf(line, sizeof line, "HTTP/1.1 %u %s\r\n", status, http_reason(status));
    writer_put(w, line, (size_t)n);
}

void http_put_field(struct writer *w, const char *name, struct slice value)
{
    w->failed |= !is_value(value);
    writer_slice_put(w, slice_str(name));
    writer_put(w, ": ", 2);
    writer_slice_put(w, value);
    writer_put(w, "\r\n", 2);
}

void http_put_number(struct writer *w, const char *name, uint64_t value)
{
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
    http_put_field(w, name, slice_of(digits, (size_t)n));
}

/* Days since 1970-01-01 as a date of the Gregorian calendar: years that begin in March, so that February is the last month. */
static void civil(int64_t days, int64_t *ret_year, unsigned *ret_month, unsigned *ret_day)
{
    int64_t shifted = days + 719468, era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    int64_t of_era = shifted - era * 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;
    *ret_day = (unsigned)(of_year - (153 * month + 2) / 5 + 1);
    *ret_month = (unsigned)(month < 10 ? month + 3 : month - 9);
    *ret_year = year + era * 400 + (*ret_month <= 2);
}

void http_put_date(struct writer *w, wall_t now)
{
    static const char weekdays[] = "ThuFriSatSunMonTueWed", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int64_t seconds = now / 1000, days = seconds / 86400, year;
    unsigned of_day = (unsigned)(seconds % 86400), month, day;
    char text[HTTP_DATE_LEN + 16];
    if (now < 0)
        return; /* a clock that knows nothing: RFC 9110 section 6.6.1 leaves the field out then */
    civil(days, &year, &month, &day);
    int n = snprintf(text, sizeof text, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", weekdays + days % 7 * 3, day,
                     months + (month - 1) * 3, (unsigned)(year % 10000), of_day / 3600, of_day / 60 % 60, of_day % 60);
    http_put_field(w, "Date", slice_of(text, (size_t)n));
}

void http_put_end(struct writer *w)
{
    writer_put(w, "\r\n", 2);
}
