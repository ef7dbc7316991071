/* Fuzz target of the Kafka engine, in front of the real core with a journal and a stream store in memory (proto/kafka/rig_test.h).
 * fuzz: -max_len=4096
 * covers: src/proto/kafka/engine.c src/proto/kafka/produce.c src/proto/kafka/fetch.c src/proto/kafka/list_offsets.c
 * covers: src/proto/kafka/metadata.c src/proto/kafka/topics.c src/proto/kafka/configs.c src/proto/kafka/groups.c
 * covers: src/proto/kafka/group_offsets.c src/proto/kafka/group_admin.c src/proto/kafka/login.c
 *
 * Input: one byte of modes, then steps. Mode bits: 1 the input is raw bytes of a connection; 2 the journal becomes durable
 * late; 4 it is replayed into a second core at the end. A step: a byte, the key of a request that is spoken
 * (bit 7: nothing is waited for before the next), a byte for the version, a length u16 and the message behind the header,
 * which the target makes, so that mutations reach past it. Other keys are: time that passes (a byte, 100 ms each), a
 * batch with a right checksum and a producer's number (6 bytes), another connection. Where a message has 26 question marks
 * the id of the last member that joined stands instead, and where it has 4 exclamation marks that of the last fetch session.
 *
 * Topics t (2 partitions, with records) and c (compacted) and a group g with offsets and a member exist before the input
 * comes. Whatever comes, the core's invariants hold, answers come in order and are what their version says, what is
 * journalled replays into the same state, and nothing is leaked. */
#include "base/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The rigs are the unit tests'; a test that fails is a finding here. */
#define CMOCKA_H_
#define assert_true(what) CHECK(what)
#define assert_false(what) CHECK(!(what))
#define assert_null(what) CHECK(!(what))
#define assert_non_null(what) CHECK(what)
#define assert_int_equal(a, b) CHECK((uint64_t)(a) == (uint64_t)(b))
#define assert_string_equal(a, b) CHECK(strcmp(a, b) == 0)
#define assert_memory_equal(a, b, n) CHECK(memcmp(a, b, n) == 0)
#define print_error(...) fprintf(stderr, __VA_ARGS__)
#define _fail(file, line) abort()
#define fail_msg(...) (fprintf(stderr, __VA_ARGS__), abort())

#include "proto/kafka/rig_test.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { RAW = 1, LATE = 2, REPLAY = 4 };
enum { MEMBER_LEN = 26, ANSWER_MAX = 1 << 22 };

struct asked {
    const struct kafka_api *api;
    struct kafka_form form;
    int32_t id;
};

struct world {
    struct krig *k;
    uint8_t mode;
    struct asked asked[256]; /* without an answer */
    unsigned asked_first, asked_end;
    int32_t next_id;
    uint8_t member[MEMBER_LEN];
    int32_t session;
};

/* ---- what leaves must be answers, in order ---- */

static void note_ids(struct world *w, const struct asked *a, const void *message)
{
    const struct kafka_join_group_response *joined = message;
    const struct kafka_fetch_response *fetched = message;
    if (a->api == kafka_api_find(KAFKA_API_join_group) && joined->member_id.len == MEMBER_LEN)
        memcpy(w->member, joined->member_id.ptr, MEMBER_LEN);
    if (a->api == kafka_api_find(KAFKA_API_fetch) && fetched->session_id)
        w->session = fetched->session_id;
}

static void check_answer(struct world *w, struct slice frame)
{
    struct reader r = reader_of(frame);
    int32_t id = (int32_t)reader_u32(&r), told;
    const struct asked *a;
    do { /* only Produce with acks=0 is passed over */
        CHECK(w->asked_first != w->asked_end);
        a = &w->asked[w->asked_first++ & 255];
        CHECK(a->id == id || a->api == kafka_api_find(KAFKA_API_produce));
    } while (a->id != id);
    struct slice body;
    struct arena arena;
    arena_init(&arena, ANSWER_MAX);
    void *message = arena_take(&arena, a->api->response->struct_len);
    CHECK(kafka_response_head(frame, a->api, a->form, &told, &body) && told == id);
    CHECK(kafka_decode(a->api->response, a->form, body, &arena, message) == KAFKA_OK);
    note_ids(w, a, message);
    arena_fini(&arena);
}

