/* os_net: sockets: listening, accepting, reading and writing without blocking; and the blocking client side for tools.
 *
 * Functions return 0 or a count, or a negative errno. Descriptors are close-on-exec; those of listeners and accepted
 * connections do not block. Any thread; one descriptor belongs to one thread at a time.
 */
#ifndef MILLRACE_OS_NET_H
#define MILLRACE_OS_NET_H

#include "base/types.h"

#include <sys/uio.h>

#define OS_ADDRESS_MAX 64
#define OS_LISTEN_BACKLOG 4096

struct os_peer {
    char text[OS_ADDRESS_MAX]; /* 127.0.0.1:40112, [::1]:40112, or `local` for a Unix socket */
    bool loopback;
    char local[OS_ADDRESS_MAX]; /* the address it has connected to, without port and brackets; empty for `local` */
    uint16_t local_port;
};

/* host: a numeric IPv4 or IPv6 address, or a name that resolves to one. Accepted sockets send small packets at once. */
MUST_USE int os_tcp_listen(const char *host, uint16_t port, int *ret_fd);
/* Replaces a socket file that nobody listens on; the file gets mode 0600. */
MUST_USE int os_unix_listen(const char *path, int *ret_fd);
/* -EAGAIN: nobody is waiting. */
MUST_USE int os_accept(int listener, int *ret_fd, struct os_peer *ret_peer);
/* The port a socket is bound to; 0 when it has none. */
uint16_t os_socket_port(int fd);

/* One recv; 0 is the end of the stream. */
MUST_USE int64_t os_recv(int fd, void *ret, size_t len);
/* One sendmsg, without SIGPIPE; may be short. more: what follows is sent at once, so that packets need not be cut here. */
MUST_USE int64_t os_send_pieces(int fd, struct iovec *pieces, int count, bool more);
/* One sendfile; may be short, which says nothing about the socket: -EAGAIN does. 0: the file ends at `at`. -EINVAL: not from
 * such a file or to such a socket. SIGPIPE must be ignored. */
MUST_USE int64_t os_send_file(int fd, int file_fd, uint64_t at, size_t len);
/* Says that nothing more will be sent. */
void os_shutdown_write(int fd);
/* Never fails as far as the caller can do anything about it. */
void os_socket_close(int fd);

/* Blocking, for the command line. */
/* 1: there is something to be read, or the end; 0: not within ms; -EINTR. */
MUST_USE int os_wait_readable(int fd, int ms);
MUST_USE int os_unix_connect(const char *path, int *ret_fd);
MUST_USE int os_send_all(int fd, const void *bytes, size_t len);
MUST_USE int os_recv_all(int fd, void *ret, size_t len); /* -EPIPE: the peer closed before len bytes came */

/* A descriptor kept in reserve, to be closed when accept says EMFILE. */
MUST_USE int os_spare_open(int *ret_fd);

#endif
