/* findings: prints what an audit finds, for people or as JSON. Life cycle: findings_init → findings_add as the audit's
 * on_finding, findings_progress as its on_progress → findings_end. Main thread.
 */
#ifndef MILLRACE_MAIN_FINDINGS_H
#define MILLRACE_MAIN_FINDINGS_H

#include "main/progress.h"
#include "store/audit.h"

#include <jansson.h>

struct findings {
    bool json;
    json_t *list; /* json */
    struct progress progress;
};

void findings_init(struct findings *findings, struct os *os, bool json);
void findings_add(void *arg, const struct audit_finding *finding);
void findings_progress(void *arg, const char *part, uint64_t done, uint64_t total);
/* Takes the list: with the totals it is what --json prints of an audit. NULL: no memory. */
MUST_USE json_t *findings_json(struct findings *findings, const struct audit_totals *totals);
/* The totals for people. */
void findings_print_totals(const struct audit_totals *totals);
void findings_end(struct findings *findings);

#endif
