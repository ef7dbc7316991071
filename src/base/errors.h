/* errors: the one list of errors that clients are told (errors.def), and their codes per protocol. Any thread. */
#ifndef MILLRACE_BASE_ERRORS_H
#define MILLRACE_BASE_ERRORS_H

#include "base/types.h"

enum error_code {
    ERR_NONE = 0,
#define ERROR(name, amqp, amqp_name, hard, kafka, mqtt, http) ERR_##name,
#include "base/errors.def"
#undef ERROR
    ERR_COUNT
};

struct error_row {
    const char *name; /* also AMQP's reply-text prefix */
    uint16_t amqp;
    bool hard; /* AMQP: closes the connection, not only the channel */
    int16_t kafka;
    uint8_t mqtt;
    uint16_t http;
};

const struct error_row *error_row(enum error_code code);

#endif
