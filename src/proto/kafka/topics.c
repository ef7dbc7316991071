/* CreateTopics and DeleteTopics: streams of the session's vhost, with Kafka's rules about them.
 *
 * What can be seen to be wrong in the request is said without asking the core; each of the rest is one command of its own, so
 * one that fails does not hold up the others.
 */
#include "proto/kafka/config_table.h"
#include "proto/kafka/errands.h"
#include "proto/kafka/names.h"
#include "proto/kafka/rows.h"
#include "proto/kafka/topic_rules.h"

#define VERSION_DESCRIBES 5u /* CreateTopics says what was made */
#define VERSION_BY_ID 6u     /* of DeleteTopics */

/* ---- CreateTopics: what may be wrong ---- */

struct making { /* one topic; where it has an error nothing else counts */
    const struct kafka_create_topics_request_topic *asked;
    struct kafka_create_topics_response_topic *said; /* NULL: it was named before */
    struct slice args;
    uint32_t partitions;
};

struct create {
    struct making *topics;
    struct kafka_errands errands;
};

static void wrong(struct making *m, int16_t error, struct slice text)
{
    m->said->error_code = error;
    m->said->error_message = text;
}

static bool is_ours(const struct kafka *k, int32_t broker)
{
    return broker == k->options->node_id;
}

static bool assignment_good(struct kafka *k, struct kafka_request *r, struct making *m,
                            const struct kafka_create_topics_request_assignment *a)
{
    if (a->broker_ids.count == 0)
        wrong(m, KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT,
              slice_str("The manual partition assignment includes an empty replica list."));
    for (int32_t i = 0; i < a->broker_ids.count && !m->said->error_code; i++) {
        if (!is_ours(k, a->broker_ids.at[i]))
            wrong(m, KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT,
                  kafka_text(k, r,
                             "The manual partition assignment includes broker %d, but no such broker is registered.",
                             a->broker_ids.at[i]));
        else if (i)
            wrong(m, KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT,
                  kafka_text(k, r, "The manual partition assignment includes the broker %d more than once.",
                             a->broker_ids.at[i]));
    }
    return !m->said->error_code;
}

/* Partitions by hand: each once, from 0 on without a gap. */
static void check_assignments(struct kafka *k, struct kafka_request *r, struct making *m)
{
    int32_t count = m->asked->assignments.count;
    uint8_t *seen = kafka_room(k, r, (size_t)count, 1);
    m->partitions = (uint32_t)count;
    for (int32_t i = 0; seen && i < count; i++) {
        const struct kafka_create_topics_request_assignment *a = &m->asked->assignments.at[i];
        int32_t index = a->partition_index;
        if (!assignment_good(k, r, m, a))
            return;
        if (index < 0 || index >= count) {
            wrong(m, KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT,
                  slice_str("partitions should be a consecutive 0-based integer sequence"));
            return;
        }
        if (seen[index]) {
            wrong(m, KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT,
                  kafka_text(k, r, "Found multiple manual partition assignments for partition %d", index));
            return;
        }
        seen[index] = 1;
    }
}

static void check_numbers(struct kafka *k, struct kafka_request *r, struct making *m)
{
    int32_t partitions = m->asked->num_partitions, copies = m->asked->replication_factor;
    bool by_hand = m->asked->assignments.count > 0;
    if (by_hand && copies != -1)
        wrong(m, KAFKA_ERR_INVALID_REQUEST,
              slice_str("A manual partition assignment was specified, but replication factor was not set to -1."));
    else if (by_hand && partitions != -1)
        wrong(m, KAFKA_ERR_INVALID_REQUEST,
              slice_str("A manual partition assignment was specified, but numPartitions was not set to -1."));
    else if (by_hand)
        check_assignments(k, r, m);
    else if (copies == 0 || copies < -1)
        wrong(m, KAFKA_ERR_INVALID_REPLICATION_FACTOR,
              slice_str("Replication factor must be larger than 0, or -1 to use the default value."));
    else if (partitions == 0 || partitions < -1)
        wrong(m, KAFKA_ERR_INVALID_PARTITIONS,
              slice_str("Number of partitions was set to an invalid non-positive value."));
    else if (copies > 1)
        wrong(m, KAFKA_ERR_INVALID_REPLICATION_FACTOR,
              kafka_text(k, r,
                         "Unable to replicate the partition %d time(s): The target replication factor of %d cannot be "
                         "reached because only 1 broker(s) are registered or some brokers have all their log "
                         "directories cordoned.",
                         copies, copies));
    else
        m->partitions = partitions > 0 ? (uint32_t)partitions : k->options->partitions;
}

