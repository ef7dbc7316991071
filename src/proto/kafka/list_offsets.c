/* ListOffsets and OffsetForLeaderEpoch: where partitions begin and end, and where a time or an epoch is in them.
 *
 * There is no tiered storage here: what is local is everything, and nothing is elsewhere. There is one epoch, 0.
 */
#include "proto/kafka/asked.h"

enum { AT_LATEST = -1, AT_EARLIEST = -2, AT_NEWEST = -3, AT_EARLIEST_LOCAL = -4, AT_TIERED = -5, AT_TO_BE_TIERED = -6 };

/* ---- ListOffsets ---- */

/* The names of the request's topics, for the lookup. NULL: the connection has been dropped. */
static bool list_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_list_offsets_request *asked = r->message;
    struct kafka_list_offsets_response *said = r->response;
    size_t topics = asked->topics.count > 0 ? (size_t)asked->topics.count : 0, rows = 0;
    struct slice *names = kafka_room(k, r, topics, sizeof *names);
    said->topics.at = names ? kafka_room(k, r, topics, sizeof *said->topics.at) : NULL;
    if (!said->topics.at)
        return false;
    said->topics.count = (int32_t)topics;
    for (size_t i = 0; i < topics; i++) {
        int32_t count = asked->topics.at[i].partitions.count > 0 ? asked->topics.at[i].partitions.count : 0;
        names[i] = said->topics.at[i].name = asked->topics.at[i].name;
        said->topics.at[i].partitions.at = kafka_room(k, r, (size_t)count, sizeof *said->topics.at[i].partitions.at);
        if (!said->topics.at[i].partitions.at)
            return false;
        said->topics.at[i].partitions.count = count;
        rows += (size_t)count;
    }
    r->state = kafka_asked_new(k, r, FETCH_OFFSETS, rows, names, topics);
    return r->state;
}

/* False: such a place there is not, or not in this version. */
static bool place_of(int64_t timestamp, uint8_t version, struct fetch_row *row)
{
    static const struct {
        int64_t timestamp;
        uint8_t from, at;
    } places
        [] =
            {
                {AT_LATEST, 1, FETCH_AT_END},        {AT_EARLIEST, 1, FETCH_AT_START},
                {AT_NEWEST, 7, FETCH_AT_NEWEST},     {AT_EARLIEST_LOCAL, 8, FETCH_AT_START},
                {AT_TIERED, 9, FETCH_AT_END}, /* asked for all the same, so that what is unknown is said to be */
                {AT_TO_BE_TIERED, 11, FETCH_AT_END},
            };
    row->at = FETCH_AT_TIME;
    row->time = timestamp;
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        if (places[i].timestamp == timestamp && version >= places[i].from) {
            row->at = places[i].at;
            return true;
        }
    return timestamp >= 0;
}

static void list_fill(struct kafka *k, struct kafka_request *r, struct fetch *f)
{
    const struct kafka_list_offsets_request *asked = r->message;
    struct fetch_row *row = f->rows;
    f->committed = asked->isolation_level == 1;
    for (int32_t i = 0; i < asked->topics.count; i++) {
        uint64_t stream = kafka_asked_stream(k, asked->topics.at[i].name);
        for (int32_t n = 0; n < asked->topics.at[i].partitions.count; n++, row++) {
            const struct kafka_list_offsets_request_partition *p = &asked->topics.at[i].partitions.at[n];
            row->stream = stream;
            row->partition = (uint32_t)p->partition_index;
            row->epoch = p->current_leader_epoch;
            (void)place_of(p->timestamp, r->form.version, row);
        }
    }
}

static enum kafka_progress list_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !list_begin(k, r))
        return KAFKA_AGAIN;
    return kafka_asked_go(k, r, list_fill);
}

static void list_say(struct kafka *k, const struct kafka_request *r, const struct fetch_row *row, struct slice name,
                     int64_t timestamp, struct kafka_list_offsets_response_partition *ret)
{
    struct fetch_row place;
    kafka_defaults(&kafka_list_offsets_response_partition_table, ret);
    ret->partition_index = (int32_t)row->partition;
    ret->error_code = kafka_asked_error(k, row, name);
    if (!ret->error_code && !place_of(timestamp, r->form.version, &place))
        ret->error_code = KAFKA_ERR_UNSUPPORTED_VERSION;
    if (ret->error_code || row->offset == FETCH_NOWHERE || timestamp <= AT_TIERED)
        return;
    ret->offset = (int64_t)row->offset;
    ret->timestamp = row->time;
    ret->leader_epoch = 0;
}

