/* websocket_upgrade: the handshake with which an HTTP request becomes a WebSocket (RFC 6455 section 4).
 *
 * websocket_asked → websocket_origin_allowed → websocket_check → a subprotocol is chosen → websocket_packing_offered →
 * websocket_put_answer. Pure functions, any thread.
 */
#ifndef MILLRACE_NET_WEBSOCKET_UPGRADE_H
#define MILLRACE_NET_WEBSOCKET_UPGRADE_H

#include "fmt/http.h"
#include "net/websocket_deflate.h"

#define WEBSOCKET_VERSION "13"
#define WEBSOCKET_ACCEPT_LEN 28u

/* Does the request want to become a WebSocket? */
bool websocket_asked(const struct http_request *request);
/* 101 and the answer to its key, or the status to refuse it with; 426: another version of the protocol. */
MUST_USE unsigned websocket_check(const struct http_request *request, char ret_accept[WEBSOCKET_ACCEPT_LEN + 1]);

/* May the page that a browser shows open it? A request without an origin is no browser's. allowed: origins with spaces between
 * (https://host:port), `*` for all; empty: where no password may be needed only pages that are on this machine themselves (a page
 * from anywhere must not use that), else all. trusted: on loopback, or somebody whom a certificate names, which browsers show to
 * every page's server. */
MUST_USE bool websocket_origin_allowed(const struct http_request *request, const char *allowed, bool trusted);

/* Does the client offer to pack messages (permessage-deflate, RFC 7692 section 7.1) in a way that is known here? *ret: how, by the
 * first such offer; what it asks for beyond that is kept, too. False: they leave as they are. */
MUST_USE bool websocket_packing_offered(const struct http_request *request, struct websocket_terms *ret);

/* The head of the answer that agrees. protocol: empty when the client has offered none. */
void websocket_put_answer(struct writer *w, const char *accept, struct slice protocol,
                          const struct websocket_terms *terms);

#endif
