/* SUBSCRIBE and UNSUBSCRIBE: one command for each filter, one packet back when all are answered and durable.
 *
 * A packet is a job with an item for each filter; jobs are answered in the order in which they came, and so are the commands, so an answer
 * is the next one of the first job that still waits for some. A subscription gets a new handle each time: when the core's answer
 * has come, everything that carries the old handle has been seen, and the old entry can go. What is retained is asked for when the
 * acknowledgement has its place in front of it.
 *
 * A client with many subscriptions has them by their leads as well: the words of a pattern before its first wildcard, all of them when it
 * has none. What matches a key has one of the beginnings of the key as its lead, so a message costs a look for each of its words.
 *
 * A filter that is none, or that is not to be had, costs the core nothing. Thread: the loop's. */
#include "base/check.h"
#include "base/mem.h"
#include "proto/mqtt/mqtt_int.h"

#define SUBS_FIRST 4u
#define LEADS_FROM 64u /* slots; with fewer, a walk over all is as fast and takes no memory */
#define SLOT_BITS 20
#define SLOT_MASK ((1u << SLOT_BITS) - 1)

/* ---- subscriptions ---- */

#define HASH_SEED 2166136261u

static uint32_t hash_add(uint32_t hash, uint8_t byte)
{
    return (hash ^ byte) * 16777619u;
}

static uint32_t hash_of(struct slice pattern, struct slice group)
{
    uint32_t hash = HASH_SEED;
    for (size_t i = 0; i < pattern.len; i++)
        hash = hash_add(hash, pattern.ptr[i]);
    for (size_t i = 0; i < group.len; i++)
        hash = hash_add(hash, group.ptr[i]) + 1;
    return hash;
}

static uint32_t slot_of(uint32_t handle)
{
    return (handle - MQTT_HANDLE_FIRST) & SLOT_MASK;
}

static struct mqtt_subscribed *sub_at(const struct mqtt *m, uint32_t handle)
{
    uint32_t slot = slot_of(handle);
    struct mqtt_subscribed *sub = slot < m->subs_room ? m->subs[slot] : NULL;
    return sub && sub->handle == handle ? sub : NULL;
}

static struct slice group_of(const struct mqtt_subscribed *sub)
{
    return slice_of(sub->text + sub->pattern_len, sub->group_len);
}

/* There are a power of two of them. */
static struct mqtt_subscribed **head_of(const struct mqtt *m, uint32_t hash)
{
    return &m->sub_heads[(hash ^ hash >> 16) & (m->subs_room - 1)];
}

/* ---- leads ---- */

/* 1 + the slot of the first of each bucket, and behind these, by slot, 1 + the next one's; 0: none. NULL: there are few. */
static uint32_t *leads_of(const struct mqtt *m)
{
    return m->subs_room >= LEADS_FROM ? (uint32_t *)(m->subs + 2 * (size_t)m->subs_room) : NULL;
}

static uint32_t *lead_head(const struct mqtt *m, uint32_t hash)
{
    return &leads_of(m)[(hash ^ hash >> 16) & (m->subs_room - 1)];
}

static uint32_t *lead_next(const struct mqtt *m, uint32_t slot)
{
    return &leads_of(m)[m->subs_room + slot];
}

static size_t lead_len(struct slice pattern)
{
    for (size_t i = 0; i < pattern.len; i++)
        if (pattern.ptr[i] == '*' || pattern.ptr[i] == '#')
            return i ? i - 1 : 0;
    return pattern.len;
}

static uint32_t lead_hash(struct slice pattern)
{
    return hash_of(slice_of(pattern.ptr, lead_len(pattern)), (struct slice){0});
}

static void lead_link(struct mqtt *m, const struct mqtt_subscribed *sub)
{
    uint32_t slot = slot_of(sub->handle);
    if (!leads_of(m) || sub->group_len)
        return;
    uint32_t *head = lead_head(m, lead_hash(mqtt_sub_pattern(sub)));
    *lead_next(m, slot) = *head;
    *head = slot + 1;
}

