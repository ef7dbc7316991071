/* `millrace inspect`: what is on the disk, in the words of docs/formats/journal.md, and the verdict that recovery would
 * give. Uses recovery's own reading code on purpose: it shows what a start would see. Nothing is written. Any one thread.
 */
#include "journal/inspect.h"

#include "fmt/json_line.h"
#include "journal/recover.h"
#include "journal/walk.h"

#include <errno.h>
#include <inttypes.h>

#define HEX_BYTES 24

struct inspection {
    const struct inspect_options *options;
    FILE *out;
    uint64_t spares;
    uint64_t files, groups, records, payload;
};

static const char *const state_words[] = {
    [SUPER_ABSENT] = "absent", [SUPER_GOOD] = "good", [SUPER_NEWER] = "of a newer format", [SUPER_BROKEN] = "damaged"};

static void json_super(FILE *out, char letter, enum super_state state, const struct layout_super *super)
{
    json_line_begin(out, "superblock");
    json_line_text(out, "copy", (char[]){letter, '\0'});
    json_line_text(out, "state", state_words[state]);
    if (state == SUPER_GOOD) {
        json_line_hex(out, "uuid", super->uuid, LAYOUT_UUID_LEN);
        json_line_number(out, "generation", super->generation);
        json_line_number(out, "epoch", super->epoch);
        json_line_number(out, "start_lsn", super->start_lsn);
        json_line_number(out, "start_seq", super->start_seq);
        json_line_number(out, "durable", super->durable);
        json_line_signed(out, "time", super->wall_ms);
        json_line_flag(out, "clean", super->clean);
    }
    if (state == SUPER_GOOD && super->clean) {
        json_line_number(out, "tail_seq", super->tail_seq);
        json_line_number(out, "tail_offset", super->tail_offset);
    }
    json_line_end(out);
}

static void print_super(FILE *out, char letter, enum super_state state, const struct layout_super *super)
{
    fprintf(out, "superblock.%c  ", letter);
    if (state != SUPER_GOOD) {
        fprintf(out, "%s\n", state_words[state]);
        return;
    }
    fprintf(out,
            "generation %" PRIu64 " epoch %" PRIu32 " start lsn %" PRIu64 " in file %016" PRIx64 " durable %" PRIu64,
            super->generation, super->epoch, super->start_lsn, super->start_seq, super->durable);
    fprintf(out, " time %" PRId64 " uuid ", super->wall_ms);
    for (unsigned i = 0; i < LAYOUT_UUID_LEN; i++)
        fprintf(out, "%02x", super->uuid[i]);
    if (super->clean)
        fprintf(out, " closed clean at file %016" PRIx64 " offset %" PRIu64, super->tail_seq, super->tail_offset);
    fputc('\n', out);
}

static int count_file(void *arg, const char *name)
{
    struct inspection *in = arg;
    uint64_t number;
    if (wal_name(name, 'f', &number))
        in->spares++;
    return 0;
}

static int print_file(void *arg, const struct walk *walk)
{
    struct inspection *in = arg;
    in->files++;
    if (in->options->json) {
        json_line_begin(in->out, "file");
        json_line_number(in->out, "seq", walk->seq);
        json_line_number(in->out, "bytes", walk->size);
        json_line_number(in->out, "epoch", walk->head.epoch);
        json_line_number(in->out, "start_lsn", walk->head.start_lsn);
        json_line_number(in->out, "chain", walk->head.chain);
        json_line_signed(in->out, "time", walk->head.wall_ms);
        json_line_end(in->out);
        return 0;
    }
    fprintf(in->out,
            "file w-%016" PRIx64 "  size %" PRIu64 " epoch %" PRIu32 " begins at lsn %" PRIu64 " chain %08" PRIx32 "\n",
            walk->seq, walk->size, walk->head.epoch, walk->head.start_lsn, walk->head.chain);
    return 0;
}

static int print_record(struct inspection *in, lsn_t lsn, struct slice record)
{
    const struct inspect_options *options = in->options;
    in->records++;
    in->payload += record.len;
    if (options->groups_only || lsn < options->from || (options->to && lsn > options->to))
        return 0;
    int stop = 0;
    if (options->json) {
        json_line_begin(in->out, "record");
        json_line_number(in->out, "lsn", lsn);
        json_line_number(in->out, "bytes", record.len);
        if (options->each_record)
            stop = options->each_record(options->arg, in->out, lsn, record);
        else
            json_line_hex(in->out, "payload", record.ptr, record.len);
        json_line_end(in->out);
        return stop;
    }
    fprintf(in->out, "    %" PRIu64 "  %zu bytes  ", lsn, record.len);
    if (options->each_record)
        stop = options->each_record(options->arg, in->out, lsn, record);
    for (size_t i = 0; !options->each_record && i < record.len && i < HEX_BYTES; i++)
        fprintf(in->out, "%02x", record.ptr[i]);
    fputc('\n', in->out);
    return stop;
}

