/* rot: bits that fall over in a data folder at rest: every byte class of every file kind, on a simulated disk.
 *
 * A broker with a model of what it was told (world.c) fills queues, pages and journal, and ends: by an orderly stop, or
 * killed after a pause. Then one byte at a time is flipped: all bytes of superblocks, of file headers' fields, of group,
 * record and page headers, and a sample of payload and padding; and files are removed, cut, swapped and replaced by those
 * of another store. What must hold each time:
 *   - the audit (`millrace check`) finds it, and names the file;
 *   - a start refuses and changes nothing, or starts and serves nothing that is wrong (a damaged page is not served);
 *   - nothing was deleted: with the byte put back everything is there;
 *   - a backup of a busy broker, which goes on between any two steps of the copier, holds all that was confirmed;
 *   - a salvage makes a store that starts, and loses what the byte stood for and no more.
 * The last line is "N passed, N failed", one per kind of file and class of byte.
 */
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/broker.h"
#include "journal/layout.h"
#include "store/audit.h"
#include "store/backup.h"
#include "store/page_format.h"
#include "store/salvage.h"

#define SPOTS_MAX 120000

enum class {
    SUPER_FIELDS,
    SUPER_ZEROS,
    FILE_FIELDS,
    FILE_ZEROS,
    GROUP_HEADER,
    RECORD_HEADER,
    PAYLOAD,
    PADDING,
    SEGMENT_FIELDS,
    SEGMENT_ZEROS,
    PAGE_HEADER_BYTES,
    PAGE_BODY,
    CLASS_COUNT
};
static const char *const class_names[CLASS_COUNT] = {"superblock: fields",
                                                     "superblock: zeros",
                                                     "journal file header: fields",
                                                     "journal file header: zeros",
                                                     "group header",
                                                     "record header",
                                                     "record payload",
                                                     "group padding",
                                                     "segment header: fields",
                                                     "segment header: zeros",
                                                     "page header",
                                                     "page body"};

struct spot {
    char path[48];
    uint64_t offset;
    enum class class;
};

struct rot {
    struct world world;
    struct os_sim *whole; /* the disk at rest */
    bool clean;           /* the broker was stopped, not killed */
    char tail[48];        /* the file in which the journal ends */
    struct model *model;  /* what must be in it */
    struct spot *spots;
    size_t count;
    unsigned every; /* of zeros, payload: one byte in so many */
    struct broker_page pages[4096];
    size_t page_count;
    uint64_t messages; /* in the whole store */
    bool last_refused;
    uint64_t salvages, audits, starts, refused, tested[CLASS_COUNT];
    uint64_t backups;
    char wrong[CLASS_COUNT + 2][500]; /* by class; whole files; backups */
};

/* ---- a store ---- */

static int note_page(void *arg, const struct broker_page *page)
{
    struct rot *rot = arg;
    if (rot->page_count < ARRAY_LEN(rot->pages))
        rot->pages[rot->page_count++] = *page;
    return 0;
}

static void fill(struct rot *rot, uint64_t seed, bool clean)
{
    struct world *w = &rot->world;
    w->dice = seed;
    w->paging_bytes = 4000;
    w->compact_every = 250;
    w->disk = os_sim_new(seed);
    w->os = os_sim_os(w->disk);
    w->model = rot->model;
    os_sim_clock_set(w->disk, 1000 * NS_PER_S, 1700000000000);
    model_init(w->model);
    if (!world_start(w) || !world_connect(w)) {
        printf("FAIL rot: %s %s\n", w->why, w->model->wrong);
        exit(1);
    }
    world_furnish(w);
    for (unsigned i = 0; i < 900 && !w->dead && !w->model->wrong[0]; i++)
        world_op(w);
    for (unsigned i = 0; i < 60; i++)
        world_turn(w);
    os_sim_clock_advance(w->disk, 2 * NS_PER_S); /* the note of an idle journal */
    for (unsigned i = 0; i < 20; i++)
        world_turn(w);
    world_end(w, clean);
    os_sim_kill(w->disk);
    rot->whole = w->disk;
    rot->clean = clean;
}

