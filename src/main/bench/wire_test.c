/* Unit test of the load generator's AMQP client: URIs, frames cut at any byte, frames that are none. */
#include "wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void uri_parts_have_defaults(void **state)
{
    (void)state;
    struct bench_uri u;
    assert_int_equal(bench_uri_parse("amqp://", &u), 0);
    assert_string_equal(u.user, "guest");
    assert_string_equal(u.host, "127.0.0.1");
    assert_string_equal(u.vhost, "/");
    assert_int_equal(u.port, 5672);
}

static void uri_parts_are_read(void **state)
{
    (void)state;
    struct bench_uri u;
    assert_int_equal(bench_uri_parse("amqp://me:p%40ss%3a@[::1]:5673/a%2Fb?heartbeat=3", &u), 0);
    assert_string_equal(u.user, "me");
    assert_string_equal(u.password, "p@ss:");
    assert_string_equal(u.host, "::1");
    assert_int_equal(u.port, 5673);
    assert_string_equal(u.vhost, "a/b");
    assert_int_equal(bench_uri_parse("amqp://broker/", &u), 0);
    assert_string_equal(u.host, "broker");
    assert_string_equal(u.vhost, "/");
}

static void bad_uris_are_refused(void **state)
{
    (void)state;
    static const char *const BAD[] = {"",
                                      "http://localhost",
                                      "amqp://localhost:0",
                                      "amqp://localhost:65536",
                                      "amqp://localhost:56x",
                                      "amqp://[::1",
                                      "amqp://u%4:p@h",
                                      "amqp://h/%00"};
    struct bench_uri u;
    for (size_t i = 0; i < sizeof(BAD) / sizeof(BAD[0]); i++)
        assert_int_equal(bench_uri_parse(BAD[i], &u), -1);
}

static size_t put_ack(uint8_t *bytes, size_t cap)
{
    struct bench_writer w = {.bytes = bytes, .cap = cap};
    bench_put_method_begin(&w, 1, BENCH_BASIC_ACK);
    bench_put_u64(&w, 7);
    bench_put_u8(&w, 1);
    bench_put_frame_end(&w);
    return w.failed ? 0 : w.at;
}

static void frame_is_taken_only_when_complete(void **state)
{
    (void)state;
    uint8_t bytes[64];
    size_t len = put_ack(bytes, sizeof(bytes));
    assert_int_equal(len, 21);
    for (size_t have = 0; have <= len; have++) {
        struct bench_wire w = {.socket = {.fd = -1, .in = bytes, .in_end = have}, .frame_max = 4096};
        struct bench_frame f = {0};
        assert_int_equal(bench_wire_frame_next(&w, &f), have == len);
        if (have < len)
            continue;
        assert_int_equal(bench_frame_method(&f), BENCH_BASIC_ACK);
        assert_int_equal(f.channel, 1);
        assert_int_equal(bench_get_u64(f.payload + 4), 7);
        assert_int_equal(w.socket.in_at, len);
    }
}

static void writer_that_is_full_says_so(void **state)
{
    (void)state;
    uint8_t bytes[20];
    assert_int_equal(put_ack(bytes, sizeof(bytes)), 0);
}

static void wrong_end_and_oversize_are_errors(void **state)
{
    (void)state;
    uint8_t bytes[64];
    size_t len = put_ack(bytes, sizeof(bytes));
    struct bench_frame f;
    struct bench_wire w = {.socket = {.fd = -1, .in = bytes, .in_end = len}, .frame_max = 4096};
    bytes[len - 1] = 0;
    assert_int_equal(bench_wire_frame_next(&w, &f), -1);
    bench_set_u32(bytes + 3, 4096 - BENCH_FRAME_OVERHEAD + 1);
    w.socket.in_at = 0;
    assert_int_equal(bench_wire_frame_next(&w, &f), -1);
}

static void close_by_the_server_is_told_in_its_words(void **state)
{
    (void)state;
    uint8_t bytes[128];
    struct bench_writer out = {.bytes = bytes, .cap = sizeof(bytes)};
    bench_put_method_begin(&out, 1, BENCH_CHANNEL_CLOSE);
    bench_put_u16(&out, 404);
    bench_put_shortstr(&out, "NOT_FOUND - no queue");
    bench_put_u32(&out, 0);
    bench_put_frame_end(&out);
    struct bench_wire w = {.socket = {.fd = -1, .in = bytes, .in_end = out.at}, .frame_max = 4096};
    struct bench_frame f;
    assert_int_equal(bench_wire_frame_next(&w, &f), 1);
    assert_int_equal(bench_wire_on_method(&w, bench_frame_method(&f), &f), -1);
    assert_string_equal(w.socket.error, "the server closed the channel: 404 NOT_FOUND - no queue");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uri_parts_have_defaults),
        cmocka_unit_test(uri_parts_are_read),
        cmocka_unit_test(bad_uris_are_refused),
        cmocka_unit_test(frame_is_taken_only_when_complete),
        cmocka_unit_test(writer_that_is_full_says_so),
        cmocka_unit_test(wrong_end_and_oversize_are_errors),
        cmocka_unit_test(close_by_the_server_is_told_in_its_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
