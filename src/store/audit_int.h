/* audit_int: what the parts of the audit share: the journal and everything else (audit.c), segments
 * (audit_segments.c), streams (audit_streams.c). */
#ifndef MILLRACE_STORE_AUDIT_INT_H
#define MILLRACE_STORE_AUDIT_INT_H

#include "store/audit.h"

/* Counts and tells it. */
void audit_tell(struct audit *audit, const struct audit_finding *finding);
void audit_progress(struct audit *audit, const char *part, uint64_t more);
/* One of a growing array, zeroed. NULL: no memory. */
void *audit_grow(void **items, size_t *len, size_t *cap, size_t size);

/* Every segment file, and in them every page that the replayed broker names. 0 or a negative errno. */
MUST_USE int audit_segments(struct audit *audit);
/* Every file of every stream that the replayed broker names. As above. */
MUST_USE int audit_streams(struct audit *audit);
/* Is this a name of such a file? */
bool audit_is_stream(const char *name);

#endif
