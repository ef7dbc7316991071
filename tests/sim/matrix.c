/* matrix: death at exactly each step of a page's life and of a compaction, as the tables of docs/formats have them.
 *
 * One script (publish with confirms, pages, a compaction, take and acknowledge all) runs once to see its disk operations and to say
 * which row of which table a death there belongs to; then once more for each operation and moment (the power goes during it, so
 * that it may be partly done, or right after it), with several draws of what survives. The machine restarts: the broker starts,
 * the client's model finds all it was told, and no segment file is left that nobody names.
 *
 * A row is passed when at least one death fell into it and all of them were survived. `matrix --list` prints the rows, and
 * tests/sim/rows compares them with the tables; `matrix --steps` prints the operations and their rows.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/records.h"
#include "journal/layout.h"

#define FDS 2000
#define STEPS_MAX 4096
#define DRAWS 12 /* of what survives */
#define MESSAGES 60

/* ROW(name, what the death leaves) in the order of the tables. */
#define ROWS                                                                                                           \
    ROW(SEGMENTS_1, "segments.1 messages are in memory and journal")                                                   \
    ROW(SEGMENTS_2, "segments.2 bytes written into the open segment")                                                  \
    ROW(SEGMENTS_3, "segments.3 segment synced, a new file's folder too")                                              \
    ROW(SEGMENTS_4, "segments.4 PAGE record appended")                                                                 \
    ROW(SEGMENTS_5, "segments.5 a compaction writes PAGE")                                                             \
    ROW(SEGMENTS_6, "segments.6 journal trimmed, the page alone")                                                      \
    ROW(SEGMENTS_7, "segments.7 the last REMOVE of a page is durable")                                                 \
    ROW(SEGMENTS_8, "segments.8 file unlinked")                                                                        \
    ROW(COMPACTION_0, "compaction.0 the current file is left")                                                         \
    ROW(COMPACTION_1, "compaction.1 the first snapshot record")                                                        \
    ROW(COMPACTION_2, "compaction.2 live objects in slices")                                                           \
    ROW(COMPACTION_3, "compaction.3 CKPT appended")                                                                    \
    ROW(COMPACTION_4, "compaction.4 CKPT durable")                                                                     \
    ROW(COMPACTION_5, "compaction.5 trim")                                                                             \
    ROW(COMPACTION_6, "compaction.6 superblock written")                                                               \
    ROW(COMPACTION_7, "compaction.7 superblock synced")                                                                \
    ROW(COMPACTION_8, "compaction.8 files below S given back")                                                         \
    ROW(COMPACTION_9, "compaction.9 a pool file renamed")                                                              \
    ROW(COMPACTION_10, "compaction.10 its old bytes overwritten")                                                      \
    ROW(KEYED_1, "keyed.1 new file written beside the old ones")                                                       \
    ROW(KEYED_2, "keyed.2 new file synced, and its folder")                                                            \
    ROW(KEYED_3, "keyed.3 REWRITTEN appended")                                                                         \
    ROW(KEYED_4, "keyed.4 REWRITTEN durable")                                                                          \
    ROW(KEYED_5, "keyed.5 old files unlinked")
enum row {
#define ROW(name, text) ROW_##name,
    ROWS
#undef ROW
        ROW_COUNT
};
static const char *const row_names[] = {
#define ROW(name, text) text,
    ROWS
#undef ROW
};
#define BIT(row) (1u << ROW_##row)

enum what { WRITE, HEADER, SYNC, TRUNCATE, RENAME, UNLINK, MKDIR, SYNC_DIR, CREATE };
enum moment { DURING, AFTER };

struct step { /* one operation that changes the disk, and the rows to which a death during and after it belongs */
    enum what what;
    char path[80];
    uint32_t rows[2];
};

/* Between the broker and the simulated disk. */
struct spy {
    struct os os, *under;
    struct os_sim *disk;
    char paths[FDS][80];
    struct step steps[STEPS_MAX];
    unsigned count, scripted; /* all, and those before the first restart */
    int die_at;               /* negative: nowhere */
    enum moment die;
    /* what the records written so far say about where the script is */
    bool snapshot, checkpoint, ckpt_durable, super_written, super_synced, paged;
    bool unsynced_page, unsynced_enqueue, unsynced_rewritten, copy_synced;
    char recycled[64][80]; /* pool files that were journal files before, then what they are renamed to */
    unsigned recycled_count;
};

