/* sql_show: what answers statements, for people and programs: tables, CSV, lines of JSON. Errors and what is done go to standard error.
 *
 *   sql_show_init ▸ { { sql_show_line }* ▸ sql_show_end }* ▸ sql_show_fini
 *
 * Rows of a table wait until they are many, or sql_show_rest is called because nothing more comes for the time being: so that columns are as
 * wide as they have to be. Numbers are shown with all their digits, as they came. One thread.
 */
#ifndef MILLRACE_MAIN_SHELL_SHOW_H
#define MILLRACE_MAIN_SHELL_SHOW_H

#include "fmt/json_scan.h"
#include "proto/http/sql_csv.h"

#include <stdio.h>

#define SQL_SHOW_COLUMNS_MAX 256u
#define SQL_SHOW_ROWS_MAX 1000u /* that wait */
#define SQL_SHOW_BYTES_MAX (4u << 20)

enum sql_show_form { SQL_FORM_TABLE, SQL_FORM_CSV, SQL_FORM_JSON };

struct sql_column {
    unsigned width;
    bool number;
    char *name;
};

struct sql_show {
    enum sql_show_form form;
    FILE *out, *err;
    unsigned columns_max; /* of the terminal; 0: nothing is cut */
    bool colours, err_colours, quiet;
    const char *title;  /* above a table's head; NULL: none */
    const char *hushed; /* SQLSTATE of errors that are not worth a word; NULL: there are none such */
    const char *file;   /* what the statement stands in; NULL: it was typed */
    unsigned line;      /* of it where the statement begins, from 1 */
    /* the table that is shown */
    struct sql_column columns[SQL_SHOW_COLUMNS_MAX];
    unsigned column_count;
    bool table, headed; /* there is one; its head was printed */
    bool unsaid;        /* of another form: something has not left yet */
    uint8_t *rows;      /* lines that wait, one behind the other */
    size_t rows_len, rows_room;
    unsigned row_count;
    uint8_t *cell; /* a decoded one */
    size_t cell_room;
    uint64_t shown; /* rows of this answer */
    struct sql_csv csv;
    bool failed; /* an error was shown, of this answer */
};

void sql_show_init(struct sql_show *s, enum sql_show_form form, FILE *out, FILE *err);
void sql_show_fini(struct sql_show *s);
/* A line of the answer. False: no memory, or `out` takes nothing more. */
MUST_USE bool sql_show_line(struct sql_show *s, struct slice line);
/* Whether rows wait. */
bool sql_show_waits(const struct sql_show *s);
MUST_USE bool sql_show_rest(struct sql_show *s);
/* The answer is over, or nobody wants the rest of it. */
bool sql_show_end(struct sql_show *s);
/* "ERROR: …" with what is said to standard error. */
__attribute__((format(printf, 2, 3))) void sql_show_error(struct sql_show *s, const char *format, ...);

/* Columns of a terminal that the text takes, when it is shown. */
unsigned sql_show_width(struct slice text);

#endif
