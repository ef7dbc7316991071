/* amqp_edge: what the AMQP edge costs by itself: parsing publishes and acks into commands, encoding deliveries and
 * confirms into the out-queue, without sockets and without a core. Prints nanoseconds per item: the median of many
 * batches, each timed as a whole. `make programs && build/release/bench/amqp_edge`. */
#include "proto/amqp091/rig_test.h"

#include <time.h>

#define BATCH 500u
#define ROUNDS 2000u

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void report(const char *what, uint64_t *times)
{
    qsort(times, ROUNDS, sizeof *times, by_value);
    printf("%-34s %7.1f ns   (p90 %.1f)\n", what, (double)times[ROUNDS / 2] / BATCH,
           (double)times[ROUNDS * 9 / 10] / BATCH);
}

static uint64_t take_commands(struct rig *rig)
{
    uint64_t bytes = 0;
    hub_publish(rig->hub);
    struct command *c;
    while ((c = ring_peek(&rig->port.commands))) {
        if (c->type == CMD_PUBLISH) {
            bytes += msg_size(c->msg);
            msg_unref(&rig->heap, c->msg);
        }
        ring_pop(&rig->port.commands);
    }
    return bytes;
}

static uint64_t feed_once(struct rig *rig)
{
    uint64_t begin = now_ns();
    size_t used = rig->engine->ops->feed(rig->engine, slice_of(rig->in, rig->in_len));
    uint64_t took = now_ns() - begin;
    if (used != rig->in_len)
        abort();
    return took;
}

static void bench_publish(const char *what, size_t body_len, const char *props, size_t props_len)
{
    struct rig rig;
    static uint64_t times[ROUNDS];
    static char body[2048];
    if (!rig_init(&rig) || !rig_running(&rig, 131072, 0))
        abort();
    rig.raw = true;
    for (unsigned i = 0; i < BATCH; i++) {
        RIG_CALL(&rig, 1, basic_publish, .routing_key = slice_str("hello"));
        rig_header(&rig, 1, body_len, props, props_len);
        rig_frame(&rig, FRAME_BODY, 1, body, body_len);
    }
    uint64_t number = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        times[i] = feed_once(&rig);
        struct effect *e = rig_effect(&rig, EFF_CONFIRM, 0, 1);
        e->number = number += BATCH;
        e->flags = EFFECT_SILENT;
        e->bytes = take_commands(&rig);
        ring_publish(&rig.port.effects);
        hub_turn(rig.hub, 0, rig.now);
        rig.engine->paused = false;
    }
    report(what, times);
    rig_fini(&rig);
}

static void bench_ack(void)
{
    struct rig rig;
    static uint64_t times[ROUNDS];
    if (!rig_init(&rig) || !rig_running(&rig, 131072, 0))
        abort();
    rig.raw = true;
    for (unsigned i = 0; i < BATCH; i++)
        RIG_CALL(&rig, 1, basic_ack, .delivery_tag = i + 1);
    for (unsigned i = 0; i < ROUNDS; i++) {
        times[i] = feed_once(&rig);
        take_commands(&rig);
    }
    report("basic.ack, parse", times);
    rig_fini(&rig);
}

static void bench_deliver(const char *what, size_t body_len)
{
    struct rig rig;
    static uint64_t times[ROUNDS];
    if (!rig_init(&rig) || !rig_running(&rig, 131072, 0))
        abort();
    RIG_CALL(&rig, 1, basic_consume, .queue = slice_str("hello"), .consumer_tag = slice_str("ctag1.0123456789abcdef"));
    rig_settle(&rig);
    rig.raw = true;
    struct msg *msgs[BATCH];
    for (unsigned i = 0; i < BATCH; i++)
        msgs[i] = msg_new(&rig.heap, slice_str(""), slice_str("hello"), slice_of("\x10\0\2", 3), body_len);
    for (unsigned i = 0; i < ROUNDS; i++) {
        for (unsigned k = 0; k < BATCH; k++) {
            struct effect *e = rig_effect(&rig, EFF_DELIVER, 0, 1);
            e->consumer = 1;
            e->number = k + 1;
            e->msg = msg_ref(msgs[k]);
        }
        ring_publish(&rig.port.effects);
        uint64_t begin = now_ns();
        hub_turn(rig.hub, 0, rig.now);
        times[i] = now_ns() - begin;
        rig_take_out(&rig);
        rig.engine->ops->drained(rig.engine);
        take_commands(&rig);
    }
    report(what, times);
    for (unsigned i = 0; i < BATCH; i++)
        msg_unref(&rig.heap, msgs[i]);
    rig_fini(&rig);
}

/* One effect per publish, released together: the cost of holding and joining. */
static void bench_confirm(void)
{
    struct rig rig;
    static uint64_t times[ROUNDS];
    if (!rig_init(&rig) || !rig_running(&rig, 131072, 0))
        abort();
    rig.keep_confirms = true;
    RIG_CALL(&rig, 1, confirm_select, .no_wait = true);
    rig_settle(&rig);
    rig.raw = true;
    uint64_t number = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        for (unsigned k = 0; k < BATCH; k++) {
            struct effect *e = rig_effect(&rig, EFF_CONFIRM, 0, 1);
            e->number = ++number;
            e->lsn = number;
        }
        ring_publish(&rig.port.effects);
        uint64_t begin = now_ns();
        hub_turn(rig.hub, number - BATCH, rig.now);
        hub_turn(rig.hub, number, rig.now);
        times[i] = now_ns() - begin;
        rig_take_out(&rig);
    }
    report("confirm, held and joined", times);
    rig_fini(&rig);
}

int main(void)
{
    bench_publish("publish 100 B, parse", 100, "\x10\0\2", 3);
    bench_publish("publish 100 B, 3 properties, parse", 100, "\x98\0\012text/plain\2\4", 15);
    bench_publish("publish 1 KiB, parse", 1024, "\x10\0\2", 3);
    bench_ack();
    bench_deliver("deliver 100 B, encode", 100);
    bench_deliver("deliver 1 KiB", 1024);
    bench_deliver("deliver 4 KiB", 4096);
    bench_confirm();
    return 0;
}
