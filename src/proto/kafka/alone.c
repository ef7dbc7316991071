/* What a Kafka of one broker without an authorizer answers to who asks for more: lists of access rights, leaders to be elected,
 * partitions to be moved, quotas, the quorum. Nothing here changes anything; tools that ask for it at their start go on.
 *
 * Rights are AMQP's permissions, which these requests cannot say: SECURITY_DISABLED, as of a Kafka that keeps none.
 */
#include "proto/kafka/errands.h"
#include "proto/kafka/rows.h"
#include "proto/kafka/topic_rules.h"

#define ELECTION_PREFERRED 0
#define ELECTION_UNCLEAN 1

/* ---- access rights ---- */

static enum kafka_progress describe_acls_go(struct kafka *k, struct kafka_request *r)
{
    struct kafka_describe_acls_response *said = r->response;
    (void)k;
    said->error_code = KAFKA_ERR_SECURITY_DISABLED;
    said->error_message = slice_str("No Authorizer is configured on the broker");
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_describe_acls = {.go = describe_acls_go};

static enum kafka_progress create_acls_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_create_acls_request *asked = r->message;
    struct kafka_create_acls_response *said = r->response;
    size_t count = asked->creations.count > 0 ? (size_t)asked->creations.count : 0;
    said->results.at = kafka_more_room(k, r, count, sizeof *said->results.at);
    for (size_t i = 0; said->results.at && i < count; i++)
        said->results.at[said->results.count++] = (struct kafka_create_acls_response_result){
            KAFKA_ERR_SECURITY_DISABLED, slice_str("No Authorizer is configured.")};
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_create_acls = {.go = create_acls_go};

static enum kafka_progress delete_acls_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_delete_acls_request *asked = r->message;
    struct kafka_delete_acls_response *said = r->response;
    size_t count = asked->filters.count > 0 ? (size_t)asked->filters.count : 0;
    said->filter_results.at = kafka_more_room(k, r, count, sizeof *said->filter_results.at);
    for (size_t i = 0; said->filter_results.at && i < count; i++)
        said->filter_results.at[said->filter_results.count++] = (struct kafka_delete_acls_response_filter_result){
            .error_code = KAFKA_ERR_SECURITY_DISABLED, .error_message = slice_str("No Authorizer is configured.")};
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_delete_acls = {.go = delete_acls_go};

/* ---- quotas ---- */

static enum kafka_progress describe_client_quotas_go(struct kafka *k, struct kafka_request *r)
{
    (void)k;
    (void)r; /* an empty list is the answer, and the default */
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_describe_client_quotas = {.go = describe_client_quotas_go};

/* ---- the quorum: the controller that Metadata names is this broker, and the only voter ---- */

#define QUORUM_TOPIC                                                                                                   \
    "__cluster_metadata" /* Kafka's log of what a cluster is; there is none here, so it has no records */

static bool say_voter(struct kafka *k, struct kafka_request *r, struct kafka_describe_quorum_response_partition *said)
{
    struct kafka_describe_quorum_response_replica_state *voter = kafka_room(k, r, 1, sizeof *voter);
    if (!voter)
        return false;
    wall_t now = k->options->wall(k->options->wall_arg);
    *voter = (struct kafka_describe_quorum_response_replica_state){
        .replica_id = k->options->node_id, .last_fetch_timestamp = now, .last_caught_up_timestamp = now};
    memcpy(voter->replica_directory_id.bytes, k->options->uuid, 8);
    said->leader_id = k->options->node_id;
    said->current_voters.at = voter;
    said->current_voters.count = 1;
    return true;
}

static bool say_quorum_topic(struct kafka *k, struct kafka_request *r,
                             const struct kafka_describe_quorum_request_topic *asked,
                             struct kafka_describe_quorum_response_topic *said)
{
    size_t count = asked->partitions.count > 0 ? (size_t)asked->partitions.count : 0;
    said->topic_name = asked->topic_name;
    said->partitions.at = kafka_more_room(k, r, count, sizeof *said->partitions.at);
    for (size_t i = 0; said->partitions.at && i < count; i++) {
        struct kafka_describe_quorum_response_partition *one = &said->partitions.at[said->partitions.count++];
        *one = (struct kafka_describe_quorum_response_partition){.partition_index =
                                                                     asked->partitions.at[i].partition_index};
        if (!slice_is(asked->topic_name, QUORUM_TOPIC) || one->partition_index != 0)
            one->error_code = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
        else if (!say_voter(k, r, one))
            return false;
    }
    return kafka_live(k);
}

static void say_quorum_node(struct kafka *k, struct kafka_request *r, struct kafka_describe_quorum_response *said)
{
    struct kafka_describe_quorum_response_listener *listener = kafka_room(k, r, 1, sizeof *listener);
    said->nodes.at = listener ? kafka_room(k, r, 1, sizeof *said->nodes.at) : NULL;
    if (!said->nodes.at)
        return;
    *listener = (struct kafka_describe_quorum_response_listener){slice_str("CONTROLLER"), kafka_advertised_host(k),
                                                                 (uint16_t)kafka_advertised_port(k)};
    said->nodes.count = 1;
    said->nodes.at[0] =
        (struct kafka_describe_quorum_response_node){.node_id = k->options->node_id, .listeners = {listener, 1}};
}

static enum kafka_progress describe_quorum_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_describe_quorum_request *asked = r->message;
    struct kafka_describe_quorum_response *said = r->response;
    size_t count = asked->topics.count > 0 ? (size_t)asked->topics.count : 0;
    said->topics.at = kafka_more_room(k, r, count, sizeof *said->topics.at);
    for (size_t i = 0; said->topics.at && i < count; i++) {
        said->topics.at[i] = (struct kafka_describe_quorum_response_topic){0};
        said->topics.count++;
        if (!say_quorum_topic(k, r, &asked->topics.at[i], &said->topics.at[i]))
            break;
    }
    say_quorum_node(k, r, said);
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_describe_quorum = {.go = describe_quorum_go};

/* ---- leaders and moves: the topics that are asked for are looked at ---- */

struct looking {
    struct kafka_rows rows;
};

static void looking_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct looking *l = r->state;
    kafka_rows_effect(k, r, &l->rows, e);
}

static void looking_drop(struct kafka *k, struct kafka_request *r)
{
    struct looking *l = r->state;
    (void)k;
    if (l)
        kafka_rows_drop(&l->rows);
}

/* names NULL: all topics. False: the connection has been dropped. */
static bool looking_begin(struct kafka *k, struct kafka_request *r, const struct slice *names, size_t count)
{
    struct looking *l = r->state = kafka_room(k, r, 1, sizeof *l);
    struct kafka_wanted wanted = {.names = names, .name_count = count};
    return l && kafka_rows_init(k, r, names ? &wanted : NULL, false, &l->rows);
}

static bool elect_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_elect_leaders_request *asked = r->message;
    size_t count = asked->topic_partitions.count > 0 ? (size_t)asked->topic_partitions.count : 0;
    if (asked->topic_partitions.count < 0)
        return looking_begin(k, r, NULL, 0);
    struct slice *names = kafka_more_room(k, r, count, sizeof *names);
    for (size_t i = 0; names && i < count; i++)
        names[i] = asked->topic_partitions.at[i].topic;
    return names && looking_begin(k, r, names, count);
}

