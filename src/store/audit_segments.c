/* The audit's second half: segment files. Which pages are alive the replayed broker says; each of them is read as the store
 * would read it, header, checksums, and every message. What nobody names is counted, not judged: it may have been cut off
 * when it was written, and is given back with its file. Thread: the caller's.
 */
#include "base/check.h"
#include "base/mem.h"
#include "store/audit_int.h"
#include "store/page_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define ADVICE_PAGE                                                                                                    \
    "its queue delivers no further than here, the rest of the store is whole: restore a backup, or run `millrace "     \
    "salvage`, which leaves out exactly these messages"
#define ADVICE_FILE                                                                                                    \
    "the broker refuses to start on it: put the file back from a backup, or run `millrace salvage`, which leaves out " \
    "what was in it"

struct segment_reading {
    struct audit *audit;
    struct slab_heap heap;
    int fd; /* -1: none */
    const struct audit_segment *file;
    uint8_t *buffer;
    size_t buffer_cap;
};

static void segment_name(uint32_t number, char ret[32])
{
    snprintf(ret, 32, "seg/s-%016" PRIx32, number);
}

/* --------------------------------------------------------------------------------------------------------------- files */

static int note_file(void *arg, const char *name)
{
    struct audit *audit = arg;
    uint64_t number;
    if (!wal_name(name, 's', &number) || number == 0 || number > UINT32_MAX)
        return 0;
    struct audit_segment *file =
        audit_grow((void **)&audit->segments, &audit->segments_len, &audit->segments_cap, sizeof *file);
    if (!file)
        return -ENOMEM;
    file->name = file->truth = (uint32_t)number;
    return 0;
}

static int compare_files(const void *a, const void *b)
{
    const struct audit_segment *x = a, *y = b;
    return x->name < y->name ? -1 : x->name > y->name;
}

static int open_segment(struct audit *audit, uint32_t name, int *ret_fd)
{
    struct os *os = audit->options.os;
    char path[WAL_PATH_MAX], file[32];
    segment_name(name, file);
    int n = snprintf(path, sizeof path, "%s/%s", audit->options.dir, file);
    return n > 0 && (size_t)n < sizeof path ? os->open(os, path, OS_READ, ret_fd) : -ENAMETOOLONG;
}

static const struct audit_page *first_page_of(const struct audit *audit, uint32_t segment)
{
    size_t low = 0, high = audit->pages_len;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (audit->pages[middle].page.where.segment < segment)
            low = middle + 1;
        else
            high = middle;
    }
    return low < audit->pages_len && audit->pages[low].page.where.segment == segment ? &audit->pages[low] : NULL;
}

/* What its header says; told only when somebody needs the file. */
static int examine_header(struct audit *audit, struct audit_segment *file)
{
    struct os *os = audit->options.os;
    uint8_t block[LAYOUT_BLOCK];
    struct segment_head head;
    int fd = -1, err = open_segment(audit, file->name, &fd);
    int64_t got = err ? err : os->size(os, fd, &file->size);
    if (!got)
        got = os->pread(os, fd, block, sizeof block, 0);
    if (!err)
        os->close(os, fd);
    if (got < 0)
        return (int)got;
    enum layout_verdict verdict = got == sizeof block ? segment_head_get(block, &head) : LAYOUT_DAMAGED;
    bool foreign = verdict == LAYOUT_GOOD && memcmp(head.uuid, audit->survey.uuid, LAYOUT_UUID_LEN) != 0;
    file->good = verdict == LAYOUT_GOOD && !foreign;
    if (file->good)
        file->truth = head.segment;
    char name[32], what[100] = "its header is damaged";
    segment_name(file->name, name);
    bool needed = first_page_of(audit, file->name) != NULL;
    if (verdict == LAYOUT_NEWER)
        snprintf(what, sizeof what, "it was written by a newer version of this program");
    else if (foreign)
        snprintf(what, sizeof what, "it belongs to another data folder");
    else if (file->good && file->truth != file->name)
        snprintf(what, sizeof what, "it is in truth s-%016" PRIx32 ": names were swapped", file->truth);
    struct audit_finding finding = {
        .weight = AUDIT_DAMAGE, .file = name, .at = true, .len = LAYOUT_BLOCK, .what = what, .advice = ADVICE_FILE};
    if (needed && (!file->good || file->truth != file->name))
        audit_tell(audit, &finding);
    if (!needed && audit->replayed) {
        finding = (struct audit_finding){.weight = AUDIT_NOTE,
                                         .file = name,
                                         .what = "no message in it is alive",
                                         .advice = audit->damaged ? "keep it: the journal is damaged"
                                                                  : "the next start removes it"};
        audit_tell(audit, &finding);
    }
    return 0;
}

const struct audit_segment *audit_segment(const struct audit *audit, uint32_t number)
{
    const struct audit_segment *found = NULL;
    for (size_t i = 0; i < audit->segments_len; i++) {
        const struct audit_segment *file = &audit->segments[i];
        if (file->good && file->truth == number)
            return file;
        if (!file->good && file->name == number)
            found = file;
    }
    return found;
}

/* --------------------------------------------------------------------------------------------------------------- pages */

static int note_page(void *arg, const struct broker_page *page)
{
    struct audit *audit = arg;
    struct audit_page *item = audit_grow((void **)&audit->pages, &audit->pages_len, &audit->pages_cap, sizeof *item);
    if (!item)
        return -ENOMEM;
    item->page = *page;
    audit->total += page->where.len;
    return 0;
}

