/* ShareGroupHeartbeat and ShareGroupDescribe (KIP-932): who is in a share group, and which partitions each reads. What they read is
 * share_fetch.c's. */
#include "proto/kafka/group_asked.h"
#include "proto/kafka/names.h"
#include "proto/kafka/places.h"
#include "proto/kafka/rows.h"

#include <stdlib.h>

#include "base/check.h"

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

struct sharing {
    struct kafka_groups groups;
    uint64_t *ids; /* streams that are assigned, each once, to be named */
    size_t id_count;
    struct kafka_rows names;
    bool gathered;
};

static struct sharing *sharing_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_share_group_describe_request *asked = r->message;
    struct sharing *d = kafka_room(k, r, 1, sizeof *d);
    if (!d || !kafka_groups_init(k, r, count_of(asked->group_ids.count), &d->groups))
        return NULL;
    return r->state = d;
}

static bool sharing_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_share_group_describe_request *asked = r->message;
    (void)k;
    ret->group = asked->group_ids.at[i];
    ret->number = 1; /* of this kind */
    return true;
}

struct described { /* a member, as the core says it */
    struct slice id, instance, client, host, topics, pattern, assigned, target;
    uint32_t epoch;
};

static bool next_member(struct reader *r, struct described *ret)
{
    if (!r->left)
        return false;
    ret->id = reader_str8(r);
    ret->instance = reader_str8(r);
    ret->client = reader_str8(r);
    ret->host = reader_str8(r);
    ret->epoch = reader_u32(r);
    ret->topics = reader_str32(r);
    ret->pattern = reader_str32(r);
    ret->assigned = reader_str32(r);
    ret->target = reader_str32(r);
    return reader_ok(r);
}

