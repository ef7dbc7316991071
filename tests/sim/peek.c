/* Looking into the core, see peek.h. The only file of the simulator that knows the core's structures. */
#include "peek.h"

#include "core/delay_int.h"
#include "core/stream_int.h"

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
        ret[count++] = (struct seen){retry_origin(e), e->msg}; /* its place in the queue */
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
            ret[count++] =
                (struct seen){page->retry ? job->items[i].origin : job->items[i].position, job->items[i].msg};
    *ret_job = job;
    return count;
}

bool peek_queue(struct broker *broker, const char *name, const struct peek_reader *reader,
                void (*each)(void *arg, struct slice body), void *arg)
{
    struct vhost *vhost = vhost_find(broker, slice_str("/"));
    struct queue *q = !vhost ? NULL : *name ? queue_find(vhost, slice_str(name)) : delay_queue(vhost);
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
    if (delay_loaded(q))
        count += see_list(delay_loaded(q), seen + count);
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

/* ---- streams ---- */

static struct queue *stream_named(struct broker *broker, const char *name)
{
    struct vhost *vhost = vhost_find(broker, slice_str("/"));
    struct queue *q = vhost ? queue_find(vhost, slice_str(name)) : NULL;
    return q && q->stream ? q : NULL;
}

static void see_files(struct broker *broker, const struct partition *p, const struct peek_stream_reader *reader,
                      const struct peek_log *each)
{
    for (uint64_t at = p->start; at < p->written;) {
        struct stream_job *job = stream_job_new(STREAM_READ, 256);
        if (!job)
            abort();
        job->stream = p->stream->queue->id;
        job->partition = p->number;
        job->first = at;
        job->until = p->written;
        job->bytes_max = 64 * 1024;
        reader->read(reader->self, job);
        for (uint32_t i = 0; !job->err && i < job->count; i++)
            each->record(each->arg, p->number, job->items[i].offset, msg_body(job->items[i].msg));
        at = job->err || job->next <= at ? p->written : job->next;
        stream_job_free(broker_heap(broker), &job);
    }
}

/* What retention gave up is written again after a start, when the files were not synced so far. */
static void see_item(const struct partition *p, const struct peek_log *each, uint64_t offset, const struct msg *msg)
{
    if (offset >= p->start)
        each->record(each->arg, p->number, offset, msg_body(msg));
}

static void see_partition(struct broker *broker, const struct partition *p, const struct peek_stream_reader *reader,
                          const struct peek_log *each)
{
    each->partition(each->arg, p->number, p->start, p->end);
    see_files(broker, p, reader, each);
    LIST_EACH(&p->chunks, node, after)
    {
        const struct chunk *c = CONTAINER_OF(node, struct chunk, link);
        if (c->state != CHUNK_QUEUED && c->state != CHUNK_WRITING)
            continue;
        for (uint32_t i = 0; i < c->job->count; i++)
            see_item(p, each, c->job->items[i].offset, c->job->items[i].msg);
    }
    LIST_EACH(&p->gathered, node, after)
    {
        const struct entry *e = CONTAINER_OF(node, struct entry, link);
        see_item(p, each, e->position, e->msg);
    }
}

bool peek_stream(struct broker *broker, const char *name, const struct peek_stream_reader *reader,
                 const struct peek_log *each)
{
    struct queue *q = stream_named(broker, name);
    for (uint32_t i = 0; q && i < q->stream->partition_count; i++)
        see_partition(broker, q->stream->partitions[i], reader, each);
    return q != NULL;
}

uint64_t peek_cursor(struct broker *broker, const char *stream, const char *queue, uint32_t partition)
{
    struct queue *q = stream_named(broker, stream);
    if (!q)
        return UINT64_MAX;
    LIST_EACH(&q->stream->cursors, node, after)
    {
        const struct cursor *cursor = CONTAINER_OF(node, struct cursor, link);
        if (slice_is(cursor->target->name, queue))
            return cursor->follower->places[partition].next;
    }
    return UINT64_MAX;
}
