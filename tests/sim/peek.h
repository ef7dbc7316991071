/* peek: what a recovered broker holds, read from the core's own structures for the complete comparison. */
#ifndef MILLRACE_TESTS_SIM_PEEK_H
#define MILLRACE_TESTS_SIM_PEEK_H

#include "core/broker.h"

/* How pages are read: carries the job out. Its answer is in the job, which stays the caller's. */
struct peek_reader {
    void (*read)(void *self, struct page_job *job);
    void *self;
};

/* Every message of the queue in vhost "/" by position; an empty name: the hidden queue of delayed messages. False: there
 * is no such queue. */
bool peek_queue(struct broker *broker, const char *name, const struct peek_reader *reader,
                void (*each)(void *arg, struct slice body), void *arg);

#endif
