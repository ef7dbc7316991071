/* stream_index: the sparse index of one stream file in memory: where batches begin, and the highest timestamp before them.
 *
 * Zero-initialised ▸ { stream_index_note | stream_index_cut | stream_index_find… }* ▸ stream_index_fini. Entries are about
 * 16 KiB apart at first; when there are STREAM_INDEX_MAX every other one goes and the distance doubles, so an index has a
 * bound. It is only ever a short cut: without memory for an entry the walk from the one before is longer.
 * Any one thread.
 */
#ifndef MILLRACE_STORE_STREAM_INDEX_H
#define MILLRACE_STORE_STREAM_INDEX_H

#include "store/stream_format.h"

#define STREAM_INDEX_STRIDE (16u * 1024)

struct stream_index {
    struct stream_mark *marks;
    uint32_t count, cap;
    uint32_t stride; /* 0: STREAM_INDEX_STRIDE */
};

void stream_index_fini(struct stream_index *index);
/* A batch begins there, behind all that were noted. Kept when it is far enough from the last. */
void stream_index_note(struct stream_index *index, const struct stream_mark *mark);
/* Forgets batches at or behind position. */
void stream_index_cut(struct stream_index *index, uint64_t position);
/* The last batch that begins at delta or before; NULL: none. */
const struct stream_mark *stream_index_find(const struct stream_index *index, uint64_t delta);
/* The last batch that begins at delta or before, and at position or before; NULL: none. */
const struct stream_mark *stream_index_find_within(const struct stream_index *index, uint64_t delta, uint64_t position);
/* The last batch before which every timestamp is below; NULL: none. */
const struct stream_mark *stream_index_find_time(const struct stream_index *index, wall_t timestamp);

#endif
