/* DescribeShareGroupOffsets, AlterShareGroupOffsets and DeleteShareGroupOffsets (KIP-932): where share groups are in the topics that they
 * read, for tools. Topics have names in the requests; in the answer about all that a group reads the core says streams, which are then
 * looked up. */
#include "core/fetch.h"
#include "proto/kafka/errands.h"
#include "proto/kafka/group_asked.h"
#include "proto/kafka/names.h"
#include "proto/kafka/places.h"
#include "proto/kafka/resources.h"
#include "proto/kafka/rows.h"

#include <stdlib.h>

static size_t count_of(int32_t count)
{
    return count > 0 ? (size_t)count : 0;
}

static bool is_there(const struct stream_row *row)
{
    return row->result == STREAM_DONE;
}

/* ---- DescribeShareGroupOffsets ---- */

struct place { /* a row of the core's answer */
    uint64_t stream;
    uint32_t partition;
    int64_t start, lag;
};

struct describing {
    struct kafka_rows topics; /* that are named, in the order of the request */
    struct kafka_groups groups;
    size_t *first;         /* of each group's topics, among them */
    struct place **places; /* by group, of those that asked for all: sorted */
    size_t *place_counts;
    uint64_t *ids; /* of their streams, each once */
    size_t id_count;
    struct kafka_rows names;
    bool gathered;
};

static struct place place_read(struct reader *r)
{
    struct place one = {.stream = reader_u64(r)};
    one.partition = reader_u32(r);
    one.start = (int64_t)reader_u64(r) - 1;
    one.lag = (int64_t)reader_u64(r);
    return one;
}

static struct describing *describe_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_describe_share_group_offsets_request *asked = r->message;
    size_t count = count_of(asked->groups.count), topics = 0;
    struct describing *d = kafka_room(k, r, 1, sizeof *d);
    size_t *first = d ? kafka_more_room(k, r, count, sizeof *first) : NULL;
    if (!first)
        return NULL;
    d->first = first;
    for (size_t i = 0; i < count; i++) {
        first[i] = topics;
        topics += count_of(asked->groups.at[i].topics.count);
    }
    struct slice *names = kafka_room(k, r, topics, sizeof *names);
    struct slice *ids = names ? kafka_more_room(k, r, count, sizeof *ids) : NULL;
    for (size_t i = 0; ids && i < count; i++)
        ids[i] = asked->groups.at[i].group_id;
    if (!ids || !kafka_groups_init(k, r, count, &d->groups) || !kafka_groups_once(k, r, &d->groups, ids))
        return NULL;
    struct kafka_wanted wanted = {.names = names};
    for (size_t i = 0; i < count; i++)
        for (size_t t = 0; t < count_of(asked->groups.at[i].topics.count); t++)
            names[wanted.name_count++] = asked->groups.at[i].topics.at[t].topic_name;
    d->places = kafka_room(k, r, count, sizeof(struct place *));
    d->place_counts = d->places ? kafka_room(k, r, count, sizeof *d->place_counts) : NULL;
    return d->place_counts && kafka_rows_init(k, r, &wanted, false, &d->topics) ? r->state = d : NULL;
}

static bool describe_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_describe_share_group_offsets_request *asked = r->message;
    const struct kafka_describe_share_group_offsets_request_group *group = &asked->groups.at[i];
    const struct describing *d = r->state;
    size_t rows = 0, first = d->first[i];
    for (size_t t = 0; t < count_of(group->topics.count); t++)
        rows += count_of(group->topics.at[t].partitions.count);
    ret->group = group->group_id;
    ret->flags = group->topics.count < 0 ? ASK_MULTIPLE : 0;
    if (!kafka_group_args(k, r, rows * GROUP_PLACE_BYTES, ret))
        return false;
    for (size_t t = 0; t < count_of(group->topics.count); t++)
        for (size_t p = 0; p < count_of(group->topics.at[t].partitions.count); p++) {
            const struct stream_row *row = &d->topics.rows[first + t];
            writer_u64(&ret->args, is_there(row) ? row->id : 0);
            writer_u32(&ret->args, (uint32_t)group->topics.at[t].partitions.at[p]);
        }
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->stream != y->stream)
        return x->stream < y->stream ? -1 : 1;
    return (x->partition > y->partition) - (x->partition < y->partition);
}

