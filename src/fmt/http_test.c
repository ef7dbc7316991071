/* Unit test of HTTP/1.1: requests cut at every byte, everything that smuggles, limits, bodies in crumbs, heads of responses. */
#include "fmt/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* Scans bytes that come one by one, then parses. 0: a whole head of that length came out; HTTP_MORE is told as 1. */
static unsigned read_head(struct slice bytes, struct http_request *ret, size_t *ret_len)
{
    struct http_scan scan = {0};
    for (size_t n = 1; n <= bytes.len; n++) {
        unsigned found = http_scan(&scan, slice_of(bytes.ptr, n), ret_len);
        if (found == HTTP_WHOLE)
            return http_parse(slice_of(bytes.ptr, *ret_len), ret);
        if (found != HTTP_MORE)
            return found;
    }
    return 1;
}

/* The same in one piece, and in two with every cut: all must say the same. */
static unsigned read_all_ways(struct slice bytes, struct http_request *ret, size_t *ret_len)
{
    unsigned said = read_head(bytes, ret, ret_len);
    for (size_t cut = 0; cut <= bytes.len; cut++) {
        struct http_scan scan = {0};
        struct http_request request;
        size_t len = 0;
        unsigned found = http_scan(&scan, slice_of(bytes.ptr, cut), &len);
        if (found == HTTP_MORE)
            found = http_scan(&scan, bytes, &len);
        if (found == HTTP_WHOLE) {
            found = http_parse(slice_of(bytes.ptr, len), &request);
            if (said != found || len != *ret_len)
                fail_msg("cut at %zu: %u, not %u", cut, found, said);
        } else if (said != (found == HTTP_MORE ? 1 : found))
            fail_msg("cut at %zu: %u, not %u", cut, found, said);
    }
    return said;
}

static void a_request(void **state)
{
    static const char text[] = "\r\nPOST /a/b%2Fc?x=1&y=? HTTP/1.1\r\nHost: [::1]:15672\r\nX-Empty:\r\n"
                               "Accept: a,, b\t ,\r\naccept:\tc \r\nContent-Length: 12\r\n\r\nbehind";
    struct http_request r;
    size_t len;
    (void)state;
    assert_int_equal(read_all_ways(slice_of(text, sizeof text - 1), &r, &len), 0);
    assert_string_equal(text + len, "behind");
    assert_true(slice_is(r.method, "POST"));
    assert_true(slice_is(r.target, "/a/b%2Fc?x=1&y=?"));
    assert_true(slice_is(r.path, "/a/b%2Fc"));
    assert_true(slice_is(r.query, "x=1&y=?"));
    assert_true(slice_is(r.host, "[::1]:15672"));
    assert_int_equal(r.minor, 1);
    assert_true(r.keep_alive && !r.chunked && !r.expects_continue);
    assert_int_equal(r.content_length, 12);
    assert_int_equal(r.field_count, 5);
    assert_true(http_field(&r, "x-empty").ptr != NULL && http_field(&r, "X-EMPTY").len == 0);
    assert_null(http_field(&r, "x-other").ptr);
    assert_int_equal(http_field_count(&r, "ACCEPT"), 2);
    struct http_list list = {.name = "accept"};
    struct slice word;
    for (const char *want = "abc"; *want; want++) {
        assert_true(http_list_next(&r, &list, &word));
        assert_int_equal(word.len, 1);
        assert_int_equal(word.ptr[0], *want);
    }
    assert_false(http_list_next(&r, &list, &word));
    assert_true(http_list_has(&r, "accept", "C"));
    assert_false(http_list_has(&r, "accept", "a,"));
}

#define H "Host: h\r\n"
#define E "\r\n"

