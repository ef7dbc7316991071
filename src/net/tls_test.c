/* tls: what goes in on one side comes out on the other however it is cut; versions, ciphers and certificates that are not
 * good enough are refused and named; whoever floods, stalls or vanishes costs a bounded amount; nothing is leaked. */
#include "net/tls.h"

#include "net/tls_rig_test.h"
#include "net/tls_throwaway.h"

#define TEXT_MAX (1u << 20)

/* ---- OpenSSL's own memory, that a test can refuse ---- */

static struct {
    uint64_t fail_at, count;
    bool hit;
    int64_t in_use;
} library;

static bool refused(void)
{
    if (library.fail_at && ++library.count == library.fail_at) {
        library.hit = true;
        return true;
    }
    return false;
}

static void *library_alloc(size_t len, const char *file, int line)
{
    (void)file;
    (void)line;
    void *made = len == 0 || refused() ? NULL : malloc(len);
    library.in_use += made ? 1 : 0;
    return made;
}

static void library_free(void *block, const char *file, int line)
{
    (void)file;
    (void)line;
    library.in_use -= block ? 1 : 0;
    free(block);
}

static void *library_realloc(void *block, size_t len, const char *file, int line)
{
    if (!block)
        return library_alloc(len, file, line);
    if (len == 0) {
        library_free(block, file, line);
        return NULL;
    }
    return refused() ? NULL : realloc(block, len);
}

/* ---- the scene ---- */

static struct issued ca, other_ca, server, second, client_certificate;
static char *ca_pem, *other_ca_pem, *server_pem, *second_pem, *server_only, *server_key;

static int make_certificates(void **state)
{
    (void)state;
    ca = issue(&(struct wanted){.names = {"CA"}, .ca = true}, NULL);
    other_ca = issue(&(struct wanted){.names = {"Other CA"}, .ca = true}, NULL);
    server = issue(&(struct wanted){.names = {"localhost"}, .alternative = "DNS:localhost"}, &ca);
    second = issue(&(struct wanted){.names = {"second"}, .alternative = "DNS:second.example,DNS:*.wild.example"}, &ca);
    client_certificate = issue(
        &(struct wanted){.names = {"alice"}, .alternative = "URI:urn:a,email:a@b.example,DNS:alice.example"}, &ca);
    ca_pem = pem(&ca, NULL, NULL);
    other_ca_pem = pem(&other_ca, NULL, NULL);
    server_pem = pem(&server, &ca, server.key);
    second_pem = pem(&second, NULL, second.key);
    server_only = pem(&server, NULL, NULL);
    server_key = pem(NULL, NULL, server.key);
    return 0;
}

static int free_certificates(void **state)
{
    (void)state;
    struct issued *all[] = {&ca, &other_ca, &server, &second, &client_certificate};
    char *texts[] = {ca_pem, other_ca_pem, server_pem, second_pem, server_only, server_key};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        issued_free(all[i]);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        free(texts[i]);
    return 0;
}

static char why[800];

struct world {
    struct tls_server *server;
    bool lent; /* the server is the caller's */
    struct tls_buffers *buffers;
    struct queue up, down; /* to the server, to the client */
    struct client client;
    struct tls *tls;
    uint8_t *got; /* by the server */
    size_t got_len;
    int64_t end; /* what tls_read answered last, when it was no count and not -EAGAIN; 1: not */
};

static int64_t world_recv(void *arg, void *ret, size_t len)
{
    return queue_take(&((struct world *)arg)->up, ret, len);
}

static int64_t world_send(void *arg, const void *bytes, size_t len)
{
    return queue_put(&((struct world *)arg)->down, bytes, len);
}

static struct tls_options options_with(const struct tls_pair *pairs, size_t count)
{
    return (struct tls_options){.pairs = pairs, .pair_count = count, .ciphers = "", .handshake_ms = 1000};
}

static const struct tls_pair *usual_pair(void)
{
    static struct tls_pair pair;
    pair.certificate = pair.key = file_of("server.pem", server_pem);
    return &pair;
}

/* server NULL: one of its own. */
static void world_open_at(struct world *w, struct tls_server *lent, const struct tls_options *options,
                          const struct client_wants *wants)
{
    *w = (struct world){.end = 1, .server = lent, .lent = lent};
    struct tls_options usual = options_with(usual_pair(), 1);
    if (!lent && tls_server_new(options ? options : &usual, &w->server, why, sizeof why) != 0)
        fail_msg("%s", why);
    w->buffers = tls_buffers_new();
    queue_init(&w->up);
    queue_init(&w->down);
    w->got = malloc(QUEUE_MAX);
    struct client_wants none = {0};
    w->client = client_new(wants ? wants : &none);
    struct tls_pipe pipe = {.recv = world_recv, .send = world_send, .arg = w};
    w->tls = tls_new(w->server, w->buffers, &pipe, (struct slice){0});
    assert_non_null(w->tls);
}

static void world_open(struct world *w, const struct tls_options *options, const struct client_wants *wants)
{
    world_open_at(w, NULL, options, wants);
}

static void world_close(struct world *w)
{
    tls_free(&w->tls);
    client_free(&w->client);
    tls_buffers_free(&w->buffers);
    if (!w->lent)
        tls_server_free(&w->server);
    queue_free(&w->up);
    queue_free(&w->down);
    free(w->got);
}

/* The server reads what there is, and the end of it. */
static void world_read(struct world *w)
{
    bool more = true;
    for (unsigned i = 0, idle = 0; idle < 2 && w->end == 1 && i < 10000; i++) {
        int64_t n = tls_read(w->tls, w->got + w->got_len, 65536, &more);
        if (n > 0)
            w->got_len += (size_t)n;
        else if (n != -EAGAIN)
            w->end = n;
        else if (!more && w->up.at == w->up.len)
            idle++;
    }
}

/* Both shake hands; false: it came to nothing. */
static bool world_shake(struct world *w)
{
    for (int i = 0; i < 10 && w->end == 1; i++) {
        ERR_clear_error();
        int done = SSL_do_handshake(w->client.ssl), error = SSL_get_error(w->client.ssl, done);
        client_says(&w->client, &w->up);
        world_read(w);
        client_hears(&w->client, &w->down);
        if (done == 1 && tls_is_up(w->tls))
            return true;
        if (done != 1 && error != SSL_ERROR_WANT_READ)
            return false;
    }
    return false;
}

