/* The one place that knows the bytes of segment files by offset; docs/formats/segments.md is its text, page_format_test.c
 * holds both to a golden page. Any thread.
 *
 * A page has two CRCs that go on from a seed of store, segment and offset: the header's, so that a walk over a file can
 * believe a length before it has the body, and the body's. Behind good CRCs every field is still checked as if an enemy
 * had written it: positions ascend strictly from the header's first to its last, lengths fit, nothing is left over.
 */
#include "store/page_format.h"

#include "base/check.h"

#include <errno.h>

#define MAGIC_SEGMENT 0x4d525347u /* MRSG */
#define MAGIC_PAGE 0x4d525047u    /* MRPG */

#define PAGE_CRC_AT 44u
/* Of an empty message in its shortest, by form of the page. */
#define ITEM_BYTES_MIN(form) ((form) == PAGE_FULL ? 10u : 2u)

/* What a message of a short page does not say. */
enum left_out {
    OUT_DISTANCE = 1, /* it is 1 (of the first: 0) */
    OUT_DEADLINE = 2, /* that of the message before (of the first: none) */
    OUT_RETURNS = 4,  /* none, not redelivered */
    OUT_WORDS = 8,    /* flags, priority, expiration, exchange, key and properties: those of the message before */
    OUT_ALL = 15,
    /* and of one that waits for its retry: */
    OUT_DUE = 16,    /* that of the message before (of the first: 0) */
    OUT_ORIGIN = 32, /* the one behind that of the message before (of the first: 1) */
    OUT_ALL_RETRY = 63
};

/* ---------------------------------------------------------------------------------------------------- the file's header */

void segment_head_put(uint8_t block[LAYOUT_BLOCK], const struct segment_head *head)
{
    struct writer w = layout_block_begin(block, MAGIC_SEGMENT, 0, head->uuid);
    writer_u64(&w, head->segment);
    writer_u64(&w, (uint64_t)head->wall_ms);
    CHECK(w.len == 40);
    layout_block_end(block, &w);
}

enum layout_verdict segment_head_get(const uint8_t block[LAYOUT_BLOCK], struct segment_head *ret)
{
    struct reader r;
    uint16_t flags;
    uint32_t crc;
    struct segment_head head = {0};
    enum layout_verdict verdict = layout_block_open(block, MAGIC_SEGMENT, &r, &flags, head.uuid, &crc);
    if (verdict != LAYOUT_GOOD)
        return verdict;
    uint64_t number = reader_u64(&r);
    head.wall_ms = (wall_t)reader_u64(&r);
    if (!reader_ok(&r) || number == 0 || number > UINT32_MAX)
        return LAYOUT_DAMAGED;
    head.segment = (uint32_t)number;
    *ret = head;
    return LAYOUT_GOOD;
}

uint32_t page_seed(const uint8_t uuid[LAYOUT_UUID_LEN], uint32_t segment, uint32_t offset)
{
    return layout_seed(uuid, segment, offset);
}

/* ------------------------------------------------------------------------------------------------------------- encoding */

/* What an item says about itself, in the numbers of the format. */
static uint64_t deadline_field(const struct page_item *item)
{
    if (item->deadline == WALL_NEVER)
        return 0;
    return item->deadline < 0 ? 1 : (uint64_t)item->deadline + 1; /* before 1970 is as over as 1970 */
}

static uint64_t returns_field(const struct page_item *item)
{
    return (uint64_t)item->returns << 1 | item->redelivered;
}

static uint64_t expiration_field(const struct msg *msg)
{
    return msg->expiration_ms < 0 ? 0 : (uint64_t)msg->expiration_ms + 1;
}

static size_t message_bytes(const struct msg *msg)
{
    return (size_t)msg->exchange_len + msg->key_len + msg->props_len + msg->body_len;
}

static unsigned varint_len(uint64_t v)
{
    unsigned n = 1;
    while (v >>= 7)
        n++;
    return n;
}

