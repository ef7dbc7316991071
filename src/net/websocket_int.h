/* websocket_int: what the files of a WebSocket share: its inside, and who calls whom. The loop's thread. */
#ifndef MILLRACE_NET_WEBSOCKET_INT_H
#define MILLRACE_NET_WEBSOCKET_INT_H

#include "base/utf8.h"
#include "net/websocket.h"

#define WEBSOCKET_HEAD_MAX 14u /* two bytes, eight of length, four of mask */
#define WEBSOCKET_CONTROL_MAX 125u
#define WEBSOCKET_IN_MIN (WEBSOCKET_HEAD_MAX + WEBSOCKET_CONTROL_MAX) /* a control frame */

enum opcode { OP_CONTINUATION = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

#define BIT_FIN 0x80u
#define BITS_RESERVED 0x70u
#define BIT_PACKED 0x40u /* RSV1 of RFC 7692 */
#define BIT_CONTROL 0x08u
#define BIT_MASK 0x80u

enum state {
    OPEN,
    LEAVING, /* the inner engine is done: its last bytes are on their way */
    CLOSING, /* our close frame is out, the peer's is not in */
    CLOSED,  /* nothing is said or heard any more */
};

struct websocket {
    const struct websocket_options *options;
    struct engine *outer;
    struct engine *inner; /* NULL: it has been let go */
    uint8_t *in;          /* unmasked and unpacked bytes that it left */
    size_t in_len, in_cap;
    uint64_t frame_left;  /* payload of the data frame that is still to come */
    uint64_t message_len; /* of the message, this frame included */
    uint8_t mask[4];
    uint8_t mask_at;
    uint8_t opcode; /* of the message that is coming; 0: none */
    bool fin;       /* its frame is the last one */
    bool text, text_out, going_away;
    uint8_t state;
    struct utf8 utf8; /* of the text message that is coming */
    mono_t deadline;  /* when not OPEN */
    mono_t heard_at, pinged_at;

    struct websocket_deflate *deflate; /* the loop's; NULL: nothing is packed */
    struct websocket_terms terms;
    struct websocket_inflate *inflate; /* a packed message is coming */
    uint64_t unpacked_len;             /* of it, so far */
    uint32_t unpack_now;               /* bytes that may still be unpacked before others have their turn */
    uint8_t tail_left;                 /* bytes that its sender has left off and it was not given yet */
    bool ends;                         /* all of it is here */
    bool held;                         /* some of it waits in the inflater, or in front of it, for the inner engine */
    uint8_t as_they_are; /* so many messages are not tried to be packed, since the last one did not become shorter */
};

/* ---- websocket.c ---- */

void websocket_put_control(struct websocket *ws, uint8_t opcode, struct slice payload);
/* Section 7.1.7: the peer has broken the rules. */
void websocket_fail(struct websocket *ws, enum websocket_code code, const char *reason);
void websocket_on_close(struct websocket *ws, struct slice payload);

/* ---- websocket_in.c ---- */

#define WEBSOCKET_UNPACK_NOW_MAX (64u * 1024)

/* May the inner engine be given bytes? */
bool websocket_may_feed(const struct websocket *ws);
/* Lets the engine have what it left. */
void websocket_feed_kept(struct websocket *ws);
void websocket_in_release(struct websocket *ws);
/* A frame's head, and the payload of a control frame with it. 0: more bytes are needed. */
size_t websocket_take_head(struct websocket *ws, struct slice bytes);
/* Payload of a data frame. 0: the inner engine takes no more for now. */
size_t websocket_take_payload(struct websocket *ws, struct slice bytes);
/* Goes on with a packed message as far as the inner engine takes it. False: some of it still waits. */
bool websocket_unpack_held(struct websocket *ws);
/* Would it go on, if it were not for others to have their turn? */
bool websocket_unpack_waits_for_its_turn(const struct websocket *ws);
/* The message is over, or nobody wants to know of it any more. */
void websocket_message_release(struct websocket *ws);

#endif
