/* store_test_rig: what the store's tests share: jobs whose messages follow from a salt, so that what comes back can be
 * compared without keeping it. Test code only, one thread.
 */
#ifndef MILLRACE_STORE_STORE_TEST_RIG_H
#define MILLRACE_STORE_STORE_TEST_RIG_H

#include "base/check.h"
#include "core/page.h"

struct rig_page { /* one page as it was asked for; where: once it was answered */
    uint64_t queue, first, salt;
    uint32_t count;
    uint32_t body_max;
    uint8_t lane;
    bool sync, written;
    struct page_where where;
};

static inline uint64_t rig_draw(uint64_t *dice)
{
    uint64_t z = (*dice += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline void rig_fill(uint8_t *ret, size_t len, uint64_t dice)
{
    for (size_t i = 0; i < len; i++) {
        dice = dice * 6364136223846793005u + 1442695040888963407u;
        ret[i] = (uint8_t)(dice >> 56);
    }
}

static inline uint64_t rig_position(const struct rig_page *page, uint32_t i)
{
    return page->first + i * (1 + page->salt % 3);
}

/* Item i of a page, with a message of its own. False: no memory. */
static inline bool rig_item(struct slab_heap *heap, const struct rig_page *page, uint32_t i, struct page_item *ret)
{
    static const int64_t expirations[] = {-1, 0, 1, 60000, INT64_MAX};
    static const wall_t deadlines[] = {WALL_NEVER, 0, 1, 1700000000000, WALL_NEVER - 1};
    static const uint32_t returns[] = {0, 0, 1, 127, UINT32_MAX};
    uint8_t names[2][255], props[300];
    uint64_t dice = page->salt * 1000003 + i, d = rig_draw(&dice);
    size_t exchange_len = d % 7 == 0 ? 255 : d % 20, key_len = d % 11 == 0 ? 255 : d % 33;
    size_t props_len = (d >> 8) % 5 == 0 ? 0 : (d >> 16) % sizeof props;
    size_t body_len = (d >> 24) % 5 == 0 || !page->body_max ? 0 : (d >> 32) % (page->body_max + 1);
    rig_fill(names[0], exchange_len, d + 1);
    rig_fill(names[1], key_len, d + 2);
    rig_fill(props, props_len, d + 3);
    struct msg *msg = msg_new(heap, slice_of(names[0], exchange_len), slice_of(names[1], key_len),
                              slice_of(props, props_len), body_len);
    if (!msg)
        return false;
    rig_fill(msg_body_room(msg), body_len, d + 4);
    uint64_t e = rig_draw(&dice);
    msg->flags = e & 63;
    msg->priority = (uint8_t)(e >> 8);
    msg->expiration_ms = expirations[(e >> 16) % 5];
    *ret = (struct page_item){.position = rig_position(page, i),
                              .deadline = deadlines[(e >> 24) % 5],
                              .returns = returns[(e >> 32) % 5],
                              .redelivered = e >> 40 & 1,
                              .msg = msg};
    return true;
}

/* The job that writes the page; NULL: no memory. */
static inline struct page_job *rig_write_job(struct slab_heap *heap, const struct rig_page *page)
{
    struct page_job *job = page_job_new(PAGE_WRITE, page->count);
    if (!job)
        return NULL;
    job->queue = page->queue;
    job->lane = page->lane;
    job->sync = page->sync;
    for (uint32_t i = 0; i < page->count; i++)
        if (!rig_item(heap, page, i, &job->items[i])) {
            page_job_free(heap, &job);
            return NULL;
        }
    return job;
}

static inline struct page_job *rig_read_job(const struct rig_page *page)
{
    struct page_job *job = page_job_new(PAGE_READ, page->count);
    if (!job)
        return NULL;
    job->queue = page->queue;
    job->lane = page->lane;
    job->where = page->where;
    return job;
}

static inline bool rig_same_message(const struct msg *a, const struct msg *b)
{
    return a->flags == b->flags && a->priority == b->priority && a->expiration_ms == b->expiration_ms &&
           slice_equal(msg_exchange(a), msg_exchange(b)) && slice_equal(msg_key(a), msg_key(b)) &&
           slice_equal(msg_props(a), msg_props(b)) && slice_equal(msg_body(a), msg_body(b));
}

static inline bool rig_same_item(const struct page_item *a, const struct page_item *b)
{
    return a->position == b->position && a->deadline == b->deadline && a->returns == b->returns &&
           a->redelivered == b->redelivered && a->due == b->due && a->origin == b->origin &&
           rig_same_message(a->msg, b->msg);
}

/* Are these the page's items? The heap is the caller's and has memory. */
static inline bool rig_is_page(struct slab_heap *heap, const struct rig_page *page, const struct page_job *job)
{
    bool same = job->count == page->count;
    for (uint32_t i = 0; i < page->count && same; i++) {
        struct page_item item;
        CHECK(rig_item(heap, page, i, &item));
        same = job->items[i].msg && rig_same_item(&item, &job->items[i]);
        msg_unref(heap, item.msg);
    }
    return same;
}

/* No item has a message. */
static inline bool rig_is_empty(const struct page_job *job)
{
    for (uint32_t i = 0; i < job->count; i++)
        if (job->items[i].msg)
            return false;
    return true;
}

#endif
