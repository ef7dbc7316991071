/* The background scrub, see scrub.h. Thread: its own; published: stop, figures.
 *
 * Pace: after each piece it sleeps until as much time has passed as the bytes read so far should have taken. A file that
 * vanishes meanwhile was not needed any more, and is no damage; neither is a place in an old journal file once the start has
 * moved behind it. A segment is walked as its pages stand, back to back and else at the next block; where nothing whole
 * stands the core is asked which pages of it are needed, and these are read one by one.
 */
#include "store/scrub.h"

#include "base/check.h"
#include "base/mem.h"
#include "journal/recover.h"
#include "journal/walk.h"
#include "os/thread.h"
#include "store/page_format.h"
#include "store/stream_format.h"
#include "store/stream_verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define WINDOW_BYTES (256u * 1024)
#define PAGES_MAX 4096u
#define ADVICE_JOURNAL                                                                                                 \
    "the running broker has it in memory: run `millrace compact`, which writes it anew, and look at the disk"
#define ADVICE_PAGE                                                                                                    \
    "its queue will stop here: consume what is before it, or stop the broker and run `millrace salvage`, or restore "  \
    "a "                                                                                                               \
    "backup; and look at the disk"
#define ADVICE_STREAM                                                                                                  \
    "readers stop here and can go on behind this file: restore a backup to have it all; and look at the disk"

enum figure { FIGURE_ROUNDS, FIGURE_FILES, FIGURE_BYTES, FIGURE_DAMAGED, FIGURE_COUNT };

struct scrub {
    struct scrub_options options;
    struct os *os;
    struct os_event work;
    struct os_thread thread;
    bool threaded;
    _Atomic bool stop;
    _Atomic uint64_t figures[FIGURE_COUNT];

    /* its thread */
    mono_t began;
    uint64_t since_began;
    char path[WAL_PATH_MAX], name[STREAM_NAME_LEN + 16];
    int fd;
    bool direct;
    uint64_t size;
    uint8_t *window; /* bytes [at, at + len) of the file */
    uint64_t at;
    size_t len;
    uint8_t *long_page;
    size_t long_cap;
    uint64_t *numbers;
    size_t numbers_len, numbers_cap;
    struct scrub_page *pages;
};

static void count(struct scrub *s, enum figure figure, uint64_t more)
{
    atomic_fetch_add_explicit(&s->figures[figure], more, memory_order_relaxed);
}

static bool stopped(const struct scrub *s)
{
    return atomic_load_explicit(&s->stop, memory_order_acquire);
}

/* So much more was read. */
static void pace(void *arg, uint64_t bytes)
{
    struct scrub *s = arg;
    count(s, FIGURE_BYTES, bytes);
    s->since_began += bytes;
    if (!s->threaded || !s->options.bytes_per_second)
        return;
    double took = (double)s->since_began / (double)s->options.bytes_per_second * (double)NS_PER_S;
    mono_t wait = s->began + (mono_t)took - s->os->now_mono(s->os);
    if (wait > 0 && !stopped(s))
        os_event_wait(&s->work, wait);
}

static void tell(struct scrub *s, uint64_t offset, uint64_t len, const struct scrub_page *page, const char *what,
                 const char *advice)
{
    struct scrub_damage damage = {
        .file = s->name, .offset = offset, .len = len, .page = page, .what = what, .advice = advice};
    count(s, FIGURE_DAMAGED, 1);
    if (s->options.on_damage)
        s->options.on_damage(s->options.arg, &damage);
}

/* --------------------------------------------------------------------------------------------------------------- files */

/* 1: open; 0: it is not there any more; or a negative errno. */
static int open_file(struct scrub *s, const char *folder, const char *name)
{
    snprintf(s->name, sizeof s->name, "%s/%s", folder, name);
    int n = snprintf(s->path, sizeof s->path, "%s/%s", s->options.dir, s->name);
    if (n <= 0 || (size_t)n >= sizeof s->path)
        return -ENAMETOOLONG;
    s->direct = true;
    int err = s->os->open(s->os, s->path, OS_READ | OS_DIRECT, &s->fd);
    if (err == -EINVAL) {
        s->direct = false;
        err = s->os->open(s->os, s->path, OS_READ, &s->fd);
    }
    if (err)
        return err == -ENOENT ? 0 : err;
    s->len = 0;
    err = s->os->size(s->os, s->fd, &s->size);
    if (err)
        s->os->close(s->os, s->fd);
    count(s, FIGURE_FILES, err == 0);
    return err ? err : 1;
}

