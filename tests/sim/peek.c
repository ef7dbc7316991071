/* Looking into the core, see peek.h. The only file of the simulator that knows the core's structures. */
#include "peek.h"

#include "core/core_int.h"

#include <stdlib.h>

struct seen { /* a message, wherever it is */
    uint64_t position;
    const struct msg *msg;
};

static int by_position(const void *a, const void *b)
{
    const struct seen *x = a, *y = b;
    return x->position < y->position ? -1 : x->position > y->position;
}

static size_t see_list(const struct list *list, struct seen *ret)
{
    size_t count = 0;
    LIST_EACH(list, node, after)
    {
        const struct entry *e = CONTAINER_OF(node, struct entry, link);
        ret[count++] = (struct seen){e->position, e->msg};
    }
    return count;
}

/* Of a page that is on disk: the job, and what is alive of it. A page that cannot be read holds nothing. */
static size_t see_page(const struct page *page, const struct peek_reader *reader, struct page_job **ret_job,
                       struct seen *ret)
{
    size_t count = 0;
    struct page_job *job = page_job_new(PAGE_READ, page->count);
    if (!job)
        abort();
    job->queue = page->queue->id;
    job->lane = page->lane;
    job->where = page->where;
    job->items[0].position = page->first;
    job->items[job->count - 1].position = page->last;
    reader->read(reader->self, job);
    for (uint32_t i = 0; !job->err && i < job->count; i++)
        if (page_has(page, job->items[i].position))
            ret[count++] = (struct seen){job->items[i].position, job->items[i].msg};
    *ret_job = job;
    return count;
}

bool peek_queue(struct broker *broker, const char *name, const struct peek_reader *reader,
                void (*each)(void *arg, struct slice body), void *arg)
{
    struct vhost *vhost = vhost_find(broker, slice_str("/"));
    struct queue *q = !vhost ? NULL : *name ? queue_find(vhost, slice_str(name)) : vhost->delays;
    if (!q)
        return false;
    size_t count = 0, jobs = 0, pages = 0;
    LIST_EACH(&q->busy->pages, node, after)
    pages++;
    size_t delayed = q->extra ? q->extra->retry.count : 0;
    struct seen *seen = calloc(q->busy->ready_count + q->busy->unacked_count + delayed + 1, sizeof *seen);
    struct page_job **read = calloc(pages + 1, sizeof(struct page_job *));
    if (!seen || !read)
        abort();
    for (unsigned lane = 0; lane < lane_count(q); lane++) {
        count += see_list(&q->busy->lanes[lane].entries, seen + count);
        if (q->busy->lanes[lane].paging)
            count += see_list(&q->busy->lanes[lane].paging->front, seen + count);
    }
    count += see_list(&q->busy->unacked, seen + count);
    if (retry_list(q))
        count += see_list(retry_list(q), seen + count);
    LIST_EACH(&q->busy->pages, node, after)
    {
        const struct page *page = CONTAINER_OF(node, struct page, queue_link);
        if (page->state != PAGE_LOADED)
            count += see_page(page, reader, &read[jobs++], seen + count);
    }
    qsort(seen, count, sizeof *seen, by_position);
    for (size_t i = 0; i < count; i++)
        each(arg, msg_body(seen[i].msg));
    while (jobs)
        page_job_free(broker_heap(broker), &read[--jobs]);
    free(read);
    free(seen);
    return true;
}
