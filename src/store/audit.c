/* The audit of a data folder, see audit.h: its order, the superblocks, the journal, and files that are nobody's.
 *
 * The journal is read twice: first to learn whether what cannot be read is damage or a tail that was never acknowledged,
 * then to replay what counts into a broker that has no disk. That broker then says which pages are alive, and these are
 * read (audit_segments.c). When the journal is damaged everything that is readable behind the damage is replayed too: that
 * is what a salvage would keep.
 *
 * Behind a gap the first message for a queue shows by its position how many of that queue were in the gap, because
 * positions are dense.
 *
 * Thread: the caller's.
 */
#include "store/audit.h"

#include "base/check.h"
#include "base/mem.h"
#include "core/records.h"
#include "store/audit_int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define ADVICE_DAMAGE                                                                                                  \
    "the broker refuses to start on it: restore a backup, or run `millrace salvage`, which copies what is readable"
#define ADVICE_FLAW "nothing is lost by it; the next start puts it right"

/* ------------------------------------------------------------------------------------------------------------ findings */

void audit_tell(struct audit *audit, const struct audit_finding *finding)
{
    struct audit_totals *t = &audit->totals;
    uint64_t *const counts[] = {[AUDIT_NOTE] = &t->notes,
                                [AUDIT_FLAW] = &t->flaws,
                                [AUDIT_DAMAGE] = &t->damages,
                                [AUDIT_UNREADABLE] = &t->unreadable};
    ++*counts[finding->weight];
    if (audit->options.on_finding)
        audit->options.on_finding(audit->options.arg, finding);
}

static void tell_of_file(struct audit *audit, enum audit_weight weight, const char *file, const char *what,
                         const char *advice)
{
    audit_tell(audit, &(struct audit_finding){.weight = weight, .file = file, .what = what, .advice = advice});
}

void audit_progress(struct audit *audit, const char *part, uint64_t more)
{
    audit->done += more;
    if (audit->options.on_progress)
        audit->options.on_progress(audit->options.arg, part, audit->done, audit->total);
}

void *audit_grow(void **items, size_t *len, size_t *cap, size_t size)
{
    if (*len == *cap) {
        size_t more = *cap ? *cap * 2 : 32;
        void *grown = mem_realloc(*items, more * size);
        if (!grown)
            return NULL;
        *items = grown;
        *cap = more;
    }
    uint8_t *item = (uint8_t *)*items + (*len)++ * size;
    memset(item, 0, size);
    return item;
}

/* ---------------------------------------------------------------------------------------------------------------- open */