static int64_t read_window(struct scrub *s, uint64_t at)
{
    int64_t got = s->os->pread(s->os, s->fd, s->window, WINDOW_BYTES, at);
    if (got != -EINVAL || !s->direct)
        return got;
    s->os->close(s->os, s->fd); /* a file whose length is no multiple of the block */
    s->direct = false;
    int err = s->os->open(s->os, s->path, OS_READ, &s->fd);
    if (err) {
        s->fd = -1;
        return err;
    }
    return s->os->pread(s->os, s->fd, s->window, WINDOW_BYTES, at);
}

/* Copies len bytes from offset on. 1, 0: the file is shorter, or a negative errno. */
static int fetch(struct scrub *s, uint64_t offset, void *ret, size_t len)
{
    uint8_t *to = ret;
    if (offset > s->size || len > s->size - offset)
        return 0;
    while (len) {
        if (offset < s->at || offset >= s->at + s->len) {
            uint64_t at = offset / LAYOUT_BLOCK * LAYOUT_BLOCK;
            int64_t got = stopped(s) ? -ECANCELED : read_window(s, at);
            if (got < 0)
                return (int)got;
            s->at = at;
            s->len = (size_t)got;
            pace(s, (uint64_t)got);
            if (offset >= s->at + s->len)
                return 0;
        }
        size_t have = (size_t)(s->at + s->len - offset), n = have < len ? have : len;
        memcpy(to, s->window + (offset - s->at), n);
        to += n;
        offset += n;
        len -= n;
    }
    return 1;
}

static int note_name(void *arg, const char *name)
{
    struct scrub *s = arg;
    uint64_t number;
    if (!wal_name(name, 's', &number) || number == 0 || number > UINT32_MAX)
        return 0;
    if (s->numbers_len == s->numbers_cap) {
        size_t cap = s->numbers_cap ? s->numbers_cap * 2 : 64;
        uint64_t *numbers = mem_realloc(s->numbers, cap * sizeof *numbers);
        if (!numbers)
            return -ENOMEM;
        s->numbers = numbers;
        s->numbers_cap = cap;
    }
    s->numbers[s->numbers_len++] = number;
    return 0;
}

