/* Sets of values, see value_set.h. In the array of pairs a pair without members is free: a value that is there has one. */
#include "sql/query/value_set.h"

#include "base/check.h"

struct pair {
    int64_t value;
    uint64_t members;
};

struct value_set {
    struct account *account;
    enum sql_form form;
    uint32_t members;
    bool counted, whole; /* whole: in pairs */
    struct pair *pairs;
    uint32_t mask, count; /* of pairs */
    struct table table;   /* key: the bytes of the value */
};

struct value_set *value_set_new(struct account *account, enum sql_form form, uint32_t members, bool counted)
{
    struct value_set *set = account_take(account, sizeof *set);
    if (!set)
        return NULL;
    CHECK(members > 0 && members <= VALUE_MEMBERS_MAX);
    *set = (struct value_set){.account = account,
                              .form = form,
                              .members = members,
                              .counted = counted,
                              .whole = form == FORM_I64 && !counted};
    table_init(&set->table, account, (uint32_t)(counted ? members * sizeof(int64_t) : sizeof(uint64_t)));
    return set;
}

void value_set_free(struct value_set **set)
{
    struct value_set *s = *set;
    if (!s)
        return;
    if (s->pairs)
        account_give(s->account, s->pairs, ((size_t)s->mask + 1) * sizeof *s->pairs);
    table_fini(&s->table);
    account_give(s->account, s, sizeof *s);
    *set = NULL;
}

uint32_t value_set_count(const struct value_set *set)
{
    return set->whole ? set->count : set->table.count;
}

/* ------------------------------------------------------------------------------------------------------------- pairs */

static uint64_t value_hash(const struct value_set *s, int64_t value)
{
    return key_hash(slice_of(&value, sizeof value), s->account->budget->seed);
}

/* The value's pair, or the free one where it belongs. */
static struct pair *pair_of(const struct value_set *s, int64_t value)
{
    uint32_t i = (uint32_t)value_hash(s, value) & s->mask;
    while (s->pairs[i].members && s->pairs[i].value != value)
        i = (i + 1) & s->mask;
    return &s->pairs[i];
}

static bool pairs_grow(struct value_set *s)
{
    uint32_t places = s->pairs ? s->mask + 1 : 0, more = places ? 2 * places : 8;
    if (s->count + 1 <= places / 4 * 3)
        return true;
    struct pair *before = s->pairs,
                *pairs = more > places ? account_take(s->account, (size_t)more * sizeof *pairs) : NULL;
    if (!pairs)
        return false;
    memset(pairs, 0, (size_t)more * sizeof *pairs);
    s->pairs = pairs;
    s->mask = more - 1;
    for (uint32_t i = 0; i < places; i++)
        if (before[i].members)
            *pair_of(s, before[i].value) = before[i];
    if (before)
        account_give(s->account, before, (size_t)places * sizeof *pairs);
    return true;
}