static void check_answers(struct world *w)
{
    struct krig *k = w->k;
    size_t done = 0;
    for (;;) {
        struct reader r = reader_of(slice_of(k->out + done, k->out_len - done));
        struct slice frame = reader_str32(&r);
        if (!reader_ok(&r))
            break;
        if (!(w->mode & RAW))
            check_answer(w, frame);
        done += KAFKA_LENGTH_BYTES + frame.len;
    }
    memmove(k->out, k->out + done, k->out_len - done);
    k->out_len -= done;
}

static void rest(struct world *w)
{
    struct rig *core = w->k->core;
    for (int i = 0; i < 3; i++) {
        krig_settle(w->k);
        if (!core->hold)
            break;
        core->durable = core->log->count; /* and not before all has come to rest */
    }
    check_answers(w);
}

/* ---- steps ---- */

static void connect_again(struct world *w)
{
    krig_close(w->k);
    rest(w);
    w->k->out_len = 0;
    w->asked_first = w->asked_end = 0;
    krig_open(w->k);
    CHECK(w->k->engine);
}

static const struct kafka_api *spoken(uint8_t key)
{
    return kafka_handler_find(key) ? kafka_api_find(key) : NULL;
}

static void put_id(uint8_t *body, size_t len, uint8_t mark, const void *id, size_t id_len)
{
    for (size_t i = 0, run = 0; i < len; i++) {
        run = body[i] == mark ? run + 1 : 0;
        if (run == id_len)
            memcpy(body + i + 1 - id_len, id, id_len);
    }
}

static void put_request(struct world *w, const struct kafka_api *api, uint8_t version, struct slice body)
{
    struct krig *k = w->k;
    struct kafka_form form = kafka_api_form(api, (uint8_t)(api->first + version % (api->last - api->first + 1)));
    struct writer out = writer_of(k->in + k->in_len, KRIG_BYTES - k->in_len);
    size_t mark = kafka_request_begin(&out, api, form, w->next_id, slice_str("rig"));
    size_t at = out.len;
    writer_slice_put(&out, body);
    kafka_request_end(&out, mark);
    CHECK(writer_ok(&out));
    if (w->member[0])
        put_id(k->in + k->in_len + at, body.len, '?', w->member, MEMBER_LEN);
    uint32_t session = htobe32((uint32_t)w->session);
    put_id(k->in + k->in_len + at, body.len, '!', &session, sizeof session);
    k->in_len += out.len;
    CHECK(w->asked_end - w->asked_first < 256);
    w->asked[w->asked_end++ & 255] = (struct asked){api, form, w->next_id++};
}

static void put_batch(struct world *w, const uint8_t how[6])
{
    uint8_t bytes[512], message[1024];
    struct writer out = writer_of(bytes, sizeof bytes), request = writer_of(message, sizeof message);
    struct record_batch head = record_batch_head(0, w->k->core->wall - how[5] * 1000);
    struct record_batch_writer batch;
    struct slice value = slice_str("value"), key = slice_str("key");
    head.producer_id = how[1] % 5 - 1;
    head.producer_epoch = head.producer_id < 0 ? -1 : how[2] % 3;
    head.base_sequence = head.producer_id < 0 ? -1 : how[3];
    head.transactional = (how[0] & 0x80) != 0;
    head.control = (how[0] & 0x40) != 0;
    record_batch_begin(&batch, &out, &head);
    for (unsigned i = 0; i <= how[4] % 4; i++)
        CHECK(record_batch_put(&batch, head.base_timestamp + i, how[0] & 8 ? &key : NULL, how[0] & 4 ? &value : NULL,
                               NULL, 0));
    struct kafka_produce_request_partition part = {.index = how[0] & 1, .records = record_batch_finish(&batch, -1)};
    struct kafka_produce_request_topic topic = {.name = slice_str(how[0] & 2 ? "c" : "t"),
                                                .partition_data = {&part, 1}};
    struct kafka_produce_request ask = {
        .acks = (int16_t)(how[0] >> 4 & 3) - 1, .timeout_ms = 1000, .topic_data = {&topic, 1}};
    const struct kafka_api *api = kafka_api_find(KAFKA_API_produce);
    kafka_encode(&request, api->request, kafka_api_form(api, 9), &ask, NULL);
    CHECK(writer_ok(&request));
    put_request(w, api, (uint8_t)(9 - api->first), writer_slice(&request));
}

