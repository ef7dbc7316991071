/* outq: what a connection has to say: a queue of bytes, partly copied, partly lent by counted owners.
 *
 * Engines write into it, the connection (or a test) takes it out; it does no I/O. Small things are copied into chunks
 * (outq_room + outq_commit, or outq_put), large bodies are lent with a release function. It has an account, not a
 * maximum: engines may always answer, and whoever feeds them stops reading above OUTQ_HIGH (replies) while deliveries
 * are bounded by credit. A third kind is a piece of an open file, whose bytes only the connection reads. Thread: the loop's.
 */
#ifndef MILLRACE_NET_OUTQ_H
#define MILLRACE_NET_OUTQ_H

#include "base/file_piece.h"
#include "base/list.h"
#include "base/types.h"

#include <sys/uio.h>

#define OUTQ_CHUNK_LEN (16u * 1024)
#define OUTQ_HIGH (1024u * 1024)
#define OUTQ_LEND_MIN 4096u /* bodies below this are cheaper to copy than to lend */

struct outq {
    struct list pieces;
    size_t len;     /* bytes waiting, those in files too */
    uint32_t files; /* pieces of files among them */
    bool failed;    /* memory was refused: the connection must be closed */
};

void outq_init(struct outq *q);
void outq_fini(struct outq *q); /* releases everything */

/* Room for n ≤ OUTQ_CHUNK_LEN contiguous bytes; follow with outq_commit(used ≤ n). NULL: no memory (sets failed). */
MUST_USE uint8_t *outq_room(struct outq *q, size_t n);
void outq_commit(struct outq *q, size_t used);
/* Copies any number of bytes. */
void outq_put(struct outq *q, const void *bytes, size_t len);
/* Lends bytes: release(owner) is called exactly once when they have left or the queue dies. What arg points at outlives the
 * engine: the piece may have moved to another queue meanwhile. */
void outq_lend(struct outq *q, struct slice bytes, void (*release)(void *arg, void *owner), void *arg, void *owner);

/* Takes the piece and NULLs its file: the handle is given back when its bytes have left or the queue dies. */
void outq_lend_file(struct outq *q, struct file_piece *piece);

/* Moves the first n bytes of `from` behind what is in `to`, without copying what was lent; a loan may be cut in two, and is
 * given back when both parts have left. */
void outq_move_some(struct outq *from, struct outq *to, size_t n);

/* The first pieces as an iovec, up to a piece of a file; returns how many were filled. */
int outq_peek(const struct outq *q, struct iovec *ret, int max);
/* True: a piece of a file is what has to leave next, and *ret is what is left of it, a loan until outq_consume. */
bool outq_peek_file(const struct outq *q, struct file_piece *ret);
/* Is there a piece of a file that has no name any more? */
bool outq_has_orphan(const struct outq *q);
/* The first n bytes have left. */
void outq_consume(struct outq *q, size_t n);
/* What is in `from` leaves before what is in `to`; from is empty then. */
void outq_move(struct outq *from, struct outq *to);

#endif
