/* FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup: how consumers share work. The core holds a JOIN or SYNC until its
 * group is ready, and with it all that was asked behind it on this connection, as Kafka does. */
#include "proto/kafka/group_asked.h"

#define VERSION_NEEDS_ID 4u /* JoinGroup: who has no id is given one first */
#define VERSION_CAN_SKIP 9u /* … a leader that is told that it need not assign */
#define VERSION_NULL_PROTOCOL 7u
#define VERSION_BATCHED 3u /* LeaveGroup */
#define VERSION_KEYS 4u    /* FindCoordinator */
#define VERSION_SHARE 6u

/* ---- FindCoordinator ---- */

enum { KEY_GROUP, KEY_TRANSACTION, KEY_SHARE };

/* This broker is the coordinator of every group and every transaction. */
static int16_t coordinator_error(const struct kafka_request *r, int8_t type)
{
    return type == KEY_GROUP || type == KEY_TRANSACTION || (type == KEY_SHARE && r->form.version >= VERSION_SHARE)
               ? KAFKA_ERR_NONE
               : KAFKA_ERR_INVALID_REQUEST;
}

static enum kafka_progress find_coordinator_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_find_coordinator_request *asked = r->message;
    struct kafka_find_coordinator_response *said = r->response;
    int16_t error = coordinator_error(r, asked->key_type);
    int32_t node = error ? -1 : k->options->node_id, port = error ? -1 : kafka_advertised_port(k);
    struct slice host = error ? slice_str("") : kafka_advertised_host(k);
    size_t count = asked->coordinator_keys.count > 0 ? (size_t)asked->coordinator_keys.count : 0;
    said->error_code = error;
    said->node_id = node;
    said->host = host;
    said->port = port;
    said->coordinators.at = kafka_room(k, r, count, sizeof *said->coordinators.at);
    if (!said->coordinators.at)
        return KAFKA_AGAIN;
    said->coordinators.count = (int32_t)count;
    for (size_t i = 0; i < count; i++)
        said->coordinators.at[i] = (struct kafka_find_coordinator_response_coordinator){
            .key = asked->coordinator_keys.at[i], .node_id = node, .host = host, .port = port, .error_code = error};
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_find_coordinator = {.go = find_coordinator_go};

/* ---- what the four requests have in common: one command each ---- */

static struct kafka_groups *one_command(struct kafka *k, struct kafka_request *r)
{
    struct kafka_groups *g = r->state;
    if (g)
        return g;
    g = kafka_room(k, r, 1, sizeof *g);
    if (g && kafka_groups_init(k, r, 1, g))
        r->state = g;
    return r->state;
}

static void drop(struct kafka *k, struct kafka_request *r)
{
    (void)k;
    if (r->state)
        kafka_groups_drop(r->state);
}

/* An operand that cannot be put was answered without the core. */
static enum kafka_progress go_one(struct kafka *k, struct kafka_request *r, enum command_type type,
                                  bool (*make)(struct kafka *k, struct kafka_request *r, size_t i,
                                               struct kafka_group_ask *ret),
                                  void (*say)(struct kafka *k, struct kafka_request *r))
{
    struct kafka_groups *g = one_command(k, r);
    if (!g || kafka_groups_go(k, r, g, type, make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_done(g))
        say(k, r);
    return KAFKA_SENT;
}

/* ---- JoinGroup ---- */

static bool join_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_join_group_request *asked = r->message;
    size_t bytes = 600;
    (void)i;
    for (int32_t n = 0; n < asked->protocols.count; n++)
        bytes += 5 + asked->protocols.at[n].name.len + asked->protocols.at[n].metadata.len;
    if (!kafka_group_args(k, r, bytes, ret))
        return false;
    struct slice client = kafka_or_empty(r->client_id);
    client.len = client.len > UINT8_MAX ? UINT8_MAX : client.len;
    writer_str8(&ret->args, client);
    writer_str8(&ret->args, asked->protocol_type);
    for (int32_t n = 0; n < asked->protocols.count; n++) {
        writer_str8(&ret->args, asked->protocols.at[n].name);
        writer_str32(&ret->args, asked->protocols.at[n].metadata);
    }
    uint32_t session = asked->session_timeout_ms > 0 ? (uint32_t)asked->session_timeout_ms : 0;
    uint32_t rebalance = asked->rebalance_timeout_ms > 0 ? (uint32_t)asked->rebalance_timeout_ms : 0;
    ret->group = asked->group_id;
    ret->member = asked->member_id;
    ret->instance = asked->group_instance_id;
    ret->number = (uint64_t)session << 32 | rebalance;
    ret->flags = (r->form.version >= VERSION_NEEDS_ID ? ASK_NEED_MEMBER_ID : 0) |
                 (r->form.version >= VERSION_CAN_SKIP ? ASK_CAN_SKIP : 0);
    return true;
}