static int compare_pages(const void *a, const void *b)
{
    const struct page_where *x = &((const struct audit_page *)a)->page.where,
                            *y = &((const struct audit_page *)b)->page.where;
    if (x->segment != y->segment)
        return x->segment < y->segment ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void tell_of_page(struct audit *audit, struct audit_page *item, enum audit_weight weight, const char *what)
{
    const struct broker_page *page = &item->page;
    char name[32];
    segment_name(page->where.segment, name);
    item->damaged = true;
    audit->totals.lost_pages++;
    audit->totals.lost_page_messages += page->live;
    audit_tell(audit, &(struct audit_finding){.weight = weight,
                                              .file = name,
                                              .at = true,
                                              .offset = page->where.offset,
                                              .len = page->where.len,
                                              .vhost = page->vhost,
                                              .queue = page->queue,
                                              .first = page->first,
                                              .last = page->last,
                                              .messages = page->live,
                                              .what = what,
                                              .advice = ADVICE_PAGE});
}

static bool buffer_reserve(struct segment_reading *r, size_t len)
{
    if (len <= r->buffer_cap)
        return true;
    mem_free(r->buffer);
    r->buffer_cap = 0;
    r->buffer = mem_alloc(len);
    r->buffer_cap = r->buffer ? len : 0;
    return r->buffer != NULL;
}

/* The page's bytes, in r->buffer. 1, 0: the file is too short, or a negative errno. */
static int read_page(struct segment_reading *r, const struct page_where *where)
{
    struct os *os = r->audit->options.os;
    if (where->len > r->file->size || where->offset > r->file->size - where->len)
        return 0; /* before memory is spent on a length that may be wrong */
    if (!buffer_reserve(r, where->len))
        return -ENOMEM;
    int64_t got = os->pread(os, r->fd, r->buffer, where->len, where->offset);
    return got < 0 ? (int)got : got == where->len;
}

static int examine_page(struct segment_reading *r, struct audit_page *item)
{
    struct audit *audit = r->audit;
    const struct broker_page *page = &item->page;
    const char *what = "the file is too short for this page";
    int got = read_page(r, &page->where);
    if (got == -ENOMEM)
        return got;
    if (got < 0) {
        tell_of_page(audit, item, AUDIT_UNREADABLE, strerror(-got));
        return 0;
    }
    struct page_job *job = page_job_new(PAGE_READ, page->count);
    if (!job)
        return -ENOMEM;
    job->queue = page->queue_id;
    job->lane = page->lane;
    job->items[0].position = page->first;
    job->items[page->count - 1].position = page->last;
    uint32_t seed = page_seed(audit->survey.uuid, page->where.segment, page->where.offset);
    int err = got ? page_decode(slice_of(r->buffer, page->where.len), seed, &r->heap, job, &what) : -EILSEQ;
    page_job_free(&r->heap, &job);
    if (err == -EILSEQ)
        tell_of_page(audit, item, AUDIT_DAMAGE, what);
    audit->totals.pages++;
    audit->totals.page_messages += page->live;
    audit->totals.page_bytes += page->where.len;
    audit_progress(audit, "segments", page->where.len);
    return err == -EILSEQ ? 0 : err;
}

/* The pages from *at on that lie in one segment. */
static int examine_segment(struct segment_reading *r, size_t *at)
{
    struct audit *audit = r->audit;
    uint32_t segment = audit->pages[*at].page.where.segment;
    r->file = audit_segment(audit, segment);
    int err = r->file ? open_segment(audit, r->file->name, &r->fd) : 0;
    bool open = r->file && !err;
    if (!r->file) {
        char name[32];
        segment_name(segment, name);
        audit_tell(audit,
                   &(struct audit_finding){
                       .weight = AUDIT_DAMAGE, .file = name, .what = "the file is missing", .advice = ADVICE_FILE});
    }
    int failed = 0;
    for (; *at < audit->pages_len && audit->pages[*at].page.where.segment == segment && !failed; ++*at) {
        struct audit_page *item = &audit->pages[*at];
        if (open)
            failed = examine_page(r, item);
        else
            tell_of_page(audit, item, err ? AUDIT_UNREADABLE : AUDIT_DAMAGE,
                         err ? strerror(-err) : "its file is missing");
    }
    if (open)
        audit->options.os->close(audit->options.os, r->fd);
    return failed;
}

static int examine_pages(struct audit *audit)
{
    struct segment_reading r = {.audit = audit, .fd = -1};
    int err = 0;
    slab_heap_init(&r.heap);
    for (size_t at = 0; at < audit->pages_len && !err;)
        err = examine_segment(&r, &at);
    mem_free(r.buffer);
    slab_heap_drain(&r.heap);
    slab_heap_fini(&r.heap);
    return err;
}

int audit_segments(struct audit *audit)
{
    struct os *os = audit->options.os;
    char folder[WAL_PATH_MAX];
    audit->done = audit->total = 0;
    int n = snprintf(folder, sizeof folder, "%s/seg", audit->options.dir);
    CHECK(n > 0 && (size_t)n < sizeof folder);
    int err = os->list(os, folder, note_file, audit);
    err = err == -ENOENT ? 0 : err;
    if (!err)
        err = broker_pages(audit->broker, note_page, audit);
    if (audit->segments_len)
        qsort(audit->segments, audit->segments_len, sizeof *audit->segments, compare_files);
    if (audit->pages_len)
        qsort(audit->pages, audit->pages_len, sizeof *audit->pages, compare_pages);
    for (size_t i = 0; i < audit->segments_len && !err; i++)
        err = examine_header(audit, &audit->segments[i]);
    audit->totals.segments = audit->segments_len;
    return err ? err : examine_pages(audit);
}
