/* `millrace serve`: settings from the line, then the broker. Main thread. */
#include "main/cli_int.h"
#include "main/serve.h"
#include "os/os_process.h"

int cli_serve(int argc, char **argv)
{
    struct cli_line line;
    struct config config;
    cli_line_parse(&line, "", "Runs the broker in the foreground. SIGTERM or Ctrl-C stops it, a second one at once.",
                   argc, argv);
    int code = line.word_count ? END_USAGE : cli_config_load(&line, &config);
    if (line.word_count)
        cli_complain("serve takes options only; what is %s?", line.words[0]);
    if (code == END_OK) {
        os_allocator_tune(config.loops > 1 ? (unsigned)config.loops + 1 : 1);
        code = serve_run(&config);
        config_free(&config);
    }
    cli_line_free(&line);
    return code;
}
