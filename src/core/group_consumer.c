/* Groups in which the broker assigns (KIP-848): one request, CONSUME, by which a consumer joins, says what it holds, hears what it is
 * given, and leaves.
 *
 * The group's epoch grows with every change of its consumers, of what they subscribe to, or of the topics; each epoch has a target:
 * which partitions each shall have. A consumer goes from the epoch it is in to the newest by itself, while the others go on reading:
 * it gives back what is not its own any more, and is given what nobody holds.
 *
 *   it holds what it has to give back   ▸ Revoking   its epoch stays until it says that it holds that no more; then as below
 *   others hold what it shall have      ▸ Waiting    it is in the new epoch, with what was free
 *   neither                             ▸ Settled
 *
 *   H1  A partition is in `assigned` or `leaving` of one consumer at most: nobody is given what another may still read.
 *   H2  Targets are disjoint, and each partition that is subscribed to is in one of them.
 *   H3  Consumers are not journalled: after a restart they are unknown, and join again with what was committed. The journal knows that
 *       the group had some, so that its offsets are kept.
 */
#include "core/group_int.h"
#include "core/stream_int.h"

#include <stdio.h>

#define BEAT_SOONER 10 /* so many times, of who waits for something */

/* ---- life ---- */

static size_t names_bytes(const struct assignee *c)
{
    return sizeof *c + c->id.len + c->instance.len + c->client.len + c->host.len;
}

size_t assignee_bytes(const struct assignee *c)
{
    size_t rows = c->assigned.count + c->leaving.count + c->target.count;
    return names_bytes(c) + c->named.len + c->topics.len + rows * sizeof(struct portion);
}

struct assignee *assignee_find(const struct group *g, struct slice id)
{
    LIST_EACH(&g->assignees, node, after)
    {
        struct assignee *c = CONTAINER_OF(node, struct assignee, link);
        if (slice_equal(c->id, id))
            return c;
    }
    return NULL;
}

static struct assignee *find_instance(const struct group *g, struct slice instance)
{
    LIST_EACH(&g->assignees, node, after)
    {
        struct assignee *c = CONTAINER_OF(node, struct assignee, link);
        if (instance.len && slice_equal(c->instance, instance))
            return c;
    }
    return NULL;
}

static void session_late(void *arg, struct timer *timer);
static void revocation_late(void *arg, struct timer *timer);

static bool is_before(struct slice a, struct slice b)
{
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return order ? order < 0 : a.len < b.len;
}

struct assignee *assignee_make(struct broker *b, struct group *g, const struct peer *peer, struct slice id,
                               struct slice instance, const struct consume *q)
{
    struct slice parts[] = {id, instance, q->client, peer->address};
    size_t len = 0;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        len += parts[i].len;
    struct assignee *c = mem_zalloc_as(MEM_GROUPS, sizeof *c + len);
    if (!c)
        return NULL;
    struct slice *kept[] = {&c->id, &c->instance, &c->client, &c->host};
    uint8_t *at = c->bytes;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i].len)
            memcpy(at, parts[i].ptr, parts[i].len);
        *kept[i] = slice_of(at, parts[i].len);
        at += parts[i].len;
    }
    struct list *place = g->assignees.next;
    while (place != &g->assignees && is_before(CONTAINER_OF(place, struct assignee, link)->id, id))
        place = place->next;
    c->group = g;
    timer_init(&c->session, session_late);
    timer_init(&c->revocation, revocation_late);
    list_insert(place, &c->link);
    g->assignee_count++;
    b->group_bytes += names_bytes(c);
    return c;
}

void assignee_free(struct broker *b, struct assignee *c)
{
    wheel_cancel(&b->wheel, &c->session);
    wheel_cancel(&b->wheel, &c->revocation);
    list_remove(&c->link);
    c->group->assignee_count--;
    b->group_bytes -= names_bytes(c);
    struct portions *sets[] = {&c->assigned, &c->leaving, &c->target};
    for (size_t i = 0; i < ARRAY_LEN(sets); i++)
        portions_drop(b, sets[i]);
    topics_drop(b, c);
    mem_free_as(MEM_GROUPS, c);
}

