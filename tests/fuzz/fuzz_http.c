/* Fuzz target of HTTP requests and of UTF-8.
 * fuzz: -max_len=20000
 * covers: src/fmt/http.c src/base/utf8.c
 *
 * The first byte says how the rest is cut. The bytes are a connection: heads and bodies one behind the other. Cut or whole,
 * the same must come out; a head that was accepted must not be one that another reader could take for something else; and
 * content must lie within the bytes given. UTF-8 is checked in pieces and whole. */
#include "base/check.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "fmt/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define BODY_MAX 5000u

static void check_request(const struct http_request *r, struct slice head)
{
    CHECK(r->field_count <= HTTP_FIELDS_MAX && r->method.len && r->path.len);
    CHECK(http_field_count(r, "content-length") + http_field_count(r, "transfer-encoding") <= 1);
    CHECK(http_field_count(r, "host") <= 1);
    CHECK(!r->chunked || r->content_length == 0);
    for (unsigned i = 0; i < r->field_count; i++) {
        const struct http_field *f = &r->fields[i];
        CHECK(f->name.ptr >= head.ptr && f->value.ptr + f->value.len <= head.ptr + head.len);
        CHECK(!memchr(f->name.ptr, ' ', f->name.len));
        CHECK(f->value.len == 0 ||
              (!memchr(f->value.ptr, '\r', f->value.len) && !memchr(f->value.ptr, '\n', f->value.len)));
    }
    struct http_list list = {.name = "connection"};
    struct slice word;
    while (http_list_next(r, &list, &word))
        CHECK(word.len && !memchr(word.ptr, ',', word.len));
}

/* Bytes of the body at the front of `rest`; *ret_over: it is complete. */
static size_t read_body(const struct http_request *r, struct slice rest, size_t step, bool *ret_over, uint64_t *ret_sum)
{
    struct http_body body;
    size_t used = 0;
    http_body_init(&body, r, BODY_MAX);
    *ret_sum = 0;
    while (!body.done && !body.status && used < rest.len) {
        struct slice part;
        size_t offered = rest.len - used < step ? rest.len - used : step;
        size_t n = http_body_take(&body, slice_of(rest.ptr + used, offered), &part);
        CHECK(n <= offered && part.len <= n);
        CHECK(part.len == 0 || (part.ptr >= rest.ptr + used && part.ptr + part.len <= rest.ptr + used + n));
        CHECK(n || body.done || body.status);
        *ret_sum += part.len;
        used += n;
    }
    CHECK(*ret_sum <= BODY_MAX);
    *ret_over = body.done;
    return used;
}

static void play(struct slice bytes, size_t step)
{
    while (bytes.len) {
        struct http_scan scan = {0}, whole = {0};
        struct http_request r;
        size_t offered = 0, len = 0, len_whole = 0;
        unsigned found = HTTP_MORE;
        while (found == HTTP_MORE && offered < bytes.len) {
            offered = bytes.len - offered < step ? bytes.len : offered + step;
            found = http_scan(&scan, slice_of(bytes.ptr, offered), &len);
        }
        CHECK(http_scan(&whole, bytes, &len_whole) == found && len == len_whole);
        if (found != HTTP_WHOLE)
            return;
        struct slice head = slice_of(bytes.ptr, len);
        if (http_parse(head, &r))
            return;
        check_request(&r, head);
        bytes = slice_of(bytes.ptr + len, bytes.len - len);
        bool over, over_whole;
        uint64_t sum, sum_whole;
        size_t used = read_body(&r, bytes, step, &over, &sum);
        CHECK(read_body(&r, bytes, SIZE_MAX, &over_whole, &sum_whole) == used && over == over_whole &&
              sum == sum_whole);
        if (!over)
            return;
        bytes = slice_of(bytes.ptr + used, bytes.len - used);
    }
}

static void check_utf8(struct slice text, size_t step)
{
    struct utf8 u = {0};
    bool valid = true;
    for (size_t at = 0; at < text.len && valid; at += step)
        valid = utf8_step(&u, slice_of(text.ptr + at, text.len - at < step ? text.len - at : step));
    CHECK((valid && utf8_whole(&u)) == utf8_valid(text));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len < 2)
        return 0;
    /* A block of exactly this size, so that the sanitizer sees a read beyond its end. */
    uint8_t *copy = mem_alloc(len - 1);
    CHECK(copy);
    memcpy(copy, bytes + 1, len - 1);
    play(slice_of(copy, len - 1), bytes[0] ? bytes[0] : 1);
    check_utf8(slice_of(copy, len - 1), bytes[0] ? bytes[0] : 1);
    mem_free(copy);
    return 0;
}
