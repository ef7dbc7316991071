/* From a request to a WebSocket, see http_int.h. The loop's thread.
 *
 * The client offers subprotocols in the order in which it likes them; the first that is spoken here is taken. Who offers none
 * speaks the path's or the listener's; who offers only unknown ones is refused, since a browser would end the connection
 * anyway, and with less to say about the reason. */
#include "proto/http/http_int.h"

#include "net/websocket_upgrade.h"

#define ANSWER_MAX 600u

static const struct http_protocol *protocol_find(const struct http *h, struct slice name)
{
    for (unsigned i = 0; i < h->options->protocol_count; i++) {
        const struct http_protocol *protocol = &h->options->protocols[i];
        if (protocol->factory && slice_is(name, protocol->name))
            return protocol;
    }
    return NULL;
}

/* The chosen one; *ret_offered: the client has named any. */
static const struct http_protocol *choose(const struct http *h, const struct http_request *request,
                                          const char *otherwise, bool *ret_offered)
{
    struct http_list list = {.name = "sec-websocket-protocol"};
    struct slice name;
    *ret_offered = false;
    while (http_list_next(request, &list, &name)) {
        const struct http_protocol *protocol = protocol_find(h, name);
        *ret_offered = true;
        if (protocol)
            return protocol;
    }
    return *ret_offered || !otherwise ? NULL : protocol_find(h, slice_str(otherwise));
}

/* TLS may end at a proxy, which says so. */
static bool within_tls(const struct http *h, const struct http_request *request)
{
    return h->engine.tls || http_list_has(request, "x-forwarded-proto", "https");
}

/* Zeroed: nothing is packed, because it was not offered, is not wanted, or there is no memory for it. */
static struct websocket_terms agree(struct http *h, const struct http_request *request)
{
    struct websocket_deflate **shared = h->engine.deflate;
    enum websocket_packs packs = h->options->websocket.packs;
    struct websocket_terms none = {0}, terms;
    if (!shared || packs == WEBSOCKET_PACKS_NEVER || (packs != WEBSOCKET_PACKS_ALWAYS && within_tls(h, request)) ||
        !websocket_packing_offered(request, &terms))
        return none;
    if (!*shared)
        *shared = websocket_deflate_new();
    return *shared ? terms : none;
}

/* The answer stands in front of whatever the inner engine says. */
static void answer_yes(struct http *h, const char *accept, struct slice protocol, const struct websocket_terms *terms)
{
    uint8_t *room = outq_room(&h->engine.out, ANSWER_MAX);
    if (!room)
        return;
    struct writer w = writer_of(room, ANSWER_MAX);
    websocket_put_answer(&w, accept, protocol, terms);
    outq_commit(&h->engine.out, w.len);
    h->engine.out.failed |= !writer_ok(&w);
    engine_dirty(&h->engine);
}

/* Whoever speaks another protocol than the listener's own, see engine_may_be_anonymous. */
static bool is_visiting(const struct http *h, const struct http_protocol *protocol)
{
    const struct http_protocol *own = h->options->protocol ? protocol_find(h, slice_str(h->options->protocol)) : NULL;
    return h->engine.visiting || (!h->options->trusts_visitors && (!own || own->factory != protocol->factory));
}

static void begin(struct http *h, const struct http_request *request, const struct http_protocol *protocol,
                  const char *accept, bool offered)
{
    const struct engine_factory *factory = protocol->factory;
    struct engine *inner = factory->make(h->loop_owner, factory->arg, &h->peer, h->engine.now);
    if (!inner) {
        http_answer_error(h, 503, "there is no room for another connection");
        return;
    }
    inner->visiting = is_visiting(h, protocol);
    struct websocket_terms terms = agree(h, request);
    answer_yes(h, accept, slice_str(offered ? protocol->name : ""), &terms);
    h->websocket = websocket_open(&h->options->websocket, &h->engine, &inner, protocol->text, &terms, h->engine.now);
    if (!h->websocket) {
        h->engine.out.failed = true;
        inner->ops->closed(inner);
    }
}

void http_upgrade(struct http *h, const struct http_request *request, const char *otherwise)
{
    char accept[WEBSOCKET_ACCEPT_LEN + 1];
    bool offered;
    h->keep_alive = h->say_keep_alive = false;
    bool trusted = h->peer.loopback || h->engine.certified; /* the protocol within may let them in without a password */
    if (!websocket_origin_allowed(request, h->options->origins, trusted)) {
        http_answer_error(h, 403, "pages of this origin may not connect; the setting websocket.origins says which may");
        return;
    }
    unsigned status = websocket_check(request, accept);
    const struct http_protocol *protocol = choose(h, request, otherwise, &offered);
    if (status == 426)
        http_answer(h, &(struct http_answer){
                           .status = 426,
                           .type = "application/json",
                           .body = slice_str("{\"error\":\"upgrade_required\",\"reason\":\"only version "
                                             "13 of WebSocket is spoken\"}\n"),
                           .extra = {{"Upgrade", "websocket"}, {"Sec-WebSocket-Version", WEBSOCKET_VERSION}}});
    else if (status != 101)
        http_answer_error(h, status, "the WebSocket handshake is malformed");
    else if (!protocol)
        http_answer_error(h, 400,
                          offered ? "none of these WebSocket subprotocols is spoken here"
                                  : "a WebSocket subprotocol has to be offered here");
    else
        begin(h, request, protocol, accept, offered);
}
