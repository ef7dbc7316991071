/* Metadata, DescribeCluster, DescribeTopicPartitions: what there is, and where: here, all of it.
 *
 * The one broker is leader, only replica and controller of everything; its epoch is 0 for ever. A topic that is asked for
 * and is not there is made at once if it may be, with the broker's defaults, so that its answer already has it.
 */
#include "proto/kafka/errands.h"
#include "proto/kafka/names.h"
#include "proto/kafka/rows.h"
#include "proto/kafka/topic_rules.h"

#include <stdlib.h>

#define LEADER_EPOCH 0
#define VERSION_NULL_IS_ALL 1u
#define VERSION_BY_ID 12u
#define PARTITIONS_SHOWN_MAX 2000 /* max.request.partition.size.limit */

/* Who may do what with the cluster as a whole nobody is asked: everybody may look and make topics where he has the right. */
#define CLUSTER_OPERATIONS                                                                                             \
    (1 << 5 | 1 << 8 | 1 << 10 | 1 << 12) /* create, describe, describe configs, idempotent write */

/* ---- Metadata ---- */

struct metadata {
    struct kafka_rows rows;
    struct kafka_errands making;
    uint8_t *doubles; /* of what is asked for: who asks twice is answered once */
    int16_t refused;  /* the request as a whole */
    bool looked;
    int32_t *node; /* the list of one broker */
};

static const struct kafka_errand_kind making;

static bool all_wanted(const struct kafka_request *r)
{
    const struct kafka_metadata_request *asked = r->message;
    return asked->topics.count < 0 || (r->form.version < VERSION_NULL_IS_ALL && asked->topics.count == 0);
}

/* By ids from version 12 on; until then neither an id nor a missing name is allowed. */
static int16_t fault_of(const struct kafka_request *r)
{
    const struct kafka_metadata_request *asked = r->message;
    for (int32_t i = 0; i < asked->topics.count; i++) {
        bool named = asked->topics.at[i].name.ptr, ided = !kafka_uuid_is_zero(&asked->topics.at[i].topic_id);
        if (r->form.version < VERSION_BY_ID && (!named || ided))
            return KAFKA_ERR_INVALID_REQUEST;
        if (!named && !ided)
            return KAFKA_ERR_UNKNOWN_SERVER_ERROR; /* what Kafka makes of it */
    }
    return KAFKA_ERR_NONE;
}

static bool by_id(const struct kafka_metadata_request *asked)
{
    for (int32_t i = 0; i < asked->topics.count; i++)
        if (!kafka_uuid_is_zero(&asked->topics.at[i].topic_id))
            return true;
    return false;
}

/* An id of another store is none of ours: 0 is nobody's. */
static bool look_up(struct kafka *k, struct kafka_request *r, struct metadata *m)
{
    const struct kafka_metadata_request *asked = r->message;
    size_t count = asked->topics.count > 0 ? (size_t)asked->topics.count : 0;
    struct slice *names = kafka_more_room(k, r, count, sizeof *names);
    uint64_t *ids = names ? kafka_more_room(k, r, count, sizeof *ids) : NULL;
    if (!ids || !kafka_errands_init(k, r, &making, count, &m->making))
        return false;
    bool ided = by_id(asked);
    for (size_t i = 0; i < count; i++) {
        names[i] = ided ? slice_of(asked->topics.at[i].topic_id.bytes, 16) : asked->topics.at[i].name;
        if (!kafka_topic_of_uuid(k, &asked->topics.at[i].topic_id, &ids[i]))
            ids[i] = 0;
    }
    m->doubles = kafka_doubles(k, r, names, count);
    if (!m->doubles)
        return false;
    struct kafka_wanted wanted = {names, ided ? 0 : count, ids, ided ? count : 0};
    return kafka_rows_init(k, r, all_wanted(r) ? NULL : &wanted, false, &m->rows);
}

static bool begin(struct kafka *k, struct kafka_request *r)
{
    struct metadata *m = r->state = kafka_room(k, r, 1, sizeof *m);
    if (!m)
        return false;
    m->refused = fault_of(r);
    m->rows.done = m->refused != KAFKA_ERR_NONE;
    return m->refused || look_up(k, r, m);
}

