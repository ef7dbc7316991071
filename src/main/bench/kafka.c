/* The command line of `millrace bench kafka`: options, defaults, and the table of scenarios. */
#include "kafka.h"

#include "kafka_int.h"
#include "kafka_sink.h"
#include "option.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SINK_BYTES = 64 << 20 };

static int scenario_sink(const struct bench_kafka_options *o, struct bench_report *r);

static const struct scenario {
    const char *name;
    int (*run)(const struct bench_kafka_options *o, struct bench_report *r);
} SCENARIOS[] = {
    {"produce-consume", bench_kafka_run}, {"latency", bench_kafka_latency}, {"create", bench_kafka_create},
    {"connect", bench_kafka_connect},     {"sink", scenario_sink},
};

/* One direction: producers only, or consumers only of what the producers have left there. */
static int sink_pass(const struct bench_kafka_options *o, struct bench_report *r, unsigned port, bool produce)
{
    struct bench_kafka_options pass = *o;
    const char *group = produce ? "producing" : "consuming", *from = produce ? "produce" : "consume";
    struct bench_report *rows = bench_report_new(group);
    snprintf(pass.server.host, sizeof(pass.server.host), "127.0.0.1");
    pass.server.port = port;
    pass.producers = produce ? o->producers : 0;
    pass.consumers = produce ? 0 : o->consumers;
    pass.from_first = pass.again = !produce;
    pass.topic_kept = true;
    if (!produce)
        pass.records = 0;
    int code = bench_kafka_run(&pass, rows);
    bench_report_number(r, group, "rate", bench_report_find(rows, from, "rate"), "records/s");
    bench_report_number(r, group, "mb_s", bench_report_find(rows, from, "mb_s"), "MB/s");
    bench_report_number(r, group, "cpu_ns_per_record", bench_report_find(rows, "load generator", "cpu_ns_per_record"),
                        "");
    bench_report_free(rows);
    return code;
}

static int scenario_sink(const struct bench_kafka_options *o, struct bench_report *r)
{
    struct bench_kafka_sink_kind kind = {.partitions = o->partitions > 0 ? o->partitions : 1, .keep_bytes = SINK_BYTES};
    char error[200];
    unsigned port;
    uint64_t cpu_ns, from_ns = client_clock_ns();
    struct bench_kafka_sink *sink = bench_kafka_sink_start(&kind, &port, error, sizeof(error));
    if (sink == NULL)
        return bench_fail("sink", error);
    int code = o->producers > 0 ? sink_pass(o, r, port, true) : 0;
    if (code == 0 && o->producers > 0 && o->consumers > 0)
        code = sink_pass(o, r, port, false);
    bench_kafka_sink_stop(sink, &cpu_ns);
    bench_report_number(r, "sink", "cpu_share", (double)cpu_ns / 1e9 / bench_seconds_since(from_ns), "");
    return code;
}

struct command {
    struct bench_kafka_options o;
    const struct scenario *scenario;
    unsigned port_offset;
    unsigned acks; /* a place in ACKS */
    enum { FROM_LAST, FROM_FIRST, FROM_UNSAID } from;
};

static void parse_server(void *command, const char *text, const struct argp_state *state)
{
    struct command *c = command;
    if (bench_kafka_server_parse(text, &c->o.server) != 0)
        argp_error(state, "%s is not HOST:PORT", text);
}

static void parse_topic(void *command, const char *name, const struct argp_state *state)
{
    struct bench_kafka_options *o = &((struct command *)command)->o;
    if (strlen(name) >= sizeof(o->topic))
        argp_error(state, "topic names may have at most %zu bytes here", sizeof(o->topic) - 1);
    snprintf(o->topic, sizeof(o->topic), "%s", name);
    o->topic_kept = true;
}

static const char *const ACKS[] = {"all", "1", "0", "-1", NULL};
static const int ACKS_ARE[] = {-1, 1, 0, -1};
static const char *const CODECS[] = {"none", "gzip", "snappy", "lz4", "zstd", NULL};
static const char *const CHECKS[] = {"offsets", "crc", "records", NULL};
static const char *const PLACES[] = {[FROM_LAST] = "last", [FROM_FIRST] = "first", [FROM_UNSAID] = NULL};