/* The last one of a name counts, as in Kafka. ptr NULL: it is not there. */
static struct slice value_of(const struct kafka_create_topics_request_topic *asked, const char *name)
{
    struct slice value = {0};
    for (int32_t i = 0; i < asked->configs.count; i++)
        if (slice_is(asked->configs.at[i].name, name))
            value = asked->configs.at[i].value;
    return value;
}

static void check_configs(struct kafka *k, struct kafka_request *r, struct making *m)
{
    char text[KAFKA_CONFIG_TEXT];
    for (int32_t i = 0; i < m->asked->configs.count && !m->said->error_code; i++) {
        struct slice name = m->asked->configs.at[i].name, value = m->asked->configs.at[i].value;
        const struct kafka_config *config = kafka_config_find(name);
        int shown = (int)(name.len < 200 ? name.len : 200);
        if (!value.ptr)
            wrong(m, KAFKA_ERR_INVALID_CONFIG,
                  kafka_text(k, r, "Null value not supported for topic configs: %.*s", shown, name.ptr));
        else if (!config)
            wrong(m, KAFKA_ERR_INVALID_CONFIG, kafka_text(k, r, "Unknown topic config name: %.*s", shown, name.ptr));
        else if (!kafka_config_check(config, value, text, sizeof text))
            wrong(m, KAFKA_ERR_INVALID_CONFIG, kafka_text(k, r, "%s", text));
    }
}

static bool make_args(struct kafka *k, struct kafka_request *r, struct making *m)
{
    size_t len = 0;
    for (size_t i = 0; i < kafka_topic_config_count; i++)
        len += kafka_config_bytes(&kafka_topic_configs[i], value_of(m->asked, kafka_topic_configs[i].name));
    uint8_t *room = kafka_more_room(k, r, len, 1);
    if (!room)
        return false;
    struct writer w = writer_of(room, len);
    for (size_t i = 0; i < kafka_topic_config_count; i++)
        kafka_config_put(&w, &kafka_topic_configs[i], value_of(m->asked, kafka_topic_configs[i].name));
    m->args = slice_of(room, w.len);
    return writer_ok(&w);
}

static void check(struct kafka *k, struct kafka_request *r, struct making *m, bool twice)
{
    char text[1200];
    if (twice)
        wrong(m, KAFKA_ERR_INVALID_REQUEST, slice_str("Duplicate topic name."));
    else if (!kafka_topic_name_good(m->asked->name)) {
        kafka_topic_name_fault(m->asked->name, text, sizeof text);
        wrong(m, KAFKA_ERR_INVALID_TOPIC_EXCEPTION, kafka_text(k, r, "%s", text));
    } else
        check_numbers(k, r, m);
    if (!m->said->error_code)
        check_configs(k, r, m);
}

/* ---- CreateTopics: making ---- */

static struct ask *create_ask(struct kafka *k, struct kafka_request *r, size_t i, uint16_t *ret_channel)
{
    const struct kafka_create_topics_request *asked = r->message;
    const struct create *c = r->state;
    const struct making *m = &c->topics[i];
    (void)k;
    (void)ret_channel;
    return kafka_topic_ask(m->asked->name, m->partitions, m->args, asked->validate_only ? ASK_CHECK_ONLY : 0);
}

