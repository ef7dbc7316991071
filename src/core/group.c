/* Consumer groups: objects, states, and until when they are kept. They are Kafka's classic protocol: members agree in rounds, a
 * round ends in a generation, and one of the members, the leader, assigns partitions to all.
 *
 *                          Empty            Preparing            Completing                Stable
 *   JOIN of somebody new   ▸ Preparing      held                 ▸ Preparing               ▸ Preparing
 *   … without an id, who   NEED_MEMBER_ID   NEED_MEMBER_ID       NEED_MEMBER_ID            NEED_MEMBER_ID
 *     can come again
 *   JOIN of a member       UNKNOWN_MEMBER   held                 ▸ Preparing               ▸ Preparing
 *   … that says the same   UNKNOWN_MEMBER   held                 answered                  answered; the leader: ▸ Preparing
 *   JOIN in the place of   -                held; the old one:   ▸ Preparing; the old one: answered, unless another protocol
 *     an instance                           FENCED               FENCED                    is elected now: ▸ Preparing
 *   SYNC                   UNKNOWN_MEMBER   REBALANCE            held; the leader's:       answered
 *                                                                ▸ Stable
 *   BEAT                   UNKNOWN_MEMBER   REBALANCE            ok                        ok
 *   LEAVE, session over    UNKNOWN_MEMBER   all here? ▸ Completi ▸ Preparing               ▸ Preparing
 *   round's timer          -                absent ones go,      who has not synced goes,  who has not synced goes,
 *                                           ▸ Completing, Empty  ▸ Preparing               ▸ Preparing
 *   COMMIT, generation -1  ok               UNKNOWN_MEMBER       UNKNOWN_MEMBER            UNKNOWN_MEMBER
 *   COMMIT of a member     UNKNOWN_MEMBER   ok                   REBALANCE                 ok
 *   DELETE                 ▸ Dead           NOT_EMPTY            NOT_EMPTY                 NOT_EMPTY
 *   OFFSET_DELETE          ok               NOT_EMPTY, unless the generation that was looked at is this one
 *
 * Groups in which the broker assigns are in a state of their own, GROUP_CONSUMERS: see group_consumer.c.
 *
 * Before the state: another id for an instance is FENCED, an id that is not there UNKNOWN_MEMBER, another generation GENERATION.
 * Differences from Kafka: a session that closes takes with it the member whose JOIN it waits for, if nobody knows its id; one whose
 * request is held is alive while its session is, not for five minutes; a commit to an empty group keeps its offsets longer.
 *
 *   G1  A leader, and no `joined`, in Completing and Stable; `joined` in Preparing only; nobody in Empty.
 *   G2  A JOIN is held of who has joined; a SYNC in Completing, of who has synced.
 *   G3  What is answered to SYNC, or to a JOIN while Stable, waits for the record that says it: a generation and its assignment are
 *       never taken back, so an old member cannot commit in a generation that was made twice.
 *   G4  Every struct committed is in its group's map and list and in its stream's list, and goes with either.
 *   G5  Empty groups that share nothing have the retention timer, others have not; Preparing and Completing have the round's, and Stable while
 *       somebody has not synced.
 */
#include "core/group_int.h"
#include "core/txn_int.h"

#define GROUPS_MAX 100000u
#define EXPIRE_ONCE 256u
#define EXPIRE_AGAIN_NS (60 * NS_PER_S)

/* ---- states ---- */

static const uint8_t may_follow[] = {
    [GROUP_EMPTY] = 1 << GROUP_PREPARING | 1 << GROUP_CONSUMERS | 1 << GROUP_SHARERS | 1 << GROUP_DEAD,
    [GROUP_CONSUMERS] = 1 << GROUP_EMPTY | 1 << GROUP_DEAD, /* group_consumer.c */
    [GROUP_SHARERS] = 1 << GROUP_EMPTY | 1 << GROUP_DEAD,   /* share_group.c */
    [GROUP_PREPARING] = 1 << GROUP_COMPLETING | 1 << GROUP_EMPTY | 1 << GROUP_DEAD,
    [GROUP_COMPLETING] = 1 << GROUP_PREPARING | 1 << GROUP_STABLE | 1 << GROUP_DEAD,
    [GROUP_STABLE] = 1 << GROUP_PREPARING | 1 << GROUP_DEAD,
    [GROUP_DEAD] = 0,
};

