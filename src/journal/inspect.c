/* `millrace inspect`: what is on the disk, in the words of docs/formats/journal.md, and the verdict that recovery would
 * give. Uses recovery's own reading code on purpose: it shows what a start would see. Nothing is written. Any one thread.
 */
#include "journal/inspect.h"

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

static void print_super(FILE *out, char letter, enum super_state state, const struct layout_super *super)
{
    static const char *const words[] = {
        [SUPER_ABSENT] = "absent", [SUPER_NEWER] = "of a newer format", [SUPER_BROKEN] = "damaged"};
    fprintf(out, "superblock.%c  ", letter);
    if (state != SUPER_GOOD) {
        fprintf(out, "%s\n", words[state]);
        return;
    }
    fprintf(out,
            "generation %" PRIu64 " epoch %" PRIu32 " start lsn %" PRIu64 " in file %016" PRIx64 " durable %" PRIu64,
            super->generation, super->epoch, super->start_lsn, super->start_seq, super->durable);
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
    fprintf(in->out, "    %" PRIu64 "  %zu bytes  ", lsn, record.len);
    int stop = 0;
    if (options->each_record)
        stop = options->each_record(options->arg, in->out, lsn, record);
    for (size_t i = 0; !options->each_record && i < record.len && i < HEX_BYTES; i++)
        fprintf(in->out, "%02x", record.ptr[i]);
    fputc('\n', in->out);
    return stop;
}

static int print_group(struct inspection *in, uint64_t offset, const struct layout_group *group, struct slice body)
{
    struct slice record;
    in->groups++;
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

static int print_verdict(struct inspection *in, struct walk *walk, lsn_t durable)
{
    char where[128] = "the superblock";
    int err = recover_claims(walk, &durable, where, sizeof where);
    if (err)
        return err;
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
        print_super(out, "ab"[i], states[i], &supers[i]);
    }
    if (states[0] != SUPER_GOOD && states[1] != SUPER_GOOD) {
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
