/* What members of a share group do, and what they may be given; see share_chain.h.
 *
 * What must hold, whatever happened:
 *   H1  a record is with one member at a time, until its lock is over, it was given back, or who had it has gone;
 *   H2  what was accepted or rejected, and answered, is never given again; nor is a marker, nor what was cut away;
 *   H3  each delivery is counted: one more than the broker remembers, and no more than may be. Given back and answered is remembered;
 *       a death forgets at most the last delivery, of who had it then;
 *   H4  a member's word about what it has is taken;
 *   H5  in the end every record has been given to somebody.
 */
#include "share_chain.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "kafka_chain_int.h"

#define GROUP slice_str("share")
#define LOCK_MS 15000
#define LOCK_NS (LOCK_MS * NS_PER_MS)
#define BEAT_NS (5 * NS_PER_S)
#define DELIVERIES_MAX 5u
#define JUMPS_MAX 16u /* of a chain: transactions have 900 s */
#define RUN_MAX 12u   /* records of a word */
#define WRONG(l, ...) model_fault((l)->w->model, __VA_ARGS__)

enum share_state { SHARE_FREE, SHARE_HELD, SHARE_DONE };
enum word { WORD_ACCEPT = 1, WORD_RELEASE, WORD_REJECT };

struct words { /* of a member, about what it has */
    unsigned part, count;
    uint64_t first;
    int8_t types[RUN_MAX];
};

static struct slice member_name(const struct share_life *l, const struct share_member *m)
{
    return m == &l->members[0] ? slice_str("one") : slice_str("two");
}

static mono_t now(const struct share_life *l)
{
    return l->w->os->now_mono(l->w->os);
}

static bool excused(const struct share_life *l)
{
    const struct world *w = l->w;
    return w->dead || w->may_fail || w->reads_fail || os_sim_is_cut(w->disk) || w->model->wrong[0];
}

/* ---- what is known of records ---- */

/* Nobody has it any more, and the broker remembers its last delivery, or has forgotten it (low). */
static void free_record(struct share_record *r, unsigned low, unsigned high)
{
    r->state = SHARE_FREE;
    r->low = (uint8_t)low;
    r->high = (uint8_t)high;
    r->maybe_done = r->maybe_done || high >= DELIVERIES_MAX;
}

