/* sql_scratch: the scratch files of queries (sql/query/scratch.h) in the data folder: each has no name from the moment it is there, so it is gone with the
 * query, or with the process, whatever ends that.
 *
 * Life cycle: sql_scratch_init → files, by sql_scratch_disk. Init at the boot, files on the thread of SQL.
 */
#ifndef MILLRACE_MAIN_SQL_SCRATCH_H
#define MILLRACE_MAIN_SQL_SCRATCH_H

#include "os/os.h"
#include "sql/query/scratch.h"

struct sql_scratch {
    struct os *os;
    const char *dir;
    uint64_t free_min;
    struct scratch_disk disk;
};

/* dir is a loan. What a process that was killed has left there is removed. free_min: disk that must stay free; 0: as watch.h works it out. */
void sql_scratch_init(struct sql_scratch *scratch, struct os *os, const char *dir, uint64_t free_min);
const struct scratch_disk *sql_scratch_disk(const struct sql_scratch *scratch);

#endif
