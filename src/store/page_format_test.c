/* The bytes of segment files: golden bytes, round trips, and what must be refused: every flipped bit, every truncation, and
 * nonsense behind good checksums.
 */
#include "store/page_format.h"

#include "base/mem.h"
#include "store/store_test_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const uint8_t uuid[LAYOUT_UUID_LEN] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

#define SEGMENT 7u
#define OFFSET 8192u

static uint32_t seed(void)
{
    return page_seed(uuid, SEGMENT, OFFSET);
}

/* The page's bytes, freed by free(). */
static uint8_t *encoded(const struct page_job *job, size_t *ret_len)
{
    *ret_len = (size_t)page_len(job);
    uint8_t *bytes = malloc(*ret_len);
    page_encode(job, seed(), bytes, *ret_len);
    return bytes;
}

static int decode(struct slab_heap *heap, struct slice bytes, struct page_job *job, const char **ret_what)
{
    *ret_what = NULL;
    int err = page_decode(bytes, seed(), heap, job, ret_what);
    if (err) {
        assert_non_null(*ret_what);
        assert_true(rig_is_empty(job));
    }
    return err;
}

/* -------------------------------------------------------------------------------------------------------------- golden */

/* Written by hand after docs/formats/segments.md; the CRCs come from another implementation. */
static const uint8_t golden[] = {
    0x4d,
    0x52,
    0x50,
    0x47, /* magic */
    0,
    0,
    0,
    40, /* bytes of the body */
    0,
    0,
    0,
    0,
    0,
    0,
    1,
    2, /* queue */
    5,
    0,
    0,
    0, /* lane */
    0,
    0,
    0,
    2, /* messages */
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    9, /* first */
    0,
    0,
    0,
    0,
    0,
    0,
    1,
    9, /* last */
    0x31,
    0xc2,
    0xa6,
    0x42, /* CRC of the body */
    0xa8,
    0x80,
    0x39,
    0xce, /* CRC of the header */
    /* distance, deadline, returns; flags, priority, expiration, lengths of exchange, key, props, body; bytes */
    0x00,
    0x00,
    0x07,
    0x01,
    0x09,
    0x00,
    0x02,
    0x03,
    0x02,
    0x04,
    0x65,
    0x78,
    0x6b,
    0x65,
    0x79,
    0x00,
    0x00,
    0x62,
    0x6f,
    0x64,
    0x79,
    0x80,
    0x02,
    0x81,
    0xd0,
    0x95,
    0xff,
    0xbc,
    0x31,
    0x00,
    0x00,
    0x00,
    0xe9,
    0x07,
    0x00,
    0x00,
    0x02,
    0x00,
    0x00,
    0x00,
};

/* The body of the same messages in the short form, and of a third that is like the second. */
static const uint8_t golden_short[] = {
    /* what is left out: distance and deadline; returns; flags, priority, expiration, three lengths; of the body; the four */
    0x03,
    0x07,
    0x01,
    0x09,
    0x00,
    0x02,
    0x03,
    0x02,
    0x04,
    'e',
    'x',
    'k',
    'e',
    'y',
    0x00,
    0x00,
    'b',
    'o',
    'd',
    'y',
    /* returns; distance, deadline; flags, priority, expiration, three lengths; of the body; properties */
    0x04,
    0x80,
    0x02,
    0x81,
    0xd0,
    0x95,
    0xff,
    0xbc,
    0x31,
    0x00,
    0x00,
    0xe9,
    0x07,
    0x00,
    0x00,
    0x02,
    0x00,
    0x00,
    0x00,
    /* all; the body's length, the body */
    0x0f,
    0x01,
    'x',
};

static struct page_job *golden_job(struct slab_heap *heap)
{
    struct page_job *job = page_job_new(PAGE_WRITE, 2);
    job->queue = 0x102;
    job->lane = 5;
    struct msg *msg = msg_new(heap, slice_str("ex"), slice_str("key"), slice_of("\0\0", 2), 4);
    memcpy(msg_body_room(msg), "body", 4);
    msg->flags = MSG_PERSISTENT;
    msg->priority = 9;
    job->items[0] =
        (struct page_item){.position = 9, .deadline = WALL_NEVER, .returns = 3, .redelivered = true, .msg = msg};
    msg = msg_new(heap, slice_of(NULL, 0), slice_of(NULL, 0), slice_of("\0\0", 2), 0);
    msg->expiration_ms = 1000;
    job->items[1] = (struct page_item){.position = 9 + 256, .deadline = 1700000000000, .msg = msg};
    return job;
}

