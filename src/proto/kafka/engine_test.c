/* A Kafka connection as its client sees it: framing, versions, logins, the order of answers, what waits until it is durable,
 * and memory that is refused. */
#include "core/stream_int.h"
#include "proto/kafka/rig_test.h"

static void assert_closed(struct krig *k)
{
    krig_settle(k);
    assert_null(k->engine);
}

/* ---- framing and versions ---- */

static void versions_say_what_has_a_handler(void **state)
{
    (void)state;
    struct krig *k = krig_new();
    for (uint8_t version = 0; version <= 4; version++) {
        const struct kafka_api_versions_response *said =
            KASK(k, api_versions, version, .client_software_name = slice_str("rig"),
                 .client_software_version = slice_str("1.0"));
        assert_non_null(said);
        assert_int_equal(said->error_code, 0);
        bool produce = false;
        for (int32_t i = 0; i < said->api_keys.count; i++) {
            assert_non_null(kafka_handler_find(said->api_keys.at[i].api_key));
            produce |= said->api_keys.at[i].api_key == KAFKA_API_produce && said->api_keys.at[i].min_version == 0;
        }
        assert_true(produce);
        /* clients of version 3 take a feature whose versions begin with 0 for damage */
        assert_int_equal(said->supported_features.count, version >= 4 ? 3 : 0);
        assert_int_equal(said->finalized_features.count, version >= 4 ? 3 : 0);
        if (version < 4)
            continue;
        assert_true(slice_is(said->supported_features.at[1].name, "share.version"));
        assert_int_equal(said->finalized_features.at[1].max_version_level, 1);
        assert_true(slice_is(said->supported_features.at[2].name, "transaction.version"));
        assert_int_equal(said->supported_features.at[2].min_version, 0);
        assert_int_equal(said->supported_features.at[2].max_version, 2);
        assert_true(slice_is(said->finalized_features.at[2].name, "transaction.version"));
        assert_int_equal(said->finalized_features.at[2].min_version_level, 2);
        assert_int_equal(said->finalized_features.at[2].max_version_level, 2);
        assert_true(said->finalized_features_epoch >= 0);
    }
    krig_free(k);
}

static void the_reference_names_them(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0, lines = 0, handled = 0;
    FILE *to = open_memstream(&text, &len);
    kafka_print_requests(to);
    fclose(to);
    for (size_t i = 0; i < len; i++)
        lines += text[i] == '\n';
    for (const struct kafka_api *api = kafka_apis; api < kafka_apis + kafka_api_count; api++)
        handled += kafka_handler_find(api->key) && strstr(text, api->name);
    assert_int_equal(lines, handled + 2);
    assert_non_null(strstr(text, "| 17 | SaslHandshake | 0 to 1 | never | yes |\n"));
    free(text);
}

static void version_unknown_is_answered_in_version_0(void **state)
{
    (void)state;
    struct krig *k = krig_new();
    static const uint8_t asked[] = {0, 0, 0, 12, 0, 18, 0, 99, 0, 0, 0, 0, 0, 0, 0xff, 0xfe}; /* a body nobody knows */
    k->asked[0] = kafka_api_find(KAFKA_API_api_versions);
    k->forms[0] = kafka_api_form(k->asked[0], 0);
    krig_bytes(k, asked, sizeof asked);
    krig_settle(k);
    const struct kafka_api_versions_response *said = krig_take(k);
    assert_int_equal(said->error_code, KAFKA_ERR_UNSUPPORTED_VERSION);
    assert_int_equal(said->api_keys.count, 1);
    assert_int_equal(said->api_keys.at[0].api_key, KAFKA_API_api_versions);
    assert_non_null(k->engine);
    krig_free(k);
}