static int take_lock(struct audit *audit)
{
    struct os *os = audit->options.os;
    char path[WAL_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/LOCK", audit->options.dir);
    if (n <= 0 || (size_t)n >= sizeof path)
        return -ENAMETOOLONG;
    int err = os->open(os, path, OS_READ, &audit->lock_fd);
    if (err) {
        audit->lock_fd = -1;
        return err == -ENOENT ? 0 : err; /* no broker runs without it; what is missing besides is told later */
    }
    return os->lock(os, audit->lock_fd);
}

int audit_open(struct audit *audit, const struct audit_options *options)
{
    *audit = (struct audit){.options = *options, .lock_fd = -1};
    map_init(&audit->looked_at, 1);
    int err = take_lock(audit);
    if (!err)
        err = survey_open(&audit->survey, options->os, options->dir);
    audit->surveyed = err == 0;
    if (!err && !audit->survey.any_super && !audit->survey.files_len)
        err = -ENOENT;
    if (err)
        audit_close(audit);
    return err;
}

static void forget_queues(struct audit *audit)
{
    MAP_EACH(&audit->looked_at, struct audit_queue, queue)
    mem_free(queue);
    map_fini(&audit->looked_at);
    map_init(&audit->looked_at, 1);
}

void audit_close(struct audit *audit)
{
    broker_free(&audit->broker);
    forget_queues(audit);
    if (audit->surveyed)
        survey_close(&audit->survey);
    if (audit->lock_fd >= 0)
        audit->options.os->close(audit->options.os, audit->lock_fd);
    mem_free(audit->rejected);
    mem_free(audit->pages);
    mem_free(audit->segments);
    *audit = (struct audit){.lock_fd = -1};
}

/* -------------------------------------------------------------------------------------------------------- superblocks */

static int examine_superblocks(struct audit *audit)
{
    static const char *const names[] = {"superblock.a", "superblock.b"};
    const struct survey *s = &audit->survey;
    bool newer = false;
    for (unsigned i = 0; i < 2; i++) {
        const struct layout_super *other = &s->supers[!i];
        bool young =
            s->states[!i] == SUPER_GOOD && other->generation <= 2; /* the first is 2: the other was never written */
        newer = newer || s->states[i] == SUPER_NEWER;
        if (s->states[i] == SUPER_NEWER)
            tell_of_file(audit, AUDIT_DAMAGE, names[i], "it was written by a newer version of this program",
                         "use that version");
        else if (s->states[i] == SUPER_BROKEN)
            tell_of_file(audit, AUDIT_FLAW, names[i],
                         "this copy is damaged, or was being written at a power cut; the other one counts",
                         ADVICE_FLAW);
        else if (s->states[i] == SUPER_ABSENT && !young)
            tell_of_file(audit, AUDIT_FLAW, names[i], "this copy is missing; the other one counts", ADVICE_FLAW);
    }
    if (!s->any_super && !newer)
        tell_of_file(audit, AUDIT_DAMAGE, "superblock.a", "no copy of the superblock is valid", ADVICE_DAMAGE);
    return newer ? -EPROTO : 0;
}

/* ------------------------------------------------------------------------------------------------------------- journal */

static void journal_name(uint64_t number, char ret[32])
{
    snprintf(ret, 32, "wal/w-%016" PRIx64, number);
}

/* Files whose name or store is not what their header says. */
static void examine_journal_names(struct audit *audit)
{
    const struct survey *s = &audit->survey;
    for (size_t i = 0; i < s->files_len; i++) {
        const struct survey_file *file = &s->files[i];
        char name[32], what[100];
        journal_name(file->name, name);
        snprintf(what, sizeof what, "it is in truth w-%016" PRIx64 ": names were swapped", file->seq);
        if (file->foreign && file->name >= s->start_seq && file->name <= s->tail_seq)
            tell_of_file(audit, AUDIT_DAMAGE, name, "it belongs to another data folder", ADVICE_DAMAGE);
        else if (file->head == LAYOUT_NEWER)
            tell_of_file(audit, AUDIT_DAMAGE, name, "it was written by a newer version of this program",
                         "use that version");
        else if (file->seq != file->name && file->seq >= s->start_seq && file->seq <= s->tail_seq)
            tell_of_file(audit, AUDIT_DAMAGE, name, what,
                         "rename it, or run `millrace salvage`, which knows it anyway");
    }
}

static void survey_bytes(void *arg, uint64_t bytes)
{
    audit_progress(arg, "journal", bytes);
}

/* The superblock of a clean stop knows where the journal ended. */
static void examine_tail(struct audit *audit)
{
    const struct survey *s = &audit->survey;
    const struct layout_super *super = NULL;
    char name[32], what[300];
    for (unsigned i = 0; i < 2; i++)
        if (s->states[i] == SUPER_GOOD && (!super || s->supers[i].generation > super->generation))
            super = &s->supers[i];
    if (audit->damaged || !super)
        return;
    journal_name(s->stop_seq, name);
    if (super->clean && (super->tail_seq != s->stop_seq || super->tail_offset != s->stop_offset)) {
        snprintf(what, sizeof what,
                 "the broker was stopped cleanly with the end at offset %" PRIu64 " of w-%016" PRIx64
                 ", but it can be read up to here only (%s); no record is missing",
                 super->tail_offset, super->tail_seq, s->stop_reason);
        audit_tell(audit, &(struct audit_finding){.weight = AUDIT_FLAW,
                                                  .file = name,
                                                  .at = true,
                                                  .offset = s->stop_offset,
                                                  .what = what,
                                                  .advice = ADVICE_FLAW});
    } else if (!super->clean && s->stale_bytes) {
        snprintf(what, sizeof what,
                 "the broker was not stopped cleanly; behind the end lie %" PRIu64
                 " bytes that are no group: old ones of a file that is used again, or a write that was cut off",
                 s->stale_bytes);
        audit_tell(audit, &(struct audit_finding){
                              .weight = AUDIT_NOTE,
                              .file = name,
                              .at = true,
                              .offset = s->stop_offset,
                              .len = s->stale_bytes,
                              .what = what,
                              .advice = "none of them was ever acknowledged; the next start cuts them off"});
    }
}

/* ---- replay ---- */

static bool log_room(void *self)
{
    (void)self;
    return true;
}

static bool log_reserve(void *self, size_t bytes, unsigned count)
{
    (void)self;
    (void)bytes;
    (void)count;
    return true;
}

static lsn_t log_append(void *self, const struct slice *parts, unsigned count)
{
    (void)parts;
    (void)count;
    return ++((struct audit *)self)->appended; /* goes nowhere */
}

static void log_nothing(void *self)
{
    (void)self;
}

static void log_trim(void *self, lsn_t upto)
{
    (void)self;
    (void)upto;
}

static uint64_t log_live_bytes(void *self)
{
    (void)self;
    return 0;
}

static void draw(void *arg, void *ret, size_t len)
{
    struct os *os = arg;
    os->random(os, ret, len);
}

static int make_broker(struct audit *audit)
{
    struct broker_options options = {.log = {.self = audit,
                                             .room = log_room,
                                             .reserve = log_reserve,
                                             .append = log_append,
                                             .fresh = log_nothing,
                                             .trim = log_trim,
                                             .live_bytes = log_live_bytes},
                                     .random = draw,
                                     .random_arg = audit->options.os,
                                     .ports = 1,
                                     .port_slots = 16};
    audit->broker = broker_new(&options);
    return audit->broker ? 0 : -ENOMEM;
}

struct lost_look {
    struct audit *audit;
    const struct survey_place *place;
};

/* True for the first message of a queue behind a gap. */
static bool is_first(struct audit *audit, uint64_t id)
{
    if (map_get(&audit->looked_at, map_key_u64(&id)))
        return false;
    struct audit_queue *queue = mem_alloc(sizeof *queue);
    if (!queue || !map_reserve(&audit->looked_at)) {
        mem_free(queue);
        return false; /* then this queue is not told of */
    }
    queue->id = id;
    map_put(&audit->looked_at, map_key_u64(&queue->id), queue);
    return true;
}

static void tell_of_unknown(struct audit *audit, const struct survey_place *place, const char *file, uint64_t queue)
{
    char what[200];
    snprintf(what, sizeof what,
             "messages for a queue (its id is %" PRIu64
             ") whose declaration was in the part of the journal that is lost: they are lost with it",
             queue);
    audit_tell(audit, &(struct audit_finding){.weight = AUDIT_DAMAGE,
                                              .file = file,
                                              .at = true,
                                              .offset = place->offset,
                                              .what = what,
                                              .advice = ADVICE_DAMAGE});
}

/* Behind a gap the first message of a queue that was published: the positions that are jumped over were given out in the
 * gap, to messages or to transient ones, which the journal never sees. */
static void look_for_lost(void *arg, uint64_t queue, uint64_t position, bool snapshot)
{
    struct lost_look *look = arg;
    struct audit *audit = look->audit;
    struct slice vhost, name;
    uint64_t next;
    char file[32];
    if (map_get(&audit->looked_at, map_key_u64(&queue)))
        return;
    journal_name(look->place->seq, file);
    if (!broker_queue_known(audit->broker, queue, &vhost, &name, &next)) {
        if (is_first(audit, queue))
            tell_of_unknown(audit, look->place, file, queue);
        return;
    }
    if (snapshot || !is_first(audit, queue) || position <= next)
        return;
    audit_tell(audit,
               &(struct audit_finding){.weight = AUDIT_DAMAGE,
                                       .file = file,
                                       .at = true,
                                       .offset = look->place->offset,
                                       .vhost = vhost,
                                       .queue = name,
                                       .first = next,
                                       .last = position - 1,
                                       .messages = position - next,
                                       .what = "these messages were written in the part of the journal that is lost",
                                       .advice = "those that had been consumed since are no loss; " ADVICE_DAMAGE});
}

static int reject(struct audit *audit, const struct survey_place *place, lsn_t lsn, const char *why)
{
    char file[32];
    lsn_t *item = audit_grow((void **)&audit->rejected, &audit->rejected_len, &audit->rejected_cap, sizeof *item);
    if (!item)
        return -ENOMEM;
    *item = lsn;
    audit->totals.lost_records++;
    journal_name(place->seq, file);
    audit_tell(audit, &(struct audit_finding){.weight = AUDIT_DAMAGE,
                                              .file = file,
                                              .at = true,
                                              .offset = place->offset,
                                              .first_lsn = lsn,
                                              .last_lsn = lsn,
                                              .what = why,
                                              .advice = ADVICE_DAMAGE});
    return 0;
}

static int replay_record(void *arg, const struct survey_place *place, lsn_t lsn, struct slice record)
{
    struct audit *audit = arg;
    char why[400] = "";
    struct lost_look look = {audit, place};
    if (audit->behind_gap)
        (void)record_targets(record, look_for_lost, &look); /* what does not parse the replay refuses */
    int err = broker_replay(audit->broker, lsn, record, why, sizeof why);
    return err ? reject(audit, place, lsn, why) : 0;
}

static int tell_gap(void *arg, const struct survey_gap *gap)
{
    struct audit *audit = arg;
    char file[32], what[300];
    bool before = gap->last < audit->survey.from_lsn; /* the snapshot that follows repeats what was alive */
    bool records = gap->last >= gap->first && !before, onward = gap->end_seq != 0;
    int n = snprintf(what, sizeof what, "the journal cannot be read here (%s)", gap->reason);
    if (records)
        n +=
            snprintf(what + n, sizeof what - (size_t)n, "; everything up to lsn %" PRIu64 " was safely stored, says %s",
                     audit->survey.claim, audit->survey.claim_where);
    else
        n += snprintf(what + n, sizeof what - (size_t)n, "; nothing is lost by it");
    if (onward)
        snprintf(what + n, sizeof what - (size_t)n, "; it goes on in w-%016" PRIx64 " at offset %" PRIu64, gap->end_seq,
                 gap->end_offset);
    if (records) {
        audit->behind_gap = true;
        forget_queues(audit);
    }
    audit->totals.lost_records += records ? gap->last - gap->first + 1 : 0;
    journal_name(gap->seq, file);
    audit_tell(audit,
               &(struct audit_finding){.weight = AUDIT_DAMAGE,
                                       .file = file,
                                       .at = true,
                                       .offset = gap->offset,
                                       .len = onward && gap->end_seq == gap->seq ? gap->end_offset - gap->offset : 0,
                                       .first_lsn = records ? gap->first : 0,
                                       .last_lsn = records ? gap->last : 0,
                                       .what = what,
                                       .advice = ADVICE_DAMAGE});
    return 0;
}

static int replay_journal(struct audit *audit)
{
    struct os *os = audit->options.os;
    struct survey *s = &audit->survey;
    char why[400] = "";
    struct survey_hooks hooks = {
        .on_record = replay_record, .on_gap = audit->damaged ? tell_gap : NULL, .on_bytes = survey_bytes, .arg = audit};
    int err = make_broker(audit);
    if (!err)
        err = survey_read(s, audit->upto, &hooks);
    audit->appended = s->next_lsn;
    if (!err)
        err = broker_replayed(audit->broker, os->now_mono(os), s->wall_ms, why, sizeof why);
    audit->replayed = err == 0;
    return err;
}

/* The first reading looks for the last complete snapshot, and where records are lost. */
static int note_checkpoint(void *arg, const struct survey_place *place, lsn_t lsn, struct slice record)
{
    struct audit *audit = arg;
    lsn_t first = record_checkpoint(record);
    (void)place;
    if (first && first <= lsn) {
        audit->checkpoint = lsn;
        audit->checkpoint_first = first;
    }
    return 0;
}

static int note_gap(void *arg, const struct survey_gap *gap)
{
    struct audit *audit = arg;
    if (gap->last >= gap->first)
        audit->gap_last = gap->last;
    return 0;
}

/* When all that is lost lies before a complete snapshot nothing is lost at all: it repeats what was alive. */
static void choose_beginning(struct audit *audit)
{
    struct survey *s = &audit->survey;
    bool whole = audit->gap_last < audit->checkpoint_first && (!audit->upto || audit->checkpoint < audit->upto);
    if ((audit->damaged || !s->any_super) && whole)
        s->from_lsn = audit->checkpoint_first;
}

static int examine_journal(struct audit *audit)
{
    struct survey *s = &audit->survey;
    struct survey_hooks hooks = {
        .on_record = note_checkpoint, .on_gap = note_gap, .on_bytes = survey_bytes, .arg = audit};
    audit->done = 0;
    audit->total = 2 * s->bytes;
    int err = survey_read(s, 0, &hooks);
    if (err)
        return err;
    audit->damaged = survey_damaged(s);
    audit->upto = audit->damaged ? 0 : s->stop_lsn;
    choose_beginning(audit);
    examine_journal_names(audit);
    examine_tail(audit);
    audit->totals.journal_files = s->files_read;
    audit->totals.groups = s->groups;
    audit->totals.records = s->records;
    audit->totals.journal_bytes = s->payload;
    return replay_journal(audit);
}

bool audit_rejected(const struct audit *audit, lsn_t lsn)
{
    for (size_t i = 0; i < audit->rejected_len; i++)
        if (audit->rejected[i] == lsn)
            return true;
    return false;
}

/* ------------------------------------------------------------------------------------------------------- kinds of file */

static bool is_journal(const char *name)
{
    uint64_t number;
    return wal_name(name, 'w', &number);
}

static bool is_spare(const char *name)
{
    uint64_t number;
    return wal_name(name, 'f', &number);
}

static bool is_segment(const char *name)
{
    uint64_t number;
    return wal_name(name, 's', &number) && number > 0 && number <= UINT32_MAX;
}

/* A new kind of file is a row here; the rows are examined in this order, those of one folder stand together. */
static const struct file_kind {
    const char *folder; /* below the data folder; "": itself */
    const char *name;   /* NULL: what `is` says */
    bool (*is)(const char *name);
    int (*examine)(struct audit *audit); /* all of them; NULL: what is in it means nothing */
} kinds[] = {
    {"", "superblock.a", NULL, examine_superblocks},
    {"", "superblock.b", NULL, NULL},
    {"", "LOCK", NULL, NULL},
    {"", "control.sock", NULL, NULL},
    {"", "lost+found", NULL, NULL},
    {"", "wal", NULL, NULL},
    {"", "seg", NULL, NULL},
    {"", "str", NULL, NULL},
    {"wal", NULL, is_journal, examine_journal},
    {"wal", NULL, is_spare, NULL},
    {"seg", NULL, is_segment, audit_segments},
    {"str", NULL, audit_is_stream, audit_streams},
};

struct look {
    struct audit *audit;
    const char *folder;
};

bool audit_knows(const char *folder, const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(kinds[i].folder, folder) == 0 &&
            (kinds[i].name ? strcmp(kinds[i].name, name) == 0 : kinds[i].is(name)))
            return true;
    return false;
}

