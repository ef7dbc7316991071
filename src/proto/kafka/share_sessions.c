/* Sessions of share groups, see share_sessions.h. */
#include "proto/kafka/share_sessions.h"

#include "base/mem.h"

#include <stdlib.h>

void share_sessions_init(struct kafka *k)
{
    list_init(&k->share_sessions);
}

void share_sessions_fini(struct kafka *k)
{
    while (!list_empty(&k->share_sessions))
        share_session_end(k, CONTAINER_OF(k->share_sessions.next, struct share_session, link));
}

struct share_session *share_session_begin(struct kafka *k, struct slice group, struct slice member)
{
    size_t bytes = group.len + member.len;
    struct share_session *s =
        k->share_session_count < SHARE_SESSIONS_MAX ? mem_zalloc_as(MEM_CONNECTIONS, sizeof *s + bytes) : NULL;
    if (!s)
        return NULL;
    memcpy(s->bytes, group.ptr, group.len);
    memcpy(s->bytes + group.len, member.ptr, member.len);
    s->group = slice_of(s->bytes, group.len);
    s->member = slice_of(s->bytes + group.len, member.len);
    s->epoch = 1;
    list_insert(&k->share_sessions, &s->link);
    k->share_session_count++;
    return s;
}

struct share_session *share_session_find(const struct kafka *k, struct slice group, struct slice member)
{
    LIST_EACH(&k->share_sessions, node, after)
    {
        struct share_session *s = CONTAINER_OF(node, struct share_session, link);
        if (slice_equal(s->group, group) && slice_equal(s->member, member))
            return s;
    }
    return NULL;
}

void share_session_end(struct kafka *k, struct share_session *s)
{
    k->share_session_count--;
    k->share_row_count -= s->count;
    list_remove(&s->link);
    mem_free_as(MEM_CONNECTIONS, s->rows);
    mem_free_as(MEM_CONNECTIONS, s);
}

/* ---- places ---- */

int share_place_order(const struct share_place *a, const struct share_place *b)
{
    int order = memcmp(&a->topic, &b->topic, sizeof a->topic);
    return order ? order : (a->partition > b->partition) - (a->partition < b->partition);
}

static int by_place(const void *a, const void *b)
{
    return share_place_order(a, b);
}

size_t share_places_sort(struct share_place *places, size_t count)
{
    size_t n = 0;
    if (count)
        qsort(places, count, sizeof *places, by_place);
    for (size_t i = 0; i < count; i++)
        if (!n || share_place_order(&places[n - 1], &places[i]) != 0)
            places[n++] = places[i];
    return n;
}

struct places {
    const struct share_place *at;
    size_t count;
};

static const struct share_place *smaller(struct places *a, struct places *b)
{
    int order = !a->count ? 1 : !b->count ? -1 : share_place_order(a->at, b->at);
    const struct share_place *first = order <= 0 ? a->at : b->at;
    if (order <= 0) {
        a->at++;
        a->count--;
    }
    if (order >= 0) {
        b->at++;
        b->count--;
    }
    return first;
}

/* What is in a or b, and not in gone. ret NULL: they are only counted. */
static size_t merge(struct places a, struct places b, struct places gone, struct share_place *ret)
{
    size_t n = 0;
    while (a.count || b.count) {
        const struct share_place *next = smaller(&a, &b);
        while (gone.count && share_place_order(gone.at, next) < 0) {
            gone.at++;
            gone.count--;
        }
        if (gone.count && share_place_order(gone.at, next) == 0)
            continue;
        if (ret)
            ret[n] = *next;
        n++;
    }
    return n;
}

bool share_session_update(struct kafka *k, struct share_session *s, const struct share_place *added, size_t added_count,
                          const struct share_place *gone, size_t gone_count)
{
    struct places old = {s->rows, s->count}, more = {added, added_count}, less = {gone, gone_count};
    size_t count = merge(old, more, less, NULL);
    if (count == s->count && (!gone_count || merge(old, (struct places){0}, less, NULL) == count))
        return true;
    if (count > SHARE_ROWS_MAX - (k->share_row_count - s->count))
        return false;
    struct share_place *rows = mem_alloc_as(MEM_CONNECTIONS, (count + !count) * sizeof *rows);
    if (!rows)
        return false;
    (void)merge(old, more, less, rows);
    mem_free_as(MEM_CONNECTIONS, s->rows);
    k->share_row_count += (uint32_t)count;
    k->share_row_count -= s->count;
    s->rows = rows;
    s->count = (uint32_t)count;
    return true;
}