#define EACH_RECORD(l, r)                                                                                              \
    for (struct share_record *r = &(l)->chain->records[0][0], *r##_end = r + KAFKA_PARTS * KAFKA_OFFSETS;              \
         r != r##_end; r++)

/* What this member has is given back: its connection or its session ends. What fetches have acquired that it has not heard of, too. */
static void give_back(struct share_life *l, struct share_member *m)
{
    uint8_t who = (uint8_t)(m - l->members);
    EACH_RECORD(l, r)
    {
        if (r->state == SHARE_HELD && (r->member == who || now(l) - r->after >= LOCK_NS))
            free_record(r, r->high, r->high);
        if (r->state == SHARE_FREE && m->flying && r->high < DELIVERIES_MAX)
            free_record(r, r->low, r->high + m->flying < DELIVERIES_MAX ? r->high + m->flying : DELIVERIES_MAX);
    }
    m->flying = 0;
}

static void lose(struct share_life *l, struct share_member *m)
{
    if (!m->connected)
        return;
    guest_end(&m->guest);
    m->connected = false;
    give_back(l, m);
}

/* A death: what is not known to be durable may be forgotten. */
static void forget(struct share_life *l)
{
    EACH_RECORD(l, r)
    {
        if (r->state != SHARE_DONE)
            free_record(r, r->sure, r->high);
    }
}

/* No answer, which is excused when the world has ended, or a disk gives nothing: the member begins anew. */
static bool refused(struct share_life *l, struct share_member *m, const char *what, int error)
{
    if (!excused(l) && error)
        WRONG(l, "%s of a share group is answered with error %d", what, error);
    else if (!excused(l) && !m->guest.engine)
        WRONG(l, "a member of a share group lost its connection in %s", what);
    lose(l, m);
    return false;
}

/* ---- members ---- */

static bool beat(struct share_life *l, struct share_member *m)
{
    struct slice topic = slice_str(KAFKA_CHAIN_TOPIC);
    struct guest *g = &m->guest;
    for (unsigned i = 0; i < 2; i++) {
        const struct kafka_share_group_heartbeat_response *said =
            ANSWER(g, share_group_heartbeat, 1, .group_id = GROUP, .member_id = member_name(l, m),
                   .member_epoch = m->epoch, .subscribed_topic_names = {&topic, 1});
        if (!said || (said->error_code && !m->epoch))
            return refused(l, m, "ShareGroupHeartbeat", said ? said->error_code : 0);
        m->beaten = now(l);
        if (!said->error_code) {
            m->epoch = said->member_epoch;
            return true;
        }
        m->epoch = 0; /* it was not heard of for so long that it has gone */
    }
    return true;
}

/* Connected, and a member. */
static bool ready(struct share_life *l, struct share_member *m)
{
    if (!m->connected) {
        *m = (struct share_member){.connected = true};
        if (!guest_connect(&m->guest, l->w))
            return refused(l, m, "its connection", 0);
    }
    return (m->epoch && now(l) - m->beaten < BEAT_NS) || beat(l, m);
}

/* ---- fetches ---- */

static void ask(struct share_life *l, struct share_member *m, int32_t wait_ms, int32_t most)
{
    struct kafka_share_fetch_request_partition parts[KAFKA_PARTS] = {{.partition_index = 0}, {.partition_index = 1}};
    struct kafka_share_fetch_request_topic topic = {.topic_id = l->chain->topic, .partitions = {parts, KAFKA_PARTS}};
    guest_ask(&m->guest, KAFKA_API_share_fetch, 1,
              &(struct kafka_share_fetch_request){.group_id = GROUP,
                                                  .member_id = member_name(l, m),
                                                  .share_session_epoch = m->session,
                                                  .max_wait_ms = wait_ms,
                                                  .min_bytes = 1,
                                                  .max_bytes = 100000,
                                                  .max_records = most,
                                                  .batch_size = most,
                                                  .topics = {&topic, m->session ? 0 : 1}});
    m->flying++;
}

/* A record that is acquired, between the two times. */
static void acquire(struct share_life *l, struct share_member *m, unsigned part, uint64_t offset, unsigned deliveries,
                    mono_t asked)
{
    unsigned long long at = offset;
    if (offset >= KAFKA_OFFSETS) {
        WRONG(l, "offset %llu of partition %u is acquired, which is far from its end", at, part);
        return;
    }
    struct share_record *r = &l->chain->records[part][offset];
    if (r->state == SHARE_HELD && now(l) - r->after >= LOCK_NS) { /* its lock may be over */
        l->chain->expired++;
        free_record(r, r->high, r->high);
    }
    if (l->w->talk > 1)
        printf("    share: %.*s has %llu of partition %u, delivery %u\n", SLICE_ARG(member_name(l, m)), at, part,
               deliveries);
    if (r->state == SHARE_HELD)
        WRONG(l, "offset %llu of partition %u is acquired by a second member", at, part); /* H1 */
    else if (r->state == SHARE_DONE || kafka_chain_marker(l->kafka, part, offset) || offset < l->kafka->start[part])
        WRONG(l, "offset %llu of partition %u is acquired, which is %s", at, part,
              r->state == SHARE_DONE ? "done with" : "no record"); /* H2 */
    else if (deliveries < r->low + 1u || deliveries > r->high + 1u || deliveries > DELIVERIES_MAX)
        WRONG(l, "offset %llu of partition %u is delivery %u, behind %u to %u", at, part, deliveries, r->low,
              r->high); /* H3 */
    l->chain->acquired++;
    l->chain->again += r->given;
    *r = (struct share_record){.low = (uint8_t)(deliveries - 1),
                               .high = (uint8_t)deliveries,
                               .sure = (uint8_t)(deliveries - 1),
                               .state = SHARE_HELD,
                               .member = (uint8_t)(m - l->members),
                               .given = true,
                               .after = asked,
                               .by = now(l)};
}

/* How many records came; -1: none could. */
static int take(struct share_life *l, struct share_member *m, mono_t asked)
{
    struct guest *g = &m->guest;
    const struct kafka_share_fetch_response *said = guest_answer(g);
    int count = 0, error = said ? said->error_code : 0;
    for (int32_t t = 0; said && !error && t < said->responses.count; t++)
        for (int32_t p = 0; p < said->responses.at[t].partitions.count; p++) {
            const struct kafka_share_fetch_response_partition *part = &said->responses.at[t].partitions.at[p];
            error = part->error_code ? part->error_code : error;
            for (int32_t i = 0; i < part->acquired_records.count; i++) {
                const struct kafka_share_fetch_response_acquired_record *run = &part->acquired_records.at[i];
                for (int64_t at = run->first_offset; at <= run->last_offset && !l->w->model->wrong[0]; at++, count++)
                    acquire(l, m, (unsigned)part->partition_index, (uint64_t)at, (unsigned)run->delivery_count, asked);
            }
        }
    if (!said || error) {
        (void)refused(l, m, "ShareFetch", error);
        return -1;
    }
    m->flying--;
    m->session++;
    return count;
}

/* Both at once now and then: what one has, or waits for, is not the other's. */
static void fetch(struct share_life *l, struct share_member *m)
{
    struct share_member *other = &l->members[m == &l->members[0]];
    bool both = world_pick(l->w, 3) == 0 && ready(l, other) && ready(l, m);
    mono_t asked = now(l);
    ask(l, m, (int32_t)(world_pick(l->w, 2) * world_pick(l->w, 100)), (int32_t)(1 + world_pick(l->w, 24)));
    if (both) {
        guest_turn(&m->guest);
        ask(l, other, (int32_t)world_pick(l->w, 100), (int32_t)(1 + world_pick(l->w, 24)));
        guest_turn(&other->guest);
    }
    (void)take(l, m, asked);
    if (both)
        (void)take(l, other, asked);
}

/* ---- words about what a member has ---- */

static bool has(const struct share_life *l, const struct share_member *m, unsigned part, uint64_t offset)
{
    const struct share_record *r = offset < KAFKA_OFFSETS ? &l->chain->records[part][offset] : NULL;
    return r && r->state == SHARE_HELD && &l->members[r->member] == m && now(l) - r->after < LOCK_NS - NS_PER_S;
}

/* False: it has nothing. */
static bool choose(struct share_life *l, struct share_member *m, struct words *ret)
{
    static const int8_t types[] = {WORD_ACCEPT, WORD_ACCEPT, WORD_ACCEPT, WORD_RELEASE, WORD_RELEASE, WORD_REJECT};
    *ret = (struct words){.part = world_pick(l->w, KAFKA_PARTS)};
    uint64_t end = l->kafka->end[ret->part] + 8u, from = world_pick(l->w, (unsigned)end), n = 0;
    while (n < end && !has(l, m, ret->part, (from + n) % end))
        n++;
    if (n == end)
        return false;
    ret->first = (from + n) % end;
    unsigned most = 1 + world_pick(l->w, RUN_MAX);
    bool one = world_pick(l->w, 2);
    while (ret->count < most && has(l, m, ret->part, ret->first + ret->count)) {
        int8_t type = types[world_pick(l->w, ARRAY_LEN(types))];
        ret->types[ret->count] = one && ret->count ? ret->types[0] : type;
        ret->count++;
    }
    return true;
}

/* answered: it is durable. */
static void spoken(struct share_life *l, const struct words *words, bool answered)
{
    for (unsigned i = 0; i < words->count; i++) {
        struct share_record *r = &l->chain->records[words->part][words->first + i];
        bool back = words->types[i] == WORD_RELEASE;
        bool again = back && r->high < DELIVERIES_MAX;
        if (l->w->talk > 1)
            printf("    share: word %d about %llu of partition %u%s\n", words->types[i],
                   (unsigned long long)words->first + i, words->part, answered ? "" : ", without an answer");
        l->chain->accepted += answered && !back;
        if (answered && again) {
            free_record(r, r->high, r->high);
            r->sure = r->high;
        } else if (answered)
            r->state = SHARE_DONE;
        else
            r->maybe_done = r->maybe_done || !again;
    }
}

static bool say(struct share_life *l, struct share_member *m, struct words *words)
{
    struct guest *g = &m->guest;
    struct kafka_share_acknowledge_request_acknowledgement_batch batch = {
        (int64_t)words->first, (int64_t)(words->first + words->count - 1), {words->types, (int32_t)words->count}};
    struct kafka_share_acknowledge_request_partition part = {.partition_index = (int32_t)words->part,
                                                             .acknowledgement_batches = {&batch, 1}};
    struct kafka_share_acknowledge_request_topic topic = {.topic_id = l->chain->topic, .partitions = {&part, 1}};
    const struct kafka_share_acknowledge_response *said =
        ANSWER(g, share_acknowledge, 1, .group_id = GROUP, .member_id = member_name(l, m),
               .share_session_epoch = m->session, .topics = {&topic, 1});
    bool whole = said && !said->error_code && said->responses.count == 1 && said->responses.at[0].partitions.count == 1;
    int error = whole ? said->responses.at[0].partitions.at[0].error_code : said ? said->error_code : 0;
    spoken(l, words, whole && !error);
    if (!whole || error)
        return refused(l, m, "ShareAcknowledge", error); /* H4 */
    m->session++;
    return true;
}

static void speak(struct share_life *l, struct share_member *m)
{
    struct words words;
    if (m->session && choose(l, m, &words))
        (void)say(l, m, &words);
}

/* The last request of a session: what it has is given back before the answer. */
static void close_session(struct share_life *l, struct share_member *m)
{
    struct guest *g = &m->guest;
    if (!m->session)
        return;
    const struct kafka_share_acknowledge_response *said =
        ANSWER(g, share_acknowledge, 1, .group_id = GROUP, .member_id = member_name(l, m), .share_session_epoch = -1);
    if (!said || said->error_code) {
        (void)refused(l, m, "the end of a share session", said ? said->error_code : 0);
        return;
    }
    m->session = 0;
    give_back(l, m);
}

static void let_locks_end(struct share_life *l)
{
    if (l->chain->jumps >= JUMPS_MAX)
        return;
    l->chain->jumps++;
    os_sim_clock_advance(l->w->disk, LOCK_NS + NS_PER_S);
    world_turns(l->w, 4);
}

/* ---- a life ---- */

void share_chain_begin(struct share_chain *c, struct share_life *l, struct kafka_chain *k, struct world *w)
{
    *l = (struct share_life){.chain = c, .kafka = k, .w = w};
}

static void act(struct share_life *l, struct share_member *m)
{
    unsigned draw = world_pick(l->w, 24);
    if (draw == 0)
        let_locks_end(l);
    else if (draw == 1)
        lose(l, m);
    if (!ready(l, m))
        return;
    if (draw == 2)
        close_session(l, m);
    else if (draw < 12)
        fetch(l, m);
    else
        speak(l, m);
}

void share_chain_op(struct share_life *l)
{
    for (unsigned n = 1 + world_pick(l->w, 8); n && !l->w->dead && !l->w->model->wrong[0]; n--)
        act(l, &l->members[world_pick(l->w, SHARE_MEMBERS)]);
}

void share_chain_end(struct share_life *l)
{
    if (!l->chain)
        return;
    for (unsigned i = 0; i < SHARE_MEMBERS; i++)
        lose(l, &l->members[i]);
    forget(l);
    *l = (struct share_life){0};
}

static void accept_all(struct share_life *l, struct share_member *m)
{
    for (unsigned part = 0; part < KAFKA_PARTS; part++)
        for (uint64_t at = 0; at < KAFKA_OFFSETS; at++) {
            struct words words = {.part = part, .first = at};
            while (words.count < RUN_MAX && has(l, m, part, at + words.count))
                words.types[words.count++] = WORD_ACCEPT;
            if (words.count && !say(l, m, &words))
                return;
            at += words.count ? words.count - 1 : 0;
        }
}

void share_chain_drained(struct share_life *l)
{
    struct share_member *m = &l->members[0];
    for (unsigned empty = 0; empty < 10 && ready(l, m);) {
        mono_t asked = now(l);
        ask(l, m, 20, 500);
        int got = take(l, m, asked);
        if (got < 0 || l->w->model->wrong[0])
            return;
        accept_all(l, m);
        empty = got ? 0 : empty + 1;
    }
    if (!m->connected || l->w->dead)
        return;
    for (unsigned part = 0; part < KAFKA_PARTS; part++)
        for (uint32_t at = l->kafka->start[part]; at < l->kafka->end[part]; at++) {
            const struct share_record *r = &l->chain->records[part][at];
            l->chain->checked++;
            if (!r->given && !r->maybe_done && !kafka_chain_marker(l->kafka, part, at))
                WRONG(l, "offset %u of partition %u was given to nobody", at, part); /* H5 */
        }
}

void share_chain_furnish(struct share_chain *c, struct world *w)
{
    struct guest guest, *g = &guest;
    struct kafka_incremental_alter_configs_request_config configs[] = {
        {.name = slice_str("share.auto.offset.reset"), .value = slice_str("earliest")},
        {.name = slice_str("share.record.lock.duration.ms"), .value = slice_str("15000")},
        {.name = slice_str("share.delivery.count.limit"), .value = slice_str("5")}};
    struct kafka_incremental_alter_configs_request_resource group = {
        .resource_type = 32, .resource_name = GROUP, .configs = {configs, ARRAY_LEN(configs)}};
    struct kafka_metadata_request_topic name = {.name = slice_str(KAFKA_CHAIN_TOPIC)};
    *c = (struct share_chain){0};
    bool good = guest_connect(g, w);
    const struct kafka_incremental_alter_configs_response *set =
        good ? ANSWER(g, incremental_alter_configs, 1, .resources = {&group, 1}) : NULL;
    good = set && set->responses.count == 1 && !set->responses.at[0].error_code;
    const struct kafka_metadata_response *said = good ? ANSWER(g, metadata, 12, .topics = {&name, 1}) : NULL;
    good = said && said->topics.count == 1 && !said->topics.at[0].error_code;
    if (good)
        c->topic = said->topics.at[0].topic_id;
    else
        model_fault(w->model, "the share group is not set up");
    guest_end(g);
}
