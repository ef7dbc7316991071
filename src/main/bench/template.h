/* Messages encoded ahead: a buffer filled with copies of one complete message (method, header and body frames), in which
 * sending only patches the stamp and, for deliveries, the delivery tag.
 *
 * Life cycle: bench_template_publish or _deliver → bench_template_slot … → bench_template_fini. Thread: one owner.
 */
#ifndef MAIN_BENCH_TEMPLATE_H
#define MAIN_BENCH_TEMPLATE_H

#include "stamp.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bench_template {
    uint8_t *slots;
    size_t slot_len;
    size_t slot_count;
    size_t stamp_at; /* 0: the body is too short for a stamp */
    size_t tag_at;   /* deliveries only */
};

struct bench_template_body {
    size_t body_bytes;
    uint32_t frame_max;
    uint32_t run_id;
    uint32_t producer;
    size_t slots_max; /* never send more than this at once; 0: as many as fit 256 KiB */
};

/* Both answer -1 when memory is short or a name is too long. */
int bench_template_publish(struct bench_template *t, const struct bench_template_body *body, const char *queue,
                           bool persistent, bool mandatory);
int bench_template_deliver(struct bench_template *t, const struct bench_template_body *body);
void bench_template_fini(struct bench_template *t);

static inline void bench_template_stamp(struct bench_template *t, size_t idx, uint64_t seq, uint64_t sent_ns)
{
    if (t->stamp_at == 0)
        return;
    uint8_t *p = t->slots + idx * t->slot_len + t->stamp_at;
    memcpy(p + offsetof(struct bench_stamp, seq), &seq, sizeof(seq));
    memcpy(p + offsetof(struct bench_stamp, sent_ns), &sent_ns, sizeof(sent_ns));
}

#endif
