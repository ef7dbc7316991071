/* Sockets, see os_net.h. Stateless; any thread.
 *
 * Options are set on the listener: Linux copies TCP_NODELAY and SO_KEEPALIVE to what it accepts, which saves two system
 * calls per connection. IPv6 listeners take IPv6 only, so that 127.0.0.1 and ::1 can both be bound by name. */
#include "os/os_net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

static int listen_at(const struct sockaddr *address, socklen_t len, int *ret_fd)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int err = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (err == 0 && address->sa_family == AF_INET6)
        err = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (err == 0)
        err = set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (err == 0)
        err = set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    if (err == 0 && (bind(fd, address, len) < 0 || listen(fd, OS_LISTEN_BACKLOG) < 0))
        err = -errno;
    if (err < 0) {
        close(fd);
        return err;
    }
    *ret_fd = fd;
    return 0;
}

int os_tcp_listen(const char *host, uint16_t port, int *ret_fd)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1)
        return listen_at((struct sockaddr *)&v4, sizeof v4, ret_fd);
    if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1)
        return listen_at((struct sockaddr *)&v6, sizeof v6, ret_fd);
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return -EADDRNOTAVAIL;
    int err = listen_at(found->ai_addr, found->ai_addrlen, ret_fd);
    freeaddrinfo(found);
    return err;
}

static int unix_address(const char *path, struct sockaddr_un *ret)
{
    size_t len = strlen(path);
    if (len >= sizeof ret->sun_path)
        return -ENAMETOOLONG;
    memset(ret, 0, sizeof *ret);
    ret->sun_family = AF_UNIX;
    memcpy(ret->sun_path, path, len);
    return 0;
}

/* The data folder's lock is held by now, so a socket file that is there belongs to a broker that is gone. */
int os_unix_listen(const char *path, int *ret_fd)
{
    struct sockaddr_un address;
    int err = unix_address(path, &address);
    if (err < 0)
        return err;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    unlink(path);
    mode_t before = umask(0177);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 16) < 0)
        err = -errno;
    umask(before);
    if (err < 0) {
        close(fd);
        return err;
    }
    *ret_fd = fd;
    return 0;
}

static void describe_v4(const struct sockaddr_in *address, struct os_peer *ret)
{
    char host[INET_ADDRSTRLEN] = "";
    inet_ntop(AF_INET, &address->sin_addr, host, sizeof host);
    snprintf(ret->text, sizeof ret->text, "%s:%u", host, ntohs(address->sin_port));
    ret->loopback = (ntohl(address->sin_addr.s_addr) >> 24) == 127;
}

static void describe_v6(const struct sockaddr_in6 *address, struct os_peer *ret)
{
    char host[INET6_ADDRSTRLEN] = "";
    inet_ntop(AF_INET6, &address->sin6_addr, host, sizeof host);
    snprintf(ret->text, sizeof ret->text, "[%s]:%u", host, ntohs(address->sin6_port));
    ret->loopback = IN6_IS_ADDR_LOOPBACK(&address->sin6_addr) ||
                    (IN6_IS_ADDR_V4MAPPED(&address->sin6_addr) && address->sin6_addr.s6_addr[12] == 127);
}

/* Where an accepted socket ends on our side. */
static void describe_local(int fd, struct os_peer *ret)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_storage room;
    } address;
    socklen_t len = sizeof address;
    if (getsockname(fd, &address.any, &len) < 0)
        return;
    if (address.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address.v4.sin_addr, ret->local, sizeof ret->local);
        ret->local_port = ntohs(address.v4.sin_port);
    } else if (address.any.sa_family == AF_INET6) {
        if (IN6_IS_ADDR_V4MAPPED(&address.v6.sin6_addr))
            inet_ntop(AF_INET, address.v6.sin6_addr.s6_addr + 12, ret->local, sizeof ret->local);
        else
            inet_ntop(AF_INET6, &address.v6.sin6_addr, ret->local, sizeof ret->local);
        ret->local_port = ntohs(address.v6.sin6_port);
    }
}

int os_accept(int listener, int *ret_fd, struct os_peer *ret_peer)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_storage room;
    } address;
    socklen_t len = sizeof address;
    int fd = accept4(listener, &address.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return -errno;
    *ret_peer = (struct os_peer){.text = ""};
    describe_local(fd, ret_peer);
    if (address.any.sa_family == AF_INET)
        describe_v4(&address.v4, ret_peer);
    else if (address.any.sa_family == AF_INET6)
        describe_v6(&address.v6, ret_peer);
    else
        *ret_peer = (struct os_peer){.text = "local", .loopback = true};
    *ret_fd = fd;
    return 0;
}

uint16_t os_socket_port(int fd)
{
    struct os_peer here = {.text = ""};
    describe_local(fd, &here);
    return here.local_port;
}

int64_t os_recv(int fd, void *ret, size_t len)
{
    ssize_t n;
    do
        n = recv(fd, ret, len, 0);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int64_t os_send_pieces(int fd, struct iovec *pieces, int count, bool more)
{
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
    ssize_t n;
    do
        n = sendmsg(fd, &message, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int64_t os_send_file(int fd, int file_fd, uint64_t at, size_t len)
{
    ssize_t n;
    do {
        off_t offset = (off_t)at;
        n = sendfile(fd, file_fd, &offset, len);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

void os_shutdown_write(int fd)
{
    shutdown(fd, SHUT_WR);
}

void os_socket_close(int fd)
{
    close(fd);
}

int os_unix_connect(const char *path, int *ret_fd)
{
    struct sockaddr_un address;
    int err = unix_address(path, &address);
    if (err < 0)
        return err;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        err = -errno;
        close(fd);
        return err;
    }
    *ret_fd = fd;
    return 0;
}

int os_wait_readable(int fd, int ms)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    int n = poll(&wanted, 1, ms);
    return n < 0 ? -errno : n;
}

int os_send_all(int fd, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int os_recv_all(int fd, void *ret, size_t len)
{
    uint8_t *at = ret;
    while (len) {
        int64_t n = os_recv(fd, at, len);
        if (n <= 0)
            return n < 0 ? (int)n : -EPIPE;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int os_spare_open(int *ret_fd)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}
