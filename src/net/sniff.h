/* sniff: which protocol a new connection speaks, by its first bytes: an engine that hands over to the right one.
 *
 * Life cycle: the rows (one per protocol) and the ports are filled at boot, factory and all → sniff_factory(port) is what the
 * listener of that port makes → the sniffer's feed consumes nothing until a row matches, makes the engine of that row, and
 * hands the connection over with every byte that came, marked as visiting when it is not the port's usual one. What no row knows goes to the port's usual engine, which says it in
 * its own words, and to the log. A peer that does not say enough within wait_ms is let go. Rows and ports outlive the loops;
 * they do not change while those run. The matchers are pure functions.
 */
#ifndef MILLRACE_NET_SNIFF_H
#define MILLRACE_NET_SNIFF_H

#include "net/loop.h"

#include <stdatomic.h>

#define SNIFF_BYTES_MAX 32u /* every matcher has made up its mind by then */

enum sniff_verdict { SNIFF_NO, SNIFF_MORE, SNIFF_YES };

/* Any prefix of what a client says first, at least one byte. MORE: so far it looks like it. */
enum sniff_verdict sniff_is_amqp(struct slice first);  /* AMQP of any version: the 4 letters */
enum sniff_verdict sniff_is_kafka(struct slice first); /* a length below 256 MiB, a key below 128, a version */
enum sniff_verdict sniff_is_mqtt(struct slice first);  /* CONNECT of MQTT 3.1, 3.1.1, 5 */
enum sniff_verdict sniff_is_stomp(struct slice first); /* CONNECT or STOMP and an end of line; line ends before it */
enum sniff_verdict sniff_is_http(struct slice first);  /* a method of RFC 9110 and a space */
enum sniff_verdict sniff_is_tls(struct slice first);   /* ClientHello */

struct sniff_row {
    const char *name; /* for logs */
    enum sniff_verdict (*match)(struct slice first);
    const struct engine_factory *factory; /* NULL: it is recognised, and not spoken here */
    bool begins_tls;                      /* what follows is in TLS; the loops must have a tls_server */
};

struct sniff_port {
    const struct sniff_row *rows;
    size_t row_count;
    const struct engine_factory *usual; /* takes what nobody knows; NULL: that is closed */
    bool usual_only;                    /* no other protocol is let in here, but TLS around the usual one */
    bool trusts_visitors;               /* who speaks another protocol than the usual one is not marked as visiting */
    uint32_t wait_ms;
    const struct log *log;        /* may be NULL */
    _Atomic mono_t complained_at; /* when the log last heard of unknown bytes: once a second is enough */
};

/* The row that knows these bytes; NULL: *ret_more says whether one may still. */
const struct sniff_row *sniff(const struct sniff_row *rows, size_t count, struct slice first, bool *ret_more);

/* For listener_options: makes sniffers. `port` is written to (complained_at). */
struct engine_factory sniff_factory(struct sniff_port *port);

#endif
