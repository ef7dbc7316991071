/* peek: what a recovered broker holds, read from the core's own structures for the complete comparison. */
#ifndef MILLRACE_TESTS_SIM_PEEK_H
#define MILLRACE_TESTS_SIM_PEEK_H

#include "core/broker.h"
#include "core/stream_job.h"

/* How pages are read: carries the job out. Its answer is in the job, which stays the caller's. */
struct peek_reader {
    void (*read)(void *self, struct page_job *job);
    void *self;
};

/* Every message of the queue in vhost "/" by position; an empty name: the hidden queue of delayed messages. False: there
 * is no such queue. */
bool peek_queue(struct broker *broker, const char *name, const struct peek_reader *reader,
                void (*each)(void *arg, struct slice body), void *arg);

/* How records of streams are read: carries the job out. */
struct peek_stream_reader {
    void (*read)(void *self, struct stream_job *job);
    void *self;
};

struct peek_log {
    void (*partition)(void *arg, uint32_t partition, uint64_t start, uint64_t end);
    void (*record)(void *arg, uint32_t partition, uint64_t offset, struct slice body);
    void *arg;
};

/* Every record of the stream in vhost "/", by partition and offset: from the files, then from what is on its way there. What
 * cannot be read is left out, up to the end of its partition's files. False: there is no such stream. */
bool peek_stream(struct broker *broker, const char *name, const struct peek_stream_reader *reader,
                 const struct peek_log *each);

/* Where the stream's cursor for the queue stands; UINT64_MAX: there is none. */
uint64_t peek_cursor(struct broker *broker, const char *stream, const char *queue, uint32_t partition);

#endif
