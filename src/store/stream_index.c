/* The sparse index of a stream file, see stream_index.h. Marks ascend in offset and position and never descend in time,
 * so all three are found by halving. */
#include "store/stream_index.h"

#include "base/mem.h"

#define MARKS_FIRST 16u

void stream_index_fini(struct stream_index *index)
{
    mem_free(index->marks);
    *index = (struct stream_index){0};
}

static bool room_for_one(struct stream_index *index)
{
    if (index->count < index->cap)
        return true;
    if (index->count == STREAM_INDEX_MAX) {
        uint32_t kept = 0;
        for (uint32_t i = 0; i < index->count; i += 2)
            index->marks[kept++] = index->marks[i];
        index->count = kept;
        index->stride *= 2;
        return true;
    }
    uint32_t cap = index->cap ? index->cap * 2 : MARKS_FIRST;
    struct stream_mark *marks = mem_realloc(index->marks, cap * sizeof *marks);
    if (!marks)
        return false;
    index->marks = marks;
    index->cap = cap;
    return true;
}

void stream_index_note(struct stream_index *index, const struct stream_mark *mark)
{
    if (!index->stride)
        index->stride = STREAM_INDEX_STRIDE;
    if (index->count && mark->position - index->marks[index->count - 1].position < index->stride)
        return;
    if (room_for_one(index))
        index->marks[index->count++] = *mark;
}

void stream_index_cut(struct stream_index *index, uint64_t position)
{
    while (index->count && index->marks[index->count - 1].position >= position)
        index->count--;
}

const struct stream_mark *stream_index_find(const struct stream_index *index, uint64_t delta)
{
    uint32_t low = 0, high = index->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->marks[middle].delta <= delta)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &index->marks[low - 1] : NULL;
}

const struct stream_mark *stream_index_find_within(const struct stream_index *index, uint64_t delta, uint64_t position)
{
    uint32_t low = 0, high = index->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->marks[middle].delta <= delta && index->marks[middle].position <= position)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &index->marks[low - 1] : NULL;
}

const struct stream_mark *stream_index_find_time(const struct stream_index *index, wall_t timestamp)
{
    uint32_t low = 0, high = index->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->marks[middle].max_before < timestamp)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &index->marks[low - 1] : NULL;
}
