/* json_line: one flat JSON object on a line of its own, for tools that print many: begin ▸ { number | hex | text | flag }* ▸
 * end. Texts may be any bytes: what is no printable ASCII is escaped, a byte as the code point of its number. Any one thread.
 */
#ifndef MILLRACE_FMT_JSON_LINE_H
#define MILLRACE_FMT_JSON_LINE_H

#include "base/types.h"

#include <stdio.h>

/* {"kind": kind */
void json_line_begin(FILE *out, const char *kind);
void json_line_number(FILE *out, const char *key, uint64_t value);
void json_line_signed(FILE *out, const char *key, int64_t value);
/* The bytes in hexadecimal digits. */
void json_line_hex(FILE *out, const char *key, const uint8_t *bytes, size_t len);
void json_line_text(FILE *out, const char *key, const char *text);
void json_line_flag(FILE *out, const char *key, bool value);
void json_line_end(FILE *out);

#endif
