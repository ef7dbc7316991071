/* Who of a group in which the broker assigns shall have which partition: the assignors `uniform` and `range` (KIP-848).
 *
 * Uniform gives everybody as many as anybody, and takes away no more than that needs: each keeps what it had, up to its share, and
 * what is left goes to who has least. Range gives each a run of neighbouring partitions of each topic, by the members' order, so
 * that the same member has the same partitions of all topics that are alike. Both are a function of the group and its topics. */
#include "core/group_int.h"
#include "core/stream_int.h"

#include <stdlib.h>

struct wanted { /* a topic that somebody subscribes to */
    uint64_t stream;
    uint32_t partitions, members; /* how many want it */
    uint32_t given;               /* range: members that have had their part */
    uint64_t first;               /* bit of its first partition in `taken` */
};

struct deal {
    struct wanted *topics; /* by stream */
    uint32_t topic_count;
    struct assignee **members; /* by id */
    uint32_t member_count;
    uint64_t *wants;     /* bit per topic, member by member */
    uint32_t row;        /* words of a member's */
    struct portion *all; /* what has been given, in the order in which it was … */
    uint32_t *owner;     /* … and to whom */
    uint32_t given;
    uint64_t total;  /* partitions */
    uint64_t room;   /* of `all`: in a share group several may have the same */
    uint32_t *count; /* by member */
    uint64_t *taken; /* bit per partition: it has been given */
};

/* ---- what there is ---- */

static struct stream *topic_of(const struct group *g, struct slice name)
{
    const struct queue *q = queue_find(g->vhost, name);
    return q ? q->stream : NULL;
}

static int by_stream(const void *a, const void *b)
{
    uint64_t x = ((const struct wanted *)a)->stream, y = ((const struct wanted *)b)->stream;
    return (x > y) - (x < y);
}

/* Each topic once, by its stream. */
static bool find_topics(const struct group *g, struct deal *d)
{
    uint32_t max = 0, n = 0;
    LIST_EACH(&g->assignees, node, after)
    {
        struct reader r = reader_of(CONTAINER_OF(node, struct assignee, link)->topics);
        for (struct slice name; topics_next(&r, &name);)
            max++;
    }
    d->topics = mem_zalloc_as(MEM_GROUPS, (max + 1) * sizeof *d->topics);
    if (!d->topics)
        return false;
    LIST_EACH(&g->assignees, node, after)
    {
        struct reader r = reader_of(CONTAINER_OF(node, struct assignee, link)->topics);
        for (struct slice name; topics_next(&r, &name);) {
            const struct stream *s = topic_of(g, name);
            if (s)
                d->topics[n++] = (struct wanted){.stream = s->queue->id, .partitions = s->partition_count};
        }
    }
    qsort(d->topics, n, sizeof *d->topics, by_stream);
    for (uint32_t i = 0; i < n; i++)
        if (!d->topic_count || d->topics[d->topic_count - 1].stream != d->topics[i].stream)
            d->topics[d->topic_count++] = d->topics[i];
    for (uint32_t i = 0; i < d->topic_count; i++) {
        d->topics[i].first = d->total;
        d->total += d->topics[i].partitions;
    }
    return true;
}

static struct wanted *wanted_of(const struct deal *d, uint64_t stream)
{
    struct wanted key = {.stream = stream};
    return bsearch(&key, d->topics, d->topic_count, sizeof key, by_stream);
}

static bool wants(const struct deal *d, uint32_t member, const struct wanted *topic)
{
    size_t bit = (size_t)(topic - d->topics);
    return d->wants[(size_t)member * d->row + bit / 64] >> (bit % 64) & 1;
}

