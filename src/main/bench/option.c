/* See bench/option.h. */
#include "option.h"

#include "base/check.h"
#include "command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_KEY = 256 }; /* above every letter, as no option has a short name */

struct parsing {
    const struct bench_option *rows;
    size_t count;
    void *command;
};

/* Refuses a whole number outside of min and max. */
static uint64_t parse_count(const char *text, uint64_t min, uint64_t max, const struct argp_state *state)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || v < min || v > max)
        argp_error(state, "%s is not a whole number from %llu to %llu", text, (unsigned long long)min,
                   (unsigned long long)max);
    return v;
}

static double parse_number(const char *text, double max, const struct argp_state *state)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !(v >= 0 && v <= max))
        argp_error(state, "%s is not a number from 0 to %.0f", text, max);
    return v;
}

static uint64_t parse_word(const char *word, const char *const *words, const struct argp_state *state)
{
    char known[200] = "";
    for (unsigned i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], word) == 0)
            return i;
        size_t len = strlen(known);
        snprintf(known + len, sizeof(known) - len, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    argp_error(state, "%s is none of %s", word, known);
    return 0;
}

static const void *find_row(const struct bench_option *option, const char *name, const struct argp_state *state)
{
    for (size_t i = 0; i < option->max; i++) {
        const char *const *row = (const void *)((const char *)option->table + i * option->stride);
        if (strcmp(*row, name) == 0)
            return row;
    }
    argp_error(state, "there is no %s %s", option->name, name);
    return NULL;
}

static void store_integer(void *field, size_t width, uint64_t value)
{
    const uint8_t u8 = (uint8_t)value;
    const uint16_t u16 = (uint16_t)value;
    const uint32_t u32 = (uint32_t)value;
    const void *from = width == 1 ? (const void *)&u8 : width == 2 ? (const void *)&u16 : width == 4 ? &u32 : NULL;
    CHECK(width == sizeof(value) || (from != NULL && value >> (8 * width) == 0));
    memcpy(field, from != NULL ? from : &value, width);
}

static void store_pointer(void *field, size_t width, const void *pointer)
{
    CHECK(width == sizeof(pointer));
    memcpy(field, &pointer, sizeof(pointer));
}

static void take(const struct bench_option *row, const char *argument, void *command, const struct argp_state *state)
{
    char *field = (char *)command + row->at;
    switch (row->kind) {
    case BENCH_OPTION_HEADING: break;
    case BENCH_OPTION_FLAG: store_integer(field, row->width, row->max); break;
    case BENCH_OPTION_COUNT: store_integer(field, row->width, parse_count(argument, row->min, row->max, state)); break;
    case BENCH_OPTION_NUMBER: {
        double v = parse_number(argument, (double)row->max, state);
        CHECK(row->width == sizeof(v));
        memcpy(field, &v, sizeof(v));
        break;
    }
    case BENCH_OPTION_TEXT: store_pointer(field, row->width, argument); break;
    case BENCH_OPTION_WORD: store_integer(field, row->width, parse_word(argument, row->words, state)); break;
    case BENCH_OPTION_ROW: store_pointer(field, row->width, find_row(row, argument, state)); break;
    case BENCH_OPTION_OWN: row->parse(command, argument, state); break;
    }
}

static error_t on_option(int key, char *argument, struct argp_state *state)
{
    const struct parsing *p = state->input;
    if (key == ARGP_KEY_ARG)
        argp_error(state, "%s: there are only options", argument);
    if (key < FIRST_KEY || (size_t)(key - FIRST_KEY) >= p->count)
        return ARGP_ERR_UNKNOWN;
    take(&p->rows[key - FIRST_KEY], argument, p->command, state);
    return 0;
}

bool bench_options_parse(const char *name, const struct bench_option *rows, size_t count, const char *doc, int argc,
                         char **argv, void *ret_command)
{
    struct parsing parsing = {rows, count, ret_command};
    struct argp_option *options = bench_zeroed(count + 1, sizeof(*options));
    int heading = 0;
    for (size_t i = 0; i < count; i++) {
        options[i] = (struct argp_option){.name = rows[i].name, .arg = rows[i].argument, .doc = rows[i].text};
        if (rows[i].kind == BENCH_OPTION_HEADING)
            options[i].group = ++heading;
        else
            options[i].key = FIRST_KEY + (int)i;
    }
    const struct argp parser = {options, on_option, NULL, doc, NULL, NULL, NULL};
    bench_command_begin(name);
    bool right = argp_parse(&parser, argc, argv, 0, NULL, &parsing) == 0;
    free(options);
    return right;
}