/* Which of those that are not there are to be made. */
static void want(struct kafka *k, const struct kafka_request *r, struct metadata *m)
{
    const struct kafka_metadata_request *asked = r->message;
    bool may = k->options->auto_create && asked->allow_auto_topic_creation && !by_id(asked);
    m->looked = true;
    for (size_t i = 0; may && !m->rows.all && i < m->rows.count; i++)
        if (m->rows.rows[i].result == STREAM_UNKNOWN && m->doubles[i] != KAFKA_LATER &&
            kafka_topic_name_good(asked->topics.at[i].name))
            kafka_errand_want(&m->making, i);
}

static struct ask *make(struct kafka *k, struct kafka_request *r, size_t i, uint16_t *ret_channel)
{
    const struct kafka_metadata_request *asked = r->message;
    (void)ret_channel;
    return kafka_topic_ask(asked->topics.at[i].name, k->options->partitions, (struct slice){0}, 0);
}

static void made(struct kafka *k, struct kafka_request *r, size_t i, const struct answer *answer)
{
    const struct kafka_metadata_request *asked = r->message;
    struct metadata *m = r->state;
    struct stream_row *row = &m->rows.rows[i];
    row->result = (enum stream_result)answer->number;
    if (row->result != STREAM_DONE)
        return;
    row->id = answer->number2;
    row->partitions = k->options->partitions;
    row->name = asked->topics.at[i].name;
    row->verbs = STREAM_MAY_CONFIGURE | STREAM_MAY_WRITE | STREAM_MAY_READ;
}

static const struct kafka_errand_kind making = {CMD_STREAM_CREATE, make, made};

static int16_t error_of(const struct kafka_request *r, size_t i, const struct stream_row *row)
{
    const struct kafka_metadata_request *asked = r->message;
    bool ided = by_id(asked);
    switch (row->result) {
    case STREAM_DONE: return KAFKA_ERR_NONE;
    case STREAM_REFUSED: return KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED;
    case STREAM_EXISTS: return KAFKA_ERR_LEADER_NOT_AVAILABLE; /* somebody else was faster: it is there the next time */
    case STREAM_UNKNOWN:
        if (ided)
            return KAFKA_ERR_UNKNOWN_TOPIC_ID;
        return kafka_topic_name_good(asked->topics.at[i].name) ? KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION
                                                               : KAFKA_ERR_INVALID_TOPIC_EXCEPTION;
    case STREAM_IS_QUEUE:
    case STREAM_BAD_NAME: return KAFKA_ERR_INVALID_TOPIC_EXCEPTION;
    default: return KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
    }
}

static bool say_partitions(struct kafka *k, struct kafka_request *r, struct metadata *m, uint32_t count,
                           struct kafka_metadata_response_topic *said)
{
    said->partitions.at = kafka_more_room(k, r, count, sizeof *said->partitions.at);
    if (!said->partitions.at)
        return false;
    said->partitions.count = (int32_t)count;
    for (uint32_t i = 0; i < count; i++)
        said->partitions.at[i] = (struct kafka_metadata_response_partition){.partition_index = (int32_t)i,
                                                                            .leader_id = k->options->node_id,
                                                                            .leader_epoch = LEADER_EPOCH,
                                                                            .replica_nodes = {m->node, 1},
                                                                            .isr_nodes = {m->node, 1}};
    return true;
}

/* As a whole: no broker, no cluster. */
static void say_refused(struct kafka *k, struct kafka_request *r, const struct metadata *m)
{
    const struct kafka_metadata_request *asked = r->message;
    struct kafka_metadata_response *said = r->response;
    size_t count = (size_t)asked->topics.count;
    said->error_code = m->refused;
    said->topics.at = kafka_more_room(k, r, count, sizeof *said->topics.at);
    for (size_t i = 0; said->topics.at && i < count; i++) {
        struct slice name = asked->topics.at[i].name;
        kafka_defaults(&kafka_metadata_response_topic_table, &said->topics.at[i]);
        said->topics.at[i].error_code = m->refused;
        said->topics.at[i].name = name.ptr ? name : slice_str("");
        said->topics.at[i].topic_id = asked->topics.at[i].topic_id;
    }
    said->topics.count = (int32_t)count;
}