/* The pages that a start finds alive. */
static void find_pages(struct rot *rot)
{
    struct world *w = &rot->world;
    w->disk = os_sim_clone(rot->whole);
    w->os = os_sim_os(w->disk);
    if (!world_start(w) || broker_pages(w->broker, note_page, rot))
        abort();
    for (size_t i = 0; i < rot->page_count; i++) /* the names go with the broker */
        rot->pages[i].vhost = rot->pages[i].queue = (struct slice){0};
    world_end(w, false);
    os_sim_free(&w->disk);
}

/* ---- spots ---- */

static void spot(struct rot *rot, const char *path, uint64_t offset, enum class class)
{
    if (rot->count == SPOTS_MAX)
        abort();
    struct spot *s = &rot->spots[rot->count++];
    *s = (struct spot){.offset = offset, .class = class};
    snprintf(s->path, sizeof s->path, "%s", path);
}

static void spots_of_block(struct rot *rot, const char *path, unsigned fields, enum class class)
{
    for (unsigned i = 0; i < LAYOUT_BLOCK; i++)
        if (i < fields || i >= LAYOUT_BLOCK - 4)
            spot(rot, path, i, class);
        else if (i % rot->every == 0)
            spot(rot, path, i, class + 1);
}

static void spots_of_group(struct rot *rot, const char *path, uint64_t at, const uint8_t *bytes,
                           const struct layout_group *group)
{
    struct slice body = slice_of(bytes + LAYOUT_GROUP_HEADER, group->len), record;
    for (unsigned i = 0; i < LAYOUT_GROUP_HEADER; i++)
        if (group->lsn % 8 == 0 || i == group->lsn % LAYOUT_GROUP_HEADER)
            spot(rot, path, at + i, GROUP_HEADER);
    for (lsn_t lsn = group->lsn; layout_record_next(&body, &record); lsn++) {
        uint64_t begins = at + (uint64_t)(record.ptr - bytes);
        for (unsigned i = 1; i <= 8; i++)
            if (lsn % 16 == 0)
                spot(rot, path, begins - i, RECORD_HEADER);
        for (size_t i = lsn % rot->every; i < record.len; i += rot->every * 4)
            spot(rot, path, begins + i, PAYLOAD);
    }
    uint64_t end = LAYOUT_GROUP_HEADER + group->len, all = layout_group_bytes(group->len);
    for (uint64_t i = end; i < all; i += 1 + (all - end) / 4)
        spot(rot, path, at + i, PADDING);
}

/* The first group of the journal's last file ends the journal, or there is none. */
static bool holds_one_group(const struct survey *survey, const struct survey_file *file, struct slice bytes)
{
    struct layout_group group;
    return file->seq == survey->stop_seq &&
           (survey->stop_offset == LAYOUT_BLOCK ||
            (layout_group_get(bytes.ptr + LAYOUT_BLOCK, survey->uuid, &group) == LAYOUT_GOOD &&
             survey->stop_offset == LAYOUT_BLOCK + layout_group_bytes(group.len)));
}

/* Groups up to where the journal ends; what lies behind means nothing. The last one of a broker that was killed is the blind
 * spot (docs/formats/journal.md section 4): a note, mostly, which says nothing but that what stands before it is synced. So is
 * the header of a file that has nothing else. */
