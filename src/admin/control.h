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
 *   {"op": "reload"}   certificates are read again; the answer comes when new connections have them
 *   {"op": "version"}
 *   {"op": "hold"}    from the answer on, until "release" or the end of the connection, no file goes that the journal up to
 *                     the answer's "number" (an lsn, durable) names: for who copies the data folder
 *   {"op": "release", "journal": true}   of the journal's files only; without it of all
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

enum control_hold { HOLD_JOURNAL = 1, HOLD_OTHERS = 2 };

struct control;

struct control_options {
    struct port *port;
    struct slab_heap *heap;
    const struct log *log;
    void (*force_alarms)(void *arg, unsigned alarms);
    /* Files must not go while somebody copies them: asked for, and whether it holds by now, with the last durable lsn. */
    void (*hold_files)(void *arg, unsigned what, bool on); /* enum control_hold */
    bool (*files_held)(void *arg, lsn_t *ret_durable);
    /* Certificates are to be read again: a ticket, and whether that has been done, and with what success (why empty: good). */
    uint64_t (*reload)(void *arg);
    bool (*reloaded)(void *arg, uint64_t ticket, char *ret_why, size_t why_len);
    json_t *(*status)(void *arg); /* an object, the caller's; NULL: no memory. On the loop's thread */
    void *arg;
};

MUST_USE struct control *control_new(const struct control_options *options);
void control_free(struct control **control);
struct hub *control_hub(struct control *control);
const struct engine_factory *control_factory(const struct control *control);

#endif
