/* The end of a vhost. Nobody finds it from the moment when its record is in the journal; what was in it, perhaps 100,000 queues,
 * goes in slices, one a tick, while the others are served.
 *
 *   E1  VHOST_DELETE stands in the journal before anything inside goes, and a replay does all of it at that record: a crash in
 *       between leaves nothing behind.
 *   E2  Its name is not given out again before all of it has gone. So what is still journalled of its things meanwhile, which
 *       are known there by their names, names nothing when it is replayed.
 *   E3  Its clients are deaf at once (dispatch, in broker.c) and are told first of all. What they said before counts, and is gone.
 *   E4  Who deleted it hears of it last, when the name is free again.
 *
 * Parts go in an order in which nothing points at what is freed: clients, before them what they consume with; groups before the
 * streams of their offsets; bindings before their queues and exchanges, so that each of these is little by itself.
 */
#include "core/group_int.h"
#include "core/hashring.h"
#include "core/query_int.h"
#include "core/txn_int.h"

#include <stdio.h>

#define SLICE_WORK 256u /* about so many µs */

static bool exchange_is_dying(const struct exchange *x)
{
    return x->dying || x->vhost->deleting;
}

bool object_is_dying(const struct object *object)
{
    switch (object->kind) {
    case OBJ_PERMISSION:
    case OBJ_TOPIC_PERMISSION: return CONTAINER_OF(object, struct permission, object)->vhost->deleting;
    case OBJ_POLICY: return CONTAINER_OF(object, struct policy, object)->vhost->deleting;
    case OBJ_EXCHANGE: return exchange_is_dying(CONTAINER_OF(object, struct exchange, object));
    case OBJ_QUEUE: return CONTAINER_OF(object, struct queue, object)->vhost->deleting;
    case OBJ_BINDING: return exchange_is_dying(CONTAINER_OF(object, struct binding, object)->source);
    case OBJ_TXN: return CONTAINER_OF(object, struct txn, object)->vhost->deleting;
    case OBJ_GROUP_RULES: return CONTAINER_OF(object, struct group_rules, object)->vhost->deleting;
    case OBJ_SQL: return CONTAINER_OF(object, struct sql_object, object)->vhost->deleting;
    case OBJ_VHOST:
    case OBJ_USER: return false;
    }
    return false;
}

bool vhost_is_dying(const struct broker *b, struct slice name)
{
    LIST_EACH(&b->dying, node, after)
    if (slice_equal(CONTAINER_OF(node, struct vhost, dying_link)->name, name))
        return true;
    return false;
}

void vhosts_forget_peer(struct broker *b, const struct peer *peer)
{
    LIST_EACH(&b->dying, node, after)
    {
        struct vhost *vhost = CONTAINER_OF(node, struct vhost, dying_link);
        if (vhost->deleted_by == peer)
            vhost->deleted_by = NULL;
    }
}

/* ---- its parts: each spends of the budget, and says whether nothing is left ---- */

static bool peers_gone(struct broker *b, struct vhost *vhost, unsigned *budget)
{
    char text[NAME_MAX_BYTES + 32];
    snprintf(text, sizeof text, "vhost '%.*s' is deleted", SLICE_ARG(vhost->name));
    while (*budget && !list_empty(&vhost->peers)) {
        struct peer *peer = CONTAINER_OF(vhost->peers.next, struct peer, vhost_link);
        budget_spend(budget, 4 + 4 * peer->channel_count);
        kick(b, peer, text);
        if (peer->mqtt)
            mqtt_client_gone(b, peer->mqtt);
        peer_expel(b, peer);
    }
    return list_empty(&vhost->peers);
}

static bool bindings_gone(struct broker *b, struct vhost *vhost, unsigned *budget)
{
    struct binding *binding;
    for (; *budget && (binding = map_any(&vhost->bindings, &vhost->cursor)); budget_spend(budget, 1)) {
        hashring_free(&binding->source->hashring); /* as a whole: to take one out is a walk of all */
        binding_delete(b, binding, false);
    }
    return !vhost->bindings.count;
}

