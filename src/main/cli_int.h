/* cli_int: what the subcommands share: the options that all of them take. Main thread. */
#ifndef MILLRACE_MAIN_CLI_INT_H
#define MILLRACE_MAIN_CLI_INT_H

#include "main/config.h"
#include "main/exit_codes.h"

#define CLI_SETS_MAX 128
#define CLI_WORDS_MAX 16

/* What was on the command line after the subcommand. */
struct cli_line {
    const char *command;            /* "user", … for messages */
    const char *sets[CLI_SETS_MAX]; /* key=value, in order */
    size_t set_count;
    char *owned[CLI_SETS_MAX]; /* those made from options */
    size_t owned_count;
    const char *file;
    bool json;
    const char *vhost, *tags, *apply_to; /* administration */
    int priority;
    bool operator_policy, groups_only;
    const char *to;
    bool copy;
    uint64_t rate;
    const char *words[CLI_WORDS_MAX]; /* what is no option */
    unsigned word_count;
};

/* The commands: argv[0] is the subcommand's name. */
int cli_serve(int argc, char **argv);
int cli_admin(int argc, char **argv);
int cli_talk(int argc, char **argv);
int cli_sql(int argc, char **argv);
int cli_trial(int argc, char **argv);
int cli_inspect(int argc, char **argv);
int cli_backup(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_reference(int argc, char **argv);

/* Parses options and words; prints usage and ends the process on wrong ones (argp). */
void cli_line_parse(struct cli_line *ret, const char *usage, const char *text, int argc, char **argv);
void cli_line_free(struct cli_line *line);
/* 0, or an exit code after having said why. */
MUST_USE int cli_config_load(const struct cli_line *line, struct config *ret);

/* Whether what is to be made at `path` would lie in the folder `dir`, or be it; links are followed. */
bool cli_lies_within(const char *path, const char *dir);

/* Prints `millrace: …` on standard error. */
__attribute__((format(printf, 1, 2))) void cli_complain(const char *format, ...);

#endif
