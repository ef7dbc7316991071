/* Audiences: who is subscribed with one pattern without a queue (taps), and telling all of them at once.
 *
 * An audience is the target of one binding of its exchange, however many are in it. For each loop it has a counted list of
 * (session, handle), and a message that matches costs one effect for each loop with a member: EFF_FANOUT refers to the list and says how many of it
 * were there. Therefore:
 *   A1  members are added behind, in place while there is room; a list that grows is a new one, and the old one is left to
 *       the effects that have it.
 *   A2  while an effect has the list a member that leaves is struck out where it stands, which needs no memory and which the loop
 *       may see or not; else the last takes its place.
 *   A3  a member is struck out before its SESSION_CLOSED is pushed, so what an effect names is there when it is taken.
 *   A4  an audience has members, or it and its binding are gone.
 * Who leaves never fails. When memory is refused for telling, that loop is not told: it is QoS 0.
 */
#include "core/core_int.h"

#define PART_FIRST 4u

void audience_unref(struct audience_part *part)
{
    if (atomic_fetch_sub_explicit(&part->refs, 1, memory_order_acq_rel) == 1)
        mem_free_as(MEM_CONNECTIONS, part);
}

static bool is_shared(const struct audience_part *part)
{
    return atomic_load_explicit(&part->refs, memory_order_acquire) > 1;
}

static void put(struct audience_part *part, uint32_t place, const struct mqtt_sub *sub)
{
    uint64_t member = (uint64_t)sub->client->peer->number << 32 | sub->handle;
    atomic_store_explicit(&part->members[place], member, memory_order_relaxed);
}

/* Those that are left move together; nobody else has the list, or it is a new one. */
static void squeeze(struct audience_port *port, struct audience_part *into)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < port->part->count; i++) {
        struct mqtt_sub *sub = port->subs[i];
        if (!sub)
            continue;
        sub->place = kept;
        port->subs[kept] = sub;
        put(into, kept++, sub);
    }
    into->count = kept;
}

/* Room for one more. False: no memory, nothing has changed. */
static bool make_room(struct audience_port *port)
{
    struct audience_part *old = port->part;
    if (old && old->count < old->max)
        return true;
    if (old && port->live < old->count / 2 && !is_shared(old)) {
        squeeze(port, old);
        return true;
    }
    uint32_t max = PART_FIRST;
    while (max <= port->live + port->live / 2)
        max *= 2;
    struct audience_part *part = mem_alloc_as(MEM_CONNECTIONS, sizeof *part + max * sizeof part->members[0]);
    uint32_t subs = old && old->max > max ? old->max : max;
    struct mqtt_sub **grown =
        part ? mem_realloc_as(MEM_CONNECTIONS, port->subs, subs * sizeof(struct mqtt_sub *)) : NULL;
    if (!grown) {
        mem_free_as(MEM_CONNECTIONS, part);
        return false;
    }
    port->subs = grown;
    part->count = 0;
    part->max = max;
    atomic_init(&part->refs, 1);
    if (old) {
        squeeze(port, part);
        audience_unref(old);
    }
    port->part = part;
    return true;
}

static struct audience *audience_new(struct broker *b, struct exchange *x, struct slice pattern)
{
    size_t ports = b->options.ports * sizeof(struct audience_port);
    struct audience *a = mem_zalloc_as(MEM_CONNECTIONS, sizeof *a + ports);
    if (!a || !binding_make(b, x, NULL, NULL, pattern, (struct slice){0}, &a->binding)) {
        mem_free_as(MEM_CONNECTIONS, a);
        return NULL;
    }
    a->binding->audience = a;
    return a;
}

bool audience_join(struct broker *b, struct exchange *x, struct mqtt_sub *sub)
{
    struct binding *binding;
    if (!binding_find(x->vhost, x, NULL, NULL, sub->pattern, (struct slice){0}, &binding))
        return false;
    struct audience *a = binding ? binding->audience : audience_new(b, x, sub->pattern);
    if (!a)
        return false;
    struct audience_port *port = &a->ports[sub->client->peer->side->index];
    if (!make_room(port)) {
        if (!a->members)
            binding_delete(b, a->binding, false);
        return false;
    }
    sub->audience = a;
    sub->place = port->part->count++;
    port->subs[sub->place] = sub;
    put(port->part, sub->place, sub);
    port->live++;
    a->members++;
    b->mqtt.taps++;
    return true;
}

