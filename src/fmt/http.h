/* http: HTTP/1.1 requests from bytes, bodies out of their framing, heads of responses into bytes (RFC 9110, RFC 9112).
 *
 * A request: { http_scan }* until it says HTTP_WHOLE → http_parse of that head → http_body_init → { http_body_take }* until
 * done. Everything else that http_scan, http_parse and a body say is a status to refuse the request with, and the connection
 * ends with it: after a malformed request nobody knows where the next one begins.
 *
 * Strict where two readers of the same bytes could differ (request smuggling): lines end with CR LF and nothing else, no
 * folded fields, no space before a colon, one Content-Length of digits only or one Transfer-Encoding of `chunked` and never
 * both, one Host. Everything has a limit. All slices are loans of the head's bytes. Pure functions, any thread.
 */
#ifndef MILLRACE_FMT_HTTP_H
#define MILLRACE_FMT_HTTP_H

#include "base/types.h"
#include "base/writer.h"

#define HTTP_HEAD_MAX 16384u
#define HTTP_LINE_MAX 8192u /* the request line */
#define HTTP_FIELDS_MAX 64u
#define HTTP_CHUNK_LINE_MAX 256u /* size and extensions of a chunk */
#define HTTP_TRAILER_MAX 4096u

/* What http_scan says beside a status. */
enum { HTTP_MORE = 0, HTTP_WHOLE = 1 };

/* Zeroed: at the beginning of a head. */
struct http_scan {
    uint32_t at, line_at; /* scanned; where the line began */
    uint8_t lines;        /* that were not empty */
    bool cr, blank;
};

/* bytes: all of the head so far, the same as before and more behind. HTTP_WHOLE: its length is in *ret_len. */
MUST_USE unsigned http_scan(struct http_scan *scan, struct slice bytes, size_t *ret_len);

struct http_field {
    struct slice name, value;
};

struct http_request {
    struct slice method, target;
    struct slice path, query; /* of the target, as they came: nothing is decoded; query without its question mark */
    struct slice host;        /* with a port, if it was said; empty: an HTTP/1.0 client need not say it */
    uint8_t minor;            /* HTTP/1.x */
    bool keep_alive;          /* the client would go on after this request */
    bool chunked;
    bool expects_continue;
    uint64_t content_length; /* 0: none, or chunked */
    unsigned field_count;
    struct http_field fields[HTTP_FIELDS_MAX];
};

/* 0, or the status to refuse it with. head: as http_scan found it. */
MUST_USE unsigned http_parse(struct slice head, struct http_request *ret);

/* The value of the first field of that name; ptr NULL: there is none. Names are compared without case. */
struct slice http_field(const struct http_request *request, const char *name);
/* How many fields have that name. */
unsigned http_field_count(const struct http_request *request, const char *name);

/* Goes through the elements of a list that may be spread over several fields: zeroed but for the name. */
struct http_list {
    const char *name;
    unsigned next; /* field */
    struct slice rest;
};
bool http_list_next(const struct http_request *request, struct http_list *list, struct slice *ret);
/* Takes what stands in front of the first such character, and that character: all, if it is not there. Spaces around it go. */
struct slice http_part(struct slice *rest, char separator);
/* Is that word among them? Compared without case. */
bool http_list_has(const struct http_request *request, const char *name, const char *word);
/* The same, but for case? */
bool http_same(struct slice text, const char *word);

/* ---- bodies ---- */

struct http_body {
    uint64_t left;   /* of the body, or of the chunk */
    uint64_t room;   /* bytes that chunks may still bring */
    uint32_t line;   /* bytes of the chunk's line, or of the trailer */
    uint16_t status; /* not 0: refuse it */
    uint8_t step;
    bool done;
};

/* max: bytes of content; more is refused with 413, in a chunked body as soon as it is known. */
void http_body_init(struct http_body *body, const struct http_request *request, uint64_t max);
/* Consumes bytes behind the head, returns how many; *ret are those of them that are content, maybe none. Call again with the
 * rest until it takes nothing, is done or has a status. */
size_t http_body_take(struct http_body *body, struct slice bytes, struct slice *ret);

/* ---- responses ---- */

#define HTTP_DATE_LEN 29u

const char *http_reason(unsigned status);
/* A head is: status, then fields, then end. A value with control characters makes the writer fail. */
void http_put_status(struct writer *w, unsigned status);
void http_put_field(struct writer *w, const char *name, struct slice value);
void http_put_number(struct writer *w, const char *name, uint64_t value);
void http_put_date(struct writer *w, wall_t now);
void http_put_end(struct writer *w);

#endif
