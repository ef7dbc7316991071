/* Share groups: what each has done with the partitions it reads. See share_int.h, which has what must hold, and decision 0008. */
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

/* ---- life ---- */

static void late(void *arg, struct timer *timer);

struct share *share_make(struct broker *b, struct group *g, struct partition *p, uint64_t start)
{
    struct share *s = group_has_room(b, sizeof *s) ? mem_zalloc_as(MEM_GROUPS, sizeof *s) : NULL;
    if (!s)
        return NULL;
    s->group = g;
    s->partition = p;
    s->key[0] = p->stream->queue->id;
    s->key[1] = p->number;
    share_ranges_init(&s->ranges, start);
    list_init(&s->holds);
    list_init(&s->waiting);
    list_init(&s->resting);
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
    list_insert(&p->shares, &s->partition_link);
    wheel_cancel(&b->wheel, &g->retention);
    b->group_bytes += sizeof *s;
    return s;
}

/* What is acquired below `until` is nobody's any more; the ranges are then given up by the caller. */
static void let_go(struct broker *b, struct share *s, uint64_t until)
{
    for (uint32_t i = 0; i < s->ranges.count && s->ranges.at[i].first < until; i++) {
        const struct share_range *range = &s->ranges.at[i];
        if (range->state != SHARE_ACQUIRED)
            continue;
        range->holder->count -= (range->last < until ? range->last + 1 : until) - range->first;
        share_hold_tidy(b, range->holder); /* with its last record, so no range behind is its own */
    }
}

static uint64_t acquired(const struct share *s)
{
    return s->ranges.live - s->ranges.available;
}

void share_trim(struct broker *b, struct share *s, uint64_t start)
{
    if (start <= s->ranges.start)
        return;
    let_go(b, s, start);
    share_ranges_trim(&s->ranges, start);
    if (!acquired(s))
        wheel_cancel(&b->wheel, &s->timer);
}

bool share_move(struct broker *b, struct share *s, uint64_t start)
{
    if (!share_log_move(b, s, start))
        return false;
    let_go(b, s, UINT64_MAX);
    b->group_bytes -= share_ranges_bytes(&s->ranges);
    share_ranges_fini(&s->ranges);
    share_ranges_init(&s->ranges, start);
    wheel_cancel(&b->wheel, &s->timer);
    share_wake(b, s);
    return true;
}

static void move_all(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    struct list *first = from->next, *last = from->prev;
    list_init(from);
    first->prev = to->prev;
    to->prev->next = first;
    last->next = to;
    to->prev = last;
}

void share_free(struct broker *b, struct share *s)
{
    struct list waiting;
    list_init(&waiting);
    let_go(b, s, UINT64_MAX);
    if (s->busy)
        s->busy->share = NULL;
    move_all(&waiting, &s->waiting);
    move_all(&waiting, &s->resting);
    wheel_cancel(&b->wheel, &s->timer);
    compact_share_removed(b, &s->link);
    list_remove(&s->link);
    list_remove(&s->partition_link);
    (void)map_take(&s->group->share_map, key_of(s));
    b->group_bytes -= share_bytes(s);
    share_ranges_fini(&s->ranges);
    mem_free_as(MEM_GROUPS, s);
    while (!list_empty(&waiting)) {
        struct fetch_row *row = CONTAINER_OF(waiting.next, struct fetch_row, share_link);
        list_remove(&row->share_link);
        if (!b->recovering)
            fetch_look_again(b, row->fetch);
    }
}

void shares_init(struct broker *b, struct group *g)
{
    list_init(&g->shares);
    map_init_keyed(&g->share_map, b->seed + 13, key_of);
    sharers_init(b, g);
}

void shares_fini(struct broker *b, struct group *g)
{
    while (!list_empty(&g->shares))
        share_free(b, CONTAINER_OF(g->shares.next, struct share, link));
    map_fini(&g->share_map);
    sharers_fini(g);
}

void shares_stream_gone(struct broker *b, struct stream *stream)
{
    for (uint32_t i = 0; i < stream->partition_count; i++)
        while (!list_empty(&stream->partitions[i]->shares)) {
            struct share *s = CONTAINER_OF(stream->partitions[i]->shares.next, struct share, partition_link);
            struct group *g = s->group;
            share_free(b, s);
            group_rest(b, g);
        }
}

/* ---- who waits ----
 *
 * All that wait for a share would find the same, so one looks; if it finds something the next looks when that one has left. */

static void first_looks(struct broker *b, struct share *s)
{
    struct fetch_row *row = CONTAINER_OF(s->waiting.next, struct fetch_row, share_link);
    list_remove(&row->share_link);
    list_insert(&s->resting, &row->share_link);
    fetch_look_at_row(b, row);
}

