/* Events, made and produced: one Produce request with one record batch each, several in flight. Nothing here is measured but by who waits for it.
 *
 * The result of each event for the queries whose rows can be told bid by bid is counted while it is made. */
#include "nexmark_int.h"

#include "fmt/record_batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

enum { PRODUCE_TIMEOUT_MS = 60000, BATCH_BYTES = BENCH_NEXMARK_BATCH_MAX * 700, SIDE_ROW_BYTES = 64 };

static int64_t wall_ms(void)
{
    struct timeval t;
    gettimeofday(&t, NULL);
    return (int64_t)t.tv_sec * 1000 + t.tv_usec / 1000;
}

bool bench_nexmark_load_open(struct bench_nexmark_load *l, const struct bench_nexmark_options *o, const char *topic)
{
    memset(l, 0, sizeof(*l));
    l->options = o;
    snprintf(l->topic, sizeof(l->topic), "%s", topic);
    l->batch = writer_of(bench_zeroed(1, BATCH_BYTES), BATCH_BYTES);
    l->sent_ns = bench_zeroed(o->window, sizeof(*l->sent_ns));
    l->rows = bench_zeroed(bench_nexmark_query_count, sizeof(*l->rows));
    return bench_kafka_open(&l->wire, &o->server) == 0;
}

void bench_nexmark_load_close(struct bench_nexmark_load *l)
{
    free(l->batch.base);
    free(l->rows);
    free(l->sent_ns);
    bench_kafka_close(&l->wire);
}

static bool send_batch(struct bench_nexmark_load *l, struct record_batch_writer *batch)
{
    struct kafka_produce_request_partition partition = {.records = record_batch_finish(batch, -1)};
    struct kafka_produce_request_topic topic = {.name = slice_str(l->topic)};
    struct kafka_produce_request ask = {.acks = -1, .timeout_ms = PRODUCE_TIMEOUT_MS};
    topic.partition_data.at = &partition;
    topic.partition_data.count = 1;
    ask.topic_data.at = &topic;
    ask.topic_data.count = 1;
    if (!writer_ok(&l->batch)) {
        client_socket_fail(&l->wire.socket, "a batch has no room for its records");
        return false;
    }
    l->sent_ns[l->requests++ % l->options->window] = client_clock_ns();
    if (bench_kafka_send(&l->wire, KAFKA_API_produce, &ask) != 0)
        return false;
    l->in_flight++;
    return true;
}

static void batch_begin(struct bench_nexmark_load *l, struct record_batch_writer *batch, int64_t now_ms)
{
    struct record_batch head = record_batch_head(0, now_ms);
    l->batch.len = 0;
    record_batch_begin(batch, &l->batch, &head);
}

static bool put(struct bench_nexmark_load *l, struct record_batch_writer *batch, int64_t now_ms,
                const struct slice *key, struct slice value)
{
    l->records++;
    l->bytes += value.len;
    if (record_batch_put(batch, now_ms, key, &value, NULL, 0))
        return true;
    client_socket_fail(&l->wire.socket, "a batch has no room for its records");
    return false;
}

/* What the queries give of it. */
static void count_rows(struct bench_nexmark_load *l, struct slice event)
{
    struct bench_nexmark_bid bid;
    if (!bench_nexmark_bid_read(event, &bid))
        return;
    for (unsigned i = 0; i < bench_nexmark_query_count; i++)
        if (bench_nexmark_queries[i].gives != NULL && bench_nexmark_queries[i].gives(&bid))
            l->rows[i]++;
}

bool bench_nexmark_load_events(struct bench_nexmark_load *l, uint64_t from, unsigned count)
{
    const struct nexmark *nexmark = &l->options->nexmark;
    struct record_batch_writer batch;
    int64_t now_ms = wall_ms();
    uint8_t room[NEXMARK_EVENT_MAX];
    batch_begin(l, &batch, now_ms);
    for (unsigned i = 0; i < count; i++) {
        struct writer event = writer_of(room, sizeof(room));
        nexmark_write(nexmark, nexmark_number(nexmark, from + i), &event);
        count_rows(l, writer_slice(&event));
        if (!put(l, &batch, now_ms, NULL, writer_slice(&event)))
            return false;
    }
    return send_batch(l, &batch);
}

