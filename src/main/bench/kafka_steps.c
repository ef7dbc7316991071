/* Scenarios of `millrace bench kafka` that do one thing after the other, blocking: produce latency and connections. */
#include "kafka_int.h"
#include "kafka_load.h"
#include "probe.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LATENCY_WARMUP_ROUNDS = 200 };

void bench_kafka_hold(const struct bench_kafka_options *o)
{
    if (o->hold_s <= 0 || bench_interrupted())
        return;
    fprintf(stderr, "holding for %.1f s\n", o->hold_s);
    fflush(stderr);
    poll(NULL, 0, (int)(o->hold_s * 1000)); /* a signal ends it */
}

/* ---- connect ---- */

int bench_kafka_connect(const struct bench_kafka_options *o, struct bench_report *r)
{
    struct bench_kafka_wire *wires = bench_zeroed(o->connections, sizeof(*wires));
    struct bench_histogram *h = bench_histogram_new();
    unsigned opened = 0;
    int code = 0;
    uint64_t begun_ns = client_clock_ns();
    while (code == 0 && opened < o->connections && !bench_interrupted()) {
        uint64_t from_ns = client_clock_ns();
        if (bench_kafka_open(&wires[opened++], &o->server) != 0)
            code = bench_fail("connecting", wires[opened - 1].socket.error);
        bench_histogram_add(h, client_clock_ns() - from_ns, 1);
        bench_progress(o->progress, "connected", opened, o->connections);
    }
    if (code == 0) {
        bench_report_connects(r, opened, bench_seconds_since(begun_ns), h);
        bench_kafka_hold(o);
    }
    for (unsigned i = 0; i < opened; i++)
        bench_kafka_close(&wires[i]);
    free(wires);
    bench_histogram_free(h);
    return code;
}

/* ---- latency ---- */

struct latency_run {
    struct bench_kafka_wire wire;
    struct bench_kafka_load load;
    struct bench_probe probe;
    struct bench_histogram *acks, *syncs;
};