void group_move(struct group *g, enum group_state next)
{
    CHECK(may_follow[g->state] >> next & 1);
    g->state = next;
}

/* ---- memory ---- */

bool group_has_room(const struct broker *b, size_t bytes)
{
    uint64_t max = b->options.groups_bytes_max ? b->options.groups_bytes_max : GROUPS_BYTES_MAX;
    return b->recovering || b->group_bytes + bytes <= max;
}

bool group_keep(struct broker *b, struct slice *ret, struct slice from)
{
    uint8_t *copy = from.len ? mem_alloc_as(MEM_GROUPS, from.len) : NULL;
    if (from.len && !copy)
        return false;
    if (copy)
        memcpy(copy, from.ptr, from.len);
    *ret = slice_of(copy, from.len);
    b->group_bytes += from.len;
    return true;
}

void group_drop(struct broker *b, struct slice *owned)
{
    b->group_bytes -= owned->len;
    mem_free_as(MEM_GROUPS, (void *)(uintptr_t)owned->ptr);
    *owned = (struct slice){0};
}

/* ---- life ---- */

struct slice group_key(uint8_t room[2 * NAME_MAX_BYTES + 1], const struct vhost *vhost, struct slice name)
{
    struct writer w = writer_of(room, 2 * NAME_MAX_BYTES + 1);
    writer_str8(&w, vhost->name);
    writer_slice_put(&w, name);
    return writer_ok(&w) ? writer_slice(&w) : (struct slice){0};
}

struct group *group_find(struct broker *b, const struct vhost *vhost, struct slice name)
{
    uint8_t room[2 * NAME_MAX_BYTES + 1];
    return map_get(&b->groups, group_key(room, vhost, name));
}

static struct slice committed_key(const void *value)
{
    return slice_of(((const struct committed *)value)->key, sizeof((const struct committed *)value)->key);
}

static void retention_over(void *arg, struct timer *timer);

struct group *group_make(struct broker *b, struct vhost *vhost, struct slice name)
{
    uint8_t room[2 * NAME_MAX_BYTES + 1];
    struct slice key = group_key(room, vhost, name);
    if (!key.len || b->groups.count >= GROUPS_MAX || !group_has_room(b, sizeof(struct group)))
        return NULL;
    struct group *g = mem_zalloc_as(MEM_GROUPS, sizeof *g);
    if (!g)
        return NULL;
    if (!group_keep(b, &g->key, key) || !map_put(&b->groups, g->key, g)) {
        group_drop(b, &g->key);
        mem_free_as(MEM_GROUPS, g);
        return NULL;
    }
    b->group_bytes += sizeof *g;
    g->vhost = vhost;
    g->name = slice_of(g->key.ptr + 1 + vhost->name.len, name.len);
    list_init(&g->members);
    list_init(&g->pending);
    list_init(&g->offset_list);
    list_init(&g->assignees);
    map_init_keyed(&g->offsets, b->seed, committed_key);
    shares_init(b, g);
    g->config = group_config_for(b, g->key);
    timer_init(&g->timer, round_late);
    timer_init(&g->retention, retention_over);
    list_insert(&b->group_list, &g->link);
    list_insert(&vhost->groups, &g->vhost_link);
    g->empty_since = b->wall;
    group_rest(b, g);
    return g;
}

void group_free(struct broker *b, struct group *g)
{
    struct list *lists[] = {&g->members, &g->pending};
    group_move(g, GROUP_DEAD);
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        LIST_EACH(lists[i], node, after)
    member_free(b, CONTAINER_OF(node, struct member, link));
    LIST_EACH(&g->assignees, node, after)
    assignee_free(b, CONTAINER_OF(node, struct assignee, link));
    LIST_EACH(&g->offset_list, node, after)
    committed_free(b, CONTAINER_OF(node, struct committed, link));
    (void)map_take(&b->groups, g->key); /* who waits for a share looks again, and must not find it */
    shares_fini(b, g);
    map_fini(&g->offsets);
    wheel_cancel(&b->wheel, &g->timer);
    wheel_cancel(&b->wheel, &g->retention);
    compact_group_removed(b, &g->link);
    list_remove(&g->link);
    list_remove(&g->vhost_link);
    struct slice *owned[] = {&g->key, &g->type, &g->protocol};
    for (size_t i = 0; i < ARRAY_LEN(owned); i++)
        group_drop(b, owned[i]);
    b->group_bytes -= sizeof *g;
    mem_free_as(MEM_GROUPS, g);
}

