/* Sessions of share groups, see share_sessions.h. */
#include "proto/kafka/share_sessions.h"

#include "base/mem.h"

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
    list_remove(&s->link);
    mem_free_as(MEM_CONNECTIONS, s->rows);
    mem_free_as(MEM_CONNECTIONS, s);
}

static bool is_place(const struct share_place *row, const struct kafka_uuid *topic, int32_t partition)
{
    return row->partition == partition && memcmp(&row->topic, topic, sizeof *topic) == 0;
}

bool share_session_add(struct share_session *s, const struct kafka_uuid *topic, int32_t partition)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (is_place(&s->rows[i], topic, partition))
            return true;
    if (s->count == SHARE_ROWS_MAX)
        return false;
    if (s->count == s->max) {
        uint32_t wanted = s->max ? 2 * s->max : 8;
        struct share_place *grown = mem_alloc_as(MEM_CONNECTIONS, wanted * sizeof *grown);
        if (!grown)
            return false;
        if (s->count)
            memcpy(grown, s->rows, s->count * sizeof *grown);
        mem_free_as(MEM_CONNECTIONS, s->rows);
        s->rows = grown;
        s->max = wanted;
    }
    s->rows[s->count++] = (struct share_place){*topic, partition};
    return true;
}

void share_session_remove(struct share_session *s, const struct kafka_uuid *topic, int32_t partition)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (is_place(&s->rows[i], topic, partition)) {
            s->rows[i] = s->rows[--s->count];
            return;
        }
}