static const char *file_of(const char *path)
{
    return strncmp(path, "/data/", 6) == 0 ? path + 6 : path;
}

static bool is(const char *path, const char *beginning)
{
    return strncmp(path, beginning, strlen(beginning)) == 0;
}

/* Made by a compaction of a keyed stream: its name has a generation. */
static bool is_copy(const char *path)
{
    return is(path, "str/") && strlen(path) > strlen("str/") + 40;
}

static char *recycled(struct spy *spy, const char *path)
{
    for (unsigned i = 0; i < spy->recycled_count; i++)
        if (strcmp(spy->recycled[i], path) == 0)
            return spy->recycled[i];
    return NULL;
}

/* The last operation of this kind on a file of this kind belongs to a row: only what came after it says so. */
static void belongs(struct spy *spy, enum what what, const char *beginning, uint32_t during, uint32_t after)
{
    for (unsigned i = spy->count; i-- > 0;) {
        struct step *step = &spy->steps[i];
        if (step->what != what || !is(step->path, beginning))
            continue;
        step->rows[DURING] |= during;
        step->rows[AFTER] |= after;
        return;
    }
}

/* The rows of a group of records, and what it changes. */
static uint32_t group_rows(struct spy *spy, const uint8_t *bytes, size_t len)
{
    struct reader r = reader_of(slice_of(bytes + LAYOUT_GROUP_HEADER, len - LAYOUT_GROUP_HEADER));
    uint32_t rows = 0, count = (uint32_t)bytes[20] << 24 | (uint32_t)bytes[21] << 16 | bytes[22] << 8 | bytes[23];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t record_len = reader_u32(&r);
        (void)reader_u32(&r);
        struct slice record = reader_take(&r, record_len);
        char line[200];
        record_print(record, line, sizeof line);
        bool snapshot = strstr(line, "(snapshot)") != NULL;
        uint8_t type = record.len ? record.ptr[0] : 0;
        if ((snapshot || (spy->paged && type == REC_VHOST_PUT)) && !spy->snapshot) {
            spy->snapshot = true;
            rows |= BIT(COMPACTION_1);
            belongs(spy, HEADER, "wal/w-", BIT(COMPACTION_0), BIT(COMPACTION_0)); /* S begins the file */
        }
        if (spy->snapshot)
            rows |= BIT(COMPACTION_2);
        if (type == REC_PAGE) {
            rows |= spy->snapshot ? BIT(SEGMENTS_5) : BIT(SEGMENTS_4);
            spy->unsynced_page = true;
            spy->paged = true;
        }
        if (type == REC_CHECKPOINT) {
            rows |= BIT(COMPACTION_3);
            spy->checkpoint = true;
        }
        spy->unsynced_enqueue |= type == REC_ENQUEUE;
        if (type == REC_REWRITTEN) {
            rows |= BIT(KEYED_3);
            spy->unsynced_rewritten = true;
        }
    }
    return rows;
}

/* Says what a write or sync means, from its place in the script. */
static void classify_write(struct spy *spy, struct step *step, const uint8_t *bytes, size_t len, uint64_t offset)
{
    uint32_t rows = 0;
    if (is(step->path, "seg/")) {
        rows = BIT(SEGMENTS_2);
    } else if (is_copy(step->path)) {
        rows = BIT(KEYED_1);
    } else if (is(step->path, "superblock") && spy->ckpt_durable) {
        rows = BIT(COMPACTION_6);
        spy->super_written = true;
    } else if (is(step->path, "wal/w-")) {
        if (len > LAYOUT_GROUP_HEADER && memcmp(bytes, "MRGP", 4) == 0)
            rows = group_rows(spy, bytes, len);
        if (offset == 0)
            step->what = HEADER;
        if (recycled(spy, step->path))
            rows |= BIT(COMPACTION_10);
    }
    step->rows[DURING] = step->rows[AFTER] = rows;
}

