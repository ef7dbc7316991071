/* request: an administrative request in JSON made into the core's ask. Pure but for memory, any thread. */
#ifndef MILLRACE_ADMIN_REQUEST_H
#define MILLRACE_ADMIN_REQUEST_H

#include "admin/caller.h"

#include <jansson.h>

struct request {
    struct ask *ask; /* yours until caller_call takes it */
    enum admin_op op;
    bool wait_durable; /* unless "lazy" is true: the next one will wait */
};

/* False: why says what is wrong with it. */
MUST_USE bool request_parse(const json_t *json, struct request *ret, const char **why);

#endif
