/* What administrators ask of producers, transactions and credentials: who may, what is answered, and what becomes of it. */
#include "core/stream_int.h"
#include "fmt/password.h"
#include "proto/kafka/rig_test.h"

#include <openssl/evp.h>

static void set_tags(struct krig *k, const char *tags)
{
    struct user *guest = user_find(k->core->b, slice_str("guest"));
    assert_true(user_put(k->core->b, guest->name, guest->verifier, slice_str(tags), true));
}

/* ---- transactions ---- */

static int64_t begin_txn(struct krig *k, const char *id)
{
    const struct kafka_init_producer_id_response *said =
        KASK(k, init_producer_id, 4, .transactional_id = slice_str(id), .transaction_timeout_ms = 60000,
             .producer_id = -1, .producer_epoch = -1);
    assert_int_equal(said->error_code, 0);
    return said->producer_id;
}

static const struct kafka_produce_response_partition *produced_in(struct krig *k, int64_t producer, int16_t epoch,
                                                                  int32_t sequence, int32_t partition)
{
    uint8_t bytes[512];
    struct writer w = writer_of(bytes, sizeof bytes);
    struct record_batch head = record_batch_head(0, k->core->wall);
    struct record_batch_writer batch;
    struct slice value = slice_str("value");
    head.producer_id = producer;
    head.producer_epoch = epoch;
    head.base_sequence = sequence;
    head.transactional = true;
    record_batch_begin(&batch, &w, &head);
    assert_true(record_batch_put(&batch, k->core->wall, NULL, &value, NULL, 0));
    krig_put_produce(k, 12, -1, "t", partition, record_batch_finish(&batch, -1));
    krig_settle(k);
    const struct kafka_produce_response_partition *said = krig_take_produced(k);
    assert_non_null(said);
    return said;
}

static int64_t produce_in(struct krig *k, int64_t producer, int16_t epoch, int32_t sequence, int32_t partition)
{
    const struct kafka_produce_response_partition *said = produced_in(k, producer, epoch, sequence, partition);
    return said->error_code ? -said->error_code : said->base_offset;
}

static int64_t last_stable(struct krig *k)
{
    struct kafka_list_offsets_request_partition part = {.timestamp = -1};
    struct kafka_list_offsets_request_topic topic = {.name = slice_str("t"), .partitions = {&part, 1}};
    return KASK(k, list_offsets, 7, .replica_id = -1, .isolation_level = 1, .topics = {&topic, 1})
        ->topics.at[0]
        .partitions.at[0]
        .offset;
}

static const struct kafka_describe_producers_response_partition *producers_of(struct krig *k, const char *name,
                                                                              int32_t partition)
{
    struct kafka_describe_producers_request_topic topic = {.name = slice_str(name),
                                                           .partition_indexes = {&partition, 1}};
    const struct kafka_describe_producers_response *said = KASK(k, describe_producers, 0, .topics = {&topic, 1});
    assert_non_null(said);
    assert_int_equal(said->topics.count, 1);
    assert_int_equal(said->topics.at[0].partitions.count, 1);
    assert_int_equal(said->topics.at[0].partitions.at[0].partition_index, partition);
    return &said->topics.at[0].partitions.at[0];
}

static int16_t mark(struct krig *k, int64_t producer, int16_t epoch, const char *name, int32_t partition, bool commit)
{
    struct kafka_write_txn_markers_request_topic topic = {.name = slice_str(name),
                                                          .partition_indexes = {&partition, 1}};
    struct kafka_write_txn_markers_request_marker one = {
        .producer_id = producer, .producer_epoch = epoch, .transaction_result = commit, .topics = {&topic, 1}};
    const struct kafka_write_txn_markers_response *said = KASK(k, write_txn_markers, 1, .markers = {&one, 1});
    assert_non_null(said);
    assert_int_equal(said->markers.count, 1);
    assert_int_equal(said->markers.at[0].producer_id, producer);
    return said->markers.at[0].topics.at[0].partitions.at[0].error_code;
}

static int16_t add_to(struct krig *k, const char *id, int64_t producer, int32_t partition)
{
    struct kafka_add_partitions_to_txn_request_topic topic = {.name = slice_str("t"), .partitions = {&partition, 1}};
    const struct kafka_add_partitions_to_txn_response *said =
        KASK(k, add_partitions_to_txn, 3, .v3_and_below_transactional_id = slice_str(id),
             .v3_and_below_producer_id = producer, .v3_and_below_topics = {&topic, 1});
    return said->results_by_topic_v3_and_below.at[0].results_by_partition.at[0].partition_error_code;
}