bool bench_nexmark_load_side(struct bench_nexmark_load *l, unsigned from, unsigned count)
{
    struct record_batch_writer batch;
    int64_t now_ms = wall_ms();
    batch_begin(l, &batch, now_ms);
    for (unsigned i = 0; i < count; i++) {
        char row[SIDE_ROW_BYTES], digits[16];
        struct slice key = slice_of(digits, (size_t)snprintf(digits, sizeof(digits), "%u", from + i));
        int len = snprintf(row, sizeof(row), "{\"key\":%u,\"value\":\"value %u\"}", from + i, from + i);
        if (!put(l, &batch, now_ms, &key, slice_of(row, (size_t)len)))
            return false;
    }
    return send_batch(l, &batch);
}

/* The answer to the oldest request; the wire itself knows the number of the newest only. */
static bool answer_take(struct bench_nexmark_load *l, struct slice frame)
{
    int32_t newest = l->wire.correlation_id;
    void *found;
    l->wire.correlation_id = newest - (int32_t)l->in_flight + 1;
    int failed = bench_kafka_decode(&l->wire, KAFKA_API_produce, frame, &found);
    l->wire.correlation_id = newest;
    if (failed != 0)
        return false;
    const struct kafka_produce_response *answer = found;
    if (l->acks != NULL)
        bench_histogram_add(l->acks, client_clock_ns() - l->sent_ns[(l->requests - l->in_flight) % l->options->window],
                            1);
    l->in_flight--;
    if (answer->responses.count != 1 || answer->responses.at[0].partition_responses.count != 1) {
        client_socket_fail(&l->wire.socket, "the answer to Produce is about something else");
        return false;
    }
    int error = answer->responses.at[0].partition_responses.at[0].error_code;
    if (error != 0)
        bench_kafka_refused(&l->wire, "Produce", error);
    return error == 0;
}

/* The answers that have been read. */
static bool answers_take(struct bench_nexmark_load *l)
{
    struct slice frame;
    int got;
    while ((got = bench_kafka_frame_next(&l->wire, &frame)) > 0)
        if (!answer_take(l, frame))
            return false;
    return got == 0;
}

bool bench_nexmark_load_take(struct bench_nexmark_load *l)
{
    return client_socket_fill(&l->wire.socket) >= 0 && answers_take(l);
}

bool bench_nexmark_load_settle(struct bench_nexmark_load *l, unsigned in_flight)
{
    while (answers_take(l)) {
        if (l->in_flight <= in_flight)
            return true;
        ssize_t n = client_socket_fill(&l->wire.socket);
        if (n == 0)
            client_socket_fail(&l->wire.socket, "no answer within %d s", BENCH_ANSWER_TIMEOUT_S);
        if (n <= 0)
            return false;
    }
    return false;
}

bool bench_nexmark_topic_delete(struct bench_kafka_wire *w, const char *topic)
{
    struct slice names = slice_str(topic);
    struct kafka_delete_topics_request ask = {.timeout_ms = PRODUCE_TIMEOUT_MS};
    void *found;
    ask.topic_names.at = &names;
    ask.topic_names.count = 1;
    if (bench_kafka_ask(w, KAFKA_API_delete_topics, &ask, &found) != 0)
        return false;
    const struct kafka_delete_topics_response *answer = found;
    int error = answer->responses.count == 1 ? answer->responses.at[0].error_code : KAFKA_ERR_UNKNOWN_SERVER_ERROR;
    if (error != 0 && error != KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION)
        bench_kafka_refused(w, topic, error);
    return error == 0 || error == KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
}
