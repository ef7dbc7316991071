/* SYNC, by which the leader says who does what and members hear it; BEAT and LEAVE. */
#include "core/group_int.h"

/* ---- SYNC ---- */

struct sync {
    struct slice type, protocol; /* empty: any */
    struct reader rows;          /* s8 member, s32 assignment; they are whole */
    size_t bytes;                /* of the assignments */
};

static bool read_sync(const struct command *c, struct sync *ret)
{
    struct reader r = reader_of(c->ask->args);
    *ret = (struct sync){.type = reader_str8(&r)};
    ret->protocol = reader_str8(&r);
    ret->rows = r;
    while (r.left) {
        (void)reader_str8(&r);
        ret->bytes += reader_str32(&r).len;
    }
    return reader_ok(&r);
}

static bool assign_one(struct broker *b, struct member *m, struct slice assignment)
{
    struct slice kept;
    if (!group_keep(b, &kept, assignment))
        return false;
    m->group->bytes += kept.len - m->assignment.len;
    group_drop(b, &m->assignment);
    m->assignment = kept;
    return true;
}

/* What the leader has decided; whom it does not name has nothing. False: no memory; then some are what they were, and it asks
 * again. */
static bool assign(struct broker *b, struct group *g, struct reader rows)
{
    LIST_EACH(&g->members, node, after)
    (void)assign_one(b, CONTAINER_OF(node, struct member, link), (struct slice){0}); /* takes no memory */
    while (rows.left) {
        struct slice id = reader_str8(&rows), assignment = reader_str32(&rows);
        struct member *m = member_find(&g->members, id);
        if (m && !assign_one(b, m, assignment))
            return false;
    }
    return true;
}

static enum group_error become_stable(struct broker *b, struct group *g, const struct sync *sync)
{
    if (g->bytes + sync->bytes > 2 * (size_t)GROUP_BYTES_MAX)
        return GROUP_ERR_TOO_LARGE;
    if (!group_has_room(b, sync->bytes) || !assign(b, g, sync->rows))
        return GROUP_ERR_NO_MEMORY;
    group_move(g, GROUP_STABLE);
    if (!group_log(b, g)) {
        g->state = GROUP_COMPLETING; /* nobody has seen it */
        return GROUP_ERR_NO_MEMORY;
    }
    LIST_EACH(&g->members, node, after)
    {
        struct member *m = CONTAINER_OF(node, struct member, link);
        if (!m->sync.peer)
            continue;
        struct answer *answer = group_synced(g, m);
        member_alive(b, m);
        held_answer(b, &m->sync, answer ? GROUP_OK : GROUP_ERR_NO_MEMORY, answer, g->lsn);
    }
    return GROUP_OK;
}

static enum group_error answer_now(struct broker *b, struct group *g, struct member *m, struct peer *peer,
                                   const struct command *c)
{
    struct answer *answer = group_synced(g, m);
    if (!answer)
        return GROUP_ERR_NO_MEMORY;
    member_synced(b, m);
    group_say(b, peer, c, GROUP_OK, answer, g->lsn);
    return GROUP_OK;
}

static enum group_error sync_group(struct broker *b, struct peer *peer, const struct command *c)
{
    struct sync sync;
    struct member *m;
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    if (error || !read_sync(c, &sync))
        return error ? error : GROUP_ERR_INVALID;
    struct group *g = group_find(b, peer->vhost, c->ask->name);
    if (!g || (error = member_check(g, c, &m)))
        return g ? error : GROUP_ERR_UNKNOWN_MEMBER;
    if ((uint32_t)c->ask->number != g->generation)
        return GROUP_ERR_GENERATION;
    if ((sync.type.len && !slice_equal(sync.type, g->type)) ||
        (sync.protocol.len && !slice_equal(sync.protocol, g->protocol)))
        return GROUP_ERR_PROTOCOL;
    if (g->state == GROUP_PREPARING)
        return GROUP_ERR_REBALANCE;
    member_alive(b, m);
    if (g->state == GROUP_COMPLETING && m == g->leader && (error = become_stable(b, g, &sync)))
        return error;
    if (g->state == GROUP_STABLE)
        return answer_now(b, g, m, peer, c);
    held_answer(b, &m->sync, GROUP_ERR_REBALANCE, NULL, 0); /* it asks again */
    member_synced(b, m);
    held_set(&m->sync, peer, c);
    return GROUP_OK;
}

void do_group_sync(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    enum group_error error = sync_group(b, peer, c);
    if (error)
        group_say(b, peer, c, error, NULL, 0);
}

/* ---- BEAT ---- */

static enum group_error beat(struct broker *b, struct peer *peer, const struct command *c)
{
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    struct group *g = error ? NULL : group_find(b, peer->vhost, c->ask->name);
    struct member *m;
    if (!g || (error = member_check(g, c, &m)))
        return error ? error : GROUP_ERR_UNKNOWN_MEMBER;
    if ((uint32_t)c->ask->number != g->generation)
        return GROUP_ERR_GENERATION;
    member_alive(b, m);
    return g->state == GROUP_PREPARING ? GROUP_ERR_REBALANCE : GROUP_OK;
}

void do_group_beat(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    group_say(b, peer, c, beat(b, peer, c), NULL, 0);
}

/* ---- LEAVE ---- */

/* An administrator names the instance only, and may name consumers, who leave with CONSUME themselves. A pending member was none yet,
 * so no round begins for it. */
static enum group_error leave(struct broker *b, struct group *g, struct slice id, struct slice instance)
{
    struct member *m = instance.len ? member_of_instance(g, instance) : member_find(&g->pending, id);
    if (!m && !instance.len)
        m = member_find(&g->members, id);
    if (!m)
        return assignee_remove(b, g, id, instance);
    if (id.len && !slice_equal(m->id, id))
        return GROUP_ERR_FENCED;
    member_free(b, m);
    return GROUP_OK;
}

static bool leave_valid(struct reader r, uint32_t *ret_rows)
{
    for (*ret_rows = 0; r.left; ++*ret_rows) {
        (void)reader_str8(&r);
        (void)reader_str8(&r);
    }
    return reader_ok(&r);
}

void do_group_leave(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct reader r = reader_of(c->ask->args);
    struct writer w;
    uint32_t rows;
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    struct group *g = error ? NULL : group_find(b, peer->vhost, c->ask->name);
    if (!error)
        error = !leave_valid(r, &rows) ? GROUP_ERR_INVALID : g ? GROUP_OK : GROUP_ERR_UNKNOWN_MEMBER;
    struct answer *answer = error ? NULL : group_block(rows, &w);
    if (!answer) {
        group_say_or(b, peer, c, error, NULL, 0);
        return;
    }
    uint32_t before = g->member_count;
    while (r.left) {
        struct slice id = reader_str8(&r), instance = reader_str8(&r);
        writer_u8(&w, leave(b, g, id, instance));
    }
    if (g->member_count != before)
        round_left(b, g);
    else
        round_try_end(b, g);
    group_say(b, peer, c, GROUP_OK, group_block_end(answer, &w), 0);
}