static void spots_of_journal(struct rot *rot, const struct survey *survey)
{
    for (size_t i = 0; i < survey->files_len; i++) {
        const struct survey_file *file = &survey->files[i];
        char path[48];
        if (file->head != LAYOUT_GOOD || file->seq < survey->start_seq)
            continue;
        snprintf(path, sizeof path, "/data/wal/w-%016llx", (unsigned long long)file->seq);
        struct slice bytes = os_sim_peek(rot->whole, path);
        if (rot->clean || !holds_one_group(survey, file, bytes))
            spots_of_block(rot, path, 64, FILE_FIELDS);
        for (uint64_t at = LAYOUT_BLOCK; at + LAYOUT_BLOCK <= bytes.len;) {
            struct layout_group group;
            bool tail = file->seq == survey->stop_seq && at >= survey->stop_offset;
            if (tail || layout_group_get(bytes.ptr + at, survey->uuid, &group) != LAYOUT_GOOD ||
                group.seq != file->seq || !layout_body_check(bytes.ptr + at, survey->uuid, &group))
                break;
            uint64_t end = at + layout_group_bytes(group.len);
            if (rot->clean || file->seq != survey->stop_seq || end != survey->stop_offset)
                spots_of_group(rot, path, at, bytes.ptr + at, &group);
            at += layout_group_bytes(group.len);
        }
    }
}

static void spots_of_segments(struct rot *rot)
{
    for (size_t i = 0; i < rot->page_count; i++) {
        const struct page_where *where = &rot->pages[i].where;
        char path[48];
        snprintf(path, sizeof path, "/data/seg/s-%016x", where->segment);
        bool seen = false;
        for (size_t k = 0; k < i && !seen; k++)
            seen = rot->pages[k].where.segment == where->segment;
        if (!seen)
            spots_of_block(rot, path, 40, SEGMENT_FIELDS);
        for (unsigned k = 0; k < PAGE_HEADER; k++)
            spot(rot, path, where->offset + k, PAGE_HEADER_BYTES);
        for (uint64_t k = PAGE_HEADER; k < where->len; k += rot->every)
            spot(rot, path, where->offset + k, PAGE_BODY);
    }
}

static void find_spots(struct rot *rot)
{
    struct survey survey;
    const struct survey_hooks nothing = {0};
    rot->count = 0;
    if (survey_open(&survey, os_sim_os(rot->whole), "/data") || survey_read(&survey, 0, &nothing))
        abort();
    snprintf(rot->tail, sizeof rot->tail, "/data/wal/w-%016llx", (unsigned long long)survey.stop_seq);
    spots_of_block(rot, "/data/superblock.a", 88, SUPER_FIELDS);
    spots_of_block(rot, "/data/superblock.b", 88, SUPER_FIELDS);
    spots_of_journal(rot, &survey);
    survey_close(&survey);
    spots_of_segments(rot);
}

/* ---- the audit ---- */

struct look {
    const char *path; /* the file that is wrong */
    bool named;
    unsigned findings;
    uint64_t messages;
    char last[300];
};

static void on_finding(void *arg, const struct audit_finding *f)
{
    struct look *look = arg;
    if (f->weight == AUDIT_NOTE)
        return;
    look->findings++;
    look->named |= strcmp(f->file, look->path + strlen("/data/")) == 0;
    snprintf(look->last, sizeof look->last, "%s: %s", f->file, f->what);
    if (getenv("ROT_TALK"))
        printf("  %s at %llu: %s\n", f->file, (unsigned long long)f->offset, f->what);
}

static int audit_disk(struct rot *rot, struct os_sim *disk, struct look *look)
{
    struct audit audit;
    struct audit_options options = {.os = os_sim_os(disk), .dir = "/data", .on_finding = on_finding, .arg = look};
    rot->audits++;
    int err = audit_open(&audit, &options);
    if (err)
        return err;
    err = audit_run(&audit);
    look->messages = audit.totals.messages;
    audit_close(&audit);
    return err;
}

static void fail(struct rot *rot, unsigned class, const char *path, uint64_t offset, const char *what, const char *more)
{
    if (!rot->wrong[class][0])
        snprintf(rot->wrong[class], sizeof rot->wrong[class], "%s at %llu: %s %s", path, (unsigned long long)offset,
                 what, more);
}

/* ---- starts ---- */

