/* `millrace inspect DIR`: a data folder: the journal file by file and record by record, the segments page by page, the files
 * of streams batch by batch. Main thread. */
#include "core/records.h"
#include "fmt/json_line.h"
#include "journal/inspect.h"
#include "main/cli_int.h"
#include "store/inspect_segments.h"
#include "store/inspect_streams.h"

#include <errno.h>

static int print_record(void *arg, FILE *out, lsn_t lsn, struct slice record)
{
    char text[400];
    const bool *json = arg;
    (void)lsn;
    record_print(record, text, sizeof text);
    if (*json)
        json_line_text(out, "text", text);
    else
        fputs(text, out);
    return 0;
}

int cli_inspect(int argc, char **argv)
{
    struct cli_line line;
    struct config config;
    cli_line_parse(&line, "[DIR]",
                   "Prints the journal, the segment files and the files of streams of a data folder. Reads only, also "
                   "while a broker "
                   "runs on it.",
                   argc, argv);
    int code = cli_config_load(&line, &config);
    if (code == END_OK) {
        const char *dir = line.word_count ? line.words[0] : config.data;
        struct inspect_options options = {
            .groups_only = line.groups_only, .json = line.json, .each_record = print_record, .arg = &line.json};
        int err = journal_inspect(os_posix(), dir, &options, stdout);
        int second = store_inspect(os_posix(), dir, !line.groups_only, line.json, stdout);
        if (second == 0)
            second = streams_inspect(os_posix(), dir, !line.groups_only, line.json, stdout);
        if (second < 0 && (err == 0 || err == -EILSEQ))
            err = second;
        if (err < 0 && err != -EILSEQ)
            cli_complain("%s cannot be read: %s", dir, strerror(-err));
        code = err == 0 ? END_OK : err == -EILSEQ ? END_DATA_DAMAGED : END_DATA_FOLDER;
        config_free(&config);
    }
    cli_line_free(&line);
    return code;
}