static void json_group(FILE *out, uint64_t offset, const struct layout_group *group)
{
    json_line_begin(out, "group");
    json_line_number(out, "offset", offset);
    json_line_number(out, "lsn", group->lsn);
    json_line_number(out, "records", group->nrec);
    json_line_number(out, "bytes", group->len);
    json_line_number(out, "durable", group->durable);
    json_line_number(out, "epoch", group->epoch);
    json_line_number(out, "seq", group->seq);
    json_line_signed(out, "time", group->wall_ms);
    json_line_flag(out, "note", group->note);
    json_line_end(out);
}

static int print_group(struct inspection *in, uint64_t offset, const struct layout_group *group, struct slice body)
{
    struct slice record;
    in->groups++;
    if (in->options->json)
        json_group(in->out, offset, group);
    else
        fprintf(in->out,
                "  group at %-9" PRIu64 " lsn %" PRIu64 " records %" PRIu32 " bytes %" PRIu32 " durable %" PRIu64
                " epoch %" PRIu32 " time %" PRId64 "%s\n",
                offset, group->lsn, group->nrec, group->len, group->durable, group->epoch, group->wall_ms,
                group->note ? " note" : "");
    int stop = 0;
    for (lsn_t lsn = group->lsn; !stop && layout_record_next(&body, &record); lsn++)
        stop = print_record(in, lsn, record);
    return stop;
}

static void json_verdict(const struct inspection *in, const struct walk *walk, lsn_t durable, const char *where)
{
    FILE *out = in->out;
    json_line_begin(out, "journal");
    json_line_number(out, "end_seq", walk->seq);
    json_line_number(out, "end_offset", walk->offset);
    json_line_number(out, "next_lsn", walk->lsn);
    json_line_text(out, "reason", walk->reason);
    json_line_number(out, "files", in->files);
    json_line_number(out, "groups", in->groups);
    json_line_number(out, "records", in->records);
    json_line_number(out, "payload_bytes", in->payload);
    json_line_number(out, "spare_files", in->spares);
    json_line_number(out, "durable", durable);
    json_line_text(out, "says", where);
    json_line_flag(out, "damaged", durable >= walk->lsn);
    json_line_end(out);
}

static int print_verdict(struct inspection *in, struct walk *walk, lsn_t durable)
{
    char where[128] = "the superblock";
    int err = recover_claims(walk, &durable, where, sizeof where);
    if (err)
        return err;
    if (in->options->json) {
        json_verdict(in, walk, durable, where);
        return durable < walk->lsn ? 0 : -EILSEQ;
    }
    fprintf(in->out, "end: file %016" PRIx64 " offset %" PRIu64 ", next lsn %" PRIu64 ": %s\n", walk->seq, walk->offset,
            walk->lsn, walk->reason);
    fprintf(in->out,
            "%" PRIu64 " files, %" PRIu64 " groups, %" PRIu64 " records, %" PRIu64 " bytes of payload, %" PRIu64
            " spare files\n",
            in->files, in->groups, in->records, in->payload, in->spares);
    if (durable < walk->lsn) {
        fprintf(in->out, "whole: nothing behind the end was ever acknowledged\n");
        return 0;
    }
    fprintf(in->out,
            "DAMAGED: everything up to lsn %" PRIu64 " was safely stored (says %s); lsns %" PRIu64 " to %" PRIu64
            " are lost\n",
            durable, where, walk->lsn, durable);
    return -EILSEQ;
}

static int print_journal(struct inspection *in, struct walk *walk, lsn_t durable)
{
    for (;;) {
        struct layout_group group;
        struct slice body;
        int r = walk_next(walk, &group, &body);
        if (r < 0)
            return r;
        if (r == 0)
            return print_verdict(in, walk, durable);
        int stop = print_group(in, walk->offset - layout_group_bytes(group.len), &group, body);
        if (stop)
            return stop;
    }
}

int journal_inspect(struct os *os, const char *dir, const struct inspect_options *options, FILE *out)
{
    struct inspection in = {.options = options, .out = out};
    enum super_state states[2];
    struct layout_super supers[2];
    for (unsigned i = 0; i < 2; i++) {
        int err = recover_super(os, dir, "ab"[i], &states[i], &supers[i]);
        if (err)
            return err;
        (options->json ? json_super : print_super)(out, "ab"[i], states[i], &supers[i]);
    }
    if (states[0] != SUPER_GOOD && states[1] != SUPER_GOOD) {
        if (!options->json)
            fprintf(out, "no valid superblock\n");
        return -EILSEQ;
    }
    unsigned newer =
        states[0] != SUPER_GOOD || (states[1] == SUPER_GOOD && supers[1].generation > supers[0].generation);
    lsn_t durable = supers[newer].start_lsn - 1;
    for (unsigned i = 0; i < 2; i++)
        if (states[i] == SUPER_GOOD && supers[i].durable > durable)
            durable = supers[i].durable;
    char folder[WAL_PATH_MAX];
    int n = snprintf(folder, sizeof folder, "%s/wal", dir);
    if (n <= 0 || (size_t)n + 32 > sizeof folder)
        return -ENAMETOOLONG;
    int err = os->list(os, folder, count_file, &in);
    if (err)
        return err;
    const struct layout_super *super = &supers[newer];
    struct walk walk;
    err = walk_open(&walk, os, folder, super->uuid, super->start_seq, super->start_lsn, print_file, &in);
    if (!err)
        err = print_journal(&in, &walk, durable);
    walk_close(&walk);
    return err;
}