/* Everything the model knows of is there. */
static bool is_complete(struct rot *rot, struct os_sim *disk, char *why, size_t len)
{
    struct world *w = &rot->world;
    struct model *copy = malloc(sizeof *copy);
    if (!copy)
        abort();
    memcpy(copy, rot->model, sizeof *copy);
    w->model = copy;
    w->disk = os_sim_clone(disk);
    w->os = os_sim_os(w->disk);
    w->may_fail = false;
    if (world_start(w))
        world_compare(w);
    else
        model_fault(w->model, "the broker does not start: %s", w->why);
    snprintf(why, len, "%s", copy->wrong);
    world_end(w, false);
    os_sim_free(&w->disk);
    w->model = rot->model;
    free(copy);
    return !why[0];
}

struct served {
    struct model *model;
    enum place place;
};

static void on_body(void *arg, struct slice body)
{
    struct served *served = arg;
    uint64_t id;
    model_delivered(served->model, served->place, body, true, &id);
}

/* A broker on the damaged disk: what it gives out is right, what it cannot read it says. */
static bool start(struct rot *rot, struct os_sim *disk, char *why, size_t len)
{
    struct world *w = &rot->world;
    struct model *copy = malloc(sizeof *copy);
    if (!copy)
        abort();
    memcpy(copy, rot->model, sizeof *copy);
    w->model = copy;
    w->disk = disk;
    w->os = os_sim_os(disk);
    w->may_fail = true;
    w->why[0] = '\0';
    bool started = world_start(w);
    rot->starts++;
    rot->refused += !started;
    rot->last_refused = !started;
    struct peek_reader reader = world_reader(w);
    for (int p = 0; started && p < PLACE_LOG; p++) {
        struct served served = {copy, (enum place)p};
        (void)peek_queue(w->broker, place_names[p], &reader, on_body, &served);
    }
    snprintf(why, len, "%s", started ? copy->wrong : w->why[0] ? "" : "refused without a word");
    world_end(w, false);
    os_sim_kill(disk);
    w->may_fail = false;
    w->model = rot->model;
    free(copy);
    return !why[0];
}

static void try_start(struct rot *rot, const struct spot *s)
{
    char why[400];
    struct os_sim *disk = os_sim_clone(rot->whole);
    os_sim_flip(disk, s->path, s->offset, 0x10);
    if (!start(rot, disk, why, sizeof why))
        fail(rot, s->class, s->path, s->offset, "a start on it went wrong:", why);
    if (strstr(s->path, "superblock") == NULL && !rot->wrong[s->class][0]) {
        os_sim_flip(disk, s->path, s->offset, 0x10);
        if (!is_complete(rot, disk, why, sizeof why))
            fail(rot, s->class, s->path, s->offset, "the start has deleted something:", why);
    }
    os_sim_free(&disk);
}

/* ---- salvage ---- */

struct move {
    struct os_sim *from, *to;
};

static void move_file(void *arg, const char *path)
{
    struct move *move = arg;
    char name[64];
    snprintf(name, sizeof name, "/data%s", path + strlen("/new"));
    struct slice bytes = os_sim_peek(move->from, path);
    if (strlen(path) > strlen("/new/str") || strstr(path, "LOCK"))
        os_sim_put(move->to, name, bytes);
}

/* The disk whose /data is the other's /new. */
static struct os_sim *moved(struct os_sim *disk)
{
    static const char *const folders[] = {"/data", "/data/wal", "/data/seg", "/data/str"};
    struct os_sim *names = os_sim_clone(disk), *fresh = os_sim_new(1);
    struct move move = {disk, fresh};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++)
        if (os_sim_os(fresh)->mkdir(os_sim_os(fresh), folders[i]))
            abort();
    os_sim_clock_set(fresh, 2000 * NS_PER_S, 1700000000000);
    os_sim_each(names, "/new", move_file, &move);
    os_sim_each(names, "/new/wal", move_file, &move);
    os_sim_each(names, "/new/seg", move_file, &move);
    os_sim_free(&names);
    return fresh;
}

