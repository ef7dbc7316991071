/* Holes of a page: positions from its first to its last that are not alive in it, as sorted runs that do not touch.
 *
 * While a page is written or is in memory they are an array of ranges, which anything can change. On disk, where there are
 * most and nothing changes, they are packed: two varints a run (how much is alive before it, how long it is), so that a
 * lane of a priority queue, whose positions have gaps everywhere, costs some two bytes a message and not sixteen. Looking for one
 * position in packed holes means reading them from the beginning; whoever looks for many unpacks them first.
 */
#include "core/core_int.h"

#define PACKED UINT32_MAX /* of ranges.max: runs are bytes */
#define PACK_LEAST 4u     /* runs; below that an array is as small */
#define PACKED_RUN_MAX 20u

static bool is_packed(const struct ranges *holes)
{
    return holes->max == PACKED;
}

struct walk { /* through packed holes */
    struct reader r;
    uint32_t left;
    uint64_t next; /* position behind the run before */
    struct range run;
    bool found;
};

static struct walk walk_of(const struct page *page)
{
    return (struct walk){.r = reader_of(slice_of(page->holes.runs, (size_t)page->holes.count * PACKED_RUN_MAX)),
                         .left = page->holes.count,
                         .next = page->first};
}

static bool walk_next(struct walk *walk)
{
    walk->found = walk->left > 0;
    if (!walk->found)
        return false;
    walk->left--;
    walk->run.first = walk->next + reader_varint(&walk->r);
    walk->run.last = walk->run.first + reader_varint(&walk->r) - 1;
    walk->next = walk->run.last + 1;
    return true;
}

/* What is looked for often, or has to find room, stays as it is. */
void page_pack(struct page *page)
{
    struct ranges *holes = &page->holes;
    if (is_packed(holes) || page->lent || page->look)
        return;
    struct range *less = NULL;
    if (holes->count >= PACK_LEAST) {
        struct range *packed = mem_alloc((size_t)holes->count * PACKED_RUN_MAX);
        if (!packed)
            return; /* the array is as good */
        struct writer w = writer_of(packed, (size_t)holes->count * PACKED_RUN_MAX);
        uint64_t next = page->first;
        for (uint32_t i = 0; i < holes->count; i++) {
            writer_varint(&w, holes->runs[i].first - next);
            writer_varint(&w, holes->runs[i].last - holes->runs[i].first + 1);
            next = holes->runs[i].last + 1;
        }
        CHECK(writer_ok(&w));
        less = mem_realloc(packed, w.len);
        mem_free(holes->runs);
        *holes = (struct ranges){.runs = less ? less : packed, .count = holes->count, .max = PACKED};
        return;
    }
    if (holes->count && !(less = mem_realloc(holes->runs, holes->count * sizeof *less)))
        return;
    if (holes->count == 0)
        mem_free(holes->runs);
    *holes = (struct ranges){.runs = less, .count = holes->count, .max = holes->count};
}

bool page_unpack(struct page *page)
{
    struct ranges *holes = &page->holes;
    if (!is_packed(holes))
        return true;
    struct range *runs = mem_alloc(holes->count * sizeof *runs);
    if (!runs)
        return false;
    struct walk walk = walk_of(page);
    for (uint32_t i = 0; walk_next(&walk); i++)
        runs[i] = walk.run;
    mem_free(holes->runs);
    *holes = (struct ranges){.runs = runs, .count = holes->count, .max = holes->count};
    return true;
}

void page_holes_put(struct writer *w, const struct page *page)
{
    if (is_packed(&page->holes)) {
        struct walk walk = walk_of(page);
        while (walk_next(&walk)) {
            writer_varint(w, walk.run.first);
            writer_varint(w, walk.run.last - walk.run.first + 1);
        }
        return;
    }
    for (uint32_t i = 0; i < page->holes.count; i++) {
        writer_varint(w, page->holes.runs[i].first);
        writer_varint(w, page->holes.runs[i].last - page->holes.runs[i].first + 1);
    }
}

