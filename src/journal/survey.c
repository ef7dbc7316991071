/* Reading a journal in spite of its damage, see survey.h.
 *
 * A group counts when its checksums are right, it belongs to this file, and it is not older than what was read before; its
 * checksums are seeded with journal, file and claim, so nothing else can pass for one. It continues the journal when lsn
 * and chain say so. Where none continues, the rest of the file is searched block by block, then the next files; a file's
 * header is a place to go on as well, since it names the lsn that begins there. What lies between is a gap.
 *
 * Whether a gap is damage or a tail that was never acknowledged only the claims can tell, and they may stand anywhere. So
 * the verdict is known at the end of the reading; who needs it before reads twice. Any one thread.
 */
#include "journal/survey.h"

#include "base/check.h"
#include "base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct reading {
    struct survey *survey;
    const struct survey_hooks *hooks;
    lsn_t upto;
    struct walk walk; /* for its buffer and descriptor */
    uint64_t seq;     /* of the file that is read */
    lsn_t lsn;        /* expected next */
    uint32_t chain, epoch;
    bool chain_known; /* false: behind a gap anything may follow */
    bool in_gap;
    bool after_gap;
    struct survey_gap gap;
    char reason[96];
};

/* ------------------------------------------------------------------------------------------------------- what there is */

static int note_file(void *arg, const char *name)
{
    struct survey *s = arg;
    uint64_t number;
    if (!wal_name(name, 'w', &number))
        return 0;
    if (s->files_len == s->files_cap) {
        size_t cap = s->files_cap ? s->files_cap * 2 : 16;
        struct survey_file *files = mem_realloc(s->files, cap * sizeof *files);
        if (!files)
            return -ENOMEM;
        s->files = files;
        s->files_cap = cap;
    }
    s->files[s->files_len++] = (struct survey_file){.name = number, .seq = number, .head = LAYOUT_NOT_OURS};
    return 0;
}

static int compare_files(const void *a, const void *b)
{
    const struct survey_file *x = a, *y = b;
    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return x->name < y->name ? -1 : x->name > y->name;
}

static int open_walk(const struct survey *s, const struct survey_file *file, struct walk *ret)
{
    char path[WAL_PATH_MAX];
    *ret = (struct walk){.os = s->os, .wal = s->wal, .seq = file->seq, .size = file->size};
    memcpy(ret->uuid, s->uuid, LAYOUT_UUID_LEN);
    if (!wal_path(path, s->wal, 'w', file->name))
        return -ENAMETOOLONG;
    int err = s->os->open(s->os, path, OS_READ, &ret->fd);
    ret->in_file = err == 0;
    return err;
}

/* Size and header of a file; the uuid of the first good one counts when there is no superblock. */
static int look_at_header(struct survey *s, struct survey_file *file)
{
    struct walk walk;
    const uint8_t *block;
    int err = open_walk(s, file, &walk);
    if (!err)
        err = s->os->size(s->os, walk.fd, &walk.size);
    int got = err ? err : walk_bytes(&walk, 0, LAYOUT_BLOCK, &block);
    file->size = walk.size;
    if (got > 0)
        file->head = layout_file_get(block, &file->header);
    walk_close(&walk);
    if (file->head == LAYOUT_GOOD && !s->any_super && !s->any_file)
        memcpy(s->uuid, file->header.uuid, LAYOUT_UUID_LEN);
    s->any_file = s->any_file || file->head == LAYOUT_GOOD;
    return got < 0 ? got : 0;
}

/* Without a header of ours the first group says which file this is. */
static int look_for_group(struct survey *s, struct survey_file *file)
{
    struct walk walk;
    struct layout_group group;
    const uint8_t *block;
    int err = open_walk(s, file, &walk), got = 1;
    for (uint64_t at = LAYOUT_BLOCK; !err && !file->groups && (got = walk_bytes(&walk, at, LAYOUT_BLOCK, &block)) > 0;
         at += LAYOUT_BLOCK)
        if (layout_group_get(block, s->uuid, &group) == LAYOUT_GOOD) {
            file->groups = true;
            file->seq = group.seq;
            file->first_lsn = group.lsn;
        }
    walk_close(&walk);
    return err ? err : got < 0 ? got : 0;
}

static int identify(struct survey *s, struct survey_file *file)
{
    bool good = file->head == LAYOUT_GOOD;
    file->foreign = good && memcmp(file->header.uuid, s->uuid, LAYOUT_UUID_LEN) != 0;
    if (good && !file->foreign) {
        file->seq = file->header.seq;
        return 0;
    }
    if (good)
        file->head = LAYOUT_NOT_OURS;
    return look_for_group(s, file);
}

