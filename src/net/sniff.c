/* Recognising protocols, see sniff.h. Matchers: any thread. The engine: the loop's.
 *
 * First bytes by protocol, which no two have in common beyond the prefix that MORE stands for:
 *
 *   AMQP    41 4d 51 50                     "AMQP", whatever version follows
 *   Kafka   0. .. .. .. 00 kk vv vv         length, api key, version
 *   MQTT    10 <1 to 4 bytes> 00 04 "MQTT"  or 00 06 "MQIsdp"
 *   STOMP   "CONNECT" or "STOMP", then LF or CR; servers have to bear line ends in front of it
 *   HTTP    "GET ", "POST ", … "CONNECT "
 *   TLS     16 03 0. .. .. 01               a handshake record that begins with ClientHello
 *
 * The sniffer keeps nothing: bytes that do not suffice stay with the connection, and are fed again with the next ones. */
#include "net/sniff.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdio.h>

#define COMPLAIN_EVERY_NS NS_PER_S
#define SEEN_BYTES 16u      /* shown in the log */
#define KAFKA_HEADER_MIN 8u /* key, version and number of a request */

struct sniffer {
    struct engine engine; /* first */
    struct sniff_port *port;
    void *owner;
    mono_t deadline;
    struct os_peer peer;
};

/* ---- matchers ---- */

/* Does `first` begin with word, or could it? */
static enum sniff_verdict begins(struct slice first, const void *word, size_t len)
{
    size_t n = first.len < len ? first.len : len;
    if (memcmp(first.ptr, word, n) != 0)
        return SNIFF_NO;
    return n == len ? SNIFF_YES : SNIFF_MORE;
}

static struct slice behind(struct slice first, size_t n)
{
    return slice_of(first.ptr + n, first.len - n);
}

enum sniff_verdict sniff_is_amqp(struct slice first)
{
    return begins(first, "AMQP", 4);
}

/* The first nibble of a length is what tells it from all others, whose first byte is 10 or more; that of a key is 0. */
enum sniff_verdict sniff_is_kafka(struct slice first)
{
    static const struct {
        size_t at;
        uint8_t max;
    } rules[] = {{0, 0x0f}, {4, 0}, {5, 0x7f}};
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        if (first.len <= rules[i].at)
            return SNIFF_MORE;
        if (first.ptr[rules[i].at] > rules[i].max)
            return SNIFF_NO;
    }
    if (!(first.ptr[0] | first.ptr[1] | first.ptr[2]) && first.ptr[3] < KAFKA_HEADER_MIN)
        return SNIFF_NO;
    return first.len < 8 ? SNIFF_MORE : SNIFF_YES;
}

enum sniff_verdict sniff_is_mqtt(struct slice first)
{
    if (first.ptr[0] != 0x10)
        return SNIFF_NO;
    size_t at = 1;
    while (at < first.len && at < 4 && first.ptr[at] & 0x80)
        at++;
    if (at >= first.len)
        return SNIFF_MORE;
    if (first.ptr[at++] & 0x80)
        return SNIFF_NO; /* a length of more than four bytes */
    enum sniff_verdict now = begins(behind(first, at), "\0\4MQTT", 6), old = begins(behind(first, at), "\0\6MQIsdp", 8);
    return now > old ? now : old;
}

static bool is_line_end(uint8_t byte)
{
    return byte == '\n' || byte == '\r';
}

enum sniff_verdict sniff_is_stomp(struct slice first)
{
    static const char *const words[] = {"CONNECT", "STOMP"};
    size_t ends = 0;
    while (ends < first.len && is_line_end(first.ptr[ends]))
        ends++;
    if (ends > SNIFF_BYTES_MAX / 2)
        return SNIFF_NO;
    first = behind(first, ends);
    if (first.len == 0)
        return SNIFF_MORE;
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        size_t len = strlen(words[i]);
        enum sniff_verdict verdict = begins(first, words[i], len);
        if (verdict == SNIFF_MORE || (verdict == SNIFF_YES && first.len == len))
            return SNIFF_MORE;
        if (verdict == SNIFF_YES)
            return is_line_end(first.ptr[len]) ? SNIFF_YES : SNIFF_NO;
    }
    return SNIFF_NO;
}

enum sniff_verdict sniff_is_http(struct slice first)
{
    static const char *const methods[] = {"GET ",   "HEAD ",    "POST ",    "PUT ",  "DELETE ",
                                          "PATCH ", "OPTIONS ", "CONNECT ", "TRACE "};
    enum sniff_verdict best = SNIFF_NO;
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        enum sniff_verdict verdict = begins(first, methods[i], strlen(methods[i]));
        best = verdict > best ? verdict : best;
    }
    return best;
}

enum sniff_verdict sniff_is_tls(struct slice first)
{
    static const struct {
        size_t at;
        uint8_t min, max;
    } rules[] = {{0, 0x16, 0x16}, {1, 3, 3}, {2, 0, 4}, {3, 0, 0x40}, {5, 1, 1}};
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        if (first.len <= rules[i].at)
            return SNIFF_MORE;
        if (first.ptr[rules[i].at] < rules[i].min || first.ptr[rules[i].at] > rules[i].max)
            return SNIFF_NO;
    }
    return SNIFF_YES;
}

