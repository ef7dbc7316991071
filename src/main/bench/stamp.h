/* The 24 bytes at the start of every benchmark body: whose message, which number, sent when. Any thread.
 * Native byte order: sender and receiver are one process. Bodies shorter than this carry no stamp and are only counted.
 */
#ifndef MAIN_BENCH_STAMP_H
#define MAIN_BENCH_STAMP_H

#include <stdint.h>

struct bench_stamp {
    uint32_t run_id; /* tells this run's messages from what was left in a queue */
    uint32_t producer;
    uint64_t seq;     /* 1, 2, 3 … per producer: also the delivery tag of its confirm */
    uint64_t sent_ns; /* monotonic clock */
};

enum { BENCH_STAMP_BYTES = sizeof(struct bench_stamp) };

#endif