static struct kafka_elect_leaders_response_partition elected(struct kafka *k, struct kafka_request *r,
                                                             const struct stream_row *row, struct slice topic,
                                                             int32_t partition)
{
    const struct kafka_elect_leaders_request *asked = r->message;
    struct kafka_elect_leaders_response_partition said = {.partition_id = partition};
    if (asked->election_type != ELECTION_PREFERRED && asked->election_type != ELECTION_UNCLEAN) {
        said.error_code = KAFKA_ERR_INVALID_REQUEST;
        said.error_message = kafka_text(k, r, "Unknown election type %d", asked->election_type);
    } else if (row->result != STREAM_DONE) {
        said.error_code = kafka_stream_error(row->result);
        said.error_message = kafka_text(k, r, "No such topic as %.*s", SLICE_ARG(topic));
    } else if (partition < 0 || partition >= (int64_t)row->partitions) {
        said.error_code = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
        said.error_message = kafka_text(k, r, "No such partition as %.*s-%d", SLICE_ARG(topic), partition);
    } else {
        said.error_code = KAFKA_ERR_ELECTION_NOT_NEEDED;
        said.error_message = slice_str("Leader election not needed for topic partition.");
    }
    return said;
}

static void say_elected(struct kafka *k, struct kafka_request *r, const struct kafka_rows *rows)
{
    const struct kafka_elect_leaders_request *asked = r->message;
    struct kafka_elect_leaders_response *said = r->response;
    if (asked->election_type != ELECTION_PREFERRED && asked->election_type != ELECTION_UNCLEAN)
        said->error_code = KAFKA_ERR_INVALID_REQUEST;
    said->replica_election_results.at = kafka_more_room(k, r, rows->count, sizeof *said->replica_election_results.at);
    for (size_t i = 0; said->replica_election_results.at && i < rows->count; i++) {
        struct kafka_elect_leaders_response_topic *topic =
            &said->replica_election_results.at[said->replica_election_results.count++];
        const struct kafka_elect_leaders_request_topic *wanted = rows->all ? NULL : &asked->topic_partitions.at[i];
        size_t count = wanted && wanted->partitions.count > 0 ? (size_t)wanted->partitions.count : 0;
        topic->topic = wanted ? wanted->topic : rows->rows[i].name;
        topic->partition_result.at = kafka_more_room(k, r, count, sizeof *topic->partition_result.at);
        for (size_t p = 0; topic->partition_result.at && p < count; p++)
            topic->partition_result.at[topic->partition_result.count++] =
                elected(k, r, &rows->rows[i], topic->topic, wanted->partitions.at[p]);
    }
}

