/* ShareGroupHeartbeat and ShareGroupDescribe (KIP-932): who is in a share group, and which partitions each reads. What they read is
 * share_fetch.c's. */
#include "proto/kafka/described.h"
#include "proto/kafka/names.h"
#include "proto/kafka/places.h"
#include "proto/kafka/rows.h"

#include <stddef.h>

#define LEAVE (-1)

static size_t count_of(int32_t count)
{
    return count > 0 ? (size_t)count : 0;
}

/* ---- ShareGroupHeartbeat ---- */

/* Of what Kafka refuses before it looks at the group: the reason. */
static const char *heartbeat_fault(const struct kafka_share_group_heartbeat_request *asked)
{
    if (!asked->group_id.len)
        return "GroupId can't be empty.";
    if (!asked->member_id.len)
        return "MemberId can't be empty.";
    if (asked->rack_id.ptr && !asked->rack_id.len)
        return "RackId can't be empty.";
    if (asked->member_epoch < LEAVE)
        return "MemberEpoch is invalid.";
    if (asked->member_epoch == 0 && asked->subscribed_topic_names.count < 1)
        return "SubscribedTopicNames must be set in first request.";
    return NULL;
}

static bool heartbeat_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_share_group_heartbeat_request *asked = r->message;
    size_t bytes = 300;
    (void)i;
    for (int32_t t = 0; t < asked->subscribed_topic_names.count; t++)
        bytes += 1 + asked->subscribed_topic_names.at[t].len;
    if (!kafka_group_args(k, r, bytes, ret))
        return false;
    struct slice client = kafka_or_empty(r->client_id);
    client.len = client.len > UINT8_MAX ? UINT8_MAX : client.len;
    writer_str8(&ret->args, client);
    writer_u8(&ret->args, asked->subscribed_topic_names.count >= 0);
    for (int32_t t = 0; t < asked->subscribed_topic_names.count; t++)
        writer_str8(&ret->args, asked->subscribed_topic_names.at[t]);
    ret->group = asked->group_id;
    ret->member = asked->member_id;
    ret->number = (uint32_t)asked->member_epoch;
    return true;
}

static void heartbeat_say_assignment(struct kafka *k, struct kafka_request *r, struct reader rows)
{
    struct kafka_share_group_heartbeat_response *said = r->response;
    struct kafka_places p = {.r = rows};
    size_t max = rows.left / GROUP_PLACE_BYTES;
    said->assignment = kafka_more_room(k, r, 1, sizeof *said->assignment);
    if (!said->assignment)
        return;
    said->assignment->topic_partitions.at = kafka_more_room(k, r, max, sizeof *said->assignment->topic_partitions.at);
    while (said->assignment->topic_partitions.at && kafka_places_next(&p)) {
        struct kafka_share_group_heartbeat_response_topic_partitions *topic =
            &said->assignment->topic_partitions.at[said->assignment->topic_partitions.count];
        kafka_topic_uuid(k, p.stream, &topic->topic_id);
        topic->partitions.count = (int32_t)p.count;
        topic->partitions.at = kafka_places_take(k, r, &p);
        if (!topic->partitions.at)
            return;
        said->assignment->topic_partitions.count++;
    }
}

static void heartbeat_say(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_share_group_heartbeat_request *asked = r->message;
    const struct kafka_group_said *one = &((struct kafka_groups *)r->state)->said[0];
    struct kafka_share_group_heartbeat_response *said = r->response;
    struct reader fields = kafka_group_fields(one);
    said->error_code = kafka_group_error(one->error);
    if (one->error)
        return;
    (void)reader_str8(&fields);
    said->member_id = asked->member_id;
    said->member_epoch = (int32_t)reader_u32(&fields);
    said->heartbeat_interval_ms = (int32_t)reader_u32(&fields);
    if (asked->member_epoch == LEAVE)
        said->heartbeat_interval_ms = 0;
    if (reader_u8(&fields))
        heartbeat_say_assignment(k, r, fields);
}

static void drop_one(struct kafka *k, struct kafka_request *r)
{
    (void)k;
    if (r->state)
        kafka_groups_drop(r->state);
}

static enum kafka_progress heartbeat_go(struct kafka *k, struct kafka_request *r)
{
    struct kafka_share_group_heartbeat_response *said = r->response;
    const char *fault = r->state ? NULL : heartbeat_fault(r->message);
    if (fault) {
        said->error_code = KAFKA_ERR_INVALID_REQUEST;
        said->error_message = slice_str(fault);
        return KAFKA_SENT;
    }
    struct kafka_groups *g = r->state ? r->state : kafka_room(k, r, 1, sizeof *g);
    if (!g || (!r->state && !kafka_groups_init(k, r, 1, g)))
        return KAFKA_AGAIN;
    r->state = g;
    if (kafka_groups_go(k, r, g, CMD_SHARE_BEAT, heartbeat_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_done(g))
        heartbeat_say(k, r);
    return KAFKA_SENT;
}

static void heartbeat_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    if (kafka_groups_effect(k, r, r->state, e))
        heartbeat_say(k, r);
}

