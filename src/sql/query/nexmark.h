/* nexmark: the events of the Nexmark benchmark (an auction site: persons, auctions, bids) as JSON, each made from its number alone.
 *
 * Two processes with the same struct nexmark make the same bytes for the same number, in any order, so a load can be split and
 * a test can say what a stream holds without reading it. Proportions, skew, sizes and ids are those of the reference
 * generator (github.com/nexmark/nexmark): of 50 events 1 is a person, 3 are auctions, 46 bids; half of the bids are for one hot auction,
 * three quarters by one hot bidder. Events are written in its one-stream envelope:
 *   {"event_type":2,"person":null,"auction":null,"bid":{"auction":1000,…,"dateTime":"2015-07-15 00:00:00.000","extra":"…"}}
 * Any thread; nothing is allocated.
 */
#ifndef MILLRACE_SQL_QUERY_NEXMARK_H
#define MILLRACE_SQL_QUERY_NEXMARK_H

#include "base/types.h"
#include "base/writer.h"

#define NEXMARK_BASE_MS 1436918400000 /* 2015-07-15 00:00:00 UTC */
#define NEXMARK_EVENT_MAX 2048u       /* bytes; what is written is less */

enum nexmark_kind { NEXMARK_PERSON, NEXMARK_AUCTION, NEXMARK_BID };

struct nexmark {
    uint64_t seed;
    uint64_t rate;  /* events a second of event time, at least 1 */
    wall_t base_ms; /* event time of event 0 */
    uint32_t group; /* 1: in order; n: events are out of order within n, as the reference permutes them */
};

/* Seed 1, 10,000 events a second, from NEXMARK_BASE_MS, in order. */
struct nexmark nexmark_default(void);
/* The number of the event that stands at that place of the stream. With a group of 1 it is the place. */
uint64_t nexmark_number(const struct nexmark *nexmark, uint64_t place);
enum nexmark_kind nexmark_kind_of(uint64_t number);
/* Event time, UTC milliseconds. */
wall_t nexmark_time(const struct nexmark *nexmark, uint64_t number);
/* Appends the event; at most NEXMARK_EVENT_MAX bytes. */
void nexmark_write(const struct nexmark *nexmark, uint64_t number, struct writer *out);

#endif