static const struct page_item *item_before(const struct page_job *job, uint32_t i)
{
    return i ? &job->items[i - 1] : NULL;
}

/* Exchange, key and properties lie in this order in front of the body. */
static bool same_words(const struct msg *a, const struct msg *b)
{
    return a->exchange_len == b->exchange_len && a->key_len == b->key_len && a->props_len == b->props_len &&
           a->flags == b->flags && a->priority == b->priority && a->expiration_ms == b->expiration_ms &&
           memcmp(a->bytes, b->bytes, (size_t)a->exchange_len + a->key_len + a->props_len) == 0;
}

static uint8_t form_of(const struct page_job *job)
{
    return job->items[0].origin ? PAGE_RETRY : PAGE_SHORT;
}

static uint64_t due_field(const struct page_item *item)
{
    return item->due < 0 ? 0 : (uint64_t)item->due;
}

/* Of one that waits for its retry. */
static uint8_t left_out_retry(const struct page_item *item, const struct page_item *before)
{
    uint8_t out = 0;
    if (due_field(item) == (before ? due_field(before) : 0))
        out |= OUT_DUE;
    if (item->origin == (before ? before->origin + 1 : 1))
        out |= OUT_ORIGIN;
    return out;
}

static uint8_t left_out(const struct page_item *item, const struct page_item *before)
{
    uint8_t out = 0;
    if (!before || item->position - before->position == 1)
        out |= OUT_DISTANCE;
    if (deadline_field(item) == (before ? deadline_field(before) : 0))
        out |= OUT_DEADLINE;
    if (returns_field(item) == 0)
        out |= OUT_RETURNS;
    if (before && same_words(item->msg, before->msg))
        out |= OUT_WORDS;
    if (item->origin)
        out |= left_out_retry(item, before);
    return out;
}

uint64_t page_len(const struct page_job *job)
{
    uint64_t len = PAGE_HEADER;
    for (uint32_t i = 0; i < job->count; i++) {
        const struct page_item *item = &job->items[i], *before = item_before(job, i);
        const struct msg *msg = item->msg;
        uint8_t out = left_out(item, before);
        len += 1 + varint_len(msg->body_len) + msg->body_len;
        if (!(out & OUT_DISTANCE))
            len += varint_len(item->position - before->position);
        if (!(out & OUT_DEADLINE))
            len += varint_len(deadline_field(item));
        if (!(out & OUT_RETURNS))
            len += varint_len(returns_field(item));
        if (item->origin && !(out & OUT_DUE))
            len += varint_len(due_field(item));
        if (item->origin && !(out & OUT_ORIGIN))
            len += varint_len(item->origin);
        if (!(out & OUT_WORDS))
            len +=
                4 + varint_len(expiration_field(msg)) + varint_len(msg->props_len) + message_bytes(msg) - msg->body_len;
    }
    return len;
}

/* All but the bytes of the message; returns how many of those are left out too. */
static size_t put_item_head(struct writer *w, const struct page_item *item, const struct page_item *before)
{
    const struct msg *msg = item->msg;
    uint8_t out = left_out(item, before);
    writer_u8(w, out);
    if (!(out & OUT_DISTANCE))
        writer_varint(w, item->position - before->position);
    if (!(out & OUT_DEADLINE))
        writer_varint(w, deadline_field(item));
    if (!(out & OUT_RETURNS))
        writer_varint(w, returns_field(item));
    if (item->origin && !(out & OUT_DUE))
        writer_varint(w, due_field(item));
    if (item->origin && !(out & OUT_ORIGIN))
        writer_varint(w, item->origin);
    if (!(out & OUT_WORDS)) {
        writer_u8(w, msg->flags);
        writer_u8(w, msg->priority);
        writer_varint(w, expiration_field(msg));
        writer_u8(w, msg->exchange_len);
        writer_u8(w, msg->key_len);
        writer_varint(w, msg->props_len);
    }
    writer_varint(w, msg->body_len);
    return out & OUT_WORDS ? message_bytes(msg) - msg->body_len : 0;
}