/* Index of the first run that ends at or behind the position. */
static uint32_t hole_bound(const struct ranges *holes, uint64_t position)
{
    uint32_t low = 0, high = holes->count;
    if (high && holes->runs[high - 1].last < position)
        return high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (holes->runs[middle].last < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool page_is_hole(const struct page *page, uint64_t position)
{
    if (is_packed(&page->holes)) {
        struct walk walk = walk_of(page);
        while (walk_next(&walk) && walk.run.last < position)
            continue;
        return walk.found && walk.run.first <= position;
    }
    uint32_t i = hole_bound(&page->holes, position);
    return i < page->holes.count && page->holes.runs[i].first <= position;
}

bool page_has(const struct page *page, uint64_t position)
{
    return position >= page->first && position <= page->last && !page_is_hole(page, position);
}

bool page_alive_from(const struct page *page, uint64_t *position, uint64_t *ret_last)
{
    if (is_packed(&page->holes)) {
        struct walk walk = walk_of(page);
        while (walk_next(&walk) && walk.run.first <= *position)
            if (walk.run.last >= *position)
                *position = walk.run.last + 1;
        *ret_last = walk.found ? walk.run.first - 1 : page->last;
        return *position <= page->last;
    }
    uint32_t i = hole_bound(&page->holes, *position);
    while (i < page->holes.count && page->holes.runs[i].first <= *position)
        *position = page->holes.runs[i++].last + 1;
    *ret_last = i < page->holes.count ? page->holes.runs[i].first - 1 : page->last;
    return *position <= page->last;
}

bool ranges_room(struct ranges *holes, uint32_t more)
{
    if (holes->count + more <= holes->max)
        return true;
    uint32_t max = holes->max ? holes->max * 2 : 2;
    if (max < holes->count + more)
        max = holes->count + more;
    struct range *grown = mem_realloc(holes->runs, max * sizeof *grown);
    if (!grown)
        return false;
    holes->runs = grown;
    holes->max = max;
    return true;
}

/* Whatever of its messages goes, and in whatever order, finds room: at worst every second one is a run of its own. */
bool page_reserve(struct page *page)
{
    return page_unpack(page) && ranges_room(&page->holes, page->live / 2 + 1);
}

bool ranges_put(struct ranges *r, uint64_t position, uint64_t count)
{
    uint64_t last = position + count - 1;
    uint32_t i = hole_bound(r, position);
    bool joins_before = i > 0 && r->runs[i - 1].last + 1 == position;
    bool joins_after = i < r->count && r->runs[i].first == last + 1;
    if (joins_before && joins_after) {
        r->runs[i - 1].last = r->runs[i].last;
        memmove(r->runs + i, r->runs + i + 1, (r->count - i - 1) * sizeof *r->runs);
        r->count--;
    } else if (joins_before)
        r->runs[i - 1].last = last;
    else if (joins_after)
        r->runs[i].first = position;
    else {
        if (!ranges_room(r, 1))
            return false;
        memmove(r->runs + i + 1, r->runs + i, (r->count - i) * sizeof *r->runs);
        r->runs[i] = (struct range){.first = position, .last = last};
        r->count++;
    }
    return true;
}

uint64_t ranges_past(const struct ranges *r, uint64_t position)
{
    uint32_t i = hole_bound(r, position);
    return i < r->count && r->runs[i].first <= position ? r->runs[i].last + 1 : position;
}

uint64_t ranges_next(const struct ranges *r, uint64_t position)
{
    uint32_t i = hole_bound(r, position);
    return i == r->count ? UINT64_MAX : r->runs[i].first > position ? r->runs[i].first : position;
}

/* The positions are no hole yet. */
bool page_hole(struct page *page, uint64_t position, uint64_t count)
{
    return page_unpack(page) && ranges_put(&page->holes, position, count);
}