/* Nothing that is in a header only costs a message; a page costs its own; and a broker starts on all of it. */
static void check_salvaged(struct rot *rot, const struct spot *s, struct os_sim *disk, const struct salvage_result *r)
{
    char why[400] = "";
    struct os_sim *fresh = moved(disk);
    bool costs = s->class == GROUP_HEADER || s->class == RECORD_HEADER || s->class == PAYLOAD || s->class == PADDING;
    bool page = s->class == PAGE_HEADER_BYTES || s->class == PAGE_BODY;
    uint64_t lost = r->original.lost_page_messages;
    if (!costs && !page && !is_complete(rot, fresh, why, sizeof why))
        fail(rot, s->class, s->path, s->offset, "the salvage has lost something:", why);
    if (page &&
        (r->original.lost_records || r->original.lost_pages != 1 || !lost || r->copy.messages != rot->messages - lost))
        fail(rot, s->class, s->path, s->offset, "the salvage has lost more, or less, than the page", "");
    if (!start(rot, fresh, why, sizeof why) && (strstr(why, "nobody published") || strstr(why, "refused")))
        fail(rot, s->class, s->path, s->offset, "the salvaged store is wrong:", why);
    if (rot->last_refused)
        fail(rot, s->class, s->path, s->offset, "the salvaged store does not start:", rot->world.why);
    os_sim_free(&fresh);
}

static void try_salvage(struct rot *rot, const struct spot *s)
{
    char why[400];
    struct salvage_result result;
    struct os_sim *disk = os_sim_clone(rot->whole);
    struct salvage_options options = {.audit = {.os = os_sim_os(disk), .dir = "/data"}, .to = "/new"};
    os_sim_flip(disk, s->path, s->offset, 0x10);
    struct os_sim *before = os_sim_clone(disk);
    rot->salvages++;
    int err = salvage(&options, &result, why, sizeof why);
    if (err)
        fail(rot, s->class, s->path, s->offset, "cannot be salvaged:", why);
    else
        check_salvaged(rot, s, disk, &result);
    struct slice now = os_sim_peek(disk, s->path), was = os_sim_peek(before, s->path);
    if (!slice_equal(now, was))
        fail(rot, s->class, s->path, s->offset, "the salvage has changed the original", "");
    os_sim_free(&before);
    os_sim_free(&disk);
}

static void flip_all(struct rot *rot, unsigned starts_every)
{
    struct os_sim *disk = os_sim_clone(rot->whole);
    for (size_t i = 0; i < rot->count; i++) {
        const struct spot *s = &rot->spots[i];
        uint8_t mask = (uint8_t)(1u << (i % 8));
        struct look look = {.path = s->path};
        rot->tested[s->class]++;
        if (!os_sim_flip(disk, s->path, s->offset, mask))
            fail(rot, s->class, s->path, s->offset, "there is no such byte", "");
        int err = audit_disk(rot, disk, &look);
        if (err != -EILSEQ || !look.named)
            fail(rot, s->class, s->path, s->offset,
                 err == -EILSEQ ? "the audit blames another file:" : "not found:", look.last);
        os_sim_flip(disk, s->path, s->offset, mask);
        if (i % starts_every == 0)
            try_start(rot, s);
        if (i % starts_every == starts_every / 2)
            try_salvage(rot, s);
    }
    os_sim_free(&disk);
}

/* ---- whole files ---- */

static void one_file(void *arg, const char *path)
{
    struct rot *rot = arg;
    bool needed = strstr(path, "superblock") != NULL;
    for (size_t i = 0; i < rot->count && !needed; i++)
        needed = strcmp(rot->spots[i].path, path) == 0;
    bool blind =
        !rot->clean && strcmp(path, rot->tail) == 0; /* nothing else knows of the last file of a killed broker */
    for (unsigned how = 0; needed && !blind && how < 3; how++) {
        struct look look = {.path = path};
        struct os_sim *disk = os_sim_clone(rot->whole);
        struct slice bytes = os_sim_peek(rot->whole, path);
        uint8_t zeros[LAYOUT_BLOCK] = {0};
        if (how == 0)
            os_sim_remove(disk, path);
        else
            os_sim_put(disk, path, slice_of(how == 1 ? bytes.ptr : zeros, how == 1 ? LAYOUT_BLOCK / 2 : sizeof zeros));
        int err = audit_disk(rot, disk, &look);
        if (err != -EILSEQ)
            fail(rot, CLASS_COUNT, path, how, "not found:", look.last);
        os_sim_free(&disk);
    }
}

