/* Share groups (KIP-932): who is in them, and which partitions each reads together with others. What of the partitions is whose at the
 * moment, and what is done with, is share.c's.
 *
 * Members are the assignees of group_consumer.c, without what makes those wait for each other: a target is a member's as soon as it
 * asks, since nobody has to give anything back first. Members are not journalled (H3 there); that the group is one of these is, and
 * it stays one until it is deleted.
 */
#include "core/share_int.h"

static bool read_beat(const struct command *c, struct consume *ret)
{
    struct reader r = reader_of(c->ask->args);
    *ret = (struct consume){.client = reader_str8(&r)};
    ret->has = reader_u8(&r) ? CONSUME_TOPICS : 0;
    ret->topics = reader_take(&r, r.left);
    ret->epoch = (uint32_t)c->ask->number;
    return reader_ok(&r) && topics_valid(ret->topics) && c->ask->other.len <= NAME_MAX_BYTES;
}

bool share_group_may_begin(const struct group *g)
{
    bool used = g->type.len || !list_empty(&g->offset_list) || g->pending_count;
    return g->sharing || (g->state == GROUP_EMPTY && !used);
}

bool share_group_begin(struct broker *b, struct group *g)
{
    struct slice type, before = g->type;
    if (g->sharing)
        return true;
    if (!group_keep(b, &type, slice_str("share")))
        return false;
    g->sharing = true;
    g->type = type;
    if (!group_log(b, g)) {
        g->sharing = false;
        g->type = before;
        group_drop(b, &type);
        return false;
    }
    group_drop(b, &before);
    return true;
}

/* The group's first member. */
static enum group_error begin_sharing(struct broker *b, struct group *g)
{
    if (g->state == GROUP_SHARERS)
        return GROUP_OK;
    if (!share_group_may_begin(g))
        return GROUP_ERR_NO_GROUP;
    if (!share_group_begin(b, g))
        return GROUP_ERR_NO_MEMORY;
    group_move(g, GROUP_SHARERS);
    wheel_cancel(&b->wheel, &g->retention);
    return GROUP_OK;
}

static enum group_error join(struct broker *b, struct group *g, const struct peer *peer, const struct command *c,
                             const struct consume *q, struct assignee **ret)
{
    struct slice none = {0};
    uint32_t max = b->options.group_members_max ? b->options.group_members_max : SHARE_MEMBERS_MAX;
    *ret = assignee_find(g, c->ask->other);
    if (*ret)
        return GROUP_OK; /* it begins again */
    if (g->assignee_count >= max)
        return GROUP_ERR_FULL;
    *ret = assignee_make(b, g, peer, c->ask->other, none, q);
    return *ret ? GROUP_OK : GROUP_ERR_NO_MEMORY;
}

static enum group_error subscribe(struct broker *b, struct assignee *m, const struct consume *q)
{
    bool changed = false;
    enum group_error error = q->has & CONSUME_TOPICS ? topics_subscribe(b, m, &q->topics, NULL, &changed) : GROUP_OK;
    if (!error && (changed || m->epoch == 0)) {
        m->group->generation++;
        m->group->topics_hash = topics_hash(m->group);
    }
    return error;
}

/* What it shall have is its own now. False: no memory. */
static bool follow(struct broker *b, struct assignee *m, bool *ret_changed)
{
    *ret_changed = !portions_equal(&m->assigned, &m->target);
    if (*ret_changed && !portions_set(b, &m->assigned, m->target.at, m->target.count))
        return false;
    if (m->epoch != m->group->target_epoch)
        m->epoch_before = m->epoch;
    m->epoch = m->group->target_epoch;
    return true;
}

static enum group_error leave(struct broker *b, struct peer *peer, const struct command *c, struct assignee *m)
{
    uint32_t epoch = m->epoch;
    m->epoch = GROUP_EPOCH_LEAVE;
    struct answer *answer = assignee_told(b, m, false);
    m->epoch = epoch;
    if (!answer)
        return GROUP_ERR_NO_MEMORY;
    assignee_gone(b, m);
    group_say(b, peer, c, GROUP_OK, answer, 0);
    return GROUP_OK;
}

static enum group_error beat_in(struct broker *b, struct peer *peer, const struct command *c, const struct consume *q,
                                struct group *g)
{
    struct assignee *m = NULL;
    bool joins = q->epoch == GROUP_EPOCH_JOIN, changed = false;
    enum group_error error = joins ? join(b, g, peer, c, q, &m) : GROUP_OK;
    if (!joins && !(m = assignee_find(g, c->ask->other)))
        error = GROUP_ERR_UNKNOWN_MEMBER;
    if (error)
        return error;
    if (q->epoch == GROUP_EPOCH_LEAVE)
        return leave(b, peer, c, m);
    if (!joins && q->epoch != m->epoch && q->epoch != m->epoch_before)
        return GROUP_ERR_FENCED_EPOCH;
    assignee_alive(b, m);
    error = subscribe(b, m, q);
    bool good = !error && group_look_around(b, g) && follow(b, m, &changed);
    if (!error)
        group_say_or(b, peer, c, GROUP_OK,
                     good ? assignee_told(b, m, joins || changed || q->has & CONSUME_TOPICS) : NULL, g->lsn);
    else if (m->epoch == 0)
        assignee_gone(b, m); /* it has just come, and may not */
    return error;
}

static enum group_error beat(struct broker *b, struct peer *peer, const struct command *c)
{
    struct consume q;
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    if (error || !read_beat(c, &q))
        return error ? error : GROUP_ERR_INVALID;
    struct group *g = group_find(b, peer->vhost, c->ask->name);
    bool joins = q.epoch == GROUP_EPOCH_JOIN;
    if (g ? !g->sharing && !joins : !joins)
        return GROUP_ERR_NO_GROUP;
    if (!joins && g->state != GROUP_SHARERS)
        return GROUP_ERR_UNKNOWN_MEMBER;
    if (!group_has_room(b, sizeof(struct assignee) + 2 * c->ask->args.len) ||
        (!g && !(g = group_make(b, peer->vhost, c->ask->name))))
        return GROUP_ERR_NO_MEMORY;
    error = begin_sharing(b, g);
    if (!error)
        error = beat_in(b, peer, c, &q, g);
    if (g->state == GROUP_SHARERS && !g->assignee_count) { /* nobody has come */
        group_move(g, GROUP_EMPTY);
        group_rest(b, g);
    }
    return error;
}

void do_share_beat(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    enum group_error error = beat(b, peer, c);
    if (error)
        group_say(b, peer, c, error, NULL, 0);
}
