/* Members of groups in which the broker assigns, see described.h. */
#include "proto/kafka/described.h"

#include "base/check.h"
#include "proto/kafka/names.h"
#include "proto/kafka/places.h"

#define HEAD_BYTES 10u /* state, epochs, assignor */

bool kafka_described_init(struct kafka *k, struct kafka_request *r, struct slice *names, size_t count, bool shares,
                          struct kafka_described *ret)
{
    *ret = (struct kafka_described){.names = names, .shares = shares};
    return kafka_groups_init(k, r, count, &ret->groups) && kafka_groups_once(k, r, &ret->groups, names);
}

static bool describe_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_described *d = r->state; /* its first member */
    (void)k;
    ret->group = d->names[i];
    ret->number = d->shares;
    return true;
}

bool kafka_described_next(struct reader *r, struct kafka_described_member *ret)
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
        (void)reader_take(&fields, HEAD_BYTES);
    return fields;
}

struct reader kafka_described_members(const struct kafka_group_said *one, struct kafka_described_head *ret)
{
    struct reader fields = kafka_group_fields(one), again = members_of(one);
    struct kafka_described_member m;
    *ret = (struct kafka_described_head){.state = kafka_group_state((enum group_state)reader_u8(&fields))};
    ret->epoch = (int32_t)reader_u32(&fields);
    ret->target_epoch = (int32_t)reader_u32(&fields);
    ret->assignor = reader_u8(&fields);
    while (kafka_described_next(&again, &m))
        ret->member_count++;
    return fields;
}

static bool gather(struct kafka *k, struct kafka_request *r, struct kafka_described *d)
{
    size_t max = 0, n = 0;
    struct kafka_described_member m;
    for (size_t i = 0; i < d->groups.count; i++)
        for (struct reader fields = members_of(&d->groups.said[i]); kafka_described_next(&fields, &m);)
            max += (m.assigned.len + m.target.len) / GROUP_PLACE_BYTES;
    d->ids = kafka_more_room(k, r, max, sizeof *d->ids);
    if (!d->ids)
        return false;
    for (size_t i = 0; i < d->groups.count; i++)
        for (struct reader fields = members_of(&d->groups.said[i]); kafka_described_next(&fields, &m);) {
            struct kafka_places sets[] = {{.r = reader_of(m.assigned)}, {.r = reader_of(m.target)}};
            for (size_t s = 0; s < ARRAY_LEN(sets); s++)
                while (kafka_places_next(&sets[s])) {
                    d->ids[n++] = sets[s].stream;
                    (void)reader_take(&sets[s].r, GROUP_PLACE_BYTES * sets[s].count);
                }
        }
    d->id_count = kafka_ids_once(d->ids, n);
    struct kafka_wanted wanted = {.ids = d->ids, .id_count = d->id_count};
    d->gathered = kafka_rows_init(k, r, &wanted, false, &d->topics);
    return d->gathered;
}

enum kafka_progress kafka_described_go(struct kafka *k, struct kafka_request *r, struct kafka_described *d)
{
    if (kafka_groups_go(k, r, &d->groups, CMD_GROUP_DESCRIBE_CONSUMERS, describe_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (!kafka_groups_done(&d->groups) || (!d->gathered && !gather(k, r, d)))
        return KAFKA_AGAIN;
    return kafka_rows(k, r, &d->topics);
}

void kafka_described_effect(struct kafka *k, struct kafka_request *r, struct kafka_described *d, struct effect *e)
{
    if (!d->gathered)
        (void)kafka_groups_effect(k, r, &d->groups, e);
    else
        kafka_rows_effect(k, r, &d->topics, e);
}

void kafka_described_drop(struct kafka_described *d)
{
    kafka_groups_drop(&d->groups);
    kafka_rows_drop(&d->topics);
}

struct kafka_consumer_group_describe_response_assignment *kafka_described_assignment(struct kafka *k,
                                                                                     struct kafka_request *r,
                                                                                     const struct kafka_described *d,
                                                                                     struct slice places)
{
    struct kafka_consumer_group_describe_response_assignment *said = kafka_more_room(k, r, 1, sizeof *said);
    struct kafka_places p = {.r = reader_of(places)};
    if (said)
        said->topic_partitions.at =
            kafka_more_room(k, r, places.len / GROUP_PLACE_BYTES, sizeof *said->topic_partitions.at);
    while (said && said->topic_partitions.at && kafka_places_next(&p)) {
        const struct stream_row *row = &d->topics.rows[kafka_ids_find(d->ids, d->id_count, p.stream)];
        struct kafka_consumer_group_describe_response_topic_partitions *topic =
            &said->topic_partitions.at[said->topic_partitions.count];
        kafka_topic_uuid(k, p.stream, &topic->topic_id);
        topic->topic_name = row->result == STREAM_DONE ? row->name : slice_str("");
        topic->partitions.count = (int32_t)p.count;
        topic->partitions.at = kafka_places_take(k, r, &p);
        if (!topic->partitions.at)
            return NULL;
        said->topic_partitions.count++;
    }
    return said && said->topic_partitions.at ? said : NULL;
}

bool kafka_described_names(struct kafka *k, struct kafka_request *r, struct slice names, struct slice **ret_at,
                           int32_t *ret_count)
{
    struct reader left = reader_of(names);
    struct slice *at = kafka_more_room(k, r, names.len / 2, sizeof *at);
    *ret_at = at;
    while (at && left.left)
        at[(*ret_count)++] = reader_str8(&left);
    return at != NULL;
}