/* Everything the client can read now, appended. */
static size_t client_reads(struct world *w, uint8_t *ret, size_t max)
{
    size_t got = 0, n;
    ERR_clear_error();
    client_hears(&w->client, &w->down);
    while (got < max && SSL_read_ex(w->client.ssl, ret + got, max - got, &n) == 1)
        got += n;
    return got;
}

static uint8_t letter(size_t i)
{
    return (uint8_t)(i * 31 + i / 253);
}

static uint8_t *letters(size_t len)
{
    uint8_t *text = malloc(len);
    for (size_t i = 0; i < len; i++)
        text[i] = letter(i);
    return text;
}

/* ---- bytes both ways ---- */

/* Ours to the client; the socket takes `room` bytes between two looks of the client. */
static void send_all(struct world *w, const uint8_t *text, size_t len, size_t record, size_t room, uint8_t *ret)
{
    size_t at = 0, got = 0;
    while (got < len) {
        w->down.takes = room;
        if (tls_owes(w->tls)) {
            int err = tls_flush(w->tls);
            assert_true(err == 0 || err == -EAGAIN);
        }
        for (unsigned i = 0; i < TLS_BATCH_RECORDS && at < len && !tls_owes(w->tls); i++) {
            size_t n = len - at < record ? len - at : record;
            bool last = i + 1 == TLS_BATCH_RECORDS || at + n == len;
            assert_int_equal(tls_put(w->tls, text + at, n), 0);
            at += n;
            if (last) {
                int err = tls_flush(w->tls);
                assert_true(err == 0 || err == -EAGAIN);
                break;
            }
        }
        assert_true(tls_memory(w->tls) < 350000);
        got += client_reads(w, ret + got, len - got);
    }
}

static void what_goes_in_comes_out(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    static const size_t rooms[] = {SIZE_MAX, 70000, 1000, 17};
    uint8_t *text = letters(TEXT_MAX), *back = malloc(TEXT_MAX);
    for (size_t v = 0; v < ARRAY_LEN(versions); v++) {
        struct world w;
        world_open(&w, NULL, &(struct client_wants){.min = versions[v], .max = versions[v]});
        assert_true(world_shake(&w));
        assert_null(tls_user(w.tls));
        assert_string_equal(tls_failure(w.tls), "");
        for (size_t r = 0; r < ARRAY_LEN(rooms); r++) {
            size_t len = rooms[r] < 100 ? 40000 : TEXT_MAX;
            memset(back, 0, len);
            send_all(&w, text, len, TLS_RECORD_MAX, rooms[r], back);
            assert_memory_equal(text, back, len);
        }
        w.down.takes = SIZE_MAX;
        for (size_t at = 0; at < TEXT_MAX;) {
            size_t n = 0;
            assert_int_equal(SSL_write_ex(w.client.ssl, text + at, TEXT_MAX - at < 50000 ? TEXT_MAX - at : 50000, &n),
                             1);
            at += n;
            client_says(&w.client, &w.up);
            w.up.gives = at % 3 ? 1000 : SIZE_MAX;
            world_read(&w);
        }
        assert_int_equal(w.got_len, TEXT_MAX);
        assert_memory_equal(text, w.got, TEXT_MAX);
        SSL_shutdown(w.client.ssl);
        client_says(&w.client, &w.up);
        world_read(&w);
        assert_int_equal(w.end, 0);
        world_close(&w);
    }
    free(text);
    free(back);
}

/* A record that is larger than the reader's room is given out in parts, and said to have more. */
static void small_rooms_are_filled_again(void **state)
{
    (void)state;
    struct world w;
    uint8_t part[1000], *text = letters(16000);
    world_open(&w, NULL, NULL);
    assert_true(world_shake(&w));
    size_t n;
    assert_int_equal(SSL_write_ex(w.client.ssl, text, 16000, &n), 1);
    client_says(&w.client, &w.up);
    for (size_t at = 0; at < 16000; at += sizeof part) {
        bool more;
        assert_int_equal(tls_read(w.tls, part, sizeof part, &more), sizeof part);
        assert_memory_equal(part, text + at, sizeof part);
        assert_true(more);
    }
    bool more = true;
    assert_int_equal(tls_read(w.tls, part, sizeof part, &more), -EAGAIN);
    assert_false(more);
    world_close(&w);
    free(text);
}

/* Hands are shaken the same however the bytes come: the client's flights are cut once, at every byte, and everywhere. */
static void a_handshake_may_be_cut_anywhere(void **state)
{
    (void)state;
    struct tls_options options = options_with(usual_pair(), 1);
    options.client = TLS_CLIENT_REQUIRE;
    options.client_ca = file_of("ca.pem", ca_pem);
    struct tls_server *kept;
    assert_int_equal(tls_server_new(&options, &kept, why, sizeof why), 0);
    for (size_t cut = 0; cut < 2500; cut += cut < 300 ? 1 : 5) {
        struct world w;
        world_open_at(&w, kept, NULL,
                      &(struct client_wants){.certificate = &client_certificate,
                                             .max = cut % 2 ? TLS1_2_VERSION : TLS1_3_VERSION});
        size_t passed = 0;
        bool up = false, was_cut = false;
        for (int i = 0; i < 10 && !up; i++) {
            uint8_t bytes[8192];
            (void)SSL_do_handshake(w.client.ssl);
            int n = BIO_read(w.client.out, bytes, sizeof bytes);
            size_t len = n > 0 ? (size_t)n : 0, before = cut > passed && cut < passed + len ? cut - passed : 0;
            if (cut == 0)
                w.up.gives = 1;
            was_cut |= before > 0;
            if (before) {
                assert_int_equal(queue_put(&w.up, bytes, before), before);
                world_read(&w);
            }
            if (len > before)
                assert_int_equal(queue_put(&w.up, bytes + before, len - before), len - before);
            passed += len;
            world_read(&w);
            client_hears(&w.client, &w.down);
            up = tls_is_up(w.tls) && SSL_is_init_finished(w.client.ssl);
        }
        assert_true(up);
        assert_string_equal(tls_user(w.tls), "alice");
        world_close(&w);
        if (cut > 1 && !was_cut && cut > passed)
            break;
    }
    tls_server_free(&kept);
}

