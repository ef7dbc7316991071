/* The store as the core sees it, on the simulated disk: pages come back, files roll over, go and are swept; every failing
 * operation and allocation, and the power cut at every disk operation: each job is answered exactly once, and what was
 * answered as synced is there.
 */
#include "store/store.h"

#include "base/mem.h"
#include "os/os_sim.h"
#include "os/thread.h"
#include "store/inspect_segments.h"
#include "store/page_format.h"
#include "store/store_test_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SMALL_SEGMENT (64u * 1024)
#define PAGES_MAX 400

/* ----------------------------------------------------------------------------------------------------------------- rig */

struct rig {
    struct os_sim *sim;
    struct store *store;
    struct slab_heap heap; /* the core's */
    struct store_options options;
    char why[512], sentence[512];
    unsigned faults;
    struct rig_page pages[PAGES_MAX]; /* by ticket */
    uint8_t answers[PAGES_MAX];       /* to their writes */
    unsigned pages_len, submitted, answered;
    uint64_t dice;
};

static void on_fault(void *arg, int err, const char *sentence)
{
    struct rig *rig = arg;
    assert_true(err < 0);
    snprintf(rig->sentence, sizeof rig->sentence, "%s", sentence);
    rig->faults++;
}

static struct rig *rig_new(uint64_t seed)
{
    struct rig *rig = calloc(1, sizeof *rig);
    rig->sim = os_sim_new(seed);
    rig->dice = seed;
    slab_heap_init(&rig->heap);
    rig->options = (struct store_options){.os = os_sim_os(rig->sim),
                                          .dir = "d",
                                          .uuid = "0123456789abcde",
                                          .segment_bytes_max = SMALL_SEGMENT,
                                          .on_fault = on_fault,
                                          .arg = rig};
    assert_int_equal(os_sim_os(rig->sim)->mkdir(os_sim_os(rig->sim), "d"), 0);
    assert_int_equal(os_sim_os(rig->sim)->sync_dir(os_sim_os(rig->sim), "."), 0);
    return rig;
}

static void rig_free(struct rig *rig)
{
    store_close(&rig->store);
    slab_heap_fini(&rig->heap);
    os_sim_free(&rig->sim);
    free(rig);
}

/* Opens and keeps every page that was answered as written; does not sweep when something fails. */
static int rig_open_keeping(struct rig *rig, bool synced_only)
{
    rig->why[0] = '\0';
    int err = store_open(&rig->options, &rig->store, rig->why, sizeof rig->why);
    for (unsigned i = 0; i < rig->pages_len && !err; i++) {
        const struct rig_page *page = &rig->pages[i];
        if (page->written && (page->sync || !synced_only))
            err = store_keep(rig->store, page->where.segment, page->where.offset + page->where.len, rig->why,
                             sizeof rig->why);
    }
    if (!err)
        err = store_sweep(rig->store, rig->why, sizeof rig->why);
    assert_true(!err || rig->why[0]);
    if (err)
        store_close(&rig->store);
    return err;
}

static void rig_open(struct rig *rig)
{
    if (rig_open_keeping(rig, true))
        fail_msg("open: %s", rig->why);
}

/* One more page; its ticket. */
static unsigned rig_page_new(struct rig *rig, uint32_t count, uint32_t body_max, bool sync)
{
    unsigned ticket = rig->pages_len++;
    assert_true(ticket < PAGES_MAX);
    rig->pages[ticket] = (struct rig_page){.queue = 1 + ticket % 3,
                                           .lane = ticket % 2,
                                           .first = 1 + ticket * 1000u,
                                           .count = count,
                                           .body_max = body_max,
                                           .sync = sync,
                                           .salt = rig_draw(&rig->dice)};
    return ticket;
}

static bool rig_submit(struct rig *rig, struct page_job *job)
{
    if (!job)
        return false;
    bool answered = job->type != PAGE_DROP;
    bool took = store_submit(rig->store, &job);
    assert_true(took == !job);
    page_job_free(&rig->heap, &job);
    rig->submitted += took && answered;
    return took;
}

static bool rig_write(struct rig *rig, unsigned ticket)
{
    struct page_job *job = rig_write_job(&rig->heap, &rig->pages[ticket]);
    if (job)
        job->ticket = ticket;
    return rig_submit(rig, job);
}

static bool rig_read(struct rig *rig, unsigned ticket)
{
    struct page_job *job = rig_read_job(&rig->pages[ticket]);
    if (job) {
        job->ticket = ticket;
        job->items[0].position = rig->pages[ticket].first;
    }
    return rig_submit(rig, job);
}

