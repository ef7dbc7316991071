/* confirms: the core's word on publishes, which may be said when it is durable: in order, and what changes nothing as one.
 *
 * Life cycle: confirms_init → confirms_add / confirms_take … → confirms_fini, after which it is empty and may be used again.
 * Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_CONFIRMS_H
#define MILLRACE_PROTO_CONFIRMS_H

#include "core/broker.h"
#include "proto/fifo.h"

#define CONFIRMS_MAX 4096u /* more are joined to the newest: then they are said a little later */
#define CONFIRMS_KEPT 64u  /* see fifo.kept */

/* All publishes up to a number, or one refusal. */
struct confirm {
    lsn_t lsn;
    uint64_t number; /* as the engine counts publishes */
    uint32_t bytes;  /* of these messages */
    uint8_t kind;    /* the engine's own: only those of one kind are joined */
    bool refused;    /* never joined */
};

struct confirms {
    struct fifo fifo;
};

/* kept: see fifo.kept. */
static inline void confirms_init(struct confirms *confirms, uint32_t kept)
{
    fifo_init(&confirms->fifo, sizeof(struct confirm));
    confirms->fifo.kept = kept;
}
static inline void confirms_fini(struct confirms *confirms)
{
    fifo_fini(&confirms->fifo);
}
static inline uint32_t confirms_count(const struct confirms *confirms)
{
    return confirms->fifo.count;
}
/* An EFF_CONFIRM or EFF_NACK. durable: what is so by now. False: no memory. */
MUST_USE bool confirms_add(struct confirms *confirms, const struct effect *e, uint8_t kind, lsn_t durable);
/* The next that may be said; false: there is none. */
bool confirms_take(struct confirms *confirms, lsn_t durable, struct confirm *ret);

#endif
