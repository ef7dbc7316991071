/* The second script of the Kafka client, see kafka_world.h. */
#include "kafka_world_int.h"

#include <stdio.h>
#include <stdlib.h>

#define TOPIC "read"
#define PACKED "packed"
#define GROUP slice_str("sharers")
#define MEMBER slice_str("member")

/* ---- SCRAM ---- */

/* A user without keys: the broker tells its own part all the same, and refuses the proof. */
static bool play_scram(struct guest *g)
{
    char last[300];
    const struct kafka_sasl_handshake_response *hand =
        ANSWER(g, sasl_handshake, 1, .mechanism = slice_str("SCRAM-SHA-256"));
    if (!hand || hand->error_code)
        return false;
    const struct kafka_sasl_authenticate_response *said =
        ANSWER(g, sasl_authenticate, 2, .auth_bytes = slice_str("n,,n=somebody,r=abcdefgh"));
    if (!said || said->error_code)
        return false;
    const uint8_t *comma = memchr(said->auth_bytes.ptr, ',', said->auth_bytes.len);
    if (!slice_starts(said->auth_bytes, "r=abcdefgh") || !comma) {
        model_fault(g->w->model, "an answer of SCRAM without the client's nonce");
        return false;
    }
    snprintf(last, sizeof last, "c=biws,%.*s,p=%043d=", (int)(comma - said->auth_bytes.ptr),
             (const char *)said->auth_bytes.ptr, 0);
    said = ANSWER(g, sasl_authenticate, 2, .auth_bytes = slice_str(last));
    if (said && !said->error_code)
        model_fault(g->w->model, "a wrong proof logs in");
    return said != NULL;
}

/* ---- fetch sessions ---- */

struct reading {
    int32_t id, epoch;
    int64_t offset; /* of the next record */
};

/* Tells where it is; the answer has what is new. False: lost, or the session is; the client begins again then, but not here. */
static bool go_on(struct guest *g, struct reading *s, int wanted, bool forgets)
{
    int32_t zero = 0;
    int got = 0;
    struct kafka_fetch_request_partition part = {
        .current_leader_epoch = -1, .last_fetched_epoch = -1, .fetch_offset = s->offset, .partition_max_bytes = 100000};
    struct kafka_fetch_request_topic topic = {.topic = slice_str(TOPIC), .partitions = {&part, 1}};
    struct kafka_fetch_request_forgotten_topic gone = {.topic = slice_str(TOPIC), .partitions = {&zero, 1}};
    const struct kafka_fetch_response *said =
        ANSWER(g, fetch, 12, .replica_id = -1, .max_wait_ms = 20, .min_bytes = 1, .max_bytes = 100000,
               .session_id = s->id, .session_epoch = s->epoch, .topics = {&topic, forgets ? 0 : 1},
               .forgotten_topics_data = {&gone, forgets ? 1 : 0}, .rack_id = slice_str(""));
    if (!said || said->error_code)
        return false;
    for (int32_t i = 0; i < said->responses.count; i++)
        for (int32_t n = 0; n < said->responses.at[i].partitions.count; n++) {
            const struct kafka_fetch_response_partition *p = &said->responses.at[i].partitions.at[n];
            if (p->error_code)
                return false;
            got += kafka_read_records(g, p->records, p->high_watermark);
        }
    s->id = said->session_id;
    s->epoch++;
    s->offset += got;
    return got == wanted;
}

static bool play_fetch_session(struct guest *g)
{
    struct reading s = {0};
    struct kafka_uuid uuid;
    if (!kafka_make_topic(g, TOPIC, "producer", &uuid))
        return false;
    kafka_ask_produce(g, TOPIC, 0, 3);
    if (kafka_produced(g) != 0 || !go_on(g, &s, 3, false) || !s.id)
        return false;
    kafka_ask_produce(g, TOPIC, 3, 2);
    return kafka_produced(g) == 3 && go_on(g, &s, 2, false) && go_on(g, &s, 0, false) && go_on(g, &s, 0, true);
}

/* ---- a topic that compresses ---- */

static bool play_packed(struct guest *g)
{
    struct kafka_uuid uuid;
    if (!kafka_make_topic(g, PACKED, "gzip", &uuid))
        return false;
    kafka_ask_produce(g, PACKED, 0, 20);
    return kafka_produced(g) == 0;
}

/* ---- share groups ---- */

static bool beat(struct guest *g, int32_t epoch)
{
    struct slice name = slice_str(KAFKA_TX_TOPIC);
    const struct kafka_share_group_heartbeat_response *said =
        ANSWER(g, share_group_heartbeat, 1, .group_id = GROUP, .member_id = MEMBER, .member_epoch = epoch,
               .subscribed_topic_names = {&name, 1});
    return said && !said->error_code;
}

struct sharing {
    struct kafka_uuid topic;
    int32_t epoch;
    int64_t first, last; /* that the last fetch has acquired */
};

