/* caller: asks the core for administrative things, one after the other: the control socket, definitions at boot, the
 * broker's own drain.
 *
 * Life cycle: caller_init (attached to a hub) → caller_call … → caller_close → freed_ is called when the core has let go.
 * Everything on the hub's thread. It is a session without a connection of its own; control.c embeds one in an engine.
 */
#ifndef MILLRACE_ADMIN_CALLER_H
#define MILLRACE_ADMIN_CALLER_H

#include "proto/hub.h"

enum admin_op {
#define ADMIN(name, operands) ADMIN_##name,
#include "core/admin.def"
#undef ADMIN
    ADMIN_COUNT
};

const char *admin_op_name(enum admin_op op);
/* ADMIN_COUNT: there is none of that name. */
enum admin_op admin_op_find(const char *name);

struct call_result {
    enum error_code code;        /* ERR_NONE: done */
    const struct answer *answer; /* may be NULL; a loan for the call */
};

struct caller {
    struct session session; /* first */
    bool busy, answered, failed, closing;
    bool inside; /* an effect is being dealt with */
    bool wait_durable;
    lsn_t lsn;                                                       /* the answer counts when this is durable */
    struct answer *answer;                                           /* while waiting for it */
    void (*on_row)(struct caller *caller, const struct answer *row); /* may be NULL */
    void (*on_done)(struct caller *caller, const struct call_result *result); /* may call again */
    void (*on_freed)(struct caller *caller); /* the core has let go: the memory may be freed */
};

/* False: too many sessions. Zeroes *ret, except that engine stays as the owner filled it. */
MUST_USE bool caller_init(struct caller *ret, struct hub *hub);
/* One call at a time: !busy. ask is taken over (NULL for commands without one). False: no room in the ring: try again
 * in a later turn; ask is still yours. wait_durable: on_done only after the answer's lsn is durable. */
MUST_USE bool caller_call(struct caller *caller, enum command_type type, uint64_t number, struct ask *ask,
                          bool wait_durable);
/* Ends the session with the core. */
void caller_close(struct caller *caller);

#endif
