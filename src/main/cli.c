/* The command line, see cli.h. Main thread.
 *
 * One table of subcommands; each parses its own arguments with the options that all share (argp does the parsing, --help
 * and the complaints about unknown options). */
#include "main/cli.h"

#include "base/mem.h"
#include "main/bench/amqp.h"
#include "main/bench/kafka.h"
#include "main/bench/mqtt.h"
#include "main/bench/nexmark.h"
#include "main/cli_int.h"

#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define RATE_DEFAULT 200000000u /* of backup */

struct command_row {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *text;
};

static int run_bench(int argc, char **argv);
static int run_help(int argc, char **argv);

static const struct command_row rows[] = {
    {"serve", cli_serve, "run the broker in the foreground"},
    {"user", cli_admin, "add, delete, list users; change passwords and tags"},
    {"vhost", cli_admin, "add, delete, list vhosts"},
    {"permission", cli_admin, "set, clear, list permissions"},
    {"policy", cli_admin, "set, clear, list policies"},
    {"definitions", cli_admin, "import or export RabbitMQ's definitions JSON"},
    {"list", cli_admin,
     "list queues, exchanges, bindings, connections, consumers, clients of MQTT, statements of SQL, or totals"},
    {"status", cli_admin, "what memory and disk are used for, marks and alarms"},
    {"alarm", cli_admin, "raise or clear an alarm by hand: publishers wait"},
    {"connection", cli_admin, "close a connection"},
    {"compact", cli_admin, "compact the journal now"},
    {"reload", cli_admin, "read the certificates for TLS again"},
    {"pub", cli_talk, "publish messages: to a queue, stream, exchange or topic"},
    {"sub", cli_talk, "take messages from a queue, or read a stream, exchange or topic"},
    {"tail", cli_talk, "show the end of a stream and what comes after; takes nothing away"},
    {"sql", cli_sql, "a shell for continuous SQL, or statements from a file, an argument, standard input"},
    {"test", cli_trial, "run files of SQL with INSERTs and ASSERTs, in memory and with a clock of their own"},
    {"bench", run_bench,
     "bench amqp|kafka|mqtt|nexmark: load any AMQP 0-9-1, Kafka or MQTT server, or run Nexmark's queries in a "
     "Millrace; report rates and latencies"},
    {"check", cli_check, "verify a stopped data folder from end to end: says what is wrong, where, and what to do"},
    {"salvage", cli_check, "copy what is readable of a damaged data folder into a new one"},
    {"backup", cli_backup, "copy the data folder of a running broker"},
    {"inspect", cli_inspect, "print a data folder's journal record by record"},
    {"reference", cli_reference, "print settings, errors, limits, methods, SQL functions and log events"},
    {"help", run_help, "this list"},
};

