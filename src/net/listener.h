/* listener: a listening socket: accepts connections and spreads them over the loops.
 *
 * Life cycle: listener_open_tcp/unix before or while the loop runs → listener_close. Everything on the thread of the
 * loop it was opened on; connections go to `loops` in turn, its own among them.
 */
#ifndef MILLRACE_NET_LISTENER_H
#define MILLRACE_NET_LISTENER_H

#include "net/loop.h"

struct listener;

struct listener_options {
    struct loop *loop;         /* where it is served */
    struct loop *const *loops; /* who gets the connections; a loan for the listener's life; count 0: only `loop` */
    unsigned loop_count;
    uint32_t conns_max;                   /* over all loops together; 0: no limit */
    const struct engine_factory *factory; /* a loan for the listener's life */
};

/* 0 or a negative errno (-EADDRINUSE, -EADDRNOTAVAIL, -EACCES …). */
MUST_USE int listener_open_tcp(const struct listener_options *options, const char *host, uint16_t port,
                               struct listener **ret);
MUST_USE int listener_open_unix(const struct listener_options *options, const char *path, struct listener **ret);
uint16_t listener_port(const struct listener *listener);
void listener_close(struct listener **listener);

#endif
