/* Rows in pieces of memory, see kept.h. */
#include "sql/query/kept.h"

#include "base/mem.h"

bool kept_layout_init(struct kept_layout *l, const uint32_t *columns, const struct sql_type *types, uint32_t count)
{
    *l = (struct kept_layout){.count = count, .columns = columns};
    l->forms = mem_alloc((count + 1) * sizeof *l->forms);
    l->offsets = mem_alloc((count + 1) * sizeof *l->offsets);
    if (!l->forms || !l->offsets)
        return false;
    l->fixed = (count + 7) / 8;
    for (uint32_t i = 0; i < count; i++) {
        l->forms[i] = type_form(types[i].kind);
        uint32_t size = (uint32_t)form_size(l->forms[i]);
        l->fixed = (l->fixed + size - 1) / size * size; /* sizes are powers of two, and what they are aligned to */
        l->offsets[i] = l->fixed;
        l->fixed += size;
    }
    return true;
}

void kept_layout_fini(struct kept_layout *l)
{
    mem_free(l->forms);
    mem_free(l->offsets);
    *l = (struct kept_layout){0};
}

void kept_give(struct pieces *pieces, struct kept *row)
{
    pieces_give(pieces, row, row->len);
}

static struct slice text_at(const struct column *c, uint32_t row)
{
    return ((const struct slice *)c->values)[row & column_mask(c)];
}

/* Rows without their values. lens: of their texts. */
static bool take_rows(const struct kept_layout *l, struct pieces *pieces, const size_t *lens, uint32_t count,
                      struct kept **ret)
{
    for (uint32_t k = 0; k < count; k++) {
        size_t len = sizeof(struct kept) + l->fixed + lens[k];
        ret[k] = len <= UINT32_MAX ? pieces_take(pieces, len) : NULL;
        if (!ret[k]) {
            while (k-- > 0)
                kept_give(pieces, ret[k]);
            return false;
        }
        memset(ret[k], 0, sizeof **ret + l->fixed);
        ret[k]->len = (uint32_t)len;
    }
    return true;
}

static void put_texts(const struct column *c, const uint16_t *rows, uint32_t count, uint32_t offset, size_t *ends,
                      struct kept **to)
{
    for (uint32_t k = 0; k < count; k++) {
        if (column_null(c, rows[k]))
            continue;
        struct slice text = text_at(c, rows[k]);
        uint8_t *at = to[k]->bytes + ends[k];
        if (text.len)
            memcpy(at, text.ptr, text.len);
        ends[k] += text.len;
        text.ptr = at;
        memcpy(to[k]->bytes + offset, &text, sizeof text);
    }
}

#define PUT(type)                                                                                                      \
    for (uint32_t k = 0; k < count; k++)                                                                               \
        if (!column_null(c, rows[k]))                                                                                  \
    *(type *)(void *)(to[k]->bytes + offset) = ((const type *)c->values)[rows[k] & column_mask(c)]

static void put_values(enum sql_form form, const struct column *c, const uint16_t *rows, uint32_t count,
                       uint32_t offset, struct kept **to)
{
    switch (form) {
    case FORM_BOOL: PUT(uint8_t); break;
    case FORM_I64: PUT(int64_t); break;
    case FORM_F64: PUT(double); break;
    case FORM_I128: PUT(decimal_t); break;
    default: PUT(struct interval); break;
    }
}

bool kept_copy(const struct kept_layout *l, struct pieces *pieces, const struct batch *b, const uint16_t *rows,
               uint32_t count, struct kept **ret)
{
    size_t *lens = arena_take(b->arena, (count + 1) * sizeof *lens);
    if (!lens)
        return false;
    memset(lens, 0, (count + 1) * sizeof *lens);
    for (uint32_t i = 0; i < l->count; i++) {
        const struct column *c = &b->columns[l->columns[i]];
        for (uint32_t k = 0; l->forms[i] == FORM_TEXT && k < count; k++)
            lens[k] += column_null(c, rows[k]) ? 0 : text_at(c, rows[k]).len;
    }
    if (!take_rows(l, pieces, lens, count, ret))
        return false;
    for (uint32_t k = 0; k < count; k++)
        lens[k] = l->fixed;
    for (uint32_t i = 0; i < l->count; i++) {
        const struct column *c = &b->columns[l->columns[i]];
        if (l->forms[i] == FORM_TEXT)
            put_texts(c, rows, count, l->offsets[i], lens, ret);
        else
            put_values(l->forms[i], c, rows, count, l->offsets[i], ret);
        for (uint32_t k = 0; c->nulls && k < count; k++)
            ret[k]->bytes[i / 8] |= (uint8_t)(column_null(c, rows[k]) << (i % 8));
    }
    return true;
}

