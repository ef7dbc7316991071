/* `millrace test`: files of SQL that say what is to come of them. Main thread. */
#include "base/mem.h"
#include "main/cli_int.h"
#include "main/shell/file.h"
#include "main/shell/trial.h"
#include "os/os_process.h"

#include <argp.h>
#include <stdlib.h>
#include <unistd.h>

enum { OPT_JSON = 256 };

static const struct argp_option options[] = {
    {"json", OPT_JSON, 0, 0, "a JSON object on a line for each assertion, and at the end", 0},
    {"quiet", 'q', 0, 0, "do not show the rows of SELECTs", 0},
    {0}};

struct trial_line {
    struct sql_trial trial;
    char **files;
    int count;
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct trial_line *line = state->input;
    (void)arg;
    switch (key) {
    case OPT_JSON: line->trial.json = true; return 0;
    case 'q': line->trial.quiet = true; return 0;
    case ARGP_KEY_ARGS:
        line->files = state->argv + state->next;
        line->count = state->argc - state->next;
        return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "which file?"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static bool is_plain(void)
{
    const char *variable = secure_getenv("NO_COLOR");
    return variable && *variable;
}

static void run_file(struct sql_trial *trial, const char *path)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    int err = sql_file_read(path, &bytes, &len);
    if (err == 0)
        sql_trial_run(trial, path, slice_of(bytes, len));
    else {
        cli_complain("%s cannot be read: %s", path, strerror(-err));
        trial->failed++;
    }
    mem_free(bytes);
}

int cli_trial(int argc, char **argv)
{
    static const char doc[] =
        "Runs each file of SQL in a broker of its own, in memory and with a clock that only ADVANCE TIME BY moves, and "
        "checks what its "
        "ASSERTs say. docs/sql.md has examples.\vExit status: 0 every assertion holds, 1 one does not, or a statement "
        "was refused, 64 wrong usage.";
    const struct argp argp = {.options = options, .parser = parse_option, .args_doc = "FILE...", .doc = doc};
    char program[] = "millrace test", *name = argv[0];
    struct trial_line line = {.trial = {.out = stdout, .err = stderr}};
    line.trial.colours = os_is_terminal(STDOUT_FILENO) && !is_plain();
    argv[0] = program;
    argp_parse(&argp, argc, argv, 0, NULL, &line);
    argv[0] = name;
    for (int i = 0; i < line.count; i++)
        run_file(&line.trial, line.files[i]);
    printf(line.trial.json ? "{\"passed\":%llu,\"failed\":%llu}\n" : "%llu passed, %llu failed\n", line.trial.passed,
           line.trial.failed);
    return line.trial.failed ? END_FAILED : END_OK;
}
