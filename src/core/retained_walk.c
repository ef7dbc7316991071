/* Going through retained values in slices: the walks of clients by a pattern, and passes through everything.
 *
 * Whoever stops stands on a node that is pinned: the node stays in the trie, with its place among its siblings, whatever happens
 * to it. From there a walk goes on in the order in which it came: first the children, then the next sibling, then up. New nodes come
 * in front of their siblings, so nothing that was there is missed and nothing comes twice. Only words of the pattern that are
 * wildcards look at siblings; a plain word is looked up.
 *
 * A walk pays: with QoS 0 its session's credit, else room in the client's queue. Who has none rests with its client
 * and is called when there is some.
 */
#include "core/retained_int.h"

#define STEPS_PER_WALK 256u
#define STEPS_PER_TURN 4096u
#define QUEUE_FILL 256u /* messages that wait in a client's queue: no more are put there */
#define WALKS_MORE 16u  /* of one client, than it has subscriptions */

struct retained_walk {
    struct list link;        /* store->walking, or its own: it rests */
    struct list client_link; /* client->walks */
    struct mqtt_client *client;
    struct retained_tree *tree;
    struct retained_node *at; /* pinned between slices */
    bool standing;            /* what `at` has is still to be given */
    uint32_t depth, handle, origin;
    uint16_t channel;
    uint8_t qos;
    bool all_below; /* the pattern ends with "#" */
    uint64_t count;
    uint32_t word_count;  /* before that */
    struct slice pattern; /* in bytes */
    uint16_t starts[];    /* of each word, and of what would come after the last */
};

/* ---- the way through the trie ---- */

static struct slice word_at(const struct retained_walk *w, uint32_t i)
{
    return slice_of(w->pattern.ptr + w->starts[i], (size_t)(w->starts[i + 1] - w->starts[i] - 1));
}

/* Whether every child of a node at that depth may match. */
static bool takes_any(const struct retained_walk *w, uint32_t depth)
{
    return depth < w->word_count ? slice_is(word_at(w, depth), "*") : w->all_below;
}

/* It stands on a node that its wildcard does not mean: there may be as many of them as of any other, so each is a step. */
static bool passes_by(const struct retained_walk *w)
{
    return w->depth == 1 && takes_any(w, 0) && w->at->len && w->at->word[0] == '$';
}

static struct retained_node *first_child(struct broker *b, const struct retained_walk *w)
{
    if (passes_by(w))
        return NULL;
    if (takes_any(w, w->depth))
        return w->at->children;
    return w->depth < w->word_count ? retained_child(&b->mqtt.retained, w->at, word_at(w, w->depth)) : NULL;
}

/* To the next node on the way. False: that was the last. */
static bool step(struct broker *b, struct retained_walk *w)
{
    struct retained_node *next = first_child(b, w);
    if (next) {
        w->depth++;
        w->at = next;
        return true;
    }
    while (w->at->parent) {
        next = takes_any(w, w->depth - 1) ? w->at->next : NULL;
        if (next) {
            w->at = next;
            return true;
        }
        w->at = w->at->parent;
        w->depth--;
    }
    return false;
}

static bool has_something(const struct broker *b, const struct retained_walk *w)
{
    const struct retained_value *value = w->at->value;
    bool matches = w->depth == w->word_count || (w->all_below && w->depth > w->word_count);
    return matches && value && w->depth && !passes_by(w) && retained_deadline(value) > b->wall;
}

/* ---- giving ---- */

enum given { GIVEN, GIVEN_LATER, GIVEN_REST };

static enum given give_to_session(struct broker *b, struct retained_walk *w)
{
    struct peer *peer = w->client->peer;
    if (!port_has_room(peer->side)) {
        b->stalled = true;
        return GIVEN_LATER;
    }
    if (peer->credit <= 0)
        return GIVEN_REST;
    struct msg *msg = retained_msg(b, w->tree, w->at);
    if (!msg) {
        b->stalled = true;
        return GIVEN_LATER;
    }
    struct effect *e = effect_push(b, peer, EFF_RETAINED, w->channel);
    e->consumer = w->handle;
    e->origin = mqtt_seconds_left(b, retained_deadline(w->at->value));
    e->msg = msg;
    peer->credit -= (int64_t)delivery_cost(msg);
    return GIVEN;
}

