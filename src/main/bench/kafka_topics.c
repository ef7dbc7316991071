/* Topics of `millrace bench kafka`: made when missing, looked at, waited for, deleted. Blocking, not measured, except by the
 * scenario create.
 *
 * A topic just created may have no leader for a moment, or one that does not know it yet: Metadata, then ListOffsets (which
 * only a leader answers) are asked again until they stop answering with a retriable error. */
#include "kafka_int.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEADER_TIMEOUT_S = 60, AGAIN_MS = 20, TOPICS_TIMEOUT_MS = 60000 };

void bench_kafka_topic_name(const struct bench_kafka_options *o, unsigned idx, char *ret_name)
{
    if (o->topics == 1)
        snprintf(ret_name, BENCH_TOPIC_BYTES, "%s", o->topic);
    else
        snprintf(ret_name, BENCH_TOPIC_BYTES, "%s-%u", o->topic, idx);
}

int bench_kafka_topic_create(struct bench_kafka_wire *w, const char *name, int32_t partitions)
{
    struct kafka_create_topics_request_topic topic = {.name = slice_str(name), .num_partitions = partitions};
    struct kafka_create_topics_request ask = {.timeout_ms = TOPICS_TIMEOUT_MS};
    void *found;
    topic.replication_factor = 1;
    ask.topics.at = &topic;
    ask.topics.count = 1;
    if (bench_kafka_ask(w, KAFKA_API_create_topics, &ask, &found) != 0)
        return -1;
    const struct kafka_create_topics_response *answer = found;
    if (answer->topics.count != 1)
        return client_socket_fail(&w->socket, "the answer to CreateTopics names %d topics, not one",
                                  answer->topics.count);
    const struct kafka_create_topics_response_topic *row = &answer->topics.at[0];
    if (row->error_code == KAFKA_ERR_TOPIC_ALREADY_EXISTS)
        return 1;
    return row->error_code == 0 ? 0 : bench_kafka_refused(w, name, row->error_code);
}

static int topic_delete(struct bench_kafka_wire *w, const char *name)
{
    struct slice names = slice_str(name);
    struct kafka_delete_topics_request ask = {.timeout_ms = TOPICS_TIMEOUT_MS};
    void *found;
    ask.topic_names.at = &names;
    ask.topic_names.count = 1;
    if (bench_kafka_ask(w, KAFKA_API_delete_topics, &ask, &found) != 0)
        return -1;
    const struct kafka_delete_topics_response *answer = found;
    if (answer->responses.count != 1)
        return client_socket_fail(&w->socket, "the answer to DeleteTopics names %d topics, not one",
                                  answer->responses.count);
    int error = answer->responses.at[0].error_code;
    return error == 0 ? 0 : bench_kafka_refused(w, name, error);
}

/* Its partitions, when all are led by one broker; 0: not yet. */
static int32_t topic_led(struct bench_kafka_wire *w, const char *name)
{
    struct kafka_metadata_request_topic topic = {.name = slice_str(name)};
    struct kafka_metadata_request ask = {.allow_auto_topic_creation = !w->creates};
    void *found;
    ask.topics.at = &topic;
    ask.topics.count = 1;
    if (bench_kafka_ask(w, KAFKA_API_metadata, &ask, &found) != 0)
        return -1;
    const struct kafka_metadata_response *answer = found;
    if (answer->topics.count != 1)
        return client_socket_fail(&w->socket, "the answer to Metadata names %d topics, not one", answer->topics.count);
    const struct kafka_metadata_response_topic *row = &answer->topics.at[0];
    int error = row->error_code;
    for (int32_t i = 0; i < row->partitions.count && error == 0; i++) {
        error = row->partitions.at[i].error_code;
        if (error == 0 && row->partitions.at[i].leader_id != row->partitions.at[0].leader_id)
            return client_socket_fail(
                &w->socket,
                "partitions of %s are led by several brokers: this generator loads one, so create "
                "a topic whose partitions all have their first replica there, and name it with "
                "--topic",
                name);
    }
    if (error != 0 && !kafka_error_row(error)->retriable)
        return bench_kafka_refused(w, name, error);
    return error != 0 ? 0 : row->partitions.count;
}

