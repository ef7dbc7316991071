/* Frames, see frame.h.
 *
 *   frame   = command EOL *(name ":" value EOL) EOL *octet NUL *EOL
 *
 * A frame that has come whole is read once, from its first byte. Of one that has not, the parser remembers what it has looked
 * at, so that a peer which sends it byte by byte costs no more than its bytes: first it looks for the empty line only, then
 * it knows how long the whole must become (content-length), or looks for the NUL. The headers are read again at the end.
 *
 * A raw colon in a value is let pass, as every broker does; a NUL in front of the body, a line without a colon, a name that is
 * empty and an escape that the version does not have are errors. NULs between frames are skipped, as RabbitMQ does. */
#include "proto/stomp/frame.h"

#include "base/mem.h"

#define BODY_UNTIL_NUL UINT64_MAX

static const char *const version_texts[STOMP_VERSIONS] = {"", "1.0", "1.1", "1.2"};

const char *stomp_version_text(enum stomp_version version)
{
    return version_texts[version];
}

static bool takes_crlf(enum stomp_version version)
{
    return version == STOMP_UNKNOWN || version == STOMP_12;
}

static enum stomp_parsed bad(const char **ret_why, const char *why)
{
    *ret_why = why;
    return STOMP_PARSED_BAD;
}

/* ---- escapes ---- */

static bool escapes(enum stomp_version version)
{
    return version == STOMP_11 || version == STOMP_12;
}

/* The octet that stands for \c; 0: there is no such escape. */
static uint8_t unescape(uint8_t c, enum stomp_version version)
{
    switch (c) {
    case 'n': return '\n';
    case 'c': return ':';
    case '\\': return '\\';
    case 'r': return version == STOMP_12 ? '\r' : 0;
    default: return 0;
    }
}

/* The letter of the escape for an octet; 0: it stands for itself. 1.1 has none for CR. */
static uint8_t escape(uint8_t c, enum stomp_version version)
{
    switch (c) {
    case '\n': return 'n';
    case ':': return 'c';
    case '\\': return '\\';
    case '\r': return version == STOMP_12 ? 'r' : 0;
    default: return 0;
    }
}

/* What no version can carry as it is: it would end the line or the frame. */
static bool unspeakable(uint8_t c)
{
    return c == '\n' || c == 0;
}

size_t stomp_escaped_len(struct slice s, enum stomp_version version)
{
    size_t len = s.len;
    if (escapes(version))
        for (size_t i = 0; i < s.len; i++)
            len += escape(s.ptr[i], version) != 0;
    return len;
}

uint8_t *stomp_put_escaped(uint8_t *at, struct slice s, enum stomp_version version)
{
    bool with = escapes(version);
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i], letter = with ? escape(c, version) : 0;
        if (letter) {
            *at++ = '\\';
            *at++ = letter;
        } else
            *at++ = unspeakable(c) ? ' ' : c;
    }
    return at;
}

/* Undoes the escapes of one name or value in the frame's own block. False: one of them does not exist. */
static bool decode(struct slice *s, uint8_t **at, enum stomp_version version)
{
    if (s->len == 0 || !memchr(s->ptr, '\\', s->len))
        return true;
    const uint8_t *from = s->ptr, *end = s->ptr + s->len;
    uint8_t *to = *at;
    while (from < end) {
        uint8_t c = *from++;
        if (c == '\\' && (from == end || (c = unescape(*from++, version)) == 0))
            return false;
        *to++ = c;
    }
    *s = slice_of(*at, (size_t)(to - *at));
    *at = to;
    return true;
}

/* All of a frame's escapes. Decoded bytes are never more than encoded ones, so one block as long as the headers does. */
static enum stomp_parsed decode_all(struct stomp_frame *frame, size_t head_len, enum stomp_version version,
                                    const char **ret_why)
{
    uint8_t *at = frame->decoded = mem_alloc(head_len);
    if (!at)
        return STOMP_PARSED_NO_MEMORY;
    for (uint32_t i = 0; i < frame->header_count; i++)
        if (!decode(&frame->headers[i].name, &at, version) || !decode(&frame->headers[i].value, &at, version))
            return bad(ret_why, "an escape sequence that this version does not have");
    return STOMP_PARSED_FRAME;
}

/* ---- headers ---- */

