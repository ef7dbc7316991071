/* sql_run: statements to the broker, one after the other, and what comes back to whoever looks. Blocking. Main thread.
 *
 *   sql_run_init ▸ { sql_run_text | sql_run_file }* ▸ sql_run_fini
 */
#ifndef MILLRACE_MAIN_SHELL_RUN_H
#define MILLRACE_MAIN_SHELL_RUN_H

#include "main/client/sql_client.h"
#include "main/exit_codes.h"
#include "main/shell/show.h"

struct sql_run {
    struct sql_client client;
    struct sql_show show;
};

void sql_run_init(struct sql_run *r, const char *host, unsigned port, enum sql_show_form form);
void sql_run_fini(struct sql_run *r);

/* One statement, or what is meant to be one. After SIGINT (os_interrupts_keep) it ends with END_OK, and its query is stopped. */
enum exit_code sql_run_statement(struct sql_run *r, struct slice text);
/* All statements up to the first that fails. `name` is the file they stand in, or NULL; the text need not end with a semicolon. */
enum exit_code sql_run_text(struct sql_run *r, const char *name, struct slice text);
enum exit_code sql_run_file(struct sql_run *r, const char *path);
/* Standard input, where a statement runs as soon as it is whole. */
enum exit_code sql_run_input(struct sql_run *r);

#endif
