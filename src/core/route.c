/* From a message to the queues it goes to: exchanges, exchange-to-exchange bindings, alternate exchanges, CC and BCC.
 *
 * The walk visits each exchange once and names each queue once, by marks of the current generation, so cycles end. An
 * exchange that finds no destination of its own hands on to its alternate exchange. The arrays of struct route are
 * reused from message to message: no allocation on the hot path.
 */
#include "core/core_int.h"

#define ROUTE_QUEUES_MAX (1u << 20)

/* Wildcards at the beginning of a pattern do not mean what begins with "$" in MQTT. What the broker says of itself there
 * (DOLLAR_SYS) they do not mean for anybody. */
enum { DOLLAR_NOT, DOLLAR_OTHER, DOLLAR_SYS };

void route_fini(struct route *route)
{
    mem_free(route->queues);
    mem_free(route->todo);
    mem_free(route->audiences);
    *route = (struct route){0};
}

bool route_add(struct broker *b, struct route *route, struct queue *q)
{
    if (q->route_mark == b->route_gen)
        return true;
    if (route->count == route->max) {
        uint32_t max = route->max ? route->max * 2 : 16;
        struct queue **grown = max <= ROUTE_QUEUES_MAX ? mem_realloc(route->queues, max * sizeof *grown) : NULL;
        if (!grown) {
            route->failed = true;
            return false;
        }
        route->queues = grown;
        route->max = max;
    }
    q->route_mark = b->route_gen;
    route->queues[route->count++] = q;
    return true;
}

static void visit_later(struct broker *b, struct route *route, struct exchange *x)
{
    if (x->route_mark == b->route_gen)
        return;
    if (route->todo_count == route->todo_max) {
        uint32_t max = route->todo_max ? route->todo_max * 2 : 8;
        struct exchange **grown = mem_realloc(route->todo, max * sizeof *grown);
        if (!grown) {
            route->failed = true;
            return;
        }
        route->todo = grown;
        route->todo_max = max;
    }
    x->route_mark = b->route_gen;
    route->todo[route->todo_count++] = x;
}

static void tell(struct broker *b, struct route *route, struct audience *audience)
{
    if (audience->route_mark == b->route_gen)
        return;
    if (route->audience_count == route->audience_max) {
        uint32_t max = route->audience_max ? route->audience_max * 2 : 8;
        struct audience **grown = mem_realloc(route->audiences, max * sizeof(struct audience *));
        if (!grown) {
            route->failed = true;
            return;
        }
        route->audiences = grown;
        route->audience_max = max;
    }
    audience->route_mark = b->route_gen;
    route->audiences[route->audience_count++] = audience;
}

static bool passes_by(const struct route *route, const struct binding *binding)
{
    bool mqtt = binding->audience || (binding->queue && binding->queue->mqtt);
    return route->dollar && (mqtt || route->dollar == DOLLAR_SYS) && binding->source->type->by_topic &&
           binding->key.len && (binding->key.ptr[0] == '*' || binding->key.ptr[0] == '#');
}

void route_target(struct broker *b, struct route *route, struct binding *binding)
{
    if (passes_by(route, binding) || (binding->no_local && binding->no_local == route->from) ||
        (binding->selector && !selector_takes(binding->selector, route->msg, &(unsigned){0})))
        return;
    route->matched++;
    if (binding->queue)
        (void)route_add(b, route, binding->queue);
    else if (binding->audience)
        tell(b, route, binding->audience);
    else
        visit_later(b, route, binding->exchange);
}

static void match_keys(struct broker *b, struct exchange *x, const struct msg *msg, struct slice headers,
                       struct route *route)
{
    x->type->match(b, x, msg_key(msg), headers, route);
    static const char *const more[] = {"CC", "BCC"};
    for (size_t i = 0; headers.len && i < ARRAY_LEN(more); i++) {
        struct amqp_value list, element;
        if (!amqp_table_find(headers, more[i], &list) || list.type != 'A')
            continue;
        struct reader r = reader_of(list.s);
        while (amqp_array_next(&r, &element))
            if (amqp_value_is_str(&element))
                x->type->match(b, x, element.s, headers, route);
    }
}

/* False: no memory. The result is in route until the next call. */
bool route_message(struct broker *b, struct exchange *x, const struct msg *msg, struct slice headers,
                   struct route *route)
{
    b->route_gen++;
    struct slice key = msg_key(msg);
    route->count = route->todo_count = route->audience_count = 0;
    route->dollar = !slice_starts(key, "$") ? DOLLAR_NOT : slice_starts(key, "$SYS.") ? DOLLAR_SYS : DOLLAR_OTHER;
    route->failed = false;
    route->msg = msg;
    x->route_mark = b->route_gen;
    for (;;) {
        route->matched = 0;
        match_keys(b, x, msg, headers, route);
        if (route->matched == 0 && x->alternate.len) {
            struct exchange *alternate = exchange_find(x->vhost, x->alternate);
            if (alternate)
                visit_later(b, route, alternate);
        }
        if (route->todo_count == 0)
            break;
        x = route->todo[--route->todo_count];
    }
    route->from = NULL;
    return !route->failed;
}