const struct kafka_handler kafka_on_share_group_heartbeat = {
    .go = heartbeat_go, .effect = heartbeat_effect, .drop = drop_one, .shares = true};

/* ---- ShareGroupDescribe ---- */

/* What a share group's member is assigned is told as a consumer's is. */
#define SAME(struct_a, struct_b, field) (offsetof(struct struct_a, field) == offsetof(struct struct_b, field))
_Static_assert(sizeof(struct kafka_share_group_describe_response_topic_partitions) ==
                       sizeof(struct kafka_consumer_group_describe_response_topic_partitions) &&
                   SAME(kafka_share_group_describe_response_topic_partitions,
                        kafka_consumer_group_describe_response_topic_partitions, topic_id) &&
                   SAME(kafka_share_group_describe_response_topic_partitions,
                        kafka_consumer_group_describe_response_topic_partitions, topic_name) &&
                   SAME(kafka_share_group_describe_response_topic_partitions,
                        kafka_consumer_group_describe_response_topic_partitions, partitions),
               "the assignments of both kinds of groups are alike");

static struct kafka_described *sharing_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_share_group_describe_request *asked = r->message;
    struct kafka_described *d = kafka_room(k, r, 1, sizeof *d);
    if (!d || !kafka_described_init(k, r, asked->group_ids.at, count_of(asked->group_ids.count), true, d))
        return NULL;
    return r->state = d;
}

static bool sharing_member(struct kafka *k, struct kafka_request *r, const struct kafka_described *d,
                           const struct kafka_described_member *m,
                           struct kafka_share_group_describe_response_member *said)
{
    kafka_defaults(&kafka_share_group_describe_response_member_table, said);
    said->member_id = m->id;
    said->client_id = kafka_or_empty(m->client);
    said->client_host = kafka_group_host(k, r, m->host);
    said->member_epoch = (int32_t)m->epoch;
    if (!kafka_described_names(k, r, m->topics, &said->subscribed_topic_names.at, &said->subscribed_topic_names.count))
        return false;
    said->assignment = (void *)kafka_described_assignment(k, r, d, m->assigned);
    return said->assignment != NULL;
}

static void sharing_one(struct kafka *k, struct kafka_request *r, const struct kafka_described *d, size_t i)
{
    const struct kafka_share_group_describe_request *asked = r->message;
    struct kafka_share_group_describe_response *response = r->response;
    struct kafka_share_group_describe_response_group *said = &response->groups.at[i];
    const struct kafka_group_said *one = &d->groups.said[i];
    struct kafka_described_head head;
    struct kafka_described_member m;
    kafka_defaults(&kafka_share_group_describe_response_group_table, said);
    said->group_id = asked->group_ids.at[i];
    said->error_code = kafka_group_error(one->error);
    said->group_state = said->assignor_name = slice_str("");
    if (one->error == GROUP_ERR_NO_GROUP)
        said->error_message = slice_str("there is no such share group");
    if (one->error)
        return;
    struct reader members = kafka_described_members(one, &head);
    said->group_state = head.state;
    said->group_epoch = head.epoch;
    said->assignment_epoch = head.target_epoch;
    said->assignor_name = slice_str("simple");
    if (asked->include_authorized_operations)
        said->authorized_operations = KAFKA_GROUP_OPERATIONS;
    said->members.at = kafka_more_room(k, r, head.member_count, sizeof *said->members.at);
    while (said->members.at && kafka_described_next(&members, &m))
        if (!sharing_member(k, r, d, &m, &said->members.at[said->members.count++]))
            return;
}

static enum kafka_progress sharing_go(struct kafka *k, struct kafka_request *r)
{
    struct kafka_share_group_describe_response *said = r->response;
    struct kafka_described *d = r->state ? r->state : sharing_begin(k, r);
    if (!d || kafka_described_go(k, r, d) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    said->groups.at = kafka_room(k, r, d->groups.count, sizeof *said->groups.at);
    for (size_t i = 0; said->groups.at && i < d->groups.count; i++)
        sharing_one(k, r, d, i);
    said->groups.count = said->groups.at ? (int32_t)d->groups.count : 0;
    return KAFKA_SENT;
}

static void sharing_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    kafka_described_effect(k, r, r->state, e);
}

static void sharing_drop(struct kafka *k, struct kafka_request *r)
{
    (void)k;
    if (r->state)
        kafka_described_drop(r->state);
}

const struct kafka_handler kafka_on_share_group_describe = {
    .go = sharing_go, .effect = sharing_effect, .drop = sharing_drop, .shares = true};
