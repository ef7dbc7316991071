/* md5: RFC 1321, for names that others have made with it; it protects nothing. Pure function, any thread. */
#ifndef MILLRACE_FMT_MD5_H
#define MILLRACE_FMT_MD5_H

#include "base/types.h"

#define MD5_LEN 16

/* False: libcrypto refuses it (memory, or a policy of the system). */
MUST_USE bool md5(struct slice bytes, uint8_t ret[MD5_LEN]);

#endif
