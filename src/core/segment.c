/* Segment files as the core knows them: which pages lie in each, and when it is nobody's any more.
 *
 * A segment without pages goes when the removal of its last message is durable (S3). One that is mostly dead is named to
 * move.c. The newest is neither: the store is still writing it.
 */
#include "core/core_int.h"

static struct segment *segment_of(struct broker *b, uint64_t number)
{
    return map_get(&b->segments, map_key_u64(&number));
}

static struct segment *segment_make(struct broker *b, uint64_t number)
{
    struct segment *s = segment_of(b, number);
    if (s || !map_reserve(&b->segments) || !(s = mem_zalloc(sizeof *s)))
        return s;
    s->number = number;
    list_init(&s->link);
    list_init(&s->pages_in);
    CHECK(map_put(&b->segments, map_key_u64(&s->number), s));
    return s;
}

/* Into the list where it belongs. */
static void consider(struct broker *b, struct segment *s)
{
    bool newest = s->number == b->newest_segment;
    list_remove(&s->link);
    if (s->pages == 0 && (!newest || s->own || (b->alarms & ALARM_DISK)))
        list_insert(&b->dead_segments, &s->link);
    else if (s->pages && !newest && s->weight < SEGMENT_WEIGHT / 2 * s->end)
        list_insert(&b->sparse_segments, &s->link);
}

/* The segment has a page more. NULL: no memory. */
static struct segment *segment_ref(struct broker *b, const struct page_where *where)
{
    struct segment *s = segment_make(b, where->segment);
    if (!s)
        return NULL;
    s->pages++;
    s->own = where->len >= PAGE_OWN_BYTES;
    list_remove(&s->link);
    if (s->end < (uint64_t)where->offset + where->len)
        s->end = (uint64_t)where->offset + where->len;
    if (s->number > b->newest_segment) { /* the one before gets no pages any more */
        struct segment *before = segment_of(b, b->newest_segment);
        b->newest_segment = s->number;
        if (before)
            consider(b, before);
    }
    return s;
}

static void segment_unref(struct broker *b, struct segment *s)
{
    CHECK(s && s->pages);
    s->lsn = 0;
    s->pages--;
    consider(b, s);
}

/* The newest segment is kept although nothing in it is alive, for it may be written to. On a full disk it goes too: the
 * store then begins another, or knows of a page that we do not and keeps it. */
void paging_disk_full(struct broker *b)
{
    struct segment *s = segment_of(b, b->newest_segment);
    if (s)
        consider(b, s);
}

bool segment_join(struct broker *b, struct page *page)
{
    struct segment *s = segment_ref(b, &page->where);
    if (!s)
        return false;
    s->weight += page_weight(page);
    list_insert(&s->pages_in, &page->segment_link);
    return true;
}

void segment_leave(struct broker *b, struct page *page)
{
    struct segment *s = segment_of(b, page->where.segment);
    list_remove(&page->segment_link);
    s->weight -= page_weight(page);
    segment_unref(b, s);
}

void segment_weighs(struct broker *b, const struct page *page, uint64_t before)
{
    struct segment *s = segment_of(b, page->where.segment);
    s->weight += page_weight(page) - before;
    consider(b, s);
}

/* A page was written that is not used. It is counted for a moment, so that its file goes when nothing else is in it; without
 * memory the next start sweeps it. */
void segment_unused(struct broker *b, const struct page_where *where)
{
    struct segment *s = segment_ref(b, where);
    if (s)
        segment_unref(b, s);
}

void segment_reconsider(struct broker *b, uint64_t number)
{
    struct segment *s = segment_of(b, number);
    if (s)
        consider(b, s);
}

void dead_segments_drop(struct broker *b)
{
    if (b->removal_lost || b->removal_lost_before || !list_empty(&b->removals))
        return;
    LIST_EACH(&b->dead_segments, node, after)
    {
        struct segment *s = CONTAINER_OF(node, struct segment, link);
        if (s->lsn == 0)
            s->lsn = b->appended ? b->appended : 1;
        if (s->lsn > b->durable)
            continue;
        if (ring_room_now(&b->sides[b->options.ports + 1].port.effects) <= PAGE_JOBS_MAX)
            return; /* nobody would tell those who wait for a place that these are done */
        struct page_job *job = page_job_new(PAGE_DROP, 0);
        if (!job)
            return;
        job->where = (struct page_where){.segment = (uint32_t)s->number, .offset = (uint32_t)s->end};
        if (!paging_send(b, job)) {
            page_job_free(&b->heap, &job);
            return;
        }
        list_remove(&s->link);
        map_take(&b->segments, map_key_u64(&s->number));
        mem_free(s);
    }
}

void segment_lists_init(struct broker *b)
{
    list_init(&b->dead_segments);
    list_init(&b->sparse_segments);
    map_init(&b->segments, b->seed);
}

void segment_lists_fini(struct broker *b)
{
    MAP_EACH(&b->segments, struct segment, s)
    mem_free(s);
    map_fini(&b->segments);
}