static void lead_unlink(struct mqtt *m, const struct mqtt_subscribed *sub)
{
    uint32_t slot = slot_of(sub->handle);
    if (!leads_of(m) || sub->group_len)
        return;
    uint32_t *at = lead_head(m, lead_hash(mqtt_sub_pattern(sub)));
    while (*at != slot + 1)
        at = lead_next(m, *at - 1);
    *at = *lead_next(m, slot);
}

static bool may_match(const struct mqtt_subscribed *sub, struct slice key, bool queued)
{
    return sub && !sub->pending && !sub->group_len && ((sub->options & MQTT_OPT_QOS) != 0) == queued &&
           mqtt_pattern_matches(mqtt_sub_pattern(sub), key);
}

/* Those whose lead is the first len bytes of the key. */
static void match_led(const struct mqtt *m, struct slice key, bool queued, size_t len, uint32_t hash,
                      void (*found)(void *arg, const struct mqtt_subscribed *sub), void *arg)
{
    for (uint32_t at = *lead_head(m, hash); at; at = *lead_next(m, at - 1)) {
        const struct mqtt_subscribed *sub = m->subs[at - 1];
        if (may_match(sub, key, queued) && lead_len(mqtt_sub_pattern(sub)) == len)
            found(arg, sub);
    }
}

void mqtt_subs_match(const struct mqtt *m, struct slice key, bool queued,
                     void (*found)(void *arg, const struct mqtt_subscribed *sub), void *arg)
{
    for (uint32_t i = 0; !leads_of(m) && i < m->subs_room; i++)
        if (may_match(m->subs[i], key, queued))
            found(arg, m->subs[i]);
    if (!leads_of(m))
        return;
    uint32_t hash = HASH_SEED;
    for (size_t i = 0; i < key.len; i++) {
        if (i == 0 || key.ptr[i] == '.')
            match_led(m, key, queued, i, hash, found, arg);
        hash = hash_add(hash, key.ptr[i]);
    }
    match_led(m, key, queued, key.len, hash, found, arg);
}

/* ---- by name ---- */

/* The one that the core has, or that it has been asked for. */
static struct mqtt_subscribed *sub_named(const struct mqtt *m, const struct mqtt_subscribed *like, bool pending)
{
    struct mqtt_subscribed *sub = m->subs_room ? *head_of(m, like->hash) : NULL;
    for (; sub; sub = sub->chain)
        if (sub->hash == like->hash && sub->pending == pending &&
            slice_equal(mqtt_sub_pattern(sub), mqtt_sub_pattern(like)) && slice_equal(group_of(sub), group_of(like)))
            break;
    return sub;
}

/* What is told to a subscription that is being made anew, before the core's answer is here, is told to what it was: nothing is lost by
 * that (MQTT 5.0, 3.8.4-4). */
const struct mqtt_subscribed *mqtt_sub_of(const struct mqtt *m, uint32_t handle)
{
    const struct mqtt_subscribed *sub = sub_at(m, handle);
    return sub && sub->pending ? sub_named(m, sub, false) : sub;
}

const struct mqtt_subscribed *mqtt_sub_shared(const struct mqtt *m, struct slice share)
{
    const uint8_t *slash = share.len ? memchr(share.ptr, '/', share.len) : NULL;
    if (!slash || !m->subs_room)
        return NULL;
    struct slice group = slice_of(share.ptr, (size_t)(slash - share.ptr));
    struct slice pattern = slice_of(slash + 1, share.len - group.len - 1);
    uint32_t hash = hash_of(pattern, group);
    const struct mqtt_subscribed *sub = *head_of(m, hash);
    while (sub && (sub->pending || sub->hash != hash || !slice_equal(mqtt_sub_pattern(sub), pattern) ||
                   !slice_equal(group_of(sub), group)))
        sub = sub->chain;
    return sub;
}

