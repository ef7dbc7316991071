/* The command line of `millrace bench kafka`: options, defaults, and the table of scenarios. */
#include "bench_kafka.h"

#include "bench_kafka_int.h"
#include "bench_kafka_sink.h"

#include <argp.h>
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
    uint64_t cpu_ns, from_ns = bench_clock_ns();
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

enum option_key {
    KEY_SERVER = 256,
    KEY_PORT_OFFSET,
    KEY_USER,
    KEY_PASSWORD,
    KEY_SCENARIO,
    KEY_PRODUCERS,
    KEY_CONSUMERS,
    KEY_RATE,
    KEY_DURATION,
    KEY_WARMUP,
    KEY_RECORDS,
    KEY_DRAIN,
    KEY_CONNECTIONS,
    KEY_HOLD,
    KEY_PROBE,
    KEY_TOPIC,
    KEY_TOPICS,
    KEY_PARTITIONS,
    KEY_KEEP,
    KEY_SIZE,
    KEY_BATCH,
    KEY_WINDOW,
    KEY_ACKS,
    KEY_COMPRESSION,
    KEY_LEVEL,
    KEY_IDEMPOTENT,
    KEY_PREBUILT,
    KEY_GROUP,
    KEY_FROM,
    KEY_AGAIN,
    KEY_FETCH_MIN,
    KEY_FETCH_MAX,
    KEY_PARTITION_MAX,
    KEY_FETCH_WAIT,
    KEY_CHECK,
    KEY_JSON,
    KEY_QUIET,
    KEY_PROGRESS,
};

static const struct argp_option OPTIONS[] = {
    {NULL, 0, NULL, 0, "Server", 1},
    {"server", KEY_SERVER, "HOST:PORT", 0, "one broker, whose partitions are loaded (default 127.0.0.1:9092)", 0},
    {"port-offset", KEY_PORT_OFFSET, "N", 0, "added to the port", 0},
    {"user", KEY_USER, "NAME", 0, "log in with SASL PLAIN (default: no login)", 0},
    {"password", KEY_PASSWORD, "TEXT", 0, "for --user", 0},
    {NULL, 0, NULL, 0, "What to do", 2},
    {"scenario", KEY_SCENARIO, "NAME", 0,
     "produce-consume (default); latency: one batch at a time; create: --topics one by one, wait for their leaders, "
     "then "
     "delete them; connect: --connections one by one; sink: the load generator's own ceiling",
     0},
    {"producers", KEY_PRODUCERS, "N", 0, "producing connections (default 1)", 0},
    {"consumers", KEY_CONSUMERS, "N", 0, "fetching connections, which share the partitions (default 1)", 0},
    {"rate", KEY_RATE, "N", 0,
     "records per second over all producers, sent when a batch is full (default 0: as fast as it goes)", 0},
    {"duration", KEY_DURATION, "SECONDS", 0, "measured time (default 10)", 0},
    {"warmup", KEY_WARMUP, "SECONDS", 0, "time before it that does not count (default 2)", 0},
    {"records", KEY_RECORDS, "N", 0,
     "produce so many instead of by time; without producers read so many and stop; no warm-up", 0},
    {"drain", KEY_DRAIN, "SECONDS", 0, "give up when nothing moved for so long (default 10)", 0},
    {"connections", KEY_CONNECTIONS, "N", 0, "for scenario connect (default 100)", 0},
    {"hold", KEY_HOLD, "SECONDS", 0, "keep topics or connections so long before removing them", 0},
    {"probe", KEY_PROBE, "DIR", 0, "in scenario latency, a 4 KiB write and fdatasync there after each batch", 0},
    {NULL, 0, NULL, 0, "Topics", 3},
    {"topic", KEY_TOPIC, "NAME", 0, "use this one, made when missing and kept (default: a new one, deleted afterwards)",
     0},
    {"topics", KEY_TOPICS, "N", 0, "NAME-0 … NAME-(N-1), connections take turns (default 1)", 0},
    {"partitions", KEY_PARTITIONS, "N", 0, "of each topic (default 1, or what a topic has that is there)", 0},
    {"keep", KEY_KEEP, NULL, 0, "do not delete topics at the end", 0},
    {NULL, 0, NULL, 0, "Producing", 4},
    {"size", KEY_SIZE, "BYTES", 0, "value of a record (default 100; below 24 there is no stamp in it)", 0},
    {"batch", KEY_BATCH, "N", 0, "records in a batch, which is one request to one partition (default 100)", 0},
    {"window", KEY_WINDOW, "N", 0, "requests in flight per producer (default 5)", 0},
    {"acks", KEY_ACKS, "all|1|0", 0, "what an acknowledgement waits for; 0: there is none (default all)", 0},
    {"compression", KEY_COMPRESSION, "NAME", 0, "none (default), gzip, snappy, lz4, zstd", 0},
    {"level", KEY_LEVEL, "N", 0, "of compression (default: the codec's)", 0},
    {"idempotent", KEY_IDEMPOTENT, NULL, 0, "ask for a producer id and number the batches", 0},
    {"prebuilt", KEY_PREBUILT, NULL, 0,
     "the same records again and again, packed once: only header and checksum are written for each batch, records "
     "carry "
     "no stamp, and there is no end-to-end latency",
     0},
    {NULL, 0, NULL, 0, "Consuming", 5},
    {"group", KEY_GROUP, "NAME", 0,
     "consumers join this group, which shares the partitions out; they go on where it has come to, and commit ten "
     "times a "
     "second",
     0},
    {"from", KEY_FROM, "WHERE", 0, "first or last (default last with producers, first without)", 0},
    {"again", KEY_AGAIN, NULL, 0, "without producers: begin again at the end, for the whole duration", 0},
    {"fetch-min", KEY_FETCH_MIN, "BYTES", 0, "an answer waits for so many (default 1)", 0},
    {"fetch-max", KEY_FETCH_MAX, "BYTES", 0, "most in an answer (default 52428800)", 0},
    {"partition-max", KEY_PARTITION_MAX, "BYTES", 0, "most of one partition in an answer (default 1048576)", 0},
    {"fetch-wait", KEY_FETCH_WAIT, "MS", 0, "how long an answer waits (default 500)", 0},
    {"check", KEY_CHECK, "WHAT", 0, "offsets; crc: and checksums; records: and each record (default)", 0},
    {NULL, 0, NULL, 0, "Output", 6},
    {"json", KEY_JSON, NULL, 0, "one JSON object on standard output", 0},
    {"quiet", KEY_QUIET, NULL, 0, "nothing but the result and errors", 0},
    {"progress", KEY_PROGRESS, NULL, 0, "the live line on standard error also when that is no terminal", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

struct command {
    struct bench_kafka_options o;
    const struct scenario *scenario;
    unsigned port_offset;
    bool from_given;
};

static const struct scenario *parse_scenario(const char *name, const struct argp_state *state)
{
    for (size_t i = 0; i < ARRAY_LEN(SCENARIOS); i++)
        if (strcmp(SCENARIOS[i].name, name) == 0)
            return &SCENARIOS[i];
    argp_error(state, "there is no scenario %s", name);
    return NULL;
}

/* The position of a word in a list that ends with NULL. */
static int parse_word(const char *word, const char *const *words, const struct argp_state *state)
{
    char known[200] = "";
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], word) == 0)
            return i;
        size_t len = strlen(known);
        snprintf(known + len, sizeof(known) - len, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    argp_error(state, "%s is none of %s", word, known);
    return 0;
}