/* known_end: 0: of all pages that were answered. */
static bool rig_drop(struct rig *rig, uint32_t segment, uint64_t known_end)
{
    struct page_job *job = page_job_new(PAGE_DROP, 0);
    uint64_t end = 0;
    for (unsigned i = 0; i < rig->pages_len; i++) {
        const struct page_where *where = &rig->pages[i].where;
        if (where->segment == segment && (uint64_t)where->offset + where->len > end)
            end = (uint64_t)where->offset + where->len;
    }
    if (known_end)
        end = known_end;
    if (job)
        job->where = (struct page_where){.segment = segment, .len = (uint32_t)end};
    return rig_submit(rig, job);
}

/* The answer to the newest job: what the core would do with it. Returns err of the last one. */
static int rig_take(struct rig *rig)
{
    int err = 0;
    struct page_job *job;
    while ((job = store_take(rig->store)) != NULL) {
        struct rig_page *page = &rig->pages[job->ticket];
        err = job->err;
        rig->answered++;
        if (job->type == PAGE_WRITE) {
            assert_int_equal(rig->answers[job->ticket]++, 0);
            assert_false(rig_is_empty(job)); /* the messages are the job's */
            page->written = !err;
            page->where = job->where;
            assert_true(err ? job->where.len == 0 : job->where.segment && job->where.offset >= LAYOUT_BLOCK);
        } else if (err) {
            assert_true(rig_is_empty(job));
        } else {
            assert_true(rig_is_page(&rig->heap, page, job));
        }
        page_job_free(&rig->heap, &job);
    }
    return err;
}

static int rig_steps(struct rig *rig)
{
    int err = 0;
    while (store_step(rig->store))
        err = rig_take(rig);
    assert_int_equal(rig->answered, rig->submitted);
    return err;
}

static int rig_read_now(struct rig *rig, unsigned ticket)
{
    assert_true(rig_read(rig, ticket));
    return rig_steps(rig);
}

static unsigned rig_write_now(struct rig *rig, uint32_t count, uint32_t body_max, bool sync)
{
    unsigned ticket = rig_page_new(rig, count, body_max, sync);
    assert_true(rig_write(rig, ticket));
    assert_int_equal(rig_steps(rig), 0);
    assert_true(rig->pages[ticket].written);
    return ticket;
}

static void count_file(void *arg, const char *path)
{
    (void)path;
    ++*(unsigned *)arg;
}

static unsigned rig_files(struct rig *rig)
{
    unsigned count = 0;
    os_sim_each(rig->sim, "d/seg", count_file, &count);
    return count;
}

static const char *path_of(uint32_t segment)
{
    static char path[64];
    snprintf(path, sizeof path, "d/seg/s-%016x", segment);
    return path;
}

static bool rig_has(struct rig *rig, uint32_t segment)
{
    return os_sim_peek(rig->sim, path_of(segment)).len != 0;
}

/* The process dies, or the power goes. */
static void rig_die(struct rig *rig, bool power, uint64_t seed)
{
    os_sim_stop(rig->sim); /* so that closing cannot write */
    store_close(&rig->store);
    if (power)
        os_sim_crash(rig->sim, seed);
    else
        os_sim_kill(rig->sim);
    rig->submitted = rig->answered; /* what was under way is gone with it */
}

/* --------------------------------------------------------------------------------------------------------------- tests */

static void write_and_read(void **state)
{
    (void)state;
    struct rig *rig = rig_new(1);
    struct store_stats stats;
    rig_open(rig);
    assert_int_equal(rig_files(rig), 0); /* an empty store has no file */
    for (unsigned i = 0; i < 10; i++)
        assert_true(rig_write(rig, rig_page_new(rig, 1 + i * 3, 200, i % 2)));
    assert_int_equal(rig_steps(rig), 0);
    store_stats(rig->store, &stats);
    assert_int_equal(stats.pages_written, 10);
    assert_int_equal(stats.syncs, 1); /* one batch */
    assert_int_equal(os_sim_count(rig->sim, OS_SIM_PWRITE), 2);
    for (unsigned i = 0; i < 10; i++)
        assert_true(rig_read(rig, i));
    assert_int_equal(rig_steps(rig), 0);
    for (unsigned i = 1; i < 10; i++) { /* back to back */
        const struct page_where *a = &rig->pages[i - 1].where, *b = &rig->pages[i].where;
        assert_int_equal(a->segment, 1);
        assert_int_equal(b->offset, a->offset + a->len);
    }
    unsigned next = rig_write_now(rig, 5, 100, false);
    assert_int_equal(rig->pages[next].where.offset % LAYOUT_BLOCK, 0);
    assert_int_equal(rig_read_now(rig, next), 0);
    store_stats(rig->store, &stats);
    assert_int_equal(stats.syncs, 1); /* nobody asked for one */
    assert_int_equal(stats.pages_read, 11);
    assert_int_equal(stats.segments, 1);
    assert_int_equal(stats.pages_failed, 0);
    assert_int_equal(rig->faults, 0);
    rig_free(rig);
}