static bool describe(struct kafka *k, struct kafka_request *r, struct making *m)
{
    m->said->configs.at = kafka_more_room(k, r, kafka_topic_config_count, sizeof *m->said->configs.at);
    if (!m->said->configs.at)
        return false;
    for (size_t i = 0; i < kafka_topic_config_count; i++) {
        const struct kafka_config *config = &kafka_topic_configs[i];
        struct kafka_config_value otherwise;
        struct slice given = value_of(m->asked, config->name);
        kafka_config_of(config, k->options, NULL, &otherwise);
        m->said->configs.at[i] = (struct kafka_create_topics_response_config){
            .name = slice_str(config->name),
            .value = given.ptr ? given : kafka_text(k, r, "%.*s", SLICE_ARG(otherwise.value)),
            .config_source = (int8_t)(given.ptr ? KAFKA_SOURCE_TOPIC : otherwise.source)};
    }
    m->said->configs.count = (int32_t)kafka_topic_config_count;
    return kafka_live(k);
}

static void create_done(struct kafka *k, struct kafka_request *r, size_t i, const struct answer *answer)
{
    struct create *c = r->state;
    struct making *m = &c->topics[i];
    enum stream_result result = (enum stream_result)answer->number;
    kafka_topic_forget(k, m->asked->name);
    if (result == STREAM_EXISTS)
        wrong(m, KAFKA_ERR_TOPIC_ALREADY_EXISTS,
              kafka_text(k, r, "Topic '%.*s' already exists.", SLICE_ARG(m->asked->name)));
    else if (result == STREAM_IS_QUEUE)
        wrong(m, KAFKA_ERR_INVALID_TOPIC_EXCEPTION,
              kafka_text(k, r, "A queue of another protocol has the name '%.*s'.", SLICE_ARG(m->asked->name)));
    else if (result == STREAM_REFUSED)
        wrong(m, KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED, slice_str("Authorization failed."));
    else if (result != STREAM_DONE)
        wrong(m, kafka_stream_error(result), kafka_text(k, r, "%.*s", SLICE_ARG(answer->text)));
    if (result != STREAM_DONE)
        return;
    m->said->num_partitions = (int32_t)m->partitions;
    m->said->replication_factor = 1;
    if (answer->number2)
        kafka_topic_uuid(k, answer->number2, &m->said->topic_id);
    if (r->form.version >= VERSION_DESCRIBES)
        (void)describe(k, r, m);
}

static const struct kafka_errand_kind creating = {CMD_STREAM_CREATE, create_ask, create_done};

static bool create_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_create_topics_request *asked = r->message;
    struct kafka_create_topics_response *said = r->response;
    size_t count = asked->topics.count > 0 ? (size_t)asked->topics.count : 0;
    struct create *c = r->state = kafka_room(k, r, 1, sizeof *c);
    struct slice *names = c ? kafka_more_room(k, r, count, sizeof *names) : NULL;
    struct making *list = names ? kafka_more_room(k, r, count, sizeof *list) : NULL;
    said->topics.at = list ? kafka_more_room(k, r, count, sizeof *said->topics.at) : NULL;
    if (!said->topics.at || !kafka_errands_init(k, r, &creating, count, &c->errands))
        return false;
    c->topics = list;
    for (size_t i = 0; i < count; i++)
        names[i] = asked->topics.at[i].name;
    const uint8_t *doubles = kafka_doubles(k, r, names, count);
    for (size_t i = 0; doubles && i < count; i++) {
        struct making *m = &c->topics[i];
        if (doubles[i] == KAFKA_LATER)
            continue;
        *m = (struct making){.asked = &asked->topics.at[i], .said = &said->topics.at[said->topics.count++]};
        kafka_defaults(&kafka_create_topics_response_topic_table, m->said);
        m->said->name = m->asked->name;
        m->said->error_message = (struct slice){0};
        check(k, r, m, doubles[i] == KAFKA_FIRST_OF_SEVERAL);
        if (!m->said->error_code && make_args(k, r, m))
            kafka_errand_want(&c->errands, i);
    }
    return kafka_live(k);
}

static enum kafka_progress create_topics_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !create_begin(k, r))
        return KAFKA_AGAIN;
    return kafka_errands(k, r, &((struct create *)r->state)->errands);
}