static const struct {
    const char *text;
    unsigned status; /* 0: fine, 1: more is needed */
} heads[] = {
    {"", 1},
    {"G", 1},
    {"GET / HTTP/1.1\r\n" H, 1},
    {"GET / HTTP/1.1\r\n" H E, 0},
    {"GET / HTTP/1.0\r\n" E, 0},
    {"GET http://h/x HTTP/1.1\r\nHost: other\r\n" E, 0},
    {"OPTIONS * HTTP/1.1\r\n" H E, 0},
    {"GET / HTTP/1.9\r\n" H E, 0},
    {"PURGE-1 /~a/{b}|\"c\" HTTP/1.1\r\nhOsT:h\r\n" E, 0},
    {"GET / HTTP/1.1\r\n" H "A: \x80\xff\r\n" E, 0},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: CHUNKED\r\n" E, 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 999999999999999999\r\n" E, 0},
    {"POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 1\r\n" E, 0},
    /* the request line */
    {"\x16\x03\x01", 400},
    {"AMQP\x01", 400},
    {"GET /\r\n" E, 400},
    {"GET  / HTTP/1.1\r\n" H E, 400},
    {"GET / HTTP/1.1 \r\n" H E, 400},
    {"GET /a b HTTP/1.1\r\n" H E, 400},
    {" GET / HTTP/1.1\r\n" H E, 400},
    {"GET\t/ HTTP/1.1\r\n" H E, 400},
    {"G@T / HTTP/1.1\r\n" H E, 400},
    {"GET a HTTP/1.1\r\n" H E, 400},
    {"GET * HTTP/1.1\r\n" H E, 400},
    {"GET /#a HTTP/1.1\r\n" H E, 400},
    {"GET /\x80 HTTP/1.1\r\n" H E, 400},
    {"GET http:///x HTTP/1.1\r\n" H E, 400},
    {"GET http://a@h/x HTTP/1.1\r\n" H E, 400},
    {"GET / http/1.1\r\n" H E, 400},
    {"GET / HTTP/1.10\r\n" H E, 400},
    {"GET / HTTP/2.0\r\n" H E, 505},
    {"CONNECT h:1 HTTP/1.1\r\n" H E, 501},
    {"\r\n\r\nGET / HTTP/1.1\r\n" H E, 400},
    /* lines */
    {"GET / HTTP/1.1\n", 400}, /* at once */
    {"GET / HTTP/1.1\n" H E, 400},
    {"GET / HTTP/1.1\r\n" H "A: b\nC: d\r\n" E, 400},
    {"GET / HTTP/1.1\r\n" H "A: b\rC: d\r\n" E, 400},
    {"GET / HTTP/1.1\r\n" H "A: b\r\r\n" E, 400},
    {"GET / HTTP/1.1\r\n" H "A: \x01\r\n" E, 400},
    {"GET / HTTP/1.1\r\n" H "A: \x7f\r\n" E, 400},
    /* fields */
    {"GET / HTTP/1.1\r\n" H "A: b\r\n folded\r\n" E, 400},
    {"GET / HTTP/1.1\r\n A: b\r\n" H E, 400},
    {"GET / HTTP/1.1\r\n" H "A : b\r\n" E, 400},
    {"GET / HTTP/1.1\r\n" H ": b\r\n" E, 400},
    {"GET / HTTP/1.1\r\n" H "A\r\n" E, 400},
    {"GET / HTTP/1.1\r\n" H "A(b): c\r\n" E, 400},
    {"GET / HTTP/1.1\r\n" E, 400},
    {"GET / HTTP/1.1\r\n" H H E, 400},
    {"GET / HTTP/1.1\r\nHost: a b\r\n" E, 400},
    {"GET / HTTP/1.1\r\nHost: a/b\r\n" E, 400},
    {"GET / HTTP/1.1\r\nHost: a,b\r\n" E, 400},
    /* what smuggles */
    {"POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n" E, 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 1, 1\r\n" E, 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: +1\r\n" E, 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n" E, 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 0x1\r\n" E, 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length:\r\n" E, 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 1 1\r\n" E, 400},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 9999999999999999999\r\n" E, 413},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n" E, 400},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" E, 400},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n" E, 400},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n" E, 501},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n" E, 501},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked;q=1\r\n" E, 501},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n" E, 501},
    {"POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n" E, 400},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n" E, 400},
    {"POST / HTTP/1.1\r\n" H "Expect: something\r\n" E, 417},
};

static void accepted_and_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        struct http_request r;
        size_t len;
        unsigned said = read_all_ways(slice_str(heads[i].text), &r, &len);
        if (said != heads[i].status)
            fail_msg("%u, not %u, for:\n%s", said, heads[i].status, heads[i].text);
    }
}

/* http_parse by itself is given what no scan has let pass. */
static void parse_alone(void **state)
{
    static const char *const rows[] = {"",
                                       "\r\n",
                                       "GET / HTTP/1.1",
                                       "GET / HTTP/1.1\r\n",
                                       "GET / HTTP/1.1\r\nHost: h\r\n",
                                       "GET / HTTP/1.1\r\nHost: h\r\n\r\n ",
                                       "GET / HTTP/1.1\r\nHost: h\nA: b\r\n\r\n",
                                       "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_request r;
        assert_int_equal(http_parse(slice_str(rows[i]), &r), 400);
    }
}

