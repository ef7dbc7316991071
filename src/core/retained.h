/* retained: the last value of each key of an exchange, for who subscribes later.
 *
 * A trie of the words of the keys for each exchange, one table of all nodes. Walks go through it in slices, by a pattern or
 * whole; they stand on a node, which stays where it is meanwhile. What a walk sees: every value that is there from its beginning to its
 * end, and each at most once. Core thread.
 *
 * Life cycle: retained_init → retained_prepare, retained_commit … walks … retained_turn … → retained_fini.
 */
#ifndef MILLRACE_CORE_RETAINED_H
#define MILLRACE_CORE_RETAINED_H

#include "base/list.h"
#include "base/reader.h"
#include "base/types.h"
#include "base/wheel.h"

struct broker;
struct command;
struct exchange;
struct mqtt_client;
struct msg;
struct retained_node;
struct retained_value;

struct retained_pass {        /* through the nodes of all trees */
    struct list *tree;        /* NULL: there is none */
    struct retained_node *at; /* pinned; NULL: the tree is not begun */
};

struct retained_store {
    uint64_t count, bytes;         /* values; about what they and their nodes take */
    uint64_t expiring;             /* of the values */
    struct list trees;             /* struct retained_tree */
    struct list doomed;            /* those whose exchange went: freed in slices */
    struct list walking;           /* struct retained_walk that can go on */
    struct retained_node ***table; /* blocks of buckets, see retained.c */
    uint32_t table_max, buckets, nodes;
    uint64_t seed;
    struct retained_pass snapshot, sweep;
    struct timer sweep_timer;
};

struct retained_change {       /* prepared */
    struct exchange *exchange; /* NULL: nothing changes */
    struct retained_node *node;
    struct retained_value *value; /* NULL: it goes */
};

void retained_init(struct broker *b);
void retained_fini(struct broker *b);
bool retained_turn(struct broker *b); /* once a tick; true: more to do */
void retained_check(struct broker *b);
void retained_exchange_gone(struct broker *b, struct exchange *x);

enum retained_result { RETAINED_OK, RETAINED_FULL, RETAINED_NO_MEMORY };
/* The message becomes the value of its key; without a body there is none from now on. Nothing is seen of it before the commit. */
enum retained_result retained_prepare(struct broker *b, struct exchange *x, const struct msg *msg,
                                      struct retained_change *ret);
size_t retained_log_bytes(const struct retained_change *change);
lsn_t retained_commit(struct broker *b, struct retained_change *change); /* room in the journal is reserved */
void retained_abort(struct broker *b, struct retained_change *change);

/* The walk of an MQTT_RETAINED. False: no memory. */
MUST_USE bool retained_walk_begin(struct broker *b, struct mqtt_client *client, const struct command *c);
void retained_walks_end(struct broker *b, struct mqtt_client *client); /* without an answer */
void retained_walks_wake(struct broker *b, struct mqtt_client *client);

/* Of the journal. */
void retained_snapshot_begin(struct broker *b);
MUST_USE bool retained_snapshot(struct broker *b, size_t *bytes, bool *ret_done);
MUST_USE bool replay_retained(struct broker *b, struct reader *r);
void retained_recovered(struct broker *b);

#endif
