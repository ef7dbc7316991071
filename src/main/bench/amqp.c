/* The command line of `millrace bench amqp`: options, defaults, and the table of scenarios.
 *
 * The generator is part of the broker's binary so that whoever doubts a number can repeat it against any server with one
 * command, but it shares no code with the broker. `sink` runs it against a server thread that does nothing, which tells
 * how much of a measured rate could be the generator's own limit.
 */
#include "amqp.h"

#include "amqp_int.h"
#include "main/client/clock.h"
#include "option.h"
#include "sink.h"

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
    uint64_t from_ns = client_clock_ns();
    int code = bench_run_publish_consume(&pass, rows);
    double took_s = (double)(client_clock_ns() - from_ns) / 1e9;
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

struct command {
    struct bench_options o;
    const struct scenario *scenario;
    unsigned port_offset;
    enum { DURABLE_UNSAID, DURABLE, NOT_DURABLE } durable;
};

static void parse_uri(void *command, const char *text, const struct argp_state *state)
{
    struct command *c = command;
    if (bench_uri_parse(text, &c->o.uri) != 0)
        argp_error(state, "%s is not amqp://user:password@host:port/vhost", text);
}

static void parse_queue(void *command, const char *name, const struct argp_state *state)
{
    struct bench_options *o = &((struct command *)command)->o;
    if (strlen(name) >= sizeof(o->queue))
        argp_error(state, "queue names may have at most %zu bytes here", sizeof(o->queue) - 1);
    snprintf(o->queue, sizeof(o->queue), "%s", name);
    o->queue_kept = true;
}

static const struct bench_option OPTIONS[] = {
    BENCH_HEADING("Server"),
    BENCH_OWN(parse_uri, "uri", "URI",
              "amqp://user:password@host:port/vhost, or amqps:// for TLS (default amqp://guest:guest@127.0.0.1:5672/)"),
    BENCH_PORT_OFFSET("added to the port"),
    BENCH_COUNT(o.limits.frame_max, 4096, BENCH_FRAME_MAX, "frame-max", "BYTES",
                "largest frame to ask for (default 131072)"),
    BENCH_COUNT(o.limits.heartbeat_s, 0, 65534, "heartbeat", "SECONDS",
                "0 for none (default: what the server proposes)"),
    BENCH_HEADING("What to do"),
    BENCH_SCENARIO(SCENARIOS, "publish-consume (default); latency: one publish at a time; declare: --queues one by "
                              "one, then delete them; connect: --connections one by one; get: basic.get one by one; "
                              "sink: the load generator's own ceiling; fdatasync: the disk"),
    BENCH_COUNT(o.producers, 0, 10000, "producers", "N", "publishing connections (default 1)"),
    BENCH_COUNT(o.consumers, 0, 10000, "consumers", "N", "consuming connections (default 1)"),
    BENCH_COUNT(o.threads, 1, 2, "threads", "1|2", "2: consumers on a thread of their own (default 1)"),
    BENCH_RATE("messages per second over all producers (default 0: as fast as it goes)"),
    BENCH_DURATION(),
    BENCH_WARMUP(BENCH_WARMUP_TEXT),
    BENCH_MESSAGES(
        o.messages, "messages",
        "publish so many instead of by time; without producers each consumer reads so many and stops; no warm-up"),
    BENCH_DRAIN(BENCH_DRAIN_TEXT),
    BENCH_COUNT(o.gather_us, 0, 1000000, "gather", "MICROSECONDS",
                "wait so long after each round, to read and write more at once"),
    BENCH_CONNECTIONS(),
    BENCH_COUNT(o.channels, 0, 2047, "channels", "N", "channels opened per connection in scenario connect (default 1)"),
    BENCH_HOLD("keep queues or connections so long before removing them"),
    BENCH_HEADING("Messages"),
    BENCH_COUNT(o.body_bytes, 0, 256u << 20, "size", "BYTES",
                "body (default 100; below 24 order and latency are not checked)"),
    BENCH_COUNT(o.window, 0, 10000000, "window", "N",
                "unconfirmed publishes per producer; 0: no confirms (default 1000)"),
    BENCH_FLAG(o.persistent, "persistent", "delivery mode 2 to durable queues (default)"),
    BENCH_SETS(o.persistent, false, "transient", "delivery mode 1 to queues that are not durable unless --durable"),
    BENCH_FLAG(o.mandatory, "mandatory", "ask for unroutable messages back"),
    BENCH_HEADING("Queues"),
    BENCH_OWN(parse_queue, "queue", "NAME",
              "use this queue, emptied first and kept (default: a new one, deleted afterwards)"),
    BENCH_COUNT(o.queues, 1, 1000000, "queues", "N", "NAME-0 … NAME-(N-1), connections take turns (default 1)"),
    BENCH_TEXT(o.queue_kind.type, "queue-type", "TYPE", "x-queue-type: classic, quorum, stream, …"),
    BENCH_TEXT(o.offset, "offset", "WHERE", "first, last, next or a number: where consumers begin in a stream"),
    BENCH_SETS(durable, DURABLE, "durable", "durable queues, whatever the messages are"),
    BENCH_SETS(durable, NOT_DURABLE, "no-durable", "queues that are not durable"),
    BENCH_FLAG(o.queue_kept, "keep", "do not delete queues at the end"),
    BENCH_FLAG(o.auto_ack, "auto-ack", "consume without acknowledgements"),
    BENCH_COUNT(o.prefetch, 0, 65535, "prefetch", "N",
                "unacknowledged deliveries per consumer, 0: no limit (default 1000)"),
    BENCH_COUNT(o.ack_every, 1, 65535, "ack-every", "N",
                "1: acknowledge each delivery (default); more: so many with one ack"),
    BENCH_HEADING("Disk"),
    BENCH_TEXT(o.data_dir, "data", "DIR", "where scenario fdatasync writes (default .)"),
    BENCH_TEXT(o.probe_dir, "probe", "DIR",
               "in scenario latency, a 4 KiB write and fdatasync there after each publish"),
    BENCH_HEADING("Output"),
    BENCH_OUTPUT(),
};

static const char DOC[] =
    "Puts load on an AMQP 0-9-1 server and measures rates, latencies, order and losses.\v"
    "Exit code: 0 clean, 1 could not run or the server closed, 2 messages lost, doubled or out of order, 64 wrong "
    "usage, 130 cut short by Ctrl-C.\n"
    "Example: millrace bench amqp --producers 1 --consumers 1 --size 100 --window 1000 --duration 10";

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
    o->run_id = bench_run_id();
    snprintf(o->queue, sizeof(o->queue), "millrace-bench-%d", (int)getpid());
}

/* What one option means for another. Answers a sentence when they contradict each other. */
static const char *options_settle(struct command *c)
{
    struct bench_options *o = &c->o;
    bool durable = o->persistent || c->scenario->run == bench_steps_declare;
    o->queue_kind.durable = c->durable == DURABLE_UNSAID ? durable : c->durable == DURABLE;
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
    o->progress = bench_progress_wanted(o->progress, o->quiet);
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
    if (!bench_options_parse("millrace bench amqp", OPTIONS, ARRAY_LEN(OPTIONS), DOC, argc, argv, &c))
        return BENCH_EXIT_USAGE;
    const char *contradiction = options_settle(&c);
    if (contradiction != NULL)
        return bench_refuse(contradiction);
    struct bench_report *r = bench_report_new(c.scenario->name);
    report_options(&c, r);
    return bench_command_end(r, c.scenario->run(&c.o, r), c.o.json,
                             "messages were lost, doubled, out of order or never confirmed");
}
