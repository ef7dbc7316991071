/* sys: the $SYS tree: what the broker says of itself as retained values, under the names that Mosquitto gives them.
 *
 * A session of loop 0 without a connection, that publishes what has changed every interval. Nobody else may publish below $SYS; the core
 * keeps these values out of its journal and from patterns that begin with a wildcard.
 *
 * Life cycle: mqtt_sys_new → mqtt_sys_turn, each turn of its loop → mqtt_sys_close; it frees itself when the core has let go.
 * Thread: loop 0's.
 */
#ifndef MILLRACE_PROTO_MQTT_SYS_H
#define MILLRACE_PROTO_MQTT_SYS_H

#include "proto/mqtt/engine.h"

struct mqtt_sys;

struct mqtt_sys_options {
    const struct mqtt_options *mqtt; /* a loan: vhost, exchange, totals */
    const char *user;                /* whose rights it has */
    const char *version;             /* "millrace version 1.2.3" */
    uint32_t interval_s;
};

/* NULL: no memory, or too many sessions. */
MUST_USE struct mqtt_sys *mqtt_sys_new(const struct mqtt_sys_options *options, struct hub *hub, mono_t now);
/* Returns when it wants to be called again; MONO_NEVER: when something has come for it. */
mono_t mqtt_sys_turn(struct mqtt_sys *sys, mono_t now);
/* Takes it and NULLs yours. */
void mqtt_sys_close(struct mqtt_sys **sys);

#endif