static void put_head(const struct page_job *job, uint32_t seed, size_t body_len, uint32_t body_crc, uint8_t *ret)
{
    struct writer w = writer_of(ret, PAGE_HEADER);
    writer_u32(&w, MAGIC_PAGE);
    writer_u32(&w, (uint32_t)body_len);
    writer_u64(&w, job->queue);
    writer_u8(&w, job->lane);
    writer_u8(&w, form_of(job));
    writer_u16(&w, 0);
    writer_u32(&w, job->count);
    writer_u64(&w, job->items[0].position);
    writer_u64(&w, job->items[job->count - 1].position);
    writer_u32(&w, body_crc);
    CHECK(w.len == PAGE_CRC_AT);
    writer_u32(&w, layout_crc(seed, ret, PAGE_CRC_AT));
    CHECK(writer_ok(&w) && w.len == PAGE_HEADER);
}

size_t page_encode_head(const struct page_job *job, uint32_t seed, uint8_t ret[PAGE_HEAD_MAX])
{
    CHECK(job->count == 1);
    const struct msg *msg = job->items[0].msg;
    struct writer body = writer_of(ret + PAGE_HEADER, PAGE_HEAD_MAX - PAGE_HEADER);
    CHECK(put_item_head(&body, &job->items[0], NULL) == 0);
    CHECK(writer_ok(&body));
    uint32_t crc = layout_crc(layout_crc(seed, body.base, body.len), msg->bytes, message_bytes(msg));
    put_head(job, seed, body.len + message_bytes(msg), crc, ret);
    return PAGE_HEADER + body.len;
}

void page_encode(const struct page_job *job, uint32_t seed, uint8_t *ret, size_t len)
{
    CHECK(job->count && job->count <= PAGE_ITEMS_MAX && len > PAGE_HEADER && len <= PAGE_LEN_MAX);
    struct writer body = writer_of(ret + PAGE_HEADER, len - PAGE_HEADER);
    for (uint32_t i = 0; i < job->count; i++) {
        CHECK(i == 0 || job->items[i].position > job->items[i - 1].position);
        CHECK((job->items[i].origin != 0) == (job->items[0].origin != 0));
        const struct msg *msg = job->items[i].msg;
        size_t skip = put_item_head(&body, &job->items[i], item_before(job, i));
        writer_put(&body, msg->bytes + skip, message_bytes(msg) - skip); /* names, properties, body */
    }
    CHECK(writer_ok(&body) && body.len == len - PAGE_HEADER);
    put_head(job, seed, body.len, layout_crc(seed, body.base, body.len), ret);
}

/* ------------------------------------------------------------------------------------------------------------- decoding */

enum layout_verdict page_head_get(const uint8_t *bytes, uint32_t seed, struct page_head *ret)
{
    struct reader r = reader_of(slice_of(bytes, PAGE_HEADER));
    if (reader_u32(&r) != MAGIC_PAGE)
        return LAYOUT_NOT_OURS;
    struct page_head head = {.body_len = reader_u32(&r)};
    head.queue = reader_u64(&r);
    head.lane = reader_u8(&r);
    head.form = reader_u8(&r);
    bool zero = reader_u16(&r) == 0 && head.form <= PAGE_RETRY;
    head.count = reader_u32(&r);
    head.first = reader_u64(&r);
    head.last = reader_u64(&r);
    head.body_crc = reader_u32(&r);
    if (reader_u32(&r) != layout_crc(seed, bytes, PAGE_CRC_AT) || !reader_done(&r))
        return LAYOUT_DAMAGED;
    bool count_fits =
        head.count && head.count <= PAGE_ITEMS_MAX && head.count <= head.body_len / ITEM_BYTES_MIN(head.form);
    if (!zero || !count_fits || head.body_len > PAGE_LEN_MAX - PAGE_HEADER || head.last < head.first)
        return LAYOUT_DAMAGED;
    *ret = head;
    return LAYOUT_GOOD;
}