static void what_kafka_does_not_answer_ends_the_connection(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[16];
        size_t len;
    } rows[] = {
        {{0, 0, 0, 10, 0, 99, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 14},  /* no such key */
        {{0, 0, 0, 10, 0, 22, 0, 99, 0, 0, 0, 0, 0, 0xff, 0}, 14}, /* no such version */
        {{0, 0, 0, 2, 0, 18}, 6},                                  /* shorter than its head */
        {{0, 0, 0, 0}, 4},
        {{0xff, 0xff, 0xff, 0xff}, 4}, /* a length that nobody takes */
        {{0x7f, 0xff, 0xff, 0xff, 0}, 5},
        {{'G', 'E', 'T', ' ', '/', ' ', 'H', 'T', 'T', 'P'}, 10},
        {{0, 0, 0, 11, 0, 22, 0, 1, 0, 0, 0, 0, 0, 0, 0xff}, 15}, /* a message that ends too soon */
    };
    struct krig *k = krig_new();
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        krig_bytes(k, rows[i].bytes, rows[i].len);
        assert_closed(k);
        assert_int_equal(k->out_len, 0);
        krig_open(k);
    }
    krig_free(k);
}

/* ---- logins ---- */

/* A producer with acks=0 may have gone before its login is done: until then its end must not be read. */
static void nothing_is_read_during_a_login(void **state)
{
    (void)state;
    struct krig *k = krig_new();
    krig_put(k, KAFKA_API_init_producer_id, 1, &(struct kafka_init_producer_id_request){.transaction_timeout_ms = 1});
    assert_int_equal(k->engine->ops->feed(k->engine, slice_of(k->in, k->in_len)), 0);
    assert_true(k->engine->paused);
    for (unsigned i = 0; i < 1000 && k->out_len == 0; i++)
        (void)krig_turn(k);
    assert_non_null(krig_take(k));
    assert_false(k->engine->paused);
    krig_free(k);
}

static void loopback_is_the_anonymous_user(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_close(k);
    k->options.anonymous = ""; /* nobody */
    krig_open(k);
    assert_null(KASK(k, init_producer_id, 1, .transaction_timeout_ms = 1));
    assert_closed(k);
    k->options.anonymous = "nobody-of-that-name";
    krig_open(k);
    assert_null(KASK(k, init_producer_id, 1, .transaction_timeout_ms = 1));
    assert_closed(k);
    k->options.anonymous = "guest";
    krig_open(k);
    k->engine->visiting = true; /* it has come to the port of another protocol */
    assert_null(KASK(k, init_producer_id, 1, .transaction_timeout_ms = 1));
    assert_closed(k);
    k->peer.loopback = false;
    krig_open(k);
    assert_null(KASK(k, init_producer_id, 1, .transaction_timeout_ms = 1));
    assert_closed(k);
    krig_free(k);
}

static const struct kafka_sasl_authenticate_response *authenticate(struct krig *k, const char *token, size_t len)
{
    const struct kafka_sasl_handshake_response *said = KASK(k, sasl_handshake, 1, .mechanism = slice_str("PLAIN"));
    assert_int_equal(said->error_code, 0);
    assert_int_equal(said->mechanisms.count, 3);
    return KASK(k, sasl_authenticate, 2, .auth_bytes = slice_of(token, len));
}

static void sasl_plain(void **state)
{
    (void)state;
    struct krig *k = krig_new();
    k->peer.loopback = true;
    const struct kafka_sasl_authenticate_response *said = authenticate(k, "\0guest\0guest", 12);
    assert_int_equal(said->error_code, 0);
    assert_non_null(KASK(k, init_producer_id, 1, .transaction_timeout_ms = 1));
    krig_free(k);
}

static void sasl_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *token;
        size_t len;
    } rows[] = {{"\0guest\0wrong", 12},
                {"\0nobody\0guest", 13},
                {"other\0guest\0guest", 17},
                {"\0guest", 6},
                {"", 0},
                {"\0\0", 2},
                {"\0guest\0gu\0st", 12}};
    struct krig *k = krig_new();
    k->refuse_login = true;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct kafka_sasl_authenticate_response *said = authenticate(k, rows[i].token, rows[i].len);
        assert_non_null(said);
        assert_int_equal(said->error_code, KAFKA_ERR_SASL_AUTHENTICATION_FAILED);
        assert_closed(k);
        krig_open(k);
    }
    krig_free(k);
}

