/* control_client: the command line's end of the control socket. Blocking; one thread.
 *
 * Life cycle: control_client_open → control_client_request … → control_client_close.
 */
#ifndef MILLRACE_ADMIN_CONTROL_CLIENT_H
#define MILLRACE_ADMIN_CONTROL_CLIENT_H

#include "base/types.h"

#include <jansson.h>

struct control_client {
    int fd;
};

/* dir: the broker's data folder. 0, or a negative errno: -ENOENT and -ECONNREFUSED mean that no broker runs there. */
MUST_USE int control_client_open(struct control_client *ret, const char *dir);
/* Takes over request. The response is a new reference; NULL: the broker went away or memory ran out. */
MUST_USE json_t *control_client_request(struct control_client *client, json_t *request);
void control_client_close(struct control_client *client);

#endif
