/* `millrace backup DIR`: copies the data folder of a running broker. Main thread.
 *
 * The broker is asked to hold its files, and this process copies them: the broker's threads have nothing to do with it. When
 * this process dies its connection ends, and with that the hold. */
#include "admin/control_client.h"
#include "main/cli_int.h"
#include "main/progress.h"
#include "store/backup.h"
#include "store/new_folder.h"

#include <errno.h>
#include <inttypes.h>

struct backing {
    const char *dir;
    struct control_client client;
    struct progress progress;
};

static void on_progress(void *arg, const char *part, uint64_t done, uint64_t total)
{
    progress_show(&((struct backing *)arg)->progress, part, done, total);
}

/* Trimmed journal files of a busy broker add up; a broker that went away meanwhile has done no harm. */
static void on_journal(void *arg)
{
    struct backing *b = arg;
    json_decref(control_client_request(&b->client, json_pack("{s:s, s:b}", "op", "release", "journal", 1)));
}

/* From the first call on nothing goes that the journal names; each says what is durable now. */
static int hold(void *arg, lsn_t *ret_durable)
{
    struct backing *b = arg;
    json_t *response = control_client_request(&b->client, json_pack("{s:s}", "op", "hold"));
    bool good = json_is_true(json_object_get(response, "ok"));
    *ret_durable = (lsn_t)json_integer_value(json_object_get(response, "number"));
    json_decref(response);
    if (good)
        return 0;
    cli_complain("the broker on %s does not hold its files: it went away, or is of an older version", b->dir);
    return -EPIPE;
}

static int print(const struct backup_result *r, const char *to, bool json)
{
    if (json) {
        json_t *object =
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "to", to, "records", (json_int_t)r->records,
                      "journal_files", (json_int_t)r->journal_files, "journal_bytes", (json_int_t)r->journal_bytes,
                      "files_linked", (json_int_t)r->files_linked, "files_copied", (json_int_t)r->files_copied,
                      "bytes_copied", (json_int_t)r->bytes_copied);
        int err = object ? json_dumpf(object, stdout, JSON_INDENT(2)) : -1;
        json_decref(object);
        return err < 0 || putchar('\n') == EOF ? -EIO : 0;
    }
    char bytes[32];
    progress_bytes(r->bytes_copied, bytes, sizeof bytes);
    printf("%s is whole: %" PRIu64 " journal records, %" PRIu64 " files with a second name, %" PRIu64
           " copied, %s written\n",
           to, r->records, r->files_linked, r->files_copied, bytes);
    return 0;
}

static int copy(struct backing *b, const struct cli_line *line, const char *to)
{
    struct new_folder folder;
    struct backup_result result;
    char why[900] = "";
    lsn_t held;
    struct backup_options options = {.os = os_posix(),
                                     .dir = b->dir,
                                     .to = folder.partial,
                                     .durable = hold,
                                     .copy = line->copy,
                                     .bytes_per_second = line->rate,
                                     .on_progress = on_progress,
                                     .on_journal = on_journal,
                                     .arg = b};
    int err = new_folder_begin(&folder, os_posix(), to, why, sizeof why);
    if (!err)
        err = hold(b, &held);
    if (!err)
        err = backup(&options, &result, why, sizeof why);
    if (!err)
        err = new_folder_finish(&folder, why, sizeof why);
    progress_end(&b->progress);
    if (err && why[0])
        cli_complain("%s", why);
    if (!err)
        err = print(&result, to, line->json);
    return err == 0 ? END_OK : err == -EILSEQ ? END_DATA_DAMAGED : err == -EPIPE ? END_NO_BROKER : END_DATA_FOLDER;
}

static int run(const struct cli_line *line, const char *dir)
{
    struct backing b = {.dir = dir};
    if (line->word_count != 1) {
        cli_complain("backup needs one folder, which is absent or empty: millrace backup DIR");
        return END_USAGE;
    }
    if (cli_lies_within(line->words[0], dir)) {
        cli_complain("%s lies in the data folder %s: a backup belongs elsewhere, best on another disk", line->words[0],
                     dir);
        return END_USAGE;
    }
    if (control_client_open(&b.client, dir) < 0) {
        cli_complain("no broker is running on %s: a stopped one's folder is copied with cp", dir);
        return END_NO_BROKER;
    }
    progress_init(&b.progress, os_posix(), line->json);
    int code = copy(&b, line, line->words[0]);
    control_client_close(&b.client);
    return code;
}

int cli_backup(int argc, char **argv)
{
    struct cli_line line;
    struct config config;
    cli_line_parse(
        &line, "DIR",
        "Copies the data folder of a running broker (--data) to DIR, as of now: a broker can be started on it. "
        "Clients are neither stopped nor slowed. Segments that are no longer written get a second name (a hard "
        "link) where DIR is on the same file system; --copy copies them, too.",
        argc, argv);
    int code = cli_config_load(&line, &config);
    if (code == END_OK) {
        code = run(&line, config.data);
        config_free(&config);
    }
    cli_line_free(&line);
    return code;
}