static void sasl_mechanisms(void **state)
{
    (void)state;
    struct krig *k = krig_new();
    const struct kafka_sasl_handshake_response *said = KASK(k, sasl_handshake, 1, .mechanism = slice_str("GSSAPI"));
    assert_int_equal(said->error_code, KAFKA_ERR_UNSUPPORTED_SASL_MECHANISM);
    assert_true(slice_is(said->mechanisms.at[0], "PLAIN"));
    assert_closed(k);
    krig_open(k);
    assert_int_equal(KASK(k, sasl_authenticate, 2, .auth_bytes = slice_str("x"))->error_code,
                     KAFKA_ERR_ILLEGAL_SASL_STATE);
    krig_free(k);
}

static void sasl_bare_token(void **state)
{
    (void)state;
    static const uint8_t token[] = "\0\0\0\x0c\0guest\0guest";
    struct krig *k = krig_new();
    assert_int_equal(KASK(k, sasl_handshake, 0, .mechanism = slice_str("PLAIN"))->error_code, 0);
    krig_bytes(k, token, sizeof token - 1);
    krig_settle(k);
    assert_int_equal(k->out_len, 4); /* an empty token */
    assert_int_equal(k->out[3], 0);
    k->out_len = 0;
    assert_non_null(KASK(k, init_producer_id, 1, .transaction_timeout_ms = 1));
    krig_close(k);
    krig_open(k);
    k->refuse_login = true;
    assert_int_equal(KASK(k, sasl_handshake, 0, .mechanism = slice_str("PLAIN"))->error_code, 0);
    krig_bytes(k, token, sizeof token - 2);
    krig_bytes(k, "x", 1);
    assert_closed(k);
    assert_int_equal(k->out_len, 0);
    krig_free(k);
}

static void who_does_not_log_in_is_let_go(void **state)
{
    (void)state;
    struct krig *k = krig_new();
    k->peer.loopback = false;
    krig_close(k);
    krig_open(k);
    krig_pass(k, k->options.handshake_ms - 10);
    assert_non_null(k->engine);
    krig_pass(k, 20);
    assert_null(k->engine);
    krig_free(k);
}

/* ---- produce ---- */

static void produce_gets_offsets_in_order(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct krig_batch b;
    krig_topic(k, "t", 2, false);
    assert_int_equal(krig_produce(k, "t", 0, krig_batch(k, &b, 0, 3, false))->base_offset, 0);
    for (unsigned i = 0; i < 10; i++)
        krig_put_produce(k, 3, -1, "t", 0, b.made);
    krig_settle(k);
    for (int i = 0; i < 10; i++)
        assert_int_equal(krig_take_produced(k)->base_offset, 3 + 3 * i);
    const struct kafka_produce_response_partition *said = krig_produce(k, "t", 1, b.made);
    assert_int_equal(said->error_code, 0);
    assert_int_equal(said->base_offset, 0);
    assert_int_equal(said->log_start_offset, 0);
    krig_free(k);
}

static void acks(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct krig_batch b;
    krig_topic(k, "t", 1, false);
    krig_produce(k, "t", 0, krig_batch(k, &b, 0, 1, false));
    k->core->hold = true;
    krig_put_produce(k, 3, 1, "t", 0, b.made); /* the leader's word is enough */
    krig_settle(k);
    assert_int_equal(krig_take_produced(k)->base_offset, 1);
    krig_put_produce(k, 3, -1, "t", 0, b.made);
    krig_put_produce(k, 3, 1, "t", 0, b.made); /* behind one that waits */
    krig_settle(k);
    assert_null(krig_take_produced(k));
    k->core->hold = false;
    krig_settle(k);
    assert_int_equal(krig_take_produced(k)->base_offset, 2);
    assert_int_equal(krig_take_produced(k)->base_offset, 3);
    krig_put_produce(k, 3, 0, "t", 0, b.made);
    krig_settle(k);
    assert_int_equal(k->out_len, 0);
    k->answered++; /* nothing is said to it */
    assert_int_equal(krig_produce(k, "t", 0, b.made)->base_offset, 5);
    krig_put_produce(k, 3, 2, "t", 0, b.made);
    krig_settle(k);
    assert_int_equal(krig_take_produced(k)->error_code, KAFKA_ERR_INVALID_REQUIRED_ACKS);
    krig_put_produce(k, 3, 0, "unknown", 0, b.made); /* an error nobody would hear of */
    assert_closed(k);
    krig_free(k);
}

