/* `millrace pub`, `millrace sub`, `millrace tail`: messages by hand, over any protocol of the table below. Main thread.
 *
 * What is said to people goes to standard error; standard output has messages and nothing else. A message counts as dealt with
 * when it has been written to standard output. */
#include "base/mem.h"
#include "main/cli_int.h"
#include "main/cli_where.h"
#include "main/talk/text.h"
#include "main/talk/tls.h"
#include "os/os.h"
#include "os/thread.h"
#include "proto/mqtt/topic.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define BODIES_MAX 1024
#define LINE_MAX_BYTES (512u << 20)
#define LAST_DEFAULT 10u
#define FLUSH_BEFORE_NS (5 * NS_PER_MS) /* a longer pause: nothing is kept back meanwhile */

static const struct talk_protocol *const protocols[] = {&talk_amqp, &talk_kafka, &talk_mqtt, &talk_stomp};

enum {
    OPT_PROTOCOL = 256,
    OPT_HOST,
    OPT_OFFSET,
    OPT_USER,
    OPT_PASSWORD,
    OPT_VHOST,
    OPT_CREATE,
    OPT_TRANSIENT,
    OPT_JSON,
    OPT_RAW,
    OPT_PRETTY,
    OPT_RATE,
    OPT_WAIT,
    OPT_PEEK,
    OPT_FROM,
    OPT_PARTITION,
    OPT_RETAIN,
    OPT_TLS,
    OPT_CA,
    OPT_CERT,
    OPT_KEY,
    OPT_INSECURE,
};

struct talk_line {
    struct talk_options talk;
    struct talk_tls tls;
    const struct talk_protocol *protocol;
    bool is_pub, is_tail, json, raw, pretty, quiet;
    json_t *about; /* pub: properties and headers of every message */
    const char *bodies[BODIES_MAX];
    unsigned body_count;
    const char *files[BODIES_MAX];
    unsigned file_count;
    char topic[256]; /* the key that was made of it */
    double rate;
    int64_t wait_ms; /* -1: for ever */
    unsigned offset;
};

static void say(const char *sentence)
{
    cli_complain("%s", sentence);
}

/* ---- options ---- */

#define OPTIONS_OF_ALL                                                                                                 \
    {NULL, 0, NULL, 0, "Where", 1},                                                                                    \
        {"host", OPT_HOST, "HOST[:PORT]", 0, "the broker (default 127.0.0.1 and the protocol's usual port)", 0},       \
        {"port-offset", OPT_OFFSET, "N", 0, "added to the usual port", 0},                                             \
        {"protocol", OPT_PROTOCOL, "NAME", 0, "amqp (default), kafka, mqtt or stomp", 0},                              \
        {"user", OPT_USER, "NAME", 0, "who to log in as (default guest, or MILLRACE_USER)", 0},                        \
        {"password", OPT_PASSWORD, "TEXT", 0, "better in MILLRACE_PASSWORD, where other users do not see it", 0},      \
        {"vhost", OPT_VHOST, "NAME", 0, "vhost (default /)", 0},                                                       \
        {"exchange", 'x', "NAME", 0, "an exchange instead of a queue or stream", 0},                                   \
        {"topic", 't', "A/B/C", 0, "a topic as MQTT writes it: amq.topic with the key a.b.c", 0},                      \
        {"tls", OPT_TLS, 0, 0, "with TLS (usual ports 5671, 9093, 8883, 61614); also by any of the next", 0},          \
        {"ca", OPT_CA, "FILE", 0, "who has signed the broker's certificate (default: whom this machine trusts)", 0},   \
        {"cert", OPT_CERT, "FILE", 0, "our certificate, which is the login when there is no --user", 0},               \
        {"key", OPT_KEY, "FILE", 0, "its key (default: in the same file)", 0},                                         \
        {"insecure", OPT_INSECURE, 0, 0, "with TLS, whoever answers", 0},                                              \
        {"create", OPT_CREATE, 0, 0, "make the durable queue, or the topic, if it is not there", 0},                   \
    {                                                                                                                  \
        "partition", OPT_PARTITION, "N", 0, "of a stream", 0                                                           \
    }

