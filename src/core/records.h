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
/* The places (queue id and position) into which a record puts messages, those of a transaction included; pieces of an
 * oversize record are not looked into. snapshot: written by a compaction, not by a publish. False: it does not parse. */
bool record_targets(struct slice record, void (*each)(void *arg, uint64_t queue, uint64_t position, bool snapshot),
                    void *arg);
/* The first lsn of the snapshot that is complete with this record; 0: it is no CHECKPOINT. */
lsn_t record_checkpoint(struct slice record);
/* A REMOVE of one run. ret has RECORD_REMOVE_MAX bytes; the answer is how many were used. */
#define RECORD_REMOVE_MAX 40u
size_t record_remove(uint8_t *ret, uint64_t queue, uint64_t first, uint64_t last);
/* A record without effect, behind which pieces that came before are loose: what stands at a place where records are missing. */
size_t record_nothing(uint8_t *ret);
/* One line about the record, truncated to len. */
void record_print(struct slice record, char *ret, size_t len);

#endif