static bool queues_gone(struct broker *b, struct vhost *vhost, unsigned *budget)
{
    struct queue *q;
    while (*budget && (q = map_any(&vhost->queues, &vhost->cursor))) {
        budget_spend(budget, queue_work(q));
        queue_delete(b, q);
    }
    if (vhost->queues.count)
        return false;
    if (vhost->delay)
        queue_delete(b, delay_queue(vhost));
    return true;
}

static bool exchanges_gone(struct broker *b, struct vhost *vhost, unsigned *budget)
{
    struct exchange *x;
    for (; *budget && (x = map_any(&vhost->exchanges, &vhost->cursor)); budget_spend(budget, 2))
        exchange_delete(b, x);
    return !vhost->exchanges.count;
}

static bool rights_gone(struct broker *b, struct vhost *vhost, unsigned *budget)
{
    for (; *budget && !list_empty(&vhost->policies); budget_spend(budget, 1))
        policy_delete(b, CONTAINER_OF(vhost->policies.next, struct policy, vhost_link));
    for (; *budget && !list_empty(&vhost->permissions); budget_spend(budget, 1))
        permission_delete(b, CONTAINER_OF(vhost->permissions.next, struct permission, vhost_link));
    return list_empty(&vhost->policies) && list_empty(&vhost->permissions);
}

static bool (*const parts[])(struct broker *b, struct vhost *vhost, unsigned *budget) = {
    peers_gone,     mqtt_vhost_gone, groups_vhost_gone, bindings_gone, queues_gone,
    exchanges_gone, txns_vhost_gone, sql_vhost_gone,    rights_gone,
};

/* ---- all of it ---- */

static void finish(struct broker *b, struct vhost *vhost)
{
    list_remove(&vhost->dying_link);
    if (vhost->deleted_by)
        answer_ok(b, vhost->deleted_by, &(struct command){.type = CMD_ADMIN, .origin = vhost->deleted_origin},
                  vhost->deleted_lsn, (struct slice){0}, 0, 0);
    struct map *maps[] = {&vhost->exchanges, &vhost->queues,       &vhost->bindings,
                          &vhost->txns,      &vhost->mqtt_clients, &vhost->sql_objects};
    for (size_t i = 0; i < ARRAY_LEN(maps); i++)
        map_fini(maps[i]);
    slice_drop(&vhost->name);
    slice_drop(&vhost->default_queue_type);
    mem_free(vhost);
}

/* A part that was through may have got something again, of a timer or an answer: nothing is freed before all are in one turn. */
static bool go_on(struct broker *b, struct vhost *vhost, unsigned *budget)
{
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (!parts[i](b, vhost, budget))
            return false;
    finish(b, vhost);
    return true;
}

void vhost_delete_begin(struct broker *b, struct vhost *vhost, struct peer *by, uint32_t origin, lsn_t lsn)
{
    vhost->deleting = true;
    vhost->deleted_by = by;
    vhost->deleted_origin = origin;
    vhost->deleted_lsn = lsn;
    map_take(&b->vhosts, vhost->name);
    object_remove(b, &vhost->object);
    list_insert(&b->dying, &vhost->dying_link);
    b->totals.vhosts--;
}

static void end_now(struct broker *b, struct vhost *vhost)
{
    for (unsigned budget = UINT32_MAX; !go_on(b, vhost, &budget);)
        budget = UINT32_MAX;
}

void vhost_delete(struct broker *b, struct vhost *vhost)
{
    vhost_delete_begin(b, vhost, NULL, 0, 0);
    end_now(b, vhost);
}

void vhosts_end(struct broker *b)
{
    while (!list_empty(&b->dying))
        end_now(b, CONTAINER_OF(b->dying.next, struct vhost, dying_link));
}

bool vhosts_turn(struct broker *b)
{
    unsigned budget = SLICE_WORK;
    while (budget && !list_empty(&b->dying))
        if (!go_on(b, CONTAINER_OF(b->dying.next, struct vhost, dying_link), &budget))
            break;
    return !list_empty(&b->dying);
}
