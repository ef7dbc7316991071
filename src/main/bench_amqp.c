/* The command line of `millrace bench amqp`: options, defaults, and the table of scenarios.
 *
 * The generator is part of the broker's binary so that whoever doubts a number can repeat it against any server with one
 * command, but it shares no code with the broker. `sink` runs it against a server thread that does nothing, which tells
 * how much of a measured rate could be the generator's own limit.
 */
#include "bench_amqp.h"

#include "bench_amqp_int.h"
#include "bench_clock.h"
#include "bench_sink.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- scenarios ---- */

static int scenario_sink(const struct bench_options *o, struct bench_report *r);

static const struct scenario {
    const char *name;
    int (*run)(const struct bench_options *o, struct bench_report *r);
    bool needs_server;
} SCENARIOS[] = {
    {"publish-consume", bench_run_publish_consume, true},
    {"latency", bench_steps_latency, true},
    {"declare", bench_steps_declare, true},
    {"connect", bench_steps_connect, true},
    {"get", bench_steps_get, true},
    {"sink", scenario_sink, false},
    {"fdatasync", bench_steps_fdatasync, false},
};

/* One direction against a fresh sink: producers only, or consumers only. */
static int sink_pass(const struct bench_options *o, struct bench_report *r, bool publish)
{
    struct bench_options pass = *o;
    char error[200];
    uint64_t cpu_ns = 0;
    struct bench_report *rows = bench_report_new(publish ? "sink, publishing" : "sink, consuming");
    struct bench_sink *sink = bench_sink_start(o->body_bytes, o->run_id, &pass.uri.port, error, sizeof(error));
    if (sink == NULL) {
        bench_report_free(rows);
        return bench_fail("sink", error);
    }
    snprintf(pass.uri.host, sizeof(pass.uri.host), "127.0.0.1");
    pass.producers = publish ? o->producers : 0;
    pass.consumers = publish ? 0 : o->consumers;
    pass.synthetic = !publish;
    if (!publish)
        pass.messages = 0;
    uint64_t from_ns = bench_clock_ns();
    int code = bench_run_publish_consume(&pass, rows);
    double took_s = (double)(bench_clock_ns() - from_ns) / 1e9;
    bench_sink_stop(sink, &cpu_ns);
    const char *group = publish ? "publishing" : "consuming";
    const char *from = publish ? "publish" : "consume";
    bench_report_number(r, group, "rate", bench_report_find(rows, from, "rate"), "msg/s");
    bench_report_number(r, group, "per_core_rate", bench_report_find(rows, "load generator", "per_core_rate"), "msg/s");
    bench_report_number(r, group, "cpu_ns_per_message", bench_report_find(rows, "load generator", "cpu_ns_per_message"),
                        "");
    bench_report_number(r, group, "sink_cpu_share", (double)cpu_ns / 1e9 / took_s, "");
    if (publish && o->window > 0)
        bench_report_number(r, group, "confirm_p50_us", bench_report_find(rows, "confirm latency", "p50_us"), "");
    bench_report_free(rows);
    return code;
}

static int scenario_sink(const struct bench_options *o, struct bench_report *r)
{
    int code = o->producers > 0 ? sink_pass(o, r, true) : 0;
    if (code == 0 && o->consumers > 0)
        code = sink_pass(o, r, false);
    return code;
}

/* ---- options ---- */

enum option_key {
    KEY_URI = 256,
    KEY_PORT_OFFSET,
    KEY_SCENARIO,
    KEY_PRODUCERS,
    KEY_CONSUMERS,
    KEY_THREADS,
    KEY_CONNECTIONS,
    KEY_CHANNELS,
    KEY_SIZE,
    KEY_WINDOW,
    KEY_RATE,
    KEY_DURATION,
    KEY_MESSAGES,
    KEY_WARMUP,
    KEY_DRAIN,
    KEY_HOLD,
    KEY_GATHER,
    KEY_PERSISTENT,
    KEY_TRANSIENT,
    KEY_DURABLE,
    KEY_NOT_DURABLE,
    KEY_MANDATORY,
    KEY_QUEUE,
    KEY_QUEUES,
    KEY_QUEUE_TYPE,
    KEY_OFFSET,
    KEY_KEEP,
    KEY_AUTO_ACK,
    KEY_PREFETCH,
    KEY_ACK_EVERY,
    KEY_FRAME_MAX,
    KEY_HEARTBEAT,
    KEY_DATA,
    KEY_PROBE,
    KEY_JSON,
    KEY_QUIET,
    KEY_PROGRESS,
};