static bool find_members(const struct group *g, struct deal *d)
{
    d->row = d->topic_count / 64 + 1;
    d->members = mem_zalloc_as(MEM_GROUPS, g->assignee_count * sizeof(struct assignee *));
    d->wants = mem_zalloc_as(MEM_GROUPS, g->assignee_count * (size_t)d->row * sizeof *d->wants);
    d->count = mem_zalloc_as(MEM_GROUPS, g->assignee_count * sizeof *d->count);
    d->room = d->total + (g->sharing ? (uint64_t)d->topic_count * g->assignee_count : 0);
    d->all = mem_zalloc_as(MEM_GROUPS, (d->room + 1) * sizeof *d->all);
    d->owner = mem_zalloc_as(MEM_GROUPS, (d->room + 1) * sizeof *d->owner);
    d->taken = mem_zalloc_as(MEM_GROUPS, (d->total / 64 + 1) * sizeof *d->taken);
    if (!d->members || !d->wants || !d->count || !d->all || !d->owner || !d->taken)
        return false;
    LIST_EACH(&g->assignees, node, after)
    {
        struct assignee *c = CONTAINER_OF(node, struct assignee, link);
        struct reader r = reader_of(c->topics);
        for (struct slice name; topics_next(&r, &name);) {
            const struct stream *s = topic_of(g, name);
            struct wanted *topic = s ? wanted_of(d, s->queue->id) : NULL;
            if (!topic || wants(d, d->member_count, topic))
                continue;
            size_t bit = (size_t)(topic - d->topics);
            d->wants[(size_t)d->member_count * d->row + bit / 64] |= 1ull << (bit % 64);
            topic->members++;
        }
        d->members[d->member_count++] = c;
    }
    return true;
}

static void give(struct deal *d, uint32_t member, const struct wanted *topic, uint32_t partition)
{
    d->all[d->given] = (struct portion){topic->stream, partition};
    d->owner[d->given++] = member;
    d->count[member]++;
    d->taken[(topic->first + partition) / 64] |= 1ull << ((topic->first + partition) % 64);
}

/* ---- range ---- */

static void deal_range(struct deal *d)
{
    for (uint32_t t = 0; t < d->topic_count; t++) {
        struct wanted *topic = &d->topics[t];
        uint32_t partition = 0;
        for (uint32_t m = 0; m < d->member_count; m++) {
            if (!wants(d, m, topic))
                continue;
            uint32_t part = topic->partitions / topic->members + (topic->given < topic->partitions % topic->members);
            topic->given++;
            for (uint32_t i = 0; i < part; i++)
                give(d, m, topic, partition++);
        }
    }
}

/* ---- uniform ---- */

static uint32_t least(const struct deal *d, const struct wanted *topic)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t m = 0; m < d->member_count; m++)
        if (wants(d, m, topic) && (best == UINT32_MAX || d->count[m] < d->count[best]))
            best = m;
    return best;
}

/* What each keeps: up to the share that all can have, and of what is over, as long as there is some, one more. */
static void keep_old(struct deal *d)
{
    uint64_t share = d->total / d->member_count, over = d->total % d->member_count;
    for (uint32_t m = 0; m < d->member_count; m++) {
        const struct portions *had = &d->members[m]->target;
        for (uint32_t i = 0; i < had->count; i++) {
            const struct wanted *topic = wanted_of(d, had->at[i].stream);
            if (!topic || !wants(d, m, topic) || had->at[i].partition >= topic->partitions)
                continue;
            if (d->count[m] >= share + (over > 0))
                break;
            over -= d->count[m] == share;
            give(d, m, topic, had->at[i].partition);
        }
    }
}

/* With different subscriptions the shares are no shares: who has two more than somebody who would take one gives it. */
static void even_out(struct deal *d)
{
    for (uint32_t i = 0; i < d->given; i++) {
        uint32_t to = least(d, wanted_of(d, d->all[i].stream));
        if (d->count[d->owner[i]] < d->count[to] + 2)
            continue;
        d->count[d->owner[i]]--;
        d->count[to]++;
        d->owner[i] = to;
    }
}