/* Whoever goes away in the middle is gone, and nothing is kept. */
static void a_handshake_may_end_anywhere(void **state)
{
    (void)state;
    size_t whole = 1;
    for (size_t cut = 0; cut < whole; cut++) {
        struct world w;
        world_open(&w, NULL, NULL);
        (void)SSL_do_handshake(w.client.ssl);
        client_says(&w.client, &w.up);
        whole = w.up.len;
        w.up.len = cut;
        w.up.ended = true;
        world_read(&w);
        assert_int_equal(w.end, 0);
        assert_false(tls_is_up(w.tls));
        world_close(&w);
    }
}

/* What the record layer's plain head and the hello say wrong is refused with an alert, or waits for more; never more. */
static void garbage_is_refused(void **state)
{
    (void)state;
    struct tls_server *kept;
    struct tls_options usual = options_with(usual_pair(), 1);
    assert_int_equal(tls_server_new(&usual, &kept, why, sizeof why), 0);
    struct client client = client_new(&(struct client_wants){.host = "localhost"});
    (void)SSL_do_handshake(client.ssl);
    uint8_t hello[2000];
    int len = BIO_read(client.out, hello, sizeof hello);
    assert_true(len > 100);
    uint64_t draw = 7;
    unsigned refusals = 0, alerts = 0;
    for (unsigned i = 0; i < 3000; i++) {
        struct world w = {.end = 1, .buffers = tls_buffers_new(), .got = malloc(65536 * 2)};
        queue_init(&w.up);
        queue_init(&w.down);
        struct tls_pipe pipe = {.recv = world_recv, .send = world_send, .arg = &w};
        w.tls = tls_new(kept, w.buffers, &pipe, (struct slice){0});
        queue_put(&w.up, hello, (size_t)len);
        for (unsigned flips = 0; flips <= i % 3; flips++) {
            draw = draw * 6364136223846793005u + 1442695040888963407u;
            w.up.bytes[(draw >> 33) % (i % 2 ? 12u : (unsigned)len)] ^= (uint8_t)(draw >> 50 | 1);
        }
        world_read(&w);
        assert_false(tls_is_up(w.tls));
        assert_true(w.end == 1 || w.end == -EPROTO);
        if (w.end == -EPROTO) {
            refusals++;
            assert_string_not_equal(tls_failure(w.tls), "");
            assert_true(w.down.len == 0 || w.down.bytes[0] == 21); /* an alert */
            alerts += w.down.len > 0;
        }
        tls_free(&w.tls);
        tls_buffers_free(&w.buffers);
        queue_free(&w.up);
        queue_free(&w.down);
        free(w.got);
    }
    assert_true(refusals > 500 && alerts > 100);
    client_free(&client);
    tls_server_free(&kept);
}

/* After the handshake one wrong bit anywhere ends it. */
static void damage_is_noticed(void **state)
{
    (void)state;
    for (size_t at = 0; at < 5 + 100 + 17; at++) {
        struct world w;
        uint8_t *text = letters(100);
        size_t n;
        world_open(&w, NULL, NULL);
        assert_true(world_shake(&w));
        SSL_write_ex(w.client.ssl, text, 100, &n);
        client_says(&w.client, &w.up);
        w.up.bytes[at] ^= 1;
        w.up.ended = true;
        world_read(&w);
        assert_int_equal(w.got_len, 0);
        assert_true(w.end == -EPROTO || w.end == 0); /* a length that is too long is waited for */
        free(text);
        world_close(&w);
    }
}

static void early_bytes_are_read_first(void **state)
{
    (void)state;
    for (size_t early = 1; early < 700; early += 37) {
        struct world w;
        world_open(&w, NULL, NULL);
        tls_free(&w.tls);
        (void)SSL_do_handshake(w.client.ssl);
        client_says(&w.client, &w.up);
        uint8_t bytes[2000];
        size_t n = early < w.up.len ? early : w.up.len;
        memcpy(bytes, w.up.bytes, n);
        w.up.at = n;
        struct tls_pipe pipe = {.recv = world_recv, .send = world_send, .arg = &w};
        w.tls = tls_new(w.server, w.buffers, &pipe, slice_of(bytes, n));
        memset(bytes, 0, sizeof bytes);
        assert_true(world_shake(&w));
        world_close(&w);
    }
}

/* ---- what is refused ---- */

