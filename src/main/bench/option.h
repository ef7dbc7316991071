/* The options of a `millrace bench PROTOCOL` command: one table, of which each row is what --help says of an option and
 * where its value goes. What several commands have in the same words is here, for each to take what it needs.
 *
 * A file with a table has a `struct command` that the rows speak of; it is filled with what holds unless an option says
 * otherwise, then bench_options_parse. Main thread. Errors: argp's, which end the process with BENCH_EXIT_USAGE.
 */
#ifndef MAIN_BENCH_OPTION_H
#define MAIN_BENCH_OPTION_H

#include "base/types.h"

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum bench_option_kind {
    BENCH_OPTION_HEADING,
    BENCH_OPTION_FLAG,   /* takes no argument, and stores `max` */
    BENCH_OPTION_COUNT,  /* a whole number from min to max */
    BENCH_OPTION_NUMBER, /* a double from 0 to max */
    BENCH_OPTION_TEXT,   /* a const char *, lent for as long as the process lives */
    BENCH_OPTION_WORD,   /* the position of a word in a list */
    BENCH_OPTION_ROW,    /* a pointer to the row of a table whose first member is that name */
    BENCH_OPTION_OWN,    /* what the command's own function makes of it */
};

struct bench_option {
    const char *name, *argument, *text;
    enum bench_option_kind kind;
    size_t at, width; /* of the field that takes the value */
    uint64_t min, max;
    const char *const *words; /* ends with NULL */
    const void *table;        /* of `max` rows, each `stride` bytes */
    size_t stride;
    void (*parse)(void *command, const char *argument, const struct argp_state *state);
};

#define BENCH_FIELD(field) .at = offsetof(struct command, field), .width = sizeof(((struct command *)NULL)->field)

/* Rows. `field` is a member of struct command; COUNT, FLAG and WORD take integers, enums and bools of any width. */
#define BENCH_HEADING(title)                                                                                           \
    {                                                                                                                  \
        .text = (title), .kind = BENCH_OPTION_HEADING                                                                  \
    }
#define BENCH_SETS(field, value, name_, text_)                                                                         \
    {                                                                                                                  \
        .name = (name_), .text = (text_), .kind = BENCH_OPTION_FLAG, BENCH_FIELD(field), .max = (value)                \
    }
#define BENCH_FLAG(field, name_, text_) BENCH_SETS(field, true, name_, text_)
#define BENCH_COUNT(field, least, most, name_, argument_, text_)                                                       \
    {                                                                                                                  \
        .name = (name_), .argument = (argument_), .text = (text_), .kind = BENCH_OPTION_COUNT, BENCH_FIELD(field),     \
        .min = (least), .max = (most)                                                                                  \
    }
#define BENCH_NUMBER(field, most, name_, argument_, text_)                                                             \
    {                                                                                                                  \
        .name = (name_), .argument = (argument_), .text = (text_), .kind = BENCH_OPTION_NUMBER, BENCH_FIELD(field),    \
        .max = (most)                                                                                                  \
    }
#define BENCH_TEXT(field, name_, argument_, text_)                                                                     \
    {                                                                                                                  \
        .name = (name_), .argument = (argument_), .text = (text_), .kind = BENCH_OPTION_TEXT, BENCH_FIELD(field)       \
    }
#define BENCH_WORD(field, list, name_, argument_, text_)                                                               \
    {                                                                                                                  \
        .name = (name_), .argument = (argument_), .text = (text_), .kind = BENCH_OPTION_WORD, BENCH_FIELD(field),      \
        .words = (list)                                                                                                \
    }
#define BENCH_OWN(function, name_, argument_, text_)                                                                   \
    {                                                                                                                  \
        .name = (name_), .argument = (argument_), .text = (text_), .kind = BENCH_OPTION_OWN, .parse = (function)       \
    }

/* What several commands have alike, in `port_offset`, `scenario` and the options `o` of struct command. */
#define BENCH_PORT_OFFSET(text_) BENCH_COUNT(port_offset, 0, 60000, "port-offset", "N", text_)
#define BENCH_USER(text_) BENCH_TEXT(o.server.user, "user", "NAME", text_)
#define BENCH_PASSWORD() BENCH_TEXT(o.server.password, "password", "TEXT", "for --user")
#define BENCH_SCENARIO(rows, text_)                                                                                    \
    {                                                                                                                  \
        .name = "scenario", .argument = "NAME", .text = (text_), .kind = BENCH_OPTION_ROW, BENCH_FIELD(scenario),      \
        .max = ARRAY_LEN(rows), .table = (rows), .stride = sizeof((rows)[0])                                           \
    }
#define BENCH_RATE(text_) BENCH_NUMBER(o.rate, 1000000000, "rate", "N", text_)
#define BENCH_DURATION() BENCH_NUMBER(o.duration_s, 1000000, "duration", "SECONDS", "measured time (default 10)")
#define BENCH_WARMUP(text_) BENCH_NUMBER(o.warmup_s, 1000000, "warmup", "SECONDS", text_)
#define BENCH_WARMUP_TEXT "time before it that does not count (default 2)"
#define BENCH_MESSAGES(field, name_, text_) BENCH_COUNT(field, 0, UINT64_MAX / 2, name_, "N", text_)
#define BENCH_DRAIN(text_) BENCH_NUMBER(o.drain_s, 1000000, "drain", "SECONDS", text_)
#define BENCH_DRAIN_TEXT "give up when nothing moved for so long (default 10)"
#define BENCH_CONNECTIONS()                                                                                            \
    BENCH_COUNT(o.connections, 1, 100000, "connections", "N", "for scenario connect (default 100)")
#define BENCH_HOLD(text_) BENCH_NUMBER(o.hold_s, 1000000, "hold", "SECONDS", text_)
#define BENCH_OUTPUT()                                                                                                 \
    BENCH_FLAG(o.json, "json", "one JSON object on standard output"),                                                  \
        BENCH_FLAG(o.quiet, "quiet", "nothing but the result and errors"),                                             \
        BENCH_FLAG(o.progress, "progress", "the live line on standard error also when that is no terminal")

/* Reads the command line of the command `name`, for which it gets the process ready (bench_command_begin). `doc` is
 * what argp says before the options and, behind a \v, after them. False: the usage was wrong. */
bool bench_options_parse(const char *name, const struct bench_option *rows, size_t count, const char *doc, int argc,
                         char **argv, void *ret_command);

#endif