static void join_say_members(struct kafka *k, struct kafka_request *r, struct reader fields)
{
    struct kafka_join_group_response *said = r->response;
    struct reader again = fields;
    int32_t count = 0;
    for (; again.left; count++) {
        (void)reader_str8(&again);
        (void)reader_str8(&again);
        (void)reader_str32(&again);
    }
    r->arena.max += (size_t)count * sizeof *said->members.at + 64; /* it grows with the group */
    said->members.at = kafka_room(k, r, (size_t)count, sizeof *said->members.at);
    if (!said->members.at)
        return;
    said->members.count = count;
    for (int32_t i = 0; i < count; i++) {
        struct kafka_join_group_response_member *m = &said->members.at[i];
        m->member_id = reader_str8(&fields);
        m->group_instance_id = reader_str8(&fields);
        m->metadata = reader_str32(&fields);
        if (!m->group_instance_id.len)
            m->group_instance_id.ptr = NULL;
    }
}

static void join_say(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_join_group_request *asked = r->message;
    struct kafka_join_group_response *said = r->response;
    const struct kafka_group_said *one = &((struct kafka_groups *)r->state)->said[0];
    struct reader fields = kafka_group_fields(one);
    said->error_code = kafka_group_error(one->error);
    said->leader = slice_str("");
    said->member_id = asked->member_id;
    said->protocol_name = r->form.version >= VERSION_NULL_PROTOCOL ? (struct slice){0} : slice_str("");
    if (one->error == GROUP_ERR_NEED_MEMBER_ID)
        said->member_id = reader_str8(&fields);
    if (one->error == GROUP_ERR_FULL)
        said->member_id = slice_str("");
    if (one->error)
        return;
    said->generation_id = (int32_t)reader_u32(&fields);
    said->protocol_type = reader_str8(&fields);
    said->protocol_name = reader_str8(&fields);
    said->leader = reader_str8(&fields);
    said->member_id = reader_str8(&fields);
    said->skip_assignment = reader_u8(&fields);
    join_say_members(k, r, fields);
}

static enum kafka_progress join_go(struct kafka *k, struct kafka_request *r)
{
    return go_one(k, r, CMD_GROUP_JOIN, join_make, join_say);
}

static void join_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    if (kafka_groups_effect(k, r, r->state, e))
        join_say(k, r);
}

const struct kafka_handler kafka_on_join_group = {.go = join_go, .effect = join_effect, .drop = drop};

/* ---- SyncGroup ---- */

static bool sync_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_sync_group_request *asked = r->message;
    size_t bytes = 600;
    (void)i;
    for (int32_t n = 0; n < asked->assignments.count; n++)
        bytes += 5 + asked->assignments.at[n].member_id.len + asked->assignments.at[n].assignment.len;
    if (!kafka_group_args(k, r, bytes, ret))
        return false;
    writer_str8(&ret->args, asked->protocol_type);
    writer_str8(&ret->args, asked->protocol_name);
    for (int32_t n = 0; n < asked->assignments.count; n++) {
        writer_str8(&ret->args, asked->assignments.at[n].member_id);
        writer_str32(&ret->args, asked->assignments.at[n].assignment);
    }
    ret->group = asked->group_id;
    ret->member = asked->member_id;
    ret->instance = asked->group_instance_id;
    ret->number = (uint32_t)asked->generation_id;
    return true;
}

