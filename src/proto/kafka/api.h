/* api: the table of API keys (api.def), the headers in front of requests and responses, and the error codes (errors.def).
 *
 *   request    length of what follows (4), key (2), version (2), correlation id (4), client id (length 2, -1 null), from
 *              flexible versions on tagged fields; then the message
 *   response   length of what follows (4), correlation id (4), from flexible versions on tagged fields, except ApiVersions,
 *              which a client must understand before it knows the version; then the message
 *
 * As a server  kafka_request_head ▸ kafka_request_decode ▸ kafka_response_begin ▸ kafka_encode ▸ kafka_response_end
 * As a client  kafka_request_begin ▸ kafka_encode ▸ kafka_request_end; kafka_response_head ▸ kafka_decode
 *
 * Constant tables and pure functions, any thread.
 */
#ifndef MILLRACE_PROTO_KAFKA_API_H
#define MILLRACE_PROTO_KAFKA_API_H

#include "base/reader.h"
#include "proto/kafka/codec.h"

/* KAFKA_API_produce, … : the key as on the wire. */
enum kafka_api_key {
#define API(number, name, title, first, last, announced, flexible, when) KAFKA_API_##name = number,
#include "proto/kafka/api.def"
#undef API
};

#define KAFKA_NEVER 255

struct kafka_api {
    const char *name; /* "ListOffsets" */
    const struct kafka_table *request, *response;
    int16_t key;
    uint8_t first, last;     /* versions that are understood */
    uint8_t first_announced; /* in ApiVersions */
    uint8_t flexible_from;   /* KAFKA_NEVER */
    bool before_login;
};

extern const struct kafka_api kafka_apis[];
extern const size_t kafka_api_count;

/* The row, or NULL. */
const struct kafka_api *kafka_api_find(int16_t key);

static inline bool kafka_api_speaks(const struct kafka_api *api, int16_t version)
{
    return version >= api->first && version <= api->last;
}

/* version is one that kafka_api_speaks. */
static inline struct kafka_form kafka_api_form(const struct kafka_api *api, uint8_t version)
{
    return (struct kafka_form){.version = version, .flexible = version >= api->flexible_from};
}

/* ------------------------------------------------------------------------------------------------------------- headers */

#define KAFKA_LENGTH_BYTES 4u /* in front of every request and response */

enum kafka_head_verdict {
    KAFKA_HEAD_OK,
    KAFKA_HEAD_DAMAGED,         /* nothing of it can be believed */
    KAFKA_HEAD_UNKNOWN_KEY,     /* key, version and correlation id are right */
    KAFKA_HEAD_UNKNOWN_VERSION, /* api is too. ApiVersions is then answered in version 0 with error 35 and its own range */
};

struct kafka_request_head {
    const struct kafka_api *api;
    int16_t key, version; /* as sent */
    int32_t correlation_id;
    struct kafka_form form;
    struct slice client_id; /* ptr NULL: null */
};

/* request: what follows the length. ret_body: the message. */
MUST_USE enum kafka_head_verdict kafka_request_head(struct slice request, struct kafka_request_head *ret,
                                                    struct slice *ret_body);

/* The message in the arena, a struct of head->api->request. */
MUST_USE enum kafka_verdict kafka_request_decode(const struct kafka_request_head *head, struct slice body,
                                                 struct arena *arena, void **ret);

/* Length and header; returns the mark for kafka_response_end, which fills in the length. Between them the message. */
MUST_USE size_t kafka_response_begin(struct writer *w, const struct kafka_api *api, struct kafka_form form,
                                     int32_t correlation_id);
/* bytes_elsewhere: of kafka_cuts. */
void kafka_response_end(struct writer *w, size_t mark, size_t bytes_elsewhere);
/* Bytes of length and header. */
size_t kafka_response_head_size(const struct kafka_api *api, struct kafka_form form);

/* client_id: ptr NULL is null. */
MUST_USE size_t kafka_request_begin(struct writer *w, const struct kafka_api *api, struct kafka_form form,
                                    int32_t correlation_id, struct slice client_id);
void kafka_request_end(struct writer *w, size_t mark);

/* response: what follows the length; api and form are those of the request with this correlation id, so that the caller
 * looks at the first four bytes beforehand. False: damaged. */
MUST_USE bool kafka_response_head(struct slice response, const struct kafka_api *api, struct kafka_form form,
                                  int32_t *ret_correlation_id, struct slice *ret_body);

/* -------------------------------------------------------------------------------------------------------------- errors */

/* KAFKA_ERR_NONE, KAFKA_ERR_OFFSET_OUT_OF_RANGE, … as on the wire. */
enum kafka_error {
#define KAFKA_ERROR(number, name, retriable, text) KAFKA_ERR_##name = number,
#include "proto/kafka/errors.def"
#undef KAFKA_ERROR
};

struct kafka_error_row {
    const char *name; /* "OFFSET_OUT_OF_RANGE" */
    const char *text; /* a sentence without full stop */
    int16_t code;
    bool retriable; /* clients try again on their own */
};

/* The row; that of UNKNOWN_SERVER_ERROR for a code that there is not. */
const struct kafka_error_row *kafka_error_row(int code);

#endif
