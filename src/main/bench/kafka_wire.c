/* See bench/kafka_wire.h. Blocking and written for clarity: none of it is measured, except by the scenarios whose subject
 * it is. Encoding and decoding is that of proto/kafka, whose tables are compared with other clients elsewhere. */
#include "kafka_wire.h"

#include "command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_MAX = 256 << 20, ASK_BYTES_MIN = 4096, IN_BYTES = 256 * 1024 };

static const struct {
    enum kafka_api_key key;
    uint8_t version;
} VERSIONS[] = {
    {KAFKA_API_produce, BENCH_KAFKA_PRODUCE_VERSION},
    {KAFKA_API_fetch, BENCH_KAFKA_FETCH_VERSION},
    {KAFKA_API_list_offsets, 4},
    {KAFKA_API_metadata, 7},
    {KAFKA_API_api_versions, 0},
    {KAFKA_API_create_topics, 3},
    {KAFKA_API_delete_topics, 3},
    {KAFKA_API_init_producer_id, 1},
    {KAFKA_API_find_coordinator, 2},
    {KAFKA_API_join_group, 5},
    {KAFKA_API_sync_group, 3},
    {KAFKA_API_heartbeat, 3},
    {KAFKA_API_leave_group, 1},
    {KAFKA_API_offset_commit, 6},
    {KAFKA_API_offset_fetch, 5},
    {KAFKA_API_sasl_handshake, 1},
    {KAFKA_API_sasl_authenticate, 0},
};

uint8_t bench_kafka_version(enum kafka_api_key key)
{
    for (size_t i = 0; i < ARRAY_LEN(VERSIONS); i++)
        if (VERSIONS[i].key == key)
            return VERSIONS[i].version;
    abort(); /* a key that this program never sends */
}

int bench_kafka_server_parse(const char *text, struct bench_kafka_server *server)
{
    return bench_address_parse(text, server->host, sizeof(server->host), &server->port);
}

int bench_kafka_frame_next(struct bench_kafka_wire *w, struct slice *ret_frame)
{
    struct client_socket *s = &w->socket;
    size_t have = s->in_end - s->in_at;
    uint32_t len;
    if (have < KAFKA_LENGTH_BYTES)
        return 0;
    memcpy(&len, s->in + s->in_at, sizeof(len));
    len = be32toh(len);
    if (len < 4 || len > BENCH_KAFKA_ANSWER_MAX)
        return client_socket_fail(s, "the server sent bytes that are not Kafka's protocol");
    if (have - KAFKA_LENGTH_BYTES < len)
        return client_socket_reserve(s, len + KAFKA_LENGTH_BYTES);
    *ret_frame = slice_of(s->in + s->in_at + KAFKA_LENGTH_BYTES, len);
    s->in_at += len + KAFKA_LENGTH_BYTES;
    return 1;
}

int bench_kafka_refused(struct bench_kafka_wire *w, const char *what, int error_code)
{
    const struct kafka_error_row *row = kafka_error_row(error_code);
    return client_socket_fail(&w->socket, "%s: the server answers %s (%d): %s", what, row->name, error_code, row->text);
}

/* ---- asking and waiting ---- */

static int wire_receive(struct bench_kafka_wire *w, struct slice *ret_frame)
{
    for (;;) {
        int got = bench_kafka_frame_next(w, ret_frame);
        if (got != 0)
            return got < 0 ? -1 : 0;
        ssize_t n = client_socket_fill(&w->socket);
        if (n < 0)
            return -1;
        if (n == 0)
            return client_socket_fail(&w->socket, "no answer within %d s: is this a Kafka listener without TLS?",
                                      BENCH_ANSWER_TIMEOUT_S);
    }
}

int bench_kafka_send(struct bench_kafka_wire *w, enum kafka_api_key key, const void *message)
{
    const struct kafka_api *api = kafka_api_find((int16_t)key);
    struct kafka_form form = kafka_api_form(api, bench_kafka_version(key));
    size_t room = ASK_BYTES_MIN + kafka_encode_size(api->request, form, message);
    uint8_t *bytes = malloc(room);
    if (bytes == NULL)
        return client_socket_fail(&w->socket, "out of memory for a request of %zu bytes", room);
    struct writer out = writer_of(bytes, room);
    size_t mark = kafka_request_begin(&out, api, form, ++w->correlation_id, slice_str(BENCH_KAFKA_CLIENT));
    kafka_encode(&out, api->request, form, message, NULL);
    kafka_request_end(&out, mark);
    int failed = writer_ok(&out) ? client_socket_send(&w->socket, out.base, out.len)
                                 : client_socket_fail(&w->socket, "a name is too long for %s", api->name);
    free(bytes);
    return failed;
}

