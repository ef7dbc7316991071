/* conn with TLS: the echo of loop_test through a real socket and a real client: bytes come back whole however they are cut,
 * pieces of files among them; slow, deaf and hung-up peers; TLS that begins on a plain port; who may not shake hands. */
#include "net/loop.h"

#include "net/conn.h"
#include "net/sniff.h"
#include "net/tls_rig_test.h"
#include "os/os_file.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

static struct issued ca, server, alice;
static char *ca_pem, *server_pem;
static mono_t ahead;

static int make_certificates(void **state)
{
    (void)state;
    ca = issue(&(struct wanted){.names = {"CA"}, .ca = true}, NULL);
    server = issue(&(struct wanted){.names = {"localhost"}}, &ca);
    alice = issue(&(struct wanted){.names = {"alice"}}, &ca);
    ca_pem = pem(&ca, NULL, NULL);
    server_pem = pem(&server, NULL, server.key);
    return 0;
}

static int free_certificates(void **state)
{
    (void)state;
    issued_free(&ca);
    issued_free(&server);
    issued_free(&alice);
    free(ca_pem);
    free(server_pem);
    return 0;
}

/* ---- the echo ---- */

static struct {
    struct engine *last;
    int made, closed, drained;
    bool tls, close_after;
    char certified[50];
} seen;

static size_t echo_feed(struct engine *engine, struct slice bytes)
{
    if (engine->paused || engine->want_close)
        return 0;
    seen.tls = engine->tls;
    snprintf(seen.certified, sizeof seen.certified, "%s", engine->certified ? engine->certified : "");
    outq_put(&engine->out, bytes.ptr, bytes.len);
    engine->want_close = seen.close_after;
    engine_dirty(engine);
    return bytes.len;
}

static mono_t echo_tick(struct engine *engine, mono_t now)
{
    (void)engine;
    (void)now;
    return MONO_NEVER;
}

static void echo_drained(struct engine *engine)
{
    (void)engine;
    seen.drained++;
}

static void echo_shutdown(struct engine *engine, const char *text)
{
    outq_put(&engine->out, text, strlen(text));
    engine->want_close = true;
}

static void echo_closed(struct engine *engine)
{
    seen.closed++;
    outq_fini(&engine->out);
    mem_free(engine);
}

static const struct engine_ops echo_ops = {.name = "echo",
                                           .feed = echo_feed,
                                           .tick = echo_tick,
                                           .drained = echo_drained,
                                           .shutdown = echo_shutdown,
                                           .closed = echo_closed};

static struct engine *echo_make(void *owner, void *arg, const struct os_peer *peer, mono_t now)
{
    (void)owner;
    (void)arg;
    (void)peer;
    struct engine *engine = mem_zalloc(sizeof *engine);
    if (!engine)
        return NULL;
    *engine = (struct engine){.ops = &echo_ops, .in_max = 128 * 1024, .now = now, .next_tick = MONO_NEVER};
    outq_init(&engine->out);
    list_init(&engine->dirty_link);
    seen.made++;
    seen.last = engine;
    return engine;
}

static const struct engine_factory echo_factory = {.make = echo_make, .tls = true};
static const struct engine_factory plain_factory = {.make = echo_make};

/* ---- the scene ---- */

struct world {
    struct tls_server *server;
    struct loop *loop;
    SSL_CTX *ctx;
    SSL *ssl;
    int fd;
};

static mono_t fast_now(struct os *os)
{
    (void)os;
    return os_posix()->now_mono(os_posix()) + ahead;
}

static void open_loop(struct world *w)
{
    static struct os os;
    char why[400];
    struct tls_pair pair = {.certificate = file_of("server.pem", server_pem), .key = file_of("server.pem", server_pem)};
    struct tls_options options = {.pairs = &pair,
                                  .pair_count = 1,
                                  .ciphers = "",
                                  .client = TLS_CLIENT_REQUEST,
                                  .client_ca = file_of("ca.pem", ca_pem),
                                  .handshake_ms = 2000};
    memset(&seen, 0, sizeof seen);
    ahead = 0;
    os = *os_posix();
    os.now_mono = fast_now;
    *w = (struct world){.fd = -1};
    assert_int_equal(tls_server_new(&options, &w->server, why, sizeof why), 0);
    struct loop_options loop = {.os = &os, .tls = w->server};
    assert_int_equal(loop_new(&loop, &w->loop), 0);
}