static enum given give_to_queue(struct broker *b, struct retained_walk *w)
{
    struct queue *q = w->client->queue;
    lsn_t lsn;
    if (!q)
        return GIVEN; /* it has unsubscribed, or changed its mind */
    if (q->busy->ready_count >= QUEUE_FILL)
        return GIVEN_REST;
    if (!b->options.log.room(b->options.log.self))
        return GIVEN_LATER;
    struct amqp_value yes = {.type = 't', .raw = slice_of((const uint8_t *)"\1", 1)};
    struct msg *plain = retained_msg(b, w->tree, w->at);
    struct msg *msg = mqtt_msg_marked(b, plain, MQTT_HEADER_RETAINED, &yes, WALL_NEVER);
    if (plain)
        msg_unref(&b->heap, plain);
    b->route_gen++;
    b->route.count = b->route.audience_count = 0;
    bool ok = msg && route_add(b, &b->route, q) && enqueue_routed(b, msg, &b->route, NULL, &lsn) != ENQUEUE_NO_MEMORY;
    if (msg)
        msg_unref(&b->heap, msg);
    b->stalled |= !ok;
    return ok ? GIVEN : GIVEN_LATER;
}

/* ---- walks ---- */

static void walk_free(struct broker *b, struct retained_walk *w)
{
    if (w->at)
        retained_unpin(&b->mqtt.retained, w->at);
    list_remove(&w->link);
    list_remove(&w->client_link);
    w->client->walk_count--;
    mem_free(w);
}

static void walk_done(struct broker *b, struct retained_walk *w)
{
    struct peer *peer = w->client->peer;
    struct command c = {.channel = w->channel, .origin = w->origin};
    uint64_t count = w->count;
    walk_free(b, w);
    mqtt_reply(b, peer, &c, ERR_NONE, count, 0);
}

/* Up to so many steps. True: it can go on. */
static bool walk_slice(struct broker *b, struct retained_walk *w, unsigned steps)
{
    struct retained_node *stood = w->at;
    enum given given = GIVEN;
    bool over = false;
    while (steps-- && given == GIVEN && !over) {
        if (!w->standing)
            over = !step(b, w);
        if (over || !has_something(b, w)) {
            w->standing = false;
            continue;
        }
        given = w->qos ? give_to_queue(b, w) : give_to_session(b, w);
        w->standing = given != GIVEN;
        w->count += given == GIVEN;
    }
    retained_pin(w->at);
    retained_unpin(&b->mqtt.retained, stood);
    if (over) {
        walk_done(b, w);
        return false;
    }
    if (given == GIVEN_REST)
        list_remove(&w->link);
    return given == GIVEN;
}

bool retained_walks_turn(struct broker *b)
{
    struct list *walking = &b->mqtt.retained.walking, *last = walking->prev;
    unsigned steps = STEPS_PER_TURN;
    bool more = false;
    while (!list_empty(walking) && steps >= STEPS_PER_WALK) {
        struct retained_walk *w = CONTAINER_OF(walking->next, struct retained_walk, link);
        bool is_last = &w->link == last;
        list_remove(&w->link); /* its turn comes again behind the others */
        list_insert(walking, &w->link);
        more |= walk_slice(b, w, STEPS_PER_WALK);
        steps -= STEPS_PER_WALK;
        if (is_last)
            break;
    }
    return more;
}

/* Words before a "#" at the end, and where each begins. */
static void cut(struct retained_walk *w)
{
    uint16_t at = 0;
    bool more = w->pattern.len > 0;
    w->word_count = 0;
    while (more) {
        const uint8_t *from = w->pattern.ptr + at;
        const uint8_t *dot = at < w->pattern.len ? memchr(from, '.', w->pattern.len - at) : NULL;
        size_t len = dot ? (size_t)(dot - from) : w->pattern.len - at;
        more = dot != NULL;
        w->starts[w->word_count] = at;
        at = (uint16_t)(at + len + 1);
        w->starts[w->word_count + 1] = at;
        if (!more && len == 1 && *from == '#')
            w->all_below = true;
        else
            w->word_count++;
    }
}

