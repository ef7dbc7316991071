/* The journal's calls, and the commit loop: take what is staged, write it, sync, publish durable_lsn, again.
 *
 * There is no timer in the commit path: what arrives while a sync runs is the next group. Only when nothing is staged does
 * the loop do something else: trim, make files ahead (wal.c), and, one second after the last commit, write a note group
 * that records the durable lsn, so that damage to the last group can be told from a torn tail.
 * The first failed write or sync stops the journal for good; what is staged is forgotten, its lsns never become durable. A
 * disk that is full is no such failure: spare files are used, then the group waits and is tried again.
 *
 * Threads: the writer owns stage's writer half; the journal thread (or who calls journal_step) owns wal. Published
 * atomics: durable, failure, live_bytes and the figures by the journal; trim and stop by the writer.
 */
#include "journal/journal.h"

#include "base/check.h"
#include "base/mem.h"
#include "journal/recover.h"
#include "journal/stage.h"
#include "journal/sync_times.h"
#include "journal/wal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#define GROUP_BYTES_DEFAULT (1024u * 1024)
#define STAGED_BYTES_DEFAULT (16u * 1024 * 1024)
#define FILE_BYTES_MAX (1024u * 1024 * 1024)
#define IDLE_NS NS_PER_S
#define STALL_NS (NS_PER_S / 10)
#define TIGHT_NS (20 * NS_PER_MS) /* between commits on a full disk: a group is a block at least, and blocks are few */
#define FRESH_SHARE 8             /* of a file: less is not worth a new one */

/* Figures that any thread may read; only the journal thread writes them. */
enum figure {
    FIGURE_GROUPS,
    FIGURE_SYNCS,
    FIGURE_PAYLOAD,
    FIGURE_WRITTEN,
    FIGURE_FILES,
    FIGURE_POOL,
    FIGURE_SYNC_LAST,
    FIGURE_SYNC_MAX,
    FIGURE_START,
    FIGURE_LIVE,
    FIGURE_READY,
    FIGURE_SPARE,
    FIGURE_FRESH_LOSS,
    FIGURE_COUNT
};

struct journal {
    struct os *os;
    size_t group_bytes_max, staged_bytes_max;
    void (*on_progress)(void *arg);
    void *arg;
    uint64_t tail_zeroed_bytes;
    bool direct_io;
    uint8_t uuid[LAYOUT_UUID_LEN]; /* of the superblock, which its writer writes anew */

    struct stage stage;
    struct wal wal;
    struct os_event work;
    struct os_thread thread;
    bool threaded; /* writer; constant while the thread runs */

    /* journal thread */
    struct group *stalled; /* the disk had no room for it */
    mono_t stalled_until;
    lsn_t fresh_done;   /* of fresh: looked at */
    lsn_t noted;        /* highest lsn that something on disk claims to be durable */
    mono_t last_commit; /* end of it */
    bool shrunk;

    /* published by the journal thread */
    _Atomic lsn_t durable;
    _Atomic int failure;
    _Atomic uint64_t figures[FIGURE_COUNT];
    struct sync_times sync_times;
    /* published by the writer */
    _Atomic lsn_t trim;
    _Atomic lsn_t fresh; /* a group that begins here, or behind it, may have a new file */
    _Atomic bool stop;
    _Atomic bool scarce;        /* any thread */
    _Atomic uint64_t disk_free; /* the same; of the last look, while it is scarce */
    struct hold hold;           /* of any thread */
};

static void figure_set(struct journal *journal, enum figure figure, uint64_t value)
{
    atomic_store_explicit(&journal->figures[figure], value, memory_order_relaxed);
}

static uint64_t figure(const struct journal *journal, enum figure which)
{
    return atomic_load_explicit(&journal->figures[which], memory_order_relaxed);
}

static void figure_add(struct journal *journal, enum figure which, uint64_t more)
{
    figure_set(journal, which, figure(journal, which) + more);
}

/* Of a new file: the current one is more than hardly begun, and the new one is not the last. */
static bool worth_fresh(const struct wal *wal)
{
    return wal->offset > wal->file_bytes / FRESH_SHARE && wal_has_spare(wal);
}

