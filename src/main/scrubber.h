/* scrubber: the scrub (store/scrub.h) of a running broker: asks the core by the control socket, as any client, and logs.
 *
 * Life cycle: scrubber_start once the control socket listens → scrubber_stats … → scrubber_stop (it ends) → scrubber_join,
 * when the control socket answers no more: its thread may be waiting for an answer.
 */
#ifndef MILLRACE_MAIN_SCRUBBER_H
#define MILLRACE_MAIN_SCRUBBER_H

#include "journal/journal.h"
#include "main/config.h"
#include "os/log.h"
#include "store/scrub.h"

struct scrubber;

/* All are loans until the join. */
MUST_USE int scrubber_start(struct os *os, const struct config *config, const struct log *log,
                            const struct journal *journal, struct scrubber **ret);
void scrubber_stats(const struct scrubber *scrubber, struct scrub_stats *ret); /* Any thread. */
void scrubber_stop(struct scrubber *scrubber);
void scrubber_join(struct scrubber **scrubber);

#endif