void share_pass_on(struct broker *b, struct share *s)
{
    const struct list *first;
    while (!s->busy && !list_empty(&s->waiting)) {
        first = s->waiting.next;
        first_looks(b, s);
        if (!list_empty(&s->resting) && s->resting.prev == first)
            move_all(&s->resting, &s->waiting); /* there is nothing, nor is there for others */
    }
}

void share_wake(struct broker *b, struct share *s)
{
    struct list rested;
    s->turn++;
    list_init(&rested);
    move_all(&rested, &s->resting); /* they have waited longer */
    move_all(&rested, &s->waiting);
    move_all(&s->waiting, &rested);
    share_pass_on(b, s);
}

void shares_partition_changed(struct broker *b, struct partition *p)
{
    for (struct list *node = p->shares.next; node != &p->shares; node = node->next) /* none is freed by that */
        share_wake(b, CONTAINER_OF(node, struct share, partition_link));
}

void groups_shares_wake(struct broker *b, struct group *g)
{
    for (struct list *node = g->shares.next; node != &g->shares; node = node->next) /* none is freed by that */
        share_wake(b, CONTAINER_OF(node, struct share, link));
}

void share_wait(struct share *s, struct fetch_row *row)
{
    list_insert(row->turn == s->turn ? &s->resting : &s->waiting, &row->share_link);
}

bool share_should_look(const struct share *s, const struct fetch_row *row)
{
    return !s->busy && row->turn != s->turn;
}

/* ---- changes ---- */

