/* state: what operators remember, as bytes and back: a snapshot of a running query (docs/decisions/0012).
 *
 * An operator's op_kind has save and load. save writes everything that the operator's later rows depend on; load is called once, on a fresh operator
 * of the same plan, and reads exactly what save wrote. The order in which a hash table gives its entries must not change what comes out later.
 * Numbers are varints; the bytes are a format of people's stores: a change of an operator's fields raises its version (the first varint it writes, read
 * with state_get_version).
 *
 * Writing fails for good when memory or the taker fails; reading, when the bytes are not what was expected. Check once at the end. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_STATE_H
#define MILLRACE_SQL_QUERY_STATE_H

#include "base/types.h"

#define STATE_PIECE (256u * 1024)

/* Takes pieces of at most STATE_PIECE bytes, in order; the slice is a loan. False: no more. */
typedef bool (*state_take)(void *arg, struct slice piece);
/* The next piece; it stays until the next call. False: there is none, or it cannot be had. */
typedef bool (*state_give)(void *arg, struct slice *ret_piece);

struct state_writer {
    state_take take;
    void *arg;
    uint8_t *piece;
    size_t len;
    bool failed;
};

/* False: no memory. */
MUST_USE bool state_writer_init(struct state_writer *w, state_take take, void *arg);
void state_put(struct state_writer *w, const void *bytes, size_t len); /* may span pieces */
void state_put_varint(struct state_writer *w, uint64_t v);
void state_put_signed(struct state_writer *w, int64_t v);     /* zigzag */
void state_put_slice(struct state_writer *w, struct slice s); /* with its length */
void state_writer_flush(struct state_writer *w);              /* hands over what there is, as a piece */
/* Hands over the last piece and frees. False: it failed, then or before. */
MUST_USE bool state_writer_end(struct state_writer *w);

struct state_reader {
    state_give give;
    void *arg;
    struct slice left;
    bool failed;
    uint64_t strange; /* a version that this program does not know: then it has failed, too; 0: none was met */
};

void state_reader_init(struct state_reader *r, state_give give, void *arg);
void state_get(struct state_reader *r, void *ret, size_t len); /* zeroes after a failure */
uint64_t state_get_varint(struct state_reader *r);
int64_t state_get_signed(struct state_reader *r);
/* 1 to newest; 0: it has failed. */
uint64_t state_get_version(struct state_reader *r, uint64_t newest);
/* A length that the caller makes room for; at most max, else the reader fails and 0 is given. */
size_t state_get_len(struct state_reader *r, size_t max);
/* False: it failed, or something is left. */
MUST_USE bool state_reader_end(struct state_reader *r);

#endif