static struct reader members_of(const struct kafka_group_said *one)
{
    struct reader fields = kafka_group_fields(one);
    if (fields.left)
        (void)reader_take(&fields, 10); /* state, epochs, assignor */
    return fields;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static bool sharing_gather(struct kafka *k, struct kafka_request *r, struct sharing *d)
{
    size_t max = 0, n = 0;
    struct described m;
    for (size_t i = 0; i < d->groups.count; i++)
        for (struct reader fields = members_of(&d->groups.said[i]); next_member(&fields, &m);)
            max += (m.assigned.len + m.target.len) / GROUP_PLACE_BYTES;
    d->ids = kafka_more_room(k, r, max, sizeof *d->ids);
    if (!d->ids)
        return false;
    for (size_t i = 0; i < d->groups.count; i++)
        for (struct reader fields = members_of(&d->groups.said[i]); next_member(&fields, &m);) {
            struct kafka_places sets[] = {{.r = reader_of(m.assigned)}, {.r = reader_of(m.target)}};
            for (size_t s = 0; s < ARRAY_LEN(sets); s++)
                while (kafka_places_next(&sets[s])) {
                    d->ids[n++] = sets[s].stream;
                    (void)reader_take(&sets[s].r, GROUP_PLACE_BYTES * sets[s].count);
                }
        }
    if (n)
        qsort(d->ids, n, sizeof *d->ids, by_number);
    for (size_t i = 0; i < n; i++)
        if (!i || d->ids[i] != d->ids[d->id_count - 1])
            d->ids[d->id_count++] = d->ids[i];
    struct kafka_wanted wanted = {.ids = d->ids, .id_count = d->id_count};
    d->gathered = kafka_rows_init(k, r, &wanted, false, &d->names);
    return d->gathered;
}

static struct kafka_share_group_describe_response_assignment *sharing_assignment(struct kafka *k,
                                                                                 struct kafka_request *r,
                                                                                 const struct sharing *d,
                                                                                 struct slice rows)
{
    struct kafka_share_group_describe_response_assignment *said = kafka_more_room(k, r, 1, sizeof *said);
    struct kafka_places p = {.r = reader_of(rows)};
    if (said)
        said->topic_partitions.at =
            kafka_more_room(k, r, rows.len / GROUP_PLACE_BYTES, sizeof *said->topic_partitions.at);
    while (said && said->topic_partitions.at && kafka_places_next(&p)) {
        const uint64_t *id = bsearch(&p.stream, d->ids, d->id_count, sizeof *d->ids, by_number);
        CHECK(id);
        const struct stream_row *row = &d->names.rows[id - d->ids];
        struct kafka_share_group_describe_response_topic_partitions *topic =
            &said->topic_partitions.at[said->topic_partitions.count];
        kafka_topic_uuid(k, p.stream, &topic->topic_id);
        topic->topic_name = row->result == STREAM_DONE ? row->name : slice_str("");
        topic->partitions.count = (int32_t)p.count;
        topic->partitions.at = kafka_places_take(k, r, &p);
        if (!topic->partitions.at)
            return NULL;
        said->topic_partitions.count++;
    }
    return said;
}

static bool sharing_member(struct kafka *k, struct kafka_request *r, const struct sharing *d, const struct described *m,
                           struct kafka_share_group_describe_response_member *said)
{
    struct reader topics = reader_of(m->topics);
    kafka_defaults(&kafka_share_group_describe_response_member_table, said);
    said->member_id = m->id;
    said->client_id = kafka_or_empty(m->client);
    said->client_host = kafka_group_host(k, r, m->host);
    said->member_epoch = (int32_t)m->epoch;
    said->subscribed_topic_names.at = kafka_more_room(k, r, m->topics.len / 2, sizeof *said->subscribed_topic_names.at);
    if (!said->subscribed_topic_names.at)
        return false;
    while (topics.left)
        said->subscribed_topic_names.at[said->subscribed_topic_names.count++] = reader_str8(&topics);
    struct kafka_share_group_describe_response_assignment *assigned = sharing_assignment(k, r, d, m->assigned);
    if (assigned)
        said->assignment = assigned;
    return assigned != NULL;
}

static void sharing_one(struct kafka *k, struct kafka_request *r, const struct sharing *d, size_t i)
{
    const struct kafka_share_group_describe_request *asked = r->message;
    struct kafka_share_group_describe_response *response = r->response;
    struct kafka_share_group_describe_response_group *said = &response->groups.at[i];
    const struct kafka_group_said *one = &d->groups.said[i];
    struct reader fields = kafka_group_fields(one), again = members_of(one);
    struct described m;
    size_t count = 0;
    kafka_defaults(&kafka_share_group_describe_response_group_table, said);
    said->group_id = asked->group_ids.at[i];
    said->error_code = kafka_group_error(one->error);
    said->group_state = said->assignor_name = slice_str("");
    if (one->error == GROUP_ERR_NO_GROUP)
        said->error_message = slice_str("there is no such share group");
    if (one->error)
        return;
    said->group_state = kafka_group_state((enum group_state)reader_u8(&fields));
    said->group_epoch = (int32_t)reader_u32(&fields);
    said->assignment_epoch = (int32_t)reader_u32(&fields);
    said->assignor_name = slice_str("simple");
    (void)reader_u8(&fields);
    if (asked->include_authorized_operations)
        said->authorized_operations = KAFKA_GROUP_OPERATIONS;
    while (next_member(&again, &m))
        count++;
    said->members.at = kafka_more_room(k, r, count, sizeof *said->members.at);
    while (said->members.at && next_member(&fields, &m))
        if (!sharing_member(k, r, d, &m, &said->members.at[said->members.count++]))
            return;
}

static enum kafka_progress sharing_go(struct kafka *k, struct kafka_request *r)
{
    struct kafka_share_group_describe_response *said = r->response;
    struct sharing *d = r->state ? r->state : sharing_begin(k, r);
    if (!d || kafka_groups_go(k, r, &d->groups, CMD_GROUP_DESCRIBE_CONSUMERS, sharing_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (!kafka_groups_done(&d->groups) || (!d->gathered && !sharing_gather(k, r, d)))
        return KAFKA_AGAIN;
    if (kafka_rows(k, r, &d->names) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    said->groups.at = kafka_room(k, r, d->groups.count, sizeof *said->groups.at);
    for (size_t i = 0; said->groups.at && i < d->groups.count; i++)
        sharing_one(k, r, d, i);
    said->groups.count = said->groups.at ? (int32_t)d->groups.count : 0;
    return KAFKA_SENT;
}

static void sharing_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct sharing *d = r->state;
    if (!d->gathered)
        (void)kafka_groups_effect(k, r, &d->groups, e);
    else
        kafka_rows_effect(k, r, &d->names, e);
}

static void sharing_drop(struct kafka *k, struct kafka_request *r)
{
    struct sharing *d = r->state;
    (void)k;
    if (!d)
        return;
    kafka_groups_drop(&d->groups);
    kafka_rows_drop(&d->names);
}

const struct kafka_handler kafka_on_share_group_describe = {
    .go = sharing_go, .effect = sharing_effect, .drop = sharing_drop, .shares = true};
