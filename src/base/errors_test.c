/* Unit test of the error table: AMQP's codes and severities as the specification has them, and no row left empty. */
#include "base/errors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* AMQP 0-9-1 constants: soft errors close the channel, hard ones the connection (with RabbitMQ's NOT_ALLOWED as hard). */
static const struct {
    enum error_code code;
    uint16_t amqp;
    const char *name;
    bool hard;
} want[] = {
    {ERR_CONTENT_TOO_LARGE, 311, "CONTENT_TOO_LARGE", false},
    {ERR_NO_ROUTE, 312, "NO_ROUTE", false},
    {ERR_NO_CONSUMERS, 313, "NO_CONSUMERS", false},
    {ERR_CONNECTION_FORCED, 320, "CONNECTION_FORCED", true},
    {ERR_INVALID_PATH, 402, "INVALID_PATH", true},
    {ERR_ACCESS_REFUSED, 403, "ACCESS_REFUSED", false},
    {ERR_NOT_FOUND, 404, "NOT_FOUND", false},
    {ERR_RESOURCE_LOCKED, 405, "RESOURCE_LOCKED", false},
    {ERR_PRECONDITION_FAILED, 406, "PRECONDITION_FAILED", false},
    {ERR_FRAME_ERROR, 501, "FRAME_ERROR", true},
    {ERR_SYNTAX_ERROR, 502, "SYNTAX_ERROR", true},
    {ERR_COMMAND_INVALID, 503, "COMMAND_INVALID", true},
    {ERR_CHANNEL_ERROR, 504, "CHANNEL_ERROR", true},
    {ERR_UNEXPECTED_FRAME, 505, "UNEXPECTED_FRAME", true},
    {ERR_RESOURCE_ERROR, 506, "RESOURCE_ERROR", true},
    {ERR_NOT_ALLOWED, 530, "NOT_ALLOWED", true},
    {ERR_NOT_IMPLEMENTED, 540, "NOT_IMPLEMENTED", true},
    {ERR_INTERNAL_ERROR, 541, "INTERNAL_ERROR", true},
};

static void codes_are_those_of_the_specification(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        const struct error_row *row = error_row(want[i].code);
        assert_int_equal(row->amqp, want[i].amqp);
        assert_string_equal(row->name, want[i].name);
        assert_int_equal(row->hard, want[i].hard);
    }
}

static void every_row_speaks_every_protocol(void **state)
{
    (void)state;
    for (enum error_code code = ERR_NONE + 1; code < ERR_COUNT; code++) {
        const struct error_row *row = error_row(code);
        assert_non_null(row->name);
        assert_in_range(row->amqp, 311, 541);
        assert_int_not_equal(row->kafka, 0); /* 0 is success there */
        assert_true(row->mqtt == 0x10 || row->mqtt >= 0x80);
        assert_in_range(row->http, 400, 599);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_those_of_the_specification),
        cmocka_unit_test(every_row_speaks_every_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