int bench_kafka_decode(struct bench_kafka_wire *w, enum kafka_api_key key, struct slice frame, void **ret_answer)
{
    const struct kafka_api *api = kafka_api_find((int16_t)key);
    struct kafka_form form = kafka_api_form(api, bench_kafka_version(key));
    struct slice body;
    int32_t correlation_id;
    arena_reset(&w->arena);
    *ret_answer = arena_take(&w->arena, api->response->struct_len);
    if (*ret_answer == NULL)
        return client_socket_fail(&w->socket, "out of memory for the answer to %s", api->name);
    if (!kafka_response_head(frame, api, form, &correlation_id, &body) || correlation_id != w->correlation_id)
        return client_socket_fail(&w->socket, "the answer to %s belongs to another request", api->name);
    if (kafka_decode(api->response, form, body, &w->arena, *ret_answer) != KAFKA_OK)
        return client_socket_fail(&w->socket, "the answer to %s, version %u, cannot be read", api->name, form.version);
    return 0;
}

int bench_kafka_ask(struct bench_kafka_wire *w, enum kafka_api_key key, const void *message, void **ret_answer)
{
    struct slice frame;
    if (bench_kafka_send(w, key, message) != 0 || wire_receive(w, &frame) != 0)
        return -1;
    return bench_kafka_decode(w, key, frame, ret_answer);
}

/* ---- logging in ---- */

static int wire_agree(struct bench_kafka_wire *w)
{
    struct kafka_api_versions_request ask = {.client_software_name = {0}};
    void *found;
    if (bench_kafka_ask(w, KAFKA_API_api_versions, &ask, &found) != 0)
        return -1;
    const struct kafka_api_versions_response *answer = found;
    if (answer->error_code != 0)
        return bench_kafka_refused(w, "ApiVersions", answer->error_code);
    for (size_t i = 0; i < ARRAY_LEN(VERSIONS); i++) {
        bool login = VERSIONS[i].key == KAFKA_API_sasl_handshake || VERSIONS[i].key == KAFKA_API_sasl_authenticate;
        for (int32_t k = 0; k < answer->api_keys.count; k++) {
            const struct kafka_api_versions_response_api_key *row = &answer->api_keys.at[k];
            w->creates = w->creates || row->api_key == KAFKA_API_create_topics;
            if (row->api_key == (int16_t)VERSIONS[i].key && !login &&
                (VERSIONS[i].version < row->min_version || VERSIONS[i].version > row->max_version))
                return client_socket_fail(&w->socket, "the server speaks %s in versions %d to %d, this program in %u",
                                          kafka_api_find(row->api_key)->name, row->min_version, row->max_version,
                                          VERSIONS[i].version);
        }
    }
    return 0;
}

static int wire_login(struct bench_kafka_wire *w, const struct bench_kafka_server *server)
{
    struct kafka_sasl_handshake_request hello = {.mechanism = slice_str("PLAIN")};
    uint8_t bytes[600];
    struct writer secret = writer_of(bytes, sizeof(bytes));
    void *found;
    if (bench_kafka_ask(w, KAFKA_API_sasl_handshake, &hello, &found) != 0)
        return -1;
    const struct kafka_sasl_handshake_response *known = found;
    if (known->error_code != 0)
        return bench_kafka_refused(w, "SASL PLAIN", known->error_code);
    writer_u8(&secret, 0);
    writer_slice_put(&secret, slice_str(server->user));
    writer_u8(&secret, 0);
    writer_slice_put(&secret, slice_str(server->password != NULL ? server->password : ""));
    if (!writer_ok(&secret))
        return client_socket_fail(&w->socket, "user and password are too long");
    struct kafka_sasl_authenticate_request login = {.auth_bytes = writer_slice(&secret)};
    if (bench_kafka_ask(w, KAFKA_API_sasl_authenticate, &login, &found) != 0)
        return -1;
    const struct kafka_sasl_authenticate_response *answer = found;
    return answer->error_code == 0 ? 0 : bench_kafka_refused(w, "login", answer->error_code);
}

int bench_kafka_open(struct bench_kafka_wire *w, const struct bench_kafka_server *server)
{
    memset(w, 0, sizeof(*w));
    w->socket.fd = -1;
    arena_init(&w->arena, ARENA_MAX);
    if (client_socket_reserve(&w->socket, IN_BYTES) != 0 ||
        client_socket_connect(&w->socket, server->host, server->port) != 0 ||
        (server->tls && client_socket_tls(&w->socket, server->host, server->tls) != 0) || wire_agree(w) != 0)
        return -1;
    return server->user != NULL ? wire_login(w, server) : 0;
}

void bench_kafka_close(struct bench_kafka_wire *w)
{
    client_socket_close(&w->socket);
    arena_fini(&w->arena);
}
