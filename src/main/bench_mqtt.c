/* The command line of `millrace bench mqtt`: options, defaults, and the table of scenarios. */
#include "bench_mqtt.h"

#include "bench_mqtt_flight.h"
#include "bench_mqtt_int.h"

#include <argp.h>
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

enum option_key {
    KEY_SERVER = 256,
    KEY_PORT_OFFSET,
    KEY_VERSION,
    KEY_USER,
    KEY_PASSWORD,
    KEY_TLS,
    KEY_SCENARIO,
    KEY_PUBLISHERS,
    KEY_SUBSCRIBERS,
    KEY_RATE,
    KEY_DURATION,
    KEY_WARMUP,
    KEY_MESSAGES,
    KEY_DRAIN,
    KEY_CONNECTIONS,
    KEY_AT_ONCE,
    KEY_HOLD,
    KEY_TOPIC,
    KEY_TOPICS,
    KEY_DURABLE,
    KEY_KEEP,
    KEY_QOS,
    KEY_SIZE,
    KEY_WINDOW,
    KEY_JSON,
    KEY_QUIET,
    KEY_PROGRESS,
};

static const struct argp_option OPTIONS[] = {
    {NULL, 0, NULL, 0, "Server", 1},
    {"server", KEY_SERVER, "HOST:PORT", 0, "any MQTT broker (default 127.0.0.1:1883)", 0},
    {"port-offset", KEY_PORT_OFFSET, "N", 0, "added to the port", 0},
    {"version", KEY_VERSION, "4|5", 0, "4: MQTT 3.1.1 (default), 5: MQTT 5.0", 0},
    {"user", KEY_USER, "NAME", 0, "default: no login", 0},
    {"password", KEY_PASSWORD, "TEXT", 0, "for --user", 0},
    {"tls", KEY_TLS, NULL, 0, "the port speaks TLS; the certificate is not looked at", 0},
    {NULL, 0, NULL, 0, "What to do", 2},
    {"scenario", KEY_SCENARIO, "NAME", 0,
     "publish-subscribe (default); latency: the same at a --rate (default 5000); fan-out: one message at a time to all "
     "subscribers; offline: published while the subscribers of durable sessions are away, then read; connect: "
     "--connections that connect and subscribe; retained: --topics set, then read by a wildcard subscription",
     0},
    {"publishers", KEY_PUBLISHERS, "N", 0, "publishing connections (default 1)", 0},
    {"subscribers", KEY_SUBSCRIBERS, "N", 0,
     "subscribing connections (default 1); in scenario retained so many one after the other", 0},
    {"rate", KEY_RATE, "N", 0, "messages per second over all publishers (default 0: as fast as it goes)", 0},
    {"duration", KEY_DURATION, "SECONDS", 0, "measured time (default 10)", 0},
    {"warmup", KEY_WARMUP, "SECONDS", 0, "time before it that does not count (default 2)", 0},
    {"messages", KEY_MESSAGES, "N", 0, "publish so many instead of by time; no warm-up (offline: default 100000)", 0},
    {"drain", KEY_DRAIN, "SECONDS", 0, "give up when nothing moved for so long (default 10; with QoS 0 at most 1)", 0},
    {"connections", KEY_CONNECTIONS, "N", 0, "for scenario connect (default 100)", 0},
    {"at-once", KEY_AT_ONCE, "N", 0, "so many of them under way at a time (default 1)", 0},
    {"hold", KEY_HOLD, "SECONDS", 0, "keep connections or retained messages so long before going on", 0},
    {NULL, 0, NULL, 0, "Topics and sessions", 3},
    {"topic", KEY_TOPIC, "NAME", 0, "default: a new one", 0},
    {"topics", KEY_TOPICS, "N", 0,
     "NAME/0 … NAME/(N-1), publishers and subscribers take turns (default 1; retained: 10000)", 0},
    {"durable", KEY_DURABLE, NULL, 0, "sessions of subscribers outlive their connections", 0},
    {"keep", KEY_KEEP, NULL, 0, "do not end durable sessions nor clear retained messages at the end", 0},
    {NULL, 0, NULL, 0, "Messages", 4},
    {"qos", KEY_QOS, "0|1|2", 0, "of publishes and subscriptions (default 0)", 0},
    {"size", KEY_SIZE, "BYTES", 0, "payload (default 100; below 24 order and latency are not checked)", 0},
    {"window", KEY_WINDOW, "N", 0,
     "messages of a publisher that are not confirmed (QoS 1, 2) or have not come to its subscribers; with QoS 0 there "
     "may be no limit: 0 (default 1000)",
     0},
    {NULL, 0, NULL, 0, "Output", 5},
    {"json", KEY_JSON, NULL, 0, "one JSON object on standard output", 0},
    {"quiet", KEY_QUIET, NULL, 0, "nothing but the result and errors", 0},
    {"progress", KEY_PROGRESS, NULL, 0, "the live line on standard error also when that is no terminal", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

struct command {
    struct bench_mqtt_options o;
    const struct scenario *scenario;
    unsigned port_offset;
};

static const struct scenario *parse_scenario(const char *name, const struct argp_state *state)
{
    for (size_t i = 0; i < ARRAY_LEN(SCENARIOS); i++)
        if (strcmp(SCENARIOS[i].name, name) == 0)
            return &SCENARIOS[i];
    argp_error(state, "there is no scenario %s", name);
    return NULL;
}

/* One case per option and nothing else: long, but flat. */
static error_t on_option(int key, char *arg, struct argp_state *state)
{
    struct command *c = state->input;
    struct bench_mqtt_options *o = &c->o;
    switch (key) {
    case KEY_SERVER:
        if (bench_address_parse(arg, o->server.host, sizeof(o->server.host), &o->server.port) != 0)
            argp_error(state, "%s is not HOST:PORT", arg);
        break;
    case KEY_PORT_OFFSET: c->port_offset = (unsigned)bench_parse_count(arg, 0, 60000, state); break;
    case KEY_VERSION: o->server.version = (uint8_t)bench_parse_count(arg, 4, 5, state); break;
    case KEY_USER: o->server.user = arg; break;
    case KEY_PASSWORD: o->server.password = arg; break;
    case KEY_TLS: o->server.tls = true; break;
    case KEY_SCENARIO: c->scenario = parse_scenario(arg, state); break;
    case KEY_PUBLISHERS: o->publishers = (unsigned)bench_parse_count(arg, 1, 10000, state); break;
    case KEY_SUBSCRIBERS: o->subscribers = (unsigned)bench_parse_count(arg, 0, 100000, state); break;
    case KEY_RATE: o->rate = bench_parse_number(arg, 1e9, state); break;
    case KEY_DURATION: o->duration_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_WARMUP: o->warmup_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_MESSAGES: o->messages = bench_parse_count(arg, 0, UINT64_MAX / 2, state); break;
    case KEY_DRAIN: o->drain_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_CONNECTIONS: o->connections = (unsigned)bench_parse_count(arg, 1, 100000, state); break;
    case KEY_AT_ONCE: o->at_once = (unsigned)bench_parse_count(arg, 1, 10000, state); break;
    case KEY_HOLD: o->hold_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_TOPIC:
        if (strlen(arg) >= sizeof(o->topic) || strpbrk(arg, "+#") != NULL)
            argp_error(state, "a topic has at most %zu bytes here, and neither + nor #", sizeof(o->topic) - 1);
        snprintf(o->topic, sizeof(o->topic), "%s", arg);
        break;
    case KEY_TOPICS: o->topics = (unsigned)bench_parse_count(arg, 1, 100000000, state); break;
    case KEY_DURABLE: o->durable = true; break;
    case KEY_KEEP: o->keep = true; break;
    case KEY_QOS: o->qos = (uint8_t)bench_parse_count(arg, 0, 2, state); break;
    case KEY_SIZE: o->payload_bytes = bench_parse_count(arg, 0, 64u << 20, state); break;
    case KEY_WINDOW: o->window = (uint32_t)bench_parse_count(arg, 0, BENCH_MQTT_WINDOW_MAX, state); break;
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
    "Puts load on an MQTT broker and measures rates, latencies, order and losses.\v"
    "Exit code: 0 clean, 1 could not run or the server refused or closed, 2 messages lost (QoS 1, 2), doubled (QoS 0, "
    "2) or out of order, 64 wrong usage.\n"
    "Example: millrace bench mqtt --qos 1 --publishers 1 --subscribers 50 --size 64 --window 1000 --duration 10",
    NULL,
    NULL,
    NULL};

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
    o->run_id = ((uint32_t)bench_clock_ns() ^ (uint32_t)getpid() << 12) | 1;
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
    if (!o->progress)
        o->progress = !o->quiet && isatty(STDERR_FILENO);
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
    bench_command_begin("millrace bench mqtt");
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
        bench_fail("checks", "messages were lost, doubled, out of order or never acknowledged");
    bench_report_free(r);
    return code;
}
