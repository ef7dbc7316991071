/* conn: one connection: a socket, what was read and not yet consumed, and the engine that understands it.
 *
 * Made by loop_connect, freed by its loop; everything on the loop's thread. What other folders may do with one is what
 * engine.h says (engine->paused, want_close, engine_dirty). This header has only what logs and listings want to know.
 */
#ifndef MILLRACE_NET_CONN_H
#define MILLRACE_NET_CONN_H

#include "base/types.h"

struct conn;

/* Bytes of memory that the connection itself holds (its in-buffer and its struct; not the engine, not the outq). */
size_t conn_memory(const struct conn *conn);

#endif