static struct mqtt_subscribed *sub_make(struct slice pattern, struct slice group, uint8_t options, uint32_t identifier)
{
    struct mqtt_subscribed *sub = mem_alloc_as(MEM_CONNECTIONS, sizeof *sub + pattern.len + group.len);
    if (!sub)
        return NULL;
    *sub = (struct mqtt_subscribed){.identifier = identifier,
                                    .hash = hash_of(pattern, group),
                                    .options = options,
                                    .pattern_len = (uint8_t)pattern.len,
                                    .group_len = (uint16_t)group.len};
    if (pattern.len)
        memcpy(sub->text, pattern.ptr, pattern.len);
    if (group.len)
        memcpy(sub->text + pattern.len, group.ptr, group.len);
    return sub;
}

static void sub_link(struct mqtt *m, struct mqtt_subscribed *sub)
{
    struct mqtt_subscribed **head = head_of(m, sub->hash);
    sub->chain = *head;
    *head = sub;
    lead_link(m, sub);
}

static bool slots_grow(struct mqtt *m, uint32_t least)
{
    uint32_t room = m->subs_room ? m->subs_room : SUBS_FIRST / 2;
    while (room <= least)
        room *= 2;
    size_t pointers =
        2 * (size_t)room + (room >= LEADS_FROM ? 2 * (size_t)room * sizeof(uint32_t) / sizeof(void *) : 0);
    struct mqtt_subscribed **grown = mem_zalloc_as(MEM_CONNECTIONS, pointers * sizeof *grown);
    if (!grown)
        return false;
    if (m->subs_room)
        memcpy(grown, m->subs, m->subs_room * sizeof *grown);
    mem_free_as(MEM_CONNECTIONS, m->subs);
    m->subs = grown;
    m->sub_heads = grown + room;
    uint32_t before = m->subs_room;
    m->subs_room = room;
    for (uint32_t i = 0; i < before; i++)
        if (grown[i])
            sub_link(m, grown[i]);
    return true;
}

/* Into a slot that is free. */
static void sub_put(struct mqtt *m, struct mqtt_subscribed *sub, uint32_t slot)
{
    m->subs[slot] = sub;
    m->subs_count++;
    sub_link(m, sub);
}

/* Puts it into a free slot and gives it a handle. */
static bool sub_place(struct mqtt *m, struct mqtt_subscribed *sub)
{
    uint32_t slot = m->subs_taken;
    while (slot < m->subs_room && m->subs[slot])
        slot++;
    m->subs_taken = slot;
    if (slot >= m->subs_room && !slots_grow(m, slot))
        return false;
    uint32_t age = 1u + m->handle_age++ % 0x7fe; /* 0: restored */
    sub->handle = MQTT_HANDLE_FIRST + slot + (age << SLOT_BITS);
    sub_put(m, sub, slot);
    return true;
}

static void slots_free(struct mqtt *m)
{
    mem_free_as(MEM_CONNECTIONS, m->subs);
    m->subs = m->sub_heads = NULL;
    m->subs_room = m->subs_count = m->subs_taken = 0;
}

static void sub_remove(struct mqtt *m, struct mqtt_subscribed *sub)
{
    uint32_t slot = slot_of(sub->handle);
    struct mqtt_subscribed **at = head_of(m, sub->hash);
    while (*at != sub)
        at = &(*at)->chain;
    *at = sub->chain;
    lead_unlink(m, sub);
    m->subs[slot] = NULL;
    m->subs_count--;
    if (slot < m->subs_taken)
        m->subs_taken = slot;
    mem_free_as(MEM_CONNECTIONS, sub);
    if (!m->subs_count)
        slots_free(m);
}