static int read_supers(struct survey *s)
{
    const struct layout_super *newest = NULL;
    for (unsigned i = 0; i < 2; i++) {
        int err = recover_super(s->os, s->dir, "ab"[i], &s -> states[i], &s -> supers[i]);
        if (err)
            return err;
        if (s->states[i] == SUPER_GOOD && (!newest || s->supers[i].generation > newest->generation))
            newest = &s->supers[i];
    }
    if (!newest)
        return 0;
    s->any_super = true;
    s->start_lsn = newest->start_lsn;
    s->start_seq = newest->start_seq;
    memcpy(s->uuid, newest->uuid, LAYOUT_UUID_LEN);
    return 0;
}

/* Without a superblock: where the oldest file begins. */
static void guess_start(struct survey *s)
{
    for (size_t i = 0; i < s->files_len && !s->any_super; i++) {
        const struct survey_file *file = &s->files[i];
        if (file->head != LAYOUT_GOOD && !file->groups)
            continue;
        s->start_seq = file->seq;
        s->start_lsn = file->head == LAYOUT_GOOD ? file->header.start_lsn : file->first_lsn;
        return;
    }
}

int survey_open(struct survey *s, struct os *os, const char *dir)
{
    *s = (struct survey){.os = os, .start_lsn = 1, .start_seq = 1};
    int n = snprintf(s->dir, sizeof s->dir, "%s", dir), m = snprintf(s->wal, sizeof s->wal, "%s/wal", dir);
    if (n <= 0 || m <= 0 || (size_t)m + 32 > sizeof s->wal)
        return -ENAMETOOLONG;
    int err = read_supers(s);
    if (!err)
        err = os->list(os, s->wal, note_file, s);
    if (err == -ENOENT && s->any_super)
        err = 0; /* the folder is gone: every file is missing */
    for (size_t i = 0; i < s->files_len && !err; i++)
        err = look_at_header(s, &s->files[i]);
    for (size_t i = 0; i < s->files_len && !err; i++)
        err = identify(s, &s->files[i]);
    if (err) {
        survey_close(s);
        return err;
    }
    if (s->files_len)
        qsort(s->files, s->files_len, sizeof *s->files, compare_files);
    guess_start(s);
    for (size_t i = 0; i < s->files_len; i++)
        s->bytes += s->files[i].size;
    return 0;
}

void survey_close(struct survey *s)
{
    mem_free(s->files);
    s->files = NULL;
    s->files_len = s->files_cap = 0;
}

const struct survey_file *survey_file(const struct survey *s, uint64_t seq)
{
    for (size_t i = 0; i < s->files_len; i++)
        if (s->files[i].seq == seq && (s->files[i].head == LAYOUT_GOOD || s->files[i].groups))
            return &s->files[i];
    return NULL;
}

bool survey_damaged(const struct survey *s)
{
    return s->claim >= s->stop_lsn;
}

/* -------------------------------------------------------------------------------------------------------------- claims */

static void claim(struct survey *s, lsn_t lsn, const char *what, uint64_t seq, uint64_t offset)
{
    if (lsn <= s->claim)
        return;
    s->claim = lsn;
    if (what)
        snprintf(s->claim_where, sizeof s->claim_where, "%s", what);
    else
        snprintf(s->claim_where, sizeof s->claim_where, "wal/w-%016" PRIx64 " at offset %" PRIu64, seq, offset);
}

static void claims_of_supers(struct survey *s)
{
    s->claim = 0;
    snprintf(s->claim_where, sizeof s->claim_where, "nobody");
    for (unsigned i = 0; i < 2; i++)
        if (s->states[i] == SUPER_GOOD)
            claim(s, s->supers[i].durable, i ? "superblock.b" : "superblock.a", 0, 0);
    claim(s, s->start_lsn - 1, "the superblock's start", 0, 0);
}

/* ---------------------------------------------------------------------------------------------------------------- gaps */

/* The journal cannot be read on from here. The first reason counts. */
static void begin_gap(struct reading *r, uint64_t seq, uint64_t offset, const char *reason)
{
    struct survey *s = r->survey;
    if (r->in_gap)
        return;
    r->in_gap = true;
    r->gap = (struct survey_gap){.seq = seq, .offset = offset, .first = r->lsn};
    snprintf(r->reason, sizeof r->reason, "%s", reason);
    r->gap.reason = r->reason;
    if (s->stop_lsn)
        return;
    s->stop_lsn = r->lsn;
    s->stop_seq = seq;
    s->stop_offset = offset;
    snprintf(s->stop_reason, sizeof s->stop_reason, "%s", reason);
}

/* It goes on here, with this lsn. */
static int end_gap(struct reading *r, uint64_t seq, uint64_t offset, lsn_t lsn)
{
    if (!r->in_gap)
        return 0;
    r->in_gap = false;
    r->after_gap = true;
    r->survey->gaps++;
    r->gap.end_seq = seq;
    r->gap.end_offset = offset;
    r->gap.last = lsn - 1;
    return r->hooks->on_gap ? r->hooks->on_gap(r->hooks->arg, &r->gap) : 0;
}

