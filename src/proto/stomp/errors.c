/* ERROR frames: what is wrong, in RabbitMQ's words where it has any, and what becomes of the connection.
 *
 * The specification wants the connection closed behind every ERROR, and so it is. RabbitMQ goes on after those whose rows say
 * so; options.stays_open does the same. Thread: the loop's. */
#include "base/check.h"
#include "proto/stomp/stomp_int.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

static const struct wrong_row {
    const char *message;
    bool goes_on; /* in RabbitMQ */
} rows[WRONG_COUNT] = {
    [WRONG_FRAME] = {"Bad frame", false},
    [WRONG_STATE] = {"Illegal command", true},
    [WRONG_VERSION] = {"Version mismatch", true},
    [WRONG_LOGIN] = {"Bad CONNECT", true},
    [WRONG_COMMAND] = {"Bad command", true},
    [WRONG_DESTINATION_KIND] = {"Unknown destination", true},
    [WRONG_DESTINATION] = {"Invalid destination", true},
    [WRONG_NO_DESTINATION] = {"Missing destination", true},
    [WRONG_NO_ID] = {"Missing Header", true},
    [WRONG_NO_HEADER] = {"Missing header", true},
    [WRONG_HEADER] = {"Invalid header", true},
    [WRONG_ID] = {"Invalid id", true},
    [WRONG_DUPLICATE] = {"Duplicated subscription identifier", false},
    [WRONG_NO_SUBSCRIPTION] = {"No subscription found", true},
    [WRONG_SUBSCRIPTION_GONE] = {"Subscription not found", true},
    [WRONG_MESSAGE] = {"Message not found", true},
    [WRONG_NO_TARGET] = {"Missing destination or id", true},
    [WRONG_NO_TRANSACTION] = {"Missing transaction", true},
    [WRONG_TRANSACTION] = {"Bad transaction", true},
    [WRONG_NOT_ACCEPTED] = {"Message not accepted", false},
};

void stomp_error(struct stomp *s, enum stomp_wrong wrong, const char *format, ...)
{
    char body[2048];
    if (!stomp_live(s))
        return;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(body, sizeof body, format, args);
    va_end(args);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof body ? (size_t)n : sizeof body - 1;
    stomp_out_error(s, &(struct stomp_error_frame){.message = slice_str(rows[wrong].message),
                                                   .body = slice_of(body, len),
                                                   .receipt = s->receipt});
    if (!(s->options->stays_open && rows[wrong].goes_on && s->state == CONN_RUNNING))
        stomp_end(s);
}

void stomp_error_core(struct stomp *s, enum error_code code, struct slice text, struct slice receipt)
{
    char name[32], body[600];
    const char *from = error_row(code)->name;
    size_t len = strlen(from);
    if (!stomp_live(s))
        return;
    CHECK(len < sizeof name);
    for (size_t i = 0; i < len; i++)
        name[i] = (char)tolower((unsigned char)from[i]);
    int n = snprintf(body, sizeof body, "%s - %.*s", from, SLICE_ARG(text));
    size_t body_len = n < 0 ? 0 : (size_t)n < sizeof body ? (size_t)n : sizeof body - 1;
    stomp_out_error(s, &(struct stomp_error_frame){
                           .message = slice_of(name, len), .body = slice_of(body, body_len), .receipt = receipt});
    stomp_end(s);
}

void stomp_fail_memory(struct stomp *s)
{
    stomp_error_core(s, ERR_RESOURCE_ERROR, slice_str("out of memory"), s->receipt);
}

void stomp_error_cancelled(struct stomp *s, const struct stomp_subscription *sub)
{
    char body[1024];
    struct slice id = slice_of(sub->tag.ptr + 2, sub->tag.len - 2);
    int n = snprintf(body, sizeof body,
                     "The server has canceled a subscription.\nNo more messages will be delivered for \"%s='%.*s'\".\n",
                     sub->tag.ptr[0] == 'T' ? "id" : "destination", (int)(id.len < 512 ? id.len : 512),
                     (const char *)id.ptr);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof body ? (size_t)n : sizeof body - 1;
    stomp_out_error(s, &(struct stomp_error_frame){.message = slice_str("Server cancelled subscription"),
                                                   .body = slice_of(body, len),
                                                   .subscription = id});
}

void stomp_error_destination(struct stomp *s, enum stomp_destination_result result, enum stomp_place place,
                             struct slice text, struct slice rest)
{
    if (result == STOMP_DESTINATION_BLANK)
        stomp_error(s, WRONG_DESTINATION, "Destination cannot be blank");
    else if (result == STOMP_DESTINATION_INVALID)
        stomp_error(s, WRONG_DESTINATION, "'%.*s' is not a valid %s destination\n", SLICE_ARG(rest),
                    stomp_place_word(place));
    else if (s->options->dialect == STOMP_AS_ACTIVEMQ)
        stomp_error(
            s, WRONG_DESTINATION_KIND,
            "Illegal destination name: [%.*s] -- ActiveMQ STOMP destinations must begin with one of: /queue/ /topic/ "
            "/temp-queue/ /temp-topic/",
            SLICE_ARG(text));
    else
        stomp_error(s, WRONG_DESTINATION_KIND,
                    "'%.*s' is not a valid destination.\nValid destination types are: " STOMP_PLACES_TEXT ".\n",
                    SLICE_ARG(text));
}
