/* import: definitions applied from inside the broker, at boot, through a caller; a request per turn, so that nothing stalls.
 *
 * Life cycle: import_start → (the loop turns) until import_done → import_free. The hub's thread.
 */
#ifndef MILLRACE_ADMIN_IMPORT_H
#define MILLRACE_ADMIN_IMPORT_H

#include "admin/caller.h"
#include "admin/definitions.h"

struct import;

/* Takes definitions over, also on failure. NULL: no memory. */
MUST_USE struct import *import_start(struct definitions **definitions, struct hub *hub);
/* Once a turn: sends again what found no room. True: finished. */
bool import_done(struct import *import);
/* NULL: everything was applied and is durable. Else which entry was refused, and why. */
const char *import_failure(const struct import *import);
/* The memory goes when the core has let go of the session. */
void import_free(struct import **import);

#endif
