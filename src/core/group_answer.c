/* Who may ask a group, what is answered, and requests that are held until there is an answer. */
#include "core/group_int.h"

/* Read permission on the group's name, as Kafka asks READ on the group. */
enum group_error group_asked(struct broker *b, const struct peer *peer, const struct command *c, enum verb verb)
{
    struct slice name = c->ask->name;
    if (peer->state != PEER_ENTERED)
        return GROUP_ERR_REFUSED;
    if (!name.len || name.len > NAME_MAX_BYTES)
        return GROUP_ERR_INVALID_ID;
    return authorise(b, peer->user, peer->vhost, verb, name) ? GROUP_OK : GROUP_ERR_REFUSED;
}

/* Who says it is a member: unknown, fenced because another process has its instance's name, or this one. */
enum group_error member_check(const struct group *g, const struct command *c, struct member **ret)
{
    struct slice id = c->ask->other, instance = c->ask->key;
    struct member *m = instance.len ? member_of_instance(g, instance) : member_find(&g->members, id);
    if (!m)
        return GROUP_ERR_UNKNOWN_MEMBER;
    if (!slice_equal(m->id, id))
        return GROUP_ERR_FENCED;
    *ret = m;
    return GROUP_OK;
}

/* ---- blocks ---- */

struct answer *group_block(size_t bytes, struct writer *w)
{
    struct answer *answer = mem_alloc(sizeof *answer + bytes);
    if (!answer)
        return NULL;
    *answer = (struct answer){0};
    *w = writer_of(answer->bytes, bytes);
    return answer;
}

struct answer *group_block_end(struct answer *answer, const struct writer *w)
{
    CHECK(writer_ok(w));
    answer->fields = writer_slice(w);
    return answer;
}

static void push(struct broker *b, struct peer *peer, uint16_t channel, uint32_t origin, uint64_t number,
                 enum group_error error, struct answer *answer, lsn_t lsn)
{
    struct effect *e = effect_push(b, peer, EFF_GROUP, channel);
    e->flags = (uint8_t)error;
    e->origin = origin;
    e->number = number;
    e->answer = answer;
    e->lsn = lsn;
}

void group_say(struct broker *b, struct peer *peer, const struct command *c, enum group_error error,
               struct answer *answer, lsn_t lsn)
{
    push(b, peer, c->channel, c->origin, c->number, error, answer, lsn);
}

void group_say_or(struct broker *b, struct peer *peer, const struct command *c, enum group_error error,
                  struct answer *answer, lsn_t lsn)
{
    group_say(b, peer, c, error || answer ? error : GROUP_ERR_NO_MEMORY, answer, lsn);
}

/* ---- held requests ---- */

void held_set(struct held *h, struct peer *peer, const struct command *c)
{
    list_remove(&h->link);
    list_insert(&peer->held, &h->link);
    h->peer = peer;
    h->origin = c->origin;
    h->number = c->number;
    h->channel = c->channel;
}

void held_answer(struct broker *b, struct held *h, enum group_error error, struct answer *answer, lsn_t lsn)
{
    if (h->peer)
        push(b, h->peer, h->channel, h->origin, h->number, error, answer, lsn);
    else
        mem_free(answer);
    list_remove(&h->link);
    h->peer = NULL;
}

/* What was asked counts all the same: who reconnects in time finds its place. Only a member whose id was never told cannot. */
void groups_forget_peer(struct broker *b, struct peer *peer)
{
    while (!list_empty(&peer->held)) {
        struct held *h = CONTAINER_OF(peer->held.next, struct held, link);
        bool is_join = h->is_join;
        h->peer = NULL;
        list_remove(&h->link);
        struct member *m = is_join ? CONTAINER_OF(h, struct member, join) : CONTAINER_OF(h, struct member, sync);
        if (!m->untold || b->recovering) /* the broker is being freed */
            continue;
        struct group *g = m->group;
        member_free(b, m);
        round_left(b, g);
    }
}

/* ---- answers to JOIN and SYNC ---- */

struct answer *group_joined(const struct group *g, const struct member *m, struct slice leader, bool all, bool skip)
{
    struct writer w;
    size_t bytes = 10 + g->type.len + g->protocol.len + leader.len + m->id.len;
    if (all)
        LIST_EACH(&g->members, node, after)
    bytes += 8 + member_bytes(CONTAINER_OF(node, struct member, link));
    struct answer *answer = group_block(bytes, &w);
    if (!answer)
        return NULL;
    writer_u32(&w, g->generation);
    writer_str8(&w, g->type);
    writer_str8(&w, g->protocol);
    writer_str8(&w, leader);
    writer_str8(&w, m->id);
    writer_u8(&w, skip);
    if (all)
        LIST_EACH(&g->members, node, after)
        {
            const struct member *other = CONTAINER_OF(node, struct member, link);
            writer_str8(&w, other->id);
            writer_str8(&w, other->instance);
            writer_str32(&w, protocol_metadata(other, g->protocol));
        }
    return group_block_end(answer, &w);
}

struct answer *group_synced(const struct group *g, const struct member *m)
{
    struct writer w;
    struct answer *answer = group_block(8 + g->type.len + g->protocol.len + m->assignment.len, &w);
    if (!answer)
        return NULL;
    writer_str8(&w, g->type);
    writer_str8(&w, g->protocol);
    writer_str32(&w, m->assignment);
    return group_block_end(answer, &w);
}
