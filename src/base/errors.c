/* The table of errors.def as an array. */
#include "base/errors.h"

#include "base/check.h"

static const struct error_row rows[ERR_COUNT] = {
#define ERROR(id, amqp_code, amqp_name, is_hard, kafka_code, mqtt_code, http_code)                                     \
    [ERR_##id] = {.name = amqp_name,                                                                                   \
                  .amqp = amqp_code,                                                                                   \
                  .hard = is_hard,                                                                                     \
                  .kafka = kafka_code,                                                                                 \
                  .mqtt = mqtt_code,                                                                                   \
                  .http = http_code},
#include "base/errors.def"
#undef ERROR
};

const struct error_row *error_row(enum error_code code)
{
    CHECK(code > ERR_NONE && code < ERR_COUNT);
    return &rows[code];
}
