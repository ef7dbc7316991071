/* net_int: what the files of net/ share: the inside of a loop. The loop's thread. */
#ifndef MILLRACE_NET_NET_INT_H
#define MILLRACE_NET_NET_INT_H

#include "base/ring.h"
#include "base/wheel.h"
#include "net/loop.h"
#include "os/os_poll.h"

#define READ_GULP (64u * 1024)       /* one recv */
#define READ_CONN_MAX READ_GULP      /* bytes read of one connection per tick: more makes stages wait for each other */
#define READ_TICK_MAX (1024u * 1024) /* bytes read per tick */
#define TAIL_COPY_MAX 4096u          /* a shorter unfinished tail is copied in front of the next gulp */
#define WRITE_PIECES 64              /* iovecs per sendmsg */
#define HANDED_MAX 1024              /* connections on their way to another loop */

struct handed {
    int fd;
    struct os_peer peer;
    const struct engine_factory *factory;
};

struct loop {
    struct loop_options options;
    struct os_poll poll;
    struct wheel wheel;
    struct list conns;     /* all, live and lingering */
    struct list ready;     /* connections to be read or fed again in the next tick */
    struct list dirty;     /* engines with something to flush */
    struct list dead;      /* connections to be freed at the end of the tick */
    struct list listeners; /* closed by loop_free */
    struct ring handed;    /* of struct handed: connections that another loop accepted */
    uint8_t
        *scratch; /* TAIL_COPY_MAX + READ_GULP: everything is read into it first; and files that sendfile cannot send */
    struct tls_buffers *tls_buffers;   /* with the first connection that speaks TLS */
    struct websocket_deflate *deflate; /* with the first WebSocket that packs */
    mono_t tls_complained_at, visitor_complained_at;
    mono_t now;
    mono_t due; /* when turn wants to be called */
    bool stopped;
    _Atomic uint32_t conn_count;
    struct loop_totals totals;
};

struct conn;

/* Takes fd. NULL: no memory; fd is closed. */
MUST_USE struct conn *conn_open(struct loop *loop, int fd, const struct os_peer *peer,
                                const struct engine_factory *factory);
/* Feeds what was left and reads more, at most budget bytes; returns how many were read. Puts itself on ready again. */
size_t conn_read(struct conn *conn, size_t budget);
/* Writes what the engine has to say, closes when it wants to. */
void conn_flush(struct conn *conn);
/* The transport is gone: tells the engine; the connection is freed at the end of the tick. */
void conn_close(struct conn *conn);
void conn_free(struct conn *conn);
struct conn *conn_of_ready(struct list *node);
struct conn *conn_of_link(struct list *node);
struct engine *conn_engine(struct conn *conn);

void listener_free_all(struct loop *loop);

#endif
