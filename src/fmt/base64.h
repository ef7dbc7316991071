/* base64: RFC 4648 encoding and decoding, plain and url-safe without padding. Pure functions, any thread. */
#ifndef MILLRACE_FMT_BASE64_H
#define MILLRACE_FMT_BASE64_H

#include "base/types.h"

#define BASE64_LEN(n) (((n) + 2) / 3 * 4)

/* Writes BASE64_LEN(in.len) characters and a NUL. */
void base64_encode(struct slice in, char *ret);
/* Url-safe alphabet, no padding, NUL-terminated; returns the length. */
size_t base64_url_encode(struct slice in, char *ret);
/* Strict. Returns the number of bytes, or -1. */
int64_t base64_decode(struct slice in, uint8_t *ret, size_t max);

#endif