/* How many unanswered ones may be behind one another; so that the ring of them has room. */
static bool crowded(const struct world *w)
{
    return w->asked_end - w->asked_first >= 200 || w->k->in_len > KRIG_BYTES / 2;
}

static void play(struct world *w, struct slice steps)
{
    struct reader r = reader_of(steps);
    while (r.left) {
        uint8_t what = reader_u8(&r);
        const struct kafka_api *api = spoken(what & 0x7f);
        if (!w->k->engine || crowded(w))
            connect_again(w);
        if (api) {
            uint8_t version = reader_u8(&r);
            size_t n = reader_u16(&r);
            put_request(w, api, version, reader_take(&r, n < r.left ? n : r.left));
        } else if ((what & 3) == 0) {
            krig_pass_in(w->k, reader_u8(&r) * 100, 100);
        } else if ((what & 3) == 1) {
            connect_again(w);
        } else {
            uint8_t how[6] = {0};
            struct slice given = reader_take(&r, r.left < sizeof how ? r.left : sizeof how);
            memcpy(how, given.ptr, given.len);
            put_batch(w, how);
        }
        if (!(what & 0x80))
            rest(w);
    }
}

/* ---- the world ---- */

/* What is there before: made once, and copied. */
static struct rig_log *store_begun(void)
{
    struct krig *k = krig_ready();
    struct krig_batch batch;
    krig_topic(k, "t", 2, false);
    krig_topic(k, "c", 1, true);
    for (unsigned i = 0; i < 6; i++)
        CHECK(krig_produce(k, i == 5 ? "c" : "t", i % 2 && i < 5, krig_batch(k, &batch, i * 10, 3, true))->error_code ==
              0);
    struct kafka_join_group_request_protocol protocol = {.name = slice_str("range"), .metadata = slice_str("m")};
    const struct kafka_join_group_response *joined =
        KASK(k, join_group, 3, .group_id = slice_str("g"), .session_timeout_ms = 30000, .rebalance_timeout_ms = 30000,
             .member_id = slice_str(""), .protocol_type = slice_str("consumer"), .protocols = {&protocol, 1});
    if (!joined) { /* a group that was empty waits a moment for more */
        krig_pass(k, 5000);
        joined = krig_take(k);
    }
    CHECK(joined && joined->error_code == 0);
    struct kafka_sync_group_request_assignment mine = {.member_id = joined->member_id, .assignment = slice_str("all")};
    CHECK(KASK(k, sync_group, 3, .group_id = slice_str("g"), .generation_id = joined->generation_id,
               .member_id = joined->member_id, .assignments = {&mine, 1})
              ->error_code == 0);
    struct kafka_offset_commit_request_partition part = {
        .partition_index = 0, .committed_offset = 2, .committed_metadata = slice_str("n")};
    struct kafka_offset_commit_request_topic topic = {.name = slice_str("t"), .partitions = {&part, 1}};
    CHECK(KASK(k, offset_commit, 5, .group_id = slice_str("g"), .generation_id_or_member_epoch = joined->generation_id,
               .member_id = joined->member_id, .topics = {&topic, 1})
              ->topics.at[0]
              .partitions.at[0]
              .error_code == 0);
    struct rig_log *log = rig_log_copy(k->core->log, k->core->log->count);
    log->store = calloc(1, sizeof *log->store);
    log->is_copy = false;
    krig_free(k);
    return log;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct rig_log *begun;
    if (!begun)
        begun = store_begun();
    if (len == 0)
        return 0;
    size_t before = mem_in_use();
    struct world w = {.mode = bytes[0], .k = krig_on(rig_log_copy(begun, begun->count))};
    w.k->core->hold = (w.mode & LATE) != 0;
    rest(&w);
    if (w.mode & RAW)
        krig_bytes(w.k, bytes + 1, len - 1);
    else
        play(&w, slice_of(bytes + 1, len - 1));
    rest(&w);
    krig_pass(w.k, 100);
    check_answers(&w);
    krig_close(w.k);
    w.k->core->hold = false;
    rest(&w);
    broker_check(w.k->core->b);
    if (w.mode & REPLAY)
        rig_assert_replays(w.k->core);
    krig_free(w.k);
    CHECK(mem_in_use() == before);
    return 0;
}
