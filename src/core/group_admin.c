/* What administrators ask of groups: LIST, DESCRIBE and DELETE. */
#include "core/group_int.h"

#define LIST_ONCE 1000u /* groups looked at in one command: there may be many */

static bool listed(struct broker *b, const struct peer *peer, const struct group *g, uint64_t states)
{
    return g->vhost == peer->vhost && (!states || (states >> group_shown(g) & 1)) &&
           authorise(b, peer->user, peer->vhost, VERB_READ, g->name);
}

/* A part ends where the next one can find it again: not with the group without a name, nor with one of another vhost. */
static bool may_end(const struct peer *peer, const struct list *node)
{
    const struct group *g = CONTAINER_OF(node, struct group, link);
    return g->vhost == peer->vhost && g->name.len;
}

/* The groups behind `from` that one answer is about; *ret_more: there are others behind them. */
static struct answer *list_some(struct broker *b, const struct peer *peer, const struct list *from, uint64_t states)
{
    struct writer w;
    size_t bytes = 1;
    unsigned n = 0;
    struct list *end = from->next;
    for (; end != &b->group_list && (n < LIST_ONCE || !may_end(peer, end->prev)); end = end->next, n++) {
        const struct group *g = CONTAINER_OF(end, struct group, link);
        bytes += g->vhost == peer->vhost ? 4 + g->name.len + g->type.len : 0;
    }
    bool more = end != &b->group_list;
    const struct group *last = more ? CONTAINER_OF(end->prev, struct group, link) : NULL;
    struct answer *answer = group_block(bytes + (more ? last->name.len : 0), &w);
    if (!answer)
        return NULL;
    writer_str8(&w, more ? last->name : (struct slice){0});
    for (struct list *at = from->next; at != end; at = at->next) {
        const struct group *g = CONTAINER_OF(at, struct group, link);
        if (!listed(b, peer, g, states))
            continue;
        writer_str8(&w, g->name);
        writer_str8(&w, g->type);
        writer_u8(&w, (uint8_t)group_shown(g));
        writer_u8(&w, (uint8_t)group_kind(g));
    }
    return group_block_end(answer, &w);
}

/* A list in parts: who comes for the next one names the last group of the part before, and begins again if that has gone. */
void do_group_list(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct reader r = reader_of(c->ask->args);
    struct slice behind = reader_str8(&r);
    enum group_error error = peer->state != PEER_ENTERED ? GROUP_ERR_REFUSED : GROUP_OK;
    const struct group *g = error || !behind.len ? NULL : group_find(b, peer->vhost, behind);
    if (!error && behind.len && !g)
        error = GROUP_ERR_NO_GROUP;
    struct answer *answer = error ? NULL : list_some(b, peer, g ? &g->link : &b->group_list, c->ask->number);
    group_say_or(b, peer, c, error, answer, 0);
}

/* What members have said and are given is shown of a stable group only, as Kafka does. */
static struct answer *described(const struct group *g)
{
    struct writer w;
    bool stable = g->state == GROUP_STABLE;
    struct slice none = {0};
    size_t bytes = 16 + g->type.len + g->protocol.len;
    LIST_EACH(&g->members, node, after)
    bytes += 16 + member_bytes(CONTAINER_OF(node, struct member, link));
    struct answer *answer = group_block(bytes, &w);
    if (!answer)
        return NULL;
    writer_u8(&w, (uint8_t)g->state);
    writer_u32(&w, g->generation);
    writer_str8(&w, g->type);
    writer_str8(&w, stable ? g->protocol : none);
    LIST_EACH(&g->members, node, after)
    {
        const struct member *m = CONTAINER_OF(node, struct member, link);
        writer_str8(&w, m->id);
        writer_str8(&w, m->instance);
        writer_str8(&w, m->client);
        writer_str8(&w, m->host);
        writer_str32(&w, stable ? protocol_metadata(m, g->protocol) : none);
        writer_str32(&w, stable ? m->assignment : none);
    }
    return group_block_end(answer, &w);
}

void do_group_describe(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    const struct group *g = error ? NULL : group_find(b, peer->vhost, c->ask->name);
    if (!error && (!g || g->sharing || g->state == GROUP_CONSUMERS)) /* which DESCRIBE_CONSUMERS tells */
        error = GROUP_ERR_NO_GROUP;
    group_say_or(b, peer, c, error, error ? NULL : described(g), 0);
}

/* Who is about to come with an id that it was given finds none. */
void do_group_delete(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    lsn_t lsn = 0;
    enum group_error error = group_asked(b, peer, c, VERB_CONFIGURE);
    struct group *g = error ? NULL : group_find(b, peer->vhost, c->ask->name);
    if (!error)
        error = !g ? GROUP_ERR_NO_GROUP : g->state != GROUP_EMPTY ? GROUP_ERR_NOT_EMPTY : GROUP_OK;
    if (!error && !group_log_gone(b, g))
        error = GROUP_ERR_NO_MEMORY;
    if (!error) {
        lsn = g->lsn;
        group_free(b, g);
    }
    group_say(b, peer, c, error, NULL, lsn);
}
