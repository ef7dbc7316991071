/* sql_csv: the lines of JSON that answer SQL, as CSV (RFC 4180): a line of column names, then one for each row. Pure functions, any thread.
 *
 *   a zeroed struct ▸ { sql_csv_step }*
 *
 * Bytes come in any pieces and nothing is kept of them, so a row may have any length. Texts are always in quotes, NULL is nothing at all;
 * arrays and objects are JSON within quotes. What follows another table is divided from it by an empty line.
 */
#ifndef MILLRACE_PROTO_HTTP_SQL_CSV_H
#define MILLRACE_PROTO_HTTP_SQL_CSV_H

#include "base/types.h"
#include "base/writer.h"

struct sql_csv {
    uint8_t state, after; /* where it goes on behind a text */
    uint8_t count;        /* of begin, of digits, of bytes to be passed over */
    bool told;            /* there was a table before */
    bool error;           /* a line was no row: an error, or a row was taken back, which a table cannot say */
    uint8_t begin[10];    /* of the line */
    uint16_t unit, high;  /* of \uXXXX; the first of a pair */
    uint32_t depth;
};

/* Consumes bytes while there is room for what they become; returns how many. */
size_t sql_csv_step(struct sql_csv *csv, struct slice bytes, struct writer *w);

#endif