void assignee_alive(struct broker *b, struct assignee *c)
{
    const struct group_config *config = group_config_of(c->group);
    int64_t ms = c->group->sharing ? config->session_ms : config->consumer_session_ms;
    if (!ms)
        ms = b->options.group_consumer_session_ms ? b->options.group_consumer_session_ms : GROUP_CONSUMER_SESSION_MS;
    wheel_set(&b->wheel, &c->session, b->now + ms * NS_PER_MS);
}

/* One consumer less. Its partitions are free at once; the others hear of it when they ask next. */
void assignee_gone(struct broker *b, struct assignee *c)
{
    struct group *g = c->group;
    sharer_release(b, g, c->id);
    assignee_free(b, c);
    g->generation++;
    if (g->assignee_count)
        return;
    group_move(g, GROUP_EMPTY);
    g->empty_since = b->wall;
    group_rest(b, g);
    (void)!group_log(b, g); /* without memory: a restart finds the group as one that had consumers */
}

enum group_error assignee_remove(struct broker *b, struct group *g, struct slice id, struct slice instance)
{
    struct assignee *c = instance.len ? find_instance(g, instance) : assignee_find(g, id);
    if (!c)
        return GROUP_ERR_UNKNOWN_MEMBER;
    if (id.len && !slice_equal(c->id, id))
        return GROUP_ERR_FENCED;
    assignee_gone(b, c);
    return GROUP_OK;
}

static void session_late(void *arg, struct timer *timer)
{
    assignee_gone(arg, CONTAINER_OF(timer, struct assignee, session));
}

/* It has not given back in time what others wait for. */
static void revocation_late(void *arg, struct timer *timer)
{
    assignee_gone(arg, CONTAINER_OF(timer, struct assignee, revocation));
}

enum group_error assignee_check(const struct group *g, const struct command *c, struct assignee **ret)
{
    struct slice id = c->ask->other, instance = c->ask->key;
    struct assignee *found = instance.len ? find_instance(g, instance) : assignee_find(g, id);
    if (!found)
        return GROUP_ERR_UNKNOWN_MEMBER;
    if (!slice_equal(found->id, id))
        return GROUP_ERR_FENCED;
    *ret = found;
    return GROUP_OK;
}

/* ---- from epoch to epoch ---- */

static bool held_by_another(const struct assignee *c, const struct portion *p)
{
    LIST_EACH(&c->group->assignees, node, after)
    {
        const struct assignee *other = CONTAINER_OF(node, struct assignee, link);
        if (other != c && (portions_have(&other->assigned, p) || portions_have(&other->leaving, p)))
            return true;
    }
    return false;
}

/* What it keeps, and of its target what is free. */
static bool take_free(struct broker *b, struct assignee *c)
{
    struct portions next = {0};
    struct portion *mine = mem_zalloc_as(MEM_GROUPS, (c->target.count + 1) * sizeof *mine);
    uint32_t n = 0;
    for (uint32_t i = 0; mine && i < c->target.count; i++)
        if (portions_have(&c->assigned, &c->target.at[i]) || !held_by_another(c, &c->target.at[i]))
            mine[n++] = c->target.at[i];
    bool good = mine && portions_set(b, &next, mine, n);
    mem_free_as(MEM_GROUPS, mine);
    if (!good)
        return false;
    portions_drop(b, &c->assigned);
    portions_drop(b, &c->leaving);
    c->assigned = next;
    c->state = n < c->target.count ? ASSIGNEE_WAITING : ASSIGNEE_SETTLED;
    if (c->epoch != c->group->target_epoch)
        c->epoch_before = c->epoch;
    c->epoch = c->group->target_epoch;
    wheel_cancel(&b->wheel, &c->revocation);
    return true;
}

static bool go_on(struct broker *b, struct assignee *c, const struct portions *owned)
{
    struct portions give = {0};
    if (!portions_of(b, &give, &c->assigned, &c->target, false))
        return false;
    if (give.count && (!owned || portions_meet(owned, &give))) {
        if (!portions_of(b, &c->assigned, &c->assigned, &c->target, true)) {
            portions_drop(b, &give);
            return false;
        }
        portions_drop(b, &c->leaving);
        c->leaving = give;
        c->state = ASSIGNEE_REVOKING;
        wheel_set(&b->wheel, &c->revocation, b->now + c->rebalance_ms * NS_PER_MS);
        return true;
    }
    portions_drop(b, &give);
    return take_free(b, c);
}

