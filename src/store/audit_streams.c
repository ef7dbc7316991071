/* The audit's third part: the files of streams. Which there are, and up to where they are good, the replayed broker says.
 * Thread: the caller's. */
#include "base/check.h"
#include "store/audit_int.h"
#include "store/stream_format.h"
#include "store/stream_verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define ADVICE_BATCH                                                                                                   \
    "readers stop here and can go on behind this file; the rest of the stream is whole: restore a backup to have it "  \
    "all"
#define ADVICE_FILE                                                                                                    \
    "the broker refuses to start on it: put the file back from a backup, or run `millrace salvage`, which leaves out " \
    "what was in it"

static void on_bytes(void *arg, uint64_t bytes)
{
    audit_progress(arg, "streams", bytes);
}

static void tell(struct audit *audit, const struct stream_files *files, const char *name, const struct stream_verify *v,
                 int err)
{
    bool index = err == -EILSEQ && v->offset == v->extent.end && v->position == v->extent.bytes;
    struct audit_finding finding = {.weight = err != -EILSEQ ? AUDIT_UNREADABLE
                                              : index        ? AUDIT_FLAW
                                                             : AUDIT_DAMAGE,
                                    .file = name,
                                    .at = err == -EILSEQ,
                                    .offset = v->position,
                                    .what = err == -EILSEQ ? v->what : strerror(-err),
                                    .advice = index         ? "nothing is lost by it"
                                              : v->head_bad ? ADVICE_FILE
                                                            : ADVICE_BATCH};
    if (!index && v->offset < v->extent.end) {
        finding.vhost = files->vhost;
        finding.queue = files->name;
        finding.first = v->offset;
        finding.last = v->extent.end - 1;
        finding.messages = v->extent.end - v->offset;
    }
    audit->totals.damaged_streams += !index;
    audit_tell(audit, &finding);
}

static int examine_file(struct audit *audit, const struct stream_files *files, const struct stream_extent *extent,
                        bool sealed)
{
    struct os *os = audit->options.os;
    char path[WAL_PATH_MAX], name[STREAM_NAME_LEN + 8] = "str/";
    struct stream_verify v = {.os = os,
                              .uuid = audit->survey.uuid,
                              .stream = files->stream,
                              .partition = files->partition,
                              .extent = *extent,
                              .sealed = sealed,
                              .on_bytes = on_bytes,
                              .arg = audit,
                              .offset = extent->base};
    if (extent->bytes == 0)
        return 0; /* no file */
    stream_name_put(name + 4, &(struct stream_name){.stream = files->stream,
                                                    .partition = files->partition,
                                                    .base = extent->base,
                                                    .generation = extent->generation});
    int fd, n = snprintf(path, sizeof path, "%s/%s", audit->options.dir, name);
    int err = n > 0 && (size_t)n < sizeof path ? os->open(os, path, OS_READ, &fd) : -ENAMETOOLONG;
    if (!err) {
        err = stream_verify(&v, fd);
        os->close(os, fd);
    } else if (err == -ENOENT) {
        v.what = "the file is missing";
        v.head_bad = true;
        err = -EILSEQ;
    }
    audit->totals.stream_files++;
    audit->totals.stream_records += v.records;
    audit->totals.stream_bytes += extent->bytes;
    if (err == -ENOMEM)
        return err;
    if (err)
        tell(audit, files, name, &v, err);
    return 0;
}

static int count_partition(void *arg, const struct stream_files *files)
{
    struct audit *audit = arg;
    for (uint32_t i = 0; i < files->sealed_count; i++)
        audit->total += files->sealed[i].bytes;
    audit->total += files->tail.bytes;
    return 0;
}

static int examine_partition(void *arg, const struct stream_files *files)
{
    struct audit *audit = arg;
    int err = 0;
    for (uint32_t i = 0; i < files->sealed_count && !err; i++)
        if (files->sealed[i].end > files->start)
            err = examine_file(audit, files, &files->sealed[i], true);
    return err ? err : examine_file(audit, files, &files->tail, false);
}

bool audit_is_stream(const char *name)
{
    struct stream_name parts;
    return stream_name_get(name, &parts);
}

int audit_streams(struct audit *audit)
{
    audit->done = audit->total = 0;
    int err = broker_streams(audit->broker, count_partition, audit);
    return err ? err : broker_streams(audit->broker, examine_partition, audit);
}
