/* Arguments of the commands that are clients, see cli_where.h. Main thread. */
#include "main/cli_where.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t cli_number_of(const char *text, uint64_t max, struct argp_state *state)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno || end == text || *end || *text == '-' || number > max)
        argp_error(state, "%s is not a whole number up to %llu", text, (unsigned long long)max);
    return number;
}

void cli_host_parse(const char *text, char *ret_host, size_t host_len, unsigned *port, struct argp_state *state)
{
    const char *colon = strrchr(text, ':'), *bracket = strchr(text, ']');
    size_t len = strlen(text);
    if (colon && (*text != '[' ? strchr(text, ':') == colon : bracket && colon > bracket)) {
        *port = (unsigned)cli_number_of(colon + 1, 65535, state);
        len = (size_t)(colon - text);
    }
    if (*text == '[' && bracket) {
        len = (size_t)(bracket - text) - 1;
        text++;
    }
    if (len == 0 || len >= host_len)
        argp_error(state, "%s is no HOST or HOST:PORT", text);
    snprintf(ret_host, host_len, "%.*s", (int)len, text);
}