static int look_at_name(void *arg, const char *name)
{
    struct look *look = arg;
    char path[300];
    if (audit_knows(look->folder, name))
        return 0;
    snprintf(path, sizeof path, "%s%s%s", look->folder, *look->folder ? "/" : "", name);
    tell_of_file(look->audit, AUDIT_NOTE, path, "it is none of the broker's files", "the broker leaves it alone");
    return 0;
}

/* Names that no row knows. */
static int look_for_strangers(struct audit *audit)
{
    struct os *os = audit->options.os;
    char path[WAL_PATH_MAX];
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct look look = {audit, kinds[i].folder};
        if (i && strcmp(kinds[i].folder, kinds[i - 1].folder) == 0)
            continue; /* rows of one folder stand together */
        int n = snprintf(path, sizeof path, "%s%s%s", audit->options.dir, *kinds[i].folder ? "/" : "", kinds[i].folder);
        CHECK(n > 0 && (size_t)n < sizeof path); /* shorter than what survey_open has accepted */
        int err = os->list(os, path, look_at_name, &look);
        if (err && err != -ENOENT)
            return err;
    }
    return 0;
}

static void count(struct audit *audit)
{
    struct broker_totals totals;
    broker_totals(audit->broker, &totals);
    audit->totals.queues = totals.queues;
    audit->totals.messages = totals.messages;
}

int audit_run(struct audit *audit)
{
    int err = look_for_strangers(audit);
    for (size_t i = 0; i < ARRAY_LEN(kinds) && !err; i++)
        if (kinds[i].examine)
            err = kinds[i].examine(audit);
    if (audit->replayed)
        count(audit);
    if (err)
        return err;
    if (audit->totals.unreadable)
        return -EIO;
    return audit->totals.flaws || audit->totals.damages ? -EILSEQ : 0;
}
