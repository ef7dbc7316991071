/* websocket_deflate: how messages of WebSockets are packed and unpacked (permessage-deflate, RFC 7692 section 7.2): each for itself,
 * no side remembers the messages before ("no context takeover").
 *
 *   websocket_deflate_new ▸ { websocket_pack | websocket_inflate_begin ▸ { step }* ▸ end }* ▸ websocket_deflate_free
 *
 * A struct websocket_deflate is what the connections of a loop share: zlib's states for packing, which no message outlives, and a
 * state for unpacking, which one borrows while a packed message of it comes and the others have to make. So a connection that is
 * silent holds nothing. Nor can one message be told from the length of another, as it could if they were packed together.
 * Thread: the loop's. Memory is mem.h's, as that of connections.
 */
#ifndef MILLRACE_NET_WEBSOCKET_DEFLATE_H
#define MILLRACE_NET_WEBSOCKET_DEFLATE_H

#include "base/types.h"

#include <sys/uio.h>

#define WEBSOCKET_BITS_MIN 9u /* of a window for packing: zlib has no smaller one */
#define WEBSOCKET_BITS_OUT 12u
/* For unpacking: who can be asked to keep to so much is, so that a message that is half there costs 4 KiB and not 32. */
#define WEBSOCKET_BITS_IN 12u
#define WEBSOCKET_BITS_MAX 15u
#define WEBSOCKET_PACK_MIN 512u         /* a shorter message is one packet either way */
#define WEBSOCKET_PACK_MAX (64u * 1024) /* bytes of a message that is packed at once */

/* What was agreed with a client. Zeroed: nothing is packed. */
struct websocket_terms {
    uint8_t in_bits,
        out_bits;           /* of the windows: what the client packs with at most, and what it unpacks with at least */
    bool says_in, says_out; /* the answer names them */
};

struct websocket_deflate;
struct websocket_inflate; /* a packed message that is coming */

/* NULL: no memory. */
MUST_USE struct websocket_deflate *websocket_deflate_new(void);
/* Takes *d and NULLs it; *d may be NULL. No message is coming any more. */
void websocket_deflate_free(struct websocket_deflate **d);

/* The first n bytes of the pieces, packed: a loan until the next call. Nothing: it would not be shorter, or there is no memory.
 * n ≤ WEBSOCKET_PACK_MAX; bits: WEBSOCKET_BITS_MIN to WEBSOCKET_BITS_OUT. */
MUST_USE struct slice websocket_pack(struct websocket_deflate *d, unsigned bits, const struct iovec *pieces, size_t n);

/* NULL: no memory. */
MUST_USE struct websocket_inflate *websocket_inflate_begin(struct websocket_deflate *d, unsigned bits);
enum websocket_inflated {
    WEBSOCKET_INFLATED,
    WEBSOCKET_DAMAGED, /* these bytes are no packed message */
    WEBSOCKET_NO_MEMORY,
};

/* Takes bytes from the front of *packed, writes at most *len bytes, and says in *len how many. As many as there was room for: there
 * may be more, also without further bytes. Fewer: everything was taken. */
MUST_USE enum websocket_inflated websocket_inflate_step(struct websocket_inflate *m, struct slice *packed, uint8_t *to,
                                                        size_t *len);
/* Was it a whole message? Its sender leaves off WEBSOCKET_TAIL, which has to be given to it behind the others. */
MUST_USE bool websocket_inflate_whole(const struct websocket_inflate *m);
/* Takes *m and NULLs it; *m may be NULL. */
void websocket_inflate_end(struct websocket_deflate *d, struct websocket_inflate **m);

#define WEBSOCKET_TAIL "\x00\x00\xff\xff"
#define WEBSOCKET_TAIL_LEN 4u

#endif
