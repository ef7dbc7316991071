/* tls: one connection's TLS, between its socket and its engine: bytes of the peer decrypted, ours encrypted.
 *
 * Life cycle: tls_new when the connection begins, or when the first bytes of a plain one were those of TLS (`early`) →
 * tls_read whenever the socket may be read, which also shakes hands → tls_put and tls_flush once tls_is_up → tls_bye → tls_free.
 * Never blocks; what the socket does not take is kept here (tls_owes), and nothing may be put before that has left.
 * Thread: the loop's, whose buffers all its connections share, one at a time within one call (put … flush).
 */
#ifndef MILLRACE_NET_TLS_H
#define MILLRACE_NET_TLS_H

#include "net/tls_server.h"

#define TLS_RECORD_MAX 16384u /* bytes of plaintext in one record */
#define TLS_BATCH_RECORDS 8u  /* sent at once */

/* What a loop lends its connections while they write. */
struct tls_buffers;

MUST_USE struct tls_buffers *tls_buffers_new(void);
void tls_buffers_free(struct tls_buffers **buffers);
/* TLS_RECORD_MAX bytes, to put small pieces together in. */
uint8_t *tls_buffers_record(struct tls_buffers *buffers);

/* The socket: as os_recv and os_send_pieces; 0 from recv is its end. */
struct tls_pipe {
    int64_t (*recv)(void *arg, void *ret, size_t len);
    int64_t (*send)(void *arg, const void *bytes, size_t len);
    void *arg;
};

struct tls;

/* early: what was read before anybody knew, copied. The server and the buffers outlive it. NULL: no memory. */
MUST_USE struct tls *tls_new(struct tls_server *server, struct tls_buffers *buffers, const struct tls_pipe *pipe,
                             struct slice early);
void tls_free(struct tls **tls);

/* Bytes of the peer: a count; 0: its end; -EAGAIN: none yet; -EPROTO: TLS cannot go on (tls_failure), a last word to the peer
 * may have been said; another negative errno: the socket's. *ret_more: the socket, or what was read of it, may hold more. */
MUST_USE int64_t tls_read(struct tls *tls, void *ret, size_t len, bool *ret_more);
/* Shakes hands without reading further: 0: done; else as tls_read. tls_read does it, too. */
MUST_USE int tls_shake(struct tls *tls);
/* Hands are shaken: from now on bytes can be put. */
bool tls_is_up(const struct tls *tls);
uint32_t tls_handshake_ms(const struct tls *tls);
/* Who a verified certificate says the peer is; NULL: nobody. Lives as long as tls. */
const char *tls_user(const struct tls *tls);
/* Why nobody, when there is a certificate; why TLS cannot go on; what to do about it (may be empty). */
const char *tls_failure(const struct tls *tls);
const char *tls_advice(const struct tls *tls);

/* Encrypts at most TLS_RECORD_MAX bytes, as one record; at most TLS_BATCH_RECORDS times before a flush, and not while
 * something is owed. 0 or -EPROTO. */
MUST_USE int tls_put(struct tls *tls, const void *bytes, size_t len);
/* Sends what was put. 0; -EAGAIN: the socket is full, the rest is owed; another negative errno: it is gone. */
MUST_USE int tls_flush(struct tls *tls);
bool tls_owes(const struct tls *tls);
/* Says that nothing more will come, as far as the socket takes it. */
void tls_bye(struct tls *tls);
/* Bytes that it holds beside the library's own. */
size_t tls_memory(const struct tls *tls);

#endif
