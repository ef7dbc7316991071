/* scrub: reads what lies on the disk and is not written any more, slowly, round after round, and tells of what has rotted:
 * before somebody needs it, and while a backup still has it. It never changes or removes anything.
 *
 * Old journal files (all but the one that is written), segments of pages but the last, and sealed files of streams, as they
 * are on the disk where direct reads are possible. Whether anybody needs a place that is not whole only the core knows: it is
 * asked then, and only then.
 *
 * Life cycle: scrub_start (a thread) or scrub_round (tests) → scrub_stats … → scrub_stop → scrub_join.
 */
#ifndef MILLRACE_STORE_SCRUB_H
#define MILLRACE_STORE_SCRUB_H

#include "base/types.h"
#include "core/page.h"
#include "os/os.h"

struct scrub;

struct scrub_page { /* a page that somebody needs */
    struct page_where where;
    uint64_t queue_id;
    uint64_t first, last, messages;
    char queue[256], vhost[256];
};

struct scrub_damage { /* a loan for the call */
    const char *file;
    uint64_t offset, len;          /* len 0: not known */
    const struct scrub_page *page; /* NULL: not of a page */
    const char *what, *advice;
};

struct scrub_options {
    struct os *os;
    const char *dir;
    uint8_t uuid[16];
    uint64_t bytes_per_second;   /* 0: it never reads */
    int64_t first_ns, every_ns;  /* until the first round; from the beginning of one to that of the next */
    lsn_t (*durable)(void *arg); /* how far the journal is synced now */
    /* The pages with live messages of a segment, in any order. Answers how many, at most `max`; negative: not known now. */
    int (*pages)(void *arg, uint32_t segment, struct scrub_page *ret, unsigned max);
    void (*on_damage)(void *arg, const struct scrub_damage *damage);
    void *arg; /* both on the scrub's thread */
};

struct scrub_stats {
    uint64_t rounds, files, bytes, damaged; /* damaged: places, each time that they are seen */
};

MUST_USE int scrub_start(const struct scrub_options *options, struct scrub **ret);
/* One round, without waiting for it. 0, or a negative errno. Tests: without a thread. */
MUST_USE int scrub_round(const struct scrub_options *options, struct scrub_stats *ret);
/* Any thread. */
void scrub_stats(const struct scrub *scrub, struct scrub_stats *ret);
/* Asks it to end; scrub_join waits, frees, and NULLs the pointer. */
void scrub_stop(struct scrub *scrub);
void scrub_join(struct scrub **scrub);

#endif