static struct slice trimmed(struct slice s)
{
    while (s.len && (*s.ptr == ' ' || *s.ptr == '\t')) {
        s.ptr++;
        s.len--;
    }
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* The first of one name wins (1.2, "Repeated Header Entries"). `seen` is a filter of a bit per name, so that frames without
 * repetition, all frames as a rule, cost next to no comparisons. */
static bool is_repeated(const struct stomp_frame *frame, struct slice name, uint64_t *seen)
{
    uint64_t bit =
        UINT64_C(1) << ((name.len * 7 + name.ptr[0] + 3u * name.ptr[name.len - 1] + name.ptr[name.len / 2]) & 63);
    bool maybe = *seen & bit;
    *seen |= bit;
    for (uint32_t i = 0; maybe && i < frame->header_count; i++)
        if (slice_equal(frame->headers[i].name, name))
            return true;
    return false;
}

struct head {
    const uint8_t *at, *end;
    enum stomp_version version;
    uint64_t seen;
    bool escaped;
};

/* The next line without its end. False: it has not come whole. */
static bool next_line(struct head *h, struct slice *ret)
{
    const uint8_t *nl = h->at < h->end ? memchr(h->at, '\n', (size_t)(h->end - h->at)) : NULL;
    if (!nl)
        return false;
    size_t len = (size_t)(nl - h->at);
    if (len && h->at[len - 1] == '\r' && takes_crlf(h->version))
        len--;
    *ret = slice_of(h->at, len);
    h->at = nl + 1;
    return true;
}

static const char *header_wrong(const struct head *h, struct slice line, const uint8_t *colon)
{
    if (!colon)
        return "a header line without a colon";
    if (colon == line.ptr)
        return "a header without a name";
    if (takes_crlf(h->version) && memchr(line.ptr, '\r', line.len))
        return "a carriage return inside a header";
    return NULL;
}

static enum stomp_parsed add_header(struct head *h, struct stomp_frame *frame, struct slice line, const char **ret_why)
{
    const uint8_t *colon = memchr(line.ptr, ':', line.len);
    const char *why = header_wrong(h, line, colon);
    if (why)
        return bad(ret_why, why);
    struct slice name = slice_of(line.ptr, (size_t)(colon - line.ptr)),
                 value = slice_of(colon + 1, line.len - name.len - 1);
    if (h->version == STOMP_10)
        value = trimmed(value);
    if (is_repeated(frame, name, &h->seen))
        return STOMP_PARSED_FRAME;
    if (frame->header_count == STOMP_HEADERS_MAX)
        return bad(ret_why, "too many headers");
    h->escaped = h->escaped || (escapes(h->version) && memchr(line.ptr, '\\', line.len));
    frame->headers[frame->header_count++] = (struct stomp_header){name, value};
    return STOMP_PARSED_FRAME;
}

/* Command and headers from the first byte on; FRAME: they are all there, and h->at is behind them. */
static enum stomp_parsed read_head(struct head *h, struct stomp_frame *frame, const char **ret_why)
{
    const uint8_t *begin = h->at;
    struct slice line;
    frame->header_count = 0;
    frame->has_length = false;
    frame->decoded = NULL;
    enum stomp_version agreed = h->version;
    h->version = STOMP_UNKNOWN;
    if (!next_line(h, &frame->command))
        return STOMP_PARSED_MORE;
    if (!slice_is(frame->command, "CONNECT") && !slice_is(frame->command, "STOMP")) {
        h->version = agreed; /* those are as if nothing were agreed: no escapes, any line end */
        if (!takes_crlf(agreed))
            frame->command.len = (size_t)(h->at - 1 - begin);
    }
    for (;;) {
        if (!next_line(h, &line))
            return STOMP_PARSED_MORE;
        if (line.len == 0)
            break;
        enum stomp_parsed parsed = add_header(h, frame, line, ret_why);
        if (parsed != STOMP_PARSED_FRAME)
            return parsed;
    }
    size_t len = (size_t)(h->at - begin);
    if (memchr(begin, 0, len))
        return bad(ret_why, "a NUL in front of the body");
    return h->escaped ? decode_all(frame, len, h->version, ret_why) : STOMP_PARSED_FRAME;
}

/* ---- body ---- */

/* False: not a number of octets. */
static bool read_length(struct stomp_frame *frame, uint64_t *ret)
{
    struct slice text;
    *ret = BODY_UNTIL_NUL;
    frame->has_length = stomp_header_find(frame, "content-length", &text);
    if (!frame->has_length)
        return true;
    text = trimmed(text);
    uint64_t length = 0;
    if (text.len == 0 || text.len > 12)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        length = length * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    *ret = length;
    return true;
}

/* The headers are known to end at head_len: where the frame ends. ret_end: behind its NUL. */
static enum stomp_parsed find_end(struct stomp_parser *p, struct slice bytes, const struct stomp_limits *limits,
                                  size_t *ret_end, const char **ret_why)
{
    if (p->body_len != BODY_UNTIL_NUL) {
        if (p->body_len > limits->body_bytes_max)
            return bad(ret_why, "the body is larger than frames may be");
        size_t end = p->head_len + (size_t)p->body_len;
        if (bytes.len <= end)
            return STOMP_PARSED_MORE;
        if (bytes.ptr[end] != 0)
            return bad(ret_why, "no NUL where content-length says that the body ends");
        *ret_end = end + 1;
        return STOMP_PARSED_FRAME;
    }
    if (p->scanned < p->head_len)
        p->scanned = p->head_len;
    const uint8_t *nul = p->scanned < bytes.len ? memchr(bytes.ptr + p->scanned, 0, bytes.len - p->scanned) : NULL;
    p->scanned = nul ? (size_t)(nul - bytes.ptr) : bytes.len;
    if (p->scanned - p->head_len > limits->body_bytes_max)
        return bad(ret_why, "the body is larger than frames may be");
    *ret_end = p->scanned + 1;
    return nul ? STOMP_PARSED_FRAME : STOMP_PARSED_MORE;
}

/* ---- frames ---- */

/* What may stand between frames. ret_used: up to where; a CR waits for its LF. */
static bool skip_between(struct slice bytes, size_t *ret_used)
{
    size_t at = 0;
    while (at < bytes.len) {
        if (bytes.ptr[at] == '\n' || bytes.ptr[at] == 0)
            at++;
        else if (bytes.ptr[at] == '\r' && at + 1 < bytes.len && bytes.ptr[at + 1] == '\n')
            at += 2;
        else
            break;
    }
    *ret_used = at;
    return at > 0;
}

/* Looks for the empty line without reading anything, in any version's form: where the version does not have it, reading finds
 * out. False: it has not come. */
static bool head_is_there(struct stomp_parser *p, struct slice bytes)
{
    while (p->scanned < bytes.len) {
        const uint8_t *nl = memchr(bytes.ptr + p->scanned, '\n', bytes.len - p->scanned);
        if (!nl) {
            p->scanned = bytes.len;
            return false;
        }
        size_t len = (size_t)(nl - bytes.ptr) - p->line;
        p->scanned = p->line = (size_t)(nl - bytes.ptr) + 1;
        if (len == 0 || (len == 1 && nl[-1] == '\r'))
            return true;
        p->lines++;
    }
    return false;
}

/* The same limits for what has come and what is still on its way. */
static const char *too_much(const struct stomp_parser *p, size_t len, const struct stomp_limits *limits)
{
    if (len > limits->head_bytes_max)
        return "the headers are larger than they may be";
    return p->lines > STOMP_HEADERS_MAX * 2 ? "too many headers" : NULL;
}

enum stomp_parsed stomp_parse(struct stomp_parser *p, struct slice bytes, enum stomp_version version,
                              const struct stomp_limits *limits, struct stomp_frame *ret, size_t *ret_used,
                              const char **ret_why)
{
    const char *why;
    *ret_used = 0;
    ret->decoded = NULL;
    if (p->scanned == 0 && skip_between(bytes, ret_used))
        return STOMP_PARSED_EOL;
    if (bytes.len == 0 || (bytes.len == 1 && bytes.ptr[0] == '\r'))
        return STOMP_PARSED_MORE; /* a CR may be the beginning of what stands between frames */
    if (p->head_len) {
        size_t end;
        enum stomp_parsed found = find_end(p, bytes, limits, &end, ret_why);
        if (found != STOMP_PARSED_FRAME)
            return found;
    } else if (p->scanned && !head_is_there(p, bytes)) {
        why = too_much(p, bytes.len, limits);
        return why ? bad(ret_why, why) : STOMP_PARSED_MORE;
    }
    struct head h = {.at = bytes.ptr, .end = bytes.ptr + bytes.len, .version = version};
    enum stomp_parsed parsed = read_head(&h, ret, ret_why);
    if (parsed == STOMP_PARSED_MORE) {
        (void)head_is_there(p, bytes);
        why = too_much(p, bytes.len, limits);
        return why ? bad(ret_why, why) : STOMP_PARSED_MORE;
    }
    if (parsed != STOMP_PARSED_FRAME) {
        stomp_frame_release(ret);
        return parsed;
    }
    p->head_len = (size_t)(h.at - bytes.ptr);
    why = too_much(p, p->head_len, limits);
    size_t end = 0;
    if (why)
        parsed = bad(ret_why, why);
    else if (!read_length(ret, &p->body_len))
        parsed = bad(ret_why, "content-length is not a number");
    else
        parsed = find_end(p, bytes, limits, &end, ret_why);
    if (parsed != STOMP_PARSED_FRAME) {
        stomp_frame_release(ret);
        return parsed;
    }
    ret->body = slice_of(bytes.ptr + p->head_len, end - 1 - p->head_len);
    *ret_used = end;
    *p = (struct stomp_parser){0};
    return STOMP_PARSED_FRAME;
}

void stomp_frame_release(struct stomp_frame *frame)
{
    mem_free(frame->decoded);
    frame->decoded = NULL;
}

bool stomp_header_find(const struct stomp_frame *frame, const char *name, struct slice *ret)
{
    size_t len = strlen(name);
    for (uint32_t i = 0; i < frame->header_count; i++)
        if (frame->headers[i].name.len == len && memcmp(frame->headers[i].name.ptr, name, len) == 0) {
            *ret = frame->headers[i].value;
            return true;
        }
    return false;
}
