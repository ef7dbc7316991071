/* The $SYS tree, see sys.h. A value is a row; what has not changed is not said again. When the user has no right to publish there is
 * no tree, and nothing is the worse for it. */
#include "proto/mqtt/sys.h"

#include "base/mem.h"
#include "core/mqtt.h"
#include "proto/mqtt/mapping.h"

#include <math.h>
#include <stdio.h>

#define CHANNEL 1u
#define VALUE_MAX 64u
#define TRY_AGAIN_NS NS_PER_S

#define TOTAL(field) offsetof(struct mqtt_totals, field)
#define UPTIME (SIZE_MAX - 1)
#define VERSION (SIZE_MAX - 2)
#define MEMORY (SIZE_MAX - 3)

/* What is said as it is. */
static const struct {
    const char *key;
    size_t total;
} values[] = {
    {"$SYS.broker.version", VERSION},
    {"$SYS.broker.uptime", UPTIME},
    {"$SYS.broker.clients.connected", TOTAL(clients)},
    {"$SYS.broker.clients.active", TOTAL(clients)},
    {"$SYS.broker.clients.maximum", TOTAL(clients_max)},
    {"$SYS.broker.messages.received", TOTAL(packets_in)},
    {"$SYS.broker.messages.sent", TOTAL(packets_out)},
    {"$SYS.broker.publish.messages.received", TOTAL(publishes_in)},
    {"$SYS.broker.publish.messages.sent", TOTAL(publishes_out)},
    {"$SYS.broker.publish.messages.dropped", TOTAL(dropped)},
    {"$SYS.broker.bytes.received", TOTAL(bytes_in)},
    {"$SYS.broker.bytes.sent", TOTAL(bytes_out)},
    {"$SYS.broker.heap.current", MEMORY},
};

/* What is said as a rate per minute, averaged over 1, 5 and 15 of them. */
static const struct {
    const char *key;
    size_t total;
} loads[] = {
    {"$SYS.broker.load.messages.received", TOTAL(packets_in)},  {"$SYS.broker.load.messages.sent", TOTAL(packets_out)},
    {"$SYS.broker.load.publish.received", TOTAL(publishes_in)}, {"$SYS.broker.load.publish.sent", TOTAL(publishes_out)},
    {"$SYS.broker.load.publish.dropped", TOTAL(dropped)},       {"$SYS.broker.load.bytes.received", TOTAL(bytes_in)},
    {"$SYS.broker.load.bytes.sent", TOTAL(bytes_out)},          {"$SYS.broker.load.connections", TOTAL(connects)},
};
static const unsigned minutes[] = {1, 5, 15};

enum sys_state { SYS_NEW, SYS_LOGIN, SYS_ATTACH, SYS_READY, SYS_OVER };

struct mqtt_sys {
    struct session session; /* first */
    struct mqtt_sys_options options;
    uint8_t state; /* enum sys_state */
    mono_t began, due, said_at;
    uint64_t published;
    uint32_t next; /* the row that is to be said next: it goes on where the ring was full */
    char said[ARRAY_LEN(values)][VALUE_MAX];
    uint64_t before[ARRAY_LEN(loads)];
    double load[ARRAY_LEN(loads)][ARRAY_LEN(minutes)];
    char said_load[ARRAY_LEN(loads)][ARRAY_LEN(minutes)][VALUE_MAX];
};

/* ---- what is said ---- */

static uint64_t total_at(const struct mqtt_sys *sys, size_t at)
{
    return atomic_load_explicit((_Atomic uint64_t *)(void *)((char *)sys->options.mqtt->totals + at),
                                memory_order_relaxed);
}

static void print_value(const struct mqtt_sys *sys, size_t total, mono_t now, char *ret)
{
    if (total == VERSION)
        snprintf(ret, VALUE_MAX, "%s", sys->options.version);
    else if (total == UPTIME)
        snprintf(ret, VALUE_MAX, "%lld seconds", (long long)((now - sys->began) / NS_PER_S));
    else
        snprintf(ret, VALUE_MAX, "%llu", (unsigned long long)(total == MEMORY ? mem_in_use() : total_at(sys, total)));
}