static void classify_sync(struct spy *spy, struct step *step)
{
    if (is(step->path, "seg/")) {
        step->rows[DURING] = BIT(SEGMENTS_2);
        step->rows[AFTER] = BIT(SEGMENTS_3);
    } else if (is_copy(step->path)) {
        step->rows[DURING] = BIT(KEYED_1);
        step->rows[AFTER] = BIT(KEYED_2);
        spy->copy_synced = true;
    } else if (is(step->path, "superblock") && spy->super_written) {
        step->rows[DURING] = BIT(COMPACTION_6);
        step->rows[AFTER] = BIT(COMPACTION_7) | BIT(SEGMENTS_6);
        spy->super_synced = true;
        spy->super_written = spy->ckpt_durable = spy->snapshot = false;
    } else if (is(step->path, "wal/w-")) {
        uint32_t page = spy->unsynced_page ? spy->snapshot ? BIT(SEGMENTS_5) : BIT(SEGMENTS_4) : 0;
        step->rows[DURING] =
            page | (spy->checkpoint ? BIT(COMPACTION_3) : 0) | (spy->unsynced_rewritten ? BIT(KEYED_3) : 0);
        step->rows[AFTER] = page | (spy->checkpoint ? BIT(COMPACTION_4) | BIT(COMPACTION_5) : 0) |
                            (spy->unsynced_enqueue && !spy->paged ? BIT(SEGMENTS_1) : 0) |
                            (spy->unsynced_rewritten ? BIT(KEYED_4) : 0);
        spy->ckpt_durable |= spy->checkpoint;
        spy->unsynced_page = spy->unsynced_enqueue = spy->checkpoint = spy->unsynced_rewritten = false;
    }
}

static void classify_names(struct spy *spy, struct step *step, const char *to)
{
    if (step->what == UNLINK && is(step->path, "seg/")) {
        step->rows[DURING] = step->rows[AFTER] = BIT(SEGMENTS_8);
        belongs(spy, SYNC, "wal/w-", 0, BIT(SEGMENTS_7)); /* that sync made the removal durable */
    } else if (step->what == UNLINK && is(step->path, "str/")) {
        step->rows[DURING] = step->rows[AFTER] = BIT(KEYED_5);
    } else if (step->what == SYNC_DIR && is(step->path, "str") && spy->copy_synced) {
        step->rows[DURING] = step->rows[AFTER] = BIT(KEYED_2);
        spy->copy_synced = false;
    } else if (step->what == SYNC_DIR && is(step->path, "seg")) {
        step->rows[DURING] = step->rows[AFTER] = BIT(SEGMENTS_3);
    } else if (step->what == UNLINK || (step->what == RENAME && is(step->path, "wal/w-"))) {
        step->rows[DURING] = step->rows[AFTER] = spy->super_synced ? BIT(COMPACTION_8) : 0;
        if (step->what == RENAME && spy->recycled_count < ARRAY_LEN(spy->recycled))
            snprintf(spy->recycled[spy->recycled_count++], sizeof spy->recycled[0], "%s", to);
    } else if (step->what == RENAME && is(to, "wal/w-")) {
        char *old = recycled(spy, step->path);
        if (old)
            snprintf(old, sizeof spy->recycled[0], "%s", to);
        step->rows[DURING] = step->rows[AFTER] = BIT(COMPACTION_9);
    }
}

/* The operation that is about to be done: `going`, the operation, `gone`. */
static struct step *begin(struct spy *spy, enum what what, const char *path)
{
    if (spy->count == STEPS_MAX)
        abort();
    struct step *step = &spy->steps[spy->count];
    *step = (struct step){.what = what};
    snprintf(step->path, sizeof step->path, "%s", file_of(path));
    return step;
}

static void going(struct spy *spy)
{
    if ((int)spy->count == spy->die_at && spy->die == DURING)
        os_sim_cut_after(spy->disk, 0);
}

static void gone(struct spy *spy)
{
    if ((int)spy->count == spy->die_at && spy->die == AFTER)
        os_sim_stop(spy->disk);
    spy->count++;
}

static struct spy *spy_of(struct os *os)
{
    return os->self;
}

static int spy_open(struct os *os, const char *path, unsigned flags, int *ret_fd)
{
    struct spy *spy = spy_of(os);
    bool creates = (flags & OS_CREATE) && os_sim_peek(spy->disk, path).len == 0;
    if (creates) {
        (void)begin(spy, CREATE, path);
        going(spy);
    }
    int err = spy->under->open(spy->under, path, flags, ret_fd);
    if (creates)
        gone(spy);
    if (!err && *ret_fd < FDS)
        snprintf(spy->paths[*ret_fd], sizeof spy->paths[0], "%s", path);
    return err;
}

