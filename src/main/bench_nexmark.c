/* The command line of `millrace bench nexmark`: options, defaults, and the table of scenarios. */
#include "bench_nexmark.h"

#include "bench_nexmark_int.h"

#include <argp.h>
#include <stdio.h>
#include <unistd.h>

enum { KAFKA_PORT = 9092, HTTP_PORT = 15672, LATENCY_RATE = 50000, WINDOWS_LEAST = 6 };

enum scenario_kind { KIND_QUERIES, KIND_LATENCY, KIND_LOAD };

static const struct scenario {
    const char *name;
    int (*run)(const struct bench_nexmark_options *o, struct bench_report *r);
    enum scenario_kind kind;
} SCENARIOS[] = {
    {"queries", bench_nexmark_run, KIND_QUERIES},
    {"latency", bench_nexmark_latency, KIND_LATENCY},
    {"load", bench_nexmark_only_load, KIND_LOAD},
};

enum option_key {
    KEY_HOST = 256,
    KEY_PORT_OFFSET,
    KEY_KAFKA_PORT,
    KEY_HTTP_PORT,
    KEY_USER,
    KEY_PASSWORD,
    KEY_PID,
    KEY_SCENARIO,
    KEY_QUERIES,
    KEY_EVENTS,
    KEY_RATE,
    KEY_WARMUP,
    KEY_STATE,
    KEY_NAME,
    KEY_KEEP,
    KEY_SEED,
    KEY_EVENT_RATE,
    KEY_GROUP,
    KEY_BATCH,
    KEY_WINDOW,
    KEY_TEXTS,
    KEY_JSON,
    KEY_QUIET,
    KEY_PROGRESS,
};

