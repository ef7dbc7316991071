/* status: what a running broker says of its memory and disk, for `millrace status`. Any thread. */
#ifndef MILLRACE_MAIN_STATUS_H
#define MILLRACE_MAIN_STATUS_H

#include "main/scrubber.h"
#include "main/worker.h"

#include <jansson.h>

/* One flat object. scrubber may be NULL. The rows memory_* but the marks add up to memory_resident, of which
 * memory_untouched is taken away; the caller's. NULL: no memory. */
MUST_USE json_t *status_json(struct worker *worker, const struct journal *journal, const struct scrubber *scrubber);

#endif
