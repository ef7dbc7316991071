/* definitions: RabbitMQ's definitions JSON: parsed and checked as a whole, then applied as a row of requests; and export.
 *
 * Life cycle: definitions_load (a file to JSON) → definitions_new (checks everything, in the order of import) →
 * definitions_next again and again, or definitions_apply → definitions_free. One thread.
 *
 * An import adds and never changes queues, exchanges or bindings that exist; users, permissions and policies are replaced.
 * Requests are those of the control socket (control.h), so the command line sends them and boot gives them to a caller.
 */
#ifndef MILLRACE_ADMIN_DEFINITIONS_H
#define MILLRACE_ADMIN_DEFINITIONS_H

#include "os/os.h"

#include <jansson.h>

#define DEFINITIONS_BYTES_MAX (256u << 20)

struct definitions;

/* Reads a file. 0 or a negative errno, with a sentence in why that names file and line. */
MUST_USE int definitions_load(struct os *os, const char *file, json_t **ret, char *why, size_t why_len);

/* Checks everything and works out the requests. json is a loan for the call. note is told what is left out. NULL: why says
 * which entry is wrong. */
MUST_USE struct definitions *definitions_new(const json_t *json, void (*note)(void *arg, const char *text), void *arg,
                                             char *why, size_t why_len);
void definitions_free(struct definitions **definitions);
size_t definitions_count(const struct definitions *definitions);
/* The next request, a loan; NULL: that was all. */
const json_t *definitions_next(struct definitions *definitions);
/* What the request that definitions_next gave last is about, for messages; a loan. */
const char *definitions_what(const struct definitions *definitions);

/* Sends every request through ask (which takes over the request and returns a response, NULL: no connection). */
MUST_USE int definitions_apply(struct definitions *definitions, json_t *(*ask)(void *arg, json_t *request), void *arg,
                               char *why, size_t why_len);
/* A new reference to definitions that definitions_new accepts; NULL: why says what failed. */
MUST_USE json_t *definitions_export(json_t *(*ask)(void *arg, json_t *request), void *arg, char *why, size_t why_len);

#endif
