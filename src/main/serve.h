/* serve: the broker as a process: boot order, wiring of loops, core, journal and worker, and the way down.
 *
 * Main thread. serve_run returns when the broker has stopped; the answer is the exit code (exit_codes.def), and when it is
 * not 0 a line in the log says why.
 */
#ifndef MILLRACE_MAIN_SERVE_H
#define MILLRACE_MAIN_SERVE_H

#include "main/config.h"

int serve_run(const struct config *config);

#endif
