/* Frames: every version's rules, cut at every byte, wrong in every way, and no larger than they may be. */
#include "proto/stomp/frame.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define TEXT_MAX 4096

static const struct stomp_limits limits = {.head_bytes_max = 1000, .body_bytes_max = 100};

static size_t show(char *to, struct slice s)
{
    size_t at = 0;
    for (size_t i = 0; i < s.len; i++)
        at += (size_t)snprintf(to + at, 8, s.ptr[i] < ' ' ? "<%u>" : "%c", s.ptr[i]);
    to[at] = '\0';
    return at;
}

static void print(char *to, const struct stomp_frame *f)
{
    to += show(to, f->command);
    for (uint32_t i = 0; i < f->header_count; i++) {
        *to++ = ' ';
        to += show(to, f->headers[i].name);
        *to++ = '=';
        to += show(to, f->headers[i].value);
    }
    *to++ = ' ';
    *to++ = '"';
    to += show(to, f->body);
    memcpy(to, "\";", 3);
}

/* Everything that comes out of bytes that are given `gulp` at a time, as a connection does it; gulp 0: all at once. */
static void parse(char *to, struct slice bytes, enum stomp_version version, size_t gulp)
{
    struct stomp_parser parser = {0};
    struct stomp_frame frame;
    const char *why = NULL;
    size_t used, begin = 0, end = gulp ? 0 : bytes.len;
    *to = '\0';
    for (;;) {
        uint8_t *copy = mem_alloc(end - begin + 1); /* so that a sanitizer sees the bytes end here */
        if (end > begin)
            memcpy(copy, bytes.ptr + begin, end - begin);
        enum stomp_parsed parsed =
            stomp_parse(&parser, slice_of(copy, end - begin), version, &limits, &frame, &used, &why);
        begin += used;
        if (parsed == STOMP_PARSED_FRAME)
            print(to + strlen(to), &frame);
        stomp_frame_release(&frame);
        mem_free(copy);
        if (parsed == STOMP_PARSED_BAD) {
            snprintf(to + strlen(to), 64, "%s", why);
            return;
        }
        if (parsed != STOMP_PARSED_MORE)
            continue;
        if (end == bytes.len)
            break;
        end += gulp < bytes.len - end ? gulp : bytes.len - end;
    }
    if (begin < bytes.len)
        snprintf(to + strlen(to), 8, "…");
}

#define V10 (1 << STOMP_10)
#define V11 (1 << STOMP_11)
#define V12 (1 << STOMP_12)
#define VNONE (1 << STOMP_UNKNOWN)
#define ALL (V10 | V11 | V12 | VNONE)

