/* sniff: every protocol is known by its first bytes, cut anywhere; what is unknown goes where it is said in the right words;
 * nothing is lost or said twice when a connection changes hands; silence, refused memory and a stop end in one `closed`. */
#include "net/sniff.h"

#include "base/mem.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- matchers ---- */

static const struct {
    const char *name, *first;
    size_t len;
} firsts[] = {
    {"AMQP", "AMQP\0\0\11\1", 8},
    {"AMQP", "AMQP\1\1\0\11", 8},
    {"AMQP", "AMQP\3\1\0\0", 8},
    {"Kafka", "\0\0\0\22\0\22\0\3\0\0\0\1\0\4rdkafka", 16}, /* ApiVersions */
    {"Kafka", "\0\0\0\14\0\3\0\0\0\0\0\1", 12},
    {"Kafka", "\6\100\0\0\0\0\0\11\0\0\0\1", 12}, /* Produce of 100 MiB */
    {"Kafka", "\0\0\0\14\0\22\177\377\0\0\0\1", 12},
    {"MQTT", "\20\14\0\4MQTT\4\2\0\74\0\0", 14},
    {"MQTT", "\20\206\1\0\4MQTT\5\2\0\74", 12},
    {"MQTT", "\20\377\377\377\177\0\4MQTT", 11},
    {"MQTT", "\20\16\0\6MQIsdp\3\2", 12},
    {"STOMP", "CONNECT\naccept-version:1.2\n", 27},
    {"STOMP", "CONNECT\r\nhost:x", 15},
    {"STOMP", "STOMP\naccept", 12},
    {"STOMP", "\n\r\n\nSTOMP\n", 10},
    {"HTTP", "GET / HTTP/1.1\r\n", 16},
    {"HTTP", "OPTIONS * HTTP/1.1\r\n", 20},
    {"HTTP", "CONNECT a:1 HTTP/1.1\r\n", 22},
    {"HTTP", "POST /", 6},
    {"TLS", "\26\3\1\2\0\1\0\1\374\3\3", 11},
    {NULL, "HELO mail\r\n", 11},
    {NULL, "SSH-2.0-OpenSSH", 15},
    {NULL, "\26\3\1\2\0\2\0\1\374\3\3", 11},   /* a server's hello */
    {NULL, "\200\56\1\3\1\0\25\0\0\0\20", 11}, /* SSL 2 */
    {NULL, "\20\377\377\377\377\1\0\4MQTT", 12},
    {NULL, "\20\14\0\4MQTX", 8},
    {NULL, "\0\0\0\14\1\0\0\0", 8}, /* a key of 256 */
    {NULL, "\0\0\0\0\0\0\0\0", 8},  /* no request is that short */
    {NULL, "CONNECTED\n", 10},
    {NULL, "STOMPS\n", 7},
    {NULL, "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nSTOMP\n", 26},
    {NULL, "get / ", 6},
    {NULL, "\377", 1},
};

static struct engine_factory factories[6];

static struct sniff_row rows[] = {
    {"AMQP", sniff_is_amqp, NULL, false}, {"Kafka", sniff_is_kafka, NULL, false},
    {"MQTT", sniff_is_mqtt, NULL, false}, {"STOMP", sniff_is_stomp, NULL, false},
    {"HTTP", sniff_is_http, NULL, false}, {"TLS", sniff_is_tls, NULL, true},
};

/* However few bytes have come: never a wrong answer, and the right one at last. */
static void first_bytes_tell(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(firsts); i++) {
        const struct sniff_row *row = NULL;
        bool more = true;
        for (size_t n = 0; n <= firsts[i].len; n++) {
            row = sniff(rows, ARRAY_LEN(rows), slice_of(firsts[i].first, n), &more);
            if (row && (!firsts[i].name || strcmp(row->name, firsts[i].name) != 0))
                fail_msg("row %zu: %zu bytes are taken for %s", i, n, row->name);
            if (!row && !more)
                break;
        }
        if (firsts[i].name && !row)
            fail_msg("row %zu: %s is not recognised", i, firsts[i].name);
        assert_true(firsts[i].name || !more);
    }
}