/* How many records the member is given; -1: refused, or lost. */
static int64_t share_fetch(struct guest *g, struct sharing *s, int32_t wait_ms)
{
    struct kafka_share_fetch_request_partition part = {0};
    struct kafka_share_fetch_request_topic topic = {.topic_id = s->topic, .partitions = {&part, 1}};
    const struct kafka_share_fetch_response *said =
        ANSWER(g, share_fetch, 1, .group_id = GROUP, .member_id = MEMBER, .share_session_epoch = s->epoch,
               .max_wait_ms = wait_ms, .min_bytes = 1, .max_bytes = 100000, .max_records = 100, .batch_size = 100,
               .topics = {&topic, 1});
    int64_t count = 0;
    if (!said || said->error_code)
        return -1;
    s->epoch++;
    for (int32_t i = 0; i < said->responses.count; i++)
        for (int32_t n = 0; n < said->responses.at[i].partitions.count; n++) {
            const struct kafka_share_fetch_response_partition *p = &said->responses.at[i].partitions.at[n];
            if (p->error_code)
                return -1;
            for (int32_t k = 0; k < p->acquired_records.count; k++) {
                const struct kafka_share_fetch_response_acquired_record *one = &p->acquired_records.at[k];
                if (one->first_offset <= s->last || one->last_offset < one->first_offset || !p->records.len)
                    model_fault(g->w->model, "records %lld to %lld are acquired after %lld",
                                (long long)one->first_offset, (long long)one->last_offset, (long long)s->last);
                s->first = one->first_offset;
                s->last = one->last_offset;
                count += one->last_offset - one->first_offset + 1;
            }
        }
    return count;
}

/* Accepts what the last fetch has acquired last. */
static bool accept(struct guest *g, struct sharing *s)
{
    int8_t type = 1;
    struct kafka_share_acknowledge_request_acknowledgement_batch batch = {s->first, s->last, {&type, 1}};
    struct kafka_share_acknowledge_request_partition part = {.acknowledgement_batches = {&batch, 1}};
    struct kafka_share_acknowledge_request_topic topic = {.topic_id = s->topic, .partitions = {&part, 1}};
    const struct kafka_share_acknowledge_response *said =
        ANSWER(g, share_acknowledge, 1, .group_id = GROUP, .member_id = MEMBER, .share_session_epoch = s->epoch++,
               .topics = {&topic, 1});
    return said && !said->error_code && said->responses.count == 1 && said->responses.at[0].partitions.count == 1 &&
           !said->responses.at[0].partitions.at[0].error_code;
}

/* The group begins at the end, so its member fetches before there is something; between its records are a transaction's markers. */
static bool play_share(struct guest *g)
{
    struct sharing s = {.last = -1};
    if (!kafka_make_topic(g, KAFKA_TX_TOPIC, "producer", &s.topic) || !beat(g, 0) || share_fetch(g, &s, 0) != 0)
        return false;
    return kafka_play_transaction(g) && share_fetch(g, &s, 500) == 1 && accept(g, &s) && kafka_play_transaction(g) &&
           share_fetch(g, &s, 500) == 1; /* and is gone with it: the group takes it back */
}

/* ---- what administrators ask ---- */

/* Who has keys of SCRAM, and who writes to a partition. */
static bool play_admin(struct guest *g)
{
    struct kafka_describe_user_scram_credentials_request_user user = {.name = slice_str("guest")};
    int32_t zero = 0;
    struct kafka_describe_producers_request_topic topic = {.name = slice_str(KAFKA_TX_TOPIC),
                                                           .partition_indexes = {&zero, 1}};
    const struct kafka_describe_user_scram_credentials_response *keys =
        ANSWER(g, describe_user_scram_credentials, 0, .users = {&user, 1});
    if (!keys || keys->error_code || keys->results.count != 1)
        return false;
    const struct kafka_describe_producers_response *said = ANSWER(g, describe_producers, 0, .topics = {&topic, 1});
    return said && said->topics.count == 1 && said->topics.at[0].partitions.count == 1 &&
           !said->topics.at[0].partitions.at[0].error_code &&
           said->topics.at[0].partitions.at[0].active_producers.count > 0;
}

void kafka_play_readers(struct world *w, bool (*faultless)(const struct world *w))
{
    bool (*const plays[])(struct guest * g) = {play_scram, play_fetch_session, play_packed, play_share, play_admin};
    for (size_t i = 0; i < ARRAY_LEN(plays) && !w->dead && !w->model->wrong[0]; i++) {
        struct guest g;
        bool good = guest_connect(&g, w) && plays[i](&g);
        guest_end(&g);
        if (!good && !w->model->wrong[0] && faultless(w))
            model_fault(w->model, "the Kafka client was not answered well: part %zu of its script", i);
    }
}
