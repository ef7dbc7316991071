/* Rounds: members join, the round ends in a generation, they sync (see the table in group.c).
 *
 * Preparing ends when all have joined and nobody who was given an id is missing, or when the round's timer fires: then those who
 * have not joined go, but for static members, which stay until their session is over. An empty group waits a little for more
 * members before its first round ends, and again as long as more come. Who has not synced when the timer fires again goes too,
 * static or not. */
#include "core/group_int.h"

static int64_t delay_ms(const struct broker *b)
{
    return b->options.group_delay_ms ? b->options.group_delay_ms : GROUP_DELAY_MS;
}

int64_t round_ms(const struct group *g)
{
    int64_t ms = 0;
    LIST_EACH(&g->members, node, after)
    {
        const struct member *m = CONTAINER_OF(node, struct member, link);
        ms = m->rebalance_ms > ms ? m->rebalance_ms : ms;
    }
    return ms;
}

void round_begin(struct broker *b, struct group *g)
{
    if (g->state == GROUP_PREPARING)
        return;
    LIST_EACH(&g->members, node, after)
    {
        struct member *m = CONTAINER_OF(node, struct member, link);
        held_answer(b, &m->sync, GROUP_ERR_REBALANCE, NULL, 0);
        m->unsynced = false;
    }
    int64_t ms = round_ms(g), delay = delay_ms(b);
    g->unsynced_count = 0;
    g->initial = g->state == GROUP_EMPTY && delay > 0;
    g->grown = false;
    g->initial_end = b->now + ms * NS_PER_MS;
    group_move(g, GROUP_PREPARING);
    wheel_cancel(&b->wheel, &g->retention);
    wheel_set(&b->wheel, &g->timer, b->now + (g->initial && delay < ms ? delay : ms) * NS_PER_MS);
}

static void became_empty(struct broker *b, struct group *g)
{
    group_move(g, GROUP_EMPTY);
    group_drop(b, &g->protocol);
    g->empty_since = b->wall;
    group_rest(b, g);
    (void)!group_log(b, g); /* without memory: after a restart they are members until their sessions are over */
}

/* The leader of the last generation, if it has joined, else the eldest member that has. NULL: nobody has. */
static struct member *next_leader(const struct group *g)
{
    if (g->leader && g->leader->joined)
        return g->leader;
    LIST_EACH(&g->members, node, after)
    if (CONTAINER_OF(node, struct member, link)->joined)
        return CONTAINER_OF(node, struct member, link);
    return NULL;
}

static void answer_joins(struct broker *b, struct group *g)
{
    LIST_EACH(&g->members, node, after)
    {
        struct member *m = CONTAINER_OF(node, struct member, link);
        m->joined = m->untold = false;
        m->unsynced = true;
        g->unsynced_count++;
        if (!m->join.peer)
            continue;
        member_alive(b, m);
        struct answer *answer = group_joined(g, m, g->leader->id, m == g->leader, false);
        held_answer(b, &m->join, answer ? GROUP_OK : GROUP_ERR_NO_MEMORY, answer, 0);
    }
}

static void round_end(struct broker *b, struct group *g)
{
    wheel_cancel(&b->wheel, &g->timer);
    LIST_EACH(&g->members, node, after)
    {
        struct member *m = CONTAINER_OF(node, struct member, link);
        if (!m->joined && !m->instance.len)
            member_free(b, m);
    }
    g->leader = next_leader(g);
    if (!g->leader && g->member_count) { /* static ones only: the end of their sessions decides */
        wheel_set(&b->wheel, &g->timer, b->now + round_ms(g) * NS_PER_MS);
        return;
    }
    if (!g->member_count) {
        g->generation++;
        became_empty(b, g);
        return;
    }
    struct slice protocol;
    if (!group_keep(b, &protocol, protocol_elected(g))) {
        wheel_set(&b->wheel, &g->timer, b->now + NS_PER_S); /* no memory: again, later */
        return;
    }
    group_drop(b, &g->protocol);
    g->protocol = protocol;
    g->generation = g->generation == INT32_MAX ? 1 : g->generation + 1;
    group_move(g, GROUP_COMPLETING);
    wheel_set(&b->wheel, &g->timer, b->now + round_ms(g) * NS_PER_MS);
    answer_joins(b, g);
}

void round_try_end(struct broker *b, struct group *g)
{
    if (g->state != GROUP_PREPARING || g->initial || g->pending_count)
        return;
    LIST_EACH(&g->members, node, after)
    if (!CONTAINER_OF(node, struct member, link)->joined)
        return;
    round_end(b, g);
}

void round_left(struct broker *b, struct group *g)
{
    if (g->state == GROUP_STABLE || g->state == GROUP_COMPLETING)
        round_begin(b, g);
    round_try_end(b, g);
}

void member_synced(struct broker *b, struct member *m)
{
    struct group *g = m->group;
    g->unsynced_count -= m->unsynced;
    m->unsynced = false;
    if (g->state == GROUP_STABLE && !g->unsynced_count)
        wheel_cancel(&b->wheel, &g->timer);
}

/* ---- timers ---- */

void round_late(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct group *g = CONTAINER_OF(timer, struct group, timer);
    if (g->state == GROUP_PREPARING) {
        bool wait = g->initial && g->grown && b->now < g->initial_end;
        mono_t next = b->now + delay_ms(b) * NS_PER_MS;
        g->initial = wait;
        g->grown = false;
        if (wait)
            wheel_set(&b->wheel, timer, next < g->initial_end ? next : g->initial_end);
        else
            round_end(b, g);
        return;
    }
    LIST_EACH(&g->members, node, after)
    if (CONTAINER_OF(node, struct member, link)->unsynced)
        member_free(b, CONTAINER_OF(node, struct member, link));
    round_left(b, g);
}

/* A session is over. Who waits for an answer cannot be heard meanwhile: its connection is what says that it lives. */
void member_late(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct member *m = CONTAINER_OF(timer, struct member, session);
    struct group *g = m->group;
    bool pending = m->place == MEMBER_PENDING;
    if (m->join.peer || m->sync.peer) {
        member_alive(b, m);
        return;
    }
    member_free(b, m);
    if (pending)
        round_try_end(b, g);
    else
        round_left(b, g);
}