bool retained_walk_begin(struct broker *b, struct mqtt_client *client, const struct command *c)
{
    struct retained_tree *tree = client->exchange ? client->exchange->retained : NULL;
    struct slice pattern = c->ask->name;
    if (!tree) {
        mqtt_reply(b, client->peer, c, ERR_NONE, 0, 0);
        return true;
    }
    size_t words = pattern.len + 2; /* at most */
    struct retained_walk *w = mem_zalloc(sizeof *w + words * sizeof w->starts[0] + pattern.len);
    if (!w)
        return false;
    uint8_t *kept = (uint8_t *)&w->starts[words];
    memcpy(kept, pattern.ptr, pattern.len);
    w->pattern = slice_of(kept, pattern.len);
    cut(w);
    w->client = client;
    w->tree = tree;
    w->handle = (uint32_t)c->number;
    w->qos = (uint8_t)(c->number >> 32);
    w->origin = c->origin;
    w->channel = c->channel;
    w->at = &tree->root;
    retained_pin(w->at);
    list_insert(&b->mqtt.retained.walking, &w->link);
    list_insert(&client->walks, &w->client_link);
    client->walk_count++;
    /* The oldest then is of a subscription that was made anew, or is gone. */
    while (client->walk_count > client->sub_count + WALKS_MORE)
        walk_done(b, CONTAINER_OF(client->walks.next, struct retained_walk, client_link));
    return true;
}

void retained_walks_end(struct broker *b, struct mqtt_client *client)
{
    while (!list_empty(&client->walks))
        walk_free(b, CONTAINER_OF(client->walks.next, struct retained_walk, client_link));
}

void retained_walks_wake(struct broker *b, struct mqtt_client *client)
{
    LIST_EACH(&client->walks, node, after)
    {
        struct retained_walk *w = CONTAINER_OF(node, struct retained_walk, client_link);
        if (list_empty(&w->link))
            list_insert(&b->mqtt.retained.walking, &w->link);
    }
}

void do_mqtt_retained(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct mqtt_client *client = peer->mqtt;
    (void)ch;
    if (!client || !mqtt_pattern_is_right(c->ask->name) || c->number >> 32 > 2) {
        mqtt_reply(b, peer, c, ERR_PRECONDITION_FAILED, 0, 0);
        return;
    }
    if (!client->exchange)
        mqtt_reply(b, peer, c, ERR_NOT_FOUND, 0, 0);
    else if (!authorise(b, peer->user, peer->vhost, VERB_READ, client->exchange->name) ||
             !authorise_topic(b, peer->user, client->exchange, VERB_READ, c->ask->name))
        mqtt_reply(b, peer, c, ERR_ACCESS_REFUSED, 0, 0);
    else if (!retained_walk_begin(b, client, c))
        no_memory(b, peer, c->channel, c->origin);
}

/* ---- passes through everything ---- */

void retained_pass_begin(struct retained_store *store, struct retained_pass *pass)
{
    if (pass->at)
        retained_unpin(store, pass->at);
    *pass = (struct retained_pass){.tree = list_empty(&store->trees) ? NULL : store->trees.next};
}

static void next_tree(struct retained_store *store, struct retained_pass *pass)
{
    pass->tree = pass->tree->next == &store->trees ? NULL : pass->tree->next;
    pass->at = NULL;
}

/* The tree goes: the pass goes on with the next. */
void retained_pass_leaves(struct retained_store *store, struct retained_pass *pass, struct retained_tree *tree)
{
    if (pass->tree != &tree->link)
        return;
    if (pass->at)
        retained_unpin(store, pass->at);
    next_tree(store, pass);
}

static struct retained_node *after_node(struct retained_node *node)
{
    if (node->children)
        return node->children;
    while (node->parent && !node->next)
        node = node->parent;
    return node->parent ? node->next : NULL;
}

/* To the next node, with the pin; what it leaves may go. */
static void move_on(struct retained_store *store, struct retained_pass *pass)
{
    struct retained_node *from = pass->at, *to = after_node(from);
    if (to)
        retained_pin(to);
    pass->at = to;
    retained_unpin(store, from);
    if (!to)
        next_tree(store, pass);
}

bool retained_pass(struct broker *b, struct retained_pass *pass, unsigned budget,
                   bool (*each)(struct broker *b, struct retained_tree *tree, struct retained_node *node, void *arg),
                   void *arg)
{
    struct retained_store *store = &b->mqtt.retained;
    while (pass->tree && budget--) {
        struct retained_tree *tree = CONTAINER_OF(pass->tree, struct retained_tree, link);
        if (!pass->at) {
            pass->at = &tree->root;
            retained_pin(pass->at);
        }
        if (pass->at->value && !each(b, tree, pass->at, arg))
            return false;
        move_on(store, pass);
    }
    return true;
}
