/* Open addressing with backward-shift deletion over pointers to entries, see table.h. */
#include "sql/query/table.h"

#include "base/check.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

void table_init(struct table *t, struct account *account, uint32_t payload)
{
    *t = (struct table){.account = account, .payload = payload};
}

static size_t entry_len(const struct entry *e)
{
    return sizeof *e + e->payload + e->key_len;
}

static void entry_free(struct table *t, struct entry *e)
{
    if (t->pieces)
        pieces_give(t->pieces, e, entry_len(e));
    else
        account_give(t->account, e, entry_len(e));
}

void table_fini(struct table *t)
{
    for (struct entry *e = t->first; e;) {
        struct entry *next = e->newer;
        entry_free(t, e);
        e = next;
    }
    if (t->slots)
        account_give(t->account, t->slots, ((size_t)t->mask + 1) * sizeof *t->slots);
    *t = (struct table){.account = t->account, .pieces = t->pieces, .payload = t->payload};
}

uint64_t key_hash(struct slice key, uint64_t seed)
{
    return XXH3_64bits_withSeed(key.ptr, key.len, seed);
}

struct entry *table_find(const struct table *t, struct slice key, uint64_t hash)
{
    if (!t->slots)
        return NULL;
    for (uint32_t i = (uint32_t)hash & t->mask; t->slots[i]; i = (i + 1) & t->mask)
        if (t->slots[i]->hash == hash && slice_equal(entry_key(t->slots[i]), key))
            return t->slots[i];
    return NULL;
}

static void place(struct table *t, struct entry *e)
{
    uint32_t i = (uint32_t)e->hash & t->mask;
    while (t->slots[i])
        i = (i + 1) & t->mask;
    t->slots[i] = e;
}

static bool grow(struct table *t)
{
    uint32_t places = t->slots ? t->mask + 1 : 0, more = places ? 2 * places : 16;
    if (t->count + 1 <= places / 4 * 3)
        return true;
    struct entry **slots = more > places ? account_take(t->account, (size_t)more * sizeof *slots) : NULL;
    if (!slots)
        return false;
    memset(slots, 0, (size_t)more * sizeof *slots);
    if (places)
        account_give(t->account, t->slots, (size_t)places * sizeof *slots);
    t->slots = slots;
    t->mask = more - 1;
    for (struct entry *e = t->first; e; e = e->newer)
        place(t, e);
    return true;
}

struct entry *table_add(struct table *t, struct slice key, uint64_t hash)
{
    size_t len = sizeof(struct entry) + t->payload + key.len;
    struct entry *e = !grow(t) ? NULL : t->pieces ? pieces_take(t->pieces, len) : account_take(t->account, len);
    if (!e)
        return NULL;
    *e = (struct entry){.older = t->last, .hash = hash, .key_len = (uint32_t)key.len, .payload = t->payload};
    memset(e->bytes, 0, t->payload);
    if (key.len)
        memcpy(e->bytes + t->payload, key.ptr, key.len);
    *(t->last ? &t->last->newer : &t->first) = e;
    t->last = e;
    t->count++;
    place(t, e);
    return e;
}

void table_remove(struct table *t, struct entry *e)
{
    uint32_t i = (uint32_t)e->hash & t->mask;
    while (t->slots[i] != e)
        i = (i + 1) & t->mask;
    for (uint32_t k = (i + 1) & t->mask; t->slots[k]; k = (k + 1) & t->mask) {
        uint32_t home = (uint32_t)t->slots[k]->hash & t->mask;
        if (((k - home) & t->mask) >= ((k - i) & t->mask)) {
            t->slots[i] = t->slots[k];
            i = k;
        }
    }
    t->slots[i] = NULL;
    *(e->older ? &e->older->newer : &t->first) = e->newer;
    *(e->newer ? &e->newer->older : &t->last) = e->older;
    t->count--;
    entry_free(t, e);
}

/* ------------------------------------------------------------------------------------------------------------- keys */

/* A byte that says whether there is a value, then the value; a text has its length before it. */
static size_t value_size(const struct column *c, uint32_t row)
{
    if (column_null(c, row))
        return 1;
    if (c->form != FORM_TEXT)
        return 1 + form_size(c->form);
    return 1 + sizeof(uint64_t) + ((const struct slice *)c->values)[row & column_mask(c)].len;
}

static uint8_t *put_value(uint8_t *out, const struct column *c, uint32_t row)
{
    bool null = column_null(c, row);
    *out++ = !null;
    if (null)
        return out;
    size_t size = form_size(c->form);
    const uint8_t *value = (const uint8_t *)c->values + (row & column_mask(c)) * size;
    if (c->form == FORM_TEXT) {
        struct slice text;
        memcpy(&text, value, sizeof text);
        uint64_t len = text.len;
        memcpy(out, &len, sizeof len);
        if (len)
            memcpy(out + sizeof len, text.ptr, len);
        return out + sizeof len + len;
    }
    memcpy(out, value, size);
    if (c->form == FORM_F64) {
        double d;
        memcpy(&d, value, sizeof d);
        d = d == 0 ? 0 : d != d ? __builtin_nan("") : d;
        memcpy(out, &d, sizeof d);
    }
    return out + size;
}

bool key_of_row(struct arena *arena, const struct column *columns, uint32_t count, uint32_t row, struct slice *ret,
                enum sql_fault *ret_fault)
{
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++)
        size += value_size(&columns[i], row);
    uint8_t *at = size <= KEY_MAX ? arena_take(arena, size) : NULL, *end = at;
    *ret_fault = size > KEY_MAX ? SQL_FAULT_LIMIT : SQL_FAULT_MEMORY;
    if (!at)
        return false;
    for (uint32_t i = 0; i < count; i++)
        end = put_value(end, &columns[i], row);
    CHECK((size_t)(end - at) == size);
    *ret = slice_of(at, size);
    return true;
}

const void *key_value(enum sql_form form, const uint8_t **at, void *room)
{
    bool there = *(*at)++;
    if (!there)
        return NULL;
    if (form == FORM_TEXT) {
        uint64_t len;
        memcpy(&len, *at, sizeof len);
        struct slice text = slice_of(*at + sizeof len, len);
        memcpy(room, &text, sizeof text);
        *at += sizeof len + len;
        return room;
    }
    memcpy(room, *at, form_size(form));
    *at += form_size(form);
    return room;
}

static bool value_ok(enum sql_form form, struct slice *left)
{
    uint64_t size = form_size(form);
    if (!left->len)
        return false;
    bool there = left->ptr[0];
    *left = slice_of(left->ptr + 1, left->len - 1);
    if (there && form == FORM_TEXT) {
        if (left->len < sizeof size)
            return false;
        memcpy(&size, left->ptr, sizeof size);
        *left = slice_of(left->ptr + sizeof size, left->len - sizeof size);
    }
    if (there && size > left->len)
        return false;
    if (there)
        *left = slice_of(left->ptr + size, left->len - size);
    return true;
}

bool key_load(struct arena *arena, const struct sql_type *types, uint32_t count, struct state_reader *r,
              struct slice *ret)
{
    size_t len = state_get_len(r, KEY_MAX);
    uint8_t *at = r->failed ? NULL : arena_take(arena, len);
    if (!at)
        return false;
    state_get(r, at, len);
    struct slice left = slice_of(at, len);
    for (uint32_t i = 0; i < count && !r->failed; i++)
        r->failed = !value_ok(type_form(types[i].kind), &left);
    r->failed |= left.len > 0;
    *ret = slice_of(at, len);
    return !r->failed;
}