bool mqtt_subs_restore(struct mqtt *m, struct reader *fields)
{
    uint32_t count = reader_u32(fields);
    for (uint32_t i = 0; i < count && reader_ok(fields); i++) {
        struct slice pattern = reader_str8(fields), group = reader_str8(fields);
        uint8_t options = reader_u8(fields);
        uint32_t identifier = reader_u32(fields);
        struct mqtt_subscribed *sub = reader_ok(fields) ? sub_make(pattern, group, options, identifier) : NULL;
        if (!sub || (i >= m->subs_room && !slots_grow(m, i))) {
            mem_free_as(MEM_CONNECTIONS, sub);
            return false;
        }
        sub->handle = MQTT_HANDLE_FIRST + i;
        sub_put(m, sub, i);
    }
    return reader_ok(fields);
}

static void job_free(struct mqtt *m, struct mqtt_job *job)
{
    for (uint32_t i = 0; job->unsubscribe && i < job->count; i++)
        mem_free_as(MEM_CONNECTIONS, job->items[i].sub);
    list_remove(&job->link);
    m->jobs_count--;
    mem_free(job);
}

void mqtt_subs_free(struct mqtt *m)
{
    LIST_EACH(&m->jobs, node, after)
    job_free(m, CONTAINER_OF(node, struct mqtt_job, link));
    for (uint32_t i = 0; i < m->subs_room; i++)
        mem_free_as(MEM_CONNECTIONS, m->subs[i]);
    slots_free(m);
}

/* ---- asking ---- */

/* The setting names filters that nobody may have: what test suites want. */
static bool is_refused(const struct mqtt *m, struct slice filter)
{
    for (const char *at = m->options->refused_filters + strspn(m->options->refused_filters, " "); *at;
         at += strspn(at, " ")) {
        size_t len = strcspn(at, " ");
        if (slice_equal(filter, slice_of(at, len)))
            return true;
        at += len;
    }
    return false;
}

/* The filter as a key; 0 or the reason code for this filter. room: MQTT_KEY_MAX bytes. */
static uint8_t pattern_of(const struct mqtt *m, struct slice text, struct mqtt_filter *ret, uint8_t *room)
{
    if (!mqtt_filter_parse(text, ret) || ret->filter.len > MQTT_KEY_MAX || ret->group.len > UINT8_MAX)
        return MQTT_R_filter_invalid;
    if (is_refused(m, text))
        return MQTT_R_unspecified;
    mqtt_topic_swap(room, ret->filter);
    ret->filter = slice_of(room, ret->filter.len);
    return 0;
}

static bool ask_subscribe(struct mqtt *m, struct mqtt_job *job, struct mqtt_item *item,
                          const struct mqtt_filter *filter, uint8_t options, uint32_t identifier)
{
    struct slice none = {0};
    struct mqtt_subscribed *sub = sub_make(filter->filter, filter->group, options, identifier);
    if (sub && m->subs_count >= m->options->subscriptions_max && !sub_named(m, sub, false) &&
        !sub_named(m, sub, true)) {
        mem_free_as(MEM_CONNECTIONS, sub);
        item->reason = MQTT_R_quota;
        return true;
    }
    if (!sub || !sub_place(m, sub)) {
        mem_free_as(MEM_CONNECTIONS, sub);
        mqtt_fail_memory(m);
        return false;
    }
    sub->pending = true;
    item->sub = sub;
    item->asks = true;
    item->reason = options & MQTT_OPT_QOS;
    job->asked++;
    struct ask *ask = ask_new(filter->filter, filter->group, none, none);
    if (ask)
        ask->number = (uint64_t)options << 32 | identifier;
    return mqtt_send_ask(m, CMD_MQTT_SUBSCRIBE, MQTT_ORIGIN(MQTT_ASKED_LIST, job->id), sub->handle, 0, ask);
}

