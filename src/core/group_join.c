/* JOIN: a new member, one that is known, and a process that takes the place of a static member. */
#include "core/group_int.h"

#include <stdio.h>

#define ID_TEXT_MAX 200u /* of an instance or client in a member's id */
#define TYPE_MAX NAME_MAX_BYTES

/* The group takes its type from its first member. */
static bool take_type(struct broker *b, struct group *g, const struct join *j)
{
    struct slice type;
    if (slice_equal(g->type, j->type))
        return true;
    if (!group_keep(b, &type, j->type))
        return false;
    group_drop(b, &g->type);
    g->type = type;
    return true;
}

static void hold(struct broker *b, struct group *g, struct member *m, struct peer *peer, const struct command *c)
{
    held_answer(b, &m->join, GROUP_ERR_REBALANCE, NULL, 0); /* it asks again, on another connection perhaps */
    round_begin(b, g);
    held_set(&m->join, peer, c);
    m->joined = true;
    member_alive(b, m);
    round_try_end(b, g);
}

/* Answered in the generation that there is. */
static enum group_error answer_now(struct broker *b, struct group *g, struct member *m, struct peer *peer,
                                   const struct command *c)
{
    struct answer *answer = group_joined(g, m, g->leader->id, m == g->leader, false);
    member_alive(b, m);
    if (!answer)
        return GROUP_ERR_NO_MEMORY;
    group_say(b, peer, c, GROUP_OK, answer, g->state == GROUP_STABLE ? g->lsn : 0);
    return GROUP_OK;
}

static struct member *new_member(struct broker *b, struct group *g, const struct peer *peer, const struct command *c,
                                 const struct join *j)
{
    char id[ID_TEXT_MAX + 32], prefix[ID_TEXT_MAX + 2];
    struct slice of = c->ask->key.len ? c->ask->key : j->client;
    snprintf(prefix, sizeof prefix, "%.*s-", (int)(of.len < ID_TEXT_MAX ? of.len : ID_TEXT_MAX), of.ptr);
    random_name(b, prefix, id, sizeof id);
    struct member *m = member_make(b, g, slice_str(id), c->ask->key, j->client, peer->address);
    if (!m || member_update(b, m, j))
        return m;
    member_free(b, m);
    return NULL;
}

/* An id first: so a client that gives up and asks again leaves no member behind that nobody is. */
static enum group_error need_id(struct broker *b, struct group *g, struct member *m, struct peer *peer,
                                const struct command *c)
{
    struct writer w;
    struct answer *answer = group_block(1 + m->id.len, &w);
    if (!answer) {
        member_free(b, m);
        return GROUP_ERR_NO_MEMORY;
    }
    writer_str8(&w, m->id);
    member_await(g, m);
    member_alive(b, m);
    group_say(b, peer, c, GROUP_ERR_NEED_MEMBER_ID, group_block_end(answer, &w), 0);
    return GROUP_OK;
}

static void add(struct broker *b, struct group *g, struct member *m, struct peer *peer, const struct command *c)
{
    member_enlist(g, m);
    g->grown = true;
    hold(b, g, m, peer, c);
}

/* In a stable group, when the protocol stays: the new process has the old one's assignment, and no round is needed. A leader that can
 * skip its assignment is told so; another is told that the old one leads, so that it does not assign. */
static enum group_error replace_stable(struct broker *b, struct group *g, struct member *m, struct slice old_id,
                                       struct peer *peer, const struct command *c)
{
    bool leads = m == g->leader, skip = leads && (c->ask->flags & ASK_CAN_SKIP);
    struct answer *answer = group_joined(g, m, leads && !skip ? old_id : g->leader->id, skip, skip);
    if (!answer || !group_log(b, g)) {
        mem_free(answer);
        return GROUP_ERR_NO_MEMORY;
    }
    member_alive(b, m);
    group_say(b, peer, c, GROUP_OK, answer, g->lsn);
    return GROUP_OK;
}

/* Another process in the place of a static member: the old one is told that it is fenced. */
static enum group_error replace(struct broker *b, struct group *g, struct member *old, struct peer *peer,
                                const struct command *c, const struct join *j)
{
    struct member *m = new_member(b, g, peer, c, j);
    if (!m || !take_type(b, g, j) || !group_keep(b, &m->assignment, old->assignment)) {
        if (m)
            member_free(b, m);
        return GROUP_ERR_NO_MEMORY;
    }
    g->bytes += m->assignment.len;
    member_enlist(g, m);
    list_remove(&m->link);
    list_insert(&old->link, &m->link); /* as old as the one before it */
    bool leads = g->leader == old;
    if (leads)
        g->leader = m;
    held_answer(b, &old->join, GROUP_ERR_FENCED, NULL, 0);
    held_answer(b, &old->sync, GROUP_ERR_FENCED, NULL, 0);
    m->unsynced = old->unsynced;
    g->unsynced_count += m->unsynced;
    list_remove(&old->link); /* it votes no more, but its id is still needed */
    bool stays = g->state == GROUP_STABLE && slice_equal(protocol_elected(g), g->protocol);
    enum group_error error = stays ? replace_stable(b, g, m, old->id, peer, c) : GROUP_ERR_NO_MEMORY;
    member_free(b, old);
    if (error) /* a round decides; so it does without memory */
        hold(b, g, m, peer, c);
    return GROUP_OK;
}

