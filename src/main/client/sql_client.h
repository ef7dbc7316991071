/* sql_client: POST /sql from the other side, for `millrace sql`: statements go out, lines of JSON come back (docs/sql-http.md).
 *
 *   sql_client_init ▸ { sql_client_ask ▸ { sql_client_line }* until it says SQL_CLIENT_END, or sql_client_stop }* ▸ sql_client_fini
 *
 * It connects when there is something to ask, and stays connected. Blocking, but a line is waited for only so long, and SIGINT ends the wait
 * (os_interrupts_keep). Errors: a sentence in `error`. Thread: one owner.
 */
#ifndef MILLRACE_MAIN_CLIENT_SQL_CLIENT_H
#define MILLRACE_MAIN_CLIENT_SQL_CLIENT_H

#include "fmt/http.h"
#include "socket.h"

#define SQL_CLIENT_LINE_MAX (256u << 20)

struct sql_client {
    const char *host, *user, *password, *vhost; /* loans; user NULL: nobody is named, vhost NULL: the default */
    unsigned port;
    struct client_socket socket;
    struct http_body body;
    uint8_t *line; /* what has come of it */
    size_t line_len, line_room, line_seen;
    bool connected, asking; /* an answer is not over */
    bool reached;           /* somebody was there */
    bool has_head;
    bool keeps;       /* the connection is there for another request */
    bool unreachable; /* the error is that nobody is there */
    char error[800];
};

enum sql_client_got { SQL_CLIENT_LINE, SQL_CLIENT_NOTHING, SQL_CLIENT_END, SQL_CLIENT_FAILED };

void sql_client_init(struct sql_client *c, const char *host, unsigned port);
/* Whether somebody is there, for who has nothing to ask. False: the error says why. */
MUST_USE bool sql_client_reach(struct sql_client *c);
/* False: the error says why. An answer that is not over is stopped. */
MUST_USE bool sql_client_ask(struct sql_client *c, struct slice text);
/* *ret: without its line feed, a loan until the next call. NOTHING: not within ms, or SIGINT came. */
enum sql_client_got sql_client_line(struct sql_client *c, int ms, struct slice *ret);
/* Nobody listens to the rest of the answer, and the broker stops what it was doing. */
void sql_client_stop(struct sql_client *c);
void sql_client_fini(struct sql_client *c);

#endif