static const struct bench_option OPTIONS[] = {
    BENCH_HEADING("Server"),
    BENCH_OWN(parse_server, "server", "HOST:PORT", "one broker, whose partitions are loaded (default 127.0.0.1:9092)"),
    BENCH_PORT_OFFSET("added to the port"),
    BENCH_USER("log in with SASL PLAIN (default: no login)"),
    BENCH_PASSWORD(),
    BENCH_HEADING("What to do"),
    BENCH_SCENARIO(
        SCENARIOS,
        "produce-consume (default); latency: one batch at a time; create: --topics one by one, wait for their leaders, "
        "then delete them; connect: --connections one by one; sink: the load generator's own ceiling"),
    BENCH_COUNT(o.producers, 0, 10000, "producers", "N", "producing connections (default 1)"),
    BENCH_COUNT(o.consumers, 0, 10000, "consumers", "N",
                "fetching connections, which share the partitions (default 1)"),
    BENCH_RATE("records per second over all producers, sent when a batch is full (default 0: as fast as it goes)"),
    BENCH_DURATION(),
    BENCH_WARMUP(BENCH_WARMUP_TEXT),
    BENCH_MESSAGES(o.records, "records",
                   "produce so many instead of by time; without producers read so many and stop; no warm-up"),
    BENCH_DRAIN(BENCH_DRAIN_TEXT),
    BENCH_CONNECTIONS(),
    BENCH_HOLD("keep topics or connections so long before removing them"),
    BENCH_TEXT(o.probe_dir, "probe", "DIR", "in scenario latency, a 4 KiB write and fdatasync there after each batch"),
    BENCH_HEADING("Topics"),
    BENCH_OWN(parse_topic, "topic", "NAME",
              "use this one, made when missing and kept (default: a new one, deleted afterwards)"),
    BENCH_COUNT(o.topics, 1, 100000, "topics", "N", "NAME-0 … NAME-(N-1), connections take turns (default 1)"),
    BENCH_COUNT(o.partitions, 1, 1000000, "partitions", "N",
                "of each topic (default 1, or what a topic has that is there)"),
    BENCH_FLAG(o.topic_kept, "keep", "do not delete topics at the end"),
    BENCH_HEADING("Producing"),
    BENCH_COUNT(o.record_bytes, 0, 256u << 20, "size", "BYTES",
                "value of a record (default 100; below 24 there is no stamp in it)"),
    BENCH_COUNT(o.batch, 1, 1000000, "batch", "N",
                "records in a batch, which is one request to one partition (default 100)"),
    BENCH_COUNT(o.window, 1, 1000000, "window", "N", "requests in flight per producer (default 5)"),
    BENCH_WORD(acks, ACKS, "acks", "all|1|0", "what an acknowledgement waits for; 0: there is none (default all)"),
    BENCH_WORD(o.compression, CODECS, "compression", "NAME", "none (default), gzip, snappy, lz4, zstd"),
    BENCH_COUNT(o.level, 0, 22, "level", "N", "of compression (default: the codec's)"),
    BENCH_FLAG(o.idempotent, "idempotent", "ask for a producer id and number the batches"),
    BENCH_FLAG(o.prebuilt, "prebuilt",
               "the same records again and again, packed once: only header and checksum are written for each batch, "
               "records carry no stamp, and there is no end-to-end latency"),
    BENCH_HEADING("Consuming"),
    BENCH_TEXT(o.group, "group", "NAME",
               "consumers join this group, which shares the partitions out; they go on where it has come to, and "
               "commit ten times a second"),
    BENCH_WORD(from, PLACES, "from", "WHERE", "first or last (default last with producers, first without)"),
    BENCH_FLAG(o.again, "again", "without producers: begin again at the end, for the whole duration"),
    BENCH_COUNT(o.fetch_min, 0, INT32_MAX, "fetch-min", "BYTES", "an answer waits for so many (default 1)"),
    BENCH_COUNT(o.fetch_max, 0, INT32_MAX, "fetch-max", "BYTES", "most in an answer (default 52428800)"),
    BENCH_COUNT(o.partition_max, 0, INT32_MAX, "partition-max", "BYTES",
                "most of one partition in an answer (default 1048576)"),
    BENCH_COUNT(o.fetch_wait_ms, 0, 3600000, "fetch-wait", "MS", "how long an answer waits (default 500)"),
    BENCH_WORD(o.check, CHECKS, "check", "WHAT", "offsets; crc: and checksums; records: and each record (default)"),
    BENCH_HEADING("Output"),
    BENCH_OUTPUT(),
};

static const char DOC[] =
    "Puts load on a Kafka broker, any from 2.1 on, and measures rates, latencies, order and losses.\v"
    "mb_s counts the bytes of record batches as they are on the wire, value_mb_s those of the records' values.\n"
    "Exit code: 0 clean, 1 could not run or the server refused or closed, 2 records lost, doubled or out of order, 64 "
    "wrong usage, 130 cut short by Ctrl-C.\n"
    "Example: millrace bench kafka --partitions 4 --size 100 --batch 100 --window 10 --duration 10";

