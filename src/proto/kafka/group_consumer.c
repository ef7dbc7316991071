/* ConsumerGroupHeartbeat and ConsumerGroupDescribe (KIP-848): the broker assigns. Topics have names where they are subscribed to, and
 * ids where they are assigned. */
#include "proto/kafka/described.h"
#include "proto/kafka/names.h"
#include "proto/kafka/places.h"
#include "proto/kafka/rows.h"

#include <stdio.h>

#define VERSION_ID_OF_CLIENT 1u /* before, a member without an id is given one */
#define MEMBER_CONSUMER 1       /* MemberType of ConsumerGroupDescribe */

static size_t count_of(int32_t count)
{
    return count > 0 ? (size_t)count : 0;
}

static const char *const assignors[GROUP_ASSIGNORS] = {[GROUP_UNIFORM] = "uniform", [GROUP_RANGE] = "range"};

/* ---- ConsumerGroupHeartbeat ---- */

struct heartbeat {
    struct kafka_groups groups; /* one */
    enum group_assignor assignor;
    struct slice member;
};

/* Of what Kafka refuses before it looks at the group: the reason, and the error. */
static const char *heartbeat_fault(const struct kafka_request *r, int16_t *ret_error)
{
    const struct kafka_consumer_group_heartbeat_request *asked = r->message;
    bool joins = asked->member_epoch == 0;
    *ret_error = KAFKA_ERR_INVALID_REQUEST;
    if (!asked->group_id.len)
        return "GroupId can't be empty.";
    if (!asked->member_id.len && (!joins || r->form.version >= VERSION_ID_OF_CLIENT))
        return "MemberId can't be empty.";
    if (asked->instance_id.ptr && !asked->instance_id.len)
        return "InstanceId can't be empty.";
    if (asked->member_epoch < -2)
        return "MemberEpoch is invalid.";
    if (asked->member_epoch == -2 && !asked->instance_id.ptr)
        return "InstanceId can't be null.";
    if (joins && asked->rebalance_timeout_ms <= 0)
        return "RebalanceTimeoutMs must be provided in first request.";
    if (joins && (asked->topic_partitions.count < 0 || asked->topic_partitions.count > 0))
        return "TopicPartitions must be empty when (re-)joining.";
    if (joins && asked->subscribed_topic_names.count < 0 && !asked->subscribed_topic_regex.len)
        return "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null.";
    return NULL;
}

static bool assignor_of(struct slice name, enum group_assignor *ret)
{
    for (unsigned i = 0; i < GROUP_ASSIGNORS; i++)
        if (slice_is(name, assignors[i])) {
            *ret = (enum group_assignor)i;
            return true;
        }
    return false;
}

static bool heartbeat_refuse(struct kafka_request *r, int16_t error, const char *text)
{
    const struct kafka_consumer_group_heartbeat_request *asked = r->message;
    struct kafka_consumer_group_heartbeat_response *said = r->response;
    said->error_code = error;
    said->error_message = slice_str(text);
    said->member_id = asked->member_id;
    return true;
}

static struct heartbeat *heartbeat_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_consumer_group_heartbeat_request *asked = r->message;
    struct heartbeat *h = kafka_room(k, r, 1, sizeof *h);
    if (!h || !kafka_groups_init(k, r, 1, &h->groups))
        return NULL;
    h->member = asked->member_id;
    if (!h->member.len) { /* an id that nobody else has */
        uint8_t *id = kafka_room(k, r, 64, 1);
        if (!id)
            return NULL;
        h->member = slice_of(id, (size_t)snprintf((char *)id, 64, "%p-%lld-%u", (void *)k,
                                                  (long long)k->options->wall(k->options->wall_arg), r->id));
    }
    return r->state = h;
}

