/* What MQTT costs in the core by itself, without sockets, engines and disk: one publish to many taps, and a million retained
 * values: memory, and how long a subscription with a wildcard waits for the first and for all of them.
 *
 *     mqtt_core [SUBSCRIBERS] [VALUES] [BODY]   default 10000 1000000 16
 *
 * A measurement, not a test; figures hold for the machine they were taken on.
 */
#include "core/broker.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PUBLISHES 20000

struct bench {
    struct broker *b;
    lsn_t lsn;
    uint64_t journal_bytes;
    uint64_t retained, fanned;
    int64_t first_at; /* of the first EFF_RETAINED; 0: not yet */
    bool answered;
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static bool log_room(void *self)
{
    (void)self;
    return true;
}

static bool log_reserve(void *self, size_t bytes, unsigned count)
{
    (void)self;
    (void)bytes;
    (void)count;
    return true;
}

static lsn_t log_append(void *self, const struct slice *parts, unsigned count)
{
    struct bench *bench = self;
    for (unsigned i = 0; i < count; i++)
        bench->journal_bytes += parts[i].len;
    return ++bench->lsn;
}

static void log_fresh(void *self)
{
    (void)self;
}

static void log_trim(void *self, lsn_t upto)
{
    (void)self;
    (void)upto;
}

static uint64_t log_live(void *self)
{
    (void)self;
    return 0;
}

static void chance(void *arg, void *ret, size_t len)
{
    (void)arg;
    memset(ret, 7, len);
}

/* Takes what the core says, as the hub would; credit comes back at once. */
static void take(struct bench *bench)
{
    struct port *port = broker_port(bench->b, 0);
    struct effect *e;
    uint64_t cost = 0;
    uint32_t session = 0;
    while ((e = ring_peek(&port->effects))) {
        if (e->type == EFF_RETAINED) {
            bench->first_at = bench->first_at ? bench->first_at : now_ns();
            bench->retained++;
            cost += delivery_cost(e->msg);
            session = e->session;
        }
        bench->answered |= e->type == EFF_ANSWER;
        bench->fanned += e->type == EFF_FANOUT ? e->consumer : 0;
        if (e->msg)
            msg_unref(broker_heap(bench->b), e->msg);
        if (e->type == EFF_FANOUT)
            audience_unref(e->audience);
        else if (e->type == EFF_ANSWER || e->type == EFF_ERROR)
            mem_free(e->answer);
        ring_pop(&port->effects);
    }
    if (!cost)
        return;
    *(struct command *)ring_push(&port->commands) =
        (struct command){.type = CMD_CREDIT, .session = session, .number = cost};
    ring_publish(&port->commands);
}

/* Until nothing is left to do. */
static void step(struct bench *bench)
{
    bool more = true;
    ring_publish(&broker_port(bench->b, 0)->commands);
    while (more || !ring_empty(&broker_port(bench->b, 0)->commands)) {
        more = broker_step(bench->b, now_ns(), 1700000000000, bench->lsn);
        take(bench);
    }
}

static struct command *command(struct bench *bench, enum command_type type, uint32_t session)
{
    struct command *c = ring_push(&broker_port(bench->b, 0)->commands);
    CHECK(c);
    *c = (struct command){.type = (uint8_t)type, .session = session, .channel = 1};
    return c;
}

static struct command *ask(struct bench *bench, enum command_type type, uint32_t session, const char *name,
                           const char *key, uint32_t flags, uint64_t number)
{
    struct command *c = command(bench, type, session);
    c->ask = ask_new(slice_str(name), (struct slice){0}, slice_str(key), (struct slice){0});
    CHECK(c->ask);
    c->ask->flags = flags;
    c->ask->number = number;
    return c;
}

static void client(struct bench *bench, uint32_t session)
{
    char id[20];
    snprintf(id, sizeof id, "client-%u", session);
    ask(bench, CMD_SESSION_OPEN, session, "127.0.0.1:1", "", ASK_LOOPBACK, 0);
    ask(bench, CMD_LOGIN, session, "guest", "", ASK_TRUSTED, 0);
    ask(bench, CMD_ENTER, session, "/", "", 0, 0);
    command(bench, CMD_CHANNEL_OPEN, session);
    command(bench, CMD_CONFIRM_SELECT, session);
    ask(bench, CMD_MQTT_ATTACH, session, id, "amq.topic", 0, 0);
    command(bench, CMD_MQTT_RESUME, session)->number = 20;
}

static void publish(struct bench *bench, uint32_t session, const char *key, size_t body, uint32_t flags)
{
    static const uint8_t props[2];
    struct msg *msg =
        msg_new(broker_heap(bench->b), slice_str("amq.topic"), slice_str(key), slice_of(props, sizeof props), body);
    CHECK(msg);
    memset(msg_body_room(msg), 'x', body);
    struct command *c = command(bench, CMD_PUBLISH, session);
    c->msg = msg;
    c->flags = flags;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void fan_out(struct bench *bench, uint32_t subscribers)
{
    static int64_t times[PUBLISHES];
    size_t before = mem_in_use();
    int64_t from = now_ns();
    for (uint32_t session = 2; session < 2 + subscribers; session++) {
        client(bench, session);
        ask(bench, CMD_MQTT_SUBSCRIBE, session, "news", "", 0, 0)->number = MQTT_HANDLE_FIRST;
        if (session % 64 == 0)
            step(bench);
    }
    step(bench);
    printf("%u clients attached and subscribed in %.0f ms, %.0f bytes each\n", subscribers,
           (double)(now_ns() - from) / 1e6, (double)(mem_in_use() - before) / subscribers);
    for (unsigned i = 0; i < PUBLISHES; i++) {
        publish(bench, 1, "news", 64, 0);
        ring_publish(&broker_port(bench->b, 0)->commands);
        int64_t start = now_ns();
        (void)broker_step(bench->b, start, 1700000000000, bench->lsn);
        times[i] = now_ns() - start;
        take(bench);
    }
    CHECK(bench->fanned == (uint64_t)PUBLISHES * subscribers);
    qsort(times, PUBLISHES, sizeof times[0], by_time);
    printf("one publish to all of them: %.2f us of the core (median), %.2f us (p99)\n",
           (double)times[PUBLISHES / 2] / 1e3, (double)times[PUBLISHES * 99 / 100] / 1e3);
}

static void retain_flat(struct bench *bench, unsigned values, unsigned body)
{
    char key[80];
    size_t before = mem_in_use();
    for (unsigned i = 0; i < values; i++) {
        snprintf(key, sizeof key, "sensors.%u", i);
        publish(bench, 1, key, body, ASK_RETAIN);
        if (i % 256 == 255)
            step(bench);
    }
    step(bench);
    printf("%u values of %u bytes, keys like %s: %.0f bytes each\n", values, body, key,
           (double)(mem_in_use() - before) / values);
}

static void retain(struct bench *bench, unsigned values, unsigned body)
{
    char key[80];
    size_t before = mem_in_use();
    int64_t from = now_ns();
    for (unsigned i = 0; i < values; i++) {
        snprintf(key, sizeof key, "site%u.building%u.device%u.temperature", i / 10000, i / 100 % 100, i);
        publish(bench, 1, key, body, ASK_RETAIN);
        if (i % 256 == 255)
            step(bench);
    }
    step(bench);
    int64_t set = now_ns() - from;
    printf("%u values of %u bytes, keys like %s: %.0f bytes each (%.0f in its own account), set at %.0f ns each\n",
           values, body, key, (double)(mem_in_use() - before) / values, (double)mem_in_use_as(MEM_RETAINED) / values,
           (double)set / values);
    static const char *const patterns[] = {"#", "*.*.*.temperature", "site7.#", "*.building5.*.temperature"};
    for (unsigned i = 0; i < ARRAY_LEN(patterns); i++) {
        bench->retained = 0;
        bench->first_at = 0;
        bench->answered = false;
        from = now_ns();
        ask(bench, CMD_MQTT_RETAINED, 1, patterns[i], "", 0, 0)->number = MQTT_HANDLE_FIRST;
        step(bench);
        CHECK(bench->answered);
        printf("%s: first of %llu after %.3f ms, all after %.0f ms\n", patterns[i], (unsigned long long)bench->retained,
               (double)(bench->first_at - from) / 1e6, (double)(now_ns() - from) / 1e6);
    }
}

int main(int argc, char **argv)
{
    char why[300];
    struct bench bench = {0};
    struct broker_options options = {.ports = 1, .port_slots = 8192, .random = chance};
    options.log = (struct core_log){&bench, log_room, log_reserve, log_append, log_fresh, log_trim, log_live, NULL};
    bench.b = broker_new(&options);
    CHECK(bench.b && broker_replayed(bench.b, now_ns(), 1700000000000, why, sizeof why) == 0);
    client(&bench, 1);
    step(&bench);
    fan_out(&bench, argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 10000);
    retain(&bench, argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1000000,
           argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 16);
    retain_flat(&bench, argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1000000,
                argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 16);
    broker_free(&bench.b);
    return 0;
}