static const struct argp_option OPTIONS[] = {
    {NULL, 0, NULL, 0, "Server", 1},
    {"uri", KEY_URI, "URI", 0,
     "amqp://user:password@host:port/vhost, or amqps:// for TLS (default amqp://guest:guest@127.0.0.1:5672/)", 0},
    {"port-offset", KEY_PORT_OFFSET, "N", 0, "added to the port", 0},
    {"frame-max", KEY_FRAME_MAX, "BYTES", 0, "largest frame to ask for (default 131072)", 0},
    {"heartbeat", KEY_HEARTBEAT, "SECONDS", 0, "0 for none (default: what the server proposes)", 0},
    {NULL, 0, NULL, 0, "What to do", 2},
    {"scenario", KEY_SCENARIO, "NAME", 0,
     "publish-consume (default); latency: one publish at a time; declare: --queues one by one, then delete them; "
     "connect: "
     "--connections one by one; get: basic.get one by one; sink: the load generator's own ceiling; fdatasync: the disk",
     0},
    {"producers", KEY_PRODUCERS, "N", 0, "publishing connections (default 1)", 0},
    {"consumers", KEY_CONSUMERS, "N", 0, "consuming connections (default 1)", 0},
    {"threads", KEY_THREADS, "1|2", 0, "2: consumers on a thread of their own (default 1)", 0},
    {"rate", KEY_RATE, "N", 0, "messages per second over all producers (default 0: as fast as it goes)", 0},
    {"duration", KEY_DURATION, "SECONDS", 0, "measured time (default 10)", 0},
    {"warmup", KEY_WARMUP, "SECONDS", 0, "time before it that does not count (default 2)", 0},
    {"messages", KEY_MESSAGES, "N", 0,
     "publish so many instead of by time; without producers each consumer reads so many and stops; no warm-up", 0},
    {"drain", KEY_DRAIN, "SECONDS", 0, "give up when nothing moved for so long (default 10)", 0},
    {"gather", KEY_GATHER, "MICROSECONDS", 0, "wait so long after each round, to read and write more at once", 0},
    {"connections", KEY_CONNECTIONS, "N", 0, "for scenario connect (default 100)", 0},
    {"channels", KEY_CHANNELS, "N", 0, "channels opened per connection in scenario connect (default 1)", 0},
    {"hold", KEY_HOLD, "SECONDS", 0, "keep queues or connections so long before removing them", 0},
    {NULL, 0, NULL, 0, "Messages", 3},
    {"size", KEY_SIZE, "BYTES", 0, "body (default 100; below 24 order and latency are not checked)", 0},
    {"window", KEY_WINDOW, "N", 0, "unconfirmed publishes per producer; 0: no confirms (default 1000)", 0},
    {"persistent", KEY_PERSISTENT, NULL, 0, "delivery mode 2 to durable queues (default)", 0},
    {"transient", KEY_TRANSIENT, NULL, 0, "delivery mode 1 to queues that are not durable unless --durable", 0},
    {"mandatory", KEY_MANDATORY, NULL, 0, "ask for unroutable messages back", 0},
    {NULL, 0, NULL, 0, "Queues", 4},
    {"queue", KEY_QUEUE, "NAME", 0, "use this queue, emptied first and kept (default: a new one, deleted afterwards)",
     0},
    {"queues", KEY_QUEUES, "N", 0, "NAME-0 … NAME-(N-1), connections take turns (default 1)", 0},
    {"queue-type", KEY_QUEUE_TYPE, "TYPE", 0, "x-queue-type: classic, quorum, stream, …", 0},
    {"offset", KEY_OFFSET, "WHERE", 0, "first, last, next or a number: where consumers begin in a stream", 0},
    {"durable", KEY_DURABLE, NULL, 0, "durable queues, whatever the messages are", 0},
    {"no-durable", KEY_NOT_DURABLE, NULL, 0, "queues that are not durable", 0},
    {"keep", KEY_KEEP, NULL, 0, "do not delete queues at the end", 0},
    {"auto-ack", KEY_AUTO_ACK, NULL, 0, "consume without acknowledgements", 0},
    {"prefetch", KEY_PREFETCH, "N", 0, "unacknowledged deliveries per consumer, 0: no limit (default 1000)", 0},
    {"ack-every", KEY_ACK_EVERY, "N", 0, "1: acknowledge each delivery (default); more: so many with one ack", 0},
    {NULL, 0, NULL, 0, "Disk", 5},
    {"data", KEY_DATA, "DIR", 0, "where scenario fdatasync writes (default .)", 0},
    {"probe", KEY_PROBE, "DIR", 0, "in scenario latency, a 4 KiB write and fdatasync there after each publish", 0},
    {NULL, 0, NULL, 0, "Output", 6},
    {"json", KEY_JSON, NULL, 0, "one JSON object on standard output", 0},
    {"quiet", KEY_QUIET, NULL, 0, "nothing but the result and errors", 0},
    {"progress", KEY_PROGRESS, NULL, 0, "the live line on standard error also when that is no terminal", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

struct command {
    struct bench_options o;
    const struct scenario *scenario;
    unsigned port_offset;
    bool durable_given;
};

static const struct scenario *parse_scenario(const char *name, const struct argp_state *state)
{
    for (size_t i = 0; i < sizeof(SCENARIOS) / sizeof(SCENARIOS[0]); i++)
        if (strcmp(SCENARIOS[i].name, name) == 0)
            return &SCENARIOS[i];
    argp_error(state, "there is no scenario %s", name);
    return NULL;
}

/* One case per option and nothing else: long, but flat. */
static error_t on_option(int key, char *arg, struct argp_state *state)
{
    struct command *c = state->input;
    struct bench_options *o = &c->o;
    switch (key) {
    case KEY_URI:
        if (bench_uri_parse(arg, &o->uri) != 0)
            argp_error(state, "%s is not amqp://user:password@host:port/vhost", arg);
        break;
    case KEY_PORT_OFFSET: c->port_offset = (unsigned)bench_parse_count(arg, 0, 60000, state); break;
    case KEY_SCENARIO: c->scenario = parse_scenario(arg, state); break;
    case KEY_PRODUCERS: o->producers = (unsigned)bench_parse_count(arg, 0, 10000, state); break;
    case KEY_CONSUMERS: o->consumers = (unsigned)bench_parse_count(arg, 0, 10000, state); break;
    case KEY_THREADS: o->threads = (unsigned)bench_parse_count(arg, 1, 2, state); break;
    case KEY_CONNECTIONS: o->connections = (unsigned)bench_parse_count(arg, 1, 100000, state); break;
    case KEY_CHANNELS: o->channels = (unsigned)bench_parse_count(arg, 0, 2047, state); break;
    case KEY_SIZE: o->body_bytes = bench_parse_count(arg, 0, 256u << 20, state); break;
    case KEY_WINDOW: o->window = (uint32_t)bench_parse_count(arg, 0, 10000000, state); break;
    case KEY_RATE: o->rate = bench_parse_number(arg, 1e9, state); break;
    case KEY_DURATION: o->duration_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_MESSAGES: o->messages = bench_parse_count(arg, 0, UINT64_MAX / 2, state); break;
    case KEY_WARMUP: o->warmup_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_DRAIN: o->drain_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_HOLD: o->hold_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_GATHER: o->gather_us = (uint32_t)bench_parse_count(arg, 0, 1000000, state); break;
    case KEY_PERSISTENT: o->persistent = true; break;
    case KEY_TRANSIENT: o->persistent = false; break;
    case KEY_MANDATORY: o->mandatory = true; break;
    case KEY_DURABLE:
    case KEY_NOT_DURABLE:
        c->durable_given = true;
        o->queue_kind.durable = key == KEY_DURABLE;
        break;
    case KEY_QUEUE:
        if (strlen(arg) >= sizeof(o->queue))
            argp_error(state, "queue names may have at most %zu bytes here", sizeof(o->queue) - 1);
        snprintf(o->queue, sizeof(o->queue), "%s", arg);
        o->queue_kept = true;
        break;
    case KEY_QUEUES: o->queues = (unsigned)bench_parse_count(arg, 1, 1000000, state); break;
    case KEY_QUEUE_TYPE: o->queue_kind.type = arg; break;
    case KEY_OFFSET: o->offset = arg; break;
    case KEY_KEEP: o->queue_kept = true; break;
    case KEY_AUTO_ACK: o->auto_ack = true; break;
    case KEY_PREFETCH: o->prefetch = (uint16_t)bench_parse_count(arg, 0, 65535, state); break;
    case KEY_ACK_EVERY: o->ack_every = (uint32_t)bench_parse_count(arg, 1, 65535, state); break;
    case KEY_FRAME_MAX: o->limits.frame_max = (uint32_t)bench_parse_count(arg, 4096, BENCH_FRAME_MAX, state); break;
    case KEY_HEARTBEAT: o->limits.heartbeat_s = (uint16_t)bench_parse_count(arg, 0, 65534, state); break;
    case KEY_DATA: o->data_dir = arg; break;
    case KEY_PROBE: o->probe_dir = arg; break;
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
    "Puts load on an AMQP 0-9-1 server and measures rates, latencies, order and losses.\v"
    "Exit code: 0 clean, 1 could not run or the server closed, 2 messages lost, doubled or out of order, 64 wrong "
    "usage.\n"
    "Example: millrace bench amqp --producers 1 --consumers 1 --size 100 --window 1000 --duration 10",
    NULL,
    NULL,
    NULL};

static void options_default(struct command *c)
{
    struct bench_options *o = &c->o;
    memset(c, 0, sizeof(*c));
    bench_uri_parse("amqp://", &o->uri);
    c->scenario = &SCENARIOS[0];
    o->producers = o->consumers = o->queues = o->threads = o->channels = o->ack_every = 1;
    o->connections = 100;
    o->body_bytes = 100;
    o->window = o->prefetch = 1000;
    o->duration_s = 10;
    o->warmup_s = 2;
    o->drain_s = 10;
    o->persistent = true;
    o->limits.in_bytes = 256 * 1024;
    o->limits.heartbeat_s = UINT16_MAX;
    o->limits.channels = 1;
    o->run_id = (uint32_t)bench_clock_ns() ^ (uint32_t)getpid() << 12;
    snprintf(o->queue, sizeof(o->queue), "millrace-bench-%d", (int)getpid());
}

/* What one option means for another. Answers a sentence when they contradict each other. */
static const char *options_settle(struct command *c)
{
    struct bench_options *o = &c->o;
    if (!c->durable_given)
        o->queue_kind.durable = o->persistent || c->scenario->run == bench_steps_declare;
    if (o->uri.port + c->port_offset > 65535)
        return "the port with its offset is above 65535";
    o->uri.port += c->port_offset;
    if (c->scenario->run == bench_steps_connect)
        o->limits.channels = o->channels;
    else if (c->scenario->run == bench_steps_latency || c->scenario->run == bench_steps_get)
        o->queues = 1;
    if (!o->auto_ack && o->prefetch > 0 && o->ack_every > o->prefetch)
        return "--ack-every above --prefetch would wait for ever";
    if (o->producers == 0 && o->consumers == 0)
        return "neither producers nor consumers";
    if (o->progress == false)
        o->progress = !o->quiet && isatty(STDERR_FILENO);
    return NULL;
}

static void report_options(const struct command *c, struct bench_report *r)
{
    const struct bench_options *o = &c->o;
    char text[600];
    snprintf(text, sizeof(text), "%s:%u%s", o->uri.host, o->uri.port, o->uri.vhost);
    if (c->scenario->needs_server)
        bench_report_text(r, "load", "server", text);
    if (c->scenario->run != bench_run_publish_consume && c->scenario->run != scenario_sink)
        return;
    bench_report_number(r, "load", "producers", o->producers, "");
    bench_report_number(r, "load", "consumers", o->consumers, "");
    bench_report_number(r, "load", "queues", o->queues, "");
    bench_report_number(r, "load", "body_bytes", (double)o->body_bytes, "");
    bench_report_number(r, "load", "window", o->window, "");
    bench_report_text(r, "load", "messages_are", o->persistent ? "persistent" : "transient");
    bench_report_text(r, "load", "queues_are", o->queue_kind.durable ? "durable" : "transient");
    if (o->queue_kind.type != NULL)
        bench_report_text(r, "load", "queue_type", o->queue_kind.type);
    snprintf(text, sizeof(text), "one for %u", o->ack_every);
    bench_report_text(r, "load", "acks", o->auto_ack ? "automatic" : o->ack_every > 1 ? text : "each");
}

int bench_amqp_main(int argc, char **argv)
{
    struct command c;
    options_default(&c);
    bench_command_begin("millrace bench amqp");
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
        bench_fail("checks", "messages were lost, doubled, out of order or never confirmed");
    bench_report_free(r);
    return code;
}
