/* allowance: memory of which many take, and how much of it each may have.
 *
 * Allowances stand in a tree: what one has taken, those above it have taken too. The topmost has a maximum. Any other may take at
 * most half of what the one above it has free. So whoever asks for more and more ends with as much as there is left over
 * for all others together, each of these may have half of that, and so on: nobody can use all up, nothing is set aside for
 * those who ask for little, and nobody has to be known beforehand.
 *
 * An allowance does not refuse: its owner asks allowance_left where something begins, and may take more where something has to end.
 *
 * Life cycle: { .of = the one above } → { allowance_take | allowance_give }*; it ends with nothing in it. Core thread.
 */
#ifndef MILLRACE_CORE_ALLOWANCE_H
#define MILLRACE_CORE_ALLOWANCE_H

#include "base/types.h"

struct allowance {
    struct allowance *of; /* the one above; NULL: it is the topmost */
    uint64_t bytes;       /* of its own, and of those below */
};

void allowance_take(struct allowance *allowance, uint64_t bytes);
void allowance_give(struct allowance *allowance, uint64_t bytes);
/* So much more may be taken; max: of the topmost. */
uint64_t allowance_left(const struct allowance *allowance, uint64_t max);

#endif