static bool gather_group(struct kafka *k, struct kafka_request *r, struct describing *d, size_t i)
{
    struct reader fields = kafka_group_fields(&d->groups.said[i]);
    size_t max = fields.left / SHARE_OFFSET_BYTES, n = 0;
    struct place *list = kafka_more_room(k, r, max, sizeof *list);
    if (!list)
        return false;
    while (n < max)
        list[n++] = place_read(&fields);
    if (n)
        qsort(list, n, sizeof *list, by_place);
    d->places[i] = list;
    for (size_t p = 0; p < n; p++) /* members may have the same */
        if (!p || by_place(&list[p], &list[d->place_counts[i] - 1]) != 0)
            list[d->place_counts[i]++] = list[p];
    return true;
}

static bool describe_gather(struct kafka *k, struct kafka_request *r, struct describing *d)
{
    const struct kafka_describe_share_group_offsets_request *asked = r->message;
    size_t max = 0, n = 0;
    for (size_t i = 0; i < d->groups.count; i++) {
        if (asked->groups.at[i].topics.count < 0 && !gather_group(k, r, d, i))
            return false;
        max += d->place_counts[i];
    }
    d->ids = kafka_more_room(k, r, max, sizeof *d->ids);
    if (!d->ids)
        return false;
    for (size_t i = 0; i < d->groups.count; i++)
        for (size_t p = 0; p < d->place_counts[i]; p++)
            d->ids[n++] = d->places[i][p].stream;
    d->id_count = kafka_ids_once(d->ids, n);
    struct kafka_wanted wanted = {.ids = d->ids, .id_count = d->id_count};
    d->gathered = kafka_rows_init(k, r, &wanted, false, &d->names);
    return d->gathered;
}

static struct kafka_describe_share_group_offsets_response_partition said_of(const struct place *p)
{
    struct kafka_describe_share_group_offsets_response_partition said;
    kafka_defaults(&kafka_describe_share_group_offsets_response_partition_table, &said);
    said.partition_index = (int32_t)p->partition;
    said.start_offset = p->start;
    said.lag = p->lag;
    return said;
}

/* Topics that are named; of a group that is none nothing was read. */
static bool say_named(struct kafka *k, struct kafka_request *r, const struct describing *d, size_t i,
                      struct kafka_describe_share_group_offsets_response_group *said)
{
    const struct kafka_describe_share_group_offsets_request *asked = r->message;
    const struct kafka_describe_share_group_offsets_request_group *group = &asked->groups.at[i];
    const struct stream_row *rows = d->topics.rows + d->first[i];
    struct reader fields = kafka_group_fields(&d->groups.said[i]);
    bool known = !d->groups.said[i].error;
    said->topics.at = kafka_room(k, r, count_of(group->topics.count), sizeof *said->topics.at);
    for (size_t t = 0; said->topics.at && t < count_of(group->topics.count); t++) {
        struct kafka_describe_share_group_offsets_response_topic *topic = &said->topics.at[t];
        size_t count = count_of(group->topics.at[t].partitions.count);
        topic->topic_name = group->topics.at[t].topic_name;
        if (is_there(&rows[t]))
            kafka_topic_uuid(k, rows[t].id, &topic->topic_id);
        topic->partitions.at = kafka_room(k, r, count, sizeof *topic->partitions.at);
        if (!topic->partitions.at)
            return false;
        for (size_t p = 0; p < count; p++) {
            struct place one = {.start = -1, .lag = -1};
            if (known)
                one = place_read(&fields);
            one.partition = (uint32_t)group->topics.at[t].partitions.at[p];
            topic->partitions.at[topic->partitions.count] = said_of(&one);
            if (rows[t].result == STREAM_REFUSED)
                topic->partitions.at[topic->partitions.count].error_code = KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED;
            topic->partitions.count++;
        }
        said->topics.count++;
    }
    return said->topics.at != NULL;
}