/* ---- retention ----
 *
 * An offset is kept so long after it was committed, and, of a group that had members, after the last of them went. With its last
 * offset the group goes; one that has none stays for a while only, so that names which nobody uses again leave nothing behind. */

static int64_t kept_ms(const struct broker *b)
{
    return b->options.group_retention_ms ? b->options.group_retention_ms : GROUP_RETENTION_MS;
}

static wall_t over_at(const struct broker *b, const struct group *g, const struct committed *o)
{
    return (g->type.len && g->empty_since > o->at ? g->empty_since : o->at) + kept_ms(b);
}

static wall_t due_at(const struct broker *b, const struct group *g)
{
    const struct committed *oldest = LIST_FIRST(&g->offset_list, struct committed, link);
    return oldest ? over_at(b, g, oldest) : g->empty_since + GROUP_UNUSED_MS;
}

void group_rest(struct broker *b, struct group *g)
{
    if (g->state != GROUP_EMPTY || b->recovering || !list_empty(&g->shares)) /* then groups_recovered does it */
        return;
    int64_t ms = due_at(b, g) - b->wall;
    ms = ms < 0 ? 0 : ms > kept_ms(b) + GROUP_UNUSED_MS ? kept_ms(b) : ms; /* the wall's clock may have been set */
    wheel_set(&b->wheel, &g->retention, b->now + ms * NS_PER_MS);
}

/* The oldest offsets, some at a time. False: no memory. */
static bool expire_some(struct broker *b, struct group *g)
{
    struct writer w;
    if (!offsets_log_begin(b, g, EXPIRE_ONCE, 0, &w))
        return false;
    for (unsigned n = 0; n < EXPIRE_ONCE; n++) {
        struct committed *o = LIST_FIRST(&g->offset_list, struct committed, link);
        if (!o || over_at(b, g, o) > b->wall)
            break;
        struct group_offset gone = {.stream = o->key[0], .partition = (uint32_t)o->key[1], .offset = UINT64_MAX};
        offsets_log_row(&w, &gone, o->at);
        committed_free(b, o);
    }
    offsets_log_end(b, g, &w);
    return true;
}

static void retention_over(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct group *g = CONTAINER_OF(timer, struct group, retention);
    const struct committed *newest =
        list_empty(&g->offset_list) ? NULL : CONTAINER_OF(g->offset_list.prev, struct committed, link);
    bool all = b->wall >= (newest ? over_at(b, g, newest) : due_at(b, g)) && !g->pending_count;
    if (all && group_log_gone(b, g)) {
        group_free(b, g);
        return;
    }
    if (!all && newest && b->wall >= due_at(b, g) && expire_some(b, g))
        group_rest(b, g);
    else /* no memory, somebody is about to join, or the clock was set back */
        wheel_set(&b->wheel, timer, b->now + EXPIRE_AGAIN_NS);
}

/* ---- all of them ---- */

void groups_init(struct broker *b)
{
    map_init(&b->groups, b->seed + 11);
    list_init(&b->group_list);
    groups_rules_init(b);
}

void groups_fini(struct broker *b)
{
    LIST_EACH(&b->group_list, node, after)
    group_free(b, CONTAINER_OF(node, struct group, link));
    groups_rules_fini(b);
    map_fini(&b->groups);
}

bool groups_vhost_gone(struct broker *b, struct vhost *vhost, unsigned *budget)
{
    while (*budget && !list_empty(&vhost->groups)) {
        struct group *g = CONTAINER_OF(vhost->groups.next, struct group, vhost_link);
        for (; *budget && !list_empty(&g->offset_list); budget_spend(budget, 1))
            committed_free(b, CONTAINER_OF(g->offset_list.next, struct committed, link));
        if (!list_empty(&g->offset_list))
            return false;
        budget_spend(budget, 2 + g->member_count + g->assignee_count + g->share_map.count);
        group_free(b, g);
    }
    return list_empty(&vhost->groups) && groups_rules_vhost_gone(b, vhost, budget);
}

