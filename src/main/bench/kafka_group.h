/* A consumer group of `millrace bench kafka`: its members join by the classic protocol, share one topic's partitions by the
 * range rule, and then say that they live and how far they are, each on a connection of its own beside the one that
 * fetches (a parked fetch would hold the answers up).
 *
 * Life cycle: bench_kafka_group_new → _join (waits until all members have their share) → _share and _committed for each
 * member → { _tick, _read }* during the load → _leave → _free.
 * Thread: one owner. Errors: -1, with a sentence in bench_kafka_group_error. Somebody who joins during the load, or a
 * member that the server puts out, is an error: what is measured then is no longer what was asked for.
 */
#ifndef MAIN_BENCH_KAFKA_GROUP_H
#define MAIN_BENCH_KAFKA_GROUP_H

#include "histogram.h"
#include "kafka_int.h"

struct bench_kafka_group;

struct bench_kafka_group *bench_kafka_group_new(const struct bench_kafka_options *o, const char *topic,
                                                int32_t partitions);
void bench_kafka_group_free(struct bench_kafka_group *g);
const char *bench_kafka_group_error(const struct bench_kafka_group *g);

int bench_kafka_group_join(struct bench_kafka_group *g);
/* How many generations that took. */
int32_t bench_kafka_group_generation(const struct bench_kafka_group *g);
/* The partitions of a member, ascending; a loan until the group is freed. */
const int32_t *bench_kafka_group_share(const struct bench_kafka_group *g, unsigned member, int32_t *ret_count);
/* The committed offset of each of its partitions, -1 where there is none. */
int bench_kafka_group_committed(struct bench_kafka_group *g, unsigned member, int64_t *ret_offsets);

/* The socket to watch, non-blocking after bench_kafka_group_join. */
int bench_kafka_group_fd(const struct bench_kafka_group *g, unsigned member);
/* Commits these offsets, and says that the member lives when that is due; not while it still waits for an answer. */
int bench_kafka_group_tick(struct bench_kafka_group *g, unsigned member, const int64_t *offsets, uint64_t now_ns);
/* Something came. commits: where the time of an answered commit goes, or NULL. */
int bench_kafka_group_read(struct bench_kafka_group *g, unsigned member, struct bench_histogram *commits);
/* Commits for the last time and goes, waiting for both. */
int bench_kafka_group_leave(struct bench_kafka_group *g, unsigned member, const int64_t *offsets);

/* Of `partitions`, member number `member` of `members` gets *ret_count from *ret_first on: the first ones get one more. */
void bench_kafka_range(int32_t partitions, int32_t members, int32_t member, int32_t *ret_first, int32_t *ret_count);

#endif
