/* query_int: continuous SQL's part of the core's state, as the files query*.c share it. Core thread. See query.h.
 *
 *   vhost ─ sql_object       peer ─ relay ─▶ ticket of the SQL port
 */
#ifndef MILLRACE_CORE_QUERY_INT_H
#define MILLRACE_CORE_QUERY_INT_H

#include "core/core_int.h"

enum sql_text { SQL_TEXT, SQL_SETTINGS, SQL_REASON, SQL_TEXTS };

/* A statement that is kept. */
struct sql_object {
    struct object object; /* OBJ_SQL */
    struct list link;     /* b->sql.by_id */
    struct vhost *vhost;
    uint64_t id;                   /* of the numbers that queues have, too */
    struct slice name, owner;      /* owned */
    struct slice texts[SQL_TEXTS]; /* owned: enum sql_text */
    struct buffer trail;           /* of a query */
    uint64_t step;                 /* number of the last one */
    uint8_t kind, state;           /* the engine's; enum sql_object_state */
};

/* What a client has asked of SQL, until its last word. When it goes while the engine is yet to hear of it, it stays without a peer. */
struct relay {
    uint64_t ticket;
    struct list link;        /* peer->relays; empty: it has ended */
    struct list untold_link; /* b->sql.untold: the engine is to hear of `granted`, or of the end */
    struct peer *peer;       /* NULL: it has ended */
    uint32_t origin;         /* of the ASK */
    uint64_t granted;        /* bytes that the engine was not told of yet */
};

/* Whether the commands of the catalogue may come from there. */
static inline bool sql_is_engine(const struct broker *b, const struct peer *peer)
{
    return peer->side == sql_side(b);
}

/* The next one that went with its vhost; it is forgotten then. */
bool sql_next_gone(struct broker *b, uint64_t *ret_id);
struct sql_object *sql_object_find(const struct broker *b, uint64_t id);
/* The journal has room for its record, and memory for the trail is there. False: no memory. */
MUST_USE bool trail_reserve(struct sql_object *o, const struct query_step *step);
/* The step has been taken: its number is the last one, and the trail is what it says. */
void object_stepped(struct broker *b, struct sql_object *o, uint64_t number, bool restart, struct slice trail);
lsn_t log_query_step(struct broker *b, const struct query_step *step); /* room is reserved */
static inline size_t query_step_record_bytes(const struct query_step *step)
{
    return 64 + step->trail.len;
}

void relays_init(struct broker *b);
void relays_fini(struct broker *b);

#endif
