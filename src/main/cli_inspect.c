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

static int see_name(void *arg, const char *name)
{
    bool *found = arg;
    *found = *found || strncmp(name, "superblock.", 11) == 0 || strcmp(name, "wal") == 0;
    return 0;
}

/* 0: there is something of a data folder in it, however damaged. */
static int look_for_folder(const char *dir)
{
    bool found = false;
    int err = os_posix()->list(os_posix(), dir, see_name, &found);
    return err < 0 ? err : found ? 0 : -ENOENT;
}

static int inspect(const struct cli_line *line, const char *dir)
{
    struct os *os = os_posix();
    struct inspect_options options = {.groups_only = line->groups_only,
                                      .json = line->json,
                                      .each_record = print_record,
                                      .arg = (void *)(uintptr_t)&line->json};
    int err = look_for_folder(dir);
    if (err < 0)
        return err;
    err = journal_inspect(os, dir, &options, stdout);
    int second = store_inspect(os, dir, !line->groups_only, line->json, stdout);
    if (second == 0)
        second = streams_inspect(os, dir, !line->groups_only, line->json, stdout);
    return second < 0 && (err == 0 || err == -EILSEQ) ? second : err;
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
        int err = inspect(&line, dir);
        if (err < 0 && err != -EILSEQ)
            cli_complain("%s cannot be read: %s", dir, err == -ENOENT ? "it is not a data folder" : strerror(-err));
        code = err == 0 ? END_OK : err == -EILSEQ ? END_DATA_DAMAGED : END_DATA_FOLDER;
        config_free(&config);
    }
    cli_line_free(&line);
    return code;
}
