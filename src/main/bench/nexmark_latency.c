/* The scenario `latency`: events at a rate, windows of one second over them, and how long after the watermark has passed the end of a window its rows
 * are there for a Kafka consumer that waits for them.
 *
 * Event time goes as fast as the clock, in order, so it is known which event moves the watermark (4 s behind the events) past which end. A row's
 * time counts from when that event was handed to the socket, or from when it was due, if the broker did not take it then. Rows come in more
 * than one batch; both are told: of every row, and of the last one of each window. Producer and consumer are one thread over two sockets. */
#include "nexmark_int.h"

#include "fmt/record_batch.h"
#include "pace.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    DELAY_S = 4, /* of the watermark, see the schema */
    TICK_MS = 1,
    QUIET_MS = 700,
    LOST_S = 20,
    FETCH_WAIT_MS = 200,
    FETCH_BYTES = 4 << 20,
};

#define QUERY                                                                                                          \
    "CREATE STREAM result WITH (topic = '%s-latency', partitions = 1) AS SELECT auction, count(*) AS num, window_end " \
    "FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' SECOND)) GROUP BY auction, window_start, "        \
    "window_end"

struct window {
    uint64_t passed_ns; /* the event was sent that moves the watermark past its end; 0: not yet */
    uint64_t last_ns;   /* when its last row came */
};

struct latency {
    const struct bench_nexmark_options *o;
    struct bench_nexmark_load load;
    struct bench_kafka_wire reader;
    bool asked; /* a fetch is under way */
    char topic[2 * BENCH_NEXMARK_NAME_BYTES];
    int64_t offset;
    struct bench_pace pace;
    uint64_t sent, rate, rows, read_at_ns;
    struct window *windows; /* by the second of event time at which they end */
    uint64_t window_count;  /* of which an event moves the watermark past the end */
    struct bench_histogram *of_rows, *of_windows, *acks;
};

/* ---- results ---- */

/* "…T00:00:07Z": the second of the first day; UINT64_MAX: it is no result. */
static uint64_t end_of(struct slice value)
{
    static const char name[] = "\"window_end\":\"";
    const uint8_t *at = memmem(value.ptr, value.len, name, sizeof(name) - 1);
    at = at != NULL ? memchr(at, 'T', (size_t)(value.ptr + value.len - at)) : NULL;
    if (at == NULL || (size_t)(value.ptr + value.len - at) < sizeof("T00:00:00"))
        return UINT64_MAX;
    uint64_t seconds = 0;
    for (unsigned i = 0; i < 3; i++) /* digits end at a colon, or at what is behind the seconds */
        seconds = seconds * 60 + strtoul((const char *)at + 1 + 3 * i, NULL, 10);
    return seconds;
}

static void on_row(struct latency *l, struct slice value, uint64_t now_ns)
{
    uint64_t end = end_of(value);
    l->rows++;
    l->read_at_ns = now_ns;
    if (end > l->window_count || l->windows[end].passed_ns == 0)
        return; /* closed because nothing came any more */
    l->windows[end].last_ns = now_ns;
    if ((double)end >= l->o->warmup_s)
        bench_histogram_add(l->of_rows, now_ns > l->windows[end].passed_ns ? now_ns - l->windows[end].passed_ns : 0, 1);
}

static bool on_records(struct latency *l, struct slice records, uint64_t now_ns)
{
    struct reader left = reader_of(records);
    struct record_batch batch;
    struct record_reader reader;
    struct record record;
    struct slice whole;
    while (record_batch_take(&left, &batch, &whole) == RECORD_OK) {
        if (record_batch_open(whole, NULL, 0, &batch, &reader) != RECORD_OK)
            return client_socket_fail(&l->reader.socket, "a batch of results is damaged") == 0;
        while (record_next(&reader, &record))
            if (record.offset >= l->offset)
                on_row(l, record.value, now_ns);
        l->offset = record_batch_last_offset(&batch) + 1;
    }
    return true;
}

