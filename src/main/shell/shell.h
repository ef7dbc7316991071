/* sql_shell: `millrace sql` on a terminal: lines with history and completion (libedit), statements of several lines, words that begin with a
 * backslash. Ctrl-C stops a query, or throws away what is being typed. Main thread.
 */
#ifndef MILLRACE_MAIN_SHELL_SHELL_H
#define MILLRACE_MAIN_SHELL_SHELL_H

#include "main/shell/run.h"

/* Until Ctrl-D or \q. */
enum exit_code sql_shell(struct sql_run *r);

#endif
