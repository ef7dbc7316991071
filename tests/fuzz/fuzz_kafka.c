/* Fuzz target of Kafka's requests and responses.
 * fuzz: -max_len=4096
 * covers: src/proto/kafka/codec.c src/proto/kafka/api.c src/base/arena.h
 *
 * The first byte chooses: a request as it comes after its length, or a response, whose key and version the next two bytes
 * choose. What is accepted is written again, which must be as long as was foretold, and read again, which must give the same
 * bytes when written; whatever memory that took is within the limit.
 */
#include "base/check.h"
#include "base/mem.h"
#include "proto/kafka/api.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#define MEMORY_MAX (1u << 18)

static void write_twice(const struct kafka_table *table, struct kafka_form form, const void *message, size_t read_len)
{
    size_t len = kafka_encode_size(table, form, message);
    CHECK(len >= kafka_least_size(table, form));
    CHECK(len <= read_len + 64 * 1024); /* absent structs are written out, everything else is as it was or shorter */
    uint8_t *first = mem_alloc(len + 1), *second = mem_alloc(len + 1), *again = mem_alloc(table->struct_len);
    CHECK(first && second && again);
    struct writer w = writer_of(first, len), v = writer_of(second, len);
    kafka_encode(&w, table, form, message, NULL);
    CHECK(writer_ok(&w) && w.len == len);
    struct arena arena;
    arena_init(&arena, 2 * MEMORY_MAX);
    CHECK(kafka_decode(table, form, writer_slice(&w), &arena, again) == KAFKA_OK);
    kafka_encode(&v, table, form, again, NULL);
    CHECK(writer_ok(&v) && slice_equal(writer_slice(&w), writer_slice(&v)));
    arena_fini(&arena);
    mem_free(first);
    mem_free(second);
    mem_free(again);
}

static void use(const struct kafka_table *table, struct kafka_form form, struct slice body)
{
    struct arena arena;
    uint8_t *message = mem_alloc(table->struct_len);
    CHECK(message);
    arena_init(&arena, MEMORY_MAX);
    enum kafka_verdict verdict = kafka_decode(table, form, body, &arena, message);
    CHECK(arena.used <= MEMORY_MAX);
    if (verdict == KAFKA_OK || verdict == KAFKA_TRAILING)
        write_twice(table, form, message, body.len);
    arena_fini(&arena);
    mem_free(message);
}

/* A head that was read, written by the other side: a request and its answer have it again. */
static void heads_come_back(const struct kafka_request_head *head)
{
    size_t max = head->client_id.len + 128;
    uint8_t *room = mem_alloc(max);
    struct writer w = writer_of(room, max);
    struct kafka_request_head again;
    struct slice body;
    int32_t id;
    CHECK(room);
    size_t mark = kafka_request_begin(&w, head->api, head->form, head->correlation_id, head->client_id);
    kafka_request_end(&w, mark);
    CHECK(writer_ok(&w));
    CHECK(kafka_request_head(slice_of(room + KAFKA_LENGTH_BYTES, w.len - KAFKA_LENGTH_BYTES), &again, &body) ==
              KAFKA_HEAD_OK &&
          again.correlation_id == head->correlation_id && slice_equal(again.client_id, head->client_id));
    w = writer_of(room, max);
    mark = kafka_response_begin(&w, head->api, head->form, head->correlation_id);
    kafka_response_end(&w, mark, 0);
    CHECK(writer_ok(&w) && w.len == kafka_response_head_size(head->api, head->form));
    CHECK(kafka_response_head(slice_of(room + KAFKA_LENGTH_BYTES, w.len - KAFKA_LENGTH_BYTES), head->api, head->form,
                              &id, &body) &&
          id == head->correlation_id && body.len == 0);
    CHECK(kafka_error_row(head->key)->name);
    mem_free(room);
}

static void use_request(struct slice request)
{
    struct kafka_request_head head;
    struct slice body;
    enum kafka_head_verdict verdict = kafka_request_head(request, &head, &body);
    if (verdict == KAFKA_HEAD_OK) {
        heads_come_back(&head);
        use(head.api->request, head.form, body);
    } else if (verdict == KAFKA_HEAD_UNKNOWN_VERSION)
        CHECK(!kafka_api_speaks(head.api, head.version));
    else if (verdict == KAFKA_HEAD_UNKNOWN_KEY)
        CHECK(!head.api && !kafka_api_find(head.key));
}

static void use_response(const struct kafka_api *api, uint8_t version, struct slice response)
{
    struct kafka_form form = kafka_api_form(api, (uint8_t)(api->first + version % (api->last - api->first + 1)));
    int32_t id;
    struct slice body;
    if (kafka_response_head(response, api, form, &id, &body))
        use(api->response, form, body);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len < 3)
        return 0;
    bool request = bytes[0] % 2 == 0;
    size_t skip = request ? 1 : 3;
    uint8_t *copy = mem_alloc(len); /* a block of its own, so that the sanitizer sees a byte too many */
    CHECK(copy);
    memcpy(copy + skip, bytes + skip, len - skip);
    if (request)
        use_request(slice_of(copy + skip, len - skip));
    else
        use_response(&kafka_apis[bytes[1] % kafka_api_count], bytes[2], slice_of(copy + skip, len - skip));
    mem_free(copy);
    return 0;
}
