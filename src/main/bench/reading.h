/* What one consumer without producers beside it checks of the messages of an earlier run: that each producer's numbers rise.
 *
 * A queue shared by several consumers gives each of them a part, so a gap is no fault here; a number that is not above the
 * last is, unless it was redelivered. Zeroed memory is a fresh one. Thread: one owner.
 */
#ifndef MAIN_BENCH_READING_H
#define MAIN_BENCH_READING_H

#include "stamp.h"

#include <stdbool.h>
#include <stdint.h>

enum { BENCH_READING_PRODUCERS = 16 }; /* of one run; numbers of others are not checked */

struct bench_reading {
    uint32_t run_id; /* whose numbers `last` are; another run begins anew */
    uint64_t last[BENCH_READING_PRODUCERS];
    uint64_t backwards;
};

static inline void bench_reading_note(struct bench_reading *r, const struct bench_stamp *stamp, bool redelivered)
{
    if (stamp->producer >= BENCH_READING_PRODUCERS || redelivered)
        return;
    if (stamp->run_id != r->run_id) {
        r->run_id = stamp->run_id;
        for (unsigned i = 0; i < BENCH_READING_PRODUCERS; i++)
            r->last[i] = 0;
    }
    r->backwards += stamp->seq <= r->last[stamp->producer];
    r->last[stamp->producer] = stamp->seq;
}

#endif
