/* The files of streams as the core's helper, see stream_pager.h. Everything between start and stop is on the streams' thread.
 *
 * The core has a limit of jobs below the slots of the port, so an answer always finds one. */
#include "main/stream_pager.h"

#include "base/check.h"
#include "base/mem.h"
#include "store/streams.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

struct stream_pager {
    struct pager_options options;
    struct streams *streams;
    _Atomic int sync_err; /* of a sync that has failed; published by the streams' thread */
    char *why;            /* while files are kept */
    size_t why_len;
};

static void on_turn(void *arg)
{
    struct stream_pager *pager = arg;
    struct ring *effects = &pager->options.port->effects;
    struct effect *effect;
    while ((effect = ring_peek(effects))) {
        CHECK(effect->type == EFF_STREAM);
        struct stream_job *job = effect->stream_job;
        if (!streams_submit(pager->streams, &job))
            return;
        ring_pop(effects);
    }
}

static void on_done(void *arg)
{
    struct stream_pager *pager = arg;
    struct ring *commands = &pager->options.port->commands;
    struct stream_job *job;
    bool any = false;
    while (ring_room(commands) > 0 && (job = streams_take(pager->streams))) {
        struct command *command = ring_push(commands);
        CHECK(command);
        if (job->type == STREAM_SYNC && job->err)
            atomic_store(&pager->sync_err, job->err);
        *command = (struct command){.type = CMD_STREAMED, .stream_job = job};
        any = true;
    }
    if (!any)
        return;
    ring_publish(commands);
    pager->options.wake_core(pager->options.arg);
}

static void on_fault(void *arg, int err, const char *sentence)
{
    struct stream_pager *pager = arg;
    log_event(pager->options.log, err == -EILSEQ ? LOG_stream_damaged : LOG_stream_failed, log_str("reason", sentence));
}

int stream_pager_open(const struct pager_options *options, struct stream_pager **ret, char *why, size_t why_len)
{
    struct stream_pager *pager = mem_zalloc(sizeof *pager);
    snprintf(why, why_len, "no memory for the files of streams");
    if (!pager)
        return -ENOMEM;
    pager->options = *options;
    struct streams_options streams = {.os = options->os,
                                      .dir = options->dir,
                                      .compact_rate = options->compact_rate,
                                      .on_turn = on_turn,
                                      .on_done = on_done,
                                      .on_fault = on_fault,
                                      .arg = pager};
    memcpy(streams.uuid, options->uuid, sizeof streams.uuid);
    int err = streams_open(&streams, &pager->streams, why, why_len);
    if (err < 0) {
        mem_free(pager);
        return err;
    }
    *ret = pager;
    return 0;
}

static int keep(void *arg, const struct stream_files *files)
{
    struct stream_pager *pager = arg;
    int err = streams_keep(pager->streams, files->stream, files->partition, files->start, files->sealed,
                           files->sealed_count, &files->tail, pager->why, pager->why_len);
    size_t len = strlen(pager->why);
    if (err < 0 && len < pager->why_len)
        snprintf(pager->why + len, pager->why_len - len,
                 " (stream '%.*s' of vhost '%.*s', partition %u, has offsets %llu to %llu in files)",
                 SLICE_ARG(files->name), SLICE_ARG(files->vhost), (unsigned)files->partition,
                 (unsigned long long)files->start, (unsigned long long)files->tail.end - (files->tail.end > 0));
    return err;
}

int stream_pager_keep(struct stream_pager *pager, struct broker *broker, char *why, size_t why_len)
{
    pager->why = why;
    pager->why_len = why_len;
    why[0] = '\0';
    int err = broker_streams(broker, keep, pager);
    return err ? err : streams_sweep(pager->streams, why, why_len);
}

int stream_pager_start(struct stream_pager *pager)
{
    return streams_start(pager->streams);
}

void stream_pager_wake(struct stream_pager *pager)
{
    streams_wake(pager->streams);
}

int stream_pager_failure(const struct stream_pager *pager)
{
    return atomic_load(&pager->sync_err);
}

/* What is finished goes to the core all the same: it shares the messages of what was being written. */
void stream_pager_stop(struct stream_pager *pager)
{
    streams_stop(pager->streams);
    on_done(pager);
}

void stream_pager_close(struct stream_pager **pager)
{
    struct stream_pager *p = *pager;
    *pager = NULL;
    if (!p)
        return;
    streams_close(&p->streams);
    mem_free(p);
}

void stream_pager_hold(struct stream_pager *pager, bool on)
{
    streams_hold(pager->streams, on);
}

bool stream_pager_held(const struct stream_pager *pager)
{
    return streams_held(pager->streams);
}
