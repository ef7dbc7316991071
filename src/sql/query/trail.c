/* Trails, see trail.h. The entry that was added last is kept as it was read, so that one that goes on with it takes its place. */
#include "sql/query/trail.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/writer.h"

#include <stdlib.h>
#include <string.h>

#define TRAIL_VERSION 1u
#define VERSION_BYTE (0x80u | TRAIL_VERSION)
#define ENTRY_MAX 24u
#define ROOM_LEAST 256u

void trail_init(struct trail *t, size_t max)
{
    *t = (struct trail){.max = max, .entry = {.kind = TRAIL_KINDS}};
}

void trail_fini(struct trail *t)
{
    mem_free(t->bytes);
    trail_init(t, t->max);
}

void trail_clear(struct trail *t)
{
    t->len = t->last = 0;
    t->entry.kind = TRAIL_KINDS;
}

/* ---------------------------------------------------------------------------------------------------------- writing */

static bool has_offset(enum trail_kind kind)
{
    return kind == TRAIL_RECORDS || kind == TRAIL_PLACE || kind == TRAIL_SNAPSHOT || kind == TRAIL_STREAM ||
           kind == TRAIL_BEGIN;
}

static size_t encode(const struct trail_entry *e, uint8_t *out)
{
    struct writer w = writer_of(out, ENTRY_MAX);
    uint64_t time = (uint64_t)e->time << 1 ^ (uint64_t)(e->time >> 63);
    writer_u8(&w, (uint8_t)(e->kind << 4 | e->source));
    if (e->kind == TRAIL_RECORDS || e->kind == TRAIL_IDLE)
        writer_varint(&w, e->partition);
    if (has_offset(e->kind))
        writer_varint(&w, e->offset);
    if (e->kind == TRAIL_SNAPSHOT)
        writer_varint(&w, e->until);
    if (e->kind == TRAIL_ADVANCE)
        writer_varint(&w, time);
    return w.len;
}

static bool room_for(struct trail *t, size_t len)
{
    if (len > t->max)
        return false;
    if (len <= t->room)
        return true;
    size_t room = t->room ? t->room : ROOM_LEAST;
    while (room < len)
        room *= 2;
    uint8_t *bytes = mem_realloc(t->bytes, room);
    if (!bytes)
        return false;
    t->bytes = bytes;
    t->room = room;
    return true;
}

bool trail_room(struct trail *t, size_t len)
{
    return room_for(t, len < t->max ? len : t->max);
}

/* It says more of what `last` says: that one is not needed any more. Between them nothing happened, so nobody can have seen it. */
static bool goes_on(const struct trail_entry *last, const struct trail_entry *e)
{
    if (last->kind != e->kind)
        return false;
    switch (e->kind) {
    case TRAIL_RECORDS:
    case TRAIL_IDLE: return last->source == e->source && last->partition == e->partition;
    case TRAIL_ADVANCE: return last->source == e->source && e->time >= last->time;
    case TRAIL_STREAM: return last->source == e->source;
    default: return true;
    }
}

bool trail_add(struct trail *t, const struct trail_entry *entry)
{
    uint8_t bytes[ENTRY_MAX];
    size_t len = encode(entry, bytes);
    CHECK(entry->kind < TRAIL_KINDS && entry->source < TRAIL_SOURCES_MAX);
    bool begins = !t->len || entry->kind == TRAIL_SNAPSHOT;
    size_t at = begins ? 1 : goes_on(&t->entry, entry) ? t->last : t->len;
    if (!room_for(t, at + len))
        return false;
    t->bytes[0] = VERSION_BYTE;
    memcpy(t->bytes + at, bytes, len);
    t->last = at;
    t->len = at + len;
    t->entry = *entry;
    return true;
}

bool trail_append(struct trail *t, struct slice bytes, bool *ret_damaged)
{
    struct trail_reader r;
    struct trail_entry e;
    bool ok = true;
    trail_read_begin(&r, bytes);
    while (ok && trail_read(&r, &e))
        ok = trail_add(t, &e);
    *ret_damaged = ok && !trail_read_ok(&r);
    return ok && !*ret_damaged;
}

struct flat {
    struct trail_entry entry;
    size_t at; /* which one of the trail */
};

/* The first PLACE ends a beginning, so it comes last. */
static int flat_rank(enum trail_kind kind)
{
    return kind == TRAIL_STREAM ? 0 : kind == TRAIL_RECORDS ? 1 : 2;
}

static int flat_order(const void *a, const void *b)
{
    const struct flat *x = a, *y = b;
    uint64_t p = (uint64_t)x->entry.source << 32 | x->entry.partition;
    uint64_t q = (uint64_t)y->entry.source << 32 | y->entry.partition;
    if (x->entry.kind != y->entry.kind)
        return flat_rank(x->entry.kind) - flat_rank(y->entry.kind);
    return p != q ? (p > q) - (p < q) : (x->at > y->at) - (x->at < y->at);
}

bool trail_flatten(struct trail *t)
{
    struct flat *all = mem_alloc((t->len + 1) / 2 * sizeof *all + 1); /* an entry has two bytes at least */
    struct trail_reader r;
    size_t count = 0;
    if (!all)
        return false;
    trail_read_begin(&r, trail_bytes(t));
    for (struct trail_entry e; trail_read(&r, &e);)
        if (e.kind == TRAIL_RECORDS || e.kind == TRAIL_PLACE || e.kind == TRAIL_STREAM) {
            all[count] = (struct flat){.entry = e, .at = count};
            count++;
        }
    qsort(all, count, sizeof *all, flat_order);
    trail_clear(t);
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) /* of those of a partition the last one stays */
        ok = trail_add(t, &all[i].entry);
    CHECK(ok); /* it is no longer than it was */
    mem_free(all);
    return true;
}

/* ---------------------------------------------------------------------------------------------------------- reading */

void trail_read_begin(struct trail_reader *r, struct slice bytes)
{
    *r = (struct trail_reader){.bytes = reader_of(bytes)};
}

static uint32_t partition_next(struct reader *r)
{
    uint64_t partition = reader_varint(r);
    if (partition > UINT32_MAX)
        reader_fail(r);
    return (uint32_t)partition;
}

bool trail_read(struct trail_reader *r, struct trail_entry *ret)
{
    struct reader *b = &r->bytes;
    struct trail_entry e = {.kind = TRAIL_KINDS};
    if (!b->left)
        return false;
    uint8_t head = reader_u8(b);
    while (head == VERSION_BYTE && b->left) {
        r->begun = true;
        head = reader_u8(b);
    }
    e.kind = (enum trail_kind)(head >> 4);
    e.source = head & 0x0f;
    if (!r->begun || e.kind >= TRAIL_KINDS)
        reader_fail(b);
    if (e.kind == TRAIL_RECORDS || e.kind == TRAIL_IDLE)
        e.partition = partition_next(b);
    if (has_offset(e.kind))
        e.offset = reader_varint(b);
    if (e.kind == TRAIL_SNAPSHOT)
        e.until = reader_varint(b);
    if (e.kind == TRAIL_ADVANCE) {
        uint64_t time = reader_varint(b);
        e.time = (int64_t)(time >> 1 ^ (0 - (time & 1)));
    }
    if (!reader_ok(b))
        return false;
    *ret = e;
    return true;
}

bool trail_read_ok(const struct trail_reader *r)
{
    return reader_done(&r->bytes);
}
