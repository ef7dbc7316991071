/* Commands to groups and their answers, see group_asked.h. */
#include "proto/kafka/group_asked.h"

#include "base/check.h"
#include "base/mem.h"
#include "proto/kafka/errands.h"

static const int16_t errors[GROUP_ERR_COUNT] = {
    [GROUP_OK] = KAFKA_ERR_NONE,
    [GROUP_ERR_REFUSED] = KAFKA_ERR_GROUP_AUTHORIZATION_FAILED,
    [GROUP_ERR_INVALID_ID] = KAFKA_ERR_INVALID_GROUP_ID,
    [GROUP_ERR_NO_GROUP] = KAFKA_ERR_GROUP_ID_NOT_FOUND,
    [GROUP_ERR_UNKNOWN_MEMBER] = KAFKA_ERR_UNKNOWN_MEMBER_ID,
    [GROUP_ERR_NEED_MEMBER_ID] = KAFKA_ERR_MEMBER_ID_REQUIRED,
    [GROUP_ERR_FENCED] = KAFKA_ERR_FENCED_INSTANCE_ID,
    [GROUP_ERR_GENERATION] = KAFKA_ERR_ILLEGAL_GENERATION,
    [GROUP_ERR_REBALANCE] = KAFKA_ERR_REBALANCE_IN_PROGRESS,
    [GROUP_ERR_PROTOCOL] = KAFKA_ERR_INCONSISTENT_GROUP_PROTOCOL,
    [GROUP_ERR_SESSION_TIMEOUT] = KAFKA_ERR_INVALID_SESSION_TIMEOUT,
    [GROUP_ERR_FULL] = KAFKA_ERR_GROUP_MAX_SIZE_REACHED,
    [GROUP_ERR_NOT_EMPTY] = KAFKA_ERR_NON_EMPTY_GROUP,
    [GROUP_ERR_METADATA] = KAFKA_ERR_OFFSET_METADATA_TOO_LARGE,
    [GROUP_ERR_NO_STREAM] = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION,
    [GROUP_ERR_STREAM_REFUSED] = KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED,
    [GROUP_ERR_INVALID] = KAFKA_ERR_INVALID_REQUEST,
    [GROUP_ERR_TOO_LARGE] = KAFKA_ERR_UNKNOWN_SERVER_ERROR,
    [GROUP_ERR_PRODUCER] = KAFKA_ERR_INVALID_PRODUCER_ID_MAPPING,
    [GROUP_ERR_PRODUCER_EPOCH] = KAFKA_ERR_INVALID_PRODUCER_EPOCH,
    [GROUP_ERR_TXN_STATE] = KAFKA_ERR_INVALID_TXN_STATE,
    [GROUP_ERR_UNSTABLE] = KAFKA_ERR_UNSTABLE_OFFSET_COMMIT,
    [GROUP_ERR_FENCED_EPOCH] = KAFKA_ERR_FENCED_MEMBER_EPOCH,
    [GROUP_ERR_STALE_EPOCH] = KAFKA_ERR_STALE_MEMBER_EPOCH,
    [GROUP_ERR_COMMIT_SIZE] = KAFKA_ERR_INVALID_COMMIT_OFFSET_SIZE,
    [GROUP_ERR_RECORD_STATE] = KAFKA_ERR_INVALID_RECORD_STATE,
    [GROUP_ERR_INSTANCE_HELD] = KAFKA_ERR_UNRELEASED_INSTANCE_ID,
    [GROUP_ERR_NO_MEMORY] = KAFKA_ERR_COORDINATOR_NOT_AVAILABLE,
};

int16_t kafka_group_error(enum group_error error)
{
    return errors[error];
}

struct slice kafka_group_state(enum group_state state)
{
    static const char *const names[] = {
        [GROUP_EMPTY] = "Empty",
        [GROUP_PREPARING] = "PreparingRebalance",
        [GROUP_COMPLETING] = "CompletingRebalance",
        [GROUP_STABLE] = "Stable",
        [GROUP_DEAD] = "Dead",
        [GROUP_SHARERS] = "Stable",
        [GROUP_CONSUMERS] = "Stable",
        [GROUP_ASSIGNING] = "Assigning",
        [GROUP_RECONCILING] = "Reconciling",
    };
    return slice_str(names[state]);
}