static void nothing_is_waited_for_without_end(void **state)
{
    (void)state;
    uint8_t bytes[SNIFF_BYTES_MAX];
    uint64_t draw = 1;
    for (unsigned i = 0; i < 200000; i++) {
        for (size_t j = 0; j < sizeof bytes; j++) {
            draw = draw * 6364136223846793005u + 1442695040888963407u;
            bytes[j] = (uint8_t)(draw >> 40);
            if ((draw >> 33) % 3 == 0)
                bytes[j] = (uint8_t) "\n\0\20\26ACGMS"[(draw >> 40) % 9];
        }
        bool more;
        sniff(rows, ARRAY_LEN(rows), slice_of(bytes, sizeof bytes), &more);
        assert_false(more);
    }
}

/* ---- handing over ---- */

/* Says its name in front of everything, and hands over to another at an exclamation mark. */
struct toy {
    struct engine engine;
    const char *name;
    struct os_peer peer;
};

static struct {
    int made, closed;
    struct toy *last;
} seen;

static struct engine *toy_make(void *owner, void *arg, const struct os_peer *peer, mono_t now);

static const struct engine_factory loud = {.make = toy_make, .arg = (void *)(uintptr_t) "loud"};

static size_t toy_feed(struct engine *engine, struct slice bytes)
{
    const struct toy *toy = (struct toy *)engine;
    const uint8_t *mark = memchr(bytes.ptr, '!', bytes.len);
    size_t len = mark ? (size_t)(mark - bytes.ptr) + 1 : bytes.len;
    outq_put(&engine->out, toy->name, strlen(toy->name));
    outq_put(&engine->out, ":", 1);
    outq_put(&engine->out, bytes.ptr, len);
    if (mark)
        engine->successor = toy_make(NULL, loud.arg, &toy->peer, engine->now);
    engine_dirty(engine);
    return len;
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
    seen.closed++;
    outq_fini(&engine->out);
    mem_free(engine);
}

static const struct engine_ops toy_ops = {
    .name = "toy", .feed = toy_feed, .tick = toy_tick, .shutdown = toy_shutdown, .closed = toy_closed};

static struct engine *toy_make(void *owner, void *arg, const struct os_peer *peer, mono_t now)
{
    (void)owner;
    struct toy *toy = mem_zalloc(sizeof *toy);
    if (!toy)
        return NULL;
    toy->engine = (struct engine){.ops = &toy_ops, .in_max = 1000, .now = now, .next_tick = MONO_NEVER};
    outq_init(&toy->engine.out);
    list_init(&toy->engine.dirty_link);
    toy->name = arg;
    toy->peer = *peer;
    seen.made++;
    seen.last = toy;
    return &toy->engine;
}

struct world {
    struct loop *loop;
    struct sniff_port port;
    struct engine_factory factory;
};

static mono_t ahead;

static mono_t fast_now(struct os *os)
{
    (void)os;
    return os_posix()->now_mono(os_posix()) + ahead;
}

static struct os *fast_os(void)
{
    static struct os os;
    os = *os_posix();
    os.now_mono = fast_now;
    return &os;
}

static void set_up(struct world *w)
{
    static const char *const names[] = {"amqp", "kafka", "mqtt", "stomp"};
    memset(&seen, 0, sizeof seen);
    ahead = 0;
    *w = (struct world){.port = {.rows = rows, .row_count = ARRAY_LEN(rows), .wait_ms = 5000}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        factories[i] = (struct engine_factory){.make = toy_make, .arg = (void *)(uintptr_t)names[i]};
        rows[i].factory = &factories[i];
    }
    rows[4].factory = NULL;
    w->port.usual = &factories[0];
    w->factory = sniff_factory(&w->port);
    struct loop_options options = {.os = fast_os()};
    assert_int_equal(loop_new(&options, &w->loop), 0);
}

static int connect_to(struct world *w)
{
    int fds[2];
    struct os_peer peer = {.text = "1.2.3.4:5", .loopback = true, .local = "4.3.2.1", .local_port = 99};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_true(loop_connect(w->loop, fds[0], &peer, &w->factory));
    return fds[1];
}

static void say(struct world *w, int fd, const char *bytes, size_t len, size_t step)
{
    for (size_t at = 0; at < len; at += step) {
        size_t n = len - at < step ? len - at : step;
        assert_int_equal(send(fd, bytes + at, n, 0), n);
        loop_tick(w->loop, false);
        loop_tick(w->loop, false);
    }
}

static void expect(struct world *w, int fd, const char *text)
{
    char got[256] = "";
    size_t len = 0;
    for (int i = 0; i < 10; i++) {
        ssize_t n = recv(fd, got + len, sizeof got - 1 - len, 0);
        len += n > 0 ? (size_t)n : 0;
        loop_tick(w->loop, false);
    }
    got[len] = '\0';
    assert_string_equal(got, text);
}