void cli_complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("millrace: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

bool cli_lies_within(const char *path, const char *dir)
{
    char at[PATH_MAX], real[PATH_MAX], real_dir[PATH_MAX];
    if (!realpath(dir, real_dir) || snprintf(at, sizeof at, "%s", path) >= (int)sizeof at)
        return false;
    while (!realpath(at, real)) { /* the nearest of its folders that is there */
        char *slash = strrchr(at, '/');
        if (!slash && strcmp(at, ".") == 0)
            return false;
        if (slash)
            slash[slash == at] = '\0';
        else
            snprintf(at, sizeof at, ".");
    }
    size_t len = strlen(real_dir);
    return strncmp(real, real_dir, len) == 0 && (real[len] == '\0' || real[len] == '/');
}

static void print_help(FILE *to)
{
    fputs("usage: millrace COMMAND [ARGUMENT...]\n\n", to);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        fprintf(to, "  %-12s %s\n", rows[i].name, rows[i].text);
    fputs("\n`millrace COMMAND --help` tells more. Start with: millrace serve\n", to);
}

static int run_help(int argc, char **argv)
{
    if (argc > 1) {
        char *help[] = {argv[1], (char *)"--help", NULL};
        for (size_t i = 0; i < ARRAY_LEN(rows); i++)
            if (strcmp(rows[i].name, argv[1]) == 0 && rows[i].run != run_help)
                return rows[i].run(2, help);
    }
    print_help(stdout);
    return END_OK;
}

static int run_bench(int argc, char **argv)
{
    static const struct {
        const char *word, *name;
        int (*run)(int argc, char **argv);
    } protocols[] = {
        {"amqp", "millrace bench amqp", bench_amqp_main},
        {"kafka", "millrace bench kafka", bench_kafka_main},
        {"mqtt", "millrace bench mqtt", bench_mqtt_main},
        {"nexmark", "millrace bench nexmark", bench_nexmark_main},
    };
    for (size_t i = 0; argc > 1 && i < ARRAY_LEN(protocols); i++)
        if (strcmp(argv[1], protocols[i].word) == 0) {
            argv[1] = (char *)protocols[i].name;
            return protocols[i].run(argc - 1, argv + 1);
        }
    bool asked = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0);
    if (argc > 1 && !asked)
        cli_complain("there is no bench %s", argv[1]);
    fputs("usage: millrace bench amqp [OPTION...]\n       millrace bench kafka [OPTION...]\n"
          "       millrace bench mqtt [OPTION...]\n       millrace bench nexmark [OPTION...]\n"
          "`millrace bench amqp --help` tells more, and so do the others.\n",
          asked ? stdout : stderr);
    return asked ? END_OK : END_USAGE;
}

/* What a command has written may still be in memory, and the disk full. The broker's exit code does not depend on who reads its words. */
static int run_row(const struct command_row *row, int argc, char **argv)
{
    int code = row->run(argc, argv);
    bool lost = fflush(stdout) != 0 || ferror(stdout);
    if (!lost || code != END_OK || row->run == cli_serve)
        return code;
    cli_complain("standard output cannot be written to");
    return END_FAILED;
}

int cli_main(int argc, char **argv)
{
    argp_err_exit_status = END_USAGE;
    if (argc < 2) {
        print_help(stderr);
        return END_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        puts("millrace " MILLRACE_VERSION);
        return END_OK;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "-?") == 0)
        argv[1] = (char *)"help";
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, argv[1]) == 0)
            return run_row(&rows[i], argc - 1, argv + 1);
    cli_complain("there is no command %s; `millrace help` lists them", argv[1]);
    return END_USAGE;
}

/* ---- options of all commands ---- */

enum {
    OPT_DATA = 256,
    OPT_OFFSET,
    OPT_CONFIG,
    OPT_SET,
    OPT_DEFINITIONS,
    OPT_FORMAT,
    OPT_DEV_TLS,
    OPT_JSON,
    OPT_VHOST,
    OPT_TAGS,
    OPT_APPLY_TO,
    OPT_PRIORITY,
    OPT_OPERATOR,
    OPT_GROUPS,
    OPT_TO,
    OPT_COPY,
    OPT_RATE
};

/* Options that are settings by another name: --data DIR is --set data=DIR. */
static const struct {
    int option;
    const char *key;
} set_options[] = {
    {OPT_DATA, "data"}, {OPT_OFFSET, "port_offset"}, {OPT_DEFINITIONS, "definitions"}, {OPT_FORMAT, "log.format"}};

/* Who looks at files only has no ports; what means nothing to a command is taken, but not in its --help. */
#define OPTIONS_WITH(ports)                                                                                            \
    {"data", OPT_DATA, "DIR", 0, "data folder (default: millrace-data)", 0},                                           \
        {"port-offset", OPT_OFFSET, "N", ports, "added to every usual port, 0 to 3900", 0},                            \
        {"config", OPT_CONFIG, "FILE", 0, "settings from an INI file", 0},                                             \
    {                                                                                                                  \
        "set", OPT_SET, "KEY=VALUE", 0, "one setting; `millrace reference` lists them", 0                              \
    }

