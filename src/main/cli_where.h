/* cli_where: arguments of the commands that are clients: where the broker is. They end the process on wrong ones (argp_error). Main thread. */
#ifndef MILLRACE_MAIN_CLI_WHERE_H
#define MILLRACE_MAIN_CLI_WHERE_H

#include "base/types.h"

#include <argp.h>

uint64_t cli_number_of(const char *text, uint64_t max, struct argp_state *state);
/* HOST, HOST:PORT, [HOST]:PORT; *port stays as it is when none is said. */
void cli_host_parse(const char *text, char *ret_host, size_t len, unsigned *port, struct argp_state *state);

#endif