static bool is_closed(struct world *w, int fd)
{
    char byte;
    for (int i = 0; i < 3; i++)
        loop_tick(w->loop, false);
    return recv(fd, &byte, 1, 0) == 0;
}

static void tear_down(struct world *w)
{
    loop_free(&w->loop);
    assert_int_equal(seen.made, seen.closed);
}

static void bytes_reach_the_right_engine_once(void **state)
{
    (void)state;
    struct world w;
    set_up(&w);
    int fd = connect_to(&w);
    say(&w, fd, "CONNECT\nhost:x\n", 15, 100);
    expect(&w, fd, "stomp:CONNECT\nhost:x\n");
    assert_string_equal(seen.last->peer.text, "1.2.3.4:5");
    assert_int_equal(seen.last->peer.local_port, 99);
    assert_string_equal(seen.last->engine.peer, "1.2.3.4:5");
    assert_true(seen.last->engine.peer_loopback);
    say(&w, fd, "CONNECT\n", 8, 8); /* it stays with it */
    expect(&w, fd, "stomp:CONNECT\n");
    close(fd);
    fd = connect_to(&w);
    say(&w, fd, "AMQP\0\0", 4, 1);
    expect(&w, fd, "amqp:AMQP");
    close(fd);
    fd = connect_to(&w);
    say(&w, fd, "\20\14\0\4MQTTx", 9, 1);
    expect(&w, fd, "mqtt:\20\14"); /* as far as a text goes */
    close(fd);
    loop_tick(w.loop, false);
    assert_int_equal(seen.made, 3);
    tear_down(&w);
}

/* What the first engine has said leaves in front of what the second says, and what it has left is the second's. */
static void a_chain_keeps_the_order(void **state)
{
    (void)state;
    struct world w;
    set_up(&w);
    int fd = connect_to(&w);
    say(&w, fd, "STOMP\nup!and on!again", 21, 100);
    expect(&w, fd, "stomp:STOMP\nup!loud:and on!loud:again");
    assert_int_equal(seen.made, 3);
    assert_int_equal(seen.closed, 2);
    close(fd);
    loop_tick(w.loop, false);
    tear_down(&w);
}

static void unknown_bytes_go_to_the_usual_engine_or_nowhere(void **state)
{
    (void)state;
    struct world w;
    set_up(&w);
    int fd = connect_to(&w);
    say(&w, fd, "EHLO", 4, 4);
    expect(&w, fd, "amqp:EHLO");
    close(fd);
    fd = connect_to(&w);
    say(&w, fd, "GET / HTTP", 10, 10); /* known, and not spoken here */
    expect(&w, fd, "amqp:GET / HTTP");
    close(fd);
    fd = connect_to(&w);
    rows[5].begins_tls = false; /* no certificate */
    say(&w, fd, "\26\3\1\2\0\1", 6, 6);
    expect(&w, fd, "amqp:\26\3\1\2");
    close(fd);
    rows[5].begins_tls = true;
    w.port.usual = NULL;
    fd = connect_to(&w);
    say(&w, fd, "EHLO", 4, 4);
    assert_true(is_closed(&w, fd));
    close(fd);
    loop_tick(w.loop, false);
    tear_down(&w);
}

static void a_port_may_keep_to_its_own(void **state)
{
    (void)state;
    struct world w;
    set_up(&w);
    w.port.usual_only = true;
    int fd = connect_to(&w);
    say(&w, fd, "STOMP\n", 6, 6);
    expect(&w, fd, "amqp:STOMP\n");
    close(fd);
    loop_tick(w.loop, false);
    tear_down(&w);
}

