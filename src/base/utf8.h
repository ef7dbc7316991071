/* utf8: is it UTF-8 (RFC 3629)? Without overlong forms, surrogates and what lies beyond U+10FFFF. Pure, any thread. */
#ifndef MILLRACE_BASE_UTF8_H
#define MILLRACE_BASE_UTF8_H

#include "base/types.h"

/* How many bytes the character at the beginning takes; 0: none begins there, or it is cut off. */
size_t utf8_char(struct slice s);
bool utf8_valid(struct slice s);

#endif
