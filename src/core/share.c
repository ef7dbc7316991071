/* Share groups: what each has done with the partitions it reads, and who has acquired what. See share_int.h and decision 0008.
 *
 *   S1  Ranges of a share ascend without a gap from its start to its end (share_ranges.h); each ACQUIRED one counts in its sharer's
 *       `held`, and while there is one the timer is set.
 *   S2  What is acquired is not journalled: after a restart it is available, with as many deliveries as before. What is said of it is
 *       journalled before it counts, and answered when that is durable.
 *   S3  One fetch at a time reads for a share, so nobody is given what another is about to be given.
 *   S4  A share goes with its group or its stream; a sharer with the last record that it holds.
 */
#include "core/share_int.h"

#define AGAIN_NS NS_PER_S /* without memory */

static struct slice key_of(const void *value)
{
    return slice_of(((const struct share *)value)->key, sizeof((const struct share *)value)->key);
}

struct share *share_find(const struct group *g, uint64_t stream, uint32_t partition)
{
    uint64_t key[2] = {stream, partition};
    return map_get(&g->share_map, slice_of(key, sizeof key));
}

size_t share_bytes(const struct share *s)
{
    return sizeof *s + share_ranges_bytes(&s->ranges);
}

static void late(void *arg, struct timer *timer);

struct share *share_make(struct broker *b, struct group *g, struct stream *stream, uint32_t partition, uint64_t start)
{
    struct share *s = group_has_room(b, sizeof *s) ? mem_zalloc_as(MEM_GROUPS, sizeof *s) : NULL;
    if (!s)
        return NULL;
    s->group = g;
    s->stream = stream;
    s->key[0] = stream->queue->id;
    s->key[1] = partition;
    share_ranges_init(&s->ranges, start);
    list_init(&s->waiting);
    timer_init(&s->timer, late);
    if (!map_put(&g->share_map, key_of(s), s)) {
        mem_free_as(MEM_GROUPS, s);
        return NULL;
    }
    if (!b->recovering && !share_log(b, s)) {
        (void)map_take(&g->share_map, key_of(s));
        mem_free_as(MEM_GROUPS, s);
        return NULL;
    }
    list_insert(&g->shares, &s->link);
    list_insert(&stream->shares, &s->stream_link);
    wheel_cancel(&b->wheel, &g->retention);
    b->group_bytes += sizeof *s;
    return s;
}

bool share_reserve(struct broker *b, struct share *s, uint32_t sets)
{
    size_t before = share_ranges_bytes(&s->ranges);
    bool good = share_ranges_reserve(&s->ranges, sets);
    b->group_bytes += share_ranges_bytes(&s->ranges) - before;
    return good;
}

void share_wake(struct broker *b, struct share *s)
{
    struct list waiting;
    list_init(&waiting);
    if (list_empty(&s->waiting))
        return;
    list_insert(s->waiting.next, &waiting); /* takes the list over: who is not pleased comes into it again */
    list_remove(&s->waiting);
    while (!list_empty(&waiting)) {
        struct fetch_row *row = CONTAINER_OF(waiting.next, struct fetch_row, share_link);
        fetch_look_again(b, row->fetch);
    }
}

/* What is acquired below `until` is nobody's any more; the ranges are then given up by the caller. True: there was something. */
static bool let_go(struct broker *b, struct share *s, uint64_t until)
{
    bool any = false;
    for (uint32_t i = 0; i < s->ranges.count && s->ranges.at[i].first < until; i++) {
        const struct share_range *range = &s->ranges.at[i];
        if (range->state != SHARE_ACQUIRED)
            continue;
        range->holder->held -= (range->last < until ? range->last + 1 : until) - range->first;
        sharer_tidy(b, range->holder); /* with its last record, so no range behind is its own */
        any = true;
    }
    return any;
}

void share_trim(struct broker *b, struct share *s, uint64_t start)
{
    bool any = let_go(b, s, start);
    share_ranges_trim(&s->ranges, start);
    if (any)
        share_watch(b, s);
}

void share_free(struct broker *b, struct share *s)
{
    struct list waiting;
    list_init(&waiting);
    (void)let_go(b, s, UINT64_MAX);
    if (s->busy)
        s->busy->share = NULL;
    while (!list_empty(&s->waiting)) {
        struct list *first = s->waiting.next;
        list_remove(first);
        if (!b->recovering)
            list_insert(&waiting, first);
    }
    wheel_cancel(&b->wheel, &s->timer);
    compact_share_removed(b, &s->link);
    list_remove(&s->link);
    list_remove(&s->stream_link);
    (void)map_take(&s->group->share_map, key_of(s));
    b->group_bytes -= share_bytes(s);
    share_ranges_fini(&s->ranges);
    mem_free_as(MEM_GROUPS, s);
    while (!list_empty(&waiting))
        fetch_look_again(b, CONTAINER_OF(waiting.next, struct fetch_row, share_link)->fetch);
}