/* The page decodes to the items of the job, which ends with it. */
static void reads_back(struct slab_heap *heap, struct page_job *job, struct slice bytes)
{
    const char *what;
    struct page_job *back = page_job_new(PAGE_READ, job->count);
    back->queue = job->queue;
    back->lane = job->lane;
    assert_int_equal(decode(heap, bytes, back, &what), 0);
    for (uint32_t i = 0; i < job->count; i++)
        assert_true(rig_same_item(&job->items[i], &back->items[i]));
    page_job_free(heap, &job);
    page_job_free(heap, &back);
}

/* As older stores have it. */
static void golden_page(void **state)
{
    (void)state;
    struct slab_heap heap;
    slab_heap_init(&heap);
    reads_back(&heap, golden_job(&heap), slice_of(golden, sizeof golden));
    slab_heap_fini(&heap);
}

static void golden_short_page(void **state)
{
    (void)state;
    struct slab_heap heap;
    size_t len;
    slab_heap_init(&heap);
    struct page_job *two = golden_job(&heap), *job = page_job_new(PAGE_WRITE, 3);
    job->queue = two->queue;
    job->lane = two->lane;
    for (unsigned i = 0; i < 2; i++) {
        job->items[i] = two->items[i];
        two->items[i].msg = NULL;
    }
    page_job_free(&heap, &two);
    struct msg *msg = msg_new(&heap, slice_of(NULL, 0), slice_of(NULL, 0), slice_of("\0\0", 2), 1);
    memcpy(msg_body_room(msg), "x", 1);
    msg->expiration_ms = 1000;
    job->items[2] = (struct page_item){.position = 9 + 257, .deadline = 1700000000000, .msg = msg};
    uint8_t *bytes = encoded(job, &len);
    assert_int_equal(len, PAGE_HEADER + sizeof golden_short);
    assert_memory_equal(bytes, golden, 4);
    assert_int_equal(bytes[17], PAGE_SHORT);
    assert_memory_equal(bytes + PAGE_HEADER, golden_short, sizeof golden_short);
    reads_back(&heap, job, slice_of(bytes, len));
    free(bytes);
    slab_heap_fini(&heap);
}

/* Three that wait for their retry: what is left out; deadline, returns, due, origin; words, lengths, bytes. The second differs by its
 * place, the third by when it is due. */
static const uint8_t golden_retry[] = {
    0x01, 0x81, 0xd0, 0x95, 0xff, 0xbc, 0x31, 0x07, 0xe8, 0x07, 0x05, 0x01, 0x00,
    0x00, 0x00, 0x01, 0x00, 0x01, 'k',  'a',  0x1b, 0x05, 0x09, 0x01, 'b', /* returns, place */
    0x2f, 0xe9, 0x07, 0x01, 'c',                                           /* due */
};

static void golden_retry_page(void **state)
{
    (void)state;
    static const uint64_t origins[] = {5, 9, 10};
    struct slab_heap heap;
    size_t len;
    slab_heap_init(&heap);
    struct page_job *job = page_job_new(PAGE_WRITE, 3);
    for (uint32_t i = 0; i < 3; i++) {
        struct msg *msg = msg_new(&heap, slice_of(NULL, 0), slice_str("k"), slice_of(NULL, 0), 1);
        *msg_body_room(msg) = (uint8_t)('a' + i);
        msg->flags = MSG_PERSISTENT;
        msg->expiration_ms = -1;
        job->items[i] = (struct page_item){.position = 100 + i,
                                           .deadline = 1700000000000,
                                           .returns = i == 0   ? 3
                                                      : i == 1 ? 2
                                                               : 0,
                                           .redelivered = i < 2,
                                           .msg = msg,
                                           .due = i < 2 ? 1000 : 1001,
                                           .origin = origins[i]};
    }
    uint8_t *bytes = encoded(job, &len);
    assert_int_equal(bytes[17], PAGE_RETRY);
    assert_int_equal(len, PAGE_HEADER + sizeof golden_retry);
    assert_memory_equal(bytes + PAGE_HEADER, golden_retry, sizeof golden_retry);
    reads_back(&heap, job, slice_of(bytes, len));
    free(bytes);
    slab_heap_fini(&heap);
}