/* Topics that the user may not see are not told of. */
static bool say_all(struct kafka *k, struct kafka_request *r, const struct describing *d, size_t i,
                    struct kafka_describe_share_group_offsets_response_group *said)
{
    const struct place *list = d->places[i];
    size_t count = d->place_counts[i];
    struct kafka_describe_share_group_offsets_response_partition *rows = kafka_more_room(k, r, count, sizeof *rows);
    said->topics.at = rows ? kafka_more_room(k, r, count, sizeof *said->topics.at) : NULL;
    for (size_t p = 0; said->topics.at && p < count; p++) {
        const struct stream_row *row = &d->names.rows[kafka_ids_find(d->ids, d->id_count, list[p].stream)];
        if (!is_there(row))
            continue;
        if (!p || list[p].stream != list[p - 1].stream) {
            struct kafka_describe_share_group_offsets_response_topic *topic = &said->topics.at[said->topics.count++];
            topic->topic_name = row->name;
            topic->partitions.at = &rows[p];
            kafka_topic_uuid(k, list[p].stream, &topic->topic_id);
        }
        rows[p] = said_of(&list[p]);
        said->topics.at[said->topics.count - 1].partitions.count++;
    }
    return said->topics.at != NULL;
}

static bool describe_one(struct kafka *k, struct kafka_request *r, const struct describing *d, size_t i)
{
    const struct kafka_describe_share_group_offsets_request *asked = r->message;
    struct kafka_describe_share_group_offsets_response *response = r->response;
    struct kafka_describe_share_group_offsets_response_group *said = &response->groups.at[i];
    enum group_error error = d->groups.said[i].error;
    kafka_defaults(&kafka_describe_share_group_offsets_response_group_table, said);
    said->group_id = asked->groups.at[i].group_id;
    if (error && error != GROUP_ERR_NO_GROUP && error != GROUP_ERR_INVALID_ID) { /* which has read nothing */
        said->error_code = kafka_group_error(error);
        return true;
    }
    return asked->groups.at[i].topics.count < 0 ? say_all(k, r, d, i, said) : say_named(k, r, d, i, said);
}