void shares_init(struct broker *b, struct group *g)
{
    list_init(&g->shares);
    list_init(&g->sharers);
    map_init_keyed(&g->share_map, b->seed + 13, key_of);
}

void shares_fini(struct broker *b, struct group *g)
{
    while (!list_empty(&g->shares))
        share_free(b, CONTAINER_OF(g->shares.next, struct share, link));
    CHECK(list_empty(&g->sharers)); /* S4 */
    map_fini(&g->share_map);
}

void shares_stream_gone(struct broker *b, struct stream *stream)
{
    while (!list_empty(&stream->shares)) {
        struct share *s = CONTAINER_OF(stream->shares.next, struct share, stream_link);
        struct group *g = s->group;
        share_free(b, s);
        group_rest(b, g);
    }
}

/* ---- who has acquired something ---- */

struct sharer *sharer_find(const struct group *g, struct slice id)
{
    LIST_EACH(&g->sharers, node, after)
    {
        struct sharer *who = CONTAINER_OF(node, struct sharer, link);
        if (slice_equal(who->id, id))
            return who;
    }
    return NULL;
}

struct sharer *sharer_make(struct broker *b, struct group *g, struct peer *peer, struct slice id)
{
    struct sharer *who = sharer_find(g, id);
    if (!who && group_has_room(b, sizeof *who + id.len))
        who = mem_zalloc_as(MEM_GROUPS, sizeof *who + id.len);
    if (!who)
        return NULL;
    if (!who->group) {
        who->group = g;
        if (id.len)
            memcpy(who->bytes, id.ptr, id.len);
        who->id = slice_of(who->bytes, id.len);
        list_init(&who->peer_link);
        list_insert(&g->sharers, &who->link);
        b->group_bytes += sizeof *who + id.len;
    }
    list_remove(&who->peer_link);
    list_insert(&peer->sharers, &who->peer_link);
    return who;
}

void sharer_tidy(struct broker *b, struct sharer *who)
{
    if (who->held)
        return;
    list_remove(&who->link);
    list_remove(&who->peer_link);
    b->group_bytes -= sizeof *who + who->id.len;
    mem_free_as(MEM_GROUPS, who);
}

/* ---- changes ---- */

bool share_changes_add(struct share_changes *c, const struct share_change *one)
{
    if (c->count == c->max) {
        uint32_t wanted = c->max ? 2 * c->max : 8;
        struct share_change *grown = mem_realloc(c->at, wanted * sizeof *grown);
        if (!grown)
            return false;
        c->at = grown;
        c->max = wanted;
    }
    c->at[c->count++] = *one;
    return true;
}

void share_changes_fini(struct share_changes *c)
{
    mem_free(c->at);
    *c = (struct share_changes){0};
}

struct share_range share_given_back(const struct share *s, const struct share_range *range)
{
    bool again = range->count < group_config_of(s->group)->deliveries_max;
    return (struct share_range){.first = range->first,
                                .last = range->last,
                                .state = again ? SHARE_AVAILABLE : SHARE_GONE,
                                .count = again ? range->count : 0};
}

static uint32_t ranges_max(const struct share *s)
{
    uint32_t locks = group_config_of(s->group)->locks_max;
    return locks < UINT32_MAX / SHARE_RANGES_PER_LOCK ? locks * SHARE_RANGES_PER_LOCK : UINT32_MAX;
}

bool share_is_full(const struct share *s)
{
    return s->ranges.count >= ranges_max(s);
}

/* Old ranges and changes side by side: a range begins where two neighbours differ. */
bool share_would_burst(const struct share *s, const struct share_changes *changes)
{
    const struct share_range *before = NULL;
    uint32_t count = 0, k = 0;
    if (s->ranges.count + 2 * (uint64_t)changes->count <= ranges_max(s))
        return false; /* however they lie */
    for (uint32_t i = 0; i < s->ranges.count; i++) {
        const struct share_range *range = &s->ranges.at[i];
        for (uint64_t at = range->first; at <= range->last;) {
            bool said = k < changes->count && changes->at[k].to.first == at;
            const struct share_range *next = said ? &changes->at[k].to : range;
            uint64_t rest = k < changes->count && changes->at[k].to.first <= range->last ? changes->at[k].to.first
                                                                                         : range->last + 1;
            at = said ? next->last + 1 : rest;
            k += said;
            count += !before || !share_ranges_alike(before, next);
            before = next;
        }
    }
    return count > s->ranges.count && count > ranges_max(s);
}