void audience_rename(const struct mqtt_sub *sub)
{
    put(sub->audience->ports[sub->client->peer->side->index].part, sub->place, sub);
}

void audience_leave(struct broker *b, struct mqtt_sub *sub)
{
    struct audience *a = sub->audience;
    struct audience_port *port = &a->ports[sub->client->peer->side->index];
    struct audience_part *part = port->part;
    CHECK(port->subs[sub->place] == sub);
    port->subs[sub->place] = NULL;
    if (is_shared(part))
        atomic_store_explicit(&part->members[sub->place], AUDIENCE_LEFT, memory_order_relaxed);
    else {
        while (part->count && !port->subs[part->count - 1])
            part->count--;
        if (sub->place < part->count) { /* behind it there is one that has not left */
            struct mqtt_sub *last = port->subs[--part->count];
            last->place = sub->place;
            port->subs[last->place] = last;
            put(part, last->place, last);
        }
    }
    sub->audience = NULL;
    port->live--;
    a->members--;
    b->mqtt.taps--;
    if (!a->members)
        binding_delete(b, a->binding, true);
}

void audience_binding_gone(struct broker *b, struct binding *binding)
{
    struct audience *a = binding->audience;
    if (!a)
        return;
    for (unsigned i = 0; i < b->options.ports; i++) {
        struct audience_port *port = &a->ports[i];
        for (uint32_t n = 0; port->part && n < port->part->count; n++)
            if (port->subs[n]) {
                port->subs[n]->audience = NULL;
                b->mqtt.taps--;
            }
        if (port->part)
            audience_unref(port->part);
        mem_free_as(MEM_CONNECTIONS, port->subs);
    }
    mem_free_as(MEM_CONNECTIONS, a);
    binding->audience = NULL;
}

/* A list that is mostly struck out costs the loop time; who leaves cannot mend that. */
static void tidy(struct audience_port *port)
{
    if (port->part->count > 2 * port->live + PART_FIRST && !is_shared(port->part))
        squeeze(port, port->part);
}

void audiences_tell(struct broker *b, const struct route *route, struct msg *msg, const struct peer *from)
{
    for (uint32_t i = 0; i < route->audience_count; i++) {
        struct audience *a = route->audiences[i];
        for (unsigned n = 0; n < b->options.ports; n++) {
            struct audience_port *port = &a->ports[n];
            struct port_side *side = &b->sides[n];
            if (!port->live)
                continue;
            tidy(port);
            bool overflow;
            struct effect *e = effect_slot(side, &overflow);
            side->fanned_out |= overflow;
            b->mqtt.fanned_out |= overflow;
            if (!e) {
                b->totals.dropped++;
                continue;
            }
            atomic_fetch_add_explicit(&port->part->refs, 1, memory_order_relaxed);
            *e = (struct effect){.type = EFF_FANOUT,
                                 .consumer = port->part->count,
                                 .number = from && from->side == side ? from->number + 1ull : 0,
                                 .audience = port->part,
                                 .msg = msg_ref(msg)};
        }
    }
}

void audience_check(const struct broker *b, const struct binding *binding)
{
    const struct audience *a = binding->audience;
    uint32_t members = 0;
    CHECK(a->binding == binding && !binding->queue && !binding->exchange);
    for (unsigned i = 0; i < b->options.ports; i++) {
        const struct audience_port *port = &a->ports[i];
        uint32_t live = 0;
        for (uint32_t n = 0; port->part && n < port->part->count; n++) {
            const struct mqtt_sub *sub = port->subs[n];
            uint32_t session, handle;
            bool there = audience_member(port->part, n, &session, &handle);
            CHECK(there == (sub != NULL));
            if (!sub)
                continue;
            const struct peer *peer = sub->client->peer;
            CHECK(sub->audience == a && sub->place == n && handle == sub->handle);
            CHECK(peer && peer->mqtt == sub->client && peer->number == session && peer->side->index == i);
            live++;
        }
        CHECK(live == port->live);
        members += live;
    }
    CHECK(members == a->members && members);
}
