/* What is answered at which path, see http_int.h. The loop's thread.
 *
 * One table. Paths are compared as they came: none of them has anything to decode. The management API will be further rows. */
#include "proto/http/http_int.h"

#include "net/websocket_upgrade.h"

static void answer_hello(struct http *h, const struct http_request *request)
{
    static const char text[] = "This is Millrace, an event broker.\n\n"
                               "Browsers and other WebSocket clients connect to /ws here: with the subprotocol mqtt "
                               "(MQTT), v12.stomp (STOMP),\n"
                               "or amqp (AMQP 0-9-1). /health answers when the broker is up. Everything else is on the "
                               "ports of its protocols.\n";
    (void)request;
    http_answer(h, &(struct http_answer){.status = 200, .type = "text/plain; charset=utf-8", .body = slice_str(text)});
}

static void answer_health(struct http *h, const struct http_request *request)
{
    (void)request;
    http_answer(h, &(struct http_answer){
                       .status = 200, .type = "application/json", .body = slice_str("{\"status\":\"ok\"}\n")});
}

static void answer_upgrade_needed(struct http *h, const struct http_request *request)
{
    (void)request;
    http_answer(h,
                &(struct http_answer){.status = 426,
                                      .type = "application/json",
                                      .body = slice_str("{\"error\":\"upgrade_required\",\"reason\":\"this path is for "
                                                        "WebSocket clients\"}\n"),
                                      .extra = {{"Upgrade", "websocket"}, {"Connection", "Upgrade"}}});
}

#define ANY_PROTOCOL ""

static const struct route {
    const char *path;
    void (*get)(struct http *h, const struct http_request *request);
    const char *protocol; /* of WebSockets that offer none; ANY_PROTOCOL: the listener's; NULL: no WebSocket here */
} routes[] = {
    {"/", answer_hello, ANY_PROTOCOL},
    {"/health", answer_health, NULL},
    {"/ws", answer_upgrade_needed, ANY_PROTOCOL},
    {"/ws/amqp", answer_upgrade_needed, "amqp"},
    {"/ws/mqtt", answer_upgrade_needed, "mqtt"},
    {"/ws/stomp", answer_upgrade_needed, "v12.stomp"},
};

static const struct route *route_find(struct slice path)
{
    for (size_t i = 0; i < ARRAY_LEN(routes); i++)
        if (slice_is(path, routes[i].path))
            return &routes[i];
    return NULL;
}

void http_route(struct http *h, const struct http_request *request)
{
    const struct route *route = route_find(request->path);
    if (!route) {
        http_answer_error(h, 404, "there is nothing at this path");
    } else if (route->protocol && websocket_asked(request)) {
        http_upgrade(h, request, *route->protocol ? route->protocol : h->options->protocol);
    } else if (!slice_is(request->method, "GET") && !slice_is(request->method, "HEAD")) {
        http_answer(h,
                    &(struct http_answer){.status = 405,
                                          .type = "application/json",
                                          .body = slice_str("{\"error\":\"method_not_allowed\",\"reason\":\"this path "
                                                            "can only be read\"}\n"),
                                          .extra = {{"Allow", "GET, HEAD"}}});
    } else {
        route->get(h, request);
    }
}