static void publish_files(struct journal *journal)
{
    const struct wal *wal = &journal->wal;
    figure_set(journal, FIGURE_WRITTEN, wal->bytes_written);
    figure_set(journal, FIGURE_FILES, wal->files_len);
    figure_set(journal, FIGURE_POOL, wal->pool_len + (wal->next_fd >= 0));
    figure_set(journal, FIGURE_START, wal->super.start_lsn);
    figure_set(journal, FIGURE_LIVE, wal->live_bytes);
    figure_set(journal, FIGURE_READY, journal->stalled ? 0 : wal_ready(wal));
    figure_set(journal, FIGURE_SPARE, wal_spare(wal));
    figure_set(journal, FIGURE_FRESH_LOSS, worth_fresh(wal) ? wal->size - wal->offset : 0);
}

/* ------------------------------------------------------------------------------------------------------ open and read */

/* Settings come from people: bounds are checked here, not assumed. */
static bool options_fit(const struct journal_options *options, char *why, size_t why_len)
{
    uint64_t file = options->file_bytes;
    size_t group = options->group_bytes_max;
    if (file && (file % LAYOUT_BLOCK || file < 2 * LAYOUT_BLOCK || file > FILE_BYTES_MAX))
        snprintf(why, why_len, "the size of a journal file must be a multiple of 4096 from 8192 to 1 GiB, not %" PRIu64,
                 file);
    else if (group && (group < LAYOUT_BLOCK || group > LAYOUT_GROUP_BODY_MAX))
        snprintf(why, why_len, "the size of a journal group must be from 4096 to 4194304, not %zu", group);
    else
        return true;
    return false;
}

int journal_open(const struct journal_options *options, struct journal **ret, char *why, size_t why_len)
{
    if (!options_fit(options, why, why_len))
        return -EINVAL;
    struct journal *journal = mem_zalloc(sizeof *journal);
    if (!journal) {
        snprintf(why, why_len, "no memory to open the journal");
        return -ENOMEM;
    }
    struct recovered found;
    int err = recover_open(&journal->wal, options, &found, why, why_len);
    if (err) {
        mem_free(journal);
        return err;
    }
    journal->os = options->os;
    journal->group_bytes_max = options->group_bytes_max ? options->group_bytes_max : GROUP_BYTES_DEFAULT;
    journal->staged_bytes_max = options->staged_bytes_max ? options->staged_bytes_max : STAGED_BYTES_DEFAULT;
    journal->on_progress = options->on_progress;
    journal->arg = options->arg;
    journal->tail_zeroed_bytes = found.cut_bytes;
    journal->direct_io = journal->wal.direct;
    memcpy(journal->uuid, journal->wal.super.uuid, sizeof journal->uuid);
    journal->noted = found.next_lsn - 1;
    journal->shrunk = true;
    atomic_store(&journal->durable, found.next_lsn - 1);
    stage_init(&journal->stage, &journal->work, journal->group_bytes_max, found.next_lsn);
    publish_files(journal);
    *ret = journal;
    return 0;
}

int journal_read(struct journal *journal, int (*each)(void *arg, lsn_t lsn, struct slice record), void *arg, char *why,
                 size_t why_len)
{
    struct wal *wal = &journal->wal;
    lsn_t start = wal->super.start_lsn, next = journal->stage.next_lsn;
    struct walk walk;
    struct layout_group group;
    struct slice body, record;
    int r = walk_open(&walk, wal->os, wal->folder, wal->super.uuid, wal->files[0].seq, start, NULL, NULL);
    while (r == 0 && walk.lsn < next) {
        r = walk_next(&walk, &group, &body);
        if (r <= 0) {
            snprintf(why, why_len, "%s changed while it was read: lsn %" PRIu64 " is gone (%s)", wal->folder, walk.lsn,
                     r < 0 ? strerror(-r) : walk.reason);
            r = r < 0 ? r : -EILSEQ;
            break;
        }
        r = 0;
        for (lsn_t lsn = group.lsn; r == 0 && layout_record_next(&body, &record); lsn++)
            if (lsn >= start)
                r = each(arg, lsn, record);
    }
    if (r < 0 && !walk.in_file)
        snprintf(why, why_len, "cannot read %s: %s", wal->folder, strerror(-r));
    walk_close(&walk);
    return r;
}

/* --------------------------------------------------------------------------------------------------------- the writer */

bool journal_room(const struct journal *journal)
{
    return stage_bytes(&journal->stage) < journal->staged_bytes_max;
}

bool journal_reserve(struct journal *journal, size_t bytes, unsigned count)
{
    if (atomic_load_explicit(&journal->failure, memory_order_relaxed))
        stage_drop(&journal->stage);
    return stage_reserve(&journal->stage, bytes, count);
}

lsn_t journal_append(struct journal *journal, const struct slice *parts, unsigned count)
{
    return stage_append(&journal->stage, parts, count);
}

