/* Members of groups: what they are, and what protocols they have in common. Groups have few members, lists do. */
#include "core/group_int.h"

struct member *member_find(const struct list *list, struct slice id)
{
    LIST_EACH(list, node, after)
    {
        struct member *m = CONTAINER_OF(node, struct member, link);
        if (slice_equal(m->id, id))
            return m;
    }
    return NULL;
}

struct member *member_of_instance(const struct group *g, struct slice instance)
{
    LIST_EACH(&g->members, node, after)
    {
        struct member *m = CONTAINER_OF(node, struct member, link);
        if (instance.len && slice_equal(m->instance, instance))
            return m;
    }
    return NULL;
}

static size_t names_bytes(const struct member *m)
{
    return sizeof *m + m->id.len + m->instance.len + m->client.len + m->host.len;
}

size_t member_bytes(const struct member *m)
{
    return names_bytes(m) + m->protocols.len + m->assignment.len;
}

struct member *member_make(struct broker *b, struct group *g, struct slice id, struct slice instance,
                           struct slice client, struct slice host)
{
    struct slice parts[] = {id, instance, client, host};
    size_t len = 0;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        len += parts[i].len;
    struct member *m = mem_zalloc_as(MEM_GROUPS, sizeof *m + len);
    if (!m)
        return NULL;
    struct slice *kept[] = {&m->id, &m->instance, &m->client, &m->host};
    uint8_t *at = m->bytes;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i].len)
            memcpy(at, parts[i].ptr, parts[i].len);
        *kept[i] = slice_of(at, parts[i].len);
        at += parts[i].len;
    }
    m->group = g;
    m->join.is_join = true;
    list_init(&m->link);
    list_init(&m->join.link);
    list_init(&m->sync.link);
    timer_init(&m->session, member_late);
    b->group_bytes += names_bytes(m);
    g->bytes += names_bytes(m);
    return m;
}

void member_free(struct broker *b, struct member *m)
{
    struct group *g = m->group;
    held_answer(b, &m->join, GROUP_ERR_UNKNOWN_MEMBER, NULL, 0);
    held_answer(b, &m->sync, GROUP_ERR_UNKNOWN_MEMBER, NULL, 0);
    wheel_cancel(&b->wheel, &m->session);
    list_remove(&m->link);
    g->member_count -= m->place == MEMBER_LISTED;
    g->pending_count -= m->place == MEMBER_PENDING;
    g->unsynced_count -= m->unsynced;
    if (g->leader == m)
        g->leader = NULL;
    g->bytes -= member_bytes(m);
    b->group_bytes -= names_bytes(m);
    group_drop(b, &m->protocols);
    group_drop(b, &m->assignment);
    mem_free_as(MEM_GROUPS, m);
}

void member_enlist(struct group *g, struct member *m)
{
    g->pending_count -= m->place == MEMBER_PENDING;
    list_remove(&m->link);
    list_insert(&g->members, &m->link);
    g->member_count++;
    m->place = MEMBER_LISTED;
}

void member_await(struct group *g, struct member *m)
{
    list_insert(&g->pending, &m->link);
    g->pending_count++;
    m->place = MEMBER_PENDING;
}

void member_alive(struct broker *b, struct member *m)
{
    wheel_set(&b->wheel, &m->session, b->now + m->session_ms * NS_PER_MS);
}

bool member_update(struct broker *b, struct member *m, const struct join *j)
{
    struct slice protocols;
    if (!group_keep(b, &protocols, j->protocols))
        return false;
    m->group->bytes += protocols.len - m->protocols.len;
    group_drop(b, &m->protocols);
    m->protocols = protocols;
    m->session_ms = j->session_ms;
    m->rebalance_ms = j->rebalance_ms;
    return true;
}

/* ---- protocols ---- */

static bool next_protocol(struct reader *r, struct slice *ret_name, struct slice *ret_metadata)
{
    if (!r->left)
        return false;
    *ret_name = reader_str8(r);
    *ret_metadata = reader_str32(r);
    return reader_ok(r);
}

bool protocols_valid(struct slice protocols)
{
    struct reader r = reader_of(protocols);
    struct slice name, metadata;
    unsigned n = 0;
    while (next_protocol(&r, &name, &metadata))
        n++;
    return reader_ok(&r) && n > 0 && n <= GROUP_PROTOCOLS_MAX;
}

static bool offers(struct slice protocols, struct slice name, struct slice *ret)
{
    struct reader r = reader_of(protocols);
    struct slice at, metadata;
    while (next_protocol(&r, &at, &metadata))
        if (slice_equal(at, name)) {
            *ret = metadata;
            return true;
        }
    return false;
}

struct slice protocol_metadata(const struct member *m, struct slice name)
{
    struct slice metadata = {0};
    (void)offers(m->protocols, name, &metadata);
    return metadata;
}

static bool all_offer(const struct group *g, struct slice name, const struct member *except)
{
    struct slice unused;
    LIST_EACH(&g->members, node, after)
    {
        const struct member *m = CONTAINER_OF(node, struct member, link);
        if (m != except && !offers(m->protocols, name, &unused))
            return false;
    }
    return true;
}

bool protocols_fit(const struct group *g, const struct join *j, const struct member *self)
{
    struct reader r = reader_of(j->protocols);
    struct slice name, metadata;
    if (g->member_count > (self && self->place == MEMBER_LISTED) && !slice_equal(g->type, j->type))
        return false;
    while (next_protocol(&r, &name, &metadata))
        if (all_offer(g, name, self))
            return true;
    return false;
}

/* Each member votes for the first of its own that all offer. Most votes win; of equals the one the eldest member names first. */
struct slice protocol_elected(const struct group *g)
{
    struct slice names[GROUP_PROTOCOLS_MAX], name, metadata;
    uint32_t votes[GROUP_PROTOCOLS_MAX] = {0}, count = 0, best = 0;
    const struct member *eldest = LIST_FIRST(&g->members, struct member, link);
    struct reader r = reader_of(eldest ? eldest->protocols : (struct slice){0});
    while (count < GROUP_PROTOCOLS_MAX && next_protocol(&r, &name, &metadata))
        if (all_offer(g, name, NULL))
            names[count++] = name;
    LIST_EACH(&g->members, node, after)
    {
        uint32_t i = count;
        r = reader_of(CONTAINER_OF(node, struct member, link)->protocols);
        while (i == count && next_protocol(&r, &name, &metadata))
            for (i = 0; i < count && !slice_equal(names[i], name);)
                i++;
        if (i < count && ++votes[i] > votes[best])
            best = i;
    }
    for (uint32_t i = 0; i < count;
         i++) /* a vote that came early does not win against an equal that the eldest prefers */
        if (votes[i] == votes[best])
            return names[i];
    return (struct slice){0};
}
