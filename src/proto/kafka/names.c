/* Names and ids of topics, see names.h. */
#include "proto/kafka/names.h"

#include "base/mem.h"
#include "core/stream_admin.h"

#define REMEMBERED_MAX 10000u /* beyond, everything is forgotten: who uses more pays a lookup now and then */

void kafka_topics_init(struct kafka *k)
{
    map_init(&k->topics, (uint64_t)(uintptr_t)k);
    map_init(&k->topics_by_id, (uint64_t)(uintptr_t)k);
}

void kafka_topics_fini(struct kafka *k)
{
    MAP_EACH(&k->topics, struct kafka_topic, topic)
    mem_free_as(MEM_CONNECTIONS, topic);
    map_fini(&k->topics);
    map_fini(&k->topics_by_id);
}

const struct kafka_topic *kafka_topic_find(struct kafka *k, struct slice name)
{
    return name.ptr ? map_get(&k->topics, name) : NULL;
}

const struct kafka_topic *kafka_topic_of_stream(struct kafka *k, uint64_t id)
{
    return map_get(&k->topics_by_id, map_key_u64(&id));
}

static void forget(struct kafka *k, struct kafka_topic *topic)
{
    if (!topic)
        return;
    map_take(&k->topics, topic->name);
    map_take(&k->topics_by_id, map_key_u64(&topic->id));
    mem_free_as(MEM_CONNECTIONS, topic);
}

void kafka_topic_forget(struct kafka *k, struct slice name)
{
    forget(k, map_get(&k->topics, name));
}

void kafka_topic_forget_stream(struct kafka *k, uint64_t id)
{
    forget(k, map_get(&k->topics_by_id, map_key_u64(&id)));
}

static void forget_all(struct kafka *k)
{
    kafka_topics_fini(k);
    kafka_topics_init(k);
}

static void note(struct kafka *k, const struct stream_row *row)
{
    kafka_topic_forget(k, row->name);
    kafka_topic_forget_stream(k, row->id);
    if (k->topics.count >= REMEMBERED_MAX)
        forget_all(k);
    struct kafka_topic *topic = mem_alloc_as(MEM_CONNECTIONS, sizeof *topic + row->name.len);
    if (!topic || !map_reserve(&k->topics) || !map_reserve(&k->topics_by_id)) {
        mem_free_as(MEM_CONNECTIONS, topic);
        kafka_drop_memory(k);
        return;
    }
    *topic = (struct kafka_topic){.id = row->id, .partitions = row->partitions, .compacts = row->limits.compacts};
    kafka_config_batch_rules(row, &topic->rules);
    memcpy(topic->bytes, row->name.ptr, row->name.len);
    topic->name = slice_of(topic->bytes, row->name.len);
    map_put(&k->topics, topic->name, topic);
    map_put(&k->topics_by_id, map_key_u64(&topic->id), topic);
}

void kafka_topics_note(struct kafka *k, const struct answer *answer)
{
    struct reader fields = reader_of(answer->fields);
    struct stream_row row;
    while (kafka_live(k) && stream_row_next(&fields, &row))
        if (row.result == STREAM_DONE)
            note(k, &row);
}

/* ---- ids ---- */

void kafka_topic_uuid(const struct kafka *k, uint64_t id, struct kafka_uuid *ret)
{
    memcpy(ret->bytes, k->options->uuid, 8);
    id = htobe64(id);
    memcpy(ret->bytes + 8, &id, 8);
}

bool kafka_topic_of_uuid(const struct kafka *k, const struct kafka_uuid *uuid, uint64_t *ret_id)
{
    uint64_t id;
    memcpy(&id, uuid->bytes + 8, 8);
    *ret_id = be64toh(id);
    return memcmp(uuid->bytes, k->options->uuid, 8) == 0;
}

bool kafka_uuid_is_zero(const struct kafka_uuid *uuid)
{
    static const struct kafka_uuid zero;
    return memcmp(uuid, &zero, sizeof zero) == 0;
}

/* ---- lookup ---- */

/* What is remembered is of before a change: of which stream nobody knows here. */
static void look_for_changes(struct kafka *k)
{
    uint64_t changed = hub_streams_changed(kafka_hub(k));
    if (changed != k->topics_changed)
        forget_all(k);
    k->topics_changed = changed;
}

bool kafka_lookup_init(struct kafka *k, struct kafka_request *r, const struct slice *names, size_t count,
                       struct kafka_lookup *ret)
{
    look_for_changes(k);
    *ret = (struct kafka_lookup){.missing = kafka_room(k, r, count, sizeof *ret->missing)};
    if (!ret->missing)
        return false;
    for (size_t i = 0; i < count; i++)
        if (names[i].len <= KAFKA_TOPIC_LEN_MAX && names[i].len > 0 && !kafka_topic_find(k, names[i]))
            ret->missing[ret->count++] = names[i];
    ret->done = ret->count == 0;
    return true;
}

bool kafka_lookup_init_ids(struct kafka *k, struct kafka_request *r, const uint64_t *ids, size_t count,
                           struct kafka_lookup *ret)
{
    look_for_changes(k);
    *ret = (struct kafka_lookup){.ids = kafka_room(k, r, count, sizeof *ret->ids)};
    if (!ret->ids)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!kafka_topic_of_stream(k, ids[i]))
            ret->ids[ret->count++] = ids[i];
    ret->done = ret->count == 0;
    return true;
}

/* What has not been answered yet. NULL: no memory. */
static struct ask *ask_rest(const struct kafka_lookup *l)
{
    size_t len = 0;
    for (uint32_t i = l->answered; i < l->count; i++)
        len += l->ids ? sizeof *l->ids : 1 + l->missing[i].len;
    uint8_t *room = mem_alloc(len);
    struct writer w = writer_of(room, len);
    for (uint32_t i = l->answered; room && i < l->count; i++)
        if (l->ids)
            writer_u64(&w, l->ids[i]);
        else
            writer_str8(&w, l->missing[i]);
    struct slice none = {0}, all = writer_slice(&w);
    struct ask *ask = room ? ask_new(l->ids ? none : all, none, l->ids ? all : none, none) : NULL;
    mem_free(room);
    return ask;
}

enum kafka_progress kafka_lookup(struct kafka *k, struct kafka_request *r, struct kafka_lookup *l)
{
    if (l->done)
        return KAFKA_SENT;
    if (l->asked > l->answered)
        return KAFKA_AGAIN;
    struct ask *ask = ask_rest(l);
    if (!ask) {
        kafka_drop_memory(k);
        return KAFKA_AGAIN;
    }
    struct command *command = kafka_command(k, r, CMD_STREAM_LIST);
    if (!command) {
        mem_free(ask);
        return KAFKA_AGAIN;
    }
    command->ask = ask;
    l->asked = l->count;
    return KAFKA_AGAIN;
}

void kafka_lookup_effect(struct kafka *k, struct kafka_lookup *l, struct effect *e)
{
    if (e->type != EFF_ANSWER || !e->answer) {
        hub_drop(kafka_hub(k), e);
        kafka_drop_memory(k);
        return;
    }
    kafka_topics_note(k, e->answer);
    uint64_t taken = e->answer->number ? e->answer->number2 : l->count - l->answered;
    if (taken == 0 || taken > l->count - l->answered)
        taken = l->count - l->answered; /* the core always takes one */
    l->answered += (uint32_t)taken;
    l->asked = l->answered;
    l->done = l->answered == l->count;
    hub_drop(kafka_hub(k), e);
}