void journal_kick(struct journal *journal)
{
    if (stage_kick(&journal->stage))
        os_event_set(&journal->work);
}

void journal_fresh(struct journal *journal)
{
    stage_break(&journal->stage);
    atomic_store_explicit(&journal->fresh, journal->stage.next_lsn, memory_order_release);
}

lsn_t journal_durable(const struct journal *journal)
{
    return atomic_load_explicit(&journal->durable, memory_order_acquire);
}

lsn_t journal_appended(const struct journal *journal)
{
    return journal->stage.next_lsn - 1;
}

int journal_failure(const struct journal *journal)
{
    return atomic_load_explicit(&journal->failure, memory_order_acquire);
}

const char *journal_failure_text(const struct journal *journal)
{
    return journal_failure(journal) ? journal->wal.fault : "";
}

void journal_trim(struct journal *journal, lsn_t upto)
{
    CHECK(upto <= journal_durable(journal) + 1);
    if (upto <= atomic_load_explicit(&journal->trim, memory_order_relaxed))
        return;
    atomic_store_explicit(&journal->trim, upto, memory_order_relaxed);
    os_event_set(&journal->work);
}

void journal_hold(struct journal *journal, bool on)
{
    atomic_fetch_add_explicit(&journal->hold.wanted, on ? 1 : -1, memory_order_acq_rel);
    os_event_set(&journal->work);
}

bool journal_held(const struct journal *journal)
{
    return atomic_load_explicit(&journal->hold.seen, memory_order_acquire);
}

uint64_t journal_live_bytes(const struct journal *journal)
{
    return figure(journal, FIGURE_LIVE);
}

uint64_t journal_ready(const struct journal *journal)
{
    return figure(journal, FIGURE_READY);
}

uint64_t journal_capacity(const struct journal *journal, bool fresh)
{
    uint64_t ready = journal_ready(journal), loss = fresh ? figure(journal, FIGURE_FRESH_LOSS) : 0;
    if (ready == UINT64_MAX) {
        if (!atomic_load_explicit(&journal->scarce, memory_order_acquire))
            return ready;
        ready = figure(journal, FIGURE_SPARE) + atomic_load_explicit(&journal->disk_free, memory_order_relaxed);
    }
    return ready > loss ? ready - loss : 0;
}

void journal_scarce(struct journal *journal, bool scarce, uint64_t disk_free)
{
    atomic_store_explicit(&journal->disk_free, disk_free, memory_order_relaxed);
    if (atomic_exchange(&journal->scarce, scarce) != scarce)
        os_event_set(&journal->work);
}

uint64_t journal_written(const struct journal *journal)
{
    return figure(journal, FIGURE_WRITTEN);
}

const struct sync_times *journal_sync_times(const struct journal *journal)
{
    return &journal->sync_times;
}

const uint8_t *journal_uuid(const struct journal *journal)
{
    return journal->uuid;
}

uint64_t journal_claim(const struct journal *journal)
{
    return journal->wal.epoch; /* set by open, constant after it */
}

void journal_stats(const struct journal *journal, struct journal_stats *ret)
{
    *ret = (struct journal_stats){
        .appended = journal_appended(journal),
        .durable = journal_durable(journal),
        .start = figure(journal, FIGURE_START),
        .groups = figure(journal, FIGURE_GROUPS),
        .syncs = figure(journal, FIGURE_SYNCS),
        .bytes_payload = figure(journal, FIGURE_PAYLOAD),
        .bytes_written = figure(journal, FIGURE_WRITTEN),
        .files = figure(journal, FIGURE_FILES),
        .files_pool = figure(journal, FIGURE_POOL),
        .sync_ns_last = figure(journal, FIGURE_SYNC_LAST),
        .sync_ns_max = figure(journal, FIGURE_SYNC_MAX),
        .tail_zeroed_bytes = journal->tail_zeroed_bytes,
        .direct_io = journal->direct_io,
    };
}

/* ----------------------------------------------------------------------------------------------------- the commit loop */

static void progress(struct journal *journal)
{
    if (journal->on_progress)
        journal->on_progress(journal->arg);
}

static void drop_staged(struct journal *journal)
{
    struct group *group = journal->stalled;
    journal->stalled = NULL;
    if (group)
        stage_retire(&journal->stage, group);
    while ((group = stage_take(&journal->stage)) != NULL)
        stage_retire(&journal->stage, group);
}

static int fail(struct journal *journal, int err)
{
    CHECK(err < 0);
    atomic_store_explicit(&journal->failure, err, memory_order_release);
    drop_staged(journal);
    progress(journal);
    return err;
}

