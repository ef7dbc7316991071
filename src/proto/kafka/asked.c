/* Partitions that are asked about, see asked.h. */
#include "proto/kafka/asked.h"

struct kafka_asked *kafka_asked_new(struct kafka *k, struct kafka_request *r, enum fetch_kind kind, size_t rows,
                                    const struct slice *names, size_t name_count)
{
    if (rows > FETCH_ROWS_MAX) {
        kafka_drop(k);
        return NULL;
    }
    struct kafka_asked *asked = kafka_room(k, r, 1, sizeof *asked);
    if (!asked)
        return NULL;
    asked->kind = kind;
    asked->count = (uint32_t)rows;
    return kafka_lookup_init(k, r, names, name_count, &asked->lookup) ? asked : NULL;
}

enum kafka_progress kafka_asked_go(struct kafka *k, struct kafka_request *r,
                                   void (*fill)(struct kafka *k, struct kafka_request *r, struct fetch *f))
{
    struct kafka_asked *asked = r->state;
    if (kafka_lookup(k, r, &asked->lookup) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (!asked->fetch) {
        asked->fetch = fetch_new(asked->kind, asked->count);
        if (!asked->fetch) {
            kafka_drop_memory(k);
            return KAFKA_AGAIN;
        }
        size_t bytes = asked->count * sizeof asked->fetch->rows[0];
        r->bytes += (uint32_t)bytes; /* a peer has only so many of them waiting */
        k->inflight_bytes += bytes;
        fill(k, r, asked->fetch);
        if (!kafka_live(k))
            return KAFKA_AGAIN;
    }
    struct command *command = kafka_command(k, r, CMD_FETCH);
    if (!command)
        return KAFKA_AGAIN;
    command->fetch = asked->fetch;
    asked->fetch = NULL;
    return KAFKA_SENT;
}

struct fetch *kafka_asked_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct kafka_asked *asked = r->state;
    if (!asked->lookup.done) {
        kafka_lookup_effect(k, &asked->lookup, e);
        return NULL;
    }
    if (e->type != EFF_FETCHED) {
        hub_drop(kafka_hub(k), e);
        kafka_drop_memory(k);
        return NULL;
    }
    asked->fetch = e->fetch;
    return asked->fetch;
}

void kafka_asked_drop(struct kafka *k, struct kafka_request *r)
{
    struct kafka_asked *asked = r->state;
    (void)k;
    if (asked)
        fetch_free(&asked->fetch);
}

uint64_t kafka_asked_stream(struct kafka *k, struct slice name)
{
    const struct kafka_topic *topic = kafka_topic_find(k, name);
    return topic ? topic->id : 0;
}

static const int16_t errors[] = {
    [FETCH_OK] = KAFKA_ERR_NONE,
    [FETCH_UNKNOWN] = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION,
    [FETCH_REFUSED] = KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED,
    [FETCH_OUT_OF_RANGE] = KAFKA_ERR_OFFSET_OUT_OF_RANGE,
    [FETCH_OLD_EPOCH] = KAFKA_ERR_FENCED_LEADER_EPOCH,
    [FETCH_NEW_EPOCH] = KAFKA_ERR_UNKNOWN_LEADER_EPOCH,
    [FETCH_DAMAGED] = KAFKA_ERR_CORRUPT_MESSAGE,
    [FETCH_GROUP_REFUSED] = KAFKA_ERR_GROUP_AUTHORIZATION_FAILED,
    [FETCH_NO_GROUP] = KAFKA_ERR_GROUP_ID_NOT_FOUND,
    [FETCH_TROUBLE] = KAFKA_ERR_KAFKA_STORAGE_ERROR,
};

int16_t kafka_asked_error(struct kafka *k, const struct fetch_row *row, struct slice name)
{
    if (row->result == FETCH_UNKNOWN && !name.ptr)
        return KAFKA_ERR_UNKNOWN_TOPIC_ID;
    if (row->result == FETCH_UNKNOWN)
        kafka_topic_forget(k, name);
    return errors[row->result];
}
