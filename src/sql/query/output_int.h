/* output_int: what the files of output share: the packer, which makes messages and record batches of what was encoded, in groups of at most a step.
 *
 *   packer_init ▸ { packer_full ▸ [ packer_cut ] ▸ packer_record | packer_message }* ▸ packer_cut ▸ packer_fini
 *
 * False is always: no memory, or more than bytes_max waits.
 */
#ifndef MILLRACE_SQL_QUERY_OUTPUT_INT_H
#define MILLRACE_SQL_QUERY_OUTPUT_INT_H

#include "fmt/record_batch.h"
#include "sql/query/output.h"

/* A partition's batch in the making. */
struct part {
    uint8_t *bytes;
    size_t room;
    struct writer w;
    struct record_batch_writer batch;
    uint32_t rows; /* 0: not begun */
};

struct packer {
    struct slab_heap *heap;
    const struct output_target *target;
    size_t bytes_max, waiting; /* bytes: of groups that are done */
    size_t open_bytes, room;   /* of batches in the making, of their buffers */
    struct part *parts;
    uint32_t open;
    struct output_group *first, *last, *growing;
    uint32_t growing_room;
};

MUST_USE bool packer_init(struct packer *p, struct slab_heap *heap, const struct output_target *target,
                          size_t bytes_max);
void packer_fini(struct packer *p);
/* So many bytes more in one record or message would be too much for the group that grows; `gone`: bytes of tombstones that it has to take, too. */
bool packer_full(const struct packer *p, size_t more, size_t gone);
MUST_USE bool packer_record(struct packer *p, uint32_t partition, int64_t ms, const struct slice *key,
                            const struct slice *value);
MUST_USE bool packer_message(struct packer *p, const struct output_mark *mark, struct slice routing_key,
                             struct slice body);
/* place, until: as of output_group. */
MUST_USE bool packer_cut(struct packer *p, uint64_t place, uint64_t until);
struct output_group *packer_take(struct packer *p);
size_t packer_bytes(const struct packer *p);

#endif
