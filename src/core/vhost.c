/* Vhosts and their policies. How a vhost ends is in vhost_end.c.
 *
 * A policy applies to every queue or exchange whose name its pattern matches; of several the highest priority wins, and
 * an operator policy of its own kind limits on top. Effective settings are recomputed when a policy changes and when an
 * object is made, never on the hot path.
 */
#include "core/core_int.h"

#include <stdio.h>

struct vhost *vhost_find(struct broker *b, struct slice name)
{
    return map_get(&b->vhosts, name);
}

static struct slice queue_name_of(const void *value)
{
    return ((const struct queue *)value)->name;
}

static struct slice client_id_of(const void *value)
{
    return ((const struct mqtt_client *)value)->id;
}

/* With the default exchanges. An existing vhost only takes the new default queue type. */
struct vhost *vhost_put(struct broker *b, struct slice name, struct slice default_queue_type)
{
    struct slice type = {0};
    if (!slice_keep(&type, default_queue_type))
        return NULL;
    struct vhost *vhost = vhost_find(b, name);
    if (vhost) {
        slice_drop(&vhost->default_queue_type);
        vhost->default_queue_type = type;
        return vhost;
    }
    vhost = mem_zalloc(sizeof *vhost);
    if (!vhost || !slice_keep(&vhost->name, name) || !map_put(&b->vhosts, vhost->name, vhost)) {
        if (vhost)
            slice_drop(&vhost->name);
        mem_free(vhost);
        slice_drop(&type);
        return NULL;
    }
    vhost->default_queue_type = type;
    map_init(&vhost->exchanges, b->seed + 11);
    map_init_keyed(&vhost->queues, b->seed + 12, queue_name_of);
    map_init(&vhost->bindings, b->seed + 13);
    map_init(&vhost->txns, b->seed + 14);
    map_init_keyed(&vhost->mqtt_clients, b->seed + 15, client_id_of);
    sql_vhost_init(b, vhost);
    txns_vhost_init(b, vhost);
    struct list *lists[] = {&vhost->policies, &vhost->streams, &vhost->peers,       &vhost->permissions,
                            &vhost->txn_list, &vhost->groups,  &vhost->group_rules, &vhost->dying_link};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        list_init(lists[i]);
    object_add(b, &vhost->object, OBJ_VHOST, true);
    b->totals.vhosts++;
    if (!exchange_make_defaults(b, vhost)) {
        vhost_delete(b, vhost);
        return NULL;
    }
    return vhost;
}

/* ---- policies ---- */

static const char *const apply_names[] = {[APPLY_ALL] = "all",
                                          [APPLY_QUEUES] = "queues",
                                          [APPLY_CLASSIC] = "classic_queues",
                                          [APPLY_QUORUM] = "quorum_queues",
                                          [APPLY_STREAMS] = "streams",
                                          [APPLY_EXCHANGES] = "exchanges"};

bool apply_to_parse(struct slice text, enum apply_to *ret)
{
    for (unsigned i = 0; i < ARRAY_LEN(apply_names); i++)
        if (slice_is(text, apply_names[i])) {
            *ret = (enum apply_to)i;
            return true;
        }
    return false;
}

const char *apply_to_name(enum apply_to apply_to)
{
    return apply_names[apply_to];
}

struct policy *policy_find(struct vhost *vhost, struct slice name, bool operator_policy)
{
    LIST_EACH(&vhost->policies, node, after)
    {
        struct policy *p = CONTAINER_OF(node, struct policy, vhost_link);
        if (p->operator_policy == operator_policy && slice_equal(p->name, name))
            return p;
    }
    return NULL;
}

static bool applies_to_queue(const struct policy *p, const struct queue *q)
{
    switch (p->apply_to) {
    case APPLY_ALL:
    case APPLY_QUEUES: return true;
    case APPLY_CLASSIC: return q->rules->type == QUEUE_CLASSIC;
    case APPLY_QUORUM: return q->rules->type == QUEUE_QUORUM;
    case APPLY_STREAMS: return q->rules->type == QUEUE_STREAM;
    default: return false;
    }
}

static struct policy *best(struct vhost *vhost, struct slice name, bool operator_policy, const struct queue *q)
{
    struct policy *found = NULL;
    LIST_EACH(&vhost->policies, node, after)
    {
        struct policy *p = CONTAINER_OF(node, struct policy, vhost_link);
        bool kind = q ? applies_to_queue(p, q) : p->apply_to == APPLY_ALL || p->apply_to == APPLY_EXCHANGES;
        if (kind && p->operator_policy == operator_policy && (!found || p->priority > found->priority) &&
            pattern_matches(&p->pattern, name))
            found = p;
    }
    return found;
}

/* None says how long SQL's engine keeps what is its own. */
void policy_find_queue(struct queue *q)
{
    q->policy = q->operator_policy = NULL;
    if (sql_is_internal(q->name))
        return;
    q->policy = best(q->vhost, q->name, false, q);
    q->operator_policy = best(q->vhost, q->name, true, q);
}

void policy_apply_queue(struct broker *b, struct queue *q)
{
    policy_find_queue(q);
    queue_rules_changed(b, q);
}

void policy_apply_exchange(struct broker *b, struct exchange *x)
{
    (void)b;
    x->policy = best(x->vhost, x->name, false, NULL);
    struct amqp_value v;
    x->alternate = (struct slice){0};
    if (amqp_table_find(x->args, "alternate-exchange", &v) && amqp_value_is_str(&v))
        x->alternate = v.s;
    else if (x->policy && amqp_table_find(x->policy->definition, "alternate-exchange", &v) && amqp_value_is_str(&v))
        x->alternate = v.s;
}

static void apply_all(struct broker *b, struct vhost *vhost)
{
    MAP_EACH(&vhost->queues, struct queue, q)
    policy_apply_queue(b, q);
    MAP_EACH(&vhost->exchanges, struct exchange, x)
    policy_apply_exchange(b, x);
    b->topology_gen++;
}

static void policy_free(struct policy *p)
{
    pattern_drop(&p->pattern);
    slice_drop(&p->name);
    slice_drop(&p->definition);
    mem_free(p);
}

bool policy_put(struct broker *b, struct vhost *vhost, struct slice name, struct slice pattern, enum apply_to apply_to,
                int64_t priority, struct slice definition, bool operator_policy, char *text, size_t text_len)
{
    struct policy *p = mem_zalloc(sizeof *p);
    snprintf(text, text_len, "out of memory");
    if (!p)
        return false;
    if (!slice_keep(&p->name, name) || !slice_keep(&p->definition, definition) ||
        !pattern_make(&p->pattern, pattern, text, text_len)) {
        policy_free(p);
        return false;
    }
    struct policy *old = policy_find(vhost, name, operator_policy);
    p->vhost = vhost;
    p->apply_to = apply_to;
    p->priority = priority;
    p->operator_policy = operator_policy;
    list_insert(&vhost->policies, &p->vhost_link);
    object_add(b, &p->object, OBJ_POLICY, true);
    if (old)
        policy_delete(b, old);
    else
        apply_all(b, vhost);
    return true;
}

void policy_delete(struct broker *b, struct policy *p)
{
    struct vhost *vhost = p->vhost;
    list_remove(&p->vhost_link);
    object_remove(b, &p->object);
    if (!vhost->deleting)
        apply_all(b, vhost);
    policy_free(p);
}
