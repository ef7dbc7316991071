/* pager: the store (store/) as the core's helper: pages go out by the store's port and come back by it.
 *
 * Life cycle: pager_open → (replay) → pager_keep with the replayed broker → pager_start → pager_wake whenever the core has
 * sent something to the port → pager_stop → (the broker is freed) → pager_close.
 * It is the owner of the store's port: consumes EFF_PAGE, produces CMD_PAGED, on the store's thread.
 */
#ifndef MILLRACE_MAIN_PAGER_H
#define MILLRACE_MAIN_PAGER_H

#include "core/broker.h"
#include "os/log.h"
#include "os/os.h"

struct pager_options {
    struct os *os;
    const struct log *log;
    const char *dir;     /* data folder */
    const uint8_t *uuid; /* the journal's, 16 bytes; a loan until pager_open returns */
    struct port *port;
    uint64_t compact_rate; /* of streams: bytes in a second; 0: no limit */
    void (*wake_core)(void *arg);
    void *arg;
};

struct pager;

/* 0, or a negative errno and a sentence in why. Boot. */
MUST_USE int pager_open(const struct pager_options *options, struct pager **ret, char *why, size_t why_len);
/* Checks that every segment that the broker names is there, and removes the others. As pager_open. Boot. */
MUST_USE int pager_keep(struct pager *pager, struct broker *broker, char *why, size_t why_len);
MUST_USE int pager_start(struct pager *pager);
/* The port has effects. Any thread. */
void pager_wake(struct pager *pager);
/* What was asked is finished or forgotten; the thread is gone. heap: the caller's, or the broker's when its thread is gone. */
void pager_stop(struct pager *pager, struct slab_heap *heap);
void pager_close(struct pager **pager);
/* Somebody copies files: none is removed meanwhile (store.h). Any thread. */
void pager_hold(struct pager *pager, bool on);
bool pager_held(const struct pager *pager);

#endif