bool share_commit(struct broker *b, struct share *s, const struct share_changes *changes)
{
    if (!share_reserve(b, s, changes->count) || !share_log_changes(b, s, changes))
        return false;
    for (uint32_t i = 0; i < changes->count; i++) {
        const struct share_change *one = &changes->at[i];
        share_ranges_set(&s->ranges, &one->to);
        if (one->to.state != SHARE_ACQUIRED)
            one->from->held -= one->to.last - one->to.first + 1;
    }
    for (uint32_t i = changes->count; i-- > 0;) { /* each once: it is gone when it is met again */
        struct sharer *who = changes->at[i].from;
        bool last = true;
        for (uint32_t k = 0; k < i && last; k++)
            last = changes->at[k].from != who;
        if (last)
            sharer_tidy(b, who);
    }
    share_watch(b, s);
    return true;
}

/* ---- locks ---- */

void share_watch(struct broker *b, struct share *s)
{
    mono_t first = 0;
    for (uint32_t i = 0; i < s->ranges.count; i++)
        if (s->ranges.at[i].until && (!first || s->ranges.at[i].until < first))
            first = s->ranges.at[i].until;
    if (first)
        wheel_set(&b->wheel, &s->timer, first > b->now ? first : b->now);
    else
        wheel_cancel(&b->wheel, &s->timer);
}

/* who: all of his; NULL: whose time is over. False: no memory. */
static bool take_back(struct broker *b, struct share *s, struct sharer *who)
{
    struct share_changes changes = {0};
    bool good = true;
    for (uint32_t i = 0; good && i < s->ranges.count; i++) {
        const struct share_range *range = &s->ranges.at[i];
        if (range->state != SHARE_ACQUIRED || (who ? range->holder != who : range->until > b->now))
            continue;
        struct share_change one = {.to = share_given_back(s, range), .from = range->holder};
        good = share_changes_add(&changes, &one);
    }
    if (good && changes.count)
        good = share_commit(b, s, &changes);
    bool any = changes.count > 0;
    share_changes_fini(&changes);
    if (good && any)
        share_wake(b, s);
    return good;
}

static void late(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct share *s = CONTAINER_OF(timer, struct share, timer);
    if (!take_back(b, s, NULL))
        wheel_set(&b->wheel, timer, b->now + AGAIN_NS);
    else
        share_watch(b, s);
}

/* Without memory what is left is given back when its time is over. */
static void release_all(struct broker *b, struct group *g, struct slice id)
{
    LIST_EACH(&g->shares, node, after)
    {
        struct sharer *who = sharer_find(g, id); /* it goes with its last record */
        if (who)
            (void)!take_back(b, CONTAINER_OF(node, struct share, link), who);
    }
}

void sharer_release(struct broker *b, struct group *g, struct slice id)
{
    if (g->sharing && sharer_find(g, id))
        release_all(b, g, id);
}

void shares_forget_peer(struct broker *b, struct peer *peer)
{
    while (!list_empty(&peer->sharers)) {
        struct sharer *who = CONTAINER_OF(peer->sharers.next, struct sharer, peer_link);
        uint8_t id[NAME_MAX_BYTES];
        size_t len = who->id.len;
        memcpy(id, who->bytes, len);
        list_remove(&who->peer_link);
        if (!b->recovering) /* else the broker is being freed */
            release_all(b, who->group, slice_of(id, len));
    }
}

/* ---- what must hold ---- */

uint64_t shares_check(const struct broker *b, const struct group *g)
{
    uint64_t bytes = 0, held = 0, acquired = 0;
    uint32_t count = 0;
    LIST_EACH(&g->sharers, node, after)
    {
        const struct sharer *who = CONTAINER_OF(node, struct sharer, link);
        CHECK(who->held && who->group == g); /* S4 */
        held += who->held;
        bytes += sizeof *who + who->id.len;
    }
    LIST_EACH(&g->shares, node, after)
    {
        const struct share *s = CONTAINER_OF(node, struct share, link);
        uint64_t mine = 0;
        share_ranges_check(&s->ranges); /* S1 */
        for (uint32_t i = 0; i < s->ranges.count; i++)
            if (s->ranges.at[i].state == SHARE_ACQUIRED)
                mine += s->ranges.at[i].last - s->ranges.at[i].first + 1;
        CHECK(!mine || timer_is_set(&s->timer));
        CHECK(!s->busy || s->busy->share == s);
        CHECK(map_get(&g->share_map, key_of(s)) == s && s->group == g);
        acquired += mine;
        bytes += share_bytes(s);
        count++;
    }
    CHECK(held == acquired && count == g->share_map.count && (b->recovering || !count || g->sharing));
    return bytes;
}