/* A topic that keeps too many aborted transactions: clients abort at once instead of trying for minutes, and say why. */
static void a_topic_full_of_aborted_ones(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    int64_t producer = begin_txn(k, "t");
    struct queue *q = queue_find(vhost_find(k->core->b, slice_str("/")), slice_str("t"));
    k->core->b->options.txns_bytes_max = 1 << 20;
    k->core->check = false;
    allowance_take(&q->stream->txn_aborted, 300000);
    assert_int_equal(add_to(k, "t", producer, 0), KAFKA_ERR_POLICY_VIOLATION);
    const struct kafka_produce_response_partition *said = produced_in(k, producer, 0, 0, 0);
    assert_int_equal(said->error_code, KAFKA_ERR_POLICY_VIOLATION);
    assert_non_null(memmem(said->error_message.ptr, said->error_message.len, "retention", 9));
    allowance_give(&q->stream->txn_aborted, 300000);
    k->core->check = true;
    assert_int_equal(add_to(k, "t", producer, 0), 0);
    said = produced_in(k, producer, 0, 0, 0);
    assert_int_equal(said->error_code, 0);
    assert_int_equal(said->error_message.len, 0);
    krig_free(k);
}

static void a_hanging_transaction_is_found_and_ended(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 2, false);
    int64_t producer = begin_txn(k, "hangs");
    assert_int_equal(produce_in(k, producer, 0, 0, 0), 0);
    assert_int_equal(produce_in(k, producer, 0, 1, 0), 1);
    const struct kafka_describe_producers_response_partition *told = producers_of(k, "t", 0);
    assert_int_equal(told->error_code, 0);
    assert_int_equal(told->active_producers.count, 1);
    assert_int_equal(told->active_producers.at[0].producer_id, producer);
    assert_int_equal(told->active_producers.at[0].producer_epoch, 0);
    assert_int_equal(told->active_producers.at[0].last_sequence, 1);
    assert_int_equal(told->active_producers.at[0].last_timestamp, k->core->wall);
    assert_int_equal(told->active_producers.at[0].current_txn_start_offset, 0);
    assert_int_equal(producers_of(k, "t", 1)->active_producers.count, 0);
    assert_int_equal(last_stable(k), 0);
    assert_int_equal(mark(k, producer, 0, "t", 0, false), 0);
    assert_int_equal(last_stable(k), 3);
    told = producers_of(k, "t", 0);
    assert_int_equal(told->active_producers.at[0].current_txn_start_offset, -1);
    assert_int_equal(told->active_producers.at[0].last_sequence, 1);
    assert_int_equal(produce_in(k, producer, 0, 2, 0), 3); /* the coordinator's transaction goes on */
    assert_int_equal(producers_of(k, "t", 0)->active_producers.at[0].current_txn_start_offset, 3);
    assert_int_equal(mark(k, producer, 0, "t", 0, true), 0);
    assert_int_equal(mark(k, producer, 0, "t", 0, false), 0); /* nothing is open: a marker all the same, as in Kafka */
    assert_int_equal(last_stable(k), 6);
    assert_int_equal(begin_txn(k, "hangs"), producer);
    assert_int_equal(produce_in(k, producer, 1, 0, 0), 7); /* the younger instance has ended the whole */
    assert_int_equal(mark(k, producer, 0, "t", 0, false), KAFKA_ERR_INVALID_PRODUCER_EPOCH);
    assert_int_equal(last_stable(k), 7);
    assert_int_equal(mark(k, producer, 1, "t", 0, false), 0);
    assert_int_equal(last_stable(k), 9);
    krig_free(k);
}

static void a_partition_is_told_of_once(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 2, false);
    int64_t producer = begin_txn(k, "once");
    assert_int_equal(produce_in(k, producer, 0, 0, 0), 0);
    int32_t twice[] = {1, 0, 0}, again[] = {0, 2, 2};
    struct kafka_describe_producers_request_topic topics[] = {{slice_str("t"), {twice, 3}},
                                                              {slice_str("t"), {again, 3}}};
    const struct kafka_describe_producers_response *said = KASK(k, describe_producers, 0, .topics = {topics, 2});
    assert_non_null(said);
    assert_int_equal(said->topics.count, 2);
    static const int16_t errors[] = {0,
                                     0,
                                     KAFKA_ERR_INVALID_REQUEST,
                                     KAFKA_ERR_INVALID_REQUEST,
                                     KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION,
                                     KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION};
    for (int i = 0; i < 6; i++) {
        const struct kafka_describe_producers_response_partition *one = &said->topics.at[i / 3].partitions.at[i % 3];
        assert_int_equal(one->error_code, errors[i]);
        assert_int_equal(one->active_producers.count, i == 1);
    }
    krig_free(k);
}