static void swap_files(struct rot *rot, const char *a, const char *b)
{
    struct look look = {.path = a};
    struct os_sim *disk = os_sim_clone(rot->whole);
    struct slice first = os_sim_peek(rot->whole, a), second = os_sim_peek(rot->whole, b);
    os_sim_put(disk, a, second);
    os_sim_put(disk, b, first);
    int err = first.len && second.len ? audit_disk(rot, disk, &look) : -EILSEQ;
    if (err != -EILSEQ)
        fail(rot, CLASS_COUNT, a, 0, "swapped, not found:", look.last);
    os_sim_free(&disk);
}

static void whole_files(struct rot *rot)
{
    char first[48] = "";
    struct os_sim *names = os_sim_clone(rot->whole); /* the one that is walked over is locked */
    os_sim_each(names, "/data", one_file, rot);
    os_sim_each(names, "/data/wal", one_file, rot);
    os_sim_each(names, "/data/seg", one_file, rot);
    os_sim_free(&names);
    for (size_t i = 0; i < rot->count; i++) {
        if (rot->spots[i].class != FILE_FIELDS && rot->spots[i].class != SEGMENT_FIELDS)
            continue;
        if (first[0] && strcmp(first, rot->spots[i].path) != 0 && first[6] == rot->spots[i].path[6])
            swap_files(rot, first, rot->spots[i].path);
        snprintf(first, sizeof first, "%s", rot->spots[i].path);
    }
}

/* The journal ends before the place that the superblock of a clean stop names: as if a note had rotted there. */
static void moved_tail(struct rot *rot)
{
    struct look look = {.path = rot->tail};
    struct os_sim *disk = os_sim_clone(rot->whole);
    struct layout_super super;
    uint8_t block[LAYOUT_BLOCK];
    for (unsigned i = 0; i < 2; i++) {
        const char *path = i ? "/data/superblock.b" : "/data/superblock.a";
        if (layout_super_get(os_sim_peek(disk, path).ptr, &super) != LAYOUT_GOOD || !super.clean)
            continue;
        super.tail_offset += LAYOUT_BLOCK;
        layout_super_put(block, &super);
        os_sim_put(disk, path, slice_of(block, sizeof block));
    }
    int err = audit_disk(rot, disk, &look);
    if (rot->clean && (err != -EILSEQ || !look.named))
        fail(rot, CLASS_COUNT, rot->tail, 0, "ends before the end, not found:", look.last);
    os_sim_free(&disk);
}

/* ---- backups of a running broker ---- */

static void go_on(struct rot *rot, unsigned ops)
{
    struct world *w = &rot->world;
    for (unsigned i = 0; i < ops && !w->dead && !w->model->wrong[0]; i++)
        world_op(w);
}

static void hold(struct world *w, bool on)
{
    journal_hold(w->journal, on);
    store_hold(w->store, on);
    for (unsigned i = 0; on && i < 1000 && !(journal_held(w->journal) && store_held(w->store)); i++)
        world_turn(w);
}

/* The broker is busy, and compacts, between any two things that the copier does. */
static int durable_now(void *arg, lsn_t *ret)
{
    struct rot *rot = arg;
    go_on(rot, 40 + world_pick(&rot->world, 120));
    *ret = journal_durable(rot->world.journal);
    return 0;
}

static void one_backup(struct rot *rot, uint64_t seed)
{
    struct world *w = &rot->world;
    struct backup_result result;
    char why[400] = "";
    struct backup_options options = {.os = w->os, .dir = "/data", .to = "/new", .durable = durable_now, .arg = rot};
    go_on(rot, 200 + world_pick(w, 200));
    hold(w, true);
    go_on(rot, world_pick(w, 60));
    int err = w->os->mkdir(w->os, "/new");
    if (!err)
        err = backup(&options, &result, why, sizeof why);
    hold(w, false);
    struct os_sim *disk = os_sim_clone(w->disk);
    world_end(w, false);
    os_sim_free(&w->disk);
    struct os_sim *fresh = moved(disk);
    if (err)
        fail(rot, CLASS_COUNT + 1, "/data", seed, "no backup:", why);
    else if (!is_complete(rot, fresh, why, sizeof why))
        fail(rot, CLASS_COUNT + 1, "/new", seed, "the backup is not what the broker had:", why);
    rot->backups += err == 0;
    os_sim_free(&fresh);
    os_sim_free(&disk);
}