static void roll_over(void **state)
{
    (void)state;
    struct rig *rig = rig_new(2);
    rig_open(rig);
    for (unsigned i = 0; i < 60; i++)
        assert_true(rig_write(rig, rig_page_new(rig, 20, 1000, true)));
    assert_int_equal(rig_steps(rig), 0);
    assert_true(rig->pages[59].where.segment > 5);
    for (unsigned i = 0; i < 60; i++) {
        const struct page_where *where = &rig->pages[i].where;
        assert_true(where->offset + where->len <= SMALL_SEGMENT);
        assert_int_equal(rig_read_now(rig, i), 0);
    }
    /* a page that no file has room for has one for itself */
    unsigned huge = rig_write_now(rig, 20, 60000, true), after = rig_write_now(rig, 1, 10, true);
    assert_true(rig->pages[huge].where.len > SMALL_SEGMENT);
    assert_int_equal(rig->pages[huge].where.offset, LAYOUT_BLOCK);
    assert_int_equal(rig->pages[after].where.segment, rig->pages[huge].where.segment + 1);
    assert_int_equal(rig_read_now(rig, huge), 0);
    assert_int_equal(rig_read_now(rig, after), 0);
    rig_free(rig);
}

/* More files than descriptors, on a disk that has 64 of these for everybody. */
static void many_files(void **state)
{
    (void)state;
    struct rig *rig = rig_new(3);
    struct os *os = os_sim_os(rig->sim);
    int fds[50];
    rig_open(rig);
    for (unsigned i = 0; i < 100; i++)
        rig_write_now(rig, 1 + i % 2, 70000, false);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(rig_read_now(rig, i), 0);
    for (unsigned i = 99; i > 80; i--)
        assert_int_equal(rig_read_now(rig, i), 0);
    for (unsigned i = 0; i < 20; i++) { /* others use them up: readers are given up for one that is needed */
        fds[i] = -1;
        (void)os->open(os, path_of(1), OS_READ, &fds[i]);
    }
    while (os->open(os, path_of(1), OS_READ, &fds[20]) == 0)
        continue;
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(rig_read_now(rig, i), 0);
    rig_free(rig);
}

static void drop(void **state)
{
    (void)state;
    struct rig *rig = rig_new(4);
    rig_open(rig);
    while (rig->pages_len < 2 || rig->pages[rig->pages_len - 1].where.segment < 4)
        rig_write_now(rig, 20, 1000, true);
    unsigned last = rig->pages_len - 1, first = 0;
    assert_int_equal(rig_files(rig), 4);
    assert_int_equal(rig_read_now(rig, first), 0); /* a descriptor is open */
    assert_true(rig_drop(rig, 1, 0));
    rig_steps(rig);
    assert_false(rig_has(rig, 1));
    assert_int_equal(rig_read_now(rig, first), -EILSEQ);
    assert_non_null(strstr(rig->sentence, "seg/s-0000000000000001 at offset 4096"));
    assert_non_null(strstr(rig->sentence, "queue 1"));
    assert_non_null(strstr(rig->sentence, "missing"));
    /* not while a page in it is not known to the core */
    assert_true(rig_drop(rig, 4, rig->pages[last].where.offset));
    rig_steps(rig);
    assert_true(rig_has(rig, 4));
    /* the file that is being written, with a write behind it */
    unsigned next = rig_page_new(rig, 3, 100, true);
    assert_true(rig_drop(rig, 4, 0));
    assert_true(rig_write(rig, next));
    rig_steps(rig);
    assert_false(rig_has(rig, 4));
    assert_int_equal(rig->pages[next].where.segment, 5);
    assert_int_equal(rig_read_now(rig, next), 0);
    /* what is not there may be dropped again */
    assert_true(rig_drop(rig, 4, 0) && rig_drop(rig, 77, 0));
    rig_steps(rig);
    struct store_stats stats;
    store_stats(rig->store, &stats);
    assert_int_equal(stats.segments, 3);
    rig_free(rig);
}