static void create_topics_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    kafka_errands_effect(k, r, &((struct create *)r->state)->errands, e);
}

const struct kafka_handler kafka_on_create_topics = {.go = create_topics_go, .effect = create_topics_effect};

/* ---- DeleteTopics ---- */

struct deletion {
    struct kafka_rows rows; /* of names, then of ids */
    struct kafka_errands errands;
    struct kafka_delete_topics_response_topic **said; /* by row; NULL: it was named before */
    size_t names;
    bool looked;
};

static void delete_wrong(struct kafka_delete_topics_response_topic *said, int16_t error, const char *text)
{
    said->error_code = error;
    said->error_message = slice_str(text);
}

static struct ask *delete_ask(struct kafka *k, struct kafka_request *r, size_t i, uint16_t *ret_channel)
{
    const struct deletion *d = r->state;
    struct slice none = {0};
    struct ask *ask = ask_new(none, none, none, none);
    (void)k;
    (void)ret_channel;
    if (ask)
        ask->number = d->rows.rows[i].id;
    return ask;
}

static void delete_done(struct kafka *k, struct kafka_request *r, size_t i, const struct answer *answer)
{
    struct deletion *d = r->state;
    enum stream_result result = (enum stream_result)answer->number;
    kafka_topic_forget(k, d->rows.rows[i].name);
    if (result == STREAM_REFUSED)
        delete_wrong(d->said[i], KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED, "Authorization failed.");
    else if (result == STREAM_UNKNOWN)
        delete_wrong(d->said[i], KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION,
                     "This server does not host this topic-partition.");
    else if (result != STREAM_DONE)
        delete_wrong(d->said[i], kafka_stream_error(result), "The topic could not be deleted.");
}

static const struct kafka_errand_kind deleting = {CMD_STREAM_DELETE, delete_ask, delete_done};

struct deleted { /* a topic as the request names it */
    struct slice name;
    const struct kafka_uuid *id; /* NULL: by its name */
};

static struct deleted delete_asked(const struct kafka_request *r, size_t i)
{
    const struct kafka_delete_topics_request *asked = r->message;
    if (r->form.version < VERSION_BY_ID)
        return (struct deleted){.name = asked->topic_names.at[i]};
    const struct kafka_delete_topics_request_topic *topic = &asked->topics.at[i];
    return (struct deleted){topic->name, kafka_uuid_is_zero(&topic->topic_id) ? NULL : &topic->topic_id};
}

static size_t delete_count(const struct kafka_request *r)
{
    const struct kafka_delete_topics_request *asked = r->message;
    int32_t count = r->form.version < VERSION_BY_ID ? asked->topic_names.count : asked->topics.count;
    return count > 0 ? (size_t)count : 0;
}

/* Names first, then ids, as rows come; who names one wrongly is answered at once. */
static bool delete_sort(struct kafka *k, struct kafka_request *r, struct deletion *d, struct slice *names,
                        struct kafka_delete_topics_response_topic **said_ids, struct kafka_wanted *wanted,
                        uint64_t *ids)
{
    struct kafka_delete_topics_response *said = r->response;
    size_t count = delete_count(r);
    for (size_t i = 0; i < count; i++) {
        struct deleted one = delete_asked(r, i);
        names[i] = one.id ? slice_of(one.id->bytes, 16) : one.name;
    }
    const uint8_t *doubles = kafka_doubles(k, r, names, count);
    for (size_t i = 0; doubles && i < count; i++) {
        struct deleted one = delete_asked(r, i);
        if (doubles[i] == KAFKA_LATER)
            continue;
        struct kafka_delete_topics_response_topic *topic = &said->responses.at[said->responses.count++];
        kafka_defaults(&kafka_delete_topics_response_topic_table, topic);
        topic->name = one.name;
        if (one.id)
            topic->topic_id = *one.id;
        if (one.id && one.name.ptr)
            delete_wrong(topic, KAFKA_ERR_INVALID_REQUEST, "You may not specify both topic name and topic id.");
        else if (!one.id && !one.name.ptr)
            delete_wrong(topic, KAFKA_ERR_INVALID_REQUEST, "Neither topic name nor id were specified.");
        else if (doubles[i] == KAFKA_FIRST_OF_SEVERAL)
            delete_wrong(topic, KAFKA_ERR_INVALID_REQUEST, one.id ? "Duplicate topic id." : "Duplicate topic name.");
        else if (!one.id) {
            names[wanted->name_count] = one.name; /* never ahead of what is still to be looked at */
            d->said[wanted->name_count++] = topic;
        } else {
            if (!kafka_topic_of_uuid(k, one.id, &ids[wanted->id_count]))
                ids[wanted->id_count] = 0;
            said_ids[wanted->id_count++] = topic;
        }
    }
    return doubles != NULL;
}