/* owned: what it says it holds; NULL: it says nothing. False: no memory; it is where it was. */
static bool reconcile(struct broker *b, struct assignee *c, const struct portions *owned)
{
    if (c->state == ASSIGNEE_REVOKING) {
        if (!owned || portions_meet(owned, &c->leaving))
            return true;
        portions_drop(b, &c->leaving);
        wheel_cancel(&b->wheel, &c->revocation);
        c->state = ASSIGNEE_WAITING;
    }
    return c->state == ASSIGNEE_SETTLED && c->epoch == c->group->target_epoch ? true : go_on(b, c, owned);
}

/* Topics that were made, deleted, or have grown are a change as well; targets follow the epoch. */
bool group_look_around(struct broker *b, struct group *g)
{
    if (g->topics_gen != b->streams.topics_gen) {
        if (!topics_match_again(b, g))
            return false;
        uint64_t hash = topics_hash(g);
        g->generation += g->topics_hash != hash;
        g->topics_hash = hash;
        g->topics_gen = b->streams.topics_gen;
    }
    if (g->generation == g->target_epoch)
        return true;
    if (!group_assign(b, g))
        return false;
    g->target_epoch = g->generation;
    return true;
}

/* ---- CONSUME ---- */

static bool read_consume(const struct command *c, struct consume *ret)
{
    struct reader r = reader_of(c->ask->args);
    *ret = (struct consume){.client = reader_str8(&r)};
    ret->has = reader_u8(&r);
    ret->assignor = (enum group_assignor)reader_u8(&r);
    ret->topics = reader_str32(&r);
    ret->pattern = reader_str32(&r);
    ret->owned = r;
    ret->epoch = (uint32_t)c->ask->number;
    ret->rebalance_ms = (uint32_t)(c->ask->number >> 32);
    return reader_ok(&r) && r.left % GROUP_PLACE_BYTES == 0 && ret->assignor < GROUP_ASSIGNORS &&
           topics_valid(ret->topics) && c->ask->key.len <= NAME_MAX_BYTES && c->ask->other.len <= NAME_MAX_BYTES;
}

static bool read_owned(struct broker *b, const struct consume *q, struct portions *ret)
{
    struct reader r = q->owned;
    uint32_t n = 0;
    struct portion *rows = mem_zalloc_as(MEM_GROUPS, (r.left / GROUP_PLACE_BYTES + 1) * sizeof *rows);
    while (rows && r.left) {
        rows[n].stream = reader_u64(&r);
        rows[n++].partition = reader_u32(&r);
    }
    bool good = rows && portions_set(b, ret, rows, n);
    mem_free_as(MEM_GROUPS, rows);
    return good;
}

/* What it subscribes to, and how it likes to be given. */
static enum group_error subscribe(struct broker *b, struct assignee *c, const struct consume *q)
{
    struct group *g = c->group;
    bool topics = false, changed = c->epoch == 0; /* it is new */
    const struct slice *names = q->has & CONSUME_TOPICS ? &q->topics : NULL;
    const struct slice *pattern = q->has & CONSUME_PATTERN ? &q->pattern : NULL;
    enum group_error error = names || pattern ? topics_subscribe(b, c, names, pattern, &topics) : GROUP_OK;
    if (error)
        return error;
    changed = changed || topics;
    if ((q->has & CONSUME_ASSIGNOR) && q->assignor != c->assignor) {
        c->assignor = q->assignor;
        changed = true;
    }
    if (q->rebalance_ms)
        c->rebalance_ms = q->rebalance_ms;
    if (changed) {
        g->generation++;
        g->topics_hash = topics_hash(g);
    }
    return GROUP_OK;
}