static int spy_pwrite(struct os *os, int fd, const void *bytes, size_t len, uint64_t offset)
{
    struct spy *spy = spy_of(os);
    classify_write(spy, begin(spy, WRITE, spy->paths[fd]), bytes, len, offset);
    going(spy);
    int err = spy->under->pwrite(spy->under, fd, bytes, len, offset);
    gone(spy);
    return err;
}

static void spy_will_read(struct os *os, int fd, uint64_t offset, uint64_t len)
{
    struct spy *spy = spy_of(os);
    spy->under->will_read(spy->under, fd, offset, len);
}

static int spy_fdatasync(struct os *os, int fd)
{
    struct spy *spy = spy_of(os);
    classify_sync(spy, begin(spy, SYNC, spy->paths[fd]));
    going(spy);
    int err = spy->under->fdatasync(spy->under, fd);
    gone(spy);
    return err;
}

static int spy_truncate(struct os *os, int fd, uint64_t size)
{
    struct spy *spy = spy_of(os);
    (void)begin(spy, TRUNCATE, spy->paths[fd]);
    going(spy);
    int err = spy->under->truncate(spy->under, fd, size);
    gone(spy);
    return err;
}

static int spy_rename(struct os *os, const char *from, const char *to)
{
    struct spy *spy = spy_of(os);
    classify_names(spy, begin(spy, RENAME, from), file_of(to));
    going(spy);
    int err = spy->under->rename(spy->under, from, to);
    gone(spy);
    return err;
}

static int spy_unlink(struct os *os, const char *path)
{
    struct spy *spy = spy_of(os);
    classify_names(spy, begin(spy, UNLINK, path), "");
    going(spy);
    int err = spy->under->unlink(spy->under, path);
    gone(spy);
    return err;
}

static int spy_mkdir(struct os *os, const char *path)
{
    struct spy *spy = spy_of(os);
    (void)begin(spy, MKDIR, path);
    going(spy);
    int err = spy->under->mkdir(spy->under, path);
    gone(spy);
    return err;
}

static int spy_sync_dir(struct os *os, const char *path)
{
    struct spy *spy = spy_of(os);
    classify_names(spy, begin(spy, SYNC_DIR, path), "");
    going(spy);
    int err = spy->under->sync_dir(spy->under, path);
    gone(spy);
    return err;
}

/* What changes nothing goes by: the functions of the disk below find it by their own self. */
static mono_t spy_now_mono(struct os *os)
{
    return spy_of(os)->under->now_mono(spy_of(os)->under);
}

static wall_t spy_now_wall(struct os *os)
{
    return spy_of(os)->under->now_wall(spy_of(os)->under);
}

static void spy_random(struct os *os, void *ret, size_t len)
{
    spy_of(os)->under->random(spy_of(os)->under, ret, len);
}

static int spy_close(struct os *os, int fd)
{
    return spy_of(os)->under->close(spy_of(os)->under, fd);
}

static int64_t spy_pread(struct os *os, int fd, void *ret, size_t len, uint64_t offset)
{
    return spy_of(os)->under->pread(spy_of(os)->under, fd, ret, len, offset);
}

static int spy_size(struct os *os, int fd, uint64_t *ret_size)
{
    return spy_of(os)->under->size(spy_of(os)->under, fd, ret_size);
}

static int spy_list(struct os *os, const char *path, int (*each)(void *arg, const char *name), void *arg)
{
    return spy_of(os)->under->list(spy_of(os)->under, path, each, arg);
}

static int spy_lock(struct os *os, int fd)
{
    return spy_of(os)->under->lock(spy_of(os)->under, fd);
}

static int spy_space(struct os *os, const char *path, uint64_t *ret_free, uint64_t *ret_total)
{
    return spy_of(os)->under->space(spy_of(os)->under, path, ret_free, ret_total);
}