static int topic_await(const struct bench_kafka_options *o, struct bench_kafka_wire *w, const char *name,
                       int32_t *ret_partitions)
{
    uint64_t from_ns = client_clock_ns();
    int32_t led;
    while ((led = topic_led(w, name)) == 0) {
        if (bench_seconds_since(from_ns) > LEADER_TIMEOUT_S)
            return client_socket_fail(&w->socket, "topic %s has no leader after %d s", name, LEADER_TIMEOUT_S);
        poll(NULL, 0, AGAIN_MS);
    }
    if (led > 0 && o->partitions > 0 && led != o->partitions)
        return client_socket_fail(
            &w->socket,
            "topic %s is there with %d partitions, and --partitions asks for %d: leave it out, or "
            "use another topic",
            name, led, o->partitions);
    *ret_partitions = led;
    return led < 0 ? -1 : 0;
}

int bench_kafka_set_up(const struct bench_kafka_options *o, int32_t *ret_partitions)
{
    struct bench_kafka_wire w;
    char name[BENCH_TOPIC_BYTES];
    int32_t first = 0;
    int failed = bench_kafka_open(&w, &o->server);
    for (unsigned i = 0; i < o->topics && failed == 0; i++) {
        bench_kafka_topic_name(o, i, name);
        if (w.creates)
            failed = bench_kafka_topic_create(&w, name, o->partitions > 0 ? o->partitions : 1) < 0;
        if (failed == 0)
            failed = topic_await(o, &w, name, ret_partitions);
        if (failed == 0 && first != 0 && *ret_partitions != first)
            failed = client_socket_fail(&w.socket, "topic %s has %d partitions, the first has %d", name,
                                        *ret_partitions, first);
        first = *ret_partitions;
    }
    if (failed != 0)
        bench_fail("setting up topics", w.socket.error);
    bench_kafka_close(&w);
    return failed != 0 ? -1 : 0;
}

int bench_kafka_tear_down(const struct bench_kafka_options *o)
{
    struct bench_kafka_wire w;
    char name[BENCH_TOPIC_BYTES];
    if (o->topic_kept)
        return 0;
    int failed = bench_kafka_open(&w, &o->server);
    for (unsigned i = 0; i < o->topics && failed == 0; i++) {
        bench_kafka_topic_name(o, i, name);
        failed = topic_delete(&w, name);
    }
    if (failed != 0)
        bench_fail("deleting topics", w.socket.error);
    bench_kafka_close(&w);
    return failed != 0 ? BENCH_EXIT_FAILED : 0;
}

/* How many of the partitions have no offset in the answer, and the last error code in it. */
static int32_t offsets_take(const struct kafka_list_offsets_response *answer, const int32_t *partitions, int32_t count,
                            int64_t *ret_offsets, int *ret_error)
{
    int32_t left = count;
    *ret_error = 0;
    for (int32_t i = 0; answer->topics.count == 1 && i < answer->topics.at[0].partitions.count; i++) {
        const struct kafka_list_offsets_response_partition *row = &answer->topics.at[0].partitions.at[i];
        if (row->error_code != 0)
            *ret_error = row->error_code;
        for (int32_t k = 0; k < count && row->error_code == 0; k++)
            if (partitions[k] == row->partition_index) {
                ret_offsets[k] = row->offset;
                left--;
            }
    }
    return left;
}

static int offsets_ask(struct bench_kafka_wire *w, const struct kafka_list_offsets_request *ask,
                       const int32_t *partitions, int64_t *ret_offsets)
{
    uint64_t from_ns = client_clock_ns();
    for (;;) {
        void *found;
        int error;
        if (bench_kafka_ask(w, KAFKA_API_list_offsets, ask, &found) != 0)
            return -1;
        if (offsets_take(found, partitions, ask->topics.at[0].partitions.count, ret_offsets, &error) == 0)
            return 0;
        if (error == 0)
            return client_socket_fail(&w->socket, "the answer to ListOffsets leaves out partitions");
        if (!kafka_error_row(error)->retriable || bench_seconds_since(from_ns) > LEADER_TIMEOUT_S)
            return bench_kafka_refused(w, "ListOffsets", error);
        poll(NULL, 0, AGAIN_MS);
    }
}

