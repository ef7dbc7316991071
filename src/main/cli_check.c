/* `millrace check` and `millrace salvage`: verify a stopped data folder; copy what is readable of one. Main thread. */
#include "main/cli_int.h"
#include "main/findings.h"
#include "store/audit.h"
#include "store/new_folder.h"
#include "store/salvage.h"

#include <errno.h>
#include <inttypes.h>

static enum exit_code code_of(int err)
{
    switch (err) {
    case 0: return END_OK;
    case -EILSEQ: return END_DATA_DAMAGED;
    case -EPROTO: return END_DATA_FOREIGN;
    case -EWOULDBLOCK: return END_DATA_BUSY;
    case -ENOMEM: return END_SYSTEM;
    default: return END_DATA_FOLDER;
    }
}

static const char *verdict_of(const struct audit_totals *t, int err)
{
    switch (err) {
    case 0: return "good";
    case -EILSEQ: return t->damages ? "damaged" : "flawed";
    case -EPROTO: return "newer";
    default: return "unreadable";
    }
}

static void print_verdict(const struct audit_totals *t, int err)
{
    if (err == 0)
        printf("good: everything that was safely stored is readable\n");
    else if (err == -EILSEQ && !t->damages)
        printf("flawed: %" PRIu64 " things are wrong, nothing is lost by them\n", t->flaws);
    else if (err == -EILSEQ)
        printf("DAMAGED: %" PRIu64 " places; lost: %" PRIu64 " journal records, %" PRIu64 " pages with %" PRIu64
               " messages\n",
               t->damages, t->lost_records, t->lost_pages, t->lost_page_messages);
    else
        printf("NOT KNOWN: %s\n", err == -EPROTO ? "it was written by a newer version" : strerror(-err));
}

static int print_json(struct findings *findings, const struct audit_totals *totals, const char *dir, int err)
{
    json_t *json = findings_json(findings, totals);
    if (!json)
        return -ENOMEM;
    json_object_set_new(json, "data", json_string(dir));
    json_object_set_new(json, "verdict", json_string(verdict_of(totals, err)));
    int failed = json_dumpf(json, stdout, JSON_INDENT(2));
    json_decref(json);
    return failed < 0 || putchar('\n') == EOF ? -EIO : err;
}

static int check(const char *dir, bool json)
{
    struct findings findings;
    struct audit audit;
    findings_init(&findings, os_posix(), json);
    struct audit_options options = {
        .os = os_posix(), .dir = dir, .on_finding = findings_add, .on_progress = findings_progress, .arg = &findings};
    int err = audit_open(&audit, &options);
    if (err == 0) {
        err = audit_run(&audit);
        progress_clear(&findings.progress);
        if (json) {
            err = print_json(&findings, &audit.totals, dir, err);
        } else {
            findings_print_totals(&audit.totals);
            print_verdict(&audit.totals, err);
        }
        audit_close(&audit);
    } else if (err == -EWOULDBLOCK) {
        cli_complain("a broker is running on %s: stop it, or check a backup of it", dir);
    } else {
        cli_complain("%s cannot be read: %s", dir, err == -ENOENT ? "it is not a data folder" : strerror(-err));
    }
    findings_end(&findings);
    return code_of(err);
}

/* ---- salvage ---- */

static json_t *result_json(const struct salvage_result *r)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "records", (json_int_t)r->records, "records_left_out",
                     (json_int_t)r->records_left_out, "pages", (json_int_t)r->pages, "segments",
                     (json_int_t)r->segments, "stream_files", (json_int_t)r->stream_files, "bytes",
                     (json_int_t)r->bytes, "queues", (json_int_t)r->copy.queues, "messages",
                     (json_int_t)r->copy.messages);
}