static enum kafka_progress describe_go(struct kafka *k, struct kafka_request *r)
{
    struct kafka_describe_share_group_offsets_response *said = r->response;
    struct describing *d = r->state ? r->state : describe_begin(k, r);
    if (!d || kafka_rows(k, r, &d->topics) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_go(k, r, &d->groups, CMD_SHARE_OFFSETS, describe_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (!kafka_groups_done(&d->groups) || (!d->gathered && !describe_gather(k, r, d)))
        return KAFKA_AGAIN;
    if (kafka_rows(k, r, &d->names) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    said->groups.at = kafka_room(k, r, d->groups.count, sizeof *said->groups.at);
    for (size_t i = 0; said->groups.at && i < d->groups.count && describe_one(k, r, d, i); i++)
        said->groups.count++;
    return KAFKA_SENT;
}

static void describe_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct describing *d = r->state;
    if (!d->topics.done)
        kafka_rows_effect(k, r, &d->topics, e);
    else if (!d->gathered)
        (void)kafka_groups_effect(k, r, &d->groups, e);
    else
        kafka_rows_effect(k, r, &d->names, e);
}

static void describe_drop(struct kafka *k, struct kafka_request *r)
{
    struct describing *d = r->state;
    (void)k;
    if (!d)
        return;
    kafka_rows_drop(&d->topics);
    kafka_groups_drop(&d->groups);
    kafka_rows_drop(&d->names);
}

const struct kafka_handler kafka_on_describe_share_group_offsets = {
    .go = describe_go, .effect = describe_effect, .drop = describe_drop, .shares = true};

/* ---- AlterShareGroupOffsets, DeleteShareGroupOffsets ---- */

struct changing {
    struct kafka_rows topics; /* in the order of the request */
    struct kafka_groups group;
    const uint8_t *doubles; /* of them */
};

static size_t topic_count(const struct kafka_request *r)
{
    return r->api->key == KAFKA_API_alter_share_group_offsets
               ? count_of(((const struct kafka_alter_share_group_offsets_request *)r->message)->topics.count)
               : count_of(((const struct kafka_delete_share_group_offsets_request *)r->message)->topics.count);
}

static struct slice topic_name(const struct kafka_request *r, size_t i)
{
    return r->api->key == KAFKA_API_alter_share_group_offsets
               ? ((const struct kafka_alter_share_group_offsets_request *)r->message)->topics.at[i].topic_name
               : ((const struct kafka_delete_share_group_offsets_request *)r->message)->topics.at[i].topic_name;
}

static size_t place_count(const struct kafka_alter_share_group_offsets_request *asked)
{
    size_t places = 0;
    for (int32_t t = 0; t < asked->topics.count; t++)
        places += count_of(asked->topics.at[t].partitions.count);
    return places;
}

static struct changing *change_begin(struct kafka *k, struct kafka_request *r)
{
    size_t count = topic_count(r);
    if (r->api->key == KAFKA_API_alter_share_group_offsets && place_count(r->message) > FETCH_ROWS_MAX) {
        kafka_drop(k); /* each is a record of the journal */
        return NULL;
    }
    struct changing *c = kafka_room(k, r, 1, sizeof *c);
    struct slice *names = c ? kafka_room(k, r, count, sizeof *names) : NULL;
    if (!names || !kafka_groups_init(k, r, 1, &c->group))
        return NULL;
    for (size_t i = 0; i < count; i++)
        names[i] = topic_name(r, i);
    c->doubles = kafka_doubles(k, r, names, count);
    if (!c->doubles)
        return NULL;
    struct kafka_wanted wanted = {.names = names, .name_count = count};
    return kafka_rows_init(k, r, &wanted, false, &c->topics) ? r->state = c : NULL;
}

static bool alter_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_alter_share_group_offsets_request *asked = r->message;
    const struct changing *c = r->state;
    (void)i;
    if (!kafka_group_args(k, r, place_count(asked) * SHARE_ALTER_BYTES, ret))
        return false;
    for (size_t t = 0; t < topic_count(r); t++)
        for (size_t p = 0; p < count_of(asked->topics.at[t].partitions.count); p++) {
            const struct stream_row *row = &c->topics.rows[t];
            writer_u64(&ret->args, is_there(row) ? row->id : 0);
            writer_u32(&ret->args, (uint32_t)asked->topics.at[t].partitions.at[p].partition_index);
            writer_u64(&ret->args, (uint64_t)asked->topics.at[t].partitions.at[p].start_offset);
        }
    ret->group = asked->group_id;
    return true;
}

/* Of a topic that was named before nothing is left, and the core need not look at all its partitions again. */
static bool delete_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct changing *c = r->state;
    size_t count = topic_count(r);
    (void)i;
    if (!kafka_group_args(k, r, count * sizeof(uint64_t), ret))
        return false;
    for (size_t t = 0; t < count; t++)
        writer_u64(&ret->args, is_there(&c->topics.rows[t]) && c->doubles[t] != KAFKA_LATER ? c->topics.rows[t].id : 0);
    ret->group = ((const struct kafka_delete_share_group_offsets_request *)r->message)->group_id;
    return true;
}

/* Of a partition, or of a topic. */
static int16_t error_of(const struct stream_row *row, struct slice name, enum group_error said)
{
    return row->result == STREAM_REFUSED ? kafka_row_error(row, name) : kafka_group_error(said);
}

