/* What kafka_chain.c and kafka_chain_check.c share; nobody else includes it. One thread. */
#ifndef MILLRACE_TESTS_SIM_KAFKA_CHAIN_INT_H
#define MILLRACE_TESTS_SIM_KAFKA_CHAIN_INT_H

#include "kafka_chain.h"

#define KAFKA_CHAIN_TOPIC "kx"
#define KAFKA_CHAIN_QUEUE "kq"

enum phase { PHASE_IDLE, PHASE_OPEN, PHASE_ENDING, PHASE_ASKED /* for an id: nothing is known until it comes */ };
enum tx_state { TX_OPEN, TX_COMMITTING, TX_COMMITTED, TX_ABORTED };

/* A transactional id and the group that it commits to. */
struct slice kafka_chain_group(unsigned writer);
/* False. No answer (error 0), or one that is only right when something was made to fail. */
bool kafka_chain_refused(struct kafka_chain *k, struct guest *g, const char *what, int error);
/* The batch (or marker, see kafka_chain_check.c) begins at that offset. */
void kafka_chain_own(struct kafka_chain *k, struct world *w, unsigned part, uint64_t offset, uint32_t id);
/* Where the partition may be cut: below the last stable offset of the last comparison. */
uint32_t kafka_chain_cut_at(const struct kafka_chain *k, unsigned part);
/* Everything that is there with everything that is known. False: it came to no end, or found something. with_queue: the disk gives what
 * is asked of it. */
bool kafka_chain_compare(struct kafka_chain *k, struct guest *g, bool with_queue);

#endif