/* While somebody copies them files that are dropped stay; afterwards they go. */
static void held_files_stay(void **state)
{
    (void)state;
    struct rig *rig = rig_new(5);
    rig_open(rig);
    while (rig->pages_len < 2 || rig->pages[rig->pages_len - 1].where.segment < 4)
        rig_write_now(rig, 20, 1000, true);
    store_hold(rig->store, true);
    rig_steps(rig);
    assert_true(store_held(rig->store));
    assert_true(rig_drop(rig, 1, 0) && rig_drop(rig, 2, 0));
    rig_steps(rig);
    assert_true(rig_has(rig, 1) && rig_has(rig, 2));
    struct store_stats stats;
    store_stats(rig->store, &stats);
    assert_int_equal(stats.segments, 2); /* as far as the store is concerned they are gone */
    store_hold(rig->store, false);
    rig_steps(rig);
    assert_false(store_held(rig->store) || rig_has(rig, 1) || rig_has(rig, 2));
    assert_true(rig_has(rig, 3) && rig_has(rig, 4));
    rig_free(rig);
}

/* Reads overtake writes, also a page that is bigger than a batch. */
static void reads_first(void **state)
{
    (void)state;
    struct rig *rig = rig_new(5);
    struct page_job *job;
    rig->options.segment_bytes_max = 64u << 20;
    rig_open(rig);
    unsigned page = rig_write_now(rig, 3, 100, false);
    for (unsigned i = 0; i < 40; i++)
        assert_true(rig_write(rig, rig_page_new(rig, 40, 30000, false)));
    assert_true(rig_read(rig, page));
    assert_true(store_step(rig->store));
    job = store_take(rig->store);
    assert_int_equal(job->type, PAGE_READ);
    page_job_free(&rig->heap, &job);
    rig->answered++;
    unsigned batch = rig->answered;
    rig_take(rig);
    batch = rig->answered - batch;
    assert_true(batch > 1 && batch < 20); /* not all of the writes */
    rig_steps(rig);
    rig_free(rig);
}

static void bounded(void **state)
{
    (void)state;
    struct rig *rig = rig_new(6);
    rig_open(rig);
    unsigned page = rig_write_now(rig, 1, 0, false), count = 0;
    while (rig_read(rig, page))
        count++;
    assert_int_equal(count, STORE_JOBS_MAX);
    while (store_step(rig->store)) /* without taking what is finished */
        continue;
    assert_false(rig_read(rig, page));
    rig_take(rig);
    assert_true(rig_read(rig, page));
    assert_int_equal(rig_steps(rig), 0);
    while (rig_drop(rig, 99, 1))
        count++;
    assert_int_equal(count, 2 * STORE_JOBS_MAX);
    rig_steps(rig);
    assert_true(rig_read(rig, page));
    rig_free(rig); /* with a job inside */
}

static void restart(void **state)
{
    (void)state;
    struct rig *rig = rig_new(7);
    rig_open(rig);
    for (unsigned i = 0; i < 30; i++)
        rig_write_now(rig, 20, 1000, true);
    uint32_t last = rig->pages[29].where.segment;
    for (unsigned i = 0; i < 30; i++) /* nobody names what is in the second and in the last */
        if (rig->pages[i].where.segment == 2 || rig->pages[i].where.segment == last)
            rig->pages[i].written = false;
    os_sim_put(rig->sim, "d/seg/notes", slice_str("not ours"));
    os_sim_put(rig->sim, path_of(0x20), slice_str("of a run that was cut"));
    rig_die(rig, false, 0);
    rig_open(rig);
    assert_false(rig_has(rig, 2) || rig_has(rig, last) || rig_has(rig, 0x20));
    assert_int_equal(os_sim_peek(rig->sim, "d/seg/notes").len, 8);
    for (unsigned i = 0; i < 30; i++)
        if (rig->pages[i].written)
            assert_int_equal(rig_read_now(rig, i), 0);
    unsigned next = rig_write_now(rig, 1, 10, true);
    assert_int_equal(rig->pages[next].where.segment, 0x21); /* above all that was seen */
    assert_true(rig_drop(rig, 1, 1));                       /* one of an earlier run needs no known end */
    rig_steps(rig);
    assert_false(rig_has(rig, 1));
    rig_free(rig);
}

