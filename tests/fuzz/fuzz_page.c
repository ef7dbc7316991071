/* Fuzzes what is believed of a segment file's bytes: one page, decoded.
 *
 * The first byte says how. Even: the rest is a page; with the bit 2 its checksums are made right first, or nothing would get
 * past them. What decodes must encode to something that decodes to the same, and is not longer (the input may have used
 * longer forms of numbers). Odd: the rest draws messages, which are encoded, decoded and compared, and refused with any one
 * byte changed.
 *
 * covers: src/store/page_format.c
 * fuzz: -max_len=8192
 */
#include "base/mem.h"
#include "store/page_format.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PAGE_BYTES_MAX 65536u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static const uint8_t uuid[LAYOUT_UUID_LEN] = "fifteen letters";

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "violated: %s\n", what);
    abort();
}

static void put32(uint8_t *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

static bool same(const struct page_item *a, const struct page_item *b)
{
    const struct msg *x = a->msg, *y = b->msg;
    return a->position == b->position && a->deadline == b->deadline && a->returns == b->returns &&
           a->redelivered == b->redelivered && x->flags == y->flags && x->priority == y->priority &&
           x->expiration_ms == y->expiration_ms && slice_equal(msg_exchange(x), msg_exchange(y)) &&
           slice_equal(msg_key(x), msg_key(y)) && slice_equal(msg_props(x), msg_props(y)) &&
           slice_equal(msg_body(x), msg_body(y));
}

static struct page_job *job_for(uint32_t count, uint64_t queue, uint8_t lane)
{
    struct page_job *job = page_job_new(PAGE_READ, count);
    must(job != NULL, "memory");
    job->queue = queue;
    job->lane = lane;
    return job;
}

/* Encodes the job, decodes that, compares. Returns the encoding; freed by mem_free. */
static uint8_t *there_and_back(struct slab_heap *heap, const struct page_job *job, uint32_t seed, size_t *ret_len)
{
    const char *what = "";
    size_t len = (size_t)page_len(job);
    uint8_t *page = mem_alloc(len);
    page_encode(job, seed, page, len);
    struct page_job *back = job_for(job->count, job->queue, job->lane);
    int err = page_decode(slice_of(page, len), seed, heap, back, &what);
    must(err == 0, what);
    for (uint32_t i = 0; i < job->count; i++)
        must(same(&job->items[i], &back->items[i]), "what was encoded comes back");
    page_job_free(heap, &back);
    *ret_len = len;
    return page;
}

static void decode_any(struct slab_heap *heap, uint8_t *page, size_t len, bool repair)
{
    uint32_t seed = page_seed(uuid, 3, 4096);
    struct page_head head = {0};
    const char *what = NULL;
    if (repair && len >= PAGE_HEADER) {
        memcpy(page, "MRPG", 4);
        put32(page + 4, (uint32_t)(len - PAGE_HEADER));
        put32(page + 40, layout_crc(seed, page + PAGE_HEADER, len - PAGE_HEADER));
        put32(page + 44, layout_crc(seed, page, 44));
    }
    bool good = len >= PAGE_HEADER && page_head_get(page, seed, &head) == LAYOUT_GOOD;
    must(!good || (head.count && head.count <= PAGE_ITEMS_MAX), "a count that was checked");
    struct page_job *job = good ? job_for(head.count, head.queue, head.lane) : job_for(1, 0, 0);
    int err = page_decode(slice_of(page, len), seed, heap, job, &what);
    must(err == 0 || (err == -EILSEQ && what && what[0]), "a refusal says why");
    must(err || good, "no page without its header");
    for (uint32_t i = 0; i < job->count; i++)
        must((job->items[i].msg == NULL) == (err != 0), "all messages or none");
    if (!err) {
        size_t short_len;
        uint8_t *again = there_and_back(heap, job, seed, &short_len);
        must(short_len <= len, "our form is the shortest");
        mem_free(again);
    }
    page_job_free(heap, &job);
}

/* A message made of what the bytes say; items ascend. */
static void draw_item(struct slab_heap *heap, struct reader *r, struct page_item *before, struct page_item *ret)
{
    uint8_t shape = reader_u8(r);
    struct slice exchange = reader_take(r, r->left && shape & 1 ? reader_u8(r) % (r->left + 1) : 0);
    struct slice key = reader_take(r, r->left && shape & 2 ? reader_u8(r) % (r->left + 1) : 0);
    struct slice props = reader_take(r, r->left && shape & 4 ? reader_u8(r) % (r->left + 1) : 0);
    struct slice body = reader_take(r, r->left && shape & 8 ? reader_u16(r) % (r->left + 1) : 0);
    uint64_t distance = shape & 16 ? reader_varint(r) >> 14 : shape;
    ret->position = before ? before->position + distance + 1 : distance;
    ret->deadline = shape & 32 ? (wall_t)(reader_varint(r) >> 1) : WALL_NEVER;
    ret->returns = shape & 64 ? reader_u32(r) : 0;
    ret->redelivered = shape & 128;
    ret->msg = msg_new(heap, exchange, key, props, body.len);
    must(ret->msg != NULL, "memory");
    if (body.len)
        memcpy(msg_body_room(ret->msg), body.ptr, body.len);
    ret->msg->flags = reader_u8(r);
    ret->msg->priority = reader_u8(r);
    ret->msg->expiration_ms = (int64_t)reader_varint(r);
    if (ret->msg->expiration_ms < -1)
        ret->msg->expiration_ms = -1;
}

static void encode_any(struct slab_heap *heap, struct slice bytes)
{
    struct reader r = reader_of(bytes);
    const char *what;
    size_t len;
    uint32_t count = reader_u8(&r) % 40 + 1, segment = reader_u8(&r) + 1u, change = reader_u16(&r);
    uint32_t seed = page_seed(uuid, segment, change * LAYOUT_BLOCK);
    struct page_job *job = job_for(count, reader_varint(&r), reader_u8(&r));
    for (uint32_t i = 0; i < count; i++)
        draw_item(heap, &r, i ? &job->items[i - 1] : NULL, &job->items[i]);
    uint8_t *page = there_and_back(heap, job, seed, &len);
    struct page_job *back = job_for(count, job->queue, job->lane);
    page[change % len] ^= (uint8_t)(change >> 8 | 1);
    must(page_decode(slice_of(page, len), seed, heap, back, &what) == -EILSEQ, "a changed byte is noticed");
    page_job_free(heap, &back);
    page_job_free(heap, &job);
    mem_free(page);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct slab_heap heap;
    if (len == 0)
        return 0;
    slab_heap_init(&heap);
    if (bytes[0] & 1) {
        encode_any(&heap, slice_of(bytes + 1, len - 1));
    } else {
        uint8_t *page = mem_alloc(len > 1 ? len - 1 : 1); /* exactly, for the sanitizer */
        memcpy(page, bytes + 1, len - 1);
        decode_any(&heap, page, len - 1, bytes[0] & 2);
        mem_free(page);
    }
    slab_heap_fini(&heap);
    return 0;
}
