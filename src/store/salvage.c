/* Copying what is readable, see salvage.h. Any one thread.
 *
 * First the audit: it knows which records count, which of them cannot be applied, and which pages are damaged. Then the
 * journal is written anew through the journal's own calls, with the same uuid, because the checksums of pages are seeded
 * with it. Where records are missing one without effect stands, so that pieces from before never join pieces from behind.
 * CHECKPOINTs are left out: they name lsns of the old journal. At the end the copy gets an audit of its own.
 */
#include "store/salvage.h"

#include "base/check.h"
#include "base/mem.h"
#include "core/records.h"
#include "journal/journal.h"
#include "store/page_format.h"
#include "store/stream_format.h"

#include <errno.h>
#include <stdio.h>

#define PIECE_BYTES (256u * 1024)

struct salvaging {
    const struct salvage_options *options;
    struct os *os;
    struct audit audit;
    struct journal *journal;
    struct salvage_result *result;
    uint8_t *piece;
    char *why;
    size_t why_len;
    uint64_t done;
};

static int failed(struct salvaging *s, int err, const char *what, const char *path)
{
    snprintf(s->why, s->why_len, "cannot %s %s: %s", what, path, strerror(-err));
    return err;
}

static void progress(struct salvaging *s, const char *part, uint64_t more, uint64_t total)
{
    const struct audit_options *options = &s->options->audit;
    s->done += more;
    s->result->bytes += more;
    if (options->on_progress)
        options->on_progress(options->arg, part, s->done, total);
}

/* -------------------------------------------------------------------------------------------------------------- folder */

static int no_name(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return -ENOTEMPTY;
}

static int enter_folder(struct salvaging *s)
{
    const char *to = s->options->to;
    int err = s->os->list(s->os, to, no_name, NULL);
    if (err == -ENOENT)
        err = s->os->mkdir(s->os, to);
    return err ? failed(s, err, "use", to) : 0;
}