static void alter_say(struct kafka *k, struct kafka_request *r, const struct changing *c)
{
    const struct kafka_alter_share_group_offsets_request *asked = r->message;
    struct kafka_alter_share_group_offsets_response *said = r->response;
    struct reader fields = kafka_group_fields(&c->group.said[0]);
    said->error_code = kafka_group_error(c->group.said[0].error);
    said->responses.at = kafka_room(k, r, topic_count(r), sizeof *said->responses.at);
    for (size_t t = 0; said->responses.at && !said->error_code && t < topic_count(r); t++) {
        struct kafka_alter_share_group_offsets_response_topic *topic = &said->responses.at[said->responses.count++];
        size_t count = count_of(asked->topics.at[t].partitions.count);
        topic->topic_name = asked->topics.at[t].topic_name;
        if (is_there(&c->topics.rows[t]))
            kafka_topic_uuid(k, c->topics.rows[t].id, &topic->topic_id);
        topic->partitions.at = kafka_room(k, r, count, sizeof *topic->partitions.at);
        for (size_t p = 0; topic->partitions.at && p < count; p++)
            topic->partitions.at[topic->partitions.count++] =
                (struct kafka_alter_share_group_offsets_response_partition){
                    .partition_index = asked->topics.at[t].partitions.at[p].partition_index,
                    .error_code =
                        error_of(&c->topics.rows[t], topic->topic_name, (enum group_error)reader_u8(&fields))};
    }
}

static void delete_say(struct kafka *k, struct kafka_request *r, const struct changing *c)
{
    struct kafka_delete_share_group_offsets_response *said = r->response;
    struct reader fields = kafka_group_fields(&c->group.said[0]);
    said->error_code = kafka_group_error(c->group.said[0].error);
    said->responses.at = kafka_room(k, r, topic_count(r), sizeof *said->responses.at);
    for (size_t t = 0; said->responses.at && !said->error_code && t < topic_count(r); t++) {
        struct kafka_delete_share_group_offsets_response_topic *topic = &said->responses.at[said->responses.count++];
        topic->topic_name = topic_name(r, t);
        topic->error_code = error_of(&c->topics.rows[t], topic->topic_name, (enum group_error)reader_u8(&fields));
        if (!topic->error_code)
            kafka_topic_uuid(k, c->topics.rows[t].id, &topic->topic_id);
        if (topic->error_code == KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION && is_there(&c->topics.rows[t]))
            topic->error_message = slice_str("There is no offset information to delete.");
    }
}

static void change_say(struct kafka *k, struct kafka_request *r, const struct changing *c)
{
    if (r->api->key == KAFKA_API_alter_share_group_offsets)
        alter_say(k, r, c);
    else
        delete_say(k, r, c);
}

static enum kafka_progress change_go(struct kafka *k, struct kafka_request *r)
{
    struct changing *c = r->state ? r->state : change_begin(k, r);
    bool alters = r->api->key == KAFKA_API_alter_share_group_offsets;
    if (!c || kafka_rows(k, r, &c->topics) == KAFKA_AGAIN ||
        kafka_groups_go(k, r, &c->group, alters ? CMD_SHARE_ALTER : CMD_SHARE_FORGET,
                        alters ? alter_make : delete_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_done(&c->group)) /* what was asked fits into no operand */
        change_say(k, r, c);
    return KAFKA_SENT;
}

static void change_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct changing *c = r->state;
    if (!c->topics.done)
        kafka_rows_effect(k, r, &c->topics, e);
    else if (kafka_groups_effect(k, r, &c->group, e))
        change_say(k, r, c);
}

static void change_drop(struct kafka *k, struct kafka_request *r)
{
    struct changing *c = r->state;
    (void)k;
    if (!c)
        return;
    kafka_rows_drop(&c->topics);
    kafka_groups_drop(&c->group);
}

const struct kafka_handler kafka_on_alter_share_group_offsets = {
    .go = change_go, .effect = change_effect, .drop = change_drop, .shares = true};
const struct kafka_handler kafka_on_delete_share_group_offsets = {
    .go = change_go, .effect = change_effect, .drop = change_drop, .shares = true};