static bool delete_begin(struct kafka *k, struct kafka_request *r)
{
    struct kafka_delete_topics_response *said = r->response;
    size_t count = delete_count(r);
    struct deletion *d = r->state = kafka_room(k, r, 1, sizeof *d);
    struct slice *names = d ? kafka_more_room(k, r, count, sizeof *names) : NULL;
    uint64_t *ids = names ? kafka_more_room(k, r, count, sizeof *ids) : NULL;
    struct kafka_delete_topics_response_topic **said_ids = ids ? kafka_more_room(k, r, count, sizeof *said_ids) : NULL;
    struct kafka_delete_topics_response_topic **all = said_ids ? kafka_more_room(k, r, count, sizeof *all) : NULL;
    said->responses.at = all ? kafka_more_room(k, r, count, sizeof *said->responses.at) : NULL;
    if (!said->responses.at)
        return false;
    d->said = all;
    struct kafka_wanted wanted = {.names = names, .ids = ids};
    if (!delete_sort(k, r, d, names, said_ids, &wanted, ids))
        return false;
    d->names = wanted.name_count;
    for (size_t i = 0; i < wanted.id_count; i++)
        d->said[d->names + i] = said_ids[i];
    return kafka_errands_init(k, r, &deleting, wanted.name_count + wanted.id_count, &d->errands) &&
           kafka_rows_init(k, r, &wanted, false, &d->rows);
}

static void delete_look(struct kafka *k, struct deletion *d)
{
    d->looked = true;
    for (size_t i = 0; i < d->rows.count; i++) {
        const struct stream_row *row = &d->rows.rows[i];
        struct kafka_delete_topics_response_topic *said = d->said[i];
        bool by_id = i >= d->names;
        switch (row->result) {
        case STREAM_DONE:
            said->name = row->name;
            kafka_topic_uuid(k, row->id, &said->topic_id);
            kafka_errand_want(&d->errands, i);
            break;
        case STREAM_REFUSED: delete_wrong(said, KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED, "Authorization failed."); break;
        case STREAM_IS_QUEUE:
            delete_wrong(said, KAFKA_ERR_INVALID_TOPIC_EXCEPTION, "A queue of another protocol has this name.");
            break;
        default:
            delete_wrong(said, by_id ? KAFKA_ERR_UNKNOWN_TOPIC_ID : KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION,
                         by_id ? "This server does not host this topic ID."
                               : "This server does not host this topic-partition.");
        }
    }
}

static enum kafka_progress delete_topics_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !delete_begin(k, r))
        return KAFKA_AGAIN;
    struct deletion *d = r->state;
    if (kafka_rows(k, r, &d->rows) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (!d->looked)
        delete_look(k, d);
    return kafka_errands(k, r, &d->errands);
}

static void delete_topics_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct deletion *d = r->state;
    if (d->rows.done)
        kafka_errands_effect(k, r, &d->errands, e);
    else
        kafka_rows_effect(k, r, &d->rows, e);
}

static void delete_topics_drop(struct kafka *k, struct kafka_request *r)
{
    struct deletion *d = r->state;
    (void)k;
    if (d)
        kafka_rows_drop(&d->rows);
}

const struct kafka_handler kafka_on_delete_topics = {
    .go = delete_topics_go, .effect = delete_topics_effect, .drop = delete_topics_drop};