static void connect_raw(struct world *w, const struct engine_factory *factory)
{
    int fds[2];
    struct os_peer peer = {.text = "test", .loopback = true};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    w->fd = fds[1];
    assert_true(loop_connect(w->loop, fds[0], &peer, factory));
}

static bool connect_tls(struct world *w, const struct engine_factory *factory, const struct issued *certificate)
{
    connect_raw(w, factory);
    w->ctx = SSL_CTX_new(TLS_client_method());
    if (certificate) {
        SSL_CTX_use_certificate(w->ctx, certificate->certificate);
        SSL_CTX_use_PrivateKey(w->ctx, certificate->key);
    }
    w->ssl = SSL_new(w->ctx);
    SSL_set_fd(w->ssl, w->fd);
    for (int i = 0; i < 20; i++) {
        if (SSL_connect(w->ssl) == 1)
            return true;
        loop_tick(w->loop, false);
    }
    return false;
}

static void hang_up(struct world *w)
{
    if (w->ssl) {
        SSL_free(w->ssl);
        SSL_CTX_free(w->ctx);
    }
    if (w->fd >= 0)
        close(w->fd);
    w->ssl = NULL;
    w->ctx = NULL;
    w->fd = -1;
}

static void close_loop(struct world *w)
{
    hang_up(w);
    loop_free(&w->loop);
    tls_server_free(&w->server);
    assert_int_equal(seen.made, seen.closed);
    ERR_clear_error();
}

/* Says len bytes and reads as many back, at most `step` at a time. */
static void talk(struct world *w, size_t len, size_t step)
{
    uint8_t *out = malloc(len), *in = malloc(len);
    size_t sent = 0, got = 0;
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(i * 7 + i / 251);
    for (unsigned round = 0; got < len && round < 2000000; round++) {
        size_t n = 0;
        ERR_clear_error();
        if (sent < len && SSL_write_ex(w->ssl, out + sent, len - sent < step ? len - sent : step, &n) == 1)
            sent += n;
        loop_tick(w->loop, false);
        ERR_clear_error();
        while (got < len && SSL_read_ex(w->ssl, in + got, len - got < step ? len - got : step, &n) == 1)
            got += n;
    }
    assert_int_equal(got, len);
    assert_memory_equal(in, out, len);
    free(out);
    free(in);
}