#define OPTIONS_OF_ALL OPTIONS_WITH(0)
#define OPTIONS_OF_FOLDERS OPTIONS_WITH(OPTION_HIDDEN)

static const struct argp_option serve_options[] = {
    OPTIONS_OF_ALL,
    {"definitions", OPT_DEFINITIONS, "FILE", 0, "import definitions (RabbitMQ's JSON) first", 0},
    {"log-format", OPT_FORMAT, "text|json", 0, "form of log lines", 0},
    {"dev-tls", OPT_DEV_TLS, 0, 0, "TLS with a throw-away certificate for localhost, to try it out", 0},
    {0}};
static const struct argp_option admin_options[] = {
    OPTIONS_OF_ALL,
    {"json", OPT_JSON, 0, 0, "lists as JSON", 0},
    {"vhost", OPT_VHOST, "NAME", 0, "vhost (default: /; lists: all)", 0},
    {"tags", OPT_TAGS, "A,B", 0, "user add: tags", 0},
    {"apply-to", OPT_APPLY_TO, "WHAT", 0, "policy set: all, queues, classic_queues, quorum_queues, exchanges", 0},
    {"priority", OPT_PRIORITY, "N", 0, "policy set: the highest wins", 0},
    {"operator", OPT_OPERATOR, 0, 0, "policy: operator policies", 0},
    {0}};
static const struct {
    int option;
    const char *commands;
} admin_only[] = {{OPT_JSON, "user vhost permission policy list status"},
                  {OPT_VHOST, "permission policy list"},
                  {OPT_TAGS, "user"},
                  {OPT_APPLY_TO, "policy"},
                  {OPT_PRIORITY, "policy"},
                  {OPT_OPERATOR, "policy"}};
static const struct argp_option inspect_options[] = {OPTIONS_OF_FOLDERS,
                                                     {"groups", OPT_GROUPS, 0, 0, "no line per record or page", 0},
                                                     {"json", OPT_JSON, 0, 0, "a JSON object per line", 0},
                                                     {0}};

static const struct argp_option check_options[] = {
    OPTIONS_OF_FOLDERS, {"json", OPT_JSON, 0, 0, "the findings as JSON", 0}, {0}};

static const struct argp_option salvage_options[] = {
    OPTIONS_OF_FOLDERS,
    {"to", OPT_TO, "NEWDIR", 0, "the new data folder; absent or empty", 0},
    {"json", OPT_JSON, 0, 0, "the findings as JSON", 0},
    {0}};

static const struct argp_option backup_options[] = {
    OPTIONS_OF_ALL,
    {"copy", OPT_COPY, 0, 0, "copy everything, give no second names", 0},
    {"rate", OPT_RATE, "MB", 0, "megabytes per second at most (default: 200; 0: no limit)", 0},
    {"json", OPT_JSON, 0, 0, "the result as JSON", 0},
    {0}};

static void line_set(struct cli_line *line, const char *set, struct argp_state *state)
{
    if (line->set_count == CLI_SETS_MAX)
        argp_error(state, "too many settings");
    line->sets[line->set_count++] = set;
}

static void line_set_key(struct cli_line *line, const char *key, const char *value, struct argp_state *state)
{
    size_t len = strlen(key) + strlen(value) + 2;
    char *set = mem_alloc(len);
    if (!set || line->owned_count == CLI_SETS_MAX)
        argp_error(state, "out of memory");
    snprintf(set, len, "%s=%s", key, value);
    line->owned[line->owned_count++] = set;
    line_set(line, set, state);
}

static void line_rate(struct cli_line *line, const char *text, struct argp_state *state)
{
    char *end;
    unsigned long long rate = strtoull(text, &end, 10);
    if (end == text || *end || rate > 1000000)
        argp_error(state, "--rate takes a number of megabytes per second, not %s", text);
    line->rate = rate * 1000000;
}