static void spy_on(struct spy *spy, struct os_sim *disk)
{
    spy->disk = disk;
    spy->under = os_sim_os(disk);
    spy->os = (struct os){.self = spy,
                          .now_mono = spy_now_mono,
                          .now_wall = spy_now_wall,
                          .random = spy_random,
                          .open = spy_open,
                          .close = spy_close,
                          .pread = spy_pread,
                          .pwrite = spy_pwrite,
                          .will_read = spy_will_read,
                          .fdatasync = spy_fdatasync,
                          .size = spy_size,
                          .truncate = spy_truncate,
                          .rename = spy_rename,
                          .unlink = spy_unlink,
                          .mkdir = spy_mkdir,
                          .sync_dir = spy_sync_dir,
                          .list = spy_list,
                          .lock = spy_lock,
                          .space = spy_space};
}

/* ---- the script ---- */

static bool running(const struct world *w)
{
    return !w->dead && !w->model->wrong[0];
}

static void script(struct world *w)
{
    if (!world_start(w) || !world_connect(w))
        return;
    for (unsigned i = 0; i < MESSAGES; i += 4) {
        world_publish(w, PLACE_PLAIN, 4, 100 + i % 3 * 80);
        world_turns(w, 4);
    }
    world_confirmed(w);
    world_turns(w, 50);
    world_take(w, PLACE_PLAIN, MESSAGES / 3, false); /* the compaction comes after a number of commands, among these */
    world_turns(w, 50);
    world_take(w, PLACE_PLAIN, MESSAGES - MESSAGES / 3, false);
    world_publish(w, PLACE_PLAIN, 2, 100);
    world_confirmed(w); /* says that the last acknowledgements are durable */
    world_turns(w, 100);
}

static void count_file(void *arg, const char *path)
{
    (void)path;
    ++*(uint64_t *)arg;
}

/* No segment is left that nobody names. */
static void check_files(struct world *w)
{
    struct store_stats stats;
    uint64_t files = 0;
    store_stats(w->store, &stats);
    os_sim_each(w->disk, "/data/seg", count_file, &files);
    if (files != stats.segments)
        model_fault(w->model, "%llu segment files, %llu in use", (unsigned long long)files,
                    (unsigned long long)stats.segments);
}

#define UPDATES 40

enum play { PLAY_QUEUES, PLAY_KEYED, PLAY_COUNT };
static struct os_sim *furnished[PLAY_COUNT];
static struct model *furnished_model[PLAY_COUNT];

/* The second one: a keyed stream. */
static void keyed_script(struct world *w)
{
    if (world_start(w) && world_connect(w))
        keyed_play(w, UPDATES);
}

/* One life that ends at a moment of a step. A violation is in w->model->wrong. */
static void live(struct world *w, struct spy *spy, enum play play, int die_at, enum moment die, uint64_t survives)
{
    uint64_t first_id = furnished_model[play]->count + 1;
    memset(spy, 0, sizeof *spy);
    spy->die_at = die_at;
    spy->die = die;
    w->dice = 5;
    w->compact_every = play == PLAY_KEYED ? 30 : 100;
    w->compact_slice_bytes = 400;
    w->paging_bytes = 1600;
    w->with_streams = play == PLAY_KEYED;
    w->stream_sync_bytes = 100000;
    w->keyed_every_ms = 5;
    memcpy(w->model, furnished_model[play], sizeof *w->model);
    w->disk = os_sim_clone(furnished[play]);
    spy_on(spy, w->disk);
    w->os = &spy->os;
    if (play == PLAY_KEYED)
        keyed_script(w);
    else
        script(w);
    spy->scripted = spy->count;
    bool whole = running(w);
    world_end(w, false);
    if (die_at < 0 && !whole)
        model_fault(w->model, "the script did not come to its end");
    os_sim_crash(w->disk, survives);
    spy->die_at = -1;
    if (!w->model->wrong[0] && world_start(w)) {
        check_files(w);
        if (play == PLAY_KEYED) {
            keyed_check_files(w);
            keyed_check(w, first_id);
        }
        world_compare(w);
    } else {
        model_fault(w->model, "the broker does not start: %s", w->why);
    }
    world_end(w, false);
    os_sim_free(&w->disk);
}

static bool furnish(enum play play)
{
    struct world w;
    world_init(&w);
    w.with_streams = play == PLAY_KEYED;
    w.disk = os_sim_new(1);
    w.os = os_sim_os(w.disk);
    os_sim_clock_set(w.disk, 1000 * NS_PER_S, 1700000000000);
    w.model = malloc(sizeof *w.model);
    if (!w.model)
        abort();
    model_init(w.model);
    bool good = world_start(&w) && world_connect(&w);
    if (good)
        world_furnish(&w);
    good = good && !w.model->wrong[0];
    world_end(&w, true);
    os_sim_crash(w.disk, 1);
    furnished[play] = w.disk;
    furnished_model[play] = w.model;
    world_fini(&w);
    return good;
}

