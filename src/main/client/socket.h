/* A TCP connection of the load generator: connecting, one flat input buffer, writing. Knows no protocol.
 *
 * Life cycle: zeroed with fd -1 → client_socket_connect → _reserve → _fill / _send … → client_socket_close. Blocking (with a
 * time-out) until client_socket_nonblocking. Thread: one owner. Errors: functions answer -1 and leave a sentence in error.
 */
#ifndef MAIN_BENCH_SOCKET_H
#define MAIN_BENCH_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tls_client_options; /* net/tls_server.h; host in it is not looked at */

enum { BENCH_ANSWER_TIMEOUT_S = 30, BENCH_SOCKET_ERROR_BYTES = 600 };

struct client_socket {
    int fd; /* -1 when closed */
    bool blocking;
    uint64_t patience_ms; /* of a blocking fill; 0: for ever */
    uint64_t wrote_at_ns;
    uint8_t *in;
    size_t in_at, in_end, in_cap; /* what was read and not yet taken: in[in_at..in_end) */
    struct tls_server *tls_side;  /* with TLS, else NULL */
    struct tls_buffers *tls_buffers;
    struct tls *tls;
    char error[BENCH_SOCKET_ERROR_BYTES];
};

int client_socket_connect(struct client_socket *s, const char *host, unsigned port);
/* From now on in TLS. NULL: whose certificate the server has is not looked at: it is measured, and told nothing. Blocking. */
int client_socket_tls(struct client_socket *s, const char *host, const struct tls_client_options *options);
void client_socket_close(struct client_socket *s); /* also frees the buffer */
void client_socket_nonblocking(struct client_socket *s, bool nonblocking);
/* How long a blocking fill waits; 0: for ever. */
void client_socket_patience(struct client_socket *s, uint64_t wait_ms);
/* Room for `bytes` unread bytes in all; what is there stays. */
int client_socket_reserve(struct client_socket *s, size_t bytes);
/* Writes everything, waiting where it must. */
int client_socket_send(struct client_socket *s, const void *bytes, size_t len);
/* Writes bytes[*at..end) as far as it goes: 1 all of it, 0 the socket is full, -1 it is gone. */
int client_socket_write(struct client_socket *s, const uint8_t *bytes, size_t *at, size_t end, uint64_t now_ns);
/* One read; answers bytes read, 0 when there are none (within BENCH_ANSWER_TIMEOUT_S if blocking), -1 at an error or the
 * end of the stream. Drops consumed input, so earlier pointers into it are void. */
ssize_t client_socket_fill(struct client_socket *s);
/* Leaves a sentence in error, unless one is there, and answers -1. */
__attribute__((format(printf, 2, 3))) int client_socket_fail(struct client_socket *s, const char *format, ...);

#endif