static bool ask_unsubscribe(struct mqtt *m, struct mqtt_job *job, struct mqtt_item *item,
                            const struct mqtt_filter *filter)
{
    struct slice none = {0};
    struct mqtt_subscribed *sub = sub_make(filter->filter, filter->group, 0, 0); /* its name, for the answer */
    if (!sub) {
        mqtt_fail_memory(m);
        return false;
    }
    item->sub = sub;
    item->asks = true;
    job->asked++;
    return mqtt_send_ask(m, CMD_MQTT_UNSUBSCRIBE, MQTT_ORIGIN(MQTT_ASKED_LIST, job->id), 0, 0,
                         ask_new(filter->filter, filter->group, none, none));
}

/* What SUBSCRIBE's options are to the core. Bridges of 3.x want no echo and RETAIN as it was. */
static uint8_t options_of(const struct mqtt *m, uint8_t options)
{
    return m->bridge ? options | MQTT_NO_LOCAL | MQTT_AS_PUBLISHED : options;
}

/* One filter. False: the connection has ended. */
static bool take_filter(struct mqtt *m, struct mqtt_job *job, struct mqtt_item *item, struct slice text,
                        uint8_t options, uint32_t identifier)
{
    struct mqtt_filter filter;
    uint8_t room[MQTT_KEY_MAX];
    if (!mqtt_filter_valid(text)) {
        mqtt_fail(m, MQTT_R_malformed, NULL);
        return false;
    }
    item->reason = pattern_of(m, text, &filter, room);
    if (item->reason)
        return true;
    if (!job->unsubscribe && filter.shared && options & MQTT_OPT_NO_LOCAL) { /* section 3.8.3.1 */
        mqtt_fail(m, MQTT_R_protocol_error, NULL);
        return false;
    }
    if (job->unsubscribe)
        return ask_unsubscribe(m, job, item, &filter);
    return ask_subscribe(m, job, item, &filter, options_of(m, options), identifier);
}

/* Everything is answered: the acknowledgement waits for its turn. */
static void job_answered(struct mqtt *m, struct mqtt_job *job)
{
    struct slice none = {0};
    list_remove(&job->link);
    m->jobs_count--;
    mqtt_owe(m,
             &(struct mqtt_owed){
                 .lsn = job->lsn, .job = job, .type = job->unsubscribe ? MQTT_unsuback : MQTT_suback, .id = job->id});
    for (uint32_t i = 0; mqtt_live(m) && i < job->count;
         i++) { /* the job is there until its turn comes, in a later call */
        const struct mqtt_subscribed *sub = job->items[i].handle ? mqtt_sub_of(m, job->items[i].handle) : NULL;
        if (!sub)
            continue;
        uint64_t number = (uint64_t)(sub->options & MQTT_OPT_QOS) << 32 | sub->handle;
        if (!mqtt_send_ask(m, CMD_MQTT_RETAINED, MQTT_ORIGIN(MQTT_ASKED_RETAINED, 0), number, 0,
                           ask_new(mqtt_sub_pattern(sub), none, none, none)))
            return;
    }
}

void mqtt_on_list(struct mqtt *m, const struct mqtt_list_fields *f, bool unsubscribe)
{
    struct mqtt_job *job = mem_zalloc(sizeof *job + f->count * sizeof job->items[0]);
    if (!job) {
        mqtt_fail_memory(m);
        return;
    }
    struct reader list = reader_of(f->list);
    struct slice filter;
    uint8_t options = 0;
    job->id = f->id;
    job->unsubscribe = unsubscribe;
    job->count = f->count;
    list_insert(&m->jobs, &job->link);
    m->jobs_count++;
    for (uint32_t i = 0; i < job->count && mqtt_filter_next(&list, &filter, unsubscribe ? NULL : &options); i++) {
        if (job->asked >= m->options->subscriptions_max)
            job->items[i].reason = unsubscribe ? MQTT_R_implementation : MQTT_R_quota;
        else if (!take_filter(m, job, &job->items[i], filter, options, f->props.subscription_id))
            return;
    }
    if (!job->asked && m->jobs_count == 1)
        job_answered(m, job);
    if (m->jobs_count > MQTT_UNANSWERED_MAX)
        mqtt_pause(m, MQTT_PAUSE_OWED);
}

