/* The command line of `millrace bench nexmark`: options, defaults, and the table of scenarios. */
#include "nexmark.h"

#include "nexmark_int.h"
#include "option.h"

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

struct command {
    struct bench_nexmark_options o;
    const struct scenario *scenario;
    unsigned port_offset;
    uint64_t event_rate; /* 0: not said */
    bool texts;
};

static void parse_queries(void *command, const char *text, const struct argp_state *state)
{
    struct bench_nexmark_options *o = &((struct command *)command)->o;
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

static void parse_name(void *command, const char *text, const struct argp_state *state)
{
    struct bench_nexmark_options *o = &((struct command *)command)->o;
    if (text[0] == '\0' || strlen(text) >= sizeof(o->name) || strpbrk(text, "'\\/ ") != NULL)
        argp_error(state, "a name has 1 to %zu characters here, and no quotes, slashes or spaces", sizeof(o->name) - 1);
    snprintf(o->name, sizeof(o->name), "%s", text);
}

static void parse_host(void *command, const char *name, const struct argp_state *state)
{
    struct bench_kafka_server *server = &((struct command *)command)->o.server;
    if (strlen(name) >= sizeof(server->host))
        argp_error(state, "%s is too long for a host", name);
    snprintf(server->host, sizeof(server->host), "%s", name);
}

static const struct bench_option OPTIONS[] = {
    BENCH_HEADING("Broker"),
    BENCH_OWN(parse_host, "host", "HOST", "a Millrace broker (default 127.0.0.1)"),
    BENCH_PORT_OFFSET("added to both ports"),
    BENCH_COUNT(o.server.port, 1, 65535, "kafka-port", "PORT", "where events are produced (default 9092)"),
    BENCH_COUNT(o.http_port, 1, 65535, "http-port", "PORT", "where statements are sent (default 15672)"),
    BENCH_USER("default: no login, who is guest on this machine"),
    BENCH_PASSWORD(),
    BENCH_COUNT(o.pid, 1, INT32_MAX, "pid", "PID", "the broker's process on this machine: tells its CPU time, too"),
    BENCH_HEADING("What to do"),
    BENCH_SCENARIO(SCENARIOS,
                   "queries (default): events into a stream, then one query after another from its beginning; latency: "
                   "events at a --rate (default 50000) and windows of a second, from the event that ends a window to "
                   "its rows; load: events into the stream --name, which is there"),
    BENCH_OWN(parse_queries, "queries", "q0,q1,…", "only these (default: q0 to q22, cep0 to cep3)"),
    BENCH_COUNT(o.events, 1, UINT64_MAX / 2, "events", "N", "default 1000000"),
    BENCH_NUMBER(o.rate, 100000000, "rate", "N", "events produced a second (default 0: as fast as it goes)"),
    BENCH_WARMUP("windows of the scenario latency that do not count (default 2)"),
    BENCH_COUNT(o.state_memory, 1 << 16, (uint64_t)1 << 40, "state-memory", "BYTES", "of a query (default 4 GiB)"),
    BENCH_OWN(parse_name, "name", "NAME", "of the stream of events (default: a new one)"),
    BENCH_FLAG(o.keep, "keep", "keep streams and views at the end"),
    BENCH_HEADING("Events"),
    BENCH_COUNT(o.nexmark.seed, 0, UINT64_MAX, "seed", "N", "the same number makes the same events (default 1)"),
    BENCH_COUNT(event_rate, 1, 1000000000, "event-rate", "N",
                "events a second of event time, on which depends what windows hold (default 10000; latency: --rate)"),
    BENCH_COUNT(o.nexmark.group, 1, 1000000, "out-of-order", "G",
                "events are out of order within groups of so many (default 1: in order)"),
    BENCH_COUNT(o.batch, 1, BENCH_NEXMARK_BATCH_MAX, "batch", "N", "events in one request (default 500)"),
    BENCH_COUNT(o.window, 1, 1000, "window", "N", "requests that are not answered (default 8)"),
    BENCH_HEADING("Output"),
    BENCH_FLAG(texts, "texts", "print the statements, and do nothing"),
    BENCH_OUTPUT(),
};

static const char DOC[] =
    "Runs the queries of the Nexmark benchmark in a Millrace broker and measures rates, state and latency. The broker "
    "must not have streams or views called nexmark, person, auction, bid, side or result.\v"
    "Exit code: 0 clean (a query that the broker refuses is named), 1 could not run, 2 a query failed or gave another "
    "number of rows than it should, 64 wrong usage, 130 cut short by Ctrl-C.\n"
    "Example: millrace bench nexmark --queries q0,q5 --events 1000000 --pid $(pidof millrace)";

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
    if (c->event_rate > 0)
        o->nexmark.rate = c->event_rate;
    o->progress = bench_progress_wanted(o->progress, o->quiet);
    if (c->scenario->kind != KIND_LATENCY)
        return NULL;
    if (o->rate <= 0)
        o->rate = LATENCY_RATE;
    if (c->event_rate > 0 || o->nexmark.group > 1)
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
    if (!bench_options_parse("millrace bench nexmark", OPTIONS, ARRAY_LEN(OPTIONS), DOC, argc, argv, &c))
        return BENCH_EXIT_USAGE;
    const char *contradiction = options_settle(&c);
    if (contradiction != NULL)
        return bench_refuse(contradiction);
    if (c.texts) {
        texts_print(&c.o);
        return BENCH_EXIT_OK;
    }
    struct bench_report *r = bench_report_new(c.scenario->name);
    report_options(&c, r);
    return bench_command_end(r, c.scenario->run(&c.o, r), c.o.json, NULL);
}
