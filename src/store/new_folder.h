/* new_folder: a data folder that is made in one step: everything is written to NAME.partial, which becomes NAME when it is
 * whole and synced. So what bears the name is whole, whenever the work is interrupted.
 *
 * Life cycle: new_folder_begin → write to new_folder->partial, sync files and sub-folders → new_folder_finish.
 * What an interrupted attempt has left in NAME.partial is removed by the next, if it is of our kinds only. Any one thread.
 */
#ifndef MILLRACE_STORE_NEW_FOLDER_H
#define MILLRACE_STORE_NEW_FOLDER_H

#include "journal/walk.h"
#include "os/os.h"

struct new_folder {
    struct os *os;
    char name[WAL_PATH_MAX], partial[WAL_PATH_MAX];
};

/* name must be absent or an empty folder. 0, or a negative errno and a sentence in why. */
MUST_USE int new_folder_begin(struct new_folder *folder, struct os *os, const char *name, char *why, size_t why_len);
MUST_USE int new_folder_finish(struct new_folder *folder, char *why, size_t why_len);

#endif
