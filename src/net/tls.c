/* One connection's TLS, see tls.h. The loop's thread.
 *
 * The library moves bytes through a BIO of our own. Reading: it asks the socket for as much as its buffer takes (read-ahead),
 * so that one system call fetches many records. Its buffers go back when a connection reads and writes little at a time (rest), so that an
 * idle one has none, and a busy one does not take them anew for each read. Writing never blocks it: records gather in the loop's buffer and leave in one call (one each costs
 * more in the kernel than the copy); what the socket does not take is copied to `kept`, which is bounded, because while
 * something is kept nothing more is put. Only what the library says by itself (alerts, answers to key updates) can make it
 * longer, and whoever makes us say that much without reading it is cut off.
 *
 * Work per call is bounded by the caller's room and by GULPS_MAX reads of the socket: a flood of records without content
 * (key updates, say) does not hold up the loop. */
#include "net/tls.h"

#include "base/check.h"
#include "base/mem.h"
#include "net/tls_int.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

#define RECORD_SEALED_MAX (TLS_RECORD_MAX + 512u)
#define SEALED_MAX (TLS_BATCH_RECORDS * RECORD_SEALED_MAX + 16384u) /* and what the library says by itself */
#define KEPT_MAX (2u * SEALED_MAX)
#define GULPS_MAX 2u
#define GULPS_SHAKING 16u

struct tls_buffers {
    size_t len; /* of sealed; 0 between calls */
    uint8_t record[TLS_RECORD_MAX];
    uint8_t sealed[SEALED_MAX];
};

struct tls {
    SSL *ssl;
    struct tls_keys *keys;
    struct tls_buffers *buffers;
    struct tls_pipe pipe;
    uint8_t *early; /* to be read first; NULL: none left */
    size_t early_at, early_len;
    uint8_t *kept; /* sealed bytes that the socket has not taken: kept[kept_at .. kept_at + kept_len) */
    size_t kept_at, kept_len, kept_cap;
    int64_t ended; /* 1: not; else what tls_read answers from now on */
    int socket_error;
    unsigned gulps; /* reads of the socket left in this call */
    bool dry;       /* the socket had no more in this call */
    bool up, said_bye;
    char *user;
    char failure[160];
    const char *advice;
};

/* ---- buffers ---- */

struct tls_buffers *tls_buffers_new(void)
{
    struct tls_buffers *buffers = mem_alloc_as(MEM_CONNECTIONS, sizeof *buffers);
    if (buffers)
        buffers->len = 0;
    return buffers;
}

void tls_buffers_free(struct tls_buffers **buffers)
{
    mem_free_as(MEM_CONNECTIONS, *buffers);
    *buffers = NULL;
}

uint8_t *tls_buffers_record(struct tls_buffers *buffers)
{
    return buffers->record;
}

static bool keep(struct tls *t, const uint8_t *bytes, size_t len)
{
    if (t->kept_at && t->kept_len)
        memmove(t->kept, t->kept + t->kept_at, t->kept_len);
    t->kept_at = 0;
    size_t need = t->kept_len + len;
    if (need > KEPT_MAX)
        return false;
    if (need > t->kept_cap) {
        uint8_t *grown = mem_realloc_as(MEM_CONNECTIONS, t->kept, need);
        if (!grown)
            return false;
        t->kept = grown;
        t->kept_cap = need;
    }
    memcpy(t->kept + t->kept_len, bytes, len);
    t->kept_len = need;
    return true;
}

/* How many bytes have left, or what the socket's error was. */
static int64_t send_some(struct tls *t, const uint8_t *bytes, size_t len)
{
    size_t sent = 0;
    while (sent < len) {
        int64_t n = t->pipe.send(t->pipe.arg, bytes + sent, len - sent);
        if (n == -EAGAIN)
            break;
        if (n < 0)
            return n;
        sent += (size_t)n;
    }
    return (int64_t)sent;
}