static void run_backup(struct rot *rot, uint64_t seed)
{
    struct world *w = &rot->world;
    w->dice = seed * 1000;
    w->paging_bytes = 4000;
    w->compact_every = 60;
    w->disk = os_sim_new(seed);
    w->os = os_sim_os(w->disk);
    w->model = rot->model;
    w->lag = (unsigned)(seed % 7);
    os_sim_clock_set(w->disk, 1000 * NS_PER_S, 1700000000000);
    model_init(w->model);
    if (!world_start(w) || !world_connect(w))
        abort();
    world_furnish(w);
    one_backup(rot, seed);
    w->lag = 0;
}

/* ---- the run ---- */

static void run(struct rot *rot, uint64_t seed, bool clean, unsigned starts_every)
{
    char why[400];
    struct look look = {.path = "/data/"};
    rot->page_count = 0;
    fill(rot, seed, clean);
    if (rot->model->wrong[0] || !is_complete(rot, rot->whole, why, sizeof why))
        fail(rot, CLASS_COUNT, "/data", 0,
             "before anything was done to it:", rot->model->wrong[0] ? rot->model->wrong : why);
    int err = audit_disk(rot, rot->whole, &look);
    if (err || look.findings)
        fail(rot, CLASS_COUNT, "/data", seed, "the audit does not find the whole store good:", look.last);
    os_sim_kill(rot->whole);
    rot->messages = look.messages;
    find_pages(rot);
    find_spots(rot);
    flip_all(rot, starts_every);
    whole_files(rot);
    moved_tail(rot);
    os_sim_free(&rot->whole);
}

int main(int argc, char **argv)
{
    static struct rot rot;
    bool all = argc > 1 && strcmp(argv[1], "--all") == 0;
    rot.spots = calloc(SPOTS_MAX, sizeof *rot.spots);
    rot.model = malloc(sizeof *rot.model);
    if (!rot.spots || !rot.model)
        abort();
    rot.every = all ? 7 : 211;
    world_init(&rot.world);
    for (uint64_t seed = 1; seed <= (all ? 20 : 2); seed++)
        run(&rot, seed, seed % 2, all ? 11 : 97);
    for (uint64_t seed = 1; seed <= (all ? 2000 : 60); seed++)
        run_backup(&rot, seed);
    unsigned passed = 0, failed = 0;
    for (unsigned i = 0; i < CLASS_COUNT + 2; i++) {
        const char *name = i < CLASS_COUNT    ? class_names[i]
                           : i == CLASS_COUNT ? "whole files: missing, cut, zeroed, swapped"
                                              : "backups of a busy broker";
        bool good = !rot.wrong[i][0] && (i >= CLASS_COUNT || rot.tested[i]);
        if (good && i < CLASS_COUNT)
            printf("%s: %llu of %llu found\n", name, (unsigned long long)rot.tested[i],
                   (unsigned long long)rot.tested[i]);
        if (!good)
            printf("FAIL %s: %s\n", name, rot.wrong[i][0] ? rot.wrong[i] : "there was none of it");
        *(good ? &passed : &failed) += 1;
    }
    printf("%llu audits, %llu salvages, %llu backups, %llu starts, %llu refused\n", (unsigned long long)rot.audits,
           (unsigned long long)rot.salvages, (unsigned long long)rot.backups, (unsigned long long)rot.starts,
           (unsigned long long)rot.refused);
    world_fini(&rot.world);
    free(rot.spots);
    free(rot.model);
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0;
}
