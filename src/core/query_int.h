/* query_int: continuous SQL's part of the core's state, as the files query*.c share it. Core thread. See query.h.
 *
 *   vhost ─ sql_object       peer ─ relay ─▶ ticket of the SQL port
 */
#ifndef MILLRACE_CORE_QUERY_INT_H
#define MILLRACE_CORE_QUERY_INT_H

#include "core/core_int.h"

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

void relays_init(struct broker *b);
void relays_fini(struct broker *b);

#endif