static int compare_numbers(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* ------------------------------------------------------------------------------------------------------------ segments */

/* Is the page at the offset whole? 1, 0, or a negative errno; *ret_len: its bytes, when its header can be believed. */
static int look_at_page(struct scrub *s, uint32_t segment, uint64_t offset, uint64_t *ret_len)
{
    uint8_t bytes[PAGE_HEADER];
    struct page_head head;
    uint32_t seed = page_seed(s->options.uuid, segment, (uint32_t)offset);
    int got = offset <= UINT32_MAX ? fetch(s, offset, bytes, sizeof bytes) : 0;
    *ret_len = 0;
    if (got <= 0 || page_head_get(bytes, seed, &head) != LAYOUT_GOOD)
        return got < 0 ? got : 0;
    *ret_len = PAGE_HEADER + (uint64_t)head.body_len;
    if (head.body_len > s->long_cap) {
        mem_free(s->long_page);
        s->long_cap = 0;
        s->long_page = mem_alloc(head.body_len);
        if (!s->long_page)
            return -ENOMEM;
        s->long_cap = head.body_len;
    }
    got = fetch(s, offset + PAGE_HEADER, s->long_page, head.body_len);
    if (got <= 0)
        return got;
    return layout_crc(seed, s->long_page, head.body_len) == head.body_crc;
}

/* Something in the segment is not whole: which of the pages that somebody needs are not? */
static int examine_needed(struct scrub *s, uint32_t segment, bool head)
{
    int known = s->options.pages(s->options.arg, segment, s->pages, PAGES_MAX);
    if (!head && known > 0)
        tell(s, 0, LAYOUT_BLOCK, &s->pages[0], "the file's header is damaged, and a start would refuse", ADVICE_PAGE);
    for (int i = 0; i < known; i++) {
        const struct scrub_page *page = &s->pages[i];
        uint64_t len;
        int whole = look_at_page(s, segment, page->where.offset, &len);
        if (whole < 0 && whole != -EIO)
            return whole;
        if (whole != 1 || len != page->where.len)
            tell(s, page->where.offset, page->where.len, page,
                 whole < 0 ? "the disk does not give this page" : "this page is damaged", ADVICE_PAGE);
    }
    return 0;
}

static int scrub_segment(struct scrub *s, uint32_t segment)
{
    uint8_t block[LAYOUT_BLOCK];
    struct segment_head head;
    uint64_t at = LAYOUT_BLOCK, len;
    int got = fetch(s, 0, block, sizeof block);
    bool good = got > 0 && segment_head_get(block, &head) == LAYOUT_GOOD && head.segment == segment &&
                memcmp(head.uuid, s->options.uuid, LAYOUT_UUID_LEN) == 0;
    bool suspect = !good;
    while ((got >= 0 || got == -EIO) && at < s->size) {
        got = look_at_page(s, segment, at, &len);
        if (got == 1) {
            at += len;
            continue;
        }
        bool filled = at % LAYOUT_BLOCK != 0; /* what a last block is filled up with */
        suspect = suspect || !filled || len || got < 0;
        at = len ? at + len : (at / LAYOUT_BLOCK + 1) * LAYOUT_BLOCK;
    }
    if (got < 0 && got != -EIO)
        return got;
    return suspect ? examine_needed(s, segment, good) : 0;
}

/* All but the last, which is being written, or was when the broker stopped. */
static int scrub_segments(struct scrub *s)
{
    char folder[WAL_PATH_MAX], name[32];
    int n = snprintf(folder, sizeof folder, "%s/seg", s->options.dir);
    CHECK(n > 0 && (size_t)n < sizeof folder);
    s->numbers_len = 0;
    int err = s->os->list(s->os, folder, note_name, s);
    if (err)
        return err == -ENOENT ? 0 : err;
    if (s->numbers_len)
        qsort(s->numbers, s->numbers_len, sizeof *s->numbers, compare_numbers);
    for (size_t i = 0; i + 1 < s->numbers_len && !err && !stopped(s); i++) {
        snprintf(name, sizeof name, "s-%016" PRIx64, s->numbers[i]);
        int open = open_file(s, "seg", name);
        if (open <= 0) {
            err = open;
            continue;
        }
        err = scrub_segment(s, (uint32_t)s->numbers[i]);
        if (s->fd >= 0)
            s->os->close(s->os, s->fd);
    }
    return err;
}

/* ------------------------------------------------------------------------------------------------------------- journal */

static int newest_super(struct scrub *s, struct layout_super *ret)
{
    bool any = false;
    for (unsigned i = 0; i < 2; i++) {
        enum super_state state;
        struct layout_super super;
        int err = recover_super(s->os, s->options.dir, "ab"[i], &state, &super);
        if (err)
            return err;
        if (state == SUPER_GOOD && (!any || super.generation > ret->generation)) {
            *ret = super;
            any = true;
        }
    }
    return any ? 0 : -EILSEQ;
}

/* From the start to where the journal was synced when the walk began; what came later was written just now. */
static int scrub_journal(struct scrub *s)
{
    char folder[WAL_PATH_MAX];
    struct layout_super super = {0};
    struct layout_group group;
    struct slice body;
    struct walk walk = {0};
    int n = snprintf(folder, sizeof folder, "%s/wal", s->options.dir);
    CHECK(n > 0 && (size_t)n < sizeof folder);
    int err = newest_super(s, &super), got = 0;
    lsn_t durable = s->options.durable(s->options.arg);
    if (!err)
        err = walk_open(&walk, s->os, folder, super.uuid, super.start_seq, super.start_lsn, NULL, NULL);
    while (!err && !stopped(s) && walk.lsn <= durable && (got = walk_next(&walk, &group, &body)) > 0)
        pace(s, layout_group_bytes(group.len));
    count(s, FIGURE_FILES, walk.in_file ? walk.seq - walk.first_seq + 1 : 0);
    bool ended = !err && got == 0 && !stopped(s) && walk.lsn <= durable;
    err = err ? err : got < 0 ? got : 0;
    if (ended)
        err = newest_super(s, &super);
    if (ended && !err &&
        super.start_seq <= walk.seq) { /* else the file is not needed any more, and may be used again */
        snprintf(s->name, sizeof s->name, "wal/w-%016" PRIx64, walk.seq);
        tell(s, walk.in_file ? walk.offset : 0, 0, NULL, walk.reason, ADVICE_JOURNAL);
    }
    walk_close(&walk);
    return err;
}

/* ------------------------------------------------------------------------------------------------------------- streams */

/* A file with a good trailer is sealed, and the trailer says what is in it. */
static int scrub_stream_file(struct scrub *s, const struct stream_name *name)
{
    uint8_t bytes[STREAM_TRAILER];
    struct stream_trailer trailer;
    uint32_t crc;
    int got = s->size > LAYOUT_BLOCK + STREAM_TRAILER ? fetch(s, s->size - STREAM_TRAILER, bytes, sizeof bytes) : 0;
    if (got <= 0 || stream_trailer_get(bytes, &trailer, &crc) != LAYOUT_GOOD || trailer.bytes > s->size)
        return got < 0 ? got : 0;
    struct stream_verify verify = {
        .os = s->os,
        .uuid = s->options.uuid,
        .stream = name->stream,
        .partition = name->partition,
        .extent = {.base = name->base, .end = trailer.end, .generation = name->generation, .bytes = trailer.bytes},
        .sealed = true,
        .on_bytes = pace,
        .arg = s};
    int fd, err = s->os->open(s->os, s->path, OS_READ, &fd);
    if (err)
        return err == -ENOENT ? 0 : err;
    err = stream_verify(&verify, fd);
    s->os->close(s->os, fd);
    if (err == -EILSEQ)
        tell(s, verify.position, 0, NULL, verify.what, ADVICE_STREAM);
    return err == -EILSEQ ? 0 : err;
}

static int scrub_stream(void *arg, const char *name)
{
    struct scrub *s = arg;
    struct stream_name parts;
    if (stopped(s) || !stream_name_get(name, &parts))
        return 0;
    int open = open_file(s, "str", name);
    if (open <= 0)
        return open;
    int err = scrub_stream_file(s, &parts);
    if (s->fd >= 0)
        s->os->close(s->os, s->fd);
    return err;
}

static int scrub_streams(struct scrub *s)
{
    char folder[WAL_PATH_MAX];
    int n = snprintf(folder, sizeof folder, "%s/str", s->options.dir);
    CHECK(n > 0 && (size_t)n < sizeof folder);
    int err = s->os->list(s->os, folder, scrub_stream, s);
    return err == -ENOENT ? 0 : err;
}

/* -------------------------------------------------------------------------------------------------------------- rounds */

/* A new kind of file is a row here. */
static int (*const kinds[])(struct scrub *) = {scrub_journal, scrub_segments, scrub_streams};

static int one_round(struct scrub *s)
{
    int err = 0;
    s->began = s->os->now_mono(s->os);
    s->since_began = 0;
    s->window = mem_aligned(LAYOUT_BLOCK, WINDOW_BYTES);
    s->pages = mem_alloc(PAGES_MAX * sizeof *s->pages);
    if (!s->window || !s->pages)
        err = -ENOMEM;
    for (size_t i = 0; i < ARRAY_LEN(kinds) && !stopped(s) && err != -ENOMEM; i++) {
        int failed = kinds[i](s);
        err = failed ? failed : err; /* a folder that cannot be read does not keep it from the others */
    }
    mem_free(s->window);
    mem_free(s->pages);
    mem_free(s->long_page);
    mem_free(s->numbers);
    s->window = s->long_page = NULL;
    s->pages = NULL;
    s->numbers = NULL;
    s->numbers_cap = s->long_cap = 0;
    if (!stopped(s))
        count(s, FIGURE_ROUNDS, 1);
    return err;
}

static void run(void *arg)
{
    struct scrub *s = arg;
    mono_t due = s->os->now_mono(s->os) + s->options.first_ns;
    while (!stopped(s)) {
        mono_t wait = due - s->os->now_mono(s->os);
        if (wait > 0 || !s->options.bytes_per_second) {
            os_event_wait(&s->work, s->options.bytes_per_second ? wait : -1);
            continue;
        }
        due = s->os->now_mono(s->os) + s->options.every_ns;
        int err = one_round(s);
        if (err && err != -ECANCELED) {
            snprintf(s->name, sizeof s->name, "%s", ".");
            tell(s, 0, 0, NULL, strerror(-err), "the scrub could not read all of the data folder; it tries again");
        }
    }
}

int scrub_start(const struct scrub_options *options, struct scrub **ret)
{
    struct scrub *s = mem_zalloc(sizeof *s);
    if (!s)
        return -ENOMEM;
    s->options = *options;
    s->os = options->os;
    s->threaded = true;
    int err = os_thread_start(&s->thread, "scrub", run, s);
    if (err) {
        mem_free(s);
        return err;
    }
    *ret = s;
    return 0;
}

int scrub_round(const struct scrub_options *options, struct scrub_stats *ret)
{
    struct scrub *s = mem_zalloc(sizeof *s);
    if (!s)
        return -ENOMEM;
    s->options = *options;
    s->os = options->os;
    int err = one_round(s);
    scrub_stats(s, ret);
    mem_free(s);
    return err;
}

void scrub_stats(const struct scrub *s, struct scrub_stats *ret)
{
    *ret = (struct scrub_stats){
        .rounds = atomic_load_explicit(&s->figures[FIGURE_ROUNDS], memory_order_relaxed),
        .files = atomic_load_explicit(&s->figures[FIGURE_FILES], memory_order_relaxed),
        .bytes = atomic_load_explicit(&s->figures[FIGURE_BYTES], memory_order_relaxed),
        .damaged = atomic_load_explicit(&s->figures[FIGURE_DAMAGED], memory_order_relaxed),
    };
}

void scrub_stop(struct scrub *s)
{
    atomic_store_explicit(&s->stop, true, memory_order_release);
    os_event_set(&s->work);
}

void scrub_join(struct scrub **slot)
{
    struct scrub *s = *slot;
    *slot = NULL;
    if (!s)
        return;
    scrub_stop(s);
    os_thread_join(&s->thread);
    mem_free(s);
}