static void going_on(void **state)
{
    static const struct {
        const char *version, *field;
        bool keep;
    } rows[] = {
        {"1.1", "A: b", true},
        {"1.1", "Connection: close", false},
        {"1.1", "Connection: upgrade, CLOSE", false},
        {"1.1", "Connection: closed", true},
        {"1.0", "A: b", false},
        {"1.0", "Connection: Keep-Alive", true},
        {"1.0", "Connection: keep-alive, close", false},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[200];
        struct http_request r;
        int n = snprintf(text, sizeof text, "GET / HTTP/%s\r\nHost: h\r\n%s\r\n\r\n", rows[i].version, rows[i].field);
        assert_int_equal(http_parse(slice_of(text, (size_t)n), &r), 0);
        assert_int_equal(r.keep_alive, rows[i].keep);
    }
}

/* ---- limits ---- */

static void limits_of_heads(void **state)
{
    static char text[2 * HTTP_HEAD_MAX];
    struct http_request r;
    size_t len;
    (void)state;
    for (unsigned fields = HTTP_FIELDS_MAX - 1; fields <= HTTP_FIELDS_MAX; fields++) {
        int n = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: h\r\n");
        for (unsigned i = 0; i < fields; i++)
            n += snprintf(text + n, sizeof text - (size_t)n, "A: %u\r\n", i);
        n += snprintf(text + n, sizeof text - (size_t)n, "\r\n");
        assert_int_equal(read_all_ways(slice_of(text, (size_t)n), &r, &len), fields < HTTP_FIELDS_MAX ? 0 : 431);
        assert_int_equal(http_parse(slice_of(text, (size_t)n), &r), fields < HTTP_FIELDS_MAX ? 0 : 431);
    }
    memset(text, 'a', sizeof text);
    memcpy(text, "GET /", 5);
    assert_int_equal(read_head(slice_of(text, HTTP_LINE_MAX), &r, &len), 1);
    assert_int_equal(read_head(slice_of(text, HTTP_LINE_MAX + 1), &r, &len), 414);
    memcpy(text, "GET / HTTP/1.1\r\nA: ", 19);
    assert_int_equal(read_head(slice_of(text, HTTP_HEAD_MAX - 1), &r, &len), 1);
    assert_int_equal(read_head(slice_of(text, HTTP_HEAD_MAX), &r, &len), 431);
    memcpy(text + HTTP_HEAD_MAX - 13, "\r\nHost: h\r\n\r\n", 13);
    assert_int_equal(read_head(slice_of(text, HTTP_HEAD_MAX), &r, &len), 0);
    assert_int_equal(len, HTTP_HEAD_MAX);
}

/* ---- bodies ---- */

static char content[256];

/* Reads a body that comes in pieces of `step` bytes; what is content of it goes to `content`. Returns the bytes taken. */
static size_t read_body(struct http_body *body, const char *head, struct slice bytes, uint64_t max, size_t step)
{
    struct http_request r;
    size_t used = 0, offered = 0;
    assert_int_equal(http_parse(slice_str(head), &r), 0);
    http_body_init(body, &r, max);
    content[0] = '\0';
    while (!body->done && !body->status && used < bytes.len) {
        struct slice part;
        if (offered < used + step)
            offered = used + step < bytes.len ? used + step : bytes.len;
        size_t n = http_body_take(body, slice_of(bytes.ptr + used, offered - used), &part);
        if (part.len)
            strncat(content, (const char *)part.ptr, part.len);
        assert_true(n > 0 || body->status);
        used += n;
    }
    return used;
}

#define CHUNKED "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"

static void bodies(void **state)
{
    static const struct {
        const char *head, *bytes, *content;
        unsigned status;
        int behind; /* bytes that are left for the next request; -1: the body is not complete */
    } rows[] = {
        {"POST / HTTP/1.1\r\nHost: h\r\n\r\n", "next", "", 0, 4},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", "hellonext", "hello", 0, 4},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", "hell", "hell", 0, -1},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 21\r\n\r\n", "hell", "", 413, -1},
        {CHUNKED, "0\r\n\r\nnext", "", 0, 4},
        {CHUNKED, "5\r\nhello\r\n00006;a=\"b\"\r\n world\r\n0 ; x\r\nA: b\r\nC:\r\n\r\nnext", "hello world", 0, 4},
        {CHUNKED, "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", 0, 0},
        {CHUNKED, "A\r\n0123456789\r\nb\r\n", "0123456789", 413, -1},
        {CHUNKED, "15\r\n", "", 413, -1},
        {CHUNKED, "fffffffffffffff\r\n", "", 413, -1},
        {CHUNKED, "0000000000000001", "", 413, -1},
        {CHUNKED, "\r\n", "", 400, -1},
        {CHUNKED, ";a\r\n", "", 400, -1},
        {CHUNKED, " 5\r\n", "", 400, -1},
        {CHUNKED, "0x5\r\n", "", 400, -1},
        {CHUNKED, "-5\r\n", "", 400, -1},
        {CHUNKED, "5\nhello", "", 400, -1},
        {CHUNKED, "5\rhello", "", 400, -1},
        {CHUNKED, "5;a\nhello", "", 400, -1},
        {CHUNKED, "5;a\x01", "", 400, -1},
        {CHUNKED, "5\r\nhelloo", "hello", 400, -1},
        {CHUNKED, "5\r\nhello\n", "hello", 400, -1},
        {CHUNKED, "5\r\nhello\r\r", "hello", 400, -1},
        {CHUNKED, "0\r\n\rx", "", 400, -1},
        {CHUNKED, "0\r\nA: b\n", "", 400, -1},
        {CHUNKED, "0\r\nA: b\rc", "", 400, -1},
        {CHUNKED, "0\r\nA: b\r\n", "", 0, -1},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t step = 1; step <= 64; step++) {
            struct http_body body;
            size_t len = strlen(rows[i].bytes);
            size_t used = read_body(&body, rows[i].head, slice_of(rows[i].bytes, len), 20, step);
            if (body.status != rows[i].status || strcmp(content, rows[i].content) != 0 ||
                body.done != (rows[i].behind >= 0) || (body.done && used + (size_t)rows[i].behind != len))
                fail_msg("row %zu by %zu: status %u, done %d, used %zu, content %s", i, step, body.status, body.done,
                         used, content);
        }
}

