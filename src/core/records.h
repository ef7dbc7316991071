/* records: the journal records of the core, by name, and a printer for people. Pure functions, any thread. */
#ifndef MILLRACE_CORE_RECORDS_H
#define MILLRACE_CORE_RECORDS_H

#include "base/types.h"

enum record_type {
#define RECORD(name, number, fields) REC_##name = number,
#include "core/records.def"
#undef RECORD
};

enum enqueue_what { ENQ_SNAPSHOT = 1, ENQ_BODY = 2, ENQ_MOVE = 4 };

/* "ENQUEUE"; NULL when unknown. */
const char *record_name(uint8_t type);
/* One line about the record, truncated to len. */
void record_print(struct slice record, char *ret, size_t len);

#endif
