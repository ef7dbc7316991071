/* Consistent hashing for exchanges, see hashring.h.
 *
 * Weighted rendezvous: every target draws a number from (key, target) and the smallest -ln(number)/weight wins. Shares are
 * exactly proportional to the weights from the first target on, and a target that comes or goes moves its own share and
 * nothing else. A circle of points, the textbook way, needs some hundred points per unit of weight to be as even, which
 * at weight 4096 is megabytes per binding; here a target costs 40 bytes and a choice one multiplication per target. The
 * logarithms are only taken when weights differ: with equal weights the largest number wins just the same.
 *
 * The draws depend on ids and keys only, so the order of adding does not matter and a restart changes nothing.
 * Core thread.
 */
#include "core/hashring.h"

#include "base/check.h"
#include "base/mem.h"

#include <math.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct member {
    uint64_t salt; /* hash of the id */
    uint64_t id;
    uint64_t weight; /* of all its adds together */
    uint64_t adds;
    void *target;
};

struct hashring {
    struct member *members;
    uint32_t count, room;
    uint64_t weight_first; /* the weight of members[0] */
    uint32_t differing;    /* how many weights are not weight_first */
};

struct hashring *hashring_new(void)
{
    return mem_zalloc(sizeof(struct hashring));
}

void hashring_free(struct hashring **ring)
{
    if (*ring)
        mem_free((*ring)->members);
    mem_free(*ring);
    *ring = NULL;
}

/* 64 bits well mixed (the finalizer of splitmix64). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static struct member *find(struct hashring *ring, uint64_t id, void *target)
{
    for (uint32_t i = 0; i < ring->count; i++)
        if (ring->members[i].id == id && ring->members[i].target == target)
            return &ring->members[i];
    return NULL;
}

static void count_differing(struct hashring *ring)
{
    ring->weight_first = ring->count ? ring->members[0].weight : 0;
    ring->differing = 0;
    for (uint32_t i = 0; i < ring->count; i++)
        ring->differing += ring->members[i].weight != ring->weight_first;
}

bool hashring_add(struct hashring *ring, uint64_t id, unsigned weight, void *target)
{
    CHECK(weight <= HASHRING_WEIGHT_MAX && target);
    struct member *m = find(ring, id, target);
    if (m) {
        m->weight += weight;
        m->adds++;
        count_differing(ring);
        return true;
    }
    if (ring->count == ring->room) {
        uint32_t room = ring->room ? ring->room * 2 : 4;
        struct member *grown = mem_realloc(ring->members, room * sizeof *grown);
        if (!grown)
            return false;
        ring->members = grown;
        ring->room = room;
    }
    ring->members[ring->count++] = (struct member){
        .salt = mix(id + UINT64_C(0x9e3779b97f4a7c15)), .id = id, .weight = weight, .adds = 1, .target = target};
    count_differing(ring);
    return true;
}

void hashring_remove(struct hashring *ring, uint64_t id, unsigned weight, void *target)
{
    struct member *m = find(ring, id, target);
    CHECK(m && m->weight >= weight);
    m->weight -= weight;
    if (--m->adds == 0)
        *m = ring->members[--ring->count];
    count_differing(ring);
}

static uint64_t draw(const struct member *m, uint64_t key)
{
    return mix(key ^ m->salt);
}

static void *pick_equal(const struct hashring *ring, uint64_t key)
{
    const struct member *best = NULL;
    uint64_t best_draw = 0;
    for (uint32_t i = 0; i < ring->count; i++) {
        const struct member *m = &ring->members[i];
        uint64_t d = draw(m, key);
        if (best && (d < best_draw || (d == best_draw && m->id > best->id)))
            continue;
        best = m;
        best_draw = d;
    }
    return best && best->weight ? best->target : NULL;
}

static void *pick_weighted(const struct hashring *ring, uint64_t key)
{
    const struct member *best = NULL;
    double best_cost = 0;
    for (uint32_t i = 0; i < ring->count; i++) {
        const struct member *m = &ring->members[i];
        if (m->weight == 0)
            continue;
        double number = ((double)(draw(m, key) >> 11) + 0.5) * 0x1p-53; /* in (0, 1) */
        double cost = -log(number) / (double)m->weight;
        if (best && (cost > best_cost || (cost == best_cost && m->id > best->id)))
            continue;
        best = m;
        best_cost = cost;
    }
    return best ? best->target : NULL;
}

void *hashring_pick(const struct hashring *ring, struct slice key)
{
    uint64_t hash = XXH3_64bits(key.ptr, key.len);
    return ring->differing ? pick_weighted(ring, hash) : pick_equal(ring, hash);
}