/* What comes before the group will be trimmed: a new file, unless the current one is hardly begun. */
static int begin_fresh(struct journal *journal, lsn_t first)
{
    struct wal *wal = &journal->wal;
    lsn_t fresh = atomic_load_explicit(&journal->fresh, memory_order_acquire);
    if (fresh <= journal->fresh_done || first < fresh)
        return 0;
    journal->fresh_done = fresh;
    if (!worth_fresh(wal))
        return 0;
    int err = wal_roll(wal, first, false);
    return wal_may_retry(wal, err) ? 0 : err;
}

static int write_group(struct journal *journal, struct group *staged)
{
    int err = begin_fresh(journal, staged->first);
    if (err)
        return err;
    struct layout_group group = {
        .lsn = staged->first,
        .len = (uint32_t)(staged->len - LAYOUT_GROUP_HEADER),
        .nrec = staged->nrec,
        .durable = journal_durable(journal),
        .wall_ms = journal->os->now_wall(journal->os),
    };
    err = wal_group_write(&journal->wal, staged->bytes, &group);
    if (err)
        return err;
    figure_add(journal, FIGURE_GROUPS, 1);
    figure_add(journal, FIGURE_PAYLOAD, group.len - (uint64_t)group.nrec * LAYOUT_RECORD_HEADER);
    journal->noted = group.durable; /* the claim in this group's header, once it is synced */
    return 0;
}

/* The files at hand may be all there is. Before the first write has failed for it, what the disk said tells. */
static bool is_tight(const struct journal *journal)
{
    return journal->wal.tight ||
           (journal->wal.scarce &&
            atomic_load_explicit(&journal->disk_free, memory_order_relaxed) < journal->wal.file_bytes);
}

static mono_t commit_not_before(const struct journal *journal)
{
    if (journal->stalled)
        return journal->stalled_until;
    return is_tight(journal) && journal->threaded ? journal->last_commit + TIGHT_NS : 0;
}

/* The group did not fit on the disk: it is kept, and tried again. What goes down with the broker is not acknowledged. */
static bool stall(struct journal *journal, struct group *group, int err)
{
    if (!wal_may_retry(&journal->wal, err) || atomic_load_explicit(&journal->stop, memory_order_relaxed))
        return false;
    journal->stalled = group;
    journal->stalled_until = journal->os->now_mono(journal->os) + STALL_NS;
    return true;
}

/* Writes what is staged, up to about one full group's bytes, and syncs it once. 1, 0: nothing was staged, or an errno. */
static int commit(struct journal *journal)
{
    mono_t began = journal->os->now_mono(journal->os);
    if (began < commit_not_before(journal) && !atomic_load_explicit(&journal->stop, memory_order_relaxed))
        return 0;
    struct group *done = NULL, *group = journal->stalled ? journal->stalled : stage_take(&journal->stage);
    journal->stalled = NULL;
    if (!group)
        return 0;
    lsn_t last = 0;
    size_t bytes = 0;
    int err = 0;
    while (group) {
        err = write_group(journal, group);
        if (err && stall(journal, group, err)) {
            err = 0;
            break;
        }
        last = group->first + group->nrec - 1;
        bytes += group->len;
        group->next = done;
        done = group;
        group = !err && bytes < journal->group_bytes_max / 2 ? stage_take(&journal->stage) : NULL;
    }
    if (!err && !done) {
        publish_files(journal);
        return 0;
    }
    if (!err)
        err = wal_sync(&journal->wal);
    if (!err)
        atomic_store_explicit(&journal->durable, last, memory_order_release);
    while (done) {
        group = done->next;
        stage_retire(&journal->stage, done);
        done = group;
    }
    if (err)
        return err;
    journal->last_commit = journal->os->now_mono(journal->os);
    journal->shrunk = false;
    uint64_t took = (uint64_t)(journal->last_commit - began);
    figure_add(journal, FIGURE_SYNCS, 1);
    figure_set(journal, FIGURE_SYNC_LAST, took);
    sync_times_add(&journal->sync_times, took);
    if (took > figure(journal, FIGURE_SYNC_MAX))
        figure_set(journal, FIGURE_SYNC_MAX, took);
    publish_files(journal);
    progress(journal);
    return 1;
}

static int trim(struct journal *journal)
{
    lsn_t upto = atomic_load_explicit(&journal->trim, memory_order_relaxed);
    if (upto <= journal->wal.super.start_lsn)
        return 0;
    int err = wal_trim(&journal->wal, upto, journal_durable(journal));
    if (wal_may_retry(&journal->wal, err))
        return 0; /* a file system that needs room to overwrite: with the next step again */
    if (err)
        return err;
    publish_files(journal);
    return 1;
}

