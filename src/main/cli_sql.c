/* `millrace sql`: continuous SQL from a shell, a file, an argument or standard input. Main thread.
 *
 * Rows go to standard output, everything else to standard error. */
#include "base/mem.h"
#include "main/cli_int.h"
#include "main/cli_where.h"
#include "main/shell/run.h"
#include "main/shell/shell.h"
#include "os/os_process.h"

#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <unistd.h>

#define PORT 15672u
#define TEXTS_MAX 256u

enum { OPT_HOST = 256, OPT_OFFSET, OPT_USER, OPT_PASSWORD, OPT_VHOST, OPT_CSV, OPT_JSON };

struct sql_text {
    const char *text;
    bool file;
};

struct sql_line {
    char host[256];
    unsigned port, offset;
    const char *user, *password, *vhost;
    enum sql_show_form form;
    bool quiet;
    struct sql_text texts[TEXTS_MAX];
    unsigned count;
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Where", 1},
    {"host", OPT_HOST, "HOST[:PORT]", 0, "the broker (default 127.0.0.1 and the HTTP port, 15672)", 0},
    {"port-offset", OPT_OFFSET, "N", 0, "added to the usual port", 0},
    {"user", OPT_USER, "NAME", 0, "who to log in as (default: MILLRACE_USER; nobody, who is guest on this machine)", 0},
    {"password", OPT_PASSWORD, "TEXT", 0, "better in MILLRACE_PASSWORD, where other users do not see it", 0},
    {"vhost", OPT_VHOST, "NAME", 0, "vhost (default /)", 0},
    {NULL, 0, NULL, 0, "What", 2},
    {"command", 'c', "TEXT", 0, "run these statements, and end", 0},
    {"file", 'f', "FILE", 0, "run the statements in this file, and end; -c and -f may be given several times", 0},
    {"csv", OPT_CSV, 0, 0, "rows as CSV", 0},
    {"json", OPT_JSON, 0, 0, "every event as a JSON object on a line, as the broker says it", 0},
    {"quiet", 'q', 0, 0, "say nothing but rows and errors", 0},
    {0}};

static void text_add(struct sql_line *line, const char *text, bool file, struct argp_state *state)
{
    if (line->count == TEXTS_MAX)
        argp_error(state, "too many of -c and -f");
    line->texts[line->count++] = (struct sql_text){text, file};
}

static void form_set(struct sql_line *line, enum sql_show_form form, struct argp_state *state)
{
    if (line->form != SQL_FORM_TABLE && line->form != form)
        argp_error(state, "one of --csv and --json");
    line->form = form;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct sql_line *line = state->input;
    switch (key) {
    case OPT_HOST: cli_host_parse(arg, line->host, sizeof line->host, &line->port, state); return 0;
    case OPT_OFFSET: line->offset = (unsigned)cli_number_of(arg, 40000, state); return 0;
    case OPT_USER: line->user = arg; return 0;
    case OPT_PASSWORD: line->password = arg; return 0;
    case OPT_VHOST: line->vhost = arg; return 0;
    case OPT_CSV: form_set(line, SQL_FORM_CSV, state); return 0;
    case OPT_JSON: form_set(line, SQL_FORM_JSON, state); return 0;
    case 'c': text_add(line, arg, false, state); return 0;
    case 'f': text_add(line, arg, true, state); return 0;
    case 'q': line->quiet = true; return 0;
    case ARGP_KEY_ARG: argp_error(state, "statements are given with -c, files with -f: %s?", arg); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void line_parse(struct sql_line *ret, int argc, char **argv)
{
    static const char doc[] =
        "A shell for continuous SQL. On a terminal it asks for statements, elsewhere it reads them from standard "
        "input.\vExit status: 0 all statements were run, 1 one failed, and those behind it were not run, 64 wrong "
        "usage, "
        "69 no broker there.\nExamples: millrace sql · millrace sql -c 'SELECT * FROM orders EMIT CHANGES' --json · "
        "millrace sql -f views.sql · echo 'SHOW STREAMS' | millrace sql --csv";
    const struct argp argp = {.options = options, .parser = parse_option, .doc = doc};
    char program[] = "millrace sql", *name = argv[0];
    *ret = (struct sql_line){
        .host = "127.0.0.1", .user = secure_getenv("MILLRACE_USER"), .password = secure_getenv("MILLRACE_PASSWORD")};
    argv[0] = program;
    argp_parse(&argp, argc, argv, 0, NULL, ret);
    argv[0] = name;
    if (!ret->port)
        ret->port = PORT + ret->offset;
    if (ret->password && !ret->user)
        ret->user = "guest";
}

static enum exit_code run(const struct sql_line *line, struct sql_run *r)
{
    enum exit_code code = END_OK;
    for (unsigned i = 0; i < line->count && code == END_OK; i++)
        code = line->texts[i].file ? sql_run_file(r, line->texts[i].text)
                                   : sql_run_text(r, NULL, slice_str(line->texts[i].text));
    if (line->count)
        return code;
    return os_is_terminal(STDIN_FILENO) ? sql_shell(r) : sql_run_input(r);
}

/* Characters are UTF-8, whatever the terminal is told: how wide they are only the locale knows. */
static void locale_set(void)
{
    (void)setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        (void)setlocale(LC_CTYPE, "C.UTF-8");
}

int cli_sql(int argc, char **argv)
{
    struct sql_line *line = mem_alloc(sizeof *line);
    struct sql_run *r = line ? mem_zalloc(sizeof *r) : NULL;
    if (!r) {
        mem_free(line);
        cli_complain("out of memory");
        return END_SYSTEM;
    }
    line_parse(line, argc, argv);
    locale_set();
    sql_run_init(r, line->host, line->port, line->form);
    r->client.user = line->user;
    r->client.password = line->password;
    r->client.vhost = line->vhost;
    r->show.quiet = line->quiet;
    enum exit_code code = run(line, r);
    sql_run_fini(r);
    mem_free(r);
    mem_free(line);
    return (int)code;
}