/* ---- answers ---- */

static void subscribed(struct mqtt *m, struct mqtt_item *item, enum error_code code, bool was_there)
{
    struct mqtt_subscribed *sub = item->sub, *old = sub_named(m, sub, false);
    item->sub = NULL;
    if (code != ERR_NONE) {
        uint8_t reason = (uint8_t)error_row(code)->mqtt;
        item->reason = mqtt_reason_fits(MQTT_suback, reason) ? reason : MQTT_R_filter_invalid;
        sub_remove(m, sub);
        return;
    }
    if (old)
        sub_remove(m, old);
    sub->pending = false;
    uint8_t handling = (sub->options & MQTT_OPT_HANDLING) >> 4;
    if (sub->group_len == 0 && (handling == 0 || (handling == 1 && !was_there)))
        item->handle = sub->handle;
}

static void unsubscribed(struct mqtt *m, struct mqtt_item *item, enum error_code code, bool was_there)
{
    struct mqtt_subscribed *old = sub_named(m, item->sub, false);
    mem_free_as(MEM_CONNECTIONS, item->sub);
    item->sub = NULL;
    if (code != ERR_NONE)
        item->reason = MQTT_R_unspecified;
    else
        item->reason = was_there ? 0 : MQTT_R_no_subscription_existed;
    if (old && code == ERR_NONE)
        sub_remove(m, old);
}

void mqtt_list_answer(struct mqtt *m, const struct effect *e)
{
    struct mqtt_job *job = LIST_FIRST(&m->jobs, struct mqtt_job, link);
    CHECK(job && job->answered < job->asked);
    while (!job->items[job->at].asks)
        job->at++;
    struct mqtt_item *item = &job->items[job->at++];
    enum error_code code = e->answer ? e->answer->code : ERR_NONE;
    bool was_there = e->answer && e->answer->number;
    if (e->lsn > job->lsn)
        job->lsn = e->lsn;
    job->answered++;
    if (job->unsubscribe)
        unsubscribed(m, item, code, was_there);
    else
        subscribed(m, item, code, was_there);
    while (job && job->answered == job->asked && mqtt_live(m)) { /* those behind may have asked nothing */
        job_answered(m, job);
        job = LIST_FIRST(&m->jobs, struct mqtt_job, link);
    }
}

void mqtt_job_done(struct mqtt *m, struct mqtt_job *job)
{
    struct outq *out = &m->session.engine.out;
    bool with_reasons = !job->unsubscribe || m->version == MQTT_5;
    size_t len = 2 + (m->version == MQTT_5) + (with_reasons ? job->count : 0);
    uint8_t head[MQTT_HEAD_MAX + 3];
    struct writer w = writer_of(head, sizeof head);
    writer_u8(&w, (uint8_t)((job->unsubscribe ? MQTT_unsuback : MQTT_suback) << 4));
    mqtt_varint_put(&w, (uint32_t)len);
    writer_u16(&w, job->id);
    if (m->version == MQTT_5)
        writer_u8(&w, 0);
    outq_put(out, head, w.len);
    for (uint32_t i = 0; with_reasons && i < job->count; i++) {
        uint8_t reason = job->items[i].reason;
        if (m->version != MQTT_5 && reason > 2)
            reason = MQTT_R_unspecified; /* 3.1.1 knows 0x80 only */
        outq_put(out, &reason, 1);
    }
    mqtt_count(&m->options->totals->packets_out, 1);
    mqtt_count(&m->options->totals->bytes_out, w.len + (with_reasons ? job->count : 0));
    engine_dirty(&m->session.engine);
    mem_free(job);
}