bool kafka_groups_init(struct kafka *k, struct kafka_request *r, size_t count, struct kafka_groups *ret)
{
    *ret = (struct kafka_groups){.count = count, .said = kafka_room(k, r, count, sizeof *ret->said)};
    return ret->said != NULL;
}

bool kafka_groups_once(struct kafka *k, struct kafka_request *r, struct kafka_groups *g, const struct slice *names)
{
    const uint8_t *doubles = kafka_doubles(k, r, names, g->count);
    for (size_t i = 0; doubles && i < g->count; i++)
        if (doubles[i] == KAFKA_LATER) {
            g->said[i].error = GROUP_ERR_INVALID;
            g->answered++;
        }
    return doubles != NULL;
}

bool kafka_groups_done(const struct kafka_groups *g)
{
    return g->answered == g->count;
}

bool kafka_group_args(struct kafka *k, struct kafka_request *r, size_t bytes, struct kafka_group_ask *ret)
{
    uint8_t *room = kafka_room(k, r, bytes, 1);
    ret->args = writer_of(room, bytes);
    return room != NULL;
}

static bool send_one(struct kafka *k, struct kafka_request *r, struct kafka_groups *g, enum command_type type,
                     const struct kafka_group_ask *make)
{
    struct ask *ask = ask_new(make->group, make->member, make->instance, writer_slice(&make->args));
    if (!ask) {
        kafka_drop_memory(k);
        return false;
    }
    struct command *command = kafka_command(k, r, type);
    if (!command) {
        mem_free(ask);
        return false;
    }
    ask->number = make->number;
    ask->flags = make->flags;
    command->ask = ask;
    command->number = g->sent;
    return true;
}

enum kafka_progress kafka_groups_go(struct kafka *k, struct kafka_request *r, struct kafka_groups *g,
                                    enum command_type type,
                                    bool (*make)(struct kafka *k, struct kafka_request *r, size_t i,
                                                 struct kafka_group_ask *ret))
{
    for (; g->sent < g->count; g->sent++) {
        struct kafka_group_ask ask = {0};
        if (g->said[g->sent].error)
            continue;                  /* answered before it was asked */
        if (!hub_room(kafka_hub(k))) { /* what is made is made for a command that can be sent */
            hub_wait_room(kafka_hub(k), &k->session);
            return KAFKA_AGAIN;
        }
        if (!make(k, r, g->sent, &ask))
            return KAFKA_AGAIN;
        if (!writer_ok(&ask.args)) { /* a name that is longer than any can be */
            g->said[g->sent].error = GROUP_ERR_INVALID;
            g->answered++;
        } else if (!send_one(k, r, g, type, &ask))
            return KAFKA_AGAIN;
    }
    return KAFKA_SENT;
}

bool kafka_groups_effect(struct kafka *k, struct kafka_request *r, struct kafka_groups *g, struct effect *e)
{
    if (e->type != EFF_GROUP) {
        hub_drop(kafka_hub(k), e);
        kafka_drop_memory(k);
        return false;
    }
    CHECK(e->number < g->sent && !g->said[e->number].answer);
    g->said[e->number] = (struct kafka_group_said){(enum group_error)e->flags, e->answer};
    r->lsn = e->lsn > r->lsn ? e->lsn : r->lsn;
    g->answered++;
    return kafka_groups_done(g);
}

void kafka_groups_drop(struct kafka_groups *g)
{
    for (size_t i = 0; g->said && i < g->sent; i++)
        mem_free(g->said[i].answer);
}

struct reader kafka_group_fields(const struct kafka_group_said *said)
{
    return reader_of(said->answer ? said->answer->fields : (struct slice){0});
}

/* What the core knows as "127.0.0.1:1234" or "[::1]:1234", as Kafka writes it: "/127.0.0.1". */
struct slice kafka_group_host(struct kafka *k, struct kafka_request *r, struct slice address)
{
    size_t len = address.len;
    while (len && address.ptr[len - 1] != ':')
        len--;
    struct slice host = len ? slice_of(address.ptr, len - 1) : address;
    if (host.len > 1 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']')
        host = slice_of(host.ptr + 1, host.len - 2);
    r->arena.max += host.len + 64;
    uint8_t *room = kafka_room(k, r, host.len + 1, 1);
    if (!room)
        return slice_str("");
    room[0] = '/';
    memcpy(room + 1, host.ptr, host.len);
    return slice_of(room, host.len + 1);
}
