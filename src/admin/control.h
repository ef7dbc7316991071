/* control: the control socket: administrative requests as JSON over a Unix socket in the data folder.
 *
 * Life cycle: control_new on the thread of the loop that serves the socket → hub_publish and hub_turn of control_hub in each
 * of the loop's turns → control_free when that hub has no sessions left.
 *
 * Protocol: request and response are a 32-bit big-endian length and a JSON object; one request at a time. Requests:
 *   {"op": "USER_PUT", "name": …, "other": …, "key": …, "number": n, "args": {…}, "flags": ["durable", …]}
 *       any operation of core/admin.def with its operands; with "lazy": true the answer does not wait for the disk
 *   {"op": "alarm", "raised": ["memory", "disk"]}   alarms held up by hand until the next such request;
 *       memory-hard and disk-hard refuse publishes
 *   {"op": "status"}   one row: what memory is used for, marks and alarms; not by way of the core
 *   {"op": "version"}
 * Responses: {"ok": true, "rows": [{…}, …], "name": …, "number": n} or {"ok": false, "error": "NOT_FOUND", "text": …}.
 * Who reaches the socket may administer: it is readable by the owner only.
 */
#ifndef MILLRACE_ADMIN_CONTROL_H
#define MILLRACE_ADMIN_CONTROL_H

#include "admin/caller.h"
#include "net/loop.h"

#include <jansson.h>

#define CONTROL_SOCKET "control.sock"
#define CONTROL_REQUEST_MAX (4u << 20)
#define CONTROL_RESPONSE_MAX (256u << 20)
#define CONTROL_SESSIONS_MAX 64

struct control;

struct control_options {
    struct port *port;
    struct slab_heap *heap;
    const struct log *log;
    void (*force_alarms)(void *arg, unsigned alarms);
    json_t *(*status)(void *arg); /* an object, the caller's; NULL: no memory. On the loop's thread */
    void *arg;
};

MUST_USE struct control *control_new(const struct control_options *options);
void control_free(struct control **control);
struct hub *control_hub(struct control *control);
const struct engine_factory *control_factory(const struct control *control);

#endif
