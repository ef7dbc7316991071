/* Set-up of the ring; the rest is inline. */
#include "base/ring.h"

#include "base/mem.h"

bool ring_init(struct ring *r, size_t slots, size_t slot_len)
{
    uint32_t size = 2;
    CHECK(slots <= 1u << 30);
    while (size < slots)
        size *= 2;
    memset(r, 0, sizeof *r);
    r->slots = mem_alloc((size_t)size * slot_len);
    r->slot_len = slot_len;
    r->mask = size - 1;
    return r->slots != NULL;
}

void ring_fini(struct ring *r)
{
    mem_free(r->slots);
    r->slots = NULL;
}
