/* Page jobs, see page.h. Any thread. */
#include "core/page.h"

#include "base/check.h"
#include "base/mem.h"

struct page_job *page_job_new(enum page_job_type type, uint32_t count)
{
    CHECK(count <= PAGE_ITEMS_MAX);
    struct page_job *job = mem_zalloc_as(MEM_PAGES, sizeof *job + count * sizeof job->items[0]);
    if (!job)
        return NULL;
    job->type = type;
    job->count = count;
    return job;
}

void page_job_free(struct slab_heap *mine, struct page_job **job)
{
    struct page_job *j = *job;
    *job = NULL;
    if (!j)
        return;
    for (uint32_t i = 0; i < j->count; i++)
        if (j->items[i].msg)
            msg_unref(mine, j->items[i].msg);
    mem_free_as(MEM_PAGES, j);
}