static void loads_advance(struct mqtt_sys *sys, mono_t now)
{
    double seconds = (double)(now - sys->said_at) / (double)NS_PER_S;
    for (size_t i = 0; i < ARRAY_LEN(loads); i++) {
        uint64_t total = total_at(sys, loads[i].total);
        double rate = seconds > 0 ? (double)(total - sys->before[i]) * 60 / seconds : 0;
        for (size_t j = 0; j < ARRAY_LEN(minutes); j++) {
            double keep = exp(-seconds / (60.0 * minutes[j]));
            sys->load[i][j] = sys->load[i][j] * keep + rate * (1 - keep);
        }
        sys->before[i] = total;
    }
    sys->said_at = now;
}

/* False: there is no room now, or no memory; the row comes again. */
static bool say(struct mqtt_sys *sys, const char *key, const char *value)
{
    struct mqtt_given given;
    struct mqtt_props none = {.present = 0};
    struct hub *hub = sys->session.hub;
    if (hub_room(hub) < 2 || mqtt_given_make(&given, 0, true, &none))
        return false;
    struct slice body = slice_str(value);
    struct msg *msg =
        msg_new(hub_heap(hub), slice_str(sys->options.mqtt->exchange), slice_str(key), given.raw, body.len);
    if (!msg)
        return false;
    memcpy(msg_body_room(msg), body.ptr, body.len);
    msg->flags = given.flags;
    msg->expiration_ms = -1;
    struct command *command = hub_command(hub, &sys->session);
    command->type = CMD_PUBLISH;
    command->channel = CHANNEL;
    command->number = ++sys->published;
    command->flags = ASK_SOFT | ASK_RETAIN;
    command->msg = msg;
    return true;
}

/* A row, if it has changed. */
static bool say_row(struct mqtt_sys *sys, uint32_t row, mono_t now)
{
    char value[VALUE_MAX], key[100];
    char *said;
    if (row < ARRAY_LEN(values)) {
        print_value(sys, values[row].total, now, value);
        snprintf(key, sizeof key, "%s", values[row].key);
        said = sys->said[row];
    } else {
        uint32_t i = (row - (uint32_t)ARRAY_LEN(values)) / ARRAY_LEN(minutes);
        uint32_t j = (row - (uint32_t)ARRAY_LEN(values)) % ARRAY_LEN(minutes);
        snprintf(value, sizeof value, "%.2f", sys->load[i][j]);
        snprintf(key, sizeof key, "%s.%umin", loads[i].key, minutes[j]);
        said = sys->said_load[i][j];
    }
    if (strcmp(said, value) == 0)
        return true;
    if (!say(sys, key, value))
        return false;
    memcpy(said, value, VALUE_MAX);
    return true;
}

#define ROWS (uint32_t)(ARRAY_LEN(values) + ARRAY_LEN(loads) * ARRAY_LEN(minutes))

mono_t mqtt_sys_turn(struct mqtt_sys *sys, mono_t now)
{
    if (sys->state != SYS_READY)
        return MONO_NEVER;
    if (now < sys->due)
        return sys->due;
    if (sys->next == 0)
        loads_advance(sys, now);
    for (; sys->next < ROWS; sys->next++)
        if (!say_row(sys, sys->next, now))
            return sys->due = now + TRY_AGAIN_NS;
    sys->next = 0;
    return sys->due = now + (mono_t)sys->options.interval_s * NS_PER_S;
}

/* ---- the session ---- */

static bool ask(struct mqtt_sys *sys, enum command_type type, uint32_t flags, struct ask *block)
{
    struct command *command = block ? hub_command(sys->session.hub, &sys->session) : NULL;
    if (!command) {
        mem_free(block);
        return false;
    }
    block->flags = flags;
    command->type = (uint8_t)type;
    command->channel = type == CMD_MQTT_ATTACH ? CHANNEL : 0;
    command->origin = type;
    command->ask = block;
    return true;
}

