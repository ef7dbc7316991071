/* Rules that queues share: most queues of a broker are governed by the same few, so each is kept once, by its content.
 *
 * A shared rule owns the names it points to, so it outlives the arguments and policies it was made of. It goes with the last
 * queue that has it. Nothing in it changes: a queue whose policy changes takes another one.
 */
#include "core/core_int.h"

struct shared_rules {
    struct queue_rules rules;
    uint32_t refs;
    uint32_t key_len;
    uint8_t key[]; /* every field of rules; its end is dlx, dlk, dedup_header */
};

static struct slice key_of(const void *value)
{
    const struct shared_rules *shared = value;
    return slice_of(shared->key, shared->key_len);
}

void rules_init(struct broker *b)
{
    map_init_keyed(&b->rules, b->seed + 21, key_of);
}

void rules_fini(struct broker *b)
{
    CHECK(b->rules.count == 0);
    map_fini(&b->rules);
}

/* A field that is missing here would be shared by queues that differ in it. */
static void put_fields(struct writer *w, const struct queue_rules *r)
{
    writer_u64(w, (uint64_t)r->message_ttl_ms);
    writer_u64(w, (uint64_t)r->expires_ms);
    writer_u64(w, (uint64_t)r->max_length);
    writer_u64(w, (uint64_t)r->max_length_bytes);
    writer_u64(w, (uint64_t)r->delivery_limit);
    writer_u64(w, (uint64_t)r->consumer_timeout_ms);
    writer_u64(w, (uint64_t)r->max_age_ms);
    writer_u64(w, (uint64_t)r->segment_bytes);
    writer_u64(w, (uint64_t)r->partitions);
    writer_u64(w, (uint64_t)r->min_lag_ms);
    writer_u64(w, (uint64_t)r->tombstone_ms);
    writer_u8(w, (uint8_t)r->cleanup);
    writer_u64(w, (uint64_t)r->cache_size);
    writer_u64(w, (uint64_t)r->cache_ttl_ms);
    writer_u64(w, (uint64_t)r->retry_min_ms);
    writer_u64(w, (uint64_t)r->retry_max_ms);
    writer_u64(w, (uint64_t)r->retry_multiplier);
    writer_u8(w, (uint8_t)r->retry_type);
    writer_u8(w, r->has_dedup);
    writer_u8(w, r->dedup);
    writer_u8(w, r->has_length_kept);
    writer_u8(w, r->length_kept);
    writer_u8(w, r->has_dlx);
    writer_u8(w, r->has_dlk);
    writer_u8(w, r->single_active);
    writer_u8(w, r->has_strategy);
    writer_u8(w, r->at_least_once);
    writer_u8(w, r->max_priority);
    writer_u8(w, (uint8_t)r->overflow);
    writer_u8(w, (uint8_t)r->type);
    writer_u64(w, r->dlx.len);
    writer_u64(w, r->dlk.len);
}

const struct queue_rules *rules_share(struct broker *b, const struct queue_rules *rules)
{
    size_t max = 256 + rules->dlx.len + rules->dlk.len + rules->dedup_header.len;
    struct shared_rules *mine = mem_alloc(sizeof *mine + max);
    if (!mine)
        return NULL;
    struct writer w = writer_of(mine->key, max);
    put_fields(&w, rules);
    size_t names = w.len;
    writer_slice_put(&w, rules->dlx);
    writer_slice_put(&w, rules->dlk);
    writer_slice_put(&w, rules->dedup_header);
    CHECK(writer_ok(&w));
    struct shared_rules *shared = map_get(&b->rules, writer_slice(&w));
    if (shared) {
        mem_free(mine);
        shared->refs++;
        return &shared->rules;
    }
    mine->rules = *rules;
    mine->refs = 1;
    mine->key_len = (uint32_t)w.len;
    mine->rules.dlx = slice_of(mine->key + names, rules->dlx.len);
    mine->rules.dlk = slice_of(mine->key + names + rules->dlx.len, rules->dlk.len);
    mine->rules.dedup_header = slice_of(mine->key + names + rules->dlx.len + rules->dlk.len, rules->dedup_header.len);
    if (!map_put(&b->rules, key_of(mine), mine)) {
        mem_free(mine);
        return NULL;
    }
    return &mine->rules;
}

void rules_drop(struct broker *b, const struct queue_rules **rules)
{
    struct shared_rules *shared = (struct shared_rules *)(uintptr_t)*rules;
    *rules = NULL;
    if (!shared || --shared->refs)
        return;
    map_take(&b->rules, key_of(shared));
    mem_free(shared);
}