static void list_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    const struct kafka_list_offsets_request *asked = r->message;
    struct kafka_list_offsets_response *said = r->response;
    const struct fetch *f = kafka_asked_effect(k, r, e);
    const struct fetch_row *row = f ? f->rows : NULL;
    for (int32_t i = 0; f && i < said->topics.count; i++)
        for (int32_t n = 0; n < said->topics.at[i].partitions.count; n++, row++)
            list_say(k, r, row, said->topics.at[i].name, asked->topics.at[i].partitions.at[n].timestamp,
                     &said->topics.at[i].partitions.at[n]);
}

const struct kafka_handler kafka_on_list_offsets = {.go = list_go, .effect = list_effect, .drop = kafka_asked_drop};

/* ---- OffsetForLeaderEpoch ---- */

static bool epoch_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_offset_for_leader_epoch_request *asked = r->message;
    struct kafka_offset_for_leader_epoch_response *said = r->response;
    size_t topics = asked->topics.count > 0 ? (size_t)asked->topics.count : 0, rows = 0;
    struct slice *names = kafka_room(k, r, topics, sizeof *names);
    said->topics.at = names ? kafka_room(k, r, topics, sizeof *said->topics.at) : NULL;
    if (!said->topics.at)
        return false;
    said->topics.count = (int32_t)topics;
    for (size_t i = 0; i < topics; i++) {
        int32_t count = asked->topics.at[i].partitions.count > 0 ? asked->topics.at[i].partitions.count : 0;
        names[i] = said->topics.at[i].topic = asked->topics.at[i].topic;
        said->topics.at[i].partitions.at = kafka_room(k, r, (size_t)count, sizeof *said->topics.at[i].partitions.at);
        if (!said->topics.at[i].partitions.at)
            return false;
        said->topics.at[i].partitions.count = count;
        rows += (size_t)count;
    }
    r->state = kafka_asked_new(k, r, FETCH_EPOCHS, rows, names, topics);
    return r->state;
}

static void epoch_fill(struct kafka *k, struct kafka_request *r, struct fetch *f)
{
    const struct kafka_offset_for_leader_epoch_request *asked = r->message;
    struct fetch_row *row = f->rows;
    for (int32_t i = 0; i < asked->topics.count; i++) {
        uint64_t stream = kafka_asked_stream(k, asked->topics.at[i].topic);
        for (int32_t n = 0; n < asked->topics.at[i].partitions.count; n++, row++) {
            const struct kafka_offset_for_leader_epoch_request_partition *p = &asked->topics.at[i].partitions.at[n];
            row->stream = stream;
            row->partition = (uint32_t)p->partition;
            row->epoch = p->current_leader_epoch;
            row->wanted = p->leader_epoch;
        }
    }
}

static enum kafka_progress epoch_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !epoch_begin(k, r))
        return KAFKA_AGAIN;
    return kafka_asked_go(k, r, epoch_fill);
}

static void epoch_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct kafka_offset_for_leader_epoch_response *said = r->response;
    const struct fetch *f = kafka_asked_effect(k, r, e);
    const struct fetch_row *row = f ? f->rows : NULL;
    for (int32_t i = 0; f && i < said->topics.count; i++)
        for (int32_t n = 0; n < said->topics.at[i].partitions.count; n++, row++) {
            struct kafka_offset_for_leader_epoch_response_partition *ret = &said->topics.at[i].partitions.at[n];
            kafka_defaults(&kafka_offset_for_leader_epoch_response_partition_table, ret);
            ret->partition = (int32_t)row->partition;
            ret->error_code = kafka_asked_error(k, row, said->topics.at[i].topic);
            if (ret->error_code)
                continue;
            ret->leader_epoch = row->wanted;
            ret->end_offset = (int64_t)row->offset;
        }
}

const struct kafka_handler kafka_on_offset_for_leader_epoch = {
    .go = epoch_go, .effect = epoch_effect, .drop = kafka_asked_drop};