int bench_kafka_offsets(struct bench_kafka_wire *w, const char *topic, const int32_t *partitions, int32_t count,
                        int64_t time, int64_t *ret_offsets)
{
    struct kafka_list_offsets_request_partition *rows = bench_zeroed((size_t)count, sizeof(*rows));
    struct kafka_list_offsets_request_topic named = {.name = slice_str(topic)};
    struct kafka_list_offsets_request ask = {.replica_id = -1};
    for (int32_t i = 0; i < count; i++)
        rows[i] = (struct kafka_list_offsets_request_partition){
            .partition_index = partitions[i], .current_leader_epoch = -1, .timestamp = time};
    named.partitions.at = rows;
    named.partitions.count = count;
    ask.topics.at = &named;
    ask.topics.count = 1;
    int failed = offsets_ask(w, &ask, partitions, ret_offsets);
    free(rows);
    return failed;
}

/* ---- scenario create ---- */

/* Creates them until it is interrupted, and counts them into *made; or deletes so many. */
static int each_topic(const struct bench_kafka_options *o, struct bench_kafka_wire *w, bool create, unsigned *made,
                      struct bench_histogram *h)
{
    char name[BENCH_TOPIC_BYTES];
    unsigned count = create ? o->topics : *made;
    for (unsigned i = 0; i < count && !(create && bench_interrupted()); i++) {
        bench_kafka_topic_name(o, i, name);
        uint64_t from_ns = client_clock_ns();
        int failed =
            create ? bench_kafka_topic_create(w, name, o->partitions > 0 ? o->partitions : 1) : topic_delete(w, name);
        if (failed < 0)
            return bench_fail(create ? "creating" : "deleting", w->socket.error);
        if (failed > 0)
            return bench_fail(name, "this topic is there already: name another with --topic");
        bench_histogram_add(h, client_clock_ns() - from_ns, 1);
        *made = create ? i + 1u : *made;
        bench_progress(o->progress, create ? "created" : "deleted", i + 1u, count);
    }
    return 0;
}

int bench_kafka_create(const struct bench_kafka_options *o, struct bench_report *r)
{
    struct bench_kafka_wire w;
    struct bench_histogram *h = bench_histogram_new();
    char name[BENCH_TOPIC_BYTES];
    int32_t partitions = 0;
    unsigned made = 0;
    int code = bench_kafka_open(&w, &o->server) != 0 ? bench_fail("connecting", w.socket.error) : 0;
    uint64_t from_ns = client_clock_ns();
    if (code == 0 && (code = each_topic(o, &w, true, &made, h)) == 0) {
        double asked_s = bench_seconds_since(from_ns);
        for (unsigned i = 0; i < made && code == 0; i++) {
            bench_kafka_topic_name(o, i, name);
            if (topic_await(o, &w, name, &partitions) != 0)
                code = bench_fail("waiting for leaders", w.socket.error);
        }
        bench_report_number(r, "create", "topics", made, "");
        bench_report_number(r, "create", "partitions", made * (double)partitions, "");
        bench_report_number(r, "create", "answered_s", asked_s, "");
        bench_report_number(r, "create", "seconds", bench_seconds_since(from_ns), "");
        bench_report_latency(r, "create latency", h);
        if (code == 0)
            bench_kafka_hold(o);
    }
    bench_histogram_reset(h);
    from_ns = client_clock_ns();
    if (code == 0 && !o->topic_kept && (code = each_topic(o, &w, false, &made, h)) == 0) {
        bench_report_number(r, "delete", "seconds", bench_seconds_since(from_ns), "");
        bench_report_latency(r, "delete latency", h);
    }
    bench_kafka_close(&w);
    bench_histogram_free(h);
    return code;
}