static void old_versions_and_weak_ciphers_are_refused(void **state)
{
    (void)state;
    static const struct {
        enum tls_version min;
        const char *ours;
        int max;
        const char *ciphers, *failure; /* NULL: it works */
    } rows[] = {
        {TLS_VERSION_1_2, "", TLS1_VERSION, NULL, "unsupported protocol"},
        {TLS_VERSION_1_2, "", TLS1_1_VERSION, NULL, "unsupported protocol"},
        {TLS_VERSION_1_2, "", TLS1_2_VERSION, NULL, NULL},
        {TLS_VERSION_1_2, "", TLS1_3_VERSION, NULL, NULL},
        {TLS_VERSION_1_3, "", TLS1_2_VERSION, NULL, "unsupported protocol"},
        {TLS_VERSION_1_3, "", TLS1_3_VERSION, NULL, NULL},
        {TLS_VERSION_1_2, "", TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA256", "no shared cipher"},
        {TLS_VERSION_1_2, "", TLS1_2_VERSION, "ECDHE-ECDSA-AES256-SHA", "no shared cipher"},
        {TLS_VERSION_1_2, "", TLS1_2_VERSION, "AES128-GCM-SHA256", "no shared cipher"},
        {TLS_VERSION_1_2, "", TLS1_2_VERSION, "aNULL", "no shared cipher"},
        {TLS_VERSION_1_2, "", TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305", NULL},
        {TLS_VERSION_1_2, "ECDHE-ECDSA-AES256-GCM-SHA384", TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256",
         "no shared cipher"},
        {TLS_VERSION_1_2, "ECDHE-ECDSA-AES256-GCM-SHA384, TLS_AES_256_GCM_SHA384", TLS1_3_VERSION, NULL, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world w;
        struct tls_options options = options_with(usual_pair(), 1);
        options.min_version = rows[i].min;
        options.ciphers = rows[i].ours;
        world_open(&w, &options, &(struct client_wants){.max = rows[i].max, .ciphers = rows[i].ciphers});
        bool up = world_shake(&w);
        if (up != !rows[i].failure)
            fail_msg("row %zu: %d, %s", i, up, tls_failure(w.tls));
        if (rows[i].failure) {
            assert_int_equal(w.end, -EPROTO);
            assert_string_equal(tls_failure(w.tls), rows[i].failure);
            assert_string_not_equal(tls_advice(w.tls), "");
        }
        world_close(&w);
    }
}

static void a_client_without_tls_is_told_apart(void **state)
{
    (void)state;
    static const char *const words[] = {"AMQP\0\0\11\1", "GET / HTTP/1.1\r\n\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        struct world w;
        world_open(&w, NULL, NULL);
        queue_put(&w.up, words[i], 8);
        world_read(&w);
        assert_int_equal(w.end, -EPROTO);
        assert_string_equal(tls_advice(w.tls), "it does not speak TLS: it wants the port without");
        world_close(&w);
    }
}

static void renegotiation_is_not_spoken(void **state)
{
    (void)state;
    struct world w;
    uint8_t back[100];
    world_open(&w, NULL, &(struct client_wants){.max = TLS1_2_VERSION});
    assert_true(world_shake(&w));
    assert_int_equal(SSL_renegotiate(w.client.ssl), 1);
    (void)SSL_do_handshake(w.client.ssl);
    client_says(&w.client, &w.up);
    world_read(&w);
    assert_int_equal(client_reads(&w, back, sizeof back), 0);
    assert_string_equal(client_error(), "no renegotiation");
    world_close(&w);
}

/* Key updates without end, none of the answers read: work per call and memory stay within bounds. */
static void a_flood_of_key_updates_is_bounded(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, NULL, &(struct client_wants){.min = TLS1_3_VERSION});
    assert_true(world_shake(&w));
    w.down.takes = 100;
    for (unsigned i = 0; i < 40000 && w.end == 1; i++) {
        size_t n;
        assert_int_equal(SSL_key_update(w.client.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(w.client.ssl), 1);
        if (i % 50 == 0)
            SSL_write_ex(w.client.ssl, "x", 1, &n);
        client_says(&w.client, &w.up);
        if (i % 10000 == 9999) {
            bool more;
            uint8_t part[10];
            size_t before = w.up.len - w.up.at;
            assert_true(before > 200 * 1024);
            int64_t got = tls_read(w.tls, part, sizeof part, &more);
            w.end = got > 0 || got == -EAGAIN ? 1 : got;
            assert_true(before - (w.up.len - w.up.at) <= 160 * 1024); /* of the socket, in one call */
            world_read(&w);
        }
        assert_true(tls_memory(w.tls) < 350000);
    }
    world_close(&w);
}

/* ---- certificates of clients ---- */

static void clients_are_who_their_certificates_say(void **state)
{
    (void)state;
    struct issued foreign = issue(&(struct wanted){.names = {"alice"}}, &other_ca);
    struct issued expired = issue(&(struct wanted){.names = {"alice"}, .from_days = -20, .to_days = -2}, &ca);
    struct issued early = issue(&(struct wanted){.names = {"alice"}, .from_days = 2, .to_days = 20}, &ca);
    struct issued self = issue(&(struct wanted){.names = {"alice"}}, NULL);
    struct issued two = issue(&(struct wanted){.names = {"alice", "bob"}}, &ca);
    struct issued line = issue(&(struct wanted){.names = {"ali\nce"}}, &ca);
    struct issued none = issue(&(struct wanted){.alternative = "IP:1.2.3.4"}, &ca);
    struct issued umlaut = issue(&(struct wanted){.names = {"J\303\266rg"}, .alternative = "email:j@x.example"}, &ca);
    const struct {
        const struct issued *certificate;
        enum tls_client client;
        enum tls_user_from from;
        const char *user, *failure; /* no failure: hands are shaken */
    } rows[] = {
        {NULL, TLS_CLIENT_NONE, 0, NULL, NULL},
        {&client_certificate, TLS_CLIENT_NONE, 0, NULL, NULL},
        {NULL, TLS_CLIENT_REQUEST, 0, NULL, NULL},
        {NULL, TLS_CLIENT_REQUIRE, 0, NULL, "peer did not return a certificate"},
        {&client_certificate, TLS_CLIENT_REQUEST, TLS_USER_COMMON_NAME, "alice", NULL},
        {&client_certificate, TLS_CLIENT_REQUIRE, TLS_USER_COMMON_NAME, "alice", NULL},
        {&client_certificate, TLS_CLIENT_REQUIRE, TLS_USER_DISTINGUISHED_NAME, "O=Mill,CN=alice", NULL},
        {&client_certificate, TLS_CLIENT_REQUIRE, TLS_USER_ALTERNATIVE_NAME, "alice.example", NULL},
        {&umlaut, TLS_CLIENT_REQUIRE, TLS_USER_COMMON_NAME, "J\303\266rg", NULL},
        {&umlaut, TLS_CLIENT_REQUIRE, TLS_USER_DISTINGUISHED_NAME, "O=Mill,CN=J\303\266rg", NULL},
        {&umlaut, TLS_CLIENT_REQUIRE, TLS_USER_ALTERNATIVE_NAME, "j@x.example", NULL},
        {&two, TLS_CLIENT_REQUIRE, TLS_USER_COMMON_NAME, NULL, NULL},
        {&line, TLS_CLIENT_REQUIRE, TLS_USER_COMMON_NAME, NULL, NULL},
        {&none, TLS_CLIENT_REQUIRE, TLS_USER_COMMON_NAME, NULL, NULL},
        {&none, TLS_CLIENT_REQUIRE, TLS_USER_ALTERNATIVE_NAME, NULL, NULL},
        {&foreign, TLS_CLIENT_REQUEST, 0, NULL, "unable to get local issuer certificate"},
        {&self, TLS_CLIENT_REQUEST, 0, NULL, "self-signed certificate"},
        {&expired, TLS_CLIENT_REQUEST, 0, NULL, "certificate has expired"},
        {&early, TLS_CLIENT_REQUEST, 0, NULL, "certificate is not yet valid"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows) * 2; i++) {
        struct world w;
        size_t r = i / 2;
        struct tls_options options = options_with(usual_pair(), 1);
        options.client = rows[r].client;
        options.user_from = rows[r].from;
        options.client_ca = file_of("ca.pem", ca_pem);
        world_open(
            &w, &options,
            &(struct client_wants){.certificate = rows[r].certificate, .max = i % 2 ? TLS1_2_VERSION : TLS1_3_VERSION});
        world_shake(&w);
        world_read(&w);
        if (rows[r].failure) {
            assert_int_equal(w.end, -EPROTO);
            assert_string_equal(tls_failure(w.tls), rows[r].failure);
        } else if (!tls_is_up(w.tls)) {
            fail_msg("row %zu: %s", r, tls_failure(w.tls));
        }
        const char *user = tls_is_up(w.tls) ? tls_user(w.tls) : NULL;
        if ((user != NULL) != (rows[r].user != NULL) || (user && strcmp(user, rows[r].user) != 0))
            fail_msg("row %zu: it is %s", r, user);
        bool nameless = !rows[r].failure && rows[r].certificate && !rows[r].user && rows[r].client;
        assert_int_equal(*tls_failure(w.tls) != '\0', nameless || rows[r].failure);
        world_close(&w);
    }
    struct issued *all[] = {&foreign, &expired, &early, &self, &two, &line, &none, &umlaut};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        issued_free(all[i]);
}

static SSL_SESSION *ticket_of(struct world *w)
{
    uint8_t part[10];
    (void)client_reads(w, part, sizeof part); /* TLS 1.3 sends it behind the handshake */
    return SSL_get1_session(w->client.ssl);
}

/* A ticket saves the handshake's price and not who it is; after a reload it is worth nothing. */
static void tickets_keep_the_user(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t v = 0; v < ARRAY_LEN(versions); v++) {
        struct world w;
        struct tls_options options = options_with(usual_pair(), 1);
        options.client = TLS_CLIENT_REQUIRE;
        options.client_ca = file_of("ca.pem", ca_pem);
        struct client_wants wants = {.certificate = &client_certificate, .max = versions[v]};
        world_open(&w, &options, &wants);
        assert_true(world_shake(&w));
        wants.session = ticket_of(&w);
        for (int reloaded = 0; reloaded < 2; reloaded++) {
            tls_free(&w.tls);
            client_free(&w.client);
            w.up.len = w.up.at = w.down.len = w.down.at = 0;
            w.client = client_new(&wants);
            struct tls_pipe pipe = {.recv = world_recv, .send = world_send, .arg = &w};
            w.tls = tls_new(w.server, w.buffers, &pipe, (struct slice){0});
            assert_true(world_shake(&w));
            assert_int_equal(SSL_session_reused(w.client.ssl), !reloaded);
            assert_string_equal(tls_user(w.tls), "alice");
            assert_int_equal(tls_server_reload(w.server, &options, why, sizeof why), 0);
        }
        SSL_SESSION_free(wants.session);
        world_close(&w);
    }
}

/* ---- our certificates ---- */

static const char *shown(const struct world *w)
{
    static char name[100];
    X509_NAME_get_text_by_NID(X509_get_subject_name(SSL_get0_peer_certificate(w->client.ssl)), NID_commonName, name,
                              sizeof name);
    return name;
}

static void the_host_chooses_the_certificate(void **state)
{
    (void)state;
    static const struct {
        const char *host, *name;
    } rows[] = {{NULL, "localhost"},           {"localhost", "localhost"},   {"second.example", "second"},
                {"SECOND.example", "second"},  {"a.wild.example", "second"}, {"a.b.wild.example", "localhost"},
                {"third.example", "localhost"}};
    struct tls_pair pairs[2];
    pairs[0] = *usual_pair();
    pairs[1].certificate = pairs[1].key = file_of("second.pem", second_pem);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world w;
        struct tls_options options = options_with(pairs, 2);
        options.client = TLS_CLIENT_REQUEST;
        options.client_ca = file_of("ca.pem", ca_pem);
        world_open(&w, &options, &(struct client_wants){.host = rows[i].host, .certificate = &client_certificate});
        assert_true(world_shake(&w));
        assert_string_equal(shown(&w), rows[i].name);
        assert_string_equal(tls_user(w.tls), "alice");
        world_close(&w);
    }
}

static void a_reload_drops_nobody(void **state)
{
    (void)state;
    struct world w;
    uint8_t back[10];
    world_open(&w, NULL, NULL);
    assert_true(world_shake(&w));
    struct tls_pair pair = {.certificate = file_of("second.pem", second_pem), .key = file_of("second.pem", second_pem)};
    struct tls_options options = options_with(&pair, 1);
    assert_int_equal(tls_server_reload(w.server, &options, why, sizeof why), 0);
    pair.key = file_of("key.pem", server_key);
    assert_int_equal(tls_server_reload(w.server, &options, why, sizeof why), -EINVAL); /* and that changes nothing */
    assert_string_equal(why, "tls.key: the key in key.pem is not that of the first certificate in second.pem");
    assert_int_equal(tls_put(w.tls, "still", 5), 0);
    assert_int_equal(tls_flush(w.tls), 0);
    assert_int_equal(client_reads(&w, back, sizeof back), 5);
    tls_free(&w.tls);
    client_free(&w.client);
    struct client_wants none = {0};
    w.client = client_new(&none);
    struct tls_pipe pipe = {.recv = world_recv, .send = world_send, .arg = &w};
    w.tls = tls_new(w.server, w.buffers, &pipe, (struct slice){0});
    assert_true(world_shake(&w));
    assert_string_equal(shown(&w), "second");
    world_close(&w);
}

static char noted[400];

static void on_note(void *arg, const char *text)
{
    (void)arg;
    snprintf(noted, sizeof noted, "%s", text);
}

static void complaints_say_which_file_and_what_to_do(void **state)
{
    (void)state;
    struct issued weak = issue(&(struct wanted){.names = {"weak"}, .kind = "RSA-1024"}, &ca);
    char *weak_pem = pem(&weak, NULL, weak.key), *cut = strdup(server_pem);
    cut[200] = '!';
    BIO *bio = BIO_new(BIO_s_mem());
    char *at;
    PEM_write_bio_PKCS8PrivateKey(bio, server.key, EVP_aes_128_cbc(), "pass", 4, NULL, NULL);
    long len = BIO_get_mem_data(bio, &at);
    char *locked = strndup(at, (size_t)len);
    const struct {
        const char *certificate, *key, *client_ca, *ciphers;
        enum tls_client client;
        const char *says;
    } rows[] = {
        {"", "", NULL, "", 0, "tls.certificate: the file cert.pem is empty"},
        {"hello", "", NULL, "", 0, "tls.certificate: cert.pem is no PEM file (if it is DER: openssl x509"},
        {server_key, server_only, NULL, "", 0, "are tls.certificate and tls.key the wrong way round?"},
        {"-----BEGIN CERTIFICATE REQUEST-----", "", NULL, "", 0, "cert.pem is a request for a certificate"},
        {"-----BEGIN X-----", "", NULL, "", 0, "there is no certificate in cert.pem"},
        {cut, server_key, NULL, "", 0, "a certificate in cert.pem cannot be read: bad base64 decode"},
        {server_only, "", NULL, "", 0, "tls.key: there is no private key in key.pem"},
        {server_only, locked, NULL, "", 0, "the key in key.pem is encrypted"},
        {server_only, "-----BEGIN PRIVATE KEY-----\n!\n", NULL, "", 0, "the key in key.pem cannot be read"},
        {second_pem, server_key, NULL, "", 0, "the key in key.pem is not that of the first certificate in cert.pem"},
        {weak_pem, weak_pem, NULL, "", 0, "the certificate in cert.pem is not good enough for TLS: ee key too small"},
        {server_only, server_key, NULL, "", TLS_CLIENT_REQUIRE, "without tls.client_ca"},
        {server_only, server_key, server_key, "", TLS_CLIENT_REQUIRE, "tls.client_ca: ca.pem holds a private key"},
        {server_only, server_key, NULL, "nonsense", 0, "nonsense names no cipher that there is"},
        {server_only, server_key, NULL, "TLS_NONSENSE", 0, "TLS_NONSENSE is no list of suites of TLS 1.3"},
        {server_only, server_key, NULL, "ECDHE-ECDSA-AES128-SHA256", 0, "is not allowed: it does not authenticate"},
        {server_only, server_key, NULL, "AES128-GCM-SHA256", 0, "AES128-GCM-SHA256 is not allowed: it has no forward"},
        {server_only, server_key, NULL, "HIGH", 0, "is not allowed"},
        {server_only, server_key, NULL, "ECDHE+AESGCM:@SECLEVEL=0", 0, "only names of ciphers"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tls_pair pair = {.certificate = file_of("cert.pem", rows[i].certificate),
                                .key = file_of("key.pem", rows[i].key)};
        struct tls_options options = options_with(&pair, 1);
        struct tls_server *made;
        options.ciphers = rows[i].ciphers;
        options.client = rows[i].client;
        if (rows[i].client_ca)
            options.client_ca = file_of("ca.pem", rows[i].client_ca);
        assert_int_equal(tls_server_new(&options, &made, why, sizeof why), -EINVAL);
        if (!strstr(why, rows[i].says))
            fail_msg("row %zu: %s", i, why);
    }
    BIO_free(bio);
    free(locked);
    free(cut);
    free(weak_pem);
    issued_free(&weak);
}

static void dates_are_noted(void **state)
{
    (void)state;
    static const struct {
        int from, to;
        const char *says;
    } rows[] = {{-10, -2, "the certificate in cert.pem has expired"}, {2, 10, "is not valid yet"}, {-2, 10, ""}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct issued made =
            issue(&(struct wanted){.names = {"x"}, .from_days = rows[i].from, .to_days = rows[i].to}, &ca);
        char *text = pem(&made, NULL, made.key);
        struct tls_pair pair = {.certificate = file_of("cert.pem", text), .key = file_of("cert.pem", text)};
        struct tls_options options = options_with(&pair, 1);
        struct tls_server *server_made;
        options.note = on_note;
        noted[0] = '\0';
        assert_int_equal(tls_server_new(&options, &server_made, why, sizeof why), 0);
        assert_non_null(strstr(noted, rows[i].says));
        assert_int_equal(noted[0] != '\0', rows[i].says[0] != '\0');
        tls_server_free(&server_made);
        free(text);
        issued_free(&made);
    }
}

static void throw_away_certificates_work(void **state)
{
    (void)state;
    struct tls_throwaway made, again;
    assert_int_equal(tls_throwaway_make(&made), 0);
    assert_int_equal(tls_throwaway_make(&again), 0);
    assert_true(tls_throwaway_is_good(slice_str(made.server), slice_str(made.ca)));
    assert_true(tls_throwaway_is_good(slice_str(made.client), slice_str(made.ca)));
    assert_false(tls_throwaway_is_good(slice_str(made.server), slice_str(again.ca)));
    assert_false(tls_throwaway_is_good(slice_str(""), slice_str(made.ca)));
    struct tls_pair pair = {.certificate = file_of("server.pem", made.server),
                            .key = file_of("server.pem", made.server)};
    struct tls_options options = options_with(&pair, 1);
    options.client = TLS_CLIENT_REQUIRE;
    options.client_ca = file_of("ca.pem", made.ca);
    BIO *bio = BIO_new_mem_buf(made.client, -1);
    struct issued guest = {.key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL)};
    guest.certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    struct world w;
    world_open(&w, &options, &(struct client_wants){.certificate = &guest});
    assert_true(world_shake(&w));
    assert_string_equal(tls_user(w.tls), "guest");
    world_close(&w);
    BIO_free(bio);
    issued_free(&guest);
    tls_throwaway_free(&made);
    tls_throwaway_free(&again);
}

/* ---- failures ---- */

static void the_socket_may_fail(void **state)
{
    (void)state;
    for (int row = 0; row < 3; row++) {
        struct world w;
        bool more;
        uint8_t part[100];
        world_open(&w, NULL, NULL);
        assert_true(world_shake(&w));
        if (row == 0) {
            w.up.error = -ECONNRESET;
            assert_int_equal(tls_read(w.tls, part, sizeof part, &more), -ECONNRESET);
        } else {
            w.down.error = -EPIPE;
            assert_int_equal(tls_put(w.tls, part, sizeof part), 0);
            assert_int_equal(tls_flush(w.tls), -EPIPE);
            assert_int_equal(tls_read(w.tls, part, sizeof part, &more), -EPIPE);
        }
        if (row == 2)
            tls_bye(w.tls);
        world_close(&w);
    }
}

static int64_t other_recv(void *arg, void *ret, size_t len)
{
    return queue_take(&((struct world *)arg)->down, ret, len);
}

static int64_t other_send(void *arg, const void *bytes, size_t len)
{
    return queue_put(&((struct world *)arg)->up, bytes, len);
}

/* The client's side for tools: shakes hands with the server's, and may want to know who that is. */
static void our_client_speaks_it_too(void **state)
{
    (void)state;
    const struct {
        const char *host, *ca, *failure;
    } rows[] = {{"localhost", NULL, NULL},
                {"127.0.0.1", NULL, NULL},
                {"localhost", ca_pem, NULL},
                {"other.example", ca_pem, "hostname mismatch"},
                {"127.0.0.1", ca_pem, "IP address mismatch"},
                {"localhost", other_ca_pem, "self-signed certificate in certificate chain"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct world w;
        struct tls_server *side;
        uint8_t part[20];
        bool more;
        world_open(&w, NULL, NULL);
        struct tls_client_options options = {.host = rows[i].host,
                                             .trust = rows[i].ca ? TLS_TRUST_CA : TLS_TRUST_ANYBODY,
                                             .ca = file_of("ca.pem", rows[i].ca ? rows[i].ca : "")};
        assert_int_equal(tls_client_new(&options, &side, why, sizeof why), 0);
        struct tls_pipe pipe = {.recv = other_recv, .send = other_send, .arg = &w};
        struct tls_buffers *buffers = tls_buffers_new();
        struct tls *client = tls_new(side, buffers, &pipe, (struct slice){0});
        int err = -EAGAIN;
        for (int round = 0; round < 5 && err == -EAGAIN; round++) {
            err = tls_shake(client);
            world_read(&w);
        }
        assert_int_equal(err, rows[i].failure ? -EPROTO : 0);
        if (rows[i].failure) {
            assert_string_equal(tls_failure(client), rows[i].failure);
        } else {
            assert_int_equal(tls_put(client, "hello", 5), 0);
            assert_int_equal(tls_flush(client), 0);
            world_read(&w);
            assert_int_equal(w.got_len, 5);
            assert_int_equal(tls_put(w.tls, "answer", 6), 0);
            assert_int_equal(tls_flush(w.tls), 0);
            int64_t n;
            do
                n = tls_read(client, part, sizeof part, &more);
            while (n == -EAGAIN && more);
            assert_int_equal(n, 6);
        }
        tls_free(&client);
        tls_buffers_free(&buffers);
        tls_server_free(&side);
        world_close(&w);
    }
    struct tls_server *none;
    struct tls_client_options bad = {.host = "localhost", .trust = TLS_TRUST_CA, .ca = file_of("ca.pem", "rubbish")};
    assert_int_equal(tls_client_new(&bad, &none, why, sizeof why), -EINVAL);
    assert_non_null(strstr(why, "--ca: ca.pem is no PEM file"));
    bad = (struct tls_client_options){.host = "localhost",
                                      .own = {file_of("own.pem", ca_pem), file_of("own.pem", ca_pem)}};
    assert_int_equal(tls_client_new(&bad, &none, why, sizeof why), -EINVAL);
    assert_non_null(strstr(why, "--key: there is no private key in own.pem"));
}

static void goodbyes_are_said(void **state)
{
    (void)state;
    struct world w;
    uint8_t part[10];
    world_open(&w, NULL, NULL);
    assert_true(world_shake(&w));
    tls_bye(w.tls);
    tls_bye(w.tls);
    assert_int_equal(client_reads(&w, part, sizeof part), 0);
    assert_int_equal(SSL_get_shutdown(w.client.ssl) & SSL_RECEIVED_SHUTDOWN, SSL_RECEIVED_SHUTDOWN);
    world_close(&w);
}

/* A life from the first to the last call in which one allocation is refused, ours or the library's. */
static void live_through(bool ours, uint64_t n, bool *ret_hit)
{
    struct world w = {.end = 1};
    struct client_wants wants = {.certificate = &client_certificate};
    struct tls_options options = options_with(usual_pair(), 1);
    options.client = TLS_CLIENT_REQUEST;
    options.client_ca = file_of("ca.pem", ca_pem);
    queue_init(&w.up);
    queue_init(&w.down);
    w.got = malloc(QUEUE_MAX);
    w.client = client_new(&wants);
    (void)SSL_do_handshake(w.client.ssl);
    client_says(&w.client, &w.up);
    uint8_t big[16384] = {0}, early[100];
    size_t len = w.up.len < sizeof early ? w.up.len : sizeof early;
    memcpy(early, w.up.bytes, len);
    w.up.at = len;
    bool up = false;
    library.count = 0;
    library.hit = false;
#define REFUSE(on) (ours ? mem_fail_at((on) ? n : 0, false) : (void)(library.fail_at = (on) ? n : 0))
    REFUSE(true);
    w.buffers = tls_buffers_new();
    int err = w.buffers ? tls_server_new(&options, &w.server, why, sizeof why) : -ENOMEM;
    struct tls_pipe pipe = {.recv = world_recv, .send = world_send, .arg = &w};
    if (err == 0)
        w.tls = tls_new(w.server, w.buffers, &pipe, slice_of(early, len));
    for (int i = 0; i < 4 && w.tls && !up; i++) {
        world_read(&w);
        uint64_t left = library.fail_at; /* the client's own memory is not what this is about */
        library.fail_at = 0;
        client_hears(&w.client, &w.down);
        (void)SSL_do_handshake(w.client.ssl);
        client_says(&w.client, &w.up);
        library.fail_at = left;
        up = tls_is_up(w.tls) && w.end == 1;
    }
    w.down.takes = 1000;
    if (up && tls_put(w.tls, big, sizeof big) == 0)
        err = tls_flush(w.tls);
    if (up && w.tls)
        tls_bye(w.tls);
    if (up && tls_user(w.tls))
        assert_string_equal(tls_user(w.tls), "alice"); /* nobody, where a name could not be read, but never another */
    tls_free(&w.tls);
    tls_server_free(&w.server);
    tls_buffers_free(&w.buffers);
    *ret_hit = ours ? mem_failures_hit() > 0 : library.hit;
    REFUSE(false);
    client_free(&w.client);
    queue_free(&w.up);
    queue_free(&w.down);
    free(w.got);
    ERR_clear_error();
}

static void refused_memory_is_survived(void **state)
{
    (void)state;
    bool hit = true;
    for (int i = 0; i < 2; i++)
        live_through(true, 0, &hit); /* what is made once and kept */
    size_t before = mem_in_use();
    hit = true;
    for (uint64_t n = 1; hit; n++) {
        live_through(true, n, &hit);
        assert_int_equal(mem_in_use(), before);
    }
    int64_t library_before = library.in_use;
    hit = true;
    for (uint64_t n = 1; hit && n < 20000; n += n < 100 ? 1 : 23) { /* some thousand, most of them in reading PEM */
        live_through(false, n, &hit);
        assert_int_equal(mem_in_use(), before);
        if (library.in_use > library_before + 50)
            fail_msg("allocation %lu of the library: %ld blocks are left", (unsigned long)n,
                     (long)(library.in_use - library_before));
        library_before = library.in_use < library_before ? library_before : library.in_use;
    }
}

/* Another connection of the same loop: it seals into the same buffer. */
static void world_open_beside(struct world *w, const struct world *first)
{
    world_open(w, NULL, NULL);
    tls_free(&w->tls);
    struct tls_pipe pipe = {.recv = world_recv, .send = world_send, .arg = w};
    w->tls = tls_new(w->server, first->buffers, &pipe, (struct slice){0});
    assert_non_null(w->tls);
    assert_true(world_shake(w));
}

static void is_untouched(struct world *w)
{
    uint8_t got[16];
    assert_int_equal(tls_put(w->tls, "hello", 5), 0);
    assert_int_equal(tls_flush(w->tls), 0);
    assert_int_equal(client_reads(w, got, sizeof got), 5);
    assert_memory_equal(got, "hello", 5);
}

/* Last words and goodbye in one: our own goodbye goes to that client, and not to the next one whom the loop writes to. */
static void a_goodbye_goes_to_who_said_it(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t v = 0; v < ARRAY_LEN(versions); v++) {
        struct world leaving, staying;
        uint8_t room[16];
        size_t n;
        bool more;
        world_open(&leaving, NULL, &(struct client_wants){.min = versions[v], .max = versions[v]});
        assert_true(world_shake(&leaving));
        world_open_beside(&staying, &leaving);
        assert_int_equal(SSL_write_ex(leaving.client.ssl, "bye", 3, &n), 1);
        (void)SSL_shutdown(leaving.client.ssl);
        client_says(&leaving.client, &leaving.up);
        assert_int_equal(tls_read(leaving.tls, room, sizeof room, &more), 3);
        tls_bye(leaving.tls);
        client_hears(&leaving.client, &leaving.down);
        assert_int_equal(SSL_shutdown(leaving.client.ssl), 1);
        tls_free(&leaving.tls);
        is_untouched(&staying);
        world_close(&staying);
        world_close(&leaving);
    }
}

/* A connection that goes in the midst of what it was writing takes it along. */
static void what_was_not_sent_goes_with_its_connection(void **state)
{
    (void)state;
    struct world leaving, staying;
    world_open(&leaving, NULL, NULL);
    assert_true(world_shake(&leaving));
    world_open_beside(&staying, &leaving);
    assert_int_equal(tls_put(leaving.tls, "half", 4), 0);
    tls_free(&leaving.tls);
    is_untouched(&staying);
    world_close(&staying);
    world_close(&leaving);
}

int main(void)
{
    if (CRYPTO_set_mem_functions(library_alloc, library_realloc, library_free) != 1)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out),
        cmocka_unit_test(small_rooms_are_filled_again),
        cmocka_unit_test(a_handshake_may_be_cut_anywhere),
        cmocka_unit_test(a_handshake_may_end_anywhere),
        cmocka_unit_test(garbage_is_refused),
        cmocka_unit_test(damage_is_noticed),
        cmocka_unit_test(early_bytes_are_read_first),
        cmocka_unit_test(old_versions_and_weak_ciphers_are_refused),
        cmocka_unit_test(a_client_without_tls_is_told_apart),
        cmocka_unit_test(renegotiation_is_not_spoken),
        cmocka_unit_test(a_flood_of_key_updates_is_bounded),
        cmocka_unit_test(clients_are_who_their_certificates_say),
        cmocka_unit_test(tickets_keep_the_user),
        cmocka_unit_test(the_host_chooses_the_certificate),
        cmocka_unit_test(a_reload_drops_nobody),
        cmocka_unit_test(complaints_say_which_file_and_what_to_do),
        cmocka_unit_test(dates_are_noted),
        cmocka_unit_test(throw_away_certificates_work),
        cmocka_unit_test(the_socket_may_fail),
        cmocka_unit_test(our_client_speaks_it_too),
        cmocka_unit_test(goodbyes_are_said),
        cmocka_unit_test(a_goodbye_goes_to_who_said_it),
        cmocka_unit_test(what_was_not_sent_goes_with_its_connection),
        cmocka_unit_test(refused_memory_is_survived),
    };
    return cmocka_run_group_tests(tests, make_certificates, free_certificates);
}