static bool heartbeat_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_consumer_group_heartbeat_request *asked = r->message;
    const struct heartbeat *h = r->state;
    size_t bytes = 300 + asked->subscribed_topic_regex.len;
    (void)i;
    for (int32_t t = 0; t < asked->subscribed_topic_names.count; t++)
        bytes += 1 + asked->subscribed_topic_names.at[t].len;
    for (int32_t t = 0; t < asked->topic_partitions.count; t++)
        bytes += GROUP_PLACE_BYTES * count_of(asked->topic_partitions.at[t].partitions.count);
    if (!kafka_group_args(k, r, bytes, ret))
        return false;
    struct slice client = kafka_or_empty(r->client_id);
    client.len = client.len > UINT8_MAX ? UINT8_MAX : client.len;
    writer_str8(&ret->args, client);
    writer_u8(&ret->args, (asked->subscribed_topic_names.count >= 0 ? CONSUME_TOPICS : 0) |
                              (asked->topic_partitions.count >= 0 ? CONSUME_OWNED : 0) |
                              (asked->server_assignor.ptr ? CONSUME_ASSIGNOR : 0) |
                              (asked->subscribed_topic_regex.ptr ? CONSUME_PATTERN : 0));
    writer_u8(&ret->args, (uint8_t)h->assignor);
    size_t mark = writer_mark32(&ret->args);
    for (int32_t t = 0; t < asked->subscribed_topic_names.count; t++)
        writer_str8(&ret->args, asked->subscribed_topic_names.at[t]);
    writer_patch32(&ret->args, mark);
    writer_str32(&ret->args, asked->subscribed_topic_regex);
    for (int32_t t = 0; t < asked->topic_partitions.count; t++) {
        uint64_t id;
        if (!kafka_topic_of_uuid(k, &asked->topic_partitions.at[t].topic_id, &id))
            id = 0;
        for (int32_t n = 0; n < asked->topic_partitions.at[t].partitions.count; n++) {
            writer_u64(&ret->args, id);
            writer_u32(&ret->args, (uint32_t)asked->topic_partitions.at[t].partitions.at[n]);
        }
    }
    uint32_t rebalance = asked->rebalance_timeout_ms > 0 ? (uint32_t)asked->rebalance_timeout_ms : 0;
    ret->group = asked->group_id;
    ret->member = h->member;
    ret->instance = asked->instance_id;
    ret->number = (uint64_t)rebalance << 32 | (uint32_t)asked->member_epoch;
    return true;
}

static void heartbeat_say_assignment(struct kafka *k, struct kafka_request *r, struct reader rows)
{
    struct kafka_consumer_group_heartbeat_response *said = r->response;
    struct kafka_places p = {.r = rows};
    size_t max = rows.left / GROUP_PLACE_BYTES;
    said->assignment = kafka_more_room(k, r, 1, sizeof *said->assignment);
    if (!said->assignment)
        return;
    said->assignment->topic_partitions.at = kafka_more_room(k, r, max, sizeof *said->assignment->topic_partitions.at);
    while (said->assignment->topic_partitions.at && kafka_places_next(&p)) {
        struct kafka_consumer_group_heartbeat_response_topic_partitions *topic =
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
    const struct heartbeat *h = r->state;
    const struct kafka_consumer_group_heartbeat_request *asked = r->message;
    const struct kafka_group_said *one = &h->groups.said[0];
    struct kafka_consumer_group_heartbeat_response *said = r->response;
    struct reader fields = kafka_group_fields(one);
    bool pattern = one->error == GROUP_ERR_INVALID && asked->subscribed_topic_regex.len;
    said->error_code = pattern ? KAFKA_ERR_INVALID_REGULAR_EXPRESSION : kafka_group_error(one->error);
    said->member_id = h->member;
    if (one->error)
        return;
    said->member_id = reader_str8(&fields);
    said->member_epoch = (int32_t)reader_u32(&fields);
    said->heartbeat_interval_ms = (int32_t)reader_u32(&fields);
    if (reader_u8(&fields))
        heartbeat_say_assignment(k, r, fields);
}

static enum kafka_progress heartbeat_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_consumer_group_heartbeat_request *asked = r->message;
    int16_t error;
    const char *fault = r->state ? NULL : heartbeat_fault(r, &error);
    if (fault && heartbeat_refuse(r, error, fault))
        return KAFKA_SENT;
    struct heartbeat *h = r->state ? r->state : heartbeat_begin(k, r);
    if (!h)
        return KAFKA_AGAIN;
    if (asked->server_assignor.ptr && !assignor_of(asked->server_assignor, &h->assignor) &&
        heartbeat_refuse(r, KAFKA_ERR_UNSUPPORTED_ASSIGNOR, "the assignors are uniform and range"))
        return KAFKA_SENT;
    if (kafka_groups_go(k, r, &h->groups, CMD_GROUP_CONSUME, heartbeat_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_done(&h->groups))
        heartbeat_say(k, r);
    return KAFKA_SENT;
}

static void heartbeat_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct heartbeat *h = r->state;
    if (kafka_groups_effect(k, r, &h->groups, e))
        heartbeat_say(k, r);
}

