/* The store as the core's helper, see pager.h. Everything between pager_start and pager_stop is on the store's thread.
 *
 * The core has a limit of jobs below the slots of the port, so an answer always finds one. */
#include "main/pager.h"

#include "base/check.h"
#include "base/mem.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>

struct pager {
    struct pager_options options;
    struct store *store;
    char *why; /* while segments are kept */
    size_t why_len;
};

static void on_turn(void *arg)
{
    struct pager *pager = arg;
    struct ring *effects = &pager->options.port->effects;
    struct effect *effect;
    while ((effect = ring_peek(effects))) {
        CHECK(effect->type == EFF_PAGE);
        struct page_job *job = effect->job;
        if (!store_submit(pager->store, &job))
            return;
        ring_pop(effects);
    }
}

static void on_done(void *arg)
{
    struct pager *pager = arg;
    struct ring *commands = &pager->options.port->commands;
    struct page_job *job;
    bool any = false;
    while (ring_room(commands) > 0 && (job = store_take(pager->store))) {
        struct command *command = ring_push(commands);
        CHECK(command);
        *command = (struct command){.type = CMD_PAGED, .job = job};
        any = true;
    }
    if (!any)
        return;
    ring_publish(commands);
    pager->options.wake_core(pager->options.arg);
}

static void on_fault(void *arg, int err, const char *sentence)
{
    struct pager *pager = arg;
    log_event(pager->options.log, err == -EILSEQ ? LOG_page_damaged : LOG_page_failed, log_str("reason", sentence));
}

int pager_open(const struct pager_options *options, struct pager **ret, char *why, size_t why_len)
{
    struct pager *pager = mem_zalloc(sizeof *pager);
    snprintf(why, why_len, "no memory for the store");
    if (!pager)
        return -ENOMEM;
    pager->options = *options;
    struct store_options store = {.os = options->os,
                                  .dir = options->dir,
                                  .on_turn = on_turn,
                                  .on_done = on_done,
                                  .on_fault = on_fault,
                                  .arg = pager};
    memcpy(store.uuid, options->uuid, sizeof store.uuid);
    int err = store_open(&store, &pager->store, why, why_len);
    if (err < 0) {
        mem_free(pager);
        return err;
    }
    *ret = pager;
    return 0;
}

static int keep(void *arg, uint32_t segment, uint64_t end, struct slice queue)
{
    struct pager *pager = arg;
    int err = store_keep(pager->store, segment, end, pager->why, pager->why_len);
    size_t len = strlen(pager->why);
    if (err < 0 && len < pager->why_len)
        snprintf(pager->why + len, pager->why_len - len, " (queue '%.*s' has messages there)", SLICE_ARG(queue));
    return err;
}

int pager_keep(struct pager *pager, struct broker *broker, char *why, size_t why_len)
{
    pager->why = why;
    pager->why_len = why_len;
    why[0] = '\0';
    int err = broker_segments(broker, keep, pager);
    return err ? err : store_sweep(pager->store, why, why_len);
}

int pager_start(struct pager *pager)
{
    return store_start(pager->store);
}

void pager_wake(struct pager *pager)
{
    store_wake(pager->store);
}

void pager_stop(struct pager *pager, struct slab_heap *heap)
{
    store_stop(pager->store);
    struct page_job *job;
    while ((job = store_take(pager->store)))
        page_job_free(heap, &job);
}

void pager_close(struct pager **pager)
{
    struct pager *p = *pager;
    *pager = NULL;
    if (!p)
        return;
    store_close(&p->store);
    mem_free(p);
}

void pager_hold(struct pager *pager, bool on)
{
    store_hold(pager->store, on);
}

bool pager_held(const struct pager *pager)
{
    return store_held(pager->store);
}