static bool pairs_change(struct value_set *s, int64_t value, uint64_t members, uint64_t *ret_changed)
{
    struct pair *p = s->pairs ? pair_of(s, value) : NULL;
    if (!p || !p->members) {
        if (!pairs_grow(s))
            return false;
        p = pair_of(s, value);
        p->value = value;
        s->count++;
    }
    *ret_changed = members & ~p->members;
    p->members |= members;
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- table */

/* The bytes of a value; what SQL takes for the same has the same ones. */
static struct slice key_bytes(enum sql_form form, const void *value, double *room)
{
    struct slice text;
    if (form == FORM_TEXT) {
        memcpy(&text, value, sizeof text);
        return text;
    }
    if (form == FORM_F64) {
        memcpy(room, value, sizeof *room);
        *room = *room == 0 ? 0 : *room != *room ? __builtin_nan("") : *room;
        return slice_of(room, sizeof *room);
    }
    return slice_of(value, form_size(form));
}

static const void *key_to_value(const struct value_set *s, const struct entry *e, void *room)
{
    struct slice key = entry_key(e);
    if (s->form == FORM_TEXT)
        return memcpy(room, &key, sizeof key);
    return memcpy(room, key.ptr, key.len);
}

static uint64_t change_counts(const struct value_set *s, struct entry *e, uint64_t members, int64_t weight)
{
    int64_t *counts = (int64_t *)(void *)e->bytes;
    uint64_t changed = 0;
    for (uint32_t i = 0; i < s->members; i++)
        if (members >> i & 1) {
            bool before = counts[i] > 0;
            counts[i] += weight;
            changed |= (uint64_t)(before != (counts[i] > 0)) << i;
        }
    return changed;
}

static bool all_zero(const struct value_set *s, const struct entry *e)
{
    const int64_t *counts = (const int64_t *)(const void *)e->bytes;
    for (uint32_t i = 0; i < s->members; i++)
        if (counts[i])
            return false;
    return true;
}

static bool table_change(struct value_set *s, const void *value, uint64_t members, int64_t weight,
                         uint64_t *ret_changed)
{
    double room;
    struct slice key = key_bytes(s->form, value, &room);
    uint64_t hash = table_hash(&s->table, key), bits;
    struct entry *e = table_find(&s->table, key, hash);
    if (!e && !(e = table_add(&s->table, key, hash)))
        return false;
    if (s->counted) {
        *ret_changed = change_counts(s, e, members, weight);
        if (all_zero(s, e))
            table_remove(&s->table, e);
        return true;
    }
    memcpy(&bits, e->bytes, sizeof bits);
    *ret_changed = members & ~bits;
    bits |= members;
    memcpy(e->bytes, &bits, sizeof bits);
    return true;
}

bool value_set_change(struct value_set *set, const void *value, uint64_t members, int64_t weight, uint64_t *ret_changed,
                      enum sql_fault *ret_fault)
{
    int64_t whole;
    *ret_changed = 0;
    *ret_fault = SQL_FAULT_MEMORY;
    if (!members)
        return true;
    CHECK(weight > 0 || set->counted);
    if (set->whole) {
        memcpy(&whole, value, sizeof whole);
        return pairs_change(set, whole, members, ret_changed);
    }
    if (set->form == FORM_TEXT && ((const struct slice *)value)->len > KEY_MAX) {
        *ret_fault = SQL_FAULT_LIMIT;
        return false;
    }
    return table_change(set, value, members, weight, ret_changed);
}

static uint64_t members_of(const struct value_set *s, const struct entry *e)
{
    uint64_t bits = 0;
    if (!s->counted) {
        memcpy(&bits, e->bytes, sizeof bits);
        return bits;
    }
    for (uint32_t i = 0; i < s->members; i++)
        bits |= (uint64_t)(((const int64_t *)(const void *)e->bytes)[i] > 0) << i;
    return bits;
}

bool value_set_each(const struct value_set *set,
                    bool (*visit)(void *arg, const void *value, uint64_t members, const int64_t *weights), void *arg)
{
    uint8_t room[KEY_ROOM];
    for (uint32_t i = 0; set->pairs && i <= set->mask; i++)
        if (set->pairs[i].members && !visit(arg, &set->pairs[i].value, set->pairs[i].members, NULL))
            return false;
    for (const struct entry *e = set->table.first; e; e = e->newer)
        if (!visit(arg, key_to_value(set, e, room), members_of(set, e),
                   set->counted ? (const int64_t *)(const void *)e->bytes : NULL))
            return false;
    return true;
}

/* --------------------------------------------------------------------------------------------------------- snapshots */

/* Their number, then each: a value that is a pair as a number, else its bytes; then bits or counts. */
void value_set_save(const struct value_set *set, struct state_writer *w)
{
    state_put_varint(w, value_set_count(set));
    for (uint32_t i = 0; set->pairs && i <= set->mask; i++)
        if (set->pairs[i].members) {
            state_put_signed(w, set->pairs[i].value);
            state_put_varint(w, set->pairs[i].members);
        }
    for (const struct entry *e = set->table.first; e; e = e->newer) {
        state_put_slice(w, entry_key(e));
        if (!set->counted)
            state_put_varint(w, members_of(set, e));
        for (uint32_t i = 0; set->counted && i < set->members; i++)
            state_put_signed(w, ((const int64_t *)(const void *)e->bytes)[i]);
    }
}

static bool pair_load(struct value_set *s, struct state_reader *r)
{
    int64_t value = state_get_signed(r);
    uint64_t members = state_get_varint(r), changed;
    r->failed |= !members || (s->members < 64 && members >> s->members) || (s->pairs && pair_of(s, value)->members);
    return !r->failed && pairs_change(s, value, members, &changed);
}

static bool entry_load(struct value_set *s, struct state_reader *r)
{
    size_t len = state_get_len(r, KEY_MAX);
    uint8_t small[64], *key = small;
    r->failed |= s->form != FORM_TEXT && len != form_size(s->form);
    if (len > sizeof small)
        key = account_take(s->account, len);
    if (!key)
        return false;
    state_get(r, key, len);
    uint64_t hash = table_hash(&s->table, slice_of(key, len));
    r->failed |= table_find(&s->table, slice_of(key, len), hash) != NULL;
    struct entry *e = r->failed ? NULL : table_add(&s->table, slice_of(key, len), hash);
    if (key != small)
        account_give(s->account, key, len);
    if (!e)
        return false;
    if (!s->counted) {
        uint64_t members = state_get_varint(r);
        r->failed |= !members || (s->members < 64 && members >> s->members);
        memcpy(e->bytes, &members, sizeof members);
    }
    for (uint32_t i = 0; s->counted && i < s->members; i++)
        ((int64_t *)(void *)e->bytes)[i] = state_get_signed(r);
    return !r->failed;
}

bool value_set_load(struct value_set *set, struct state_reader *r)
{
    uint64_t count = state_get_varint(r);
    for (uint64_t i = 0; i < count && !r->failed; i++)
        if (!(set->whole ? pair_load(set, r) : entry_load(set, r)))
            return false;
    return !r->failed;
}
