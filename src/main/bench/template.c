/* Pre-encoded messages for the load generator and its sink.
 *
 * Building a publish from scratch costs more than sending it, so a connection owns a buffer of identical slots, at most
 * SLOTS_BYTES (or one slot when a message is larger). A batch of n messages is "patch n stamps, write n slots": one cache
 * line touched per message and no copying in user space. The price: a partly written batch must leave completely before
 * the next one is stamped, which the callers respect.
 *
 * Slot: method frame | header frame | body frames of at most frame_max. The stamp is the start of the first body frame.
 */
#include "template.h"

#include "wire.h"

#include <stdlib.h>

enum { SLOTS_BYTES = 256 * 1024, NAMES_BYTES = 1024, DELIVERY_MODE_FLAG = 0x1000 };

static void put_content(struct bench_writer *w, const struct bench_template_body *body, unsigned delivery_mode,
                        size_t *ret_body_at)
{
    bench_put_frame_begin(w, BENCH_FRAME_HEADER, 1);
    bench_put_u16(w, 60);
    bench_put_u16(w, 0);
    bench_put_u64(w, body->body_bytes);
    bench_put_u16(w, DELIVERY_MODE_FLAG);
    bench_put_u8(w, delivery_mode);
    bench_put_frame_end(w);
    *ret_body_at = w->at + 7;
    size_t piece_max = body->frame_max - BENCH_FRAME_OVERHEAD;
    for (size_t left = body->body_bytes; left > 0;) {
        size_t piece = left < piece_max ? left : piece_max;
        bench_put_frame_begin(w, BENCH_FRAME_BODY, 1);
        for (size_t i = 0; i < piece; i++)
            bench_put_u8(w, 'a' + (unsigned)(i % 26));
        bench_put_frame_end(w);
        left -= piece;
    }
}

/* Fills the slots with copies of the first `len` bytes of `one`, which it frees. */
static int template_fill(struct bench_template *t, struct bench_writer *one, const struct bench_template_body *body,
                         size_t body_at)
{
    int result = -1;
    t->slots = NULL;
    if (one->failed)
        goto out;
    t->slot_len = one->at;
    t->slot_count = SLOTS_BYTES / t->slot_len;
    if (body->slots_max > 0 && t->slot_count > body->slots_max)
        t->slot_count = body->slots_max;
    if (t->slot_count == 0)
        t->slot_count = 1;
    t->stamp_at = 0;
    if (body->body_bytes >= BENCH_STAMP_BYTES) {
        struct bench_stamp stamp = {.run_id = body->run_id, .producer = body->producer};
        memcpy(one->bytes + body_at, &stamp, sizeof(stamp));
        t->stamp_at = body_at;
    }
    t->slots = malloc(t->slot_count * t->slot_len);
    if (t->slots == NULL)
        goto out;
    for (size_t i = 0; i < t->slot_count; i++)
        memcpy(t->slots + i * t->slot_len, one->bytes, t->slot_len);
    result = 0;
out:
    free(one->bytes);
    one->bytes = NULL;
    return result;
}

static bool writer_for_body(struct bench_writer *w, const struct bench_template_body *body)
{
    size_t pieces = body->body_bytes / (body->frame_max - BENCH_FRAME_OVERHEAD) + 1;
    memset(w, 0, sizeof(*w));
    w->cap = NAMES_BYTES + body->body_bytes + pieces * BENCH_FRAME_OVERHEAD;
    w->bytes = malloc(w->cap);
    return w->bytes != NULL;
}

int bench_template_publish(struct bench_template *t, const struct bench_template_body *body, const char *queue,
                           bool persistent, bool mandatory)
{
    struct bench_writer w;
    size_t body_at;
    if (!writer_for_body(&w, body))
        return -1;
    bench_put_method_begin(&w, 1, BENCH_BASIC_PUBLISH);
    bench_put_u16(&w, 0);
    bench_put_shortstr(&w, "");
    bench_put_shortstr(&w, queue);
    bench_put_u8(&w, mandatory ? 1 : 0);
    bench_put_frame_end(&w);
    put_content(&w, body, persistent ? 2 : 1, &body_at);
    t->tag_at = 0;
    return template_fill(t, &w, body, body_at);
}

int bench_template_deliver(struct bench_template *t, const struct bench_template_body *body)
{
    struct bench_writer w;
    size_t body_at;
    if (!writer_for_body(&w, body))
        return -1;
    bench_put_method_begin(&w, 1, BENCH_BASIC_DELIVER);
    bench_put_shortstr(&w, "c");
    t->tag_at = w.at;
    bench_put_u64(&w, 0);
    bench_put_u8(&w, 0);
    bench_put_shortstr(&w, "");
    bench_put_shortstr(&w, "sink");
    bench_put_frame_end(&w);
    put_content(&w, body, 1, &body_at);
    return template_fill(t, &w, body, body_at);
}

void bench_template_fini(struct bench_template *t)
{
    free(t->slots);
    t->slots = NULL;
}