static void line_priority(struct cli_line *line, const char *text, struct argp_state *state)
{
    char *end;
    errno = 0;
    long priority = strtol(text, &end, 10);
    if (end == text || *end || errno || priority < INT_MIN || priority > INT_MAX)
        argp_error(state, "--priority takes a whole number, not %s", text);
    line->priority = (int)priority;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct cli_line *line = state->input;
    for (size_t i = 0; i < ARRAY_LEN(set_options); i++)
        if (key == set_options[i].option) {
            line_set_key(line, set_options[i].key, arg, state);
            return 0;
        }
    switch (key) {
    case OPT_CONFIG: line->file = arg; return 0;
    case OPT_SET: line_set(line, arg, state); return 0;
    case OPT_DEV_TLS: line_set(line, "tls.dev=true", state); return 0;
    case OPT_JSON: line->json = true; return 0;
    case OPT_VHOST: line->vhost = arg; return 0;
    case OPT_TAGS: line->tags = arg; return 0;
    case OPT_APPLY_TO: line->apply_to = arg; return 0;
    case OPT_PRIORITY: line_priority(line, arg, state); return 0;
    case OPT_OPERATOR: line->operator_policy = true; return 0;
    case OPT_COPY: line->copy = true; return 0;
    case OPT_RATE: line_rate(line, arg, state); return 0;
    case OPT_TO: line->to = arg; return 0;
    case OPT_GROUPS: line->groups_only = true; return 0;
    case ARGP_KEY_ARG:
        if (line->word_count == CLI_WORDS_MAX)
            argp_error(state, "too many arguments");
        line->words[line->word_count++] = arg;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* NULL: none. */
static const struct argp_option *own_options(const char *command)
{
    if (strcmp(command, "serve") == 0)
        return serve_options;
    if (strcmp(command, "inspect") == 0)
        return inspect_options;
    if (strcmp(command, "check") == 0)
        return check_options;
    if (strcmp(command, "backup") == 0)
        return backup_options;
    if (strcmp(command, "salvage") == 0)
        return salvage_options;
    if (strcmp(command, "reference") == 0)
        return NULL; /* argp does not give back what it takes for an empty table */
    return admin_options;
}

/* What means nothing to a command is not in its --help. */
static void hide_others(const char *command, struct argp_option *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(admin_options); i++) {
        ret[i] = admin_options[i];
        for (size_t k = 0; k < ARRAY_LEN(admin_only); k++)
            if (ret[i].key == admin_only[k].option && !strstr(admin_only[k].commands, command))
                ret[i].flags |= OPTION_HIDDEN;
    }
}

void cli_line_parse(struct cli_line *ret, const char *usage, const char *text, int argc, char **argv)
{
    *ret = (struct cli_line){.command = argv[0], .rate = RATE_DEFAULT};
    char program[64];
    snprintf(program, sizeof program, "millrace %s", argv[0]);
    struct argp_option admin[ARRAY_LEN(admin_options)];
    const struct argp_option *own = own_options(ret->command);
    if (own == admin_options)
        hide_others(ret->command, admin);
    struct argp argp = {
        .options = own == admin_options ? admin : own, .parser = parse_option, .args_doc = usage, .doc = text};
    argv[0] = program;
    argp_parse(&argp, argc, argv, 0, NULL, ret);
    argv[0] = (char *)(uintptr_t)ret->command;
}

void cli_line_free(struct cli_line *line)
{
    for (size_t i = 0; i < line->owned_count; i++)
        mem_free(line->owned[i]);
    line->owned_count = 0;
}

static const char *variable(const char *name)
{
    return secure_getenv(name);
}

int cli_config_load(const struct cli_line *line, struct config *ret)
{
    struct config_sources sources = {
        .os = os_posix(), .file = line->file, .sets = line->sets, .set_count = line->set_count, .variable = variable};
    char why[800];
    if (config_load(ret, &sources, why, sizeof why) == 0)
        return END_OK;
    cli_complain("%s", why);
    return END_CONFIG;
}