static bool say_topic(struct kafka *k, struct kafka_request *r, struct metadata *m, size_t i,
                      struct kafka_metadata_response_topic *said)
{
    const struct kafka_metadata_request *asked = r->message;
    const struct stream_row *row = &m->rows.rows[i];
    kafka_defaults(&kafka_metadata_response_topic_table, said);
    said->error_code = error_of(r, i, row);
    if (said->error_code) {
        said->name = asked->topics.at[i].name;
        said->topic_id = asked->topics.at[i].topic_id;
        return true;
    }
    said->name = row->name;
    kafka_topic_uuid(k, row->id, &said->topic_id);
    if (asked->include_topic_authorized_operations)
        said->topic_authorized_operations = kafka_topic_operations(row->verbs);
    return say_partitions(k, r, m, row->partitions, said);
}

static bool say_broker(struct kafka *k, struct kafka_request *r, struct kafka_metadata_response *said)
{
    said->brokers.at = kafka_room(k, r, 1, sizeof *said->brokers.at);
    said->cluster_id = slice_str(k->options->cluster_id);
    said->controller_id = k->options->node_id;
    if (!said->brokers.at)
        return false;
    said->brokers.count = 1;
    said->brokers.at[0] = (struct kafka_metadata_response_broker){
        .node_id = k->options->node_id, .host = kafka_advertised_host(k), .port = kafka_advertised_port(k)};
    return true;
}

static void say_metadata(struct kafka *k, struct kafka_request *r, struct metadata *m)
{
    const struct kafka_metadata_request *asked = r->message;
    struct kafka_metadata_response *said = r->response;
    size_t count = m->rows.count;
    m->node = kafka_room(k, r, 1, sizeof *m->node);
    if (!m->node || !say_broker(k, r, said))
        return;
    *m->node = k->options->node_id;
    if (asked->include_cluster_authorized_operations)
        said->cluster_authorized_operations = CLUSTER_OPERATIONS;
    said->topics.at = kafka_more_room(k, r, count, sizeof *said->topics.at);
    for (size_t i = 0; said->topics.at && i < count; i++)
        if ((m->rows.all || m->doubles[i] != KAFKA_LATER) &&
            !say_topic(k, r, m, i, &said->topics.at[said->topics.count++]))
            return;
}

static enum kafka_progress metadata_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !begin(k, r))
        return KAFKA_AGAIN;
    struct metadata *m = r->state;
    if (kafka_rows(k, r, &m->rows) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (m->refused) {
        say_refused(k, r, m);
        return KAFKA_SENT;
    }
    if (!m->looked)
        want(k, r, m);
    if (kafka_errands(k, r, &m->making) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (r->pending == 0)
        say_metadata(k, r, m);
    return KAFKA_SENT;
}

static void metadata_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct metadata *m = r->state;
    if (!m->rows.done) {
        kafka_rows_effect(k, r, &m->rows, e);
        return;
    }
    kafka_errands_effect(k, r, &m->making, e);
    if (kafka_live(k) && r->sent && r->pending == 0)
        say_metadata(k, r, m);
}

static void metadata_drop(struct kafka *k, struct kafka_request *r)
{
    struct metadata *m = r->state;
    (void)k;
    if (m)
        kafka_rows_drop(&m->rows);
}

const struct kafka_handler kafka_on_metadata = {.go = metadata_go, .effect = metadata_effect, .drop = metadata_drop};

/* ---- DescribeCluster ---- */

