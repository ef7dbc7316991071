/* The command line of `millrace bench mqtt`: options, defaults, and the table of scenarios. */
#include "mqtt.h"

#include "mqtt_flight.h"
#include "mqtt_int.h"
#include "option.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { OFFLINE_MESSAGES_DEFAULT = 100000, CONNECTIONS_DEFAULT = 100, TOPICS_DEFAULT = 10000 };
#define LATENCY_RATE_DEFAULT 5000.0

enum scenario_kind { KIND_FLOW, KIND_LATENCY, KIND_FANOUT, KIND_OFFLINE, KIND_CONNECT, KIND_RETAINED };

static const struct scenario {
    const char *name;
    int (*run)(const struct bench_mqtt_options *o, struct bench_report *r);
    enum scenario_kind kind;
} SCENARIOS[] = {
    {"publish-subscribe", bench_mqtt_run, KIND_FLOW}, {"latency", bench_mqtt_run, KIND_LATENCY},
    {"fan-out", bench_mqtt_run, KIND_FANOUT},         {"offline", bench_mqtt_run, KIND_OFFLINE},
    {"connect", bench_mqtt_connect, KIND_CONNECT},    {"retained", bench_mqtt_retained, KIND_RETAINED},
};

struct command {
    struct bench_mqtt_options o;
    const struct scenario *scenario;
    unsigned port_offset;
};

static void parse_server(void *command, const char *text, const struct argp_state *state)
{
    struct bench_mqtt_server *server = &((struct command *)command)->o.server;
    if (bench_address_parse(text, server->host, sizeof(server->host), &server->port) != 0)
        argp_error(state, "%s is not HOST:PORT", text);
}

static void parse_topic(void *command, const char *name, const struct argp_state *state)
{
    struct bench_mqtt_options *o = &((struct command *)command)->o;
    if (strlen(name) >= sizeof(o->topic) || strpbrk(name, "+#") != NULL)
        argp_error(state, "a topic has at most %zu bytes here, and neither + nor #", sizeof(o->topic) - 1);
    snprintf(o->topic, sizeof(o->topic), "%s", name);
}

static const struct bench_option OPTIONS[] = {
    BENCH_HEADING("Server"),
    BENCH_OWN(parse_server, "server", "HOST:PORT", "any MQTT broker (default 127.0.0.1:1883)"),
    BENCH_PORT_OFFSET("added to the port"),
    BENCH_COUNT(o.server.version, 4, 5, "version", "4|5", "4: MQTT 3.1.1 (default), 5: MQTT 5.0"),
    BENCH_USER("default: no login"),
    BENCH_PASSWORD(),
    BENCH_FLAG(o.server.tls, "tls", "the port speaks TLS; the certificate is not looked at"),
    BENCH_HEADING("What to do"),
    BENCH_SCENARIO(
        SCENARIOS,
        "publish-subscribe (default); latency: the same at a --rate (default 5000); fan-out: one message at a time to "
        "all subscribers; offline: published while the subscribers of durable sessions are away, then read; connect: "
        "--connections that connect and subscribe; retained: --topics set, then read by a wildcard subscription"),
    BENCH_COUNT(o.publishers, 1, 10000, "publishers", "N", "publishing connections (default 1)"),
    BENCH_COUNT(o.subscribers, 0, 100000, "subscribers", "N",
                "subscribing connections (default 1); in scenario retained so many one after the other"),
    BENCH_RATE("messages per second over all publishers (default 0: as fast as it goes)"),
    BENCH_DURATION(),
    BENCH_WARMUP(BENCH_WARMUP_TEXT),
    BENCH_MESSAGES(o.messages, "messages", "publish so many instead of by time; no warm-up (offline: default 100000)"),
    BENCH_DRAIN("give up when nothing moved for so long (default 10; with QoS 0 at most 1)"),
    BENCH_CONNECTIONS(),
    BENCH_COUNT(o.at_once, 1, 10000, "at-once", "N", "so many of them under way at a time (default 1)"),
    BENCH_HOLD("keep connections or retained messages so long before going on"),
    BENCH_HEADING("Topics and sessions"),
    BENCH_OWN(parse_topic, "topic", "NAME", "default: a new one"),
    BENCH_COUNT(o.topics, 1, 100000000, "topics", "N",
                "NAME/0 … NAME/(N-1), publishers and subscribers take turns (default 1; retained: 10000)"),
    BENCH_FLAG(o.durable, "durable", "sessions of subscribers outlive their connections"),
    BENCH_FLAG(o.keep, "keep", "do not end durable sessions nor clear retained messages at the end"),
    BENCH_HEADING("Messages"),
    BENCH_COUNT(o.qos, 0, 2, "qos", "0|1|2", "of publishes and subscriptions (default 0)"),
    BENCH_COUNT(o.payload_bytes, 0, 64u << 20, "size", "BYTES",
                "payload (default 100; below 24 order and latency are not checked)"),
    BENCH_COUNT(o.window, 0, BENCH_MQTT_WINDOW_MAX, "window", "N",
                "messages of a publisher that are not confirmed (QoS 1, 2) or have not come to its subscribers; with "
                "QoS 0 there may be no limit: 0 (default 1000)"),
    BENCH_HEADING("Output"),
    BENCH_OUTPUT(),
};