static bool fetch_ask(struct latency *l)
{
    struct kafka_fetch_request_partition row = {.fetch_offset = l->offset,
                                                .current_leader_epoch = -1,
                                                .log_start_offset = -1,
                                                .partition_max_bytes = FETCH_BYTES};
    struct kafka_fetch_request_topic topic = {.topic = slice_str(l->topic)};
    struct kafka_fetch_request ask = {
        .replica_id = -1, .max_wait_ms = FETCH_WAIT_MS, .min_bytes = 1, .max_bytes = FETCH_BYTES, .session_epoch = -1};
    topic.partitions.at = &row;
    topic.partitions.count = 1;
    ask.topics.at = &topic;
    ask.topics.count = 1;
    l->asked = bench_kafka_send(&l->reader, KAFKA_API_fetch, &ask) == 0;
    return l->asked;
}

static bool fetch_take(struct latency *l)
{
    struct slice frame;
    void *found;
    int got = bench_kafka_frame_next(&l->reader, &frame);
    if (got == 0 && client_socket_fill(&l->reader.socket) < 0)
        return false;
    got = got == 0 ? bench_kafka_frame_next(&l->reader, &frame) : got;
    if (got <= 0)
        return got == 0;
    uint64_t now_ns = client_clock_ns();
    if (bench_kafka_decode(&l->reader, KAFKA_API_fetch, frame, &found) != 0)
        return false;
    const struct kafka_fetch_response *answer = found;
    l->asked = false;
    if (answer->responses.count == 0)
        return true;
    const struct kafka_fetch_response_partition *row = &answer->responses.at[0].partitions.at[0];
    if (row->error_code != 0)
        return bench_kafka_refused(&l->reader, "a fetch", row->error_code) == 0;
    return on_records(l, row->records, now_ns);
}

/* ---- events ---- */

/* Event number `at` of these is the one that moves the watermark past the end at that second. */
static void note_passed(struct latency *l, uint64_t from, uint64_t count, uint64_t now_ns)
{
    for (uint64_t at = (from + l->rate - 1) / l->rate * l->rate; at < from + count; at += l->rate) {
        uint64_t second = at / l->rate;
        if (second > DELAY_S && second - DELAY_S <= l->window_count)
            l->windows[second - DELAY_S].passed_ns = bench_pace_stamp(&l->pace, at, now_ns);
    }
}

static bool send_due(struct latency *l)
{
    uint64_t now_ns = client_clock_ns(), left = l->o->events - l->sent;
    uint64_t due = bench_pace_due(&l->pace, l->sent, now_ns);
    due = due < left ? due : left;
    l->pace.held = due > 0 && l->load.in_flight >= l->o->window;
    if (due == 0 || l->pace.held)
        return true;
    uint64_t count = due < l->o->batch ? due : l->o->batch;
    l->pace.held = due > count;
    note_passed(l, l->sent, count, now_ns);
    if (!bench_nexmark_load_events(&l->load, l->sent, (unsigned)count))
        return false;
    l->sent += count;
    return true;
}

/* Whether all is over: rows of the last window have come, and then nothing for a while. */
static bool is_over(const struct latency *l, uint64_t ended_ns)
{
    uint64_t now_ns = client_clock_ns(), quiet_ns = now_ns - l->read_at_ns;
    if (l->sent < l->o->events || l->load.in_flight > 0)
        return false;
    return now_ns - ended_ns > LOST_S * BENCH_NS_PER_S ||
           (l->windows[l->window_count].last_ns != 0 && quiet_ns > (uint64_t)QUIET_MS * BENCH_NS_PER_MS);
}

static bool flow(struct latency *l)
{
    uint64_t ended_ns = 0;
    client_socket_nonblocking(&l->load.wire.socket, true);
    client_socket_nonblocking(&l->reader.socket, true);
    l->pace = bench_pace_of((double)l->rate, 0, 1, client_clock_ns());
    do {
        struct pollfd sockets[] = {{.fd = l->load.wire.socket.fd, .events = POLLIN},
                                   {.fd = l->reader.socket.fd, .events = POLLIN}};
        if (!send_due(l) || (!l->asked && !fetch_ask(l)))
            return false;
        poll(sockets, ARRAY_LEN(sockets), TICK_MS);
        if ((sockets[0].revents != 0 && !bench_nexmark_load_take(&l->load)) ||
            (sockets[1].revents != 0 && !fetch_take(l)))
            return false;
        if (l->sent < l->o->events)
            ended_ns = client_clock_ns();
    } while (!is_over(l, ended_ns) && !bench_interrupted());
    return true;
}

/* ---- the scenario ---- */

