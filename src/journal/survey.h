/* survey: reads every journal file of a stopped data folder from end to end and goes on behind what is damaged.
 *
 * Where walk (walk.h) ends at the first group that does not continue the one before, a survey looks for the next one that
 * validates and is younger, and tells what lies between as a gap. So `millrace check` can name all that is wrong, and
 * `millrace salvage` can take what is left. It gives the verdict that a start would give, by the same rule
 * (docs/formats/journal.md section 4).
 *
 * Life cycle: survey_open → survey_read, any number of times → survey_close. Reads only, takes no lock. Any one thread.
 */
#ifndef MILLRACE_JOURNAL_SURVEY_H
#define MILLRACE_JOURNAL_SURVEY_H

#include "base/types.h"
#include "journal/layout.h"
#include "journal/recover.h"
#include "journal/walk.h"
#include "os/os.h"

struct survey_file {
    uint64_t name; /* the number in its name */
    uint64_t seq;  /* what it says that it is: by its header, else by its first group, else the name's */
    uint64_t size;
    enum layout_verdict head; /* GOOD only for a header of this journal */
    bool foreign;             /* a good header of another journal */
    bool groups;              /* without a good header: has at least one group of this journal … */
    lsn_t first_lsn;          /* … which begins with this lsn */
    struct layout_file header;
};

/* From here to there nothing could be read. */
struct survey_gap {
    uint64_t seq, offset;         /* where it begins … */
    uint64_t end_seq, end_offset; /* … and where the journal goes on; end_seq 0: nowhere */
    lsn_t first, last;            /* records that are lost; last < first: none */
    const char *reason;
};

struct survey_place {
    uint64_t seq, offset; /* of the group */
    wall_t wall_ms;
    bool after_gap; /* the first record behind a gap */
};

struct survey_hooks { /* each may be NULL; an answer that is not 0 ends the reading and is its answer */
    int (*on_record)(void *arg, const struct survey_place *place, lsn_t lsn, struct slice record);
    int (*on_gap)(void *arg, const struct survey_gap *gap);
    void (*on_bytes)(void *arg, uint64_t bytes); /* so many more were read */
    void *arg;
};

struct survey {
    struct os *os;
    char dir[WAL_PATH_MAX], wal[WAL_PATH_MAX];
    enum super_state states[2];
    struct layout_super supers[2];
    bool any_super; /* at least one copy is good */
    bool any_file;  /* uuid is known from a file at least */
    uint8_t uuid[LAYOUT_UUID_LEN];
    struct survey_file *files; /* names w-…, by seq */
    size_t files_len, files_cap;
    lsn_t start_lsn;
    lsn_t from_lsn; /* records below are not handed out, though read; the owner's to set, 0: start_lsn */
    uint64_t start_seq;
    uint64_t bytes; /* of the files that a survey reads */

    /* what the last survey_read found */
    lsn_t next_lsn;                 /* behind the last record */
    uint64_t tail_seq, tail_offset; /* behind the last group */
    lsn_t stop_lsn;                 /* what a start could read ends before this record */
    uint64_t stop_seq, stop_offset;
    char stop_reason[96];
    lsn_t claim;           /* the highest lsn that was safely stored … */
    char claim_where[128]; /* … and who says so */
    wall_t wall_ms;        /* of the last group */
    uint64_t files_read, groups, records, payload, gaps;
    uint64_t stale_bytes; /* behind the tail in its file, not zero */
};

/* 0, or a negative errno: -ENOENT: neither superblock nor wal. */
MUST_USE int survey_open(struct survey *survey, struct os *os, const char *dir);
/* upto: records from this lsn on are not handed out; 0: no bound. 0 also when there is damage; a negative errno of the
 * disk, or a hook's answer. */
MUST_USE int survey_read(struct survey *survey, lsn_t upto, const struct survey_hooks *hooks);
/* After survey_read: synced records are missing, a start would refuse. */
bool survey_damaged(const struct survey *survey);
/* The file of this seq, NULL: none. */
const struct survey_file *survey_file(const struct survey *survey, uint64_t seq);
void survey_close(struct survey *survey);

#endif