static int flush_kept(struct tls *t)
{
    int64_t n = send_some(t, t->kept + t->kept_at, t->kept_len);
    if (n < 0)
        return (int)n;
    t->kept_at += (size_t)n;
    t->kept_len -= (size_t)n;
    if (t->kept_len)
        return -EAGAIN;
    mem_free_as(MEM_CONNECTIONS, t->kept);
    t->kept = NULL;
    t->kept_at = t->kept_cap = 0;
    return 0;
}

static int flush_sealed(struct tls *t)
{
    struct tls_buffers *b = t->buffers;
    int64_t n = send_some(t, b->sealed, b->len);
    size_t left = n < 0 ? 0 : b->len - (size_t)n, at = b->len - left;
    b->len = 0;
    if (n < 0)
        return (int)n;
    if (left == 0)
        return 0;
    return keep(t, b->sealed + at, left) ? -EAGAIN : -ENOMEM;
}

/* Little came or went: the library's buffers may well not be wanted soon. */
static void rest(struct tls *t, size_t len)
{
    if (len < TLS_RECORD_MAX)
        (void)SSL_free_buffers(t->ssl); /* not while there is something in them */
}

/* What is sealed is behind what is kept, so one of both is always empty. */
int tls_flush(struct tls *t)
{
    CHECK(!t->kept_len || !t->buffers->len);
    size_t len = t->buffers->len;
    int err = t->kept_len ? flush_kept(t) : flush_sealed(t);
    if (err < 0 && err != -EAGAIN) {
        t->socket_error = err;
        t->ended = err;
    }
    if (t->up)
        rest(t, len);
    return err;
}

bool tls_owes(const struct tls *t)
{
    return t->kept_len > 0;
}

size_t tls_memory(const struct tls *t)
{
    return sizeof *t + t->kept_cap + t->early_len;
}

/* ---- what the library calls ---- */

static int wire_read(BIO *bio, char *ret, size_t len, size_t *ret_len)
{
    struct tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (t->early) {
        size_t n = t->early_len - t->early_at < len ? t->early_len - t->early_at : len;
        memcpy(ret, t->early + t->early_at, n);
        t->early_at += n;
        if (t->early_at == t->early_len) {
            mem_free_as(MEM_CONNECTIONS, t->early);
            t->early = NULL;
            t->early_len = 0;
        }
        *ret_len = n;
        return 1;
    }
    int64_t n = t->dry || t->gulps == 0 ? -EAGAIN : 0;
    if (n == 0 && t->buffers->len) { /* or a tool that waits for the answer would wait for ever */
        int err = flush_sealed(t);
        n = err == -EAGAIN ? 0 : err;
    }
    if (n == 0)
        n = t->pipe.recv(t->pipe.arg, ret, len);
    if (n > 0) {
        t->gulps--;
        t->dry = (size_t)n < len;
        *ret_len = (size_t)n;
        return 1;
    }
    if (n == -EAGAIN) {
        t->dry |= t->gulps > 0;
        BIO_set_retry_read(bio);
    } else if (n == 0) {
        t->ended = 0;
    } else {
        t->socket_error = (int)n;
    }
    return 0;
}

static int wire_write(BIO *bio, const char *bytes, size_t len, size_t *ret_len)
{
    struct tls *t = BIO_get_data(bio);
    struct tls_buffers *b = t->buffers;
    BIO_clear_retry_flags(bio);
    if (!t->kept_len && b->len + len > SEALED_MAX) {
        int err = flush_sealed(t);
        if (err < 0 && err != -EAGAIN) {
            t->socket_error = err;
            return 0;
        }
    }
    if (t->kept_len || b->len + len > SEALED_MAX) {
        if (!keep(t, (const uint8_t *)bytes, len)) {
            t->socket_error = -ENOBUFS;
            return 0;
        }
    } else {
        memcpy(b->sealed + b->len, bytes, len);
        b->len += len;
    }
    *ret_len = len;
    return 1;
}

static long wire_control(BIO *bio, int command, long number, void *arg)
{
    const struct tls *t = BIO_get_data(bio);
    (void)number;
    (void)arg;
    if (command == BIO_CTRL_EOF)
        return t && t->ended == 0;
    return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *tls_wire_new(void)
{
    BIO_METHOD *wire = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "connection");
    if (wire && BIO_meth_set_read_ex(wire, wire_read) == 1 && BIO_meth_set_write_ex(wire, wire_write) == 1 &&
        BIO_meth_set_ctrl(wire, wire_control) == 1)
        return wire;
    BIO_meth_free(wire);
    return NULL;
}