/* One batch, and its acknowledgement. */
static int round_trip(struct latency_run *run, int32_t number, uint64_t *ret_took_ns)
{
    struct bench_kafka_wire *w = &run->wire;
    struct timespec wall;
    struct slice frame, body;
    int got;
    clock_gettime(CLOCK_REALTIME, &wall);
    struct bench_kafka_send send = {.correlation_id = number,
                                    .wall_ms = (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / BENCH_NS_PER_MS,
                                    .first_seq = (uint64_t)number,
                                    .sent_ns = client_clock_ns()};
    bench_kafka_load_restart(&run->load);
    if (bench_kafka_load_put(&run->load, &send) != 0)
        return client_socket_fail(&w->socket, "a batch cannot be packed: out of memory");
    if (client_socket_send(&w->socket, run->load.out, run->load.end) != 0)
        return -1;
    while ((got = bench_kafka_frame_next(w, &frame)) == 0)
        if (client_socket_fill(&w->socket) <= 0)
            return client_socket_fail(&w->socket, "no answer within %d s", BENCH_ANSWER_TIMEOUT_S);
    if (got < 0)
        return -1;
    *ret_took_ns = client_clock_ns() - send.sent_ns;

    const struct kafka_api *api = kafka_api_find(KAFKA_API_produce);
    struct kafka_form form = kafka_api_form(api, BENCH_KAFKA_PRODUCE_VERSION);
    struct kafka_produce_response answer;
    int32_t answered;
    arena_reset(&w->arena);
    if (!kafka_response_head(frame, api, form, &answered, &body) || answered != number ||
        kafka_decode(api->response, form, body, &w->arena, &answer) != KAFKA_OK || answer.responses.count != 1 ||
        answer.responses.at[0].partition_responses.count != 1)
        return client_socket_fail(&w->socket, "the answer to Produce cannot be read");
    int error = answer.responses.at[0].partition_responses.at[0].error_code;
    return error == 0 ? 0 : bench_kafka_refused(w, "a batch was not stored", error);
}

/* Batches and probe syncs take turns, so both see the same disk in the same second. */
static int latency_rounds(const struct bench_kafka_options *o, struct latency_run *run)
{
    uint64_t rounds = o->records > 0 ? o->records : INT32_MAX, took_ns = 0, sync_ns = 0, from_ns = client_clock_ns();
    uint64_t warm_ns = from_ns + (uint64_t)(o->warmup_s * 1e9), until_ns = warm_ns + (uint64_t)(o->duration_s * 1e9);
    for (uint64_t i = 1; i <= rounds && !bench_interrupted(); i++) {
        if (round_trip(run, (int32_t)i, &took_ns) != 0)
            return bench_fail("latency", run->wire.socket.error);
        if (run->syncs != NULL && bench_probe_sync(&run->probe, &sync_ns) != 0)
            return bench_fail(o->probe_dir, strerror(errno));
        uint64_t now_ns = client_clock_ns();
        if (o->records == 0 && now_ns >= until_ns)
            break;
        if (o->records > 0 ? i <= LATENCY_WARMUP_ROUNDS && rounds > 2 * LATENCY_WARMUP_ROUNDS : now_ns < warm_ns)
            continue;
        bench_histogram_add(run->acks, took_ns, 1);
        if (run->syncs != NULL)
            bench_histogram_add(run->syncs, sync_ns, 1);
        bench_progress(o->progress && o->records > 0, "acknowledged", i, rounds);
    }
    return 0;
}

static int latency_open(const struct bench_kafka_options *o, struct latency_run *run)
{
    char topic[BENCH_TOPIC_BYTES];
    int32_t partition = 0;
    int64_t offset;
    bench_kafka_topic_name(o, 0, topic);
    struct bench_kafka_shape shape = {.topic = topic,
                                      .record_bytes = o->record_bytes,
                                      .records = o->batch,
                                      .acks = o->acks,
                                      .compression = o->compression,
                                      .level = o->level,
                                      .prebuilt = o->prebuilt,
                                      .run_id = o->run_id,
                                      .producer_id = -1,
                                      .slots_max = 1};
    if (bench_kafka_open(&run->wire, &o->server) != 0 ||
        bench_kafka_offsets(&run->wire, topic, &partition, 1, -1, &offset) != 0)
        return bench_fail("latency", run->wire.socket.error);
    if (bench_kafka_load_init(&run->load, &shape) != 0)
        return bench_fail("latency", "out of memory");
    if (o->probe_dir == NULL)
        return 0;
    if (bench_probe_open(&run->probe, o->probe_dir) != 0)
        return bench_fail(o->probe_dir, strerror(errno));
    run->syncs = bench_histogram_new();
    return 0;
}

int bench_kafka_latency(const struct bench_kafka_options *o, struct bench_report *r)
{
    struct latency_run run = {.wire.socket.fd = -1, .probe.fd = -1, .acks = bench_histogram_new()};
    int32_t partitions;
    if (bench_kafka_set_up(o, &partitions) != 0) {
        bench_histogram_free(run.acks);
        return BENCH_EXIT_FAILED;
    }
    int code = latency_open(o, &run);
    if (code == 0)
        code = latency_rounds(o, &run);
    bench_report_number(r, "rounds", "batches", (double)bench_histogram_count(run.acks), "");
    bench_report_latency(r, "acks latency", run.acks);
    if (run.syncs != NULL) {
        bench_report_syncs(r, run.acks, run.syncs);
        bench_histogram_free(run.syncs);
    }
    bench_probe_close(&run.probe);
    bench_kafka_load_fini(&run.load);
    bench_kafka_close(&run.wire);
    bench_histogram_free(run.acks);
    int tidy = bench_kafka_tear_down(o);
    return code != 0 ? code : tidy;
}
