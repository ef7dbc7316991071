/* What a client may say: one row per command, and the driver that holds a frame against its row.
 *
 * A handler finds everything that its row demands and has only the meaning. Commands of a later version than the agreed one do
 * not exist, and before a login only CONNECT and STOMP do. Thread: the loop's. */
#include "base/check.h"
#include "proto/stomp/stomp_int.h"

static const struct command_row {
    const char *name;
    enum stomp_version from;
    bool early; /* before the login, and only then */
    const char *header;
    enum stomp_wrong missing;
    const char *missing_text;
    void (*handle)(struct stomp *s, const struct stomp_frame *frame);
} rows[] = {
    {"SEND", STOMP_10, false, "destination", WRONG_NO_DESTINATION, "\"SEND\" must include a 'destination' header\n",
     stomp_on_send},
    {"ACK", STOMP_10, false, NULL, 0, NULL, stomp_on_ack},
    {"NACK", STOMP_11, false, NULL, 0, NULL, stomp_on_nack},
    {"SUBSCRIBE", STOMP_10, false, "destination", WRONG_NO_DESTINATION,
     "\"SUBSCRIBE\" must include a 'destination' header\n", stomp_on_subscribe},
    {"UNSUBSCRIBE", STOMP_10, false, NULL, 0, NULL, stomp_on_unsubscribe},
    {"BEGIN", STOMP_10, false, "transaction", WRONG_NO_TRANSACTION, "\"BEGIN\" must include a 'transaction' header\n",
     stomp_on_begin},
    {"COMMIT", STOMP_10, false, "transaction", WRONG_NO_TRANSACTION, "\"COMMIT\" must include a 'transaction' header\n",
     stomp_on_commit},
    {"ABORT", STOMP_10, false, "transaction", WRONG_NO_TRANSACTION, "\"ABORT\" must include a 'transaction' header\n",
     stomp_on_abort},
    {"DISCONNECT", STOMP_10, false, NULL, 0, NULL, stomp_on_disconnect},
    {"CONNECT", STOMP_UNKNOWN, true, NULL, 0, NULL, stomp_on_connect},
    {"STOMP", STOMP_UNKNOWN, true, NULL, 0, NULL, stomp_on_connect},
};

static const struct command_row *row_find(const struct stomp *s, struct slice name)
{
    for (const struct command_row *row = rows; row < rows + ARRAY_LEN(rows); row++)
        if (slice_is(name, row->name))
            return row->early || row->from <= s->version ? row : NULL;
    return NULL;
}

static void take(struct stomp *s, const struct stomp_frame *frame)
{
    struct slice ignored;
    bool early = s->state == CONN_CONNECT;
    const struct command_row *row = row_find(s, frame->command);
    if (early && !(row && row->early))
        stomp_error(s, WRONG_STATE, "You must log in using CONNECT first");
    else if (!row)
        stomp_error(s, WRONG_COMMAND, "Could not interpret command \"%.*s\"\n", SLICE_ARG(frame->command));
    else if (!early && row->early)
        stomp_error(s, WRONG_STATE, "You are logged in already");
    else if (row->header && !stomp_header_find(frame, row->header, &ignored))
        stomp_error(s, row->missing, "%s", row->missing_text);
    else
        row->handle(s, frame);
}

void stomp_take(struct stomp *s, const struct stomp_frame *frame)
{
    s->receipt = (struct slice){0};
    if (!stomp_header_find(frame, "receipt", &s->receipt))
        s->receipt = (struct slice){0};
    if (s->receipt.ptr && s->receipt.len > STOMP_RECEIPT_MAX) {
        s->receipt = (struct slice){0};
        stomp_error(s, WRONG_HEADER, "'receipt' must not be longer than %u bytes\n", STOMP_RECEIPT_MAX);
    } else
        take(s, frame);
    s->receipt = (struct slice){0}; /* it was a loan */
}