/* ---- life ---- */

/* A client's. An address is no name that a server could choose its certificate by. */
static bool set_host(SSL *ssl, const char *host)
{
    X509_VERIFY_PARAM *rules = SSL_get0_param(ssl);
    SSL_set_connect_state(ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(rules, host) == 1)
        return true;
    ERR_clear_error();
    return SSL_set_tlsext_host_name(ssl, host) == 1 && X509_VERIFY_PARAM_set1_host(rules, host, 0) == 1;
}

struct tls *tls_new(struct tls_server *server, struct tls_buffers *buffers, const struct tls_pipe *pipe,
                    struct slice early)
{
    struct tls *t = mem_zalloc_as(MEM_CONNECTIONS, sizeof *t);
    if (!t)
        return NULL;
    *t = (struct tls){.keys = tls_keys_take(server), .buffers = buffers, .pipe = *pipe, .ended = 1, .advice = ""};
    t->ssl = SSL_new(t->keys->contexts[0]);
    BIO *bio = t->ssl ? BIO_new(tls_wire(server)) : NULL;
    if (early.len) {
        t->early = mem_alloc_as(MEM_CONNECTIONS, early.len);
        t->early_len = early.len;
    }
    if (!bio || (early.len && !t->early)) {
        BIO_free(bio);
        ERR_clear_error();
        tls_free(&t);
        return NULL;
    }
    if (early.len)
        memcpy(t->early, early.ptr, early.len);
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    if (t->keys->host && !set_host(t->ssl, t->keys->host)) {
        tls_free(&t);
        return NULL;
    }
    if (!t->keys->host)
        SSL_set_accept_state(t->ssl);
    return t;
}

void tls_free(struct tls **tls)
{
    struct tls *t = *tls;
    if (!t)
        return;
    *tls = NULL;
    SSL_free(t->ssl);
    t->buffers->len = 0; /* what it has put and nobody flushed would go to the next connection that writes */
    tls_keys_give(&t->keys);
    mem_free_as(MEM_CONNECTIONS, t->early);
    mem_free_as(MEM_CONNECTIONS, t->kept);
    mem_free_as(MEM_CONNECTIONS, t->user);
    mem_free_as(MEM_CONNECTIONS, t);
}

bool tls_is_up(const struct tls *t)
{
    return t->up;
}

uint32_t tls_handshake_ms(const struct tls *t)
{
    return t->keys->handshake_ms;
}

const char *tls_user(const struct tls *t)
{
    return t->user;
}

const char *tls_failure(const struct tls *t)
{
    return t->failure;
}

const char *tls_advice(const struct tls *t)
{
    return t->advice;
}

/* ---- reading ---- */

static const char *advice_for(int reason)
{
    static const struct {
        int reason;
        const char *advice;
    } rows[] = {
        {SSL_R_UNSUPPORTED_PROTOCOL, "its newest TLS is older than tls.min_version: update the client"},
        {SSL_R_NO_SHARED_CIPHER, "it has no cipher of tls.ciphers"},
        {SSL_R_WRONG_VERSION_NUMBER, "it does not speak TLS: it wants the port without"},
        {SSL_R_HTTP_REQUEST, "it does not speak TLS: it wants the port without"},
        {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE,
         "tls.client_certificates is `require`: give the client a certificate"},
        {SSL_R_CERTIFICATE_VERIFY_FAILED, "its certificate is not one that tls.client_ca has signed, or not valid now"},
        {SSL_R_TLSV1_ALERT_UNKNOWN_CA, "it does not trust our certificate: give it the CA that has signed it"},
        {SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, "it does not trust our certificate: give it the CA that has signed it"},
        {SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, "it does not trust our certificate: is it for the host that it asked for?"},
        {SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, "our certificate has expired"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].reason == reason)
            return rows[i].advice;
    return "";
}

