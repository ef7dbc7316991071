/* Fuzz target of the sniffer: whatever a client says first, in whatever pieces.
 * fuzz: -max_len=256
 * covers: src/net/sniff.c
 *
 * Input: one byte of modes, then what the client sends. Mode: the low 5 bits are how many bytes come at a time (0: all); 32 no
 * usual engine; 64 the port keeps to its own. The sniffer must make up its mind within SNIFF_BYTES_MAX bytes, the same
 * however they are cut, hand over exactly once, and consume nothing of what it hands over. */
#include "net/sniff.h"

#include "base/check.h"
#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { STEP = 31, NO_USUAL = 32, OWN = 64 };

/* An engine that only says whose it is. */
static size_t toy_feed(struct engine *engine, struct slice bytes)
{
    (void)engine;
    return bytes.len;
}

static mono_t toy_tick(struct engine *engine, mono_t now)
{
    (void)engine;
    (void)now;
    return MONO_NEVER;
}

static void toy_shutdown(struct engine *engine, const char *text)
{
    (void)text;
    engine->want_close = true;
}

static void toy_closed(struct engine *engine)
{
    outq_fini(&engine->out);
    mem_free(engine);
}

static const struct engine_ops toy_ops = {
    .name = "toy", .feed = toy_feed, .tick = toy_tick, .shutdown = toy_shutdown, .closed = toy_closed};

static struct engine *toy_make(void *owner, void *arg, const struct os_peer *peer, mono_t now)
{
    struct engine *engine = mem_zalloc(sizeof *engine);
    (void)peer;
    CHECK(engine);
    *engine = (struct engine){.ops = &toy_ops, .now = now, .next_tick = MONO_NEVER};
    outq_init(&engine->out);
    list_init(&engine->dirty_link);
    *(const void **)owner = arg; /* whose it is */
    return engine;
}

/* What became of it: whose the connection is, or one of these. */
static const char undecided[] = "undecided", closed[] = "closed", tls[] = "tls";

static const void *decide(struct sniff_port *port, const uint8_t *bytes, size_t len, size_t step)
{
    const void *whose = undecided;
    struct os_peer peer = {.text = "1.2.3.4:5", .local_port = 5672};
    struct engine_factory factory = sniff_factory(port);
    struct engine *engine = factory.make(&whose, factory.arg, &peer, 1);
    CHECK(engine && engine->in_max == SNIFF_BYTES_MAX);
    for (size_t n = step < len ? step : len; len && whose == undecided; n = n + step < len ? n + step : len) {
        size_t used = engine->ops->feed(engine, slice_of(bytes, n));
        CHECK(!engine->out.failed && engine->out.len == 0);
        CHECK(used == 0 || (engine->want_close && used == n));
        CHECK((engine->successor != NULL) + engine->want_close + engine->begin_tls <= 1);
        if (engine->want_close)
            whose = closed;
        else if (engine->begin_tls)
            whose = tls;
        CHECK(whose != undecided || n < SNIFF_BYTES_MAX);
        if (n == len)
            break;
    }
    if (engine->successor)
        engine->successor->ops->closed(engine->successor);
    engine->successor = NULL;
    engine->ops->closed(engine);
    return whose;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static const char *const names[] = {"AMQP", "Kafka", "MQTT", "STOMP"};
    struct engine_factory factories[ARRAY_LEN(names)];
    struct sniff_row rows[] = {
        {.name = "AMQP", .match = sniff_is_amqp}, {.name = "Kafka", .match = sniff_is_kafka},
        {.name = "MQTT", .match = sniff_is_mqtt}, {.name = "STOMP", .match = sniff_is_stomp},
        {.name = "HTTP", .match = sniff_is_http}, {.name = "TLS", .match = sniff_is_tls, .begins_tls = true}};
    if (len < 2)
        return 0;
    size_t before = mem_in_use();
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        factories[i] = (struct engine_factory){.make = toy_make, .arg = (void *)(uintptr_t)names[i]};
        rows[i].factory = &factories[i];
    }
    struct sniff_port port = {.rows = rows,
                              .row_count = ARRAY_LEN(rows),
                              .usual = bytes[0] & NO_USUAL ? NULL : &factories[0],
                              .usual_only = bytes[0] & OWN,
                              .wait_ms = 1000};
    size_t step = bytes[0] & STEP ? bytes[0] & STEP : len;
    const void *once = decide(&port, bytes + 1, len - 1, len - 1), *cut = decide(&port, bytes + 1, len - 1, step);
    CHECK(once == cut); /* also across the point where it was made up: what more comes changes nothing */
    unsigned matches = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        matches += rows[i].match(slice_of(bytes + 1, len - 1)) == SNIFF_YES;
    CHECK(matches <= 1);
    CHECK(mem_in_use() == before);
    return 0;
}
