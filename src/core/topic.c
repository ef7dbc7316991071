/* The index of a topic exchange, see topic.h.
 *
 * A trie of words. A node is reached by a plain word, by "*" or by "#"; the two wild children hang on their parent, the
 * plain ones of all nodes share one hash table whose key is (parent, word), so that a long pattern costs no table of its
 * own per level. What is bound at a node are its leaves, found again by (node, target).
 *
 * Matching walks the key once and keeps the set of nodes that the words so far can have led to. A node enters the set of
 * a step at most once (`mark` is the number of the step), so the work is at most words × nodes whatever the patterns are,
 * and usually one node per word. A "#" node stays in the set for every further word; it enters together with its parent,
 * because it also stands for no word at all. The set is a chain through the nodes themselves: nothing is allocated and
 * there is no limit on the number of words. Two chains exist at a time, hence two links per node.
 *
 * Tried and rejected: recursion over the alternatives of "#", as it is exponential for "#.a.#.a.#…"; a table of words per
 * node, as its smallest size is 256 bytes and most nodes have one child.
 *
 * Every node but the root has a leaf or a child: adding prunes what it made when memory is refused, removing prunes what
 * it emptied. Core thread.
 */
#include "core/topic.h"

#include "base/check.h"
#include "base/list.h"
#include "base/mem.h"

enum kind { KIND_WORD, KIND_STAR, KIND_HASH };

struct node {
    struct list all; /* in topic.nodes */
    struct list leaves;
    struct node *parent, *star, *hash;
    struct node *next[2]; /* in the set of an even, of an odd step */
    uint64_t mark;        /* the last step whose set held the node; in the root the last step made at all */
    uint32_t words;       /* plain children */
    uint8_t kind;
    uint16_t key_len;
    uint8_t key[]; /* plain nodes: the parent's address, the word */
};

struct leaf_key {
    struct node *node;
    void *target;
};

struct leaf {
    struct list link; /* in node.leaves */
    struct leaf_key key;
    uint32_t count;
};

struct topic {
    struct node *root;
    struct list nodes; /* all but the root */
    struct map words;  /* (parent, word) → node */
    struct map leaves; /* (node, target) → leaf */
};

/* A pattern or key is cut at its dots; the empty one has no words at all. */
struct words {
    const uint8_t *at, *end;
    bool more;
};

static struct words words_of(struct slice text)
{
    return (struct words){.at = text.ptr, .end = text.len ? text.ptr + text.len : text.ptr, .more = text.len > 0};
}

static bool words_next(struct words *w, struct slice *ret)
{
    if (!w->more)
        return false;
    size_t left = (size_t)(w->end - w->at);
    const uint8_t *dot = left ? memchr(w->at, '.', left) : NULL;
    *ret = slice_of(w->at, dot ? (size_t)(dot - w->at) : left);
    w->more = dot != NULL;
    w->at = dot ? dot + 1 : w->end;
    return true;
}

static enum kind kind_of(struct slice word)
{
    if (word.len != 1)
        return KIND_WORD;
    return word.ptr[0] == '*' ? KIND_STAR : word.ptr[0] == '#' ? KIND_HASH : KIND_WORD;
}

/* ------------------------------------------------------------------------------------------------------ life cycle */

static struct node *node_new(struct node *parent, enum kind kind, struct slice word)
{
    size_t key_len = parent && kind == KIND_WORD ? sizeof parent + word.len : 0;
    struct node *node = mem_zalloc(sizeof *node + key_len);
    if (!node)
        return NULL;
    list_init(&node->all);
    list_init(&node->leaves);
    node->parent = parent;
    node->kind = (uint8_t)kind;
    node->key_len = (uint16_t)key_len;
    if (key_len) {
        memcpy(node->key, &parent, sizeof parent);
        memcpy(node->key + sizeof parent, word.ptr, word.len);
    }
    return node;
}

struct topic *topic_new(uint64_t seed)
{
    struct topic *topic = mem_alloc(sizeof *topic);
    if (!topic)
        return NULL;
    topic->root = node_new(NULL, KIND_WORD, (struct slice){0});
    if (!topic->root) {
        mem_free(topic);
        return NULL;
    }
    list_init(&topic->nodes);
    map_init(&topic->words, seed);
    map_init(&topic->leaves, seed + 1);
    return topic;
}

void topic_free(struct topic **topic)
{
    struct topic *t = *topic;
    if (!t)
        return;
    *topic = NULL;
    MAP_EACH(&t->leaves, struct leaf, leaf)
    mem_free(leaf);
    map_fini(&t->leaves);
    map_fini(&t->words);
    LIST_EACH(&t->nodes, link, after)
    mem_free(CONTAINER_OF(link, struct node, all));
    mem_free(t->root);
    mem_free(t);
}

/* -------------------------------------------------------------------------------------------------- adding, removing */

static struct node *plain_child(const struct topic *topic, struct node *node, struct slice word)
{
    uint8_t key[sizeof node + 255];
    if (node->words == 0 || word.len > sizeof key - sizeof node)
        return NULL;
    memcpy(key, &node, sizeof node);
    if (word.len)
        memcpy(key + sizeof node, word.ptr, word.len);
    return map_get(&topic->words, slice_of(key, sizeof node + word.len));
}