static void file_header(void **state)
{
    (void)state;
    uint8_t block[LAYOUT_BLOCK];
    struct segment_head head = {.segment = 0x1234, .wall_ms = 1700000000000}, back;
    memcpy(head.uuid, uuid, sizeof uuid);
    segment_head_put(block, &head);
    assert_memory_equal(block, "MRSG\0\1\0\0", 8);
    assert_memory_equal(block + 8, uuid, sizeof uuid);
    assert_memory_equal(block + 24, "\0\0\0\0\0\0\x12\x34", 8);
    for (size_t i = 40; i < LAYOUT_BLOCK - 4; i++)
        assert_int_equal(block[i], 0);
    assert_int_equal(segment_head_get(block, &back), LAYOUT_GOOD);
    assert_memory_equal(&head, &back, sizeof head);
    for (size_t bit = 0; bit < 8u * LAYOUT_BLOCK; bit += bit < 400 ? 1 : 61) {
        block[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_not_equal(segment_head_get(block, &back), LAYOUT_GOOD);
        block[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

/* --------------------------------------------------------------------------------------------------------- round trips */

static void round_trip_of(struct slab_heap *heap, const struct rig_page *page)
{
    const char *what;
    size_t len;
    struct page_job *job = rig_write_job(heap, page), *back = rig_read_job(page);
    uint8_t *bytes = encoded(job, &len);
    back->items[0].position = page->salt % 2 ? page->first : 0; /* known or not */
    int err = decode(heap, slice_of(bytes, len), back, &what);
    if (err)
        fail_msg("salt %lu: %s", (unsigned long)page->salt, what);
    assert_true(rig_is_page(heap, page, back));
    for (uint32_t i = 0; i < page->count; i++)
        assert_int_equal(back->items[i].msg->refs, 1);
    free(bytes);
    page_job_free(heap, &job);
    page_job_free(heap, &back);
}

static void round_trips(void **state)
{
    (void)state;
    struct slab_heap heap;
    slab_heap_init(&heap);
    for (uint64_t salt = 0; salt < 300; salt++) {
        struct rig_page page = {.queue = salt * salt * salt,
                                .lane = (uint8_t)salt,
                                .first = salt % 4 ? salt << salt % 50 : UINT64_MAX - 3 * 40,
                                .count = (uint32_t)(1 + salt % 40),
                                .body_max = salt % 10 ? 300 : 20000,
                                .salt = salt};
        round_trip_of(&heap, &page);
    }
    struct rig_page full = {.first = 1, .count = PAGE_ITEMS_MAX, .salt = 1}, large = full;
    large.count = 1;
    large.body_max = 3u << 20;
    round_trip_of(&heap, &full);
    round_trip_of(&heap, &large);
    slab_heap_fini(&heap);
}

/* A deadline before 1970 is over, whatever it was exactly. */
static void old_deadline(void **state)
{
    (void)state;
    struct slab_heap heap;
    const char *what;
    size_t len;
    slab_heap_init(&heap);
    struct page_job *job = golden_job(&heap), *back = page_job_new(PAGE_READ, 2);
    job->items[0].deadline = -1000;
    uint8_t *bytes = encoded(job, &len);
    back->queue = job->queue;
    back->lane = job->lane;
    assert_int_equal(decode(&heap, slice_of(bytes, len), back, &what), 0);
    assert_int_equal(back->items[0].deadline, 0);
    free(bytes);
    page_job_free(&heap, &job);
    page_job_free(&heap, &back);
    slab_heap_fini(&heap);
}

/* ------------------------------------------------------------------------------------------------------------- refusals */

struct scene {
    struct slab_heap heap;
    struct page_job *job, *back;
    uint8_t *bytes;
    size_t len;
};

static void scene_init(struct scene *s)
{
    slab_heap_init(&s->heap);
    s->job = golden_job(&s->heap);
    s->bytes = encoded(s->job, &s->len);
    s->back = page_job_new(PAGE_READ, 2);
    s->back->queue = s->job->queue;
    s->back->lane = s->job->lane;
}

static void scene_fini(struct scene *s)
{
    free(s->bytes);
    page_job_free(&s->heap, &s->job);
    page_job_free(&s->heap, &s->back);
    slab_heap_fini(&s->heap);
}

static void refused(struct scene *s, struct slice bytes, const char *phrase)
{
    const char *what;
    assert_int_equal(decode(&s->heap, bytes, s->back, &what), -EILSEQ);
    if (phrase && !strstr(what, phrase))
        fail_msg("\"%s\" instead of \"%s\"", what, phrase);
}

static void every_flipped_bit(void **state)
{
    (void)state;
    struct scene s;
    scene_init(&s);
    for (size_t bit = 0; bit < 8 * s.len; bit++) {
        s.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        refused(&s, slice_of(s.bytes, s.len), NULL);
        s.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    const char *what;
    assert_int_equal(decode(&s.heap, slice_of(s.bytes, s.len), s.back, &what), 0);
    scene_fini(&s);
}

/* Each in a block of its own length, so that a sanitizer sees a byte too many. */
static void every_truncation(void **state)
{
    (void)state;
    struct scene s;
    scene_init(&s);
    for (size_t len = 0; len < s.len; len++) {
        uint8_t *cut = malloc(len + !len);
        memcpy(cut, s.bytes, len);
        refused(&s, slice_of(cut, len), NULL);
        free(cut);
    }
    uint8_t *longer = calloc(1, s.len + 1);
    memcpy(longer, s.bytes, s.len);
    refused(&s, slice_of(longer, s.len + 1), "another length");
    free(longer);
    scene_fini(&s);
}

static void another_page(void **state)
{
    (void)state;
    struct scene s;
    const char *what;
    scene_init(&s);
    struct slice bytes = slice_of(s.bytes, s.len);
    s.back->queue++;
    refused(&s, bytes, "another queue");
    s.back->queue--;
    s.back->lane++;
    refused(&s, bytes, "another lane");
    s.back->lane--;
    s.back->items[1].position = 10;
    refused(&s, bytes, "other positions");
    assert_int_equal(s.back->items[1].position, 10); /* the job is as it was */
    s.back->items[1].position = 0;
    s.back->count = 1;
    refused(&s, bytes, "another number");
    s.back->count = 2;
    uint32_t other[] = {page_seed(uuid, SEGMENT + 1, OFFSET), page_seed(uuid, SEGMENT, OFFSET + 4096),
                        page_seed(uuid, SEGMENT, 0)};
    for (unsigned i = 0; i < ARRAY_LEN(other); i++)
        assert_int_equal(page_decode(bytes, other[i], &s.heap, s.back, &what), -EILSEQ);
    scene_fini(&s);
}

static void put32(uint8_t *at, uint32_t v)
{
    v = htobe32(v);
    memcpy(at, &v, sizeof v);
}

static void repair(struct scene *s)
{
    put32(s->bytes + 40, layout_crc(seed(), s->bytes + PAGE_HEADER, s->len - PAGE_HEADER));
    put32(s->bytes + 44, layout_crc(seed(), s->bytes, 44));
}

/* Checksums are no reason to believe anything. */
static void nonsense_with_good_checksums(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
        const char *phrase;
    } rows[] = {
        {17, 2, "form"}, /* two messages without a place in their queue */
        {17, 3, "header is damaged"},
        {19, 1, "header is damaged"},
        {23, 0, "header is damaged"},
        {23, 3, "another number"},
        {22, 0xff, "header is damaged"},
        {31, 10, "says"},
        {39, 8, "says"},
        {38, 0, "says"},
        {48, 0x13, "form"}, /* a bit that nobody knows */
        {48, 0x0b, "form"}, /* words of the message before the first */
        {48, 0x02, ""},     /* a distance of the first */
        {53, 3, ""},
        {56, 5, ""},
        {56, 0xff, "form"},
        {68, 0x05, ""},
        {69, 0, "form"},
        {83, 3, "form"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct scene s;
        scene_init(&s);
        s.bytes[rows[i].at] = rows[i].value;
        repair(&s);
        const char *what;
        int err = decode(&s.heap, slice_of(s.bytes, s.len), s.back, &what);
        if (err != -EILSEQ || !strstr(what, rows[i].phrase))
            fail_msg("row %u: %d, %s", i, err, what ? what : "");
        scene_fini(&s);
    }
}

static void no_memory(void **state)
{
    (void)state;
    struct rig_page page = {.first = 1, .count = 200, .body_max = 20000, .salt = 3};
    struct slab_heap heap;
    const char *what;
    size_t len;
    int err = -ENOMEM;
    slab_heap_init(&heap);
    struct page_job *job = rig_write_job(&heap, &page), *back = rig_read_job(&page);
    uint8_t *bytes = encoded(job, &len);
    for (uint64_t n = 1; err; n++) {
        struct slab_heap fresh;
        slab_heap_init(&fresh);
        mem_fail_at(n, false);
        err = decode(&fresh, slice_of(bytes, len), back, &what);
        mem_fail_at(0, false);
        assert_true(err == 0 || err == -ENOMEM);
        for (uint32_t i = 0; !err && i < back->count; i++)
            msg_unref(&fresh, back->items[i].msg);
        slab_heap_fini(&fresh);
        assert_true(n < 1000);
    }
    memset(back->items, 0, back->count * sizeof back->items[0]);
    free(bytes);
    page_job_free(&heap, &job);
    page_job_free(&heap, &back);
    slab_heap_fini(&heap);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_page),       cmocka_unit_test(golden_short_page),
        cmocka_unit_test(golden_retry_page), cmocka_unit_test(file_header),
        cmocka_unit_test(round_trips),       cmocka_unit_test(old_deadline),
        cmocka_unit_test(every_flipped_bit), cmocka_unit_test(every_truncation),
        cmocka_unit_test(another_page),      cmocka_unit_test(nonsense_with_good_checksums),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
