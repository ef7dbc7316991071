/* audit: verifies a stopped data folder from end to end and says what is wrong, where, and what to do.
 *
 * It reads the superblocks, every journal file, group and record (by the broker's own replay, so what cannot be applied is
 * found), the header of every segment and every page with live messages, and looks at every other file. Nothing is
 * changed, no file is made. The folder is locked meanwhile, so a broker cannot start in the middle.
 *
 * Life cycle: audit_open → audit_run → what salvage wants to know of it → audit_close. Any one thread.
 * What files there are is a table: kinds[] in audit.c.
 */
#ifndef MILLRACE_STORE_AUDIT_H
#define MILLRACE_STORE_AUDIT_H

#include "base/map.h"
#include "core/broker.h"
#include "journal/survey.h"
#include "os/os.h"

enum audit_weight {
    AUDIT_NOTE,       /* nothing is wrong */
    AUDIT_FLAW,       /* wrong, but nothing is lost and a start mends it */
    AUDIT_DAMAGE,     /* what was safely stored is not readable, or a start refuses */
    AUDIT_UNREADABLE, /* the disk did not give it */
};

struct audit_finding { /* everything is a loan for the call */
    enum audit_weight weight;
    const char *file;          /* below the data folder */
    bool at;                   /* offset and len mean something */
    uint64_t offset, len;      /* len 0: not known */
    lsn_t first_lsn, last_lsn; /* records that are lost; 0: none */
    struct slice vhost, queue; /* whose messages; empty: none */
    uint64_t first, last;      /* positions in that queue … */
    uint64_t messages;         /* … and how many of them are lost; 0: not known */
    const char *what, *advice;
};

struct audit_options {
    struct os *os;
    const char *dir;
    void (*on_finding)(void *arg, const struct audit_finding *finding);
    /* done of total bytes of this part of the work; may be NULL */
    void (*on_progress)(void *arg, const char *part, uint64_t done, uint64_t total);
    void *arg;
};

struct audit_totals {
    uint64_t journal_files, groups, records, journal_bytes;
    uint64_t segments, pages, page_messages, page_bytes;
    uint64_t stream_files, stream_records, stream_bytes;
    uint64_t queues, messages;
    uint64_t notes, flaws, damages, unreadable;
    uint64_t lost_records, lost_pages, lost_page_messages;
    uint64_t damaged_streams; /* files of streams: of damages and unreadable */
};

struct audit_queue {
    uint64_t id;
};

struct audit_page {
    struct broker_page page;
    bool damaged;
};

struct audit_segment {
    uint32_t name;  /* number in its name */
    uint32_t truth; /* … in its header, when that is good; else name */
    uint64_t size;
    bool good; /* header of this store */
};

struct audit {
    struct audit_options options;
    int lock_fd; /* -1: none */
    struct survey survey;
    bool surveyed;
    bool damaged; /* the journal's verdict */
    lsn_t upto;   /* records below it count; 0: all */
    struct broker *broker;
    bool replayed;
    lsn_t appended;
    lsn_t *rejected; /* records that cannot be applied, ascending */
    size_t rejected_len, rejected_cap;
    lsn_t checkpoint;
    lsn_t
        checkpoint_first; /* the last one that was read names this: the snapshot that is complete with it begins there */
    lsn_t gap_last;       /* the highest record that is lost in a gap; 0: none */
    bool behind_gap;      /* a gap with lost records came before */
    struct map looked_at;     /* since it: struct audit_queue, queues whose next message has been seen */
    struct audit_page *pages; /* by segment and offset */
    size_t pages_len, pages_cap;
    struct audit_segment *segments; /* by number in the name */
    size_t segments_len, segments_cap;
    uint64_t done, total;
    struct audit_totals totals;
};

/* 0; -EWOULDBLOCK: a broker has the folder; -ENOENT: it is not a data folder; or another negative errno. */
MUST_USE int audit_open(struct audit *audit, const struct audit_options *options);
/* 0: good; -EILSEQ: flawed or damaged, findings say how; -EPROTO: of a newer version; another negative errno: not (all)
 * readable. */
MUST_USE int audit_run(struct audit *audit);
/* Was this record refused by the replay? */
bool audit_rejected(const struct audit *audit, lsn_t lsn);
/* The file that holds segment `number` in truth. NULL: none. */
const struct audit_segment *audit_segment(const struct audit *audit, uint32_t number);
void audit_close(struct audit *audit);
/* Is a name below the data folder ("": itself, "wal", …) one of the kinds of file or folder that a broker makes? */
bool audit_knows(const char *folder, const char *name);

#endif