static const char DOC[] =
    "Puts load on an MQTT broker and measures rates, latencies, order and losses.\v"
    "Exit code: 0 clean, 1 could not run or the server refused or closed, 2 messages lost (QoS 1, 2), doubled (QoS 0, "
    "2) or out of order, 64 wrong usage, 130 cut short by Ctrl-C.\n"
    "Example: millrace bench mqtt --qos 1 --publishers 1 --subscribers 50 --size 64 --window 1000 --duration 10";

static void options_default(struct command *c)
{
    struct bench_mqtt_options *o = &c->o;
    memset(c, 0, sizeof(*c));
    bench_address_parse("127.0.0.1:1883", o->server.host, sizeof(o->server.host), &o->server.port);
    o->server.version = 4;
    c->scenario = &SCENARIOS[0];
    o->publishers = o->subscribers = o->at_once = 1;
    o->connections = CONNECTIONS_DEFAULT;
    o->payload_bytes = 100;
    o->window = 1000;
    o->duration_s = 10;
    o->warmup_s = 2;
    o->drain_s = 10;
    o->run_id = bench_run_id();
    snprintf(o->topic, sizeof(o->topic), "millrace-bench-%d", (int)getpid());
}

static void scenario_defaults(struct command *c)
{
    struct bench_mqtt_options *o = &c->o;
    if (o->topics == 0)
        o->topics = c->scenario->kind == KIND_RETAINED ? TOPICS_DEFAULT : 1;
    if (c->scenario->kind == KIND_LATENCY && o->rate <= 0)
        o->rate = LATENCY_RATE_DEFAULT;
    if (c->scenario->kind == KIND_FANOUT)
        o->window = 1;
    if (c->scenario->kind == KIND_OFFLINE) {
        o->offline = o->durable = true;
        o->messages = o->messages > 0 ? o->messages : OFFLINE_MESSAGES_DEFAULT;
    }
    o->progress = bench_progress_wanted(o->progress, o->quiet);
}

/* What one option means for another. Answers a sentence when they contradict each other. */
static const char *options_settle(struct command *c)
{
    struct bench_mqtt_options *o = &c->o;
    if (o->server.port + c->port_offset > 65535)
        return "the port with its offset is above 65535";
    o->server.port += c->port_offset;
    scenario_defaults(c);
    if (o->qos > 0 && o->window == 0)
        return "with QoS 1 and 2 there are packet ids, so --window cannot be without limit";
    if (o->durable && o->qos == 0 && c->scenario->kind != KIND_CONNECT)
        return "a durable session keeps what has QoS 1 or 2: say --qos too";
    if (c->scenario->kind == KIND_RETAINED && o->payload_bytes == 0)
        return "an empty retained message clears its topic: --size must be above 0";
    if (c->scenario->kind == KIND_OFFLINE && o->subscribers == 0)
        return "scenario offline is about subscribers";
    return NULL;
}

static void report_options(const struct command *c, struct bench_report *r)
{
    const struct bench_mqtt_options *o = &c->o;
    char text[300];
    snprintf(text, sizeof(text), "%s:%u", o->server.host, o->server.port);
    bench_report_text(r, "load", "server", text);
    bench_report_text(r, "load", "version", o->server.version == 4 ? "3.1.1" : "5.0");
    bench_report_number(r, "load", "qos", o->qos, "");
    if (c->scenario->kind == KIND_CONNECT)
        return;
    bench_report_number(r, "load", "subscribers", o->subscribers, "");
    bench_report_number(r, "load", "topics", o->topics, "");
    bench_report_number(r, "load", "payload_bytes", (double)o->payload_bytes, "");
    bench_report_number(r, "load", "window", o->window, "");
    if (c->scenario->kind == KIND_RETAINED)
        return;
    bench_report_number(r, "load", "publishers", o->publishers, "");
    bench_report_text(r, "load", "sessions_are", o->durable ? "durable" : "clean");
}

int bench_mqtt_main(int argc, char **argv)
{
    struct command c;
    options_default(&c);
    if (!bench_options_parse("millrace bench mqtt", OPTIONS, ARRAY_LEN(OPTIONS), DOC, argc, argv, &c))
        return BENCH_EXIT_USAGE;
    const char *contradiction = options_settle(&c);
    if (contradiction != NULL)
        return bench_refuse(contradiction);
    struct bench_report *r = bench_report_new(c.scenario->name);
    report_options(&c, r);
    return bench_command_end(r, c.scenario->run(&c.o, r), c.o.json,
                             "messages were lost, doubled, out of order or never acknowledged");
}