static const struct row {
    const char *bytes;
    size_t len;
    unsigned versions;
    const char *want;
} rows[] = {
#define ROW(versions, bytes, want)                                                                                     \
    {                                                                                                                  \
        bytes, sizeof(bytes) - 1, versions, want                                                                       \
    }
    ROW(ALL, "SEND\ndestination:/queue/a\n\nhello\0", "SEND destination=/queue/a \"hello\";"),
    ROW(ALL, "\n\n\0\nACK\n\n\0\n", "ACK \"\";"),
    ROW(ALL, "A\n\n\0B\nx:\n\nb\0", "A \"\";B x= \"b\";"),
    ROW(ALL, "\r\n\nBEGIN\n\n\0\r\n", "BEGIN \"\";"),
    ROW(ALL, "SEND\ncontent-length:3\n\na\0b\0C\n\n\0", "SEND content-length=3 \"a<0>b\";C \"\";"),
    ROW(V11 | V12 | VNONE, "SEND\ncontent-length: 0 \n\n\0", "SEND content-length= 0  \"\";"),
    ROW(V10, "SEND\ncontent-length: 0 \n\n\0", "SEND content-length=0 \"\";"),
    ROW(ALL, "SEND\nh:1\nh:2\ng:3\n\n\0", "SEND h=1 g=3 \"\";"),
    ROW(ALL, "SEND\na:b:c\n\n\0", "SEND a=b:c \"\";"),
    ROW(V11 | V12, "SEND\na\\cb:x\\ny\\\\z\\c\n\n\0", "SEND a:b=x<10>y\\z: \"\";"),
    ROW(V10 | VNONE, "SEND\na\\cb:x\\ny\n\n\0", "SEND a\\cb=x\\ny \"\";"),
    ROW(V12, "SEND\na:x\\ry\n\n\0", "SEND a=x<13>y \"\";"),
    ROW(V11, "SEND\na:x\\ry\n\n\0", "an escape sequence that this version does not have"),
    ROW(V11 | V12, "SEND\na:x\\ty\n\n\0", "an escape sequence that this version does not have"),
    ROW(V11 | V12, "SEND\na:x\\\n\n\0", "an escape sequence that this version does not have"),
    ROW(ALL, "CONNECT\npasscode:a\\cb\\\n\n\0", "CONNECT passcode=a\\cb\\ \"\";"),
    ROW(V11 | V12 | VNONE, "SEND\na: b \n\n\0", "SEND a= b  \"\";"),
    ROW(V10, "SEND\na: \tb \n\n\0", "SEND a=b \"\";"),
    ROW(V12 | VNONE, "SEND\r\na:b\r\n\r\nx\r\n\0\r\n", "SEND a=b \"x<13><10>\";"),
    ROW(V10 | V11 | V12, "CONNECT\r\nlogin:b\r\n\r\n\0", "CONNECT login=b \"\";"),
    ROW(V11, "SEND\na:b\r\n\n\0", "SEND a=b<13> \"\";"),
    ROW(V10 | V11, "SEND\r\na:b\r\n\r\n\0", "a header line without a colon"),
    ROW(V12 | VNONE, "SEND\na:b\rc\n\n\0", "a carriage return inside a header"),
    ROW(ALL, "SEND\nnothing\n\n\0", "a header line without a colon"),
    ROW(ALL, "SEND\n:x\n\n\0", "a header without a name"),
    ROW(ALL, "SEND\na:\0b\n\n\0", "a NUL in front of the body"),
    ROW(ALL, "SE\0ND\n\n\0", "a NUL in front of the body"),
    ROW(ALL, "SEND\ncontent-length:x\n\n\0", "content-length is not a number"),
    ROW(ALL, "SEND\ncontent-length:-1\n\n\0", "content-length is not a number"),
    ROW(ALL, "SEND\ncontent-length:\n\n\0", "content-length is not a number"),
    ROW(ALL, "SEND\ncontent-length:99999999999999999999\n\n\0", "content-length is not a number"),
    ROW(ALL, "SEND\ncontent-length:101\n\n", "the body is larger than frames may be"),
    ROW(ALL, "SEND\ncontent-length:1\n\nab\0", "no NUL where content-length says that the body ends"),
    ROW(ALL, "SEND\ncontent-length:2\n\na\0", "…"),
    ROW(ALL, "SEND\n\nabc", "…"),
    ROW(ALL, "SEND\na:b\n", "…"),
    ROW(ALL, "SEN", "…"),
#undef ROW
};

static void row_check(const struct row *row, enum stomp_version version)
{
    char got[TEXT_MAX];
    for (size_t gulp = 0; gulp <= row->len; gulp++) {
        parse(got, slice_of(row->bytes, row->len), version, gulp);
        if (strcmp(got, row->want) != 0)
            fail_msg("row %zu, version %s, gulps of %zu:\n%s\ninstead of\n%s", (size_t)(row - rows),
                     stomp_version_text(version), gulp, got, row->want);
    }
}

static void every_row_cut_everywhere(void **state)
{
    (void)state;
    for (const struct row *row = rows; row < rows + ARRAY_LEN(rows); row++)
        for (enum stomp_version v = STOMP_UNKNOWN; v < STOMP_VERSIONS; v++)
            if (row->versions & 1u << v)
                row_check(row, v);
}