static void print_result(const struct salvage_result *r, const char *to)
{
    const struct audit_totals *t = &r->original;
    printf("copied:    %" PRIu64 " records, %" PRIu64 " pages in %" PRIu64 " segments, %" PRIu64 " files of streams\n",
           r->records, r->pages, r->segments, r->stream_files);
    printf("holds:     %" PRIu64 " queues, %" PRIu64 " messages\n", r->copy.queues, r->copy.messages);
    if (r->original_verdict == 0 || !(t->damages + t->unreadable))
        printf("%s is whole: nothing is lost\n", to);
    else
        printf("%s is whole, but not everything could be read; LOST: %" PRIu64 " journal records, %" PRIu64
               " pages with %" PRIu64 " messages, parts of %" PRIu64 " files of streams\n",
               to, t->lost_records, t->lost_pages, t->lost_page_messages, t->damaged_streams);
    if (t->lost_records)
        printf(
            "What was deleted while those records were written may be back: look at users, permissions and queues\n");
}

static int print_salvage(struct findings *findings, const struct salvage_result *r, const char *dir, const char *to)
{
    if (!findings->json) {
        print_result(r, to);
        return 0;
    }
    json_t *json = findings_json(findings, &r->original);
    if (!json)
        return -ENOMEM;
    json_object_set_new(json, "data", json_string(dir));
    json_object_set_new(json, "to", json_string(to));
    json_object_set_new(json, "verdict", json_string(verdict_of(&r->original, r->original_verdict)));
    json_object_set_new(json, "copied", result_json(r));
    int failed = json_dumpf(json, stdout, JSON_INDENT(2));
    json_decref(json);
    return failed < 0 || putchar('\n') == EOF ? -EIO : 0;
}

static int run_salvage(const char *dir, const char *to, bool json)
{
    struct findings findings;
    struct new_folder folder;
    struct salvage_result result = {0};
    char why[900] = "";
    findings_init(&findings, os_posix(), json);
    int err = new_folder_begin(&folder, os_posix(), to, why, sizeof why);
    struct salvage_options options = {.audit = {.os = os_posix(),
                                                .dir = dir,
                                                .on_finding = findings_add,
                                                .on_progress = findings_progress,
                                                .arg = &findings},
                                      .to = folder.partial};
    if (!err)
        err = salvage(&options, &result, why, sizeof why);
    if (!err)
        err = new_folder_finish(&folder, why, sizeof why);
    progress_clear(&findings.progress);
    if (err)
        cli_complain("%s", why);
    else
        err = print_salvage(&findings, &result, dir, to);
    findings_end(&findings);
    if (err)
        return code_of(err == -EILSEQ ? -EIO : err);
    return result.original.damages + result.original.unreadable ? END_DATA_DAMAGED : END_OK;
}

static int run(const struct cli_line *line, const char *dir)
{
    if (strcmp(line->command, "check") == 0)
        return check(dir, line->json);
    if (line->to && cli_lies_within(line->to, dir)) {
        cli_complain("%s lies in the data folder %s, which salvage does not change: name another place", line->to, dir);
        return END_USAGE;
    }
    if (line->to)
        return run_salvage(dir, line->to, line->json);
    cli_complain("salvage needs --to NEWDIR, a folder that is absent or empty");
    return END_USAGE;
}

int cli_check(int argc, char **argv)
{
    struct cli_line line;
    struct config config;
    const char *text =
        strcmp(argv[0], "check") == 0
            ? "Verifies a stopped data folder from end to end: superblocks, every journal file, group and record, "
              "every "
              "segment and every page with messages, and every other file. Says what is wrong, in which file and "
              "where, "
              "whose messages are lost, and what to do. Changes nothing."
            : "Copies what is readable of a damaged data folder into a new one, on which a broker starts, and says "
              "exactly "
              "what is lost. Never changes the original. Exit code 0: nothing is lost; 65: all that was readable was "
              "copied, and something is lost.";
    cli_line_parse(&line, "[DIR]", text, argc, argv);
    int code = cli_config_load(&line, &config);
    if (code == END_OK) {
        code = run(&line, line.word_count ? line.words[0] : config.data);
        config_free(&config);
    }
    cli_line_free(&line);
    return code;
}
