/* described: members of groups in which the broker assigns, as the core tells them, and the names of the topics that they have: what
 * ConsumerGroupDescribe and ShareGroupDescribe have in common.
 *
 * In a handler: r->state has a struct kafka_described ▸ kafka_described_init ▸ kafka_described_go until it says KAFKA_SENT, then
 * kafka_described_members and _next for each group; kafka_described_effect, kafka_described_drop. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_KAFKA_DESCRIBED_H
#define MILLRACE_PROTO_KAFKA_DESCRIBED_H

#include "proto/kafka/group_asked.h"
#include "proto/kafka/rows.h"

struct kafka_described {
    struct kafka_groups groups;
    struct slice *names; /* of the groups that are asked for */
    bool shares;         /* they are share groups */
    uint64_t *ids;       /* streams that are assigned, each once, to be named */
    size_t id_count;
    struct kafka_rows topics;
    bool gathered;
};

struct kafka_described_member {
    struct slice id, instance, client, host, topics, pattern, assigned, target;
    uint32_t epoch;
};

/* False: no memory, and the connection has been dropped. */
MUST_USE bool kafka_described_init(struct kafka *k, struct kafka_request *r, struct slice *names, size_t count,
                                   bool shares, struct kafka_described *ret);
enum kafka_progress kafka_described_go(struct kafka *k, struct kafka_request *r, struct kafka_described *d);
void kafka_described_effect(struct kafka *k, struct kafka_request *r, struct kafka_described *d, struct effect *e);
void kafka_described_drop(struct kafka_described *d);

/* A group without an error: its state and the rest in front of its members, which kafka_described_next reads then. */
struct kafka_described_head {
    struct slice state;
    int32_t epoch, target_epoch;
    uint8_t assignor;
    size_t member_count;
};
struct reader kafka_described_members(const struct kafka_group_said *one, struct kafka_described_head *ret);
MUST_USE bool kafka_described_next(struct reader *r, struct kafka_described_member *ret);
/* Places topic by topic. NULL: no memory, and the connection has been dropped. */
MUST_USE struct kafka_consumer_group_describe_response_assignment *kafka_described_assignment(
    struct kafka *k, struct kafka_request *r, const struct kafka_described *d, struct slice places);
/* s8 name …; false: as above. */
MUST_USE bool kafka_described_names(struct kafka *k, struct kafka_request *r, struct slice names, struct slice **ret_at,
                                    int32_t *ret_count);

#endif