static void limits_of_chunks(void **state)
{
    static char text[2 * HTTP_TRAILER_MAX];
    struct http_body body;
    (void)state;
    memset(text, 'a', sizeof text);
    memcpy(text, "1;", 2);
    read_body(&body, CHUNKED, slice_of(text, HTTP_CHUNK_LINE_MAX + 1), 20, 7);
    assert_int_equal(body.status, 0);
    read_body(&body, CHUNKED, slice_of(text, HTTP_CHUNK_LINE_MAX + 2), 20, 7);
    assert_int_equal(body.status, 400);
    memcpy(text, "0\r\n", 3);
    read_body(&body, CHUNKED, slice_of(text, HTTP_TRAILER_MAX + 3), 20, 7);
    assert_int_equal(body.status, 0);
    read_body(&body, CHUNKED, slice_of(text, HTTP_TRAILER_MAX + 4), 20, 7);
    assert_int_equal(body.status, 431);
}

/* ---- responses ---- */

static void a_response(void **state)
{
    char text[400];
    struct writer w = writer_of(text, sizeof text);
    (void)state;
    http_put_status(&w, 404);
    http_put_field(&w, "Content-Type", slice_str("application/json"));
    http_put_number(&w, "Content-Length", 0);
    http_put_date(&w, 784111777000);
    http_put_end(&w);
    assert_true(writer_ok(&w));
    assert_true(slice_is(writer_slice(&w), "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n"
                                           "Content-Length: 0\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"));
    http_put_field(&w, "A", slice_str("b\r\nC: d"));
    assert_false(writer_ok(&w));
    for (size_t max = 0; max <= 17 + 37; max++) {
        w = writer_of(text, max);
        http_put_status(&w, 200);
        http_put_date(&w, 0);
        assert_int_equal(writer_ok(&w), max == 17 + 37);
    }
    assert_string_equal(http_reason(413), "Content Too Large");
    assert_string_equal(http_reason(299), "");
}

static void dates(void **state)
{
    static const struct {
        int64_t seconds;
        const char *text;
    } rows[] = {
        {0, "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"},
        {951782400, "Date: Tue, 29 Feb 2000 00:00:00 GMT\r\n"},
        {951868799, "Date: Tue, 29 Feb 2000 23:59:59 GMT\r\n"},
        {1709251199, "Date: Thu, 29 Feb 2024 23:59:59 GMT\r\n"},
        {1709251200, "Date: Fri, 01 Mar 2024 00:00:00 GMT\r\n"},
        {4102444799, "Date: Thu, 31 Dec 2099 23:59:59 GMT\r\n"},
        {4107542400, "Date: Mon, 01 Mar 2100 00:00:00 GMT\r\n"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[64];
        struct writer w = writer_of(text, sizeof text);
        http_put_date(&w, rows[i].seconds * 1000 + 999);
        if (!slice_is(writer_slice(&w), rows[i].text))
            fail_msg("%.*s", (int)w.len, text);
    }
    char text[64];
    struct writer w = writer_of(text, sizeof text);
    http_put_date(&w, -1);
    assert_true(writer_ok(&w) && w.len == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request),        cmocka_unit_test(accepted_and_refused), cmocka_unit_test(parse_alone),
        cmocka_unit_test(going_on),         cmocka_unit_test(limits_of_heads),      cmocka_unit_test(bodies),
        cmocka_unit_test(limits_of_chunks), cmocka_unit_test(a_response),           cmocka_unit_test(dates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