static const struct argp_option pub_options[] = {
    OPTIONS_OF_ALL,
    {"key", 'k', "KEY", 0, "routing key; of a Kafka record: its key", 0},
    {NULL, 0, NULL, 0, "What", 2},
    {"header", 'H', "NAME=VALUE", 0, "a header; NAME:=VALUE takes JSON: -H retries:=3", 0},
    {"property", 'P', "NAME=VALUE", 0,
     "content-type, content-encoding, correlation-id, reply-to, expiration (ms), message-id, timestamp, type, user-id, "
     "app-id, priority, delivery-mode",
     0},
    {"retain", OPT_RETAIN, 0, 0, "MQTT: the topic keeps it for who subscribes later; an empty message ends that", 0},
    {"transient", OPT_TRANSIENT, 0, 0, "need not survive a restart", 0},
    {"file", 'f', "FILE", 0, "a message that is this file, may be given several times", 0},
    {"json", OPT_JSON, 0, 0, "standard input has messages as `millrace sub --json` prints them, one a line", 0},
    {"count", 'c', "N", 0, "so many times (default 1)", 0},
    {"rate", OPT_RATE, "N", 0, "messages per second (default: as fast as they are confirmed)", 0},
    {"quiet", 'q', 0, 0, "say nothing when all went well", 0},
    {0}};

#define OPTIONS_OF_READERS                                                                                             \
    {NULL, 0, NULL, 0, "What", 2}, {"key", 'k', "KEY", 0, "binding key (default #: everything)", 0},                   \
        {"from",                                                                                                       \
         OPT_FROM,                                                                                                     \
         "PLACE",                                                                                                      \
         0,                                                                                                            \
         "where to begin in a stream: first, last, next, an offset, a time (2026-11-26T13:05:00, UTC), an interval "   \
         "(1h)",                                                                                                       \
         0},                                                                                                           \
        {"count", 'c', "N", 0, "end after so many messages", 0},                                                       \
        {"wait", OPT_WAIT, "SECONDS", 0, "end when nothing has come for so long", 0},                                  \
        {"pretty", OPT_PRETTY, 0, 0, "for people (default on a terminal)", 0},                                         \
        {"raw", OPT_RAW, 0, 0, "only bodies, a line each (default elsewhere)", 0},                                     \
    {                                                                                                                  \
        "json", OPT_JSON, 0, 0, "a JSON object a line: everything about the message, and payload", 0                   \
    }

static const struct argp_option sub_options[] = {
    OPTIONS_OF_ALL,
    OPTIONS_OF_READERS,
    {"peek", OPT_PEEK, 0, 0, "give everything back to the queue at the end", 0},
    {0}};

static const struct argp_option tail_options[] = {
    OPTIONS_OF_ALL,
    OPTIONS_OF_READERS,
    {"lines", 'n', "N", 0, "begin so many records before the end (default 10)", 0},
    {0}};

static double decimal_of(const char *text, struct argp_state *state)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || !(number >= 0 && number <= 1e9))
        argp_error(state, "%s is not a number from 0 on", text);
    return number;
}

static void set_protocol(struct talk_line *line, const char *name, struct argp_state *state)
{
    for (size_t i = 0; i < ARRAY_LEN(protocols); i++)
        if (strcmp(protocols[i]->name, name) == 0) {
            line->protocol = protocols[i];
            return;
        }
    argp_error(state, "%s is no protocol of this command; --help lists them", name);
}

static void set_topic(struct talk_line *line, const char *topic, struct argp_state *state)
{
    size_t len = strlen(topic);
    if (len == 0 || len >= sizeof line->topic)
        argp_error(state, "a topic has 1 to %zu bytes", sizeof line->topic - 1);
    mqtt_topic_swap((uint8_t *)line->topic, slice_of(topic, len + 1));
    line->talk.topic = topic;
    line->talk.exchange = "amq.topic";
    line->talk.key = line->topic;
}

static void set_header(struct talk_line *line, const char *pair, struct argp_state *state)
{
    json_t *properties = json_object_get(line->about, "properties"), *headers = json_object_get(properties, "headers");
    if (!headers) {
        headers = json_object();
        json_object_set_new(properties, "headers", headers);
    }
    if (!talk_pair_set(headers, pair))
        argp_error(state, "a header is NAME=TEXT or NAME:=JSON, not %s", pair);
}