static int judge(struct latency *l, struct bench_report *r, const struct bench_nexmark_cpu *before, uint64_t from_ns)
{
    uint64_t missing = 0;
    double seconds = bench_seconds_since(from_ns);
    struct bench_nexmark_cpu after = bench_nexmark_cpu(l->o->pid);
    for (uint64_t end = 1; end <= l->window_count; end++) {
        const struct window *w = &l->windows[end];
        missing += w->last_ns == 0 && !bench_interrupted();
        if (w->last_ns != 0 && (double)end >= l->o->warmup_s)
            bench_histogram_add(l->of_windows, w->last_ns > w->passed_ns ? w->last_ns - w->passed_ns : 0, 1);
    }
    bench_report_number(r, "flow", "events", (double)l->sent, "");
    bench_report_number(r, "flow", "rate", (double)l->rate, "events/s");
    bench_report_number(r, "flow", "rows_out", (double)l->rows, "");
    bench_report_number(r, "flow", "windows", (double)l->window_count, "");
    bench_report_number(r, "flow", "windows_missing", (double)missing, "");
    if (l->o->pid != 0) {
        bench_report_number(r, "flow", "sql_cpus", (after.sql_s - before->sql_s) / seconds, "");
        bench_report_number(r, "flow", "broker_cpus", (after.all_s - before->all_s) / seconds, "");
    }
    bench_report_latency(r, "row latency", l->of_rows);
    bench_report_latency(r, "window latency", l->of_windows);
    bench_report_latency(r, "produce latency", l->acks);
    if (missing == 0)
        return BENCH_EXIT_OK;
    bench_fail("latency", "windows gave no rows");
    return BENCH_EXIT_VIOLATION;
}

static int measure(struct latency *l, struct bench_report *r)
{
    struct bench_nexmark_cpu before = bench_nexmark_cpu(l->o->pid);
    uint64_t from_ns = client_clock_ns();
    if (!bench_nexmark_load_open(&l->load, l->o, l->o->name))
        return bench_fail("connecting", l->load.wire.socket.error);
    l->load.acks = l->acks;
    if (bench_kafka_open(&l->reader, &l->o->server) != 0)
        return bench_fail("connecting", l->reader.socket.error);
    if (flow(l))
        return judge(l, r, &before, from_ns);
    const char *why = l->load.wire.socket.error[0] != '\0' ? l->load.wire.socket.error : l->reader.socket.error;
    return bench_fail("latency", why);
}

int bench_nexmark_latency(const struct bench_nexmark_options *o, struct bench_report *r)
{
    struct latency l = {.o = o, .rate = o->nexmark.rate, .load.wire.socket.fd = -1, .reader.socket.fd = -1};
    struct bench_nexmark_sql sql;
    char text[1024];
    int code = BENCH_EXIT_FAILED;
    l.window_count = (o->events - 1) / l.rate - DELAY_S;
    l.windows = bench_zeroed(l.window_count + 1, sizeof(*l.windows));
    l.of_rows = bench_histogram_new();
    l.of_windows = bench_histogram_new();
    l.acks = bench_histogram_new();
    snprintf(l.topic, sizeof(l.topic), "%s-latency", o->name);
    snprintf(text, sizeof(text), QUERY, o->name);
    bench_nexmark_sql_init(&sql, o);
    if (bench_nexmark_set_up(o, &sql)) {
        if (bench_nexmark_sql_run(&sql, text))
            code = measure(&l, r);
        else
            bench_fail("the query", sql.error);
        if (!bench_nexmark_sql_run(&sql, "DROP QUERY IF EXISTS result"))
            code = bench_fail("dropping the query", sql.error);
        bench_kafka_close(&l.reader);
        if (!o->keep &&
            (bench_kafka_open(&l.reader, &o->server) != 0 || !bench_nexmark_topic_delete(&l.reader, l.topic)))
            code = bench_fail("deleting topics", l.reader.socket.error);
    }
    code = bench_nexmark_tear_down(o, &sql, code);
    bench_nexmark_load_close(&l.load);
    bench_kafka_close(&l.reader);
    bench_nexmark_sql_fini(&sql);
    bench_histogram_free(l.of_rows);
    bench_histogram_free(l.of_windows);
    bench_histogram_free(l.acks);
    free(l.windows);
    return code;
}