/* Idle for a second: leave the note that closes the blind spot, and give memory and spare files back. */
static int settle(struct journal *journal)
{
    lsn_t durable = journal_durable(journal);
    bool note = journal->noted < durable;
    if ((!note && journal->shrunk) || journal->os->now_mono(journal->os) < journal->last_commit + IDLE_NS)
        return 0;
    if (!note && wal_shrink(&journal->wal))
        return 1;
    if (!note) {
        stage_shrink(&journal->stage);
        journal->shrunk = true;
        return 1;
    }
    struct layout_group group = {
        .note = true,
        .lsn = durable + 1,
        .durable = durable,
        .wall_ms = journal->os->now_wall(journal->os),
    };
    int err = wal_group_write(&journal->wal, journal->wal.block, &group);
    if (!err)
        err = wal_sync(&journal->wal);
    if (err && !wal_may_retry(&journal->wal, err)) /* a full disk goes without the note */
        return err;
    journal->noted = durable;
    publish_files(journal);
    return 1;
}

int journal_step(struct journal *journal)
{
    int err = atomic_load_explicit(&journal->failure, memory_order_relaxed);
    if (err) {
        drop_staged(journal);
        return err;
    }
    journal->wal.scarce = atomic_load_explicit(&journal->scarce, memory_order_relaxed);
    parking_look(&journal->wal.parking, &journal->hold);
    int did = trim(journal); /* first: under a load without pauses it would never have its turn */
    if (did >= 0) {
        int committed = commit(journal);
        did = committed ? committed : did;
    }
    bool stopping = atomic_load_explicit(&journal->stop, memory_order_relaxed);
    if (did == 0)
        did = parking_step(&journal->wal.parking);
    if (did == 0 && !stopping && !journal->stalled)
        did = journal->wal.scarce && wal_shrink(&journal->wal) ? 1 : settle(journal);
    if (did == 0 && !stopping) {
        did = wal_tend(&journal->wal);
        publish_files(journal);
    }
    return did < 0 ? fail(journal, did) : did;
}

/* How long the thread may sleep when nobody wakes it. Negative: for ever. */
static int64_t sleep_ns(struct journal *journal)
{
    mono_t at = wal_tend_at(&journal->wal);
    if (journal->noted < journal_durable(journal) || !journal->shrunk)
        at = at < journal->last_commit + IDLE_NS ? at : journal->last_commit + IDLE_NS;
    if (journal->stalled || stage_waits(&journal->stage))
        at = at < commit_not_before(journal) ? at : commit_not_before(journal);
    if (at == MONO_NEVER)
        return -1;
    mono_t now = journal->os->now_mono(journal->os);
    return at > now ? at - now : 0;
}

static void run(void *arg)
{
    struct journal *journal = arg;
    for (;;) {
        int did = journal_step(journal);
        if (did > 0)
            continue;
        if (atomic_load_explicit(&journal->stop, memory_order_acquire)) {
            if (did < 0 || journal_step(journal) <= 0)
                break; /* stop was set before this step: nothing can have been staged after it */
            continue;
        }
        os_event_wait(&journal->work, did < 0 ? -1 : sleep_ns(journal));
    }
}

int journal_start(struct journal *journal)
{
    CHECK(!journal->threaded);
    journal->threaded = true; /* the thread reads it */
    int err = os_thread_start(&journal->thread, "journal", run, journal);
    if (err)
        journal->threaded = false;
    return err;
}

int journal_stop(struct journal *journal)
{
    journal_kick(journal);
    atomic_store_explicit(&journal->stop, true, memory_order_release);
    if (journal->threaded) {
        os_event_set(&journal->work);
        os_thread_join(&journal->thread);
        journal->threaded = false;
    } else {
        while (journal_step(journal) > 0)
            continue;
    }
    return journal_failure(journal);
}

void journal_close(struct journal **slot)
{
    struct journal *journal = *slot;
    *slot = NULL;
    if (!journal)
        return;
    CHECK(!journal->threaded);
    lsn_t durable = journal_durable(journal);
    bool clean = !journal_failure(journal) && durable == journal_appended(journal) && wal_sync(&journal->wal) == 0;
    wal_close(&journal->wal, clean, durable);
    drop_staged(journal);
    stage_fini(&journal->stage);
    mem_free(journal);
}
