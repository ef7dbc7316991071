/* What is answered at which path, see http_int.h. The loop's thread.
 *
 * One table. Paths are compared as they came: none of them has anything to decode. The management API will be further rows. */
#include "proto/http/http_int.h"

#include "net/websocket_upgrade.h"

static void answer_hello(struct http *h, const struct http_request *request)
{
    static const char text[] =
        "This is Millrace, an event broker.\n\n"
        "Browsers and other WebSocket clients connect to /ws here: with the subprotocol mqtt "
        "(MQTT), v12.stomp (STOMP),\n"
        "or amqp (AMQP 0-9-1). /sql takes statements of continuous SQL (or use `millrace sql`). /health "
        "answers when the broker is up.\n"
        "Everything else is on the ports of its protocols.\n";
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

static void answer_sql(struct http *h, const struct http_request *request)
{
    if (h->options->sql)
        http_sql_begin(h, request);
    else
        http_answer_error(h, 404, "there is nothing at this path");
}

#define ANY_PROTOCOL ""

static const struct route {
    const char *path;
    void (*get)(struct http *h, const struct http_request *request); /* NULL: `any` answers every method */
    const char *protocol; /* of WebSockets that offer none; ANY_PROTOCOL: the listener's; NULL: no WebSocket here */
    void (*any)(struct http *h, const struct http_request *request);
    uint64_t body_max; /* 0: HTTP_BODY_SKIP_MAX, of a body that nobody wants */
} routes[] = {
    {"/", answer_hello, ANY_PROTOCOL, NULL, 0},
    {"/health", answer_health, NULL, NULL, 0},
    {"/sql", NULL, NULL, answer_sql, HTTP_SQL_BODY_MAX},
    {"/ws", answer_upgrade_needed, ANY_PROTOCOL, NULL, 0},
    {"/ws/amqp", answer_upgrade_needed, "amqp", NULL, 0},
    {"/ws/mqtt", answer_upgrade_needed, "mqtt", NULL, 0},
    {"/ws/stomp", answer_upgrade_needed, "v12.stomp", NULL, 0},
};

static const struct route *route_find(struct slice path)
{
    for (size_t i = 0; i < ARRAY_LEN(routes); i++)
        if (slice_is(path, routes[i].path))
            return &routes[i];
    return NULL;
}

uint64_t http_route_body_max(const struct http_request *request)
{
    const struct route *route = route_find(request->path);
    return route && route->body_max ? route->body_max : HTTP_BODY_SKIP_MAX;
}

void http_route(struct http *h, const struct http_request *request)
{
    const struct route *route = route_find(request->path);
    if (!route) {
        http_answer_error(h, 404, "there is nothing at this path");
    } else if (route->protocol && websocket_asked(request)) {
        http_upgrade(h, request, *route->protocol ? route->protocol : h->options->protocol);
    } else if (route->any) {
        route->any(h, request);
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