static void refused_starts(void **state)
{
    (void)state;
    struct rig *rig = rig_new(8);
    rig_open(rig);
    unsigned page = rig_write_now(rig, 5, 500, true);
    rig_die(rig, false, 0);
    struct {
        const char *phrase;
        uint64_t offset;
        uint8_t mask;
    } rows[] = {{"belongs to another data folder", 0, 0},
                {"header is damaged", 33, 1},
                {"is too short", 0, 0},
                {"in truth", 0, 0},
                {"missing", 0, 0}};
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct os_sim *whole = os_sim_clone(rig->sim);
        struct slice file = os_sim_peek(rig->sim, path_of(1));
        rig->options.uuid[3] ^= i == 0;
        if (rows[i].mask)
            os_sim_flip(rig->sim, path_of(1), rows[i].offset, rows[i].mask);
        if (i == 2)
            os_sim_put(rig->sim, path_of(1), slice_of(file.ptr, LAYOUT_BLOCK));
        if (i == 3) {
            os_sim_put(rig->sim, path_of(2), file);
            rig->pages[page].where.segment = 2;
        }
        if (i == 4)
            os_sim_remove(rig->sim, path_of(1));
        int err = rig_open_keeping(rig, true);
        if (err != -EILSEQ || !strstr(rig->why, rows[i].phrase))
            fail_msg("row %u: %d, %s", i, err, rig->why);
        assert_true(i == 4 || rig_has(rig, 1)); /* nothing was swept */
        rig->options.uuid[3] ^= i == 0;
        rig->pages[page].where.segment = 1;
        os_sim_free(&rig->sim);
        rig->sim = whole;
        rig->options.os = os_sim_os(whole);
    }
    rig->options.segment_bytes_max = 4096;
    assert_int_equal(rig_open_keeping(rig, true), -EINVAL);
    rig->options.segment_bytes_max = 0;
    rig_open(rig);
    assert_int_equal(rig_read_now(rig, page), 0);
    rig_free(rig);
}

static void flipped_bits(void **state)
{
    (void)state;
    struct rig *rig = rig_new(9);
    rig_open(rig);
    unsigned page = rig_write_now(rig, 3, 40, true);
    const struct page_where where = rig->pages[page].where;
    for (uint64_t at = where.offset; at < where.offset + where.len; at++) {
        uint8_t mask = (uint8_t)(1 << at % 8);
        assert_true(os_sim_flip(rig->sim, path_of(where.segment), at, mask));
        assert_int_equal(rig_read_now(rig, page), -EILSEQ);
        assert_true(os_sim_flip(rig->sim, path_of(where.segment), at, mask));
    }
    assert_int_equal(rig_read_now(rig, page), 0);
    struct rig_page right = rig->pages[page];
    rig->pages[page].where.offset += LAYOUT_BLOCK; /* behind the end */
    assert_int_equal(rig_read_now(rig, page), -EILSEQ);
    rig->pages[page].where = (struct page_where){.segment = 1, .offset = UINT32_MAX, .len = UINT32_MAX};
    assert_int_equal(rig_read_now(rig, page), -EILSEQ);
    rig->pages[page].where = (struct page_where){0};
    assert_int_equal(rig_read_now(rig, page), -EILSEQ);
    rig->pages[page] = right;
    assert_int_equal(rig_read_now(rig, page), 0);
    rig_free(rig);
}

static char *inspected(struct rig *rig, bool pages)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    assert_int_equal(store_inspect(os_sim_os(rig->sim), "d", pages, false, out), 0);
    fclose(out);
    return text;
}

static void inspected_has(struct rig *rig, bool pages, const char *phrase, bool there)
{
    char *text = inspected(rig, pages);
    if ((strstr(text, phrase) != NULL) != there)
        fail_msg("%s \"%s\":\n%s", there ? "without" : "with", phrase, text);
    free(text);
}

static void inspection(void **state)
{
    (void)state;
    struct rig *rig = rig_new(16);
    inspected_has(rig, true, "segment", false);
    rig_open(rig);
    inspected_has(rig, true, "0 segment files, 0 pages", true);
    for (unsigned i = 0; i < 20; i++) {
        rig_write(rig, rig_page_new(rig, 4, 400, true));
        if (i % 3 == 0)
            rig_steps(rig);
    }
    rig_steps(rig);
    rig_write_now(rig, 20, 60000, true); /* a body in several pieces */
    inspected_has(rig, true, "2 segment files, 21 pages, 100 messages", true);
    inspected_has(rig, true, "page at 4096      queue 1 lane 0 messages 4 positions 1 to", true);
    inspected_has(rig, true, "  no page", false);
    inspected_has(rig, true, "whole", false);
    inspected_has(rig, false, "page at", false);
    const struct page_where *where = &rig->pages[4].where;
    assert_true(os_sim_flip(rig->sim, path_of(1), where->offset + 100, 1));
    inspected_has(rig, false, "page at", true);
    inspected_has(rig, false, "NOT WHOLE", true);
    assert_true(os_sim_flip(rig->sim, path_of(1), where->offset + 100, 1));
    assert_true(os_sim_flip(rig->sim, path_of(1), LAYOUT_BLOCK + 20, 1)); /* a header: the walk goes on behind it */
    inspected_has(rig, true, "from 4096 to ", true);
    inspected_has(rig, true, "2 segment files, 20 pages", true);
    assert_true(os_sim_flip(rig->sim, path_of(1), LAYOUT_BLOCK + 20, 1));
    os_sim_put(rig->sim, path_of(9), slice_str("x"));
    inspected_has(rig, true, "no header", true);
    rig_free(rig);
}