/* A static member is back, as another process: it has what it had. */
static struct assignee *come_back(struct broker *b, struct assignee *old, const struct peer *peer,
                                  const struct command *c, const struct consume *q)
{
    struct assignee *m = assignee_make(b, old->group, peer, c->ask->other, old->instance, q);
    if (!m)
        return NULL;
    struct portions none = {0};
    m->topics = old->topics;
    m->named = old->named;
    m->pattern = old->pattern;
    old->pattern = (struct pattern){0};
    old->named = (struct slice){0};
    m->assigned = old->assigned;
    m->target = old->target;
    m->assignor = old->assignor;
    m->rebalance_ms = old->rebalance_ms;
    m->epoch = m->epoch_before = old->epoch;
    old->topics = (struct slice){0};
    old->assigned = old->target = none;
    assignee_free(b, old);
    m->state = ASSIGNEE_WAITING; /* looks at its target at once */
    return m;
}

static enum group_error join(struct broker *b, struct group *g, const struct peer *peer, const struct command *c,
                             const struct consume *q, struct assignee **ret)
{
    struct assignee *old = c->ask->key.len ? find_instance(g, c->ask->key) : assignee_find(g, c->ask->other);
    uint32_t max = b->options.group_members_max ? b->options.group_members_max : GROUP_MEMBERS_MAX;
    if (old && slice_equal(old->id, c->ask->other)) { /* it begins again, and holds nothing */
        portions_drop(b, &old->leaving);
        wheel_cancel(&b->wheel, &old->revocation);
        old->state = ASSIGNEE_WAITING;
        old->away = false;
        *ret = old;
        return GROUP_OK;
    }
    if (old && !old->away)
        return GROUP_ERR_INSTANCE_HELD;
    if (old) {
        *ret = come_back(b, old, peer, c, q);
        return *ret ? GROUP_OK : GROUP_ERR_NO_MEMORY;
    }
    if (g->assignee_count >= max)
        return GROUP_ERR_FULL;
    struct assignee *m = assignee_make(b, g, peer, c->ask->other, c->ask->key, q);
    if (!m)
        return GROUP_ERR_NO_MEMORY;
    m->state = ASSIGNEE_WAITING;
    m->rebalance_ms = GROUP_SESSION_MAX_MS;
    *ret = m;
    return GROUP_OK;
}

/* The group's first consumer: from now on the broker assigns. */
static enum group_error begin_consumers(struct broker *b, struct group *g)
{
    struct slice type;
    if (g->state != GROUP_EMPTY || g->sharing)
        return GROUP_ERR_NO_GROUP; /* its members assign themselves */
    if (!group_keep(b, &type, slice_str("consumer")))
        return GROUP_ERR_NO_MEMORY;
    group_drop(b, &g->type);
    g->type = type;
    group_move(g, GROUP_CONSUMERS);
    if (!group_log(b, g)) {
        g->state = GROUP_EMPTY;
        return GROUP_ERR_NO_MEMORY;
    }
    wheel_cancel(&b->wheel, &g->retention);
    return GROUP_OK;
}

static enum group_error beats(const struct assignee *c, const struct consume *q, const struct portions *owned)
{
    if (c->away) /* it has said that it would join again */
        return GROUP_ERR_FENCED_EPOCH;
    if (q->epoch == c->epoch)
        return GROUP_OK;
    bool lost = q->epoch == c->epoch_before && (q->has & CONSUME_OWNED); /* it did not get the last answer */
    for (uint32_t i = 0; lost && i < owned->count; i++)
        lost = portions_have(&c->assigned, &owned->at[i]);
    return lost ? GROUP_OK : GROUP_ERR_FENCED_EPOCH;
}

struct answer *assignee_told(const struct broker *b, const struct assignee *c, bool whole)
{
    struct writer w;
    const struct group_config *config = group_config_of(c->group);
    int64_t beat = c->group->sharing ? config->beat_ms : config->consumer_beat_ms;
    if (!beat)
        beat = b->options.group_consumer_beat_ms ? b->options.group_consumer_beat_ms : GROUP_CONSUMER_BEAT_MS;
    struct answer *answer = group_block(16 + c->id.len + c->assigned.count * (size_t)GROUP_PLACE_BYTES, &w);
    if (!answer)
        return NULL;
    writer_str8(&w, c->id);
    writer_u32(&w, c->epoch);
    writer_u32(&w, (uint32_t)(c->state == ASSIGNEE_SETTLED ? beat : beat / BEAT_SOONER + 1));
    writer_u8(&w, whole);
    for (uint32_t i = 0; whole && i < c->assigned.count; i++) {
        writer_u64(&w, c->assigned.at[i].stream);
        writer_u32(&w, c->assigned.at[i].partition);
    }
    return group_block_end(answer, &w);
}