static int make_file(struct salvaging *s, const char *name, int *ret_fd)
{
    char path[WAL_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", s->options->to, name);
    int err = n > 0 && (size_t)n < sizeof path ? s->os->open(s->os, path, OS_WRITE | OS_CREATE | OS_EXCLUSIVE, ret_fd)
                                               : -ENAMETOOLONG;
    return err ? failed(s, err, "make", path) : 0;
}

static int make_folder(struct salvaging *s, const char *name)
{
    char path[WAL_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", s->options->to, name);
    int err = n > 0 && (size_t)n < sizeof path ? s->os->mkdir(s->os, path) : -ENAMETOOLONG;
    return err && err != -EEXIST ? failed(s, err, "make", path) : 0;
}

static int sync_folder(struct salvaging *s, const char *name)
{
    char path[WAL_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", s->options->to, name);
    CHECK(n > 0 && (size_t)n < sizeof path);
    int err = s->os->sync_dir(s->os, path);
    return err ? failed(s, err, "sync", path) : 0;
}

/* ------------------------------------------------------------------------------------------------------------- journal */

static int write_out(struct salvaging *s)
{
    int did;
    journal_kick(s->journal);
    while ((did = journal_step(s->journal)) > 0 && journal_durable(s->journal) < journal_appended(s->journal))
        continue;
    if (did < 0)
        snprintf(s->why, s->why_len, "cannot write the new journal: %s", journal_failure_text(s->journal));
    return did < 0 ? did : 0;
}

static int append(struct salvaging *s, struct slice record)
{
    int err = journal_room(s->journal) ? 0 : write_out(s);
    if (err)
        return err;
    if (!journal_reserve(s->journal, record.len, 1)) {
        snprintf(s->why, s->why_len, "no memory");
        return -ENOMEM;
    }
    (void)journal_append(s->journal, &record, 1);
    return 0;
}

static int append_nothing(struct salvaging *s)
{
    uint8_t record[RECORD_REMOVE_MAX];
    return append(s, slice_of(record, record_nothing(record)));
}

static int copy_record(void *arg, const struct survey_place *place, lsn_t lsn, struct slice record)
{
    struct salvaging *s = arg;
    bool refused = audit_rejected(&s->audit, lsn);
    int err = place->after_gap || refused ? append_nothing(s) : 0;
    if (refused)
        s->result->records_left_out++;
    if (err || refused || record_checkpoint(record))
        return err;
    s->result->records++;
    progress(s, "copy journal", record.len, s->audit.totals.journal_bytes);
    return append(s, record);
}

static int remove_messages(struct salvaging *s, const struct broker_page *page)
{
    uint8_t record[RECORD_REMOVE_MAX];
    uint64_t last;
    int err = 0;
    for (uint64_t at = page->first; !err && broker_page_alive(page, &at, &last); at = last + 1)
        err = append(s, slice_of(record, record_remove(record, page->queue_id, at, last)));
    return err;
}

static int copy_journal(struct salvaging *s)
{
    struct journal_options options = {.os = s->os, .dir = s->options->to, .uuid = s->audit.survey.uuid};
    struct survey_hooks hooks = {.on_record = copy_record, .arg = s};
    s->done = 0;
    int err = journal_open(&options, &s->journal, s->why, s->why_len);
    if (err)
        return err;
    err = survey_read(&s->audit.survey, s->audit.upto, &hooks);
    if (!err)
        err = append_nothing(s); /* loose pieces at the end stay loose */
    for (size_t i = 0; i < s->audit.pages_len && !err; i++)
        if (s->audit.pages[i].damaged)
            err = remove_messages(s, &s->audit.pages[i].page);
    if (!err)
        err = write_out(s);
    if (!err)
        err = journal_stop(s->journal);
    journal_close(&s->journal);
    return err;
}

/* ------------------------------------------------------------------------------------------------------------ segments */

static int open_original(struct salvaging *s, const char *name, int *ret_fd)
{
    char path[WAL_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", s->options->audit.dir, name);
    int err = n > 0 && (size_t)n < sizeof path ? s->os->open(s->os, path, OS_READ, ret_fd) : -ENAMETOOLONG;
    return err ? failed(s, err, "open", path) : 0;
}

/* Bytes of a file to the same place in another. Those that cannot be read stay zeros. */
static int copy_bytes(struct salvaging *s, int from, int to, uint64_t at, uint64_t end, const char *part,
                      uint64_t total)
{
    int err = 0;
    while (at < end && !err) {
        size_t want = end - at < PIECE_BYTES ? (size_t)(end - at) : PIECE_BYTES;
        int64_t got = s->os->pread(s->os, from, s->piece, want, at);
        if (got > 0)
            err = s->os->pwrite(s->os, to, s->piece, (size_t)got, at);
        at += want;
        progress(s, part, want, total);
    }
    return err;
}

static int put_segment_head(struct salvaging *s, int fd, uint32_t number)
{
    uint8_t block[LAYOUT_BLOCK];
    struct segment_head head = {.segment = number, .wall_ms = s->os->now_wall(s->os)};
    memcpy(head.uuid, s->audit.survey.uuid, LAYOUT_UUID_LEN);
    segment_head_put(block, &head);
    return s->os->pwrite(s->os, fd, block, sizeof block, 0);
}

static int copy_pages(struct salvaging *s, size_t first, size_t end, int from, int to)
{
    const struct page_where *last = NULL;
    int err = put_segment_head(s, to, s->audit.pages[first].page.where.segment);
    for (size_t i = first; i < end && !err; i++) {
        const struct page_where *where = &s->audit.pages[i].page.where;
        if (s->audit.pages[i].damaged)
            continue;
        uint64_t page_end = (uint64_t)where->offset + where->len;
        err = copy_bytes(s, from, to, where->offset, page_end, "copy pages", s->audit.totals.page_bytes);
        s->result->pages++;
        last = where;
    }
    if (!err && last)
        err = s->os->truncate(s->os, to, layout_blocks((uint64_t)last->offset + last->len));
    return err ? err : s->os->fdatasync(s->os, to);
}

/* The pages from first to end lie in one segment. */
static int copy_segment(struct salvaging *s, size_t first, size_t end)
{
    uint32_t number = s->audit.pages[first].page.where.segment;
    const struct audit_segment *file = audit_segment(&s->audit, number);
    char name[32], original[32];
    int from, to;
    bool any = false;
    for (size_t i = first; i < end; i++)
        any = any || !s->audit.pages[i].damaged;
    if (!any || !file)
        return 0;
    snprintf(name, sizeof name, "seg/s-%016x", number);
    snprintf(original, sizeof original, "seg/s-%016x", file->name);
    int err = open_original(s, original, &from);
    if (err)
        return err;
    err = make_file(s, name, &to);
    if (!err) {
        err = copy_pages(s, first, end, from, to);
        if (err)
            failed(s, err, "write", name);
        s->os->close(s->os, to);
        s->result->segments++;
    }
    s->os->close(s->os, from);
    return err;
}

static int copy_segments(struct salvaging *s)
{
    const struct audit *audit = &s->audit;
    int err = audit->pages_len ? make_folder(s, "seg") : 0;
    s->done = 0;
    for (size_t first = 0, end; first < audit->pages_len && !err; first = end) {
        end = first + 1;
        while (end < audit->pages_len && audit->pages[end].page.where.segment == audit->pages[first].page.where.segment)
            end++;
        err = copy_segment(s, first, end);
    }
    return err || !audit->pages_len ? err : sync_folder(s, "seg");
}

/* ------------------------------------------------------------------------------------------------------------- streams */

static int put_stream_head(struct salvaging *s, int fd, const struct stream_files *files,
                           const struct stream_extent *extent)
{
    uint8_t block[LAYOUT_BLOCK];
    struct stream_head head = {.stream = files->stream,
                               .partition = files->partition,
                               .base = extent->base,
                               .generation = extent->generation,
                               .wall_ms = s->os->now_wall(s->os)};
    memcpy(head.uuid, s->audit.survey.uuid, LAYOUT_UUID_LEN);
    stream_head_put(block, &head);
    return s->os->pwrite(s->os, fd, block, sizeof block, 0);
}

/* All of the file that is there, and at least so many bytes as the journal names: a start asks for length and header only,
 * and readers go on behind what is damaged. */
static int copy_stream_file(struct salvaging *s, const struct stream_files *files, const struct stream_extent *extent)
{
    char name[STREAM_NAME_LEN + 8] = "str/";
    uint64_t size = 0;
    int from = -1, to;
    stream_name_put(name + 4, &(struct stream_name){.stream = files->stream,
                                                    .partition = files->partition,
                                                    .base = extent->base,
                                                    .generation = extent->generation});
    int err = open_original(s, name, &from);
    if (err && err != -ENOENT)
        return err;
    bool there = err == 0;
    err = make_file(s, name, &to);
    if (!err) {
        if (there)
            err = s->os->size(s->os, from, &size);
        if (!err)
            err = put_stream_head(s, to, files, extent);
        if (!err && there)
            err = copy_bytes(s, from, to, LAYOUT_BLOCK, size, "copy streams", s->audit.totals.stream_bytes);
        if (!err)
            err = s->os->truncate(s->os, to, size > extent->bytes ? size : extent->bytes);
        if (!err)
            err = s->os->fdatasync(s->os, to);
        if (err)
            failed(s, err, "write", name);
        s->os->close(s->os, to);
        s->result->stream_files++;
    }
    if (there)
        s->os->close(s->os, from);
    return err;
}

static int copy_partition(void *arg, const struct stream_files *files)
{
    struct salvaging *s = arg;
    int err = make_folder(s, "str");
    for (uint32_t i = 0; i < files->sealed_count && !err; i++)
        if (files->sealed[i].end > files->start && files->sealed[i].bytes)
            err = copy_stream_file(s, files, &files->sealed[i]);
    if (!err && files->tail.bytes)
        err = copy_stream_file(s, files, &files->tail);
    return err ? err : sync_folder(s, "str");
}

static int copy_streams(struct salvaging *s)
{
    s->done = 0;
    return broker_streams(s->audit.broker, copy_partition, s);
}

/* --------------------------------------------------------------------------------------------------------------- order */

/* What it is all worth: would a broker start on it? The streams' batches that were damaged still are. */
static int verify(struct salvaging *s)
{
    struct audit copy;
    struct audit_options options = {
        .os = s->os, .dir = s->options->to, .on_progress = s->options->audit.on_progress, .arg = s->options->audit.arg};
    int err = audit_open(&copy, &options);
    if (err)
        return failed(s, err, "read", s->options->to);
    err = audit_run(&copy);
    s->result->copy = copy.totals;
    audit_close(&copy);
    bool known = err == -EILSEQ && s->result->copy.damages <= s->result->original.damaged_streams;
    if (err && !known) {
        snprintf(s->why, s->why_len, "the copy in %s is not good: %s", s->options->to, strerror(-err));
        return err;
    }
    return 0;
}

static int copy_all(struct salvaging *s)
{
    int err = enter_folder(s);
    s->piece = err ? NULL : mem_alloc(PIECE_BYTES);
    if (!err && !s->piece)
        err = failed(s, -ENOMEM, "copy to", s->options->to);
    if (!err)
        err = copy_journal(s); /* first: it makes the folder a data folder */
    if (!err)
        err = copy_segments(s);
    if (!err)
        err = copy_streams(s);
    mem_free(s->piece);
    return err;
}

int salvage(const struct salvage_options *options, struct salvage_result *ret, char *why, size_t why_len)
{
    struct salvaging s = {.options = options, .os = options->audit.os, .result = ret, .why = why, .why_len = why_len};
    *ret = (struct salvage_result){0};
    snprintf(why, why_len, "no memory");
    int err = audit_open(&s.audit, &options->audit);
    if (err) {
        snprintf(why, why_len, "%s cannot be read: %s", options->audit.dir,
                 err == -EWOULDBLOCK ? "a broker is running on it"
                 : err == -ENOENT    ? "it is not a data folder"
                                     : strerror(-err));
        return err;
    }
    ret->original_verdict = audit_run(&s.audit);
    ret->original = s.audit.totals;
    if (ret->original_verdict == 0 || ret->original_verdict == -EILSEQ ||
        (ret->original_verdict == -EIO && s.audit.replayed))
        err = copy_all(&s);
    else
        err = failed(&s, ret->original_verdict, "read all of", options->audit.dir);
    audit_close(&s.audit);
    return err ? err : verify(&s);
}
