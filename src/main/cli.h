/* cli: the command line: finds the subcommand and runs it. The answer is the exit code. Main thread. */
#ifndef MILLRACE_MAIN_CLI_H
#define MILLRACE_MAIN_CLI_H

int cli_main(int argc, char **argv);

#endif