const struct sniff_row *sniff(const struct sniff_row *rows, size_t count, struct slice first, bool *ret_more)
{
    *ret_more = first.len == 0;
    for (size_t i = 0; i < count && first.len; i++) {
        enum sniff_verdict verdict = rows[i].match(first);
        if (verdict == SNIFF_YES)
            return &rows[i];
        *ret_more |= verdict == SNIFF_MORE;
    }
    *ret_more &= first.len < SNIFF_BYTES_MAX;
    return NULL;
}

/* ---- the engine ---- */

static struct sniffer *of_engine(struct engine *engine)
{
    return CONTAINER_OF(engine, struct sniffer, engine);
}

/* Printable bytes as they are, others as \xNN. */
static void print_bytes(struct slice bytes, char *ret, size_t max)
{
    size_t at = 0;
    ret[0] = '\0';
    for (size_t i = 0; i < bytes.len && i < SEEN_BYTES && at + 5 < max; i++) {
        uint8_t byte = bytes.ptr[i];
        bool plain = byte >= ' ' && byte < 0x7f && byte != '\\';
        at += (size_t)snprintf(ret + at, max - at, plain ? "%c" : "\\x%02x", byte);
    }
}

/* Scanners come in herds: one line a second is enough. */
static bool may_complain(struct sniff_port *port, mono_t now)
{
    mono_t before = atomic_load_explicit(&port->complained_at, memory_order_relaxed);
    return (before == 0 || now - before >= COMPLAIN_EVERY_NS) &&
           atomic_compare_exchange_strong_explicit(&port->complained_at, &before, now, memory_order_relaxed,
                                                   memory_order_relaxed);
}

static void say_unknown(struct sniffer *s, const struct sniff_row *row, struct slice first)
{
    char seen[SEEN_BYTES * 4 + 8];
    if (!may_complain(s->port, s->engine.now))
        return;
    print_bytes(first, seen, sizeof seen);
    log_event(s->port->log, LOG_protocol_unknown, log_str("peer", s->peer.text), log_num("port", s->peer.local_port),
              log_str("seen", row ? row->name : "unknown"), log_str("bytes", seen));
}

static bool is_let_in(const struct sniffer *s, const struct sniff_row *row)
{
    if (row->begins_tls)
        return !s->engine.tls; /* not in one another */
    return row->factory && (!s->port->usual_only || row->factory == s->port->usual);
}

static void hand_over(struct sniffer *s, const struct engine_factory *factory)
{
    s->engine.visiting = factory != s->port->usual && !s->port->trusts_visitors;
    s->engine.successor = factory->make(s->owner, factory->arg, &s->peer, s->engine.now);
    if (!s->engine.successor)
        s->engine.out.failed = true; /* the loop says so in the log */
    engine_dirty(&s->engine);
}

/* Of rows that recognise the same bytes (dialects) the port's usual one, else the first that is spoken. */
static const struct sniff_row *dialect_of(const struct sniffer *s, const struct sniff_row *row)
{
    const struct sniff_row *best = row;
    for (size_t i = 0; i < s->port->row_count; i++) {
        const struct sniff_row *other = &s->port->rows[i];
        if (other->match != row->match || !other->factory)
            continue;
        if (other->factory == s->port->usual)
            return other;
        best = best->factory ? best : other;
    }
    return best;
}

static size_t sniffer_feed(struct engine *engine, struct slice bytes)
{
    struct sniffer *s = of_engine(engine);
    bool more;
    const struct sniff_row *row = sniff(s->port->rows, s->port->row_count, bytes, &more);
    if (!row && more)
        return 0;
    if (row)
        row = dialect_of(s, row);
    if (row && is_let_in(s, row)) {
        if (row->begins_tls)
            engine->begin_tls = true;
        else
            hand_over(s, row->factory);
        return 0;
    }
    say_unknown(s, row, bytes);
    if (s->port->usual) {
        hand_over(s, s->port->usual);
        return 0;
    }
    engine->want_close = true;
    engine_dirty(engine);
    return bytes.len;
}

static mono_t sniffer_tick(struct engine *engine, mono_t now)
{
    struct sniffer *s = of_engine(engine);
    if (now < s->deadline)
        return s->deadline;
    engine->want_close = true;
    engine_dirty(engine);
    return MONO_NEVER;
}

static void sniffer_shutdown(struct engine *engine, const char *text)
{
    (void)text;
    engine->want_close = true;
}

static void sniffer_closed(struct engine *engine)
{
    outq_fini(&engine->out);
    mem_free_as(MEM_CONNECTIONS, of_engine(engine));
}

static const struct engine_ops ops = {
    .name = "sniffer",
    .feed = sniffer_feed,
    .tick = sniffer_tick,
    .shutdown = sniffer_shutdown,
    .closed = sniffer_closed,
};

static struct engine *sniffer_make(void *loop_owner, void *arg, const struct os_peer *peer, mono_t now)
{
    struct sniffer *s = mem_zalloc_as(MEM_CONNECTIONS, sizeof *s);
    if (!s)
        return NULL;
    s->port = arg;
    s->owner = loop_owner;
    s->peer = *peer;
    s->deadline = now + s->port->wait_ms * NS_PER_MS;
    s->engine = (struct engine){.ops = &ops, .now = now, .next_tick = s->deadline, .in_max = SNIFF_BYTES_MAX};
    outq_init(&s->engine.out);
    list_init(&s->engine.dirty_link);
    return &s->engine;
}

struct engine_factory sniff_factory(struct sniff_port *port)
{
    return (struct engine_factory){.make = sniffer_make, .arg = port};
}