/* Several ports may speak one protocol, each in a way of its own. */
static void a_port_may_have_an_engine_of_its_own(void **state)
{
    (void)state;
    struct world w;
    set_up(&w);
    const struct sniff_row dialects[] = {{.name = "STOMP", .match = sniff_is_stomp},
                                         {.name = "STOMP", .match = sniff_is_stomp, .factory = &factories[3]},
                                         {.name = "STOMP, louder", .match = sniff_is_stomp, .factory = &loud}};
    w.port.rows = dialects;
    w.port.row_count = ARRAY_LEN(dialects);
    for (int row = 0; row < 4; row++) {
        w.port.usual_only = row & 1;
        w.port.usual = row & 2 ? &loud : &factories[3];
        int fd = connect_to(&w);
        say(&w, fd, "STOMP\n", 6, 6);
        expect(&w, fd, row & 2 ? "loud:STOMP\n" : "stomp:STOMP\n");
        close(fd);
    }
    w.port.usual = &factories[0]; /* of a port of another protocol: the first that is spoken */
    w.port.usual_only = false;
    int other = connect_to(&w);
    say(&w, other, "STOMP\n", 6, 6);
    expect(&w, other, "stomp:STOMP\n");
    close(other);
    loop_tick(w.loop, false);
    tear_down(&w);
}

/* Who speaks another protocol than the port's own is marked, unless the port trusts visitors. */
static void visitors_are_marked(void **state)
{
    static const struct {
        const char *first;
        bool trusts, visiting;
    } cases[] = {{"AMQP", false, false}, {"STOMP\n", false, true}, {"STOMP\n", true, false}, {"EHLO", false, false}};
    (void)state;
    struct world w;
    set_up(&w);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        w.port.trusts_visitors = cases[i].trusts;
        int fd = connect_to(&w);
        say(&w, fd, cases[i].first, strlen(cases[i].first), 1);
        assert_int_equal(seen.last->engine.visiting, cases[i].visiting);
        assert_int_equal(engine_may_be_anonymous(&seen.last->engine), !cases[i].visiting);
        close(fd);
    }
    loop_tick(w.loop, false);
    tear_down(&w);
}

static void silence_is_not_borne_for_ever(void **state)
{
    (void)state;
    struct world w;
    set_up(&w);
    int silent = connect_to(&w), slow = connect_to(&w);
    say(&w, slow, "AM", 2, 1);
    ahead = 4900 * NS_PER_MS;
    assert_false(is_closed(&w, silent));
    ahead = 5100 * NS_PER_MS;
    assert_true(is_closed(&w, silent));
    assert_true(is_closed(&w, slow));
    close(silent);
    close(slow);
    loop_tick(w.loop, false);
    assert_int_equal(seen.made, 0);
    tear_down(&w);
}

static void stop_and_hang_up_end_it(void **state)
{
    (void)state;
    struct world w;
    size_t before = mem_in_use();
    set_up(&w);
    int stays = connect_to(&w), goes = connect_to(&w);
    say(&w, goes, "ST", 2, 2);
    close(goes);
    loop_tick(w.loop, false);
    assert_int_equal(loop_conns(w.loop), 1);
    loop_shutdown(w.loop, "bye");
    assert_true(is_closed(&w, stays));
    close(stays);
    loop_tick(w.loop, false);
    tear_down(&w);
    assert_int_equal(mem_in_use(), before);
}

static void refused_memory_costs_one_connection(void **state)
{
    (void)state;
    struct world w;
    set_up(&w);
    size_t before = mem_in_use();
    int peer = 0;
    for (uint64_t n = 1; n < 50; n++) {
        int fds[2];
        struct os_peer from = {.text = "test"};
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
        peer = fds[1];
        mem_fail_at(n, false);
        loop_connect(w.loop, fds[0], &from, &w.factory);
        for (size_t at = 0; at < 21; at += 3) {
            (void)!send(peer, &"STOMP\nup!and on!again"[at], 3, MSG_NOSIGNAL);
            loop_tick(w.loop, false);
        }
        bool hit = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        close(peer);
        for (int i = 0; i < 3; i++)
            loop_tick(w.loop, false);
        assert_int_equal(loop_conns(w.loop), 0);
        assert_int_equal(mem_in_use(), before);
        if (!hit)
            break;
    }
    tear_down(&w);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_bytes_tell),
        cmocka_unit_test(nothing_is_waited_for_without_end),
        cmocka_unit_test(bytes_reach_the_right_engine_once),
        cmocka_unit_test(a_chain_keeps_the_order),
        cmocka_unit_test(unknown_bytes_go_to_the_usual_engine_or_nowhere),
        cmocka_unit_test(a_port_may_keep_to_its_own),
        cmocka_unit_test(a_port_may_have_an_engine_of_its_own),
        cmocka_unit_test(visitors_are_marked),
        cmocka_unit_test(silence_is_not_borne_for_ever),
        cmocka_unit_test(stop_and_hang_up_end_it),
        cmocka_unit_test(refused_memory_costs_one_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
