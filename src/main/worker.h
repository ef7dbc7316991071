/* worker: the thread for what must not block a loop or the core: checking passwords, watching memory and disk.
 *
 * Life cycle: worker_start → worker_wake whenever the core has sent something to its port → worker_stop.
 * It is the owner of the worker's port: consumes EFF_VERIFY, produces CMD_VERIFIED and CMD_ALARM.
 */
#ifndef MILLRACE_MAIN_WORKER_H
#define MILLRACE_MAIN_WORKER_H

#include "core/broker.h"
#include "os/log.h"
#include "os/os.h"

struct worker_options {
    struct os *os;
    const struct log *log;
    struct port *port;
    const char *dir;              /* whose disk is watched */
    double memory_high_watermark; /* a share of memory, or bytes */
    uint64_t disk_free_min;       /* 0: worked out from the size of the disk */
    void (*wake_core)(void *arg);
    void *arg;
};

struct worker;

MUST_USE int worker_start(const struct worker_options *options, struct worker **ret);
/* The port has effects. Any thread. */
void worker_wake(struct worker *worker);
/* Alarms (enum alarm) that are held up by hand, whatever is measured. Any thread. */
void worker_alarms_force(struct worker *worker, unsigned alarms);
void worker_stop(struct worker **worker);

#endif