static enum kafka_progress describe_cluster_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_describe_cluster_request *asked = r->message;
    struct kafka_describe_cluster_response *said = r->response;
    said->endpoint_type = 1;
    if (asked->endpoint_type == 2) {
        said->error_code = KAFKA_ERR_MISMATCHED_ENDPOINT_TYPE;
        said->error_message = slice_str(
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER");
        return KAFKA_SENT;
    }
    if (asked->endpoint_type != 1) {
        said->error_code = KAFKA_ERR_UNSUPPORTED_ENDPOINT_TYPE;
        said->error_message = kafka_text(k, r, "Unsupported endpoint type %d", asked->endpoint_type);
        return KAFKA_SENT;
    }
    said->cluster_id = slice_str(k->options->cluster_id);
    said->controller_id = k->options->node_id;
    if (asked->include_cluster_authorized_operations)
        said->cluster_authorized_operations = CLUSTER_OPERATIONS;
    said->brokers.at = kafka_room(k, r, 1, sizeof *said->brokers.at);
    if (!said->brokers.at)
        return KAFKA_AGAIN;
    said->brokers.count = 1;
    said->brokers.at[0] = (struct kafka_describe_cluster_response_broker){
        .broker_id = k->options->node_id, .host = kafka_advertised_host(k), .port = kafka_advertised_port(k)};
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_describe_cluster = {.go = describe_cluster_go};

/* ---- DescribeTopicPartitions ---- */

struct shown { /* a topic, in the order of names */
    struct slice name;
    const struct stream_row *row;
};

struct partitions {
    struct kafka_rows rows;
    struct shown *shown;
    int32_t *node;
};

static int by_name(const void *a, const void *b)
{
    struct slice x = ((const struct shown *)a)->name, y = ((const struct shown *)b)->name;
    int order = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);
    return order ? order : (x.len > y.len) - (x.len < y.len);
}

static bool partitions_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_describe_topic_partitions_request *asked = r->message;
    struct partitions *p = r->state = kafka_room(k, r, 1, sizeof *p);
    size_t count = asked->topics.count > 0 ? (size_t)asked->topics.count : 0;
    struct slice *names = p ? kafka_room(k, r, count, sizeof *names) : NULL;
    if (!names)
        return false;
    for (size_t i = 0; i < count; i++)
        names[i] = asked->topics.at[i].name;
    struct kafka_wanted wanted = {.names = names, .name_count = count};
    return kafka_rows_init(k, r, count ? &wanted : NULL, false, &p->rows);
}

/* Those that are not before the cursor, by name. Their number; SIZE_MAX: the connection has been dropped. */
static size_t sort(struct kafka *k, struct kafka_request *r, struct partitions *p)
{
    const struct kafka_describe_topic_partitions_request *asked = r->message;
    size_t count = 0;
    p->shown = kafka_more_room(k, r, p->rows.count, sizeof *p->shown);
    if (!p->shown)
        return SIZE_MAX;
    for (size_t i = 0; i < p->rows.count; i++) {
        const struct stream_row *row = &p->rows.rows[i];
        struct shown shown = {p->rows.all ? row->name : asked->topics.at[i].name, row};
        struct shown from = {.name = asked->cursor ? asked->cursor->topic_name : slice_str("")};
        if (by_name(&shown, &from) >= 0)
            p->shown[count++] = shown;
    }
    qsort(p->shown, count, sizeof *p->shown, by_name);
    return count;
}

static int16_t shown_error(const struct shown *shown)
{
    switch (shown->row->result) {
    case STREAM_DONE: return KAFKA_ERR_NONE;
    case STREAM_REFUSED: return KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED;
    case STREAM_IS_QUEUE: return KAFKA_ERR_INVALID_TOPIC_EXCEPTION;
    default:
        return kafka_topic_name_good(shown->name) ? KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION
                                                  : KAFKA_ERR_INVALID_TOPIC_EXCEPTION;
    }
}

/* Its partitions from `from` on, `most` at most. */
static bool show(struct kafka *k, struct kafka_request *r, const struct partitions *p, const struct shown *shown,
                 uint32_t from, uint32_t most, struct kafka_describe_topic_partitions_response_topic *said)
{
    kafka_defaults(&kafka_describe_topic_partitions_response_topic_table, said);
    said->name = shown->name;
    said->error_code = shown_error(shown);
    if (said->error_code)
        return true;
    uint32_t left = shown->row->partitions > from ? shown->row->partitions - from : 0;
    uint32_t count = left < most ? left : most;
    kafka_topic_uuid(k, shown->row->id, &said->topic_id);
    said->topic_authorized_operations = kafka_topic_operations(shown->row->verbs);
    said->partitions.at = kafka_more_room(k, r, count, sizeof *said->partitions.at);
    if (!said->partitions.at)
        return false;
    said->partitions.count = (int32_t)count;
    for (uint32_t i = 0; i < count; i++)
        said->partitions.at[i] =
            (struct kafka_describe_topic_partitions_response_partition){.partition_index = (int32_t)(from + i),
                                                                        .leader_id = k->options->node_id,
                                                                        .leader_epoch = LEADER_EPOCH,
                                                                        .replica_nodes = {p->node, 1},
                                                                        .isr_nodes = {p->node, 1}};
    return true;
}