static void set_word(struct talk_line *line, const char *word, struct argp_state *state)
{
    if (line->body_count == BODIES_MAX)
        argp_error(state, "too many messages: one a line on standard input takes any number");
    line->bodies[line->body_count++] = word;
}

/* Without an exchange the first word says where to. */
static void settle_words(struct talk_line *line, struct argp_state *state)
{
    if (!line->talk.exchange) {
        if (!line->body_count)
            argp_error(state, "which queue or stream? (or --exchange, or --topic)");
        line->talk.name = line->bodies[0];
        memmove(line->bodies, line->bodies + 1, --line->body_count * sizeof line->bodies[0]);
    }
    if (line->body_count && !line->is_pub)
        argp_error(state, "one queue, stream, exchange or topic at a time");
    if (line->json && (line->body_count || line->file_count) && line->is_pub)
        argp_error(state, "with --json messages come from standard input");
    if (line->talk.retain && !line->protocol->retains)
        argp_error(state, "only MQTT retains: --retain wants --protocol mqtt");
    const char *misused = line->protocol->misused ? line->protocol->misused(&line->talk) : NULL;
    if (misused)
        argp_error(state, "%s", misused);
    if (line->json + line->raw + line->pretty > 1)
        argp_error(state, "one of --json, --raw and --pretty");
}

static error_t parse_tls(int key, char *arg, struct talk_tls *tls)
{
    switch (key) {
    case OPT_TLS: break;
    case OPT_CA: tls->ca = arg; break;
    case OPT_CERT: tls->certificate = arg; break;
    case OPT_KEY: tls->key = arg; break;
    case OPT_INSECURE: tls->insecure = true; break;
    default: return ARGP_ERR_UNKNOWN;
    }
    tls->wanted = true;
    return 0;
}