static void build(uint8_t *to, size_t *len, const char *text, size_t repeat)
{
    size_t n = strlen(text);
    for (; repeat; repeat--, *len += n)
        memcpy(to + *len, text, n);
}

static void limits_hold(void **state)
{
    (void)state;
    static uint8_t bytes[8192];
    char got[TEXT_MAX];
    static const struct {
        const char *text;
        size_t repeat;
        const char *want;
    } cases[] = {
        {"a", 1001, "the headers are larger than they may be"},
        {"a:b\n", 260, "the headers are larger than they may be"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (size_t gulp = 0; gulp < 3; gulp++) {
            size_t len = 0;
            build(bytes, &len, "SEND\n", 1);
            build(bytes, &len, cases[i].text, cases[i].repeat);
            parse(got, slice_of(bytes, len), STOMP_12, gulp);
            assert_string_equal(got, cases[i].want);
        }
    for (size_t gulp = 0; gulp < 3; gulp++) {
        size_t len = 0;
        build(bytes, &len, "SEND\n\n", 1);
        build(bytes, &len, "x", 101);
        parse(got, slice_of(bytes, len), STOMP_12, gulp);
        assert_string_equal(got, "the body is larger than frames may be");
    }
}

static void too_many_headers(void **state)
{
    (void)state;
    static uint8_t bytes[16384];
    static const struct stomp_limits wide = {.head_bytes_max = sizeof bytes, .body_bytes_max = 100};
    struct stomp_frame frame;
    for (unsigned count = STOMP_HEADERS_MAX; count <= STOMP_HEADERS_MAX + 1; count++) {
        struct stomp_parser parser = {0};
        const char *why = NULL;
        size_t used, len = (size_t)snprintf((char *)bytes, 16, "SEND\n");
        for (unsigned i = 0; i < count; i++)
            len += (size_t)snprintf((char *)bytes + len, 16, "h%u:%u\n", i, i);
        memcpy(bytes + len, "\n\0", 2);
        enum stomp_parsed parsed = stomp_parse(&parser, slice_of(bytes, len + 2), STOMP_12, &wide, &frame, &used, &why);
        assert_int_equal(parsed, count == STOMP_HEADERS_MAX ? STOMP_PARSED_FRAME : STOMP_PARSED_BAD);
        if (why)
            assert_string_equal(why, "too many headers");
    }
}

static void escapes_written(void **state)
{
    (void)state;
    static const struct {
        enum stomp_version version;
        const char *want;
    } cases[] = {
        {STOMP_UNKNOWN, "a:b\\c d\re f"},
        {STOMP_10, "a:b\\c d\re f"},
        {STOMP_11, "a\\cb\\\\c\\nd\re f"},
        {STOMP_12, "a\\cb\\\\c\\nd\\re f"},
    };
    struct slice from = slice_of((const uint8_t *)"a:b\\c\nd\re\0f", 11); /* a NUL would end the frame */
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t room[32];
        size_t len = (size_t)(stomp_put_escaped(room, from, cases[i].version) - room);
        assert_int_equal(len, stomp_escaped_len(from, cases[i].version));
        assert_int_equal(len, strlen(cases[i].want));
        assert_memory_equal(room, cases[i].want, len);
    }
}

static void memory_refused(void **state)
{
    (void)state;
    struct stomp_parser parser = {0};
    struct stomp_frame frame;
    const char *why, *bytes = "SEND\na:\\n\n\n";
    size_t used;
    mem_fail_at(1, false);
    assert_int_equal(stomp_parse(&parser, slice_of(bytes, strlen(bytes) + 1), STOMP_12, &limits, &frame, &used, &why),
                     STOMP_PARSED_NO_MEMORY);
    mem_fail_at(0, false);
    assert_null(frame.decoded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_cut_everywhere), cmocka_unit_test(limits_hold),
        cmocka_unit_test(too_many_headers),         cmocka_unit_test(escapes_written),
        cmocka_unit_test(memory_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