/* -------------------------------------------------------------------------------------------------------------- faults */

/* Some of everything. Every job that was taken in is answered, whatever fails. */
static void work(struct rig *rig)
{
    unsigned from = rig->pages_len;
    for (unsigned i = 0; i < 12; i++) {
        rig_write(rig, rig_page_new(rig, 1 + i, i == 7 ? 30000 : 600, i % 3 != 0));
        if (i % 2)
            rig_steps(rig);
    }
    rig_steps(rig);
    for (unsigned i = from; i < rig->pages_len; i++)
        if (rig->pages[i].written)
            rig_read(rig, i);
    rig_steps(rig);
    uint32_t segment = rig->pages[from].where.segment;
    for (unsigned i = 0; i < rig->pages_len && segment; i++)
        if (rig->pages[i].where.segment == segment)
            rig->pages[i].written = false;
    if (segment)
        rig_drop(rig, segment, 0);
    rig_write(rig, rig_page_new(rig, 2, 100, true));
    rig_steps(rig);
}

static void all_readable(struct rig *rig, bool synced_only)
{
    for (unsigned i = 0; i < rig->pages_len; i++)
        if (rig->pages[i].written && (rig->pages[i].sync || !synced_only) && rig_read_now(rig, i))
            fail_msg("page %u: %s", i, rig->sentence);
}

static void every_io_fails(void **state)
{
    (void)state;
    static const struct {
        int err;
        bool for_ever;
    } rows[] = {{EIO, false}, {ENOSPC, false}, {EIO, true}, {ENOSPC, true}, {EMFILE, false}};
    unsigned hits = 0;
    for (unsigned row = 0; row < ARRAY_LEN(rows); row++)
        for (uint64_t n = 1;; n++) {
            struct rig *rig = rig_new(10);
            os_sim_fail(rig->sim, OS_SIM_ALL, n, rows[row].err, rows[row].for_ever);
            int err = rig_open_keeping(rig, true);
            if (!err)
                work(rig);
            bool hit = os_sim_failures_hit(rig->sim) > 0;
            os_sim_fail(rig->sim, 0, 0, 0, false);
            if (!err) {
                rig_write_now(rig, 3, 100, true); /* it works again */
                all_readable(rig, true);
                rig_die(rig, true, n);
                rig_open(rig);
                all_readable(rig, true);
            }
            rig_free(rig);
            hits += hit;
            if (!hit)
                break;
        }
    assert_true(hits > 200);
}

static void every_allocation_fails(void **state)
{
    (void)state;
    unsigned hits = 0;
    for (unsigned for_ever = 0; for_ever < 2; for_ever++)
        for (uint64_t n = 1;; n++) {
            struct rig *rig = rig_new(11);
            mem_fail_at(n, for_ever);
            int err = rig_open_keeping(rig, true);
            if (!err)
                for (unsigned i = 0; i < 6; i++) {
                    unsigned ticket = rig_page_new(rig, 1 + i * 3, i == 4 ? 300000 : 9000, i % 2);
                    rig_write(rig, ticket);
                    while (store_step(rig->store))
                        continue;
                    struct page_job *job;
                    while ((job = store_take(rig->store)) != NULL) { /* comparing needs memory: only noted here */
                        rig->answered++;
                        if (job->type == PAGE_WRITE && !job->err) {
                            rig->pages[job->ticket].written = true;
                            rig->pages[job->ticket].where = job->where;
                        }
                        page_job_free(&rig->heap, &job);
                    }
                    rig_read(rig, ticket);
                }
            bool hit = mem_failures_hit() > 0;
            mem_fail_at(0, false);
            assert_int_equal(err && err != -ENOMEM, 0);
            if (!err) {
                rig_steps(rig);
                rig_write_now(rig, 3, 100, true);
                all_readable(rig, false);
            }
            rig_free(rig);
            hits += hit;
            if (!hit)
                break;
        }
    assert_true(hits > 50);
}