static const struct argp_option OPTIONS[] = {
    {NULL, 0, NULL, 0, "Broker", 1},
    {"host", KEY_HOST, "HOST", 0, "a Millrace broker (default 127.0.0.1)", 0},
    {"port-offset", KEY_PORT_OFFSET, "N", 0, "added to both ports", 0},
    {"kafka-port", KEY_KAFKA_PORT, "PORT", 0, "where events are produced (default 9092)", 0},
    {"http-port", KEY_HTTP_PORT, "PORT", 0, "where statements are sent (default 15672)", 0},
    {"user", KEY_USER, "NAME", 0, "default: no login, who is guest on this machine", 0},
    {"password", KEY_PASSWORD, "TEXT", 0, "for --user", 0},
    {"pid", KEY_PID, "PID", 0, "the broker's process on this machine: tells its CPU time, too", 0},
    {NULL, 0, NULL, 0, "What to do", 2},
    {"scenario", KEY_SCENARIO, "NAME", 0,
     "queries (default): events into a stream, then one query after another from its beginning; latency: events at a "
     "--rate (default 50000) and windows of a second, from the event that ends a window to its rows; load: events "
     "into the stream --name, which is there",
     0},
    {"queries", KEY_QUERIES, "q0,q1,…", 0, "only these (default: q0 to q22)", 0},
    {"events", KEY_EVENTS, "N", 0, "default 1000000", 0},
    {"rate", KEY_RATE, "N", 0, "events produced a second (default 0: as fast as it goes)", 0},
    {"warmup", KEY_WARMUP, "SECONDS", 0, "windows of the scenario latency that do not count (default 2)", 0},
    {"state-memory", KEY_STATE, "BYTES", 0, "of a query (default 4 GiB)", 0},
    {"name", KEY_NAME, "NAME", 0, "of the stream of events (default: a new one)", 0},
    {"keep", KEY_KEEP, NULL, 0, "keep streams and views at the end", 0},
    {NULL, 0, NULL, 0, "Events", 3},
    {"seed", KEY_SEED, "N", 0, "the same number makes the same events (default 1)", 0},
    {"event-rate", KEY_EVENT_RATE, "N", 0,
     "events a second of event time, on which depends what windows hold (default 10000; latency: --rate)", 0},
    {"out-of-order", KEY_GROUP, "G", 0, "events are out of order within groups of so many (default 1: in order)", 0},
    {"batch", KEY_BATCH, "N", 0, "events in one request (default 500)", 0},
    {"window", KEY_WINDOW, "N", 0, "requests that are not answered (default 8)", 0},
    {NULL, 0, NULL, 0, "Output", 4},
    {"texts", KEY_TEXTS, NULL, 0, "print the statements, and do nothing", 0},
    {"json", KEY_JSON, NULL, 0, "one JSON object on standard output", 0},
    {"quiet", KEY_QUIET, NULL, 0, "nothing but the result and errors", 0},
    {"progress", KEY_PROGRESS, NULL, 0, "the live line on standard error also when that is no terminal", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

struct command {
    struct bench_nexmark_options o;
    const struct scenario *scenario;
    unsigned port_offset;
    bool texts, event_rate_said;
};

static const struct scenario *parse_scenario(const char *name, const struct argp_state *state)
{
    for (size_t i = 0; i < ARRAY_LEN(SCENARIOS); i++)
        if (strcmp(SCENARIOS[i].name, name) == 0)
            return &SCENARIOS[i];
    argp_error(state, "there is no scenario %s", name);
    return NULL;
}

static void parse_queries(struct bench_nexmark_options *o, const char *text, const struct argp_state *state)
{
    o->query_count = 0;
    for (const char *at = text; *at != '\0';) {
        size_t len = strcspn(at, ",");
        const struct bench_nexmark_query *q = bench_nexmark_query_find(slice_of(at, len));
        if (q == NULL)
            argp_error(state, "there is no query %.*s", (int)len, at);
        for (unsigned i = 0; i < o->query_count; i++)
            if (o->queries[i] == q)
                argp_error(state, "%s is there twice", q->name);
        o->queries[o->query_count++] = q;
        at += len + (at[len] == ',');
    }
    if (o->query_count == 0)
        argp_error(state, "--queries names none");
}

static void parse_name(struct bench_nexmark_options *o, const char *text, const struct argp_state *state)
{
    if (text[0] == '\0' || strlen(text) >= sizeof(o->name) || strpbrk(text, "'\\/ ") != NULL)
        argp_error(state, "a name has 1 to %zu characters here, and no quotes, slashes or spaces", sizeof(o->name) - 1);
    snprintf(o->name, sizeof(o->name), "%s", text);
}

/* One case per option and nothing else: long, but flat. */
static error_t on_option(int key, char *arg, struct argp_state *state)
{
    struct command *c = state->input;
    struct bench_nexmark_options *o = &c->o;
    switch (key) {
    case KEY_HOST:
        if (strlen(arg) >= sizeof(o->server.host))
            argp_error(state, "%s is too long for a host", arg);
        snprintf(o->server.host, sizeof(o->server.host), "%s", arg);
        break;
    case KEY_PORT_OFFSET: c->port_offset = (unsigned)bench_parse_count(arg, 0, 60000, state); break;
    case KEY_KAFKA_PORT: o->server.port = (unsigned)bench_parse_count(arg, 1, 65535, state); break;
    case KEY_HTTP_PORT: o->http_port = (unsigned)bench_parse_count(arg, 1, 65535, state); break;
    case KEY_USER: o->server.user = arg; break;
    case KEY_PASSWORD: o->server.password = arg; break;
    case KEY_PID: o->pid = (unsigned)bench_parse_count(arg, 1, INT32_MAX, state); break;
    case KEY_SCENARIO: c->scenario = parse_scenario(arg, state); break;
    case KEY_QUERIES: parse_queries(o, arg, state); break;
    case KEY_EVENTS: o->events = bench_parse_count(arg, 1, UINT64_MAX / 2, state); break;
    case KEY_RATE: o->rate = bench_parse_number(arg, 1e8, state); break;
    case KEY_WARMUP: o->warmup_s = bench_parse_number(arg, 1e6, state); break;
    case KEY_STATE: o->state_memory = bench_parse_count(arg, 1 << 16, (uint64_t)1 << 40, state); break;
    case KEY_NAME: parse_name(o, arg, state); break;
    case KEY_KEEP: o->keep = true; break;
    case KEY_SEED: o->nexmark.seed = bench_parse_count(arg, 0, UINT64_MAX, state); break;
    case KEY_EVENT_RATE:
        o->nexmark.rate = bench_parse_count(arg, 1, 1000000000, state);
        c->event_rate_said = true;
        break;
    case KEY_GROUP: o->nexmark.group = (uint32_t)bench_parse_count(arg, 1, 1000000, state); break;
    case KEY_BATCH: o->batch = (unsigned)bench_parse_count(arg, 1, BENCH_NEXMARK_BATCH_MAX, state); break;
    case KEY_WINDOW: o->window = (unsigned)bench_parse_count(arg, 1, 1000, state); break;
    case KEY_TEXTS: c->texts = true; break;
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
    "Runs the queries of the Nexmark benchmark in a Millrace broker and measures rates, state and latency. The broker "
    "must not have streams or views called nexmark, person, auction, bid, side or result.\v"
    "Exit code: 0 clean (a query that the broker refuses is named), 1 could not run, 2 a query failed or gave another "
    "number of rows than it should, 64 wrong usage.\n"
    "Example: millrace bench nexmark --queries q0,q5 --events 1000000 --pid $(pidof millrace)",
    NULL,
    NULL,
    NULL};

static void options_default(struct command *c)
{
    struct bench_nexmark_options *o = &c->o;
    memset(c, 0, sizeof(*c));
    snprintf(o->server.host, sizeof(o->server.host), "127.0.0.1");
    o->server.port = KAFKA_PORT;
    o->http_port = HTTP_PORT;
    o->nexmark = nexmark_default();
    o->events = 1000000;
    o->batch = 500;
    o->window = 8;
    o->warmup_s = 2;
    o->state_memory = (uint64_t)4 << 30;
    c->scenario = &SCENARIOS[0];
    snprintf(o->name, sizeof(o->name), "nexmark-%d", (int)getpid());
    for (unsigned i = 0; i < bench_nexmark_query_count; i++)
        o->queries[o->query_count++] = &bench_nexmark_queries[i];
}

/* What one option means for another. Answers a sentence when they contradict each other. */
static const char *options_settle(struct command *c)
{
    struct bench_nexmark_options *o = &c->o;
    o->server.port += c->port_offset;
    o->http_port += c->port_offset;
    if (o->server.port > 65535 || o->http_port > 65535)
        return "a port with its offset is above 65535";
    if (!o->progress)
        o->progress = !o->quiet && isatty(STDERR_FILENO);
    if (c->scenario->kind != KIND_LATENCY)
        return NULL;
    if (o->rate <= 0)
        o->rate = LATENCY_RATE;
    if (c->event_rate_said || o->nexmark.group > 1)
        return "in scenario latency event time goes as the clock does, and in order";
    o->nexmark.rate = (uint64_t)o->rate;
    if (o->rate < 1 || (o->events - 1) / o->nexmark.rate < WINDOWS_LEAST)
        return "scenario latency needs events for at least 7 seconds: --events above seven times --rate";
    return NULL;
}

static void report_options(const struct command *c, struct bench_report *r)
{
    const struct bench_nexmark_options *o = &c->o;
    char text[300];
    snprintf(text, sizeof(text), "%s:%u, %u", o->server.host, o->server.port, o->http_port);
    bench_report_text(r, "options", "server", text);
    bench_report_number(r, "options", "seed", (double)o->nexmark.seed, "");
    bench_report_number(r, "options", "event_rate", (double)o->nexmark.rate, "events/s");
    bench_report_number(r, "options", "out_of_order", o->nexmark.group, "");
    bench_report_number(r, "options", "batch", o->batch, "");
}

static void texts_print(const struct bench_nexmark_options *o)
{
    char text[BENCH_NEXMARK_STATEMENT_BYTES];
    for (unsigned i = 0; i < bench_nexmark_object_count; i++) {
        bench_nexmark_statement(o, &bench_nexmark_objects[i], text, sizeof(text));
        printf("%s;\n", text);
    }
    for (unsigned i = 0; i < o->query_count; i++)
        printf("-- %s\n%s%s;\n", o->queries[i]->name, o->queries[i]->text,
               o->queries[i]->forever ? BENCH_NEXMARK_FOREVER : "");
}

int bench_nexmark_main(int argc, char **argv)
{
    struct command c;
    options_default(&c);
    bench_command_begin("millrace bench nexmark");
    if (argp_parse(&PARSER, argc, argv, 0, NULL, &c) != 0)
        return BENCH_EXIT_USAGE;
    const char *contradiction = options_settle(&c);
    if (contradiction != NULL) {
        bench_fail("options", contradiction);
        return BENCH_EXIT_USAGE;
    }
    if (c.texts) {
        texts_print(&c.o);
        return BENCH_EXIT_OK;
    }
    struct bench_report *r = bench_report_new(c.scenario->name);
    report_options(&c, r);
    int code = c.scenario->run(&c.o, r);
    if (code != BENCH_EXIT_FAILED)
        bench_report_print(r, c.o.json, stdout);
    bench_report_free(r);
    return code;
}