static bool ask_bare(struct mqtt_sys *sys, enum command_type type)
{
    struct command *command = hub_command(sys->session.hub, &sys->session);
    if (!command)
        return false;
    command->type = (uint8_t)type;
    command->channel = CHANNEL;
    command->origin = type;
    return true;
}

static bool attach(struct mqtt_sys *sys)
{
    struct slice none = {0};
    const struct mqtt_options *mqtt = sys->options.mqtt;
    sys->state = SYS_ATTACH;
    return ask(sys, CMD_ENTER, 0, ask_new(slice_str(mqtt->vhost), none, none, none)) &&
           ask_bare(sys, CMD_CHANNEL_OPEN) && ask_bare(sys, CMD_CONFIRM_SELECT) &&
           ask(sys, CMD_MQTT_ATTACH, ASK_CLEAN, ask_new(slice_str(MQTT_SYS_ID), none, slice_str(mqtt->exchange), none));
}

static void give_up(struct mqtt_sys *sys)
{
    sys->state = SYS_OVER;
    hub_close(sys->session.hub, &sys->session);
}

static void on_answer(struct mqtt_sys *sys, const struct effect *e)
{
    if (e->answer && e->answer->code != ERR_NONE)
        give_up(sys);
    else if (sys->state == SYS_LOGIN && e->origin == CMD_LOGIN && !attach(sys))
        give_up(sys);
    else if (sys->state == SYS_ATTACH && e->origin == CMD_MQTT_ATTACH) {
        sys->state = SYS_READY;
        sys->due = sys->said_at = sys->session.engine.now;
    }
}

static void on_effect(struct session *session, struct effect *e)
{
    struct mqtt_sys *sys = CONTAINER_OF(session, struct mqtt_sys, session);
    if (!session->gone && sys->state != SYS_OVER) {
        if (e->type == EFF_ANSWER)
            on_answer(sys, e);
        else if (e->type == EFF_ERROR || e->type == EFF_SESSION_KICK)
            give_up(sys);
    }
    hub_drop(session->hub, e);
}

static bool on_durable(struct session *session, lsn_t durable)
{
    (void)session;
    (void)durable;
    return false; /* nothing here waits */
}

static void on_free(struct session *session)
{
    mem_free_as(MEM_CONNECTIONS, CONTAINER_OF(session, struct mqtt_sys, session));
}

struct mqtt_sys *mqtt_sys_new(const struct mqtt_sys_options *options, struct hub *hub, mono_t now)
{
    struct slice none = {0};
    struct mqtt_sys *sys = mem_zalloc_as(MEM_CONNECTIONS, sizeof *sys);
    if (!sys)
        return NULL;
    sys->options = *options;
    sys->began = sys->said_at = now;
    sys->session.on_effect = on_effect;
    sys->session.on_durable = on_durable;
    sys->session.free = on_free;
    if (!hub_attach(hub, &sys->session)) {
        mem_free_as(MEM_CONNECTIONS, sys);
        return NULL;
    }
    sys->state = SYS_LOGIN;
    sys->session.core_open = ask(sys, CMD_SESSION_OPEN, ASK_LOOPBACK | ASK_INTERNAL,
                                 ask_new(slice_str("$SYS"), slice_str("$SYS"), none, none));
    if (sys->session.core_open && !ask(sys, CMD_LOGIN, ASK_LOOPBACK | ASK_TRUSTED,
                                       ask_new(slice_str(options->user), none, slice_str("ANONYMOUS"), none)))
        give_up(sys);
    return sys;
}

void mqtt_sys_close(struct mqtt_sys **sys)
{
    struct mqtt_sys *s = *sys;
    *sys = NULL;
    if (s)
        session_leave(&s->session);
}