/* -------------------------------------------------------------------------------------------------------------- groups */

/* What stands at offset: 1: a whole group that may be read, in *ret and *ret_bytes; 0: none, r->walk.reason says why; or
 * an errno. */
static int group_at(struct reading *r, uint64_t offset, struct layout_group *ret, const uint8_t **ret_bytes)
{
    struct survey *s = r->survey;
    const char *why = NULL;
    int got = walk_bytes(&r->walk, offset, LAYOUT_BLOCK, ret_bytes);
    if (got < 0)
        return got;
    enum layout_verdict verdict = got ? layout_group_get(*ret_bytes, s->uuid, ret) : LAYOUT_NOT_OURS;
    if (!got)
        why = "the file ends";
    else if (verdict != LAYOUT_GOOD)
        why = verdict == LAYOUT_NOT_OURS ? "there is no group header" : "the group header is damaged";
    else
        claim(s, ret->durable, NULL, r->seq, offset);
    if (!why && (ret->seq != r->seq || ret->epoch < r->epoch || ret->lsn < r->lsn))
        why = "the group there is an older one";
    if (!why) {
        got = walk_bytes(&r->walk, offset, layout_group_bytes(ret->len), ret_bytes);
        if (got < 0)
            return got;
        why = !got                                          ? "the file ends inside the group"
              : layout_body_check(*ret_bytes, s->uuid, ret) ? NULL
                                                            : "the checksum of the group is wrong";
    }
    if (why)
        snprintf(r->walk.reason, sizeof r->walk.reason, "%s", why);
    return why ? 0 : 1;
}

static bool continues(const struct reading *r, const struct layout_group *group)
{
    return group->lsn == r->lsn && (!r->chain_known || group->chain == r->chain);
}

static int hand_out(struct reading *r, uint64_t offset, const struct layout_group *group, struct slice body)
{
    struct survey *s = r->survey;
    struct survey_place place = {.seq = r->seq, .offset = offset, .wall_ms = group->wall_ms};
    struct slice record;
    int stop = 0;
    for (lsn_t lsn = group->lsn; !stop && layout_record_next(&body, &record); lsn++) {
        s->payload += record.len;
        s->records++;
        if (lsn < s->start_lsn || lsn < s->from_lsn || (r->upto && lsn >= r->upto))
            continue;
        place.after_gap = r->after_gap;
        r->after_gap = false;
        if (r->hooks->on_record)
            stop = r->hooks->on_record(r->hooks->arg, &place, lsn, record);
    }
    return stop;
}

static int take_group(struct reading *r, uint64_t offset, const struct layout_group *group, const uint8_t *bytes)
{
    struct survey *s = r->survey;
    int stop = end_gap(r, r->seq, offset, group->lsn);
    if (stop)
        return stop;
    s->groups++;
    s->wall_ms = group->wall_ms;
    stop = hand_out(r, offset, group, slice_of(bytes + LAYOUT_GROUP_HEADER, group->len));
    r->lsn = group->lsn + group->nrec;
    r->chain = group->crc;
    r->chain_known = true;
    r->epoch = group->epoch;
    s->tail_seq = r->seq;
    s->tail_offset = offset + layout_group_bytes(group->len);
    if (r->hooks->on_bytes)
        r->hooks->on_bytes(r->hooks->arg, layout_group_bytes(group->len));
    return stop;
}

/* --------------------------------------------------------------------------------------------------------------- files */

static bool begins_here(const struct reading *r, const struct survey_file *file)
{
    if (file->head != LAYOUT_GOOD)
        return file->groups && file->first_lsn == r->lsn; /* the damage is in its header, not at the end of this one */
    return file->header.start_lsn == r->lsn && file->header.epoch >= r->epoch &&
           (!r->chain_known || file->header.chain == r->chain);
}

/* The header of the next file: does it continue, is it a place to go on behind a gap, or of no use? */
static int take_header(struct reading *r, const struct survey_file *file, bool first)
{
    const struct layout_file *head = &file->header;
    if (file->head != LAYOUT_GOOD) {
        if (file->groups)
            begin_gap(r, file->seq, 0, "the file's header is damaged");
        if (first && file->first_lsn < r->lsn)
            r->lsn = file->first_lsn; /* it begins below the start lsn, which is no loss */
        r->chain_known = false;
        return 0;
    }
    claim(r->survey, head->start_lsn - 1, NULL, file->seq, 0);
    if (head->start_lsn < r->lsn && !first)
        return 0; /* an older one: its groups will say so as well */
    if (!first && !begins_here(r, file))
        begin_gap(r, r->survey->tail_seq, r->survey->tail_offset, "the next file does not continue here");
    if (first && head->start_lsn > r->lsn)
        begin_gap(r, file->seq, 0, "the files before it are missing");
    int stop = end_gap(r, file->seq, LAYOUT_BLOCK, head->start_lsn);
    r->lsn = head->start_lsn;
    r->chain = head->crc;
    r->chain_known = true;
    r->epoch = head->epoch > r->epoch ? head->epoch : r->epoch;
    r->survey->tail_seq = file->seq;
    r->survey->tail_offset = LAYOUT_BLOCK;
    return stop;
}

