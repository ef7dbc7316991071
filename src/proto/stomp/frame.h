/* frame: STOMP frames of 1.0, 1.1 and 1.2 as bytes: a parser that takes up where it left off, and what is needed to write them.
 *
 * Life cycle: a zeroed stomp_parser → stomp_parse again and again with what has not been consumed yet → stomp_frame_release
 * for each frame. A frame's slices point into the bytes that were parsed, or into its own block when escapes had to be
 * undone; they are loans until the release. Pure functions, any thread. https://stomp.github.io/stomp-specification-1.2.html
 */
#ifndef MILLRACE_PROTO_STOMP_FRAME_H
#define MILLRACE_PROTO_STOMP_FRAME_H

#include "base/types.h"

enum stomp_version { STOMP_UNKNOWN, STOMP_10, STOMP_11, STOMP_12, STOMP_VERSIONS };

#define STOMP_HEADERS_MAX 256u /* of one frame */

struct stomp_header {
    struct slice name, value;
};

struct stomp_frame {
    struct slice command, body;
    uint32_t header_count;
    bool has_length;                                /* content-length was given */
    uint8_t *decoded;                               /* where escapes were undone; NULL: there were none */
    struct stomp_header headers[STOMP_HEADERS_MAX]; /* of those with one name the first only */
};

/* How far the frame has come that begins with the first byte not consumed. */
struct stomp_parser {
    size_t scanned;    /* bytes that have been looked at */
    size_t line;       /* where the line begins that is not complete */
    size_t head_len;   /* 0: the end of the headers has not come */
    uint64_t body_len; /* UINT64_MAX: up to a NUL */
    uint32_t lines;
};

struct stomp_limits {
    uint32_t head_bytes_max; /* command and headers */
    uint32_t body_bytes_max;
};

enum stomp_parsed {
    STOMP_PARSED_MORE,  /* the frame is not complete */
    STOMP_PARSED_FRAME, /* ret is filled */
    STOMP_PARSED_EOL,   /* only what may stand between frames: a heart-beat */
    STOMP_PARSED_BAD,   /* why says what is wrong; nothing that follows can be understood */
    STOMP_PARSED_NO_MEMORY,
};

/* ret_used: how many bytes are done with; 0 for MORE and BAD. Line ends are LF, and CRLF in 1.2 and before a version is agreed;
 * escapes are undone from 1.1 on, but not in CONNECT (1.2, "Value Encoding"); 1.0 trims values. */
enum stomp_parsed stomp_parse(struct stomp_parser *parser, struct slice bytes, enum stomp_version version,
                              const struct stomp_limits *limits, struct stomp_frame *ret, size_t *ret_used,
                              const char **ret_why);
void stomp_frame_release(struct stomp_frame *frame);

/* False: there is none of that name. */
bool stomp_header_find(const struct stomp_frame *frame, const char *name, struct slice *ret);

/* Bytes of s with escapes as that version has them, at most 2 * s.len. */
size_t stomp_escaped_len(struct slice s, enum stomp_version version);
uint8_t *stomp_put_escaped(uint8_t *at, struct slice s, enum stomp_version version);

/* The version's number as it stands in headers: "1.2". */
const char *stomp_version_text(enum stomp_version version);

#endif