static error_t parse_where(int key, char *arg, struct talk_line *line, struct argp_state *state)
{
    switch (key) {
    case OPT_PROTOCOL: set_protocol(line, arg, state); return 0;
    case OPT_HOST: cli_host_parse(arg, line->talk.host, sizeof line->talk.host, &line->talk.port, state); return 0;
    case OPT_OFFSET: line->offset = (unsigned)cli_number_of(arg, 60000, state); return 0;
    case OPT_USER: line->talk.user = arg; return 0;
    case OPT_PASSWORD: line->talk.password = arg; return 0;
    case OPT_VHOST: line->talk.vhost = arg; return 0;
    case OPT_CREATE: line->talk.create = true; return 0;
    case OPT_PARTITION: line->talk.partition = (int64_t)cli_number_of(arg, INT32_MAX, state); return 0;
    case 'x': line->talk.exchange = arg; return 0;
    case 'k': line->talk.key = arg; return 0;
    case 't': set_topic(line, arg, state); return 0;
    default: return parse_tls(key, arg, &line->tls);
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct talk_line *line = state->input;
    json_t *properties = json_object_get(line->about, "properties");
    switch (key) {
    case OPT_RETAIN: line->talk.retain = true; return 0;
    case OPT_TRANSIENT: json_object_set_new(properties, "delivery_mode", json_integer(1)); return 0;
    case OPT_JSON: line->json = true; return 0;
    case OPT_RAW: line->raw = true; return 0;
    case OPT_PRETTY: line->pretty = true; return 0;
    case OPT_RATE: line->rate = decimal_of(arg, state); return 0;
    case OPT_WAIT: line->wait_ms = (int64_t)(decimal_of(arg, state) * 1000); return 0;
    case OPT_PEEK: line->talk.peek = true; return 0;
    case OPT_FROM: line->talk.from = arg; return 0;
    case 'H': set_header(line, arg, state); return 0;
    case 'P':
        if (!talk_property_set(properties, arg))
            argp_error(state, "there is no such property, or its value is wrong: %s", arg);
        return 0;
    case 'f':
        if (line->file_count == BODIES_MAX)
            argp_error(state, "too many files");
        line->files[line->file_count++] = arg;
        return 0;
    case 'c': line->talk.count = cli_number_of(arg, UINT64_MAX / 2, state); return 0;
    case 'n': line->talk.last = (unsigned)cli_number_of(arg, 1000000000, state); return 0;
    case 'q': line->quiet = true; return 0;
    case ARGP_KEY_ARG: set_word(line, arg, state); return 0;
    case ARGP_KEY_END: settle_words(line, state); return 0;
    default: return parse_where(key, arg, line, state);
    }
}

static void line_parse(struct talk_line *ret, int argc, char **argv)
{
    bool pub = strcmp(argv[0], "pub") == 0, tail = strcmp(argv[0], "tail") == 0;
    struct argp argp = {.options = pub ? pub_options : tail ? tail_options : sub_options, .parser = parse_option};
    char program[32];
    *ret = (struct talk_line){.talk = {.host = "127.0.0.1",
                                       .vhost = "/",
                                       .partition = -1,
                                       .user = secure_getenv("MILLRACE_USER"),
                                       .password = secure_getenv("MILLRACE_PASSWORD"),
                                       .stream_only = tail,
                                       .say = say,
                                       .last = tail ? LAST_DEFAULT : 0},
                              .protocol = protocols[0],
                              .is_pub = pub,
                              .is_tail = tail,
                              .wait_ms = -1,
                              .about = json_pack("{s:{}}", "properties")};
    argp.args_doc = pub ? "QUEUE [MESSAGE...]\n--exchange NAME [--key KEY] [MESSAGE...]\n--topic A/B/C [MESSAGE...]"
                        : "QUEUE\n--exchange NAME [--key KEY]\n--topic A/B/C";
    argp.doc =
        pub ? "Publishes messages and waits until they are confirmed. Without MESSAGE and --file each line of standard "
              "input "
              "is one.\vExit status: 0 all were confirmed, 1 some were not or had nowhere to go, 64 wrong usage, "
              "69 no broker there.\nExamples: millrace pub orders 'first order' · millrace pub -x events -k user.new "
              "-P content-type=application/json '{\"id\": 1}' · seq 100 | millrace pub numbers --create"
        : tail
            ? "Shows the last records of a stream and what comes after them, or what comes to an exchange or topic "
              "from "
              "now on; takes nothing away.\vExamples: millrace tail events · millrace tail events --from 1h "
              "--json · millrace tail -t 'sensors/+/temperature'"
            : "Takes messages from a queue, or reads a stream, an exchange or a topic from now on; each is "
              "acknowledged when "
              "it has been written.\vExit status: 0, or 1 when fewer than --count came within --wait.\nExamples: "
              "millrace sub orders · millrace sub orders --peek --wait 1 · millrace sub -x events -k 'user.#' --json";
    snprintf(program, sizeof program, "millrace %s", argv[0]);
    char *name = argv[0];
    argv[0] = program;
    argp_parse(&argp, argc, argv, 0, NULL, ret);
    argv[0] = name;
    if (!ret->talk.port)
        ret->talk.port = (ret->tls.wanted ? ret->protocol->tls_port : ret->protocol->port) + ret->offset;
}

/* ---- connecting ---- */

/* END_OK, or what went wrong has been said. */
static enum exit_code connect_to(const struct talk_line *line, struct talk **ret)
{
    *ret = line->protocol->open(&line->talk);
    if (!*ret) {
        cli_complain("out of memory");
        return END_SYSTEM;
    }
    if (!(*ret)->error[0])
        return END_OK;
    cli_complain("%s", (*ret)->error);
    bool nobody = strncmp((*ret)->error, "cannot ", 7) == 0;
    line->protocol->close(*ret);
    *ret = NULL;
    return nobody ? END_NO_BROKER : END_FAILED;
}

/* ---- pub ---- */

struct pub {
    const struct talk_line *line;
    struct talk *talk;
    struct os_event pause;
    mono_t began;
    uint64_t line_number;
};

/* Waits for the message's turn. */
static void keep_pace(struct pub *p)
{
    struct os *os = os_posix();
    if (!(p->line->rate > 0))
        return;
    mono_t due = p->began + (mono_t)((double)p->talk->published * 1e9 / p->line->rate);
    mono_t now = os->now_mono(os);
    if (due - now > FLUSH_BEFORE_NS && p->line->protocol->flush(p->talk) != 0)
        return; /* the next publish says why */
    for (now = os->now_mono(os); now < due; now = os->now_mono(os))
        (void)os_event_wait(&p->pause, due - now);
}

static bool publish(struct pub *p, const json_t *about, struct slice body)
{
    keep_pace(p);
    struct talk_message message = {.about = (json_t *)(uintptr_t)about, .body = body};
    return p->line->protocol->publish(p->talk, &message) == 0;
}

/* What was said on the command line holds for every message that does not say it itself. */
static bool publish_json(struct pub *p, struct slice text)
{
    struct talk_message message;
    char why[300], *body;
    if (!talk_parse(text, &message, &body, why, sizeof why)) {
        talk_fail(p->talk, "line %llu of standard input: %s", (unsigned long long)p->line_number, why);
        return false;
    }
    json_t *own = json_object_get(message.about, "properties"), *given = json_object_get(p->line->about, "properties");
    if (!own)
        json_object_set_new(message.about, "properties", json_copy(given));
    else
        json_object_update_missing(own, given);
    bool ok = publish(p, message.about, message.body);
    json_decref(message.about);
    mem_free(body);
    return ok;
}

/* A line of standard input without its end; grows *buffer. -1: the end, or no memory (then the talk has an error). */
static int64_t line_next(struct pub *p, char **buffer, size_t *cap)
{
    size_t len = 0;
    int c;
    while ((c = getc_unlocked(stdin)) != EOF && c != '\n') {
        if (len == *cap) {
            size_t more = *cap ? *cap * 2 : 4096;
            char *grown = more <= LINE_MAX_BYTES ? mem_realloc(*buffer, more) : NULL;
            if (!grown)
                return talk_fail(p->talk, "a line of standard input is too long");
            *buffer = grown;
            *cap = more;
        }
        (*buffer)[len++] = (char)c;
    }
    p->line_number++;
    return c == EOF && len == 0 ? -1 : (int64_t)len;
}

static bool publish_lines(struct pub *p)
{
    char *buffer = NULL;
    size_t cap = 0;
    int64_t len;
    bool ok = true;
    if (isatty(STDIN_FILENO) && !p->line->quiet)
        fputs("Each line is a message; Ctrl-D ends.\n", stderr);
    while (ok && (len = line_next(p, &buffer, &cap)) >= 0) {
        struct slice text = slice_of(buffer, (size_t)len);
        ok = p->line->json ? publish_json(p, text) : publish(p, p->line->about, text);
        if (isatty(STDIN_FILENO))
            ok = ok && p->line->protocol->flush(p->talk) == 0;
    }
    mem_free(buffer);
    return ok && !p->talk->error[0];
}

static bool publish_file(struct pub *p, const char *path)
{
    struct os *os = os_posix();
    int fd = -1, err = os->open(os, path, OS_READ, &fd);
    uint64_t size = 0;
    if (err == 0)
        err = os->size(os, fd, &size);
    uint8_t *bytes = err == 0 && size <= LINE_MAX_BYTES ? mem_alloc(size + 1) : NULL;
    int64_t len = bytes ? os->pread(os, fd, bytes, size, 0) : err < 0 ? err : -EFBIG;
    if (fd >= 0)
        os->close(os, fd);
    bool ok = len >= 0 ? publish(p, p->line->about, slice_of(bytes, (size_t)len))
                       : talk_fail(p->talk, "%s cannot be read: %s", path, strerror((int)-len)) == 0;
    mem_free(bytes);
    return ok;
}

static bool publish_all(struct pub *p)
{
    const struct talk_line *line = p->line;
    uint64_t times = line->talk.count ? line->talk.count : 1;
    if (!line->body_count && !line->file_count)
        return publish_lines(p);
    for (uint64_t n = 0; n < times; n++) {
        for (unsigned i = 0; i < line->body_count; i++)
            if (!publish(p, line->about, slice_str(line->bodies[i])))
                return false;
        for (unsigned i = 0; i < line->file_count; i++)
            if (!publish_file(p, line->files[i]))
                return false;
    }
    return true;
}

static const char *plural(uint64_t count)
{
    return count == 1 ? "" : "s";
}

static enum exit_code say_published(const struct talk_line *line, const struct talk *t, bool ok)
{
    unsigned long long all = t->published;
    if (!ok) {
        cli_complain("%s", t->error);
        if (all)
            cli_complain("of %llu message%s that had been sent some may not have arrived", all, plural(all));
        return END_FAILED;
    }
    if (t->unrouted)
        cli_complain("%llu of %llu message%s went nowhere: %s", (unsigned long long)t->unrouted, all, plural(all),
                     line->protocol == &talk_mqtt ? "nobody subscribes to the topic"
                     : line->talk.exchange        ? "no queue is bound to the exchange for this key"
                                                  : "there is no such queue (--create makes it)");
    if (t->refused)
        cli_complain("%llu of %llu message%s were refused: the queue is full", (unsigned long long)t->refused, all,
                     plural(all));
    if (t->unrouted || t->refused)
        return END_FAILED;
    if (!line->quiet)
        fprintf(stderr, "%llu message%s confirmed\n", all, plural(all));
    return END_OK;
}

static enum exit_code run_pub(const struct talk_line *line)
{
    struct pub p = {.line = line, .began = os_posix()->now_mono(os_posix())};
    enum exit_code code = connect_to(line, &p.talk);
    if (code != END_OK)
        return code;
    bool ok = publish_all(&p) && line->protocol->flush(p.talk) == 0;
    code = say_published(line, p.talk, ok);
    line->protocol->close(p.talk);
    return code;
}

/* ---- sub and tail ---- */

/* END_OK: as many as were wanted, or the time is over. */
static enum exit_code read_all(const struct talk_line *line, struct talk *t)
{
    enum talk_form form = line->json              ? TALK_JSON
                          : line->raw             ? TALK_RAW
                          : line->pretty          ? TALK_PRETTY
                          : isatty(STDOUT_FILENO) ? TALK_PRETTY
                                                  : TALK_RAW;
    struct talk_message message;
    int got;
    for (uint64_t seen = 0; !line->talk.count || seen < line->talk.count; seen++) {
        if ((got = line->protocol->next(t, line->wait_ms, &message)) == 0) {
            if (!line->talk.count)
                return END_OK;
            cli_complain("only %llu of %llu messages came", (unsigned long long)seen,
                         (unsigned long long)line->talk.count);
            return END_FAILED;
        }
        if (got < 0)
            break;
        bool written = talk_print(stdout, form, &message) && fflush(stdout) == 0;
        json_decref(message.about);
        if (!written)
            talk_fail(t, "standard output cannot be written to");
        if (!written || line->protocol->done(t) < 0)
            break;
    }
    if (!t->error[0])
        return END_OK;
    cli_complain("%s", t->error);
    return END_FAILED;
}

static enum exit_code run_reader(const struct talk_line *line)
{
    struct talk *t;
    enum exit_code code = connect_to(line, &t);
    if (code != END_OK)
        return code;
    if (line->protocol->subscribe(t) < 0) {
        cli_complain("%s", t->error);
        code = END_FAILED;
    } else {
        code = read_all(line, t);
    }
    line->protocol->close(t);
    return code;
}

/* END_OK, or which file is wrong has been said. */
static enum exit_code read_tls(struct talk_line *line)
{
    char why[400];
    if (!line->tls.wanted)
        return END_OK;
    line->talk.tls = &line->tls.options;
    if (talk_tls_read(&line->tls, why, sizeof why) == 0)
        return END_OK;
    cli_complain("%s", why);
    return END_CONFIG;
}

int cli_talk(int argc, char **argv)
{
    struct talk_line *line = mem_alloc(sizeof *line);
    if (!line)
        return END_SYSTEM;
    line_parse(line, argc, argv);
    enum exit_code code = read_tls(line);
    if (code == END_OK)
        code = line->is_pub ? run_pub(line) : run_reader(line);
    talk_tls_fini(&line->tls);
    json_decref(line->about);
    mem_free(line);
    return (int)code;
}