static void heartbeat_drop(struct kafka *k, struct kafka_request *r)
{
    struct heartbeat *h = r->state;
    (void)k;
    if (h)
        kafka_groups_drop(&h->groups);
}

const struct kafka_handler kafka_on_consumer_group_heartbeat = {
    .go = heartbeat_go, .effect = heartbeat_effect, .drop = heartbeat_drop};

/* ---- ConsumerGroupDescribe ---- */

static struct kafka_described *describe_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_consumer_group_describe_request *asked = r->message;
    struct kafka_described *d = kafka_room(k, r, 1, sizeof *d);
    if (!d || !kafka_described_init(k, r, asked->group_ids.at, count_of(asked->group_ids.count), false, d))
        return NULL;
    return r->state = d;
}

static bool describe_member(struct kafka *k, struct kafka_request *r, const struct kafka_described *d,
                            const struct kafka_described_member *m,
                            struct kafka_consumer_group_describe_response_member *said)
{
    kafka_defaults(&kafka_consumer_group_describe_response_member_table, said);
    said->member_id = m->id;
    said->instance_id = m->instance.len ? m->instance : (struct slice){0};
    said->client_id = kafka_or_empty(m->client);
    said->client_host = kafka_group_host(k, r, m->host);
    said->member_epoch = (int32_t)m->epoch;
    said->member_type = MEMBER_CONSUMER;
    said->subscribed_topic_regex = m->pattern.len ? m->pattern : (struct slice){0};
    if (!kafka_described_names(k, r, m->topics, &said->subscribed_topic_names.at, &said->subscribed_topic_names.count))
        return false;
    said->assignment = kafka_described_assignment(k, r, d, m->assigned);
    said->target_assignment = kafka_described_assignment(k, r, d, m->target);
    return said->assignment && said->target_assignment;
}

static void describe_one(struct kafka *k, struct kafka_request *r, const struct kafka_described *d, size_t i)
{
    const struct kafka_consumer_group_describe_request *asked = r->message;
    struct kafka_consumer_group_describe_response *response = r->response;
    struct kafka_consumer_group_describe_response_group *said = &response->groups.at[i];
    const struct kafka_group_said *one = &d->groups.said[i];
    struct kafka_described_head head;
    struct kafka_described_member m;
    kafka_defaults(&kafka_consumer_group_describe_response_group_table, said);
    said->group_id = asked->group_ids.at[i];
    said->error_code = kafka_group_error(one->error);
    said->group_state = said->assignor_name = slice_str("");
    if (one->error == GROUP_ERR_NO_GROUP)
        said->error_message = slice_str("there is no such consumer group");
    if (one->error)
        return;
    struct reader members = kafka_described_members(one, &head);
    said->group_state = head.state;
    said->group_epoch = head.epoch;
    said->assignment_epoch = head.target_epoch;
    said->assignor_name = slice_str(assignors[head.assignor]);
    if (asked->include_authorized_operations)
        said->authorized_operations = KAFKA_GROUP_OPERATIONS;
    said->members.at = kafka_more_room(k, r, head.member_count, sizeof *said->members.at);
    while (said->members.at && kafka_described_next(&members, &m))
        if (!describe_member(k, r, d, &m, &said->members.at[said->members.count++]))
            return;
}

static enum kafka_progress describe_go(struct kafka *k, struct kafka_request *r)
{
    struct kafka_consumer_group_describe_response *said = r->response;
    struct kafka_described *d = r->state ? r->state : describe_begin(k, r);
    if (!d || kafka_described_go(k, r, d) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    said->groups.at = kafka_room(k, r, d->groups.count, sizeof *said->groups.at);
    for (size_t i = 0; said->groups.at && i < d->groups.count; i++)
        describe_one(k, r, d, i);
    said->groups.count = said->groups.at ? (int32_t)d->groups.count : 0;
    return KAFKA_SENT;
}

static void describe_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    kafka_described_effect(k, r, r->state, e);
}

static void describe_drop(struct kafka *k, struct kafka_request *r)
{
    (void)k;
    if (r->state)
        kafka_described_drop(r->state);
}

const struct kafka_handler kafka_on_consumer_group_describe = {
    .go = describe_go, .effect = describe_effect, .drop = describe_drop};