static void talk_of_steps(const struct step *steps, unsigned count)
{
    static const char *const names[] = {"write",  "header", "sync",     "truncate", "rename",
                                        "unlink", "mkdir",  "sync_dir", "create"};
    for (unsigned i = 0; i < count; i++)
        printf("    %u %s %s, rows %x, %x\n", i, names[steps[i].what], steps[i].path, steps[i].rows[0],
               steps[i].rows[1]);
}

struct tally {
    unsigned deaths, failed;
    char first[600];
};

static void die_everywhere(struct world *w, struct spy *spy, enum play play, const struct step *steps, unsigned count,
                           struct tally *rows)
{
    unsigned draws = play == PLAY_KEYED ? DRAWS / 4 : DRAWS;
    for (unsigned i = 0; i < 2 * count * draws; i++) {
        unsigned at = i / (2 * draws);
        enum moment die = i / draws % 2 ? AFTER : DURING;
        live(w, spy, play, (int)at, die, i);
        for (int row = 0; row < ROW_COUNT; row++) {
            if (!(steps[at].rows[die] & 1u << row))
                continue;
            rows[row].deaths++;
            if (w->model->wrong[0] && !rows[row].failed++)
                snprintf(rows[row].first, sizeof rows[row].first, "%s step %u (%s): %s", die ? "after" : "during", at,
                         steps[at].path, w->model->wrong);
        }
        if (w->model->wrong[0] && !steps[at].rows[die] && !rows[ROW_COUNT].failed++)
            snprintf(rows[ROW_COUNT].first, sizeof rows[0].first, "%s step %u (%s): %s", die ? "after" : "during", at,
                     steps[at].path, w->model->wrong);
    }
}

static int report(const struct tally *rows)
{
    unsigned failed = 0;
    for (int row = 0; row < ROW_COUNT; row++) {
        const struct tally *tally = &rows[row];
        bool good = tally->deaths && !tally->failed;
        failed += !good;
        if (good)
            printf("ok %s: %u deaths\n", row_names[row], tally->deaths);
        else
            printf("FAIL %s: %u of %u deaths: %s\n", row_names[row], tally->failed, tally->deaths,
                   tally->deaths ? tally->first : "the script has no such step");
    }
    if (rows[ROW_COUNT].failed)
        printf("FAIL between the rows: %u deaths: %s\n", rows[ROW_COUNT].failed, rows[ROW_COUNT].first);
    failed += rows[ROW_COUNT].failed != 0;
    printf("%u passed, %u failed\n", ROW_COUNT + 1 - failed, failed);
    return failed != 0;
}

int main(int argc, char **argv)
{
    static struct spy spy;
    static struct step steps[STEPS_MAX];
    static struct tally rows[ROW_COUNT + 1]; /* the last one: steps of no row */
    struct world w;
    if (argc > 1 && strcmp(argv[1], "--list") == 0) {
        for (int row = 0; row < ROW_COUNT; row++)
            puts(row_names[row]);
        return 0;
    }
    world_init(&w);
    w.model = malloc(sizeof *w.model);
    if (!w.model)
        abort();
    for (int play = 0; play < PLAY_COUNT; play++) {
        if (!furnish((enum play)play))
            abort();
        live(&w, &spy, (enum play)play, -1, DURING, 1);
        unsigned count = spy.scripted;
        memcpy(steps, spy.steps, sizeof steps);
        if (argc > 1 && strcmp(argv[1], "--steps") == 0)
            talk_of_steps(steps, count);
        if (w.model->wrong[0]) {
            printf("FAIL the script without a death: %s\n0 passed, 1 failed\n", w.model->wrong);
            return 1;
        }
        die_everywhere(&w, &spy, (enum play)play, steps, count, rows);
        printf("%u steps of the disk\n", count);
        free(furnished_model[play]);
        os_sim_free(&furnished[play]);
    }
    free(w.model);
    world_fini(&w);
    return report(rows);
}
