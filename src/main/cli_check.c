/* `millrace check`: verifies a stopped data folder. Main thread. */
#include "main/cli_int.h"
#include "main/findings.h"
#include "store/audit.h"

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

int cli_check(int argc, char **argv)
{
    struct cli_line line;
    struct config config;
    cli_line_parse(
        &line, "[DIR]",
        "Verifies a stopped data folder from end to end: superblocks, every journal file, group and record, "
        "every segment and every page with messages, and every other file. Says what is wrong, in which file "
        "and where, whose messages are lost, and what to do. Changes nothing.",
        argc, argv);
    int code = cli_config_load(&line, &config);
    if (code == END_OK) {
        code = check(line.word_count ? line.words[0] : config.data, line.json);
        config_free(&config);
    }
    cli_line_free(&line);
    return code;
}