bool share_changes_add(struct share_changes *c, const struct share_change *one)
{
    struct share_change *last = c->count ? &c->at[c->count - 1] : NULL;
    if (last && last->from == one->from && last->to.last + 1 == one->to.first &&
        share_ranges_alike(&last->to, &one->to)) {
        last->to.last = one->to.last;
        return true;
    }
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

uint32_t share_ranges_max(const struct share *s)
{
    uint32_t locks = group_config_of(s->group)->locks_max;
    return locks < UINT32_MAX / SHARE_RANGES_PER_LOCK ? locks * SHARE_RANGES_PER_LOCK : UINT32_MAX;
}

bool share_is_full(const struct share *s)
{
    return s->ranges.count >= share_ranges_max(s);
}

/* Old ranges and changes side by side: a range begins where two neighbours differ. */
bool share_would_burst(const struct share *s, const struct share_changes *changes)
{
    const struct share_range *before = NULL;
    uint64_t at = s->ranges.start;
    uint32_t count = 0, k = 0;
    if (s->ranges.count + 2 * (uint64_t)changes->count <= share_ranges_max(s))
        return false; /* however they lie */
    for (uint32_t i = 0; i < s->ranges.count; i++) {
        const struct share_range *range = &s->ranges.at[i];
        while (at <= range->last) {
            bool said = k < changes->count && changes->at[k].to.first <= at;
            const struct share_range *next = said ? &changes->at[k].to : range;
            bool more = !said && k < changes->count && changes->at[k].to.first <= range->last;
            at = said ? next->last + 1 : more ? changes->at[k].to.first : range->last + 1;
            k += said;
            count += !before || !share_ranges_alike(before, next);
            before = next;
        }
    }
    return count > s->ranges.count && count > share_ranges_max(s);
}

static bool reserve(struct broker *b, struct share *s, uint32_t changes)
{
    size_t before = share_ranges_bytes(&s->ranges);
    uint32_t wanted = share_ranges_wanted(&s->ranges, changes);
    if (wanted > SHARE_RANGES_FREE && wanted > s->ranges.max &&
        !group_has_room(b, (wanted - s->ranges.max) * sizeof(struct share_range)))
        return false;
    bool good = share_ranges_reserve(&s->ranges, changes);
    b->group_bytes += share_ranges_bytes(&s->ranges) - before;
    return good;
}

static void shrink(struct broker *b, struct share *s)
{
    size_t before = share_ranges_bytes(&s->ranges);
    share_ranges_shrink(&s->ranges);
    b->group_bytes -= before - share_ranges_bytes(&s->ranges);
}

/* Records pass from hold to hold. First what is taken, so that who renews is at no time without. */
static void pass(struct broker *b, const struct share_changes *changes)
{
    struct list done;
    list_init(&done);
    for (uint32_t i = 0; i < changes->count; i++)
        if (changes->at[i].to.holder)
            changes->at[i].to.holder->count += changes->at[i].to.last - changes->at[i].to.first + 1;
    for (uint32_t i = 0; i < changes->count; i++) {
        struct share_hold *from = changes->at[i].from;
        if (!from)
            continue;
        from->count -= changes->at[i].to.last - changes->at[i].to.first + 1;
        if (from->count)
            continue;
        list_remove(&from->share_link);
        list_insert(&done, &from->share_link);
    }
    LIST_EACH(&done, node, after)
    share_hold_tidy(b, CONTAINER_OF(node, struct share_hold, share_link));
}

/* Room is reserved. A lock that ends later than the timer's time moves nothing: that one looks, and is set again. */
static void change(struct broker *b, struct share *s, const struct share_changes *changes)
{
    share_ranges_put(&s->ranges, changes->at, changes->count);
    pass(b, changes);
    for (uint32_t i = 0; i < changes->count; i++) {
        mono_t until = changes->at[i].to.until;
        if (until && (!timer_is_set(&s->timer) || until < s->timer.due))
            wheel_set(&b->wheel, &s->timer, until);
    }
    if (!acquired(s))
        wheel_cancel(&b->wheel, &s->timer);
    shrink(b, s);
}

bool share_apply(struct broker *b, struct share *s, const struct share_changes *changes)
{
    if (!reserve(b, s, changes->count))
        return false;
    change(b, s, changes);
    return true;
}

bool share_commit(struct broker *b, struct share *s, const struct share_changes *changes)
{
    if (!reserve(b, s, changes->count) || !share_log_changes(b, s, changes))
        return false;
    change(b, s, changes);
    return true;
}

/* ---- locks ---- */

void share_watch(struct broker *b, struct share *s)
{
    mono_t first = 0;
    for (uint32_t i = 0; acquired(s) && i < s->ranges.count; i++)
        if (s->ranges.at[i].until && (!first || s->ranges.at[i].until < first))
            first = s->ranges.at[i].until;
    if (first)
        wheel_set(&b->wheel, &s->timer, first);
    else
        wheel_cancel(&b->wheel, &s->timer);
}

/* hold NULL: whose time is over. */
bool share_take_back(struct broker *b, struct share *s, const struct share_hold *hold)
{
    struct share_changes changes = {0};
    bool good = true;
    for (uint32_t i = 0; good && i < s->ranges.count; i++) {
        const struct share_range *range = &s->ranges.at[i];
        if (range->state != SHARE_ACQUIRED || (hold ? range->holder != hold : range->until > b->now))
            continue;
        struct share_change one = {.to = share_given_back(s, range), .from = range->holder};
        good = share_changes_add(&changes, &one);
    }
    bool any = changes.count > 0;
    good = good && (!any || share_commit(b, s, &changes));
    share_changes_fini(&changes);
    if (good && any)
        share_wake(b, s);
    return good;
}

static void late(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct share *s = CONTAINER_OF(timer, struct share, timer);
    if (!share_take_back(b, s, NULL))
        wheel_set(&b->wheel, timer, b->now + AGAIN_NS);
    else
        share_watch(b, s);
}

/* ---- what must hold ---- */

static uint32_t check_waiting(const struct share *s, const struct list *waiting)
{
    uint32_t n = 0;
    for (const struct list *node = waiting->next; node != waiting; node = node->next, n++) {
        const struct fetch_row *row = CONTAINER_OF(node, struct fetch_row, share_link);
        CHECK(row->fetch->state == FETCH_STATE_PARKED && row->stream == s->key[0] && row->partition == s->key[1]);
    }
    return n;
}

static void check_share(const struct broker *b, const struct share *s)
{
    const struct share_ranges *r = &s->ranges;
    uint64_t records = 0, held = 0;
    share_ranges_check(r); /* S1 */
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->at[i].state != SHARE_ACQUIRED)
            continue;
        CHECK(r->at[i].holder->share == s);                                                             /* S4 */
        CHECK(b->recovering || r->at[i].until >= s->timer.due || r->at[i].until <= b->now + NS_PER_MS); /* S5 */
        records += r->at[i].last - r->at[i].first + 1;
    }
    for (const struct list *node = s->holds.next; node != &s->holds; node = node->next)
        held += CONTAINER_OF(node, struct share_hold, share_link)->count;
    CHECK(records == held && records == acquired(s)); /* S4 */
    CHECK((records > 0) == timer_is_set(&s->timer));  /* S5 */
    CHECK(!s->busy || s->busy->share == s);           /* S3 */
    CHECK(!check_waiting(s, &s->waiting) || s->busy); /* S6 */
    (void)check_waiting(s, &s->resting);
    CHECK(s->partition->number == s->key[1] && s->partition->stream->queue->id == s->key[0]);
}

uint64_t shares_check(const struct broker *b, const struct group *g)
{
    uint64_t bytes = sharers_check(g);
    uint32_t count = 0;
    LIST_EACH(&g->shares, node, after)
    {
        const struct share *s = CONTAINER_OF(node, struct share, link);
        CHECK(map_get(&g->share_map, key_of(s)) == s && s->group == g);
        check_share(b, s);
        bytes += share_bytes(s);
        count++;
    }
    CHECK(count == g->share_map.count && (b->recovering || !count || g->sharing));
    return bytes;
}