static void options_default(struct command *c)
{
    struct bench_kafka_options *o = &c->o;
    memset(c, 0, sizeof(*c));
    bench_kafka_server_parse("127.0.0.1:9092", &o->server);
    c->scenario = &SCENARIOS[0];
    c->from = FROM_UNSAID;
    o->producers = o->consumers = o->topics = 1;
    o->connections = 100;
    o->record_bytes = 100;
    o->batch = 100;
    o->window = 5;
    o->level = COMPRESS_LEVEL_DEFAULT;
    o->duration_s = 10;
    o->warmup_s = 2;
    o->drain_s = 10;
    o->fetch_min = 1;
    o->fetch_max = 50 << 20;
    o->partition_max = 1 << 20;
    o->fetch_wait_ms = 500;
    o->check = BENCH_CHECK_RECORDS;
    o->run_id = bench_run_id();
    snprintf(o->topic, sizeof(o->topic), "millrace-bench-%d", (int)getpid());
}

/* What one option means for another. Answers a sentence when they contradict each other. */
static const char *options_settle(struct command *c)
{
    struct bench_kafka_options *o = &c->o;
    if (o->server.port + c->port_offset > 65535)
        return "the port with its offset is above 65535";
    o->server.port += c->port_offset;
    o->acks = ACKS_ARE[c->acks];
    o->from_first = c->from == FROM_UNSAID ? o->producers == 0 : c->from == FROM_FIRST;
    if (c->scenario->run == bench_kafka_latency) {
        o->topics = 1;
        if (o->acks == 0)
            return "with --acks 0 there is no acknowledgement whose latency could be measured";
    }
    if (o->producers == 0 && o->consumers == 0)
        return "neither producers nor consumers";
    if (o->again && (o->producers > 0 || !o->from_first))
        return "--again is for consumers without producers that begin at the first offset";
    if (o->group != NULL && (o->topics > 1 || o->consumers == 0 || o->again))
        return "--group is for consumers of one topic that read it once";
    if (o->idempotent && o->acks != -1)
        return "an idempotent producer needs --acks all";
    if (o->producers == 0 && !o->topic_kept)
        return "without producers there is nothing to read in a new topic: name one with --topic";
    o->progress = bench_progress_wanted(o->progress, o->quiet);
    return NULL;
}

static void report_options(const struct command *c, struct bench_report *r)
{
    const struct bench_kafka_options *o = &c->o;
    char text[300];
    snprintf(text, sizeof(text), "%s:%u", o->server.host, o->server.port);
    if (c->scenario->run != scenario_sink)
        bench_report_text(r, "load", "server", text);
    if (c->scenario->run != bench_kafka_run && c->scenario->run != scenario_sink)
        return;
    bench_report_number(r, "load", "producers", o->producers, "");
    bench_report_number(r, "load", "consumers", o->consumers, "");
    bench_report_number(r, "load", "topics", o->topics, "");
    if (o->group != NULL)
        bench_report_text(r, "load", "group", o->group);
    if (o->producers == 0)
        return;
    bench_report_number(r, "load", "value_bytes", (double)o->record_bytes, "");
    bench_report_number(r, "load", "batch", o->batch, "");
    bench_report_number(r, "load", "window", o->window, "");
    bench_report_text(r, "load", "acks", o->acks < 0 ? "all" : o->acks == 0 ? "none" : "1");
    bench_report_text(r, "load", "compression", compress_name(o->compression));
    bench_report_text(r, "load", "records_are", o->prebuilt ? "prebuilt" : "stamped");
    bench_report_text(r, "load", "producers_are", o->idempotent ? "idempotent" : "plain");
}

int bench_kafka_main(int argc, char **argv)
{
    struct command c;
    options_default(&c);
    if (!bench_options_parse("millrace bench kafka", OPTIONS, ARRAY_LEN(OPTIONS), DOC, argc, argv, &c))
        return BENCH_EXIT_USAGE;
    const char *contradiction = options_settle(&c);
    if (contradiction != NULL)
        return bench_refuse(contradiction);
    struct bench_report *r = bench_report_new(c.scenario->name);
    report_options(&c, r);
    return bench_command_end(r, c.scenario->run(&c.o, r), c.o.json,
                             "records were lost, doubled, out of order or never acknowledged");
}