static void sync_say(struct kafka *k, struct kafka_request *r)
{
    struct kafka_sync_group_response *said = r->response;
    const struct kafka_group_said *one = &((struct kafka_groups *)r->state)->said[0];
    struct reader fields = kafka_group_fields(one);
    (void)k;
    said->error_code = kafka_group_error(one->error);
    said->assignment = slice_str("");
    if (one->error)
        return;
    said->protocol_type = reader_str8(&fields);
    said->protocol_name = reader_str8(&fields);
    said->assignment = kafka_or_empty(reader_str32(&fields));
}

static enum kafka_progress sync_go(struct kafka *k, struct kafka_request *r)
{
    return go_one(k, r, CMD_GROUP_SYNC, sync_make, sync_say);
}

static void sync_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    if (kafka_groups_effect(k, r, r->state, e))
        sync_say(k, r);
}

const struct kafka_handler kafka_on_sync_group = {.go = sync_go, .effect = sync_effect, .drop = drop};

/* ---- Heartbeat ---- */

static bool beat_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_heartbeat_request *asked = r->message;
    (void)k;
    (void)i;
    ret->group = asked->group_id;
    ret->member = asked->member_id;
    ret->instance = asked->group_instance_id;
    ret->number = (uint32_t)asked->generation_id;
    return true;
}

static void beat_say(struct kafka *k, struct kafka_request *r)
{
    struct kafka_heartbeat_response *said = r->response;
    (void)k;
    said->error_code = kafka_group_error(((struct kafka_groups *)r->state)->said[0].error);
}

static enum kafka_progress beat_go(struct kafka *k, struct kafka_request *r)
{
    return go_one(k, r, CMD_GROUP_BEAT, beat_make, beat_say);
}

static void beat_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    if (kafka_groups_effect(k, r, r->state, e))
        beat_say(k, r);
}

const struct kafka_handler kafka_on_heartbeat = {.go = beat_go, .effect = beat_effect, .drop = drop};

/* ---- LeaveGroup ---- */

static bool leave_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_leave_group_request *asked = r->message;
    bool batched = r->form.version >= VERSION_BATCHED;
    size_t bytes = 2 + asked->member_id.len;
    (void)i;
    for (int32_t n = 0; n < asked->members.count; n++)
        bytes += 2 + asked->members.at[n].member_id.len + asked->members.at[n].group_instance_id.len;
    if (!kafka_group_args(k, r, bytes, ret))
        return false;
    ret->group = asked->group_id;
    for (int32_t n = 0; batched && n < asked->members.count; n++) {
        writer_str8(&ret->args, asked->members.at[n].member_id);
        writer_str8(&ret->args, asked->members.at[n].group_instance_id);
    }
    if (!batched) {
        writer_str8(&ret->args, asked->member_id);
        writer_str8(&ret->args, (struct slice){0});
    }
    return true;
}

static void leave_say(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_leave_group_request *asked = r->message;
    struct kafka_leave_group_response *said = r->response;
    const struct kafka_group_said *one = &((struct kafka_groups *)r->state)->said[0];
    struct reader fields = kafka_group_fields(one);
    said->error_code = kafka_group_error(one->error);
    if (one->error)
        return;
    if (r->form.version < VERSION_BATCHED) {
        said->error_code = kafka_group_error((enum group_error)reader_u8(&fields));
        return;
    }
    size_t count = asked->members.count > 0 ? (size_t)asked->members.count : 0;
    said->members.at = kafka_room(k, r, count, sizeof *said->members.at);
    if (!said->members.at)
        return;
    said->members.count = (int32_t)count;
    for (size_t i = 0; i < count; i++)
        said->members.at[i] = (struct kafka_leave_group_response_member){
            .member_id = asked->members.at[i].member_id,
            .group_instance_id = asked->members.at[i].group_instance_id,
            .error_code = kafka_group_error((enum group_error)reader_u8(&fields))};
}

static enum kafka_progress leave_go(struct kafka *k, struct kafka_request *r)
{
    return go_one(k, r, CMD_GROUP_LEAVE, leave_make, leave_say);
}

static void leave_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    if (kafka_groups_effect(k, r, r->state, e))
        leave_say(k, r);
}

const struct kafka_handler kafka_on_leave_group = {.go = leave_go, .effect = leave_effect, .drop = drop};
