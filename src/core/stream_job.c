/* Stream jobs, see stream_job.h. Any thread. */
#include "core/stream_job.h"

#include "base/check.h"
#include "base/mem.h"
#include "core/fetch.h"

struct stream_job *stream_job_new(enum stream_job_type type, uint32_t max)
{
    CHECK(max <= STREAM_ITEMS_MAX);
    struct stream_job *job = mem_zalloc(sizeof *job + max * sizeof job->items[0]);
    if (!job)
        return NULL;
    job->type = type;
    job->max = max;
    return job;
}

void stream_job_free(struct slab_heap *mine, struct stream_job **job)
{
    struct stream_job *j = *job;
    *job = NULL;
    if (!j)
        return;
    if (j->fetch) {
        fetch_free(&j->fetch); /* of which it is a part */
        return;
    }
    for (uint32_t i = 0; i < j->count; i++)
        if (j->items[i].msg)
            msg_unref(mine, j->items[i].msg);
    mem_free(j->aborted);
    mem_free(j);
}
