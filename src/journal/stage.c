/* Staging: one copy of each record, straight into the aligned buffer that will be written.
 *
 * The writer borrows the open group at the first reservation of a tick and gives it back at the kick; in between it
 * appends without any lock. The journal thread takes closed groups first, then whatever the open group holds between
 * ticks, so a group is exactly what arrived while the sync before it ran.
 * A reservation that fits one group is served by one group: the open one is closed early when it has no room. A larger
 * one gets spare buffers in advance, enough for the worst split of its records.
 * Buffers start at 64 KiB and grow with the groups, so that an idle broker stays small.
 * Threads: writer and journal, as stage.h says per function.
 */
#include "journal/stage.h"

#include "base/check.h"
#include "base/mem.h"
#include "journal/journal.h"
#include "journal/layout.h"

#define CAP_FIRST (64u * 1024)
#define CAP_GROWTH 4
#define POOL_GROUPS 4 /* full-size buffers kept while busy */
#define RECORD_BYTES (LAYOUT_RECORD_HEADER + JOURNAL_RECORD_BYTES_MAX)
/* Any buffer of this length is more than half full when a record does not fit any more. */
#define SPARE_BYTES (LAYOUT_GROUP_HEADER + 2 * RECORD_BYTES)

static struct group *group_new(size_t cap)
{
    cap = layout_blocks(cap);
    struct group *group = mem_alloc(sizeof *group);
    uint8_t *bytes = group ? mem_aligned_as(MEM_JOURNAL, LAYOUT_BLOCK, cap) : NULL;
    if (!bytes) {
        mem_free(group);
        return NULL;
    }
    *group = (struct group){.bytes = bytes, .cap = cap, .len = LAYOUT_GROUP_HEADER};
    return group;
}

static void group_free(struct group *group)
{
    mem_free_as(MEM_JOURNAL, group->bytes);
    mem_free(group);
}

static void groups_free(struct group *group)
{
    while (group) {
        struct group *next = group->next;
        group_free(group);
        group = next;
    }
}

static size_t group_room(const struct group *group)
{
    return group->cap - group->len;
}

void stage_init(struct stage *stage, struct os_event *work, size_t group_bytes_max, lsn_t next_lsn)
{
    size_t cap_max = layout_blocks(group_bytes_max);
    CHECK(cap_max >= LAYOUT_BLOCK && cap_max <= LAYOUT_GROUP_BODY_MAX);
    *stage = (struct stage){
        .work = work,
        .cap_max = cap_max,
        .cap_next = cap_max < CAP_FIRST ? cap_max : CAP_FIRST,
        .next_lsn = next_lsn,
    };
    stage->queue_end = &stage->queue;
    os_lock_init(&stage->lock);
}

void stage_fini(struct stage *stage)
{
    groups_free(stage->queue);
    groups_free(stage->pool);
    groups_free(stage->spares);
    if (stage->shared)
        group_free(stage->shared);
    if (stage->open)
        group_free(stage->open);
    os_lock_fini(&stage->lock);
    *stage = (struct stage){0};
}

/* ------------------------------------------------------------------------------------------------------------- writer */

/* Under the lock. A pooled buffer of at least cap bytes, or NULL. */
static struct group *pool_take(struct stage *stage, size_t cap)
{
    for (struct group **at = &stage->pool; *at; at = &(*at)->next) {
        struct group *group = *at;
        if (group->cap < cap)
            continue;
        *at = group->next;
        group->next = NULL;
        stage->pool_bytes -= group->cap;
        return group;
    }
    return NULL;
}

/* Under the lock. Keeps the buffer, or hands it back to be freed outside the lock. */
static struct group *pool_put(struct stage *stage, struct group *group)
{
    group->len = LAYOUT_GROUP_HEADER;
    group->nrec = 0;
    group->next = NULL;
    if (stage->pool_bytes + group->cap > POOL_GROUPS * stage->cap_max)
        return group;
    group->next = stage->pool;
    stage->pool = group;
    stage->pool_bytes += group->cap;
    return NULL;
}

static void put_back(struct stage *stage, struct group *group)
{
    os_lock_take(&stage->lock);
    struct group *surplus = pool_put(stage, group);
    os_lock_give(&stage->lock);
    if (surplus)
        group_free(surplus);
}

/* An empty buffer with room for body bytes, at least. NULL: no memory. */
static struct group *fresh(struct stage *stage, size_t body)
{
    size_t least = LAYOUT_GROUP_HEADER + body;
    os_lock_take(&stage->lock);
    size_t wish = least > stage->cap_next ? least : stage->cap_next;
    struct group *group = pool_take(stage, wish);
    os_lock_give(&stage->lock);
    if (!group)
        group = group_new(wish);
    if (group)
        return group;
    os_lock_take(&stage->lock);
    group = pool_take(stage, least);
    os_lock_give(&stage->lock);
    return group;
}

static bool borrow(struct stage *stage, size_t body)
{
    os_lock_take(&stage->lock);
    stage->open = stage->shared;
    stage->shared = NULL;
    os_lock_give(&stage->lock);
    if (!stage->open)
        stage->open = fresh(stage, body);
    return stage->open != NULL;
}

/* The open group is full (or too full for what comes): the journal thread may have it. */
static void close_open(struct stage *stage)
{
    struct group *group = stage->open;
    stage->open = NULL;
    if (!group->nrec) {
        put_back(stage, group);
        return;
    }
    os_lock_take(&stage->lock);
    *stage->queue_end = group;
    stage->queue_end = &group->next;
    size_t grown = stage->cap_next * CAP_GROWTH;
    stage->cap_next = grown < stage->cap_max ? grown : stage->cap_max;
    os_lock_give(&stage->lock);
    os_event_set(stage->work);
}

