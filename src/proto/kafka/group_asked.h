/* group_asked: what the handlers of consumer groups have in common: commands with a block of operands (core/group.h), of which a
 * request sends one or several, and their answers, which live as long as the request.
 *
 * In a handler: state has a struct kafka_groups ▸ kafka_groups_init ▸ kafka_groups_go, with a function that makes the operands
 * of the i-th command ▸ kafka_groups_effect, which says when all are answered ▸ kafka_groups_drop. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_KAFKA_GROUP_ASKED_H
#define MILLRACE_PROTO_KAFKA_GROUP_ASKED_H

#include "core/group.h"
#include "proto/kafka/kafka_int.h"

struct kafka_group_said {
    enum group_error error;
    struct answer *answer; /* NULL with most errors */
};

struct kafka_groups {
    size_t count, sent, answered;
    struct kafka_group_said *said; /* by command */
};

/* False: no memory, and the connection has been dropped. */
MUST_USE bool kafka_groups_init(struct kafka *k, struct kafka_request *r, size_t count, struct kafka_groups *ret);

/* A group that was named before is answered INVALID, and not asked: it may have megabytes to tell, and a name is a few bytes. Before
 * kafka_groups_go. False: no memory, and the connection has been dropped. */
MUST_USE bool kafka_groups_once(struct kafka *k, struct kafka_request *r, struct kafka_groups *g,
                                const struct slice *names);

/* The operands of a command. */
struct kafka_group_ask {
    struct slice group, member, instance;
    uint64_t number;
    uint32_t flags; /* enum ask_flag */
    struct writer args;
};

/* make: the i-th; args have kafka_group_args' room. What fits into no operand is answered INVALID at once. Says KAFKA_SENT when all
 * are sent. */
enum kafka_progress kafka_groups_go(struct kafka *k, struct kafka_request *r, struct kafka_groups *g,
                                    enum command_type type,
                                    bool (*make)(struct kafka *k, struct kafka_request *r, size_t i,
                                                 struct kafka_group_ask *ret));
/* Room for a command's block; false: no memory, and the connection has been dropped. */
MUST_USE bool kafka_group_args(struct kafka *k, struct kafka_request *r, size_t bytes, struct kafka_group_ask *ret);
/* True: that was the last one. */
bool kafka_groups_effect(struct kafka *k, struct kafka_request *r, struct kafka_groups *g, struct effect *e);
bool kafka_groups_done(const struct kafka_groups *g);
void kafka_groups_drop(struct kafka_groups *g);
struct reader kafka_group_fields(const struct kafka_group_said *said);

int16_t kafka_group_error(enum group_error error);
struct slice kafka_group_state(enum group_state state);
/* What the core knows as "127.0.0.1:1234" or "[::1]:1234", as Kafka writes it: "/127.0.0.1". */
struct slice kafka_group_host(struct kafka *k, struct kafka_request *r, struct slice address);
#define KAFKA_GROUP_OPERATIONS (1 << 3 | 1 << 6 | 1 << 8) /* read, delete, describe */
/* null (ptr NULL) is no text, as are those of old versions */
static inline struct slice kafka_or_empty(struct slice s)
{
    return s.ptr ? s : slice_str("");
}

#endif
