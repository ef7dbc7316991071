/* retained_int: between retained.c (the trie and its values) and retained_walk.c (who goes through it). Core thread. */
#ifndef MILLRACE_CORE_RETAINED_INT_H
#define MILLRACE_CORE_RETAINED_INT_H

#include "core/core_int.h"

/* One word of a key. A node is there while it has a value, children or a pin. Siblings are a list: new ones come in front, so
 * that who walks to the end sees what was there when it began. */
struct retained_node {
    struct retained_node *parent; /* NULL: it is the root of a tree */
    struct retained_node *children, *next, *prev;
    struct retained_node *chain; /* next in its bucket */
    struct retained_value *value;
    uint32_t pins; /* walks that stand on it */
    uint8_t len;
    uint8_t word[];
};

enum retained_flag {
    RETAINED_THERE = 1, /* always */
    RETAINED_PERSISTENT = 2,
    RETAINED_HEADERS = 4,
    RETAINED_EXPIRES = 8, /* in memory only: the time stands before the properties */
    RETAINED_UNSAID = 16, /* in memory only: the journal does not know it */
};

struct retained_value {
    uint32_t props_len, body_len;
    uint8_t flags;   /* enum retained_flag */
    uint8_t bytes[]; /* [wall_t] properties body */
};

struct retained_tree {
    struct list link;          /* store->trees or doomed */
    struct exchange *exchange; /* NULL: it went */
    struct retained_node root;
};

/* retained.c */
struct retained_node *retained_child(const struct retained_store *store, struct retained_node *parent,
                                     struct slice word);
void retained_pin(struct retained_node *node);
void retained_unpin(struct retained_store *store, struct retained_node *node);
void retained_value_drop(struct retained_store *store, struct retained_node *node); /* it may go with it */
wall_t retained_deadline(const struct retained_value *value);                       /* WALL_NEVER */
struct slice retained_props(const struct retained_value *value);
struct slice retained_body(const struct retained_value *value);
struct slice retained_key(const struct retained_node *node, uint8_t room[256]);
/* The value as a message. NULL: no memory. */
MUST_USE struct msg *retained_msg(struct broker *b, const struct retained_tree *tree, const struct retained_node *node);
size_t retained_record_bytes(const struct exchange *x, const struct retained_value *value);
lsn_t retained_log(struct broker *b, const struct exchange *x, struct slice key, const struct retained_value *value);
void retained_tree_free_some(struct retained_store *store, struct retained_tree *tree, unsigned *budget);

/* retained_walk.c */
bool retained_walks_turn(struct broker *b);
bool retained_pass(struct broker *b, struct retained_pass *pass, unsigned budget,
                   bool (*each)(struct broker *b, struct retained_tree *tree, struct retained_node *node, void *arg),
                   void *arg); /* false: `each` said so, of where it stands now; pass->tree NULL: it is done */
void retained_pass_begin(struct retained_store *store, struct retained_pass *pass);
void retained_pass_leaves(struct retained_store *store, struct retained_pass *pass, struct retained_tree *tree);

#endif