/* A disk that is full: writes fail, what is there stays readable, and room that is made is used. */
static void full_disk(void **state)
{
    (void)state;
    struct rig *rig = rig_new(12);
    rig_open(rig);
    os_sim_capacity(rig->sim, 400 * 1024);
    unsigned failed = 0;
    for (unsigned i = 0; i < 60; i++) {
        assert_true(rig_write(rig, rig_page_new(rig, 20, 1000, true)));
        int err = rig_steps(rig);
        assert_true(err == 0 || err == -ENOSPC);
        failed += err != 0;
    }
    assert_true(failed > 5 && failed < 40);
    assert_int_equal(rig->faults, 1); /* the same trouble is told once */
    assert_non_null(strstr(rig->sentence, "No space left"));
    all_readable(rig, true);
    assert_true(rig_drop(rig, 1, 0));
    for (unsigned i = 0; i < 60; i++)
        if (rig->pages[i].where.segment == 1)
            rig->pages[i].written = false;
    rig_steps(rig);
    struct os *os = os_sim_os(rig->sim);
    assert_int_equal(os->sync_dir(os, "d/seg"), 0); /* only then this disk has the room */
    rig_write_now(rig, 20, 1000, true);
    all_readable(rig, true);
    rig_die(rig, true, 5);
    rig_open(rig);
    all_readable(rig, true);
    rig_free(rig);
}

/* After a failed sync a later sync says "fine" and has saved nothing: the file must not be gone on with. */
static void failed_sync(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct rig *rig = rig_new(13);
        rig_open(rig);
        unsigned before = rig_write_now(rig, 3, 300, true), page = rig_page_new(rig, 3, 300, true);
        os_sim_fail(rig->sim, 1u << OS_SIM_FDATASYNC, 1, EIO, false);
        assert_true(rig_write(rig, page));
        assert_int_equal(rig_steps(rig), -EIO);
        unsigned after = rig_write_now(rig, 3, 300, true);
        assert_true(rig->pages[after].where.segment > rig->pages[before].where.segment);
        rig_die(rig, true, seed);
        rig_open(rig);
        all_readable(rig, true);
        rig_free(rig);
    }
}

/* The power goes at every disk operation, with several outcomes of what the disk kept. */
static void every_power_cut(void **state)
{
    (void)state;
    unsigned cuts = 0;
    for (int64_t k = 0;; k++) {
        bool cut = true;
        for (uint64_t seed = 0; seed < 12 && cut; seed++) {
            struct rig *rig = rig_new(14);
            os_sim_cut_after(rig->sim, k);
            if (rig_open_keeping(rig, true) == 0) {
                work(rig);
                work(rig);
            }
            cut = os_sim_is_cut(rig->sim);
            rig_die(rig, true, (uint64_t)k * 1000 + seed);
            if (seed % 3 == 0) { /* and once more during the start */
                os_sim_cut_after(rig->sim, (int64_t)seed / 3);
                int err = rig_open_keeping(rig, true);
                assert_true(!err || os_sim_is_cut(rig->sim));
                rig_die(rig, true, seed);
            }
            rig_open(rig);
            all_readable(rig, true);
            work(rig);
            all_readable(rig, false);
            rig_free(rig);
            cuts += cut;
        }
        if (!cut)
            break;
    }
    assert_true(cuts > 400);
}

/* One message of a MiB or more. */
static unsigned rig_page_large(struct rig *rig)
{
    unsigned ticket = rig_page_new(rig, 1, 1500000, true);
    for (bool large = false; !large; rig->pages[ticket].salt += !large) {
        struct page_item item;
        assert_true(rig_item(&rig->heap, &rig->pages[ticket], 0, &item));
        large = msg_size(item.msg) >= PAGE_OWN_BYTES;
        msg_unref(&rig->heap, item.msg);
    }
    return ticket;
}

/* What is around it stays in the file it was in, or goes to the next one. */
static void large_work(struct rig *rig)
{
    unsigned from = rig->pages_len;
    for (unsigned i = 0; i < 5; i++) {
        rig_write(rig, i % 2 ? rig_page_large(rig) : rig_page_new(rig, 3, 200, true));
        if (i == 2)
            rig_steps(rig);
    }
    rig_steps(rig);
    for (unsigned i = from; i < rig->pages_len; i++)
        if (rig->pages[i].written)
            rig_read(rig, i);
    rig_steps(rig);
}

static void large_pages(void **state)
{
    (void)state;
    struct rig *rig = rig_new(17);
    rig_open(rig);
    large_work(rig);
    assert_int_equal(rig_files(rig), 5);
    all_readable(rig, true);
    for (unsigned i = 0; i < 5; i++)
        for (unsigned k = 0; k < i; k++)
            assert_int_not_equal(rig->pages[i].where.segment, rig->pages[k].where.segment);
    uint32_t large = rig->pages[1].where.segment;
    assert_true(rig_drop(rig, large, 0));
    rig_steps(rig);
    assert_false(rig_has(rig, large));
    rig_die(rig, true, 1);
    rig->pages[1].written = false;
    rig_open(rig);
    all_readable(rig, true);
    rig_free(rig);
}