bool kept_same(const struct kept_layout *l, const struct kept *a, const struct kept *b)
{
    if (memcmp(a->bytes, b->bytes, (l->count + 7) / 8) != 0)
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        const void *x = kept_value(l, a, i), *y = kept_value(l, b, i);
        bool same = kept_null(a, i) ||
                    (l->forms[i] == FORM_TEXT ? slice_equal(*(const struct slice *)x, *(const struct slice *)y)
                                              : memcmp(x, y, form_size(l->forms[i])) == 0);
        if (!same)
            return false;
    }
    return true;
}

#define GATHER(type)                                                                                                   \
    for (uint32_t k = 0; k < count; k++)                                                                               \
        if (!bit_at(nulls, k))                                                                                         \
    ((type *)values)[k] = *(const type *)kept_value(l, rows[k], i)

bool kept_gather(const struct kept_layout *l, uint32_t i, struct kept *const *rows, uint32_t count, struct arena *arena,
                 struct column *ret)
{
    enum sql_form form = l->forms[i];
    uint64_t *nulls = arena_take(arena, bits_size(count));
    void *values = arena_take(arena, count * form_size(form));
    bool any = false;
    if (!nulls || !values)
        return false;
    memset(nulls, 0, bits_size(count));
    for (uint32_t k = 0; k < count; k++)
        if (!rows[k] || kept_null(rows[k], i)) {
            bit_set(nulls, k);
            any = true;
        }
    switch (form) {
    case FORM_BOOL: GATHER(uint8_t); break;
    case FORM_I64: GATHER(int64_t); break;
    case FORM_F64: GATHER(double); break;
    case FORM_I128: GATHER(decimal_t); break;
    case FORM_TEXT: GATHER(struct slice); break;
    default: GATHER(struct interval); break;
    }
    *ret = (struct column){.form = form, .values = values, .nulls = any ? nulls : NULL};
    return true;
}

/* How long all texts are, which values are NULL, the others: a text with its length in front. */
void kept_save(const struct kept_layout *l, const struct kept *row, struct state_writer *w)
{
    state_put_varint(w, row->len - sizeof *row - l->fixed);
    state_put(w, row->bytes, (l->count + 7) / 8);
    for (uint32_t i = 0; i < l->count; i++) {
        if (kept_null(row, i))
            continue;
        if (l->forms[i] == FORM_TEXT)
            state_put_slice(w, *(const struct slice *)kept_value(l, row, i));
        else
            state_put(w, kept_value(l, row, i), form_size(l->forms[i]));
    }
}

bool kept_load(const struct kept_layout *l, struct pieces *pieces, struct state_reader *r, struct kept **ret)
{
    size_t texts = state_get_len(r, UINT32_MAX - sizeof(struct kept) - l->fixed);
    struct kept *row = NULL;
    if (r->failed || !take_rows(l, pieces, &texts, 1, &row))
        return false;
    uint8_t *end = row->bytes + l->fixed;
    state_get(r, row->bytes, (l->count + 7) / 8);
    for (uint32_t i = 0; i < l->count && !r->failed; i++) {
        uint8_t *value = row->bytes + l->offsets[i];
        if (kept_null(row, i))
            continue;
        if (l->forms[i] != FORM_TEXT) {
            state_get(r, value, form_size(l->forms[i]));
            continue;
        }
        size_t len = state_get_len(r, texts);
        struct slice text = slice_of(end, len);
        state_get(r, end, len);
        memcpy(value, &text, sizeof text);
        end += len;
        texts -= len;
    }
    *ret = row;
    r->failed |= texts != 0;
    if (r->failed)
        kept_give(pieces, row);
    return !r->failed;
}