/* What a body says of a message. */
struct item_head {
    uint64_t position;
    struct slice exchange, key, props, body;
    uint64_t deadline; /* as written */
    uint64_t due, origin;
    struct msg lengths; /* and flags; last, for clang has its own mind about where such a struct may be */
};

static bool words_parse(struct reader *r, struct item_head *ret)
{
    uint8_t flags = reader_u8(r), priority = reader_u8(r);
    uint64_t expiration = reader_varint(r);
    uint8_t exchange_len = reader_u8(r), key_len = reader_u8(r);
    uint64_t props_len = reader_varint(r);
    ret->lengths = (struct msg){.exchange_len = exchange_len,
                                .key_len = key_len,
                                .props_len = (uint32_t)props_len,
                                .flags = flags,
                                .priority = priority,
                                .expiration_ms = (int64_t)(expiration - 1)};
    return reader_ok(r) && expiration <= (uint64_t)INT64_MAX + 1 && props_len <= UINT32_MAX;
}

static bool retry_parse(struct reader *r, uint8_t out, struct item_head *at)
{
    at->origin++;
    if (!(out & OUT_DUE))
        at->due = reader_varint(r);
    if (!(out & OUT_ORIGIN))
        at->origin = reader_varint(r);
    return reader_ok(r) && at->due <= INT64_MAX && at->origin;
}

/* *at: the message before, or zero; then this one, and *ret without its message. False: these are no such bytes. (*ret is where it stays:
 * a copy of what was just written in other widths has to wait for every store before it, among them those of a cold body.) */
static bool item_parse(struct reader *r, uint8_t form, bool first, struct item_head *at, struct page_item *ret)
{
    uint8_t out = form == PAGE_FULL ? 0 : reader_u8(r), all = form == PAGE_RETRY ? OUT_ALL_RETRY : OUT_ALL;
    bool words_there = !(out & OUT_WORDS), distance_there = !(out & OUT_DISTANCE);
    uint64_t distance = distance_there ? reader_varint(r) : !first;
    uint64_t deadline = at->deadline, returns = 0;
    if (!(out & OUT_DEADLINE))
        deadline = reader_varint(r);
    if (!(out & OUT_RETURNS))
        returns = reader_varint(r);
    if (form == PAGE_RETRY && !retry_parse(r, out, at))
        return false;
    if (words_there ? !words_parse(r, at) : first)
        return false;
    uint64_t body_len = reader_varint(r);
    if (words_there) {
        at->exchange = reader_take(r, at->lengths.exchange_len);
        at->key = reader_take(r, at->lengths.key_len);
        at->props = reader_take(r, at->lengths.props_len);
    }
    at->body = reader_take(r, body_len);
    at->lengths.body_len = (uint32_t)body_len;
    uint64_t before = at->position;
    bool ascends = first ? distance == 0 : distance > 0 && distance <= UINT64_MAX - before;
    if (!reader_ok(r) || out & ~all || !ascends || deadline > INT64_MAX || returns >> 1 > UINT32_MAX)
        return false;
    at->deadline = deadline;
    at->position = before + distance;
    *ret = (struct page_item){.position = at->position,
                              .deadline = deadline ? (wall_t)(deadline - 1) : WALL_NEVER,
                              .returns = (uint32_t)(returns >> 1),
                              .redelivered = returns & 1,
                              .due = (wall_t)at->due,
                              .origin = at->origin};
    return true;
}

/* NULL: no memory. */
static struct msg *item_message(const struct item_head *at, struct slab_heap *mine)
{
    struct msg *msg = msg_new(mine, at->exchange, at->key, at->props, at->body.len);
    if (!msg)
        return NULL;
    msg->flags = at->lengths.flags;
    msg->priority = at->lengths.priority;
    msg->expiration_ms = at->lengths.expiration_ms;
    if (at->body.len)
        memcpy(msg_body_room(msg), at->body.ptr, at->body.len);
    return msg;
}