static bool reserve_spares(struct stage *stage, size_t need)
{
    size_t each = stage->cap_max > SPARE_BYTES ? stage->cap_max : SPARE_BYTES;
    size_t count = need / (each - LAYOUT_GROUP_HEADER - RECORD_BYTES) + 1;
    while (stage->spares_count < count) {
        struct group *group = fresh(stage, each - LAYOUT_GROUP_HEADER);
        if (!group)
            return false;
        group->next = stage->spares;
        stage->spares = group;
        stage->spares_count++;
    }
    return true;
}

bool stage_reserve(struct stage *stage, size_t bytes, unsigned count)
{
    if (stage->dropping)
        return true;
    size_t need = bytes + (size_t)count * LAYOUT_RECORD_HEADER;
    bool one_group = need <= stage->cap_max - LAYOUT_GROUP_HEADER;
    if (!stage->open && !borrow(stage, one_group ? need : 0))
        return false;
    if (one_group && group_room(stage->open) < need) {
        struct group *group = fresh(stage, need);
        if (!group)
            return false;
        close_open(stage);
        stage->open = group;
    }
    if (!one_group && !reserve_spares(stage, need))
        return false;
    stage->reserved = need;
    return true;
}

static void advance(struct stage *stage)
{
    close_open(stage);
    CHECK(stage->spares);
    stage->open = stage->spares;
    stage->spares = stage->open->next;
    stage->open->next = NULL;
    stage->spares_count--;
}

lsn_t stage_append(struct stage *stage, const struct slice *parts, unsigned count)
{
    lsn_t lsn = stage->next_lsn++;
    if (stage->dropping)
        return lsn;
    size_t len = 0;
    for (unsigned i = 0; i < count; i++)
        len += parts[i].len;
    size_t need = LAYOUT_RECORD_HEADER + len;
    CHECK(len <= JOURNAL_RECORD_BYTES_MAX && need <= stage->reserved);
    stage->reserved -= need;
    if (group_room(stage->open) < need)
        advance(stage);
    struct group *group = stage->open;
    CHECK(group_room(group) >= need);
    if (!group->nrec++)
        group->first = lsn;
    uint8_t *at = group->bytes + group->len;
    layout_record_put(at, (uint32_t)len);
    at += LAYOUT_RECORD_HEADER;
    for (unsigned i = 0; i < count; i++) {
        if (parts[i].len)
            memcpy(at, parts[i].ptr, parts[i].len);
        at += parts[i].len;
    }
    group->len += need;
    stage->bytes_in += need;
    return lsn;
}

static void return_spares(struct stage *stage)
{
    while (stage->spares) {
        struct group *group = stage->spares;
        stage->spares = group->next;
        put_back(stage, group);
    }
    stage->spares_count = 0;
}

bool stage_kick(struct stage *stage)
{
    stage->reserved = 0;
    if (stage->spares)
        return_spares(stage);
    if (!stage->open || !stage->open->nrec)
        return false;
    os_lock_take(&stage->lock);
    stage->shared = stage->open;
    os_lock_give(&stage->lock);
    stage->open = NULL;
    return true;
}

void stage_break(struct stage *stage)
{
    struct group *group = NULL;
    stage->reserved = 0;
    if (stage->dropping)
        return;
    if (stage->open && stage->open->nrec)
        close_open(stage);
    if (stage->open)
        return; /* empty */
    os_lock_take(&stage->lock);
    group = stage->shared;
    stage->shared = NULL;
    if (group) {
        *stage->queue_end = group;
        stage->queue_end = &group->next;
    }
    os_lock_give(&stage->lock);
    if (group)
        os_event_set(stage->work);
}

void stage_drop(struct stage *stage)
{
    stage->dropping = true;
    stage->reserved = 0;
    return_spares(stage);
    if (!stage->open)
        return;
    stage->bytes_in -= stage->open->len - LAYOUT_GROUP_HEADER;
    put_back(stage, stage->open);
    stage->open = NULL;
}

uint64_t stage_bytes(const struct stage *stage)
{
    return stage->bytes_in - atomic_load_explicit(&stage->bytes_out, memory_order_relaxed);
}

/* ------------------------------------------------------------------------------------------------------------ journal */

struct group *stage_take(struct stage *stage)
{
    os_lock_take(&stage->lock);
    struct group *group = stage->queue;
    if (group) {
        stage->queue = group->next;
        if (!stage->queue)
            stage->queue_end = &stage->queue;
        group->next = NULL;
    } else {
        group = stage->shared;
        stage->shared = NULL;
    }
    os_lock_give(&stage->lock);
    return group;
}

bool stage_waits(struct stage *stage)
{
    os_lock_take(&stage->lock);
    bool waits = stage->queue || stage->shared;
    os_lock_give(&stage->lock);
    return waits;
}

void stage_retire(struct stage *stage, struct group *group)
{
    atomic_fetch_add_explicit(&stage->bytes_out, group->len - LAYOUT_GROUP_HEADER, memory_order_relaxed);
    put_back(stage, group);
}

void stage_shrink(struct stage *stage)
{
    os_lock_take(&stage->lock);
    stage->cap_next = stage->cap_max < CAP_FIRST ? stage->cap_max : CAP_FIRST;
    struct group *keep = stage->pool;
    while (keep && keep->cap > CAP_FIRST)
        keep = keep->next;
    struct group *gone = NULL;
    for (struct group *group = stage->pool, *next; group; group = next) {
        next = group->next;
        if (group == keep)
            continue;
        group->next = gone;
        gone = group;
    }
    stage->pool = keep;
    stage->pool_bytes = keep ? keep->cap : 0;
    if (keep)
        keep->next = NULL;
    os_lock_give(&stage->lock);
    groups_free(gone);
}
