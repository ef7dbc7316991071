/* Members of share groups that have acquired something, and what each has of which share: who goes gives back what he holds, and what
 * others hold is not looked at (S8). */
#include "core/share_int.h"

static struct slice id_of(const void *value)
{
    return ((const struct sharer *)value)->id;
}

static struct slice key_of(const void *value)
{
    return slice_of(((const struct share_hold *)value)->key, sizeof((const struct share_hold *)value)->key);
}

void sharers_init(struct broker *b, struct group *g)
{
    map_init_keyed(&g->sharers, b->seed + 17, id_of);
    map_init_keyed(&g->holds, b->seed + 18, key_of);
}

void sharers_fini(struct group *g)
{
    CHECK(g->sharers.count == 0 && g->holds.count == 0); /* S4 */
    map_fini(&g->sharers);
    map_fini(&g->holds);
}

struct sharer *sharer_find(const struct group *g, struct slice id)
{
    return map_get(&g->sharers, id);
}

static struct sharer *sharer_make(struct broker *b, struct group *g, struct slice id)
{
    bool room =
        group_has_room(b, sizeof(struct sharer) + sizeof(struct share_hold) + id.len) && map_reserve(&g->sharers);
    struct sharer *who = room ? mem_zalloc_as(MEM_GROUPS, sizeof *who + id.len) : NULL;
    if (!who)
        return NULL;
    who->group = g;
    if (id.len)
        memcpy(who->bytes, id.ptr, id.len);
    who->id = slice_of(who->bytes, id.len);
    list_init(&who->peer_link);
    list_init(&who->holds);
    map_put(&g->sharers, who->id, who);
    b->group_bytes += sizeof *who + id.len;
    return who;
}

static void sharer_tidy(struct broker *b, struct sharer *who)
{
    if (who->pinned || !list_empty(&who->holds))
        return;
    list_remove(&who->peer_link);
    CHECK(map_take(&who->group->sharers, who->id) == who);
    b->group_bytes -= sizeof *who + who->id.len;
    mem_free_as(MEM_GROUPS, who);
}

struct share_hold *share_hold_make(struct broker *b, struct share *s, struct peer *peer, struct slice id)
{
    struct group *g = s->group;
    struct sharer *who = sharer_find(g, id);
    if (!who && !(who = sharer_make(b, g, id)))
        return NULL;
    uintptr_t key[2] = {(uintptr_t)s, (uintptr_t)who};
    struct share_hold *hold = map_get(&g->holds, slice_of(key, sizeof key));
    if (!hold && group_has_room(b, sizeof *hold) && map_reserve(&g->holds) &&
        (hold = mem_zalloc_as(MEM_GROUPS, sizeof *hold))) {
        hold->who = who;
        hold->share = s;
        memcpy(hold->key, key, sizeof key);
        list_insert(&who->holds, &hold->link);
        list_insert(&s->holds, &hold->share_link);
        map_put(&g->holds, key_of(hold), hold);
        b->group_bytes += sizeof *hold;
    }
    if (!hold) {
        sharer_tidy(b, who);
        return NULL;
    }
    list_remove(&who->peer_link);
    list_insert(&peer->sharers, &who->peer_link);
    return hold;
}

void share_hold_tidy(struct broker *b, struct share_hold *hold)
{
    struct sharer *who = hold->who;
    if (hold->count)
        return;
    CHECK(map_take(&who->group->holds, key_of(hold)) == hold);
    list_remove(&hold->link);
    list_remove(&hold->share_link);
    b->group_bytes -= sizeof *hold;
    mem_free_as(MEM_GROUPS, hold);
    sharer_tidy(b, who);
}

/* ---- who goes ---- */

/* Without memory what is left is given back when its time is over. */
static void let_go(struct broker *b, struct sharer *who)
{
    struct list kept;
    list_init(&kept);
    who->pinned = true;
    while (!list_empty(
        &who->holds)) { /* who waits looks meanwhile, by which others of them may go: records were trimmed */
        struct share_hold *hold = CONTAINER_OF(who->holds.next, struct share_hold, link);
        list_remove(&hold->link);
        list_insert(&kept, &hold->link);
        (void)!share_take_back(b, hold->share, hold);
    }
    while (!list_empty(&kept)) {
        struct list *node = kept.next;
        list_remove(node);
        list_insert(&who->holds, node);
    }
    who->pinned = false;
    sharer_tidy(b, who);
}

void sharer_release(struct broker *b, struct group *g, struct slice id)
{
    struct sharer *who = g->sharing ? sharer_find(g, id) : NULL;
    if (who)
        let_go(b, who);
}

void shares_forget_peer(struct broker *b, struct peer *peer)
{
    while (!list_empty(&peer->sharers)) {
        struct sharer *who = CONTAINER_OF(peer->sharers.next, struct sharer, peer_link);
        list_remove(&who->peer_link);
        if (!b->recovering) /* else the broker is being freed */
            let_go(b, who);
    }
}

uint64_t sharers_check(const struct group *g)
{
    uint64_t bytes = 0;
    uint32_t holds = 0;
    MAP_EACH(&g->sharers, const struct sharer, who)
    {
        CHECK(!list_empty(&who->holds) && who->group == g && !who->pinned); /* S4 */
        bytes += sizeof *who + who->id.len;
        for (const struct list *node = who->holds.next; node != &who->holds; node = node->next, holds++) {
            const struct share_hold *hold = CONTAINER_OF(node, struct share_hold, link);
            CHECK(hold->count && hold->who == who && hold->share->group == g);
            CHECK(map_get(&g->holds, key_of(hold)) == hold);
            bytes += sizeof *hold;
        }
    }
    CHECK(holds == g->holds.count);
    return bytes;
}