static const char *const ACKS[] = {"all", "1", "0", "-1", NULL};
static const int ACKS_ARE[] = {-1, 1, 0, -1};
static const char *const CODECS[] = {"none", "gzip", "snappy", "lz4", "zstd", NULL};
static const char *const CHECKS[] = {"offsets", "crc", "records", NULL};
static const char *const PLACES[] = {"last", "first", NULL};

static int32_t parse_bytes(const char *text, const struct argp_state *state)
{
    return (int32_t)bench_parse_count(text, 0, INT32_MAX, state);
}

/* One case per option and nothing else: long, but flat. */
static error_t on_option(int key, char *arg, struct argp_state *state)
{
    struct command *c = state->input;
    struct bench_kafka_options *o = &c->o;
    switch (key) {
    case KEY_SERVER:
        if (bench_kafka_server_parse(arg, &o->server) != 0)
            argp_error(state, "%s is not HOST:PORT", arg);
        break;
    case KEY_PORT_OFFSET: c->port_offset = (unsigned)bench_parse_count(arg, 0, 60000, state); break;
    case KEY_USER: o->server.user = arg; break;
    case KEY_PASSWORD: o->server.password = arg; break;
    case KEY_SCENARIO: c->scenario = parse_scenario(arg, state); break;
    case KEY_PRODUCERS: o->producers = (unsigned)bench_parse_count(arg, 0, 10000, state); break;
    case KEY_CONSUMERS: o->consumers = (unsigned)bench_parse_count(arg, 0, 10000, state); break;
    case KEY_RATE: o->rate = bench_parse_number(arg, 1e9, state); break;
    case KEY_DURATION: o->duration_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_WARMUP: o->warmup_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_RECORDS: o->records = bench_parse_count(arg, 0, UINT64_MAX / 2, state); break;
    case KEY_DRAIN: o->drain_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_CONNECTIONS: o->connections = (unsigned)bench_parse_count(arg, 1, 100000, state); break;
    case KEY_HOLD: o->hold_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_PROBE: o->probe_dir = arg; break;
    case KEY_TOPIC:
        if (strlen(arg) >= sizeof(o->topic))
            argp_error(state, "topic names may have at most %zu bytes here", sizeof(o->topic) - 1);
        snprintf(o->topic, sizeof(o->topic), "%s", arg);
        o->topic_kept = true;
        break;
    case KEY_TOPICS: o->topics = (unsigned)bench_parse_count(arg, 1, 100000, state); break;
    case KEY_PARTITIONS: o->partitions = (int32_t)bench_parse_count(arg, 1, 1000000, state); break;
    case KEY_KEEP: o->topic_kept = true; break;
    case KEY_SIZE: o->record_bytes = bench_parse_count(arg, 0, 256u << 20, state); break;
    case KEY_BATCH: o->batch = (unsigned)bench_parse_count(arg, 1, 1000000, state); break;
    case KEY_WINDOW: o->window = (unsigned)bench_parse_count(arg, 1, 1000000, state); break;
    case KEY_ACKS: o->acks = ACKS_ARE[parse_word(arg, ACKS, state)]; break;
    case KEY_COMPRESSION: o->compression = (enum compress_kind)parse_word(arg, CODECS, state); break;
    case KEY_LEVEL: o->level = (int32_t)bench_parse_count(arg, 0, 22, state); break;
    case KEY_IDEMPOTENT: o->idempotent = true; break;
    case KEY_PREBUILT: o->prebuilt = true; break;
    case KEY_GROUP: o->group = arg; break;
    case KEY_FROM:
        o->from_first = parse_word(arg, PLACES, state) == 1;
        c->from_given = true;
        break;
    case KEY_AGAIN: o->again = true; break;
    case KEY_FETCH_MIN: o->fetch_min = parse_bytes(arg, state); break;
    case KEY_FETCH_MAX: o->fetch_max = parse_bytes(arg, state); break;
    case KEY_PARTITION_MAX: o->partition_max = parse_bytes(arg, state); break;
    case KEY_FETCH_WAIT: o->fetch_wait_ms = (int32_t)bench_parse_count(arg, 0, 3600000, state); break;
    case KEY_CHECK: o->check = (enum bench_kafka_check)parse_word(arg, CHECKS, state); break;
    case KEY_JSON: o->json = true; break;
    case KEY_QUIET: o->quiet = true; break;
    case KEY_PROGRESS: o->progress = true; break;
    case ARGP_KEY_ARG: argp_error(state, "%s: there are only options", arg); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp PARSER = {
    OPTIONS,
    on_option,
    NULL,
    "Puts load on a Kafka broker, any from 2.1 on, and measures rates, latencies, order and losses.\v"
    "mb_s counts the bytes of record batches as they are on the wire, value_mb_s those of the records' values.\n"
    "Exit code: 0 clean, 1 could not run or the server refused or closed, 2 records lost, doubled or out of order, 64 "
    "wrong usage.\n"
    "Example: millrace bench kafka --partitions 4 --size 100 --batch 100 --window 10 --duration 10",
    NULL,
    NULL,
    NULL};

static void options_default(struct command *c)
{
    struct bench_kafka_options *o = &c->o;
    memset(c, 0, sizeof(*c));
    bench_kafka_server_parse("127.0.0.1:9092", &o->server);
    c->scenario = &SCENARIOS[0];
    o->producers = o->consumers = o->topics = 1;
    o->connections = 100;
    o->record_bytes = 100;
    o->batch = 100;
    o->window = 5;
    o->acks = -1;
    o->level = COMPRESS_LEVEL_DEFAULT;
    o->duration_s = 10;
    o->warmup_s = 2;
    o->drain_s = 10;
    o->fetch_min = 1;
    o->fetch_max = 50 << 20;
    o->partition_max = 1 << 20;
    o->fetch_wait_ms = 500;
    o->check = BENCH_CHECK_RECORDS;
    o->run_id = ((uint32_t)bench_clock_ns() ^ (uint32_t)getpid() << 12) | 1;
    snprintf(o->topic, sizeof(o->topic), "millrace-bench-%d", (int)getpid());
}

/* What one option means for another. Answers a sentence when they contradict each other. */
static const char *options_settle(struct command *c)
{
    struct bench_kafka_options *o = &c->o;
    if (o->server.port + c->port_offset > 65535)
        return "the port with its offset is above 65535";
    o->server.port += c->port_offset;
    if (!c->from_given)
        o->from_first = o->producers == 0;
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
    if (!o->progress)
        o->progress = !o->quiet && isatty(STDERR_FILENO);
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
    bench_command_begin("millrace bench kafka");
    if (argp_parse(&PARSER, argc, argv, 0, NULL, &c) != 0)
        return BENCH_EXIT_USAGE;
    const char *contradiction = options_settle(&c);
    if (contradiction != NULL) {
        bench_fail("options", contradiction);
        return BENCH_EXIT_USAGE;
    }
    struct bench_report *r = bench_report_new(c.scenario->name);
    report_options(&c, r);
    int code = c.scenario->run(&c.o, r);
    if (code != BENCH_EXIT_FAILED)
        bench_report_print(r, c.o.json, stdout);
    if (code == BENCH_EXIT_VIOLATION)
        bench_fail("checks", "records were lost, doubled, out of order or never acknowledged");
    bench_report_free(r);
    return code;
}
