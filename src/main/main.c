/* The broker's main(): hands the arguments to the command line, which knows the subcommands. */
#include "main/cli.h"

int main(int argc, char **argv)
{
    return cli_main(argc, argv);
}