static void every_io_of_a_large_page_fails(void **state)
{
    (void)state;
    unsigned hits = 0;
    for (unsigned row = 0; row < 3; row++)
        for (uint64_t n = 1;; n++) {
            struct rig *rig = rig_new(18);
            rig_open(rig);
            os_sim_fail(rig->sim, row == 2 ? 0 : OS_SIM_ALL, n, row ? ENOSPC : EIO, false);
            os_sim_cut_after(rig->sim, row == 2 ? (int64_t)n : -1);
            large_work(rig);
            bool hit = os_sim_failures_hit(rig->sim) > 0 || os_sim_is_cut(rig->sim);
            os_sim_fail(rig->sim, 0, 0, 0, false);
            if (row != 2)
                all_readable(rig, true);
            rig_die(rig, true, n);
            os_sim_cut_after(rig->sim, -1);
            rig_open(rig);
            all_readable(rig, true);
            rig_free(rig);
            hits += hit;
            if (!hit)
                break;
        }
    assert_true(hits > 60);
}

/* -------------------------------------------------------------------------------------------------------------- thread */

static void set_event(void *arg)
{
    os_event_set(arg);
}

static void threaded(void **state)
{
    (void)state;
    struct rig *rig = rig_new(15);
    struct os_event done = {0};
    rig->options.on_fault = NULL;
    rig->options.on_done = set_event;
    rig->options.arg = &done;
    rig_open(rig);
    assert_int_equal(store_start(rig->store), 0);
    unsigned wrote = 0, read = 0;
    while (rig->answered < 600) {
        for (unsigned i = 0; i < 5 && wrote < 300; i++, wrote++)
            assert_true(rig_write(rig, rig_page_new(rig, 1 + wrote % 9, 500, wrote % 2)));
        for (; read < 300 && rig->pages[read].written; read++)
            assert_true(rig_read(rig, read));
        store_wake(rig->store);
        os_event_wait(&done, NS_PER_S);
        assert_int_equal(rig_take(rig), 0);
    }
    assert_true(rig_write(rig, rig_page_new(rig, 1, 500, true)));
    store_stop(rig->store); /* finishes what was submitted */
    rig_take(rig);
    assert_int_equal(rig->answered, rig->submitted);
    rig_free(rig);
}

/* Messages that were read and are freed when the store has nothing to do: their memory goes back, or an alarm that it has
 * raised would keep away the very publishers who give the store something to do. */
static void freed_while_asleep(void **state)
{
    (void)state;
    enum { READS = 40 };
    struct rig *rig = rig_new(16);
    struct page_job *read[READS] = {0};
    struct os_event done = {0};
    rig->options.on_fault = NULL;
    rig->options.on_done = set_event;
    rig->options.arg = &done;
    rig_open(rig);
    assert_int_equal(store_start(rig->store), 0);
    size_t before = mem_in_use();
    unsigned page = rig_page_new(rig, 400, 500, true);
    assert_true(rig_write(rig, page));
    store_wake(rig->store);
    while (!rig->pages[page].written) {
        os_event_wait(&done, NS_PER_S);
        rig_take(rig);
    }
    for (unsigned i = 0; i < READS; i++) {
        assert_true(rig_read(rig, page));
        store_wake(rig->store);
        while (!(read[i] = store_take(rig->store)))
            os_event_wait(&done, NS_PER_S);
    }
    size_t most = mem_in_use();
    assert_true(most > before + (6u << 20));
    os_event_wait(&done, NS_PER_S / 10); /* it sleeps */
    for (unsigned i = 0; i < READS; i++)
        page_job_free(&rig->heap, &read[i]);
    for (unsigned i = 0; i < 30 && mem_in_use() > before + (4u << 20); i++)
        os_event_wait(&done, NS_PER_S / 10);
    assert_true(mem_in_use() <= before + (4u << 20));
    store_stop(rig->store);
    rig_free(rig);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(write_and_read),
        cmocka_unit_test(roll_over),
        cmocka_unit_test(many_files),
        cmocka_unit_test(drop),
        cmocka_unit_test(held_files_stay),
        cmocka_unit_test(reads_first),
        cmocka_unit_test(bounded),
        cmocka_unit_test(restart),
        cmocka_unit_test(refused_starts),
        cmocka_unit_test(flipped_bits),
        cmocka_unit_test(inspection),
        cmocka_unit_test(every_io_fails),
        cmocka_unit_test(every_allocation_fails),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(failed_sync),
        cmocka_unit_test(every_power_cut),
        cmocka_unit_test(large_pages),
        cmocka_unit_test(every_io_of_a_large_page_fails),
        cmocka_unit_test(threaded),
        cmocka_unit_test(freed_while_asleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
