/* lines: lines of JSON that grow: what a request is answered with, until it has been said.
 *
 *   lines_init ▸ { lines_put* | lines_room … ▸ lines_drop }* ▸ lines_fini
 *
 * A failure (no memory, or beyond the maximum) is sticky. One thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_LINES_H
#define MILLRACE_SQL_LANGUAGE_LINES_H

#include "sql/language/column.h"

struct lines {
    uint8_t *bytes;
    size_t len, room, max;
    bool failed;
};

void lines_init(struct lines *l, size_t max);
void lines_fini(struct lines *l);
void lines_put(struct lines *l, const void *bytes, size_t len);
void lines_text(struct lines *l, const char *json);  /* as it is */
void lines_string(struct lines *l, struct slice s);  /* in quotes, escaped */
void lines_name(struct lines *l, struct slice name); /* in double quotes, as SQL has it */
void lines_number(struct lines *l, int64_t v);
/* Room for len bytes, to be filled. NULL: the lines have failed. */
uint8_t *lines_room(struct lines *l, size_t len);
/* The first len bytes are said. */
void lines_drop(struct lines *l, size_t len);

#endif