static enum group_error consume_as(struct broker *b, struct peer *peer, const struct command *c,
                                   const struct consume *q, struct assignee *m, const struct portions *owned)
{
    struct portions before = {0};
    bool joins = q->epoch == GROUP_EPOCH_JOIN, says = joins || (q->has & CONSUME_OWNED);
    bool whole = joins || (q->has & (CONSUME_TOPICS | CONSUME_OWNED)) == (CONSUME_TOPICS | CONSUME_OWNED) ||
                 q->epoch != m->epoch;
    assignee_alive(b, m);
    enum group_error error = subscribe(b, m, q);
    bool good = !error && portions_set(b, &before, m->assigned.at, m->assigned.count) &&
                group_look_around(b, m->group) && reconcile(b, m, says ? owned : NULL);
    struct answer *answer = good ? assignee_told(b, m, whole || !portions_equal(&before, &m->assigned)) : NULL;
    portions_drop(b, &before);
    if (!error)
        group_say_or(b, peer, c, GROUP_OK, answer, m->group->lsn);
    else if (m->epoch == 0)
        assignee_gone(b, m); /* it has just come, and may not */
    return error;
}

static enum group_error leave(struct broker *b, struct peer *peer, const struct command *c, const struct consume *q,
                              struct assignee *m)
{
    struct writer w;
    struct answer *answer = group_block(16 + m->id.len, &w);
    if (!answer)
        return GROUP_ERR_NO_MEMORY;
    writer_str8(&w, m->id);
    writer_u32(&w, q->epoch);
    writer_u32(&w, 0);
    writer_u8(&w, 0);
    m->away = q->epoch == GROUP_EPOCH_AWAY;
    if (!m->away || !m->instance.len)
        assignee_gone(b, m);
    group_say(b, peer, c, GROUP_OK, group_block_end(answer, &w), 0);
    return GROUP_OK;
}

static enum group_error consume_in(struct broker *b, struct peer *peer, const struct command *c,
                                   const struct consume *q, struct group *g)
{
    struct portions owned = {0};
    struct assignee *m = NULL;
    enum group_error error = q->epoch == GROUP_EPOCH_JOIN ? join(b, g, peer, c, q, &m) : assignee_check(g, c, &m);
    if (error)
        return error;
    if (q->epoch == GROUP_EPOCH_LEAVE || q->epoch == GROUP_EPOCH_AWAY)
        return leave(b, peer, c, q, m);
    error = read_owned(b, q, &owned) ? GROUP_OK : GROUP_ERR_NO_MEMORY;
    if (q->epoch != GROUP_EPOCH_JOIN && !error)
        error = beats(m, q, &owned);
    if (!error)
        error = consume_as(b, peer, c, q, m, &owned);
    else if (!timer_is_set(&m->session)) /* it has just come, and hears nothing of it */
        assignee_gone(b, m);
    portions_drop(b, &owned);
    return error;
}

static enum group_error consume(struct broker *b, struct peer *peer, const struct command *c)
{
    struct consume q;
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    if (error || !read_consume(c, &q))
        return error ? error : GROUP_ERR_INVALID;
    struct group *g = group_find(b, peer->vhost, c->ask->name);
    bool joins = q.epoch == GROUP_EPOCH_JOIN, made = !g;
    if (!joins && (!g || g->state != GROUP_CONSUMERS))
        return GROUP_ERR_UNKNOWN_MEMBER;
    if (!group_has_room(b, sizeof(struct assignee) + 2 * c->ask->args.len))
        return GROUP_ERR_NO_MEMORY;
    if (made && !(g = group_make(b, peer->vhost, c->ask->name)))
        return GROUP_ERR_NO_MEMORY;
    error = g->state == GROUP_CONSUMERS ? GROUP_OK : begin_consumers(b, g);
    if (!error)
        error = consume_in(b, peer, c, &q, g);
    if (g->state == GROUP_CONSUMERS && !g->assignee_count) { /* nobody has come */
        group_move(g, GROUP_EMPTY);
        (void)!group_log(b, g);
        group_rest(b, g);
    }
    return error;
}