static void what_is_not_there_and_who_may_not(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 2, false);
    assert_int_equal(producers_of(k, "none", 0)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(producers_of(k, "t", 2)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(producers_of(k, "t", -1)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(mark(k, 5, 0, "none", 0, false), KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(mark(k, 5, 0, "t", 7, false), KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(mark(k, -1, 0, "t", 0, false), KAFKA_ERR_INVALID_REQUEST);
    assert_int_equal(mark(k, 5, -1, "t", 0, false), KAFKA_ERR_INVALID_REQUEST);
    set_tags(k, "monitoring");
    assert_int_equal(mark(k, 5, 0, "t", 0, false), KAFKA_ERR_CLUSTER_AUTHORIZATION_FAILED);
    assert_int_equal(last_stable(k), 0);
    struct user *guest = user_find(k->core->b, slice_str("guest"));
    struct vhost *vhost = vhost_find(k->core->b, slice_str("/"));
    char why[200];
    assert_true(permission_put(k->core->b, guest, vhost, slice_str(".*"), slice_str(".*"), slice_str("^other$"), why,
                               sizeof why));
    assert_int_equal(producers_of(k, "t", 0)->error_code, KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    krig_close(k);
    krig_settle(k);
    k->core->check = false;
    krig_free(k);
}

/* ---- credentials ---- */

#define ITERATIONS 4096

struct credential {
    uint8_t salted[SCRAM_KEY_MAX];
    struct kafka_alter_user_scram_credentials_request_upsertion upsertion;
};

static struct credential *credential(struct credential *ret, const char *user, int8_t mechanism, const char *password)
{
    const EVP_MD *hash = mechanism == 2 ? EVP_sha512() : EVP_sha256();
    static const uint8_t salt[] = "0123456789abcdef";
    size_t len = mechanism == 2 ? 64 : 32;
    assert_int_equal(PKCS5_PBKDF2_HMAC(password, -1, salt, 16, ITERATIONS, hash, (int)len, ret->salted), 1);
    ret->upsertion =
        (struct kafka_alter_user_scram_credentials_request_upsertion){.name = slice_str(user),
                                                                      .mechanism = mechanism,
                                                                      .iterations = ITERATIONS,
                                                                      .salt = slice_of(salt, 16),
                                                                      .salted_password = slice_of(ret->salted, len)};
    return ret;
}

static int16_t upsert(struct krig *k, struct kafka_alter_user_scram_credentials_request_upsertion *list, int32_t count)
{
    const struct kafka_alter_user_scram_credentials_response *said =
        KASK(k, alter_user_scram_credentials, 0, .upsertions = {list, count});
    assert_non_null(said);
    assert_int_equal(said->results.count, 1);
    assert_true(slice_equal(said->results.at[0].user, list[0].name));
    return said->results.at[0].error_code;
}

static int16_t delete (struct krig *k, const char *user, int8_t mechanism)
{
    struct kafka_alter_user_scram_credentials_request_deletion one = {slice_str(user), mechanism};
    const struct kafka_alter_user_scram_credentials_response *said =
        KASK(k, alter_user_scram_credentials, 0, .deletions = {&one, 1});
    assert_non_null(said);
    assert_int_equal(said->results.count, 1);
    return said->results.at[0].error_code;
}

static const struct kafka_describe_user_scram_credentials_response_result *described(struct krig *k, const char *user)
{
    struct kafka_describe_user_scram_credentials_request_user one = {slice_str(user)};
    const struct kafka_describe_user_scram_credentials_response *said =
        KASK(k, describe_user_scram_credentials, 0, .users = {&one, 1});
    assert_non_null(said);
    assert_int_equal(said->error_code, 0);
    assert_int_equal(said->results.count, 1);
    assert_true(slice_is(said->results.at[0].user, user));
    return &said->results.at[0];
}

static void credentials_come_and_go(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct credential one, two;
    assert_int_equal(described(k, "anna")->error_code, KAFKA_ERR_RESOURCE_NOT_FOUND);
    assert_int_equal(upsert(k, &credential(&one, "anna", 2, "secret")->upsertion, 1), 0);
    const struct kafka_describe_user_scram_credentials_response_result *said = described(k, "anna");
    assert_int_equal(said->error_code, 0);
    assert_int_equal(said->credential_infos.count, 1);
    assert_int_equal(said->credential_infos.at[0].mechanism, 2);
    assert_int_equal(said->credential_infos.at[0].iterations, ITERATIONS);
    struct user *anna = user_find(k->core->b, slice_str("anna"));
    assert_non_null(anna);
    assert_true(password_verify(anna->verifier, slice_str("secret")));
    assert_int_equal(upsert(k, &credential(&two, "anna", 1, "other")->upsertion, 1), 0);
    assert_int_equal(described(k, "anna")->credential_infos.count, 2);
    assert_int_equal(described(k, "guest")->credential_infos.count, 2);
    assert_int_equal(KASK(k, describe_user_scram_credentials, 0, .users = {NULL, -1})->results.count, 2);
    assert_int_equal(KASK(k, describe_user_scram_credentials, 0, .users = {NULL, 0})->results.count, 2);
    assert_int_equal(delete (k, "anna", 2), 0);
    assert_int_equal(delete (k, "anna", 2), KAFKA_ERR_RESOURCE_NOT_FOUND);
    assert_int_equal(delete (k, "nobody", 1), KAFKA_ERR_RESOURCE_NOT_FOUND);
    assert_true(password_verify(anna->verifier, slice_str("other")));
    struct kafka_describe_user_scram_credentials_request_user twice[] = {
        {slice_str("anna")}, {slice_str("guest")}, {slice_str("anna")}, {slice_str("x")}};
    const struct kafka_describe_user_scram_credentials_response *many =
        KASK(k, describe_user_scram_credentials, 0, .users = {twice, 4});
    assert_int_equal(many->results.count, 3);
    assert_int_equal(many->results.at[0].error_code, KAFKA_ERR_DUPLICATE_RESOURCE);
    assert_int_equal(many->results.at[1].credential_infos.count, 2);
    assert_int_equal(many->results.at[2].error_code, KAFKA_ERR_RESOURCE_NOT_FOUND);
    set_tags(k, "");
    assert_int_equal(delete (k, "anna", 1), KAFKA_ERR_CLUSTER_AUTHORIZATION_FAILED);
    assert_int_equal(KASK(k, describe_user_scram_credentials, 0, .users = {NULL, 0})->error_code,
                     KAFKA_ERR_CLUSTER_AUTHORIZATION_FAILED);
    set_tags(k, "administrator");
    krig_free(k);
}

/* Of a user all is altered or nothing, and each has one result. */
static void bad_credentials(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct credential c[5];
    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        credential(&c[i], "anna", 1, "secret");
    c[0].upsertion.iterations = 4095;
    c[1].upsertion.iterations = 16385;
    c[2].upsertion.salt.len = 0;
    c[3].upsertion.salted_password.len = 31;
    c[4].upsertion.mechanism = 3;
    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        assert_int_equal(upsert(k, &c[i].upsertion, 1),
                         i < 4 ? KAFKA_ERR_UNACCEPTABLE_CREDENTIAL : KAFKA_ERR_UNSUPPORTED_SASL_MECHANISM);
    assert_int_equal(upsert(k, &credential(&c[0], "", 1, "x")->upsertion, 1), KAFKA_ERR_UNACCEPTABLE_CREDENTIAL);
    struct kafka_alter_user_scram_credentials_request_upsertion both[] = {credential(&c[0], "anna", 2, "x")->upsertion,
                                                                          credential(&c[1], "anna", 2, "x")->upsertion};
    assert_int_equal(upsert(k, both, 2), KAFKA_ERR_DUPLICATE_RESOURCE);
    both[1].mechanism = 1; /* whose salted password is not that long */
    assert_int_equal(upsert(k, both, 2), KAFKA_ERR_UNACCEPTABLE_CREDENTIAL);
    assert_null(user_find(k->core->b, slice_str("anna")));
    both[1] = credential(&c[1], "berta", 1, "x")->upsertion;
    struct kafka_alter_user_scram_credentials_request_deletion gone = {slice_str("berta"), 2};
    const struct kafka_alter_user_scram_credentials_response *said =
        KASK(k, alter_user_scram_credentials, 0, .deletions = {&gone, 1}, .upsertions = {both, 2});
    assert_int_equal(said->results.count, 2);
    assert_true(slice_is(said->results.at[0].user, "anna") && !said->results.at[0].error_code);
    assert_true(slice_is(said->results.at[1].user, "berta"));
    assert_int_equal(said->results.at[1].error_code, KAFKA_ERR_RESOURCE_NOT_FOUND);
    assert_non_null(user_find(k->core->b, slice_str("anna")));
    assert_null(user_find(k->core->b, slice_str("berta")));
    krig_free(k);
}

/* ---- faults ---- */

static void storm(struct krig *k)
{
    int32_t some[] = {0, 1, 9};
    static struct credential one, two;
    struct kafka_describe_producers_request_topic topics[] = {{slice_str("t"), {some, 3}}, {slice_str("x"), {some, 1}}};
    krig_put(k, KAFKA_API_describe_producers, 0, &(struct kafka_describe_producers_request){{topics, 2}});
    struct kafka_write_txn_markers_request_topic marked[] = {{slice_str("t"), {some, 3}}, {slice_str("x"), {some, 1}}};
    struct kafka_write_txn_markers_request_marker markers[] = {
        {.producer_id = 7, .topics = {marked, 2}},
        {.producer_id = 8, .transaction_result = true, .topics = {marked, 1}}};
    krig_put(k, KAFKA_API_write_txn_markers, 1, &(struct kafka_write_txn_markers_request){{markers, 2}});
    struct kafka_alter_user_scram_credentials_request_upsertion list[] = {credential(&one, "anna", 1, "x")->upsertion,
                                                                          credential(&two, "anna", 2, "x")->upsertion};
    struct kafka_alter_user_scram_credentials_request_deletion gone = {slice_str("berta"), 2};
    krig_put(k, KAFKA_API_alter_user_scram_credentials, 0,
             &(struct kafka_alter_user_scram_credentials_request){{&gone, 1}, {list, 2}});
    struct kafka_describe_user_scram_credentials_request_user users[] = {
        {slice_str("anna")}, {slice_str("guest")}, {slice_str("anna")}, {slice_str("x")}};
    krig_put(k, KAFKA_API_describe_user_scram_credentials, 0,
             &(struct kafka_describe_user_scram_credentials_request){{users, 4}});
    krig_put(k, KAFKA_API_describe_user_scram_credentials, 0,
             &(struct kafka_describe_user_scram_credentials_request){{NULL, -1}});
}

static void each_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct krig *k = krig_ready();
        krig_topic(k, "t", 2, false);
        storm(k);
        k->core->starved = true;
        mem_fail_at(n, false);
        krig_settle(k);
        uint64_t hit = mem_failures_hit();
        mem_fail_at(0, false);
        krig_free(k);
        if (!hit) {
            assert_true(n > 20);
            return;
        }
    }
}

static void damaged(void **state)
{
    (void)state;
    krig_damage(storm, 1500);
}

/* More transactional ids than the request's own length would have room for. */
static void a_long_list_of_transactions(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    struct krig *k = krig_ready();
    for (unsigned i = 0; i < MANY; i++) {
        char name[600];
        memset(name, 'x', sizeof name);
        snprintf(name + 500, 100, "%u", i);
        assert_int_equal(
            KASK(k, init_producer_id, 2, .transactional_id = slice_str(name), .transaction_timeout_ms = 1000)
                ->error_code,
            KAFKA_ERR_NONE);
        arena_reset(&k->arena);
    }
    const struct kafka_list_transactions_response *said = KASK(k, list_transactions, 0, .duration_filter = -1);
    assert_non_null(said);
    assert_int_equal(said->transaction_states.count, MANY);
    assert_int_equal(said->transaction_states.at[MANY - 1].transactional_id.len > 500, 1);
    krig_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hanging_transaction_is_found_and_ended),
        cmocka_unit_test(a_topic_full_of_aborted_ones),
        cmocka_unit_test(a_partition_is_told_of_once),
        cmocka_unit_test(what_is_not_there_and_who_may_not),
        cmocka_unit_test(credentials_come_and_go),
        cmocka_unit_test(bad_credentials),
        cmocka_unit_test(each_allocation),
        cmocka_unit_test(a_long_list_of_transactions),
        cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