static struct node *child(const struct topic *topic, struct node *node, enum kind kind, struct slice word)
{
    return kind == KIND_STAR ? node->star : kind == KIND_HASH ? node->hash : plain_child(topic, node, word);
}

static struct node *child_add(struct topic *topic, struct node *parent, enum kind kind, struct slice word)
{
    if (kind == KIND_WORD && !map_reserve(&topic->words))
        return NULL;
    struct node *node = node_new(parent, kind, word);
    if (!node)
        return NULL;
    list_insert(&topic->nodes, &node->all);
    if (kind == KIND_STAR) {
        parent->star = node;
    } else if (kind == KIND_HASH) {
        parent->hash = node;
    } else {
        CHECK(map_put(&topic->words, slice_of(node->key, node->key_len), node));
        parent->words++;
    }
    return node;
}

/* Removes the node and its ancestors as far as nothing is bound at or below them. */
static void prune(struct topic *topic, struct node *node)
{
    while (node->parent && list_empty(&node->leaves) && !node->star && !node->hash && node->words == 0) {
        struct node *parent = node->parent;
        if (node->kind == KIND_STAR) {
            parent->star = NULL;
        } else if (node->kind == KIND_HASH) {
            parent->hash = NULL;
        } else {
            CHECK(map_take(&topic->words, slice_of(node->key, node->key_len)) == node);
            parent->words--;
        }
        list_remove(&node->all);
        mem_free(node);
        node = parent;
    }
}

static bool leaf_add(struct topic *topic, struct node *node, void *target)
{
    struct leaf_key key = {.node = node, .target = target};
    struct leaf *leaf = map_get(&topic->leaves, slice_of(&key, sizeof key));
    if (leaf) {
        leaf->count++;
        return true;
    }
    if (!map_reserve(&topic->leaves))
        return false;
    leaf = mem_alloc(sizeof *leaf);
    if (!leaf)
        return false;
    *leaf = (struct leaf){.key = key, .count = 1};
    list_insert(&node->leaves, &leaf->link);
    CHECK(map_put(&topic->leaves, slice_of(&leaf->key, sizeof leaf->key), leaf));
    return true;
}

bool topic_add(struct topic *topic, struct slice pattern, void *target)
{
    struct node *node = topic->root;
    struct words words = words_of(pattern);
    struct slice word;
    CHECK(pattern.len <= 255);
    while (words_next(&words, &word)) {
        enum kind kind = kind_of(word);
        struct node *down = child(topic, node, kind, word);
        if (!down)
            down = child_add(topic, node, kind, word);
        if (!down) {
            prune(topic, node);
            return false;
        }
        node = down;
    }
    if (leaf_add(topic, node, target))
        return true;
    prune(topic, node);
    return false;
}

void topic_remove(struct topic *topic, struct slice pattern, void *target)
{
    struct node *node = topic->root;
    struct words words = words_of(pattern);
    struct slice word;
    while (words_next(&words, &word)) {
        node = child(topic, node, kind_of(word), word);
        CHECK(node != NULL);
    }
    struct leaf_key key = {.node = node, .target = target};
    struct leaf *leaf = map_get(&topic->leaves, slice_of(&key, sizeof key));
    CHECK(leaf != NULL);
    if (--leaf->count > 0)
        return;
    CHECK(map_take(&topic->leaves, slice_of(&key, sizeof key)) == leaf);
    list_remove(&leaf->link);
    mem_free(leaf);
    prune(topic, node);
}

/* ---------------------------------------------------------------------------------------------------------- matching */

/* The set of nodes after some number of words. */
struct set {
    struct node *first;
    uint64_t step;
};

/* With the node come its "#" child, and that one's, as they also match no word. */
static void set_add(struct set *set, struct node *node)
{
    for (; node && node->mark != set->step; node = node->hash) {
        node->mark = set->step;
        node->next[set->step & 1] = set->first;
        set->first = node;
    }
}

static struct set set_after(const struct topic *topic, const struct set *set, struct slice word)
{
    struct set after = {.step = ++topic->root->mark};
    for (struct node *node = set->first; node; node = node->next[set->step & 1]) {
        if (node->kind == KIND_HASH)
            set_add(&after, node);
        set_add(&after, node->star);
        set_add(&after, plain_child(topic, node, word));
    }
    return after;
}

void topic_match(const struct topic *topic, struct slice key, void (*each)(void *arg, void *target), void *arg)
{
    struct words words = words_of(key);
    struct slice word;
    struct set set = {.step = topic->root->mark + 1};
    set_add(&set, topic->root);
    while (set.first && words_next(&words, &word))
        set = set_after(topic, &set, word);
    for (struct node *node = set.first; node; node = node->next[set.step & 1])
        LIST_EACH(&node->leaves, link, after)
    each(arg, CONTAINER_OF(link, struct leaf, link)->key.target);
}