/* Behind the tail: nothing of this may be there when the journal was closed, and nobody ever knew of it. */
static int look_behind(struct reading *r, uint64_t from)
{
    static const uint8_t zero[LAYOUT_BLOCK];
    const uint8_t *block;
    int got = 0;
    r->survey->stale_bytes = 0;
    for (uint64_t at = from; (got = walk_bytes(&r->walk, at, LAYOUT_BLOCK, &block)) > 0; at += LAYOUT_BLOCK)
        if (memcmp(block, zero, LAYOUT_BLOCK) != 0)
            r->survey->stale_bytes += LAYOUT_BLOCK;
    return got;
}

static int read_groups(struct reading *r, const struct survey_file *next)
{
    uint64_t from = LAYOUT_BLOCK, end = layout_blocks(r->walk.size); /* from: behind the last good group */
    for (uint64_t at = LAYOUT_BLOCK; at < end;) {
        struct layout_group group;
        const uint8_t *bytes;
        int got = group_at(r, at, &group, &bytes);
        if (got < 0)
            return got;
        if (got && !r->in_gap && !continues(r, &group))
            begin_gap(r, r->seq, at, "the group there does not continue the one before");
        if (got) {
            int stop = take_group(r, at, &group, bytes);
            if (stop)
                return stop;
            at += layout_group_bytes(group.len);
            from = at;
            continue;
        }
        if (!r->in_gap && next && next->seq == r->seq + 1 && begins_here(r, next))
            return 0;
        if (!r->in_gap)
            begin_gap(r, r->seq, at, r->walk.reason);
        at += LAYOUT_BLOCK;
    }
    return look_behind(r, from);
}

/* Of a file that is no part of the journal only its claims count. */
static int read_claims(struct reading *r)
{
    struct layout_group group;
    const uint8_t *block;
    int got;
    for (uint64_t at = LAYOUT_BLOCK; (got = walk_bytes(&r->walk, at, LAYOUT_BLOCK, &block)) > 0; at += LAYOUT_BLOCK)
        if (layout_group_get(block, r->survey->uuid, &group) == LAYOUT_GOOD)
            claim(r->survey, group.durable, NULL, r->seq, at);
    return got;
}

static int read_file(struct reading *r, const struct survey_file *file, const struct survey_file *next, bool first)
{
    struct survey *s = r->survey;
    bool ours = file->head == LAYOUT_GOOD || file->groups;
    if (!ours)
        return 0;
    int err = open_walk(s, file, &r->walk);
    if (err)
        return err;
    r->seq = file->seq;
    if (file->seq < s->start_seq) {
        err = read_claims(r);
    } else {
        err = take_header(r, file, first);
        s->files_read++;
        if (!err)
            err = read_groups(r, next);
    }
    walk_close(&r->walk);
    return err;
}

/* The end of all files: what is still open has no other side. */
static int finish(struct reading *r)
{
    struct survey *s = r->survey;
    s->next_lsn = r->lsn;
    if (!r->in_gap)
        begin_gap(r, s->tail_seq, s->tail_offset, "the file ends");
    if (s->claim < r->gap.first)
        return 0; /* the ordinary end */
    s->gaps++;
    r->gap.last = s->claim;
    return r->hooks->on_gap ? r->hooks->on_gap(r->hooks->arg, &r->gap) : 0;
}

int survey_read(struct survey *s, lsn_t upto, const struct survey_hooks *hooks)
{
    struct reading r = {.survey = s, .hooks = hooks, .upto = upto, .lsn = s->start_lsn};
    s->tail_seq = s->start_seq;
    s->tail_offset = s->stop_lsn = 0;
    s->wall_ms = 0;
    s->files_read = s->groups = s->records = s->payload = s->gaps = s->stale_bytes = 0;
    claims_of_supers(s);
    bool first = true;
    int err = 0;
    for (size_t i = 0; i < s->files_len && !err; i++) {
        const struct survey_file *file = &s->files[i], *next = i + 1 < s->files_len ? file + 1 : NULL;
        err = read_file(&r, file, next, first);
        if (file->seq >= s->start_seq && (file->head == LAYOUT_GOOD || file->groups))
            first = false;
    }
    return err ? err : finish(&r);
}