static enum group_error join_new(struct broker *b, struct group *g, struct peer *peer, const struct command *c,
                                 const struct join *j)
{
    struct member *old = member_of_instance(g, c->ask->key);
    uint32_t max = b->options.group_members_max ? b->options.group_members_max : GROUP_MEMBERS_MAX;
    if (!protocols_fit(g, j, old))
        return GROUP_ERR_PROTOCOL;
    if (old)
        return replace(b, g, old, peer, c, j);
    if (g->member_count + g->pending_count >= max)
        return GROUP_ERR_FULL;
    struct member *m = new_member(b, g, peer, c, j);
    if (!m)
        return GROUP_ERR_NO_MEMORY;
    if (!m->instance.len && (c->ask->flags & ASK_NEED_MEMBER_ID))
        return need_id(b, g, m, peer, c);
    if (!take_type(b, g, j)) {
        member_free(b, m);
        return GROUP_ERR_NO_MEMORY;
    }
    m->untold = !m->instance.len;
    add(b, g, m, peer, c);
    return GROUP_OK;
}

static enum group_error join_known(struct broker *b, struct group *g, struct peer *peer, const struct command *c,
                                   const struct join *j)
{
    struct member *m = c->ask->key.len ? NULL : member_find(&g->pending, c->ask->other);
    enum group_error error = m ? GROUP_OK : member_check(g, c, &m);
    if (error)
        return error;
    if (!protocols_fit(g, j, m))
        return GROUP_ERR_PROTOCOL;
    bool same = m->place == MEMBER_LISTED && slice_equal(m->protocols, j->protocols);
    if (same && (g->state == GROUP_COMPLETING || (g->state == GROUP_STABLE && m != g->leader)))
        return answer_now(b, g, m, peer, c);
    if (!take_type(b, g, j) || !member_update(b, m, j))
        return GROUP_ERR_NO_MEMORY;
    if (m->place == MEMBER_PENDING)
        add(b, g, m, peer, c);
    else
        hold(b, g, m, peer, c);
    return GROUP_OK;
}

static enum group_error read_join(const struct broker *b, const struct command *c, struct join *ret)
{
    struct reader r = reader_of(c->ask->args);
    int64_t least = b->options.group_session_min_ms ? b->options.group_session_min_ms : GROUP_SESSION_MIN_MS;
    int64_t most = b->options.group_session_max_ms ? b->options.group_session_max_ms : GROUP_SESSION_MAX_MS;
    *ret = (struct join){.client = reader_str8(&r)};
    ret->type = reader_str8(&r);
    ret->protocols = reader_rest(&r);
    ret->session_ms = (uint32_t)(c->ask->number >> 32);
    ret->rebalance_ms = (uint32_t)c->ask->number;
    if (!reader_ok(&r) || c->ask->key.len > NAME_MAX_BYTES)
        return GROUP_ERR_INVALID;
    if (ret->session_ms < least || ret->session_ms > most)
        return GROUP_ERR_SESSION_TIMEOUT;
    if (!ret->rebalance_ms || ret->rebalance_ms > INT32_MAX) /* it was not given: Kafka's first version has none */
        ret->rebalance_ms = ret->session_ms;
    return ret->type.len && protocols_valid(ret->protocols) ? GROUP_OK : GROUP_ERR_PROTOCOL;
}

static enum group_error join(struct broker *b, struct peer *peer, const struct command *c)
{
    struct join j;
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    if (!error)
        error = read_join(b, c, &j);
    if (error)
        return error;
    struct group *g = group_find(b, peer->vhost, c->ask->name);
    if (!g && c->ask->other.len)
        return GROUP_ERR_UNKNOWN_MEMBER;
    if (g && (g->sharing || g->state == GROUP_CONSUMERS))
        return GROUP_ERR_PROTOCOL;
    size_t more = sizeof(struct member) + c->ask->args.len + 1024;
    if (more > GROUP_BYTES_MAX || (g && g->bytes + more > GROUP_BYTES_MAX))
        return GROUP_ERR_FULL;
    bool made = !g;
    if (!group_has_room(b, more) || (!g && !(g = group_make(b, peer->vhost, c->ask->name))))
        return GROUP_ERR_NO_MEMORY;
    error = c->ask->other.len ? join_known(b, g, peer, c, &j) : join_new(b, g, peer, c, &j);
    if (error && made)
        group_free(b, g);
    return error;
}

void do_group_join(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    enum group_error error = join(b, peer, c);
    if (error)
        group_say(b, peer, c, error, NULL, 0);
}