static enum kafka_progress elect_leaders_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !elect_begin(k, r))
        return KAFKA_AGAIN;
    struct looking *l = r->state;
    if (kafka_rows(k, r, &l->rows) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    say_elected(k, r, &l->rows);
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_elect_leaders = {
    .go = elect_leaders_go, .effect = looking_effect, .drop = looking_drop};

/* ---- moving partitions ---- */

static bool move_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_alter_partition_reassignments_request *asked = r->message;
    size_t count = asked->topics.count > 0 ? (size_t)asked->topics.count : 0;
    struct slice *names = kafka_more_room(k, r, count, sizeof *names);
    for (size_t i = 0; names && i < count; i++)
        names[i] = asked->topics.at[i].name;
    return names && looking_begin(k, r, names, count);
}

/* Where it is to be: here, once. */
static void check_replicas(struct kafka *k, struct kafka_request *r,
                           const struct kafka_alter_partition_reassignments_request_partition *asked,
                           struct kafka_alter_partition_reassignments_response_partition *said)
{
    int32_t node = k->options->node_id;
    if (asked->replicas.count < 0) {
        said->error_code = KAFKA_ERR_NO_REASSIGNMENT_IN_PROGRESS;
        return;
    }
    if (asked->replicas.count == 1 && asked->replicas.at[0] == node)
        return;
    said->error_code = KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT;
    said->error_message = slice_str("The manual partition assignment includes an empty replica list.");
    for (int32_t i = 0; i < asked->replicas.count; i++)
        if (asked->replicas.at[i] != node) {
            said->error_message = kafka_text(
                k, r, "The manual partition assignment includes broker %d, but no such broker is registered.",
                asked->replicas.at[i]);
            return;
        }
    if (asked->replicas.count)
        said->error_message =
            kafka_text(k, r, "The manual partition assignment includes the broker %d more than once.", node);
}

static void say_moved(struct kafka *k, struct kafka_request *r, const struct kafka_rows *rows)
{
    const struct kafka_alter_partition_reassignments_request *asked = r->message;
    struct kafka_alter_partition_reassignments_response *said = r->response;
    said->error_message = (struct slice){0};
    said->responses.at = kafka_more_room(k, r, rows->count, sizeof *said->responses.at);
    for (size_t i = 0; said->responses.at && i < rows->count; i++) {
        const struct kafka_alter_partition_reassignments_request_topic *topic = &asked->topics.at[i];
        struct kafka_alter_partition_reassignments_response_topic *answer =
            &said->responses.at[said->responses.count++];
        const struct stream_row *row = &rows->rows[i];
        size_t count = topic->partitions.count > 0 ? (size_t)topic->partitions.count : 0;
        answer->name = topic->name;
        answer->partitions.at = kafka_more_room(k, r, count, sizeof *answer->partitions.at);
        for (size_t p = 0; answer->partitions.at && p < count; p++) {
            struct kafka_alter_partition_reassignments_response_partition *one =
                &answer->partitions.at[answer->partitions.count++];
            *one = (struct kafka_alter_partition_reassignments_response_partition){
                .partition_index = topic->partitions.at[p].partition_index};
            if (row->result != STREAM_DONE) {
                one->error_code = kafka_stream_error(row->result);
                one->error_message = kafka_text(k, r, "Unable to find a topic named %.*s.", SLICE_ARG(topic->name));
            } else if (one->partition_index < 0 || one->partition_index >= (int64_t)row->partitions) {
                one->error_code = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
                one->error_message =
                    kafka_text(k, r, "Unable to find partition %.*s:%d.", SLICE_ARG(topic->name), one->partition_index);
            } else
                check_replicas(k, r, &topic->partitions.at[p], one);
        }
    }
}

static enum kafka_progress alter_partition_reassignments_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !move_begin(k, r))
        return KAFKA_AGAIN;
    struct looking *l = r->state;
    if (kafka_rows(k, r, &l->rows) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    say_moved(k, r, &l->rows);
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_alter_partition_reassignments = {
    .go = alter_partition_reassignments_go, .effect = looking_effect, .drop = looking_drop};

static enum kafka_progress list_partition_reassignments_go(struct kafka *k, struct kafka_request *r)
{
    struct kafka_list_partition_reassignments_response *said = r->response;
    (void)k;
    said->error_message = (struct slice){0}; /* and there are none */
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_list_partition_reassignments = {.go = list_partition_reassignments_go};
