/* worker: the thread for what must not block a loop or the core: checking passwords, watching memory and disk, errands.
 *
 * Life cycle: worker_start → worker_wake whenever the core has sent something to its port → worker_stop.
 * It is the owner of the worker's port: consumes EFF_VERIFY and EFF_TXNS_FULL, produces CMD_VERIFIED and CMD_ALARM.
 */
#ifndef MILLRACE_MAIN_WORKER_H
#define MILLRACE_MAIN_WORKER_H

#include "core/broker.h"
#include "journal/journal.h"
#include "os/log.h"
#include "os/os.h"

struct worker_options {
    struct os *os;
    const struct log *log;
    struct port *port;
    const char *dir;         /* whose disk is watched */
    struct journal *journal; /* what it holds is owed on the disk */
    uint64_t journal_file_bytes;
    double memory_high_watermark, memory_hard_watermark; /* a share of memory, or bytes */
    uint64_t disk_free_min, disk_free_hard; /* 0: worked out from the size of the disk; half of the former */
    void (*wake_core)(void *arg);
    void (*errand)(void *arg); /* what worker_errand asks for */
    void *arg;
};

struct worker_figures {
    uint64_t memory_used, memory_soft, memory_hard, memory_total;
    uint64_t disk_free, disk_soft, disk_hard, disk_total; /* free, total 0: not known */
    unsigned alarms;                                      /* enum alarm: measured or forced */
};

struct worker;

MUST_USE int worker_start(const struct worker_options *options, struct worker **ret);
/* The port has effects. Any thread. */
void worker_wake(struct worker *worker);
/* Much was written since: measure again now. Any thread. */
void worker_look(struct worker *worker);
/* Runs options.errand soon, once for all that asked meanwhile. Any thread. */
void worker_errand(struct worker *worker);
/* What was measured last. Any thread. */
void worker_figures(struct worker *worker, struct worker_figures *ret);
/* Alarms (enum alarm) that are held up by hand, whatever is measured. Any thread. */
void worker_alarms_force(struct worker *worker, unsigned alarms);
void worker_stop(struct worker **worker);

#endif
