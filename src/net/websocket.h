/* websocket: the server's side of a WebSocket (RFC 6455) around the engine of another protocol, which knows nothing of it.
 *
 * The outer engine (HTTP's) has answered the upgrade (websocket_upgrade.h) → websocket_open, which takes the inner engine →
 * the outer engine passes on feed, tick, gather, drained and shutdown → websocket_closed, once. What the inner engine has to
 * say leaves in frames through the outer engine's outq: bodies are not copied. What it is told (paused, in_max, want_close,
 * next_tick, the dirty list) reaches the connection by way of the outer engine. Thread: the loop's.
 *
 * Protocols carried here are streams: messages and frames may end anywhere, in both directions.
 */
#ifndef MILLRACE_NET_WEBSOCKET_H
#define MILLRACE_NET_WEBSOCKET_H

#include "net/engine.h"
#include "net/websocket_deflate.h"

#define WEBSOCKET_MESSAGE_OUT_MAX (64u * 1024) /* clients have limits, too */
#define WEBSOCKET_AHEAD_MAX (256u * 1024) /* framed and not yet written; the rest waits in the inner engine's outq */

/* Why it is over (RFC 6455 section 7.4.1). */
enum websocket_code {
    WEBSOCKET_NORMAL = 1000,
    WEBSOCKET_GOING_AWAY = 1001,
    WEBSOCKET_PROTOCOL_ERROR = 1002, /* also: a packed message that is none */
    WEBSOCKET_NOT_ACCEPTED = 1003,   /* text, and the protocol is a binary one */
    WEBSOCKET_NOT_UTF8 = 1007,
    WEBSOCKET_REFUSED = 1008,
    WEBSOCKET_TOO_BIG = 1009,
    WEBSOCKET_INTERNAL = 1011,
};

/* With whom messages may be packed. Who sees how long they become learns of what is in them, and TLS is there against that. */
enum websocket_packs { WEBSOCKET_PACKS_NEVER, WEBSOCKET_PACKS_WITHOUT_TLS, WEBSOCKET_PACKS_ALWAYS };

struct websocket_options {
    uint64_t message_bytes_max; /* payload of one message, all its frames together; packed and unpacked */
    uint32_t ping_ms;  /* a ping after so long without a word of the peer, so that proxies see life; 0: never */
    uint32_t close_ms; /* for the last bytes to leave, and for the peer's close frame */
    enum websocket_packs packs;
};

struct websocket;

/* text: the protocol may come in text frames (STOMP), and leaves in text frames to who sends such. terms: as agreed; with packing
 * *outer->deflate is there. Options outlive it. NULL: no memory, and *inner is still the caller's. */
MUST_USE struct websocket *websocket_open(const struct websocket_options *options, struct engine *outer,
                                          struct engine **inner, bool text, const struct websocket_terms *terms,
                                          mono_t now);

/* The outer engine's ops, for what is within the WebSocket. */
size_t websocket_feed(struct websocket *ws, struct slice bytes);
mono_t websocket_tick(struct websocket *ws, mono_t now);
void websocket_gather(struct websocket *ws);
void websocket_drained(struct websocket *ws);
void websocket_shutdown(struct websocket *ws, const char *text);
/* The transport is gone: tells the inner engine, if it is still there, and frees everything. */
void websocket_closed(struct websocket **ws);

#endif
