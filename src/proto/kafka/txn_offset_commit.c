/* AddOffsetsToTxn and TxnOffsetCommit: what a consumer has read becomes part of its producer's transaction. The offsets and the
 * transaction are the same core's, so the first only says that there will be some. */
#include "proto/kafka/group_asked.h"
#include "proto/kafka/names.h"
#include "proto/kafka/transactions.h"

#define VERSION_BY_ID 6u
#define VERSION_JOINS 5u /* begins the transaction by itself (KIP-890) */

/* ---- AddOffsetsToTxn ---- */

static enum kafka_progress add_offsets_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_add_offsets_to_txn_request *asked = r->message;
    uint8_t room[16];
    struct writer w = writer_of(room, sizeof room);
    kafka_txn_producer(&w, asked->producer_id, asked->producer_epoch);
    return kafka_txn_ask(k, r, CMD_TXN_ADD, asked->transactional_id, writer_slice(&w), 0, 0);
}

static void add_offsets_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct kafka_add_offsets_to_txn_response *said = r->response;
    struct kafka_txn_said answer;
    if (kafka_txn_answer(k, e, &answer)) {
        said->error_code = kafka_txn_error(answer.result, r->form.version >= 2);
        r->lsn = e->lsn;
    }
    hub_drop(kafka_hub(k), e);
}

const struct kafka_handler kafka_on_add_offsets_to_txn = {.go = add_offsets_go, .effect = add_offsets_effect};

/* ---- TxnOffsetCommit ---- */

struct txn_commit {
    struct kafka_lookup lookup;
    struct kafka_groups groups; /* one */
};

static size_t count_of(int32_t count)
{
    return count > 0 ? (size_t)count : 0;
}

static struct txn_commit *commit_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_txn_offset_commit_request *asked = r->message;
    size_t topics = count_of(asked->topics.count);
    struct txn_commit *c = kafka_room(k, r, 1, sizeof *c);
    struct slice *names = c ? kafka_room(k, r, topics, sizeof *names) : NULL;
    if (!names || !kafka_groups_init(k, r, 1, &c->groups))
        return NULL;
    for (size_t i = 0; i < topics; i++)
        names[i] = asked->topics.at[i].name;
    if (!kafka_lookup_init(k, r, names, r->form.version >= VERSION_BY_ID ? 0 : topics, &c->lookup))
        return NULL;
    return r->state = c;
}

/* 0 is no stream's: the core says so. */
static uint64_t stream_of(struct kafka *k, const struct kafka_request *r,
                          const struct kafka_txn_offset_commit_request_topic *topic)
{
    uint64_t id;
    if (r->form.version >= VERSION_BY_ID)
        return kafka_topic_of_uuid(k, &topic->topic_id, &id) ? id : 0;
    const struct kafka_topic *known = kafka_topic_find(k, topic->name);
    return known ? known->id : 0;
}

static bool commit_make(struct kafka *k, struct kafka_request *r, size_t command, struct kafka_group_ask *ret)
{
    const struct kafka_txn_offset_commit_request *asked = r->message;
    size_t bytes = 14 + asked->transactional_id.len;
    (void)command;
    for (int32_t i = 0; i < asked->topics.count; i++)
        for (int32_t n = 0; n < asked->topics.at[i].partitions.count; n++)
            bytes += GROUP_OFFSET_BYTES + asked->topics.at[i].partitions.at[n].committed_metadata.len;
    if (!kafka_group_args(k, r, bytes, ret))
        return false;
    ret->group = asked->group_id;
    ret->member = asked->member_id;
    ret->instance = asked->group_instance_id;
    ret->number = (uint32_t)asked->generation_id_or_member_epoch;
    ret->flags = r->form.version >= VERSION_JOINS ? ASK_JOINS : 0;
    kafka_txn_producer(&ret->args, asked->producer_id, asked->producer_epoch);
    writer_str32(&ret->args, asked->transactional_id);
    for (int32_t i = 0; i < asked->topics.count; i++) {
        const struct kafka_txn_offset_commit_request_topic *topic = &asked->topics.at[i];
        for (int32_t n = 0; n < topic->partitions.count; n++) {
            const struct kafka_txn_offset_commit_request_partition *p = &topic->partitions.at[n];
            group_offset_put(&ret->args, &(struct group_offset){.stream = stream_of(k, r, topic),
                                                                .partition = (uint32_t)p->partition_index,
                                                                .epoch = (uint32_t)p->committed_leader_epoch,
                                                                .offset = (uint64_t)p->committed_offset,
                                                                .metadata = p->committed_metadata});
        }
    }
    return true;
}

/* What a row is answered. What is unknown is looked up again the next time. */
static int16_t row_error(struct kafka *k, const struct kafka_request *r, enum group_error error, struct slice name)
{
    if (error == GROUP_ERR_NO_STREAM && r->form.version >= VERSION_BY_ID)
        return KAFKA_ERR_UNKNOWN_TOPIC_ID;
    if (error == GROUP_ERR_NO_STREAM)
        kafka_topic_forget(k, name);
    return kafka_group_error(error);
}

static void commit_say(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_txn_offset_commit_request *asked = r->message;
    struct kafka_txn_offset_commit_response *said = r->response;
    const struct kafka_group_said *one = &((struct txn_commit *)r->state)->groups.said[0];
    struct reader fields = kafka_group_fields(one);
    size_t topics = count_of(asked->topics.count);
    said->topics.at = kafka_room(k, r, topics, sizeof *said->topics.at);
    for (size_t i = 0; said->topics.at && i < topics; i++) {
        const struct kafka_txn_offset_commit_request_topic *topic = &asked->topics.at[i];
        struct kafka_txn_offset_commit_response_topic *ret = &said->topics.at[i];
        size_t count = count_of(topic->partitions.count);
        ret->name = topic->name;
        ret->topic_id = topic->topic_id;
        ret->partitions.at = kafka_room(k, r, count, sizeof *ret->partitions.at);
        if (!ret->partitions.at)
            return;
        ret->partitions.count = (int32_t)count;
        for (size_t n = 0; n < count; n++) {
            enum group_error error = one->error ? one->error : (enum group_error)reader_u8(&fields);
            ret->partitions.at[n].partition_index = topic->partitions.at[n].partition_index;
            ret->partitions.at[n].error_code = row_error(k, r, error, topic->name);
        }
    }
    said->topics.count = said->topics.at ? (int32_t)topics : 0;
}

static enum kafka_progress commit_go(struct kafka *k, struct kafka_request *r)
{
    struct txn_commit *c = r->state ? r->state : commit_begin(k, r);
    if (!c || kafka_lookup(k, r, &c->lookup) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_go(k, r, &c->groups, CMD_TXN_OFFSETS, commit_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_done(&c->groups))
        commit_say(k, r);
    return KAFKA_SENT;
}

static void commit_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct txn_commit *c = r->state;
    if (!c->lookup.done)
        kafka_lookup_effect(k, &c->lookup, e);
    else if (kafka_groups_effect(k, r, &c->groups, e))
        commit_say(k, r);
}

static void commit_drop(struct kafka *k, struct kafka_request *r)
{
    struct txn_commit *c = r->state;
    (void)k;
    if (c)
        kafka_groups_drop(&c->groups);
}

const struct kafka_handler kafka_on_txn_offset_commit = {.go = commit_go, .effect = commit_effect, .drop = commit_drop};