static void deal_uniform(struct deal *d)
{
    keep_old(d);
    for (uint32_t t = 0; t < d->topic_count; t++)
        for (uint32_t p = 0; p < d->topics[t].partitions; p++) {
            uint64_t bit = d->topics[t].first + p;
            if (!(d->taken[bit / 64] >> (bit % 64) & 1))
                give(d, least(d, &d->topics[t]), &d->topics[t], p);
        }
    even_out(d);
}

/* ---- simple: of share groups ---- */

/* Every partition is somebody's, and everybody who wants one has one: in turn, by the longer of the two lists. */
static void deal_topic(struct deal *d, const struct wanted *topic)
{
    uint32_t more = topic->partitions > topic->members ? topic->partitions : topic->members, m = 0;
    for (uint32_t i = 0; topic->partitions && i < more; i++) {
        while (!wants(d, m, topic))
            m = (m + 1) % d->member_count;
        give(d, m, topic, i % topic->partitions);
        m = (m + 1) % d->member_count;
    }
}

/* All want the same: all topics' partitions are one list. */
static void deal_alike(struct deal *d)
{
    uint64_t more = d->total > d->member_count ? d->total : d->member_count;
    const struct wanted *topic = d->topics;
    uint32_t partition = 0;
    for (uint64_t i = 0; d->total && i < more; i++) {
        while (partition == topic->partitions) {
            topic = topic + 1 == d->topics + d->topic_count ? d->topics : topic + 1;
            partition = 0;
        }
        give(d, (uint32_t)(i % d->member_count), topic, partition++);
    }
}

static void deal_simple(struct deal *d)
{
    bool alike = true;
    for (uint32_t t = 0; t < d->topic_count; t++)
        alike = alike && d->topics[t].members == d->member_count;
    if (alike)
        deal_alike(d);
    for (uint32_t t = 0; !alike && t < d->topic_count; t++)
        deal_topic(d, &d->topics[t]);
}

/* ---- the whole ---- */

/* The one that most members name; of equals the first in the enum. */
static enum group_assignor assignor_of(const struct group *g)
{
    uint32_t votes[GROUP_ASSIGNORS] = {0};
    enum group_assignor best = GROUP_UNIFORM;
    LIST_EACH(&g->assignees, node, after)
    votes[CONTAINER_OF(node, struct assignee, link)->assignor]++;
    for (unsigned i = 0; i < GROUP_ASSIGNORS; i++)
        if (votes[i] > votes[best])
            best = (enum group_assignor)i;
    return best;
}

/* All new targets are made before any is used. */
static bool take_over(struct broker *b, const struct deal *d)
{
    struct portions *fresh = mem_zalloc_as(MEM_GROUPS, d->member_count * sizeof *fresh);
    struct portion *mine = mem_zalloc_as(MEM_GROUPS, (d->given + 1) * sizeof *mine);
    bool good = fresh && mine;
    for (uint32_t m = 0; good && m < d->member_count; m++) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < d->given; i++)
            if (d->owner[i] == m)
                mine[n++] = d->all[i];
        good = portions_set(b, &fresh[m], mine, n);
    }
    for (uint32_t m = 0; fresh && m < d->member_count; m++) {
        struct portions old = fresh[m];
        if (good) {
            old = d->members[m]->target;
            d->members[m]->target = fresh[m];
        }
        portions_drop(b, &old);
    }
    mem_free_as(MEM_GROUPS, fresh);
    mem_free_as(MEM_GROUPS, mine);
    return good;
}

bool group_assign(struct broker *b, struct group *g)
{
    struct deal d = {0};
    bool good = find_topics(g, &d) && group_has_room(b, d.total * sizeof(struct portion)) && find_members(g, &d);
    if (good) {
        g->assignor = assignor_of(g);
        if (g->sharing)
            deal_simple(&d);
        else if (g->assignor == GROUP_RANGE)
            deal_range(&d);
        else
            deal_uniform(&d);
        good = take_over(b, &d);
    }
    void *blocks[] = {d.topics, d.members, d.wants, d.all, d.owner, d.count, d.taken};
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
        mem_free_as(MEM_GROUPS, blocks[i]);
    return good;
}