void do_group_consume(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    enum group_error error = consume(b, peer, c);
    if (error)
        group_say(b, peer, c, error, NULL, 0);
}

/* ---- what is told, what must hold ---- */

enum group_kind group_kind(const struct group *g)
{
    return g->sharing ? GROUP_SHARE : g->state == GROUP_CONSUMERS ? GROUP_CONSUMER : GROUP_CLASSIC;
}

enum group_state group_shown(const struct group *g)
{
    if (g->state == GROUP_SHARERS)
        return GROUP_STABLE;
    if (g->state != GROUP_CONSUMERS)
        return g->state;
    if (g->generation != g->target_epoch)
        return GROUP_ASSIGNING;
    LIST_EACH(&g->assignees, node, after)
    {
        const struct assignee *c = CONTAINER_OF(node, struct assignee, link);
        if (c->state != ASSIGNEE_SETTLED || c->epoch != g->target_epoch)
            return GROUP_RECONCILING;
    }
    return GROUP_STABLE;
}

static void put_portions(struct writer *w, const struct portions *set)
{
    size_t mark = writer_mark32(w);
    for (uint32_t i = 0; i < set->count; i++) {
        writer_u64(w, set->at[i].stream);
        writer_u32(w, set->at[i].partition);
    }
    writer_patch32(w, mark);
}

static struct answer *described(const struct group *g)
{
    struct writer w;
    struct slice none = {0};
    size_t bytes = 32;
    LIST_EACH(&g->assignees, node, after)
    bytes += 32 + CONTAINER_OF(node, struct assignee, link)->pattern.text.len +
             assignee_bytes(CONTAINER_OF(node, struct assignee, link));
    struct answer *answer = group_block(bytes, &w);
    if (!answer)
        return NULL;
    writer_u8(&w, (uint8_t)group_shown(g));
    writer_u32(&w, g->generation);
    writer_u32(&w, g->target_epoch);
    writer_u8(&w, (uint8_t)g->assignor);
    LIST_EACH(&g->assignees, node, after)
    {
        const struct assignee *c = CONTAINER_OF(node, struct assignee, link);
        writer_str8(&w, c->id);
        writer_str8(&w, c->instance);
        writer_str8(&w, c->client);
        writer_str8(&w, c->host);
        writer_u32(&w, c->epoch);
        writer_str32(&w, c->named);
        writer_str32(&w, c->pattern.code ? c->pattern.text : none);
        put_portions(&w, &c->assigned);
        put_portions(&w, &c->target);
    }
    return group_block_end(answer, &w);
}

void do_group_describe_consumers(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    const struct group *g = error ? NULL : group_find(b, peer->vhost, c->ask->name);
    bool fits = g && (c->ask->number ? g->sharing : g->state == GROUP_CONSUMERS);
    if (!error && !fits)
        error = GROUP_ERR_NO_GROUP;
    group_say_or(b, peer, c, error, error ? NULL : described(g), 0);
}

void assignees_check(const struct broker *b, const struct group *g)
{
    uint32_t count = 0;
    LIST_EACH(&g->assignees, node, after)
    {
        const struct assignee *c = CONTAINER_OF(node, struct assignee, link);
        CHECK(c->group == g && (b->recovering || timer_is_set(&c->session)));
        CHECK(timer_is_set(&c->revocation) == (c->state == ASSIGNEE_REVOKING));
        CHECK((c->state == ASSIGNEE_REVOKING) == (c->leaving.count > 0));
        for (uint32_t i = 0; !g->sharing && i < c->assigned.count; i++)
            CHECK(!held_by_another(c, &c->assigned.at[i])); /* H1 */
        for (uint32_t i = 0; i < c->leaving.count; i++)
            CHECK(!held_by_another(c, &c->leaving.at[i]));
        for (struct list *at = c->link.next; !g->sharing && g->generation == g->target_epoch && at != &g->assignees;
             at = at->next)
            CHECK(!portions_meet(&c->target, &CONTAINER_OF(at, struct assignee, link)->target)); /* H2 */
        count++;
    }
    CHECK(count == g->assignee_count && (g->state == (g->sharing ? GROUP_SHARERS : GROUP_CONSUMERS)) == (count > 0));
}
