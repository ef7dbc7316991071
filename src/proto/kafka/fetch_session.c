/* Partitions of fetch sessions by slot, see fetch_session.h. */
#include "proto/kafka/fetch_session.h"

#include "base/check.h"
#include "base/mem.h"
#include "proto/kafka/names.h"

/* With their places in maps and lists, which are twice as many as are in use at most. */
#define PLACE_BYTES 64u
#define PART_BYTES (sizeof(struct kafka_fetch_part) + PLACE_BYTES)
#define TOPIC_BYTES (sizeof(struct kafka_fetch_topic) + PLACE_BYTES)

static struct slice topic_key(bool by_id, const struct kafka_uuid *uuid, struct slice name)
{
    return by_id ? slice_of(uuid->bytes, sizeof uuid->bytes) : name;
}

static uint64_t part_key(const struct kafka_fetch_topic *topic, int32_t partition)
{
    return (uint64_t)topic->number << 32 | (uint32_t)partition;
}

int32_t kafka_fetch_epoch_next(int32_t epoch)
{
    return epoch == INT32_MAX ? 1 : epoch + 1;
}

struct kafka_fetch_session *kafka_fetch_session_open(struct kafka *k, bool by_id)
{
    kafka_fetch_session_end(k);
    struct kafka_fetch_session *s = mem_zalloc_as(MEM_CONNECTIONS, sizeof *s);
    if (!s) {
        kafka_drop_memory(k);
        return NULL;
    }
    s->bytes = sizeof *s;
    s->epoch = 1;
    s->by_id = by_id;
    map_init(&s->topics, (uint64_t)(uintptr_t)k);
    map_init(&s->parts, (uint64_t)(uintptr_t)k);
    k->fetch_session = s;
    return s;
}

void kafka_fetch_session_end(struct kafka *k)
{
    struct kafka_fetch_session *s = k->fetch_session;
    k->fetch_session = NULL;
    if (!s)
        return;
    for (uint32_t i = 0; i < s->slot_count; i++)
        mem_free_as(MEM_CONNECTIONS, s->slots[i]);
    MAP_EACH(&s->topics, struct kafka_fetch_topic, topic)
    mem_free_as(MEM_CONNECTIONS, topic);
    map_fini(&s->topics);
    map_fini(&s->parts);
    mem_free_as(MEM_CONNECTIONS, s->slots);
    mem_free_as(MEM_CONNECTIONS, s);
}

void kafka_fetch_session_gone(struct kafka *k, int32_t id)
{
    struct kafka_fetch_session *s = k->fetch_session;
    if (s && s->id == id && !s->busy) /* a request that is on its way is told so, too, and ends it */
        kafka_fetch_session_end(k);
}

struct kafka_fetch_part *kafka_fetch_session_find(const struct kafka_fetch_session *s, struct slice name,
                                                  const struct kafka_uuid *uuid, int32_t partition)
{
    const struct kafka_fetch_topic *topic = map_get(&s->topics, topic_key(s->by_id, uuid, name));
    uint64_t key = topic ? part_key(topic, partition) : 0;
    return topic ? map_get(&s->parts, map_key_u64(&key)) : NULL;
}

/* NULL: no memory. */
static struct kafka_fetch_topic *topic_of(struct kafka_fetch_session *s, struct slice name,
                                          const struct kafka_uuid *uuid)
{
    struct kafka_fetch_topic *topic = map_get(&s->topics, topic_key(s->by_id, uuid, name));
    if (topic || !map_reserve(&s->topics))
        return topic;
    topic = mem_zalloc_as(MEM_CONNECTIONS, sizeof *topic + name.len);
    if (!topic)
        return NULL;
    topic->uuid = *uuid;
    topic->number = ++s->topic_last;
    if (name.len)
        memcpy(topic->bytes, name.ptr, name.len);
    topic->name = slice_of(topic->bytes, name.len);
    map_put(&s->topics, topic_key(s->by_id, &topic->uuid, topic->name), topic);
    s->bytes += TOPIC_BYTES + name.len;
    return topic;
}

static void topic_unused(struct kafka_fetch_session *s, struct kafka_fetch_topic *topic)
{
    if (topic->parts)
        return;
    s->bytes -= TOPIC_BYTES + topic->name.len;
    mem_free_as(MEM_CONNECTIONS, map_take(&s->topics, topic_key(s->by_id, &topic->uuid, topic->name)));
}

/* The lowest that is free; false: no memory. */
static bool slot_of(struct kafka_fetch_session *s, uint32_t *ret)
{
    uint32_t slot = s->free_from;
    while (slot < s->slot_count && s->slots[slot])
        slot++;
    s->free_from = slot;
    if (slot == s->slot_max) {
        uint32_t max = s->slot_max ? 2 * s->slot_max : 16;
        void *grown = mem_realloc_as(MEM_CONNECTIONS, s->slots, max * sizeof(struct kafka_fetch_part *));
        if (!grown)
            return false;
        s->slots = grown;
        s->slot_max = max;
    }
    *ret = slot;
    return true;
}

struct kafka_fetch_part *kafka_fetch_session_part(struct kafka *k, struct slice name, const struct kafka_uuid *uuid,
                                                  int32_t partition)
{
    struct kafka_fetch_session *s = k->fetch_session;
    struct kafka_fetch_part *part = kafka_fetch_session_find(s, name, uuid, partition);
    if (part)
        return part;
    if (s->parts.count >= FETCH_ROWS_MAX ||
        name.len > KAFKA_TOPIC_LEN_MAX) { /* no client has so many, and no topic such a name */
        kafka_drop(k);
        return NULL;
    }
    struct kafka_fetch_topic *topic = topic_of(s, name, uuid);
    uint32_t slot = 0;
    part = topic && map_reserve(&s->parts) && slot_of(s, &slot) ? mem_alloc_as(MEM_CONNECTIONS, sizeof *part) : NULL;
    if (!part) {
        if (topic)
            topic_unused(s, topic);
        kafka_drop_memory(k);
        return NULL;
    }
    *part = (struct kafka_fetch_part){
        .key = part_key(topic, partition), .topic = topic, .slot = slot, .partition = partition};
    map_put(&s->parts, map_key_u64(&part->key), part);
    s->slots[slot] = part;
    s->slot_count += slot == s->slot_count;
    topic->parts++;
    s->bytes += PART_BYTES;
    return part;
}

void kafka_fetch_session_lost(struct kafka_fetch_session *s, struct kafka_fetch_part *part, bool lost)
{
    if (part->lost == lost)
        return;
    part->lost = lost;
    s->lost += lost ? 1u : (uint32_t)-1;
}

void kafka_fetch_session_forget(struct kafka_fetch_session *s, struct kafka_fetch_part *part)
{
    kafka_fetch_session_lost(s, part, false);
    CHECK(map_take(&s->parts, map_key_u64(&part->key)) == part);
    s->slots[part->slot] = NULL;
    if (part->slot < s->free_from)
        s->free_from = part->slot;
    part->topic->parts--;
    topic_unused(s, part->topic);
    s->bytes -= PART_BYTES;
    mem_free_as(MEM_CONNECTIONS, part);
}