/* Members have their whole time again, since nobody could hear them. A group that was between two generations when the snapshot was
 * written goes on there: they are asked to join again. */
void groups_recovered(struct broker *b)
{
    LIST_EACH(&b->group_list, node, after)
    {
        struct group *g = CONTAINER_OF(node, struct group, link);
        LIST_EACH(&g->members, at, next)
        member_alive(b, CONTAINER_OF(at, struct member, link));
        if (g->state == GROUP_PREPARING)
            wheel_set(&b->wheel, &g->timer, b->now + round_ms(g) * NS_PER_MS);
        if (g->revived)
            g->empty_since = b->wall;
        g->revived = false;
        group_rest(b, g);
    }
}

static void check_members(const struct broker *b, const struct group *g)
{
    uint32_t members = 0, pending = 0, unsynced = 0;
    size_t bytes = 0;
    bool leader = !g->leader;
    LIST_EACH(&g->members, node, after)
    {
        const struct member *m = CONTAINER_OF(node, struct member, link);
        CHECK(m->group == g && (b->recovering || timer_is_set(&m->session)));
        CHECK(!m->joined || g->state == GROUP_PREPARING); /* G1 */
        CHECK(!m->join.peer || m->joined);                /* G2 */
        CHECK(!m->sync.peer || (g->state == GROUP_COMPLETING && !m->unsynced));
        CHECK((m->join.peer == NULL) == list_empty(&m->join.link) &&
              (m->sync.peer == NULL) == list_empty(&m->sync.link));
        leader = leader || g->leader == m;
        members++;
        unsynced += m->unsynced;
        bytes += member_bytes(m);
    }
    LIST_EACH(&g->pending, node, after)
    {
        const struct member *m = CONTAINER_OF(node, struct member, link);
        CHECK(!m->join.peer && !m->sync.peer && !m->unsynced && !m->joined && timer_is_set(&m->session));
        bytes += member_bytes(m);
        pending++;
    }
    CHECK(leader && members == g->member_count && pending == g->pending_count && unsynced == g->unsynced_count);
    CHECK(bytes == g->bytes && g->state != GROUP_DEAD && (g->state != GROUP_EMPTY || !members));
    CHECK(g->leader || (g->state != GROUP_COMPLETING && g->state != GROUP_STABLE));
    CHECK(!unsynced || g->state == GROUP_COMPLETING || g->state == GROUP_STABLE);
}

void groups_check(struct broker *b)
{
    uint32_t groups = 0;
    uint64_t bytes = 0;
    LIST_EACH(&b->group_list, node, after)
    {
        const struct group *g = CONTAINER_OF(node, struct group, link);
        uint32_t offsets = 0;
        wall_t at = 0;
        check_members(b, g);
        assignees_check(b, g);
        LIST_EACH(&g->assignees, row, next)
        bytes += assignee_bytes(CONTAINER_OF(row, struct assignee, link));
        LIST_EACH(&g->offset_list, row, next)
        {
            const struct committed *o = CONTAINER_OF(row, struct committed, link);
            CHECK(o->group == g && o->at >= at && map_get(&g->offsets, committed_key(o)) == o); /* G4 */
            CHECK(!list_empty(&o->stream_link) && o->offset != UINT64_MAX && o->len <= GROUP_TEXT_MAX);
            at = o->at;
            bytes += sizeof *o + o->len;
            offsets++;
        }
        CHECK(offsets == g->offsets.count && map_get(&b->groups, g->key) == g);
        CHECK((g->state == GROUP_EMPTY && list_empty(&g->shares)) == timer_is_set(&g->retention)); /* G5 */
        bytes += shares_check(b, g);
        CHECK(timer_is_set(&g->timer) == (g->state == GROUP_PREPARING || g->state == GROUP_COMPLETING ||
                                          (g->state == GROUP_STABLE && g->unsynced_count)));
        bytes += sizeof *g + g->key.len + g->type.len + g->protocol.len + g->bytes;
        groups++;
    }
    bytes += groups_rules_check(b) + txns_staged_bytes(b);
    CHECK(groups == b->groups.count && bytes == b->group_bytes);
}