static const char *items_read(struct slice bytes, const struct page_head *head, struct slab_heap *mine,
                              struct page_item *items, bool *ret_no_memory)
{
    struct reader r = reader_of(bytes);
    struct item_head at = {.position = head->first};
    for (uint32_t i = 0; i < head->count; i++) {
        if (!item_parse(&r, head->form, i == 0, &at, &items[i]))
            return "a message in it has no valid form";
        items[i].msg = item_message(&at, mine);
        if (!items[i].msg) {
            *ret_no_memory = true;
            return "no memory";
        }
    }
    if (!reader_done(&r))
        return "there are bytes behind its messages";
    return at.position == head->last ? NULL : "it does not end at the position that its header says";
}

/* Is this the page that was asked for? first, last: 0 when not known. */
static const char *wrong_page(const struct page_head *head, const struct page_job *job)
{
    uint64_t first = job->items[0].position, last = job->items[job->count - 1].position;
    if (head->queue != job->queue)
        return "it belongs to another queue";
    if (head->lane != job->lane)
        return "it belongs to another lane of the queue";
    if (head->count != job->count)
        return "it holds another number of messages";
    if ((first && head->first != first) || (last && head->last != last))
        return "it holds other positions";
    return NULL;
}

static const char *page_damage(struct slice bytes, uint32_t seed, const struct page_job *job, struct page_head *ret)
{
    if (bytes.len < PAGE_HEADER || bytes.len > PAGE_LEN_MAX)
        return "no page has that length";
    switch (page_head_get(bytes.ptr, seed, ret)) {
    case LAYOUT_GOOD: break;
    case LAYOUT_NOT_OURS: return "there is no page";
    default: return "the page's header is damaged";
    }
    if (ret->body_len != bytes.len - PAGE_HEADER)
        return "the page has another length";
    const char *wrong = wrong_page(ret, job);
    if (wrong)
        return wrong;
    if (layout_crc(seed, bytes.ptr + PAGE_HEADER, ret->body_len) != ret->body_crc)
        return "the page's messages are damaged";
    return NULL;
}

int page_decode(struct slice bytes, uint32_t seed, struct slab_heap *mine, struct page_job *job, const char **ret_what)
{
    CHECK(job->count && job->count <= PAGE_ITEMS_MAX);
    struct page_head head;
    bool no_memory = false;
    uint64_t first = job->items[0].position, last = job->items[job->count - 1].position;
    const char *what = page_damage(bytes, seed, job, &head);
    if (!what)
        what = items_read(slice_of(bytes.ptr + PAGE_HEADER, head.body_len), &head, mine, job->items, &no_memory);
    if (!what)
        return 0;
    for (uint32_t i = 0; i < job->count; i++)
        if (job->items[i].msg)
            msg_unref(mine, job->items[i].msg);
    memset(job->items, 0, job->count * sizeof job->items[0]);
    job->items[0].position = first;
    job->items[job->count - 1].position = last;
    *ret_what = no_memory ? "no memory" : what;
    return no_memory ? -ENOMEM : -EILSEQ;
}

int page_decode_one(uint8_t **block, size_t len, uint32_t seed, struct page_job *job, const char **ret_what)
{
    CHECK(job->count == 1);
    struct page_head head;
    struct item_head one = {0};
    *ret_what = page_damage(slice_of(*block, len), seed, job, &head);
    if (*ret_what)
        return -EILSEQ;
    struct reader r = reader_of(slice_of(*block + PAGE_HEADER, head.body_len));
    *ret_what = "the message in it has no valid form";
    one.position = head.first;
    struct page_item item;
    if (!item_parse(&r, head.form, true, &one, &item) || !reader_done(&r) || head.last != head.first)
        return -EILSEQ;
    *ret_what = "no memory";
    struct msg *msg = msg_adopt(MEM_STORE, *block, len - message_bytes(&one.lengths), &one.lengths);
    if (!msg)
        return -ENOMEM;
    *block = NULL;
    job->items[0] = item;
    job->items[0].msg = msg;
    return 0;
}