static void fail(struct tls *t)
{
    unsigned long error = ERR_peek_error();
    const char *reason = ERR_reason_error_string(error);
    long verified = SSL_get_verify_result(t->ssl);
    t->ended = t->ended == 0 ? 0 : t->socket_error ? t->socket_error : -EPROTO;
    if (ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED && verified != X509_V_OK)
        reason = X509_verify_cert_error_string(verified);
    snprintf(t->failure, sizeof t->failure, "%s", reason ? reason : "the connection ended");
    t->advice = ERR_GET_LIB(error) == ERR_LIB_SSL ? advice_for(ERR_GET_REASON(error)) : "";
    ERR_clear_error();
}

/* Hands are shaken: who is it? */
static void came_up(struct tls *t)
{
    char user[TLS_USER_MAX];
    const char *why;
    t->up = true;
    if (t->keys->host)
        return;
    if (!tls_user_of(t->keys, t->ssl, user, &why)) {
        snprintf(t->failure, sizeof t->failure, "%s", why ? why : "");
        return;
    }
    t->user = mem_alloc_as(MEM_CONNECTIONS, strlen(user) + 1);
    if (t->user)
        memcpy(t->user, user, strlen(user) + 1);
    else
        t->ended = -ENOMEM; /* it would be somebody else without its name */
}

int tls_shake(struct tls *t)
{
    t->dry = false;
    t->gulps = GULPS_SHAKING;
    ERR_clear_error();
    int done = t->ended == 1 ? SSL_do_handshake(t->ssl) : 0;
    if (done == 1 && !t->up)
        came_up(t);
    else if (done != 1 && t->ended == 1 && SSL_get_error(t->ssl, done) != SSL_ERROR_WANT_READ)
        fail(t);
    int err = t->buffers->len || t->kept_len ? tls_flush(t) : 0;
    if (t->ended != 1)
        return t->ended == 0 ? -ECONNRESET : (int)t->ended;
    return t->up && err == 0 ? 0 : err < 0 ? err : -EAGAIN;
}

int64_t tls_read(struct tls *t, void *ret, size_t len, bool *ret_more)
{
    size_t got = 0;
    t->dry = false;
    t->gulps = GULPS_MAX;
    while (got < len && t->ended == 1) {
        size_t n = 0;
        ERR_clear_error();
        int done = SSL_read_ex(t->ssl, (uint8_t *)ret + got, len - got, &n);
        if (!t->up && SSL_is_init_finished(t->ssl))
            came_up(t);
        got += n;
        if (done == 1)
            continue;
        int error = SSL_get_error(t->ssl, done);
        if (error == SSL_ERROR_WANT_READ)
            break;
        if (error == SSL_ERROR_ZERO_RETURN)
            t->ended = 0;
        else
            fail(t);
    }
    if (t->up && t->ended == 1)
        rest(t, got);
    int err = t->buffers->len || t->kept_len ? tls_flush(t) : 0;
    if (err < 0 && err != -EAGAIN && got == 0)
        return err;
    if (got == 0 && t->ended != 1)
        return t->ended;
    *ret_more = !t->dry || t->ended != 1 || got == len;
    return got ? (int64_t)got : -EAGAIN;
}

/* ---- writing ---- */

int tls_put(struct tls *t, const void *bytes, size_t len)
{
    size_t n = 0;
    CHECK(t->up && len && len <= TLS_RECORD_MAX && !t->kept_len);
    ERR_clear_error();
    if (t->ended < 0)
        return (int)t->ended;
    if (SSL_write_ex(t->ssl, bytes, len, &n) == 1) {
        CHECK(n == len);
        return 0;
    }
    fail(t);
    return t->ended < 0 ? (int)t->ended : -EPROTO;
}

void tls_bye(struct tls *t)
{
    if (!t->up || t->said_bye || t->ended < 0 || t->kept_len)
        return;
    t->said_bye = true;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl); /* what it answers does not matter: nobody waits for the peer's */
    ERR_clear_error();
    (void)!tls_flush(t); /* also to a peer that has said goodbye already */
}