/* A cursor that no answer has given: Kafka refuses the request as a whole. */
static void say_no_cursor(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_describe_topic_partitions_request *asked = r->message;
    struct kafka_describe_topic_partitions_response *said = r->response;
    size_t count = asked->topics.count > 0 ? (size_t)asked->topics.count : 0;
    said->topics.at = kafka_more_room(k, r, count, sizeof *said->topics.at);
    for (size_t i = 0; said->topics.at && i < count; i++) {
        struct kafka_describe_topic_partitions_response_topic *topic = &said->topics.at[said->topics.count++];
        kafka_defaults(&kafka_describe_topic_partitions_response_topic_table, topic);
        topic->name = asked->topics.at[i].name;
        topic->error_code = KAFKA_ERR_INVALID_REQUEST;
    }
}

static void next_from(struct kafka *k, struct kafka_request *r, struct slice name, uint32_t partition)
{
    struct kafka_describe_topic_partitions_response *said = r->response;
    said->next_cursor = kafka_room(k, r, 1, sizeof *said->next_cursor);
    if (said->next_cursor)
        *said->next_cursor = (struct kafka_describe_topic_partitions_response_next_cursor){name, (int32_t)partition};
}

static void say_shown(struct kafka *k, struct kafka_request *r, struct partitions *p)
{
    const struct kafka_describe_topic_partitions_request *asked = r->message;
    struct kafka_describe_topic_partitions_response *said = r->response;
    int32_t limit = asked->response_partition_limit;
    uint32_t left = (uint32_t)(limit < 1 ? 1 : limit < PARTITIONS_SHOWN_MAX ? limit : PARTITIONS_SHOWN_MAX);
    size_t count = sort(k, r, p);
    if (asked->cursor && (asked->cursor->partition_index < 0 || (count == 0 && !p->rows.all))) {
        say_no_cursor(k, r);
        return;
    }
    p->node = kafka_room(k, r, 1, sizeof *p->node);
    said->topics.at = count == SIZE_MAX ? NULL : kafka_more_room(k, r, count, sizeof *said->topics.at);
    if (!p->node || !said->topics.at)
        return;
    *p->node = k->options->node_id;
    for (size_t i = 0; i < count; i++) {
        bool resumed = asked->cursor && slice_equal(p->shown[i].name, asked->cursor->topic_name);
        uint32_t from = resumed && asked->cursor->partition_index > 0 ? (uint32_t)asked->cursor->partition_index : 0;
        if (left == 0) {
            next_from(k, r, p->shown[i].name, from);
            return;
        }
        struct kafka_describe_topic_partitions_response_topic *topic = &said->topics.at[i];
        if (!show(k, r, p, &p->shown[i], from, left, topic))
            return;
        said->topics.count++;
        left -= (uint32_t)topic->partitions.count;
        if (!topic->error_code && from + (uint32_t)topic->partitions.count < p->shown[i].row->partitions) {
            next_from(k, r, p->shown[i].name, from + (uint32_t)topic->partitions.count);
            return;
        }
    }
}

static enum kafka_progress describe_topic_partitions_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !partitions_begin(k, r))
        return KAFKA_AGAIN;
    struct partitions *p = r->state;
    if (kafka_rows(k, r, &p->rows) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    say_shown(k, r, p);
    return KAFKA_SENT;
}

static void describe_topic_partitions_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct partitions *p = r->state;
    kafka_rows_effect(k, r, &p->rows, e);
}

static void describe_topic_partitions_drop(struct kafka *k, struct kafka_request *r)
{
    struct partitions *p = r->state;
    (void)k;
    if (p)
        kafka_rows_drop(&p->rows);
}

const struct kafka_handler kafka_on_describe_topic_partitions = {.go = describe_topic_partitions_go,
                                                                 .effect = describe_topic_partitions_effect,
                                                                 .drop = describe_topic_partitions_drop};
