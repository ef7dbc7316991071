/* A Kafka client connection for the load generator: logs in, asks and waits; the measured part uses its socket directly.
 *
 * Life cycle: bench_kafka_open → { bench_kafka_ask → use the answer }* → client_socket_nonblocking on .socket, and from
 * then on the caller's own loop with bench_kafka_frame_next → bench_kafka_close.
 * Thread: one owner. Errors: functions answer -1 and leave a sentence in wire->socket.error.
 *
 * One version of each request is used, the one that all brokers from Kafka 2.1 to 4.x have in common (see VERSIONS in
 * bench/kafka_wire.c): requests and answers of the measured part then have fixed places, and all brokers do the same work.
 */
#ifndef MAIN_BENCH_KAFKA_WIRE_H
#define MAIN_BENCH_KAFKA_WIRE_H

#include "base/arena.h"
#include "main/client/socket.h"
#include "proto/kafka/api.h"

enum { BENCH_KAFKA_PRODUCE_VERSION = 7, BENCH_KAFKA_FETCH_VERSION = 11, BENCH_KAFKA_ANSWER_MAX = 512 << 20 };

#define BENCH_KAFKA_CLIENT "millrace-bench"

struct bench_kafka_server {
    char host[256];
    unsigned port;
    const char *user, *password;          /* SASL PLAIN; NULL: no login */
    const struct tls_client_options *tls; /* NULL: without TLS */
};

struct bench_kafka_wire {
    struct client_socket socket;
    struct arena arena; /* of the last answer */
    int32_t correlation_id;
    bool creates; /* the server knows CreateTopics */
};

/* "host", "host:port" or "[address]:port"; answers -1 when malformed. What is not said stays as it is. */
int bench_kafka_server_parse(const char *text, struct bench_kafka_server *server);

int bench_kafka_open(struct bench_kafka_wire *w, const struct bench_kafka_server *server);
void bench_kafka_close(struct bench_kafka_wire *w);
/* Sends `message` (a struct of the key's request table) and decodes the answer, which lies in the wire until the next. */
int bench_kafka_ask(struct bench_kafka_wire *w, enum kafka_api_key key, const void *message, void **ret_answer);
/* The two halves of bench_kafka_ask, for who waits for several servers at once: one request at a time a connection. */
int bench_kafka_send(struct bench_kafka_wire *w, enum kafka_api_key key, const void *message);
int bench_kafka_decode(struct bench_kafka_wire *w, enum kafka_api_key key, struct slice frame, void **ret_answer);
/* The version of a key that is used here. */
uint8_t bench_kafka_version(enum kafka_api_key key);
/* "<what>: NAME: sentence" as the wire's error; answers -1. */
int bench_kafka_refused(struct bench_kafka_wire *w, const char *what, int error_code);

/* Takes the next complete answer, without its length, out of the input: 1 got one, 0 more bytes are needed (the buffer has
 * then room for the whole), -1 not Kafka. */
int bench_kafka_frame_next(struct bench_kafka_wire *w, struct slice *ret_frame);

#endif
