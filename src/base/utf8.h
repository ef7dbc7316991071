/* utf8: is it UTF-8 (RFC 3629)? Of a whole text, or of one that comes in pieces: { utf8_step }* → utf8_whole.
 *
 * No overlong forms, no surrogates, nothing above U+10FFFF; U+0000 is a character like others here. Pure functions, any thread.
 */
#ifndef MILLRACE_BASE_UTF8_H
#define MILLRACE_BASE_UTF8_H

#include "base/types.h"

/* Zeroed: at the beginning of a text. */
struct utf8 {
    uint8_t left;      /* bytes of the character that has begun which are still to come */
    uint8_t seen;      /* and how many of it have come */
    uint8_t low, high; /* what the next of them may be */
};

/* Goes on with more bytes of the text. False: no continuation makes it UTF-8, and the state is of no use any more. */
MUST_USE bool utf8_step(struct utf8 *u, struct slice bytes);
/* Does the text not end within a character? */
static inline bool utf8_whole(const struct utf8 *u)
{
    return u->left == 0;
}

MUST_USE bool utf8_valid(struct slice text);
/* How many bytes the character at the beginning takes; 0: none begins there, or it is cut off. */
MUST_USE size_t utf8_char(struct slice text);

#endif