static void echoes_come_back(void **state)
{
    (void)state;
    struct world w;
    open_loop(&w);
    assert_true(connect_tls(&w, &echo_factory, &alice));
    SSL_set_mode(w.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    talk(&w, 1, 1);
    talk(&w, 300, 1);
    talk(&w, 100000, 777);
    talk(&w, 3000000, 1 << 20);
    assert_true(seen.tls);
    assert_string_equal(seen.certified, "alice");
    assert_true(seen.drained > 0);
    loop_tick(w.loop, false);
    assert_true(conn_memory(seen.last->conn) < 1000); /* idle: nothing is kept */
    close_loop(&w);
}

static void a_pause_loses_nothing(void **state)
{
    (void)state;
    struct world w;
    size_t n;
    uint8_t back[100];
    open_loop(&w);
    assert_true(connect_tls(&w, &echo_factory, NULL));
    loop_tick(w.loop, false);
    seen.last->paused = true;
    for (int i = 0; i < 50; i++)
        assert_int_equal(SSL_write_ex(w.ssl, "ab", 2, &n), 1);
    for (int i = 0; i < 5; i++)
        loop_tick(w.loop, false);
    assert_int_equal(SSL_read_ex(w.ssl, back, sizeof back, &n), 0);
    seen.last->paused = false;
    engine_dirty(seen.last);
    size_t got = 0;
    for (int i = 0; i < 10; i++) {
        loop_tick(w.loop, false);
        ERR_clear_error();
        while (SSL_read_ex(w.ssl, back, sizeof back, &n) == 1)
            got += n;
    }
    assert_int_equal(got, 100);
    assert_string_equal(seen.certified, "");
    close_loop(&w);
}

/* A deaf peer holds its own bytes; when it listens again it gets all of them; another is served meanwhile. */
static void a_deaf_peer_gets_everything_later(void **state)
{
    (void)state;
    struct world deaf;
    open_loop(&deaf);
    assert_true(connect_tls(&deaf, &echo_factory, NULL));
    struct engine *engine = seen.last;
    struct world other = {.server = deaf.server, .loop = deaf.loop};
    assert_true(connect_tls(&other, &echo_factory, NULL));
    size_t total = 4u << 20, got = 0, n;
    uint8_t *text = malloc(total), *back = malloc(total);
    for (size_t i = 0; i < total; i++)
        text[i] = (uint8_t)(i * 13 + i / 257);
    outq_put(&engine->out, text, total);
    engine_dirty(engine);
    for (int i = 0; i < 50; i++)
        loop_tick(deaf.loop, false);
    assert_true(engine->out.len > total / 2);
    assert_true(conn_memory(engine->conn) < 500000);
    talk(&other, 50000, 5000);
    for (unsigned i = 0; got < total && i < 100000; i++) {
        ERR_clear_error();
        while (got < total && SSL_read_ex(deaf.ssl, back + got, total - got, &n) == 1)
            got += n;
        loop_tick(deaf.loop, got < total);
    }
    assert_int_equal(got, total);
    assert_memory_equal(text, back, total);
    free(text);
    free(back);
    hang_up(&other);
    close_loop(&deaf);
}

static void last_words_and_goodbye_arrive(void **state)
{
    (void)state;
    struct world w;
    size_t n;
    uint8_t back[100];
    open_loop(&w);
    assert_true(connect_tls(&w, &echo_factory, NULL));
    seen.close_after = true;
    assert_int_equal(SSL_write_ex(w.ssl, "bye", 3, &n), 1);
    for (int i = 0; i < 4; i++)
        loop_tick(w.loop, false);
    assert_int_equal(seen.closed, 1);
    assert_int_equal(SSL_read_ex(w.ssl, back, sizeof back, &n), 1);
    assert_int_equal(n, 3);
    assert_int_equal(SSL_read_ex(w.ssl, back, sizeof back, &n), 0);
    assert_int_equal(SSL_get_error(w.ssl, 0), SSL_ERROR_ZERO_RETURN); /* said, not cut off */
    close_loop(&w);
}

static void hang_ups_are_noticed(void **state)
{
    (void)state;
    for (int row = 0; row < 4; row++) {
        struct world w;
        size_t n;
        open_loop(&w);
        assert_true(connect_tls(&w, &echo_factory, NULL));
        loop_tick(w.loop, false);
        if (row == 1)
            SSL_shutdown(w.ssl);
        if (row == 2)
            assert_int_equal(SSL_write_ex(w.ssl, "last", 4, &n), 1);
        if (row == 3)
            assert_int_equal(send(w.fd, "\27\3\3\1\0half", 9, 0), 9);
        hang_up(&w);
        mono_t until = os_posix()->now_mono(os_posix()) + 500 * NS_PER_MS;
        while (!seen.closed && os_posix()->now_mono(os_posix()) < until)
            loop_tick(w.loop, true);
        assert_int_equal(seen.closed, 1);
        close_loop(&w);
    }
}

/* ---- files ---- */

static void pieces_of_files_go_through_it(void **state)
{
    (void)state;
    struct world w;
    char path[] = "tls_conn_test.XXXXXX";
    int fd = mkstemp(path);
    size_t total = 1u << 20, got = 0, n;
    uint8_t *text = malloc(total), *back = malloc(total + 8);
    for (size_t i = 0; i < total; i++)
        text[i] = (uint8_t)(i * 31 + i / 251);
    assert_int_equal(write(fd, text, total), total);
    unlink(path);
    open_loop(&w);
    assert_true(connect_tls(&w, &echo_factory, NULL));
    struct file_piece piece = {.file = os_file_new(os_posix(), fd), .position = 100, .len = total - 100};
    assert_non_null(piece.file);
    outq_put(&seen.last->out, "head", 4);
    outq_lend_file(&seen.last->out, &piece);
    outq_put(&seen.last->out, "tail", 4);
    engine_dirty(seen.last);
    for (unsigned i = 0; got < total - 92 && i < 10000; i++) {
        loop_tick(w.loop, false);
        ERR_clear_error();
        while (SSL_read_ex(w.ssl, back + got, total - got, &n) == 1)
            got += n;
    }
    assert_int_equal(got, total - 92);
    assert_memory_equal(back, "head", 4);
    assert_memory_equal(back + 4, text + 100, total - 100);
    assert_memory_equal(back + total - 96, "tail", 4);
    free(text);
    free(back);
    close_loop(&w);
}

static void a_short_file_ends_the_connection(void **state)
{
    (void)state;
    struct world w;
    char path[] = "tls_conn_test.XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "short", 5), 5);
    unlink(path);
    open_loop(&w);
    assert_true(connect_tls(&w, &echo_factory, NULL));
    struct file_piece piece = {.file = os_file_new(os_posix(), fd), .position = 0, .len = 100};
    outq_lend_file(&seen.last->out, &piece);
    engine_dirty(seen.last);
    for (int i = 0; i < 4; i++)
        loop_tick(w.loop, false);
    assert_int_equal(seen.closed, 1);
    close_loop(&w);
}

/* ---- who does not come in ---- */

static void who_says_nothing_is_let_go(void **state)
{
    (void)state;
    struct world w;
    open_loop(&w);
    connect_raw(&w, &echo_factory);
    loop_tick(w.loop, false);
    assert_int_equal(send(w.fd, "\26\3\1", 3, 0), 3);
    ahead = 1900 * NS_PER_MS;
    loop_tick(w.loop, false);
    assert_int_equal(seen.closed, 0);
    ahead = 2200 * NS_PER_MS;
    loop_tick(w.loop, false);
    loop_tick(w.loop, false);
    assert_int_equal(seen.closed, 1);
    hang_up(&w);
    assert_true(connect_tls(&w, &echo_factory, NULL)); /* and who has shaken hands stays */
    loop_tick(w.loop, false);
    ahead += 60 * NS_PER_S;
    loop_tick(w.loop, false);
    talk(&w, 100, 100);
    close_loop(&w);
}

static void who_does_not_speak_it_is_told(void **state)
{
    (void)state;
    struct world w;
    uint8_t back[100];
    open_loop(&w);
    connect_raw(&w, &echo_factory);
    static uint8_t much[100000] = "AMQP\0\0\11\1 and more"; /* than is read before it is seen */
    assert_int_equal(send(w.fd, much, sizeof much, 0), sizeof much);
    for (int i = 0; i < 4; i++)
        loop_tick(w.loop, false);
    assert_int_equal(seen.closed, 1);
    ssize_t n = recv(w.fd, back, sizeof back, 0);
    assert_true(n == 0 || (n == 7 && back[0] == 21)); /* the end, after an alert at most; no reset */
    close_loop(&w);
}

static void a_stop_does_not_wait_for_hands(void **state)
{
    (void)state;
    struct world w;
    open_loop(&w);
    connect_raw(&w, &echo_factory);
    loop_tick(w.loop, false);
    loop_shutdown(w.loop, "bye");
    loop_tick(w.loop, false);
    assert_int_equal(seen.closed, 0); /* it has something to say, and nobody to say it to */
    ahead = 6 * NS_PER_S;
    loop_tick(w.loop, false);
    loop_tick(w.loop, false);
    assert_int_equal(seen.closed, 1);
    close_loop(&w);
}

/* ---- on a plain port ---- */

static void tls_begins_where_it_is_seen(void **state)
{
    (void)state;
    struct world w;
    const struct sniff_row rows[] = {{"AMQP", sniff_is_amqp, &plain_factory, false}, {"TLS", sniff_is_tls, NULL, true}};
    struct sniff_port port = {.rows = rows, .row_count = 2, .usual = NULL, .wait_ms = 1000};
    struct engine_factory sniffer = sniff_factory(&port);
    open_loop(&w);
    assert_true(connect_tls(&w, &sniffer, &alice));
    assert_int_equal(seen.made, 0); /* what is in it has not been said yet */
    size_t n;
    uint8_t back[100];
    assert_int_equal(SSL_write_ex(w.ssl, "AMQPwhat", 8, &n), 1);
    for (int i = 0; i < 4; i++)
        loop_tick(w.loop, false);
    assert_int_equal(SSL_read_ex(w.ssl, back, sizeof back, &n), 1);
    assert_int_equal(n, 8);
    assert_true(seen.tls);
    assert_string_equal(seen.certified, "alice");
    hang_up(&w);
    for (size_t cut = 1; cut < 60; cut += 3) { /* its first bytes come in two */
        connect_raw(&w, &sniffer);
        struct client client = client_new(&(struct client_wants){0});
        uint8_t hello[2000];
        (void)SSL_do_handshake(client.ssl);
        int len = BIO_read(client.out, hello, sizeof hello);
        assert_int_equal(send(w.fd, hello, cut, 0), cut);
        loop_tick(w.loop, false);
        assert_int_equal(send(w.fd, hello + cut, (size_t)len - cut, 0), (size_t)len - cut);
        for (int i = 0; i < 3; i++)
            loop_tick(w.loop, false);
        assert_true(recv(w.fd, hello, sizeof hello, 0) > 100);
        assert_int_equal(hello[0], 22);
        client_free(&client);
        hang_up(&w);
    }
    connect_tls(&w, &sniffer, NULL); /* TLS in TLS is nothing that is spoken */
    assert_int_equal(SSL_write_ex(w.ssl, "\26\3\1\2\0\1\0\1\374\3\3", 11, &n), 1);
    for (int i = 0; i < 4; i++)
        loop_tick(w.loop, false);
    assert_int_equal(SSL_read_ex(w.ssl, back, sizeof back, &n), 0);
    assert_int_equal(SSL_get_error(w.ssl, 0), SSL_ERROR_ZERO_RETURN);
    close_loop(&w);
}

/* Many at once: hands are shaken with a few in each tick, and all get their turn. */
static void a_herd_is_let_in_bit_by_bit(void **state)
{
    (void)state;
    struct world w, herd[60];
    open_loop(&w);
    for (size_t i = 0; i < ARRAY_LEN(herd); i++) {
        herd[i] = (struct world){.server = w.server, .loop = w.loop};
        connect_raw(&herd[i], &echo_factory);
        herd[i].ctx = SSL_CTX_new(TLS_client_method());
        herd[i].ssl = SSL_new(herd[i].ctx);
        SSL_set_fd(herd[i].ssl, herd[i].fd);
        (void)SSL_connect(herd[i].ssl);
    }
    loop_tick(w.loop, false);
    unsigned answered = 0;
    for (size_t i = 0; i < ARRAY_LEN(herd); i++) {
        char byte;
        answered += recv(herd[i].fd, &byte, 1, MSG_PEEK) == 1;
    }
    assert_true(answered > 0 && answered <= 16);
    for (size_t i = 0; i < ARRAY_LEN(herd); i++) {
        for (int round = 0; round < 30 && SSL_connect(herd[i].ssl) != 1; round++)
            loop_tick(w.loop, false);
        assert_true(SSL_is_init_finished(herd[i].ssl));
        talk(&herd[i], 10, 10);
        hang_up(&herd[i]);
    }
    close_loop(&w);
}

static void refused_memory_costs_one_connection(void **state)
{
    (void)state;
    struct world w;
    open_loop(&w);
    assert_true(connect_tls(&w, &echo_factory, &alice)); /* the loop's buffers are there for good */
    hang_up(&w);
    loop_tick(w.loop, false);
    loop_tick(w.loop, false);
    size_t before = mem_in_use();
    for (uint64_t n = 1; n < 60; n++) {
        int fds[2];
        struct os_peer peer = {.text = "test"};
        size_t count;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
        w.fd = fds[1];
        w.ctx = SSL_CTX_new(TLS_client_method());
        SSL_CTX_use_certificate(w.ctx, alice.certificate);
        SSL_CTX_use_PrivateKey(w.ctx, alice.key);
        w.ssl = SSL_new(w.ctx);
        SSL_set_fd(w.ssl, w.fd);
        mem_fail_at(n, false);
        loop_connect(w.loop, fds[0], &peer, &echo_factory);
        for (int i = 0; i < 10; i++) {
            if (SSL_connect(w.ssl) == 1)
                (void)SSL_write_ex(w.ssl, "hello", 5, &count);
            loop_tick(w.loop, false);
        }
        bool hit = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        assert_true(!seen.certified[0] || strcmp(seen.certified, "alice") == 0);
        hang_up(&w);
        for (int i = 0; i < 3; i++)
            loop_tick(w.loop, false);
        assert_int_equal(loop_conns(w.loop), 0);
        assert_int_equal(mem_in_use(), before);
        if (!hit)
            break;
    }
    close_loop(&w);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echoes_come_back),
        cmocka_unit_test(a_pause_loses_nothing),
        cmocka_unit_test(a_deaf_peer_gets_everything_later),
        cmocka_unit_test(last_words_and_goodbye_arrive),
        cmocka_unit_test(hang_ups_are_noticed),
        cmocka_unit_test(pieces_of_files_go_through_it),
        cmocka_unit_test(a_short_file_ends_the_connection),
        cmocka_unit_test(who_says_nothing_is_let_go),
        cmocka_unit_test(who_does_not_speak_it_is_told),
        cmocka_unit_test(a_stop_does_not_wait_for_hands),
        cmocka_unit_test(tls_begins_where_it_is_seen),
        cmocka_unit_test(a_herd_is_let_in_bit_by_bit),
        cmocka_unit_test(refused_memory_costs_one_connection),
    };
    return cmocka_run_group_tests(tests, make_certificates, free_certificates);
}
