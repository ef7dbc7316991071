/* stream_pager: the files of streams (store/streams.h) as the core's helper: stream jobs go out by the streams' port and come back
 * by it. The twin of pager.h.
 *
 * Life cycle: stream_pager_open → (replay) → stream_pager_keep with the replayed broker → stream_pager_start →
 * stream_pager_wake whenever the core has sent something to the port → stream_pager_stop → (the broker is freed) →
 * stream_pager_close. It is the owner of the streams' port: consumes EFF_STREAM, produces CMD_STREAMED, on the streams' thread.
 */
#ifndef MILLRACE_MAIN_STREAM_PAGER_H
#define MILLRACE_MAIN_STREAM_PAGER_H

#include "main/pager.h"

struct stream_pager;

/* The options are pager.h's, with the streams' port. 0, or a negative errno and a sentence in why. Boot. */
MUST_USE int stream_pager_open(const struct pager_options *options, struct stream_pager **ret, char *why,
                               size_t why_len);
/* Checks that every file that the broker names is there, cuts off what is behind, and removes the others. Boot. */
MUST_USE int stream_pager_keep(struct stream_pager *pager, struct broker *broker, char *why, size_t why_len);
MUST_USE int stream_pager_start(struct stream_pager *pager);
/* The port has effects. Any thread. */
void stream_pager_wake(struct stream_pager *pager);
/* A negative errno once a sync of a segment has failed: the broker must stop, a start writes it again from the journal. 0: none.
 * Any thread. */
int stream_pager_failure(const struct stream_pager *pager);
/* What was asked is finished, its answers lie in the port; the thread is gone. */
void stream_pager_stop(struct stream_pager *pager);
void stream_pager_close(struct stream_pager **pager);
/* Somebody copies files: none is removed meanwhile (streams.h). Any thread. */
void stream_pager_hold(struct stream_pager *pager, bool on);
bool stream_pager_held(const struct stream_pager *pager);

#endif