static void produce_errors(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct krig_batch b;
    krig_topic(k, "t", 1, false);
    krig_topic(k, "compacted", 1, true);
    krig_batch(k, &b, 0, 2, false);
    assert_int_equal(krig_produce(k, "unknown", 0, b.made)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(krig_produce(k, "t", 1, b.made)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(krig_produce(k, "t", -1, b.made)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(krig_produce(k, "t", 65536, b.made)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    const struct kafka_produce_response_partition *said = krig_produce(k, "compacted", 0, b.made);
    assert_int_equal(said->error_code, KAFKA_ERR_INVALID_RECORD);
    assert_int_equal(said->base_offset, -1);
    assert_int_equal(said->record_errors.count, 1);
    assert_int_equal(said->record_errors.at[0].batch_index, 0);
    b.bytes[b.made.len - 1] ^= 1;
    assert_int_equal(krig_produce(k, "t", 0, b.made)->error_code, KAFKA_ERR_CORRUPT_MESSAGE);
    assert_int_equal(krig_produce(k, "t", 0, slice_of(b.bytes, 60))->error_code, KAFKA_ERR_INVALID_RECORD);
    assert_int_equal(krig_produce(k, "t", 0, slice_of(b.bytes, 0))->error_code, KAFKA_ERR_INVALID_RECORD);
    k->options.batch_bytes_max = 64;
    assert_int_equal(krig_produce(k, "t", 0, krig_batch(k, &b, 0, 2, true))->error_code, KAFKA_ERR_MESSAGE_TOO_LARGE);
    k->options.batch_bytes_max = 1 << 20;
    assert_int_equal(krig_produce(k, "compacted", 0, b.made)->base_offset, 0);
    assert_int_equal(krig_produce(k, "t", 0, b.made)->base_offset, 0);
    krig_free(k);
}

/* Some partitions are wrong, by what the engine sees and by what the core says; the others are written. */
static void errors_are_of_their_partition(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct krig_batch good, bad;
    krig_topic(k, "a", 2, false);
    krig_topic(k, "b", 1, false);
    krig_batch(k, &good, 0, 4, false);
    krig_batch(k, &bad, 0, 4, false);
    bad.bytes[30] ^= 1;
    struct kafka_produce_request_partition a[] = {{0, bad.made}, {1, good.made}, {2, good.made}},
                                           b[] = {{0, good.made}};
    struct kafka_produce_request_topic topics[] = {{.name = slice_str("a"), .partition_data = {a, 3}},
                                                   {.name = slice_str("none"), .partition_data = {b, 1}},
                                                   {.name = slice_str("b"), .partition_data = {b, 1}}};
    const struct kafka_produce_response *said =
        KASK(k, produce, 9, .acks = -1, .timeout_ms = 1, .topic_data = {topics, 3});
    assert_int_equal(said->responses.at[0].partition_responses.at[0].error_code, KAFKA_ERR_CORRUPT_MESSAGE);
    assert_int_equal(said->responses.at[0].partition_responses.at[1].error_code, 0);
    assert_int_equal(said->responses.at[0].partition_responses.at[1].base_offset, 0);
    assert_int_equal(said->responses.at[0].partition_responses.at[2].error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(said->responses.at[1].partition_responses.at[0].error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(said->responses.at[2].partition_responses.at[0].error_code, 0);
    krig_free(k);
}

/* A topic that is made again while the connection remembers the old one. */
static void a_topic_made_again_is_found(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct krig_batch b;
    krig_topic(k, "t", 1, false);
    krig_batch(k, &b, 0, 2, false);
    assert_int_equal(krig_produce(k, "t", 0, b.made)->base_offset, 0);
    struct kafka *engine = CONTAINER_OF(k->engine, struct kafka, session.engine);
    struct command *c = hub_command(k->hub, &engine->session);
    struct slice none = {0};
    c->type = CMD_STREAM_DELETE;
    c->origin = UINT32_MAX;
    c->ask = ask_new(slice_str("t"), none, none, none);
    krig_settle(k);
    krig_topic(k, "t", 1, false);
    assert_int_equal(krig_produce(k, "t", 0, b.made)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(krig_produce(k, "t", 0, b.made)->base_offset, 0);
    krig_free(k);
}

static void producers_are_numbered(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    int64_t first =
        KASK(k, init_producer_id, 3, .transaction_timeout_ms = 1, .producer_id = -1, .producer_epoch = -1)->producer_id;
    assert_int_equal(
        KASK(k, init_producer_id, 5, .transaction_timeout_ms = 1, .producer_id = -1, .producer_epoch = -1)->producer_id,
        first + 1);
    assert_int_equal(
        KASK(k, init_producer_id, 0, .transaction_timeout_ms = 1, .transactional_id = slice_str(""))->error_code,
        KAFKA_ERR_INVALID_REQUEST);
    krig_free(k);
}

/* ---- hostile and poor ---- */

/* Behind a request whose bytes are still in the arena that the next one gets. */
static void no_partitions_are_added(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    uint8_t junk[2000];
    memset(junk, 0x41, sizeof junk);
    const struct kafka_init_producer_id_response *id =
        KASK(k, init_producer_id, 4, .transactional_id = slice_str("t"), .transaction_timeout_ms = 1000,
             .producer_id = -1, .producer_epoch = -1);
    assert_int_equal(id->error_code, 0);
    (void)KASK(k, add_offsets_to_txn, 3, .transactional_id = slice_of(junk, 900), .producer_id = 1,
               .group_id = slice_of(junk, sizeof junk));
    const struct kafka_add_partitions_to_txn_response *said =
        KASK(k, add_partitions_to_txn, 3, .v3_and_below_transactional_id = slice_str("t"),
             .v3_and_below_producer_id = id->producer_id, .v3_and_below_producer_epoch = id->producer_epoch);
    assert_non_null(said);
    assert_int_equal(said->results_by_topic_v3_and_below.count, 0);
    krig_free(k);
}

/* A login and three requests; what comes back is answered alike however the bytes come. */
static void storm(struct krig *k)
{
    struct krig_batch b;
    krig_put(k, KAFKA_API_api_versions, 3,
             &(struct kafka_api_versions_request){.client_software_name = slice_str("r"),
                                                  .client_software_version = slice_str("1")});
    krig_put_produce(k, 9, -1, "t", 0, krig_batch(k, &b, 0, 3, false));
    krig_put_produce(k, 3, 1, "none", 0, b.made);
    krig_put(
        k, KAFKA_API_init_producer_id, 4,
        &(struct kafka_init_producer_id_request){.transaction_timeout_ms = 1, .producer_id = -1, .producer_epoch = -1});
}

static void byte_by_byte(void **state)
{
    (void)state;
    struct krig *k = krig_ready(), *other = krig_ready();
    krig_topic(k, "t", 1, false);
    krig_topic(other, "t", 1, false);
    storm(k);
    storm(other);
    size_t len = other->in_len;
    uint8_t *all = malloc(len);
    memcpy(all, other->in, len);
    other->in_len = 0;
    for (size_t i = 0; i < len; i++) {
        krig_bytes(other, all + i, 1);
        krig_settle(other);
    }
    krig_settle(k);
    assert_int_equal(k->out_len, other->out_len);
    assert_memory_equal(k->out, other->out, k->out_len);
    free(all);
    krig_free(k);
    krig_free(other);
}

static void gone_at_every_byte(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    krig_close(k);
    krig_open(k);
    storm(k);
    size_t len = k->in_len;
    for (size_t i = 0; i < len; i++) {
        k->in_len = i;
        for (int turns = 0; turns < (int)(i % 5); turns++)
            krig_turn(k);
        krig_close(k);
        krig_settle(k);
        krig_open(k);
        storm(k);
    }
    krig_settle(k);
    assert_non_null(krig_take(k));
    krig_free(k);
}

static void each_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct krig *k = krig_ready();
        krig_topic(k, "t", 1, false);
        krig_close(k);
        krig_settle(k);
        mem_fail_at(n, false);
        krig_open(k);
        if (k->engine) {
            storm(k);
            krig_settle(k);
        }
        uint64_t hit = mem_failures_hit();
        mem_fail_at(0, false);
        if (!hit)
            assert_non_null(k->engine);
        krig_close(k);
        krig_settle(k);
        k->out_len = 0;
        krig_open(k); /* others are not harmed */
        struct krig_batch b;
        assert_int_equal(krig_produce(k, "t", 0, krig_batch(k, &b, 0, 1, false))->error_code, 0);
        krig_free(k);
        if (!hit)
            return;
    }
}

/* A batch that the topic has unpacked and stamped, with each allocation of that refused once: it is refused, or as it must be. */
static void written_again_without_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct krig *k = krig_ready();
        struct kafka_create_topics_request_config configs[] = {
            {.name = slice_str("compression.type"), .value = slice_str("uncompressed")},
            {.name = slice_str("message.timestamp.type"), .value = slice_str("LogAppendTime")}};
        struct kafka_create_topics_request_topic topic = {
            .name = slice_str("t"), .num_partitions = 1, .replication_factor = 1, .configs = {configs, 2}};
        assert_int_equal(KASK(k, create_topics, 5, .topics = {&topic, 1})->topics.at[0].error_code, 0);
        struct compress *z = compress_new();
        struct krig_batch b;
        uint8_t room[4096];
        struct writer w = writer_of(room, sizeof room);
        assert_int_equal(
            record_batch_repack(krig_batch(k, &b, 5, 3, false), COMPRESS_GZIP, COMPRESS_LEVEL_DEFAULT, z, 4096, &w),
            RECORD_OK);
        compress_free(&z);
        krig_put_produce(k, 9, -1, "t", 0, writer_slice(&w));
        k->core->starved = true;
        mem_fail_at(n, false);
        krig_settle(k);
        uint64_t hit = mem_failures_hit();
        mem_fail_at(0, false);
        const struct kafka_produce_response_partition *said = k->engine ? krig_take_produced(k) : NULL;
        if (said && said->error_code) {
            assert_int_equal(said->error_code, KAFKA_ERR_KAFKA_STORAGE_ERROR);
            assert_int_equal(said->log_append_time_ms, -1);
        } else if (said) {
            struct queue *q = queue_find(vhost_find(k->core->b, slice_str("/")), slice_str("t"));
            assert_int_equal(said->log_append_time_ms, k->core->wall);
            krig_pass(k, 2000);                                     /* a write that was refused memory is done later */
            assert_int_equal(q->stream->partitions[0]->written, 3); /* the rig's store reads no packed ones */
        }
        bool good = said && !said->error_code;
        krig_free(k);
        if (!hit) {
            assert_true(good && n > 5);
            return;
        }
    }
}

/* A batch of one record of len equal bytes, packed. */
static struct slice packed_batch(struct krig *k, enum compress_kind kind, size_t len, uint8_t *room, size_t room_len)
{
    uint8_t *plain = calloc(1, len + 200), *value = calloc(1, len);
    struct compress *z = compress_new();
    struct writer w = writer_of(plain, len + 200), packed = writer_of(room, room_len);
    struct record_batch head = record_batch_head(0, k->core->wall);
    struct record_batch_writer batch;
    struct slice bytes = slice_of(value, len);
    record_batch_begin(&batch, &w, &head);
    assert_true(record_batch_put(&batch, k->core->wall, NULL, &bytes, NULL, 0));
    assert_int_equal(record_batch_repack(record_batch_finish(&batch, -1), kind, COMPRESS_LEVEL_DEFAULT, z, 0, &packed),
                     RECORD_OK);
    compress_free(&z);
    free(plain);
    free(value);
    return writer_slice(&packed);
}

static struct krig *krig_with_config(const char *name, const char *value)
{
    struct krig *k = krig_ready();
    struct kafka_create_topics_request_config config = {.name = slice_str(name), .value = slice_str(value)};
    struct kafka_create_topics_request_topic topic = {
        .name = slice_str("t"), .num_partitions = 1, .replication_factor = 1, .configs = {&config, 1}};
    assert_int_equal(KASK(k, create_topics, 5, .topics = {&topic, 1})->topics.at[0].error_code, 0);
    return k;
}

#define BOMBS 40
#define BOMB_LEN 1000000u

static void put_bombs(struct krig *k, struct slice batch)
{
    struct kafka_produce_request_partition parts[BOMBS];
    for (int32_t i = 0; i < BOMBS; i++)
        parts[i] = (struct kafka_produce_request_partition){.index = 0, .records = batch};
    struct kafka_produce_request_topic one = {.name = slice_str("t"), .partition_data = {parts, BOMBS}};
    struct kafka_produce_request ask = {.acks = -1, .timeout_ms = 1000, .topic_data = {&one, 1}};
    krig_put(k, KAFKA_API_produce, 9, &ask);
}

/* A small request that grows to 40 MB does so piece by piece: not in one turn of the loop, and no faster than the core takes it. */
static void what_a_request_grows_by_is_bounded(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        struct krig *k = krig_with_config("compression.type", "uncompressed");
        struct kafka *engine = CONTAINER_OF(k->engine, struct kafka, session.engine);
        uint8_t room[4096];
        struct slice bomb = packed_batch(k, COMPRESS_ZSTD, BOMB_LEN, room, sizeof room);
        krig_produce(k, "t", 0, bomb); /* the topic is known */
        put_bombs(k, bomb);
        uint64_t small = k->in_len, most = 0;
        uint32_t slots = hub_room(k->hub);
        k->in_len -= k->engine->ops->feed(k->engine, slice_of(k->in, k->in_len));
        assert_in_range(slots - hub_room(k->hub), 1, 10); /* a turn's share */
        for (unsigned i = 0; i < BOMBS; i++) {
            (void)hub_turn(k->hub, 0, k->core->now);
            most = engine->inflight_bytes > most ? engine->inflight_bytes : most;
        }
        assert_in_range(slots - hub_room(k->hub), 7, 10); /* the core has taken none */
        assert_in_range(most, KAFKA_INFLIGHT_HIGH, KAFKA_INFLIGHT_HIGH + small + BOMB_LEN + 200);
        if (round == 1) { /* gone meanwhile */
            krig_free(k);
            continue;
        }
        krig_settle(k);
        const struct kafka_produce_response *said = krig_take(k);
        assert_non_null(said);
        for (int32_t i = 0; i < BOMBS; i++) {
            assert_int_equal(said->responses.at[0].partition_responses.at[i].error_code, 0);
            assert_int_equal(said->responses.at[0].partition_responses.at[i].base_offset, 1 + i);
        }
        assert_int_equal(engine->inflight_bytes, 0);
        krig_free(k);
    }
}

/* Unpacking for a look takes its turns as well. */
static void a_loop_does_not_unpack_without_end(void **state)
{
    (void)state;
    struct krig *k = krig_with_config("compression.type", "producer");
    uint8_t room[4096];
    struct slice bomb = packed_batch(k, COMPRESS_ZSTD, BOMB_LEN, room, sizeof room);
    krig_produce(k, "t", 0, bomb);
    put_bombs(k, bomb);
    uint32_t slots = hub_room(k->hub);
    k->in_len -= k->engine->ops->feed(k->engine, slice_of(k->in, k->in_len));
    for (unsigned turn = 1; turn <= 3; turn++) {
        assert_in_range(slots - hub_room(k->hub), turn * 7, turn * 10);
        assert_true(hub_turn(k->hub, 0, k->core->now));
    }
    krig_settle(k);
    assert_non_null(krig_take(k));
    krig_free(k);
}

/* What would be too large for its topic unpacked is not unpacked for that. */
static void too_large_to_be_unpacked(void **state)
{
    (void)state;
    static uint8_t room[24 << 20]; /* snappy and lz4 want room for the worst */
    for (unsigned kind = COMPRESS_GZIP; kind < COMPRESS_KINDS; kind++) {
        struct krig *k = krig_with_config("compression.type", "uncompressed");
        uint64_t before = compress_cost_ns(hub_codecs(k->hub));
        struct slice batch = packed_batch(k, kind, 2 * BOMB_LEN, room, sizeof room);
        assert_int_equal(krig_produce(k, "t", 0, batch)->error_code, KAFKA_ERR_MESSAGE_TOO_LARGE);
        if (kind != COMPRESS_LZ4) /* whose frames do not say it */
            assert_int_equal(compress_cost_ns(hub_codecs(k->hub)), before);
        batch = packed_batch(k, kind, BOMB_LEN, room, sizeof room);
        assert_int_equal(krig_produce(k, "t", 0, batch)->error_code, 0);
        assert_true(compress_held_bytes(hub_codecs(k->hub)) <= 4u << 20);
        krig_free(k);
        k = krig_with_config("compression.type", kind == COMPRESS_GZIP ? "lz4" : "gzip");
        batch = packed_batch(k, kind, 16 * BOMB_LEN, room, sizeof room);
        if (batch.len < 1048588)
            assert_int_equal(krig_produce(k, "t", 0, batch)->error_code, 0);
        batch = packed_batch(k, kind, 17 * BOMB_LEN, room, sizeof room);
        assert_int_equal(krig_produce(k, "t", 0, batch)->error_code, KAFKA_ERR_MESSAGE_TOO_LARGE);
        krig_free(k);
    }
}

/* A peer that is faster than the disk is not read. */
static void too_much_in_flight_is_not_read(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct krig_batch b;
    krig_topic(k, "t", 1, false);
    krig_batch(k, &b, 0, 1, false);
    krig_produce(k, "t", 0, b.made);
    k->core->hold = true;
    for (unsigned i = 0; i < KAFKA_REQUESTS_MAX + 10; i++)
        krig_put_produce(k, 3, -1, "t", 0, b.made);
    krig_settle(k);
    assert_true(k->engine->paused);
    assert_true(k->in_len > 0);
    k->core->hold = false;
    krig_settle(k);
    for (unsigned i = 0; i < KAFKA_REQUESTS_MAX + 10; i++)
        assert_int_equal(krig_take_produced(k)->base_offset, 1 + i);
    assert_false(k->engine->paused);
    krig_free(k);
}

static void alarms_pause_producers(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct krig_batch b;
    krig_topic(k, "t", 1, false);
    krig_produce(k, "t", 0, krig_batch(k, &b, 0, 1, false));
    struct command *c = rig_command(k->core, 1, CMD_ALARM, 0, 0);
    c->number = ALARM_DISK;
    ring_publish(&broker_port(k->core->b, 1)->commands);
    krig_settle(k);
    assert_true(k->engine->paused);
    c = rig_command(k->core, 1, CMD_ALARM, 0, 0);
    ring_publish(&broker_port(k->core->b, 1)->commands);
    krig_settle(k);
    assert_false(k->engine->paused);
    krig_free(k);
}

static void silence_ends(void **state)
{
    (void)state;
    struct krig *k = krig_new();
    k->options.idle_ms = 1000;
    krig_close(k);
    krig_open(k);
    krig_pass(k, 900);
    assert_non_null(KASK(k, init_producer_id, 1, .transaction_timeout_ms = 1));
    krig_pass(k, 900);
    assert_non_null(k->engine);
    krig_pass(k, 200);
    assert_null(k->engine);
    krig_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions_say_what_has_a_handler),
        cmocka_unit_test(the_reference_names_them),
        cmocka_unit_test(version_unknown_is_answered_in_version_0),
        cmocka_unit_test(what_kafka_does_not_answer_ends_the_connection),
        cmocka_unit_test(nothing_is_read_during_a_login),
        cmocka_unit_test(loopback_is_the_anonymous_user),
        cmocka_unit_test(sasl_plain),
        cmocka_unit_test(sasl_wrong),
        cmocka_unit_test(sasl_mechanisms),
        cmocka_unit_test(sasl_bare_token),
        cmocka_unit_test(who_does_not_log_in_is_let_go),
        cmocka_unit_test(produce_gets_offsets_in_order),
        cmocka_unit_test(acks),
        cmocka_unit_test(produce_errors),
        cmocka_unit_test(errors_are_of_their_partition),
        cmocka_unit_test(a_topic_made_again_is_found),
        cmocka_unit_test(producers_are_numbered),
        cmocka_unit_test(no_partitions_are_added),
        cmocka_unit_test(byte_by_byte),
        cmocka_unit_test(gone_at_every_byte),
        cmocka_unit_test(each_allocation),
        cmocka_unit_test(written_again_without_memory),
        cmocka_unit_test(what_a_request_grows_by_is_bounded),
        cmocka_unit_test(a_loop_does_not_unpack_without_end),
        cmocka_unit_test(too_large_to_be_unpacked),
        cmocka_unit_test(too_much_in_flight_is_not_read),
        cmocka_unit_test(alarms_pause_producers),
        cmocka_unit_test(silence_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
