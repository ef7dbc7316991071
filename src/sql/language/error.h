/* error: what is wrong with a statement: where it is, and what was expected; which name may have been meant base/nearest.h finds out.
 *
 *   sql_error_set (the first one stays) ▸ sql_error_print
 *
 * Any one thread; nothing is allocated.
 */
#ifndef MILLRACE_SQL_LANGUAGE_ERROR_H
#define MILLRACE_SQL_LANGUAGE_ERROR_H

#include "base/nearest.h"
#include "base/types.h"
#include "base/writer.h"

enum sql_fault {
#define FAULT(name, state, text) SQL_FAULT_##name,
#include "sql/language/faults.def"
#undef FAULT
    SQL_FAULTS
};

struct sql_error {
    enum sql_fault fault; /* SQL_FAULT_NONE: none yet */
    uint32_t at, len;     /* bytes in the statement's text */
    char message[320];
    char hint[160]; /* empty: none */
};

/* The five characters of SQLSTATE, and a sentence. */
const char *sql_fault_state(enum sql_fault fault);
const char *sql_fault_text(enum sql_fault fault);

/* Does nothing when there is an error already. */
void sql_error_set(struct sql_error *error, enum sql_fault fault, uint32_t at, uint32_t len, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* Adds a hint to the error that was just set. */
void sql_error_hint(struct sql_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Three or four lines: the message, the line of the text with a caret below the place, the hint. */
void sql_error_print(const struct sql_error *error, struct slice text, struct writer *out);

/* Equal but for the case of ASCII letters. */
bool name_equal(struct slice a, struct slice b);

#endif
